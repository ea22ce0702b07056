"""Processes under measurement: pinned to a core, gone when the benchmark is, with what they have used and what they lost."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.traffic import Traffic
from collector.drops import read_memory

ROOT = Path(__file__).resolve().parent.parent
SENDER_CORE, RECEIVER_CORE = 0, 1
MEMORY = Path("/dev/shm")
PATIENCE_SECONDS = 120
TICK = os.sysconf("SC_CLK_TCK")

_PR_SET_PDEATHSIG = 1
_SO_RCVBUFFORCE = 33
_SYS_PIDFD_GETFD = 438
_LIBC = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def cores() -> int:
    return len(os.sched_getaffinity(0))


def start(command: Sequence[str], core: int, **options: Any) -> subprocess.Popen[str]:
    """A process on one core that is killed if this one dies."""
    parent = os.getpid()

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.sched_setaffinity(0, {core})
        if os.getppid() != parent:
            os._exit(0)

    return subprocess.Popen(command, cwd=ROOT, text=True, preexec_fn=prepare, **options)


def module(name: str, *words: object) -> list[str]:
    return [sys.executable, "-m", name, *map(str, words)]


def end(process: subprocess.Popen[str], patience: float = 30) -> None:
    """Stop a process and what it started, kindly and then not."""
    family = tree(process.pid)
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    for pid in family:
        if process.poll() is None or pid != process.pid:
            with suppress(ProcessLookupError, PermissionError):
                if _parent(pid) is not None:
                    os.kill(pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def wait_for(what: str, ask: Callable[[], T | None], patience: float = PATIENCE_SECONDS) -> T:
    """Ask until there is an answer. Raises TimeoutError."""
    deadline = time.monotonic() + patience
    while True:
        answer = ask()
        if answer is not None:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {patience:g} s")
        time.sleep(0.02)


# memory that is there -------------------------------------------------------------------------------------------------
_HUGE, _PAGE = 2 << 20, 4096
HELD = 8 << 30
"""Octets of memory that a run may fill with files, at most."""


@contextmanager
def memory_at_hand() -> Iterator[None]:
    """Keep a virtual machine's host from taking free memory back while it lasts.

    Such a host gives a page anew when it is first written to, at 0.5 GB/s where memory at hand takes 3.6 GB/s: whoever writes
    first pays, and nothing is compared. Free memory is reported to a host in pieces of 2 MiB; one page of each is kept.
    """
    size = min(HELD, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4) // _HUGE * _HUGE
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, size, _PAGE):
            memory[at] = 1
        for at in range(0, size, _HUGE):
            memory.madvise(mmap.MADV_DONTNEED, at + _PAGE, _HUGE - _PAGE)
        yield


@contextmanager
def folder(on: Path = MEMORY) -> Any:
    """A folder in memory (or on a disk) that is gone afterwards."""
    made = Path(tempfile.mkdtemp(prefix="ratemill-bench-", dir=on))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


# what a process has used ----------------------------------------------------------------------------------------------
def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat behind the name, None if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _parent(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[1])


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {int(path.name): _parent(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()}
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of processes so far, all threads."""
    ticks = 0
    for pid in pids:
        fields = _stat(pid)
        if fields is not None:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICK


def high_water(pids: Sequence[int]) -> int:
    """Octets of memory that processes had at most, added up."""
    total = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
    return total


def octets_below(path: Path, suffix: str = "") -> int:
    return sum(one.stat().st_size for one in path.rglob(f"*{suffix}") if one.is_file())


# sockets of others ----------------------------------------------------------------------------------------------------
def socket_of(pid: int, port: int) -> socket.socket | None:
    """The UDP socket of another process at a port, as one of our own: it is asked and set as if we had opened it."""
    inodes = set()
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port:
            inodes.add(f"socket:[{fields[9]}]")
    for one in tree(pid):
        for entry in Path(f"/proc/{one}/fd").iterdir():
            with suppress(FileNotFoundError):
                if os.readlink(entry) in inodes:
                    return _borrow(one, int(entry.name))
    return None


def _borrow(pid: int, descriptor: int) -> socket.socket:
    holder = os.pidfd_open(pid)
    try:
        ours = _LIBC.syscall(_SYS_PIDFD_GETFD, holder, descriptor, 0)
        if ours < 0:
            raise OSError(ctypes.get_errno(), "the peer's socket can't be looked at (ptrace is not allowed here)")
        return socket.socket(fileno=ours)
    finally:
        os.close(holder)


def set_buffer(one: socket.socket, octets: int) -> int:
    """Give a socket its receive buffer; returns what it has, as the kernel counts it (twice what is asked)."""
    try:
        one.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, octets)
    except PermissionError:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, octets)
    return one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def drops_and_queue(one: socket.socket) -> tuple[int, int]:
    """(datagrams dropped at a socket, octets that wait in it)."""
    return read_memory(one)


# sending --------------------------------------------------------------------------------------------------------------
class Sending:
    """A sender's process, on its own core."""

    def __init__(self, traffic: Traffic, port: int, work: Path, segments: int = 1) -> None:
        path = work / f"traffic-{port}.npz"
        traffic.save(path)
        self._process = start(module("benchmarks.sender", path, port, SENDER_CORE, segments), SENDER_CORE,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        if self._read() != "ready":
            self.close()
            raise RuntimeError("the sender did not start")

    def _read(self) -> str:
        assert self._process.stdout is not None, "it is a pipe"
        return self._process.stdout.readline().strip()

    def begin(self, datagrams: int, rate: int, burst: int = 32) -> None:
        """Send so many datagrams, so many a second (0: as fast as it goes)."""
        assert self._process.stdin is not None, "it is a pipe"
        self._process.stdin.write(json.dumps({"datagrams": datagrams, "rate": rate, "burst": burst}) + "\n")
        self._process.stdin.flush()

    def finish(self) -> dict[str, float]:
        """Wait until all went out: datagrams, records, seconds."""
        line = self._read()
        if not line:
            raise RuntimeError("the sender has died")
        told: dict[str, float] = json.loads(line)
        return told

    def send(self, datagrams: int, rate: int, burst: int = 32) -> dict[str, float]:
        self.begin(datagrams, rate, burst)
        return self.finish()

    def close(self) -> None:
        end(self._process, patience=1)
