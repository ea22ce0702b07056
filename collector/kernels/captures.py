"""Hot loops that take the datagrams out of capture files (pcap, pcapng, IPFIX messages back to back) into a journal body.

A walk goes over the file's memory from `walk[POSITION]` until the body is full or the file ends, and can be resumed. It
reads nothing outside the memory given, however the file lies about lengths.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from core.jit import inline_kernel, kernel

DONE, FULL = 0, 1

# Places in the array `walk`.
POSITION, SWAPPED, NANOSECONDS, ENDED_EARLY, INTERFACES, LAST_MS, DRAIN, USED, COUNT, PORT_COUNT, NEWEST = range(11)
PACKETS, DATAGRAMS, NOT_IP, OTHER, CUT, FRAGMENTS_LOST, STREAMS_BROKEN, MESSAGES = 16, 17, 18, 19, 20, 21, 22, 23
WALK_SIZE = 32

# Columns of the table of interfaces.
IF_LINK, IF_EXPONENT, IF_BINARY, IF_OFFSET = 0, 1, 2, 3
INTERFACES_MAX = 1024

FRAGMENTED_MAX = 64
FRAGMENT_SECONDS = 30
STREAMS_MAX = 64
STREAM_SIZE = 1 << 17
# Columns of the table of datagrams that are being put together, and of the table of TCP streams.
F_LIVE, F_ID, F_PROTOCOL, F_SINCE, F_TOTAL, F_UNITS = 0, 1, 2, 3, 4, 5
S_LIVE, S_NEXT, S_FILLED, S_READ, S_SOURCE_PORT, S_PORT, S_FAMILY, S_BEGINS, S_RECEIVED, S_TOUCHED = range(10)
TABLE_WIDTH = 10

VLAN_DEPTH_MAX = 8
EXTENSIONS_MAX = 8
ENTRY_SIZE = 56
DATAGRAM_MAX = 65535
BODY_DATAGRAMS_MAX = 4096
SESSION_BEGINS = 2
"""Flag of an entry, as the decoder's scan knows it."""
ROOM_NEEDED = ENTRY_SIZE + DATAGRAM_MAX + 8


@inline_kernel
def be16(data: Any, at: int) -> Any:
    return (np.int64(data[at]) << 8) | np.int64(data[at + 1])


@inline_kernel
def be32(data: Any, at: int) -> Any:
    return (be16(data, at) << 16) | be16(data, at + 2)


@inline_kernel
def u16(data: Any, at: int, big: int) -> Any:
    return be16(data, at) if big else np.int64(data[at]) | (np.int64(data[at + 1]) << 8)


@inline_kernel
def u32(data: Any, at: int, big: int) -> Any:
    return be32(data, at) if big else u16(data, at, 0) | (u16(data, at + 2, 0) << 16)


@kernel
def known_version(data: Any, at: int, stop: int) -> Any:
    """Whether a payload begins as an export protocol: u16 of NetFlow and IPFIX, u32 of sFlow."""
    if stop - at < 2:
        return False
    version = be16(data, at)
    if version == 1 or version == 5 or version == 7 or version == 9 or version == 10:
        return True
    return stop - at >= 4 and be32(data, at) == 5


@kernel
def put_entry(body: Any, words: Any, walk: Any, source: Any, at: int, size: int, meta: Any, ends: Any) -> None:
    """Append a datagram to the body; `ends`: 32 octets; `meta`: received, ports of source and ours, transport, family, flags,
    session."""
    used = walk[USED]
    word = used >> 3
    words[word] = np.uint64(meta[0])
    words[word + 1] = np.uint64(size | (meta[1] << 32) | (meta[2] << 48))
    words[word + 2] = np.uint64(meta[3] | (meta[4] << 8) | (meta[5] << 16) | (meta[6] << 32))
    for i in range(32):
        body[used + 24 + i] = ends[i]
    used += ENTRY_SIZE
    for i in range(size):
        body[used + i] = source[at + i]
    used += size
    while used & 7:
        body[used] = 0
        used += 1
    walk[USED] = used
    if walk[COUNT] == 0 or meta[0] > walk[NEWEST]:
        walk[NEWEST] = meta[0]
    walk[COUNT] += 1
    walk[DATAGRAMS] += 1


