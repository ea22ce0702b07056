"""A slow, plain reader of sampled packets, written from the standards: the oracle of the fast one. No code of the product.

`packet` takes the octets that were sampled and what they begin with, and returns what a flow of this packet says, or None
if no IP header can be reached. It cuts bytes apart and goes down by recursion; the fast one walks with an offset.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

LINKS = {1: "ethernet", 7: "ppp", 9: "llc", 11: "ipv4", 12: "ipv6", 13: "mpls", 14: "ppp", 15: "wifi", 17: "subframe"}
"""sFlow's header protocols; 10 (AAL5 with bare IP) depends on the first octet."""
ETHERTYPES = {0x0800: "ipv4", 0x86DD: "ipv6", 0x8847: "mpls", 0x8848: "mpls", 0x8864: "pppoe", 0x8100: "tag", 0x88A8: "tag",
              0x9100: "tag", 0x9200: "tag"}
PPP_PROTOCOLS = {0x21: "ipv4", 0x57: "ipv6", 0x281: "mpls", 0x283: "mpls"}
MAPPED = bytes(10) + b"\xff\xff"
LAYERS, LABELS, EXTENSIONS, INSIDE = 64, 32, 16, 8
FRAME_OCTETS, INNER_UNREAD = 4, 64


class Unread(Exception):
    """There is more, but it is cut off, too deep or of a form that nobody reads."""


def packet(sampled: bytes, link: str, wire: int, inner: bool) -> dict[str, Any] | None:
    """wire: octets of the packet where it was sampled, for a header without a length."""
    headers: list[dict[str, Any]] = []
    unread = 0
    try:
        for header in walk(link, sampled, 0, LAYERS, False):
            headers.append(header)
            if not inner:
                break
            if len(headers) > INSIDE and header["carries"]:
                raise Unread
    except Unread:
        unread = INNER_UNREAD
    if not headers:
        return None
    found = dict(headers[-1], flags=unread, packets_read=len(headers))
    if found["octets"] == 0:
        found["octets"] = max(wire - found["at"], 0)
        found["flags"] |= FRAME_OCTETS
    del found["at"], found["carries"]
    return found


def walk(kind: str, b: bytes, at: int, budget: int, guessed: bool) -> Iterator[dict[str, Any]]:
    """The IP headers of b, which begins `at` octets into the sample, outermost first."""
    if budget == 0:
        raise Unread
    budget -= 1
    if kind in ("ipv4", "ipv6"):
        header, inside, rest = ipv4(b, guessed) if kind == "ipv4" else ipv6(b)
        tunnel = carried(header, inside)
        header |= {"at": at, "carries": tunnel is not None}
        yield header
        if tunnel is None:
            return
        kind, size = tunnel() if callable(tunnel) else tunnel
        if kind:
            yield from walk(kind, inside[size:], at + rest + size, budget, False)
        return
    kind, size, guess = below_ip(kind, b)
    if kind:
        yield from walk(kind, b[size:], at + size, budget, guessed or guess)


def need(b: bytes, size: int) -> bytes:
    if len(b) < size:
        raise Unread
    return b[:size]


def number(b: bytes) -> int:
    return int.from_bytes(b, "big")


def by_type(field: bytes) -> str:
    value = number(field)
    return "llc" if value <= 1500 else ETHERTYPES.get(value, "")


def below_ip(kind: str, b: bytes) -> tuple[str, int, bool]:
    """(what comes behind this layer, how long the layer is, whether nothing named it)."""
    if kind in ("ethernet", "subframe"):
        return by_type(need(b, 14)[12:]), 14, False
    if kind == "tag":
        return by_type(need(b, 4)[2:]), 4, False
    if kind == "mpls":
        for label in range(LABELS):
            if need(b[4 * label :], 4)[2] % 2 == 1:
                kind, more = mpls_payload(b[4 * label + 4 :])
                return kind, 4 * label + 4 + more, True
        return "", 0, False
    if kind == "mpls payload":
        return *mpls_payload(b), True
    if kind == "pppoe":
        head = need(b, 6)
        return ("ppp" if head[:2] == b"\x11\x00" else ""), 6, False
    if kind == "ppp":
        start = 2 if b[:2] == b"\xff\x03" else 0
        if need(b[start:], 1)[0] % 2 == 1:
            return PPP_PROTOCOLS.get(b[start], ""), start + 1, False
        return PPP_PROTOCOLS.get(number(need(b[start:], 2)), ""), start + 2, False
    if kind == "llc":
        head = need(b, 8)
        snap = head[:6] in (b"\xaa\xaa\x03\0\0\0", b"\xaa\xaa\x03\0\0\xf8") and number(head[6:]) > 1500
        return (by_type(head[6:]) if snap else ""), 8, False
    if kind == "wifi":
        return *wifi(b), False
    return "", 0, False


def mpls_payload(b: bytes) -> tuple[str, int]:
    first = need(b, 1)[0] // 16
    if first == 0:
        return ("ethernet", 4) if need(b, 4)[1] < 64 else ("", 0)
    return {4: "ipv4", 6: "ipv6"}.get(first, ""), 0


