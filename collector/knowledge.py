"""What a collector knows of its exporters' templates and samplers, written where `exporters show` can read it.

Writes `exporter_template` and `exporter_sampler`: after the first time only what changed since the time before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import sqlalchemy as sa

from collector.layout import State
from collector.state import DecoderState
from core import tables

_SAMPLER_KINDS = ("sampler", "selector")
_FIELD_COUNT_SHOWN = 1024


class Knowledge:
    """The templates and samplers of one collector as they were written last."""

    def __init__(self, collector: str, *, is_all: bool = True) -> None:
        """`is_all`: the first writing replaces whatever stands there; without, it adds to it (replays)."""
        self._collector, self._is_all = collector, is_all
        self._mark = b""
        self._templates: dict[tuple[bytes, int, int, int], tuple[Any, ...]] = {}
        self._samplers: dict[tuple[bytes, int, int, str, int], tuple[Any, ...]] = {}
        self._written = False

    def write(self, connection: sa.Connection, state: DecoderState) -> None:
        """Write what changed, inside the caller's transaction."""
        arrays = state.arrays
        mark = _mark(arrays)
        if mark == self._mark:
            return
        if not self._written and self._is_all:
            for table in (tables.exporter_template, tables.exporter_sampler):
                connection.execute(table.delete().where(table.c.collector == self._collector))
        templates, samplers = dict(_templates(arrays)), dict(_samplers(arrays))
        forgets = self._is_all
        _update(connection, tables.exporter_template, ("exporter", "domain", "export_protocol", "template"),
                ("options", "scope", "fields", "defined"), self._collector, self._templates, templates, forgets)
        _update(connection, tables.exporter_sampler, ("exporter", "domain", "export_protocol", "kind", "sampler"),
                ("rate_numerator", "rate_denominator"), self._collector, self._samplers, samplers, forgets)
        self._mark, self._templates, self._samplers, self._written = mark, templates, samplers, True


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


def _update(connection: sa.Connection, table: sa.Table, keys: tuple[str, ...], values: tuple[str, ...], collector: str,
            before: dict[Any, tuple[Any, ...]], now: dict[Any, tuple[Any, ...]], forgets: bool) -> None:
    changed = [key for key, value in now.items() if before.get(key) != value]
    gone = [key for key in before if key not in now] if forgets else []
    if changed or gone:
        condition = sa.and_(table.c.collector == collector, *(table.c[name] == sa.bindparam(f"k_{name}") for name in keys))
        connection.execute(table.delete().where(condition),
                           [{f"k_{name}": part for name, part in zip(keys, key, strict=True)} for key in (*changed, *gone)])
    if changed:
        connection.execute(table.insert(), [
            {"collector": collector, **dict(zip(keys, key, strict=True)), **dict(zip(values, now[key], strict=True))}
            for key in changed])
