"""The hot loops of attribution: whose address is it, at every instant of a flow?

Leases are grouped by key (realm, prefix, bucket of ports); a hash table leads from a key to its group, whose leases are
sorted by start. An end of a flow is looked up in every prefix length of its realm, the longest first, and walks from
change to change of the winner. Arrays in, arrays out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.jit import inline_kernel, kernel

END_UNKNOWN = 0
END_SERVICE = 1
END_NO_PORT = 2
END_INFRASTRUCTURE = 3

WHOLE_BUCKET = 0  # leases of all ports
SHARED_BUCKET = 1000  # times at which an address has port blocks at all
BUCKET_SHIFT = 10  # a port block is entered into every bucket of 1,024 ports that it touches
INFRASTRUCTURE_REALM = -1

EXPORTER_EGRESS = 1  # IE 61
UNKNOWN_SERVICE = -1
FAR_FUTURE = 1 << 62
GROUPS_MAX = 300  # more than the prefix lengths of both families


class OwnerTable(NamedTuple):
    """Groups of leases by key, and the hash table that finds them.

    What is looked at together lies together, 32 octets a row: with a million addresses every look is a cache miss, and
    a miss brings in a line of 64 octets.
    """

    slots: NDArray[np.int64]  # (a power of two, 4): high and low word of the prefix, tag (FREE: none), first << 32 | count
    leases: NDArray[np.int64]  # (n, 4): start, end, service, ports (see `lease_ports`); a group's follow each other by start
    lengths: NDArray[np.int32]  # prefix lengths that a realm has, longest first, realm after realm
    lengths_first: NDArray[np.int64]  # by realm + 1: realm -1 is the infrastructure


FREE = -1
START, END, SERVICE, PORTS = 0, 1, 2, 3  # columns of a lease
TAG, GROUP = 2, 3  # columns of a slot


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
    """What attribution needs of flows, one row each (columns of core.schemas.FLOWS)."""

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
def _word(octets: NDArray[np.uint8], row: int, first: int) -> np.uint64:
    value = np.uint64(0)
    for index in range(8):
        value = (value << np.uint64(8)) | np.uint64(octets[row, first + index])
    return value


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
def _find(table, tag, hi, lo):  # type: ignore[no-untyped-def]
    """The group of a key as first << 32 | count, -1 if there is none."""
    mask = np.uint64(table.slots.shape[0] - 1)
    high, low = np.int64(hi), np.int64(lo)
    at = _hash(tag, high, low) & mask
    while table.slots[at, TAG] != FREE:
        if table.slots[at, TAG] == tag and table.slots[at, 0] == high and table.slots[at, 1] == low:
            return table.slots[at, GROUP]
        at = (at + np.uint64(1)) & mask
    return np.int64(-1)


@inline_kernel
def _tag(realm, length, bucket):  # type: ignore[no-untyped-def]
    return np.int64(realm + 1) << 32 | np.int64(length) << 16 | np.int64(bucket)


@inline_kernel
def _has_ports(protocol: int) -> bool:
    return protocol == 6 or protocol == 17 or protocol == 33 or protocol == 132 or protocol == 136


@inline_kernel
def _gather(table, realm, hi, lo, bucket, groups):  # type: ignore[no-untyped-def]
    """Groups that may own the address, longest prefix first, into `groups`; returns their number."""
    found = 0
    mapped = hi == np.uint64(0) and (lo >> np.uint64(32)) == np.uint64(0xFFFF)
    for at in range(table.lengths_first[realm + 1], table.lengths_first[realm + 2]):
        length = table.lengths[at]
        if mapped and length < 96:
            break  # an IPv6 prefix is no home of IPv4 addresses
        masked_hi = hi & _mask(length)
        masked_lo = lo & _mask(length - 64)
        group = _find(table, _tag(realm, length, WHOLE_BUCKET), masked_hi, masked_lo)
        if group >= 0:
            groups[found] = group
            found += 1
        if bucket > 0:
            group = _find(table, _tag(realm, length, bucket), masked_hi, masked_lo)
            if group >= 0:
                groups[found] = group
                found += 1
    return found


@inline_kernel
def _owner_at(table, groups, found, protocol, port, instant, until):  # type: ignore[no-untyped-def]
    """The lease that owns at `instant` (-1: none) and the instant, at most `until`, up to which that stays so.

    The two groups of one prefix length never match at the same time (imports refuse it), so the first match wins.
    """
    for at in range(found):
        group = groups[at]
        for lease in range(group >> 32, (group >> 32) + (group & 0xFFFFFFFF)):
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
                return lease, min(until, table.leases[lease, END])
            until = start  # a more specific lease begins there
    return -1, until


@inline_kernel
def _covered(table, realm, hi, lo, bucket, start, end, groups):  # type: ignore[no-untyped-def]
    """Whether a group of this bucket holds a lease of the address at any instant of the flow."""
    mapped = hi == np.uint64(0) and (lo >> np.uint64(32)) == np.uint64(0xFFFF)
    for at in range(table.lengths_first[realm + 1], table.lengths_first[realm + 2]):
        length = table.lengths[at]
        if mapped and length < 96:
            break
        group = _find(table, _tag(realm, length, bucket), hi & _mask(length), lo & _mask(length - 64))
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


@kernel
def resolve(table, realm_rules, cut_rules, flows, first, in_cut, status, pieces, groups):  # type: ignore[no-untyped-def]
    """Resolve flows from row `first` on until all are done or `pieces` is nearly full.

    Writes in_cut[n], status[n, 2] and pieces; returns (the row to go on from, the number of pieces written). `groups`
    is room for the GROUPS_MAX groups of leases that can cover one address.
    """
    written = 0
    for row in range(first, flows.start.size):
        if written + 256 > pieces.flow.size:
            return row, written
        exporter_hi, exporter_lo = _word(flows.exporter, row, 0), _word(flows.exporter, row, 8)
        input_interface, output_interface = np.int64(flows.input_interface[row]), np.int64(flows.output_interface[row])
        in_cut[row] = _in_cut(
            cut_rules, exporter_hi, exporter_lo, input_interface, output_interface, flows.flow_direction[row]
        )
        realm = _realm_of(realm_rules, exporter_hi, exporter_lo, input_interface, output_interface)
        protocol = np.int64(flows.protocol[row])
        start, end = flows.start[row], flows.end[row]
        for side in range(2):
            if side == 0:
                hi, lo = _word(flows.source_address, row, 0), _word(flows.source_address, row, 8)
                port = np.int64(flows.source_port[row])
            else:
                hi, lo = _word(flows.destination_address, row, 0), _word(flows.destination_address, row, 8)
                port = np.int64(flows.destination_port[row])
            if not _has_ports(protocol):
                port = np.int64(0)
            bucket = 1 + (port >> BUCKET_SHIFT) if port > 0 else 0
            found = _gather(table, realm, hi, lo, bucket, groups)
            owned = False
            instant = start
            before = written
            while found > 0:
                lease, until = _owner_at(table, groups, found, protocol, port, instant, max(end, start + 1))
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
            elif _covered(table, INFRASTRUCTURE_REALM, hi, lo, WHOLE_BUCKET, start, end, groups):
                status[row, side] = END_INFRASTRUCTURE
            elif port == 0 and _covered(table, realm, hi, lo, SHARED_BUCKET, start, end, groups):
                status[row, side] = END_NO_PORT
            else:
                status[row, side] = END_UNKNOWN
    return flows.start.size, written
