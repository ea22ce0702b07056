"""`plans what-if FILE --period PERIOD`: a changed tariff over a month that was rated; nothing is stored.

The subscriptions and the usage are those that the period's newest run froze, in the zones of the new plans' own calendars.
Whoever is under a plan that the file has is rated by the file's (newest) version of it, all others as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from core import money, settings
from core.errors import UsageError
from rating import apply, columns, engine, frozen, plans, run
from rating.rezoned import Calendars
from storage import sql
from storage.home import Home

COLUMNS = ("service", "plan", "before", "after", "difference", "currency", "note")
NOT_EXACT = "a zone of its calendar begins within an hour"
BARS = 15
WIDTH, ROW = 640, 22


@dataclass
class WhatIf:
    """Net amounts by service, before and after, in minor units."""

    rows: list[dict[str, Any]]
    summary: dict[str, Any]


def what_if(home: Home, path: Path, period: str) -> WhatIf:
    """Rate a period by the plans of a file. Raises ImportRefused for a file that is wrong, NotFound for a period without a
    run, UsageError where nobody is under a plan of the file."""
    made_by = run.newest_or_hint(home, period)
    copy = frozen.read(home, made_by.usage_path, made_by.usage_digest)
    with sql.reading(sql.engine(home)) as connection:
        linted = apply.read(home, path, apply.surroundings_of(home, connection))
        named = Calendars(connection, [{**one, "holiday_dates": apply.holiday_dates_of(one)} for one in linted.calendars])
    new = {document["name"]: plans.parse(document) for document in sorted(linted.plans, key=lambda one: str(one["from"]))}
    rows = [frozen.subscription_of(row) for row in copy.terms.to_pylist()]
    if not any(row.plan in new for row in rows):
        raise UsageError(f"nobody was under {', '.join(sorted(new)) or 'a plan of the file'} in {period}",
                         "`ratemill plans list` shows how many subscriptions each plan has")
    kept = [plans.parse(document) for document in copy.plans]
    catalogue = plans.Catalogue([*(plan for plan in kept if plan.name not in new), *new.values()])
    usage, inexact = _usage(copy, rows, catalogue, named, period)
    slots = _slots(copy)
    rates = settings.tax_rates(home.document)
    given = engine.Inputs(period, rows, catalogue, {}, slots, lambda tax, day: settings.percent_on(rates, tax, day))
    after = columns.rate(given, usage).charges
    concerned = {row.service: row.plan for row in rows if row.plan in new}
    return _compared(period, run.charges(home, period), after, concerned, inexact)


def _usage(copy: frozen.Frozen, rows: Sequence[engine.Subscription], catalogue: plans.Catalogue, named: Calendars, period: str
           ) -> tuple[columns.UsageColumns, set[str]]:
    """The frozen usage in the zones of each subscription's plan; and the plans for whom it is not exact."""
    table = copy.usage.rename_columns([{"service": "service_id", "subscription": "subscription_id"}.get(name, name)
                                       for name in copy.usage.column_names])
    service = dict(zip(copy.terms.column("subscription").to_pylist(), copy.terms.column("service_id").to_pylist(), strict=True))
    by_calendar: dict[str | None, list[engine.Subscription]] = {}
    for row in rows:
        plan = catalogue.in_force(row.plan, row.start)
        if not row.is_addon:
            by_calendar.setdefault(plan.calendar if plan is not None else None, []).append(row)
    parts, inexact = [], set()
    with duckdb.connect() as connection:
        connection.register("usage", table)
        for calendar, members in by_calendar.items():
            ids = pa.array([row.id for row in members], pa.int64())
            found = named.read(connection, calendar, [period], pa.table({
                "service_id": pa.array([service[row.id] for row in members], pa.int64()), "subscription_id": ids,
                "timezone": [row.timezone for row in members], "number": ids}))
            parts.append(found.usage[period])
            if not found.is_exact:
                inexact |= {str(row.plan) for row in members}
    return columns.joined(parts), inexact


def _slots(copy: frozen.Frozen) -> dict[int, engine.Slots]:
    with duckdb.connect() as connection:
        from rating.inputs import read_slots

        connection.register("usage_5min", copy.slots.rename_columns(
            [{"subscription": "subscription_id"}.get(name, name) for name in copy.slots.column_names]))
        periods = copy.slots.column("period").unique().to_pylist()
        ids = copy.slots.column("subscription").unique().to_pylist()
        return read_slots(connection, periods[0], ids) if periods else {}


def _compared(period: str, before: pa.Table, after: pa.Table, plan_of: dict[str, str | None], inexact: set[str]) -> WhatIf:
    sums = []
    for table in (before, after):
        mine = table.filter(pc.is_in(table.column("service"), pa.array(sorted(plan_of), pa.string())))
        grouped = mine.group_by(["service", "currency"]).aggregate([("net_minor", "sum")]).to_pylist()
        sums.append({(row["service"], row["currency"]): row["net_minor_sum"] for row in grouped})
    rows = []
    for service, currency in sorted({*sums[0], *sums[1]}):
        one, two = (each.get((service, currency), 0) for each in sums)
        plan = plan_of[service]
        rows.append({"service": service, "plan": plan, "before": one, "after": two, "difference": two - one,
                     "currency": currency, "note": NOT_EXACT if plan in inexact else None})
    return WhatIf(rows, {"period": period, **_summary(rows), "plans": {
        plan: _summary([row for row in rows if row["plan"] == plan]) for plan in sorted({str(row["plan"]) for row in rows})}})


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"pay less": sum(row["difference"] < 0 for row in rows), "pay more": sum(row["difference"] > 0 for row in rows),
            "the same": sum(row["difference"] == 0 for row in rows), "before": sum(row["before"] for row in rows),
            "after": sum(row["after"] for row in rows), "difference": sum(row["difference"] for row in rows)}


def histogram(rows: Sequence[dict[str, Any]]) -> list[tuple[int, int, int]]:
    """(from, to, services) of the differences in minor units, in steps of 1, 2 or 5 times a power of ten; [from, to)."""
    if not rows:
        return []
    low, high = (edge(row["difference"] for row in rows) for edge in (min, max))
    step = next(step for power in range(40) for step in (10**power, 2 * 10**power, 5 * 10**power)
                if high // step - low // step < BARS)
    return [(number * step, (number + 1) * step, sum(row["difference"] // step == number for row in rows))
            for number in range(low // step, high // step + 1)]


def picture(result: WhatIf) -> str:
    """The histogram as SVG."""
    bars = histogram(result.rows)
    currency = result.rows[0]["currency"]
    most = max(count for _, _, count in bars)
    height = ROW * len(bars) + 70
    shapes = []
    for number, (low, high, count) in enumerate(bars):
        y = 50 + ROW * number
        colour = "#2a7f62" if high <= 0 else "#b5483a" if low >= 0 else "#6b7280"
        label = f"{money.format_minor(low, currency)} to {money.format_minor(high, currency)}"
        shapes.append(f'<text x="180" y="{y + 15}" text-anchor="end">{label}</text>'
                      f'<rect x="190" y="{y + 3}" width="{count * 380 // most}" height="{ROW - 6}" fill="{colour}"/>'
                      f'<text x="{196 + count * 380 // most}" y="{y + 15}">{count}</text>')
    title = f"Services by difference in {result.summary['period']}, net, {currency}"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" '
            f'font-size="12"><rect width="100%" height="100%" fill="white"/><text x="20" y="30" font-size="16">{title}</text>'
            + "".join(shapes) + "</svg>\n")
