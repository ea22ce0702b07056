"""The scan: one sequential walk over the datagrams of a journal block.

It reads headers, notes sequence numbers (for `sequences`), finds copies, keeps templates and options, and resolves every
data set to an immutable plan, so that the fields can be decoded later, by anyone, in any order. Reads a block's body; writes
the state (`collector.layout.State`) and the call's results (`collector.layout.Results`). It stops between two datagrams when
a table might be too small for the next one and says which: the caller enlarges it and calls again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.admission import admission_of, configure, configured_row, has_token, note_stranger
from collector.kernels.plans import compile_plan
from collector.kernels.tables import find_domain, find_sampler, find_template, payload_hash
from core.jit import inline_kernel, kernel, load_be16, load_be32, load_le32

# What the scan returns: 0 is done, anything else names the table that must grow before it goes on.
DONE = 0
DOMAINS, TEMPLATES, PLANS, FIELDS, SAMPLERS, CHANGES, WAITING, WAITING_OCTETS, SIGHTINGS, SETS, RELEASED, INTAKE, BAD_BODY = (
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)
HEARD = 14
PORTION, HELD = 15, 16  # so much has come of this body that it must be decoded before the scan goes on; a table that grows

ENTRY_HEADER = 56
RECEIVED_UNKNOWN, SESSION_BEGINS, SESSION_ENDS, STREAM_MALFORMED, STREAM_CUT, SESSIONS_LOST = 1, 2, 4, 8, 16, 32  # of entries
TCP, UDP_SESSION, TCP_SESSION = 6, 1, 2
IN_USE, ENDED, RECYCLED, FREE = 0, 1, 2, 3
BLOCK_ENTRIES_MAX, ROWS_BESIDE = 4096, 8192  # beside: rows of sessions that ended in this block or were recycled before it
MEMBER = 19  # octet of an entry that a merged body marks its member with
WORD = 0xFFFFFFFF
QUARTER_MS = 900_000
NEW, COPY, TWIN_COPY = 0, 1, 2  # what a datagram is to those seen before
ALIGN_SHIFT = 4  # how slowly a member's clock is learned: by a sixteenth of the difference
AHEAD_UNIT = 1024  # collector.layout.AHEAD_UNIT
SAMPLER_CODES = 65_535  # sampler ids that a flow's flags can hold, less one for none
WAITING_OVERHEAD = 64
PROBES_MAX = 128  # of a half-full table no honest key needs more: further ones were aimed at one place
# What one datagram may set free, in octets and their equivalents; the rest follows with the next ones.
RELEASE_COST_MAX, COST_OF_SET, COST_OF_RECORD, COST_OF_LOOK = 1 << 17, 128, 16, 8
VARIABLE = 65_535
PADDING_MAX = 7  # octets behind the last record of a set, or alone in it: some exporters pad to eight (RFC 7011 §3.3.1)
ENTERPRISE_MAX = 0x7FFFFFFF

V1, V5, V7, V9, IPFIX, SFLOW = 1, 5, 7, 9, 10, 105
PLAN_V1, PLAN_V5, PLAN_V7 = 0, 1, 2  # made when the state is new

# Slots of the registry that the scan itself looks at, for options; the full list is in `rows`.
INITIALISED, SAMPLING_INTERVAL, RANDOM_INTERVAL, PACKET_INTERVAL, PACKET_SPACE = 37, 46, 47, 48, 49
SAMPLE_SIZE, POPULATION, SAMPLER, SELECTOR = 50, 51, 52, 53

EXPORTER_UNKNOWN, DOMAIN_UNKNOWN, RATE_LIMITED = 1, 2, 3  # why a datagram is refused
QUARANTINE = 1  # what is done with unknown exporters: their datagrams are handed on


# Bookkeeping ----------------------------------------------------------------------------------------------------------
@kernel
def fault(faults: Any, now: Any, kind: int) -> None:
    faults[now["intake"], kind] += 1
    now["faults"] += 1


@kernel
def free_domain(state: Any) -> Any:
    """A row that nobody uses, -1 if there is none. Its datagrams go on counting, so that no old copy is near."""
    counts = state.counts[0]
    if counts["free"] > 0:
        for i in range(max(counts["free_from"], 1), counts["domains"]):
            if state.domains[i]["ended"] == FREE:
                state.domains[i]["ended"] = IN_USE
                counts["free"] -= 1
                counts["free_from"] = i + 1
                return i
    if counts["domains"] >= len(state.domains):
        return -1
    counts["domains"] += 1
    return counts["domains"] - 1


@kernel
def open_domain(state: Any, limits: Any, high: Any, low: Any, domain: int, protocol: int, session: int, received: int) -> Any:
    """The row of a domain, made if need be; row 0 (the rest of the world) when there is no room."""
    found = find_domain(state.domains, state.domain_table, high, low, domain, protocol, session, PROBES_MAX)
    if found >= 0:
        return found
    counts = state.counts[0]
    if -1 - found == len(state.domain_table):
        return 0
    index = free_domain(state) if counts["domains"] - counts["ended"] - counts["free"] < limits.domains else np.int64(-1)
    if index < 0:
        return 0
    counts["opened"] += 1
    state.domain_table[-1 - found] = index
    row = state.domains[index]
    row["session"] = session
    row["high"] = high
    row["low"] = low
    row["domain"] = domain
    row["protocol"] = protocol
    row["first"] = received
    row["last"] = received
    row["intake"] = -1
    row["refilled"] = -1
    state.sequences[index]["begun"] = 0
    configure(row, limits)
    return index


@kernel
def open_intake(state: Any, results: Any, domain: int, received: int) -> Any:
    """The intake row of a domain's quarter hour; a domain may have several, they are added up later."""
    row = state.domains[domain]
    quarter = received - received % QUARTER_MS
    if row["intake"] >= 0 and row["quarter"] == quarter:
        return row["intake"]
    index = results.progress[0]["intake"]
    results.progress[0]["intake"] = index + 1
    results.intake[index]["owner"] = domain
    results.intake[index]["quarter"] = quarter
    row["intake"] = index
    row["quarter"] = quarter
    return index


@inline_kernel
def align(members: Any, place: Any, member: int, received: int) -> None:
    """Learn from two copies of a datagram by how much a member's clock is ahead of member 0's."""
    first = place["members"] >> 32
    off = (received - place["received"]) * AHEAD_UNIT - (members[member]["ahead"] - members[first]["ahead"])
    if member != 0:
        members[member]["ahead"] += off >> ALIGN_SHIFT
    else:
        members[first]["ahead"] -= off >> ALIGN_SHIFT


