"""Flow samples of sFlow v5 → rows of flows: the sampled packet's own headers say whose traffic it was.

Reads what the scan has delimited. A sample whose records hold no IP header is not a flow.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import (
    ASSUMED,
    BY_RECORD,
    CONFIGURED,
    COUNT_MAX,
    FAULTED,
    FLOW,
    NOT_A_FLOW,
    QUARANTINE,
    QUARANTINED,
    REJECT,
)
from collector.kernels.packets import (
    ADDRESSED,
    DESTINATION,
    DESTINATION_AS,
    DESTINATION_PORT,
    FLAGS,
    NEXT_HOP,
    OCTETS,
    PROTOCOL,
    SOURCE,
    SOURCE_AS,
    SOURCE_PORT,
    TCP_FLAGS,
    TOS,
    header_kind,
    put_ipv4,
    put_ipv6,
    read_packet,
    write_packet,
)
from core.jit import inline_kernel, kernel, load_be32

RAW_HEADER, SAMPLED_IPV4, SAMPLED_IPV6 = 1, 3, 4
EXTENDED_ROUTER, EXTENDED_GATEWAY = 1002, 1003
UNKNOWN_OUTPUT = 0x3FFFFFFF


@kernel
def read_address(data: Any, at: int, stop: int, found: Any, where: int) -> Any:
    """An XDR address; the offset behind it, -1 if it is cut off or of an unknown type."""
    if stop - at < 4:
        return -1
    kind = load_be32(data, at)
    at += 4
    if kind == 0:
        return at
    if kind == 1 and stop - at >= 4:
        put_ipv4(data, at, found, where)
        return at + 4
    if kind == 2 and stop - at >= 16:
        put_ipv6(data, at, found, where)
        return at + 16
    return -1


@kernel
def read_gateway(data: Any, at: int, stop: int, found: Any) -> Any:
    """Extended gateway: next hop and the two ends' AS; whether it is whole so far."""
    at = read_address(data, at, stop, found, NEXT_HOP)
    if at < 0 or stop - at < 16:
        return False
    router_as = load_be32(data, at)
    found[SOURCE_AS] = load_be32(data, at + 4)
    segments = load_be32(data, at + 12)
    at += 16
    for _ in range(segments):
        if stop - at < 8:
            return False
        count = load_be32(data, at + 4)
        at += 8
        if count * 4 > stop - at:
            return False
        at += count * 4
        if count > 0:
            found[DESTINATION_AS] = load_be32(data, at - 4)  # the last one of the path is where the packet goes
    if segments == 0:
        found[DESTINATION_AS] = router_as
    return True


@kernel
def read_sampled_ip(data: Any, at: int, stop: int, six: bool, found: Any) -> None:
    """The record that has fields instead of a header (enterprise 0, formats 3 and 4)."""
    if stop - at < (56 if six else 32):
        return
    found[ADDRESSED] = 1
    found[OCTETS] = load_be32(data, at)
    found[PROTOCOL] = load_be32(data, at + 4) & 0xFF
    at += 8
    if six:
        put_ipv6(data, at, found, SOURCE)
        put_ipv6(data, at + 16, found, DESTINATION)
        at += 32
    else:
        put_ipv4(data, at, found, SOURCE)
        put_ipv4(data, at + 4, found, DESTINATION)
        at += 8
    if found[PROTOCOL] == 1 or found[PROTOCOL] == 58:
        found[DESTINATION_PORT] = load_be32(data, at + 4) & 0xFFFF
    else:
        found[SOURCE_PORT] = load_be32(data, at) & 0xFFFF
        found[DESTINATION_PORT] = load_be32(data, at + 4) & 0xFFFF
    found[TCP_FLAGS] = load_be32(data, at + 8) & 0xFFFF if found[PROTOCOL] == 6 else 0
    found[TOS] = load_be32(data, at + 12) & 0xFF


@kernel
def read_records(data: Any, at: int, stop: int, count: int, inner: int, found: Any) -> Any:
    """The flow records of a sample, up to the first that is cut off; whether all are whole."""
    seen = np.int64(0)
    while seen < count:
        if stop - at < 8:
            return False
        kind = load_be32(data, at)
        length = load_be32(data, at + 4)
        at += 8
        if length > stop - at:
            return False
        end = at + length
        if kind == RAW_HEADER and length >= 16:
            held = load_be32(data, at + 12)
            if found[ADDRESSED] == 0 and held > 0 and length > 16:
                read_packet(data, at + 16, min(end, at + 16 + held), header_kind(load_be32(data, at), data[at + 16]),
                            load_be32(data, at + 4) - load_be32(data, at + 8), inner, found)
            if held > end - at - 16:
                return False
        elif kind in (SAMPLED_IPV4, SAMPLED_IPV6) and found[ADDRESSED] == 0:
            read_sampled_ip(data, at, end, kind == SAMPLED_IPV6, found)
        elif kind == EXTENDED_ROUTER:
            read_address(data, at, end, found, NEXT_HOP)
        elif kind == EXTENDED_GATEWAY and not read_gateway(data, at, end, found):
            return False
        at = min(at + ((length + 3) & ~3), stop)
        seen += 1
    return True


