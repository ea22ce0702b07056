"""Sampling rates that came after the flows they belong to: which one a quarantined flow is scaled by.

A flow is quarantined if nobody had announced its sampling rate when it was decoded and `[sampling] unannounced` says so; its
stored row never changes. The rate is found when the flow is used, from what exporters announced by options (`announced_rate`)
and from `[[exporter]] sampling` of the settings, in the order of decoding: its sampler's, its domain's, the configured one.
Of several announcements of one sampler it is the first after the flow's arrival, since that ended the quarantine; if none
follows, the last before, unless that took the rate back (a numerator of 0).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from core import tables
from core.addresses import parse_address
from core.schemas import SAMPLER_SHIFT, FlowFlag
from core.settings import Document

NONE, SAMPLER, DOMAIN, CONFIGURED = 0, 1, 2, 3
SOURCES = ("none", "sampler", "domain", "configured")
"""Names of the numbers above: where a late rate comes from; none while the flow waits for one."""

COUNT_MAX = 2**62
"""Scaled counts are less; a flow that a late rate would lift beyond stays in quarantine."""

Key = tuple[bytes, int, int]
Columns = Mapping[str, NDArray[Any]]


class Event(NamedTuple):
    """An announcement, or with numerator 0 the end of one."""

    received: int
    numerator: int
    denominator: int


class Chosen(NamedTuple):
    """For some rows: the late rate and its source, NONE where there is none."""

    numerator: NDArray[np.uint32]
    denominator: NDArray[np.uint32]
    source: NDArray[np.uint8]


def configured_rates(document: Document) -> dict[bytes, int]:
    """`[[exporter]] sampling` by address. The collector checks these sections; here they are read as they are."""
    found = {}
    for entry in document.get("exporter", []):
        if isinstance(entry.get("sampling"), int):
            found[parse_address(entry["address"])] = int(entry["sampling"])
    return found


@dataclass(frozen=True)
class LateRates:
    """All that is known at one moment."""

    announced: Mapping[Key, tuple[Event, ...]] = field(default_factory=dict)
    """(exporter, domain, sampler's code, 0: the whole domain) → events in order of arrival."""
    configured: Mapping[bytes, int] = field(default_factory=dict)

    @classmethod
    def load(cls, connection: sa.Connection, document: Document) -> LateRates:
        table = tables.announced_rate
        found: dict[Key, list[Event]] = defaultdict(list)
        for row in connection.execute(sa.select(table).order_by(table.c.received)):
            found[bytes(row.exporter), row.domain, row.sampler].append(Event(row.received, row.numerator, row.denominator))
        return cls({key: tuple(events) for key, events in found.items()}, configured_rates(document))

    def choose(self, exporter: NDArray[np.uint8], domain: NDArray[Any], flags: NDArray[Any], received: NDArray[np.int64],
               octets: NDArray[np.int64], packets: NDArray[np.int64]) -> Chosen:
        """The late rate of each of these flows, all of them quarantined. exporter (n, 16) octets, received in ms."""
        count = len(received)
        chosen = Chosen(np.ones(count, np.uint32), np.ones(count, np.uint32), np.zeros(count, np.uint8))
        for (address, number, sampler), rows in _by_key(exporter, domain, flags >> np.uint32(SAMPLER_SHIFT)):
            for key, source in (((address, number, sampler), SAMPLER), ((address, number, 0), DOMAIN)):
                if source == SAMPLER and sampler == 0:
                    continue
                rest = rows[chosen.source[rows] == NONE]
                _take(self.announced.get(key, ()), source, rest, received, chosen)
            rest = rows[chosen.source[rows] == NONE]
            if address in self.configured:
                chosen.numerator[rest] = self.configured[address]
                chosen.source[rest] = CONFIGURED
        _leave_too_large(octets, packets, chosen)
        return chosen


def is_quarantined(flags: NDArray[Any]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (flags & np.uint32(FlowFlag.QUARANTINED)) != 0
    return found


def _by_key(exporter: NDArray[np.uint8], domain: NDArray[Any],
            sampler: NDArray[Any]) -> Iterable[tuple[Key, NDArray[np.int64]]]:
    """The rows of each exporter, domain and sampler."""
    words = np.ascontiguousarray(exporter).view(np.uint64).reshape(-1, 2)
    keys = np.stack([words[:, 0], words[:, 1], domain.astype(np.uint64), sampler.astype(np.uint64)], axis=1)
    unique, inverse = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    edges = np.searchsorted(inverse.ravel()[order], np.arange(len(unique) + 1))
    for number, key in enumerate(unique):
        yield (key[:2].tobytes(), int(key[2]), int(key[3])), order[edges[number] : edges[number + 1]]


def _take(events: tuple[Event, ...], source: int, rows: NDArray[np.int64], received: NDArray[np.int64], chosen: Chosen) -> None:
    if not events or not len(rows):
        return
    times = np.array([event.received for event in events], np.int64)
    rates = np.array([(event.numerator, event.denominator) for event in events], np.int64)
    following = np.full(len(events) + 1, -1, np.int64)  # the first event at or behind a place that has a rate
    for at in range(len(events) - 1, -1, -1):
        following[at] = at if rates[at, 0] else following[at + 1]
    place = np.searchsorted(times, received[rows], "left")
    found = following[place]
    before = place - 1
    found = np.where((found < 0) & (before >= 0) & (rates[np.maximum(before, 0), 0] > 0), before, found)
    hit = found >= 0
    chosen.numerator[rows[hit]] = rates[found[hit], 0]
    chosen.denominator[rows[hit]] = rates[found[hit], 1]
    chosen.source[rows[hit]] = source


def _leave_too_large(octets: NDArray[np.int64], packets: NDArray[np.int64], chosen: Chosen) -> None:
    largest = np.maximum(octets, packets) // chosen.denominator.astype(np.int64)
    beyond = largest >= COUNT_MAX // chosen.numerator.astype(np.int64)
    chosen.numerator[beyond] = chosen.denominator[beyond] = 1
    chosen.source[beyond] = NONE
