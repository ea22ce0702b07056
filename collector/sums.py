"""Sums over the blocks and flows of a segment: the rows of `intake`, `fault` and `segment_slot`, and its extent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector import measures, readings
from collector.faults import FaultKind
from collector.kernels import slots as kernels
from core.addresses import NO_ADDRESS
from core.periods import SLOT_MS

Columns = dict[str, NDArray[Any]]

_KEYS = ("exporter", "domain", "export_protocol", "slot")
_SUMS = ("datagrams", "decoded", "faulted", "duplicate", "refused", "data_records", "options_records", "flow_records",
         "not_a_flow", "faulted_records", "waiting_sets", "twin", "flows", "octets", "templates", "options_templates",
         "counter_samples", "drop_samples", "released_sets", "expired_sets")


@dataclass
class Refusal:
    """Datagrams that were received and lost before decoding: refused by the receiver, or in a damaged block."""

    received: int
    datagrams: int


class Survey:
    """Sums and bounds over the flows of a segment."""

    def __init__(self) -> None:
        self._extent = np.array([0, 0, 2**62, -(2**62), 2**62, -(2**62)], np.int64)
        self._slots = SlotSums()
        self._readings = readings.FlowReader()
        self._flows = 0

    def add(self, rows: Columns) -> None:
        self._flows += len(rows["received"])
        kernels.survey(*_settled(rows, "received", "start", "end", "octets"), self._extent)
        self._slots.add(rows)
        self._readings.add(rows)

    def extent(self) -> dict[str, int | None]:
        """The columns of `segment` that people and planners look at; instants are null without flows."""
        octets = min((int(self._extent[kernels.SUM_HIGH]) << 32) + int(self._extent[kernels.SUM_LOW]), 2**62)
        bounds = {"received_first": kernels.RECEIVED_FIRST, "received_last": kernels.RECEIVED_LAST,
                  "start_first": kernels.START_FIRST, "end_last": kernels.END_LAST}
        return {"octets": octets, **{name: int(self._extent[at]) if self._flows else None for name, at in bounds.items()}}

    def slots(self) -> list[dict[str, Any]]:
        return self._slots.rows()

    def readings(self) -> readings.Readings:
        return self._readings.finish()


def sum_intake(parts: Sequence[Columns], refusals: Sequence[Refusal] = ()) -> list[dict[str, Any]]:
    """Rows of the table `intake`: one for each exporter, domain, protocol and quarter hour of arrival."""
    parts = [part for part in parts if len(part["slot"])]
    rows: list[dict[str, Any]] = []
    if parts:
        joined = {name: np.concatenate([part[name] for part in parts]) for name in (*_KEYS, *_SUMS, *measures.COLUMNS)}
        words = np.ascontiguousarray(joined["exporter"]).view(">u8").reshape(-1, 2)
        keys = (words[:, 0], words[:, 1], joined["domain"], joined["export_protocol"], joined["slot"])
        order = np.lexsort(keys[::-1])
        new = np.ones(len(order), bool)
        new[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
        starts = np.flatnonzero(new)
        sums = {name: np.add.reduceat(joined[name][order], starts).tolist() for name in _SUMS}
        measured = measures.join({name: joined[name][order] for name in measures.COLUMNS}, starts)
        sums |= {name: values.tolist() for name, values in measured.items()}
        for at, first in enumerate(order[starts].tolist()):
            key = {"exporter": joined["exporter"][first].tobytes(), **{name: int(joined[name][first]) for name in _KEYS[1:]}}
            rows.append({**key, **{name: values[at] for name, values in sums.items()}})
    return rows + _refused_rows(refusals)


def _refused_rows(refusals: Sequence[Refusal]) -> list[dict[str, Any]]:
    """Datagrams that nobody decoded: their exporter is not known, their number is."""
    by_slot: dict[int, int] = {}
    for refusal in refusals:
        slot = refusal.received // SLOT_MS * SLOT_MS
        by_slot[slot] = by_slot.get(slot, 0) + refusal.datagrams
    key = {"exporter": NO_ADDRESS, "domain": 0, "export_protocol": 0}
    return [no_intake({**key, "slot": slot}, datagrams=n, refused=n) for slot, n in sorted(by_slot.items())]


def no_intake(key: dict[str, Any], **counts: int) -> dict[str, Any]:
    """A row of the table `intake` in which only these counts are not 0."""
    return {**key, **dict.fromkeys((*_SUMS, *measures.COLUMNS), 0), **counts}


def sum_faults(parts: Iterable[Sequence[tuple[bytes, int, FaultKind, int]]]) -> list[dict[str, Any]]:
    """Rows of the table `fault`."""
    sums: dict[tuple[bytes, int, FaultKind], int] = {}
    for part in parts:
        for exporter, domain, kind, count in part:
            sums[exporter, domain, kind] = sums.get((exporter, domain, kind), 0) + count
    return [{"exporter": exporter, "domain": domain, "kind": kind.label, "count": count}
            for (exporter, domain, kind), count in sorted(sums.items())]


class SlotSums:
    """Scaled octets by quarter hour of the flows that are added."""

    def __init__(self) -> None:
        self._keys, self._sums = np.full(1024, kernels.EMPTY, np.int64), np.zeros(1024, np.int64)
        self._used = 0

    def add(self, columns: Columns) -> None:
        state = np.array([0, kernels.EMPTY, self._used], np.int64)
        flows = _settled(columns, "start", "end", "octets", "rate_numerator", "rate_denominator")
        while kernels.sum_slots(*flows, self._keys, self._sums, state) == kernels.FULL:
            size = self._keys.size * 4
            bigger_keys, bigger_sums = np.full(size, kernels.EMPTY, np.int64), np.zeros(size, np.int64)
            kernels.move(self._keys, self._sums, bigger_keys, bigger_sums)
            self._keys, self._sums = bigger_keys, bigger_sums
        self._used = int(state[2])

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the table `segment_slot`."""
        used = np.flatnonzero(self._keys != kernels.EMPTY)
        order = used[np.argsort(self._keys[used])]
        return [{"slot": slot, "octets": octets}
                for slot, octets in zip(self._keys[order].tolist(), self._sums[order].tolist(), strict=True)]


def _settled(columns: Columns, *names: str) -> list[NDArray[Any]]:
    """Columns as kernels are compiled for: contiguous, aligned, writable."""
    return [np.require(columns[name], requirements=["C", "A", "W"]) for name in names]


def sum_slots(columns: Columns) -> list[dict[str, Any]]:
    """Rows of the table `segment_slot`: scaled octets by quarter hour of the flow."""
    sums = SlotSums()
    sums.add(columns)
    return sums.rows()


def port_block_rows(parts: Sequence[Columns]) -> list[dict[str, Any]]:
    """Rows of the table `port_block_event`, in the order in which they were received."""
    rows: list[dict[str, Any]] = []
    for part in parts:
        numbers = {name: column.tolist() for name, column in part.items() if column.ndim == 1}
        addresses = {name: [row.tobytes() for row in column] for name, column in part.items() if column.ndim == 2}
        names = (*addresses, *numbers)
        for values in zip(*addresses.values(), *numbers.values(), strict=True):
            row = dict(zip(names, values, strict=True))
            ports = {name: min(row[name], PORT_BEYOND) for name in ("port_first", "port_last", "port_step")}
            rows.append({**row, **ports, "protocol": row["protocol"] & 0xFF, "outcome": ""})
    return rows


PORT_BEYOND = 65_536
"""What a port number that is none is stored as."""
