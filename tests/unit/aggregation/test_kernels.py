"""The arithmetic of the kernels: exact to the last octet, in 64 bits, compiled and not."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from harness import ROOT

from aggregation import kernels
from aggregation.sums import Sums
from core.errors import RatemillError


def scaled(octets: int, numerator: int, denominator: int) -> tuple[int, int]:
    out, packets = np.zeros(1, np.int64), np.zeros(1, np.int64)
    one = np.ones(1, np.int64)
    code = kernels.scale(np.array([octets]), one, np.array([numerator], np.uint32), np.array([denominator], np.uint32),
                         one, one, out, packets, np.zeros(1, np.int64))
    return code, int(out[0])


def test_scaling_is_exact_for_the_largest_counts_and_rates() -> None:
    rng = random.Random(1)
    for _ in range(300):
        octets, numerator = rng.randrange(2**48), rng.choice([1, 2, 1000, rng.randrange(1, 2**32)])
        denominator = rng.choice([1, 3, numerator, rng.randrange(1, 2**32)])
        code, found = scaled(octets, numerator, denominator)
        expected = math.floor(Fraction(octets * numerator, denominator))
        assert (code, found) == (kernels.DONE, expected) if expected <= 2**62 else code == kernels.COUNT_OUT_OF_RANGE


def test_scaling_names_what_breaks_the_promise_of_the_decoder() -> None:
    assert scaled(1, 0, 1)[0] == kernels.RATE_ZERO
    assert scaled(1, 1, 0)[0] == kernels.RATE_ZERO
    assert scaled(-1, 1, 1)[0] == kernels.COUNT_OUT_OF_RANGE
    assert scaled(2**47, 2**32 - 1, 1)[0] == kernels.COUNT_OUT_OF_RANGE


def cut(octets: int, start: int, end: int, edges: list[int]) -> list[tuple[int, int, int]]:
    """(slot, octets, flows) of one flow, its spans cut at these edges."""
    inner = [edge for edge in sorted(edges) if start < edge < end]
    bounds = list(zip([start, *inner], [*inner, end], strict=True))
    count = len(bounds)
    one = np.zeros(1, np.int64)
    flows = kernels.FlowSums(np.array([start]), np.array([end]), np.array([octets]), one, one, one)
    bytes_ = np.zeros(count, np.uint8)
    spans = kernels.Spans(np.zeros(count, np.int64), bytes_, bytes_, bytes_, np.zeros(count, np.int64),
                          np.array([a for a, _ in bounds]), np.array([b for _, b in bounds]), np.zeros(count, np.int16),
                          np.zeros(count, np.int32))
    sums = Sums()
    sums.run(lambda keys, values, state: kernels.cut_outcomes(flows, spans, keys, values, state))
    keys, values = sums.rows()
    return sorted(zip(keys[:, 1].tolist(), values[:, 0].tolist(), values[:, 2].tolist(), strict=True))


@pytest.mark.parametrize("seed", range(8))
def test_any_finer_cut_adds_up_to_the_same_slots(seed: int) -> None:
    rng = random.Random(seed)
    start = rng.randrange(-(2**40), 2**41)
    duration = rng.choice([1, 2, 899_999, rng.randrange(1, 2**23), 2**32 - 1])
    octets = rng.choice([0, 1, 2**48 - 1, 2**62, rng.randrange(2**62)])
    whole = cut(octets, start, start + duration, [])
    assert sum(some for _, some, _ in whole) == octets
    assert sum(flows for _, _, flows in whole) == 1
    finer = [start + rng.randrange(duration + 1) for _ in range(20)]
    assert cut(octets, start, start + duration, finer) == whole
    for slot, some, _ in rng.sample(whole, min(len(whole), 20)):
        a, b = max(slot, start), min(slot + 900_000, start + duration)
        expected = [math.floor(Fraction(octets) * Fraction(t - start, duration)) for t in (a, b)]
        assert some == expected[1] - expected[0]


def test_a_flow_without_duration_goes_whole_to_its_instant() -> None:
    assert cut(77, 900_000, 900_000, []) == [(900_000, 77, 1)]


def test_a_table_that_grows_in_the_middle_of_a_flow_counts_nothing_twice() -> None:
    found = cut(10**15 + 7, 0, 2**32 - 1, [])  # 4,773 slots; the table begins with room for 2,560
    assert len(found) == 4773
    assert sum(octets for _, octets, _ in found) == 10**15 + 7


def test_a_sum_that_would_not_fit_is_refused_not_wrapped() -> None:
    sums = Sums()
    keys = np.zeros((2, 3), np.int64)
    with pytest.raises(RatemillError, match="exceeds 2\\^62"):
        sums.add(keys, np.full((2, 3), 2**61 + 1, np.int64))


def test_the_kernels_give_the_same_without_the_compiler() -> None:
    """Integers overflow differently without it, and only so does coverage see inside."""
    wraps = "ignore:overflow encountered in scalar multiply:RuntimeWarning"  # the hash of a table's key is meant to
    words = [sys.executable, "-m", "pytest", "-W", wraps, "-p", "no:cacheprovider", __file__,
             "tests/unit/aggregation/test_classes.py", "tests/property/aggregation", "-k",
             "scaling or without_duration or names_what or priority or one_small_world"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTEST_ADDOPTS": ""})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
