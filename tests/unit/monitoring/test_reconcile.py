"""The balances over a home whose tables and files are made by hand, so that each figure can be wrong by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from core import periods, tables
from core.errors import DamagedFile
from core.schemas import CHARGES, OUTCOMES, Outcome
from monitoring import reconcile
from storage import files, sql
from storage.home import Home

OCTOBER = periods.to_ms(periods.datetime.fromisoformat("2026-10-01T00:00:00+02:00"))
NOVEMBER = periods.to_ms(periods.datetime.fromisoformat("2026-11-01T00:00:00+01:00"))
SLOT = periods.SLOT_MS
ROUTER = b"\x00" * 10 + b"\xff\xff" + bytes([192, 0, 2, 1])
OTHER_ROUTER = ROUTER[:-1] + b"\x02"


class Books:
    """A home with one aggregated segment in which everything balances; tests spoil one thing at a time."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.engine = sql.engine(home)
        self.used = 900
        with sql.transaction(self.engine) as connection:
            self.segment(connection, 1, [(OCTOBER, 600), (NOVEMBER - SLOT, 700), (NOVEMBER, 11), (OCTOBER - SLOT, 13)])
            self.batch(connection, 1, {"2026-10": 900, "2026-11": 11}, [
                (ROUTER, OCTOBER, Outcome.ATTRIBUTED, 500, 200),
                (ROUTER, OCTOBER, Outcome.STRANGER, 100, 0),
                (ROUTER, OCTOBER, Outcome.INFRASTRUCTURE, 150, 0),
                (ROUTER, OCTOBER, Outcome.NO_PORT, 50, 0),
                (ROUTER, NOVEMBER - SLOT, Outcome.ATTRIBUTED, 400, 0),
                (ROUTER, NOVEMBER - SLOT, Outcome.AUDIT_ONLY, 250, 0),
                (ROUTER, NOVEMBER - SLOT, Outcome.QUARANTINED, 50, 0),
                (ROUTER, NOVEMBER, Outcome.ATTRIBUTED, 11, 0),
                (ROUTER, OCTOBER - SLOT, Outcome.STRANGER, 13, 0),
            ])  # fmt: skip
            self.insert(connection, tables.consumed, segment_id=1, batch_id=1)
            self.rate(connection, 700, 150, 50, [("EUR", 2115), ("EUR", 4000), ("USD", 0)])

    @staticmethod
    def insert(connection: sa.Connection, table: sa.Table, **values: Any) -> None:
        """A row; what the test does not care about is 0 or empty."""
        for column in table.columns:
            if column.name not in values and not column.nullable and column.name != "id":
                values[column.name] = (
                    b"" if isinstance(column.type, sa.LargeBinary) else "" if isinstance(column.type, sa.Text) else 0
                )
        connection.execute(table.insert().values(**values))

    def segment(self, connection: sa.Connection, number: int, slots: list[tuple[int, int]]) -> None:
        self.insert(connection, tables.segment, id=number, path=f"segments/{number}.arrow")
        for slot, octets in slots:
            self.insert(connection, tables.segment_slot, segment_id=number, slot=slot, octets=octets)
        self.insert(
            connection, tables.intake, segment_id=number, exporter=ROUTER, slot=OCTOBER, datagrams=10, decoded=7, faulted=1,
            duplicate=2, refused=0, data_records=50, flow_records=45, not_a_flow=3, faulted_records=2, waiting_sets=4,
        )  # fmt: skip
        self.insert(
            connection, tables.intake, segment_id=number, exporter=ROUTER, slot=NOVEMBER, datagrams=99, decoded=1
        )

    def batch(
        self, connection: sa.Connection, number: int, attributed: dict[str, int], rows: list[tuple[Any, ...]]
    ) -> Path:
        self.insert(connection, tables.batch, id=number)
        for period, octets in attributed.items():
            self.insert(connection, tables.attributed, batch_id=number, period=period, octets=octets)
        names = ("exporter", "slot", "outcome", "octets", "on_net_octets")
        values = [dict(zip(names, (*row[:2], int(row[2]), *row[3:]), strict=True)) | {"flows": 1} for row in rows]
        path = self.home.folder("cells") / f"outcomes-{number}.parquet"
        digest = files.build_whole(
            path, lambda temporary: pq.write_table(pa.Table.from_pylist(values, OUTCOMES), temporary)
        )
        self.insert(
            connection, tables.cell_file, batch_id=number, kind="outcomes", path=self.home.relative(path), digest=digest,
            slot_first=min(row[1] for row in rows), slot_last=max(row[1] for row in rows),
        )  # fmt: skip
        return path

    def rate(
        self, connection: sa.Connection, rated: int, without: int, refused: int, nets: list[tuple[str, int]]
    ) -> None:
        made = [dict.fromkeys(CHARGES.names) | {"currency": currency, "net_minor": net} for currency, net in nets]
        path = self.home.folder("charges") / f"{len(list(self.home.folder('charges').iterdir()))}.parquet"
        loose = pa.schema([field.with_nullable(True) for field in CHARGES])
        digest = files.build_whole(path, lambda temporary: pq.write_table(pa.Table.from_pylist(made, loose), temporary))
        self.insert(
            connection, tables.rate_run, period="2026-10", path=self.home.relative(path), digest=digest,
            rated_octets=rated, without_plan_octets=without, sampled_refused_octets=refused,
        )  # fmt: skip

    def invoice(self, net: int, gross: int, posted: int) -> None:
        with sql.transaction(self.engine) as connection:
            self.insert(connection, tables.account, account="A1")
            run = connection.scalar(sa.select(sa.func.max(tables.rate_run.c.id)))
            self.insert(
                connection, tables.invoice, id=1, number="A-000001", account="A1", period="2026-10", currency="EUR",
                gross_minor=gross, rate_run_id=run,
            )  # fmt: skip
            self.insert(
                connection, tables.invoice_line, invoice_id=1, line=1, period="2026-10", net_minor=net, currency="EUR"
            )
            self.insert(connection, tables.ledger_transaction, id=1, kind="invoice", reference="i1", period="2026-10")
            for account, amount in (("receivables", posted), ("revenue:fee", -posted)):
                self.insert(
                    connection,
                    tables.posting,
                    transaction_id=1,
                    ledger_account=account,
                    currency="EUR",
                    amount_minor=amount,
                )

    def change(self, statement: sa.Executable) -> None:
        with sql.transaction(self.engine) as connection:
            connection.execute(statement)

    def balances(self) -> dict[str, reconcile.Balance]:
        found = reconcile.balances(self.home, "2026-10")
        return {balance.name + (f" {balance.currency}" if balance.currency else ""): balance for balance in found}


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Books:
    (tmp_path / "ratemill.toml").write_text('[seller]\ntimezone = "Europe/Berlin"\n')
    home = Home(tmp_path)
    home.create()
    made = Books(home)
    monkeypatch.setattr(reconcile, "_used", lambda _home, _period: made.used)
    return made


