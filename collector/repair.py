"""Segments whose files were lost, decoded again from the datagram journal, under the same names and with the same digests.

A segment's flows depend on all datagrams before it: templates, sampling rates, copies seen lately. The state of that time is
not kept, so the journal is decoded once more from its beginning, block by block as the worker did. Whether that gave what there
was is not a matter of belief: the content must have the digest that the row in SQL has, and so must the file, to the octet.
Only then is it put in place. That holds as well where the oldest journal files are gone and decoding begins in the middle:
it succeeds for segments that depend on nothing before, and is refused for others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from collector import interface_counters
from collector.columns import FlowColumns
from collector.decoder import VERSION, Decoded, Decoder
from collector.replay import WAITING_SECONDS
from collector.segment_builder import BATCH_FLOWS, SEGMENT_FLOWS_MAX, SegmentFile
from collector.segments import ContentDigest
from collector.settings import CollectorSettings, of_home
from collector.worker import settings_digest
from core import tables
from core.errors import DamagedFile
from storage import files, sql
from storage.home import Home
from storage.journal import JournalReader, oldest_block

SCRATCH = "segment-decoded-again"
"""Name of files in the making: longer than any collector's, whose worker deletes what begins with its own name."""
_COMPRESSIONS = ("lz4", None)


@dataclass(frozen=True)
class Again:
    """What came of one segment. `file` has a temporary name and the digest that it must have; None if it can't be had, then
    `why` and `do` say why and what to do, or if none was to be written."""

    row: Any
    file: Path | None
    why: str = ""
    do: str = ""

    @property
    def is_same(self) -> bool:
        return not self.why


def decode_again(home: Home, rows: Sequence[Any], *, store: bool = True) -> Iterator[Again]:
    """Decode segments (rows of the table `segment`) again, collector by collector, each once. Without `store` nothing is
    written: only whether the content is the same is found.

    The file of each is the caller's to place or to remove before the next one is asked for.
    """
    by_collector: dict[str, list[Any]] = {}
    for row in rows:
        by_collector.setdefault(row.collector, []).append(row)
    for collector, wanted in sorted(by_collector.items()):
        left = {row.id: row for row in wanted}
        try:
            yield from _of_collector(home, collector, left, store)
        except (DamagedFile, OSError) as error:
            why = error.message if isinstance(error, DamagedFile) else str(error)
            for row in left.values():
                yield Again(row, None, f"its journal can't be read: {why}",
                            "look at the kernel's log and repair again, or restore it from a backup")


def place(home: Home, again: Again) -> None:
    """Put the file of a segment in its place. Raises RatemillError; then it is as it was."""
    assert again.file is not None, "it was decoded again"
    path = home.path / again.row.path
    try:
        files.make_folder(path.parent)
        files.finish_whole(again.file, path)
    except OSError as error:
        raise files.explain(error, path) from error
    finally:
        files.remove(again.file)


def sweep(home: Home) -> int:
    """Delete what a killed repair left in the making; returns how many files. The caller is the only one that repairs."""
    found = list(home.folder("segments").glob(f".{SCRATCH}.*.tmp"))
    for path in found:
        files.remove(path)
    return len(found)


# decoding -------------------------------------------------------------------------------------------------------------
def _of_collector(home: Home, collector: str, wanted: dict[int, Any], store: bool) -> Iterator[Again]:
    """`wanted` by their ids; what was yielded is taken out."""
    known = _segments_of(home, collector)
    first = oldest_block(home.folder("journal"), collector) if known else None
    is_merged = _is_merged(home, collector)
    if first is not None and not is_merged:
        reachable = [row for row in known if row.block_last >= first]
        for again in _decoded(home, collector, reachable, dict(wanted), first, store):
            del wanted[again.row.id]
            yield again
    for row in list(wanted.values()):
        del wanted[row.id]
        if is_merged:
            why = f"it was decoded from the journals of the group '{collector}', merged as they grew: that can't be done again"
        elif first is None:
            why = f"the journal of '{collector}' is gone"
        elif row.block_last is None or row.block_last < first:
            why = f"its blocks {row.block_first} to {row.block_last} of the journal are gone, which begins with {first}"
        else:
            raise AssertionError("what the journal reaches was decoded")
        yield Again(row, None, why, "restore it from a backup")


