"""Tiers, quotas that roll over, add-ons, pauses and discounts, from plans.toml to charges and the second month."""

from __future__ import annotations

from pathlib import Path

import pytest
import rating_home
import sqlalchemy as sa
from rating_operator import Operator

from core import tables
from storage import sql

PLANS = """
[[plan]]
name = "home"
from = 2026-01-01
currency = "EUR"
tax = "standard"
prices = "exclusive"
billing_day = "anniversary"

[plan.contract]
months = 24

[[plan.fee]]
name = "Home"
amount = "31.00"
every = "month"
when = "arrears"
proration = "actual_days"
during = "active"

[[plan.fee]]
name = "Holiday"
amount = "3.10"
every = "month"
when = "arrears"
proration = "actual_days"
during = "vacation"

[[plan.once]]
name = "Setup"
on = "activation"
amount = "49.00"

[[plan.once]]
name = "Left early"
on = "early_end"
percent = "50"
of = "Home"

[[plan.quota]]
name = "Package"
volume = "10 GB"
direction = "down"
rollover = { cap = "6 GB", periods = 1 }

[[plan.traffic]]
name = "Down"
direction = "down"
model = "graduated"
unit = "GB"
tiers = [ { to = "10 GB", price = "0.50", flat = "1.00" }, { price = "0.30" } ]

[[plan.traffic]]
name = "Up"
direction = "up"
price = "0.20"
block = "100 MB"

[[plan.minimum]]
name = "Least"
amount = "60.00"
share = "whole_period"

[[plan.maximum]]
name = "Cap"
amount = "70.00"
lines = ["Down", "Up"]
share = "whole_period"

[[plan.discount]]
name = "Half at first"
percent = "50"
lines = ["Home"]
months = 1

[[plan]]
name = "static-address"
from = 2026-01-01
currency = "EUR"
tax = "standard"
prices = "exclusive"
addon = true

[[plan.fee]]
name = "Static address"
amount = "2.00"
every = "month"
when = "advance"
proration = "actual_days"

[[plan.quota]]
name = "Gift"
volume = "1 GB"
direction = "down"
priority = 5

[[plan.discount]]
name = "Friend"
amount = "1.00"
of = "service"
lines = ["Home"]
"""


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(rating_home.make_home(tmp_path / "home"), capsys)


def _publish(operator: Operator, **down: int) -> None:
    rows = [{"period": period.replace("_", "-")[1:], "hour": f"{period.replace('_', '-')[1:]}-16T08:00:00Z", "service_id": 1,
             "subscription_id": 1, "direction": direction, "octets": octets}
            for period, gigabytes in down.items() for direction, octets in (("down", gigabytes * 10**9), ("up", 150_000_000))]
    rating_home.publish(operator.home, rows)


def _charges(operator: Operator, period: str) -> dict[str, tuple[str, str, int]]:
    return {row["line"]: (row["quantity"], row["unit_price"], row["net_minor"])
            for row in operator("charges", "export", period)}


def test_a_month_of_every_model_and_the_next_one(operator: Operator) -> None:
    operator.plans(PLANS)
    rating_home.subscribe(operator.home, "S1", "home", "2026-08-16")
    assert operator("addons", "add", "S1", "static-address", "--from", "2026-08-16", "--quantity", "2")[0]["added"] == 1
    assert operator("pauses", "add", "S1", "vacation", "--from", "2026-09-21", "--to", "2026-09-26")[0]["added"] == 1
    _publish(operator, _2026_08=7, _2026_09=29, _2026_10=12)

    operator("rate", "run", "2026-08")
    august = _charges(operator, "2026-08")
    # the fee's first period, 16 August to 16 September, is in arrears: it comes in September
    assert august == {
        "Setup": ("1", "49.00", 4900), "Package": ("7", "0", 0), "Down": ("0", "graduated", 100), "Up": ("2", "0.20", 40),
        "Least": ("1", "60.00", 960), "Cap": ("1", "70.00", 0),
        "Static address": ("32/31", "2.00", 206), "Gift": ("0", "0", 0), "Friend": ("32/31", "1.00", 0)}

    operator("rate", "run", "2026-09")
    september = _charges(operator, "2026-09")
    # 29 GB: 3 GB carried, 10 of September, 2 of the gifts; 14 remain: 10 at 0.50 + 1.00, 4 at 0.30
    assert (september["Package"], september["Gift"]) == (("13", "0", 0), ("2", "0", 0))
    assert september["Down"] == ("14", "graduated", 720)
    assert september["Half at first"] == ("1", "50 %", -1550)  # 16 August to 16 September
    assert september["Friend"] == ("2", "1.00", -200)
    # 16 September to 16 October, 30 days: five of them in vacation; what ends in September is paid for in September
    assert [(row["line"], row["start"], row["end"], row["quantity"], row["net_minor"])
            for row in operator("charges", "export", "2026-09") if row["line"] in ("Home", "Holiday")] == [
        ("Home", "2026-08-16", "2026-09-16", "1", 3100), ("Home", "2026-09-16", "2026-09-21", "5/30", 517),
        ("Holiday", "2026-09-21", "2026-09-26", "5/30", 52)]
    assert september["Least"][2] == 6000 - 3100 - 517 - 52 - 720 - 40

    operator("rate", "run", "2026-10")
    rows = operator("charges", "export", "2026-10")
    assert [(row["start"], row["end"], row["quantity"], row["net_minor"]) for row in rows if row["line"] == "Home"] == [
        ("2026-09-26", "2026-10-16", "20/30", 2067)]
    assert {row["line"]: row["quantity"] for row in rows}["Package"] == "10"  # nothing was left of September
    for period in ("2026-08", "2026-09", "2026-10"):
        assert operator("rate", "verify", period)[0]["differing"] == 0
    for row in operator("charges", "export", "2026-09"):
        said = operator("rate", "explain", "S1", "2026-09", row["line"])
        assert [one["what"] for one in said].count("arithmetic"), row["line"]


