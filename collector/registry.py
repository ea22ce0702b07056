"""The IANA information elements that the product uses: element number → the slot in which its value is decoded.

Reads data/registries/ipfix_elements.csv once (a column a field: enterprise, element, name, type, slot).
"""

from __future__ import annotations

import csv
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from collector.kernels import rows
from collector.layout import SLOT_COUNT
from core.product import data_file

REVERSE_ENTERPRISE = 29305  # RFC 5103
_FILE = data_file("registries", "ipfix_elements.csv")

_LENGTHS = {"ipv4Address": (4, 4), "ipv6Address": (16, 16), "dateTimeMicroseconds": (8, 8), "dateTimeNanoseconds": (8, 8),
            "dateTimeSeconds": (1, 8), "dateTimeMilliseconds": (1, 8), "octetArray": (0, 65_535)}
_UNSIGNED = (1, 8)
"""Octets that a field of a type can have; numbers may be sent shortened (RFC 7011 §6.2), and NetFlow v9 sends them long."""


class Element(NamedTuple):
    enterprise: int
    number: int
    name: str
    kind: str
    slot: int


class Registry(NamedTuple):
    """Arrays for the scan: slots by element number, the lengths that a slot's field may have."""

    elements: NDArray[np.int16]
    reverse: NDArray[np.int16]
    smallest: NDArray[np.int64]
    largest: NDArray[np.int64]


@cache
def elements() -> tuple[Element, ...]:
    """The rows of the registry file."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        return tuple(
            Element(int(row["enterprise"]), int(row["element"]), row["name"], row["type"], getattr(rows, row["slot"].upper()))
            for row in csv.DictReader(file)
        )


@cache
def registry() -> Registry:
    numbers = np.zeros(32768, np.int16)
    reverse = np.zeros(32768, np.int16)
    smallest = np.zeros(SLOT_COUNT, np.int64)
    largest = np.zeros(SLOT_COUNT, np.int64)
    for element in elements():
        (reverse if element.enterprise else numbers)[element.number] = element.slot
        smallest[element.slot], largest[element.slot] = _LENGTHS.get(element.kind, _UNSIGNED)
    return Registry(numbers, reverse, smallest, largest)


Layout = list[tuple[int, int]]
"""(element, octets) of each field of a record; element 0 is skipped."""

_V1: Layout = [(8, 4), (12, 4), (15, 4), (10, 2), (14, 2), (2, 4), (1, 4), (22, 4), (21, 4), (7, 2), (11, 2), (0, 2),
               (4, 1), (5, 1), (6, 1), (0, 11)]
_V5: Layout = [(8, 4), (12, 4), (15, 4), (10, 2), (14, 2), (2, 4), (1, 4), (22, 4), (21, 4), (7, 2), (11, 2), (0, 1),
               (6, 1), (4, 1), (5, 1), (16, 2), (17, 2), (0, 4)]
_V7: Layout = [(8, 4), (12, 4), (15, 4), (10, 2), (14, 2), (2, 4), (1, 4), (22, 4), (21, 4), (7, 2), (11, 2), (0, 1),
               (6, 1), (4, 1), (5, 1), (16, 2), (17, 2), (0, 8)]

FIXED_LAYOUTS: tuple[Layout, ...] = (_V1, _V5, _V7)
"""NetFlow v1, v5 and v7 as if a template had described them, in the order of the scan's built-in plans."""


def packed_fields(layout: Layout) -> NDArray[Any]:
    """Fields as the scan stores them."""
    return np.array([(element << 16) | length for element, length in layout], np.int64)
