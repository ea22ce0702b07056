"""The supervisor with toy processes: what dies comes back, what is told to stop stops, what is killed takes all along."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from harness import ROOT

from core import tables
from storage import sql
from storage.home import Home

TOY = """
    import os, signal, sys, time
    from pathlib import Path
    from core.errors import RatemillError

    def note(home, name, text):
        with open(Path(home) / f"{name}.txt", "a") as file:
            file.write(f"{text}\\n")

    def good_job(home):
        return "made 3 things"

    def bad_job(home):
        raise RatemillError("the moon is in the wrong house", "wait")

    def endless_job(home):
        note(home.path, "endless", os.getpid())
        time.sleep(600)

    def steady(home, name):
        def stop(*_):
            note(home, name, "stopped cleanly")
            sys.exit(0)
        signal.signal(signal.SIGTERM, stop)
        note(home, name, os.getpid())
        while True:
            time.sleep(0.05)

    def stubborn(home, name):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note(home, name, os.getpid())
        time.sleep(600)

    def mortal(home, name):
        note(home, name, os.getpid())
        sys.exit(3)

    def supervise(home, *names):
        from runtime import failures
        from runtime.supervisor import Job, Process, supervise
        from storage.home import open_home
        import toy
        processes = [Process(name, (name,), "toy") for name in names if not name.endswith("_job")]
        jobs = [Job(name, 2, getattr(toy, name)) for name in names if name.endswith("_job")]
        return failures.guard(lambda: supervise(open_home(home), processes, jobs), debug=True)

    if __name__ == "__main__":
        if sys.argv[1] == "--home":
            globals()[sys.argv[3]](sys.argv[2], sys.argv[3])
        sys.exit(supervise(*sys.argv[1:]))
"""
PATIENCE_SECONDS = 60


class Toys:
    """A home and supervisors over it, all ended after the test."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        (self.home / "ratemill.toml").write_text("[run]\nstop_seconds_max = 2\n")
        (folder / "toy.py").write_text(textwrap.dedent(TOY))
        self.environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
        self.started: list[subprocess.Popen[str]] = []

    def supervise(self, *names: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "toy", str(self.home), *names]
        env = {**self.environment, **environment}
        made = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.started.append(made)
        return made

    def notes(self, name: str) -> list[str]:
        path = self.home / f"{name}.txt"
        return path.read_text().splitlines() if path.exists() else []

    def status(self) -> dict[str, Any]:
        path = self.home / "run" / "supervisor.json"
        loaded = json.loads(path.read_text()) if path.exists() else {}
        assert isinstance(loaded, dict)
        return loaded


@pytest.fixture
def toys(tmp_path: Path) -> Iterator[Toys]:
    made = Toys(tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_process_that_dies_is_started_again(toys: Toys) -> None:
    supervisor = toys.supervise("mortal", "steady")
    wait_for(lambda: len(toys.notes("mortal")) >= 3)
    assert len(toys.notes("steady")) == 1, "the other one is left alone"
    supervisor.send_signal(signal.SIGTERM)
    _, log = supervisor.communicate(timeout=PATIENCE_SECONDS)
    assert supervisor.returncode == 0
    assert "process ended with 3" in log
    assert "again_in_seconds=1" in log
    assert "again_in_seconds=2" in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_cleanly(toys: Toys, number: signal.Signals) -> None:
    supervisor = toys.supervise("steady")
    wait_for(lambda: toys.notes("steady"))
    assert toys.status()["state"] == "running"
    assert toys.status()["processes"][0]["pid"] == int(toys.notes("steady")[0])
    supervisor.send_signal(number)
    supervisor.communicate(timeout=PATIENCE_SECONDS)
    assert supervisor.returncode == 0
    assert toys.notes("steady")[1:] == ["stopped cleanly"]
    assert toys.status()["state"] == "stopped"


def test_what_does_not_stop_in_time_is_killed(toys: Toys) -> None:
    supervisor = toys.supervise("stubborn")
    wait_for(lambda: toys.notes("stubborn"))
    supervisor.terminate()
    _, log = supervisor.communicate(timeout=PATIENCE_SECONDS)
    assert supervisor.returncode == 0
    assert "it did not stop in time" in log
    assert not is_alive(toys.notes("stubborn")[0])


def test_a_killed_supervisor_takes_its_children_along(toys: Toys) -> None:
    supervisor = toys.supervise("steady")
    wait_for(lambda: toys.notes("steady"))
    supervisor.kill()
    wait_for(lambda: "stopped cleanly" in toys.notes("steady"))


def test_jobs_run_when_due_and_note_how_they_ended(toys: Toys) -> None:
    supervisor = toys.supervise("good_job", "bad_job")
    engine = sql.engine(Home(toys.home))

    def runs() -> dict[str, tuple[str, str]]:
        with sql.reading(engine) as connection:
            run = tables.job_run
            return {row.name: (row.result, row.detail) for row in connection.execute(sa.select(run))}

    wait_for(lambda: len(runs()) == 2)
    assert runs()["good_job"] == ("done", "made 3 things")
    assert runs()["bad_job"] == ("failed", "the moon is in the wrong house\n  wait")
    wait_for(lambda: {job["name"]: job["starts"] for job in toys.status()["jobs"]}["good_job"] >= 2)
    supervisor.terminate()
    supervisor.communicate(timeout=PATIENCE_SECONDS)
    assert supervisor.returncode == 0


def test_a_job_that_is_killed_is_noted_as_failed(toys: Toys) -> None:
    supervisor = toys.supervise("endless_job")
    wait_for(lambda: toys.notes("endless"))
    os.kill(int(toys.notes("endless")[0]), signal.SIGKILL)
    engine = sql.engine(Home(toys.home))

    def details() -> list[str]:
        with sql.reading(engine) as connection:
            return list(connection.scalars(sa.select(tables.job_run.c.detail)))

    wait_for(details)
    assert details()[0] == "killed by SIGKILL, from outside"
    supervisor.terminate()
    supervisor.communicate(timeout=PATIENCE_SECONDS)


def test_a_home_is_supervised_once(toys: Toys) -> None:
    first = toys.supervise("steady")
    wait_for(lambda: toys.notes("steady"))
    second = toys.supervise("steady")
    _, log = second.communicate(timeout=PATIENCE_SECONDS)
    assert second.returncode == 6
    assert f"process {first.pid}" in log
    assert len(toys.notes("steady")) == 1


def test_systemd_is_told_of_start_life_and_end(toys: Toys, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(PATIENCE_SECONDS)
        supervisor = toys.supervise("steady", NOTIFY_SOCKET=address, WATCHDOG_USEC="200000")
        assert listener.recv(1000).startswith(b"READY=1")
        assert listener.recv(1000) == b"WATCHDOG=1"
        wait_for(lambda: toys.notes("steady"))
        supervisor.terminate()
        message = b""
        while message != b"STOPPING=1":
            message = listener.recv(1000)
        supervisor.communicate(timeout=PATIENCE_SECONDS)
        assert supervisor.returncode == 0
