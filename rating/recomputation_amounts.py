"""The second engine's own arithmetic: rounding, decimals and units, nothing of `core.money` or `core.units`."""

from __future__ import annotations

from fractions import Fraction

OCTETS = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4,
          "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
BITS = {"bit/s": 1, "kbit/s": 1000, "Mbit/s": 1000**2, "Gbit/s": 1000**3}


def rounded(value: Fraction, rule: str = "half_up") -> int:
    """To a whole number: half_up (halves away from zero), half_even, up (away from zero) or down (towards zero)."""
    whole, rest = divmod(abs(value.numerator), value.denominator)
    twice = 2 * rest
    if rule == "up":
        whole += rest > 0
    elif rule == "half_even":
        whole += twice > value.denominator or (twice == value.denominator and whole % 2 == 1)
    elif rule == "half_up":
        whole += twice >= value.denominator
    else:
        assert rule == "down", rule
    return whole if value >= 0 else -whole


def unit_of(text: str, units: dict[str, int]) -> str:
    """The unit at the end of '100 GB'."""
    return max((name for name in units if text.strip().endswith(name)), key=len)


def amount_of(text: str, units: dict[str, int]) -> Fraction:
    """'100 GB' or '10Mbit/s' → octets or bits a second."""
    unit = unit_of(text, units)
    return Fraction(text.strip().removesuffix(unit).strip()) * units[unit]


def decimal(value: Fraction) -> str:
    """A value of 0 or more whose digits end, without trailing zeros."""
    digits = 0
    while (value * 10**digits).denominator != 1:
        digits += 1
    whole, part = divmod(int(value * 10**digits), 10**digits)
    return f"{whole}.{part:0{digits}d}" if digits else str(whole)


def times(count: int, quantity: str) -> str:
    """'1' twice is '2', '14/31' twice is '28/31'."""
    parts = quantity.split("/")
    return "/".join([str(int(parts[0]) * count), *parts[1:]])
