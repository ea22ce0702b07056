"""From the reports of a carrier-grade NAT to usage: leases of the outside address, in any order, twice, and undone."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from exports import framed, ipfix, template
from harness import rows, run_cli
from packets import pcap

from collector import port_blocks
from collector.jobs import lease_port_blocks
from core import tables
from core.actor import Actor
from storage import sql
from storage.home import Home

FIELDS = [(323, 8), (8, 4), (225, 4), (361, 2), (362, 2), (230, 1)]
DAY = 1_790_000_000_000
ACTOR = Actor("test", "test")

SUBSCRIBERS = "account,name,kind,email,phone,address,contract,service,plan,start,end,timezone,currency\n" + "".join(
    f"{n},Name,person,,,,C{n},home-{n},,2026-01-01,,UTC,EUR\n" for n in (1, 2, 3))
LEASES = "realm,address,protocol,port_first,port_last,start,end,service\n" + "".join(
    f"inside,100.64.0.{n},,,,,,home-{n}\n" for n in (1, 2))

TOML = """
[[exporter]]
address = "192.0.2.7"
inside_realm = "inside"
outside_realm = "outside"
"""


def iso(offset: int) -> str:
    from core.periods import format_instant

    return format_instant(DAY + offset)


def event(offset: int, code: int, inside: int, first: int = 1024, last: int = 1535) -> bytes:
    return struct.pack(">QIIHHB", DAY + offset, 0x64400000 | inside, 0xCB007105, first, last, code)


EVENTS = [event(0, 16, 1), event(0, 16, 2, 2048, 2559), event(60_000, 17, 1), event(90_000, 16, 2),
          event(200_000, 16, 3, 4096, 4607)]
"""Block 1024 goes from 1 to 2; 2 has another one; 3 has no service."""
EXPECTED = [("203.0.113.5", 1024, 1535, iso(0), iso(60_000), "home-1"),
            ("203.0.113.5", 1024, 1535, iso(90_000), None, "home-2"),
            ("203.0.113.5", 2048, 2559, iso(0), None, "home-2")]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    run_cli("init", home=path)
    (path / "ratemill.toml").write_text('[seller]\ntimezone = "UTC"\n' + TOML)
    for name, text, noun in (("s.csv", SUBSCRIBERS, "subscribers"), ("l.csv", LEASES, "leases")):
        (tmp_path / name).write_text(text)
        run_cli(noun, "import", str(tmp_path / name), home=path)
    return path


def report(folder: Path, events: list[bytes], name: str, first: int = 0) -> Path:
    """A capture with one message for each event, all of them received afterwards."""
    messages = [ipfix(framed(2, template(300, FIELDS)), framed(300, one), sequence=first + n, seconds=DAY // 1000 + 300)
                for n, one in enumerate(events)]
    return pcap(folder / name, [(iso(300_000 + n), "192.0.2.7", message) for n, message in enumerate(messages)])


def outside_leases(home: Path) -> list[tuple[Any, ...]]:
    found = rows(run_cli("leases", "list", "--json", home=home))
    return [tuple(row[name] for name in ("address", "port_first", "port_last", "start", "end", "service")) for row in found
            if row["realm"] == "outside"]


def faults(home: Path) -> dict[str, int]:
    table = tables.fault
    with sql.reading(sql.engine(Home(home))) as connection:
        return {row.kind: row.n for row in connection.execute(
            sa.select(table.c.kind, sa.func.sum(table.c.count).label("n")).group_by(table.c.kind))}


def test_blocks_become_leases_once_and_a_block_without_a_service_is_a_fault(home: Path, tmp_path: Path) -> None:
    run_cli("collect", "replay", str(report(tmp_path, EVENTS, "a.pcap")), home=home)
    rehearsed = rows(run_cli("leases", "from-port-blocks", "--dry-run", "--json", home=home))[0]
    assert (rehearsed["added"], outside_leases(home)) == (3, [])
    done = rows(run_cli("leases", "from-port-blocks", "--json", home=home))[0]
    assert done == {"events": 5, "added": 3, "removed": 0, "unchanged": 0, "block_without_service": 1, "block_conflict": 0,
                    "block_unmatched": 0, "block_not_contiguous": 0, "block_malformed": 0}
    assert outside_leases(home) == EXPECTED
    assert faults(home) == {"block_without_service": 1}
    again = rows(run_cli("leases", "from-port-blocks", "--json", home=home))[0]
    assert (again["events"], again["added"], again["removed"]) == (0, 0, 0)
    with sql.reading(sql.engine(Home(home))) as connection:
        audited = connection.scalars(sa.select(tables.audit.c.action)).all()
        changes = connection.execute(sa.select(tables.input_change).where(tables.input_change.c.kind == "port_blocks")).all()
    assert audited.count("leases.port_blocks") == 1
    assert [(change.from_ms, change.to_ms > DAY) for change in changes] == [(DAY, True)]


@pytest.mark.parametrize("seed", range(3))
def test_any_order_in_any_number_of_runs_gives_the_same_leases(home: Path, tmp_path: Path, seed: int) -> None:
    shuffled = EVENTS[:]
    random.Random(seed).shuffle(shuffled)
    for n, one in enumerate(shuffled):
        run_home = Home(home)
        from collector import replay

        replay.replay_files(run_home, replay.Request([report(tmp_path, [one], f"{n}.pcap", n)]), ACTOR)
        port_blocks.run(run_home, ACTOR)
    assert outside_leases(home) == EXPECTED
    assert faults(home) == {"block_without_service": 1}


def test_a_service_that_is_imported_late_gets_its_block(home: Path, tmp_path: Path) -> None:
    run_cli("collect", "replay", str(report(tmp_path, EVENTS, "a.pcap")), home=home)
    assert "3 leases added" in lease_port_blocks(Home(home))
    (tmp_path / "l.csv").write_text(LEASES.splitlines()[0] + "\ninside,100.64.0.3,,,,,,home-3\n")
    run_cli("leases", "import", str(tmp_path / "l.csv"), home=home)
    assert lease_port_blocks(Home(home)) == "0 events, 1 leases added, 0 removed, 0 faults"
    assert ("203.0.113.5", 4096, 4607, iso(200_000), None, "home-3") in outside_leases(home)
    assert faults(home) == {}


def test_an_inside_address_that_changes_hands_cuts_the_block(home: Path, tmp_path: Path) -> None:
    change = iso(250_000)
    (tmp_path / "l.csv").write_text(
        LEASES.splitlines()[0] + f"\ninside,100.64.0.3,,,,,{change},home-1\ninside,100.64.0.3,,,,{change},,home-3\n")
    run_cli("leases", "import", str(tmp_path / "l.csv"), home=home)
    run_cli("collect", "replay", str(report(tmp_path, EVENTS, "a.pcap")), home=home)
    port_blocks.run(Home(home), ACTOR)
    mine = [lease for lease in outside_leases(home) if lease[1] == 4096]
    assert mine == [("203.0.113.5", 4096, 4607, iso(200_000), iso(250_000), "home-1"),
                    ("203.0.113.5", 4096, 4607, iso(250_000), None, "home-3")]


def test_a_lease_of_an_operator_is_not_overruled(home: Path, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(LEASES.splitlines()[0] + "\noutside,203.0.113.5,,1000,1100,,,home-3\n")
    run_cli("leases", "import", str(tmp_path / "l.csv"), home=home)
    run_cli("collect", "replay", str(report(tmp_path, EVENTS, "a.pcap")), home=home)
    done = port_blocks.run(Home(home), ACTOR)
    assert (done.added, done.document()["block_conflict"]) == (1, 2)
    assert [lease[1] for lease in outside_leases(home)] == [1000, 2048]
    assert faults(home)["block_conflict"] == 2


def test_realms_set_later_move_the_leases(home: Path, tmp_path: Path) -> None:
    run_cli("collect", "replay", str(report(tmp_path, EVENTS, "a.pcap")), home=home)
    port_blocks.run(Home(home), ACTOR)
    (home / "ratemill.toml").write_text('[seller]\ntimezone = "UTC"\n' + TOML.replace('"outside"', '"elsewhere"'))
    done = port_blocks.run(Home(home), ACTOR)
    assert (done.added, done.removed) == (3, 3)
    assert outside_leases(home) == []
