"""Sampling rates of records, by the order: record, sampler, domain, header, settings, policy."""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import (
    ASSUMED,
    BY_DOMAIN,
    BY_HEADER,
    BY_RECORD,
    BY_SAMPLER,
    CONFIGURED,
    COUNT_MAX,
    PROBES_MAX,
    QUARANTINE,
    QUARANTINED,
    REJECT,
    SAMPLER_BEYOND,
    SAMPLER_SHIFT,
    W_BACK,
    W_BACK_PACKETS,
    W_DENOMINATOR,
    W_FAULT,
    W_FLAGS,
    W_NUMERATOR,
    W_OCTETS,
    W_PACKETS,
    W_SOURCE,
)
from collector.kernels.elements import (
    PACKET_INTERVAL,
    PACKET_SPACE,
    POPULATION,
    RANDOM_INTERVAL,
    SAMPLE_SIZE,
    SAMPLER,
    SAMPLING_INTERVAL,
    SELECTOR,
)
from collector.kernels.options import rate_of
from collector.kernels.tables import find_sampler
from core.jit import inline_kernel, kernel


@inline_kernel
def told(values: Any, r: int, has: Any, slot: int) -> Any:
    return values[slot, r] if has[slot] else np.int64(0)


@kernel
def sampler_rate(samplers: Any, table: Any, changes: Any, domain: int, kind: int, identifier: Any, order: int) -> Any:
    """The rate of a sampler as it was when the set was scanned, (0, 0) if unknown."""
    index = find_sampler(samplers, table, domain, kind, identifier, PROBES_MAX)
    if index < 0:
        return np.int64(0), np.int64(0)
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
    return samplers[index]["numerator_before"], samplers[index]["denominator_before"]


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
            numerator, denominator = rate_of(
                told(values, r, has, SAMPLING_INTERVAL), told(values, r, has, RANDOM_INTERVAL),
                told(values, r, has, PACKET_INTERVAL), told(values, r, has, PACKET_SPACE), told(values, r, has, SAMPLE_SIZE),
                told(values, r, has, POPULATION))
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
