"""Flow segments: immutable Arrow files of decoded flows, and the rows of SQL that make them count.

A segment is a file `segments/YYYY/MM/DD/COLLECTOR-FIRSTBLOCK-LASTBLOCK.arrow` (schema core.schemas.FLOWS, LZ4 or plain) and
rows in the tables `segment`, `intake`, `fault`, `segment_slot` and `interface_counter`. It is written batch by batch under a
temporary name while its flows come; only the rows make it part of the truth, so a file without rows is what a killed process
left and is swept. Its identity is a digest over its columns, whatever the batches and the compression.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
import xxhash
from numpy.typing import NDArray

from collector import interface_counters, measures, readings, unrated
from collector.columns import FlowColumns
from collector.decoder import VERSION, Announced, Decoded
from collector.faults import FaultKind
from collector.kernels import slots as kernels
from core import schemas, tables
from core.addresses import NO_ADDRESS
from core.errors import DamagedFile
from core.periods import SLOT_MS
from storage import files, flow_files
from storage.home import Home

Columns = dict[str, NDArray[Any]]

SEGMENT_FLOWS_MAX = 1_000_000
"""A segment is closed when it has so many flows; a block is never divided."""
BATCH_FLOWS = 1 << 16
"""Flows of a batch of the file: small enough to be still in the processor's cache when they are written."""

_NOTHING_HELD = np.zeros(0, np.uint8)
_KEYS = ("exporter", "domain", "export_protocol", "slot")
_SUMS = ("datagrams", "decoded", "faulted", "duplicate", "refused", "data_records", "options_records", "flow_records",
         "not_a_flow", "faulted_records", "waiting_sets", "twin", "flows", "octets", "templates", "options_templates",
         "counter_samples", "drop_samples", "released_sets", "expired_sets")


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


@dataclass
class Refusal:
    """Datagrams that were received and lost before decoding: refused by the receiver, or in a damaged block."""

    received: int
    datagrams: int


