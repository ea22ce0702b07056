"""One pass over the flows of a segment: what they say about their exporters, their sampling rates and their interfaces.

Each table has a fixed number of rows; what finds no room is added to a rest row (row 0; of the interfaces row 0 for `in`
and row 1 for `out`). Hash tables hold a row's number plus 1, 0 is free, and have at least twice the rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from core.jit import inline_kernel, kernel

SLOT_MS = 900_000
COUNT_MAX = 2**62
CLOCK_MOVED, QUARANTINED = 1, 8
IN, OUT = 0, 1
OWNERS, RATES, INTERFACES = 0, 1, 2
"""Places of `used`."""
OCTETS, OCTETS_RAW, PACKETS, SAMPLES, FLOWS, LONGEST, SUMS = range(7)
"""Places of a row of `sums`."""


@inline_kernel
def mixed(value: Any) -> Any:
    """Spread the bits of a word over all of it (the finaliser of splitmix64)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@inline_kernel
def scaled(count: Any, numerator: Any, denominator: Any) -> Any:
    """floor(count * numerator / denominator), at most 2^62."""
    if numerator == denominator:
        return np.int64(min(max(count, 0), COUNT_MAX))
    n, d = np.uint64(numerator), max(np.uint64(denominator), np.uint64(1))
    whole = np.uint64(max(count, 0)) // d
    rest = np.uint64(max(count, 0)) - whole * d
    if n > np.uint64(0) and whole > np.uint64(COUNT_MAX) // n:
        return np.int64(COUNT_MAX)
    return np.int64(min(whole * n + (rest * n) // d, np.uint64(COUNT_MAX)))


@inline_kernel
def total(first: Any, second: Any) -> Any:
    """Their sum, at most 2^62."""
    return np.int64(COUNT_MAX) if first > COUNT_MAX - second else first + second


@kernel
def owner_of(flows: Any, i: int, out: Any) -> Any:
    """The row of a flow's exporter, domain and protocol, made if need be."""
    high, low = flows.exporter[i, 0], flows.exporter[i, 1]
    domain, protocol = np.int64(flows.domain[i]), np.int64(flows.export_protocol[i])
    mask = len(out.owner_table) - 1
    key = mixed(high ^ mixed(low ^ mixed(np.uint64(domain) * np.uint64(256) + np.uint64(protocol))))
    at = np.int64(key & np.uint64(mask))
    while out.owner_table[at]:
        row = out.owners[out.owner_table[at] - 1]
        if row["high"] == high and row["low"] == low and row["domain"] == domain and row["protocol"] == protocol:
            return np.int64(out.owner_table[at] - 1)
        at = (at + 1) & mask
    index = out.used[OWNERS]
    if index == len(out.owners):
        return np.int64(0)
    out.used[OWNERS] += 1
    out.owner_table[at] = index + 1
    row = out.owners[index]
    row["high"] = high
    row["low"] = low
    row["domain"] = domain
    row["protocol"] = protocol
    return np.int64(index)


@kernel
def rate_of(flows: Any, i: int, owner: int, out: Any) -> Any:
    """The row of a flow's sampling rate, made if need be."""
    numerator, denominator = np.int64(flows.rate_numerator[i]), np.int64(flows.rate_denominator[i])
    source = np.int64(flows.rate_source[i])
    mask = len(out.rate_table) - 1
    key = mixed(np.uint64(numerator) ^ mixed(np.uint64(denominator) ^ mixed(np.uint64(owner * 256 + source))))
    at = np.int64(key & np.uint64(mask))
    while out.rate_table[at]:
        row = out.rates[out.rate_table[at] - 1]
        if (row["owner"] == owner and row["numerator"] == numerator and row["denominator"] == denominator
                and row["source"] == source):
            return np.int64(out.rate_table[at] - 1)
        at = (at + 1) & mask
    index = out.used[RATES]
    if index == len(out.rates):
        return np.int64(0)
    out.used[RATES] += 1
    out.rate_table[at] = index + 1
    row = out.rates[index]
    row["owner"] = owner
    row["numerator"] = numerator
    row["denominator"] = denominator
    row["source"] = source
    return np.int64(index)


@inline_kernel
def interface_of(key: int, slot: int, side: int, out: Any) -> Any:
    """The row of an interface, made if need be; `key` is packed by `read_flows`, `slot` a quarter hour in ms."""
    mask = len(out.interface_table) - 1
    word = (np.uint64(key) ^ (np.uint64(slot) << np.uint64(13))) * np.uint64(0x9E3779B97F4A7C15)
    at = np.int64((word >> np.uint64(32)) & np.uint64(mask))
    while out.interface_table[at]:
        index = out.interface_table[at] - 1
        if out.interfaces[index]["key"] == key and out.interfaces[index]["slot"] == slot:
            return np.int64(index)
        at = (at + 1) & mask
    index = out.used[INTERFACES]
    if index == len(out.interfaces):
        rest = out.interfaces[side]
        rest["slot"] = slot if rest["flows"] == 0 else max(rest["slot"], slot)
        return np.int64(side)
    out.used[INTERFACES] += 1
    out.interface_table[at] = index + 1
    out.interfaces[index]["key"] = key
    out.interfaces[index]["slot"] = slot
    return np.int64(index)


@inline_kernel
def add_sums(out: Any, index: int, sums: Any, side: int) -> None:
    """Add what has gathered for an interface to its row, and begin anew."""
    if sums[side, FLOWS] > 0:
        seen = out.interfaces[index]
        seen["octets"] = total(seen["octets"], sums[side, OCTETS])
        seen["octets_raw"] = total(seen["octets_raw"], sums[side, OCTETS_RAW])
        seen["packets"] = total(seen["packets"], sums[side, PACKETS])
        seen["samples"] = total(seen["samples"], sums[side, SAMPLES])
        seen["flows"] += sums[side, FLOWS]
        seen["longest"] = max(seen["longest"], sums[side, LONGEST])
        for k in range(SUMS):
            sums[side, k] = 0


@kernel
def read_flows(flows: Any, out: Any, sums: Any) -> None:
    """Add every flow to the rows of its exporter, of its sampling rate and of its two interfaces.

    What follows one another is often of one interface: it gathers in `sums` first.
    """
    owner = rate = np.int64(0)
    slot = np.int64(0)
    into = outof = np.int64(0)
    into_key = outof_key = into_slot = outof_slot = np.int64(-1)
    for i in range(flows.start.size):
        known = i > 0
        if not (known and flows.exporter[i, 0] == flows.exporter[i - 1, 0] and flows.exporter[i, 1] == flows.exporter[i - 1, 1]
                and flows.domain[i] == flows.domain[i - 1] and flows.export_protocol[i] == flows.export_protocol[i - 1]):
            owner = owner_of(flows, i, out)
            known = False
        if not (known and flows.rate_numerator[i] == flows.rate_numerator[i - 1]
                and flows.rate_denominator[i] == flows.rate_denominator[i - 1]
                and flows.rate_source[i] == flows.rate_source[i - 1]):
            rate = rate_of(flows, i, owner, out)
        out.rates[rate]["flows"] += 1
        end = flows.end[i]
        duration = end - flows.start[i]
        row = out.owners[owner]
        row["flows"] += 1
        row["longest"] = max(row["longest"], duration)
        if flows.flags[i] & (CLOCK_MOVED | QUARANTINED):
            row["clock_moved"] += (flows.flags[i] & CLOCK_MOVED) != 0
            row["quarantined"] += (flows.flags[i] & QUARANTINED) != 0
        if not slot <= end < slot + SLOT_MS:
            slot = end - end % SLOT_MS
        observed = np.int64(min(flows.flow_direction[i], 2))
        common = (owner << 35) | (observed << 1)
        key = common | (np.int64(flows.input_interface[i]) << 3) | IN
        if key != into_key or slot != into_slot:
            add_sums(out, into, sums, IN)
            into, into_key, into_slot = interface_of(key, slot, IN, out), key, slot
        key = common | (np.int64(flows.output_interface[i]) << 3) | OUT
        if key != outof_key or slot != outof_slot:
            add_sums(out, outof, sums, OUT)
            outof, outof_key, outof_slot = interface_of(key, slot, OUT, out), key, slot
        octets = scaled(flows.octets[i], flows.rate_numerator[i], flows.rate_denominator[i])
        packets = scaled(flows.packets[i], flows.rate_numerator[i], flows.rate_denominator[i])
        octets_raw, packets_raw = np.int64(max(flows.octets[i], 0)), np.int64(max(flows.packets[i], 0))
        sampled = packets_raw if flows.rate_numerator[i] != flows.rate_denominator[i] else np.int64(0)
        for side in range(2):
            sums[side, OCTETS] = total(sums[side, OCTETS], octets)
            sums[side, OCTETS_RAW] = total(sums[side, OCTETS_RAW], octets_raw)
            sums[side, PACKETS] = total(sums[side, PACKETS], packets)
            sums[side, SAMPLES] = total(sums[side, SAMPLES], sampled)
            sums[side, FLOWS] += 1
            sums[side, LONGEST] = max(sums[side, LONGEST], duration)
    add_sums(out, into, sums, IN)
    add_sums(out, outof, sums, OUT)
