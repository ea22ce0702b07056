"""`rate decide PERIOD`: who reached the volume of a [[plan.fair_use]] → rows of `decision`, each once.

A decision is a row and nothing else: notifying, slowing down and blocking are done by those who read it, and undone by them
at `undone_ms`, the end of the local month. What was decided stays decided, whatever later data say, and is an input of every
later rating: a package that was bought is an add-on of its month from then on.

Usage counts by hour, in the order of time; sampled octets only where the line allows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from core import clock, periods, tables
from core.actor import Actor
from rating import inputs
from rating.engine import Subscription
from rating.plans import FairUse, Plan
from runtime import jobs
from security import audit
from storage import generations, sql
from storage.home import Home

if TYPE_CHECKING:
    import duckdb

COLUMNS = ("period", "service", "plan", "plan_version", "line", "number", "action", "detail", "threshold", "octets", "reached",
           "undone", "at")
Row = dict[str, Any]


def decide(home: Home, period: str, actor: Actor, dry_run: bool = False) -> dict[str, Any]:
    """Take what decisions the published usage of a period asks for; returns how many by action, and how many stood before."""
    bound = sql.engine(home)
    with nullcontext() if dry_run else jobs.hold(bound, "decide"):
        with sql.reading(bound) as connection:
            terms = inputs.load_terms(connection, home.document, period)
            generation = generations.latest(connection)
            taken = {(row.subscription_id, row.line, row.number) for row in of_period(connection, period)}
        summary: dict[str, Any] = {"period": period, "standing": len(taken), "taken": {}}
        asked = list(_asked(terms))
        if generation is None or not asked:
            return summary
        with closing(inputs.open_generation(home, generation)) as usage:
            new = [row for plan, line, subscriptions in asked
                   for row in _reached(usage, period, terms, plan, line, subscriptions)
                   if (row["subscription_id"], row["line"], row["number"]) not in taken]
        now = clock.now_ms()
        for row in new:
            row.update(at=now, generation=generation.path)
            summary["taken"][row["action"]] = summary["taken"].get(row["action"], 0) + 1
        if new and not dry_run:
            with sql.transaction(bound) as connection:
                connection.execute(tables.decision.insert(), new)
                audit.record(connection, actor, "rate decide", period, None, {**summary, "generation": generation.path})
    return summary


def _asked(terms: inputs.Terms) -> Iterator[tuple[Plan, FairUse, list[Subscription]]]:
    """Each line with the subscriptions that are under it."""
    under: dict[tuple[str, str], tuple[Plan, list[Subscription]]] = {}
    for row in terms.subscriptions:
        plan = terms.catalogue.in_force(row.plan, row.start)
        if plan is not None and plan.fair_use and not row.is_addon:
            under.setdefault((plan.name, plan.version), (plan, []))[1].append(row)
    for plan, subscriptions in under.values():
        for line in plan.fair_use:
            yield plan, line, subscriptions


def _reached(usage: duckdb.DuckDBPyConnection, period: str, terms: inputs.Terms, plan: Plan, line: FairUse,
             subscriptions: Iterable[Subscription]) -> Iterator[Row]:
    by_id = {row.id: row for row in subscriptions}
    conditions, values = ["period = ?", "subscription_id IN (SELECT unnest(CAST(? AS BIGINT[])))"], [period, list(by_id)]
    for column, wanted in (("zone", line.zones), ("class", line.classes)):
        if wanted:
            conditions.append(f"{column} IN (SELECT unnest(CAST(? AS VARCHAR[])))")
            values.append(list(wanted))
    if line.direction != "both":
        conditions.append("direction = ?")
        values.append(line.direction)
    if line.sampled == "refuse":
        conditions.append("NOT sampled")
    where = " AND ".join(conditions)
    volume = _package_volume(terms, line)
    for number in range(1, line.times_max + 1):
        threshold = line.threshold + (number - 1) * volume
        found = usage.execute(
            "SELECT subscription_id, epoch_ms(hour), CAST(total AS BIGINT) FROM (SELECT subscription_id, hour, "
            "sum(sum(octets)) OVER (PARTITION BY subscription_id ORDER BY hour) AS total "
            f"FROM usage WHERE {where} GROUP BY subscription_id, hour) "
            "WHERE total >= ? QUALIFY row_number() OVER (PARTITION BY subscription_id ORDER BY hour) = 1 ORDER BY 1",
            [*values, threshold]).fetchall()
        if not found:
            return
        for subscription_id, hour, octets in found:
            row = by_id[subscription_id]
            yield {"period": period, "service_id": terms.service_ids[row.id], "subscription_id": row.id, "plan": plan.name,
                   "plan_version": plan.version, "line": line.name, "number": number, "action": line.action,
                   "detail": line.speed or line.package, "threshold": threshold, "octets": octets, "reached_ms": hour,
                   "undone_ms": periods.period_bounds(period, row.timezone)[1]}


def _package_volume(terms: inputs.Terms, line: FairUse) -> int:
    """What one more package lets through before the next one is bought."""
    if line.action != "buy":
        return 0
    package = terms.catalogue.in_force(line.package, None)
    volume = sum(quota.volume for quota in package.quotas) if package is not None else 0
    return max(volume, 1)


def of_period(connection: sa.Connection, period: str = "", service: str = "") -> list[sa.Row[Any]]:
    """Decisions as they stand, in the order in which they were taken."""
    table, names = tables.decision, tables.service
    query = sa.select(table, names.c.service).join(names).order_by(table.c.id)
    if period:
        query = query.where(table.c.period == period)
    if service:
        query = query.where(names.c.service == service)
    return list(connection.execute(query))


def rows(home: Home, period: str, service: str) -> list[Row]:
    """The same for people."""
    with sql.reading(sql.engine(home)) as connection:
        found = of_period(connection, period, service)
    return [{**row._mapping, "reached": periods.format_instant(row.reached_ms), "undone": periods.format_instant(row.undone_ms),
             "at": periods.format_instant(row.at)} for row in found]
