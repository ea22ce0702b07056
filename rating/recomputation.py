"""The second engine: charges once more, from a run's frozen inputs, slowly and by other means than `rating.engine`.

It reads the plans' JSON as it is stored, walks days and months one by one, sorts slots as lists and rounds with integers
of its own, so that a mistake would have to be made twice to stay unseen. It shares nothing with the engine but the rules
of docs/explanation/money.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from core.money import MINOR_DIGITS
from core.periods import period_first_day

Row = dict[str, Any]
Document = dict[str, Any]
Sample = tuple[int, str, int]
"""Slot in ms, direction, octets."""

DAY = timedelta(days=1)
OCTETS = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4,
          "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
BITS = {"bit/s": 1, "kbit/s": 1000, "Mbit/s": 1000**2, "Gbit/s": 1000**3}
FEE_MONTHS = {"month": 1, "quarter": 3, "year": 12}
SLOT_MS = 300_000


def charges(period: str, terms: Iterable[Row], plans: Iterable[Document], tax: Iterable[dict[str, str]], usage: Iterable[Row],
            slots: Iterable[Row]) -> list[Row]:
    """Rows with the columns of core.schemas.CHARGES; `bookable` is in ms."""
    documents = {(plan["name"], plan["from"]): plan for plan in plans}
    rates = sorted((entry["category"], entry["from"], Fraction(entry["percent"])) for entry in tax)
    used: dict[int, list[Row]] = defaultdict(list)
    for row in usage:
        used[row["subscription"]].append(row)
    measured: dict[int, list[Sample]] = defaultdict(list)
    for row in slots:
        measured[row["subscription"]].append((row["slot"], row["direction"], row["octets"]))
    found: list[Row] = []
    for term in terms:
        plan = documents.get((term["plan"], term["plan_version"]))
        days = _days(period, term)
        if plan is not None and days:
            number = term["subscription"]
            found += _Bill(period, term, plan, rates, days).rows(used.get(number, []), measured.get(number, []))
    return found


def _days(period: str, term: Row) -> list[date]:
    """The local days of the period on which the subscription holds."""
    return [day for day in _month_days(period_first_day(period)) if _holds(term, day)]


def _holds(term: Row, day: date) -> bool:
    text = day.isoformat()
    return bool((term["start"] == "" or text >= term["start"]) and (term["end"] == "" or text < term["end"]))


def _month_days(first: date) -> list[date]:
    days = [first]
    while (days[-1] + DAY).month == first.month:
        days.append(days[-1] + DAY)
    return days


def _round(value: Fraction) -> int:
    """Half away from zero."""
    whole, rest = divmod(abs(value.numerator), value.denominator)
    whole += 2 * rest >= value.denominator
    return whole if value >= 0 else -whole


@lru_cache(maxsize=4096)
def _midnight(day: date, zone: str) -> int:
    """The first instant whose local date is not before `day`, by bisection over the clock on the wall."""
    noon_utc = int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()) * 1000
    before, after = noon_utc - 40 * 3_600_000, noon_utc + 20 * 3_600_000
    while after - before > 1:
        middle = (before + after) // 2
        wall = datetime.fromtimestamp(middle // 1000, UTC).astimezone(ZoneInfo(zone))
        if wall.date() >= day:
            after = middle
        else:
            before = middle
    return after


class _Bill:
    """One subscription in one period."""

    def __init__(self, period: str, term: Row, plan: Document, rates: list[tuple[str, str, Fraction]],
                 days: list[date]) -> None:
        self.period, self.term, self.plan, self.rates, self.days = period, term, plan, rates, days
        self.month = _month_days(period_first_day(period))
        self.minor = 10 ** MINOR_DIGITS.get(plan["currency"], 2)

    def rows(self, usage: list[Row], slots: list[Sample]) -> Iterator[Row]:
        for fee in self.plan["fee"]:
            yield from self.fee(fee)
        for line in self.plan["traffic"]:
            yield self.traffic(line, usage)
        for line in self.plan["percentile"]:
            yield self.percentile(line, slots)

    def row(self, line: Document, kind: str, first: date, end: date, quantity: str, unit: str, price: str, amount: Fraction,
            advance: bool = False, **more: Any) -> Row:
        net, gross = _round(amount), None
        if self.plan["prices"] == "inclusive":
            gross = net
            percent = [rate for name, since, rate in self.rates
                       if name == self.plan["tax"] and since <= (end - DAY).isoformat()][-1]
            net = _round(Fraction(gross) * 100 / (100 + percent))
        bookable = _midnight(self.month[0] if advance else self.month[-1] + DAY, self.term["timezone"])
        return {"period": self.period, "service": self.term["service"], "plan": self.plan["name"],
                "plan_version": self.plan["from"], "start": first, "end": end, "line": line["name"], "kind": kind,
                "zone": None, "class": None, "direction": None, "quantity": quantity, "unit": unit, "unit_price": price,
                "net_minor": net, "gross_minor": gross, "tax": self.plan["tax"], "currency": self.plan["currency"],
                "bookable": bookable, **more}

    # fees

    def fee(self, line: Document) -> Iterator[Row]:
        advance = line["when"] == "advance"
        amount = Fraction(line["amount"]) * self.minor
        if line["every"] == "day":
            each = Fraction(_round(amount)) if line["proration"] == "daily" else amount
            count = len(self.days)
            yield self.row(line, "fee", self.days[0], self.days[-1] + DAY, "1" if count == 1 else f"{count}/1", "day",
                           line["amount"], sum([each] * count, Fraction(0)), advance)
            return
        for opens, closes in self.fee_periods(FEE_MONTHS[line["every"]]):
            paid = [day for day in _range(opens, closes) if _holds(self.term, day)]
            if paid and (paid[0] if advance else paid[-1]) in self.month:
                quantity, due = self.part(line, amount, paid, opens, closes)
                yield self.row(line, "fee", paid[0], paid[-1] + DAY, quantity, line["every"], line["amount"], due, advance)

    def fee_periods(self, months: int) -> Iterator[tuple[date, date]]:
        """Fee periods from the one before the first billing day on, up to the one that holds the month's end."""
        start = self.term["start"]
        first = date.fromisoformat(start) if start else date(1970, 1, 1)
        while first.day != 1:
            first += DAY
        opens = _step(first, -months)
        while opens <= self.month[-1]:
            closes = _step(opens, months)
            if closes > self.month[0]:
                yield opens, closes
            opens = closes

    def part(self, line: Document, amount: Fraction, paid: list[date], opens: date, closes: date) -> tuple[str, Fraction]:
        """Quantity and amount, in minor units, of the days of a fee period that are paid."""
        policy, everything = line["proration"], list(_range(opens, closes))
        if policy == "daily":
            a_day = Fraction(_round(amount / len(everything)))
            due = sum((a_day for _ in paid), Fraction(0))
            if paid[-1] == everything[-1]:
                due += _round(amount) - a_day * len(everything)
            return ("1" if paid == everything else f"{len(paid)}/{len(everything)}"), due
        if paid == everything or policy == "whole_period":
            return "1", amount
        if policy == "none":
            return f"0/{len(everything)}", Fraction(0)
        if policy == "thirty_day_month":
            counted, of = _days_of_30(paid[0], paid[-1] + DAY), _days_of_30(opens, closes)
            return f"{counted}/{of}", amount * counted / of
        quantity = f"{len(paid)}/{len(everything)}"
        if policy == "to_the_second":
            zone = self.term["timezone"]
            ends = [_midnight(day, zone) for day in (paid[0], paid[-1] + DAY, opens, closes)]
            return quantity, amount * (ends[1] - ends[0]) / (ends[3] - ends[2])
        assert policy == "actual_days", policy
        return quantity, amount * len(paid) / len(everything)

    # usage

    def traffic(self, line: Document, usage: list[Row]) -> Row:
        octets = 0
        for row in usage:
            if line["direction"] != "both" and row["direction"] != line["direction"]:
                continue
            if line["classes"] and row["class"] not in line["classes"]:
                continue
            if line["zones"] and row["zone"] not in line["zones"]:
                continue
            if row["sampled"] and line["sampled"] == "refuse":
                continue
            octets += row["octets"]
        included = _amount_of(line["included"], OCTETS)
        if octets <= included:
            billed = Fraction(0)
        else:
            billed = Fraction(octets) if line["above"] == "all" else octets - included
        quantity = billed / OCTETS[line["unit"]]
        row = self.row(line, "traffic", self.days[0], self.days[-1] + DAY, _decimal(quantity), line["unit"], line["price"],
                       quantity * Fraction(line["price"]) * self.minor, direction=line["direction"])
        for name, listed in (("zone", line["zones"]), ("class", line["classes"])):
            row[name] = listed[0] if len(listed) == 1 else None
        return row

    def percentile(self, line: Document, slots: list[Sample]) -> Row:
        up: dict[int, int] = defaultdict(int)
        down: dict[int, int] = defaultdict(int)
        for slot, direction, octets in slots:
            (up if direction == "up" else down)[slot] += octets
        active = {slot for slot in {*up, *down} if up[slot] or down[slot]}
        begins, ends = (_midnight(day, self.term["timezone"]) for day in (self.days[0], self.days[-1] + DAY))
        every = active if line["missing"] == "left_out" else {*range(begins // SLOT_MS * SLOT_MS, ends, SLOT_MS), *active}
        highest, winner = self.sample(line, every, up, down)
        speed = max(Fraction(highest * 8, 300), _amount_of(line["committed"], BITS))
        quantity = speed / BITS[line["unit"]]
        shown = _decimal(Fraction(_round(quantity * 10**6), 10**6))
        return self.row(line, "percentile", self.days[0], self.days[-1] + DAY, shown, line["unit"], line["price"],
                        quantity * Fraction(line["price"]) * self.minor, direction=winner)

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


def _range(first: date, end: date) -> Iterator[date]:
    while first < end:
        yield first
        first += DAY


def _step(first_of_month: date, months: int) -> date:
    """The first of the month so many months later."""
    for _ in range(abs(months)):
        if months > 0:
            first_of_month = (first_of_month + 31 * DAY).replace(day=1)
        else:
            first_of_month = (first_of_month - DAY).replace(day=1)
    return first_of_month


def _days_of_30(start: date, end: date) -> int:
    def number(day: date) -> int:
        return 360 * day.year + 30 * day.month + (30 if day.day == 31 else day.day)

    return number(end) - number(start)


def _amount_of(text: str, units: dict[str, int]) -> Fraction:
    """'100 GB' or '10Mbit/s' → octets or bits a second."""
    unit = max((name for name in units if text.strip().endswith(name)), key=len)
    return Fraction(text.strip().removesuffix(unit).strip()) * units[unit]


def _decimal(value: Fraction) -> str:
    digits = 0
    while (value * 10**digits).denominator != 1:
        digits += 1
    whole, part = divmod(int(value * 10**digits), 10**digits)
    return f"{whole}.{part:0{digits}d}" if digits else str(whole)
