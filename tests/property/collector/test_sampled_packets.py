"""Sampled packets that scapy builds, whole, cut off anywhere and damaged, against what was built and against the oracle."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import frames as f
import pytest
from exports import framed, ipfix, template
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_bodies import Datagram
from oracles.collector.test_decoder_against_oracle import compare, flow_rows

DATAGRAM_SAMPLES = 12


@dataclass
class Built:
    """A packet, and the IP headers in it, outermost first: (source, destination, protocol, ports, octets)."""

    frame: bytes = b""
    headers: list[tuple[bytes, bytes, int, int, int, int]] = field(default_factory=list)


def build(source: random.Random) -> Built:
    """A frame of random layers."""
    from scapy.layers.l2 import Dot1AD, Dot1Q

    built = Built()
    packet = ether()
    for _ in range(source.choice([0, 0, 1, 2, 5])):
        packet /= source.choice([Dot1Q, Dot1AD])(vlan=source.randrange(4096))
    packet = packet / below(source, built, source.choice([0, 0, 1, 2, 3]))
    built.frame = bytes(packet)
    return built


def ether() -> Any:
    from scapy.layers.l2 import Ether

    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def below(source: random.Random, built: Built, tunnels: int) -> Any:
    """What an Ethernet frame carries."""
    from scapy.contrib.mpls import MPLS
    from scapy.layers.ppp import PPP, PPPoE

    inner = packet_of(source, built, tunnels)
    kind = source.randrange(4)
    if kind == 0:
        depth = source.randrange(1, 5)
        stack = MPLS(label=source.randrange(16, 2**20), s=int(depth == 1))
        for n in range(1, depth):
            stack /= MPLS(label=source.randrange(16, 2**20), s=int(n == depth - 1))
        return stack / inner
    if kind == 1:
        return PPPoE(sessionid=7) / PPP(proto=0x0021 if inner.name == "IP" else 0x0057) / inner
    return inner


def packet_of(source: random.Random, built: Built, tunnels: int) -> Any:
    """An IP packet with so many others in it. The headers are noted from the outside in: they are made last, so first the
    place is kept."""
    from scapy.layers.inet import IP, IPOption_NOP
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting

    place = len(built.headers)
    built.headers.append((b"", b"", 0, 0, 0, 0))
    payload, protocol, ports = payload_of(source, built, tunnels)
    if source.random() < 0.5:
        addresses = [f"{source.randrange(1, 224)}.{source.randrange(256)}.3.4" for _ in range(2)]
        options = [IPOption_NOP()] * source.choice([0, 0, 0, 4, 8])
        packet: Any = IP(src=addresses[0], dst=addresses[1], proto=protocol, options=options) / payload
    else:
        addresses = [f"2001:db8:{source.randrange(1, 65536):x}::{source.randrange(1, 65536):x}" for _ in range(2)]
        packet = IPv6(src=addresses[0], dst=addresses[1])
        headers = source.choice([[], [], [IPv6ExtHdrHopByHop()], [IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(id=1)],
                                 [IPv6ExtHdrHopByHop(), IPv6ExtHdrRouting(addresses=["::1"])]])
        for header in headers:
            packet /= header.copy()
        packet.lastlayer().nh = protocol
        packet /= payload
    octets = len(bytes(packet))
    if protocol in (1, 58):
        ports = (0, int.from_bytes(bytes(payload)[:2], "big"))
    built.headers[place] = (f.mapped(addresses[0]), f.mapped(addresses[1]), protocol, *ports, octets)
    return packet


def payload_of(source: random.Random, built: Built, tunnels: int) -> tuple[Any, int, tuple[int, int]]:
    """(what an IP packet carries, its protocol, its ports)."""
    from scapy.layers.inet import ICMP, TCP, UDP
    from scapy.layers.l2 import GRE, Dot1Q
    from scapy.layers.vxlan import VXLAN
    from scapy.packet import Raw

    raw = Raw(bytes(source.randrange(256) for _ in range(source.choice([1, 30, 100]))))
    if tunnels == 0:
        ports = source.randrange(1, 65536), source.choice([53, 80, 443, 50000])
        kind = source.randrange(4)
        if kind == 0:
            return TCP(sport=ports[0], dport=ports[1], flags="SA") / raw, 6, ports
        if kind == 1:
            return UDP(sport=ports[0], dport=ports[1]) / raw, 17, ports
        if kind == 2:
            return ICMP(type=8, code=3) / raw, 1, (0, 0)
        return raw, 50, (0, 0)
    kind = source.randrange(4)
    if kind == 0:
        frame = (ether() / Dot1Q(vlan=5) if source.random() < 0.3 else ether()) / below(source, built, tunnels - 1)
        return UDP(sport=50000, dport=4789) / VXLAN(vni=7, flags="Instance") / frame, 17, (50000, 4789)
    if kind == 1:
        inner = packet_of(source, built, tunnels - 1)
        optional = {name: 1 for name in ("chksum_present", "key_present", "seqnum_present") if source.random() < 0.5}
        return GRE(proto=0x0800 if inner.name == "IP" else 0x86DD, **optional) / inner, 47, (0, 0)
    if kind == 2:
        return GRE(proto=0x6558, key_present=1) / ether() / below(source, built, tunnels - 1), 47, (0, 0)
    inner = packet_of(source, built, tunnels - 1)
    return inner, 4 if inner.name == "IP" else 41, (0, 0)


def as_samples(frames: list[bytes], length: int | None = None) -> Datagram:
    return Datagram(f.sflow(*(f.flow_sample(f.raw_header(frame, length=length)) for frame in frames)))


def as_records(frames: list[bytes]) -> Datagram:
    """The same as IPFIX records with a dataLinkFrameSection of variable length."""
    records = b"".join(b"\xff" + struct.pack(">H", len(frame)) + frame for frame in frames)
    return Datagram(ipfix(framed(2, template(256, [(315, 65535)])), framed(256, records)))


@cache
def built() -> list[Built]:
    """Frames of every shape; they are dear to make, so they are made once."""
    source = random.Random(7)
    return [build(source) for _ in range(int(os.environ.get("RATEMILL_NIGHTLY", "0")) * 2000 + 150)]


@pytest.mark.parametrize("tunnels", ["outer", "inner"])
@pytest.mark.parametrize("sent_as", [as_samples, as_records])
def test_the_flow_is_the_header_that_was_built(tunnels: str, sent_as: Callable[[list[bytes]], Datagram]) -> None:
    for at in range(0, len(built()), DATAGRAM_SAMPLES):
        every = built()[at : at + DATAGRAM_SAMPLES]
        flows = flow_rows(compare([sent_as([one.frame for one in every])], tunnels))
        found = [(flow["source_address"], flow["destination_address"], flow["protocol"], flow["source_port"],
                  flow["destination_port"], flow["octets"]) for flow in flows]
        assert found == [one.headers[0 if tunnels == "outer" else -1] for one in every]
        assert {flow["flags"] for flow in flows} == {0}
        assert {flow["packets"] for flow in flows} == {1}
    assert len({len(one.headers) for one in built()}) == 4, "no tunnel, and up to three"


@pytest.mark.parametrize("tunnels", ["outer", "inner"])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_cut_off_and_damaged_packets_are_read_as_the_oracle_reads_them(tunnels: str, seed: int) -> None:
    source = random.Random(seed)
    frames = []
    for one in source.sample(built(), DATAGRAM_SAMPLES):
        frame = bytearray(one.frame)
        for _ in range(source.choice([0, 0, 1, 3])):
            frame[source.randrange(len(frame))] = source.choice([0, 1, 4, 6, 0x45, 0x60, 0x81, 0xFF, source.randrange(256)])
        frames.append(bytes(frame[: source.choice([len(frame), source.randrange(1, len(frame)), 128, 64])]))
    compare([as_samples(frames, source.choice([None, 0, 64, 9018])), as_records(frames)], tunnels)


_PIECES = """
    81000001 0800 86dd 8847 00011140 00011040 8864110000010050 0021 ff03 aaaa030000000800 000000000000000000000000 00000000
    450000640000000040 040000 2f0000 110000 0000000000000000 00006558 6000000000500440 6000000000000040
    c35012b50040000008000000000007 00 06 ff
