"""Members of a group that lose different datagrams, against brute force: the union once, and missing is what all lost."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin_streams import NOW, STEP_MS, Seen, Sent, missing_of, seen_by, stream, write_journal

from collector.decoder import Decoded, Decoder
from collector.faults import FaultKind
from collector.settings import CollectorSettings, Group
from collector.state import DecoderState, ExporterRow
from collector.twins import Merger, Place

NAMES = ("a", "b", "c")


def merged(folder: Path, group: Group, decoder: Decoder | None = None, places: list[Place] | None = None,
           bodies: int = 10**6) -> tuple[Decoder, list[Decoded], Merger]:
    decoder = decoder if decoder is not None else Decoder(CollectorSettings(), group=group)
    merger = Merger(folder, group, places or [Place(-1, 0)] * len(group.members))
    merger.final = True
    found = []
    while len(found) < bodies and (one := merger.next_body(decoder.state.arrays.members["ahead"])) is not None:
        found.append(decoder.feed(one.body, len(found)))
    merger.close()
    return decoder, found, merger


def the_exporter(decoder: Decoder) -> ExporterRow:
    (row,) = decoder.state.exporters()
    return row


def octets_of(decoded: list[Decoded]) -> Counter[int]:
    return Counter(octets for one in decoded for octets in one.flows["octets"].tolist())


def expected_octets(sent: list[Sent], have: set[int]) -> Counter[int]:
    found: Counter[int] = Counter()
    for n in have:
        found[sent[n].octets] += sent[n].records
    return found


@given(protocol=st.sampled_from(["v5", "v9", "ipfix", "sflow"]), sizes=st.lists(st.integers(1, 4), min_size=4, max_size=120),
       count=st.integers(2, 3), first=st.sampled_from([0, 5, 2**32 - 40, 2**31 - 3]), seed=st.integers(0, 10**6),
       loss=st.sampled_from([0.0, 0.1, 0.4, 0.7]), copies=st.sampled_from([0.0, 0.2]), jitter=st.sampled_from([0, 3, 40]),
       skew=st.sampled_from([0, 5, 300, 4000]))
@settings(max_examples=200, deadline=None)
def test_the_union_is_decoded_once_and_missing_is_what_all_lost(protocol: str, sizes: list[int], count: int, first: int,
                                                               seed: int, loss: float, copies: float, jitter: int,
                                                               skew: int) -> None:
    source = random.Random(seed)
    sent = stream(protocol, sizes, first)
    seen = [seen_by(sent, source, loss, source.randint(-skew, skew), jitter, copies) for _ in range(count)]
    have = set().union(*(one.which for one in seen))
    if not have:
        return
    group = Group("pair", NAMES[:count])
    with tempfile.TemporaryDirectory() as folder:
        for name, one in zip(NAMES, seen, strict=False):
            write_journal(Path(folder), name, sent, one, source)
        decoder, decoded, _ = merged(Path(folder), group)
    assert octets_of(decoded) == expected_octets(sent, have)
    row = the_exporter(decoder)
    assert (row.missing, row.restarts) == (missing_of(sent, have), 0)
    datagrams = sum(len(one.arrived) for one in seen)
    own = sum(len(one.arrived) - len(one.which) for one in seen)
    assert sum(d.counts.datagrams for d in decoded) == datagrams
    assert sum(d.counts.twin for d in decoded) == sum(len(one.which) for one in seen) - len(have)
    assert sum(d.counts.duplicate for d in decoded) == own == row.duplicate
    assert sum(d.counts.decoded for d in decoded) == len(have)
    assert row.received == len(have) + own, "what the exporter sent, not how often we have it"
    members = decoder.state.arrays.members
    assert [int(n) for n in members["datagrams"][:count]] == [len(one.arrived) for one in seen]
    assert int(members["first"].sum()) == len(have)


@given(seed=st.integers(0, 10**6), protocol=st.sampled_from(["v5", "v9", "ipfix"]), skew=st.sampled_from([0, 30]),
       gap=st.integers(100_000, 5_000_000))
@settings(max_examples=40, deadline=None)
def test_a_restart_is_one_restart_although_members_bring_it_at_different_times(seed: int, protocol: str, skew: int,
                                                                              gap: int) -> None:
    source = random.Random(seed)
    before = stream(protocol, [2] * 60, 1_000_000)
    after = stream(protocol, [3] * 60, 0, begin=before[-1].at + gap, uptime=1000, mark=1000)
    sent = before + after
    seen = [seen_by(sent, source, 0.2, source.randint(-skew, skew), 3, 0.0) for _ in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        for name, one in zip(NAMES, seen, strict=False):
            write_journal(Path(folder), name, sent, one, source)
        decoder, decoded, _ = merged(Path(folder), Group("pair", NAMES[:2]))
    have = seen[0].which | seen[1].which
    assert octets_of(decoded) == expected_octets(sent, have)
    row = the_exporter(decoder)
    lost = missing_of(before, {n for n in have if n < 60}) + missing_of(after, {n - 60 for n in have if n >= 60})
    assert (row.restarts, row.missing) == (1, lost)


@given(seed=st.integers(0, 10**6), cut=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_places_and_state_go_on_exactly_where_they_were(seed: int, cut: int) -> None:
    source = random.Random(seed)
    sent = stream("ipfix", [source.randrange(1, 4) for _ in range(150)], 77)
    seen = [seen_by(sent, source, 0.3, source.randint(-50, 50), 5, 0.1) for _ in range(2)]
    group = Group("pair", NAMES[:2])
    with tempfile.TemporaryDirectory() as folder:
        for name, one in zip(NAMES, seen, strict=False):
            write_journal(Path(folder), name, sent, one, source, block_max=12)
        whole, decoded, _ = merged(Path(folder), group)
        decoder, places, parts = Decoder(CollectorSettings(), group=group), [Place(-1, 0)] * 2, []
        while True:
            merger = Merger(Path(folder), group, places)  # each time a new one, as after a kill
            merger.final = True
            taken = [merger.next_body(decoder.state.arrays.members["ahead"]) for _ in range(cut)]
            bodies = [one.body for one in taken if one is not None]
            if not bodies:
                break
            parts += [decoder.feed(body, 0) for body in bodies]
            places = merger.places
            merger.close()
            decoder = Decoder(CollectorSettings(), DecoderState.from_bytes(decoder.state.to_bytes()), group)
    assert octets_of(parts) == octets_of(decoded) == expected_octets(sent, seen[0].which | seen[1].which)
    assert decoder.state.exporters() == whole.state.exporters()


def test_clocks_are_learned_from_copies(tmp_path: Path) -> None:
    source = random.Random(5)
    sent = stream("v9", [1] * 600, 0)
    seen = [seen_by(sent, source, 0.05, ahead, 0, 0.0) for ahead in (0, 1800, -700)]
    for name, one in zip(NAMES, seen, strict=True):
        write_journal(tmp_path, name, sent, one, source)
    decoder, _, _ = merged(tmp_path, Group("three", NAMES))
    ahead = [int(n) // 1024 for n in decoder.state.arrays.members["ahead"][:3]]
    assert ahead[0] == 0
    assert ahead[1] == pytest.approx(1800, abs=20)
    assert ahead[2] == pytest.approx(-700, abs=20)


def test_a_member_that_was_down_costs_nothing_that_the_other_has(tmp_path: Path) -> None:
    source = random.Random(6)
    sent = stream("v5", [2] * 500, 9)
    one = seen_by(sent, source, 0.0, 0, 2, 0.0)
    other = Seen([(n, at) for n, at in one.arrived if not 100 <= n < 400])
    for name, seen in zip(NAMES, (one, other), strict=False):
        write_journal(tmp_path, name, sent, seen, source)
    decoder, decoded, _ = merged(tmp_path, Group("pair", NAMES[:2]))
    assert octets_of(decoded) == expected_octets(sent, one.which)
    assert (the_exporter(decoder).missing, the_exporter(decoder).restarts) == (0, 0)


def test_what_comes_too_late_to_be_told_from_a_copy_is_a_fault_unless_it_fills_a_gap(tmp_path: Path) -> None:
    """Member b's journal becomes readable long after: no double, and what a lost is filled all the same."""
    group = Group("pair", NAMES[:2], late_seconds=2, clock_seconds=1)
    source = random.Random(8)
    sent = stream("v9", [1] * 3000, 0)
    one = Seen([(n, sent[n].at) for n in range(3000) if n % 50 != 7])
    other = Seen([(n, sent[n].at) for n in range(100)])
    write_journal(tmp_path / "first", "a", sent, one, source)
    (tmp_path / "first" / "b").mkdir(parents=True)
    wanted = CollectorSettings()
    wanted = type(wanted)(type(wanted.collector)(duplicate_window=16, sightings_max=1024))
    decoder = Decoder(wanted, group=group)
    _, before, merger = merged(tmp_path / "first", group, decoder)
    write_journal(tmp_path / "first", "b", sent, other, source)
    _, after, _ = merged(tmp_path / "first", group, decoder, merger.places)
    assert octets_of(before + after) == expected_octets(sent, one.which | {7, 57})
    late = sum(n for d in after for _, _, kind, n in d.faults if kind == FaultKind.TWIN_TOO_LATE)
    assert late == 98
    assert sum(d.counts.faulted for d in after) == late
    assert the_exporter(decoder).missing == missing_of(sent, one.which | {7, 57})


