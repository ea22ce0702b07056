"""Start and end of flows: uptimes, instants and NTP timestamps → milliseconds since 1970, after the clock rule."""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import (
    AHEAD_MS,
    CLOCK_MOVED,
    DAY_LAST_MS,
    DAY_ONE_MS,
    END_CLAMPED,
    INSTANT_MAX,
    NTP_UNIX_S,
    UPDATED,
    V9_OR_OLDER,
    W_BACK_END,
    W_BACK_START,
    W_END,
    W_FAULT,
    W_FLAGS,
    W_START,
    WORD,
    WRAP,
)
from collector.kernels.elements import (
    DURATION_MS,
    DURATION_US,
    END_DELTA,
    END_MS,
    END_NTP,
    END_S,
    END_UPTIME,
    FIREWALL_EVENT,
    INITIALISED,
    OBSERVED_MS,
    OBSERVED_NTP,
    OBSERVED_S,
    REVERSE_DELAY_MS,
    REVERSE_END_MS,
    REVERSE_END_NTP,
    REVERSE_END_S,
    REVERSE_END_UPTIME,
    REVERSE_START_MS,
    REVERSE_START_NTP,
    REVERSE_START_S,
    REVERSE_START_UPTIME,
    START_DELTA,
    START_MS,
    START_NTP,
    START_S,
    START_UPTIME,
)
from collector.kernels.fields import present
from core.jit import inline_kernel, kernel


@inline_kernel
def uptime_to_ms(value: int, uptime: int, exported: int) -> Any:
    """An uptime of a flow against the header's: one that lies after it is from before the counter wrapped."""
    value &= WORD
    if value > uptime + AHEAD_MS:
        value -= WRAP
    return exported - uptime + value


@inline_kernel
def ntp_to_ms(value: int) -> Any:
    """An NTP timestamp (RFC 5905) → instant, floored; seconds below 1970 belong to the era that begins in 2036."""
    seconds = (value >> 32) & WORD
    if seconds < NTP_UNIX_S:
        seconds += WRAP
    return (seconds - NTP_UNIX_S) * 1000 + (((value & WORD) * 1000) >> 32)


@inline_kernel
def initialised_to_ms(value: int, initialised: int, exported: int) -> Any:
    """Uptime after IE 160, brought to the last wrap of the counter before the export."""
    instant = initialised + (value & WORD)
    if exported > instant:
        instant += (exported - instant) // WRAP * WRAP
    return instant


@inline_kernel
def bounded(value: int, most: int) -> Any:
    """An unsigned number that was loaded into a signed word: whatever is too large is `most`."""
    return value if 0 <= value <= most else np.int64(most)


