"""`aggregate run`: segments → batches of cells, exactly once, and batches made again when their inputs changed.

A batch is a set of segments and the partial sums of their flows, made with the leases, subscriptions, plans, calendars and
settings of one `input_version`. Its files are written first; one transaction then registers them and marks the segments as
consumed. A run that is killed leaves whole batches or files that no row knows, which the next run deletes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from aggregation import cell_store, claims, classes, frozen, holding, manifest, merging, segments, settings
from aggregation.cells import Inputs, Made, Maker
from aggregation.manifest import NewBatch
from aggregation.segments import Segment
from aggregation.settings import TrafficClass
from aggregation.timelines import Timelines
from core import clock, tables
from core.actor import Actor
from core.errors import Locked
from core.periods import HOUR_MS, OPEN_END, OPEN_START
from core.settings import seller
from runtime import jobs, progress
from storage import space, sql
from storage.home import Home
from storage.late_rates import LateRates
from subscribers.attribution import Attribution

JOB = "aggregate"
SUBSCRIPTIONS_KIND = "subscriptions"
"""The kind under which imports of subscribers note their input_change."""


@dataclass
class Summary:
    """What a run did. `held`: batches that a change of plans or subscriptions reaches and whose cells answer for it all the
    same; `finer_edges`: those that it made necessary to read again, as an edge lies inside a quarter hour;
    `shared`: 1 if another run was at work, which this one only helped with what is new."""

    segments: int = 0
    flows: int = 0
    batches: int = 0
    remade: int = 0
    held: int = 0
    finer_edges: int = 0
    merged: int = 0
    frozen: int = 0
    cells: int = 0
    attributed_octets: int = 0
    swept_files: int = 0
    shared: int = 0

    def as_row(self) -> dict[str, int]:
        return dict(vars(self))


@dataclass
class _Group:
    """What becomes one batch."""

    segments: list[Segment] = field(default_factory=list)
    replaces: list[int] = field(default_factory=list)
    flows: int = 0


def aggregate(home: Home, actor: Actor, workers: int = 1) -> Summary:
    """Bring the cells up to date with segments and inputs, by so many threads.

    Runs at the same time share the new segments (aggregation.claims). The first one alone sweeps, makes stale batches again
    and merges; another says in its summary that it was not the first. Raises Locked if its settings are not those of the first.
    """
    run = _Run(home, actor, *settings.from_document(home.document))
    run.require_space()
    with ExitStack() as stack:
        try:
            stack.enter_context(jobs.hold(run.engine, JOB))
        except Locked:
            run.summary.shared = 1
        else:
            run.prepare()
        run.work(workers)
        if not run.summary.shared:
            run.summary.merged = merging.merge_small(home, run.engine, run.bounds.merge_batches_min, actor)
    return run.summary


class _Run:
    """One run and what its threads share."""

    def __init__(self, home: Home, actor: Actor, entries: tuple[TrafficClass, ...], bounds: settings.Aggregation) -> None:
        self.home, self.actor, self.bounds = home, actor, bounds
        self.engine = sql.engine(home)
        self.summary = Summary()
        self._shelf = classes.Shelf(entries, seller(home.document).timezone)
        self._stale: list[_Group] = []
        self._lock = threading.Lock()
        with sql.transaction(self.engine) as connection:
            classes.ensure_ids(connection, entries)

    def require_space(self) -> None:
        """Raises DiskLow while the rest of the disk is the journal's; what is committed stays, and the next run goes on."""
        space.require(self.home.folder("cells"), self.home.document, "`aggregate run`")

    def prepare(self) -> None:
        """What only one run at a time may do: sweep, note changed settings, find what has to be made again."""
        self.summary.swept_files = sweep(self.home, self.engine, self.bounds.replaced_keep_hours)
        with sql.transaction(self.engine) as connection:
            manifest.note_settings(connection, self.home.document)
            manifest.note_sampling(connection, self.home.document)
        again = _confirm(self.home, self.engine, self.actor, self.summary)
        kept = frozen.keep(self.engine, again, self.actor)
        self.summary.frozen = len(kept)
        self._stale = list(_plan(self.engine, again - kept, self.bounds.batch_flows_max))[::-1]

    def work(self, workers: int) -> None:
        """Make what is stale and what is new, until nothing of it is left or others work on the rest."""
        with sql.reading(self.engine) as connection:
            waiting = manifest.waiting_flows(connection)
        share = min(self.bounds.batch_flows_max, -(-waiting // workers)) or 1
        total = waiting + sum(group.flows for group in self._stale)
        with progress.bar("aggregate", total, "flows") as advance:

            def advance_one(flows: int) -> None:
                with self._lock:
                    advance(flows)

            if workers == 1:
                self._work(share, advance_one)
                return
            with ThreadPoolExecutor(workers, thread_name_prefix="aggregate") as pool:
                for done in [pool.submit(self._work, share, advance_one) for _ in range(workers)]:
                    done.result()

    def _work(self, share: int, advance: Callable[[int], None]) -> None:
        while group := self._next_stale():
            self.require_space()
            self._make(group, None)
            advance(group.flows)
        while claim := claims.take(self.engine, share):
            try:
                self.require_space()
                self._make(_Group(claim.segments), claim)
            except claims.LostClaim:
                continue  # whoever has them counts them
            except BaseException:
                claims.drop(self.engine, claim)
                raise
            advance(sum(segment.flows for segment in claim.segments))

    def _next_stale(self) -> _Group | None:
        with self._lock:
            return self._stale.pop() if self._stale else None

    def _make(self, group: _Group, claim: claims.Claim | None) -> None:
        version, inputs = self._inputs(group.segments)
        maker = Maker(inputs)
        asked = [replace(segment, asked=inputs.classifier.columns) for segment in group.segments]
        for source, columns in segments.read_all(self.home, asked):
            maker.take(columns, source)
            if claim is not None:
                claim.renew(self.engine)
        made = maker.finish()
        name = cell_store.name_of([version, *group.replaces, *(s.content_digest for s in group.segments),
                                   *(s.id for s in group.segments)])
        new = NewBatch(tuple(sorted(s.id for s in group.segments)), tuple(group.replaces), version, maker.from_ms or 0,
                       maker.to_ms or 0, store(self.home, name, made), made.attributed, made.late)
        with sql.transaction(self.engine) as connection:
            if claim is not None:
                claim.give_up(connection)
            manifest.commit(connection, new, self.actor)
        with self._lock:
            self.summary.segments += len(new.segments)
            self.summary.flows += maker.flows
            self.summary.batches += 1
            self.summary.remade += len(new.replaces)
            self.summary.cells += made.cells.num_rows
            self.summary.attributed_octets += sum(made.attributed.values())

    def _inputs(self, members: Sequence[Segment]) -> tuple[int, Inputs]:
        """The inputs that hold over the time of these segments, and their version. Raises Locked."""
        with sql.reading(self.engine) as connection:
            if not manifest.settings_are_noted(connection, self.home.document):
                raise Locked("ratemill.toml is not the one that another `aggregate run` works with",
                             "wait for that run to end, then run it again")
            return load_inputs(connection, self.home, members, self._shelf)


def load_inputs(connection: sa.Connection, home: Home, members: Sequence[Segment],
                shelf: classes.Shelf) -> tuple[int, Inputs]:
    """The inputs that hold over the time of these segments, and their version, in the view of one transaction."""
    first = min((OPEN_START if s.start_first is None else s.start_first for s in members if s.flows), default=0)
    last = max((OPEN_END if s.end_last is None else s.end_last for s in members if s.flows), default=0)
    return manifest.input_version(connection), Inputs(
        Attribution.load(connection, home.document, first, last + 1), shelf.load(connection, first, last),
        Timelines.load(connection, home.document), LateRates.load(connection, home.document))


def sweep(home: Home, engine: sa.Engine, keep_hours: int) -> int:
    """Delete files of killed runs, and of batches that were replaced longer ago than any reader reads. Returns how many.

    While another run makes cells, its files are not known yet: then nothing is deleted, and a later run does it.
    """
    with claims.quiet(engine) as nobody_writes:
        return cell_store.sweep(home, needed_files(engine, keep_hours)) if nobody_writes else 0


def needed_files(engine: sa.Engine, keep_hours: int) -> set[str]:
    """The files of batches that count, or that were replaced within these hours."""
    batch, version, file = tables.batch, tables.manifest_version, tables.cell_file
    with sql.reading(engine) as connection:
        rows = connection.execute(
            sa.select(file.c.path, version.c.at).join(batch, batch.c.id == file.c.batch_id)
            .outerjoin(version, version.c.id == batch.c.to_version)).all()
    oldest = clock.now_ms() - keep_hours * HOUR_MS
    return {row.path for row in rows if row.at is None or row.at >= oldest}


def _confirm(home: Home, engine: sa.Engine, actor: Actor, summary: Summary) -> set[int]:
    """Note batches as holding that later changes do not reach, or whose cells answer for what changed (aggregation.holding).

    A change of subscriptions may move the local month of traffic outside of every row, so batches beyond its time are looked
    at, too. Returns those of them that have to be made again.
    """
    with sql.reading(engine) as connection:
        version = manifest.input_version(connection)
        stale = manifest.stale_batches(connection)
        reached = stale - manifest.stale_by_other_kinds(connection, holding.KINDS)
        beyond = {batch.id: batch.input_version for batch in manifest.live_batches(connection)
                  if batch.input_version < version and batch.id not in stale}
        newest = manifest.input_version(connection, SUBSCRIPTIONS_KIND)
        doubtful = {batch for batch, made_with in beyond.items() if made_with < newest}
        seen: dict[int, holding.Seen] = {}
        if reached or doubtful:
            seen = holding.look(home, connection, reached | doubtful, Timelines.load(connection, home.document))
    held = {batch for batch in reached if not seen[batch].coarse}
    again = {batch for batch in doubtful if seen[batch].coarse and seen[batch].moved}
    summary.held, summary.finer_edges = len(held), len(reached) - len(held) + len(again)
    confirmed = sorted(held | beyond.keys() - again)
    if confirmed:
        with sql.transaction(engine) as connection:
            for batch in confirmed:
                if batch in seen and seen[batch].moved:
                    manifest.move_months(connection, batch, seen[batch].months, actor)
            manifest.confirm(connection, confirmed, version)
    return again


def _plan(engine: sa.Engine, again: set[int], flows_max: int) -> Iterator[_Group]:
    """Groups of segments of bounded size: what is stale or has to be made again, batch by batch."""
    with sql.reading(engine) as connection:
        stale = manifest.stale_batches(connection) | again
        old = [(batch.id, manifest.segments(connection, batch.segments))
               for batch in manifest.live_batches(connection) if batch.id in stale]
    group = _Group()
    for batch, members in old:
        flows = sum(segment.flows for segment in members)
        full = group.flows + flows > flows_max or len(group.segments) + len(members) > claims.SEGMENTS_MAX
        if group.segments and full:
            yield group
            group = _Group()
        group.segments += members
        group.flows += flows
        group.replaces.append(batch)
    if group.segments:
        yield group


def store(home: Home, name: str, made: Made) -> tuple[manifest.CellFile, ...]:
    """Write the files of a batch; an empty table needs none."""
    return tuple(cell_store.write(home, name, kind, table)
                 for kind, table in (("cells", made.cells), ("outcomes", made.outcomes)) if table.num_rows)
