from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest
import sqlalchemy as sa
from billing_home import Charge, make_home, rate, rows_of

from core import tables
from core.actor import Actor
from core.errors import NotFound, RatemillError
from core.periods import parse_instant
from invoicing import run
from ledger import checks, journal
from ledger.journal import Entry, Posting
from storage import sql
from storage.home import Home

ACTOR = Actor("tester", "test")
DAY = date(2026, 11, 2)
SALE = [
    Posting("receivables", "A1", "EUR", 119),
    Posting("revenue:fee", "", "EUR", -100),
    Posting("tax:standard", "", "EUR", -19),
]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


def _post(home: Home, reference: str, postings: list[Posting]) -> int:
    with sql.transaction(sql.engine(home)) as connection:
        return journal.post(connection, "sale", reference, DAY, postings, ACTOR, "2026-10")


def _balances(home: Home) -> dict[tuple[str, str], int]:
    with sql.reading(sql.engine(home)) as connection:
        found = journal.balances(connection)
        return {(row["ledger_account"], row["subject"]): row["balance_minor"] for row in found}


@pytest.mark.parametrize("wrong", [SALE[:2], [Posting("a", "", "EUR", 1), Posting("b", "", "USD", -1)]])
def test_a_transaction_that_does_not_sum_to_zero_in_each_currency_is_a_mistake_of_the_programmer(
    home: Home, wrong: list[Posting]
) -> None:
    with pytest.raises(AssertionError, match="differ"):
        _post(home, "one", wrong)
    assert rows_of(home, tables.ledger_transaction) == []


def test_a_balance_is_the_fold_of_its_postings(home: Home) -> None:
    _post(home, "one", SALE)
    _post(home, "two", SALE)
    assert _balances(home) == {("receivables", "A1"): 238, ("revenue:fee", ""): -200, ("tax:standard", ""): -38}


def test_the_same_reference_with_the_same_content_is_posted_once(home: Home) -> None:
    assert _post(home, "one", SALE) == _post(home, "one", list(reversed(SALE)))
    assert len(rows_of(home, tables.posting)) == 3


def test_the_same_reference_with_other_content_is_refused(home: Home) -> None:
    _post(home, "one", SALE)
    with pytest.raises(RatemillError, match="has 'one' already"):
        _post(home, "one", [])
    with pytest.raises(RatemillError, match="has 'one' already"), sql.transaction(sql.engine(home)) as connection:
        journal.post_many(connection, [Entry("sale", n, DAY, tuple(SALE)) for n in ("zero", "one")], ACTOR)
    assert len(rows_of(home, tables.ledger_transaction)) == 1


def test_an_error_is_reversed_and_never_edited(home: Home) -> None:
    _post(home, "one", SALE)
    for _ in range(2):
        with sql.transaction(sql.engine(home)) as connection:
            journal.reverse(connection, "one", DAY, ACTOR)
    assert set(_balances(home).values()) == {0}
    assert [row["reference"] for row in rows_of(home, tables.ledger_transaction)] == ["one", "reversal:one"]
    with pytest.raises(NotFound, match="nothing"), sql.transaction(sql.engine(home)) as connection:
        journal.reverse(connection, "nothing", DAY, ACTOR)


def _failing(home: Home) -> set[str]:
    with sql.reading(sql.engine(home)) as connection:
        return {row["check"] for row in checks.run(connection) if row["failed"]}


@pytest.fixture
def invoiced(home: Home) -> Home:
    rate(home, "2026-10", [Charge("S1"), Charge("S2")])
    run.run(home, "2026-10", parse_instant("2026-11-02T00:00:00Z"), False, ACTOR)
    return home


def test_a_sound_ledger_passes_every_check(invoiced: Home) -> None:
    assert _failing(invoiced) == set()


@pytest.mark.parametrize(
    ("damage", "broken"),
    [
        ("UPDATE posting SET amount_minor = amount_minor + 1 WHERE id = 2", {"every transaction sums to zero"}),
        ("UPDATE posting SET subject = 'A2' WHERE id = 1", {"every invoice is owed once, by its account"}),
        (
            "UPDATE invoice SET gross_minor = gross_minor + 1 WHERE id = 1",
            {"every invoice is owed once, by its account"},
        ),
        (
            "UPDATE ledger_transaction SET reference = 'invoice:A-000099' WHERE id = 1",
            {
                "every invoice is owed once, by its account",
                "every invoice has a transaction",
                "every invoice transaction has an invoice",
            },
        ),
    ],
)
def test_what_somebody_changes_behind_the_ledgers_back_is_named(invoiced: Home, damage: str, broken: set[str]) -> None:
    with sql.transaction(sql.engine(invoiced)) as connection:
        connection.execute(sa.text(damage))
    assert _failing(invoiced) == broken


def test_a_posting_without_its_transaction_is_named(invoiced: Home) -> None:
    with closing(sqlite3.connect(invoiced.path / "ratemill.db")) as connection, connection:  # foreign keys are off
        connection.execute("UPDATE posting SET transaction_id = 99 WHERE transaction_id = 2")
    assert "every posting has a transaction" in _failing(invoiced)