def _segments_of(home: Home, collector: str) -> list[Any]:
    """All segments of a collector that come from a journal, in its order."""
    segment = tables.segment
    with sql.reading(sql.engine(home)) as connection:
        return list(connection.execute(
            sa.select(segment).where(segment.c.collector == collector, segment.c.block_last.is_not(None))
            .order_by(segment.c.block_last, segment.c.block_first, segment.c.id)))


def _is_merged(home: Home, collector: str) -> bool:
    """Whether it is a group's name, whose journals are its members'."""
    source, segment = tables.segment_source, tables.segment
    query = (sa.select(source.c.segment_id).join(segment, segment.c.id == source.c.segment_id)
             .where(segment.c.collector == collector).limit(1))
    with sql.reading(sql.engine(home)) as connection:
        return connection.execute(query).first() is not None


def _decoded(home: Home, collector: str, known: list[Any], wanted: dict[int, Any], first: int, store: bool) -> Iterator[Again]:
    """The wanted ones among the known segments, decoded from block `first` on."""
    settings, is_replay = of_home(home), collector.startswith("replay-")
    if is_replay:  # as `collector.replay` does
        settings = replace(settings, collector=replace(settings.collector, waiting_seconds_max=WAITING_SECONDS))
    until = 1 + max((at for at, row in enumerate(known) if row.id in wanted), default=-1)
    if not until:
        return
    # What still waits at the end of a capture was read behind its last block, not block by block.
    is_behind = is_replay and until == len(known)
    known = known[:until]
    decoder, reader = Decoder(settings), JournalReader(home.folder("journal"), collector, first, one_at_a_time=True)
    left = iter(known)
    copy = _Copy(home, next(left), wanted, settings, store)
    last = known[-1].block_last
    try:
        for block in reader.blocks():
            number = block.head.number
            while number > copy.row.block_last:
                yield from copy.finish(reader, first)
                copy = _Copy(home, next(left), wanted, settings, store)
            copy.add(decoder.feed(block.body, number, copy.columns))
            if not is_replay:
                copy.add_all(decoder.rest(number, copy.columns))
            if number >= last:
                break
        if is_behind:
            while copy.row.id != known[-1].id:  # it was full; what the last block had set free came into another
                yield from copy.finish(reader, first)
                copy = _Copy(home, next(left), wanted, settings, store)
            for more in decoder.rest(last, copy.columns):
                copy.add(more)
        yield from copy.finish(reader, first)
        for following in left:
            copy = _Copy(home, following, wanted, settings, store)
            yield from copy.finish(reader, first)
    finally:
        copy.abandon()
        reader.close()


