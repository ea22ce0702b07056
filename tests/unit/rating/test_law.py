"""What the law of a market refuses in a plan, and the facts that are shipped."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import rating_home

from core import clock, markets
from core.periods import parse_instant
from monitoring import home_check
from rating import law, linter

PLAN: dict[str, Any] = {"name": "p", "from": "2026-01-01", "traffic": [{"name": "T", "classes": []}],
                        "quota": [], "contract": {"months": 24}}


@pytest.mark.parametrize(("changes", "said"), [
    ({}, []),
    ({"traffic": [{"name": "T", "classes": ["video"]}]}, ["(EU) 2015/2120"]),
    ({"quota": [{"name": "Q", "classes": ["video"]}]}, ["(EU) 2015/2120"]),
    ({"fair_use": [{"name": "F", "classes": ["p2p"]}]}, ["(EU) 2015/2120"]),
    ({"traffic": [{"name": "T", "classes": ["video"]}], "audience": "business"}, []),
    ({"traffic": [{"name": "T", "classes": ["video"]}], "from": "2016-04-29"}, []),
    ({"traffic": [{"name": "T", "classes": [], "zones": ["night"]}]}, []),
    ({"contract": {"months": 25}}, ["at most 24 months (TKG § 56)"]),
    ({"contract": {"months": 36}, "audience": "business"}, []),
    ({"contract": {"months": 36}, "from": "2021-11-30"}, []),
])
def test_what_germany_refuses(changes: dict[str, Any], said: list[str]) -> None:
    found = [problem for _, _, problem, _ in law.problems({**PLAN, **changes}, markets.load("de"))]
    assert len(found) == len(said)
    assert all(one in problem for one, problem in zip(said, found, strict=True))


def test_russia_lets_prices_differ() -> None:
    plan = {**PLAN, "traffic": [{"name": "T", "classes": ["video"]}], "contract": {"months": 60}}
    assert list(law.problems(plan, markets.load("ru"))) == []


@pytest.mark.parametrize(("code", "category", "day", "percent"), [
    ("ru", "standard", "2018-12-31", "18"), ("ru", "standard", "2025-12-31", "20"), ("ru", "standard", "2026-01-01", "22"),
    ("de", "standard", "2020-06-30", "19"), ("de", "standard", "2020-12-31", "16"), ("de", "standard", "2021-01-01", "19"),
    ("de", "reduced", "2020-07-01", "5"), ("de", "reduced", "2026-01-01", "7"),
])
def test_the_tax_goes_by_the_date_of_supply(code: str, category: str, day: str, percent: str) -> None:
    rate = markets.load(code).vat_on(category, date.fromisoformat(day))
    assert rate is not None
    assert rate.percent == Fraction(percent)


def test_advances_are_taxed_in_russia() -> None:
    assert markets.load("ru").advance_share("standard", date(2025, 12, 31)) == Fraction(20, 120)
    assert markets.load("ru").advance_share("standard", date(2026, 1, 1)) == Fraction(22, 122)
    assert markets.load("de").advance_share("standard", date(2026, 1, 1)) is None


def test_each_market_names_its_sources() -> None:
    assert markets.codes() == ["de", "ru"]
    for code in markets.codes():
        assert all(rate.source for rate in markets.load(code).vat)


FILE = """
[[plan]]
name = "p"
from = 2026-01-01
currency = "EUR"
tax = "standard"
prices = "exclusive"
{more}
[[plan.traffic]]
name = "T"
direction = "down"
classes = ["video"]
price = "1.00"
unit = "GB"
"""


@pytest.mark.parametrize(("more", "lines"), [("", [12]), ('audience = "business"\n', [])])
def test_the_linter_names_the_line(tmp_path: Path, more: str, lines: list[int]) -> None:
    path = tmp_path / "plans.toml"
    path.write_text(FILE.format(more=more))
    around = linter.Surroundings(frozenset({"standard"}), frozenset({"video", "default"}), {}, markets.load("de"))
    assert [problem.line for problem in linter.read(path, around).problems] == lines


def test_the_check_of_a_home_holds_its_taxes_against_the_market(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: parse_instant("2025-06-01T00:00:00Z"))
    settings = rating_home.SETTINGS.replace('timezone = "Europe/Berlin"', 'timezone = "Europe/Moscow"\nmarket = "ru"').replace(
        'percent = "19"', 'percent = "20"').replace('percent = "7"', 'percent = "10"')
    home = rating_home.make_home(tmp_path / "home", settings)
    assert home_check.problems(home) == []
    said = [one for one in home_check.warnings(home) if "Russia" in one]
    assert said == ["[[tax]] standard is 20 % on 2026-01-01, in Russia it is 22 % from 2026-01-01 on "
                    "(Tax Code, Article 164 (3))",
                    "[invoice] tax_policy is en16931, in Russia per_line_sum is usual"]
    wrong = rating_home.make_home(tmp_path / "wrong", settings.replace('"ru"', '"xx"'))
    assert any("market" in one for one in home_check.problems(wrong))
