"""Sampled packets: which header makes the flow, and how many octets it has. Made by hand, a case for every branch."""

from __future__ import annotations

import struct
from typing import Any

import frames as f
import pytest
from journal_bodies import Datagram, body_of

from collector import layout
from collector.decoder import Decoded, Decoder
from collector.kernels import codes, packets
from collector.settings import Collector, CollectorSettings
from core.schemas import FlowFlag

TCP = f.tcp()
PLAIN = f.ipv4(TCP)  # 40 octets
PLAIN6 = f.ipv6(TCP)  # 60 octets
LONG = f.ipv4(TCP, total=1400)


def decode(*samples_: bytes, tunnels: str = "outer") -> Decoded:
    settings = CollectorSettings(collector=Collector(tunnels=tunnels))
    return Decoder(settings).feed(body_of([Datagram(f.sflow(*samples_))]), 0)


def flow_of(frame: bytes, protocol: int = 1, tunnels: str = "outer", **header: Any) -> dict[str, Any] | None:
    """The flow of one sampled header, None if it is none."""
    decoded = decode(f.flow_sample(f.raw_header(frame, protocol, **header)), tunnels=tunnels)
    assert decoded.counts.data_records == decoded.counts.flows + decoded.counts.not_a_flow == 1
    assert decoded.faults == []
    if decoded.counts.not_a_flow:
        return None
    return {name: bytes(column[0]) if column.ndim == 2 else int(column[0]) for name, column in decoded.flows.items()}


def is_plain(flow: dict[str, Any] | None, octets: int = 40, flags: int = 0) -> bool:
    """Whether it is the flow of PLAIN."""
    return flow is not None and (
        flow["source_address"], flow["destination_address"], flow["source_port"], flow["destination_port"], flow["protocol"],
        flow["tcp_flags"], flow["octets"], flow["packets"], flow["flags"],
    ) == (f.mapped(f.SOURCE), f.mapped(f.DESTINATION), 1234, 80, 6, 0x12, octets, 1, flags)


def is_plain6(flow: dict[str, Any] | None, octets: int = 60) -> bool:
    return flow is not None and (
        flow["source_address"], flow["destination_address"], flow["source_port"], flow["destination_port"], flow["protocol"],
        flow["octets"],
    ) == (f.mapped(f.SOURCE6), f.mapped(f.DESTINATION6), 1234, 80, 6, octets)


def is_outer(flow: dict[str, Any] | None, protocol: int, octets: int, flags: int = 0) -> bool:
    """Whether it is the flow of the packet around another."""
    return flow is not None and (
        flow["source_address"], flow["destination_address"], flow["protocol"], flow["octets"], flow["flags"],
    ) == (f.mapped(f.TUNNEL_SOURCE), f.mapped(f.TUNNEL_DESTINATION), protocol, octets, flags)


def test_flags_of_the_kernels_are_the_schemas() -> None:
    names = {"LAYER2_OCTETS": "LAYER2"}
    for name, flag in FlowFlag.__members__.items():
        assert getattr(codes, names.get(name, name)) == flag
    assert codes.AHEAD_UNIT == layout.AHEAD_UNIT


