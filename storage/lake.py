"""The lake: flows in Parquet (core.schemas.LAKE, zstd), sorted by the subscriber's end, so that few octets hold one's flows.

A *part* holds the flows of some segments of a UTC day. Its files follow one another in order of the address and are bounded in
size, and so are their row groups: to read an address, SQL names the file, the row of the file in SQL names the row groups, and
of the file these and the footer are read, however much lies beside them. Row groups have digests of their own; what is read in
whole is held against the file's. Flows between two subscribers lie once more, by the other end, in files of the kind `mirror`.

Nothing here knows owners: leases say which addresses were whose and when, at the time of the question, so no row grows old.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
import xxhash
from numpy.typing import NDArray

from core import schemas, tables
from core.addresses import Prefix
from core.errors import DamagedFile
from core.networks import addresses_of, words_of
from storage import files
from storage.flow_files import plain_array
from storage.home import Home

FLOWS_KIND, MIRROR_KIND = "flows", "mirror"
FILE_FLOWS = 1 << 18
"""Flows of a file: about 6 MB, held in memory while it is written or read in whole."""
GROUP_FLOWS = 1 << 13
"""Flows of a row group: the least that is read, about 200 kB."""
GROUPS_AT_ONCE = 16

ORDER = ("near_high", "near_low", "start", "segment", "row")
KEYS = ("segment", "row")
_NEAR = ("near_high", "near_low")
_DELTA = ("near_low", "segment", "row", "received", "start", "end")
"""Columns that grow or nearly repeat: stored as differences."""
_RANDOM = ("source_low", "destination_low", "source_port", "octets")
"""Columns of which a dictionary would be longer than they are."""
_HINT = "restore it from a backup"

GROUPS = np.dtype([("first_high", "<u8"), ("first_low", "<u8"), ("last_high", "<u8"), ("last_low", "<u8"), ("offset", "<u8"),
                   ("size", "<u8"), ("digest", "V16")])
"""`lake_file.row_groups`: address of its first and last row, where it lies in the file, XXH3-128."""
FOOTER_DIGEST = 16
"""Octets of the footer's digest, which follows the row groups."""


@dataclass(frozen=True)
class File:
    """A file of a part, as its row in `lake_file`."""

    kind: str
    path: str
    digest: str
    octets_size: int
    flows: int
    key_first: bytes
    key_last: bytes
    footer: int
    row_groups: bytes

    def row(self) -> dict[str, Any]:
        return dict(vars(self))

    @property
    def groups(self) -> NDArray[Any]:
        return np.frombuffer(self.row_groups[:-FOOTER_DIGEST], GROUPS)

    @property
    def footer_digest(self) -> bytes:
        return self.row_groups[-FOOTER_DIGEST:]


@dataclass(frozen=True)
class Part:
    """A row of `lake_part`."""

    id: int
    day: int
    flows: int
    octets: int
    received_first: int
    received_last: int
    start_first: int
    end_last: int
    networks: bytes
    input_version: int
    truncated: int | None
    deleted: int | None


@dataclass
class Meter:
    """What reading cost."""

    octets: int = 0
    files: int = 0
    groups: int = 0


# columns --------------------------------------------------------------------------------------------------------------
def columns_of(names: Sequence[str]) -> list[str]:
    """The columns of the lake that hold these columns of flows."""
    return [word for name in names for word in _words(name)]


def _words(name: str) -> tuple[str, ...]:
    if name in KEYS or schemas.FLOWS.field(name).type != schemas.ADDRESS:
        return (name,)
    short = name.removesuffix("_address")
    return f"{short}_high", f"{short}_low"


