"""Plain plans: one flow a record, every column from one field or from the set.

Each column is written straight from the data, field outside, record inside. Whatever needs a decision for a single record
(a time of zero, a count beyond its bound, an end before its start) makes the set odd: the general stages of `rows` then
decode it once more. Rows are counted without sign: the compiler need not think of negative indexes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import (
    AHEAD_MS,
    ASSUMED,
    BY_SAMPLER,
    BY_UPTIME,
    CLOCK_MOVED,
    COUNT_MAX,
    FAR_INSTANT,
    QUARANTINE,
    QUARANTINED,
    REJECT,
    SAMPLER_SHIFT,
    WRAP,
)
from collector.kernels.elements import (
    BGP_NEXT_HOP4,
    BGP_NEXT_HOP6,
    DESTINATION4,
    DESTINATION6,
    DESTINATION_AS,
    DESTINATION_PORT,
    DIRECTION,
    END_MS,
    END_UPTIME,
    ICMP4,
    ICMP4_CODE,
    ICMP4_TYPE,
    ICMP6,
    ICMP6_CODE,
    ICMP6_TYPE,
    INPUT,
    LAST_V4,
    NEXT_HOP4,
    NEXT_HOP6,
    OCTETS,
    OUTPUT,
    PACKETS,
    PROTOCOL,
    SAMPLER,
    SELECTOR,
    SOURCE4,
    SOURCE6,
    SOURCE_AS,
    SOURCE_PORT,
    START_MS,
    START_UPTIME,
    TCP_FLAGS,
    TOS,
)
from collector.kernels.fields import load_number
from collector.kernels.sampling import code_of, rate_of_set, sampler_rate
from collector.kernels.times import clock_move
from collector.kernels.writing import fill, write_common
from core.jit import inline_kernel, kernel, load_be16, load_be32, load_be64, load_le32, load_le64


@inline_kernel
def copy_field(column: Any, row: Any, count: Any, data: Any, at: int, stride: int, place: int) -> None:
    """A number of 1, 2, 4 or 8 octets of each record; zeros for a field that is not there."""
    if place < 0:
        fill(column, row, count, 0)
        return
    length = place & 0xFFFF
    at += place >> 16
    if length == 4:
        for r in range(count):
            column[row + r] = load_be32(data, at)
            at += stride
    elif length == 2:
        for r in range(count):
            column[row + r] = load_be16(data, at)
            at += stride
    elif length == 1:
        for r in range(count):
            column[row + r] = data[np.uint64(at)]
            at += stride
    else:
        for r in range(count):
            column[row + r] = load_be64(data, at)
            at += stride


@inline_kernel
def copy_count(column: Any, row: Any, count: Any, data: Any, at: int, stride: int, place: int) -> Any:
    """Octets or packets: (their sum, all their bits): a count of eight octets may not fit."""
    bits = np.int64(0)
    total = np.int64(0)
    if place < 0:
        fill(column, row, count, 0)
        return total, bits
    length = place & 0xFFFF
    at += place >> 16
    if length == 4:
        for r in range(count):
            value = load_be32(data, at)
            column[row + r] = value
            total += value
            bits |= value
            at += stride
    else:
        for r in range(count):
            value = load_number(data, at, length)
            column[row + r] = value
            total += value
            bits |= value
            at += stride
    return total, bits


@inline_kernel
def copy_address(column: Any, row: Any, count: Any, data: Any, at: int, stride: int, four: int, six: int) -> None:
    """The address of each record, of one family or the other."""
    if four >= 0:
        at += four >> 16
        for r in range(count):
            column[row + r, 0] = 0
            column[row + r, 1] = np.uint64((load_le32(data, at) << 32) | 0xFFFF0000)
            at += stride
    elif six >= 0:
        at += six >> 16
        for r in range(count):
            column[row + r, 0] = load_le64(data, at)
            column[row + r, 1] = load_le64(data, at + 8)
            at += stride
    else:
        for r in range(count):
            column[row + r, 0] = 0
            column[row + r, 1] = 0


@inline_kernel
def copy_next_hop(column: Any, row: Any, count: Any, data: Any, at: int, stride: int, place: Any) -> None:
    """The next hop; where a template has several, the first that is not zero, the last as it is."""
    for r in range(count):
        column[row + r, 0] = 0
        column[row + r, 1] = 0
    if place[NEXT_HOP4] < 0 and place[NEXT_HOP6] < 0 and place[BGP_NEXT_HOP4] < 0 and place[BGP_NEXT_HOP6] < 0:
        return
    for r in range(count):
        done = False
        for k in range(4):
            slot = NEXT_HOP4 if k == 0 else (NEXT_HOP6 if k == 1 else (BGP_NEXT_HOP4 if k == 2 else BGP_NEXT_HOP6))
            if not done and place[slot] >= 0:
                from_ = at + (place[slot] >> 16)
                if slot <= LAST_V4:
                    value = load_le32(data, from_)
                    if value != 0:
                        column[row + r, 1] = np.uint64((value << 32) | 0xFFFF0000)
                        done = True
                else:
                    column[row + r, 0] = load_le64(data, from_)
                    column[row + r, 1] = load_le64(data, from_ + 8)
                    done = (column[row + r, 0] | column[row + r, 1]) != 0
        at += stride


@inline_kernel
def copy_uptimes(starts: Any, ends: Any, row: Any, count: Any, data: Any, at: int, stride: int, first: int, last: int,
                 base: int, uptime: int) -> Any:
    """Start and end from uptimes, `base` being the instant of uptime 0; whether one of them needs a decision."""
    odd = False
    first = at + (first >> 16)
    last = at + (last >> 16)
    limit = uptime + AHEAD_MS
    for r in range(count):
        start = load_be32(data, first)
        end = load_be32(data, last)
        start -= WRAP if start > limit else 0
        end -= WRAP if end > limit else 0
        starts[row + r] = base + start
        ends[row + r] = base + end
        odd |= end < start
        first += stride
        last += stride
    return odd


@inline_kernel
def copy_instants(starts: Any, ends: Any, row: Any, count: Any, data: Any, at: int, stride: int, first: int, last: int,
                  move: int) -> Any:
    """Start and end as milliseconds since 1970; whether one of them needs a decision."""
    odd = False
    first = at + (first >> 16)
    last = at + (last >> 16)
    for r in range(count):
        start = load_be64(data, first)
        end = load_be64(data, last)
        starts[row + r] = start + move
        ends[row + r] = end + move
        odd |= (start <= 0) | (end < start) | (end >= FAR_INSTANT) | (end - start >= WRAP)
        first += stride
        last += stride
    return odd


@inline_kernel
def one_sampler(data: Any, at: int, stride: int, count: int, place: int) -> Any:
    """(whether all records name one sampler, which)."""
    at += place >> 16
    length = place & 0xFFFF
    first = load_number(data, at, length)
    same = True
    for _ in range(1, count):
        at += stride
        same &= load_number(data, at, length) == first
    return same, first


@kernel
def write_plain(data: Any, job: Any, stride: int, kind: int, place: Any, out: Any, base: int, move: int,
                source: int, numerator: int, denominator: int, quarantined: int) -> Any:
    """All columns of a set of a plain plan but what it has in common; False if it is odd. The sum of octets goes into job."""
    at = job["start"]
    records = job["records"]
    row = np.uint64(job["row"])
    count = np.uint64(records)
    octets, octets_bits = copy_count(out.octets, row, count, data, at, stride, place[OCTETS])
    _, packets_bits = copy_count(out.packets, row, count, data, at, stride, place[PACKETS])
    bits = octets_bits | packets_bits
    if bits < 0 or bits >= COUNT_MAX or bits // denominator >= COUNT_MAX // numerator:
        return False
    if kind == BY_UPTIME:
        odd = copy_uptimes(out.start, out.end, row, count, data, at, stride, place[START_UPTIME], place[END_UPTIME],
                           base + move, job["uptime"])
    else:
        odd = copy_instants(out.start, out.end, row, count, data, at, stride, place[START_MS], place[END_MS], move)
    if odd:
        return False
    copy_address(out.source_address, row, count, data, at, stride, place[SOURCE4], place[SOURCE6])
    copy_address(out.destination_address, row, count, data, at, stride, place[DESTINATION4], place[DESTINATION6])
    copy_next_hop(out.next_hop, row, count, data, at, stride, place)
    copy_field(out.source_port, row, count, data, at, stride, place[SOURCE_PORT])
    copy_field(out.destination_port, row, count, data, at, stride, place[DESTINATION_PORT])
    copy_field(out.protocol, row, count, data, at, stride, place[PROTOCOL])
    copy_field(out.tos, row, count, data, at, stride, place[TOS])
    copy_field(out.tcp_flags, row, count, data, at, stride, place[TCP_FLAGS])
    copy_field(out.input_interface, row, count, data, at, stride, place[INPUT])
    copy_field(out.output_interface, row, count, data, at, stride, place[OUTPUT])
    copy_field(out.source_as, row, count, data, at, stride, place[SOURCE_AS])
    copy_field(out.destination_as, row, count, data, at, stride, place[DESTINATION_AS])
    if place[DIRECTION] >= 0:
        copy_field(out.flow_direction, row, count, data, at, stride, place[DIRECTION])
        for r in range(count):
            if out.flow_direction[row + r] > 1:
                out.flow_direction[row + r] = 255
    else:
        fill(out.flow_direction, row, count, 255)
    fill(out.rate_numerator, row, count, numerator)
    fill(out.rate_denominator, row, count, denominator)
    fill(out.rate_source, row, count, source)
    fill(out.flags, row, count, quarantined | (CLOCK_MOVED if move != 0 else 0))
    icmp = False
    for r in range(count):
        protocol = out.protocol[row + r]
        if protocol != 6:
            out.tcp_flags[row + r] = 0
        icmp |= (protocol == 1) | (protocol == 58)
    if icmp:
        write_icmp(out, data, at, stride, records, row, place)
    job["octets"] = octets
    return True


@kernel
def write_icmp(out: Any, data: Any, at: int, stride: int, records: int, row: Any, place: Any) -> None:
    """ICMP has no ports, its type and code stand in the destination's place."""
    for r in range(np.uint64(records)):
        protocol = out.protocol[row + r]
        if protocol == 1 or protocol == 58:
            both = place[ICMP4] if protocol == 1 else place[ICMP6]
            kind = place[ICMP4_TYPE] if protocol == 1 else place[ICMP6_TYPE]
            code = place[ICMP4_CODE] if protocol == 1 else place[ICMP6_CODE]
            out.source_port[row + r] = 0
            if both >= 0:
                out.destination_port[row + r] = load_number(data, at + (both >> 16), both & 0xFFFF)
            elif kind >= 0:
                value = load_number(data, at + (kind >> 16), kind & 0xFFFF) << 8
                if code >= 0:
                    value |= load_number(data, at + (code >> 16), code & 0xFFFF)
                out.destination_port[row + r] = value
        at += stride


