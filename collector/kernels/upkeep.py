"""What is done to the decoder's tables between two calls of the scan: waiting data is moved together, copies are entered anew,
transport sessions that are over leave their counts and their rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import ENDED, FREE, IN_USE, PROBES_MAX, SIGHTING_SHIFT
from collector.kernels.tables import sighting_tag
from core.jit import inline_kernel, kernel

SERIALS_APART = 1 << 21
"""More than any duplicate window: what a row saw before is no copy of what it sees for its next owner."""


@kernel
def insert_sightings(rows: Any, count: int, table: Any) -> None:
    """Enter rows[:count] into the (empty) open-addressing array of their numbers."""
    mask = len(table) - 1
    for i in range(count):
        home = np.int64(rows[i]["first"] & np.uint64(mask))
        at = home
        for _ in range(PROBES_MAX):
            if table[at] == 0:
                break
            at = (at + 1) & mask
        if table[at] != 0:
            at = home
        table[at] = (sighting_tag(rows[i]["first"]) << SIGHTING_SHIFT) | (i + 1)


@kernel
def keep_sightings(state: Any, newest: int, window: int, copies_ms: int, twins_ms: int) -> Any:
    """Forget the sightings that lie outside the window, close the holes; how many are left, and the arrival of the newest
    that is forgotten (a very old instant if none is)."""
    kept = np.int64(0)
    horizon = np.int64(-(2**62))
    for i in range(state.counts[0]["sightings"]):
        row = state.sightings[i]
        age = newest - row["received"]
        near = age <= copies_ms and state.domains[row["domain"]]["serial"] - row["serial"] <= window
        if near or age <= twins_ms:
            place = state.sightings[kept]
            place["first"] = row["first"]
            place["second"] = row["second"]
            place["domain"] = row["domain"]
            place["serial"] = row["serial"]
            place["received"] = row["received"]
            place["members"] = row["members"]
            kept += 1
        else:
            horizon = max(horizon, row["received"])
    return kept, horizon


@kernel
def compact_waiting(state: Any) -> None:
    """Close the holes that released and expired sets have left; order is kept."""
    counts = state.counts[0]
    for i in range(counts["templates"]):
        state.templates[i]["waiting_first"] = -1
        state.templates[i]["waiting_last"] = -1
    kept = np.int64(0)
    octets = np.int64(0)
    for i in range(counts["waiting"]):
        held = state.waiting[i]
        if not held["live"]:
            continue
        for k in range(held["length"]):
            state.waiting_octets[octets + k] = state.waiting_octets[held["offset"] + k]
        target = state.waiting[kept]
        target["template"] = held["template"]
        target["length"] = held["length"]
        target["received"] = held["received"]
        target["exported"] = held["exported"]
        target["uptime"] = held["uptime"]
        target["domain"] = held["domain"]
        target["sequence"] = held["sequence"]
        target["header_rate"] = held["header_rate"]
        target["live"] = 1
        target["offset"] = octets
        target["next"] = -1
        owner = state.templates[target["template"]]
        if owner["waiting_last"] >= 0:
            state.waiting[owner["waiting_last"]]["next"] = kept
        else:
            owner["waiting_first"] = kept
        owner["waiting_last"] = kept
        octets += target["length"]
        kept += 1
    counts["waiting"] = kept
    counts["waiting_octets"] = octets
    counts["release_at"] = 0
    if counts["ready"] > 0:
        counts["ready"] = kept


# Transport sessions --------------------------------------------------------------------------------------------------
@kernel
def retire(counts: Any, domains: Any, order: Any) -> None:
    """Fold the counts of each session that is over into the row of its exporter, domain and protocol, and free its own.

    `order`: the rows that are over or of no session, by (exporter, domain, protocol), that of no session first. Where there
    is none, the first session's row becomes it. The hash table is wrong afterwards.
    """
    account = -1
    for k in range(len(order)):
        row = domains[order[k]]
        if account >= 0:
            owner = domains[account]
            if (owner["high"] != row["high"] or owner["low"] != row["low"] or owner["domain"] != row["domain"]
                    or owner["protocol"] != row["protocol"]):
                account = -1
        how = row["ended"]
        if how == IN_USE:
            account = order[k]
            continue
        counts[0]["ended"] -= 1
        if account < 0:
            account = order[k]
            row["session"] = 0
            row["ended"] = IN_USE
        else:
            fold(row, domains[account])
            empty(row)
            row["ended"] = FREE
            counts[0]["free"] += 1
        forget(row)
        if how == ENDED:
            domains[account]["sessions_ended"] += 1
        else:
            domains[account]["recycled"] += 1
    counts[0]["free_from"] = 1


@inline_kernel
def fold(row: Any, into: Any) -> None:
    """Add what was counted in one row to another one."""
    if into["received"] == 0 or row["first"] < into["first"]:
        into["first"] = row["first"]
    if into["received"] == 0 or row["last"] > into["last"]:
        into["last"] = row["last"]
    into["received"] += row["received"]
    into["decoded"] += row["decoded"]
    into["faulted"] += row["faulted"]
    into["duplicate"] += row["duplicate"]
    into["missing"] += row["missing"]
    into["reordered"] += row["reordered"]
    into["restarts"] += row["restarts"]
    into["waiting"] += row["waiting"]
    into["drop_samples"] += row["drop_samples"]
    into["refused"] += row["refused"]
    into["exported_octets"] += row["exported_octets"]
    into["exported_messages"] += row["exported_messages"]
    into["exported_records"] += row["exported_records"]
    into["ignored_packets"] += row["ignored_packets"]
    into["ignored_octets"] += row["ignored_octets"]
    into["not_sent_flows"] += row["not_sent_flows"]
    into["not_sent_packets"] += row["not_sent_packets"]
    into["not_sent_octets"] += row["not_sent_octets"]
    into["sessions_ended"] += row["sessions_ended"]
    into["recycled"] += row["recycled"]


@inline_kernel
def empty(row: Any) -> None:
    """No counts, and nothing that was set for its exporter."""
    row["configured"] = 0
    row["received"] = 0
    row["decoded"] = 0
    row["faulted"] = 0
    row["duplicate"] = 0
    row["missing"] = 0
    row["reordered"] = 0
    row["restarts"] = 0
    row["waiting"] = 0
    row["drop_samples"] = 0
    row["refused"] = 0
    row["exported_octets"] = 0
    row["exported_messages"] = 0
    row["exported_records"] = 0
    row["ignored_packets"] = 0
    row["ignored_octets"] = 0
    row["not_sent_flows"] = 0
    row["not_sent_packets"] = 0
    row["not_sent_octets"] = 0
    row["sessions_ended"] = 0
    row["recycled"] = 0


@inline_kernel
def forget(row: Any) -> None:
    """What held for the session only: its rates and its boot. (Its sequence the caller forgets.)"""
    row["rate_numerator"] = 0
    row["rate_denominator"] = 0
    row["initialised"] = 0
    row["report"] = 0
    row["serial"] += SERIALS_APART
