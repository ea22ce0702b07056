"""What `plans list` and `plans show` print: the stored plan versions, and who is under them."""

from __future__ import annotations

import json
from collections import Counter
from datetime import date
from typing import Any

import sqlalchemy as sa

from core import clock, periods, settings, tables
from core.errors import NotFound
from rating import plans
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