@inline_kernel
def absolute_time(values: Any, r: int, has: Any, seconds: int, milliseconds: int, ntp: int, delta: int,
                  exported: int) -> Any:
    """(whether there is one, instant) from elements that need no uptime."""
    if present(values, r, has, milliseconds):
        return True, bounded(values[milliseconds, r], INSTANT_MAX)
    if present(values, r, has, ntp):
        return True, ntp_to_ms(values[ntp, r])
    if present(values, r, has, seconds):
        return True, bounded(values[seconds, r], INSTANT_MAX // 1000) * 1000
    if has[delta]:
        return True, exported - bounded(values[delta, r], INSTANT_MAX) // 1000
    return False, np.int64(0)


@inline_kernel
def times_of(values: Any, r: int, has: Any, exported: int, uptime: int, initialised: int, protocol: int) -> Any:
    """Start and end of a flow, before the clock rule."""
    started, start = absolute_time(values, r, has, START_S, START_MS, START_NTP, START_DELTA, exported)
    ended, end = absolute_time(values, r, has, END_S, END_MS, END_NTP, END_DELTA, exported)
    if not started and not ended and (has[START_UPTIME] or has[END_UPTIME]):
        started = has[START_UPTIME] != 0
        ended = has[END_UPTIME] != 0
        if protocol <= V9_OR_OLDER:
            start = uptime_to_ms(values[START_UPTIME, r], uptime, exported) if started else start
            end = uptime_to_ms(values[END_UPTIME, r], uptime, exported) if ended else end
        else:
            boot = values[INITIALISED, r] if present(values, r, has, INITIALISED) else initialised
            if 0 < boot < INSTANT_MAX:
                start = initialised_to_ms(values[START_UPTIME, r], boot, exported) if started else start
                end = initialised_to_ms(values[END_UPTIME, r], boot, exported) if ended else end
            else:  # no anchor: the flow ended when it was exported, its length is known
                end = exported
                ended = True
                if started and has[END_UPTIME]:
                    length = (values[END_UPTIME, r] - values[START_UPTIME, r]) & WORD
                    start = end - (length if length < WRAP // 2 else 0)
                else:
                    started = False
    if not started and not ended:
        if present(values, r, has, OBSERVED_MS):
            end = bounded(values[OBSERVED_MS, r], INSTANT_MAX)
        elif present(values, r, has, OBSERVED_NTP):
            end = ntp_to_ms(values[OBSERVED_NTP, r])
        elif present(values, r, has, OBSERVED_S):
            end = bounded(values[OBSERVED_S, r], INSTANT_MAX // 1000) * 1000
        else:
            end = exported
        ended = True
    if started and ended:
        return start, end
    length = np.int64(0)
    if has[DURATION_MS]:
        length = bounded(values[DURATION_MS, r], INSTANT_MAX)
    elif has[DURATION_US]:
        length = bounded(values[DURATION_US, r], INSTANT_MAX) // 1000
    if started:
        return start, start + length
    return end - length, end


@inline_kernel
def event_time(values: Any, r: int, has: Any) -> Any:
    """(whether there is one, when the event of a record was observed)."""
    if present(values, r, has, OBSERVED_MS):
        return True, bounded(values[OBSERVED_MS, r], INSTANT_MAX)
    if present(values, r, has, OBSERVED_NTP):
        return True, ntp_to_ms(values[OBSERVED_NTP, r])
    if present(values, r, has, OBSERVED_S):
        return True, bounded(values[OBSERVED_S, r], INSTANT_MAX // 1000) * 1000
    return False, np.int64(0)


@inline_kernel
def times_of_event(values: Any, r: int, has: Any, start: int, end: int) -> Any:
    """A firewall tells when a flow was created and when the event was: what an update tells came just before it, the
    end of a flow is its deletion (Cisco NSEL: IE 152 with IE 323)."""
    told, instant = event_time(values, r, has)
    if not told:
        return start, end
    if has[FIREWALL_EVENT] and values[FIREWALL_EVENT, r] == UPDATED:
        return instant, instant
    ends = (has[END_MS] or has[END_S] or has[END_NTP] or has[END_UPTIME] or has[END_DELTA] or has[DURATION_MS]
            or has[DURATION_US])
    return start, end if ends else max(start, instant)


@inline_kernel
def has_reverse_times(has: Any) -> Any:
    return (has[REVERSE_START_MS] or has[REVERSE_END_MS] or has[REVERSE_START_S] or has[REVERSE_END_S]
            or has[REVERSE_START_UPTIME] or has[REVERSE_END_UPTIME] or has[REVERSE_START_NTP] or has[REVERSE_END_NTP]
            or has[REVERSE_DELAY_MS])


@inline_kernel
def reverse_time(values: Any, r: int, has: Any, milliseconds: int, ntp: int, seconds: int, uptimes: int, exported: int,
                 uptime: int, boot: int, protocol: int, forward: int) -> Any:
    """One end of the other direction (RFC 5103 §6.2); the forward direction's where it is not told."""
    if present(values, r, has, milliseconds):
        return bounded(values[milliseconds, r], INSTANT_MAX)
    if present(values, r, has, ntp):
        return ntp_to_ms(values[ntp, r])
    if present(values, r, has, seconds):
        return bounded(values[seconds, r], INSTANT_MAX // 1000) * 1000
    if present(values, r, has, uptimes):
        if protocol <= V9_OR_OLDER:
            return uptime_to_ms(values[uptimes, r], uptime, exported)
        if 0 < boot < INSTANT_MAX:
            return initialised_to_ms(values[uptimes, r], boot, exported)
    return np.int64(forward)


@kernel
def place_reverse_in_time(values: Any, count: int, has: Any, exported: int, uptime: int, initialised: int, protocol: int,
                          move: int, kinds: Any, work: Any) -> None:
    """Start and end of the second direction, where the record has times of its own for it."""
    for r in range(count):
        boot = values[INITIALISED, r] if present(values, r, has, INITIALISED) else initialised
        start = reverse_time(values, r, has, REVERSE_START_MS, REVERSE_START_NTP, REVERSE_START_S, REVERSE_START_UPTIME,
                             exported, uptime, boot, protocol, work[W_START, r] - move) + move
        end = reverse_time(values, r, has, REVERSE_END_MS, REVERSE_END_NTP, REVERSE_END_S, REVERSE_END_UPTIME,
                           exported, uptime, boot, protocol, work[W_END, r] - move) + move
        if has[REVERSE_DELAY_MS]:  # CERT: the answer began so much later
            start = min(start + bounded(values[REVERSE_DELAY_MS, r], WORD), max(end, start))
        if end < start:
            work[W_FLAGS, r] |= END_CLAMPED
            end = start
        work[W_BACK_START, r] = start
        work[W_BACK_END, r] = end
        if work[W_FAULT, r] == 0:
            if start < DAY_ONE_MS or end >= DAY_LAST_MS:
                work[W_FAULT, r] = kinds["time_out_of_range"]
            elif end - start >= WRAP:
                work[W_FAULT, r] = kinds["duration_too_long"]


@kernel
def place_in_time(values: Any, count: int, has: Any, exported: int, uptime: int, initialised: int, protocol: int,
                  move: int, kinds: Any, work: Any) -> None:
    """Start and end, after the clock rule."""
    for r in range(count):
        start, end = times_of(values, r, has, exported, uptime, initialised, protocol)
        if has[FIREWALL_EVENT]:
            start, end = times_of_event(values, r, has, start, end)
        start += move
        end += move
        if end < start:
            work[W_FLAGS, r] |= END_CLAMPED
            end = start
        work[W_START, r] = start
        work[W_END, r] = end
        if work[W_FAULT, r] == 0:
            if start < DAY_ONE_MS or end >= DAY_LAST_MS:
                work[W_FAULT, r] = kinds["time_out_of_range"]
            elif end - start >= WRAP:
                work[W_FAULT, r] = kinds["duration_too_long"]
        if move != 0:
            work[W_FLAGS, r] |= CLOCK_MOVED


@inline_kernel
def clock_move(job: Any, policy: Any) -> Any:
    """By how much an exporter's times are moved: its clock is off by more than is allowed."""
    off = job["received"] - job["exported"]
    if policy.skew_ms > 0 and abs(off) > policy.skew_ms:
        return off
    return np.int64(0)