@inline_kernel
def seen_before(state: Any, limits: Any, words: Any, word: int, length: int, domain: int, received: int, member: int) -> Any:
    """Whether an exact copy of this datagram of this domain came lately (COPY), or another member of the group brought it
    (TWIN_COPY); remembers it otherwise (NEW)."""
    row = state.domains[domain]
    serial = row["serial"]
    row["serial"] = serial + 1
    if limits.duplicate_window == 0:
        return NEW
    brought = (np.int64(1) << member) | (np.int64(member) << 32)
    first, second = payload_hash(words, word, length, np.uint64(domain))
    mask = len(state.sightings) - 1
    home = np.int64(first & np.uint64(mask))
    at = home
    for _ in range(PROBES_MAX):
        if state.sightings[at]["domain"] < 0:
            break
        place = state.sightings[at]
        if place["first"] == first and place["second"] == second and place["domain"] == domain:
            if limits.twins > 0 and (place["members"] >> member) & 1 == 0:
                place["members"] |= np.int64(1) << member
                row["serial"] = serial  # the exporter sent it once
                align(state.members, place, member, received)
                return TWIN_COPY
            near = serial - place["serial"] <= limits.duplicate_window and (
                abs(received - place["received"]) <= limits.duplicate_ms)
            if not near:
                place["serial"] = serial
                place["received"] = received
                place["members"] = brought
            return COPY if near else NEW
        at = (at + 1) & mask
    if state.sightings[at]["domain"] < 0:
        state.counts[0]["sightings"] += 1
    else:
        at = home  # crowded on purpose: the one that lay here longest is forgotten
    place = state.sightings[at]
    place["first"] = first
    place["second"] = second
    place["domain"] = domain
    place["serial"] = serial
    place["received"] = received
    place["members"] = brought
    return NEW


# Sequence numbers -----------------------------------------------------------------------------------------------------
@inline_kernel
def note_place(results: Any, kind: int, domain: int, protocol: int, sequence: int, records: int, received: int) -> Any:
    """A new note for the sequence accounting (`layout.HEARD`)."""
    progress = results.progress[0]
    note = results.heard[progress["heard"]]
    progress["heard"] += 1
    note["kind"] = kind
    note["domain"] = domain
    note["protocol"] = protocol
    note["sequence"] = sequence
    note["records"] = records
    note["received"] = received
    note["intake"] = results.situation[0]["intake"]
    return note


# Records --------------------------------------------------------------------------------------------------------------
@inline_kernel
def count_records(data: Any, start: int, stop: int, plan: Any, fields: Any, most: int) -> Any:
    """Whole records in [start, stop), at most `most`; whether there are more; whether the last one is cut off."""
    if plan["minimum"] == 0 or stop <= start:
        return np.int64(0), False, False
    if plan["stride"] > 0:
        whole = (stop - start) // plan["stride"]
        if whole > most:
            return np.int64(most), True, False
        return np.int64(whole), False, whole == 0 and stop - start > PADDING_MAX
    count = np.int64(0)
    at = start
    while stop - at >= plan["minimum"]:
        if count == most:
            return count, True, False
        for i in range(plan["first"], plan["first"] + plan["count"]):
            length = fields[i] & 0xFFFF
            if length == VARIABLE:
                if at >= stop:
                    return count, False, True
                length = np.int64(data[at])
                at += 1
                if length == 255:
                    if stop - at < 2:
                        return count, False, True
                    length = load_be16(data, at)
                    at += 2
            if length > stop - at:
                return count, False, True
            at += length
        count += 1
    return count, False, False


@kernel
def greatest_divisor(a: int, b: int) -> Any:
    while b:
        a, b = b, a % b
    return a


@kernel
def announced_rate(scratch: Any, has: Any) -> Any:
    """The rate in a record: (numerator, denominator), (0, 0) if it has none."""
    numerator = np.int64(0)
    denominator = np.int64(1)
    if has[SAMPLING_INTERVAL] and scratch[SAMPLING_INTERVAL] != 0:
        numerator = scratch[SAMPLING_INTERVAL]
    elif has[RANDOM_INTERVAL] and scratch[RANDOM_INTERVAL] != 0:
        numerator = scratch[RANDOM_INTERVAL]
    elif has[PACKET_INTERVAL] and scratch[PACKET_INTERVAL] != 0:
        space = scratch[PACKET_SPACE] if has[PACKET_SPACE] else np.int64(0)
        if 0 <= space <= WORD and 0 < scratch[PACKET_INTERVAL] <= WORD:
            numerator = scratch[PACKET_INTERVAL] + space
            denominator = scratch[PACKET_INTERVAL]
    elif has[SAMPLE_SIZE] and has[POPULATION] and 0 < scratch[SAMPLE_SIZE] <= scratch[POPULATION]:
        numerator = scratch[POPULATION]
        denominator = scratch[SAMPLE_SIZE]
    if numerator <= 0:
        return np.int64(0), np.int64(0)
    common = greatest_divisor(numerator, denominator)
    numerator //= common
    denominator //= common
    if numerator > WORD or denominator > WORD:
        return np.int64(0), np.int64(0)
    return numerator, denominator


@kernel
def read_options(data: Any, start: int, stop: int, records: int, plan_index: int, domain: int, state: Any, limits: Any,
                 results: Any) -> Any:
    """What options records say about sampling and time goes into the state; how many samplers there was no room for."""
    refused = np.int64(0)
    plan = state.plans[plan_index]
    has = state.has[plan_index]
    scratch = results.scratch
    at = start
    for _ in range(records):
        for i in range(plan["first"], plan["first"] + plan["count"]):
            length = state.fields[i] & 0xFFFF
            if length == VARIABLE:
                length = np.int64(data[at])
                at += 1
                if length == 255:
                    length = load_be16(data, at)
                    at += 2
            slot = state.slots[i]
            if slot > 0 and length <= 8:
                value = np.int64(0)
                for k in range(length):
                    value = (value << 8) | np.int64(data[at + k])
                scratch[slot] = value
            at += length
        if has[INITIALISED] and scratch[INITIALISED] != 0:
            state.domains[domain]["initialised"] = scratch[INITIALISED]
        numerator, denominator = announced_rate(scratch, has)
        announces = (has[SAMPLING_INTERVAL] or has[RANDOM_INTERVAL] or has[PACKET_INTERVAL]
                     or (has[SAMPLE_SIZE] and has[POPULATION]))
        if not announces:
            continue
        if has[SAMPLER]:
            refused += set_sampler(state, limits, results, domain, 0, np.uint64(scratch[SAMPLER]), numerator, denominator)
        elif has[SELECTOR]:
            refused += set_sampler(state, limits, results, domain, 1, np.uint64(scratch[SELECTOR]), numerator, denominator)
        else:
            owner = state.domains[domain]
            if owner["rate_numerator"] != numerator or owner["rate_denominator"] != denominator:
                announce(results, domain, 0, numerator, denominator)
            owner["rate_numerator"] = numerator
            owner["rate_denominator"] = denominator
    return refused


@kernel
def announce(results: Any, domain: int, sampler: int, numerator: int, denominator: int) -> None:
    """Note a rate that is new, or (0) taken back, for flows that waited for it; when there is no room, the caller looks at
    the state."""
    progress = results.progress[0]
    if progress["announced"] == len(results.announced):
        return
    row = results.announced[progress["announced"]]
    progress["announced"] += 1
    row["domain"] = domain
    row["sampler"] = sampler
    row["numerator"] = numerator
    row["denominator"] = denominator
    row["received"] = results.situation[0]["received"]


