"""Tariff calendars: which zone of the day (peak, night, weekend …) an instant belongs to.

A calendar has versions; the version of a local date is the latest one whose `valid_from` is not after it (before the
first one: the first), and it alone decides for that whole date. Within a version:

* times are local wall times; an instant has the zone of the wall time that it shows, so a day of 23 hours has 23 hours
  of zones and both passes of a doubled hour have that hour's zone;
* a zone whose `start` is after its `end` wraps midnight and belongs to the day on which it starts: Friday 22:00-06:00
  reaches into Saturday, whatever Saturday's own zones are;
* a holiday (a local date) is wholly the zone marked `holiday`: what began the day before ends at its midnight, and what
  would have begun on the holiday does not begin, so it does not reach into the day after either;
* where zones overlap the higher `priority` wins (default 0); where none holds, the `default` zone does.

No I/O. `parse` reads what `plans apply` stored, with the holidays frozen in it; `edges` is what usage is cut by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.periods import DAY_MS, MINUTE_MS, offset_changes

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 1440

_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Zone:
    """Hours of the week under a name. `days` holds numbers, Monday is 0; without any the zone has no hours of its own
    (it is the default or the holiday zone). `start`, `end`: minutes of the local day; end ≤ start wraps midnight."""

    name: str
    days: tuple[int, ...] = ()
    start: int = 0
    end: int = DAY_MINUTES
    default: bool = False
    holiday: bool = False
    priority: int = 0

    @property
    def wraps(self) -> bool:
        return self.end <= self.start


@dataclass(frozen=True, slots=True)
class CalendarVersion:
    """One version of a calendar: its zones in the file's order, its holidays as local dates."""

    name: str
    valid_from: date
    zones: tuple[Zone, ...]
    holidays: frozenset[date]

    @property
    def default(self) -> Zone:
        return next(zone for zone in self.zones if zone.default)

    @property
    def holiday(self) -> Zone | None:
        return next((zone for zone in self.zones if zone.holiday), None)


def parse_minutes(text: str) -> int:
    """'08:05' → 485, '24:00' → 1440. Raises ValueError."""
    hours, colon, minutes = text.partition(":")
    if colon and len(hours) == 2 == len(minutes) and (hours + minutes).isascii() and (hours + minutes).isdigit():
        value = int(hours) * 60 + int(minutes)
        if int(minutes) < 60 and value <= DAY_MINUTES:
            return value
    raise ValueError(f"'{text}' is not a time of day such as 08:00 (24:00 is the end of the day)")


def parse_zone(table: Mapping[str, Any]) -> Zone:
    """A zone as plans.toml writes it. Raises ValueError for a time or day that is none."""
    has_hours = any(key in table for key in ("days", "start", "end"))
    names = table.get("days", DAYS if has_hours else ())
    unknown = [str(name) for name in names if name not in DAYS]
    if unknown:
        raise ValueError(f"'{unknown[0]}' is not a day; the days are {', '.join(DAYS)}")
    return Zone(
        name=table["name"], days=tuple(sorted({DAYS.index(name) for name in names})),
        start=parse_minutes(table.get("start", "00:00")), end=parse_minutes(table.get("end", "24:00")),
        default=table.get("default", False), holiday=table.get("holiday", False), priority=table.get("priority", 0))


def parse(document: Mapping[str, Any]) -> CalendarVersion:
    """The calendar version that `calendar_version.document` holds: {name, from, zones, holiday_dates, …}."""
    return CalendarVersion(
        name=document["name"], valid_from=date.fromisoformat(document["from"]),
        zones=tuple(parse_zone(table) for table in document["zones"]),
        holidays=frozenset(date.fromisoformat(day) for day in document.get("holiday_dates", ())))


def overlap(zones: Sequence[Zone]) -> tuple[Zone, Zone, int, int] | None:
    """Two zones of different names and equal priority that hold at one time, with the weekday and the minute of the
    day at which that is first so; None if the calendar is unambiguous."""
    minutes = [_minutes_of_week(zone) for zone in zones]
    for index, zone in enumerate(zones):
        for other in range(index):
            if zones[other].priority == zone.priority and zones[other].name != zone.name:
                common = minutes[other] & minutes[index]
                if common:
                    day, minute = divmod(min(common), DAY_MINUTES)
                    return zones[other], zone, day, minute
    return None


