"""The radix sort of cells against NumPy's sort by the same columns."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation.cells import _in_order

_services = st.one_of(st.integers(1, 3), st.integers(1, 2**30 - 1))
_slots = st.one_of(st.sampled_from([0, 900_000, -900_000]), st.integers(-(2**61), 2**61))
_lows = st.integers(0, 2**18 - 1)


@settings(deadline=None)  # the first call loads the kernel
@given(st.lists(st.tuples(_services, _slots, _lows), max_size=60))
def test_keys_come_in_order_of_service_slot_and_the_rest_whatever_their_spread(rows: list[tuple[int, int, int]]) -> None:
    keys = np.array([(service << 18 | low, slot, 0) for service, slot, low in rows], np.int64).reshape(-1, 3)
    k0, slot, order = _in_order(keys)
    expected = np.lexsort((keys[:, 0] & 0x3FFFF, keys[:, 1], keys[:, 0] >> 18))
    assert np.array_equal(order, expected), "equal keys keep their order"
    assert np.array_equal(k0, keys[expected, 0])
    assert np.array_equal(slot, keys[expected, 1])


def test_a_hundred_thousand_keys_of_few_services_and_of_many() -> None:
    generator = np.random.default_rng(7)
    for services in (2, 90_000):
        keys = np.zeros((100_000, 3), np.int64)
        keys[:, 0] = generator.integers(1, services, len(keys)) << 18 | generator.integers(0, 1 << 18, len(keys))
        keys[:, 1] = generator.integers(0, 3_000, len(keys)) * 900_000 + 1_790_000_000_000
        assert np.array_equal(_in_order(keys)[2], np.lexsort((keys[:, 0] & 0x3FFFF, keys[:, 1], keys[:, 0] >> 18)))
