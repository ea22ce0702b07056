"""The records of sFlow's flow samples, slowly: a part of the oracle of the decoder. No code of the product."""

from __future__ import annotations

from typing import Any

from oracles.slow_packets import LINKS, MAPPED, number, packet


def read_records(data: bytes, count: int, found: dict[str, Any], inner: bool) -> bool:
    """The records of an sFlow flow sample into `found`; whether all are whole."""
    at = 0
    for _ in range(count):
        if len(data) - at < 8:
            return False
        kind, length = number(data[at : at + 4]), number(data[at + 4 : at + 8])
        at += 8
        if length > len(data) - at:
            return False
        r = data[at : at + length]
        if kind == 1 and len(r) >= 16:
            frame, stripped, held = number(r[4:8]), number(r[8:12]), number(r[12:16])
            if "source_address" not in found:
                kind = number(r[:4])
                link = ("ipv6" if r[16:17] > b"\x5f" and r[16:17] < b"\x70" else "ipv4") if kind == 10 else LINKS.get(kind, "")
                of_packet = packet(r[16 : 16 + held], link, frame - stripped, inner)
                if of_packet:
                    del of_packet["packets_read"]
                    found |= of_packet
            if held > len(r) - 16:
                return False
        elif kind in (3, 4) and "source_address" not in found:
            _sampled_ip(r, 4 if kind == 3 else 16, found)
        elif kind == 1002:
            hop = _address(r)
            if hop and hop[0]:
                found["next_hop"] = hop[0]
        elif kind == 1003 and not _gateway(r, found):
            return False
        at += (length + 3) // 4 * 4
    return True


def _address(data: bytes) -> tuple[bytes | None, bytes] | None:
    kind = number(data[:4])
    if len(data) >= 4 and kind == 0:
        return None, data[4:]
    if kind == 1 and len(data) >= 8:
        return MAPPED + data[4:8], data[8:]
    if kind == 2 and len(data) >= 20:
        return data[4:20], data[20:]
    return None


def _gateway(r: bytes, found: dict[str, Any]) -> bool:
    hop = _address(r)
    if hop is None:
        return False
    if hop[0]:
        found["next_hop"] = hop[0]
    rest = hop[1]
    if len(rest) < 16:
        return False
    found["source_as"] = number(rest[4:8])
    segments = number(rest[12:16])
    if segments == 0:
        found["destination_as"] = number(rest[:4])
    rest = rest[16:]
    for _ in range(segments):
        if len(rest) < 8:
            return False
        size = number(rest[4:8]) * 4
        rest = rest[8:]
        if size > len(rest):
            return False
        if size:
            found["destination_as"] = number(rest[size - 4 : size])
        rest = rest[size:]
    return True


def _sampled_ip(r: bytes, size: int, found: dict[str, Any]) -> None:
    if len(r) < 24 + 2 * size:
        return
    tail = [number(r[i : i + 4]) for i in range(8 + 2 * size, 24 + 2 * size, 4)]
    prefix = MAPPED if size == 4 else b""
    protocol = number(r[4:8]) & 0xFF
    found |= {"octets": number(r[:4]), "protocol": protocol, "source_address": prefix + r[8 : 8 + size],
              "destination_address": prefix + r[8 + size : 8 + 2 * size], "destination_port": tail[1] & 0xFFFF,
              "source_port": 0 if protocol in (1, 58) else tail[0] & 0xFFFF,
              "tcp_flags": tail[2] & 0xFFFF if protocol == 6 else 0, "tos": tail[3] & 0xFF}
