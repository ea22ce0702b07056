"""`completeness PERIOD`: whether the flows of a period are all there were, and what keeps it from being invoiced.

A finding refuses `invoice run` unless it is accepted with a reason: flows of an interface below the threshold of its counter,
sequence numbers that lack more than they may, and a percentile made of flows that are longer than a slot. What nobody measured
is said to be unknown and refuses nothing. Only what bills can refuse: with a metering cut, the exporters, interfaces and
directions in it; without, every exporter. The period is that of the seller's zone.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from fractions import Fraction
from typing import Any

import sqlalchemy as sa

from collector import completeness, thresholds, verdicts
from collector.completeness import Counters, FlowSums, Line, Loss
from collector.loss import percent_text, unit_of
from collector.thresholds import Completeness, Thresholds
from collector.verdicts import Flows
from core import periods, settings, tables
from core.addresses import format_address
from core.periods import format_instant
from core.schemas import EXPORT_PROTOCOL_NAMES
from monitoring import long_flows
from storage import sql
from storage.home import Home
from subscribers.settings import Metering, metering

COLUMNS = ["exporter", "interface", "way", "day", "flow_octets", "flow_packets", "counter_octets", "percent", "percent_most",
           "overhead_octets", "threshold_percent", "verdict", "source", "covered_percent", "gaps", "resets", "wraps", "worst",
           "missing", "missing_percent", "missing_kernel", "missing_network", "not_sent_octets", "longest_flow_ms", "refuses"]
SHOWN = ["exporter", "interface", "way", "day", "flow_octets", "counter_octets", "percent", "verdict", "covered_percent",
         "missing", "missing_percent", "longest_flow_ms", "refuses"]
"""On a terminal."""
GAPS_SHOWN = 10


@dataclass(frozen=True)
class Finding:
    """Something that keeps a period from being invoiced."""

    kind: str
    """counters, sequence or percentile."""
    exporter: bytes
    sentence: str
    interface: int | None = None
    way: str | None = None

    def as_row(self) -> dict[str, Any]:
        return {"kind": self.kind, "exporter": format_address(self.exporter), "interface": self.interface, "way": self.way,
                "finding": self.sentence}


@dataclass(frozen=True)
class Report:
    """What is known of a period."""

    lines: list[Line]
    losses: list[Loss]
    unseen_drops: dict[str, int]
    """By collector: datagrams that the kernel dropped and no sequence number lacks."""
    rest_octets: int
    """Octets of interfaces beyond the bound of a segment: in no line."""
    flows: FlowSums
    counters: Counters
    span: tuple[int, int]
    thresholds: Thresholds


def read(home: Home, connection: sa.Connection, period: str, *, every_flow: bool = False) -> Report:
    """Read everything about a period; flows by interface only if `every_flow`, or if there are counters to compare with."""
    start, end = periods.period_bounds(period, settings.seller(home.document).timezone)
    limits = thresholds.from_document(home.document)
    counters = completeness.read_counters(connection, start, end)
    flows = FlowSums(connection, start, end if counters or every_flow else start)
    losses, unseen = completeness.losses(connection, start, end)
    lines = list(completeness.lines(flows, counters, (start, end), limits, expected(metering(home.document))))
    return Report(lines, losses, unseen, flows.rest_octets, flows, counters, (start, end), limits)


# what bills -----------------------------------------------------------------------------------------------------------
def expected(cut: Sequence[Metering]) -> set[tuple[bytes, int, str]]:
    """Interfaces and ways from which flows must come, as the metering cut names them."""
    return {(entry.exporter, interface, way) for entry in cut for interface in entry.interfaces for way in _ways(entry)}


def _ways(entry: Metering) -> tuple[str, ...]:
    return {"ingress": ("in",), "egress": ("out",)}.get(entry.flow_direction, ("in", "out"))


def bills(cut: Sequence[Metering], exporter: bytes, interface: int | None = None, way: str | None = None) -> bool:
    """Whether what lacks there is lacking on an invoice."""
    return not cut or any(
        entry.exporter == exporter and (interface is None or not entry.interfaces or interface in entry.interfaces)
        and (way is None or way in _ways(entry)) for entry in cut)


# findings -------------------------------------------------------------------------------------------------------------
def findings(home: Home, connection: sa.Connection, period: str, report: Report) -> list[Finding]:
    """What keeps a period from being invoiced, the most telling first."""
    cut = metering(home.document)
    return [*_incomplete(report, cut), *_lossy(report, cut), *_long_flows(home, connection, period, report, cut)]


def _incomplete(report: Report, cut: Sequence[Metering]) -> Iterator[Finding]:
    for line in report.lines:
        if line.verdict == verdicts.INCOMPLETE and bills(cut, line.exporter, line.interface, line.way):
            assert line.counter_octets is not None, "a counter judged it"
            threshold = report.thresholds.percent(line.exporter)
            where = f"{format_address(line.exporter)} interface {line.interface} {line.way}"
            yield Finding(
                "counters", line.exporter, f"{where}: flows cover {_percents(report, line)[1]} % of {line.counter_octets} "
                f"octets counted, at least {decimal(threshold)} % is wanted", line.interface, line.way)


def _lossy(report: Report, cut: Sequence[Metering]) -> Iterator[Finding]:
    common = report.thresholds.common
    for loss in report.losses:
        if is_lossy(loss, common) and bills(cut, loss.exporter):
            sent = loss.received + loss.missing
            most = decimal(common.sequence_loss_percent_max)
            yield Finding(
                "sequence", loss.exporter,
                f"{format_address(loss.exporter)} domain {loss.domain}: {loss.missing} of {sent} {unit_of(loss.protocol)} are "
                f"missing by sequence ({percent_text(loss.missing, sent)} %, at most {most} % may): {loss.explained.kernel} "
                f"dropped by our kernel, {loss.explained.network} by the network")


def is_lossy(loss: Loss, common: Completeness) -> bool:
    """Whether so much is missing that it matters: a share, of which a handful of units is none."""
    share = loss.missing * 100 > common.sequence_loss_percent_max * (loss.received + loss.missing)
    return share and loss.missing >= common.sequence_loss_units_min


def _long_flows(
    home: Home, connection: sa.Connection, period: str, report: Report, cut: Sequence[Metering]
) -> Iterator[Finding]:
    """Exporters whose flows are too long for the percentiles that are charged in the period."""
    services = long_flows.percentile_services(home, connection, period)
    most = report.thresholds.common.flow_seconds_max
    if not services:
        return
    longest = long_flows.longest(connection, report.span)
    suspects = [one for one in sorted(longest) if longest[one] > most * 1000 and bills(cut, one)]
    for exporter in long_flows.touching(home, connection, suspects, services, report.span, most * 1000):
        seconds = -(-longest[exporter] // 1000)
        yield Finding(
            "percentile", exporter,
            f"{format_address(exporter)}: its longest flow is {seconds} s, a percentile of 5-minute rates wants at most {most} "
            "s, and it has flows of services that are charged by percentile; set the router's active timeout to 60 s "
            "(`ratemill exporters snippet`)")


# rows -----------------------------------------------------------------------------------------------------------------
def describe(home: Home, period: str, by: str) -> tuple[list[dict[str, Any]], list[str]]:
    """What `completeness PERIOD` prints, by interface, exporter or day: rows, and sentences of what no row can say."""
    with sql.reading(sql.engine(home)) as connection:
        report = read(home, connection, period, every_flow=True)
        kept = findings(home, connection, period, report)
        if by == "day":
            found = [_row(connection, report, kept, line, day) for day, line in _by_day(home, report)]
        else:
            lines = list(_by_exporter(report)) if by == "exporter" else report.lines
            silent = sorted({loss.exporter for loss in report.losses} - {line.exporter for line in report.lines})
            found = [_row(connection, report, kept, line, None) for line in [*lines, *map(_silent, silent)]]
    return found, [*(f"not to be invoiced: {finding.sentence}" for finding in kept), *_sentences(report)]


HOURLY = ["exporter", "interface", "way", "hour", "flow_octets", "flow_packets", "counter_octets", "percent", "percent_most",
          "verdict"]


def describe_hours(home: Home, period: str) -> Iterator[dict[str, Any]]:
    """What `completeness PERIOD --by hour` prints: hours of UTC, in order, as the table `completeness` of DuckDB has them."""
    from monitoring import hourly

    start, end = periods.period_bounds(period, settings.seller(home.document).timezone)
    with sql.reading(sql.engine(home)) as connection:
        for hour, line in hourly.lines(home, connection, start, end):
            least, most = hourly.percents(home, line)
            yield {"exporter": format_address(line.exporter), "interface": line.interface, "way": line.way,
                   "hour": format_instant(hour), "flow_octets": line.flows.octets, "flow_packets": line.flows.packets,
                   "counter_octets": line.counter_octets, "percent": least, "percent_most": most, "verdict": line.verdict}


def _silent(exporter: bytes) -> Line:
    """An exporter of which there are datagrams and no flows."""
    return Line(exporter, -1, "", Flows(), Flows(), None, None, verdicts.UNKNOWN, 0)


def _by_exporter(report: Report) -> Iterator[Line]:
    """All interfaces and ways of an exporter that were compared, as one; interface -1."""
    groups: dict[bytes, list[Line]] = defaultdict(list)
    for line in report.lines:
        groups[line.exporter].append(line)
    for exporter, lines in groups.items():
        compared = [line for line in lines if line.counted is not None and line.verdict != verdicts.NOT_METERED]
        chosen = compared or lines
        flows = sum((line.flows for line in chosen), Flows())
        counted = None
        if compared:
            counted = replace(compared[0].counted, octets=sum(line.counter_octets or 0 for line in compared),  # type: ignore[type-var]
                              resets=sum(line.counted.resets for line in compared if line.counted),
                              wraps=sum(line.counted.wraps for line in compared if line.counted),
                              gaps=[gap for line in compared if line.counted for gap in line.counted.gaps])
        yield Line(exporter, -1, "", flows, flows, counted, None, verdicts.worst([line.verdict for line in chosen]),
                   max(line.longest_flow for line in lines))


def _by_day(home: Home, report: Report) -> Iterator[tuple[str, Line]]:
    """Each local day of the seller's zone by itself."""
    zone = settings.seller(home.document).timezone
    start, end = report.span
    wanted = expected(metering(home.document))
    at = start
    while at < end:
        day = periods.local_date(at, zone)
        until = min(end, periods.local_day_start(day + timedelta(days=1), zone))
        for line in completeness.lines(report.flows, report.counters, (at, until), report.thresholds, wanted):
            if line.all_flows.flows or line.counter_octets:
                yield day.isoformat(), line
        at = until


