"""Data that came before its template: kept in bounds, read with its own arrival time and header once the template is
there, given up after its time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.books import fault, note_place, open_intake
from collector.kernels.codes import (
    COST_OF_LOOK,
    COST_OF_RECORD,
    COST_OF_SET,
    IN_USE,
    IPFIX,
    PROBES_MAX,
    RELEASE_COST_MAX,
    WAITING_OVERHEAD,
)
from collector.kernels.options import read_options
from collector.kernels.sets import count_records, enter_set, plan_of
from collector.kernels.tables import find_template
from core.jit import inline_kernel, kernel


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
