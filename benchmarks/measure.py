"""Medians of several runs, and one JSON line a figure."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

RUNS = 5


@dataclass(frozen=True)
class Figure:
    """A value and its ratio to a peer or limit that was measured in the same run."""

    scenario: str
    what: str
    value: float
    unit: str
    against: str
    ratio: float
    beside: Mapping[str, Any] = field(default_factory=dict)
    """What else was seen in these runs: memory, octets on disk, the single values."""


def median_seconds(work: Callable[[], object], runs: int = RUNS) -> float:
    """The median duration of some work; one run before it warms up."""
    work()
    taken = []
    for _ in range(runs):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of runs that stood side by side: what slows both down does not count."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True) if other)


def highest(holds: Callable[[int], bool], low: int, high: int, steps: int) -> int:
    """The highest rate found that holds, by halving in the logarithm; 0 if not even `low` does."""
    if holds(high):
        return high
    best = 0
    for _ in range(steps):
        middle = round((low * high) ** 0.5)
        if holds(middle):
            best = low = middle
        else:
            high = middle
    return best


def memory_bandwidth() -> float:
    """Octets a second that one core copies, read and written: the limit of whatever touches each octet once."""
    source = np.ones(64 << 20, np.uint8)
    target = np.empty_like(source)
    return 2 * source.nbytes / median_seconds(lambda: np.copyto(target, source))


def tell(figure: Figure) -> None:
    """A line for people; the JSON beside it is the history's."""
    print(
        f"{figure.scenario:<10} {figure.what:<52} {figure.value:>10.3g} {figure.unit:<14} "
        f"{figure.ratio:>6.3f} of {figure.against}",
        flush=True,
    )
    for name, value in figure.beside.items():
        print(f"{'':<12}{name}: {value}", flush=True)
    line = {**asdict(figure), "machine": platform.machine(), "python": platform.python_version()}
    with open("benchmarks/history.jsonl", "a", encoding="utf-8") as history:
        history.write(json.dumps(line) + "\n")
