"""Plan files before they are stored: lint, examples, differences, simulation; and the examples of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import rating_home
from harness import ROOT
from rating_operator import Operator

BLOCK = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)
PLAN = """
[[calendar]]
name = "day-night"
from = 2026-01-01
zones = [ { name = "day", start = "08:00", end = "20:00" }, { name = "night", default = true } ]

[[plan]]
name = "home"
from = 2026-01-01
currency = "EUR"
tax = "standard"
prices = "inclusive"
calendar = "day-night"

[[plan.fee]]
name = "Home"
amount = "31.00"
every = "month"
when = "advance"
proration = "actual_days"

[[plan.traffic]]
name = "By day"
direction = "down"
zones = ["day"]
price = "0.50"
unit = "GB"

[[plan.example]]
name = "ten days"
period = "2026-10"
from = 2026-10-22
usage = [ { zone = "day", volume = "3 GB" } ]
expect = { "Home" = "10.00", "By day" = "1.50" }
total = "11.50"
"""


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(rating_home.make_home(tmp_path / "home"), capsys)


def _file(operator: Operator, text: str) -> str:
    path = operator.home.path / "tried.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_is_judged_tried_and_compared_without_being_stored(operator: Operator) -> None:
    path = _file(operator, PLAN)
    assert operator("plans", "lint", path) == [{"calendars": 1, "plans": 1, "examples": 1}]
    assert "note: 'home' from 2026-01-01: down traffic of class 'default' in night costs nothing" in operator.error
    assert "up traffic of class 'peering' costs nothing" in operator.error
    assert [(row["line"], row["expected"], row["holds"]) for row in operator("plans", "test", path)] == [
        ("Home", "10.00", True), ("By day", "1.50", True), ("total", "11.50", True)]
    (fee, traffic) = operator("plans", "simulate", path, "--period", "2026-10", "--usage", "3 GB day", "--usage", "1 GB up")
    assert (fee["gross_minor"], traffic["gross_minor"], traffic["quantity"]) == (3100, 150, "3")
    assert "net 27.31 EUR for 2026-10" in operator.error
    assert operator("plans", "list") == []
    assert [row["where"] for row in operator("plans", "diff", path)][-2:] == ["fee 'Home'", "traffic 'By day'"]

    operator("plans", "apply", path)
    assert operator("plans", "diff", path) == []
    rating_home.subscribe(operator.home, "S1", "home", "2026-01-01")
    dearer = _file(operator, PLAN.replace('"31.00"', '"62.00"').replace('"10.00"', '"20.00"').replace('"11.50"', '"21.50"'))
    assert [(row["where"], row["before"], row["after"], row["subscriptions"]) for row in operator("plans", "diff", dearer)] == [
        ("fee 'Home': amount", "31.00", "62.00", 1)]
    assert operator("plans", "simulate", "home", "--period", "2026-10")[0]["gross_minor"] == 3100
    operator("plans", "simulate", "hone", code=5)
    assert "did you mean 'home'" in operator.error
    operator("plans", "simulate", "home", "--usage", "lots", code=2)
    assert "does not begin with a volume" in operator.error


def test_an_example_that_fails_is_named_and_nothing_is_stored(operator: Operator) -> None:
    path = _file(operator, PLAN.replace('"1.50"', '"1.49"'))
    rows = operator("plans", "test", path, code=7)
    assert [(row["line"], row["first"], row["second"]) for row in rows if not row["holds"]] == [("By day", "1.50", "1.50")]
    assert "1 of 3 expectations do not hold" in operator.error
    (problem,) = operator("plans", "apply", path, code=1)
    assert problem["problem"] == "example 'ten days': By day comes to 1.50, not 1.49"
    assert problem["line"] == 29
    assert operator("plans", "list") == []


def test_examples_are_no_part_of_a_stored_plan(operator: Operator) -> None:
    operator("plans", "apply", _file(operator, PLAN))
    more = PLAN + '\n[[plan.example]]\nname = "nothing"\nperiod = "2026-11"\nexpect = { "By day" = "0" }\n'
    assert operator("plans", "apply", _file(operator, more)) == [{"added": 0, "changed": 0, "unchanged": 2}]


@pytest.mark.parametrize(("wrong", "said"), [
    ('zone = "day", volume', "did you mean"), ('zone = "noon", volume', "no zone 'noon'"),
])
def test_an_example_is_judged_too(operator: Operator, wrong: str, said: str) -> None:
    text = PLAN.replace('zone = "day", volume', wrong)
    if wrong == 'zone = "day", volume':
        text = text.replace('"By day" = "1.50"', '"By dey" = "1.50"')
    problems = operator("plans", "lint", _file(operator, text), code=1)
    assert any(said in problem["problem"] + problem["hint"] for problem in problems)


def test_the_examples_of_the_documentation_hold(operator: Operator) -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "how-to" / "tariff-models.md").read_text(encoding="utf-8"))
    assert len(blocks) > 8
    held = 0
    for block in blocks:
        held += len(operator("plans", "test", _file(operator, block)))
    assert held > 15
