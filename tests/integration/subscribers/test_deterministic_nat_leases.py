"""From formulas to leases of outside addresses, and back when inside leases or formulas change."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from harness import rows, run_cli

from core import tables
from core.actor import Actor
from core.addresses import format_address
from core.periods import OPEN_END, OPEN_START, format_instant, parse_instant
from storage import sql
from storage.home import Home
from subscribers.deterministic_nat import leases
from subscribers.jobs import lease_by_formula

ME = Actor("me", "test")
FORMULA = """
[[deterministic_nat]]
inside = ["100.64.0.0/30"]
outside = ["198.51.100.0/31"]
inside_realm = "cgn"
block_size = 1000
port_last = 3023
{more}
"""
JUNE = "2026-06-01T00:00:00Z"
HEAD = "realm,address,protocol,port_first,port_last,start,end,service\n"


def write(home: Home, text: str) -> Home:
    (home.path / "ratemill.toml").write_text(text)
    sql.forget_engines()
    return Home(home.path)


def import_leases(home: Home, *lines: str) -> None:
    file = home.path / "leases.csv"
    file.write_text(HEAD + "".join(line + "\n" for line in lines))
    run_cli("leases", "import", str(file), home=home.path)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.path.mkdir()
    (made.path / "ratemill.toml").write_text(FORMULA.format(more=""))
    made.create()
    people = tmp_path / "people.csv"
    people.write_text("account,name,kind,email,phone,address,contract,service,plan,start,end,timezone,currency\n"
                      + "".join(f"A{n},N,person,,,,C{n},home-{n},,2020-01-01,,UTC,EUR\n" for n in range(4)))
    run_cli("subscribers", "import", str(people), home=made.path)
    return made


def held(home: Home) -> list[tuple[str, int | None, int | None, str, str, str]]:
    lease, service = tables.lease, tables.service
    query = sa.select(lease, service.c.service).join(service, service.c.id == lease.c.service_id).where(lease.c.realm == "")
    with sql.reading(sql.engine(home)) as connection:
        return sorted((format_address(bytes(row.address)), row.port_first, row.port_last,
                       "" if row.start_ms == OPEN_START else format_instant(row.start_ms),
                       "" if row.end_ms == OPEN_END else format_instant(row.end_ms), row.service)
                      for row in connection.execute(query))


def test_inside_leases_become_blocks_of_the_outside(home: Home) -> None:
    import_leases(home, f"cgn,100.64.0.0,,,,,{JUNE},home-0", f"cgn,100.64.0.0,,,,{JUNE},,home-1",
                  "cgn,100.64.0.2/31,,,,,,home-2")
    wanted = [("198.51.100.0", 1024, 2023, "", "2026-06-01T00:00:00.000Z", "home-0"),
              ("198.51.100.0", 1024, 2023, "2026-06-01T00:00:00.000Z", "", "home-1"),
              ("198.51.100.1", 1024, 2023, "", "", "home-2"), ("198.51.100.1", 2024, 3023, "", "", "home-2")]
    assert rows(run_cli("leases", "from-deterministic-nat", "--dry-run", home=home.path))[0]["added"] == 4
    assert held(home) == []
    assert rows(run_cli("leases", "from-deterministic-nat", home=home.path)) == [
        {"inside": 3, "added": 4, "removed": 0, "unchanged": 0, "conflicts": 0}]
    assert held(home) == wanted
    assert leases.run(home, ME) == leases.Result(unchanged=4)
    assert "0 leases added" in lease_by_formula(home)
    import_leases(home, "cgn,100.64.0.1,,,,,,home-3")
    assert "3 inside" not in lease_by_formula(home)
    assert ("198.51.100.0", 2024, 3023, "", "", "home-3") in held(home)


def test_another_formula_and_none_at_all(home: Home) -> None:
    import_leases(home, "cgn,100.64.0.1,,,,,,home-1")
    leases.run(home, ME)
    assert held(home) == [("198.51.100.0", 2024, 3023, "", "", "home-1")]
    home = write(home, FORMULA.format(more=f'order = "pool_first"\nstart = {JUNE}'))
    done = leases.run(home, ME)
    assert (done.added, done.removed) == (1, 1)
    assert held(home) == [("198.51.100.1", 1024, 2023, "2026-06-01T00:00:00.000Z", "", "home-1")]
    home = write(home, "")
    assert leases.run(home, ME).removed == 1
    assert held(home) == []
    assert lease_by_formula(home) == "there is no [[deterministic_nat]]"


def test_a_lease_from_elsewhere_stays(home: Home) -> None:
    import_leases(home, "cgn,100.64.0.1,,,,,,home-1", ",198.51.100.0,,2500,2600,,,home-3")
    assert leases.run(home, ME).conflicts == 1
    assert held(home) == [("198.51.100.0", 2500, 2600, "", "", "home-3")]


def test_only_the_time_that_changed_is_attributed_again(home: Home) -> None:
    import_leases(home, "cgn,100.64.0.1,,,,,,home-1")
    leases.run(home, ME)
    import_leases(home, f"cgn,100.64.0.1,,,,,{JUNE},home-1")
    leases.run(home, ME)
    change = tables.input_change
    with sql.reading(sql.engine(home)) as connection:
        last = connection.execute(sa.select(change).where(change.c.kind == leases.CHANGE_KIND).order_by(
            change.c.version.desc())).first()
    assert last is not None
    assert (last.from_ms, last.to_ms) == (parse_instant(JUNE), OPEN_END)


def test_config_check_refuses_a_formula_that_gives_too_little(home: Home) -> None:
    write(home, FORMULA.format(more="").replace("port_last = 3023", "port_last = 2100"))
    said = run_cli("config", "check", home=home.path, check=None)
    assert said.returncode != 0
    assert "4 inside addresses, but only 2 blocks of 1000 ports" in said.stdout + said.stderr
