"""Every file that the database names with its digest: what a home consists of beside its database and its journal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from core import tables

REPAIR = "ratemill storage repair"


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file below the home. `digest` is SHA-256 (64 digits) or XXH3-128 (32)."""

    kind: str
    path: str
    digest: str
    rebuild: str
    """What may make it again where it is lost; empty: only a backup has it."""


def named_files(connection: sa.Connection) -> Iterator[NamedFile]:
    """The files that count now, each once, by kind and in order of their rows."""
    found: dict[str, NamedFile] = {}
    for one in _all(connection):
        found.setdefault(one.path, one)
    yield from found.values()


def _all(connection: sa.Connection) -> Iterator[NamedFile]:
    segment, batch, cell, run = tables.segment, tables.batch, tables.cell_file, tables.rate_run
    member, part, file = tables.lake_segment, tables.lake_part, tables.lake_file
    own = sa.select(segment.c.path, segment.c.digest).where(~sa.exists().where(member.c.segment_id == segment.c.id))
    for row in connection.execute(own.order_by(segment.c.id)):
        yield NamedFile("segment", row.path, row.digest, REPAIR)
    compacted = sa.select(file.c.path, file.c.digest).join(part, part.c.id == file.c.part_id).where(
        part.c.replaced.is_(None), part.c.deleted.is_(None))
    for row in connection.execute(compacted.order_by(file.c.id)):
        yield NamedFile("lake", row.path, row.digest, REPAIR)
    live = sa.select(cell.c.path, cell.c.digest).join(batch, batch.c.id == cell.c.batch_id).where(
        batch.c.to_version.is_(None)).order_by(cell.c.id)
    for row in connection.execute(live):
        yield NamedFile("cells", row.path, row.digest, REPAIR)
    billed = sa.select(tables.invoice.c.rate_run_id)
    newest = sa.select(sa.func.max(run.c.id)).group_by(run.c.period)
    runs = sa.select(run.c.path, run.c.digest, run.c.usage_path, run.c.usage_digest).where(
        sa.or_(run.c.id.in_(billed), run.c.id.in_(newest))).order_by(run.c.id)
    for rated in connection.execute(runs):
        yield NamedFile("charges", rated.path, rated.digest, "")
        yield NamedFile("frozen usage", rated.usage_path, rated.usage_digest, "")
    decoder = tables.decoder_position
    states = sa.select(decoder.c.state_path, decoder.c.state_digest).where(decoder.c.state_path.is_not(None))
    for state in connection.execute(states.order_by(decoder.c.collector)):
        yield NamedFile("decoder state", str(state.state_path), str(state.state_digest), "")
    held = tables.quarantine_file
    waiting = sa.select(held.c.path, held.c.digest).where(held.c.dropped.is_(None)).order_by(held.c.id)
    for row in connection.execute(waiting):
        yield NamedFile("quarantine", row.path, row.digest, "")
    generation = tables.generation
    last = sa.select(generation.c.path, generation.c.digest).order_by(generation.c.id.desc()).limit(1)
    for row in connection.execute(last):
        yield NamedFile("generation", row.path, row.digest, REPAIR)
