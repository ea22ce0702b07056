"""Totals by exporter: exact, bounded, and not to be broken by what an exporter claims."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from collector import totals
from collector.commits import write_exporters
from collector.state import ExporterRow
from core import tables
from core.addresses import parse_address
from storage import sql
from storage.home import Home

V5, V9, IPFIX = 5, 9, 10


@pytest.fixture
def engine(tmp_path: Path) -> sa.Engine:
    (tmp_path / "ratemill.toml").write_text("")
    return sql.engine(Home(tmp_path))


def intake(exporter: bytes, domain: int = 0, protocol: int = V9, **counts: int) -> dict[str, Any]:
    nothing = dict.fromkeys(totals.INTAKE_COUNTS, 0)
    return {"exporter": exporter, "domain": domain, "export_protocol": protocol, **nothing, **counts}


def state(exporter: bytes, domain: int = 0, protocol: int = V9, received: int = 1, missing: int = 0,
          first: int = 0) -> ExporterRow:
    return ExporterRow(exporter, domain, protocol, received, missing, 0, 0, 0, 0, 0, first, first + 10)


def add(engine: sa.Engine, rows: list[dict[str, Any]], faults: list[dict[str, Any]] | None = None,
        missing: dict[totals.Key, int] | None = None, collector: str = "main") -> None:
    with sql.transaction(engine) as connection:
        totals.add(connection, collector, rows, faults or [], missing or {}, {})


def read(engine: sa.Engine, exporters_max: int = 1000) -> totals.Totals:
    with sql.reading(engine) as connection:
        return totals.read(connection, exporters_max)


def test_segments_add_up_and_slots_of_one_segment_too(engine: sa.Engine) -> None:
    router = parse_address("192.0.2.1")
    with sql.transaction(engine) as connection:
        write_exporters(connection, "main", [state(router)])
    add(engine, [intake(router, flows=3, octets=100), intake(router, flows=4, templates=1)])
    add(engine, [intake(router, flows=5, octets=1)])
    (one,) = read(engine).exporters
    assert (one.exporter, one.domain, one.protocol) == ("192.0.2.1", "0", "v9")
    assert (one.counts["flows"], one.counts["octets"], one.counts["templates"]) == (12, 101, 1)


def test_what_comes_late_never_makes_a_counter_fall(engine: sa.Engine) -> None:
    router = parse_address("192.0.2.1")
    key = (router, 0, V9)
    rng = random.Random(5)
    missing, before = 0, (0, 0)
    with sql.transaction(engine) as connection:
        write_exporters(connection, "main", [state(router)])
    for _ in range(40):
        change = rng.randrange(-missing, 20)
        missing += change
        add(engine, [], missing={key: change})
        counts = read(engine).exporters[0].counts
        now = (counts["missed"], counts["recovered"])
        assert now[0] >= before[0]
        assert now[1] >= before[1]
        assert now[0] - now[1] == missing
        before = now


def test_an_exporter_that_invents_octets_breaks_its_own_count_only(engine: sa.Engine) -> None:
    liar, honest = parse_address("192.0.2.1"), parse_address("192.0.2.2")
    with sql.transaction(engine) as connection:
        write_exporters(connection, "main", [state(liar, domain, first=5) for domain in range(8)] + [state(honest, first=1)])
    for _ in range(3):
        add(engine, [intake(liar, domain, octets=2**63 - 1, flows=1) for domain in range(8)] + [intake(honest, octets=7)])
    add(engine, [intake(liar, 0, octets=-5)])
    found = read(engine)
    assert {one.exporter: one.counts["octets"] for one in found.exporters}["192.0.2.2"] == 21
    assert all(one.counts["flows"] == 3 for one in found.exporters if one.exporter == "192.0.2.1")
    assert max(one.counts["octets"] for one in found.exporters) <= totals.MOST
    few = read(engine, 1).exporters
    assert [one.exporter for one in few] == ["192.0.2.2", totals.OTHER]
    assert few[1].counts["flows"] == 24


@pytest.mark.parametrize("most", [0, 1, 3, 7, 19, 20, 1000])
def test_named_and_others_are_all_there_is(engine: sa.Engine, most: int) -> None:
    rng = random.Random(11)
    rows, faults = [], []
    for number in range(20):
        exporter = parse_address(f"192.0.2.{number}")
        protocol = rng.choice([V5, V9, IPFIX])
        rows.append((state(exporter, number, protocol, rng.randrange(1, 100), rng.randrange(10), first=1000 - number),
                     intake(exporter, number, protocol, flows=rng.randrange(50))))
        faults.append({"exporter": exporter, "domain": number, "kind": rng.choice(["duplicate", "too_short"]), "count": number})
    with sql.transaction(engine) as connection:
        write_exporters(connection, "main", [row for row, _ in rows])
    add(engine, [row for _, row in rows], faults)
    found = read(engine, most)
    assert sum(one.counts["received"] for one in found.exporters) == sum(row.received for row, _ in rows)
    assert sum(one.counts["flows"] for one in found.exporters) == sum(row["flows"] for _, row in rows)
    assert sum(one.count for one in found.faults) == sum(fault["count"] for fault in faults)
    for kind in ("duplicate", "too_short"):
        wanted = sum(fault["count"] for fault in faults if fault["kind"] == kind)
        assert sum(one.count for one in found.faults if one.kind == kind) == wanted
    named = [one for one in found.exporters if one.exporter != totals.OTHER]
    assert [one.exporter for one in named] == [f"192.0.2.{number}" for number in range(19, -1, -1)][:most], "seen first"
    assert found.exporters_known == {"main": 20}
    assert len(found.exporters) <= most + 3


def test_the_rest_never_falls_when_more_exporters_come(engine: sa.Engine) -> None:
    before = 0
    for number in range(30):
        exporter = parse_address(f"192.0.2.{number}")
        with sql.transaction(engine) as connection:
            write_exporters(connection, "main", [state(exporter, received=1000 - number, first=number)])
        found = {one.exporter: one.counts["received"] for one in read(engine, 5).exporters}
        rest = found.get(totals.OTHER, 0)
        assert rest >= before
        before = rest


def test_replays_are_not_collectors(engine: sa.Engine) -> None:
    router = parse_address("192.0.2.1")
    for name in ("replay", "replay-0123abcd"):
        with sql.transaction(engine) as connection:
            write_exporters(connection, name, [state(router)])
        faults = [{"exporter": router, "domain": 0, "kind": "too_short", "count": 1}]
        add(engine, [intake(router, flows=9)], faults, collector=name)
    assert read(engine) == totals.Totals([], [], {})


def test_a_database_of_before_has_its_totals_from_its_history(tmp_path: Path, engine: sa.Engine) -> None:
    router = parse_address("192.0.2.7")
    with sql.transaction(engine) as connection:
        for name in ("exporter_total", "fault_total"):
            connection.execute(sa.text(f"DROP TABLE {name}"))
        for column in ("flows", "octets", "templates", "options_templates", "counter_samples", "drop_samples", "released_sets",
                       "expired_sets"):
            connection.execute(sa.text(f"ALTER TABLE intake DROP COLUMN {column}"))
        connection.execute(sa.text("DELETE FROM schema_migration WHERE package = 'collector' AND number = 8"))
        number = connection.execute(tables.segment.insert().values(
            collector="main", path="x", digest="", content_digest="", octets_size=0, flows=5, octets=50, decoder_version="1",
            settings_digest="", manifest_version=1)).inserted_primary_key[0]  # type: ignore[index]
        columns = ("datagrams", "decoded", "faulted", "duplicate", "refused", "data_records", "options_records", "flow_records",
                   "not_a_flow", "faulted_records", "waiting_sets")
        for slot in (0, 900_000):
            names = ", ".join(columns)
            connection.execute(sa.text(
                f"INSERT INTO intake (segment_id, exporter, domain, export_protocol, slot, {names}) "
                f"VALUES (:segment, :exporter, 3, 5, :slot, {', '.join('7' for _ in columns)})"),
                {"segment": number, "exporter": router, "slot": slot})
        connection.execute(tables.fault.insert().values(
            segment_id=number, exporter=router, domain=3, kind="too_short", count=4))
        write_exporters(connection, "main", [state(router, 3, V5, received=14, missing=6)])
    sql.forget_engines()
    found = read(sql.engine(Home(tmp_path)))
    (one,) = found.exporters
    assert (one.counts["flows"], one.counts["data_records"], one.counts["missed"], one.counts["recovered"]) == (14, 14, 6, 0)
    assert [(fault.kind, fault.count) for fault in found.faults] == [("too_short", 4)]
