"""Jobs with a lease: one process at a time does a job; the lease of a dead owner is taken over at once.

Reads and writes `job_lease` and `job_run`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from core import clock, randomness, tables
from core.errors import Locked
from core.periods import parse_instant
from storage import sql

LEASE_MS = 3_600_000
"""After this time the lease of an owner on another machine, whose life can't be seen from here, lapses."""


def process_started(pid: int) -> int:
    """Start time of a process in clock ticks since boot (proc(5)), 0 if there is no such process."""
    try:
        return int(
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
        )
    except (OSError, IndexError, ValueError):
        return 0


SILENT_MS_MAX = 60_000
"""A process on another machine counts as running while its status file is no older than this."""


def runs(told: Mapping[str, Any]) -> bool:
    """Whether the process of a status file (state, pid, pid_started, host, at) runs: here by its pid, elsewhere by its word."""
    if told.get("state") in ("stopped", "", None):
        return False
    if told.get("host", socket.gethostname()) == socket.gethostname():
        started = process_started(int(told["pid"]))
        return started != 0 and started == int(told["pid_started"])
    return clock.now_ms() - parse_instant(str(told["at"])) <= SILENT_MS_MAX


@contextmanager
def hold(engine: sa.Engine, name: str) -> Iterator[None]:
    """Hold the lease of the job `name`. Raises Locked, saying by whom, while a living process holds it."""
    owner = randomness.token()
    lease = tables.job_lease
    with sql.transaction(engine) as connection:
        held = connection.execute(sa.select(lease).where(lease.c.name == name)).one_or_none()
        if held is not None and _alive(held):
            raise Locked(
                f"'{name}' is being done by process {held.pid} on {held.host}",
                "wait for it to end, or stop that process; nothing is lost by either",
            )
        connection.execute(lease.delete().where(lease.c.name == name))
        connection.execute(
            lease.insert().values(
                name=name,
                owner=owner,
                host=socket.gethostname(),
                pid=os.getpid(),
                pid_started=process_started(os.getpid()),
                taken=clock.now_ms(),
                until=clock.now_ms() + LEASE_MS,
            )
        )
    try:
        yield
    finally:
        with sql.transaction(engine) as connection:
            connection.execute(lease.delete().where(lease.c.name == name, lease.c.owner == owner))


def _alive(held: sa.Row[tuple[object, ...]]) -> bool:
    if held.host == socket.gethostname():
        return bool(process_started(held.pid) == held.pid_started != 0)
    return bool(held.until > clock.now_ms())


def record_run(engine: sa.Engine, name: str, started: int, result: str, detail: str) -> None:
    """Note how a job ended; rows older than 30 days go."""
    run = tables.job_run
    now = clock.now_ms()
    with sql.transaction(engine) as connection:
        connection.execute(run.insert().values(name=name, started=started, ended=now, result=result, detail=detail))
        connection.execute(run.delete().where(run.c.started < now - 30 * 86_400_000))
