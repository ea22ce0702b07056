"""Sampled packets → rows of flows: the packet's own headers say whose traffic it was.

Two kinds of records carry a packet: flow samples of sFlow v5, and data records of NetFlow v9 and IPFIX with a section of a
frame or packet (IE 315, 313, 317, 316 and Cisco's 104). Reads what the scan has delimited. A sample whose records hold no
IP header is not a flow. Interface counters of sFlow are read here too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from core.jit import inline_kernel, kernel

RAW_HEADER, SAMPLED_IPV4, SAMPLED_IPV6 = 1, 3, 4
EXTENDED_ROUTER, EXTENDED_GATEWAY = 1002, 1003
INTERFACE_COUNTERS, INTERFACE_COUNTERS_SIZE = 1, 64  # octets up to and with ifHCOutOctets; the whole record has 88
WORD = 0xFFFFFFFF
UNKNOWN_OUTPUT = 0x3FFFFFFF

LAYERS_MAX = 64  # headers followed in one packet: VLAN tags, pseudowires, tunnels together
LABELS_MAX = 32  # of one MPLS stack
EXTENSIONS_MAX = 16  # extension headers of one IPv6 header
TUNNELS_MAX = 8  # IP headers inside another that are read

# What comes next in a packet: an EtherType, or one of these
NOTHING, CUT = 0, -1  # nothing that leads to an IP header; the packet is cut off before its next header
IPV4, IPV6, PPPOE, MPLS, MPLS_MULTICAST = 0x0800, 0x86DD, 0x8864, 0x8847, 0x8848
ETHERNET, LLC, PPP, WIFI, WIFI_AGGREGATE, MPLS_PAYLOAD = 0x10001, 0x10002, 0x10003, 0x10004, 0x10005, 0x10006
LENGTH_MAX = 1500  # an EtherType not above it is the length of an IEEE 802.3 frame

IN_IPV4, IN_IPV6, IN_GRE, IN_UDP = 4, 41, 47, 17
NO_NEXT_HEADER = 59  # of IPv6: no length is no payload, where others have one that the header can't say
VXLAN_PORT = 4789

FRAME_OCTETS, QUARANTINED, INNER_UNREAD = 4, 8, 64
BY_RECORD, CONFIGURED, ASSUMED = 1, 5, 6
FLOW, NOT_A_FLOW, FAULTED = 1, 2, 3
PACKET_VERDICT = 3
QUARANTINE, REJECT = 1, 2
COUNT_MAX = 1 << 48
VARIABLE = 65_535
UNKNOWN_COUNT = 0xFFFFFFFFFFFFFFFF

# Slots of the registry that matter in a record with a packet; the full list is in `rows`.
OWN_OCTETS, OWN_PACKETS, OWN_LAYER2 = 1, 2, 60
FRAME_SIZE, FRAME_TYPE, SECTION_OFFSET, SECTION_OCTETS = 112, 113, 114, 115
FRAME_SECTION, IP_SECTION, MPLS_PAYLOAD_SECTION, MPLS_STACK_SECTION = 120, 121, 122, 123  # in order of preference
FRAME_ETHERNET, FRAME_WIFI = 1, 2  # IE 408

# What is found of a packet, in an array of words
OCTETS, PROTOCOL, TOS, TCP_FLAGS, SOURCE_PORT, DESTINATION_PORT, SOURCE_AS, DESTINATION_AS, FLAGS, ADDRESSED = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
BEHIND, END = 10, 11  # where the IP header's payload begins, and where the packet ends as far as it is held
SOURCE, DESTINATION, NEXT_HOP = 12, 14, 16
FRAGMENT, GUESSED, HEADERS = 18, 19, 20  # part of a packet; nothing named the next header; IP headers read
# What is found of a record with a packet
R_OCTETS, R_PACKETS, R_LAYER2, R_SIZE, R_TYPE, R_OFFSET, R_HELD, R_SECTION, R_START, R_LENGTH = (
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31)
FOUND = 32


@inline_kernel
def be16(data: Any, at: int) -> Any:
    return (np.int64(data[at]) << 8) | np.int64(data[at + 1])


@inline_kernel
def be32(data: Any, at: int) -> Any:
    return (np.int64(data[at]) << 24) | (np.int64(data[at + 1]) << 16) | (np.int64(data[at + 2]) << 8) | np.int64(data[at + 3])


@kernel
def be64(data: Any, at: int) -> Any:
    value = np.uint64(0)
    for k in range(8):
        value = (value << np.uint64(8)) | np.uint64(data[at + k])
    return value


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


# IP headers: each reader returns IP when the fixed header is there, CUT when it is not all there, NOTHING when it is none
IP = 1


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
def begin_header(found: Any) -> None:
    """Forget what the header outside of this one said."""
    found[ADDRESSED] = 1
    found[HEADERS] += 1
    found[SOURCE_PORT] = 0
    found[DESTINATION_PORT] = 0
    found[TCP_FLAGS] = 0
    found[FLAGS] = 0
    found[FRAGMENT] = 0
    found[GUESSED] = 0


@kernel
def wrong_checksum(data: Any, at: int, size: int) -> Any:
    """Whether an IPv4 header has a checksum and it is not that of the header (RFC 791)."""
    if be16(data, at + 10) == 0:
        return False
    total = np.int64(0)
    for k in range(0, size, 2):
        total += be16(data, at + k)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total != 0xFFFF


@kernel
def read_ipv4(data: Any, at: int, stop: int, found: Any) -> Any:
    """An IPv4 header. Where nothing named it (behind MPLS labels), a checksum that is wrong says that it is none."""
    if stop - at < 20:
        return CUT
    size = (np.int64(data[at]) & 15) * 4
    if data[at] >> 4 != 4 or size < 20:
        return NOTHING
    if found[GUESSED] and stop - at >= size and wrong_checksum(data, at, size):
        return NOTHING
    begin_header(found)
    length = be16(data, at + 2)
    found[OCTETS] = length
    found[TOS] = data[at + 1]
    found[PROTOCOL] = data[at + 9]
    put_ipv4(data, at + 12, found, SOURCE)
    put_ipv4(data, at + 16, found, DESTINATION)
    end = min(stop, at + length) if length >= size else stop  # what lies behind is the frame's padding
    found[END] = end
    found[BEHIND] = at + size
    if be16(data, at + 6) & 0x3FFF:  # an offset or "more fragments"
        found[FRAGMENT] = 1
    elif end > at + size:
        read_transport(data, at + size, end, found[PROTOCOL], found)
    return IP


@kernel
def read_ipv6(data: Any, at: int, stop: int, found: Any) -> Any:
    """An IPv6 header and its extension headers, as far as they lead to the ports."""
    if stop - at < 40:
        return CUT
    if data[at] >> 4 != 6:
        return NOTHING
    begin_header(found)
    length = be16(data, at + 4)
    following = np.int64(data[at + 6])
    found[OCTETS] = length + 40 if length > 0 or following == NO_NEXT_HEADER else 0
    found[TOS] = (be16(data, at) >> 4) & 0xFF
    put_ipv6(data, at + 8, found, SOURCE)
    put_ipv6(data, at + 24, found, DESTINATION)
    end = min(stop, at + 40 + length) if length > 0 else stop
    at += 40
    for _ in range(EXTENSIONS_MAX):
        if end - at < 8:
            break
        if following == 0 or following == 43 or following == 60 or following == 135 or following == 139 or following == 140:
            size = (np.int64(data[at + 1]) + 1) * 8
        elif following == 44:
            size = np.int64(8)
        elif following == 51:
            size = (np.int64(data[at + 1]) + 2) * 4
        else:
            break
        if following == 44 and (be16(data, at + 2) & 0xFFF9) != 0:
            found[FRAGMENT] = 1
        later = following == 44 and (be16(data, at + 2) & 0xFFF8) != 0
        following = np.int64(data[at])
        at += size
        if later:  # behind it is the middle of a packet, no header
            break
    found[PROTOCOL] = following
    found[END] = end
    found[BEHIND] = at
    if not found[FRAGMENT] and end > at:
        read_transport(data, at, end, following, found)
    return IP


# Layers below IP: each returns (what comes next, where) ----------------------------------------------------------------
@kernel
def behind_labels(data: Any, at: int, stop: int, found: Any) -> Any:
    """The payload of MPLS, which nothing names: its first four bits tell (RFC 4928; RFC 4385: 0 is a control word)."""
    if stop - at < 1:
        return CUT, at
    found[GUESSED] = 1
    first = np.int64(data[at]) >> 4
    if first == 4:
        return IPV4, at
    if first == 6:
        return IPV6, at
    if first == 0:
        if stop - at < 4:
            return CUT, at
        if data[at + 1] & 0xC0 == 0:  # whole, not a piece of a frame
            return ETHERNET, at + 4
    return NOTHING, at


@kernel
def behind_mpls(data: Any, at: int, stop: int, found: Any) -> Any:
    """The label stack, up to its bottom (RFC 3032)."""
    for _ in range(LABELS_MAX):
        if stop - at < 4:
            return CUT, at
        at += 4
        if data[at - 2] & 1:
            return behind_labels(data, at, stop, found)
    return NOTHING, at


@kernel
def behind_ppp(data: Any, at: int, stop: int) -> Any:
    """PPP, with or without address and control; the protocol has one or two octets (RFC 1661, 1662)."""
    if stop - at >= 2 and data[at] == 0xFF and data[at + 1] == 0x03:
        at += 2
    if stop - at < 1:
        return CUT, at
    protocol = np.int64(data[at])
    at += 1
    if protocol & 1 == 0:
        if stop - at < 1:
            return CUT, at
        protocol = (protocol << 8) | np.int64(data[at])
        at += 1
    if protocol == 0x0021:
        return IPV4, at
    if protocol == 0x0057:
        return IPV6, at
    if protocol == 0x0281 or protocol == 0x0283:
        return MPLS, at
    return NOTHING, at


@kernel
def behind_llc(data: Any, at: int, stop: int) -> Any:
    """IEEE 802.2 with SNAP (RFC 1042)."""
    if stop - at < 8:
        return CUT, at
    named = data[at] == 0xAA and data[at + 1] == 0xAA and data[at + 2] == 3
    plain = data[at + 3] == 0 and data[at + 4] == 0 and (data[at + 5] == 0 or data[at + 5] == 0xF8)
    if named and plain and be16(data, at + 6) > LENGTH_MAX:
        return be16(data, at + 6), at + 8
    return NOTHING, at


@kernel
def behind_wifi(data: Any, at: int, stop: int) -> Any:
    """A data frame of IEEE 802.11 that is not encrypted and not a later fragment."""
    if stop - at < 24:
        return CUT, at
    control = np.int64(data[at])
    flags = np.int64(data[at + 1])
    if control & 0x0F != 0x08 or control & 0x40 or flags & 0x40 or data[at + 22] & 0x0F:
        return NOTHING, at
    size = np.int64(24)
    if flags & 3 == 3:
        size += 6  # the fourth address
    following = np.int64(LLC)
    if control & 0x80:
        if stop - at < size + 2:
            return CUT, at
        if data[at + size] & 0x80:
            following = np.int64(WIFI_AGGREGATE)
        size += 2
        if flags & 0x80:
            size += 4
    return following, at + size


@kernel
def behind_layer(data: Any, at: int, stop: int, kind: int, found: Any) -> Any:
    """One layer below IP."""
    if kind in (ETHERNET, WIFI_AGGREGATE):
        if stop - at < 14:
            return CUT, at
        kind = be16(data, at + 12)
        return (kind if kind > LENGTH_MAX else np.int64(LLC)), at + 14
    if kind == 0x8100 or kind == 0x88A8 or kind == 0x9100 or kind == 0x9200:
        if stop - at < 4:
            return CUT, at
        kind = be16(data, at + 2)
        return (kind if kind > LENGTH_MAX else np.int64(LLC)), at + 4
    if kind in (MPLS, MPLS_MULTICAST):
        return behind_mpls(data, at, stop, found)
    if kind == MPLS_PAYLOAD:
        return behind_labels(data, at, stop, found)
    if kind == PPPOE:  # RFC 2516: version 1, type 1, code 0
        if stop - at < 6:
            return CUT, at
        return (np.int64(PPP) if data[at] == 0x11 and data[at + 1] == 0 else np.int64(NOTHING)), at + 6
    if kind == PPP:
        return behind_ppp(data, at, stop)
    if kind == LLC:
        return behind_llc(data, at, stop)
    if kind == WIFI:
        return behind_wifi(data, at, stop)
    return NOTHING, at


# Tunnels --------------------------------------------------------------------------------------------------------------
@kernel
def behind_gre(data: Any, at: int, stop: int) -> Any:
    """GRE with all its optional fields (RFC 2784, 2890, and the routing of RFC 1701); version 1 is PPTP: not read."""
    if stop - at < 4:
        return CUT, at
    flags = be16(data, at)
    kind = be16(data, at + 2)
    if flags & 7:
        return CUT, at
    at += 4
    if flags & 0xC000:
        at += 4  # checksum and offset, there if either is used
    if flags & 0x2000:
        at += 4
    if flags & 0x1000:
        at += 4
    if flags & 0x4000:
        family = np.int64(1)
        length = np.int64(1)
        while family or length:
            if stop - at < 4:
                return CUT, at
            family = be16(data, at)
            length = np.int64(data[at + 3])
            at += 4 + length
    if kind == 0x6558:
        return ETHERNET, at
    if kind in (IPV4, IPV6, MPLS, MPLS_MULTICAST):
        return kind, at
    return NOTHING, at  # a keepalive has type 0 and nothing in it; the rest is not IP


@kernel
def enter_tunnel(data: Any, found: Any) -> Any:
    """What the IP packet that was just read carries: CUT if another packet that can't be read, NOTHING if none."""
    at = found[BEHIND]
    stop = found[END]
    protocol = found[PROTOCOL]
    if protocol in (IN_IPV4, IN_IPV6, IN_GRE):
        if found[FRAGMENT]:
            return CUT, at  # its octets are not those of the packet inside
        if protocol == IN_IPV4:
            return IPV4, at
        if protocol == IN_IPV6:
            return IPV6, at
        return behind_gre(data, at, stop)
    if protocol == IN_UDP and found[DESTINATION_PORT] == VXLAN_PORT:  # a fragment has no ports
        if stop - at < 16:
            return CUT, at
        return (np.int64(ETHERNET) if data[at + 8] & 8 else np.int64(NOTHING)), at + 16  # RFC 7348: the I flag
    return NOTHING, at


