"""Many small batches → one: a batch a minute would otherwise be forty thousand files a month.

Merging adds up cells that hold already; it reads no flows and cannot change a sum.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from aggregation import cell_store, kernels, manifest
from aggregation.cell_sums import CellSums
from aggregation.cells import outcome_table
from aggregation.manifest import Batch, CellFile, NewBatch
from aggregation.sums import Sums
from aggregation.timelines import Timelines
from core import tables
from core.actor import Actor
from storage import sql
from storage.home import Home

SMALL_ROWS_MAX = 1_000_000
"""A batch with more cells than this is large enough to stay as it is."""


def merge_small(home: Home, engine: sa.Engine, batches_min: int, actor: Actor) -> int:
    """Merge small batches that hold for the same inputs, if there are enough of them. Returns how many went into one."""
    with sql.reading(engine) as connection:
        small = _small(connection)
    if len(small) < batches_min:
        return 0
    with sql.reading(engine) as connection:
        parts = {kind: [file for batch, file in manifest.cell_files(connection, kind) if batch in {b.id for b in small}]
                 for kind in ("cells", "outcomes")}
        attributed = _attributed(connection, [batch.id for batch in small])
        late = _late(connection, {batch.id for batch in small})
    name = cell_store.name_of(["merged", *(batch.id for batch in small)])
    made = {"cells": _merge_cells(home, parts["cells"]), "outcomes": _merge_outcomes(home, parts["outcomes"])}
    written = tuple(cell_store.write(home, name, kind, table) for kind, table in made.items() if table.num_rows)
    dated = [batch for batch in small if batch.to_ms > batch.from_ms]
    new = NewBatch(tuple(sorted(segment for batch in small for segment in batch.segments)),
                   tuple(batch.id for batch in small), small[0].input_version, min((b.from_ms for b in dated), default=0),
                   max((b.to_ms for b in dated), default=0), written, attributed, late)
    with sql.transaction(engine) as connection:
        manifest.commit(connection, new, actor)
    return len(small)


def _small(connection: sa.Connection) -> list[Batch]:
    """The small batches of the newest inputs, as many as together make one of a fair size."""
    rows = dict.fromkeys((batch.id for batch in manifest.live_batches(connection)), 0)
    for kind in ("cells", "outcomes"):
        for owner, file in manifest.cell_files(connection, kind):
            rows[owner] += file.rows
    version = manifest.input_version(connection)
    chosen: list[Batch] = []
    total = 0
    for batch in manifest.live_batches(connection):
        if batch.input_version == version and batch.segments and total + rows[batch.id] <= SMALL_ROWS_MAX:
            chosen.append(batch)
            total += rows[batch.id]
    return chosen


def _attributed(connection: sa.Connection, ids: list[int]) -> dict[str, int]:
    wanted = set(ids)
    totals: dict[str, int] = {}
    for row in connection.execute(sa.select(tables.attributed).order_by(tables.attributed.c.period)):
        if row.batch_id in wanted:
            totals[row.period] = totals.get(row.period, 0) + row.octets
    return totals


def _late(connection: sa.Connection, ids: set[int]) -> dict[int, int]:
    totals: dict[int, int] = {}
    for row in connection.execute(sa.select(tables.late_slot).order_by(tables.late_slot.c.slot)):
        if row.batch_id in ids:
            totals[row.slot] = totals.get(row.slot, 0) + row.octets
    return totals


def _merge_cells(home: Home, parts: list[CellFile]) -> pa.Table:
    sums = CellSums()
    for file in parts:
        for table in cell_store.read(home, file):
            sums.add(table)
    return sums.table()


def _merge_outcomes(home: Home, parts: list[CellFile]) -> pa.Table:
    sums = Sums()
    exporters: dict[bytes, int] = {}
    for file in parts:
        for table in cell_store.read(home, file):
            index = [exporters.setdefault(exporter, len(exporters)) for exporter in table.column("exporter").to_pylist()]
            outcome = table.column("outcome").to_numpy().astype(np.int64)
            slot = table.column("slot").cast(pa.int64()).to_numpy()
            keys = np.stack([np.array(index, np.int64) * 8 + outcome, slot, np.zeros(len(slot), np.int64)], axis=1)
            sums.add(keys, _values(table, ("octets", "on_net_octets", "flows")))
    return outcome_table(sums, list(exporters))


def _values(table: pa.Table, names: tuple[str, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.stack([table.column(name).to_numpy() for name in names], axis=1)


def add_usage(sums: Sums, table: pa.Table, timelines: Timelines, by: int, wanted: int = -1) -> None:
    """Add a table of cells to sums by local hour or slot."""
    slot = np.ascontiguousarray(table.column("slot").cast(pa.int64()).to_numpy())
    timelines.cover(slot)
    columns = [np.ascontiguousarray(table.column(name).to_numpy()) for name in (
        "service", "class", "direction", "sampled", "octets", "packets", "flows")]
    service, far, direction, sampled, octets, packets, flows = columns
    sums.run(lambda keys, values, state: kernels.cut_usage(
        by, wanted, service, slot, far, direction, sampled, octets, packets, flows, timelines.stretches, timelines.clocks,
        keys, values, state))
