"""Kill, repeat, shuffle, change the inputs: the usage is the same."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from aggregation_town import add_leases, add_segment, add_subscriptions, make_home, settings_text
from oracles import slow_usage
from oracles.slow_usage import Calendar, Flow, Lease, Subscription, World, Zone

from aggregation import export, manifest
from aggregation.batches import aggregate
from aggregation.publish import publish
from core import clock, tables
from core.actor import Actor
from core.errors import DamagedFile, Locked, NotFound
from core.periods import OPEN_END, OPEN_START, parse_instant
from runtime import jobs
from storage import generations, sql
from storage.home import Home

ACTOR = Actor("test", "test")
OCTOBER = parse_instant("2026-10-01T00:00:00+02:00")
KILLS = 12


def make_world() -> World:
    middle = OCTOBER + 10 * 86_400_000 + 12_345
    return World(
        leases=[Lease("10.0.0.1", OPEN_START, middle, "S1"), Lease("10.0.0.1", middle, OPEN_END, "S2"),
                Lease("10.0.0.2", OPEN_START, OPEN_END, "S3")],
        subscriptions=[Subscription("S1", OPEN_START, OPEN_END, "Europe/Berlin", "home"),
                       Subscription("S2", OPEN_START, OPEN_END, "Asia/Kolkata", "fast"),
                       Subscription("S3", OPEN_START, OPEN_END, "Europe/Berlin")],
        plans={"home": ("day", False), "fast": (None, True)},
        calendars={"day": Calendar((Zone("day", (0, 1, 2, 3, 4), 8 * 60 + 5, 23 * 60),), "night")},
        classes=[("peering", 1, ["198.51.100.0/24"])], seller_zone="Europe/Berlin")


def make_flows(count: int, seed: int = 1) -> list[Flow]:
    rng = random.Random(seed)
    flows = []
    for _ in range(count):
        start = OCTOBER + rng.randrange(20 * 86_400_000)
        near, far = rng.choice(["10.0.0.1", "10.0.0.2"]), rng.choice(["8.8.8.8", "198.51.100.9", "10.0.0.2"])
        flows.append(Flow(start, start + rng.randrange(3_000_000), *rng.choice([(near, far), (far, near)]),
                          octets=rng.randrange(10**9), packets=rng.randrange(1, 10**4)))
    return flows


def exported(home: Home) -> list[list[dict[str, object]]]:
    return [[row for batch in export.rows(home, period, by) for row in batch.to_pylist()]
            for period in ("2026-10", "2026-09") for by in ("hour", "slot", "month")]


def batch_count(home: Home) -> int:
    with sql.reading(sql.engine(home)) as connection:
        return len(manifest.live_batches(connection))


def stored_files(home: Home) -> set[str]:
    return {home.relative(path) for path in home.folder("cells").rglob("*") if path.is_file()}


def registered_files(home: Home) -> set[str]:
    with sql.reading(sql.engine(home)) as connection:
        return set(connection.execute(sa.select(tables.cell_file.c.path)).scalars())


def do_all(home: Home) -> None:
    aggregate(home, ACTOR)
    publish(home, ACTOR)


def in_child(work: Callable[[], object], kill_after: float) -> bool:
    """Run in a forked child and kill -9 it after so many seconds; whether it was killed at work."""
    child = multiprocessing.get_context("fork").Process(target=work)
    sql.forget_engines()
    child.start()
    child.join(kill_after)
    if child.is_alive():
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
    child.join()
    return child.exitcode == -signal.SIGKILL


def fill(home: Home, flows: list[Flow], parts: int, order: list[int] | None = None) -> None:
    for number in order or range(parts):
        add_segment(home, flows[number::parts], f"s{number}")


def test_killed_anywhere_it_ends_with_the_usage_of_an_uninterrupted_twin(tmp_path: Path) -> None:
    flows = make_flows(4_000)
    small = "[aggregation]\nbatch_flows_max = 500\nmerge_batches_min = 5\ngenerations_kept = 2\n"
    twin, home = (make_home(tmp_path / name, make_world(), bounds=small) for name in ("twin", "home"))
    fill(twin, flows, 16)
    began = time.monotonic()
    do_all(twin)
    usual = time.monotonic() - began
    rng = random.Random(7)
    killed = 0
    for number in range(KILLS):  # a segment or two more each time, so that every run has something to do
        for part in range(16 * number // KILLS, 16 * (number + 1) // KILLS):
            add_segment(home, flows[part::16], f"s{part}")
        if number == KILLS // 2:  # all batches become stale: they are made again, under fire as well
            add_leases(home, [Lease("10.0.0.77", OPEN_START, OPEN_END, "S3")], changes=True)
        killed += in_child(lambda: do_all(home), rng.random() * usual)
    do_all(home)
    assert killed >= KILLS // 6, "runs must have been interrupted for this to show anything"
    assert exported(home) == exported(twin)
    assert stored_files(home) <= registered_files(home)
    with sql.reading(sql.engine(home)) as connection:
        segments = sorted(connection.execute(sa.select(tables.segment.c.id)).scalars())
        consumed = sorted(segment for batch in manifest.live_batches(connection) for segment in batch.segments)
    assert consumed == segments


def test_any_order_and_partition_of_segments_exports_the_same_bytes(tmp_path: Path) -> None:
    flows = make_flows(300)
    results = []
    for number, (parts, order) in enumerate([(1, None), (7, [3, 0, 6, 1, 5, 2, 4]), (7, list(range(7)))]):
        home = make_home(tmp_path / str(number), make_world(), bounds="[aggregation]\nmerge_batches_min = 3\n")
        for part in order or range(parts):
            add_segment(home, flows[part::parts], f"s{part}")
            aggregate(home, ACTOR)
        do_all(home)
        results.append(repr(exported(home)))
    assert results[0] == results[1] == results[2]


def test_a_late_lease_makes_only_the_batches_of_its_time_again(tmp_path: Path) -> None:
    world = make_world()
    home = make_home(tmp_path / "home", world)
    early, late = [[f for f in make_flows(200) if (f.start < OCTOBER + 5 * 86_400_000) == is_early and f.start > OCTOBER]
                   for is_early in (True, False)]
    strangers = [replace(flow, source="10.0.0.50", destination="8.8.8.8") for flow in early[:20]]
    for number, flows in enumerate((early + strangers, late)):
        add_segment(home, flows, f"s{number}")
        aggregate(home, ACTOR)
    publish(home, ACTOR)
    before = exported(home)
    lease = Lease("10.0.0.50", OCTOBER, OCTOBER + 4 * 86_400_000, "S3")
    add_leases(home, [lease], changes=True)
    with sql.reading(sql.engine(home)) as connection:
        assert generations.freshness(connection).stale_batches == 1
    done = aggregate(home, ACTOR)
    assert (done.remade, done.segments, done.batches) == (1, 1, 1)
    assert aggregate(home, ACTOR).batches == 0
    publish(home, ACTOR)
    world.leases.append(lease)
    expected = slow_usage.usage(world, early + strangers + late)
    assert exported(home) != before
    assert month_totals(home) == +expected.periods


def month_totals(home: Home) -> dict[str, int]:
    with generations.open_current(home) as duck:
        return dict(duck.execute("SELECT period, sum(octets)::BIGINT FROM usage GROUP BY period").fetchall())


def attributed(home: Home) -> dict[str, int]:
    table, batch = tables.attributed, tables.batch
    query = (sa.select(table.c.period, sa.func.sum(table.c.octets)).join(batch, batch.c.id == table.c.batch_id)
             .where(batch.c.to_version.is_(None)).group_by(table.c.period))
    with sql.reading(sql.engine(home)) as connection:
        return {period: int(octets) for period, octets in connection.execute(query)}


def test_a_first_subscription_moves_the_months_of_the_traffic_before_it(tmp_path: Path) -> None:
    world = make_world()
    world.subscriptions = [row for row in world.subscriptions if row.service != "S3"]
    home = make_home(tmp_path / "home", world)
    at = parse_instant("2026-09-30T20:00:00Z")  # September in Berlin, October in Kolkata
    add_segment(home, [Flow(at, at, "10.0.0.2", "8.8.8.8", 1000)], "s")
    do_all(home)
    assert attributed(home) == month_totals(home) == {"2026-09": 1000}
    add_subscriptions(home, [Subscription("S3", at + 10**9, OPEN_END, "Asia/Kolkata")], changes=True)
    done = aggregate(home, ACTOR)
    assert (done.remade, done.held) == (0, 0), "no edge lies inside its cells, and nothing in its time has changed"
    publish(home, ACTOR)
    assert attributed(home) == month_totals(home) == {"2026-10": 1000}


def test_changed_settings_make_everything_again_once(tmp_path: Path) -> None:
    world = make_world()
    home = make_home(tmp_path / "home", world)
    fill(home, make_flows(50), 2)
    assert aggregate(home, ACTOR).batches == 1
    world.classes = [("transit", 1, ["198.51.100.0/24"])]
    (home.path / "ratemill.toml").write_text(settings_text(world))
    again = Home(home.path)
    assert aggregate(again, ACTOR).remade == 1
    assert aggregate(again, ACTOR).batches == 0
    publish(again, ACTOR)
    with generations.open_current(again) as duck:
        assert duck.execute("SELECT DISTINCT class FROM usage ORDER BY class").fetchall() == [("default",), ("transit",)]


def test_a_damaged_segment_is_named_and_nothing_of_it_is_counted(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", make_world())
    fill(home, make_flows(50), 1)
    path = home.folder("segments") / "s0.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match=r"s0\.arrow does not match its digest"):
        aggregate(home, ACTOR)
    assert batch_count(home) == 0
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert aggregate(home, ACTOR).batches == 1


def test_a_damaged_cell_file_is_named_by_publish(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", make_world())
    fill(home, make_flows(50), 1)
    aggregate(home, ACTOR)
    path = next(path for path in sorted(home.folder("cells").rglob("*-cells.parquet")))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match=path.name):
        publish(home, ACTOR)
    with pytest.raises(NotFound, match="no usage has been published"):
        generations.open_current(home)


def test_a_second_publish_says_that_nothing_changed(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", make_world())
    fill(home, make_flows(50), 1)
    aggregate(home, ACTOR)
    first = publish(home, ACTOR)
    second = publish(home, ACTOR)
    assert (first["published"], second["published"]) == (True, False)
    assert first["generation"] == second["generation"]
    assert len(list(home.folder("generations").glob("*.duckdb"))) == 1


def test_a_pointer_that_a_crash_kept_back_is_put_right(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", make_world())
    do_all(home)
    pointer = home.folder("generations") / "current"
    pointer.unlink()
    assert publish(home, ACTOR)["published"] is False
    assert pointer.read_text() == Path(generations.current(home).path).name + "\n"


def test_a_reader_keeps_its_generation_while_others_are_published(tmp_path: Path) -> None:
    kept = "[aggregation]\ngenerations_kept = 1\ngeneration_grace_minutes = 0\n"
    home = make_home(tmp_path / "home", make_world(), bounds=kept)
    flows = make_flows(60)
    add_segment(home, flows[:20], "s0")
    do_all(home)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def read() -> None:
        with generations.open_current(home) as duck:
            for _ in range(2):
                theirs.send(duck.execute("SELECT sum(octets)::BIGINT FROM usage").fetchall()[0][0])
                theirs.recv()

    sql.forget_engines()
    reader = context.Process(target=read)
    reader.start()
    before = ours.recv()
    for number in (1, 2):
        add_segment(home, flows[20 * number:20 * number + 20], f"s{number}")
        do_all(home)
    ours.send("again")
    assert ours.recv() == before
    ours.send("end")
    reader.join()
    assert sum(month_totals(home).values()) > before
    assert len(list(home.folder("generations").glob("*.duckdb"))) == 1, "generations beyond the kept ones are gone"


def test_the_grace_period_keeps_what_somebody_may_still_read(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", make_world(), bounds="[aggregation]\ngenerations_kept = 1\n")
    simulated = clock.SimulatedClock(OCTOBER)
    before = clock.use(simulated)
    try:
        for number, flow in enumerate(make_flows(3)):
            add_segment(home, [flow], f"s{number}")
            do_all(home)
        assert len(list(home.folder("generations").glob("*.duckdb"))) == 3
        simulated.advance_ms(3_600_001)
        publish(home, ACTOR)
        assert len(list(home.folder("generations").glob("*.duckdb"))) == 1
    finally:
        clock.use(before)


def test_many_small_batches_are_merged_and_their_files_go_after_a_while(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", make_world(), bounds="[aggregation]\nmerge_batches_min = 4\nreplaced_keep_hours = 1\n")
    simulated = clock.SimulatedClock(OCTOBER)
    before = clock.use(simulated)
    try:
        merged = []
        for number, flow in enumerate(make_flows(4)):
            add_segment(home, [flow], f"s{number}")
            merged.append(aggregate(home, ACTOR).merged)
        assert merged == [0, 0, 0, 4]
        assert batch_count(home) == 1
        assert len(stored_files(home)) == 10
        simulated.advance_ms(3_600_001)
        assert aggregate(home, ACTOR).swept_files == 8
        assert len(stored_files(home)) == 2
    finally:
        clock.use(before)


def test_two_at_once_are_refused_by_name(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", make_world())
    engine = sql.engine(home)
    with jobs.hold(engine, "aggregate"), jobs.hold(engine, "publish"):
        assert aggregate(home, ACTOR).shared == 1, "it helps with what is new"
        with pytest.raises(Locked, match="'publish'"):
            publish(home, ACTOR)


def test_a_segment_without_flows_is_consumed_too(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", make_world())
    add_segment(home, [], "empty")
    assert aggregate(home, ACTOR).segments == 1
    assert aggregate(home, ACTOR).segments == 0
    assert publish(home, ACTOR)["usage"] == 0


@pytest.mark.parametrize("instant", ["0001-01-02T00:00:00Z", "1969-12-31T23:50:00Z", "9999-12-30T23:55:00Z"])
def test_a_broken_clock_costs_one_window_not_the_years_between(instant: str, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", make_world())
    at = parse_instant(instant)
    flows = [Flow(at, at + 1_000_000, "10.0.0.1", "8.8.8.8", 5000), *make_flows(20)]
    add_segment(home, flows, "s")
    do_all(home)
    assert attributed(home) == month_totals(home)
    assert sum(attributed(home).values()) == slow_usage.usage(make_world(), flows[1:]).outcomes["attributed"] + 5000
