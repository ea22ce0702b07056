"""How a charge came to its amount, in words and numbers: for `rate explain`.

`Bill` is what a service was charged in a period; `rows` gives, for each charge, (what, value, unit, detail). The row
`arithmetic` can be worked out by hand: its value in major units, by × ÷ + − and parentheses, rounded once as the row
`amount` says, is the charge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction

from core import money, periods
from rating import engine, proration, quotas
from rating.engine import Charge, Stretch, Usage
from rating.plans import LINE_KINDS, MONTHS, Bound, Discount, Fee, Once, Percentile, Plan, Quota, Tier, Traffic

Said = tuple[str, object, str, str]
"""What, value, unit, detail."""
Line = Fee | Once | Traffic | Percentile | Quota | Bound | Discount


@dataclass
class Bill:
    """A service's stretches in a period, in the order of engine.rank, what they were charged and what they used."""

    stretches: Sequence[Stretch]
    charges: Sequence[Charge]
    usage: Mapping[int, Sequence[Usage]]  # by subscription
    slots: Mapping[int, engine.Slots]
    pool: quotas.Pool = field(init=False)
    uncovered: dict[int, list[Usage]] = field(init=False)

    def __post_init__(self) -> None:
        self.pool = quotas.Pool(self.stretches)
        self.uncovered = {row.id: self.pool.use(stretch, list(self.usage.get(row.id, ())))
                          for stretch in self.stretches for row in [stretch.subscription]}

    def stretch_of(self, charge: Charge) -> Stretch:
        """The stretch that a charge is of: the plan version's, whose subscription holds the charge's days."""
        return next(stretch for stretch in self.stretches
                    if (stretch.plan.name, stretch.plan.version) == (charge.plan, charge.plan_version)
                    and (stretch.subscription.start or date.min) <= charge.start
                    and charge.end <= (stretch.subscription.end or date.max))

    def before(self, charge: Charge) -> list[Charge]:
        """The charges of the same stretch whose lines come before a charge's."""
        stretch = self.stretch_of(charge)
        place = _place(stretch.plan, charge)
        return sorted((one for one in self.charges if _place(stretch.plan, one) < place and self.stretch_of(one) is stretch),
                      key=lambda one: _place(stretch.plan, one))

    def of_service(self, charge: Charge) -> list[Charge]:
        """The charges of the service's plan, and the discounts of add-ons on them that come before a discount."""
        stretch = self.stretch_of(charge)
        found = []
        for one in self.charges:
            other = self.stretch_of(one)
            earlier = self.stretches.index(other) < self.stretches.index(stretch) or (
                other is stretch and _place(stretch.plan, one) < _place(stretch.plan, charge))
            if not other.subscription.is_addon or (earlier and _is_on_service(other.plan, one)):
                found.append(one)
        return found


def _place(plan: Plan, charge: Charge) -> tuple[int, int]:
    """Where a charge's line stands among those of a plan."""
    names = [line.name for line in _lines(plan, charge.kind)]
    return LINE_KINDS.index(charge.kind), names.index(charge.line) if charge.line in names else len(names)


def _lines(plan: Plan, kind: str) -> Sequence[Line]:
    found: dict[str, Sequence[Line]] = {
        "fee": plan.fees, "once": plan.once, "traffic": plan.traffic, "percentile": plan.percentiles, "quota": plan.quotas,
        "minimum": plan.minimums, "maximum": plan.maximums, "discount": plan.discounts}
    return found[kind]


def _is_on_service(plan: Plan, charge: Charge) -> bool:
    return any(line.name == charge.line and line.of == "service" for line in plan.discounts)


def rows(bill: Bill, charge: Charge) -> Iterator[Said]:
    """All that leads to the charge's amount, and the amount."""
    stretch = bill.stretch_of(charge)
    line = next(line for line in _lines(stretch.plan, charge.kind) if line.name == charge.line)
    if stretch.subscription.quantity != 1:
        yield "held", stretch.subscription.quantity, "times", "an add-on counts so often, before it is rounded"
    match line:
        case Fee():
            yield from _fee(stretch, charge, line)
        case Once():
            yield from _once(stretch, line)
        case Traffic():
            yield from _traffic(bill, stretch, line)
        case Percentile():
            yield from _percentile(bill, stretch, line)
        case Quota():
            yield from _quota(bill, stretch, line)
        case Bound():
            yield from _bound(bill, stretch, charge, line)
        case Discount():
            yield from _discount(bill, stretch, charge, line)
    tax = "with tax" if stretch.plan.inclusive else "without tax"
    yield "amount", engine.amount_of(charge), f"{charge.currency} minor units", f"{tax}, rounded once: {stretch.plan.rounding}"


