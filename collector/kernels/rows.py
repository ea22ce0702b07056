"""Records of a compiled plan → rows of flows: NetFlow v1, v5, v7, v9 and IPFIX.

A pure function of a set, its plan and the samplers. Most templates are plain: every column of a row is one field of the
record, and is copied column by column. For all others, and for records that need a decision, fields are loaded column by
column for a chunk of records, then each record is finished (octets, rate, times, addresses) and written to the row that the
scan gave it. Both ways give the same rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from core.jit import inline_kernel, kernel, load_be16, load_be32, load_be64, load_le32, load_le64

# Values that a record can hold, in the order of the registry; addresses of IPv6 take two slots.
OCTETS, PACKETS, PROTOCOL, TOS, TCP_FLAGS, SOURCE_PORT, DESTINATION_PORT, INPUT, OUTPUT = 1, 2, 3, 4, 5, 6, 7, 8, 9
SOURCE_AS, DESTINATION_AS, DIRECTION, SOURCE4, DESTINATION4, NEXT_HOP4, BGP_NEXT_HOP4 = 10, 11, 12, 13, 14, 15, 16
SOURCE6, DESTINATION6, NEXT_HOP6, BGP_NEXT_HOP6 = 17, 19, 21, 23
START_UPTIME, END_UPTIME, START_S, END_S, START_MS, END_MS, START_NTP, END_NTP = 25, 26, 27, 28, 29, 30, 31, 32
START_DELTA, END_DELTA, DURATION_MS, DURATION_US, INITIALISED, OBSERVED_MS, OBSERVED_S = 33, 34, 35, 36, 37, 38, 39
ICMP4, ICMP6, ICMP4_TYPE, ICMP4_CODE, ICMP6_TYPE, ICMP6_CODE = 40, 41, 42, 43, 44, 45
SAMPLING_INTERVAL, RANDOM_INTERVAL, PACKET_INTERVAL, PACKET_SPACE, SAMPLE_SIZE, POPULATION = 46, 47, 48, 49, 50, 51
SAMPLER, SELECTOR, OUT_OCTETS, OUT_PACKETS = 52, 53, 54, 55
INITIATOR_OCTETS, RESPONDER_OCTETS, INITIATOR_PACKETS, RESPONDER_PACKETS = 56, 57, 58, 59
LAYER2_OCTETS, TOTAL_OCTETS, IP_VERSION, UDP_SOURCE_PORT, UDP_DESTINATION_PORT = 60, 61, 62, 63, 64
TCP_SOURCE_PORT, TCP_DESTINATION_PORT, LINK_HEADER, VLAN, CUSTOMER_VLAN = 65, 66, 67, 68, 69
REVERSE_OCTETS, REVERSE_PACKETS, REVERSE_TCP_FLAGS = 70, 71, 72
REVERSE_START_MS, REVERSE_END_MS, REVERSE_START_S, REVERSE_END_S = 73, 74, 75, 76
REVERSE_START_UPTIME, REVERSE_END_UPTIME, REVERSE_TOS, REVERSE_START_NTP, REVERSE_END_NTP = 77, 78, 79, 80, 81
REVERSE_DELAY_MS, FIREWALL_EVENT, NAT_EVENT, TOTAL_LAYER2, TOTAL_PACKETS = 82, 83, 84, 85, 86
# Of records that carry a packet (`samples` reads it); from FIRST_SECTION on a slot stands for octets, not for a number.
FRAME_SIZE, FRAME_TYPE, SECTION_OFFSET, SECTION_OCTETS, OBSERVED_NTP = 112, 113, 114, 115, 116
FRAME_SECTION, IP_SECTION, MPLS_PAYLOAD_SECTION, MPLS_STACK_SECTION = 120, 121, 122, 123
FIRST_SECTION = FRAME_SECTION

FIRST_V4, LAST_V4, FIRST_V6, LAST_V6 = SOURCE4, BGP_NEXT_HOP4, SOURCE6, BGP_NEXT_HOP6

CHUNK = 64
WORD = 0xFFFFFFFF
WRAP = 1 << 32
AHEAD_MS = 60_000  # an uptime a little after the header's is a coarse clock; further ahead, the counter has wrapped
NTP_UNIX_S = 2_208_988_800
COUNT_MAX = 1 << 48
DAY_ONE_MS, DAY_LAST_MS = -62_135_596_800_000, 253_402_300_800_000
INSTANT_MAX = 1 << 60
FAR_INSTANT = 1 << 47  # milliseconds; moved by any skew it stays before the year 9999
VARIABLE = 65_535
V9_OR_OLDER = 9
PROBES_MAX = 128  # as in the scan: a sampler that lies further off was not entered

# FlowFlag, RateSource and the status of a row: the layout's values, held together by a test
CLOCK_MOVED, LAYER2, QUARANTINED, REVERSE, END_CLAMPED = 1, 2, 8, 16, 32
SAMPLER_SHIFT, SAMPLER_BEYOND = 16, 65_535  # core.schemas.SAMPLER_SHIFT: where the flags of a quarantined flow hold its sampler
BY_RECORD, BY_SAMPLER, BY_DOMAIN, BY_HEADER, CONFIGURED, ASSUMED = 1, 2, 3, 4, 5, 6
FLOW, NOT_A_FLOW, FAULTED = 1, 2, 3
FLOW_VERDICT, PACKET_VERDICT = 1, 3
ASSUME, QUARANTINE, REJECT = 0, 1, 2
BY_UPTIME = 1  # a plan with uptimes; 2: with instants

# Events of a firewall (IE 233): a flow's octets are told when it is updated and deleted, as what came since the last time
CREATED, DELETED, DENIED, ALERTED, UPDATED = 1, 2, 3, 4, 5
NO_FLOW = -1  # in the place of a fault: the record reports an event and no traffic


@inline_kernel
def load_unsigned(data: Any, at: int, length: int) -> Any:
    value = np.int64(0)
    for k in range(length):
        value = (value << 8) | np.int64(data[at + k])
    return value


@inline_kernel
def load_number(data: Any, at: int, length: int) -> Any:
    """A number of 1 to 8 octets."""
    if length == 4:
        return load_be32(data, at)
    if length == 2:
        return load_be16(data, at)
    if length == 1:
        return np.int64(data[at])
    if length == 8:
        return load_be64(data, at)
    return load_unsigned(data, at, length)


@inline_kernel
def load(data: Any, at: int, slot: int, length: int, values: Any, record: int) -> None:
    """One field of one record."""
    if slot < FIRST_V4 or slot > LAST_V6 + 1:
        values[slot, record] = load_number(data, at, length)
    elif slot <= LAST_V4:
        values[slot, record] = load_le32(data, at)
    else:
        values[slot, record] = np.int64(load_le64(data, at))
        values[slot + 1, record] = np.int64(load_le64(data, at + 8))


@kernel
def load_fixed(data: Any, start: int, stride: int, count: int, first: int, fields: int, lengths: Any, slots: Any,
               offsets: Any, values: Any) -> None:
    """Column by column: the fields of `count` records of one length."""
    for i in range(first, first + fields):
        slot = np.int64(slots[i])
        if 0 < slot < FIRST_SECTION:
            length = lengths[i] & 0xFFFF
            at = start + offsets[i]
            for record in range(count):
                load(data, at + record * stride, slot, length, values, record)


@kernel
def load_variable(data: Any, at: int, count: int, first: int, fields: int, lengths: Any, slots: Any, values: Any) -> Any:
    """Record by record, where a field says its own length; returns the offset behind. The scan has checked the bounds."""
    for record in range(count):
        for i in range(first, first + fields):
            length = lengths[i] & 0xFFFF
            if length == VARIABLE:
                length = np.int64(data[at])
                at += 1
                if length == 255:
                    length = load_be16(data, at)
                    at += 2
            slot = np.int64(slots[i])
            if 0 < slot < FIRST_SECTION:
                load(data, at, slot, length, values, record)
            at += length
    return at


@inline_kernel
def present(values: Any, r: int, has: Any, slot: int) -> Any:
    return has[slot] and values[slot, r] != 0


# Sampling -------------------------------------------------------------------------------------------------------------
@kernel
def greatest_divisor(a: int, b: int) -> Any:
    while b:
        a, b = b, a % b
    return a


@inline_kernel
def rate_in_record(values: Any, r: int, has: Any) -> Any:
    """(numerator, denominator) that the record itself holds, (0, 0) for none."""
    numerator = np.int64(0)
    denominator = np.int64(1)
    if present(values, r, has, SAMPLING_INTERVAL):
        numerator = values[SAMPLING_INTERVAL, r]
    elif present(values, r, has, RANDOM_INTERVAL):
        numerator = values[RANDOM_INTERVAL, r]
    elif present(values, r, has, PACKET_INTERVAL):
        space = values[PACKET_SPACE, r] if has[PACKET_SPACE] else np.int64(0)
        if 0 < values[PACKET_INTERVAL, r] <= WORD and 0 <= space <= WORD:
            numerator = values[PACKET_INTERVAL, r] + space
            denominator = values[PACKET_INTERVAL, r]
    elif has[SAMPLE_SIZE] and has[POPULATION] and 0 < values[SAMPLE_SIZE, r] <= values[POPULATION, r]:
        numerator = values[POPULATION, r]
        denominator = values[SAMPLE_SIZE, r]
    if numerator <= 0:
        return np.int64(0), np.int64(0)
    common = greatest_divisor(numerator, denominator)
    numerator //= common
    denominator //= common
    if numerator > WORD or denominator > WORD:
        return np.int64(0), np.int64(0)
    return numerator, denominator


@inline_kernel
def mixed(value: Any) -> Any:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@kernel
def sampler_rate(samplers: Any, table: Any, changes: Any, domain: int, kind: int, identifier: Any, order: int) -> Any:
    """The rate of a sampler as it was when the set was scanned, (0, 0) if unknown."""
    mask = len(table) - 1
    at = np.int64(mixed(identifier ^ mixed(np.uint64(domain) * np.uint64(2) + np.uint64(kind))) & np.uint64(mask))
    for _ in range(PROBES_MAX):
        if table[at] < 0:
            break
        row = samplers[table[at]]
        if row["domain"] == domain and row["kind"] == kind and row["identifier"] == identifier:
            index = np.int64(table[at])
            low = 0
            high = len(changes)
            while low < high:  # the first change after (index, order)
                middle = (low + high) >> 1
                change = changes[middle]
                if change["sampler"] < index or (change["sampler"] == index and change["order"] <= order):
                    low = middle + 1
                else:
                    high = middle
            if low > 0 and changes[low - 1]["sampler"] == index:
                return changes[low - 1]["numerator"], changes[low - 1]["denominator"]
            return row["numerator_before"], row["denominator_before"]
        at = (at + 1) & mask
    return np.int64(0), np.int64(0)


@kernel
def rate_of_set(job: Any) -> Any:
    """The rate that holds for every record of a set."""
    if job["rate_numerator"] > 0:
        return job["rate_numerator"], job["rate_denominator"], np.int64(BY_DOMAIN)
    if job["header_rate"] > 0:
        return job["header_rate"], np.int64(1), np.int64(BY_HEADER)
    if job["configured"] > 0:
        return job["configured"], np.int64(1), np.int64(CONFIGURED)
    return np.int64(0), np.int64(0), np.int64(0)


# Times ----------------------------------------------------------------------------------------------------------------
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


# One record -----------------------------------------------------------------------------------------------------------
@inline_kernel
def counts_of(values: Any, r: int, has: Any) -> Any:
    """(octets, packets, octets and packets of the other direction, flags)."""
    flags = np.int64(0)
    zero = np.int64(0)
    packets = values[PACKETS, r] if has[PACKETS] else zero
    if has[OCTETS]:
        back = values[REVERSE_OCTETS, r] if has[REVERSE_OCTETS] else zero
        back_packets = values[REVERSE_PACKETS, r] if has[REVERSE_PACKETS] else zero
        return values[OCTETS, r], packets, back, back_packets, flags
    if has[INITIATOR_OCTETS] or has[RESPONDER_OCTETS]:
        octets = values[INITIATOR_OCTETS, r] if has[INITIATOR_OCTETS] else zero
        if has[INITIATOR_PACKETS]:
            packets = values[INITIATOR_PACKETS, r]
        back = values[RESPONDER_OCTETS, r] if has[RESPONDER_OCTETS] else zero
        back_packets = values[RESPONDER_PACKETS, r] if has[RESPONDER_PACKETS] else zero
        return octets, packets, back, back_packets, flags
    if has[OUT_OCTETS]:
        if has[OUT_PACKETS]:
            packets = values[OUT_PACKETS, r]
        return values[OUT_OCTETS, r], packets, zero, zero, flags
    if has[TOTAL_OCTETS] and not has[LAYER2_OCTETS]:  # of a flow that a firewall has deleted: nothing was told before
        if has[TOTAL_PACKETS]:
            packets = values[TOTAL_PACKETS, r]
        return values[TOTAL_OCTETS, r], packets, zero, zero, flags
    header = np.int64(14)
    if has[LINK_HEADER] and values[LINK_HEADER, r] > 0:
        header = values[LINK_HEADER, r]
    else:
        if has[VLAN] and values[VLAN, r] > 0:
            header += 4
        if has[CUSTOMER_VLAN] and values[CUSTOMER_VLAN, r] > 0:
            header += 4
    octets = values[LAYER2_OCTETS, r]
    if 0 <= octets < COUNT_MAX and 0 <= packets < COUNT_MAX and 0 <= header < 65536:
        octets = max(octets - max(packets, 1) * header, 0)
    return octets, packets, zero, zero, flags | LAYER2


@inline_kernel
def ports_of(values: Any, r: int, has: Any, protocol: int) -> Any:
    """Source and destination port; ICMP has none, its type and code stand in the destination's place."""
    source = values[SOURCE_PORT, r] if has[SOURCE_PORT] else np.int64(0)
    destination = values[DESTINATION_PORT, r] if has[DESTINATION_PORT] else np.int64(0)
    if protocol == 1:
        if has[ICMP4]:
            destination = values[ICMP4, r]
        elif has[ICMP4_TYPE]:
            destination = (values[ICMP4_TYPE, r] << 8) | (values[ICMP4_CODE, r] if has[ICMP4_CODE] else np.int64(0))
        return np.int64(0), destination & 0xFFFF
    if protocol == 58:
        if has[ICMP6]:
            destination = values[ICMP6, r]
        elif has[ICMP6_TYPE]:
            destination = (values[ICMP6_TYPE, r] << 8) | (values[ICMP6_CODE, r] if has[ICMP6_CODE] else np.int64(0))
        elif has[ICMP4]:  # exporters that have one element for both
            destination = values[ICMP4, r]
        return np.int64(0), destination & 0xFFFF
    if protocol == 17 and not has[SOURCE_PORT]:
        source = values[UDP_SOURCE_PORT, r] if has[UDP_SOURCE_PORT] else source
    if protocol == 17 and not has[DESTINATION_PORT]:
        destination = values[UDP_DESTINATION_PORT, r] if has[UDP_DESTINATION_PORT] else destination
    if protocol == 6 and not has[SOURCE_PORT]:
        source = values[TCP_SOURCE_PORT, r] if has[TCP_SOURCE_PORT] else source
    if protocol == 6 and not has[DESTINATION_PORT]:
        destination = values[TCP_DESTINATION_PORT, r] if has[TCP_DESTINATION_PORT] else destination
    return source & 0xFFFF, destination & 0xFFFF


