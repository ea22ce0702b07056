"""IPFIX over TCP and TLS, and exporters behind a NAT, from the command line to the flows."""

from __future__ import annotations

import itertools
import random
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from exports import BASIC, basic, framed, ipfix, template, v9
from harness import rows, run_cli
from running_collector import Running, running
from stream_home import entries_of, make_home, wait_until

from collector import authority, counters
from collector.exporter.commands import random_flows
from collector.exporter.send import parse_target, send_flows
from collector.exporter.stream import Tls, parse_stream, send_stream
from core import clock
from core.actor import Actor
from core.errors import RatemillError, UsageError
from storage.home import Home

SETTINGS = """\
[collector]
segment_seconds = 1
socket_buffer = 4194304
tls_certificate = "tls/collector.pem"
tls_key = "tls/collector.key"
tls_client_ca = "tls/ca.pem"
"""
SWAPPED = [(12, 4), (8, 4), (2, 4), (1, 4)]


def _flows(home: Home) -> list[dict[str, Any]]:
    return rows(run_cli("flows", "export", home=home.path))


def _exporters(home: Home) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["exporter"], row["domain"]): row for row in rows(run_cli("exporters", "list", home=home.path))}


def _status(home: Home) -> dict[str, Any]:
    (status,) = rows(run_cli("collect", "status", home=home.path))
    return status


def _tls_home(folder: Path) -> Home:
    home = make_home(folder, SETTINGS)
    actor = Actor("test", "test")
    authority.make(home, actor, hosts=["127.0.0.1", "localhost"])
    authority.make(home, actor, client="edge-1")
    return home


def _shown(home: Home, name: str = "edge-1") -> list[str]:
    folder = home.path / "tls"
    return ["--ca", str(folder / "ca.pem"), "--certificate", str(folder / f"{name}.pem"), "--key", str(folder / f"{name}.key")]


def _send(to: str, source: str, tls: Tls = Tls(), **options: Any) -> dict[str, Any]:
    """What the collector has to report of it."""
    columns = random_flows(4000, 1, "ipfix", clock.now_ms())
    target = parse_stream(to, "ipfix", tls)
    if target is None:
        done = send_flows(columns, "ipfix", parse_target(to), source=source, rate=2000, **options)
    else:
        done = send_stream(columns, target, source=source, **options)
    told: dict[str, Any] = done.document()["collector"]
    return told


def _send_by_command(to: str, source: str, *more: str, check: int = 0) -> dict[str, Any]:
    words = ("collect", "send", "--to", to, "--protocol", "ipfix", "--flows", "4000", "--source", source, *more)
    done = run_cli(*words, check=check)
    return {"said": done.stderr} if check else rows(done)[0]["collector"]


