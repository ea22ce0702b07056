"""Records of NetFlow v9 and IPFIX with a section of a frame or packet (IE 315, 313, 317, 316 and Cisco's 104): the packet's
own headers say whose traffic it was.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import COUNT_MAX, FAULTED, FLOW, FRAME_OCTETS, NOT_A_FLOW, PACKET_VERDICT, VARIABLE, WORD
from collector.kernels.elements import (
    FRAME_SECTION,
    FRAME_SIZE,
    FRAME_TYPE,
    IP_SECTION,
    MPLS_PAYLOAD_SECTION,
    MPLS_STACK_SECTION,
    SECTION_OCTETS,
    SECTION_OFFSET,
)
from collector.kernels.elements import LAYER2_OCTETS as OWN_LAYER2
from collector.kernels.elements import OCTETS as OWN_OCTETS
from collector.kernels.elements import PACKETS as OWN_PACKETS
from collector.kernels.fields import load_unsigned
from collector.kernels.packets import (
    ADDRESSED,
    ETHERNET,
    FLAGS,
    HEADERS,
    IPV4,
    IPV6,
    MPLS,
    MPLS_PAYLOAD,
    NOTHING,
    OCTETS,
    WIFI,
    read_packet,
    write_packet,
)
from core.jit import inline_kernel, kernel, load_be16

FRAME_ETHERNET, FRAME_WIFI = 1, 2  # IE 408
# What is found of a record with a packet
R_OCTETS, R_PACKETS, R_LAYER2, R_SIZE, R_TYPE, R_OFFSET, R_HELD, R_SECTION, R_START, R_LENGTH = (
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31)


@kernel
def keep_field(data: Any, at: int, length: int, slot: int, found: Any) -> None:
    """What matters of one field of a record with a packet."""
    if slot >= FRAME_SECTION:
        if found[R_SECTION] == 0 or slot < found[R_SECTION]:
            found[R_SECTION] = slot
            found[R_START] = at
            found[R_LENGTH] = length
    elif slot == OWN_OCTETS:
        found[R_OCTETS] = load_unsigned(data, at, length)
    elif slot == OWN_PACKETS:
        found[R_PACKETS] = load_unsigned(data, at, length)
    elif slot == OWN_LAYER2:
        found[R_LAYER2] = load_unsigned(data, at, length)
    elif slot == FRAME_SIZE:
        found[R_SIZE] = load_unsigned(data, at, length)
    elif slot == FRAME_TYPE:
        found[R_TYPE] = load_unsigned(data, at, length)
    elif slot == SECTION_OFFSET:
        found[R_OFFSET] = load_unsigned(data, at, length)
    elif slot == SECTION_OCTETS:
        found[R_HELD] = load_unsigned(data, at, length)


@kernel
def read_fields(data: Any, at: int, plan: Any, state: Any, found: Any) -> Any:
    """The fields of one record, whose bounds the scan has checked; returns the offset behind it."""
    found[:] = 0
    found[R_TYPE] = FRAME_ETHERNET
    for i in range(plan["first"], plan["first"] + plan["count"]):
        length = state.fields[i] & 0xFFFF
        if plan["stride"] == 0 and length == VARIABLE:
            length = np.int64(data[at])
            at += 1
            if length == 255:
                length = load_be16(data, at)
                at += 2
        if state.slots[i] > 0:
            keep_field(data, at, length, state.slots[i], found)
        at += length
    return at


@inline_kernel
def section_kind(first: int, found: Any) -> Any:
    """What the section begins with; one that begins later in the packet can't be told. `first` is its first octet."""
    section = found[R_SECTION]
    if found[R_OFFSET] != 0:
        return np.int64(NOTHING)
    if section == MPLS_STACK_SECTION:
        return np.int64(MPLS)
    if section == MPLS_PAYLOAD_SECTION:
        return np.int64(MPLS_PAYLOAD)
    if section == IP_SECTION:
        return np.int64(IPV6) if first >> 4 == 6 else np.int64(IPV4)
    if found[R_TYPE] == FRAME_ETHERNET:
        return np.int64(ETHERNET)
    return np.int64(WIFI) if found[R_TYPE] == FRAME_WIFI else np.int64(NOTHING)


@kernel
def read_section(data: Any, inner: int, found: Any) -> None:
    """The packet of a record."""
    at = found[R_START]
    length = found[R_LENGTH]
    if 0 < found[R_HELD] < length:
        length = found[R_HELD]  # the rest is padding of a fixed field
    if length == 0:
        return
    frame = length
    if found[R_SECTION] == FRAME_SECTION:
        if 0 < found[R_SIZE] <= WORD:
            frame = found[R_SIZE]
        elif 0 < found[R_LAYER2] <= WORD and found[R_PACKETS] <= 1:
            frame = found[R_LAYER2]
    read_packet(data, at, at + length, section_kind(data[at], found), frame, inner, found)


@kernel
def count_packet(out: Any, row: int, found: Any) -> Any:
    """Octets and packets of a record with a packet; False if they are too large, scaled too.

    The record's own counts hold, except for the packet inside of another: its octets are its header's.
    """
    packets = found[R_PACKETS] if found[R_PACKETS] != 0 else np.int64(1)
    octets = found[OCTETS]
    numerator = np.int64(out.rate_numerator[row])
    denominator = np.int64(out.rate_denominator[row])
    if packets < 0 or packets >= COUNT_MAX:
        return False
    if found[R_OCTETS] != 0 and found[HEADERS] == 1:
        octets = found[R_OCTETS]
        out.flags[row] &= ~np.uint32(FRAME_OCTETS)
    elif octets > 0 and packets > COUNT_MAX // octets:
        return False
    else:
        octets *= packets
    if octets < 0 or octets >= COUNT_MAX or max(octets, packets) // denominator >= COUNT_MAX // numerator:
        return False
    out.octets[row] = octets
    out.packets[row] = packets
    return True


@kernel
def decode_packets(data: Any, sets: Any, first: int, last: int, state: Any, out: Any, policy: Any, kinds: Any,
                   found: Any) -> None:
    """Finish the rows of records with a packet: `rows` has written times, rates and the way; `found` as above."""
    for s in range(first, last):
        job = sets[s]
        if job["sflow"] or job["verdict"] != PACKET_VERDICT:
            continue
        plan = state.plans[job["plan"]]
        at = job["start"]
        for row in range(job["row"], job["row"] + job["records"]):
            at = read_fields(data, at, plan, state, found)
            read_section(data, policy.tunnels, found)
            if found[ADDRESSED] == 0:
                out.status[row] = NOT_A_FLOW
                out.fault[row] = 0
                continue
            write_packet(out, row, found)
            out.flags[row] |= np.uint32(found[FLAGS])
            if not count_packet(out, row, found) and out.status[row] == FLOW:
                out.status[row] = FAULTED
                out.fault[row] = kinds[0]["count_too_large"]
