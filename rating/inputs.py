"""What a period is rated from, gathered: subscriptions and plans from SQL, usage from a published DuckDB generation.

Reads subscription, service, plan_version, segment, consumed, batch, input_change, generation and the generation's file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from core import clock, periods, settings, tables
from core.errors import RatemillError
from rating import quotas
from rating.columns import NOBODY, UsageColumns
from rating.engine import Beside, Pause, Slots, Subscription
from rating.plans import Catalogue
from rating.quotas import Carried
from rating.stored import load_plans
from storage import files, generations
from storage.generations import Generation
from storage.home import Home

if TYPE_CHECKING:
    import duckdb

SHOWN_MAX = 5


@dataclass(frozen=True)
class Terms:
    """Who is under which plan, and what the tax is."""

    subscriptions: Sequence[Subscription]
    service_ids: Mapping[int, int]  # by subscription
    catalogue: Catalogue
    rates: Sequence[settings.TaxRate]

    def percent_on(self) -> Callable[[str, date], Fraction]:
        return lambda category, day: settings.percent_on(self.rates, category, day)


def load_terms(connection: sa.Connection, document: settings.Document, period: str) -> Terms:
    """The subscriptions and add-ons that meet the period, each with the calendar month of its own zone."""
    catalogue = Catalogue(load_plans(connection))
    service_ids: dict[int, int] = {}
    accounts: dict[int, str] = {}
    pauses = _pauses(connection)
    found = _subscriptions(connection, period, service_ids, accounts, pauses)
    found += _addons(connection, period, service_ids, accounts, pauses)
    found = _together(found, _bought(connection, period, service_ids, accounts, {row.id: row for row in found}))
    carried = _carried(connection, period)
    if carried:
        found = [replace(row, carried=tuple(carried.get(row.id, ()))) for row in found]
    return Terms(_beside(connection, found, catalogue, accounts), service_ids, catalogue, settings.tax_rates(document))


def _meets(table: sa.FromClause, period: str) -> sa.ColumnElement[bool]:
    first, last = periods.period_first_day(period).isoformat(), periods.period_end_day(period).isoformat()
    return sa.and_(table.c.start_date < last, sa.or_(table.c.end_date == "", table.c.end_date > first))


Pauses = Mapping[int, tuple[Pause, ...]]
"""By row id of the service."""


def _subscriptions(connection: sa.Connection, period: str, ids: dict[int, int], accounts: dict[int, str], pauses: Pauses
                   ) -> list[Subscription]:
    table, service = tables.subscription, tables.service

    def neighbour(of: sa.Function[Any], name: str) -> sa.Label[Any]:
        return of.over(partition_by=table.c.service_id, order_by=table.c.start_date).label(name)

    neighbours = sa.select(
        *table.c, neighbour(sa.func.lag(table.c.plan), "plan_before"), neighbour(sa.func.lag(table.c.end_date), "end_before"),
        neighbour(sa.func.lead(table.c.start_date), "start_after")).subquery()
    row_of = neighbours.c
    query = sa.select(*neighbours.c, service.c.service, service.c.account).join(service, service.c.id == row_of.service_id)
    found = []
    for row in connection.execute(query.where(_meets(neighbours, period)).order_by(service.c.service, row_of.start_date)):
        ids[row.id], accounts[row.id] = row.service_id, row.account
        found.append(Subscription(
            id=row.id, service=row.service, plan=row.plan, start=_date(row.start_date), end=_date(row.end_date),
            timezone=row.timezone, currency=row.currency, is_first=row.end_before is None,
            previous=row.plan_before if row.end_before == row.start_date and row.start_date else None,
            has_next=bool(row.end_date) and row.start_after == row.end_date, pauses=pauses.get(row.service_id, ())))
    return found


def _pauses(connection: sa.Connection) -> Pauses:
    """All pauses: a fee for a year may hold an earlier or a later one."""
    table = tables.pause
    found: dict[int, list[Pause]] = {}
    for row in connection.execute(sa.select(table).order_by(table.c.service_id, table.c.start_date)):
        pause = Pause(date.fromisoformat(row.start_date), _date(row.end_date) or date.max, row.kind)
        found.setdefault(row.service_id, []).append(pause)
    return {service: tuple(pauses) for service, pauses in found.items()}


def _addons(connection: sa.Connection, period: str, ids: dict[int, int], accounts: dict[int, str], pauses: Pauses
            ) -> list[Subscription]:
    """Add-ons as subscriptions with the negative of their row id, in the time zone and currency of the service's row that
    holds when they begin (or the service's first)."""
    table, service, own = tables.addon, tables.service, tables.subscription
    rows = list(connection.execute(sa.select(table, service.c.service, service.c.account).join(service)
                                   .where(_meets(table, period)).order_by(service.c.service, table.c.start_date, table.c.plan)))
    if not rows:
        return []
    of_service: dict[int, list[sa.Row[Any]]] = {}
    wanted = sa.select(table.c.service_id).where(_meets(table, period))
    for subscription in connection.execute(sa.select(own).where(own.c.service_id.in_(wanted)).order_by(own.c.start_date)):
        of_service.setdefault(subscription.service_id, []).append(subscription)
    found = []
    for row in rows:
        of = of_service[row.service_id]
        holder = next((one for one in reversed(of) if one.start_date <= row.start_date), of[0])
        ids[-row.id], accounts[-row.id] = row.service_id, row.account
        found.append(Subscription(
            id=-row.id, service=row.service, plan=row.plan, start=_date(row.start_date), end=_date(row.end_date),
            timezone=holder.timezone, currency=holder.currency, is_first=True, pauses=pauses.get(row.service_id, ()),
            is_addon=True, quantity=row.quantity))
    return found


def _together(held: list[Subscription], bought: list[Subscription]) -> list[Subscription]:
    """What was bought beside what is held; of one add-on from one day on there is one, so many times more."""
    place = {(row.service, row.plan, row.start): number for number, row in enumerate(held) if row.is_addon}
    found = list(held)
    for row in bought:
        same = place.get((row.service, row.plan, row.start))
        if same is None:
            found.append(row)
        else:
            found[same] = replace(found[same], quantity=found[same].quantity + row.quantity)
    return found


BOUGHT = -(2**30)
"""Above the numbers of what was bought by decision: they are BOUGHT less the decision's row id."""


def _bought(connection: sa.Connection, period: str, ids: dict[int, int], accounts: dict[int, str],
            subscriptions: Mapping[int, Subscription]) -> list[Subscription]:
    """Packages that a [[plan.fair_use]] bought: one add-on for each package of a subscription, from the day of the first
    decision to the end of the month."""
    table = tables.decision
    bought: dict[tuple[int, str], list[sa.Row[Any]]] = {}
    query = sa.select(table).where(table.c.period == period, table.c.action == "buy").order_by(table.c.id)
    for row in connection.execute(query):
        bought.setdefault((row.subscription_id, row.detail), []).append(row)
    found = []
    for (subscription_id, package), rows in bought.items():
        of = subscriptions.get(subscription_id)
        if of is None:
            continue  # its dates were changed since: the decision stays, and covers nothing
        number = BOUGHT - rows[0].id
        ids[number], accounts[number] = rows[0].service_id, accounts[of.id]
        start = periods.local_date(min(row.reached_ms for row in rows), of.timezone)
        found.append(replace(of, id=number, plan=package, start=start, end=periods.period_end_day(period), is_first=True,
                             previous=None, has_next=False, is_addon=True, quantity=len(rows)))
    return found


def _carried(connection: sa.Connection, period: str) -> dict[int, list[Carried]]:
    """What the newest run of the period before left of quotas."""
    table, run = tables.quota_carried, tables.rate_run
    newest = sa.select(sa.func.max(run.c.id)).where(run.c.period == quotas.later(period, -1)).scalar_subquery()
    found: dict[int, list[Carried]] = {}
    for row in connection.execute(sa.select(table).where(table.c.run_id == newest, table.c.expires >= period)
                                  .order_by(table.c.subscription, table.c.quota, table.c.expires)):
        found.setdefault(row.subscription, []).append(Carried(row.quota, row.expires, row.octets))
    return found


def _beside(connection: sa.Connection, found: list[Subscription], catalogue: Catalogue, accounts: Mapping[int, str]
            ) -> list[Subscription]:
    """The same, with what else their account has where a discount of their plan asks for it."""
    asked = {plan.name: names for plan in catalogue.all()
             if (names := {name for discount in plan.discounts for name in discount.beside})}
    if not any(row.plan in asked for row in found):
        return found
    names = set().union(*asked.values())
    service = tables.service
    held: dict[str, list[tuple[int, Beside]]] = {}
    for table, sign in ((tables.subscription, 1), (tables.addon, -1)):
        query = sa.select(table.c.id, table.c.plan, table.c.start_date, table.c.end_date, service.c.account).join(service)
        for row in connection.execute(query.where(table.c.plan.in_(names)).order_by(table.c.start_date, table.c.id)):
            other = Beside(row.plan, _date(row.start_date), _date(row.end_date))
            held.setdefault(row.account, []).append((sign * row.id, other))
    return [replace(row, beside=tuple(other for id_, other in held.get(accounts[row.id], ()) if id_ != row.id))
            if row.plan in asked else row for row in found]


def _date(text: str) -> date | None:
    return date.fromisoformat(text) if text else None


def check_over(terms: Terms, seller_zone: str, period: str) -> None:
    """Raises RatemillError while the period is still going on for somebody."""
    now = clock.now_ms()
    zones = {subscription.timezone for subscription in terms.subscriptions} | {seller_zone}
    ends = {zone: periods.period_bounds(period, zone)[1] for zone in zones}
    last = max(ends, key=lambda zone: (ends[zone], zone))
    if ends[last] > now:
        raise RatemillError(f"{period} is still going on in {last} until {periods.format_instant(ends[last])}",
                            "wait for its end, or rate what is known so far with --as-of INSTANT")


def check_terms(terms: Terms) -> None:
    """Raises RatemillError where a row's currency is not its plan's, or an add-on stands in the place of a plan."""
    wrong = []
    for row in terms.subscriptions:
        plan = terms.catalogue.in_force(row.plan, row.start)
        if plan is not None and plan.is_addon != row.is_addon:
            problem = f"'{plan.name}' from {plan.version}, the plan of {row.service}, is" + ("" if plan.is_addon else " not")
            raise RatemillError(f"{problem} an add-on", "a service has a plan of its own in subscribers.csv, and add-ons "
                                "beside it in addons.csv")
        if plan is not None and plan.currency != row.currency:
            wrong.append(f"{row.service} ({row.currency}) under {plan.name} ({plan.currency})")
    if wrong:
        more = f" and {len(wrong) - SHOWN_MAX} more" if len(wrong) > SHOWN_MAX else ""
        raise RatemillError(f"the currency of {len(wrong)} subscriptions is not their plan's: "
                            + ", ".join(wrong[:SHOWN_MAX]) + more,
                            "correct the currency in subscribers.csv, or add a plan in that currency")


# usage


def check_published(connection: sa.Connection, generation: Generation | None, period: str) -> None:
    """Raises RatemillError if flows of the period are not in the generation, or are in it by older leases or plans."""
    first, last = periods.period_extent(period)
    segment, consumed, batch, change = tables.segment, tables.consumed, tables.batch, tables.input_change
    waiting = connection.execute(
        sa.select(sa.func.count()).select_from(segment.outerjoin(consumed, consumed.c.segment_id == segment.c.id))
        .where(consumed.c.segment_id.is_(None), segment.c.start_first < last, segment.c.end_last >= first)).scalar_one()
    if waiting:
        raise RatemillError(f"{waiting} segments with flows of {period} are not aggregated yet",
                            "run `ratemill aggregate run` and `ratemill usage publish` first")
    counting = (batch.c.from_ms < last, batch.c.to_ms >= first)
    stale = connection.execute(
        sa.select(batch.c.id).join(change, sa.and_(
            change.c.version > batch.c.input_version, change.c.from_ms < batch.c.to_ms, change.c.to_ms > batch.c.from_ms))
        .where(*counting, batch.c.to_version.is_(None)).limit(1)).first()
    if stale is not None:
        raise RatemillError(f"leases, subscriptions, plans or settings changed since flows of {period} were aggregated",
                            "run `ratemill aggregate run` and `ratemill usage publish` first")
    published, inputs = (generation.manifest_version, generation.input_version) if generation is not None else (0, 0)
    newer = connection.execute(sa.select(batch.c.id).where(*counting, sa.or_(
        batch.c.from_version > published, batch.c.to_version > published)).limit(1)).first()
    changed = connection.execute(sa.select(change.c.version).where(
        change.c.version > inputs, change.c.from_ms < last, change.c.to_ms > first).limit(1)).first()
    holds_flows = connection.execute(sa.select(batch.c.id).where(*counting).limit(1)).first() is not None
    if newer is not None or (changed is not None and holds_flows):
        raise RatemillError(f"the published usage of {period} is older than what is aggregated",
                            "run `ratemill usage publish` first")


def open_generation(home: Home, generation: Generation) -> duckdb.DuckDBPyConnection:
    """The published file, read-only, its digest verified."""
    return generations.connect(files.verify(home.path / generation.path, generation.digest))


def read_usage(connection: duckdb.DuckDBPyConnection | None, period: str) -> UsageColumns:
    """Octets of the period by subscription, zone, class, direction and whether they were sampled."""
    if connection is None:
        nothing = np.zeros(0, np.int64)
        return UsageColumns(nothing, np.zeros(0, np.int32), nothing, [])
    found = connection.sql(
        "SELECT subscription_id, zone, class, direction, sampled, CAST(sum(octets) AS BIGINT) AS octets FROM usage "
        "WHERE period = ? GROUP BY ALL ORDER BY subscription_id, zone, class, direction, sampled", params=[period])
    assert found is not None, "a query has a result"
    table = found.to_arrow_table()
    return columns_of(table)


def columns_of(table: pa.Table) -> UsageColumns:
    """Rows of subscription_id, zone, class, direction, sampled and octets, ordered by subscription."""
    code = np.zeros(len(table), np.int64)
    values: list[list[Any]] = []
    for name in ("zone", "class", "direction", "sampled"):
        column = table.column(name).combine_chunks().dictionary_encode(null_encoding="encode")
        values.append(column.dictionary.to_pylist())
        code = code * max(len(values[-1]), 1) + column.indices.to_numpy(zero_copy_only=False)
    distinct, key = np.unique(code, return_inverse=True)
    shape = [max(len(each), 1) for each in values]
    keys = [tuple(each[index] for each, index in zip(values, np.unravel_index(one, shape), strict=True))
            for one in distinct.tolist()]
    ids = table.column("subscription_id").cast("int64").fill_null(NOBODY)
    return UsageColumns(ids.to_numpy(), key.astype(np.int32), table.column("octets").to_numpy(), keys)


def read_slots(connection: duckdb.DuckDBPyConnection, period: str, subscriptions: Sequence[int]) -> dict[int, Slots]:
    """The 5-minute slots with traffic of these subscriptions."""
    if not subscriptions:
        return {}
    columns = connection.execute(
        "SELECT subscription_id, CAST(sum(octets) FILTER (direction = 'up') AS BIGINT) AS up, "
        "CAST(sum(octets) FILTER (direction = 'down') AS BIGINT) AS down FROM usage_5min "
        "WHERE period = ? AND subscription_id IN (SELECT unnest(CAST(? AS BIGINT[]))) "
        "GROUP BY subscription_id, slot ORDER BY subscription_id, slot", [period, list(subscriptions)]).fetchnumpy()
    ids = np.ma.getdata(columns["subscription_id"]).astype(np.int64)
    up, down = (np.ma.filled(columns[name], 0).astype(np.int64) for name in ("up", "down"))
    edges = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1], True]) if len(ids) else np.zeros(1, np.int64)
    return {int(ids[first]): Slots(up[first:last], down[first:last])
            for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)}
