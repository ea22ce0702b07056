"""The hot loops of aggregation: scaling, the cumulative split, cells, outcomes and usage. Arrays in, arrays out.

Sums are kept in an open-addressing table: `keys` int64 (capacity, 3), -1 in its first column where a slot is free, and
`sums` int64 (capacity, 3); capacity is a power of two. A loop that finds the table too full stops, writes where it stood
into `state`, and goes on there when it is called again with a larger table, so that nothing is counted twice.

    state[0] used rows of the table   state[1] item to go on with   state[2] instant to go on at, FROM_THE_START if none
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.jit import inline_kernel, kernel

DONE, FULL, OVERFLOW = 0, 1, 2
RATE_ZERO, TIME_BACKWARDS, DURATION_TOO_LONG, COUNT_OUT_OF_RANGE = 3, 4, 5, 6

FROM_THE_START = -(2**63)
COUNT_MAX = 2**62
DURATION_MAX = 2**32
HOUR_MS = 3_600_000
SLOT_MS = 900_000
FIVE_MINUTES_MS = 300_000

# core.schemas.Outcome, core.schemas.Direction and the statuses of subscribers.attribution (held equal by aggregation.cells)
ATTRIBUTED, INFRASTRUCTURE, STRANGER, NO_PORT, AUDIT_ONLY, QUARANTINED = 0, 1, 2, 3, 4, 5
END_UNKNOWN, END_SERVICE, END_NO_PORT, END_INFRASTRUCTURE = 0, 1, 2, 3
UP, DOWN = 0, 1

BY_HOUR, BY_SLOT, BY_FIVE_MINUTES = 0, 1, 2

Int64 = NDArray[np.int64]


class FlowSums(NamedTuple):
    """What the split needs of a flow: its time and its scaled counts."""

    start: Int64
    end: Int64
    octets: Int64
    packets: Int64
    exporter: Int64  # index
    sampled: Int64
    source_class: Int64
    destination_class: Int64


class Spans(NamedTuple):
    """Parts of flow ends with one fate; those of one end follow each other without a gap from start to end."""

    flow: Int64
    outcome: NDArray[np.uint8]
    end: NDArray[np.uint8]  # 0 source, 1 destination
    on_net: NDArray[np.uint8]
    service: Int64
    from_ms: Int64
    to_ms: Int64


class Stretches(NamedTuple):
    """Per service, times under one subscription row (or none). Those of service i: first[i] to first[i + 1]."""

    first: Int64
    start: Int64
    clock: Int64
    month_clock: Int64
    five_minutes: NDArray[np.uint8]


class Clocks(NamedTuple):
    """Per (calendar, time zone), the instants at which zone, offset or local month change."""

    first: Int64
    start: Int64
    zone: Int64  # -1: none
    offset: Int64
    period: Int64  # months since year 0


class Months(NamedTuple):
    """Per time zone, the instants at which local months begin."""

    first: Int64
    start: Int64
    period: Int64


@kernel
def scale(octets: Int64, packets: Int64, numerator: NDArray[np.uint32], denominator: NDArray[np.uint32], start: Int64,
          end: Int64, scaled_octets: Int64, scaled_packets: Int64, at: Int64) -> int:
    """scaled = floor(raw * numerator / denominator), exactly; checks what the split relies on. at[0]: the flow at fault."""
    for i in range(octets.size):
        at[0] = i
        n = np.uint64(numerator[i])
        d = np.uint64(denominator[i])
        if n == np.uint64(0) or d == np.uint64(0):
            return RATE_ZERO
        if end[i] < start[i]:
            return TIME_BACKWARDS
        if end[i] - start[i] >= DURATION_MAX:
            return DURATION_TOO_LONG
        for which in range(2):
            raw = octets[i] if which == 0 else packets[i]
            if raw < 0:
                return COUNT_OUT_OF_RANGE
            q = np.uint64(raw) // d
            r = np.uint64(raw) - q * d
            if q > np.uint64(COUNT_MAX) // n:
                return COUNT_OUT_OF_RANGE
            whole = q * n + (r * n) // d
            if whole > np.uint64(COUNT_MAX):
                return COUNT_OUT_OF_RANGE
            if which == 0:
                scaled_octets[i] = np.int64(whole)
            else:
                scaled_packets[i] = np.int64(whole)
    return DONE


@inline_kernel
def _cumulative(count: int, passed: int, duration: int) -> Any:
    """F = floor(count * passed / duration) for 0 <= passed <= duration < 2^32: count = q * duration + r keeps 64 bits."""
    q = count // duration
    r = count - q * duration
    return q * passed + np.int64(np.uint64(r) * np.uint64(passed) // np.uint64(duration))


@inline_kernel
def _part(count: int, start: int, end: int, a: int, b: int) -> Any:
    """F(b) - F(a): what falls into [a, b); a flow without duration goes whole to its instant."""
    if end == start:
        return count
    return _cumulative(count, b - start, end - start) - _cumulative(count, a - start, end - start)


@inline_kernel
def _row_of(keys: Int64, k0: int, k1: int, k2: int) -> Any:
    """The row of the table that holds this key, or the free one where it belongs."""
    mask = np.uint64(keys.shape[0] - 1)
    h = np.uint64(k0) * np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(29)) ^ np.uint64(k1)) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(32)) ^ np.uint64(k2)) * np.uint64(0x94D049BB133111EB)
    row = (h ^ (h >> np.uint64(31))) & mask
    while keys[row, 0] != -1 and (keys[row, 0] != k0 or keys[row, 1] != k1 or keys[row, 2] != k2):
        row = (row + np.uint64(1)) & mask
    return np.int64(row)


@inline_kernel
def _add(keys: Int64, sums: Int64, state: Int64, k0: int, k1: int, k2: int, one: int, two: int, three: int) -> int:
    row = _row_of(keys, k0, k1, k2)
    if keys[row, 0] == -1:
        if state[0] * 8 >= keys.shape[0] * 5:
            return FULL
        state[0] += 1
        keys[row, 0] = k0
        keys[row, 1] = k1
        keys[row, 2] = k2
    if sums[row, 0] > COUNT_MAX - one or sums[row, 1] > COUNT_MAX - two or sums[row, 2] > COUNT_MAX - three:
        return OVERFLOW
    sums[row, 0] += one
    sums[row, 1] += two
    sums[row, 2] += three
    return DONE


@kernel
def move(old_keys: Int64, old_sums: Int64, keys: Int64, sums: Int64) -> int:
    """Put every row of a table into a larger, empty one."""
    for i in range(old_keys.shape[0]):
        if old_keys[i, 0] != -1:
            row = _row_of(keys, old_keys[i, 0], old_keys[i, 1], old_keys[i, 2])
            for j in range(3):
                keys[row, j] = old_keys[i, j]
                sums[row, j] = old_sums[i, j]
    return DONE


@kernel
def add_rows(keys: Int64, sums: Int64, state: Int64, k0: Int64, k1: Int64, k2: Int64, one: Int64, two: Int64,
             three: Int64) -> int:
    """Add rows that are keys and sums already."""
    for i in range(state[1], k0.size):
        code: int = _add(keys, sums, state, k0[i], k1[i], k2[i], one[i], two[i], three[i])
        if code != DONE:
            state[1] = i
            return code
    return DONE


DIGIT_BITS = 11
DIGITS = 1 << DIGIT_BITS


@inline_kernel
def _digit(k0: int, k1: int, which: int, shift: int, low_0: int, low_1: int) -> Any:
    """One digit of a cell's place: of class, direction and sampled, of the slot, or of the service."""
    if which == 0:
        value = k0 & 0x3FFFF
    elif which == 1:
        value = k1 - low_1
    else:
        value = (k0 >> 18) - low_0
    return np.uint64(value) >> np.uint64(shift) & np.uint64(DIGITS - 1)


