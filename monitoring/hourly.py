"""Flows against interface counters, hour by hour (UTC): the table `completeness` of a generation, and `completeness --by hour`.

Both are made here, so that they are the same. Days are read one by one, so memory is bounded; of two sources of counters the
one that covers more of the day counts.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import sqlalchemy as sa

from collector import completeness, thresholds, verdicts
from collector.completeness import FlowSums, Line
from collector.loss import percent_text
from core import schemas, tables
from core.addresses import format_address
from core.periods import DAY_MS, HOUR_MS
from monitoring.completeness import expected
from storage.home import Home
from subscribers.settings import metering

DAYS_PUBLISHED = 35
"""The newest days of which a generation holds hours; the command goes back as far as there are readings."""

SCHEMA = pa.schema([
    ("exporter", pa.string()), ("interface", pa.int64()), ("way", pa.string()), ("hour", schemas.INSTANT),
    ("flow_octets", pa.int64()), ("flow_packets", pa.int64()), ("counter_octets", pa.int64()), ("percent", pa.float64()),
    ("percent_most", pa.float64()), ("verdict", pa.string())])


def lines(home: Home, connection: sa.Connection, start: int, end: int) -> Iterator[tuple[int, Line]]:
    """Every hour of [start, end), an interface and way that flows or counters name in it each; the first and the last hour as
    far as they lie inside."""
    limits, wanted = thresholds.from_document(home.document), expected(metering(home.document))
    for day in range(start // DAY_MS * DAY_MS, end, DAY_MS):
        first, last = max(day, start), min(day + DAY_MS, end)
        flows, counters = FlowSums(connection, first, last), completeness.read_counters(connection, first, last)
        if not flows.interfaces() and not counters:
            continue
        for hour in range(first // HOUR_MS * HOUR_MS, last, HOUR_MS):
            span = max(hour, first), min(hour + HOUR_MS, last)
            for line in completeness.lines(flows, counters, span, limits, wanted):
                if line.all_flows.flows or line.counter_octets:
                    yield span[0], line


def percents(home: Home, line: Line) -> tuple[str | None, str | None]:
    """At least and at most, of what the counter counted; None without one."""
    if not line.counter_octets:
        return None, None
    common = thresholds.from_document(home.document).common
    band = verdicts.band(line.flows, (common.overhead_octets_min, common.overhead_octets_max))
    return percent_text(band.least, line.counter_octets, 2), percent_text(band.most, line.counter_octets, 2)


def table(home: Home, connection: sa.Connection) -> pa.Table:
    """The newest days, for a generation."""
    flow, counter = tables.interface_flow, tables.interface_counter
    newest = [at for at in (connection.scalar(sa.select(sa.func.max(column))) for column in (flow.c.slot_last, counter.c.at))
              if at is not None]
    found = []
    if newest:
        end = max(newest) // DAY_MS * DAY_MS + DAY_MS
        found = [_row(home, hour, line) for hour, line in lines(home, connection, end - DAYS_PUBLISHED * DAY_MS, end)]
    found.sort(key=lambda row: tuple(row[name] for name in ("exporter", "interface", "way", "hour")))
    return pa.Table.from_pylist(found, schema=SCHEMA)


def _row(home: Home, hour: int, line: Line) -> dict[str, object]:
    least, most = (None if text is None else float(text) for text in percents(home, line))
    return {"exporter": format_address(line.exporter), "interface": line.interface, "way": line.way, "hour": hour,
            "flow_octets": line.flows.octets, "flow_packets": line.flows.packets, "counter_octets": line.counter_octets,
            "percent": least, "percent_most": most, "verdict": line.verdict}


def fingerprint(connection: sa.Connection) -> str:
    """Of counters that were imported: those that exporters send come with flows."""
    counter = tables.interface_counter
    newest = connection.scalar(sa.select(sa.func.max(counter.c.id)).where(counter.c.segment_id.is_(None)))
    return str(newest or 0)
