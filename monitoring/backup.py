"""`storage backup` and `restore`: a home as of one instant, taken while everything runs.

The database is copied first, as of one transaction (SQLite's online backup); then every file that this copy names, verified
while it is copied; then the journal, which has at least what the copy has not decoded yet; then settings and what belongs to
them. A list of all files with their SHA-256 is written last: a backup without it is none. A restored home is checked against
the list before it gets its name, so it is whole or not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import xxhash

from core import clock
from core.errors import DamagedFile, RatemillError, UsageError
from core.periods import format_instant
from storage import files, sql
from storage.home import FOLDERS, SETTINGS_FILE, Home
from storage.inventory import named_files

LIST = "backup.json"
FORMAT = 1
DATABASE = "ratemill.db"
BESIDE = ("registries", "documents", "tls")
"""Folders that are taken as they are."""
ATTEMPTS = 3
PIECE = 4 << 20


class _Vanished(Exception):
    """A file was replaced between the copy of the database and now."""


@dataclass
class Taken:
    """What a backup holds: path → size and SHA-256."""

    entries: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def octets(self) -> int:
        return sum(size for size, _ in self.entries.values())


def backup(home: Home, to: Path) -> dict[str, Any]:
    """Write a backup into the new folder `to`; returns what was taken. Raises RatemillError, then nothing is left of it."""
    if sql.database_settings(home.document).url:
        raise RatemillError("the database is a PostgreSQL, of which this command takes no copy",
                            "stop `ratemill run`, dump it with pg_dump, copy the home's folders (docs/how-to/back-up.md)")
    if to.exists():
        raise UsageError(f"{to} is there already", "name a new folder: each backup is whole by itself")
    if to.absolute().is_relative_to(home.path):
        raise UsageError(f"{to} is inside of the home", "name a folder on another disk")
    sql.engine(home)  # migrations are applied
    at = clock.now_ms()
    partial = to.with_name(f".{to.name}.partial")
    for attempt in range(1, ATTEMPTS + 1):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True, mode=0o700)
            taken = _take(home, partial)
            listed = {"format": FORMAT, "ratemill": metadata.version("ratemill"), "at": format_instant(at),
                      "files": [{"path": path, "size": size, "sha256": digest}
                                for path, (size, digest) in sorted(taken.entries.items())]}
            files.write_whole(partial / LIST, (json.dumps(listed, indent=1) + "\n").encode())
            os.rename(partial, to)
        except _Vanished:
            if attempt < ATTEMPTS:
                continue
            shutil.rmtree(partial, ignore_errors=True)
            raise RatemillError("files were replaced faster than they could be copied",
                                "try again when less is going on") from None
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise files.explain(error, to) from error
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return {"backup": str(to), "at": format_instant(at), "files": len(taken.entries), "octets": taken.octets}
    raise AssertionError("the last attempt returns or raises")


def _take(home: Home, to: Path) -> Taken:
    taken = Taken()
    _copy_database(home, to, taken)
    made = sa.create_engine(f"sqlite:///{to / DATABASE}", poolclass=sa.NullPool)
    with made.connect() as connection:
        named = list(named_files(connection))
    for one in named:
        if one.path in taken.entries:
            continue
        _copy(home.path / one.path, to / one.path, taken, one.path, one.digest)
    last = [one for one in named if one.kind == "generation"]
    if last:
        pointer = to / "generations" / "current"
        pointer.write_text(Path(last[0].path).name, encoding="ascii")
        taken.entries["generations/current"] = _measured(pointer)
    for path in _beside(home):
        relative = home.relative(path)
        if relative not in taken.entries:
            _copy(path, to / relative, taken, relative)
    return taken


def _copy_database(home: Home, to: Path, taken: Taken) -> None:
    """The database as of one instant, and the decoders' states of it, which live only until the next commit."""
    path = home.path / DATABASE
    with closing(_connect(path)) as live, closing(_connect(path)) as writer, closing(_connect(to / DATABASE)) as copy:
        writer.execute("BEGIN IMMEDIATE")  # nobody commits while the states are copied
        live.execute("BEGIN")
        states = live.execute("SELECT state_path, state_digest FROM decoder_position WHERE state_path IS NOT NULL").fetchall()
        for state, digest in states:
            _copy(home.path / state, to / state, taken, state, digest)
        writer.execute("ROLLBACK")
        live.backup(copy)  # in one step, of the instant that the transaction sees
        live.execute("ROLLBACK")
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
    taken.entries[DATABASE] = _measured(to / DATABASE)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=sql.BUSY_SECONDS_MAX, isolation_level=None)


