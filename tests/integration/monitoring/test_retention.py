"""`storage gc`: far ends are truncated, flows deleted, files removed; what can't be made again is said and never wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from aggregation_town import add_leases, add_segment, make_home
from harness import rows, run_cli
from oracles.slow_usage import Flow, Lease, World

from aggregation import manifest, segments
from aggregation.batches import aggregate
from collector import compaction, retention, service_flows
from collector.listing import flows as exported_flows
from core import clock, tables
from core.actor import Actor
from core.errors import FlowsForgotten
from core.periods import DAY_MS, HOUR_MS, OPEN_END, OPEN_START, parse_instant
from monitoring import garbage
from storage import lake, sql
from storage.home import Home

ACTOR = Actor("test", "test")
DAY = parse_instant("2026-01-05T00:00:00Z")
LEASES = [Lease("10.0.0.1", OPEN_START, OPEN_END, "S1"), Lease("2001:db8:1::/56", OPEN_START, OPEN_END, "S2")]
ENDS = [("10.0.0.1", "198.51.100.77"), ("2001:db8:ffff:7::99", "2001:db8:1::7"), ("10.0.0.1", "2001:db8:1::8"),
        ("192.0.2.200", "203.0.113.201")]
TRUNCATED = {("10.0.0.1", "198.51.100.0"), ("2001:db8:ffff::", "2001:db8:1::7"), ("10.0.0.1", "2001:db8:1::8"),
             ("192.0.2.0", "203.0.113.0")}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Two days, aggregated and compacted."""
    made = make_home(tmp_path / "home", World(leases=list(LEASES), classes=[("peering", 10, ["198.51.100.77/32"])]))
    for day in range(2):
        flows = [Flow(DAY + day * DAY_MS + n * HOUR_MS, DAY + day * DAY_MS + n * HOUR_MS + 1000, *ends, 1000 + n, 10)
                 for n, ends in enumerate(ENDS * 3)]
        key = add_segment(made, flows, f"day-{day}")
        with sql.transaction(sql.engine(made)) as connection:
            connection.execute(tables.segment.update().where(tables.segment.c.id == key).values(
                received_first=flows[0].end, received_last=flows[-1].end))
        aggregate(made, ACTOR)
    return made


