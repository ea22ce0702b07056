"""What each exporter sent in all, for metrics: the tables `exporter_total` and `fault_total`.

The decode worker adds what a segment holds in the transaction that registers it, so the totals are exact over restarts and
kill -9. They have no more rows than the decoder remembers domains (`domains_max`), times the kinds of faults. Replays are not
in them. Reading names the exporters seen first and adds up all others, so that neither a spoofed source nor a scan makes the
answer long, and no counter of the rest ever falls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from core import schemas, tables
from core.addresses import format_address

Key = tuple[bytes, int, int]
"""Exporter, domain, protocol."""

INTAKE_COUNTS = ("flows", "octets", "templates", "options_templates", "data_records", "options_records", "not_a_flow",
          "faulted_records", "waiting_sets", "released_sets", "expired_sets", "counter_samples", "drop_samples")
COUNTS = (*INTAKE_COUNTS, "missed", "recovered")
STATE_COUNTS = ("received", "missing", "duplicate", "reordered", "restarts", "faulted", "waiting")
"""What the decoder's state knows, and `exporter_state` holds."""
MOST = 2**62
"""Where a count stays: an exporter that reports 2^48 octets a flow must not make the database refuse a commit."""

OTHER = "other"
"""The exporter under which all that are not named are added up."""


def skews(intake: Sequence[Mapping[str, Any]]) -> dict[Key, int]:
    """Arrival less export time, ms, of the newest datagram with a wall clock of each exporter in a segment."""
    return {(row["exporter"], row["domain"], row["export_protocol"]): row["skew_last"]
            for row in sorted(intake, key=lambda row: int(row["slot"])) if row["clocked"]}


# writing --------------------------------------------------------------------------------------------------------------
def add(connection: sa.Connection, collector: str, intake: Sequence[Mapping[str, Any]], faults: Sequence[Mapping[str, Any]],
        missing: Mapping[Key, int], skews: Mapping[Key, int]) -> None:
    """Add the rows of a segment, inside the caller's transaction; `missing` is by how much the missing grew, or fell."""
    sums: dict[Key, dict[str, int]] = {key: dict.fromkeys(COUNTS, 0) for key, change in missing.items() if change}
    for row in intake:
        mine = sums.setdefault((row["exporter"], row["domain"], row["export_protocol"]), dict.fromkeys(COUNTS, 0))
        for name in INTAKE_COUNTS:
            mine[name] += row[name]
    for key, mine in sums.items():
        mine["missed"], mine["recovered"] = max(0, missing.get(key, 0)), max(0, -missing.get(key, 0))
    if sums:
        connection.execute(_ADD_EXPORTER, [
            {"collector": collector, "exporter": exporter, "domain": domain, "export_protocol": protocol,
             "skew_ms": skews.get((exporter, domain, protocol)), **{name: _bounded(n) for name, n in mine.items()}}
            for (exporter, domain, protocol), mine in sums.items()])
    if faults:
        connection.execute(_ADD_FAULT, [{"collector": collector, **fault} for fault in faults])


