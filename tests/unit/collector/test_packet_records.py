"""Records of NetFlow v9 and IPFIX that carry a packet instead of addresses."""

from __future__ import annotations

import struct
from typing import Any

import frames as f
import pytest
from exports import NOW_S, framed, ipfix, ipfix_options_template, template, v9, v9_options_template
from journal_bodies import Datagram, body_of

from collector.decoder import Decoded, Decoder
from collector.settings import Collector, CollectorSettings, Exporter, Sampling
from core.addresses import parse_address
from core.schemas import FlowFlag, RateSource

NOW = NOW_S * 1000
TCP = f.tcp()
PLAIN = f.ipv4(TCP, total=1400)
FRAME = f.ethernet(PLAIN, tags=(0x8100,))
VARIABLE = 65535


def decode(*payloads: bytes, settings: CollectorSettings | None = None) -> Decoded:
    return Decoder(settings or CollectorSettings()).feed(body_of([Datagram(payload, NOW) for payload in payloads]), 0)


def one(fields: list[tuple[int, int]], *records: bytes, tunnels: str = "outer") -> Decoded:
    message = ipfix(framed(2, template(256, fields)), framed(256, *records))
    return decode(message, settings=CollectorSettings(collector=Collector(tunnels=tunnels)))


def only(decoded: Decoded, *names: str) -> Any:
    assert decoded.counts.flows == 1, (decoded.counts, decoded.faults)
    values = [decoded.flows[name][0].tolist() for name in names]
    return values[0] if len(values) == 1 else values


def is_plain(decoded: Decoded, octets: int = 1400, packets: int = 1, flags: int = 0) -> bool:
    flow = {name: column[0] for name, column in decoded.flows.items()}
    return (decoded.counts.flows == decoded.counts.data_records == 1
            and bytes(flow["source_address"]) == f.mapped(f.SOURCE)
            and bytes(flow["destination_address"]) == f.mapped(f.DESTINATION)
            and [int(flow[name]) for name in ("source_port", "destination_port", "protocol", "tcp_flags", "octets", "packets",
                                              "flags")] == [1234, 80, 6, 0x12, octets, packets, flags])


def variable(octets: bytes, long: bool = False) -> bytes:
    """A field that says its length, in one octet or in three."""
    if long or len(octets) > 254:
        return b"\xff" + struct.pack(">H", len(octets)) + octets
    return bytes([len(octets)]) + octets


# what carries it ------------------------------------------------------------------------------------------------------
def test_inline_monitoring_of_junos() -> None:
    """IE 10, 14, 61, 312 and 315 of variable length."""
    fields = [(10, 4), (14, 4), (61, 1), (312, 2), (315, VARIABLE)]
    for long in (False, True):
        decoded = one(fields, struct.pack(">IIBH", 512, 513, 1, 1422) + variable(FRAME, long))
        assert is_plain(decoded)
        assert only(decoded, "input_interface", "output_interface", "flow_direction") == [512, 513, 1]
        assert only(decoded, "start", "end", "received", "export_protocol") == [NOW, NOW, NOW, 10]


def test_netflow_lite_in_version_9() -> None:
    """Elements 102, 103 and 104 with a fixed section; a sampler table says the rate."""
    fields = [(10, 2), (48, 1), (102, 2), (103, 2), (104, 96)]
    options = framed(1, v9_options_template(300, [(1, 4)], [(48, 1), (50, 4)])), framed(300, struct.pack(">IBI", 0, 3, 32))
    record = struct.pack(">HBHH", 7, 3, 0, len(FRAME)) + FRAME.ljust(96, b"\0")
    decoded = decode(v9(framed(0, template(256, fields)), *options, framed(256, record, b"\0")))
    assert is_plain(decoded)
    assert only(decoded, "input_interface", "rate_numerator", "rate_source", "export_protocol") == [
        7, 32, RateSource.SAMPLER, 9]