Clock = Callable[[int], None]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let it be so many days after the first day."""
    def go(days: int) -> None:
        monkeypatch.setattr(clock, "now_ms", lambda: DAY + days * DAY_MS + 12 * HOUR_MS)

    go(3)
    return go


def ends(home: Home) -> set[tuple[str, str]]:
    return {(row["source_address"], row["destination_address"]) for batch in exported_flows(home, None, None)
            for row in batch.to_pylist()}


def done(home: Home, *, dry_run: bool = False) -> list[dict[str, Any]]:
    return [step.as_row() for step in garbage.collect(home, ACTOR, dry_run=dry_run)]


def test_far_ends_are_truncated_after_their_time_and_subscribers_are_not(home: Home, at: Clock) -> None:
    compaction.compact(home, ACTOR)
    at(80)
    done(home)
    assert ends(home) == set(ENDS), "80 days are not 90"
    at(90)
    dry = done(home, dry_run=True)
    assert [(row["what"], row["flows"]) for row in dry] == [("truncate", 12)]
    assert "truncate_after_days = 90" in dry[0]["why"]
    assert ends(home) == set(ENDS)
    assert [row["what"] for row in done(home)] == ["truncate"]
    assert ends(home) == {*ENDS, *TRUNCATED}
    at(92)
    done(home)
    assert ends(home) == TRUNCATED
    assert done(home) == [], "once"
    for service, count in (("S1", 12), ("S2", 12)):
        found = service_flows.find(home, service, None, None)
        assert sum(table.num_rows for table in found.tables()) == count
        assert any("truncated" in sentence for sentence in found.sentences())
    with sql.reading(sql.engine(home)) as connection:
        audits = connection.execute(sa.select(tables.audit).where(tables.audit.c.action == "storage gc")).all()
    assert len(audits) == 2
    before = len(list(home.folder("lake").rglob("*.parquet")))
    at(100)
    (removed,) = [row for row in done(home) if row["what"] == "remove"]
    assert removed["files"] == 2, "what held whole addresses is gone"
    assert len(list(home.folder("lake").rglob("*.parquet"))) == before - 2
    assert ends(home) == TRUNCATED


def test_flows_are_deleted_and_usage_stays(home: Home, at: Clock) -> None:
    compaction.compact(home, ACTOR)
    at(182)
    assert [row["what"] for row in done(home)] == ["delete", "delete", "remove"]
    assert ends(home) == set()
    assert rows(run_cli("storage", "verify", home=home.path)) == []
    with sql.reading(sql.engine(home)) as connection:
        assert len(manifest.cell_files(connection, "cells")) > 0
        some = manifest.segments(connection, [1])
    with pytest.raises(FlowsForgotten, match="were deleted at"):
        list(segments.read_all(home, some))
    found = service_flows.find(home, "S1", None, None)
    assert sum(table.num_rows for table in found.tables()) == 0
    assert "the flows of 2 parts were deleted" in " ".join(found.sentences())
    at(190)
    done(home)
    assert not list(home.folder("lake").rglob("*.parquet"))
    assert done(home) == []


def live_cells(home: Home) -> dict[str, bytes]:
    with sql.reading(sql.engine(home)) as connection:
        return {file.path: (home.path / file.path).read_bytes() for kind in ("cells", "outcomes")
                for _, file in manifest.cell_files(connection, kind)}


@pytest.mark.parametrize("days", [93, 182])
def test_cells_of_forgotten_flows_stay_whatever_changes(home: Home, at: Clock, days: int) -> None:
    compaction.compact(home, ACTOR)
    before = live_cells(home)
    at(days)
    done(home)
    add_leases(home, [Lease("192.0.2.200", OPEN_START, OPEN_END, "S1")], changes=True)
    settings = home.path / "ratemill.toml"
    settings.write_text(settings.read_text().replace("peering", "transit"))
    said = run_cli("aggregate", "run", home=home.path)
    assert rows(said)[0]["frozen"] == 2
    assert rows(said)[0]["remade"] == 0
    assert "2 batches stay as they are" in said.stderr
    assert live_cells(home) == before
    assert rows(run_cli("aggregate", "run", home=home.path))[0]["frozen"] == 0, "said once, not stale any more"
    with sql.reading(sql.engine(home)) as connection:
        kept = connection.execute(sa.select(tables.frozen_batch)).all()
        assert not manifest.stale_batches(connection)
        some = manifest.segments(connection, [1])
    word = "truncated" if days < 180 else "deleted"
    assert all(row.why.endswith(word) for row in kept)
    assert json.loads(run_cli("status", home=home.path).stdout)["frozen_batches"] == 2
    with pytest.raises(FlowsForgotten):
        list(segments.read_all(home, some))


def test_what_is_not_up_to_date_waits(home: Home, at: Clock) -> None:
    at(95)
    (waiting,) = done(home)
    assert (waiting["what"], waiting["files"], waiting["flows"]) == ("waits", 2, 24)
    assert "not compacted" in waiting["why"]
    compaction.compact(home, ACTOR)
    add_leases(home, [Lease("192.0.2.200", DAY, DAY + DAY_MS, "S1")], changes=True)
    found = done(home)
    assert [row["what"] for row in found] == ["waits", "truncate"]
    assert "aggregate run" in found[0]["why"]
    aggregate(home, ACTOR)
    (waiting,) = (row for row in done(home) if row["what"] != "remove")
    assert "storage compact" in waiting["why"], "its new subscriber must not be truncated"
    compaction.compact(home, ACTOR)
    assert [row["what"] for row in done(home)] == ["truncate"]
    assert ("192.0.2.200", "203.0.113.0") in ends(home)


def test_a_killed_truncation_leaves_nothing_that_counts(home: Home, at: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    compaction.compact(home, ACTOR)
    at(92)

    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(compaction, "register", killed)
        with pytest.raises(KeyboardInterrupt):
            done(home)
    assert ends(home) == set(ENDS)
    assert [row["what"] for row in done(home)].count("truncate") == 2
    assert ends(home) == TRUNCATED
    with sql.reading(sql.engine(home)) as connection:
        known = {file.path for part in lake.parts(connection) for file in lake.files_of(connection, part.id, "flows")}
    assert known <= {home.relative(path) for path in home.folder("lake").rglob("*.parquet")}


def test_limits_are_settings_and_zero_is_never(home: Home, at: Clock) -> None:
    compaction.compact(home, ACTOR)
    settings = home.path / "ratemill.toml"
    whole = settings.read_text()
    settings.write_text(whole + "[retention]\ntruncate_after_days = 0\ndelete_after_days = 0\n")
    at(3000)
    assert list(retention.forget(Home(home.path), ACTOR)) == []
    settings.write_text(whole + "[retention]\ntruncate_after_days = 50\ndelete_after_days = 40\n")
    assert "delete_after_days (40) is less" in run_cli("config", "check", home=home.path, check=1).stderr
    settings.write_text(whole)
    shown = rows(run_cli("storage", "gc", "--dry-run", home=home.path))
    assert all(set(row) == set(garbage.COLUMNS) for row in shown)
