"""Frames and packets made by hand with `struct`, layer by layer: what an exporter samples. No code of the product."""

from __future__ import annotations

import ipaddress
import struct

SOURCE, DESTINATION = "192.0.2.1", "198.51.100.1"
SOURCE6, DESTINATION6 = "2001:db8::1", "2001:db8:1::2"
TUNNEL_SOURCE, TUNNEL_DESTINATION = "203.0.113.1", "203.0.113.2"


def address(text: str) -> bytes:
    """Packed, 4 or 16 octets."""
    return ipaddress.ip_address(text).packed


def mapped(text: str) -> bytes:
    """As a flow has it: 16 octets."""
    packed = address(text)
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


def tcp(source: int = 1234, destination: int = 80, flags: int = 0x12) -> bytes:
    return struct.pack(">HHIIBBHHH", source, destination, 1, 2, 0x50, flags, 1000, 0, 0)


def udp(payload: bytes = b"", source: int = 1234, destination: int = 53) -> bytes:
    return struct.pack(">HHHH", source, destination, 8 + len(payload), 0) + payload


def checksum(header: bytes) -> int:
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(payload: bytes, protocol: int = 6, source: str = SOURCE, destination: str = DESTINATION, total: int | None = None,
         fragment: int = 0, options: bytes = b"", tos: int = 0) -> bytes:
    """An IPv4 packet with a right checksum; total: the length it says, its own by default."""
    size = 20 + len(options)
    head = struct.pack(">BBHHHBBH4s4s", 0x40 | size // 4, tos, size + len(payload) if total is None else total, 1, fragment, 64,
                       protocol, 0, address(source), address(destination)) + options
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def ipv6(payload: bytes, following: int = 6, source: str = SOURCE6, destination: str = DESTINATION6, length: int | None = None,
         tos: int = 0) -> bytes:
    """An IPv6 packet; length: the payload length it says."""
    said = len(payload) if length is None else length
    return struct.pack(">IHBB", 6 << 28 | tos << 20, said, following, 64) + address(source) + address(destination) + payload


def extension(following: int, octets: int = 8) -> bytes:
    """Hop-by-hop, routing, destination options, mobility …"""
    return struct.pack(">BB", following, octets // 8 - 1) + bytes(octets - 2)


def fragment6(following: int, offset: int = 0, more: bool = False) -> bytes:
    return struct.pack(">BBHI", following, 0, offset << 3 | more, 7)


def authentication(following: int, octets: int = 24) -> bytes:
    return struct.pack(">BB", following, octets // 4 - 2) + bytes(octets - 2)


def ethernet(inner: bytes, kind: int = 0x0800, tags: tuple[int, ...] = ()) -> bytes:
    """tags: the EtherTypes of VLAN tags, outermost first."""
    types = (*tags, kind)
    head = b"\x02\x04\x06\x08\x0a\x0c" + b"\x02\x14\x16\x18\x1a\x1c" + struct.pack(">H", types[0])
    return head + b"".join(struct.pack(">HH", 100 + n, following) for n, following in enumerate(types[1:])) + inner


def mpls(inner: bytes, *labels: int) -> bytes:
    """A label stack; the last label is its bottom."""
    last = len(labels) - 1
    return b"".join(struct.pack(">I", label << 12 | (n == last) << 8 | 64) for n, label in enumerate(labels)) + inner


def pppoe(inner: bytes, protocol: int = 0x0021, first: int = 0x1100) -> bytes:
    return struct.pack(">HHHH", first, 7, 2 + len(inner), protocol) + inner


def llc(inner: bytes, kind: int = 0x0800, head: bytes = b"\xaa\xaa\x03\0\0\0") -> bytes:
    return head + struct.pack(">H", kind) + inner


def gre(inner: bytes, kind: int = 0x0800, *, key: bool = False, sequence: bool = False, sums: bool = False,
        routing: bytes | None = None, version: int = 0) -> bytes:
    flags = sums << 15 | (routing is not None) << 14 | key << 13 | sequence << 12 | version
    return (struct.pack(">HH", flags, kind) + bytes(4 * (sums or routing is not None)) + bytes(4 * key) + bytes(4 * sequence)
            + (routing or b"") + inner)


def vxlan(frame: bytes, flags: int = 8) -> bytes:
    """UDP to port 4789 with a frame in it."""
    return udp(struct.pack(">BBHI", flags, 0, 0, 42 << 8) + frame, 50000, 4789)


def wifi(inner: bytes, control: int = 0x08, flags: int = 0x01, fragment: int = 0, quality: bytes = b"") -> bytes:
    """A frame of IEEE 802.11."""
    return (struct.pack("<BBH", control, flags, 0) + bytes(18) + struct.pack("<H", fragment)
            + (bytes(6) if flags & 3 == 3 else b"") + quality + inner)


def tunnel(payload: bytes, protocol: int) -> bytes:
    """The IPv4 packet around another."""
    return ipv4(payload, protocol, TUNNEL_SOURCE, TUNNEL_DESTINATION)


# sFlow v5 -------------------------------------------------------------------------------------------------------------
def record(kind: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack(">II", kind, len(body) if length is None else length) + body + bytes(-len(body) % 4)


def raw_header(frame: bytes, protocol: int = 1, length: int | None = None, stripped: int = 0, held: int | None = None) -> bytes:
    """A sampled header; length: of the frame on the wire."""
    said = len(frame) + stripped if length is None else length
    return record(1, struct.pack(">IIII", protocol, said, stripped, len(frame) if held is None else held) + frame)


def flow_sample(*records: bytes, rate: int = 100, into: int = 1, outof: int = 2, count: int | None = None) -> bytes:
    return record(1, struct.pack(">IIIIIIII", 1, 1, rate, 1000, 0, into, outof, len(records) if count is None else count)
                  + b"".join(records))


def expanded_flow_sample(*records: bytes, rate: int = 100, into: tuple[int, int] = (0, 1),
                         outof: tuple[int, int] = (0, 2)) -> bytes:
    return record(3, struct.pack(">IIIIIIIIIII", 1, 0, 1, rate, 1000, 0, *into, *outof, len(records)) + b"".join(records))


def interface_counters(interface: int, octets_in: int, octets_out: int) -> bytes:
    """The generic interface counters, 88 octets."""
    return record(1, struct.pack(">IIQIIQ6IQ5II", interface, 6, 10**10, 1, 3, octets_in, 1, 2, 3, 4, 5, 6, octets_out, 7, 8,
                                 9, 10, 11, 0))


def counter_sample(*records: bytes, count: int | None = None) -> bytes:
    return record(2, struct.pack(">III", 1, 1, len(records) if count is None else count) + b"".join(records))


def expanded_counter_sample(*records: bytes) -> bytes:
    return record(4, struct.pack(">IIII", 1, 0, 1, len(records)) + b"".join(records))


def drop_sample(*records: bytes) -> bytes:
    """A discarded packet: sequence, source, drops, interfaces, reason."""
    return record(5, struct.pack(">IIIIIIII", 1, 0, 1, 0, 1, 0, 258, len(records)) + b"".join(records))


def sflow(*samples: bytes, sequence: int = 1, uptime: int = 5000, agent: int = 3) -> bytes:
    return struct.pack(">IIIIIII", 5, 1, 0x0A000001, agent, sequence, uptime, len(samples)) + b"".join(samples)
