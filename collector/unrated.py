"""Flows whose sampling rate nobody has announced yet, and the rates that come later.

With each segment the table `unrated_flows` gets a row for every exporter, domain and sampler with such flows, and
`announced_rate` what exporters announced meanwhile. Where both meet, an `input_change` over the time of the quarantined flows
has their batches made again, with the rate that `storage.late_rates` finds. All in the transaction that registers the segment.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from collector.decoder import Announced
from core import clock, tables
from core.schemas import SAMPLER_SHIFT
from storage.late_rates import Event, is_quarantined

CHANGE_KIND = "late_rate"
EVENTS_MAX = 256
"""Announcements kept of one sampler; further ones replace the newest: an exporter that flaps fills no table."""

Key = tuple[bytes, int, int]


class UnratedFlows:
    """Rows of the table `unrated_flows` for a segment whose flows come batch by batch."""

    def __init__(self) -> None:
        self._found: dict[Key, dict[str, int]] = {}

    def add(self, columns: Mapping[str, NDArray[Any]]) -> None:
        rows = np.flatnonzero(is_quarantined(columns["flags"]))
        if not len(rows):
            return
        words = np.ascontiguousarray(columns["exporter"][rows]).view(np.uint64).reshape(-1, 2)
        sampler = (columns["flags"][rows] >> np.uint32(SAMPLER_SHIFT)).astype(np.uint64)
        keys = np.stack([words[:, 0], words[:, 1], columns["domain"][rows].astype(np.uint64), sampler], axis=1)
        unique, inverse = np.unique(keys, axis=0, return_inverse=True)
        for number, key in enumerate(unique):
            mine = rows[inverse.ravel() == number]
            sums = {"flows": len(mine), "octets": sum(columns["octets"][mine].tolist()),
                    "from_ms": int(columns["start"][mine].min()), "to_ms": int(columns["end"][mine].max()) + 1}
            self._add((key[:2].tobytes(), int(key[2]), int(key[3])), sums)

    def _add(self, key: Key, more: dict[str, int]) -> None:
        known = self._found.setdefault(key, {"flows": 0, "octets": 0, "from_ms": more["from_ms"], "to_ms": more["to_ms"]})
        known["flows"] += more["flows"]
        known["octets"] = min(known["octets"] + more["octets"], 2**62)
        known["from_ms"] = min(known["from_ms"], more["from_ms"])
        known["to_ms"] = max(known["to_ms"], more["to_ms"])

    def rows(self) -> list[dict[str, Any]]:
        return [{"exporter": exporter, "domain": domain, "sampler": sampler, **sums}
                for (exporter, domain, sampler), sums in self._found.items()]


def announce(connection: sa.Connection, rates: Sequence[Announced], collector: str) -> None:
    """Note rates that are news, and that the batches of flows which waited for them are out of date."""
    for key, events in _by_key(rates).items():
        known = _known(connection, key)
        for event in events:
            _note(connection, key, event, known, collector)


def _by_key(rates: Iterable[Announced]) -> dict[Key, list[Event]]:
    """Events of each sampler in order; of several at one millisecond the last, of too many the first ones and the last."""
    found: dict[Key, list[Event]] = {}
    for rate in rates:
        events = found.setdefault((rate.exporter, rate.domain, rate.sampler), [])
        event = Event(rate.received, rate.numerator, rate.denominator)
        if events and (events[-1].received >= event.received or len(events) >= EVENTS_MAX):
            event = event._replace(received=max(events.pop().received, event.received))
        if not events or events[-1][1:] != event[1:]:
            events.append(event)
    return found


def _known(connection: sa.Connection, key: Key) -> list[Event]:
    table = tables.announced_rate
    query = sa.select(table).where(table.c.exporter == key[0], table.c.domain == key[1], table.c.sampler == key[2])
    return [Event(row.received, row.numerator, row.denominator)
            for row in connection.execute(query.order_by(table.c.received))]


def _note(connection: sa.Connection, key: Key, event: Event, known: list[Event], collector: str) -> None:
    """Enter one event among those known, if it says something new."""
    before = _last(known, event.received)
    after = min((other for other in known if other.received > event.received), default=None)
    if (event.numerator == 0) if before is None else (before[1:] == event[1:]):
        return
    is_full = len(known) >= EVENTS_MAX
    if is_full and after is not None:
        return
    if before is not None and (is_full or before.received == event.received):
        _remove(connection, key, before)
        known.remove(before)
    known.append(event)
    connection.execute(tables.announced_rate.insert().values(
        exporter=key[0], domain=key[1], sampler=key[2], received=event.received, numerator=event.numerator,
        denominator=event.denominator, collector=collector))
    rated = _last([other for other in known if other.numerator], event.received - 1)
    _outdate(connection, key, None if rated is None else rated.received, event, after)


def _last(events: Iterable[Event], received: int) -> Event | None:
    return max((event for event in events if event.received <= received), default=None)


def _remove(connection: sa.Connection, key: Key, event: Event) -> None:
    table = tables.announced_rate
    connection.execute(table.delete().where(table.c.exporter == key[0], table.c.domain == key[1], table.c.sampler == key[2],
                                            table.c.received == event.received))


def _outdate(connection: sa.Connection, key: Key, since: int | None, event: Event, after: Event | None) -> None:
    """An input_change over the flows that may be scaled by this announcement: those that came after the last rate before it
    and, if another event follows, not after it."""
    waiting, segment = tables.unrated_flows, tables.segment
    wanted = [waiting.c.exporter == key[0], waiting.c.domain == key[1]]
    if key[2]:
        wanted.append(waiting.c.sampler == key[2])
    if since is not None:
        wanted.append(segment.c.received_last > since)
    if after is not None:
        wanted.append(segment.c.received_first <= event.received)
    first, last = connection.execute(
        sa.select(sa.func.min(waiting.c.from_ms), sa.func.max(waiting.c.to_ms))
        .join(segment, segment.c.id == waiting.c.segment_id).where(*wanted)).one()
    if first is None:
        return
    detail = {"exporter": key[0].hex(), "domain": key[1], "sampler": key[2], "received": event.received,
              "rate": f"{event.numerator}/{event.denominator}"}
    connection.execute(tables.input_change.insert().values(
        at=clock.now_ms(), kind=CHANGE_KIND, from_ms=first, to_ms=last, detail=json.dumps(detail)))
