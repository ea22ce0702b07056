"""Rules of rounding by name, at and around every half, on both sides of nothing."""

from __future__ import annotations

from fractions import Fraction

import pytest

from core import money

HALF, LESS, MORE = Fraction(1, 2), Fraction(49, 100), Fraction(51, 100)


@pytest.mark.parametrize(("rule", "expected"), [
    ("half_up", {0: 0, LESS: 0, HALF: 1, MORE: 1, 1 + HALF: 2, 2 + HALF: 3, 2 + LESS: 2, 3: 3}),
    ("half_even", {0: 0, LESS: 0, HALF: 0, MORE: 1, 1 + HALF: 2, 2 + HALF: 2, 2 + MORE: 3, 3: 3}),
    ("up", {0: 0, Fraction(1, 10**9): 1, LESS: 1, 1: 1, 1 + MORE: 2, 3: 3}),
    ("down", {0: 0, LESS: 0, MORE: 0, 1: 1, 1 + MORE: 1, 3: 3}),
])
def test_each_rule_on_both_sides_of_nothing(rule: str, expected: dict[Fraction, int]) -> None:
    for value, whole in expected.items():
        assert money.ROUNDING[rule](Fraction(value)) == whole
        assert money.ROUNDING[rule](-Fraction(value)) == -whole


@pytest.mark.parametrize(("minor", "currency", "shown"), [
    (0, "EUR", "0.00"), (5, "EUR", "0.05"), (-5, "EUR", "-0.05"), (-123, "EUR", "-1.23"), (100, "EUR", "1.00"),
    (7, "JPY", "7"), (-7, "JPY", "-7"), (1005, "KWD", "1.005"),
])
def test_amounts_as_text(minor: int, currency: str, shown: str) -> None:
    assert money.format_minor(minor, currency) == shown
    assert money.to_minor(Fraction(shown), currency) == minor
