"""What the endpoint of `ratemill run` tells: every package's metrics, the supervised processes and the jobs.

It is a process of its own (`ratemill metrics serve`), so that neither the supervisor nor a collector waits for a scrape.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import sqlalchemy as sa

from core import clock, tables
from core.errors import RatemillError
from core.periods import parse_instant
from runtime.jobs import process_started
from runtime.metrics import COUNTER, GAUGE, Contribution, Endpoint, Exposition, Metric, Parts, Periodic, Sheet
from runtime.settings import metrics_settings
from storage import sql
from storage.home import Home

SUPERVISOR_SILENT_SECONDS_MAX = 60
"""The supervisor writes its status at least every ten seconds."""

_PROCESS, _JOB = ("process",), ("name",)  # `job` is a label of Prometheus' own

SUPERVISOR_UP = Metric("ratemill_supervisor_up", GAUGE, "1 while `ratemill run` is alive, else 0.")
PROCESS_UP = Metric("ratemill_supervised_process_up", GAUGE, "1 while a process of `ratemill run` is alive, else 0.", _PROCESS)
PROCESS_STARTS = Metric("ratemill_supervised_process_starts_total", COUNTER,
                        "Times that `ratemill run` started the process; more than 1: it died.", _PROCESS)
JOB_LAST_RUN = Metric("ratemill_job_last_run_timestamp_seconds", GAUGE, "When the job last ended.", _JOB)
JOB_LAST_SUCCESS = Metric("ratemill_job_last_success_timestamp_seconds", GAUGE,
                          "When the job last ended well; 0 if not in the last 30 days.", _JOB)
JOB_SECONDS = Metric("ratemill_job_last_duration_seconds", GAUGE, "How long its last run took.", _JOB)
JOB_FAILED = Metric("ratemill_job_last_failed", GAUGE, "1 if the last run failed, else 0.", _JOB)
JOB_RUNNING = Metric("ratemill_job_running", GAUGE, "1 while somebody does the job, else 0.", _JOB)

METRICS = (SUPERVISOR_UP, PROCESS_UP, PROCESS_STARTS, JOB_LAST_RUN, JOB_LAST_SUCCESS, JOB_SECONDS, JOB_FAILED, JOB_RUNNING)

MODULES = ("runtime.metrics", "collector.metrics", "aggregation.metrics", "monitoring.metrics")
"""Every module that declares metrics, in the order of the reference page."""


def declared() -> Mapping[str, tuple[Metric, ...]]:
    """All metrics that there are, by module."""
    return {module: import_module(module).METRICS for module in MODULES}


def parts(home: Home) -> Parts:
    """Everything that an endpoint can tell of a home."""
    from aggregation import metrics as aggregation
    from collector import metrics as collector

    collectors = collector.parts(home)
    contributions: dict[str, Contribution] = {
        **collectors.contributions, "aggregation": aggregation.contribution(home), "jobs": _jobs(home),
        "processes": lambda sheet: _tell_processes(sheet, home),
    }
    return Parts(contributions, (*collectors.health, lambda: _supervisor_problems(home)), collectors.readiness)


def text(home: Home) -> str:
    """The exposition of this moment, as a scrape would give it."""
    return Exposition(parts(home)).text()


def serve(home: Home) -> None:
    """Answer until SIGTERM or SIGINT. Raises RatemillError if [metrics] listen is empty."""
    import signal

    listen = metrics_settings(home.document).listen
    if not listen:
        raise RatemillError("[metrics] listen is empty: there is no endpoint to serve",
                            'set it in ratemill.toml, for example to "127.0.0.1:9815"')
    watched = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)  # before the endpoint's thread begins: only this one waits for them
    endpoint = Endpoint(listen, parts(home)).start()
    signal.sigwait(watched)
    endpoint.stop()


# processes ------------------------------------------------------------------------------------------------------------
def _supervisor(home: Home) -> dict[str, Any] | None:
    """What the supervisor last told; None if none ever ran here."""
    try:
        told = json.loads((home.folder("run") / "supervisor.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RatemillError(f"run/supervisor.json can't be read: {error}") from error
    return told if isinstance(told, dict) else None


def _is_alive(told: Mapping[str, Any]) -> bool:
    return bool(told["state"] != "stopped" and process_started(int(told["pid"])) == told["pid_started"] != 0)


def _tell_processes(sheet: Sheet, home: Home) -> None:
    told = _supervisor(home)
    if told is None:
        return
    alive = _is_alive(told)
    sheet.write(SUPERVISOR_UP, alive)
    for process in told["processes"]:
        up = alive and process["pid"] is not None and process_started(int(process["pid"])) != 0
        sheet.write(PROCESS_UP, up, process["name"])
        sheet.write(PROCESS_STARTS, process["starts"], process["name"])


def _supervisor_problems(home: Home) -> list[str]:
    """A supervisor that hangs or was killed: nobody starts again what dies. Without one, there is nothing to say."""
    told = _supervisor(home)
    if told is None or told["state"] == "stopped":
        return []
    if not _is_alive(told):
        return [f"the supervisor (process {told['pid']}) ended without saying so: start `ratemill run` again"]
    if clock.now_ms() - parse_instant(told["at"]) > SUPERVISOR_SILENT_SECONDS_MAX * 1000:
        return [f"the supervisor (process {told['pid']}) has not written its status for over a minute"]
    return []


# jobs -----------------------------------------------------------------------------------------------------------------
def _jobs(home: Home) -> Callable[[Sheet], None]:
    stored = Periodic("the jobs", lambda: _read_jobs(home))

    def tell(sheet: Sheet) -> None:
        rows = stored.get()
        if rows is None:
            raise RatemillError("the database did not answer in time")
        for row in rows:
            sheet.write(JOB_LAST_RUN, row.ended / 1000, row.name)
            sheet.write(JOB_LAST_SUCCESS, (row.succeeded or 0) / 1000, row.name)
            sheet.write(JOB_SECONDS, (row.ended - row.started) / 1000, row.name)
            sheet.write(JOB_FAILED, row.result == "failed", row.name)
            sheet.write(JOB_RUNNING, row.leased is not None, row.name)

    return tell


def _read_jobs(home: Home) -> list[Any]:
    """The last run of each job, with when it last went well and whether it is being done; jobs are few, and of our making."""
    run, lease = tables.job_run, tables.job_lease
    newest = sa.select(sa.func.max(run.c.id).label("id"),
                       sa.func.max(sa.case((run.c.result == "done", run.c.ended))).label("succeeded"),
                       run.c.name).where(run.c.ended.is_not(None)).group_by(run.c.name).subquery()
    query = sa.select(run.c.name, run.c.started, run.c.ended, run.c.result, newest.c.succeeded, lease.c.name.label("leased"))
    joined = run.join(newest, newest.c.id == run.c.id).outerjoin(lease, lease.c.name == run.c.name)
    with sql.reading(sql.engine(home)) as connection:
        return list(connection.execute(query.select_from(joined).order_by(run.c.name)))
