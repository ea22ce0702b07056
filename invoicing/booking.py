"""Books invoices: number, rows, postings and audit in the caller's one transaction, all or nothing.

Writes `number_series`, `invoice`, `invoice_line`, `invoice_tax`, `accepted_incomplete`, and through `ledger.journal` the
postings: the gross is debited to receivables of the account, the net credited to revenue by kind, the tax to its category.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from core import clock, tables
from core.actor import Actor
from core.errors import RatemillError
from invoicing.assembly import Frame, Invoice
from invoicing.charges import RateRun
from ledger import journal
from ledger.checks import INVOICE_REFERENCE
from ledger.journal import Entry, Posting
from security import audit
from storage import rollouts

CHUNK = 2_000
"""Invoices inserted by one statement and its lines by the next."""


class State(NamedTuple):
    """What a proposal depends on; if it moved before the booking, nothing is booked."""

    last_number: int
    last_invoice: int
    rate_runs: tuple[int, ...]
    last_rollout: int


class Acceptance(NamedTuple):
    """Why a period is invoiced although its traffic is known to be incomplete, and what it lacks."""

    reason: str
    findings: Sequence[Mapping[str, Any]]


def read_state(connection: sa.Connection, series: str, runs: Iterable[RateRun]) -> State:
    """The state as the proposal is made."""
    rate_runs = tuple(sorted(run.id for run in runs))
    return State(_last_number(connection, series), _last_invoice(connection), rate_runs, rollouts.newest_step(connection))


def book(
    connection: sa.Connection,
    common: Frame,
    invoices: Sequence[Invoice],
    state: State,
    actor: Actor,
    accepted: Acceptance | None = None,
) -> None:
    """Insert everything. Raises RatemillError if the state is not the one of the proposal."""
    series = common.settings.series
    _refuse_moved(connection, series, common.runs, state)
    last = state.last_number + len(invoices)
    _set_number(connection, series, state.last_number, last)
    for first in range(0, len(invoices), CHUNK):
        chunk = invoices[first : first + CHUNK]
        ids = _insert_invoices(connection, chunk, common)
        _insert(connection, tables.invoice_line, [row for invoice in chunk for row in _line_rows(ids, invoice)])
        _insert(connection, tables.invoice_tax, [row for invoice in chunk for row in _tax_rows(ids, invoice)])
        journal.post_many(connection, [_entry(invoice, common) for invoice in chunk], actor)
    audit.record(
        connection,
        actor,
        "invoice run",
        common.period,
        {"series": series, "last": state.last_number},
        {
            "series": series,
            "last": last,
            "invoices": len(invoices),
            "issued": common.issued_ms,
            "rate_runs": state.rate_runs,
        },
    )
    if accepted is not None:
        _accept(connection, common, invoices, accepted, actor)


def _accept(
    connection: sa.Connection, common: Frame, invoices: Sequence[Invoice], accepted: Acceptance, actor: Actor
) -> None:
    """Keep with the run what it went on without, who said so and why."""
    findings = [dict(finding) for finding in accepted.findings]
    connection.execute(tables.accepted_incomplete.insert().values(
        period=common.period, at=clock.now_ms(), actor=actor.name, reason=accepted.reason,
        findings=json.dumps(findings, ensure_ascii=False), invoice_first=invoices[0].number,
        invoice_last=invoices[-1].number))  # fmt: skip
    audit.record(
        connection,
        Actor(actor.name, accepted.reason),
        "invoice accept incomplete",
        common.period,
        after={"findings": findings, "first": invoices[0].number, "last": invoices[-1].number},
    )


def _refuse_moved(connection: sa.Connection, series: str, runs: Mapping[str, RateRun], state: State) -> None:
    run = tables.rate_run.c
    query = sa.select(sa.func.max(run.id)).where(run.period.in_(list(runs))).group_by(run.period)
    newest = tuple(sorted(connection.scalars(query)))
    now = State(_last_number(connection, series), _last_invoice(connection), newest, rollouts.newest_step(connection))
    if now != state:
        raise RatemillError(
            "invoices, charges or rollouts have changed while this run was at work", "run the same command again"
        )


def _last_number(connection: sa.Connection, series: str) -> int:
    table = tables.number_series
    query = sa.select(table.c.last).where(table.c.series == series).with_for_update()
    return int(connection.scalar(query) or 0)


def _last_invoice(connection: sa.Connection) -> int:
    return int(connection.scalar(sa.select(sa.func.max(tables.invoice.c.id))) or 0)


def _set_number(connection: sa.Connection, series: str, before: int, last: int) -> None:
    table = tables.number_series
    if before:
        connection.execute(table.update().where(table.c.series == series).values(last=last))
    else:
        connection.execute(table.insert().values(series=series, last=last))


def _insert_invoices(connection: sa.Connection, invoices: Sequence[Invoice], common: Frame) -> dict[str, int]:
    """Returns number → row id."""
    table = tables.invoice
    before = _last_invoice(connection)
    _insert(connection, table, [_invoice_row(invoice, common) for invoice in invoices])
    found = connection.execute(sa.select(table.c.number, table.c.id).where(table.c.id > before))
    ids = {row.number: int(row.id) for row in found}
    assert len(ids) == len(invoices), "every invoice was inserted"
    return ids


def _insert(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(table.insert(), rows)


def _invoice_row(invoice: Invoice, common: Frame) -> dict[str, Any]:
    return {
        "number": invoice.number,
        "account": invoice.account,
        "period": common.period,
        "currency": invoice.currency,
        "net_minor": invoice.totals.net_minor,
        "tax_minor": invoice.totals.tax_minor,
        "gross_minor": invoice.totals.gross_minor,
        "issued": common.issued_ms,
        "due": common.due.isoformat(),
        "tax_policy": common.settings.tax_policy,
        "rate_run_id": common.runs[common.period].id,
        "document": invoice.document,
        "digest": invoice.digest,
    }


def _line_rows(ids: Mapping[str, int], invoice: Invoice) -> Iterator[dict[str, Any]]:
    for number, (line, description) in enumerate(zip(invoice.lines, invoice.descriptions, strict=True), 1):
        key = line.key
        yield {
            "invoice_id": ids[invoice.number],
            "line": number,
            "period": line.period,
            "service": key.service,
            "plan": key.plan,
            "plan_version": key.plan_version,
            "start_date": key.start,
            "end_date": key.end,
            "charge_line": key.line,
            "kind": key.kind,
            "zone": key.zone,
            "class": key.class_,
            "direction": key.direction,
            "description": description,
            "quantity": line.quantity,
            "unit": key.unit,
            "unit_price": key.unit_price,
            "net_minor": line.net_minor,
            "gross_minor": line.gross_minor,
            "tax_category": key.tax_category,
            "tax_percent": key.tax_percent,
            "currency": key.currency,
        }


def _tax_rows(ids: Mapping[str, int], invoice: Invoice) -> Iterator[dict[str, Any]]:
    for row in invoice.totals.taxes:
        yield {
            "invoice_id": ids[invoice.number],
            "tax_category": row.category,
            "percent": row.percent,
            "net_minor": row.net_minor,
            "tax_minor": row.tax_minor,
        }


def _entry(invoice: Invoice, common: Frame) -> Entry:
    """Receivables = revenue + tax; what is 0 is left out."""
    sums: dict[tuple[str, str], int] = defaultdict(int)
    sums[journal.RECEIVABLES, invoice.account] = invoice.totals.gross_minor
    for line in invoice.lines:
        sums[journal.revenue(line.key.kind), ""] -= line.net_minor
    for row in invoice.totals.taxes:
        sums[journal.tax(row.category), ""] -= row.tax_minor
    postings = tuple(
        Posting(account, subject, invoice.currency, amount) for (account, subject), amount in sums.items() if amount
    )
    return Entry("invoice", INVOICE_REFERENCE + invoice.number, common.issued, postings, common.period)
