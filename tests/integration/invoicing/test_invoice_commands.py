"""The commands `invoice …` and `ledger …` as an operator types them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from billing_home import AS_OF, Charge, attribute, make_home, rate, rows_of

import cli
from core import tables
from core.addresses import parse_address
from core.periods import parse_instant
from core.schemas import CELLS
from invoicing import gates
from storage import files, sql
from storage.home import Home

Run = Callable[..., str]
TRAFFIC = {
    "kind": "traffic", "unit": "GB", "unit_price": "0.50", "quantity": "2.5", "zone": "day", "class_": "default",
    "direction": "down",
}  # fmt: skip
OCTETS = 3_500_000_000


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = make_home(tmp_path / "home")
    charges = [Charge("S1"), Charge("S1", "Traffic", 125, **TRAFFIC), Charge("S2", net=4000)]  # type: ignore[arg-type]
    usage = [
        {"service": 1, "octets": OCTETS, "zone": "day"},
        {"service": 1, "octets": 5, "zone": "night", "direction": "up"},
    ]
    rate(home, "2026-10", charges, usage=usage, octets=OCTETS + 5)
    _lineage(home, OCTETS + 5)
    return home


def _lineage(home: Home, octets: int) -> None:
    """One exporter, one segment, one batch with one cell file: where the usage came from."""
    at = parse_instant("2026-10-05T08:00:00Z")
    batch = attribute(home, "2026-10", octets)
    with sql.transaction(sql.engine(home)) as connection:
        connection.execute(tables.subscription.insert().values(
            service_id=1, plan="home-100", start_date="2026-01-01", end_date="", start_ms=0, end_ms=2**62,
            timezone="Europe/Berlin", currency="EUR"))  # fmt: skip
        connection.execute(tables.batch.update().values(from_version=0))
        connection.execute(tables.segment.insert().values(
            id=1, collector="c1", path="segments/one.arrow", digest="d", content_digest="e", octets_size=1, flows=1,
            octets=octets, received_first=at, received_last=at, start_first=at, end_last=at + 1, block_first=0,
            block_last=0, decoder_version="1", settings_digest="s", manifest_version=0))  # fmt: skip
        connection.execute(tables.consumed.insert().values(segment_id=1, batch_id=batch))
        connection.execute(tables.intake.insert().values(
            segment_id=1, exporter=parse_address("192.0.2.1"), domain=7, export_protocol=9, slot=at, datagrams=3, decoded=3,
            faulted=0, duplicate=0, refused=0, data_records=1, options_records=0, flow_records=1, not_a_flow=0,
            faulted_records=0, waiting_sets=0))  # fmt: skip
    _cells(home, "one", batch, at, octets)


def _cells(home: Home, name: str, batch: int, at: int, octets: int) -> None:
    cell = {
        "service": 1,
        "slot": at,
        "class": 1,
        "direction": 1,
        "sampled": 0,
        "octets": octets,
        "packets": 9,
        "flows": 1,
    }
    path = home.folder("cells") / f"{name}.parquet"
    table = pa.Table.from_pylist([cell], schema=CELLS)
    digest = files.build_whole(path, lambda temporary: pq.write_table(table, temporary))
    with sql.transaction(sql.engine(home)) as connection:
        connection.execute(tables.cell_file.insert().values(
            batch_id=batch, kind="cells", path=home.relative(path), digest=digest, rows=1, octets=octets, slot_first=at,
            slot_last=at))  # fmt: skip


@pytest.fixture
def ratemill(home: Home, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str, code: int = 0, form: str = "json") -> str:
        got = cli.run(["--home", str(home.path), "-o", form, *words])
        out, err = capsys.readouterr()
        assert got == code, f"{words}: exit {got}\n{out}\n{err}"
        return out if code == 0 or out else err

    gates.forget_registered()
    yield call  # type: ignore[misc]
    gates.forget_registered()


@pytest.fixture
def invoiced(ratemill: Run, home: Home, monkeypatch: pytest.MonkeyPatch) -> Run:
    # the balances of the whole pipeline are held by the acceptance tests; here there is no pipeline
    monkeypatch.setattr("monitoring.gates.register", lambda: None)
    ratemill("invoice", "run", "2026-10", "--as-of", AS_OF, "--reason", "month end")
    return ratemill


def _rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_run_prints_one_object_and_a_second_run_nothing_new(invoiced: Run) -> None:
    [summary] = _rows(invoiced("invoice", "run", "2026-10", "--as-of", AS_OF))
    assert (summary["invoices"], summary["lines"], summary["totals"]) == (0, 0, {})


def test_the_list_has_the_columns_of_the_contract(invoiced: Run) -> None:
    assert _rows(invoiced("invoice", "list", "2026-10")) == [
        {"number": "A-000001", "account": "A1", "period": "2026-10", "net_minor": 2115, "tax_minor": 402,
         "gross_minor": 2517, "currency": "EUR", "issued": "2026-11-02T00:00:00.000Z"},
        {"number": "A-000002", "account": "A2", "period": "2026-10", "net_minor": 4000, "tax_minor": 760,
         "gross_minor": 4760, "currency": "EUR", "issued": "2026-11-02T00:00:00.000Z"},
    ]  # fmt: skip
    assert invoiced("invoice", "list", "2026-09") == ""


def test_the_export_has_the_columns_of_the_contract(invoiced: Run) -> None:
    exported = list(csv.reader(io.StringIO(invoiced("invoice", "export", "2026-10", form="csv"))))
    assert exported == [
        ["number", "line", "service", "kind", "description", "quantity", "unit", "unit_price", "net_minor", "tax_category"],
        ["A-000001", "1", "S1", "fee", "Home 100, 2026-10-01 – 2026-10-31", "1", "month", "19.90", "1990", "standard"],
        ["A-000001", "2", "S1", "traffic", "Traffic, 2026-10-01 – 2026-10-31", "2.5", "GB", "0.50", "125", "standard"],
        ["A-000002", "1", "S2", "fee", "Home 100, 2026-10-01 – 2026-10-31", "1", "month", "19.90", "4000", "standard"],
    ]  # fmt: skip


def test_parquet_holds_the_same_rows(invoiced: Run, tmp_path: Path) -> None:
    target = tmp_path / "lines.parquet"
    invoiced("invoice", "export", "2026-10", "--to", str(target), form="parquet")
    assert pq.read_table(target).column("net_minor").to_pylist() == [1990, 125, 4000]


def test_a_document_is_printed_and_written_as_it_was_booked(invoiced: Run, home: Home, tmp_path: Path) -> None:
    booked = rows_of(home, tables.invoice)[0]["document"]
    assert invoiced("invoice", "json", "A-000001") == booked + "\n"
    invoiced("invoice", "json", "A-000001", "--to", str(tmp_path / "a.json"))
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == booked
    assert json.loads(booked)["usage"][0] == {
        "service": "S1", "zone": "day", "class": "default", "direction": "down", "octets": OCTETS,
    }  # fmt: skip


def test_pdfs_are_written_one_by_one_and_for_a_period(invoiced: Run, home: Home, tmp_path: Path) -> None:
    invoiced("invoice", "pdf", "A-000001", "--to", str(tmp_path / "a.pdf"))
    [done] = _rows(invoiced("invoice", "pdfs", "2026-10", "--workers", "1"))
    assert (done["rendered"], done["kept"]) == (2, 0)
    kept = home.folder("documents") / "2026-10" / "A-000001.pdf"
    assert kept.read_bytes() == (tmp_path / "a.pdf").read_bytes()
    assert _rows(invoiced("invoice", "pdfs", "2026-10"))[0]["kept"] == 2


@pytest.mark.parametrize("words", [["pdf", "--to", "x.pdf"], ["json"], ["explain"], ["verify"]])
def test_an_unknown_number_is_not_found(invoiced: Run, words: list[str]) -> None:
    line = ["1"] if words[0] == "explain" else []
    assert "A-999999" in invoiced("invoice", words[0], "A-999999", *line, *words[1:], code=5)


def test_an_unknown_line_is_not_found(invoiced: Run) -> None:
    assert "lines 1 to 2" in invoiced("invoice", "explain", "A-000001", "3", code=5)


def test_a_damaged_home_is_refused_in_words(invoiced: Run) -> None:
    assert "has not been rated" in invoiced("invoice", "run", "2026-12", code=1)
    assert "is not a period" in invoiced("invoice", "run", "2026-13", code=2)


def test_a_line_is_explained_down_to_the_exporter(invoiced: Run) -> None:
    found = _rows(invoiced("invoice", "explain", "A-000001", "2"))
    assert [(row["level"], row["name"]) for row in found] == [
        ("line", "A-000001/2"),
        ("rate run", "charges/2026-10/1.parquet"),
        ("charge", "Traffic"),
        ("plan version", "home-100 from 2026-01-01"),
        ("plan line", "Traffic"),
        ("usage", found[5]["name"]),
        ("cells", "cells/one.parquet"),
        ("segment", "segments/one.arrow"),
        ("exporter", "192.0.2.1"),
    ]
    assert found[5]["octets"] == OCTETS, "the night and the upload are not on this line"
    assert found[6]["octets"] == OCTETS + 5
    fee = _rows(invoiced("invoice", "explain", "A-000001", "1"))
    assert [row["level"] for row in fee] == ["line", "rate run", "charge", "plan version", "plan line"], (
        "a fee depends on no usage"
    )


def test_a_correction_is_explained_by_what_was_booked_before(invoiced: Run, home: Home) -> None:
    changed = [Charge("S1", net=995, quantity="15/31"), Charge("S1", "Traffic", 125, **TRAFFIC)]  # type: ignore[arg-type]
    rate(home, "2026-10", changed, octets=OCTETS + 5)
    invoiced("invoice", "run", "2026-10", "--as-of", AS_OF)
    found = _rows(invoiced("invoice", "explain", "A-000003", "1"))
    assert ("booked before", "A-000001/1") in [(row["level"], row["name"]) for row in found]
    assert "correction" in found[0]["detail"]
    for number in ("A-000001", "A-000002", "A-000003", "A-000004"):
        assert _rows(invoiced("invoice", "verify", number))[0]["differing"] == 0


@pytest.mark.parametrize("level", ["1", "2"])
def test_a_sound_invoice_is_recomputed_without_a_difference(invoiced: Run, level: str) -> None:
    [found] = _rows(invoiced("invoice", "verify", "A-000001", "--level", level))
    assert found["differing"] == 0
    assert found["checked"] == found["equal"] > 15


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE invoice_line SET net_minor = net_minor + 1 WHERE invoice_id = 1 AND line = 2",
        "UPDATE invoice_tax SET tax_minor = tax_minor + 1 WHERE invoice_id = 1",
        "UPDATE invoice SET gross_minor = gross_minor + 1 WHERE id = 1",
        "UPDATE invoice SET document = replace(document, 'Ada', 'Eve') || ' ' WHERE id = 1",
        "UPDATE posting SET amount_minor = amount_minor + 1 WHERE id = 1",
        "UPDATE rate_run SET usage_digest = 'other'",
    ],
)
def test_what_was_changed_behind_the_products_back_differs(invoiced: Run, home: Home, damage: str) -> None:
    with sql.transaction(sql.engine(home)) as connection:
        connection.execute(sa.text(damage))
    [found] = _rows(invoiced("invoice", "verify", "A-000001", code=7))
    assert found["differing"] > 0
    assert found["checked"] == found["equal"] + found["differing"]
    assert found["differences"]


def test_cells_that_do_not_sum_to_the_frozen_usage_differ_at_level_2(invoiced: Run, home: Home) -> None:
    _cells(home, "two", 1, parse_instant("2026-10-06T08:00:00Z"), 1)
    assert _rows(invoiced("invoice", "verify", "A-000001", "--level", "1"))[0]["differing"] == 0
    assert _rows(invoiced("invoice", "verify", "A-000001", "--level", "2", code=7))[0]["differing"] == 1


def test_a_registered_recomputation_is_counted(invoiced: Run) -> None:
    gates.register_recomputation(lambda _home, _period, services, _level: {
        "checked": len(services), "equal": 0, "differing": len(services)})  # fmt: skip
    assert _rows(invoiced("invoice", "verify", "A-000001", code=7))[0]["differing"] == 1


def test_the_ledger_checks_balances_and_exports(invoiced: Run, home: Home) -> None:
    assert [row["failed"] for row in _rows(invoiced("ledger", "check"))] == [0] * 5
    owed = _rows(invoiced("ledger", "balances", "--account", "receivables"))
    assert [(row["subject"], row["balance_minor"]) for row in owed] == [("A1", 2517), ("A2", 4760)]
    exported = _rows(invoiced("ledger", "export", "--period", "2026-10"))
    assert sum(row["amount_minor"] for row in exported) == 0
    assert exported[0]["reason"] == "month end"
    assert exported[0]["at"].endswith("Z")
    with sql.transaction(sql.engine(home)) as connection:
        connection.execute(tables.posting.update().where(tables.posting.c.id == 1).values(amount_minor=0))
    assert "sums to zero" in invoiced("ledger", "check", code=7)


def test_an_open_balance_of_the_pipeline_stops_the_run_with_exit_code_7(ratemill: Run, home: Home) -> None:
    attribute(home, "2026-10", 1)
    ratemill("invoice", "run", "2026-10", "--as-of", AS_OF, code=7)
    assert rows_of(home, tables.invoice) == []
