"""Readings: what a segment's flows say about their exporters. Longest flows, sampling rates, octets by interface.

A pure function of the segment's columns, stored with the segment and gone with it (ON DELETE CASCADE). Exporters and rates
are rows of SQL; the interfaces, which can be thousands a segment, are one packed Arrow stream a segment (ADR 0009).
Writes `exporter_reading`, `rate_reading`, `interface_flow`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from numpy.typing import NDArray

from collector.kernels import readings as kernels
from core import schemas, tables
from core.addresses import NO_ADDRESS

EXPORTERS_MAX = 4096
"""Exporters and domains told apart in one segment; the rest is one row of the address ::."""
RATES_MAX = 4096
"""Sampling rates told apart in one segment."""
INTERFACE_ROWS_MAX = 1 << 17
"""Interfaces × directions × quarter hours told apart in one segment; the rest is one row for `in` and one for `out`."""

_OWNER = np.dtype([("high", np.uint64), ("low", np.uint64), *((name, np.int64) for name in (
    "domain", "protocol", "flows", "longest", "clock_moved", "quarantined"))])
_RATE = np.dtype([(name, np.int64) for name in ("owner", "numerator", "denominator", "source", "flows")])
_INTERFACE = np.dtype([(name, np.int64) for name in (  # 64 octets: one line of the processor's cache
    "key", "slot", "octets", "octets_raw", "packets", "samples", "flows", "longest")])
REST = -1
"""The interface of what found no row of its own."""
_OBSERVED = np.array([schemas.FlowDirection.INGRESS, schemas.FlowDirection.EGRESS, schemas.FlowDirection.UNKNOWN], np.uint8)

Rows = NDArray[Any]


class _Flows(NamedTuple):
    """The columns of flows that are read; addresses as two words."""

    exporter: Rows
    domain: Rows
    export_protocol: Rows
    start: Rows
    end: Rows
    octets: Rows
    packets: Rows
    rate_numerator: Rows
    rate_denominator: Rows
    rate_source: Rows
    input_interface: Rows
    output_interface: Rows
    flow_direction: Rows
    flags: Rows


class _Out(NamedTuple):
    owners: Rows
    owner_table: Rows
    rates: Rows
    rate_table: Rows
    interfaces: Rows
    interface_table: Rows
    used: Rows


@dataclass(frozen=True)
class Readings:
    """Rows of the tables, without the segment's number; `interfaces` is None for a segment without flows."""

    exporters: list[dict[str, Any]]
    rates: list[dict[str, Any]]
    interfaces: pa.Table | None


class FlowReader:
    """Reads the flows of a segment, part by part."""

    def __init__(self, *, exporters_max: int = EXPORTERS_MAX, rates_max: int = RATES_MAX,
                 interfaces_max: int = INTERFACE_ROWS_MAX) -> None:
        self._out = _Out(*_table(_OWNER, exporters_max), *_table(_RATE, rates_max), *_table(_INTERFACE, interfaces_max),
                         np.array([1, 1, 2], np.int64))
        self._recent = np.zeros((2, kernels.RECENT), np.int64)

    def add(self, columns: Mapping[str, Rows]) -> None:
        """More flows (columns of schemas.FLOWS; addresses (n, 16) uint8, instants int64 ms)."""
        kernels.read_flows(_Flows(*(_prepared(name, columns[name]) for name in _Flows._fields)), self._out,
                           self._recent)

    def finish(self) -> Readings:
        """The readings of all flows that were added."""
        out = self._out
        owners = out.owners[: out.used[kernels.OWNERS]]
        words = np.stack([owners["high"], owners["low"]], axis=1)
        keys = [(row.tobytes(), int(domain), int(protocol))
                for row, domain, protocol in zip(words, owners["domain"], owners["protocol"], strict=True)]
        return Readings(_exporters(owners, keys), _rates(out.rates[: out.used[kernels.RATES]], keys),
                        _interfaces(out.interfaces[: out.used[kernels.INTERFACES]], keys))


def read(columns: Mapping[str, Rows], **bounds: int) -> Readings:
    """The readings of flows that are all there."""
    reader = FlowReader(**bounds)
    reader.add(columns)
    return reader.finish()


def _prepared(name: str, column: Rows) -> Rows:
    column = np.require(column, requirements=["C", "A", "W"])
    return column.view(np.uint64).reshape(-1, 2) if name == "exporter" else column


def _table(kind: np.dtype[Any], rows: int) -> tuple[Rows, Rows]:
    """Rows (the first ones are the rest's) and a hash table of at least twice as many places."""
    return np.zeros(rows, kind), np.zeros(1 << (2 * rows - 1).bit_length(), np.int32)


