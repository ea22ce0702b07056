"""The register of invoices: what was booked, read back. Reads `invoice` and `invoice_line`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from core import tables
from core.errors import DamagedFile, NotFound
from core.periods import format_instant
from invoicing.assembly import digest_of

LIST_COLUMNS = ("number", "account", "period", "net_minor", "tax_minor", "gross_minor", "currency", "issued")
EXPORT_COLUMNS = (
    "number", "line", "service", "kind", "description", "quantity", "unit", "unit_price", "net_minor", "tax_category",
)  # fmt: skip


@dataclass(frozen=True)
class Booked:
    """An invoice as it was booked; `document` is the frozen text, checked against its digest."""

    id: int
    number: str
    account: str
    period: str
    currency: str
    rate_run_id: int
    document: str

    def content(self) -> dict[str, Any]:
        """The document's values."""
        parsed = json.loads(self.document)
        assert isinstance(parsed, dict), "a document is an object"
        return parsed


def find(connection: sa.Connection, number: str) -> Booked:
    """One invoice. Raises NotFound, or DamagedFile if its document is not the one that was booked."""
    row = connection.execute(sa.select(tables.invoice).where(tables.invoice.c.number == number)).one_or_none()
    if row is None:
        raise NotFound(f"there is no invoice {number}", "`ratemill invoice list PERIOD` lists the numbers")
    return _checked(row)


def of_period(connection: sa.Connection, period: str, chunk: int) -> Iterator[list[Booked]]:
    """All invoices of a period in the order of their numbers, a chunk at a time."""
    i = tables.invoice
    last = 0
    while True:
        query = sa.select(i).where(i.c.period == period, i.c.id > last).order_by(i.c.id).limit(chunk)
        found = [_checked(row) for row in connection.execute(query)]
        if not found:
            return
        yield found
        last = found[-1].id


def count(connection: sa.Connection, period: str) -> int:
    query = sa.select(sa.func.count()).select_from(tables.invoice).where(tables.invoice.c.period == period)
    return int(connection.scalar(query) or 0)


def list_rows(connection: sa.Connection, period: str) -> Iterator[dict[str, Any]]:
    """The rows of `invoice list`."""
    i = tables.invoice.c
    query = sa.select(*(i[name] for name in LIST_COLUMNS)).where(i.period == period).order_by(i.id)
    for row in connection.execute(query, execution_options={"stream_results": True}).mappings():
        yield {**row, "issued": format_instant(row["issued"])}


def export_rows(connection: sa.Connection, period: str) -> Iterator[dict[str, Any]]:
    """The rows of `invoice export`: every line of the period's invoices."""
    i, line = tables.invoice.c, tables.invoice_line.c
    query = (
        sa.select(i.number, *(line[name] for name in EXPORT_COLUMNS[1:]))
        .join_from(tables.invoice, tables.invoice_line)
        .where(i.period == period)
        .order_by(i.id, line.line)
    )
    for row in connection.execute(query, execution_options={"stream_results": True}).mappings():
        yield dict(row)


def _checked(row: sa.Row[Any]) -> Booked:
    if digest_of(row.document) != row.digest:
        raise DamagedFile(
            f"the document of {row.number} does not match its digest", "restore the database from a backup"
        )
    return Booked(row.id, row.number, row.account, row.period, row.currency, row.rate_run_id, row.document)
