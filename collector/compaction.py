"""`storage compact`: segments of past UTC days → parts of the lake, sorted by the subscriber's end, exactly once.

A segment is taken when its day ended `[lake] compact_after_hours` ago and aggregation has consumed it. Its own file stays for
`replaced_keep_hours`, so that no reader of it is broken. A part is sorted on disk by DuckDB in bounded memory, written in files
of bounded size, counted against what went in, and registered in one transaction; a run that is killed leaves files that no row
knows, which the next one deletes. A part is made again when leases appeared whose networks it is not sorted by, and when its
day has too many of them. Parts with truncated or deleted flows stay as they are.

Owns `lake_part`, `lake_file`, `lake_segment`; adds to `manifest_version`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from numpy.typing import NDArray

from collector import lake_settings
from collector.segments import next_version, read_own_file
from core import clock, schemas, tables
from core.actor import Actor
from core.addresses import Prefix
from core.errors import RatemillError
from core.networks import PRIVATE, Ranges, numbers_of_words
from core.periods import DAY_MS, HOUR_MS, format_instant
from runtime import jobs, progress
from security import audit
from storage import files, lake, sorting, space, sql
from storage.home import Home
from storage.lake import FLOWS_KIND, MIRROR_KIND, File, Part

JOB = "lake"
PARTS_MAX = 4
"""Parts of a day that stand beside each other; one more, and they become one."""

_KINDS = (FLOWS_KIND, MIRROR_KIND)
_SORTED = schemas.LAKE.append(pa.field("kind", pa.uint8(), nullable=False))
_SQL_VALUES_MAX = 500


@dataclass
class Summary:
    """What a run did, or would do."""

    days: int = 0
    segments: int = 0
    flows: int = 0
    mirrored: int = 0
    parts: int = 0
    replaced: int = 0
    octets_before: int = 0
    octets_after: int = 0
    swept_files: int = 0

    def as_row(self) -> dict[str, int]:
        return dict(vars(self))


@dataclass
class Day:
    """What becomes one part."""

    start: int
    segments: list[Any] = field(default_factory=list)  # rows of `segment`
    parts: list[Part] = field(default_factory=list)  # that are sorted once more

    @property
    def flows(self) -> int:
        return int(sum(row.flows for row in self.segments)) + sum(part.flows for part in self.parts)


@dataclass(frozen=True)
class NewPart:
    """A part whose files are written."""

    day: int
    row: dict[str, Any]
    files: list[File]
    segments: list[int]
    replaces: list[int]


def compact(home: Home, actor: Actor, *, dry_run: bool = False) -> Summary:
    """Compact every day that is due. Raises Locked while another process works on the lake, DiskLow, DamagedFile."""
    engine = sql.engine(home)
    bounds, _ = lake_settings.from_document(home.document)
    summary = Summary()
    if dry_run:
        with sql.reading(engine) as connection:
            _count(_due(connection, bounds.compact_after_hours), summary)
        return summary
    with jobs.hold(engine, JOB):
        summary.swept_files = sweep(home, engine)
        with sql.transaction(engine) as connection:
            due = _due(connection, bounds.compact_after_hours)
            _confirm(connection, {part.id for day in due for part in day.parts})
            networks, version = known_networks(connection), _lease_version(connection)
        with progress.bar("compact", sum(day.flows for day in due), "flows") as advance:
            for day in due:
                space.require(home.folder("lake"), home.document, "`storage compact`")
                new = _make(home, engine, day, networks, version, bounds.memory_octets_max)
                with sql.transaction(engine) as connection:
                    register(connection, new, actor, "storage compact")
                _count([day], summary)
                summary.parts += 1
                summary.mirrored += sum(file.flows for file in new.files if file.kind == MIRROR_KIND)
                summary.octets_after += sum(file.octets_size for file in new.files)
                advance(day.flows)
    return summary


def _count(days: Sequence[Day], summary: Summary) -> None:
    summary.days += len({day.start for day in days})
    summary.segments += sum(len(day.segments) for day in days)
    summary.flows += sum(day.flows for day in days)
    summary.replaced += sum(len(day.parts) for day in days)
    summary.octets_before += sum(row.octets_size for day in days for row in day.segments)


# what is due ----------------------------------------------------------------------------------------------------------
def _due(connection: sa.Connection, after_hours: int) -> list[Day]:
    """Days with segments to be taken, or with parts to be sorted anew, in order. Segments without any time, which hold no
    flows, go with the first."""
    until = clock.now_ms() - after_hours * HOUR_MS
    days: dict[int, Day] = {}
    timeless = []
    for row in hot_segments(connection, consumed=True):
        if row.at is None:
            timeless.append(row)
        elif row.at // DAY_MS * DAY_MS + DAY_MS <= until:
            days.setdefault(row.at // DAY_MS * DAY_MS, Day(row.at // DAY_MS * DAY_MS)).segments.append(row)
    whole = lake.parts(connection, tables.lake_part.c.truncated.is_(None))
    by_day: dict[int, list[Part]] = {}
    for part in whole:
        by_day.setdefault(part.day, []).append(part)
    for start, parts in by_day.items():
        if start in days and len(parts) + 1 > PARTS_MAX:
            days[start].parts = parts
    unsorted = [part for part in whole if not is_sorted_by_all(connection, part)]
    for part in unsorted:
        day = days.setdefault(part.day, Day(part.day))
        if part not in day.parts:
            day.parts.append(part)
    found = [days[start] for start in sorted(days)]
    if found:
        found[0].segments += timeless
    return found


def hot_segments(connection: sa.Connection, *, consumed: bool) -> list[Any]:
    """Segments that are not in the lake, in order of time, with the instant `at` whose day they belong to; those that
    aggregation has taken, or those that it has not."""
    segment, taken, table = tables.segment, tables.consumed, tables.lake_segment
    at = sa.func.coalesce(segment.c.received_first, segment.c.start_first).label("at")
    is_taken = sa.exists().where(taken.c.segment_id == segment.c.id)
    query = (sa.select(segment, at).where(is_taken if consumed else ~is_taken,
                                          ~sa.exists().where(table.c.segment_id == segment.c.id))
             .order_by(at, segment.c.id))
    return list(connection.execute(query))


def _lease_version(connection: sa.Connection) -> int:
    return connection.execute(sa.select(sa.func.max(tables.input_change.c.version))).scalar() or 0


def is_sorted_by_all(connection: sa.Connection, part: Part) -> bool:
    """Whether the flows of every lease in the part's time are found by its order. Only if inputs of its time have changed
    are the leases looked at."""
    change = tables.input_change
    changed = connection.execute(sa.select(change.c.version).where(
        change.c.version > part.input_version, change.c.from_ms <= part.end_last, change.c.to_ms > part.start_first).limit(1))
    if changed.first() is None:
        return True
    lease = tables.lease
    inside = _prefixes(connection, lease.c.start_ms <= part.end_last, lease.c.end_ms > part.start_first)
    return Ranges.from_bytes(part.networks).hold_all_of(Ranges(inside))


def _confirm(connection: sa.Connection, unsorted: set[int]) -> None:
    """The parts that hold for all leases need not be looked at again before the next change."""
    table, version = tables.lake_part, _lease_version(connection)
    connection.execute(table.update().where(table.c.replaced.is_(None), table.c.truncated.is_(None),
                                            table.c.id.not_in(sorted(unsorted))).values(input_version=version))


def known_networks(connection: sa.Connection) -> Ranges:
    """The networks of all leases that there ever were, and private ones: whose addresses are subscribers'."""
    return Ranges([*PRIVATE, *_prefixes(connection)])


