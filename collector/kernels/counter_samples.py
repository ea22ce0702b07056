"""Counter samples of sFlow v5 → readings of interface counters."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.jit import kernel, load_be32, load_be64

INTERFACE_COUNTERS, INTERFACE_COUNTERS_SIZE = 1, 64  # octets up to and with ifHCOutOctets; the whole record has 88
UNKNOWN_COUNT = 0xFFFFFFFFFFFFFFFF


@kernel
def read_counters(data: Any, at: int, stop: int, expanded: bool, job: Any, readings: Any, used: int, left_out: Any) -> Any:
    """The generic interface counters of one counter sample; (readings in use, whether all of its records are whole)."""
    size = 16 if expanded else 12
    if stop - at < size:
        return used, False
    count = load_be32(data, at + size - 4)
    at += size
    seen = np.int64(0)
    while seen < count:
        if stop - at < 8:
            return used, False
        kind = load_be32(data, at)
        length = load_be32(data, at + 4)
        at += 8
        if length > stop - at:
            return used, False
        if kind == INTERFACE_COUNTERS:
            if length < INTERFACE_COUNTERS_SIZE:
                return used, False
            octets_in = np.uint64(load_be64(data, at + 24))
            octets_out = np.uint64(load_be64(data, at + 56))
            if octets_in == UNKNOWN_COUNT or octets_out == UNKNOWN_COUNT:
                pass  # the agent does not count
            elif used < len(readings):
                readings[used]["domain"] = job["domain"]
                readings[used]["interface"] = load_be32(data, at)
                readings[used]["received"] = job["received"]
                readings[used]["in_octets"] = octets_in
                readings[used]["out_octets"] = octets_out
                used += 1
            else:
                left_out[0] += 1
        at = min(at + ((length + 3) & ~3), stop)
        seen += 1
    return used, True


@kernel
def decode_counters(data: Any, sets: Any, count: int, readings: Any, faults: Any, kinds: Any, left_out: Any) -> Any:
    """Interface counters of the sFlow sets of sets[:count] → readings; returns how many.

    Beyond the room of `readings` each is a fault. left_out: one word.
    """
    used = np.int64(0)
    for s in range(count):
        job = sets[s]
        if not job["sflow"] or job["counters"] == 0:
            continue
        at = job["start"]
        stop = job["stop"]
        left = job["counters"]
        left_out[0] = 0
        while left > 0 and stop - at >= 8:
            kind = load_be32(data, at)
            length = min(load_be32(data, at + 4), stop - at - 8)
            if kind == 2 or kind == 4:
                used, whole = read_counters(data, at + 8, at + 8 + length, kind == 4, job, readings, used, left_out)
                if not whole and length == load_be32(data, at + 4):  # one that is cut off has been counted as such
                    faults[job["intake"], kinds[0]["record_overrun"]] += 1
                left -= 1
            at = min(at + 8 + ((length + 3) & ~3), stop)
        faults[job["intake"], kinds[0]["counters_full"]] += left_out[0]
    return used