def to_flows(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Rows of the lake as flows: these columns of core.schemas.FLOWS, and `segment` and `row` if they are named."""
    arrays, fields = [], []
    for name in names:
        if name in KEYS:
            arrays.append(table.column(name))
            fields.append(schemas.LAKE.field(name))
            continue
        described = schemas.FLOWS.field(name)
        found = [table.column(word) for word in _words(name)]
        if len(found) == 2:
            octets = addresses_of(*(column.to_numpy() for column in found))
            arrays.append(pa.chunked_array([plain_array(described, octets)]))
        else:
            arrays.append(found[0].cast(described.type))
        fields.append(described)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def from_flows(flows: pa.Table, segment: int, near: NDArray[np.uint8], first_row: int = 0) -> pa.Table:
    """Flows of a segment as rows of the lake, each under the address `near`, (n, 16) octets."""
    count = flows.num_rows
    columns: dict[str, Any] = dict(zip(_NEAR, words_of(near), strict=True))
    columns["segment"] = np.full(count, segment, np.int64)
    columns["row"] = np.arange(first_row, first_row + count, dtype=np.uint32)
    for described in schemas.FLOWS:
        words = _words(described.name)
        column = flows.column(described.name)
        if len(words) == 2:
            columns |= dict(zip(words, words_of(address_octets(column)), strict=True))
        else:
            columns[described.name] = column
    return pa.table([columns[field.name] for field in schemas.LAKE], schema=schemas.LAKE)


def address_octets(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """A column of addresses without nulls as (n, 16) octets."""
    parts = [np.frombuffer(chunk.buffers()[1], np.uint8)[chunk.offset * 16 : (chunk.offset + len(chunk)) * 16]
             for chunk in column.chunks]
    return np.concatenate([*parts, np.zeros(0, np.uint8)]).reshape(-1, 16)


# writing --------------------------------------------------------------------------------------------------------------
def write(home: Home, path: Path, kind: str, table: pa.Table) -> File:
    """Store rows of the lake, which are in order, as an immutable file. Raises RatemillError; then there is none."""
    assert table.schema.equals(schemas.LAKE), "a file of the lake has its schema"
    assert 0 < table.num_rows <= FILE_FLOWS, "a file of the lake is bounded"
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=GROUP_FLOWS, version="2.6", store_schema=False,
                   use_dictionary=[name for name in table.column_names if name not in _DELTA + _RANDOM],
                   column_encoding=dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED"))
    data = memoryview(sink.getvalue())
    metadata = pq.read_metadata(pa.BufferReader(data))
    groups, footer = _groups(table, metadata, data)
    digest = files.write_whole(path, data, fast=True)
    end = xxhash.xxh3_128_digest(data[footer:])
    first, last = (_address(groups[at][f"{which}_high"], groups[at][f"{which}_low"])
                   for at, which in ((0, "first"), (-1, "last")))
    return File(kind, home.relative(path), digest, len(data), table.num_rows, first, last, footer, groups.tobytes() + end)


def _groups(table: pa.Table, metadata: pq.FileMetaData, data: memoryview) -> tuple[NDArray[Any], int]:
    high, low = (table.column(name).to_numpy() for name in _NEAR)
    found = np.zeros(metadata.num_row_groups, GROUPS)
    row, end = 0, 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(at) for at in range(group.num_columns)]
        offset = min(column.data_page_offset if column.dictionary_page_offset is None else
                     min(column.dictionary_page_offset, column.data_page_offset) for column in columns)
        size = sum(column.total_compressed_size for column in columns)
        last = row + group.num_rows - 1
        found[number] = (high[row], low[row], high[last], low[last], offset, size,
                         np.void(xxhash.xxh3_128_digest(data[offset : offset + size])))
        row, end = last + 1, offset + size
    return found, end


def _address(high: Any, low: Any) -> bytes:
    return int(high).to_bytes(8, "big") + int(low).to_bytes(8, "big")


# SQL ------------------------------------------------------------------------------------------------------------------
def parts(connection: sa.Connection, *conditions: sa.ColumnElement[bool], deleted: bool = False) -> list[Part]:
    """The parts that count, in order of time; those whose flows were given up only if `deleted`."""
    table = tables.lake_part
    query = sa.select(table).where(table.c.replaced.is_(None), *conditions).order_by(table.c.day, table.c.id)
    if not deleted:
        query = query.where(table.c.deleted.is_(None))
    return [Part(**{name: getattr(row, name) for name in Part.__annotations__}) for row in connection.execute(query)]


def files_of(connection: sa.Connection, part: int, kind: str, first: bytes | None = None,
             last: bytes | None = None) -> list[File]:
    """The files of a part, in order; only those that may hold addresses of [first, last]."""
    table = tables.lake_file
    query = sa.select(table).where(table.c.part_id == part, table.c.kind == kind).order_by(table.c.key_first, table.c.id)
    if first is not None and last is not None:
        query = query.where(table.c.key_first <= last, table.c.key_last >= first)
    return [File(row.kind, row.path, row.digest, row.octets_size, row.flows, bytes(row.key_first), bytes(row.key_last),
                 row.footer, bytes(row.row_groups)) for row in connection.execute(query)]


# reading --------------------------------------------------------------------------------------------------------------
def open_file(path: Path) -> io.FileIO:
    """All octets of the lake are read through this."""
    return io.FileIO(path)


def read_whole(home: Home, file: File, columns: Sequence[str], meter: Meter | None = None) -> Iterator[pa.Table]:
    """All rows of a file, some row groups at a time; it is read once, and held against its digest. Raises DamagedFile."""
    path = home.path / file.path
    data = _read(path, 0, file.octets_size, meter)
    if xxhash.xxh3_128_hexdigest(data) != file.digest:
        raise DamagedFile(f"{path} does not match its digest (expected {file.digest[:16]}…)", _HINT)
    try:
        source = pq.ParquetFile(pa.BufferReader(data))
        for first in range(0, source.num_row_groups, GROUPS_AT_ONCE):
            numbers = range(first, min(first + GROUPS_AT_ONCE, source.num_row_groups))
            yield source.read_row_groups(list(numbers), columns=list(columns)).combine_chunks()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedFile(f"{path} can't be read as Parquet: {error}", _HINT) from error


def read_range(home: Home, file: File, prefix: Prefix, columns: Sequence[str], meter: Meter | None = None) -> pa.Table:
    """The rows whose near end lies in a prefix: of the file the footer and the row groups that may hold them are read, each
    held against its digest. Raises DamagedFile."""
    path = home.path / file.path
    first, last = prefix.address, prefix.last.to_bytes(16, "big")
    groups = file.groups
    numbers = [at for at, group in enumerate(groups) if _address(group["first_high"], group["first_low"]) <= last
               and _address(group["last_high"], group["last_low"]) >= first]
    wanted = list(dict.fromkeys([*_NEAR, *columns]))
    if not numbers:  # the prefix lies between two row groups
        return pa.schema([schemas.LAKE.field(name) for name in columns]).empty_table()
    ranges = _Ranges(file.octets_size)
    footer = _read(path, file.footer, file.octets_size - file.footer, meter)
    _require(path, footer, file.footer_digest, "its footer")
    for number in numbers:
        offset, size = int(groups[number]["offset"]), int(groups[number]["size"])
        data = _read(path, offset, size, meter)
        _require(path, data, groups[number]["digest"].tobytes(), f"its row group {number}")
        ranges.add(offset, data)
    if meter is not None:
        meter.groups += len(numbers)
    try:
        metadata = pq.read_metadata(pa.BufferReader(b"PAR1" + footer))
        source = pq.ParquetFile(pa.PythonFile(ranges, mode="r"), metadata=metadata)
        table = source.read_row_groups(numbers, columns=wanted, use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedFile(f"{path} can't be read as Parquet: {error}", _HINT) from error
    high, low = (table.column(name).to_numpy() for name in _NEAR)
    inside = _between(high, low, first, last)
    return table.filter(pa.array(inside)).select(list(columns))


def _between(high: NDArray[np.uint64], low: NDArray[np.uint64], first: bytes, last: bytes) -> NDArray[np.bool_]:
    (first_high, first_low), (last_high, last_low) = (
        (np.uint64(int.from_bytes(one[:8], "big")), np.uint64(int.from_bytes(one[8:], "big"))) for one in (first, last))
    not_before = (high > first_high) | ((high == first_high) & (low >= first_low))
    not_after = (high < last_high) | ((high == last_high) & (low <= last_low))
    inside: NDArray[np.bool_] = not_before & not_after
    return inside


def touches(table: pa.Table, prefix: Prefix) -> NDArray[np.bool_]:
    """Which rows of the lake have an end in a prefix, whatever they are sorted by."""
    first, last = prefix.address, prefix.last.to_bytes(16, "big")
    source, destination = (
        _between(table.column(f"{end}_high").to_numpy(), table.column(f"{end}_low").to_numpy(), first, last)
        for end in ("source", "destination"))
    either: NDArray[np.bool_] = source | destination
    return either


def _read(path: Path, offset: int, size: int, meter: Meter | None) -> bytes:
    try:
        with open_file(path) as source:
            source.seek(offset)
            data = source.read(size)
            while len(data) < size and (more := source.read(size - len(data))):
                data += more
    except FileNotFoundError:
        raise DamagedFile(f"{path} is missing", _HINT) from None
    except OSError as error:
        raise DamagedFile(f"{path} can't be read: {error.strerror or error}", _HINT) from error
    if meter is not None:
        meter.octets += len(data)
        meter.files += 1
    return data


def _require(path: Path, data: bytes, digest: bytes, what: str) -> None:
    if xxhash.xxh3_128_digest(data) != digest:
        raise DamagedFile(f"{path} does not match its digest: {what} was changed", _HINT)


class _Ranges(io.RawIOBase):
    """Verified pieces of a file as a file: whoever reads beside them is refused."""

    def __init__(self, size: int) -> None:
        self._size, self._at = size, 0
        self._pieces: list[tuple[int, bytes]] = []

    def add(self, offset: int, data: bytes) -> None:
        self._pieces.append((offset, data))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        for offset, data in self._pieces:
            if offset <= self._at and self._at + size <= offset + len(data):
                self._at += size
                return data[self._at - size - offset : self._at - offset]
        raise OSError(f"{size} octets at {self._at} were not verified")