@inline_kernel
def mapped(value: int) -> Any:
    """The second word of ::ffff:a.b.c.d."""
    return (np.uint64(value) << np.uint64(32)) | np.uint64(0xFFFF0000)


@inline_kernel
def is_ipv4(values: Any, r: int, has: Any) -> Any:
    """Which family a record is of, where its template has room for both."""
    four = has[SOURCE4] and has[DESTINATION4]
    if not four or not (has[SOURCE6] and has[DESTINATION6]):
        return four != 0
    if has[IP_VERSION] and (values[IP_VERSION, r] == 4 or values[IP_VERSION, r] == 6):
        return values[IP_VERSION, r] == 4
    if values[SOURCE4, r] != 0 or values[DESTINATION4, r] != 0:
        return True
    return not (values[SOURCE6, r] | values[SOURCE6 + 1, r] | values[DESTINATION6, r] | values[DESTINATION6 + 1, r])


# Stages: each goes over the records of a chunk, with its results in rows of `work` -------------------------------------
W_OCTETS, W_PACKETS, W_BACK, W_BACK_PACKETS, W_FLAGS, W_START, W_END, W_NUMERATOR, W_DENOMINATOR, W_SOURCE, W_FAULT = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
W_BACK_START, W_BACK_END = 11, 12
WORK = 13