@kernel
def has_room(body: Any, walk: Any) -> Any:
    return walk[COUNT] < BODY_DATAGRAMS_MAX and walk[USED] + ROOM_NEEDED <= body.size


@kernel
def wanted_port(walk: Any, ports: Any, port: int) -> Any:
    if walk[PORT_COUNT] == 0:
        return True
    for i in range(walk[PORT_COUNT]):
        if ports[i] == port:
            return True
    return False


# IPFIX over TCP -------------------------------------------------------------------------------------------------------
@kernel
def find_stream(streams: Any, ends_of: Any, ends: Any, source_port: int, port: int) -> Any:
    for s in range(STREAMS_MAX):
        if streams[s, S_LIVE] and streams[s, S_SOURCE_PORT] == source_port and streams[s, S_PORT] == port:
            same = True
            for i in range(32):
                same = same and ends_of[s, i] == ends[i]
            if same:
                return s
    return -1


@kernel
def open_stream(streams: Any, ends_of: Any, ends: Any, source_port: int, port: int, family: int) -> Any:
    """A free place for a stream, else that of the one that was silent for longest."""
    chosen = 0
    for s in range(STREAMS_MAX):
        if not streams[s, S_LIVE]:
            chosen = s
            break
        if streams[s, S_TOUCHED] < streams[chosen, S_TOUCHED]:
            chosen = s
    for i in range(TABLE_WIDTH):
        streams[chosen, i] = 0
    streams[chosen, S_LIVE] = 1
    streams[chosen, S_SOURCE_PORT] = source_port
    streams[chosen, S_PORT] = port
    streams[chosen, S_FAMILY] = family
    for i in range(32):
        ends_of[chosen, i] = ends[i]
    return chosen


@kernel
def take_segment(data: Any, at: int, stop: int, meta: Any, ends: Any, walk: Any, ports: Any, streams: Any, ends_of: Any,
                 stream_octets: Any) -> None:
    """Add a TCP segment to its stream, if it is one of IPFIX; `walk[DRAIN]` says which has messages now."""
    if stop - at < 20:
        walk[OTHER] += 1
        return
    source_port, port, sequence = be16(data, at), be16(data, at + 2), be32(data, at + 4)
    start = at + (np.int64(data[at + 12]) >> 4) * 4
    flags = np.int64(data[at + 13])
    if start < at + 20 or start > stop or not wanted_port(walk, ports, port):
        walk[OTHER] += 1
        return
    s = find_stream(streams, ends_of, ends, source_port, port)
    if flags & 2:  # SYN: the first octet of a new session comes next
        if s >= 0:
            streams[s, S_FILLED] = streams[s, S_READ] = 0
            streams[s, S_NEXT] = (sequence + 1) & 0xFFFFFFFF
            streams[s, S_BEGINS] = 1
        return
    size = stop - start
    if size <= 0:
        if s >= 0 and flags & 5:  # FIN, RST: another session may follow on these ports
            streams[s, S_FILLED] = streams[s, S_READ] = 0
            streams[s, S_BEGINS] = 1
        return
    begins = size >= 16 and be16(data, start) == 10 and be16(data, start + 2) >= 16
    if s < 0:
        if not begins:
            walk[OTHER] += 1
            return
        s = open_stream(streams, ends_of, ends, source_port, port, meta[4])
        streams[s, S_NEXT] = sequence
    ahead = (sequence - streams[s, S_NEXT]) & 0xFFFFFFFF
    if ahead >= 1 << 31:  # sent again: only what is new counts
        known = (1 << 32) - ahead
        if known >= size:
            return
        start += known
        size -= known
    elif ahead > 0:  # a segment is missing in the capture: begin again where a message begins
        walk[STREAMS_BROKEN] += 1
        streams[s, S_FILLED] = streams[s, S_READ] = 0
        if not begins:
            streams[s, S_LIVE] = 0
            return
        streams[s, S_NEXT] = sequence
    filled, read = streams[s, S_FILLED], streams[s, S_READ]
    if read > 0:
        for i in range(filled - read):
            stream_octets[s, i] = stream_octets[s, read + i]
        filled -= read
        streams[s, S_READ] = 0
    for i in range(size):
        stream_octets[s, filled + i] = data[start + i]
    streams[s, S_FILLED] = filled + size
    streams[s, S_NEXT] = (streams[s, S_NEXT] + size) & 0xFFFFFFFF
    streams[s, S_RECEIVED] = meta[0]
    streams[s, S_TOUCHED] = walk[PACKETS]
    walk[DRAIN] = s


