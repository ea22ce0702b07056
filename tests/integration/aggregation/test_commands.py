"""`aggregate run`, `usage publish` and `usage export` as an operator runs them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from aggregation_town import add_segment, make_home
from harness import rows, run_cli
from oracles.slow_usage import Calendar, Flow, Lease, Subscription, World, Zone

from core.periods import OPEN_END, OPEN_START, parse_instant

COLUMNS = ["service", "hour", "zone", "class", "direction", "octets", "packets", "flows"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = World(
        leases=[Lease("10.0.0.1", OPEN_START, OPEN_END, "S1"), Lease("10.0.0.2", OPEN_START, OPEN_END, "B2")],
        subscriptions=[Subscription("S1", OPEN_START, OPEN_END, "Europe/Berlin", "home"),
                       Subscription("B2", OPEN_START, OPEN_END, "Asia/Kolkata")],
        plans={"home": ("day", False)}, calendars={"day": Calendar((Zone("day", (0, 1, 2, 3, 4), 485, 1380),), "night")})
    made = make_home(tmp_path_factory.mktemp("cli") / "home", world)
    start = parse_instant("2026-10-05T08:00:00+02:00")
    sampled = Flow(start, start, "10.0.0.1", "8.8.8.8", 10, 1, numerator=100)
    add_segment(made, [Flow(start, start + 600_000, "8.8.8.8", "10.0.0.1", 1000, 10), sampled,
                       Flow(start, start + 1, "10.0.0.1", "10.0.0.2", 7, 1)], "s")
    return made.path


def test_nothing_published_is_not_found_and_says_what_to_do(home: Path) -> None:
    done = run_cli("usage", "export", "2026-10", home=home, check=5)
    assert done.stdout == ""
    assert "ratemill usage publish" in done.stderr


def test_the_way_from_flows_to_an_export(home: Path) -> None:
    assert rows(run_cli("aggregate", "run", home=home)) == [{
        "segments": 1, "flows": 3, "batches": 1, "remade": 0, "held": 0, "finer_edges": 0, "merged": 0, "frozen": 0,
        "cells": 5, "attributed_octets": 2014,
        "swept_files": 0, "shared": 0}]
    assert rows(run_cli("aggregate", "run", home=home))[0]["batches"] == 0
    assert rows(run_cli("usage", "publish", home=home))[0]["published"] is True
    again = run_cli("usage", "publish", home=home)
    assert rows(again)[0]["published"] is False
    assert "nothing has changed" in again.stderr
    hours = rows(run_cli("usage", "export", "2026-10", home=home))
    assert [list(row) for row in hours] == [COLUMNS] * len(hours)
    assert [tuple(row.values()) for row in hours] == [
        ("B2", "2026-10-05T05:30:00.000Z", None, "default", "down", 7, 1, 1),
        ("S1", "2026-10-05T06:00:00.000Z", "day", "default", "down", 500, 5, 0),
        ("S1", "2026-10-05T06:00:00.000Z", "night", "default", "down", 500, 5, 1),
        ("S1", "2026-10-05T06:00:00.000Z", "night", "default", "up", 1007, 101, 2)]


def test_slots_months_and_other_periods(home: Path) -> None:
    slots = rows(run_cli("usage", "export", "2026-10", "--by", "slot", home=home))
    assert [(row["service"], row["slot"], row["zone"], row["octets"]) for row in slots] == [
        ("B2", "2026-10-05T06:00:00.000Z", None, 7), ("S1", "2026-10-05T06:00:00.000Z", "day", 500),
        ("S1", "2026-10-05T06:00:00.000Z", "night", 500), ("S1", "2026-10-05T06:00:00.000Z", "night", 1007)]
    months = rows(run_cli("usage", "export", "2026-10", "--by", "month", home=home))
    assert [(*tuple(row.values())[:3], row["octets"]) for row in months] == [
        ("B2", "2026-10", None, 7), ("S1", "2026-10", "day", 500), ("S1", "2026-10", "night", 500),
        ("S1", "2026-10", "night", 1007)]
    assert run_cli("usage", "export", "2026-09", home=home).stdout == ""


def test_every_format_holds_the_same_rows(home: Path, tmp_path: Path) -> None:
    text = run_cli("usage", "export", "2026-10", "-o", "csv", home=home).stdout
    table = list(csv.reader(io.StringIO(text)))
    assert table[0] == COLUMNS
    assert table[1] == ["B2", "2026-10-05T05:30:00.000Z", "", "default", "down", "7", "1", "1"]
    run_cli("usage", "export", "2026-10", "-o", "parquet", "--to", str(tmp_path / "u.parquet"), home=home)
    assert pq.read_table(tmp_path / "u.parquet").column_names == COLUMNS
    assert pq.read_table(tmp_path / "u.parquet").num_rows == len(table) - 1


@pytest.mark.parametrize("words", [("2026-13",), ("2026-10", "--by", "day"), ("2026-10", "-o", "parquet")])
def test_a_wrong_command_line_is_explained(words: tuple[str, ...], home: Path) -> None:
    done = run_cli("usage", "export", *words, home=home, check=2)
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("ratemill: ")
