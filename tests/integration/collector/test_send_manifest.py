"""The manifest of `collect send` against a count of what arrived that shares no code with it."""

from __future__ import annotations

import json
import socket
import struct
import threading
from pathlib import Path

import pytest
from harness import rows, run_cli


class _Listening(threading.Thread):
    """Keeps every datagram that comes, in order."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 26)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.datagrams: list[bytes] = []

    def run(self) -> None:
        while data := self.socket.recv(65_536):
            self.datagrams.append(data)

    def finish(self) -> list[bytes]:
        """All that came: an empty datagram behind the others ends it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self.join(60)
        self.socket.close()
        return self.datagrams


def _v5(data: bytes) -> tuple[int, int, list[int]]:
    count, sequence = struct.unpack_from(">xxH12xI", data)
    assert len(data) == 24 + 48 * count
    return sequence, count, [struct.unpack_from(">I", data, 24 + 48 * n + 20)[0] for n in range(count)]


def _sets(data: bytes, at: int, template_set: int, known: dict[int, list[tuple[int, int]]]) -> list[int]:
    """Octets (IE 1) of the data records; templates are remembered."""
    octets = []
    while at + 4 <= len(data):
        identifier, length = struct.unpack_from(">HH", data, at)
        end, place = at + length, at + 4
        if identifier == template_set:
            while place + 4 <= end:
                template, fields = struct.unpack_from(">HH", data, place)
                known[template] = [struct.unpack_from(">HH", data, place + 4 + 4 * n) for n in range(fields)]
                place += 4 + 4 * fields
        elif identifier >= 256 and identifier in known:
            size = sum(width for _, width in known[identifier])
            while end - place >= size:
                where = place
                for element, width in known[identifier]:
                    if element == 1:
                        octets.append(int.from_bytes(data[where : where + width], "big"))
                    where += width
                place += size
        at = end
    return octets


def _sflow(data: bytes) -> tuple[int, int, list[int]]:
    sequence, _, count = struct.unpack_from(">III", data, 16)
    at, octets = 28, []
    for _ in range(count):
        kind, length = struct.unpack_from(">II", data, at)
        assert kind == 1
        frame = struct.unpack_from(">I", data, at + 8 + 32 + 8 + 4)[0]
        octets.append(frame - 14 - 4)
        at += 8 + length
    assert at == len(data)
    return sequence, 1, octets


def _count(protocol: str, datagrams: list[bytes]) -> dict[str, int]:
    """What arrived, by hand."""
    known: dict[int, list[tuple[int, int]]] = {}
    seen: set[bytes] = set()
    spans: list[tuple[int, int]] = []
    found = {"received": len(datagrams), "flows": 0, "octets": 0, "duplicate": 0}
    for data in datagrams:
        if data in seen:
            found["duplicate"] += 1
            continue
        seen.add(data)
        if protocol == "v5":
            sequence, units, octets = _v5(data)
        elif protocol == "sflow":
            sequence, units, octets = _sflow(data)
        elif protocol == "v9":
            sequence, octets = struct.unpack_from(">I", data, 12)[0], _sets(data, 20, 0, known)
            units = 1
        else:
            sequence, octets = struct.unpack_from(">I", data, 8)[0], _sets(data, 16, 2, known)
            units = len(octets)
        spans.append((sequence, units))
        found["flows"] += len(octets)
        found["octets"] += sum(octets)
    came = {place for first, units in spans for place in range(first, first + units)}
    found["missing"] = max(came) + 1 - min(came) - len(came)
    newest, late = -1, 0
    for first, units in spans:
        late += first < newest
        newest = max(newest, first + units)
    found["reordered"] = late
    return found


@pytest.mark.parametrize("protocol", ["v5", "v9", "ipfix", "sflow"])
@pytest.mark.parametrize("fate", [(), ("--loss", "0.1", "--duplicate", "0.1", "--reorder", "0.1")])
def test_the_manifest_says_what_arrived(protocol: str, fate: tuple[str, ...], tmp_path: Path) -> None:
    listening = _Listening()
    listening.start()
    manifest = tmp_path / "manifest.json"
    printed = rows(run_cli("collect", "send", "--to", f"127.0.0.1:{listening.port}", "--protocol", protocol, "--flows", "9001",
                           "--rate", "2000", "--seed", "3", "--manifest", str(manifest), *fate))[0]
    found = _count(protocol, listening.finish())
    told = json.loads(manifest.read_text())
    (stream,) = told["streams"]
    assert stream == printed
    assert stream["collector"] == found
    assert stream["made"]["records"] == 9001 == found["flows"] + stream["lost_records"]
    assert stream["made"]["octets"] == found["octets"] + stream["lost_octets"]
    assert sum(int(size) * count for size, count in stream["sizes"].items()) == found["flows"]
    assert sum(stream["sizes"].values()) == found["received"] - found["duplicate"]
    assert (stream["lost_datagrams"] > 0) == bool(fate)
    for name in ("datagrams", "records", "octets", "lost_datagrams", "lost_records", "lost_octets", "duplicated_datagrams",
                 "reordered_datagrams"):
        assert told["total"][name] == told["protocols"][protocol][name] == stream[name]
