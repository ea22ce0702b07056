"""`ratemill run` with the real collector and jobs: a datagram sent to it is a flow in a cell when it is told to stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import packets
from harness import ROOT, rows, run_cli

PATIENCE_SECONDS = 300
FLOW = packets.Flow("8.8.8.8", "10.0.0.1", "2026-10-05T10:00:00Z", "2026-10-05T10:00:10Z", 5000, 5)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    assert isinstance(port, int)
    return port


def wait_for(what: str, condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def test_everything_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    run_cli("init", home=tmp_path)
    port = free_port()
    settings = tmp_path / "ratemill.toml"
    settings.write_text(
        f'[collector]\nlisten = ["127.0.0.1:{port}"]\n[time]\nskew_seconds_max = 0\n[run]\nstop_seconds_max = 120\n'
    )
    command = [sys.executable, "-m", "cli", "--home", str(tmp_path), "run"]
    with (tmp_path / "log").open("w") as log:
        supervisor = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=dict(os.environ))
    try:

        def status() -> dict[str, Any]:
            found: dict[str, Any] = rows(run_cli("status", home=tmp_path))[0]
            return found

        def collector() -> dict[str, Any]:
            return next((p for p in status()["processes"] if p["name"].startswith("collector")), {})

        wait_for("the collector listens", lambda: collector().get("state") == "running")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(packets.v5([FLOW], "2026-10-05T10:01:00Z", 0), ("127.0.0.1", port))
        wait_for("the datagram is received", lambda: collector().get("received") == 1)
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(PATIENCE_SECONDS) == 0, (tmp_path / "log").read_text()
    finally:
        supervisor.kill()
        supervisor.wait()
    after = status()
    assert [process["running"] for process in after["processes"]] == [False, False]
    assert collector()["decoded"] == 1
    assert after["flows"] == 1
    assert after["problems"] == []
    assert rows(run_cli("aggregate", "run", home=tmp_path))[0]["flows"] == 1
    assert after["lag"]["decode_datagrams"] == 0
