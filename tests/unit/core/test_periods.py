from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import periods

ZONES = sorted(available_timezones())


@given(st.sampled_from(ZONES), st.dates(date(1971, 1, 1), date(2037, 12, 31)))
def test_a_local_day_begins_at_the_first_instant_of_its_date(zone: str, day: date) -> None:
    start = periods.local_day_start(day, zone)
    assert periods.local_date(start, zone) >= day
    assert periods.local_date(start - 1, zone) < day


@given(st.sampled_from(ZONES), st.integers(1971, 2036), st.integers(1, 12))
def test_periods_follow_each_other_without_gap(zone: str, year: int, month: int) -> None:
    period = f"{year:04d}-{month:02d}"
    start, end = periods.period_bounds(period, zone)
    assert end == periods.period_bounds(periods.next_period(period), zone)[0]
    assert periods.period_of(start, zone) == period == periods.period_of(end - 1, zone)
    assert periods.previous_period(periods.next_period(period)) == period
    widest = periods.period_extent(period)
    assert widest[0] <= start
    assert end <= widest[1]


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 7, 1), 24)])
def test_days_of_the_clock_change_have_their_own_length(day: date, hours: int) -> None:
    length = periods.local_day_start(day + timedelta(days=1), "Europe/Berlin") - periods.local_day_start(
        day, "Europe/Berlin"
    )
    assert length == hours * periods.HOUR_MS


@given(st.sampled_from(ZONES), st.datetimes(datetime(1971, 1, 1), datetime(2036, 1, 1)), st.integers(1, 900))
def test_offsets_in_a_range_are_those_of_every_instant(zone: str, begin: datetime, days: int) -> None:
    start = periods.to_ms(begin.replace(tzinfo=UTC))
    end = start + days * periods.DAY_MS
    starts, offsets = periods.offset_changes(zone, start, end)
    assert starts[0] == start
    assert (starts[1:] > starts[:-1]).all()
    for instant in range(start, end, max((end - start) // 50, 1)):
        local = periods.from_ms(instant, zone).utcoffset()
        assert local is not None
        assert offsets[starts.searchsorted(instant, "right") - 1] == local // timedelta(milliseconds=1)


@pytest.mark.parametrize("text", ["2026-10-01T00:00:00", "2026-10-01", "yesterday", "2026-13-01T00:00:00Z"])
def test_an_instant_without_offset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="offset|ISO"):
        periods.parse_instant(text)


@given(st.integers(0, 4_000_000_000_000))
def test_written_instants_are_read_back(instant: int) -> None:
    assert periods.parse_instant(periods.format_instant(instant)) == instant


def test_anniversaries_are_clamped_to_the_months_end() -> None:
    begun = date(2022, 12, 31)
    months = [periods.add_months(begun, n) for n in (1, 2, 3, 4, 13, 14)]
    assert [day.isoformat() for day in months] == [
        "2023-01-31", "2023-02-28", "2023-03-31", "2023-04-30", "2024-01-31", "2024-02-29"]  # fmt: skip
    assert periods.add_months(date(2020, 2, 29), 12) == date(2021, 2, 28)
    assert periods.add_months(date(2020, 2, 29), 48) == date(2024, 2, 29)


def test_an_unknown_zone_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="Europe/Berlin"):
        periods.time_zone("Europe/Berln")
