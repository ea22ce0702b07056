"""A sampled packet → its IP header: through VLAN tags, MPLS, PPP, LLC and 802.11, and into tunnels if asked for.

What is found goes into an array of FOUND words, which `samples` and `sections` use too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import FRAME_OCTETS, INNER_UNREAD
from core.jit import kernel, load_be16, load_le32, load_le64

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

# What is found of a packet, in an array of words
OCTETS, PROTOCOL, TOS, TCP_FLAGS, SOURCE_PORT, DESTINATION_PORT, SOURCE_AS, DESTINATION_AS, FLAGS, ADDRESSED = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
BEHIND, END = 10, 11  # where the IP header's payload begins, and where the packet ends as far as it is held
SOURCE, DESTINATION, NEXT_HOP = 12, 14, 16
FRAGMENT, GUESSED, HEADERS = 18, 19, 20  # part of a packet; nothing named the next header; IP headers read
FOUND = 32


@kernel
def put_ipv4(data: Any, at: int, found: Any, where: int) -> None:
    """An IPv4 address as two words of memory, mapped."""
    found[where] = 0
    found[where + 1] = (load_le32(data, at) << 32) | np.int64(0xFFFF0000)


@kernel
def put_ipv6(data: Any, at: int, found: Any, where: int) -> None:
    found[where] = np.int64(load_le64(data, at))
    found[where + 1] = np.int64(load_le64(data, at + 8))


# IP headers: each reader returns IP when the fixed header is there, CUT when it is not all there, NOTHING when it is none
IP = 1


@kernel
def read_transport(data: Any, at: int, stop: int, protocol: int, found: Any) -> None:
    """Ports and flags, as far as the sampled header reaches."""
    if protocol == 1 or protocol == 58:
        if stop - at >= 2:
            found[DESTINATION_PORT] = load_be16(data, at)  # type * 256 + code
    elif protocol == 6 or protocol == 17 or protocol == 132 or protocol == 33 or protocol == 136:
        if stop - at >= 4:
            found[SOURCE_PORT] = load_be16(data, at)
            found[DESTINATION_PORT] = load_be16(data, at + 2)
        if protocol == 6 and stop - at >= 14:
            found[TCP_FLAGS] = load_be16(data, at + 12) & 0x0FFF


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
    if load_be16(data, at + 10) == 0:
        return False
    total = np.int64(0)
    for k in range(0, size, 2):
        total += load_be16(data, at + k)
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
    length = load_be16(data, at + 2)
    found[OCTETS] = length
    found[TOS] = data[at + 1]
    found[PROTOCOL] = data[at + 9]
    put_ipv4(data, at + 12, found, SOURCE)
    put_ipv4(data, at + 16, found, DESTINATION)
    end = min(stop, at + length) if length >= size else stop  # what lies behind is the frame's padding
    found[END] = end
    found[BEHIND] = at + size
    if load_be16(data, at + 6) & 0x3FFF:  # an offset or "more fragments"
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
    length = load_be16(data, at + 4)
    following = np.int64(data[at + 6])
    found[OCTETS] = length + 40 if length > 0 or following == NO_NEXT_HEADER else 0
    found[TOS] = (load_be16(data, at) >> 4) & 0xFF
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
        if following == 44 and (load_be16(data, at + 2) & 0xFFF9) != 0:
            found[FRAGMENT] = 1
        later = following == 44 and (load_be16(data, at + 2) & 0xFFF8) != 0
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
    if named and plain and load_be16(data, at + 6) > LENGTH_MAX:
        return load_be16(data, at + 6), at + 8
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
        kind = load_be16(data, at + 12)
        return (kind if kind > LENGTH_MAX else np.int64(LLC)), at + 14
    if kind == 0x8100 or kind == 0x88A8 or kind == 0x9100 or kind == 0x9200:
        if stop - at < 4:
            return CUT, at
        kind = load_be16(data, at + 2)
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
    flags = load_be16(data, at)
    kind = load_be16(data, at + 2)
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
            family = load_be16(data, at)
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
