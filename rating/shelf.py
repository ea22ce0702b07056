"""What the commands on plans print: stored versions and who is under them, and what a file would be."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from core import clock, periods, settings, tables
from core.errors import ImportRefused, NotFound, UsageError
from rating import apply, engine, linter, plan_difference, plans, simulation, stored
from storage import sql
from storage.home import Home


def rows(home: Home) -> list[dict[str, Any]]:
    """One row a plan version, with the number of subscriptions that it is in force for."""
    with sql.reading(sql.engine(home)) as connection:
        table, subscription = tables.plan_version, tables.subscription
        stored = list(connection.execute(sa.select(table).order_by(table.c.name, table.c.valid_from)))
        started = list(connection.execute(sa.select(subscription.c.plan, subscription.c.start_date)
                                          .where(subscription.c.plan.is_not(None))))
    catalogue = plans.Catalogue(plans.parse(json.loads(row.document)) for row in stored)
    count: Counter[tuple[str, str]] = Counter()
    for name, start in started:
        plan = catalogue.in_force(name, date.fromisoformat(start) if start else None)
        if plan is not None:
            count[plan.name, plan.version] += 1
    return [{"name": row.name, "from": row.valid_from, "currency": row.currency, "tax": row.tax, "prices": row.prices,
             "calendar": row.calendar, "lines": _lines(row.document), "subscriptions": count[row.name, row.valid_from]}
            for row in stored]


def _lines(document: str) -> int:
    content = json.loads(document)
    return sum(len(content.get(kind, ())) for kind in plans.LINE_KINDS)


def show(home: Home, name: str, as_of: int | None) -> dict[str, Any]:
    """The document of the version in force at an instant, with its calendar. Raises NotFound, naming what is near."""
    table = tables.plan_version
    with sql.reading(sql.engine(home)) as connection:
        stored = list(connection.execute(sa.select(table).where(table.c.name == name).order_by(table.c.valid_from)))
        names = list(connection.execute(sa.select(table.c.name).distinct()).scalars())
        if not stored:
            raise _unknown(name, names)
        seller = settings.seller(home.document)
        day = periods.local_date(clock.now_ms() if as_of is None else as_of, seller.timezone).isoformat()
        valid = [row for row in stored if row.valid_from <= day]
        if not valid:
            raise NotFound(f"plan '{name}' has no version in force on {day}", f"its first one begins on {stored[0].valid_from}")
        document: dict[str, Any] = json.loads(valid[-1].document)
        calendar = _calendar(connection, document["calendar"], day)
    return {**document, "versions": [row.valid_from for row in stored], "calendar_version": calendar}


def _calendar(connection: sa.Connection, name: str | None, day: str) -> dict[str, Any] | None:
    table = tables.calendar_version
    rows = list(connection.execute(sa.select(table).where(table.c.name == name).order_by(table.c.valid_from)))
    if not rows:
        return None
    valid = [row for row in rows if row.valid_from <= day] or rows[:1]
    document = json.loads(valid[-1].document)
    return {"name": document["name"], "from": document["from"], "holidays": document["holidays"], "zones": document["zones"]}


def _unknown(name: str, names: list[str]) -> NotFound:
    import difflib

    near = difflib.get_close_matches(name, names, 1)
    return NotFound(f"there is no plan '{name}'", f"did you mean '{near[0]}'?" if near else "`ratemill plans list` shows all")


def lint(home: Home, path: Path) -> dict[str, Any]:
    """Judge a file; returns {calendars, plans, examples, notes}. Raises ImportRefused with every problem."""
    with sql.reading(sql.engine(home)) as connection:
        surroundings = apply.surroundings_of(home, connection)
    linted = apply.read(home, path, surroundings)
    zones = {**surroundings.calendar_zones, **{one["name"]: frozenset(zone["name"] for zone in one["zones"])
                                               for one in linted.calendars}}
    notes = [note for document in linted.plans
             for note in free_traffic(document, zones.get(document["calendar"], frozenset()), surroundings.classes)]
    return {"calendars": len(linted.calendars), "plans": len(linted.plans), "examples": len(linted.examples), "notes": notes}


def free_traffic(document: dict[str, Any], zones: Collection[str], classes: Collection[str]) -> Iterator[str]:
    """Traffic that a plan with lines of traffic charges nowhere, as sentences: it may be meant so, or forgotten."""
    plan = plans.parse(document)
    if not plan.traffic or plan.percentiles:
        return
    for direction in ("down", "up"):
        for class_ in sorted(classes):
            every: list[str | None] = [*sorted(zones)] or [None]
            free = [zone for zone in every
                    if not any(line.matches(zone, class_, direction) for line in plan.traffic)]
            if free:
                where = "" if len(free) == len(every) else f" in {', '.join(map(str, free))}"
                yield f"'{plan.name}' from {plan.version}: {direction} traffic of class '{class_}'{where} costs nothing"


def test(home: Home, path: Path) -> list[simulation.Outcome]:
    """What the examples of a file come to. Raises ImportRefused for a file that is wrong otherwise."""
    with sql.reading(sql.engine(home)) as connection:
        linted = linter.read(path, apply.surroundings_of(home, connection))
    if linted.problems:
        raise ImportRefused(linted.problems)
    return list(simulation.run_examples(linted, settings.tax_rates(home.document)))


def difference(home: Home, path: Path) -> list[dict[str, Any]]:
    """The plans of a file against what is stored: the same version, or the one that it would follow."""
    with sql.reading(sql.engine(home)) as connection:
        linted = apply.read(home, path, apply.surroundings_of(home, connection))
        known = {(one["name"], one["from"]): one for one in stored.load_plan_documents(connection)}
    under = {(row["name"], row["from"]): row["subscriptions"] for row in rows(home)}
    found = []
    for document in linted.plans:
        earlier = max((key for key in known if key[0] == document["name"] and key[1] <= document["from"]), default=None)
        against = {} if earlier is None else known[earlier]
        for where, before, after in plan_difference.differences(against, document):
            found.append({"plan": document["name"], "from": document["from"], "against": earlier[1] if earlier else None,
                          "where": where, "before": before, "after": after, "subscriptions": under.get(earlier or ("", ""), 0)})
    return found


def simulate(home: Home, name: str, usage: Sequence[str], period: str, start: date | None, end: date | None
             ) -> list[engine.Charge]:
    """The charges of an imaginary subscription under a stored plan, or the plan of a file with one. Raises UsageError."""
    with sql.reading(sql.engine(home)) as connection:
        if name.endswith(".toml"):
            linted = apply.read(home, Path(name), apply.surroundings_of(home, connection))
            if len(linted.plans) != 1:
                raise UsageError(f"{name} has {len(linted.plans)} plans", "apply it and name one, or leave one in the file")
            document, calendars = linted.plans[0], linted.calendars
        else:
            every = stored.load_plan_documents(connection)
            versions = [one for one in every if one["name"] == name]
            if not versions:
                raise _unknown(name, sorted({one["name"] for one in every}))
            day = (start or periods.period_first_day(period)).isoformat()
            document, calendars = ([one for one in versions if one["from"] <= day] or versions[:1])[-1], []
        zones = {zone.name for version in stored.load_calendars(connection) if version.name == document["calendar"]
                 for zone in version.zones}
    zones |= {zone["name"] for one in calendars if one["name"] == document["calendar"] for zone in one["zones"]}
    try:
        rows = [simulation.parse_usage(text, zones) for text in usage]
    except ValueError as error:
        raise UsageError(str(error), 'write a volume, then direction, zone and class: --usage "120 GB down day"') from None
    return simulation.charges(document, simulation.Case(period, start, end, rows), settings.tax_rates(home.document))
