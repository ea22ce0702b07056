"""The headers of the protocols: which it is, its times and its sequence number."""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.books import note_place
from collector.kernels.codes import IPFIX, SFLOW, V1, V5, V7, V9, WORD
from core.jit import inline_kernel, kernel, load_be16, load_be32


@kernel
def version_of(data: Any, at: int, length: int) -> Any:
    """The protocol by its first octets, 0 if unknown."""
    if length >= 2:
        number = load_be16(data, at)
        if number in (V1, V5, V7, V9, IPFIX):
            return number
        if number == 0 and length >= 4 and load_be16(data, at + 2) == 5:
            return np.int64(SFLOW)
    return np.int64(0)


@kernel
def header_size(data: Any, at: int, length: int, protocol: int) -> Any:
    """Octets of the protocol's header; 0 if an sFlow agent address has an unknown type."""
    if protocol in (V1, IPFIX):
        return 16
    if protocol in (V5, V7):
        return 24
    if protocol == V9:
        return 20
    if length < 8:
        return 28
    kind = load_be32(data, at + 4)
    return 28 if kind == 1 else (40 if kind == 2 else 0)


@kernel
def read_header(data: Any, at: int, protocol: int, size: int, now: Any) -> Any:
    """Times and sequence number into the situation; returns the domain."""
    now["header_rate"] = 0
    now["has_uptime"] = 1
    domain = np.int64(0)
    if protocol == SFLOW:
        now["has_uptime"] = 0  # without a wall clock beside it, a late datagram would look like a new boot
        now["uptime"] = load_be32(data, at + size - 8)
        now["sequence"] = load_be32(data, at + size - 12)
        return load_be32(data, at + size - 16)
    if protocol == IPFIX:
        now["has_uptime"] = 0
        now["uptime"] = 0
        now["exported"] = load_be32(data, at + 4) * 1000
        now["sequence"] = load_be32(data, at + 8)
        return load_be32(data, at + 12)
    now["uptime"] = load_be32(data, at + 4)
    now["exported"] = load_be32(data, at + 8) * 1000
    if protocol == V9:
        now["sequence"] = load_be32(data, at + 12)
        return load_be32(data, at + 16)
    now["exported"] += min(load_be32(data, at + 12) // 1_000_000, 999)
    if protocol != V1:
        now["sequence"] = load_be32(data, at + 16)
    if protocol == V5:
        domain = load_be16(data, at + 20)
        now["header_rate"] = load_be16(data, at + 22) & 0x3FFF
    return domain


@inline_kernel
def read_sequence(state: Any, results: Any, waiting_before: int) -> None:
    """Note the sequence number once the records of the datagram are counted."""
    now = results.situation[0]
    protocol = now["protocol"]
    if protocol == V1:
        return
    note = note_place(results, 0, now["domain"], protocol, now["sequence"], now["records"], now["received"])
    note["options"] = now["options"]
    note["whole"] = now["faults"] == 0
    note["has_uptime"] = 2 if protocol == SFLOW else now["has_uptime"]
    note["clock"] = now["clock"]
    note["uptime"] = now["uptime"]
    for i in range(waiting_before, state.counts[0]["waiting"]):
        state.waiting[i]["sequence"] = (now["sequence"] + now["records"]) & WORD
        if state.waiting[i]["live"]:
            note["whole"] = 0
