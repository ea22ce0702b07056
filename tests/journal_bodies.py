"""Builds journal block bodies and reads captures, for the decoder's tests."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.addresses import parse_address

ENTRY = struct.Struct("<qIHHBBHI16s16s")
NOW_MS = 1_790_000_000_000


class Datagram(NamedTuple):
    payload: bytes
    received: int = NOW_MS
    source: str = "192.0.2.1"
    flags: int = 0
    transport: int = 17
    port: int = 2055
    session: int = 0
    """Of TCP: which connection it is."""


def body_of(datagrams: Iterable[Datagram]) -> NDArray[np.uint8]:
    parts = []
    for one in datagrams:
        head = ENTRY.pack(one.received, len(one.payload), one.port, 2055, one.transport, 4, one.flags, one.session,
                          parse_address(one.source), parse_address("192.0.2.254"))
        assert len(head) == 56
        parts.append(head + one.payload + bytes(-len(one.payload) % 8))
    return np.frombuffer(b"".join(parts), np.uint8)


def split_messages(data: bytes) -> list[bytes]:
    """IPFIX messages back to back; where another one does not follow, the rest belongs to the last."""
    at, messages = 0, []
    while at < len(data):
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + length
        if length < 16 or (end < len(data) and data[end : end + 2] != b"\x00\x0a"):
            end = len(data)
        messages.append(data[at:end])
        at = end
    return messages


def capture_datagrams(path: Path) -> list[Datagram]:
    """The datagrams of a capture file, in order."""
    if path.suffix == ".pcap":
        return _pcap_datagrams(path)
    data = path.read_bytes()
    payloads = split_messages(data) if data[:2] == b"\x00\x0a" else [data]
    return [Datagram(payload, 0, flags=1) for payload in payloads]


def _pcap_datagrams(path: Path) -> list[Datagram]:
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.utils import rdpcap

    found = []
    for packet in rdpcap(str(path)):
        if packet.haslayer(UDP) and len(bytes(packet[UDP].payload)):
            ip = packet[IP] if packet.haslayer(IP) else packet[IPv6]
            payload = bytes(packet[UDP])[8 : packet[UDP].len]
            found.append(Datagram(payload, int(packet.time * 1000), ip.src))
    return found
