"""`rate verify --level 2`: what aggregation made of random flows is what the slow second way makes of them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aggregation_town
import pytest
import rating_home
import sqlalchemy as sa

import cli
from core import tables
from storage import sql
from storage.home import Home

SETTINGS = (
    rating_home.SETTINGS
    + """
[[class]]
name = "inner"
priority = 10
prefixes = ["198.51.100.128/25"]

[[realm]]
name = "b"
exporter = "192.0.2.2"

[[metering]]
exporter = "192.0.2.1"
interfaces = [0, 7]

[[metering]]
exporter = "192.0.2.2"
"""
)
PLANS = """
[[calendar]]
name = "odd"
from = 2026-01-01
holidays = "DE"
zones = [
  { name = "day", days = ["mon", "tue", "wed", "thu", "fri"], start = "08:05", end = "22:50" },
  { name = "late", days = ["thu", "fri", "sat"], start = "23:10", end = "02:20", priority = 1 },
  { name = "rest", default = true, holiday = true },
]

[[plan]]
name = "volume"
from = 2026-01-01
currency = "EUR"
tax = "standard"
prices = "exclusive"
calendar = "odd"

[[plan.traffic]]
name = "By day"
direction = "both"
classes = ["default", "inner"]
zones = ["day", "late"]
included = "1 MB"
above = "all"
price = "0.50"
unit = "MB"

[[plan]]
name = "line"
from = 2026-01-01
currency = "EUR"
tax = "standard"
prices = "exclusive"

[[plan.percentile]]
name = "95th"
percentile = 95
convention = "sum"
missing = "left_out"
price = "4.00"
unit = "kbit/s"
"""
OCTOBER = (rating_home.instant("2026-09-30T12:00:00Z"), rating_home.instant("2026-11-01T12:00:00Z"))
MOMENTS = [
    "2026-09-30T22:00:00Z",
    "2026-10-03T00:00:00+02:00",
    "2026-10-25T00:30:00Z",
    "2026-10-25T01:00:00Z",
    "2026-10-31T23:00:00Z",
    "2026-10-02T21:10:00Z",
    "2026-10-05T06:05:00Z",
    "2026-10-31T18:15:00Z",
]


def fill(home: Home, rng: random.Random) -> None:
    for number in range(6):
        zone = rng.choice(["Europe/Berlin", "Asia/Kathmandu", "America/New_York"])
        change = rng.choice(["2026-10-14", "2026-10-25", ""])
        first, second = rng.choice(["volume", "line"]), rng.choice(["volume", "line", None])
        rating_home.subscribe(home, f"S{number}", first, "2026-01-01", change, zone)
        if change:
            rating_home.subscribe(home, f"S{number}", second, change, "", zone)
    leases = []
    for realm in ("", "b"):
        for number in range(5):
            edges = sorted(rng.randrange(*OCTOBER) for _ in range(rng.randrange(3)))
            for start, end in zip([OCTOBER[0] - 10**9, *edges], [*edges, 2**62], strict=True):
                leases.append(
                    SimpleNamespace(
                        realm=realm,
                        address=f"10.0.0.{number}",
                        ports=None,
                        start=start,
                        end=end,
                        service=f"S{rng.randrange(6)}",
                    )
                )
    leases.append(SimpleNamespace(realm="", address="10.0.0.0/29", ports=None, start=-(2**62), end=2**62, service="S5"))
    leases += [
        SimpleNamespace(
            realm="", address="192.0.2.9", ports=(1000 * n, 1000 * n + 999), start=-(2**62), end=2**62, service=f"S{n}"
        )
        for n in range(1, 4)
    ]
    aggregation_town.add_leases(home, leases)
    edges = [lease.start for lease in leases if abs(lease.start) < 2**60]
    for number in range(3):
        aggregation_town.add_segment(home, [_flow(rng, edges) for _ in range(60)], f"s{number}")


def _flow(rng: random.Random, edges: list[int]) -> Any:
    near = rng.choice([*(f"10.0.0.{n}" for n in range(8)), "192.0.2.9", "10.9.9.9"])
    far = rng.choice(["8.8.8.8", "198.51.100.1", "198.51.100.200", "10.0.0.1"])
    duration = rng.choice([0, 1, rng.randrange(3_600_000), rng.randrange(20_000_000)])
    at = rng.choice(
        [rng.randrange(*OCTOBER), rng.choice(edges or [OCTOBER[0]]), rating_home.instant(rng.choice(MOMENTS))]
    )
    start = at - rng.choice([0, duration // 2, duration])
    source, destination = (near, far) if rng.random() < 0.4 else (far, near)
    return SimpleNamespace(
        exporter=rng.choice(["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
        source=source,
        destination=destination,
        start=start,
        end=start + duration,
        source_port=rng.choice([0, 1500, 2999, 5000]),
        destination_port=rng.choice([0, 1000, 3999, 4000]),
        protocol=rng.choice([6, 17, 1]),
        octets=rng.choice([0, 1, rng.randrange(1 << 33)]),
        packets=rng.randrange(1, 1000),
        numerator=rng.choice([1, 1, 50, 3]),
        denominator=rng.choice([1, 1, 2]),
        input_interface=rng.choice([0, 3, 7]),
        quarantined=rng.random() < 0.05,
    )


def run(capsys: pytest.CaptureFixture[str], home: Home, *words: str, code: int = 0) -> list[dict[str, Any]]:
    capsys.readouterr()
    got = cli.run(["--home", str(home.path), "--json", *words])
    out, error = capsys.readouterr()
    assert got == code, f"{words}: exit {got}\n{out}\n{error}"
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("seed", range(6))
def test_usage_and_charges_are_the_same_from_the_segments(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = rating_home.make_home(tmp_path / "home", SETTINGS)
    (tmp_path / "plans.toml").write_text(PLANS)
    run(capsys, home, "plans", "apply", str(tmp_path / "plans.toml"))
    fill(home, random.Random(seed))
    run(capsys, home, "aggregate", "run")
    run(capsys, home, "usage", "publish")
    run(capsys, home, "rate", "run", "2026-10", "--as-of", "2026-11-02T00:00:00Z")
    checked = run(capsys, home, "rate", "verify", "2026-10", "--level", "2")[0]
    assert checked["differing"] == 0
    assert checked["checked"] == checked["equal"] > 100
    assert run(capsys, home, "storage", "compact")[0]["segments"] > 0
    for path in home.folder("segments").rglob("*.arrow"):
        path.unlink()
    assert run(capsys, home, "rate", "verify", "2026-10", "--level", "2")[0] == checked, "from the lake as from segments"
    explained = [row for number in range(6) for row in run(capsys, home, "rate", "explain", f"S{number}", "2026-10")]
    assert {row["level"] for row in explained} >= {0, 1, 2, 3, 4}

    with sql.transaction(sql.engine(home)) as connection:  # a lease that came to light later
        lease = connection.execute(sa.select(tables.lease.c.id).where(tables.lease.c.prefix_length < 128)).scalar_one()
        connection.execute(tables.lease.delete().where(tables.lease.c.id == lease))
    assert run(capsys, home, "rate", "verify", "2026-10", "--level", "2", code=7)[0]["differing"] > 0
    assert run(capsys, home, "rate", "verify", "2026-10", "--level", "1")[0]["differing"] == 0
