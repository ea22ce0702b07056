"""What the SQL tables say about batches: which count, which are stale, which segments wait, and the commit of new ones.

Owns `batch`, `consumed`, `cell_file` and `attributed`; adds to `manifest_version` and, for the settings, `input_change`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from aggregation.segments import Segment
from core import clock, tables
from core.actor import Actor
from core.periods import OPEN_END, OPEN_START
from core.settings import Document, seller
from security import audit
from storage.late_rates import configured_rates

CELL_RULES = 1
"""Raised whenever the same flows and inputs would give other cells: every batch is then made again."""

SETTINGS_KIND = "settings"
SAMPLING_KIND = "sampling"
_SECTIONS = ("metering", "realm", "infrastructure", "class")

_SQL_VALUES_MAX = 500
"""Values in one IN (…), below every database's limit."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A row of `batch` that counts."""

    id: int
    input_version: int
    from_ms: int
    to_ms: int
    segments: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CellFile:
    """A file of a batch, as a row of `cell_file`."""

    kind: str  # cells or outcomes
    path: str
    digest: str
    rows: int
    octets: int
    slot_first: int | None
    slot_last: int | None


@dataclass(frozen=True)
class NewBatch:
    """Everything that one transaction registers."""

    segments: tuple[int, ...]
    replaces: tuple[int, ...]  # ids of batches
    input_version: int
    from_ms: int
    to_ms: int
    files: tuple[CellFile, ...]
    attributed: dict[str, int]
    late: dict[int, int] = field(default_factory=dict)
    """Quarter hour → octets that late sampling rates add to the flows as they are stored."""


