"""Sessions are a function of the set of events: no order, repetition or delay of arrival changes an interval."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from core.addresses import Prefix, parse_address, parse_prefix
from core.periods import OPEN_END
from subscribers.radius.packets import Counters, Status
from subscribers.radius.sessions import Event, Session, sessions

T = 1_790_000_000_000
ADDRESSES = [Prefix(parse_address(f"198.51.100.{n}"), 128) for n in range(3)] + [parse_prefix("2001:db8::/56")]

events = st.builds(
    Event, nas=st.sampled_from(["a", "b"]), session=st.sampled_from(["1", "2", "3"]), user=st.sampled_from(["x", "y"]),
    status=st.sampled_from(list(Status)), at=st.integers(0, 30).map(lambda n: T + n * 1000),
    prefixes=st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True).map(tuple),
    seconds=st.none() | st.integers(0, 40),
    counters=st.builds(Counters, input_octets=st.none() | st.integers(0, 1000), output_octets=st.none() | st.integers(0, 9)),
)  # fmt: skip


@given(st.lists(events, max_size=14), st.randoms(use_true_random=False), st.sampled_from([0, 5000]))
def test_any_order_and_repetition_gives_the_same_sessions(those: list[Event], source: random.Random, lost: int) -> None:
    shuffled = those + source.choices(those, k=len(those)) if those else []
    source.shuffle(shuffled)
    assert sessions(shuffled, lost) == sessions(those, lost)


@given(st.lists(events, max_size=14), st.sampled_from([0, 5000]))
def test_an_address_is_never_two_sessions_at_once(those: list[Event], lost: int) -> None:
    held: dict[Prefix, list[tuple[int, int]]] = {}
    for one in sessions(those, lost):
        assert one.start <= one.end <= OPEN_END
        assert (one.end == OPEN_END) == (one.closed_by == "")
        for part in one.held:
            assert one.start <= part.start < part.end <= one.end
            held.setdefault(part.prefix, []).append((part.start, part.end))
    for parts in held.values():
        assert all(before[1] <= after[0] for before, after in pairwise(sorted(parts)))


@given(st.lists(events, max_size=14))
def test_nothing_outlives_a_restart_of_its_nas(those: list[Event]) -> None:
    resets = {(e.nas, e.at) for e in those if e.status in (Status.ACCOUNTING_ON, Status.ACCOUNTING_OFF)}
    for one in sessions(those):
        assert not any(nas == one.nas and one.start < at < one.end for nas, at in resets)


def at(status: Status, second: int, *prefixes: Prefix, **about: object) -> Event:
    given_: dict[str, object] = {"nas": "a", "session": "1", "user": "x", **about}
    return Event(status=status, at=T + second * 1000, prefixes=prefixes, **given_)  # type: ignore[arg-type]


def reset(status: Status, second: int, nas: str = "a") -> Event:
    return Event(nas, "", "", status, T + second * 1000)


def one(*those: Event, lost: int = 0) -> Session:
    (found,) = sessions(those, lost)
    return found


def spans(session: Session) -> list[tuple[int, int]]:
    return [((part.start - T) // 1000, (part.end - T) // 1000) for part in session.held]


def test_a_whole_session() -> None:
    found = one(at(Status.START, 0, ADDRESSES[0]), at(Status.INTERIM, 5, ADDRESSES[0], counters=Counters(100, 5)),
                at(Status.STOP, 9, ADDRESSES[0], counters=Counters(150, 7)))  # fmt: skip
    assert (spans(found), found.closed_by, found.events) == ([(0, 9)], "stop", 3)
    assert (found.input_octets, found.output_octets) == (150, 7)


def test_a_lost_start_is_found_by_the_session_time() -> None:
    assert spans(one(at(Status.INTERIM, 30, ADDRESSES[0], seconds=20), at(Status.STOP, 35, seconds=25))) == [(10, 35)]


def test_a_lost_stop_ends_by_the_nas_by_silence_or_not_at_all() -> None:
    alive = (at(Status.START, 0, ADDRESSES[0]), at(Status.INTERIM, 10))
    assert one(*alive).closed_by == ""
    assert spans(one(*alive, lost=7000)) == [(0, 17)]
    found = sessions([*alive, reset(Status.ACCOUNTING_ON, 12)])
    assert [(spans(s), s.closed_by) for s in found] == [([(0, 12)], "nas")]
    assert one(*alive, reset(Status.ACCOUNTING_ON, 12, nas="b")).closed_by == "", "another NAS"


def test_the_same_session_id_behind_a_restart_is_another_session() -> None:
    found = sessions([at(Status.START, 0, ADDRESSES[0]), reset(Status.ACCOUNTING_ON, 10),
                      at(Status.START, 10, ADDRESSES[1]), at(Status.STOP, 20)])  # fmt: skip
    assert [spans(s) for s in found] == [[(0, 10)], [(10, 20)]]


def test_stops_of_the_same_second_as_the_shutdown_belong_to_the_sessions_before_it() -> None:
    found = sessions([at(Status.START, 0, ADDRESSES[0]), at(Status.STOP, 10), reset(Status.ACCOUNTING_OFF, 10)])
    assert [(spans(s), s.closed_by) for s in found] == [([(0, 10)], "stop")]


def test_an_address_that_was_reported_late_is_the_sessions_from_its_begin_and_a_new_one_from_its_report() -> None:
    found = one(at(Status.START, 0), at(Status.INTERIM, 4, ADDRESSES[0]), at(Status.INTERIM, 6, ADDRESSES[0], ADDRESSES[3]),
                at(Status.INTERIM, 8, ADDRESSES[1]), at(Status.STOP, 9))  # fmt: skip
    told = {part.prefix: ((part.start - T) // 1000, (part.end - T) // 1000) for part in found.held}
    assert told == {ADDRESSES[0]: (0, 8), ADDRESSES[1]: (8, 9), ADDRESSES[3]: (0, 9)}


def test_the_later_session_has_an_address_that_two_claim() -> None:
    other = {"session": "2", "user": "y"}
    found = sessions([at(Status.START, 0, ADDRESSES[0]), at(Status.STOP, 20), at(Status.START, 10, ADDRESSES[0], **other),
                      at(Status.STOP, 15, **other)])  # fmt: skip
    assert [spans(s) for s in found] == [[(0, 10), (15, 20)], [(10, 15)]]


def test_a_counter_that_became_smaller_began_anew() -> None:
    counted = [Counters(100), Counters(30), Counters(50)]
    found = one(at(Status.START, 0), *(at(Status.INTERIM, 1 + n, counters=each) for n, each in enumerate(counted)))
    assert found.input_octets == 150


@given(st.lists(events, max_size=14), st.lists(st.integers(-5, 60), min_size=1, max_size=6))
def test_octets_of_parts_add_up_to_those_of_the_session(those: list[Event], cuts: list[int]) -> None:
    for session in sessions(those):
        edges = [0, *sorted(T + cut * 700 for cut in cuts), OPEN_END]
        parts = [session.octets(*span) for span in pairwise(edges)]
        assert (sum(part[0] for part in parts), sum(part[1] for part in parts)) == (
            session.input_octets, session.output_octets)
        assert session.octets(session.start, session.known_until + 1) == (session.input_octets, session.output_octets)
        assert all(count >= 0 for part in parts for count in part)
