"""Flows that were in quarantine and whose sampling rate is known now: they are scaled by it like any other.

The collector summed the octets of a segment by quarter hour when it stored it (`segment_slot`), with a rate of 1 for flows in
quarantine. What their late rate adds is summed here from the flows themselves, by arithmetic of its own, so that the balance
of flow octets still compares two counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregation.segments import Columns
from core.periods import SLOT_MS
from core.schemas import FlowFlag
from storage.late_rates import NONE, LateRates, is_quarantined


class LateOctets:
    """Rates flows of quarantine, and remembers what that added."""

    def __init__(self) -> None:
        self.by_slot: dict[int, int] = {}

    def rate(self, columns: Columns, rates: LateRates) -> Columns:
        """The flows, those with a late rate scaled by it and out of quarantine. The columns given are not changed."""
        rows = np.flatnonzero(is_quarantined(columns["flags"]))
        if not len(rows):
            return columns
        some = {name: columns[name][rows] for name in (
            "exporter", "domain", "flags", "received", "octets", "packets", "start", "end")}
        chosen = rates.choose(some["exporter"], some["domain"], some["flags"], some["received"], some["octets"],
                              some["packets"])
        rated = chosen.source != NONE
        rows = rows[rated]
        numerator, denominator, flags = (columns[name].copy() for name in ("rate_numerator", "rate_denominator", "flags"))
        before = _scaled(some["octets"][rated], numerator[rows], denominator[rows])
        numerator[rows], denominator[rows] = chosen.numerator[rated], chosen.denominator[rated]
        flags[rows] &= np.uint32(0xFFFFFFFF ^ FlowFlag.QUARANTINED)
        after = _scaled(some["octets"][rated], numerator[rows], denominator[rows])
        for octets, sign in ((after, 1), (before, -1)):
            self._add(some["start"][rated], some["end"][rated], octets, sign)
        return {**columns, "rate_numerator": numerator, "rate_denominator": denominator, "flags": flags}

    def _add(self, start: NDArray[np.int64], end: NDArray[np.int64], octets: NDArray[np.uint64], sign: int) -> None:
        """Add the parts of flows in each quarter hour that they touch: F(b) - F(a) of F(t) = floor(octets * t / duration)."""
        first = start // SLOT_MS
        last = np.where(end > start, (end - 1) // SLOT_MS, first)
        step = 0
        rows = np.arange(len(start))
        while len(rows):
            slot = (first[rows] + step) * SLOT_MS
            begins, ends = np.maximum(slot, start[rows]), np.minimum(slot + SLOT_MS, end[rows])
            parts = cumulative(octets[rows], start[rows], end[rows], ends) - cumulative(
                octets[rows], start[rows], end[rows], begins)
            parts = np.where(end[rows] > start[rows], parts, octets[rows])
            for at, part in zip(slot.tolist(), parts.tolist(), strict=True):
                self.by_slot[at] = self.by_slot.get(at, 0) + sign * part
            step += 1
            rows = rows[first[rows] + step <= last[rows]]


def _scaled(octets: NDArray[np.int64], numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.uint64]:
    """floor(octets * numerator / denominator), which `LateRates.choose` has held below 2^62."""
    raw, n, d = octets.astype(np.uint64), numerator.astype(np.uint64), denominator.astype(np.uint64)
    whole = raw // d
    found: NDArray[np.uint64] = whole * n + (raw - whole * d) * n // d
    return found


def cumulative(octets: NDArray[np.uint64], start: NDArray[np.int64], end: NDArray[np.int64],
               at: NDArray[np.int64]) -> NDArray[np.uint64]:
    """floor(octets * passed / duration): octets = q * duration + r, and r * passed stays below 2^64."""
    duration = np.maximum(end - start, 1).astype(np.uint64)
    passed = (at - start).astype(np.uint64)
    q = octets // duration
    found: NDArray[np.uint64] = q * passed + (octets - q * duration) * passed // duration
    return found
