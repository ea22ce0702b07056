"""The sampling rate of a flow: record, sampler, domain, header, settings, policy; and where it was learned."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from decoding import NOW, decode, feed
from exports import (
    BASIC,
    NOW_S,
    basic,
    framed,
    ipfix,
    ipfix_options_template,
    template,
    v5,
    v5_record,
    v9,
    v9_options_template,
)
from journal_bodies import Datagram

from collector.decoder import Decoded, Decoder
from collector.settings import CollectorSettings, Exporter
from core.addresses import parse_address
from core.schemas import RateSource

CONFIGURED = CollectorSettings(exporters=(Exporter(parse_address("192.0.2.1"), None, 5),))


def rates(decoded: Decoded) -> list[tuple[int, int, RateSource]]:
    f = decoded.flows
    return [(n, d, RateSource(source)) for n, d, source in zip(
        f["rate_numerator"].tolist(), f["rate_denominator"].tolist(), f["rate_source"].tolist(), strict=True)]


def announced(fields: list[tuple[int, int]], *records: bytes, scope: int = 1) -> tuple[bytes, bytes]:
    return framed(3, ipfix_options_template(300, fields, scope)), framed(300, *records)


@pytest.mark.parametrize(("fields", "data", "rate"), [
    ([(34, 4)], struct.pack(">I", 100), (100, 1)),
    ([(34, 4), (35, 1)], struct.pack(">IB", 100, 2), (100, 1)),
    ([(50, 4), (49, 1)], struct.pack(">IB", 64, 2), (64, 1)),
    ([(304, 2), (305, 4), (306, 4)], struct.pack(">HII", 1, 1, 999), (1000, 1)),
    ([(304, 2), (305, 4), (306, 4)], struct.pack(">HII", 1, 4, 6), (5, 2)),
    ([(305, 4)], struct.pack(">I", 7), (1, 1)),
    ([(304, 2), (309, 4), (310, 4)], struct.pack(">HII", 3, 1, 512), (512, 1)),
    ([(309, 4), (310, 4)], struct.pack(">II", 10, 25), (5, 2)),
])
def test_every_way_to_write_a_rate_in_a_record_and_in_options_of_a_domain(fields: list[tuple[int, int]], data: bytes,
                                                                        rate: tuple[int, int]) -> None:
    in_record = ipfix(framed(2, template(256, [*BASIC, *fields])), framed(256, basic(more=data)))
    assert rates(decode(in_record, settings=CONFIGURED)) == [(*rate, RateSource.RECORD)]
    options = announced([(144, 4), *fields], struct.pack(">I", 1) + data)
    in_domain = ipfix(*options, framed(2, template(256, BASIC)), framed(256, basic()))
    assert rates(decode(in_domain, settings=CONFIGURED)) == [(*rate, RateSource.DOMAIN)]


@pytest.mark.parametrize(("identifier", "size"), [(48, 1), (48, 2), (48, 4), (302, 8), (302, 2)])
def test_a_sampler_or_selector_is_looked_up_by_its_number(identifier: int, size: int) -> None:
    fields = [(identifier, size), (309, 4), (310, 4)]
    records = [number.to_bytes(size, "big") + struct.pack(">II", 1, 100 * number) for number in (1, 2, 200)]
    data = [basic(number, more=number.to_bytes(size, "big")) for number in (200, 1, 3)]
    decoded = decode(ipfix(*announced(fields, *records), framed(2, template(256, [*BASIC, (identifier, size)])),
                           framed(256, *data)), settings=CONFIGURED)
    assert rates(decoded) == [(20_000, 1, RateSource.SAMPLER), (100, 1, RateSource.SAMPLER), (5, 1, RateSource.CONFIGURED)]


def test_cisco_s_sampler_table_of_v9() -> None:
    options = framed(1, v9_options_template(300, [(1, 4)], [(48, 1), (84, 8), (49, 1), (50, 4)]))
    table = framed(300, struct.pack(">IB8sBI", 0, 1, b"ONE", 2, 10), struct.pack(">IB8sBI", 0, 2, b"TWO", 2, 1000))
    data = framed(256, basic(1, more=b"\x02"), basic(2, more=b"\x01"), basic(3, more=b"\x00"))
    decoded = decode(v9(options, table, framed(0, template(256, [*BASIC, (48, 1)])), data))
    assert rates(decoded) == [(1000, 1, RateSource.SAMPLER), (10, 1, RateSource.SAMPLER), (1, 1, RateSource.ASSUMED)]


def test_a_sampler_and_a_selector_of_one_number_are_two() -> None:
    sampler = announced([(48, 4), (34, 4)], struct.pack(">II", 1, 10))
    selector = framed(3, ipfix_options_template(301, [(302, 4), (34, 4)])), framed(301, struct.pack(">II", 1, 20))
    decoded = decode(ipfix(*sampler, *selector, framed(2, template(256, [*BASIC, (48, 4)]), template(257, [*BASIC, (302, 4)])),
                           framed(256, basic(more=struct.pack(">I", 1))), framed(257, basic(more=struct.pack(">I", 1)))))
    assert rates(decoded) == [(10, 1, RateSource.SAMPLER), (20, 1, RateSource.SAMPLER)]


def test_a_sampler_that_is_redefined_holds_for_what_comes_after_it() -> None:
    decoder = Decoder(CollectorSettings())
    data = framed(256, basic(more=b"\x03"))
    table = framed(1, v9_options_template(300, [(1, 4)], [(48, 1), (50, 4)]))

    def is_now(rate: int) -> bytes:
        return framed(300, struct.pack(">IBI", 0, 3, rate))

    define = framed(0, template(256, [*BASIC, (48, 1)]))
    first = feed(decoder, v9(define, table, is_now(10), data, is_now(20), data, sequence=0))
    second = feed(decoder, v9(data, is_now(30), sequence=1), v9(data, sequence=2), block=1)
    assert [rate for rate, _, _ in rates(first) + rates(second)] == [10, 20, 20, 30]


def test_what_waited_has_the_rate_that_holds_when_it_is_read() -> None:
    decoder = Decoder(CollectorSettings())
    feed(decoder, v9(framed(256, basic(more=b"\x03")), sequence=0))
    table = framed(1, v9_options_template(300, [(1, 4)], [(48, 1), (50, 4)]))
    late = feed(decoder, v9(table, framed(300, struct.pack(">IBI", 0, 3, 70)), framed(0, template(256, [*BASIC, (48, 1)])),
                            sequence=1), block=1)
    assert rates(late) == [(70, 1, RateSource.SAMPLER)]


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_the_header_of_v5_has_a_rate_in_its_lower_14_bits_whatever_the_mode(mode: int) -> None:
    decoded = decode(v5([v5_record()], sampling=mode << 14 | 1000), settings=CONFIGURED)
    assert rates(decoded) == [(1000, 1, RateSource.HEADER)]
    assert rates(decode(v5([v5_record()], sampling=mode << 14), settings=CONFIGURED)) == [(5, 1, RateSource.CONFIGURED)]


def test_each_source_gives_way_to_the_one_before_it() -> None:
    """One stream in which all of them are there, and then one less at a time."""
    fields = [*BASIC, (34, 4), (48, 1)]
    sets = [*announced([(48, 1), (50, 4)], struct.pack(">BI", 3, 30)),
            framed(3, ipfix_options_template(301, [(144, 4), (34, 4)])), framed(301, struct.pack(">II", 1, 40)),
            framed(2, template(256, fields))]
    data = [basic(1, more=struct.pack(">IB", 20, 3)), basic(2, more=struct.pack(">IB", 0, 3)),
            basic(3, more=struct.pack(">IB", 0, 9))]
    decoded = decode(ipfix(*sets, framed(256, *data)), settings=CONFIGURED)
    assert rates(decoded) == [(20, 1, RateSource.RECORD), (30, 1, RateSource.SAMPLER), (40, 1, RateSource.DOMAIN)]
    withdrawn = ipfix(*sets, framed(301, struct.pack(">II", 1, 0)), framed(256, data[2]))
    assert rates(decode(withdrawn, settings=CONFIGURED)) == [(5, 1, RateSource.CONFIGURED)]
    assert rates(decode(withdrawn)) == [(1, 1, RateSource.ASSUMED)]


@pytest.mark.parametrize(("fields", "data"), [
    ([(34, 4)], struct.pack(">I", 0)), ([(305, 4), (306, 4)], struct.pack(">II", 0, 9)),
    ([(309, 4), (310, 4)], struct.pack(">II", 0, 9)), ([(309, 4), (310, 4)], struct.pack(">II", 9, 3)),
    ([(34, 8)], struct.pack(">Q", 2**40)), ([(34, 8)], b"\xff" * 8),
])
def test_a_rate_that_can_t_be_is_none(fields: list[tuple[int, int]], data: bytes) -> None:
    message = ipfix(framed(2, template(256, [*BASIC, *fields])), framed(256, basic(more=data)))
    assert rates(decode(message, settings=CONFIGURED)) == [(5, 1, RateSource.CONFIGURED)]


def test_rates_belong_to_their_domain() -> None:
    one = ipfix(*announced([(144, 4), (34, 4)], struct.pack(">II", 1, 50)), domain=1)

    def data(domain: int) -> Any:
        return Datagram(ipfix(framed(2, template(256, BASIC)), framed(256, basic()), domain=domain, seconds=NOW_S + 1), NOW)

    assert rates(decode(one, data(1), data(2))) == [(50, 1, RateSource.DOMAIN), (1, 1, RateSource.ASSUMED)]
