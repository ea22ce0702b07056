"""Hot loops at the socket: recvmmsg into preallocated memory and on into a journal body; sendmmsg for our own exporter.

The functions of the C library are called by name, so the kernels can be cached. No Python object per datagram, and the
interpreter lock is not held. Layouts are those of Linux on 64-bit machines: mmsghdr is 8 words, iovec 2, pollfd 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from core.jit import inline_kernel, kernel, load_int32_at

FULL, DUE, LOOK, DRAINED, FAILED = range(5)
"""Why `receive` came back: the body is full; its time is over; Python should look around; nothing more to take; errno."""

# Places in the array `state`.
USED, COUNT, FIRST, LAST, BEGAN, NEXT, PENDING, TAKEN, LISTENER, ARRIVED, STOPPING, ERRNO, CALLED = range(13)
STATE_SIZE = 16
# Places in the array `counters` that receiving adds to; collector.counters has the same numbers.
RECEIVED, OCTETS, TRUNCATED, ERRORS = 1, 2, 3, 10
LISTENERS, LISTENERS_MAX, LISTENER_WIDTH = 64, 32, 8
LISTENER_RECEIVED, LISTENER_OCTETS = 0, 1
SIZES = 320
SIZE_BOUNDS = (128, 256, 512, 1024, 1472, 4096, 9000)

BATCH = 128
DATAGRAM_MAX = 65535
ENTRY_SIZE = 56
BODY_DATAGRAMS_MAX = 4096
WORDS_OF_MESSAGE = 8
NAME_SIZE = 32

MSG_DONTWAIT = 0x40
MSG_TRUNC = 0x20
EINTR, EAGAIN, ECONNREFUSED, ENOBUFS = 4, 11, 111, 105
AF_INET = 2
CLOCK_REALTIME, CLOCK_MONOTONIC = 0, 1
POLLIN = 1

_recvmmsg = types.ExternalFunction("recvmmsg", types.int32(types.int32, types.uintp, types.uint32, types.int32, types.uintp))
_sendmmsg = types.ExternalFunction("sendmmsg", types.int32(types.int32, types.uintp, types.uint32, types.int32))
_poll = types.ExternalFunction("poll", types.int32(types.uintp, types.uint64, types.int32))
_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.uintp))
_memcpy = types.ExternalFunction("memcpy", types.uintp(types.uintp, types.uintp, types.uintp))
_errno = types.ExternalFunction("__errno_location", types.uintp())


@inline_kernel
def last_error() -> Any:
    return load_int32_at(_errno())


@inline_kernel
def now_ns(clock: int, moment: Any) -> Any:
    _clock_gettime(np.int32(clock), np.uintp(moment.ctypes.data))
    return moment[0] * 1_000_000_000 + moment[1]


@kernel
def pack(state: Any, messages: Any, scratch: Any, names: Any, listeners: Any, local: Any, body: Any, words: Any) -> bool:
    """Move received datagrams into the body; False if they do not all fit."""
    while state[TAKEN] < state[PENDING]:
        m = state[TAKEN]
        size = min(np.int64(messages[m, 7] & np.uint64(0xFFFFFFFF)), DATAGRAM_MAX)
        used = state[USED]
        if state[COUNT] >= BODY_DATAGRAMS_MAX or used + ENTRY_SIZE + size + 8 > body.size:
            return False
        s = state[LISTENER]
        family = np.int64(names[m, 0]) | (np.int64(names[m, 1]) << 8)
        source_port = (np.int64(names[m, 2]) << 8) | np.int64(names[m, 3])
        word = used >> 3
        words[word] = np.uint64(state[ARRIVED])
        words[word + 1] = np.uint64(size | (source_port << 32) | (listeners[s, 0] << 48))
        words[word + 3] = words[word + 4] = np.uint64(0)
        for i in range(16):
            body[used + 40 + i] = local[s, i]
        version = 6
        if family == AF_INET:
            version = 4
            body[used + 34] = body[used + 35] = 255
            for i in range(4):
                body[used + 36 + i] = names[m, 4 + i]
        else:
            for i in range(16):
                body[used + 24 + i] = names[m, 8 + i]
        words[word + 2] = np.uint64(17 | (version << 8) | (s << 32))
        used += ENTRY_SIZE
        last = (used + size) >> 3
        words[last] = np.uint64(0)  # the padding, before the octets that share its word
        _memcpy(np.uintp(body.ctypes.data + used), np.uintp(scratch.ctypes.data + m * scratch.shape[1]), np.uintp(size))
        used = (used + size + 7) & ~7
        if state[COUNT] == 0:
            state[FIRST] = state[ARRIVED]
        state[LAST] = max(state[ARRIVED], state[FIRST])
        state[USED] = used
        state[COUNT] += 1
        state[TAKEN] += 1
    return True


@inline_kernel
def size_bucket(size: int) -> Any:
    """Which bound of SIZE_BOUNDS a datagram's size does not exceed, without a branch."""
    return (np.int64(size > SIZE_BOUNDS[0]) + np.int64(size > SIZE_BOUNDS[1]) + np.int64(size > SIZE_BOUNDS[2])
            + np.int64(size > SIZE_BOUNDS[3]) + np.int64(size > SIZE_BOUNDS[4]) + np.int64(size > SIZE_BOUNDS[5])
            + np.int64(size > SIZE_BOUNDS[6]))


