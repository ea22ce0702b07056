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
PIECE = 128
RECENT = 1024
"""Rows of interfaces that are found again without a look into the hash table."""


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
def count_flow(out: Any, recent: Any, key: int, slot: int, side: int, octets: int, octets_raw: int, packets: int, sampled: int,
               duration: int) -> None:
    """Add a flow to the row of an interface. `recent` remembers where the last ones of its kind went."""
    place = (key >> 1) & (RECENT - 1)
    index = recent[place]
    seen = out.interfaces[index]
    if seen["key"] != key or seen["slot"] != slot or index < 2:
        index = interface_of(key, slot, side, out)
        recent[place] = index
        seen = out.interfaces[index]
    seen["octets"] = total(seen["octets"], octets)
    seen["octets_raw"] = total(seen["octets_raw"], octets_raw)
    seen["packets"] = total(seen["packets"], packets)
    seen["samples"] = total(seen["samples"], sampled)
    seen["flows"] += 1
    seen["longest"] = max(seen["longest"], duration)


@inline_kernel
def is_like(flows: Any, i: int, first: int) -> Any:
    return (flows.exporter[i, 0] == flows.exporter[first, 0] and flows.exporter[i, 1] == flows.exporter[first, 1]
            and flows.domain[i] == flows.domain[first] and flows.export_protocol[i] == flows.export_protocol[first]
            and flows.rate_numerator[i] == flows.rate_numerator[first]
            and flows.rate_denominator[i] == flows.rate_denominator[first]
            and flows.rate_source[i] == flows.rate_source[first] and flows.flags[i] == flows.flags[first])


@kernel
def stretch(flows: Any, first: int) -> int:
    """Up to where flows are of one exporter, one sampling rate and one set of flags. What goes on is compared in pieces, as
    vectors."""
    high, low, domain = flows.exporter[first, 0], flows.exporter[first, 1], flows.domain[first]
    protocol, source, flags = flows.export_protocol[first], flows.rate_source[first], flows.flags[first]
    numerator, denominator = flows.rate_numerator[first], flows.rate_denominator[first]
    at = first + 1
    tried = min(first + PIECE // 4, flows.start.size)
    while at < tried:
        if not is_like(flows, at, first):
            return at
        at += 1
    while at < flows.start.size:
        stop = min(at + PIECE, flows.start.size)
        differs = False
        for i in range(at, stop):
            differs |= (flows.exporter[i, 0] != high) | (flows.exporter[i, 1] != low)
        for i in range(at, stop):
            differs |= (flows.domain[i] != domain) | (flows.rate_numerator[i] != numerator)
        for i in range(at, stop):
            differs |= (flows.rate_denominator[i] != denominator) | (flows.flags[i] != flags)
        for i in range(at, stop):
            differs |= (flows.export_protocol[i] != protocol) | (flows.rate_source[i] != source)
        if differs:
            break
        at = stop
    while at < flows.start.size and is_like(flows, at, first):
        at += 1
    return at


@kernel
def read_flows(flows: Any, out: Any, recent: Any) -> None:
    """Add every flow to the rows of its exporter, of its sampling rate and of its two interfaces."""
    first = 0
    slot = np.int64(0)
    while first < flows.start.size:
        stop = stretch(flows, first)
        count = stop - first
        owner = owner_of(flows, first, out)
        out.rates[rate_of(flows, first, owner, out)]["flows"] += count
        row = out.owners[owner]
        row["flows"] += count
        row["clock_moved"] += count if flows.flags[first] & CLOCK_MOVED else 0
        row["quarantined"] += count if flows.flags[first] & QUARANTINED else 0
        numerator, denominator = flows.rate_numerator[first], flows.rate_denominator[first]
        is_sampled = numerator != denominator
        longest = np.int64(0)
        for i in range(first, stop):
            end = flows.end[i]
            duration = end - flows.start[i]
            longest = max(longest, duration)
            if not slot <= end < slot + SLOT_MS:
                slot = end - end % SLOT_MS
            octets_raw, packets_raw = np.int64(max(flows.octets[i], 0)), np.int64(max(flows.packets[i], 0))
            octets, packets, sampled = octets_raw, packets_raw, np.int64(0)
            if is_sampled:
                octets = scaled(octets_raw, numerator, denominator)
                packets = scaled(packets_raw, numerator, denominator)
                sampled = packets_raw
            elif octets > COUNT_MAX or packets > COUNT_MAX:
                octets, packets = min(octets, np.int64(COUNT_MAX)), min(packets, np.int64(COUNT_MAX))
            common = (owner << 35) | (np.int64(min(flows.flow_direction[i], 2)) << 1)
            key = common | (np.int64(flows.input_interface[i]) << 3)
            count_flow(out, recent[IN], key | IN, slot, IN, octets, octets_raw, packets, sampled, duration)
            key = common | (np.int64(flows.output_interface[i]) << 3)
            count_flow(out, recent[OUT], key | OUT, slot, OUT, octets, octets_raw, packets, sampled, duration)
        row["longest"] = max(row["longest"], longest)
        first = stop