def test_the_traffic_of_the_period_balances_and_names_its_losses(books: Books) -> None:
    found = books.balances()
    datagrams, records, octets = found["datagrams"], found["records"], found["flow_octets"]
    assert (datagrams.entered, datagrams.left, datagrams.difference) == (10, 7, 0)
    assert datagrams.losses == {"faulted": 1, "duplicate": 2, "refused": 0}
    assert (records.entered, records.left, records.difference) == (50, 45, 0)
    assert records.losses == {"not_a_flow": 3, "faulted": 2, "waiting": 0}
    assert records.detail == {"waiting_sets": 4}
    assert (octets.entered, octets.left, octets.difference) == (1300 + 200, 900, 0)
    assert octets.losses == {
        "infrastructure": 150,
        "stranger": 100,
        "no_port": 50,
        "audit_only": 250,
        "quarantined": 50,
    }
    assert (found["used_octets"].entered, found["used_octets"].difference) == (900, 0)
    assert (found["rated_octets"].left, found["rated_octets"].difference) == (700, 0)
    assert reconcile.check_before_invoicing(books.home, "2026-10") == []


SPOILED: list[tuple[str, Callable[[], sa.Executable], str, int]] = [
    ("a datagram less", lambda: tables.intake.update().values(decoded=tables.intake.c.decoded - 1), "datagrams", 1),
    ("a record twice", lambda: tables.intake.update().values(flow_records=46), "records", -1),
    ("a slot lost", lambda: tables.segment_slot.delete().where(tables.segment_slot.c.octets == 700), "flow_octets", -700),
    ("a batch that counts no more", lambda: tables.batch.update().values(to_version=2), "flow_octets", 1300),
    ("rated too much", lambda: tables.rate_run.update().values(rated_octets=701), "rated_octets", -1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "name", "difference"), [row[1:] for row in SPOILED], ids=[row[0] for row in SPOILED]
)
def test_what_is_lost_or_repeated_shows_in_its_own_balance(
    books: Books, statement: Callable[[], sa.Executable], name: str, difference: int
) -> None:
    books.change(statement())
    assert books.balances()[name].difference == difference
    assert name in {row["balance"] for row in reconcile.check_before_invoicing(books.home, "2026-10")}


