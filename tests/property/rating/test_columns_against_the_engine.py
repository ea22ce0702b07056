"""Many subscriptions at once: columns are what the engine gives one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tariffs import CLASSES, DIRECTIONS, FEE, OCTETS, ONCE, PERIOD, TAX, ZONES, linted, traffic, world

from core import schemas
from rating import columns, engine, plans

KEYS = [(zone, class_, direction, sampled) for zone in (None, *ZONES) for class_ in CLASSES for direction in DIRECTIONS
        for sampled in (False, True)]


@st.composite
def simple_plan(draw: st.DrawFn, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name, "from": date(2020, 1, 1), "currency": "EUR", "tax": draw(st.sampled_from(["standard", "reduced"])),
        "prices": draw(st.sampled_from(plans.PRICES)), "calendar": "c", "contract": {"months": 6}}
    for kind, strategy in (("fee", FEE), ("once", ONCE), ("traffic", traffic())):
        lines: list[dict[str, Any]] = draw(st.lists(strategy, max_size=3))  # type: ignore[arg-type]
        found[kind] = [{"name": f"{kind} {number}", **line} for number, line in enumerate(lines)]
    for fee in found["fee"]:
        if fee["every"] == "day" and fee["proration"] == "thirty_day_month":
            fee["proration"] = "none"
    return found


@st.composite
def crowd(draw: st.DrawFn) -> tuple[engine.Inputs, columns.UsageColumns]:
    """Services of a few plans and dates, some without a plan, some with a pause."""
    documents = linted([draw(simple_plan("one")), draw(simple_plan("two"))])
    starts = draw(st.lists(st.none() | st.dates(date(2025, 11, 1), date(2026, 3, 1)), min_size=1, max_size=3))
    rows = []
    for number in range(draw(st.integers(0, 12))):
        start = draw(st.sampled_from(starts))
        pause = (engine.Pause(date(2026, 2, 3), date(2026, 2, 9), "vacation"),) if draw(st.integers(0, 5)) == 0 else ()
        rows.append(engine.Subscription(
            number, f"S{draw(st.integers(0, 99)):02d}-{number}", draw(st.sampled_from(["one", "two", None])), start,
            draw(st.sampled_from([None, date(2026, 2, 20), date(2026, 4, 1)])), "Europe/Berlin", "EUR",
            is_first=draw(st.booleans()), pauses=pause))
    rows = [row for row in rows if row.start is None or row.end is None or row.start < row.end]
    usage = [(number, key, draw(OCTETS)) for number in range(14)
             for key in sorted(draw(st.sets(st.integers(0, len(KEYS) - 1), max_size=4)))]
    percents = dict(TAX)
    inputs = engine.Inputs(PERIOD, draw(st.permutations(rows)), plans.Catalogue(map(plans.parse, documents)), {}, {},
                           lambda tax, day: percents[tax])
    return inputs, _columns(usage)


def _columns(usage: list[tuple[int, int, int]]) -> columns.UsageColumns:
    each = [np.array([row[index] for row in usage], kind) for index, kind in enumerate((np.int64, np.int32, np.int64))]
    return columns.UsageColumns(*each, KEYS)


def _by_engine(inputs: engine.Inputs, usage: columns.UsageColumns) -> engine.Rated:
    found: dict[int | None, list[engine.Usage]] = {}
    for number, key, octets in zip(*(array.tolist() for array in usage[:3]), strict=True):
        found.setdefault(number, []).append(engine.Usage(*KEYS[key], octets))
    return engine.rate(replace(inputs, usage=found))


def _check(inputs: engine.Inputs, usage: columns.UsageColumns) -> None:
    one, many = _by_engine(inputs, usage), columns.rate(inputs, usage)
    assert many.charges.schema == schemas.CHARGES
    assert many.charges.to_pylist() == columns.table_of(one.charges).to_pylist()
    for name in ("rated_octets", "without_plan_octets", "sampled_refused_octets", "stretches", "carried"):
        assert getattr(many, name) == getattr(one, name), name
    sums, carried = columns.totals(inputs, usage)
    assert carried == one.carried
    assert int(sums.net.sum()) == sum(row.net_minor for row in one.charges)
    assert int(sums.refused.sum()) == one.sampled_refused_octets
    for number, net, gross in zip(sums.subscription.tolist(), sums.net.tolist(), sums.gross.tolist(), strict=True):
        (row,) = (row for row in inputs.subscriptions if row.id == number)
        if sum(other.service == row.service for other in inputs.subscriptions) == 1:
            mine = [charge for charge in one.charges if charge.service == row.service]
            assert (net, gross) == columns._totals_of(mine, inputs)


@given(crowd())
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_crowd_is_charged_as_each_of_it_would_be(drawn: tuple[engine.Inputs, columns.UsageColumns]) -> None:
    _check(*drawn)


@given(world(), crowd())
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_services_of_every_model_may_be_among_it(
        odd: tuple[list[dict[str, Any]], engine.Inputs], drawn: tuple[engine.Inputs, columns.UsageColumns]) -> None:
    inputs, usage = drawn
    others = [replace(row, id=row.id + 20 if row.id > 0 else row.id, carried=()) for row in odd[1].subscriptions]
    renamed = [replace(plan, name=f"odd {plan.name}") for plan in odd[1].catalogue.all()]
    others = [replace(row, plan=f"odd {row.plan}") for row in others]
    _check(replace(inputs, subscriptions=[*inputs.subscriptions, *others],
                   catalogue=plans.Catalogue([*inputs.catalogue.all(), *renamed])), usage)


@pytest.mark.parametrize("price", ["0.000000001", "999999999999999.999999999", "3.333", "100"])
@pytest.mark.parametrize("unit", ["B", "GB", "TiB"])
def test_amounts_and_texts_that_64_bits_do_not_hold(price: str, unit: str) -> None:
    line = plans.Traffic("T", "down", (), (), 0, "excess", price, unit, "allow")
    octets = [0, 1, 999, 10**3, 10**9 - 1, 10**9, 2**40, 2**40 + 1, 10**15 + 7, 2**53]
    billed = np.array(octets, np.int64)
    if unit == "B" and len(price) > 15:
        octets, billed = octets[:3], billed[:3]  # the amount itself has to fit
    minor = [engine.money.round_half_up(Fraction(price) * 100 * one / line.unit_octets) for one in octets]
    if max(minor) < 2**63:
        assert columns.amounts(billed, line, "EUR").tolist() == minor
    assert columns.quantities(billed, line).to_pylist() == [
        engine.decimal_text(Fraction(one, line.unit_octets)) for one in octets]
