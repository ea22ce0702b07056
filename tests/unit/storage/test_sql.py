from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from core import tables
from core.errors import DamagedFile, Locked, RatemillError
from runtime import jobs
from storage import files, sql
from storage.home import Home


@pytest.fixture
def engine(tmp_path: Path) -> sa.Engine:
    (tmp_path / "ratemill.toml").write_text("")
    return sql.engine(Home(tmp_path))


def test_the_migrated_database_is_what_the_tables_describe(engine: sa.Engine) -> None:
    inspector = sa.inspect(engine)
    assert set(tables.metadata.tables) == set(inspector.get_table_names()) - {"schema_migration", "sqlite_sequence"}
    for name, table in tables.metadata.tables.items():
        found = {column["name"]: column for column in inspector.get_columns(name)}
        assert list(found) == [column.name for column in table.columns], name
        for column in table.columns:
            described = found[column.name]
            assert isinstance(described["type"], (sa.BigInteger, sa.Integer, sa.Text, sa.LargeBinary)), (
                name,
                column.name,
            )
            same = isinstance(described["type"], sa.Integer) == isinstance(column.type, sa.Integer)
            assert same, (name, column.name)
            assert described["nullable"] == bool(column.nullable) or column.primary_key, (name, column.name)
        keys = inspector.get_pk_constraint(name)["constrained_columns"]
        assert keys == [column.name for column in table.primary_key.columns], name


def test_a_transaction_is_whole_or_absent(engine: sa.Engine) -> None:
    row = {"at": 1, "kind": "test", "from_ms": 0, "to_ms": 1, "detail": ""}
    with pytest.raises(ZeroDivisionError), sql.transaction(engine) as connection:
        connection.execute(tables.input_change.insert().values(row))
        raise ZeroDivisionError
    with sql.reading(engine) as connection:
        assert connection.execute(sa.select(tables.input_change)).all() == []


def test_a_database_of_a_newer_version_is_refused(engine: sa.Engine, tmp_path: Path) -> None:
    with sql.transaction(engine) as connection:
        connection.execute(sa.text("INSERT INTO schema_migration VALUES ('storage', 9999, 'future', 0)"))
    sql.forget_engines()
    with pytest.raises(RatemillError, match="newer ratemill"):
        sql.engine(Home(tmp_path))


def test_a_held_job_says_by_whom_and_a_dead_owner_is_replaced(engine: sa.Engine) -> None:
    with jobs.hold(engine, "rate"):
        with pytest.raises(Locked, match="process"), jobs.hold(engine, "rate"):
            pass
        with sql.transaction(engine) as connection:  # as if its owner had been killed and its number used again
            connection.execute(tables.job_lease.update().values(pid_started=1))
        with jobs.hold(engine, "rate"):
            pass


def test_a_file_is_verified_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    digest = files.write_whole(path, b"flows")
    assert files.verify(path, digest) == path
    path.write_bytes(b"flowS")
    with pytest.raises(DamagedFile, match="does not match"):
        files.verify(path, digest)


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    class Full(files.SystemFileSystem):
        def write(self, descriptor: int, data: files.Buffer) -> int:
            raise OSError(28, "No space left on device")

    before = files.use(Full())
    try:
        with pytest.raises(RatemillError, match="can't be written") as caught:
            files.write_whole(tmp_path / "x", b"data")
    finally:
        files.use(before)
    assert "free some space" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
