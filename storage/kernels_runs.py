"""Where runs of equal values begin, for columns that are stored as runs."""

from __future__ import annotations

from typing import Any

from core.jit import kernel

PIECE = 128
"""Values that are compared with the run that goes on at once, as vectors: most pieces hold nothing else."""


@kernel
def run_starts(values: Any, starts: Any) -> Any:
    """Indexes at which a run begins, into `starts` (as long as `values`); how many."""
    if values.size == 0:
        return 0
    starts[0] = 0
    count = 1
    before = values[0]
    for first in range(1, values.size, PIECE):
        last = min(first + PIECE, values.size)
        differs = False
        for i in range(first, last):
            differs |= values[i] != before
        if differs:
            for i in range(first, last):
                starts[count] = i
                count += values[i] != before
                before = values[i]
    return count


@kernel
def run_starts_of_pairs(values: Any, starts: Any) -> Any:
    """The same for values of two words, an array (n, 2)."""
    size = values.shape[0]
    if size == 0:
        return 0
    starts[0] = 0
    count = 1
    one, two = values[0, 0], values[0, 1]
    for first in range(1, size, PIECE):
        last = min(first + PIECE, size)
        differs = False
        for i in range(first, last):
            differs |= (values[i, 0] != one) | (values[i, 1] != two)
        if differs:
            for i in range(first, last):
                starts[count] = i
                count += (values[i, 0] != one) | (values[i, 1] != two)
                one, two = values[i, 0], values[i, 1]
    return count
