"""A `ratemill collect run` in a process of its own, for tests that send to it, kill it or fill its disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import ROOT

from storage.home import Home

PATIENCE_S = 240  # kernels may have to be compiled first


def make_home(folder: Path, settings: str = "") -> Home:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ratemill.toml").write_text(settings)
    home = Home(folder)
    home.create()
    return home


def wait_until(condition: Callable[[], object], what: str, patience: float = 60) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen: {what}"
        time.sleep(0.02)


class LiveCollector:
    """Its receiver and its decoder."""

    def __init__(self, home: Home, collector: str = "main", *words: str, listen: str = "127.0.0.1:0") -> None:
        self.home, self.collector = home, collector
        command = [sys.executable, "-m", "cli", "--home", str(home.path), "collect", "run", "--listen", listen,
                   "--collector", collector, *words]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        wait_until(self._listens, "it listens", PATIENCE_S)
        status = self.status()
        self.receiver = int(status["receiver_pid"])
        self.port = int(status["listeners"][0]["address"].rpartition(":")[2])

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()[1]
        status = self.status()
        return status.get("pid") == self.process.pid and status.get("state") == "running"

    def status(self) -> dict[str, Any]:
        try:
            told: dict[str, Any] = json.loads((self.home.folder("run") / f"collector-{self.collector}.json").read_text())
        except FileNotFoundError:
            return {}
        return told

    def stop(self) -> tuple[int, str]:
        """SIGTERM: (exit code, what it said)."""
        self.process.send_signal(signal.SIGTERM)
        said = self.process.communicate(timeout=120)[1]
        return self.process.returncode, said

    def kill(self, *, receiver: bool = True) -> None:
        """kill -9 of the decoder, and of the receiver with it unless it is to end by its parent's death."""
        for pid in (self.receiver, self.process.pid) if receiver else (self.process.pid,):
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()
        path = Path(f"/proc/{self.receiver}/stat")
        wait_until(lambda: not path.exists() or "Z" in path.read_text().split()[2], "the receiver is gone")


@contextmanager
def live_collector(home: Home, collector: str = "main", *words: str, listen: str = "127.0.0.1:0") -> Iterator[LiveCollector]:
    one = LiveCollector(home, collector, *words, listen=listen)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.stop()
