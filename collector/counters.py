"""The figures of a running collector, in memory that its processes share: `run/collector-ID.counters`.

They go on over restarts, and they outlive a kill -9: that is how the next run knows what was received and never became
durable. The receiver writes its places, the decoder its own; anybody may read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collector.kernels import sockets
from storage import files
from storage.home import Home
from storage.space import Level

_SIZE = 64
RECEIVED, OCTETS, TRUNCATED = sockets.RECEIVED, sockets.OCTETS, sockets.TRUNCATED
DURABLE, KERNEL_DROPS, REFUSED, LOST, DURABLE_BLOCK, OWED = 4, 5, 6, 7, 8, 9
DECODED, DECODED_BLOCK, FLOWS = 32, 33, 34
DECODED_PART = 53
"""Of a group's member: datagrams of the block behind DECODED_BLOCK that are decoded."""
DISK_FREE, DISK_RESERVE, DISK_WARNING, DISK_LEVEL, DECODE_PAUSED = 48, 49, 50, 51, 52
BEGUN = 0

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Figures:
    """Datagrams, cumulative: received ≥ durable ≥ decoded."""

    received: int = 0
    durable: int = 0
    decoded: int = 0
    kernel_drops: int = 0
    refused: int = 0
    """Received, but the disk did not take them."""
    lost: int = 0
    """Received, but not durable when a process was killed."""
    truncated: int = 0
    octets: int = 0
    flows: int = 0


@dataclass(frozen=True, slots=True)
class Disk:
    """The journal's disk as the receiver last saw it, in octets."""

    level: str = Level.OK.label
    """ok, low, journal_only (decoding waits) or full (nothing is received any more)."""
    free: int = 0
    reserve: int = 0
    warning: int = 0
    decode_paused: bool = False


def counters_path(home: Home, collector: str) -> Path:
    return home.folder("run") / f"collector-{collector}.counters"


def open_counters(home: Home, collector: str) -> Places:
    """The shared memory, made if need be."""
    places = np.frombuffer(files.share(counters_path(home, collector), _SIZE * 8), np.int64)
    if not places[BEGUN]:
        places[DURABLE_BLOCK] = places[DECODED_BLOCK] = -1
        places[BEGUN] = 1
    return places


def read(home: Home, collector: str) -> Places:
    """A copy of the places at this moment; all zero for a collector that never ran."""
    path = counters_path(home, collector)
    places = np.fromfile(path, np.int64) if path.is_file() else np.zeros(0, np.int64)
    return places if len(places) == _SIZE else np.zeros(_SIZE, np.int64)


def figures(home: Home, collector: str) -> Figures:
    """The figures at this moment; all zero for a collector that never ran."""
    return figures_of(read(home, collector))


def disk_of(places: Places) -> Disk:
    level = Level(min(max(int(places[DISK_LEVEL]), 0), max(Level)))
    return Disk(level.label, int(places[DISK_FREE]), int(places[DISK_RESERVE]), int(places[DISK_WARNING]),
                bool(places[DECODE_PAUSED]))


def figures_of(places: Places) -> Figures:
    return Figures(
        received=int(places[RECEIVED]), durable=int(places[DURABLE]), decoded=int(places[DECODED]),
        kernel_drops=int(places[KERNEL_DROPS]), refused=int(places[REFUSED]), lost=int(places[LOST]),
        truncated=int(places[TRUNCATED]), octets=int(places[OCTETS]), flows=int(places[FLOWS]))