def _prefixes(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> Iterator[Prefix]:
    lease = tables.lease
    query = sa.select(lease.c.address, lease.c.prefix_length).where(*conditions).distinct()
    for row in connection.execute(query):
        yield Prefix(bytes(row.address), row.prefix_length)


# making a part --------------------------------------------------------------------------------------------------------
def _make(home: Home, engine: sa.Engine, day: Day, networks: Ranges, version: int, memory: int) -> NewPart:
    """Sort the flows of a day and write their files."""
    with sql.reading(engine) as connection:
        sources = [(part, lake.files_of(connection, part.id, FLOWS_KIND)) for part in day.parts]
        members = [row.id for row in day.segments] + segments_of(connection, [part.id for part in day.parts])
    for part in day.parts:
        networks = networks.united(Ranges.from_bytes(part.networks))
    name = name_of(day.start, sorted(members), networks.to_bytes(), [part.id for part in day.parts])
    taken, found, written = Taken(), Taken(), []
    for kind, number, table in sorted_tables(home, day, sources, networks, memory, taken):
        written.append(lake.write(home, path_of(home, day.start, name, kind, number), kind, table))
        if kind == FLOWS_KIND:
            found.add(table)
    if found != taken:
        raise RatemillError(f"compacting {format_instant(day.start)}: {taken.flows} flows went in, {found.flows} came out",
                            "nothing was changed; report it with what `ratemill storage verify` says")
    return NewPart(day.start, taken.row(day, networks, version), written, members, [part.id for part in day.parts])


def sorted_tables(home: Home, day: Day, sources: Sequence[tuple[Part, list[File]]], networks: Ranges, memory: int,
                  taken: Taken) -> Iterator[tuple[str, int, pa.Table]]:
    """The flows of a day in order, as tables of the size of files: kind, number of the file, table. What went in is counted in
    `taken`. Raises DamagedFile."""
    batches = sorting.in_order(home.folder("lake"), _SORTED, _keyed_rows(home, day, sources, networks, taken),
                               ("kind", *lake.ORDER), memory)
    yield from _in_files(batches)


def segments_of(connection: sa.Connection, parts: Sequence[int]) -> list[int]:
    """The segments that are read from these parts."""
    table = tables.lake_segment
    return list(connection.execute(sa.select(table.c.segment_id).where(table.c.part_id.in_(parts))
                                   .order_by(table.c.segment_id)).scalars())


def name_of(*ingredients: object) -> str:
    """A name that says what went in: made again after a crash, it is the same."""
    return hashlib.sha256(repr(ingredients).encode()).hexdigest()[:24]


def path_of(home: Home, day: int, name: str, kind: str, number: int) -> Path:
    """DuckDB and pyarrow take the day from the name of the folder."""
    return home.folder("lake") / f"day={format_instant(day)[:10]}" / f"{name}-{kind}-{number:04d}.parquet"


def _keyed_rows(home: Home, day: Day, sources: Sequence[tuple[Part, list[File]]], networks: Ranges,
                taken: Taken) -> Iterator[pa.RecordBatch]:
    """Rows under their keys, of both kinds, in any order; counted in `taken`."""
    for table in _rows(home, day, sources):
        taken.add(table)
        for number, keyed in enumerate(_keyed(table, networks)):
            kind = pa.array(np.full(keyed.num_rows, number, np.uint8))
            yield from keyed.append_column(_SORTED.field("kind"), kind).combine_chunks().to_batches()


def _rows(home: Home, day: Day, sources: Sequence[tuple[Part, list[File]]]) -> Iterator[pa.Table]:
    """Rows of the lake, not yet in order."""
    for row in day.segments:
        flows = read_own_file(home, row)
        for first in range(0, flows.num_rows, lake.FILE_FLOWS):
            piece = flows.slice(first, lake.FILE_FLOWS).combine_chunks()
            yield lake.from_flows(piece, row.id, np.zeros((piece.num_rows, 16), np.uint8), first)
    for _, found in sources:
        for file in found:
            for table in lake.read_whole(home, file, schemas.LAKE.names):
                yield table.cast(schemas.LAKE)


def _keyed(table: pa.Table, networks: Ranges) -> tuple[pa.Table, pa.Table]:
    """The rows by the end that is a subscriber's (of two the source, of none the source as well); and those of which both
    ends are, by the destination."""
    source, destination = (_words(table, end) for end in ("source", "destination"))
    ours = [networks.holds(numbers_of_words(*words)) for words in (source, destination)]
    by_destination = ~ours[0] & ours[1]
    near = [np.where(by_destination, other, one) for one, other in zip(source, destination, strict=True)]
    both = pa.array(ours[0] & ours[1])
    return _with_near(table, near), _with_near(table, destination).filter(both)


def _words(table: pa.Table, end: str) -> list[NDArray[np.uint64]]:
    return [table.column(f"{end}_{word}").to_numpy() for word in ("high", "low")]


def _with_near(table: pa.Table, near: Sequence[NDArray[np.uint64]]) -> pa.Table:
    for at, words in enumerate(near):
        table = table.set_column(at, schemas.LAKE.field(at), pa.array(words))
    return table


@dataclass
class Taken:
    """What went in, or came out: whole sums, the same in any order."""

    flows: int = 0
    octets: int = 0
    received_first: int = 0
    received_last: int = 0
    start_first: int = 0
    end_last: int = 0
    check: int = 0
    """Sum over the rows of a hash of segment and row: each row once, and no other."""

    def add(self, table: pa.Table) -> None:
        if not table.num_rows:
            return
        received, start, end = (table.column(name).cast(pa.int64()).to_numpy() for name in ("received", "start", "end"))
        bounds = (int(received.min()), int(received.max()), int(start.min()), int(end.max()))
        if self.flows:
            bounds = (min(self.received_first, bounds[0]), max(self.received_last, bounds[1]),
                      min(self.start_first, bounds[2]), max(self.end_last, bounds[3]))
        self.received_first, self.received_last, self.start_first, self.end_last = bounds
        self.flows += table.num_rows
        self.octets += int(table.column("octets").to_numpy().astype(object).sum())
        identity = table.column("segment").to_numpy().astype(np.uint64) << np.uint64(32)
        identity |= table.column("row").to_numpy().astype(np.uint64)
        for words in (_words(table, "source"), _words(table, "destination")):
            identity = _mixed(identity ^ words[0]) + words[1]
        self.check = (self.check + int(_mixed(identity).sum(dtype=np.uint64))) % 2**64

    def row(self, day: Day, networks: Ranges, version: int) -> dict[str, Any]:
        return {"flows": self.flows, "octets": self.octets, "received_first": self.received_first if self.flows else day.start,
                "received_last": self.received_last if self.flows else day.start,
                "start_first": self.start_first if self.flows else day.start,
                "end_last": self.end_last if self.flows else day.start, "networks": networks.to_bytes(),
                "input_version": version, "truncated": None}


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64: every bit depends on every bit."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _in_files(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[str, int, pa.Table]]:
    """Rows in order as tables of the size of files: kind, number of the file, table."""
    waiting: list[pa.RecordBatch] = []
    count, number, kind = 0, 0, 0
    for whole in batches:
        for batch in _by_kind(whole):
            its_kind = batch.column("kind")[0].as_py()
            if its_kind != kind:
                if waiting:
                    yield _KINDS[kind], number, _table(waiting)
                waiting, count, number, kind = [], 0, 0, its_kind
            while count + batch.num_rows >= lake.FILE_FLOWS:
                cut = lake.FILE_FLOWS - count
                yield _KINDS[kind], number, _table([*waiting, batch.slice(0, cut)])
                batch, waiting, count, number = batch.slice(cut), [], 0, number + 1
            if batch.num_rows:
                waiting.append(batch)
                count += batch.num_rows
    if waiting:
        yield _KINDS[kind], number, _table(waiting)


def _by_kind(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
    edge = int(np.searchsorted(batch.column("kind").to_numpy(), 1))
    return [part for part in (batch.slice(0, edge), batch.slice(edge)) if part.num_rows]


def _table(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(batches).select(schemas.LAKE.names).cast(schemas.LAKE).combine_chunks()


# SQL and files that went out of use -----------------------------------------------------------------------------------
def register(connection: sa.Connection, new: NewPart, actor: Actor, action: str) -> int:
    """Let a part count in the place of the segments' own files and of other parts, inside the caller's transaction."""
    part, member = tables.lake_part, tables.lake_segment
    now = clock.now_ms()
    detail = {"day": format_instant(new.day)[:10], "segments": len(new.segments), "replaces": new.replaces}
    version = next_version(connection, now, "lake", json.dumps(detail))
    inserted = connection.execute(part.insert().values(**new.row, day=new.day, at=now, manifest_version=version))
    key = inserted.inserted_primary_key
    assert key is not None, "the database gives row ids"
    for file in new.files:
        connection.execute(tables.lake_file.insert().values(**file.row(), part_id=key[0]))
    own_file: dict[int, int] = {}
    if new.replaces:
        rows = connection.execute(sa.select(member).where(member.c.part_id.in_(new.replaces)))
        own_file = {row.segment_id: row.own_file for row in rows}
        done = connection.execute(part.update().where(part.c.id.in_(new.replaces), part.c.replaced.is_(None),
                                                      part.c.deleted.is_(None)).values(replaced=now))
        assert done.rowcount == len(new.replaces), "only parts that count are replaced"
        connection.execute(member.delete().where(member.c.part_id.in_(new.replaces)))
    if new.segments:
        connection.execute(member.insert(), [{"segment_id": one, "part_id": key[0], "own_file": own_file.get(one, 1)}
                                             for one in new.segments])
    audit.record(connection, actor, action, f"lake part {key[0]}", {"parts": new.replaces} if new.replaces else None,
                 {**detail, "flows": new.row["flows"], "files": len(new.files)})
    return int(key[0])


def sweep(home: Home, engine: sa.Engine) -> int:
    """Delete what killed runs left behind, and what was replaced longer ago than any reader reads. Returns how many files.

    The caller holds the lease of the job."""
    folder = home.folder("lake")
    for scratch in folder.glob(f"{sorting.SCRATCH}*"):
        shutil.rmtree(scratch, ignore_errors=True)
    count = files.sweep_temporaries(folder)
    with sql.reading(engine) as connection:
        known = set(connection.scalars(sa.select(tables.lake_file.c.path)))
        own, replaced = out_of_use(connection, home)
    for path in sorted(folder.rglob("*.parquet")):
        if home.relative(path) not in known:
            files.remove(path)
            count += 1
    for name in [*own.values(), *replaced]:
        files.remove(home.path / name)
    table, member = tables.lake_file, tables.lake_segment
    with sql.transaction(engine) as connection:
        for some in _some(replaced):
            connection.execute(table.delete().where(table.c.path.in_(some)))
        for some in _some(list(own)):
            connection.execute(member.update().where(member.c.segment_id.in_(some)).values(own_file=0))
    return count + len(own) + len(replaced)


def _some(values: list[Any]) -> Iterator[list[Any]]:
    for first in range(0, len(values), _SQL_VALUES_MAX):
        yield values[first : first + _SQL_VALUES_MAX]


def out_of_use(connection: sa.Connection, home: Home) -> tuple[dict[int, str], list[str]]:
    """Files, below the home, that nobody reads any more: own files of segments in the lake, by segment; and files of parts
    that were replaced or deleted. All of them longer ago than `replaced_keep_hours`."""
    bounds, _ = lake_settings.from_document(home.document)
    before = clock.now_ms() - bounds.replaced_keep_hours * HOUR_MS
    segment, member, part, file = tables.segment, tables.lake_segment, tables.lake_part, tables.lake_file
    own = (sa.select(segment.c.id, segment.c.path).join(member, member.c.segment_id == segment.c.id)
           .join(part, part.c.id == member.c.part_id).where(member.c.own_file == 1, part.c.at <= before).order_by(segment.c.id))
    gone = (sa.select(file.c.path).join(part, part.c.id == file.c.part_id)
            .where(sa.or_(part.c.replaced <= before, part.c.deleted <= before)).order_by(file.c.id))
    return {row.id: row.path for row in connection.execute(own)}, list(connection.scalars(gone))
