"""Plans of every model and key, as the linter takes them: two engines come to the same rows and carry the same quotas."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import date
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st
from tariffs import DIRECTIONS, FIRST, PERIOD, TAX, USAGE, world

from core.periods import local_day_start
from rating import engine, frozen, recomputation
from rating.inputs import Terms
from rating.quotas import Pool, later

EXAMPLES = 100_000 if os.environ.get("RATEMILL_NIGHTLY") else 300
def recomputed(documents: list[dict[str, Any]], inputs: engine.Inputs
               ) -> tuple[list[dict[str, Any]], dict[int, list[tuple[str, str, int]]]]:
    terms = Terms(inputs.subscriptions, {row.id: 1 for row in inputs.subscriptions}, inputs.catalogue, [])
    usage = [{"subscription": number, "zone": row.zone, "class": row.class_, **row._asdict()}
             for number, rows in inputs.usage.items() for row in rows]
    slots = [{"subscription": number, "slot": local_day_start(FIRST, "Asia/Kolkata") + 50 * 3_600_000 + 300_000 * index,
              "direction": direction, "octets": int(octets)}
             for number, both in inputs.slots.items() for direction in DIRECTIONS
             for index, octets in enumerate(getattr(both, direction))]
    tax = [{"category": name, "percent": str(percent), "from": "2000-01-01"} for name, percent in TAX]
    rows, carried = recomputation.rated(PERIOD, frozen.rows_of_terms(terms), documents, tax, usage, slots)
    return sorted(rows, key=_key), carried


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("plan", "plan_version", "start", "end", "line", "kind"))


def check_both_engines(drawn: tuple[list[dict[str, Any]], engine.Inputs]) -> None:
    documents, inputs = drawn
    note(str(inputs.subscriptions))
    one = engine.rate(inputs)
    two, carried = recomputed(documents, inputs)
    first = sorted(({"class" if name == "class_" else name: value for name, value in row._asdict().items()}
                    for row in one.charges), key=_key)
    assert first == two
    assert {number: sorted(map(tuple, rows)) for number, rows in one.carried.items()} == \
        {number: sorted(rows) for number, rows in carried.items()}


@pytest.mark.timeout(0)
@given(world())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_both_engines_come_to_the_same(drawn: tuple[list[dict[str, Any]], engine.Inputs]) -> None:
    check_both_engines(drawn)


@given(world(), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_how_usage_is_cut_and_ordered_changes_nothing(drawn: tuple[list[dict[str, Any]], engine.Inputs], random: Any) -> None:
    _, inputs = drawn
    cut = {}
    for number, rows in inputs.usage.items():
        pieces = []
        for row in rows:
            part = random.randint(0, row.octets)
            pieces += [row._replace(octets=part), row._replace(octets=row.octets - part)]
        random.shuffle(pieces)
        cut[number] = pieces
    again = engine.rate(engine.Inputs(inputs.period, inputs.subscriptions, inputs.catalogue, cut, inputs.slots,
                                      inputs.percent_on))
    assert again.charges == engine.rate(inputs).charges


@given(world())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_bounds_hold_and_nobody_is_paid_by_a_discount(drawn: tuple[list[dict[str, Any]], engine.Inputs]) -> None:
    _, inputs = drawn
    for subscription in inputs.subscriptions:
        stretch = engine.stretch_of(subscription, inputs.catalogue, PERIOD)
        assume(stretch is not None)
        assert stretch is not None
        rows = engine.charge(stretch, inputs.usage.get(subscription.id, ()), inputs.slots.get(subscription.id, engine.NO_SLOTS),
                             inputs.percent_on)
        before = sum(engine.amount_of(row) for row in rows if row.kind != "discount")
        assert before >= 0
        assert sum(engine.amount_of(row) for row in rows) >= 0
        for line in stretch.plan.maximums:
            listed = [row for row in rows if row.kind not in ("maximum", "discount", "quota")
                      and (not line.lines or row.line in line.lines)]
            (bound,) = (row for row in rows if row.line == line.name)
            most = stretch.plan.round(Fraction(line.amount) * 10 ** engine.money.minor_digits(stretch.plan.currency)
                                      * engine.share_of(stretch, line.share))
            assert sum(map(engine.amount_of, [*listed, bound])) <= most + 1


@given(world(), st.lists(USAGE, min_size=3, max_size=3))
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_quotas_that_roll_over_cover_no_more_than_was_given(
        drawn: tuple[list[dict[str, Any]], engine.Inputs], months: list[list[engine.Usage]]) -> None:
    _, inputs = drawn
    subscription = replace(inputs.subscriptions[0], carried=(), start=date(2026, 1, 1), end=None)
    covered = given_octets = 0
    period = PERIOD
    for usage in months:
        stretch = engine.stretch_of(subscription, inputs.catalogue, period)
        assert stretch is not None
        pool = Pool([stretch])
        pool.use(stretch, usage)
        covered += sum(pool.used(stretch, quota) for quota in stretch.plan.quotas)
        given_octets += sum(quota.volume for quota in stretch.plan.quotas if quota.given == "each_period")
        assert covered <= given_octets
        left = pool.left(stretch)
        for quota in stretch.plan.quotas:
            assert sum(row.octets for row in left if row.quota == quota.name) <= quota.rollover_cap
        subscription = replace(subscription, carried=tuple(left))
        period = later(period, 1)
