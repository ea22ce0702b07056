"""The merge of a group's journals: datagrams of several members → one body, in order of their arrival.

Each member's datagrams keep their order. A clock that is ahead is put back first (`ahead`, learned by the scan from copies), so
that what one member lost is filled by the other within milliseconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import ENTRY_HEADER, WORD
from core.jit import kernel

FULL, DRAINED, CLOSED, EMPTY, BAD = range(5)
"""Why `merge` came back: no room in the body; a member's block is used up; the next datagram has to wait; nothing is there; an
entry reaches beyond its block (`state[CHOSEN]` says whose)."""

CHOSEN, USED, COUNT = 0, 1, 2
"""Places in `state`: the member it came back for; octets and datagrams of the body so far."""

MEMBER_SHIFT = 24  # octet 19 of an entry lies so in its third word


@kernel
def skip(words: Any, end: int, count: int) -> int:
    """The offset behind the first `count` entries of a body, -1 if there are fewer."""
    at = np.int64(0)
    for _ in range(count):
        if at >= end:
            return -1
        at += (ENTRY_HEADER + np.int64(words[(at >> 3) + 1] & np.uint64(WORD)) + 7) & ~7
    return at if at <= end else -1


@kernel
def merge(words: Any, at: Any, end: Any, ahead: Any, open_until: Any, taken: Any, newest: Any, out: Any, state: Any,
          datagrams_max: int) -> int:
    """Move datagrams from the members' blocks (rows of `words`, used from `at` to `end` octets) to the body `out`.

    `ahead`: ms by member; `open_until`: the last instant, put right, of a member that may go out now; `taken` counts, `newest`
    is the newest arrival by member.
    """
    while True:
        chosen = -1
        earliest = np.int64(0)
        for m in range(at.size):
            if at[m] < end[m]:
                arrived = np.int64(words[m, at[m] >> 3]) - ahead[m]
                if chosen < 0 or arrived < earliest:
                    chosen = m
                    earliest = arrived
        if chosen < 0:
            return EMPTY
        state[CHOSEN] = chosen
        if earliest > open_until[chosen]:
            return CLOSED
        first = at[chosen] >> 3
        size = (ENTRY_HEADER + np.int64(words[chosen, first + 1] & np.uint64(WORD)) + 7) & ~7
        if at[chosen] + size > end[chosen]:
            return BAD
        if state[USED] + size > out.size * 8 or state[COUNT] >= datagrams_max:
            return FULL
        target = state[USED] >> 3
        for i in range(size >> 3):
            out[target + i] = words[chosen, first + i]
        out[target + 2] = (out[target + 2] & ~(np.uint64(0xFF) << np.uint64(MEMBER_SHIFT))) | (
            np.uint64(chosen) << np.uint64(MEMBER_SHIFT))
        newest[chosen] = max(newest[chosen], np.int64(words[chosen, first]))
        at[chosen] += size
        taken[chosen] += 1
        state[USED] += size
        state[COUNT] += 1
        if at[chosen] >= end[chosen]:
            return DRAINED
