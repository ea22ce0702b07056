"""Shows the global options in the help of every command; `context.extract` has taken them before a command sees them."""

from __future__ import annotations

from typing import Any


def show_everywhere(command: Any) -> None:
    """Add the global options to the help pages of a command and of everything below it."""
    from typer.core import TyperOption

    command.params.extend(
        [
            TyperOption(
                param_decls=["--home"], metavar="DIR", expose_value=False, help="The home folder (or RATEMILL_HOME)."
            ),
            TyperOption(
                param_decls=["-o", "--output"],
                metavar="table|json|csv|parquet",
                expose_value=False,
                help="Format; a table on a terminal, JSON lines when piped. --json is short for -o json.",
            ),
            TyperOption(
                param_decls=["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error."
            ),
        ]
    )
    for below in getattr(command, "commands", {}).values():
        show_everywhere(below)
