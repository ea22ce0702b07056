"""A service changes its plan by command: allowed ways, days, and what is charged for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import rating_home
import sqlalchemy as sa
from rating_operator import Operator

from core import clock, tables
from core.periods import parse_instant
from storage import sql

PLAN = """
[[plan]]
name = "{name}"
from = 2026-01-01
currency = "EUR"
tax = "standard"
prices = "exclusive"
{more}
[[plan.fee]]
name = "Line"
amount = "{amount}"
every = "month"
when = "advance"
proration = "actual_days"
"""
ONCE = '\n[[plan.once]]\nname = "Change"\non = "change"\namount = "9.90"\n'
WAYS = '\n[[plan.change]]\nto = "big"\nwhen = "now"\n\n[[plan.change]]\nto = "small"\nwhen = "period_end"\n'


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.setattr(clock, "now_ms", lambda: parse_instant("2026-10-10T12:00:00Z"))
    made = Operator(rating_home.make_home(tmp_path / "home"), capsys)
    made.plans(PLAN.format(name="middle", amount="31.00", more="") + WAYS
               + PLAN.format(name="big", amount="62.00", more="") + ONCE
               + PLAN.format(name="small", amount="15.50", more="") + PLAN.format(name="other", amount="1.00", more="")
               + PLAN.format(name="extra", amount="1.00", more="addon = true\n"))
    rating_home.subscribe(made.home, "S1", "middle", "2026-01-01")
    return made


def test_a_plan_is_changed_today_and_charged_by_days(operator: Operator) -> None:
    assert operator("subscribers", "change-plan", "S1", "big", "--dry-run")[0]["from"] == "2026-10-10"
    assert len(operator("subscribers", "show", "S1")) == 1
    (done,) = operator("subscribers", "change-plan", "S1", "big", "--reason", "asked by telephone")
    assert done == {"service": "S1", "from": "2026-10-10", "before": "middle", "after": "big", "end": None}
    assert [(row["plan"], row["start"], row["end"]) for row in operator("subscribers", "show", "S1")] == [
        ("middle", "2026-01-01", "2026-10-10"), ("big", "2026-10-10", "")]
    operator("rate", "run", "2026-10", "--as-of", "2026-10-10T12:00:00Z")
    assert sorted((row["plan"], row["line"], row["quantity"], row["net_minor"])
                  for row in operator("charges", "export", "2026-10")) == [
        ("big", "Change", "1", 990), ("big", "Line", "22/31", 4400), ("middle", "Line", "9/31", 900)]
    with sql.reading(sql.engine(operator.home)) as connection:
        assert connection.execute(sa.select(tables.input_change.c.kind)).scalars().all()[-1] == "subscriptions"
        assert "subscription.change-plan" in connection.execute(sa.select(tables.audit.c.action)).scalars().all()


def test_ways_and_days_that_a_plan_does_not_allow(operator: Operator) -> None:
    for words, code, said in (
            (("S1", "other"), 1, "may be changed to big, small"), (("S1", "small"), 1, "at the end of a month only"),
            (("S1", "bigg"), 5, "did you mean 'big'"), (("S2", "big"), 5, "there is no service"),
            (("S1", "middle"), 1, "already"), (("S1", "extra"), 1, "is an add-on"),
            (("S1", "big", "--on", "soon"), 1, "neither now"), (("S1", "big", "--on", "2025-12-01"), 1, "has a row from")):
        operator("subscribers", "change-plan", *words, code=code)
        assert said in operator.error, words
    assert operator("subscribers", "change-plan", "S1", "small", "--on", "period-end")[0]["from"] == "2026-11-01"
    operator("subscribers", "change-plan", "S1", "big", "--on", "2026-10-20", code=1)
    assert "has a row from 2026-11-01 on already" in operator.error