@kernel
def sort_cells(k0: Int64, k1: Int64, order: Int64, k0_room: Int64, k1_room: Int64, order_room: Int64, count: Int64) -> int:
    """Put keys of cells, and `order` beside them, in order of service, slot, class, direction and sampled.

    A radix sort from the last digit on: as many passes as the spread of the keys has digits, whatever their number.
    Returns 1 if the result stands in the `_room`s, else 0. `count` is room for DIGITS + 1 counts.
    """
    low_0, low_1, high_0, high_1 = k0[0] >> 18, k1[0], k0[0] >> 18, k1[0]
    for i in range(k0.size):
        low_0, high_0 = min(low_0, k0[i] >> 18), max(high_0, k0[i] >> 18)
        low_1, high_1 = min(low_1, k1[i]), max(high_1, k1[i])
    high = (np.int64(0x3FFFF), high_1 - low_1, high_0 - low_0)
    turned = 0
    for which in range(3):
        shift = 0
        while shift < 64 and np.uint64(high[which]) >> np.uint64(shift) != np.uint64(0):
            count[:] = 0
            for i in range(k0.size):
                count[_digit(k0[i], k1[i], which, shift, low_0, low_1) + np.uint64(1)] += 1
            if count[_digit(k0[0], k1[0], which, shift, low_0, low_1) + np.uint64(1)] < k0.size:
                for digit in range(DIGITS):
                    count[digit + 1] += count[digit]
                for i in range(k0.size):
                    digit = _digit(k0[i], k1[i], which, shift, low_0, low_1)
                    at = count[digit]
                    count[digit] = at + 1
                    k0_room[at] = k0[i]
                    k1_room[at] = k1[i]
                    order_room[at] = order[i]
                k0, k0_room = k0_room, k0
                k1, k1_room = k1_room, k1
                order, order_room = order_room, order
                turned = 1 - turned
            shift += DIGIT_BITS
    return turned