class SegmentBuilder:
    """Takes what the decoder gives until it is enough for a segment; flows go out to the file by the batch."""

    def __init__(self, home: Home, collector: str, settings_digest: str, compression: str = "lz4", threads: int = 1) -> None:
        """With two `threads`, one stores a batch while the caller decodes the next one; nothing else is different."""
        self._home, self._collector, self._settings_digest = home, collector, settings_digest
        self._compression = None if compression == "none" else compression
        self.columns = FlowColumns(BATCH_FLOWS)
        """Where the decoder puts the flows of the blocks that are added next; others after each `add`."""
        self._other_columns = FlowColumns(BATCH_FLOWS if threads > 1 else 0)
        self._has_thread = threads > 1
        self._thread: ThreadPoolExecutor | None = None
        self._storing: Future[None] | None = None
        self._drops_last = 0
        self._begin()

    def _begin(self) -> None:
        self.columns.clear()
        self._file: _SegmentFile | None = None
        self._survey = _Survey()
        self._unrated = unrated.UnratedFlows()
        self._parts: list[Decoded] = []
        self._refusals: list[Refusal] = []
        self._drops: dict[int, int] = {}
        self._stored = 0
        self._readings = 0
        self.datagrams = 0
        self.block_first: int | None = None
        self.block_last = -1

    @property
    def flows(self) -> int:
        return self._stored + self.columns.used

    def dropped(self, received: int, total: int) -> None:
        """Note what the kernel had dropped in all when a block was written."""
        if total != self._drops_last:
            self._drops_last = total
            self._drops[received // SLOT_MS * SLOT_MS] = total

    @property
    def is_empty(self) -> bool:
        return self.block_first is None

    @property
    def is_full(self) -> bool:
        return self.flows >= SEGMENT_FLOWS_MAX or self._readings >= interface_counters.SEGMENT_READINGS_MAX

    def add(self, decoded: Decoded, block: int) -> None:
        """Take what a block gave; its flows are in `columns`. Raises RatemillError if the disk can't take a batch."""
        self.block_first = block if self.block_first is None else self.block_first
        self.block_last = block
        self._parts.append(replace(decoded, flows={}, held=_NOTHING_HELD))
        self._readings += interface_counters.count(decoded.interface_counters)
        self.datagrams += decoded.counts.datagrams
        if self.columns.used >= BATCH_FLOWS:
            self._store()

    def refuse(self, received: int, datagrams: int, block: int) -> None:
        """Note datagrams that no block holds, but that were received."""
        self.block_first = block if self.block_first is None else self.block_first
        self.block_last = max(self.block_last, block)
        self._refusals.append(Refusal(received, datagrams))

    def _store(self) -> None:
        """Move the flows from memory into the file, or have it done. Raises RatemillError, perhaps of the batch before."""
        self._wait()
        full = self.columns
        self._stored += full.used
        if not self._has_thread:
            self._put(full)
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "store")
        self.columns, self._other_columns = self._other_columns, full
        self._storing = self._thread.submit(self._put, full)

    def _put(self, columns: FlowColumns) -> None:
        rows = columns.rows()
        if self._file is None:
            self._file = _SegmentFile(self._home, self._collector, self._compression)
        self._survey.add(rows)
        self._unrated.add(rows)
        self._file.write(rows)
        columns.clear()

    def _wait(self) -> None:
        """Until the batch that is being stored is stored. Raises RatemillError."""
        if self._storing is not None:
            storing, self._storing = self._storing, None
            storing.result()

    def write(self) -> Segment:
        """Finish the file and begin anew. Raises RatemillError; what was added is lost then, and must be decoded again."""
        assert self.block_first is not None, "a segment has blocks"
        self._store()
        self._wait()
        assert self._file is not None, "flows are stored"
        intake = sum_intake([part.intake for part in self._parts], self._refusals)
        extent = self._survey.extent()
        day = _day_of(extent["received_first"], intake)
        name = f"{self._collector}-{self.block_first:012d}-{self.block_last:012d}.arrow"
        path = self._home.folder("segments") / day.strftime("%Y/%m/%d") / name
        digest, content, size = self._file.finish(path)
        row = {
            "collector": self._collector, "path": self._home.relative(path), "digest": digest, "content_digest": content,
            "octets_size": size, "flows": self._stored, **extent, "block_first": self.block_first,
            "block_last": self.block_last, "decoder_version": VERSION, "settings_digest": self._settings_digest,
        }
        faults = sum_faults(part.faults for part in self._parts)
        counters = interface_counters.newest_of_minutes(part.interface_counters for part in self._parts)
        segment = Segment(self._home.relative(path), row, intake, faults, self._survey.slots(), self._survey.readings(),
                          self._drops, interface_counters.to_rows(counters), self._unrated.rows(),
                          [rate for part in self._parts for rate in part.rates],
                          port_block_rows([part.port_blocks for part in self._parts]))
        self._begin()
        return segment

    def abandon(self) -> None:
        """Forget what was added."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = self._storing = None
        if self._file is not None:
            self._file.abandon()
        self._other_columns.clear()
        self._begin()


class _SegmentFile:
    """The Arrow file of a segment that is being written, and the digests that grow with it."""

    def __init__(self, home: Home, collector: str, compression: str | None) -> None:
        self._sink = files.HashingWriter(files.temporary_name(home.folder("segments") / collector))
        self._content = ContentDigest()
        self._compression = compression
        self._encoder: flow_files.BatchEncoder | None = None
        self._writer: pa.ipc.RecordBatchFileWriter | None = None

    def write(self, rows: Columns) -> None:
        """A batch of flows. Raises RatemillError; then the file is gone."""
        try:
            for first in range(0, max(len(rows["received"]), 1), BATCH_FLOWS):
                batch = {name: values[first : first + BATCH_FLOWS] for name, values in rows.items()}
                self._content.add(batch)
                if self._encoder is None or self._writer is None:
                    self._encoder = flow_files.BatchEncoder(batch)
                    self._writer = pa.ipc.new_file(pa.PythonFile(self._sink, mode="w"), self._encoder.schema,
                                                   options=pa.ipc.IpcWriteOptions(compression=self._compression))
                self._writer.write_batch(self._encoder.encode(batch))
        except OSError as error:
            self.abandon()
            raise files.explain(error, self._sink.path) from error

    def finish(self, path: Path) -> tuple[str, str, int]:
        """(digest of the file, digest of the content, size in octets). Raises RatemillError; then the file is gone."""
        assert self._writer is not None, "something was written, be it no rows"
        try:
            self._writer.close()
        except OSError as error:
            self.abandon()
            raise files.explain(error, path) from error
        return self._sink.finish(path), self._content.hexdigest(), self._sink.size

    def abandon(self) -> None:
        self._sink.abandon()


class _Survey:
    """Sums and bounds over the flows of a segment."""

    def __init__(self) -> None:
        self._extent = np.array([0, 0, 2**62, -(2**62), 2**62, -(2**62)], np.int64)
        self._slots = SlotSums()
        self._readings = readings.FlowReader()
        self._flows = 0

    def add(self, rows: Columns) -> None:
        self._flows += len(rows["received"])
        kernels.survey(*_settled(rows, "received", "start", "end", "octets"), self._extent)
        self._slots.add(rows)
        self._readings.add(rows)

    def extent(self) -> dict[str, int | None]:
        """The columns of `segment` that people and planners look at; instants are null without flows."""
        octets = min((int(self._extent[kernels.SUM_HIGH]) << 32) + int(self._extent[kernels.SUM_LOW]), 2**62)
        bounds = {"received_first": kernels.RECEIVED_FIRST, "received_last": kernels.RECEIVED_LAST,
                  "start_first": kernels.START_FIRST, "end_last": kernels.END_LAST}
        return {"octets": octets, **{name: int(self._extent[at]) if self._flows else None for name, at in bounds.items()}}

    def slots(self) -> list[dict[str, Any]]:
        return self._slots.rows()

    def readings(self) -> readings.Readings:
        return self._readings.finish()


def _day_of(first: int | None, intake: Sequence[dict[str, Any]]) -> datetime:
    """The UTC day in whose folder a segment lies: that of its first arrival."""
    if first is None:
        first = min((row["slot"] for row in intake), default=0)
    day = datetime(1970, 1, 1, tzinfo=UTC)
    try:
        return day + timedelta(milliseconds=first)
    except OverflowError:  # an export time that no calendar has
        return day


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


def read_segment(home: Home, row: SegmentRow) -> pa.Table:
    """The flows of a segment, verified. Raises DamagedFile, which names the file."""
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


# sums -----------------------------------------------------------------------------------------------------------------
def sum_intake(parts: Sequence[Columns], refusals: Sequence[Refusal] = ()) -> list[dict[str, Any]]:
    """Rows of the table `intake`: one for each exporter, domain, protocol and quarter hour of arrival."""
    parts = [part for part in parts if len(part["slot"])]
    rows: list[dict[str, Any]] = []
    if parts:
        joined = {name: np.concatenate([part[name] for part in parts]) for name in (*_KEYS, *_SUMS, *measures.COLUMNS)}
        words = np.ascontiguousarray(joined["exporter"]).view(">u8").reshape(-1, 2)
        keys = (words[:, 0], words[:, 1], joined["domain"], joined["export_protocol"], joined["slot"])
        order = np.lexsort(keys[::-1])
        new = np.ones(len(order), bool)
        new[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
        starts = np.flatnonzero(new)
        sums = {name: np.add.reduceat(joined[name][order], starts).tolist() for name in _SUMS}
        measured = measures.join({name: joined[name][order] for name in measures.COLUMNS}, starts)
        sums |= {name: values.tolist() for name, values in measured.items()}
        for at, first in enumerate(order[starts].tolist()):
            key = {"exporter": joined["exporter"][first].tobytes(), **{name: int(joined[name][first]) for name in _KEYS[1:]}}
            rows.append({**key, **{name: values[at] for name, values in sums.items()}})
    return rows + _refused_rows(refusals)


def _refused_rows(refusals: Sequence[Refusal]) -> list[dict[str, Any]]:
    """Datagrams that nobody decoded: their exporter is not known, their number is."""
    by_slot: dict[int, int] = {}
    for refusal in refusals:
        slot = refusal.received // SLOT_MS * SLOT_MS
        by_slot[slot] = by_slot.get(slot, 0) + refusal.datagrams
    key = {"exporter": NO_ADDRESS, "domain": 0, "export_protocol": 0}
    return [no_intake({**key, "slot": slot}, datagrams=n, refused=n) for slot, n in sorted(by_slot.items())]


def no_intake(key: dict[str, Any], **counts: int) -> dict[str, Any]:
    """A row of the table `intake` in which only these counts are not 0."""
    return {**key, **dict.fromkeys((*_SUMS, *measures.COLUMNS), 0), **counts}


def sum_faults(parts: Iterable[Sequence[tuple[bytes, int, FaultKind, int]]]) -> list[dict[str, Any]]:
    """Rows of the table `fault`."""
    sums: dict[tuple[bytes, int, FaultKind], int] = {}
    for part in parts:
        for exporter, domain, kind, count in part:
            sums[exporter, domain, kind] = sums.get((exporter, domain, kind), 0) + count
    return [{"exporter": exporter, "domain": domain, "kind": kind.label, "count": count}
            for (exporter, domain, kind), count in sorted(sums.items())]


class SlotSums:
    """Scaled octets by quarter hour of the flows that are added."""

    def __init__(self) -> None:
        self._keys, self._sums = np.full(1024, kernels.EMPTY, np.int64), np.zeros(1024, np.int64)
        self._used = 0

    def add(self, columns: Columns) -> None:
        state = np.array([0, kernels.EMPTY, self._used], np.int64)
        flows = _settled(columns, "start", "end", "octets", "rate_numerator", "rate_denominator")
        while kernels.sum_slots(*flows, self._keys, self._sums, state) == kernels.FULL:
            size = self._keys.size * 4
            bigger_keys, bigger_sums = np.full(size, kernels.EMPTY, np.int64), np.zeros(size, np.int64)
            kernels.move(self._keys, self._sums, bigger_keys, bigger_sums)
            self._keys, self._sums = bigger_keys, bigger_sums
        self._used = int(state[2])

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the table `segment_slot`."""
        used = np.flatnonzero(self._keys != kernels.EMPTY)
        order = used[np.argsort(self._keys[used])]
        return [{"slot": slot, "octets": octets}
                for slot, octets in zip(self._keys[order].tolist(), self._sums[order].tolist(), strict=True)]


