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
    mask = keys.size - 1
    place = (slot // SLOT_MS * np.int64(0x9E3779B1) >> 4) & mask
    while keys[place] != slot and keys[place] != EMPTY:
        place = (place + 1) & mask
    keys[place] = slot
    sums[place] = COUNT_MAX if sums[place] > COUNT_MAX - octets else sums[place] + octets


@kernel
def sum_slots(start: Any, end: Any, octets: Any, numerator: Any, denominator: Any, keys: Any, sums: Any, state: Any) -> int:
    """Go on at flow `state[0]`, slot `state[1]` (EMPTY: its first); FULL when `state[2]` places are more than half."""
    while state[0] < start.size:
        i = state[0]
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
            place_used = count_new(keys, slot)
            add(keys, sums, slot, part)
            state[2] += place_used
            slot += SLOT_MS
            if slot >= end[i]:
                break
        state[0] += 1
        state[1] = EMPTY
    return DONE


@kernel
def count_new(keys: Any, slot: int) -> int:
    """1 if the slot is not in the table yet."""
    mask = keys.size - 1
    place = (slot // SLOT_MS * np.int64(0x9E3779B1) >> 4) & mask
    while keys[place] != EMPTY:
        if keys[place] == slot:
            return 0
        place = (place + 1) & mask
    return 1


@kernel
def move(keys: Any, sums: Any, bigger_keys: Any, bigger_sums: Any) -> None:
    """Put everything into a larger table."""
    for i in range(keys.size):
        if keys[i] != EMPTY:
            add(bigger_keys, bigger_sums, keys[i], sums[i])