@inline_kernel
def _put(spans: Any, at: int, flow: int, outcome: int, end: int, on_net: int, service: int, a: int, b: int) -> int:
    spans.flow[at] = flow
    spans.outcome[at] = outcome
    spans.end[at] = end
    spans.on_net[at] = on_net
    spans.service[at] = service
    spans.from_ms[at] = a
    spans.to_ms[at] = b
    return at + 1


@inline_kernel
def _fate(source: int, destination: int) -> int:
    """Of a flow without a service end."""
    if source == END_INFRASTRUCTURE or destination == END_INFRASTRUCTURE:
        return INFRASTRUCTURE
    if source == END_NO_PORT or destination == END_NO_PORT:
        return NO_PORT
    return STRANGER


@kernel
def find_spans(start: Int64, end: Int64, in_cut: NDArray[np.uint8], quarantined: NDArray[np.uint8],
               source_status: NDArray[np.uint8], destination_status: NDArray[np.uint8], piece_flow: NDArray[np.int32],
               piece_end: NDArray[np.uint8], piece_from: Int64, piece_to: Int64, piece_service: NDArray[np.int32],
               spans: Any) -> int:
    """What became of every instant of every flow end that counts. Returns the number of spans.

    Pieces are ordered by flow, end and time. `spans` has room for 3 * flows + 2 * pieces.
    """
    count = 0
    piece = 0
    for flow in range(start.size):
        services = np.int64(source_status[flow] == END_SERVICE) + np.int64(destination_status[flow] == END_SERVICE)
        counts_once = in_cut[flow] == 0 or quarantined[flow] != 0 or services == 0
        if counts_once:
            fate = AUDIT_ONLY
            if in_cut[flow] != 0:
                fate = QUARANTINED if quarantined[flow] != 0 else _fate(source_status[flow], destination_status[flow])
            count = _put(spans, count, flow, fate, 0, 0, -1, start[flow], end[flow])
        for which in range(2):
            status = source_status[flow] if which == 0 else destination_status[flow]
            on_net = 1 if which == 1 and services == 2 else 0
            at = start[flow]
            counts = status == END_SERVICE and not counts_once
            owned = False
            while piece < piece_flow.size and piece_flow[piece] == flow and piece_end[piece] == which:
                if counts:
                    if piece_from[piece] > at:
                        count = _put(spans, count, flow, STRANGER, which, on_net, -1, at, piece_from[piece])
                    count = _put(spans, count, flow, ATTRIBUTED, which, on_net, piece_service[piece],
                                 piece_from[piece], piece_to[piece])
                    at = piece_to[piece]
                    owned = True
                piece += 1
            if counts and (at < end[flow] or not owned):
                count = _put(spans, count, flow, STRANGER, which, on_net, -1, at, end[flow])
    return count


