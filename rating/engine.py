"""Usage and plans → charges: a pure function, exact to the last octet, rounded once a line.

    charge_fees       each fee of a plan, for the stretches that begin, end or lie in the period
    charge_traffic    octets of a stretch by zone, class and direction, above what is included
    charge_percentile the n-th percentile of a stretch's 5-minute slots
    rate              all of it for a period, with what became of the octets (rated, refused, without a plan)

A stretch is a subscription's part of the period; usage reaches the engine summed by subscription, so nothing here looks
at instants except to know how many slots a stretch has. All arithmetic is on whole numbers and fractions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core import money, periods
from rating import proration
from rating.plans import MONTHS, Catalogue, Fee, Percentile, Plan, Traffic

ENGINE_VERSION = "1"
"""Changes whenever the same inputs could give other charges; stored with every run."""

SLOT_SECONDS = 300
DECIMALS_SHOWN = 6

PercentOn = Callable[[str, date], Fraction]
"""(tax category, local day) → percentage."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A service under one plan, from `start` (None: ever) to `end` (None: open), local dates."""

    id: int
    service: str
    plan: str | None
    start: date | None
    end: date | None
    timezone: str
    currency: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """A subscription's part of a period, under the one plan version that it keeps."""

    subscription: Subscription
    plan: Plan
    period: str
    start: date
    end: date


class Usage(NamedTuple):
    """Octets of a stretch that have all this in common."""

    zone: str | None
    class_: str
    direction: str
    sampled: bool
    octets: int


@dataclass(frozen=True, slots=True)
class Slots:
    """5-minute slots of a stretch that have traffic: octets up and down, one row a slot."""

    up: NDArray[np.int64]
    down: NDArray[np.int64]


class Charge(NamedTuple):
    """A row of core.schemas.CHARGES, in its order."""

    period: str
    service: str
    plan: str
    plan_version: str
    start: date
    end: date
    line: str
    kind: str
    zone: str | None
    class_: str | None
    direction: str | None
    quantity: str
    unit: str
    unit_price: str
    net_minor: int
    gross_minor: int | None
    tax: str
    currency: str
    bookable: int

    @property
    def key(self) -> tuple[str, ...]:
        return (self.period, self.service, self.plan, self.plan_version, self.start.isoformat(), self.end.isoformat(),
                self.line, self.kind)


@dataclass
class Rated:
    """Charges in the order of their key, and what became of the period's octets."""

    charges: list[Charge] = field(default_factory=list)
    rated_octets: int = 0
    without_plan_octets: int = 0
    sampled_refused_octets: int = 0
    stretches: int = 0


@dataclass(frozen=True)
class Inputs:
    """All that the charges of a period depend on."""

    period: str
    subscriptions: Sequence[Subscription]
    catalogue: Catalogue
    usage: Mapping[int | None, Sequence[Usage]]  # by subscription
    slots: Mapping[int, Slots]  # by subscription, where a plan has a percentile line
    percent_on: PercentOn


NO_SLOTS = Slots(np.empty(0, np.int64), np.empty(0, np.int64))


def rate(inputs: Inputs) -> Rated:
    """The charges of a period."""
    result = Rated()
    planned: set[int | None] = set()
    for subscription in inputs.subscriptions:
        stretch = stretch_of(subscription, inputs.catalogue, inputs.period)
        if stretch is None:
            continue
        planned.add(subscription.id)
        usage = inputs.usage.get(subscription.id, ())
        result.stretches += 1
        result.charges += charge(stretch, usage, inputs.slots.get(subscription.id, NO_SLOTS), inputs.percent_on)
        refused = sum(row.octets for row in usage if is_refused(stretch.plan, row))
        result.sampled_refused_octets += refused
        result.rated_octets += sum(row.octets for row in usage) - refused
    result.without_plan_octets = sum(
        row.octets for subscription_id, usage in inputs.usage.items() if subscription_id not in planned for row in usage)
    result.charges.sort(key=lambda charge: charge.key)
    return result


def stretch_of(subscription: Subscription, catalogue: Catalogue, period: str) -> Stretch | None:
    """The subscription's part of the period; None outside it or without a plan in force."""
    first, last = periods.period_first_day(period), periods.period_end_day(period)
    start = first if subscription.start is None else max(first, subscription.start)
    end = last if subscription.end is None else min(last, subscription.end)
    plan = catalogue.in_force(subscription.plan, subscription.start)
    return Stretch(subscription, plan, period, start, end) if plan is not None and start < end else None


