"""The decoder against a slow one that shares no code with it, field by field."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from fuzz.hostile import calm
from harness import shared
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journal_bodies import NOW_MS, Datagram, body_of, capture_datagrams
from oracles.slow_decoder import SlowDecoder

from collector.decoder import Decoded, Decoder
from collector.settings import Collector, CollectorSettings
from core.addresses import parse_address


def flow_rows(decoded: Decoded) -> list[dict[str, Any]]:
    columns = {name: column.tolist() if column.ndim == 1 else [row.tobytes() for row in column]
               for name, column in decoded.flows.items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def reading_rows(decoded: Decoded) -> list[dict[str, Any]]:
    columns = {name: column.tolist() if column.ndim == 1 else [row.tobytes() for row in column]
               for name, column in decoded.interface_counters.items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def compare(datagrams: list[Datagram], tunnels: str = "outer") -> Decoded:
    """Both decoders agree on everything that comes of these datagrams; returns the fast one's."""
    fast = Decoder(CollectorSettings(collector=Collector(tunnels=tunnels))).feed(body_of(datagrams), 0)
    slow = SlowDecoder(inner=tunnels == "inner")
    seen = set()
    for one in datagrams:
        if (one.source, one.payload) not in seen:
            seen.add((one.source, one.payload))
            slow.feed(one.payload, one.received, parse_address(one.source), bool(one.flags))
    assert flow_rows(fast) == slow.flows + slow.released
    counts = fast.counts
    assert (counts.data_records, counts.options_records) == (slow.data_records, slow.options_records)
    assert (counts.not_a_flow, counts.faulted_records) == (slow.not_a_flow, slow.faulted_records)
    assert counts.waiting == sum(map(len, slow.waiting.values()))
    assert reading_rows(fast) == slow.counters
    return fast


@pytest.mark.parametrize("tunnels", ["outer", "inner"])
def test_both_decoders_read_every_capture_alike(tunnels: str) -> None:
    folder = shared("captures")
    flows = 0
    for session in json.loads((folder / "index.json").read_text()):
        datagrams = [one for name in session["files"] for one in capture_datagrams(folder / name)]
        flows += compare(datagrams, tunnels).counts.flows
    assert flows > 5000


@pytest.mark.parametrize("tunnels", ["outer", "inner"])
def test_both_decoders_read_the_hostile_vectors_alike(tunnels: str) -> None:
    for path in sorted(shared("hostile").glob("*.bin")):
        compare([Datagram(path.read_bytes())], tunnels)


def test_both_decoders_read_generated_hostile_datagrams_alike() -> None:
    compared = 0
    for hostile in calm():
        if sum(map(len, hostile.payloads)) < 20_000:
            compare([Datagram(payload) for payload in dict.fromkeys(hostile.payloads)])
            compared += 1
    assert compared > 600


ELEMENTS = [1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 14, 15, 16, 17, 18, 21, 22, 23, 24, 27, 28, 32, 34, 48, 50, 58, 60, 61, 62, 63,
            82, 85, 139, 150, 151, 152, 153, 154, 155, 156, 157, 158, 159, 160, 161, 162, 176, 177, 178, 179, 180, 181, 182,
            183, 230, 231, 232, 233, 86, 240, 243, 245, 298, 299, 302, 305, 306, 309, 310, 322, 323, 324, 352, 353, 102, 103,
            104, 312, 313, 315, 316, 317, 408, 409, 410]
NATURAL = {8: 4, 12: 4, 15: 4, 18: 4, 27: 16, 28: 16, 62: 16, 63: 16, 154: 8, 155: 8, 156: 8, 157: 8, 150: 4, 151: 4, 152: 8,
           153: 8, 160: 8, 4: 1, 60: 1, 61: 1, 7: 2, 11: 2, 230: 1, 233: 1, 12236: 4, 12237: 4, 12238: 16, 12239: 16}
FOREIGN = {29305: [1, 2, 5, 6, 21, 22, 100, 150, 151, 152, 153, 154, 155], 9: [1, 8337, 8338, 12236, 12237, 12240],
           6871: [14, 21], 35632: [1, 2]}


@st.composite
def templates(draw: st.DrawFn, ipfix: bool) -> list[tuple[int, int, int]]:
    chosen = draw(st.lists(st.sampled_from(ELEMENTS), max_size=16))
    base = draw(st.sampled_from([[], [8, 12, 1], [315], [104, 2], [313, 1, 2, 312], [27, 28, 1, 2], [8, 12, 233, 85, 323],
                                 [8, 12, 27, 28, 231, 232], [8, 12, 233, 231, 232, 152]]))
    fields = []
    for element in draw(st.permutations(base + chosen)) or [1]:
        length = NATURAL.get(element, 4)
        if draw(st.integers(0, 9)) == 0:
            length = draw(st.integers(0, 17))
        enterprise = 0
        if ipfix and draw(st.integers(0, 7)) == 0:
            enterprise = draw(st.sampled_from([29305, 29305, 9, 6871, 35632]))
            element = draw(st.sampled_from(FOREIGN[enterprise]))
            length = NATURAL.get(element, 4)
        if ipfix and draw(st.integers(0, 11)) == 0:
            length = 65535
        fields.append((enterprise, element, length))
    return fields


