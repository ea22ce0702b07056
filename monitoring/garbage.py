"""`storage gc`: everything that may go, by the rules of each package: retention of flows, and files that nobody needs any more.

Each part is what its owner does by itself while `ratemill run` runs; here all of it is done at once, or only listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from aggregation import batches, cell_store, settings
from collector import compaction, jobs, retention
from collector.retention import WAITS, Step
from core.actor import Actor
from core.errors import Locked
from runtime.jobs import hold
from storage import files, generations, sql
from storage.home import Home

COLUMNS = ("what", "subject", "files", "flows", "octets", "why")


def collect(home: Home, actor: Actor, *, dry_run: bool = False) -> Iterator[Step]:
    """What goes, or would go, and what waits for something. Raises RatemillError."""
    for work in (retention.forget, _lake, _journal, _cells, _generations):
        try:
            yield from work(home, actor, dry_run=dry_run)
        except Locked as error:
            yield Step(WAITS, work.__name__.lstrip("_"), 0, 0, 0, error.message)


def _removed(home: Home, what: str, paths: list[Path], why: str, remove: Callable[[], object] | None) -> Iterator[Step]:
    octets = sum(path.stat().st_size for path in paths if path.exists())
    if remove is not None:
        remove()
    if paths:
        yield Step("remove", what, len(paths), 0, octets, why)


def _lake(home: Home, actor: Actor, *, dry_run: bool) -> Iterator[Step]:
    """Files that were compacted, replaced or given up long enough ago."""
    engine = sql.engine(home)

    def find() -> list[Path]:
        with sql.reading(engine) as connection:
            own, replaced = compaction.out_of_use(connection, home)
        return [home.path / path for path in (*own.values(), *replaced)]

    why = "compacted, replaced or given up longer ago than [lake] replaced_keep_hours"
    if dry_run:
        yield from _removed(home, "segments and lake", find(), why, None)
        return
    with hold(engine, compaction.JOB):
        yield from _removed(home, "segments and lake", find(), why, lambda: compaction.sweep(home, engine))


def _journal(home: Home, actor: Actor, *, dry_run: bool) -> Iterator[Step]:
    """Datagrams that are flows, and old enough."""
    found = jobs.old_journal_files(home)
    yield from _removed(home, "journal", found, "decoded, and older than [collector] journal_keep_hours",
                        None if dry_run else lambda: jobs.forget_datagrams(home))


def _cells(home: Home, actor: Actor, *, dry_run: bool) -> Iterator[Step]:
    """Files of batches that were replaced long enough ago, or that no row knows."""
    engine = sql.engine(home)
    keep = settings.bounds(home.document).replaced_keep_hours
    why = "of batches replaced longer ago than [aggregation] replaced_keep_hours, or of killed runs"
    if dry_run:
        yield from _removed(home, "cells", cell_store.unknown(home, batches.needed_files(engine, keep)), why, None)
        return
    with hold(engine, batches.JOB):
        needed = batches.needed_files(engine, keep)
        yield from _removed(home, "cells", cell_store.unknown(home, needed), why, lambda: batches.sweep(home, engine, keep))


def _generations(home: Home, actor: Actor, *, dry_run: bool) -> Iterator[Step]:
    """Published files beyond those that are kept."""
    from aggregation import publish

    engine = sql.engine(home)
    bounds = settings.bounds(home.document)
    why = "beyond [aggregation] generations_kept"

    def find() -> list[Path]:
        with sql.reading(engine) as connection:
            return generations.superseded(home, connection, bounds.generations_kept, bounds.generation_grace_minutes)

    if dry_run:
        yield from _removed(home, "generations", find(), why, None)
        return
    with hold(engine, publish.JOB):
        found = find()
        yield from _removed(home, "generations", found, why, lambda: _delete(found))


def _delete(paths: list[Path]) -> None:
    for path in paths:
        files.remove(path)
