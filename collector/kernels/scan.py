"""The scan: one sequential walk over the datagrams of a journal block.

It reads headers, notes sequence numbers (for `sequences`), finds copies, keeps templates and options, and resolves every
data set to an immutable plan, so that the fields can be decoded later, by anyone, in any order. Reads a block's body; writes
the state (`collector.layout.State`) and the call's results (`collector.layout.Results`). It stops between two datagrams when
a table might be too small for the next one and says which: the caller enlarges it and calls again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.books import close_datagram, fault, measure, take_in
from collector.kernels.codes import (
    BAD_BODY,
    CHANGES,
    COPY,
    COST_OF_RECORD,
    DOMAINS,
    DONE,
    ENTRY_HEADER,
    FIELDS,
    HEARD,
    HELD,
    INTAKE,
    IPFIX,
    MEMBER,
    PLANS,
    PORTION,
    QUARANTINE,
    RECEIVED_UNKNOWN,
    RELEASE_COST_MAX,
    RELEASED,
    ROWS_BESIDE,
    SAMPLERS,
    SETS,
    SFLOW,
    SIGHTINGS,
    TCP,
    TEMPLATES,
    TWIN_COPY,
    V9,
    WAITING,
    WAITING_OCTETS,
)
from collector.kernels.copies import note_member, seen_before
from collector.kernels.headers import header_size, read_header, read_sequence, version_of
from collector.kernels.payloads import read_fixed, read_samples, read_sets
from collector.kernels.refusals import refusal_of, refuse
from collector.kernels.sessions import note_session, session_of
from collector.kernels.waiting import go_on_releasing
from core.jit import inline_kernel, kernel, load_be16, load_be32, load_le32


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
    if counts["sightings"] == len(state.sightings):
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