class _Copy:
    """One segment as it is decoded again; its flows are kept only if it is wanted."""

    def __init__(self, home: Home, row: Any, wanted: dict[int, Any], settings: CollectorSettings, store: bool) -> None:
        self.row, self._home, self._settings = row, home, settings
        self.columns = FlowColumns(BATCH_FLOWS)
        self._is_wanted = row.id in wanted
        self._content = ContentDigest()
        compression = settings.collector.compression
        self._compression = None if compression == "none" else compression
        self._file = SegmentFile(home, SCRATCH, self._compression) if self._is_wanted and store else None
        self._flows = self._readings = 0

    @property
    def is_full(self) -> bool:
        """As `SegmentBuilder.is_full`: how much of what was set free goes into a segment depends on it."""
        return (self._flows + self.columns.used >= SEGMENT_FLOWS_MAX
                or self._readings >= interface_counters.SEGMENT_READINGS_MAX)

    def add(self, decoded: Decoded) -> None:
        self._readings += interface_counters.count(decoded.interface_counters)
        if self.columns.used >= BATCH_FLOWS:
            self._store()

    def add_all(self, rest: Iterator[Decoded]) -> None:
        """What a block has set free, as far as there is room; the remainder comes with the next blocks."""
        for more in rest:
            self.add(more)
            if self.is_full:
                break

    def _store(self) -> None:
        self._flows += self.columns.used
        if self._is_wanted:
            rows = self.columns.rows()
            self._content.add(rows)
            if self._file is not None:
                self._file.write(rows)
        self.columns.clear()

    def finish(self, reader: JournalReader, first: int) -> Iterator[Again]:
        """What came of it, if it is wanted."""
        if not self._is_wanted:
            return
        self._store()
        if self._content.hexdigest() != self.row.content_digest:
            self.abandon()
            yield Again(self.row, None, *self._difference(reader, first))
            return
        if self._file is None:
            yield Again(self.row, None)
            return
        finished = files.temporary_name(self._home.folder("segments") / SCRATCH)
        digest, _, _ = self._file.finish(finished)
        self._file = None
        if digest != self.row.digest:
            finished, digest = self._compressed_otherwise(finished)
        if digest != self.row.digest:
            files.remove(finished)
            yield Again(self.row, None, "the flows are the same, but this version writes them into another file",
                        "repair it with the version that wrote it, or restore it from a backup")
            return
        try:
            yield Again(self.row, finished)
        finally:
            files.remove(finished)

    def _compressed_otherwise(self, path: Path) -> tuple[Path, str]:
        """The same batches as `[collector] compression` was, if it has been changed since; `path` is removed."""
        compression = next(one for one in _COMPRESSIONS if one != self._compression)
        sink = files.HashingWriter(files.temporary_name(self._home.folder("segments") / SCRATCH))
        try:
            with pa.memory_map(str(path)) as source:
                batches = pa.ipc.open_file(source)
                with pa.ipc.new_file(pa.PythonFile(sink, mode="w"), batches.schema,
                                     options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
                    for number in range(batches.num_record_batches):
                        writer.write_batch(batches.get_batch(number))
            finished = files.temporary_name(self._home.folder("segments") / SCRATCH)
            return finished, sink.finish(finished)
        except OSError as error:
            raise files.explain(error, sink.path) from error
        finally:
            sink.abandon()
            files.remove(path)

    def _difference(self, reader: JournalReader, first: int) -> tuple[str, str]:
        """Why its content is not what it was, as far as that can be known, and what to do."""
        row, backup = self.row, "or restore it from a backup"
        damage = next((one for one in reader.damage if one.block <= row.block_last), None)
        if damage is not None:
            return (f"the journal is damaged, too: {damage.path.name} at {damage.offset}, block {damage.block} "
                    f"({damage.blocks} in all)", "restore it from a backup")
        if reader.next_block <= row.block_last:
            return (f"the journal ends at block {reader.next_block - 1}, its blocks are {row.block_first} to {row.block_last}",
                    "restore it from a backup")
        if row.decoder_version != VERSION:
            return (f"it was decoded by version {row.decoder_version} of the decoder; version {VERSION} gives other flows",
                    f"repair it with the release that decoded it, {backup}")
        if row.settings_digest != settings_digest(self._settings):
            return ("decoded with the settings of now, it has other flows: [collector], [sampling], [[exporter]] or what "
                    "belongs to them was changed", f"put them back into a copy of ratemill.toml and repair then, {backup}")
        if first > 0:
            return (f"the journal begins with block {first}: templates, sampling rates or copies from before it are missing",
                    "restore it from a backup")
        return ("decoded again, its flows are others", f"if it is of a replay, do the replay again into a new home, {backup}")

    def abandon(self) -> None:
        """Forget it."""
        if self._file is not None:
            self._file.abandon()
            self._file = None


