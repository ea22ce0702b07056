"""`usage strangers PERIOD`: the biggest strangers, flows of which no service owned an end, by exporter and network.

The octets by exporter are those of the outcome files. By network (IPv4 /24, IPv6 /48) they are counted again from the flows
of the aggregated segments, with the attribution and cuts of aggregation, so that both add up to the same number. The network
is that of the end that looks like ours: the one whose owner is missing for a time; else of both ends the one in a network
with leases, else the one in private address space, else the source.

Reads segments, outcome files and the tables of aggregation and leases; writes nothing. Periods are in the seller's zone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from aggregation import cell_store, kernels, manifest, segments
from aggregation.cells import find_spans, scale
from aggregation.late import LateOctets, cumulative
from aggregation.manifest import CellFile
from aggregation.segments import Columns, Segment
from aggregation.sums import Sums
from core import tables
from core.addresses import Prefix, format_address
from core.networks import PRIVATE, Ranges, network_numbers, network_text
from core.periods import OPEN_END, OPEN_START, period_bounds
from core.schemas import Outcome
from core.settings import seller
from runtime import progress
from storage import sql
from storage.home import Home
from storage.late_rates import LateRates
from subscribers.attribution import Attribution, Resolved

COLUMNS = {"exporter": ("exporter", "octets", "flows"),
           "prefix": ("exporter", "prefix", "leased", "octets", "packets", "flows")}
"""`--by` → columns. leased: whether anybody ever had a lease in the prefix; prefix: null for what was not kept apart."""

NETWORKS_MAX = 1 << 20
"""Exporters and networks kept apart: a scan from forged sources must not take all memory."""

_OTHERS = -1


@dataclass(frozen=True)
class Report:
    """The biggest first; octets are scaled, as in usage."""

    rows: list[dict[str, Any]]
    count: int  # of rows before the limit
    octets: int  # of all rows
    reported: int  # octets of the same period in the outcome files
    waiting_segments: int
    stale_batches: int

    def sentences(self, period: str) -> list[str]:
        """What a person should know beside the rows."""
        found = [f"strangers of {period}: {self.octets} octets; {len(self.rows)} of {self.count} rows are shown"]
        if self.waiting_segments or self.stale_batches:
            found.append(f"{self.waiting_segments} segments and {self.stale_batches} stale batches are not up to date: "
                         "run `ratemill aggregate run`")
        if self.octets != self.reported:
            found.append(f"aggregation reported {self.reported} octets of strangers: what it was told has changed since")
        return found


def report(home: Home, period: str, by: str, limit: int) -> Report:
    """The biggest strangers of a period. Raises DamagedFile."""
    start, end = period_bounds(period, seller(home.document).timezone)
    with sql.reading(sql.engine(home)) as connection:
        outcomes = [file for _, file in manifest.cell_files(connection, "outcomes")]
        stale, waiting = manifest.stale_batches(connection), manifest.waiting_segments(connection)
        counter = _Counter(connection, home, start, end) if by == "prefix" else None
    exporters = _by_exporter(home, outcomes, start, end)
    reported = sum(octets for octets, _ in exporters.values())
    if counter is not None:
        rows = counter.count(home)
    else:
        rows = [{"exporter": format_address(exporter), "octets": octets, "flows": flows}
                for exporter, (octets, flows) in exporters.items()]
    rows.sort(key=lambda row: (-row["octets"], -row["flows"], row["exporter"], row.get("prefix") or ""))
    return Report(rows[:limit], len(rows), sum(row["octets"] for row in rows), reported, len(waiting), len(stale))


def _by_exporter(home: Home, files: Iterable[CellFile], start: int, end: int) -> dict[bytes, tuple[int, int]]:
    """Octets and flows that aggregation reported."""
    found: dict[bytes, tuple[int, int]] = {}
    for file in files:
        for table in cell_store.read(home, file):
            for row in table.select(["exporter", "slot", "outcome", "octets", "flows"]).filter(
                    _expression(start, end)).to_pylist():
                octets, flows = found.get(row["exporter"], (0, 0))
                found[row["exporter"]] = octets + row["octets"], flows + row["flows"]
    return found


def _expression(start: int, end: int) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    slot = pc.field("slot").cast(pa.int64())
    return (pc.field("outcome") == int(Outcome.STRANGER)) & (slot >= start) & (slot < end)


class _Counter:
    """Counts the strangers of aggregated segments; its inputs are loaded in one consistent view."""

    def __init__(self, connection: sa.Connection, home: Home, start: int, end: int) -> None:
        self._start, self._end = start, end
        ids = {number for batch in manifest.live_batches(connection) if batch.from_ms < end and batch.to_ms > start
               for number in batch.segments}
        self._segments = [segment for segment in manifest.segments(connection, ids) if _touches(segment, start, end)]
        first = min((OPEN_START if s.start_first is None else s.start_first for s in self._segments), default=0)
        last = max((OPEN_END if s.end_last is None else s.end_last for s in self._segments), default=0)
        self._owners = Attribution.load(connection, home.document, first, last + 1)
        self._rates = LateRates.load(connection, home.document)
        lease = tables.lease
        query = sa.select(lease.c.address, lease.c.prefix_length).distinct()
        self._leased = Ranges(Prefix(bytes(row.address), row.prefix_length) for row in connection.execute(query))
        self._private = Ranges(PRIVATE)
        self._exporters: dict[bytes, int] = {}
        self._sums = Sums()

    def count(self, home: Home) -> list[dict[str, Any]]:
        with progress.bar("strangers", sum(segment.flows for segment in self._segments), "flows") as advance:
            for source, columns in segments.read_all(home, self._segments, exact=False):
                self._take(columns, source)
                advance(len(columns["start"]))
        keys, sums = self._sums.rows()
        exporters = [format_address(exporter) for exporter in self._exporters]
        leased = self._leased.holds(keys[:, 1])
        return [{"exporter": exporters[exporter], "prefix": None if network == _OTHERS else network_text(network),
                 "leased": bool(has), "octets": octets, "packets": packets, "flows": flows}
                for (exporter, network, _), has, (octets, packets, flows)
                in zip(keys.tolist(), leased.tolist(), sums.tolist(), strict=True) if octets or packets or flows]

    def _take(self, columns: Columns, source: str) -> None:
        if "received" in columns:
            columns = LateOctets().rate(columns, self._rates)
        octets, packets = scale(columns, source)
        spans, resolved = find_spans(columns, self._owners)
        begin, until = columns["start"][spans.flow], columns["end"][spans.flow]
        a, b = np.maximum(spans.from_ms, self._start), np.minimum(spans.to_ms, self._end)
        inside = (a < b) | ((begin == until) & (self._start <= begin) & (begin < self._end))
        chosen = (spans.outcome == kernels.STRANGER) & inside
        flow, begin, until, a, b = spans.flow[chosen], begin[chosen], until[chosen], a[chosen], b[chosen]
        if not len(flow):
            return
        counts = [np.where(begin == until, count[flow], cumulative(count[flow].astype(np.uint64), begin, until, b) - cumulative(
            count[flow].astype(np.uint64), begin, until, a)).astype(np.int64) for count in (octets, packets)]
        networks = self._networks(columns, resolved, flow, spans.end[chosen])
        keys = np.stack([self._exporter_indexes(columns["exporter"][flow]), networks, np.zeros(len(flow), np.int64)], axis=1)
        self._sums.add(keys, np.stack([*counts, (a == begin).astype(np.int64)], axis=1))
        if len(self._sums) > NETWORKS_MAX:
            self._shrink()

    def _networks(self, columns: Columns, resolved: Resolved, flow: NDArray[np.int64],
                  end: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The network of the end of each span that looks like ours."""
        source = network_numbers(columns["source_address"][flow])
        destination = network_numbers(columns["destination_address"][flow])
        status = (resolved.source_status[flow], resolved.destination_status[flow])
        has_service = (status[0] == kernels.END_SERVICE) | (status[1] == kernels.END_SERVICE)
        looks = [2 * self._leased.holds(networks).astype(np.int64) + self._private.holds(networks)
                 for networks in (source, destination)]
        by_looks = looks[1] > looks[0]
        return np.where(np.where(has_service, end == 1, by_looks), destination, source)

    def _exporter_indexes(self, exporters: NDArray[np.uint8]) -> NDArray[np.int64]:
        unique, inverse = np.unique(np.ascontiguousarray(exporters).view("V16").ravel(), return_inverse=True)
        indexes = [self._exporters.setdefault(exporter.tobytes(), len(self._exporters)) for exporter in unique]
        return np.array(indexes, np.int64)[inverse]

    def _shrink(self) -> None:
        """Keep the larger half; the rest becomes one row an exporter, so that no octet is lost."""
        keys, sums = self._sums.rows()
        order = np.argsort(-sums[:, 0], kind="stable")
        keys, sums = keys[order], sums[order]
        keys[NETWORKS_MAX // 2 :, 1] = _OTHERS
        self._sums = Sums()
        self._sums.add(keys, sums)


def _touches(segment: Segment, start: int, end: int) -> bool:
    first, last = segment.start_first, segment.end_last
    return segment.flows > 0 and (first is None or first < end) and (last is None or last >= start)
