"""`usage strangers`: whose traffic nobody owned; the octets are those that aggregation reports, however they are cut."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from aggregation_town import add_leases, add_segment, make_home
from harness import rows, run_cli
from oracles.slow_usage import Flow, Lease, World

from aggregation import strangers
from aggregation.batches import aggregate
from core.actor import Actor
from core.periods import OPEN_END, OPEN_START, parse_instant
from storage.home import Home

ACTOR = Actor("test", "test")
AT = parse_instant("2026-10-05T08:00:00+02:00")
NOVEMBER = parse_instant("2026-11-01T00:00:00+01:00")
FAR = ("8.8.8.8", "9.9.9.9", "2001:db8:ffff::1")
NEAR = ("10.0.0.1", "10.0.0.2", "10.0.1.9", "10.0.7.7", "2001:db8:1::7", "203.0.113.3")
_numbers = itertools.count()


def total(home: Home, period: str, by: str) -> tuple[int, int, int]:
    found = strangers.report(home, period, by, 10_000)
    assert found.octets == found.reported
    return found.octets, sum(row["flows"] for row in found.rows), len(found.rows)


@pytest.mark.parametrize("seed", range(6))
def test_the_octets_by_network_are_those_of_aggregation_in_every_month(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    near = lambda: NOVEMBER + rng.randrange(-9_000_000, 9_000_000)  # noqa: E731
    world = World(infrastructure=["203.0.113.0/28"], seller_zone=rng.choice(["Europe/Berlin", "Asia/Kathmandu"]),
                  cut=rng.choice([None, {"192.0.2.1"}]))
    for address in ("10.0.0.1", "10.0.0.2", "10.0.1.0/24", "2001:db8:1::/56"):
        first, second = sorted((near(), near()))
        world.leases.append(Lease(address, first, second, "S1"))
    home = make_home(tmp_path / "home", world)
    for _ in range(3):
        flows = []
        for _ in range(200):
            start = near() - rng.randrange(10**7)
            ends = rng.sample([*NEAR, *FAR], 2)
            flows.append(Flow(start, start + rng.choice([0, 1, rng.randrange(3 * 10**7)]), *ends, rng.randrange(2**40),
                              rng.randrange(1, 1000), rng.choice(["192.0.2.1", "192.0.2.2"]), numerator=rng.choice([1, 100]),
                              denominator=rng.choice([1, 3]), quarantined=rng.random() < 0.1))
        add_segment(home, flows, f"s{next(_numbers)}")
    aggregate(home, ACTOR)
    months = ("2026-10", "2026-11")
    for period in months:
        octets, flows_seen, _ = total(home, period, "prefix")
        assert octets > 0
        assert total(home, period, "exporter")[:2] == (octets, flows_seen)


def test_what_is_not_kept_apart_stays_in_the_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = make_home(tmp_path / "home", World())
    add_segment(home, [Flow(AT, AT, f"9.{n}.0.1", "8.8.8.8", 1000 + n) for n in range(40)], "s")
    aggregate(home, ACTOR)
    apart = strangers.report(home, "2026-10", "prefix", 100)
    monkeypatch.setattr(strangers, "NETWORKS_MAX", 10)
    found = strangers.report(home, "2026-10", "prefix", 100)
    assert found.octets == found.reported == apart.octets == sum(range(1000, 1040))
    assert [row["prefix"] for row in found.rows] == [None, *(f"9.{n}.0.0/24" for n in (39, 38, 37, 36, 35))]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Home:
    world = World(leases=[Lease("198.51.100.5", AT, OPEN_END, "S1"), Lease("2001:db8:5::/56", OPEN_START, OPEN_END, "S1")])
    home = make_home(tmp_path_factory.mktemp("strangers") / "home", world)
    add_segment(home, [
        Flow(AT - 1000, AT + 1000, "8.8.8.8", "198.51.100.5", 1000, 10),  # half of it before the lease
        Flow(AT, AT, "198.51.100.6", "8.8.8.8", 300, 3, numerator=100),  # a neighbour without a lease
        Flow(AT, AT, "8.8.8.8", "100.64.3.3", 70),
        Flow(AT, AT, "9.9.9.9", "8.8.8.8", 5, exporter="192.0.2.9"),
        Flow(AT, AT, "2001:db8:ffff::1", "2001:db8:5:ff00::1", 4)], "s")
    aggregate(home, ACTOR)
    return home


def listed(home: Home, *words: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in rows(run_cli("usage", "strangers", "--period", "2026-10", *words, home=home.path))]


def test_the_network_is_that_of_the_end_that_looks_like_ours(town: Home) -> None:
    assert listed(town) == [
        ("192.0.2.1", "198.51.100.0/24", True, 30500, 305, 1 + 1),
        ("192.0.2.1", "100.64.3.0/24", False, 70, 1, 1),
        ("192.0.2.9", "9.9.9.0/24", False, 5, 1, 1),
        ("192.0.2.1", "2001:db8:5::/48", True, 4, 1, 1)]
    assert listed(town, "--by", "exporter") == [("192.0.2.1", 30574, 4), ("192.0.2.9", 5, 1)]
    assert len(listed(town, "--limit", "1")) == 1


def test_it_says_the_total_and_what_waits(town: Home) -> None:
    done = run_cli("usage", "strangers", "--period", "2026-10", home=town.path)
    assert done.stderr.splitlines()[-1] == "strangers of 2026-10: 30579 octets; 4 of 4 rows are shown"
    assert run_cli("usage", "strangers", "--period", "2026-09", home=town.path).stdout == ""
    run_cli("usage", "strangers", "--by", "service", home=town.path, check=2)
    run_cli("usage", "strangers", "--period", "2026-13", home=town.path, check=2)


def test_leases_that_came_since_are_told(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", World(leases=[Lease("198.51.100.5", OPEN_START, OPEN_END, "S1")]))
    add_segment(home, [Flow(AT, AT, "198.51.100.6", "8.8.8.8", 300)], "s")
    aggregate(home, ACTOR)
    add_leases(home, [Lease("198.51.100.6", OPEN_START, OPEN_END, "S1")], changes=True)
    found = strangers.report(home, "2026-10", "prefix", 10)
    assert (found.octets, found.reported, found.stale_batches) == (0, 300, 1)
    assert any("aggregate run" in sentence for sentence in found.sentences("2026-10"))
    assert aggregate(home, ACTOR).remade == 1
    assert strangers.report(home, "2026-10", "prefix", 10).reported == 0
