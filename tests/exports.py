"""Small messages of each export protocol, built by hand for the decoder's tests."""

from __future__ import annotations

import struct
from collections.abc import Sequence

NOW_S = 1_790_000_000

Fields = Sequence[tuple[int, int]]
"""(element, octets); an element of 2^32 or more carries its enterprise number in the upper half."""


def v5_record(first: int = 0, last: int = 0, octets: int = 1000, packets: int = 10, source: int = 0xC0000201) -> bytes:
    return struct.pack(">IIIHHIIIIHHBBBBHHBBH", source, 0xC6336401, 0, 1, 2, packets, octets, first, last, 1234, 80, 0, 16, 6,
                       0, 64500, 64501, 24, 24, 0)


def v5(records: Sequence[bytes], sequence: int = 0, uptime: int = 3_600_000, seconds: int = NOW_S, sampling: int = 0,
       count: int | None = None, engine: int = 0) -> bytes:
    head = struct.pack(">HHIIIIHH", 5, len(records) if count is None else count, uptime, seconds, 0, sequence, engine, sampling)
    return head + b"".join(records)


def framed(identifier: int, *bodies: bytes) -> bytes:
    body = b"".join(bodies)
    return struct.pack(">HH", identifier, 4 + len(body)) + body


def specifiers(fields: Fields) -> bytes:
    parts = []
    for element, length in fields:
        enterprise, number = element >> 32, element & 0xFFFF
        parts.append(struct.pack(">HH", number | (0x8000 if enterprise else 0), length))
        if enterprise:
            parts.append(struct.pack(">I", enterprise))
    return b"".join(parts)


def template(identifier: int, fields: Fields) -> bytes:
    return struct.pack(">HH", identifier, len(fields)) + specifiers(fields)


def ipfix_options_template(identifier: int, fields: Fields, scope: int = 1) -> bytes:
    return struct.pack(">HHH", identifier, len(fields), scope) + specifiers(fields)


def v9_options_template(identifier: int, scopes: Fields, options: Fields) -> bytes:
    return struct.pack(">HHH", identifier, 4 * len(scopes), 4 * len(options)) + specifiers(scopes) + specifiers(options)


def v9(*sets: bytes, sequence: int = 0, uptime: int = 3_600_000, seconds: int = NOW_S, source: int = 7) -> bytes:
    return struct.pack(">HHIIII", 9, len(sets), uptime, seconds, sequence, source) + b"".join(sets)


def ipfix(*sets: bytes, sequence: int = 0, seconds: int = NOW_S, domain: int = 7) -> bytes:
    body = b"".join(sets)
    return struct.pack(">HHIII", 10, 16 + len(body), seconds, sequence, domain) + body


BASIC: Fields = [(8, 4), (12, 4), (1, 4), (2, 4)]
"""Source, destination, octets, packets."""


def basic(octets: int = 1000, packets: int = 10, more: bytes = b"") -> bytes:
    return struct.pack(">IIII", 0xC0000201, 0xC6336401, octets, packets) + more


def sflow(*samples: bytes, sequence: int = 1, uptime: int = 5000, agent: int = 3) -> bytes:
    return struct.pack(">IIIIIII", 5, 1, 0x0A000001, agent, sequence, uptime, len(samples)) + b"".join(samples)


def flow_sample(*records: bytes, rate: int = 100, into: int = 1, outof: int = 2) -> bytes:
    body = struct.pack(">IIIIIIII", 1, 1, rate, 1000, 0, into, outof, len(records)) + b"".join(records)
    return struct.pack(">II", 1, len(body)) + body


def raw_header(frame: bytes, length: int | None = None, stripped: int = 4) -> bytes:
    padded = frame + bytes(-len(frame) % 4)
    body = struct.pack(">IIII", 1, len(frame) + stripped if length is None else length, stripped, len(frame)) + padded
    return struct.pack(">II", 1, len(body)) + body


def ethernet(inner: bytes, kind: int = 0x0800, tags: Sequence[int] = ()) -> bytes:
    head = bytes(12)
    for tag in tags:
        head += struct.pack(">HH", 0x8100, tag)
    return head + struct.pack(">H", kind) + inner


def ipv4_packet(total: int = 1500, protocol: int = 6, payload: bytes = b"\x04\xd2\x00\x50" + bytes(9) + b"\x12" + bytes(6),
                fragment: int = 0) -> bytes:
    return struct.pack(">BBHHHBBHII", 0x45, 0, total, 1, fragment, 64, protocol, 0, 0xC0000201, 0xC6336401) + payload
