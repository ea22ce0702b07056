"""Plan advice and what-if: what is said is what would have been billed."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import rating_home
from rating_operator import Operator

from core import clock
from core.periods import parse_instant

HEAD = """
[[plan]]
name = "{name}"
from = 2026-01-01
currency = "EUR"
tax = "standard"
prices = "{prices}"
{more}
[[plan.fee]]
name = "Line"
amount = "{fee}"
every = "month"
when = "advance"
proration = "actual_days"
"""
TRAFFIC = """
[[plan.traffic]]
name = "{name}"
direction = "down"
{more}price = "{price}"
unit = "GB"
"""
CALENDARS = """
[[calendar]]
name = "early"
from = 2026-01-01
zones = [ { name = "day", start = "06:00", end = "18:00" }, { name = "night", default = true } ]

[[calendar]]
name = "late"
from = 2026-01-01
zones = [ { name = "day", start = "12:00", end = "20:30" }, { name = "night", default = true } ]
"""
PLANS = (
    CALENDARS
    + HEAD.format(name="flat", prices="exclusive", fee="40.00", more="")
    + HEAD.format(name="metered", prices="exclusive", fee="10.00", more="")
    + TRAFFIC.format(name="All", price="0.10", more="")
    + HEAD.format(name="early-bird", prices="inclusive", fee="20.00", more='calendar = "early"\n')
    + TRAFFIC.format(name="By day", price="0.50", more='zones = ["day"]\n')
    + HEAD.format(name="late-riser", prices="exclusive", fee="20.00", more='calendar = "late"\n')
    + TRAFFIC.format(name="By day", price="0.50", more='zones = ["day"]\n')
    + HEAD.format(name="tv", prices="exclusive", fee="5.00", more="addon = true\n")
)


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Operator:
    """S1 with 100 GB in the morning and 300 GB in the evening of each month, S2 with next to nothing."""
    monkeypatch.setattr(clock, "now_ms", lambda: parse_instant("2026-11-10T12:00:00Z"))
    made = Operator(rating_home.make_home(tmp_path / "home"), capsys)
    made.plans(PLANS)
    rating_home.subscribe(made.home, "S1", "early-bird", "2026-01-01")
    rating_home.subscribe(made.home, "S2", "metered", "2026-09-15")
    made("addons", "add", "S1", "tv", "--from", "2026-01-01")
    rating_home.publish(made.home, [
        {"period": period, "hour": f"{period}-16T{hour}:00:00Z", "service_id": service, "subscription_id": service,
         "direction": "down", "octets": octets * 10**9, "zone": zone}
        for period in ("2026-08", "2026-09", "2026-10")
        for service, hour, octets, zone in ((1, "07", 100, "day"), (1, "18", 300, "night"), (2, "07", 3, None))])
    return made


def test_every_plan_is_reckoned_and_today_s_is_what_was_billed(operator: Operator) -> None:
    rows = operator("plans", "advise", "S1", "--months", "3")
    by_plan = {row["plan"]: row for row in rows}
    billed = 0
    for period in ("2026-08", "2026-09", "2026-10"):
        operator("rate", "run", period)
        billed += sum(row["net_minor"] for row in operator("charges", "export", period) if row["service"] == "S1")
    assert by_plan["early-bird"]["net"] == billed
    assert by_plan["early-bird"]["today"]
    # a month: 20 + 50 with tax, the add-on 5.00 without
    assert by_plan["early-bird"]["gross"] == 3 * (7000 + 595)
    assert by_plan["flat"]["net"] == 3 * (4000 + 500)
    assert by_plan["metered"]["net"] == 3 * (1000 + 4000 + 500)
    assert by_plan["late-riser"]["net"] == 3 * (2000 + 15000 + 500)  # its day is the evening
    assert "a zone of its calendar begins within an hour" in by_plan["late-riser"]["note"]
    assert [row["plan"] for row in rows] == ["flat", "metered", "early-bird", "late-riser"]
    assert [row["cheapest_in"] for row in rows] == [3, 0, 0, 0]
    flat = by_plan["flat"]
    assert (flat["saving"], flat["gross_a_month"]) == (by_plan["early-bird"]["gross"] - flat["gross"], 5355)
    assert [row["plan"] for row in operator("plans", "advise", "S1", "--plans", "metered", "--months", "1")] == [
        "metered", "early-bird"]


def test_all_services_get_their_best_plan(operator: Operator) -> None:
    one, two = operator("plans", "advise", "--all", "--months", "3")
    assert (one["service"], one["plan"], one["best_plan"], one["months"]) == ("S1", "early-bird", "flat", 3)
    assert (two["service"], two["best_plan"], two["saving"], two["months"]) == ("S2", "metered", 0, 1)
    operator("plans", "advise", code=2)
    operator("plans", "advise", "S3", code=5)
    assert "there is no service 'S3'" in operator.error


def test_a_change_of_the_tariff_over_a_month(operator: Operator, tmp_path: Path) -> None:
    operator("rate", "run", "2026-10")
    path = tmp_path / "dearer.toml"
    path.write_text((HEAD.format(name="metered", prices="exclusive", fee="9.00", more="")
                     + TRAFFIC.format(name="All", price="0.40", more="")).replace("2026-01-01", "2027-01-01"))
    (row,) = operator("plans", "what-if", str(path), "--period", "2026-10")
    assert (row["service"], row["before"], row["after"], row["difference"]) == ("S2", 1030, 1020, -10)
    assert "all: 1 pay less, 0 pay more, 0 the same; 10.30 → 10.20 EUR" in operator.error
    other = tmp_path / "early.toml"
    other.write_text(HEAD.format(name="early-bird", prices="inclusive", fee="20.00", more='calendar = "late"\n')
                     + TRAFFIC.format(name="By day", price="0.50", more='zones = ["day"]\n'))
    picture, table = tmp_path / "picture.svg", tmp_path / "rows.jsonl"
    operator("plans", "what-if", str(other), "--period", "2026-10", "--picture", str(picture), "--to", str(table))
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    (row,) = map(json.loads, table.read_text().splitlines())
    assert row["difference"] == 12605 - 4202  # net of 150.00 and of 50.00 with 19 %
    path.write_text(HEAD.format(name="nobody", prices="exclusive", fee="9.00", more=""))
    operator("plans", "what-if", str(path), "--period", "2026-10", code=2)
    assert "nobody was under nobody" in operator.error
    assert [one["name"] for one in operator("plans", "list")].count("metered") == 1


def test_a_new_customer_is_offered_plans_with_their_full_price(operator: Operator) -> None:
    rows = operator("plans", "offer", "--volume", "100 GB", "--zone", "day=20")
    by_plan = {row["plan"]: row for row in rows}
    assert by_plan["flat"]["year"] == 12 * 4760
    assert by_plan["metered"]["year"] == 12 * 2261  # 10.00 and 90 GB down at 0.10, with 19 %
    assert by_plan["early-bird"]["first_month"] == 2900  # 18 GB by day at 0.50, with tax
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    assert "tv" not in by_plan
    (first, *_) = operator("plans", "offer", "--people", "3", "--use", "video,games")
    assert first["octets"] == 3 * 160 * 10**9
    operator("plans", "offer", "--use", "chess", code=2)
    assert "the uses are web, video" in operator.error
    operator("plans", "offer", "--volume", "lots", code=2)
    (operator.home.path / "household_usage.toml").write_text("upload_percent = 0\n[gigabytes_a_person]\nchess = 1\n")
    assert operator("plans", "offer", "--use", "chess")[0]["octets"] == 10**9
    (operator.home.path / "household_usage.toml").write_text("upload_percent = 0\n[gigabytes_a_person]\nchess = 1.5\n")
    operator("plans", "offer", "--use", "chess", code=2)
    assert "something else than whole numbers" in operator.error
