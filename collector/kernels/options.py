"""What options records say about sampling and time goes into the state."""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import PROBES_MAX, SAMPLER_CODES, VARIABLE, WORD
from collector.kernels.elements import (
    INITIALISED,
    PACKET_INTERVAL,
    PACKET_SPACE,
    POPULATION,
    RANDOM_INTERVAL,
    SAMPLE_SIZE,
    SAMPLER,
    SAMPLING_INTERVAL,
    SELECTOR,
)
from collector.kernels.tables import find_sampler
from core.jit import inline_kernel, kernel, load_be16


@kernel
def greatest_divisor(a: int, b: int) -> Any:
    while b:
        a, b = b, a % b
    return a


@kernel
def rate_of(interval: int, random_interval: int, packets: int, space: int, size: int, population: int) -> Any:
    """The rate that a record's elements say, 0 for one that it does not have: (numerator, denominator), (0, 0) for none."""
    numerator = np.int64(0)
    denominator = np.int64(1)
    if interval != 0:
        numerator = interval
    elif random_interval != 0:
        numerator = random_interval
    elif packets != 0:
        if 0 <= space <= WORD and 0 < packets <= WORD:
            numerator = packets + space
            denominator = packets
    elif 0 < size <= population:
        numerator = population
        denominator = size
    if numerator <= 0:
        return np.int64(0), np.int64(0)
    common = greatest_divisor(numerator, denominator)
    numerator //= common
    denominator //= common
    if numerator > WORD or denominator > WORD:
        return np.int64(0), np.int64(0)
    return numerator, denominator


@inline_kernel
def told(scratch: Any, has: Any, slot: int) -> Any:
    return scratch[slot] if has[slot] else np.int64(0)


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
        numerator, denominator = rate_of(
            told(scratch, has, SAMPLING_INTERVAL), told(scratch, has, RANDOM_INTERVAL), told(scratch, has, PACKET_INTERVAL),
            told(scratch, has, PACKET_SPACE), told(scratch, has, SAMPLE_SIZE), told(scratch, has, POPULATION))
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