def _bounded(count: int) -> int:
    """A sum of octets that ran over 64 bits in the decoder is of an exporter that invents them."""
    return max(0, min(count, MOST // 2))


def _adding(table: sa.Table, counts: Sequence[str], more: str = "") -> sa.TextClause:
    """INSERT, or add to what is there; understood by SQLite and PostgreSQL alike."""
    columns = [column.name for column in table.columns]
    keys = [column.name for column in table.primary_key.columns]
    name = table.name
    added = [f"{c} = CASE WHEN {name}.{c} > {MOST} - excluded.{c} THEN {MOST} ELSE {name}.{c} + excluded.{c} END"
             for c in counts]
    return sa.text(f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({', '.join(':' + c for c in columns)}) "
                   f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {', '.join([*added, *filter(None, [more])])}")


_ADD_EXPORTER = _adding(tables.exporter_total, COUNTS, "skew_ms = COALESCE(excluded.skew_ms, exporter_total.skew_ms)")
_ADD_FAULT = _adding(tables.fault_total, ("count",))


# reading --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ExporterTotal:
    """An exporter's counts, or those of all that are not named: then exporter is OTHER, and what can't be added up is None."""

    collector: str
    exporter: str
    domain: str
    protocol: str
    counts: dict[str, int]
    first: int | None
    last: int | None
    skew_ms: int | None


@dataclass(frozen=True, slots=True)
class FaultTotal:
    """Faults of one kind of an exporter, or of OTHER."""

    collector: str
    exporter: str
    domain: str
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class Totals:
    exporters: list[ExporterTotal]
    faults: list[FaultTotal]
    exporters_known: dict[str, int]
    """By collector, how many exporters and domains there are, named or not."""


def read(connection: sa.Connection, exporters_max: int) -> Totals:
    """The totals of all collectors, by name for the `exporters_max` exporters and domains that were seen first."""
    named = [_total(row) for row in connection.execute(_named(exporters_max))]
    rest, known = _rest(connection, named)
    return Totals(named + rest, _faults(connection, exporters_max), known)


_state, _sum, _fault = tables.exporter_state, tables.exporter_total, tables.fault_total
_joined = _state.outerjoin(_sum, sa.and_(*(_sum.c[key.name] == key for key in _state.primary_key.columns)))


def _live(table: sa.Table) -> sa.ColumnElement[bool]:
    """Not of a replay."""
    return sa.func.substr(table.c.collector, 1, 6) != "replay"


def _named(most: int) -> sa.Select[Any]:
    keys = _state.primary_key.columns
    counts = [sa.func.coalesce(_sum.c[name], 0).label(name) for name in COUNTS]
    query = sa.select(*keys, *(_state.c[name] for name in STATE_COUNTS), _state.c.first, _state.c.last, *counts, _sum.c.skew_ms)
    return query.select_from(_joined).where(_live(_state)).order_by(_state.c.first, *keys).limit(most)


def _total(row: sa.Row[Any]) -> ExporterTotal:
    return ExporterTotal(
        row.collector, format_address(bytes(row.exporter)), str(row.domain), _protocol(row.export_protocol),
        {name: int(getattr(row, name)) for name in (*STATE_COUNTS, *COUNTS)}, row.first, row.last, row.skew_ms)


def _protocol(number: int) -> str:
    return schemas.EXPORT_PROTOCOL_NAMES.get(number, "unknown")


def _rest(connection: sa.Connection, named: Sequence[ExporterTotal]) -> tuple[list[ExporterTotal], dict[str, int]]:
    """All exporters less the named ones, by collector and protocol."""
    counts = [sa.func.sum(_state.c[name]).label(name) for name in STATE_COUNTS]
    # as a float: an exporter that invents octets must not make the sum of SQLite's whole numbers run over
    counts += [sa.func.coalesce(sa.func.sum(sa.cast(_sum.c[name], sa.Float)), 0).label(name) for name in COUNTS]
    query = sa.select(_state.c.collector, _state.c.export_protocol, sa.func.count().label("rows"), *counts)
    grouped = connection.execute(query.select_from(_joined).where(_live(_state))
                                 .group_by(_state.c.collector, _state.c.export_protocol)
                                 .order_by(_state.c.collector, _state.c.export_protocol)).all()
    rest: list[ExporterTotal] = []
    known: dict[str, int] = {}
    for row in grouped:
        known[row.collector] = known.get(row.collector, 0) + int(row.rows)
        protocol = _protocol(row.export_protocol)
        mine = [one for one in named if (one.collector, one.protocol) == (row.collector, protocol)]
        if len(mine) < row.rows:
            left = {name: max(0, int(getattr(row, name)) - sum(one.counts[name] for one in mine))
                    for name in (*STATE_COUNTS, *COUNTS)}
            rest.append(ExporterTotal(row.collector, OTHER, "", protocol, left, None, None, None))
    return rest, known


def _faults(connection: sa.Connection, exporters_max: int) -> list[FaultTotal]:
    """By kind: of the named exporters, and of all others together."""
    keys = (_fault.c.collector, _fault.c.exporter, _fault.c.domain)
    chosen = _named(exporters_max).subquery()
    names = sa.select(chosen.c.collector, chosen.c.exporter, chosen.c.domain).distinct().subquery()
    mine = sa.and_(*(names.c[key.name] == key for key in keys))
    found: list[FaultTotal] = []
    named: dict[tuple[str, str], int] = {}
    query = sa.select(*keys, _fault.c.kind, _fault.c.count.label("number")).join(names, mine)
    for row in connection.execute(query.order_by(*keys, _fault.c.kind)).all():
        number = int(row.number)
        found.append(FaultTotal(row.collector, format_address(bytes(row.exporter)), str(row.domain), row.kind, number))
        named[row.collector, row.kind] = named.get((row.collector, row.kind), 0) + number
    sums = sa.select(_fault.c.collector, _fault.c.kind, sa.func.sum(_fault.c.count).label("number")).where(_live(_fault))
    grouped = sums.group_by(_fault.c.collector, _fault.c.kind).order_by(_fault.c.collector, _fault.c.kind)
    for collector, kind, number in connection.execute(grouped):
        left = int(number) - named.get((collector, kind), 0)
        if left:
            found.append(FaultTotal(collector, OTHER, "", kind, left))
    return found