def test_what_is_sent_over_udp_tcp_and_tls_is_reported_to_the_last_record(tmp_path: Path) -> None:
    home = _tls_home(tmp_path / "home")
    stranger = _tls_home(tmp_path / "stranger")
    with running(home, "127.0.0.1:0", "tcp://127.0.0.1:0", "tls://127.0.0.1:0") as one:
        udp, tcp, tls = one.ports
        told = {
            "127.0.0.2": _send(f"tcp://127.0.0.1:{tcp}", "127.0.0.2"),
            "127.0.0.3": _send(f"tcp://127.0.0.1:{tcp}", "127.0.0.3", loss=0.1, duplicate=0.05, reorder=0.05, sampling=100),
            "127.0.0.4": _send_by_command(f"tls://127.0.0.1:{tls}", "127.0.0.4", *_shown(home)),
            "127.0.0.5": _send(f"tls://localhost:{tls}", "127.0.0.5", Tls(*_shown(home)[1::2]), loss=0.05, rate=2000),
            "127.0.0.6": _send(f"127.0.0.1:{udp}", "127.0.0.6"),
        }
        sent = sum(one["received"] for one in told.values())
        wait_until(lambda: one.received() == sent)
        refused = _send_by_command(f"tls://127.0.0.1:{tls}", "127.0.0.7", *_shown(stranger), check=1)["said"]
        assert "the certificate of tls://127.0.0.1" in refused, "the exporter does not believe the collector"
        with pytest.raises(RatemillError, match="TLS with tls://127.0.0.1"):
            _send(f"tls://127.0.0.1:{tls}", "127.0.0.8", Tls(_shown(home)[1], *_shown(stranger)[3::2]))
        with socket.create_connection(("127.0.0.1", tls)) as plain:
            plain.sendall(ipfix(framed(2, template(256, BASIC))))
            wait_until(lambda: counters.figures(home, "main").handshakes_failed == 3)
        live = _status(home)
        assert (live["sessions"], live["handshakes_failed"]) == (7, 3)
        addresses = [listener["address"] for listener in live["collectors"][0]["listeners"]]
        assert addresses == [f"127.0.0.1:{udp}", f"tcp://127.0.0.1:{tcp}", f"tls://127.0.0.1:{tls}"]
        assert one.stop() == 0
    status = _status(home)
    assert [status[name] for name in ("received", "durable", "decoded", "lost", "refused", "sessions_open")] == [
        sent, sent, sent, 0, 0, 0]
    listed = _exporters(home)
    assert set(listed) == {(exporter, 0) for exporter in told}
    for exporter, expected in told.items():
        found = listed[exporter, 0]
        names = ("received", "missing", "duplicate", "reordered")
        assert {name: found[name] for name in names} == {name: expected[name] for name in names}
        assert (found["sessions"], found["sessions_ended"]) == (0, 0 if exporter == "127.0.0.6" else 1)
    flows = _flows(home)
    for exporter, expected in told.items():
        mine = [flow for flow in flows if flow["exporter"] == exporter]
        assert (len(mine), sum(flow["octets"] for flow in mine)) == (expected["flows"], expected["octets"])
    assert {flow["rate_numerator"] for flow in flows if flow["exporter"] == "127.0.0.3"} == {100}


def test_a_home_without_a_certificate_says_what_to_write(tmp_path: Path) -> None:
    home = make_home(tmp_path, "[collector]\n")
    said = run_cli("collect", "run", "--listen", "tls://127.0.0.1:0", home=home.path, check=1).stderr
    assert 'tls_certificate = "tls/collector.pem"' in said
    run_cli("collect", "run", "--listen", "sctp://127.0.0.1:0", home=home.path, check=2)
    for to, protocol, tls in (("tcp://127.0.0.1:1", "v9", Tls()), ("127.0.0.1:1", "ipfix", Tls("x")),
                              ("tcp://127.0.0.1:1", "ipfix", Tls("x")), ("tls://:1", "ipfix", Tls())):
        with pytest.raises(UsageError):
            parse_stream(to, protocol, tls)
    assert "see whether the collector runs" in run_cli(
        "collect", "send", "--to", "tcp://127.0.0.1:1", "--protocol", "ipfix", "--flows", "1", check=1).stderr


