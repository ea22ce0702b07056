"""Double sight: two collectors that are not a group and decode the same exporter at the same time count everything twice.

No balance can see it, since each of them closes. All replays are one here: files of one capture are replayed one by one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

import sqlalchemy as sa

from collector.settings import from_document
from core import tables
from core.addresses import format_address
from core.periods import format_instant
from storage import sql
from storage.home import Home

SHOWN_MAX = 5
"""Exporters named in warnings; of the others, the number."""

_Key = tuple[bytes, int, int]


def warnings(home: Home) -> list[str]:
    """Exporters whose counts of two collectors overlap in time, by their first and last datagram."""
    state = tables.exporter_state
    names = _Names(home)
    spans: dict[_Key, dict[str, tuple[int, int]]] = defaultdict(dict)
    with sql.reading(sql.engine(home)) as connection:
        for row in connection.execute(sa.select(state).where(state.c.export_protocol > 0)):
            key, name = (bytes(row.exporter), row.domain, row.export_protocol), names.of(row.collector)
            first, last = spans[key].get(name, (row.first, row.last))
            spans[key][name] = min(first, row.first), max(last, row.last)
    found = []
    for key, by_name in sorted(spans.items()):
        ordered = sorted((first, last, name) for name, (first, last) in by_name.items())
        pairs = [(one, other) for one, other in pairwise(ordered) if other[0] <= one[1]]
        if pairs:
            one, other = pairs[0]
            found.append(_sentence(key, (one[2], other[2]), other[0], min(one[1], other[1])))
    return _some(found)


def warnings_between(connection: sa.Connection, home: Home, start: int, end: int) -> list[str]:
    """Exporters that two collectors decoded in one quarter hour of [start, end)."""
    intake, segment = tables.intake, tables.segment
    names = _Names(home)
    seen: dict[tuple[_Key, int], set[str]] = defaultdict(set)
    rows = connection.execute(
        sa.select(intake.c.exporter, intake.c.domain, intake.c.export_protocol, intake.c.slot, segment.c.collector)
        .join(segment, segment.c.id == intake.c.segment_id)
        .where(intake.c.slot >= start, intake.c.slot < end, intake.c.export_protocol > 0, intake.c.decoded > 0).distinct())
    for row in rows:
        seen[(bytes(row.exporter), row.domain, row.export_protocol), row.slot].add(names.of(row.collector))
    twice: dict[_Key, list[tuple[int, set[str]]]] = defaultdict(list)
    for (key, slot), by in sorted(seen.items()):
        if len(by) > 1:
            twice[key].append((slot, by))
    return _some([_sentence(key, sorted(found[0][1]), found[0][0], found[-1][0]) for key, found in sorted(twice.items())])


class _Names:
    """Under which name a collector's datagrams count: a member's under its group's, all replays' under one."""

    def __init__(self, home: Home) -> None:
        self._group = {name: group.name for group in from_document(home.document).groups for name in group.members}

    def of(self, collector: str) -> str:
        return "replay" if collector.startswith("replay") else self._group.get(collector, collector)


def _sentence(key: _Key, names: Iterable[str], first: int, last: int) -> str:
    return (f"exporter {format_address(key[0])}, domain {key[1]}, is decoded by {' and '.join(repr(name) for name in names)} "
            f"between {format_instant(first)} and {format_instant(last)}: its traffic is counted twice. Put them together in "
            "a [[collector_group]], or let it send to one")


def _some(found: list[str]) -> list[str]:
    more = len(found) - SHOWN_MAX
    return found if more <= 0 else [*found[:SHOWN_MAX], f"{more} more exporters are decoded by two collectors"]
