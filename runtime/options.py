"""Options that mean the same in every command that has them."""

from __future__ import annotations

from datetime import date

import typer

from core.errors import UsageError
from core.periods import parse_instant, parse_period

DRY_RUN = typer.Option(False, "--dry-run", help="Show what would change, change nothing.")
REASON = typer.Option("", "--reason", help="Why; recorded with the change.", metavar="TEXT")
AS_OF = typer.Option("", "--as-of", help="Act as if it were this instant (ISO 8601 with offset).", metavar="INSTANT")
TO_FILE = typer.Option("", "--to", help="Write to this file instead of stdout (needed for parquet).", metavar="FILE")
PERIOD = typer.Argument(help="Billing period, for example 2026-10.", metavar="PERIOD")


def instant(text: str, option: str) -> int | None:
    """An instant option → ms; None when it was not given. Raises UsageError."""
    if not text:
        return None
    try:
        return parse_instant(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def day(text: str, option: str) -> date:
    """A date such as 2026-10-01. Raises UsageError."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} '{text}' is not a date", "write it as 2026-10-01") from None


def period(text: str) -> str:
    """A period argument, checked. Raises UsageError."""
    try:
        return parse_period(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
