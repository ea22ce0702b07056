"""Transport sessions (RFC 7011 §8, §10): whose templates are whose, and what ends with a connection."""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.admission import admission_of, configured_row
from collector.kernels.books import close_datagram, fault, open_intake, take_in
from collector.kernels.codes import (
    ENDED,
    ENTRY_HEADER,
    EXPORTER_UNKNOWN,
    IN_USE,
    IPFIX,
    SESSION_ENDS,
    SESSIONS_LOST,
    STREAM_CUT,
    STREAM_MALFORMED,
    TCP,
    TCP_SESSION,
    UDP_SESSION,
)
from collector.kernels.refusals import refuse
from core.jit import inline_kernel, kernel, load_be16, load_be32, load_le32


@kernel
def is_keyed_by_port(limits: Any, high: Any, low: Any) -> Any:
    """Whether an exporter's source ports are told apart over UDP: as by default, or otherwise if it is in the sorted list."""
    listed = limits.by_port_otherwise
    first, behind = 0, len(listed)
    while first < behind:
        middle = (first + behind) >> 1
        if listed[middle, 0] < high or (listed[middle, 0] == high and listed[middle, 1] < low):
            first = middle + 1
        else:
            behind = middle
    is_listed = first < len(listed) and listed[first, 0] == high and listed[first, 1] == low
    return (limits.by_port == 1) != is_listed


@inline_kernel
def session_of(data: Any, entry: int, high: Any, low: Any, limits: Any) -> Any:
    """The number of an entry's transport session, 0 where all that comes from an address is one."""
    port = np.int64(data[entry + 12]) | (np.int64(data[entry + 13]) << 8)
    if data[entry + 16] == TCP:
        return (np.int64(TCP_SESSION) << 48) | (port << 32) | load_le32(data, entry + 20)
    if is_keyed_by_port(limits, high, low):
        return (np.int64(UDP_SESSION) << 48) | (port << 32)
    return np.int64(0)


@kernel
def note_session(data: Any, entry: int, stop: int, words: Any, state: Any, limits: Any, results: Any, kinds: Any) -> Any:
    """What an entry says about its transport session; whether that is all that it says."""
    now = results.situation[0]
    flags = np.int64(data[entry + 18])
    high = words[(entry + 24) >> 3]
    low = words[(entry + 32) >> 3]
    received = np.int64(words[entry >> 3])
    session = session_of(data, entry, high, low, limits)
    first = np.int64(-1)
    for i in range(1, state.counts[0]["domains"]):
        row = state.domains[i]
        if row["ended"] != IN_USE or row["session"] >> 48 != TCP_SESSION:
            continue
        if flags & SESSIONS_LOST or (row["session"] == session and row["high"] == high and row["low"] == low):
            row["ended"] = ENDED  # it is found no more, and goes when the next block begins
            state.counts[0]["ended"] += 1
            first = i if first < 0 else first
    if not flags & (SESSION_ENDS | SESSIONS_LOST):
        return False
    if first >= 0:  # the quarter hour in which it ended, though it brought nothing
        open_intake(state, results, first, received)
    if flags & (STREAM_MALFORMED | STREAM_CUT):
        at = entry + ENTRY_HEADER
        if limits.guarded and admission_of(limits, configured_row(limits.exporters, high, low), 0, 0):
            now["received"] = received
            now["protocol"] = 0
            refuse(EXPORTER_UNKNOWN, data, entry, stop, 0, high, low, 0, state, limits, results, kinds)
            state.counts[0]["datagrams"] += 1
            return True
        known = stop - at >= 16 and load_be16(data, at) == IPFIX
        take_in(state, limits, results, high, low, load_be32(data, at + 12) if known else np.int64(0),
                np.int64(IPFIX) if known else np.int64(0), np.int64(0), received)
        now["faults"] = 0
        now["read"] = 0
        fault(results.faults, now, kinds["stream_malformed"] if flags & STREAM_MALFORMED else kinds["stream_cut"])
        close_datagram(state, results)
        state.counts[0]["datagrams"] += 1
    return True
