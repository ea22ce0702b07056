from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from billing_home import AS_OF, Charge, attribute, make_home, rate, rows_of

from core import tables
from core.actor import Actor
from core.errors import BalanceOpen, DamagedFile, Locked, RatemillError, SettingsError
from core.periods import parse_instant
from invoicing import gates, run, verification
from runtime import jobs
from storage import sql
from storage.home import Home

ACTOR = Actor("tester", "because")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


def _invoice(home: Home, period: str = "2026-10", as_of: str = AS_OF, dry_run: bool = False) -> dict[str, object]:
    return run.run(home, period, parse_instant(as_of), dry_run, ACTOR)


def _lines(home: Home) -> list[tuple[str, int, str, str, int]]:
    invoices = {row["id"]: row["number"] for row in rows_of(home, tables.invoice)}
    return [
        (invoices[row["invoice_id"]], row["line"], row["period"], row["charge_line"], row["net_minor"])
        for row in rows_of(home, tables.invoice_line)
    ]


def test_one_invoice_an_account_and_currency_in_the_order_of_the_accounts(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", ["A2", "A10", "A1"])
    rate(home, "2026-10", [
        Charge("S2"), Charge("S10"), Charge("S1", "One"), Charge("S1", "Two", plan="dollars", currency="USD"),
    ])  # fmt: skip
    assert _invoice(home)["invoices"] == 4
    assert [(row["number"], row["account"], row["currency"]) for row in rows_of(home, tables.invoice)] == [
        ("A-000001", "A1", "EUR"), ("A-000002", "A1", "USD"), ("A-000003", "A10", "EUR"), ("A-000004", "A2", "EUR"),
    ]  # fmt: skip


def test_lines_of_0_are_shown_but_make_no_invoice_alone(home: Home) -> None:
    rate(home, "2026-10", [Charge("S1", "Paid"), Charge("S1", "Free", net=0), Charge("S2", "Free", net=0)])
    assert _invoice(home)["invoices"] == 1
    assert _lines(home) == [("A-000001", 1, "2026-10", "Paid", 1990), ("A-000001", 2, "2026-10", "Free", 0)]
    assert _invoice(home)["invoices"] == 0


def test_issued_and_due_are_the_sellers_local_days(home: Home) -> None:
    rate(home, "2026-10", [Charge("S1")])
    _invoice(home, as_of="2026-11-01T23:30:00Z")  # half past midnight of the next day in Berlin
    invoice = rows_of(home, tables.invoice)[0]
    assert (invoice["issued"], invoice["due"]) == (parse_instant("2026-11-01T23:30:00Z"), "2026-11-16")


def test_a_fee_in_advance_is_booked_first_and_the_rest_after_the_end(home: Home) -> None:
    charges = [Charge("S1", "Advance", bookable="2026-09-30T22:00:00Z"), Charge("S1", "Arrears", net=125)]
    rate(home, "2026-10", charges, as_of="2026-10-05T00:00:00Z")
    assert _invoice(home, as_of="2026-10-05T00:00:00Z")["lines"] == 1
    assert _invoice(home, as_of="2026-10-20T00:00:00Z")["lines"] == 0
    assert _invoice(home)["lines"] == 1
    assert [line[3:] for line in _lines(home)] == [("Advance", 1990), ("Arrears", 125)]


def test_differences_of_a_period_invoiced_before_come_with_the_next(home: Home) -> None:
    rate(home, "2026-09", [Charge("S1", "Fee"), Charge("S1", "Gone", net=300)])
    _invoice(home, "2026-09", "2026-10-02T00:00:00Z")
    rate(home, "2026-09", [Charge("S1", "Fee", net=2190, quantity="1.1"), Charge("S2", "New", net=50)])
    rate(home, "2026-10", [Charge("S1", "Fee")])
    assert _invoice(home)["adjusted_periods"] == ["2026-09"]
    assert _lines(home)[2:] == [
        ("A-000002", 1, "2026-10", "Fee", 1990),
        ("A-000002", 2, "2026-09", "Fee", 200),
        ("A-000002", 3, "2026-09", "Gone", -300),
        ("A-000003", 1, "2026-09", "New", 50),
    ]
    corrected = [row for row in rows_of(home, tables.invoice_line) if row["net_minor"] in (200, -300)]
    assert [(row["quantity"], row["description"]) for row in corrected] == [
        ("1.1", "Fee, 2026-09-01 – 2026-09-30, correction: 1.1 instead of 1 month"),
        ("0", "Gone, 2026-09-01 – 2026-09-30, cancelled"),
    ]


def test_periods_never_invoiced_are_listed_and_not_booked(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    rate(home, "2026-08", [Charge("S1")])
    rate(home, "2026-09", [Charge("S1", net=0)])
    rate(home, "2026-10", [Charge("S1")])
    assert _invoice(home)["never_invoiced"] == ["2026-08"]
    assert "never invoiced" in capsys.readouterr().err
    assert {line[2] for line in _lines(home)} == {"2026-10"}
    assert _invoice(home, "2026-08")["invoices"] == 1


def test_a_percentage_that_was_entered_late_moves_the_booked_money(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", percent="20")
    rate(home, "2026-10", [Charge("S1", net=1000)])
    _invoice(home)
    text = (home.path / "ratemill.toml").read_text()
    later = '\n[[tax]]\ncategory = "standard"\npercent = "22"\nfrom = 2026-10-01\n'
    (home.path / "ratemill.toml").write_text(text + later)
    assert _invoice(Home(home.path))["totals"] == {"EUR": {"net_minor": 0, "tax_minor": 20, "gross_minor": 20}}
    assert _invoice(Home(home.path))["invoices"] == 0
    for number in ("A-000001", "A-000002"):
        assert verification.verify(home, number, 1)["differences"] == []


def test_a_net_rated_with_another_percentage_is_refused(home: Home) -> None:
    rate(home, "2026-10", [Charge("S1", net=4688, gross=5250)])  # of 12 %, and today's is 19
    with pytest.raises(RatemillError, match="another percentage"):
        _invoice(home)


def test_a_dry_run_changes_nothing(home: Home) -> None:
    rate(home, "2026-10", [Charge("S1")])
    planned = _invoice(home, dry_run=True)
    assert rows_of(home, tables.invoice) == rows_of(home, tables.audit) == rows_of(home, tables.posting) == []
    assert {**planned, "dry_run": False} == _invoice(home)


def test_actor_and_reason_are_recorded_with_the_booking(home: Home) -> None:
    rate(home, "2026-10", [Charge("S1")])
    _invoice(home)
    _invoice(home)
    [audited] = rows_of(home, tables.audit)
    assert (audited["actor"], audited["reason"], audited["action"], audited["subject"]) == (
        "tester", "because", "invoice run", "2026-10",
    )  # fmt: skip


def test_an_unrated_period_is_refused_with_the_command_to_run(home: Home) -> None:
    with pytest.raises(RatemillError, match="rate run 2026-10") as refused:
        _invoice(home)
    assert refused.value.exit_code == 1


@pytest.mark.parametrize("folder", ["charges", "frozen"])
def test_a_flipped_bit_in_what_is_billed_stops_the_run(home: Home, folder: str) -> None:
    rate(home, "2026-10", [Charge("S1")])
    path = next(home.folder(folder).rglob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match="does not match its digest"):
        _invoice(home)
    assert rows_of(home, tables.invoice) == []


def test_usage_that_the_rating_has_not_seen_stops_the_run_after_the_periods_end(home: Home) -> None:
    rate(home, "2026-10", [Charge("S1", bookable="2026-09-30T22:00:00Z")], octets=900)
    attribute(home, "2026-10", 1000)
    with pytest.raises(BalanceOpen, match="rated_octets: 100 octets"):
        _invoice(home)
    assert _invoice(home, dry_run=True)["invoices"] == 1
    assert _invoice(home, as_of="2026-10-20T00:00:00Z")["invoices"] == 1, "an advance depends on no usage"


def test_a_registered_check_stops_the_run(home: Home) -> None:
    rate(home, "2026-10", [Charge("S1")])
    gates.register(lambda _home, period: [{"balance": "records", "unit": "records", "difference": 3, "period": period}])
    try:
        with pytest.raises(BalanceOpen, match="records: 3") as refused:
            _invoice(home)
    finally:
        gates.forget_registered()
    assert refused.value.exit_code == 7
    assert rows_of(home, tables.invoice) == []


def test_new_usage_of_an_earlier_period_is_mentioned_and_does_not_stop_the_run(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    rate(home, "2026-09", [Charge("S1")])
    _invoice(home, "2026-09")
    attribute(home, "2026-09", 7)
    rate(home, "2026-10", [Charge("S1")])
    assert _invoice(home)["invoices"] == 1
    assert "2026-09" in capsys.readouterr().err


def test_a_plan_in_another_currency_is_refused(home: Home) -> None:
    rate(home, "2026-10", [Charge("S1", plan="dollars", currency="EUR")])
    with pytest.raises(RatemillError, match="is in USD, its charges are in EUR"):
        _invoice(home)


def test_a_category_without_a_percentage_is_refused(home: Home) -> None:
    rate(home, "2026-10", [Charge("S1", tax="unheard")])
    with pytest.raises(SettingsError, match="unheard"):
        _invoice(home)


def test_a_service_that_nobody_knows_is_refused(home: Home) -> None:
    rate(home, "2026-10", [Charge("S99")])
    with pytest.raises(RatemillError, match="S99"):
        _invoice(home)


def test_while_one_run_is_at_work_another_is_told_by_whom(home: Home) -> None:
    rate(home, "2026-10", [Charge("S1")])
    with jobs.hold(sql.engine(home), "invoice"), pytest.raises(Locked, match="process"):
        _invoice(home)


def test_a_rating_that_comes_between_proposal_and_booking_stops_the_run(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate(home, "2026-10", [Charge("S1")])
    propose = run.propose

    def slow(home: Home, period: str, as_of: int) -> run.Proposal:
        made = propose(home, period, as_of)
        rate(home, "2026-10", [Charge("S1", net=1)])
        return made

    monkeypatch.setattr(run, "propose", slow)
    with pytest.raises(RatemillError, match="changed while"):
        _invoice(home)
    assert rows_of(home, tables.invoice) == []


def test_a_booking_that_fails_at_its_end_leaves_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    rate(home, "2026-10", [Charge("S1"), Charge("S2")])

    def fail(*_: object) -> None:
        raise sa.exc.OperationalError("INSERT", {}, Exception("database or disk is full"))

    monkeypatch.setattr("security.audit.record", fail)
    with pytest.raises(RatemillError, match="can't be written"):
        _invoice(home)
    for table in (tables.invoice, tables.invoice_line, tables.number_series, tables.ledger_transaction, tables.posting):
        assert rows_of(home, table) == []
    monkeypatch.undo()
    assert _invoice(home)["first"] == "A-000001"
