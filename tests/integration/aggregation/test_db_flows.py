"""The view `flows` of a generation: the flows that `flows export` shows, as text and timestamps, pruned by day and address."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa
from aggregation_town import add_segment, make_home
from harness import rows, run_cli
from oracles.slow_usage import Flow, Lease, World

from aggregation import flow_view
from aggregation.batches import aggregate
from aggregation.publish import publish
from collector import compaction
from core import tables
from core.actor import Actor
from core.addresses import format_address
from core.networks import words_of
from core.periods import DAY_MS, OPEN_END, OPEN_START, parse_instant
from storage import generations, lake, sql
from storage.home import Home

ACTOR = Actor("me", "test")
DAY = parse_instant("2026-10-05T00:00:00Z")
FAR = ("8.8.8.8", "2001:db8::1:0:0:7", "2001:db8:0:1:1:1:1:1", "::1", "fe80::", "2001:0:0:1::1", "198.51.100.1",
       "a:b:c:d:e:f:1:2")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(lake, "FILE_FLOWS", 512)
    monkeypatch.setattr(lake, "GROUP_FLOWS", 64)
    made = make_home(tmp_path / "it's home", World(leases=[Lease("10.0.0.0/22", OPEN_START, OPEN_END, "S")]))
    rng = random.Random(3)
    for day in range(3):
        flows = []
        for _ in range(1500):
            end = DAY + day * DAY_MS + rng.randrange(DAY_MS)
            ends = [f"10.0.{rng.randrange(4)}.{rng.randrange(256)}", rng.choice(FAR)]
            rng.shuffle(ends)
            flows.append(Flow(end - 1000, end, *ends, rng.randrange(10**9), 3, numerator=10))
        key = add_segment(made, flows, f"day-{day}")
        with sql.transaction(sql.engine(made)) as connection:
            connection.execute(tables.segment.update().where(tables.segment.c.id == key).values(
                received_first=min(f.end for f in flows), received_last=max(f.end for f in flows)))
    aggregate(made, ACTOR)
    return made


def stock(home: Home) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(str(home.path / generations.current(home).path), read_only=True)


def test_the_view_holds_what_the_export_shows(home: Home) -> None:
    publish(home, ACTOR)
    with stock(home) as duck:
        assert duck.execute("SELECT count(*) FROM flows").fetchall() == [(0,)]
        assert duck.execute("SELECT flows_until IS NOT NULL FROM about").fetchall() == [(True,)]
    compaction.compact(home, ACTOR)
    assert publish(home, ACTOR)["published"], "what is compacted is worth a generation"
    assert not publish(home, ACTOR)["published"]
    expected = rows(run_cli("flows", "export", home=home.path))
    names = [name for name in expected[0] if not name.startswith("late_")]
    with stock(home) as duck:
        duck.execute("SET TimeZone = 'UTC'")
        listed = ", ".join(f"strftime({name}, '%Y-%m-%dT%H:%M:%S.%gZ')" if name in ("received", "start", '"end"') else name
                           for name in ('"end"' if name == "end" else name for name in names))
        found = duck.execute(f"SELECT {listed} FROM flows").fetchall()
        assert duck.execute("SELECT flows_until FROM about").fetchall() == [(None,)]
        assert duck.execute("SELECT count(*) FROM flows WHERE near_address LIKE '10.0.%'").fetchall() == [(4500,)]

    def shown(row: Any) -> tuple[str, ...]:
        return tuple(map(str, row))

    assert sorted(map(shown, found)) == sorted(shown(row[name] for name in names) for row in expected)


def test_days_and_addresses_are_pruned(home: Home) -> None:
    compaction.compact(home, ACTOR)
    publish(home, ACTOR)
    query = ("EXPLAIN ANALYZE SELECT sum(octets) FROM flows WHERE day = '2026-10-06' AND near_high = 0 "
             "AND near_low = ipv4('10.0.1.77')")
    with stock(home) as duck:
        plan = duck.execute(query).fetchall()[0][1]
        (files,) = re.findall(r"Total Files Read: (\d+)", plan)
        assert int(files) <= 3, "those of the day"
        groups = re.findall(r"Row Groups Scanned: (\d+) / (\d+)", plan)
        if groups:
            assert int(groups[0][0]) <= 2 < int(groups[0][1])
        by_text = "SELECT count(*), sum(octets) FROM flows WHERE day = '2026-10-06' AND near_address = '10.0.1.77'"
        by_number = by_text.replace("near_address = '10.0.1.77'", "near_low = ipv4('10.0.1.77')")
        assert duck.execute(by_text).fetchall() == duck.execute(by_number).fetchall() != [(0, None)]


def test_pyarrow_prunes_too(home: Home) -> None:
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    compaction.compact(home, ACTOR)
    path = sorted(home.folder("lake").rglob("*-flows-0000.parquet"))[0]
    statistics = [pq.ParquetFile(path).metadata.row_group(n).column(1).statistics for n in range(3)]
    assert all(one.has_min_max and one.max >= one.min for one in statistics)
    wanted = statistics[0].min
    fragment = next(iter(ds.dataset(path).get_fragments()))
    kept = fragment.split_by_row_group(filter=ds.field("near_low") == wanted)
    assert 0 < len(kept) <= 2 < len(fragment.split_by_row_group())


def test_every_address_has_the_text_that_python_gives(tmp_path: Path) -> None:
    import numpy as np

    rng = random.Random(11)
    packed = [bytes(rng.choice([0, 0, 1, 255]) if rng.random() < 0.8 else 0 for _ in range(16)) for _ in range(3000)]
    packed += [b"".join(rng.choice([b"\0\0", b"\0\0", b"\0\1", b"\x10\0"]) for _ in range(8)) for _ in range(3000)]
    packed += [bytes(10) + b"\xff\xff" + rng.randbytes(4) for _ in range(200)] + [bytes(16)]
    high, low = words_of(np.frombuffer(b"".join(packed), np.uint8).reshape(-1, 16))
    with duckdb.connect() as duck:
        import pyarrow as pa

        duck.register("given", pa.table({"n": np.arange(len(high)), "x_high": high, "x_low": low}))
        found = duck.execute(f"SELECT {flow_view._text('x')} FROM (SELECT *, {flow_view._hextets('x')} AS x_text FROM given) "
                             "ORDER BY n").fetchall()
    assert [text for (text,) in found] == [format_address(one) for one in packed]


def test_looks_in_the_shell_are_recorded(home: Home) -> None:
    compaction.compact(home, ACTOR)
    publish(home, ACTOR)
    run_cli("db", "shell", "-c", "SELECT count(*) FROM services", home=home.path)
    run_cli("db", "shell", "-c", "SELECT 1; SELECT count(*) FROM flows", "--reason", "ticket 9", home=home.path)
    with sql.reading(sql.engine(home)) as connection:
        (look,) = connection.execute(sa.select(tables.audit).where(tables.audit.c.action == "db shell")).all()
    assert (look.subject, look.reason) == ("SELECT count(*) FROM flows", "ticket 9")
    run_cli("usage", "strangers", "--period", "2026-10", home=home.path)
    run_cli("usage", "strangers", "--period", "2026-10", "--by", "exporter", home=home.path)
    with sql.reading(sql.engine(home)) as connection:
        assert len(connection.execute(sa.select(tables.audit).where(tables.audit.c.action == "usage strangers")).all()) == 1
