"""Random plans that the linter accepts, and random services under them, for both engines.

`case(random)` takes anything with the methods of `random.Random`: hypothesis' own shrinks, a seeded one is fast.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, timedelta
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from core import periods
from rating import engine, linter, plans, recomputation
from rating.quotas import Carried

DAY = timedelta(days=1)
ZONES = ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC",
         "Pacific/Chatham", "America/St_Johns", "Africa/Cairo"]
PERIODS = ["2026-10", "2026-03", "2024-02", "2025-02", "2026-11", "2026-04", "2025-12", "2026-01"]
CLASSES = ["default", "peering"]
USAGE_ZONES = ["day", "night"]
TAX = {"standard": [("1999-01-01", "50"), ("2000-01-01", "19"), ("2024-03-01", "18"), ("2026-10-15", "21.5"),
                    ("2026-11-01", "22")],
       "reduced": [("1999-01-01", "7")],
       "none": [("1999-01-01", "0")]}
SURROUNDINGS = linter.Surroundings(frozenset(TAX), frozenset(CLASSES), {"c": frozenset(USAGE_ZONES)})
Table = dict[str, Any]


# plans


def _price(random: Random) -> str:
    return random.choice(["0", "0.005", "19.95", "1", str(random.randint(0, 2000)), f"{random.randint(0, 99999) / 100:.2f}",
                          f"0.{random.randint(0, 10**7):09d}"])


def _some(random: Random, table: Table, **choices: Any) -> Table:
    """The table with some of the keys."""
    return {**table, **{key: value for key, value in choices.items() if value is not None and random.random() < 0.5}}


def _list(random: Random, values: list[str]) -> list[str] | None:
    return [value for value in values if random.random() < 0.5] or None


def _volume(random: Random) -> str:
    unit = random.choice(["B", "kB", "kB", "KiB"])
    return f"{random.randint(1, 6000 if unit == 'B' else 6)} {unit}"


def _filters(random: Random, zones: list[str]) -> Table:
    return _some(random, {"direction": random.choice(plans.DIRECTIONS)}, classes=_list(random, CLASSES),
                 zones=_list(random, zones))


def _fee(random: Random) -> Table:
    every = random.choice(plans.EVERY)
    prorations = [name for name in plans.PRORATION if (every, name) != ("day", "thirty_day_month")]
    return _some(random, {"amount": _price(random), "every": every, "when": random.choice(plans.WHEN),
                          "proration": random.choice(prorations)}, during=random.choice(plans.DURING))


def _once(random: Random, fees: list[Table], has_contract: bool) -> Table:
    if has_contract and random.random() < 0.7:
        longer = [fee["name"] for fee in fees if fee["every"] != "day"]
        if longer and random.random() < 0.5:
            return {"on": "early_end", "percent": random.choice(["50", "100", "12.5"]), "of": random.choice(longer)}
        return {"on": "early_end", "amount": _price(random)}
    return {"on": random.choice(plans.ON[:-1]), "amount": _price(random)}


def _traffic(random: Random) -> Table:
    line = _some(random, _filters(random, USAGE_ZONES), sampled=random.choice(plans.SAMPLED))
    if random.random() < 0.5:
        line |= {"included": _volume(random), "above": random.choice(plans.ABOVE)}
    unit = random.choice(["B", "kB", "MB", "GB", "KiB", "MiB", "TiB"])
    model = random.choice(["unit", "block", *plans.MODELS])
    if model == "unit":
        return line | {"price": _price(random), "unit": unit}
    if model == "block":
        return line | {"price": _price(random), "block": _volume(random)}
    tiers, upper, all_blocks = [], 0, random.random() < 0.3
    for _ in range(random.randint(0, 3)):
        upper += random.choice([1000, 2000, random.randint(1, 4000)])
        tiers.append({"to": f"{upper} B"})
    tiers.append({})
    tiers = [_some(random, {**tier, "price": _price(random)}, flat=_price(random)) for tier in tiers]
    tiers = [tier | {"block": _volume(random)} if all_blocks or random.random() < 0.3 else tier for tier in tiers]
    without_unit = all_blocks and random.random() < 0.5
    return line | {"model": model, "tiers": tiers} | ({} if without_unit else {"unit": unit})


def _percentile(random: Random) -> Table:
    return {"percentile": random.choice(["95", "99.9", "1", "100", "50", "33.3"]),
            "convention": random.choice(plans.CONVENTIONS), "missing": random.choice(plans.MISSING),
            "committed": random.choice(["0 bit/s", "10 kbit/s", "1.5 Mbit/s"]), "price": _price(random),
            "unit": random.choice(["kbit/s", "Mbit/s"])}


def _quota(random: Random, is_addon: bool) -> Table:
    filters = _filters(random, [] if is_addon else USAGE_ZONES)  # an add-on has no calendar
    line = _some(random, filters | {"volume": _volume(random)}, priority=random.randint(0, 2),
                 rollover={"cap": _volume(random), "periods": random.randint(1, 3)})
    if random.random() < 0.3:
        return line | {"given": "once"}
    return _some(random, line, given="each_period", share=random.choice(plans.SHARES))


def _bound(random: Random, free: list[str], taxed: Table) -> Table:
    """A minimum or maximum on lines that no other lists; `free` loses them."""
    line = {"amount": _price(random), "share": random.choice(plans.SHARES), **taxed}
    listed = _list(random, free) if random.random() < 0.7 else None
    if listed is not None:
        line["lines"] = listed
        free[:] = [name for name in free if name not in listed]
    else:
        free.clear()
    return line


def _discount(random: Random, names: list[str], is_addon: bool) -> Table:
    line = _some(random, {}, after_months=random.randint(1, 14), months=random.randint(1, 14),
                 starts_from=date(2025, random.randint(1, 12), 1), starts_until=date(2026, random.randint(1, 12), 15),
                 beside=_list(random, ["own0", "own1", "extra0", "elsewhere"]))
    line |= {"percent": random.choice(["10", "100", "33.3"])} if random.random() < 0.6 else {"amount": _price(random)}
    if is_addon and random.random() < 0.6:
        return _some(random, line | {"of": "service"}, lines=_list(random, [f"{kind}{n}" for kind in LINES for n in range(2)]))
    return _some(random, line, lines=_list(random, names), of="own")


LINES = ("fee", "once", "traffic", "percentile", "quota", "minimum", "maximum", "discount")


def plan(random: Random, name: str, valid_from: date, common: Table, is_addon: bool = False) -> Table:
    """A plan as plans.toml writes it."""
    found: Table = _some(random, {"name": name, "from": valid_from, **common, "tax": random.choice(list(TAX))},
                         billing_day=random.choice(["anniversary", random.randint(1, 31), 1, 31]),
                         rounding=random.choice(list(plans.ROUNDING)), contract={"months": random.choice([1, 3, 12])})
    found |= {"addon": True} if is_addon else {"calendar": "c"}

    def lines(kind: str, make: Any, most: int) -> list[Table]:
        count = random.randint(0, most)
        found[kind] = [{"name": f"{kind}{number}", **make()} for number in range(count)]
        return found[kind]

    fees = lines("fee", lambda: _fee(random), 3)
    lines("once", lambda: _once(random, fees, "contract" in found), 2)
    traffic = lines("traffic", lambda: _traffic(random), 0 if is_addon else 3)
    lines("percentile", lambda: _percentile(random), 0 if is_addon or random.random() < 0.8 else 2)
    lines("quota", lambda: _quota(random, is_addon), 2 if is_addon or traffic else 0)
    charged = [line for kind in LINES[:4] for line in found[kind]]
    # a bound or discount takes a tax of its own only where all lines have it: here all lines keep the plan's, or all another
    if random.random() < 0.3:
        own = random.choice(list(TAX))
        for line in charged:
            line["tax"] = own
    taxed = {"tax": charged[0]["tax"]} if charged and "tax" in charged[0] else {}
    names = [line["name"] for line in charged + found["quota"]]
    for kind in ("minimum", "maximum"):
        lines(kind, partial(_bound, random, list(names), taxed), 2)
        names += [line["name"] for line in found[kind]]
    lines("discount", lambda: _discount(random, names, is_addon) | taxed, 3 if is_addon else 2)
    return found


def toml(plan: Table) -> str:
    """A plan as text."""
    text = "[[plan]]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in plan.items() if key not in LINES)
    for kind in LINES:
        for line in plan[kind]:
            text += f"[[plan.{kind}]]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in line.items())
    return text


def _value(value: Any) -> str:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    return json.dumps(value)


def linted(tables: list[Table]) -> list[Table]:
    """The documents that the linter makes of plans; it must have nothing against them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plans.toml"
        path.write_text("\n".join(toml(table) for table in tables), encoding="utf-8")
        found = linter.read(path, SURROUNDINGS)
    assert found.problems == [], (found.problems, [toml(table) for table in tables])
    return found.plans