# layers below IP ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("frame", [
    f.ethernet(PLAIN),
    f.ethernet(PLAIN, tags=(0x8100,)),
    f.ethernet(PLAIN, tags=(0x88A8, 0x8100)),
    f.ethernet(PLAIN, tags=(0x9100, 0x9200, 0x8100)),
    f.ethernet(PLAIN, tags=(0x8100,) * 40),
    f.ethernet(f.mpls(PLAIN, 17), 0x8847),
    f.ethernet(f.mpls(PLAIN, 0), 0x8847),
    f.ethernet(f.mpls(PLAIN, *range(16, 48)), 0x8847),
    f.ethernet(f.mpls(PLAIN, 17), 0x8848),
    f.ethernet(f.mpls(PLAIN, 17), 0x8847, tags=(0x8100,)),
    f.ethernet(f.mpls(bytes(4) + f.ethernet(PLAIN), 17, 18), 0x8847),
    f.ethernet(f.mpls(b"\0\0\0\x2a" + f.ethernet(PLAIN, tags=(0x8100, 0x8100)), 17), 0x8847),
    f.ethernet(f.mpls(bytes(4) + f.ethernet(f.mpls(PLAIN, 30), 0x8847), 17), 0x8847),
    f.ethernet(f.pppoe(PLAIN), 0x8864),
    f.ethernet(f.pppoe(PLAIN), 0x8864, tags=(0x88A8, 0x8100)),
    f.ethernet(f.pppoe(f.mpls(PLAIN, 9), 0x0281), 0x8864),
    f.ethernet(f.mpls(bytes(4) + f.ethernet(f.pppoe(PLAIN), 0x8864), 17), 0x8847),
    f.ethernet(f.llc(PLAIN), 48),
    f.ethernet(f.llc(PLAIN, head=b"\xaa\xaa\x03\0\0\xf8"), 48),
    f.ethernet(f.llc(f.pppoe(PLAIN), 0x8864), 60, tags=(0x8100,)),
])
def test_the_packet_is_found_behind_every_layer(frame: bytes) -> None:
    assert is_plain(flow_of(frame))


def test_ipv6_is_found_behind_the_same_layers() -> None:
    for frame in (f.ethernet(PLAIN6, 0x86DD), f.ethernet(PLAIN6, 0x86DD, tags=(0x88A8, 0x8100)),
                  f.ethernet(f.mpls(PLAIN6, 17, 2), 0x8847), f.ethernet(f.pppoe(PLAIN6, 0x0057), 0x8864),
                  f.ethernet(f.llc(PLAIN6, 0x86DD), 68)):
        assert is_plain6(flow_of(frame))


@pytest.mark.parametrize(("protocol", "header"), [
    (11, PLAIN), (10, PLAIN), (13, f.mpls(PLAIN, 16, 17)), (7, b"\x00\x21" + PLAIN), (7, b"\xff\x03\x00\x21" + PLAIN),
    (7, b"\x21" + PLAIN), (14, b"\xff\x03\x00\x21" + PLAIN), (14, b"\xff\x03\x02\x81" + f.mpls(PLAIN, 3)), (9, f.llc(PLAIN)),
    (15, f.wifi(f.llc(PLAIN))), (15, f.wifi(f.llc(PLAIN), 0x88, quality=bytes(2))),
    (15, f.wifi(f.llc(PLAIN), flags=0x03)), (15, f.wifi(f.llc(PLAIN), 0x88, 0x81, quality=bytes(6))),
    (15, f.wifi(f.ethernet(f.llc(PLAIN), 48), 0x88, quality=b"\x80\0")), (17, f.ethernet(f.llc(PLAIN), 48)),
])
def test_every_header_protocol_that_leads_to_ip_is_read(protocol: int, header: bytes) -> None:
    assert is_plain(flow_of(header, protocol))


def test_bare_ipv6_headers_are_read() -> None:
    assert is_plain6(flow_of(PLAIN6, 12))
    assert is_plain6(flow_of(PLAIN6, 10))
    assert is_plain6(flow_of(b"\x00\x57" + PLAIN6, 7))


