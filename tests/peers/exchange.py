"""What the peers and we are given alike: sessions of datagrams, each under an address of its own; and what is compared."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness import sessions, shared
from journal_bodies import Datagram, body_of, capture_datagrams

from collector.decoder import Decoder
from collector.settings import CollectorSettings, Time
from core.addresses import format_address

FIELDS = (
    "source",
    "destination",
    "source_port",
    "destination_port",
    "protocol",
    "octets",
    "packets",
    "start",
    "end",
    "input",
    "output",
    "source_as",
    "destination_as",
    "tos",
    "tcp_flags",
    "next_hop",
    "direction",
)
"""Names of what is compared; a peer leaves out what it does not tell."""
NETFLOW_PORT, SFLOW_PORT = 2055, 6343
REVERSE = 16

Record = dict[str, Any]


class Session(NamedTuple):
    """Datagrams of one exporter; its address is that of its number."""

    name: str
    payloads: list[bytes]


def capture_sessions() -> list[Session]:
    """The sessions of the reference material, without exact copies: no peer knows a copy when it sees one."""
    folder = shared("captures")
    return [
        Session(
            one["id"], list(dict.fromkeys(d.payload for name in one["files"] for d in capture_datagrams(folder / name)))
        )
        for one in sessions()
    ]


def address_of(number: int) -> str:
    """127.1.x.y: each session a source of its own, also on the loopback interface."""
    return f"127.1.{number // 200}.{1 + number % 200}"


def is_sflow(payload: bytes) -> bool:
    return payload[:4] == b"\0\0\0\5"


def ours(session: Session) -> list[Record]:
    """Our flows in the order of their datagrams, one direction of two, times as the exporter says (no clock rule)."""
    decoder = Decoder(CollectorSettings(time=Time(skew_seconds_max=0)))
    found: list[Record] = []
    for number, payload in enumerate(session.payloads):
        decoded = [decoder.feed(body_of([Datagram(payload, 0, flags=1)]), number), *decoder.rest(number)]
        for one in decoded:
            flows = one.flows
            for i in range(one.counts.flows):
                if flows["flags"][i] & REVERSE:
                    continue
                hop = flows["next_hop"][i]
                found.append({
                    "source": format_address(flows["source_address"][i].tobytes()),
                    "destination": format_address(flows["destination_address"][i].tobytes()),
                    "next_hop": format_address(hop.tobytes()) if hop.any() else None,
                    **{name: int(flows[column][i]) for name, column in _COLUMNS.items()},
                })  # fmt: skip
    return found


_COLUMNS = {
    "source_port": "source_port",
    "destination_port": "destination_port",
    "protocol": "protocol",
    "octets": "octets",
    "packets": "packets",
    "start": "start",
    "end": "end",
    "input": "input_interface",
    "output": "output_interface",
    "source_as": "source_as",
    "destination_as": "destination_as",
    "tos": "tos",
    "tcp_flags": "tcp_flags",
    "direction": "flow_direction",
}


def write_pcap(path: Path, numbered: Iterable[Session], first: int = 0) -> None:
    """All sessions in one file of raw IP packets, each from its own address."""
    out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 101)]
    count = 0
    for number, session in enumerate(numbered, first):
        source = bytes(int(part) for part in address_of(number).split("."))
        for payload in session.payloads:
            port = SFLOW_PORT if is_sflow(payload) else NETFLOW_PORT
            udp = struct.pack("!HHHH", 50000, port, 8 + len(payload), 0) + payload
            packet = (
                struct.pack(
                    "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), count & 0xFFFF, 0, 64, 17, 0, source, bytes([127, 0, 0, 1])
                )
                + udp
            )
            out.append(struct.pack("<IIII", 1_700_000_000 + count, 0, len(packet), len(packet)) + packet)
            count += 1
    path.write_bytes(b"".join(out))


class Difference(NamedTuple):
    """Something of a session that a peer reads otherwise, and why ours is kept. `records`: whole ones are missing."""

    session: str
    fields: frozenset[str]
    reason: str


WRAP = 2**32
NO_TCP_FLAGS = "TCP flags of flows that are not TCP: ours are 0, as the contract says"
WRAPPED = "an uptime that lies after the header's is from before the counter wrapped, 2^32 ms earlier"


def compare(peer: Sequence[Record], mine: Sequence[Record]) -> tuple[set[str], str]:
    """Fields that differ in any record; an example. Records are matched in their order.

    Two rules differ by intent everywhere: NO_TCP_FLAGS and WRAPPED.
    """
    wrong: set[str] = set()
    example = ""
    if len(peer) != len(mine):
        return {"records"}, f"{len(peer)} records of the peer, {len(mine)} of ours"
    for theirs, own in zip(peer, mine, strict=True):
        for name in theirs:
            if theirs[name] == own[name] or (name == "tcp_flags" and own["protocol"] != 6):
                continue
            if name in ("start", "end") and theirs[name] - own[name] == WRAP:
                continue
            wrong.add(name)
            example = example or f"{name}: theirs {theirs[name]}, ours {own[name]}"
    return wrong, example
