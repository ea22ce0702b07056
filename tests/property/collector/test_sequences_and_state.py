"""Sequence accounting against what was done to the datagrams, and the saved state against the running one."""

from __future__ import annotations

import random
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
    ipv4_packet,
    raw_header,
    sflow,
    template,
    v5,
    v5_record,
    v9,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_bodies import Datagram, body_of

from collector.decoder import Decoded, Decoder
from collector.settings import CollectorSettings
from collector.state import DecoderState, ExporterRow
from core.errors import DamagedFile

NOW = NOW_S * 1000


def stream(protocol: str, sizes: list[int], first: int) -> tuple[list[bytes], list[int]]:
    """Datagrams of one domain, and how many units of the sequence each is worth."""
    payloads, units, sequence = [], [], first
    for n, size in enumerate(sizes):
        uptime = 3_600_000 + n
        if protocol == "v5":
            payload, worth = v5([v5_record(octets=n)] * size, sequence=sequence, uptime=uptime), size
        elif protocol == "v9":
            payload, worth = v9(framed(0, template(256, BASIC)), framed(256, *[basic(n)] * size), sequence=sequence,
                                uptime=uptime), 1
        elif protocol == "ipfix":
            payload, worth = ipfix(framed(2, template(256, BASIC)), framed(256, *[basic(n)] * size), sequence=sequence), size
        else:
            sample = flow_sample(raw_header(ethernet(ipv4_packet(n + 20))))
            payload, worth = sflow(*[sample] * size, sequence=sequence, uptime=uptime), 1
        payloads.append(payload)
        units.append(worth)
        sequence = (sequence + worth) % 2**32
    return payloads, units


def fed(decoder: Decoder, datagrams: list[Datagram], size: int) -> list[Decoded]:
    return [decoder.feed(body_of(datagrams[at : at + size]), at) for at in range(0, len(datagrams), size)]


def the_exporter(decoder: Decoder) -> ExporterRow:
    rows = decoder.state.exporters()
    assert len(rows) == 1
    return rows[0]


@given(protocol=st.sampled_from(["v5", "v9", "ipfix", "sflow"]), sizes=st.lists(st.integers(1, 5), min_size=3, max_size=60),
       first=st.sampled_from([0, 5, 2**32 - 20, 2**31 - 3]), seed=st.integers(0, 10**6), loss=st.sampled_from([0.0, 0.1, 0.4]))
@settings(max_examples=150, deadline=None)
def test_missing_reordered_and_duplicate_are_what_was_done(protocol: str, sizes: list[int], first: int, seed: int,
                                                          loss: float) -> None:
    source = random.Random(seed)
    payloads, units = stream(protocol, sizes, first)
    kept = [n for n in range(len(payloads)) if n in (0, len(payloads) - 1) or source.random() >= loss]
    lost = sum(units) - sum(units[n] for n in kept)
    # late ones stay behind the first and before the last, so that the ends of the count are known
    order = [n for _, n in sorted((n + (source.uniform(0, 6) if 0 < n < len(payloads) - 1 else 0), n) for n in kept[:-1])]
    order.append(kept[-1])
    sent: list[int] = []
    copies = 0
    for n in order:
        sent.append(n)
        if source.random() < 0.2:
            sent.append(source.choice(sent))
            copies += 1
    late = sum(1 for place, n in enumerate(order) if any(earlier > n for earlier in order[:place]))
    decoder = Decoder(CollectorSettings())
    decoded = fed(decoder, [Datagram(payloads[n], NOW + place) for place, n in enumerate(sent)], 7)
    row = the_exporter(decoder)
    assert (row.missing, row.reordered, row.duplicate, row.restarts) == (lost, late, copies, 0)
    assert sum(d.counts.decoded for d in decoded) == len(order)
    assert sum(d.counts.data_records for d in decoded) == sum(sizes[n] for n in order)


@pytest.mark.parametrize("protocol", ["v5", "v9", "sflow"])
def test_a_reboot_is_a_restart_and_no_loss(protocol: str) -> None:
    before, _ = stream(protocol, [3] * 10, 1000)
    decoder = Decoder(CollectorSettings())
    fed(decoder, [Datagram(p, NOW) for p in before], 4)
    again = {"v5": lambda n: v5([v5_record()], sequence=n, uptime=1000 + n), "v9": lambda n: v9(sequence=n, uptime=1000 + n),
             "sflow": lambda n: sflow(sequence=n, uptime=1000 + n)}[protocol]
    fed(decoder, [Datagram(again(n), NOW + 100_000) for n in range(5)], 4)
    row = the_exporter(decoder)
    assert (row.restarts, row.missing, row.reordered) == (1, 0, 0)


def test_an_ipfix_restart_is_seen_by_its_sequence_alone() -> None:
    decoder = Decoder(CollectorSettings())
    one, _ = stream("ipfix", [5] * 8, 10_000)
    two, _ = stream("ipfix", [4] * 8, 0)
    fed(decoder, [Datagram(p, NOW) for p in one + two], 16)
    assert (the_exporter(decoder).restarts, the_exporter(decoder).missing) == (1, 0)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=20), st.booleans())