def _settled(columns: Columns, *names: str) -> list[NDArray[Any]]:
    """Columns as kernels are compiled for: contiguous, aligned, writable."""
    return [np.require(columns[name], requirements=["C", "A", "W"]) for name in names]


def sum_slots(columns: Columns) -> list[dict[str, Any]]:
    """Rows of the table `segment_slot`: scaled octets by quarter hour of the flow."""
    sums = SlotSums()
    sums.add(columns)
    return sums.rows()


def port_block_rows(parts: Sequence[Columns]) -> list[dict[str, Any]]:
    """Rows of the table `port_block_event`, in the order in which they were received."""
    rows: list[dict[str, Any]] = []
    for part in parts:
        numbers = {name: column.tolist() for name, column in part.items() if column.ndim == 1}
        addresses = {name: [row.tobytes() for row in column] for name, column in part.items() if column.ndim == 2}
        names = (*addresses, *numbers)
        for values in zip(*addresses.values(), *numbers.values(), strict=True):
            row = dict(zip(names, values, strict=True))
            ports = {name: min(row[name], PORT_BEYOND) for name in ("port_first", "port_last", "port_step")}
            rows.append({**row, **ports, "protocol": row["protocol"] & 0xFF, "outcome": ""})
    return rows


PORT_BEYOND = 65_536
"""What a port number that is none is stored as."""


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
    from storage import sql

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
