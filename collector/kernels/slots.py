"""Scaled octets of flows by UTC quarter hour, cut by the cumulative split: the collector's side of the octet balance."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.jit import kernel

DONE, FULL = 0, 1
SLOT_MS = 900_000
COUNT_MAX = 2**62
EMPTY = -(2**62)


@kernel
def scaled(octets: int, numerator: Any, denominator: Any) -> Any:
    """floor(octets * numerator / denominator), at most 2^62."""
    n, d = np.uint64(numerator), max(np.uint64(denominator), np.uint64(1))
    whole = np.uint64(max(octets, 0)) // d
    rest = np.uint64(max(octets, 0)) - whole * d
    if n > np.uint64(0) and whole > np.uint64(COUNT_MAX) // n:
        return np.int64(COUNT_MAX)
    return np.int64(min(whole * n + (rest * n) // d, np.uint64(COUNT_MAX)))


@kernel
def add(keys: Any, sums: Any, slot: int, octets: int) -> None:
    """Add to the place of a slot; the table has a free place."""
    place = place_of(keys, slot)
    keys[place] = slot
    sums[place] = COUNT_MAX if sums[place] > COUNT_MAX - octets else sums[place] + octets


SUM_HIGH, SUM_LOW, RECEIVED_FIRST, RECEIVED_LAST, START_FIRST, END_LAST = 0, 1, 2, 3, 4, 5
"""Places in the array `extent`: the octets as two halves of a number of 64 and more bits, and the bounds of instants."""


@kernel
def survey(received: Any, start: Any, end: Any, octets: Any, extent: Any) -> None:
    """Widen `extent` by these flows, and add their octets."""
    high = low = np.int64(0)
    received_first, received_last = extent[RECEIVED_FIRST], extent[RECEIVED_LAST]
    start_first, end_last = extent[START_FIRST], extent[END_LAST]
    for i in range(start.size):
        high += octets[i] >> 32
        low += octets[i] & 0xFFFFFFFF
        received_first = min(received_first, received[i])
        received_last = max(received_last, received[i])
        start_first = min(start_first, start[i])
        end_last = max(end_last, end[i])
    extent[SUM_HIGH] += high
    extent[SUM_LOW] += low
    extent[RECEIVED_FIRST], extent[RECEIVED_LAST] = received_first, received_last
    extent[START_FIRST], extent[END_LAST] = start_first, end_last


@kernel
def sum_slots(start: Any, end: Any, octets: Any, numerator: Any, denominator: Any, keys: Any, sums: Any, state: Any) -> int:
    """Go on at flow `state[0]`, slot `state[1]` (EMPTY: its first); FULL when `state[2]` places are more than half.

    Most flows lie in the slot of the one before, whose place is remembered.
    """
    near, near_place = np.int64(EMPTY), 0
    while state[0] < start.size:
        i = state[0]
        if near <= start[i] and start[i] < near + SLOT_MS and end[i] <= near + SLOT_MS and state[1] == EMPTY:
            total = octets[i] if numerator[i] == 1 and denominator[i] == 1 else scaled(octets[i], numerator[i], denominator[i])
            sums[near_place] = COUNT_MAX if sums[near_place] > COUNT_MAX - total else sums[near_place] + total
            state[0] = i + 1
            continue
        total = scaled(octets[i], numerator[i], denominator[i])
        duration = np.uint64(end[i] - start[i])
        slot = start[i] // SLOT_MS * SLOT_MS if state[1] == EMPTY else state[1]
        q = r = np.uint64(0)
        if duration > np.uint64(0):
            q = np.uint64(total) // duration
            r = np.uint64(total) - q * duration
        while True:
            if state[2] * 2 >= keys.size:
                state[1] = slot
                return FULL
            part = total
            if duration > np.uint64(0):
                begin = np.uint64(max(slot - start[i], 0))
                until = np.uint64(min(slot + SLOT_MS, end[i]) - start[i])
                part = np.int64((q * until + r * until // duration) - (q * begin + r * begin // duration))
            state[2] += keys[place_of(keys, slot)] == EMPTY
            add(keys, sums, slot, part)
            slot += SLOT_MS
            if slot >= end[i]:
                break
        state[0] += 1
        state[1] = EMPTY
        near = start[i] // SLOT_MS * SLOT_MS
        near_place = place_of(keys, near)
    return DONE


@kernel
def place_of(keys: Any, slot: int) -> Any:
    """Where the slot is, or would be put."""
    mask = keys.size - 1
    place = (slot // SLOT_MS * np.int64(0x9E3779B1) >> 4) & mask
    while keys[place] != slot and keys[place] != EMPTY:
        place = (place + 1) & mask
    return place


@kernel
def move(keys: Any, sums: Any, bigger_keys: Any, bigger_sums: Any) -> None:
    """Put everything into a larger table."""
    for i in range(keys.size):
        if keys[i] != EMPTY:
            add(bigger_keys, bigger_sums, keys[i], sums[i])
