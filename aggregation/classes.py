"""The traffic class of the far end, by the rules that are in force when the traffic flows, else `default`.

From the first version of a rule file on (`ratemill classes apply`), the newest version whose date has come is in force;
before it, and without any, the [[class]] sections of ratemill.toml are. A part of a flow that crosses the edge of a version
is cut there. Reads [[class]] and the versions; reads and writes the table `traffic_class`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from aggregation import kernels, kernels_classes
from aggregation.class_ranges import Compiled, compile_rules
from aggregation.kernels_classes import FlowFacts
from aggregation.segments import Columns
from aggregation.settings import CLASSES_MAX, DEFAULT_CLASS, TrafficClass
from core import class_rules, tables
from core.class_rules import Prefixes, Rule
from core.errors import RatemillError
from core.periods import OPEN_END, OPEN_START, local_day_start

_NONE: Columns = {"source_as": np.empty(0, np.uint32), "destination_as": np.empty(0, np.uint32), "tos": np.empty(0, np.uint8)}


def ensure_ids(connection: sa.Connection, entries: Iterable[TrafficClass | Rule]) -> dict[str, int]:
    """The row ids of `default`, of these classes and of all that were ever named; new ones are given theirs now."""
    wanted = [entry.class_ if isinstance(entry, Rule) else entry.name for entry in entries]
    known = set(names(connection).values())
    for name in dict.fromkeys([DEFAULT_CLASS, *wanted]):
        if name not in known:
            connection.execute(tables.traffic_class.insert().values(name=name))
    ids = {name: number for number, name in names(connection).items()}
    if max(ids.values()) > CLASSES_MAX:
        raise RatemillError(f"more than {CLASSES_MAX} traffic classes were ever named",
                            "cells hold a class in 15 bits: use names again instead of new ones")
    return ids


def names(connection: sa.Connection) -> dict[int, str]:
    """Row id → name."""
    return {row.id: row.name for row in connection.execute(sa.select(tables.traffic_class))}


def settings_rules(entries: Sequence[TrafficClass]) -> tuple[list[Rule], list[Prefixes]]:
    """[[class]] as rules that ask for a prefix alone. One that lists none holds for nothing."""
    with_prefixes = [entry for entry in entries if entry.prefixes]
    return ([Rule(entry.name, entry.name, entry.priority, has_prefixes=True) for entry in with_prefixes],
            [class_rules.from_prefixes(entry.prefixes) for entry in with_prefixes])


@dataclass(frozen=True)
class Classifier:
    """Which class the far end of a flow has at each instant: `compiled[i]` holds from `starts[i]` on."""

    starts: tuple[int, ...]
    compiled: tuple[Compiled, ...]

    @classmethod
    def make(cls, entries: Sequence[TrafficClass], ids: dict[str, int]) -> Classifier:
        """By [[class]] alone, at all times."""
        return cls((OPEN_START,), (compile_rules(*settings_rules(entries), ids, ids[DEFAULT_CLASS]),))

    @property
    def ranges(self) -> kernels_classes.ClassRanges:
        """Those of the earliest rules."""
        return self.compiled[0].ranges

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of flows that are read for the sake of rules alone."""
        return tuple(dict.fromkeys(name for one in self.compiled for name in one.columns))

    def classify(self, addresses: NDArray[np.uint8]) -> NDArray[np.int16]:
        """Addresses (n, 16) → class ids, by the earliest rules, which must ask for prefixes alone."""
        found = np.empty(len(addresses), np.int64)
        kernels_classes.find_codes(np.ascontiguousarray(addresses).ravel(), self.ranges, found)
        assert not len(found) or found.min() >= 0, "the address alone does not tell the class"
        return found.astype(np.int16)

    def classify_spans(self, columns: Columns, spans: kernels.Spans, first: int, last: int) -> kernels.Spans:
        """Spans of flows that lie in [first, last], cut at the edges of versions, attributed ones with their class."""
        low, high = (max(bisect_right(self.starts, at) - 1, 0) for at in (first, last))
        if high > low:
            spans = _cut(spans, np.array(self.starts[low + 1 : high + 1], np.int64))
        given: Columns = {**_NONE, **columns}
        facts = FlowFacts._make(given[name].reshape(-1) for name in FlowFacts._fields)
        for number in range(low, high + 1):
            from_ms = self.starts[number] if number > low else OPEN_START
            to_ms = self.starts[number + 1] if number < high else OPEN_END
            one = self.compiled[number]
            kernels_classes.classify_spans(facts, one.ranges, one.rules, high > low, from_ms, to_ms, spans)
        return spans


def _cut(spans: kernels.Spans, edges: NDArray[np.int64]) -> kernels.Spans:
    room = len(spans.flow) * (len(edges) + 1)
    cut = kernels.Spans._make(np.empty(room, column.dtype) for column in spans)
    count = kernels_classes.cut_spans(spans, edges, cut)
    return kernels.Spans._make(column[:count] for column in cut)


@dataclass(frozen=True, slots=True)
class Version:
    """A stored version, without its rules; `end` is where the next one begins."""

    id: int
    valid_from: str
    digest: str
    start: int
    end: int


def versions(connection: sa.Connection, zone: str) -> list[Version]:
    """All stored versions, oldest first; their dates begin in this time zone."""
    table = tables.class_version
    rows = connection.execute(sa.select(table.c.id, table.c.valid_from, table.c.digest).order_by(table.c.valid_from)).all()
    starts = [local_day_start(date.fromisoformat(row.valid_from), zone) for row in rows]
    return [Version(row.id, row.valid_from, row.digest, start, end)
            for row, start, end in zip(rows, starts, [*starts[1:], OPEN_END], strict=False)]


def load_rules(connection: sa.Connection, version: int) -> tuple[list[Rule], list[Prefixes]]:
    """The rules of a stored version (by row id) and the prefixes of each."""
    table, packed = tables.class_version, tables.class_prefixes
    rules = class_rules.parse(connection.execute(sa.select(table.c.document).where(table.c.id == version)).scalar_one())
    prefixes = [class_rules.NO_PREFIXES] * len(rules)
    for row in connection.execute(sa.select(packed).where(packed.c.version_id == version)):
        prefixes[row.rule] = class_rules.load_prefixes(row.prefixes)
    return rules, prefixes


class Shelf:
    """Makes classifiers for stretches of time; versions that one after the other needs are compiled once."""

    def __init__(self, entries: Sequence[TrafficClass], zone: str) -> None:
        self._entries, self._zone = entries, zone
        self._kept: dict[str, Compiled] = {}

    def load(self, connection: sa.Connection, first: int, last: int) -> Classifier:
        """What is in force in [first, last]."""
        stored = versions(connection, self._zone)
        ids = {name: number for number, name in names(connection).items()}
        before = stored[0].start if stored else OPEN_END
        wanted: list[tuple[str, int, int]] = []  # digest, start, row id
        if first < before or not stored:
            wanted.append(("", OPEN_START, 0))
        wanted += [(version.digest, version.start, version.id) for version in stored
                   if version.start <= last and version.end > first]
        kept = {digest: compiled for digest, compiled in self._kept.items() if digest in {key for key, _, _ in wanted}}
        self._kept = kept
        for digest, _, row in wanted:
            if digest not in kept:
                rules = load_rules(connection, row) if row else settings_rules(self._entries)
                kept[digest] = compile_rules(*rules, ids, ids[DEFAULT_CLASS])
        return Classifier(tuple(start for _, start, _ in wanted), tuple(kept[digest] for digest, _, _ in wanted))
