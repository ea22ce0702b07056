"""Which plan versions something was invoiced by. Charges that nobody has invoiced are simply rated again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from core import tables
from storage import sql
from storage.home import Home


@dataclass(frozen=True, slots=True)
class Use:
    """A plan version that was used; `end` is the last date (exclusive) that it was used for."""

    plan: str
    plan_version: str
    calendar: str | None
    end: str
    what: str  # for a person: "invoice A-000001"


def uses(home: Home) -> list[Use]:
    """Every use."""
    engine = sql.engine(home)
    with sql.reading(engine) as connection:
        plan = tables.plan_version
        calendar = {(row.name, row.valid_from): row.calendar
                    for row in connection.execute(sa.select(plan.c.name, plan.c.valid_from, plan.c.calendar))}
        found = [*_of_invoices(connection)]
    return [Use(name, version, calendar.get((name, version)), end, what) for name, version, end, what in found]


def _of_invoices(connection: sa.Connection) -> Iterator[tuple[str, str, str, str]]:
    line, invoice = tables.invoice_line, tables.invoice
    rows = connection.execute(
        sa.select(line.c.plan, line.c.plan_version, sa.func.max(line.c.end_date), sa.func.min(invoice.c.number))
        .join(invoice, invoice.c.id == line.c.invoice_id).group_by(line.c.plan, line.c.plan_version))
    for plan, version, end, number in rows:
        yield plan, version, end, f"invoice {number}"