@kernel
def take(state: Any, polls: Any, messages: Any, counters: Any, moment: Any) -> int:
    """One recvmmsg on each socket in turn until one has something: how many datagrams, -1 for an error."""
    for turn in range(polls.size):
        s = (state[NEXT] + turn) % polls.size
        got = np.int64(_recvmmsg(np.int32(polls[s] & np.uint64(0xFFFFFFFF)), np.uintp(messages.ctypes.data),
                                 np.uint32(BATCH), np.int32(MSG_DONTWAIT), np.uintp(0)))
        if got < 0:
            error = last_error()
            if error in (EAGAIN, EINTR):
                continue
            counters[ERRORS] += 1
            if error != ECONNREFUSED:
                state[ERRNO] = error
                return -1
            continue
        if got == 0:
            continue
        state[ARRIVED] = now_ns(CLOCK_REALTIME, moment) // 1_000_000
        state[LISTENER], state[PENDING], state[TAKEN], state[NEXT] = s, got, 0, s + 1
        octets = np.int64(0)
        for m in range(got):
            messages[m, 1] = NAME_SIZE
            size = np.int64(messages[m, 7] & np.uint64(0xFFFFFFFF))
            octets += size
            counters[SIZES + size_bucket(size)] += 1
            counters[TRUNCATED] += (messages[m, 6] & np.uint64(MSG_TRUNC)) != 0
        counters[RECEIVED] += got
        counters[OCTETS] += octets
        listener = LISTENERS + min(s, LISTENERS_MAX - 1) * LISTENER_WIDTH
        counters[listener + LISTENER_RECEIVED] += got
        counters[listener + LISTENER_OCTETS] += octets
        return got
    return 0


@kernel
def receive(state: Any, polls: Any, messages: Any, scratch: Any, names: Any, listeners: Any, local: Any, body: Any,
            words: Any, counters: Any, moment: Any, sync_ns: int, look_ns: int) -> int:
    """Fill a body until there is a reason to come back; what it can't hold waits in `scratch` for the next call."""
    state[CALLED] = now_ns(CLOCK_MONOTONIC, moment)
    while True:
        if not pack(state, messages, scratch, names, listeners, local, body, words):
            return FULL
        now = now_ns(CLOCK_MONOTONIC, moment)
        if state[COUNT] > 0 and now - state[BEGAN] >= sync_ns:
            return DUE
        if now - state[CALLED] >= look_ns:
            return LOOK
        got = take(state, polls, messages, counters, moment)
        if got < 0:
            return FAILED
        if got > 0:
            if state[COUNT] == 0:
                state[BEGAN] = now
            continue
        if state[STOPPING]:
            return DRAINED
        wait = look_ns - (now - state[CALLED])
        if state[COUNT] > 0:
            wait = min(wait, sync_ns - (now - state[BEGAN]))
        if _poll(np.uintp(polls.ctypes.data), np.uint64(polls.size), np.int32(wait // 1_000_000 + 1)) < 0:
            return LOOK  # a signal


@kernel
def send(descriptor: int, messages: Any, vectors: Any, addresses: Any, sizes: Any, first: int, count: int) -> int:
    """Send datagrams [first, first + count) of memory on a connected socket; how many went out, or -errno before the first."""
    sent = 0
    while sent < count:
        size = min(count - sent, BATCH)
        for m in range(size):
            vectors[m, 0] = addresses[first + sent + m]
            vectors[m, 1] = np.uint64(sizes[first + sent + m])
        got = np.int64(_sendmmsg(np.int32(descriptor), np.uintp(messages.ctypes.data), np.uint32(size), np.int32(0)))
        if got < 0:
            error = last_error()
            if error in (EINTR, ECONNREFUSED):  # an answer to an earlier datagram: nobody listens
                continue
            return sent if sent > 0 else -error
        sent += got
    return sent
