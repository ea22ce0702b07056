"""Packets made by hand with `struct`, sharing no code with the product: what tests feed to it."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True)
class Flow:
    """What a router saw; instants are ISO text with an offset."""

    source: str
    destination: str
    start: str
    end: str
    octets: int
    packets: int = 1
    protocol: int = 6
    source_port: int = 40000
    destination_port: int = 443
    input: int = 10
    output: int = 1


BOOTED = "2026-09-20T00:00:00Z"


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def v5(flows: Sequence[Flow], exported: str, sequence: int = 0, uptime: int | None = None, sampling: int = 0) -> bytes:
    """A NetFlow v5 datagram exported at an instant; uptime in ms, by default of a router that booted on BOOTED."""
    now = ms(exported)
    if uptime is None:
        uptime = now - ms(BOOTED)
    header = struct.pack(
        "!HHIIIIBBH", 5, len(flows), uptime, now // 1000, now % 1000 * 1_000_000, sequence, 0, 0, sampling
    )
    body = b""
    for flow in flows:
        body += struct.pack(
            "!4s4s4sHHIIIIHHBBBBHHBBH",
            _v4(flow.source),
            _v4(flow.destination),
            _v4("0.0.0.0"),
            flow.input,
            flow.output,
            flow.packets,
            flow.octets,
            uptime - (now - ms(flow.start)),
            uptime - (now - ms(flow.end)),
            flow.source_port,
            flow.destination_port,
            0,
            0x18,
            flow.protocol,
            0,
            0,
            0,
            0,
            0,
            0,
        )
    return header + body


IPFIX_FIELDS = ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 8), (2, 8), (10, 4), (14, 4), (152, 8), (153, 8))


def ipfix_template(identifier: int = 256, fields: Sequence[tuple[int, int]] = IPFIX_FIELDS) -> bytes:
    """A template set with one template."""
    record = struct.pack("!HH", identifier, len(fields)) + b"".join(struct.pack("!HH", *field) for field in fields)
    return struct.pack("!HH", 2, 4 + len(record)) + record


def ipfix_data(flows: Sequence[Flow], identifier: int = 256) -> bytes:
    """A data set of IPFIX_FIELDS records."""
    body = b"".join(
        _v4(f.source)
        + _v4(f.destination)
        + struct.pack(
            "!HHBQQIIQQ",
            f.source_port,
            f.destination_port,
            f.protocol,
            f.octets,
            f.packets,
            f.input,
            f.output,
            ms(f.start),
            ms(f.end),
        )
        for f in flows
    )
    return struct.pack("!HH", identifier, 4 + len(body)) + body


def ipfix(sets: Iterable[bytes], exported: str, sequence: int = 0, domain: int = 1) -> bytes:
    """An IPFIX message."""
    body = b"".join(sets)
    return struct.pack("!HHIII", 10, 16 + len(body), ms(exported) // 1000, sequence, domain) + body


def pcap(path: Path, datagrams: Iterable[tuple[str, str, bytes]]) -> Path:
    """A pcap file of UDP datagrams (received, exporter's address, payload) to port 2055, on Ethernet."""
    out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
    for received, exporter, payload in datagrams:
        udp = struct.pack("!HHHH", 50000, 2055, 8 + len(payload), 0) + payload
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, _v4(exporter), _v4("192.0.2.254"))
        frame = b"\x02" * 6 + b"\x04" * 6 + b"\x08\x00" + ip + udp
        at = ms(received)
        out += struct.pack("<IIII", at // 1000, at % 1000 * 1000, len(frame), len(frame)) + frame
    path.write_bytes(out)
    return path


def _v4(text: str) -> bytes:
    return ipaddress.IPv4Address(text).packed


V9_FIELDS = ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 4), (2, 4), (10, 2), (14, 2), (22, 4), (21, 4))


def v9_template(identifier: int = 300) -> bytes:
    """A template FlowSet with one template of V9_FIELDS."""
    record = struct.pack("!HH", identifier, len(V9_FIELDS)) + b"".join(
        struct.pack("!HH", *field) for field in V9_FIELDS
    )
    return struct.pack("!HH", 0, 4 + len(record)) + record


def v9_data(flows: Sequence[Flow], exported: str, uptime: int, identifier: int = 300) -> bytes:
    """A data FlowSet of V9_FIELDS records, padded to four octets; the header's second is the reference of uptime."""
    now = ms(exported) // 1000 * 1000
    body = b"".join(
        _v4(f.source)
        + _v4(f.destination)
        + struct.pack(
            "!HHBIIHHII",
            f.source_port,
            f.destination_port,
            f.protocol,
            f.octets,
            f.packets,
            f.input,
            f.output,
            (uptime - (now - ms(f.start))) % 2**32,
            (uptime - (now - ms(f.end))) % 2**32,
        )
        for f in flows
    )
    body += b"\x00" * (-len(body) % 4)
    return struct.pack("!HH", identifier, 4 + len(body)) + body


def v9(sets: Sequence[bytes], exported: str, sequence: int, uptime: int, records: int, source: int = 7) -> bytes:
    """A NetFlow v9 datagram."""
    return struct.pack("!HHIIII", 9, records, uptime, ms(exported) // 1000, sequence, source) + b"".join(sets)


def sflow(flows: Sequence[Flow], sequence: int, uptime: int, rate: int, agent: str = "192.0.2.9") -> bytes:
    """An sFlow v5 datagram of flow samples, each with the raw header of one packet of `octets` octets."""
    samples = b""
    for number, flow in enumerate(flows):
        transport = struct.pack("!HHHH", flow.source_port, flow.destination_port, flow.octets - 20, 0)
        ip = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, flow.octets, 1, 0, 63, 17, 0, _v4(flow.source), _v4(flow.destination)
        )
        header = b"\x02" * 6 + b"\x04" * 6 + b"\x08\x00" + ip + transport
        header += b"\x00" * (-len(header) % 4)
        record = struct.pack("!IIII", 1, flow.octets + 18, 4, 42) + header
        record = struct.pack("!II", 1, len(record)) + record
        sample = struct.pack("!IIIIIIII", number, 1, rate, 0, 0, flow.input, flow.output, 1) + record
        samples += struct.pack("!II", 1, len(sample)) + sample
    return struct.pack("!II4sIIII", 5, 1, _v4(agent), 0, sequence, uptime, len(flows)) + samples
