"""RADIUS accounting packets (RFC 2866, 2869, 3162, 4818, 6911) ↔ what they say, without any I/O.

A request proves that its sender knows the secret: its authenticator is a digest over the packet and the secret, and so is the
Message-Authenticator where there is one (RFC 5080 §2.2.2). What can't be believed or read is a fault with a name, never an
exception: packets come from a network.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from core.addresses import IPV4_MAPPED, Prefix, format_address

ACCOUNTING_REQUEST, ACCOUNTING_RESPONSE = 4, 5
HEADER = struct.Struct(">BBH16s")
PACKET_SIZE_MIN, PACKET_SIZE_MAX = 20, 4096
_MESSAGE_AUTHENTICATOR = 80
_NO_AUTHENTICATOR = bytes(16)


class Status(IntEnum):
    """Acct-Status-Type."""

    START = 1
    STOP = 2
    INTERIM = 3
    ACCOUNTING_ON = 7
    ACCOUNTING_OFF = 8


class PacketFault(StrEnum):
    """Why a packet is not answered (RFC 2865 §3, RFC 2866 §4.1: it is silently discarded; here it is counted)."""

    TOO_SHORT = "too_short"
    LENGTH = "length"
    CODE = "code"
    AUTHENTICATOR = "authenticator"
    MESSAGE_AUTHENTICATOR = "message_authenticator"
    ATTRIBUTE = "attribute"
    STATUS = "status"
    SESSION = "session"


@dataclass(frozen=True, slots=True)
class Counters:
    """What a session has moved since it began: cumulative, seen from the NAS; None where it does not say."""

    input_octets: int | None = None
    output_octets: int | None = None
    input_packets: int | None = None
    output_packets: int | None = None


@dataclass(frozen=True, slots=True)
class AccountingRequest:
    """What a NAS reports."""

    identifier: int
    authenticator: bytes
    status: Status
    nas: str
    """NAS-Identifier, else the NAS's address, else the empty text: then the sender's address stands for it."""
    session: str = ""
    user: str = ""
    prefixes: tuple[Prefix, ...] = ()
    """Framed-IP-Address and Framed-IPv6-Address as single addresses; framed, delegated and routed prefixes."""
    delay_seconds: int = 0
    event_ms: int | None = None
    seconds: int | None = None
    counters: Counters = field(default_factory=Counters)
    cause: int | None = None
    classes: tuple[bytes, ...] = ()
    calling_station: str = ""
    nas_port: str = ""
    proxy_states: tuple[bytes, ...] = ()
    """To be sent back as they are (RFC 2865 §5.33)."""
    is_signed: bool = False


# reading --------------------------------------------------------------------------------------------------------------
def decode(data: bytes, secret: bytes) -> AccountingRequest | PacketFault:
    """A packet as it came. Octets behind its length are padding (RFC 2865 §3)."""
    if len(data) < PACKET_SIZE_MIN:
        return PacketFault.TOO_SHORT
    code, identifier, length, authenticator = HEADER.unpack_from(data)
    if code != ACCOUNTING_REQUEST:
        return PacketFault.CODE
    if not PACKET_SIZE_MIN <= length <= min(len(data), PACKET_SIZE_MAX):
        return PacketFault.LENGTH
    packet = data[:length]
    expected = hashlib.md5(packet[:4] + _NO_AUTHENTICATOR + packet[20:] + secret, usedforsecurity=False).digest()
    if not hmac.compare_digest(expected, authenticator):
        return PacketFault.AUTHENTICATOR
    found = list(attributes(packet[20:]))
    if (not found and len(packet) > PACKET_SIZE_MIN) or any(value is None for _, value in found):
        return PacketFault.ATTRIBUTE
    if not _is_signed(packet, secret):
        return PacketFault.MESSAGE_AUTHENTICATOR
    return _request(identifier, authenticator, [(kind, value) for kind, value in found if value is not None])


def attributes(body: bytes) -> Iterator[tuple[int, bytes | None]]:
    """(type, value) in order; the value of one whose length is wrong is None, and nothing comes after it."""
    at = 0
    while at < len(body):
        kind, size = body[at], body[at + 1] if at + 1 < len(body) else 0
        if size < 2 or at + size > len(body):
            yield kind, None
            return
        yield kind, body[at + 2 : at + size]
        at += size


def _is_signed(packet: bytes, secret: bytes) -> bool:
    """Whether a Message-Authenticator, if there is one, is right: over the packet with zeros in its and the header's place."""
    at = 20
    while at < len(packet):
        if packet[at] == _MESSAGE_AUTHENTICATOR:
            if packet[at + 1] != 18:
                return False
            blank = packet[:4] + _NO_AUTHENTICATOR + packet[20 : at + 2] + bytes(16) + packet[at + 18 :]
            return hmac.compare_digest(hmac.digest(secret, blank, "md5"), packet[at + 2 : at + 18])
        at += packet[at + 1]
    return True


