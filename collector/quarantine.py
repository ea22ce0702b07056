"""Datagrams of unknown exporters, kept until the settings name their exporter: `[collector] unknown_exporters`.

They are counted as refused when they come, and their entries are copied from the journal into files
`quarantine/COLLECTOR-FIRSTBLOCK-LASTBLOCK.entries`, one a segment at most, which one transaction registers together with
the segment. All of them together take at most `quarantine_octets_max`; the oldest go first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from core import clock, tables
from storage import files, sql
from storage.home import Home
from storage.journal import ENTRY_SIZE

Octets = NDArray[np.uint8]

_RECEIVED, _LENGTH, _SOURCE = slice(0, 8), slice(8, 12), slice(24, 40)


@dataclass(frozen=True, slots=True)
class Held:
    """A file of kept entries that is written; `register` makes it count."""

    path: str
    row: dict[str, Any]


@dataclass
class Builder:
    """Collects entries until the segment beside them is written; the oldest go when there are too many."""

    collector: str
    octets_max: int
    parts: list[tuple[int, Octets]] = field(default_factory=list)
    octets: int = 0
    left_out: int = 0

    def add(self, entries: Octets, block: int) -> None:
        """Keep the entries of a journal block."""
        if not len(entries):
            return
        self.parts.append((block, entries))
        self.octets += len(entries)
        while self.octets > self.octets_max and self.parts:
            _, oldest = self.parts.pop(0)
            self.octets -= len(oldest)
            self.left_out += sum(1 for _ in entries_of(oldest))

    def write(self, home: Home) -> Held | None:
        """Write the file and empty the builder; None if nothing was kept. Raises RatemillError."""
        if not self.parts:
            self.left_out = 0
            return None
        data = np.concatenate([entries for _, entries in self.parts])
        name = f"{self.collector}-{self.parts[0][0]:012d}-{self.parts[-1][0]:012d}.entries"
        path = home.folder("quarantine") / name
        digest = files.write_whole(path, data.tobytes())
        received = [received_of(entry) for entry in entries_of(data)]
        relative = home.relative(path)
        row = {"collector": self.collector, "path": relative, "digest": digest, "octets_size": len(data),
               "datagrams": len(received), "left_out": self.left_out, "received_first": min(received),
               "received_last": max(received), "dropped": None}
        self.parts, self.octets, self.left_out = [], 0, 0
        return Held(relative, row)


def entries_of(data: Octets) -> Iterator[Octets]:
    """The entries that lie back to back."""
    at = 0
    while at + ENTRY_SIZE <= len(data):
        size = ENTRY_SIZE + int(data[at : at + 12][_LENGTH].view(np.uint32)[0]) + 7 & ~7
        yield data[at : at + size]
        at += size


def received_of(entry: Octets) -> int:
    """When an entry's datagram arrived."""
    return int(entry[_RECEIVED].view(np.int64)[0])


def source_of(entry: Octets) -> bytes:
    """From which address an entry's datagram came."""
    return entry[_SOURCE].tobytes()


def register(connection: sa.Connection, held: Held | None, octets_max: int) -> list[str]:
    """Make a file count, inside the transaction that registers its segment; returns the files that have to go for it."""
    if held is None:
        return []
    table = tables.quarantine_file
    connection.execute(table.insert().values(held.row))
    there = connection.execute(sa.select(table.c.id, table.c.path, table.c.octets_size).where(
        table.c.dropped.is_(None)).order_by(table.c.id.desc())).all()
    kept, gone = 0, []
    for row in there:
        kept += row.octets_size
        if kept > octets_max:
            gone.append(row)
    if gone:
        connection.execute(table.update().where(table.c.id == sa.bindparam("file")).values(dropped=clock.now_ms()),
                           [{"file": row.id} for row in gone])
    return [row.path for row in gone]


def remove(home: Home, paths: Sequence[str]) -> None:
    """Delete files that no longer count."""
    for path in paths:
        files.remove(home.path / path)


def sweep(home: Home, engine: sa.Engine, collector: str) -> int:
    """Delete a collector's files that no row names: a process was killed in between. Returns how many."""
    block = "[0-9]" * 12
    found = {home.relative(path) for path in home.folder("quarantine").glob(f"{collector}-{block}-{block}.entries")}
    if not found:
        return 0
    table = tables.quarantine_file
    with sql.reading(engine) as connection:
        known = set(connection.scalars(
            sa.select(table.c.path).where(table.c.collector == collector, table.c.dropped.is_(None))))
    remove(home, sorted(found - known))
    return len(found - known)
