"""Usage and plans → charges: a pure function, exact to the last octet, rounded once a line.

    charge_fees       each fee of a plan, for the stretches that begin, end or lie in the period
    charge_once       what one event costs: activation, change, end
    charge_traffic    octets of a stretch by zone, class and direction, above what is included, by price or tiers
    charge_percentile the n-th percentile of a stretch's 5-minute slots
    charge_bound      what lacks to a minimum, or exceeds a maximum
    charge_discount   percentages of lines and amounts a month
    charge            all lines of a stretch
    rate              all of it for a period, with what became of the octets (rated, refused, without a plan)

A stretch is a subscription's part of the period; usage reaches the engine summed by subscription, so nothing here looks
at instants except to know how many slots a stretch has. All arithmetic is on whole numbers and fractions. An add-on is a
subscription beside the service's own: it has no usage, but its quotas and discounts may concern the service's plan
(`rating.quotas`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from fractions import Fraction
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core import money, periods
from core.units import OCTET_UNITS
from rating import proration
from rating.plans import MONTHS, Bound, Catalogue, Discount, Fee, Once, Percentile, Plan, Quota, Tier, Traffic
from rating.quotas import Carried, Pool

ENGINE_VERSION = "2"
"""Changes whenever the same inputs could give other charges; stored with every run."""

SLOT_SECONDS = 300
DECIMALS_SHOWN = 6

PercentOn = Callable[[str, date], Fraction]
"""(tax category, local day) → percentage."""


class Pause(NamedTuple):
    """Local days [start, end) on which the service rests: a `suspension` or a `vacation`."""

    start: date
    end: date
    kind: str


class Beside(NamedTuple):
    """Another subscription of the account: local days [start, end) under a plan."""

    plan: str
    start: date | None
    end: date | None


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
    is_first: bool = False  # no row of the service begins earlier
    previous: str | None = None  # plan of the service's row that ends where this one starts
    has_next: bool = False  # a row of the service starts where this one ends
    pauses: tuple[Pause, ...] = ()
    is_addon: bool = False
    quantity: int = 1  # how many of an add-on
    carried: tuple[Carried, ...] = ()  # of quotas, from earlier periods
    beside: tuple[Beside, ...] = ()  # what else the account has


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
    carried: dict[int, list[Carried]] = field(default_factory=dict)  # by subscription, into the next period


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
    for _, subscriptions in groupby(sorted(inputs.subscriptions, key=rank), key=lambda subscription: subscription.service):
        stretches = [stretch for subscription in subscriptions
                     if (stretch := stretch_of(subscription, inputs.catalogue, inputs.period)) is not None]
        result.stretches += len(stretches)
        own = [stretch for stretch in stretches if not stretch.subscription.is_addon]
        addons = [stretch for stretch in stretches if stretch.subscription.is_addon]
        pool = Pool(stretches) if any(stretch.plan.quotas for stretch in stretches) else None
        charges: list[Charge] = []
        for stretch in own:
            subscription = stretch.subscription
            planned.add(subscription.id)
            usage = inputs.usage.get(subscription.id, ())
            charges += charge(stretch, usage, inputs.slots.get(subscription.id, NO_SLOTS), inputs.percent_on, pool)
            refused = sum(row.octets for row in usage if is_refused(stretch.plan, row))
            result.sampled_refused_octets += refused
            result.rated_octets += sum(row.octets for row in usage) - refused
        of_service = list(charges)
        for stretch in addons:
            rows = charge(stretch, (), NO_SLOTS, inputs.percent_on, pool, of_service)
            given = {line.name for line in stretch.plan.discounts if line.of == "service"}
            of_service += [row for row in rows if row.line in given]
            charges += rows
        if pool is not None:
            for stretch in stretches:
                left = pool.left(stretch)
                if left:
                    result.carried[stretch.subscription.id] = left
        result.charges += charges
    result.without_plan_octets = sum(
        row.octets for subscription_id, usage in inputs.usage.items() if subscription_id not in planned for row in usage)
    result.charges.sort(key=lambda charge: charge.key)
    return result


def rank(subscription: Subscription) -> tuple[str, bool, date, str, int]:
    """By service; its own rows by their days, then add-ons by start, plan and row: quotas and discounts follow this order."""
    start = subscription.start or date.min
    return subscription.service, subscription.is_addon, start, subscription.plan or "", subscription.id


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


def charge(stretch: Stretch, usage: Iterable[Usage], slots: Slots, percent_on: PercentOn, pool: Pool | None = None,
           of_service: Sequence[Charge] = ()) -> list[Charge]:
    """One row a line of the plan; lines that come to nothing are rows of 0. `pool` holds the quotas of the service, and
    `of_service` what the service's plan was charged, for the discounts of an add-on."""
    plan = stretch.plan
    usage = list(usage)
    if pool is None and plan.quotas:
        pool = Pool([stretch])
    charged = usage if pool is None else pool.use(stretch, usage)
    found = [row for fee in plan.fees for row in charge_fees(stretch, fee, percent_on)]
    found += [row for line in plan.once for row in charge_once(stretch, line, percent_on)]
    found += [charge_traffic(stretch, line, charged, percent_on) for line in plan.traffic]
    found += [charge_percentile(stretch, line, slots, percent_on) for line in plan.percentiles]
    if pool is not None:
        found += [_quota_row(stretch, quota, pool.used(stretch, quota), percent_on) for quota in plan.quotas]
    for line in plan.minimums:
        found.append(charge_bound(stretch, "minimum", line, found, percent_on))
    for line in plan.maximums:
        found.append(charge_bound(stretch, "maximum", line, found, percent_on))
    discounted = {"own": list(found), "service": list(of_service)}  # with the discounts so far
    for discount in plan.discounts:
        rows = charge_discount(stretch, discount, discounted[discount.of], percent_on)
        discounted[discount.of] += rows
        found += rows
    return found


