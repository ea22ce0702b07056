"""`counters import FILE.csv`: samples of ifHCInOctets and ifHCOutOctets (RFC 2863), all rows or none.

Columns exporter, interface, at, in_octets, out_octets. Writes `interface_counter` (source `csv`) and the audit trail. The key
of a row is (exporter, interface, at): the same row again is unchanged, other octets under the same key are a change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from collector.counter_series import GAP_MS, IMPLAUSIBLE, RESET, WORD, WRAP, signed, stretches, unsigned
from core import tables
from core.actor import Actor
from core.addresses import format_address, parse_address
from core.periods import format_instant, parse_instant
from security import audit
from storage import sql
from subscribers.csv_file import Problems, Row, read

COLUMNS = ("exporter", "interface", "at", "in_octets", "out_octets")
SOURCE = "csv"
NOTES_MAX = 20
"""Resets and gaps that are told one by one."""
AUDITED_CHANGES_MAX = 1_000

Interface = tuple[bytes, int]
Key = tuple[bytes, int, int]
Octets = tuple[int, int]


@dataclass(frozen=True)
class Imported:
    """What an import did; `notes` say where the counters of the file began anew, wrapped or have gaps."""

    summary: dict[str, int]
    notes: list[str]


def import_file(engine: sa.Engine, path: Path, actor: Actor, dry_run: bool = False) -> Imported:
    """Import a file. Raises ImportRefused with every problem."""
    problems = Problems(str(path))
    rows = _parse(read(path, COLUMNS, problems), problems)
    problems.refuse_if_any()
    with sql.reading(engine) if dry_run else sql.transaction(engine) as connection:
        stored = _stored(connection, {key[:2] for key in rows})
        added = [key for key in rows if key not in stored]
        changed = [key for key in rows if key in stored and stored[key] != rows[key]]
        series, notes = _look(stored | rows, {key[:2] for key in rows})
        summary = {"added": len(added), "changed": len(changed), "unchanged": len(rows) - len(added) - len(changed), **series}
        if not dry_run and (added or changed):
            _write(connection, rows, added, changed)
            for key in changed[:AUDITED_CHANGES_MAX]:
                audit.record(connection, actor, "counters change", _named(key), _octets(stored[key]), _octets(rows[key]))
            audit.record(connection, actor, "counters import", path.name, after=summary)
    return Imported(summary, notes)


def _parse(rows: Iterable[Row], problems: Problems) -> dict[Key, Octets]:
    found: dict[Key, Octets] = {}
    lines: dict[Key, int] = {}
    for row in rows:
        exporter = problems.value(row, "exporter", parse_address, "write the address from which the router exports")
        interface = problems.value(row, "interface", _number(2**32), "write the ifIndex, a number")
        at = problems.value(row, "at", parse_instant)
        octets = [problems.value(row, column, _number(WORD), "write ifHCInOctets or ifHCOutOctets as it was read")
                  for column in ("in_octets", "out_octets")]
        if exporter is None or interface is None or at is None or octets[0] is None or octets[1] is None:
            continue
        key = (exporter, interface, at)
        if key in found:
            problems.add(row.line, "at", f"the same interface and instant is in line {lines[key]} already", "leave out one")
            continue
        found[key], lines[key] = (octets[0], octets[1]), row.line
    return found


def _number(bound: int) -> Any:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 20 or int(text) >= bound:
            raise ValueError(f"'{text}' is not a whole number from 0 to {bound - 1}")
        return int(text)

    return parse


def _stored(connection: sa.Connection, interfaces: set[Interface]) -> dict[Key, Octets]:
    """The samples of these interfaces that were imported before."""
    table = tables.interface_counter
    found: dict[Key, Octets] = {}
    by_exporter: dict[bytes, set[int]] = defaultdict(set)
    for exporter, interface in interfaces:
        by_exporter[exporter].add(interface)
    for exporter, wanted in by_exporter.items():
        query = sa.select(table).where(table.c.exporter == exporter, table.c.source == SOURCE)
        for row in connection.execute(query):
            if row.interface in wanted:
                found[exporter, row.interface, row.at] = (unsigned(row.in_octets), unsigned(row.out_octets))
    return found


def _write(connection: sa.Connection, rows: dict[Key, Octets], added: Sequence[Key], changed: Sequence[Key]) -> None:
    table = tables.interface_counter
    if added:
        connection.execute(table.insert(), [
            {"segment_id": None, "exporter": key[0], "interface": key[1], "at": key[2], "in_octets": signed(rows[key][0]),
             "out_octets": signed(rows[key][1]), "source": SOURCE} for key in added])
    if changed:
        connection.execute(
            table.update().where(table.c.exporter == sa.bindparam("e"), table.c.interface == sa.bindparam("i"),
                                 table.c.at == sa.bindparam("t"), table.c.source == SOURCE)
            .values(in_octets=sa.bindparam("o"), out_octets=sa.bindparam("p")),
            [{"e": key[0], "i": key[1], "t": key[2], "o": signed(rows[key][0]), "p": signed(rows[key][1])}
             for key in changed])


def _look(rows: dict[Key, Octets], interfaces: set[Interface]) -> tuple[dict[str, int], list[str]]:
    """Where the counters of these interfaces begin anew, wrap, or were not read for long."""
    series: dict[Interface, list[tuple[int, Octets]]] = defaultdict(list)
    for (exporter, interface, at), octets in rows.items():
        series[exporter, interface].append((at, octets))
    counts = {"resets": 0, "wraps": 0, "gaps": 0}
    notes: list[str] = []
    for key in sorted(interfaces):
        for what, text in _oddities(sorted(series[key])):
            counts[what] += 1
            notes.append(f"{format_address(key[0])} interface {key[1]}: {text}")
    more = len(notes) - NOTES_MAX
    return counts, notes[:NOTES_MAX] + ([f"… and {more} more"] if more > 0 else [])


def _oddities(samples: Sequence[tuple[int, Octets]]) -> Iterator[tuple[str, str]]:
    for at, name in enumerate(("in_octets", "out_octets")):
        for part in stretches([(instant, octets[at]) for instant, octets in samples]):
            between = f"between {format_instant(part.start)} and {format_instant(part.end)}"
            if part.kind == RESET:
                yield "resets", f"{name} began anew {between}"
            elif part.kind == WRAP:
                yield "wraps", f"{name} went round {between}"
            elif part.kind == IMPLAUSIBLE:
                yield "gaps", f"{name} jumped by more than any link carries {between}: not used"
            elif at == 0 and part.end - part.start > GAP_MS:
                yield "gaps", f"no samples {between}"


def _named(key: Key) -> str:
    return f"{format_address(key[0])} {key[1]} {format_instant(key[2])}"


def _octets(octets: Octets) -> dict[str, int]:
    return {"in_octets": octets[0], "out_octets": octets[1]}


LIST_COLUMNS = ("exporter", "interface", "source", "samples", "first", "last")


def listing(connection: sa.Connection) -> Iterator[dict[str, Any]]:
    """Every interface and source with counters."""
    table = tables.interface_counter
    keys = (table.c.exporter, table.c.interface, table.c.source)
    query = sa.select(*keys, sa.func.count().label("samples"), sa.func.min(table.c.at).label("first"),
                      sa.func.max(table.c.at).label("last")).group_by(*keys).order_by(*keys)
    for row in connection.execute(query):
        yield {"exporter": format_address(bytes(row.exporter)), "interface": row.interface, "source": row.source,
               "samples": row.samples, "first": format_instant(row.first), "last": format_instant(row.last)}
