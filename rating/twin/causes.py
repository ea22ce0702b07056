"""Why another billing's amount of a line differs from ours: found by rating the service again under other policies.

A cause is found where some other policy gives their amount to the last minor unit, and ours does not. The policies are
tried in a fixed order, from what changes least to what changes most; the first that fits is told. What a plan's discounts,
minimums and maximums make of another policy is seen too, since the whole service is rated again.

    rounding          the same exact amount, rounded by another rule, once over several rows, or hour by hour or day by day
    quantity_rounding our quantity, rounded to some decimals, is the one that they tell
    vat               the tax is in one of the two amounts, or of another percentage
    proration         another policy of `rating.proration` for parts of fee periods
    dates             the whole fee period, or a day more or less at either end
    octet_unit        a GiB where the plan says GB, or the other way round
    included_volume   without what is included, by another reading of it, or a part of it by days

A price that differs concerns all services of a plan: `rating.twin.prices`.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from fractions import Fraction
from typing import Any, NamedTuple

from core import money, periods
from core.units import OCTET_UNITS, parse_octets
from rating import engine, plans
from rating.twin.bills import GROSS, NET, Bill, Document, Key, figure
from rating.twin.charges_file import TheirCharge

ROUNDING, VAT, PRORATION, DATES, OCTET_UNIT, INCLUDED = (
    "rounding", "vat", "proration", "dates", "octet_unit", "included_volume")
QUANTITY_ROUNDING, OTHER_QUANTITY = "quantity_rounding", "other_quantity"
QUANTITY_DIGITS_MAX = 6
_OTHER_UNIT = {"kB": "KiB", "MB": "MiB", "GB": "GiB", "TB": "TiB", "KiB": "kB", "MiB": "MB", "GiB": "GB", "TiB": "TB"}
_EARLIER, _LATER = timedelta(days=-1), timedelta(days=1)


class Cause(NamedTuple):
    """What makes the difference; one that is not explained is a hint for a person, who has to accept it."""

    name: str
    detail: str
    is_explained: bool = True


@dataclass(frozen=True)
class Line:
    """A line of a service, whose amounts differ."""

    key: Key
    ours: Sequence[engine.Charge]
    theirs: Sequence[TheirCharge]
    ours_minor: int
    theirs_minor: int

    @property
    def difference_minor(self) -> int:
        return self.ours_minor - self.theirs_minor


def find(bill: Bill, lines: Iterable[Line], percents: dict[str, set[Fraction]]) -> dict[Key, Cause]:
    """The causes of the differences of one service, by line; a line for which none is found is left out."""
    found: dict[Key, Cause] = {}
    waiting = {line.key: line for line in lines}
    again = bill.compared(bill.rate())
    for key, line in list(waiting.items()):
        cause = _of_rows(bill, line, percents)
        if cause is None and again.get(key) != line.ours_minor:
            cause = Cause("unexplained", "the engine has changed since then: rate the period again, then compare", False)
        if cause is not None:
            found[key] = cause
            del waiting[key]
    for cause, amounts in _alternatives(bill, waiting.values()):
        for key, line in list(waiting.items()):
            if amounts.get(key) == line.theirs_minor and _is_bounded(cause, line):
                found[key] = cause
                del waiting[key]
        if not waiting:
            break
    for key, line in waiting.items():
        hint = _quantity_hint(bill, line)
        if hint is not None:
            found[key] = hint
    return found


# from the rows as they are


def _of_rows(bill: Bill, line: Line, percents: dict[str, set[Fraction]]) -> Cause | None:
    return _quantity_rounded(bill, line) or _rounded_once(bill, line) or _increments(bill, line) or _vat(bill, line, percents)


def _is_bounded(cause: Cause, line: Line) -> bool:
    """Rounding explains no more than a minor unit a row."""
    return cause.name != ROUNDING or abs(line.difference_minor) <= max(len(line.ours), len(line.theirs))


def exact_minor(bill: Bill, charge: engine.Charge) -> Fraction | None:
    """Quantity times price in minor units, exactly; None for rows whose amount is not that."""
    try:
        exact = Fraction(charge.quantity) * Fraction(charge.unit_price) * 10 ** money.minor_digits(charge.currency)
    except ValueError:
        return None
    rule = plan_of(bill, charge).round
    return exact if rule(exact) == engine.amount_of(charge) else None


def plan_of(bill: Bill, charge: engine.Charge) -> plans.Plan:
    return bill.plans[charge.plan, charge.plan_version]


def _rounded_once(bill: Bill, line: Line) -> Cause | None:
    """Several rows whose exact sum is rounded, or a net amount taken out of a gross one that is not rounded before."""
    exact = [exact_minor(bill, charge) for charge in line.ours]
    known = [minor for minor in exact if minor is not None]
    if not known or len(known) < len(exact) or abs(line.difference_minor) > max(len(line.ours), len(line.theirs)):
        return None
    first = line.ours[0]
    inclusive, percent = first.gross_minor is not None, bill.percent(first)
    for name, rule in money.ROUNDING.items():
        if len(known) > 1 and figure(rule(sum(known, Fraction(0))), inclusive, bill.amounts, percent) == line.theirs_minor:
            return Cause(ROUNDING, f"they round the sum of {len(known)} rows once, {name}")
        if inclusive != (bill.amounts == GROSS):
            factor = 100 / (100 + percent) if inclusive else (100 + percent) / 100
            if sum([rule(minor * factor) for minor in known]) == line.theirs_minor:
                return Cause(ROUNDING, f"they reckon the tax before they round, {name}")
    return None


def _increments(bill: Bill, line: Line) -> Cause | None:
    """Traffic at one price, rounded hour by hour or day by day."""
    if any(charge.kind != "traffic" for charge in line.ours):
        return None
    if any(plan.quotas for plan in bill.plans.values()):
        return None
    hours: list[tuple[engine.Charge, dict[int, int], plans.Traffic]] = []
    for charge in line.ours:
        plan = plan_of(bill, charge)
        meter = next(meter for meter in plan.traffic if meter.name == charge.line)
        if meter.tiers or meter.block is not None or meter.included:
            return None
        hours.append((charge, _octets_by_hour(bill, charge, meter), meter))
    zone = bill.subscriptions[0].timezone
    by_hour = [list(octets.values()) for _, octets, _ in hours]
    by_day = [list(_by_day(octets, zone).values()) for _, octets, _ in hours]
    for noun, grouped in (("hour", by_hour), ("day", by_day)):
        count = sum(len(octets) for octets in grouped)
        if abs(line.difference_minor) > count:
            continue
        for name, rule in money.ROUNDING.items():
            total = 0
            for (charge, _, meter), octets in zip(hours, grouped, strict=True):
                price = Fraction(meter.price) * 10 ** money.minor_digits(charge.currency) / meter.unit_octets
                total += bill.figure(charge, sum([rule(price * some) for some in octets]))
            if total == line.theirs_minor:
                return Cause(ROUNDING, f"they round each {noun}, {name}")
    return None


def _octets_by_hour(bill: Bill, charge: engine.Charge, meter: plans.Traffic) -> dict[int, int]:
    holders = {row.id for row in bill.subscriptions if row.plan == charge.plan and not row.is_addon
               and (row.start is None or row.start <= charge.start) and (row.end is None or row.end >= charge.end)}
    octets: dict[int, int] = defaultdict(int)
    for row in bill.hours:
        if row["subscription"] in holders and meter.matches(row["zone"], row["class"], row["direction"]) \
                and (meter.sampled == "allow" or not row["sampled"]):
            octets[row["hour"]] += row["octets"]
    return octets


def _by_day(hours: dict[int, int], zone: str) -> dict[date, int]:
    days: dict[date, int] = defaultdict(int)
    for hour, octets in hours.items():
        days[periods.local_date(hour, zone)] += octets
    return days


def _their_quantity(line: Line) -> tuple[Fraction, engine.Charge] | None:
    """Their quantity and our row, where both sides have one that is told."""
    if len(line.ours) != 1 or len(line.theirs) != 1 or not line.theirs[0].quantity:
        return None
    return Fraction(line.theirs[0].quantity), line.ours[0]


def _quantity_rounded(bill: Bill, line: Line) -> Cause | None:
    told = _their_quantity(line)
    if told is None or exact_minor(bill, told[1]) is None:
        return None
    theirs, charge = told
    ours = Fraction(charge.quantity)
    if not _reproduces(bill, charge, theirs, line.theirs_minor) or theirs == ours:
        return None
    for digits in range(QUANTITY_DIGITS_MAX + 1):
        for name, rule in money.ROUNDING.items():
            if Fraction(rule(ours * 10**digits), 10**digits) == theirs:
                told_text = line.theirs[0].quantity
                return Cause(QUANTITY_ROUNDING, f"they round the quantity to {digits} decimals, {name}: {told_text}")
    return None


def _quantity_hint(bill: Bill, line: Line) -> Cause | None:
    told = _their_quantity(line)
    if told is None or exact_minor(bill, told[1]) is None or not _reproduces(bill, told[1], told[0], line.theirs_minor):
        return None
    return Cause(OTHER_QUANTITY, f"at the same price they bill {line.theirs[0].quantity} {told[1].unit}, "
                 f"we {told[1].quantity}", False)


def _reproduces(bill: Bill, charge: engine.Charge, quantity: Fraction, minor: int) -> bool:
    exact = quantity * Fraction(charge.unit_price) * 10 ** money.minor_digits(charge.currency)
    return bill.figure(charge, plan_of(bill, charge).round(exact)) == minor


def _vat(bill: Bill, line: Line, percents: dict[str, set[Fraction]]) -> Cause | None:
    """The tax is included on one side only, or of another percentage."""
    ours, theirs = line.ours, line.theirs_minor
    other = NET if bill.amounts == GROSS else GROSS
    texts = ", ".join(sorted({f"{_text(bill.percent(charge))} %" for charge in ours}))
    verb = "leaves out" if other == NET else "includes"
    told: list[int] = [charge.tax_minor for charge in line.theirs if charge.tax_minor is not None]
    if sum([_with(charge, other, bill.percent(charge)) for charge in ours]) == theirs:
        return Cause(VAT, f"their amount {verb} the VAT of {texts}")
    tax = sum(told)
    if tax and len(told) == len(line.theirs) and line.ours_minor == theirs + (tax if other == NET else -tax):
        return Cause(VAT, f"their amount {verb} the tax that their file tells")
    for percent in sorted({percent for charge in ours for percent in percents.get(charge.tax, ())}):
        if sum([_with(charge, bill.amounts, percent) for charge in ours]) == theirs:
            return Cause(VAT, f"they reckon a VAT of {_text(percent)} % instead of {texts}")
    return None


def _with(charge: engine.Charge, amounts: str, percent: Fraction) -> int:
    return figure(engine.amount_of(charge), charge.gross_minor is not None, amounts, percent)


def _text(percent: Fraction) -> str:
    return engine.decimal_text(percent)


# by rating again


def _alternatives(bill: Bill, lines: Iterable[Line]) -> Iterator[tuple[Cause, dict[Key, int]]]:
    """Each policy that could be another's, with what the lines then come to."""
    lines = list(lines)
    if not lines:
        return
    for cause, edit in _edits(bill):
        documents = [edit(copy.deepcopy(document)) for document in bill.documents]
        if documents != list(bill.documents):
            yield cause, bill.compared(bill.rate(documents))
    for cause, subscriptions in _shifts(bill):
        yield cause, bill.compared(bill.rate(None, subscriptions))


