"""Which plan versions something was charged by: invoice lines, and the charges of the newest run of each period."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from core import tables
from storage import files, sql
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
    """Every use, invoices first."""
    engine = sql.engine(home)
    with sql.reading(engine) as connection:
        plan = tables.plan_version
        calendar = {(row.name, row.valid_from): row.calendar
                    for row in connection.execute(sa.select(plan.c.name, plan.c.valid_from, plan.c.calendar))}
        found = [*_of_invoices(connection)]
        runs = newest_runs(connection)
    for run in runs:
        found += _of_charges(home, run)
    return [Use(name, version, calendar.get((name, version)), end, what) for name, version, end, what in found]


def newest_runs(connection: sa.Connection) -> list[sa.Row[tuple[object, ...]]]:
    """The rate run that counts, of each period."""
    run = tables.rate_run
    newest = sa.select(sa.func.max(run.c.id)).group_by(run.c.period)
    return list(connection.execute(sa.select(run).where(run.c.id.in_(newest)).order_by(run.c.period)))


def _of_invoices(connection: sa.Connection) -> Iterator[tuple[str, str, str, str]]:
    line, invoice = tables.invoice_line, tables.invoice
    rows = connection.execute(
        sa.select(line.c.plan, line.c.plan_version, sa.func.max(line.c.end_date), sa.func.min(invoice.c.number))
        .join(invoice, invoice.c.id == line.c.invoice_id).group_by(line.c.plan, line.c.plan_version))
    for plan, version, end, number in rows:
        yield plan, version, end, f"invoice {number}"


def _of_charges(home: Home, run: sa.Row[tuple[object, ...]]) -> list[tuple[str, str, str, str]]:
    import pyarrow.parquet as pq

    table = pq.read_table(files.verify(home.path / run.path, run.digest), columns=["plan", "plan_version", "end"])
    grouped = table.group_by(["plan", "plan_version"]).aggregate([("end", "max")]).to_pylist()
    return [(row["plan"], row["plan_version"], row["end_max"].isoformat(), f"the charges of {run.period}") for row in grouped]
