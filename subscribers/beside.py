"""What lies beside a service's own plan: add-ons with a quantity, and pauses in which the service rests.

addons.csv `service,plan,quantity,start,end` and pauses.csv `service,kind,start,end` are imported whole or not at all; a
row's key is (service, plan, start) or (service, start), so the same row again is unchanged and another value under the same
key a change. Dates are local, the end exclusive, an empty end is open.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from core import tables
from core.actor import Actor
from core.errors import ImportRefused, NotFound, UsageError
from security import audit
from storage import sql
from subscribers.csv_file import Problems, Row, read

KINDS = ("suspension", "vacation")
QUANTITY_MAX = 10_000
Values = dict[str, Any]


@dataclass(frozen=True)
class Sort:
    """One of the two: its table, the columns of its file, and what makes a row this row."""

    noun: str
    table: sa.Table
    columns: tuple[str, ...]
    key: tuple[str, ...]


ADDONS = Sort("addon", tables.addon, ("service", "plan", "quantity", "start", "end"), ("service", "plan", "start"))
PAUSES = Sort("pause", tables.pause, ("service", "kind", "start", "end"), ("service", "start"))


def import_file(engine: sa.Engine, sort: Sort, path: Path, actor: Actor, dry_run: bool = False) -> dict[str, int]:
    """Import a file; returns {added, changed, unchanged} in rows. Raises ImportRefused with every problem."""
    problems = Problems(str(path))
    return _store(engine, sort, [(row.line, row) for row in read(path, sort.columns, problems)], problems, actor, dry_run)


def add(engine: sa.Engine, sort: Sort, values: dict[str, str], actor: Actor, dry_run: bool = False) -> dict[str, int]:
    """One row, given as the file would write it. Raises UsageError with all that is wrong with it."""
    problems = Problems("")
    try:
        return _store(engine, sort, [(0, Row(0, values))], problems, actor, dry_run)
    except ImportRefused as refused:
        raise UsageError("; ".join(problem.problem for problem in refused.problems),
                         "; ".join(problem.hint for problem in refused.problems if problem.hint)) from None


def end(engine: sa.Engine, sort: Sort, service: str, day: date, actor: Actor, plan: str = "") -> dict[str, Any]:
    """Let the row that holds on `day` end there (the first day that no longer counts). Raises NotFound."""
    with sql.transaction(engine) as connection:
        text = day.isoformat()
        held = [row for row in rows(connection, sort) if row["service"] == service and (not plan or row.get("plan") == plan)
                and row["start"] < text and (row["end"] == "" or row["end"] > text)]
        if not held:
            raise NotFound(f"{service} has no {sort.noun}{f' {plan!r}' if plan else ''} that holds on {text}",
                           f"`ratemill {sort.noun}s list --service {service}` shows what it has")
        before = held[0]
        connection.execute(sort.table.update().where(sort.table.c.id == before["id"]).values(end_date=text))
        after = {**before, "end": text}
        audit.record(connection, actor, f"{sort.noun}.end", service, _shown(before), _shown(after))
    return _shown(after)


def rows(connection: sa.Connection, sort: Sort, service: str = "") -> list[Values]:
    """What is stored, by service and start."""
    query = sa.select(sort.table, tables.service.c.service).join(tables.service)
    if service:
        query = query.where(tables.service.c.service == service)
    found = []
    for row in connection.execute(query.order_by(tables.service.c.service, sort.table.c.start_date, sort.table.c.id)):
        values = dict(row._mapping)
        start, finish = values.pop("start_date"), values.pop("end_date")
        found.append({**values, "start": start, "end": finish})
    return found


def _shown(row: Values) -> Values:
    return {name: value for name, value in row.items() if name not in ("id", "service_id")}


def _store(engine: sa.Engine, sort: Sort, found: list[tuple[int, Row]], problems: Problems, actor: Actor, dry_run: bool
           ) -> dict[str, int]:
    with sql.reading(engine) if dry_run else sql.transaction(engine) as connection:
        check = _addon_check(connection, problems) if sort is ADDONS else _pause_check(problems)
        services = {row.service: row.id for row in connection.execute(sa.select(tables.service))}
        parsed: dict[tuple[str, ...], tuple[int, Values]] = {}
        for line, row in found:
            values = _parse(row, services, check, problems)
            if values is None:
                continue
            key = tuple(str(values[name]) for name in sort.key)
            if key in parsed:
                problems.add(line, "start", f"the same {sort.noun} is in line {parsed[key][0]} too", "write it once")
            parsed[key] = (line, values)
        stored = {tuple(str(row[name]) for name in sort.key): row for row in rows(connection, sort)}
        _check_overlaps(sort, parsed, stored, problems)
        problems.refuse_if_any()
        added = [values for key, (_, values) in parsed.items() if key not in stored]
        changed = [(stored[key], values) for key, (_, values) in parsed.items()
                   if key in stored and _shown(stored[key]) != values]
        summary = {"added": len(added), "changed": len(changed), "unchanged": len(parsed) - len(added) - len(changed)}
        if not dry_run and (added or changed):
            if added:
                connection.execute(sort.table.insert(), [_columns(values, services) for values in added])
            for before, values in changed:
                connection.execute(sort.table.update().where(sort.table.c.id == before["id"])
                                   .values(_columns(values, services)))
                audit.record(connection, actor, f"{sort.noun}.change", values["service"], _shown(before), values)
            for values in added:
                audit.record(connection, actor, f"{sort.noun}.add", values["service"], None, values)
    return summary


def _columns(values: Values, services: dict[str, int]) -> Values:
    rest = {name: value for name, value in values.items() if name not in ("service", "start", "end")}
    return {"service_id": services[values["service"]], "start_date": values["start"], "end_date": values["end"], **rest}


Check = Callable[[Row], Values | None]


def _parse(row: Row, services: dict[str, int], check: Check, problems: Problems) -> Values | None:
    before = len(problems.found)
    service = row.values["service"]
    if service not in services:
        near = difflib.get_close_matches(service, list(services), 1)
        problems.add(row.line, "service", f"unknown service '{service}'" + (f", did you mean '{near[0]}'?" if near else ""),
                     "import it first with `ratemill subscribers import`")
    start = problems.value(row, "start", _day)
    finish = problems.value(row, "end", lambda text: text if text == "" else _day(text), "an empty end means open")
    if start is not None and finish and finish <= start:
        problems.add(row.line, "end", f"end {finish} is not after start {start}", "end is the first day that no longer counts")
    own = check(row)
    if len(problems.found) > before or own is None:
        return None
    return {"service": service, **own, "start": start, "end": finish}


def _day(text: str) -> str:
    try:
        if len(text) != 10:
            raise ValueError
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError(f"'{text}' is not a date such as 2026-10-01") from None


def _addon_check(connection: sa.Connection, problems: Problems) -> Check:
    version, subscription, service = tables.plan_version, tables.subscription, tables.service
    currency = {row.name: row.currency for row in connection.execute(
        sa.select(version.c.name, version.c.currency).where(version.c.addon == 1))}
    own = {row.service: row.currency for row in connection.execute(
        sa.select(service.c.service, subscription.c.currency).join(subscription).order_by(subscription.c.start_date))}

    def check(row: Row) -> Values | None:
        name = row.values["plan"]
        if name not in currency:
            near = difflib.get_close_matches(name, list(currency), 1)
            problems.add(row.line, "plan", f"there is no add-on '{name}'" + (f", did you mean '{near[0]}'?" if near else ""),
                         "apply a plan with addon = true first, with `ratemill plans apply`")
        elif own.get(row.values["service"], currency[name]) != currency[name]:
            problems.add(row.line, "plan", f"add-on '{name}' is priced in {currency[name]}, the service in "
                         f"{own[row.values['service']]}", "an add-on has the currency of its service")
        quantity = problems.value(row, "quantity", _quantity)
        return None if quantity is None else {"plan": name, "quantity": quantity}

    return check


def _quantity(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= QUANTITY_MAX):
        raise ValueError(f"'{text}' is not a whole number from 1 to {QUANTITY_MAX}")
    return int(text)


def _pause_check(problems: Problems) -> Check:
    def check(row: Row) -> Values | None:
        kind = row.values["kind"]
        if kind not in KINDS:
            problems.add(row.line, "kind", f"'{kind}' is neither {' nor '.join(KINDS)}")
            return None
        return {"kind": kind}

    return check


def _check_overlaps(sort: Sort, parsed: dict[tuple[str, ...], tuple[int, Values]], stored: dict[tuple[str, ...], Values],
                    problems: Problems) -> None:
    """Pauses of a service, and the times of one add-on, do not overlap: two of an add-on are its quantity."""
    for successive in _successive(sort, parsed, stored):
        for (line_one, one), (line_two, two) in pairwise(successive):
            if one["end"] == "" or two["start"] < one["end"]:
                problems.add(max(line_one, line_two), "start", f"the {sort.noun} of '{two['service']}' from {two['start']} "
                             f"overlaps the one from {one['start']} to {one['end'] or 'open'}",
                             "let the earlier one end first" + ("" if sort is PAUSES else ", or raise its quantity"))


def _successive(sort: Sort, parsed: dict[tuple[str, ...], tuple[int, Values]], stored: dict[tuple[str, ...], Values]
                ) -> Iterator[Iterable[tuple[int, Values]]]:
    of: dict[tuple[str, ...], list[tuple[int, Values]]] = {}
    touched = {key[:-1] for key in parsed}
    for key, pair in [*((key, (0, row)) for key, row in stored.items() if key not in parsed), *parsed.items()]:
        if key[:-1] in touched:
            of.setdefault(key[:-1], []).append(pair)
    for pairs in of.values():
        yield sorted(pairs, key=lambda pair: str(pair[1]["start"]))
