"""`invoice explain`: from a line down to the plan version, the charge, zone-hours, cells, flow segments and exporters.

Reads what was booked, the rate run that the invoice pins and, through `invoicing.lineage`, what lies below. A fee
depends on no usage, so its rows end at the plan.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from core import tables
from core.addresses import format_address
from core.errors import NotFound
from core.money import format_minor
from core.periods import format_instant
from core.schemas import EXPORT_PROTOCOL_NAMES
from invoicing import charges, lineage, register, usage
from invoicing.charges import RateRun
from storage import sql
from storage.home import Home

COLUMNS = ("level", "name", "detail", "octets", "from", "to")

Row = dict[str, Any]


def explain(home: Home, number: str, line: int) -> Iterator[Row]:
    """Rows from the line down. Raises NotFound for an unknown invoice or line."""
    with sql.reading(sql.engine(home)) as connection:
        invoice = register.find(connection, number)
        content = invoice.content()
        lines = {found["line"]: found for found in content["lines"]}
        if line not in lines:
            raise NotFound(f"{number} has no line {line}", f"it has the lines 1 to {len(lines)}")
        wanted = lines[line]
        pinned = {run["period"]: run["rate_run"] for run in content["made_of"]["rate_runs"]}
        run = charges.run_by_id(connection, pinned[wanted["period"]])
        yield _line(number, content["currency"], wanted)
        yield from _booked(connection, invoice.id, wanted, content["currency"])
        yield from _charge(home, run, wanted)
        terms = _terms(connection, wanted)
        yield from _plan(connection, wanted, terms)
        if wanted["kind"] in ("traffic", "percentile", "quota"):
            yield from _traffic(home, connection, run, wanted, terms)


def _row(level: str, name: str, detail: str, octets: int | None = None, start: str = "", end: str = "") -> Row:
    return {"level": level, "name": name, "detail": detail, "octets": octets, "from": start or None, "to": end or None}


def _line(number: str, currency: str, line: Mapping[str, Any]) -> Row:
    net = format_minor(line["net_minor"], currency)
    detail = f"{line['description']}: {line['quantity']} {line['unit']} at {line['unit_price']}, net {net} {currency}"
    if line["nature"] == "correction":
        detail += f" = the charge as it was rated - what was booked before (quantity {line['quantity_before']})"
    elif line["nature"] == "cancellation":
        detail += f": the charge is no more, what was booked of it is taken back (quantity {line['quantity_before']})"
    return _row("line", f"{number}/{line['line']}", detail, None, line["start"], line["end"])


def _booked(connection: sa.Connection, invoice_id: int, line: Mapping[str, Any], currency: str) -> Iterator[Row]:
    """The lines by which the same charge was booked before."""
    i, booked = tables.invoice.c, tables.invoice_line.c
    same = {
        "period": "period", "service": "service", "plan": "plan", "plan_version": "plan_version", "start_date": "start",
        "end_date": "end", "charge_line": "charge_line", "kind": "kind", "unit": "unit", "unit_price": "unit_price",
    }  # fmt: skip
    query = sa.select(i.number, booked.line, booked.quantity, booked.unit, booked.net_minor).join_from(
        tables.invoice, tables.invoice_line
    )
    query = query.where(
        booked.invoice_id < invoice_id, *(booked[column] == line[name] for column, name in same.items())
    )
    for row in connection.execute(query.order_by(booked.invoice_id, booked.line)):
        net = format_minor(row.net_minor, currency)
        yield _row("booked before", f"{row.number}/{row.line}", f"{row.quantity} {row.unit}, net {net} {currency}")


def _charge(home: Home, run: RateRun, line: Mapping[str, Any]) -> Iterator[Row]:
    detail = f"rate run {run.id} of {run.period}, engine {run.engine_version}, manifest version {run.manifest_version}"
    yield _row("rate run", run.path, f"{detail}, rated {format_instant(run.at)}, digest {run.digest}")
    for row in charges.of_services(home, run, [line["service"]]):
        names = ("service", "plan", "plan_version", "kind", "zone", "class", "direction", "unit", "unit_price")
        same = all((row[name] or None) == line[name] for name in names) and row["line"] == line["charge_line"]
        if same and (row["start"].isoformat(), row["end"].isoformat()) == (line["start"], line["end"]):
            net = format_minor(row["net_minor"], row["currency"])
            detail = f"{row['quantity']} {row['unit']} at {row['unit_price']}, net {net} {row['currency']}"
            yield _row("charge", row["line"], detail, None, line["start"], line["end"])


def _plan(connection: sa.Connection, line: Mapping[str, Any], terms: Mapping[str, Any]) -> Iterator[Row]:
    row = _plan_version(connection, line)
    detail = f"tax {row.tax}, prices {row.prices}, calendar {row.calendar or 'none'}, digest {row.digest}"
    yield _row("plan version", f"{row.name} from {row.valid_from}", detail)
    if terms:
        said = ", ".join(f"{key} = {value}" for key, value in terms.items() if key != "name")
        yield _row("plan line", line["charge_line"], said)


def _terms(connection: sa.Connection, line: Mapping[str, Any]) -> Mapping[str, Any]:
    """The line of the plan as it was applied."""
    parts = json.loads(_plan_version(connection, line).document).get(line["kind"], [])
    return next((dict(part) for part in parts if part.get("name") == line["charge_line"]), {})


def _plan_version(connection: sa.Connection, line: Mapping[str, Any]) -> sa.Row[Any]:
    plan = tables.plan_version.c
    query = sa.select(tables.plan_version).where(plan.name == line["plan"], plan.valid_from == line["plan_version"])
    return connection.execute(query).one()


def _traffic(
    home: Home, connection: sa.Connection, run: RateRun, line: Mapping[str, Any], terms: Mapping[str, Any]
) -> Iterator[Row]:
    service = lineage.service_id(connection, line["service"])
    start, end = lineage.bounds(home, connection, line["service"], line["start"], line["end"])
    yield from _hours(home, run, terms, service, start, end)
    found = [*lineage.parts(home, lineage.cell_files(home, connection, run, start, end), service, start, end)]
    for part in found:
        detail = f"batch {part.file.batch_id}, {part.cells} cells, digest {part.file.digest}"
        yield _row("cells", part.file.path, detail, part.octets)
    segment_ids = []
    for segment in lineage.segments(connection, run, [part.file for part in found], start, end):
        segment_ids.append(segment.id)
        detail = f"{segment.flows} flows of all subscribers, collector {segment.collector}, digest {segment.digest}"
        first, last = format_instant(segment.start_first), format_instant(segment.end_last)
        yield _row("segment", segment.path, detail, segment.octets, first, last)
    for exporter in lineage.exporters(connection, segment_ids):
        protocol = EXPORT_PROTOCOL_NAMES.get(exporter.export_protocol, str(exporter.export_protocol))
        detail = f"{protocol}, domain {exporter.domain}, {exporter.datagrams} datagrams, {exporter.flows} flow records"
        yield _row("exporter", format_address(exporter.address), detail)


def _hours(home: Home, run: RateRun, terms: Mapping[str, Any], service: int, start: int, end: int) -> Iterator[Row]:
    """Zone-hours of the frozen usage that the plan's line counts; a list that is empty or absent means all."""
    direction = terms.get("direction", "both")
    wanted = {
        "zone": terms.get("zones"),
        "class": terms.get("classes"),
        "direction": direction != "both" and [direction],
    }
    for hour in usage.by_hour(home, run, service, start, end):
        if all(not allowed or hour[name] in allowed for name, allowed in wanted.items()):
            said = [hour["zone"] or "no zone", hour["class"], hour["direction"], f"flows {hour['flows']}"]
            said += ["sampled"] if hour["sampled"] else []
            yield _row("usage", run.usage_path, ", ".join(said), hour["octets"], format_instant(hour["hour"]))