Edit = Callable[[Document], Document]


def _edits(bill: Bill) -> Iterator[tuple[Cause, Edit]]:
    for rule in plans.ROUNDING:
        yield Cause(ROUNDING, f"they round {rule}"), lambda document, rule=rule: {**document, "rounding": rule}  # type: ignore[misc]
    for policy in ("actual_days", "thirty_day_month", "to_the_second", "daily"):
        yield Cause(PRORATION, f"they prorate by {policy}"), _prorated(policy)
    yield Cause(PRORATION, "they charge nothing for a part of a fee period (none)"), _prorated("none")
    yield Cause(DATES, f"they bill the whole period; {_dates(bill)}"), _whole
    units = sorted({unit for document in bill.documents for unit in _units_of(document)})
    for how, keys in _UNIT_KEYS.items():
        said = ", ".join(f"{_OTHER_UNIT[unit]} for {unit}" for unit in units)
        yield Cause(OCTET_UNIT, f"they count {said} ({how})"), lambda document, keys=keys: _swapped(document, keys)  # type: ignore[misc]
    yield Cause(INCLUDED, "they include nothing"), _without_included
    yield Cause(INCLUDED, "they bill the excess only"), lambda document: _traffic(document, above="excess")
    yield Cause(INCLUDED, "they bill all of it once the included volume is exceeded"), \
        lambda document: _traffic(document, above="all")
    yield Cause(INCLUDED, "they include a part by the days of the subscription"), lambda document: _shared(bill, document)


