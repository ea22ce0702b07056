"""`metering check`: subscribers' addresses whose packets the metering cut counts never or more than once.

Reads segments and attribution, writes nothing but a scratch file that is gone afterwards. Each packet should cross the cut at
one *point* (exporter, input interface, output interface, direction). Conversations (service, addresses, ports, protocol) are
what is compared:

* *never*: it was seen, but only at points that are not in the cut, throughout the span;
* *twice*: it was counted at two points or more in one hour, and at the same time: all but the point that saw most of it is
  counted too often. A conversation that moves from one link to another is not; one that is spread over two links packet by
  packet looks the same, and is for the reader to tell apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from aggregation import cells, segments
from aggregation.segments import Columns, Segment
from core import tables
from core.addresses import format_address
from storage import sql
from storage.home import Home
from subscribers.attribution import END_SERVICE, Attribution, FlowEnds, Resolved

if TYPE_CHECKING:
    import duckdb

COLUMNS = ("seen", "service", "address", "exporter", "input_interface", "output_interface", "direction", "octets", "flows")
DIRECTIONS = {0: "ingress", 1: "egress"}
MEMORY = "512MB"
"""Of the comparison; what is more goes to the scratch file."""

_CONVERSATION = "service, address, far, near_port, far_port, protocol"
_POINT = "exporter, input_interface, output_interface, flow_direction"
_SEEN = """CREATE TABLE seen (service INTEGER, address BLOB, far BLOB, near_port USMALLINT, far_port USMALLINT,
  protocol UTINYINT, outgoing BOOLEAN, exporter BLOB, input_interface UINTEGER, output_interface UINTEGER,
  flow_direction UTINYINT, in_cut BOOLEAN, hour BIGINT, first BIGINT, last BIGINT, octets BIGINT, flows BIGINT)"""
_NEVER = f"""SELECT 'never' AS seen, service, address, {_POINT}, sum(octets)::BIGINT AS octets, sum(flows)::BIGINT AS flows
  FROM seen WHERE ({_CONVERSATION}, outgoing) IN (
    SELECT ({_CONVERSATION}, outgoing) FROM seen GROUP BY {_CONVERSATION}, outgoing HAVING NOT bool_or(in_cut))
  GROUP BY service, address, {_POINT}"""
_TWICE = f"""WITH point AS (
    SELECT hour, {_CONVERSATION}, outgoing, {_POINT}, sum(octets) AS octets, sum(flows) AS flows, min(first) AS first,
      max(last) AS last FROM seen WHERE in_cut GROUP BY ALL),
  ranked AS (
    SELECT *, row_number() OVER conversation AS place,
      first_value(first) OVER conversation AS most_first, first_value(last) OVER conversation AS most_last
    FROM point WINDOW conversation AS (PARTITION BY hour, {_CONVERSATION}, outgoing ORDER BY octets DESC, {_POINT}))
  SELECT 'twice' AS seen, service, address, {_POINT}, sum(octets)::BIGINT AS octets, sum(flows)::BIGINT AS flows
  FROM ranked WHERE place > 1 AND first <= most_last AND last >= most_first GROUP BY service, address, {_POINT}"""


def check(home: Home, from_ms: int, to_ms: int, limit: int) -> list[dict[str, Any]]:
    """Rows of COLUMNS for flows that began in [from_ms, to_ms), most octets (scaled) first. Raises DamagedFile."""
    import duckdb

    engine = sql.engine(home)
    with sql.reading(engine) as connection:
        found = _segments(connection, from_ms, to_ms)
        names = {row.id: row.service for row in connection.execute(sa.select(tables.service.c.id, tables.service.c.service))}
        first = min((one.start_first for one in found if one.start_first is not None), default=from_ms)
        last = max((one.end_last for one in found if one.end_last is not None), default=to_ms)
        owners = Attribution.load(connection, home.document, first, last + 1)
    with TemporaryDirectory(dir=home.path, prefix=".metering-") as folder, duckdb.connect(
            str(Path(folder) / "scratch.duckdb"),
            config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}) as scratch:
        scratch.execute(f"SET memory_limit = '{MEMORY}'")
        scratch.execute(_SEEN)
        for source, columns in segments.read_all(home, found, exact=False):
            _take(scratch, _within(columns, from_ms, to_ms), owners, source)
        order = f"octets DESC, seen, service, address, {_POINT}"
        rows = scratch.execute(f"SELECT * FROM (({_NEVER}) UNION ALL ({_TWICE})) ORDER BY {order} LIMIT ?", [limit]).fetchall()
    return [_row(row, names) for row in rows]


def _row(row: Sequence[Any], names: dict[int, str]) -> dict[str, Any]:
    seen, service, address, exporter, input_interface, output_interface, direction, octets, flows = row
    return {"seen": seen, "service": names[service], "address": format_address(bytes(address)),
            "exporter": format_address(bytes(exporter)), "input_interface": input_interface,
            "output_interface": output_interface, "direction": DIRECTIONS.get(direction), "octets": octets, "flows": flows}


def _segments(connection: sa.Connection, from_ms: int, to_ms: int) -> list[Segment]:
    table = tables.segment
    query = sa.select(table).where(table.c.flows > 0, table.c.start_first < to_ms, table.c.end_last >= from_ms)
    return [Segment(row.id, row.path, row.digest, row.content_digest, row.flows, row.start_first, row.end_last)
            for row in connection.execute(query.order_by(table.c.id))]


def _within(columns: Columns, from_ms: int, to_ms: int) -> Columns:
    kept = (columns["start"] >= from_ms) & (columns["start"] < to_ms)
    return columns if kept.all() else {name: np.ascontiguousarray(column[kept]) for name, column in columns.items()}


def _take(scratch: duckdb.DuckDBPyConnection, columns: Columns, owners: Attribution, source: str) -> None:
    if not columns["start"].size:
        return
    octets, _ = cells.scale(columns, source)
    resolved = owners.resolve(FlowEnds(*(columns[name] for name in FlowEnds._fields)))
    for table in _ends(columns, octets, resolved):
        scratch.register("piece", table)
        scratch.execute(f"""INSERT INTO seen SELECT {_CONVERSATION}, outgoing, {_POINT}, in_cut, start // 3600000 AS hour,
          min(start), max("end"), sum(octets), count(*) FROM piece
          GROUP BY {_CONVERSATION}, outgoing, {_POINT}, in_cut, hour""")
        scratch.unregister("piece")


def _ends(columns: Columns, octets: np.ndarray[Any, np.dtype[np.int64]], resolved: Resolved) -> Iterator[pa.Table]:
    """The ends of flows that are a service's, source ends and then destination ends; its owner is whose it was first."""
    for end, status, near, far in ((0, resolved.source_status, "source", "destination"),
                                   (1, resolved.destination_status, "destination", "source")):
        pieces = np.flatnonzero(resolved.end == end)
        flow, at = np.unique(resolved.flow[pieces], return_index=True)
        ours = status[flow] == END_SERVICE
        flow, service = flow[ours], resolved.service[pieces][at][ours]
        if not flow.size:
            continue
        taken: dict[str, Any] = {"service": service, "outgoing": np.full(flow.size, end == 0),
                                 "in_cut": resolved.in_cut[flow], "octets": octets[flow]}
        for name, column in (("near_port", f"{near}_port"), ("far_port", f"{far}_port"), ("protocol", "protocol"),
                             ("input_interface", "input_interface"), ("output_interface", "output_interface"),
                             ("flow_direction", "flow_direction"), ("start", "start"), ("end", "end")):
            taken[name] = columns[column][flow]
        for name, column in (("address", f"{near}_address"), ("far", f"{far}_address"), ("exporter", "exporter")):
            whole = np.ascontiguousarray(columns[column][flow])
            taken[name] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), flow.size, [None, pa.py_buffer(whole)])
        yield pa.table(taken)
