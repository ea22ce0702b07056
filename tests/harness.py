"""What tests of every kind share: where the reference material lies, and how to run the command line."""

from __future__ import annotations

import atexit
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


COMMAND_SECONDS_MAX = 300
SHARED = Path(os.environ.get("RATEMILL_SHARED") or ROOT.parent / "shared")


def sessions() -> list[dict[str, Any]]:
    """The capture sessions of the reference material's index; none where it is absent."""
    index = SHARED / "captures" / "index.json"
    return json.loads(index.read_text(encoding="utf-8")) if index.exists() else []


def shared(*parts: str) -> Path:
    """A file or folder of the reference material (RATEMILL_SHARED, default ../shared); skips the test without it."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"reference material is not here: {path} (set RATEMILL_SHARED)")
    return path


def run_cli(
    *words: str,
    home: Path | None = None,
    check: int | None = 0,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `ratemill` as an operator would, in a process of its own; `check` is the exit code expected, None for any.

    `make nightly` starts an interpreter for each command; otherwise a server that has imported the product forks it.
    """
    arguments = [*(["--home", str(home)] if home else []), *words]
    environment = {**os.environ, **(env or {})}
    if os.environ.get("RATEMILL_NIGHTLY"):
        done = subprocess.run([sys.executable, "-m", "cli", *arguments], cwd=ROOT, capture_output=True, text=True,
                              input=stdin, timeout=COMMAND_SECONDS_MAX, env=environment)
    else:
        done = _server().run(arguments, environment, stdin or "")
    if check is not None:
        assert done.returncode == check, (
            f"{words}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    return done


class CommandServer:
    """The process of tests/command_server.py, for as long as the tests run."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ratemill-commands-"))
        self.address = str(self.folder / "socket")
        self.process = subprocess.Popen([sys.executable, str(ROOT / "tests" / "command_server.py"), self.address], cwd=ROOT,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", "the server of commands did not start"
        self._numbers = itertools.count()
        atexit.register(self.close)

    def run(self, words: list[str], environment: dict[str, str], stdin: str) -> subprocess.CompletedProcess[str]:
        number = next(self._numbers)
        names = {name: self.folder / f"{number}.{name}" for name in ("in", "out", "err")}
        names["in"].write_text(stdin, encoding="utf-8")
        for name in ("out", "err"):
            names[name].touch()
        order = {"words": words, "environment": environment, "folder": str(ROOT),
                 **{name: str(path) for name, path in names.items()}}
        try:
            code = self._ask(json.dumps(order), words)
            out, err = (names[name].read_text(encoding="utf-8") for name in ("out", "err"))
            return subprocess.CompletedProcess(words, code, out, err)
        finally:
            for path in names.values():
                path.unlink()

    def _ask(self, order: str, words: list[str]) -> int:
        """The exit code; as subprocess has it, -9 for what a signal ended."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(COMMAND_SECONDS_MAX)
            connection.connect(self.address)
            connection.sendall(order.encode() + b"\n")
            with connection.makefile("r", encoding="utf-8") as lines:
                pid = int(lines.readline())
                try:
                    said = lines.readline()
                except TimeoutError:
                    os.killpg(pid, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(words, COMMAND_SECONDS_MAX) from None
        return int(said) if said else -signal.SIGKILL

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def _server() -> CommandServer:
    return CommandServer()


def rows(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """The JSON lines that a command printed."""
    return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