@kernel
def drain_stream(walk: Any, body: Any, words: Any, meta: Any, streams: Any, ends_of: Any, stream_octets: Any) -> Any:
    """Cut whole messages out of the stream `walk[DRAIN]`; FULL if there are more than the body can hold."""
    s = walk[DRAIN]
    if s < 0:
        return DONE
    while True:
        read, filled = streams[s, S_READ], streams[s, S_FILLED]
        if filled - read < 4:
            break
        length = be16(stream_octets[s], read + 2)
        if be16(stream_octets[s], read) != 10 or length < 16:
            walk[STREAMS_BROKEN] += 1
            streams[s, S_LIVE] = 0
            break
        if filled - read < length:
            break
        if not has_room(body, walk):
            return FULL
        meta[0], meta[1], meta[2] = streams[s, S_RECEIVED], streams[s, S_SOURCE_PORT], streams[s, S_PORT]
        meta[3], meta[4], meta[5] = 6, streams[s, S_FAMILY], SESSION_BEGINS * streams[s, S_BEGINS]
        meta[6] = streams[s, S_PORT]  # the session's number: a capture may begin and end in its middle
        streams[s, S_BEGINS] = 0
        put_entry(body, words, walk, stream_octets[s], read, length, meta, ends_of[s])
        streams[s, S_READ] = read + length
    walk[DRAIN] = -1
    return DONE


# IP -------------------------------------------------------------------------------------------------------------------
@kernel
def take_transport(data: Any, at: int, stop: int, protocol: int, meta: Any, ends: Any, walk: Any, ports: Any, body: Any,
                   words: Any, streams: Any, ends_of: Any, stream_octets: Any) -> None:
    """UDP whose payload is an export goes to the body, TCP to its stream; the rest is counted."""
    if protocol == 6:
        take_segment(data, at, stop, meta, ends, walk, ports, streams, ends_of, stream_octets)
        return
    if protocol != 17 or stop - at < 8:
        walk[OTHER] += 1
        return
    length = be16(data, at + 4)
    end = stop if length == 0 else min(stop, at + length)
    port = be16(data, at + 2)
    if not wanted_port(walk, ports, port) or not known_version(data, at + 8, end):
        walk[OTHER] += 1
        return
    meta[1], meta[2], meta[3], meta[5], meta[6] = be16(data, at), port, 17, 0, 0
    put_entry(body, words, walk, data, at + 8, min(end - at - 8, DATAGRAM_MAX), meta, ends)


@kernel
def fragment_place(walk: Any, fragments: Any, fragment_ends: Any, units: Any, ends: Any, identifier: int, protocol: int,
                   received: int) -> Any:
    """The place of the datagram that a fragment belongs to: the one that is begun, a free one, or the oldest."""
    free, oldest = -1, 0
    for f in range(FRAGMENTED_MAX):
        if fragments[f, F_LIVE] and abs(received - fragments[f, F_SINCE]) > FRAGMENT_SECONDS * 1000:
            fragments[f, F_LIVE] = 0
            walk[FRAGMENTS_LOST] += 1
        if not fragments[f, F_LIVE]:
            free = f
            continue
        if fragments[f, F_SINCE] < fragments[oldest, F_SINCE]:
            oldest = f
        if fragments[f, F_ID] == identifier and fragments[f, F_PROTOCOL] == protocol:
            same = True
            for i in range(32):
                same = same and fragment_ends[f, i] == ends[i]
            if same:
                return f
    if free < 0:
        free = oldest
        walk[FRAGMENTS_LOST] += 1
    fragments[free, F_LIVE], fragments[free, F_ID], fragments[free, F_PROTOCOL] = 1, identifier, protocol
    fragments[free, F_SINCE], fragments[free, F_TOTAL], fragments[free, F_UNITS] = received, -1, 0
    for i in range(32):
        fragment_ends[free, i] = ends[i]
    for i in range(units.shape[1]):
        units[free, i] = 0
    return free