@pytest.mark.parametrize(("protocol", "header"), [
    (1, f.ethernet(bytes(46), 0x0806)), (1, f.ethernet(bytes(46), 0x88CC)), (1, f.ethernet(f.pppoe(PLAIN), 0x8863)),
    (1, f.ethernet(f.pppoe(PLAIN, first=0x2100), 0x8864)), (1, f.ethernet(f.pppoe(PLAIN, first=0x1109), 0x8864)),
    (1, f.ethernet(f.pppoe(PLAIN, 0xC021), 0x8864)), (1, f.ethernet(PLAIN6)), (1, f.ethernet(PLAIN, 0x86DD)),
    (1, f.ethernet(b"\x42" + PLAIN[1:])), (1, f.ethernet(f.llc(PLAIN, head=b"\xaa\xaa\x03\0\0\x01"), 48)),
    (1, f.ethernet(f.llc(PLAIN, head=b"\x42\x42\x03\0\0\0"), 48)), (1, f.ethernet(f.llc(PLAIN, 60), 48)),
    (1, f.ethernet(f.mpls(b"\x10\0\0\0" + PLAIN, 13), 0x8847)), (1, f.ethernet(f.mpls(f.ethernet(PLAIN), 17), 0x8847)),
    (1, f.ethernet(f.mpls(b"\0\x40\0\0" + f.ethernet(PLAIN), 17), 0x8847)), (1, f.ethernet(f.mpls(b"", 17), 0x8847)),
    (1, f.ethernet(f.mpls(bytes(4) + f.ethernet(bytes(46), 0x88B5), 17), 0x8847)),
    (1, f.ethernet(f.mpls(PLAIN, *range(16, 49)), 0x8847)), (1, f.ethernet(PLAIN, tags=(0x8100,) * 64)),
    (13, struct.pack(">I", 17 << 12) + PLAIN), (2, PLAIN), (5, PLAIN), (0, PLAIN), (11, PLAIN6), (12, PLAIN), (99, PLAIN),
    (7, b"\xc0\x21" + PLAIN), (7, b"\xff\x03"), (9, f.llc(PLAIN, 0x0806)), (15, f.wifi(f.llc(PLAIN), 0x80)),
    (15, f.wifi(f.llc(PLAIN), 0x48)), (15, f.wifi(f.llc(PLAIN), flags=0x41)), (15, f.wifi(f.llc(PLAIN), fragment=1)),
    (15, f.wifi(b"", 0x88)), (1, b""),
])
def test_what_does_not_lead_to_ip_is_not_a_flow(protocol: int, header: bytes) -> None:
    assert flow_of(header, protocol) is None


def test_an_ethernet_pseudowire_without_control_word_is_no_ipv4_packet_by_its_mac_address() -> None:
    """Its destination begins with 4: the checksum of what would be an IPv4 header tells."""
    frame = b"\x45\x04\x06\x08\x0a\x0c" + b"\x02\x14\x16\x18\x1a\x1c" + b"\x08\0" + LONG
    assert flow_of(f.ethernet(f.mpls(frame, 17), 0x8847)) is None
    without = LONG[:10] + b"\0\0" + LONG[12:]
    assert is_plain(flow_of(f.ethernet(f.mpls(without, 17), 0x8847)), 1400), "none is no wrong one"
    wrong = LONG[:10] + b"\1\1" + LONG[12:]
    assert is_plain(flow_of(f.ethernet(wrong)), 1400), "an EtherType has said what it is"


# octets ---------------------------------------------------------------------------------------------------------------
def test_octets_are_the_ip_total_length_whatever_the_frame_says() -> None:
    for length in (0, 60, 1418, 1522, 0xFFFFFFFF):
        for stripped in (0, 4, 0xFFFFFFFF):
            assert is_plain(flow_of(f.ethernet(LONG, tags=(0x8100,)), length=length, stripped=stripped), 1400)


def test_the_padding_of_a_short_frame_does_not_count() -> None:
    assert is_plain(flow_of(f.ethernet(PLAIN) + bytes(6), length=64, stripped=4))


def test_what_lies_behind_the_packet_has_no_ports() -> None:
    flow = flow_of(f.ethernet(f.ipv4(b"", 6) + TCP))
    assert flow is not None
    assert (flow["source_port"], flow["destination_port"], flow["tcp_flags"]) == (0, 0, 0)


@pytest.mark.parametrize(("frame", "behind"), [
    (f.ethernet(f.ipv4(TCP, total=0)), 14), (f.ethernet(f.ipv4(TCP, total=0), tags=(0x88A8, 0x8100)), 22),
    (f.ethernet(f.mpls(f.ipv4(TCP, total=0), 16, 17), 0x8847), 22), (f.ethernet(f.pppoe(f.ipv4(TCP, total=0)), 0x8864), 22)])
