"""Port blocks of a NAT: which records are events, and what blocks make of any order of them."""

from __future__ import annotations

import random
import struct
from itertools import permutations

import pytest
from decoding import NOW, decode, feed, kinds
from exports import NOW_S, framed, ipfix, template, v9

from collector.decoder import Decoder
from collector.port_blocks import (
    ALLOCATED,
    FREED,
    MALFORMED,
    NOT_CONTIGUOUS,
    REPEATED,
    UNMATCHED,
    Block,
    Event,
    lives,
)
from collector.settings import CollectorSettings
from core.addresses import format_address, parse_address
from core.periods import OPEN_END

INSIDE, OUTSIDE = 0x64400005, 0xCB007105  # 100.64.0.5, 203.0.113.5
RFC_8158 = [(323, 8), (8, 4), (225, 4), (361, 2), (362, 2), (363, 2), (364, 2), (230, 1), (234, 4)]


def record(code: int, at: int = NOW, first: int = 1024, last: int = 1535, step: int = 1, count: int = 512) -> bytes:
    return struct.pack(">QIIHHHHBI", at, INSIDE, OUTSIDE, first, last, step, count, code, 0)


def events_of(*records: bytes, fields: list[tuple[int, int]] = RFC_8158) -> list[tuple[int, ...]]:
    decoded = decode(ipfix(framed(2, template(300, fields)), framed(300, *records)))
    assert not decoded.faults
    blocks = decoded.port_blocks
    return list(zip(*(blocks[name].tolist() for name in ("event", "at", "port_first", "port_last", "port_step", "protocol")),
                    strict=True))


# decoding -------------------------------------------------------------------------------------------------------------
def test_the_records_of_rfc_8158_are_events_and_no_flows() -> None:
    decoded = decode(ipfix(framed(2, template(300, RFC_8158)), framed(300, record(16), record(17, NOW + 5)), domain=9))
    blocks = decoded.port_blocks
    assert blocks["event"].tolist() == [ALLOCATED, FREED]
    assert blocks["at"].tolist() == [NOW, NOW + 5]
    assert [format_address(row.tobytes()) for row in blocks["inside"]] == ["100.64.0.5"] * 2
    assert [format_address(row.tobytes()) for row in blocks["outside"]] == ["203.0.113.5"] * 2
    assert [format_address(row.tobytes()) for row in blocks["exporter"]] == ["192.0.2.1"] * 2
    assert (blocks["domain"].tolist(), blocks["received"].tolist()) == ([9, 9], [NOW, NOW])
    assert (decoded.counts.flows, decoded.counts.not_a_flow) == (0, 2)


@pytest.mark.parametrize(("code", "event"), [(16, ALLOCATED), (17, FREED), (14, ALLOCATED), (15, FREED), (1, ALLOCATED),
                                             (2, FREED)])
def test_older_codes_mean_the_same_beside_a_port_range(code: int, event: int) -> None:
    """Junos keeps draft-ietf-behave-ipfix-nat-logging-02 (14, 15); in NetFlow v9 Cisco and Junos write 1 and 2."""
    assert events_of(record(code))[0][0] == event


@pytest.mark.parametrize("code", [0, 3, 4, 10, 12, 13, 18])
def test_other_events_of_a_nat_are_none_of_blocks(code: int) -> None:
    assert events_of(record(code)) == []


def test_the_last_port_follows_from_the_number_of_ports() -> None:
    """Cisco: start, step and number of ports; NetFlow v9."""
    fields = [(8, 4), (225, 4), (4, 1), (361, 2), (363, 2), (364, 2), (230, 1), (323, 8)]
    data = struct.pack(">IIBHHHBQ", INSIDE, OUTSIDE, 17, 2048, 1, 512, 1, NOW)
    decoded = decode(v9(framed(0, template(256, fields)), framed(256, data)))
    blocks = decoded.port_blocks
    assert (blocks["port_first"].tolist(), blocks["port_last"].tolist(), blocks["protocol"].tolist()) == ([2048], [2559], [17])