def amount_of(charge: Charge) -> int:
    """The amount that the price gives, in minor units: gross where prices include the tax."""
    return charge.net_minor if charge.gross_minor is None else charge.gross_minor


def net_and_gross(charges: Iterable[Charge], percent_on: PercentOn) -> tuple[int, int]:
    """What some charges of one subscriber come to, in minor units: the tax once for each percentage, half-up, and prices that
    include it as they are."""
    by_percent: dict[Fraction, int] = {}
    net = gross = 0
    for row in charges:
        net += row.net_minor
        if row.gross_minor is not None:
            gross += row.gross_minor
        else:
            percent = percent_on(row.tax, row.end - timedelta(days=1))
            by_percent[percent] = by_percent.get(percent, 0) + row.net_minor
    return net, gross + sum(part + money.round_half_up(part * percent / 100) for percent, part in by_percent.items())


# fees


def charge_fees(stretch: Stretch, fee: Fee, percent_on: PercentOn) -> list[Charge]:
    """The charges of a fee that belong to the stretch's period: one for each time during which the service is what the fee
    is for; none where a longer fee period begins or ends in another period."""
    subscription = stretch.subscription
    begins, ends = _period_bounds(stretch.period, subscription.timezone)
    bookable = begins if fee.when == "advance" else ends
    count = subscription.quantity
    found = []
    if fee.every == "day":
        for start, end in during(subscription.pauses, fee.during, stretch.start, stretch.end):
            days = (_known(end) - _known(start)).days * count
            minor = _minor(Fraction(fee.amount), stretch.plan.currency)
            due = Fraction(stretch.plan.round(minor)) if fee.proration == "daily" else minor
            row = (_known(start), _known(end), "1" if days == 1 else f"{days}/1", due * days)
            found.append(_row(stretch, fee.name, "fee", row, fee.every, fee.amount, bookable, percent_on, fee.tax))
        return found
    first, last = periods.period_first_day(stretch.period), periods.period_end_day(stretch.period)
    before: date | None = None  # where the time before ended
    for start, end in during(subscription.pauses, fee.during, subscription.start, subscription.end):
        for part in proration.parts(start, end, MONTHS[fee.every], first, last, stretch.plan.billing_day, subscription.start):
            belongs = part.start if fee.when == "advance" else part.last_day
            if fee.proration == "whole_period" and before is not None and before > part.period_start:
                continue  # a time before paid this fee period whole, maybe in an earlier period
            if first <= belongs < last:
                row = (part.start, part.end, times(count, proration.quantity(fee.proration, part)),
                       count * _fee_minor(fee, part, stretch.plan, subscription.timezone))
                found.append(_row(stretch, fee.name, "fee", row, fee.every, fee.amount, bookable, percent_on, fee.tax))
        before = end
    return found


