"""The hot loops of aggregation: scaling, the cumulative split, cells, outcomes and usage. Arrays in, arrays out.

Cells are written as rows that `aggregation.cell_sums` sorts and adds up. Other sums, which are few, are kept in an
open-addressing table: `keys` int64 (capacity, 3), -1 in its first column where a slot is free, and `sums` int64 (capacity,
3); capacity is a power of two. A loop that finds the table or the room for rows too full stops, writes where it stood into
`state`, and goes on there when it is called again with more room, so that nothing is counted twice.

    state[0] used rows of the table   state[1] item to go on with   state[2] instant to go on at, FROM_THE_START if none
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aggregation.kernels_cells import COUNT_MAX as COUNT_MAX
from aggregation.kernels_cells import DONE as DONE
from aggregation.kernels_cells import FULL as FULL
from aggregation.kernels_cells import LOW_BITS, SERVICE_SHIFT, slot_number
from aggregation.kernels_cells import OVERFLOW as OVERFLOW
from core.jit import inline_kernel, kernel

RATE_ZERO, TIME_BACKWARDS, DURATION_TOO_LONG, COUNT_OUT_OF_RANGE, TOO_COARSE = 3, 4, 5, 6, 7

FROM_THE_START = -(2**63)
EVER = 2**62
SEVERAL = -1
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
    sampled: NDArray[np.bool_]


class Spans(NamedTuple):
    """Parts of flow ends with one fate; those of one end follow each other without a gap from start to end."""

    flow: Int64
    outcome: NDArray[np.uint8]
    end: NDArray[np.uint8]  # 0 source, 1 destination
    on_net: NDArray[np.uint8]
    service: Int64
    from_ms: Int64
    to_ms: Int64
    far_class: NDArray[np.int16]  # of attributed spans
    only: NDArray[np.int32]  # of attributed spans: what Stretches says of the service under this name


class Stretches(NamedTuple):
    """Per service, times under one subscription row (or none). Those of service i: first[i] to first[i + 1]."""

    first: Int64
    start: Int64
    clock: Int64
    five_minutes: NDArray[np.uint8]
    only: NDArray[np.int32]  # by service: clock << 1 | five_minutes of the one stretch that it has, SEVERAL if it has more
    month_clock: Int64  # by clock


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
            if raw < 0 or raw > COUNT_MAX:
                return COUNT_OUT_OF_RANGE
            if n == d:
                if which == 0:
                    scaled_octets[i] = raw
                else:
                    scaled_packets[i] = raw
                continue
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
    if a == start and b == end:  # as most flows: no division
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
def _row_for(keys: Int64, state: Int64, k0: int, k1: int, k2: int) -> Any:
    """The row of a key, which is entered if it is new; -1 if the table is full."""
    row = _row_of(keys, k0, k1, k2)
    if keys[row, 0] == -1:
        if state[0] * 8 >= keys.shape[0] * 5:
            return np.int64(-1)
        state[0] += 1
        keys[row, 0] = k0
        keys[row, 1] = k1
        keys[row, 2] = k2
    return row


@inline_kernel
def _add_to(sums: Int64, row: int, one: int, two: int, three: int) -> int:
    if sums[row, 0] > COUNT_MAX - one or sums[row, 1] > COUNT_MAX - two or sums[row, 2] > COUNT_MAX - three:
        return OVERFLOW
    sums[row, 0] += one
    sums[row, 1] += two
    sums[row, 2] += three
    return DONE


@inline_kernel
def _add(keys: Int64, sums: Int64, state: Int64, k0: int, k1: int, k2: int, one: int, two: int, three: int) -> int:
    row = _row_for(keys, state, k0, k1, k2)
    if row < 0:
        return FULL
    code: int = _add_to(sums, row, one, two, three)
    return code


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


@inline_kernel
def _put(spans: Any, at: int, flow: int, outcome: int, end: int, on_net: int, service: int, a: int, b: int) -> int:
    spans.flow[at] = flow
    spans.outcome[at] = outcome
    spans.end[at] = end
    spans.on_net[at] = on_net
    spans.service[at] = service
    spans.from_ms[at] = a
    spans.to_ms[at] = b
    return at + np.uint64(1)


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
    count = piece = np.uint64(0)
    pieces = np.uint64(piece_flow.size)
    for flow in range(np.uint64(start.size)):
        services = np.int64(source_status[flow] == END_SERVICE) + np.int64(destination_status[flow] == END_SERVICE)
        counts_once = in_cut[flow] == 0 or quarantined[flow] != 0 or services == 0
        if counts_once:
            fate = AUDIT_ONLY
            if in_cut[flow] != 0:
                fate = QUARANTINED if quarantined[flow] != 0 else _fate(source_status[flow], destination_status[flow])
            count = _put(spans, count, flow, fate, 0, 0, -1, start[flow], end[flow])
            while piece < pieces and np.uint64(piece_flow[piece]) == flow:
                piece += np.uint64(1)
            continue
        for which in range(2):
            if (source_status[flow] if which == 0 else destination_status[flow]) != END_SERVICE:
                continue
            on_net = 1 if which == 1 and services == 2 else 0
            at = start[flow]
            owned = False
            while piece < pieces and np.uint64(piece_flow[piece]) == flow and piece_end[piece] == which:
                if piece_from[piece] > at:
                    count = _put(spans, count, flow, STRANGER, which, on_net, -1, at, piece_from[piece])
                count = _put(spans, count, flow, ATTRIBUTED, which, on_net, piece_service[piece], piece_from[piece],
                             piece_to[piece])
                at = piece_to[piece]
                owned = True
                piece += np.uint64(1)
            if at < end[flow] or not owned:
                count = _put(spans, count, flow, STRANGER, which, on_net, -1, at, end[flow])
    return np.int64(count)


@kernel
def cut_outcomes(flows: Any, spans: Any, keys: Int64, sums: Int64, state: Int64) -> int:
    """Spans → (exporter and outcome, UTC quarter hour): octets, on-net octets, flows."""
    last_slot = last_k0 = row = np.int64(-1)
    for i in range(np.uint64(state[1]), np.uint64(spans.flow.size)):
        flow = np.uint64(spans.flow[i])
        start = flows.start[flow]
        end = flows.end[flow]
        b = spans.to_ms[i]
        a = spans.from_ms[i] if state[2] == FROM_THE_START else state[2]
        k0 = flows.exporter[flow] * 8 + spans.outcome[i]
        while True:
            inside = row >= 0 and a >= last_slot and a < last_slot + SLOT_MS  # most flows are in the slot of the one before
            slot = last_slot if inside else a // SLOT_MS * SLOT_MS
            following = min(b, slot + SLOT_MS)
            octets = _part(flows.octets[flow], start, end, a, following)
            begins = np.int64(a == start)
            if octets + begins > 0:
                if not inside or k0 != last_k0:
                    row = _row_for(keys, state, k0, slot, 0)
                    last_k0, last_slot = k0, slot
                code: int = FULL if row < 0 else _add_to(sums, row, octets, octets * spans.on_net[i], begins)
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
        if starts[np.uint64(middle)] <= instant:
            low = middle
        else:
            high = middle
    return low


@kernel
def look_up_stretches(spans: Any, stretches: Any) -> int:
    """Write `only` into attributed spans: one miss of the cache each, many at a time."""
    for i in range(np.uint64(spans.flow.size)):
        if spans.outcome[i] == ATTRIBUTED:
            spans.only[i] = stretches.only[np.uint64(spans.service[i])]
    return DONE


@inline_kernel
def _stretch_at(stretches: Any, only: int, service: int, instant: int) -> Any:
    """Which stretch a service is in, where its stretches end, and the clock << 1 | five_minutes that it goes by."""
    if only != SEVERAL:
        return np.int64(0), np.int64(0), only
    end = stretches.first[service + 1]
    stretch = _last_not_after(stretches.start, stretches.first[service], end, instant)
    return stretch, end, stretches.clock[stretch] << 1 | np.int64(stretches.five_minutes[stretch])


@kernel
def cut_cells(flows: Any, spans: Any, stretches: Any, clocks: Any, rows: Int64, slots: Any, state: Int64) -> int:
    """Attributed spans → rows of cells: (service, class, direction, sampled; slot): octets, packets, flows.

    A slot is a UTC quarter hour (5 minutes where the plan needs it), cut at the service's own edges: those of its
    subscription rows, and changes of zone, offset, local hour and local month that lie elsewhere. Most flows are in the slot
    of the one before: what was found for it is kept as long as clock and time fit.
    """
    kept = kept_from = kept_until = number = np.int64(-1)  # clock and five_minutes, its slot [from, until), the slot's number
    room = np.int64(rows.shape[0])
    used = state[0]
    for i in range(np.uint64(state[1]), np.uint64(spans.flow.size)):
        if spans.outcome[i] != ATTRIBUTED:
            continue
        flow = np.uint64(spans.flow[i])
        start = flows.start[flow]
        end = flows.end[flow]
        direction = UP if spans.end[i] == 0 else DOWN
        service = spans.service[i]
        key = service << SERVICE_SHIFT | np.int64(spans.far_class[i]) << 2 | direction << 1 | np.int64(flows.sampled[flow])
        b = spans.to_ms[i]
        a = spans.from_ms[i] if state[2] == FROM_THE_START else state[2]
        stretch, stretch_end, going_by = _stretch_at(stretches, np.int64(spans.only[i]), service, a)
        edge = np.int64(-1)
        while True:
            if stretch_end == 0 and going_by == kept and a >= kept_from and a < kept_until:
                following = min(b, kept_until)
            else:
                clock = going_by >> 1
                if edge < 0:
                    edge = _last_not_after(clocks.start, clocks.first[clock], clocks.first[clock + 1], a)
                step = FIVE_MINUTES_MS if going_by & 1 != 0 else SLOT_MS
                aligned = a // step * step
                hour = a - (a + clocks.offset[edge]) % HOUR_MS
                slot = max(max(aligned, hour), clocks.start[edge])
                kept_until = min(aligned + step, hour + HOUR_MS)
                if edge + 1 < clocks.first[clock + 1]:
                    kept_until = min(kept_until, clocks.start[edge + 1])
                kept = going_by
                if stretch_end != 0:
                    kept = np.int64(-1)
                    slot = max(slot, stretches.start[stretch])
                    if stretch + 1 < stretch_end:
                        kept_until = min(kept_until, stretches.start[stretch + 1])
                kept_from = slot
                following = min(b, kept_until)
                number = slot_number(slots, state, slot)
            if number < 0 or used >= room:
                state[0], state[1], state[2] = used, i, a
                return FULL
            octets = _part(flows.octets[flow], start, end, a, following)
            packets = _part(flows.packets[flow], start, end, a, following)
            begins = np.int64(a == start)
            if octets > 0 or packets > 0 or begins > 0:
                at = np.uint64(used)
                rows[at, 0] = key | number << LOW_BITS
                rows[at, 1] = octets
                rows[at, 2] = packets
                rows[at, 3] = begins
                used += 1
            if following >= b:
                break
            a = following
            if stretch + 1 < stretch_end and stretches.start[stretch + 1] <= a:
                stretch, stretch_end, going_by = _stretch_at(stretches, np.int64(spans.only[i]), service, a)
            edge = np.int64(-1)
        state[2] = FROM_THE_START
    state[0] = used
    return DONE


@kernel
def sum_periods(flows: Any, spans: Any, stretches: Any, months: Any, base: int, totals: Int64) -> int:
    """Attributed octets by the service's local month, cut at the months alone: the other side of a balance."""
    kept = kept_from = kept_until = period = np.int64(-1)  # a clock of months and the month [from, until) last met
    for i in range(np.uint64(spans.flow.size)):
        if spans.outcome[i] != ATTRIBUTED:
            continue
        flow = np.uint64(spans.flow[i])
        service = spans.service[i]
        a = spans.from_ms[i]
        b = spans.to_ms[i]
        while True:
            stretch, stretch_end, going_by = _stretch_at(stretches, np.int64(spans.only[i]), service, a)
            clock = stretches.month_clock[np.uint64(going_by >> 1)]
            if clock != kept or a < kept_from or a >= kept_until:
                month = _last_not_after(months.start, months.first[clock], months.first[clock + 1], a)
                period = months.period[month] - base
                kept, kept_from, kept_until = clock, months.start[month], EVER
                if month + 1 < months.first[clock + 1]:
                    kept_until = months.start[month + 1]
            following = min(b, kept_until)
            if stretch + 1 < stretch_end:
                following = min(following, stretches.start[stretch + 1])
            octets = _part(flows.octets[flow], flows.start[flow], flows.end[flow], a, following)
            if totals[period] > COUNT_MAX - octets:
                return OVERFLOW
            totals[period] += octets
            if following >= b:
                break
            a = following
    return DONE


