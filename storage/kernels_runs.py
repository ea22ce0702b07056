"""Where runs of equal values begin, for columns that are stored as runs."""

from __future__ import annotations

from typing import Any

from core.jit import kernel


@kernel
def run_starts(values: Any, starts: Any) -> Any:
    """Indexes at which a run begins, into `starts` (as long as `values`); how many."""
    if values.size == 0:
        return 0
    starts[0] = 0
    count = 1
    before = values[0]
    for i in range(1, values.size):
        starts[count] = i
        count += values[i] != before
        before = values[i]
    return count


@kernel
def run_starts_of_pairs(values: Any, starts: Any) -> Any:
    """The same for values of two words, an array (n, 2)."""
    if values.shape[0] == 0:
        return 0
    starts[0] = 0
    count = 1
    for i in range(1, values.shape[0]):
        starts[count] = i
        count += values[i, 0] != values[i - 1, 0] or values[i, 1] != values[i - 1, 1]
    return count