@kernel
def set_sampler(state: Any, limits: Any, results: Any, domain: int, kind: int, identifier: Any, numerator: int,
                denominator: int) -> Any:
    """Enter a sampler's rate, valid for the sets scanned from here on; 1 if there is no room for it."""
    found = find_sampler(state.samplers, state.sampler_table, domain, kind, identifier, PROBES_MAX)
    if found < 0:
        index = state.counts[0]["samplers"]
        if index >= limits.samplers or index >= len(state.samplers) or -1 - found == len(state.sampler_table):
            return 1
        state.counts[0]["samplers"] = index + 1
        state.sampler_table[-1 - found] = index
        row = state.samplers[index]
        row["domain"] = domain
        row["kind"] = kind
        row["identifier"] = identifier
        row["numerator"] = 0
        row["denominator"] = 0
        row["numerator_before"] = 0
        row["denominator_before"] = 0
    else:
        index = found
    row = state.samplers[index]
    if row["numerator"] == numerator and row["denominator"] == denominator:
        return 0
    if results.progress[0]["changes"] == len(results.changes):  # no order could be kept
        return 1
    row["numerator"] = numerator
    row["denominator"] = denominator
    change = results.changes[results.progress[0]["changes"]]
    change["sampler"] = index
    change["order"] = results.progress[0]["order"]
    change["numerator"] = numerator
    change["denominator"] = denominator
    results.progress[0]["changes"] += 1
    if identifier < np.uint64(SAMPLER_CODES - 1):
        announce(results, domain, np.int64(identifier) + 1, numerator, denominator)
    return 0


@inline_kernel
def enter_set(row: Any, state: Any, results: Any, plan_index: int, domain: int, start: int, stop: int, records: int,
              first_row: int) -> Any:
    """Describe a set that the decoder can read without any other state; returns the rows it may need."""
    plan = state.plans[plan_index]
    owner = state.domains[domain]
    row["sflow"] = 0
    row["start"] = start
    row["stop"] = stop
    row["plan"] = plan_index
    row["records"] = records
    row["row"] = first_row
    row["width"] = plan["width"]
    row["verdict"] = plan["verdict"]
    row["options"] = plan["options"]
    row["fault"] = 0
    row["clean"] = 0
    row["domain"] = domain
    row["rate_numerator"] = owner["rate_numerator"]
    row["rate_denominator"] = owner["rate_denominator"]
    row["configured"] = owner["configured"]
    row["initialised"] = owner["initialised"]
    row["sflow_boot"] = owner["sflow_boot"]
    row["order"] = results.progress[0]["order"]
    results.progress[0]["order"] += 1
    return records * plan["width"]


@inline_kernel
def read_set(data: Any, start: int, stop: int, plan_index: int, clipped: bool, state: Any, limits: Any, results: Any,
             kinds: Any) -> None:
    """A data set whose template is known."""
    now = results.situation[0]
    plan = state.plans[plan_index]
    if plan["minimum"] == 0:
        if stop > start:
            fault(results.faults, now, kinds["zero_length_record"])
        return
    records, more, cut = count_records(data, start, stop, plan, state.fields, limits.records - now["records"])
    if more and not now["full"]:
        fault(results.faults, now, kinds["too_many_records"])
        now["full"] = 1
    if cut and not clipped:  # a set that is cut off has been counted as such
        fault(results.faults, now, kinds["record_overrun"])
    now["records"] += records
    if plan["options"]:
        now["options"] += records
    if records == 0:
        return
    now["read"] += 1
    progress = results.progress[0]
    row = results.sets[progress["sets"]]
    progress["sets"] += 1
    progress["rows"] += enter_set(row, state, results, plan_index, now["domain"], start, stop, records, progress["rows"])
    row["received"] = now["received"]
    row["exported"] = now["exported"]
    row["uptime"] = now["uptime"]
    row["intake"] = now["intake"]
    row["header_rate"] = now["header_rate"]
    if plan["options"] and plan["informs"]:
        refused = read_options(data, start, stop, records, plan_index, now["domain"], state, limits, results)
        results.faults[now["intake"], kinds["samplers_full"]] += refused
        now["faults"] += refused


@inline_kernel
def plan_of(state: Any, template: int) -> Any:
    """The plan that a template stands for now, -1 for none: one that was withdrawn with all of its kind is forgotten here."""
    row = state.templates[template]
    if row["plan"] >= 0:
        owner = state.domains[row["domain"]]
        until = owner["withdrawn_options"] if state.plans[row["plan"]]["options"] else owner["withdrawn"]
        if row["number"] < until:
            row["plan"] = -1
    return row["plan"]


# Data before its template ---------------------------------------------------------------------------------------------
@inline_kernel
def open_template(state: Any, limits: Any, domain: int, identifier: int) -> Any:
    """The row of a template id, made if need be; -1 when there is no room."""
    found = find_template(state.templates, state.template_table, domain, identifier, PROBES_MAX)
    if found >= 0:
        return found
    index = state.counts[0]["templates"]
    if index >= limits.templates or index >= len(state.templates) or -1 - found == len(state.template_table):
        return -1
    state.counts[0]["templates"] = index + 1
    state.template_table[-1 - found] = index
    row = state.templates[index]
    row["domain"] = domain
    row["identifier"] = identifier
    row["plan"] = -1
    row["number"] = -1
    row["waiting_first"] = -1
    row["waiting_last"] = -1
    return index


@inline_kernel
def keep_waiting(data: Any, start: int, stop: int, identifier: int, state: Any, limits: Any, results: Any, kinds: Any) -> None:
    """Copy a set whose template is unknown, in bounds."""
    now = results.situation[0]
    counts = state.counts[0]
    length = stop - start
    live = counts["waiting_live_octets"] + counts["waiting_live"] * WAITING_OVERHEAD
    index = counts["waiting"]
    template = np.int64(-1)
    if live + length + WAITING_OVERHEAD <= limits.waiting_octets and counts["waiting_live"] < limits.waiting_sets:
        template = open_template(state, limits, now["domain"], identifier)
    if template < 0:
        fault(results.faults, now, kinds["waiting_full"])
        return
    offset = counts["waiting_octets"]
    for i in range(length):
        state.waiting_octets[offset + i] = data[start + i]
    counts["waiting_octets"] = offset + length
    counts["waiting"] = index + 1
    counts["waiting_live"] += 1
    counts["waiting_live_octets"] += length
    row = state.waiting[index]
    row["template"] = template
    row["next"] = -1
    row["offset"] = offset
    row["length"] = length
    row["received"] = now["received"]
    row["exported"] = now["exported"]
    row["uptime"] = now["uptime"]
    row["domain"] = now["domain"]
    row["sequence"] = -1  # set when the datagram is accounted for
    row["live"] = 1
    row["header_rate"] = now["header_rate"]
    owner = state.templates[template]
    if owner["waiting_last"] >= 0:
        state.waiting[owner["waiting_last"]]["next"] = index
    else:
        owner["waiting_first"] = index
    owner["waiting_last"] = index
    state.domains[now["domain"]]["waiting"] += 1
    results.intake[now["intake"]]["waiting_sets"] += 1
    now["read"] += 1


