"""Transport sessions in the decoder (RFC 7011 §8, §10.4.3): what a TCP connection or a NAT's port keeps to itself."""

from __future__ import annotations

import random
from typing import Any

import pytest
from exports import BASIC, NOW_S, basic, framed, ipfix, template, v5, v5_record, v9
from journal_bodies import Datagram, body_of

from collector.decoder import Decoded, Decoder
from collector.faults import FaultKind
from collector.kernels import codes
from collector.settings import Collector, CollectorSettings, Exporter
from collector.state import DecoderState, ExporterRow
from core.addresses import parse_address

NOW = NOW_S * 1000
SWAPPED = [(12, 4), (8, 4), (2, 4), (1, 4)]
"""BASIC with its fields the other way round: octets are packets and the reverse."""
TEMPLATE = framed(2, template(256, BASIC))
WITHDRAWN = framed(2, b"\x01\x00\x00\x00")


def message(*sets: bytes, session: int = 1, port: int = 40_000, begins: bool = False, **about: Any) -> Datagram:
    received = about.pop("received", NOW)
    source = about.pop("source", "192.0.2.1")
    flags = codes.SESSION_BEGINS if begins else 0
    return Datagram(ipfix(*sets, **about), received, source, flags, codes.TCP, port, session)


def end(session: int = 1, port: int = 40_000, flags: int = 0, payload: bytes = b"", received: int = NOW) -> Datagram:
    return Datagram(payload, received, "192.0.2.1", codes.SESSION_ENDS | flags, codes.TCP, port, session)


def decoder_of(**settings: Any) -> Decoder:
    exporters = settings.pop("exporters", ())
    return Decoder(CollectorSettings(collector=Collector(**settings), exporters=exporters))


def kinds(*decoded: Decoded) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in decoded:
        for _, _, kind, count in one.faults:
            found[kind.label] = found.get(kind.label, 0) + count
    return found


def octets(*decoded: Decoded) -> list[int]:
    return sorted(int(n) for one in decoded for n in one.flows["octets"])


def the_exporter(decoder: Decoder, domain: int = 7) -> ExporterRow:
    (row,) = (row for row in decoder.state.exporters() if row.domain == domain)
    return row


def live_rows(decoder: Decoder) -> int:
    counts = decoder.state.arrays.counts[0]
    return int(counts["domains"] - counts["free"] - counts["ended"])


# templates belong to the session --------------------------------------------------------------------------------------
def test_two_sessions_of_one_exporter_use_the_same_template_id_for_different_layouts() -> None:
    decoder = decoder_of()
    decoded = decoder.feed(body_of([
        message(TEMPLATE, framed(256, basic(1000, 10)), session=1, begins=True),
        message(framed(2, template(256, SWAPPED)), framed(256, basic(11, 2000)), session=2, port=40_001, begins=True),
        message(framed(256, basic(3000, 10)), session=1, sequence=1),
        message(framed(256, basic(12, 4000)), session=2, port=40_001, sequence=1),
    ]), 0)
    assert octets(decoded) == [1000, 2000, 3000, 4000]
    assert kinds(decoded) == {}
    assert (the_exporter(decoder).received, the_exporter(decoder).missing, the_exporter(decoder).sessions) == (4, 0, 2)


def test_one_source_port_may_hold_a_session_to_each_of_two_listeners() -> None:
    decoded = decoder_of().feed(body_of([
        message(TEMPLATE, session=1, begins=True), message(framed(2, template(256, SWAPPED)), session=2, begins=True),
        message(framed(256, basic(1000, 10)), session=1), message(framed(256, basic(11, 2000)), session=2)]), 0)
    assert octets(decoded) == [1000, 2000]


@pytest.mark.parametrize("blocks", [1, 2])
def test_templates_end_with_their_session(blocks: int) -> None:
    decoder = decoder_of()
    datagrams = [message(TEMPLATE, framed(256, basic(1000)), begins=True), end(),
                 message(framed(256, basic(2000)), session=2, begins=True)]
    parts = [datagrams] if blocks == 1 else [datagrams[:2], datagrams[2:]]
    decoded = [decoder.feed(body_of(part), n) for n, part in enumerate(parts)]
    assert octets(*decoded) == [1000]
    assert decoded[-1].counts.waiting == 1, "the new session has to announce its own"


