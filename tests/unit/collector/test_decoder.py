"""What the decoder makes of datagrams whose meaning is worked out by hand."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from exports import (
    BASIC,
    NOW_S,
    basic,
    ethernet,
    flow_sample,
    framed,
    ipfix,
    ipfix_options_template,
    ipv4_packet,
    raw_header,
    sflow,
    template,
    v5,
    v5_record,
    v9,
    v9_options_template,
)
from journal_bodies import Datagram, body_of

from collector.decoder import Decoded, Decoder
from collector.faults import MEANINGS, FaultKind
from collector.settings import Collector, CollectorSettings, Exporter, Sampling, Time
from core.addresses import parse_address
from core.schemas import FLOWS, FlowFlag, RateSource

NOW = NOW_S * 1000


def decode(*payloads: bytes, settings: CollectorSettings | None = None, **about: Any) -> Decoded:
    datagrams = [Datagram(payload, about.get("received", NOW), flags=about.get("flags", 0)) for payload in payloads]
    return Decoder(settings or CollectorSettings()).feed(body_of(datagrams), 0)


def kinds(decoded: Decoded) -> dict[str, int]:
    return {kind.label: count for _, _, kind, count in decoded.faults}


def only(decoded: Decoded, *names: str) -> Any:
    """The values of the one flow."""
    assert decoded.counts.flows == 1, decoded.counts
    values = [decoded.flows[name][0].tolist() for name in names]
    return values[0] if len(values) == 1 else values


def test_the_columns_are_those_of_the_schema() -> None:
    flows = decode(v5([v5_record()])).flows
    assert list(flows) == FLOWS.names
    for field in FLOWS:
        column = flows[field.name]
        assert column.flags.c_contiguous
        width = {"fixed_size_binary[16]": 16}.get(str(field.type))
        assert column.nbytes == (width or field.type.bit_width // 8)


def test_every_kind_of_fault_has_a_meaning() -> None:
    assert set(MEANINGS) == set(FaultKind)


# times ----------------------------------------------------------------------------------------------------------------
def test_uptimes_count_back_from_the_header() -> None:
    flow = decode(v5([v5_record(first=3_540_000, last=3_590_000)]))
    assert only(flow, "start", "end") == [NOW - 60_000, NOW - 10_000]


def test_a_start_after_the_export_is_from_before_the_uptime_wrapped() -> None:
    flow = decode(v5([v5_record(first=2**32 - 5_000, last=2_000)], uptime=10_000))
    assert only(flow, "start", "end") == [NOW - 15_000, NOW - 8_000]


def test_a_clock_that_is_off_by_more_than_allowed_is_moved_and_flagged() -> None:
    flow = decode(v5([v5_record(first=3_540_000, last=3_600_000)], seconds=NOW_S - 601))
    assert only(flow, "start", "end", "flags") == [NOW - 60_000, NOW, FlowFlag.CLOCK_MOVED]
    flow = decode(v5([v5_record(first=3_540_000, last=3_600_000)], seconds=NOW_S - 600))
    assert only(flow, "start", "end", "flags") == [NOW - 660_000, NOW - 600_000, 0]


def test_skew_0_believes_the_exporter() -> None:
    settings = CollectorSettings(time=Time(skew_seconds_max=0))
    assert only(decode(v5([v5_record(first=0, last=0, octets=1)], uptime=0, seconds=86_400), settings=settings), "start") == (
        86_400_000)


def test_without_an_arrival_time_the_export_time_stands_for_it() -> None:
    assert only(decode(v5([v5_record()], seconds=1_500_000_000), flags=1, received=0), "received") == 1_500_000_000_000


def test_an_end_before_the_start_is_clamped() -> None:
    flow = decode(v5([v5_record(first=2_000, last=1_000)]))
    assert only(flow, "flags") == FlowFlag.END_CLAMPED
    assert flow.flows["start"][0] == flow.flows["end"][0]


@pytest.mark.parametrize(("elements", "data", "start", "end"), [
    ([(150, 4), (151, 4)], struct.pack(">II", NOW_S - 9, NOW_S - 3), -9_000, -3_000),
    ([(152, 8), (153, 8)], struct.pack(">QQ", NOW - 1234, NOW - 2), -1_234, -2),
    ([(154, 8), (155, 8)], struct.pack(">QQ", (NOW_S + 2_208_988_800 - 5) << 32 | 1 << 31, (NOW_S + 2_208_988_800) << 32),
     -4_500, 0),
    ([(156, 8), (157, 8)], struct.pack(">QQ", (NOW_S + 2_208_988_800 - 1) << 32, (NOW_S + 2_208_988_800) << 32), -1_000, 0),
    ([(158, 4), (159, 4)], struct.pack(">II", 7_000_000, 2_500_000), -7_000, -2_500),
    ([(152, 8), (161, 4)], struct.pack(">QI", NOW - 5_000, 3_000), -5_000, -2_000),
    ([(153, 8), (161, 4)], struct.pack(">QI", NOW - 1_000, 3_000), -4_000, -1_000),
    ([(22, 4), (21, 4), (160, 8)], struct.pack(">IIQ", 10_000, 15_000, NOW - 20_000), -10_000, -5_000),
    ([(22, 4), (21, 4)], struct.pack(">II", 10_000, 15_000), -5_000, 0),
    ([(153, 8)], struct.pack(">Q", NOW - 77), -77, -77),
    ([], b"", 0, 0),
])
def test_times_of_ipfix(elements: list[tuple[int, int]], data: bytes, start: int, end: int) -> None:
    flow = decode(ipfix(framed(2, template(256, [*BASIC, *elements])), framed(256, basic(more=data))))
    assert only(flow, "start", "end") == [NOW + start, NOW + end]


def test_a_flow_of_2_to_the_32_milliseconds_is_a_fault() -> None:
    fields = [*BASIC, (152, 8), (153, 8)]
    one, two = (struct.pack(">QQ", NOW - 2**32 + less, NOW) for less in (0, 1))
    decoded = decode(ipfix(framed(2, template(256, fields)), framed(256, basic(more=one), basic(more=two))))
    assert kinds(decoded) == {"duration_too_long": 1}
    assert (decoded.counts.data_records, decoded.counts.faulted_records, decoded.counts.flows) == (2, 1, 1)


def test_the_system_init_time_of_options_anchors_uptimes() -> None:
    options = framed(3, ipfix_options_template(300, [(143, 4), (160, 8)]))
    told = framed(300, struct.pack(">IQ", 1, NOW - 100_000))
    data = framed(256, basic(more=struct.pack(">II", 40_000, 90_000)))
    flow = decode(ipfix(options, told, framed(2, template(256, [*BASIC, (22, 4), (21, 4)])), data))
    assert only(flow, "start", "end") == [NOW - 60_000, NOW - 10_000]


# octets ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", range(1, 9))
def test_octets_of_any_length(size: int) -> None:
    fields = [(8, 4), (12, 4), (1, size)]
    record = bytes(8) + (200).to_bytes(size, "big")
    assert only(decode(ipfix(framed(2, template(256, fields)), framed(256, record))), "octets") == 200


def test_initiator_and_responder_are_two_flows_with_the_ends_swapped() -> None:
    fields = [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (10, 4), (14, 4), (231, 4), (232, 4), (298, 4), (299, 4)]
    record = struct.pack(">IIHHBIIIIII", 1, 2, 1000, 443, 6, 5, 6, 111, 222, 3, 4)
    decoded = decode(ipfix(framed(2, template(256, fields)), framed(256, record)))
    assert (decoded.counts.data_records, decoded.counts.flow_records, decoded.counts.flows) == (1, 1, 2)
    f = decoded.flows
    assert f["octets"].tolist() == [111, 222]
    assert f["packets"].tolist() == [3, 4]
    assert f["source_port"].tolist() == [1000, 443]
    assert f["input_interface"].tolist() == [5, 6]
    assert f["source_address"][1].tobytes() == f["destination_address"][0].tobytes() == parse_address("0.0.0.2")
    assert f["flags"].tolist() == [0, FlowFlag.REVERSE]


def test_reverse_elements_of_rfc_5103_are_a_second_flow() -> None:
    fields = [*BASIC, (29305 << 32 | 1, 4), (29305 << 32 | 2, 4)]
    decoded = decode(ipfix(framed(2, template(256, fields)), framed(256, basic(10, 1, struct.pack(">II", 20, 2)))))
    assert decoded.flows["octets"].tolist() == [10, 20]


def test_layer_2_octets_lose_their_header_for_each_packet() -> None:
    fields = [(8, 4), (12, 4), (352, 4), (2, 4), (243, 2)]
    record = struct.pack(">IIIIH", 1, 2, 10_000, 10, 77)
    flow = decode(ipfix(framed(2, template(256, fields)), framed(256, record)))
    assert only(flow, "octets", "flags") == [10_000 - 10 * 18, FlowFlag.LAYER2_OCTETS]


def test_running_totals_are_a_fault() -> None:
    fields = [(8, 4), (12, 4), (85, 8)]
    decoded = decode(ipfix(framed(2, template(256, fields)), framed(256, bytes(32))))
    assert kinds(decoded) == {"cumulative_counter": 2}
    assert decoded.counts.faulted_records == decoded.counts.data_records == 2


def test_a_record_without_octets_or_addresses_is_not_a_flow() -> None:
    decoded = decode(ipfix(framed(2, template(256, [(8, 4), (1, 4)])), framed(256, bytes(24))))
    assert (decoded.counts.not_a_flow, decoded.counts.flows) == (3, 0)


def test_icmp_has_no_source_port_and_its_type_as_destination() -> None:
    fields = [*BASIC, (4, 1), (7, 2), (11, 2), (32, 2)]
    record = basic(more=struct.pack(">BHHH", 1, 9, 9, 0x0803))
    flow = decode(ipfix(framed(2, template(256, fields)), framed(256, record)))
    assert only(flow, "source_port", "destination_port") == [0, 0x0803]


# sampling -------------------------------------------------------------------------------------------------------------
def rates(decoded: Decoded) -> list[tuple[int, int, int]]:
    f = decoded.flows
    return list(zip(f["rate_numerator"].tolist(), f["rate_denominator"].tolist(), f["rate_source"].tolist(), strict=True))


SAMPLER_OPTIONS = framed(1, v9_options_template(300, [(1, 4)], [(48, 1), (50, 4)]))


def sampler_rate(sampler: int, rate: int) -> bytes:
    return framed(300, struct.pack(">IBI", 0, sampler, rate))


def test_a_sampler_s_rate_holds_from_where_it_is_announced() -> None:
    data = framed(256, basic(more=b"\x03"))
    decoded = decode(
        v9(framed(0, template(256, [*BASIC, (48, 1)])), SAMPLER_OPTIONS, data, sequence=0),
        v9(sampler_rate(3, 100), data, sequence=1),
        v9(data, sampler_rate(3, 500), data, sampler_rate(4, 9), sequence=2),
    )
    assert rates(decoded) == [(1, 1, RateSource.ASSUMED), (100, 1, RateSource.SAMPLER), (100, 1, RateSource.SAMPLER),
                              (500, 1, RateSource.SAMPLER)]


def test_the_rate_of_a_sampler_is_kept_between_blocks() -> None:
    decoder = Decoder(CollectorSettings())
    data = framed(256, basic(more=b"\x03"))
    first = v9(framed(0, template(256, [*BASIC, (48, 1)])), SAMPLER_OPTIONS, sampler_rate(3, 100))
    decoder.feed(body_of([Datagram(first, NOW)]), 0)
    assert rates(decoder.feed(body_of([Datagram(v9(data, sequence=1), NOW)]), 1)) == [(100, 1, RateSource.SAMPLER)]


def test_the_order_of_rates_is_record_sampler_domain_header_settings() -> None:
    configured = CollectorSettings(exporters=(Exporter(parse_address("192.0.2.1"), None, 5),))
    assert rates(decode(v5([v5_record()]), settings=configured)) == [(5, 1, RateSource.CONFIGURED)]
    assert rates(decode(v5([v5_record()], sampling=1 << 14 | 64), settings=configured)) == [(64, 1, RateSource.HEADER)]
    domain = framed(3, ipfix_options_template(300, [(143, 4), (305, 4), (306, 4)]))
    told = framed(300, struct.pack(">III", 1, 2, 98))
    data = framed(256, basic(more=struct.pack(">I", 0)), basic(more=struct.pack(">I", 7)))
    message = ipfix(domain, told, framed(2, template(256, [*BASIC, (34, 4)])), data)
    assert rates(decode(message, settings=configured)) == [(50, 1, RateSource.DOMAIN), (7, 1, RateSource.RECORD)]


@pytest.mark.parametrize(("policy", "flags", "faults"), [
    ("assume_1", [0], {}), ("quarantine", [FlowFlag.QUARANTINED], {}), ("reject", [], {"rate_unannounced": 1})])
def test_unannounced_rates_follow_the_policy(policy: str, flags: list[int], faults: dict[str, int]) -> None:
    decoded = decode(v5([v5_record()]), settings=CollectorSettings(sampling=Sampling(unannounced=policy)))
    assert decoded.flows["flags"].tolist() == flags
    assert kinds(decoded) == faults


# templates ------------------------------------------------------------------------------------------------------------
def test_data_before_its_template_waits_and_keeps_its_own_arrival() -> None:
    decoder = Decoder(CollectorSettings())
    early = decoder.feed(body_of([Datagram(ipfix(framed(256, basic(5))), NOW)]), 0)
    assert (early.counts.waiting, early.counts.data_records, early.counts.decoded) == (1, 0, 1)
    late = decoder.feed(body_of([
        Datagram(ipfix(framed(2, template(256, BASIC)), framed(256, basic(6)), sequence=1), NOW + 1_000_000)]), 1)
    assert late.flows["octets"].tolist() == [6, 5]
    assert late.flows["received"].tolist() == [NOW + 1_000_000, NOW]
    assert (late.counts.waiting, late.counts.released_sets) == (0, 1)
    assert [row.missing for row in decoder.state.exporters()] == [0]
    assert late.intake["slot"].tolist() == sorted({NOW // 900_000 * 900_000, (NOW + 1_000_000) // 900_000 * 900_000})
    assert late.intake["flows"].sum() == 2


def test_waiting_data_is_bounded_and_expires() -> None:
    settings = CollectorSettings(collector=Collector(waiting_octets_max=200, waiting_seconds_max=60))
    decoder = Decoder(settings)
    datagrams = [Datagram(ipfix(framed(256, basic(n)), sequence=n), NOW) for n in range(4)]
    full = decoder.feed(body_of(datagrams), 0)
    assert (full.counts.waiting, kinds(full)) == (2, {"waiting_full": 2})
    decoder.feed(body_of([Datagram(v5([v5_record()]), NOW + 61_000)]), 1)
    after = decoder.feed(body_of([Datagram(v5([v5_record()], sequence=1), NOW + 61_000)]), 2)
    assert (after.counts.waiting, kinds(after)) == (0, {"waiting_expired": 2})


def test_a_new_definition_holds_for_later_data_only() -> None:
    longer = [*BASIC, (4, 1)]
    decoded = decode(ipfix(framed(2, template(256, BASIC)), framed(256, basic(1)), framed(2, template(256, longer)),
                           framed(256, basic(2, more=b"\x11"))))
    assert decoded.flows["octets"].tolist() == [1, 2]
    assert decoded.flows["protocol"].tolist() == [0, 17]
    assert decoded.counts.templates == 2


def test_templates_belong_to_their_domain() -> None:
    decoded = decode(ipfix(framed(2, template(256, BASIC)), domain=1), ipfix(framed(256, basic()), domain=2))
    assert (decoded.counts.waiting, decoded.counts.flows) == (1, 0)


@pytest.mark.parametrize("identifier", [256, 2])
def test_a_withdrawn_template_is_unknown(identifier: int) -> None:
    gone = framed(2, struct.pack(">HH", identifier, 0))
    decoded = decode(ipfix(framed(2, template(256, BASIC)), framed(256, basic())), ipfix(gone, sequence=1),
                     ipfix(framed(256, basic()), sequence=1))
    assert (decoded.counts.flows, decoded.counts.waiting, decoded.counts.templates) == (1, 1, 1)


def test_variable_lengths_and_foreign_elements_are_skipped_by_length() -> None:
    fields = [(82, 65535), (9 << 32 | 12, 3), *BASIC]
    records = (b"\x02ab" + b"xyz" + basic(7), b"\xff\x01\x00" + bytes(256) + b"xyz" + basic(8))
    decoded = decode(ipfix(framed(2, template(256, fields)), framed(256, *records, b"\0\0\0")))
    assert decoded.flows["octets"].tolist() == [7, 8]
    assert not decoded.faults


def test_templates_that_change_all_the_time_do_not_fill_the_memory() -> None:
    decoder = Decoder(CollectorSettings())
    for block in range(30):
        changing = [Datagram(v9(framed(0, template(256, [(8, 4), (12, 4), (1, 1 + (n + block) % 8)])),
                                sequence=200 * block + n), NOW) for n in range(200)]
        decoder.feed(body_of(changing), block)
    assert int(decoder.state.arrays.counts[0]["plans"]) < 1500


# sFlow ----------------------------------------------------------------------------------------------------------------
def test_a_sampled_packet_counts_its_ip_length() -> None:
    frame = ethernet(ipv4_packet(1400), tags=[10, 20])
    flow = decode(sflow(flow_sample(raw_header(frame, 1500))))
    assert only(flow, "octets", "packets", "source_port", "destination_port", "tcp_flags", "rate_numerator", "rate_source",
                "domain", "input_interface", "output_interface") == [1400, 1, 1234, 80, 0x12, 100, RateSource.RECORD, 3, 1, 2]
    assert only(flow, "start", "end", "received") == [NOW, NOW, NOW]


def test_without_an_ip_length_the_frame_counts() -> None:
    frame = ethernet(ipv4_packet(0), tags=[10])
    flow = decode(sflow(flow_sample(raw_header(frame, 9018))))
    assert only(flow, "octets", "flags") == [9018 - 4 - 18, FlowFlag.FRAME_OCTETS]


def test_fragments_have_no_ports() -> None:
    flow = decode(sflow(flow_sample(raw_header(ethernet(ipv4_packet(fragment=0x2000))))))
    assert only(flow, "source_port", "destination_port") == [0, 0]


def test_sflow_boot_makes_uptime_an_instant() -> None:
    settings = CollectorSettings(exporters=(Exporter(parse_address("192.0.2.1"), NOW - 10**9, None),))
    flow = decode(sflow(flow_sample(raw_header(ethernet(ipv4_packet()))), uptime=123_000), settings=settings)
    assert only(flow, "start", "received") == [NOW - 10**9 + 123_000, NOW]


def test_a_sample_without_an_ip_header_is_not_a_flow() -> None:
    decoded = decode(sflow(flow_sample(raw_header(ethernet(bytes(40), kind=0x0806)))))
    assert (decoded.counts.data_records, decoded.counts.not_a_flow) == (1, 1)


# faults ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("payload", "kind"), [
    (b"", "too_short"), (b"\0", "too_short"), (b"\0\5\0", "too_short"), (b"\0\6\0\0", "version_unknown"),
    (b"\0\0\0\5\0\0\0\x09" + bytes(40), "header_malformed"), (v9(struct.pack(">HH", 256, 2)), "set_length"),
    (v9(framed(4)), "set_id_reserved"), (ipfix()[:2] + b"\0\x0f" + ipfix()[4:], "length_mismatch"),
])
def test_an_unreadable_datagram_is_faulted_and_the_good_ones_around_it_decode(payload: bytes, kind: str) -> None:
    decoded = decode(v5([v5_record(octets=1)]), payload, v5([v5_record(octets=2)], sequence=1))
    assert decoded.flows["octets"].tolist() == [1, 2]
    assert kinds(decoded) == {kind: 1}
    assert (decoded.counts.datagrams, decoded.counts.decoded, decoded.counts.faulted) == (3, 2, 1)


def test_v5_reads_the_lesser_of_the_count_and_the_whole_records() -> None:
    short = v5([v5_record(octets=n) for n in range(3)], count=5)[:-1]
    decoded = decode(short)
    assert (decoded.counts.data_records, decoded.counts.decoded, kinds(decoded)) == (2, 1, {"count_mismatch": 1})
    assert decode(v5([v5_record()] * 3, count=1)).counts.data_records == 1


def test_more_records_than_allowed_are_one_fault() -> None:
    settings = CollectorSettings(collector=Collector(records_per_datagram_max=5))
    decoded = decode(v9(framed(0, template(256, BASIC)), framed(256, *[basic()] * 4), framed(256, *[basic()] * 4),
                        framed(256, *[basic()] * 4)), settings=settings)
    assert (decoded.counts.data_records, kinds(decoded)) == (5, {"too_many_records": 1})


def test_a_copy_counts_once_in_its_window() -> None:
    message = v5([v5_record()])
    decoder = Decoder(CollectorSettings(collector=Collector(duplicate_seconds=60)))
    first = decoder.feed(body_of([Datagram(message, NOW), Datagram(message, NOW + 60_000),
                                  Datagram(message, NOW, "192.0.2.2")]), 0)
    assert (first.counts.flows, first.counts.duplicate, first.counts.decoded, kinds(first)) == (2, 1, 2, {"duplicate": 1})
    assert decoder.feed(body_of([Datagram(message, NOW + 60_001)]), 1).counts.flows == 1


def test_a_copy_outside_the_window_of_datagrams_counts() -> None:
    settings = CollectorSettings(collector=Collector(duplicate_window=3))
    messages = [v5([v5_record(octets=n)], sequence=n) for n in range(4)]
    assert decode(*messages[:3], messages[0], settings=settings).counts.duplicate == 1
    assert decode(*messages[:4], messages[0], settings=settings).counts.duplicate == 0


def test_exporters_beyond_the_bound_are_refused_as_a_fault() -> None:
    settings = CollectorSettings(collector=Collector(domains_max=3))
    datagrams = [Datagram(v5([v5_record()]), NOW, f"192.0.2.{n}") for n in range(1, 6)]
    decoded = Decoder(settings).feed(body_of(datagrams), 0)
    assert (decoded.counts.flows, kinds(decoded)) == (2, {"domains_full": 3})


def test_an_empty_block_is_nothing() -> None:
    decoded = Decoder(CollectorSettings()).feed(np.zeros(0, np.uint8), 0)
    assert decoded.counts.datagrams == 0
    assert len(decoded.flows["octets"]) == 0
