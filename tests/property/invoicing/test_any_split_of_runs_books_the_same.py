"""Whatever the order of ratings and runs, what is booked is the charges as they stand, and every sum agrees."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from billing_home import Charge, make_home, rate, rows_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import tables
from core.actor import Actor
from core.periods import parse_instant
from invoicing import run, verification
from ledger import checks
from storage import sql
from storage.home import Home

ACTOR = Actor("tester", "test")
PERIODS = ("2026-09", "2026-10")
NAMES = ("Fee", "Traffic", "Peak")

CHARGES = st.dictionaries(
    st.tuples(st.sampled_from(["S1", "S2", "S10"]), st.sampled_from(NAMES)), st.integers(0, 50_000), max_size=6
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("rate"), st.sampled_from(PERIODS), CHARGES),
        st.tuples(st.just("invoice"), st.sampled_from(PERIODS), st.just({})),
    ),
    max_size=8,
)


def _rate(home: Home, period: str, wanted: dict[tuple[str, str], int], inclusive: bool) -> None:
    charges = []
    for (service, name), amount in sorted(wanted.items()):
        net, gross = (amount * 100 * 2 // 119 + 1) // 2, amount
        price = {"net": net, "gross": gross} if inclusive else {"net": amount}
        charges.append(Charge(service, name, **price, quantity=str(amount)))  # type: ignore[arg-type]
    rate(home, period, charges)


def _invoice(home: Home, period: str) -> dict[str, Any]:
    return run.run(home, period, parse_instant("2026-11-02T00:00:00Z"), False, ACTOR)


@pytest.fixture
def home_maker(tmp_path_factory: pytest.TempPathFactory) -> object:
    return lambda policy: make_home(tmp_path_factory.mktemp("home"), ["A1", "A2", "A10"], policy=policy)


@settings(max_examples=20, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])  # fmt: skip
@given(
    steps=STEPS,
    last=st.tuples(CHARGES, CHARGES),
    policy=st.sampled_from(["en16931", "per_line_sum", "gross_kept"]),
    inclusive=st.booleans(),
)
def test_any_split_of_runs_books_the_charges_as_they_stand(
    steps: list[Any], last: tuple[Any, Any], policy: str, inclusive: bool, home_maker: Any
) -> None:
    home = home_maker(policy)
    rated = set()
    for step, period, wanted in steps:
        if step == "rate":
            _rate(home, period, wanted, inclusive)
            rated.add(period)
        elif period in rated:
            _invoice(home, period)
    for period, wanted in zip(PERIODS, last, strict=True):
        _rate(home, period, wanted, inclusive)
        _invoice(home, period)
    for period in PERIODS:
        assert _invoice(home, period)["invoices"] == 0, "a second run has nothing to book"
    for period, wanted in zip(PERIODS, last, strict=True):
        _assert_booked(home, period, wanted, inclusive)
    _assert_every_sum_agrees(home, kept=policy == "gross_kept" and inclusive)
    for invoice in rows_of(home, tables.invoice)[-3:]:
        assert verification.verify(home, invoice["number"], 1)["differences"] == []


def _assert_booked(home: Home, period: str, wanted: dict[tuple[str, str], int], inclusive: bool) -> None:
    column = "gross_minor" if inclusive else "net_minor"
    booked: Counter[tuple[str, str]] = Counter()
    for line in rows_of(home, tables.invoice_line):
        if line["period"] == period:
            booked[line["service"], line["charge_line"]] += line[column]
    assert {key: amount for key, amount in booked.items() if amount} == {k: a for k, a in wanted.items() if a}


def _assert_every_sum_agrees(home: Home, kept: bool) -> None:
    invoices, lines, taxes = (rows_of(home, t) for t in (tables.invoice, tables.invoice_line, tables.invoice_tax))
    assert [row["number"] for row in invoices] == [f"A-{n:06d}" for n in range(1, len(invoices) + 1)]
    for invoice in invoices:
        own = [line for line in lines if line["invoice_id"] == invoice["id"]]
        assert [line["line"] for line in own] == list(range(1, len(own) + 1))
        assert invoice["net_minor"] == sum(line["net_minor"] for line in own)
        assert invoice["tax_minor"] == sum(row["tax_minor"] for row in taxes if row["invoice_id"] == invoice["id"])
        assert invoice["gross_minor"] == invoice["net_minor"] + invoice["tax_minor"]
        assert any(line["net_minor"] or line["gross_minor"] for line in own)
        if kept:
            assert invoice["gross_minor"] == sum(line["gross_minor"] for line in own)
    postings = rows_of(home, tables.posting)
    for account in ("A1", "A2", "A10"):
        owed = sum(p["amount_minor"] for p in postings if p["subject"] == account)
        assert owed == sum(row["gross_minor"] for row in invoices if row["account"] == account)
    assert sum(p["amount_minor"] for p in postings) == 0
    with sql.reading(sql.engine(home)) as connection:
        assert not any(row["failed"] for row in checks.run(connection))
