"""The commands `ledger check`, `ledger balances` and `ledger export`."""

from __future__ import annotations

import typer

from runtime import options

ledger = typer.Typer(help="The double-entry journal.")

BALANCE_COLUMNS = ("ledger_account", "subject", "currency", "balance_minor", "postings")
EXPORT_COLUMNS = (
    "transaction", "at", "effective", "kind", "reference", "period", "ledger_account", "subject", "currency",
    "amount_minor", "actor", "reason",
)  # fmt: skip


@ledger.command()
def check() -> None:
    """Check the invariants of the journal; exit code 7 if one of them fails."""
    from core.errors import BalanceOpen
    from ledger import checks
    from runtime import context, output
    from storage import sql

    with sql.reading(sql.engine(context.home())) as connection:
        found = list(checks.run(connection))
    output.emit_rows(found, ["check", "checked", "failed", "examples"])
    failed = [row["check"] for row in found if row["failed"]]
    if failed:
        raise BalanceOpen(f"the ledger breaks a rule: {'; '.join(failed)}", "restore the database from a backup")


@ledger.command()
def balances(
    ledger_account: str = typer.Option("", "--account", help="Only this ledger account, e.g. receivables."),
    subject: str = typer.Option("", "--subject", help="Only this subscriber's account."),
    to: str = options.TO_FILE,
) -> None:
    """The balance of every ledger account, subject and currency; debit is positive."""
    from ledger import journal
    from runtime import context, output
    from storage import sql

    with sql.reading(sql.engine(context.home())) as connection:
        output.emit_rows(journal.balances(connection, ledger_account, subject), BALANCE_COLUMNS, to)


@ledger.command()
def export(
    period: str = typer.Option("", "--period", help="Only transactions of this billing period.", metavar="PERIOD"),
    to: str = options.TO_FILE,
) -> None:
    """Every posting with its transaction, in the order in which they were booked."""
    from core.periods import format_instant
    from ledger import journal
    from runtime import context, output
    from storage import sql

    wanted = options.period(period) if period else ""
    with sql.reading(sql.engine(context.home())) as connection:
        found = ({**row, "at": format_instant(row["at"])} for row in journal.rows(connection, wanted))
        output.emit_rows(found, EXPORT_COLUMNS, to)
