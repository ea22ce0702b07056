"""The decode worker: a collector's journal → segments, each datagram exactly once.

Reads journal blocks behind the collector's `decoder_position`, decodes them from the state saved with it, writes segment
files, and then in one transaction registers them and moves the position. Killed at any moment, it begins again at the last
position and makes the same segments' rows; files that no row names are swept.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from collector import positions, quarantine, segments
from collector.commits import Committer, Moment
from collector.decoder import Decoder
from collector.kernels import twins
from collector.segment_builder import SegmentBuilder
from collector.settings import CollectorSettings, of_home
from core import clock
from core.errors import DamagedFile
from runtime import log
from storage import sql
from storage.home import Home
from storage.journal import Block, Damage, JournalReader


def settings_digest(settings: CollectorSettings) -> str:
    """What a segment records of the settings that it was decoded with."""
    return hashlib.sha256(repr(settings).encode()).hexdigest()


# worker ---------------------------------------------------------------------------------------------------------------
COMMITS_MEASURED_MAX = 1024
"""Durations of commits that are kept for somebody to take."""


@dataclass
class Work:
    """What a worker did, whether it was committed or has to be done again."""

    blocks: int = 0
    datagrams: int = 0
    flows: int = 0
    decode_ns: int = 0
    commits_ns: list[int] = field(default_factory=list)

    def taken(self) -> Work:
        """What was done since this was last asked."""
        done = Work(self.blocks, self.datagrams, self.flows, self.decode_ns, self.commits_ns)
        self.blocks = self.datagrams = self.flows = self.decode_ns = 0
        self.commits_ns = []
        return done


@dataclass(frozen=True)
class Done:
    """A segment that is committed."""

    block: int
    datagrams: int
    flows: int
    took_ns: int


class Worker:
    """Decodes one collector's journal; the caller holds the collector's lock."""

    def __init__(self, home: Home, collector: str) -> None:
        """Raises DamagedFile if the saved state is damaged."""
        self._home, self._collector = home, collector
        self._engine = sql.engine(home)
        self._settings = of_home(home)
        position = positions.load_position(home, self._engine, collector)
        swept = segments.sweep_orphans(home, self._engine, collector) + quarantine.sweep(home, self._engine, collector)
        if swept:
            log.info("decoder", "files of an interrupted run removed", collector=collector, files=swept)
        self._block = position.block
        self._decoded_before = position.datagrams
        self._decoder = Decoder(self._settings, position.state)
        self._reader = JournalReader(home.folder("journal"), collector, position.block + 1, one_at_a_time=True)
        self._builder = SegmentBuilder(home, collector, settings_digest(self._settings), self._settings.collector.compression,
                                       self._settings.collector.threads)
        self._committer = Committer(home, self._engine, collector, self._settings, self._decoder)
        self._thread = ThreadPoolExecutor(1, "commit") if self._builder.has_thread else None
        self._committing: Future[Done] | None = None
        self._named = 0
        self.decoded = 0
        """Datagrams of committed segments since this worker began, whatever became of them."""
        self.flows = 0
        self.segments = 0
        self.work = Work()

    @property
    def block(self) -> int:
        """The last block that is committed."""
        return self._block

    def pump(self, blocks_max: int = 256) -> int:
        """Decode blocks that are there; full segments are committed, perhaps by a thread that is not waited for. Returns how
        many blocks were decoded. Raises RatemillError; then this worker is to be closed, and another to begin."""
        count = 0
        if self._committing is not None and self._committing.done():
            self._settle()
        for block in self._reader.blocks():
            self._take_damage()
            is_whole = self._feed(block)
            if block.head.refused and is_whole:
                self._builder.refuse(block.head.first_received, block.head.refused, block.head.number)
            if self._builder.is_full:
                self._begin_commit()
            count += 1
            if count >= blocks_max:
                break
        return count

    def _feed(self, block: Block) -> bool:
        """Decode a block; False if the group that this collector was a member of had begun it, and only the rest is ours."""
        began = clock.monotonic_ns()
        body, is_whole = block.body, not self._decoded_before
        if not is_whole:
            body, self._decoded_before = body_behind(body, self._decoded_before), 0
        decoded = self._decoder.feed(body, block.head.number, self._builder.columns)
        self._builder.add(decoded, block.head.number)
        self._committer.held.add(decoded.held, block.head.number)
        self._builder.dropped(block.head.last_received, block.head.kernel_drops)
        self.work.blocks += 1
        self.work.datagrams += decoded.counts.datagrams
        self.work.flows += decoded.counts.flows
        for more in self._decoder.rest(block.head.number, self._builder.columns):
            self._builder.add(more, block.head.number)
            self.work.flows += more.counts.flows
            if self._builder.is_full:
                break  # the remainder comes with the next blocks
        self.work.decode_ns += clock.monotonic_ns() - began
        return is_whole

    def _take_damage(self) -> None:
        """What can't be read is named in the log, and its datagrams are losses by name as far as their number is known."""
        for damage in self._reader.damage[self._named :]:
            log.error("decoder", str(damage), collector=self._collector,
                      datagrams=damage.head.datagrams if damage.head else None)
            self._refuse(damage)
        self._named = len(self._reader.damage)

    def _refuse(self, damage: Damage) -> None:
        if damage.head is not None:
            self._builder.refuse(damage.head.first_received, damage.head.datagrams + damage.head.refused, damage.block)

    def commit(self) -> None:
        """Store what was decoded since the last time. Raises RatemillError; then nothing of it counts, and this worker is to
        be closed."""
        self._begin_commit()
        self._settle()

    def _begin_commit(self) -> None:
        self._settle()  # a segment counts when all before it do
        if self._builder.is_empty:
            return
        moment = self._committer.seal(self._builder)
        if self._thread is None:
            self._count(self._write(moment))
        else:
            self._committing = self._thread.submit(self._write, moment)

    def _write(self, moment: Moment) -> Done:
        began = clock.monotonic_ns()
        segment = self._committer.write(
            moment, lambda connection, _, state: positions.move_position(connection, self._collector, moment.block, state))
        return Done(moment.block, moment.datagrams, int(segment.row["flows"]), clock.monotonic_ns() - began)

    def _settle(self) -> None:
        """Until the segment that is being committed counts. Raises RatemillError."""
        if self._committing is not None:
            committing, self._committing = self._committing, None
            self._count(committing.result())

    def _count(self, done: Done) -> None:
        self._block = done.block
        self.decoded += done.datagrams
        self.flows += done.flows
        self.segments += 1
        self.work.commits_ns = [*self.work.commits_ns, done.took_ns][-COMMITS_MEASURED_MAX:]

    def close(self) -> None:
        """Let go of everything that is not committed; what is being committed may still be."""
        if self._thread is not None:
            self._thread.shutdown()
        self._reader.close()
        self._builder.abandon()


def body_behind(body: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """A block's body without its first entries."""
    start = twins.skip(np.ascontiguousarray(body).view(np.uint64), len(body), count)
    return body[start:] if start >= 0 else body[:0]


def decode_available(home: Home, collector: str, until_idle: bool = True) -> int:
    """Decode what a collector's journal holds now (one pass, or until nothing more comes) and commit it.

    Returns the number of datagrams. The caller holds the collector's lock. Raises RatemillError.
    """
    worker = Worker(home, collector)
    try:
        while worker.pump() and until_idle:
            pass
        worker.commit()
        return worker.decoded
    finally:
        worker.close()


def decoded_until(home: Home, collector: str, block: int) -> tuple[int, int]:
    """(datagrams in blocks up to `block`, datagrams behind it) of the journal that is kept. Raises DamagedFile."""
    before = behind = 0
    reader = JournalReader(home.folder("journal"), collector, 0)
    try:
        for found in reader.blocks(with_bodies=False):
            if found.head.number <= block:
                before += found.head.datagrams
            else:
                behind += found.head.datagrams
    except DamagedFile:
        pass  # the decoder names it; these are figures for people
    finally:
        reader.close()
    return before, behind
