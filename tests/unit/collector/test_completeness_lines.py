"""Flows against counters by interface: which source is believed, what is not metered, the worst quarter hours."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from collector import completeness, readings
from collector.counter_series import signed
from collector.thresholds import Completeness, Thresholds
from core import schemas, tables
from core.addresses import parse_address
from core.periods import SLOT_MS
from storage import sql
from storage.home import Home

ROUTER = parse_address("192.0.2.1")
START = 1_790_000_100_000 // SLOT_MS * SLOT_MS
SPAN = (START, START + 8 * SLOT_MS)
LIMITS = Thresholds(Completeness(), {})


@pytest.fixture
def connection(tmp_path: Path) -> Any:
    (tmp_path / "ratemill.toml").touch()
    home = Home(tmp_path)
    home.create()
    with sql.transaction(sql.engine(home)) as found:
        yield found


def add_counters(
    connection: sa.Connection, samples: list[tuple[int, int, int]], source: str = "sflow", interface: int = 7
) -> None:
    connection.execute(tables.interface_counter.insert(), [
        {"segment_id": None, "exporter": ROUTER, "interface": interface, "at": at, "in_octets": signed(into),
         "out_octets": signed(out), "source": source} for at, into, out in samples])


def add_flows(connection: sa.Connection, rows: list[tuple[int, int, int, int]]) -> None:
    """(interface, side, slot, octets), without packets."""
    number = connection.execute(tables.segment.insert().values(
        collector="main", path=f"{len(rows)}-{rows[0]}", digest="", content_digest="", octets_size=0, flows=1, octets=0,
        decoder_version="", settings_digest="", manifest_version=0)).inserted_primary_key
    assert number is not None
    columns = {name: [0] * len(rows) for name in schemas.INTERFACE_FLOWS.names}
    columns |= {"exporter": [ROUTER] * len(rows), "interface": [row[0] for row in rows], "side": [row[1] for row in rows],
                "observed": [255] * len(rows), "slot": [row[2] for row in rows], "octets": [row[3] for row in rows],
                "flows": [1] * len(rows)}
    table = pa.table({name: pa.array(columns[name], schemas.INTERFACE_FLOWS.field(name).type) for name in columns},
                     schema=schemas.INTERFACE_FLOWS)
    readings.register(connection, number[0], readings.Readings([], [], table))


def lines(connection: sa.Connection, expected: set[Any] | None = None) -> dict[tuple[int, str], completeness.Line]:
    flows = completeness.FlowSums(connection, *SPAN)
    counters = completeness.read_counters(connection, *SPAN)
    return {(line.interface, line.way): line for line in completeness.lines(flows, counters, SPAN, LIMITS, expected)}


def every(minutes: int, growth: int) -> list[tuple[int, int, int]]:
    """Samples over the whole span whose counter `in` grows evenly, `growth` octets a sample."""
    step = minutes * 60_000
    return [(SPAN[0] + n * step, n * growth, 0) for n in range((SPAN[1] - SPAN[0]) // step + 1)]


def test_flows_in_many_segments_are_added_up(connection: Any) -> None:
    for n in range(8):
        add_flows(connection, [(7, 0, START + n * SLOT_MS, 300)])
    add_counters(connection, every(5, 100))
    found = lines(connection)[7, "in"]
    assert (found.flows.octets, found.counter_octets, found.verdict) == (2400, 2400, "complete")
    assert found.counted is not None
    assert found.counted.covered_ms == SPAN[1] - SPAN[0]


def test_the_worst_quarter_hours_are_named(connection: Any) -> None:
    add_flows(connection, [(7, 0, START + n * SLOT_MS, 300 if n not in (2, 5) else 100 + n) for n in range(8)])
    add_counters(connection, every(5, 100))
    found = lines(connection)[7, "in"]
    assert found.verdict == "incomplete"
    assert [(quarter.slot, quarter.flow_octets, quarter.counter_octets) for quarter in found.worst] == [
        (START + 2 * SLOT_MS, 102, 300), (START + 5 * SLOT_MS, 105, 300)]


def test_counters_that_are_read_rarely_judge_the_period_but_no_quarter_hour(connection: Any) -> None:
    add_flows(connection, [(7, 0, START, 1000)])
    add_counters(connection, [(SPAN[0], 0, 0), (SPAN[1], 2000, 0)])
    found = lines(connection)[7, "in"]
    assert (found.verdict, found.worst) == ("incomplete", [])
    assert found.counted is not None
    assert found.counted.gaps == [(*SPAN, "no samples between")]


def test_samples_around_the_period_are_cut_at_its_edges(connection: Any) -> None:
    add_flows(connection, [(7, 0, START, 800)])
    add_counters(connection, [(SPAN[0] - SLOT_MS, 0, 0), (SPAN[1] + SLOT_MS, 1000, 0)])
    assert lines(connection)[7, "in"].counter_octets == 800


def test_flows_outside_of_what_counters_cover_are_not_compared(connection: Any) -> None:
    add_flows(connection, [(7, 0, START + n * SLOT_MS, 300) for n in range(8)])
    add_counters(connection, [(START + 2 * SLOT_MS, 0, 0), (START + 4 * SLOT_MS, 600, 0)])
    found = lines(connection)[7, "in"]
    assert (found.flows.octets, found.all_flows.octets, found.verdict) == (600, 2400, "complete")


def test_an_interface_that_no_flow_names_is_not_metered_unless_it_must_be(connection: Any) -> None:
    add_flows(connection, [(7, 0, START, 300)])
    add_counters(connection, every(5, 100), interface=9)
    assert lines(connection)[9, "in"].verdict == "not_metered"
    assert lines(connection, {(ROUTER, 9, "in")})[9, "in"].verdict == "incomplete"


def test_counters_that_were_imported_for_an_interface_are_always_compared(connection: Any) -> None:
    add_flows(connection, [(7, 0, START, 300)])
    add_counters(connection, every(5, 100), source="csv", interface=9)
    assert lines(connection)[9, "in"].verdict == "incomplete"


def test_of_two_sources_the_one_that_covers_more_is_taken_and_they_are_never_mixed(connection: Any) -> None:
    add_counters(connection, every(5, 100))
    add_counters(connection, [(SPAN[0], 10**9, 0), (START + SLOT_MS, 10**9 + 7, 0)], source="csv")
    found = lines(connection)[7, "in"]
    assert (found.source, found.counter_octets) == ("sflow", 2400)


def test_thresholds_of_an_exporter_replace_the_common_one() -> None:
    limits = Thresholds(Completeness(), {ROUTER: Fraction(50)})
    assert (limits.percent(ROUTER), limits.percent(parse_address("192.0.2.9"))) == (50, 99)
