"""`storage repair`: what `storage verify` finds, made again from what it was made of, if that is still there.

Flow segments from the datagram journal, files of the lake and cells from segments, the analysts' generation from cells; in this
order, as each needs the one before. A file is put in place whole (fsync, rename) and only if it has the digest that its row has
had all along, so nothing else in the database changes but the audit trail. What can't be made again is a row that says what is
lost by it and what to do; nothing is deleted. Killed at any moment, the next repair goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from aggregation import batches, publish
from aggregation import repair as cells
from collector import compaction, lake_repair
from collector import repair as flows
from core import tables
from core.actor import Actor
from core.errors import DamagedFile, FlowsForgotten, Locked, RatemillError
from core.periods import format_instant
from monitoring import storage_check
from monitoring.storage_check import RESTORE, Found
from runtime import jobs
from security import audit
from storage import lake, sql
from storage.home import Home

JOB = "storage repair"
COLUMNS = ("kind", "path", "result", "what", "flows", "octets", "from", "to", "do")
REPAIRED, REPAIRABLE, LOST, WAITS = "repaired", "repairable", "lost", "waits"
"""`lost`: by this file, flows, octets and time as the columns say; `waits`: for another process."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What a file holds: flows, octets as they are stored, from and to in ms; None where that has no meaning."""

    flows: int | None = None
    octets: int | None = None
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What became of one file."""

    kind: str
    path: str
    result: str
    what: str
    extent: Extent = Extent()
    do: str = ""

    def row(self) -> dict[str, Any]:
        found = asdict(self)
        extent = found.pop("extent")
        first, last = (None if extent[key] is None else format_instant(extent[key]) for key in ("first", "last"))
        return {**found, "flows": extent["flows"], "octets": extent["octets"], "from": first, "to": last}


@dataclass
class Done:
    """How many files."""

    repaired: int = 0
    left: int = 0


def repair(home: Home, actor: Actor, done: Done, *, dry_run: bool = False) -> Iterator[Step]:
    """Repair what can be repaired; counts in `done`. A dry run decodes to see what could be, and writes nothing.

    Raises Locked while another process repairs, DiskLow and other RatemillErrors of the disk; what is done by then stays.
    """
    with ExitStack() as held:
        if not dry_run:
            held.enter_context(jobs.hold(sql.engine(home), JOB))
            flows.sweep(home)
        for step in _Repair(home, actor, dry_run).steps():
            if step.result in (REPAIRED, REPAIRABLE):
                done.repaired += 1
            else:
                done.left += 1
            yield step


class _Repair:
    def __init__(self, home: Home, actor: Actor, dry_run: bool) -> None:
        self._home, self._actor, self._dry_run = home, actor, dry_run
        self._engine = sql.engine(home)
        self._result = REPAIRABLE if dry_run else REPAIRED
        self._found: dict[str, Found] = {}
        self._missing_flows: set[int] = set()
        """Segments whose flows can't be had."""

    def steps(self) -> Iterator[Step]:
        problems = list(storage_check.verify(self._home, storage_check.Verified()))
        self._found = {one.path: one for one in problems}
        by_kind: dict[str, list[str]] = {}
        for one in problems:
            by_kind.setdefault(one.kind, []).append(one.path)
        for kind, work, job in (("segment", self._segments, None), ("lake", self._lake, compaction.JOB),
                                ("cells", self._cells, batches.JOB), ("generation", self._generation, None)):
            paths = by_kind.pop(kind, [])
            if not paths:
                continue
            try:
                with ExitStack() as held:
                    if job is not None and not self._dry_run:
                        held.enter_context(jobs.hold(self._engine, job))
                    yield from work(paths)
            except Locked as error:
                for path in paths:
                    yield Step(kind, path, WAITS, error.message, do=error.hint)
        for one in problems:
            if one.kind in by_kind:
                yield Step(one.kind, one.path, LOST, one.what, do=one.do)

    def _note(self, path: str) -> None:
        """Before a file is replaced: none is without the audit trail knowing."""
        with sql.transaction(self._engine) as connection:
            audit.record(connection, self._actor, "storage repair", path, {"found": self._found[path].what},
                         {"made again": True})

    # segments ---------------------------------------------------------------------------------------------------------
    def _segments(self, paths: Sequence[str]) -> Iterator[Step]:
        for again in flows.decode_again(self._home, self._rows(tables.segment, paths), store=not self._dry_run):
            row, what = again.row, self._found[again.row.path].what
            if not again.is_same:
                self._missing_flows.add(row.id)
                extent = Extent(row.flows, row.octets, row.received_first, row.received_last)
                yield Step("segment", row.path, LOST, f"{what}; {again.why}", extent, again.do)
                continue
            if again.file is not None:
                self._note(row.path)
                flows.place(self._home, again)
            yield Step("segment", row.path, self._result, what)

    def _rows(self, table: sa.Table, paths: Sequence[str]) -> list[Any]:
        found: list[Any] = []
        with sql.reading(self._engine) as connection:
            for first in range(0, len(paths), 500):
                found += connection.execute(sa.select(table).where(table.c.path.in_(paths[first : first + 500])))
        return found

    # the lake ---------------------------------------------------------------------------------------------------------
    def _lake(self, paths: Sequence[str]) -> Iterator[Step]:
        by_part: dict[int, list[Any]] = {}
        for row in self._rows(tables.lake_file, paths):
            by_part.setdefault(row.part_id, []).append(row)
        with sql.reading(self._engine) as connection:
            parts = {part.id: part for part in lake.parts(connection)}
        for number, rows in by_part.items():
            part = parts[number]
            remade = lake_repair.remake(self._home, part, [row.path for row in rows], self._note, dry_run=self._dry_run)
            for row in rows:
                what = self._found[row.path].what
                if row.path in remade.placed:
                    yield Step("lake", row.path, self._result, what)
                    continue
                if row.kind == lake.FLOWS_KIND:
                    with sql.reading(self._engine) as connection:
                        self._missing_flows |= set(compaction.segments_of(connection, [number]))
                # octets are known of the part alone
                extent = Extent(row.flows, part.octets if len(rows) == 1 and row.flows == part.flows else None,
                                part.received_first, part.received_last)
                yield Step("lake", row.path, LOST, f"{what}; {remade.why}", extent, remade.do)

    # cells ------------------------------------------------------------------------------------------------------------
    def _cells(self, paths: Sequence[str]) -> Iterator[Step]:
        with sql.reading(self._engine) as connection:
            by_batch = cells.batches_of(connection, paths)
        for number, damaged in by_batch.items():
            with sql.reading(self._engine) as connection:
                loss = cells.loss(connection, number)
            result, why, do = self._result, "", ""
            try:
                in_place = self._remake(number, loss.batch, damaged)
                why = "" if in_place else "; as inputs have changed since, a new batch took its place"
            except (DamagedFile, FlowsForgotten) as error:
                result, why = LOST, f"; its flows can't be read again: {error.message}"
                do = RESTORE if isinstance(error, FlowsForgotten) else f"repair its segments, or {RESTORE}"
            for path in damaged:
                extent = Extent(loss.flows, loss.octets, loss.first, loss.last) if result == LOST else Extent()
                yield Step("cells", path, result, self._found[path].what + why, extent, do)

    def _remake(self, number: int, batch: Any, damaged: Sequence[str]) -> bool:
        """Raises DamagedFile, FlowsForgotten."""
        gone = self._missing_flows.intersection(batch.segments)
        if gone:
            raise DamagedFile(f"{len(gone)} of its {len(batch.segments)} segments are lost")
        if not self._dry_run:
            return cells.remake(self._home, number, damaged, self._actor, self._note)
        with sql.reading(self._engine) as connection:
            cells.require_flows(connection, batch)
        return True

    # the generation ---------------------------------------------------------------------------------------------------
    def _generation(self, paths: Sequence[str]) -> Iterator[Step]:
        """It is published once more, under a new number."""
        for path in paths:
            what = self._found[path].what
            try:
                if not self._dry_run:
                    publish.publish(self._home, self._actor, anew=True)
            except Locked:
                raise
            except RatemillError as error:
                yield Step("generation", path, LOST, f"{what}; it can't be published anew: {error.message}",
                           do=error.hint or "run `ratemill usage publish`")
            else:
                yield Step("generation", path, self._result, what)
