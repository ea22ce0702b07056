"""The engine and the second engine (`rating.recomputation`) agree with tests/oracles/slow_rating.py on random bills."""

from __future__ import annotations

import importlib.util
import itertools
from collections import defaultdict
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rating import engine, plans, recomputation

_spec = importlib.util.spec_from_file_location("slow_rating", Path(__file__).parents[2] / "oracles" / "slow_rating.py")
assert _spec is not None
assert _spec.loader is not None
slow_rating: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(slow_rating)

ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "UTC",
    "Pacific/Chatham",
    "America/St_Johns",
]
MONTHS = [(2026, 10), (2026, 3), (2024, 2), (2025, 2), (2026, 11), (2026, 4), (2025, 12), (2026, 1)]
USAGE_ZONES = ["day", "night", None]
CLASSES = ["default", "peering"]
prices = (
    st.decimals(0, 1000, places=2).map(str)
    | st.decimals(0, 3, places=7).map(str)
    | st.sampled_from(["0", "19.95", "0.005"])
)


@st.composite
def plan_documents(draw: st.DrawFn) -> dict[str, Any]:
    fees = [
        {
            "name": f"F{number}",
            "amount": draw(prices),
            "every": draw(st.sampled_from(plans.EVERY)),
            "when": draw(st.sampled_from(plans.WHEN)),
            "proration": draw(st.sampled_from(plans.PRORATION)),
        }
        for number in range(draw(st.integers(0, 4)))
    ]
    fees = [fee for fee in fees if (fee["every"], fee["proration"]) != ("day", "thirty_day_month")]
    traffic = [
        {
            "name": f"T{number}",
            "direction": draw(st.sampled_from(plans.DIRECTIONS)),
            "classes": draw(st.lists(st.sampled_from(CLASSES), unique=True)),
            "zones": draw(st.lists(st.sampled_from(["day", "night"]), unique=True)),
            "included": f"{draw(st.integers(0, 3000))} {draw(st.sampled_from(['B', 'kB', 'MiB']))}",
            "above": draw(st.sampled_from(plans.ABOVE)),
            "price": draw(prices),
            "unit": draw(st.sampled_from(["B", "kB", "MB", "GB", "KiB", "MiB", "GiB", "TiB"])),
            "sampled": draw(st.sampled_from(plans.SAMPLED)),
        }
        for number in range(draw(st.integers(0, 3)))
    ]
    percentiles = [
        {
            "name": f"P{number}",
            "percentile": draw(st.sampled_from(["95", "99.9", "1", "100", "50", "33.3"])),
            "convention": draw(st.sampled_from(plans.CONVENTIONS)),
            "missing": draw(st.sampled_from(plans.MISSING)),
            "committed": draw(st.sampled_from(["0 bit/s", "10 kbit/s", "1.5 Mbit/s"])),
            "price": draw(prices),
            "unit": draw(st.sampled_from(["kbit/s", "Mbit/s"])),
        }
        for number in range(draw(st.integers(0, 2)))
    ]
    return {
        "name": "p",
        "from": "2000-01-01",
        "currency": draw(st.sampled_from(["EUR", "JPY", "KWD"])),
        "tax": "standard",
        "prices": draw(st.sampled_from(plans.PRICES)),
        "calendar": "c",
        "fee": fees,
        "traffic": traffic,
        "percentile": percentiles,
    }


