"""Hostile and mutated datagrams: none raises, nothing is read beyond the payload, the balances hold."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from exports import v5, v5_record
from harness import shared
from journal_bodies import NOW_MS, Datagram, body_of, capture_datagrams

from collector.decoder import Decoded, Decoder
from collector.settings import Collector, CollectorSettings


def assert_balanced(decoded: Decoded) -> None:
    c = decoded.counts
    assert c.datagrams == c.decoded + c.faulted + c.duplicate
    assert c.data_records == c.flow_records + c.not_a_flow + c.faulted_records
    assert c.flows == len(decoded.flows["octets"])
    assert c.octets == int(decoded.flows["octets"].sum())
    for name in ("datagrams", "decoded", "faulted", "duplicate", "data_records", "flow_records", "flows", "octets"):
        assert int(decoded.intake[name].sum()) == getattr(c, name)
    assert (decoded.flows["octets"] >= 0).all()
    assert (decoded.flows["end"] >= decoded.flows["start"]).all()
    assert (decoded.flows["rate_numerator"] > 0).all()
    assert (decoded.flows["rate_denominator"] > 0).all()


def test_a_hostile_datagram_costs_nothing_but_itself() -> None:
    decoder = Decoder(CollectorSettings())
    for number, path in enumerate(sorted(shared("hostile").glob("*.bin"))):
        good = [v5([v5_record(octets=k)], sequence=2 * number + k) for k in (0, 1)]
        decoded = decoder.feed(body_of([Datagram(good[0], source="192.0.2.9"), Datagram(path.read_bytes(), NOW_MS),
                                        Datagram(good[1], source="192.0.2.9")]), number)
        assert_balanced(decoded)
        mine = decoded.flows["exporter"][:, 15] == 9
        assert decoded.flows["octets"][mine].tolist() == [0, 1], path.name
    exporter = next(row for row in decoder.state.exporters() if row.exporter[-1] == 9)
    assert (exporter.missing, exporter.restarts) == (0, 0)


def test_60_000_records_without_length_are_cut_at_the_limit() -> None:
    payload = shared("hostile", "ipfix_varlen_zero_records_60k.bin").read_bytes()
    decoded = Decoder(CollectorSettings()).feed(body_of([Datagram(payload)]), 0)
    assert decoded.counts.data_records == 4096
    assert [(kind.label, count) for _, _, kind, count in decoded.faults] == [("too_many_records", 1)]


def seeds() -> list[bytes]:
    folder = shared("captures")
    index = json.loads((folder / "index.json").read_text())
    payloads = [one.payload for session in index for name in session["files"][:3] if "CESNET" not in name
                for one in capture_datagrams(folder / name)[:4]]
    return payloads + [path.read_bytes() for path in sorted(shared("hostile").glob("*.bin")) if path.stat().st_size < 2000]


def mutated(payload: bytes, source: random.Random) -> bytes:
    data = bytearray(payload)
    for _ in range(source.randrange(1, 6)):
        if not data:
            break
        at = source.randrange(len(data)) if source.random() < 0.5 else source.randrange(min(len(data), 64))
        match source.randrange(5):
            case 0:
                data[at] = source.randrange(256)
            case 1:
                data[at : at + 2] = source.choice([b"\0\0", b"\xff\xff", b"\0\4", b"\1\0", b"\0\1"])
            case 2:
                del data[at:]
            case 3:
                data[at:at] = data[at : at + source.randrange(16)]
            case _:
                data[at : at + 4] = source.choice([b"\xff\xff\xff\xff", bytes(4), b"\0\0\0\1"])
    return bytes(data[:9000])


@pytest.mark.parametrize("seed", range(3))
def test_mutated_datagrams_never_raise_and_always_balance(seed: int) -> None:
    source = random.Random(seed)
    material = seeds()
    bounds = Collector(templates_max=300, samplers_max=50, waiting_octets_max=20_000, domains_max=200, sightings_max=1024)
    decoder = Decoder(CollectorSettings(collector=bounds))
    for block in range(20):
        datagrams = [Datagram(mutated(source.choice(material), source), NOW_MS + 2000 * block + n,
                              f"192.0.2.{source.randrange(1, 5)}") for n in range(2000)]
        assert_balanced(decoder.feed(body_of(datagrams), block))
    counts = decoder.state.arrays.counts[0]
    assert counts["domains"] <= 200
    assert counts["templates"] <= 300
    assert counts["waiting_live_octets"] <= 20_000


def test_what_lies_behind_a_payload_changes_nothing() -> None:
    source = random.Random(7)
    material = seeds()
    for block in range(3):
        datagrams = [Datagram(mutated(source.choice(material), source)) for _ in range(300)]
        plain = body_of(datagrams)
        guarded = plain.copy()
        at = 0
        for one in datagrams:
            end = at + 56 + len(one.payload)
            at += 56 + len(one.payload) + -len(one.payload) % 8
            guarded[end:at] = 0xA5
        one, two = Decoder(CollectorSettings()).feed(plain, block), Decoder(CollectorSettings()).feed(guarded, block)
        assert one.counts == two.counts
        assert one.faults == two.faults
        assert all(np.array_equal(one.flows[name], two.flows[name]) for name in one.flows)


def test_each_datagram_alone_is_read_as_among_others() -> None:
    """A read beyond the payload would see the neighbours."""
    source = random.Random(11)
    material = seeds()
    for _ in range(300):
        payload = mutated(source.choice(material), source)
        alone = Decoder(CollectorSettings()).feed(body_of([Datagram(payload)]), 0)
        neighbour = Datagram(b"\0\6" + source.randbytes(40), source="10.0.0.1")
        beside = Decoder(CollectorSettings()).feed(body_of([Datagram(payload), neighbour]), 0)
        assert alone.counts.flows == beside.counts.flows
        assert alone.counts.data_records == beside.counts.data_records
        assert all(np.array_equal(alone.flows[name], beside.flows[name]) for name in alone.flows)