@kernel
def check_cells(service: NDArray[np.int32], slot: Int64, octets: Int64, stretches: Any, clocks: Any, base: int,
                totals: Int64) -> int:
    """Octets of cells by month; TOO_COARSE if an edge of now lies inside one: behind its slot, in the same quarter hour."""
    code = DONE
    for i in range(np.uint64(slot.size)):
        at = slot[i]
        until = at // SLOT_MS * SLOT_MS + SLOT_MS
        only = np.int64(stretches.only[np.uint64(service[i])])
        stretch, stretch_end, going_by = _stretch_at(stretches, only, service[i], at)
        clock = going_by >> 1
        edge = _last_not_after(clocks.start, clocks.first[clock], clocks.first[clock + 1], at)
        hour = at - (at + clocks.offset[edge]) % HOUR_MS + HOUR_MS
        if going_by & 1 != 0 or hour < until:
            code = TOO_COARSE
        if stretch + 1 < stretch_end and stretches.start[stretch + 1] < until:
            code = TOO_COARSE
        if edge + 1 < clocks.first[clock + 1] and clocks.start[edge + 1] < until:
            code = TOO_COARSE
        month = clocks.period[edge] - base
        if totals[month] > COUNT_MAX - octets[i]:
            return OVERFLOW
        totals[month] += octets[i]
    return code


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
