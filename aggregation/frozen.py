"""Batches that can't be made again: their flows were truncated or deleted, as [retention] says.

A far end that is known by its network alone can't be classified, and a flow that is gone can't be counted. When leases,
subscriptions, plans or settings of their time change, the cells of such batches stay as they are; the table `frozen_batch`
and the audit trail say which change they do not know of. Nothing is made of half of the flows.

Owns `frozen_batch`.
"""

from __future__ import annotations

import sqlalchemy as sa

from aggregation import manifest
from core import clock, tables
from core.actor import Actor
from core.periods import format_instant
from security import audit
from storage import sql


def keep(engine: sa.Engine, moved: set[int], actor: Actor) -> set[int]:
    """Of batches that are stale, or that were `moved` by a change, those that stay as they are; they count as up to date."""
    with sql.reading(engine) as connection:
        if not _candidates(connection, moved):
            return set()
    with sql.transaction(engine) as connection:
        found = _candidates(connection, moved)
        version = manifest.input_version(connection)
        for batch, why in found.items():
            connection.execute(tables.frozen_batch.insert().values(batch_id=batch.id, input_version=version, at=clock.now_ms(),
                                                                   why=why))
            audit.record(connection, actor, "aggregate run", f"batch {batch.id}", {"input_version": batch.input_version},
                         {"input_version": version, "frozen": why})
        manifest.confirm(connection, [batch.id for batch in found], version)
    return {batch.id for batch in found}


def _candidates(connection: sa.Connection, moved: set[int]) -> dict[manifest.Batch, str]:
    """Batches to be made again with segments whose flows are not what was decoded, and why."""
    stale = manifest.stale_batches(connection) | moved
    if not stale:
        return {}
    member, part = tables.lake_segment, tables.lake_part
    forgotten = {row.segment_id: ("deleted" if row.deleted is not None else "truncated")
                 for row in connection.execute(sa.select(member.c.segment_id, part.c.deleted).join(
                     part, part.c.id == member.c.part_id).where(
                         sa.or_(part.c.deleted.is_not(None), part.c.truncated.is_not(None))))}
    found = {}
    for batch in manifest.live_batches(connection):
        gone = {forgotten[segment] for segment in batch.segments if segment in forgotten}
        if batch.id in stale and gone:
            extent = f"{format_instant(batch.from_ms)} to {format_instant(batch.to_ms)}"
            found[batch] = f"flows from {extent}: {' and '.join(sorted(gone))}"
    return found


def count(connection: sa.Connection) -> int:
    """Batches that count and do not know of a change."""
    table, batch = tables.frozen_batch, tables.batch
    query = sa.select(sa.func.count(table.c.batch_id.distinct())).join(batch, batch.c.id == table.c.batch_id)
    return connection.execute(query.where(batch.c.to_version.is_(None))).scalar_one()


def sentence(batches: int) -> str:
    """What a person should know of batches that stayed."""
    return (f"{batches} batches stay as they are although leases, subscriptions, plans or settings of their time changed: "
            "their flows were truncated or deleted ([retention]); the table frozen_batch names them")
