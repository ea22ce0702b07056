"""Flow samples of sFlow v5 → rows of flows: the sampled packet's own headers say whose traffic it was.

Reads the samples that the scan has delimited; a sample whose records hold no IP header is not a flow.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from core.jit import inline_kernel, kernel

RAW_HEADER, SAMPLED_IPV4, SAMPLED_IPV6 = 1, 3, 4
EXTENDED_ROUTER, EXTENDED_GATEWAY = 1002, 1003
ETHERNET, PLAIN_IPV4, PLAIN_IPV6 = 1, 11, 12
ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0800, 0x86DD
TAGS_MAX = 8
EXTENSIONS_MAX = 16
WORD = 0xFFFFFFFF
UNKNOWN_OUTPUT = 0x3FFFFFFF
MULTIPLE = 2  # format of an interface: a count of several, not an ifIndex

FRAME_OCTETS, QUARANTINED = 4, 8
BY_RECORD, CONFIGURED, ASSUMED = 1, 5, 6
FLOW, NOT_A_FLOW, FAULTED = 1, 2, 3
QUARANTINE, REJECT = 1, 2
COUNT_MAX = 1 << 48

# What is found of a packet, in an array of words
OCTETS, PROTOCOL, TOS, TCP_FLAGS, SOURCE_PORT, DESTINATION_PORT, SOURCE_AS, DESTINATION_AS, FLAGS, ADDRESSED, FAULT = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
SOURCE, DESTINATION, NEXT_HOP, FOUND = 12, 14, 16, 20


@inline_kernel
def be16(data: Any, at: int) -> Any:
    return (np.int64(data[at]) << 8) | np.int64(data[at + 1])


@inline_kernel
def be32(data: Any, at: int) -> Any:
    return (np.int64(data[at]) << 24) | (np.int64(data[at + 1]) << 16) | (np.int64(data[at + 2]) << 8) | np.int64(data[at + 3])


@kernel
def put_ipv4(data: Any, at: int, found: Any, where: int) -> None:
    """An IPv4 address as two words of memory, mapped."""
    value = np.int64(data[at]) | (np.int64(data[at + 1]) << 8) | (np.int64(data[at + 2]) << 16) | (
        np.int64(data[at + 3]) << 24)
    found[where] = 0
    found[where + 1] = (value << 32) | np.int64(0xFFFF0000)


@kernel
def put_ipv6(data: Any, at: int, found: Any, where: int) -> None:
    for word in range(2):
        value = np.int64(0)
        for k in range(8):
            value |= np.int64(data[at + 8 * word + k]) << (8 * k)
        found[where + word] = value


@kernel
def read_transport(data: Any, at: int, stop: int, protocol: int, found: Any) -> None:
    """Ports and flags, as far as the sampled header reaches."""
    if protocol == 1 or protocol == 58:
        if stop - at >= 2:
            found[DESTINATION_PORT] = be16(data, at)  # type * 256 + code
    elif protocol == 6 or protocol == 17 or protocol == 132 or protocol == 33 or protocol == 136:
        if stop - at >= 4:
            found[SOURCE_PORT] = be16(data, at)
            found[DESTINATION_PORT] = be16(data, at + 2)
        if protocol == 6 and stop - at >= 14:
            found[TCP_FLAGS] = be16(data, at + 12) & 0x0FFF


@kernel
def read_ipv4(data: Any, at: int, stop: int, found: Any) -> Any:
    """An IPv4 header; whether there is one."""
    if stop - at < 20 or data[at] >> 4 != 4:
        return False
    size = (np.int64(data[at]) & 15) * 4
    if size < 20:
        return False
    found[ADDRESSED] = 1
    found[OCTETS] = be16(data, at + 2)
    found[TOS] = data[at + 1]
    found[PROTOCOL] = data[at + 9]
    put_ipv4(data, at + 12, found, SOURCE)
    put_ipv4(data, at + 16, found, DESTINATION)
    fragmented = be16(data, at + 6) & 0x3FFF  # offset or "more fragments"
    if fragmented == 0 and stop - at > size:
        read_transport(data, at + size, stop, found[PROTOCOL], found)
    return True


@kernel
def read_ipv6(data: Any, at: int, stop: int, found: Any) -> Any:
    """An IPv6 header and its extension headers, as far as they lead to the ports; whether there is one."""
    if stop - at < 40 or data[at] >> 4 != 6:
        return False
    length = be16(data, at + 4)
    found[ADDRESSED] = 1
    found[OCTETS] = length + 40 if length > 0 else 0
    found[TOS] = (be16(data, at) >> 4) & 0xFF
    put_ipv6(data, at + 8, found, SOURCE)
    put_ipv6(data, at + 24, found, DESTINATION)
    following = np.int64(data[at + 6])
    at += 40
    fragmented = False
    for _ in range(EXTENSIONS_MAX):
        if stop - at < 8:
            break
        if following == 0 or following == 43 or following == 60 or following == 135 or following == 139 or following == 140:
            size = (np.int64(data[at + 1]) + 1) * 8
        elif following == 44:
            fragmented = fragmented or (be16(data, at + 2) & 0xFFF9) != 0
            size = np.int64(8)
        elif following == 51:
            size = (np.int64(data[at + 1]) + 2) * 4
        else:
            break
        following = np.int64(data[at])
        at += size
    found[PROTOCOL] = following
    if not fragmented and stop > at:
        read_transport(data, at, stop, following, found)
    return True


@kernel
def read_frame(data: Any, at: int, stop: int, frame: int, stripped: int, protocol: int, found: Any) -> None:
    """A sampled header: Ethernet with any tags, or bare IP."""
    first = at
    kind = np.int64(0)
    if protocol == ETHERNET:
        if stop - at < 14:
            return
        kind = be16(data, at + 12)
        at += 14
        tags = 0
        while (kind == 0x8100 or kind == 0x88A8 or kind == 0x9100 or kind == 0x9200) and tags < TAGS_MAX and stop - at >= 4:
            kind = be16(data, at + 2)
            at += 4
            tags += 1
        if kind == 0x8864 and stop - at >= 8:  # PPPoE session: the subscriber's packet lies behind PPP
            inner = be16(data, at + 6)
            kind = np.int64(ETHERTYPE_IPV4) if inner == 0x0021 else (np.int64(ETHERTYPE_IPV6) if inner == 0x0057 else inner)
            at += 8
    elif protocol == PLAIN_IPV4:
        kind = np.int64(ETHERTYPE_IPV4)
    elif protocol == PLAIN_IPV6:
        kind = np.int64(ETHERTYPE_IPV6)
    good = False
    if kind == ETHERTYPE_IPV4:
        good = read_ipv4(data, at, stop, found)
    elif kind == ETHERTYPE_IPV6:
        good = read_ipv6(data, at, stop, found)
    if good and found[OCTETS] == 0:  # segmentation offload or a jumbogram: the header has no length
        found[OCTETS] = max(frame - stripped - (at - first), 0)
        found[FLAGS] |= FRAME_OCTETS


@kernel
def read_address(data: Any, at: int, stop: int, found: Any, where: int) -> Any:
    """An XDR address; the offset behind it, -1 if it is cut off or of an unknown type."""
    if stop - at < 4:
        return -1
    kind = be32(data, at)
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
    router_as = be32(data, at)
    found[SOURCE_AS] = be32(data, at + 4)
    segments = be32(data, at + 12)
    at += 16
    for _ in range(segments):
        if stop - at < 8:
            return False
        count = be32(data, at + 4)
        at += 8
        if count * 4 > stop - at:
            return False
        at += count * 4
        if count > 0:
            found[DESTINATION_AS] = be32(data, at - 4)  # the last one of the path is where the packet goes
    if segments == 0:
        found[DESTINATION_AS] = router_as
    return True


@kernel
def read_sampled_ip(data: Any, at: int, stop: int, six: bool, found: Any) -> None:
    """The record that has fields instead of a header (enterprise 0, formats 3 and 4)."""
    if stop - at < (56 if six else 32):
        return
    found[ADDRESSED] = 1
    found[OCTETS] = be32(data, at)
    found[PROTOCOL] = be32(data, at + 4) & 0xFF
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
        found[DESTINATION_PORT] = be32(data, at + 4) & 0xFFFF
    else:
        found[SOURCE_PORT] = be32(data, at) & 0xFFFF
        found[DESTINATION_PORT] = be32(data, at + 4) & 0xFFFF
    found[TCP_FLAGS] = be32(data, at + 8) & 0xFFFF if found[PROTOCOL] == 6 else 0
    found[TOS] = be32(data, at + 12) & 0xFF


@kernel
def read_records(data: Any, at: int, stop: int, count: int, found: Any) -> Any:
    """The flow records of a sample, up to the first that is cut off; whether all are whole."""
    seen = np.int64(0)
    while seen < count:
        if stop - at < 8:
            return False
        kind = be32(data, at)
        length = be32(data, at + 4)
        at += 8
        if length > stop - at:
            return False
        end = at + length
        if kind == RAW_HEADER and length >= 16:
            held = be32(data, at + 12)
            if found[ADDRESSED] == 0:
                read_frame(data, at + 16, min(end, at + 16 + held), be32(data, at + 4), be32(data, at + 8),
                           be32(data, at), found)
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
def write_row(out: Any, row: int, found: Any) -> None:
    out.source_address[row, 0] = np.uint64(found[SOURCE])
    out.source_address[row, 1] = np.uint64(found[SOURCE + 1])
    out.destination_address[row, 0] = np.uint64(found[DESTINATION])
    out.destination_address[row, 1] = np.uint64(found[DESTINATION + 1])
    out.next_hop[row, 0] = np.uint64(found[NEXT_HOP])
    out.next_hop[row, 1] = np.uint64(found[NEXT_HOP + 1])
    out.protocol[row] = found[PROTOCOL]
    out.tos[row] = found[TOS]
    out.tcp_flags[row] = found[TCP_FLAGS]
    out.source_port[row] = found[SOURCE_PORT]
    out.destination_port[row] = found[DESTINATION_PORT]
    out.source_as[row] = found[SOURCE_AS]
    out.destination_as[row] = found[DESTINATION_AS]
    out.octets[row] = found[OCTETS]
    out.packets[row] = 1
    out.flow_direction[row] = 255


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
        rate = be32(data, at + 12)
        into = interface(be32(data, at + 24), be32(data, at + 28))
        outof = interface(be32(data, at + 32), be32(data, at + 36))
    else:
        rate = be32(data, at + 8)
        into = interface(be32(data, at + 20) >> 30, be32(data, at + 20) & UNKNOWN_OUTPUT)
        outof = interface(be32(data, at + 24) >> 30, be32(data, at + 24) & UNKNOWN_OUTPUT)
    whole = read_records(data, at + size, stop, be32(data, at + size - 4), found)
    if not whole:
        out.fault[row] = kinds["record_overrun"]
    if found[ADDRESSED] == 0:
        out.status[row] = NOT_A_FLOW if whole else FAULTED
        return
    write_row(out, row, found)
    out.flags[row] = found[FLAGS]
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
    """Decode the sFlow sets of sets[first:last]."""
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
            kind = be32(data, at)
            length = min(be32(data, at + 4), stop - at - 8)
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
