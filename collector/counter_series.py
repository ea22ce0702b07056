"""Interface counters over time: octets between two instants from samples of a 64-bit counter, resets and gaps by name.

Reads `interface_counter`: samples that sFlow exporters send, or that `counters import` brought. A counter only grows; where
it does not, it wrapped (if the way round is one that a link can carry) or the device began anew at 0. Of an interval with
a reset the new value is the least that passed in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

WORD = 2**64
UNKNOWN = WORD - 1
"""What an sFlow agent sends for a counter that it does not have (sFlow v5, §5.2)."""
OCTETS_PER_MS_MAX = 200_000_000
"""1.6 Tbit/s: no interface carries more; a counter that grew faster is not the same counter."""
GAP_MS = 3_600_000
"""Samples further apart than this are named: the octets between them are known, but not when they passed."""

COUNTED, WRAP, RESET, IMPLAUSIBLE = "counted", "wrap", "reset", "implausible"


@dataclass(frozen=True, slots=True)
class Stretch:
    """Octets between two samples; what is implausible has none and covers nothing."""

    start: int
    end: int
    octets: int
    kind: str = COUNTED

    def between(self, start: int, end: int) -> int:
        """The octets in [start, end), as if they had passed evenly; cuts of a stretch sum to it."""
        first, last = max(start, self.start), min(end, self.end)
        if last <= first:
            return 0
        length = self.end - self.start
        return self.octets * (last - self.start) // length - self.octets * (first - self.start) // length


@dataclass(frozen=True)
class Counted:
    """What a counter says of a span of time."""

    octets: int
    covered: list[tuple[int, int]] = field(default_factory=list)
    """Where it says something, in order, apart from each other."""
    resets: int = 0
    wraps: int = 0
    gaps: list[tuple[int, int, str]] = field(default_factory=list)
    """Where it says nothing, or not when: (start, end, why)."""

    @property
    def covered_ms(self) -> int:
        return sum(end - start for start, end in self.covered)


def stretches(samples: Sequence[tuple[int, int]]) -> list[Stretch]:
    """(instant, value) in order of time → what passed between each two. Values are unsigned 64-bit."""
    known = [(at, value) for at, value in samples if value != UNKNOWN]
    return [_stretch(*before, *after) for before, after in pairwise(known)]


def _stretch(start: int, before: int, end: int, after: int) -> Stretch:
    assert end > start, "samples are in order of time"
    most = OCTETS_PER_MS_MAX * (end - start)
    if after >= before:
        grown = after - before
        return Stretch(start, end, grown) if grown <= most else Stretch(start, end, 0, IMPLAUSIBLE)
    if after + WORD - before <= most:
        return Stretch(start, end, after + WORD - before, WRAP)
    return Stretch(start, end, after, RESET) if after <= most else Stretch(start, end, 0, IMPLAUSIBLE)


def count(parts: Sequence[Stretch], start: int, end: int) -> Counted:
    """What stretches in order of time say of [start, end)."""
    inside = [part for part in parts if part.start < end and part.end > start]
    covered: list[tuple[int, int]] = []
    gaps: list[tuple[int, int, str]] = []
    at = start
    for part in inside:
        first, last = max(part.start, start), min(part.end, end)
        if first - at > GAP_MS:
            gaps.append((at, first, "no samples"))
        at = last
        if part.kind == IMPLAUSIBLE:
            gaps.append((first, last, "the counter jumped by more than any link carries"))
            continue
        if part.kind == RESET:
            gaps.append((first, last, "the counter began anew"))
        elif last - first > GAP_MS:
            gaps.append((first, last, "no samples between"))
        if covered and covered[-1][1] == first:
            covered[-1] = (covered[-1][0], last)
        else:
            covered.append((first, last))
    if end - at > GAP_MS:
        gaps.append((at, end, "no samples"))
    return Counted(sum(part.between(start, end) for part in inside), covered, sum(part.kind == RESET for part in inside),
                   sum(part.kind == WRAP for part in inside), gaps)


def unsigned(value: int) -> int:
    """The counter as SQL holds it (two's complement) → as it was."""
    return value % WORD


def signed(value: int) -> int:
    """The inverse of `unsigned`."""
    return value - WORD if value >= WORD // 2 else value