@kernel
def read_packet(data: Any, at: int, stop: int, kind: int, frame: int, inner: int, found: Any) -> None:
    """Follow a sampled packet data[at:stop] to its IP header, the innermost one if `inner`.

    frame: octets of the packet on the wire from `at` on, for a header without a length. What can't be read inside leaves
    the header outside of it, flagged.
    """
    first = at
    for _ in range(LAYERS_MAX):
        if kind in (IPV4, IPV6):
            read = read_ipv4(data, at, stop, found) if kind == IPV4 else read_ipv6(data, at, stop, found)
            if read != IP:
                break
            if found[OCTETS] == 0:  # segmentation offload or a jumbogram: the header has no length
                found[OCTETS] = max(frame - (at - first), 0)
                found[FLAGS] |= FRAME_OCTETS
            if not inner:
                return
            stop = found[END]
            kind, at = enter_tunnel(data, found)
            if kind != NOTHING and found[HEADERS] > TUNNELS_MAX:
                break
        else:
            kind, at = behind_layer(data, at, stop, kind, found)
        if kind == NOTHING:
            return
        if kind == CUT:
            break
    if found[ADDRESSED]:
        found[FLAGS] |= INNER_UNREAD


@kernel
def header_kind(protocol: int, first: int) -> Any:
    """sFlow's header protocol → what the sampled header begins with; `first` is its first octet."""
    if protocol == 1:
        return np.int64(ETHERNET)
    if protocol == 11:
        return np.int64(IPV4)
    if protocol == 12:
        return np.int64(IPV6)
    if protocol == 13:
        return np.int64(MPLS)
    if protocol == 7 or protocol == 14:  # PPP; POS is PPP in HDLC-like framing
        return np.int64(PPP)
    if protocol == 9:  # AAL5 with LLC
        return np.int64(LLC)
    if protocol == 10:  # AAL5 with bare IP
        return np.int64(IPV6) if first >> 4 == 6 else np.int64(IPV4)
    if protocol == 15:
        return np.int64(WIFI)
    if protocol == 17:
        return np.int64(WIFI_AGGREGATE)
    return np.int64(NOTHING)


