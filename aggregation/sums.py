"""A table of sums by key that grows as it fills: the memory of aggregation is its result, not its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aggregation import kernels
from core.errors import RatemillError

CAPACITY_MIN = 1 << 12


class Rows(NamedTuple):
    """What a table holds, in no order: keys (n, 3) and sums (n, 3)."""

    keys: NDArray[np.int64]
    sums: NDArray[np.int64]


class Sums:
    """Key of three whole numbers (the first not negative) → three sums."""

    def __init__(self) -> None:
        self._keys = np.full((CAPACITY_MIN, 3), -1, np.int64)
        self._sums = np.zeros((CAPACITY_MIN, 3), np.int64)
        self._state = np.zeros(3, np.int64)

    def __len__(self) -> int:
        return int(self._state[0])

    def run(self, loop: Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], int]) -> None:
        """Let a kernel add to the table, again with a larger one as often as it is full."""
        self._state[1:] = 0, kernels.FROM_THE_START
        while (code := loop(self._keys, self._sums, self._state)) == kernels.FULL:
            self._grow()
        if code == kernels.OVERFLOW:
            raise RatemillError("a sum of octets or packets exceeds 2^62, which no network carries",
                                "look for an exporter that sends absurd counts: `ratemill flows export`")
        assert code == kernels.DONE, f"unknown code {code}"

    def add(self, keys: NDArray[np.int64], sums: NDArray[np.int64]) -> None:
        """Add rows (n, 3) of keys and sums."""
        k0, k1, k2 = (np.ascontiguousarray(keys[:, i]) for i in range(3))
        one, two, three = (np.ascontiguousarray(sums[:, i]) for i in range(3))
        self.run(lambda table, values, state: kernels.add_rows(table, values, state, k0, k1, k2, one, two, three))

    def rows(self) -> Rows:
        used = self._keys[:, 0] != -1
        return Rows(self._keys[used], self._sums[used])

    def _grow(self) -> None:
        keys = np.full((self._keys.shape[0] * 2, 3), -1, np.int64)
        sums = np.zeros(keys.shape, np.int64)
        kernels.move(self._keys, self._sums, keys, sums)
        self._keys, self._sums = keys, sums
