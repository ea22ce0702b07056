"""The second engine: charges once more, from a run's frozen inputs, slowly and by other means than `rating.engine`.

It reads the plans' JSON as it is stored, walks days and months one by one, sorts slots as lists and rounds with integers
of its own, so that a mistake would have to be made twice to stay unseen. It shares nothing with the engine but the rules
of docs/explanation/money.md.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
Carried = tuple[str, str, int]
"""Quota, the last period that may use it, octets."""

DAY = timedelta(days=1)
OCTETS = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4,
          "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
BITS = {"bit/s": 1, "kbit/s": 1000, "Mbit/s": 1000**2, "Gbit/s": 1000**3}
FEE_MONTHS = {"month": 1, "quarter": 3, "year": 12}
SLOT_MS = 300_000


def charges(period: str, terms: Iterable[Row], plans: Iterable[Document], tax: Iterable[dict[str, str]], usage: Iterable[Row],
            slots: Iterable[Row]) -> list[Row]:
    """Rows with the columns of core.schemas.CHARGES; `bookable` is in ms."""
    return rated(period, terms, plans, tax, usage, slots)[0]


def rated(period: str, terms: Iterable[Row], plans: Iterable[Document], tax: Iterable[dict[str, str]], usage: Iterable[Row],
          slots: Iterable[Row]) -> tuple[list[Row], dict[int, list[Carried]]]:
    """The charges, and by subscription what is left of quotas for the next period: (quota, expires, octets)."""
    documents = {(plan["name"], plan["from"]): plan for plan in plans}
    rates = sorted((entry["category"], entry["from"], Fraction(entry["percent"])) for entry in tax)
    used: dict[int, list[Row]] = defaultdict(list)
    for row in usage:
        used[row["subscription"]].append(row)
    measured: dict[int, list[Sample]] = defaultdict(list)
    for row in slots:
        measured[row["subscription"]].append((row["slot"], row["direction"], row["octets"]))
    services: dict[str, list[_Bill]] = defaultdict(list)
    for term in terms:
        plan = documents.get((term["plan"], term["plan_version"]))
        days = _days(period, term)
        if plan is not None and days:
            services[term["service"]].append(_Bill(period, term, plan, rates, days))
    found: list[Row] = []
    carried: dict[int, list[Carried]] = {}
    for bills in services.values():
        found += _of_service(bills, used, measured)
        for bill in bills:
            left = bill.carried()
            if left:
                carried[bill.number] = left
    return found, carried


def _of_service(bills: list[_Bill], used: dict[int, list[Row]], measured: dict[int, list[Sample]]) -> list[Row]:
    """The rows of a service: its own plans first, then the add-ons beside them."""
    own, addons = ([bill for bill in bills if bill.addon == which] for which in (False, True))
    lots = [lot for bill in own + sorted(addons, key=lambda bill: (bill.days[0], bill.plan["name"])) for lot in bill.lots]
    found: list[Row] = []
    for bill in own:
        mine = [lot for lot in lots if lot.bill is bill or (lot.bill.addon and set(lot.bill.days) & set(bill.days))]
        found += bill.rows(_uncovered(bill, used.get(bill.number, []), mine), measured.get(bill.number, []), [])
    on_the_service = list(found)
    for bill in addons:
        rows = bill.rows([], [], on_the_service)
        given = [line["name"] for line in bill.plan.get("discount", ()) if line.get("of") == "service"]
        on_the_service += [row for row in rows if row["line"] in given]
        found += rows
    return found


def _uncovered(bill: _Bill, usage: list[Row], lots: list[_Lot]) -> list[Row]:
    """Usage without what quotas cover, octet lots being used up one after the other."""
    def order(row: Row) -> tuple[Any, ...]:
        return row["zone"] or "", row["class"], row["direction"], row["sampled"]

    left = [dict(row) for row in sorted(usage, key=order)]
    queue: list[Row] = []
    for line in bill.plan["traffic"]:
        queue += [row for row in left if _counts(line, row) and not any(row is waiting for waiting in queue)]
    for lot in sorted(lots, key=lambda lot: (lot.line.get("priority", 0), lot.expires)):
        for row in queue:
            if _is_of(lot.line, row):
                covered = min(row["octets"], lot.left)
                row["octets"] -= covered
                lot.left -= covered
    return left


def _is_of(line: Document, row: Row) -> bool:
    """Whether usage has the direction, class and zone of a line."""
    return ((line["direction"] == "both" or row["direction"] == line["direction"])
            and (not line.get("classes") or row["class"] in line["classes"])
            and (not line.get("zones") or row["zone"] in line["zones"]))


def _counts(line: Document, row: Row) -> bool:
    return _is_of(line, row) and (line["sampled"] == "allow" or not row["sampled"])


@dataclass(eq=False)
class _Lot:
    """Octets of a quota that are used up together."""

    bill: _Bill
    line: Document
    expires: str
    volume: int
    fresh: bool  # given in this period, rather than carried into it
    left: int = 0

    def __post_init__(self) -> None:
        self.left = self.volume


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


def _round(value: Fraction, rule: str = "half_up") -> int:
    """Half away from zero, half to even, away from zero or towards it."""
    whole, rest = divmod(abs(value.numerator), value.denominator)
    half = 2 * rest - value.denominator
    if rule == "up":
        whole += rest > 0
    elif rule == "half_even":
        whole += half > 0 or (half == 0 and whole % 2)
    elif rule == "half_up":
        whole += half >= 0
    else:
        assert rule == "down", rule
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
    """One subscription, or add-on, in one period."""

    def __init__(self, period: str, term: Row, plan: Document, rates: list[tuple[str, str, Fraction]],
                 days: list[date]) -> None:
        self.period, self.term, self.plan, self.rates, self.days = period, term, plan, rates, days
        self.number: int = term["subscription"]
        self.month = _month_days(period_first_day(period))
        self.minor = 10 ** MINOR_DIGITS.get(plan["currency"], 2)
        self.addon: bool = term.get("addon") or False
        self.count: int = term.get("quantity") or 1
        self.pauses = json.loads(term.get("pauses") or "[]")
        self.beside = json.loads(term.get("beside") or "[]")
        self.lots = list(self._lots(json.loads(term.get("carried") or "[]")))

    def rows(self, usage: list[Row], slots: list[Sample], of_service: list[Row]) -> list[Row]:
        found: list[Row] = []
        for fee in self.plan["fee"]:
            found += self.fee(fee)
        for line in self.plan.get("once", ()):
            found += self.once(line)
        for line in self.plan["traffic"]:
            found.append(self.traffic(line, usage))
        for line in self.plan["percentile"]:
            found.append(self.percentile(line, slots))
        for line in self.plan.get("quota", ()):
            found.append(self.quota(line))
        found += [self.bound("minimum", line, found) for line in self.plan.get("minimum", ())]
        found += [self.bound("maximum", line, found) for line in self.plan.get("maximum", ())]
        bases = {"own": list(found), "service": list(of_service)}
        for line in self.plan.get("discount", ()):
            base = bases[line.get("of", "own")]
            rows = list(self.discount(line, base))
            base += rows
            found += rows
        return found

    def row(self, line: Document, kind: str, first: date, end: date, quantity: str, unit: str, price: str, amount: Fraction,
            bookable: date | None = None, **more: Any) -> Row:
        net, gross = _round(amount, self.plan.get("rounding", "half_up")), None
        tax = line.get("tax") or self.plan["tax"]
        if self.plan["prices"] == "inclusive":
            gross = net
            percent = [rate for name, since, rate in self.rates if name == tax and since <= (end - DAY).isoformat()][-1]
            net = _round(Fraction(gross) * 100 / (100 + percent))
        return {"period": self.period, "service": self.term["service"], "plan": self.plan["name"],
                "plan_version": self.plan["from"], "start": first, "end": end, "line": line["name"], "kind": kind,
                "zone": None, "class": None, "direction": None, "quantity": quantity, "unit": unit, "unit_price": price,
                "net_minor": net, "gross_minor": gross, "tax": tax, "currency": self.plan["currency"],
                "bookable": _midnight(bookable or self.month[-1] + DAY, self.term["timezone"]), **more}

    # fees

    def fee(self, line: Document) -> Iterator[Row]:
        advance = self.month[0] if line["when"] == "advance" else None
        amount = Fraction(line["amount"]) * self.minor
        if line["every"] == "day":
            each = Fraction(_round(amount, self.plan.get("rounding", "half_up"))) if line["proration"] == "daily" else amount
            for days in _runs(day for day in self.days if self.is_charged(line, day)):
                count = len(days) * self.count
                yield self.row(line, "fee", days[0], days[-1] + DAY, "1" if count == 1 else f"{count}/1", "day",
                               line["amount"], sum([each] * count, Fraction(0)), advance)
            return
        for opens, closes in self.fee_periods(FEE_MONTHS[line["every"]], self.month[0], self.month[-1]):
            paid = list(_runs(day for day in _range(opens, closes) if self.holds(day) and self.is_charged(line, day)))
            if line["proration"] == "whole_period":
                paid = paid[:1]
            for days in paid:
                if (days[0] if advance else days[-1]) in self.month:
                    quantity, due = self.part(line, amount, days, opens, closes)
                    yield self.row(line, "fee", days[0], days[-1] + DAY, _times(quantity, self.count), line["every"],
                                   line["amount"], due * self.count, advance)

    def holds(self, day: date) -> bool:
        return _holds(self.term, day)

    def is_charged(self, line: Document, day: date) -> bool:
        """Whether the service is, on a day, what a fee is charged for."""
        resting = [kind for start, end, kind in self.pauses if start <= day.isoformat() < end]
        wanted = line.get("during", "always")
        return wanted == "always" or (not resting if wanted == "active" else wanted in resting)

    def fee_periods(self, months: int, first: date, last: date) -> Iterator[tuple[date, date]]:
        """Fee periods that have a day in [first, last]; they are counted from the first billing day on or after the start."""
        start = date.fromisoformat(self.term["start"]) if self.term["start"] else None
        day = self.plan.get("billing_day", 1)
        if day == "anniversary":
            day = start.day if start else 1
        month = (start.year * 12 + start.month - 1) if start else 1970 * 12
        if start and _billing_day(month, day) < start:
            month += 1
        while _billing_day(month, day) > first:
            month -= months
        while _billing_day(month, day) <= last:
            opens, closes = _billing_day(month, day), _billing_day(month + months, day)
            if closes > first:
                yield opens, closes
            month += months

    def part(self, line: Document, amount: Fraction, paid: list[date], opens: date, closes: date) -> tuple[str, Fraction]:
        """Quantity and amount, in minor units, of the days of a fee period that are paid."""
        policy, everything, rule = line["proration"], list(_range(opens, closes)), self.plan.get("rounding", "half_up")
        if policy == "daily":
            a_day = Fraction(_round(amount / len(everything), rule))
            due = sum((a_day for _ in paid), Fraction(0))
            if paid[-1] == everything[-1]:
                due += _round(amount, rule) - a_day * len(everything)
            return ("1" if paid == everything else f"{len(paid)}/{len(everything)}"), due
        if paid == everything or policy == "whole_period":
            return "1", amount
        if policy == "none":
            return f"0/{len(everything)}", Fraction(0)
        if policy == "thirty_day_month":
            counted, of = _days_of_30(paid[0], paid[-1] + DAY), 30 * FEE_MONTHS[line["every"]]
            return f"{counted}/{of}", amount * counted / of
        quantity = f"{len(paid)}/{len(everything)}"
        if policy == "to_the_second":
            zone = self.term["timezone"]
            ends = [_midnight(day, zone) for day in (paid[0], paid[-1] + DAY, opens, closes)]
            return quantity, amount * (ends[1] - ends[0]) / (ends[3] - ends[2])
        assert policy == "actual_days", policy
        return quantity, amount * len(paid) / len(everything)

    # single events

    def once(self, line: Document) -> Iterator[Row]:
        day = self.event(line["on"])
        if day not in self.month:
            return
        price, amount = line.get("amount", ""), Fraction(line.get("amount", 0))
        if "percent" in line:
            fee = next(fee for fee in self.plan["fee"] if fee["name"] == line["of"])
            end, over = date.fromisoformat(self.term["end"]), self.contract_end()
            price, amount = f"{line['percent']} %", Fraction(0)
            for opens, closes in self.fee_periods(FEE_MONTHS[fee["every"]], end, over - DAY):
                remaining = [left for left in _range(opens, closes) if end <= left < over]
                amount += Fraction(fee["amount"]) * len(remaining) / (closes - opens).days * Fraction(line["percent"]) / 100
        yield self.row(line, "once", day, day + DAY, str(self.count), line["on"], price, amount * self.minor * self.count, day)

    def event(self, on: str) -> date:
        """The day of an event; one that no month has where there is none."""
        start, end, never = self.term["start"], self.term["end"], date.min
        if on in ("end", "early_end"):
            if not end or self.term.get("followed") or (on == "early_end" and (
                    not start or date.fromisoformat(end) >= self.contract_end())):
                return never
            return date.fromisoformat(end) - DAY
        previous = self.term.get("previous")
        happened = {"start": True, "activation": self.term.get("first"),
                    "change": previous is not None and previous != self.plan["name"]}[on]
        return date.fromisoformat(start) if start and happened else never

    def contract_end(self) -> date:
        start = date.fromisoformat(self.term["start"])
        return _billing_day(start.year * 12 + start.month - 1 + self.plan["contract"]["months"], start.day)

    # quotas

    def _lots(self, carried: list[Carried]) -> Iterator[_Lot]:
        for line in self.plan.get("quota", ()):
            for name, expires, octets in carried:
                if name == line["name"] and expires >= self.period:
                    yield _Lot(self, line, expires, octets, False)
            begun = self.term["start"] and date.fromisoformat(self.term["start"]) in self.month
            if line.get("given", "each_period") == "each_period" or begun:
                volume = int(_amount_of(line["volume"], OCTETS)) * self.count
                if line.get("share") == "actual_days":
                    volume = volume * len(self.days) // len(self.month)
                yield _Lot(self, line, self.period, volume, True)

    def quota(self, line: Document) -> Row:
        used = sum(lot.volume - lot.left for lot in self.lots if lot.line is line)
        unit = max((name for name in OCTETS if line["volume"].strip().endswith(name)), key=len)
        return self.row(line, "quota", self.days[0], self.days[-1] + DAY, _decimal(Fraction(used, OCTETS[unit])), unit, "0",
                        Fraction(0), direction=line["direction"])

    def carried(self) -> list[Carried]:
        """What is left for the next period; what expires last is kept where it would be more than the cap."""
        if not self.holds(self.month[-1] + DAY):
            return []
        found: list[Carried] = []
        for line in self.plan.get("quota", ()):
            rollover = line.get("rollover", {"cap": "0 B", "periods": 0})
            room = int(_amount_of(rollover["cap"], OCTETS)) * self.count
            left: dict[str, int] = defaultdict(int)
            for lot in self.lots:
                if lot.line is line:
                    left[_month_later(self.period, rollover["periods"]) if lot.fresh else lot.expires] += lot.left
            for expires, octets in sorted(left.items(), reverse=True):
                kept = min(octets, room)
                if kept and expires > self.period:
                    room -= kept
                    found.append((line["name"], expires, kept))
        return found

    # lines about other lines

    def bound(self, kind: str, line: Document, rows: list[Row]) -> Row:
        total = sum(_amount(row) for row in rows if not line.get("lines") or row["line"] in line["lines"])
        share, said = Fraction(1), "1"
        if line["share"] == "actual_days" and len(self.days) < len(self.month):
            share, said = Fraction(len(self.days), len(self.month)), f"{len(self.days)}/{len(self.month)}"
        lacking = Fraction(line["amount"]) * self.minor * share - total
        amount = max(lacking, Fraction(0)) if kind == "minimum" else min(lacking, Fraction(0))
        return self.row(line, kind, self.days[0], self.days[-1] + DAY, said, "month", line["amount"], amount)

    def discount(self, line: Document, rows: list[Row]) -> Iterator[Row]:
        listed = [row for row in rows if row["kind"] != "discount" and (not line.get("lines") or row["line"] in line["lines"])]
        if "percent" in line:
            amount, counted = Fraction(0), 0
            for row in listed:
                days = [self.is_discounted(line, day) for day in _range(row["start"], row["end"])]
                counted += sum(days)
                amount += Fraction(_amount(row)) * sum(days) / len(days) * Fraction(line["percent"]) / 100
            quantity, price = "1", f"{line['percent']} %"
        else:
            counted = sum(self.is_discounted(line, day) for day in self.days)
            amount = Fraction(line["amount"]) * self.minor * counted / len(self.month) * self.count
            quantity = _times("1" if counted == len(self.month) else f"{counted}/{len(self.month)}", self.count)
            price = line["amount"]
        if counted:
            most = max(0, min(sum(map(_amount, rows)), sum(map(_amount, listed))))
            yield self.row(line, "discount", self.days[0], self.days[-1] + DAY, quantity, "month", price,
                           -min(amount, Fraction(most)))

    def is_discounted(self, line: Document, day: date) -> bool:
        """Whether a discount holds on a day."""
        start, text = self.term["start"], day.isoformat()
        if not self.holds(day):
            return False
        if ("starts_from" in line and (not start or start < line["starts_from"])) \
                or ("starts_until" in line and (not start or start >= line["starts_until"])):
            return False
        if start:
            first = date.fromisoformat(start)
            month, after = first.year * 12 + first.month - 1, line.get("after_months", 0)
            if day < _billing_day(month + after, first.day):
                return False
            if "months" in line and day >= _billing_day(month + after + line["months"], first.day):
                return False
        elif "months" in line:
            return False
        return "beside" not in line or any(
            plan in line["beside"] and since <= text and (not until or text < until) for plan, since, until in self.beside)

    # usage

    def traffic(self, line: Document, usage: list[Row]) -> Row:
        octets = sum(row["octets"] for row in usage if _counts(line, row))
        included = int(_amount_of(line["included"], OCTETS))
        billed = octets if line["above"] == "all" and octets > included else max(0, octets - included)
        blocks = line.get("block")
        texts = [line["unit"]] if "unit" in line else [blocks or line["tiers"][0]["block"]]
        unit = max((name for name in OCTETS if texts[0].strip().endswith(name)), key=len)
        quantity, price = Fraction(billed, OCTETS[unit]), line.get("price", "")
        if "tiers" in line:
            amount, price = self.tiers(line, billed, OCTETS[unit]), line["model"]
        elif blocks:
            unit, quantity = blocks, Fraction(_started(billed, blocks))
            amount = quantity * Fraction(price)
        else:
            amount = quantity * Fraction(price)
        row = self.row(line, "traffic", self.days[0], self.days[-1] + DAY, _decimal(quantity), unit, price,
                       amount * self.minor, direction=line["direction"])
        for name, listed in (("zone", line["zones"]), ("class", line["classes"])):
            row[name] = listed[0] if len(listed) == 1 else None
        return row

    def tiers(self, line: Document, octets: int, unit: int) -> Fraction:
        """In major units: each octet range of a tier by itself, or all octets in the one where they end."""
        def cost(tier: Document, part: int) -> Fraction:
            pieces = Fraction(_started(part, tier["block"])) if "block" in tier else Fraction(part, unit)
            return Fraction(tier.get("flat", 0)) + pieces * Fraction(tier["price"])

        ends = [int(_amount_of(tier["to"], OCTETS)) if "to" in tier else None for tier in line["tiers"]]
        if line["model"] == "volume":
            reached = sum(end is not None and octets > end for end in ends)
            return cost(line["tiers"][reached], octets)
        total = Fraction(0)
        for number, (tier, end) in enumerate(zip(line["tiers"], ends, strict=True)):
            begins = (ends[number - 1] or 0) if number else 0
            if number == 0 or octets > begins:
                total += cost(tier, (octets if end is None else min(octets, end)) - begins)
        return total

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


def _runs(days: Iterable[date]) -> Iterator[list[date]]:
    """Days in order, as stretches without a gap."""
    run: list[date] = []
    for day in days:
        if run and day != run[-1] + DAY:
            yield run
            run = []
        run.append(day)
    if run:
        yield run


def _billing_day(month: int, day: int) -> date:
    """A day of a month (counted from the year 0), or the month's last."""
    return _month_days(date(month // 12, month % 12 + 1, 1))[:day][-1]


def _month_later(period: str, months: int) -> str:
    year, month = divmod(int(period[:4]) * 12 + int(period[5:]) - 1 + months, 12)
    return f"{year}-{month + 1:02d}"


def _times(quantity: str, count: int) -> str:
    if count == 1:
        return quantity
    top, _, bottom = quantity.partition("/")
    return f"{int(top) * count}/{bottom}" if bottom else str(int(top) * count)


def _amount(row: Row) -> int:
    """What a row's price came to: gross where prices hold the tax."""
    found: int = row["net_minor"] if row["gross_minor"] is None else row["gross_minor"]
    return found


def _started(octets: int, block: str) -> int:
    size = int(_amount_of(block, OCTETS))
    return (octets + size - 1) // size


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