# sFlow: flow samples --------------------------------------------------------------------------------------------------
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
def read_records(data: Any, at: int, stop: int, count: int, inner: int, found: Any) -> Any:
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
            if found[ADDRESSED] == 0 and held > 0 and length > 16:
                read_packet(data, at + 16, min(end, at + 16 + held), header_kind(be32(data, at), data[at + 16]),
                            be32(data, at + 4) - be32(data, at + 8), inner, found)
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
def write_packet(out: Any, row: int, found: Any) -> None:
    """What the packet itself says."""
    out.source_address[row, 0] = np.uint64(found[SOURCE])
    out.source_address[row, 1] = np.uint64(found[SOURCE + 1])
    out.destination_address[row, 0] = np.uint64(found[DESTINATION])
    out.destination_address[row, 1] = np.uint64(found[DESTINATION + 1])
    out.protocol[row] = found[PROTOCOL]
    out.tos[row] = found[TOS]
    out.tcp_flags[row] = found[TCP_FLAGS]
    out.source_port[row] = found[SOURCE_PORT]
    out.destination_port[row] = found[DESTINATION_PORT]
    out.octets[row] = found[OCTETS]
    out.packets[row] = 1


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
        rate = be32(data, at + 12)
        into = interface(be32(data, at + 24), be32(data, at + 28))
        outof = interface(be32(data, at + 32), be32(data, at + 36))
    else:
        rate = be32(data, at + 8)
        into = interface(be32(data, at + 20) >> 30, be32(data, at + 20) & UNKNOWN_OUTPUT)
        outof = interface(be32(data, at + 24) >> 30, be32(data, at + 24) & UNKNOWN_OUTPUT)
    whole = read_records(data, at + size, stop, be32(data, at + size - 4), policy.tunnels, found)
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


