"""What exporters report besides flows: port blocks of a NAT (RFC 8158), and counts of their own losses.

Both go over sets that the scan has resolved, in the order in which it met them. Port blocks are a pure function of a set
and its plan; the counts of loss reports are kept in the state, because only their growth means anything.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import INSTANT_MAX, VARIABLE
from collector.kernels.elements import (
    EXPORTED_MESSAGES,
    EXPORTED_OCTETS,
    EXPORTED_RECORDS,
    IGNORED_OCTETS,
    IGNORED_PACKETS,
    NAT_EVENT,
    NOT_SENT_FLOWS,
    NOT_SENT_PACKETS,
    OBSERVED_MS,
    OBSERVED_S,
    OUTSIDE4,
    OUTSIDE6,
    PORT_COUNT,
    PORT_FIRST,
    PORT_LAST,
    PORT_STEP,
    PROTOCOL,
    SOURCE4,
    SOURCE6,
)
from collector.kernels.fields import load_unsigned
from core.jit import inline_kernel, kernel

COUNTERS = 8  # EXPORTED_OCTETS and what follows it
ALLOCATED, FREED = 1, 2  # events of a port block
COUNT_MAX = 1 << 62
SCOPES_MAX = 64  # scopes of one domain whose counts are told apart


@inline_kernel
def load_word(data: Any, at: int) -> Any:
    """Eight octets as they lie in memory (little endian)."""
    value = np.uint64(0)
    for k in range(8):
        value |= np.uint64(data[at + k]) << np.uint64(8 * k)
    return value


@inline_kernel
def mixed(value: Any) -> Any:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@inline_kernel
def mapped(data: Any, at: int) -> Any:
    """The second word of ::ffff:a.b.c.d."""
    value = np.uint64(0)
    for k in range(4):
        value |= np.uint64(data[at + k]) << np.uint64(32 + 8 * k)
    return value | np.uint64(0xFFFF0000)


@kernel
def read_record(data: Any, at: int, plan: Any, state: Any, found: Any, words: Any) -> Any:
    """One record: numbers to `found` by slot, addresses to `words`; returns the offset behind it and a hash of its scope.
    The scan has checked the bounds."""
    found[:] = 0
    words[:] = 0
    scope = np.uint64(0)
    first = plan["first"]
    for i in range(first, first + plan["count"]):
        length = state.fields[i] & 0xFFFF
        if length == VARIABLE and plan["stride"] == 0:
            length = np.int64(data[at])
            at += 1
            if length == 255:
                length = load_unsigned(data, at, 2)
                at += 2
        if i - first < plan["scope"]:
            scope = mixed(scope ^ np.uint64(length))
            for k in range(length):
                scope = (scope ^ np.uint64(data[at + k])) * np.uint64(0x100000001B3)
        slot = np.int64(state.noted[i])
        if slot in (SOURCE4, OUTSIDE4):
            side = 0 if slot == SOURCE4 else 2
            if load_unsigned(data, at, 4) != 0 and words[side] == 0 and words[side + 1] == 0:
                words[side + 1] = mapped(data, at)
        elif slot in (SOURCE6, OUTSIDE6):
            side = 0 if slot == SOURCE6 else 2
            if load_word(data, at) | load_word(data, at + 8):  # DS-Lite: the IPv6 address is the subscriber's
                words[side] = load_word(data, at)
                words[side + 1] = load_word(data, at + 8)
        elif slot > 0 and length <= 8:
            found[slot] = load_unsigned(data, at, length)
        at += length
    return at, scope


# Port blocks ----------------------------------------------------------------------------------------------------------
@inline_kernel
def block_event(code: int) -> Any:
    """IE 230 of a record with a port range: RFC 8158 has 16 and 17, Junos keeps draft-ietf-behave-ipfix-nat-logging-02
    with 14 and 15, Cisco and Junos in NetFlow v9 write 1 and 2."""
    if code in (16, 14, 1):
        return ALLOCATED
    if code in (17, 15, 2):
        return FREED
    return 0


@inline_kernel
def event_instant(found: Any, job: Any, skew_ms: int) -> Any:
    """When the event was, after the clock rule of flows."""
    instant = job["exported"]
    if 0 < found[OBSERVED_MS] < INSTANT_MAX:
        instant = found[OBSERVED_MS]
    elif 0 < found[OBSERVED_S] < INSTANT_MAX // 1000:
        instant = found[OBSERVED_S] * 1000
    off = job["received"] - job["exported"]
    return instant + off if skew_ms > 0 and abs(off) > skew_ms else instant


@kernel
def collect_blocks(data: Any, sets: Any, count: int, state: Any, skew_ms: int, out: Any, used: int, faults: Any,
                   kinds: Any, found: Any, words: Any) -> Any:
    """Append the port blocks of sets[:count] to `out`; returns how many it holds. What it has no room for is a fault."""
    for s in range(count):
        job = sets[s]
        if job["sflow"] or not state.plans[job["plan"]]["blocks"]:
            continue
        plan = state.plans[job["plan"]]
        owner = state.domains[job["domain"]]
        at = job["start"]
        for _ in range(job["records"]):
            at, _scope = read_record(data, at, plan, state, found, words)
            event = block_event(found[NAT_EVENT])
            if event == 0 or (words[2] == 0 and words[3] == 0):
                continue
            if used == len(out):
                faults[job["intake"], kinds[0]["port_blocks_full"]] += 1
                continue
            row = out[used]
            used += 1
            row["high"], row["low"] = owner["high"], owner["low"]
            row["domain"] = owner["domain"]
            row["received"] = job["received"]
            row["at"] = event_instant(found, job, skew_ms)
            row["event"] = event
            row["inside_high"], row["inside_low"] = words[0], words[1]
            row["outside_high"], row["outside_low"] = words[2], words[3]
            step = max(found[PORT_STEP], 1)
            last = found[PORT_LAST]
            if last == 0 and found[PORT_COUNT] > 0:
                last = found[PORT_FIRST] + (found[PORT_COUNT] - 1) * step
            row["port_first"] = found[PORT_FIRST]
            row["port_last"] = last
            row["port_step"] = step
            row["protocol"] = found[PROTOCOL]
    return used


# Loss reports ---------------------------------------------------------------------------------------------------------
@kernel
def open_report(state: Any, limits: Any, domain: int, scope: Any) -> Any:
    """The row of a scope of a domain, made if need be; -1 when there is no room."""
    owner = state.domains[domain]
    index = owner["report"] - 1
    length = 0
    while index >= 0:
        if state.reports[index]["scope"] == scope:
            return index
        index = state.reports[index]["next"] - 1
        length += 1
    index = state.counts[0]["reports"]
    if length >= SCOPES_MAX or index >= len(state.reports) or index >= limits.reports:
        return -1
    state.counts[0]["reports"] = index + 1
    row = state.reports[index]
    row["domain"] = domain
    row["scope"] = scope
    row["next"] = owner["report"]
    row["told"] = -INSTANT_MAX
    owner["report"] = index + 1
    for k in range(COUNTERS):
        state.readings[index, k] = -1
    return index


@inline_kernel
def growth(value: int, before: int, told: int, exported: int) -> Any:
    """(how much a counter has grown, its newest reading): less than before in a later message is a new beginning, in an
    earlier one it came late."""
    if before < 0:
        return np.int64(0), value
    if value >= before:
        return value - before, value
    if exported > told:
        return value, value
    return np.int64(0), before


@kernel
def add_growth(owner: Any, counter: int, more: int) -> None:
    """Add to one of a domain's counters, by its number."""
    if counter == EXPORTED_OCTETS:
        owner["exported_octets"] = min(owner["exported_octets"] + more, COUNT_MAX)
    elif counter == EXPORTED_MESSAGES:
        owner["exported_messages"] = min(owner["exported_messages"] + more, COUNT_MAX)
    elif counter == EXPORTED_RECORDS:
        owner["exported_records"] = min(owner["exported_records"] + more, COUNT_MAX)
    elif counter == IGNORED_PACKETS:
        owner["ignored_packets"] = min(owner["ignored_packets"] + more, COUNT_MAX)
    elif counter == IGNORED_OCTETS:
        owner["ignored_octets"] = min(owner["ignored_octets"] + more, COUNT_MAX)
    elif counter == NOT_SENT_FLOWS:
        owner["not_sent_flows"] = min(owner["not_sent_flows"] + more, COUNT_MAX)
    elif counter == NOT_SENT_PACKETS:
        owner["not_sent_packets"] = min(owner["not_sent_packets"] + more, COUNT_MAX)
    else:
        owner["not_sent_octets"] = min(owner["not_sent_octets"] + more, COUNT_MAX)


@kernel
def take_reports(data: Any, sets: Any, count: int, state: Any, limits: Any, faults: Any, kinds: Any, found: Any,
                 words: Any) -> None:
    """Counters of options records (IE 40-42, 164-168) → growth since the first reading, by domain."""
    for s in range(count):
        job = sets[s]
        if job["sflow"] or not state.plans[job["plan"]]["reports"]:
            continue
        plan = state.plans[job["plan"]]
        has = state.has[job["plan"]]
        at = job["start"]
        for _ in range(job["records"]):
            at, scope = read_record(data, at, plan, state, found, words)
            index = open_report(state, limits, job["domain"], scope)
            if index < 0:
                faults[job["intake"], kinds[0]["reports_full"]] += 1
                continue
            told = state.reports[index]["told"]
            for k in range(COUNTERS):
                value = found[EXPORTED_OCTETS + k]
                if has[EXPORTED_OCTETS + k] == 0 or value < 0 or value > COUNT_MAX:
                    continue
                more, newest = growth(value, state.readings[index, k], told, job["exported"])
                state.readings[index, k] = newest
                add_growth(state.domains[job["domain"]], EXPORTED_OCTETS + k, more)
            state.reports[index]["told"] = max(told, job["exported"])
