"""Interface counters: how many octets an interface has counted, cumulative, at an instant.

Columns, as `Decoded.interface_counters` has them: exporter (n, 16) uint8, interface int64 (ifIndex), received int64 (ms),
in_octets and out_octets uint64 (octets since the counter began, as sent; a counter that the agent does not keep is left
out). Readings lie in the table `interface_counter`, of a minute and interface the newest one only. SQL has no unsigned
numbers: octets are stored as the two's complement of 64 bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from core import tables
from storage import sql

Columns = dict[str, NDArray[Any]]

SFLOW = "sflow"
MINUTE_MS = 60_000
SEGMENT_READINGS_MAX = 1 << 18
"""A segment is closed when so many readings lie in it."""


def count(columns: Columns) -> int:
    return len(columns["interface"])


def newest_of_minutes(parts: Iterable[Columns]) -> Columns | None:
    """The readings of all parts, of a minute and interface the newest one; of equal instants the one that came last."""
    filled = [part for part in parts if count(part)]
    if not filled:
        return None
    joined = {name: np.concatenate([part[name] for part in filled]) for name in filled[0]}
    words = np.ascontiguousarray(joined["exporter"]).view(">u8").reshape(-1, 2)
    keys = (words[:, 0], words[:, 1], joined["interface"], joined["received"] // MINUTE_MS)
    order = np.lexsort((np.arange(len(words)), joined["received"], *keys[::-1]))
    last = np.ones(len(order), bool)
    last[:-1] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    return {name: values[order[last]] for name, values in joined.items()}


def to_rows(columns: Columns | None) -> list[dict[str, Any]]:
    """Rows of the table `interface_counter`, without their segment."""
    if columns is None:
        return []
    signed = {name: columns[name].view(np.int64).tolist() for name in ("in_octets", "out_octets")}
    return [
        {"exporter": exporter.tobytes(), "interface": interface, "at": at, "in_octets": into, "out_octets": outof,
         "source": SFLOW}
        for exporter, interface, at, into, outof in zip(
            columns["exporter"], columns["interface"].tolist(), columns["received"].tolist(), signed["in_octets"],
            signed["out_octets"], strict=True)
    ]


def store(connection: sa.Connection, segment_id: int, rows: Sequence[dict[str, Any]]) -> None:
    """Add readings, inside the caller's transaction; one that is there already stays as it is."""
    if not rows:
        return
    sql.insert_new(connection, tables.interface_counter, [{"segment_id": segment_id, **row} for row in rows])
    _thin(connection, rows)


def _thin(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Of the minutes of these readings keep the newest: another segment, or another collector, may have brought more."""
    table, other = tables.interface_counter, tables.interface_counter.alias()

    def same(found: Any) -> list[Any]:
        return [found.c.exporter == sa.bindparam("e"), found.c.interface == sa.bindparam("i"), found.c.source == SFLOW,
                found.c.at >= sa.bindparam("first"), found.c.at < sa.bindparam("end")]

    newest = sa.select(sa.func.max(other.c.at)).where(*same(other)).scalar_subquery()
    minutes = {(row["exporter"], row["interface"], row["at"] // MINUTE_MS * MINUTE_MS) for row in rows}
    connection.execute(
        table.delete().where(*same(table), table.c.at < newest),
        [{"e": exporter, "i": interface, "first": first, "end": first + MINUTE_MS}
         for exporter, interface, first in sorted(minutes)])
