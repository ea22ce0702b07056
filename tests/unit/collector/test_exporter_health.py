"""What a segment keeps of its exporters' health: loss by quarter hour, skew, records a datagram, templates, kernel drops."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from exports import BASIC, NOW_S, basic, flow_sample, framed, ipfix, raw_header, sflow, template, v5, v5_record, v9
from journal_bodies import Datagram, body_of

from collector import commits, completeness, health, readings, segments, sums
from collector.decoder import Decoder
from collector.knowledge import Knowledge
from collector.segment_builder import SegmentBuilder
from collector.settings import CollectorSettings
from core import tables
from core.addresses import parse_address
from core.errors import NotFound
from core.periods import SLOT_MS
from storage import sql
from storage.home import Home

NOW = NOW_S * 1000
ROUTER = "192.0.2.1"


def made(folder: Path) -> Home:
    (folder / "ratemill.toml").touch()
    home = Home(folder)
    home.create()
    return home


def intake_of(*bodies: list[Datagram]) -> list[dict[str, Any]]:
    decoder = Decoder(CollectorSettings())
    return sums.sum_intake([decoder.feed(body_of(body), block).intake for block, body in enumerate(bodies)])


def v5_at(received: int, sequence: int, records: int = 2) -> Datagram:
    uptime = 3_600_000 + received - NOW  # one boot for all
    payload = v5([v5_record(octets=sequence + 1)] * records, sequence, uptime, seconds=received // 1000)
    return Datagram(payload, received, ROUTER)


def test_missing_records_belong_to_the_quarter_hour_in_which_the_gap_showed() -> None:
    later = NOW + SLOT_MS
    rows = intake_of([v5_at(NOW, 0), v5_at(NOW + 1000, 2), v5_at(later, 14), v5_at(later + 1000, 16)])
    assert [row["missing"] for row in rows] == [0, 10]


def test_a_late_datagram_takes_back_what_was_missing_even_in_another_quarter_hour() -> None:
    later = NOW + SLOT_MS
    rows = intake_of([v5_at(NOW, 0), v5_at(NOW + 1000, 4)], [v5_at(later, 2)])
    assert [row["missing"] for row in rows] == [2, -2]
    assert [row["reordered"] for row in rows] == [0, 1]


def test_loss_of_a_period_is_the_sum_over_domains_by_their_own_unit(tmp_path: Path) -> None:
    home = made(tmp_path)
    flows = [framed(0, template(256, BASIC)), framed(256, basic(), basic())]
    datagrams = [v5_at(NOW, 0), v5_at(NOW + 1000, 32), Datagram(v9(*flows, sequence=1), NOW, "192.0.2.2"),
                 Datagram(v9(flows[1], sequence=5), NOW + 1, "192.0.2.2")]
    store(home, [datagrams], drops=[2])
    with sql.reading(sql.engine(home)) as connection:
        losses, unseen = completeness.losses(connection, NOW - SLOT_MS, NOW + SLOT_MS)
    records, datagrams_lost = losses
    assert (records.missing, records.received, records.explained.datagrams.likely) == (30, 4, 15)
    assert (datagrams_lost.missing, datagrams_lost.received) == (3, 2)
    assert datagrams_lost.explained.records.likely == 6
    assert records.explained.kernel + datagrams_lost.explained.kernel > 0
    assert unseen == {}


def store(home: Home, bodies: list[list[Datagram]], drops: list[int] | None = None, collector: str = "main") -> int:
    """Decode blocks into one segment and register it; returns its number."""
    decoder, builder = Decoder(CollectorSettings()), SegmentBuilder(home, collector, "settings")
    with sql.reading(sql.engine(home)) as connection:
        first = (connection.scalar(sa.select(sa.func.max(tables.segment.c.block_last))) or 0) + 1
    for block, body in enumerate(bodies):
        builder.add(decoder.feed(body_of(body), block, builder.columns), first + block)
        if drops is not None:
            builder.dropped(body[-1].received, drops[block])
    segment = builder.write()
    with sql.transaction(sql.engine(home)) as connection:
        segments.register(connection, [segment], segments.next_version(connection, 0, "test", ""))
        knowledge = Knowledge(collector).changes(decoder.state)
        assert knowledge is not None
        knowledge.write(connection)
        commits.write_exporters(connection, collector, commits.exporter_rows(decoder.state).values())
        return int(connection.scalar(sa.select(sa.func.max(tables.segment.c.id))) or 0)


def test_kernel_drops_are_the_growth_of_the_cumulative_count(tmp_path: Path) -> None:
    home = made(tmp_path)
    store(home, [[v5_at(NOW, 0)], [v5_at(NOW + SLOT_MS, 2)]], drops=[5, 12])
    store(home, [[v5_at(NOW + 2 * SLOT_MS, 4)]], drops=[12])
    store(home, [[v5_at(NOW + 3 * SLOT_MS, 6)]], drops=[3])  # the count began anew
    slot = NOW // SLOT_MS * SLOT_MS
    with sql.reading(sql.engine(home)) as connection:
        assert completeness.kernel_drops(connection, slot, slot + SLOT_MS) == {"main": 5}
        assert completeness.kernel_drops(connection, slot + SLOT_MS, slot + 3 * SLOT_MS) == {"main": 7}
        assert completeness.kernel_drops(connection, slot, slot + 4 * SLOT_MS) == {"main": 15}


def test_a_count_of_drops_that_stays_adds_no_rows(tmp_path: Path) -> None:
    home = made(tmp_path)
    store(home, [[v5_at(NOW + n, 2 * n)] for n in range(5)], drops=[0] * 5)
    with sql.reading(sql.engine(home)) as connection:
        assert connection.execute(sa.select(tables.kernel_drop)).all() == []


def test_skew_is_arrival_less_export_time_least_greatest_and_newest() -> None:
    late = [Datagram(ipfix(framed(2, template(256 + n, BASIC)), seconds=NOW_S, sequence=0), NOW + skew, ROUTER)
            for n, skew in enumerate((2500, -700, 40))]
    (row,) = intake_of(late[:2], late[2:])
    assert (row["clocked"], row["skew_min"], row["skew_max"], row["skew_last"]) == (3, -700, 2500, 40)


def test_sflow_has_no_clock_to_compare() -> None:
    (row,) = intake_of([Datagram(sflow(flow_sample(raw_header(bytes(64)))), NOW, ROUTER)])
    assert (row["clocked"], row["skew_min"], row["skew_max"]) == (0, 0, 0)
    assert (row["measured"], row["records"]) == (1, 1)


def test_records_a_datagram_leave_out_what_was_faulty() -> None:
    broken = v5([v5_record()] * 3, 9, count=5)
    (row,) = intake_of([v5_at(NOW, 0, 2), v5_at(NOW + 1, 2, 7), Datagram(broken, NOW + 2, ROUTER)])
    assert (row["measured"], row["records"], row["records_min"], row["records_max"]) == (2, 9, 2, 7)


def test_what_is_told_does_not_depend_on_how_blocks_are_cut() -> None:
    datagrams = [v5_at(NOW + n * 60_000, 2 * n + n // 3) for n in range(40)]
    whole = intake_of(datagrams)
    assert whole == intake_of(*([one] for one in datagrams)) == intake_of(datagrams[:7], datagrams[7:])
    assert sum(row["missing"] for row in whole) > 0


@pytest.mark.parametrize("seed", range(4))
def test_quarter_hours_sum_to_the_exporters_counts(seed: int) -> None:
    """Whatever is lost, late or copied: the quarter hours of `intake` and the cumulative counts are one thing."""
    rng = random.Random(seed)
    datagrams = [v5_at(NOW + n * 30_000, 2 * n) for n in range(200)]
    sent = [one for one in datagrams if rng.random() > 0.1]
    for _ in range(15):
        at = rng.randrange(len(sent) - 6)
        sent.insert(at + rng.randrange(6), sent.pop(at))
    sent = [copy for one in sent for copy in [one] * (1 + (rng.random() < 0.1))]
    decoder, intake = Decoder(CollectorSettings()), []
    while sent:
        size = rng.randrange(1, 30)
        intake.append(decoder.feed(body_of(sent[:size]), len(intake)).intake)
        sent = sent[size:]
    rows = sums.sum_intake(intake)
    (counted,) = decoder.state.exporters()
    assert len(rows) > 5
    assert sum(row["missing"] for row in rows) == counted.missing > 0
    assert sum(row["reordered"] for row in rows) == counted.reordered > 0
    assert sum(row["restarts"] for row in rows) == counted.restarts


def test_readings_go_with_their_segment(tmp_path: Path) -> None:
    home = made(tmp_path)
    number = store(home, [[v5_at(NOW, 0)]], drops=[3])
    mine = (tables.exporter_reading, tables.rate_reading, tables.interface_flow, tables.kernel_drop)
    with sql.transaction(sql.engine(home)) as connection:
        assert all(connection.execute(sa.select(table)).all() for table in mine)
        for table in (tables.intake, tables.fault, tables.segment_slot):
            connection.execute(table.delete().where(table.c.segment_id == number))
        connection.execute(tables.segment.delete().where(tables.segment.c.id == number))
        assert not any(connection.execute(sa.select(table)).all() for table in mine)


def test_a_segment_that_is_made_anew_replaces_its_readings(tmp_path: Path) -> None:
    home = made(tmp_path)
    number = store(home, [[v5_at(NOW, 0)]])
    columns = Decoder(CollectorSettings()).feed(body_of([v5_at(NOW, 0, 5)]), 0).flows
    with sql.transaction(sql.engine(home)) as connection:
        readings.replace(connection, number, readings.read(columns))
    with sql.reading(sql.engine(home)) as connection:
        (row,) = connection.execute(sa.select(tables.exporter_reading)).all()
        (table,) = readings.interface_flows(connection, NOW - 8 * SLOT_MS, NOW)
    assert row.flows == 5
    assert table.num_rows == 2


# exporters show -------------------------------------------------------------------------------------------------------
def test_templates_are_shown_by_name_with_when_they_were_defined(tmp_path: Path) -> None:
    home = made(tmp_path)
    other = [(1, 8), (8, 4), ((9 << 32) | 12232, 4), (999, 2)]
    store(home, [[Datagram(ipfix(framed(2, template(256, BASIC)), sequence=0), NOW, ROUTER),
                  Datagram(ipfix(framed(2, template(256, BASIC), template(300, other)), sequence=0), NOW + 5000, ROUTER)]])
    (part,) = health.show(home, ROUTER)["domains"]
    first, second = part["templates"]
    assert [field["name"] for field in first["fields"]] == [
        "sourceIPv4Address", "destinationIPv4Address", "octetDeltaCount", "packetDeltaCount"]
    assert [field["octets"] for field in first["fields"]] == [4, 4, 4, 4]
    assert (first["kind"], first["defined"]) == ("data", "2026-09-21T14:13:20.000Z")
    assert second["defined"] == "2026-09-21T14:13:25.000Z", "the same definition again is no new one"
    assert second["fields"][3]["name"] == "element 999"


def test_a_withdrawn_template_is_not_shown_any_more(tmp_path: Path) -> None:
    home = made(tmp_path)
    withdrawal = framed(2, b"\x01\x00\x00\x00")
    store(home, [[Datagram(ipfix(framed(2, template(256, BASIC)), sequence=0), NOW, ROUTER),
                  Datagram(ipfix(withdrawal, sequence=0), NOW + 1, ROUTER)]])
    assert health.show(home, ROUTER)["domains"][0]["templates"] == []


def test_only_changed_templates_are_written_again(tmp_path: Path) -> None:
    home = made(tmp_path)
    decoder, knowledge = Decoder(CollectorSettings()), Knowledge("main")
    engine = sql.engine(home)
    shown = []
    for number, sets in enumerate(([template(256, BASIC)], [template(257, BASIC)], [b"\x01\x00\x00\x00"])):
        decoder.feed(body_of([Datagram(ipfix(framed(2, *sets), sequence=0), NOW + number, ROUTER)]), number)
        with sql.transaction(engine) as connection:
            changes = knowledge.changes(decoder.state)
            assert changes is not None
            changes.write(connection)
            shown.append(list(connection.scalars(sa.select(tables.exporter_template.c.template))))
    assert shown == [[256], [256, 257], [257]]
    assert knowledge.changes(decoder.state) is None


def test_the_longest_flow_shows_the_active_timeout(tmp_path: Path) -> None:
    home = made(tmp_path)
    flow = v5_record(first=3_600_000 - 130_000, last=3_600_000 - 10_000)
    store(home, [[Datagram(v5([flow, v5_record(3_600_000, 3_600_000)], 0), NOW, ROUTER)]])
    (part,) = health.show(home, ROUTER)["domains"]
    assert part["longest_flow_ms"] == 120_000
    assert part["rates"] == [{"numerator": 1, "denominator": 1, "source": "assumed", "flows": 2}]


def test_an_unknown_exporter_is_told_the_nearest(tmp_path: Path) -> None:
    home = made(tmp_path)
    store(home, [[v5_at(NOW, 0)]])
    with pytest.raises(NotFound) as refused:
        health.show(home, "192.0.2.11")
    assert ROUTER in refused.value.hint
    with pytest.raises(NotFound, match="has no domain 9"):
        health.show(home, ROUTER, 9)


def test_faults_come_with_meaning_and_advice(tmp_path: Path) -> None:
    home = made(tmp_path)
    store(home, [[Datagram(b"\x00\x63garbage", NOW, ROUTER)]])
    (fault,) = health.show(home, ROUTER)["faults"]
    assert fault["kind"] == "version_unknown"
    assert fault["meaning"]
    assert fault["advice"]


def test_an_exporters_own_interface_is_found_by_ingress_or_egress_never_by_both(tmp_path: Path) -> None:
    """Flows of one packet seen at ingress and again at egress are not added up."""
    home = made(tmp_path)
    fields = [*BASIC, (10, 4), (14, 4), (61, 1)]
    record = basic(1000, 1, (7).to_bytes(4, "big") + (9).to_bytes(4, "big"))
    sets = framed(256, record + b"\x00", record + b"\x01")
    store(home, [[Datagram(ipfix(framed(2, template(256, fields)), sets, sequence=0), NOW, ROUTER)]])
    span = (NOW - SLOT_MS, NOW + SLOT_MS)
    with sql.reading(sql.engine(home)) as connection:
        flows = completeness.FlowSums(connection, *span)
    address = parse_address(ROUTER)
    assert flows.interfaces() == {(address, 7), (address, 9)}
    assert [sum(one.octets for one in flows.of(address, interface, side, [span]).values())
            for interface, side in ((7, 0), (7, 1), (9, 0), (9, 1))] == [1000, 0, 0, 1000]
