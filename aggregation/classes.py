"""The traffic class of the far end: highest priority, then longest prefix, else `default`.

Prefixes nest or are apart, never overlap otherwise, so they are flattened once into ranges of addresses with one winner
each; a kernel then finds the range of an address by bisection. Reads [[class]]; reads and writes the table `traffic_class`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from aggregation import kernels
from aggregation.settings import CLASSES_MAX, DEFAULT_CLASS, TrafficClass
from core import tables
from core.addresses import Prefix
from core.errors import RatemillError

_HALF = (1 << 64) - 1


def ensure_ids(connection: sa.Connection, entries: Sequence[TrafficClass]) -> dict[str, int]:
    """The row ids of `default` and of every class of the settings, given now if they are new."""
    known = names(connection)
    for name in dict.fromkeys([DEFAULT_CLASS, *(entry.name for entry in entries)]):
        if name not in known.values():
            connection.execute(tables.traffic_class.insert().values(name=name))
    ids = {name: number for number, name in names(connection).items()}
    if max(ids.values()) > CLASSES_MAX:
        raise RatemillError(f"more than {CLASSES_MAX} traffic classes were ever named",
                            "cells hold a class in 15 bits: use names again instead of new ones")
    return ids


def names(connection: sa.Connection) -> dict[int, str]:
    """Row id → name."""
    return {row.id: row.name for row in connection.execute(sa.select(tables.traffic_class))}


@dataclass(frozen=True)
class Classifier:
    """Address ranges in order, the first of which begins at zero, and the class of each."""

    first_high: NDArray[np.uint64]
    first_low: NDArray[np.uint64]
    range_class: NDArray[np.int64]

    @classmethod
    def make(cls, entries: Sequence[TrafficClass], ids: dict[str, int]) -> Classifier:
        ranges = flatten([(entry.priority, prefix, ids[entry.name]) for entry in entries for prefix in entry.prefixes],
                         ids[DEFAULT_CLASS])
        return cls(np.array([first >> 64 for first, _ in ranges], np.uint64),
                   np.array([first & _HALF for first, _ in ranges], np.uint64),
                   np.array([number for _, number in ranges], np.int64))

    def classify(self, addresses: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Addresses (n, 16) → class ids."""
        found = np.full(len(addresses), self.range_class[0], np.int64)
        if self.range_class.size > 1:
            halves = np.ascontiguousarray(addresses).view(">u8").astype(np.uint64)
            kernels.classify(np.ascontiguousarray(halves[:, 0]), np.ascontiguousarray(halves[:, 1]), self.first_high,
                             self.first_low, self.range_class, found)
        return found


def flatten(entries: Sequence[tuple[int, Prefix, int]], default: int) -> list[tuple[int, int]]:
    """(priority, prefix, class) → (first address, class) of ranges that follow each other from address 0 on."""
    ranges = [(0, default)]

    def begin(first: int, winner: int) -> None:
        if ranges[-1][0] == first:
            ranges.pop()
        if not ranges or ranges[-1][1] != winner:
            ranges.append((first, winner))

    open_: list[tuple[int, tuple[int, int], int]] = []  # (last address, (priority, length), class) of the best so far
    for priority, prefix, number in sorted(entries, key=lambda entry: (entry[1].first, entry[1].length, entry[0])):
        while open_ and open_[-1][0] < prefix.first:
            last = open_.pop()[0]
            begin(last + 1, open_[-1][2] if open_ else default)
        rank = (priority, prefix.length)
        if open_ and open_[-1][1] > rank:
            rank, number = open_[-1][1:]
        open_.append((prefix.last, rank, number))
        begin(prefix.first, number)
    while open_:
        last = open_.pop()[0]
        if last + 1 < 1 << 128:
            begin(last + 1, open_[-1][2] if open_ else default)
    return ranges
