"""Data on stdout in the format that -o names: table, json (one object a line), csv or parquet; talk goes to stderr.

Instants are written as 2026-10-01T00:00:00.000Z; null is empty in CSV and tables.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from core.errors import UsageError
from runtime import context

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_ROWS_MAX = 10_000
"""A table on a terminal is for reading; what is longer belongs in a file."""

Row = Mapping[str, Any]


def chosen_format() -> str:
    return context.options.format or ("table" if sys.stdout.isatty() else "json")


def say(text: str) -> None:
    """A sentence for the person at the terminal."""
    print(text, file=sys.stderr, flush=True)


def emit_object(value: Row) -> None:
    """A summary: exactly one object."""
    form = chosen_format()
    if form == "json":
        print(json.dumps(value, ensure_ascii=False, default=str))
    elif form == "table":
        _print_pairs(value)
    else:
        emit_rows([value], list(value))


def emit_rows(rows: Iterable[Row], columns: Sequence[str], to: str = "") -> None:
    """Rows of plain values (text, numbers, None) with these columns, in this order."""
    form = chosen_format()
    if form == "parquet":
        import pyarrow as pa

        emit_table(pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows]), to)
        return
    with _target(to) as stream:
        if form == "json":
            for row in rows:
                stream.write(
                    json.dumps({name: row.get(name) for name in columns}, ensure_ascii=False, default=str) + "\n"
                )
        elif form == "csv":
            _write_csv(rows, columns, stream)
        else:
            _print_table(rows, columns, stream)


def emit_table(table: pa.Table, to: str = "") -> None:
    """An Arrow table; instants are formatted, parquet keeps them as they are."""
    emit_batches(table.schema, table.to_batches(max_chunksize=65_536), to)


def emit_batches(schema: pa.Schema, batches: Iterable[pa.RecordBatch], to: str = "") -> None:
    """A stream of Arrow batches of one schema, never held in memory as a whole (except for a terminal table)."""
    if chosen_format() == "parquet":
        _write_parquet(schema, batches, to)
        return
    emit_rows((row for batch in batches for row in _plain(batch).to_pylist()), schema.names, to)


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = []
    for column in batch.columns:
        if pa.types.is_timestamp(column.type):
            column = pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ")
        elif pa.types.is_date(column.type):
            column = pc.cast(column, pa.string())
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _write_parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], to: str) -> None:
    import pyarrow.parquet as pq

    from storage.files import build_whole

    if not to:
        raise UsageError("-o parquet needs a file", "add --to FILE")

    def build(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)

    build_whole(Path(to), build)
    say(f"wrote {to}")


@contextmanager
def _target(to: str) -> Iterator[IO[str]]:
    if not to:
        yield sys.stdout
        return
    from storage.files import explain

    try:
        with open(to, "w", encoding="utf-8", newline="") as stream:
            yield stream
    except OSError as error:
        raise explain(error, Path(to)) from error
    say(f"wrote {to}")


def _write_csv(rows: Iterable[Row], columns: Sequence[str], stream: IO[str]) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_text(row.get(name)) for name in columns])


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def _print_table(rows: Iterable[Row], columns: Sequence[str], stream: IO[str]) -> None:
    from itertools import islice

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    numbered = iter(rows)
    shown = list(islice(numbered, TABLE_ROWS_MAX))
    if not shown:
        say("no rows")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        numeric = all(isinstance(row.get(name), (int, type(None))) for row in shown)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in shown:
        table.add_row(*(Text(_text(row.get(name))) for name in columns))
    Console(file=stream, width=None if stream.isatty() else 200, soft_wrap=not stream.isatty()).print(table)
    if next(numbered, None) is not None:
        say(f"only the first {TABLE_ROWS_MAX} rows are shown: write all of them with -o csv --to FILE")


def _print_pairs(value: Row) -> None:
    width = max((len(name) for name in value), default=0)
    for name, item in value.items():
        print(f"{name:<{width}}  {_text(item)}")
