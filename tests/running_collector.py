"""`collect run` in a process of its own, as an operator runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import ROOT

from collector import counters
from storage.home import Home

PATIENCE_S = 240  # kernels may have to be compiled first


def _status(home: Home) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads((home.folder("run") / "collector-main.json").read_text())
    except FileNotFoundError:
        return {}
    return told


class Running:
    """A `collect run` in a process of its own."""

    def __init__(self, home: Home, *listen: str) -> None:
        self.home = home
        words = [word for text in listen or ("127.0.0.1:0",) for word in ("--listen", text)]
        command = [sys.executable, "-m", "cli", "--home", str(home.path), "collect", "run", *words]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + PATIENCE_S
        while not (_status(home).get("pid") == self.process.pid and _status(home).get("state") == "running"):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, "it does not listen"
            time.sleep(0.05)
        status = _status(home)
        self.receiver = int(status["receiver_pid"])
        self.ports = [int(one["address"].rpartition(":")[2]) for one in status["listeners"]]

    def said(self) -> str:
        return self.process.communicate()[1]

    def received(self) -> int:
        return counters.figures(self.home, "main").received

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=90)
        return self.process.returncode

    def kill(self) -> None:
        """Both processes at once, like a power cut without the power."""
        for pid in (self.receiver, self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()
        while Path(f"/proc/{self.receiver}").exists() and "Z" not in Path(f"/proc/{self.receiver}/stat").read_text().split()[2]:
            time.sleep(0.01)


@contextmanager
def running(home: Home, *listen: str) -> Iterator[Running]:
    one = Running(home, *listen)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.stop()