"""
PIECES = [bytes.fromhex(piece) for piece in _PIECES.split()]
"""EtherTypes, labels, parts of IP, UDP, VXLAN, GRE, PPPoE, PPP and LLC headers."""


@pytest.mark.parametrize("tunnels", ["outer", "inner"])
@given(packets=st.lists(st.tuples(st.sampled_from([1, 5, 7, 9, 10, 11, 12, 13, 14, 15, 17]),
                                  st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join)), min_size=1, max_size=8))
@settings(max_examples=80, deadline=None)
def test_pieces_of_headers_in_any_order_are_read_as_the_oracle_reads_them(
        tunnels: str, packets: list[tuple[int, bytes]]) -> None:
    samples = [f.flow_sample(f.raw_header(packet, protocol, length=500, stripped=4)) for protocol, packet in packets]
    compare([Datagram(f.sflow(*samples))], tunnels)


@st.composite
def any_samples(draw: st.DrawFn) -> list[bytes]:
    """Samples of every kind whose lengths and counts may lie."""
    header = f.raw_header(f.ethernet(f.ipv4(f.tcp())), length=draw(st.sampled_from([0, 60, 2**32 - 1])),
                          held=draw(st.sampled_from([None, None, 0, 33, 2**32 - 1])))
    records = [header, f.interface_counters(3, draw(st.sampled_from([0, 1, 2**64 - 1])), draw(st.integers(0, 2**64 - 1))),
               f.record(1002, bytes(8)), f.record(1003, draw(st.binary(max_size=40))),
               f.record(draw(st.sampled_from([1, 2, 3, 4, 1001, 2**32 - 1])), draw(st.binary(max_size=100)),
                        draw(st.sampled_from([None, 0, 7, 2**32 - 1])))]
    samples = []
    for _ in range(draw(st.integers(1, 5))):
        chosen = draw(st.lists(st.sampled_from(records), max_size=4))
        count = draw(st.sampled_from([None, None, 0, 1, 2**32 - 1]))
        samples.append(draw(st.sampled_from([
            f.flow_sample(*chosen, count=count), f.expanded_flow_sample(*chosen), f.counter_sample(*chosen, count=count),
            f.expanded_counter_sample(*chosen), f.drop_sample(*chosen), f.record(9 << 12 | 1, b"".join(chosen))])))
    return samples


@given(any_samples(), st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_samples_of_every_kind_are_read_as_the_oracle_reads_them(samples: list[bytes], cut: int) -> None:
    payload = f.sflow(*samples)
    compare([Datagram(payload[: len(payload) - cut])])