@inline_kernel
def only_total(has: Any) -> Any:
    """Whether a record's octets are a running total."""
    return has[TOTAL_OCTETS] and not (has[OCTETS] or has[INITIATOR_OCTETS] or has[RESPONDER_OCTETS] or has[OUT_OCTETS]
                                      or has[LAYER2_OCTETS])


@kernel
def judge_events(values: Any, count: int, has: Any, kinds: Any, work: Any) -> None:
    """Which records of a firewall or a NAT (RFC 8158) are flows: denied traffic did not pass, and an event that tells
    neither octets nor packets is no flow. Octets are what came since the last event, so each is counted once; a running
    total is one such figure only when the flow is deleted."""
    total = only_total(has)
    for r in range(count):
        nothing = (work[W_OCTETS, r] == 0 and work[W_PACKETS, r] == 0 and work[W_BACK, r] == 0
                   and work[W_BACK_PACKETS, r] == 0)
        event = values[FIREWALL_EVENT, r] if has[FIREWALL_EVENT] else np.int64(0)
        if event == DENIED or (nothing and (has[NAT_EVENT] or event in (CREATED, ALERTED))):
            work[W_FAULT, r] = NO_FLOW
        elif total and event != DELETED:
            work[W_FAULT, r] = kinds["cumulative_counter"] if event == UPDATED or event == 0 else NO_FLOW