def _minutes_of_week(zone: Zone) -> frozenset[int]:
    length = zone.end - zone.start + (DAY_MINUTES if zone.wraps else 0)
    return frozenset((day * DAY_MINUTES + zone.start + minute) % (7 * DAY_MINUTES) for day in zone.days
                     for minute in range(length))


def version_on(versions: Sequence[CalendarVersion], day: date) -> CalendarVersion:
    """The version that decides for a local date."""
    assert versions, "a calendar has at least one version"
    ordered = sorted(versions, key=lambda version: version.valid_from)
    return next((version for version in reversed(ordered) if version.valid_from <= day), ordered[0])


def zone_at(versions: Sequence[CalendarVersion], day: date, minute: int) -> str:
    """The zone of a wall time: a local date and a minute of that day."""
    starts, zones = _day_zones(version_on(versions, day), day)
    return next(zone for start, zone in zip(reversed(starts), reversed(zones), strict=True) if start <= minute)


def edges(versions: Sequence[CalendarVersion], timezone: str, start: int, end: int
          ) -> tuple[NDArray[np.int64], NDArray[np.int16], list[str]]:
    """The zones of [start, end) in a time zone: instants at which each begins (the first is `start`; neighbours
    differ), their indexes into the list of names, and that list."""
    assert start < end, (start, end)
    names: list[str] = []
    starts: list[int] = []
    indexes: list[int] = []
    changes, offsets = offset_changes(timezone, start, end)
    for first, last, offset in zip(changes.tolist(), [*changes[1:].tolist(), end], offsets.tolist(), strict=True):
        for instant, zone in _wall_zones(tuple(versions), first, last, offset):
            if zone not in names:
                names.append(zone)
            index = names.index(zone)
            if not indexes or indexes[-1] != index:
                starts.append(instant)
                indexes.append(index)
    return np.array(starts, np.int64), np.array(indexes, np.int16), names


def _wall_zones(versions: tuple[CalendarVersion, ...], first: int, last: int, offset: int) -> list[tuple[int, str]]:
    """(instant, zone) where zones begin in [first, last), in which local time is instant + offset throughout."""
    found: list[tuple[int, str]] = []
    for number in range((first + offset) // DAY_MS, (last - 1 + offset) // DAY_MS + 1):
        midnight = number * DAY_MS - offset
        day = _EPOCH + timedelta(days=number)
        minutes, zones = _day_zones(version_on(versions, day), day)
        for index, zone in enumerate(zones):
            ends = midnight + (minutes[index + 1] if index + 1 < len(minutes) else DAY_MINUTES) * MINUTE_MS
            begins = max(first, midnight + minutes[index] * MINUTE_MS)
            if begins < min(last, ends):
                found.append((begins, zone))
    return found


def _day_zones(version: CalendarVersion, day: date) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The zones of one local date: minutes at which they begin (the first is 0) and names."""
    if day in version.holidays and version.holiday is not None:
        return (0,), (version.holiday.name,)
    return _weekday_zones(version.zones, day.weekday(), day - timedelta(days=1) in version.holidays)


@lru_cache(maxsize=4096)
def _weekday_zones(zones: tuple[Zone, ...], weekday: int, after_holiday: bool) -> tuple[tuple[int, ...], tuple[str, ...]]:
    default = next(zone for zone in zones if zone.default)
    spans: list[tuple[int, int, Zone]] = []
    for zone in zones:
        if weekday in zone.days:
            spans.append((zone.start, DAY_MINUTES if zone.wraps else zone.end, zone))
        if zone.wraps and (weekday - 1) % 7 in zone.days and not after_holiday:
            spans.append((0, zone.end, zone))
    starts: list[int] = []
    names: list[str] = []
    for minute in sorted({0, *(edge for start, end, _ in spans for edge in (start, end) if edge < DAY_MINUTES)}):
        holding = [zone for start, end, zone in spans if start <= minute < end]
        name = max(holding, key=lambda zone: zone.priority, default=default).name
        if not names or names[-1] != name:
            starts.append(minute)
            names.append(name)
    return tuple(starts), tuple(names)
