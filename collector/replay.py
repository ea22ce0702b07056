"""Replay: capture files → datagram journal → segments, with a decoder state of its own, all or nothing.

The files of one command are one session. Each file counts once (its SHA-256 is in `replayed_file`); a file that is skipped
still teaches its templates and samplers. Journal and segment files are written under an id of this replay; one transaction
at the end makes them count, so a replay that was killed left nothing, and the same command gives what it would have given.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from collector import commits, positions, quarantine, segments, worker
from collector.captures import Batch, Capture, Source, read_capture
from collector.decoder import Decoded, Decoder
from collector.knowledge import Knowledge
from collector.layout import STRANGERS_MAX
from collector.segment_builder import SegmentBuilder
from collector.settings import of_home
from collector.state import ExporterRow, Stranger
from core import clock, tables
from core.actor import Actor
from core.errors import RatemillError
from runtime import progress
from runtime.locks import only_one
from security import audit
from storage import files, space, sql
from storage.home import Home
from storage.journal import HEADER_SIZE, BlockHead, JournalWriter, remove_collector

STATE_ID = "replay"
"""The collector under which the home's own replay state (`--continue`) and the exporters' counts of all replays lie."""


WAITING_SECONDS = 10**9
"""How long data of a capture waits for its template: longer than any capture."""


@dataclass(frozen=True)
class Request:
    """What one command asks for."""

    files: Sequence[Path]
    source: Source = Source()
    ports: tuple[int, ...] = ()
    continues: bool = False
    again: bool = False
    dry_run: bool = False


@dataclass
class Summary:
    """What one command did. `failures` are files that could not be opened: (file, why)."""

    datagrams: int = 0
    templates: int = 0
    options_templates: int = 0
    data_records: int = 0
    options_records: int = 0
    flows: int = 0
    octets: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    waiting: int = 0
    not_a_flow: int = 0
    counter_samples: int = 0
    drop_samples: int = 0
    skipped: list[str] = field(default_factory=list)
    failures: list[tuple[str, RatemillError]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    _ADDED = ("datagrams", "templates", "options_templates", "options_records", "data_records", "flows", "octets",
              "not_a_flow", "counter_samples", "drop_samples")

    def add(self, decoded: Decoded) -> None:
        for name in self._ADDED:
            setattr(self, name, getattr(self, name) + getattr(decoded.counts, name))
        for _, _, kind, count in decoded.faults:
            self.faults[kind.label] += count

    def document(self) -> dict[str, Any]:
        """The object that the command prints."""
        names = ("datagrams", "templates", "options_templates", "data_records", "options_records", "flows", "octets")
        return {
            **{name: getattr(self, name) for name in names}, "faults": dict(sorted(self.faults.items())),
            "waiting": self.waiting, "not_a_flow": self.not_a_flow, "counter_samples": self.counter_samples,
            "drop_samples": self.drop_samples, "skipped": self.skipped, "failed": [name for name, _ in self.failures],
        }


@dataclass(frozen=True)
class _File:
    path: Path
    digest: str
    size: int
    is_new: bool


def replay_files(home: Home, request: Request, actor: Actor) -> Summary:
    """Do it. Raises RatemillError if no file can be opened, Locked while another replay goes on."""
    summary = Summary()
    opened = _open_all(request, summary)
    if request.dry_run:
        return _Session(home, request, _choose(home, request, opened, summary), summary).rehearse()
    with only_one(home, "replay", "a replay into this home"):
        return _Session(home, request, _choose(home, request, opened, summary), summary).store(actor)


def _open_all(request: Request, summary: Summary) -> list[tuple[Path, str, int]]:
    """Path, digest and size of every file that can be opened; the others are failures."""
    opened = []
    for path in request.files:
        try:
            if path.is_dir():
                raise IsADirectoryError(21, "it is a folder")
            opened.append((path, files.digest_of(path), path.stat().st_size))
        except OSError as error:
            reason = error.strerror or str(error)
            summary.failures.append((str(path), RatemillError(f"{path} can't be opened: {reason}")))
    if not opened:
        first = summary.failures[0][1] if summary.failures else RatemillError("no file is named")
        more = f" (and {len(summary.failures) - 1} more)" if len(summary.failures) > 1 else ""
        raise RatemillError(first.message + more, "check the names and the modes of the files")
    return opened


def _choose(home: Home, request: Request, opened: list[tuple[Path, str, int]], summary: Summary) -> list[_File]:
    """Which files count; one that was replayed before does not, unless --again."""
    with sql.reading(sql.engine(home)) as connection:
        known = _replayed(connection, [digest for _, digest, _ in opened])
    chosen, seen = [], set(known)
    for path, digest, size in opened:
        is_new = request.again or digest not in seen
        seen.add(digest)
        if not is_new:
            summary.skipped.append(str(path))
        chosen.append(_File(path, digest, size, is_new))
    return chosen


def _replayed(connection: sa.Connection, digests: Sequence[str]) -> Counter[str]:
    """How often each file was replayed."""
    table = tables.replayed_file
    found: Counter[str] = Counter()
    for first in range(0, len(digests), 500):
        some = sa.select(table.c.digest).where(table.c.digest.in_(digests[first : first + 500]))
        found.update(connection.scalars(some))
    return found


class _Session:
    """One decoder over the files of one command."""

    def __init__(self, home: Home, request: Request, chosen: list[_File], summary: Summary) -> None:
        self._home, self._request, self._chosen, self._summary = home, request, chosen, summary
        self._engine = sql.engine(home)
        settings = of_home(home)
        # A capture may span weeks: what waits in it is bounded by octets alone, and is still waiting at its end.
        settings = replace(settings, collector=replace(settings.collector, waiting_seconds_max=WAITING_SECONDS))
        position = positions.load_position(home, self._engine, STATE_ID) if request.continues else positions.Position(-1, None)
        self._round = position.block + 1
        self._decoder = Decoder(settings, position.state)
        self._decoder.state.take_strangers()  # those of earlier replays are counted
        self._known = commits.exporter_rows(self._decoder.state)
        self._gained: dict[commits.ExporterKey, ExporterRow] = {}
        self._id = self._name()
        self._builder = SegmentBuilder(home, self._id, worker.settings_digest(settings),
                                                settings.collector.compression, settings.collector.threads)
        self._written: list[segments.Segment] = []
        self._quarantine = quarantine.Builder(self._id, settings.collector.quarantine_octets_max)
        self._quarantine_max = settings.collector.quarantine_octets_max
        self._held: list[quarantine.Held] = []
        self._strangers: dict[bytes, Stranger] = {}
        self._writer: JournalWriter | None = None
        self._block = 0

    def _name(self) -> str:
        """The same for the same command at the same state of the home: a killed replay is taken up under its own name."""
        new = [file.digest for file in self._chosen if file.is_new]
        with sql.reading(self._engine) as connection:
            times = _replayed(connection, new)
        request = self._request
        text = repr((new, sorted(times.items()), request.source, request.ports, request.continues))
        return "replay-" + hashlib.sha256(text.encode()).hexdigest()[:9]

    # doing ------------------------------------------------------------------------------------------------------------
    def rehearse(self) -> Summary:
        """Decode everything, store nothing."""
        self._feed_all(store=False)
        self._summary.waiting = self._decoder.state.waiting
        return self._summary

    def store(self, actor: Actor) -> Summary:
        if not any(file.is_new for file in self._chosen):
            return self._summary
        journal = self._home.folder("journal")
        self._discard()  # what a killed run of the same command left
        self._writer = JournalWriter(journal, self._id)
        committed = False
        try:
            self._feed_all(store=True)
            if not self._builder.is_empty:
                self._write()
            self._writer.close()
            self._summary.waiting = self._decoder.state.waiting
            self._commit(actor)
            committed = True
        finally:
            if not committed:
                self._discard()
        return self._summary

    def _discard(self) -> None:
        if self._writer is not None:
            self._writer.abandon()
        self._builder.abandon()
        remove_collector(self._home.folder("journal"), self._id)
        segments.sweep_orphans(self._home, self._engine, self._id)
        quarantine.sweep(self._home, self._engine, self._id)

    def _feed_all(self, store: bool) -> None:
        sizes = sum(file.size for file in self._chosen)
        with progress.bar("replaying", sizes, "octets") as advance:
            for file in self._chosen:
                try:
                    self._feed(file, store and file.is_new)
                except RatemillError as error:
                    if not isinstance(error, _Unreadable):
                        raise
                    self._summary.failures.append((str(file.path), error))
                advance(file.size)
        if len(self._summary.failures) >= len(self._request.files):
            raise self._summary.failures[0][1]

    def _feed(self, file: _File, store: bool) -> None:
        capture = Capture(file.path)
        if not file.is_new:
            self._settle()
        batches = read_capture(capture, self._request.source, self._request.ports)
        for batch in _readable(batches):
            kept = store and file.is_new
            decoded = self._decoder.feed(batch.framed[HEADER_SIZE:], self._block, self._builder.columns if kept else None)
            if not file.is_new:
                continue
            self._summary.add(decoded)
            if store:
                self._keep(batch, decoded)
            self._block += 1
        if not file.is_new:
            self._decoder.state.forget_counts()
            self._known = {}
            return
        self._release(store)
        self._summary.notes += capture.notes
        if capture.fragments_lost:
            self._summary.faults["fragment_lost"] += capture.fragments_lost

    def _release(self, store: bool) -> None:
        """Read what still waits although its template has come."""
        for decoded in self._decoder.rest(self._block, self._builder.columns if store else None):
            self._summary.add(decoded)
            if store:
                assert self._writer is not None, "a replay that stores has a journal"
                self._builder.add(decoded, self._writer.next_block - 1)

    def _keep(self, batch: Batch, decoded: Decoded) -> None:
        assert self._writer is not None, "a replay that stores has a journal"
        space.require(self._home.folder("journal"), self._home.document, "`collect replay`")
        head = BlockHead(self._writer.next_block, batch.datagrams, batch.first_received, batch.last_received)
        self._writer.append(head, batch.framed)
        self._builder.add(decoded, head.number)
        self._quarantine.add(decoded.held, head.number)
        if self._builder.is_full:
            self._write()

    def _write(self) -> None:
        """Close a segment, and what was kept in quarantine along with it."""
        self._written.append(self._builder.write())
        held = self._quarantine.write(self._home)
        if held is not None:
            self._held.append(held)

    # counting ---------------------------------------------------------------------------------------------------------
    def _settle(self) -> None:
        """Note what the exporters' counts gained since the last time, before the decoder forgets them."""
        rows = commits.exporter_rows(self._decoder.state)
        for key, row in rows.items():
            gained = _difference(row, self._known.get(key))
            if any(getattr(gained, name) for name in commits.EXPORTER_SUMS):
                self._gained[key] = _added(self._gained.get(key), gained)
        self._known = rows
        for stranger in self._decoder.state.take_strangers():
            self._strangers[stranger.exporter] = stranger.with_more(self._strangers.get(stranger.exporter))

    def _commit(self, actor: Actor) -> None:
        self._settle()
        state = None
        if self._request.continues:
            state = positions.save_state(self._home, STATE_ID, self._round, self._decoder.state.to_bytes())
        knowledge = Knowledge(STATE_ID, is_all=False).changes(self._decoder.state)
        now = clock.now_ms()
        replayed = [file for file in self._chosen if file.is_new]
        unread = {name for name, _ in self._summary.failures}
        with sql.transaction(self._engine) as connection:
            version = segments.next_version(connection, now, "replay", self._id)
            segments.register(connection, self._written, version)
            positions.move_position(connection, self._id, self._block - 1, None)
            if state is not None:
                positions.move_position(connection, STATE_ID, self._round, state)
            self._add_exporters(connection)
            if knowledge is not None:
                knowledge.write(connection)
            self._add_strangers(connection)
            dropped = [path for held in self._held
                       for path in quarantine.register(connection, held, self._quarantine_max)]
            for file in replayed:
                if str(file.path) not in unread:
                    connection.execute(tables.replayed_file.insert().values(
                        digest=file.digest, name=file.path.name, collector=self._id, at=now))
            audit.record(connection, actor, "collect replay", self._id, after=self._summary.document())
        quarantine.remove(self._home, dropped)

    def _add_exporters(self, connection: sa.Connection) -> None:
        add_exporters(connection, self._gained)

    def _add_strangers(self, connection: sa.Connection) -> None:
        """The unknown exporters of this replay to those of the others: the busiest of all."""
        if not self._strangers:
            return
        table = tables.unknown_exporter
        sums = dict(self._strangers)
        for row in connection.execute(sa.select(table).where(table.c.collector == STATE_ID)):
            one = Stranger(bytes(row.exporter), row.datagrams, row.overcount, row.first, row.last)
            sums[one.exporter] = one.with_more(sums.get(one.exporter))
        busiest = sorted(sums.values(), key=lambda one: (-one.datagrams, one.exporter))[:STRANGERS_MAX]
        commits.write_strangers(connection, STATE_ID, busiest)