def _percents(report: Report, line: Line) -> tuple[str | None, str | None]:
    if line.counter_octets is None:
        return None, None
    common = report.thresholds.common
    band = verdicts.band(line.flows, (common.overhead_octets_min, common.overhead_octets_max))
    return percent_text(band.least, line.counter_octets, 2), percent_text(band.most, line.counter_octets, 2)


def _row(connection: sa.Connection, report: Report, kept: Sequence[Finding], line: Line, day: str | None) -> dict[str, Any]:
    common = report.thresholds.common
    least, most = _percents(report, line)
    counted, length = line.counted, report.span[1] - report.span[0]
    losses = [loss for loss in report.losses if loss.exporter == line.exporter]
    return {
        "exporter": format_address(line.exporter), "interface": line.interface if line.interface >= 0 else None,
        "way": line.way or None, "day": day, "flow_octets": line.flows.octets, "flow_packets": line.flows.packets,
        "counter_octets": line.counter_octets, "percent": least, "percent_most": most,
        "overhead_octets": f"{common.overhead_octets_min}-{common.overhead_octets_max}",
        "threshold_percent": decimal(report.thresholds.percent(line.exporter)), "verdict": line.verdict, "source": line.source,
        "covered_percent": None if counted is None or day else percent_text(counted.covered_ms, length, 2),
        "gaps": [] if counted is None else [{"from": format_instant(gap[0]), "to": format_instant(gap[1]), "why": gap[2]}
                                            for gap in counted.gaps[:GAPS_SHOWN]],
        "resets": None if counted is None else counted.resets, "wraps": None if counted is None else counted.wraps,
        "worst": [{"slot": format_instant(quarter.slot), "flow_octets": quarter.flow_octets,
                   "counter_octets": quarter.counter_octets} for quarter in line.worst],
        **_loss_columns(losses), "not_sent_octets": _not_sent(connection, line.exporter),
        "longest_flow_ms": line.longest_flow, "refuses": any(_is_of(finding, line) for finding in kept),
    }