def _request(identifier: int, authenticator: bytes, found: list[tuple[int, bytes]]) -> AccountingRequest | PacketFault:
    values: dict[int, list[bytes]] = {}
    for kind, value in found:
        values.setdefault(kind, []).append(value)
    for kind, size in _SIZES.items():
        if any(len(value) != size for value in values.get(kind, ())):
            return PacketFault.ATTRIBUTE
    prefixes = [_prefix(kind, value) for kind in _PREFIXES for value in values.get(kind, ())]
    if None in prefixes:
        return PacketFault.ATTRIBUTE

    def number(kind: int) -> int | None:
        return int.from_bytes(values[kind][0], "big") if kind in values else None

    def text(kind: int) -> str:
        return _readable(values[kind][0]) if kind in values else ""

    def count(low: int, high: int) -> int | None:
        words = number(low)
        return None if words is None else ((number(high) or 0) << 32) | words

    status = number(40)
    if status is None or status not in Status.__members__.values():
        return PacketFault.STATUS
    event = number(55)
    request = AccountingRequest(
        identifier, authenticator, Status(status), _nas(values), text(44), text(1),
        tuple(dict.fromkeys([*_single_addresses(values), *(prefix for prefix in prefixes if prefix is not None)])),
        number(41) or 0, None if event is None else event * 1000, number(46),
        Counters(count(42, 52), count(43, 53), number(47), number(48)), number(49), tuple(values.get(25, ())), text(31),
        text(87) or str(number(5) if number(5) is not None else ""), tuple(values.get(33, ())),
        _MESSAGE_AUTHENTICATOR in values)
    is_about_a_session = request.status not in (Status.ACCOUNTING_ON, Status.ACCOUNTING_OFF)
    return PacketFault.SESSION if is_about_a_session and not request.session else request


def _readable(value: bytes) -> str:
    """Text as a database can hold it: what is no UTF-8, and NUL, written out."""
    return value.decode("utf-8", "backslashreplace").replace("\x00", "\\x00")


_SIZES = {4: 4, 5: 4, 8: 4, 40: 4, 41: 4, 42: 4, 43: 4, 46: 4, 47: 4, 48: 4, 49: 4, 52: 4, 53: 4, 55: 4, 95: 16, 168: 16}
"""Attributes of one size: numbers, instants and addresses."""
_PREFIXES = (97, 123)  # Framed-IPv6-Prefix, Delegated-IPv6-Prefix
_UNSET = (bytes(4), b"\xff\xff\xff\xff", b"\xff\xff\xff\xfe")
"""Framed-IP-Address: none, and what asks the user or the NAS to choose one (RFC 2865 §5.8)."""


def _nas(values: dict[int, list[bytes]]) -> str:
    if 32 in values:
        return _readable(values[32][0])
    if 4 in values:
        return format_address(IPV4_MAPPED + values[4][0])
    return format_address(values[95][0]) if 95 in values else ""


def _single_addresses(values: dict[int, list[bytes]]) -> list[Prefix]:
    four = [Prefix(IPV4_MAPPED + value, 128) for value in values.get(8, ()) if value not in _UNSET]
    return four + [Prefix(value, 128) for value in values.get(168, ())]


def _prefix(_kind: int, value: bytes) -> Prefix | None:
    """Reserved octet, length, and as many octets of the prefix as it needs (RFC 3162 §2.3); None if they do not fit."""
    if not 2 <= len(value) <= 18 or value[1] > 128 or len(value) - 2 < (value[1] + 7) // 8:
        return None
    length = value[1]
    whole = int.from_bytes(value[2:].ljust(16, b"\x00"), "big")
    return Prefix((whole >> (128 - length) << (128 - length)).to_bytes(16, "big"), length)


# answering ------------------------------------------------------------------------------------------------------------
def response(request: AccountingRequest, secret: bytes) -> bytes:
    """The Accounting-Response that acknowledges a request; signed, if the request was (RFC 5080 §2.2.2)."""
    states = b"".join(bytes((33, len(value) + 2)) + value for value in request.proxy_states)
    body = (bytes((_MESSAGE_AUTHENTICATOR, 18)) + bytes(16) if request.is_signed else b"") + states
    head = struct.pack(">BBH", ACCOUNTING_RESPONSE, request.identifier, PACKET_SIZE_MIN + len(body))
    if request.is_signed:
        body = body[:2] + hmac.digest(secret, head + request.authenticator + body, "md5") + states
    return head + hashlib.md5(head + request.authenticator + body + secret, usedforsecurity=False).digest() + body
