"""`ratemill db …`: the analysts' DuckDB."""

from __future__ import annotations

import sys

import typer

from runtime import options

db = typer.Typer()


@db.callback()
def _db() -> None:
    """Published usage in DuckDB, read-only."""


@db.command("shell")
def shell_command(
    command: str = typer.Option("", "--command", "-c", metavar="SQL", help="Run this and leave."),
    to: str = options.TO_FILE,
) -> None:
    """SQL over what was published last: a prompt in a terminal, else the statements of stdin or of -c."""
    from aggregation import shell
    from runtime import context, output

    home = context.home()
    if command or not sys.stdin.isatty():
        shell.run(home, command or sys.stdin.read(), lambda schema, batches: output.emit_batches(schema, batches, to))
    else:
        shell.interact(home, lambda schema, batches: output.emit_batches(schema, batches, to), output.say)


@db.command("publish")
def publish_command(reason: str = options.REASON) -> None:
    """The same as `usage publish`."""
    from aggregation.commands import publish_command as publish

    publish(reason)


@db.command("path")
def path_command() -> None:
    """Where the current generation lies: duckdb -readonly "$(ratemill db path)"."""
    from runtime import context
    from storage import generations

    home = context.home()
    typer.echo(str(home.path / generations.current(home).path))
