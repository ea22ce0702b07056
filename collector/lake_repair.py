"""Files of the lake that were lost, made again from the flows of their part's segments: sorted as they were, to the octet.

The flows come from the segments' own files as long as these are kept, else from the datagram journal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from collector import compaction, lake_settings, repair
from core import tables
from core.errors import DamagedFile
from core.networks import Ranges
from storage import files, lake, sql
from storage.home import Home
from storage.lake import FLOWS_KIND, MIRROR_KIND, Part


@dataclass
class Remade:
    """Files below the home that were put back; and of the others why they were not."""

    placed: list[str] = field(default_factory=list)
    why: str = ""
    do: str = "restore it from a backup"


def remake(home: Home, part: Part, damaged: Sequence[str], note: Callable[[str], None], *, dry_run: bool) -> Remade:
    """Make the damaged files of a part again; `note` is called with each before it is replaced. The caller holds the lease of
    `compaction.JOB`, but for a dry run, which finds out whether the flows can be had, and writes nothing.

    Raises RatemillError."""
    if part.truncated is not None or part.deleted is not None:
        return Remade(why="its flows were truncated as [retention] says: what was decoded does not hold them any more")
    with sql.reading(sql.engine(home)) as connection:
        members = compaction.segments_of(connection, [part.id])
        rows = _rows(connection, members)
        known = {file.path: file for kind in (FLOWS_KIND, MIRROR_KIND) for file in lake.files_of(connection, part.id, kind)}
    lost = [row for row in rows if not _is_whole(home, row)]
    brought: list[Path] = []
    try:
        for again in repair.decode_again(home, lost, store=not dry_run):
            if not again.is_same:
                return Remade(why=f"of its segment {again.row.path}: {again.why}", do=again.do)
            if again.file is not None:
                path = home.path / again.row.path
                if not path.exists():
                    brought.append(path)
                repair.place(home, again)
        if dry_run:
            return Remade(placed=list(damaged))
        return _sorted_again(home, part, rows, {path: known[path] for path in damaged}, note)
    finally:
        for path in brought:
            files.remove(path)


def _rows(connection: sa.Connection, members: Sequence[int]) -> list[Any]:
    segment = tables.segment
    found: list[Any] = []
    for first in range(0, len(members), 500):
        some = sa.select(segment).where(segment.c.id.in_(members[first : first + 500])).order_by(segment.c.id)
        found += connection.execute(some)
    return found


def _is_whole(home: Home, row: Any) -> bool:
    try:
        files.verify(home.path / row.path, row.digest)
    except DamagedFile:
        return False
    return True


def _sorted_again(home: Home, part: Part, rows: list[Any], damaged: dict[str, lake.File],
                  note: Callable[[str], None]) -> Remade:
    bounds, _ = lake_settings.from_document(home.document)
    remade = Remade()
    day = compaction.Day(part.day, rows)
    wanted = {path.rpartition("-")[0].rpartition("-")[2] + path[path.rindex("-"):]: path for path in damaged}
    for kind, number, table in compaction.sorted_tables(home, day, [], Ranges.from_bytes(part.networks),
                                                        bounds.memory_octets_max, compaction.Taken()):
        path = wanted.get(f"{kind}-{number:04d}.parquet")
        if path is None:
            continue
        made = lake.write(home, files.temporary_name(home.path / path), kind, table)
        try:
            if made.digest != damaged[path].digest:
                remade.why = "its flows are the same, but this version writes them into another file"
                continue
            note(path)
            files.finish_whole(home.path / made.path, home.path / path)
            remade.placed.append(path)
        finally:
            files.remove(home.path / made.path)
    if len(remade.placed) < len(damaged) and not remade.why:
        remade.why = "its part of the lake has other files now"
    return remade
