"""Fees over time: which stretches a fee is charged for, and which part of the fee a stretch costs.

A fee for a month, quarter or year runs from billing day to billing day, beginning with the first billing day on or
after the subscription's start; what lies before it is the last part of the fee period that ends there. Billing periods
are local calendar months, so the billing day is the 1st; a subscription without a start has calendar quarters and years.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction

from core.money import round_half_up
from core.periods import add_months, local_day_start

BILLING_DAY = 1
_EVER = date(1970, 1, 1)
_SAME = date.min


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch [start, end) of local days within the fee period [period_start, period_end) that holds it."""

    start: date
    end: date
    period_start: date
    period_end: date
    months: int  # length of the fee period

    @property
    def days(self) -> int:
        return (self.end - self.start).days

    @property
    def period_days(self) -> int:
        return (self.period_end - self.period_start).days

    @property
    def is_whole(self) -> bool:
        return self.start == self.period_start and self.end == self.period_end

    @property
    def last_day(self) -> date:
        return self.end - timedelta(days=1)


def first_billing_day(start: date | None, months: int, billing_day: int = BILLING_DAY) -> date:
    """The billing day from which fee periods of a subscription are counted; day 29-31 is clamped to short months."""
    if start is None:
        return _EVER
    this_month = add_months(start.replace(day=1), 0, billing_day)
    return this_month if this_month >= start else add_months(this_month, 1, billing_day)


def parts(start: date | None, end: date | None, months: int, first: date, last: date,
          billing_day: int | None = BILLING_DAY, anchored: date | None = _SAME) -> Iterator[Part]:
    """The parts of fee periods of `months` that [start, end) pays for and that meet [first, last). Without a billing day it
    is the day of `anchored`, from which fee periods are counted (None: as since ever; by default `start`)."""
    origin = start if anchored is _SAME else anchored
    day = billing_day if billing_day is not None else (BILLING_DAY if origin is None else origin.day)
    anchor = first_billing_day(origin, months, day)
    distance = (first.year - anchor.year) * 12 + first.month - anchor.month
    number = distance // months - 1
    while True:
        period_start = add_months(anchor, number * months, day)
        if period_start >= last:
            return
        period_end = add_months(anchor, (number + 1) * months, day)
        begins = period_start if start is None else max(start, period_start)
        ends = period_end if end is None else min(end, period_end)
        if begins < ends and begins < last and ends > first:
            yield Part(begins, ends, period_start, period_end, months)
        number += 1


def anniversaries(start: date, months: int, count: int) -> list[date]:
    """The first `count` dates that lie k · `months` after `start`, on its day of the month or the month's last."""
    return [add_months(start, months * number, start.day) for number in range(1, count + 1)]


def days_30e360(start: date, end: date) -> int:
    """Days between two dates by 30E/360: every month has 30 days, day 31 counts as 30."""
    return (360 * (end.year - start.year) + 30 * (end.month - start.month) + min(end.day, 30) - min(start.day, 30))


def thirtieths(part: Part) -> tuple[int, int]:
    """Days of a part and of its fee period by 30E/360; never more than the 30 a month, which a fee period from a February
    28th to a March 31st would be."""
    of = 30 * part.months
    return min(of, days_30e360(part.start, part.end)), of


def share(policy: str, part: Part, timezone: str = "UTC") -> Fraction:
    """Which part of the fee a stretch costs, by the named policy (all but `daily`, which rounds each day)."""
    if part.is_whole or policy == "whole_period":
        return Fraction(1)
    if policy == "actual_days":
        return Fraction(part.days, part.period_days)
    if policy == "thirty_day_month":
        return Fraction(*thirtieths(part))
    if policy == "to_the_second":
        begins, ends, period_begins, period_ends = (
            local_day_start(day, timezone) for day in (part.start, part.end, part.period_start, part.period_end))
        return Fraction(ends - begins, period_ends - period_begins)
    assert policy == "none", policy
    return Fraction(0)


def daily_minor(amount_minor: Fraction, part: Part, rounded: Callable[[Fraction], int] = round_half_up) -> int:
    """Policy `daily`, in minor units: the amount divided by the fee period's days and rounded is debited each day; the
    fee period's last day takes what then remains of the rounded amount."""
    a_day = rounded(amount_minor / part.period_days)
    if part.end < part.period_end:
        return a_day * part.days
    return a_day * (part.days - 1) + rounded(amount_minor) - a_day * (part.period_days - 1)


def quantity(policy: str, part: Part) -> str:
    """The quantity of a fee as text: `1`, or days/days as they were counted, not reduced."""
    if part.is_whole or policy == "whole_period":
        return "1"
    if policy == "thirty_day_month":
        return "{}/{}".format(*thirtieths(part))
    return f"{0 if policy == 'none' else part.days}/{part.period_days}"
