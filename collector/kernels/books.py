"""The scan's books: whose datagram it is, and what became of it, by domain and quarter hour of arrival."""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.admission import configure
from collector.kernels.codes import FREE, IN_USE, PROBES_MAX, QUARTER_MS
from collector.kernels.tables import find_domain
from core.jit import inline_kernel, kernel


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
