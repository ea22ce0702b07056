"""A provider moves from another billing: three months beside it, then live; a plan's version for a pilot group first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import rating_home
import sqlalchemy as sa
from rating_operator import Operator

from core import tables
from storage import sql

PLAN = """
[[plan]]
name = "home"
from = {version}
currency = "EUR"
tax = "standard"
prices = "exclusive"

[[plan.fee]]
name = "Home"
amount = "{amount}"
every = "month"
when = "arrears"
proration = "actual_days"
"""
PLANS = PLAN.format(version="2026-01-01", amount="30.00") + """
[[plan.fee]]
name = "Static address"
amount = "2.00"
every = "month"
when = "arrears"
proration = "actual_days"
"""
MAPPING = """
delimiter = ";"
decimal = ","
ignored = ["invoice no"]
[columns]
service = "Contract"
[services]
"4711" = "S1"
[lines]
"Internet 100" = "Home"
"Fixed IP" = "Static address"
[not_billed]
"Paper invoice" = "ends with the old billing"
"""
RULES = """
[[explanation]]
line = "Static address"
cause = "line_missing_there"
service = "S3"
reason = "was promised for nothing until October"
"""
HEAD = "Invoice no;Contract;Product;Amount;Currency\n"
LATER = ("--as-of", "2027-06-01T00:00:00Z")


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    operator = Operator(rating_home.make_home(tmp_path / "home"), capsys)
    operator.plans(PLANS)
    return operator


def _file(operator: Operator, name: str, text: str) -> str:
    path = operator.home.path / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def _theirs(operator: Operator, period: str, rows: str, *words: str, code: int = 0) -> list[dict[str, Any]]:
    return operator("twin", "import", period, _file(operator, f"{period}.csv", HEAD + rows), "--mapping",
                    _file(operator, "mapping.toml", MAPPING), *words, code=code)


WHOLE = "1;4711;Internet 100;30,00;EUR\n1;4711;Fixed IP;2,00;EUR\n1;4711;Paper invoice;1,50;EUR\n"
SECOND = "2;S2;Internet 100;30,00;EUR\n2;S2;Fixed IP;2,00;EUR\n"
THIRD = "3;S3;Internet 100;30,00;EUR\n"


def test_three_months_beside_another_billing_and_then_live(operator: Operator) -> None:
    rating_home.subscribe(operator.home, "S1", "home", "2026-01-01")
    rating_home.subscribe(operator.home, "S2", "home", "2026-08-16")
    rating_home.subscribe(operator.home, "S3", "home", "2026-08-01")
    for period in ("2026-08", "2026-09", "2026-10"):
        operator("rate", "run", period, *LATER)
    assert operator("rollout", "start", "move", "--services", "S1,S2", "--reason", "new billing")[0]["stage"] == "test"
    operator("rollout", "start", "again", code=1)
    assert "still in the stage test" in operator.error

    # nothing is booked in the stage test, and the balances name what is held
    (held,) = operator("invoice", "run", "2026-08", *LATER)
    assert (held["invoices"], held["held"]) == (0, {"move": 3})
    assert "3 services are rated but not booked: rollout 'move' has not reached them" in operator.error
    balances = {row["balance"]: row for row in operator("reconcile", "2026-08")}
    assert (balances["charges_invoices"]["difference"], balances["charges_invoices"]["losses"]) == (0, {"held": 8051})
    operator("rollout", "advance", "move", code=7)
    assert "nothing was compared yet, and 3 periods" in operator.error

    # an import is whole or not at all
    problems = _theirs(operator, "2026-08", "1;4711;Internet 100;30,001;EUR\n1;;Fixed IP;2,00;EURO\n", code=1)
    said = " ".join(row["problem"] for row in problems)
    for words in ("finer than the minor unit of EUR", "the service is empty", "'EURO' is not a currency code"):
        assert words in said
    assert operator.count(tables.twin_import) == 0
    august = WHOLE + "2;S2;Internet 100;16,00;EUR\n2;S2;Fixed IP;1,03;EUR\n" + THIRD
    (problem,) = _theirs(operator, "2026-08", august, "--total", "80.53 EUR", "--total", "1 USD", code=1)[:1]
    assert "add up to 80.53 EUR" not in problem["problem"]
    assert "add up to 0.00 USD, the stated total is 1.00: the difference is -1.00" in problem["problem"]
    (done,) = _theirs(operator, "2026-08", august, "--total", "80.53 EUR")
    assert (done["rows"], done["total_minor"], done["changed"], done["unknown_lines"]) == (6, {"EUR": 8053}, True, [])
    assert _theirs(operator, "2026-08", august)[0]["changed"] is False
    assert operator.count(tables.twin_import) == 1

    # S2 by thirty days (15.00 for half a month) after their file was corrected; S3 has no address there
    august = august.replace("16,00", "15,00").replace("1,03", "1,00")
    assert _theirs(operator, "2026-08", august, "--reason", "corrected")[0]["replaces"] == 1
    rows = {(row["service"], row["line"]): row for row in operator("twin", "compare", "2026-08", code=7)}
    assert {key: (row["ours_minor"], row["theirs_minor"], row["difference_minor"], row["state"], row["cause"])
            for key, row in rows.items()} == {
        ("S1", "Paper invoice"): (None, 150, -150, "explained", "not_billed"),
        ("S2", "Home"): (1548, 1500, 48, "explained", "proration"),
        ("S2", "Static address"): (103, 100, 3, "explained", "proration"),
        ("S3", "Static address"): (200, None, 200, "open", "line_missing_there")}
    assert rows["S2", "Home"]["detail"] == "they prorate by thirty_day_month"
    (summary,) = operator("twin", "compare", "2026-08", "--summary", code=7)
    assert (summary["explained_minor"], summary["unexplained_minor"], summary["lines"]) == ({"EUR": 201}, {"EUR": 200}, 7)
    assert summary["causes"]["proration"] == {"state": "explained", "lines": 2, "minor": {"EUR": 51}}
    assert operator("twin", "compare", "2026-08", "--service", "S2")  # exit code 0: all of it is explained

    # the pilot needs the group's lines of three months, which S3 is not of
    operator("rollout", "advance", "move", code=7)
    assert "the last 3 periods must be without an open cent for the pilot group" in operator.error
    assert "2026-07 has not been rated" in operator.error
    for period in ("2026-09", "2026-10"):
        _theirs(operator, period, WHOLE + SECOND + THIRD)
    (pilot,) = operator("rollout", "advance", "move")
    assert pilot["stage"] == "pilot"
    assert [of["period"] for of in pilot["evidence"]["compared"]] == ["2026-08", "2026-09", "2026-10"]
    assert operator("invoice", "run", "2026-08", *LATER)[0]["invoices"] == 0  # the pilot is rated in parallel

    # everybody needs the lines of all
    operator("rollout", "advance", "move", code=7)
    for period in ("2026-08", "2026-09", "2026-10"):
        assert f"{period}: 2.00 EUR on 1 lines are open" in operator.error
    address = ("twin", "explain", "2026-08", "--service", "S3", "--line", "Static address")
    operator(*address, code=2)
    assert "--reason is missing" in operator.error
    assert operator(*address, "--reason", "a present")[0] == {
        "period": "2026-08", "accepted": 1, "unexplained_lines": 0, "unexplained_minor": {}, "unused_rules": []}
    operator(*address, "--reason", "again", code=5)
    rules = _file(operator, "rules.toml", RULES)
    assert [operator("twin", "explain", period, "--file", rules)[0]["accepted"] for period in ("2026-09", "2026-10")] == [1, 1]
    assert operator("twin", "explanations", "2026-08")[0]["reason"] == "a present"
    operator("twin", "explain", "2026-08", "--file", _file(operator, "bad.toml", RULES.replace("cause", "because")), code=1)
    operator("rollout", "advance", "move", "--from", "2026-10", code=2)
    assert "2026-10 was billed by the other billing" in operator.error
    (live,) = operator("rollout", "advance", "move", "--reason", "three months without an open cent")
    assert (live["stage"], live["everybody_from"]) == ("everybody", "2026-11")

    # what the other billing has billed is never booked here; from November on everything is
    for period in ("2026-11", "2026-12", "2027-01"):
        operator("rate", "run", period, *LATER)
    assert operator("invoice", "run", "2026-10", *LATER)[0]["invoices"] == 0
    (november,) = operator("invoice", "run", "2026-11", *LATER)
    assert (november["invoices"], november["held"], november["adjusted_periods"]) == (3, {}, [])
    assert november["never_invoiced"] == []
    assert november["totals"]["EUR"]["net_minor"] == 3 * 3200

    # a step back: what is booked stays, what is to come is held
    assert operator("rollout", "back", "move", "--reason", "the printer fails")[0]["stage"] == "pilot"
    assert operator("invoice", "run", "2026-12", *LATER)[0]["held"] == {"move": 3}
    with sql.transaction(sql.engine(operator.home)) as connection:  # S3 ended in November, as is known too late
        connection.execute(tables.subscription.update().where(tables.subscription.c.id == 3).values(end_date="2026-11-16"))
    operator("rate", "run", "2026-11", *LATER)
    operator("rate", "run", "2026-12", *LATER)
    assert operator("invoice", "run", "2026-11", *LATER)[0]["invoices"] == 0  # not even what is to be given back
    assert len(operator("invoice", "list", "2026-11")) == 3
    steps = operator("rollout", "show", "move")
    assert [(row["action"], row["stage"], row["reason"]) for row in steps] == [
        ("start", "test", "new billing"), ("advance", "pilot", "rollout advance move"),
        ("advance", "everybody", "three months without an open cent"), ("back", "pilot", "the printer fails")]
    assert steps[0]["pilot_services"] == steps[3]["pilot_services"] == 2
    assert operator("rollout", "advance", "move", "--from", "2026-11")[0]["everybody_from"] == "2026-11"
    (december,) = operator("invoice", "run", "2026-12", *LATER)
    assert (december["invoices"], december["adjusted_periods"]) == (3, ["2026-11"])
    assert december["totals"]["EUR"]["net_minor"] == 2 * 3200 - 1600  # S3 gets half of its November back
    operator("rollout", "end", "move", "--reason", "over", code=2)
    with sql.reading(sql.engine(operator.home)) as connection:
        trail = connection.execute(sa.select(tables.audit.c.action, tables.audit.c.before, tables.audit.c.after)).all()
    actions = [row.action for row in trail]
    assert (actions.count("rollout advance"), actions.count("rollout back"), actions.count("twin explain")) == (3, 1, 3)
    replaced = next(row for row in trail if row.action == "twin import" and row.before)
    assert json.loads(replaced.before)["import"] == 1
    assert json.loads(replaced.after)["import"] == 2


def test_another_price_and_strangers(operator: Operator) -> None:
    for service in ("S1", "S2", "S3"):
        rating_home.subscribe(operator.home, service, "home", "2026-01-01")
    operator("rate", "run", "2026-10", *LATER)
    operator("twin", "compare", "2026-10", code=5)
    rows = "".join(f"1;{service};Internet 100;29,90;EUR\n1;{service};Fixed IP;2,00;EUR\n" for service in ("S1", "S2"))
    _theirs(operator, "2026-10", rows + "1;S9;Internet 100;30,00;EUR\n1;S2;Modem;3,00;EUR\n")
    found = {(row["service"], row["line"]): (row["state"], row["cause"], row["detail"])
             for row in operator("twin", "compare", "2026-10", code=7)}
    price = "they charge 29.9 a month instead of 30.00, all 2 services of home alike"
    assert found["S1", "Home"] == found["S2", "Home"] == ("explained", "price", price)
    assert found["S3", "Home"][:2] == found["S3", "Static address"][:2] == ("open", "service_unknown_there")
    assert found["S9", "Home"][:2] == ("open", "service_unknown_here")
    assert found["S2", "Modem"][:2] == ("open", "line_missing_here")
    assert operator("twin", "list")[0]["counts"] is True
    problems = operator("twin", "import", "2026-10", _file(operator, "x.csv", HEAD), "--mapping", _file(
        operator, "wrong.toml", MAPPING.replace('"Home"', '"Hom"').replace("delimiter", "delimeter")), code=1)
    said = " ".join(row["problem"] for row in problems)
    assert "no plan has a line 'Hom', did you mean 'Home'?" in said
    assert "unknown key 'delimeter', did you mean 'delimiter'?" in said


def test_a_new_version_of_a_plan_reaches_a_group_first(operator: Operator) -> None:
    rating_home.subscribe(operator.home, "S1", "home", "2026-01-01")
    rating_home.subscribe(operator.home, "S2", "home", "2026-01-01", "2026-10-16")
    rating_home.subscribe(operator.home, "S2", "home", "2026-10-16")  # moved to the new version
    rating_home.subscribe(operator.home, "S3", "home", "2026-10-01")
    operator.plans(PLANS + PLAN.format(version="2026-10-01", amount="40.00"))
    operator("rollout", "start", "v2", "--plan", "hom", code=5)
    assert "did you mean 'home'?" in operator.error
    group = _file(operator, "group.txt", "service\nS3\n# friends\n")
    (begun,) = operator("rollout", "start", "v2", "--plan", "home", "--pilot-books")
    assert begun["of"] == "home from 2026-10-01"
    operator("rollout", "advance", "v2", code=2)
    assert "has no pilot group" in operator.error
    operator("rate", "run", "2026-10", *LATER)
    (run,) = operator("invoice", "run", "2026-10", *LATER)
    assert (run["invoices"], run["held"]) == (1, {"v2": 2})  # S2 is held whole: also its half month of the old version
    operator("rollout", "advance", "v2", "--group", group)
    assert operator("rollout", "show", "v2", "--services") == [{"service": "S3"}]
    (run,) = operator("invoice", "run", "2026-10", *LATER)
    assert (run["invoices"], run["held"], run["totals"]["EUR"]["net_minor"]) == (1, {"v2": 1}, 4000)
    assert operator("rollout", "advance", "v2", "--dry-run")[0]["stage"] == "everybody"
    assert operator("rollout", "list")[0]["stage"] == "pilot"
    operator("rollout", "advance", "v2")
    (run,) = operator("invoice", "run", "2026-10", *LATER)
    assert (run["invoices"], run["held"]) == (1, {})
    assert run["totals"]["EUR"]["net_minor"] == 1452 + 97 + 2065  # 15/31 of 30.00 and 2.00, 16/31 of 40.00
    balances = {row["balance"]: row for row in operator("reconcile", "2026-10")}
    assert (balances["charges_invoices"]["difference"], balances["charges_invoices"]["losses"]) == (0, {})
    operator("rollout", "end", "v2", "--reason", "done")
    assert operator("rollout", "list")[0]["stage"] == "ended"


def test_a_pilot_group_that_is_invoiced_here_is_not_missed_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = rating_home.SETTINGS + "\n[rollout]\ncompared_periods = 1\n"
    operator = Operator(rating_home.make_home(tmp_path / "home", settings), capsys)
    operator.plans(PLANS)
    for service in ("S1", "S2"):
        rating_home.subscribe(operator.home, service, "home", "2026-01-01")
    for period in ("2026-08", "2026-09", "2026-10"):
        operator("rate", "run", period, *LATER)
    operator("rollout", "start", "move", "--pilot-books", "--services", "S1")
    _theirs(operator, "2026-08", WHOLE + SECOND)
    assert operator("rollout", "advance", "move")[0]["pilot_from"] == "2026-09"
    (run,) = operator("invoice", "run", "2026-09", *LATER)
    assert (run["invoices"], run["held"]) == (1, {"move": 1})
    assert operator("invoice", "run", "2026-08", *LATER)[0]["invoices"] == 0
    _theirs(operator, "2026-09", SECOND)
    assert [(row["service"], row["line"], row["cause"]) for row in operator("twin", "compare", "2026-09")] == [
        ("S1", "Home", "billed_here"), ("S1", "Static address", "billed_here")]
    assert operator("rollout", "advance", "move")[0]["everybody_from"] == "2026-10"
    # S2's September was billed there: an October run books its October only
    (run,) = operator("invoice", "run", "2026-10", *LATER)
    assert (run["invoices"], run["lines"], run["adjusted_periods"]) == (2, 4, [])
