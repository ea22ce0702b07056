from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import money, units


@pytest.mark.parametrize(
    ("value", "rounded"), [("0.5", 1), ("-0.5", -1), ("1.4999", 1), ("2.5", 3), ("-2.5", -3), ("0", 0)]
)
def test_halves_go_away_from_zero(value: str, rounded: int) -> None:
    assert money.round_half_up(Fraction(value)) == rounded


@given(st.fractions())
def test_rounding_is_nearest_and_odd(value: Fraction) -> None:
    rounded = money.round_half_up(value)
    assert abs(rounded - value) <= Fraction(1, 2)
    assert money.round_half_up(-value) == -rounded


@pytest.mark.parametrize(("currency", "minor"), [("EUR", 1990), ("JPY", 20), ("KWD", 19900)])
def test_a_currency_has_its_own_minor_unit(currency: str, minor: int) -> None:
    assert money.to_minor(Fraction("19.90"), currency) == minor


@given(st.integers(-(10**15), 10**15), st.sampled_from(["EUR", "JPY", "KWD"]))
def test_written_amounts_are_read_back(minor: int, currency: str) -> None:
    assert money.to_minor(Fraction(money.format_minor(minor, currency)), currency) == minor


@pytest.mark.parametrize("text", ["1e3", "19,90", "", "1.0000000001", " 1", "NaN", "1."])
def test_a_price_that_could_be_misread_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a price"):
        money.parse_price(text)


@pytest.mark.parametrize(("text", "octets"), [("100 GB", 10**11), ("1 GiB", 2**30), ("1.5 kB", 1500), ("0B", 0)])
def test_volumes_state_their_unit(text: str, octets: int) -> None:
    assert units.parse_octets(text) == octets


@pytest.mark.parametrize("text", ["100", "100 gb", "1.0001 kB", "-1 GB", "GB", "1 Gb"])
def test_volumes_are_never_guessed(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        units.parse_octets(text)
