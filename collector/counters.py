"""The figures of a running collector, in memory that its processes share: `run/collector-ID.counters`.

They go on over restarts, and they outlive a kill -9: that is how the next run knows what was received and never became
durable. The receiver writes its places, the decoder its own; anybody may read, at any moment, at no cost to either: every
place is one aligned word that only one thread writes. Nothing heavy is imported here, so that reading them is quick.

      0 …  31  the receiver                 352 … 607  decode workers, 32 places each
     32 …  63  the decoder                  608 … 671  streams (TCP and TLS), the receiver's
     64 … 319  listeners, 8 places each     672 … 1023 free
    320 … 351  histograms of the receiver
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import files
from storage.home import Home
from storage.space import Level

SIZE = 1024

BEGUN = 0
# The receiver's. Those up to TRUNCATED, RECEIVE_ERRORS, LISTENERS and DATAGRAM_SIZES are written by its compiled loop, which
# has these numbers too: collector.receiver holds the two against each other.
RECEIVED, OCTETS, TRUNCATED = 1, 2, 3
DURABLE, KERNEL_DROPS, REFUSED, LOST, DURABLE_BLOCK, OWED = 4, 5, 6, 7, 8, 9
RECEIVE_ERRORS = 10
STALLED_NS = 11
"""Nanoseconds in which the receiver had no free buffer, because the disk was slower than the network."""
LOOKED_AT = 12
"""When the receiver last looked around (instant): it does each second unless it is stuck."""
JOURNAL_OCTETS, JOURNAL_BLOCKS = 13, 14
"""Written to the journal."""
JOURNAL_FAILING = 15
"""1 while the disk does not take blocks."""
DISK_FREE, DISK_RESERVE, DISK_WARNING, DISK_LEVEL = 16, 17, 18, 19
"""The journal's disk as the receiver last saw it: free octets, those to be kept free (0: no reserve), those below which it
says so, and the level that follows (storage.space.Level): 0 ok, 1 low, 2 only the journal is written, 3 nothing is taken."""
DISK_LEVEL_MOST = 3

# The decoder's.
DECODED, DECODED_BLOCK, FLOWS, SEGMENTS, DECODE_PAUSED, DECODED_PART = 32, 33, 34, 35, 36, 37
"""DECODE_PAUSED: 1 while decoding waits, so that the rest of the disk is the journal's. DECODED_PART, of a group's member:
datagrams of the block behind DECODED_BLOCK that are decoded."""

# Listeners, in the order of their addresses; since the receiver began. The last place takes all that there is no room for.
LISTENERS, LISTENERS_MAX, LISTENER_WIDTH = 64, 32, 8
LISTENER_RECEIVED, LISTENER_OCTETS, LISTENER_DROPS, LISTENER_BUFFER, LISTENER_QUEUED = 0, 1, 2, 3, 4
"""Datagrams and octets received, datagrams dropped by the kernel, receive buffer granted and in use (octets)."""

# Histograms: a count for each bound and one beyond, then the sum.
DATAGRAM_SIZES, JOURNAL_SYNCS = 320, 336
SIZE_BOUNDS = (128, 256, 512, 1024, 1472, 4096, 9000)
"""Octets of a datagram; the last count is of larger ones."""
DURATION_BOUNDS_NS = (1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000, 100_000_000, 250_000_000,
                      500_000_000, 1_000_000_000, 2_500_000_000, 5_000_000_000)

# Decode workers: what they did, work that was done again included.
WORKERS, WORKERS_MAX, WORKER_WIDTH = 352, 8, 32
WORKER_BLOCKS, WORKER_DATAGRAMS, WORKER_FLOWS, WORKER_DECODE_NS, WORKER_COMMITTED_AT, WORKER_COMMITS = 0, 1, 2, 3, 4, 8
"""Blocks, datagrams, flows; time in the decoder; instant of the last commit; histogram of how long commits took."""

# Streams: messages and octets taken, connections by what became of them, and how long none was read.
(STREAM_RECEIVED, STREAM_OCTETS, SESSIONS, SESSIONS_OPEN, SESSIONS_REFUSED, HANDSHAKES_FAILED, SESSIONS_BROKEN, SESSIONS_IDLE,
 STREAMS_HELD, STREAMS_HELD_MS, SESSIONS_JOURNALED) = range(608, 619)

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


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts by bound, not cumulative, the last one without a bound; and the sum of what was counted."""

    counts: tuple[int, ...]
    total: int


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
    """The shared memory, made if need be. Raises RatemillError."""
    path = counters_path(home, collector)
    if path.is_file() and 0 < path.stat().st_size < SIZE * 8:  # of an older ratemill, which had fewer places
        files.write_whole(path, read_places(home, collector).tobytes())
    places = np.frombuffer(files.share(path, SIZE * 8), np.int64)
    if not places[BEGUN]:
        places[DURABLE_BLOCK] = places[DECODED_BLOCK] = -1
        places[BEGUN] = 1
    return places


