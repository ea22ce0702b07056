"""The double-entry journal: append-only transactions whose postings sum to zero in each currency.

Writes `ledger_transaction` and `posting`; nothing here updates or deletes. A balance is a fold over postings, a
correction is a reversal. Amounts are whole minor units, debit positive. Accounts in use: `receivables` (subject = the
subscriber's account), `revenue:fee`, `revenue:traffic`, `revenue:percentile`, `tax:<category>` and `rounding`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa

from core import clock, tables
from core.actor import Actor
from core.errors import NotFound, RatemillError

RECEIVABLES = "receivables"
ROUNDING = "rounding"
REVENUE_KINDS = ("fee", "once", "traffic", "percentile", "quota", "minimum", "maximum", "discount")
AMOUNT_MAX = 2**62
"""No single amount, and no sum of one transaction, comes near 64 bits."""

_CHUNK_ROWS = 10_000
_LOOKUP_ROWS = 500


@dataclass(frozen=True, slots=True)
class Posting:
    """One side of a transaction; `subject` is the subscriber's account or empty."""

    ledger_account: str
    subject: str
    currency: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A transaction that is to be posted. `reference` names what it is about, once and for all."""

    kind: str
    reference: str
    effective: date
    postings: tuple[Posting, ...]
    period: str | None = None


def revenue(kind: str) -> str:
    """The account to which charges of a kind are credited."""
    assert kind in REVENUE_KINDS, kind
    return f"revenue:{kind}"


def tax(category: str) -> str:
    return f"tax:{category}"


def post(
    connection: sa.Connection,
    kind: str,
    reference: str,
    effective: date,
    postings: Sequence[Posting],
    actor: Actor,
    period: str | None,
) -> int:
    """Post one transaction; returns its id. The same transaction again changes nothing and gives the same id.

    Raises RatemillError if the reference was posted with other content: an error is corrected by a reversal.
    """
    entry = Entry(kind, reference, effective, tuple(postings), period)
    before = _existing(connection, reference)
    if before is None:
        return post_many(connection, [entry], actor)[reference]
    if _content(before[1]) != _content(entry):
        raise RatemillError(
            f"the ledger has '{reference}' already, with other postings",
            "a booked transaction does not change: reverse it and post the correction under a reference of its own",
        )
    return before[0]


def post_many(connection: sa.Connection, entries: Sequence[Entry], actor: Actor) -> dict[str, int]:
    """Post new transactions in bulk; returns reference → id. Raises RatemillError if one of them is there already."""
    for entry in entries:
        _assert_balanced(entry)
    assert len({entry.reference for entry in entries}) == len(entries), "a reference is used once"
    _refuse_known(connection, entries)
    ids = _insert_transactions(connection, entries, actor)
    for chunk in _chunks([_posting_row(ids[entry.reference], p) for entry in entries for p in entry.postings]):
        connection.execute(tables.posting.insert(), chunk)
    return ids


def reverse(connection: sa.Connection, reference: str, effective: date, actor: Actor) -> int:
    """Post the opposite of a transaction, under 'reversal:<reference>'; once. Raises NotFound for an unknown one."""
    found = _existing(connection, reference)
    if found is None:
        raise NotFound(f"the ledger has no transaction '{reference}'", "`ledger export` lists them")
    opposite = tuple(Posting(p.ledger_account, p.subject, p.currency, -p.amount_minor) for p in found[1].postings)
    return post(connection, "reversal", f"reversal:{reference}", effective, opposite, actor, found[1].period)


def balances(connection: sa.Connection, ledger_account: str = "", subject: str = "") -> Iterator[dict[str, Any]]:
    """The balance of every account, subject and currency: a fold over all postings."""
    p = tables.posting.c
    query = sa.select(
        p.ledger_account,
        p.subject,
        p.currency,
        sa.func.sum(p.amount_minor).label("balance_minor"),
        sa.func.count().label("postings"),
    )
    if ledger_account:
        query = query.where(p.ledger_account == ledger_account)
    if subject:
        query = query.where(p.subject == subject)
    key = (p.ledger_account, p.subject, p.currency)
    for row in connection.execute(query.group_by(*key).order_by(*key)).mappings():
        yield {**row, "balance_minor": int(row["balance_minor"])}  # PostgreSQL sums bigint as numeric


def rows(connection: sa.Connection, period: str = "") -> Iterator[dict[str, Any]]:
    """Every posting with its transaction, in the order of the journal."""
    t, p = tables.ledger_transaction.c, tables.posting.c
    query = sa.select(
        t.id.label("transaction"), t.at, t.effective, t.kind, t.reference, t.period, t.actor, t.reason,
        p.ledger_account, p.subject, p.currency, p.amount_minor,
    ).join_from(tables.ledger_transaction, tables.posting)  # fmt: skip
    if period:
        query = query.where(t.period == period)
    result = connection.execute(query.order_by(t.id, p.id), execution_options={"stream_results": True})
    yield from (dict(row) for row in result.mappings())


def _assert_balanced(entry: Entry) -> None:
    sums: dict[str, int] = defaultdict(int)
    for posting in entry.postings:
        assert isinstance(posting.amount_minor, int), f"{entry.reference}: money is whole minor units"
        assert abs(posting.amount_minor) < AMOUNT_MAX, f"{entry.reference}: {posting.amount_minor} is no amount"
        sums[posting.currency] += posting.amount_minor
    assert not any(sums.values()), f"{entry.reference}: debit and credit differ by {dict(sums)}"


def _refuse_known(connection: sa.Connection, entries: Sequence[Entry]) -> None:
    reference = tables.ledger_transaction.c.reference
    names = [entry.reference for entry in entries]
    for first in range(0, len(names), _LOOKUP_ROWS):
        query = sa.select(reference).where(reference.in_(names[first : first + _LOOKUP_ROWS])).limit(1)
        known = connection.scalar(query)
        if known is not None:
            raise RatemillError(f"the ledger has '{known}' already", "run the same command again: it books what is new")


def _insert_transactions(connection: sa.Connection, entries: Sequence[Entry], actor: Actor) -> dict[str, int]:
    t = tables.ledger_transaction
    last = connection.scalar(sa.select(sa.func.coalesce(sa.func.max(t.c.id), 0)))
    at = clock.now_ms()
    for chunk in _chunks([_transaction_row(entry, at, actor) for entry in entries]):
        connection.execute(t.insert(), chunk)
    wanted = {entry.reference for entry in entries}
    found = connection.execute(sa.select(t.c.reference, t.c.id).where(t.c.id > last))
    ids = {row.reference: int(row.id) for row in found if row.reference in wanted}
    assert len(ids) == len(entries), "every transaction was inserted"
    return ids


def _transaction_row(entry: Entry, at: int, actor: Actor) -> dict[str, Any]:
    return {
        "at": at,
        "effective": entry.effective.isoformat(),
        "kind": entry.kind,
        "reference": entry.reference,
        "period": entry.period,
        "actor": actor.name,
        "reason": actor.reason,
    }


def _posting_row(transaction_id: int, posting: Posting) -> dict[str, Any]:
    return {
        "transaction_id": transaction_id,
        "ledger_account": posting.ledger_account,
        "subject": posting.subject,
        "currency": posting.currency,
        "amount_minor": posting.amount_minor,
    }


def _chunks(found: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for first in range(0, len(found), _CHUNK_ROWS):
        yield found[first : first + _CHUNK_ROWS]


def _existing(connection: sa.Connection, reference: str) -> tuple[int, Entry] | None:
    t, p = tables.ledger_transaction, tables.posting
    row = connection.execute(sa.select(t).where(t.c.reference == reference)).one_or_none()
    if row is None:
        return None
    found = connection.execute(sa.select(p).where(p.c.transaction_id == row.id).order_by(p.c.id))
    postings = tuple(Posting(r.ledger_account, r.subject, r.currency, r.amount_minor) for r in found)
    return int(row.id), Entry(row.kind, row.reference, date.fromisoformat(row.effective), postings, row.period)


def _content(entry: Entry) -> tuple[object, ...]:
    sides = sorted((p.ledger_account, p.subject, p.currency, p.amount_minor) for p in entry.postings)
    return (entry.kind, entry.effective, entry.period, sides)
