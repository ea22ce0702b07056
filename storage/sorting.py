"""Rows in order, however many: sorted by DuckDB in bounded memory, the rest on the disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from core.errors import RatemillError

SCRATCH = ".sort-"
"""Beginning of the names of scratch folders; one that is left was a killed process's."""
MEMORY_OCTETS = 1 << 29
ROWS_AT_ONCE = 1 << 16


def in_order(folder: Path | None, schema: pa.Schema, batches: Iterator[pa.RecordBatch], columns: Sequence[str],
             memory_octets: int = MEMORY_OCTETS) -> Iterator[pa.RecordBatch]:
    """The rows of batches sorted by these columns, ascending; scratch files lie in a folder below `folder`, or
    where the system has such files: a folder is for one who holds its lease, and may sweep it.

    What `batches` raises is raised; RatemillError where memory and disk do not do."""
    import duckdb

    failures: list[Exception] = []

    def guarded() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except Exception as error:  # DuckDB would make a text of it
            failures.append(error)
            raise

    with TemporaryDirectory(dir=folder, prefix=SCRATCH) as scratch, duckdb.connect(config={
            "memory_limit": f"{memory_octets // 10**6}MB", "temp_directory": scratch, "preserve_insertion_order": "false",
            "autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("unsorted", pa.RecordBatchReader.from_batches(schema, guarded()))
        order = ", ".join(f'"{name}"' for name in columns)
        try:
            for batch in connection.sql(f"SELECT * FROM unsorted ORDER BY {order}").to_arrow_reader(ROWS_AT_ONCE):
                yield pa.Table.from_batches([batch]).cast(schema).combine_chunks().to_batches()[0] if batch.num_rows else batch
        except (duckdb.Error, pa.ArrowException) as error:
            if failures:
                raise failures[0] from error
            raise RatemillError(f"the rows can't be sorted: {error}", "free some space on the disk, or let it use more memory; "
                                "nothing was changed") from error
