"""The hot loops of traffic classes: prefixes to ranges of addresses, and the class of the far end of each span.

A range holds a code: a class by itself (0 or more) where the best rule asks for nothing but the address, else the complement
of a list of rules that are tried in order of rank; the last of a list asks for nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aggregation.kernels import ATTRIBUTED, DONE
from core.jit import inline_kernel, kernel, load_be64

Int64 = NDArray[np.int64]

NEST_MAX = 130
"""Distinct prefixes that hold one address, and one more."""

ALL = np.uint64(0xFFFFFFFFFFFFFFFF)

# Bits of `needs`: which conditions a rule has beside its prefixes
NEEDS_DIRECTION, NEEDS_DSCP, NEEDS_PROTOCOL, NEEDS_AS, NEEDS_PORT, NEEDS_NEAR_PORT, NEEDS_INTERFACE = 1, 2, 4, 8, 16, 32, 64

RANGE_KINDS = 3
"""A rule's ranges in `low` and `high`: those of AS numbers, of far ports and of near ports."""


class ClassRanges(NamedTuple):
    """Ranges of addresses that follow each other from address 0 on, each with a code; those of IPv4 by themselves, too."""

    first_high: NDArray[np.uint64]
    first_low: NDArray[np.uint64]
    range_class: NDArray[np.int32]
    ipv4_first: NDArray[np.uint32]
    ipv4_class: NDArray[np.int32]
    ipv4_top: NDArray[np.int32]  # by the first bits of an address: the range of the first address with them; one more: the last
    ipv4_shift: Int64  # (1,) bits of an address behind those


class ClassRules(NamedTuple):
    """Lists of rules, and what each rule asks for beside its prefixes. The rules of list i: `rule`[first[i] : first[i + 1]]."""

    first: Int64
    rule: Int64
    needs: Int64
    rule_class: NDArray[np.int16]
    direction: Int64  # 0 up, 1 down
    dscp: NDArray[np.uint64]  # a bit a value
    protocols: NDArray[np.uint64]  # (rules * 4,) a bit a protocol
    ranges_first: Int64  # (rules * RANGE_KINDS + 1,) where in `low` and `high` the ranges of a rule and kind begin
    low: Int64
    high: Int64
    interfaces_first: Int64  # (rules + 1,)
    exporter_high: NDArray[np.uint64]
    exporter_low: NDArray[np.uint64]
    interface: Int64  # -1: all of the exporter


class FlowFacts(NamedTuple):
    """Columns of flows that rules ask about; addresses have 16 octets each. Those that no rule asks about may be empty."""

    source_address: NDArray[np.uint8]
    destination_address: NDArray[np.uint8]
    exporter: NDArray[np.uint8]
    source_as: NDArray[np.uint32]
    destination_as: NDArray[np.uint32]
    tos: NDArray[np.uint8]
    protocol: NDArray[np.uint8]
    source_port: NDArray[np.uint16]
    destination_port: NDArray[np.uint16]
    input_interface: NDArray[np.uint32]
    output_interface: NDArray[np.uint32]


@inline_kernel
def _last_high(high: np.uint64, length: np.uint64) -> Any:
    """The high word of a prefix's last address."""
    if length >= np.uint64(64):
        return high
    return high | ALL >> length


@inline_kernel
def _last_low(low: np.uint64, length: np.uint64) -> Any:
    if length <= np.uint64(64):
        return ALL
    if length == np.uint64(128):
        return low
    return low | ALL >> (length - np.uint64(64))


@inline_kernel
def _begin(out_high: NDArray[np.uint64], out_low: NDArray[np.uint64], out_prefix: NDArray[np.int32], count: np.uint64,
           high: np.uint64, low: np.uint64, prefix: int) -> Any:
    """From this address on, this prefix is the innermost. Returns the number of ranges."""
    at = count - np.uint64(1)
    if out_high[at] != high or out_low[at] != low:
        at = count
    out_high[at] = high
    out_low[at] = low
    out_prefix[at] = prefix
    return at + np.uint64(1)


