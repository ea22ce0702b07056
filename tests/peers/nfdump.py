"""nfdump's collector as a judge: nfcapd on the loopback interface, and what nfdump prints of its file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from peers.exchange import Record, Session, address_of

NUMBERS = {"source_port": "src_port", "destination_port": "dst_port", "protocol": "proto", "octets": "in_bytes",
           "packets": "in_packets", "input": "input_snmp", "output": "output_snmp", "source_as": "src_as",
           "destination_as": "dst_as", "tos": "src_tos", "direction": "flow_direction"}
PATIENCE_S = 60


def flows(folder: Path, numbered: Sequence[Session]) -> dict[str, list[Record]]:
    """Records by the exporter's address, in their order; skips the test where nfdump is absent."""
    if shutil.which("nfcapd") is None or shutil.which("nfdump") is None:
        pytest.skip("nfcapd is not here: install Debian's nfdump")
    port = _free_port()
    collector = subprocess.Popen(
        ["nfcapd", "-w", str(folder), "-p", str(port), "-b", "127.0.0.1", "-t", "86400", "-B", str(8 << 20)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(lambda: _queue(port) is not None, "nfcapd does not listen")
        for number, session in enumerate(numbered):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.bind((address_of(number), 0))
                for payload in session.payloads:
                    if len(payload) <= 65_507:
                        sender.sendto(payload, ("127.0.0.1", port))
                    _wait(lambda: _queue(port) == 0, "nfcapd does not read")
    finally:
        collector.send_signal(signal.SIGTERM)
        collector.wait(PATIENCE_S)
    files = sorted(str(path) for path in folder.iterdir() if path.is_file())
    return _read(files)


def _read(files: list[str]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for name in files:
        done = subprocess.run(["nfdump", "-q", "-r", name, "-o", "json"], capture_output=True, text=True, check=True,
                              env={**os.environ, "TZ": "UTC"})
        for one in _objects(done.stdout):
            if ("src4_addr" in one or "src6_addr" in one) and "in_bytes" in one:
                source = one.get("ip4_router", one.get("ip6_router", ""))
                found.setdefault(source, []).append(_record(one))
    return found


def _objects(text: str) -> list[dict[str, Any]]:
    """nfdump prints an array, or nothing at all, by version with or without a comma at its end."""
    text = text.strip().removesuffix(",")
    if not text:
        return []
    if not text.startswith("["):
        text = f"[{text}]"
    parsed = json.loads(text)
    return [one for one in parsed if isinstance(one, dict)]


def _record(one: dict[str, Any]) -> Record:
    record: Record = {name: int(one[theirs]) for name, theirs in NUMBERS.items() if theirs in one}
    record["source"] = one.get("src4_addr", one.get("src6_addr"))
    record["destination"] = one.get("dst4_addr", one.get("dst6_addr"))
    record["start"], record["end"] = _ms(one["first"]), _ms(one["last"])
    if record["protocol"] in (1, 58) and "icmp_type" in one:
        record["source_port"], record["destination_port"] = 0, int(one["icmp_type"]) * 256 + int(one["icmp_code"])
    if "tcp_flags" in one:
        record["tcp_flags"] = _flags(one["tcp_flags"])
    hop = one.get("ip4_next_hop", one.get("ip6_next_hop"))
    if hop is not None:
        record["next_hop"] = None if hop in ("0.0.0.0", "::") else hop
    return record


def _flags(text: str) -> int:
    """`...AP.SF`, highest bit first."""
    return sum(1 << bit for bit, letter in enumerate(reversed(text)) if letter != ".") if isinstance(text, str) else int(text)


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _queue(port: int) -> int | None:
    """Octets in the receive buffer of the collector's socket, None if there is none."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        words = line.split()
        if int(words[1].split(":")[1], 16) == port:
            return int(words[4].split(":")[1], 16)
    return None


def _wait(condition: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(what)
        time.sleep(0.0005)
