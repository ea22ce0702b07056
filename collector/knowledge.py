"""What a collector knows of its exporters' templates and samplers, written where `exporters show` can read it.

Writes `exporter_template` and `exporter_sampler`: after the first time only what changed since the time before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from collector.layout import State
from collector.state import DecoderState
from core import tables

_SAMPLER_KINDS = ("sampler", "selector")
_FIELD_COUNT_SHOWN = 1024
_KEYS = {"exporter_template": ("exporter", "domain", "export_protocol", "template"),
         "exporter_sampler": ("exporter", "domain", "export_protocol", "kind", "sampler")}
_VALUES = {"exporter_template": ("options", "scope", "fields", "defined"),
           "exporter_sampler": ("rate_numerator", "rate_denominator")}

Rows = dict[tuple[Any, ...], tuple[Any, ...]]


@dataclass(frozen=True)
class Difference:
    """Rows of a table that changed, by their keys, and keys of rows that are gone."""

    changed: Rows
    gone: list[tuple[Any, ...]]

    def write(self, connection: sa.Connection, table: sa.Table, collector: str) -> None:
        keys, values = _KEYS[table.name], _VALUES[table.name]
        if self.changed or self.gone:
            condition = sa.and_(table.c.collector == collector, *(table.c[name] == sa.bindparam(f"k_{name}") for name in keys))
            connection.execute(table.delete().where(condition), [
                {f"k_{name}": part for name, part in zip(keys, key, strict=True)} for key in (*self.changed, *self.gone)])
        if self.changed:
            connection.execute(table.insert(), [
                {"collector": collector, **dict(zip(keys, key, strict=True)), **dict(zip(values, row, strict=True))}
                for key, row in self.changed.items()])


@dataclass(frozen=True)
class Changes:
    """What is to be written of templates and samplers."""

    collector: str
    begins_anew: bool
    """Whatever stands there is replaced."""
    templates: Difference
    samplers: Difference

    def write(self, connection: sa.Connection) -> None:
        """Write it, inside the caller's transaction."""
        for table, difference in ((tables.exporter_template, self.templates), (tables.exporter_sampler, self.samplers)):
            if self.begins_anew:
                connection.execute(table.delete().where(table.c.collector == self.collector))
            difference.write(connection, table, self.collector)


class Knowledge:
    """The templates and samplers of one collector as they were taken last."""

    def __init__(self, collector: str, *, is_all: bool = True) -> None:
        """`is_all`: the first changes replace whatever stands there; without, they add to it (replays)."""
        self._collector, self._is_all = collector, is_all
        self._mark = b""
        self._templates: Rows = {}
        self._samplers: Rows = {}
        self._begun = False

    def changes(self, state: DecoderState) -> Changes | None:
        """What changed since the last time, to be written before what is asked for next; None if nothing did."""
        arrays = state.arrays
        mark = _mark(arrays)
        if mark == self._mark:
            return None
        templates, samplers = dict(_templates(arrays)), dict(_samplers(arrays))
        found = Changes(self._collector, self._is_all and not self._begun,
                        _difference(self._templates, templates, self._is_all),
                        _difference(self._samplers, samplers, self._is_all))
        self._mark, self._templates, self._samplers, self._begun = mark, templates, samplers, True
        return found


def _mark(arrays: State) -> bytes:
    """Changes whenever anything that is written changes."""
    counts = arrays.counts[0]
    templates = arrays.templates[: counts["templates"]]
    samplers = arrays.samplers[: counts["samplers"]]
    domains = arrays.domains[: counts["domains"]]
    parts = (templates["identifier"], templates["defined"], templates["plan"] >= 0, samplers["identifier"],
             samplers["numerator"], samplers["denominator"], domains["rate_numerator"], domains["rate_denominator"])
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


def _domain(arrays: State, index: int) -> tuple[bytes, int, int]:
    row = arrays.domains[index]
    return np.array([row["high"], row["low"]], np.uint64).tobytes(), int(row["domain"]), int(row["protocol"])


def _templates(arrays: State) -> Iterator[tuple[tuple[bytes, int, int, int], tuple[Any, ...]]]:
    for row in arrays.templates[: arrays.counts[0]["templates"]]:
        if row["plan"] < 0:
            continue
        plan = arrays.plans[row["plan"]]
        first = int(plan["first"])
        packed = arrays.fields[first : first + min(int(plan["count"]), _FIELD_COUNT_SHOWN)].tolist()
        fields = [[value >> 32, (value >> 16) & 0xFFFF, value & 0xFFFF] for value in packed]
        yield ((*_domain(arrays, int(row["domain"])), int(row["identifier"])),
               (int(plan["options"]), int(plan["scope"]), json.dumps(fields, separators=(",", ":")), int(row["defined"])))


def _samplers(arrays: State) -> Iterator[tuple[tuple[bytes, int, int, str, int], tuple[Any, ...]]]:
    for row in arrays.samplers[: arrays.counts[0]["samplers"]]:
        if row["numerator"] > 0:
            number = int(row["identifier"])
            yield ((*_domain(arrays, int(row["domain"])), _SAMPLER_KINDS[int(row["kind"])],
                    number - 2**64 if number >= 2**63 else number), (int(row["numerator"]), int(row["denominator"])))
    for index, row in enumerate(arrays.domains[: arrays.counts[0]["domains"]]):
        if row["rate_numerator"] > 0:
            yield (*_domain(arrays, index), "domain", 0), (int(row["rate_numerator"]), int(row["rate_denominator"]))


def _difference(before: Rows, now: Rows, forgets: bool) -> Difference:
    changed = {key: value for key, value in now.items() if before.get(key) != value}
    return Difference(changed, [key for key in before if key not in now] if forgets else [])
