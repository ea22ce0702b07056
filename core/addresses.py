"""IP addresses as 16 bytes in network order; IPv4 is mapped (::ffff:a.b.c.d, RFC 4291 §2.5.5.2)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

IPV4_MAPPED = b"\x00" * 10 + b"\xff\xff"
NO_ADDRESS = b"\x00" * 16

PROTOCOL_NUMBERS = {
    "icmp": 1,
    "igmp": 2,
    "ipip": 4,
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": 58,
    "ospf": 89,
    "sctp": 132,
    "udplite": 136,
}
"""Protocol keywords of the IANA registry that appear in leases and filters."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """A block of addresses: `address` has no bit set beyond `length` (0 to 128, IPv4 lengths are offset by 96)."""

    address: bytes
    length: int

    @property
    def first(self) -> int:
        return int.from_bytes(self.address, "big")

    @property
    def last(self) -> int:
        return self.first | ((1 << (128 - self.length)) - 1)


def parse_address(text: str) -> bytes:
    """'192.0.2.1' or '2001:db8::1' → 16 bytes. Raises ValueError."""
    address = ipaddress.ip_address(text.strip())
    return IPV4_MAPPED + address.packed if address.version == 4 else address.packed


def parse_prefix(text: str) -> Prefix:
    """'198.51.100.0/24', '2001:db8::/48' or a lone address. Raises ValueError, also for set host bits."""
    network = ipaddress.ip_network(text.strip(), strict=True)
    if network.version == 4:
        return Prefix(IPV4_MAPPED + network.network_address.packed, network.prefixlen + 96)
    return Prefix(network.network_address.packed, network.prefixlen)


def format_address(packed: bytes) -> str:
    """16 bytes → text; mapped IPv4 in dotted form."""
    if packed[:12] == IPV4_MAPPED:
        return str(ipaddress.IPv4Address(packed[12:]))
    return str(ipaddress.IPv6Address(packed))


def format_prefix(prefix: Prefix) -> str:
    if prefix.address[:12] == IPV4_MAPPED and prefix.length >= 96:
        return f"{format_address(prefix.address)}/{prefix.length - 96}"
    return f"{format_address(prefix.address)}/{prefix.length}"


def parse_protocol(text: str) -> int:
    """A protocol keyword or number → number. Raises ValueError."""
    word = text.strip().lower()
    if word in PROTOCOL_NUMBERS:
        return PROTOCOL_NUMBERS[word]
    if word.isascii() and word.isdigit() and int(word) <= 255:
        return int(word)
    raise ValueError(f"'{text}' is neither a protocol number nor one of {', '.join(PROTOCOL_NUMBERS)}")
