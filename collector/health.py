"""`exporters show`: everything that is known about one exporter, as one object.

Counts are cumulative; what flows and headers say (longest flow, skew, rates, interfaces) is of the last day in which the
exporter was seen. Reads `exporter_state`, `exporter_template`, `exporter_sampler`, `exporter_reading`, `rate_reading`,
`intake`, `fault`, interface counters and flows, and the collectors' shared counters.
"""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import median_low
from typing import Any

import sqlalchemy as sa

from collector import completeness, counters, thresholds
from collector.advice import advice
from collector.element_names import Names, element_names, name_of
from collector.loss import RECORD_PROTOCOLS, Estimate, Explained, Missing, explain, percent_text, unit_of
from core import tables
from core.addresses import format_address, parse_address
from core.errors import NotFound, UsageError
from core.periods import DAY_MS, SLOT_MS, format_instant
from core.schemas import EXPORT_PROTOCOL_NAMES, RateSource
from storage import sql
from storage.home import Home

SKEW_ROWS_MAX = 100_000
"""Quarter hours of arrival whose last skew the median is of."""
NEAREST_MAX = 3
REPORTS = ("not_sent_flows", "not_sent_packets", "not_sent_octets", "ignored_packets", "ignored_octets", "exported_messages",
           "exported_records")
"""What an exporter says of its own losses (IE 40-42, 164-167), where `exporter_state` has the columns."""

V9 = 9
V9_SCOPES = {1: "System", 2: "Interface", 3: "Line Card", 4: "Cache", 5: "Template"}
"""RFC 3954 §6.1."""

Key = tuple[bytes, int, int]


def show(home: Home, text: str, domain: int | None = None) -> dict[str, Any]:
    """All about the exporter of this address. Raises UsageError for no address, NotFound with the nearest known ones."""
    try:
        address = parse_address(text)
    except ValueError as error:
        raise UsageError(f"ADDRESS: {error}", "for example 192.0.2.1; `ratemill exporters list` shows all of them") from None
    with sql.reading(sql.engine(home)) as connection:
        states = _states(connection, address, domain)
        if not states:
            raise _not_found(connection, text, address, domain)
        last = max(row.last for row in states)
        since = last // SLOT_MS * SLOT_MS + SLOT_MS - DAY_MS
        explained = _explained(home, connection, since)
        return {
            "exporter": format_address(address), "first": format_instant(min(row.first for row in states)),
            "last": format_instant(last), "protocols": _protocols(states),
            "domains": _domains(home, connection, address, domain, states, explained, since),
            "faults": list(_faults(connection, address, domain)),
            "kernel_drops": {name: counters.figures(home, name).kernel_drops
                             for name in sorted({row.collector for row in states})},
            "interfaces": list(_interfaces(home, connection, address, since, since + DAY_MS)), "since": format_instant(since),
        }


def _states(connection: sa.Connection, address: bytes, domain: int | None) -> Sequence[Any]:
    table = tables.exporter_state
    query = sa.select(table).where(table.c.exporter == address)
    if domain is not None:
        query = query.where(table.c.domain == domain)
    return connection.execute(query.order_by(table.c.domain, table.c.export_protocol, table.c.collector)).all()


def _not_found(connection: sa.Connection, text: str, address: bytes, domain: int | None) -> NotFound:
    table = tables.exporter_state
    domains = sorted(set(connection.scalars(sa.select(table.c.domain).where(table.c.exporter == address))))
    if domains:
        shown = ", ".join(str(number) for number in domains[:10])
        return NotFound(f"{text} has no domain {domain}", f"its domains are {shown}")
    known = [format_address(bytes(row)) for row in connection.scalars(sa.select(table.c.exporter).distinct())]
    near = difflib.get_close_matches(format_address(address), sorted(known), NEAREST_MAX, 0.3)
    hint = f"the nearest that do: {', '.join(near)}" if near else "`ratemill exporters list` shows those that do"
    return NotFound(f"no exporter sends from {text}", hint)


def _protocols(states: Sequence[Any]) -> list[str]:
    return [EXPORT_PROTOCOL_NAMES.get(number, "unknown") for number in sorted({row.export_protocol for row in states})]