def _is_of(finding: Finding, line: Line) -> bool:
    """Whether a finding about the period is about this line's interface, or about its exporter as a whole."""
    if finding.exporter != line.exporter:
        return False
    return finding.interface is None or line.interface < 0 or (finding.interface, finding.way) == (line.interface, line.way)


def _loss_columns(losses: Sequence[Loss]) -> dict[str, Any]:
    """Loss of the exporter as a whole: each unit by itself, the share of its worst domain."""
    columns: dict[str, Any] = {}
    for name in ("missing", "missing_kernel", "missing_network"):
        sums: dict[str, int] = {}
        for loss in losses:
            count = {"missing": loss.missing, "missing_kernel": loss.explained.kernel}.get(name, loss.explained.network)
            sums[unit_of(loss.protocol)] = sums.get(unit_of(loss.protocol), 0) + count
        columns[name] = sums
    worst = max(losses, key=lambda loss: Fraction(loss.missing, max(1, loss.received + loss.missing)), default=None)
    columns["missing_percent"] = None if worst is None else percent_text(worst.missing, worst.received + worst.missing)
    return columns


def _not_sent(connection: sa.Connection, exporter: bytes) -> int | None:
    """Octets that the exporter itself says it never exported (IE 166), since it began; None if it says nothing."""
    table = tables.exporter_state
    if "not_sent_octets" not in table.c:
        return None
    total = connection.scalar(sa.select(sa.func.sum(table.c.not_sent_octets)).where(table.c.exporter == exporter))
    return None if total is None else int(total)


