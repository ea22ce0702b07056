"""Datagrams that were seen before: exact copies, and what another member of a group brought too."""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import (
    AHEAD_UNIT,
    ALIGN_SHIFT,
    COPY,
    NEW,
    PROBES_MAX,
    SIGHTING_MASK,
    SIGHTING_SHIFT,
    TWIN_COPY,
    V1,
    WORD,
)
from collector.kernels.tables import payload_hash, sighting_tag
from core.jit import inline_kernel, kernel


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
    counts = state.counts[0]
    table = state.sighting_table
    mask = len(table) - 1
    home = np.int64(first & np.uint64(mask))
    tag = sighting_tag(first)
    at = home
    for _ in range(PROBES_MAX):
        entered = np.int64(table[at])
        if entered == 0:
            break
        if entered >> SIGHTING_SHIFT == tag:
            place = state.sightings[(entered & SIGHTING_MASK) - 1]
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
    if table[at] != 0:
        at = home  # crowded on purpose: the one that lay here longest is found no more
    place = state.sightings[counts["sightings"]]
    counts["sightings"] += 1
    table[at] = (tag << SIGHTING_SHIFT) | counts["sightings"]
    place["first"] = first
    place["second"] = second
    place["domain"] = domain
    place["serial"] = serial
    place["received"] = received
    place["members"] = brought
    return NEW


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
