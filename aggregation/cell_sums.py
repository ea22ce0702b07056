"""Sums of cells: rows are gathered, sorted and added up when there are many, and the runs that come of it are merged.

Memory is that of the cells, and of the rows that wait. (A hash table of cells, which was here before, missed the processor's
caches with every row, was made anew as it grew, and had to be sorted in the end.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aggregation import kernels_cells
from aggregation.kernels import DONE, FROM_THE_START, FULL
from aggregation.kernels_cells import Run, SlotNumbers
from core import schemas
from core.arrays import aligned
from core.errors import RatemillError

ROWS = 1 << 22
"""Rows that wait until they are sorted: 128 MB of them and as much room to sort."""

Int64 = NDArray[np.int64]

TOO_LARGE = RatemillError("a sum of octets or packets exceeds 2^62, which no network carries",
                          "look for an exporter that sends absurd counts: `ratemill flows export`")


class CellSums:
    """Takes in rows from a kernel, and cells that are summed already."""

    def __init__(self, rows: int = ROWS) -> None:
        self._rows = aligned((rows, 4), np.int64)
        self._room = aligned((rows, 4), np.int64)
        self._slots = SlotNumbers(np.empty(kernels_cells.SLOTS_MAX, np.int64),
                                  np.full(kernels_cells.SLOT_PLACES, kernels_cells.FREE, np.int32))
        self._state = np.zeros(4, np.int64)
        self._runs: list[Run] = []  # the longest first, each more than twice as long as the next

    def run(self, loop: Callable[[Int64, SlotNumbers, Int64], int]) -> None:
        """Let a kernel write rows; it is called again as often as it found no room.

        state[0]: rows written, state[1] and state[2]: where the kernel goes on, state[3]: slots numbered.
        """
        self._state[1:3] = 0, FROM_THE_START
        while (code := loop(self._rows, self._slots, self._state)) == FULL:
            self._sum_up()
        assert code == DONE, f"unknown code {code}"

    def add(self, table: pa.Table) -> None:
        """Add cells in their order: a table of core.schemas.CELLS."""
        columns = [table.column(name) for name in schemas.CELLS.names]
        self._keep(Run(*(np.ascontiguousarray((column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column)
                                              .to_numpy()) for column in columns)))

    def table(self) -> pa.Table:
        """All cells in order: a table of core.schemas.CELLS."""
        self._sum_up()
        while len(self._runs) > 1:
            self._merge()
        run = self._runs[0] if self._runs else _room_for(0)
        return pa.Table.from_arrays([pa.array(column).cast(field.type) for column, field
                                     in zip(run, schemas.CELLS, strict=True)], schema=schemas.CELLS)

    def _sum_up(self) -> None:
        """Make a run of the rows that wait."""
        count, slots = int(self._state[0]), int(self._state[3])
        self._state[0] = self._state[3] = 0
        if not count:
            return
        bounds = np.empty(3, np.int64)
        kernels_cells.key_bounds(self._rows, count, bounds)
        low_service, high_service, low = map(int, bounds)
        slot_bits, low_bits = (slots - 1).bit_length(), low.bit_length()
        order = np.argsort(self._slots.start[:slots])
        rank = np.empty(slots, np.int64)
        rank[order] = np.arange(slots)
        kernels_cells.pack_keys(self._rows, count, rank, low_service, slot_bits, low_bits)
        bits = (high_service - low_service).bit_length() + slot_bits + low_bits
        part_bits = min(bits, kernels_cells.DIGIT_BITS, (count // kernels_cells.PART_ROWS).bit_length())
        room = np.empty((2, kernels_cells.DIGITS + 1), np.int64)
        if kernels_cells.sort_rows(self._rows, self._room, count, bits, part_bits, *room):
            self._rows, self._room = self._room, self._rows
        run, cells = _room_for(count), np.zeros(1, np.int64)
        starts = self._slots.start[order]
        _check(kernels_cells.sum_rows(self._rows, count, starts, low_service, slot_bits, low_bits, run, cells))
        self._slots.place.fill(kernels_cells.FREE)
        self._keep(_first(run, int(cells[0])))

    def _keep(self, run: Run) -> None:
        self._runs.append(run)
        while len(self._runs) > 1 and len(self._runs[-2].slot) <= 2 * len(self._runs[-1].slot):
            self._merge()

    def _merge(self) -> None:
        other, one = self._runs.pop(), self._runs.pop()
        merged, cells = _room_for(len(one.slot) + len(other.slot)), np.zeros(1, np.int64)
        _check(kernels_cells.merge_runs(one, other, merged, cells))
        self._runs.append(_first(merged, int(cells[0])))


def _room_for(count: int) -> Run:
    return Run(np.empty(count, np.int32), np.empty(count, np.int64), np.empty(count, np.int16), np.empty(count, np.uint8),
               np.empty(count, np.uint8), *(np.empty(count, np.int64) for _ in range(3)))


def _first(run: Run, count: int) -> Run:
    """The first cells of a run; the room behind them is given back if it is most of it."""
    most = 2 * count > len(run.slot)
    return Run._make(column[:count] if most else column[:count].copy() for column in run)


def _check(code: int) -> None:
    if code != DONE:
        raise TOO_LARGE
