"""Whole-number money: amounts are minor units (int) of a currency, prices are exact fractions of a text.

Rounding happens once a line, by one function, named by its rule. No float comes near money.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

MINOR_DIGITS: dict[str, int] = {
    "BHD": 3,
    "BIF": 0,
    "CLP": 0,
    "DJF": 0,
    "GNF": 0,
    "IQD": 3,
    "ISK": 0,
    "JOD": 3,
    "JPY": 0,
    "KMF": 0,
    "KRW": 0,
    "KWD": 3,
    "LYD": 3,
    "OMR": 3,
    "PYG": 0,
    "RWF": 0,
    "TND": 3,
    "UGX": 0,
    "UYI": 0,
    "VND": 0,
    "VUV": 0,
    "XAF": 0,
    "XOF": 0,
    "XPF": 0,
}
"""ISO 4217 currencies whose minor unit is not a hundredth."""

_CURRENCY = re.compile(r"[A-Z]{3}")
_PRICE = re.compile(r"-?\d{1,15}(?:\.\d{1,9})?")


def minor_digits(currency: str) -> int:
    """Digits after the point in amounts of this currency (ISO 4217)."""
    if _CURRENCY.fullmatch(currency) is None:
        raise ValueError(f"'{currency}' is not a currency code of three capital letters (ISO 4217)")
    return MINOR_DIGITS.get(currency, 2)


def parse_price(text: str) -> Fraction:
    """A price in major units as text ('19.90'), at most nine decimals (nano-units), exactly."""
    if _PRICE.fullmatch(text) is None:
        raise ValueError(f"'{text}' is not a price: digits, a point and at most nine decimals")
    return Fraction(text)


def round_half_up(value: Fraction) -> int:
    """To the nearest whole number, halves away from zero (the commercial rule)."""
    doubled = 2 * abs(value.numerator) + value.denominator
    rounded = doubled // (2 * value.denominator)
    return rounded if value >= 0 else -rounded


def round_half_even(value: Fraction) -> int:
    """To the nearest whole number, halves to the even one (the banker's rule)."""
    return round(value)


def round_up(value: Fraction) -> int:
    """To the next whole number away from zero."""
    whole = -(-abs(value.numerator) // value.denominator)
    return whole if value >= 0 else -whole


def round_down(value: Fraction) -> int:
    """To the next whole number towards zero."""
    whole = abs(value.numerator) // value.denominator
    return whole if value >= 0 else -whole


ROUNDING: dict[str, Callable[[Fraction], int]] = {
    "half_up": round_half_up,
    "half_even": round_half_even,
    "up": round_up,
    "down": round_down,
}
"""Rules by the name that a plan gives them."""


def to_minor(amount: Fraction, currency: str) -> int:
    """An exact amount in major units → minor units, half-up away from zero."""
    return round_half_up(amount * 10 ** minor_digits(currency))


def format_minor(minor: int, currency: str) -> str:
    """Minor units → '1234.50' in major units, without the currency."""
    digits = minor_digits(currency)
    if digits == 0:
        return str(minor)
    sign = "-" if minor < 0 else ""
    whole, part = divmod(abs(minor), 10**digits)
    return f"{sign}{whole}.{part:0{digits}d}"
