"""`ratemill classes apply|list|show|explain`."""

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


@classes.command("explain")
def explain_command(
    far: str = typer.Argument(help="Address of the far end.", metavar="ADDRESS"),
    direction: str = typer.Option("down", "--direction", metavar="up|down", help="Seen from the service."),
    at: str = typer.Option("", "--at", metavar="INSTANT", help="When it flows (ISO 8601 with offset); now if not given."),
    as_number: int | None = typer.Option(None, "--as", min=0, max=2**32 - 1, help="AS number of the far end."),
    dscp: str = typer.Option("", "--dscp", help="DSCP, as a number or a name such as EF."),
    protocol: str = typer.Option("", "--protocol", help="IP protocol, as a number or a name such as udp."),
    port: int | None = typer.Option(None, "--port", min=0, max=65_535, help="Port of the far end."),
    near_port: int | None = typer.Option(None, "--near-port", min=0, max=65_535, help="Port of the service's end."),
    exporter: str = typer.Option("", "--exporter", metavar="ADDRESS", help="Address of the router that exported the flow."),
    interface: int | None = typer.Option(None, "--interface", min=0, help="ifIndex on the far side of that router."),
) -> None:
    """Which rules a flow meets, which one wins, and what the others ask for that it does not have."""
    from aggregation import class_explanation
    from aggregation.class_file import dscp_number
    from core import clock
    from core.addresses import parse_address, parse_protocol
    from runtime import context, output

    if direction not in ("up", "down"):
        raise UsageError(f"--direction {direction} is neither up nor down")
    instant = options.instant(at, "--at")
    try:
        asked = class_explanation.Asked(
            parse_address(far), direction, clock.now_ms() if instant is None else instant, as_number,
            dscp_number(int(dscp) if dscp.isdecimal() else dscp) if dscp else None,
            parse_protocol(protocol) if protocol else None, port, near_port, parse_address(exporter) if exporter else None,
            interface)
    except ValueError as error:
        raise UsageError(str(error)) from None
    output.emit_rows(class_explanation.explain(context.home(), asked), class_explanation.COLUMNS)
