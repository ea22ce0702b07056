"""Files of cells that were lost, made again from the segments of their batch.

With the inputs of now the same flows mostly give the same cells: then the files are put back, and nothing else changes. Where
inputs have changed since, a new batch takes the place of the old one, as `aggregate run` makes stale ones again. What was
invoiced has frozen copies of its own and is not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from aggregation import cell_store, classes, manifest, segments, settings
from aggregation.batches import load_inputs
from aggregation.cells import Maker
from aggregation.manifest import Batch, CellFile, NewBatch
from core import tables
from core.actor import Actor
from core.settings import seller
from storage import files, space, sql, stored_flows
from storage.home import Home


@dataclass(frozen=True)
class Loss:
    """What the cells of a batch were made of."""

    batch: Batch
    flows: int
    octets: int
    first: int
    last: int


def batches_of(connection: sa.Connection, paths: Sequence[str]) -> dict[int, list[str]]:
    """The batches that count and have these files, with the files of each."""
    wanted = set(paths)
    found: dict[int, list[str]] = {}
    for kind in ("cells", "outcomes"):
        for batch, file in manifest.cell_files(connection, kind):
            if file.path in wanted:
                found.setdefault(batch, []).append(file.path)
    return found


def loss(connection: sa.Connection, number: int) -> Loss:
    """How much the cells of a batch that counts stand for: flows, octets as they are stored, the time of the flows."""
    (batch,) = manifest.live_batches(connection, [number])
    segment, consumed = tables.segment, tables.consumed
    sums = connection.execute(sa.select(sa.func.sum(segment.c.flows), sa.func.sum(segment.c.octets)).join(
        consumed, consumed.c.segment_id == segment.c.id).where(consumed.c.batch_id == number)).one()
    return Loss(batch, int(sums[0] or 0), int(sums[1] or 0), batch.from_ms, batch.to_ms)


def require_flows(connection: sa.Connection, batch: Batch) -> None:
    """Raises FlowsForgotten if the flows of a batch were truncated or deleted."""
    stored_flows.locate(connection, batch.segments).require_exact("making cells again")


def remake(home: Home, number: int, damaged: Sequence[str], actor: Actor, note: Callable[[str], None]) -> bool:
    """Make the cells of a batch again. True: the damaged files are back, each noted before it was; False: a new batch took its
    place. The caller holds the lease of the job "aggregate". Raises DamagedFile, FlowsForgotten, DiskLow."""
    engine = sql.engine(home)
    space.require(home.folder("cells"), home.document, "`storage repair`")
    entries, _ = settings.from_document(home.document)
    with sql.reading(engine) as connection:
        (batch,) = manifest.live_batches(connection, [number])
        members = manifest.segments(connection, batch.segments)
        before = [file for kind in ("cells", "outcomes") for owner, file in manifest.cell_files(connection, kind)
                  if owner == number]
        require_flows(connection, batch)
    with sql.transaction(engine) as connection:
        classes.ensure_ids(connection, entries)
    with sql.reading(engine) as connection:
        version, inputs = load_inputs(connection, home, members, classes.Shelf(entries, seller(home.document).timezone))
    maker = Maker(inputs)
    asked = [replace(one, asked=inputs.classifier.columns) for one in members]
    for source, columns in segments.read_all(home, asked):
        maker.take(columns, source)
    made = maker.finish()
    name = cell_store.name_of(["repaired", version, number, *(one.content_digest for one in members)])
    written = tuple(cell_store.write(home, name, kind, table)
                    for kind, table in (("cells", made.cells), ("outcomes", made.outcomes)) if table.num_rows)
    if [(one.kind, one.digest) for one in before] == [(one.kind, one.digest) for one in written]:
        _put_back(home, before, written, set(damaged), note)
        return True
    new = NewBatch(tuple(sorted(batch.segments)), (number,), version, maker.from_ms or 0, maker.to_ms or 0, written,
                   made.attributed, made.late)
    with sql.transaction(engine) as connection:
        manifest.commit(connection, new, actor)
    return False


def _put_back(home: Home, before: Sequence[CellFile], written: Sequence[CellFile], damaged: set[str],
              note: Callable[[str], None]) -> None:
    for old, new in zip(before, written, strict=True):
        if old.path in damaged:
            note(old.path)
            files.make_folder((home.path / old.path).parent)
            files.finish_whole(home.path / new.path, home.path / old.path)
        elif new.path != old.path:
            files.remove(home.path / new.path)
