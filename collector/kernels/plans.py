"""Template definitions → plans: which field of a record is which value, and what its records can become.

A plan is immutable. `scan` compiles it when a definition comes; `rows`, `samples` and `reports` read records by it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import ANY, BY_INSTANT, BY_UPTIME, LAST, PACKET_VERDICT, VARIABLE
from collector.kernels.elements import (
    ADDRESSES,
    ADDRESSES_END,
    DESTINATION4,
    DESTINATION6,
    DESTINATION_PORT,
    DURATION_MS,
    END_MS,
    END_UPTIME,
    FIREWALL_EVENT,
    FIRST_COUNTER,
    FIRST_SECTION,
    INITIALISED,
    INITIATOR_OCTETS,
    LAST_COUNTER,
    LAST_SECTION,
    LAYER2_OCTETS,
    NAT_EVENT,
    NOTED,
    NOTED_END,
    OCTETS,
    OUT_OCTETS,
    OUTSIDE4,
    OUTSIDE6,
    PACKET_INTERVAL,
    POPULATION,
    PORT_FIRST,
    RANDOM_INTERVAL,
    RESPONDER_OCTETS,
    REVERSE_OCTETS,
    SAMPLE_SIZE,
    SAMPLING_INTERVAL,
    SOURCE4,
    SOURCE6,
    SOURCE_PORT,
    START_MS,
    START_UPTIME,
    TCP_DESTINATION_PORT,
    TOTAL_LAYER2,
    TOTAL_OCTETS,
    UDP_SOURCE_PORT,
)
from core.jit import inline_kernel, kernel

MESSAGE_MAX = 32_767  # octets of a record that a datagram can hold whole, and that a place can name


@kernel
def element_of(limits: Any, field: int, v9: bool) -> Any:
    """The row of the registry for a packed field, or -1: unknown, or of a length that the type can't have."""
    key = field >> 16
    length = field & 0xFFFF
    if key & 0x8000 and not v9:
        return -1  # IPFIX with the enterprise number 0, which is reserved
    first = 0
    last = len(limits.keys)
    while first < last:
        middle = (first + last) >> 1
        if limits.keys[middle] < key:
            first = middle + 1
        else:
            last = middle
    if first == len(limits.keys) or limits.keys[first] != key:
        return -1
    return first if limits.element_lengths[first, 0] <= length <= limits.element_lengths[first, 1] else -1


@kernel
def judge(plan: Any, has: Any) -> None:
    """What records of this plan can become (RFC 5103: two directions in one record are two flows)."""
    addressed = (has[SOURCE4] and has[DESTINATION4]) or (has[SOURCE6] and has[DESTINATION6])
    counted = (has[OCTETS] or has[INITIATOR_OCTETS] or has[RESPONDER_OCTETS] or has[OUT_OCTETS] or has[LAYER2_OCTETS])
    plan["verdict"] = 0
    plan["width"] = 0
    if plan["options"] == 0 and addressed:
        if counted:
            plan["verdict"] = 1
            two = has[REVERSE_OCTETS] if has[OCTETS] else has[RESPONDER_OCTETS]
            plan["width"] = 2 if two else 1
        elif has[TOTAL_OCTETS] and has[FIREWALL_EVENT]:
            plan["verdict"] = 1  # counted when the flow is deleted
            plan["width"] = 1
        elif has[TOTAL_OCTETS] or has[TOTAL_LAYER2]:
            plan["verdict"] = 2
    plan["blocks"] = 1 if (plan["options"] == 0 and has[NAT_EVENT] and has[PORT_FIRST]
                           and (has[OUTSIDE4] or has[OUTSIDE6])) else 0
    plan["reports"] = 0
    for slot in range(FIRST_COUNTER, LAST_COUNTER + 1):
        if plan["options"] == 1 and has[slot]:
            plan["reports"] = 1
    for slot in range(FIRST_SECTION, LAST_SECTION + 1):
        if plan["options"] == 0 and plan["verdict"] == 0 and has[slot]:
            plan["verdict"] = PACKET_VERDICT
            plan["width"] = 1
    plan["informs"] = 0
    if (has[INITIALISED] or has[SAMPLING_INTERVAL] or has[RANDOM_INTERVAL] or has[PACKET_INTERVAL]
            or has[SAMPLE_SIZE] or has[POPULATION]):
        plan["informs"] = 1


