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

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage import files
from storage.home import Home

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
says so, and the level that follows: 0 ok, 1 low, 2 only the journal is written, 3 nothing is taken any more."""
DISK_LEVEL_MOST = 3

# The decoder's.
DECODED, DECODED_BLOCK, FLOWS, SEGMENTS = 32, 33, 34, 35
DECODE_PAUSED = 36
"""1 while decoding waits, so that the rest of the disk is the journal's."""

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

STREAMS, STREAMS_WIDTH = 608, 64

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
class Histogram:
    """Counts by bound, not cumulative, the last one without a bound; and the sum of what was counted."""

    counts: tuple[int, ...]
    total: int


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


def figures_of(places: Places) -> Figures:
    return Figures(
        received=int(places[RECEIVED]), durable=int(places[DURABLE]), decoded=int(places[DECODED]),
        kernel_drops=int(places[KERNEL_DROPS]), refused=int(places[REFUSED]), lost=int(places[LOST]),
        truncated=int(places[TRUNCATED]), octets=int(places[OCTETS]), flows=int(places[FLOWS]))


def undecoded(places: Places) -> int:
    """Datagrams that were received, are not lost, and are not yet flows."""
    found = figures_of(places)
    return max(0, found.received - found.decoded - found.refused - found.lost)


def undecoded_blocks(places: Places) -> int:
    """Durable blocks of the journal that are not yet in segments."""
    return max(0, int(places[DURABLE_BLOCK] - places[DECODED_BLOCK]))


def listener_at(number: int) -> int:
    """The first place of a listener."""
    return LISTENERS + min(number, LISTENERS_MAX - 1) * LISTENER_WIDTH


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