def test_without_a_total_length_the_frame_less_stripped_and_layer_2_counts(frame: bytes, behind: int) -> None:
    assert is_plain(flow_of(frame, length=9018, stripped=4), 9018 - 4 - behind, FlowFlag.FRAME_OCTETS)
    assert is_plain(flow_of(frame, length=10, stripped=4), 0, FlowFlag.FRAME_OCTETS)
    assert is_plain(flow_of(frame, length=10, stripped=0xFFFFFFFF), 0, FlowFlag.FRAME_OCTETS)


def test_a_jumbogram_counts_its_frame() -> None:
    assert is_plain6(flow_of(f.ethernet(f.ipv6(TCP, length=0), 0x86DD), length=70_018, stripped=4), 70_000)


def test_an_ipv6_packet_without_payload_has_its_header_s_octets() -> None:
    flow = flow_of(f.ethernet(f.ipv6(b"", 59), 0x86DD) + bytes(6), length=64, stripped=4)
    assert flow is not None
    assert (flow["octets"], flow["flags"]) == (40, 0)


# IPv4 and IPv6 --------------------------------------------------------------------------------------------------------
def test_options_of_ipv4_are_stepped_over() -> None:
    assert is_plain(flow_of(f.ethernet(f.ipv4(TCP, options=bytes(40)))), 80)


@pytest.mark.parametrize("fragment", [0x2000, 0x0001, 0x2003])
def test_fragments_of_ipv4_have_no_ports(fragment: int) -> None:
    flow = flow_of(f.ethernet(f.ipv4(TCP, fragment=fragment)))
    assert flow is not None
    assert (flow["protocol"], flow["source_port"], flow["destination_port"], flow["tcp_flags"]) == (6, 0, 0, 0)


def test_do_not_fragment_is_no_fragment() -> None:
    assert is_plain(flow_of(f.ethernet(f.ipv4(TCP, fragment=0x4000))))


@pytest.mark.parametrize("payload", [
    (0, f.extension(6) + TCP), (0, f.extension(43) + f.extension(60, 24) + f.extension(6) + TCP),
    (51, f.authentication(6) + TCP), (135, f.extension(139) + f.extension(140, 16) + f.extension(6) + TCP),
    (44, f.fragment6(6) + TCP),
])
def test_extension_headers_lead_to_the_ports(payload: tuple[int, bytes]) -> None:
    following, octets = payload
    assert is_plain6(flow_of(f.ethernet(f.ipv6(octets, following), 0x86DD)), 40 + len(octets))


@pytest.mark.parametrize(("following", "payload", "protocol"), [
    (44, f.fragment6(6, more=True) + TCP, 6), (44, f.fragment6(6, offset=9) + TCP, 6),
    (44, f.fragment6(60, offset=9) + f.extension(6) + TCP, 60), (50, bytes(30), 50), (59, b"", 59),
    (0, f.extension(43, 2000)[:100], 43), (0, f.extension(6)[:5], 0),
])
def test_an_ipv6_packet_without_readable_ports_keeps_the_protocol_that_is_known(following: int, payload: bytes,
                                                                                protocol: int) -> None:
    flow = flow_of(f.ethernet(f.ipv6(payload, following, length=1000), 0x86DD))
    assert flow is not None
    assert (flow["protocol"], flow["source_port"], flow["destination_port"], flow["octets"]) == (protocol, 0, 0, 1040)


def test_a_chain_of_extension_headers_is_bounded() -> None:
    chain = f.extension(0) * (packets.EXTENSIONS_MAX + 1) + f.extension(6) + TCP
    flow = flow_of(f.ethernet(f.ipv6(chain, 0), 0x86DD))
    assert flow is not None
    assert (flow["protocol"], flow["source_port"]) == (0, 0)


