"""Accounting packets: what they say, whom they are believed, and what is not answered."""

from __future__ import annotations

import hashlib
import hmac
import random
import struct

import pytest

from core.addresses import Prefix, parse_address, parse_prefix
from subscribers.radius.packets import AccountingRequest, Counters, PacketFault, Status, attributes, decode, response

SECRET = b"s3cr3t"


def attribute(kind: int, value: bytes | int | str) -> bytes:
    octets = struct.pack(">I", value) if isinstance(value, int) else value.encode() if isinstance(value, str) else value
    return bytes((kind, len(octets) + 2)) + octets


def packet(*parts: bytes, identifier: int = 7, signed: bool = False, secret: bytes = SECRET, code: int = 4) -> bytes:
    """As a NAS makes it, by the words of RFC 2866 §3 and RFC 5080 §2.2.2."""
    body = b"".join(parts)
    size = 20 + len(body) + (18 if signed else 0)
    head = struct.pack(">BBH", code, identifier, size)
    if signed:
        blank = head + bytes(16) + body + b"\x50\x12" + bytes(16)
        body += b"\x50\x12" + hmac.new(secret, blank, hashlib.md5).digest()
    return head + hashlib.md5(head + bytes(16) + body + secret).digest() + body


START = (attribute(40, 1), attribute(44, "S-1"), attribute(1, "alice"), attribute(4, bytes((192, 0, 2, 1))))


def request(*parts: bytes, **about: bool) -> AccountingRequest:
    found = decode(packet(*START, *parts, **about), SECRET)
    assert isinstance(found, AccountingRequest), found
    return found


def test_a_start_says_who_where_and_with_which_addresses() -> None:
    found = request(
        attribute(8, bytes((198, 51, 100, 7))), attribute(97, b"\x00\x40" + bytes.fromhex("20010db800010000")),
        attribute(123, b"\x00\x38" + bytes.fromhex("20010db8000200")), attribute(168, parse_address("2001:db8::9")),
        attribute(55, 1_790_000_000), attribute(41, 3), attribute(25, b"gold"), attribute(25, b"\xff\x00"),
        attribute(31, "00-11"), attribute(87, "ge-0/0/1"))  # fmt: skip
    assert (found.status, found.nas, found.session, found.user) == (Status.START, "192.0.2.1", "S-1", "alice")
    assert set(found.prefixes) == {
        Prefix(parse_address("198.51.100.7"), 128), Prefix(parse_address("2001:db8::9"), 128),
        parse_prefix("2001:db8:1::/64"), parse_prefix("2001:db8:2::/56")}  # fmt: skip
    assert (found.event_ms, found.delay_seconds, found.classes) == (1_790_000_000_000, 3, (b"gold", b"\xff\x00"))
    assert (found.calling_station, found.nas_port) == ("00-11", "ge-0/0/1")


def test_octets_beyond_32_bits_are_counted_in_gigawords() -> None:
    found = request(attribute(42, 5), attribute(52, 2), attribute(43, 0xFFFFFFFF), attribute(47, 9), attribute(46, 60))
    assert found.counters == Counters(2 * 2**32 + 5, 0xFFFFFFFF, 9, None)
    assert found.seconds == 60


@pytest.mark.parametrize("address", [bytes(4), b"\xff\xff\xff\xff", b"\xff\xff\xff\xfe"])
def test_an_address_that_is_none_yet_is_none(address: bytes) -> None:
    assert request(attribute(8, address)).prefixes == ()


def test_a_name_of_the_nas_goes_before_its_address() -> None:
    assert request(attribute(32, "bras-1")).nas == "bras-1"
    bare = decode(packet(attribute(40, 7), attribute(95, parse_address("2001:db8::1"))), SECRET)
    assert isinstance(bare, AccountingRequest)
    assert (bare.nas, bare.status) == ("2001:db8::1", Status.ACCOUNTING_ON)