@kernel
def release_set(index: int, plan_index: int, state: Any, limits: Any, results: Any, kinds: Any) -> None:
    """A set that waited is read with its own arrival time and header."""
    now = results.situation[0]
    progress = results.progress[0]
    counts = state.counts[0]
    plan = state.plans[plan_index]
    held = state.waiting[index]
    held["live"] = 0
    counts["waiting_live"] -= 1
    counts["waiting_live_octets"] -= held["length"]
    domain = held["domain"]
    state.domains[domain]["waiting"] -= 1
    start = held["offset"]
    stop = start + held["length"]
    records, more, cut = count_records(state.waiting_octets, start, stop, plan, state.fields, limits.records)
    now["released"] += held["length"] + COST_OF_SET + COST_OF_RECORD * records
    row = results.released[progress["released"]]
    progress["released"] += 1
    progress["released_rows"] += enter_set(row, state, results, plan_index, domain, start, stop, records,
                                           progress["released_rows"])
    if plan["minimum"] == 0:
        row["fault"] = kinds["zero_length_record"]
    elif more:
        row["fault"] = kinds["too_many_records"]
    elif cut:
        row["fault"] = kinds["record_overrun"]
    row["received"] = held["received"]
    row["exported"] = held["exported"]
    row["uptime"] = held["uptime"]
    row["header_rate"] = held["header_rate"]
    row["intake"] = -1
    if state.domains[domain]["protocol"] == IPFIX:
        if held["sequence"] < 0:
            now["records"] += records  # of the very datagram that is being read
            if plan["options"]:
                now["options"] += records
        else:
            note_place(results, 1, domain, IPFIX, held["sequence"], records, held["received"])
    if plan["options"] and plan["informs"]:
        refused = read_options(state.waiting_octets, start, stop, records, plan_index, domain, state, limits, results)
        if refused > 0 and row["fault"] == 0:
            row["fault"] = kinds["samplers_full"]


@kernel
def release(template: int, state: Any, limits: Any, results: Any, kinds: Any) -> None:
    """The template came: what waited for it is read, as much of it as one datagram may set free."""
    now = results.situation[0]
    owner = state.templates[template]
    index = owner["waiting_first"]
    while index >= 0 and now["released"] < RELEASE_COST_MAX:
        now["released"] += COST_OF_LOOK
        if state.waiting[index]["live"]:
            release_set(index, owner["plan"], state, limits, results, kinds)
        index = state.waiting[index]["next"]
    owner["waiting_first"] = index
    if index < 0:
        owner["waiting_last"] = -1
    else:
        state.counts[0]["ready"] = state.counts[0]["waiting"]


@kernel
def go_on_releasing(state: Any, limits: Any, results: Any, kinds: Any) -> None:
    """Between two datagrams: look through what waits, from where the last look ended, for sets whose template has come."""
    now = results.situation[0]
    counts = state.counts[0]
    if counts["ready"] > 0:
        now["received"] = counts["newest"]
    while counts["ready"] > 0 and now["released"] < RELEASE_COST_MAX:
        index = counts["release_at"] if counts["release_at"] < counts["waiting"] else np.int64(0)
        counts["release_at"] = index + 1
        counts["ready"] -= 1
        now["released"] += COST_OF_LOOK
        if state.waiting[index]["live"]:
            plan = plan_of(state, state.waiting[index]["template"])
            if plan >= 0:
                release_set(index, plan, state, limits, results, kinds)


# Templates ------------------------------------------------------------------------------------------------------------
@kernel
def define(state: Any, limits: Any, results: Any, kinds: Any, identifier: int, count: int, scope: int, options: int,
           v9: bool) -> None:
    """A whole definition was read into the free fields: compare it with what is known, and take it if it is new."""
    now = results.situation[0]
    counts = state.counts[0]
    if now["defined"] >= limits.records:
        if not now["full"]:
            fault(results.faults, now, kinds["too_many_records"])
        now["full"] = 1
        return
    now["defined"] += 1
    template = open_template(state, limits, now["domain"], identifier)
    if template < 0 or counts["fields"] + count > limits.fields:
        fault(results.faults, now, kinds["templates_full"])
        return
    now["read"] += 1
    if options:
        results.intake[now["intake"]]["options_templates"] += 1
    else:
        results.intake[now["intake"]]["templates"] += 1
    owner = state.templates[template]
    if plan_of(state, template) >= 0:
        known = state.plans[owner["plan"]]
        same = known["count"] == count and known["scope"] == scope and known["options"] == options
        i = 0
        while same and i < count:
            same = state.fields[known["first"] + i] == state.fields[counts["fields"] + i]
            i += 1
        if same:
            return
        if now["session"] >> 48 == TCP_SESSION:  # RFC 7011 §8: over TCP it is withdrawn first; the new one is clear enough
            fault(results.faults, now, kinds["template_redefined"])
    owner["plan"] = compile_plan(state, limits, count, scope, options, v9, state.domains[now["domain"]]["repeat"])
    owner["defined"] = now["received"]
    owner["number"] = counts["definitions"]
    counts["definitions"] += 1
    if owner["waiting_first"] >= 0:
        release(template, state, limits, results, kinds)


@inline_kernel
def read_fields(data: Any, at: int, stop: int, count: int, scope: int, ipfix: bool, state: Any) -> Any:
    """Field specifiers → the free fields; the offset behind them (-1: they are cut off), how many there are, how many of
    them are scope. Fields of no length are left out: they hold nothing, and a thousand of them would be walked in vain for
    every record."""
    first = state.counts[0]["fields"]
    kept = np.int64(0)
    kept_scope = np.int64(0)
    for i in range(count):
        if stop - at < 4:
            return np.int64(-1), kept, kept_scope
        element = load_be16(data, at)
        length = load_be16(data, at + 2)
        enterprise = np.int64(0)
        at += 4
        if ipfix and element >= 32768:
            if stop - at < 4:
                return np.int64(-1), kept, kept_scope
            enterprise = load_be32(data, at)
            element -= 32768
            at += 4
            if enterprise == 0:
                element += 32768  # the enterprise number 0 is reserved: not an IANA element
        # 31 bits are enough, if larger numbers don't become those of others
        if length > 0:
            state.fields[first + kept] = (min(enterprise, ENTERPRISE_MAX) << 32) | (element << 16) | length
            kept += 1
            kept_scope += i < scope
    return at, kept, kept_scope


@kernel
def too_large(data: Any, at: int, stop: int, count: int, ipfix: bool) -> Any:
    """The offset behind a definition that is not read, -1 if it is cut off."""
    for _ in range(count):
        if stop - at < 4:
            return -1
        wide = ipfix and load_be16(data, at) >= 32768
        at += 8 if wide else 4
        if at > stop:
            return -1
    return at


@kernel
def withdraw(state: Any, results: Any, identifier: int, options: int) -> None:
    """Forget one template of the domain, or all of a kind (RFC 7011 §8.1: the id is then that of the set)."""
    now = results.situation[0]
    now["read"] += 1
    if identifier >= 256:
        found = find_template(state.templates, state.template_table, now["domain"], identifier, PROBES_MAX)
        if found >= 0:
            state.templates[found]["plan"] = -1
        return
    # All of a kind: those defined before this moment. A walk over them could be asked for in every set of a message.
    owner = state.domains[now["domain"]]
    if options:
        owner["withdrawn_options"] = state.counts[0]["definitions"]
    else:
        owner["withdrawn"] = state.counts[0]["definitions"]


@inline_kernel
def template_set(data: Any, at: int, stop: int, ipfix: bool, state: Any, limits: Any, results: Any, kinds: Any) -> None:
    """Template records (RFC 3954 §5.2, RFC 7011 §3.4.1)."""
    now = results.situation[0]
    withdrew_all = False
    while stop - at >= 4:
        identifier = load_be16(data, at)
        count = load_be16(data, at + 2)
        at += 4
        if count == 0 and identifier == 0:
            return  # padding
        if count == 0 and ipfix and (identifier >= 256 or identifier == 2):
            if identifier >= 256 or not withdrew_all:
                withdraw(state, results, identifier, np.int64(0))
            withdrew_all = withdrew_all or identifier == 2
            continue
        if count > limits.template_fields:
            at = too_large(data, at, stop, count, ipfix)
            fault(results.faults, now, kinds["template_malformed"] if at < 0 else kinds["template_too_large"])
        else:
            at, kept, _ = read_fields(data, at, stop, count, np.int64(0), ipfix, state)
            if at < 0 or identifier < 256 or count == 0:
                fault(results.faults, now, kinds["template_malformed"])
            else:
                define(state, limits, results, kinds, identifier, kept, np.int64(0), np.int64(0), not ipfix)
        if at < 0:
            return


