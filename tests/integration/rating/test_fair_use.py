"""Fair use: a threshold is decided about once, and a package that was bought is rated."""

from __future__ import annotations

from pathlib import Path

import pytest
import rating_home
from rating_operator import Operator

PLANS = """
[[plan]]
name = "flat"
from = 2026-01-01
currency = "EUR"
tax = "standard"
prices = "exclusive"

[[plan.traffic]]
name = "Traffic"
direction = "down"
included = "100 GB"
above = "excess"
price = "1.00"
unit = "GB"

[[plan.fair_use]]
name = "Nearly used up"
threshold = "80 GB"
direction = "down"
action = "notify"

[[plan.fair_use]]
name = "Slow"
threshold = "300 GB"
direction = "down"
action = "slow_down"
speed = "2 Mbit/s"

[[plan.fair_use]]
name = "More"
threshold = "100 GB"
direction = "down"
action = "buy"
package = "extra-50"
times_max = 3

[[plan]]
name = "extra-50"
from = 2026-01-01
currency = "EUR"
tax = "standard"
prices = "exclusive"
addon = true

[[plan.once]]
name = "50 GB more"
on = "activation"
amount = "5.00"

[[plan.quota]]
name = "More"
volume = "50 GB"
direction = "down"
given = "once"
"""


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    made = Operator(rating_home.make_home(tmp_path / "home"), capsys)
    made.plans(PLANS)
    rating_home.subscribe(made.home, "S1", "flat", "2026-01-01")
    return made


def _publish(operator: Operator, *hours: tuple[str, int]) -> None:
    rating_home.publish(operator.home, [
        {"period": "2026-10", "hour": f"2026-10-{hour}:00:00Z", "service_id": 1, "subscription_id": 1, "direction": "down",
         "octets": octets * 10**9} for hour, octets in hours])


def test_each_threshold_is_decided_about_once_at_its_hour(operator: Operator) -> None:
    _publish(operator, ("02T10", 60), ("03T10", 20), ("04T10", 19))
    assert operator("rate", "decide", "2026-10", "--dry-run")[0]["taken"] == {"notify": 1}
    assert operator("rate", "decisions") == []
    assert operator("rate", "decide", "2026-10")[0]["taken"] == {"notify": 1}
    (row,) = operator("rate", "decisions", "2026-10", "--service", "S1")
    assert (row["line"], row["octets"], row["reached"]) == ("Nearly used up", 80 * 10**9, "2026-10-03T10:00:00.000Z")
    assert row["undone"] == "2026-10-31T23:00:00.000Z"  # midnight in Berlin
    assert operator("rate", "decide", "2026-10")[0] == {"period": "2026-10", "standing": 1, "taken": {}}
    _publish(operator, ("02T10", 1))  # what was decided stays, whatever is known later
    assert operator("rate", "decide", "2026-10")[0]["standing"] == 1


def test_packages_are_bought_as_they_are_needed_and_rated(operator: Operator) -> None:
    _publish(operator, ("02T10", 120))
    assert operator("rate", "decide", "2026-10")[0]["taken"] == {"notify": 1, "buy": 1}
    _publish(operator, ("02T10", 120), ("20T10", 200))
    assert operator("rate", "decide", "2026-10")[0]["taken"] == {"slow_down": 1, "buy": 2}
    assert [row["threshold"] // 10**9 for row in operator("rate", "decisions") if row["action"] == "buy"] == [100, 150, 200]
    assert [row["detail"] for row in operator("rate", "decisions") if row["action"] == "slow_down"] == ["2 Mbit/s"]
    operator("rate", "run", "2026-10")
    charges = {row["line"]: (row["quantity"], row["net_minor"]) for row in operator("charges", "export", "2026-10")}
    # 320 GB: 150 of the packages, 100 included, 70 at 1.00
    assert charges == {"Traffic": ("70", 7000), "50 GB more": ("3", 1500), "More": ("150", 0)}


def test_a_package_that_was_ordered_on_the_same_day_is_another_one(operator: Operator) -> None:
    operator("addons", "add", "S1", "extra-50", "--from", "2026-10-02")
    _publish(operator, ("02T10", 120))
    operator("rate", "decide", "2026-10")
    operator("rate", "run", "2026-10")
    charges = {row["line"]: (row["quantity"], row["net_minor"]) for row in operator("charges", "export", "2026-10")}
    assert charges == {"Traffic": ("0", 0), "50 GB more": ("2", 1000), "More": ("100", 0)}
    assert operator("rate", "verify", "2026-10")[0]["differing"] == 0


def test_what_an_action_needs_is_asked_for(operator: Operator) -> None:
    wrong = PLANS.replace('speed = "2 Mbit/s"\n', "").replace('action = "notify"', 'action = "notify"\nspeed = "1 Mbit/s"')
    said = " ".join(row["problem"] for row in operator.plans(wrong, code=1))
    assert "'slow_down' has no 'speed'" in said
    assert "'speed' belongs to" in said
