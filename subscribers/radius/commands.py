"""`ratemill radius …`."""

from __future__ import annotations

import typer

from runtime import context, options, output

radius = typer.Typer(help="Accounting of access servers: who is online with which address.")


@radius.callback()
def _radius() -> None:
    """It stays a group of verbs, however few it has."""


@radius.command("run")
def run_command(
    listen: str = typer.Option("", "--listen", metavar="ADDR:PORT", help="Where to listen, instead of [radius] listen."),
) -> None:
    """Take accounting over UDP until SIGTERM; reports are stored before they are acknowledged, and become leases."""
    from subscribers.radius import server

    code = server.run(context.home(), listen)
    if code:
        raise typer.Exit(code)


@radius.command("leases")
def leases_command(dry_run: bool = options.DRY_RUN, reason: str = options.REASON) -> None:
    """Turn what access servers reported into leases, as the server does by itself every few seconds."""
    from core.actor import current
    from subscribers.radius import leases

    output.emit_object(leases.run(context.home(), current(reason or "radius leases"), dry_run).document())
    if dry_run:
        output.say("dry run: nothing was changed")