@kernel
def take_fragment(data: Any, at: int, stop: int, offset: int, more: bool, identifier: int, protocol: int, meta: Any,
                  ends: Any, walk: Any, fragments: Any, fragment_ends: Any, units: Any, fragment_octets: Any) -> Any:
    """Add a fragment to its datagram; the place of the datagram if it is whole now, else -1."""
    size = stop - at
    if size <= 0 or offset + size > DATAGRAM_MAX:
        return -1
    f = fragment_place(walk, fragments, fragment_ends, units, ends, identifier, protocol, meta[0])
    for i in range(size):
        fragment_octets[f, offset + i] = data[at + i]
    for unit in range(offset >> 3, (offset + size + 7) >> 3):
        if not units[f, unit]:
            units[f, unit] = 1
            fragments[f, F_UNITS] += 1
    if not more:
        fragments[f, F_TOTAL] = offset + size
    total = fragments[f, F_TOTAL]
    if total < 0 or fragments[f, F_UNITS] != (total + 7) >> 3:
        return -1
    fragments[f, F_LIVE] = 0
    return f


@kernel
def take_ip(data: Any, at: int, stop: int, cut: bool, meta: Any, ends: Any, walk: Any, ports: Any, body: Any, words: Any,
            streams: Any, ends_of: Any, stream_octets: Any, fragments: Any, fragment_ends: Any, units: Any,
            fragment_octets: Any) -> None:
    """One IP packet that begins at `at`."""
    version = np.int64(data[at]) >> 4 if at < stop else 0
    offset, more, identifier, fragmented = 0, False, 0, False
    if version == 4 and stop - at >= 20:
        head = (np.int64(data[at]) & 15) * 4
        total = be16(data, at + 2)
        if head < 20 or at + head > stop:
            walk[NOT_IP] += 1
            return
        if total >= head:
            stop = min(stop, at + total)
        for i in range(10):
            ends[i] = ends[16 + i] = 0
        ends[10] = ends[11] = ends[26] = ends[27] = 255
        for i in range(4):
            ends[12 + i], ends[28 + i] = data[at + 12 + i], data[at + 16 + i]
        place = be16(data, at + 6)
        offset, more, identifier = (place & 0x1FFF) * 8, (place & 0x2000) != 0, be16(data, at + 4)
        fragmented = offset > 0 or more
        protocol = np.int64(data[at + 9])
        meta[4] = 4
        at += head
    elif version == 6 and stop - at >= 40:
        length = be16(data, at + 4)
        if length > 0:
            stop = min(stop, at + 40 + length)
        for i in range(16):
            ends[i], ends[16 + i] = data[at + 8 + i], data[at + 24 + i]
        protocol = np.int64(data[at + 6])
        meta[4] = 6
        at += 40
        for _ in range(EXTENSIONS_MAX):
            if stop - at < 8:
                break
            if protocol == 44:
                place = be16(data, at + 2)
                offset, more, identifier = place & 0xFFF8, (place & 1) != 0, be32(data, at + 4)
                fragmented = offset > 0 or more
                protocol = np.int64(data[at])
                at += 8
                if fragmented:
                    break
            elif protocol == 0 or protocol == 43 or protocol == 60:
                protocol, at = np.int64(data[at]), at + 8 + np.int64(data[at + 1]) * 8
            elif protocol == 51:
                protocol, at = np.int64(data[at]), at + 8 + np.int64(data[at + 1]) * 4
            else:
                break
        if at > stop:
            walk[NOT_IP] += 1
            return
    else:
        walk[NOT_IP] += 1
        return
    if not fragmented:
        take_transport(data, at, stop, protocol, meta, ends, walk, ports, body, words, streams, ends_of, stream_octets)
        return
    if protocol != 17:
        walk[OTHER] += 1
        return
    if cut:
        walk[FRAGMENTS_LOST] += 1
        return
    f = take_fragment(data, at, stop, offset, more, identifier, protocol, meta, ends, walk, fragments, fragment_ends, units,
                      fragment_octets)
    if f >= 0:
        take_transport(fragment_octets[f], 0, fragments[f, F_TOTAL], protocol, meta, ends, walk, ports, body, words,
                       streams, ends_of, stream_octets)


