from __future__ import annotations

from datetime import date

import pytest

from invoicing import language


def test_both_languages_have_the_same_words() -> None:
    assert language.words("en").keys() == language.words("ru").keys()
    assert all(language.words(spoken).values() for spoken in ("en", "ru"))


@pytest.mark.parametrize(
    ("minor", "currency", "english", "russian"),
    [
        (0, "EUR", "0.00", "0,00"),
        (123456789, "EUR", "1,234,567.89", "1\u00a0234\u00a0567,89"),
        (-5, "EUR", "−0.05", "−0,05"),
        (1234, "JPY", "1,234", "1\u00a0234"),
        (1234567, "KWD", "1,234.567", "1\u00a0234,567"),
    ],
)
def test_amounts_are_written_in_the_languages_way(minor: int, currency: str, english: str, russian: str) -> None:
    assert language.amount(minor, currency, "en") == english
    assert language.amount(minor, currency, "ru") == russian


def test_a_quantity_of_days_is_left_as_it_is() -> None:
    assert language.number("14/28", "ru") == "14/28"
    assert language.number("12.5", "ru") == "12,5"


def test_a_span_names_its_first_and_last_day() -> None:
    assert language.span("2026-10-01", "2026-11-01", "en") == "2026-10-01 – 2026-10-31"
    assert language.span("2026-10-01", "2026-10-02", "ru") == "01.10.2026"
    assert language.long_day(date(2026, 11, 2), "ru") == "2 ноября 2026"
    assert language.month("2026-10", "ru") == "октябрь 2026"


@pytest.mark.parametrize(
    ("octets", "text"),
    [(0, "0.000"), (499_999, "0.000"), (500_000, "0.001"), (1_999_500_000, "2.000"), (2**60, "1,152,921,504.607")],
)
def test_a_volume_is_rounded_in_whole_numbers(octets: int, text: str) -> None:
    assert language.octets(octets, "en") == f"{text}\u00a0GB"
