"""`collect run` with real UDP: what arrives is flows, exactly once; what is lost has a name."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import packets
import pytest
import sqlalchemy as sa
from harness import rows, run_cli
from running_collector import Running, running

from collector import counters
from collector.exporter.commands import random_flows
from collector.exporter.network import Manifest
from collector.exporter.send import send_flows
from collector.segments import read_segment
from core import clock, tables
from storage import sql
from storage.home import Home

SETTINGS = "[time]\nskew_seconds_max = 0\n[collector]\nsegment_seconds = 1\nsocket_buffer = 4194304\n"


def _home(folder: Path) -> Home:
    folder.mkdir(parents=True)
    (folder / "ratemill.toml").write_text(SETTINGS)
    home = Home(folder)
    home.create()
    return home


def _send(one: Running, protocol: str, number: int, count: int = 3000, **options: Any) -> Manifest:
    columns = random_flows(count, number, protocol, clock.now_ms())
    return send_flows(columns, protocol, ("127.0.0.1", one.ports[0]), source=f"127.0.0.{number}", seed=number,
                      received=one.received, **options)


def _stored(home: Home) -> tuple[int, int]:
    flows = octets = 0
    with sql.reading(sql.engine(home)) as connection:
        found = connection.execute(sa.select(tables.segment)).all()
    for row in found:
        table = read_segment(home, row)
        flows += table.num_rows
        octets += sum(table.column("octets").to_pylist())
    return flows, octets


def _intake(home: Home, *names: str) -> list[int]:
    with sql.reading(sql.engine(home)) as connection:
        return [int(n or 0) for n in connection.execute(sa.select(*(sa.func.sum(tables.intake.c[n]) for n in names))).one()]


def test_what_four_exporters_send_is_reported_to_the_last_record(tmp_path: Path) -> None:
    home = _home(tmp_path / "home")
    told = {}
    with running(home, "127.0.0.1:0", "[::1]:0") as one:
        for number, protocol in enumerate(("v5", "v9", "ipfix", "sflow"), start=2):
            manifest = _send(one, protocol, number, loss=0.05, duplicate=0.05, reorder=0.05, domain=number)
            told[f"127.0.0.{number}"] = manifest.document()["collector"] | {"protocol": protocol, "domain": number}
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
            for payload in (packets.v5([packets.Flow("8.8.8.8", "10.0.0.1", "2026-10-05T10:00:00Z", "2026-10-05T10:00:00Z",
                                                     77)], "2026-10-05T10:01:00Z"), b"garbage", b""):
                sender.sendto(payload, ("::1", one.ports[1]))
        while one.received() < sum(expected["received"] for expected in told.values()) + 3:
            time.sleep(0.01)
        _others_are_refused(home, one)
        assert one.stop() == 0, "and everything received is decoded first"
    status = rows(run_cli("collect", "status", home=home.path))[0]
    sent = sum(expected["received"] for expected in told.values()) + 3
    assert [status[name] for name in ("running", "received", "durable", "decoded", "lost", "refused")] == [
        False, sent, sent, sent, 0, 0]
    assert status["kernel_drops"] == 0
    listed = {row["exporter"]: row for row in rows(run_cli("exporters", "list", home=home.path))}
    for exporter, expected in told.items():
        names = ("received", "missing", "duplicate", "reordered", "protocol", "domain")
        found = {name: listed[exporter][name] for name in names}
        assert found == {name: expected[name] for name in found}
        assert (listed[exporter]["faulted"], listed[exporter]["waiting"]) == (0, 0)
    flows = sum(expected["flows"] for expected in told.values()) + 1
    assert _stored(home) == (flows, sum(expected["octets"] for expected in told.values()) + 77)
    assert _intake(home, "datagrams", "faulted", "refused", "flow_records") == [sent, 2, 0, flows]


def _others_are_refused(home: Home, one: Running) -> None:
    taken = run_cli("collect", "run", "--listen", "127.0.0.1:0", home=home.path, check=6)
    assert f"process {one.process.pid}" in taken.stderr
    elsewhere = _home(home.path.parent / "another")
    refused = run_cli("collect", "run", "--listen", f"127.0.0.1:{one.ports[0]}", home=elsewhere.path, check=1)
    assert "the port is in use" in refused.stderr
    assert "Traceback" not in refused.stderr
    run_cli("collect", "run", "--listen", "nonsense", home=elsewhere.path, check=2)
    assert "no address of this machine" in run_cli("collect", "run", "--listen", "192.0.2.77:2055", home=elsewhere.path,
                                                   check=1).stderr
    live = rows(run_cli("collect", "status", home=home.path))[0]
    assert live["running"] is True
    assert live["received"] >= live["durable"] >= live["decoded"]


def test_a_killed_collector_loses_only_what_was_not_durable_and_names_it(tmp_path: Path) -> None:
    home = _home(tmp_path / "home")
    rng = random.Random(7)
    sent = 0
    for number in range(3):
        one = Running(home)
        sent += _send(one, "v5", number + 2, count=28 * rng.randrange(50, 400)).datagrams
        time.sleep(rng.random() * 0.3)
        one.kill()
        killed = rows(run_cli("collect", "status", home=home.path))[0]
        assert (killed["running"], killed["collectors"][0]["state"]) == (False, "killed")
        assert killed["received"] == sent
    with running(home) as one:
        sent += _send(one, "v9", 9, count=100).datagrams
        assert one.stop() == 0
    figures = counters.figures(home, "main")
    assert figures.received == sent == figures.durable + figures.lost
    assert figures.decoded == figures.durable
    assert _intake(home, "datagrams", "decoded", "refused") == [sent, figures.durable, figures.lost]
    listed = rows(run_cli("exporters", "list", home=home.path))
    assert sum(row["received"] for row in listed) == figures.durable
    assert _stored(home)[0] == _intake(home, "flow_records")[0]


def test_a_collector_whose_receiver_dies_says_so_and_decodes_what_it_made_durable(tmp_path: Path) -> None:
    home = _home(tmp_path / "home")
    one = Running(home)
    sent = _send(one, "ipfix", 3)
    while counters.figures(home, "main").durable < sent.datagrams:
        time.sleep(0.02)
    os.kill(one.receiver, signal.SIGKILL)
    said = one.said()
    assert one.process.returncode == 1
    assert "the receiver ended by itself" in said
    assert _stored(home) == (sent.records, sent.octets)


# the real exporter ----------------------------------------------------------------------------------------------------
def _traffic(path: Path) -> int:
    """A capture of some conversations; returns its IP octets."""
    out, octets = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1), 0
    rng = random.Random(3)
    for number in range(2000):
        host, size = number % 40, rng.randrange(0, 1400)
        udp = struct.pack("!HHHH", 1024 + host, 443, 8 + size, 0) + bytes(size)
        source, destination = bytes([10, 0, 0, host + 1]), bytes([198, 51, 100, 1])
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), number, 0, 64, 17, 0, source, destination) + udp
        frame = bytes([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]) + ip
        out += struct.pack("<IIII", 1_790_000_000 + number // 100, number % 100 * 1000, len(frame), len(frame)) + frame
        octets += len(ip)
    path.write_bytes(out)
    return octets


def test_what_softflowd_exports_is_what_its_capture_holds(tmp_path: Path) -> None:
    softflowd = shutil.which("softflowd") or "/usr/sbin/softflowd"
    if not Path(softflowd).exists():
        pytest.skip("softflowd is not installed here (Debian package softflowd): the test with a real exporter is left out")
    home = _home(tmp_path / "home")
    octets = _traffic(tmp_path / "traffic.pcap")
    with running(home) as one:
        for version in (5, 9, 10):
            before = one.received()
            command = [softflowd, "-d", "-r", "traffic.pcap", "-n", f"127.0.0.1:{one.ports[0]}", "-v", str(version),
                       "-p", "pid", "-c", "control"]
            subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=tmp_path, stdin=subprocess.DEVNULL)
            deadline = time.monotonic() + 20
            while one.received() == before and time.monotonic() < deadline:
                time.sleep(0.05)
        assert one.stop() == 0
    flows = rows(run_cli("flows", "export", home=home.path))
    with sql.reading(sql.engine(home)) as connection:
        known = {row.export_protocol for row in connection.execute(sa.select(tables.exporter_state))}
    assert known == {5, 9, 10}
    assert sum(flow["octets"] for flow in flows) == 3 * octets
    assert sum(flow["packets"] for flow in flows) == 3 * 2000
    assert {flow["destination_port"] for flow in flows} == {443}