@inline_kernel
def options_set(data: Any, at: int, stop: int, ipfix: bool, state: Any, limits: Any, results: Any, kinds: Any) -> None:
    """Options template records (RFC 3954 §6.1: lengths in octets; RFC 7011 §3.4.2: counts of fields)."""
    now = results.situation[0]
    withdrew_all = False
    while stop - at >= (4 if ipfix else 6):
        identifier = load_be16(data, at)
        count = load_be16(data, at + 2)
        if count == 0 and ipfix:
            at += 4
            if identifier == 0:
                return  # padding
            if identifier >= 256 or (identifier == 3 and not withdrew_all):
                withdraw(state, results, identifier, np.int64(1))
            elif identifier != 3:
                fault(results.faults, now, kinds["template_malformed"])
            withdrew_all = withdrew_all or identifier == 3
            continue
        if stop - at < 6:
            fault(results.faults, now, kinds["template_malformed"])
            return
        scope = load_be16(data, at + 4)
        at += 6
        odd = False
        if not ipfix:
            if identifier == 0 and count == 0 and scope == 0:
                return  # padding
            odd = count % 4 != 0 or scope % 4 != 0
            octets = count
            count = (octets + scope) // 4
            scope = octets // 4
        if odd:
            fault(results.faults, now, kinds["template_malformed"])
            return
        if count > limits.template_fields:
            at = too_large(data, at, stop, count, ipfix)
            fault(results.faults, now, kinds["template_malformed"] if at < 0 else kinds["template_too_large"])
        else:
            at, kept, kept_scope = read_fields(data, at, stop, count, scope, ipfix, state)
            bad = at < 0 or identifier < 256 or count == 0 or scope > count or (ipfix and scope == 0)
            if bad:
                fault(results.faults, now, kinds["template_malformed"])
            else:
                define(state, limits, results, kinds, identifier, kept, kept_scope, np.int64(1), not ipfix)
        if at < 0:
            return


# Datagrams ------------------------------------------------------------------------------------------------------------
@kernel
def is_padding(data: Any, at: int, stop: int) -> Any:
    """Whether a message ends here with a few zeros."""
    if stop - at > PADDING_MAX:
        return False
    found = np.int64(0)
    for i in range(at, stop):
        found |= np.int64(data[i])
    return found == 0


@kernel
def read_sets(data: Any, at: int, stop: int, ipfix: bool, state: Any, limits: Any, results: Any, kinds: Any) -> None:
    """The sets of a v9 or IPFIX message."""
    now = results.situation[0]
    clipped = False
    while stop - at >= 4:
        identifier = load_be16(data, at)
        length = load_be16(data, at + 2)
        if length < 4:
            if identifier != 0 or length != 0 or not is_padding(data, at, stop):
                fault(results.faults, now, kinds["set_length"])
            return
        end = at + length
        if end > stop:
            fault(results.faults, now, kinds["set_overrun"])
            clipped = True
            end = stop
        first = at + 4
        if identifier >= 256:
            if end > first:
                template = find_template(state.templates, state.template_table, now["domain"], identifier, PROBES_MAX)
                if template >= 0 and plan_of(state, template) >= 0:
                    read_set(data, first, end, state.templates[template]["plan"], clipped, state, limits, results, kinds)
                else:
                    keep_waiting(data, first, end, identifier, state, limits, results, kinds)
        elif identifier == (2 if ipfix else 0):
            template_set(data, first, end, ipfix, state, limits, results, kinds)
        elif identifier == (3 if ipfix else 1):
            options_set(data, first, end, ipfix, state, limits, results, kinds)
        else:
            fault(results.faults, now, kinds["set_id_reserved"])
        at = end


@kernel
def read_fixed(data: Any, at: int, stop: int, count: int, state: Any, limits: Any, results: Any, kinds: Any) -> None:
    """The records of v1, v5 and v7: the lesser of the count and the whole records present."""
    now = results.situation[0]
    plan = PLAN_V5 if now["protocol"] == V5 else (PLAN_V1 if now["protocol"] == V1 else PLAN_V7)
    stride = state.plans[plan]["stride"]
    present = (stop - at) // stride
    if present != count or (stop - at) % stride != 0:
        fault(results.faults, now, kinds["count_mismatch"])
    whole = min(present, count)
    if whole > 0:
        read_set(data, at, at + whole * stride, plan, stop < at, state, limits, results, kinds)


@kernel
def read_samples(data: Any, at: int, stop: int, count: int, state: Any, limits: Any, results: Any, kinds: Any) -> None:
    """Delimit the samples of an sFlow datagram; the flow samples among them become one set."""
    now = results.situation[0]
    first = at
    flows = np.int64(0)
    counters = np.int64(0)
    drops = np.int64(0)
    seen = np.int64(0)
    while seen < count and stop - at >= 8:
        if seen == limits.records:
            fault(results.faults, now, kinds["too_many_records"])
            now["full"] = 1
            break
        kind = load_be32(data, at)
        length = load_be32(data, at + 4)
        if length > stop - at - 8:
            break
        if kind == 1 or kind == 3:
            flows += 1
        elif kind == 2 or kind == 4:
            counters += 1
        elif kind == 5:
            drops += 1
        seen += 1
        at = min(at + 8 + ((length + 3) & ~3), stop)
    cut = seen < count and not now["full"]
    if cut and stop - at >= 8 + 4:
        kind = load_be32(data, at)
        if 0 < kind <= 5:  # a sample that reaches beyond the datagram: its records may still be whole
            flows += 1 if kind == 1 or kind == 3 else 0
            counters += 1 if kind == 2 or kind == 4 else 0
            drops += 1 if kind == 5 else 0
            at = stop
        seen += 1
    if cut or (not now["full"] and at < stop):
        fault(results.faults, now, kinds["sample_overrun"])
    now["read"] += seen
    now["records"] += flows
    results.intake[now["intake"]]["counter_samples"] += counters
    results.intake[now["intake"]]["drop_samples"] += drops
    state.domains[now["domain"]]["drop_samples"] += drops
    if flows == 0 and counters == 0:
        return
    progress = results.progress[0]
    row = results.sets[progress["sets"]]
    progress["sets"] += 1
    enter_set(row, state, results, 0, now["domain"], first, at, flows, progress["rows"])
    progress["rows"] += flows
    row["sflow"] = 1
    row["counters"] = counters
    row["width"] = 1
    row["verdict"] = 1
    row["received"] = now["received"]
    row["exported"] = now["exported"]
    row["uptime"] = now["uptime"]
    row["intake"] = now["intake"]
    row["header_rate"] = 0


@kernel
def version_of(data: Any, at: int, length: int) -> Any:
    """The protocol by its first octets, 0 if unknown."""
    if length >= 2:
        number = load_be16(data, at)
        if number in (V1, V5, V7, V9, IPFIX):
            return number
        if number == 0 and length >= 4 and load_be16(data, at + 2) == 5:
            return np.int64(SFLOW)
    return np.int64(0)


