"""Completeness of a span of time: by exporter, interface and way, flows against interface counters, and what is missing.

Reads `interface_flow`, `interface_counter`, `intake`, `kernel_drop`, `segment`. Writes nothing. Flows belong to the quarter
hour in which they ended; they are compared as far as counters cover the span, a quarter hour that is covered in part with all
its flows. A record is seen at ingress or at egress: each way is what the one or the other kind says, whichever
is more, never both together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from collector import counter_series, readings, verdicts
from collector.counter_series import Counted, Stretch, unsigned
from collector.loss import RECORD_PROTOCOLS, Explained, Missing, explain
from collector.thresholds import Thresholds
from collector.verdicts import Flows
from core import tables
from core.addresses import NO_ADDRESS
from core.periods import SLOT_MS
from core.schemas import ADDRESS, FlowDirection

Interface = tuple[bytes, int]
WAYS = ("in", "out")
WORST_MAX = 5
"""Quarter hours that are listed as the worst of an interface."""
DENSE_MS = 2 * SLOT_MS
"""Counters read at least so often can judge a quarter hour."""
SEGMENTS_AT_ONCE = 512

_SUMS = ("octets", "packets", "samples", "flows")
_KEYS = ("exporter", "interface", "side", "observed", "slot")


@dataclass(frozen=True)
class Quarter:
    """A quarter hour of an interface: what flows and counter say."""

    slot: int
    flow_octets: int
    counter_octets: int


@dataclass(frozen=True)
class Line:
    """One interface and one way over a span of time."""

    exporter: bytes
    interface: int
    way: str
    flows: Flows
    """As far as the counter covers the span; all of the span where there is no counter."""
    all_flows: Flows
    counted: Counted | None
    source: str | None
    verdict: str
    longest_flow: int
    worst: list[Quarter] = field(default_factory=list)

    @property
    def counter_octets(self) -> int | None:
        return None if self.counted is None else self.counted.octets


@dataclass(frozen=True)
class Loss:
    """What one domain of an exporter lacks in a span of time, as one collector saw it."""

    collector: str
    exporter: bytes
    domain: int
    protocol: int
    received: int
    """In the unit of `missing`: records or datagrams."""
    explained: Explained
    reordered: int
    restarts: int

    @property
    def missing(self) -> int:
        return self.explained.kernel + self.explained.network


# flows ----------------------------------------------------------------------------------------------------------------
class FlowSums:
    """Flows by exporter, interface, way, kind of observation and quarter hour."""

    def __init__(self, connection: sa.Connection, start: int, end: int, exporter: bytes | None = None) -> None:
        self._slots: dict[tuple[bytes, int, int, int], dict[int, Flows]] = defaultdict(dict)
        self._longest: dict[tuple[bytes, int, int], int] = {}
        self.rest_octets = 0
        """Octets of interfaces that found no row of their own (readings.INTERFACE_ROWS_MAX)."""
        pending: list[pa.Table] = []
        for table in readings.interface_flows(connection, start, end):
            if exporter is not None:
                table = table.filter(pc.equal(table.column("exporter"), pa.scalar(exporter, ADDRESS)))
            pending.append(table)
            if len(pending) == SEGMENTS_AT_ONCE:
                self._add(pending)
                pending = []
        self._add(pending)

    def _add(self, parts: Sequence[pa.Table]) -> None:
        if not parts:
            return
        grouped = pa.concat_tables(parts).group_by(list(_KEYS)).aggregate(
            [*((name, "sum") for name in _SUMS), ("longest_flow", "max")])
        names = [*_KEYS, *(f"{name}_sum" for name in _SUMS), "longest_flow_max"]
        columns = [grouped.column(name).cast(pa.int64()) if name == "slot" else grouped.column(name) for name in names]
        for row in zip(*(column.to_pylist() for column in columns), strict=True):
            exporter, interface, side, observed, slot, octets, packets, samples, flows, longest = row
            if interface == readings.REST:
                self.rest_octets += octets
                continue
            slots = self._slots[exporter, interface, side, observed]
            slots[slot] = slots.get(slot, Flows()) + Flows(octets, packets, samples, flows)
            key = (exporter, interface, side)
            self._longest[key] = max(self._longest.get(key, 0), longest)

    def interfaces(self) -> set[Interface]:
        return {(exporter, interface) for exporter, interface, _, _ in self._slots}

    def exporters(self) -> set[bytes]:
        return {exporter for exporter, _, _, _ in self._slots}

    def longest(self, exporter: bytes, interface: int, side: int) -> int:
        return self._longest.get((exporter, interface, side), 0)

    def of(self, exporter: bytes, interface: int, side: int, spans: Sequence[tuple[int, int]]) -> dict[int, Flows]:
        """By quarter hour, of the kind of observation that says more over these spans; what does not say where it was
        observed counts as ingress."""
        ingress, egress, unknown = (
            _within(self._slots.get((exporter, interface, side, kind), {}), spans)
            for kind in (FlowDirection.INGRESS, FlowDirection.EGRESS, FlowDirection.UNKNOWN))
        for slot, flows in unknown.items():
            ingress[slot] = ingress.get(slot, Flows()) + flows
        return max(ingress, egress, key=lambda slots: sum(flows.octets for flows in slots.values()))


def _within(slots: Mapping[int, Flows], spans: Sequence[tuple[int, int]]) -> dict[int, Flows]:
    """The quarter hours that meet one of the spans (in order, apart from each other)."""
    found: dict[int, Flows] = {}
    ordered = sorted(slots)
    at = 0
    for slot in ordered:
        while at < len(spans) and spans[at][1] <= slot:
            at += 1
        if at == len(spans):
            break
        if spans[at][0] < slot + SLOT_MS:
            found[slot] = slots[slot]
    return found


def _total(slots: Mapping[int, Flows]) -> Flows:
    return sum(slots.values(), Flows())


# counters -------------------------------------------------------------------------------------------------------------
Counters = dict[Interface, tuple[str, tuple[list[Stretch], list[Stretch]]]]
"""Interface → source, and the stretches of octets in and out."""


def read_counters(connection: sa.Connection, start: int, end: int, exporter: bytes | None = None) -> Counters:
    """Counters of interfaces in [start, end), with the samples around it. Of two sources the one that covers more."""
    table = tables.interface_counter
    keys = (table.c.exporter, table.c.interface, table.c.source)
    before = sa.select(*keys, sa.func.max(table.c.at).label("at")).where(table.c.at < start).group_by(*keys)
    after = sa.select(*keys, sa.func.min(table.c.at).label("at")).where(table.c.at >= end).group_by(*keys)
    wanted = sa.select(table).where(table.c.at >= start, table.c.at < end)
    series: dict[tuple[bytes, int, str], list[tuple[int, int, int]]] = defaultdict(list)
    around = [sa.select(table).join(edge := sub.subquery(), sa.and_(
        *(table.c[name] == edge.c[name] for name in ("exporter", "interface", "source", "at")))) for sub in (before, after)]
    for query in (wanted, *around):
        chosen = query if exporter is None else query.where(table.c.exporter == exporter)
        for row in connection.execute(chosen):
            series[bytes(row.exporter), row.interface, row.source].append(
                (row.at, unsigned(row.in_octets), unsigned(row.out_octets)))
    found: Counters = {}
    for (address, interface, source), samples in sorted(series.items()):
        samples.sort()
        ways = tuple(counter_series.stretches([(sample[0], sample[way]) for sample in samples]) for way in (1, 2))
        known = found.get((address, interface))
        if known is None or _covered(ways, start, end) > _covered(known[1], start, end):
            found[address, interface] = (source, (ways[0], ways[1]))
    return found


def _covered(ways: Sequence[Sequence[Stretch]], start: int, end: int) -> int:
    return max(counter_series.count(way, start, end).covered_ms for way in ways)


# lines ----------------------------------------------------------------------------------------------------------------
def lines(flows: FlowSums, counters: Counters, span: tuple[int, int], thresholds: Thresholds,
          expected: set[tuple[bytes, int, str]] | None = None) -> Iterator[Line]:
    """Every interface and way that flows or counters name, in order. `expected` are those from which flows must come."""
    for exporter, interface in sorted(flows.interfaces() | counters.keys()):
        if exporter == NO_ADDRESS:
            continue
        for side, way in enumerate(WAYS):
            yield _line((exporter, interface), side, flows, counters.get((exporter, interface)), span, thresholds,
                        expected is not None and (exporter, interface, way) in expected)


def _line(key: Interface, side: int, flows: FlowSums, counter: tuple[str, tuple[list[Stretch], list[Stretch]]] | None,
          span: tuple[int, int], thresholds: Thresholds, is_expected: bool) -> Line:
    exporter, interface = key
    common = thresholds.common
    overhead = (common.overhead_octets_min, common.overhead_octets_max)
    everything = _total(flows.of(exporter, interface, side, [span]))
    longest = flows.longest(exporter, interface, side)
    way = WAYS[side]
    parts = counter[1][side] if counter is not None else []
    counted = counter_series.count(parts, *span)
    if counter is None or not counted.covered:
        return Line(exporter, interface, way, everything, everything, None, None, verdicts.UNKNOWN, longest)
    slots = flows.of(exporter, interface, side, counted.covered)
    compared = _total(slots)
    verdict = verdicts.judge(compared, counted.octets, thresholds.percent(exporter), overhead)
    imported = counter[0] == "csv"
    if compared.flows == 0 and counted.octets and not is_expected and not imported and everything.flows == 0:
        verdict = verdicts.NOT_METERED
    return Line(exporter, interface, way, compared, everything, counted, counter[0], verdict, longest,
                list(_worst(slots, parts, span)))


def _worst(slots: Mapping[int, Flows], parts: Sequence[Stretch], span: tuple[int, int]) -> Iterator[Quarter]:
    """The quarter hours in which flows lack the most octets, where counters were read often enough to say so."""
    counted: dict[int, int] = defaultdict(int)
    covered: dict[int, int] = defaultdict(int)
    for part in parts:
        if part.end - part.start > DENSE_MS or part.kind != counter_series.COUNTED:
            continue
        slot = max(part.start, span[0]) // SLOT_MS * SLOT_MS
        while slot < min(part.end, span[1]):
            counted[slot] += part.between(slot, slot + SLOT_MS)
            covered[slot] += min(part.end, slot + SLOT_MS) - max(part.start, slot)
            slot += SLOT_MS
    lacking = [Quarter(slot, slots.get(slot, Flows()).octets, octets) for slot, octets in counted.items()
               if covered[slot] == SLOT_MS]
    lacking.sort(key=lambda quarter: (quarter.flow_octets - quarter.counter_octets, quarter.slot))
    yield from (quarter for quarter in lacking[:WORST_MAX] if quarter.flow_octets < quarter.counter_octets)


# loss -----------------------------------------------------------------------------------------------------------------
def losses(connection: sa.Connection, start: int, end: int) -> tuple[list[Loss], dict[str, int]]:
    """What sequence numbers lack among the datagrams received in [start, end), explained; and per collector the kernel's
    drops that no sequence number shows."""
    by_collector: dict[str, list[Any]] = defaultdict(list)
    for row in _intake(connection, start, end):
        by_collector[row["collector"]].append(row)
    drops = kernel_drops(connection, start, end)
    found: list[Loss] = []
    unseen: dict[str, int] = {}
    for collector in sorted(by_collector.keys() | drops.keys()):
        rows = by_collector.get(collector, [])
        explained, left = explain([_missing(row) for row in rows], drops.get(collector, 0))
        if left:
            unseen[collector] = left
        found += [Loss(collector, row["exporter"], row["domain"], row["export_protocol"], _received(row), each,
                       row["reordered"], row["restarts"]) for row, each in zip(rows, explained, strict=True)]
    return found, unseen


REPLAYS = "replay"
"""All replays together: each is a journal of its own, but none of them has a kernel that drops."""
_ADDED = ("datagrams", "duplicate", "data_records", "options_records", "missing", "reordered", "restarts", "measured",
          "records")


def _intake(connection: sa.Connection, start: int, end: int) -> list[dict[str, Any]]:
    """Sums of `intake` by collector, exporter, domain and protocol, in this order."""
    intake, segment = tables.intake, tables.segment
    keys = (segment.c.collector, intake.c.exporter, intake.c.domain, intake.c.export_protocol)
    fewest = sa.func.min(sa.case((intake.c.measured > 0, intake.c.records_min))).label("records_min")
    query = (sa.select(*keys, *(sa.func.sum(intake.c[name]).label(name) for name in _ADDED), fewest,
                       sa.func.max(intake.c.records_max).label("records_max"))
             .join(segment, segment.c.id == intake.c.segment_id)
             .where(intake.c.slot >= start, intake.c.slot < end, intake.c.exporter != NO_ADDRESS).group_by(*keys))
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in connection.execute(query):
        collector = REPLAYS if row.collector.startswith("replay-") else row.collector
        key = {"collector": collector, "exporter": bytes(row.exporter), "domain": row.domain,
               "export_protocol": row.export_protocol}
        sums = found.setdefault(tuple(key.values()), {**key, **dict.fromkeys(_ADDED, 0), "records_min": None, "records_max": 0})
        for name in _ADDED:
            sums[name] += int(row._mapping[name])
        sums["records_max"] = max(sums["records_max"], row.records_max)
        if row.records_min is not None:
            least = sums["records_min"]
            sums["records_min"] = row.records_min if least is None else min(row.records_min, least)
    return [found[key] for key in sorted(found)]


def _missing(row: dict[str, Any]) -> Missing:
    return Missing(max(0, row["missing"]), row["export_protocol"] in RECORD_PROTOCOLS, row["measured"], row["records"],
                   row["records_min"] or 0, row["records_max"])


def _received(row: dict[str, Any]) -> int:
    """What came, in the unit of the protocol's sequence numbers."""
    if row["export_protocol"] in RECORD_PROTOCOLS:
        return int(row["data_records"] + row["options_records"])
    return int(row["datagrams"] - row["duplicate"])


def kernel_drops(connection: sa.Connection, start: int, end: int) -> dict[str, int]:
    """Datagrams that the kernel dropped in [start, end), by collector: the growth of its cumulative count."""
    drop, segment = tables.kernel_drop, tables.segment
    query = (sa.select(segment.c.collector, drop.c.slot, drop.c.total)
             .join(segment, segment.c.id == drop.c.segment_id)
             .order_by(segment.c.collector, segment.c.block_first, drop.c.slot))
    return grown(((row.collector, row.slot, row.total) for row in connection.execute(query)), start, end)


def grown(rows: Iterable[tuple[str, int, int]], start: int, end: int) -> dict[str, int]:
    """(collector, quarter hour, cumulative) in order → growth in [start, end); a count that fell began anew."""
    found: dict[str, int] = {}
    last: dict[str, int] = {}
    for collector, slot, total in rows:
        before = last.get(collector, 0)
        last[collector] = total
        growth = total - before if total >= before else total
        if growth and start <= slot < end:
            found[collector] = found.get(collector, 0) + growth
    return found