# loss -----------------------------------------------------------------------------------------------------------------
def _explained(home: Home, connection: sa.Connection, since: int) -> dict[tuple[str, Key], Explained]:
    """What every domain of every collector lacks, explained; records a datagram as they were lately."""
    intake, state = tables.intake, tables.exporter_state
    keys = (intake.c.exporter, intake.c.domain, intake.c.export_protocol)
    fullness = {
        (bytes(row.exporter), row.domain, row.export_protocol): row
        for row in connection.execute(
            sa.select(*keys, sa.func.sum(intake.c.measured).label("measured"), sa.func.sum(intake.c.records).label("records"),
                      sa.func.min(sa.case((intake.c.measured > 0, intake.c.records_min))).label("least"),
                      sa.func.max(intake.c.records_max).label("most"))
            .where(intake.c.slot >= since).group_by(*keys))
    }
    by_collector: dict[str, list[tuple[Key, Missing]]] = defaultdict(list)
    for row in connection.execute(sa.select(state).order_by(state.c.exporter, state.c.domain, state.c.export_protocol)):
        key = (bytes(row.exporter), row.domain, row.export_protocol)
        full = fullness.get(key)
        seen = (int(full.measured), int(full.records), int(full.least or 0), int(full.most or 0)) if full else (0, 0, 0, 0)
        by_collector[row.collector].append((key, Missing(max(0, row.missing), key[2] in RECORD_PROTOCOLS, *seen)))
    found = {}
    for collector, domains in by_collector.items():
        explained, _ = explain([missing for _, missing in domains], counters.figures(home, collector).kernel_drops)
        found.update({(collector, key): each for (key, _), each in zip(domains, explained, strict=True)})
    return found


def _added(parts: Sequence[Estimate]) -> dict[str, int]:
    return {name: sum(getattr(part, name) for part in parts) for name in ("least", "likely", "most")}


# domains --------------------------------------------------------------------------------------------------------------
def _domains(home: Home, connection: sa.Connection, address: bytes, domain: int | None, states: Sequence[Any],
             explained: dict[tuple[str, Key], Explained], since: int) -> list[dict[str, Any]]:
    names = element_names(home)
    rates, templates, samplers = _rates(connection, address, since), _templates(connection, address, names), _samplers(
        connection, address)
    skews, longest = _skews(connection, address, since), _longest(connection, address, since)
    by_key: dict[Key, list[Any]] = defaultdict(list)
    for row in states:
        by_key[address, row.domain, row.export_protocol].append(row)
    return [_domain(key, rows, [explained[row.collector, key] for row in rows]) | {
        "longest_flow_ms": longest.get(key, (None, None))[0], "clock_moved": longest.get(key, (None, None))[1],
        "skew_ms": skews.get(key), "rates": rates.get(key, []), "samplers": samplers.get(key, []),
        "templates": templates.get(key, [])} for key, rows in by_key.items()]


def _domain(key: Key, rows: Sequence[Any], explained: Sequence[Explained]) -> dict[str, Any]:
    """Counts of all collectors together."""
    sums = {name: sum(int(getattr(row, name)) for row in rows) for name in (
        "received", "missing", "duplicate", "reordered", "restarts", "faulted", "waiting")}
    reports = {name: sum(int(row._mapping[name] or 0) for row in rows) for name in REPORTS if name in tables.exporter_state.c}
    return {
        "domain": key[1], "protocol": EXPORT_PROTOCOL_NAMES.get(key[2], "unknown"),
        "first": format_instant(min(row.first for row in rows)), "last": format_instant(max(row.last for row in rows)), **sums,
        "missing_unit": unit_of(key[2]),
        "missing_kernel": sum(each.kernel for each in explained), "missing_network": sum(each.network for each in explained),
        "missing_kernel_bounds": _added([each.kernel_bounds for each in explained]),
        "missing_datagrams": _added([each.datagrams for each in explained]),
        "missing_records": _added([each.records for each in explained]), "reports": reports or None,
    }


def _longest(connection: sa.Connection, address: bytes, since: int) -> dict[Key, tuple[int, int]]:
    """Of the last day: the longest flow, and how many flows had their times moved."""
    reading, segment = tables.exporter_reading, tables.segment
    query = (sa.select(reading.c.domain, reading.c.export_protocol, sa.func.max(reading.c.longest_flow),
                       sa.func.sum(reading.c.clock_moved))
             .join(segment, segment.c.id == reading.c.segment_id)
             .where(reading.c.exporter == address, segment.c.received_last >= since)
             .group_by(reading.c.domain, reading.c.export_protocol))
    return {(address, row[0], row[1]): (int(row[2]), int(row[3])) for row in connection.execute(query)}