def during(pauses: Sequence[Pause], what: str, start: date | None, end: date | None) -> list[tuple[date | None, date | None]]:
    """The parts of [start, end) in which a service is what a fee is charged for: always, active (no pause), or in pauses of
    one kind. Pauses do not overlap and are in order."""
    if what == "always" or (what == "active" and not pauses):
        return [(start, end)]
    inside = [(max(pause.start, start or pause.start), min(pause.end, end or pause.end), pause.kind) for pause in pauses]
    inside = [pause for pause in inside if pause[0] < pause[1]]
    found: list[tuple[date | None, date | None]] = []
    if what != "active":
        for begins, ends, kind in inside:
            if kind == what and found and found[-1][1] == begins:
                found[-1] = (found[-1][0], ends)  # two that touch are one time
            elif kind == what:
                found.append((begins, ends))
        return found
    since = start
    for begins, ends, _ in inside:
        if since is None or since < begins:
            found.append((since, begins))
        since = ends
    if end is None or since is None or since < end:
        found.append((since, end))
    return found


def _known(day: date | None) -> date:
    assert day is not None, "a stretch, and an early end, have both dates"
    return day


def times(count: int, quantity: str) -> str:
    """'14/28' three times is '42/28'."""
    if count == 1:
        return quantity
    number, slash, of = quantity.partition("/")
    return f"{int(number) * count}{slash}{of}"


def _fee_minor(fee: Fee, part: proration.Part, plan: Plan, timezone: str) -> Fraction:
    return _fee_part(fee, part, plan.currency, plan.rounding, timezone)


@lru_cache(maxsize=65_536)
def _fee_part(fee: Fee, part: proration.Part, currency: str, rounding: str, timezone: str) -> Fraction:
    """What a part of a fee costs, exactly, in minor units."""
    whole = _minor(Fraction(fee.amount), currency)
    if fee.proration == "daily":
        return Fraction(proration.daily_minor(whole, part, money.ROUNDING[rounding]))
    return whole * proration.share(fee.proration, part, timezone)


def _minor(major: Fraction, currency: str) -> Fraction:
    return major * Fraction(10) ** money.minor_digits(currency)


# single events


def charge_once(stretch: Stretch, line: Once, percent_on: PercentOn) -> list[Charge]:
    """The charge of an event, if it falls into the stretch's period."""
    subscription, plan = stretch.subscription, stretch.plan
    day = event_day(subscription, plan, line.on)
    first, last = periods.period_first_day(stretch.period), periods.period_end_day(stretch.period)
    if day is None or not first <= day < last:
        return []
    amount = Fraction(line.amount)
    if line.percent:
        fee = next(fee for fee in plan.fees if fee.name == line.of)
        start, end = _known(subscription.start), _known(subscription.end)
        until = periods.add_months(start, plan.contract_months, start.day)
        amount = Fraction(line.percent) / 100 * Fraction(fee.amount) * remaining_fees(fee, plan, start, end, until)
    bookable = _day_start(day, subscription.timezone)
    row = (day, day + timedelta(days=1), str(subscription.quantity), _minor(amount, plan.currency) * subscription.quantity)
    price = line.amount if not line.percent else f"{line.percent} %"
    return [_row(stretch, line.name, "once", row, line.on, price, bookable, percent_on, line.tax)]


def event_day(subscription: Subscription, plan: Plan, on: str) -> date | None:
    """The local day of an event of a subscription; None if it has none."""
    start, end = subscription.start, subscription.end
    if on == "start" or (on == "activation" and subscription.is_first):
        return start
    if on == "change" and subscription.previous not in (None, plan.name):
        return start
    if on == "end" and end is not None and not subscription.has_next:
        return end - timedelta(days=1)
    if on == "early_end" and start is not None and end is not None and not subscription.has_next \
            and end < periods.add_months(start, plan.contract_months, start.day):
        return end - timedelta(days=1)
    return None


def remaining_fees(fee: Fee, plan: Plan, start: date, end: date, until: date) -> Fraction:
    """How many fees, whole and in parts by days, lie between the end of a subscription and that of its contract."""
    parts = proration.parts(end, until, MONTHS[fee.every], end, until, plan.billing_day, start)
    return sum((Fraction(part.days, part.period_days) for part in parts), Fraction(0))


# traffic


