"""What `rate explain` says of a charge comes to the charge, for random services under random plans."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from fractions import Fraction
from random import Random
from typing import Any

import random_bills
from hypothesis import given, settings
from hypothesis import strategies as st

from core import money
from rating import arithmetic, engine, plans


def worked_out(text: str) -> Fraction:
    """A sum as a person would work it out: × and ÷ from left to right, then + and −."""
    assert re.fullmatch(r"[0-9./ ×÷+−()]+", text), text
    python = re.sub(r"\d+(\.\d+)?", r"Fraction('\g<0>')", text.replace("×", "*").replace("÷", "/").replace("−", "-"))
    return Fraction(eval(python, {"Fraction": Fraction}))


def bill(case: random_bills.Case, rated: engine.Rated, service: str) -> arithmetic.Bill:
    inputs = case.inputs
    rows = sorted((row for row in case.subscriptions if row.service == service), key=engine.rank)
    stretches = [found for row in rows if (found := engine.stretch_of(row, inputs.catalogue, case.period)) is not None]
    usage = {number: used for number, used in inputs.usage.items() if number is not None}
    return arithmetic.Bill(stretches, [one for one in rated.charges if one.service == service], usage, inputs.slots)


def said(rows: list[arithmetic.Said], what: str) -> list[Any]:
    return [value for name, value, _, _ in rows if name == what]


@settings(max_examples=250, deadline=None)
@given(seed=st.integers(0, 2**63))
def test_the_arithmetic_of_an_explanation_comes_to_the_charge(seed: int) -> None:
    case = random_bills.case(Random(seed))
    rated = case.by_engine()
    for service in {row.service for row in case.subscriptions}:
        whole = bill(case, rated, service)
        for charge in whole.charges:
            rows = list(arithmetic.rows(whole, charge))
            plan = whole.stretch_of(charge).plan
            [text] = said(rows, "arithmetic")
            minor = worked_out(text) * 10 ** money.minor_digits(charge.currency)
            assert [plan.round(minor)] == said(rows, "amount") == [engine.amount_of(charge)], (charge, rows)
            if charge.kind == "quota":
                left = sum(said(rows, "carried in")) + said(rows, "given")[0] - said(rows, "used")[0]
                assert left == sum(said(rows, "carried out")) + said(rows, "lost")[0]
                assert said(rows, "lost")[0] >= 0
            if charge.kind in ("minimum", "maximum"):
                [total], [bound] = said(rows, "sum of the lines"), said(rows, charge.kind)
                limit = worked_out(bound) * 10 ** money.minor_digits(charge.currency)
                change = max(0, limit - total) if charge.kind == "minimum" else min(0, limit - total)
                assert plan.round(Fraction(change)) == engine.amount_of(charge)
            if charge.kind == "traffic" and said(rows, "billed"):
                tiers = [value for name, value, _, _ in rows if name.startswith("tier ")]
                assert sum(map(worked_out, tiers)) == worked_out(text)


def test_an_add_ons_discount_is_limited_by_what_earlier_ones_left() -> None:
    own = plans.Plan("own", date(2020, 1, 1), "EUR", "none", False, None,
                     (plans.Fee("A", "10", "month", "arrears", "actual_days"),), (), ())
    off = [plans.Discount(f"Off {amount}", "", amount, (), of="service") for amount in ("4", "3", "9")]
    addons = [replace(own, name=name, fees=(), discounts=tuple(lines)) for name, lines in (("x", off[:2]), ("y", off[2:]))]
    row = engine.Subscription(1, "S", "own", date(2026, 1, 1), None, "UTC", "EUR")
    rows = [row, replace(row, id=2, plan="x", is_addon=True), replace(row, id=3, plan="y", is_addon=True)]
    catalogue = plans.Catalogue([own, *addons])
    rated = engine.rate(engine.Inputs("2026-10", rows, catalogue, {}, {}, random_bills.percent_on))
    stretches = [stretch for one in rows if (stretch := engine.stretch_of(one, catalogue, "2026-10"))]
    whole = arithmetic.Bill(stretches, rated.charges, {}, {})
    found = {charge.line: list(arithmetic.rows(whole, charge)) for charge in rated.charges}
    assert [said(found[line.name], "at most") for line in off] == [[1000], [600], [300]]
    assert said(found["Off 9"], "arithmetic") == ["0 − 3.00"]


def test_every_kind_of_line_was_explained() -> None:
    """The seeds above are random; these hundred hold every kind of row that an explanation has."""
    found: set[str] = set()
    for seed in range(100):
        case = random_bills.case(Random(seed))
        rated = case.by_engine()
        for service in {row.service for row in case.subscriptions}:
            whole = bill(case, rated, service)
            found |= {re.sub(r"\d+|of .*", "", what).strip() for charge in whole.charges
                      for what, _, _, _ in arithmetic.rows(whole, charge)}
    assert found >= {"held", "proration", "charged while", "event", "fees that remain", "octets", "covered by quotas",
                     "included", "sampled and refused", "started blocks", "billed", "tier", "slots", "dropped", "committed",
                     "carried in", "given", "used", "carried out", "lost", "sum", "minimum", "maximum", "holds", "at most"}