def _prorated(policy: str) -> Edit:
    def edit(document: Document) -> Document:
        for fee in document["fee"]:
            if fee["every"] != "day" or policy not in ("thirty_day_month", "none"):
                fee["proration"] = policy
        return document

    return edit


def _whole(document: Document) -> Document:
    """Everything that is shared by days is charged whole."""
    for line in (*_prorated("whole_period")(document)["fee"], *document.get("minimum", ()), *document.get("maximum", ())):
        line["share" if "share" in line else "proration"] = "whole_period"
    return document


def _dates(bill: Bill) -> str:
    rows = [row for row in bill.subscriptions if not row.is_addon]
    return ", ".join(f"the subscription is from {row.start or 'ever'} to {row.end or 'open'}" for row in rows)


_UNIT_KEYS = {"in prices": ("unit", "block"), "in included volumes and tiers": ("included", "to", "volume", "cap"),
              "in prices and volumes": ("unit", "block", "included", "to", "volume", "cap")}


def _units_of(document: Document) -> Iterator[str]:
    for line in (*document["traffic"], *document.get("quota", ())):
        for key in ("unit", "block", "volume"):
            if line.get(key) and plans.unit_of(line[key]) in _OTHER_UNIT:
                yield plans.unit_of(line[key])


def _swapped(document: Document, keys: Sequence[str]) -> Document:
    for line in (*document["traffic"], *document.get("quota", ())):
        for part in (line, *line.get("tiers", ()), *filter(None, [line.get("rollover")])):
            for key in keys:
                text = part.get(key)
                unit = plans.unit_of(text) if text else ""
                if unit in _OTHER_UNIT:
                    part[key] = text.removesuffix(unit) + _OTHER_UNIT[unit]
    return document


