"""The metrics of aggregation: what waits for its cells, and how old the published usage is. Read from SQL once a minute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from core import clock, tables
from core.errors import RatemillError
from runtime.metrics import GAUGE, Metric, Periodic, Sheet
from storage import generations, sql
from storage.home import Home

READ_SECONDS = 60
"""Aggregation runs each minute, and finding out looks at every segment."""

METRICS = (
    WAITING := Metric("ratemill_aggregation_waiting_segments", GAUGE, "Segments that are not in cells yet."),
    LAG := Metric("ratemill_aggregation_lag_seconds", GAUGE, "Time since the newest datagram of the oldest such segment came."),
    STALE := Metric("ratemill_aggregation_stale_batches", GAUGE,
                    "Batches of cells made before an import that concerns them."),
    PUBLISHED := Metric("ratemill_usage_published_timestamp_seconds", GAUGE,
                        "When the newest generation of usage was published; absent before the first."),
)


@dataclass(frozen=True, slots=True)
class _Stored:
    waiting: int
    oldest: int | None
    stale: int
    published: int | None


def contribution(home: Home) -> Callable[[Sheet], None]:
    """What an endpoint tells of aggregation."""
    stored = Periodic("aggregation", lambda: _read(home), READ_SECONDS)

    def tell(sheet: Sheet) -> None:
        found = stored.get()
        if found is None:
            raise RatemillError("the database did not answer in time")
        sheet.write(WAITING, found.waiting)
        sheet.write(LAG, 0 if found.oldest is None else max(0, clock.now_ms() - found.oldest) / 1000)
        sheet.write(STALE, found.stale)
        if found.published is not None:
            sheet.write(PUBLISHED, found.published / 1000)

    return tell


def _read(home: Home) -> _Stored:
    segment, consumed = tables.segment, tables.consumed
    waiting = ~sa.exists().where(consumed.c.segment_id == segment.c.id)
    with sql.reading(sql.engine(home)) as connection:
        oldest = connection.scalar(sa.select(sa.func.min(segment.c.received_last)).where(waiting))
        fresh, newest = generations.freshness(connection), generations.latest(connection)
    return _Stored(fresh.waiting_segments, oldest, fresh.stale_batches, None if newest is None else newest.at)
