"""The rating by its command line: plans in, charges out, second runs, changes that are refused, verification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rating_home
import sqlalchemy as sa
from rating_operator import Operator

import cli
from core import clock, schemas, tables
from storage import sql
from storage.home import Home

PLANS = """
[[calendar]]
name = "day-night"
from = 2026-01-01
holidays = "DE"
zones = [
  { name = "day", days = ["mon", "tue", "wed", "thu", "fri"], start = "08:00", end = "23:00" },
  { name = "night", default = true, holiday = true },
]

[[plan]]
name = "home"
from = 2026-01-01
currency = "EUR"
tax = "standard"
prices = "exclusive"
calendar = "day-night"

[[plan.fee]]
name = "Home"
amount = "19.90"
every = "month"
when = "advance"
proration = "actual_days"

[[plan.traffic]]
name = "By day"
direction = "down"
classes = ["default"]
zones = ["day"]
included = "1 GB"
above = "excess"
price = "0.50"
unit = "GB"

[[plan]]
name = "line"
from = 2026-01-01
currency = "EUR"
tax = "standard"
prices = "inclusive"

[[plan.percentile]]
name = "95th"
percentile = 95
convention = "higher_direction"
missing = "left_out"
committed = "1 Mbit/s"
price = "4.00"
unit = "Mbit/s"
"""
AFTER = "2026-11-02T00:00:00Z"
OCTOBER = {"period": "2026-10", "hour": "2026-10-05T08:00:00Z"}


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(rating_home.make_home(tmp_path / "home"), capsys)


@pytest.fixture
def october(operator: Operator) -> Operator:
    """Three services with usage of October, published."""
    operator.plans(PLANS)
    one = rating_home.subscribe(operator.home, "S1", "home", "2026-10-18")
    two = rating_home.subscribe(operator.home, "S2", "line", "2026-01-01")
    three = rating_home.subscribe(operator.home, "S3", None, "2026-01-01")
    rating_home.publish(
        operator.home,
        [
            {
                **OCTOBER,
                "service_id": 1,
                "subscription_id": one,
                "zone": "day",
                "direction": "down",
                "octets": 2_500_000_000,
            },
            {
                **OCTOBER,
                "service_id": 1,
                "subscription_id": one,
                "zone": "day",
                "direction": "down",
                "octets": 7,
                "sampled": True,
            },
            {
                **OCTOBER,
                "service_id": 1,
                "subscription_id": one,
                "zone": "night",
                "direction": "down",
                "octets": 5,
                "sampled": True,
            },
            {**OCTOBER, "service_id": 3, "subscription_id": three, "direction": "up", "octets": 77},
            {**OCTOBER, "service_id": 3, "subscription_id": None, "direction": "up", "octets": 3},
            {
                **OCTOBER,
                "service_id": 1,
                "subscription_id": one,
                "zone": "day",
                "direction": "down",
                "octets": 10**9,
                "period": "2026-11",
            },
        ],
        [
            {
                "service_id": 2,
                "subscription_id": two,
                "period": "2026-10",
                "slot": "2026-10-05T08:00:00Z",
                "direction": "down",
                "octets": 75_000_000,
            },
            {
                "service_id": 2,
                "subscription_id": two,
                "period": "2026-10",
                "slot": "2026-10-05T08:05:00Z",
                "direction": "up",
                "octets": 74_000_000,
            },
        ],
    )
    return operator


def test_plans_are_added_changed_and_left_alone(operator: Operator) -> None:
    assert operator.plans(PLANS, "--dry-run") == [{"added": 3, "changed": 0, "unchanged": 0}]
    assert operator.count(tables.plan_version) == 0
    assert operator.plans(PLANS, "--reason", "launch") == [{"added": 3, "changed": 0, "unchanged": 0}]
    assert operator.plans(PLANS) == [{"added": 0, "changed": 0, "unchanged": 3}]
    assert operator.plans(PLANS.replace("19.90", "20.90")) == [{"added": 0, "changed": 1, "unchanged": 2}]
    with sql.reading(sql.engine(operator.home)) as connection:
        log = [
            (row.reason, row.subject, row.before, row.after)
            for row in connection.execute(sa.select(tables.audit).order_by(tables.audit.c.id))
        ]
    assert [row[:2] for row in log[:3]] == [
        ("launch", "day-night from 2026-01-01"),
        ("launch", "home from 2026-01-01"),
        ("launch", "line from 2026-01-01"),
    ]
    assert "19.90" in str(log[3][2])
    assert "20.90" in str(log[3][3])
    listed = operator("plans", "list")
    assert [(row["name"], row["from"], row["lines"]) for row in listed] == [
        ("home", "2026-01-01", 2),
        ("line", "2026-01-01", 1),
    ]


def test_a_file_with_one_mistake_changes_nothing(operator: Operator) -> None:
    problems = operator.plans(PLANS.replace('"0.50"', "0.50"), code=1)
    assert [(row["line"], row["column"]) for row in problems] == [(33, "price")]
    assert operator.count(tables.plan_version) == operator.count(tables.calendar_version) == 0
    assert "nothing was imported" in operator.error


def test_a_plan_is_shown_as_of_an_instant(operator: Operator) -> None:
    later = PLANS.replace("2026-01-01\ncurrency", "2026-07-01\ncurrency").replace("19.90", "24.90")
    operator.plans(PLANS)
    operator.plans(later[later.index("[[plan]]") :])
    assert operator("plans", "show", "home", "--as-of", "2026-06-30T12:00:00Z")[0]["fee"][0]["amount"] == "19.90"
    shown = operator("plans", "show", "home", "--as-of", "2026-07-01T12:00:00Z")[0]
    assert shown["fee"][0]["amount"] == "24.90"
    assert shown["versions"] == ["2026-01-01", "2026-07-01"]
    operator("plans", "show", "hom", code=5)
    assert "did you mean 'home'" in operator.error
    operator("plans", "show", "home", "--as-of", "2025-06-30T12:00:00Z", code=5)


def test_only_what_moves_traffic_is_noted_as_a_change_of_inputs(operator: Operator) -> None:
    operator.plans(PLANS)
    assert operator.count(tables.input_change) == 0  # nobody is under these plans yet
    rating_home.subscribe(operator.home, "S1", "home", "2026-02-01")
    operator.plans(PLANS.replace("19.90", "20.90"))
    assert operator.count(tables.input_change) == 0  # a price moves nothing
    operator.plans(PLANS.replace("19.90", "20.90").replace("08:00", "07:00"))
    assert operator.count(tables.input_change) == 1
    with sql.reading(sql.engine(operator.home)) as connection:
        change = connection.execute(sa.select(tables.input_change)).one()
    assert (change.kind, change.from_ms, change.to_ms) == ("plans", -(2**62), 2**62)


def test_holidays_are_frozen_when_a_calendar_is_first_applied(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rating import holiday_dates

    operator.plans(PLANS)
    monkeypatch.setattr(holiday_dates, "dates", lambda name: [])
    operator.plans(PLANS.replace("08:00", "07:00"))
    with sql.reading(sql.engine(operator.home)) as connection:
        document = json.loads(connection.execute(sa.select(tables.calendar_version.c.document)).scalar_one())
    assert document["zones"][0]["start"] == "07:00"
    assert {"2026-01-01", "2026-10-03", "2026-12-25"} <= set(document["holiday_dates"])


def test_charges_are_made_and_a_second_run_changes_nothing(october: Operator) -> None:
    first = october("rate", "run", "2026-10", "--as-of", AFTER)[0]
    assert (first["rated_octets"], first["without_plan_octets"], first["sampled_refused_octets"]) == (
        2_500_000_005,
        80,
        7,
    )
    assert (first["charges"], first["changed"], first["net_minor"]) == (3, True, {"EUR": 899 + 75 + 672})
    again = october("rate", "run", "2026-10", "--as-of", "2026-11-09T00:00:00Z")[0]
    assert (again["run"], again["changed"]) == (first["run"], False)
    assert october.count(tables.rate_run) == 1
    assert october("charges", "export", "2026-10") == [
        {
            "period": "2026-10",
            "service": "S1",
            "plan": "home",
            "plan_version": "2026-01-01",
            "start": "2026-10-18",
            "end": "2026-11-01",
            "line": "By day",
            "kind": "traffic",
            "zone": "day",
            "class": "default",
            "direction": "down",
            "quantity": "1.5",
            "unit": "GB",
            "unit_price": "0.50",
            "net_minor": 75,
            "currency": "EUR",
        },
        {
            "period": "2026-10",
            "service": "S1",
            "plan": "home",
            "plan_version": "2026-01-01",
            "start": "2026-10-18",
            "end": "2026-11-01",
            "line": "Home",
            "kind": "fee",
            "zone": None,
            "class": None,
            "direction": None,
            "quantity": "14/31",
            "unit": "month",
            "unit_price": "19.90",
            "net_minor": 899,
            "currency": "EUR",
        },
        {
            "period": "2026-10",
            "service": "S2",
            "plan": "line",
            "plan_version": "2026-01-01",
            "start": "2026-10-01",
            "end": "2026-11-01",
            "line": "95th",
            "kind": "percentile",
            "zone": None,
            "class": None,
            "direction": "down",
            "quantity": "2",
            "unit": "Mbit/s",
            "unit_price": "4.00",
            "net_minor": 672,
            "currency": "EUR",
        },
    ]


def test_a_dry_run_writes_nothing(october: Operator) -> None:
    before = sorted(path.name for path in october.home.path.rglob("*.parquet"))
    assert october("rate", "run", "2026-10", "--as-of", AFTER, "--dry-run")[0]["charges"] == 3
    assert october.count(tables.rate_run) == 0
    assert sorted(path.name for path in october.home.path.rglob("*.parquet")) == before == []
    october("charges", "export", "2026-10", code=5)
    assert "rate run 2026-10" in october.error


def test_charges_go_to_parquet_and_csv(october: Operator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    october("rate", "run", "2026-10", "--as-of", AFTER)
    target = tmp_path / "charges.parquet"
    assert (
        cli.run(
            ["--home", str(october.home.path), "charges", "export", "2026-10", "-o", "parquet", "--to", str(target)]
        )
        == 0
    )
    assert pq.read_table(target).num_rows == 3
    capsys.readouterr()
    assert cli.run(["--home", str(october.home.path), "charges", "export", "2026-10", "-o", "csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[1]
        == "2026-10,S1,home,2026-01-01,2026-10-18,2026-11-01,By day,traffic,day,default,down,1.5,GB,0.50,75,EUR"
    )


def test_the_stored_files_keep_to_their_schemas(october: Operator) -> None:
    october("rate", "run", "2026-10", "--as-of", AFTER)
    with sql.reading(sql.engine(october.home)) as connection:
        row = connection.execute(sa.select(tables.rate_run)).one()
    charges = pq.read_table(october.home.path / row.path)
    assert charges.schema.equals(schemas.CHARGES)
    usage = pq.read_table(october.home.path / row.usage_path)
    assert usage.schema.equals(schemas.USAGE)
    assert sum(usage.column("octets").to_pylist()) == 2_500_000_092
    assert set(usage.column("period").to_pylist()) == {"2026-10"}
    bookable = dict(
        zip(charges.column("line").to_pylist(), charges.column("bookable").cast(pa.int64()).to_pylist(), strict=True)
    )
    assert bookable == {
        "Home": rating_home.local_ms("2026-10-01", "Europe/Berlin"),
        "By day": rating_home.local_ms("2026-11-01", "Europe/Berlin"),
        "95th": rating_home.local_ms("2026-11-01", "Europe/Berlin"),
    }


def test_a_period_that_is_still_going_on_somewhere_is_refused(october: Operator) -> None:
    rating_home.subscribe(october.home, "S4", "home", "2026-01-01", zone="America/New_York")
    before = clock.use(clock.SimulatedClock(rating_home.local_ms("2026-11-01", "Europe/Berlin") + 3_600_000))
    try:
        october("rate", "run", "2026-10", code=1)
        assert "still going on in America/New_York until 2026-11-01T04:00:00.000Z" in october.error
        assert "--as-of" in october.error
        assert october.count(tables.rate_run) == 0
        october("rate", "run", "2026-10", "--as-of", "2026-10-01T12:00:00Z")
        clock.use(clock.SimulatedClock(rating_home.local_ms("2026-11-01", "America/New_York")))
        october("rate", "run", "2026-10")
    finally:
        clock.use(before)


def test_new_usage_makes_a_new_run_and_the_old_one_stays(october: Operator) -> None:
    first = october("rate", "run", "2026-10", "--as-of", AFTER)[0]
    rating_home.publish(
        october.home,
        [
            {
                **OCTOBER,
                "service_id": 1,
                "subscription_id": 1,
                "zone": "day",
                "direction": "down",
                "octets": 3_000_000_000,
            }
        ],
    )
    second = october("rate", "run", "2026-10", "--as-of", AFTER)[0]
    assert second["run"] > first["run"]
    assert [row["net_minor"] for row in october("charges", "export", "2026-10")] == [100, 899, 336]
    assert sorted(path.name for path in (october.home.path / "charges" / "2026-10").iterdir()) == [
        "1.parquet",
        "2.parquet",
    ]


def test_a_version_that_was_invoiced_by_does_not_change(october: Operator) -> None:
    october("rate", "run", "2026-10", "--as-of", AFTER)
    assert october.plans(PLANS.replace("19.90", "9.91"))[0]["changed"] == 1, "nobody was invoiced: it is rated again"
    assert october.plans(PLANS)[0]["changed"] == 1
    _book_a_line(october.home)
    problems = october.plans(PLANS.replace("19.90", "9.90"), code=1)
    assert [(row["line"], row["column"]) for row in problems] == [(11, "from")]
    assert "invoice A-000001" in problems[0]["problem"]
    assert "later `from`" in problems[0]["hint"]
    assert "calendar 'day-night'" in october.plans(PLANS.replace("08:00", "07:00"), code=1)[0]["problem"]
    added = PLANS.replace("2026-01-01\ncurrency", "2026-12-01\ncurrency").replace("19.90", "9.90")
    assert october.plans(added) == [{"added": 2, "changed": 0, "unchanged": 1}]


def _book_a_line(home: Home) -> None:
    """An invoice with one line by the plan `home`, as far as rating looks at it."""
    with sql.transaction(sql.engine(home)) as connection:
        run = connection.scalar(sa.select(tables.rate_run.c.id))
        account = connection.scalar(sa.select(tables.account.c.account))
        connection.execute(tables.invoice.insert().values(
            id=1, number="A-000001", account=account, period="2026-10", currency="EUR", net_minor=1, tax_minor=0,
            gross_minor=1, issued=0, due="2026-11-16", tax_policy="en16931", rate_run_id=run, document="{}", digest=""))
        connection.execute(tables.invoice_line.insert().values({
            "invoice_id": 1, "line": 1, "period": "2026-10", "service": "S1", "plan": "home", "plan_version": "2026-01-01",
            "start_date": "2026-10-01", "end_date": "2026-11-01", "charge_line": "x", "kind": "fee", "description": "x",
            "quantity": "1", "unit": "month", "unit_price": "19.90", "net_minor": 1, "tax_category": "standard",
            "tax_percent": "19", "currency": "EUR"}))


def test_a_zone_that_a_plan_names_can_not_go(operator: Operator) -> None:
    operator.plans(PLANS)
    calendar = PLANS[: PLANS.index("[[plan]]")].replace('"day"', '"peak"')
    problems = operator.plans(calendar, code=1)
    assert "zone 'day' goes, but plan 'home'" in problems[0]["problem"]


def test_a_currency_that_is_not_the_plans_stops_the_run(october: Operator) -> None:
    rating_home.subscribe(october.home, "S5", "home", "2026-01-01", currency="USD")
    october("rate", "run", "2026-10", "--as-of", AFTER, code=1)
    assert "S5 (USD) under home (EUR)" in october.error


def test_a_row_older_than_its_plan_takes_the_earliest_version(october: Operator) -> None:
    rating_home.subscribe(october.home, "S6", "home", "2025-12-31")
    october("rate", "run", "2026-10", "--as-of", AFTER)
    charged = october("charges", "export", "2026-10")
    assert {row["plan_version"] for row in charged if row["service"] == "S6"} == {"2026-01-01"}


def test_usage_that_is_not_published_stops_the_run(october: Operator) -> None:
    inside = {
        "from_ms": rating_home.instant("2026-10-05T00:00:00Z"),
        "to_ms": rating_home.instant("2026-10-06T00:00:00Z"),
    }
    elsewhere = {
        "from_ms": rating_home.instant("2026-07-05T00:00:00Z"),
        "to_ms": rating_home.instant("2026-07-06T00:00:00Z"),
    }
    engine = sql.engine(october.home)
    with sql.transaction(engine) as connection:
        connection.execute(tables.batch.insert().values(from_version=9, input_version=0, **elsewhere))
    october("rate", "run", "2026-10", "--as-of", AFTER)
    with sql.transaction(engine) as connection:
        connection.execute(tables.batch.insert().values(from_version=1, input_version=0, **inside))
    october("rate", "run", "2026-10", "--as-of", AFTER)
    with sql.transaction(engine) as connection:
        connection.execute(tables.input_change.insert().values(at=0, kind="leases", detail="", **inside))
    october("rate", "run", "2026-10", "--as-of", AFTER, code=1)
    assert "aggregate run" in october.error
    with sql.transaction(engine) as connection:
        connection.execute(tables.batch.update().values(input_version=1))
    october("rate", "run", "2026-10", "--as-of", AFTER, code=1)
    assert "usage publish" in october.error


def test_a_damaged_generation_is_not_rated(october: Operator) -> None:
    path = next((october.home.path / "generations").glob("*.duckdb"))
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    october("rate", "run", "2026-10", "--as-of", AFTER, code=1)
    assert path.name in october.error
    assert "digest" in october.error


def test_flat_fees_need_no_usage(operator: Operator) -> None:
    operator.plans(PLANS)
    rating_home.subscribe(operator.home, "S1", "home", "2026-01-01")
    done = operator("rate", "run", "2026-10", "--as-of", AFTER)[0]
    assert (done["charges"], done["net_minor"]) == (2, {"EUR": 1990})
    assert operator("rate", "verify", "2026-10")[0]["differing"] == 0


def test_a_charge_is_explained_from_the_line_down(october: Operator) -> None:
    october("rate", "run", "2026-10", "--as-of", AFTER)
    rows = october("rate", "explain", "S1", "2026-10", "By day")
    said = {row["what"]: row for row in rows}
    assert said["plan version"]["value"] == "home from 2026-01-01"
    assert said["octets of the line"]["value"] == 2_500_000_000
    assert said["sampled and refused"]["value"] == 7
    assert said["arithmetic"]["value"] == "1500000000 ÷ 1000000000 × 0.50"
    assert said["hour 2026-10-05T08:00:00.000Z"]["level"] == 2
    fee = {row["what"]: row["value"] for row in october("rate", "explain", "S1", "2026-10", "Home")}
    assert fee["arithmetic"] == "19.90 × 14/31"
    slots = [row["what"] for row in october("rate", "explain", "S2", "2026-10") if row["level"] == 2]
    assert slots == ["slot 2026-10-05T08:00:00.000Z"]
    october("rate", "explain", "S9", "2026-10", code=5)
    october("rate", "explain", "S1", "2026-10", "By night", code=5)
    assert "By day, Home" in october.error


STEPS = """
[[plan]]
name = "steps"
from = 2026-01-01
currency = "EUR"
tax = "standard"
prices = "inclusive"
contract = { months = 12 }

