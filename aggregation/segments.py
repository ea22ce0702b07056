"""Flow segments as arrays: verified against their digest, read in pieces of bounded size, only the columns needed.

A segment is read from its own file, or from the lake once it is compacted. There its flows lie among those of others: who
needs many names them together (`read_all`), and each part of the lake is read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core import schemas
from core.errors import DamagedFile
from storage import files, flow_files, sql, stored_flows
from storage.home import Home

CHUNK_FLOWS = 1 << 18

RATED_BY = ("received", "domain")
"""Columns that are read as well of a segment with flows in quarantine: what their sampling rate is found by."""
COLUMNS = ("exporter", "start", "end", "source_address", "destination_address", "source_port", "destination_port",
           "protocol", "octets", "packets", "rate_numerator", "rate_denominator", "input_interface", "output_interface",
           "flow_direction", "flags")

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Segment:
    """A row of the table `segment`, as far as aggregation needs it."""

    id: int
    path: str
    digest: str
    content_digest: str
    flows: int
    start_first: int | None
    end_last: int | None
    has_quarantine: bool = False
    asked: tuple[str, ...] = ()
    """Columns that the rules of traffic classes ask for as well."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What aggregation reads of it."""
        return (*COLUMNS, *RATED_BY, *self.asked) if self.has_quarantine else (*COLUMNS, *self.asked)


def read(home: Home, segment: Segment) -> Iterator[Columns]:
    """The segment's flows in pieces, as they were decoded. Raises DamagedFile, which names the file, and FlowsForgotten."""
    for _, columns in read_all(home, [segment]):
        yield columns


def read_all(home: Home, members: Sequence[Segment], *, exact: bool = True) -> Iterator[tuple[str, Columns]]:
    """The flows of segments in pieces, each with the file that it comes from; those in the lake first, in its order.

    Raises DamagedFile, which names the file. Raises FlowsForgotten where far ends were truncated or flows deleted; if not
    `exact`, truncated ones are read as they are, and deleted ones left out."""
    with sql.reading(sql.engine(home)) as connection:
        located = stored_flows.locate(connection, (segment.id for segment in members))
    if exact:
        located.require_exact("counting them again")
    quarantined = {segment.id for segment in members if segment.has_quarantine}
    asked = tuple(dict.fromkeys(name for segment in members for name in segment.asked))
    for one in located.parts:
        if one.part.deleted is None:
            names = (*COLUMNS, *(RATED_BY if quarantined & one.segments else ()), *asked)
            yield from _of_part(home, one, names)
    for segment in members:
        if segment.id in located.hot:
            for columns in _of_own_file(home, segment):
                yield segment.path, columns


def _of_part(home: Home, one: stored_flows.InPart, names: tuple[str, ...]) -> Iterator[tuple[str, Columns]]:
    """Pieces as large as those of segments' own files: the work on each has a cost of its own."""
    waiting: list[pa.Table] = []
    count = 0
    source = f"part {one.part.id} of the lake"
    for table in stored_flows.scan(home, one, names):
        waiting.append(table)
        count += table.num_rows
        if count >= CHUNK_FLOWS:
            yield source, _columns(waiting, names)
            waiting, count = [], 0
    if waiting:
        yield source, _columns(waiting, names)


def _columns(tables: list[pa.Table], names: tuple[str, ...]) -> Columns:
    whole = pa.concat_tables(tables).combine_chunks()
    return {name: _array(whole.column(name)) for name in names}


def _of_own_file(home: Home, segment: Segment) -> Iterator[Columns]:
    path = files.verify(home.path / segment.path, segment.digest)
    count = 0
    try:
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(
                included_fields=[schemas.FLOWS.get_field_index(name) for name in segment.columns]))
            if not flow_files.is_flow_schema(reader.schema) and not flow_files.is_flow_schema(
                    reader.schema, _included_names(segment)):
                raise DamagedFile(f"{path} holds other columns than flows", "replay what it was made from")
            waiting: list[pa.RecordBatch] = []
            for number in range(reader.num_record_batches):
                waiting.append(flow_files.plain(reader.get_batch(number)))
                if sum(batch.num_rows for batch in waiting) >= CHUNK_FLOWS:
                    count += sum(batch.num_rows for batch in waiting)
                    yield from _pieces(segment, waiting)
                    waiting = []
            count += sum(batch.num_rows for batch in waiting)
            yield from _pieces(segment, waiting)
    except (pa.ArrowException, OSError) as error:
        raise DamagedFile(f"{path} can't be read as Arrow: {error}", "replay what it was made from") from error
    if count != segment.flows:
        raise DamagedFile(f"{path} holds {count} flows, its row in the manifest says {segment.flows}",
                          "restore both from one backup, or replay what it was made from")


def _included_names(segment: Segment) -> list[str]:
    return [name for name in schemas.FLOWS.names if name in segment.columns]


def _pieces(segment: Segment, batches: list[pa.RecordBatch]) -> Iterator[Columns]:
    if not batches:
        return
    table = pa.Table.from_batches(batches)
    for first in range(0, table.num_rows, CHUNK_FLOWS):
        piece = table.slice(first, CHUNK_FLOWS).combine_chunks()
        yield {name: _array(piece.column(name)) for name in segment.columns}


def _array(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column without nulls as a contiguous array; addresses as (n, 16) octets, instants as ms."""
    array = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    if pa.types.is_fixed_size_binary(array.type):
        width = array.type.byte_width
        whole = np.frombuffer(array.buffers()[1], np.uint8, count=(array.offset + len(array)) * width)
        return np.ascontiguousarray(whole.reshape(-1, width)[array.offset:])
    if pa.types.is_timestamp(array.type):
        array = array.view(pa.int64())
    return np.require(array.to_numpy(zero_copy_only=False), requirements=["C", "A", "W"])
