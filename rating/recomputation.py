"""The second engine: charges once more, from a run's frozen inputs, slowly and by other means than `rating.engine`.

It reads the plans' JSON as it is stored, walks days and months one by one, sorts slots as lists and rounds with integers
of its own, so that a mistake would have to be made twice to stay unseen. It shares nothing with the engine but the rules
of docs/explanation/money.md.

    charges   rows of core.schemas.CHARGES
    carried   what the next period may use of quotas

`recomputation_days`, `recomputation_amounts` and `recomputation_quotas` are its parts.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import date
from fractions import Fraction
from typing import Any

from core.money import MINOR_DIGITS
from rating import recomputation_quotas as quotas
from rating.recomputation_amounts import BITS, OCTETS, amount_of, decimal, rounded, times, unit_of
from rating.recomputation_days import (
    DAY,
    days_between,
    days_of_30,
    fee_periods,
    midnight,
    month_days,
    months_later,
    runs,
)
from rating.recomputation_quotas import Document, Poured, Rest, Row, Stretch

Sample = tuple[int, str, int]
"""Slot in ms, direction, octets."""
Rates = list[tuple[str, str, Fraction]]
"""Tax category, from, percentage, in order."""

FEE_MONTHS = {"month": 1, "quarter": 3, "year": 12}
SLOT_MS = 300_000


def charges(period: str, terms: Iterable[Row], plans: Iterable[Document], tax: Iterable[dict[str, str]], usage: Iterable[Row],
            slots: Iterable[Row]) -> list[Row]:
    """Rows with the columns of core.schemas.CHARGES; `bookable` is in ms. Terms are rows of frozen.TERMS, in which older
    files lack what came with add-ons."""
    rates = sorted((entry["category"], entry["from"], Fraction(entry["percent"])) for entry in tax)
    measured: dict[int, list[Sample]] = defaultdict(list)
    for row in slots:
        measured[row["subscription"]].append((row["slot"], row["direction"], row["octets"]))
    used = _by_subscription(usage)
    found: list[Row] = []
    for stretches in _services(period, terms, plans):
        poured = quotas.pour(stretches, used)
        of_service: list[Row] = []
        for stretch in stretches:
            rows = _Bill(stretch, rates, poured).rows(measured.get(stretch.term["subscription"], []), of_service)
            of_service += [row for row in rows if not stretch.is_addon or _is_of_service(stretch.plan, row)]
            found += rows
    return found


def carried(period: str, terms: Iterable[Row], plans: Iterable[Document], usage: Iterable[Row]) -> dict[int, list[Rest]]:
    """What is left of quotas for the next period, by subscription: (quota, last period in which it may be used, octets).
    Subscriptions of which nothing is left are absent."""
    used = _by_subscription(usage)
    found: dict[int, list[Rest]] = {}
    for stretches in _services(period, terms, plans):
        poured = quotas.pour(stretches, used)
        for stretch in stretches:
            rest = poured.rest(stretch)
            if rest:
                found[stretch.term["subscription"]] = rest
    return found


def _by_subscription(usage: Iterable[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = defaultdict(list)
    for row in usage:
        found[row["subscription"]].append(row)
    return found


def _services(period: str, terms: Iterable[Row], plans: Iterable[Document]) -> list[list[Stretch]]:
    """The stretches of each service, in the order of their rank."""
    documents = {(plan["name"], plan["from"]): plan for plan in plans}
    found: dict[str, list[Stretch]] = defaultdict(list)
    for term in terms:
        plan = documents.get((term["plan"], term["plan_version"]))
        days = [day for day in month_days(period) if _holds(term, day)]
        if plan is not None and days:
            found[term["service"]].append(Stretch(period, term, plan, days))
    return [sorted(stretches, key=lambda stretch: stretch.rank) for stretches in found.values()]


def _holds(term: Row, day: date) -> bool:
    text = day.isoformat()
    return bool((term["start"] == "" or text >= term["start"]) and (term["end"] == "" or text < term["end"]))


def _is_of_service(plan: Document, row: Row) -> bool:
    """Whether a row of an add-on is a discount on the service's plan."""
    return any(line["name"] == row["line"] and line.get("of") == "service" for line in plan.get("discount", ()))