@kernel
def ip_offset(data: Any, at: int, stop: int, link: int, big: int) -> Any:
    """Where the IP packet in a frame begins, -1 if it holds none."""
    if link == 12 or link == 14 or link == 101 or link == 228 or link == 229:  # raw IP
        return at
    if link == 0 or link == 108:  # BSD loopback: an address family of 4 octets
        if stop - at < 4:
            return -1
        family = u32(data, at, big or link == 108)
        if family > 0xFFFF:  # written by a machine of the other endianness than the file's
            family = u32(data, at, 1 - (big or link == 108))
        return at + 4 if family == 2 or family == 10 or family == 24 or family == 28 or family == 30 else -1
    if link == 1:
        kind_at = at + 12
    elif link == 113:  # Linux cooked
        kind_at = at + 14
    elif link == 276:  # Linux cooked, version 2
        if stop - at < 20:
            return -1
        kind = be16(data, at)
        return at + 20 if kind == 0x0800 or kind == 0x86DD else -1
    else:
        return -1
    for _ in range(VLAN_DEPTH_MAX):
        if stop - kind_at < 2:
            return -1
        kind = be16(data, kind_at)
        if kind == 0x0800 or kind == 0x86DD:
            return kind_at + 2
        if kind != 0x8100 and kind != 0x88A8 and kind != 0x9100:
            return -1
        kind_at += 4
    return -1


