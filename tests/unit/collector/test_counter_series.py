"""Counters of interfaces: octets between instants, resets, wraps and gaps by name."""

from __future__ import annotations

import random
from itertools import pairwise

from collector import counter_series as counters

HOUR = 3_600_000
MINUTES_5 = 300_000


def test_octets_are_the_growth_of_the_counter() -> None:
    parts = counters.stretches([(0, 1000), (MINUTES_5, 1500), (2 * MINUTES_5, 1500), (3 * MINUTES_5, 9000)])
    found = counters.count(parts, 0, 3 * MINUTES_5)
    assert (found.octets, found.covered, found.resets, found.wraps, found.gaps) == (8000, [(0, 3 * MINUTES_5)], 0, 0, [])


def test_a_counter_that_goes_round_is_told_from_one_that_begins_anew() -> None:
    (wrap,) = counters.stretches([(0, 2**64 - 100), (MINUTES_5, 400)])
    assert (wrap.kind, wrap.octets) == (counters.WRAP, 500)
    (reset,) = counters.stretches([(0, 10**15), (MINUTES_5, 400)])
    assert (reset.kind, reset.octets) == (counters.RESET, 400)


def test_a_jump_beyond_any_link_is_not_used() -> None:
    (jump,) = counters.stretches([(0, 5), (1000, 5 + counters.OCTETS_PER_MS_MAX * 1000 + 1)])
    found = counters.count([jump], 0, 1000)
    assert (found.octets, found.covered) == (0, [])
    assert "more than any link" in found.gaps[0][2]


def test_a_reset_is_named_as_a_gap_and_its_new_value_counts() -> None:
    parts = counters.stretches([(0, 10**12), (MINUTES_5, 10**12 + 70), (2 * MINUTES_5, 30), (3 * MINUTES_5, 50)])
    found = counters.count(parts, 0, 3 * MINUTES_5)
    assert (found.octets, found.resets) == (70 + 30 + 20, 1)
    assert found.gaps == [(MINUTES_5, 2 * MINUTES_5, "the counter began anew")]


def test_long_silence_is_named_and_its_octets_count() -> None:
    parts = counters.stretches([(0, 0), (3 * HOUR, 900)])
    found = counters.count(parts, 0, 3 * HOUR)
    assert (found.octets, found.gaps) == (900, [(0, 3 * HOUR, "no samples between")])


def test_what_no_sample_covers_is_named_at_both_ends() -> None:
    found = counters.count(counters.stretches([(2 * HOUR, 0), (2 * HOUR + MINUTES_5, 9)]), 0, 5 * HOUR)
    assert found.covered == [(2 * HOUR, 2 * HOUR + MINUTES_5)]
    assert [gap[:2] for gap in found.gaps] == [(0, 2 * HOUR), (2 * HOUR + MINUTES_5, 5 * HOUR)]


def test_counters_that_the_agent_does_not_have_are_left_out() -> None:
    assert counters.stretches([(0, 0), (MINUTES_5, counters.UNKNOWN), (2 * MINUTES_5, 8)]) == [
        counters.Stretch(0, 2 * MINUTES_5, 8)]


def test_any_cuts_of_a_stretch_sum_to_it() -> None:
    rng = random.Random(3)
    for _ in range(200):
        part = counters.Stretch(start := rng.randrange(10**6), start + rng.randrange(1, 10**7), rng.randrange(2**63))
        cuts = sorted([part.start, part.end, *(rng.randrange(part.start, part.end + 1) for _ in range(5))])
        assert sum(part.between(a, b) for a, b in pairwise(cuts)) == part.octets
        assert part.between(part.start - 5, part.end + 5) == part.octets


def test_unsigned_64_bits_survive_sql() -> None:
    for value in (0, 1, 2**63 - 1, 2**63, 2**64 - 1):
        assert -(2**63) <= counters.signed(value) < 2**63
        assert counters.unsigned(counters.signed(value)) == value