def test_certificates_are_made_once_and_kept(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    (first,) = rows(run_cli("collect", "certificate", "--host", "192.0.2.1", "--host", "flows.example.net", home=home.path))
    assert first["hosts"] == ["192.0.2.1", "flows.example.net"]
    assert len(first["made"]) == 4
    before = {path.name: path.read_bytes() for path in (home.path / "tls").iterdir()}
    (again,) = rows(run_cli("collect", "certificate", home=home.path))
    assert (again["made"], again["hosts"]) == ([], first["hosts"])
    assert {path.name: path.read_bytes() for path in (home.path / "tls").iterdir()} == before
    (renewed,) = rows(run_cli("collect", "certificate", "--renew", "--host", "192.0.2.9", home=home.path))
    assert (renewed["made"], renewed["hosts"]) == (["tls/collector.pem", "tls/collector.key"], ["192.0.2.9"])
    assert all(path.stat().st_mode & 0o077 == 0 for path in (home.path / "tls").iterdir())
    for words in (["--client", "../x"], ["--client", "ca"], ["--client", "a", "--host", "b"], ["--host", "a b"]):
        run_cli("collect", "certificate", *words, home=home.path, check=2)


# sessions -------------------------------------------------------------------------------------------------------------
def test_sessions_of_one_router_with_different_layouts_of_one_template(tmp_path: Path) -> None:
    home = make_home(tmp_path, "[collector]\nsegment_seconds = 1\n")
    with running(home, "tcp://127.0.0.1:0") as one:
        place = ("127.0.0.1", one.ports[0])
        with socket.create_connection(place) as a, socket.create_connection(place) as b:
            for client, fields, sequence in ((a, BASIC, 10), (b, SWAPPED, 70_000)):
                client.sendall(ipfix(framed(2, template(256, fields)), sequence=sequence, seconds=clock.now_ms() // 1000))
            wait_until(lambda: one.received() == 2)
            for n in range(50):
                a.sendall(ipfix(framed(256, basic(1000 + n, 7)), sequence=10 + n))
                b.sendall(ipfix(framed(256, basic(7, 2000 + n)), sequence=70_000 + n))
        with socket.create_connection(("127.0.0.1", one.ports[0])) as third:
            third.sendall(ipfix(framed(256, basic(9, 9))) + b"no more")
            assert third.recv(10) == b""
        wait_until(lambda: one.received() == 104)
        assert one.stop() == 0
    flows = _flows(home)
    assert sorted(flow["octets"] for flow in flows) == [*range(1000, 1050), *range(2000, 2050)]
    assert {flow["packets"] for flow in flows} == {7}
    row = _exporters(home)["127.0.0.1", 7]
    names = ("received", "missing", "restarts", "reordered", "waiting", "sessions", "sessions_ended")
    assert [row[name] for name in names] == [103, 0, 0, 0, 0, 0, 3]
    assert _exporters(home)["127.0.0.1", 0]["faulted"] == 1


def test_a_kill_in_the_middle_of_a_stream_counts_what_was_durable_once(tmp_path: Path) -> None:
    """Each message carries a number of its own; the exporter connects again with each new collector."""
    home = make_home(tmp_path, "[collector]\nsegment_seconds = 1\n")
    source, number = random.Random(4), 0
    for round_ in range(2):
        one = Running(home, "tcp://127.0.0.1:0")
        with socket.create_connection(("127.0.0.1", one.ports[0])) as client:
            client.sendall(ipfix(framed(2, template(256, BASIC)), sequence=round_ * 1000))
            for n in range(source.randrange(500, 3000)):
                number += 1
                client.sendall(ipfix(framed(256, basic(number)), sequence=round_ * 1000 + n))
            client.sendall(ipfix(framed(256, basic(number)))[:20])
            time.sleep(source.random() * 0.5)
            one.kill()
    with running(home, "tcp://127.0.0.1:0") as one, socket.create_connection(("127.0.0.1", one.ports[0])) as client:
        number, before = number + 1, one.received()
        client.sendall(ipfix(framed(2, template(256, BASIC)), framed(256, basic(number)), sequence=5))
        wait_until(lambda: one.received() > before)
        assert one.stop() == 0
    figures = counters.figures(home, "main")
    assert figures.received == figures.durable + figures.lost
    assert figures.decoded == figures.durable
    durable = sorted(int.from_bytes(entry.payload[-8:-4], "big") for entry in entries_of(home)
                     if entry.payload and entry.payload[16:18] == b"\x01\x00")
    durable.append(number)
    assert sorted(flow["octets"] for flow in _flows(home)) == sorted(durable)
    assert len(set(durable)) == len(durable)
    row = _exporters(home)["127.0.0.1", 7]
    begun = sum(entry.flags & 2 for entry in entries_of(home)) // 2
    assert (row["sessions"], row["sessions_ended"], row["missing"], row["restarts"]) == (0, begun, 0, 0)


def test_a_thousand_reconnects_leave_memory_flat(tmp_path: Path) -> None:
    home = make_home(tmp_path, "[collector]\nsegment_seconds = 1\n")

    def resident(pid: int) -> int:  # without the journal, which is mapped
        (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1])

    with running(home, "tcp://127.0.0.1:0") as one:
        sizes = []
        for n in range(1, 6001):
            with socket.create_connection(("127.0.0.1", one.ports[0])) as client:
                client.sendall(ipfix(*(framed(2, template(256 + k, BASIC)) for k in range(50)), framed(256, basic(n)),
                                     framed(999, basic()), sequence=n))
            if n >= 4000 and n % 500 == 0:
                wait_until(lambda n=n: counters.figures(home, "main").decoded == n)  # type: ignore[misc]
                sizes.append(resident(one.receiver) + resident(one.process.pid))
        # arenas grow by steps, a leak in every window: 50 templates of 200 octets, 500 times, are 5 MB
        assert min(after - before for before, after in itertools.pairwise(sizes)) < 2_500, f"{sizes} KiB"
        wait_until(lambda: counters.figures(home, "main").sessions_open == 0)
        assert one.stop() == 0
    row = _exporters(home)["127.0.0.1", 7]
    assert [row[name] for name in ("received", "sessions", "sessions_ended", "waiting", "missing")] == [6000, 0, 6000, 0, 0]


# the real exporter ----------------------------------------------------------------------------------------------------
def test_what_softflowd_sends_over_tcp_is_what_its_capture_holds(tmp_path: Path) -> None:
    softflowd = shutil.which("softflowd") or "/usr/sbin/softflowd"
    if not Path(softflowd).exists():
        pytest.skip("softflowd is not installed here (Debian package softflowd): the test with a real exporter is left out")
    home = make_home(tmp_path / "home", "[time]\nskew_seconds_max = 0\n[collector]\nsegment_seconds = 1\n")
    source, octets = random.Random(5), 0
    capture = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for number in range(3000):
        host, size = number % 250, source.randrange(0, 1400)
        udp = struct.pack("!HHHH", 1024 + host, 443, 8 + size, 0) + bytes(size)
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), number, 0, 64, 17, 0, bytes([10, 0, 0, host + 1]),
                         bytes([198, 51, 100, 1])) + udp
        frame = bytes([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]) + ip
        capture += struct.pack("<IIII", 1_790_000_000 + number // 100, 0, len(frame), len(frame)) + frame
        octets += len(ip)
    (tmp_path / "traffic.pcap").write_bytes(capture)
    with running(home, "tcp://127.0.0.1:0") as one:
        command = [softflowd, "-d", "-r", "traffic.pcap", "-n", f"127.0.0.1:{one.ports[0]}", "-v", "10", "-P", "tcp",
                   "-p", "pid", "-c", "control"]
        for _ in range(2):
            subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=tmp_path, stdin=subprocess.DEVNULL)
        wait_until(lambda: counters.figures(home, "main").sessions == 2 and counters.figures(home, "main").sessions_open == 0)
        assert one.stop() == 0
    assert {entry.transport for entry in entries_of(home)} == {6}
    flows = _flows(home)
    assert sum(flow["octets"] for flow in flows) == 2 * octets
    assert sum(flow["packets"] for flow in flows) == 2 * 3000
    # Its sequence number counts the records of its own message too, and not those of options: no measure of loss.
    assert [(row["faulted"], row["sessions_ended"]) for row in _exporters(home).values()] == [(0, 2)]


