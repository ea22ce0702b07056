"""`usage publish`: the cells that count → an immutable DuckDB generation for rating, invoicing and analysts.

Tables: `usage` (by local hour, zone, class, direction, sampling), `usage_5min` (subscriptions whose plan needs it),
`services` and `classes` (row ids and names), `faults` (what could not be decoded, by UTC day, as it was known when this was
published), `about` (what it was made of), those that are registered with `projections` (`completeness`); and the view `flows`
over the flows that were compacted. Instants are TIMESTAMPTZ, addresses texts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa

from aggregation import classes, flow_view, manifest, projections, settings, usage
from aggregation.manifest import CellFile
from aggregation.timelines import Timelines
from core import schemas, tables
from core.actor import Actor
from core.addresses import format_address
from core.periods import DAY_MS
from runtime import jobs
from security import audit
from storage import generations, space, sql
from storage.home import Home

if TYPE_CHECKING:
    import duckdb

JOB = "publish"

_USAGE = """CREATE TABLE usage AS SELECT s.service, u.service AS service_id, u.subscription AS subscription_id, u.period,
  u.hour, u.zone, u.class, u.direction, u.sampled, u.octets, u.packets, u.flows
  FROM usage_rows u JOIN services s ON s.service_id = u.service
  ORDER BY s.service, u.hour, u.zone NULLS FIRST, u.class, u.direction, u.sampled, u.subscription"""
_USAGE_5MIN = """CREATE TABLE usage_5min AS SELECT s.service, u.service AS service_id, u.subscription AS subscription_id,
  u.period, u.slot, u.direction, u.sampled, u.octets
  FROM five_minute_rows u JOIN services s ON s.service_id = u.service
  ORDER BY s.service, u.slot, u.direction, u.sampled, u.subscription"""


@dataclass(frozen=True)
class _View:
    """Everything that a generation is made of, in one consistent view."""

    manifest_version: int
    input_version: int
    stale_batches: int
    waiting_segments: int
    cells: list[CellFile]
    timelines: Timelines
    services: pa.Table
    classes: dict[int, str]
    faults: pa.Table
    fingerprint: str
    flow_files: list[str]
    flows_until: int | None
    projected: dict[str, pa.Table]


def publish(home: Home, actor: Actor, *, anew: bool = False) -> dict[str, Any]:
    """Publish a generation unless the current one holds everything, or in any case (`anew`: its file is damaged). Raises Locked
    while another process publishes."""
    engine = sql.engine(home)
    bounds = settings.bounds(home.document)
    with jobs.hold(engine, JOB):
        with sql.reading(engine) as connection:
            last = generations.latest(connection)
            number = 1 + (last.id if last else 0)
            usable = last is not None and not anew and (home.path / last.path).is_file()
            fresh = last is not None and usable and not generations.is_behind(connection, last)
            same = last is not None and generations.source_of(connection, last) == flow_view.fingerprint(connection, home)
            view = None if fresh and same else _view(connection, home)
        rows: dict[str, int] = {}
        if view is not None:
            space.require(home.folder("generations"), home.document, "`usage publish`")
            path, digest = generations.build(home, f"usage-{view.manifest_version}-{number}",
                                             lambda duck: rows.update(_fill(duck, home, view)))
            with sql.transaction(engine) as connection:
                generations.register(connection, path, digest, view.manifest_version, view.input_version,
                                     view.fingerprint)
                audit.record(connection, actor, "usage publish", path, None, rows)
        return _finish(home, engine, view, rows, bounds)


def _finish(home: Home, engine: sa.Engine, view: _View | None, rows: dict[str, int],
            bounds: settings.Aggregation) -> dict[str, Any]:
    with sql.reading(engine) as connection:
        newest = generations.latest(connection)
        assert newest is not None, "one was just published, or is current"
        generations.swap(home, newest)
        removed = generations.tidy(home, connection, bounds.generations_kept, bounds.generation_grace_minutes)
        fresh = generations.freshness(connection)
    return {"published": view is not None, "generation": newest.path, "manifest_version": newest.manifest_version,
            **{name: rows.get(name) for name in ("usage", "usage_5min", "services")}, "removed": removed,
            "waiting_segments": fresh.waiting_segments, "stale_batches": fresh.stale_batches}


def _view(connection: sa.Connection, home: Home) -> _View:
    stale = manifest.stale_batches(connection)
    version = connection.execute(sa.select(sa.func.max(tables.manifest_version.c.id))).scalar() or 0
    inputs = [manifest.input_version(connection)]
    inputs += [batch.input_version for batch in manifest.live_batches(connection) if batch.id in stale]
    service = tables.service
    named = connection.execute(sa.select(service).order_by(service.c.service)).all()
    services = pa.table({
        "service_id": pa.array([row.id for row in named], pa.int32()),
        "service": pa.array([row.service for row in named], pa.string()),
        "account": pa.array([row.account for row in named], pa.string()),
        "contract": pa.array([row.contract for row in named], pa.string())})
    return _View(version, min(inputs), len(stale), len(manifest.waiting_segments(connection)),
                 [file for _, file in manifest.cell_files(connection, "cells")],
                 Timelines.load(connection, home.document), services, classes.names(connection), _faults(connection),
                 flow_view.fingerprint(connection, home), flow_view.paths(connection), flow_view.complete_until(connection),
                 {one.name: one.table(home, connection) for one in projections.registered.values()})


def _faults(connection: sa.Connection) -> pa.Table:
    """Faults by UTC day of arrival, exporter, domain and kind; day is null where nothing of their segment has a time."""
    fault, segment = tables.fault, tables.segment
    day = segment.c.received_first - segment.c.received_first % DAY_MS
    keys = (day.label("day"), fault.c.exporter, fault.c.domain, fault.c.kind)
    found = connection.execute(sa.select(*keys, sa.func.sum(fault.c.count).label("total")).join(
        segment, segment.c.id == fault.c.segment_id).group_by(*keys)).all()
    rows = sorted(found, key=lambda row: (row.day is not None, row.day or 0, bytes(row.exporter), row.domain, row.kind))
    return pa.table({
        "day": pa.array([row.day for row in rows], schemas.INSTANT),
        "exporter": pa.array([format_address(bytes(row.exporter)) for row in rows], pa.string()),
        "domain": pa.array([row.domain for row in rows], pa.int64()),
        "fault": pa.array([row.kind for row in rows], pa.string()),
        "count": pa.array([int(row.total) for row in rows], pa.int64())})


def _fill(duck: duckdb.DuckDBPyConnection, home: Home, view: _View) -> dict[str, int]:
    """Make the tables; returns their row counts."""
    duck.register("service_rows", view.services)
    duck.execute("CREATE TABLE services AS SELECT * FROM service_rows ORDER BY service")
    class_rows = pa.table({"class_id": pa.array(list(view.classes), pa.int16()),
                           "class": pa.array(list(view.classes.values()), pa.string())})
    duck.register("class_rows", class_rows)
    duck.execute("CREATE TABLE classes AS SELECT * FROM class_rows ORDER BY class")
    duck.register("usage_rows", usage.hours(home, view.cells, view.timelines, view.classes))
    duck.execute(_USAGE)
    duck.unregister("usage_rows")
    duck.register("five_minute_rows", usage.five_minutes(home, view.cells, view.timelines))
    duck.execute(_USAGE_5MIN)
    duck.unregister("five_minute_rows")
    duck.register("fault_rows", view.faults)
    duck.execute("CREATE TABLE faults AS SELECT * FROM fault_rows")
    made_of = json.dumps([file.path for file in view.cells])
    duck.execute("CREATE TABLE about AS SELECT ?::BIGINT AS manifest_version, ?::BIGINT AS input_version, "
                 "?::VARCHAR AS cell_files, make_timestamptz(?::BIGINT * 1000) AS flows_until",
                 [view.manifest_version, view.input_version, made_of, view.flows_until])
    for name, rows in view.projected.items():
        duck.register("projected", rows)
        duck.execute(f"CREATE TABLE {name} AS SELECT * FROM projected")
        duck.unregister("projected")
    flow_view.create(duck, home, view.flow_files)
    return {name: int(duck.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0])
            for name in ("usage", "usage_5min", "services", "classes")}