@pytest.mark.parametrize(("element", "section"), [
    (315, f.ethernet(PLAIN)), (104, f.ethernet(PLAIN, tags=(0x88A8, 0x8100))), (313, PLAIN), (316, f.mpls(PLAIN, 17, 18)),
    (317, PLAIN), (317, bytes(4) + f.ethernet(PLAIN)),
])
@pytest.mark.parametrize("variable_length", [False, True])
def test_every_kind_of_section_is_read(element: int, section: bytes, variable_length: bool) -> None:
    if variable_length:
        assert is_plain(one([(element, VARIABLE)], variable(section)))
    else:
        assert is_plain(one([(element, len(section))], section))


def test_sections_of_ipv6_are_told_by_the_version() -> None:
    packet = f.ipv6(TCP)
    assert only(one([(313, len(packet))], packet), "protocol", "octets", "destination_port") == [6, 60, 80]
    assert only(one([(317, len(packet))], packet), "octets") == 60


def test_a_frame_type_says_what_the_frame_is() -> None:
    fields = [(408, 2), (315, VARIABLE)]
    assert is_plain(one(fields, b"\0\1" + variable(FRAME)))
    assert is_plain(one(fields, b"\0\2" + variable(f.wifi(f.llc(PLAIN)))))
    assert one(fields, b"\0\3" + variable(FRAME)).counts.not_a_flow == 1


def test_of_several_sections_the_frame_is_preferred() -> None:
    other = f.ipv4(f.tcp(9, 9), total=100)
    fields = [(316, VARIABLE), (313, VARIABLE), (315, VARIABLE)]
    assert is_plain(one(fields, variable(f.mpls(other, 3)) + variable(other) + variable(FRAME)))


def test_a_section_that_begins_later_in_the_packet_is_not_a_flow() -> None:
    for element in (102, 409):
        decoded = one([(element, 2), (315, VARIABLE)], b"\0\4" + variable(FRAME), b"\0\0" + variable(FRAME))
        assert (decoded.counts.not_a_flow, decoded.counts.flows) == (1, 1)


def test_the_octets_exported_of_a_fixed_section_end_it() -> None:
    header = f.ethernet(f.ipv4(b"", 17, total=500))
    for element in (103, 410):
        decoded = one([(element, 2), (315, 60)], struct.pack(">H", len(header)) + header.ljust(60, b"\x35"))
        assert only(decoded, "octets", "source_port", "destination_port") == [500, 0, 0]
        decoded = one([(element, 2), (315, 60)], struct.pack(">H", 1500) + header.ljust(60, b"\x35"))
        assert only(decoded, "source_port") == 0x3535, "a size above the field's is that of the packet"


@pytest.mark.parametrize("section", [b"", FRAME[:13], FRAME[:37], f.ethernet(bytes(46), 0x0806)])
def test_a_record_without_a_readable_packet_is_not_a_flow(section: bytes) -> None:
    decoded = one([(10, 4), (315, VARIABLE)], b"\0\0\0\1" + variable(section), b"\0\0\0\1" + variable(FRAME))
    assert (decoded.counts.data_records, decoded.counts.not_a_flow, decoded.counts.flows) == (2, 1, 1)
    assert decoded.faults == []


def test_the_payload_of_ip_is_no_packet() -> None:
    decoded = one([(314, VARIABLE)], variable(PLAIN))
    assert decoded.counts.not_a_flow == 1


def test_a_record_that_has_addresses_is_read_by_its_fields() -> None:
    fields = [(8, 4), (12, 4), (1, 4), (315, VARIABLE), (4, 1)]
    decoded = one(fields, struct.pack(">III", 1, 2, 77) + variable(FRAME) + b"\x11")
    assert only(decoded, "octets", "protocol") == [77, 17]
    decoded = one([(8, 4), (12, 4), (1, 4), (315, len(FRAME)), (4, 1)], struct.pack(">III", 1, 2, 77) + FRAME + b"\x11")
    assert only(decoded, "octets", "protocol") == [77, 17]


