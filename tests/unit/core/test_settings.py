from __future__ import annotations

from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest

from core import settings
from core.errors import SettingsError


def _document(tmp_path: Path, text: str) -> settings.Document:
    path = tmp_path / "ratemill.toml"
    path.write_text(text)
    return settings.load(path)


def test_an_unknown_section_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'sampling'"):
        _document(tmp_path, "[samplin]\n")


def test_all_problems_of_a_section_are_reported_at_once(tmp_path: Path) -> None:
    document = _document(tmp_path, '[seller]\nnane = "x"\ntimezone = "Mars"\ncurrency = "euro"\n')
    with pytest.raises(SettingsError) as caught:
        settings.seller(document)
    for part in ("'name'", "Mars", "euro"):
        assert part in str(caught.value)


def test_a_percentage_is_exact_and_dated(tmp_path: Path) -> None:
    rates = settings.tax_rates(
        _document(
            tmp_path,
            """
[[tax]]
category = "standard"
percent = "20"
from = 2019-01-01
[[tax]]
category = "standard"
percent = "22"
from = 2026-01-01
""",
        )
    )
    assert settings.percent_on(rates, "standard", date(2025, 12, 31)) == Fraction(20)
    assert settings.percent_on(rates, "standard", date(2026, 1, 1)) == Fraction(22)
    with pytest.raises(SettingsError, match="2018"):
        settings.percent_on(rates, "standard", date(2018, 12, 31))
    with pytest.raises(SettingsError, match="in quotes"):
        settings.tax_rates({"tax": [{"category": "a", "percent": 19.0, "from": date(2019, 1, 1)}]})


def test_a_secret_comes_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELLER_IBAN", "DE1")
    (tmp_path / "name").write_text("From a file\n")
    document = {"seller": {"iban": {"env": "SELLER_IBAN"}, "name": {"file": str(tmp_path / "name")}}}
    seller = settings.seller(document)
    assert (seller.iban, seller.name) == ("DE1", "From a file")
    with pytest.raises(SettingsError, match="NO_SUCH"):
        settings.seller({"seller": {"iban": {"env": "NO_SUCH"}}})