@inline_kernel
def interface(kind: int, value: int) -> Any:
    """An ifIndex, 0 for "unknown", "dropped" and "several"."""
    return value if kind == 0 else np.int64(0)


@kernel
def write_sample(out: Any, row: int, found: Any) -> None:
    """What a flow sample says: of the packet, and of its way."""
    write_packet(out, row, found)
    out.next_hop[row, 0] = np.uint64(found[NEXT_HOP])
    out.next_hop[row, 1] = np.uint64(found[NEXT_HOP + 1])
    out.source_as[row] = found[SOURCE_AS]
    out.destination_as[row] = found[DESTINATION_AS]
    out.flow_direction[row] = 255
    out.flags[row] = found[FLAGS]


@kernel
def write_rate(out: Any, row: int, rate: int, job: Any, policy: Any) -> Any:
    """The sample's own rate, else what the settings say; False if it must be refused."""
    source = np.int64(BY_RECORD)
    if rate == 0:
        source = np.int64(CONFIGURED)
        rate = job["configured"]
    if rate == 0:
        if policy.unannounced == REJECT:
            return False
        if policy.unannounced == QUARANTINE:
            out.flags[row] |= QUARANTINED
        source = np.int64(ASSUMED)
        rate = np.int64(1)
    out.rate_numerator[row] = rate
    out.rate_denominator[row] = 1
    out.rate_source[row] = source
    return True


@kernel
def read_sample(data: Any, at: int, stop: int, expanded: bool, row: int, job: Any, found: Any, out: Any, policy: Any,
                kinds: Any) -> None:
    """One flow sample → its row."""
    size = 44 if expanded else 32
    if stop - at < size:
        out.status[row] = FAULTED
        out.fault[row] = kinds["record_overrun"]
        return
    found[:] = 0
    if expanded:
        rate = load_be32(data, at + 12)
        into = interface(load_be32(data, at + 24), load_be32(data, at + 28))
        outof = interface(load_be32(data, at + 32), load_be32(data, at + 36))
    else:
        rate = load_be32(data, at + 8)
        into = interface(load_be32(data, at + 20) >> 30, load_be32(data, at + 20) & UNKNOWN_OUTPUT)
        outof = interface(load_be32(data, at + 24) >> 30, load_be32(data, at + 24) & UNKNOWN_OUTPUT)
    whole = read_records(data, at + size, stop, load_be32(data, at + size - 4), policy.tunnels, found)
    if not whole:
        out.fault[row] = kinds["record_overrun"]
    if found[ADDRESSED] == 0:
        out.status[row] = NOT_A_FLOW if whole else FAULTED
        return
    write_sample(out, row, found)
    out.input_interface[row] = into
    out.output_interface[row] = outof
    if not write_rate(out, row, rate, job, policy):
        out.status[row] = FAULTED
        out.fault[row] = kinds["rate_unannounced"]
        return
    if out.octets[row] >= COUNT_MAX // np.int64(out.rate_numerator[row]):
        out.status[row] = FAULTED
        out.fault[row] = kinds["count_too_large"]
        return
    out.status[row] = FLOW


@kernel
def decode_samples(data: Any, sets: Any, first: int, last: int, state: Any, out: Any, policy: Any, kinds: Any,
                   found: Any) -> None:
    """Decode the flow samples of sets[first:last]; `found` is room for FOUND words."""
    for s in range(first, last):
        job = sets[s]
        if not job["sflow"]:
            continue
        owner = state.domains[job["domain"]]
        instant = job["received"] if job["sflow_boot"] < 0 else job["sflow_boot"] + job["uptime"]
        at = job["start"]
        stop = job["stop"]
        row = job["row"]
        last_row = row + job["records"]
        while row < last_row and stop - at >= 8:
            kind = load_be32(data, at)
            length = min(load_be32(data, at + 4), stop - at - 8)
            if kind == 1 or kind == 3:
                out.received[row] = job["received"]
                out.exporter[row, 0] = owner["high"]
                out.exporter[row, 1] = owner["low"]
                out.domain[row] = owner["domain"]
                out.export_protocol[row] = owner["protocol"]
                out.start[row] = instant
                out.end[row] = instant
                read_sample(data, at + 8, at + 8 + length, kind == 3, row, job, found, out, policy, kinds[0])
                row += 1
            at = min(at + 8 + ((length + 3) & ~3), stop)