@kernel
def measure(values: Any, count: int, has: Any, kinds: Any, work: Any) -> None:
    """Octets and packets."""
    for r in range(count):
        octets, packets, back, back_packets, flags = counts_of(values, r, has)
        work[W_OCTETS, r] = octets
        work[W_PACKETS, r] = packets
        work[W_BACK, r] = back
        work[W_BACK_PACKETS, r] = back_packets
        work[W_FLAGS, r] = flags
        good = (0 <= octets < COUNT_MAX and 0 <= packets < COUNT_MAX and 0 <= back < COUNT_MAX
                and 0 <= back_packets < COUNT_MAX)
        work[W_FAULT, r] = 0 if good else kinds["count_too_large"]


@kernel
def leave_unmeasured(count: int, work: Any) -> None:
    """Records that carry a packet: its headers say octets and packets, later."""
    for r in range(count):
        work[W_OCTETS, r] = 0
        work[W_PACKETS, r] = 0
        work[W_BACK, r] = 0
        work[W_BACK_PACKETS, r] = 0
        work[W_FLAGS, r] = 0
        work[W_FAULT, r] = 0


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
def code_of(identifier: int) -> Any:
    return identifier + 1 if 0 <= identifier < SAMPLER_BEYOND - 1 else np.int64(SAMPLER_BEYOND)