def test_a_session_that_begins_on_the_same_port_ends_the_one_before() -> None:
    """The end of a session is not in the journal if the receiver was killed, and captures number no sessions."""
    decoder = decoder_of()
    decoded = decoder.feed(body_of([
        message(TEMPLATE, framed(256, basic(1000, 10)), session=0, begins=True, sequence=500),
        message(framed(2, template(256, SWAPPED)), framed(256, basic(11, 2000)), session=0, begins=True, sequence=9),
        message(framed(256, basic(12, 3000)), session=0, sequence=10)]), 0)
    assert octets(decoded) == [1000, 2000, 3000]
    row = the_exporter(decoder)
    assert (kinds(decoded), row.missing, row.restarts, row.sessions, row.sessions_ended) == ({}, 0, 0, 1, 1)


def test_what_waits_in_a_session_is_given_up_when_it_ends() -> None:
    decoder = decoder_of()
    decoded = decoder.feed(body_of([message(framed(256, basic()), framed(257, basic()), begins=True), end()]), 0)
    assert (kinds(decoded), decoded.counts.waiting, decoder.state.waiting) == ({"waiting_expired": 2}, 0, 0)
    assert the_exporter(decoder).waiting == 0
    assert decoded.counts.expired_sets == 2


def test_a_template_may_come_after_its_data_in_the_same_session_only() -> None:
    decoder = decoder_of()
    decoded = decoder.feed(body_of([
        message(framed(256, basic(1000)), session=1, begins=True),
        message(framed(256, basic(2000)), session=2, port=9, begins=True),
        message(TEMPLATE, session=2, port=9, sequence=1)]), 0)
    assert octets(decoded) == [2000]
    assert decoded.counts.waiting == 1
    assert the_exporter(decoder).missing == 0


def test_samplers_and_rates_end_with_their_session() -> None:
    from exports import ipfix_options_template

    options = framed(3, ipfix_options_template(300, [(149, 4), (305, 4), (306, 4)])) + framed(
        300, (7).to_bytes(4, "big") + (1).to_bytes(4, "big") + (99).to_bytes(4, "big"))
    decoder = decoder_of()
    first = decoder.feed(body_of([message(options, TEMPLATE, framed(256, basic()), begins=True), end()]), 0)
    second = decoder.feed(body_of([message(TEMPLATE, framed(256, basic()), session=2, begins=True)]), 1)
    assert first.flows["rate_numerator"].tolist() == [100]
    assert second.flows["rate_numerator"].tolist() == [1]


# definitions over TCP -------------------------------------------------------------------------------------------------
def test_a_template_that_is_defined_anew_without_withdrawal_is_a_fault_and_read() -> None:
    decoder = decoder_of()
    decoded = decoder.feed(body_of([
        message(TEMPLATE, framed(256, basic(1000, 10)), begins=True),
        message(TEMPLATE, sequence=1),
        message(framed(2, template(256, SWAPPED)), framed(256, basic(11, 2000)), sequence=1, seconds=NOW_S + 1)]), 0)
    assert octets(decoded) == [1000, 2000]
    assert kinds(decoded) == {"template_redefined": 1}, "the same definition again is none"


def test_a_withdrawn_template_may_be_defined_anew() -> None:
    decoded = decoder_of().feed(body_of([
        message(TEMPLATE, framed(256, basic(1000, 10)), begins=True),
        message(WITHDRAWN, framed(2, template(256, SWAPPED)), framed(256, basic(11, 2000)), sequence=1)]), 0)
    assert (octets(decoded), kinds(decoded)) == ([1000, 2000], {})


def test_over_udp_a_template_is_defined_anew_without_a_word() -> None:
    decoded = decoder_of().feed(body_of([
        Datagram(ipfix(TEMPLATE, framed(256, basic(1000, 10)))),
        Datagram(ipfix(framed(2, template(256, SWAPPED)), framed(256, basic(11, 2000)), sequence=1))]), 0)
    assert (octets(decoded), kinds(decoded)) == ([1000, 2000], {})


# sequence numbers -----------------------------------------------------------------------------------------------------
def test_a_gap_inside_a_session_is_missing_and_a_new_session_is_no_loss() -> None:
    decoder = decoder_of()
    decoder.feed(body_of([
        message(TEMPLATE, framed(256, basic()), sequence=100, begins=True), message(framed(256, basic()), sequence=104),
        end(), message(TEMPLATE, framed(256, basic()), sequence=7_000_000, session=2, begins=True),
        message(framed(256, basic()), sequence=7_000_001, session=2),
        message(TEMPLATE, framed(256, basic()), sequence=0, session=3, begins=True)]), 0)
    row = the_exporter(decoder)
    assert (row.received, row.missing, row.restarts, row.reordered) == (5, 3, 0, 0)
    assert (row.sessions, row.sessions_ended) == (2, 1)


