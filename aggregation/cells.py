"""Flows → cells, outcomes and attributed octets: the map of aggregation, a pure function of flows and inputs.

Each flow end has one fate at every instant (DESIGN, balances): not in the metering cut → audit-only, once a flow; no
announced sampling rate and the policy `quarantine` → quarantined, once; else it counts by its service ends, one or two, of
which the second is on-net, and their parts without an owner are stranger; with no service end it is infrastructure, no
port or stranger, once. For every quarter hour, octets of all outcomes = octets of the flows + on-net octets.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aggregation import kernels
from aggregation.cell_sums import CellSums
from aggregation.classes import Classifier
from aggregation.late import LateOctets
from aggregation.segments import Columns
from aggregation.sums import Sums
from aggregation.timelines import WINDOW_MS, Timelines, period_text
from core import schemas
from core.errors import DamagedFile
from core.schemas import Direction, FlowFlag, Outcome
from storage.late_rates import LateRates
from subscribers import attribution
from subscribers.attribution import Attribution, FlowEnds, Resolved

assert [Outcome.ATTRIBUTED, Outcome.INFRASTRUCTURE, Outcome.STRANGER, Outcome.NO_PORT, Outcome.AUDIT_ONLY,
        Outcome.QUARANTINED] == [kernels.ATTRIBUTED, kernels.INFRASTRUCTURE, kernels.STRANGER, kernels.NO_PORT,
                                 kernels.AUDIT_ONLY, kernels.QUARANTINED], "kernels know the outcomes by these numbers"
assert [attribution.END_UNKNOWN, attribution.END_SERVICE, attribution.END_NO_PORT, attribution.END_INFRASTRUCTURE] == [
    kernels.END_UNKNOWN, kernels.END_SERVICE, kernels.END_NO_PORT, kernels.END_INFRASTRUCTURE]
assert [Direction.UP, Direction.DOWN] == [kernels.UP, kernels.DOWN]

BLOCK_FLOWS = 8192
"""Flows that go through all loops together: what one loop leaves for the next is then still in the processor's cache."""

_DEFECTS = {
    kernels.RATE_ZERO: "has a sampling rate of zero", kernels.TIME_BACKWARDS: "ends before it starts",
    kernels.DURATION_TOO_LONG: "lasts 2^32 milliseconds or longer",
    kernels.COUNT_OUT_OF_RANGE: "has a count below zero or, scaled, above 2^62",
}


@dataclass(frozen=True)
class Inputs:
    """Everything beside the flows that cells depend on."""

    attribution: Attribution
    classifier: Classifier
    timelines: Timelines
    late_rates: LateRates = field(default_factory=LateRates)


@dataclass(frozen=True)
class Made:
    """The partial sums of some flows."""

    cells: pa.Table  # core.schemas.CELLS, ordered by its key
    outcomes: pa.Table  # core.schemas.OUTCOMES, ordered by its key
    attributed: dict[str, int]  # octets by the service's local month
    late: dict[int, int] = field(default_factory=dict)  # octets that late sampling rates add, by quarter hour


