"""Random losses, copies, delays and restarts against a count of what was done to the datagrams."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_bodies import Datagram, body_of

from collector.decoder import Decoder
from collector.settings import Collector, CollectorSettings
from collector.state import DecoderState, ExporterRow

NOW = NOW_S * 1000
PROTOCOLS = ("v5", "v9", "ipfix", "sflow")
DAY_MS = 86_400_000
DELAY = 6
"""A late datagram lets at most so many others pass."""
SAMPLE = flow_sample(raw_header(ethernet(ipv4_packet(40))))


@dataclass(frozen=True)
class Sent:
    """A datagram as the exporter made it: its epoch, its place in the epoch's count (not wrapped), and what it is worth."""

    epoch: int
    place: int
    units: int
    at: int
    payload: bytes


def by_records(protocol: str) -> bool:
    return protocol in ("v5", "ipfix")


def datagram(protocol: str, records: int, sequence: int, at: int, boot: int) -> bytes:
    """One datagram that was exported at `at` (ms) by an exporter that started at `boot`."""
    sequence, uptime, seconds = sequence % 2**32, (at - boot) % 2**32, at // 1000
    if protocol == "v5":
        return v5([v5_record()] * records, sequence=sequence, uptime=uptime, seconds=seconds)
    if protocol == "v9":
        return v9(framed(0, template(256, BASIC)), framed(256, *[basic()] * records), sequence=sequence, uptime=uptime,
                  seconds=seconds)
    if protocol == "ipfix":
        return ipfix(framed(2, template(256, BASIC)), framed(256, *[basic()] * records), sequence=sequence, seconds=seconds)
    return sflow(*[SAMPLE] * records, sequence=sequence, uptime=uptime)


def export(protocol: str, epochs: Sequence[Sequence[int]], firsts: Sequence[int], every_ms: int = 1000) -> list[Sent]:
    """What an exporter sends that starts again for each list of sizes."""
    sent, at = [], NOW
    for epoch, (sizes, first) in enumerate(zip(epochs, firsts, strict=True)):
        at += 300_000
        boot, place = at - 2000 if epoch else at - 5 * DAY_MS, first
        for size in sizes:
            units = size if by_records(protocol) else 1
            sent.append(Sent(epoch, place, units, at, datagram(protocol, size, place, at, boot)))
            place += units
            at += every_ms
    return sent


def deliver(sent: Sequence[Sent], source: random.Random, loss: float, late: float, *, across: bool) -> list[int]:
    """Indexes in the order of arrival. The last two of every epoch come, and behind all others of it; `across`: what is
    late may come in the next epoch."""
    last = {one.epoch: n for n, one in enumerate(sent)}
    safe = {n for end in last.values() for n in (end - 1, end)}
    places = []
    for n, one in enumerate(sent):
        if n in safe or source.random() >= loss:
            delay = source.uniform(1, DELAY) if source.random() < late else 0.0
            if n in safe and (not across or one.epoch == sent[-1].epoch):
                delay = 0.0
            limit = len(sent) - 2.5 if across else last[one.epoch] - 1.5
            places.append((n if n in safe and delay == 0.0 else min(n + delay, max(limit, n)), n))
    return [n for _, n in sorted(places)]


def truth(sent: Sequence[Sent], order: Sequence[int]) -> tuple[int, int, int]:
    """(missing, reordered, restarts): of each epoch the stretch from its first to its last that came, less what came."""
    missing = 0
    heard = {sent[n].epoch for n in order}
    for epoch in heard:
        came = [sent[n] for n in order if sent[n].epoch == epoch]
        missing += max(one.place + one.units for one in came) - min(one.place for one in came) - sum(o.units for o in came)
    reordered = sum(any(earlier > n for earlier in order[:place]) for place, n in enumerate(order))
    return missing, reordered, len(heard) - 1


def counted(sent: Sequence[Sent], order: Sequence[int], size: int = 9, save: bool = True) -> ExporterRow:
    """What the decoder says, fed in blocks; its state is saved and read back between two of them."""
    decoder = Decoder(CollectorSettings())
    now = 0
    datagrams = []
    for n in order:
        now = max(now, sent[n].at)
        datagrams.append(Datagram(sent[n].payload, now + 3))
    for block, at in enumerate(range(0, len(datagrams), size)):
        decoder.feed(body_of(datagrams[at : at + size]), block)
        if save:
            decoder = Decoder(CollectorSettings(), DecoderState.from_bytes(decoder.state.to_bytes()))
    (row,) = decoder.state.exporters()
    return row


