"""kill -9 at random moments and eight runs at once: one set of invoices, whole or absent."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import time
from pathlib import Path

import pytest
from billing_home import Charge, invoice_once, make_home, rate, rows_of

from core import tables
from ledger import checks
from storage import sql
from storage.home import Home

ACCOUNTS = 400
KILLS = 100 if os.environ.get("RATEMILL_NIGHTLY") else 10
BOOKED = (tables.invoice, tables.invoice_line, tables.invoice_tax, tables.ledger_transaction, tables.posting)


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose charges wait for their first invoice run."""
    home = make_home(tmp_path_factory.mktemp("rated") / "home", ACCOUNTS)
    lines = (("Fee", 1990), ("Traffic", 125), ("Zero", 0))
    rate(home, "2026-10", [Charge(f"S{n}", name, net) for n in range(1, ACCOUNTS + 1) for name, net in lines])
    return home.path


@pytest.fixture(scope="module")
def forked() -> multiprocessing.context.BaseContext:
    """Children come from a server that has imported everything: they are at work within milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["billing_home", "invoicing.run", "duckdb", "pyarrow.parquet"])
    return context


def _copy(rated: Path, folder: Path) -> Home:
    shutil.copytree(rated, folder)
    return Home(folder)


def _content(home: Home) -> list[list[dict[str, object]]]:
    moving = {"id", "at", "rate_run_id"}
    return [[{k: v for k, v in row.items() if k not in moving} for row in rows_of(home, table)] for table in BOOKED]


def _assert_whole_or_absent(home: Home) -> int:
    invoices = rows_of(home, tables.invoice)
    assert len(invoices) in (0, ACCOUNTS)
    assert len(rows_of(home, tables.invoice_line)) == 3 * len(invoices)
    assert len(rows_of(home, tables.ledger_transaction)) == len(invoices)
    assert [row["last"] for row in rows_of(home, tables.number_series)] == ([ACCOUNTS] if invoices else [])
    with sql.reading(sql.engine(home)) as connection:
        assert not any(row["failed"] for row in checks.run(connection))
    return len(invoices)


def _invoice(forked: multiprocessing.context.BaseContext, home: Home) -> int | None:
    """Run to the end; returns the exit code."""
    child = forked.Process(target=invoice_once, args=(str(home.path), "2026-10"))
    child.start()
    child.join()
    return child.exitcode


def test_a_killed_run_books_all_or_nothing_and_the_next_one_ends_it(
    rated: Path, forked: multiprocessing.context.BaseContext, tmp_path: Path
) -> None:
    twin = _copy(rated, tmp_path / "twin")
    assert _invoice(forked, twin) == 0
    begun = time.monotonic()
    assert _invoice(forked, _copy(rated, tmp_path / "timed")) == 0  # the second one: the server is warm by now
    duration = time.monotonic() - begun
    chance = random.Random(20261101)
    for number in range(KILLS):
        home = _copy(rated, tmp_path / str(number))
        child = forked.Process(target=invoice_once, args=(str(home.path), "2026-10"))
        child.start()
        child.join(chance.uniform(0, duration))
        child.kill()
        child.join()
        _assert_whole_or_absent(home)
        assert _invoice(forked, home) == 0, "the lease of a dead owner is taken over"
        assert _assert_whole_or_absent(home) == ACCOUNTS
        assert _content(home) == _content(twin)
        sql.forget_engines()
        shutil.rmtree(home.path)


def test_eight_runs_at_once_book_one_set(
    rated: Path, forked: multiprocessing.context.BaseContext, tmp_path: Path
) -> None:
    home = _copy(rated, tmp_path / "home")
    children = [forked.Process(target=invoice_once, args=(str(home.path), "2026-10")) for _ in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    codes = [child.exitcode for child in children]
    assert set(codes) <= {0, 6}, "done, or locked"
    assert 0 in codes
    assert _assert_whole_or_absent(home) == ACCOUNTS
