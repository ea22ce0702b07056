"""`flows export --service NAME`: the flows of one service, by its leases at the time of each flow.

Leases say which addresses were the service's, and when; the lake is sorted by address: of each part only the row groups with
these addresses are read, by either end. A lease that came late is a lease like any other. Only a part from before a network
was first known to be a subscriber's is read in whole, until `storage compact` has sorted it anew. What is found is held
against attribution, so that a flow counts for whom it counts in usage; segments that are still hot are read as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from numpy.typing import NDArray

from collector import arrival
from collector.listing import segments_between
from collector.segments import read_own_file, to_columns
from core import schemas, tables
from core.addresses import Prefix
from core.errors import NotFound, RatemillError
from core.networks import Ranges
from storage import lake, sql, stored_flows
from storage.home import Home
from storage.lake import FLOWS_KIND, MIRROR_KIND, Meter, Part
from subscribers.attribution import Attribution, FlowEnds, LeaseRow

_NAMES = (*schemas.FLOWS.names, *lake.KEYS)
_COLUMNS = lake.columns_of(_NAMES)


@dataclass
class ServiceFlows:
    """The flows of a service received in [start, end), and what it cost to find them."""

    home: Home
    service: int
    start: int | None
    end: int | None
    own: list[LeaseRow]
    owners: Attribution
    parts: list[Part]
    segments: list[Any]
    meter: Meter = field(default_factory=Meter)
    read_whole: int = 0
    """Parts that are not sorted by all of these addresses yet."""
    deleted: int = 0
    truncated: int = 0

    def tables(self) -> Iterator[pa.Table]:
        """Flows with `segment` and `row`, in order of arrival. Raises DamagedFile, RatemillError."""
        streams: list[tuple[int, int, Iterator[pa.Table]]] = []
        for part in self.parts:
            streams.append((part.received_first, len(streams), self._of_part(part)))
        for row in self.segments:
            streams.append((row.received_first, len(streams), self._of_segment(row)))
        yield from arrival.merged(streams)

    def sentences(self) -> list[str]:
        """What a person should know beside the rows."""
        found = [f"{self.meter.octets} octets of the lake were read, and {len(self.segments)} segments that are not compacted"]
        if self.read_whole:
            found.append(f"{self.read_whole} parts were read in whole: leases of new networks came later; `ratemill storage "
                         "compact` sorts them anew")
        if self.truncated:
            found.append(f"in {self.truncated} parts the far ends are truncated to their networks ([retention])")
        if self.deleted:
            found.append(f"the flows of {self.deleted} parts were deleted ([retention])")
        return found

    def _prefixes(self, first: int, last: int) -> list[Prefix]:
        """Prefixes that were leased to the service at some time in [first, last]."""
        return sorted({Prefix(row.address, row.prefix_length) for row in self.own if row.start <= last and row.end > first},
                      key=lambda prefix: (prefix.address, prefix.length))

    def _of_part(self, part: Part) -> Iterator[pa.Table]:
        prefixes = self._prefixes(part.start_first, part.end_last)
        if not prefixes:
            return
        if part.deleted is not None:
            self.deleted += 1
            return
        self.truncated += part.truncated is not None
        if Ranges.from_bytes(part.networks).hold_all_of(Ranges(prefixes)):
            found = self._by_key(part, prefixes)
        else:
            self.read_whole += 1
            found = self._by_scan(part, prefixes)
        yield self._ours(found)

    def _by_key(self, part: Part, prefixes: Sequence[Prefix]) -> list[pa.Table]:
        with sql.reading(sql.engine(self.home)) as connection:
            wanted = [(file, prefix) for prefix in prefixes for kind in (FLOWS_KIND, MIRROR_KIND)
                      for file in lake.files_of(connection, part.id, kind, prefix.address, prefix.last.to_bytes(16, "big"))]
        return [lake.to_flows(lake.read_range(self.home, file, prefix, _COLUMNS, self.meter), _NAMES)
                for file, prefix in wanted]

    def _by_scan(self, part: Part, prefixes: Sequence[Prefix]) -> list[pa.Table]:
        with sql.reading(sql.engine(self.home)) as connection:
            wanted = lake.files_of(connection, part.id, FLOWS_KIND)
        return [_touching(table, prefixes) for file in wanted
                for table in lake.read_whole(self.home, file, _COLUMNS, self.meter)]

    def _of_segment(self, row: Any) -> Iterator[pa.Table]:
        prefixes = self._prefixes(row.start_first, row.end_last)
        if prefixes:
            flows = read_own_file(self.home, row)
            rows = lake.from_flows(flows.combine_chunks(), row.id, np.zeros((flows.num_rows, 16), np.uint8))
            yield self._ours([_touching(rows, prefixes)])

    def _ours(self, found: list[pa.Table]) -> pa.Table:
        """Of candidates those that attribution gives to the service, each once, in order of arrival."""
        table = arrival.within(pa.concat_tables([arrival.SCHEMA.empty_table(), *found]), self.start, self.end)
        if table.num_rows > arrival.PENDING_FLOWS_MAX:
            raise RatemillError(f"more than {arrival.PENDING_FLOWS_MAX} flows of a day", "export a shorter stretch")
        identity = table.column("segment").to_numpy() << 32 | table.column("row").to_numpy().astype(np.int64)
        table = table.take(pa.array(np.unique(identity, return_index=True)[1])).combine_chunks()
        if table.num_rows:
            columns: dict[str, NDArray[Any]] = to_columns(table.select(schemas.FLOWS.names))
            resolved = self.owners.resolve(FlowEnds(*(columns[name] for name in FlowEnds._fields)))
            table = table.take(pa.array(np.unique(resolved.flow[resolved.service == self.service])))
        return arrival.in_order(table)


def _touching(table: pa.Table, prefixes: Sequence[Prefix]) -> pa.Table:
    chosen = np.zeros(table.num_rows, np.bool_)
    for prefix in prefixes:
        chosen |= lake.touches(table, prefix)
    return lake.to_flows(table.filter(pa.array(chosen)).combine_chunks(), _NAMES)


def find(home: Home, service: str, start: int | None, end: int | None) -> ServiceFlows:
    """The flows of a service received in [start, end). Raises NotFound for a service that there is not."""
    rows = segments_between(home, start, end)
    with sql.reading(sql.engine(home)) as connection:
        number = connection.scalar(sa.select(tables.service.c.id).where(tables.service.c.service == service))
        if number is None:
            raise NotFound(f"there is no service '{service}'", "`ratemill subscribers import` brings services")
        own, around = _leases(connection, number)
        located = stored_flows.hot(connection, (row.id for row in rows))
        part = tables.lake_part
        bounds = [part.c.received_last >= start] if start is not None else []
        bounds += [part.c.received_first < end] if end is not None else []
        parts = lake.parts(connection, *bounds, deleted=True)
        owners = Attribution(around, home.document)
    return ServiceFlows(home, number, start, end, own, owners, parts, [row for row in rows if row.id in located])


def _leases(connection: sa.Connection, service: int) -> tuple[list[LeaseRow], list[LeaseRow]]:
    """The leases of a service; and all that decide whether it owns an address: these, and those inside of their prefixes."""
    lease = tables.lease
    columns = (lease.c.realm, lease.c.address, lease.c.prefix_length, lease.c.protocol, lease.c.port_first,
               lease.c.port_last, lease.c.start_ms, lease.c.end_ms, lease.c.service_id)
    query = sa.select(*columns)
    own = [LeaseRow(*row) for row in connection.execute(query.where(lease.c.service_id == service))]
    around: set[LeaseRow] = set(own)
    for realm, prefix in {(row.realm, Prefix(row.address, row.prefix_length)) for row in own}:
        inside = query.where(lease.c.realm == realm, lease.c.address >= prefix.address,
                             lease.c.address <= prefix.last.to_bytes(16, "big"))
        around |= {LeaseRow(*row) for row in connection.execute(inside)}
    return own, sorted(around, key=lambda row: (row.realm, row.address, row.prefix_length, row.start, row.service))
