"""Runs `ratemill` commands for the tests, each in a process of its own that is forked from this one.

A command needs about a second to import what it works with, and the tests run thousands. This process has imported it all and
does nothing else: what a command does, prints and returns is what a fresh interpreter would. One connection is one command;
it answers with the process id, then with the exit code. It ends when its standard input does.
"""

from __future__ import annotations

import atexit
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import threading
import traceback
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def preload() -> None:
    """Every module of the product."""
    from core.jit import PACKAGES

    for package in PACKAGES:
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            if not module.name.endswith("__main__"):
                import_module(module.name)
    assert threading.active_count() == 1, "a process with threads can't be forked safely"  # pyarrow's allocator has one, and
    # handlers of its own for a fork


def serve(path: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _child(connection)
            connection.close()


def _child(connection: socket.socket) -> None:
    """Never returns."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with connection.makefile("r", encoding="utf-8") as lines:
            order = json.loads(lines.readline())
        _become(order)
        connection.sendall(f"{os.getpid()}\n".encode())
        code = _run(order["words"])
        threading._shutdown()  # type: ignore[attr-defined]  # as an interpreter that ends: wait for threads, then exit handlers
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 120
    connection.sendall(f"{code}\n".encode())
    os._exit(code)


def _become(order: dict[str, object]) -> None:
    """The process that was asked for: its directory, environment and standard streams."""
    os.setpgid(0, 0)
    os.chdir(str(order["folder"]))
    os.environ.clear()
    os.environ.update(order["environment"])  # type: ignore[arg-type]
    for number, name, flags in ((0, "in", os.O_RDONLY), (1, "out", os.O_WRONLY), (2, "err", os.O_WRONLY)):
        opened = os.open(str(order[name]), flags)
        os.dup2(opened, number)
        os.close(opened)
    encoding = os.environ.get("PYTHONIOENCODING") or "utf-8"
    sys.stdin = open(0, encoding=encoding, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding=encoding, errors="strict", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding=encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115


def _run(words: list[str]) -> int:
    import cli

    sys.argv = ["ratemill", *words]
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    preload()
    serve(sys.argv[1])