def is_refused(plan: Plan, usage: Usage) -> bool:
    """Sampled octets that a line refuses and no line takes. A percentile is of scaled octets: it takes them all."""
    if not usage.sampled or plan.percentiles:
        return False
    policies = {line.sampled for line in plan.traffic if line.matches(usage.zone, usage.class_, usage.direction)}
    return policies == {"refuse"}


def charge(stretch: Stretch, usage: Iterable[Usage], slots: Slots, percent_on: PercentOn) -> list[Charge]:
    """One row a line of the plan; lines that come to nothing are rows of 0."""
    usage = list(usage)
    found = [row for fee in stretch.plan.fees for row in charge_fees(stretch, fee, percent_on)]
    found += [charge_traffic(stretch, line, usage, percent_on) for line in stretch.plan.traffic]
    found += [charge_percentile(stretch, line, slots, percent_on) for line in stretch.plan.percentiles]
    return found


# fees


def charge_fees(stretch: Stretch, fee: Fee, percent_on: PercentOn) -> list[Charge]:
    """The charges of a fee that belong to the stretch's period: one, or none where a longer one begins or ends in another."""
    begins, ends = _period_bounds(stretch.period, stretch.subscription.timezone)
    bookable = begins if fee.when == "advance" else ends
    if fee.every == "day":
        days = (stretch.end - stretch.start).days
        minor = _minor(Fraction(fee.amount), stretch.plan.currency)
        due = Fraction(money.round_half_up(minor)) if fee.proration == "daily" else minor
        row = (stretch.start, stretch.end, "1" if days == 1 else f"{days}/1", due * days)
        return [_row(stretch, fee.name, "fee", row, fee.every, fee.amount, bookable, percent_on)]
    first, last = periods.period_first_day(stretch.period), periods.period_end_day(stretch.period)
    found = []
    for part in proration.parts(stretch.subscription.start, stretch.subscription.end, MONTHS[fee.every], first, last):
        belongs = part.start if fee.when == "advance" else part.last_day
        if first <= belongs < last:
            row = (part.start, part.end, proration.quantity(fee.proration, part),
                   _fee_minor(fee, part, stretch.plan.currency, stretch.subscription.timezone))
            found.append(_row(stretch, fee.name, "fee", row, fee.every, fee.amount, bookable, percent_on))
    return found


@lru_cache(maxsize=65_536)
def _fee_minor(fee: Fee, part: proration.Part, currency: str, timezone: str) -> Fraction:
    """What a part of a fee costs, exactly, in minor units."""
    whole = _minor(Fraction(fee.amount), currency)
    if fee.proration == "daily":
        return Fraction(proration.daily_minor(whole, part))
    return whole * proration.share(fee.proration, part, timezone)


def _minor(major: Fraction, currency: str) -> Fraction:
    return major * Fraction(10) ** money.minor_digits(currency)


# traffic


def charge_traffic(stretch: Stretch, line: Traffic, usage: Iterable[Usage], percent_on: PercentOn) -> Charge:
    """The octets of a line, above what is included, by the unit."""
    octets = sum(row.octets for row in usage if line.matches(row.zone, row.class_, row.direction)
                 and (line.sampled == "allow" or not row.sampled))
    billed = billed_octets(octets, line.included, line.above)
    amount = _minor(Fraction(line.price) * Fraction(billed, line.unit_octets), stretch.plan.currency)
    row = (stretch.start, stretch.end, decimal_text(Fraction(billed, line.unit_octets)), amount)
    charged = _usage_row(stretch, line.name, "traffic", row, line.unit, line.price, percent_on)
    return charged._replace(direction=line.direction, zone=line.zones[0] if len(line.zones) == 1 else None,
                            class_=line.classes[0] if len(line.classes) == 1 else None)


def billed_octets(octets: int, included: int, above: str) -> int:
    """`excess`: what exceeds the included volume; `all`: everything, once it is exceeded."""
    if octets <= included:
        return 0
    return octets - included if above == "excess" else octets


