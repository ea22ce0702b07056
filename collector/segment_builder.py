"""Segments in the making: what the decoder gives, block by block, until it is enough for a file.

Flows go out to the file by the batch. With a second thread one batch is stored while the caller decodes the next one, and a
segment is finished while the caller has begun the one after it; nothing else is different.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa

from collector import interface_counters, sums, unrated
from collector.columns import FlowColumns
from collector.decoder import VERSION, Decoded
from collector.segments import ContentDigest, Segment
from collector.sums import Columns, Refusal
from core.periods import SLOT_MS
from runtime.processes import processors
from storage import files, flow_files
from storage.home import Home

SEGMENT_FLOWS_MAX = 1_000_000
"""A segment is closed when it has so many flows; a block is never divided."""
BATCH_FLOWS = 1 << 16
"""Flows of a batch of the file: small enough to be still in the processor's cache when they are written."""
BATCHES_MAX = 3
"""Batches in memory with a second thread: one being filled, one being stored, and one that evens out their paces."""
_NOTHING_HELD = np.zeros(0, np.uint8)


class SegmentBuilder:
    """Makes one segment after the other. Errors of the disk come out of the call that needs what failed."""

    def __init__(self, home: Home, collector: str, settings_digest: str, compression: str = "lz4", threads: int = 1) -> None:
        """`threads`: as many as there are processors for, too: on a single one they would only take turns."""
        self._about = (home, collector, settings_digest, None if compression == "none" else compression)
        self.columns = FlowColumns(BATCH_FLOWS)
        """Where the decoder puts the flows of the blocks that are added next; others after each `add`."""
        self.has_thread = min(threads, processors()) > 1
        self._thread: ThreadPoolExecutor | None = None
        self._storing: deque[tuple[Future[None], FlowColumns]] = deque()
        """Batches on the way to their files, and where they lie until then."""
        self._drops_last = 0
        self._begun = Unfinished(*self._about)

    @property
    def datagrams(self) -> int:
        return self._begun.datagrams

    @property
    def block_last(self) -> int:
        return self._begun.block_last

    @property
    def is_empty(self) -> bool:
        return self._begun.block_first is None

    @property
    def is_full(self) -> bool:
        flows = self._begun.flows + self.columns.used
        return flows >= SEGMENT_FLOWS_MAX or self._begun.readings >= interface_counters.SEGMENT_READINGS_MAX

    def dropped(self, received: int, total: int) -> None:
        """Note what the kernel had dropped in all when a block was written."""
        if total != self._drops_last:
            self._drops_last = total
            self._begun.drops[received // SLOT_MS * SLOT_MS] = total

    def add(self, decoded: Decoded, block: int) -> None:
        """Take what a block gave; its flows are in `columns`. Raises RatemillError if the disk can't take a batch."""
        self._begun.add(decoded, block)
        if self.columns.used >= BATCH_FLOWS:
            self._store()

    def refuse(self, received: int, datagrams: int, block: int) -> None:
        """Note datagrams that no block holds, but that were received."""
        self._begun.refuse(received, datagrams, block)

    def _store(self) -> None:
        """Move the flows from memory into the file, or have it done. Raises RatemillError, perhaps of the batch before."""
        full = self.columns
        self._begun.flows += full.used
        if not self.has_thread:
            self._begun.put(full)
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "store")
        is_behind = len(self._storing) == BATCHES_MAX - 1 and not self._storing[0][0].done()
        if is_behind:  # rather than wait for the other thread, take some of its work
            self._begun.survey(full)
        self._begun.stored = self._thread.submit(self._begun.put, full, is_behind)
        self._storing.append((self._begun.stored, full))
        if len(self._storing) < BATCHES_MAX:
            self.columns = FlowColumns(BATCH_FLOWS)
        else:
            stored, self.columns = self._storing.popleft()
            stored.result()

    def seal(self) -> Unfinished:
        """What was added since the last time, to be finished by whoever wants; then begin anew. Raises RatemillError."""
        assert not self.is_empty, "a segment has blocks"
        self._store()
        sealed, self._begun = self._begun, Unfinished(*self._about)
        return sealed

    def write(self) -> Segment:
        """Finish the file and begin anew. Raises RatemillError; what was added is lost then, and must be decoded again."""
        return self.seal().finish()

    def abandon(self) -> None:
        """Forget what was added."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        self._storing.clear()
        self._begun.abandon()
        self.columns.clear()
        self._begun = Unfinished(*self._about)


class Unfinished:
    """One segment that is being made."""

    def __init__(self, home: Home, collector: str, settings_digest: str, compression: str | None) -> None:
        self._home, self._collector, self._settings_digest = home, collector, settings_digest
        self._compression = compression
        self._file: SegmentFile | None = None
        self._survey = sums.Survey()
        self._lock = Lock()
        self._unrated = unrated.UnratedFlows()
        self._parts: list[Decoded] = []
        self._refusals: list[Refusal] = []
        self.drops: dict[int, int] = {}
        self.flows = 0
        """In the file, or on the way there."""
        self.stored: Future[None] | None = None
        """The last batch that is on the way."""
        self.readings = 0
        self.datagrams = 0
        self.block_first: int | None = None
        self.block_last = -1

    def add(self, decoded: Decoded, block: int) -> None:
        self.block_first = block if self.block_first is None else self.block_first
        self.block_last = block
        self._parts.append(replace(decoded, flows={}, held=_NOTHING_HELD))
        self.readings += interface_counters.count(decoded.interface_counters)
        self.datagrams += decoded.counts.datagrams

    def refuse(self, received: int, datagrams: int, block: int) -> None:
        self.block_first = block if self.block_first is None else self.block_first
        self.block_last = max(self.block_last, block)
        self._refusals.append(Refusal(received, datagrams))

    def put(self, columns: FlowColumns, is_surveyed: bool = False) -> None:
        """Store a batch and empty it. Raises RatemillError; then the file is gone."""
        if self._file is None:
            self._file = SegmentFile(self._home, self._collector, self._compression)
        if not is_surveyed:
            self.survey(columns)
        self._file.write(columns.rows())
        columns.clear()

    def survey(self, columns: FlowColumns) -> None:
        """Add a batch to the sums; in any order, by any thread."""
        rows = columns.rows()
        with self._lock:
            self._survey.add(rows)
            self._unrated.add(rows)

    def finish(self) -> Segment:
        """The segment with its file, once all batches are in it. Raises RatemillError; then the file is gone."""
        if self.stored is not None:
            self.stored.result()
        assert self.block_first is not None, "a segment has blocks"
        assert self._file is not None, "flows are stored"
        intake = sums.sum_intake([part.intake for part in self._parts], self._refusals)
        extent = self._survey.extent()
        day = _day_of(extent["received_first"], intake)
        name = f"{self._collector}-{self.block_first:012d}-{self.block_last:012d}.arrow"
        path = self._home.folder("segments") / day.strftime("%Y/%m/%d") / name
        digest, content, size = self._file.finish(path)
        row = {
            "collector": self._collector, "path": self._home.relative(path), "digest": digest, "content_digest": content,
            "octets_size": size, "flows": self.flows, **extent, "block_first": self.block_first,
            "block_last": self.block_last, "decoder_version": VERSION, "settings_digest": self._settings_digest,
        }
        counters = interface_counters.newest_of_minutes(part.interface_counters for part in self._parts)
        return Segment(
            self._home.relative(path), row, intake, sums.sum_faults(part.faults for part in self._parts), self._survey.slots(),
            self._survey.readings(), self.drops, interface_counters.to_rows(counters), self._unrated.rows(),
            [rate for part in self._parts for rate in part.rates],
            sums.port_block_rows([part.port_blocks for part in self._parts]))

    def abandon(self) -> None:
        """Forget it; nothing of it is on the way any more."""
        if self._file is not None:
            self._file.abandon()


class SegmentFile:
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
            count = len(rows["received"])
            pieces = max(count // BATCH_FLOWS, 1)  # of about one size, for each costs the same, however small
            for piece in range(pieces):
                part = slice(count * piece // pieces, count * (piece + 1) // pieces)
                batch = {name: values[part] for name, values in rows.items()}
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


def _day_of(first: int | None, intake: Sequence[dict[str, Any]]) -> datetime:
    """The UTC day in whose folder a segment lies: that of its first arrival."""
    if first is None:
        first = min((row["slot"] for row in intake), default=0)
    day = datetime(1970, 1, 1, tzinfo=UTC)
    try:
        return day + timedelta(milliseconds=first)
    except OverflowError:  # an export time that no calendar has
        return day
