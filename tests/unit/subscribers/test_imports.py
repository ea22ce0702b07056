"""Imports are all or nothing, and name every problem with its line and column."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from core import tables
from core.actor import Actor
from core.errors import ImportRefused, Problem
from storage import sql
from storage.home import Home
from subscribers import contracts, leases

ACTOR = Actor("tester", "a test")
HEADER = "account,name,kind,email,phone,address,contract,service,plan,start,end,timezone,currency\n"
GOOD = HEADER + (
    "A1,Ada,person,,,,C1,S1,flat,2026-01-01,2026-10-18,Europe/Berlin,EUR\n"
    "A1,Ada,person,,,,C1,S1,,2026-10-18,,Europe/Berlin,EUR\n"
    'A2,"Beta, Ltd",company,,,,C2,S2,flat,,,Asia/Kolkata,EUR\n'
)
LEASE_HEADER = "realm,address,protocol,port_first,port_last,start,end,service\n"


@pytest.fixture
def engine(tmp_path: Path) -> sa.Engine:
    (tmp_path / "ratemill.toml").write_text("")
    engine = sql.engine(Home(tmp_path))
    with sql.transaction(engine) as connection:
        connection.execute(tables.plan_version.insert().values(
            name="flat", valid_from="2026-01-01", currency="EUR", tax="standard", prices="exclusive", five_minutes=0,
            document="{}", digest="", at=0))  # fmt: skip
    return engine


def _subscribers(engine: sa.Engine, tmp_path: Path, text: str | bytes, dry_run: bool = False) -> dict[str, int]:
    path = tmp_path / "subscribers.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return contracts.import_file(engine, path, ACTOR, dry_run)


def _leases(engine: sa.Engine, tmp_path: Path, rows: str) -> dict[str, int]:
    path = tmp_path / "leases.csv"
    path.write_text(LEASE_HEADER + rows)
    return leases.import_file(engine, path, ACTOR)


def _counts(engine: sa.Engine) -> dict[str, int]:
    with sql.reading(engine) as connection:
        return {name: connection.scalar(sa.select(sa.func.count()).select_from(tables.metadata.tables[name])) or 0
                for name in ("account", "service", "subscription", "lease", "input_change", "audit")}  # fmt: skip


def test_the_same_file_again_changes_nothing(engine: sa.Engine, tmp_path: Path) -> None:
    assert _subscribers(engine, tmp_path, GOOD) == {"added": 3, "changed": 0, "unchanged": 0}
    before = _counts(engine)
    assert _subscribers(engine, tmp_path, GOOD) == {"added": 0, "changed": 0, "unchanged": 3}
    assert _subscribers(engine, tmp_path, b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())["unchanged"] == 3
    assert _counts(engine) == before == {**before, "account": 2, "service": 2, "subscription": 3, "input_change": 1}


def test_a_dry_run_changes_nothing(engine: sa.Engine, tmp_path: Path) -> None:
    assert _subscribers(engine, tmp_path, GOOD, dry_run=True)["added"] == 3
    assert _counts(engine)["account"] == 0


def test_changes_are_counted_recorded_and_dated(engine: sa.Engine, tmp_path: Path) -> None:
    _subscribers(engine, tmp_path, GOOD)
    changed = GOOD.replace("2026-10-18", "2026-10-20").replace("Ada", "Ada Beck")
    with pytest.raises(ImportRefused, match="2 problems"):  # another start is another row: it overlaps both that are there
        _subscribers(engine, tmp_path, changed)
    ends = GOOD.replace("S1,flat,2026-01-01,2026-10-18", "S1,flat,2026-01-01,2026-10-10").replace("Ada", "Ada Beck")
    assert _subscribers(engine, tmp_path, ends) == {"added": 0, "changed": 2, "unchanged": 1}
    with sql.reading(engine) as connection:
        actions = [row.action for row in connection.execute(sa.select(tables.audit).order_by(tables.audit.c.id))]
        versions = connection.execute(sa.select(tables.input_change)).all()
    assert actions == ["subscribers.import", "account.change", "subscription.change", "subscribers.import"]
    assert len(versions) == 2


BAD = [
    ("A1,Ada,person,,,,C1,S1,flat,2026-01-01,,Europe/Berln,EUR", [(2, "timezone", "Europe/Berlin")]),
    ("A1,Ada,person,,,,C1,S1,falt,2026-01-01,,UTC,EUR", [(2, "plan", "did you mean 'flat'")]),
    ("A1,Ada,robot,,,,C1,S1,flat,01.01.2026,2026-02-30,UTC,euro", [
        (2, "kind", "robot"), (2, "currency", "euro"), (2, "start", "01.01.2026"), (2, "end", "2026-02-30"),
        (2, "currency", "priced in EUR")]),
    ("A1,Ada,person,,,,C1,S1,flat,2026-02-01,2026-02-01,UTC,EUR", [(2, "end", "not after")]),
    (",,person,,,,C1,,flat,2026-02-01,,UTC,EUR", [(2, "account", "empty"), (2, "name", "empty"), (2, "service", "empty")]),
    ("A1,Ada,person,,,,C1,S1,flat,2026-01-01,,UTC,EUR\nA1,Eve,person,,,,C1,S2,flat,2026-01-01,,UTC,EUR",
     [(3, "name", "'Ada' in line 2")]),
    ("A1,Ada,person,,,,C1,S1,flat,2026-01-01,,UTC,EUR\nA2,Eve,person,,,,C1,S1,flat,2027-01-01,,UTC,EUR",
     [(3, "account", "belongs to account 'A1'"), (3, "start", "overlaps line 2")]),
    ("A1,Ada,person,,,,C1,S1,flat,2026-01-01,,UTC,EUR\nA1,Ada,person,,,,C1,S1,flat,2026-01-01,,UTC,EUR",
     [(3, "start", "line 2")]),
    ("A1,Ada,person,,,,C1,S1,flat,2026-01-01,,UTC,JPY", [(2, "currency", "EUR, not JPY")]),
    ("A1,Ada,person,,,,C1,S1,flat,2026-01-01,UTC,EUR", [(2, "", "12 values")]),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "expected"), BAD)
def test_every_problem_of_a_subscribers_file_is_named(engine: sa.Engine, tmp_path: Path, rows: str,
                                                      expected: list[tuple[int, str, str]]) -> None:  # fmt: skip
    good = "\nB1,Bob,person,,,,C9,S9,flat,2026-01-01,,UTC,EUR\n"
    with pytest.raises(ImportRefused) as caught:
        _subscribers(engine, tmp_path, HEADER + rows + good)
    _assert_problems(caught.value.problems, expected)
    assert _counts(engine)["account"] == 0, "nothing of the file was taken"


def _assert_problems(found: tuple[Problem, ...], expected: list[tuple[int, str, str]]) -> None:
    assert [(p.line, p.column) for p in found] == [(line, column) for line, column, _ in expected], found
    for problem, (_, _, text) in zip(found, expected, strict=True):
        assert text in problem.problem


def test_a_wrong_header_names_the_nearest_column(engine: sa.Engine, tmp_path: Path) -> None:
    with pytest.raises(ImportRefused) as caught:
        _subscribers(engine, tmp_path, GOOD.replace("timezone", "timezon").replace("phone,", ""))
    problems = " ".join(problem.problem for problem in caught.value.problems)
    assert "did you mean 'timezone'" in problems
    assert "'phone' is missing" in problems


def test_a_file_in_another_encoding_is_refused(engine: sa.Engine, tmp_path: Path) -> None:
    with pytest.raises(ImportRefused) as caught:
        _subscribers(engine, tmp_path, GOOD.replace("Ada", "Адa").encode("cp1251"))
    assert caught.value.problems[0].line == 2
    assert "UTF-8" in caught.value.problems[0].hint


def test_leases_hand_an_address_over_and_are_changed_by_key(engine: sa.Engine, tmp_path: Path) -> None:
    _subscribers(engine, tmp_path, GOOD)
    rows = (",10.0.0.1,,,,2026-01-01T00:00:00Z,2026-10-10T12:00:00Z,S1\n,10.0.0.1,,,,2026-10-10T14:00:00+02:00,,S2\n"
            ",10.0.0.0/24,,,,,,S2\n,192.0.2.1,tcp,1000,1999,,,S1\n,192.0.2.1,tcp,2000,2999,,,S2\n,192.0.2.1,17,1000,1999,,,S2\n"
            "town-b,10.0.0.1,,,,,,S2\n,2001:db8::/56,,,,,,S1\n")  # fmt: skip
    assert _leases(engine, tmp_path, rows) == {"added": 8, "changed": 0, "unchanged": 0}
    assert _leases(engine, tmp_path, rows) == {"added": 0, "changed": 0, "unchanged": 8}
    assert _leases(engine, tmp_path, rows.replace("2001:db8::/56,,,,,,S1", "2001:db8::/56,,,,,2027-01-01T00:00:00Z,S1")) == {
        "added": 0, "changed": 1, "unchanged": 7}  # fmt: skip


BAD_LEASES = [
    (",10.0.0.1,,,,,,S1\n,10.0.0.1,,,,2026-01-01T00:00:00Z,,S2", [(3, "start", "overlaps line 2")]),
    (
        ",10.0.0.1,,,,,,S1\n,10.0.0.1,tcp,1,100,2026-01-01T00:00:00Z,,S2",
        [(3, "port_first", "whole lease and port blocks")],
    ),
    (",10.0.0.1,tcp,1,100,,,S1\n,10.0.0.1,,100,200,,,S2", [(3, "start", "overlaps line 2")]),
    (",10.0.0.1,,,,2026-01-02T00:00:00Z,2026-01-01T00:00:00Z,S1", [(2, "end", "not after")]),
    (",10.0.0.1,,,,,,S7", [(2, "service", "unknown service 'S7'")]),
    (",10.0.0.1/24,,,,,,S1", [(2, "address", "host bits")]),
    (",10.0.0.300,,,,,,S1", [(2, "address", "10.0.0.300")]),
    (",10.0.0.1,tpc,,,,,S1", [(2, "protocol", "tpc")]),
    (",10.0.0.1,icmp,1,2,,,S1", [(2, "protocol", "no ports")]),
    (",10.0.0.1,tcp,7,,,,S1", [(2, "port_last", "first and a last")]),
    (",10.0.0.1,tcp,7,3,,,S1", [(2, "port_last", "before")]),
    (",10.0.0.1,tcp,7,70000,,,S1", [(2, "port_last", "70000")]),
    (",10.0.0.1,,,,2026-01-01T00:00:00,,S1", [(2, "start", "no offset")]),
    (",10.0.0.1,,,,,,S1\n,10.0.0.1,,,,,,S1", [(3, "address", "line 2 already")]),
]


@pytest.mark.parametrize(("rows", "expected"), BAD_LEASES)
def test_every_problem_of_a_leases_file_is_named(engine: sa.Engine, tmp_path: Path, rows: str,
                                                 expected: list[tuple[int, str, str]]) -> None:  # fmt: skip
    _subscribers(engine, tmp_path, GOOD)
    with pytest.raises(ImportRefused) as caught:
        _leases(engine, tmp_path, rows + "\n,10.9.9.9,,,,,,S1\n")
    _assert_problems(caught.value.problems, expected)
    assert _counts(engine)["lease"] == 0


def test_a_lease_may_not_overlap_one_that_was_imported_before(engine: sa.Engine, tmp_path: Path) -> None:
    _subscribers(engine, tmp_path, GOOD)
    _leases(engine, tmp_path, ",10.0.0.1,,,,2026-01-01T00:00:00Z,,S1\n")
    with pytest.raises(ImportRefused) as caught:
        _leases(engine, tmp_path, ",10.0.0.1,,,,2026-05-01T00:00:00Z,,S2\n")
    assert "imported before" in caught.value.problems[0].problem