@inline_kernel
def sampler_code(values: Any, r: int, has: Any) -> Any:
    """The sampler of a record in 16 bits: 0 none, its id + 1, SAMPLER_BEYOND for an id that has no room."""
    if not (has[SAMPLER] or has[SELECTOR]):
        return np.int64(0)
    return code_of(values[SAMPLER, r] if has[SAMPLER] else values[SELECTOR, r])


@inline_kernel
def set_rates(values: Any, count: int, has: Any, job: Any, samplers: Any, table: Any, changes: Any, policy: Any, kinds: Any,
              work: Any) -> None:
    """Sampling rates by the order: record, sampler, domain, header, settings, policy."""
    common, common_denominator, common_source = rate_of_set(job)
    in_record = has[SAMPLING_INTERVAL] or has[RANDOM_INTERVAL] or has[PACKET_INTERVAL] or has[POPULATION]
    for r in range(count):
        numerator = np.int64(0)
        denominator = np.int64(0)
        source = np.int64(BY_RECORD)
        if in_record:
            numerator, denominator = rate_in_record(values, r, has)
        if numerator == 0 and has[SAMPLER]:
            source = np.int64(BY_SAMPLER)
            numerator, denominator = sampler_rate(samplers, table, changes, job["domain"], 0,
                                                  np.uint64(values[SAMPLER, r]), job["order"])
        if numerator == 0 and has[SELECTOR]:
            source = np.int64(BY_SAMPLER)
            numerator, denominator = sampler_rate(samplers, table, changes, job["domain"], 1,
                                                  np.uint64(values[SELECTOR, r]), job["order"])
        if numerator == 0:
            numerator, denominator, source = common, common_denominator, common_source
        if source == 0:
            numerator, denominator, source = np.int64(1), np.int64(1), np.int64(ASSUMED)
            if policy.unannounced == QUARANTINE:
                work[W_FLAGS, r] |= QUARANTINED | (sampler_code(values, r, has) << SAMPLER_SHIFT)
            elif policy.unannounced == REJECT and work[W_FAULT, r] == 0:
                work[W_FAULT, r] = kinds["rate_unannounced"]
        largest = max(work[W_OCTETS, r], work[W_PACKETS, r], work[W_BACK, r], work[W_BACK_PACKETS, r])
        if work[W_FAULT, r] == 0 and largest // denominator >= COUNT_MAX // numerator:
            work[W_FAULT, r] = kinds["count_too_large"]  # scaled, it would not fit the sums of billing
        work[W_NUMERATOR, r] = numerator
        work[W_DENOMINATOR, r] = denominator
        work[W_SOURCE, r] = source


