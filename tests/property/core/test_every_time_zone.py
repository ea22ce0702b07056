"""Every zone of the tz database, every transition from 1970 to 2037: no gap, no overlap, minutes add up.

The offsets are held against the database's own files, read by a reader that shares no code with the product.
"""

from __future__ import annotations

import os
from datetime import date, timedelta
from itertools import pairwise
from zoneinfo import available_timezones

import numpy as np
import pytest
from oracles import slow_time_zones as oracle

from core import calendars, periods
from core.periods import DAY_MS, MINUTE_MS

FIRST, LAST = date(1970, 1, 1), date(2038, 1, 1)
START, END = (int((day - oracle.EPOCH).total_seconds()) for day in (FIRST, LAST))
NIGHTLY = bool(os.environ.get("RATEMILL_NIGHTLY"))
SHARE = 1 if NIGHTLY else 10
"""In CI a tenth of the zones, and of the transitions of a zone, whose turn is by their place in the list."""


def zones() -> list[str]:
    """One of those that have the same data, in order of their names."""
    names = sorted(available_timezones() - {"localtime", "posixrules"})
    distinct = {oracle.data_of(name): name for name in reversed(names)}
    return sorted(distinct.values())[::SHARE]


GRID = [
    calendars.CalendarVersion("odd", date(1970, 1, 1), (
        calendars.Zone("day", (0, 1, 2, 3, 4), 8 * 60 + 5, 23 * 60 + 1),
        calendars.Zone("night", default=True, holiday=True),
        calendars.Zone("late", (4, 5), 22 * 60, 2 * 60 + 30, priority=1),
        calendars.Zone("early", (6,), 0, 3 * 60 + 1, priority=2),
    ), frozenset({date(2026, 12, 25)})),
]  # fmt: skip


@pytest.mark.parametrize("zone", zones())
def test_offsets_are_those_of_the_database(zone: str) -> None:
    expected = oracle.transitions(zone, START, END)
    starts, offsets = periods.offset_changes(zone, START * 1000, END * 1000)
    assert list(zip(starts.tolist(), offsets.tolist(), strict=True)) == [(at * 1000, off * 1000) for at, off in expected]
    assert oracle.changes_of_date(expected, START, END) == END - START


@pytest.mark.parametrize("zone", zones())
def test_days_around_every_transition_follow_each_other(zone: str) -> None:
    for at, _ in oracle.transitions(zone, START, END)[1::SHARE]:
        day = periods.local_date(at * 1000, zone) - timedelta(days=2)
        begins = [periods.local_day_start(day + timedelta(days=n), zone) for n in range(5)]
        assert all(a <= b for a, b in pairwise(begins)), (zone, day)
        assert begins[0] < at * 1000 < begins[-1]
        for n, (a, b) in enumerate(pairwise(begins)):
            if a < b:  # a zone that crosses the date line has a date without any instant
                assert periods.local_date(a, zone) == periods.local_date(b - 1, zone) == day + timedelta(days=n)
                assert periods.local_date(a - 1, zone) < day + timedelta(days=n)


@pytest.mark.parametrize("zone", zones())
def test_tariff_zones_around_every_transition_fill_the_time(zone: str) -> None:
    for at, _ in oracle.transitions(zone, START, END)[1::SHARE]:
        start, end = at * 1000 - 2 * DAY_MS, at * 1000 + 2 * DAY_MS
        edges, indexes, names = calendars.edges(GRID, zone, start, end)
        assert edges[0] == start
        assert (np.diff(edges) > 0).all()
        assert (np.diff(indexes) != 0).all(), "neighbours differ"
        assert np.diff(np.append(edges, end)).sum() == end - start
        for instant in (*edges.tolist(), *(edges[1:] - 1).tolist(), *range(start, end, 97 * MINUTE_MS), end - 1):
            local = periods.from_ms(instant, zone)
            here = int(edges.searchsorted(instant, "right")) - 1
            wanted = calendars.zone_at(GRID, local.date(), local.hour * 60 + local.minute)
            assert names[indexes[here]] == wanted, (zone, local)