def summary(row: ExporterRow) -> tuple[int, int, int]:
    return row.missing, row.reordered, row.restarts


def with_copies(order: Sequence[int], source: random.Random) -> tuple[list[int], int]:
    result: list[int] = []
    for n in order:
        result.append(n)
        if source.random() < 0.15:
            result.append(source.choice(result[-20:]))
    return result, len(result) - len(order)


SIZES = st.lists(st.integers(1, 5), min_size=4, max_size=50)
LONGER = st.lists(st.integers(1, 5), min_size=DELAY + 2, max_size=50)
"""What is late does not come two restarts later."""


@given(protocol=st.sampled_from(PROTOCOLS), sizes=SIZES, seed=st.integers(0, 10**6), loss=st.sampled_from([0.0, 0.1, 0.5]),
       first=st.sampled_from([0, 1, 200, 2**31 - 9, 2**32 - 30]))
@settings(max_examples=200, deadline=None)
def test_loss_delay_and_copies_are_counted_as_they_were_made(protocol: str, sizes: list[int], seed: int, loss: float,
                                                             first: int) -> None:
    """The first datagrams may be late too: the count is then known from earlier on."""
    source = random.Random(seed)
    sent = export(protocol, [sizes], [first])
    order = deliver(sent, source, loss, 0.3, across=False)
    arrivals, copies = with_copies(order, source)
    row = counted(sent, arrivals)
    assert (*summary(row), row.duplicate) == (*truth(sent, order), copies)


@given(protocol=st.sampled_from(PROTOCOLS), epochs=st.lists(LONGER, min_size=2, max_size=4), seed=st.integers(0, 10**6),
       loss=st.sampled_from([0.0, 0.1, 0.4]), first=st.integers(100_000, 2**31))
@settings(max_examples=200, deadline=None)
def test_restarts_are_told_apart_from_loss_even_with_late_datagrams_across_them(
        protocol: str, epochs: list[list[int]], seed: int, loss: float, first: int) -> None:
    source = random.Random(seed)
    firsts = [first, *(source.choice([0, 1] if not by_records(protocol) else [0]) for _ in epochs[1:])]
    if not by_records(protocol) or protocol == "ipfix":  # without a boot in the header the numbers alone must tell
        firsts = [first - n * 30_000 if n < len(epochs) - 1 else 0 for n in range(len(epochs))]
    sent = export(protocol, epochs, firsts)
    order = deliver(sent, source, loss, 0.2, across=protocol in ("v5", "v9"))
    row = counted(sent, order)
    assert summary(row) == truth(sent, order)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_hundreds_of_gaps_are_all_missing_and_late_ones_still_fill_theirs(protocol: str) -> None:
    source = random.Random(5)
    sent = export(protocol, [[source.randrange(1, 6) for _ in range(3000)]], [2**32 - 4000])
    order = deliver(sent, source, 0.45, 0.2, across=False)
    assert summary(counted(sent, order, 200, save=False)) == truth(sent, order)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_restart_in_a_stream_of_many_losses_is_a_restart(protocol: str) -> None:
    """The gaps of before are more than can be remembered: what starts anew must not be taken for late ones in them."""
    source = random.Random(6)
    sent = export(protocol, [[3] * 400, [3] * 30], [90_000, 0])
    order = [n for n in range(400) if n % 2 == 0] + list(range(400, 430))
    del source
    assert summary(counted(sent, order, 50)) == truth(sent, order)


@pytest.mark.parametrize("protocol", ["v9", "ipfix", "sflow"])
@pytest.mark.parametrize("number", [2**31 - 5, 2**20, 2**32 - 7, 12])
def test_one_wild_number_does_not_move_the_count(protocol: str, number: int) -> None:
    sent = export(protocol, [[4] * 40], [1000])
    wild = Sent(0, number, 4 if by_records(protocol) else 1, sent[20].at,
                datagram(protocol, 4, number, sent[20].at, NOW + 300_000 - 5 * DAY_MS))
    order = [*range(20), len(sent), *range(20, 40)]
    row = counted([*sent, wild], order)
    near = number - 1000 - 80
    if 0 < near < 2**26:  # a jump that could be a loss is one, until what it skipped comes after all
        assert row.missing == number - sent[39].place - sent[39].units
    else:
        assert (row.missing, row.restarts) == (0, 0)


