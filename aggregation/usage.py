"""Cells → usage by local hour, slot or month: sums by subscription, tariff zone, class, direction and sampling.

Reads cell files (verified) and the timelines; a pure function of both. Sums of whole numbers over any number of files in
any order are the same, so are the rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aggregation import cell_store, kernels, merging
from aggregation.manifest import CellFile
from aggregation.sums import Sums
from aggregation.timelines import Timelines, period_text
from core import schemas
from core.schemas import DIRECTION_NAMES
from storage.home import Home


def hours(home: Home, cells: Sequence[CellFile], timelines: Timelines, classes: dict[int, str]) -> pa.Table:
    """core.schemas.USAGE, ordered by service, hour, zone, class, direction and sampling."""
    sums = _sum(home, cells, timelines, kernels.BY_HOUR)
    return _table(sums, timelines, classes, schemas.USAGE)


def five_minutes(home: Home, cells: Sequence[CellFile], timelines: Timelines) -> pa.Table:
    """core.schemas.USAGE_5MIN: stretches whose plan needs it, ordered by service, slot, direction and sampling."""
    sums = _sum(home, cells, timelines, kernels.BY_FIVE_MINUTES)
    return _table(sums, timelines, {}, schemas.USAGE_5MIN)


def slots(home: Home, cells: Sequence[CellFile], timelines: Timelines, classes: dict[int, str], month: int) -> pa.Table:
    """Like `hours`, by UTC-aligned slot (in the column `hour`), of one local month."""
    sums = _sum(home, cells, timelines, kernels.BY_SLOT, month)
    return _table(sums, timelines, classes, schemas.USAGE)


def _sum(home: Home, cells: Sequence[CellFile], timelines: Timelines, by: int, month: int = -1) -> Sums:
    sums = Sums()
    for file in cells:
        for table in cell_store.read(home, file):
            merging.add_usage(sums, table, timelines, by, month)
    return sums


def _table(sums: Sums, timelines: Timelines, classes: dict[int, str], schema: pa.Schema) -> pa.Table:
    """Sums → rows: numbers become names, and the order is that of the key, in which an empty zone comes first."""
    keys, values = sums.rows()
    stretch, zone = keys[:, 0] >> 33, (keys[:, 0] >> 17 & 0xFFFF) - 1
    far, direction, sampled = keys[:, 0] >> 2 & 0x7FFF, keys[:, 0] >> 1 & 1, keys[:, 0] & 1
    service = timelines.stretch_service[stretch]
    subscription = timelines.stretch_subscription[stretch]
    zone_rank, zones = _ranked(dict(enumerate(timelines.zone_names)), zone)
    class_rank, class_names = _ranked(classes, far)
    order = np.lexsort((sampled, 1 - direction, class_rank, zone_rank, subscription, keys[:, 2], keys[:, 1], service))
    months = {number: period_text(number) for number in np.unique(keys[:, 2]).tolist()}
    month_rank, periods = _ranked(months, keys[:, 2])
    columns = {
        "period": _named(periods, month_rank, order), "service": pa.array(service[order]),
        "subscription": pa.array(subscription[order], mask=subscription[order] < 0),
        "zone": _named(zones, zone_rank, order), "class": _named(class_names, class_rank, order),
        "direction": _named(list(DIRECTION_NAMES), direction, order), "sampled": pa.array(sampled[order].astype(bool)),
    }
    columns["hour"] = columns["slot"] = pa.array(keys[order, 1])
    for index, name in enumerate(("octets", "packets", "flows")):
        columns[name] = pa.array(np.ascontiguousarray(values[order, index]))
    return pa.Table.from_arrays([columns[field.name].cast(field.type) for field in schema], schema=schema)


def _ranked(names: dict[int, str], numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
    """The rank of each number's name in the order of names, -1 without one; and the names in that order."""
    ordered = sorted(set(names.values()))
    ranks = np.full(max(names, default=0) + 2, -1, np.int64)
    for number, name in names.items():
        ranks[number] = ordered.index(name)
    return ranks[numbers], ordered  # number -1 takes the last rank, which is -1


def _named(names: list[str], ranks: NDArray[np.int64], order: NDArray[np.int64]) -> pa.Array:
    indexes = pa.array(ranks[order], mask=ranks[order] < 0)
    return pa.DictionaryArray.from_arrays(indexes, pa.array(names, pa.string()))
