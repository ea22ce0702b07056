"""Locks of the home that end with their process, however it ends: `locks/NAME.lock`, held by flock(2)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from core import clock
from core.errors import Locked
from storage.home import Home

_POLL_SECONDS = 0.05


@contextmanager
def only_one(home: Home, name: str, what: str, *, patience_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock `name`. Raises Locked, saying by whom, if another process holds it beyond the patience."""
    path = home.folder("locks") / f"{name}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        _take(descriptor, what, patience_seconds)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _take(descriptor: int, what: str, patience_seconds: float) -> None:
    deadline = clock.monotonic_ns() + int(patience_seconds * 1e9)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if clock.monotonic_ns() >= deadline:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
                raise Locked(f"{what} is being done by {holder}", "wait for it to end, or stop that process") from None
        clock.sleep(_POLL_SECONDS)
