"""The hot loops of sums of cells: rows in any order → runs of cells in the order of their key → one run.

A *row* is what one flow adds to one cell: four words, key, octets, packets, flows. The key holds, from its highest bit on,
service (30 bits), the number of its slot (16), class (15), direction (1) and sampled (1). Slots are numbered as they are met;
before rows are sorted, numbers become ranks in time, so that the order of keys is that of cell files. A *run* is columns of
cells, each key once. Sorting moves whole rows, never looks them up: first into parts that fit into the processor's second
cache, by the highest bits of the key, then each part digit by digit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.jit import inline_kernel, kernel

DONE, FULL, OVERFLOW = 0, 1, 2
COUNT_MAX = 2**62

KEY, OCTETS, PACKETS, FLOWS = 0, 1, 2, 3  # columns of a row
LOW_BITS = 17  # class, direction and sampled
SLOT_BITS = 16
SERVICE_SHIFT = LOW_BITS + SLOT_BITS
SLOTS_MAX = 1 << SLOT_BITS
SLOT_PLACES = 2 * SLOTS_MAX
FREE = -1

DIGIT_BITS = 11
DIGITS = 1 << DIGIT_BITS
PART_ROWS = 2048

Int64 = NDArray[np.int64]


class SlotNumbers(NamedTuple):
    """The starts of slots in the order in which they were met, and a hash table that leads to them."""

    start: Int64  # (SLOTS_MAX,)
    place: NDArray[np.int32]  # (SLOT_PLACES,) the number of a slot, FREE if none


class Run(NamedTuple):
    """Columns of cells: those of core.schemas.CELLS."""

    service: NDArray[np.int32]
    slot: Int64
    far_class: NDArray[np.int16]
    direction: NDArray[np.uint8]
    sampled: NDArray[np.uint8]
    octets: Int64
    packets: Int64
    flows: Int64


@inline_kernel
def slot_number(slots: Any, state: Int64, slot: int) -> Any:
    """The number of a slot, given now if it is new (state[3] counts them); -1 if there is no more room."""
    mixed = np.uint64(slot) * np.uint64(0x9E3779B97F4A7C15)
    place = (mixed ^ (mixed >> np.uint64(32))) & np.uint64(SLOT_PLACES - 1)
    while slots.place[place] != FREE:
        if slots.start[slots.place[place]] == slot:
            return np.int64(slots.place[place])
        place = (place + np.uint64(1)) & np.uint64(SLOT_PLACES - 1)
    if state[3] >= SLOTS_MAX:
        return np.int64(-1)
    number = state[3]
    slots.place[place] = np.int32(number)
    slots.start[number] = slot
    state[3] = number + 1
    return np.int64(number)


@kernel
def key_bounds(rows: Int64, count: int, bounds: Int64) -> int:
    """bounds: the lowest and the highest service, and the highest class with direction and sampled."""
    low = high = rows[0, KEY] >> SERVICE_SHIFT
    most = np.int64(0)
    for i in range(np.uint64(count)):
        key = rows[i, KEY]
        low, high = min(low, key >> SERVICE_SHIFT), max(high, key >> SERVICE_SHIFT)
        most = max(most, key & ((1 << LOW_BITS) - 1))
    bounds[0], bounds[1], bounds[2] = low, high, most
    return DONE


@kernel
def pack_keys(rows: Int64, count: int, rank: Int64, low_service: int, slot_bits: int, low_bits: int) -> int:
    """Leave out of keys what is the same in all, and put ranks of slots in place of their numbers."""
    for i in range(np.uint64(count)):
        key = rows[i, KEY]
        packed = (key >> SERVICE_SHIFT) - low_service
        packed = packed << slot_bits | rank[np.uint64(key >> LOW_BITS & (SLOTS_MAX - 1))]
        rows[i, KEY] = packed << low_bits | key & ((1 << LOW_BITS) - 1)
    return DONE


@inline_kernel
def _move(source: Int64, i: int, target: Int64, at: int) -> int:
    target[at, KEY] = source[i, KEY]
    target[at, OCTETS] = source[i, OCTETS]
    target[at, PACKETS] = source[i, PACKETS]
    target[at, FLOWS] = source[i, FLOWS]
    return 0


@inline_kernel
def _by_digit(source: Int64, target: Int64, low: int, high: int, shift: int, mask: int, at: Int64) -> int:
    """Move rows [low, high) in order of a digit; at: room for mask + 2 numbers, then where each digit's rows end."""
    for digit in range(np.uint64(mask + 2)):
        at[digit] = 0
    for i in range(np.uint64(low), np.uint64(high)):
        at[np.uint64(source[i, KEY] >> shift & mask) + np.uint64(1)] += 1
    total = low
    for digit in range(np.uint64(mask + 2)):
        total += at[digit]
        at[digit] = total
    for i in range(np.uint64(low), np.uint64(high)):
        bucket = np.uint64(source[i, KEY] >> shift & mask)
        place = np.uint64(at[bucket])
        at[bucket] = np.int64(place) + 1
        _move(source, i, target, place)
    return 0


