"""The SQL engine and its transactions: SQLite (WAL, synchronous=FULL) by default, PostgreSQL by `[database] url`.

A write transaction of SQLite begins IMMEDIATE: it waits for the other writer at its start, never fails in its middle.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as postgresql_dialect
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.exc import OperationalError

from core.errors import DependencyDown, Locked, RatemillError
from core.settings import Document, read_section, setting
from storage.home import Home

BUSY_SECONDS_MAX = 30


@dataclass(frozen=True)
class DatabaseSettings:
    """[database]: where accounts, the manifest, invoices and the ledger live."""

    url: str = setting("", what="SQLAlchemy URL of a PostgreSQL database; empty: ratemill.db in the home.")


def database_settings(document: Document) -> DatabaseSettings:
    return read_section(document, "database", DatabaseSettings)


def engine(home: Home) -> sa.Engine:
    """The engine of a home, with every package's migrations applied."""
    url = database_settings(home.document).url or f"sqlite:///{home.path / 'ratemill.db'}"
    return _engine(url)


@lru_cache(maxsize=8)
def _engine(url: str) -> sa.Engine:
    from storage import migrations

    made = sa.create_engine(url, **_options(url))
    if made.dialect.name == "sqlite":
        sa.event.listen(made, "connect", _prepare_sqlite)
        sa.event.listen(made, "begin", _begin_sqlite)
    _made.add(made)
    with _explained(made):
        migrations.apply(made)
    return made


_made: WeakSet[sa.Engine] = WeakSet()


def forget_engines() -> None:
    """Close what this process has open, before it forks: a child must not share connections with its parent."""
    for made in list(_made):
        made.dispose()
    _engine.cache_clear()


def _options(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": BUSY_SECONDS_MAX, "check_same_thread": False}, "poolclass": sa.NullPool}
    return {"pool_pre_ping": True}


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # BEGIN is ours to say
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={BUSY_SECONDS_MAX * 1000}",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("ratemill_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def transaction(bound: sa.Engine) -> Iterator[sa.Connection]:
    """A write transaction: committed at the end, rolled back on any exception."""
    with _explained(bound), bound.connect().execution_options(ratemill_writes=True) as connection, connection.begin():
        yield connection


@contextmanager
def reading(bound: sa.Engine) -> Iterator[sa.Connection]:
    """A read transaction: one consistent view."""
    with _explained(bound), bound.connect() as connection:
        if bound.dialect.name == "postgresql":  # its default gives each statement a view of its own
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection


def insert_new(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; one whose unique key is there already is left out."""
    made: Any = {"sqlite": sqlite_dialect, "postgresql": postgresql_dialect}[connection.dialect.name].insert(table)
    connection.execute(made.on_conflict_do_nothing(), list(rows))


@contextmanager
def _explained(bound: sa.Engine) -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise _explain(error, bound) from error


def _explain(error: OperationalError, bound: sa.Engine) -> RatemillError:
    text = str(error.orig)
    if "locked" in text:
        return Locked(
            f"the database {bound.url.render_as_string()} is held by another writer for over {BUSY_SECONDS_MAX} s",
            "wait for it to end, or look who it is with `ratemill status`",
        )
    if "full" in text:
        return RatemillError(
            f"the database can't be written: {text}",
            "free some space and run the same command again; nothing is half written",
        )
    if bound.dialect.name == "sqlite":
        return RatemillError(
            f"the database {bound.url.database} can't be used: {text}",
            "check that the file and its folder belong to this user",
        )
    return DependencyDown(
        f"the database {bound.url.render_as_string()} does not answer: {text.strip()}",
        "start it, or correct [database] url in ratemill.toml",
    )
