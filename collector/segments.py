"""Flow segments: immutable Arrow files of decoded flows, and the rows of SQL that make them count.

A segment is a file `segments/YYYY/MM/DD/COLLECTOR-FIRSTBLOCK-LASTBLOCK.arrow` (schema core.schemas.FLOWS, LZ4 or plain) and
rows in the tables `segment`, `intake`, `fault`, `segment_slot` and `interface_counter`. It is written batch by batch under a
temporary name while its flows come; only the rows make it part of the truth, so a file without rows is what a killed process
left and is swept. Its identity is a digest over its columns, whatever the batches and the compression.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
import xxhash
from numpy.typing import NDArray

from collector import interface_counters, readings, unrated
from collector.decoder import Announced
from core import schemas, tables
from core.errors import DamagedFile
from storage import files, flow_files, sql, stored_flows
from storage.home import Home

Columns = dict[str, NDArray[Any]]

class SegmentRow(Protocol):
    """A row of the table `segment`, as far as reading needs it."""

    path: str
    content_digest: str


@dataclass(frozen=True)
class Segment:
    """A segment whose file is written; `register` makes it count."""

    path: str
    row: dict[str, Any]
    intake: list[dict[str, Any]]
    faults: list[dict[str, Any]]
    slots: list[dict[str, Any]]
    readings: readings.Readings
    drops: dict[int, int] = field(default_factory=dict)
    """Quarter hour → datagrams that the kernel had dropped by then, cumulative."""
    counters: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the table `interface_counter`."""
    unrated: list[dict[str, Any]] = field(default_factory=list)
    rates: list[Announced] = field(default_factory=list)
    port_blocks: list[dict[str, Any]] = field(default_factory=list)


# columns --------------------------------------------------------------------------------------------------------------
def _no_rows(kind: pa.DataType) -> NDArray[Any]:
    if kind == schemas.ADDRESS:
        return np.zeros((0, 16), np.uint8)
    return np.zeros(0, np.int64 if kind == schemas.INSTANT else kind.to_pandas_dtype())


class ContentDigest:
    """XXH3-128 over names, types and values, column by column: the same however the rows come in batches."""

    def __init__(self) -> None:
        self._rows = 0
        self._columns = [(described, xxhash.xxh3_128()) for described in schemas.FLOWS]

    def add(self, columns: Columns) -> None:
        self._rows += len(columns["received"])
        for described, digest in self._columns:
            digest.update(np.ascontiguousarray(columns[described.name]).data)

    def hexdigest(self) -> str:
        whole = xxhash.xxh3_128(f"{self._rows}\n".encode())
        for described, digest in self._columns:
            whole.update(f"{described.name} {described.type} {digest.hexdigest()}\n".encode())
        return whole.hexdigest()


def content_digest(columns: Columns) -> str:
    """The identity of a segment with these rows."""
    digest = ContentDigest()
    digest.add(columns)
    return digest.hexdigest()


def to_columns(table: pa.Table) -> Columns:
    """The columns of flows, as the decoder made them."""
    columns: Columns = {}
    for described in schemas.FLOWS:
        chunks = table.column(described.name).chunks
        columns[described.name] = np.concatenate([_values(chunk) for chunk in chunks]) if chunks else _no_rows(described.type)
    return columns


def _values(chunk: pa.Array) -> NDArray[Any]:
    """The values of an array without nulls, whatever its length and offset."""
    if chunk.type == schemas.ADDRESS:
        octets = np.frombuffer(chunk.buffers()[1], np.uint8)
        return octets[chunk.offset * 16 : (chunk.offset + len(chunk)) * 16].reshape(-1, 16)
    if chunk.type == schemas.INSTANT:
        chunk = chunk.view(pa.int64())
    values: NDArray[Any] = chunk.to_numpy(zero_copy_only=True)
    return values