def _beside(home: Home) -> Iterator[Path]:
    """The journal, the settings and what belongs to them."""
    yield home.path / SETTINGS_FILE
    for name in ("journal", *BESIDE):
        folder = home.path / name
        if folder.is_dir():
            yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(".tmp"))


def _copy(source: Path, target: Path, taken: Taken, relative: str, digest: str = "") -> None:
    """Copy and hash in one go; a file that grows is taken up to where it is. Raises _Vanished, DamagedFile, OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sha256, fast, size = hashlib.sha256(), xxhash.xxh3_128(), 0
    try:
        with source.open("rb") as reading, target.open("xb") as writing:
            os.fchmod(writing.fileno(), os.fstat(reading.fileno()).st_mode & 0o777)
            while piece := reading.read(PIECE):
                sha256.update(piece)
                fast.update(piece)
                writing.write(piece)
                size += len(piece)
            writing.flush()
            os.fsync(writing.fileno())
    except FileNotFoundError:
        raise _Vanished from None
    if digest and digest not in (sha256.hexdigest(), fast.hexdigest()):
        raise DamagedFile(f"{source} does not match its digest", "`ratemill storage verify` says what else is damaged and what "
                          "to do; a backup of damage would hide it")
    taken.entries[relative] = (size, sha256.hexdigest())


def _measured(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path.stat().st_size, files.digest_of(path)


def restore(source: Path, to: Path) -> dict[str, Any]:
    """Make the home `to` from a backup, after each of its files was verified. Raises RatemillError; then there is no home."""
    listed = _listed(source)
    if to.exists() and any(to.iterdir()):
        raise UsageError(f"{to} is not empty", "name a new home: a restore overwrites nothing")
    partial = to.absolute().with_name(f".{to.absolute().name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    taken = Taken()
    try:
        partial.mkdir(parents=True, mode=0o700)
        for entry in listed["files"]:
            path, expected = entry["path"], (entry["size"], entry["sha256"])
            try:
                _copy(source / path, partial / path, taken, path)
            except _Vanished:
                raise DamagedFile(f"{source / path} is missing", "take another backup") from None
            if taken.entries[path] != expected:
                raise DamagedFile(f"{source / path} is not what was backed up", "take another backup")
        for name in FOLDERS:
            (partial / name).mkdir(exist_ok=True)
        if to.exists():
            to.rmdir()
        os.rename(partial, to)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise files.explain(error, to) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return {"home": str(to), "of": listed["at"], "files": len(taken.entries), "octets": taken.octets}


def _listed(source: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((source / LIST).read_text(encoding="utf-8"))
        usable = found["format"] == FORMAT and all(_is_below(entry["path"]) for entry in found["files"])
    except FileNotFoundError:
        raise UsageError(f"{source} is no backup: it has no {LIST}",
                         "name a folder that `ratemill storage backup` made") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DamagedFile(f"{source / LIST} can't be read: {error}", "take another backup") from error
    if not usable:
        raise DamagedFile(f"{source / LIST} is not of a form that this version knows", "take another backup, or upgrade")
    return found


def _is_below(path: str) -> bool:
    return not path.startswith("/") and ".." not in Path(path).parts
