"""Values of a chunk of records → the columns of their rows, one direction or both."""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import (
    FAULTED,
    FLOW,
    NO_FLOW,
    NOT_A_FLOW,
    REVERSE,
    W_BACK,
    W_BACK_END,
    W_BACK_PACKETS,
    W_BACK_START,
    W_DENOMINATOR,
    W_END,
    W_FAULT,
    W_FLAGS,
    W_NUMERATOR,
    W_OCTETS,
    W_PACKETS,
    W_SOURCE,
    W_START,
    WORD,
)
from collector.kernels.elements import (
    BGP_NEXT_HOP4,
    BGP_NEXT_HOP6,
    DESTINATION4,
    DESTINATION6,
    DESTINATION_AS,
    DESTINATION_PORT,
    DIRECTION,
    ICMP4,
    ICMP4_CODE,
    ICMP4_TYPE,
    ICMP6,
    ICMP6_CODE,
    ICMP6_TYPE,
    INPUT,
    IP_VERSION,
    NEXT_HOP4,
    NEXT_HOP6,
    OUTPUT,
    PROTOCOL,
    REVERSE_TCP_FLAGS,
    REVERSE_TOS,
    SOURCE4,
    SOURCE6,
    SOURCE_AS,
    SOURCE_PORT,
    TCP_DESTINATION_PORT,
    TCP_FLAGS,
    TCP_SOURCE_PORT,
    TOS,
    UDP_DESTINATION_PORT,
    UDP_SOURCE_PORT,
)
from collector.kernels.fields import present
from collector.kernels.times import has_reverse_times
from core.jit import inline_kernel, kernel


@inline_kernel
def ports_of(values: Any, r: int, has: Any, protocol: int) -> Any:
    """Source and destination port; ICMP has none, its type and code stand in the destination's place."""
    source = values[SOURCE_PORT, r] if has[SOURCE_PORT] else np.int64(0)
    destination = values[DESTINATION_PORT, r] if has[DESTINATION_PORT] else np.int64(0)
    if protocol == 1:
        if has[ICMP4]:
            destination = values[ICMP4, r]
        elif has[ICMP4_TYPE]:
            destination = (values[ICMP4_TYPE, r] << 8) | (values[ICMP4_CODE, r] if has[ICMP4_CODE] else np.int64(0))
        return np.int64(0), destination & 0xFFFF
    if protocol == 58:
        if has[ICMP6]:
            destination = values[ICMP6, r]
        elif has[ICMP6_TYPE]:
            destination = (values[ICMP6_TYPE, r] << 8) | (values[ICMP6_CODE, r] if has[ICMP6_CODE] else np.int64(0))
        elif has[ICMP4]:  # exporters that have one element for both
            destination = values[ICMP4, r]
        return np.int64(0), destination & 0xFFFF
    if protocol == 17 and not has[SOURCE_PORT]:
        source = values[UDP_SOURCE_PORT, r] if has[UDP_SOURCE_PORT] else source
    if protocol == 17 and not has[DESTINATION_PORT]:
        destination = values[UDP_DESTINATION_PORT, r] if has[UDP_DESTINATION_PORT] else destination
    if protocol == 6 and not has[SOURCE_PORT]:
        source = values[TCP_SOURCE_PORT, r] if has[TCP_SOURCE_PORT] else source
    if protocol == 6 and not has[DESTINATION_PORT]:
        destination = values[TCP_DESTINATION_PORT, r] if has[TCP_DESTINATION_PORT] else destination
    return source & 0xFFFF, destination & 0xFFFF


@inline_kernel
def mapped(value: int) -> Any:
    """The second word of ::ffff:a.b.c.d."""
    return (np.uint64(value) << np.uint64(32)) | np.uint64(0xFFFF0000)


@inline_kernel
def is_ipv4(values: Any, r: int, has: Any) -> Any:
    """Which family a record is of, where its template has room for both."""
    four = has[SOURCE4] and has[DESTINATION4]
    if not four or not (has[SOURCE6] and has[DESTINATION6]):
        return four != 0
    if has[IP_VERSION] and (values[IP_VERSION, r] == 4 or values[IP_VERSION, r] == 6):
        return values[IP_VERSION, r] == 4
    if values[SOURCE4, r] != 0 or values[DESTINATION4, r] != 0:
        return True
    return not (values[SOURCE6, r] | values[SOURCE6 + 1, r] | values[DESTINATION6, r] | values[DESTINATION6 + 1, r])


@inline_kernel
def pick(values: Any, r: int, has: Any, slot: int, mask: int) -> Any:
    return (values[slot, r] & mask) if has[slot] else np.int64(0)


@kernel
def write_ends(one: Any, two: Any, values: Any, count: int, has: Any, row: int, width: int) -> None:
    """Source (`one`) and destination address."""
    for r in range(count):
        at = row + r * width
        if is_ipv4(values, r, has):
            one[at, 0] = 0
            one[at, 1] = mapped(values[SOURCE4, r])
            two[at, 0] = 0
            two[at, 1] = mapped(values[DESTINATION4, r])
        else:
            one[at, 0] = np.uint64(values[SOURCE6, r])
            one[at, 1] = np.uint64(values[SOURCE6 + 1, r])
            two[at, 0] = np.uint64(values[DESTINATION6, r])
            two[at, 1] = np.uint64(values[DESTINATION6 + 1, r])