@kernel
def decode_plain(data: Any, job: Any, plan: Any, place: Any, owner: Any, samplers: Any, sampler_table: Any, changes: Any,
                 out: Any, policy: Any) -> Any:
    """A set of a plain plan; False if it is odd and must be decoded by the general stages."""
    numerator, denominator, source = rate_of_set(job)
    sampler = np.int64(0)
    for kind in range(2):
        where = place[SAMPLER] if kind == 0 else place[SELECTOR]
        if where >= 0 and source != BY_SAMPLER:
            same, identifier = one_sampler(data, job["start"], plan["stride"], job["records"], where)
            if not same:
                return False
            if sampler == 0:
                sampler = code_of(identifier)
            named, named_denominator = sampler_rate(samplers, sampler_table, changes, job["domain"], kind,
                                                    np.uint64(identifier), job["order"])
            if named > 0:
                numerator, denominator, source = named, named_denominator, np.int64(BY_SAMPLER)
    quarantined = np.int64(0)
    if source == 0:
        if policy.unannounced == REJECT:
            return False
        if policy.unannounced == QUARANTINE:
            quarantined = QUARANTINED | (sampler << SAMPLER_SHIFT)
        numerator, denominator, source = np.int64(1), np.int64(1), np.int64(ASSUMED)
    move = clock_move(job, policy)
    base = job["exported"] - job["uptime"]
    if abs(base) + abs(move) > FAR_INSTANT // 4:
        return False
    if not write_plain(data, job, plan["stride"], plan["plain"], place, out, base, move, source, numerator, denominator,
                       quarantined):
        return False
    write_common(out, job["row"], job["records"], job["received"], owner["high"], owner["low"], owner["domain"],
                 owner["protocol"])
    return True
