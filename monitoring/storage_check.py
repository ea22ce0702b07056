"""`storage verify`: whether every file is there and still holds what was written, before anybody needs it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from core import tables
from core.errors import DamagedFile
from storage import files, sql
from storage.home import Home
from storage.inventory import named_files
from storage.journal import JournalReader, journal_files, oldest_block

COLUMNS = ("kind", "path", "what", "do")
AFTER = "what was decoded of it is in segments; collecting names the rest as lost"
RESTORE = "restore it from a backup"


@dataclass(frozen=True, slots=True)
class Found:
    """Something wrong with a file."""

    kind: str
    path: str
    what: str
    do: str

    def row(self) -> dict[str, str]:
        return asdict(self)


@dataclass
class Verified:
    """How much was looked at."""

    files: int = 0
    octets: int = 0
    blocks: int = 0
    problems: int = 0


def verify(home: Home, done: Verified) -> Iterator[Found]:
    """Read every named file and every block of the journal; counts in `done`. Bounded memory; takes no lock.

    A file that is replaced while this runs is looked up again before it is called missing.
    """
    for found in _problems(home, done):
        done.problems += 1
        yield found


def _problems(home: Home, done: Verified) -> Iterator[Found]:
    engine = sql.engine(home)
    if engine.dialect.name == "sqlite":
        with sql.reading(engine) as connection:
            for (told,) in connection.exec_driver_sql("PRAGMA integrity_check(20)"):
                if told != "ok":
                    yield Found("database", "ratemill.db", told, RESTORE)
    with sql.reading(engine) as connection:
        named = list(named_files(connection))
    for one in named:
        path = home.path / one.path
        try:
            done.octets += path.stat().st_size if path.exists() else 0
            files.verify(path, one.digest)
        except (DamagedFile, OSError) as error:
            with sql.reading(engine) as connection:
                if one not in set(named_files(connection)):
                    continue  # it was replaced meanwhile
            what = error.message if isinstance(error, DamagedFile) else str(error)
            yield Found(one.kind, one.path, what.removeprefix(f"{path} "),
                        f"run `{one.rebuild}`, or {RESTORE}" if one.rebuild else RESTORE)
        else:
            done.files += 1
    yield from _of_journal(home, engine, done)


def _of_journal(home: Home, engine: sa.Engine, done: Verified) -> Iterator[Found]:
    """Blocks that can't be read; at the end of the journal only those that were decoded before: the rest was never whole."""
    journal = home.folder("journal")
    position = tables.decoder_position
    with sql.reading(engine) as connection:
        decoded = {row.collector: row.block for row in connection.execute(sa.select(position.c.collector, position.c.block))}
    for folder in sorted(path for path in journal.iterdir() if path.is_dir()):
        first = oldest_block(journal, folder.name)
        if first is None:
            continue
        reader = JournalReader(journal, folder.name, first, one_at_a_time=True)
        try:
            for block in reader.blocks():
                done.blocks += 1
                done.octets += len(block.body)
        finally:
            reader.close()
        for damage in reader.damage:
            yield Found("journal", home.relative(damage.path), f"at {damage.offset}: {damage.what}, {damage.blocks} blocks",
                        AFTER)
        last = decoded.get(folder.name, -1)
        if reader.next_block <= last:
            newest = journal_files(folder)[-1]
            yield Found("journal", home.relative(newest), f"blocks {reader.next_block} to {last} can't be read", AFTER)