# exporters behind a NAT -----------------------------------------------------------------------------------------------
def test_two_routers_behind_a_nat_are_one_row_without_false_losses(tmp_path: Path) -> None:
    home = make_home(tmp_path, '[collector]\nsegment_seconds = 1\n[[exporter]]\naddress = "127.0.0.9"\nkey = "address_port"\n')
    with running(home, "127.0.0.1:0") as one:
        routers = []
        for fields, sequence in ((BASIC, 100), (SWAPPED, 900_000)):
            router = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            router.bind(("127.0.0.9", 0))
            router.connect(("127.0.0.1", one.ports[0]))
            router.send(v9(framed(0, template(256, fields)), sequence=sequence))
            routers.append(router)
        for n in range(1, 40):
            routers[0].send(v9(framed(256, basic(1000 + n, 7)), sequence=100 + n + (n > 20)))
            routers[1].send(v9(framed(256, basic(7, 2000 + n)), sequence=900_000 + n))
            wait_until(lambda n=n: one.received() == 2 + 2 * n)  # type: ignore[misc]
        for router in routers:
            router.close()
        assert one.stop() == 0
    assert sorted(flow["octets"] for flow in _flows(home)) == [*range(1001, 1040), *range(2001, 2040)]
    (row,) = rows(run_cli("exporters", "list", home=home.path))
    names = ("received", "missing", "restarts", "reordered", "sessions", "recycled")
    assert [row[name] for name in names] == [80, 1, 0, 0, 2, 0]
