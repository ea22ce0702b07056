"""Templates of v9 and IPFIX: every way to define, redefine, withdraw and repeat them, by messages worked out by hand."""

from __future__ import annotations

import struct

import pytest
from decoding import NOW, column, decode, feed, kinds
from exports import BASIC, NOW_S, basic, framed, ipfix, ipfix_options_template, template, v9, v9_options_template
from journal_bodies import Datagram

from collector.decoder import Decoder
from collector.settings import CollectorSettings, Exporter
from collector.state import DecoderState
from core.addresses import parse_address
from core.schemas import FlowFlag, RateSource


# options templates ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scope", [1, 2, 3, 4, 5])
def test_options_of_every_v9_scope_are_read_and_the_scope_is_no_element(scope: int) -> None:
    """System, interface, line card, cache, template: as elements 1 and 4 they would be octets and a protocol."""
    options = framed(1, v9_options_template(300, [(scope, 4)], [(34, 4), (35, 1)]))
    data = framed(256, basic())
    decoded = decode(v9(options, framed(300, struct.pack(">IIB", 1, 50, 2)), framed(0, template(256, BASIC)), data))
    assert (decoded.counts.options_templates, decoded.counts.options_records) == (1, 1)
    assert column(decoded, "rate_numerator") == [50]
    assert not decoded.faults


def test_ipfix_options_with_several_scopes_are_delimited_by_all_of_them() -> None:
    fields = [(144, 4), (149, 4), (9 << 32 | 7, 3), (305, 4), (306, 4)]
    told = framed(300, struct.pack(">II3sII", 1, 7, b"abc", 1, 9), struct.pack(">II3sII", 2, 7, b"abc", 1, 9))
    decoded = decode(ipfix(framed(3, ipfix_options_template(300, fields, scope=3)), told,
                           framed(2, template(256, BASIC)), framed(256, basic())))
    assert decoded.counts.options_records == 2
    assert column(decoded, "rate_numerator") == [10]
    assert column(decoded, "rate_source") == [RateSource.DOMAIN]


def test_type_information_of_rfc_5610_is_an_options_record_and_changes_nothing() -> None:
    fields = [(346, 4), (303, 2), (339, 1), (344, 1), (345, 2), (342, 8), (343, 8), (341, 65535), (340, 65535)]
    record = struct.pack(">IHBBHQQ", 35632, 77, 3, 0, 0, 0, 0) + b"\x04name" + b"\x0bdescription"
    decoded = decode(ipfix(framed(3, ipfix_options_template(400, fields, scope=2)), framed(400, record, record),
                           framed(2, template(256, BASIC)), framed(256, basic(9))))
    assert (decoded.counts.options_records, column(decoded, "octets")) == (2, [9])
    assert not decoded.faults


# withdrawal -----------------------------------------------------------------------------------------------------------
def test_withdrawing_all_templates_leaves_the_options_templates_and_other_domains() -> None:
    define = ipfix(framed(2, template(256, BASIC), template(257, BASIC)),
                   framed(3, ipfix_options_template(300, [(144, 4), (34, 4)])))
    other = ipfix(framed(2, template(256, BASIC)), domain=8)
    gone = ipfix(framed(2, struct.pack(">HH", 2, 0)))
    decoder = Decoder(CollectorSettings())
    feed(decoder, define, other, gone)
    data = [framed(256, basic(1)), framed(257, basic(2)), framed(300, struct.pack(">II", 1, 5))]
    after = feed(decoder, ipfix(*data, seconds=NOW_S + 1), ipfix(framed(256, basic(3)), domain=8, seconds=NOW_S + 1), block=1)
    assert (after.counts.waiting, after.counts.options_records, column(after, "octets")) == (2, 1, [3])


def test_withdrawing_all_options_templates_leaves_the_others() -> None:
    define = ipfix(framed(2, template(256, BASIC)), framed(3, ipfix_options_template(300, [(144, 4), (34, 4)])))
    gone = ipfix(framed(3, struct.pack(">HH", 3, 0)), seconds=NOW_S + 1)
    data = ipfix(framed(256, basic(1)), framed(300, struct.pack(">II", 1, 5)), seconds=NOW_S + 2)
    decoded = decode(define, gone, data)
    assert (decoded.counts.waiting, column(decoded, "octets")) == (1, [1])


def test_a_template_that_was_withdrawn_can_be_another_one() -> None:
    longer = [*BASIC, (4, 1)]
    decoded = decode(ipfix(framed(2, template(256, BASIC)), framed(256, basic(1)), framed(2, struct.pack(">HH", 256, 0)),
                           framed(2, template(256, longer)), framed(256, basic(2, more=b"\x06"))))
    assert column(decoded, "octets") == [1, 2]
    assert column(decoded, "protocol") == [0, 6]