def read_own_file(home: Home, row: SegmentRow) -> pa.Table:
    """The flows of a segment that is not in the lake, verified. Raises DamagedFile, which names the file."""
    path = home.path / row.path
    advice = "restore it from a backup, or replay what it was made from"
    try:
        with pa.memory_map(str(path)) as source:
            table = flow_files.read_all(source)
        found = content_digest(to_columns(table))
    except FileNotFoundError:
        raise DamagedFile(f"{path} is missing", advice) from None
    except DamagedFile as error:
        raise DamagedFile(f"{path} can't be read: {error.message}", advice) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedFile(f"{path} can't be read: {error}", advice) from error
    if found != row.content_digest:
        raise DamagedFile(f"{path} does not match its digest (expected {row.content_digest[:16]}…, found {found[:16]}…)",
                          advice)
    return table


def read_flows(home: Home, rows: Sequence[Any]) -> Iterator[pa.Table]:
    """The flows of segments (rows of the table `segment`), piece by piece, each with the columns of core.schemas.FLOWS,
    `segment` and `row`: first those of the lake, part by part, then segment by segment. What was deleted is left out.
    Raises DamagedFile."""
    with sql.reading(sql.engine(home)) as connection:
        located = stored_flows.locate(connection, (row.id for row in rows))
    for one in located.parts:
        if one.part.deleted is None:
            yield from stored_flows.scan(home, one, schemas.FLOWS.names)
    for row in rows:
        if row.id in located.hot:
            yield with_identity(read_own_file(home, row), row.id)


def with_identity(flows: pa.Table, segment: int) -> pa.Table:
    """The flows of a segment with `segment` and `row`."""
    return (flows.append_column(schemas.LAKE.field("segment"), pa.array(np.full(flows.num_rows, segment, np.int64)))
            .append_column(schemas.LAKE.field("row"), pa.array(np.arange(flows.num_rows, dtype=np.uint32))))


def read_segment(home: Home, row: Any) -> pa.Table:
    """All flows of one segment, in order, wherever they lie: for a segment of the lake its whole part is read."""
    pieces = list(read_flows(home, [row]))
    whole = pa.concat_tables(pieces) if pieces else with_identity(schemas.FLOWS.empty_table(), row.id)
    return whole.sort_by("row").select(schemas.FLOWS.names).combine_chunks()


# SQL ------------------------------------------------------------------------------------------------------------------
def register(connection: sa.Connection, segments: Sequence[Segment], manifest_version: int) -> list[int]:
    """Insert all rows of segments, inside the caller's transaction. Returns their row ids."""
    numbers = []
    for segment in segments:
        inserted = connection.execute(tables.segment.insert().values(**segment.row, manifest_version=manifest_version))
        number = _key(inserted)
        readings.register(connection, number, segment.readings)
        drops = [{"slot": slot, "total": total} for slot, total in segment.drops.items()]
        for table, rows in ((tables.kernel_drop, drops), (tables.intake, segment.intake), (tables.fault, segment.faults),
                            (tables.segment_slot, segment.slots), (tables.unrated_flows, segment.unrated),
                            (tables.port_block_event, segment.port_blocks)):
            if rows:
                connection.execute(table.insert(), [{"segment_id": number, **row} for row in rows])
        interface_counters.store(connection, number, segment.counters)
        unrated.announce(connection, segment.rates, segment.row["collector"])
        numbers.append(number)
    return numbers


def next_version(connection: sa.Connection, at: int, kind: str, detail: str) -> int:
    """A new row of the manifest."""
    inserted = connection.execute(tables.manifest_version.insert().values(at=at, kind=kind, detail=detail))
    return _key(inserted)


def _key(inserted: sa.CursorResult[Any]) -> int:
    key = inserted.inserted_primary_key
    assert key is not None, "a single row was inserted"
    return int(key[0])


def sweep_orphans(home: Home, engine: sa.Engine, collector: str) -> int:
    """Delete a collector's files that no row names: a process was killed before it registered them. Returns how many."""
    block = "[0-9]" * 12
    for unfinished in home.folder("segments").glob(f".{collector}.*.tmp"):
        files.remove(unfinished)
    found = {home.relative(path): path for path in home.folder("segments").rglob(f"{collector}-{block}-{block}.arrow")}
    if not found:
        return 0
    with sql.reading(engine) as connection:
        known = set(connection.scalars(sa.select(tables.segment.c.path).where(tables.segment.c.collector == collector)))
    for relative, path in found.items():
        if relative not in known:
            files.remove(path)
    return len(found.keys() - known)
