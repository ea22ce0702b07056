"""Octets and packets of records, and which records are flows at all."""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import (
    ALERTED,
    COUNT_MAX,
    CREATED,
    DELETED,
    DENIED,
    LAYER2,
    NO_FLOW,
    UPDATED,
    W_BACK,
    W_BACK_PACKETS,
    W_FAULT,
    W_FLAGS,
    W_OCTETS,
    W_PACKETS,
)
from collector.kernels.elements import (
    CUSTOMER_VLAN,
    FIREWALL_EVENT,
    INITIATOR_OCTETS,
    INITIATOR_PACKETS,
    LAYER2_OCTETS,
    LINK_HEADER,
    NAT_EVENT,
    OCTETS,
    OUT_OCTETS,
    OUT_PACKETS,
    PACKETS,
    RESPONDER_OCTETS,
    RESPONDER_PACKETS,
    REVERSE_OCTETS,
    REVERSE_PACKETS,
    TOTAL_OCTETS,
    TOTAL_PACKETS,
    VLAN,
)
from core.jit import inline_kernel, kernel


@inline_kernel
def counts_of(values: Any, r: int, has: Any) -> Any:
    """(octets, packets, octets and packets of the other direction, flags)."""
    flags = np.int64(0)
    zero = np.int64(0)
    packets = values[PACKETS, r] if has[PACKETS] else zero
    if has[OCTETS]:
        back = values[REVERSE_OCTETS, r] if has[REVERSE_OCTETS] else zero
        back_packets = values[REVERSE_PACKETS, r] if has[REVERSE_PACKETS] else zero
        return values[OCTETS, r], packets, back, back_packets, flags
    if has[INITIATOR_OCTETS] or has[RESPONDER_OCTETS]:
        octets = values[INITIATOR_OCTETS, r] if has[INITIATOR_OCTETS] else zero
        if has[INITIATOR_PACKETS]:
            packets = values[INITIATOR_PACKETS, r]
        back = values[RESPONDER_OCTETS, r] if has[RESPONDER_OCTETS] else zero
        back_packets = values[RESPONDER_PACKETS, r] if has[RESPONDER_PACKETS] else zero
        return octets, packets, back, back_packets, flags
    if has[OUT_OCTETS]:
        if has[OUT_PACKETS]:
            packets = values[OUT_PACKETS, r]
        return values[OUT_OCTETS, r], packets, zero, zero, flags
    if has[TOTAL_OCTETS] and not has[LAYER2_OCTETS]:  # of a flow that a firewall has deleted: nothing was told before
        if has[TOTAL_PACKETS]:
            packets = values[TOTAL_PACKETS, r]
        return values[TOTAL_OCTETS, r], packets, zero, zero, flags
    header = np.int64(14)
    if has[LINK_HEADER] and values[LINK_HEADER, r] > 0:
        header = values[LINK_HEADER, r]
    else:
        if has[VLAN] and values[VLAN, r] > 0:
            header += 4
        if has[CUSTOMER_VLAN] and values[CUSTOMER_VLAN, r] > 0:
            header += 4
    octets = values[LAYER2_OCTETS, r]
    if 0 <= octets < COUNT_MAX and 0 <= packets < COUNT_MAX and 0 <= header < 65536:
        octets = max(octets - max(packets, 1) * header, 0)
    return octets, packets, zero, zero, flags | LAYER2


@inline_kernel
def only_total(has: Any) -> Any:
    """Whether a record's octets are a running total."""
    return has[TOTAL_OCTETS] and not (has[OCTETS] or has[INITIATOR_OCTETS] or has[RESPONDER_OCTETS] or has[OUT_OCTETS]
                                      or has[LAYER2_OCTETS])


@kernel
def judge_events(values: Any, count: int, has: Any, kinds: Any, work: Any) -> None:
    """Which records of a firewall or a NAT (RFC 8158) are flows: denied traffic did not pass, and an event that tells
    neither octets nor packets is no flow. Octets are what came since the last event, so each is counted once; a running
    total is one such figure only when the flow is deleted."""
    total = only_total(has)
    for r in range(count):
        nothing = (work[W_OCTETS, r] == 0 and work[W_PACKETS, r] == 0 and work[W_BACK, r] == 0
                   and work[W_BACK_PACKETS, r] == 0)
        event = values[FIREWALL_EVENT, r] if has[FIREWALL_EVENT] else np.int64(0)
        if event == DENIED or (nothing and (has[NAT_EVENT] or event in (CREATED, ALERTED))):
            work[W_FAULT, r] = NO_FLOW
        elif total and event != DELETED:
            work[W_FAULT, r] = kinds["cumulative_counter"] if event == UPDATED or event == 0 else NO_FLOW


@kernel
def measure(values: Any, count: int, has: Any, kinds: Any, work: Any) -> None:
    """Octets and packets."""
    for r in range(count):
        octets, packets, back, back_packets, flags = counts_of(values, r, has)
        work[W_OCTETS, r] = octets
        work[W_PACKETS, r] = packets
        work[W_BACK, r] = back
        work[W_BACK_PACKETS, r] = back_packets
        work[W_FLAGS, r] = flags
        good = (0 <= octets < COUNT_MAX and 0 <= packets < COUNT_MAX and 0 <= back < COUNT_MAX
                and 0 <= back_packets < COUNT_MAX)
        work[W_FAULT, r] = 0 if good else kinds["count_too_large"]


@kernel
def leave_unmeasured(count: int, work: Any) -> None:
    """Records that carry a packet: its headers say octets and packets, later."""
    for r in range(count):
        work[W_OCTETS, r] = 0
        work[W_PACKETS, r] = 0
        work[W_BACK, r] = 0
        work[W_BACK_PACKETS, r] = 0
        work[W_FLAGS, r] = 0
        work[W_FAULT, r] = 0