# order and place ------------------------------------------------------------------------------------------------------
def test_a_template_after_its_data_in_one_message_releases_it() -> None:
    decoded = decode(ipfix(framed(256, basic(7)), framed(2, template(256, BASIC)), framed(256, basic(8))))
    assert sorted(column(decoded, "octets")) == [7, 8]
    assert (decoded.counts.waiting, decoded.counts.released_sets) == (0, 1)


def test_the_same_id_means_something_else_in_another_domain_and_at_another_exporter() -> None:
    longer = [(4, 1), *BASIC]
    datagrams = [
        Datagram(ipfix(framed(2, template(256, BASIC)), domain=1), NOW, "192.0.2.1"),
        Datagram(ipfix(framed(2, template(256, longer)), domain=2), NOW, "192.0.2.1"),
        Datagram(ipfix(framed(2, template(256, longer)), domain=1), NOW, "192.0.2.2"),
        Datagram(ipfix(framed(256, basic(1)), domain=1, seconds=NOW_S + 1), NOW, "192.0.2.1"),
        Datagram(ipfix(framed(256, b"\x06" + basic(2)), domain=2, seconds=NOW_S + 1), NOW, "192.0.2.1"),
        Datagram(ipfix(framed(256, b"\x11" + basic(3)), domain=1, seconds=NOW_S + 1), NOW, "192.0.2.2"),
    ]
    decoded = decode(*datagrams)
    assert list(zip(column(decoded, "octets"), column(decoded, "protocol"), strict=True)) == [(1, 0), (2, 6), (3, 17)]


def test_v9_and_ipfix_of_one_address_and_domain_keep_their_templates_apart() -> None:
    decoded = decode(v9(framed(0, template(256, [(4, 1), *BASIC])), source=7), ipfix(framed(2, template(256, BASIC)), domain=7),
                     v9(framed(256, b"\x06" + basic(1)), source=7, sequence=1),
                     ipfix(framed(256, basic(2)), domain=7, seconds=NOW_S + 1))
    assert list(zip(column(decoded, "octets"), column(decoded, "protocol"), strict=True)) == [(1, 6), (2, 0)]


def test_templates_do_not_expire() -> None:
    """Neither by time nor by silence: an exporter over UDP sends them again when it likes (RFC 7011 §8.4 only allows it)."""
    decoder = Decoder(CollectorSettings())
    feed(decoder, ipfix(framed(2, template(256, BASIC))))
    year = 365 * 86_400
    later = feed(decoder, Datagram(ipfix(framed(256, basic(5)), seconds=NOW_S + year), NOW + year * 1000), block=1)
    assert column(later, "octets") == [5]


def test_templates_options_and_samplers_are_restored_together() -> None:
    decoder = Decoder(CollectorSettings())
    sampler = framed(1, v9_options_template(300, [(1, 4)], [(48, 1), (50, 4)]))
    feed(decoder, v9(framed(0, template(256, [*BASIC, (48, 1)])), sampler, framed(300, struct.pack(">IBI", 0, 3, 100))),
         ipfix(framed(3, ipfix_options_template(301, [(144, 4), (34, 4)])), framed(301, struct.pack(">II", 1, 20)),
               framed(2, template(256, BASIC)), framed(999, basic(4))))
    again = Decoder(CollectorSettings(), DecoderState.from_bytes(decoder.state.to_bytes()))
    after = feed(again, v9(framed(256, basic(1, more=b"\x03")), sequence=1),
                 ipfix(framed(256, basic(2)), framed(301, struct.pack(">II", 1, 30)), framed(256, basic(3)),
                       framed(2, template(999, BASIC)), seconds=NOW_S + 1), block=1)
    rates = dict(zip(column(after, "octets"), column(after, "rate_numerator"), strict=True))
    assert rates == {1: 100, 2: 20, 3: 30, 4: 30}


# what a record can look like ------------------------------------------------------------------------------------------
def test_fields_without_length_are_absent() -> None:
    fields = [(8, 4), (61, 0), (12, 4), (1, 0), (1, 4), (2, 4), (0, 0)]
    decoded = decode(v9(framed(0, template(256, fields)), framed(256, basic(6))))
    assert (column(decoded, "octets"), column(decoded, "flow_direction")) == ([6], [255])


