"""Plans of every model and key, as the linter takes them: two engines come to the same rows and carry the same quotas."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import date
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st

from core.periods import local_day_start
from core.toml_lines import Lines
from rating import engine, frozen, linter, plans, recomputation
from rating.inputs import Terms
from rating.quotas import Carried, Pool, later

EXAMPLES = 100_000 if os.environ.get("RATEMILL_NIGHTLY") else 300
PERIOD, FIRST, END = "2026-02", date(2026, 2, 1), date(2026, 3, 1)
ZONES, CLASSES, DIRECTIONS = ("day", "night"), ("default", "peering"), ("up", "down")
SURROUNDINGS = linter.Surroundings(frozenset({"standard", "reduced"}), frozenset(CLASSES), {"c": frozenset(ZONES)})
TAX = [("standard", Fraction(19)), ("reduced", Fraction("5.5"))]
CALENDAR = {"name": "c", "from": date(2020, 1, 1), "zones": [{"name": "day", "start": "08:00", "end": "20:00"},
                                                              {"name": "night", "default": True}]}
SHARE = st.sampled_from(plans.SHARES)
DAY = st.dates(date(2025, 6, 1), date(2026, 6, 1)) | st.dates(FIRST, END)
PRICE = st.sampled_from(["0", "0.01", "0.005", "1", "3.333", "19.90", "100.000000001"])
VOLUME = st.sampled_from(["1 B", "7 kB", "1 MB", "10 MB", "33 MiB", "100 MB", "1 GB"])
OCTETS = st.integers(0, 2 * 10**9) | st.sampled_from([0, 1, 10**6, 10**7, 10**8, 10**9])


@st.composite
def some(draw: st.DrawFn, keys: dict[str, st.SearchStrategy[Any]]) -> dict[str, Any]:
    """Some of these keys."""
    return {name: draw(value) for name, value in keys.items() if draw(st.booleans())}


@st.composite
def meter(draw: st.DrawFn, lists: bool) -> dict[str, Any]:
    found = {"direction": draw(st.sampled_from(plans.DIRECTIONS)),
             **draw(some({"classes": st.just(["peering"]), "zones": st.just(["day"])}))}
    return found if lists else {"classes": [], "zones": [], **found}


@st.composite
def traffic(draw: st.DrawFn) -> dict[str, Any]:
    line = {**draw(meter(lists=True)), "included": draw(VOLUME), "above": draw(st.sampled_from(plans.ABOVE)),
            "sampled": draw(st.sampled_from(plans.SAMPLED))}
    kind = draw(st.sampled_from(["unit", "block", "tiers"]))
    if kind == "unit":
        return {**line, "price": draw(PRICE), "unit": draw(st.sampled_from(["GB", "MiB", "B"]))}
    if kind == "block":
        return {**line, "price": draw(PRICE), "block": draw(VOLUME)}
    ends = draw(st.sampled_from([[], ["5 MB"], ["1 MB", "33 MiB"], ["1 B", "2 MB", "1 GB"]]))
    tiers = [{"price": draw(PRICE), **draw(some({"flat": PRICE, "block": VOLUME})), **({"to": end} if end else {})}
             for end in [*ends, ""]]
    return {**line, "model": draw(st.sampled_from(plans.MODELS)), "unit": draw(st.sampled_from(["GB", "kB"])), "tiers": tiers}


FEE = st.fixed_dictionaries({
    "amount": PRICE, "every": st.sampled_from(plans.EVERY), "when": st.sampled_from(plans.WHEN),
    "proration": st.sampled_from(plans.PRORATION)}, optional={"during": st.sampled_from(plans.DURING)})
ONCE = st.fixed_dictionaries({"on": st.sampled_from(plans.ON), "amount": PRICE})
EARLY = st.fixed_dictionaries({"on": st.just("early_end"), "percent": st.sampled_from(["50", "33.3"])})
QUOTA = st.builds(lambda where, more: {**where, **more}, meter(lists=True), st.fixed_dictionaries({"volume": VOLUME}, optional={
    "given": st.sampled_from(plans.GIVEN), "share": SHARE, "priority": st.integers(0, 2),
    "rollover": st.fixed_dictionaries({"cap": VOLUME, "periods": st.integers(1, 3)})}))
BOUND = st.fixed_dictionaries({"amount": PRICE, "share": SHARE})
DISCOUNT = st.builds(
    lambda what, more: {**what, **more},
    st.sampled_from([{"percent": "10"}, {"percent": "100"}, {"percent": "33.3"}, {"amount": "5.00"}, {"amount": "0.333"}]),
    st.fixed_dictionaries({}, optional={
        "after_months": st.integers(1, 3), "months": st.integers(1, 4), "beside": st.just(["tv"]),
        "starts_from": st.just(date(2025, 12, 1)), "starts_until": st.just(date(2026, 2, 15))}))
PERCENTILE = st.fixed_dictionaries({
    "percentile": st.sampled_from([95, "99.9", 100, 50]), "convention": st.sampled_from(plans.CONVENTIONS),
    "missing": st.sampled_from(plans.MISSING), "committed": st.sampled_from(["0 bit/s", "1 Mbit/s"]), "price": PRICE,
    "unit": st.sampled_from(["Mbit/s", "kbit/s"])})


@st.composite
def plan(draw: st.DrawFn, name: str, currency: str, addon: bool = False) -> dict[str, Any]:
    """A plan of plans.toml, its lines named by kind and number."""
    found: dict[str, Any] = {
        "name": name, "from": date(2020, 1, 1), "currency": currency, "tax": "standard",
        "prices": draw(st.sampled_from(plans.PRICES)), "contract": {"months": draw(st.integers(1, 18))},
        **draw(some({"billing_day": st.sampled_from([1, 2, 15, 29, 31, "anniversary"]),
                     "rounding": st.sampled_from(list(plans.ROUNDING))}))}
    kinds = {"fee": FEE, "once": ONCE, "quota": QUOTA, "minimum": BOUND, "maximum": BOUND, "discount": DISCOUNT}
    if addon:
        found["addon"] = True
    else:
        found["calendar"] = "c"
        kinds |= {"traffic": traffic(), "percentile": PERCENTILE}
    for kind, strategy in kinds.items():
        found[kind] = draw(st.lists(strategy, max_size=1 if strategy is BOUND else 2))  # type: ignore[var-annotated]
    if not addon and not found["traffic"]:
        found["quota"] = []
    if addon:  # its quotas are of the whole of the service's traffic: zones are a calendar's
        for line in found["quota"]:
            line.pop("zones", None)
        found["discount"] = [{**line, "of": draw(st.sampled_from(["own", "service"]))} for line in found["discount"]]
    for line in found["quota"]:
        if line.get("given") == "once":
            line.pop("share", None)
    monthly = [number for number, fee in enumerate(found["fee"]) if fee["every"] != "day"]
    for fee in found["fee"]:
        if fee["every"] == "day" and fee["proration"] == "thirty_day_month":
            fee["proration"] = "actual_days"
    if monthly and draw(st.booleans()):
        found["once"] = [*found["once"], {**draw(EARLY), "of": f"fee {monthly[0]}"}]
    for kind in kinds:
        found[kind] = [{"name": f"{kind} {number}", **line} for number, line in enumerate(found[kind])]
    named = [line["name"] for kind in ("fee", "once", "traffic", "percentile") for line in found.get(kind, ())]
    for kind in ("minimum", "maximum", "discount"):
        for line in found[kind]:
            if named and draw(st.booleans()) and line.get("of", "own") == "own":
                line["lines"] = draw(st.lists(st.sampled_from(named), min_size=1, max_size=2, unique=True))
    for least, most in zip(found["minimum"], found["maximum"], strict=False):
        least["amount"], most["amount"] = sorted([least["amount"], most["amount"]], key=Fraction)
    if not draw(st.integers(0, 3)) and not any(found[kind] for kind in ("minimum", "maximum", "discount")):
        for fee in found["fee"]:
            fee["tax"] = "reduced"
    return found


@st.composite
def span(draw: st.DrawFn) -> tuple[date | None, date | None]:
    start, end = draw(st.none() | DAY), draw(st.none() | DAY)
    return (start, end) if start is None or end is None or start < end else (end, start if start != end else None)


@st.composite
def pauses(draw: st.DrawFn) -> tuple[engine.Pause, ...]:
    days = sorted(draw(st.sets(DAY, max_size=6)))
    found = [engine.Pause(one, two, draw(st.sampled_from(["suspension", "vacation"])))
             for one, two in pairwise(days) if draw(st.booleans())]
    return tuple(found)


USAGE = st.lists(st.builds(engine.Usage, st.sampled_from([None, *ZONES]), st.sampled_from(CLASSES),
                           st.sampled_from(DIRECTIONS), st.booleans(), OCTETS), max_size=8)
CARRIED = st.lists(st.tuples(st.sampled_from(["quota 0", "quota 1"]), st.sampled_from(["2026-01", "2026-02", "2026-04"]),
                             st.integers(1, 10**8)), max_size=3, unique_by=lambda row: row[:2])


@st.composite
def world(draw: st.DrawFn) -> tuple[list[dict[str, Any]], engine.Inputs]:
    """A service with up to two plans in turn and up to two add-ons, and its February."""
    currency = draw(st.sampled_from(["EUR", "JPY", "KWD"]))
    tables = [draw(plan("one", currency)), draw(plan("two", currency)), draw(plan("more", currency, addon=True)),
              draw(plan("other", currency, addon=True))]
    documents = linted(tables)
    zone = draw(st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kolkata"]))
    beside = draw(st.lists(st.builds(lambda days: engine.Beside("tv", *days), span()), max_size=2))
    start, end = draw(span())
    change = draw(st.none() | DAY)
    rows = [("one", start, end)]
    if change and (start is None or start < change) and (end is None or change < end):
        rows = [("one", start, change), ("two", change, end)]
    rest = draw(pauses())
    found = [engine.Subscription(
        number, "S", name, since, until, zone, currency, is_first=number == 1,
        previous=None if number == 1 else "one", has_next=number < len(rows), pauses=rest,
        carried=tuple(Carried(*row) for row in draw(CARRIED)), beside=tuple(beside))
        for number, (name, since, until) in enumerate(rows, 1)]
    for number, name in enumerate(draw(st.lists(st.sampled_from(["more", "other"]), max_size=2, unique=True)), 1):
        since = draw(DAY)
        until = draw(st.none() | DAY)
        found.append(engine.Subscription(
            -number, "S", name, since, until if until and until > since else None, zone, currency, is_first=True, pauses=rest,
            is_addon=True, quantity=draw(st.integers(1, 3)), carried=tuple(Carried(*row) for row in draw(CARRIED)),
            beside=tuple(beside)))
    slots = {number: engine.Slots(*(np.array(draw(st.lists(OCTETS, min_size=3, max_size=3)), np.int64) for _ in range(2)))
             for number in (1, 2)}
    catalogue = plans.Catalogue(plans.parse(document) for document in documents)
    percents = dict(TAX)
    return documents, engine.Inputs(PERIOD, found, catalogue, {1: draw(USAGE), 2: draw(USAGE)}, slots,
                                    lambda tax, day: percents[tax])


def linted(tables: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The documents that the linter makes of these tables."""
    found = linter.Linted()
    linter._Judge("plans.toml", Lines(""), SURROUNDINGS, found).judge({"calendar": [CALENDAR], "plan": tables})
    assert not found.problems, found.problems
    return found.plans


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
