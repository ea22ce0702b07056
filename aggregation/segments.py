"""Flow segments as arrays: verified against their digest, read in pieces of bounded size, only the columns needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core import schemas
from core.errors import DamagedFile
from storage import files, flow_files
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
    """The segment's flows in pieces, after its file was verified. Raises DamagedFile, which names it."""
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
