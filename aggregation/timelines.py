"""Which subscription, tariff zone, local hour and local month a service is in, at every instant.

A service's time is a row of *stretches*: one subscription row each, and the gaps around and between them. A stretch goes
by a *clock*: the calendar of its plan version (if any) in its time zone. A clock is a row of instants at which zone, offset
or local month change. Clocks are worked out for windows of time as traffic touches them, so that a router with a wrong
year costs one window, not the years in between.

Reads `subscription`, `plan_version`, `calendar_version` and `service`; writes nothing. Cells, usage and the balance of
both use the same stretches; months are kept apart from clocks, so that the balance does not lean on what it checks.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from aggregation import kernels
from core import calendars, periods, settings, tables
from core.periods import DAY_MS, OPEN_START

WINDOW_MS = 64 * DAY_MS
"""Whole UTC days, so that a window's own edge never cuts a slot, and longer than any flow (2^32 ms are 49.7 days)."""

NO_SUBSCRIPTION = -1
NO_ZONE = -1
SERVICES_MAX = 2**30

_CALENDAR_FIRST = periods.to_ms(datetime(2, 1, 1, tzinfo=UTC))
_CALENDAR_LAST = periods.to_ms(datetime(9998, 1, 1, tzinfo=UTC))
"""Outside of these years, which only a broken clock names, local time is UTC and there are no zones."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time of one service under one subscription row, or under none."""

    start: int
    subscription: int
    calendar: str | None
    timezone: str
    five_minutes: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """A span of a service's time in which nothing changes."""

    start: int
    end: int
    subscription: int
    """NO_SUBSCRIPTION: none."""
    zone: str
    """Empty: none."""
    period: int
    """Months since year 0, local."""


@dataclass(frozen=True, slots=True)
class _PlanVersion:
    valid_from: str
    calendar: str | None
    five_minutes: bool


