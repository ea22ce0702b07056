"""Interface counters and exporters in a real PostgreSQL: the same rows as in SQLite. Skipped where it is not installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import frames as f
import pytest
import sqlalchemy as sa
from journal_bodies import NOW_MS, Datagram, body_of

from collector import commits, listing, segments
from collector.decoder import Decoder
from collector.segment_builder import SegmentBuilder
from collector.settings import CollectorSettings
from core import tables
from core.addresses import parse_address
from storage import sql
from storage.home import Home


def _as_postgres(*command: str) -> list[str]:
    """PostgreSQL refuses to run as root."""
    drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    return [*drop, *command]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not shutil.which("initdb") or not shutil.which("pg_ctl"):
        pytest.skip("PostgreSQL is not installed")
    folder = Path("/tmp") / f"ratemill-postgresql-{os.getpid()}"  # a socket's path must be short
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    data = str(folder / "data")
    quiet = {"check": True, "capture_output": True, "timeout": 120, "cwd": "/"}
    subprocess.run(_as_postgres("initdb", "-D", data, "-U", "ratemill", "-A", "trust", "--no-sync"), **quiet)  # type: ignore[call-overload]
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    # its own output must not go to our pipe: it would stay open as long as the server runs
    subprocess.run(_as_postgres("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start"),
                   check=True, timeout=120, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"postgresql+psycopg://ratemill@/postgres?host={folder}"
    finally:
        subprocess.run(_as_postgres("pg_ctl", "-D", data, "-m", "immediate", "stop"), **quiet)  # type: ignore[call-overload]
        shutil.rmtree(folder)


@pytest.fixture
def home(url: str, tmp_path: Path) -> Iterator[Home]:
    (tmp_path / "ratemill.toml").write_text(f'[database]\nurl = "{url}"\n')
    made = Home(tmp_path)
    made.create()
    yield made
    sql.engine(made).dispose()
    sql.forget_engines()


def test_counters_are_stored_once_and_thinned(home: Home) -> None:
    minute = NOW_MS // 60_000 * 60_000
    decoder = Decoder(CollectorSettings())
    readings = [(1_000, 10), (20_000, 2**64 - 2), (61_000, 30), (20_000, 99), (40_000, 2**63)]
    for block, (at, octets) in enumerate(readings):
        payload = f.sflow(f.counter_sample(f.interface_counters(7, octets, 1)), f.drop_sample(), sequence=block)
        builder = SegmentBuilder(home, "one", "digest")
        builder.add(decoder.feed(body_of([Datagram(payload, minute + at)]), block, builder.columns), block)
        segment = builder.write()
        with sql.transaction(sql.engine(home)) as connection:
            segments.register(connection, [segment], 1)
            commits.write_exporters(connection, "one", decoder.state.exporters())
    with sql.reading(sql.engine(home)) as connection:
        rows = connection.execute(sa.select(tables.interface_counter).order_by(tables.interface_counter.c.at)).all()
    found = [(row.interface, row.at - minute, row.in_octets, row.source, row.segment_id) for row in rows]
    assert found == [(7, 40_000, -(2**63), "sflow", 5), (7, 61_000, 30, "sflow", 3)]
    assert {bytes(row.exporter) for row in rows} == {parse_address("192.0.2.1")}
    assert [row["drop_samples"] for row in listing.exporters(home)] == [5]