@pytest.mark.parametrize(("packet", "protocol", "ports"), [
    (f.ipv4(b"\x08\x01" + bytes(6), 1), 1, (0, 0x0801)), (f.ipv4(f.udp(), 17), 17, (1234, 53)),
    (f.ipv4(struct.pack(">HHI", 7, 8, 9), 132), 132, (7, 8)), (f.ipv4(struct.pack(">HHI", 7, 8, 9), 33), 33, (7, 8)),
    (f.ipv4(struct.pack(">HHI", 7, 8, 9), 136), 136, (7, 8)), (f.ipv4(bytes(8), 2), 2, (0, 0)), (f.ipv4(b"\x08", 1), 1, (0, 0)),
    (f.ipv4(b"\0\1\2", 17), 17, (0, 0)),
])
def test_ports_by_protocol(packet: bytes, protocol: int, ports: tuple[int, int]) -> None:
    flow = flow_of(f.ethernet(packet))
    assert flow is not None
    assert (flow["protocol"], (flow["source_port"], flow["destination_port"])) == (protocol, ports)
    assert flow["tcp_flags"] == 0


def test_type_of_service_and_traffic_class() -> None:
    for frame in (f.ethernet(f.ipv4(TCP, tos=0xB9)), f.ethernet(f.ipv6(TCP, tos=0xB9), 0x86DD)):
        flow = flow_of(frame)
        assert flow is not None
        assert flow["tos"] == 0xB9


# tunnels --------------------------------------------------------------------------------------------------------------
NO_ROUTE = bytes(4)
ROUTE = b"\x08\0\0\x04\1\2\3\4" + b"\x00\x00\0\x02\1\2" + NO_ROUTE  # two entries: an address, and one of unknown family
TUNNELS = {
    "vxlan": (17, f.vxlan(f.ethernet(PLAIN))), "vxlan with tags": (17, f.vxlan(f.ethernet(PLAIN, tags=(0x8100,)))),
    "gre": (47, f.gre(PLAIN)), "gre with key": (47, f.gre(PLAIN, key=True)),
    "gre with all": (47, f.gre(PLAIN, key=True, sequence=True, sums=True, routing=ROUTE)),
    "gre with routing": (47, f.gre(PLAIN, routing=NO_ROUTE)),
    "gre of ethernet": (47, f.gre(f.ethernet(PLAIN), 0x6558, key=True)),
    "gre of mpls": (47, f.gre(f.mpls(PLAIN, 17), 0x8847)), "ipip": (4, PLAIN),
    "ipip in gre": (47, f.gre(f.ipv4(PLAIN, 4, "10.0.0.1", "10.0.0.2"))),
    "ipip in vxlan": (17, f.vxlan(f.ethernet(f.ipv4(PLAIN, 4, "10.0.0.1", "10.0.0.2")))),
    "4in6 in 6in4": (41, f.ipv6(PLAIN, 4)),
}


@pytest.mark.parametrize("name", TUNNELS)
def test_tunnels_count_the_outer_or_the_inner_packet_by_setting(name: str) -> None:
    protocol, payload = TUNNELS[name]
    packet = f.tunnel(payload, protocol)
    assert is_outer(flow_of(f.ethernet(packet)), protocol, len(packet))
    assert is_plain(flow_of(f.ethernet(packet), tunnels="inner"))


def test_ipv6_in_ipv4_and_ipv4_in_ipv6() -> None:
    assert is_plain6(flow_of(f.ethernet(f.tunnel(PLAIN6, 41)), tunnels="inner"))
    assert is_outer(flow_of(f.ethernet(f.tunnel(PLAIN6, 41))), 41, 80)
    around = f.ipv6(PLAIN, 4, "2001:db8:9::1", "2001:db8:9::2")
    assert is_plain(flow_of(f.ethernet(around, 0x86DD), tunnels="inner"))
    with_options = f.ipv6(f.extension(4) + PLAIN, 60, "2001:db8:9::1", "2001:db8:9::2")
    assert is_plain(flow_of(f.ethernet(with_options, 0x86DD), tunnels="inner"))
    assert is_plain6(flow_of(f.ethernet(f.ipv6(PLAIN6, 41), 0x86DD), tunnels="inner"))


def test_a_packet_that_is_no_tunnel_is_the_same_with_both_settings() -> None:
    for tunnels in ("outer", "inner"):
        assert is_plain(flow_of(f.ethernet(PLAIN), tunnels=tunnels))


