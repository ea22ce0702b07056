"""Sorting, adding up and merging of cells against a dictionary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation import kernels_cells
from aggregation.cell_sums import CellSums
from aggregation.kernels_cells import SlotNumbers
from core import schemas
from core.errors import RatemillError
from core.jit import kernel

Row = tuple[int, int, int, int, int, int]  # service, slot, class << 2 | direction << 1 | sampled, octets, packets, flows

_services = st.one_of(st.integers(1, 3), st.integers(1, 2**30 - 1))
_slots = st.one_of(st.sampled_from([0, 900_000, -900_000]), st.integers(-(2**61), 2**61))
_lows = st.one_of(st.sampled_from([4, 5, 7]), st.integers(0, 2**17 - 1))
_counts = st.integers(0, 2**50)
_rows = st.lists(st.tuples(_services, _slots, _lows, _counts, _counts, st.integers(0, 1)), max_size=60)


@kernel
def write(given: np.ndarray, rows: np.ndarray, slots: SlotNumbers, state: np.ndarray) -> int:  # type: ignore[type-arg]
    """Rows as `cut_cells` writes them."""
    for i in range(state[1], given.shape[0]):
        number = kernels_cells.slot_number(slots, state, given[i, 1])
        if number < 0 or state[0] >= rows.shape[0]:
            state[1] = i
            return 1
        at = state[0]
        rows[at, 0] = given[i, 0] << kernels_cells.SERVICE_SHIFT | number << kernels_cells.LOW_BITS | given[i, 2]
        rows[at, 1], rows[at, 2], rows[at, 3] = given[i, 3], given[i, 4], given[i, 5]
        state[0] += 1
    return 0


def put(sums: CellSums, rows: Iterable[Row]) -> None:
    given = np.array(list(rows), np.int64).reshape(-1, 6)
    sums.run(lambda room, slots, state: write(given, room, slots, state))


def expected(rows: Iterable[Row]) -> list[tuple[int, ...]]:
    found: dict[tuple[int, int, int], list[int]] = defaultdict(lambda: [0, 0, 0])
    for *key, octets, packets, flows in rows:
        sums = found[key[0], key[1], key[2]]
        for i, some in enumerate((octets, packets, flows)):
            sums[i] += some
    return [(service, slot, low >> 2, low >> 1 & 1, low & 1, *sums) for (service, slot, low), sums in sorted(found.items())]


def rows_of(table: pa.Table) -> list[tuple[int, ...]]:
    assert table.schema.equals(schemas.CELLS)
    return list(zip(*(table.column(name).cast(pa.int64()).to_pylist() for name in schemas.CELLS.names), strict=True))


@settings(deadline=None)  # the first call loads the kernels
@given(_rows, _rows, st.integers(1, 70))
def test_cells_are_in_order_and_each_is_the_sum_of_its_rows_whatever_their_spread(
    rows: list[Row], more: list[Row], room: int
) -> None:
    sums = CellSums(rows=room)
    put(sums, rows)
    put(sums, more)
    assert rows_of(sums.table()) == expected(rows + more)


@settings(deadline=None)
@given(st.lists(_rows, max_size=6))
def test_tables_of_cells_merge_to_the_cells_of_all_their_rows(parts: list[list[Row]]) -> None:
    merged = CellSums(rows=8)
    for rows in parts:
        one = CellSums(rows=16)
        put(one, rows)
        merged.add(one.table())
    assert rows_of(merged.table()) == expected(row for rows in parts for row in rows)


@pytest.mark.parametrize(("services", "slots", "lows"), [(2, 3_000, 8), (90_000, 96, 60), (1, 1, 1), (2**30 - 1, 3, 2**17)])
def test_rows_by_the_hundred_thousand(services: int, slots: int, lows: int) -> None:
    generator = np.random.default_rng(services)
    count = 100_000
    given = np.stack([generator.integers(1, services, count, endpoint=True), generator.integers(0, slots, count) * 900_000,
                      generator.integers(0, lows, count), generator.integers(0, 2**40, count),
                      generator.integers(0, 2**20, count), np.ones(count, np.int64)], axis=1)  # fmt: skip
    for room in (30_011, 1 << 17):
        sums = CellSums(rows=room)
        sums.run(lambda rows, numbers, state: write(given, rows, numbers, state))
        assert rows_of(sums.table()) == expected(tuple(row) for row in given.tolist())


def test_more_slots_than_a_key_has_numbers_for() -> None:
    rows = [(1 + number % 3, number * 300_000, 4, 1, 2, 1) for number in range(kernels_cells.SLOTS_MAX + 1000)]
    sums = CellSums(rows=1 << 20)
    put(sums, rows * 2)
    assert rows_of(sums.table()) == expected(rows * 2)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_sum_that_would_not_fit_is_refused_not_wrapped(parts: int) -> None:
    rows = [(1, 0, 4, 2**61 + 1, 1, 1)]
    with pytest.raises(RatemillError, match="exceeds 2\\^62"):
        sums = CellSums(rows=2 // parts)
        put(sums, rows * 2)
        sums.table()
