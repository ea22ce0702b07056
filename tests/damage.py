"""What happens to files on a disk; the second path is another file of the same kind."""

from __future__ import annotations

import os
from pathlib import Path


def flip(path: Path, _: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def shorten(path: Path, _: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path, _: Path) -> None:
    os.truncate(path, 0)