@st.composite
def bills(draw: st.DrawFn) -> dict[str, Any]:
    year, month = draw(st.sampled_from(MONTHS))
    first = date(year, month, 1)
    start = first + timedelta(days=draw(st.integers(-500, 27) | st.just(0)))
    if draw(st.booleans()):
        start = start.replace(day=1)
    end = draw(st.none() | st.integers(1, 400).map(lambda n: start + timedelta(days=n)))
    zone = draw(st.sampled_from(ZONES))
    usage = draw(
        st.lists(
            st.tuples(
                st.sampled_from(USAGE_ZONES),
                st.sampled_from(CLASSES),
                st.sampled_from(["up", "down"]),
                st.booleans(),
                st.integers(0, 10**10),
            ),
            max_size=8,
        )
    )
    document = draw(plan_documents())
    slots: list[tuple[int, str, int]] = []
    days = [day for day in slow_rating.whole_month(year, month) if start <= day and (end is None or day < end)]
    if days and document["percentile"]:
        low, high = (slow_rating.seconds(day, zone) for day in (days[0], days[-1] + timedelta(days=1)))
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        count = draw(st.integers(0, 3) | st.integers(0, (high - low) // 300))
        picked = rng.choice((high - low) // 300, size=count, replace=False)
        slots = [
            (low + int(at) * 300, direction, int(rng.integers(0, 10**8)))
            for at in picked
            for direction in ("up", "down")
            if rng.random() < 0.8
        ]
    return {
        "plan": document,
        "start": start,
        "end": end,
        "zone": zone,
        "year": year,
        "month": month,
        "usage": usage,
        "slots": slots,
        "percent": draw(st.sampled_from(["0", "19", "5.5", "20", "7"])),
    }


def _by_engine(bill: dict[str, Any]) -> Any:
    period = f"{bill['year']}-{bill['month']:02d}"
    subscription = engine.Subscription(1, "S", "p", bill["start"], bill["end"], bill["zone"], bill["plan"]["currency"])
    by_slot: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for at, direction, octets in bill["slots"]:
        by_slot[at][direction == "down"] += octets
    slots = engine.Slots(*np.array(sorted(by_slot.values()), np.int64).reshape(-1, 2).T)
    return engine.rate(
        engine.Inputs(
            period,
            [subscription],
            plans.Catalogue([plans.parse(bill["plan"])]),
            {1: [engine.Usage(*row) for row in bill["usage"]]},
            {1: slots},
            lambda category, day: Fraction(bill["percent"]),
        )
    ), subscription


def _by_recomputation(bill: dict[str, Any]) -> list[dict[str, Any]]:
    term = {
        "subscription": 1,
        "service": "S",
        "plan": "p",
        "plan_version": "2000-01-01",
        "start": bill["start"].isoformat(),
        "end": bill["end"].isoformat() if bill["end"] else "",
        "timezone": bill["zone"],
        "currency": "EUR",
    }
    usage = [
        {"subscription": 1, "zone": zone, "class": class_, "direction": direction, "sampled": sampled, "octets": octets}
        for zone, class_, direction, sampled, octets in bill["usage"]
    ]
    slots = [
        {"subscription": 1, "slot": at * 1000, "direction": direction, "octets": octets}
        for at, direction, octets in bill["slots"]
    ]
    return recomputation.charges(
        f"{bill['year']}-{bill['month']:02d}",
        [term],
        [bill["plan"]],
        [
            {"category": "standard", "from": "1999-01-01", "percent": "50"},
            {"category": "standard", "from": "2000-01-01", "percent": bill["percent"]},
        ],
        usage,
        slots,
    )


@settings(max_examples=400, deadline=None)
@given(bill=bills())
def test_two_engines_and_the_oracle_come_to_the_same_bill(bill: dict[str, Any]) -> None:
    digits = {"EUR": 2, "JPY": 0, "KWD": 3}[bill["plan"]["currency"]]
    expected = slow_rating.charges(
        bill["plan"],
        bill["start"],
        bill["end"],
        bill["zone"],
        bill["year"],
        bill["month"],
        bill["percent"],
        bill["usage"],
        bill["slots"],
        digits,
    )
    rated, _ = _by_engine(bill)
    assert {(c.line, c.start, c.end): (c.quantity, c.net_minor, c.gross_minor) for c in rated.charges} == expected
    again = {tuple(row.values()) for row in _by_recomputation(bill)}
    assert again == {tuple(charge) for charge in rated.charges}
    assert len(rated.charges) == len(expected)
    total = sum(row[4] for row in bill["usage"])
    assert rated.rated_octets + rated.without_plan_octets + rated.sampled_refused_octets == total
    policies = [
        [
            line["sampled"]
            for line in bill["plan"]["traffic"]
            if line["direction"] in (row[2], "both")
            and (not line["classes"] or row[1] in line["classes"])
            and (not line["zones"] or row[0] in line["zones"])
        ]
        for row in bill["usage"]
    ]
    refused = sum(
        row[4]
        for row, found in zip(bill["usage"], policies, strict=True)
        if row[3] and set(found) == {"refuse"} and not bill["plan"]["percentile"] and expected is not None
    )
    assert rated.sampled_refused_octets == (refused if rated.stretches else 0)


@settings(max_examples=100, deadline=None)
@given(bill=bills(), cuts=st.lists(st.integers(0, 10**10), max_size=4))
def test_splitting_a_usage_record_never_changes_the_price(bill: dict[str, Any], cuts: list[int]) -> None:
    whole, _ = _by_engine(bill)
    pieces = []
    for zone, class_, direction, sampled, octets in bill["usage"]:
        edges = sorted({0, octets, *(cut for cut in cuts if cut < octets)})
        pieces += [(zone, class_, direction, sampled, b - a) for a, b in itertools.pairwise(edges)]
    split, _ = _by_engine({**bill, "usage": pieces})
    assert split.charges == whole.charges