def test_the_end_of_a_contract_before_its_time(operator: Operator) -> None:
    operator.plans(PLANS)
    rating_home.subscribe(operator.home, "S1", "home", "2026-01-01", "2026-10-01")
    operator("rate", "run", "2026-09")
    # 15 months of 31.00 remain to 2028-01-01, half of each
    assert _charges(operator, "2026-09")["Left early"] == ("1", "50 %", 23250)
    rating_home.subscribe(operator.home, "S1", "home", "2026-10-01")
    operator("rate", "run", "2026-09")
    assert "Left early" not in _charges(operator, "2026-09")
    operator("rate", "run", "2026-10")
    assert "Setup" not in _charges(operator, "2026-10")


def test_rows_beside_a_plan_are_judged(operator: Operator) -> None:
    operator.plans(PLANS)
    rating_home.subscribe(operator.home, "S1", "home", "2026-08-16")
    path = operator.home.path / "addons.csv"
    path.write_text("service,plan,quantity,start,end\nS2,static-address,1,2026-09-01,\nS1,home,1,2026-09-01,\n"
                    "S1,static-address,0,2026-09-31,\nS1,static-address,1,2026-09-02,2026-09-01\n")
    refused = " ".join(row["problem"] for row in operator("addons", "import", str(path), code=1))
    for said in ("unknown service 'S2'", "there is no add-on 'home'", "'0' is not a whole number",
                 "'2026-09-31' is not a date", "end 2026-09-01 is not after"):
        assert said in refused
    path.write_text("service,plan,quantity,start,end\nS1,static-address,1,2026-09-01,\n")
    assert operator("addons", "import", str(path)) == [{"added": 1, "changed": 0, "unchanged": 0}]
    assert operator("addons", "import", str(path)) == [{"added": 0, "changed": 0, "unchanged": 1}]
    operator("addons", "add", "S1", "static-address", "--from", "2026-09-05", code=2)
    assert "overlaps" in operator.error
    assert operator("addons", "end", "S1", "static-address", "2026-09-20")[0]["end"] == "2026-09-20"
    operator("addons", "end", "S1", "static-address", "2026-09-25", code=5)
    assert [row["quantity"] for row in operator("addons", "list", "--service", "S1")] == [1]
    operator("pauses", "add", "S1", "sleep", "--from", "2026-09-01", code=2)
    assert "neither suspension nor vacation" in operator.error
    operator("pauses", "add", "S1", "suspension", "--from", "2026-09-01")
    operator("pauses", "add", "S1", "vacation", "--from", "2026-09-05", code=2)
    assert operator("pauses", "end", "S1", "2026-09-04")[0]["kind"] == "suspension"
    with sql.reading(sql.engine(operator.home)) as connection:
        actions = set(connection.execute(sa.select(tables.audit.c.action)).scalars())
    assert {"addon.add", "addon.end", "pause.add", "pause.end"} <= actions


def test_an_addon_in_the_place_of_a_plan_is_refused(operator: Operator) -> None:
    operator.plans(PLANS)
    rating_home.subscribe(operator.home, "S1", "static-address", "2026-08-16")
    operator("rate", "run", "2026-09", code=1)
    assert "is an add-on" in operator.error


def test_an_invoice_of_every_model_is_booked_and_verified(operator: Operator) -> None:
    """Without usage: that would have to come from flows, or no invoice is made of it."""
    operator.plans(PLANS)
    rating_home.subscribe(operator.home, "S1", "home", "2026-08-16")
    operator("addons", "add", "S1", "static-address", "--from", "2026-08-16")
    for period in ("2026-08", "2026-09"):
        operator("rate", "run", period)
        operator("invoice", "run", period, "--as-of", "2026-11-01T12:00:00Z")
    (invoice,) = operator("invoice", "list", "2026-09")
    operator("invoice", "verify", invoice["number"])
    lines = {line["kind"]: line for line in operator("invoice", "export", "2026-09")}
    assert set(lines) == {"fee", "traffic", "quota", "minimum", "maximum", "discount"}
    for line in lines.values():
        assert operator("invoice", "explain", invoice["number"], str(line["line"]))
    assert operator("ledger", "check")
    pdf = operator.home.path / "invoice.pdf"
    operator("invoice", "pdf", invoice["number"], "--to", str(pdf))
    assert pdf.read_bytes().startswith(b"%PDF")
