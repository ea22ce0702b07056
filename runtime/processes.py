"""What the kernel knows of our processes: CPU time, memory, open files (proc(5))."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process, at this moment."""

    cpu_seconds: float
    resident_octets: int
    threads: int
    files: int


def usage(pid: int) -> Usage | None:
    """What a process uses; None if it is not there, or is another user's."""
    folder = Path("/proc") / str(pid)
    try:
        fields = (folder / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        files = len(os.listdir(folder / "fd"))
        return Usage((int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE, int(fields[17]), files)
    except (OSError, IndexError, ValueError):
        return None
