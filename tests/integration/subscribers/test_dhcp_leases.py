"""Lease files through the command line: `leases from-dhcp`, then `leases list`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
import sqlalchemy as sa
from aggregation_town import add_segment, make_home
from harness import rows, run_cli
from oracles.slow_usage import Flow, Subscription, World

from core import tables
from core.actor import Actor
from core.periods import OPEN_END, OPEN_START, format_instant, parse_instant
from storage import sql
from storage.home import Home
from subscribers.dhcp import leases

ME = Actor("me", "test")
PEOPLE = "account,name,kind,email,phone,address,contract,service,plan,start,end,timezone,currency\n"
KEA = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n"
T = parse_instant("2026-01-01T08:00:00Z") // 1000


def isc(address: int, begin: int, end: int, mac: int, state: str = "active", seen: int | None = None) -> str:
    """An entry; times in minutes behind T, of the weekday nobody looks at."""
    return (f"lease 192.0.2.{address} {{\n  starts epoch {T + begin * 60};\n  ends epoch {T + end * 60};\n"
            f"  cltt epoch {T + (begin if seen is None else seen) * 60};\n  binding state {state};\n"
            f"  hardware ethernet 00:00:5e:00:53:{mac:02x};\n}}\n")


def kea(address: str, at: int, minutes: int, mac: int, state: int = 0, context: str = "") -> str:
    """A row: the client's last transaction in minutes behind T."""
    return (f"{address},00:00:5e:00:53:{mac:02x},,{minutes * 60},{T + (at + minutes) * 60},1,0,0,,{state},"
            f"{context.replace(',', '&#x2c')},0\n")


def subscribe(home: Home, tmp_path: Path, *services: str) -> None:
    path = tmp_path / "people.csv"
    path.write_text(PEOPLE + "".join(f"A{one},N,person,,,,C{one},{one},,2020-01-01,,UTC,EUR\n" for one in services))
    run_cli("subscribers", "import", str(path), home=home.path)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.path.mkdir()
    (made.path / "ratemill.toml").write_text("")
    made.create()
    subscribe(made, tmp_path, "00-00-5E-00-53-01", "0000.5e00.5302", "line-3")
    return made


def take(home: Home, *words: object, check: int = 0) -> dict[str, int]:
    (found,) = rows(run_cli("leases", "from-dhcp", *map(str, words), home=home.path, check=check))
    return found


def held(home: Home) -> list[tuple[str, str, int, int, str]]:
    """(realm, address, start, end, service), times in minutes behind T."""
    return [(row["realm"], row["address"], _minutes(row["start"]), _minutes(row["end"]), row["service"])
            for row in rows(run_cli("leases", "list", home=home.path))]


