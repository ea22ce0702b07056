"""Accounting from the socket to leases, with Debian's radclient and FreeRADIUS as peers."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import radius_peers
import sqlalchemy as sa
from harness import ROOT, rows, run_cli

from core import tables
from core.actor import Actor
from core.addresses import Prefix, format_prefix, parse_address, parse_prefix
from core.periods import OPEN_END
from storage import sql
from storage.home import Home
from subscribers.radius import leases
from subscribers.radius.events import Report, store
from subscribers.radius.packets import AccountingRequest, Status
from subscribers.radius.server import Server
from subscribers.radius.settings import from_document

T = 1_790_000_000
ME = Actor("me", "test")
SETTINGS = """
[radius]
lost_after_seconds = 600
[[radius_client]]
address = "127.0.0.0/8"
secret = {{ file = "{secret}" }}
realm = "town"
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "secret").write_text("s3cr3t")
    made = Home(tmp_path / "home")
    made.path.mkdir()
    (made.path / "ratemill.toml").write_text(SETTINGS.format(secret=tmp_path / "secret"))
    made.create()
    (tmp_path / "people.csv").write_text(
        "account,name,kind,email,phone,address,contract,service,plan,start,end,timezone,currency\n"
        + "".join(f"A{n},N,person,,,,C{n},user-{n},,2020-01-01,,UTC,EUR\n" for n in range(4)))
    run_cli("subscribers", "import", str(tmp_path / "people.csv"), home=made.path)
    return made


@contextmanager
def serving(home: Home) -> Iterator[Server]:
    """A server in this process, stepped by whoever needs an answer."""
    one = Server(home, from_document(home.document), "127.0.0.1:0")
    try:
        yield one
    finally:
        one._socket.close()


@contextmanager
def live(home: Home) -> Iterator[int]:
    """`ratemill radius run`; yields its port."""
    command = [sys.executable, "-m", "cli", "--home", str(home.path), "radius", "run", "--listen", "127.0.0.1:0"]
    started = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert started.stderr is not None
        told = started.stderr.readline()
        assert "listening" in told, told
        yield int(told.rpartition(":")[2])
        started.send_signal(signal.SIGTERM)
        assert started.wait(30) == 0
    finally:
        started.kill()
        started.communicate()