def test_an_options_record_with_a_section_is_no_data() -> None:
    options = framed(3, ipfix_options_template(300, [(149, 4), (315, VARIABLE)]))
    decoded = decode(ipfix(options, framed(300, bytes(4) + variable(FRAME))))
    assert (decoded.counts.options_records, decoded.counts.data_records, decoded.counts.flows) == (1, 0, 0)


# octets and packets ---------------------------------------------------------------------------------------------------
def test_the_record_s_own_counts_hold() -> None:
    assert is_plain(one([(2, 4), (315, VARIABLE)], struct.pack(">I", 3) + variable(FRAME)), 3 * 1400, 3)
    assert is_plain(one([(2, 4), (315, VARIABLE)], struct.pack(">I", 0) + variable(FRAME)), 1400, 1)
    assert is_plain(one([(2, 4), (1, 4), (315, VARIABLE)], struct.pack(">II", 3, 3000) + variable(FRAME)), 3000, 3)
    assert is_plain(one([(1, 4), (315, VARIABLE)], struct.pack(">I", 0) + variable(FRAME)), 1400, 1)


def test_without_a_total_length_the_frame_less_its_header_counts() -> None:
    frame = f.ethernet(f.ipv4(TCP, total=0), tags=(0x8100,))
    assert is_plain(one([(312, 2), (315, VARIABLE)], struct.pack(">H", 1018) + variable(frame)), 1000, 1, FlowFlag.FRAME_OCTETS)
    assert is_plain(one([(352, 4), (315, VARIABLE)], struct.pack(">I", 1018) + variable(frame)), 1000, 1, FlowFlag.FRAME_OCTETS)
    assert is_plain(one([(315, VARIABLE)], variable(frame)), 40, 1, FlowFlag.FRAME_OCTETS), "what was sampled, at least"
    assert is_plain(one([(1, 4), (315, VARIABLE)], struct.pack(">I", 900) + variable(frame)), 900)
    bare = one([(312, 2), (313, VARIABLE)], struct.pack(">H", 1018) + variable(frame[18:]))
    assert is_plain(bare, 40, 1, FlowFlag.FRAME_OCTETS), "how long the layers below are is not known"


@pytest.mark.parametrize(("fields", "values"), [
    ([(2, 8)], struct.pack(">Q", 2**63)), ([(2, 8)], struct.pack(">Q", 2**48)), ([(2, 8)], struct.pack(">Q", 2**45)),
    ([(1, 8)], struct.pack(">Q", 2**64 - 1)), ([(1, 8)], struct.pack(">Q", 2**48)),
    ([(34, 4), (1, 8)], struct.pack(">IQ", 2, 2**47)),
])
def test_counts_beyond_any_packet_are_a_fault(fields: list[tuple[int, int]], values: bytes) -> None:
    decoded = one([*fields, (315, VARIABLE)], values + variable(FRAME))
    assert (decoded.counts.faulted_records, decoded.counts.flows) == (1, 0)
    assert [(kind.label, count) for _, _, kind, count in decoded.faults] == [("count_too_large", 1)]


def test_tunnels_follow_the_setting() -> None:
    packet = f.tunnel(f.gre(f.ipv4(TCP, total=1400), key=True), 47)
    record = struct.pack(">II", 2, 7777) + variable(f.ethernet(packet))
    fields = [(2, 4), (1, 4), (315, VARIABLE)]
    assert only(one(fields, record), "protocol", "octets", "packets") == [47, 7777, 2]
    assert is_plain(one(fields, record, tunnels="inner"), 2 * 1400, 2), "the record counts the packet around it"
    cut = struct.pack(">II", 2, 7777) + variable(f.ethernet(packet)[:50])
    assert only(one(fields, cut, tunnels="inner"), "octets", "flags") == [7777, FlowFlag.INNER_UNREAD]


# times and sampling ---------------------------------------------------------------------------------------------------
NTP = NOW_S + 2_208_988_800


