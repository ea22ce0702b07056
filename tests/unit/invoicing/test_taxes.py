from __future__ import annotations

from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import SettingsError
from core.settings import TaxRate
from invoicing import taxes
from invoicing.charges import Percentages


class Line(NamedTuple):
    net_minor: int
    tax_percent: str
    gross_minor: int | None = None
    tax_category: str = "standard"


def _inclusive(gross: int, percent: str) -> Line:
    return Line(taxes.net_of(gross, percent), percent, gross)


ORACLES = [
    ("en16931", [Line(90891, "21")], 19087, 109978),
    ("en16931", [Line(83102, "25")], 20776, 103878),
    ("en16931", [Line(3600, "5.5")], 198, 3798),
    ("en16931", [Line(360, "5.5")] * 10, 198, 3798),
    ("per_line_sum", [Line(360, "5.5")] * 10, 200, 3800),
    ("gross_kept", [_inclusive(5250, "12")], 562, 5250),
    ("en16931", [_inclusive(5250, "12")], 563, 5251),
    ("gross_kept", [_inclusive(5250, "12"), Line(1000, "12"), Line(7, "12")], 562 + 121, 5250 + 1007 + 121),
    ("en16931", [Line(-19333, "25")], -4833, -24166),
]
IDS = [
    "EN 16931 ubl-tc434-example8", "CEN BIS_Billing_30-Telefoni", "10 x 3.60 as one line", "10 x 3.60 as ten lines",
    "10 x 3.60 per line", "52.50 incl. 12 %", "52.50 incl. 12 % once per category", "inclusive beside exclusive",
    "Lago credit note",
]  # fmt: skip


@pytest.mark.parametrize(("policy", "lines", "tax", "gross"), ORACLES, ids=IDS)
def test_the_tax_is_the_published_one(policy: str, lines: list[Line], tax: int, gross: int) -> None:
    made = taxes.totals(lines, policy)
    assert (made.tax_minor, made.gross_minor) == (tax, gross)
    assert made.net_minor == sum(line.net_minor for line in lines)


@pytest.mark.parametrize(
    ("last_day", "percent"), [(date(2025, 12, 31), "20"), (date(2026, 1, 1), "22")], ids=["Russia 2025", "Russia 2026"]
)
def test_the_percentage_is_that_of_the_last_day_of_the_supply(last_day: date, percent: str) -> None:
    rates = [
        TaxRate("standard", Fraction(22), date(2026, 1, 1)),
        TaxRate("standard", Fraction(20), date(2019, 1, 1)),
        TaxRate("reduced", Fraction(10), date(2019, 1, 1)),
    ]
    end = date.fromordinal(last_day.toordinal() + 1)
    assert Percentages(rates).of("standard", end) == percent
    with pytest.raises(SettingsError, match="no \\[\\[tax\\]\\]"):
        Percentages(rates).of("standard", date(2019, 1, 1))


def test_categories_and_percentages_are_taxed_apart_and_in_order() -> None:
    lines = [Line(100, "19"), Line(100, "7", tax_category="reduced"), Line(100, "5.5", tax_category="reduced")]
    made = taxes.totals(lines, "en16931")
    assert [(row.category, row.percent, row.tax_minor) for row in made.taxes] == [
        ("reduced", "5.5", 6),
        ("reduced", "7", 7),
        ("standard", "19", 19),
    ]


@pytest.mark.parametrize(
    ("percent", "text"), [(Fraction(19), "19"), (Fraction(11, 2), "5.5"), (Fraction(0), "0"), (Fraction(20), "20")]
)
def test_a_percentage_is_written_without_trailing_zeros(percent: Fraction, text: str) -> None:
    assert taxes.percent_text(percent) == text


PERCENT = st.sampled_from(["0", "5.5", "7", "12", "19", "20", "22", "25"])
MINOR = st.integers(-(10**12), 10**12)


@given(st.lists(st.tuples(MINOR, PERCENT), min_size=1, max_size=12))
def test_each_policy_agrees_with_decimal_arithmetic(found: list[tuple[int, str]]) -> None:
    lines = [Line(net, percent) for net, percent in found]

    def half_up(net: int, percent: str) -> int:
        return int((Decimal(net) * Decimal(percent) / 100).quantize(Decimal(1), ROUND_HALF_UP))

    once = sum(half_up(sum(n for n, p in found if p == percent), percent) for percent in {p for _, p in found})
    assert taxes.totals(lines, "en16931").tax_minor == once
    assert taxes.totals(lines, "gross_kept").tax_minor == once
    assert taxes.totals(lines, "per_line_sum").tax_minor == sum(half_up(net, percent) for net, percent in found)


@given(st.lists(st.tuples(st.integers(0, 10**9), PERCENT), min_size=1, max_size=12))
def test_kept_gross_is_kept_to_the_cent(found: list[tuple[int, str]]) -> None:
    made = taxes.totals([_inclusive(gross, percent) for gross, percent in found], "gross_kept")
    assert made.gross_minor == sum(gross for gross, _ in found)
