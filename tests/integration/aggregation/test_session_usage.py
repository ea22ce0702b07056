"""Sessions as usage: seconds and octets by zone of the tariff, and beside the flows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aggregation_town import add_segment, make_home
from harness import rows, run_cli
from oracles.slow_usage import Calendar, Flow, Lease, Subscription, World, Zone

from core.addresses import parse_address
from core.periods import OPEN_END, OPEN_START, parse_instant
from storage import sql
from storage.home import Home
from subscribers.radius.events import Report, store
from subscribers.radius.packets import AccountingRequest, Counters, Status

EIGHT = parse_instant("2026-10-05T08:00:00+02:00")
"""A Monday; day begins at 08:05 in Berlin."""
CLIENTS = """
[[radius_client]]
address = "127.0.0.1"
secret = { env = "RADIUS_SECRET" }
[[radius_client]]
address = "127.0.0.2"
secret = { env = "RADIUS_SECRET" }
name = "turned"
input = "down"
realm = "town"
"""


def report(minute: float, status: Status, session: str, user: str, octets: tuple[int, int] | None = None,
           source: str = "127.0.0.1", seconds: int | None = None) -> Report:
    at = EIGHT + int(minute * 60_000)
    counters = Counters(*octets) if octets else Counters()
    request = AccountingRequest(0, b"", status, "nas", session, user, (), 0, at, seconds, counters)
    return Report(request, parse_address(source), "turned" if source == "127.0.0.2" else "", at)


REPORTS = [
    report(0, Status.START, "1", "S1"),
    report(10, Status.INTERIM, "1", "S1", (1001, 100)),
    report(20, Status.STOP, "1", "S1", (1001, 100)),
    report(20, Status.START, "2", "S1", source="127.0.0.2"),
    report(30, Status.INTERIM, "2", "S1", (7, 70), source="127.0.0.2"),
    report(5, Status.STOP, "3", "nobody", (5, 6), seconds=60),
    # over the end of the month, by Berlin's clock
    report(26 * 1440 + 17 * 60 - 1, Status.START, "4", "S1"),
    report(26 * 1440 + 17 * 60 + 1, Status.STOP, "4", "S1", (40, 41)),
    report(2, Status.STOP, "5", "B2", (3, 4)),  # all at one instant
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = World(
        leases=[Lease("10.0.0.1", OPEN_START, OPEN_END, "S1"), Lease("10.0.0.2", OPEN_START, OPEN_END, "B2")],
        subscriptions=[Subscription("S1", OPEN_START, OPEN_END, "Europe/Berlin", "home"),
                       Subscription("B2", OPEN_START, OPEN_END, "Asia/Kolkata")],
        plans={"home": ("day", False)}, calendars={"day": Calendar((Zone("day", (0, 1, 2, 3, 4), 485, 1380),), "night")})
    made = make_home(tmp_path_factory.mktemp("sessions") / "home", world, bounds=CLIENTS)
    with sql.transaction(sql.engine(made)) as connection:
        store(connection, list(reversed(REPORTS)))
    return made.path


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADIUS_SECRET", "s3cr3t")


def used(home: Path, period: str) -> list[tuple[Any, ...]]:
    names = ("nas", "session", "service", "zone", "seconds", "up", "down")
    return [tuple(row[name] for name in names) for row in rows(run_cli("usage", "sessions", period, home=home))]


def test_a_session_is_cut_by_zones_and_months_and_nothing_is_lost(home: Path) -> None:
    october, november = used(home, "2026-10"), used(home, "2026-11")
    assert october == [
        ("nas", "1", "S1", "day", 900, 501, 50), ("nas", "1", "S1", "night", 300, 500, 50),
        ("nas", "3", None, None, 60, 5, 6),
        ("nas", "4", "S1", "night", 60, 20, 20),
        ("nas", "5", "B2", None, 0, 3, 4),
        ("turned", "2", "S1", "day", 600, 70, 7)]
    assert november == [("nas", "4", "S1", "night", 60, 20, 21)]
    assert used(home, "2026-09") == []
    whole = rows(run_cli("usage", "sessions", "2026-10", home=home))
    assert [(row["closed_by"], row["end"] is None) for row in whole if row["session"] == "2"] == [("lost", False)]
    assert {row["realm"] for row in whole if row["nas"] == "turned"} == {"town"}


def test_what_access_servers_counted_is_put_beside_the_flows(home: Path) -> None:
    assert "usage publish" in run_cli("usage", "compare-radius", "2026-10", home=home, check=5).stderr
    add_segment(Home(home), [Flow(EIGHT, EIGHT + 600_000, "10.0.0.1", "8.8.8.8", 1000, 10),
                             Flow(EIGHT, EIGHT, "8.8.8.8", "10.0.0.1", 50, 1)], "s")
    run_cli("aggregate", "run", home=home)
    run_cli("usage", "publish", home=home)
    found = {row["service"]: row for row in rows(run_cli("usage", "compare-radius", "2026-10", home=home))}
    assert found["S1"] == {
        "service": "S1", "sessions": 3, "seconds": 1860, "radius_up": 1091, "radius_down": 127, "flows_up": 1000,
        "flows_down": 50, "difference_up": -91, "difference_down": -77, "difference_percent": -13.79}
    assert (found["B2"]["flows_up"], found["B2"]["difference_percent"]) == (0, -100.0)
    assert (found[None]["radius_up"], found[None]["sessions"]) == (5, 1)
    over = rows(run_cli("usage", "compare-radius", "2026-10", "--over", "14", home=home))
    assert [row["service"] for row in over] == [None, "B2"]


def test_the_same_rows_come_out_of_postgresql(tmp_path: Path, home: Path) -> None:
    from postgresql_server import home_on, postgresql

    from aggregation import session_usage
    from core import tables

    with postgresql() as url, home_on(url, tmp_path, CLIENTS) as made:
        with sql.transaction(sql.engine(made)) as connection, sql.reading(sql.engine(Home(home))) as ours:
            for table in (tables.account, tables.service, tables.plan_version, tables.calendar_version, tables.subscription):
                copied = [dict(row._mapping) for row in ours.execute(table.select())]
                if copied:
                    connection.execute(table.insert(), copied)
            assert store(connection, REPORTS) == 0
            assert store(connection, [replace(one, received=one.received + 5000) for one in REPORTS]) == len(REPORTS)
        assert [batch.to_pylist() for batch in session_usage.batches(made, "2026-10")] == [
            batch.to_pylist() for batch in session_usage.batches(Home(home), "2026-10")]