# services


@dataclass
class Case:
    """What both engines are given."""

    period: str
    documents: list[Table]
    subscriptions: list[engine.Subscription]
    usage: dict[int | None, list[engine.Usage]] = field(default_factory=dict)
    slots: dict[int, list[tuple[int, str, int]]] = field(default_factory=dict)  # slot in ms, direction, octets

    @property
    def inputs(self) -> engine.Inputs:
        catalogue = plans.Catalogue([plans.parse(document) for document in self.documents])
        return engine.Inputs(self.period, self.subscriptions, catalogue, self.usage,
                             {number: _slots(samples) for number, samples in self.slots.items()}, percent_on)

    @property
    def terms(self) -> list[Table]:
        """Rows of frozen.TERMS."""
        catalogue = plans.Catalogue([plans.parse(document) for document in self.documents])
        return [_term(row, catalogue.in_force(row.plan, row.start)) for row in self.subscriptions]

    @property
    def usage_rows(self) -> list[Table]:
        return [{"subscription": number, "zone": row.zone, "class": row.class_, "direction": row.direction,
                 "sampled": row.sampled, "octets": row.octets} for number, rows in self.usage.items() for row in rows]

    def by_engine(self) -> engine.Rated:
        return engine.rate(self.inputs)

    def by_recomputation(self) -> list[Table]:
        slots = [{"subscription": number, "slot": at, "direction": direction, "octets": octets}
                 for number, samples in self.slots.items() for at, direction, octets in samples]
        tax = [{"category": category, "from": since, "percent": percent}
               for category, rates in TAX.items() for since, percent in rates]
        return recomputation.charges(self.period, self.terms, self.documents, tax, self.usage_rows, slots)

    def carried_by_recomputation(self) -> dict[int, list[tuple[str, str, int]]]:
        return recomputation.carried(self.period, self.terms, self.documents, self.usage_rows)


