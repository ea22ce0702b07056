"""What `exporters list` and `flows export` show: stored counts and flows as rows for people and programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from collector import arrival
from core import schemas, tables
from core.addresses import NO_ADDRESS, format_address
from core.periods import format_instant
from storage import sql
from storage.home import Home
from storage.late_rates import NONE, SOURCES, LateRates, is_quarantined

EXPORTER_COLUMNS = ("exporter", "domain", "protocol", "received", "missing", "duplicate", "reordered", "restarts", "faulted",
                    "waiting", "first", "last", "sessions", "sessions_ended", "recycled", "drop_samples", "refused")

_EXPORTED = ("received", "exporter", "domain", "start", "end", "source_address", "destination_address", "source_port",
             "destination_port", "protocol", "octets", "packets", "rate_numerator", "rate_denominator", "rate_source",
             "input_interface", "output_interface", "flow_direction", "next_hop", "source_as", "destination_as", "tos",
             "tcp_flags")
_LATE = ("late_numerator", "late_denominator", "late_source")
_AS_TEXT = ("exporter", "source_address", "destination_address", "rate_source", "flow_direction", "next_hop")

FLOW_EXPORT = pa.schema([
    *(pa.field(name, pa.string() if name in _AS_TEXT else schemas.FLOWS.field(name).type) for name in _EXPORTED),
    *(pa.field(name, kind) for name, kind in zip(_LATE, (pa.uint32(), pa.uint32(), pa.string()), strict=True))])
"""The columns of `flows export`: what is stored, and for a flow in quarantine the rate that came later (`none`: not yet)."""

BATCH_FLOWS = 65_536


def exporters(home: Home) -> list[dict[str, Any]]:
    """The counts of all collectors and replays together, by exporter, domain and protocol."""
    table = tables.exporter_state
    keys = (table.c.exporter, table.c.domain, table.c.export_protocol)
    counts = ("received", "missing", "duplicate", "reordered", "restarts", "faulted", "waiting", "sessions", "sessions_ended",
              "recycled", "drop_samples", "refused")
    query = sa.select(*keys, *(sa.func.sum(table.c[name]).label(name) for name in counts),
                      sa.func.min(table.c.first).label("first"), sa.func.max(table.c.last).label("last"))
    with sql.reading(sql.engine(home)) as connection:
        found = connection.execute(query.group_by(*keys).order_by(*keys)).all()
    return [
        {"exporter": format_address(bytes(row.exporter)), "domain": int(row.domain),
         "protocol": schemas.EXPORT_PROTOCOL_NAMES.get(row.export_protocol, "unknown"),
         **{name: int(getattr(row, name)) for name in counts[:7]},
         "first": format_instant(row.first), "last": format_instant(row.last),
         **{name: int(getattr(row, name)) for name in counts[7:]}}
        for row in found
    ]


UNKNOWN_COLUMNS = ("exporter", "datagrams", "overcount", "first", "last")
UNKNOWN_MAX = 64


def unknown_exporters(home: Home) -> list[dict[str, Any]]:
    """The busiest unknown exporters of all collectors and replays, the busiest first."""
    table = tables.unknown_exporter
    sums = (sa.func.sum(table.c.datagrams).label("datagrams"), sa.func.sum(table.c.overcount).label("overcount"),
            sa.func.min(table.c.first).label("first"), sa.func.max(table.c.last).label("last"))
    query = sa.select(table.c.exporter, *sums).group_by(table.c.exporter).order_by(sa.desc("datagrams"), table.c.exporter)
    with sql.reading(sql.engine(home)) as connection:
        found = connection.execute(query.limit(UNKNOWN_MAX)).all()
    return [{"exporter": format_address(bytes(row.exporter)), "datagrams": int(row.datagrams),
             "overcount": int(row.overcount), "first": format_instant(row.first), "last": format_instant(row.last)}
            for row in found]


def flows(home: Home, start: int | None, end: int | None) -> Iterator[pa.RecordBatch]:
    """Flows received in [start, end), in order of arrival, then of the journal. Raises DamagedFile."""
    yield from exported(home, arrival.flows(home, segments_between(home, start, end), start, end))


def exported(home: Home, found: Iterable[pa.Table]) -> Iterator[pa.RecordBatch]:
    """Flows as FLOW_EXPORT."""
    rates = _late_rates(home)
    for table in found:
        yield from _as_text(table, rates)


def segments_between(home: Home, start: int | None, end: int | None) -> list[Any]:
    """Rows of the segments that may hold flows received in [start, end), in order of arrival."""
    segment = tables.segment
    query = sa.select(segment).where(segment.c.flows > 0).order_by(segment.c.received_first, segment.c.id)
    if start is not None:
        query = query.where(segment.c.received_last >= start)
    if end is not None:
        query = query.where(segment.c.received_first < end)
    with sql.reading(sql.engine(home)) as connection:
        return list(connection.execute(query))


def _as_text(table: pa.Table, rates: LateRates) -> Iterator[pa.RecordBatch]:
    for batch in table.select([*_EXPORTED, "flags"]).combine_chunks().to_batches(max_chunksize=BATCH_FLOWS):
        columns = [_column_as_text(name, column) for name, column in zip(_EXPORTED, batch.columns[:-1], strict=True)]
        yield pa.RecordBatch.from_arrays([*columns, *_late_columns(batch, rates)], schema=FLOW_EXPORT)


def _late_rates(home: Home) -> LateRates:
    with sql.reading(sql.engine(home)) as connection:
        return LateRates.load(connection, home.document)


def _late_columns(batch: pa.RecordBatch, rates: LateRates) -> list[pa.Array]:
    """Numerator, denominator and source of late rates; null for flows that were never in quarantine."""
    flags = batch.column("flags").to_numpy()
    rows = np.flatnonzero(is_quarantined(flags))
    if not len(rows):
        return [pa.nulls(len(batch), FLOW_EXPORT.field(name).type) for name in _LATE]
    some = batch.take(pa.array(rows))
    exporter = np.frombuffer(b"".join(some.column("exporter").to_pylist()), np.uint8).reshape(-1, 16)
    chosen = rates.choose(exporter, some.column("domain").to_numpy(), flags[rows],
                          some.column("received").cast(pa.int64()).to_numpy(), some.column("octets").to_numpy(),
                          some.column("packets").to_numpy())
    place = np.full(len(batch), -1, np.int64)
    place[rows] = np.arange(len(rows))
    at = pa.array(place, mask=place < 0)
    without = chosen.source == NONE
    return [pa.array(chosen.numerator, mask=without).take(at), pa.array(chosen.denominator, mask=without).take(at),
            pa.array([SOURCES[source] for source in chosen.source.tolist()], pa.string()).take(at)]


def _column_as_text(name: str, column: pa.Array) -> pa.Array:
    if name not in _AS_TEXT:
        return column
    coded = column.dictionary_encode()
    texts = pa.array([_text(name, value) for value in coded.dictionary.to_pylist()], pa.string())
    return texts.take(coded.indices)


def _text(name: str, value: Any) -> str | None:
    if name == "rate_source":
        return schemas.RateSource(value).name.lower()
    if name == "flow_direction":
        return {0: "ingress", 1: "egress"}.get(value)
    if name == "next_hop" and value == NO_ADDRESS:
        return None
    return format_address(value)
