"""Data that waits for its template, between two calls of the scan."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.jit import kernel


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