@kernel
def lay_ranges(high: NDArray[np.uint64], low: NDArray[np.uint64], length: NDArray[np.uint8], stack: Int64,
               parent: NDArray[np.int32], level: NDArray[np.uint8], out_high: NDArray[np.uint64],
               out_low: NDArray[np.uint64], out_prefix: NDArray[np.int32]) -> int:
    """Prefixes, ordered by address and length, none twice → ranges from address 0 on, each with the innermost prefix (-1:
    none), and of each prefix the one around it and how many those are. `out_…` has room for 2 * prefixes + 1."""
    size = np.uint64(high.size)
    depth = np.uint64(0)
    out_high[0] = np.uint64(0)
    out_low[0] = np.uint64(0)
    out_prefix[0] = -1
    count = np.uint64(1)
    for i in range(size + np.uint64(1)):
        while depth > np.uint64(0):
            top = np.uint64(stack[depth - np.uint64(1)])
            bits = np.uint64(length[top])
            last_high, last_low = _last_high(high[top], bits), _last_low(low[top], bits)
            if i < size and (last_high > high[i] or (last_high == high[i] and last_low >= low[i])):
                break
            depth -= np.uint64(1)
            if last_low != ALL:
                next_high, next_low = last_high, last_low + np.uint64(1)
            else:
                next_high, next_low = last_high + np.uint64(1), np.uint64(0)
            if next_high != np.uint64(0) or next_low != np.uint64(0):  # else it ends with the last address there is
                around = np.int64(-1)
                if depth > np.uint64(0):
                    around = stack[depth - np.uint64(1)]
                count = _begin(out_high, out_low, out_prefix, count, next_high, next_low, around)
        if i < size:
            parent[i] = -1
            if depth > np.uint64(0):
                parent[i] = stack[depth - np.uint64(1)]
            level[i] = depth
            stack[depth] = i
            depth += np.uint64(1)
            count = _begin(out_high, out_low, out_prefix, count, high[i], low[i], np.int64(i))
    return np.int64(count)


@inline_kernel
def _code_of(ranges: Any, high: np.uint64, low: np.uint64) -> Any:
    """The code of an address: that of the last range that does not begin after it."""
    if high == np.uint64(0) and low >> np.uint64(32) == np.uint64(0xFFFF):
        address = np.uint32(low & np.uint64(0xFFFFFFFF))
        top = np.uint64(address) >> np.uint64(ranges.ipv4_shift[0])
        a, b = np.uint64(ranges.ipv4_top[top]), np.uint64(ranges.ipv4_top[top + np.uint64(1)]) + np.uint64(1)
        while b - a > np.uint64(1):
            middle = (a + b) >> np.uint64(1)
            if ranges.ipv4_first[middle] <= address:
                a = middle
            else:
                b = middle
        return np.int64(ranges.ipv4_class[a])
    a, b = np.uint64(0), np.uint64(ranges.first_high.size)
    while b - a > np.uint64(1):
        middle = (a + b) >> np.uint64(1)
        if ranges.first_high[middle] < high or (ranges.first_high[middle] == high and ranges.first_low[middle] <= low):
            a = middle
        else:
            b = middle
    return np.int64(ranges.range_class[a])


@kernel
def find_codes(addresses: NDArray[np.uint8], ranges: Any, out: Int64) -> int:
    """The code of each address; `addresses` has 16 octets each."""
    for i in range(np.uint64(out.size)):
        at = i * np.uint64(16)
        out[i] = _code_of(ranges, np.uint64(load_be64(addresses, at)), np.uint64(load_be64(addresses, at + np.uint64(8))))
    return DONE


@inline_kernel
def _is_within(rules: Any, place: np.uint64, value: int) -> Any:
    """Whether one of the ranges at a place holds the value; they are in order and apart."""
    a, b = rules.ranges_first[place], rules.ranges_first[place + np.uint64(1)]
    while b - a > 1:
        middle = (a + b) >> 1
        if rules.low[np.uint64(middle)] <= value:
            a = middle
        else:
            b = middle
    return rules.low[np.uint64(a)] <= value and value <= rules.high[np.uint64(a)]


@inline_kernel
def _is_listed(rules: Any, rule: np.uint64, high: np.uint64, low: np.uint64, interface: int) -> Any:
    """Whether a rule lists this interface of this exporter."""
    found = False
    for i in range(np.uint64(rules.interfaces_first[rule]), np.uint64(rules.interfaces_first[rule + np.uint64(1)])):
        if rules.exporter_high[i] == high and rules.exporter_low[i] == low and (
                rules.interface[i] == -1 or rules.interface[i] == interface):
            found = True
            break
    return found


