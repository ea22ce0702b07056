"""`core.calendars.edges` holds against the wall clock, minute by minute, in zones that change their offset."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import calendars

MINUTE = 60_000
# place, first day of a week in which something odd happens there
PLACES = [
    ("Europe/Berlin", "2026-10-22"), ("Europe/Berlin", "2026-03-26"), ("America/New_York", "2026-03-05"),
    ("Asia/Kolkata", "2026-10-01"), ("Asia/Kathmandu", "2026-01-30"), ("Australia/Lord_Howe", "2026-04-02"),
    ("Africa/Cairo", "2026-04-22"), ("America/Santiago", "2026-09-03"), ("Pacific/Apia", "2011-12-28"),
    ("Asia/Tehran", "2022-03-19"), ("UTC", "2026-02-26"), ("Africa/Casablanca", "2026-02-13"),
]


@st.composite
def versions(draw: st.DrawFn, around: date) -> list[calendars.CalendarVersion]:
    found = []
    for number in range(draw(st.integers(1, 3))):
        zones = [calendars.Zone("rest", default=True, holiday=draw(st.booleans()))]
        for index in range(draw(st.integers(0, 4))):
            start, end = draw(st.lists(st.integers(0, 1439), min_size=2, max_size=2, unique=True))
            days = tuple(sorted(draw(st.sets(st.integers(0, 6), min_size=1))))
            end = draw(st.sampled_from([end, 1440])) if end > start else end
            zones.append(calendars.Zone(f"z{draw(st.integers(0, 5))}", days, start, end, priority=index + 1))
        if not zones[0].holiday and draw(st.booleans()):
            zones.append(calendars.Zone("feast", holiday=True))
        holidays = draw(st.sets(st.integers(-1, 9).map(lambda n: around + timedelta(days=n)), max_size=4))
        valid_from = around + timedelta(days=draw(st.integers(-3, 9)))
        if any(version.valid_from == valid_from for version in found):
            continue
        found.append(calendars.CalendarVersion(f"v{number}", valid_from, tuple(zones), frozenset(holidays)))
    return found


def brute_zone(all_versions: list[calendars.CalendarVersion], wall: datetime) -> str:
    """The rules, sentence by sentence, for one wall time."""
    day, minute = wall.date(), wall.hour * 60 + wall.minute
    not_after = [version for version in all_versions if version.valid_from <= day]
    version = max(not_after, key=lambda v: v.valid_from) if not_after else min(all_versions, key=lambda v: v.valid_from)
    feast = [zone.name for zone in version.zones if zone.holiday]
    if day in version.holidays and feast:
        return feast[0]
    yesterday = day - timedelta(days=1)
    best, name = -1, next(zone.name for zone in version.zones if zone.default)
    for zone in version.zones:
        today = day.weekday() in zone.days and zone.start <= minute and (minute < zone.end or zone.end <= zone.start)
        since_yesterday = (zone.end <= zone.start and yesterday.weekday() in zone.days and minute < zone.end
                           and yesterday not in version.holidays)
        if (today or since_yesterday) and zone.priority > best:
            best, name = zone.priority, zone.name
    return name


@pytest.mark.parametrize(("place", "first"), PLACES, ids=[f"{place} {first}" for place, first in PLACES])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_minute_has_the_zone_of_its_wall_time(place: str, first: str, data: st.DataObject) -> None:
    around = date.fromisoformat(first)
    made = data.draw(versions(around))
    start = int(datetime(around.year, around.month, around.day, tzinfo=UTC).timestamp()) * 1000
    start += data.draw(st.integers(0, 2 * 1440)) * MINUTE
    end = start + data.draw(st.integers(1, 5 * 1440)) * MINUTE
    starts, indexes, names = calendars.edges(made, place, start, end)
    assert starts[0] == start
    assert (starts[1:] > starts[:-1]).all()
    assert (indexes[1:] != indexes[:-1]).all()
    assert starts.dtype == "int64"
    assert indexes.dtype == "int16"
    zone = ZoneInfo(place)
    got, position = [], 0
    for instant in range(start, end, MINUTE):
        while position + 1 < len(starts) and starts[position + 1] <= instant:
            position += 1
        got.append(names[indexes[position]])
    expected = [brute_zone(made, datetime.fromtimestamp(instant / 1000, UTC).astimezone(zone))
                for instant in range(start, end, MINUTE)]
    assert got == expected