def test_datagrams_wait_for_a_silent_member_and_no_longer_than_said(tmp_path: Path) -> None:
    from core import clock

    now = clock.now_ms()
    sent = stream("v5", [1] * 20, 0, begin=now - 60_000)
    fresh = stream("v5", [1] * 20, 20, begin=now + 1000)
    source = random.Random(1)
    group = Group("pair", NAMES[:2], wait_seconds=30)
    write_journal(tmp_path, "a", sent, Seen([(n, one.at) for n, one in enumerate(sent)]), source)
    write_journal(tmp_path, "a", fresh, Seen([(n, one.at) for n, one in enumerate(fresh)]), source)
    decoder = Decoder(CollectorSettings(), group=group)

    def bodies(merger: Merger) -> list[Decoded]:
        found = []
        while (one := merger.next_body(decoder.state.arrays.members["ahead"])) is not None:
            found.append(decoder.feed(one.body, 0))
        return found

    merger = Merger(tmp_path, group, [Place(-1, 0)] * 2)
    assert sum(d.counts.datagrams for d in bodies(merger)) == 20, "a minute old: b had its time"
    write_journal(tmp_path, "b", fresh, Seen([(n, one.at) for n, one in enumerate(fresh[:11])]), source)
    assert sum(d.counts.datagrams for d in bodies(merger)) == 22, "as far as b has come"
    assert bodies(merger) == []
    merger.final = True
    assert sum(d.counts.datagrams for d in bodies(merger)) == 9
    assert the_exporter(decoder).received == 40
    assert fresh[0].at - sent[-1].at > 30_000 > 20 * STEP_MS
    assert now > NOW