@inline_kernel
def _holds(rules: Any, rule: np.uint64, flows: Any, flow: np.uint64, far_is_source: bool) -> Any:
    """Whether everything that a rule asks for beside its prefixes is so."""
    needs = rules.needs[rule]
    if needs & NEEDS_DIRECTION != 0 and rules.direction[rule] != np.int64(far_is_source):
        return False
    if needs & NEEDS_PROTOCOL != 0:
        protocol = np.uint64(flows.protocol[flow])
        word = rules.protocols[rule * np.uint64(4) + (protocol >> np.uint64(6))]
        if word >> (protocol & np.uint64(63)) & np.uint64(1) == np.uint64(0):
            return False
    if needs & NEEDS_DSCP != 0:
        dscp = np.uint64(flows.tos[flow]) >> np.uint64(2)
        if rules.dscp[rule] >> dscp & np.uint64(1) == np.uint64(0):
            return False
    if needs & NEEDS_PORT != 0:
        port = np.int64(flows.source_port[flow] if far_is_source else flows.destination_port[flow])
        if not _is_within(rules, rule * np.uint64(RANGE_KINDS) + np.uint64(1), port):
            return False
    if needs & NEEDS_NEAR_PORT != 0:
        port = np.int64(flows.destination_port[flow] if far_is_source else flows.source_port[flow])
        if not _is_within(rules, rule * np.uint64(RANGE_KINDS) + np.uint64(2), port):
            return False
    if needs & NEEDS_AS != 0:
        number = np.int64(flows.source_as[flow] if far_is_source else flows.destination_as[flow])
        if not _is_within(rules, rule * np.uint64(RANGE_KINDS), number):
            return False
    if needs & NEEDS_INTERFACE != 0:
        interface = np.int64(flows.input_interface[flow] if far_is_source else flows.output_interface[flow])
        at = flow * np.uint64(16)
        if not _is_listed(rules, rule, np.uint64(load_be64(flows.exporter, at)),
                          np.uint64(load_be64(flows.exporter, at + np.uint64(8))), interface):
            return False
    return True


@kernel
def classify_spans(flows: Any, ranges: Any, rules: Any, is_part: bool, from_ms: int, to_ms: int, spans: Any) -> int:
    """The class of the far end of attributed spans that begin in [from_ms, to_ms); all, unless `is_part`."""
    for i in range(np.uint64(spans.flow.size)):
        if spans.outcome[i] != ATTRIBUTED:
            continue
        if is_part and (spans.from_ms[i] < from_ms or spans.from_ms[i] >= to_ms):
            continue
        flow = np.uint64(spans.flow[i])
        at = flow * np.uint64(16)
        far_is_source = spans.end[i] != 0
        far = flows.source_address if far_is_source else flows.destination_address
        code = _code_of(ranges, np.uint64(load_be64(far, at)), np.uint64(load_be64(far, at + np.uint64(8))))
        if code < 0:
            place = np.uint64(rules.first[np.uint64(-1 - code)])
            rule = np.uint64(rules.rule[place])
            while rules.needs[rule] != 0 and not _holds(rules, rule, flows, flow, far_is_source):
                place += np.uint64(1)
                rule = np.uint64(rules.rule[place])
            code = np.int64(rules.rule_class[rule])
        spans.far_class[i] = code
    return DONE


@kernel
def cut_spans(spans: Any, edges: Int64, out: Any) -> int:
    """Cut attributed spans at the edges inside of them. Returns their number; `out` has room for spans * (edges + 1)."""
    count = np.uint64(0)
    for i in range(np.uint64(spans.flow.size)):
        a, b = spans.from_ms[i], spans.to_ms[i]
        edge = np.uint64(0)
        while True:
            while edge < np.uint64(edges.size) and edges[edge] <= a:
                edge += np.uint64(1)
            until = b
            if spans.outcome[i] == ATTRIBUTED and edge < np.uint64(edges.size):
                until = min(b, edges[edge])
            out.flow[count] = spans.flow[i]
            out.outcome[count] = spans.outcome[i]
            out.end[count] = spans.end[i]
            out.on_net[count] = spans.on_net[i]
            out.service[count] = spans.service[i]
            out.from_ms[count] = a
            out.to_ms[count] = until
            count += np.uint64(1)
            if until >= b:
                break
            a = until
    return np.int64(count)
