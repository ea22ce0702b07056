"""A home filled for tests of aggregation: leases, subscriptions, plans and calendars as rows, flows as segments.

Writes what collector, subscribers and rating would have written, so that these tests depend on none of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from collector.segments import content_digest, to_columns
from core import periods, schemas, tables
from core.addresses import parse_address, parse_prefix
from storage import files, sql
from storage.home import Home

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def make_home(path: Path, world: Any, *, bounds: str = "") -> Home:
    """A home with the world's settings and rows."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "ratemill.toml").write_text(settings_text(world) + bounds, encoding="utf-8")
    home = Home(path)
    home.create()
    with sql.transaction(sql.engine(home)) as connection:
        connection.execute(tables.account.insert().values(
            account="A", name="", kind="person", email="", phone="", address=""))
    add_services(home, sorted({s.service for s in [*world.leases, *world.subscriptions]}))
    add_plans(home, world.plans, world.calendars)
    add_subscriptions(home, world.subscriptions)
    add_leases(home, world.leases)
    return home


def settings_text(world: Any) -> str:
    lines = ["[seller]", f'timezone = "{world.seller_zone}"']
    for name, priority, prefixes in world.classes:
        lines += ["[[class]]", f'name = "{name}"', f"priority = {priority}", f"prefixes = {json.dumps(prefixes)}"]
    if world.infrastructure:
        lines += ["[infrastructure]", f"prefixes = {json.dumps(world.infrastructure)}"]
    for exporter, realm in world.realms.items():
        lines += ["[[realm]]", f'name = "{realm}"', f'exporter = "{exporter}"']
    for exporter in sorted(world.cut or ()):
        lines += ["[[metering]]", f'exporter = "{exporter}"', "interfaces = []", 'flow_direction = "both"']
    return "\n".join(lines) + "\n"


def add_services(home: Home, names: Iterable[str]) -> None:
    with sql.transaction(sql.engine(home)) as connection:
        for name in names:
            connection.execute(tables.service.insert().values(service=name, account="A", contract="C"))


def service_ids(connection: sa.Connection) -> dict[str, int]:
    return {row.service: row.id for row in connection.execute(sa.select(tables.service))}


def note_change(connection: sa.Connection, kind: str, from_ms: int, to_ms: int) -> None:
    connection.execute(tables.input_change.insert().values(at=0, kind=kind, from_ms=from_ms, to_ms=to_ms, detail=""))


def add_plans(home: Home, plans: dict[str, tuple[str | None, bool]], calendars: dict[str, Any]) -> None:
    with sql.transaction(sql.engine(home)) as connection:
        for name, (calendar, five) in plans.items():
            connection.execute(tables.plan_version.insert().values(
                name=name, valid_from="2020-01-01", currency="EUR", tax="standard", prices="exclusive", calendar=calendar,
                five_minutes=int(five), document="{}", digest=name, at=0))
        for name, calendar in calendars.items():
            connection.execute(tables.calendar_version.insert().values(
                name=name, valid_from="2020-01-01", document=json.dumps(_calendar(name, calendar)), digest=name, at=0))


def _calendar(name: str, calendar: Any) -> dict[str, Any]:
    zones: list[dict[str, Any]] = [
        {"name": zone.name, "days": [DAYS[day] for day in zone.days], "start": _time(zone.start), "end": _time(zone.end)}
        for zone in calendar.zones]
    zones.append({"name": calendar.default, "default": True, "holiday": calendar.holiday == calendar.default})
    return {"name": name, "from": "2020-01-01", "zones": zones, "holidays": None,
            "holiday_dates": [day.isoformat() for day in calendar.holidays]}


def _time(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def add_subscriptions(home: Home, subscriptions: Sequence[Any], *, changes: bool = False) -> None:
    with sql.transaction(sql.engine(home)) as connection:
        ids = service_ids(connection)
        for row in subscriptions:
            # edges of these tests need not be local midnights: the instants themselves keep the rows apart
            start, end = (periods.format_instant(at) if abs(at) < 2**60 else "" for at in (row.start, row.end))
            connection.execute(tables.subscription.insert().values(
                service_id=ids[row.service], plan=row.plan, start_date=start, end_date=end, start_ms=row.start,
                end_ms=row.end, timezone=row.timezone, currency="EUR"))
            if changes:
                note_change(connection, "subscriptions", row.start, row.end)


def add_leases(home: Home, leases: Sequence[Any], *, changes: bool = False) -> None:
    with sql.transaction(sql.engine(home)) as connection:
        ids = service_ids(connection)
        for row in leases:
            prefix = parse_prefix(row.address)
            connection.execute(tables.lease.insert().values(
                realm=row.realm, address=prefix.address, prefix_length=prefix.length, protocol=None,
                port_first=row.ports[0] if row.ports else None, port_last=row.ports[1] if row.ports else None,
                start_ms=row.start, end_ms=row.end, service_id=ids[row.service]))
            if changes:
                note_change(connection, "leases", row.start, row.end)


def add_segment(home: Home, flows: Sequence[Any], name: str, *, rows_per_batch: int = 1000) -> int:
    """Store flows as a segment, as the collector does; returns its row id."""
    table = flow_table(flows)
    path = home.folder("segments") / f"{name}.arrow"

    def build(temporary: Path) -> None:
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schemas.FLOWS, options=options) as writer:
            for batch in table.to_batches(max_chunksize=rows_per_batch):
                writer.write_batch(batch)

    digest = files.build_whole(path, build)
    content = content_digest(to_columns(table))
    with sql.transaction(sql.engine(home)) as connection:
        version = connection.execute(tables.manifest_version.insert().values(
            at=0, kind="segments", detail="")).inserted_primary_key
        assert version is not None
        key = connection.execute(tables.segment.insert().values(
            collector="test", path=home.relative(path), digest=digest, content_digest=content,
            octets_size=path.stat().st_size, flows=len(flows), octets=sum(flow.octets for flow in flows),
            received_first=None, received_last=None, start_first=min((f.start for f in flows), default=None),
            end_last=max((f.end for f in flows), default=None), block_first=None, block_last=None, decoder_version="1",
            settings_digest="", manifest_version=version[0])).inserted_primary_key
        assert key is not None
        return int(key[0])


def flow_table(flows: Sequence[Any]) -> pa.Table:
    zeros = {field.name: [0] * len(flows) for field in schemas.FLOWS}
    columns: dict[str, list[Any]] = {
        **zeros, "received": [flow.end for flow in flows], "exporter": [parse_address(flow.exporter) for flow in flows],
        "export_protocol": [10] * len(flows), "start": [flow.start for flow in flows], "end": [flow.end for flow in flows],
        "source_address": [parse_address(flow.source) for flow in flows],
        "destination_address": [parse_address(flow.destination) for flow in flows],
        "source_port": [flow.source_port for flow in flows], "destination_port": [flow.destination_port for flow in flows],
        "protocol": [flow.protocol for flow in flows], "octets": [flow.octets for flow in flows],
        "packets": [flow.packets for flow in flows], "rate_numerator": [flow.numerator for flow in flows],
        "rate_denominator": [flow.denominator for flow in flows], "rate_source": [1] * len(flows),
        "input_interface": [flow.input_interface for flow in flows], "flow_direction": [255] * len(flows),
        "next_hop": [bytes(16)] * len(flows),
        "flags": [int(schemas.FlowFlag.QUARANTINED) if flow.quarantined else 0 for flow in flows]}
    return pa.Table.from_arrays([pa.array(columns[field.name], field.type) for field in schemas.FLOWS], schema=schemas.FLOWS)