@kernel
def header_size(data: Any, at: int, length: int, protocol: int) -> Any:
    """Octets of the protocol's header; 0 if an sFlow agent address has an unknown type."""
    if protocol in (V1, IPFIX):
        return 16
    if protocol in (V5, V7):
        return 24
    if protocol == V9:
        return 20
    if length < 8:
        return 28
    kind = load_be32(data, at + 4)
    return 28 if kind == 1 else (40 if kind == 2 else 0)


@kernel
def read_header(data: Any, at: int, protocol: int, size: int, now: Any) -> Any:
    """Times and sequence number into the situation; returns the domain."""
    now["header_rate"] = 0
    now["has_uptime"] = 1
    domain = np.int64(0)
    if protocol == SFLOW:
        now["has_uptime"] = 0  # without a wall clock beside it, a late datagram would look like a new boot
        now["uptime"] = load_be32(data, at + size - 8)
        now["sequence"] = load_be32(data, at + size - 12)
        return load_be32(data, at + size - 16)
    if protocol == IPFIX:
        now["has_uptime"] = 0
        now["uptime"] = 0
        now["exported"] = load_be32(data, at + 4) * 1000
        now["sequence"] = load_be32(data, at + 8)
        return load_be32(data, at + 12)
    now["uptime"] = load_be32(data, at + 4)
    now["exported"] = load_be32(data, at + 8) * 1000
    if protocol == V9:
        now["sequence"] = load_be32(data, at + 12)
        return load_be32(data, at + 16)
    now["exported"] += min(load_be32(data, at + 12) // 1_000_000, 999)
    if protocol != V1:
        now["sequence"] = load_be32(data, at + 16)
    if protocol == V5:
        domain = load_be16(data, at + 20)
        now["header_rate"] = load_be16(data, at + 22) & 0x3FFF
    return domain


@inline_kernel
def read_sequence(state: Any, results: Any, waiting_before: int) -> None:
    """Note the sequence number once the records of the datagram are counted."""
    now = results.situation[0]
    protocol = now["protocol"]
    if protocol == V1:
        return
    note = note_place(results, 0, now["domain"], protocol, now["sequence"], now["records"], now["received"])
    note["options"] = now["options"]
    note["whole"] = now["faults"] == 0
    note["has_uptime"] = 2 if protocol == SFLOW else now["has_uptime"]
    note["clock"] = now["clock"]
    note["uptime"] = now["uptime"]
    for i in range(waiting_before, state.counts[0]["waiting"]):
        state.waiting[i]["sequence"] = (now["sequence"] + now["records"]) & WORD
        if state.waiting[i]["live"]:
            note["whole"] = 0


@inline_kernel
def take_in(state: Any, limits: Any, results: Any, high: Any, low: Any, domain: int, protocol: int, session: int,
            received: int) -> None:
    """Count a datagram in the row of its domain and of its quarter hour; both go into the situation."""
    now = results.situation[0]
    known = find_domain(state.domains, state.domain_table, high, low, domain, protocol, session, PROBES_MAX)
    if known < 0:
        known = open_domain(state, limits, high, low, domain, protocol, session, received)
    row = state.domains[known]
    intake = row["intake"]
    if intake < 0 or row["quarter"] != received - received % QUARTER_MS:
        intake = open_intake(state, results, known, received)
    now["domain"] = known
    now["intake"] = intake
    row["received"] += 1
    row["first"] = min(row["first"], received) if row["received"] > 1 else received
    row["last"] = max(row["last"], received) if row["received"] > 1 else received
    results.intake[now["intake"]]["datagrams"] += 1
    state.counts[0]["newest"] = max(state.counts[0]["newest"], received)


# Transport sessions (RFC 7011 §8, §10) --------------------------------------------------------------------------------
@kernel
def is_keyed_by_port(limits: Any, high: Any, low: Any) -> Any:
    """Whether an exporter's source ports are told apart over UDP: as by default, or otherwise if it is in the sorted list."""
    listed = limits.by_port_otherwise
    first, behind = 0, len(listed)
    while first < behind:
        middle = (first + behind) >> 1
        if listed[middle, 0] < high or (listed[middle, 0] == high and listed[middle, 1] < low):
            first = middle + 1
        else:
            behind = middle
    is_listed = first < len(listed) and listed[first, 0] == high and listed[first, 1] == low
    return (limits.by_port == 1) != is_listed


@inline_kernel
def session_of(data: Any, entry: int, high: Any, low: Any, limits: Any) -> Any:
    """The number of an entry's transport session, 0 where all that comes from an address is one."""
    port = np.int64(data[entry + 12]) | (np.int64(data[entry + 13]) << 8)
    if data[entry + 16] == TCP:
        return (np.int64(TCP_SESSION) << 48) | (port << 32) | load_le32(data, entry + 20)
    if is_keyed_by_port(limits, high, low):
        return (np.int64(UDP_SESSION) << 48) | (port << 32)
    return np.int64(0)


@kernel
def note_session(data: Any, entry: int, stop: int, words: Any, state: Any, limits: Any, results: Any, kinds: Any) -> Any:
    """What an entry says about its transport session; whether that is all that it says."""
    now = results.situation[0]
    flags = np.int64(data[entry + 18])
    high = words[(entry + 24) >> 3]
    low = words[(entry + 32) >> 3]
    received = np.int64(words[entry >> 3])
    session = session_of(data, entry, high, low, limits)
    first = np.int64(-1)
    for i in range(1, state.counts[0]["domains"]):
        row = state.domains[i]
        if row["ended"] != IN_USE or row["session"] >> 48 != TCP_SESSION:
            continue
        if flags & SESSIONS_LOST or (row["session"] == session and row["high"] == high and row["low"] == low):
            row["ended"] = ENDED  # it is found no more, and goes when the next block begins
            state.counts[0]["ended"] += 1
            first = i if first < 0 else first
    if not flags & (SESSION_ENDS | SESSIONS_LOST):
        return False
    if first >= 0:  # the quarter hour in which it ended, though it brought nothing
        open_intake(state, results, first, received)
    if flags & (STREAM_MALFORMED | STREAM_CUT):
        at = entry + ENTRY_HEADER
        if limits.guarded and admission_of(limits, configured_row(limits.exporters, high, low), 0, 0):
            now["received"] = received
            now["protocol"] = 0
            refuse(EXPORTER_UNKNOWN, data, entry, stop, 0, high, low, 0, state, limits, results, kinds)
            state.counts[0]["datagrams"] += 1
            return True
        known = stop - at >= 16 and load_be16(data, at) == IPFIX
        take_in(state, limits, results, high, low, load_be32(data, at + 12) if known else np.int64(0),
                np.int64(IPFIX) if known else np.int64(0), np.int64(0), received)
        now["faults"] = 0
        now["read"] = 0
        fault(results.faults, now, kinds["stream_malformed"] if flags & STREAM_MALFORMED else kinds["stream_cut"])
        close_datagram(state, results)
        state.counts[0]["datagrams"] += 1
    return True


@inline_kernel
def in_gap(row: Any, gaps: Any, sequence: int) -> Any:
    """Whether a sequence number is one of those that are missing."""
    found = False
    for i in range(row["gaps"]):
        found = found or (sequence - gaps[i, 0]) & WORD < gaps[i, 1]
    return found


@kernel
def note_member(state: Any, limits: Any, results: Any, seen: int, member: int, received: int) -> Any:
    """Count a datagram of a group's member. Whether it comes so late that nobody can tell it from a copy: what it was seen
    with is forgotten, and its sequence number is not one of the missing."""
    now = results.situation[0]
    row = state.domains[now["domain"]]
    brought = state.members[member]
    brought["datagrams"] += 1
    if seen == TWIN_COPY:
        brought["twin"] += 1
        row["twin"] += 1
        row["received"] -= 1  # what the exporter sent and we have: once
        results.intake[now["intake"]]["twin"] += 1
        return False
    if seen == COPY:
        brought["duplicate"] += 1
        return False
    if received - limits.twin_clock_ms <= state.counts[0]["horizon"]:
        missing = now["protocol"] != V1 and in_gap(state.sequences[now["domain"]], state.gaps[now["domain"]], now["sequence"])
        if not missing:
            brought["late"] += 1
            return True
    brought["first"] += 1
    return False


# Admission ------------------------------------------------------------------------------------------------------------
@kernel
def refusal_of(state: Any, limits: Any, high: Any, low: Any, domain: int, protocol: int, session: int, readable: bool,
               received: int) -> Any:
    """0 if a datagram is taken, else why not."""
    found = find_domain(state.domains, state.domain_table, high, low, domain, protocol, session, PROBES_MAX)
    if found >= 0:
        code = state.domains[found]["admission"]
        most = state.domains[found]["rate_most"]
    else:
        at = configured_row(limits.exporters, high, low)
        code = admission_of(limits, at, domain, protocol if readable else 0)
        most = limits.exporter_values[at, 2] if at >= 0 else limits.rate_most
    if code == 0 and most > 0 and not has_token(
            state.domains[open_domain(state, limits, high, low, 0, 0, 0, received)], received):
        return RATE_LIMITED
    return code


@kernel
def count_message(data: Any, at: int, stop: int, state: Any, limits: Any, domain: int) -> Any:
    """(records, options records, whether these are all) of an IPFIX message that is not taken: for its sequence alone."""
    records = np.int64(0)
    options = np.int64(0)
    whole = np.int64(1)
    while stop - at >= 4:
        identifier = load_be16(data, at)
        length = load_be16(data, at + 2)
        if length < 4:
            break
        end = min(at + length, stop)
        if identifier >= 256 and end > at + 4:
            template = find_template(state.templates, state.template_table, domain, identifier, PROBES_MAX)
            if template >= 0 and state.templates[template]["plan"] >= 0:
                plan = state.plans[state.templates[template]["plan"]]
                count, _, _ = count_records(data, at + 4, end, plan, state.fields, limits.records - records)
                records += count
                options += count if plan["options"] else 0
            else:
                whole = np.int64(0)
        at = end
    return records, options, whole


@kernel
def refuse(code: int, data: Any, entry: int, stop: int, size: int, high: Any, low: Any, domain: int, state: Any, limits: Any,
           results: Any, kinds: Any) -> None:
    """Count a datagram that is not taken. Unknown exporters share one row, unknown domains one of their exporter."""
    now = results.situation[0]
    received = now["received"]
    at = entry + ENTRY_HEADER
    index = np.int64(0)
    known = False
    if code == EXPORTER_UNKNOWN:
        note_stranger(state, high, low, received)
        if limits.unknown == QUARANTINE:
            results.held[results.progress[0]["held"]] = entry
            results.progress[0]["held"] += 1
    else:
        found = find_domain(state.domains, state.domain_table, high, low, domain, now["protocol"], now["session"],
                            PROBES_MAX)
        known = code == RATE_LIMITED and found >= 0
        index = found if known else open_domain(state, limits, high, low, 0, 0, 0, received)
    now["domain"] = index
    now["intake"] = open_intake(state, results, index, received)
    row = state.domains[index]
    row["received"] += 1
    row["refused"] += 1
    row["first"] = min(row["first"], received) if row["received"] > 1 else received
    row["last"] = max(row["last"], received) if row["received"] > 1 else received
    counted = results.intake[now["intake"]]
    counted["datagrams"] += 1
    counted["refused"] += 1
    kind = (kinds["exporter_unknown"] if code == EXPORTER_UNKNOWN else
            (kinds["domain_unknown"] if code == DOMAIN_UNKNOWN else kinds["rate_limited"]))
    results.faults[now["intake"], kind] += 1
    state.counts[0]["newest"] = max(state.counts[0]["newest"], received)
    if not known or size == 0 or stop - at < size or now["protocol"] == V1:
        return
    # What was refused is not missing, too: it keeps its place in the sequence.
    records = load_be16(data, at + 2) if now["protocol"] in (V5, V7) else np.int64(0)
    options = np.int64(0)
    whole = np.int64(1)
    if now["protocol"] == IPFIX:
        records, options, whole = count_message(data, at + size, min(stop, at + load_be16(data, at + 2)), state, limits, index)
    note = note_place(results, 0, index, now["protocol"], now["sequence"], records, received)
    note["options"] = options
    note["whole"] = whole
    note["has_uptime"] = 2 if now["protocol"] == SFLOW else now["has_uptime"]
    note["clock"] = now["clock"]
    note["uptime"] = now["uptime"]


@inline_kernel
def identify(data: Any, entry: int, stop: int, words: Any, state: Any, limits: Any, results: Any, kinds: Any) -> Any:
    """Header → situation; the size of a readable header, or 0 if the datagram is faulted or a copy."""
    now = results.situation[0]
    at = entry + ENTRY_HEADER
    high = words[(entry + 24) >> 3]
    low = words[(entry + 32) >> 3]
    protocol = version_of(data, at, stop - at)
    size = header_size(data, at, stop - at, protocol) if protocol else 0
    received = np.int64(words[entry >> 3])
    now["protocol"] = protocol
    now["records"] = 0
    now["options"] = 0
    now["read"] = 0
    now["faults"] = 0
    now["full"] = 0
    now["defined"] = 0
    now["exported"] = received
    domain = np.int64(0)
    readable = protocol > 0 and size > 0 and stop - at >= size
    if readable:
        domain = read_header(data, at, protocol, size, now)
        if data[entry + 18] & RECEIVED_UNKNOWN:
            received = received + now["uptime"] if protocol == SFLOW else now["exported"]
    if protocol == SFLOW or not readable:
        now["exported"] = received
    now["received"] = received
    now["clock"] = now["exported"]
    now["session"] = session_of(data, entry, high, low, limits)
    if limits.guarded:
        code = refusal_of(state, limits, high, low, domain, protocol, now["session"], readable, received)
        if code:
            refuse(code, data, entry, stop, size, high, low, domain, state, limits, results, kinds)
            return -1
    take_in(state, limits, results, high, low, domain, protocol, now["session"], received)
    row = state.domains[now["domain"]]
    if now["domain"] == 0:
        fault(results.faults, now, kinds["domains_full"])
        return 0
    if not readable:
        if protocol == 0 and stop - at >= 4:
            fault(results.faults, now, kinds["version_unknown"])
        elif protocol > 0 and size == 0:
            fault(results.faults, now, kinds["header_malformed"])
        else:
            fault(results.faults, now, kinds["too_short"])
        return 0
    member = np.int64(data[entry + MEMBER]) if limits.twins > 0 else np.int64(0)
    seen = seen_before(state, limits, words, at >> 3, stop - at, now["domain"], received, member)
    if limits.twins > 0:
        if note_member(state, limits, results, seen, member, received):
            fault(results.faults, now, kinds["twin_too_late"])
            return 0
        if seen == TWIN_COPY:
            return -1
    if seen == COPY:
        results.faults[now["intake"], kinds["duplicate"]] += 1
        results.intake[now["intake"]]["duplicate"] += 1
        row["duplicate"] += 1
        return -1
    return size


@inline_kernel
def close_datagram(state: Any, results: Any) -> None:
    """Faulted if nothing of it was read, else decoded."""
    now = results.situation[0]
    row = state.domains[now["domain"]]
    counted = results.intake[now["intake"]]
    if now["faults"] > 0 and now["read"] == 0:
        row["faulted"] += 1
        counted["faulted"] += 1
    else:
        row["decoded"] += 1
        counted["decoded"] += 1


@inline_kernel
def measure(results: Any, clocked: bool) -> None:
    """What a datagram says about its exporter's health."""
    now = results.situation[0]
    counted = results.intake[now["intake"]]
    if now["faults"] == 0:
        records = now["records"]
        if counted["measured"] == 0:
            counted["records_min"] = records
            counted["records_max"] = records
        counted["measured"] += 1
        counted["records"] += records
        counted["records_min"] = min(counted["records_min"], records)
        counted["records_max"] = max(counted["records_max"], records)
    if clocked:
        skew = now["received"] - now["exported"]
        if counted["clocked"] == 0:
            counted["skew_min"] = skew
            counted["skew_max"] = skew
        counted["clocked"] += 1
        counted["skew_min"] = min(counted["skew_min"], skew)
        counted["skew_max"] = max(counted["skew_max"], skew)
        counted["skew_last"] = skew


@inline_kernel
def release_records(state: Any, limits: Any) -> Any:
    """The most records that one datagram can set free."""
    return RELEASE_COST_MAX // COST_OF_RECORD + limits.records if state.counts[0]["waiting_live"] > 0 else np.int64(0)


@inline_kernel
def room(length: int, state: Any, limits: Any, results: Any) -> Any:
    """Which table could be too small for what a payload of this length may bring; 0 for none."""
    counts = state.counts[0]
    progress = results.progress[0]
    quarter = length // 4 + 2
    if (progress["sets"] + progress["released"] > limits.portion
            or progress["rows"] + progress["released_rows"] > 4 * limits.portion
            or progress["changes"] > limits.portion or counts["waiting"] > limits.waiting_sets + limits.portion
            or counts["plans"] > progress["plans_before"] + limits.portion // 4
            or counts["fields"] > progress["fields_before"] + limits.fields // 4):
        return PORTION
    if limits.unknown == QUARANTINE and progress["held"] == len(results.held):
        return HELD
    freed = release_records(state, limits)
    if counts["domains"] + 2 > len(state.domains) and counts["free"] < 2 and len(state.domains) < limits.domains + ROWS_BESIDE:
        return DOMAINS
    if counts["templates"] + quarter > len(state.templates) and len(state.templates) < limits.templates:
        return TEMPLATES
    if counts["plans"] + quarter > len(state.plans):
        return PLANS
    if counts["fields"] + quarter > len(state.fields):
        return FIELDS
    if counts["samplers"] + limits.records + freed > len(state.samplers) and len(state.samplers) < limits.samplers:
        return SAMPLERS
    if progress["changes"] + quarter * 4 + freed > len(results.changes):
        return CHANGES
    if counts["waiting"] + quarter > len(state.waiting):
        return WAITING
    if counts["waiting_octets"] + length > len(state.waiting_octets):
        return WAITING_OCTETS
    if (counts["sightings"] + 1) * 2 > len(state.sightings):
        return SIGHTINGS
    if progress["sets"] + quarter > len(results.sets):
        return SETS
    if progress["released"] + counts["waiting_live"] + quarter > len(results.released):
        return RELEASED
    if progress["intake"] + 2 > len(results.intake):
        return INTAKE
    if progress["heard"] + counts["waiting_live"] + quarter > len(results.heard):
        return HEARD
    return DONE


@kernel
def scan(data: Any, words: Any, state: Any, limits: Any, results: Any, kinds: Any) -> Any:
    """Scan the datagrams of a body from progress.position on. Returns DONE or the table that must grow.

    Few levels of calls lie below: every level is compiled with all that it calls.
    """
    progress = results.progress[0]
    now = results.situation[0]
    kind = kinds[0]
    size = len(data)
    while progress["position"] + ENTRY_HEADER <= size:
        entry = progress["position"]
        at = entry + ENTRY_HEADER
        stop = at + load_le32(data, entry + 8)
        if stop > size:
            return BAD_BODY
        need = room(stop - at, state, limits, results)
        if need != DONE:
            return need
        now["released"] = 0
        go_on_releasing(state, limits, results, kind)
        if data[entry + 16] == TCP and data[entry + 18] > RECEIVED_UNKNOWN and (
                note_session(data, entry, stop, words, state, limits, results, kind)):
            progress["position"] = min(size, (stop + 7) & ~7)
            continue
        head = identify(data, entry, stop, words, state, limits, results, kind)
        if head > 0:
            protocol = now["protocol"]
            waiting_before = state.counts[0]["waiting"]
            if protocol in (V9, IPFIX):
                end = stop
                if protocol == IPFIX:
                    end = min(stop, at + load_be16(data, at + 2))
                    if at + load_be16(data, at + 2) != stop:
                        fault(results.faults, now, kind["length_mismatch"])
                read_sets(data, at + head, end, protocol == IPFIX, state, limits, results, kind)
            elif protocol == SFLOW:
                read_samples(data, at + head, stop, load_be32(data, at + head - 4), state, limits, results, kind)
            else:
                read_fixed(data, at + head, stop, load_be16(data, at + 2), state, limits, results, kind)
            read_sequence(state, results, waiting_before)
            measure(results, protocol != SFLOW and data[entry + 18] & RECEIVED_UNKNOWN == 0)
        if head >= 0:
            close_datagram(state, results)
        state.counts[0]["datagrams"] += 1
        progress["ordinal"] += 1
        progress["position"] = min(size, (stop + 7) & ~7)
    if size == 0 and state.counts[0]["ready"] > 0:
        need = room(0, state, limits, results)
        if need != DONE:
            return need
        now["released"] = 0
        go_on_releasing(state, limits, results, kind)
    return DONE


# Between two calls ----------------------------------------------------------------------------------------------------
@kernel
def expire(state: Any, results: Any, kinds: Any, oldest: int) -> None:
    """Give up data that has waited since before `oldest`, and data of sessions that are over."""
    for i in range(state.counts[0]["waiting"]):
        held = state.waiting[i]
        if not held["live"] or (held["received"] >= oldest and state.domains[held["domain"]]["ended"] == IN_USE):
            continue
        held["live"] = 0
        state.counts[0]["waiting_live"] -= 1
        state.counts[0]["waiting_live_octets"] -= held["length"]
        state.domains[held["domain"]]["waiting"] -= 1
        at = open_intake(state, results, held["domain"], held["received"])
        results.intake[at]["expired_sets"] += 1
        results.faults[at, kinds[0]["waiting_expired"]] += 1


@kernel
def open_intakes(state: Any, results: Any, count: int) -> None:
    """Find the intake row of every released set."""
    for i in range(count):
        row = results.released[i]
        row["intake"] = open_intake(state, results, row["domain"], row["received"])
        results.intake[row["intake"]]["released_sets"] += 1
