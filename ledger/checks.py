"""The invariants of the ledger: what must be true of its rows whoever wrote them. Reads, changes nothing.

Reads `ledger_transaction`, `posting` and, to hold the journal against the documents, `invoice`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa

from core import tables
from ledger.journal import RECEIVABLES

SHOWN_MAX = 20
"""An invariant that fails names this many of the rows that break it."""

INVOICE_REFERENCE = "invoice:"

Finding = dict[str, Any]


def run(connection: sa.Connection) -> Iterator[Finding]:
    """One row an invariant: {check, checked, failed, examples}."""
    for name, count, broken in _CHECKS:
        found = [dict(row) for row in connection.execute(broken()).mappings()]
        yield {
            "check": name,
            "checked": int(connection.scalar(count()) or 0),
            "failed": len(found),
            "examples": [{key: _plain(value) for key, value in row.items()} for row in found[:SHOWN_MAX]],
        }


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else int(value)


def _rows_of(table: sa.Table) -> Callable[[], sa.Select[Any]]:
    return lambda: sa.select(sa.func.count()).select_from(table)


def _unbalanced_transactions() -> sa.Select[Any]:
    p = tables.posting.c
    total = sa.func.sum(p.amount_minor)
    return (
        sa.select(p.transaction_id, p.currency, total.label("difference"))
        .group_by(p.transaction_id, p.currency)
        .having(total != 0)
        .order_by(p.transaction_id)
    )


def _postings_without_transaction() -> sa.Select[Any]:
    t, p = tables.ledger_transaction, tables.posting
    return sa.select(p.c.id).join_from(p, t, p.c.transaction_id == t.c.id, isouter=True).where(t.c.id.is_(None))


def _invoices_not_posted() -> sa.Select[Any]:
    """Invoices whose gross is not what their transaction debits to the account's receivables."""
    i, posted = tables.invoice.c, _receivables_by_reference()
    booked = sa.func.coalesce(posted.c.amount, 0)
    return (
        sa.select(i.number, i.gross_minor, posted.c.amount.label("posted_minor"))
        .join_from(
            tables.invoice,
            posted,
            sa.and_(
                posted.c.reference == sa.literal(INVOICE_REFERENCE) + i.number,
                posted.c.currency == i.currency,
                posted.c.subject == i.account,
            ),
            isouter=True,
        )
        .where(booked != i.gross_minor)
        .order_by(i.id)
    )


def _receivables_by_reference() -> sa.Subquery:
    t, p = tables.ledger_transaction, tables.posting
    return (
        sa.select(t.c.reference, p.c.subject, p.c.currency, sa.func.sum(p.c.amount_minor).label("amount"))
        .join_from(t, p)
        .where(p.c.ledger_account == RECEIVABLES, t.c.kind == "invoice")
        .group_by(t.c.reference, p.c.subject, p.c.currency)
        .subquery()
    )


def _invoice_transactions_without_invoice() -> sa.Select[Any]:
    t, i = tables.ledger_transaction, tables.invoice
    same = t.c.reference == sa.literal(INVOICE_REFERENCE) + i.c.number
    query = sa.select(t.c.reference).join_from(t, i, same, isouter=True)
    return query.where(t.c.kind == "invoice", i.c.id.is_(None)).order_by(t.c.id)


def _invoices_without_transaction() -> sa.Select[Any]:
    t, i = tables.ledger_transaction, tables.invoice
    same = t.c.reference == sa.literal(INVOICE_REFERENCE) + i.c.number
    return sa.select(i.c.number).join_from(i, t, same, isouter=True).where(t.c.id.is_(None)).order_by(i.c.id)


_CHECKS: tuple[tuple[str, Callable[[], sa.Select[Any]], Callable[[], sa.Select[Any]]], ...] = (
    ("every transaction sums to zero", _rows_of(tables.ledger_transaction), _unbalanced_transactions),
    ("every posting has a transaction", _rows_of(tables.posting), _postings_without_transaction),
    ("every invoice has a transaction", _rows_of(tables.invoice), _invoices_without_transaction),
    ("every invoice is owed once, by its account", _rows_of(tables.invoice), _invoices_not_posted),
    ("every invoice transaction has an invoice", _rows_of(tables.ledger_transaction),
     _invoice_transactions_without_invoice),
)  # fmt: skip