def _times(text: str, stretch: Stretch) -> str:
    count = stretch.subscription.quantity
    return text if count == 1 else f"{text} × {count}"


def _fraction(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"


def _minor(amount: str, plan: Plan) -> Fraction:
    return Fraction(amount) * Fraction(10) ** money.minor_digits(plan.currency)


def _major(minor: int, charge_or_plan: Charge | Plan) -> str:
    return money.format_minor(minor, charge_or_plan.currency)


def _signed(minor: int, charge: Charge) -> str:
    """An amount within a sum: in parentheses below 0."""
    return _major(minor, charge) if minor >= 0 else f"(0 − {_major(-minor, charge)})"


# fees and events


def _fee(stretch: Stretch, charge: Charge, fee: Fee) -> Iterator[Said]:
    plan, subscription = stretch.plan, stretch.subscription
    yield "proration", fee.proration, "", f"{fee.amount} for each {fee.every}, booked in {fee.when}"
    if fee.during != "always":
        rests = "; ".join(f"{pause.kind} {pause.start} to {pause.end}" for pause in subscription.pauses)
        yield "charged while", fee.during, "", rests or "the service never rested"
    minor = _minor(fee.amount, plan)
    if fee.every == "day":
        days = (charge.end - charge.start).days
        a_day = _major(plan.round(minor), plan) if fee.proration == "daily" else fee.amount
        yield "arithmetic", _times(f"{a_day} × {days}", stretch), charge.currency, \
            f"{days} days, each rounded" if fee.proration == "daily" else f"{days} days"
        return
    found = next(proration.parts(subscription.start, subscription.end, MONTHS[fee.every], charge.start, charge.end,
                                 plan.billing_day, subscription.start))
    part = proration.Part(charge.start, charge.end, found.period_start, found.period_end, found.months)
    of = f"{part.days} of {part.period_days} days of {part.period_start} to {part.period_end}"
    if fee.proration == "daily":
        a_day = _major(plan.round(minor / part.period_days), plan)
        text = f"{a_day} × {part.days}"
        if part.end == part.period_end:
            last = plan.round(minor) - plan.round(minor / part.period_days) * (part.period_days - 1)
            text = f"({a_day} × {part.days - 1} + {_signed(last, charge)})"
        yield "arithmetic", _times(text, stretch), charge.currency, \
            f"{fee.amount} ÷ {part.period_days}, rounded, a day; {of}; the last day takes the remainder"
    else:
        share = proration.share(fee.proration, part, subscription.timezone)
        yield "arithmetic", _times(f"{fee.amount} × {share.numerator}/{share.denominator}", stretch), charge.currency, of


EVENTS = {"activation": "the first day of the service's first row", "start": "the first day of the row",
          "change": "the first day of a row under another plan", "end": "the last day, and no row follows",
          "early_end": "the last day, before the end of the contract"}


def _once(stretch: Stretch, line: Once) -> Iterator[Said]:
    plan, subscription = stretch.plan, stretch.subscription
    yield "event", line.on, "", EVENTS[line.on] + (f", after {subscription.previous}" if line.on == "change" else "")
    if not line.percent:
        yield "arithmetic", _times(line.amount, stretch), plan.currency, ""
        return
    fee = next(fee for fee in plan.fees if fee.name == line.of)
    start, end = subscription.start, subscription.end
    assert start is not None and end is not None, "an early end has both dates"  # noqa: PT018
    until = periods.add_months(start, plan.contract_months, start.day)
    parts = list(proration.parts(end, until, MONTHS[fee.every], end, until, plan.billing_day, start))
    left = " + ".join(_fraction(Fraction(part.days, part.period_days)) for part in parts)
    yield "fees that remain", left, f"fees '{fee.name}'", f"from {end} to the contract's end on {until}"
    yield "arithmetic", _times(f"{line.percent} ÷ 100 × {fee.amount} × ({left})", stretch), plan.currency, ""


# usage


def _traffic(bill: Bill, stretch: Stretch, line: Traffic) -> Iterator[Said]:
    number, currency = stretch.subscription.id, stretch.plan.currency
    matching = [row for row in bill.usage.get(number, ()) if line.matches(row.zone, row.class_, row.direction)]
    octets = _octets(line, bill.usage.get(number, ()))
    yield "octets of the line", octets, "octets", \
        f"direction {line.direction}, classes {', '.join(line.classes) or 'all'}, zones {', '.join(line.zones) or 'all'}"
    refused = sum(row.octets for row in matching) - octets
    if refused:
        yield "sampled and refused", refused, "octets", "volume of a sampled exporter is not priced by this line"
    left = _octets(line, bill.uncovered.get(number, ()))
    if left != octets:
        yield "covered by quotas", octets - left, "octets", "used up before the line charges"
    billed = engine.billed_octets(left, line.included, line.above)
    yield "included", line.included, "octets", f"above: {line.above}"
    if line.tiers:
        yield from _tiers(line, billed, currency)
    elif line.block is not None:
        blocks = -(-billed // line.block)
        yield "started blocks", blocks, line.block_text, f"{billed} octets by {line.block}"
        yield "arithmetic", f"{blocks} × {line.price}", currency, ""
    else:
        yield "arithmetic", f"{billed} ÷ {line.unit_octets} × {line.price}", currency, ""


def _octets(line: Traffic, usage: Sequence[Usage]) -> int:
    return sum(row.octets for row in usage if line.matches(row.zone, row.class_, row.direction)
               and (line.sampled == "allow" or not row.sampled))


def _tiers(line: Traffic, billed: int, currency: str) -> Iterator[Said]:
    yield "billed", billed, "octets", f"tiers are {line.model}: " + (
        "each part at its own price" if line.model == "graduated" else "everything at the price of one tier")
    below, sums = 0, []
    for number, tier in enumerate(line.tiers, 1):
        holds = tier.to is None or billed <= tier.to
        reached = billed > below or number == 1
        octets = billed if line.model == "volume" else min(billed, billed if tier.to is None else tier.to) - below
        if (holds if line.model == "volume" else reached):
            text, detail = _of_tier(line, tier, octets)
            sums.append(text)
            yield f"tier {number}", text, currency, f"above {below} octets: {detail}"
        if holds:
            break
        below = tier.to or 0
    yield "arithmetic", " + ".join(sums), currency, ""


def _of_tier(line: Traffic, tier: Tier, octets: int) -> tuple[str, str]:
    if tier.block is not None:
        blocks = -(-octets // tier.block)
        text, detail = f"{blocks} × {tier.price}", f"{octets} octets are {blocks} started blocks of {tier.block}"
    else:
        text, detail = f"{octets} ÷ {line.unit_octets} × {tier.price}", f"{octets} octets by the {line.unit}"
    flat = Fraction(tier.flat)
    return (f"{text} + {tier.flat}", f"{detail}, and {tier.flat} as soon as the tier is reached") if flat else (text, detail)


def dropped(line: Percentile, count: int) -> int:
    """How many of the highest slots are not billed."""
    return (100 - line.percentile) * count // 100


def _percentile(bill: Bill, stretch: Stretch, line: Percentile) -> Iterator[Said]:
    slots = bill.slots.get(stretch.subscription.id, engine.NO_SLOTS)
    active = int(((slots.up > 0) | (slots.down > 0)).sum())
    every = engine.slots_of(stretch)
    count = every if line.missing == "zero" else active
    octets, direction = engine.measure(line, slots, every)
    yield "slots", count, "5-minute slots", f"{active} with traffic, missing ones: {line.missing}"
    highest_percent = engine.decimal_text(100 - line.percentile)
    yield "dropped", dropped(line, count), "5-minute slots", f"the highest {highest_percent} % by {line.convention}"
    yield "octets of the slot", octets, "octets", f"the highest one that is left, {direction}"
    yield "committed", engine.decimal_text(line.committed), "bit/s", "the least that is billed"
    speed = f"{octets} × 8 ÷ {engine.SLOT_SECONDS}"
    if line.committed > Fraction(octets * 8, engine.SLOT_SECONDS):
        speed = engine.decimal_text(line.committed)
    yield "arithmetic", f"{speed} ÷ {line.unit_bits} × {line.price}", stretch.plan.currency, \
        "exact; the quantity is shown to 6 decimals"


def _quota(bill: Bill, stretch: Stretch, line: Quota) -> Iterator[Said]:
    carried = [row for row in stretch.subscription.carried if row.quota == line.name and row.expires >= stretch.period]
    share = {"whole_period": "", "actual_days": ", by the days of the stretch"}[line.share]
    for row in carried:
        yield "carried in", row.octets, "octets", f"may be used up to and with {row.expires}"
    given = quotas.given(stretch, line)
    yield "given", given, "octets", f"{line.given}{share}, priority {line.priority}"
    used = bill.pool.used(stretch, line)
    yield "used", used, "octets", \
        f"direction {line.direction}, classes {', '.join(line.classes) or 'all'}, zones {', '.join(line.zones) or 'all'}"
    left = given + sum(row.octets for row in carried) - used
    out = [row for row in bill.pool.left(stretch) if row.quota == line.name]
    for row in out:
        yield "carried out", row.octets, "octets", f"may be used up to and with {row.expires}"
    lost = left - sum(row.octets for row in out)
    yield "lost", lost, "octets", f"at most {line.rollover_cap * stretch.subscription.quantity} octets are carried on"
    yield "arithmetic", "0", stretch.plan.currency, "a quota costs nothing by itself"


# lines about other lines


def _listed(line: Bound | Discount, charges: Sequence[Charge]) -> list[Charge]:
    return [one for one in charges if not line.lines or one.line in line.lines]


def _sum_text(charges: Sequence[Charge]) -> str:
    return " + ".join(f"{one.line} {_major(engine.amount_of(one), one)}" for one in charges) or "no rows"


def _bound(bill: Bill, stretch: Stretch, charge: Charge, line: Bound) -> Iterator[Said]:
    listed = _listed(line, bill.before(charge))
    total = sum(engine.amount_of(one) for one in listed)
    share = engine.share_of(stretch, line.share)
    bound = _times(line.amount if share == 1 else f"{line.amount} × {_fraction(share)}", stretch)
    yield "sum of the lines", total, f"{charge.currency} minor units", _sum_text(listed)
    yield charge.kind, bound, charge.currency, f"share: {line.share}"
    exact = _minor(line.amount, stretch.plan) * share * stretch.subscription.quantity
    if (exact > total) if charge.kind == "minimum" else (exact < total):
        yield "arithmetic", f"{bound} − {_signed(total, charge)}", charge.currency, \
            "what lacks" if charge.kind == "minimum" else "less what exceeds it"
    else:
        yield "arithmetic", "0", charge.currency, "nothing lacks" if charge.kind == "minimum" else "nothing exceeds it"


def _discount(bill: Bill, stretch: Stretch, charge: Charge, line: Discount) -> Iterator[Said]:
    if line.of == "service":
        every = bill.of_service(charge)
    else:
        every = [one for one in bill.before(charge) if not _is_on_service(stretch.plan, one)]
    listed = [one for one in _listed(line, every) if one.kind != "discount"]
    window = engine.discount_days(stretch.subscription, line)
    yield "holds", ", ".join(f"{since or 'ever'} to {until or 'open'}" for since, until in window), "local days", \
        f"on the lines of the {'plan' if line.of == 'own' else 'service'}"
    if line.percent:
        sums = []
        for one in listed:
            days, of = engine.overlap(window, one.start, one.end), (one.end - one.start).days
            if days and engine.amount_of(one):
                sums.append(_signed(engine.amount_of(one), one) + ("" if days == of else f" × {days}/{of}"))
                yield f"of {one.line}", sums[-1], charge.currency, f"{days} of {of} days of {one.start} to {one.end}"
        text = f"({' + '.join(sums) or '0'}) × {line.percent} ÷ 100"
    else:
        days = engine.overlap(window, stretch.start, stretch.end)
        month = (periods.period_end_day(stretch.period) - periods.period_first_day(stretch.period)).days
        text = _times(f"{line.amount} × {_fraction(Fraction(days, month))}", stretch)
    most = min(sum(engine.amount_of(one) for one in listed), sum(engine.amount_of(one) for one in every))
    yield "at most", max(0, most), f"{charge.currency} minor units", \
        "what its lines come to, and all rows with the discounts before it"
    exact = _exact_discount(line, listed, window, stretch)
    if exact < 0 or most <= 0:
        yield "arithmetic", "0", charge.currency, f"{text}, but there is nothing to take it from"
    elif exact > most:
        yield "arithmetic", f"0 − {_major(most, charge)}", charge.currency, f"{text} would be more than there is"
    else:
        yield "arithmetic", f"0 − {text}", charge.currency, ""


def _exact_discount(line: Discount, listed: Sequence[Charge], window: engine.Days, stretch: Stretch) -> Fraction:
    """Minor units, before what there is limits them."""
    if line.percent:
        parts = [Fraction(engine.amount_of(one) * engine.overlap(window, one.start, one.end), (one.end - one.start).days)
                 for one in listed]
        return sum(parts, Fraction(0)) * Fraction(line.percent) / 100
    month = (periods.period_end_day(stretch.period) - periods.period_first_day(stretch.period)).days
    share = Fraction(engine.overlap(window, stretch.start, stretch.end), month)
    return _minor(line.amount, stretch.plan) * share * stretch.subscription.quantity