def test_of_two_times_of_junos_the_first_is_that_of_the_event() -> None:
    fields = [(323, 8), (8, 4), (225, 4), (361, 2), (362, 2), (230, 1), (323, 8)]
    data = struct.pack(">QIIHHBQ", NOW, INSIDE, OUTSIDE, 1024, 1535, 15, NOW - 90_000)
    assert events_of(data, fields=fields) == [(FREED, NOW, 1024, 1535, 1, 0)]


def test_without_a_time_of_its_own_an_event_has_that_of_its_message() -> None:
    fields = [(8, 4), (225, 4), (361, 2), (362, 2), (230, 1)]
    assert events_of(struct.pack(">IIHHB", INSIDE, OUTSIDE, 1024, 1535, 16), fields=fields)[0][1] == NOW


def test_an_exporter_s_wrong_clock_is_moved_as_it_is_for_flows() -> None:
    message = ipfix(framed(2, template(300, RFC_8158)), framed(300, record(16, NOW - 7_200_500)), seconds=NOW_S - 7200)
    assert decode(message).port_blocks["at"].tolist() == [NOW - 500]


def test_the_ipv6_address_of_ds_lite_is_the_inside() -> None:
    fields = [(27, 16), (8, 4), (225, 4), (361, 2), (362, 2), (230, 1)]
    b4 = parse_address("2001:db8::b4")
    data = b4 + struct.pack(">IIHHB", 0xC0A80001, OUTSIDE, 1024, 1535, 16)
    decoded = decode(ipfix(framed(2, template(300, fields)), framed(300, data)))
    assert decoded.port_blocks["inside"][0].tobytes() == b4


def test_events_wait_for_their_template_like_any_data() -> None:
    decoder = Decoder(CollectorSettings())
    early = feed(decoder, ipfix(framed(300, record(16)), seconds=NOW_S))
    assert len(early.port_blocks["event"]) == 0
    late = feed(decoder, ipfix(framed(2, template(300, RFC_8158)), seconds=NOW_S + 1), block=1)
    assert late.port_blocks["event"].tolist() == [ALLOCATED]


def test_a_flood_of_events_is_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.decoder.PORT_BLOCKS_MAX", 100)
    decoded = decode(ipfix(framed(2, template(300, RFC_8158)), framed(300, *[record(16)] * 130)))
    assert (len(decoded.port_blocks["event"]), kinds(decoded)) == (100, {"port_blocks_full": 30})


# lives ----------------------------------------------------------------------------------------------------------------
def event(number: int, at: int, code: int, inside: int = 5, first: int = 1024, last: int = 1535, protocol: int = 0,
          step: int = 1) -> Event:
    address = parse_address(f"100.64.0.{inside}") if inside else bytes(16)
    return Event(number, b"x" * 16, at, code, address, parse_address("203.0.113.5"), first, last, step, protocol)


def told(blocks: list[Block]) -> list[tuple[int, int, int, int]]:
    """(last octet of the inside, first port, start, end) of every block."""
    return sorted((block.event.inside[15], block.event.port_first, block.event.at, block.end) for block in blocks)


def test_a_block_lasts_from_its_allocation_to_its_release() -> None:
    blocks, outcomes = lives([event(1, 100, ALLOCATED), event(2, 300, FREED), event(3, 500, ALLOCATED)])
    assert told(blocks) == [(5, 1024, 100, 300), (5, 1024, 500, OPEN_END)]
    assert outcomes == {2: "freed"}


def test_a_lost_release_is_made_up_for_by_the_next_allocation_of_the_same_ports() -> None:
    blocks, _ = lives([event(1, 100, ALLOCATED), event(2, 300, ALLOCATED, inside=6)])
    assert told(blocks) == [(5, 1024, 100, 300), (6, 1024, 300, OPEN_END)]


def test_blocks_of_another_size_take_the_ports_they_share() -> None:
    blocks, _ = lives([event(1, 100, ALLOCATED), event(2, 100, ALLOCATED, inside=6, first=1536, last=2047),
                       event(3, 400, ALLOCATED, inside=7, first=1500, last=1600)])
    assert told(blocks) == [(5, 1024, 100, 400), (6, 1536, 100, 400), (7, 1500, 400, OPEN_END)]