@inline_kernel
def pick(values: Any, r: int, has: Any, slot: int, mask: int) -> Any:
    return (values[slot, r] & mask) if has[slot] else np.int64(0)


@kernel
def write_ends(one: Any, two: Any, values: Any, count: int, has: Any, row: int, width: int) -> None:
    """Source (`one`) and destination address."""
    for r in range(count):
        at = row + r * width
        if is_ipv4(values, r, has):
            one[at, 0] = 0
            one[at, 1] = mapped(values[SOURCE4, r])
            two[at, 0] = 0
            two[at, 1] = mapped(values[DESTINATION4, r])
        else:
            one[at, 0] = np.uint64(values[SOURCE6, r])
            one[at, 1] = np.uint64(values[SOURCE6 + 1, r])
            two[at, 0] = np.uint64(values[DESTINATION6, r])
            two[at, 1] = np.uint64(values[DESTINATION6 + 1, r])


@kernel
def write_next_hop(hop: Any, values: Any, count: int, has: Any, row: int, width: int) -> None:
    if not (has[NEXT_HOP4] or has[NEXT_HOP6] or has[BGP_NEXT_HOP4] or has[BGP_NEXT_HOP6]):
        return  # columns begin as zeros
    for r in range(count):
        at = row + r * width
        if present(values, r, has, NEXT_HOP4):
            hop[at, 1] = mapped(values[NEXT_HOP4, r])
        elif has[NEXT_HOP6] and (values[NEXT_HOP6, r] | values[NEXT_HOP6 + 1, r]) != 0:
            hop[at, 0] = np.uint64(values[NEXT_HOP6, r])
            hop[at, 1] = np.uint64(values[NEXT_HOP6 + 1, r])
        elif present(values, r, has, BGP_NEXT_HOP4):
            hop[at, 1] = mapped(values[BGP_NEXT_HOP4, r])
        elif has[BGP_NEXT_HOP6]:
            hop[at, 0] = np.uint64(values[BGP_NEXT_HOP6, r])
            hop[at, 1] = np.uint64(values[BGP_NEXT_HOP6 + 1, r])