def charge_traffic(stretch: Stretch, line: Traffic, usage: Iterable[Usage], percent_on: PercentOn) -> Charge:
    """The octets of a line, above what is included, by the unit, the started block, or the tiers."""
    octets = sum(row.octets for row in usage if line.matches(row.zone, row.class_, row.direction)
                 and (line.sampled == "allow" or not row.sampled))
    billed = billed_octets(octets, line.included, line.above)
    unit, price, quantity = line.unit, line.price, Fraction(billed, line.unit_octets)
    if line.tiers:
        amount, price = tiered(line, billed), line.model
    elif line.block is not None:
        blocks = -(-billed // line.block)
        amount, unit, quantity = Fraction(line.price) * blocks, line.block_text, Fraction(blocks)
    else:
        amount = Fraction(line.price) * quantity
    row = (stretch.start, stretch.end, decimal_text(quantity), _minor(amount, stretch.plan.currency))
    charged = _usage_row(stretch, line.name, "traffic", row, unit, price, percent_on, line.tax)
    return charged._replace(direction=line.direction, zone=line.zones[0] if len(line.zones) == 1 else None,
                            class_=line.classes[0] if len(line.classes) == 1 else None)


def tiered(line: Traffic, octets: int) -> Fraction:
    """`graduated`: each tier's own part at its price, and the flat amount of every tier that is reached (the first always
    is); `volume`: everything at the price of the tier that the whole falls into. In major units, exactly."""
    total, below = Fraction(0), 0
    for tier in line.tiers:
        if line.model == "volume":
            if tier.to is None or octets <= tier.to:
                return Fraction(tier.flat) + _of_tier(line, tier, octets)
            continue
        if octets > below or below == 0:
            upper = octets if tier.to is None else min(octets, tier.to)
            total += Fraction(tier.flat) + _of_tier(line, tier, upper - below)
        below = tier.to if tier.to is not None else octets
    return total


def _of_tier(line: Traffic, tier: Tier, octets: int) -> Fraction:
    if tier.block is not None:
        return Fraction(tier.price) * -(-octets // tier.block)
    return Fraction(tier.price) * Fraction(octets, line.unit_octets)


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
    charged = _usage_row(stretch, line.name, "percentile", row, line.unit, line.price, percent_on, line.tax)
    return charged._replace(direction=direction)


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


# lines about other lines


def charge_bound(stretch: Stretch, kind: str, line: Bound, charges: Iterable[Charge], percent_on: PercentOn) -> Charge:
    """`minimum`: what the lines lack to the amount; `maximum`: less what they exceed it by. Without `lines` those are all
    before it, so also a minimum or maximum of some of them."""
    total = sum(amount_of(row) for row in charges if not line.lines or row.line in line.lines)
    count = stretch.subscription.quantity
    bound = _minor(Fraction(line.amount), stretch.plan.currency) * share_of(stretch, line.share) * count
    difference = max(Fraction(0), bound - total) if kind == "minimum" else min(Fraction(0), bound - total)
    row = (stretch.start, stretch.end, times(count, share_text(stretch, line.share)), difference)
    return _usage_row(stretch, line.name, kind, row, "month", line.amount, percent_on, line.tax)


def share_of(stretch: Stretch, share: str) -> Fraction:
    """The stretch's part of the period's days, or 1."""
    if share == "whole_period":
        return Fraction(1)
    month = periods.period_end_day(stretch.period) - periods.period_first_day(stretch.period)
    return Fraction((stretch.end - stretch.start).days, month.days)


def share_text(stretch: Stretch, share: str) -> str:
    days = (stretch.end - stretch.start).days
    month = (periods.period_end_day(stretch.period) - periods.period_first_day(stretch.period)).days
    return "1" if share == "whole_period" or days == month else f"{days}/{month}"


def charge_discount(stretch: Stretch, line: Discount, charges: Sequence[Charge], percent_on: PercentOn) -> list[Charge]:
    """A discount for the days of its window: of each charge's own days for a percentage, of the stretch's for an amount a
    month. Never more than its lines come to, nor than all charges with the discounts among them; never less than nothing."""
    window = discount_days(stretch.subscription, line)
    meets = overlap(window, stretch.start, stretch.end)
    listed = [row for row in charges if row.kind != "discount" and (not line.lines or row.line in line.lines)]
    month = (periods.period_end_day(stretch.period) - periods.period_first_day(stretch.period)).days
    if line.percent:
        shares = [(amount_of(row), overlap(window, row.start, row.end), (row.end - row.start).days) for row in listed]
        if not any(days for _, days, _ in shares):
            return []
        amount = sum((Fraction(minor * days, of) for minor, days, of in shares), Fraction(0)) * Fraction(line.percent) / 100
        quantity, price = "1", f"{line.percent} %"
    else:
        if not meets:
            return []
        count = stretch.subscription.quantity
        amount = _minor(Fraction(line.amount), stretch.plan.currency) * Fraction(meets, month) * count
        quantity, price = times(count, "1" if meets == month else f"{meets}/{month}"), line.amount
    most = min(sum(amount_of(row) for row in charges), sum(amount_of(row) for row in listed))
    row = (stretch.start, stretch.end, quantity, -max(Fraction(0), min(amount, Fraction(most))))
    return [_usage_row(stretch, line.name, "discount", row, "month", price, percent_on, line.tax)]


Days = list[tuple[date | None, date | None]]


def discount_days(subscription: Subscription, line: Discount) -> Days:
    """The local days on which a discount holds, as intervals without overlap."""
    start = subscription.start
    if (line.starts_from is not None and (start is None or start < line.starts_from)) \
            or (line.starts_until is not None and (start is None or start >= line.starts_until)):
        return []
    begins, ends = start, subscription.end
    if line.after_months or line.months is not None:
        if start is None:  # since ever: the first months are over, and all later ones have begun
            return [] if line.months is not None else _beside_days(subscription, line, None, ends)
        begins = periods.add_months(start, line.after_months, start.day)
        if line.months is not None:
            over = periods.add_months(start, line.after_months + line.months, start.day)
            ends = over if ends is None else min(over, ends)
    return _beside_days(subscription, line, begins, ends)


def _beside_days(subscription: Subscription, line: Discount, begins: date | None, ends: date | None) -> Days:
    if not line.beside:
        return [(begins, ends)]
    found: Days = []
    for other in sorted((row for row in subscription.beside if row.plan in line.beside), key=lambda row: row.start or date.min):
        since = max(filter(None, (begins, other.start, found[-1][1] if found else None)), default=None)
        until = min(filter(None, (ends, other.end)), default=None)
        if found and found[-1][1] is None:
            break
        if since is None or until is None or since < until:
            found.append((since, until))
    return found


def overlap(days: Days, start: date, end: date) -> int:
    """How many days of [start, end) lie in one of the intervals."""
    return sum(max(0, (min(until or end, end) - max(since or start, start)).days) for since, until in days)


# rows


def _quota_row(stretch: Stretch, quota: Quota, used: int, percent_on: PercentOn) -> Charge:
    row = (stretch.start, stretch.end, decimal_text(Fraction(used, OCTET_UNITS[quota.unit])), Fraction(0))
    charged = _usage_row(stretch, quota.name, "quota", row, quota.unit, "0", percent_on, "")
    return charged._replace(direction=quota.direction)


def _usage_row(stretch: Stretch, line: str, kind: str, row: tuple[date, date, str, Fraction], unit: str, price: str,
               percent_on: PercentOn, tax: str) -> Charge:
    _, ends = _period_bounds(stretch.period, stretch.subscription.timezone)
    return _row(stretch, line, kind, row, unit, price, ends, percent_on, tax)


def _row(stretch: Stretch, line: str, kind: str, row: tuple[date, date, str, Fraction], unit: str, price: str,
         bookable: int, percent_on: PercentOn, tax: str) -> Charge:
    start, end, quantity, amount = row
    plan = stretch.plan
    tax = tax or plan.tax
    net, gross = plan.round(amount), None
    if plan.inclusive:
        gross = net
        net = net_of_gross(gross, percent_on(tax, end - timedelta(days=1)))
    return Charge(stretch.period, stretch.subscription.service, plan.name, plan.version, start, end, line, kind, None, None,
                  None, quantity, unit, price, net, gross, tax, plan.currency, bookable)


def net_of_gross(gross_minor: int, percent: Fraction) -> int:
    """The net amount of a gross one, rounded half-up once; the tax is what lies between."""
    return money.round_half_up(Fraction(gross_minor * 100) / (100 + percent))


@lru_cache(maxsize=4096)
def _day_start(day: date, timezone: str) -> int:
    return periods.local_day_start(day, timezone)


def _period_bounds(period: str, timezone: str) -> tuple[int, int]:
    return (_day_start(periods.period_first_day(period), timezone), _day_start(periods.period_end_day(period), timezone))