def read_places(home: Home, collector: str) -> Places:
    """All places at this moment; all zero for a collector that never ran."""
    places = np.zeros(SIZE, np.int64)
    try:
        found = np.fromfile(counters_path(home, collector), np.int64)[:SIZE]
    except FileNotFoundError:
        return places
    places[: len(found)] = found
    return places


def figures(home: Home, collector: str) -> Figures:
    """The figures at this moment; all zero for a collector that never ran."""
    return figures_of(read_places(home, collector))


def disk_of(places: Places) -> Disk:
    level = Level(min(max(int(places[DISK_LEVEL]), 0), max(Level)))
    return Disk(level.label, int(places[DISK_FREE]), int(places[DISK_RESERVE]), int(places[DISK_WARNING]),
                bool(places[DECODE_PAUSED]))


def figures_of(places: Places) -> Figures:
    return Figures(
        received=received(places), durable=int(places[DURABLE]), decoded=int(places[DECODED]),
        kernel_drops=int(places[KERNEL_DROPS]), refused=int(places[REFUSED]), lost=int(places[LOST]),
        truncated=int(places[TRUNCATED]), octets=int(places[OCTETS] + places[STREAM_OCTETS]), flows=int(places[FLOWS]),
        sessions=int(places[SESSIONS]), sessions_open=int(places[SESSIONS_OPEN]),
        sessions_refused=int(places[SESSIONS_REFUSED]), handshakes_failed=int(places[HANDSHAKES_FAILED]),
        sessions_broken=int(places[SESSIONS_BROKEN]), sessions_idle=int(places[SESSIONS_IDLE]),
        streams_held=int(places[STREAMS_HELD]), streams_held_ms=int(places[STREAMS_HELD_MS]))


def undecoded(places: Places) -> int:
    """Datagrams that were received, are not lost, and are not yet flows."""
    return max(0, received(places) - int(places[DECODED] + places[REFUSED] + places[LOST]))


def undecoded_blocks(places: Places) -> int:
    """Durable blocks of the journal that are not yet in segments."""
    return max(0, int(places[DURABLE_BLOCK] - places[DECODED_BLOCK]))


def listener_at(number: int) -> int:
    """The first place of a listener."""
    return LISTENERS + min(number, LISTENERS_MAX - 1) * LISTENER_WIDTH


def listeners_of(places: Places, told: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is told of each listener, with what its socket received and what the kernel dropped there; UDP ones come first."""
    found = []
    for number, one in enumerate(told):
        at = listener_at(number)
        is_udp = not str(one["address"]).startswith(("tcp://", "tls://"))
        found.append({**one, **({"received": int(places[at + LISTENER_RECEIVED]),
                                 "kernel_drops": int(places[at + LISTENER_DROPS])} if is_udp else {})})
    return found


def worker_at(number: int) -> int:
    """The first place of a decode worker."""
    assert 0 <= number < WORKERS_MAX, "a worker has its places"
    return WORKERS + number * WORKER_WIDTH


def observe(places: Places, at: int, bounds: Sequence[int], value: int) -> None:
    """Count a value in the histogram that begins at a place."""
    bucket = sum(value > bound for bound in bounds)
    places[at + bucket] += 1
    places[at + len(bounds) + 1] += value


def histogram(places: Places, at: int, bounds: Sequence[int]) -> Histogram:
    """The histogram that begins at a place."""
    counts = places[at : at + len(bounds) + 1]
    return Histogram(tuple(counts.tolist()), int(places[at + len(bounds) + 1]))


def received(places: Places) -> int:
    """Datagrams and messages of streams; two threads count them, each in its own place."""
    return int(places[RECEIVED] + places[STREAM_RECEIVED])
