"""`aggregate run`: segments → batches of cells, exactly once, and batches made again when their inputs changed.

A batch is a set of segments and the partial sums of their flows, made with the leases, subscriptions, plans, calendars and
settings of one `input_version`. Its files are written first; one transaction then registers them and marks the segments as
consumed. A run that is killed leaves whole batches or files that no row knows, which the next run deletes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from aggregation import cell_store, classes, manifest, merging, segments, settings
from aggregation.cells import Inputs, Made, Maker
from aggregation.manifest import NewBatch
from aggregation.segments import Segment
from aggregation.timelines import Timelines
from core import clock, tables
from core.actor import Actor
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

SEGMENTS_PER_BATCH_MAX = 10_000


@dataclass
class Summary:
    """What a run did."""

    segments: int = 0
    flows: int = 0
    batches: int = 0
    remade: int = 0
    merged: int = 0
    cells: int = 0
    attributed_octets: int = 0
    swept_files: int = 0

    def as_row(self) -> dict[str, int]:
        return dict(vars(self))


@dataclass
class _Group:
    """What becomes one batch."""

    segments: list[Segment] = field(default_factory=list)
    replaces: list[int] = field(default_factory=list)
    flows: int = 0


def aggregate(home: Home, actor: Actor) -> Summary:
    """Bring the cells up to date with segments and inputs. Raises Locked while another process does."""
    engine = sql.engine(home)
    entries, bounds = settings.from_document(home.document)
    summary = Summary()
    _require_space(home)
    with jobs.hold(engine, JOB):
        summary.swept_files = _tidy(home, engine, bounds.replaced_keep_hours)
        with sql.transaction(engine) as connection:
            manifest.note_settings(connection, home.document)
            manifest.note_sampling(connection, home.document)
            classes.ensure_ids(connection, entries)
        shelf = classes.Shelf(entries, seller(home.document).timezone)
        moved = _confirm(home, engine)
        groups = list(_plan(engine, moved, bounds.batch_flows_max))
        with progress.bar("aggregate", sum(group.flows for group in groups), "flows") as advance:
            for group in groups:
                _require_space(home)
                _make(home, engine, group, shelf, actor, summary)
                advance(group.flows)
        summary.merged = merging.merge_small(home, engine, bounds.merge_batches_min, actor)
    return summary


def _require_space(home: Home) -> None:
    """Raises DiskLow while the rest of the disk is the journal's; what is committed stays, and the next run goes on."""
    space.require(home.folder("cells"), home.document, "`aggregate run`")


def _tidy(home: Home, engine: sa.Engine, keep_hours: int) -> int:
    """Delete files of killed runs, and of batches that were replaced longer ago than any reader reads."""
    batch, version, file = tables.batch, tables.manifest_version, tables.cell_file
    with sql.reading(engine) as connection:
        rows = connection.execute(
            sa.select(file.c.path, version.c.at).join(batch, batch.c.id == file.c.batch_id)
            .outerjoin(version, version.c.id == batch.c.to_version)).all()
    oldest = clock.now_ms() - keep_hours * HOUR_MS
    return cell_store.sweep(home, {row.path for row in rows if row.at is None or row.at >= oldest})


def _confirm(home: Home, engine: sa.Engine) -> set[int]:
    """Note batches that later changes do not reach as holding; returns those that they reach beyond their time.

    A change of subscriptions may move the local month of traffic outside of every row: such batches are checked.
    """
    with sql.reading(engine) as connection:
        version = manifest.input_version(connection)
        stale = manifest.stale_batches(connection)
        older = [batch for batch in manifest.live_batches(connection)
                 if batch.input_version < version and batch.id not in stale]
        newest = manifest.input_version(connection, SUBSCRIPTIONS_KIND)
        doubtful = [batch.id for batch in older if batch.input_version < newest]
        timelines = Timelines.load(connection, home.document) if doubtful else None
        moved = {batch for batch in doubtful
                 if timelines is not None and not merging.months_hold(home, connection, batch, timelines)}
    holding = [batch.id for batch in older if batch.id not in moved]
    if holding:
        with sql.transaction(engine) as connection:
            manifest.confirm(connection, holding, version)
    return moved


def _plan(engine: sa.Engine, moved: set[int], flows_max: int) -> Iterator[_Group]:
    """Groups of segments of bounded size: first what is stale or moved, batch by batch, then what is new."""
    with sql.reading(engine) as connection:
        stale = manifest.stale_batches(connection) | moved
        old = [(batch.id, manifest.segments(connection, batch.segments))
               for batch in manifest.live_batches(connection) if batch.id in stale]
        new = manifest.waiting_segments(connection)
    for remakes, parts in ((True, old), (False, [(0, [segment]) for segment in new])):
        group = _Group()
        for batch, members in parts:
            flows = sum(segment.flows for segment in members)
            full = group.flows + flows > flows_max or len(group.segments) + len(members) > SEGMENTS_PER_BATCH_MAX
            if group.segments and full:
                yield group
                group = _Group()
            group.segments += members
            group.flows += flows
            if remakes:
                group.replaces.append(batch)
        if group.segments:
            yield group


def _make(home: Home, engine: sa.Engine, group: _Group, shelf: classes.Shelf, actor: Actor, summary: Summary) -> None:
    version, inputs = _inputs(home, engine, group.segments, shelf)
    maker = Maker(inputs)
    for segment in group.segments:
        for columns in segments.read(home, replace(segment, asked=inputs.classifier.columns)):
            maker.take(columns, segment.path)
    made = maker.finish()
    name = cell_store.name_of([version, *group.replaces, *(s.content_digest for s in group.segments),
                               *(s.id for s in group.segments)])
    new = NewBatch(tuple(sorted(s.id for s in group.segments)), tuple(group.replaces), version,
                   maker.from_ms or 0, maker.to_ms or 0, store(home, name, made), made.attributed, made.late)
    with sql.transaction(engine) as connection:
        manifest.commit(connection, new, actor)
    summary.segments += len(new.segments)
    summary.flows += maker.flows
    summary.batches += 1
    summary.remade += len(new.replaces)
    summary.cells += made.cells.num_rows
    summary.attributed_octets += sum(made.attributed.values())


def store(home: Home, name: str, made: Made) -> tuple[manifest.CellFile, ...]:
    """Write the files of a batch; an empty table needs none."""
    return tuple(cell_store.write(home, name, kind, table)
                 for kind, table in (("cells", made.cells), ("outcomes", made.outcomes)) if table.num_rows)


def _inputs(home: Home, engine: sa.Engine, members: Sequence[Segment], shelf: classes.Shelf) -> tuple[int, Inputs]:
    """The inputs that hold over the time of these segments, and their version, in one consistent view."""
    first = min((OPEN_START if s.start_first is None else s.start_first for s in members if s.flows), default=0)
    last = max((OPEN_END if s.end_last is None else s.end_last for s in members if s.flows), default=0)
    with sql.reading(engine) as connection:
        return manifest.input_version(connection), Inputs(
            Attribution.load(connection, home.document, first, last + 1), shelf.load(connection, first, last),
            Timelines.load(connection, home.document), LateRates.load(connection, home.document))