def _amount(row: Row) -> int:
    return int(row["net_minor"] if row["gross_minor"] is None else row["gross_minor"])


def _sum(rows: Iterable[Row]) -> int:
    return sum(_amount(row) for row in rows)


class _Bill:
    """One subscription in one period."""

    def __init__(self, stretch: Stretch, rates: Rates, poured: Poured) -> None:
        self.stretch, self.rates, self.poured = stretch, rates, poured
        self.term, self.plan, self.days, self.count = stretch.term, stretch.plan, stretch.days, stretch.count
        self.month = month_days(stretch.period)
        self.minor: int = 10 ** MINOR_DIGITS.get(self.plan["currency"], 2)
        self.rule = self.plan.get("rounding", "half_up")
        self.pauses = json.loads(self.term.get("pauses") or "[]")
        self.starts = date.fromisoformat(self.term["start"]) if self.term["start"] else None
        self.ends = date.fromisoformat(self.term["end"]) if self.term["end"] else None

    def rows(self, slots: list[Sample], of_service: list[Row]) -> list[Row]:
        """The rows of the plan's lines; `of_service` are those of the service's plan, where this is an add-on."""
        lines = {kind: self.plan.get(kind, ()) for kind in ("once", "quota", "minimum", "maximum", "discount")}
        usage = self.poured.uncovered.get(self.term["subscription"], [])
        rows = [row for fee in self.plan["fee"] for row in self.fee(fee)]
        rows += [row for line in lines["once"] for row in self.once(line)]
        rows += [self.traffic(line, usage) for line in self.plan["traffic"]]
        rows += [self.percentile(line, slots) for line in self.plan["percentile"]]
        rows += [self.quota(line) for line in lines["quota"]]
        for kind in ("minimum", "maximum"):
            for line in lines[kind]:
                rows.append(self.bound(kind, line, rows))
        discounted = {"own": list(rows), "service": list(of_service)}
        for line in lines["discount"]:
            target = discounted[line.get("of", "own")]
            for row in self.discount(line, target):
                target.append(row)
                rows.append(row)
        return rows

    def row(self, line: Document, kind: str, days: list[date], quantity: str, unit: str, price: str, amount: Fraction,
            bookable: date | None = None, **more: Any) -> Row:
        net, gross, tax = rounded(amount, self.rule), None, line.get("tax") or self.plan["tax"]
        if self.plan["prices"] == "inclusive":
            gross = net
            percent = [rate for name, since, rate in self.rates if name == tax and since <= days[-1].isoformat()][-1]
            net = rounded(Fraction(gross) * 100 / (100 + percent))
        return {"period": self.stretch.period, "service": self.term["service"], "plan": self.plan["name"],
                "plan_version": self.plan["from"], "start": days[0], "end": days[-1] + DAY, "line": line["name"], "kind": kind,
                "zone": None, "class": None, "direction": None, "quantity": quantity, "unit": unit, "unit_price": price,
                "net_minor": net, "gross_minor": gross, "tax": tax, "currency": self.plan["currency"],
                "bookable": midnight(bookable or self.month[-1] + DAY, self.term["timezone"]), **more}

    def whole(self, amount: str) -> Fraction:
        """A price in minor units, exactly."""
        return Fraction(amount) * Fraction(self.minor)

    # fees and events

    def is_charged(self, day: date, during: str) -> bool:
        """Whether a fee that is charged `during` something is charged for a day."""
        if (self.starts is not None and day < self.starts) or (self.ends is not None and day >= self.ends):
            return False
        if during == "always":
            return True
        text = day.isoformat()
        rests = [kind for begins, ends, kind in self.pauses if begins <= text < ends]
        return not rests if during == "active" else during in rests

    def fee(self, line: Document) -> Iterator[Row]:
        bookable = self.month[0] if line["when"] == "advance" else None
        during, amount = line.get("during", "always"), self.whole(line["amount"])
        if line["every"] == "day":
            each = Fraction(rounded(amount, self.rule)) if line["proration"] == "daily" else amount
            for days in runs(day for day in self.days if self.is_charged(day, during)):
                number = len(days) * self.count
                yield self.row(line, "fee", days, "1" if number == 1 else f"{number}/1", "day", line["amount"],
                               sum([each] * number, Fraction(0)), bookable)
            return
        for opens, closes in self.fee_periods(FEE_MONTHS[line["every"]], self.month[0], self.month[-1] + DAY):
            times_of_it = runs(day for day in days_between(opens, closes) if self.is_charged(day, during))
            if line["proration"] == "whole_period":
                times_of_it = times_of_it[:1]
            for days in times_of_it:
                if (days[0] if line["when"] == "advance" else days[-1]) in self.month:
                    quantity, due = self.part(line, amount, days, opens, closes)
                    yield self.row(line, "fee", days, times(self.count, quantity), line["every"], line["amount"],
                                   due * self.count, bookable)

    def fee_periods(self, months: int, first: date, end: date) -> list[tuple[date, date]]:
        return fee_periods(self.starts, self.plan.get("billing_day", 1), months, first, end)

    def part(self, line: Document, amount: Fraction, paid: list[date], opens: date, closes: date) -> tuple[str, Fraction]:
        """Quantity and amount, in minor units, of the days of a fee period that are paid."""
        policy, everything = line["proration"], list(days_between(opens, closes))
        if policy == "daily":
            a_day = rounded(amount / len(everything), self.rule)
            debits = [rounded(amount, self.rule) - a_day * (len(everything) - 1) if day == everything[-1] else a_day
                      for day in paid]
            return ("1" if paid == everything else f"{len(paid)}/{len(everything)}"), Fraction(sum(debits))
        if paid == everything or policy == "whole_period":
            return "1", amount
        if policy == "none":
            return f"0/{len(everything)}", Fraction(0)
        if policy == "thirty_day_month":
            of = 30 * FEE_MONTHS[line["every"]]
            counted = min(of, days_of_30(paid[0], paid[-1] + DAY))
            return f"{counted}/{of}", amount * counted / of
        quantity = f"{len(paid)}/{len(everything)}"
        if policy == "to_the_second":
            edges = [midnight(day, self.term["timezone"]) for day in (paid[0], paid[-1] + DAY, opens, closes)]
            return quantity, amount * (edges[1] - edges[0]) / (edges[3] - edges[2])
        assert policy == "actual_days", policy
        return quantity, amount * len(paid) / len(everything)

    def once(self, line: Document) -> Iterator[Row]:
        day = self.day_of(line["on"])
        if day not in self.month:
            return
        amount, price = self.whole(line.get("amount", "0")), line.get("amount", "0")
        if "percent" in line:
            fee = next(fee for fee in self.plan["fee"] if fee["name"] == line["of"])
            amount = self.remaining(fee) * self.whole(fee["amount"]) * Fraction(line["percent"]) / 100
            price = f"{line['percent']} %"
        yield self.row(line, "once", [day], str(self.count), line["on"], price, amount * self.count, day)

    def day_of(self, event: str) -> date | None:
        """The day of an event, None if it does not happen."""
        last = self.ends - DAY if self.ends is not None and not self.term.get("followed") else None
        if event == "end":
            return last
        if event == "early_end":
            return last if self.starts is not None and self.ends is not None and self.ends < self.bound_until() else None
        if event == "activation" and not self.term.get("first"):
            return None
        if event == "change" and self.term.get("previous") in (None, self.plan["name"]):
            return None
        return self.starts

    def bound_until(self) -> date:
        """The day after the contract's last."""
        assert self.starts is not None, "a contract begins with the subscription"
        return months_later(self.starts, self.plan["contract"]["months"])

    def remaining(self, fee: Document) -> Fraction:
        """How many fees lie between the end and the end of the contract."""
        assert self.ends is not None, "what has no end can't end early"
        until = self.bound_until()
        left = Fraction(0)
        for opens, closes in self.fee_periods(FEE_MONTHS[fee["every"]], self.ends, until):
            days = list(days_between(opens, closes))
            left += Fraction(sum(self.ends <= day < until for day in days), len(days))
        return left

    # usage

    def traffic(self, line: Document, usage: list[Row]) -> Row:
        octets = sum(row["octets"] for row in usage if quotas.charges(line, row))
        included = amount_of(line["included"], OCTETS)
        if octets <= included:
            billed = Fraction(0)
        else:
            billed = Fraction(octets) if line["above"] == "all" else octets - included
        quantity, unit, price, amount = self.metered(line, billed)
        row = self.row(line, "traffic", self.days, quantity, unit, price, amount, direction=line["direction"])
        for name, listed in (("zone", line["zones"]), ("class", line["classes"])):
            row[name] = listed[0] if len(listed) == 1 else None
        return row

    def metered(self, line: Document, billed: Fraction) -> tuple[str, str, str, Fraction]:
        """Quantity, unit, price and amount of what is billed."""
        if "tiers" in line:
            unit = line.get("unit") or unit_of(line["tiers"][0]["block"], OCTETS)
            return decimal(billed / OCTETS[unit]), unit, line["model"], self.tiers(line, billed)
        if "block" in line:
            blocks = self.blocks(line["block"], billed)
            return str(blocks), line["block"], line["price"], blocks * self.whole(line["price"])
        quantity = billed / OCTETS[line["unit"]]
        return decimal(quantity), line["unit"], line["price"], quantity * self.whole(line["price"])

    @staticmethod
    def blocks(block: str, octets: Fraction) -> int:
        """How many blocks are started."""
        return rounded(octets / amount_of(block, OCTETS), "up")

    def tiers(self, line: Document, billed: Fraction) -> Fraction:
        """`graduated`: the parts between the tiers' edges, each at its own price; `volume`: all at the price of one tier."""
        edges = [amount_of(tier["to"], OCTETS) for tier in line["tiers"] if "to" in tier]
        lower = [Fraction(0), *edges]
        reached = max(number for number, edge in enumerate(lower) if number == 0 or billed > edge)
        if line["model"] == "volume":
            return self.tier(line, line["tiers"][reached], billed)
        tops = [*edges[:reached], billed]
        return sum((self.tier(line, tier, top - bottom)
                    for tier, bottom, top in zip(line["tiers"], lower, tops, strict=False)), Fraction(0))

    def tier(self, line: Document, tier: Document, octets: Fraction) -> Fraction:
        units = Fraction(self.blocks(tier["block"], octets)) if "block" in tier else octets / OCTETS[line["unit"]]
        return self.whole(tier["price"]) * units + self.whole(tier.get("flat", "0"))

    def percentile(self, line: Document, slots: list[Sample]) -> Row:
        up: dict[int, int] = defaultdict(int)
        down: dict[int, int] = defaultdict(int)
        for slot, direction, octets in slots:
            (up if direction == "up" else down)[slot] += octets
        active = {slot for slot in {*up, *down} if up[slot] or down[slot]}
        begins, ends = (midnight(day, self.term["timezone"]) for day in (self.days[0], self.days[-1] + DAY))
        every = active if line["missing"] == "left_out" else {*range(begins // SLOT_MS * SLOT_MS, ends, SLOT_MS), *active}
        highest, winner = self.sample(line, every, up, down)
        speed = max(Fraction(highest * 8, 300), amount_of(line["committed"], BITS))
        quantity = speed / BITS[line["unit"]]
        shown = decimal(Fraction(rounded(quantity * 10**6), 10**6))
        return self.row(line, "percentile", self.days, shown, line["unit"], line["price"],
                        quantity * self.whole(line["price"]), direction=winner)

    def sample(self, line: Document, every: set[int], up: dict[int, int], down: dict[int, int]) -> tuple[int, str]:
        dropped = int((100 - Fraction(line["percentile"])) * len(every) / 100)

        def next_one(values: Iterable[int]) -> int:
            return ([*sorted(values, reverse=True)[dropped:], 0])[0]

        if line["convention"] == "sum":
            return next_one(up.get(slot, 0) + down.get(slot, 0) for slot in every), "both"
        if line["convention"] == "per_sample_max":
            return next_one(max(up.get(slot, 0), down.get(slot, 0)) for slot in every), "both"
        one, two = next_one(up.get(slot, 0) for slot in every), next_one(down.get(slot, 0) for slot in every)
        return (one, "up") if one > two else (two, "down")

    # lines about other lines

    def quota(self, line: Document) -> Row:
        unit = unit_of(line["volume"], OCTETS)
        used = Fraction(self.poured.used(self.stretch, line), OCTETS[unit])
        return self.row(line, "quota", self.days, decimal(used), unit, "0", Fraction(0), direction=line["direction"])

    def bound(self, kind: str, line: Document, rows: list[Row]) -> Row:
        """What the rows lack to a minimum, or less what they exceed a maximum by."""
        share, quantity = Fraction(1), "1"
        if line["share"] == "actual_days" and self.days != self.month:
            share, quantity = Fraction(len(self.days), len(self.month)), f"{len(self.days)}/{len(self.month)}"
        lacks = self.whole(line["amount"]) * share * self.count - _sum(_listed(line, rows))
        if (lacks < 0) == (kind == "minimum"):
            lacks = Fraction(0)
        return self.row(line, kind, self.days, times(self.count, quantity), "month", line["amount"], lacks)

    def discount(self, line: Document, target: list[Row]) -> Iterator[Row]:
        """`target` are the rows that the discount may be on, with the discounts before it."""
        listed = [row for row in _listed(line, target) if row["kind"] != "discount"]
        holds = self.window(line)
        if "percent" in line:
            parts = [(_amount(row), [holds(day) for day in days_between(row["start"], row["end"])]) for row in listed]
            if not any(held for _, days in parts for held in days):
                return
            amount = sum((Fraction(minor * sum(days), len(days)) for minor, days in parts), Fraction(0))
            amount, quantity, price = amount * Fraction(line["percent"]) / 100, "1", f"{line['percent']} %"
        else:
            number = sum(holds(day) for day in self.days)
            if not number:
                return
            amount, price = self.whole(line["amount"]) * number / len(self.month) * self.count, line["amount"]
            quantity = times(self.count, "1" if number == len(self.month) else f"{number}/{len(self.month)}")
        off = max(Fraction(0), min(amount, Fraction(_sum(listed)), Fraction(_sum(target))))
        yield self.row(line, "discount", self.days, quantity, "month", price, -off)

    def window(self, line: Document) -> Any:
        """Whether a discount holds on a day, as a function."""
        start = self.term["start"]
        begins = start
        until = "9999" if start or "months" not in line else ""  # without a start the first months are over
        if self.starts is not None:
            begins = months_later(self.starts, line.get("after_months", 0)).isoformat()
            if "months" in line:
                until = months_later(self.starts, line.get("after_months", 0) + line["months"]).isoformat()
        if (line.get("starts_from") or line.get("starts_until")) and \
                not (start and line.get("starts_from", "") <= start < line.get("starts_until", "9999")):
            until = ""
        others = [(since, over) for plan, since, over in json.loads(self.term.get("beside") or "[]")
                  if plan in line.get("beside", ())]

        def holds(day: date) -> bool:
            text = day.isoformat()
            return (begins <= text < until and _holds(self.term, day)
                    and ("beside" not in line or any(since <= text and (not over or text < over) for since, over in others)))

        return holds


def _listed(line: Document, rows: list[Row]) -> list[Row]:
    """The rows of a line's `lines`, all without."""
    return [row for row in rows if "lines" not in line or row["line"] in line["lines"]]
