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

_SIZE = 64
RECEIVED, OCTETS, TRUNCATED = sockets.RECEIVED, sockets.OCTETS, sockets.TRUNCATED
DURABLE, KERNEL_DROPS, REFUSED, LOST, DURABLE_BLOCK, OWED = 4, 5, 6, 7, 8, 9
DECODED, DECODED_BLOCK, FLOWS = 32, 33, 34
STREAM_RECEIVED, STREAM_OCTETS, SESSIONS, SESSIONS_OPEN, SESSIONS_REFUSED, HANDSHAKES_FAILED, SESSIONS_BROKEN, SESSIONS_IDLE = (
    40, 41, 42, 43, 44, 45, 46, 47)
STREAMS_HELD, STREAMS_HELD_MS, SESSIONS_JOURNALED = 48, 49, 50
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
    sessions: int = 0
    """TCP and TLS connections that were accepted."""
    sessions_open: int = 0
    sessions_refused: int = 0
    """Closed at once, or closed for others, because there were too many."""
    handshakes_failed: int = 0
    """TLS: no certificate, a wrong one, no TLS at all, too slow."""
    sessions_broken: int = 0
    """Closed because what they sent was no IPFIX."""
    sessions_idle: int = 0
    """Closed because they were silent for too long."""
    streams_held: int = 0
    """1 while no session is read because the journal can't take more."""
    streams_held_ms: int = 0


def counters_path(home: Home, collector: str) -> Path:
    return home.folder("run") / f"collector-{collector}.counters"


def open_counters(home: Home, collector: str) -> Places:
    """The shared memory, made if need be."""
    places = np.frombuffer(files.share(counters_path(home, collector), _SIZE * 8), np.int64)
    if not places[BEGUN]:
        places[DURABLE_BLOCK] = places[DECODED_BLOCK] = -1
        places[BEGUN] = 1
    return places


def figures(home: Home, collector: str) -> Figures:
    """The figures at this moment; all zero for a collector that never ran."""
    path = counters_path(home, collector)
    if not path.is_file():
        return Figures()
    places = np.fromfile(path, np.int64)
    if len(places) != _SIZE:
        return Figures()
    return figures_of(places)


def figures_of(places: Places) -> Figures:
    return Figures(
        received=received(places), durable=int(places[DURABLE]), decoded=int(places[DECODED]),
        kernel_drops=int(places[KERNEL_DROPS]), refused=int(places[REFUSED]), lost=int(places[LOST]),
        truncated=int(places[TRUNCATED]), octets=int(places[OCTETS] + places[STREAM_OCTETS]), flows=int(places[FLOWS]),
        sessions=int(places[SESSIONS]), sessions_open=int(places[SESSIONS_OPEN]),
        sessions_refused=int(places[SESSIONS_REFUSED]), handshakes_failed=int(places[HANDSHAKES_FAILED]),
        sessions_broken=int(places[SESSIONS_BROKEN]), sessions_idle=int(places[SESSIONS_IDLE]),
        streams_held=int(places[STREAMS_HELD]), streams_held_ms=int(places[STREAMS_HELD_MS]))


def received(places: Places) -> int:
    """Datagrams and messages of streams; two threads count them, each in its own place."""
    return int(places[RECEIVED] + places[STREAM_RECEIVED])
