"""Interface counters and exporters in a real PostgreSQL: the same rows as in SQLite. Skipped where it is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import frames as f
import pytest
import sqlalchemy as sa
from journal_bodies import NOW_MS, Datagram, body_of
from postgresql_server import home_on, postgresql

from collector import commits, listing, segments
from collector.decoder import Decoder
from collector.segment_builder import SegmentBuilder
from collector.settings import CollectorSettings
from core import tables
from core.addresses import parse_address
from storage import sql
from storage.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with postgresql() as url, home_on(url, tmp_path) as made:
        yield made


def test_counters_are_stored_once_and_thinned(home: Home) -> None:
    minute = NOW_MS // 60_000 * 60_000
    decoder = Decoder(CollectorSettings())
    readings = [(1_000, 10), (20_000, 2**64 - 2), (61_000, 30), (20_000, 99), (40_000, 2**63)]
    for block, (at, octets) in enumerate(readings):
        payload = f.sflow(f.counter_sample(f.interface_counters(7, octets, 1)), f.drop_sample(), sequence=block)
        builder = SegmentBuilder(home, "one", "digest")
        builder.add(decoder.feed(body_of([Datagram(payload, minute + at)]), block, builder.columns), block)
        segment = builder.write()
        with sql.transaction(sql.engine(home)) as connection:
            segments.register(connection, [segment], 1)
            commits.write_exporters(connection, "one", decoder.state.exporters())
    with sql.reading(sql.engine(home)) as connection:
        rows = connection.execute(sa.select(tables.interface_counter).order_by(tables.interface_counter.c.at)).all()
    found = [(row.interface, row.at - minute, row.in_octets, row.source, row.segment_id) for row in rows]
    assert found == [(7, 40_000, -(2**63), "sflow", 5), (7, 61_000, 30, "sflow", 3)]
    assert {bytes(row.exporter) for row in rows} == {parse_address("192.0.2.1")}
    assert [row["drop_samples"] for row in listing.exporters(home)] == [5]
