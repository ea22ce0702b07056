"""The second engine's own calendar: days in lists, months walked one by one, midnights found on the clock on the wall."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)


def month_days(period: str) -> list[date]:
    """The days of '2026-10'."""
    days = [date.fromisoformat(f"{period}-01")]
    while (days[-1] + DAY).month == days[0].month:
        days.append(days[-1] + DAY)
    return days


def days_between(first: date, end: date) -> Iterator[date]:
    """The days of [first, end)."""
    while first < end:
        yield first
        first += DAY


def runs(days: Iterable[date]) -> list[list[date]]:
    """Ascending days, parted where one is missing."""
    found: list[list[date]] = []
    for day in days:
        if found and found[-1][-1] + DAY == day:
            found[-1].append(day)
        else:
            found.append([day])
    return found


def _months_from(first: date) -> Iterator[tuple[int, int]]:
    year, month = first.year, first.month
    while True:
        yield year, month
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)


def _in_month(year: int, month: int, wanted: int) -> date:
    """The day of a month, or the month's last if it has no such day."""
    while True:
        try:
            return date(year, month, wanted)
        except ValueError:
            wanted -= 1


def months_later(start: date, months: int) -> date:
    """So many months after a day, on the same day of the month or the month's last."""
    for number, (year, month) in enumerate(_months_from(start)):
        if number == months:
            return _in_month(year, month, start.day)
    raise AssertionError("months go on without end")


def period_later(period: str, count: int) -> str:
    """The period so many periods later."""
    return months_later(date.fromisoformat(f"{period}-01"), count).isoformat()[:7]


def fee_periods(start: date | None, billing_day: int | str, months: int, first: date, end: date
                ) -> list[tuple[date, date]]:
    """The fee periods of `months` that meet [first, end), counted from the first billing day on or after `start`; the one
    before it is as long."""
    if start is None:  # as since the January before anything that is asked for
        wanted, edges = (1 if billing_day == "anniversary" else int(billing_day)), []
        for number, (year, month) in enumerate(_months_from(date(first.year - 2, 1, 1))):
            if number % months == 0:
                edges.append(_in_month(year, month, wanted))
                if edges[-1] >= end:
                    break
    else:
        wanted = start.day if billing_day == "anniversary" else int(billing_day)
        year, month = start.year, start.month
        if _in_month(year, month, wanted) < start:
            year, month = (year + 1, 1) if month == 12 else (year, month + 1)
        back = year * 12 + month - 1 - months
        edges = []
        for number, (year, month) in enumerate(_months_from(date(back // 12, back % 12 + 1, 1))):
            if number % months == 0:
                edges.append(_in_month(year, month, wanted))
                if edges[-1] >= end:
                    break
    return [(opens, closes) for opens, closes in itertools.pairwise(edges) if opens < end and closes > first]


def days_of_30(start: date, end: date) -> int:
    """Days between two days where every month has 30 and a 31st counts as the 30th."""
    def number(day: date) -> int:
        return 360 * day.year + 30 * day.month + (30 if day.day == 31 else day.day)

    return number(end) - number(start)


@lru_cache(maxsize=4096)
def midnight(day: date, zone: str) -> int:
    """The first instant, in ms, whose local date is not before `day`, by bisection over the clock on the wall."""
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