@pytest.mark.parametrize(("element", "value", "instant"), [
    ((322, 4), struct.pack(">I", NOW_S - 5), NOW - 5000), ((323, 8), struct.pack(">Q", NOW - 1234), NOW - 1234),
    ((324, 8), struct.pack(">II", NTP - 2, 1 << 31), NOW - 1500), ((325, 8), struct.pack(">II", NTP - 7, 1 << 30), NOW - 6750),
    ((322, 4), bytes(4), NOW), ((152, 8), struct.pack(">Q", NOW - 9), NOW - 9),
])
def test_a_packet_is_an_instant(element: tuple[int, int], value: bytes, instant: int) -> None:
    assert only(one([element, (315, VARIABLE)], value + variable(FRAME)), "start", "end") == [instant, instant]


def test_the_clock_rule_holds_for_packets() -> None:
    message = ipfix(framed(2, template(256, [(323, 8), (315, VARIABLE)])),
                    framed(256, struct.pack(">Q", (NOW_S - 4000) * 1000 - 500) + variable(FRAME)), seconds=NOW_S - 4000)
    assert only(decode(message), "start", "end", "flags") == [NOW - 500, NOW - 500, FlowFlag.CLOCK_MOVED]


def test_sampling_of_packets_is_that_of_any_record() -> None:
    domain = framed(3, ipfix_options_template(300, [(149, 4), (305, 4), (306, 4)])), framed(300, struct.pack(">III", 7, 1, 999))
    packets = framed(2, template(256, [(315, VARIABLE)])), framed(256, variable(FRAME))
    assert only(decode(ipfix(*domain, *packets)), "rate_numerator", "rate_source") == [1000, RateSource.DOMAIN]
    selector = (framed(3, ipfix_options_template(300, [(302, 4), (309, 4), (310, 4)])),
                framed(300, struct.pack(">III", 9, 2, 100)))
    packets = framed(2, template(256, [(302, 4), (315, VARIABLE)])), framed(256, struct.pack(">I", 9) + variable(FRAME))
    assert only(decode(ipfix(*selector, *packets)), "rate_numerator", "rate_denominator", "rate_source") == [
        50, 1, RateSource.SAMPLER]
    configured = CollectorSettings(exporters=(Exporter(parse_address("192.0.2.1"), None, 64),))
    assert only(decode(ipfix(*packets), settings=configured), "rate_numerator", "rate_source") == [64, RateSource.CONFIGURED]
    refused = decode(ipfix(*packets), settings=CollectorSettings(sampling=Sampling(unannounced="reject")))
    assert (refused.counts.faulted_records, refused.counts.flows) == (1, 0)
    held = decode(ipfix(*packets), settings=CollectorSettings(sampling=Sampling(unannounced="quarantine")))
    assert only(held, "flags") & 0xFFFF == FlowFlag.QUARANTINED  # the sampler stands above


def test_packets_that_came_before_their_template_wait_for_it() -> None:
    decoder = Decoder(CollectorSettings())
    early = decoder.feed(body_of([Datagram(ipfix(framed(256, variable(FRAME))), NOW)]), 0)
    assert (early.counts.flows, early.counts.waiting) == (0, 1)
    late = decoder.feed(body_of([Datagram(ipfix(framed(2, template(256, [(315, VARIABLE)])), sequence=1), NOW + 5)]), 1)
    assert is_plain(late)
    assert only(late, "received") == NOW


def test_records_with_and_without_packets_side_by_side() -> None:
    """Values of one plan must not leak into records of another."""
    basic = framed(2, template(257, [(8, 4), (12, 4), (1, 8), (2, 8), (352, 8), (7, 2), (11, 2)]))
    huge = struct.pack(">IIQQQHH", 1, 2, 500, 5, 2**63, 1, 2)
    decoded = decode(ipfix(basic, framed(2, template(256, [(315, VARIABLE)])), framed(257, huge), framed(256, variable(FRAME)),
                           framed(257, huge)))
    assert decoded.flows["octets"].tolist() == [500, 1400, 500]
    assert decoded.flows["packets"].tolist() == [5, 1, 5]
    assert decoded.faults == []
