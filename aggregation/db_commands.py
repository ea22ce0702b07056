"""`ratemill db …`: the analysts' DuckDB."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from runtime import options

if TYPE_CHECKING:
    import pyarrow as pa

db = typer.Typer()


@db.callback()
def _db() -> None:
    """Published usage in DuckDB, read-only."""


@db.command("shell")
def shell_command(
    command: str = typer.Option("", "--command", "-c", metavar="SQL", help="Run this and leave."),
    to: str = options.TO_FILE,
    reason: str = options.REASON,
) -> None:
    """SQL over what was published last: a prompt in a terminal, else the statements of stdin or of -c. Statements that read
    flows are recorded."""
    from aggregation import shell
    from core import actor
    from runtime import context, output
    from security import flow_looks

    home, who = context.home(), actor.current(reason or "db shell")

    def before(statement: str) -> None:
        if shell.reads_flows(statement):
            flow_looks.note(home, who, "db shell", None, None, statement.strip())

    def emit(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        output.emit_batches(schema, batches, to)

    if command or not sys.stdin.isatty():
        shell.run(home, command or sys.stdin.read(), emit, before)
    else:
        shell.interact(home, emit, output.say, before=before)


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