@pytest.mark.parametrize("size", range(1, 8))
def test_padding_alone_in_a_set_is_no_record_and_no_fault(size: int) -> None:
    """Some exporters pad to 8 octets: up to 7 of them, whatever they look like."""
    for padding in (bytes(size), b"\x01\x00\x00\x08\x00\x00\x00"[:size]):
        decoded = decode(ipfix(framed(2, template(256, BASIC)), framed(256, padding), framed(256, basic(2), padding)))
        assert (column(decoded, "octets"), kinds(decoded)) == ([2], {})


def test_a_record_of_4_octets_takes_4_octets_and_leaves_3() -> None:
    decoded = decode(ipfix(framed(2, template(256, [(1, 4)])), framed(256, bytes(4), bytes(3))))
    assert (decoded.counts.data_records, kinds(decoded)) == (1, {})


@pytest.mark.parametrize("size", range(1, 8))
def test_zeros_behind_the_last_set_are_padding(size: int) -> None:
    message = v9(framed(0, template(256, BASIC)), framed(256, basic(2)), bytes(size))
    assert kinds(decode(message)) == {}
    assert kinds(decode(v9(framed(0, template(256, BASIC)), bytes(12)))) == {"set_length": 1}


@pytest.mark.parametrize("element", [291, 292, 293])
@pytest.mark.parametrize("length", [11, 65535])
def test_structured_data_of_rfc_6313_is_skipped_by_its_length(element: int, length: int) -> None:
    """A list holds what looks like fields of a flow: none of it may be taken for one."""
    inner = b"\x03" + struct.pack(">HH", 1, 4) + b"\0\0\xff\xff" + b"\x01\x02"
    assert len(inner) == 11
    field = inner if length == 11 else bytes([len(inner)]) + inner
    fields = [(8, 4), (element, length), (12, 4), (element, length), (1, 4), (2, 4)]
    record = struct.pack(">I", 0xC0000201) + field + struct.pack(">I", 0xC6336401) + field + struct.pack(">II", 1000, 10)
    long = b"\xff\x01\x00" + bytes(256) if length == 65535 else field
    second = record[:4] + long + record[4 + len(field) :]
    decoded = decode(ipfix(framed(2, template(256, fields)), framed(256, record, second)))
    assert (column(decoded, "octets"), column(decoded, "packets")) == ([1000, 1000], [10, 10])
    assert not decoded.faults


# repeated elements ----------------------------------------------------------------------------------------------------
def test_of_repeated_elements_the_first_counts_unless_the_exporter_s_setting_says_the_last() -> None:
    """Junos repeats observationTimeMilliseconds: first the event, then the allocation (nfdump issue 320)."""
    fields = [(8, 4), (12, 4), (1, 4), (1, 4), (323, 8), (323, 8)]
    record = struct.pack(">IIIIQQ", 1, 2, 111, 222, NOW - 1000, NOW - 9000)
    message = ipfix(framed(2, template(256, fields)), framed(256, record))
    first = decode(message)
    assert (column(first, "octets"), column(first, "end")) == ([111], [NOW - 1000])
    setting = CollectorSettings(exporters=(Exporter(parse_address("192.0.2.1"), repeated="last"),))
    last = decode(message, settings=setting)
    assert (column(last, "octets"), column(last, "end")) == ([222], [NOW - 9000])


def test_a_repeated_element_of_a_useless_length_does_not_count_as_the_first() -> None:
    fields = [(8, 4), (12, 4), (1, 16), (1, 4), (2, 4)]
    decoded = decode(ipfix(framed(2, template(256, fields)), framed(256, bytes(24) + struct.pack(">II", 5, 1))))
    assert column(decoded, "octets") == [5]


def test_of_different_elements_for_one_value_the_first_counts_whatever_the_rule() -> None:
    fields = [(8, 4), (12, 4), (352, 4), (2, 4), (58, 2), (243, 2)]
    record = struct.pack(">IIIIHH", 1, 2, 1000, 1, 0, 9)
    assert column(decode(ipfix(framed(2, template(256, fields)), framed(256, record))), "octets") == [1000 - 14]


# biflows --------------------------------------------------------------------------------------------------------------
def reverse(element: int) -> int:
    return 29305 << 32 | element