@kernel
def plain_kind(plan: Any, place: Any, v9: bool) -> Any:
    """Whether each column of a row is one field of the record: BY_UPTIME or BY_INSTANT say by which times, 0 for no."""
    four = place[SOURCE4] >= 0 or place[DESTINATION4] >= 0
    six = place[SOURCE6] >= 0 or place[DESTINATION6] >= 0
    if plan["verdict"] != 1 or plan["width"] != 1 or plan["stride"] == 0 or plan["stride"] > MESSAGE_MAX or four == six:
        return 0
    if place[FIREWALL_EVENT] >= 0 or place[NAT_EVENT] >= 0:
        return 0
    if place[OCTETS] < 0 or not all_absent(place, SAMPLING_INTERVAL, SAMPLE_SIZE) or place[POPULATION] >= 0:
        return 0
    ports = place[SOURCE_PORT] >= 0 and place[DESTINATION_PORT] >= 0
    if not ports and not all_absent(place, UDP_SOURCE_PORT, TCP_DESTINATION_PORT + 1):
        return 0
    for slot in range(1, len(place)):
        if place[slot] >= 0 and not ADDRESSES <= slot < ADDRESSES_END and not usual_length(place[slot] & 0xFFFF):
            return 0
    if place[START_MS] >= 0 and place[END_MS] >= 0:
        return BY_INSTANT if (place[START_MS] & 0xFFFF) == 8 and (place[END_MS] & 0xFFFF) == 8 else 0
    uptimes = place[START_UPTIME] >= 0 and place[END_UPTIME] >= 0
    if v9 and uptimes and all_absent(place, END_UPTIME + 1, DURATION_MS):
        return BY_UPTIME if (place[START_UPTIME] & 0xFFFF) == 4 and (place[END_UPTIME] & 0xFFFF) == 4 else 0
    return 0


@inline_kernel
def all_absent(place: Any, first: int, end: int) -> Any:
    """Whether a plan has no field for the slots from `first` up to `end`."""
    for slot in range(first, end):
        if place[slot] >= 0:
            return False
    return True


@inline_kernel
def usual_length(length: int) -> Any:
    return length == 1 or length == 2 or length == 4 or length == 8


@kernel
def assign(state: Any, limits: Any, index: int) -> None:
    """Say for every field of a plan which value it holds. Of equal elements the first or the last counts, as the registry
    or the exporter's settings say; of different ones for the same value the first."""
    plan = state.plans[index]
    has = state.has[index]
    place = state.places[index]
    has[:] = 0
    place[:] = -1
    v9 = plan["v9"] == 1
    first = plan["first"]
    count = plan["count"]
    for turn in range(2):  # where the first counts, then backwards where the last does
        for k in range(count):
            i = first + (k if turn == 0 else count - 1 - k)
            if turn == 0:
                state.slots[i] = 0
                state.noted[i] = 0
            if v9 and i - first < plan["scope"]:
                continue
            length = state.fields[i] & 0xFFFF
            row = element_of(limits, state.fields[i], v9)
            if row < 0 or (not v9 and length == VARIABLE and limits.element_lengths[row, 1] < VARIABLE):
                continue
            last = plan["repeat"] == LAST or (plan["repeat"] == ANY and limits.element_last[row] == 1)
            slot = limits.element_slots[row]
            if has[slot] or last != (turn == 1):
                continue
            has[slot] = 1
            state.noted[i] = slot
            if slot < NOTED or slot >= NOTED_END:
                state.slots[i] = slot
                place[slot] = (min(state.offsets[i], MESSAGE_MAX) << 16) | (1 if length == VARIABLE and not v9 else length)
    judge(plan, has)
    plan["plain"] = plain_kind(plan, place, v9)


@kernel
def assign_all(state: Any, limits: Any) -> None:
    """The registry or the exporters' settings have changed since the state was saved."""
    for i in range(state.counts[0]["plans"]):
        assign(state, limits, i)


@kernel
def compile_plan(state: Any, limits: Any, count: int, scope: int, options: int, v9: bool, repeat: int) -> Any:
    """Turn the fields written behind the used ones into a plan; returns its index."""
    counts = state.counts[0]
    first = counts["fields"]
    index = counts["plans"]
    plan = state.plans[index]
    plan["options"] = options
    plan["first"] = first
    plan["count"] = count
    plan["scope"] = scope
    plan["v9"] = 1 if v9 else 0
    plan["repeat"] = repeat
    offset = np.int64(0)
    variable = False
    for i in range(first, first + count):
        length = state.fields[i] & 0xFFFF
        if length == VARIABLE and not v9:
            variable = True
            length = 1
        state.offsets[i] = min(offset, 1 << 30)
        offset += length
    plan["minimum"] = offset
    plan["stride"] = 0 if variable else offset
    assign(state, limits, index)
    counts["plans"] = index + 1
    counts["fields"] = first + count
    return index
