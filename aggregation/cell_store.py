"""Cell files: Parquet below cells/, immutable, named by what they were made of, verified before they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from aggregation.manifest import CellFile
from core import schemas
from core.errors import DamagedFile
from storage import files
from storage.home import Home

ROWS_PER_GROUP = 1 << 18
_SCHEMAS = {"cells": schemas.CELLS, "outcomes": schemas.OUTCOMES}

_DICTIONARIES = {"cells": ["slot"], "outcomes": ["exporter", "slot"]}
"""Columns of few values; all other columns are written as differences, which need fewer bits than they do. (With zstd and
plain numbers a cell took 11.4 octets and 237 ns to write, so it takes 7.1 and 73.)"""


def name_of(ingredients: Iterable[object]) -> str:
    """A name that says what went in: made again after a crash, it is the same."""
    return hashlib.sha256("\n".join(map(str, ingredients)).encode()).hexdigest()[:24]


def write(home: Home, name: str, kind: str, table: pa.Table) -> CellFile:
    """Store a table of cells or outcomes as an immutable file."""
    assert table.schema.equals(_SCHEMAS[kind]), f"{kind} have the schema of core.schemas"
    path = home.folder("cells") / name[:2] / f"{name}-{kind}.parquet"

    def build(temporary: Path) -> None:
        few = _DICTIONARIES[kind]
        pq.write_table(table, temporary, compression="lz4", row_group_size=ROWS_PER_GROUP, version="2.6", use_dictionary=few,
                       column_encoding={name: "DELTA_BINARY_PACKED" for name in table.schema.names if name not in few},
                       write_statistics=[name for name in table.schema.names if name in ("service", "exporter", "slot")],
                       write_batch_size=1 << 14)

    digest = files.build_whole(path, build)
    slots = pc.min_max(table.column("slot").cast(pa.int64())).as_py()
    octets = pc.sum(table.column("octets")).as_py() or 0
    return CellFile(kind, home.relative(path), digest, table.num_rows, octets, slots["min"], slots["max"])


def read(home: Home, file: CellFile) -> Iterator[pa.Table]:
    """The rows of a file, a row group at a time, after it was verified. Raises DamagedFile, which names it."""
    path = files.verify(home.path / file.path, file.digest)
    try:
        with pq.ParquetFile(path, memory_map=True) as source:
            for group in range(source.num_row_groups):
                yield source.read_row_group(group).cast(_SCHEMAS[file.kind])
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedFile(f"{path} can't be read as Parquet: {error}", "restore it from a backup") from error


def sweep(home: Home, known: set[str]) -> int:
    """Delete what a killed run left behind: temporary files and files that no row knows. Returns how many."""
    folder = home.folder("cells")
    count = files.sweep_temporaries(folder)
    for path in unknown(home, known):
        files.remove(path)
        count += 1
    return count


def unknown(home: Home, known: set[str]) -> list[Path]:
    """Files of cells that are none of these."""
    return [path for path in sorted(home.folder("cells").rglob("*.parquet")) if home.relative(path) not in known]