def settings_digest(document: Document) -> str:
    """Of what ratemill.toml says about whose traffic is whose: the same digest, the same cells."""
    said = {name: document.get(name) for name in _SECTIONS}
    text = json.dumps([CELL_RULES, said, seller(document).timezone], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def note_settings(connection: sa.Connection, document: Document) -> bool:
    """If these settings changed since the last run, an input_change for all time says so. Whether they did."""
    change = tables.input_change
    digest, before = settings_digest(document), _noted_settings(connection)
    if before == digest:
        return False
    connection.execute(change.insert().values(at=clock.now_ms(), kind=SETTINGS_KIND, from_ms=OPEN_START, to_ms=OPEN_END,
                                              detail=json.dumps({"aggregation": digest})))
    return before is not None


def settings_are_noted(connection: sa.Connection, document: Document) -> bool:
    """Whether the settings that batches are made with now are these."""
    return _noted_settings(connection) == settings_digest(document)


def _noted_settings(connection: sa.Connection) -> str | None:
    change = tables.input_change
    details = connection.execute(sa.select(change.c.detail).where(change.c.kind == SETTINGS_KIND)
                                 .order_by(change.c.version.desc())).scalars()
    return next((found for found in map(_digest_in, details) if found), None)


def _digest_in(detail: str) -> str | None:
    try:
        value = json.loads(detail)
    except ValueError:
        return None
    return value.get("aggregation") if isinstance(value, dict) else None


def note_sampling(connection: sa.Connection, document: Document) -> None:
    """If the configured sampling rates changed since the last run, an input_change over the flows in quarantine of their
    exporters says so: nobody else's octets depend on them after decoding."""
    change = tables.input_change
    details = connection.execute(sa.select(change.c.detail).where(change.c.kind == SAMPLING_KIND)
                                 .order_by(change.c.version.desc()).limit(1)).scalar()
    before: dict[str, int] = json.loads(details)["sampling"] if details else {}
    now = {address.hex(): rate for address, rate in configured_rates(document).items()}
    if now == before:
        return
    changed = {bytes.fromhex(address) for address in now.keys() | before.keys() if now.get(address) != before.get(address)}
    waiting = tables.unrated_flows
    extents = [(row.first, row.last) for row in connection.execute(
        sa.select(waiting.c.exporter, sa.func.min(waiting.c.from_ms).label("first"), sa.func.max(waiting.c.to_ms).label("last"))
        .group_by(waiting.c.exporter)) if bytes(row.exporter) in changed]
    first, last = min((e[0] for e in extents), default=0), max((e[1] for e in extents), default=0)
    connection.execute(change.insert().values(at=clock.now_ms(), kind=SAMPLING_KIND, from_ms=first, to_ms=last,
                                              detail=json.dumps({"sampling": now})))


def input_version(connection: sa.Connection, kind: str | None = None) -> int:
    """The newest change of inputs (of a kind), 0 before the first."""
    change = tables.input_change
    query = sa.select(sa.func.max(change.c.version))
    return connection.execute(query if kind is None else query.where(change.c.kind == kind)).scalar() or 0


def live_batches(connection: sa.Connection, ids: Sequence[int] | None = None) -> list[Batch]:
    """The batches that count, oldest first, each with its segments."""
    consumed, batch = tables.consumed, tables.batch
    segments: dict[int, list[int]] = {}
    for row in connection.execute(sa.select(consumed).order_by(consumed.c.segment_id)):
        segments.setdefault(row.batch_id, []).append(row.segment_id)
    rows = connection.execute(sa.select(batch).where(batch.c.to_version.is_(None)).order_by(batch.c.id))
    return [Batch(row.id, row.input_version, row.from_ms, row.to_ms, tuple(segments.get(row.id, ())))
            for row in rows if ids is None or row.id in ids]


def stale_batches(connection: sa.Connection) -> set[int]:
    """Batches that count although what they depend on has changed since, inside their time."""
    batch, change = tables.batch, tables.input_change
    later = sa.exists().where(change.c.version > batch.c.input_version, change.c.from_ms < batch.c.to_ms,
                              change.c.to_ms > batch.c.from_ms)
    return set(connection.execute(sa.select(batch.c.id).where(batch.c.to_version.is_(None), later)).scalars())


def stale_by_other_kinds(connection: sa.Connection, kinds: Sequence[str]) -> set[int]:
    """Of the stale batches those that also a change of another kind made stale."""
    batch, change = tables.batch, tables.input_change
    later = sa.exists().where(change.c.version > batch.c.input_version, change.c.from_ms < batch.c.to_ms,
                              change.c.to_ms > batch.c.from_ms, change.c.kind.not_in(kinds))
    return set(connection.execute(sa.select(batch.c.id).where(batch.c.to_version.is_(None), later)).scalars())


def waiting_segments(connection: sa.Connection, *, unclaimed: bool = False, most: int | None = None) -> list[Segment]:
    """Segments in no batch yet, in order of their flows' time; or only those that nobody works on."""
    segment, consumed, claim = tables.segment, tables.consumed, tables.claim
    query = (_select_segments().outerjoin(consumed, consumed.c.segment_id == segment.c.id)
             .where(consumed.c.segment_id.is_(None)).order_by(segment.c.start_first, segment.c.id).limit(most))
    if unclaimed:
        query = query.where(~sa.exists().where(claim.c.segment_id == segment.c.id))
    return [_segment(row) for row in connection.execute(query)]


def waiting_flows(connection: sa.Connection) -> int:
    """Flows of segments in no batch yet."""
    segment, consumed = tables.segment, tables.consumed
    return int(connection.execute(
        sa.select(sa.func.coalesce(sa.func.sum(segment.c.flows), 0)).outerjoin(
            consumed, consumed.c.segment_id == segment.c.id).where(consumed.c.segment_id.is_(None))).scalar_one())


def segments(connection: sa.Connection, ids: Iterable[int]) -> list[Segment]:
    """Rows of these segments, in order of their flows' time."""
    wanted = sorted(ids)
    table = tables.segment
    found = []
    for first in range(0, len(wanted), _SQL_VALUES_MAX):
        some = wanted[first:first + _SQL_VALUES_MAX]
        found += [_segment(row) for row in connection.execute(_select_segments().where(table.c.id.in_(some)))]
    return sorted(found, key=lambda segment: (segment.start_first or 0, segment.id))


def _select_segments() -> sa.Select[Any]:
    segment, waiting = tables.segment, tables.unrated_flows
    has_quarantine = sa.exists().where(waiting.c.segment_id == segment.c.id).label("has_quarantine")
    return sa.select(segment, has_quarantine)


def _segment(row: Any) -> Segment:
    return Segment(row.id, row.path, row.digest, row.content_digest, row.flows, row.start_first, row.end_last,
                   bool(row.has_quarantine))


def cell_files(connection: sa.Connection, kind: str, version: int | None = None) -> list[tuple[int, CellFile]]:
    """(batch, file) of the batches that count, now or at a manifest version, in order of their rows."""
    batch, table = tables.batch, tables.cell_file
    counts: sa.ColumnElement[bool] = batch.c.to_version.is_(None)
    if version is not None:
        counts = sa.and_(batch.c.from_version <= version, sa.or_(counts, batch.c.to_version > version))
    query = sa.select(table).join(batch, batch.c.id == table.c.batch_id).where(counts, table.c.kind == kind)
    return [(row.batch_id, CellFile(row.kind, row.path, row.digest, row.rows, row.octets, row.slot_first, row.slot_last))
            for row in connection.execute(query.order_by(table.c.id))]


def commit(connection: sa.Connection, new: NewBatch, actor: Actor) -> int:
    """Register a batch, its files and what it consumes or replaces; all or nothing with the caller's transaction."""
    detail = {"segments": len(new.segments), "replaces": list(new.replaces)}
    version = _insert(connection, tables.manifest_version, at=clock.now_ms(), kind="cells", detail=json.dumps(detail))
    number = _insert(connection, tables.batch, from_version=version, to_version=None, input_version=new.input_version,
                     from_ms=new.from_ms, to_ms=new.to_ms)
    for file in new.files:
        connection.execute(tables.cell_file.insert().values(
            batch_id=number, kind=file.kind, path=file.path, digest=file.digest, rows=file.rows, octets=file.octets,
            slot_first=file.slot_first, slot_last=file.slot_last))
    if new.attributed:
        connection.execute(tables.attributed.insert(), [{"batch_id": number, "period": period, "octets": octets}
                                                        for period, octets in new.attributed.items()])
    if new.late:
        connection.execute(tables.late_slot.insert(), [{"batch_id": number, "slot": slot, "octets": octets}
                                                       for slot, octets in new.late.items()])
    if new.replaces:
        _replace(connection, new.replaces, version)
    connection.execute(tables.consumed.insert(), [{"segment_id": segment, "batch_id": number} for segment in new.segments])
    before = {"batches": list(new.replaces)} if new.replaces else None
    audit.record(connection, actor, "aggregate run", f"batch {number}", before,
                 {"segments": len(new.segments), "input_version": new.input_version, "attributed": new.attributed})
    return number


def _replace(connection: sa.Connection, ids: Sequence[int], version: int) -> None:
    batch, consumed = tables.batch, tables.consumed
    for first in range(0, len(ids), _SQL_VALUES_MAX):
        some = ids[first:first + _SQL_VALUES_MAX]
        done = connection.execute(batch.update().where(batch.c.id.in_(some), batch.c.to_version.is_(None))
                                  .values(to_version=version))
        assert done.rowcount == len(some), "only batches that count are replaced"
        connection.execute(consumed.delete().where(consumed.c.batch_id.in_(some)))


def confirm(connection: sa.Connection, ids: Sequence[int], version: int) -> None:
    """These batches hold for the inputs of this version too: what changed does not concern them."""
    batch = tables.batch
    for first in range(0, len(ids), _SQL_VALUES_MAX):
        connection.execute(batch.update().where(batch.c.id.in_(ids[first:first + _SQL_VALUES_MAX]))
                           .values(input_version=version))


def move_months(connection: sa.Connection, batch: int, months: dict[str, int], actor: Actor) -> None:
    """The octets of a batch by local month are these now: its cells hold, but services went to another zone of time."""
    table = tables.attributed
    before = {row.period: row.octets for row in connection.execute(sa.select(table).where(table.c.batch_id == batch))}
    connection.execute(table.delete().where(table.c.batch_id == batch))
    connection.execute(table.insert(), [{"batch_id": batch, "period": period, "octets": octets}
                                        for period, octets in months.items()])
    audit.record(connection, actor, "aggregate run: months", f"batch {batch}", before, months)


def _insert(connection: sa.Connection, table: sa.Table, **values: Any) -> int:
    key = connection.execute(table.insert().values(**values)).inserted_primary_key
    assert key is not None, "the database gives row ids"
    return int(key[0])