@kernel
def cut_outcomes(flows: Any, spans: Any, keys: Int64, sums: Int64, state: Int64) -> int:
    """Spans → (exporter and outcome, UTC quarter hour): octets, on-net octets, flows."""
    for i in range(state[1], spans.flow.size):
        flow = spans.flow[i]
        start = flows.start[flow]
        end = flows.end[flow]
        b = spans.to_ms[i]
        a = spans.from_ms[i] if state[2] == FROM_THE_START else state[2]
        k0 = flows.exporter[flow] * 8 + spans.outcome[i]
        while True:
            slot = a // SLOT_MS * SLOT_MS
            following = min(b, slot + SLOT_MS)
            octets = _part(flows.octets[flow], start, end, a, following)
            begins = np.int64(a == start)
            if octets + begins > 0:
                code: int = _add(keys, sums, state, k0, slot, 0, octets, octets * spans.on_net[i], begins)
                if code != DONE:
                    state[1] = i
                    state[2] = a
                    return code
            if following >= b:
                break
            a = following
        state[2] = FROM_THE_START
    return DONE


@inline_kernel
def _last_not_after(starts: Int64, low: int, high: int, instant: int) -> int:
    """The last index in [low, high) whose start is not after the instant; `low` if none is."""
    while high - low > 1:
        middle = (low + high) // 2
        if starts[middle] <= instant:
            low = middle
        else:
            high = middle
    return low


@kernel
def cut_cells(flows: Any, spans: Any, stretches: Any, clocks: Any, keys: Int64, sums: Int64, state: Int64) -> int:
    """Attributed spans → (service, class, direction, sampled; slot): octets, packets, flows.

    A slot is a UTC quarter hour (5 minutes where the plan needs it), cut at the service's own edges: those of its
    subscription rows, and changes of zone, offset, local hour and local month that lie elsewhere.
    """
    for i in range(state[1], spans.flow.size):
        if spans.outcome[i] != ATTRIBUTED:
            continue
        flow = spans.flow[i]
        start = flows.start[flow]
        end = flows.end[flow]
        far = flows.destination_class[flow] if spans.end[i] == 0 else flows.source_class[flow]
        direction = UP if spans.end[i] == 0 else DOWN
        k0 = spans.service[i] << 18 | far << 2 | direction << 1 | flows.sampled[flow]
        b = spans.to_ms[i]
        a = spans.from_ms[i] if state[2] == FROM_THE_START else state[2]
        stretch_end = stretches.first[spans.service[i] + 1]
        stretch = _last_not_after(stretches.start, stretches.first[spans.service[i]], stretch_end, a)
        clock = stretches.clock[stretch]
        edge = _last_not_after(clocks.start, clocks.first[clock], clocks.first[clock + 1], a)
        while True:
            step = FIVE_MINUTES_MS if stretches.five_minutes[stretch] != 0 else SLOT_MS
            aligned = a // step * step
            hour = a - (a + clocks.offset[edge]) % HOUR_MS
            slot = max(max(aligned, hour), max(stretches.start[stretch], clocks.start[edge]))
            following = min(b, min(aligned + step, hour + HOUR_MS))
            if stretch + 1 < stretch_end:
                following = min(following, stretches.start[stretch + 1])
            if edge + 1 < clocks.first[clock + 1]:
                following = min(following, clocks.start[edge + 1])
            octets = _part(flows.octets[flow], start, end, a, following)
            packets = _part(flows.packets[flow], start, end, a, following)
            begins = np.int64(a == start)
            if octets > 0 or packets > 0 or begins > 0:
                code: int = _add(keys, sums, state, k0, slot, 0, octets, packets, begins)
                if code != DONE:
                    state[1] = i
                    state[2] = a
                    return code
            if following >= b:
                break
            a = following
            if stretch + 1 < stretch_end and stretches.start[stretch + 1] <= a:
                stretch += 1
                clock = stretches.clock[stretch]
                edge = _last_not_after(clocks.start, clocks.first[clock], clocks.first[clock + 1], a)
            elif edge + 1 < clocks.first[clock + 1] and clocks.start[edge + 1] <= a:
                edge += 1
        state[2] = FROM_THE_START
    return DONE