def test_what_is_signed_must_be_signed_rightly() -> None:
    assert request(signed=True).user == "alice"
    good = packet(*START, signed=True)
    bad = bytearray(good)
    bad[-1] ^= 1
    head = bytes(bad[:4])
    bad[4:20] = hashlib.md5(head + bytes(16) + bytes(bad[20:]) + SECRET).digest()
    assert decode(bytes(bad), SECRET) == PacketFault.MESSAGE_AUTHENTICATOR
    assert decode(good, b"another") == PacketFault.AUTHENTICATOR


@pytest.mark.parametrize(("data", "fault"), [
    (b"", PacketFault.TOO_SHORT), (packet(*START)[:19], PacketFault.TOO_SHORT),
    (packet(*START)[:30], PacketFault.LENGTH), (packet(*START, code=1), PacketFault.CODE),
    (packet(*START, b"\x1f"), PacketFault.ATTRIBUTE), (packet(*START, b"\x1f\x01"), PacketFault.ATTRIBUTE),
    (packet(*START, b"\x1f\x09abc"), PacketFault.ATTRIBUTE), (packet(*START, attribute(42, b"abc")), PacketFault.ATTRIBUTE),
    (packet(*START, attribute(123, b"\x00\x81" + bytes(16))), PacketFault.ATTRIBUTE),
    (packet(*START, attribute(97, b"\x00\x40" + bytes(7))), PacketFault.ATTRIBUTE),
    (packet(attribute(44, "S"), attribute(40, 99)), PacketFault.STATUS), (packet(attribute(44, "S")), PacketFault.STATUS),
    (packet(attribute(40, 1)), PacketFault.SESSION),
])  # fmt: skip
def test_what_cannot_be_read_is_a_fault_with_a_name(data: bytes, fault: PacketFault) -> None:
    assert decode(data, SECRET) == fault


def test_text_that_is_none_is_written_out() -> None:
    found = decode(packet(attribute(40, 1), attribute(44, b"a\x00b"), attribute(1, b"\xff")), SECRET)
    assert isinstance(found, AccountingRequest)
    assert (found.session, found.user) == ("a\\x00b", "\\xff")


def test_padding_behind_the_packet_is_no_part_of_it() -> None:
    assert isinstance(decode(packet(*START) + bytes(30), SECRET), AccountingRequest)


def test_host_bits_of_a_prefix_are_cleared() -> None:
    assert request(attribute(123, b"\x00\x3c" + bytes.fromhex("20010db80001ffff"))).prefixes == (
        parse_prefix("2001:db8:1:fff0::/60"),)  # fmt: skip


@pytest.mark.parametrize("signed", [False, True])
def test_the_answer_proves_that_we_know_the_secret(signed: bool) -> None:
    asked = request(attribute(33, b"proxy 1"), attribute(33, b"proxy 2"), signed=signed)
    data = response(asked, SECRET)
    assert data[:2] == bytes((5, 7))
    assert int.from_bytes(data[2:4], "big") == len(data)
    assert data[4:20] == hashlib.md5(data[:4] + asked.authenticator + data[20:] + SECRET).digest()
    assert [value for kind, value in attributes(data[20:]) if kind == 33] == [b"proxy 1", b"proxy 2"]
    found = dict(attributes(data[20:]))
    assert (80 in found) == signed
    if signed:
        blank = data[:4] + asked.authenticator + data[20:].replace(found[80] or b"", bytes(16))
        assert found[80] == hmac.new(SECRET, blank, hashlib.md5).digest()


def test_no_octets_can_break_the_reader() -> None:
    source = random.Random(3)
    whole = packet(*START, attribute(8, bytes(4)), attribute(123, b"\x00\x38" + bytes(7)), signed=True)
    for _ in range(20_000):
        data = bytearray(whole)
        for _ in range(source.choice((1, 2, 8))):
            data[source.randrange(len(data))] = source.randrange(256)
        body = bytes(data[20:])
        head = bytes(data[:4])
        proper = head + hashlib.md5(head + bytes(16) + body + SECRET).digest() + body
        assert isinstance(decode(proper[: source.randrange(len(proper) + 1)], SECRET), AccountingRequest | PacketFault)
        assert isinstance(decode(proper, SECRET), AccountingRequest | PacketFault)