def percent_on(category: str, day: date) -> Fraction:
    return Fraction(max(rate for rate in TAX[category] if rate[0] <= day.isoformat())[1])


def _slots(samples: list[tuple[int, str, int]]) -> engine.Slots:
    by_slot: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for at, direction, octets in samples:
        by_slot[at][direction == "down"] += octets
    return engine.Slots(*np.array(sorted(by_slot.values()), np.int64).reshape(-1, 2).T)


def _term(row: engine.Subscription, plan: plans.Plan | None) -> Table:
    def text(day: date | None) -> str:
        return "" if day is None else day.isoformat()

    return {"subscription": row.id, "service_id": 1, "service": row.service, "plan": row.plan,
            "plan_version": None if plan is None else plan.version, "start": text(row.start), "end": text(row.end),
            "timezone": row.timezone, "currency": row.currency, "addon": row.is_addon, "quantity": row.quantity,
            "first": row.is_first, "previous": row.previous, "followed": row.has_next,
            "pauses": json.dumps([[text(pause.start), text(pause.end), pause.kind] for pause in row.pauses]),
            "carried": json.dumps(row.carried),
            "beside": json.dumps([[other.plan, text(other.start), text(other.end)] for other in row.beside])}


def _near(random: Random, first: date) -> date:
    """A day around a month: mostly within it, sometimes long before."""
    days = random.choice([random.randint(0, 30), random.randint(-45, 45), random.randint(-800, 0)])
    return first + days * DAY


def _pauses(random: Random, first: date) -> tuple[engine.Pause, ...]:
    days = sorted({_near(random, first) for _ in range(random.randint(0, 6))})
    found = [engine.Pause(since, until, random.choice(["suspension", "vacation"]))
             for since, until in pairwise(days)]
    return tuple(pause for pause in found if random.random() < 0.7)


def _carried(random: Random, period: str, document: Table | None) -> tuple[Carried, ...]:
    names = [line["name"] for line in (document or {}).get("quota", ())] + ["gone"]
    later = [periods.previous_period(period), period, periods.next_period(period),
             periods.next_period(periods.next_period(period))]
    kept = {(random.choice(names), random.choice(later)) for _ in range(random.randint(0, 3))}
    return tuple(Carried(*key, random.randint(1, 4000)) for key in sorted(kept))


def usage(random: Random) -> list[engine.Usage]:
    return [engine.Usage(random.choice([*USAGE_ZONES, None]), random.choice(CLASSES), random.choice(["up", "down"]),
                         random.random() < 0.3, _octets(random)) for _ in range(random.choice([0, 1, random.randint(2, 8)]))]


def _octets(random: Random) -> int:
    """Often what just reaches the edge of a volume."""
    return random.choice([0, 1000 * random.randint(1, 6), random.randint(0, 3000), random.randint(0, 10**7)])