@st.composite
def record(draw: st.DrawFn, fields: list[tuple[int, int, int]], ipfix: bool) -> bytes:
    parts = []
    for _, element, length in fields:
        if ipfix and length == 65535:
            size = draw(st.sampled_from([0, 1, 4, 8, 254, 255, 300]))
            prefix = bytes([size]) if size < 255 else b"\xff" + struct.pack(">H", size)
            parts.append(prefix + draw(st.binary(min_size=size, max_size=size)))
            continue
        data = draw(st.one_of(st.binary(min_size=length, max_size=length), st.just(bytes(length))))
        if element in (4, 60, 230, 233) and length == 1:
            data = bytes([draw(st.sampled_from([1, 2, 3, 4, 5, 6, 17, 58]))])
        elif length and element not in (8, 12, 27, 28) and draw(st.booleans()):
            data = draw(st.integers(0, 2 ** (8 * min(length, 3)) - 1)).to_bytes(length, "big")
        parts.append(data)
    return b"".join(parts)


def template_record(identifier: int, fields: list[tuple[int, int, int]], scope: int, ipfix: bool) -> bytes:
    parts = []
    for enterprise, element, length in fields:
        parts.append(struct.pack(">HH", element | (0x8000 if enterprise else 0), length))
        if enterprise:
            parts.append(struct.pack(">I", enterprise))
    if not scope:
        head = struct.pack(">HH", identifier, len(fields))
    elif ipfix:
        head = struct.pack(">HHH", identifier, len(fields), scope)
    else:
        head = struct.pack(">HHH", identifier, 4 * scope, 4 * (len(fields) - scope))
    return head + b"".join(parts)


def framed(identifier: int, body: bytes) -> bytes:
    return struct.pack(">HH", identifier, 4 + len(body)) + body


def message(ipfix: bool, sets: bytes, sequence: int, exported: int, uptime: int) -> bytes:
    if ipfix:
        return struct.pack(">HHIII", 10, 16 + len(sets), exported, sequence, 7) + sets
    return struct.pack(">HHIIII", 9, 1, uptime, exported, sequence, 7) + sets


@st.composite
def exports(draw: st.DrawFn) -> list[Datagram]:
    """Messages of one exporter: templates, options and data in any order."""
    ipfix = draw(st.booleans())
    datagrams = []
    known: dict[int, list[tuple[int, int, int]]] = {}
    for sequence in range(draw(st.integers(1, 5))):
        sets = b""
        for _ in range(draw(st.integers(1, 3))):
            identifier = draw(st.integers(256, 258))
            scope = 0
            if identifier not in known:
                known[identifier] = draw(templates(ipfix))
            if identifier == 258:
                scope = draw(st.integers(1, len(known[identifier])))
            definition = template_record(identifier, known[identifier], scope, ipfix)
            defining = framed((2 if ipfix else 0) if not scope else (3 if ipfix else 1), definition)
            data = b"".join(draw(record(known[identifier], ipfix)) for _ in range(draw(st.integers(0, 3))))
            using = framed(identifier, data + bytes(draw(st.integers(0, 3))))
            sets += draw(st.sampled_from([defining, using, defining + using, using + defining]))
        exported = draw(st.sampled_from([NOW_MS // 1000, NOW_MS // 1000 - 300, 1_600_000_000, 0]))
        uptime = draw(st.sampled_from([0, 1000, 2**31, 2**32 - 1, 90_000_000]))
        datagrams.append(Datagram(message(ipfix, sets, sequence, exported, uptime), NOW_MS + sequence))
    return datagrams


@given(exports())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_both_decoders_read_generated_templates_and_records_alike(datagrams: list[Datagram]) -> None:
    if sum(len(one.payload) for one in datagrams) < 60_000:
        compare(datagrams)


@pytest.mark.parametrize("number", [1, 5, 7])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_both_decoders_read_fixed_versions_alike(number: int, data: st.DataObject) -> None:
    stride = 48 if number == 5 else 52
    count = data.draw(st.integers(0, 5))
    body = data.draw(st.binary(min_size=count * stride, max_size=count * stride + 60))
    seconds = data.draw(st.sampled_from([NOW_MS // 1000, 1_500_000_000, 0]))
    head = struct.pack(">HHIII", number, count, data.draw(st.integers(0, 2**32 - 1)), seconds, 999_000_000)
    if number != 1:
        head += data.draw(st.binary(min_size=8, max_size=8))
    compare([Datagram(head + body)])
