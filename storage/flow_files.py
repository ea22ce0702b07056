"""Files of flows: Arrow IPC with the columns of core.schemas.FLOWS, some of them run-end encoded.

Within a batch many columns hardly change: the exporter, the arrival time, the sampling rate. Such a column is stored as its
runs (Arrow's run-end encoding, which pyarrow and DuckDB read); which ones is decided by the first batch of a file. Readers
get plain columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core import schemas
from core.errors import DamagedFile
from storage import kernels_runs as kernels

RUN_ROWS = 8
"""A column is stored as runs if they are this long on average."""

_RUN_ENDS = pa.int32()


def plain_array(described: pa.Field, values: NDArray[Any]) -> pa.Array:
    """A column as Arrow that shares its memory; addresses are (n, 16) octets, instants int64 ms."""
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(described.type, len(values), [None, pa.py_buffer(values)])


class BatchEncoder:
    """Turns columns into record batches of one schema; which columns are runs, the first batch decides."""

    def __init__(self, first: Mapping[str, NDArray[Any]]) -> None:
        rows = len(first["received"])
        self._runs = {described.name for described in schemas.FLOWS
                      if rows >= RUN_ROWS and len(_run_starts(first[described.name])) * RUN_ROWS <= rows}
        self.schema = pa.schema([
            described.with_type(pa.run_end_encoded(_RUN_ENDS, described.type)) if described.name in self._runs else described
            for described in schemas.FLOWS])

    def encode(self, columns: Mapping[str, NDArray[Any]]) -> pa.RecordBatch:
        """Rows as a batch; plain columns share their memory."""
        arrays = []
        for described in schemas.FLOWS:
            values = columns[described.name]
            if described.name in self._runs:
                starts = _run_starts(values)
                ends = np.append(starts[1:], len(values)).astype(np.int32) if len(values) else np.zeros(0, np.int32)
                arrays.append(pa.RunEndEncodedArray.from_arrays(ends, plain_array(described, values[starts])))
            else:
                arrays.append(plain_array(described, values))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def _run_starts(values: NDArray[Any]) -> NDArray[np.int64]:
    """Indexes at which a run of equal values begins."""
    starts = np.empty(max(len(values), 1), np.int64)
    settled = np.require(values, requirements=["C", "A", "W"])
    if settled.ndim == 2:
        return starts[: kernels.run_starts_of_pairs(settled.view(np.uint64).reshape(-1, 2), starts)]
    return starts[: kernels.run_starts(settled, starts)]


def is_flow_schema(schema: pa.Schema, names: Sequence[str] = tuple(schemas.FLOWS.names)) -> bool:
    """Whether a file has these columns of flows, plain or as runs."""
    return schema.names == list(names) and all(
        (found.type.value_type if pa.types.is_run_end_encoded(found.type) else found.type) == schemas.FLOWS.field(name).type
        for found, name in zip(schema, names, strict=True))


def plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows with plain columns. Raises DamagedFile for runs that do not fit together."""
    arrays, fields = [], []
    for described, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_run_end_encoded(column.type):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid as error:
                raise DamagedFile(f"the runs of the column {described.name} are damaged: {error}") from error
            column = pc.run_end_decode(column)
        arrays.append(column)
        fields.append(schemas.FLOWS.field(described.name))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def read_all(source: Any) -> pa.Table:
    """All rows of an open file, plain. Raises DamagedFile, ArrowInvalid."""
    reader = pa.ipc.open_file(source)
    if not is_flow_schema(reader.schema):
        raise DamagedFile("it does not have the columns of flows")
    batches = [plain(reader.get_batch(number)) for number in range(reader.num_record_batches)]
    return pa.Table.from_batches(batches, schema=schemas.FLOWS)
