"""Flow segments: immutable Arrow files of decoded flows, and the rows of SQL that make them count.

A segment is a file `segments/YYYY/MM/DD/COLLECTOR-FIRSTBLOCK-LASTBLOCK.arrow` (schema core.schemas.FLOWS, LZ4) and rows in
the tables `segment`, `intake`, `fault` and `segment_slot`. The file is written first; only the rows make it part of the
truth, so a file without rows is what a killed process left and is swept. Its identity is a digest over its columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from numpy.typing import NDArray

from collector.decoder import VERSION, Decoded
from collector.faults import FaultKind
from collector.kernels import slots as kernels
from core import schemas, tables
from core.addresses import NO_ADDRESS
from core.errors import DamagedFile
from core.periods import SLOT_MS
from storage import files
from storage.home import Home

Columns = dict[str, NDArray[Any]]

SEGMENT_FLOWS_MAX = 1_000_000
"""A segment is closed when it has so many flows; a block is never divided."""
BATCH_FLOWS = 1 << 17

_KEYS = ("exporter", "domain", "export_protocol", "slot")
_SUMS = ("datagrams", "decoded", "faulted", "duplicate", "refused", "data_records", "options_records", "flow_records",
         "not_a_flow", "faulted_records", "waiting_sets")


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


@dataclass
class Refusal:
    """Datagrams that were received and lost before decoding: refused by the receiver, or in a damaged block."""

    received: int
    datagrams: int


@dataclass
class SegmentBuilder:
    """Collects what the decoder gives until it is enough for a segment."""

    collector: str
    settings_digest: str
    parts: list[Decoded] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    flows: int = 0
    datagrams: int = 0
    block_first: int | None = None
    block_last: int = -1

    def add(self, decoded: Decoded, block: int) -> None:
        self.block_first = block if self.block_first is None else self.block_first
        self.block_last = block
        self.parts.append(decoded)
        self.flows += decoded.counts.flows
        self.datagrams += decoded.counts.datagrams

    def refuse(self, received: int, datagrams: int, block: int) -> None:
        """Note datagrams that no block holds, but that were received."""
        self.block_first = block if self.block_first is None else self.block_first
        self.block_last = max(self.block_last, block)
        self.refusals.append(Refusal(received, datagrams))

    @property
    def is_empty(self) -> bool:
        return self.block_first is None

    @property
    def is_full(self) -> bool:
        return self.flows >= SEGMENT_FLOWS_MAX

    def write(self, home: Home) -> Segment:
        """Write the file and empty the builder. Raises RatemillError."""
        assert self.block_first is not None, "a segment has blocks"
        columns = join_columns([part.flows for part in self.parts])
        intake = sum_intake([part.intake for part in self.parts], self.refusals)
        day = _day_of(columns, intake)
        name = f"{self.collector}-{self.block_first:012d}-{self.block_last:012d}.arrow"
        path = home.folder("segments") / day.strftime("%Y/%m/%d") / name
        table = to_table(columns)
        digest = files.build_whole(path, lambda temporary: _write_arrow(table, temporary))
        row = self._row(columns, home.relative(path), digest, path.stat().st_size)
        segment = Segment(row["path"], row, intake, sum_faults(part.faults for part in self.parts), sum_slots(columns))
        self.parts, self.refusals = [], []
        self.flows, self.datagrams, self.block_first, self.block_last = 0, 0, None, -1
        return segment

    def _row(self, columns: Columns, path: str, digest: str, size: int) -> dict[str, Any]:
        def bound(name: str, function: Any) -> int | None:
            return int(function(columns[name])) if len(columns[name]) else None

        return {
            "collector": self.collector, "path": path, "digest": digest, "content_digest": content_digest(columns),
            "octets_size": size, "flows": len(columns["received"]), "octets": _sum(columns["octets"]),
            "received_first": bound("received", np.min), "received_last": bound("received", np.max),
            "start_first": bound("start", np.min), "end_last": bound("end", np.max),
            "block_first": self.block_first, "block_last": self.block_last,
            "decoder_version": VERSION, "settings_digest": self.settings_digest,
        }


def _sum(octets: NDArray[np.int64]) -> int:
    """The sum, at most what a column of SQL holds."""
    high, low = int((octets >> 32).sum()), int((octets & 0xFFFFFFFF).sum())
    return min((high << 32) + low, 2**62)


def _day_of(columns: Columns, intake: Sequence[dict[str, Any]]) -> datetime:
    """The UTC day in whose folder a segment lies: that of its first arrival."""
    if len(columns["received"]):
        first = int(columns["received"][0])
    else:
        first = min((row["slot"] for row in intake), default=0)
    day = datetime(1970, 1, 1, tzinfo=UTC)
    try:
        return day + timedelta(milliseconds=first)
    except OverflowError:  # an export time that no calendar has
        return day


# columns --------------------------------------------------------------------------------------------------------------
def join_columns(parts: Sequence[Columns]) -> Columns:
    """The rows of all parts, in order."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return {name: _no_rows(schemas.FLOWS.field(name).type) for name in schemas.FLOWS.names}
    return {name: np.concatenate([part[name] for part in parts]) for name in schemas.FLOWS.names}