def _minutes(instant: str) -> int:
    return (parse_instant(instant) // 1000 - T) // 60


def counts(home: Home) -> list[int]:
    with sql.reading(sql.engine(home)) as connection:
        return [connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0 for table in (
            tables.lease, tables.input_change, tables.audit, tables.dhcp_entry, tables.dhcp_lease, tables.dhcp_client)]


def write(path: Path, *parts: str) -> Path:
    path.write_text("".join(parts))
    return path


def test_a_file_of_dhcpd_becomes_leases_and_again_changes_nothing(home: Home, tmp_path: Path) -> None:
    log = [isc(10, 0, 60, 1), isc(10, 30, 90, 1), isc(11, 0, 60, 2), isc(11, 0, 20, 2, "released"), isc(11, 40, 100, 1)]
    path = write(tmp_path / "dhcpd.leases", *log)
    done = take(home, path, "--realm", "town")
    assert (done["entries"], done["new"], done["addresses"], done["added"], done["unknown_clients"]) == (5, 5, 2, 3, 0)
    first = [("town", "192.0.2.10", 0, 90, "00-00-5E-00-53-01"), ("town", "192.0.2.11", 0, 20, "0000.5e00.5302"),
             ("town", "192.0.2.11", 40, 100, "00-00-5E-00-53-01")]
    assert held(home) == first
    before = counts(home)
    again = take(home, path, "--realm", "town")
    assert (again["new"], again["added"], again["removed"], again["unchanged"]) == (0, 0, 0, 3)
    assert (held(home), counts(home)) == (first, before)
    write(path, *log, isc(10, 60, 120, 1))
    longer = take(home, path, "--realm", "town")
    assert (longer["new"], longer["added"], longer["removed"], longer["unchanged"]) == (1, 1, 1, 2)
    assert held(home)[0] == ("town", "192.0.2.10", 0, 120, "00-00-5E-00-53-01")
    with sql.reading(sql.engine(home)) as connection:
        change = connection.execute(sa.select(tables.input_change).order_by(tables.input_change.c.version.desc())).first()
    assert change is not None
    assert (_minutes(format_instant(change.from_ms)), _minutes(format_instant(change.to_ms))) == (90, 120)
    write(path, isc(11, 140, 200, 2))  # dhcpd tidied up
    take(home, path, "--realm", "town")
    assert held(home) == [("town", "192.0.2.10", 0, 120, "00-00-5E-00-53-01"), *first[1:],
                          ("town", "192.0.2.11", 140, 200, "0000.5e00.5302")]


def test_files_of_kea_with_their_rotated_ones_in_any_order(home: Home, tmp_path: Path) -> None:
    relayed = '{"ISC": {"relay-agent-info": {"sub-options": "0x01066c696e652d33"}, "x": 1}}'
    old = write(tmp_path / "kea-leases4.csv.2", KEA, kea("192.0.2.10", 0, 60, 1), kea("192.0.2.10", 0, 60, 1, 2))
    now = write(tmp_path / "kea-leases4.csv", KEA, kea("192.0.2.10", 70, 60, 9, context=relayed),
                kea("192.0.2.10", 80, 60, 9, context=relayed), "192.0.2.11,00:00")
    done = take(home, now, old)
    assert (done["files"], done["added"], done["incomplete"]) == (2, 2, 1)
    assert held(home) == [("", "192.0.2.10", 0, 60, "00-00-5E-00-53-01"), ("", "192.0.2.10", 70, 140, "line-3")]
    assert "kea-leases4.csv: incomplete at line 4" in run_cli("leases", "from-dhcp", str(now), home=home.path).stderr


def test_clients_without_service_are_told_and_get_their_leases_once_they_have_one(home: Home, tmp_path: Path) -> None:
    path = write(tmp_path / "dhcpd.leases", isc(10, 0, 60, 1), *(isc(100 + n, 0, 60, 100 + n) for n in range(25)))
    told = run_cli("leases", "from-dhcp", str(path), "--unknown", str(tmp_path / "unknown.csv"), "-o", "csv", home=home.path)
    assert "hardware 00:00:5e:00:53:64: no service has the name" in told.stderr
    assert "192.0.2.100/32 from 2026-01-01T08:00:00.000Z" in told.stderr
    assert f"({path}, line 8)" in told.stderr
    assert "5 more clients" in told.stderr
    assert "`ratemill subscribers import`" in told.stderr
    assert len((tmp_path / "unknown.csv").read_text().splitlines()) == 26
    assert len(held(home)) == 1
    assert take(home, path)["unknown_clients"] == 25, "they are told again"
    subscribe(home, tmp_path, "00:00:5e:00:53:64")
    other = write(tmp_path / "other.leases", isc(11, 0, 60, 1))
    done = take(home, other)
    assert (done["added"], done["unknown_clients"]) == (2, 24), "also of addresses that are not in this file"


def test_damage_in_one_file_leaves_everything_as_it_was(home: Home, tmp_path: Path) -> None:
    good = write(tmp_path / "good.leases", isc(10, 0, 60, 1))
    bad = write(tmp_path / "bad.leases", isc(11, 0, 60, 1), isc(12, 0, 60, 2).replace("epoch", "epos", 2), "lease 192")
    worse = write(tmp_path / "kea.csv", KEA, "a,b\n")
    before = counts(home)
    refused = run_cli("leases", "from-dhcp", str(good), str(bad), str(worse), home=home.path, check=1)
    assert "3 problems, nothing was imported" in refused.stderr
    assert [(Path(row["file"]).name, row["line"], row["column"]) for row in rows(refused)] == [
        ("bad.leases", 9, "starts"), ("bad.leases", 10, "ends"), ("kea.csv", 2, "")]
    assert counts(home) == before


def test_a_dry_run_tells_and_changes_nothing(home: Home, tmp_path: Path) -> None:
    path = write(tmp_path / "dhcpd.leases", isc(10, 0, 60, 1))
    before = counts(home)
    assert take(home, path, "--dry-run")["added"] == 1
    assert counts(home) == before


def test_a_lease_from_elsewhere_stays_and_is_told(home: Home, tmp_path: Path) -> None:
    write(tmp_path / "leases.csv", "realm,address,protocol,port_first,port_last,start,end,service\n"
          ",192.0.2.10,,,,2020-01-01T00:00:00Z,,line-3\n")
    run_cli("leases", "import", str(tmp_path / "leases.csv"), home=home.path)
    path = write(tmp_path / "dhcpd.leases", isc(10, 0, 60, 1), isc(11, 0, 60, 1))
    told = run_cli("leases", "from-dhcp", str(path), home=home.path)
    assert (rows(told)[0]["conflicts"], rows(told)[0]["added"]) == (1, 1)
    assert "192.0.2.10/32: from 2026-01-01T08:00:00.000Z" in told.stderr


def test_what_is_no_lease_file_is_refused_with_what_to_do(home: Home, tmp_path: Path) -> None:
    other = write(tmp_path / "a", "hello world\n")
    assert "--format" in run_cli("leases", "from-dhcp", str(other), home=home.path, check=1).stderr
    assert "isc or kea" in run_cli("leases", "from-dhcp", str(other), "--format", "x", home=home.path, check=2).stderr
    assert "can't be read" in run_cli("leases", "from-dhcp", str(tmp_path / "none"), home=home.path, check=1).stderr
    assert take(home, write(tmp_path / "empty", ""))["entries"] == 0


def many(source: random.Random) -> list[str]:
    states = ("active", "active", "active", "released", "abandoned")
    found = []
    for begin in source.sample(range(1000), 60):
        found.append(isc(source.randrange(4), begin, begin + source.randrange(1, 120), source.randrange(1, 4),
                         source.choice(states)))
    return found


def stored(home: Home) -> list[tuple[object, ...]]:
    table = tables.lease
    with sql.reading(sql.engine(home)) as connection:
        return sorted(tuple(row) for row in connection.execute(
            sa.select(table.c.address, table.c.start_ms, table.c.end_ms, table.c.service_id)))


def in_pieces(source: random.Random, log: Iterable[str]) -> list[list[str]]:
    left = list(log)
    source.shuffle(left)
    pieces = []
    while left:
        count = source.randrange(1, 25)
        pieces.append(left[:count])
        left = left[count:]
    return pieces


def test_files_in_any_order_and_pieces_give_the_same_leases(home: Home, tmp_path: Path) -> None:
    log = many(random.Random(3))
    leases.run(home, [write(tmp_path / "all", *log)], ME)
    expected = stored(home)
    assert len(expected) > 20
    for (address, _, end, _), (other, start, _, _) in pairwise(expected):
        assert address != other or end <= start  # type: ignore[operator]
    for seed in range(4):
        with sql.transaction(sql.engine(home)) as connection:
            for table in (tables.dhcp_lease, tables.dhcp_entry, tables.dhcp_client, tables.dhcp_position, tables.lease):
                connection.execute(table.delete())
        for piece in in_pieces(random.Random(seed), log):
            leases.run(home, [write(tmp_path / "piece", *piece)], ME)
        assert stored(home) == expected


def test_flows_of_an_address_are_usage_of_whoever_had_it_then(tmp_path: Path) -> None:
    minute = 60_000
    services = ("00:00:5e:00:53:01", "00:00:5e:00:53:02")
    world = World(subscriptions=[Subscription(one, OPEN_START, OPEN_END, "UTC") for one in services])
    home = make_home(tmp_path / "home", world)
    add_segment(home, [Flow(T * 1000 + at * minute, T * 1000 + (at + 2) * minute, "192.0.2.10", "8.8.8.8", octets)
                       for at, octets in ((5, 1000), (39, 200), (50, 30), (110, 7))], "a")  # fmt: skip
    path = write(tmp_path / "dhcpd.leases", isc(10, 0, 60, 1), isc(10, 40, 100, 2))
    take(home, path)
    assert octets_of(home) == {services[0]: 1000 + 100, services[1]: 100 + 30}, "the second flow changes hands in its middle"
    write(path, isc(10, 40, 100, 2), isc(10, 90, 150, 2))
    take(home, path)
    assert octets_of(home) == {services[0]: 1000 + 100, services[1]: 100 + 30 + 7}, "a renewal that is read late"


def octets_of(home: Home) -> Counter[str]:
    run_cli("aggregate", "run", home=home.path)
    run_cli("usage", "publish", home=home.path)
    found: Counter[str] = Counter()
    for row in rows(run_cli("usage", "export", "2026-01", home=home.path)):
        found[row["service"]] += row["octets"]
    return found
