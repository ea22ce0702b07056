"""Datagrams that the settings do not take: counted by reason, and in their place of the sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.admission import admission_of, configured_row, has_token, note_stranger
from collector.kernels.books import note_place, open_domain, open_intake
from collector.kernels.codes import (
    DOMAIN_UNKNOWN,
    ENTRY_HEADER,
    EXPORTER_UNKNOWN,
    IPFIX,
    PROBES_MAX,
    QUARANTINE,
    RATE_LIMITED,
    SFLOW,
    V1,
    V5,
    V7,
)
from collector.kernels.sets import count_records
from collector.kernels.tables import find_domain, find_template
from core.jit import kernel, load_be16


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