def _no_rows(kind: pa.DataType) -> NDArray[Any]:
    if kind == schemas.ADDRESS:
        return np.zeros((0, 16), np.uint8)
    return np.zeros(0, np.int64 if kind == schemas.INSTANT else kind.to_pandas_dtype())


def content_digest(columns: Columns) -> str:
    """SHA-256 over names, types and values: the identity of a segment, whatever its compression."""
    digest = hashlib.sha256()
    for described in schemas.FLOWS:
        values = np.ascontiguousarray(columns[described.name])
        digest.update(f"{described.name} {described.type} {len(values)}\n".encode())
        digest.update(values.data)
    return digest.hexdigest()


def to_table(columns: Columns) -> pa.Table:
    """Columns as an Arrow table that shares their memory."""
    arrays = []
    for described in schemas.FLOWS:
        values = np.ascontiguousarray(columns[described.name])
        arrays.append(pa.Array.from_buffers(described.type, len(values), [None, pa.py_buffer(values)]))
    return pa.Table.from_arrays(arrays, schema=schemas.FLOWS)


def to_columns(table: pa.Table) -> Columns:
    """The inverse of `to_table`."""
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


def _write_arrow(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(str(path), schemas.FLOWS, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table, max_chunksize=BATCH_FLOWS)


def read_segment(home: Home, row: SegmentRow) -> pa.Table:
    """The flows of a segment, verified. Raises DamagedFile, which names the file."""
    path = home.path / row.path
    advice = "restore it from a backup, or replay what it was made from"
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        if table.schema != schemas.FLOWS:
            raise DamagedFile(f"{path} does not have the columns of flows", advice)
        found = content_digest(to_columns(table))
    except FileNotFoundError:
        raise DamagedFile(f"{path} is missing", advice) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedFile(f"{path} can't be read: {error}", advice) from error
    if found != row.content_digest:
        raise DamagedFile(f"{path} does not match its digest (expected {row.content_digest[:16]}…, found {found[:16]}…)",
                          advice)
    return table


# sums -----------------------------------------------------------------------------------------------------------------
def sum_intake(parts: Sequence[Columns], refusals: Sequence[Refusal] = ()) -> list[dict[str, Any]]:
    """Rows of the table `intake`: one for each exporter, domain, protocol and quarter hour of arrival."""
    parts = [part for part in parts if len(part["slot"])]
    rows: list[dict[str, Any]] = []
    if parts:
        joined = {name: np.concatenate([part[name] for part in parts]) for name in (*_KEYS, *_SUMS)}
        words = np.ascontiguousarray(joined["exporter"]).view(">u8").reshape(-1, 2)
        keys = (words[:, 0], words[:, 1], joined["domain"], joined["export_protocol"], joined["slot"])
        order = np.lexsort(keys[::-1])
        new = np.ones(len(order), bool)
        new[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
        starts = np.flatnonzero(new)
        sums = {name: np.add.reduceat(joined[name][order], starts).tolist() for name in _SUMS}
        for at, first in enumerate(order[starts].tolist()):
            key = {"exporter": joined["exporter"][first].tobytes(), **{name: int(joined[name][first]) for name in _KEYS[1:]}}
            rows.append({**key, **{name: sums[name][at] for name in _SUMS}})
    return rows + _refused_rows(refusals)


def _refused_rows(refusals: Sequence[Refusal]) -> list[dict[str, Any]]:
    """Datagrams that nobody decoded: their exporter is not known, their number is."""
    by_slot: dict[int, int] = {}
    for refusal in refusals:
        slot = refusal.received // SLOT_MS * SLOT_MS
        by_slot[slot] = by_slot.get(slot, 0) + refusal.datagrams
    nothing = dict.fromkeys(_SUMS, 0)
    return [
        {"exporter": NO_ADDRESS, "domain": 0, "export_protocol": 0, "slot": slot, **nothing, "datagrams": n, "refused": n}
        for slot, n in sorted(by_slot.items())
    ]


def sum_faults(parts: Iterable[Sequence[tuple[bytes, int, FaultKind, int]]]) -> list[dict[str, Any]]:
    """Rows of the table `fault`."""
    sums: dict[tuple[bytes, int, FaultKind], int] = {}
    for part in parts:
        for exporter, domain, kind, count in part:
            sums[exporter, domain, kind] = sums.get((exporter, domain, kind), 0) + count
    return [{"exporter": exporter, "domain": domain, "kind": kind.label, "count": count}
            for (exporter, domain, kind), count in sorted(sums.items())]


def sum_slots(columns: Columns) -> list[dict[str, Any]]:
    """Rows of the table `segment_slot`: scaled octets by quarter hour of the flow."""
    keys, sums = np.full(1024, kernels.EMPTY, np.int64), np.zeros(1024, np.int64)
    state = np.array([0, kernels.EMPTY, 0], np.int64)
    flows = [np.require(columns[name], requirements=["C", "A", "W"])
             for name in ("start", "end", "octets", "rate_numerator", "rate_denominator")]
    while kernels.sum_slots(*flows, keys, sums, state) == kernels.FULL:
        bigger_keys, bigger_sums = np.full(keys.size * 4, kernels.EMPTY, np.int64), np.zeros(keys.size * 4, np.int64)
        kernels.move(keys, sums, bigger_keys, bigger_sums)
        keys, sums = bigger_keys, bigger_sums
    used = np.flatnonzero(keys != kernels.EMPTY)
    order = used[np.argsort(keys[used])]
    return [{"slot": slot, "octets": octets} for slot, octets in zip(keys[order].tolist(), sums[order].tolist(), strict=True)]


# SQL ------------------------------------------------------------------------------------------------------------------
def register(connection: sa.Connection, segments: Sequence[Segment], manifest_version: int) -> None:
    """Insert all rows of segments, inside the caller's transaction."""
    for segment in segments:
        inserted = connection.execute(tables.segment.insert().values(**segment.row, manifest_version=manifest_version))
        number = _key(inserted)
        for table, rows in ((tables.intake, segment.intake), (tables.fault, segment.faults),
                            (tables.segment_slot, segment.slots)):
            if rows:
                connection.execute(table.insert(), [{"segment_id": number, **row} for row in rows])


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
    from storage import sql

    block = "[0-9]" * 12
    found = {home.relative(path): path for path in home.folder("segments").rglob(f"{collector}-{block}-{block}.arrow")}
    if not found:
        return 0
    with sql.reading(engine) as connection:
        known = set(connection.scalars(sa.select(tables.segment.c.path).where(tables.segment.c.collector == collector)))
    for relative, path in found.items():
        if relative not in known:
            files.remove(path)
    return len(found.keys() - known)
