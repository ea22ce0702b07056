"""The supervisor behind `ratemill run`: keeps processes alive, starts jobs when they are due, stops everything cleanly.

Each process is `ratemill --home HOME WORDS…`, each run of a job `python -m runtime.job`; both are children in sessions of
their own that get SIGTERM if this process is killed. It holds no SQL connection and no data: it can be killed at any time.
Reads [run]; writes `run/supervisor.json` and one line an event to the log; holds `locks/run.lock`.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from core import clock
from core.errors import Locked
from core.periods import format_instant
from runtime import log, notify
from runtime.jobs import process_started
from runtime.settings import Run, run_settings
from storage import files
from storage.home import Home

STEADY_SECONDS = 60
"""A process that lived for this long starts again at once when it dies; the pause of a restless one doubles."""
HEARTBEAT_SECONDS = 10
POLL_SECONDS_MAX = 1.0

_WATCHED = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
_ROOT = Path(__file__).resolve().parent.parent
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Process:
    """A part of ratemill that always runs: `arguments` are the words of its command, without --home."""

    name: str
    arguments: tuple[str, ...]
    module: str = "cli"


@dataclass(frozen=True, slots=True)
class Job:
    """Work that is due again `every_seconds`: a function of a module that takes the home and returns one sentence."""

    name: str
    every_seconds: int
    run: Callable[[Home], str]


@dataclass
class _Child:
    """A running or resting process, or a job."""

    name: str
    command: list[str]
    every_ns: int = 0  # 0: a process
    due_ns: int = 0
    running: subprocess.Popen[bytes] | None = None
    started_ns: int = 0
    started: int = 0
    starts: int = 0
    failures: int = 0
    last_exit: int | None = None
    stopped_late: bool = False

    @property
    def is_job(self) -> bool:
        return self.every_ns > 0


@dataclass
class _Supervisor:
    home: Home
    settings: Run
    children: list[_Child]
    started: int = field(default_factory=clock.now_ms)
    state: str = "running"
    changed: bool = True
    written_ns: int = 0


def supervise(home: Home, processes: Sequence[Process], jobs: Sequence[Job]) -> int:
    """Run everything until SIGTERM or SIGINT; returns 0. Raises Locked while another supervisor has this home."""
    supervisor = _Supervisor(home, run_settings(home.document), [*_processes(home, processes), *_jobs(home, jobs)])
    with _only_one(home):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        try:
            _loop(supervisor)
        finally:
            _stop(supervisor)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return 0


def _processes(home: Home, processes: Sequence[Process]) -> list[_Child]:
    """`-P`: a folder named like one of our packages in the current directory must not shadow it."""
    return [
        _Child(p.name, [sys.executable, "-P", "-m", p.module, "--home", str(home.path), *p.arguments])
        for p in processes
    ]


def _jobs(home: Home, jobs: Sequence[Job]) -> list[_Child]:
    children = []
    now = clock.monotonic_ns()
    for number, job in enumerate(jobs, 1):
        module, function = job.run.__module__, job.run.__qualname__
        assert "<" not in function, f"the job {job.name} is no function of a module: its process could not find it"
        command = [sys.executable, "-P", "-m", "runtime.job", str(home.path), job.name, module, function]
        first = min(number, job.every_seconds) * 1_000_000_000  # one after another, not all in the first second
        children.append(_Child(job.name, command, job.every_seconds * 1_000_000_000, now + first))
    return children


@contextmanager
def _only_one(home: Home) -> Iterator[None]:
    path = home.folder("locks") / "run.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 64, 0).decode(errors="replace").strip() or "another process"
            raise Locked(f"{home.path} is supervised already, by {holder}", "stop that one first") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _loop(supervisor: _Supervisor) -> None:
    log.info("supervisor", "started", home=supervisor.home.path, children=len(supervisor.children))
    watchdog = notify.watchdog_seconds()
    wait = min(POLL_SECONDS_MAX, watchdog or POLL_SECONDS_MAX)
    ready = False
    while True:
        now = clock.monotonic_ns()
        for child in supervisor.children:
            _reap(supervisor, child, now)
            _stop_endless(supervisor, child, now)
            if child.running is None and now >= child.due_ns:
                _start(supervisor, child, now)
        _write_status(supervisor, now)
        if not ready:
            ready = True
            notify.send("READY=1", f"STATUS=supervising {len(supervisor.children)} processes and jobs")
        if watchdog is not None:
            notify.send("WATCHDOG=1")
        got = signal.sigtimedwait(_WATCHED, wait)
        if got is not None and got.si_signo != signal.SIGCHLD:
            log.info("supervisor", "stopping", signal=signal.Signals(got.si_signo).name)
            return


def _start(supervisor: _Supervisor, child: _Child, now: int) -> None:
    parent = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:  # in the child, before the new program
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(0)

    environment = dict(os.environ)
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):  # only this process speaks to systemd
        environment.pop(name, None)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    child.due_ns = now + child.every_ns
    child.started_ns, child.started, child.stopped_late = now, clock.now_ms(), False
    supervisor.changed = True
    try:
        child.running = subprocess.Popen(
            child.command,
            stdin=subprocess.DEVNULL,
            stdout=2,  # what a command prints for people goes where the log goes
            env=environment,
            start_new_session=True,
            preexec_fn=prepare,  # this process has one thread
        )
    except OSError as error:
        _rest(supervisor, child, now, f"can't be started: {error}")
        return
    child.starts += 1
    if not child.is_job:
        log.info("supervisor", "process started", name=child.name, pid=child.running.pid)


def _reap(supervisor: _Supervisor, child: _Child, now: int) -> None:
    if child.running is None or (code := child.running.poll()) is None:
        return
    pid, child.running, child.last_exit = child.running.pid, None, code
    supervisor.changed = True
    if child.is_job:
        child.failures = 0 if code == 0 else child.failures + 1
        if code < 0:  # it could not note its own end
            log.error("supervisor", "job killed", name=child.name, pid=pid, signal=signal.Signals(-code).name)
            _record_killed(supervisor.home, child, code)
        return
    if now - child.started_ns >= STEADY_SECONDS * 1_000_000_000:
        child.failures = 0
    _rest(supervisor, child, now, f"ended with {code}")


def _rest(supervisor: _Supervisor, child: _Child, now: int, what: str) -> None:
    """Let a process that ended by itself be started again after a pause that doubles."""
    pause = min(2**child.failures, supervisor.settings.restart_seconds_max)
    child.failures = min(child.failures + 1, 30)
    child.due_ns = now + max(pause * 1_000_000_000, child.every_ns)
    log.warning("supervisor", f"{'job' if child.is_job else 'process'} {what}", name=child.name, again_in_seconds=pause)


def _stop_endless(supervisor: _Supervisor, child: _Child, now: int) -> None:
    """Stop a job that has run for too long: first kindly, at the next look for good."""
    if not child.is_job or child.running is None:
        return
    if now - child.started_ns > supervisor.settings.job_seconds_max * 1_000_000_000:
        late = now - child.started_ns > (supervisor.settings.job_seconds_max + 10) * 1_000_000_000
        if late or not child.stopped_late:
            log.error("supervisor", "job runs for too long", name=child.name, pid=child.running.pid)
            child.running.send_signal(signal.SIGKILL if late else signal.SIGTERM)
        child.stopped_late = True


def _record_killed(home: Home, child: _Child, code: int) -> None:
    from core.errors import RatemillError
    from runtime import jobs
    from storage import sql

    why = "it ran for longer than [run] job_seconds_max" if child.stopped_late else "from outside"
    detail = f"killed by {signal.Signals(-code).name}, {why}"
    try:
        jobs.record_run(sql.engine(home), child.name, child.started, "failed", detail)
    except RatemillError as error:  # the job's end is in the log already; the supervisor goes on
        log.error("supervisor", error.message, name=child.name)


def _stop(supervisor: _Supervisor) -> None:
    """SIGTERM to all, wait within bounds, SIGKILL to the rest."""
    supervisor.state, supervisor.changed = "stopping", True
    notify.send("STOPPING=1")
    alive = [child for child in supervisor.children if child.running is not None]
    for child in alive:
        _signal(child, signal.SIGTERM)
    deadline = clock.monotonic_ns() + supervisor.settings.stop_seconds_max * 1_000_000_000
    while alive and clock.monotonic_ns() < deadline:
        signal.sigtimedwait(_WATCHED, 0.2)
        alive = [child for child in alive if child.running is not None and child.running.poll() is None]
    for child in alive:
        log.error("supervisor", "killed: it did not stop in time", name=child.name)
        _signal(child, signal.SIGKILL)
    for child in supervisor.children:
        if child.running is not None:
            child.last_exit, child.running = child.running.wait(), None
    supervisor.state, supervisor.changed = "stopped", True
    _write_status(supervisor, clock.monotonic_ns())
    log.info("supervisor", "stopped")


def _signal(child: _Child, number: signal.Signals) -> None:
    assert child.running is not None, "only a running child gets a signal"
    child.running.send_signal(number)


def _write_status(supervisor: _Supervisor, now: int) -> None:
    if not supervisor.changed and now - supervisor.written_ns < HEARTBEAT_SECONDS * 1_000_000_000:
        return
    status = {
        "state": supervisor.state,
        "pid": os.getpid(),
        "pid_started": process_started(os.getpid()),
        "started": format_instant(supervisor.started),
        "at": format_instant(clock.now_ms()),
        "processes": [_describe(child) for child in supervisor.children if not child.is_job],
        "jobs": [_describe(child) for child in supervisor.children if child.is_job],
    }
    supervisor.changed, supervisor.written_ns = False, now
    try:
        files.write_whole(supervisor.home.folder("run") / "supervisor.json", json.dumps(status, indent=1).encode())
    except Exception as error:  # a full disk must not stop the collector: the processes' own errors tell of it
        log.error("supervisor", str(error).replace("\n", ": "))


def _describe(child: _Child) -> dict[str, object]:
    return {
        "name": child.name,
        "state": "running" if child.running is not None else "waiting",
        "pid": child.running.pid if child.running is not None else None,
        "last_start": format_instant(child.started) if child.started else None,
        "starts": child.starts,
        "last_exit": child.last_exit,
        **({"every_seconds": child.every_ns // 1_000_000_000} if child.is_job else {}),
    }
