"""The decode worker: a collector's journal → segments, each datagram exactly once.

Reads journal blocks behind the collector's `decoder_position`, decodes them from the state saved with it, writes segment
files, and then in one transaction registers them and moves the position. Killed at any moment, it begins again at the last
position and makes the same segments' rows; files that no row names are swept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from collector import quarantine, segments, totals
from collector.decoder import Decoder
from collector.kernels import twins
from collector.knowledge import Knowledge
from collector.settings import CollectorSettings, of_home
from collector.state import DecoderState, ExporterRow, Stranger
from core import clock, tables
from core.errors import DamagedFile
from runtime import log
from storage import files, sql
from storage.home import Home
from storage.journal import Block, Damage, JournalReader

ExporterKey = tuple[bytes, int, int]


@dataclass(frozen=True)
class Position:
    """Up to which block a collector is decoded, and the state after it."""

    block: int
    state: DecoderState | None
    datagrams: int = 0
    """Of the next block, decoded already: the collector was a member of a group."""


def settings_digest(settings: CollectorSettings) -> str:
    """What a segment records of the settings that it was decoded with."""
    return hashlib.sha256(repr(settings).encode()).hexdigest()


def exporter_rows(state: DecoderState) -> dict[ExporterKey, ExporterRow]:
    return {(row.exporter, row.domain, row.protocol): row for row in state.exporters()}


# position and state ---------------------------------------------------------------------------------------------------
def state_path(home: Home, collector: str, block: int) -> Path:
    return home.folder("run") / f"decoder-{collector}.{block:012d}.state"


def load_position(home: Home, engine: sa.Engine, collector: str) -> Position:
    """Where to go on. Raises DamagedFile if the saved state is not what was saved."""
    position = tables.decoder_position
    with sql.reading(engine) as connection:
        row = connection.execute(sa.select(position).where(position.c.collector == collector)).one_or_none()
    if row is None:
        return Position(-1, None)
    if row.state_path is None:
        return Position(row.block, None, row.datagrams)
    path = home.path / row.state_path
    sweep_states(home, collector, keep=path)
    return Position(row.block, DecoderState.from_bytes(files.verify(path, row.state_digest).read_bytes()))


def sweep_states(home: Home, collector: str, keep: Path | None = None) -> None:
    """Delete saved states of a collector that no position names."""
    for path in home.folder("run").glob(f"decoder-{collector}.*.state"):
        if path != keep:
            files.remove(path)


def save_state(home: Home, collector: str, block: int, state: DecoderState) -> tuple[str, str]:
    """Write the state that belongs to a position: (path below the home, digest)."""
    path = state_path(home, collector, block)
    return home.relative(path), files.write_whole(path, state.to_bytes())


def move_position(connection: sa.Connection, collector: str, block: int, state: tuple[str, str] | None,
                  datagrams: int = 0) -> None:
    """Set a collector's position, inside the transaction that registers what was decoded up to it; `datagrams` of the next
    block are decoded already."""
    position = tables.decoder_position
    path, digest = state or (None, None)
    connection.execute(position.delete().where(position.c.collector == collector))
    connection.execute(position.insert().values(collector=collector, block=block, state_path=path, state_digest=digest,
                                                datagrams=datagrams))


def write_exporters(connection: sa.Connection, collector: str, rows: Iterable[ExporterRow]) -> None:
    """Replace the cumulative counts of these exporters."""
    table = tables.exporter_state
    values = [{"collector": collector, "exporter": row.exporter, "domain": row.domain, "export_protocol": row.protocol,
               **{name: getattr(row, name) for name in EXPORTER_COUNTS}} for row in rows]
    if not values:
        return
    connection.execute(
        table.delete().where(table.c.collector == collector, table.c.exporter == sa.bindparam("e"),
                             table.c.domain == sa.bindparam("d"), table.c.export_protocol == sa.bindparam("p")),
        [{"e": row["exporter"], "d": row["domain"], "p": row["export_protocol"]} for row in values])
    connection.execute(table.insert(), values)


EXPORTER_SUMS = tuple(name for name in ExporterRow.__slots__ if name not in ("exporter", "domain", "protocol", "first", "last"))
EXPORTER_COUNTS = (*EXPORTER_SUMS, "first", "last")


def write_strangers(connection: sa.Connection, collector: str, rows: Iterable[Stranger]) -> None:
    """Replace a collector's list of unknown exporters."""
    table = tables.unknown_exporter
    connection.execute(table.delete().where(table.c.collector == collector))
    values = [{"collector": collector, "exporter": row.exporter, "datagrams": row.datagrams, "overcount": row.over,
               "first": row.first, "last": row.last} for row in rows]
    if values:
        connection.execute(table.insert(), values)


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


