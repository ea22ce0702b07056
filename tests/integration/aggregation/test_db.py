"""The analysts' DuckDB: the shell, the tables that are promised, the queries of the documentation, readers beside a writer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from aggregation_town import add_segment, make_home
from harness import ROOT, rows, run_cli
from oracles.slow_usage import Calendar, Flow, Lease, Subscription, World, Zone

from aggregation import shell
from core import tables
from core.addresses import parse_address
from core.periods import OPEN_END, OPEN_START, parse_instant
from storage import generations, sql
from storage.home import Home

SECONDS = 60 if os.environ.get("RATEMILL_NIGHTLY") else 6
EIGHT = parse_instant("2026-10-05T08:00:00+02:00")
GUIDE = ROOT / "docs" / "how-to" / "analyse-in-duckdb.md"


def flows(octets: int) -> list[Flow]:
    return [Flow(EIGHT, EIGHT + 600_000, "8.8.8.8", "10.0.0.1", octets, 10), Flow(EIGHT, EIGHT, "10.0.0.2", "8.8.8.8", 5, 1)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    world = World(
        leases=[Lease("10.0.0.1", OPEN_START, OPEN_END, "S1"), Lease("10.0.0.2", OPEN_START, OPEN_END, "B2")],
        subscriptions=[Subscription("S1", OPEN_START, OPEN_END, "Europe/Berlin", "home"),
                       Subscription("B2", OPEN_START, OPEN_END, "Asia/Kolkata", "transit")],
        plans={"home": ("day", False), "transit": (None, True)},
        calendars={"day": Calendar((Zone("day", (0, 1, 2, 3, 4), 485, 1380),), "night")})
    made = make_home(tmp_path_factory.mktemp("db") / "home", world)
    add_segment(made, flows(1000), "s")
    with sql.transaction(sql.engine(made)) as connection:
        segment = connection.execute(sa.select(tables.segment.c.id)).scalar_one()
        for kind, count in (("undecodable", 3), ("bad_length", 4), ("undecodable", 5)):
            connection.execute(tables.fault.insert().values(
                segment_id=segment, exporter=parse_address("192.0.2.1"), domain=7, kind=kind, count=count))
        for at, octets in ((EIGHT - 3_600_000, 0), (EIGHT + 3_600_000, 100_000)):
            connection.execute(tables.interface_counter.insert().values(
                exporter=parse_address("192.0.2.1"), interface=3, at=at, in_octets=octets, out_octets=0, source="csv"))
    return made


def test_before_anything_is_published_the_shell_says_so(home: Home) -> None:
    assert "ratemill usage publish" in run_cli("db", "shell", "-c", "SELECT 1", home=home.path, check=5).stderr
    run_cli("aggregate", "run", home=home.path)
    run_cli("storage", "compact", home=home.path)
    assert rows(run_cli("db", "publish", home=home.path))[0]["published"] is True


def test_statements_come_from_the_command_line_and_from_stdin(home: Home, tmp_path: Path) -> None:
    asked = "SELECT service, hour, octets FROM usage WHERE direction = 'down'"
    assert rows(run_cli("db", "shell", "-c", asked, home=home.path)) == [
        {"service": "S1", "hour": "2026-10-05T06:00:00.000000Z", "octets": 500}] * 2
    several = subprocess.run([sys.executable, "-m", "cli", "--home", str(home.path), "db", "shell"], cwd=ROOT, text=True,
                             input="CREATE TEMP TABLE mine AS SELECT 7 AS n;\nSELECT n FROM mine; SELECT 8 AS m",
                             capture_output=True, check=True)
    assert several.stdout.splitlines()[-2:] == ['{"n": 7}', '{"m": 8}']
    run_cli("db", "shell", "-c", asked, "-o", "parquet", "--to", str(tmp_path / "x.parquet"), home=home.path)
    assert pq.read_table(tmp_path / "x.parquet").column("octets").to_pylist() == [500, 500]


@pytest.mark.parametrize(("asked", "said"), [
    ("SELEKT 1", "syntax error"), ("SELECT nothing FROM usage", "nothing"), ("", "no statement"), (";", "no statement"),
    ("DELETE FROM usage", "can't be changed"), ("DROP TABLE services", "can't be changed"),
    ("CREATE TABLE x (a INTEGER)", "can't be changed")])
def test_wrong_statements_are_explained(home: Home, asked: str, said: str) -> None:
    done = run_cli("db", "shell", "-c", asked or " ", home=home.path, check=2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_session_at_the_prompt(home: Home) -> None:
    typed = iter([".tables", "", "SELECT 1", " AS one;", "SELECT broken;", ".what", "SELECT 2 AS two;", ".quit", "SELECT 3;"])
    shown: list[Any] = []
    said: list[str] = []

    def emit(schema: Any, batches: Any) -> None:
        shown.append([row for batch in batches for row in batch.to_pylist()])

    shell.interact(home, emit, said.append, lambda _: next(typed))
    assert {row["table"] for row in shown[0]} == {"usage", "usage_5min", "services", "classes", "faults", "about", "flows",
                                                  "completeness"}
    assert shown[1:] == [[{"one": 1}], [{"two": 2}]]
    assert any("broken" in line for line in said)

    def ended(_: str) -> str:
        raise EOFError

    shell.interact(home, emit, said.append, ended)


def test_the_tables_are_those_that_the_guide_promises(home: Home) -> None:
    promised = {match[1]: re.findall(r"`(\w+)`", match[2]) for match in
                re.finditer(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", GUIDE.read_text(), re.MULTILINE)}
    found: dict[str, list[str]] = {}
    for row in rows(run_cli("db", "shell", "-c", shell._TABLES, home=home.path)):
        found.setdefault(row["table"], []).append(row["column"])
    assert promised == found


def test_every_query_of_the_guide_has_an_answer(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = re.findall(r"```sql\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(queries) >= 11
    monkeypatch.chdir(tmp_path)
    path = run_cli("db", "path", home=home.path).stdout.strip()
    with duckdb.connect(path, read_only=True) as stock:  # as an analyst opens it, with nothing set
        answers = {query: stock.execute(query).fetchall() for query in queries}
    assert all(answers.values()), answers
    (faults,) = (answer for query, answer in answers.items() if "faults" in query)
    assert faults == [("192.0.2.1", "undecodable", 8), ("192.0.2.1", "bad_length", 4)]
    assert answers[queries[0]] == [("S1", 1000, None), ("B2", None, 5)]
    assert (tmp_path / "usage-2026-10.parquet").is_file()


READER = """
import sys, time
from pathlib import Path
import duckdb
pointer, until, seen = Path(sys.argv[1]), time.monotonic() + float(sys.argv[2]), set()
reads = 0
while time.monotonic() < until:
    path = pointer.parent / pointer.read_text().strip()
    with duckdb.connect(str(path), read_only=True) as stock:
        total = stock.execute("SELECT sum(octets) FROM usage WHERE service = 'S1'").fetchone()[0]
        time.sleep(0.01)
        by_month = stock.execute("SELECT sum(octets) FROM usage WHERE service = 'S1' GROUP BY period").fetchall()
        assert [(total,)] == by_month, (total, by_month)
        assert total % 1000 == 0, total
    seen.add(total)
    reads += 1
print(reads, len(seen))
"""


def test_two_readers_never_notice_a_writer(home: Home) -> None:
    run_cli("db", "publish", home=home.path)
    pointer = home.folder("generations") / generations.POINTER
    readers = [subprocess.Popen([sys.executable, "-c", READER, str(pointer), str(SECONDS)], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True) for _ in range(2)]
    until, number = time.monotonic() + SECONDS, 0
    from aggregation.batches import aggregate
    from aggregation.publish import publish
    from core.actor import Actor

    while time.monotonic() < until:
        number += 1
        add_segment(home, flows(1000 * number), f"later-{number}")
        aggregate(home, Actor("me", "test"))
        publish(home, Actor("me", "test"))
    told = [reader.communicate(timeout=60) for reader in readers]
    assert [reader.returncode for reader in readers] == [0, 0], told
    reads, seen = zip(*(map(int, out.split()) for out, _ in told), strict=True)
    assert number > 2
    assert min(reads) > 10
    assert max(seen) > 1, "the readers saw more than one generation"
