"""`ratemill classes apply|list|show`."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import typer

from core.errors import UsageError
from runtime import options

classes = typer.Typer()


@classes.callback()
def _classes() -> None:
    """Traffic classes: rules for the far end of a flow, by date."""


@classes.command("apply")
def apply_command(
    file: Path = typer.Argument(help="TOML file with rules.", metavar="FILE.toml"),
    valid_from: str = typer.Option("", "--valid-from", metavar="DATE",
                                   help="Local date from which the rules hold, if the file has no `from`."),
    dry_run: bool = options.DRY_RUN,
    reason: str = options.REASON,
) -> None:
    """Store the rules of a file as the version from a date on: all of them, or none if one has a problem."""
    from aggregation import class_versions
    from core import actor
    from runtime import context, output

    try:
        day = date.fromisoformat(valid_from) if valid_from else None
    except ValueError:
        raise UsageError(f"--valid-from {valid_from} is not a date such as 2026-10-01") from None
    who = actor.current(reason or f"classes apply {file.name}")
    output.emit_object(class_versions.apply(context.home(), file, day, who, dry_run))


@classes.command("list")
def list_command() -> None:
    """All versions; `settings` is what [[class]] of ratemill.toml says, in force before the first."""
    from aggregation import class_versions
    from runtime import context, output

    output.emit_rows(class_versions.rows(context.home()), class_versions.LIST_COLUMNS)


@classes.command("show")
def show_command(version: str = typer.Argument(help="Date of a version, or `settings`.", metavar="VERSION")) -> None:
    """The rules of a version, highest priority first."""
    from aggregation import class_versions
    from runtime import context, output

    output.emit_rows(class_versions.show(context.home(), version), class_versions.SHOW_COLUMNS)
