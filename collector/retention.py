"""How long is known who talked to whom: far ends of flows are truncated to their networks, later the flows are deleted.

Truncating writes the files of a part anew: an address that is in no network of subscribers keeps 24 bits of IPv4 or 48 of IPv6;
order and subscribers' ends stay, so the flows of a service are found as before. What was there before is kept for readers for
`[lake] replaced_keep_hours` and then deleted. A part whose batches are not up to date with leases and settings waits: its
cells could never be made right again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from numpy.typing import NDArray

from collector import compaction, lake_settings
from collector.compaction import NewPart
from core import clock, schemas, tables
from core.actor import Actor
from core.networks import IPV4, Ranges, numbers_of_words
from core.periods import DAY_MS, format_instant
from runtime import jobs, progress
from security import audit
from storage import lake, space, sql
from storage.home import Home
from storage.lake import FLOWS_KIND, MIRROR_KIND, Part

TRUNCATE, DELETE, WAITS = "truncate", "delete", "waits"
IPV4_BITS, IPV6_BITS = 24, 48
"""What is kept of a far end: as much as networks are told apart by (core.networks), so that the order of files holds."""


@dataclass(frozen=True)
class Step:
    """What retention does, or would do, or can't do yet."""

    what: str
    subject: str
    files: int
    flows: int
    octets: int
    why: str

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


def forget(home: Home, actor: Actor, *, dry_run: bool = False) -> Iterator[Step]:
    """Truncate and delete what is old enough, part by part. Raises Locked while another process works on the lake."""
    engine = sql.engine(home)
    if dry_run:
        with sql.reading(engine) as connection:
            yield from (step for step, _ in _steps(connection, home))
        return
    with jobs.hold(engine, compaction.JOB):
        with sql.reading(engine) as connection:
            steps = list(_steps(connection, home))
        with progress.bar("retention", sum(step.flows for step, _ in steps), "flows") as advance:
            for step, part in steps:
                if part is not None and step.what == TRUNCATE:
                    space.require(home.folder("lake"), home.document, "`storage gc`")
                    _truncate(home, engine, part, actor)
                elif part is not None and step.what == DELETE:
                    _delete(engine, part, actor)
                advance(step.flows)
                yield step


def _steps(connection: sa.Connection, home: Home) -> Iterator[tuple[Step, Part | None]]:
    _, retention = lake_settings.from_document(home.document)
    delete, truncate = (clock.now_ms() - days * DAY_MS if days else -(2**62)
                        for days in (retention.delete_after_days, retention.truncate_after_days))
    stale = _stale_parts(connection)
    for part in lake.parts(connection):
        gone, short = part.received_last < delete, part.received_last < truncate and part.truncated is None
        if not gone and not short:
            continue
        what = DELETE if gone else TRUNCATE
        days = retention.delete_after_days if gone else retention.truncate_after_days
        why = f"[retention] {what}_after_days = {days}"
        if part.id in stale:
            what, why = WAITS, f"{why}, but leases or settings of its time changed: `ratemill aggregate run` first"
        elif not gone and not compaction.is_sorted_by_all(connection, part):
            what, why = WAITS, f"{why}, but leases of new networks came: `ratemill storage compact` first"
        yield Step(what, f"lake part {part.id}, {format_instant(part.day)[:10]}", *_size(connection, part), why), part
    before = max(delete, truncate)
    old = [row for row in compaction.hot_segments(connection, consumed=False) if row.at is not None and row.at < before]
    old += [row for row in compaction.hot_segments(connection, consumed=True) if row.at is not None and row.at < before]
    if old:
        yield Step(WAITS, "segments", len(old), int(sum(row.flows for row in old)), int(sum(row.octets_size for row in old)),
                   "old, but not compacted: `ratemill aggregate run` and `ratemill storage compact` first"), None


def _size(connection: sa.Connection, part: Part) -> tuple[int, int, int]:
    file = tables.lake_file
    count, octets = connection.execute(sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(file.c.octets_size), 0))
                                       .where(file.c.part_id == part.id)).one()
    return int(count), part.flows, int(octets)