@kernel
def write_next_hop(hop: Any, values: Any, count: int, has: Any, row: int, width: int) -> None:
    if not (has[NEXT_HOP4] or has[NEXT_HOP6] or has[BGP_NEXT_HOP4] or has[BGP_NEXT_HOP6]):
        return  # columns begin as zeros
    for r in range(count):
        at = row + r * width
        if present(values, r, has, NEXT_HOP4):
            hop[at, 1] = mapped(values[NEXT_HOP4, r])
        elif has[NEXT_HOP6] and (values[NEXT_HOP6, r] | values[NEXT_HOP6 + 1, r]) != 0:
            hop[at, 0] = np.uint64(values[NEXT_HOP6, r])
            hop[at, 1] = np.uint64(values[NEXT_HOP6 + 1, r])
        elif present(values, r, has, BGP_NEXT_HOP4):
            hop[at, 1] = mapped(values[BGP_NEXT_HOP4, r])
        elif has[BGP_NEXT_HOP6]:
            hop[at, 0] = np.uint64(values[BGP_NEXT_HOP6, r])
            hop[at, 1] = np.uint64(values[BGP_NEXT_HOP6 + 1, r])


@inline_kernel
def write_transport(out: Any, values: Any, count: int, has: Any, row: int, width: int, swapped: bool) -> None:
    """Protocol, ports, type of service, TCP flags."""
    for r in range(count):
        at = row + r * width
        protocol = pick(values, r, has, PROTOCOL, 0xFF)
        source, destination = ports_of(values, r, has, protocol)
        tcp_flags = pick(values, r, has, TCP_FLAGS, 0xFFFF)
        tos = pick(values, r, has, TOS, 0xFF)
        if swapped:
            if has[REVERSE_TOS]:
                tos = values[REVERSE_TOS, r] & 0xFF
            if has[REVERSE_TCP_FLAGS]:
                tcp_flags = values[REVERSE_TCP_FLAGS, r] & 0xFFFF
            if protocol != 1 and protocol != 58:
                source, destination = destination, source
        out.protocol[at] = protocol
        out.source_port[at] = source
        out.destination_port[at] = destination
        out.tos[at] = tos
        out.tcp_flags[at] = tcp_flags if protocol == 6 else 0


@inline_kernel
def write_route(out: Any, values: Any, count: int, has: Any, row: int, width: int, swapped: bool) -> None:
    """Interfaces, AS numbers, direction."""
    for r in range(count):
        at = row + r * width
        into = pick(values, r, has, INPUT, WORD)
        outof = pick(values, r, has, OUTPUT, WORD)
        from_as = pick(values, r, has, SOURCE_AS, WORD)
        to_as = pick(values, r, has, DESTINATION_AS, WORD)
        direction = values[DIRECTION, r] if has[DIRECTION] else np.int64(255)
        if direction != 0 and direction != 1:
            direction = np.int64(255)
        if swapped:
            into, outof = outof, into
            from_as, to_as = to_as, from_as
            if direction != 255:
                direction = 1 - direction  # the same place sees the answer on its way out
        out.input_interface[at] = into
        out.output_interface[at] = outof
        out.source_as[at] = from_as
        out.destination_as[at] = to_as
        out.flow_direction[at] = direction


@inline_kernel
def write_worked(out: Any, work: Any, count: int, row: int, width: int, swapped: bool, own_times: bool) -> None:
    """What the stages before have found; `own_times`: the second direction has times of its own."""
    first, last = (W_BACK_START, W_BACK_END) if swapped and own_times else (W_START, W_END)
    for r in range(count):
        at = row + r * width
        kind = work[W_FAULT, r]
        out.start[at] = work[first, r]
        out.end[at] = work[last, r]
        out.rate_numerator[at] = work[W_NUMERATOR, r]
        out.rate_denominator[at] = work[W_DENOMINATOR, r]
        out.rate_source[at] = work[W_SOURCE, r]
        out.octets[at] = work[W_BACK if swapped else W_OCTETS, r]
        out.packets[at] = work[W_BACK_PACKETS if swapped else W_PACKETS, r]
        out.flags[at] = work[W_FLAGS, r] | (REVERSE if swapped else 0)
        if kind == 0:
            out.status[at] = FLOW
        elif kind == NO_FLOW:
            out.status[at] = 0 if swapped else NOT_A_FLOW
        elif not swapped:
            out.status[at] = FAULTED
            out.fault[at] = kind


@inline_kernel
def write_chunk(out: Any, values: Any, work: Any, count: int, has: Any, row: int, width: int) -> None:
    """The rows of a chunk: one direction, and the other where records have two."""
    write_next_hop(out.next_hop, values, count, has, row, width)
    own_times = width == 2 and has_reverse_times(has)
    for k in range(width):
        swapped = k == 1
        if swapped:
            write_ends(out.destination_address, out.source_address, values, count, has, row + k, width)
        else:
            write_ends(out.source_address, out.destination_address, values, count, has, row, width)
        write_transport(out, values, count, has, row + k, width, swapped)
        write_route(out, values, count, has, row + k, width, swapped)
        write_worked(out, work, count, row + k, width, swapped, own_times)


@kernel
def clear_rows(out: Any, first: int, last: int) -> None:
    """Rows whose columns are written one by one begin as zeros: the memory is used again and again."""
    for row in range(first, last):
        out.next_hop[row, 0] = 0
        out.next_hop[row, 1] = 0
        out.status[row] = 0
        out.fault[row] = 0
        out.flags[row] = 0


@inline_kernel
def fill(column: Any, row: Any, count: Any, value: Any) -> None:
    for r in range(count):
        column[row + r] = value


@kernel
def write_common(out: Any, first: int, records: int, received: int, high: Any, low: Any, domain: int, protocol: int) -> None:
    """What all rows of a set have in common."""
    row = np.uint64(first)
    count = np.uint64(records)
    fill(out.received, row, count, received)
    for r in range(count):
        out.exporter[row + r, 0] = high
        out.exporter[row + r, 1] = low
    fill(out.domain, row, count, domain)
    fill(out.export_protocol, row, count, protocol)