@kernel
def sum_periods(flows: Any, spans: Any, stretches: Any, months: Any, base: int, totals: Int64) -> int:
    """Attributed octets by the service's local month, cut at the months alone: the other side of a balance."""
    for i in range(spans.flow.size):
        if spans.outcome[i] != ATTRIBUTED:
            continue
        flow = spans.flow[i]
        service = spans.service[i]
        a = spans.from_ms[i]
        b = spans.to_ms[i]
        while True:
            stretch = _last_not_after(stretches.start, stretches.first[service], stretches.first[service + 1], a)
            clock = stretches.month_clock[stretch]
            month = _last_not_after(months.start, months.first[clock], months.first[clock + 1], a)
            following = b
            if stretch + 1 < stretches.first[service + 1]:
                following = min(following, stretches.start[stretch + 1])
            if month + 1 < months.first[clock + 1]:
                following = min(following, months.start[month + 1])
            octets = _part(flows.octets[flow], flows.start[flow], flows.end[flow], a, following)
            if totals[months.period[month] - base] > COUNT_MAX - octets:
                return OVERFLOW
            totals[months.period[month] - base] += octets
            if following >= b:
                break
            a = following
    return DONE


@kernel
def cut_usage(by: int, wanted: int, service: NDArray[np.int32], slot: Int64, far: NDArray[np.int16],
              direction: NDArray[np.uint8], sampled: NDArray[np.uint8], octets: Int64, packets: Int64, flow_count: Int64,
              stretches: Any, clocks: Any, keys: Int64, sums: Int64, state: Int64) -> int:
    """Cells → (stretch, zone, class, direction, sampled; local hour or slot; local month): octets, packets, flows.

    `wanted`: only this month, -1 for all. By five minutes: only where the plan needs it, all classes and zones together.
    """
    for i in range(state[1], service.size):
        last = stretches.first[service[i] + 1]
        stretch = _last_not_after(stretches.start, stretches.first[service[i]], last, slot[i])
        five = stretches.five_minutes[stretch] != 0
        clock = stretches.clock[stretch]
        edge = _last_not_after(clocks.start, clocks.first[clock], clocks.first[clock + 1], slot[i])
        if (wanted >= 0 and clocks.period[edge] != wanted) or (by == BY_FIVE_MINUTES and not five):
            continue
        k0 = stretch << 33 | np.int64(direction[i]) << 1 | np.int64(sampled[i])
        k1 = slot[i] - (slot[i] + clocks.offset[edge]) % HOUR_MS
        if by != BY_HOUR:
            step = FIVE_MINUTES_MS if five else SLOT_MS
            k1 = slot[i] // step * step
        if by != BY_FIVE_MINUTES:
            k0 |= (clocks.zone[edge] + 1) << 17 | np.int64(far[i]) << 2
        code: int = _add(keys, sums, state, k0, k1, clocks.period[edge], octets[i], packets[i], flow_count[i])
        if code != DONE:
            state[1] = i
            return code
    return DONE


@kernel
def classify(high: NDArray[np.uint64], low: NDArray[np.uint64], first_high: NDArray[np.uint64],
             first_low: NDArray[np.uint64], range_class: Int64, out: Int64) -> int:
    """The class of each address: that of the last range that does not begin after it. The first begins at zero."""
    for i in range(high.size):
        a = 0
        b = first_high.size
        while b - a > 1:
            middle = (a + b) // 2
            if first_high[middle] < high[i] or (first_high[middle] == high[i] and first_low[middle] <= low[i]):
                a = middle
            else:
                b = middle
        out[i] = range_class[a]
    return DONE