# sFlow: interface counters --------------------------------------------------------------------------------------------
@kernel
def read_counters(data: Any, at: int, stop: int, expanded: bool, job: Any, readings: Any, used: int, left_out: Any) -> Any:
    """The generic interface counters of one counter sample; (readings in use, whether all of its records are whole)."""
    size = 16 if expanded else 12
    if stop - at < size:
        return used, False
    count = be32(data, at + size - 4)
    at += size
    seen = np.int64(0)
    while seen < count:
        if stop - at < 8:
            return used, False
        kind = be32(data, at)
        length = be32(data, at + 4)
        at += 8
        if length > stop - at:
            return used, False
        if kind == INTERFACE_COUNTERS:
            if length < INTERFACE_COUNTERS_SIZE:
                return used, False
            octets_in = be64(data, at + 24)
            octets_out = be64(data, at + 56)
            if octets_in == UNKNOWN_COUNT or octets_out == UNKNOWN_COUNT:
                pass  # the agent does not count
            elif used < len(readings):
                readings[used]["domain"] = job["domain"]
                readings[used]["interface"] = be32(data, at)
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
            kind = be32(data, at)
            length = min(be32(data, at + 4), stop - at - 8)
            if kind == 2 or kind == 4:
                used, whole = read_counters(data, at + 8, at + 8 + length, kind == 4, job, readings, used, left_out)
                if not whole and length == be32(data, at + 4):  # one that is cut off has been counted as such
                    faults[job["intake"], kinds[0]["record_overrun"]] += 1
                left -= 1
            at = min(at + 8 + ((length + 3) & ~3), stop)
        faults[job["intake"], kinds[0]["counters_full"]] += left_out[0]
    return used


