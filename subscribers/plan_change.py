"""`subscribers change-plan`: a service under another plan from a day on. The row that holds ends there, a new one begins.

Where the present plan lists [[plan.change]], only the plans that it names may follow, each when it says: `now` (today or any
later day) or `period_end` (the first of a month only). A change is refused where a later row of the service exists already.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa

from core import clock, periods, tables
from core.actor import Actor
from core.errors import NotFound, RatemillError
from security import audit
from storage import sql
from subscribers import contracts
from subscribers.contracts import Subscription


def change(engine: sa.Engine, service: str, plan: str, when: str, actor: Actor, dry_run: bool = False) -> dict[str, Any]:
    """Change a service's plan; `when` is `now`, `period-end` or a date. Returns what was and what is. Raises NotFound and
    RatemillError, changing nothing."""
    with sql.reading(engine) if dry_run else sql.transaction(engine) as connection:
        rows = [row for (name, _), row in contracts.stored(connection).items() if name == service]
        if not rows:
            raise NotFound(f"there is no service '{service}'", "`ratemill subscribers list` shows all of them")
        rows.sort(key=lambda row: row.start_ms)
        today = periods.local_date(clock.now_ms(), rows[-1].timezone)
        day = _day(when, today)
        held = _held(rows, service, day)
        _check_plan(connection, held, plan, day)
        at = periods.local_day_start(day, held.timezone)
        before = replace(held, end_date=day.isoformat(), end_ms=at)
        after = replace(held, plan=plan, start_date=day.isoformat(), start_ms=at)
        if not dry_run:
            contracts.write(connection, [after], [(held, before)], actor)
            audit.record(connection, actor, "subscription.change-plan", service, {"plan": held.plan}, {
                "plan": plan, "from": day.isoformat()})
    return {"service": service, "from": day.isoformat(), "before": held.plan or None, "after": plan,
            "end": after.end_date or None}


def _day(when: str, today: date) -> date:
    if when == "now":
        return today
    if when == "period-end":
        return periods.add_months(today.replace(day=1), 1)
    try:
        return date.fromisoformat(when)
    except ValueError:
        raise RatemillError(f"'{when}' is neither now, nor period-end, nor a date", "write a date as 2026-10-01") from None


def _held(rows: Sequence[Subscription], service: str, day: date) -> Subscription:
    """The row that holds on the day, and after which none begins."""
    text = day.isoformat()
    held = [row for row in rows if row.start_date < text and (row.end_date == "" or row.end_date > text)]
    later = [row for row in rows if row.start_date >= text]
    if later:
        raise RatemillError(f"{service} has a row from {later[0].start_date} on already, under '{later[0].plan or 'no plan'}'",
                            "change its rows together with `ratemill subscribers import`")
    if not held:
        last = max((row.end_date for row in rows), default="")
        raise RatemillError(f"{service} is under no plan on {(day - timedelta(days=1)).isoformat()}: it ended on {last}",
                            "begin a new row with `ratemill subscribers import`")
    return held[-1]


def _check_plan(connection: sa.Connection, held: Subscription, plan: str, day: date) -> None:
    version = tables.plan_version
    known = list(connection.execute(sa.select(version).order_by(version.c.name, version.c.valid_from)))
    wanted = [row for row in known if row.name == plan]
    if not wanted:
        import difflib

        near = difflib.get_close_matches(plan, sorted({row.name for row in known}), 1)
        raise NotFound(f"there is no plan '{plan}'",
                       f"did you mean '{near[0]}'?" if near else "`ratemill plans list` shows all")
    if plan == held.plan:
        raise RatemillError(f"{held.service} is under '{plan}' already", "name another plan")
    if wanted[-1].addon:
        raise RatemillError(f"'{plan}' is an add-on", f"give it with `ratemill addons add {held.service} {plan} --from …`")
    if all(row.currency != held.currency for row in wanted):
        raise RatemillError(f"'{plan}' is priced in {wanted[-1].currency}, the service in {held.currency}",
                            "name a plan in the service's currency")
    present = [row for row in known if row.name == held.plan and row.valid_from <= (held.start_date or row.valid_from)] \
        or [row for row in known if row.name == held.plan][:1]
    ways = json.loads(present[-1].document).get("change", []) if present else []
    way = next((one for one in ways if one["to"] == plan), None)
    if ways and way is None:
        raise RatemillError(f"'{held.plan}' may not be changed to '{plan}'",
                            f"it may be changed to {', '.join(sorted(one['to'] for one in ways))}")
    if way is not None and way["when"] == "period_end" and day.day != 1:
        raise RatemillError(f"'{held.plan}' may be changed to '{plan}' at the end of a month only, not on {day}",
                            "write --on period-end, or the first of a month")
