"""What an invoice line came from, below the money: the service's time, cell files, flow segments and exporters.

Reads `subscription`, `service`, `batch`, `cell_file`, `consumed`, `segment`, `intake` and cells/… (core.schemas.CELLS).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

import sqlalchemy as sa

from core import tables
from core.errors import DamagedFile
from core.periods import SLOT_MS, local_day_start, period_bounds
from core.settings import seller
from invoicing.charges import RateRun
from invoicing.usage import MEMORY, literal
from storage import files
from storage.home import Home

_CELLS_OF_SERVICE = """
SELECT CAST(sum(octets) AS BIGINT), count(*) FROM read_parquet(?)
WHERE service = ? AND epoch_ms(slot) >= ? AND epoch_ms(slot) < ?"""


@dataclass(frozen=True, slots=True)
class CellFile:
    """A cell file as the manifest had it when a period was rated."""

    batch_id: int
    path: str
    digest: str
    counts_now: bool


@dataclass(frozen=True, slots=True)
class Part:
    """Cells of one service in one file, between two instants."""

    file: CellFile
    octets: int
    cells: int


def service_id(connection: sa.Connection, service: str) -> int:
    found = connection.scalar(sa.select(tables.service.c.id).where(tables.service.c.service == service))
    assert found is not None, f"{service} is on an invoice"
    return int(found)


def bounds(home: Home, connection: sa.Connection, service: str, start: str, end: str) -> tuple[int, int]:
    """[start, end) of local dates of a service, as instants, in the zone that its subscription has then."""
    query = _subscriptions(service).where(
        tables.subscription.c.start_date <= start,
        sa.or_(tables.subscription.c.end_date == "", tables.subscription.c.end_date > start),
    )
    row = connection.execute(query).first()
    zone = seller(home.document).timezone if row is None else row.timezone
    return local_day_start(date.fromisoformat(start), zone), local_day_start(date.fromisoformat(end), zone)


def stretches(connection: sa.Connection, service: str, period: str) -> list[tuple[int, int]]:
    """The parts of a period in which a service has a subscription, each by its own zone."""
    found = []
    for row in connection.execute(_subscriptions(service)):
        first, last = period_bounds(period, row.timezone)
        if max(first, row.start_ms) < min(last, row.end_ms):
            found.append((max(first, row.start_ms), min(last, row.end_ms)))
    return found


def _subscriptions(service: str) -> sa.Select[Any]:
    query = sa.select(tables.subscription).join(tables.service).where(tables.service.c.service == service)
    return query.order_by(tables.subscription.c.start_ms)


def cell_files(home: Home, connection: sa.Connection, run: RateRun, from_ms: int, to_ms: int) -> list[CellFile]:
    """The cell files that a rate run's usage was summed from; those that replaced them where they are gone."""
    as_rated = _files(connection, from_ms, to_ms, run.manifest_version)
    if all((home.path / file.path).exists() for file in as_rated):
        return as_rated
    return _files(connection, from_ms, to_ms, None)


def _files(connection: sa.Connection, from_ms: int, to_ms: int, manifest_version: int | None) -> list[CellFile]:
    batch, file = tables.batch.c, tables.cell_file.c
    query = (
        sa.select(file.batch_id, file.path, file.digest, batch.to_version.is_(None).label("counts_now"))
        .join_from(tables.cell_file, tables.batch)
        .where(file.kind == "cells", file.rows > 0, file.slot_first < to_ms, file.slot_last >= from_ms - SLOT_MS)
        .order_by(file.id)
    )
    if manifest_version is None:
        query = query.where(batch.to_version.is_(None))
    else:
        replaced_later = sa.or_(batch.to_version.is_(None), batch.to_version > manifest_version)
        query = query.where(batch.from_version <= manifest_version, replaced_later)
    return [CellFile(row.batch_id, row.path, row.digest, bool(row.counts_now)) for row in connection.execute(query)]


def parts(home: Home, found: Sequence[CellFile], service: int, from_ms: int, to_ms: int) -> Iterator[Part]:
    """The files that hold cells of a service in [from, to), with their octets. Digests are verified."""
    import duckdb

    with duckdb.connect(config={"memory_limit": MEMORY}) as connection:
        for file in found:
            path = files.verify(home.path / file.path, file.digest)
            try:
                row = connection.execute(_CELLS_OF_SERVICE, [literal(path), service, from_ms, to_ms]).fetchone()
            except duckdb.Error as error:
                raise DamagedFile(f"{path} can't be read as cells: {error}", "run `ratemill aggregate run`") from error
            if row is not None and row[1]:
                yield Part(file, row[0], row[1])


def segments(
    connection: sa.Connection, run: RateRun, found: Sequence[CellFile], from_ms: int, to_ms: int
) -> Iterator[sa.Row[Any]]:
    """The segments behind cell files with flows in [from, to); by time alone where the files were replaced since."""
    segment = tables.segment
    query = (
        sa.select(segment)
        .join(tables.consumed)
        .where(segment.c.start_first < to_ms, segment.c.end_last >= from_ms)
        .order_by(segment.c.id)
    )
    if all(file.counts_now for file in found):
        query = query.where(tables.consumed.c.batch_id.in_({file.batch_id for file in found}))
    else:
        query = query.where(segment.c.manifest_version <= run.manifest_version)
    yield from connection.execute(query)


class Exporter(NamedTuple):
    """A router and what of it is in some segments."""

    address: bytes
    domain: int
    export_protocol: int
    datagrams: int
    flows: int


def exporters(connection: sa.Connection, wanted: Sequence[int]) -> list[Exporter]:
    """The routers whose datagrams are in segments."""
    intake = tables.intake.c
    key = (intake.exporter, intake.domain, intake.export_protocol)
    sums = (sa.func.sum(intake.datagrams).label("datagrams"), sa.func.sum(intake.flow_records).label("flows"))
    found: dict[tuple[bytes, int, int], list[int]] = {}
    for first in range(0, len(wanted), 500):
        query = sa.select(*key, *sums).where(intake.segment_id.in_(wanted[first : first + 500])).group_by(*key)
        for row in connection.execute(query):
            known = found.setdefault((bytes(row.exporter), row.domain, row.export_protocol), [0, 0])
            known[0] += int(row.datagrams)
            known[1] += int(row.flows)
    return [Exporter(*name, *counts) for name, counts in sorted(found.items())]