def decimal_text(value: Fraction) -> str:
    """A fraction whose denominator divides a power of ten, exactly, without exponent or trailing zeros."""
    digits, scaled = 0, value
    while scaled.denominator != 1:
        scaled *= 10
        digits += 1
        assert digits <= 400, f"{value} has no finite decimal"
    sign, text = "-" if scaled < 0 else "", str(abs(scaled.numerator)).rjust(digits + 1, "0")
    return sign + (f"{text[:-digits]}.{text[-digits:]}".rstrip("0").rstrip(".") if digits else text)


# percentile


def charge_percentile(stretch: Stretch, line: Percentile, slots: Slots, percent_on: PercentOn) -> Charge:
    """The percentile of the stretch's slots, or what is committed if that is more, by the unit."""
    octets, direction = measure(line, slots, slots_of(stretch))
    bits = max(line.committed, Fraction(octets * 8, SLOT_SECONDS))
    amount = _minor(Fraction(line.price) * bits / line.unit_bits, stretch.plan.currency)
    shown = Fraction(money.round_half_up(bits / line.unit_bits * 10**DECIMALS_SHOWN), 10**DECIMALS_SHOWN)
    row = (stretch.start, stretch.end, decimal_text(shown), amount)
    return _usage_row(stretch, line.name, "percentile", row, line.unit, line.price, percent_on)._replace(direction=direction)


def slots_of(stretch: Stretch) -> int:
    """How many UTC-aligned 5-minute slots the stretch meets."""
    zone = stretch.subscription.timezone
    begins, ends = _day_start(stretch.start, zone), _day_start(stretch.end, zone)
    return -(-ends // periods.FIVE_MINUTES_MS) - begins // periods.FIVE_MINUTES_MS


def measure(line: Percentile, slots: Slots, slots_in_stretch: int) -> tuple[int, str]:
    """Octets of the slot that is billed, and the direction that it is of (`down` where both have the same)."""
    active = int(np.count_nonzero((slots.up > 0) | (slots.down > 0)))
    count = slots_in_stretch if line.missing == "zero" else active
    if line.convention == "sum":
        return percentile_of(slots.up + slots.down, count, line.percentile), "both"
    if line.convention == "per_sample_max":
        return percentile_of(np.maximum(slots.up, slots.down), count, line.percentile), "both"
    up, down = (percentile_of(octets, count, line.percentile) for octets in (slots.up, slots.down))
    return (up, "up") if up > down else (down, "down")


def percentile_of(values: NDArray[np.int64], count: int, percentile: Fraction) -> int:
    """Of `count` values, of which those not given are 0: drop floor((100 - p)·count/100) of the highest, take the next."""
    drop = (100 - percentile) * count // 100
    if drop >= len(values):
        return 0
    return int(np.partition(values, len(values) - 1 - drop)[len(values) - 1 - drop])


# rows


def _usage_row(stretch: Stretch, line: str, kind: str, row: tuple[date, date, str, Fraction], unit: str, price: str,
               percent_on: PercentOn) -> Charge:
    _, ends = _period_bounds(stretch.period, stretch.subscription.timezone)
    return _row(stretch, line, kind, row, unit, price, ends, percent_on)


def _row(stretch: Stretch, line: str, kind: str, row: tuple[date, date, str, Fraction], unit: str, price: str,
         bookable: int, percent_on: PercentOn) -> Charge:
    start, end, quantity, amount = row
    plan = stretch.plan
    net, gross = money.round_half_up(amount), None
    if plan.inclusive:
        gross = net
        net = net_of_gross(gross, percent_on(plan.tax, end - timedelta(days=1)))
    return Charge(stretch.period, stretch.subscription.service, plan.name, plan.version, start, end, line, kind, None, None,
                  None, quantity, unit, price, net, gross, plan.tax, plan.currency, bookable)


def net_of_gross(gross_minor: int, percent: Fraction) -> int:
    """The net amount of a gross one, rounded half-up once; the tax is what lies between."""
    return money.round_half_up(Fraction(gross_minor * 100) / (100 + percent))


@lru_cache(maxsize=4096)
def _day_start(day: date, timezone: str) -> int:
    return periods.local_day_start(day, timezone)


def _period_bounds(period: str, timezone: str) -> tuple[int, int]:
    return (_day_start(periods.period_first_day(period), timezone), _day_start(periods.period_end_day(period), timezone))