def _stale_parts(connection: sa.Connection) -> set[int]:
    """Parts with segments of batches that aggregation has to make again, or in no batch."""
    member, consumed, batch, change = tables.lake_segment, tables.consumed, tables.batch, tables.input_change
    later = sa.exists().where(change.c.version > batch.c.input_version, change.c.from_ms < batch.c.to_ms,
                              change.c.to_ms > batch.c.from_ms)
    stale = (sa.select(member.c.part_id).distinct().join(consumed, consumed.c.segment_id == member.c.segment_id)
             .join(batch, batch.c.id == consumed.c.batch_id).where(later))
    waiting = sa.select(member.c.part_id).distinct().where(~sa.exists().where(consumed.c.segment_id == member.c.segment_id))
    return {*connection.scalars(stale), *connection.scalars(waiting)}


# truncating -----------------------------------------------------------------------------------------------------------
def _truncate(home: Home, engine: sa.Engine, part: Part, actor: Actor) -> None:
    with sql.reading(engine) as connection:
        sources = lake.files_of(connection, part.id, FLOWS_KIND)
        members = compaction.segments_of(connection, [part.id])
    networks = Ranges.from_bytes(part.networks)
    name = compaction.name_of("truncated", part.id, [file.digest for file in sources])
    written = []
    for number, file in enumerate(sources):
        pieces = [truncated(table.cast(schemas.LAKE), networks) for table in lake.read_whole(home, file, schemas.LAKE.names)]
        path = compaction.path_of(home, part.day, name, FLOWS_KIND, number)
        written.append(lake.write(home, path, FLOWS_KIND, pa.concat_tables(pieces).combine_chunks()))
    kept = ("flows", "octets", "received_first", "received_last", "start_first", "end_last", "networks", "input_version")
    row = {key: getattr(part, key) for key in kept} | {"truncated": clock.now_ms()}
    stored = tables.lake_file
    with sql.transaction(engine) as connection:
        number = compaction.register(connection, NewPart(part.day, row, written, members, [part.id]), actor, "storage gc")
        # flows between two subscribers have no far end
        connection.execute(stored.update().where(stored.c.part_id == part.id, stored.c.kind == MIRROR_KIND)
                           .values(part_id=number))


def truncated(table: pa.Table, networks: Ranges) -> pa.Table:
    """Rows of the lake; an end that is in none of the networks keeps its first 24 bits (IPv4) or 48."""
    near = [table.column(name).to_numpy() for name in ("near_high", "near_low")]
    for end in ("source", "destination"):
        words = [table.column(f"{end}_{word}").to_numpy() for word in ("high", "low")]
        table = _with(table, (f"{end}_high", f"{end}_low"), _network_of(words, networks))
    return _with(table, ("near_high", "near_low"), _network_of(near, networks))


def _network_of(words: Sequence[NDArray[np.uint64]], networks: Ranges) -> list[NDArray[np.uint64]]:
    high, low = words
    numbers = numbers_of_words(high, low)
    ours = networks.holds(numbers)
    is_ipv4 = numbers >= IPV4
    short_high = np.where(is_ipv4, high, high >> np.uint64(16) << np.uint64(16))
    short_low = np.where(is_ipv4, low >> np.uint64(8) << np.uint64(8), np.uint64(0))
    return [np.where(ours, high, short_high), np.where(ours, low, short_low)]


def _with(table: pa.Table, names: Sequence[str], columns: Sequence[NDArray[np.uint64]]) -> pa.Table:
    for name, column in zip(names, columns, strict=True):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(column))
    return table


# deleting -------------------------------------------------------------------------------------------------------------
def _delete(engine: sa.Engine, part: Part, actor: Actor) -> None:
    table = tables.lake_part
    with sql.transaction(engine) as connection:
        done = connection.execute(table.update().where(table.c.id == part.id, table.c.replaced.is_(None),
                                                       table.c.deleted.is_(None)).values(deleted=clock.now_ms()))
        assert done.rowcount == 1, "only a part that counts is given up, and once"
        audit.record(connection, actor, "storage gc", f"lake part {part.id}",
                     {"day": format_instant(part.day)[:10], "flows": part.flows}, None)
