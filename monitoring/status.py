"""`status`: what runs, what lags, what is wrong. Reads the status files in run/ and the SQL tables of every package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from aggregation import frozen
from core import clock, tables
from core.periods import SECOND_MS, format_instant
from runtime.clock_check import clock_state
from runtime.jobs import process_started, runs
from storage import generations, space, sql
from storage.home import Home

SILENT_SECONDS_MAX = 60
"""A running process renews its status file far more often than this."""
LAG_SECONDS_MAX = 900
"""Segments that wait longer than this for their cells are a problem, not a queue."""


DISK_LEVELS = {
    "low": "free some space before decoding has to wait",
    "journal_only": "datagrams are taken, decoding waits: free some space",
    "full": "datagrams are refused: free some space",
}


def describe(home: Home) -> dict[str, Any]:
    """One object; `problems` says in sentences what somebody should look at."""
    engine = sql.engine(home)
    problems: list[str] = []
    processes = [_running(path, problems) for path in sorted(home.folder("run").glob("*.json"))]
    with sql.reading(engine) as connection:
        stored = _stored(connection)
        lag = _lag(connection, processes, problems)
        jobs = _jobs(connection, problems)
    return {
        "home": str(home.path),
        "database": engine.url.render_as_string(),
        "at": format_instant(clock.now_ms()),
        "clock": _clock(),
        **stored,
        "lag": lag,
        "processes": processes,
        "jobs": jobs,
        "problems": problems,
    }


def _clock() -> dict[str, Any] | None:
    """Whether NTP keeps the clock, and by how much it may be off; None: the kernel does not tell."""
    state = clock_state()
    return None if state is None else {"synchronised": state.synchronised, "error_ms_max": -(-state.error_us_max // 1000)}


def _running(path: Path, problems: list[str]) -> dict[str, Any]:
    """A status file, with whether its process still lives."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(told, dict)
    except (OSError, ValueError, AssertionError):
        problems.append(f"{path.name} in run/ can't be read")
        return {"name": path.stem, "running": False}
    claims = str(told.get("state", "")) not in ("stopped", "")
    alive = _is_alive(told)
    if claims and not alive and not path.stem.startswith("group-"):  # a group's decoder is taken over by another member
        problems.append(f"{path.stem} (process {told.get('pid')}) ended without saying so: look at the log")
    if told.get("kernel_drops"):
        problems.append(
            f"{path.stem}: the kernel dropped {told['kernel_drops']} datagrams, its receive buffer was full "
            "(net.core.rmem_max, [collector] socket_buffer)"
        )
    disk = told.get("disk") or {}
    if alive and disk.get("level", "ok") != "ok":
        problems.append(
            f"{path.stem}: the disk is {disk['level'].replace('_', ' ')}: {space.megabytes(disk['free'])} free, "
            f"reserve {space.megabytes(disk['reserve'])} ({DISK_LEVELS[disk['level']]})"
        )
    for process in told.get("processes", []):
        if process.get("starts", 0) > 1:
            problems.append(
                f"{process['name']} was started {process['starts']} times, last exit {process['last_exit']}"
            )
    wanted = ("state", "pid", "received", "durable", "decoded", "kernel_drops", "refused", "listeners", "disk", "trouble", "at")
    return {"name": path.stem, "running": alive, **{name: told[name] for name in wanted if name in told}}


def _is_alive(told: dict[str, Any]) -> bool:
    try:
        return runs({"pid_started": process_started(int(told["pid"])), **told})
    except (KeyError, TypeError, ValueError):
        return False


def _stored(connection: sa.Connection) -> dict[str, Any]:
    segment, batch = tables.segment, tables.batch
    files, flows, octets, last = connection.execute(
        sa.select(
            sa.func.count(),
            sa.func.coalesce(sa.func.sum(segment.c.flows), 0),
            sa.func.coalesce(sa.func.sum(segment.c.octets_size), 0),
            sa.func.max(segment.c.received_last),
        )
    ).one()
    count = sa.func.count
    return {
        "accounts": connection.scalar(sa.select(count()).select_from(tables.account)),
        "services": connection.scalar(sa.select(count()).select_from(tables.service)),
        "exporters": connection.scalar(sa.select(count(tables.exporter_state.c.exporter.distinct()))),
        "segments": files,
        "flows": int(flows),
        "segment_octets": int(octets),
        "received_last": None if last is None else format_instant(last),
        "batches": connection.scalar(sa.select(count()).where(batch.c.to_version.is_(None))),
        "frozen_batches": frozen.count(connection),
        "invoices": connection.scalar(sa.select(count()).select_from(tables.invoice)),
    }


def _lag(connection: sa.Connection, processes: list[dict[str, Any]], problems: list[str]) -> dict[str, Any]:
    """How far each stage is behind the one before it."""
    segment, consumed = tables.segment, tables.consumed
    waiting = ~sa.exists().where(consumed.c.segment_id == segment.c.id)
    oldest = connection.scalar(sa.select(sa.func.min(segment.c.received_last)).where(waiting))
    fresh = generations.freshness(connection)
    newest = generations.latest(connection)
    if oldest is not None and clock.now_ms() - oldest > LAG_SECONDS_MAX * SECOND_MS:
        problems.append(
            f"{fresh.waiting_segments} segments are not aggregated: `ratemill aggregate run`, or start `ratemill run`"
        )
    if fresh.stale_batches:
        problems.append(
            f"{fresh.stale_batches} batches were made before an import that concerns them: `ratemill aggregate run`"
        )
    return {
        "decode_datagrams": sum(max(0, p.get("durable", 0) - p.get("decoded", 0)) for p in processes),
        "aggregate_segments": fresh.waiting_segments,
        "aggregate_stale_batches": fresh.stale_batches,
        "publish_behind": newest is not None and fresh.unpublished,
        "published": None if newest is None else format_instant(newest.at),
    }


def _jobs(connection: sa.Connection, problems: list[str]) -> list[dict[str, Any]]:
    """The last run of each job, and who does one now."""
    run, lease = tables.job_run, tables.job_lease
    newest = sa.select(sa.func.max(run.c.id)).group_by(run.c.name)
    found = []
    for row in connection.execute(sa.select(run).where(run.c.id.in_(newest)).order_by(run.c.name)):
        if row.result == "failed":
            problems.append(f"the job {row.name} failed at {format_instant(row.started)}: {row.detail}")
        found.append(
            {
                "name": row.name,
                "started": format_instant(row.started),
                "ended": None if row.ended is None else format_instant(row.ended),
                "result": row.result,
                "detail": row.detail,
            }
        )
    for row in connection.execute(sa.select(lease).order_by(lease.c.name)):
        found.append(
            {"name": row.name, "started": format_instant(row.taken), "result": f"process {row.pid} on {row.host}"}
        )
    return found


def for_people(found: dict[str, Any]) -> dict[str, Any]:
    """The same as flat pairs, one line each, for a table."""
    flat = {name: value for name, value in found.items() if not isinstance(value, (dict, list))}
    flat |= {f"lag {name}".replace("_", " "): value for name, value in found["lag"].items()}
    for process in found["processes"]:
        state = "running" if process["running"] else "not running"
        flat[f"process {process['name']}"] = (
            f"{state}{_pairs(process, 'received', 'durable', 'decoded', 'kernel_drops')}"
        )
    for job in found["jobs"]:
        flat[f"job {job['name']}"] = " ".join(str(job[key]) for key in ("started", "result", "detail") if job.get(key))
    return flat


def _pairs(values: dict[str, Any], *names: str) -> str:
    return "".join(f", {name.replace('_', ' ')} {values[name]}" for name in names if name in values)