@inline_kernel
def floor_ms(ticks: Any, exponent: int, binary: int, offset: int) -> Any:
    """Ticks of 10^-exponent or 2^-exponent seconds → ms, floored."""
    if binary:
        whole = np.int64(ticks >> np.uint64(exponent))
        rest = ticks & ((np.uint64(1) << np.uint64(exponent)) - np.uint64(1))
        if exponent > 53:
            rest, exponent = rest >> np.uint64(exponent - 53), 53
        return (whole + offset) * 1000 + np.int64((rest * np.uint64(1000)) >> np.uint64(exponent))
    scale = np.uint64(1)
    if exponent >= 3:
        for _ in range(exponent - 3):
            scale *= np.uint64(10)
        return np.int64(ticks // scale) + offset * 1000
    for _ in range(3 - exponent):
        scale *= np.uint64(10)
    return np.int64(ticks * scale) + offset * 1000


# files ----------------------------------------------------------------------------------------------------------------
@kernel
def read_pcap(data: Any, walk: Any, interfaces: Any, meta: Any, ends: Any, ports: Any, body: Any, words: Any, streams: Any,
              ends_of: Any, stream_octets: Any, fragments: Any, fragment_ends: Any, units: Any, fragment_octets: Any) -> Any:
    """Classic pcap, from behind its file header; `interfaces` has one row."""
    big, size = walk[SWAPPED], data.size
    while True:
        if drain_stream(walk, body, words, meta, streams, ends_of, stream_octets) == FULL or not has_room(body, walk):
            return FULL
        at = walk[POSITION]
        if size - at < 16:
            walk[ENDED_EARLY] |= size != at
            return DONE
        captured, original = u32(data, at + 8, big), u32(data, at + 12, big)
        if captured > size - at - 16:
            walk[ENDED_EARLY] = 1
            return DONE
        part = u32(data, at + 4, big)
        meta[0] = u32(data, at, big) * 1000 + (part // 1_000_000 if walk[NANOSECONDS] else part // 1000)
        walk[POSITION] = at + 16 + captured
        walk[PACKETS] += 1
        cut = captured < original
        walk[CUT] += cut
        start, stop = at + 16, at + 16 + captured
        ip = ip_offset(data, start, stop, interfaces[0, IF_LINK], big)
        if ip < 0:
            walk[NOT_IP] += 1
            continue
        take_ip(data, ip, stop, cut, meta, ends, walk, ports, body, words, streams, ends_of, stream_octets, fragments,
                fragment_ends, units, fragment_octets)


@kernel
def read_interface(data: Any, at: int, stop: int, big: int, row: Any) -> None:
    """An interface description block: link type and the resolution of its time stamps."""
    row[IF_LINK], row[IF_EXPONENT], row[IF_BINARY], row[IF_OFFSET] = u16(data, at + 8, big), 6, 0, 0
    option = at + 16
    while option + 4 <= stop:
        code, length = u16(data, option, big), u16(data, option + 2, big)
        value = option + 4
        if code == 0 or value + length > stop:
            return
        if code == 9 and length >= 1:
            resolution = np.int64(data[value])
            row[IF_BINARY] = resolution >> 7
            row[IF_EXPONENT] = min(resolution & 127, 63 if resolution >> 7 else 19)
        elif code == 14 and length >= 8:
            low, high = (value + 4, value) if big else (value, value + 4)
            row[IF_OFFSET] = u32(data, low, big) | (u32(data, high, big) << 32)
        option = value + length + (-length & 3)


@kernel
def read_pcapng(data: Any, walk: Any, interfaces: Any, meta: Any, ends: Any, ports: Any, body: Any, words: Any, streams: Any,
                ends_of: Any, stream_octets: Any, fragments: Any, fragment_ends: Any, units: Any,
                fragment_octets: Any) -> Any:
    """pcapng, from its first section header on."""
    size = data.size
    while True:
        if drain_stream(walk, body, words, meta, streams, ends_of, stream_octets) == FULL or not has_room(body, walk):
            return FULL
        at, big = walk[POSITION], walk[SWAPPED]
        if size - at < 12:
            walk[ENDED_EARLY] |= size != at
            return DONE
        kind = u32(data, at, big)
        if kind == 0x0A0D0D0A:
            big = walk[SWAPPED] = be32(data, at + 8) == 0x1A2B3C4D
            if not big and u32(data, at + 8, 0) != 0x1A2B3C4D:
                walk[ENDED_EARLY] = 1
                return DONE
            walk[INTERFACES] = 0
        length = u32(data, at + 4, big)
        if length < 12 or length & 3 or length > size - at:
            walk[ENDED_EARLY] = 1
            return DONE
        walk[POSITION] = at + length
        stop = at + length - 4
        if kind == 1 and length >= 20:
            if walk[INTERFACES] < INTERFACES_MAX:
                read_interface(data, at, stop, big, interfaces[walk[INTERFACES]])
            walk[INTERFACES] += 1
            continue
        enhanced, simple, obsolete = kind == 6 and length >= 32, kind == 3 and length >= 16, kind == 2 and length >= 32
        if not (enhanced or simple or obsolete):
            continue
        walk[PACKETS] += 1
        number = u32(data, at + 8, big) if enhanced else u16(data, at + 8, big) if obsolete else 0
        if number >= min(walk[INTERFACES], INTERFACES_MAX):
            walk[NOT_IP] += 1
            continue
        start = at + 12 if simple else at + 28
        original = u32(data, at + 8, big) if simple else u32(data, at + 24, big)
        captured = min(original, stop - start) if simple else u32(data, at + 20, big)
        if captured > stop - start:
            walk[NOT_IP] += 1
            continue
        row = interfaces[number]
        if not simple:
            ticks = (np.uint64(u32(data, at + 12, big)) << np.uint64(32)) | np.uint64(u32(data, at + 16, big))
            walk[LAST_MS] = floor_ms(ticks, row[IF_EXPONENT], row[IF_BINARY], row[IF_OFFSET])
        meta[0] = walk[LAST_MS]
        cut = captured < original
        walk[CUT] += cut
        ip = ip_offset(data, start, start + captured, row[IF_LINK], big)
        if ip < 0:
            walk[NOT_IP] += 1
            continue
        take_ip(data, ip, start + captured, cut, meta, ends, walk, ports, body, words, streams, ends_of, stream_octets,
                fragments, fragment_ends, units, fragment_octets)


@kernel
def read_messages(data: Any, walk: Any, meta: Any, ends: Any, body: Any, words: Any) -> Any:
    """IPFIX messages back to back (RFC 5655). Where no other message follows, the rest belongs to the last one."""
    size = data.size
    while walk[POSITION] < size:
        if not has_room(body, walk):
            return FULL
        at = walk[POSITION]
        end = size
        if size - at >= 4:
            length = be16(data, at + 2)
            if length >= 16 and at + length <= size and (
                    at + length == size or (size - at - length >= 2 and be16(data, at + length) == 10)):
                end = at + length
        if end - at > DATAGRAM_MAX:
            end = at + DATAGRAM_MAX
            walk[ENDED_EARLY] = 1
        put_entry(body, words, walk, data, at, end - at, meta, ends)
        walk[MESSAGES] += 1
        walk[POSITION] = size if walk[ENDED_EARLY] else end
    return DONE
