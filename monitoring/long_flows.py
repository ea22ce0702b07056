"""Which exporters make a percentile worthless: their flows are longer than a 5-minute slot and touch a service that pays by it.

A flow's octets are spread evenly over its time, so a flow of half an hour hides every peak within. Usage does not keep which
exporter it came from; the flows do. They are looked at, the longest first in question, until one touches such a service.
Reads the newest charges of the period, `lease`, `exporter_reading` and segments.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa
from numpy.typing import NDArray

from collector.segments import read_flows
from core import tables
from core.schemas import ADDRESS
from storage import files
from storage.home import Home
from subscribers.settings import realms

SEGMENTS_MAX = 256
"""Segments of an exporter that are looked at; if none of their long flows touches such a service, others are taken to do."""

Span = tuple[int, int]


def percentile_services(home: Home, connection: sa.Connection, period: str) -> set[str]:
    """The services that the newest charges of the period charge by percentile."""
    run = tables.rate_run
    newest = connection.execute(sa.select(run.c.path, run.c.digest).where(run.c.period == period)
                                .order_by(run.c.id.desc()).limit(1)).one_or_none()
    if newest is None:
        return set()
    charges = pq.read_table(files.verify(home.path / newest.path, newest.digest), columns=["service", "kind"])
    return set(charges.filter(pc.equal(charges.column("kind"), "percentile")).column("service").to_pylist())


def longest(connection: sa.Connection, span: Span) -> dict[bytes, int]:
    """Exporter → the longest flow of the segments that meet the span, in ms."""
    reading, segment = tables.exporter_reading, tables.segment
    query = (sa.select(reading.c.exporter, sa.func.max(reading.c.longest_flow).label("longest"))
             .join(segment, segment.c.id == reading.c.segment_id)
             .where(segment.c.start_first < span[1], segment.c.end_last >= span[0]).group_by(reading.c.exporter))
    return {bytes(row.exporter): int(row.longest) for row in connection.execute(query)}


def touching(home: Home, connection: sa.Connection, exporters: Sequence[bytes], services: set[str], span: Span,
             most_ms: int) -> Iterator[bytes]:
    """Of these exporters those with flows longer than `most_ms` of one of the services in the span."""
    leases = _leases(connection, services, span)
    for exporter in exporters:
        here = _Addresses([lease for lease in leases if lease.realm in _realms_at(home, exporter)])
        if not here.is_empty and _has_long_flows(home, connection, exporter, here, span, most_ms):
            yield exporter


def _leases(connection: sa.Connection, services: set[str], span: Span) -> list[Any]:
    lease, service = tables.lease, tables.service
    query = (sa.select(lease.c.realm, lease.c.address, lease.c.prefix_length, service.c.service)
             .join(service, service.c.id == lease.c.service_id)
             .where(lease.c.start_ms < span[1], lease.c.end_ms > span[0]))
    return [row for row in connection.execute(query) if row.service in services]


def _realms_at(home: Home, exporter: bytes) -> set[str]:
    """The realms that an exporter's flows may belong to."""
    entries = [entry for entry in realms(home.document) if entry.exporter == exporter]
    whole = any(not entry.interfaces for entry in entries)
    return {entry.name for entry in entries} | (set() if whole else {""})


class _Addresses:
    """Addresses and prefixes of some leases."""

    def __init__(self, leases: Sequence[Any]) -> None:
        self._by_length: dict[int, set[bytes]] = defaultdict(set)
        for lease in leases:
            self._by_length[lease.prefix_length].add(bytes(lease.address))

    @property
    def is_empty(self) -> bool:
        return not self._by_length

    def has_any(self, column: pa.ChunkedArray) -> bool:
        """Whether one of the addresses in a column lies in one of them."""
        values = b"".join(pc.unique(column).to_pylist())
        octets = np.frombuffer(values, np.uint8).reshape(-1, 16)
        return any(self._meets(octets, length, wanted) for length, wanted in self._by_length.items())

    @staticmethod
    def _meets(octets: NDArray[np.uint8], length: int, wanted: set[bytes]) -> bool:
        mask = ((1 << 128) - (1 << (128 - length))).to_bytes(16, "big")
        masked = octets & np.frombuffer(mask, np.uint8)
        return any(row.tobytes() in wanted for row in masked)


def _has_long_flows(home: Home, connection: sa.Connection, exporter: bytes, addresses: _Addresses, span: Span,
                    most_ms: int) -> bool:
    reading, segment = tables.exporter_reading, tables.segment
    wanted = (reading.c.exporter == exporter, reading.c.longest_flow > most_ms, segment.c.start_first < span[1],
              segment.c.end_last >= span[0])
    query = (sa.select(segment.c.id, segment.c.path, segment.c.content_digest)
             .join(reading, reading.c.segment_id == segment.c.id).where(*wanted).distinct()
             .order_by(segment.c.id).limit(SEGMENTS_MAX + 1))
    found = connection.execute(query).all()
    for table in read_flows(home, found[:SEGMENTS_MAX]):
        flows = _long_flows(table, exporter, span, most_ms)
        if flows.num_rows and any(addresses.has_any(flows.column(name)) for name in ("source_address", "destination_address")):
            return True
    return len(found) > SEGMENTS_MAX


def _long_flows(flows: pa.Table, exporter: bytes, span: Span, most_ms: int) -> pa.Table:
    """The exporter's flows that ended in the span and took longer."""
    start, end = (flows.column(name).cast(pa.int64()) for name in ("start", "end"))
    chosen = pc.and_(pc.equal(flows.column("exporter"), pa.scalar(exporter, ADDRESS)),
                     pc.greater(pc.subtract(end, start), most_ms))
    inside = pc.and_(pc.greater_equal(end, span[0]), pc.less(end, span[1]))
    return flows.filter(pc.and_(chosen, inside))
