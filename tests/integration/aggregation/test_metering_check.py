"""`metering check`: what the cut counts never or twice, against a slow count of the same rule."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from aggregation_town import add_segment, make_home
from harness import rows, run_cli
from oracles.slow_usage import Flow, Lease, Subscription, World

from aggregation import metering
from core.periods import OPEN_END, OPEN_START, format_instant, parse_instant
from storage.home import Home

EIGHT = parse_instant("2026-10-05T08:00:00Z")
HOUR = 3_600_000
EDGE, OTHER, CORE = "192.0.2.1", "192.0.2.2", "192.0.2.9"


def home_of(folder: Path, cut: set[str] | None) -> Home:
    people = {"10.0.0.1": "S1", "10.0.0.2": "S2", "10.0.0.3": "S3"}
    return make_home(folder, World(
        leases=[Lease(address, OPEN_START, OPEN_END, service) for address, service in people.items()],
        subscriptions=[Subscription(service, OPEN_START, OPEN_END, "UTC") for service in people.values()], cut=cut))


def flow(owner: str, octets: int, exporter: str, minute: float = 0, **more: Any) -> Flow:
    start = EIGHT + int(minute * 60_000)
    return Flow(start, start + 30_000, owner, "8.8.8.8", octets, 1, exporter=exporter, **more)


def check(home: Home, *words: str) -> list[dict[str, Any]]:
    span = ("--from", format_instant(EIGHT - HOUR), "--until", format_instant(EIGHT + 24 * HOUR))
    return rows(run_cli("metering", "check", *span, *words, home=home.path))


def test_what_is_counted_never_and_twice_is_named_with_its_points(tmp_path: Path) -> None:
    home = home_of(tmp_path / "home", {EDGE, OTHER})
    add_segment(home, [
        flow("10.0.0.1", 1000, EDGE), flow("10.0.0.1", 1000, CORE),  # as it should be: once in the cut, once beside it
        flow("10.0.0.2", 700, EDGE, minute=1), flow("10.0.0.2", 690, OTHER, minute=1.1, input_interface=4),  # twice
        flow("10.0.0.3", 500, CORE, minute=2, input_interface=3), flow("10.0.0.3", 9, CORE, minute=9, input_interface=3),
        flow("10.0.0.1", 400, EDGE, source_port=5), flow("10.0.0.1", 400, OTHER, minute=20, source_port=5),  # it moved
        replace(flow("203.0.113.1", 77, CORE), destination="198.51.100.1"),  # nobody of ours
    ], "a")
    found = check(home)
    assert [tuple(row.values()) for row in found] == [
        ("twice", "S2", "10.0.0.2", OTHER, 4, 0, None, 690, 1),
        ("never", "S3", "10.0.0.3", CORE, 3, 0, None, 509, 2)]
    assert len(check(home, "--limit", "1")) == 1
    assert not list(home.path.glob(".metering-*")), "the scratch file is gone"


def test_a_span_without_anything_wrong_says_so(tmp_path: Path) -> None:
    home = home_of(tmp_path / "home", None)
    add_segment(home, [flow("10.0.0.1", 1000, EDGE)], "a")
    done = run_cli("metering", "check", "--from", "2026-10-05T08:00Z", "--until", "2026-10-05T09:00Z", home=home.path)
    assert done.stdout == ""
    assert "counted once" in done.stderr
    assert "--from" in run_cli("metering", "check", "--from", format_instant(EIGHT), "--until", format_instant(EIGHT),
                               home=home.path, check=2).stderr


def test_it_equals_a_slow_count(tmp_path: Path) -> None:
    source = random.Random(8)
    flows = [flow(f"10.0.0.{source.randrange(1, 5)}", source.randrange(1, 1000), source.choice((EDGE, OTHER, CORE)),
                  source.randrange(180), source_port=source.randrange(1, source.choice((9, 80))),
                  input_interface=source.randrange(1, 3), numerator=source.choice((1, 10))) for _ in range(600)]
    home = home_of(tmp_path / "home", {EDGE, OTHER})
    for number in range(3):
        add_segment(home, flows[number::3], str(number))
    found = metering.check(home, EIGHT + 3 * 60_000, EIGHT + 170 * 60_000, 10_000)
    got = {(row["seen"], row["service"], row["exporter"], row["input_interface"]): (row["octets"], row["flows"])
           for row in found}
    within = [one for one in flows if EIGHT + 3 * 60_000 <= one.start < EIGHT + 170 * 60_000 and one.source != "10.0.0.4"]
    assert got == dict(slow_count(within))
    assert {key[0] for key in got} == {"never", "twice"}


def slow_count(flows: list[Flow]) -> dict[tuple[str, str, str, int], tuple[int, int]]:
    sums: dict[tuple[str, str, str, int], list[int]] = defaultdict(lambda: [0, 0])
    counted = {(one.source, one.source_port) for one in flows if one.exporter != CORE}
    hours: dict[tuple[Any, ...], dict[tuple[str, int], list[Flow]]] = defaultdict(lambda: defaultdict(list))
    for one in flows:
        point = (one.exporter, one.input_interface)
        if (one.source, one.source_port) not in counted:
            key = ("never", f"S{one.source[-1]}", *point)
            sums[key] = [sums[key][0] + one.octets * one.numerator, sums[key][1] + 1]
        if one.exporter != CORE:
            hours[one.source, one.source_port, one.start // HOUR][point].append(one)
    for (owner, *_), points in hours.items():
        total = {point: sum(one.octets * one.numerator for one in those) for point, those in points.items()}
        most, *others = sorted(points, key=lambda point: (-total[point], point))
        first, last = min(one.start for one in points[most]), max(one.end for one in points[most])
        for point in others:
            if min(one.start for one in points[point]) <= last and max(one.end for one in points[point]) >= first:
                key = ("twice", f"S{owner[-1]}", *point)
                sums[key] = [sums[key][0] + total[point], sums[key][1] + len(points[point])]
    return {key: (value[0], value[1]) for key, value in sums.items()}