@inline_kernel
def write_transport(out: Any, values: Any, count: int, has: Any, row: int, width: int, swapped: bool) -> None:
    """Protocol, ports, type of service, TCP flags."""
    for r in range(count):
        at = row + r * width
        protocol = pick(values, r, has, PROTOCOL, 0xFF)
        source, destination = ports_of(values, r, has, protocol)
        tcp_flags = pick(values, r, has, TCP_FLAGS, 0xFFFF)
        tos = pick(values, r, has, TOS, 0xFF)
        if swapped:
            if has[REVERSE_TOS]:
                tos = values[REVERSE_TOS, r] & 0xFF
            if has[REVERSE_TCP_FLAGS]:
                tcp_flags = values[REVERSE_TCP_FLAGS, r] & 0xFFFF
            if protocol != 1 and protocol != 58:
                source, destination = destination, source
        out.protocol[at] = protocol
        out.source_port[at] = source
        out.destination_port[at] = destination
        out.tos[at] = tos
        out.tcp_flags[at] = tcp_flags if protocol == 6 else 0


@inline_kernel
def write_route(out: Any, values: Any, count: int, has: Any, row: int, width: int, swapped: bool) -> None:
    """Interfaces, AS numbers, direction."""
    for r in range(count):
        at = row + r * width
        into = pick(values, r, has, INPUT, WORD)
        outof = pick(values, r, has, OUTPUT, WORD)
        from_as = pick(values, r, has, SOURCE_AS, WORD)
        to_as = pick(values, r, has, DESTINATION_AS, WORD)
        direction = values[DIRECTION, r] if has[DIRECTION] else np.int64(255)
        if direction != 0 and direction != 1:
            direction = np.int64(255)
        if swapped:
            into, outof = outof, into
            from_as, to_as = to_as, from_as
            if direction != 255:
                direction = 1 - direction  # the same place sees the answer on its way out
        out.input_interface[at] = into
        out.output_interface[at] = outof
        out.source_as[at] = from_as
        out.destination_as[at] = to_as
        out.flow_direction[at] = direction


@inline_kernel
def write_worked(out: Any, work: Any, count: int, row: int, width: int, swapped: bool, own_times: bool) -> None:
    """What the stages before have found; `own_times`: the second direction has times of its own."""
    first, last = (W_BACK_START, W_BACK_END) if swapped and own_times else (W_START, W_END)
    for r in range(count):
        at = row + r * width
        kind = work[W_FAULT, r]
        out.start[at] = work[first, r]
        out.end[at] = work[last, r]
        out.rate_numerator[at] = work[W_NUMERATOR, r]
        out.rate_denominator[at] = work[W_DENOMINATOR, r]
        out.rate_source[at] = work[W_SOURCE, r]
        out.octets[at] = work[W_BACK if swapped else W_OCTETS, r]
        out.packets[at] = work[W_BACK_PACKETS if swapped else W_PACKETS, r]
        out.flags[at] = work[W_FLAGS, r] | (REVERSE if swapped else 0)
        if kind == 0:
            out.status[at] = FLOW
        elif kind == NO_FLOW:
            out.status[at] = 0 if swapped else NOT_A_FLOW
        elif not swapped:
            out.status[at] = FAULTED
            out.fault[at] = kind


@inline_kernel
def write_chunk(out: Any, values: Any, work: Any, count: int, has: Any, row: int, width: int) -> None:
    """The rows of a chunk: one direction, and the other where records have two."""
    write_next_hop(out.next_hop, values, count, has, row, width)
    own_times = width == 2 and has_reverse_times(has)
    for k in range(width):
        swapped = k == 1
        if swapped:
            write_ends(out.destination_address, out.source_address, values, count, has, row + k, width)
        else:
            write_ends(out.source_address, out.destination_address, values, count, has, row, width)
        write_transport(out, values, count, has, row + k, width, swapped)
        write_route(out, values, count, has, row + k, width, swapped)
        write_worked(out, work, count, row + k, width, swapped, own_times)


@inline_kernel
def clock_move(job: Any, policy: Any) -> Any:
    """By how much an exporter's times are moved: its clock is off by more than is allowed."""
    off = job["received"] - job["exported"]
    if policy.skew_ms > 0 and abs(off) > policy.skew_ms:
        return off
    return np.int64(0)