@kernel
def sort_rows(rows: Int64, room: Int64, count: int, bits: int, part_bits: int, at: Int64, digit_at: Int64) -> int:
    """Sort rows by keys of `bits` bits: into 2^part_bits parts by the highest, then each. Returns 1 if the result is in `room`.

    at, digit_at: room for DIGITS + 1 numbers each.
    """
    if part_bits > 0:
        _by_digit(rows, room, 0, count, bits - part_bits, (1 << part_bits) - 1, at)
        rows, room = room, rows
    else:
        at[0] = count
    rest = bits - part_bits
    passes = (rest + DIGIT_BITS - 1) // DIGIT_BITS
    for part in range(1 << part_bits):
        low = 0 if part == 0 else at[part - 1]
        high = at[part]
        shift = 0
        source, target = rows, room
        for done in range(passes):
            width = (rest - shift) // (passes - done)
            if high - low > 1:
                _by_digit(source, target, low, high, shift, (1 << width) - 1, digit_at)
            elif high - low == 1:
                _move(source, low, target, low)
            source, target = target, source
            shift += width
    return (passes & 1) ^ (1 if part_bits > 0 else 0)


@kernel
def sum_rows(rows: Int64, count: int, slots: Int64, low_service: int, slot_bits: int, low_bits: int, run: Any,
             counted: Int64) -> int:
    """Add up rows of equal keys, which follow each other, into cells; counted[0]: how many. slots: starts by rank."""
    cells = np.int64(-1)
    before = np.int64(-1)
    octets = packets = flows = np.int64(0)
    for i in range(np.uint64(count)):
        key = rows[i, KEY]
        if key != before:
            cells += 1
            before = key
            octets = packets = flows = np.int64(0)
            at = np.uint64(cells)
            low = key & ((1 << low_bits) - 1)
            run.service[at] = np.int32((key >> (slot_bits + low_bits)) + low_service)
            run.slot[at] = slots[np.uint64(key >> low_bits & ((1 << slot_bits) - 1))]
            run.far_class[at] = np.int16(low >> 2)
            run.direction[at] = np.uint8(low >> 1 & 1)
            run.sampled[at] = np.uint8(low & 1)
        if octets > COUNT_MAX - rows[i, OCTETS] or packets > COUNT_MAX - rows[i, PACKETS]:
            return OVERFLOW
        octets += rows[i, OCTETS]
        packets += rows[i, PACKETS]
        flows += rows[i, FLOWS]
        at = np.uint64(cells)
        run.octets[at] = octets
        run.packets[at] = packets
        run.flows[at] = flows
    counted[0] = cells + 1
    return DONE


@inline_kernel
def _order(one: Any, i: int, other: Any, j: int) -> int:
    """-1 if cell i of one run comes before cell j of another, 1 if after, 0 if both are the same cell."""
    if one.service[i] != other.service[j]:
        return -1 if one.service[i] < other.service[j] else 1
    if one.slot[i] != other.slot[j]:
        return -1 if one.slot[i] < other.slot[j] else 1
    low = np.int64(one.far_class[i]) << 2 | np.int64(one.direction[i]) << 1 | np.int64(one.sampled[i])
    other_low = np.int64(other.far_class[j]) << 2 | np.int64(other.direction[j]) << 1 | np.int64(other.sampled[j])
    if low != other_low:
        return -1 if low < other_low else 1
    return 0


@inline_kernel
def _copy(source: Any, i: int, target: Any, at: int) -> int:
    target.service[at] = source.service[i]
    target.slot[at] = source.slot[i]
    target.far_class[at] = source.far_class[i]
    target.direction[at] = source.direction[i]
    target.sampled[at] = source.sampled[i]
    target.octets[at] = source.octets[i]
    target.packets[at] = source.packets[i]
    target.flows[at] = source.flows[i]
    return 0


@kernel
def merge_runs(one: Any, other: Any, merged: Any, counted: Int64) -> int:
    """Two runs → one with room for both; counted[0]: its cells."""
    i = j = at = np.uint64(0)
    ones, others, step = np.uint64(one.slot.size), np.uint64(other.slot.size), np.uint64(1)
    while i < ones or j < others:
        order = 1 if i == ones else -1 if j == others else _order(one, i, other, j)
        if order <= 0:
            _copy(one, i, merged, at)
            i += step
        else:
            _copy(other, j, merged, at)
        if order == 0:
            if merged.octets[at] > COUNT_MAX - other.octets[j] or merged.packets[at] > COUNT_MAX - other.packets[j]:
                return OVERFLOW
            merged.octets[at] += other.octets[j]
            merged.packets[at] += other.packets[j]
            merged.flows[at] += other.flows[j]
        if order >= 0:
            j += step
        at += step
    counted[0] = np.int64(at)
    return DONE