def test_the_same_message_in_a_new_session_is_no_copy_of_the_old_one() -> None:
    """An exporter that reconnects within a second begins with the same octets as before."""
    decoder = decoder_of()
    hello = (TEMPLATE, framed(256, basic(1000)))
    decoded = [decoder.feed(body_of([message(*hello, session=n, begins=True), end(n)]), n) for n in range(1, 5)]
    assert octets(*decoded) == [1000] * 4
    assert (the_exporter(decoder).duplicate, kinds(*decoded)) == (0, {})


def test_a_copy_within_a_session_counts_once() -> None:
    one = message(TEMPLATE, framed(256, basic(1000)))
    decoder = decoder_of()
    assert octets(decoder.feed(body_of([one, one]), 0)) == [1000]
    assert the_exporter(decoder).duplicate == 1


# ends -----------------------------------------------------------------------------------------------------------------
def test_a_stream_that_goes_wrong_is_one_faulted_datagram_of_its_exporter() -> None:
    decoder = decoder_of()
    decoded = decoder.feed(body_of([
        message(TEMPLATE, framed(256, basic(1000)), begins=True), end(flags=codes.STREAM_MALFORMED, payload=b"GET "),
        message(TEMPLATE, framed(256, basic(2000)), session=2, port=9, begins=True),
        end(2, 9, codes.STREAM_CUT, ipfix(framed(256, basic()))[:20])]), 0)
    assert kinds(decoded) == {"stream_malformed": 1, "stream_cut": 1}
    counts = decoded.counts
    assert (counts.datagrams, counts.decoded, counts.faulted, counts.duplicate) == (4, 2, 2, 0)
    rows = {(row.domain, row.protocol): (row.received, row.faulted) for row in decoder.state.exporters()}
    assert rows == {(7, 10): (3, 1), (0, 0): (1, 1)}, "the message that was cut says its domain"


def test_a_session_that_ended_before_it_sent_anything_leaves_no_trace() -> None:
    decoder = decoder_of()
    decoded = decoder.feed(body_of([end()]), 0)
    assert (decoded.counts.datagrams, decoder.state.exporters()) == (0, [])


def test_a_receiver_that_begins_ends_the_sessions_that_a_killed_one_left() -> None:
    decoder = decoder_of()
    lost = Datagram(b"", NOW, "::", codes.SESSIONS_LOST, codes.TCP, 0, 0)
    decoder.feed(body_of([message(TEMPLATE, framed(256, basic()), session=n, port=n, begins=True) for n in range(1, 6)]
                         + [Datagram(ipfix(TEMPLATE, framed(256, basic())))]), 0)
    assert the_exporter(decoder).sessions == 5
    decoder.feed(body_of([lost]), 1)
    decoded = decoder.feed(body_of([Datagram(ipfix(framed(256, basic()), sequence=1))]), 2)
    row = the_exporter(decoder)
    assert (row.sessions, row.sessions_ended, row.received, decoded.counts.flows) == (0, 5, 7, 1), "UDP goes on"


def test_the_state_does_not_grow_with_reconnects() -> None:
    decoder = decoder_of()
    sizes = set()
    for n in range(1, 300):
        datagrams = []
        for k in range(7):
            number = n * 7 + k
            datagrams += [message(TEMPLATE, framed(256, basic()), framed(999, basic()), session=number, port=number % 60_000,
                                  begins=True, received=NOW + number), end(number, number % 60_000, received=NOW + number)]
        decoder.feed(body_of(datagrams), n)
        if n > 150:
            sizes.add(sum(array.nbytes for name, array in decoder.state.arrays._asdict().items() if name != "sightings"))
    row = the_exporter(decoder)
    assert (row.received, row.sessions, row.sessions_ended, row.waiting) == (299 * 7, 0, 299 * 7, 0)
    assert len(sizes) == 1
    assert decoder.state.arrays.counts[0]["domains"] < 20