[[plan.fee]]
name = "Fee"
amount = "12.00"
every = "month"
when = "arrears"
proration = "actual_days"

[[plan.once]]
name = "Start"
on = "start"
amount = "5.00"

[[plan.once]]
name = "Early"
on = "early_end"
percent = "50"
of = "Fee"

[[plan.traffic]]
name = "Steps"
direction = "down"
model = "graduated"
unit = "GB"
tiers = [ { to = "1 GB", price = "2", flat = "1" }, { price = "0.10", block = "100 MB" } ]

[[plan.traffic]]
name = "Blocks"
direction = "up"
price = "1"
block = "1 GB"

[[plan.quota]]
name = "Quota"
volume = "1 GB"
direction = "both"
rollover = { cap = "500 MB", periods = 1 }

[[plan.minimum]]
name = "Least"
amount = "10"
share = "whole_period"
lines = ["Steps", "Blocks"]

[[plan.maximum]]
name = "Most"
amount = "15"
share = "whole_period"
lines = ["Least", "Steps", "Blocks", "Start"]

[[plan.discount]]
name = "Off"
percent = "10"
months = 1
"""


def test_steps_quotas_bounds_and_discounts_are_explained_and_verified(operator: Operator) -> None:
    """18 to 28 October; 2.35 GB down and 400 MB up, of which a quota covers 1 GB of what is down."""
    operator.plans(STEPS)
    one = rating_home.subscribe(operator.home, "S1", "steps", "2026-10-18", "2026-10-28")
    used = {**OCTOBER, "service_id": 1, "subscription_id": one}
    rating_home.publish(operator.home, [{**used, "direction": "down", "octets": 2_350_000_000},
                                        {**used, "direction": "up", "octets": 400_000_000}])
    operator("rate", "run", "2026-10", "--as-of", AFTER)
    said: dict[str, dict[str, Any]] = {}
    for row in operator("rate", "explain", "S1", "2026-10"):
        said.setdefault(row["line"], {}).setdefault(row["what"], row["value"])
    assert {line: (rows["arithmetic"], rows["amount"]) for line, rows in said.items() if line} == {
        "Fee": ("12.00 × 10/31", 387),
        "Start": ("5.00", 500),
        "Early": ("50 ÷ 100 × 12.00 × (4/31 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 17/31)", 7006),
        "Steps": ("1000000000 ÷ 1000000000 × 2 + 1 + 4 × 0.10", 340),
        "Blocks": ("1 × 1", 100),
        "Quota": ("0", 0),
        "Least": ("10 − 4.40", 560),
        "Most": ("0", 0),
        "Off": ("0 − (3.87 + 5.00 + 70.06 + 3.40 + 1.00 + 5.60) × 10 ÷ 100", -889),
    }
    assert said["Steps"]["octets of the line"] == 2_350_000_000
    assert said["Steps"]["covered by quotas"] == 1_000_000_000
    assert (said["Steps"]["tier 1"], said["Steps"]["tier 2"]) == ("1000000000 ÷ 1000000000 × 2 + 1", "4 × 0.10")
    assert [said["Quota"][what] for what in ("given", "used", "lost")] == [10**9, 10**9, 0]
    assert said["Least"]["sum of the lines"] == 440
    assert said["Off"]["holds"] == "2026-10-18 to 2026-10-28"
    assert {rows["gross"] for line, rows in said.items() if line} == {387, 500, 7006, 340, 100, 0, 560, -889}
    assert operator("rate", "verify", "2026-10") == [{"checked": 9, "equal": 9, "differing": 0}]


def test_verification_finds_equal_charges_whatever_changed_since(october: Operator) -> None:
    october("rate", "run", "2026-10", "--as-of", AFTER)
    with sql.transaction(sql.engine(october.home)) as connection:
        connection.execute(tables.subscription.update().values(start_date="2026-10-20"))
        connection.execute(tables.plan_version.update().values(document=tables.plan_version.c.document + " "))
    assert october("rate", "verify", "2026-10") == [{"checked": 3, "equal": 3, "differing": 0}]
    october("rate", "verify", "2026-11", code=5)


def test_verification_finds_a_charge_that_is_wrong(october: Operator) -> None:
    import hashlib

    october("rate", "run", "2026-10", "--as-of", AFTER)
    path = october.home.path / "charges" / "2026-10" / "1.parquet"
    table = pq.read_table(path)
    index = table.schema.get_field_index("net_minor")
    wrong = pa.array(
        [value + (row == 1) for row, value in enumerate(table.column("net_minor").to_pylist())], pa.int64()
    )
    pq.write_table(table.set_column(index, schemas.CHARGES.field("net_minor"), wrong), path)
    october("rate", "verify", "2026-10", code=1)  # the digest notices
    with sql.transaction(sql.engine(october.home)) as connection:
        connection.execute(tables.rate_run.update().values(digest=hashlib.sha256(path.read_bytes()).hexdigest()))
    assert october("rate", "verify", "2026-10", code=7) == [{"checked": 3, "equal": 2, "differing": 1}]
    assert "Home" in october.error


def test_two_homes_with_the_same_inputs_write_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digests = []
    for name in ("one", "two"):
        operator = Operator(rating_home.make_home(tmp_path / name), capsys)
        operator.plans(PLANS)
        number = rating_home.subscribe(operator.home, "S1", "home", "2026-01-01")
        rating_home.publish(
            operator.home,
            [
                {**OCTOBER, "service_id": 1, "subscription_id": number, "direction": "down", "octets": octets}
                for octets in range(50)
            ],
        )
        operator("rate", "run", "2026-10", "--as-of", AFTER)
        with sql.reading(sql.engine(operator.home)) as connection:
            row = connection.execute(sa.select(tables.rate_run)).one()
        digests.append((row.digest, row.usage_digest))
    assert digests[0] == digests[1]
