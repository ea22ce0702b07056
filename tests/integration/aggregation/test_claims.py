"""Several workers make cells at once, and die: every segment is counted once, on SQLite and on PostgreSQL."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest
import sqlalchemy as sa
from aggregation_town import add_leases, add_segment, make_home
from oracles import slow_usage
from oracles.slow_usage import Calendar, Flow, Lease, Subscription, World, Zone
from postgresql_server import postgresql

from aggregation import batches, claims, export, manifest
from aggregation.batches import aggregate
from aggregation.publish import publish
from core import clock, tables
from core.actor import Actor
from core.errors import Locked
from core.periods import OPEN_END, OPEN_START, parse_instant
from runtime import jobs
from storage import sql
from storage.home import Home

ACTOR = Actor("test", "test")
OCTOBER = parse_instant("2026-10-01T00:00:00+02:00")
NIGHTLY = os.environ.get("RATEMILL_NIGHTLY") == "1"
ROUNDS = 500 if NIGHTLY else 15
"""Of two workers each, nearly all of which are killed: a thousand a night."""

WORLD = World(
    leases=[Lease("10.0.0.1", OPEN_START, OCTOBER + 7 * 86_400_000 + 77, "S1"),
            Lease("10.0.0.1", OCTOBER + 7 * 86_400_000 + 77, OPEN_END, "S2"), Lease("10.0.0.2", OPEN_START, OPEN_END, "S2")],
    subscriptions=[Subscription("S1", OPEN_START, OPEN_END, "Europe/Berlin", "home"),
                   Subscription("S2", OPEN_START, OPEN_END, "Asia/Kolkata", "fast")],
    plans={"home": ("day", False), "fast": (None, True)},
    calendars={"day": Calendar((Zone("day", (0, 1, 2, 3, 4), 8 * 60 + 5, 23 * 60),), "night")},
    classes=[("peering", 1, ["198.51.100.0/24"])], seller_zone="Europe/Berlin")  # fmt: skip


def make_flows(count: int, seed: int = 3) -> list[Flow]:
    rng = random.Random(seed)
    flows = []
    for _ in range(count):
        start = OCTOBER + rng.randrange(14 * 86_400_000)
        ends = [rng.choice(["10.0.0.1", "10.0.0.2"]), rng.choice(["8.8.8.8", "198.51.100.9", "10.0.0.2"])]
        rng.shuffle(ends)
        flows.append(Flow(start, start + rng.randrange(3_000_000), *ends, octets=rng.randrange(10**9),
                          packets=rng.randrange(1, 10**4)))
    return flows


def exported(home: Home) -> str:
    return repr([[row for batch in export.rows(home, period, by) for row in batch.to_pylist()]
                 for period in ("2026-10", "2026-09") for by in ("hour", "slot", "month")])


def consumed(home: Home) -> list[int]:
    with sql.reading(sql.engine(home)) as connection:
        return sorted(segment for batch in manifest.live_batches(connection) for segment in batch.segments)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """What ratemill.toml says about it."""
    if request.param == "sqlite":
        yield ""
        return
    with postgresql() as url:
        yield f'[database]\nurl = "{url}"\n'
        sql.forget_engines()


def begin_child(home: Home) -> ForkProcess:
    sql.forget_engines()
    child = multiprocessing.get_context("fork").Process(target=aggregate, args=(home, ACTOR))
    child.start()
    return child


def test_two_claimers_under_kill_9_count_each_segment_once(tmp_path: Path, database: str) -> None:
    small = "[aggregation]\nbatch_flows_max = 150\nmerge_batches_min = 6\n"
    home, twin = (make_home(tmp_path / name, WORLD, bounds=small + more) for name, more in (("home", database), ("twin", "")))
    rounds = ROUNDS if "postgres" not in database else ROUNDS // 3
    flows = make_flows(6_000)
    parts = 3 * rounds
    rng = random.Random(rounds)
    usual, killed, helped = 0.2, 0, 0
    for number in range(rounds):
        for part in range(3):
            add_segment(home, flows[3 * number + part::parts], f"s{3 * number + part}")
        if number == rounds // 2:  # all batches become stale, and are made again under fire
            add_leases(home, [Lease("10.0.0.77", OPEN_START, OPEN_END, "S1")], changes=True)
        children = [begin_child(home), begin_child(home)]
        for child in rng.sample(children, 2):
            child.join(rng.random() * usual)
            if child.is_alive():
                assert child.pid is not None
                os.kill(child.pid, signal.SIGKILL)
        for child in children:
            child.join()
            killed += child.exitcode == -signal.SIGKILL
            helped += child.exitcode == 0
    began = time.monotonic()
    aggregate(home, ACTOR)
    assert aggregate(home, ACTOR).batches == 0, f"all is done after {time.monotonic() - began:.1f} s"
    add_segment(twin, flows, "all")
    add_leases(twin, [Lease("10.0.0.77", OPEN_START, OPEN_END, "S1")])
    for one in (home, twin):
        aggregate(one, ACTOR)
        publish(one, ACTOR)
    assert exported(home) == exported(twin)
    with sql.reading(sql.engine(home)) as connection:
        assert consumed(home) == sorted(connection.execute(sa.select(tables.segment.c.id)).scalars())
        assert connection.execute(sa.select(tables.claim)).first() is None
        known = set(connection.execute(sa.select(tables.cell_file.c.path)).scalars())
    assert {home.relative(path) for path in home.folder("cells").rglob("*") if path.is_file()} <= known
    assert killed > rounds // 3, f"{killed} killed, {helped} ended"


@pytest.mark.parametrize("seed", range(30 if NIGHTLY else 3))
def test_any_partition_order_and_number_of_workers_gives_the_same_bytes(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    flows = make_flows(400, seed)
    results = set()
    for number, workers in enumerate((1, rng.choice([2, 3]), 5)):
        flows_max = rng.choice([20, 150, 10_000])
        home = make_home(tmp_path / str(number), WORLD,
                         bounds=f"[aggregation]\nbatch_flows_max = {flows_max}\nmerge_batches_min = {rng.choice([2, 5, 99])}\n")
        shuffled = rng.sample(flows, len(flows))
        parts = rng.randrange(1, 30)
        for part in range(parts):
            add_segment(home, shuffled[part::parts], f"s{part}")
            if rng.random() < 0.2:
                aggregate(home, ACTOR, workers)
        aggregate(home, ACTOR, workers)
        publish(home, ACTOR)
        results.add(exported(home))
    assert len(results) == 1
    totals = slow_usage.usage(WORLD, flows).periods
    with sql.reading(sql.engine(home)) as connection:
        found = dict(connection.execute(sa.select(tables.attributed.c.period, sa.func.sum(tables.attributed.c.octets)).join(
            tables.batch, tables.batch.c.id == tables.attributed.c.batch_id).where(
                tables.batch.c.to_version.is_(None)).group_by(tables.attributed.c.period)).all())
    assert {period: int(octets) for period, octets in found.items()} == +totals


def test_whoever_was_silent_for_too_long_can_not_count_any_more(tmp_path: Path, database: str,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    home = make_home(tmp_path / "home", WORLD, bounds=database)
    add_segment(home, make_flows(50), "s")
    engine = sql.engine(home)
    silent = claims.take(engine, 1000)
    assert silent is not None
    assert claims.take(engine, 1000) is None, "nobody else takes what a living worker has"
    now = clock.now_ms()
    monkeypatch.setattr(clock, "now_ms", lambda: now + claims.LEASE_MS + 1)
    other = claims.take(engine, 1000)
    assert other is not None
    assert [s.id for s in other.segments] == [s.id for s in silent.segments]
    with pytest.raises(claims.LostClaim, match="taken over"), sql.transaction(engine) as connection:
        silent.give_up(connection)
    with pytest.raises(claims.LostClaim):
        silent.renew(engine)
    other.renew(engine)
    with sql.transaction(engine) as connection:
        other.give_up(connection)
    assert consumed(home) == []


def test_the_claims_of_a_dead_process_return_at_once(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", WORLD)
    add_segment(home, make_flows(50), "s")
    engine = sql.engine(home)
    sql.forget_engines()

    def take_and_die() -> None:
        claims.take(sql.engine(home), 1000)
        os.kill(os.getpid(), signal.SIGKILL)

    child = multiprocessing.get_context("fork").Process(target=take_and_die)
    child.start()
    child.join()
    with sql.reading(engine) as connection:
        assert connection.execute(sa.select(tables.claim.c.segment_id)).first() is not None
    assert aggregate(home, ACTOR).segments == 1


def test_files_of_a_worker_that_lives_are_not_swept(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", WORLD)
    add_segment(home, make_flows(50), "s")
    engine = sql.engine(home)
    claim = claims.take(engine, 1000)
    assert claim is not None
    being_written = home.folder("cells") / "aa" / "aaaa-cells.parquet"
    being_written.parent.mkdir(parents=True)
    being_written.write_bytes(b"its row comes in a moment")
    assert batches.sweep(home, engine, 1) == 0
    claims.drop(engine, claim)
    assert batches.sweep(home, engine, 1) == 1
    assert not being_written.exists()


def test_one_who_helps_with_other_settings_is_refused(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", WORLD)
    aggregate(home, ACTOR)
    add_segment(home, make_flows(50), "s")
    (home.path / "ratemill.toml").write_text('[seller]\ntimezone = "Europe/Berlin"\n')
    with jobs.hold(sql.engine(home), batches.JOB), pytest.raises(Locked, match="ratemill.toml is not the one"):
        aggregate(Home(home.path), ACTOR)
    assert consumed(home) == []
    assert aggregate(Home(home.path), ACTOR).segments == 1, "what it had claimed is free again"
