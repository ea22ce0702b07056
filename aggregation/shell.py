"""`ratemill db shell`: SQL over the current DuckDB generation, read-only.

A statement ends with a semicolon; one that is given as a text may leave it out. A session keeps the generation that it was
opened with: what is published meanwhile does not move figures under an analyst's hands.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from core.errors import UsageError
from storage import generations
from storage.home import Home

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

PROMPT, CONTINUED = "ratemill> ", "     ...> "
ROWS_AT_ONCE = 65_536
HELP = """A statement ends with a semicolon. .tables: what there is; .quit, or Ctrl-D: leave."""
_TABLES = """SELECT table_name AS "table", column_name AS "column", data_type AS type
  FROM duckdb_columns() WHERE NOT internal ORDER BY table_name, column_index"""

Emit = Callable[["pa.Schema", "Iterator[pa.RecordBatch]"], None]
Before = Callable[[str], None]
"""Called with a statement before it runs."""

_FLOWS = re.compile(r"\bflows\w*\b|parquet|\blake\b", re.IGNORECASE)


def reads_flows(statement: str) -> bool:
    """Whether a statement may read flows; a column of counts that is called `flows` is taken for them: one look too many in
    the audit trail is better than one too few."""
    return _FLOWS.search(statement) is not None


def _pass(_: str) -> None:
    """No statement is of interest."""


def run(home: Home, text: str, emit: Emit, before: Before = _pass) -> None:
    """Run the statements of a text, one after another. Raises NotFound if nothing is published, UsageError for wrong SQL."""
    with generations.open_current(home) as connection:
        found = _statements(connection, text)
        if not found:
            raise UsageError("there is no statement in it", 'for example: ratemill db shell -c "SELECT * FROM services"')
        for statement in found:
            before(statement)
            _one(connection, statement, emit)


def interact(home: Home, emit: Emit, say: Callable[[str], None], read: Callable[[str], str] = input,
             before: Before = _pass) -> None:
    """Read statements from a terminal until `.quit` or the end of input. Raises NotFound if nothing is published."""
    _remember_lines()
    with generations.open_current(home) as connection:
        say(f"{generations.current(home).path}, read-only. {HELP}")
        pending = ""
        while True:
            try:
                line = read(CONTINUED if pending else PROMPT)
            except EOFError:
                return
            except KeyboardInterrupt:
                say("")
                pending = ""
                continue
            word = line.strip() if not pending else ""
            if word in (".quit", ".exit"):
                return
            if word.startswith("."):
                if word == ".tables":
                    _one(connection, _TABLES, emit)
                else:
                    say(HELP)
                continue
            pending += line + "\n"
            if not pending.rstrip().endswith(";"):
                pending = pending if pending.strip() else ""
                continue
            pending = _answer(connection, pending, emit, say, before)


def _answer(connection: duckdb.DuckDBPyConnection, text: str, emit: Emit, say: Callable[[str], None], before: Before) -> str:
    """Run what was typed; returns what is still to be completed: nothing."""
    try:
        for statement in _statements(connection, text):
            before(statement)
            _one(connection, statement, emit)
    except UsageError as error:
        say(error.message)
    except KeyboardInterrupt:
        connection.interrupt()
        say("interrupted")
    return ""


def _statements(connection: duckdb.DuckDBPyConnection, text: str) -> list[str]:
    import duckdb

    try:
        return [statement.query for statement in connection.extract_statements(text)]
    except duckdb.Error as error:
        raise _wrong(error) from error


def _one(connection: duckdb.DuckDBPyConnection, statement: str, emit: Emit) -> None:
    import duckdb

    try:
        result = connection.sql(statement)
        if result is not None:
            reader = result.to_arrow_reader(ROWS_AT_ONCE)
            emit(reader.schema, iter(reader))
    except duckdb.Error as error:
        raise _wrong(error) from error


def _wrong(error: Exception) -> UsageError:
    said = str(error).strip()
    if "read-only" in said:
        return UsageError("what is published can't be changed: it is open read-only",
                          "copy it first: CREATE TEMP TABLE mine AS SELECT …")
    return UsageError(said, "`.tables` in the shell, and docs/how-to/analyse-in-duckdb.md, say what there is")


def _remember_lines() -> None:
    """Arrow keys and history in the terminal, where Python has them."""
    if sys.stdin.isatty():
        try:
            import readline  # noqa: F401  (input() uses it once it is imported)
        except ImportError:
            return