def add_exporters(connection: sa.Connection, gained: dict[commits.ExporterKey, ExporterRow]) -> None:
    """Add counts to those of all replays."""
    table = tables.exporter_state
    kept = {(row.exporter, row.domain, row.export_protocol): row
            for row in connection.execute(sa.select(table).where(table.c.collector == STATE_ID))}
    rows = []
    for key, more in gained.items():
        old = kept.get(key)
        before = None if old is None else replace(
            more, **{name: getattr(old, name) for name in commits.EXPORTER_COUNTS})
        rows.append(_added(before, more))
    commits.write_exporters(connection, STATE_ID, rows)


class _Unreadable(RatemillError):
    """A file that turned out not to be a capture."""


def _readable(batches: Any) -> Any:
    """The batches; an error of reading the file is told from one of storing."""
    while True:
        try:
            batch = next(batches, None)
        except RatemillError as error:
            raise _Unreadable(error.message, error.hint) from error
        if batch is None:
            return
        yield batch


def _difference(after: ExporterRow, before: ExporterRow | None) -> ExporterRow:
    if before is None:
        return after
    return replace(after, **{name: getattr(after, name) - getattr(before, name) for name in commits.EXPORTER_SUMS})


def _added(row: ExporterRow | None, gained: ExporterRow) -> ExporterRow:
    if row is None:
        return gained
    sums = {name: getattr(row, name) + getattr(gained, name) for name in commits.EXPORTER_SUMS}
    return replace(row, **sums, first=min(row.first, gained.first), last=max(row.last, gained.last))
