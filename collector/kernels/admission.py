"""Whose datagrams are taken: the allow list of exporters and domains, rate limits, and who else sends."""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import ACCEPT, ANY, DOMAIN_UNKNOWN, EXPORTER_UNKNOWN
from core.jit import kernel


@kernel
def configured_row(exporters: Any, high: Any, low: Any) -> Any:
    """The row of the settings for this exporter, or -1; they are in order of the address."""
    first = 0
    last = len(exporters)
    while first < last:
        middle = (first + last) >> 1
        if exporters[middle, 0] < high or (exporters[middle, 0] == high and exporters[middle, 1] < low):
            first = middle + 1
        else:
            last = middle
    if first < len(exporters) and exporters[first, 0] == high and exporters[first, 1] == low:
        return first
    return -1


@kernel
def admission_of(limits: Any, at: int, domain: int, protocol: int) -> Any:
    """0 if the settings take a domain of an exporter (row `at` of them, -1 for none), else why not."""
    if at < 0:
        return EXPORTER_UNKNOWN if limits.unknown != ACCEPT else 0
    first = limits.exporter_values[at, 4]
    count = limits.exporter_values[at, 5]
    if count < 0 or protocol == 0:
        return 0
    for i in range(first, first + count):
        if limits.exporter_domains[i] == domain:
            return 0
    return DOMAIN_UNKNOWN


@kernel
def configure(row: Any, limits: Any) -> None:
    """What the settings say about a domain's exporter."""
    at = configured_row(limits.exporters, row["high"], row["low"])
    row["admission"] = admission_of(limits, at, row["domain"], row["protocol"])
    row["configured"] = limits.exporter_values[at, 0] if at >= 0 else 0
    row["sflow_boot"] = limits.exporter_values[at, 1] if at >= 0 else -1
    row["rate_most"] = limits.exporter_values[at, 2] if at >= 0 else limits.rate_most
    row["repeat"] = limits.exporter_values[at, 3] if at >= 0 else ANY


@kernel
def configure_all(state: Any, limits: Any) -> None:
    """Settings may have changed since the state was saved."""
    for i in range(1, state.counts[0]["domains"]):
        configure(state.domains[i], limits)


@kernel
def has_token(row: Any, received: int) -> Any:
    """Take one of the tokens of an exporter: `rate_most` come each second of arrival time, as many are kept."""
    most = row["rate_most"] * 1000
    if row["refilled"] < 0:
        row["tokens"] = most
        row["refilled"] = received
    elif received > row["refilled"]:
        row["tokens"] = min(most, row["tokens"] + min(received - row["refilled"], 1000) * row["rate_most"])
        row["refilled"] = received
    if row["tokens"] < 1000:
        return False
    row["tokens"] -= 1000
    return True


@kernel
def note_stranger(state: Any, high: Any, low: Any, received: int) -> None:
    """Count an unknown exporter among the busiest: a new one takes the place of the least (the space-saving sketch)."""
    rows = state.strangers
    used = state.counts[0]["strangers"]
    place = np.int64(0)
    for i in range(used):
        if rows[i]["high"] == high and rows[i]["low"] == low:
            rows[i]["datagrams"] += 1
            rows[i]["last"] = max(rows[i]["last"], received)
            return
        if rows[i]["datagrams"] < rows[place]["datagrams"]:
            place = i
    over = rows[place]["datagrams"] if used == len(rows) else np.int64(0)
    if used < len(rows):
        place = used
        state.counts[0]["strangers"] = used + 1
    row = rows[place]
    row["high"] = high
    row["low"] = low
    row["datagrams"] = over + 1
    row["over"] = over
    row["first"] = received
    row["last"] = received