def test_a_row_that_is_used_again_keeps_nothing_of_its_owner_before() -> None:
    from exports import ipfix_options_template

    options = framed(3, ipfix_options_template(300, [(149, 4), (160, 8)])) + framed(300, bytes(4) + (5).to_bytes(8, "big"))
    decoder = decoder_of(exporters=(Exporter(parse_address("192.0.2.1"), sampling=50),))
    decoder.feed(body_of([part for n in range(1, 4) for part in (
        message(TEMPLATE, options, framed(256, basic()), session=n, sequence=100 * n, begins=True), end(n))]), 0)
    decoded = decoder.feed(body_of([
        message(TEMPLATE, framed(256, basic()), session=n, port=n, begins=True, source=f"192.0.2.{n}", sequence=5)
        for n in range(10, 16)]), 1)
    assert decoder.state.arrays.counts[0]["domains"] <= 8, "rows are used again"
    assert decoded.flows["rate_numerator"].tolist() == [1] * 6
    assert {(row.missing, row.restarts, row.received) for row in decoder.state.exporters()} == {(0, 0, 3), (0, 0, 1)}


def test_a_table_of_domains_that_is_full_has_room_again_when_sessions_end() -> None:
    decoder = decoder_of(domains_max=4)
    for n in range(1, 40, 3):
        decoded = decoder.feed(body_of([part for k in range(3) for part in (
            message(TEMPLATE, framed(256, basic()), session=n + k, port=n + k, begins=True), end(n + k, n + k))]), n)
        assert (kinds(decoded), decoded.counts.flows) == ({}, 3)
    assert live_rows(decoder) <= 4


# state ----------------------------------------------------------------------------------------------------------------
def random_sessions(seed: int) -> list[Datagram]:
    """Sessions that begin, send, wait, and end in every way, with UDP between them."""
    source = random.Random(seed)
    datagrams, open_now, number = [], [], 0
    for step in range(160):
        at = NOW + step * 100
        if not open_now or source.random() < 0.2:
            number += 1
            open_now.append(number)
            datagrams.append(message(TEMPLATE if source.random() < 0.7 else framed(256, basic(step)), session=number,
                                     port=number, begins=True, received=at, domain=source.randrange(3)))
        one = source.choice(open_now)
        datagrams.append(message(framed(256, basic(step)), session=one, port=one, received=at, domain=source.randrange(3)))
        if source.random() < 0.2:
            flags = source.choice([0, 0, codes.STREAM_CUT, codes.STREAM_MALFORMED])
            datagrams.append(end(one, one, flags, b"\0\0\0\0" if flags else b"", at))
            open_now.remove(one)
        if source.random() < 0.3:
            datagrams.append(Datagram(ipfix(TEMPLATE, framed(256, basic(step)), sequence=step), at))
        if source.random() < 0.02:
            datagrams.append(Datagram(b"", at, "::", codes.SESSIONS_LOST, codes.TCP))
            open_now = []
    return datagrams


def content(decoded: list[Decoded]) -> list[Any]:
    return [(d.counts, d.faults, {k: v.tobytes() for k, v in d.flows.items()}) for d in decoded]


@pytest.mark.parametrize("seed", range(4))
def test_a_saved_state_with_sessions_goes_on_like_the_running_one(seed: int) -> None:
    datagrams = random_sessions(seed)
    running, half = decoder_of(), len(datagrams) // 2
    for at in range(0, half, 9):
        running.feed(body_of(datagrams[at : min(at + 9, half)]), at)
    resumed = Decoder(CollectorSettings(), DecoderState.from_bytes(running.state.to_bytes()))
    rest = [body_of(datagrams[at : at + 9]) for at in range(half, len(datagrams), 9)]
    assert content([resumed.feed(body, n) for n, body in enumerate(rest)]) == content(
        [running.feed(body, n) for n, body in enumerate(rest)])
    assert resumed.state.exporters() == running.state.exporters()


@pytest.mark.parametrize("seed", range(4))
def test_how_the_journal_is_cut_into_blocks_changes_neither_flows_nor_counts(seed: int) -> None:
    datagrams = random_sessions(seed)
    found = []
    for size in (1, 13, 1000):
        decoder = decoder_of()
        decoded = [decoder.feed(body_of(datagrams[at : at + size]), at) for at in range(0, len(datagrams), size)]
        rows = sorted((int(a), int(b)) for d in decoded
                      for a, b in zip(d.flows["received"], d.flows["octets"], strict=True))
        found.append((rows, kinds(*decoded), decoder.state.exporters()))
    assert found[0] == found[1] == found[2]