def test_an_allocation_that_is_told_again_changes_nothing() -> None:
    blocks, outcomes = lives([event(1, 100, ALLOCATED), event(2, 200, ALLOCATED), event(3, 300, FREED)])
    assert (told(blocks), outcomes[2]) == ([(5, 1024, 100, 300)], REPEATED)


def test_a_release_of_somebody_else_s_block_ends_nothing() -> None:
    blocks, outcomes = lives([event(1, 100, ALLOCATED), event(2, 200, FREED, inside=6),
                              event(3, 250, FREED, first=2048, last=3000)])
    assert told(blocks) == [(5, 1024, 100, OPEN_END)]
    assert outcomes == {2: UNMATCHED, 3: UNMATCHED}


def test_a_release_may_leave_out_the_inside_and_the_last_port() -> None:
    blocks, _ = lives([event(1, 100, ALLOCATED), event(2, 200, FREED, inside=0, last=0)])
    assert told(blocks) == [(5, 1024, 100, 200)]


def test_release_and_allocation_in_one_millisecond_hand_the_block_over() -> None:
    blocks, _ = lives([event(1, 100, ALLOCATED), event(2, 200, FREED), event(3, 200, ALLOCATED, inside=6)])
    assert told(blocks) == [(5, 1024, 100, 200), (6, 1024, 200, OPEN_END)]
    again, _ = lives([event(1, 100, ALLOCATED), event(2, 200, FREED), event(3, 200, ALLOCATED)])
    assert told(again) == [(5, 1024, 100, 200), (5, 1024, 200, OPEN_END)]


def test_protocols_of_one_port_are_blocks_of_their_own() -> None:
    blocks, _ = lives([event(1, 100, ALLOCATED, protocol=6), event(2, 100, ALLOCATED, inside=6, protocol=17),
                       event(3, 300, FREED, protocol=6)])
    assert told(blocks) == [(5, 1024, 100, 300), (6, 1024, 100, OPEN_END)]


def test_what_is_no_lease_is_named() -> None:
    _, outcomes = lives([event(1, 1, ALLOCATED, step=8), event(2, 1, ALLOCATED, first=9, last=8),
                         event(3, 1, ALLOCATED, inside=0), event(4, 1, ALLOCATED, first=65_536, last=65_536)])
    assert outcomes == {1: NOT_CONTIGUOUS, 2: MALFORMED, 3: MALFORMED, 4: MALFORMED}


@pytest.mark.parametrize("seed", range(40))
def test_the_order_of_arrival_does_not_matter(seed: int) -> None:
    source = random.Random(seed)
    events = [(source.randrange(12), source.choice((ALLOCATED, FREED)), source.randrange(1, 4), source.choice((0, 512)))
              for _ in range(7)]

    def outcome(order: list[int]) -> list[tuple[int, int, int, int]]:
        return told(lives([event(number, at, code, inside, 1024 + shift, 1535 + shift)
                           for number, (at, code, inside, shift) in ((n, events[k]) for n, k in enumerate(order))])[0])

    orders = [list(order) for order in permutations(range(7))]
    first = outcome(orders[0])
    for order in source.sample(orders, 60):
        assert outcome(order) == first


@pytest.mark.parametrize("seed", range(20))
def test_no_port_belongs_to_two_at_one_time(seed: int) -> None:
    source = random.Random(seed)
    events = [event(n, source.randrange(50), source.choice((ALLOCATED, FREED)), source.randrange(1, 5),
                    first := 1024 + 256 * source.randrange(6), first + source.choice((255, 511)), source.choice((0, 6, 17)))
              for n in range(40)]
    blocks, _ = lives(events)
    for n, one in enumerate(blocks):
        for other in blocks[:n]:
            apart = one.event.port_last < other.event.port_first or other.event.port_last < one.event.port_first
            protocols = {one.event.protocol, other.event.protocol}
            separate = apart or (0 not in protocols and len(protocols) == 2)
            assert separate or one.end <= other.event.at or other.end <= one.event.at
