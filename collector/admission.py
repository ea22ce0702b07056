"""`exporters admit`: an exporter's datagrams leave the quarantine and are decoded, each once, with their own arrival time.

The settings must take the exporter by now. Its kept entries become a journal of their own, decoded from an empty state as a
replay is; one transaction registers the segments, marks the entries as done and takes them back from what was refused when
they came. Killed before it, an admission leaves nothing, and the same command does it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from collector import commits, positions, segments, sums, worker
from collector.decoder import Decoder
from collector.faults import FaultKind
from collector.quarantine import Octets, entries_of, received_of, source_of
from collector.replay import WAITING_SECONDS, add_exporters
from collector.segment_builder import SegmentBuilder
from collector.settings import CollectorSettings, of_home
from collector.state import ExporterRow
from core import clock, tables
from core.actor import Actor
from core.addresses import NO_ADDRESS, format_address
from core.errors import RatemillError
from runtime.locks import only_one
from security import audit
from storage import files, sql
from storage.home import Home
from storage.journal import BODY_SIZE_MAX, DATAGRAMS_MAX, HEADER_SIZE, BlockHead, JournalWriter, remove_collector


def admit(home: Home, exporter: bytes, actor: Actor, dry_run: bool = False) -> dict[str, Any]:
    """Decode what was kept of an exporter that the settings take by now. Returns what came of it.

    Raises RatemillError if they don't, or if files were dropped meanwhile; then nothing is changed.
    """
    settings = of_home(home)
    named = any(one.address == exporter for one in settings.exporters)
    shown = format_address(exporter)
    if not named and settings.collector.unknown_exporters != "accept":
        raise RatemillError(f"the settings do not take datagrams of {shown} yet",
                            f'add to ratemill.toml: [[exporter]] with address = "{shown}", then admit it again')
    with only_one(home, "quarantine", "an admission into this home"):
        engine = sql.engine(home)
        rows = _files_for(engine, exporter)
        kept = [(row, _entries_from(home, row, exporter)) for row in rows]
        session = _Admission(home, engine, exporter, settings, [(row, data) for row, data in kept if len(data)])
        return session.rehearse() if dry_run else session.store(actor, [row.id for row, _ in kept])


def _files_for(engine: sa.Engine, exporter: bytes) -> list[Any]:
    """The files from which this exporter was not admitted yet, oldest first."""
    table, done = tables.quarantine_file, tables.quarantine_admission
    admitted = sa.select(done.c.file_id).where(done.c.exporter == exporter)
    query = sa.select(table).where(table.c.dropped.is_(None), table.c.id.not_in(admitted)).order_by(table.c.id)
    with sql.reading(engine) as connection:
        return list(connection.execute(query))


def _entries_from(home: Home, row: Any, exporter: bytes) -> Octets:
    data = np.frombuffer(files.verify(home.path / row.path, row.digest).read_bytes(), np.uint8)
    mine = [entry for entry in entries_of(data) if source_of(entry) == exporter]
    return np.concatenate(mine) if mine else np.zeros(0, np.uint8)


def _bodies(data: Octets) -> Iterator[tuple[Octets, int]]:
    """Entries as bodies of journal blocks, and how many each holds."""
    part: list[Octets] = []
    size = 0
    for entry in entries_of(data):
        if size + len(entry) > BODY_SIZE_MAX or len(part) == DATAGRAMS_MAX:
            yield np.concatenate(part), len(part)
            part, size = [], 0
        part.append(entry)
        size += len(entry)
    if part:
        yield np.concatenate(part), len(part)


class _Admission:
    """One exporter's kept datagrams → a journal and segments of their own."""

    def __init__(self, home: Home, engine: sa.Engine, exporter: bytes, settings: CollectorSettings,
                 kept: Sequence[tuple[Any, Octets]]) -> None:
        self._home, self._engine, self._exporter, self._kept = home, engine, exporter, kept
        # As for a capture: what still waits for a template at the end is shown, not forgotten on the way.
        settings = replace(settings, collector=replace(settings.collector, waiting_seconds_max=WAITING_SECONDS))
        text = repr((exporter, [row.digest for row, _ in kept]))
        self._id = "replay-" + hashlib.sha256(text.encode()).hexdigest()[:9]
        self._decoder = Decoder(settings)
        self._builder = SegmentBuilder(home, self._id, worker.settings_digest(settings),
                                                settings.collector.compression, settings.collector.threads)
        self._written: list[segments.Segment] = []
        self._datagrams = self._flows = self._octets = 0
        self._slots: dict[int, int] = {}

    def rehearse(self) -> dict[str, Any]:
        for _, data in self._kept:
            for body, count in _bodies(data):
                self._feed(body, 0, count)
        return self._summary()

    def store(self, actor: Actor, looked_at: Sequence[int]) -> dict[str, Any]:
        if not self._kept:
            return self._summary()
        journal = self._home.folder("journal")
        self._discard()  # what a killed admission left
        writer = JournalWriter(journal, self._id)
        committed = False
        try:
            for _, data in self._kept:
                for body, count in _bodies(data):
                    received = [received_of(entry) for entry in entries_of(body)]
                    head = BlockHead(writer.next_block, count, min(received), max(received))
                    writer.append(head, np.concatenate([np.zeros(HEADER_SIZE, np.uint8), body]))
                    self._feed(body, head.number, count)
                    if self._builder.is_full:
                        self._written.append(self._builder.write())
            if not self._builder.is_empty:
                self._written.append(self._builder.write())
            self._written[-1] = self._taken_back(self._written[-1])
            writer.close()
            with sql.transaction(self._engine) as connection:
                version = segments.next_version(connection, clock.now_ms(), "admission", self._id)
                segments.register(connection, self._written, version)
                self._note(connection, writer.next_block - 1, looked_at)
                audit.record(connection, actor, "exporters admit", format_address(self._exporter), after=self._summary())
            committed = True
        finally:
            if not committed:
                writer.abandon()
                self._discard()
        return self._summary()

    def _discard(self) -> None:
        self._builder.abandon()
        remove_collector(self._home.folder("journal"), self._id)
        segments.sweep_orphans(self._home, self._engine, self._id)

    def _feed(self, body: Octets, block: int, count: int) -> None:
        decoded = self._decoder.feed(body, block, self._builder.columns)
        self._builder.add(decoded, block)
        self._datagrams += count
        self._flows += decoded.counts.flows
        self._octets += decoded.counts.octets
        for slot, datagrams in zip(decoded.intake["slot"].tolist(), decoded.intake["datagrams"].tolist(), strict=True):
            self._slots[slot] = self._slots.get(slot, 0) + datagrams

    def _taken_back(self, segment: Any) -> Any:
        """The segment with rows that take its datagrams back from those refused when they came."""
        key = {"exporter": NO_ADDRESS, "domain": 0, "export_protocol": 0}
        rows = [sums.no_intake({**key, "slot": slot}, datagrams=-n, refused=-n) for slot, n in sorted(self._slots.items())]
        fault = {"exporter": NO_ADDRESS, "domain": 0, "kind": FaultKind.EXPORTER_UNKNOWN.label, "count": -self._datagrams}
        return replace(segment, intake=[*segment.intake, *rows], faults=[*segment.faults, fault])

    def _note(self, connection: sa.Connection, block: int, looked_at: Sequence[int]) -> None:
        """Mark the entries as done, and move their counts. Raises RatemillError if a file has gone meanwhile."""
        table = tables.quarantine_file
        ids = [row.id for row, _ in self._kept]
        there = set(connection.scalars(sa.select(table.c.id).where(table.c.id.in_(ids), table.c.dropped.is_(None))))
        if there != set(ids):
            raise RatemillError("a file of the quarantine had to make room while it was decoded", "admit the exporter again")
        positions.move_position(connection, self._id, block, None)
        counts = {row.id: sum(1 for _ in entries_of(data)) for row, data in self._kept}
        now = clock.now_ms()
        connection.execute(tables.quarantine_admission.insert(), [
            {"file_id": number, "exporter": self._exporter, "datagrams": counts.get(number, 0), "at": now}
            for number in looked_at])
        gained = commits.exporter_rows(self._decoder.state)
        first = min(row.first for row in gained.values())
        last = max(row.last for row in gained.values())
        taken_back = {**dict.fromkeys(commits.EXPORTER_SUMS, 0), "received": -self._datagrams, "refused": -self._datagrams}
        back = ExporterRow(NO_ADDRESS, 0, 0, **taken_back, first=first, last=last)
        add_exporters(connection, {**gained, (NO_ADDRESS, 0, 0): back})

    def _summary(self) -> dict[str, Any]:
        return {"exporter": format_address(self._exporter), "datagrams": self._datagrams, "flows": self._flows,
                "octets": self._octets, "waiting": self._decoder.state.waiting}