def test_usage_that_was_not_published_is_open(books: Books) -> None:
    books.used = 880
    found = books.balances()
    assert found["used_octets"].difference == 20
    assert found["rated_octets"].difference == -20


def test_services_in_another_zone_move_both_sides_alike(books: Books) -> None:
    books.change(tables.attributed.update().where(tables.attributed.c.period == "2026-10").values(octets=960))
    octets = books.balances()["flow_octets"]
    assert octets.detail["shift"] == 60
    assert (octets.entered, octets.left, octets.difference) == (1560, 960, 0)


def test_a_segment_that_waits_is_open_and_says_what_to_do(books: Books) -> None:
    with sql.transaction(books.engine) as connection:
        books.segment(connection, 2, [(OCTOBER + SLOT, 40)])
    octets = books.balances()["flow_octets"]
    assert octets.difference == 40
    assert octets.detail["segments_waiting"] == 1
    assert "aggregate run" in octets.advice


def test_a_stage_that_has_not_run_is_open(books: Books) -> None:
    books.change(tables.rate_run.delete())
    found = books.balances()
    assert found["rated_octets"].difference == 900
    assert "rate run 2026-10" in found["rated_octets"].advice
    assert found["charges_invoices EUR"].entered == 0


def test_money_balances_for_each_currency(books: Books) -> None:
    assert books.balances()["charges_invoices EUR"].difference == 6115
    books.invoice(net=6115, gross=7277, posted=7277)
    found = books.balances()
    assert found["charges_invoices EUR"].difference == 0
    assert found["charges_invoices USD"].difference == 0
    assert (found["invoices_postings EUR"].entered, found["invoices_postings EUR"].difference) == (7277, 0)


def test_a_posting_that_is_wrong_by_a_cent_shows(books: Books) -> None:
    books.invoice(net=6115, gross=7277, posted=7276)
    assert books.balances()["invoices_postings EUR"].difference == 1


def test_only_the_newest_rate_run_counts(books: Books) -> None:
    with sql.transaction(books.engine) as connection:
        books.rate(connection, 750, 100, 50, [("EUR", 1)])
    found = books.balances()
    assert (found["rated_octets"].left, found["charges_invoices EUR"].entered) == (750, 1)


def test_a_damaged_file_is_named(books: Books) -> None:
    path = books.home.folder("cells") / "outcomes-1.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match="outcomes-1"):
        books.balances()


def test_two_billing_exporters_without_a_cut_are_warned_of(books: Books) -> None:
    assert reconcile.double_sight(books.home, "2026-10") == []
    with sql.transaction(books.engine) as connection:
        books.batch(connection, 2, {}, [(OTHER_ROUTER, OCTOBER, Outcome.ATTRIBUTED, 1, 0)])
    assert "2 exporters" in reconcile.double_sight(books.home, "2026-10")[0]
    (books.home.path / "ratemill.toml").write_text('[[metering]]\nexporter = "192.0.2.1"\ninterfaces = []\n')
    assert reconcile.double_sight(Home(books.home.path), "2026-10") == []


def test_an_empty_home_balances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ratemill.toml").write_text("")
    monkeypatch.setattr(reconcile, "_used", lambda _home, _period: 0)
    found = reconcile.balances(Home(tmp_path), "2026-10")
    assert [balance.name for balance in found] == [
        "datagrams", "records", "flow_octets", "used_octets", "rated_octets", "charges_invoices", "invoices_postings"
    ]  # fmt: skip
    assert {balance.difference for balance in found} == {0}
