"""Times of addresses are a function of the set of entries: no order or repetition changes them, and they never overlap."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from core.addresses import parse_prefix
from core.periods import OPEN_END
from subscribers.dhcp.entries import Client, Entry, Kind, State
from subscribers.dhcp.intervals import intervals

PREFIX = parse_prefix("192.0.2.10")
A, B = (Client.of({Kind.HARDWARE: bytes([n] * 6)}) for n in (1, 2))


@st.composite
def entry(draw: st.DrawFn) -> Entry:
    state = draw(st.sampled_from(list(State)))
    start, seen, end = sorted(draw(st.tuples(*[st.integers(0, 30)] * 3)))
    client = draw(st.sampled_from([A, B])) if state is State.ACTIVE else draw(st.sampled_from([A, B, None]))
    if state is State.VOID:
        return Entry(PREFIX, state, seen, seen, seen, None)
    return Entry(PREFIX, state, seen, start, draw(st.sampled_from([end, OPEN_END])) if state is State.ACTIVE else end, client)


def told(*those: Entry) -> list[tuple[Client, int, int]]:
    return [(one.client, one.start, one.end) for one in intervals(those)]


@given(st.lists(entry(), max_size=12), st.randoms(use_true_random=False))
def test_any_order_and_repetition_gives_the_same_times(those: list[Entry], source: random.Random) -> None:
    shuffled = those + source.choices(those, k=len(those)) if those else []
    source.shuffle(shuffled)
    assert told(*shuffled) == told(*those)


@given(st.lists(entry(), max_size=12))
def test_times_never_overlap_and_lie_within_what_entries_say(those: list[Entry]) -> None:
    found = intervals(those)
    assert all(one.start < one.end for one in found)
    assert all(before.end <= after.start for before, after in pairwise(found))
    for one in found:
        assert any(each.client == one.client and each.start <= one.start < each.end for each in those)
        assert any(each.client == one.client and each.end >= one.end for each in those)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20), st.sampled_from([A, B])), max_size=12,
                unique_by=lambda one: one[0]), st.integers(0, 80))  # fmt: skip
def test_the_newest_active_entry_before_an_instant_decides_it(those: list[tuple[int, int, Client]], instant: int) -> None:
    found = intervals(Entry(PREFIX, State.ACTIVE, at, at, at + length, who) for at, length, who in those)
    before = [one for one in those if one[0] <= instant]
    expected = None
    if before:
        at, length, who = max(before, key=lambda one: one[0])
        expected = who if instant < at + length else None
    assert [one.client for one in found if one.start <= instant < one.end] == ([expected] if expected else [])


def active(at: int, end: int, who: Client = A, start: int | None = None) -> Entry:
    return Entry(PREFIX, State.ACTIVE, at, at if start is None else start, end, who)


def ended(start: int, end: int, who: Client | None = A, seen: int | None = None) -> Entry:
    return Entry(PREFIX, State.ENDED, end if seen is None else seen, start, end, who)


def void(at: int) -> Entry:
    return Entry(PREFIX, State.VOID, at, at, at, None)


def test_renewals_extend() -> None:
    assert told(active(0, 10), active(5, 15), active(10, OPEN_END)) == [(A, 0, OPEN_END)]


def test_another_client_ends_the_time_of_the_one_before() -> None:
    assert told(active(0, 10), active(5, 15, B), active(20, 30, B)) == [(A, 0, 5), (B, 5, 15), (B, 20, 30)]
    assert told(active(0, 10), active(8, 15, B, start=5)) == [(A, 0, 5), (B, 5, 15)], "its first entry is not there"


def test_an_end_before_the_time_ends_it_and_one_at_the_time_says_nothing_new() -> None:
    assert told(active(0, 10), ended(0, 7)) == [(A, 0, 7)]
    assert told(active(0, 10), ended(0, 10)) == [(A, 0, 10)]
    assert told(active(0, 10), ended(7, 7, None)) == [(A, 0, 7)]


def test_what_a_tidied_file_still_knows_is_enough() -> None:
    assert told(ended(0, 12)) == [(A, 0, 12)]
    assert told(active(0, 10), ended(0, 15, seen=10)) == [(A, 0, 15)], "the renewal between is not there"
    assert told(active(0, 10), active(20, 30, A, start=0)) == [(A, 0, 30)]


def test_a_kea_lease_that_is_deleted_keeps_the_time_that_nobody_else_had() -> None:
    deleted = ended(5, 5, seen=5)
    assert told(active(0, 10), active(5, 15), deleted) == [(A, 0, 15)]
    assert told(active(0, 10), active(5, 15), deleted, active(9, 19, B)) == [(A, 0, 9), (B, 9, 19)]
    assert told(active(0, 10), ended(7, 7, seen=7)) == [(A, 0, 7)]


def test_an_address_that_a_stranger_uses_is_nobodys() -> None:
    assert told(active(0, 10), void(0)) == []
    assert told(active(0, 10), void(3), active(6, 16, B)) == [(A, 0, 3), (B, 6, 16)]
    assert told(active(0, 10), ended(0, 10, seen=0), void(0)) == [(A, 0, 10)], "abandoned after its client's time was over"


def test_the_end_of_a_client_whose_address_has_gone_to_another_ends_nothing() -> None:
    assert told(active(0, 10), active(5, 15, B), ended(0, 10)) == [(A, 0, 5), (B, 5, 15)]