def _exporters(owners: Rows, keys: list[tuple[bytes, int, int]]) -> list[dict[str, Any]]:
    return [{"exporter": key[0], "domain": key[1], "export_protocol": key[2], "flows": int(row["flows"]),
             "longest_flow": int(row["longest"]), "clock_moved": int(row["clock_moved"]),
             "quarantined": int(row["quarantined"])}
            for key, row in zip(keys, owners, strict=True) if row["flows"]]


def _rates(rates: Rows, keys: list[tuple[bytes, int, int]]) -> list[dict[str, Any]]:
    found = []
    for row in rates[rates["flows"] > 0]:
        exporter, domain, protocol = keys[row["owner"]]
        found.append({"exporter": exporter, "domain": domain, "export_protocol": protocol,
                      "rate_numerator": int(row["numerator"]), "rate_denominator": int(row["denominator"]),
                      "rate_source": int(row["source"]), "flows": int(row["flows"])})
    return found


def _interfaces(rows: Rows, keys: list[tuple[bytes, int, int]]) -> pa.Table | None:
    """The rows in the order of their key."""
    chosen = rows["flows"] > 0
    if not chosen.any():
        return None
    number = np.arange(len(rows))
    key = np.where(number < 2, number | (2 << 1), rows["key"])  # the first two are the rest, where nobody knows who saw it
    owner, interface = key >> 35, np.where(number < 2, REST, (key >> 3) & 0xFFFFFFFF)
    observed, side = (key >> 1) & 3, key & 1
    order = np.lexsort((rows["slot"], observed, side, interface, owner))
    order = order[chosen[order]]
    rows, owner, interface = rows[order], owner[order], interface[order]
    addresses = np.frombuffer(b"".join(key[0] for key in keys), np.uint8).reshape(-1, 16)
    columns = {
        "exporter": np.ascontiguousarray(addresses[owner]),
        "domain": np.array([key[1] for key in keys], np.uint32)[owner], "interface": interface,
        "side": side[order].astype(np.uint8), "observed": _OBSERVED[observed[order]], "slot": rows["slot"],
        "octets": rows["octets"], "octets_raw": rows["octets_raw"], "packets": rows["packets"], "samples": rows["samples"],
        "flows": rows["flows"], "longest_flow": rows["longest"],
    }
    arrays = [pa.Array.from_buffers(field.type, len(rows), [None, pa.py_buffer(np.ascontiguousarray(columns[field.name]))])
              for field in schemas.INTERFACE_FLOWS]
    return pa.Table.from_arrays(arrays, schema=schemas.INTERFACE_FLOWS)


# SQL ------------------------------------------------------------------------------------------------------------------
def register(connection: sa.Connection, segment_id: int, readings: Readings) -> None:
    """Store the readings of a segment, inside the caller's transaction."""
    for table, rows in ((tables.exporter_reading, readings.exporters), (tables.rate_reading, readings.rates)):
        if rows:
            connection.execute(table.insert(), [{"segment_id": segment_id, **row} for row in rows])
    if readings.interfaces is not None:
        slots = readings.interfaces.column("slot").cast(pa.int64())
        connection.execute(tables.interface_flow.insert().values(
            segment_id=segment_id, slot_first=pc.min(slots).as_py(), slot_last=pc.max(slots).as_py(),
            rows=readings.interfaces.num_rows, data=_packed(readings.interfaces)))


def replace(connection: sa.Connection, segment_id: int, readings: Readings) -> None:
    """The readings of a segment that was made anew under its old number."""
    for table in (tables.exporter_reading, tables.rate_reading, tables.interface_flow):
        connection.execute(table.delete().where(table.c.segment_id == segment_id))
    register(connection, segment_id, readings)


_BARE = pa.schema([pa.field(field.name, field.type, False) for field in schemas.INTERFACE_FLOWS])


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _BARE, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table.cast(_BARE))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def interface_flows(connection: sa.Connection, start: int, end: int) -> Iterator[pa.Table]:
    """Rows of schemas.INTERFACE_FLOWS whose quarter hour lies in [start, end), a table a segment."""
    table = tables.interface_flow
    query = sa.select(table.c.data).where(table.c.slot_first < end, table.c.slot_last >= start).order_by(table.c.segment_id)
    for (data,) in connection.execute(query):
        rows = pa.ipc.open_stream(data).read_all()
        slot = rows.column("slot").cast(pa.int64())
        yield rows.filter(pc.and_(pc.greater_equal(slot, start), pc.less(slot, end)))


REST_EXPORTER = NO_ADDRESS
"""Whose rows are those that found no room of their own."""
