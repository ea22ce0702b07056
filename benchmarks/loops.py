"""The two loops that a comparison of receivers needs: a paced sender, and a receiver that only counts.

Both are compiled and hold no interpreter lock. The counting loop is the limit: recvmmsg in the product's batch into the
product's memory, and nothing else, so that what it reaches is what the kernel hands over on this core.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from core.jit import inline_kernel, kernel

BATCH = 128
WORDS_OF_MESSAGE = 8
MSG_DONTWAIT = 0x40
EINTR, EAGAIN, ECONNREFUSED, ENOBUFS = 4, 11, 111, 105
CLOCK_MONOTONIC = 1
POLLIN = 1
# Places of the sender's state, and of the counter's.
CYCLE_AT, SEQUENCE, SENT, ELAPSED_NS, REFUSED = range(5)
DATAGRAMS, OCTETS, CALLS, EMPTY = range(4)

_recvmmsg = types.ExternalFunction(
    "recvmmsg", types.int32(types.int32, types.uintp, types.uint32, types.int32, types.uintp)
)
_sendmmsg = types.ExternalFunction("sendmmsg", types.int32(types.int32, types.uintp, types.uint32, types.int32))
_poll = types.ExternalFunction("poll", types.int32(types.uintp, types.uint64, types.int32))
_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.uintp))
_errno = types.ExternalFunction("__errno_location", types.CPointer(types.int32)())


@inline_kernel
def last_error() -> Any:
    return np.int64(_errno()[0])  # type: ignore[index]


@inline_kernel
def monotonic_ns(moment: Any) -> Any:
    _clock_gettime(np.int32(CLOCK_MONOTONIC), np.uintp(moment.ctypes.data))
    return moment[0] * 1_000_000_000 + moment[1]


@kernel
def transmit(descriptor: int, octets: Any, starts: Any, sizes: Any, sequence_at: int, units: Any, segments: int,
             messages: Any, vectors: Any, state: Any, moment: Any, rate: int, burst: int, count: int) -> int:  # fmt: skip
    """Send `count` datagrams of a cycle on and on, each with its next sequence number; 0, or the errno that ended it.

    `rate` is datagrams a second, in bursts of `burst`, 0 for no limit. `segments` datagrams that lie behind one another and
    have one size go out as one message that the kernel divides (UDP_SEGMENT); 1: each is a message.
    """
    sent = 0
    length = len(starts)
    begun = monotonic_ns(moment)
    while sent < count:
        allowed = count - sent
        if rate > 0:
            due = (monotonic_ns(moment) - begun) * rate // 1_000_000_000 + burst
            if due - sent < min(burst, allowed):
                continue
            allowed = min(allowed, due - sent)
        at = state[CYCLE_AT]
        filled = 0
        m = 0
        while m < BATCH and filled < allowed and at + filled < length:
            first = at + filled
            joined = 0
            while (joined < segments and filled + joined < allowed and first + joined < length
                   and sizes[first + joined] == sizes[first]):  # fmt: skip
                number = state[SEQUENCE]
                state[SEQUENCE] += units[first + joined]
                place = starts[first + joined] + sequence_at
                for k in range(4):
                    octets[place + k] = (number >> (24 - 8 * k)) & 0xFF
                joined += 1
            vectors[m, 0] = np.uint64(octets.ctypes.data) + np.uint64(starts[first])
            vectors[m, 1] = np.uint64(sizes[first] * joined)
            filled += joined
            m += 1
        done = 0
        while done < m:
            got = np.int64(_sendmmsg(np.int32(descriptor), np.uintp(messages.ctypes.data + 64 * done), np.uint32(m - done),
                                     np.int32(0)))  # fmt: skip
            if got >= 0:
                done += got
                continue
            error = last_error()
            if error not in (EINTR, ECONNREFUSED, EAGAIN, ENOBUFS):
                return int(error)
            state[REFUSED] += 1
        sent += filled
        state[SENT] += filled
        state[CYCLE_AT] = 0 if at + filled == length else at + filled
    state[ELAPSED_NS] = monotonic_ns(moment) - begun
    return 0


@kernel
def count_only(descriptor: int, messages: Any, polls: Any, counts: Any, moment: Any, slice_ns: int) -> int:
    """Take datagrams and count them, for a while; 0, or an errno."""
    begun = monotonic_ns(moment)
    while True:
        now = monotonic_ns(moment)
        if now - begun >= slice_ns:
            return 0
        got = np.int64(_recvmmsg(np.int32(descriptor), np.uintp(messages.ctypes.data), np.uint32(BATCH),
                                 np.int32(MSG_DONTWAIT), np.uintp(0)))  # fmt: skip
        if got > 0:
            octets = np.int64(0)
            for m in range(got):
                octets += np.int64(messages[m, 7] & np.uint64(0xFFFFFFFF))
            counts[OCTETS] += octets
            counts[DATAGRAMS] += got
            counts[CALLS] += 1
            continue
        error = last_error() if got < 0 else np.int64(EAGAIN)
        if error not in (EAGAIN, EINTR):
            return error
        counts[EMPTY] += 1
        _poll(np.uintp(polls.ctypes.data), np.uint64(1), np.int32((slice_ns - (now - begun)) // 1_000_000 + 1))
