"""Hostile streams of every kind: the decoder's memory stays under a bound that follows from the settings."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest
from decoding import NOW
from exports import BASIC, basic, framed, ipfix, ipfix_options_template, template, v9, v9_options_template
from journal_bodies import Datagram, body_of

from collector.decoder import Decoder
from collector.memory import results_octets_max, state_octets_max
from collector.settings import Collector, CollectorSettings

SMALL = CollectorSettings(collector=Collector(
    domains_max=64, templates_max=64, template_fields_max=256, samplers_max=64, waiting_octets_max=100_000,
    sightings_max=2048, duplicate_window=100))
PORTION = 512
"""Instead of 65,536: so that a small stream comes to the bounds."""

Stream = Callable[[random.Random, int], bytes]


def changing_templates(source: random.Random, n: int) -> bytes:
    fields = [(source.randrange(1, 400), source.randrange(0, 5)) for _ in range(source.choice((1, 2, 200)))]
    return v9(framed(0, *(template(256 + source.randrange(80), fields) for _ in range(6))), sequence=n)


def wide_templates(source: random.Random, n: int) -> bytes:
    return ipfix(framed(2, template(256 + n % 40, [(source.randrange(1, 400), 1)] * 256)), domain=n % 3)


def many_domains(source: random.Random, n: int) -> bytes:
    return ipfix(framed(2, template(256, BASIC)), domain=source.randrange(2**32))


def tiny_sets(source: random.Random, n: int) -> bytes:
    return ipfix(framed(2, template(256, [(4, 1)])), *[framed(256, b"\x06")] * 800, sequence=n)


def tiny_flows(source: random.Random, n: int) -> bytes:
    fields = [(8, 4), (12, 4), (1, 1), (29305 << 32 | 1, 1)]
    return ipfix(framed(2, template(256, fields)), framed(256, source.randbytes(10 * 4000)), sequence=n)


def sampler_changes(source: random.Random, n: int) -> bytes:
    told = b"".join(struct.pack(">BB", source.randrange(256), source.randrange(256)) for _ in range(2000))
    return v9(framed(1, v9_options_template(300, [], [(48, 1), (34, 1)])), framed(300, told), sequence=n)


def waiting_sets(source: random.Random, n: int) -> bytes:
    return ipfix(*(framed(source.randrange(256, 60_000), source.randbytes(3)) for _ in range(300)), sequence=n)


def waiting_and_released(source: random.Random, n: int) -> bytes:
    data = [framed(700, basic(k)) for k in range(40)]
    return ipfix(*data, framed(2, template(700, BASIC)), framed(2, struct.pack(">HH", 700, 0)), sequence=n)


def scopes(source: random.Random, n: int) -> bytes:
    told = struct.pack(">II", source.randrange(2**32), 1) * 50
    return ipfix(framed(3, ipfix_options_template(400, [(143, 4), (166, 4)])), framed(400, told), domain=source.randrange(200))


def port_blocks(source: random.Random, n: int) -> bytes:
    fields = [(8, 4), (225, 4), (361, 2), (362, 2), (230, 1)]
    record = struct.pack(">IIHHB", 1, 2, 3, 4, 16)
    return ipfix(framed(2, template(300, fields)), framed(300, record * 2000), sequence=n)


def garbage(source: random.Random, n: int) -> bytes:
    return source.choice((b"\0\x09", b"\0\x0a", b"\0\x05", b"")) + source.randbytes(source.randrange(1400))


STREAMS: list[Stream] = [changing_templates, wide_templates, many_domains, tiny_sets, tiny_flows, sampler_changes, waiting_sets,
                         waiting_and_released, scopes, port_blocks, garbage]


def decoder_with_small_portions() -> Decoder:
    decoder = Decoder(SMALL)
    assert decoder.state.limits is not None
    decoder.state.limits = decoder.state.limits._replace(portion=PORTION, fields=4096, waiting_sets=1000)
    return decoder


def assert_bounded(decoder: Decoder) -> None:
    limits = decoder.state.limits
    assert limits is not None
    assert decoder.state.octets <= state_octets_max(limits, SMALL.collector.sightings_max), {
        name: array.nbytes for name, array in decoder.state.arrays._asdict().items()}
    assert decoder.result_octets <= results_octets_max(limits)


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.__name__)
def test_memory_is_bounded_whatever_is_sent(stream: Stream) -> None:
    source = random.Random(stream.__name__)
    decoder = decoder_with_small_portions()
    number = 0
    for block in range(12):
        datagrams = []
        size = 0
        while size < 300_000 and len(datagrams) < 1000:
            payload = stream(source, number)
            datagrams.append(Datagram(payload, NOW + number, f"10.0.{source.randrange(3)}.1"))
            size += len(payload)
            number += 1
        decoded = decoder.feed(body_of(datagrams), block)
        assert decoded.counts.datagrams == decoded.counts.decoded + decoded.counts.faulted + decoded.counts.duplicate
        assert_bounded(decoder)


def test_all_of_them_together_and_a_good_exporter_among_them() -> None:
    source = random.Random(5)
    decoder = decoder_with_small_portions()
    good = 0
    number = 0
    feeds = [stream for stream in STREAMS if stream not in (many_domains, scopes, wide_templates, changing_templates)]
    first = [Datagram(ipfix(framed(2, template(256, BASIC)), domain=9), NOW, "192.0.2.9")]
    decoder.feed(body_of(first), 0)
    for block in range(1, 9):
        datagrams = []
        for _ in range(25):
            number += 1
            datagrams.append(Datagram(source.choice(feeds)(source, number), NOW + number, f"10.0.{source.randrange(3)}.1"))
            message = ipfix(framed(256, basic(5)), domain=9, sequence=good)
            datagrams.append(Datagram(message, NOW + number, "192.0.2.9"))
            good += 1
        decoded = decoder.feed(body_of(datagrams), block)
        mine = decoded.flows["exporter"][:, 15] == 9
        assert decoded.flows["octets"][mine].tolist() == [5] * 25
        assert_bounded(decoder)


def test_a_portioned_block_says_what_a_whole_one_says() -> None:
    source = random.Random(9)
    datagrams = [Datagram(source.choice([tiny_sets, waiting_and_released, sampler_changes, tiny_flows])(source, n), NOW + n,
                          "10.0.0.1") for n in range(60)]
    whole, portioned = Decoder(SMALL), decoder_with_small_portions()
    one, two = whole.feed(body_of(datagrams), 0), portioned.feed(body_of(datagrams), 0)
    assert one.counts == two.counts
    assert one.faults == two.faults
    for name in ("octets", "received", "rate_numerator", "source_address"):
        assert sorted(map(str, one.flows[name].tolist())) == sorted(map(str, two.flows[name].tolist()))
    assert whole.state.exporters() == portioned.state.exporters()


def test_room_for_fields_comes_back_when_templates_change() -> None:
    """Dead plans must not keep new templates out."""
    decoder = decoder_with_small_portions()
    for block in range(30):
        fields = [(1 + (block + k) % 300, 1) for k in range(250)]
        decoder.feed(body_of([Datagram(v9(framed(0, template(256 + k, fields)), sequence=block * 4 + k), NOW + block)
                              for k in range(4)]), block)
    after = decoder.feed(body_of([Datagram(v9(framed(0, template(500, BASIC)), framed(500, basic(3)), sequence=120), NOW)]), 30)
    assert after.flows["octets"].tolist() == [3]
    assert not after.faults