@pytest.mark.parametrize("name", TUNNELS)
def test_an_inner_header_that_is_cut_off_leaves_the_outer_packet_flagged(name: str) -> None:
    protocol, payload = TUNNELS[name]
    packet = f.tunnel(payload, protocol)
    whole = f.ethernet(packet)
    for size in range(34 + 8, len(whole) - len(TCP)):
        flow = flow_of(whole[:size], tunnels="inner")
        assert flow is not None
        assert flow["flags"] == FlowFlag.INNER_UNREAD
        if flow["source_address"] == f.mapped(f.TUNNEL_SOURCE):
            assert flow["octets"] == len(packet)
        else:
            assert " in " in name, "of several, the innermost that is whole"
    assert is_plain(flow_of(whole[: len(whole) - 4], tunnels="inner")), "the inner header is whole, so is what is needed of TCP"


@pytest.mark.parametrize(("protocol", "payload", "flags"), [
    (47, f.gre(PLAIN, version=1, key=True), FlowFlag.INNER_UNREAD), (47, f.gre(b"\xff\x03\x00\x21" + PLAIN, 0x880B), 0),
    (47, f.gre(b"", 0), 0), (47, f.gre(bytes(46), 0x88BE), 0),
    (47, f.gre(b"\x08\0\0\x04\1\2", routing=b""), FlowFlag.INNER_UNREAD),
    (17, f.vxlan(f.ethernet(bytes(46), 0x0806)), 0), (17, f.vxlan(f.ethernet(PLAIN), flags=0), 0),
    (17, f.udp(f.vxlan(f.ethernet(PLAIN))[8:], 4789, 50000), 0), (4, b"\x30" + PLAIN[1:], FlowFlag.INNER_UNREAD),
    (41, PLAIN, FlowFlag.INNER_UNREAD), (50, PLAIN, 0), (6, TCP, 0),
])
def test_what_holds_no_readable_packet_is_the_outer_flow(protocol: int, payload: bytes, flags: int) -> None:
    packet = f.tunnel(payload, protocol)
    assert is_outer(flow_of(f.ethernet(packet), tunnels="inner"), protocol, len(packet), flags)


def test_a_keepalive_of_gre_is_its_own_way_back() -> None:
    """It carries the packet that the other end shall return: that one is inside, and nothing is in it."""
    back = f.ipv4(f.gre(b"", 0), 47)
    flow = flow_of(f.ethernet(f.tunnel(f.gre(back), 47)), tunnels="inner")
    assert flow is not None
    assert (flow["source_address"], flow["protocol"], flow["octets"], flow["flags"]) == (f.mapped(f.SOURCE), 47, 24, 0)


@pytest.mark.parametrize("fragment", [0x2000, 0x0010])
def test_a_fragment_of_a_tunnel_is_never_the_inner_packet(fragment: int) -> None:
    packet = f.ipv4(PLAIN, 4, f.TUNNEL_SOURCE, f.TUNNEL_DESTINATION, fragment=fragment)
    assert is_outer(flow_of(f.ethernet(packet), tunnels="inner"), 4, 60, FlowFlag.INNER_UNREAD)


def test_the_depth_of_tunnels_is_bounded() -> None:
    for depth in (packets.TUNNELS_MAX, packets.TUNNELS_MAX + 1):
        packet = PLAIN
        for n in range(depth):
            packet = f.ipv4(packet, 4, f"10.0.0.{n}", "10.9.9.9")
        flow = flow_of(f.ethernet(packet), tunnels="inner")
        if depth == packets.TUNNELS_MAX:
            assert is_plain(flow)
        else:
            assert flow is not None
            assert (flow["source_address"], flow["octets"], flow["flags"]) == (f.mapped("10.0.0.0"), 60, FlowFlag.INNER_UNREAD)


def test_an_inner_packet_without_a_length_counts_what_its_frame_leaves() -> None:
    packet = f.tunnel(f.gre(f.ipv4(TCP, total=0), key=True), 47)
    flow = flow_of(f.ethernet(packet), tunnels="inner", length=1518, stripped=4)
    assert is_plain(flow, 1518 - 4 - 14 - 20 - 8, FlowFlag.FRAME_OCTETS)