def test_a_biflow_is_two_flows_with_counts_flags_tos_and_times_of_their_own() -> None:
    fields = [*BASIC, (4, 1), (7, 2), (11, 2), (5, 1), (6, 1), (152, 8), (153, 8), (10, 4), (14, 4), (61, 1),
              (reverse(1), 8), (reverse(2), 4), (reverse(6), 2), (reverse(5), 1), (reverse(152), 8), (reverse(153), 8)]
    more = struct.pack(">BHHBBQQIIBQIHBQQ", 6, 40_000, 443, 0x20, 0x1B, NOW - 5000, NOW - 1000, 3, 4, 0,
                       7_000, 8, 0x12, 0x40, NOW - 4900, NOW - 900)
    decoded = decode(ipfix(framed(2, template(256, fields)), framed(256, basic(1000, 10, more))))
    assert (decoded.counts.data_records, decoded.counts.flows) == (1, 2)
    names = ("octets", "packets", "source_port", "destination_port", "tos", "tcp_flags", "start", "end", "input_interface",
             "output_interface", "flow_direction", "flags")
    one, two = zip(*(column(decoded, name) for name in names), strict=True)
    assert one == (1000, 10, 40_000, 443, 0x20, 0x1B, NOW - 5000, NOW - 1000, 3, 4, 0, 0)
    assert two == (7000, 8, 443, 40_000, 0x40, 0x12, NOW - 4900, NOW - 900, 4, 3, 1, FlowFlag.REVERSE)
    source, destination = decoded.flows["source_address"], decoded.flows["destination_address"]
    assert source[1].tobytes() == destination[0].tobytes()


@pytest.mark.parametrize(("elements", "data", "start", "end"), [
    ([(150, 4), (151, 4), (reverse(150), 4), (reverse(151), 4)],
     struct.pack(">IIII", NOW_S - 9, NOW_S - 3, NOW_S - 8, NOW_S - 2), -8000, -2000),
    ([(154, 8), (155, 8), (reverse(154), 8), (reverse(155), 8)],
     struct.pack(">QQQQ", *((NOW_S + 2_208_988_800 - s) << 32 for s in (9, 3, 7, 1))), -7000, -1000),
    ([(152, 8), (153, 8), (reverse(152), 8)], struct.pack(">QQQ", NOW - 9000, NOW - 3000, NOW - 8500), -8500, -3000),
    ([(152, 8), (153, 8), (6871 << 32 | 21, 4)], struct.pack(">QQI", NOW - 9000, NOW - 3000, 120), -8880, -3000),
    ([(152, 8), (153, 8)], struct.pack(">QQ", NOW - 9000, NOW - 3000), -9000, -3000),
    ([(152, 8), (153, 8), (reverse(152), 8), (reverse(153), 8)],
     struct.pack(">QQQQ", NOW - 9000, NOW - 3000, 0, 0), -9000, -3000),
])
def test_times_of_the_second_direction(elements: list[tuple[int, int]], data: bytes, start: int, end: int) -> None:
    fields = [*BASIC, (reverse(1), 4), *elements]
    decoded = decode(ipfix(framed(2, template(256, fields)), framed(256, basic(more=struct.pack(">I", 5) + data))))
    assert (column(decoded, "start")[1], column(decoded, "end")[1]) == (NOW + start, NOW + end)


def test_uptimes_of_the_second_direction_count_from_the_same_boot() -> None:
    fields = [*BASIC, (22, 4), (21, 4), (reverse(1), 4), (reverse(22), 4), (reverse(21), 4), (160, 8)]
    more = struct.pack(">IIIIIQ", 1000, 3000, 9, 1500, 2500, NOW - 60_000)
    decoded = decode(ipfix(framed(2, template(256, fields)), framed(256, basic(more=more))))
    assert column(decoded, "start") == [NOW - 59_000, NOW - 58_500]
    assert column(decoded, "end") == [NOW - 57_000, NOW - 57_500]


def test_times_of_the_second_direction_follow_the_clock_rule() -> None:
    old = NOW - 3_600_000
    fields = [*BASIC, (152, 8), (153, 8), (reverse(1), 4), (reverse(152), 8), (reverse(153), 8)]
    more = struct.pack(">QQIQQ", old - 50, old - 10, 1, old - 40, old - 20)
    decoded = decode(ipfix(framed(2, template(256, fields)), framed(256, basic(more=more)), seconds=NOW_S - 3600))
    assert column(decoded, "start") == [NOW - 50, NOW - 40]
    assert column(decoded, "end") == [NOW - 10, NOW - 20]


def test_a_second_direction_of_more_than_2_to_the_32_milliseconds_is_a_fault_of_the_record() -> None:
    fields = [*BASIC, (152, 8), (153, 8), (reverse(1), 4), (reverse(152), 8), (reverse(153), 8)]
    more = struct.pack(">QQIQQ", NOW - 50, NOW, 1, NOW - 2**32, NOW)
    decoded = decode(ipfix(framed(2, template(256, fields)), framed(256, basic(more=more))))
    assert (decoded.counts.flows, kinds(decoded)) == (0, {"duration_too_long": 1})
