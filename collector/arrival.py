"""Stored flows in the order in which they arrived, whether they lie in segments of their own or in the lake, sorted otherwise.

Each segment and each part is a stream in order; streams are merged by what each of them can still bring.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from collector.segments import read_own_file, with_identity
from core import schemas
from core.errors import RatemillError
from storage import sorting, sql, stored_flows
from storage.home import Home
from storage.stored_flows import InPart

PENDING_FLOWS_MAX = 20_000_000
"""Flows held at once while segments that overlap in arrival time are put in order."""

ORDER = ("received", "segment", "row")
SCHEMA = schemas.FLOWS.append(schemas.LAKE.field("segment")).append(schemas.LAKE.field("row"))


def flows(home: Home, rows: Sequence[Any], start: int | None, end: int | None) -> Iterator[pa.Table]:
    """The flows of segments (rows of the table `segment`) received in [start, end), with `segment` and `row`, in order of
    arrival, then of the journal. What was deleted is left out. Raises DamagedFile, RatemillError."""
    with sql.reading(sql.engine(home)) as connection:
        located = stored_flows.locate(connection, (row.id for row in rows))
    streams: list[tuple[int, int, Iterator[pa.Table]]] = []
    for one in located.parts:
        if one.part.deleted is None:
            streams.append((one.part.received_first, len(streams), _of_part(home, one, start, end)))
    for row in rows:
        if row.id in located.hot:
            streams.append((row.received_first, len(streams), _of_segment(home, row, start, end)))
    yield from merged(streams)


def _of_segment(home: Home, row: Any, start: int | None, end: int | None) -> Iterator[pa.Table]:
    yield in_order(within(with_identity(read_own_file(home, row), row.id), start, end))


def _of_part(home: Home, one: InPart, start: int | None, end: int | None) -> Iterator[pa.Table]:
    found = (batch for table in stored_flows.scan(home, one, schemas.FLOWS.names)
             for batch in within(table, start, end).combine_chunks().to_batches())
    for batch in sorting.in_order(None, SCHEMA, found, ORDER):
        yield pa.Table.from_batches([batch])


def merged(streams: list[tuple[int, int, Iterator[pa.Table]]]) -> Iterator[pa.Table]:
    """Streams, each with the earliest arrival that it can still bring → tables in order."""
    heapq.heapify(streams)
    pending = SCHEMA.empty_table()
    while streams:
        low, number, stream = heapq.heappop(streams)
        table = next(stream, None)
        if table is not None:
            if table.num_rows:
                pending = pa.concat_tables([pending, table])
                low = int(instants(table)[-1].as_py())
            heapq.heappush(streams, (low, number, stream))
        if not pending.num_rows or (streams and streams[0][0] <= int(instants(pending)[0].as_py())):
            continue
        whole = in_order(pending)
        ready = whole.filter(pc.less(instants(whole), streams[0][0])) if streams else whole
        pending = whole.slice(ready.num_rows)
        if pending.num_rows > PENDING_FLOWS_MAX:
            raise RatemillError(f"more than {PENDING_FLOWS_MAX} flows came at overlapping times",
                                "export a shorter stretch with --from and --to")
        yield ready


def instants(table: pa.Table) -> pa.ChunkedArray:
    return table.column("received").cast(pa.int64())


def within(table: pa.Table, start: int | None, end: int | None) -> pa.Table:
    """The flows received in [start, end)."""
    if start is not None:
        table = table.filter(pc.greater_equal(instants(table), start))
    if end is not None:
        table = table.filter(pc.less(instants(table), end))
    return table


def in_order(table: pa.Table) -> pa.Table:
    return table.take(pc.sort_indices(table, [(name, "ascending") for name in ORDER]))