def wifi(b: bytes) -> tuple[str, int]:
    head = need(b, 24)
    version, kind, null, quality = head[0] % 4, head[0] // 4 % 4, head[0] & 0x40, head[0] & 0x80
    if version or kind != 2 or null or head[1] & 0x40 or head[22] % 16:
        return "", 0
    size = 30 if head[1] % 4 == 3 else 24
    following = "llc"
    if quality:
        control = need(b, size + 2)[size:]
        following = "subframe" if control[0] & 0x80 else "llc"
        size += 6 if head[1] & 0x80 else 2
    return following, size


def ipv4(b: bytes, guessed: bool) -> tuple[dict[str, Any], bytes, int]:
    """(what it says, what it carries as far as it is there, the length of the header)."""
    head = need(b, 20)
    size = head[0] % 16 * 4
    if head[0] // 16 != 4 or size < 20:
        raise Unread
    if guessed and len(b) >= size and head[10:12] != b"\0\0":
        total = sum(number(b[i : i + 2]) for i in range(0, size, 2))
        while total > 0xFFFF:
            total = total % 0x10000 + total // 0x10000
        if total != 0xFFFF:
            raise Unread
    length = number(head[2:4])
    inside = b[size:length] if length >= size else b[size:]
    header = fields(length, head[1], head[9], MAPPED + head[12:16], MAPPED + head[16:20])
    header["fragment"] = number(head[6:8]) & 0x3FFF != 0
    if not header["fragment"]:
        transport(inside, header)
    return header, inside, size


def ipv6(b: bytes) -> tuple[dict[str, Any], bytes, int]:
    head = need(b, 40)
    if head[0] // 16 != 6:
        raise Unread
    length = number(head[4:6])
    rest = b[40 : 40 + length] if length else b[40:]
    following, fragment, extensions = head[6], False, 0
    size = 40
    while extensions < EXTENSIONS and len(rest) >= 8 and following in (0, 43, 44, 51, 60, 135, 139, 140):
        extensions += 1
        taken = {44: 8, 51: 4 * (rest[1] + 2)}.get(following, 8 * (rest[1] + 1))
        offset = following == 44 and number(rest[2:4]) // 8
        fragment = fragment or (following == 44 and (offset != 0 or rest[3] % 2 == 1))
        following, rest, size = rest[0], rest[taken:], size + taken
        if offset:
            break
    traffic_class = number(head[:2]) // 16 % 256
    header = fields(length + 40 if length or head[6] == 59 else 0, traffic_class, following, head[8:24], head[24:40])
    header["fragment"] = fragment
    if not fragment:
        transport(rest, header)
    return header, rest, size


def fields(octets: int, tos: int, protocol: int, source: bytes, destination: bytes) -> dict[str, Any]:
    return {"octets": octets, "tos": tos, "protocol": protocol, "source_address": source, "destination_address": destination,
            "source_port": 0, "destination_port": 0, "tcp_flags": 0}


def transport(b: bytes, header: dict[str, Any]) -> None:
    protocol = header["protocol"]
    if protocol in (1, 58) and len(b) >= 2:
        header["destination_port"] = number(b[:2])
    elif protocol in (6, 17, 33, 132, 136) and len(b) >= 4:
        header |= {"source_port": number(b[:2]), "destination_port": number(b[2:4])}
        if protocol == 6 and len(b) >= 14:
            header["tcp_flags"] = number(b[12:14]) % 0x1000


def carried(header: dict[str, Any], inside: bytes) -> Any:
    """None if it carries no packet; (what, behind how many octets); or a function that says so and may fail."""
    protocol = header["protocol"]
    fragment = header.pop("fragment")
    if protocol in (4, 41, 47) and fragment:
        return unreadable
    if protocol in (4, 41):
        return {4: "ipv4", 41: "ipv6"}[protocol], 0
    if protocol == 47:
        if len(inside) >= 4 and inside[1] % 8:
            return unreadable
        try:
            kind, size = gre(inside)
        except Unread:
            return unreadable
        return (kind, size) if kind else None
    if protocol == 17 and header["destination_port"] == 4789:
        if len(inside) < 16:
            return unreadable
        return ("ethernet", 16) if inside[8] & 8 else None
    return None


def unreadable() -> tuple[str, int]:
    raise Unread


def gre(b: bytes) -> tuple[str, int]:
    flags, kind = need(b, 4)[0], number(b[2:4])
    size = 4
    size += 4 if flags & 0x80 or flags & 0x40 else 0
    size += 4 if flags & 0x20 else 0
    size += 4 if flags & 0x10 else 0
    while flags & 0x40:
        entry = need(b[size:], 4)
        size += 4 + entry[3]
        if entry[:2] == b"\0\0" and entry[3] == 0:
            break
    if kind == 0x6558:
        return "ethernet", size
    return {0x0800: "ipv4", 0x86DD: "ipv6", 0x8847: "mpls", 0x8848: "mpls"}.get(kind, ""), size
