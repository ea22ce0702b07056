"""`usage export PERIOD`: the published usage of a local month by hour, slot or month, in the contract's columns.

Hours and months come from the current generation; slots from the cells that this generation was made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from aggregation import classes, manifest, usage
from aggregation.timelines import Timelines, period_number
from core import schemas
from storage import generations, sql
from storage.home import Home

if TYPE_CHECKING:
    import duckdb

TIME_COLUMNS = {"hour": "hour", "slot": "slot", "month": "period"}
"""`--by` → the column that says when."""

ROWS_PER_PIECE = 1 << 16

_COLUMNS = "zone, class, direction, sum(octets)::BIGINT AS octets, sum(packets)::BIGINT AS packets, sum(flows)::BIGINT AS flows"
_GROUP = """SELECT service, {time}, {columns} FROM {table} WHERE period = ?
  GROUP BY service, {time}, zone, class, direction ORDER BY service, {time}, zone NULLS FIRST, class, direction"""

_SLOTS = """(SELECT s.service, r.* EXCLUDE (service, hour), r.hour AS slot
  FROM slot_rows r JOIN services s ON s.service_id = r.service)"""


def schema(by: str) -> pa.Schema:
    """The columns of an export, in order."""
    time = TIME_COLUMNS[by]
    kind = pa.string() if by == "month" else schemas.INSTANT
    text, count = pa.string(), pa.int64()
    return pa.schema([("service", text), (time, kind), ("zone", text), ("class", text), ("direction", text),
                      ("octets", count), ("packets", count), ("flows", count)])


def rows(home: Home, period: str, by: str) -> Iterator[pa.RecordBatch]:
    """The rows of a local month, ordered by the key. Raises NotFound, before the first row, if nothing is published."""
    duck = generations.open_current(home)
    table = "usage"
    if by == "slot":
        duck.register("slot_rows", _slots(home, generations.current(home), period))
        table = _SLOTS
    return _stream(duck, _GROUP.format(time=TIME_COLUMNS[by], columns=_COLUMNS, table=table), period, schema(by))


def _stream(duck: duckdb.DuckDBPyConnection, query: str, period: str, wanted: pa.Schema) -> Iterator[pa.RecordBatch]:
    with duck:
        reader: pa.RecordBatchReader = duck.sql(query, params=[period]).to_arrow_reader(ROWS_PER_PIECE)
        for batch in reader:
            yield pa.RecordBatch.from_arrays(
                [column.cast(field.type) for column, field in zip(batch.columns, wanted, strict=True)], schema=wanted)


def _slots(home: Home, generation: generations.Generation, period: str) -> pa.Table:
    """The slots of a month from the cells that counted when this generation was published."""
    with sql.reading(sql.engine(home)) as connection:
        cells = [file for _, file in manifest.cell_files(connection, "cells", generation.manifest_version)]
        timelines = Timelines.load(connection, home.document)
        names = classes.names(connection)
    return usage.slots(home, cells, timelines, names, period_number(period))
