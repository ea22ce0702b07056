"""Units of volume and speed. K, M, G are powers of 10^3, Ki, Mi, Gi powers of 2^10: stated in the text, never guessed."""

from __future__ import annotations

import re
from fractions import Fraction

OCTET_UNITS: dict[str, int] = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
"""Unit of volume → octets."""

RATE_UNITS: dict[str, int] = {"bit/s": 1, "kbit/s": 10**3, "Mbit/s": 10**6, "Gbit/s": 10**9}
"""Unit of speed → bits a second."""

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z/]+)")


def parse_quantity(text: str, units: dict[str, int]) -> Fraction:
    """'100 GB' → 100 * 10^9, exactly. Raises ValueError with the list of units that are understood."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] not in units:
        raise ValueError(f"'{text}' is not a number and a unit of {', '.join(units)}")
    return Fraction(match[1]) * units[match[2]]


def parse_octets(text: str) -> int:
    """'100 GB' → octets. Raises ValueError if it is not a whole number of octets."""
    octets = parse_quantity(text, OCTET_UNITS)
    if octets.denominator != 1:
        raise ValueError(f"'{text}' is not a whole number of octets")
    return octets.numerator


def format_octets(octets: int) -> str:
    """A short text for people: '1.50 GB'. Never for exports."""
    for unit in ("TB", "GB", "MB", "kB"):
        if abs(octets) >= OCTET_UNITS[unit]:
            return f"{octets / OCTET_UNITS[unit]:.2f} {unit}"
    return f"{octets} B"
