"""Which batches hold although plans, calendars or subscriptions changed: most, and then no flow is read again.

A cell is a part of a UTC quarter hour, cut at the edges that its service had when it was made. What changed moves edges. As
long as every edge that a service has now lies where a quarter hour begins, its cells answer for it, and publishing anew is
enough. An edge inside a quarter hour in which the service has traffic (a zone that begins at 10:07, a local hour of an old
offset), or a plan that wants five minutes, needs the flows: such a batch is made again from its segments.

Local months are cut at such edges, too; the octets of a batch by month are then taken from its cells.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from aggregation import cell_store, kernels, manifest
from aggregation.timelines import Timelines, period_text
from core import tables
from core.errors import RatemillError
from storage.home import Home

KINDS = ("plans", "subscriptions")
"""Changes of inputs that move no traffic from one service, class or outcome to another."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the cells of a batch say under the timelines of now."""

    months: dict[str, int]
    """Octets by local month."""
    moved: bool
    """These are not the months that the batch was registered with."""
    coarse: bool
    """An edge of now lies inside a cell."""


def look(home: Home, connection: sa.Connection, batches: Iterable[int], timelines: Timelines) -> dict[int, Seen]:
    """The cells of these batches under the timelines of now. Raises DamagedFile."""
    files: dict[int, list[manifest.CellFile]] = {batch: [] for batch in batches}
    for batch, file in manifest.cell_files(connection, "cells"):
        if batch in files:
            files[batch].append(file)
    known = _attributed(connection, set(files))
    found = {}
    for batch, members in files.items():
        months, coarse = _months(home, members, timelines)
        before = known.get(batch, {})
        if sum(months.values()) != sum(before.values()):
            raise RatemillError(f"batch {batch}: its cells hold {sum(months.values())} octets, and {sum(before.values())} were "
                                "attributed when it was made", "this is a defect of ratemill: report it with `reconcile`")
        found[batch] = Seen(months, months != before, coarse)
    return found


def _months(home: Home, files: Iterable[manifest.CellFile], timelines: Timelines) -> tuple[dict[str, int], bool]:
    """Octets by local month, and whether a cell is too coarse."""
    totals: dict[str, int] = {}
    coarse = False
    for file in files:
        for table in cell_store.read(home, file):
            slot = np.ascontiguousarray(table.column("slot").cast(pa.int64()).to_numpy())
            service, octets = (np.ascontiguousarray(table.column(name).to_numpy()) for name in ("service", "octets"))
            timelines.cover(slot)
            base, last = timelines.period_range()
            by_month = np.zeros(last - base, np.int64)
            code = kernels.check_cells(service, slot, octets, timelines.stretches, timelines.clocks, base, by_month)
            assert code != kernels.OVERFLOW, "the octets of a batch were summed without overflow"
            coarse |= code == kernels.TOO_COARSE
            for month in np.flatnonzero(by_month).tolist():
                name = period_text(base + month)
                totals[name] = totals.get(name, 0) + int(by_month[month])
    return totals, coarse


def _attributed(connection: sa.Connection, batches: set[int]) -> dict[int, dict[str, int]]:
    found: dict[int, dict[str, int]] = {}
    for row in connection.execute(sa.select(tables.attributed)):
        if row.batch_id in batches and row.octets:
            found.setdefault(row.batch_id, {})[row.period] = row.octets
    return found
