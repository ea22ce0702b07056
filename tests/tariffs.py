"""Random plans of every model and key, as the linter takes them, with subscriptions and usage of a February."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from core.toml_lines import Lines
from rating import engine, linter, plans
from rating.quotas import Carried

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
