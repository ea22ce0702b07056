"""Taxes and totals of an invoice by a named policy. Pure; whole minor units, exact percentages, one rounding.

en16931       per category and percentage: half-up(sum of net * percent / 100), once
per_line_sum  per category and percentage: the sum of half-up(net * percent / 100) of each line
gross_kept    lines whose price includes the tax: sum of gross - sum of net; the others as en16931
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import cache
from typing import NamedTuple, Protocol

from core.money import parse_price, round_half_up


class Taxed(Protocol):
    """What the tax needs of a line."""

    @property
    def tax_category(self) -> str: ...

    @property
    def tax_percent(self) -> str: ...

    @property
    def net_minor(self) -> int: ...

    @property
    def gross_minor(self) -> int | None: ...


class TaxRow(NamedTuple):
    """The tax of one category at one percentage."""

    category: str
    percent: str
    net_minor: int
    tax_minor: int


class Totals(NamedTuple):
    net_minor: int
    tax_minor: int
    gross_minor: int
    taxes: tuple[TaxRow, ...]


@cache
def percent_of(text: str) -> Fraction:
    """'19' → 19/100, exactly."""
    return parse_price(text) / 100


@cache
def percent_text(percent: Fraction) -> str:
    """A percentage as text without trailing zeros: '19', '5.5'."""
    nanos = percent * 10**9
    assert percent >= 0, f"{percent} is no percentage"
    assert nanos.denominator == 1, f"{percent} has more than nine decimals"
    whole, part = divmod(nanos.numerator, 10**9)
    return f"{whole}.{part:09d}".rstrip("0").rstrip(".")


def tax_of(net_minor: int, percent: str) -> int:
    """half-up(net * percent / 100)."""
    return round_half_up(net_minor * percent_of(percent))


def net_of(gross_minor: int, percent: str) -> int:
    """The net of a gross price: half-up(gross * 100 / (100 + percent))."""
    return round_half_up(Fraction(gross_minor) / (1 + percent_of(percent)))


def totals(lines: Iterable[Taxed], policy: str) -> Totals:
    """Net, tax and gross of an invoice; the tax rows in the order of category and percentage."""
    groups: dict[tuple[str, str], list[Taxed]] = {}
    for line in lines:
        groups.setdefault((line.tax_category, line.tax_percent), []).append(line)
    rows = []
    for category, percent in sorted(groups, key=lambda group: (group[0], percent_of(group[1]))):
        group = groups[category, percent]
        rows.append(TaxRow(category, percent, _net(group), _POLICIES[policy](group, percent)))
    net, tax = sum(row.net_minor for row in rows), sum(row.tax_minor for row in rows)
    return Totals(net, tax, net + tax, tuple(rows))


def _net(lines: Sequence[Taxed]) -> int:
    return sum(line.net_minor for line in lines)


def _once_per_category(lines: Sequence[Taxed], percent: str) -> int:
    return tax_of(_net(lines), percent)


def _sum_of_lines(lines: Sequence[Taxed], percent: str) -> int:
    return sum(tax_of(line.net_minor, percent) for line in lines)


def _gross_kept(lines: Sequence[Taxed], percent: str) -> int:
    kept = sum(line.gross_minor - line.net_minor for line in lines if line.gross_minor is not None)
    return kept + _once_per_category([line for line in lines if line.gross_minor is None], percent)


_POLICIES: dict[str, Callable[[Sequence[Taxed], str], int]] = {
    "en16931": _once_per_category,
    "per_line_sum": _sum_of_lines,
    "gross_kept": _gross_kept,
}