# NetFlow v9 and IPFIX: records with a packet ---------------------------------------------------------------------------
@inline_kernel
def load_number(data: Any, at: int, length: int) -> Any:
    value = np.int64(0)
    for k in range(length):
        value = (value << 8) | np.int64(data[at + k])
    return value


@kernel
def keep_field(data: Any, at: int, length: int, slot: int, found: Any) -> None:
    """What matters of one field of a record with a packet."""
    if slot >= FRAME_SECTION:
        if found[R_SECTION] == 0 or slot < found[R_SECTION]:
            found[R_SECTION] = slot
            found[R_START] = at
            found[R_LENGTH] = length
    elif slot == OWN_OCTETS:
        found[R_OCTETS] = load_number(data, at, length)
    elif slot == OWN_PACKETS:
        found[R_PACKETS] = load_number(data, at, length)
    elif slot == OWN_LAYER2:
        found[R_LAYER2] = load_number(data, at, length)
    elif slot == FRAME_SIZE:
        found[R_SIZE] = load_number(data, at, length)
    elif slot == FRAME_TYPE:
        found[R_TYPE] = load_number(data, at, length)
    elif slot == SECTION_OFFSET:
        found[R_OFFSET] = load_number(data, at, length)
    elif slot == SECTION_OCTETS:
        found[R_HELD] = load_number(data, at, length)


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
                length = be16(data, at)
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
