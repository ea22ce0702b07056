"""Rows of flows while they are decoded: columns of memory that are used again and again.

The decoder writes behind the rows that are there; whoever stores them takes the views and empties the columns. Fresh memory
for every block would cost as much as decoding: each page of it is a fault of the processor.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Columns(NamedTuple):
    """One array a column; addresses are two words, instants milliseconds. `status` and `fault` belong to decoding alone."""

    received: NDArray[np.int64]
    exporter: NDArray[np.uint64]
    domain: NDArray[np.uint32]
    export_protocol: NDArray[np.uint8]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    source_address: NDArray[np.uint64]
    destination_address: NDArray[np.uint64]
    source_port: NDArray[np.uint16]
    destination_port: NDArray[np.uint16]
    protocol: NDArray[np.uint8]
    octets: NDArray[np.int64]
    packets: NDArray[np.int64]
    rate_numerator: NDArray[np.uint32]
    rate_denominator: NDArray[np.uint32]
    rate_source: NDArray[np.uint8]
    input_interface: NDArray[np.uint32]
    output_interface: NDArray[np.uint32]
    flow_direction: NDArray[np.uint8]
    next_hop: NDArray[np.uint64]
    source_as: NDArray[np.uint32]
    destination_as: NDArray[np.uint32]
    tos: NDArray[np.uint8]
    tcp_flags: NDArray[np.uint16]
    flags: NDArray[np.uint32]
    status: NDArray[np.uint8]
    fault: NDArray[np.uint8]


_TYPES: dict[str, Any] = {
    "received": np.int64, "exporter": np.uint64, "domain": np.uint32, "export_protocol": np.uint8, "start": np.int64,
    "end": np.int64, "source_address": np.uint64, "destination_address": np.uint64, "source_port": np.uint16,
    "destination_port": np.uint16, "protocol": np.uint8, "octets": np.int64, "packets": np.int64,
    "rate_numerator": np.uint32, "rate_denominator": np.uint32, "rate_source": np.uint8, "input_interface": np.uint32,
    "output_interface": np.uint32, "flow_direction": np.uint8, "next_hop": np.uint64, "source_as": np.uint32,
    "destination_as": np.uint32, "tos": np.uint8, "tcp_flags": np.uint16, "flags": np.uint32, "status": np.uint8,
    "fault": np.uint8,
}
_ADDRESSES = ("exporter", "source_address", "destination_address", "next_hop")
_NOT_IN_FLOWS = ("status", "fault")


def _allocated(rows: int) -> Columns:
    return Columns(**{name: np.empty((rows, 2) if name in _ADDRESSES else rows, kind) for name, kind in _TYPES.items()})


class FlowColumns:
    """Columns with room for `rows` rows at first, of which `used` hold flows."""

    def __init__(self, rows: int = 0) -> None:
        self.arrays = _allocated(rows)
        self.used = 0

    def reserve(self, rows: int) -> int:
        """Make room for so many rows behind those in use; returns where they begin. What lies there is undefined."""
        needed = self.used + rows
        if needed > len(self.arrays.status):
            bigger = _allocated(max(needed, 2 * len(self.arrays.status)))
            for name, column in bigger._asdict().items():
                column[: self.used] = getattr(self.arrays, name)[: self.used]
            self.arrays = bigger
        return self.used

    def keep(self, first: int, chosen: NDArray[np.int64] | slice) -> int:
        """Of the rows written from `first` on, keep the chosen ones (indexes in ascending order); returns how many."""
        count = chosen.stop - first if isinstance(chosen, slice) else len(chosen)
        if not isinstance(chosen, slice):
            for column in self.arrays._asdict().values():
                column[first : first + count] = column[chosen]
        self.used = first + count
        return count

    def rows(self, first: int = 0) -> dict[str, NDArray[Any]]:
        """Views of the rows in use from `first` on, in the shapes of core.schemas.FLOWS (addresses as (n, 16) octets).

        They are valid until the columns are emptied or grow.
        """
        flows = {}
        for name, column in self.arrays._asdict().items():
            if name not in _NOT_IN_FLOWS:
                view = column[first : self.used]
                flows[name] = view.view(np.uint8).reshape(len(view), 16) if name in _ADDRESSES else view
        return flows

    def clear(self) -> None:
        """Forget all rows; the memory stays."""
        self.used = 0
