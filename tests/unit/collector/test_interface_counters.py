"""Interface counters and discarded packets of sFlow: what is read, what is kept, what is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import frames as f
import numpy as np
import pytest
import sqlalchemy as sa
from harness import sessions, shared
from journal_bodies import NOW_MS, Datagram, body_of, capture_datagrams

from collector import commits, decoder, interface_counters, listing, segments
from collector.decoder import Decoded, Decoder
from collector.segment_builder import SegmentBuilder
from collector.settings import CollectorSettings
from core import tables
from core.addresses import parse_address
from storage import sql
from storage.home import Home

MINUTE = NOW_MS // 60_000 * 60_000
Reading = tuple[int, int, int, int]


def decode(*datagrams: Datagram) -> Decoded:
    return Decoder(CollectorSettings()).feed(body_of(datagrams), 0)


def readings(decoded: Decoded) -> list[Reading]:
    columns = decoded.interface_counters
    return list(zip(*(columns[name].tolist() for name in ("interface", "received", "in_octets", "out_octets")), strict=True))


def kinds(decoded: Decoded) -> dict[str, int]:
    return {kind.label: count for _, _, kind, count in decoded.faults}


ONE, TWO = f.interface_counters(7, 10**12, 2**64 - 2), f.interface_counters(2**31 + 5, 0, 1)


# reading --------------------------------------------------------------------------------------------------------------
def test_counters_of_both_kinds_of_samples_are_read_beside_flows() -> None:
    payload = f.sflow(f.counter_sample(f.record(2, bytes(52)), ONE), f.flow_sample(f.raw_header(f.ethernet(f.ipv4(f.tcp())))),
                      f.expanded_counter_sample(ONE, f.record(9 << 12 | 1, bytes(88)), TWO), f.drop_sample())
    decoded = decode(Datagram(payload, NOW_MS, "2001:db8::5"))
    assert readings(decoded) == [(7, NOW_MS, 10**12, 2**64 - 2)] * 2 + [(2**31 + 5, NOW_MS, 0, 1)]
    assert {row.tobytes() for row in decoded.interface_counters["exporter"]} == {parse_address("2001:db8::5")}
    counts = decoded.counts
    assert (counts.flows, counts.counter_samples, counts.drop_samples, counts.data_records) == (1, 2, 1, 1)
    assert decoded.faults == []
    assert {name: column.dtype for name, column in decoded.interface_counters.items()} == {
        "exporter": np.uint8, "interface": np.int64, "received": np.int64, "in_octets": np.uint64, "out_octets": np.uint64}


def test_a_datagram_of_counters_only_is_decoded_and_holds_no_flow() -> None:
    decoded = decode(Datagram(f.sflow(f.counter_sample(ONE))))
    assert (decoded.counts.decoded, decoded.counts.flows, len(readings(decoded))) == (1, 0, 1)


def test_a_counter_that_is_not_kept_is_left_out() -> None:
    unknown = 2**64 - 1
    for octets in ((unknown, 5), (5, unknown), (unknown, unknown)):
        decoded = decode(Datagram(f.sflow(f.counter_sample(f.interface_counters(1, *octets), ONE))))
        assert readings(decoded) == [(7, NOW_MS, 10**12, 2**64 - 2)]


def test_a_copy_of_a_datagram_is_read_once() -> None:
    one = Datagram(f.sflow(f.counter_sample(ONE)))
    assert len(readings(decode(one, one))) == 1


@pytest.mark.parametrize(("sample", "whole"), [
    (f.counter_sample(ONE, f.record(1, bytes(60))), 1), (f.counter_sample(ONE, f.record(1, bytes(88), 0xFFFFFFFF)), 1),
    (f.counter_sample(ONE, count=2), 1), (f.counter_sample(ONE, count=0xFFFFFFFF), 1), (f.record(2, bytes(8)), 0),
    (f.record(4, bytes(12)), 0),
])
def test_a_damaged_counter_sample_costs_what_cannot_be_read_in_it(sample: bytes, whole: int) -> None:
    decoded = decode(Datagram(f.sflow(sample, f.counter_sample(TWO))))
    assert len(readings(decoded)) == whole + 1
    assert kinds(decoded) == {"record_overrun": 1}


def test_a_counter_sample_that_reaches_beyond_the_datagram_gives_its_whole_records() -> None:
    payload = f.sflow(f.counter_sample(ONE, TWO))
    for cut in (1, 40, 90):
        decoded = decode(Datagram(payload[:-cut]))
        assert readings(decoded) == [(7, NOW_MS, 10**12, 2**64 - 2)]
        assert kinds(decoded) == {"sample_overrun": 1}
        assert decoded.counts.counter_samples == 1


def test_readings_of_a_block_are_bounded_and_the_rest_is_a_named_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "INTERFACE_READINGS_MAX", 5)
    datagrams = [Datagram(f.sflow(f.counter_sample(ONE, TWO), sequence=n), NOW_MS + n) for n in range(4)]
    decoded = decode(*datagrams)
    assert len(readings(decoded)) == 5
    assert kinds(decoded) == {"counters_full": 3}
    assert decoded.counts.decoded == 4


@pytest.mark.parametrize("name", ["sflow_v5_example", "sflow_issue_18876"])
def test_the_counters_of_captures_are_those_that_telegraf_read(name: str) -> None:
    shared("captures")
    session = next(s for s in sessions() if s["id"] == f"telegraf:{name}")
    [path] = [shared("captures", name) for name in session["files"]]
    text = path.with_name("expected.out").read_text()
    decoded = decode(*capture_datagrams(path))
    found = [(interface, octets_in, octets_out) for interface, _, octets_in, octets_out in readings(decoded)]
    expected = []
    for line in text.splitlines():
        if "in_bytes=" in line:
            fields = dict(pair.split("=", 1) for pair in line.replace(" ", ",").split(",") if "=" in pair)
            expected.append(tuple(int(fields[name].rstrip("u")) for name in ("interface", "in_bytes", "out_bytes")))
    assert expected
    assert found == expected


# keeping --------------------------------------------------------------------------------------------------------------
def part(*rows: tuple[str, int, int, int]) -> dict[str, Any]:
    """Columns of (exporter, interface, received, octets in)."""
    return {
        "exporter": np.frombuffer(b"".join(parse_address(row[0]) for row in rows), np.uint8).reshape(-1, 16),
        "interface": np.array([row[1] for row in rows], np.int64), "received": np.array([row[2] for row in rows], np.int64),
        "in_octets": np.array([row[3] for row in rows], np.uint64), "out_octets": np.array([row[3] for row in rows], np.uint64)}


def test_of_a_minute_and_interface_the_newest_reading_is_kept() -> None:
    thinned = interface_counters.newest_of_minutes([
        part(("192.0.2.1", 1, MINUTE + 10, 1), ("192.0.2.1", 2, MINUTE + 10, 2), ("192.0.2.2", 1, MINUTE + 10, 3)),
        part(("192.0.2.1", 1, MINUTE + 59_999, 4), ("192.0.2.1", 1, MINUTE + 60_000, 5), ("192.0.2.1", 1, MINUTE + 30, 6)),
        part(("192.0.2.1", 1, MINUTE + 60_000, 2**64 - 2))])
    assert [(row["exporter"][-1], row["interface"], row["at"] - MINUTE, row["in_octets"])
            for row in interface_counters.to_rows(thinned)] == [
                (1, 1, 59_999, 4), (1, 1, 60_000, -2), (1, 2, 10, 2), (2, 1, 10, 3)]
    assert interface_counters.newest_of_minutes([part()]) is None
    assert interface_counters.to_rows(None) == []


def stored(home: Home) -> list[tuple[int, int, int, int]]:
    table = tables.interface_counter.c
    with sql.reading(sql.engine(home)) as connection:
        found = connection.execute(sa.select(table.interface, table.at, table.in_octets, table.segment_id).order_by(
            table.exporter, table.interface, table.at)).all()
    return [(row.interface, row.at - MINUTE, row.in_octets, row.segment_id) for row in found]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "ratemill.toml").write_text("")
    made = Home(tmp_path)
    made.create()
    return made


def keep(home: Home, block: int, *datagrams: Datagram) -> None:
    """What the worker does with a segment."""
    builder = SegmentBuilder(home, "one", "digest")
    builder.add(Decoder(CollectorSettings()).feed(body_of(datagrams), 0, builder.columns), block)
    segment = builder.write()
    with sql.transaction(sql.engine(home)) as connection:
        segments.register(connection, [segment], 1)


def sampled(at: int, octets: int, interface: int = 7, sequence: int = 1) -> Datagram:
    return Datagram(f.sflow(f.counter_sample(f.interface_counters(interface, octets, 1)), sequence=sequence), MINUTE + at)


def test_readings_are_stored_with_their_segment_thinned_and_once(home: Home) -> None:
    keep(home, 0, sampled(1_000, 10), sampled(20_000, 20, sequence=2), sampled(61_000, 30, sequence=3), sampled(2_000, 5, 8))
    assert stored(home) == [(7, 20_000, 20, 1), (7, 61_000, 30, 1), (8, 2_000, 5, 1)]
    keep(home, 1, sampled(40_000, 25), sampled(61_000, 99, sequence=2))
    assert stored(home) == [(7, 40_000, 25, 2), (7, 61_000, 30, 1), (8, 2_000, 5, 1)], "one that is there stays"
    keep(home, 2, sampled(30_000, 22))
    assert stored(home) == [(7, 40_000, 25, 2), (7, 61_000, 30, 1), (8, 2_000, 5, 1)], "a late one is not the newest"
    imported = {"exporter": parse_address("192.0.2.1"), "interface": 7, "at": MINUTE + 40_000, "in_octets": 1, "out_octets": 1}
    with sql.transaction(sql.engine(home)) as connection:
        sql.insert_new(connection, tables.interface_counter, [{**imported, "segment_id": None, "source": "csv"}] * 2)
    keep(home, 3, sampled(50_000, 27))
    assert stored(home) == [(7, 40_000, 1, None), (7, 50_000, 27, 4), (7, 61_000, 30, 1), (8, 2_000, 5, 1)]


def test_a_segment_is_closed_when_it_holds_many_readings(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface_counters, "SEGMENT_READINGS_MAX", 2)
    builder = SegmentBuilder(home, "one", "digest")
    builder.add(decode(sampled(0, 1)), 0)
    assert not builder.is_full
    builder.add(decode(sampled(0, 1)), 1)
    assert builder.is_full


# discarded packets ----------------------------------------------------------------------------------------------------
def test_discarded_packets_are_counted_by_exporter_and_shown(home: Home) -> None:
    header = f.raw_header(f.ethernet(f.ipv4(f.tcp())))
    running = Decoder(CollectorSettings())
    running.feed(body_of([Datagram(f.sflow(f.drop_sample(header), f.drop_sample(), f.flow_sample(header), sequence=n))
                          for n in range(3)]), 0)
    resumed = Decoder(CollectorSettings(), decoder.DecoderState.from_bytes(running.state.to_bytes()))
    decoded = resumed.feed(body_of([Datagram(f.sflow(f.drop_sample(header), sequence=3))]), 1)
    assert (decoded.counts.drop_samples, decoded.counts.flows) == (1, 0), "a discarded packet is no flow"
    with sql.transaction(sql.engine(home)) as connection:
        commits.write_exporters(connection, "one", resumed.state.exporters())
    [row] = listing.exporters(home)
    assert row["drop_samples"] == 7
    assert list(row) == list(listing.EXPORTER_COLUMNS)
    assert json.dumps(row)