# exporters behind a NAT -----------------------------------------------------------------------------------------------
def behind_nat(port: int, sequence: int, *sets: bytes, received: int = NOW) -> Datagram:
    return Datagram(v9(*sets, sequence=sequence), received, port=port)


def two_routers() -> list[Datagram]:
    """Two routers with one address, one source id and one template id."""
    one, two = framed(0, template(256, BASIC)), framed(0, template(256, SWAPPED))
    return [behind_nat(1001, 500, one), behind_nat(1002, 90_000, two),
            behind_nat(1001, 501, framed(256, basic(1000, 10))), behind_nat(1002, 90_001, framed(256, basic(11, 2000))),
            behind_nat(1001, 503, framed(256, basic(3000, 10))), behind_nat(1002, 90_002, framed(256, basic(12, 4000)))]


@pytest.mark.parametrize("settings", [
    {"exporter_key": "address_port"},
    {"exporters": (Exporter(parse_address("192.0.2.1"), key="address_port"),)},
    {"exporters": tuple(Exporter(parse_address(f"192.0.2.{n}"), key="address_port") for n in (200, 1, 9, 77))},
])
def test_routers_behind_a_nat_are_told_apart_by_their_source_port(settings: dict[str, Any]) -> None:
    decoder = decoder_of(**settings)
    decoded = decoder.feed(body_of(two_routers()), 0)
    assert octets(decoded) == [1000, 2000, 3000, 4000]
    row = the_exporter(decoder)
    assert (row.received, row.missing, row.restarts, row.reordered, row.sessions) == (6, 1, 0, 0, 2)


@pytest.mark.parametrize("settings", [
    {}, {"exporter_key": "address_port", "exporters": (Exporter(parse_address("192.0.2.1"), key="address"),)},
    {"exporters": (Exporter(parse_address("192.0.2.2"), key="address_port"),)},
])
def test_by_default_an_exporter_may_change_its_source_port(settings: dict[str, Any]) -> None:
    decoder = decoder_of(**settings)
    decoded = decoder.feed(body_of([behind_nat(1000, 0, framed(0, template(256, BASIC))),
                                    *(behind_nat(1001 + n, 1 + n, framed(256, basic())) for n in range(5))]), 0)
    row = the_exporter(decoder)
    assert (decoded.counts.flows, row.missing, row.restarts, row.sessions) == (5, 0, 0, 0)


def test_v5_routers_behind_a_nat_have_sequences_of_their_own() -> None:
    decoder = decoder_of(exporter_key="address_port")
    decoder.feed(body_of([Datagram(v5([v5_record(octets=n)], sequence=base + n), port=port)
                          for n in range(20) for port, base in ((1001, 0), (1002, 10**6))]), 0)
    row = the_exporter(decoder, 0)
    assert (row.received, row.missing, row.restarts, row.reordered) == (40, 0, 0, 0)


def test_a_nat_that_changes_ports_for_ever_costs_bounded_memory_and_no_count() -> None:
    decoder = decoder_of(exporter_key="address_port", ports_per_exporter_max=8, domains_max=64)
    steady = [Datagram(v9(framed(0, template(256, BASIC)), sequence=0), NOW, "192.0.2.77", port=5)]
    decoder.feed(body_of(steady), 0)
    total, decoded = 0, []
    for n in range(60):
        datagrams = [behind_nat(1000 + total + k, 0, framed(0, template(256, BASIC)), framed(256, basic(1)),
                                received=NOW + n * 1000 + k) for k in range(20)]
        total += 20
        datagrams.append(Datagram(v9(framed(256, basic(2)), sequence=n + 1), NOW + n * 1000, "192.0.2.77", port=5))
        decoded.append(decoder.feed(body_of(datagrams), n + 1))
        assert live_rows(decoder) <= 64
    decoded.append(decoder.feed(body_of([]), 99))
    moving, staying = sorted(decoder.state.exporters(), key=lambda row: row.exporter)
    assert kinds(*decoded) == {}
    assert (moving.received, staying.received) == (total, 61)
    assert sum(d.counts.flows for d in decoded) == total + 60, "the one that stays keeps its templates"
    assert moving.sessions + moving.recycled == total
    assert moving.sessions <= 8
    assert (staying.sessions, staying.recycled, staying.missing) == (1, 0, 0)


def test_all_kinds_of_fault_have_a_column() -> None:
    from collector.faults import KIND_COUNT

    assert max(FaultKind) < KIND_COUNT