class Worker:
    """Decodes one collector's journal; the caller holds the collector's lock."""

    def __init__(self, home: Home, collector: str) -> None:
        """Raises DamagedFile if the saved state is damaged."""
        self._home, self._collector = home, collector
        self._engine = sql.engine(home)
        self._settings = of_home(home)
        position = load_position(home, self._engine, collector)
        swept = segments.sweep_orphans(home, self._engine, collector) + quarantine.sweep(home, self._engine, collector)
        if swept:
            log.info("decoder", "files of an interrupted run removed", collector=collector, files=swept)
        self._block = position.block
        self._decoded_before = position.datagrams
        self._decoder = Decoder(self._settings, position.state)
        self._known = exporter_rows(self._decoder.state)
        self._knowledge = Knowledge(collector)
        self._reader = JournalReader(home.folder("journal"), collector, position.block + 1)
        self._builder = segments.SegmentBuilder(home, collector, settings_digest(self._settings),
                                                self._settings.collector.compression, self._settings.collector.threads)
        self._strangers = self._decoder.state.strangers()
        self._quarantine = quarantine.Builder(collector, self._settings.collector.quarantine_octets_max)
        self._saved: Path | None = None
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

    @property
    def is_idle(self) -> bool:
        """Whether everything that was decoded is committed."""
        return self._builder.is_empty

    def pump(self, blocks_max: int = 256) -> int:
        """Decode blocks that are there; full segments are committed. Returns how many blocks were decoded."""
        count = 0
        for block in self._reader.blocks():
            self._take_damage()
            is_whole = self._feed(block)
            if block.head.refused and is_whole:
                self._builder.refuse(block.head.first_received, block.head.refused, block.head.number)
            if self._builder.is_full:
                self.commit()
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
        self._quarantine.add(decoded.held, block.head.number)
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
        """Store what was decoded since the last time. Raises RatemillError; then nothing of it counts."""
        if self._builder.is_empty:
            return
        began = clock.monotonic_ns()
        block, datagrams = self._builder.block_last, self._builder.datagrams
        segment = self._builder.write()
        held = self._quarantine.write(self._home)
        strangers = self._decoder.state.strangers()
        rows = exporter_rows(self._decoder.state)
        changed = [row for key, row in rows.items() if self._known.get(key) != row]
        state = save_state(self._home, self._collector, block, self._decoder.state)
        with sql.transaction(self._engine) as connection:
            version = segments.next_version(connection, clock.now_ms(), "segments", segment.path)
            segments.register(connection, [segment], version)
            write_exporters(connection, self._collector, changed)
            self._knowledge.write(connection, self._decoder.state)
            totals.add(connection, self._collector, segment.intake, segment.faults,
                       {(row.exporter, row.domain, row.protocol): row.missing - self._missing_before(row) for row in changed},
                       totals.skews(segment.intake))
            if strangers != self._strangers:
                write_strangers(connection, self._collector, strangers)
            dropped = quarantine.register(connection, held, self._settings.collector.quarantine_octets_max)
            move_position(connection, self._collector, block, state)
        quarantine.remove(self._home, dropped)
        self._known, self._strangers, self._block = rows, strangers, block
        self.decoded += datagrams
        self.flows += segment.row["flows"]
        self.segments += 1
        self.work.commits_ns = [*self.work.commits_ns, clock.monotonic_ns() - began][-COMMITS_MEASURED_MAX:]
        sweep_states(self._home, self._collector, keep=self._home.path / state[0])

    def _missing_before(self, row: ExporterRow) -> int:
        known = self._known.get((row.exporter, row.domain, row.protocol))
        return 0 if known is None else known.missing

    def close(self) -> None:
        """Let go of everything that is not committed."""
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