def test_the_padding_behind_a_tunnel_is_not_its_payload() -> None:
    packet = f.ipv4(b"", 4, f.TUNNEL_SOURCE, f.TUNNEL_DESTINATION) + PLAIN
    assert is_outer(flow_of(f.ethernet(packet), tunnels="inner"), 4, 20, FlowFlag.INNER_UNREAD)


# flow samples ---------------------------------------------------------------------------------------------------------
def test_the_first_record_with_a_packet_counts_once() -> None:
    decoded = decode(f.flow_sample(f.raw_header(f.ethernet(bytes(46), 0x0806)), f.raw_header(f.ethernet(PLAIN)),
                                   f.raw_header(f.ethernet(LONG)), f.record(3, struct.pack(">II", 999, 17) + bytes(24))))
    assert decoded.flows["octets"].tolist() == [40]


def test_sampled_ip_records_hold_a_length() -> None:
    four = struct.pack(">II4s4sIIII", 1400, 17, f.address(f.SOURCE), f.address(f.DESTINATION), 1, 2, 0x12, 0xB8)
    six = struct.pack(">II16s16sIIII", 1300, 6, f.address(f.SOURCE6), f.address(f.DESTINATION6), 1, 2, 0x12, 0xB8)
    decoded = decode(f.flow_sample(f.record(3, four)), f.flow_sample(f.record(4, six)), f.flow_sample(f.record(3, four[:-1])))
    assert decoded.flows["octets"].tolist() == [1400, 1300]
    assert decoded.flows["tcp_flags"].tolist() == [0, 0x12]
    assert decoded.counts.not_a_flow == 1


EXTENDED = {
    "switch": (1001, bytes(16)), "user": (1004, b"\0\0\0\x03\0\0\0\x02ab\0\0\0\0\0\0"),
    "url": (1005, struct.pack(">II", 1, 0xFFFFFFFF) + b"abcd"),
    "mpls": (1006, struct.pack(">II4sIIII", 1, 1, b"abcd", 1, 17, 0, 0)),
    "nat": (1007, struct.pack(">I4sI4s", 1, b"\1\2\3\4", 1, b"\5\6\7\x08")), "mpls tunnel": (1008, bytes(12)),
    "vlan tunnel": (1012, struct.pack(">II", 0x40000001, 1)), "nat ports": (1020, bytes(8)), "l2 tunnel": (1021, bytes(32)),
    "ipv4 tunnel": (1023, bytes(32)), "vni": (1029, bytes(4)), "of a vendor": (4413 << 12 | 1, bytes(24)),
    "of a vendor that looks like a header": (9 << 12 | 1, bytes(7)),
}


@pytest.mark.parametrize("name", EXTENDED)
def test_other_records_are_skipped_by_their_length(name: str) -> None:
    other = f.record(*EXTENDED[name])
    for records in ((other, f.raw_header(f.ethernet(PLAIN))), (f.raw_header(f.ethernet(PLAIN)), other)):
        decoded = decode(f.flow_sample(*records), f.expanded_flow_sample(*records))
        assert (decoded.flows["octets"].tolist(), decoded.faults) == ([40, 40], [])


def test_interfaces_of_both_kinds_of_samples() -> None:
    header = f.raw_header(f.ethernet(PLAIN))
    decoded = decode(
        f.flow_sample(header, into=7, outof=8), f.flow_sample(header, into=7, outof=0x4000_0102),
        f.flow_sample(header, outof=0x8000_0003),
        f.expanded_flow_sample(header, into=(0, 5_000_000_000 % 2**32), outof=(0, 2**31)),
        f.expanded_flow_sample(header, into=(0, 9), outof=(1, 258)), f.expanded_flow_sample(header, outof=(2, 3)))
    assert decoded.flows["input_interface"].tolist() == [7, 7, 1, 705_032_704, 9, 1]
    assert decoded.flows["output_interface"].tolist() == [8, 0, 0, 2**31, 0, 0]