class Timelines:
    """The stretches of every service and the clocks they go by."""

    def __init__(self, rows: dict[int, list[Stretch]], versions: dict[str, list[calendars.CalendarVersion]]) -> None:
        """`rows`: stretches of each service id, in order, the first from OPEN_START on."""
        self._versions = versions
        self._clocks: dict[tuple[str | None, str], int] = {}
        self._zones: dict[str, int] = {}
        self._windows: set[int] = set()
        self.stretches, self.stretch_service, self.stretch_subscription = self._pack(rows)
        self._timezones = list(dict.fromkeys(timezone for _, timezone in self._clocks))
        self.stretches = self.stretches._replace(month_clock=np.array(
            [self._timezones.index(timezone) for _, timezone in self._clocks], np.int64))
        self.clocks, self.months = self._work_out()

    @classmethod
    def load(cls, connection: sa.Connection, document: settings.Document) -> Timelines:
        seller_zone = settings.seller(document).timezone
        plans = _plan_versions(connection)
        subscription = tables.subscription
        rows: dict[int, list[Stretch]] = {}
        query = sa.select(subscription.c.service_id, subscription.c.id, subscription.c.plan, subscription.c.start_date,
                          subscription.c.start_ms, subscription.c.end_ms, subscription.c.timezone)
        current: list[_Row] = []
        service = -1
        for service_id, *values in connection.execute(query.order_by(subscription.c.service_id, subscription.c.start_ms)):
            if service_id != service:
                if current:
                    rows[service] = list(_stretches(current, plans))
                service, current = service_id, []
            current.append(_Row(*values))
        if current:
            rows[service] = list(_stretches(current, plans))
        for (service_id,) in connection.execute(sa.select(tables.service.c.id)):
            rows.setdefault(service_id, [Stretch(OPEN_START, NO_SUBSCRIPTION, None, seller_zone, False)])
        return cls(rows, _calendar_versions(connection))

    @property
    def zone_names(self) -> list[str]:
        """Zone number → name; grows as windows are covered."""
        return list(self._zones)

    def cover(self, *instants: NDArray[np.int64]) -> None:
        """Make sure that the clocks hold at these instants."""
        touched = {int(window) for column in instants for window in np.unique(column // WINDOW_MS)}
        if not touched <= self._windows:
            self._windows |= touched
            self.clocks, self.months = self._work_out()

    def pieces(self, service: int, start: int, end: int) -> Iterator[Piece]:
        """[start, end) of one service, cut where its subscription, zone, offset or local month changes."""
        if start >= end:
            return
        self.cover(np.arange(start, end + WINDOW_MS, WINDOW_MS).clip(max=end - 1))
        stretches, clocks, names = self.stretches, self.clocks, self.zone_names
        first, last = int(stretches.first[service]), int(stretches.first[service + 1])
        starts = stretches.start[first:last]
        for stretch in range(first + max(int(np.searchsorted(starts, start, "right")) - 1, 0), last):
            until = min(end, int(stretches.start[stretch + 1]) if stretch + 1 < last else end)
            clock = int(stretches.clock[stretch])
            low, high = int(clocks.first[clock]), int(clocks.first[clock + 1])
            edges = clocks.start[low:high]
            while start < until:
                entry = int(np.searchsorted(edges, start, "right")) - 1
                upper = min(until, int(edges[entry + 1]) if entry + 1 < len(edges) else until)
                zone = int(clocks.zone[low + entry])
                yield Piece(start, upper, int(self.stretch_subscription[stretch]), "" if zone == NO_ZONE else names[zone],
                            int(clocks.period[low + entry]))
                start = upper

    def period_range(self) -> tuple[int, int]:
        """The lowest month number and one past the highest that the covered windows hold."""
        if not self.months.period.size:
            return 0, 1
        return int(self.months.period.min()), int(self.months.period.max()) + 1

    def _pack(self, rows: dict[int, list[Stretch]]) -> tuple[kernels.Stretches, NDArray[np.int32], NDArray[np.int64]]:
        last = max(rows, default=0)
        assert last < SERVICES_MAX, "row ids of services fit into a cell's key"
        counts = np.zeros(last + 2, np.int64)
        ordered = sorted(rows)
        flat = [stretch for service in ordered for stretch in rows[service]]
        assert len(flat) < SERVICES_MAX, "stretches fit into a usage key"
        for service in ordered:
            assert rows[service][0].start == OPEN_START, "a service's stretches begin with time"
            counts[service + 1] = len(rows[service])
        clock = np.array([self._clocks.setdefault((s.calendar, s.timezone), len(self._clocks)) for s in flat], np.int64)
        five_minutes = np.array([s.five_minutes for s in flat], np.uint8)
        first = np.cumsum(counts)
        only = np.full(last + 1, kernels.SEVERAL, np.int32)
        alone = np.flatnonzero(counts[1:] == 1)
        only[alone] = clock[first[alone]] << 1 | five_minutes[first[alone]]
        stretches = kernels.Stretches(first, np.array([s.start for s in flat], np.int64), clock, five_minutes, only,
                                      np.zeros(0, np.int64))
        services = np.repeat(np.array(ordered, np.int32), [len(rows[service]) for service in ordered])
        return stretches, services, np.array([s.subscription for s in flat], np.int64)

    def _work_out(self) -> tuple[kernels.Clocks, kernels.Months]:
        runs = _runs(self._windows)
        clocks: list[NDArray[np.int64]] = []
        first = [0]
        for calendar, timezone in self._clocks:
            parts = [self._clock(calendar, timezone, start, end) for start, end in runs]
            clocks += parts
            first.append(first[-1] + sum(part.shape[1] for part in parts))
        joined = np.concatenate(clocks, axis=1) if clocks else np.zeros((4, 0), np.int64)
        start, zone, offset, period = (np.ascontiguousarray(row) for row in joined)
        months = [[_month_starts(timezone, *run) for run in runs] for timezone in self._timezones]
        flat = [entry for parts in months for part in parts for entry in part]
        month_first = np.cumsum([0, *(sum(len(part) for part in parts) for parts in months)])
        return (kernels.Clocks(np.array(first, np.int64), start, zone, offset, period),
                kernels.Months(month_first.astype(np.int64), np.array([entry[0] for entry in flat], np.int64),
                               np.array([entry[1] for entry in flat], np.int64)))

    def _clock(self, calendar: str | None, timezone: str, start: int, end: int) -> NDArray[np.int64]:
        """Rows start, zone, offset, month of one run of windows."""
        months = _month_starts(timezone, start, end)
        month_at, month = np.array([m[0] for m in months], np.int64), np.array([m[1] for m in months], np.int64)
        offset_at, offset = _offsets(timezone, start, end)
        zone_at, zone = np.array([start], np.int64), np.array([NO_ZONE], np.int64)
        versions = self._versions.get(calendar) if calendar is not None else None
        if versions and _is_calendar_time(start, end):
            zone_at, index, names = calendars.edges(versions, timezone, start, end)
            numbers = [self._zones.setdefault(name, len(self._zones)) for name in names]
            zone = np.array(numbers, np.int64)[index]
        at = np.unique(np.concatenate([month_at, offset_at, zone_at]))
        return np.stack([at, zone[np.searchsorted(zone_at, at, "right") - 1],
                         offset[np.searchsorted(offset_at, at, "right") - 1],
                         month[np.searchsorted(month_at, at, "right") - 1]])


@dataclass(frozen=True, slots=True)
class _Row:
    """A subscription row."""

    id: int
    plan: str | None
    start_date: str
    start_ms: int
    end_ms: int
    timezone: str


def _stretches(rows: Sequence[_Row], plans: dict[str, list[_PlanVersion]]) -> Iterator[Stretch]:
    """The rows of one service in order of time, with the gaps: a gap's time zone is that of the nearest row."""
    at = OPEN_START
    before: _Row | None = None
    for row in rows:
        if row.start_ms > at:
            yield from _gap(before, row, at)
        version = plan_version_of(row.plan, row.start_date, plans)
        yield Stretch(row.start_ms, row.id, version.calendar if version else None, row.timezone,
                      version is not None and version.five_minutes)
        before, at = row, row.end_ms
    assert before is not None, "a service without rows has no need of this"
    if at < periods.OPEN_END:
        yield Stretch(at, NO_SUBSCRIPTION, None, before.timezone, False)


def _gap(before: _Row | None, after: _Row, at: int) -> Iterator[Stretch]:
    if before is None or before.timezone == after.timezone:
        yield Stretch(at, NO_SUBSCRIPTION, None, after.timezone, False)
        return
    yield Stretch(at, NO_SUBSCRIPTION, None, before.timezone, False)
    middle = (at + after.start_ms + 1) // 2  # at equal distance the earlier row is the nearest
    if at < middle < after.start_ms:
        yield Stretch(middle, NO_SUBSCRIPTION, None, after.timezone, False)


def plan_version_of(plan: str | None, start_date: str, plans: dict[str, list[_PlanVersion]]) -> _PlanVersion | None:
    """The version in force on the first local day of a subscription row, which keeps it; before all of them: the first."""
    versions = plans.get(plan, []) if plan is not None else []
    if not versions:
        return None
    return versions[max(0, bisect_right(versions, start_date, key=lambda version: version.valid_from) - 1)]


def _plan_versions(connection: sa.Connection) -> dict[str, list[_PlanVersion]]:
    table = tables.plan_version
    found: dict[str, list[_PlanVersion]] = {}
    for row in connection.execute(sa.select(table).order_by(table.c.name, table.c.valid_from)):
        found.setdefault(row.name, []).append(_PlanVersion(row.valid_from, row.calendar, bool(row.five_minutes)))
    return found


def _calendar_versions(connection: sa.Connection) -> dict[str, list[calendars.CalendarVersion]]:
    table = tables.calendar_version
    found: dict[str, list[calendars.CalendarVersion]] = {}
    for row in connection.execute(sa.select(table).order_by(table.c.name, table.c.valid_from)):
        found.setdefault(row.name, []).append(calendars.parse(json.loads(row.document)))
    return found


def _runs(windows: Iterable[int]) -> list[tuple[int, int]]:
    """Windows → [start, end) in ms, neighbours joined, split where the calendar's years begin and end."""
    runs: list[tuple[int, int]] = []
    for window in sorted(windows):
        start, end = window * WINDOW_MS, (window + 1) * WINDOW_MS
        if runs and runs[-1][1] == start and _is_calendar_time(start, end) == _is_calendar_time(*runs[-1]):
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return runs


def _is_calendar_time(start: int, end: int) -> bool:
    return start >= _CALENDAR_FIRST and end <= _CALENDAR_LAST


def _offsets(timezone: str, start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if not _is_calendar_time(start, end):
        return np.array([start], np.int64), np.array([0], np.int64)
    return periods.offset_changes(timezone, start, end)


def _month_starts(timezone: str, start: int, end: int) -> list[tuple[int, int]]:
    """(instant, month number) at which local months begin in [start, end); the first is `start` in its month."""
    if not _is_calendar_time(start, end):
        months = np.arange(start, end, DAY_MS).astype("M8[ms]").astype("M8[M]").astype(np.int64) + 1970 * 12
        changes = [0, *(np.flatnonzero(np.diff(months)) + 1).tolist()]
        return [(start + day * DAY_MS, int(months[day])) for day in changes]
    period = periods.period_of(start, timezone)
    found = [(start, period_number(period))]
    while True:
        period = periods.next_period(period)
        at = periods.local_day_start(periods.period_first_day(period), timezone)
        if at >= end:
            return found
        found.append((at, period_number(period)))


def period_number(period: str) -> int:
    """'2026-10' → months since year 0."""
    return int(period[:4]) * 12 + int(period[5:7]) - 1


def period_text(number: int) -> str:
    return f"{number // 12:04d}-{number % 12 + 1:02d}"