def held(home: Home) -> list[tuple[str, str, int, int | None, str]]:
    """(realm, prefix, start, end, service) of all leases, in seconds after T."""
    lease, service = tables.lease, tables.service
    with sql.reading(sql.engine(home)) as connection:
        found = connection.execute(sa.select(lease, service.c.service).join(service, service.c.id == lease.c.service_id))
        return sorted((row.realm, format_prefix(Prefix(bytes(row.address), row.prefix_length)), row.start_ms // 1000 - T,
                       None if row.end_ms == OPEN_END else row.end_ms // 1000 - T, row.service) for row in found)


def start(session: str, user: str, second: int, *more: str, kind: str = "Start") -> str:
    return "\n".join([f"Acct-Status-Type = {kind}", f'Acct-Session-Id = "{session}"', f'User-Name = "{user}"',
                      f"Event-Timestamp = {T + second}", "NAS-IP-Address = 192.0.2.1", *more])


def test_what_radclient_reports_becomes_leases(home: Home) -> None:
    with live(home) as port:
        address, prefix = "Framed-IP-Address = 198.51.100.7", "Delegated-IPv6-Prefix = 2001:db8:7::/48"
        reports = (
            start("1", "user-1", 0, address),
            start("1", "user-1", 300, address, prefix, "Acct-Session-Time = 300", kind="Interim-Update"),
            start("1", "user-1", 900, address, prefix, "Acct-Session-Time = 900", kind="Stop"))
        assert radius_peers.send(port, "s3cr3t", *reports) == 3
        assert radius_peers.send(port, "wrong", start("2", "user-2", 0, address), retries=1) == 0
    assert held(home) == [("town", "198.51.100.7/32", 0, 900, "user-1"), ("town", "2001:db8:7::/48", 0, 900, "user-1")]
    (told,) = [one for one in rows(run_cli("status", home=home.path))[0]["processes"] if one["name"] == "radius"]
    assert told["running"] is False


def test_through_a_freeradius_that_hands_accounting_on(home: Home, tmp_path: Path) -> None:
    with live(home) as port, radius_peers.freeradius(tmp_path / "freeradius", port, "theirs", "s3cr3t") as proxy:
        done = radius_peers.send(proxy, "theirs", start("9", "user-2", 0, "Framed-IP-Address = 198.51.100.9"),
                                 start("9", "user-2", 60, "Framed-IP-Address = 198.51.100.9", kind="Stop"))
        assert done == 2
    assert held(home) == [("town", "198.51.100.9/32", 0, 60, "user-2")]


def test_a_request_that_is_sent_again_is_answered_and_counted_once(home: Home) -> None:
    with serving(home) as one:
        port = int(one.address.rpartition(":")[2])
        asked = start("1", "user-1", 0, "Framed-IP-Address = 198.51.100.7")
        for _ in range(2):
            started = subprocess.Popen([radius_peers.find("radclient"), "-r", "1", f"127.0.0.1:{port}", "acct", "s3cr3t"],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert started.stdin is not None
            started.stdin.write(asked + "\n")
            started.stdin.close()
            until = time.monotonic() + 20
            while started.poll() is None and time.monotonic() < until:
                one.step()
            assert started.stdout is not None
            started.stdout.close()
            assert started.returncode == 0
        assert (one.received, one.accepted, one.duplicates, one.unanswered) == (2, 1, 1, 0)


def test_nobody_is_answered_who_is_unknown_or_while_nothing_can_be_stored(
        home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.errors import DependencyDown

    with serving(home) as one:
        sent: list[bytes] = []
        monkeypatch.setattr(one, "_socket", type("Silent", (), {"sendto": lambda _self, data, _to: sent.append(data),
                                                                "close": lambda _self: None})())
        one.take([(b"x" * 30, ("192.0.2.77", 1)), (b"x" * 30, ("127.0.0.1", 1))])
        assert (one.unknown, dict(one.faults), sent) == (1, {"code": 1}, [])

        def down(*_: object) -> int:
            raise DependencyDown("the database is away")

        monkeypatch.setattr("subscribers.radius.events.store", down)
        one.take([(_packet(), ("127.0.0.1", 1))])
        assert (one.unanswered, one.accepted, sent) == (1, 0, [])
        monkeypatch.undo()


def _packet() -> bytes:
    from unit.subscribers.test_radius_packets import START, packet

    return packet(*START, secret=b"s3cr3t")


def report(second: int, status: Status, session: str, user: str, *prefixes: str, seconds: int | None = None) -> Report:
    at = (T + second) * 1000
    request = AccountingRequest(0, b"", status, "nas", session, user, tuple(parse_prefix(p) for p in prefixes), 0, at, seconds)
    return Report(request, parse_address("127.0.0.1"), "", at)


def many(source: random.Random) -> list[Report]:
    """Sessions of four users on a few addresses, with lost starts and stops and a restart of the access server."""
    found = []
    for n in range(30):
        begin, user = source.randrange(3000), f"user-{source.randrange(5)}"
        address = f"198.51.100.{source.randrange(6)}/32"
        parts = [report(begin, Status.START, f"s{n}", user, address),
                 report(begin + 100, Status.INTERIM, f"s{n}", user, address, seconds=100),
                 report(begin + 250, Status.STOP, f"s{n}", user, address, seconds=250)]
        found += source.sample(parts, source.choice((1, 2, 3, 3)))
    return [*found, report(1500, Status.ACCOUNTING_ON, "", "")]


def test_any_order_delay_and_repetition_of_reports_gives_the_same_leases(tmp_path: Path, home: Home) -> None:
    reports = many(random.Random(4))
    with sql.transaction(sql.engine(home)) as connection:
        store(connection, reports)
    whole = leases.run(home, ME)
    assert whole.added > 10
    assert whole.unknown_user > 0, "user-4 is no service"
    expected = held(home)
    assert leases.run(home, ME).document() | {"events": 0, "addresses": 0} == {
        **leases.Result().document(), "unchanged": 0}, "a second run changes nothing"
    for seed in range(4):
        source = random.Random(seed)
        shuffled = [*reports, *source.choices(reports, k=20)]
        source.shuffle(shuffled)
        with sql.transaction(sql.engine(home)) as connection:
            for table in (tables.radius_prefix, tables.radius_lease, tables.radius_position, tables.lease, tables.radius_event):
                connection.execute(table.delete())
        while shuffled:
            count = source.randrange(1, 15)
            some, shuffled = shuffled[:count], shuffled[count:]
            with sql.transaction(sql.engine(home)) as connection:
                store(connection, some)
            leases.run(home, ME)
        assert held(home) == expected


def test_a_user_who_becomes_a_service_later_has_the_leases_then(home: Home, tmp_path: Path) -> None:
    with sql.transaction(sql.engine(home)) as connection:
        store(connection, [report(0, Status.START, "1", "late", "198.51.100.1/32"), report(60, Status.STOP, "1", "late")])
    assert (leases.run(home, ME).unknown_user, held(home)) == (1, [])
    (tmp_path / "more.csv").write_text(
        "account,name,kind,email,phone,address,contract,service,plan,start,end,timezone,currency\n"
        "B,N,person,,,,C,late,,2020-01-01,,UTC,EUR\n")
    run_cli("subscribers", "import", str(tmp_path / "more.csv"), home=home.path)
    assert leases.run(home, ME).added == 1
    assert held(home) == [("town", "198.51.100.1/32", 0, 60, "late")]


def test_a_lease_from_elsewhere_stays_and_the_conflict_is_counted(home: Home, tmp_path: Path) -> None:
    (tmp_path / "leases.csv").write_text("realm,address,protocol,port_first,port_last,start,end,service\n"
                                         "town,198.51.100.1,,,,2020-01-01T00:00:00Z,,user-3\n")
    run_cli("leases", "import", str(tmp_path / "leases.csv"), home=home.path)
    with sql.transaction(sql.engine(home)) as connection:
        store(connection, [report(0, Status.START, "1", "user-1", "198.51.100.1/32")])
    assert leases.run(home, ME).conflicts == 1
    assert [row[4] for row in held(home)] == ["user-3"]
    done = rows(run_cli("radius", "leases", home=home.path))[0]
    assert done["added"] == done["removed"] == 0


def test_without_clients_it_says_what_to_write(tmp_path: Path) -> None:
    run_cli("init", home=tmp_path / "new")
    assert "[[radius_client]]" in run_cli("radius", "run", home=tmp_path / "new", check=1).stderr