class Maker:
    """Takes in flows, piece by piece, in any order."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._cells = CellSums()
        self._outcomes = Sums()
        self._attributed: dict[int, int] = {}
        self._late = LateOctets()
        self._exporters: dict[bytes, int] = {}
        self.flows = 0
        self.from_ms: int | None = None
        self.to_ms: int | None = None

    def take(self, columns: Columns, source: str) -> None:
        """Add the flows of a piece of a segment; `source` names it should a flow break its schema's promises."""
        if "received" in columns:
            columns = self._late.rate(columns, self._inputs.late_rates)
        for first in range(0, columns["start"].size, BLOCK_FLOWS):
            self._take({name: values[first : first + BLOCK_FLOWS] for name, values in columns.items()}, source)

    def _take(self, columns: Columns, source: str) -> None:
        flows = self._scaled(columns, source)
        spans, _ = find_spans(columns, self._inputs.attribution)
        first, last = int(flows.start.min()), int(flows.end.max())
        spans = self._inputs.classifier.classify_spans(columns, spans, first, last)
        timelines = self._inputs.timelines
        kernels.look_up_stretches(spans, timelines.stretches)
        if first // WINDOW_MS == last // WINDOW_MS:  # as nearly always
            timelines.cover(flows.start[:1])
        else:
            owned = spans.outcome == kernels.ATTRIBUTED
            timelines.cover(spans.from_ms[owned], spans.to_ms[owned])
        self._cells.run(lambda rows, slots, state: kernels.cut_cells(
            flows, spans, timelines.stretches, timelines.clocks, rows, slots, state))
        self._outcomes.run(lambda keys, sums, state: kernels.cut_outcomes(flows, spans, keys, sums, state))
        self._sum_periods(flows, spans)
        self.flows += flows.start.size
        self.from_ms = first if self.from_ms is None else min(first, self.from_ms)
        self.to_ms = last + 1 if self.to_ms is None else max(last + 1, self.to_ms)

    def finish(self) -> Made:
        attributed = {period_text(month): octets for month, octets in sorted(self._attributed.items())}
        return Made(self._cells.table(), outcome_table(self._outcomes, list(self._exporters)), attributed,
                    self._late.by_slot)

    def _scaled(self, columns: Columns, source: str) -> kernels.FlowSums:
        octets, packets = scale(columns, source)
        return kernels.FlowSums(columns["start"], columns["end"], octets, packets, self._exporter_indexes(columns["exporter"]),
                                columns["rate_numerator"] > columns["rate_denominator"])

    def _exporter_indexes(self, exporters: NDArray[np.uint8]) -> NDArray[np.int64]:
        words = np.ascontiguousarray(exporters).view(np.uint64)
        if all((words[:, half] == words[0, half]).all() for half in range(2)):  # as in most pieces: a segment is of few routers
            return np.full(len(exporters), self._exporters.setdefault(exporters[0].tobytes(), len(self._exporters)), np.int64)
        unique, inverse = np.unique(np.ascontiguousarray(exporters).view("V16").ravel(), return_inverse=True)
        indexes = [self._exporters.setdefault(exporter.tobytes(), len(self._exporters)) for exporter in unique]
        return np.array(indexes, np.int64)[inverse]

    def _sum_periods(self, flows: kernels.FlowSums, spans: kernels.Spans) -> None:
        timelines = self._inputs.timelines
        base, last = timelines.period_range()
        totals = np.zeros(last - base, np.int64)
        code = kernels.sum_periods(flows, spans, timelines.stretches, timelines.months, base, totals)
        assert code == kernels.DONE, "the cells of the same flows were summed without overflow"
        for month in np.flatnonzero(totals).tolist():
            self._attributed[base + month] = self._attributed.get(base + month, 0) + int(totals[month])


def scale(columns: Columns, source: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Octets and packets times the sampling rate. Raises DamagedFile for flows that break their schema's promises."""
    count = columns["start"].size
    octets, packets, at = np.empty(count, np.int64), np.empty(count, np.int64), np.zeros(1, np.int64)
    code = kernels.scale(columns["octets"], columns["packets"], columns["rate_numerator"], columns["rate_denominator"],
                         columns["start"], columns["end"], octets, packets, at)
    if code != kernels.DONE:
        raise DamagedFile(f"{source}: flow {int(at[0])} of a piece {_DEFECTS[code]}",
                          "its decoder broke its promise: report it, and replay with a corrected one")
    return octets, packets


def find_spans(columns: Columns, owners: Attribution) -> tuple[kernels.Spans, Resolved]:
    """What became of every instant of every flow end that counts, and what attribution said of the ends."""
    resolved = owners.resolve(FlowEnds(*(columns[name] for name in FlowEnds._fields)))
    room = 3 * columns["start"].size + 2 * resolved.flow.size
    spans = kernels.Spans(np.empty(room, np.int64), np.empty(room, np.uint8), np.empty(room, np.uint8),
                          np.empty(room, np.uint8), np.empty(room, np.int64), np.empty(room, np.int64),
                          np.empty(room, np.int64), np.empty(room, np.int16), np.empty(room, np.int32))
    quarantined = (columns["flags"] & np.uint32(FlowFlag.QUARANTINED) != 0).view(np.uint8)
    count = kernels.find_spans(columns["start"], columns["end"], resolved.in_cut.view(np.uint8), quarantined,
                               resolved.source_status, resolved.destination_status, resolved.flow, resolved.end,
                               resolved.from_ms, resolved.to_ms, resolved.service, spans)
    assert count <= room, "every span has room"
    return kernels.Spans._make(column[:count] for column in spans), resolved


def outcome_table(sums: Sums, exporters: list[bytes]) -> pa.Table:
    """The outcomes in order of their key; `exporters` by index."""
    keys, values = sums.rows()
    in_order = sorted(exporters)
    rank = np.array([in_order.index(exporter) for exporter in exporters], np.int64)
    exporter, outcome, slot = keys[:, 0] // 8, keys[:, 0] % 8, keys[:, 1]
    order = np.lexsort((outcome, slot, rank[exporter]))
    addresses = pa.array([exporters[number] for number in exporter[order].tolist()], schemas.ADDRESS)
    return _table([addresses, slot[order], outcome[order].astype(np.uint8), *values[order].T], schemas.OUTCOMES)


def _table(columns: list[pa.Array | NDArray[np.generic]], schema: pa.Schema) -> pa.Table:
    arrays = [column if isinstance(column, pa.Array) else pa.array(np.ascontiguousarray(column)).cast(field.type)
              for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)