def _sentences(report: Report) -> list[str]:
    """Drops without an exporter, interfaces beyond the bound, protocols without sequence numbers, no counters."""
    found = [f"collector {collector}: the kernel dropped {count} datagrams that no sequence number lacks (copies, the last "
             "ones of an exporter, or of exporters without sequence numbers)"
             for collector, count in report.unseen_drops.items()]
    if report.rest_octets:
        found.append(f"{report.rest_octets} octets are of interfaces beyond the bound of a segment and in no row")
    for loss in report.losses:
        if EXPORT_PROTOCOL_NAMES.get(loss.protocol) == "v1":
            found.append(f"{format_address(loss.exporter)} exports NetFlow v1, which has no sequence numbers: loss is unknown")
    if report.lines and not any(line.counted for line in report.lines):
        found.append("no interface counters: whether flows are complete is unknown (`ratemill counters import`, or let sFlow "
                     "exporters send counter samples)")
    return found


# invoicing ------------------------------------------------------------------------------------------------------------
def check_before_invoicing(home: Home, period: str) -> list[dict[str, Any]]:
    """The findings as `invoice run` refuses, accepts and records them."""
    with sql.reading(sql.engine(home)) as connection:
        report = read(home, connection, period)
        return [finding.as_row() for finding in findings(home, connection, period, report)]


def status(home: Home, period: str) -> dict[str, Any]:
    """What `reconcile` shows: complete, incomplete, accepted or unknown, with the findings and who accepted them, why."""
    with sql.reading(sql.engine(home)) as connection:
        report = read(home, connection, period)
        table = tables.accepted_incomplete
        accepted = connection.execute(sa.select(table).where(table.c.period == period).order_by(table.c.id)).all()
        found = findings(home, connection, period, report)
    judged = any(line.counted is not None for line in report.lines)
    shown: dict[str, Any] = {"completeness": "incomplete" if found else "complete" if judged else "unknown",
                             "findings": [finding.sentence for finding in found]}
    if accepted:
        shown["accepted"] = [{"at": format_instant(row.at), "actor": row.actor, "reason": row.reason,
                              "findings": len(json.loads(row.findings))} for row in accepted]
    return shown


def decimal(value: Fraction) -> str:
    """A percentage as it was written."""
    text = f"{float(value):.6f}".rstrip("0")
    return text.rstrip(".")
