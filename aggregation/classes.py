"""The traffic class of the far end: highest priority, then longest prefix, else `default`.

Prefixes nest or are apart, never overlap otherwise, so they are flattened once into ranges of addresses with one winner
each; a kernel then finds the range of an address by bisection, for IPv4 between bounds that its
first bits give. Reads [[class]]; reads and writes the table `traffic_class`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from aggregation import kernels
from aggregation.segments import Columns
from aggregation.settings import CLASSES_MAX, DEFAULT_CLASS, TrafficClass
from core import tables
from core.addresses import Prefix
from core.errors import RatemillError

TOP_BITS_MAX = 20
"""A table by the first bits of IPv4 addresses has about twice as many places as there are ranges, and 4 MB at most."""

_HALF = (1 << 64) - 1
_IPV4_FIRST = 0xFFFF << 32
_IPV4_LAST = _IPV4_FIRST + (1 << 32) - 1


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
    """Which class an address has."""

    ranges: kernels.ClassRanges

    @classmethod
    def make(cls, entries: Sequence[TrafficClass], ids: dict[str, int]) -> Classifier:
        ranges = flatten([(entry.priority, prefix, ids[entry.name]) for entry in entries for prefix in entry.prefixes],
                         ids[DEFAULT_CLASS])
        return cls(_packed(ranges))

    def classify(self, addresses: NDArray[np.uint8]) -> NDArray[np.int16]:
        """Addresses (n, 16) → class ids."""
        found = np.empty(len(addresses), np.int16)
        kernels.classify(np.ascontiguousarray(addresses).ravel(), self.ranges, found)
        return found

    def classify_spans(self, columns: Columns, spans: kernels.Spans) -> None:
        """Write the class of the far end into spans that are attributed."""
        kernels.classify_spans(columns["source_address"].ravel(), columns["destination_address"].ravel(), self.ranges, spans)


def _packed(ranges: Sequence[tuple[int, int]]) -> kernels.ClassRanges:
    """Ranges that follow each other from address 0 on → the arrays that the kernel reads."""
    first = [first for first, _ in ranges]
    low, high = bisect_right(first, _IPV4_FIRST) - 1, bisect_right(first, _IPV4_LAST)
    ipv4_first = np.array([max(at - _IPV4_FIRST, 0) for at in first[low:high]], np.uint32)
    bits = min(max((len(ipv4_first) - 1).bit_length() + 1, 1), TOP_BITS_MAX)
    starts = np.arange(1 << bits, dtype=np.uint64) << np.uint64(32 - bits)
    top = np.searchsorted(ipv4_first, np.append(starts, (1 << 32) - 1), "right") - 1
    classes = np.array([number for _, number in ranges], np.int16)
    return kernels.ClassRanges(
        np.array([at >> 64 for at in first], np.uint64), np.array([at & _HALF for at in first], np.uint64), classes,
        ipv4_first, classes[low:high].copy(), top.astype(np.int32), np.array([32 - bits]))


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