@settings(max_examples=80, deadline=None)
def test_records_that_waited_are_not_missing(messages: list[tuple[int, bool]], twice: bool) -> None:
    """IPFIX counts records; those in a set without a template can only be counted when it comes."""
    datagrams, sequence = [], 0
    for n, (unknown, known) in enumerate(messages):
        sets = [framed(256, *[basic(n)] * unknown)] if unknown else []
        if unknown and twice:
            sets.append(framed(256, basic(n)))
        if known:
            sets += [framed(2, template(300, BASIC)), framed(300, basic(n))]
        datagrams.append(Datagram(ipfix(*sets, sequence=sequence, seconds=NOW_S + n), NOW + n))
        sequence += unknown + known + (1 if unknown and twice else 0)
    datagrams.append(Datagram(ipfix(framed(2, template(256, BASIC)), framed(256, basic()), sequence=sequence), NOW + 99))
    decoder = Decoder(CollectorSettings())
    decoded = fed(decoder, datagrams, 3)
    row = the_exporter(decoder)
    assert (row.missing, row.restarts, row.reordered, row.waiting) == (0, 0, 0, 0)
    assert sum(d.counts.data_records for d in decoded) == sequence + 1


def random_traffic(seed: int) -> list[Datagram]:
    """Every protocol, late templates, samplers, losses, copies, faults."""
    source = random.Random(seed)
    datagrams = []
    for protocol in ("v5", "v9", "ipfix", "sflow"):
        payloads, _ = stream(protocol, [source.randrange(1, 4) for _ in range(40)], source.randrange(2**32))
        datagrams += [Datagram(p, 0, f"192.0.2.{source.randrange(1, 4)}") for p in payloads if source.random() > 0.1]
    for n in range(40):
        identifier = 256 + source.randrange(6)
        sets = [framed(identifier, basic(n, more=b"\x05"))]
        if source.random() < 0.3:
            sets.append(framed(0, template(identifier, [*BASIC, (48, 1)])))
        datagrams.append(Datagram(v9(*sets, sequence=n, source=99), 0))
    datagrams += [Datagram(source.randbytes(30), 0) for _ in range(10)]
    datagrams += source.choices(datagrams, k=20)
    source.shuffle(datagrams)
    return [d._replace(received=NOW + 100 * n) for n, d in enumerate(datagrams)]


def content(decoded: list[Decoded]) -> list[Any]:
    return [(d.counts, d.faults, {k: v.tobytes() for k, v in d.flows.items()}, {k: v.tolist() for k, v in d.intake.items()})
            for d in decoded]


@pytest.mark.parametrize("seed", range(6))
def test_a_saved_state_goes_on_exactly_like_the_running_one(seed: int) -> None:
    datagrams = random_traffic(seed)
    half = len(datagrams) // 2
    running = Decoder(CollectorSettings())
    fed(running, datagrams[:half], 16)
    saved = running.state.to_bytes()
    resumed = Decoder(CollectorSettings(), DecoderState.from_bytes(saved))
    assert content(fed(resumed, datagrams[half:], 16)) == content(fed(running, datagrams[half:], 16))
    assert resumed.state.exporters() == running.state.exporters()
    assert DecoderState.from_bytes(saved).to_bytes() == saved


@pytest.mark.parametrize("seed", range(6))
def test_how_a_journal_is_cut_into_blocks_changes_no_flow(seed: int) -> None:
    datagrams = random_traffic(seed)
    decoders = [Decoder(CollectorSettings()) for _ in range(2)]
    results = [fed(decoder, datagrams, size) for decoder, size in zip(decoders, (1, 1000), strict=True)]
    rows = []
    for decoded in results:
        columns = {k: np.concatenate([d.flows[k] for d in decoded]) for k in decoded[0].flows}
        rows.append(sorted(b"".join(c[i].tobytes() for c in columns.values()) for i in range(len(columns["octets"]))))
    assert rows[0] == rows[1]
    assert decoders[0].state.exporters() == decoders[1].state.exporters()


def test_a_damaged_state_is_refused() -> None:
    data = bytearray(DecoderState().to_bytes())
    data[-1] ^= 1
    with pytest.raises(DamagedFile):
        DecoderState.from_bytes(bytes(data))
    with pytest.raises(DamagedFile):
        DecoderState.from_bytes(b"")


def test_forgetting_counts_keeps_templates_and_samplers() -> None:
    decoder = Decoder(CollectorSettings())
    message = v9(framed(0, template(256, BASIC)), framed(256, basic()), framed(400, basic()))
    decoder.feed(body_of([Datagram(message, NOW)]), 0)
    decoder.state.forget_counts()
    assert decoder.state.exporters() == []
    assert decoder.state.waiting == 0
    again = decoder.feed(body_of([Datagram(v9(framed(256, basic()), sequence=900), NOW)]), 1)
    assert (again.counts.flows, the_exporter(decoder).missing) == (1, 0)