def _traffic(document: Document, **values: Any) -> Document:
    for line in document["traffic"]:
        if parse_octets(line["included"]):
            line.update(values)
    return document


def _without_included(document: Document) -> Document:
    document = _traffic(document, included="0 B")
    if document.get("quota"):
        document["quota"] = []
    return document


def _shared(bill: Bill, document: Document) -> Document:
    """What is included, by the days of the stretch (the shortest of the plan's, if it has several)."""
    days = [(stretch.end - stretch.start).days for row in bill.subscriptions if row.plan == document["name"]
            and (stretch := engine.stretch_of(row, plans.Catalogue([plans.parse(document)]), bill.period)) is not None]
    month = (periods.period_end_day(bill.period) - periods.period_first_day(bill.period)).days
    for line in document["traffic"]:
        octets = parse_octets(line["included"])
        if octets and days:
            line["included"] = f"{octets * min(days) // month} B"
    for quota in document.get("quota", ()):
        quota["share"] = "actual_days"
    return document


def _shifts(bill: Bill) -> Iterator[tuple[Cause, list[engine.Subscription]]]:
    """A day more or less at the ends that lie in the period."""
    first, last = periods.period_first_day(bill.period), periods.period_end_day(bill.period)

    def moved(end: str, by: timedelta) -> list[engine.Subscription]:
        found = []
        for row in bill.subscriptions:
            day = getattr(row, end)
            inside = day is not None and first <= day <= last
            found.append(replace(row, **{end: day + by}) if inside else row)
        return found

    for end, by, said in (
            ("end", _LATER, "they bill the day of the end too"), ("end", _EARLIER, "they end a day earlier"),
            ("start", _LATER, "they do not bill the day of the start"), ("start", _EARLIER, "they start a day earlier")):
        subscriptions = moved(end, by)
        if subscriptions != list(bill.subscriptions) and all(
                row.start is None or row.end is None or row.start < row.end for row in subscriptions):
            yield Cause(DATES, f"{said}; {_dates(bill)}"), subscriptions


assert set(_OTHER_UNIT) <= OCTET_UNITS.keys(), "every unit of volume is known"