def _skews(connection: sa.Connection, address: bytes, since: int) -> dict[Key, dict[str, int]]:
    """Arrival less export time. v9 and IPFIX give whole seconds, so up to 1,000 ms of it are rounding."""
    intake = tables.intake
    query = (sa.select(intake.c.domain, intake.c.export_protocol, intake.c.skew_min, intake.c.skew_max, intake.c.skew_last)
             .where(intake.c.exporter == address, intake.c.slot >= since, intake.c.clocked > 0)
             .order_by(intake.c.slot.desc(), intake.c.id.desc()).limit(SKEW_ROWS_MAX))
    rows: dict[Key, list[Any]] = defaultdict(list)
    for row in connection.execute(query):
        rows[address, row.domain, row.export_protocol].append(row)
    return {key: {"min": min(row.skew_min for row in found), "median": median_low([row.skew_last for row in found]),
                  "max": max(row.skew_max for row in found), "last": found[0].skew_last} for key, found in rows.items()}


def _rates(connection: sa.Connection, address: bytes, since: int) -> dict[Key, list[dict[str, Any]]]:
    reading, segment = tables.rate_reading, tables.segment
    names = ("domain", "export_protocol", "rate_numerator", "rate_denominator", "rate_source")
    keys = tuple(reading.c[name] for name in names)
    query = (sa.select(*keys, sa.func.sum(reading.c.flows).label("flows"))
             .join(segment, segment.c.id == reading.c.segment_id)
             .where(reading.c.exporter == address, segment.c.received_last >= since).group_by(*keys).order_by(*keys))
    found: dict[Key, list[dict[str, Any]]] = defaultdict(list)
    for row in connection.execute(query):
        found[address, row.domain, row.export_protocol].append({
            "numerator": row.rate_numerator, "denominator": row.rate_denominator,
            "source": RateSource(row.rate_source).name.lower(), "flows": int(row.flows)})
    return found


def _templates(connection: sa.Connection, address: bytes, names: Names) -> dict[Key, list[dict[str, Any]]]:
    table = tables.exporter_template
    query = sa.select(table).where(table.c.exporter == address).order_by(table.c.domain, table.c.template, table.c.defined)
    found: dict[Key, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in connection.execute(query):  # of several collectors the newest definition is shown
        fields = [{"name": name_of(names, enterprise, element), "enterprise": enterprise, "element": element, "octets": octets}
                  for enterprise, element, octets in json.loads(row.fields)]
        for field in fields[: row.scope]:
            field["scope"] = True
            if row.export_protocol == V9:  # scopes have numbers of their own there
                field["name"] = V9_SCOPES.get(field["element"], f"scope {field['element']}")
        found[address, row.domain, row.export_protocol][row.template] = {
            "template": row.template, "kind": "options" if row.options else "data", "defined": format_instant(row.defined),
            "fields": fields}
    return {key: list(rows.values()) for key, rows in found.items()}


def _samplers(connection: sa.Connection, address: bytes) -> dict[Key, list[dict[str, Any]]]:
    table = tables.exporter_sampler
    query = sa.select(table).where(table.c.exporter == address).order_by(table.c.domain, table.c.kind, table.c.sampler)
    found: dict[Key, dict[tuple[str, int], dict[str, Any]]] = defaultdict(dict)
    for row in connection.execute(query):
        found[address, row.domain, row.export_protocol][row.kind, row.sampler] = {
            "kind": row.kind, "id": row.sampler % 2**64 if row.kind != "domain" else None,
            "numerator": row.rate_numerator, "denominator": row.rate_denominator}
    return {key: list(rows.values()) for key, rows in found.items()}


def _faults(connection: sa.Connection, address: bytes, domain: int | None) -> Iterator[dict[str, Any]]:
    table = tables.fault
    query = sa.select(table.c.kind, sa.func.sum(table.c.count).label("total")).where(table.c.exporter == address)
    if domain is not None:
        query = query.where(table.c.domain == domain)
    for row in connection.execute(query.group_by(table.c.kind).order_by(table.c.kind)):
        meaning, what_to_do = advice(row.kind)
        yield {"kind": row.kind, "count": int(row.total), "meaning": meaning, "advice": what_to_do}


def _interfaces(home: Home, connection: sa.Connection, address: bytes, start: int, end: int) -> Iterator[dict[str, Any]]:
    """Flows against counters over the last day."""
    flows = completeness.FlowSums(connection, start, end, address)
    found = completeness.read_counters(connection, start, end, address)
    for line in completeness.lines(flows, found, (start, end), thresholds.from_document(home.document)):
        if line.all_flows.flows or line.counter_octets:
            yield {"interface": line.interface, "way": line.way, "flow_octets": line.flows.octets,
                   "counter_octets": line.counter_octets,
                   "percent": None if line.counter_octets is None else percent_text(line.flows.octets, line.counter_octets, 2),
                   "verdict": line.verdict, "longest_flow_ms": line.longest_flow}