def _sampled_slots(random: Random, period: str, zone: str) -> list[tuple[int, str, int]]:
    begins, ends = periods.period_bounds(period, zone)
    rng = np.random.default_rng(random.randint(0, 2**32 - 1))
    every = np.arange(-(-begins // 300_000) * 300_000, ends, 300_000)
    count = random.choice([0, 3, 500, len(every) - 40])
    return [(int(at), direction, int(rng.integers(0, 10**8))) for at in rng.choice(every, count, replace=False)
            for direction in ("up", "down") if rng.random() < 0.8]


def case(random: Random) -> Case:
    """One service, sometimes two, in a period."""
    period = random.choice(PERIODS)
    first = periods.period_first_day(period)
    common = {"currency": random.choice(["EUR", "JPY", "KWD"]), "prices": random.choice(plans.PRICES)}
    versions = [(name, since) for name in ("own0", "own1") for since in (date(2000, 1, 1), first - 40 * DAY)
                if since.year == 2000 or random.random() < 0.3]
    tables = [plan(random, name, since, common) for name, since in versions]
    tables += [plan(random, f"extra{number}", date(2000, 1, 1), common, True) for number in range(random.randint(0, 2))]
    found = Case(period, linted(tables), [])
    extra = [table["name"] for table in tables if "addon" in table]
    for service in ("S1", "S2") if random.random() < 0.2 else ("S1",):
        _service(random, found, service, common["currency"], extra)
    found.usage[None] = usage(random)
    return found


def _service(random: Random, found: Case, service: str, currency: str, extra: list[str]) -> None:
    first, zone = periods.period_first_day(found.period), random.choice(ZONES)
    edges: list[Any] = [*sorted({_near(random, first) for _ in range(random.randint(1, 4))})]
    if random.random() < 0.3:  # a row as long as a contract, or as the first months of a discount
        end = first + random.randint(0, 31) * DAY
        edges = [periods.add_months(end, -random.choice([1, 3, 12])), end]
    edges = [None, *edges] if random.random() < 0.2 else edges
    edges = [*edges, None] if random.random() < 0.7 or len(edges) == 1 else edges
    rows = [pair for pair in pairwise(edges) if random.random() < 0.85]
    names = [random.choice(["own0", "own1", "own0", "own1", None]) for _ in rows]
    beside = tuple(engine.Beside(random.choice(["own0", "own1", "extra0", "elsewhere"]), *sorted(
        (_near(random, first), _near(random, first)))) for _ in range(random.randint(0, 3)))
    beside = tuple(other._replace(start=None) if random.random() < 0.2 else
                   other._replace(end=None) if random.random() < 0.4 else other for other in beside)
    pauses = _pauses(random, first)
    catalogue = {document["name"]: document for document in found.documents}
    added: list[engine.Subscription] = []
    for (start, end), name in zip(rows, names, strict=True):
        previous = [other for (_, over), other in zip(rows, names, strict=True) if over is not None and over == start]
        added.append(engine.Subscription(
            len(found.subscriptions) + len(added) + 1, service, name, start, end, zone, currency, is_first=start == rows[0][0],
            previous=previous[0] if previous else None,
            has_next=any(since is not None and since == end for since, _ in rows), pauses=pauses,
            carried=_carried(random, found.period, catalogue.get(name or "")), beside=beside))
    for _ in range(random.randint(0, 4) if extra else 0):
        name, start = random.choice(extra), _near(random, first)
        if any(row.plan == name for row in added):
            continue  # two rows of one add-on with the same days would have charges of one key
        end = start + random.randint(1, 60) * DAY if random.random() < 0.5 else None
        added.append(engine.Subscription(
            len(found.subscriptions) + len(added) + 1, service, name, start, end, zone, currency,
            is_first=random.random() < 0.5, pauses=pauses, is_addon=True, quantity=random.randint(1, 3),
            carried=_carried(random, found.period, catalogue[name]), beside=beside))
    found.subscriptions += added
    for row in added:
        if not row.is_addon:
            found.usage[row.id] = usage(random)
            if any(document["percentile"] for document in found.documents if document["name"] == row.plan):
                lasts = [-(2**62) if row.start is None else periods.local_day_start(row.start, zone),
                         2**62 if row.end is None else periods.local_day_start(row.end, zone)]
                found.slots[row.id] = [sample for sample in _sampled_slots(random, found.period, zone)
                                       if lasts[0] <= sample[0] < lasts[1]]
