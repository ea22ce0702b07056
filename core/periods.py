"""Instants, local time and billing periods: the only module that knows the local calendar.

An instant is whole UTC milliseconds; an interval is half-open. A period is a local calendar month 'YYYY-MM': in
Europe/Berlin 2026-10 is [2026-10-01T00:00+02:00, 2026-11-01T00:00+01:00). Local days begin at the first instant that
carries their date, so a day whose midnight does not exist begins at 01:00, and a 23-hour day has 23 hours.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np
from numpy.typing import NDArray

SECOND_MS = 1_000
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
SLOT_MS = 900_000
FIVE_MINUTES_MS = 300_000

OPEN_END = 2**62
"""The end of an interval that has none."""
OPEN_START = -(2**62)
"""The start of an interval that has none."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PERIOD = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")


@cache
def time_zone(name: str) -> ZoneInfo:
    """The IANA zone of this name. Raises ValueError with what is near."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        import difflib

        near = difflib.get_close_matches(name, available_timezones(), 1)
        raise ValueError(
            f"'{name}' is not an IANA time zone" + (f", did you mean {near[0]}?" if near else "")
        ) from None


def to_ms(moment: datetime) -> int:
    """An aware datetime → instant, floored to milliseconds."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def from_ms(instant: int, zone: str = "UTC") -> datetime:
    """Instant → aware datetime in a zone."""
    return (_EPOCH + timedelta(milliseconds=instant)).astimezone(time_zone(zone))


def parse_instant(text: str) -> int:
    """ISO 8601 with an offset or Z → instant. Raises ValueError: a time without an offset could mean anything."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"'{text}' is not an instant such as 2026-10-01T00:00:00Z (ISO 8601)") from None
    if moment.tzinfo is None:
        raise ValueError(f"'{text}' has no offset from UTC: write {text}Z or {text}+02:00")
    return to_ms(moment)


def format_instant(instant: int) -> str:
    """Instant → '2026-10-01T00:00:00.000Z'."""
    moment = from_ms(instant)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{instant % 1000:03d}Z"


def local_day_start(day: date, zone: str) -> int:
    """The first instant whose local date is `day` (or a later one, where a zone skipped the whole day)."""
    tz = time_zone(zone)
    naive = datetime(day.year, day.month, day.day)
    earliest = to_ms(naive.replace(tzinfo=tz, fold=0))
    # In a gap over midnight fold=0 names an instant after the transition: the day begins at the transition itself.
    for start in offset_changes(zone, earliest - DAY_MS, earliest + DAY_MS)[0].tolist():
        if abs(earliest - start) < 2 * HOUR_MS and local_date(start, zone) == day and local_date(start - 1, zone) < day:
            return int(start)
    return earliest


def local_date(instant: int, zone: str) -> date:
    """The local date of an instant."""
    return from_ms(instant, zone).date()


def _offset_ms(instant: int, zone: str) -> int:
    offset = from_ms(instant, zone).utcoffset()
    assert offset is not None, "an aware datetime has an offset"
    return offset // timedelta(milliseconds=1)


@lru_cache(maxsize=4096)
def _offset_changes(zone: str, start: int, end: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    starts, offsets = [start], [_offset_ms(start, zone)]
    at = start
    while at < end:
        step = min(at + 7 * DAY_MS, end)  # no zone ever changed its offset twice and back within a week unseen by hours
        if any(_offset_ms(min(at + h * 6 * HOUR_MS, step), zone) != offsets[-1] for h in range(1, 29)):
            low, high = at, step
            while _offset_ms(low, zone) == offsets[-1]:  # the first quarter day with another offset
                nxt = min(low + 6 * HOUR_MS, step)
                if _offset_ms(nxt, zone) != offsets[-1]:
                    high = nxt
                    break
                low = nxt
            while high - low > 1:
                middle = (low + high) // 2
                if _offset_ms(middle, zone) == offsets[-1]:
                    low = middle
                else:
                    high = middle
            if high >= end:
                break
            starts.append(high)
            offsets.append(_offset_ms(high, zone))
            at = high
        else:
            at = step
    return tuple(starts), tuple(offsets)


def offset_changes(zone: str, start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The offsets from UTC in force in [start, end): instants at which each begins (the first is `start`), and the
    offsets in ms. Local time = instant + offset."""
    starts, offsets = _offset_changes(zone, start, end)
    return np.array(starts, np.int64), np.array(offsets, np.int64)


def parse_period(text: str) -> str:
    """'2026-10', checked. Raises ValueError."""
    if _PERIOD.fullmatch(text) is None:
        raise ValueError(f"'{text}' is not a period such as 2026-10 (year and month)")
    return text


def period_first_day(period: str) -> date:
    return date(int(period[:4]), int(period[5:7]), 1)


def next_period(period: str) -> str:
    year, month = int(period[:4]), int(period[5:7])
    return f"{year + month // 12:04d}-{month % 12 + 1:02d}"


def previous_period(period: str) -> str:
    year, month = int(period[:4]), int(period[5:7])
    return f"{year - (month == 1):04d}-{(month - 2) % 12 + 1:02d}"


def period_end_day(period: str) -> date:
    """The first day after the period."""
    return period_first_day(next_period(period))


def period_bounds(period: str, zone: str) -> tuple[int, int]:
    """The period's [start, end) in a zone, as instants."""
    return local_day_start(period_first_day(period), zone), local_day_start(period_end_day(period), zone)


def period_of(instant: int, zone: str) -> str:
    """The period in which an instant lies."""
    day = local_date(instant, zone)
    return f"{day.year:04d}-{day.month:02d}"


def period_extent(period: str) -> tuple[int, int]:
    """The widest [start, end) that the period has in any zone of the world (UTC+14 to UTC-12)."""
    first = to_ms(datetime.combine(period_first_day(period), datetime.min.time(), UTC))
    last = to_ms(datetime.combine(period_end_day(period), datetime.min.time(), UTC))
    return first - 15 * HOUR_MS, last + 13 * HOUR_MS


def add_months(day: date, months: int, anchor: int | None = None) -> date:
    """`months` later, on day `anchor` (default: the same day) clamped to the month's end."""
    index = day.year * 12 + day.month - 1 + months
    year, month = divmod(index, 12)
    wanted = anchor if anchor is not None else day.day
    return date(year, month + 1, min(wanted, days_in_month(year, month + 1)))


def days_in_month(year: int, month: int) -> int:
    following = date(year + month // 12, month % 12 + 1, 1)
    return (following - date(year, month, 1)).days
