"""`storage compact`: the flows of past days in Parquet, read by everybody as before, a service's at a cost of their own."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from aggregation_town import add_leases, add_segment, make_home
from harness import rows, run_cli
from oracles.slow_usage import Flow, Lease, World

from aggregation import segments as readable
from aggregation.batches import aggregate
from collector import compaction, segments
from core import clock, schemas, tables
from core.actor import Actor
from core.periods import DAY_MS, HOUR_MS, OPEN_END, OPEN_START, parse_instant
from storage import lake, sql, stored_flows
from storage.home import Home

ACTOR = Actor("test", "test")
DAY = parse_instant("2026-10-05T00:00:00Z")
NEAR = ("10.0.0.1", "10.0.0.2", "10.0.1.9", "2001:db8:1::7", "198.51.100.7")
FAR = ("8.8.8.8", "9.9.9.9", "2001:db8:ffff::1", "203.0.113.200", "1.1.1.1")
LEASES = [Lease("10.0.0.1", OPEN_START, OPEN_END, "S1"), Lease("10.0.0.2", OPEN_START, OPEN_END, "S2"),
          Lease("2001:db8:1::/56", OPEN_START, OPEN_END, "S2")]


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake, "FILE_FLOWS", 256)
    monkeypatch.setattr(lake, "GROUP_FLOWS", 32)


def make_flows(seed: int, count: int, day: int = DAY) -> list[Flow]:
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        end = day + rng.randrange(DAY_MS)
        near, far, other = rng.choice(NEAR), rng.choice(FAR), rng.choice(NEAR)
        ends = rng.choice([(near, far), (far, near), (near, other), (far, rng.choice(FAR))])
        found.append(Flow(end - rng.choice([0, 1, 60_000, 3_000_000]), end, *ends, rng.randrange(2**40), rng.randrange(1, 1000),
                          rng.choice(["192.0.2.1", "192.0.2.2"]), numerator=rng.choice([1, 100]),
                          quarantined=rng.random() < 0.05))
    return found


def fill(home: Home, days: int = 2, segments_each: int = 3, flows_each: int = 300) -> None:
    for day in range(days):
        for number in range(segments_each):
            name = f"d{day}-{number}"
            key = add_segment(home, make_flows(day * 100 + number, flows_each, DAY + day * DAY_MS), name)
            set_received(home, key)


def set_received(home: Home, key: int) -> None:
    """As the collector would have: the extent of `received`."""
    with sql.transaction(sql.engine(home)) as connection:
        row = connection.execute(sa.select(tables.segment).where(tables.segment.c.id == key)).one()
        received = segments.read_own_file(home, row).column("received").cast(pa.int64()).to_pylist()
        connection.execute(tables.segment.update().where(tables.segment.c.id == key).values(
            received_first=min(received), received_last=max(received)))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = make_home(tmp_path / "home", World(leases=list(LEASES), classes=[("peering", 10, ["8.8.8.0/24"])]))
    fill(made)
    return made


def all_rows(home: Home) -> list[Any]:
    with sql.reading(sql.engine(home)) as connection:
        return list(connection.execute(sa.select(tables.segment).order_by(tables.segment.c.id)))


def cells_of(home: Home) -> dict[str, bytes]:
    with sql.reading(sql.engine(home)) as connection:
        live = connection.execute(sa.select(tables.cell_file.c.path).join(
            tables.batch, tables.batch.c.id == tables.cell_file.c.batch_id).where(tables.batch.c.to_version.is_(None)))
        return {path.rpartition("-")[2]: (home.path / path).read_bytes() for path in live.scalars()}


def forget_cells(home: Home) -> None:
    """Let every batch be made again."""
    with sql.transaction(sql.engine(home)) as connection:
        connection.execute(tables.input_change.insert().values(at=0, kind="leases", from_ms=OPEN_START, to_ms=OPEN_END,
                                                               detail=""))


def test_a_segment_is_the_same_wherever_it_lies(home: Home) -> None:
    aggregate(home, ACTOR)
    before = {row.id: segments.read_segment(home, row) for row in all_rows(home)}
    done = compaction.compact(home, ACTOR)
    assert (done.days, done.segments, done.flows, done.parts) == (2, 6, 1800, 2)
    assert done.mirrored > 0
    for row in all_rows(home):
        found = segments.read_segment(home, row)
        assert found.equals(before[row.id])
        assert segments.content_digest(segments.to_columns(found)) == row.content_digest
    again = compaction.compact(home, ACTOR)
    assert (again.segments, again.parts, again.swept_files) == (0, 0, 0), "each segment once"


def test_files_are_sorted_bounded_and_apart(home: Home) -> None:
    aggregate(home, ACTOR)
    compaction.compact(home, ACTOR)
    with sql.reading(sql.engine(home)) as connection:
        for part in lake.parts(connection):
            for kind in ("flows", "mirror"):
                keys: list[tuple[int, ...]] = []
                for file in lake.files_of(connection, part.id, kind):
                    assert file.flows <= 256
                    table = pa.concat_tables(lake.read_whole(home, file, schemas.LAKE.names))
                    some = [table.column(name).cast(pa.int64()).to_pylist() if name == "start" else
                            table.column(name).to_pylist() for name in lake.ORDER]
                    keys += zip(*some, strict=True)
                assert keys == sorted(keys)
                assert len(keys) == len(set(keys)) > 0


def test_cells_from_the_lake_are_byte_for_byte_those_from_segments(home: Home) -> None:
    aggregate(home, ACTOR)
    before = cells_of(home)
    compaction.compact(home, ACTOR)
    for path in home.folder("segments").rglob("*.arrow"):
        path.unlink()
    forget_cells(home)
    done = aggregate(home, ACTOR)
    assert done.remade > 0
    assert cells_of(home) == before


def test_a_segment_that_is_not_aggregated_or_not_old_enough_waits(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compaction.compact(home, ACTOR).segments == 0, "nothing is aggregated"
    aggregate(home, ACTOR)
    monkeypatch.setattr(clock, "now_ms", lambda: DAY + 2 * DAY_MS + HOUR_MS)
    dry = compaction.compact(home, ACTOR, dry_run=True)
    assert (dry.segments, dry.days) == (3, 1)
    assert not list(home.folder("lake").rglob("*.parquet"))
    assert compaction.compact(home, ACTOR).segments == 3, "the day that ended an hour ago waits"
    monkeypatch.setattr(clock, "now_ms", lambda: DAY + 3 * DAY_MS)
    assert compaction.compact(home, ACTOR).segments == 3


def test_all_readers_say_the_same_of_compacted_flows(home: Home) -> None:
    aggregate(home, ACTOR)
    asked = (("flows", "export"), ("flows", "export", "--from", "2026-10-05T12:00Z", "--to", "2026-10-06T03:00Z"),
             ("flows", "top", "--by", "pair"), ("flows", "top", "--scaled", "net", "10.0.0.0/24"), ("flows", "graph"),
             ("usage", "strangers", "--period", "2026-10"),
             ("metering", "check", "--from", "2026-10-05T00:00Z", "--until", "2026-10-08T00:00Z"))
    before = [run_cli(*words, home=home.path).stdout for words in asked]
    assert all(before[:-1])
    run_cli("storage", "compact", home=home.path)
    for path in home.folder("segments").rglob("*.arrow"):
        path.unlink()
    assert [run_cli(*words, home=home.path).stdout for words in asked] == before
    assert rows(run_cli("storage", "verify", home=home.path)) == []
    run_cli("storage", "backup", str(home.path.parent / "backup"), home=home.path)
    copy = home.path.parent / "copy"
    run_cli("storage", "restore", str(home.path.parent / "backup"), "--to", str(copy))
    assert [run_cli(*words, home=copy).stdout for words in asked[:2]] == before[:2]
    damaged = next(copy.rglob("*-flows-0000.parquet"))
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    (found,) = rows(run_cli("storage", "verify", home=copy, check=1))
    assert (found["kind"], found["path"]) == ("lake", damaged.relative_to(copy).as_posix())
    assert damaged.name in run_cli("flows", "export", home=copy, check=1).stderr


def test_old_files_go_after_their_time_and_not_before(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    aggregate(home, ACTOR)
    now = clock.now_ms()
    compaction.compact(home, ACTOR)
    assert len(list(home.folder("segments").rglob("*.arrow"))) == 6, "a reader may have them open"
    stray = home.folder("lake") / "day=2026-10-05" / ("0" * 24 + "-flows-0000.parquet")
    stray.write_bytes(b"of a killed run")
    (home.folder("lake") / ".sort-killed").mkdir()
    monkeypatch.setattr(clock, "now_ms", lambda: now + 169 * HOUR_MS)
    assert compaction.compact(home, ACTOR).swept_files == 7
    assert not list(home.folder("segments").rglob("*.arrow"))
    assert not list(home.folder("lake").glob(".sort-*"))
    assert sum(table.num_rows for table in segments.read_flows(home, all_rows(home))) == 1800
    assert compaction.compact(home, ACTOR).swept_files == 0


def test_late_segments_of_a_day_become_parts_and_then_one(home: Home) -> None:
    aggregate(home, ACTOR)
    compaction.compact(home, ACTOR)
    for number in range(5):
        set_received(home, add_segment(home, make_flows(1000 + number, 50), f"late-{number}"))
        aggregate(home, ACTOR)
        done = compaction.compact(home, ACTOR)
        assert done.segments == 1
        with sql.reading(sql.engine(home)) as connection:
            count = len([part for part in lake.parts(connection) if part.day == DAY])
        assert count == (2, 3, 4, 1, 2)[number]
    for row in all_rows(home):
        assert segments.content_digest(segments.to_columns(segments.read_segment(home, row))) == row.content_digest


def test_new_networks_sort_their_time_anew(home: Home) -> None:
    aggregate(home, ACTOR)
    compaction.compact(home, ACTOR)
    add_leases(home, [Lease("10.0.0.1", DAY - HOUR_MS, DAY, "S2", realm="other")], changes=True)
    assert compaction.compact(home, ACTOR).replaced == 0, "its network is known"
    add_leases(home, [Lease("203.0.113.200", DAY + DAY_MS + 3_600_000, OPEN_END, "S1")], changes=True)
    done = compaction.compact(home, ACTOR)
    assert (done.replaced, done.segments, done.parts) == (1, 0, 1)
    assert compaction.compact(home, ACTOR).replaced == 0
    for row in all_rows(home):
        assert segments.content_digest(segments.to_columns(segments.read_segment(home, row))) == row.content_digest


def test_damage_stops_a_compaction_and_changes_nothing(home: Home) -> None:
    aggregate(home, ACTOR)
    path = home.folder("segments") / "d1-1.arrow"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    said = run_cli("storage", "compact", home=home.path, check=1).stderr
    assert "d1-1.arrow" in said
    assert "Traceback" not in said
    with sql.reading(sql.engine(home)) as connection:
        assert [part.day for part in lake.parts(connection)] == [DAY], "the day before is done"
        assert len(stored_flows.locate(connection, range(1, 7)).hot) == 3
    path.write_bytes(whole)
    assert compaction.compact(home, ACTOR).segments == 3


def test_the_pieces_of_aggregation_are_whole(home: Home) -> None:
    aggregate(home, ACTOR)
    compaction.compact(home, ACTOR)
    with sql.reading(sql.engine(home)) as connection:
        from aggregation import manifest

        found = manifest.segments(connection, [row.id for row in all_rows(home)])
    assert sum(len(columns["start"]) for _, columns in readable.read_all(home, found)) == 1800
    assert sum(len(columns["start"]) for columns in readable.read(home, found[0])) == 300