# hostile --------------------------------------------------------------------------------------------------------------
def nested(inside: bytes, octets: int) -> bytes:
    """So many octets of one header in itself: each says it reaches to the end."""
    size = len(inside)
    layers = [inside[:2] + struct.pack(">H", octets - size * n) + inside[4:] for n in range(octets // size)]
    return b"".join(layers)


HOSTILE = {
    "vlan stack": (f.ethernet(b"\0\1\x81\0" * 15_000, 0x8100), None, None),
    "mpls without bottom": (f.ethernet(bytes(60_000), 0x8847), None, None),
    "pseudowires in each other": (f.ethernet(f.mpls(bytes(4) + f.ethernet(b"", 0x8847), 17) * 2_000, 0x8847), None, None),
    "mpls in ppp in mpls": (f.ethernet(f.mpls(bytes(4) + f.ethernet(f.pppoe(b"", 0x0281), 0x8864), 17) * 1_500, 0x8847), None,
                            None),
    "ipip in ipip": (f.ethernet(nested(f.ipv4(b"", 4), 60_000)), (60_000, 0), (60_000 - 8 * 20, FlowFlag.INNER_UNREAD)),
    "gre in gre": (f.ethernet(nested(f.ipv4(f.gre(b""), 47), 60_000)), (60_000, 0), (60_000 - 8 * 24, FlowFlag.INNER_UNREAD)),
    "gre routing without end": (f.ethernet(f.tunnel(f.gre(b"\x08\0\0\0" * 14_000, routing=b""), 47)), (56_028, 0),
                                (56_028, FlowFlag.INNER_UNREAD)),
    "extension headers": (f.ethernet(f.ipv6(f.extension(0) * 7_000, 0), 0x86DD), (56_040, 0), (56_040, 0)),
    "tags in vxlan": (f.ethernet(f.tunnel(f.vxlan(f.ethernet(b"\0\1\x81\0" * 14_000, 0x8100)), 17)), (56_050, 0),
                      (56_050, FlowFlag.INNER_UNREAD)),
}


@pytest.mark.parametrize("tunnels", ["outer", "inner"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_packet_is_followed_to_a_bound_and_those_around_it_are_read(name: str, tunnels: str) -> None:
    frame, *expected = HOSTILE[name]
    good = f.flow_sample(f.raw_header(f.ethernet(PLAIN)))
    settings = CollectorSettings(collector=Collector(tunnels=tunnels))
    datagrams = [Datagram(f.sflow(good)), Datagram(f.sflow(good, f.flow_sample(f.raw_header(frame)), sequence=2)),
                 Datagram(f.sflow(good, sequence=3))]
    decoded = Decoder(settings).feed(body_of(datagrams), 0)
    outcome = expected[tunnels == "inner"]
    flows = list(zip(decoded.flows["octets"].tolist(), decoded.flows["flags"].tolist(), strict=True))
    assert flows == [(40, 0), (40, 0), *([outcome] if outcome else []), (40, 0)]
    assert (decoded.counts.not_a_flow, decoded.faults) == (0 if outcome else 1, [])


@pytest.mark.parametrize("tunnels", ["outer", "inner"])
def test_lengths_and_counts_that_lie_cost_what_cannot_be_read(tunnels: str) -> None:
    header = f.raw_header(f.ethernet(PLAIN))
    lie = 0xFFFFFFFF
    for sample, flows in (
            (f.flow_sample(f.raw_header(f.ethernet(PLAIN), held=lie)), 1), (f.flow_sample(header, count=lie), 1),
            (f.flow_sample(f.record(1, bytes(64), lie), header), 0), (f.flow_sample(header, f.record(1001, b"", lie)), 1),
            (f.flow_sample(header, f.record(1003, struct.pack(">IIIIII", 0, 1, 2, 3, lie, 0))), 1)):
        decoded = decode(sample, f.flow_sample(header), tunnels=tunnels)
        assert decoded.flows["octets"].tolist() == [40] * (flows + 1)
        assert [kind.label for _, _, kind, _ in decoded.faults] == ["record_overrun"]
        assert decoded.counts.faulted_records == 1 - flows