@kernel
def clear_rows(out: Any, first: int, last: int) -> None:
    """Rows whose columns are written one by one begin as zeros: the memory is used again and again."""
    for row in range(first, last):
        out.next_hop[row, 0] = 0
        out.next_hop[row, 1] = 0
        out.status[row] = 0
        out.fault[row] = 0
        out.flags[row] = 0


@inline_kernel
def fill(column: Any, row: Any, count: Any, value: Any) -> None:
    for r in range(count):
        column[row + r] = value


@kernel
def write_common(out: Any, first: int, records: int, received: int, high: Any, low: Any, domain: int, protocol: int) -> None:
    """What all rows of a set have in common."""
    row = np.uint64(first)
    count = np.uint64(records)
    fill(out.received, row, count, received)
    for r in range(count):
        out.exporter[row + r, 0] = high
        out.exporter[row + r, 1] = low
    fill(out.domain, row, count, domain)
    fill(out.export_protocol, row, count, protocol)


# Plain plans: one flow a record, every column from one field or from the set -------------------------------------------
# Each column is written straight from the data, field outside, record inside. Whatever needs a decision for a single
# record (a time of zero, a count beyond its bound, an end before its start) makes the set odd: the general stages above
# then decode it once more. Rows are counted without sign: the compiler need not think of negative indexes.
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


@kernel
def decode(data: Any, sets: Any, first: int, last: int, state: Any, changes: Any, out: Any, policy: Any,
           kinds: Any, values: Any, work: Any) -> None:
    """Decode sets[first:last]; rows that stay empty keep status 0, sets whose rows are all flows are marked as clean."""
    places, plans, domains = state.places, state.plans, state.domains
    samplers, sampler_table = state.samplers, state.sampler_table
    for s in range(first, last):
        job = sets[s]
        job["clean"] = 0
        if not job["sflow"] and job["verdict"] != FLOW_VERDICT and job["verdict"] != PACKET_VERDICT:
            continue
        if not job["sflow"] and plans[job["plan"]]["plain"] and decode_plain(
                data, job, plans[job["plan"]], places[job["plan"]], domains[job["domain"]], samplers, sampler_table, changes,
                out, policy):
            job["clean"] = 1
            continue
        clear_rows(out, job["row"], job["row"] + job["records"] * job["width"])
        if not job["sflow"]:
            decode_set(data, job, state, changes, out, policy, kinds, values, work)


@kernel
def decode_set(data: Any, job: Any, state: Any, changes: Any, out: Any, policy: Any, kinds: Any, values: Any,
               work: Any) -> None:
    """A set of any plan, in stages over chunks of its records."""
    plan = state.plans[job["plan"]]
    has = state.has[job["plan"]]
    owner = state.domains[job["domain"]]
    move = clock_move(job, policy)
    write_common(out, job["row"], job["records"] * job["width"], job["received"], owner["high"], owner["low"],
                 owner["domain"], owner["protocol"])
    at = job["start"]
    done = np.int64(0)
    while done < job["records"]:
        count = min(job["records"] - done, CHUNK)
        if plan["stride"] > 0:
            load_fixed(data, at, plan["stride"], count, plan["first"], plan["count"], state.fields, state.slots,
                       state.offsets, values)
            at += count * plan["stride"]
        else:
            at = load_variable(data, at, count, plan["first"], plan["count"], state.fields, state.slots, values)
        if job["verdict"] == PACKET_VERDICT:
            leave_unmeasured(count, work)
        else:
            measure(values, count, has, kinds[0], work)
            if has[FIREWALL_EVENT] or has[NAT_EVENT]:
                judge_events(values, count, has, kinds[0], work)
        place_in_time(values, count, has, job["exported"], job["uptime"], job["initialised"], owner["protocol"], move,
                      kinds[0], work)
        if job["width"] == 2 and has_reverse_times(has):
            place_reverse_in_time(values, count, has, job["exported"], job["uptime"], job["initialised"],
                                  owner["protocol"], move, kinds[0], work)
        set_rates(values, count, has, job, state.samplers, state.sampler_table, changes, policy, kinds[0], work)
        write_chunk(out, values, work, count, has, job["row"] + done * job["width"], job["width"])
        done += count
