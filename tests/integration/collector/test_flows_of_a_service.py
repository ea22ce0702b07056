"""`flows export --service`: whose flows they were at their time, found by address; what is read does not grow with the rest."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from aggregation_town import add_leases, add_segment, make_home
from harness import rows, run_cli
from oracles.slow_usage import Flow, Lease, World

from aggregation.batches import aggregate
from collector import compaction, segments, service_flows
from core import tables
from core.actor import Actor
from core.periods import DAY_MS, HOUR_MS, OPEN_END, OPEN_START, parse_instant
from storage import lake, sql
from storage.home import Home

ACTOR = Actor("test", "test")
MONTH = parse_instant("2026-10-01T00:00:00Z")
SERVICE_FLOWS = 40
"""A day, of the service that is asked for."""


def add(home: Home, flows: list[Flow], name: str) -> None:
    key = add_segment(home, flows, name)
    received = [flow.end for flow in flows]
    with sql.transaction(sql.engine(home)) as connection:
        connection.execute(tables.segment.update().where(tables.segment.c.id == key).values(
            received_first=min(received), received_last=max(received)))


def traffic(rng: random.Random, day: int, near: list[str], count: int) -> list[Flow]:
    found = []
    for _ in range(count):
        start = day + rng.randrange(DAY_MS - 60_000)
        ends = [rng.choice(near), f"198.18.{rng.randrange(256)}.{rng.randrange(256)}"]
        rng.shuffle(ends)
        found.append(Flow(start, start + rng.randrange(60_000), *ends, rng.randrange(10**6), 1))
    return found


def town(path: Path, others: int, days: int = 6) -> Home:
    """A service with 40 flows a day beside as many other addresses."""
    leases = [Lease("10.1.0.1", OPEN_START, OPEN_END, "S")]
    leases += [Lease(f"10.0.{n // 250}.{n % 250 + 1}", OPEN_START, OPEN_END, "T") for n in range(others)]
    home = make_home(path, World(leases=leases))
    for day in range(days):
        rng = random.Random(day)
        start = MONTH + day * DAY_MS
        flows = traffic(rng, start, ["10.1.0.1"], SERVICE_FLOWS)
        flows += traffic(rng, start, [lease.address for lease in leases[1:]], 40 * others)
        rng.shuffle(flows)
        add(home, flows, f"day-{day}")
    aggregate(home, ACTOR)
    compaction.compact(home, ACTOR)
    return home


class CountingFile(io.FileIO):
    """A file that counts what is read of it."""

    octets = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(-1 if size is None else size) or b""
        CountingFile.octets += len(data)
        return data


def octets_read(home: Home, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int, int]:
    """Flows found, octets that files gave, octets that lie there."""
    monkeypatch.setattr(lake, "open_file", CountingFile)
    CountingFile.octets = 0
    found = service_flows.find(home, "S", None, None)
    count = sum(table.num_rows for table in found.tables())
    assert found.meter.octets == CountingFile.octets
    assert found.read_whole == 0
    return count, CountingFile.octets, sum(path.stat().st_size for path in home.folder("lake").rglob("*.parquet"))


def test_what_is_read_for_a_month_does_not_grow_with_the_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake, "FILE_FLOWS", 512)
    monkeypatch.setattr(lake, "GROUP_FLOWS", 64)
    few, many = (octets_read(town(tmp_path / str(others), others), monkeypatch) for others in (25, 400))
    assert few[0] == many[0] == 6 * SERVICE_FLOWS
    assert many[2] > 10 * few[2]
    assert many[1] < 1.2 * few[1], (few, many)
    assert many[1] * 10 < many[2]


def slow_flows_of(home: Home, leases: list[Lease], service: str) -> set[tuple[Any, ...]]:
    """The flows of which an instant lies in a lease of one end, each looked at."""
    from core.addresses import format_address, parse_address, parse_prefix

    def owner(address: bytes, at: int) -> str | None:
        holding = [(prefix.length, lease.service) for lease in leases if lease.start <= at < lease.end
                   and (prefix := parse_prefix(lease.address)).first <= int.from_bytes(address, "big") <= prefix.last]
        return max(holding)[1] if holding else None

    with sql.reading(sql.engine(home)) as connection:
        known = list(connection.execute(sa.select(tables.segment)))
    assert parse_address("10.0.0.1")
    found = set()
    for table in segments.read_flows(home, known):
        times = {name: table.column(name).cast(pa.int64()).to_pylist() for name in ("start", "end")}
        for at, flow in enumerate(table.select(["source_address", "destination_address", "octets"]).to_pylist()):
            start, end = times["start"][at], times["end"][at]
            edges = {start, *(edge for lease in leases for edge in (lease.start, lease.end) if start < edge < end)}
            if any(owner(flow[name], edge) == service for edge in edges for name in ("source_address", "destination_address")):
                found.add((start, end, format_address(flow["source_address"]), format_address(flow["destination_address"]),
                           flow["octets"]))
    return found


def exported(home: Home, service: str) -> tuple[set[tuple[Any, ...]], str]:
    done = run_cli("flows", "export", "--service", service, home=home.path)
    found = rows(done)
    assert [row["received"] for row in found] == sorted(row["received"] for row in found)
    as_set = {(parse_instant(row["start"]), parse_instant(row["end"]), row["source_address"], row["destination_address"],
               row["octets"]) for row in found}
    assert len(as_set) == len(found), "none is there twice"
    return as_set, done.stderr


def test_flows_are_those_of_attribution_also_when_leases_come_late(tmp_path: Path) -> None:
    rng = random.Random(7)
    near = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8:1::7", "203.0.113.9"]
    leases = [Lease("10.0.0.1", OPEN_START, MONTH + DAY_MS, "S"), Lease("10.0.0.1", MONTH + DAY_MS, OPEN_END, "T"),
              Lease("10.0.0.2", MONTH + 10 * HOUR_MS, OPEN_END, "S"), Lease("10.0.0.0/30", OPEN_START, OPEN_END, "T"),
              Lease("2001:db8:1::/56", MONTH + 30 * HOUR_MS, OPEN_END, "S")]
    home = make_home(tmp_path / "home", World(leases=leases))
    for day in range(3):
        flows = traffic(rng, MONTH + day * DAY_MS, near, 300)
        flows += [Flow(flow.start, flow.end, *rng.sample(near, 2), flow.octets, 1) for flow in flows[:100]]
        add(home, flows, f"day-{day}")
    aggregate(home, ACTOR)
    compaction.compact(home, ACTOR)
    add(home, traffic(rng, MONTH + 3 * DAY_MS, near, 300), "hot")
    for service in ("S", "T"):
        found, said = exported(home, service)
        assert found == slow_flows_of(home, leases, service)
        assert len(found) > 100
        assert "1 segments that are not compacted" in said
    late = [Lease("10.0.0.3", MONTH + 20 * HOUR_MS, MONTH + 40 * HOUR_MS, "S"), Lease("203.0.113.9", MONTH, OPEN_END, "S")]
    add_leases(home, late, changes=True)
    leases += late
    before, said = exported(home, "S")
    assert before == slow_flows_of(home, leases, "S")
    assert "3 parts were read in whole" in said, "203.0.113.0/24 was nobody's when they were sorted"
    run_cli("storage", "compact", home=home.path)
    after, said = exported(home, "S")
    assert after == before
    assert "in whole" not in said


def test_each_look_is_recorded_and_an_unknown_service_is_not_found(tmp_path: Path) -> None:
    home = town(tmp_path / "home", 5, days=1)
    some = rows(run_cli("flows", "export", "--service", "S", "--from", "2026-10-01T06:00Z", "--to", "2026-10-01T12:00Z",
                        "--reason", "ticket 7", home=home.path))
    assert 0 < len(some) < SERVICE_FLOWS
    assert all("2026-10-01T06:00" <= row["received"] < "2026-10-01T12:00" for row in some)
    with sql.reading(sql.engine(home)) as connection:
        look = connection.execute(sa.select(tables.audit).where(tables.audit.c.action == "flows export")).one()
    assert look.reason == "ticket 7"
    assert json.loads(look.after)["service"] == "S"
    assert "no service 'nobody'" in run_cli("flows", "export", "--service", "nobody", home=home.path, check=5).stderr


def test_a_flipped_bit_in_a_row_group_or_footer_is_named(tmp_path: Path) -> None:
    home = town(tmp_path / "home", 5, days=1)
    path = next(home.folder("lake").rglob("*-flows-0000.parquet"))
    whole = path.read_bytes()
    noticed = 0
    for offset in range(0, len(whole), len(whole) // 40):
        damaged = bytearray(whole)
        damaged[offset] ^= 8
        path.write_bytes(damaged)
        try:
            count = sum(table.num_rows for table in service_flows.find(home, "S", None, None).tables())
        except lake.DamagedFile as error:
            noticed += path.name in error.message
        else:
            assert count == SERVICE_FLOWS, "it lies where nothing was read"
    assert noticed > 30
