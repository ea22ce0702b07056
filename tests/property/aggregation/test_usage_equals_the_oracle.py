"""Random worlds and flows: published usage, outcomes and months equal those of the slow oracle, however segments are cut."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
import sqlalchemy as sa
from aggregation_town import add_segment, make_home
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles import slow_usage
from oracles.slow_usage import Calendar, Flow, Lease, Subscription, World, Zone

from aggregation import cell_store, export, manifest
from aggregation.batches import aggregate
from aggregation.publish import publish
from core import tables
from core.actor import Actor
from core.periods import OPEN_END, OPEN_START, format_instant, parse_instant
from core.schemas import Outcome
from storage import generations, sql
from storage.home import Home

ACTOR = Actor("test", "test")
ZONES = ("Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns", "UTC")
INSTANTS = [parse_instant(text) for text in (
    "2026-10-25T00:40:00Z",  # Berlin: the doubled hour follows
    "2026-03-29T00:50:00Z",  # Berlin: the missing hour follows
    "2026-10-03T15:10:00Z",  # Lord Howe: half an hour is left out
    "2026-10-31T22:50:00Z", "2026-10-31T18:20:00Z", "2026-10-31T18:10:00Z",  # months end in Berlin, Kolkata, Kathmandu
    "2026-10-05T06:00:00Z", "2026-12-31T23:30:00Z")]
ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "2001:db8::1", "2001:db8:1::7"]
FAR = ["8.8.8.8", "198.51.100.7", "198.51.100.200", "203.0.113.3", "2001:db8:ffff::1"]


def make_world(rng: random.Random) -> World:
    around = rng.choice(INSTANTS)
    near = lambda: around + rng.randrange(-9_000_000, 9_000_000)  # noqa: E731
    world = World(
        plans={"zones": ("edges", False), "fast": ("edges", True), "plain": (None, False), "percentile": (None, True)},
        calendars={"edges": Calendar((Zone("peak", (0, 1, 2, 3, 4), 8 * 60 + 5, 23 * 60), Zone("noon", (5, 6), 700, 733)),
                                     "rest", "rest", (date(2026, 10, 5), date(2026, 10, 31)))},
        classes=[("peering", 10, ["198.51.100.0/24"]), ("cache", 10, ["198.51.100.128/25", "2001:db8:ffff::/48"]),
                 ("wide", 1, ["198.0.0.0/8", "198.51.100.7/32"])],
        infrastructure=["203.0.113.0/28"], realms={"192.0.2.2": "town-b"},
        cut=rng.choice([None, {"192.0.2.1", "192.0.2.2"}]), seller_zone=rng.choice(ZONES))
    for number, address in enumerate(ADDRESSES):
        edges = sorted({near() for _ in range(rng.randrange(4))})
        for start, end in zip([OPEN_START, *edges], [*edges, OPEN_END], strict=True):
            if rng.random() < 0.7:
                world.leases.append(Lease(address, start, end, f"S{rng.randrange(5)}", rng.choice(["", "", "town-b"])))
        if number == 0:
            world.leases.append(Lease("10.0.1.0/24", near(), OPEN_END, "S4"))
    world.leases += [Lease("10.9.9.9", OPEN_START, OPEN_END, "S1", ports=(1, 1023)),
                     Lease("10.9.9.9", OPEN_START, OPEN_END, "S2", ports=(1024, 3000))]
    for number in range(4):  # S4 has no subscription
        edges = sorted({near() for _ in range(rng.randrange(4))})
        for start, end in zip([OPEN_START, *edges], [*edges, OPEN_END], strict=True):
            if rng.random() < 0.8:
                world.subscriptions.append(Subscription(f"S{number}", start, end, rng.choice(ZONES),
                                                        rng.choice([None, *world.plans])))
    return world


def make_flow(rng: random.Random, world: World) -> Flow:
    edges = [e for thing in [*world.leases, *world.subscriptions] for e in (thing.start, thing.end) if abs(e) < 2**60]
    start = rng.choice([rng.choice(edges or INSTANTS[:1]), rng.choice(INSTANTS)])
    start += rng.choice([0, -1, rng.randrange(-10**7, 10**6)])
    length = rng.choice([0, 0, 1, 999, rng.randrange(1, 60_000), rng.randrange(1, 4_000_000), rng.randrange(1, 30_000_000)])
    near, far = rng.choice([*ADDRESSES, "10.9.9.9", "10.0.1.77"]), rng.choice([*FAR, *ADDRESSES])
    source, destination = (near, far) if rng.random() < 0.5 else (far, near)
    return Flow(start, start + length, source, destination, rng.choice([0, 1, 40, 1500, rng.randrange(2**40)]),
                rng.choice([1, 2, 1000]), rng.choice(["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]),
                rng.choice([0, 80, 1024, 5000]), rng.choice([0, 1, 2000]), rng.choice([1, 6, 17]),
                *rng.choice([(1, 1), (1, 1), (100, 1), (1000, 3), (2**32 - 1, 2**32 - 1)]),
                quarantined=rng.random() < 0.05)


def published(home: Home) -> dict[tuple[object, ...], list[int]]:
    with generations.open_current(home) as duck:
        found = duck.execute("SELECT period, service, epoch_ms(hour), zone, class, direction, sampled, sum(octets), "
                             "sum(packets), sum(flows) FROM usage GROUP BY ALL").fetchall()
    return {row[:7]: [int(count) for count in row[7:]] for row in found}


def outcomes(home: Home) -> tuple[Counter[str], int]:
    totals: Counter[str] = Counter()
    on_net = 0
    with sql.reading(sql.engine(home)) as connection:
        parts = [file for _, file in manifest.cell_files(connection, "outcomes")]
    for file in parts:
        for table in cell_store.read(home, file):
            for row in table.to_pylist():
                totals[Outcome(row["outcome"]).name.lower()] += row["octets"]
                on_net += row["on_net_octets"]
    return +totals, on_net


def months(home: Home) -> Counter[str]:
    table, batch = tables.attributed, tables.batch
    query = sa.select(table).join(batch, batch.c.id == table.c.batch_id).where(batch.c.to_version.is_(None))
    totals: Counter[str] = Counter()
    with sql.reading(sql.engine(home)) as connection:
        for row in connection.execute(query):
            totals[row.period] += row.octets
    return totals


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worlds")


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1))
def test_usage_outcomes_and_months_equal_the_oracles(seed: int, folder: Path) -> None:
    check(seed, folder / f"{seed}-{len(list(folder.iterdir()))}", 40)


def test_one_small_world_equals_the_oracles(tmp_path: Path) -> None:
    """Small enough to be run without the compiler too (unit/aggregation/test_kernels.py does)."""
    check(4, tmp_path / "home", 12)


def check(seed: int, path: Path, flows_max: int) -> None:
    rng = random.Random(seed)
    world = make_world(rng)
    flows = [make_flow(rng, world) for _ in range(rng.randrange(1, flows_max))]
    home = make_home(path, world, bounds=f"[aggregation]\nbatch_flows_max = {rng.choice([5, 1000])}\n")
    cuts = sorted({0, len(flows), *(rng.randrange(len(flows) + 1) for _ in range(3))})
    parts = [flows[a:b] for a, b in itertools.pairwise(cuts)]
    rng.shuffle(parts)
    for number, part in enumerate(parts):
        add_segment(home, part, f"s{number}", rows_per_batch=rng.choice([1, 7, 1000]))
        if rng.random() < 0.3:
            aggregate(home, ACTOR)
    aggregate(home, ACTOR)
    publish(home, ACTOR)
    expected = slow_usage.usage(world, flows)
    assert published(home) == expected.hours
    found, on_net = outcomes(home)
    assert found == +expected.outcomes
    assert on_net == expected.on_net
    assert sum(found.values()) - on_net == expected.flows
    assert months(home) == +expected.periods
    assert slots(home, expected) == without_sampling(expected.slots)
    assert five_minutes(home) == +expected.five_minutes
    sql.forget_engines()


def slots(home: Home, expected: slow_usage.Expected) -> dict[tuple[object, ...], list[int]]:
    found = {}
    for period in {key[0] for key in expected.slots}:
        for batch in export.rows(home, str(period), "slot"):
            for row in batch.to_pylist():
                key = (period, row["service"], format_instant(int(row["slot"].timestamp() * 1000)), row["zone"], row["class"],
                       row["direction"])
                assert key not in found
                found[key] = [row["octets"], row["packets"], row["flows"]]
    return found


def without_sampling(rows: dict[tuple[object, ...], list[int]]) -> dict[tuple[object, ...], list[int]]:
    found: dict[tuple[object, ...], list[int]] = {}
    for (period, service, when, zone, name, direction, _), counts in rows.items():
        assert isinstance(when, int)
        row = found.setdefault((period, service, format_instant(when), zone, name, direction), [0, 0, 0])
        for index in range(3):
            row[index] += counts[index]
    return found


def five_minutes(home: Home) -> Counter[tuple[object, ...]]:
    with generations.open_current(home) as duck:
        found = duck.execute("SELECT period, service, epoch_ms(slot), direction, sampled, sum(octets)::BIGINT "
                             "FROM usage_5min GROUP BY ALL").fetchall()
    return +Counter({row[:5]: row[5] for row in found})
