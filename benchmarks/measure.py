"""Medians of several runs, and one JSON line a figure."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

RUNS = 5


@dataclass(frozen=True)
class Figure:
    """A rate and its ratio to a peer or limit that was measured in the same run."""

    scenario: str
    what: str
    value: float
    unit: str
    against: str
    ratio: float


def median_seconds(work: Callable[[], object], runs: int = RUNS) -> float:
    """The median duration of some work; one run before it warms up."""
    work()
    taken = []
    for _ in range(runs):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def tell(figure: Figure) -> None:
    """A line for people; the JSON beside it is the history's."""
    print(
        f"{figure.scenario:<10} {figure.what:<44} {figure.value:>10.3g} {figure.unit:<14} "
        f"{figure.ratio:>6.3f} of {figure.against}"
    )
    line = {**asdict(figure), "machine": platform.machine(), "python": platform.python_version()}
    with open("benchmarks/history.jsonl", "a", encoding="utf-8") as history:
        history.write(json.dumps(line) + "\n")
