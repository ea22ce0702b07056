"""The hot loops of attribution: whose address is it, at every instant of a flow?

Leases are grouped by key (realm, prefix, bucket of ports); a hash table leads from a key to its group, whose leases are
sorted by start. An end of a flow is looked up in every prefix length of its realm, the longest first, and walks from
change to change of the winner. Arrays in, arrays out.

With a million addresses each look is a cache miss, which takes as long as a hundred additions. So flows go through the
stages together, BLOCK at a time: the places of all are worked out and asked for before the first is read. Ends far away,
half of all, are told by their first 16 (IPv4) or 32 bits, of which no lease has any.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.jit import inline_kernel, kernel, load_be64, prefetch

END_UNKNOWN = 0
END_SERVICE = 1
END_NO_PORT = 2
END_INFRASTRUCTURE = 3

WHOLE_BUCKET = 0  # leases of all ports
SHARED_BUCKET = 1000  # times at which an address has port blocks at all
BUCKET_SHIFT = 10  # a port block is entered into every bucket of 1,024 ports that it touches
INFRASTRUCTURE_REALM = -1

UNKNOWN_SERVICE = -1
GROUPS_MAX = 300  # more than the prefix lengths of both families
BLOCK = 128  # flows looked up together
REACH_WORDS = 1024  # of 64 bits


class OwnerTable(NamedTuple):
    """Groups of leases by key, and the hash table that finds them.

    What is looked at together lies together, 32 octets a row: with a million addresses every look is a cache miss, and
    a miss brings in a line of 64 octets.
    """

    slots: NDArray[np.int64]  # (a power of two, 4): high and low word of the prefix, tag (FREE: none), first << 32 | count
    leases: NDArray[np.int64]  # (n, 4): start, end, service, ports (see `lease_ports`); a group's follow each other by start
    lengths: NDArray[np.int32]  # prefix lengths that a realm has, longest first, realm after realm
    lengths_first: NDArray[np.int64]  # by realm + 1: realm -1 is the infrastructure
    reach_ipv4: NDArray[np.uint64]  # (REACH_WORDS,) a bit for each first 16 bits of IPv4 addresses: whether any key is there
    reach_ipv6: NDArray[np.uint64]  # the same for hashes of the first 32 bits of IPv6 addresses
    by_ports: NDArray[np.bool_]  # (1,) whether any lease is of a range of ports


class Room(NamedTuple):
    """Room for the ends of BLOCK flows: sources at even places, destinations at odd ones."""

    hi: NDArray[np.int64]
    lo: NDArray[np.int64]
    realm: NDArray[np.int64]
    port: NDArray[np.int64]
    found: NDArray[np.int64]  # groups
    near: NDArray[np.uint64]  # the places of ends that keys may hold, in order
    slot: NDArray[np.uint64]  # for each of these the first slot to look at, NOWHERE: none
    groups: NDArray[np.int64]  # (GROUPS_MAX, 2 * BLOCK) those that may own the address, longest prefix first


def room() -> Room:
    """Room for `resolve`."""
    ends = 2 * BLOCK
    signed = (np.empty(ends, np.int64) for _ in range(5))
    return Room._make([*signed, np.empty(ends, np.uint64), np.empty(ends, np.uint64), np.empty((GROUPS_MAX, ends), np.int64)])


FREE = -1
NOWHERE = 2**64 - 1
START, END, SERVICE, PORTS = 0, 1, 2, 3  # columns of a lease
TAG, GROUP = 2, 3  # columns of a slot


@inline_kernel
def key_tag(realm: int, length: int, bucket: int) -> int:
    """Realm (-1: the infrastructure), prefix length (0 to 128) and bucket of ports of a key in one word."""
    return (realm + 1) << 32 | length << 16 | bucket


def lease_ports(protocol: int, first: int, last: int) -> int:
    """Protocol (-1: all) and ports of a lease in one word."""
    return (protocol + 1) << 32 | first << 16 | last


class InterfaceRules(NamedTuple):
    """What holds for an exporter and an interface, grouped by exporter in the order of its address."""

    exporter_hi: NDArray[np.uint64]
    exporter_lo: NDArray[np.uint64]
    first: NDArray[np.int64]
    interface: NDArray[np.int64]  # -1: all
    value: NDArray[np.int32]  # the realm, or the flow direction of a metering entry (0 ingress, 1 egress, 2 both)


class FlowEnds(NamedTuple):
    """What attribution needs of flows, one row each (columns of core.schemas.FLOWS); kernels see the addresses flat."""

    exporter: NDArray[np.uint8]  # (n, 16)
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    source_address: NDArray[np.uint8]  # (n, 16)
    destination_address: NDArray[np.uint8]  # (n, 16)
    source_port: NDArray[np.uint16]
    destination_port: NDArray[np.uint16]
    protocol: NDArray[np.uint8]
    input_interface: NDArray[np.uint32]
    output_interface: NDArray[np.uint32]
    flow_direction: NDArray[np.uint8]


class Pieces(NamedTuple):
    """Out: the owned pieces of flow ends, ordered by flow, end and time."""

    flow: NDArray[np.int32]
    end: NDArray[np.uint8]
    from_ms: NDArray[np.int64]
    to_ms: NDArray[np.int64]
    service: NDArray[np.int32]


@inline_kernel
def _mask(length: int) -> np.uint64:
    """The first `length` (0 to 64) bits of a word."""
    if length <= 0:
        return np.uint64(0)
    if length >= 64:
        return np.uint64(0xFFFFFFFFFFFFFFFF)
    return np.uint64(0xFFFFFFFFFFFFFFFF) << np.uint64(64 - length)


@inline_kernel
def _hash(tag: int, hi: int, lo: int) -> Any:
    mixed = np.uint64(hi) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(lo) * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed ^= np.uint64(tag) * np.uint64(0x165667B19E3779F9)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> np.uint64(32))


@kernel
def fill_slots(slots: NDArray[np.int64], keys: NDArray[np.int64]) -> int:
    """Enter every key, a row of a slot each, into the open-addressing table `slots` (filled with FREE, at most half full)."""
    mask = np.uint64(slots.shape[0] - 1)
    for key in range(keys.shape[0]):
        at = _hash(keys[key, TAG], keys[key, 0], keys[key, 1]) & mask
        while slots[at, TAG] != FREE:
            at = (at + np.uint64(1)) & mask
        for column in range(4):
            slots[at, column] = keys[key, column]
    return 0


@inline_kernel
def _place(table, tag, hi, lo):  # type: ignore[no-untyped-def]
    """The first slot to look at for a key."""
    return _hash(tag, hi, lo) & np.uint64(table.slots.shape[0] - 1)


@inline_kernel
def _group_at(table, place, tag, hi, lo):  # type: ignore[no-untyped-def]
    """The group of a key as first << 32 | count, -1 if there is none, from its place on."""
    mask = np.uint64(table.slots.shape[0] - 1)
    while table.slots[place, TAG] != FREE:
        if table.slots[place, TAG] == tag and table.slots[place, 0] == hi and table.slots[place, 1] == lo:
            return table.slots[place, GROUP]
        place = (place + np.uint64(1)) & mask
    return np.int64(-1)


@inline_kernel
def _has_ports(protocol: int) -> bool:
    return protocol == 6 or protocol == 17 or protocol == 33 or protocol == 132 or protocol == 136


@inline_kernel
def _is_ipv4(hi, lo):  # type: ignore[no-untyped-def]
    return hi == 0 and (lo >> 32) == 0xFFFF


def reach_of(first: Any) -> Any:
    """The bits in `reach_ipv6` of the first 32 bits of IPv6 addresses (uint64)."""
    return first * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(48)


_reach_of = inline_kernel(reach_of)


@inline_kernel
def _in_reach(table, hi, lo):  # type: ignore[no-untyped-def]
    """False: no key is of a prefix that holds this address."""
    if _is_ipv4(hi, lo):
        bit = np.uint64(lo) >> np.uint64(16) & np.uint64(0xFFFF)
        word = table.reach_ipv4[bit >> np.uint64(6)]
    else:
        bit = _reach_of(np.uint64(hi) >> np.uint64(32))
        word = table.reach_ipv6[bit >> np.uint64(6)]
    return word >> (bit & np.uint64(63)) & np.uint64(1) != np.uint64(0)


@inline_kernel
def _length_at(table, realm, level, hi, lo):  # type: ignore[no-untyped-def]
    """The prefix length of a realm at a level, the longest at 0; -1 where there is none for the address."""
    at = table.lengths_first[realm + 1] + level
    if at >= table.lengths_first[realm + 2]:
        return np.int64(-1)
    length = np.int64(table.lengths[at])
    if length < 96 and _is_ipv4(hi, lo):
        return np.int64(-1)  # an IPv6 prefix is no home of IPv4 addresses
    return length


@inline_kernel
def _masked(word, length):  # type: ignore[no-untyped-def]
    return np.int64(np.uint64(word) & _mask(length))


@inline_kernel
def _bucket_of(port, which):  # type: ignore[no-untyped-def]
    """Of the two buckets that an end is looked up in, the one of all ports or that of its port."""
    return WHOLE_BUCKET if which == 0 else 1 + (port >> BUCKET_SHIFT)


@inline_kernel
def _gather(table, room, count):  # type: ignore[no-untyped-def]
    """Find the groups that may own each of the first `count` ends that are near."""
    levels = np.int64(0)
    for k in range(np.uint64(count)):
        realm = room.realm[room.near[k]]
        levels = max(levels, table.lengths_first[realm + 2] - table.lengths_first[realm + 1])
    for level in range(levels):
        for which in range(2 if table.by_ports[0] else 1):
            for k in range(np.uint64(count)):
                end = room.near[k]
                hi, lo, realm, port = room.hi[end], room.lo[end], room.realm[end], room.port[end]
                length = _length_at(table, realm, level, hi, lo)
                room.slot[k] = np.uint64(NOWHERE)
                if length >= 0 and (which == 0 or port > 0):
                    tag = key_tag(realm, length, _bucket_of(port, which))
                    slot = _place(table, tag, _masked(hi, length), _masked(lo, length - 64))
                    room.slot[k] = slot
                    prefetch(table.slots, slot)
            for k in range(np.uint64(count)):
                if room.slot[k] != np.uint64(NOWHERE):
                    end = room.near[k]
                    hi, lo, realm = room.hi[end], room.lo[end], room.realm[end]
                    length = _length_at(table, realm, level, hi, lo)
                    tag = key_tag(realm, length, _bucket_of(room.port[end], which))
                    group = _group_at(table, room.slot[k], tag, _masked(hi, length), _masked(lo, length - 64))
                    if group >= 0:
                        room.groups[np.uint64(room.found[end]), end] = group
                        room.found[end] += 1
                        prefetch(table.leases, group >> 32)
    return 0


@inline_kernel
def _owner_at(table, groups, end, found, protocol, port, instant, until):  # type: ignore[no-untyped-def]
    """The lease that owns at `instant` (-1: none) and the instant, at most `until`, up to which that stays so.

    The two groups of one prefix length never match at the same time (imports refuse it), so the first match wins.
    """
    for at in range(found):
        group = groups[np.uint64(at), end]
        first = np.uint64(group >> 32)
        for lease in range(first, first + np.uint64(group & 0xFFFFFFFF)):
            start = table.leases[lease, START]
            if start >= until:
                break
            if table.leases[lease, END] <= instant:
                continue
            ports = table.leases[lease, PORTS]
            if (ports >> 32) != 0 and (ports >> 32) != protocol + 1:
                continue
            if port < (ports >> 16 & 0xFFFF) or port > (ports & 0xFFFF):
                continue
            if start <= instant:
                return np.int64(lease), min(until, table.leases[lease, END])
            until = start  # a more specific lease begins there
    return np.int64(-1), until


@inline_kernel
def _covered(table, realm, hi, lo, bucket, start, end):  # type: ignore[no-untyped-def]
    """Whether a group of this bucket holds a lease of the address at any instant of the flow."""
    for level in range(table.lengths_first[realm + 2] - table.lengths_first[realm + 1]):
        length = _length_at(table, realm, level, hi, lo)
        if length < 0:
            break
        tag, high, low = key_tag(realm, length, bucket), _masked(hi, length), _masked(lo, length - 64)
        group = _group_at(table, _place(table, tag, high, low), tag, high, low)
        if group >= 0:
            for lease in range(group >> 32, (group >> 32) + (group & 0xFFFFFFFF)):
                if table.leases[lease, START] <= end and table.leases[lease, END] > start:
                    return True
    return False


@inline_kernel
def _exporter_rules(rules, hi, lo):  # type: ignore[no-untyped-def]
    """Position of an exporter among the rules, -1 if there are none for it."""
    low, high = 0, rules.exporter_hi.size
    while low < high:
        middle = (low + high) // 2
        if rules.exporter_hi[middle] < hi or (rules.exporter_hi[middle] == hi and rules.exporter_lo[middle] < lo):
            low = middle + 1
        else:
            high = middle
    if low < rules.exporter_hi.size and rules.exporter_hi[low] == hi and rules.exporter_lo[low] == lo:
        return low
    return -1


@inline_kernel
def _realm_of(rules, hi, lo, input_interface, output_interface):  # type: ignore[no-untyped-def]
    """The realm of a flow: that of its input interface, else of its output interface, else of the router, else 0."""
    at = _exporter_rules(rules, hi, lo)
    if at < 0:
        return 0
    by_output, by_router = -1, 0
    for rule in range(rules.first[at], rules.first[at + 1]):
        if rules.interface[rule] == input_interface:
            return rules.value[rule]
        if rules.interface[rule] == output_interface:
            by_output = rules.value[rule]
        if rules.interface[rule] < 0:
            by_router = rules.value[rule]
    return by_output if by_output >= 0 else by_router


@inline_kernel
def _in_cut(rules, hi, lo, input_interface, output_interface, flow_direction):  # type: ignore[no-untyped-def]
    """Whether the metering cut counts a flow; without any rule every flow counts."""
    if rules.exporter_hi.size == 0:
        return True
    at = _exporter_rules(rules, hi, lo)
    if at < 0:
        return False
    for rule in range(rules.first[at], rules.first[at + 1]):
        wanted = rules.value[rule]
        interface = rules.interface[rule]
        if wanted != 1 and (interface < 0 or interface == input_interface) and (wanted == 2 or flow_direction != 1):
            return True
        if wanted != 0 and (interface < 0 or interface == output_interface) and (wanted == 2 or flow_direction != 0):
            return True
    return False


@inline_kernel
def _place_ends(table, realm_rules, cut_rules, flows, first, count, in_cut, room):  # type: ignore[no-untyped-def]
    """Fill `room` with the ends of some flows, note whether the metering cut counts them; returns how many ends are near."""
    near = np.uint64(0)
    by_rules = realm_rules.exporter_hi.size + cut_rules.exporter_hi.size > 0
    for k in range(np.uint64(count)):
        row = np.uint64(first) + k
        at = row << np.uint64(4)
        realm = np.int64(0)
        in_cut[row] = True
        if by_rules:
            hi = np.uint64(load_be64(flows.exporter, at))
            lo = np.uint64(load_be64(flows.exporter, at + np.uint64(8)))
            inwards, outwards = np.int64(flows.input_interface[row]), np.int64(flows.output_interface[row])
            in_cut[row] = _in_cut(cut_rules, hi, lo, inwards, outwards, flows.flow_direction[row])
            realm = np.int64(_realm_of(realm_rules, hi, lo, inwards, outwards))
        has_ports = _has_ports(np.int64(flows.protocol[row]))
        for side in range(np.uint64(2)):
            addresses = flows.source_address if side == np.uint64(0) else flows.destination_address
            ports = flows.source_port if side == np.uint64(0) else flows.destination_port
            high, low = load_be64(addresses, at), load_be64(addresses, at + np.uint64(8))
            if _in_reach(table, high, low):
                end = k << np.uint64(1) | side
                room.hi[end], room.lo[end], room.realm[end] = high, low, realm
                room.port[end] = np.int64(ports[row]) if has_ports else 0
                room.found[end] = 0
                room.near[near] = end
                near += np.uint64(1)
    return np.int64(near)


@kernel
def resolve(table, realm_rules, cut_rules, flows, first, in_cut, status, pieces, room):  # type: ignore[no-untyped-def]
    """Resolve flows from row `first` on until all are done or `pieces` is nearly full.

    Writes in_cut[n], status[n, 2] (zero before) and pieces; returns (the row to go on from, the number of pieces written).
    """
    written = 0
    for block in range(first, flows.start.size, BLOCK):
        count = min(BLOCK, flows.start.size - block)
        near = _place_ends(table, realm_rules, cut_rules, flows, block, count, in_cut, room)
        _gather(table, room, near)
        last = np.int64(-1)
        for k in range(np.uint64(near)):
            place = room.near[k]
            row, side = np.int64(block) + np.int64(place >> np.uint64(1)), np.int64(place & np.uint64(1))
            if row != last and written + 256 > pieces.flow.size:
                return row, written
            last = row
            found, port = room.found[place], room.port[place]
            start, end = flows.start[row], flows.end[row]
            protocol = np.int64(flows.protocol[row])
            owned = False
            instant = start
            before = written
            while found > 0:
                lease, until = _owner_at(table, room.groups, place, found, protocol, port, instant, max(end, start + 1))
                if lease >= 0:
                    owned = True
                    service = np.int32(table.leases[lease, SERVICE])
                    if (
                        written > before
                        and pieces.service[written - 1] == service
                        and pieces.to_ms[written - 1] == instant
                    ):
                        pieces.to_ms[written - 1] = min(until, end)
                    elif written < pieces.flow.size:
                        pieces.flow[written] = row
                        pieces.end[written] = side
                        pieces.from_ms[written] = instant
                        pieces.to_ms[written] = min(until, end)
                        pieces.service[written] = service
                        written += 1
                    else:
                        return -1 - row, written  # one flow with more pieces than fit: the caller makes more room
                instant = until
                if instant >= end:
                    break
            if owned:
                status[row, side] = END_SERVICE
            elif _covered(table, INFRASTRUCTURE_REALM, room.hi[place], room.lo[place], WHOLE_BUCKET, start, end):
                status[row, side] = END_INFRASTRUCTURE
            elif port == 0 and table.by_ports[0] and _covered(
                table, room.realm[place], room.hi[place], room.lo[place], SHARED_BUCKET, start, end
            ):
                status[row, side] = END_NO_PORT
            else:
                status[row, side] = END_UNKNOWN
    return flows.start.size, written