@pytest.mark.parametrize("protocol", ["ipfix", "sflow"])
def test_a_restart_near_the_end_of_the_numbers_is_no_loss_of_millions(protocol: str) -> None:
    sent = export(protocol, [[4] * 20, [4] * 20], [3_500_000_000, 0])
    assert summary(counted(sent, range(40))) == (0, 0, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_long_outage_is_missing_to_the_unit(protocol: str) -> None:
    one = export(protocol, [[4] * 10, [4] * 10], [1000, 1000 + 90_000_000])
    boot = NOW + 300_000 - 5 * DAY_MS
    sent = [Sent(0, s.place, s.units, s.at, datagram(protocol, 4, s.place, s.at, boot)) for s in one]
    assert summary(counted(sent, range(20))) == truth(sent, range(20))


@pytest.mark.parametrize("protocol", ["v5", "v9"])
@pytest.mark.parametrize("clock", ["exporter", "uptime wraps"])
def test_a_clock_that_is_set_and_an_uptime_that_wraps_are_no_restart(protocol: str, clock: str) -> None:
    """Just when something is lost, so that the sequence can't say."""
    sent = []
    for n in range(40):
        at = NOW + 1000 * n
        shown = at + (30 * 86_400_000 if clock == "exporter" and n >= 20 else 0)
        uptime = (2**32 - 20_000 + 1000 * n) % 2**32 if clock != "exporter" else DAY_MS + 1000 * n
        units = 4 if protocol == "v5" else 1
        sent.append(Sent(0, n * units, units, at, datagram(protocol, 4, n * units, shown, shown - uptime)))
    order = [n for n in range(40) if n not in (20, 21)]
    assert summary(counted(sent, order)) == truth(sent, order)


def test_copies_that_nobody_looks_for_are_out_of_order_and_no_restart() -> None:
    sent = export("ipfix", [[4] * 30], [500])
    decoder = Decoder(CollectorSettings(collector=Collector(duplicate_window=0)))
    order = [0, 1, 2, 3, 2, 4, 5, 6, 4, 7, 8, 8, 9, 10]
    decoder.feed(body_of([Datagram(sent[n].payload, NOW) for n in order]), 0)
    (row,) = decoder.state.exporters()
    assert (row.missing, row.reordered, row.restarts, row.duplicate) == (0, 3, 0, 0)


# exporters that number in their own way -------------------------------------------------------------------------------
Numbering = Callable[[int, int, int, int], int]
"""(datagrams before, records before, records of it, options records among them) → sequence number."""


def _mixed(protocol: str, records: int, options: int, sequence: int, n: int) -> bytes:
    at = NOW + 1000 * n
    if protocol == "ipfix":
        sets = [framed(2, template(256, BASIC))]
        if options:
            sets += [framed(3, ipfix_options_template(300, [(149, 4), (41, 4)])), framed(300, bytes(8 * options))]
        return ipfix(*sets, framed(256, *[basic()] * records), sequence=sequence % 2**32, seconds=at // 1000)
    sets = [framed(0, template(256, BASIC))]
    if options:
        sets += [framed(1, v9_options_template(300, [(1, 4)], [(34, 4)])), framed(300, bytes(8 * options))]
    return v9(*sets, framed(256, *[basic()] * records), sequence=sequence % 2**32, uptime=DAY_MS + 1000 * n,
              seconds=at // 1000)


@pytest.mark.parametrize("first", [0, 2**32 - 300])
@pytest.mark.parametrize(("protocol", "name"), [("ipfix", "datagrams"), ("ipfix", "after"), ("ipfix", "data"),
                                                ("ipfix", "data after"), ("v9", "records"), ("v9", "data")])
def test_an_exporter_that_numbers_otherwise_is_understood_and_its_losses_counted(protocol: str, name: str,
                                                                                 first: int) -> None:
    source = random.Random(11)
    sizes = [(source.randrange(10, 31), 2 if n % 10 == 0 else 0) for n in range(120)]
    datagrams, count, ends = [], first, []
    for n, (records, options) in enumerate(sizes):
        units = {"datagrams": 1, "after": records + options, "records": records + options}.get(name, records)
        number = count + units if "after" in name else count
        datagrams.append(_mixed(protocol, records, options, number, n))
        count += units
        ends.append((count - units, units))
    lost = [n for n in range(60, 119) if source.random() < 0.3]
    order = [n for n in range(120) if n not in lost]
    decoder = Decoder(CollectorSettings())
    for block, at in enumerate(range(0, len(order), 7)):
        decoder.feed(body_of([Datagram(datagrams[n], NOW + 1000 * n) for n in order[at : at + 7]]), block)
    (row,) = decoder.state.exporters()
    assert summary(row) == (sum(ends[n][1] for n in lost), 0, 0)
    assert row.faulted == row.waiting == 0
