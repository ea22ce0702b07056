"""DuckDB generations: immutable files of published usage, read-only for everybody, swapped in by a rename.

A generation is built under a temporary name, made durable, registered in the table `generation` and then named by the
pointer file `generations/current`. A reader that has one open keeps it; the last few stay on disk, older ones for a grace
period. Readers verify the file against its digest first: it is read for money.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from core import clock, tables
from core.errors import DamagedFile, NotFound
from core.periods import MINUTE_MS
from storage import files, sql
from storage.home import Home

if TYPE_CHECKING:
    import duckdb

STORAGE_VERSION = "v1.2.0"
"""The file format: one that DuckDB 1.2 and every later one can read."""

POINTER = "current"
_SUFFIX = ".duckdb"
_HINT = "publish it with `ratemill aggregate run` and `ratemill usage publish`"


@dataclass(frozen=True, slots=True)
class Generation:
    """A row of the table `generation`."""

    id: int
    at: int
    manifest_version: int
    input_version: int
    path: str
    digest: str


@dataclass(frozen=True, slots=True)
class Freshness:
    """What a generation does not hold yet; all zero and false: it is what segments and inputs say."""

    waiting_segments: int  # decoded, in no batch
    stale_batches: int  # made before a change of leases, subscriptions, plans or settings in their time
    unpublished: bool  # batches or inputs are newer than the generation

    @property
    def is_fresh(self) -> bool:
        return not (self.waiting_segments or self.stale_batches or self.unpublished)


def latest(connection: sa.Connection) -> Generation | None:
    """The newest generation that was registered."""
    table = tables.generation
    row = connection.execute(sa.select(table).order_by(table.c.id.desc()).limit(1)).one_or_none()
    return None if row is None else _generation(row)


def _generation(row: Any) -> Generation:
    return Generation(row.id, row.at, row.manifest_version, row.input_version, row.path, row.digest)


def freshness(connection: sa.Connection) -> Freshness:
    """How far the newest generation is behind what is stored."""
    segment, consumed, batch, change = tables.segment, tables.consumed, tables.batch, tables.input_change
    waiting = connection.execute(sa.select(sa.func.count()).select_from(segment).outerjoin(
        consumed, consumed.c.segment_id == segment.c.id).where(consumed.c.segment_id.is_(None))).scalar_one()
    later = sa.exists().where(change.c.version > batch.c.input_version, change.c.from_ms < batch.c.to_ms,
                              change.c.to_ms > batch.c.from_ms)
    stale = connection.execute(sa.select(sa.func.count()).select_from(batch)
                               .where(batch.c.to_version.is_(None), later)).scalar_one()
    generation = latest(connection)
    return Freshness(waiting, stale, generation is None or is_behind(connection, generation))


def is_behind(connection: sa.Connection, generation: Generation) -> bool:
    """Whether a batch came or went, or an input changed, since this generation was published."""
    batch, change = tables.batch, tables.input_change
    moved = sa.or_(batch.c.from_version > generation.manifest_version, batch.c.to_version > generation.manifest_version)
    return (connection.execute(sa.select(batch.c.id).where(moved).limit(1)).first() is not None
            or connection.execute(sa.select(change.c.version).where(change.c.version > generation.input_version)
                                  .limit(1)).first() is not None)


def current(home: Home) -> Generation:
    """The generation that the pointer names. Raises NotFound if nothing has been published."""
    try:
        name = (home.folder("generations") / POINTER).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise NotFound("no usage has been published yet", _HINT) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedFile(f"{home.folder('generations') / POINTER} can't be read: {error}", _HINT) from error
    path = home.relative(home.folder("generations") / Path(name).name)
    with sql.reading(sql.engine(home)) as connection:
        row = connection.execute(sa.select(tables.generation).where(tables.generation.c.path == path)).one_or_none()
    if row is None:
        raise DamagedFile(f"{path} is published, but the database does not know it", _HINT)
    return _generation(row)


def open_current(home: Home, *, verify: bool = True) -> duckdb.DuckDBPyConnection:
    """The current generation, read-only, times in UTC. Raises NotFound if there is none, DamagedFile if it was changed."""
    for _ in range(3):  # another may be published, and this one removed, between reading the pointer and opening
        generation = current(home)
        path = home.path / generation.path
        if path.exists():
            break
    if verify:
        files.verify(path, generation.digest)
    elif not path.exists():
        raise DamagedFile(f"{path} is missing", _HINT)
    return connect(path)


def connect(path: Path) -> duckdb.DuckDBPyConnection:
    """A generation's file, read-only; no extension is ever downloaded."""
    import duckdb

    connection = duckdb.connect(str(path), read_only=True, config={
        "autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def build(home: Home, name: str, fill: Callable[[duckdb.DuckDBPyConnection], None]) -> tuple[str, str]:
    """Make `generations/NAME.duckdb`: `fill` creates its tables in the attached database that is in use.

    Returns the path below the home and the SHA-256. Nothing is registered or pointed at yet.
    """
    path = home.folder("generations") / f"{name}{_SUFFIX}"

    def write(temporary: Path) -> None:
        _fill(temporary, fill)

    digest = files.build_whole(path, write)
    return home.relative(path), digest


def _fill(path: Path, fill: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
    import duckdb

    quoted = str(path).replace("'", "''")
    with duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"ATTACH '{quoted}' AS generation (STORAGE_VERSION '{STORAGE_VERSION}')")
        try:
            connection.execute("USE generation")
            fill(connection)
            connection.execute("CHECKPOINT generation")
        finally:
            connection.execute("USE memory")
            connection.execute("DETACH generation")  # writes the rest of its log into the file


def register(connection: sa.Connection, path: str, digest: str, manifest_version: int, input_version: int,
             fingerprint: str = "") -> None:
    """A row for a file that `build` made; `fingerprint` of what it shows beside the cells."""
    connection.execute(tables.generation_source.insert().values(path=path, fingerprint=fingerprint))
    connection.execute(tables.generation.insert().values(
        at=clock.now_ms(), manifest_version=manifest_version, path=path, digest=digest, input_version=input_version))


def source_of(connection: sa.Connection, generation: Generation) -> str | None:
    """The fingerprint of what it shows beside the cells; None for one of an older ratemill."""
    table = tables.generation_source
    return connection.scalar(sa.select(table.c.fingerprint).where(table.c.path == generation.path))


def swap(home: Home, generation: Generation) -> bool:
    """Let the pointer name this generation; readers see the old one or the new one, never neither. Whether it moved."""
    pointer = home.folder("generations") / POINTER
    name = Path(generation.path).name
    if pointer.is_file() and pointer.read_bytes() == f"{name}\n".encode():
        return False
    files.write_whole(pointer, f"{name}\n".encode())
    return True


def tidy(home: Home, connection: sa.Connection, keep: int, grace_minutes: int) -> int:
    """Delete what killed publishers left behind and generations beyond the newest `keep` whose grace is over."""
    folder = home.folder("generations")
    files.sweep_temporaries(folder)
    for log in folder.glob(".*.tmp.wal"):
        files.remove(log)
    found = superseded(home, connection, keep, grace_minutes)
    for path in found:
        files.remove(path)
    return len(found)


def superseded(home: Home, connection: sa.Connection, keep: int, grace_minutes: int) -> list[Path]:
    """Files of generations beyond the newest `keep` whose grace is over."""
    table = tables.generation
    rows = [_generation(row) for row in connection.execute(sa.select(table).order_by(table.c.id.desc()))]
    latest_removal = clock.now_ms() - grace_minutes * MINUTE_MS
    kept = {row.path for row in rows[:keep]}
    kept |= {row.path for row, successor in zip(rows[1:], rows, strict=False) if successor.at > latest_removal}
    return [path for path in sorted(home.folder("generations").glob(f"*{_SUFFIX}")) if home.relative(path) not in kept]
