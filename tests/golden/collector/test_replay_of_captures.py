"""Replay of the 92 sessions: counts as the index says, every file once, nothing half done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import packets
import pytest
import sqlalchemy as sa
from harness import rows, run_cli, sessions, shared
from packets import Flow

from collector.captures import Source
from collector.replay import Request, replay_files
from collector.segments import read_segment
from core import tables
from core.actor import Actor
from core.errors import Locked, RatemillError
from runtime.locks import only_one
from storage import sql
from storage.home import Home

ACTOR = Actor("tester", "a test")
FLOWS = [Flow("8.8.8.8", "10.0.0.1", "2026-10-05T10:00:00Z", "2026-10-05T10:20:00Z", 1000 + n) for n in range(5)]
AT = "2026-10-05T10:21:00Z"


def _home(folder: Path, text: str = "") -> Home:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ratemill.toml").write_text(text)
    home = Home(folder)
    home.create()
    return home


def _files(session: dict[str, Any]) -> list[Path]:
    return [shared("captures") / name for name in session["files"]]


def _count(home: Home, table: sa.Table) -> int:
    with sql.reading(sql.engine(home)) as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def _stored(home: Home) -> tuple[int, int]:
    """Flows and octets that count, read from the files, which hold what their rows say."""
    flows = octets = 0
    with sql.reading(sql.engine(home)) as connection:
        found = connection.execute(sa.select(tables.segment)).all()
    for row in found:
        table = read_segment(home, row)
        assert table.num_rows == row.flows
        flows += table.num_rows
        octets += sum(table.column("octets").to_pylist())
    return flows, octets


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, dict[str, dict[str, Any]]]:
    """All sessions one after another into one home."""
    home = _home(tmp_path_factory.mktemp("all"))
    return home, {s["id"]: replay_files(home, Request(_files(s), again=True), ACTOR).document() for s in sessions()}


@pytest.mark.parametrize("session", sessions(), ids=lambda session: session["id"])
def test_a_session_is_replayed_with_the_counts_of_the_index(session: dict[str, Any], replayed: Any) -> None:
    done, expected = replayed[1][session["id"]], session["expected"]
    names = ("datagrams", "templates", "options_templates", "data_records", "options_records")
    assert {name: done[name] for name in names} == {name: expected[name] for name in names}
    assert done["waiting"] == expected["undecodable_sets"]


def test_what_all_sessions_gave_is_stored_and_its_balance_closes(replayed: Any) -> None:
    shared("captures")
    home, done = replayed
    assert _stored(home) == (sum(one["flows"] for one in done.values()), sum(one["octets"] for one in done.values()))
    intake = tables.intake.c
    with sql.reading(sql.engine(home)) as connection:
        datagrams, known, records, named, waiting = connection.execute(sa.select(
            sa.func.sum(intake.datagrams), sa.func.sum(intake.decoded + intake.faulted + intake.duplicate + intake.refused),
            sa.func.sum(intake.data_records), sa.func.sum(intake.flow_records + intake.not_a_flow + intake.faulted_records),
            sa.func.sum(intake.waiting_sets))).one()
    assert datagrams == known == sum(one["datagrams"] for one in done.values())
    assert records == named
    assert waiting >= sum(one["waiting"] for one in done.values())


def test_some_sessions_through_the_command_line(tmp_path: Path) -> None:
    shared("captures")
    home = _home(tmp_path / "home")
    names = ("Graylog2:netflow5.pcap", "CESNET:03-odid0-a.ipfix", "telegraf:sflow_v5_example")
    chosen = [session for session in sessions() if session["id"] in names]
    assert len(chosen) == len(names)
    for session in chosen:
        done = run_cli("collect", "replay", *map(str, _files(session)), home=home.path)
        summary = rows(done)[0]
        assert summary["datagrams"] == session["expected"]["datagrams"]
        assert summary["data_records"] == session["expected"]["data_records"]
        again = run_cli("collect", "replay", *map(str, _files(session)), home=home.path)
        assert rows(again)[0]["datagrams"] == 0
        assert "was replayed before" in again.stderr
    listed = rows(run_cli("exporters", "list", home=home.path))
    assert sum(row["received"] for row in listed) == sum(session["expected"]["datagrams"] for session in chosen)


# what a replay is -----------------------------------------------------------------------------------------------------
def _pcap(path: Path, payloads: list[bytes]) -> Path:
    return packets.pcap(path, [(AT, "192.0.2.7", payload) for payload in payloads])


def test_a_file_counts_once_unless_again_is_said(tmp_path: Path) -> None:
    home = _home(tmp_path / "home")
    file = _pcap(tmp_path / "a.pcap", [packets.v5(FLOWS, AT)])
    copy = tmp_path / "the same by another name"
    copy.write_bytes(file.read_bytes())
    first = replay_files(home, Request([file, copy]), ACTOR)
    assert (first.flows, first.skipped) == (5, [str(copy)])
    second = replay_files(home, Request([copy]), ACTOR)
    assert (second.datagrams, second.flows, second.skipped) == (0, 0, [str(copy)])
    assert _stored(home)[0] == 5
    for times in (2, 3):
        assert replay_files(home, Request([file], again=True), ACTOR).flows == 5
        assert _stored(home)[0] == 5 * times
    assert _count(home, tables.replayed_file) == 3
    assert _count(home, tables.audit) == 3


def test_a_skipped_file_still_teaches_its_templates(tmp_path: Path) -> None:
    home = _home(tmp_path / "home")
    template = _pcap(tmp_path / "template.pcap", [packets.ipfix([packets.ipfix_template()], AT)])
    data = _pcap(tmp_path / "data.pcap", [packets.ipfix([packets.ipfix_data(FLOWS)], AT)])
    replay_files(home, Request([template]), ACTOR)
    alone = replay_files(home, Request([data], dry_run=True), ACTOR)
    assert (alone.flows, alone.waiting) == (0, 1)
    both = replay_files(home, Request([template, data]), ACTOR)
    assert (both.flows, both.templates, both.waiting, both.skipped) == (5, 0, 0, [str(template)])


def test_continue_goes_on_with_the_state_of_the_last_replay(tmp_path: Path) -> None:
    home = _home(tmp_path / "home")
    template = _pcap(tmp_path / "template.pcap", [packets.ipfix([packets.ipfix_template()], AT)])
    data = _pcap(tmp_path / "data.pcap", [packets.ipfix([packets.ipfix_data(FLOWS)], AT, 3)])
    replay_files(home, Request([template], continues=True), ACTOR)
    assert replay_files(home, Request([data], dry_run=True), ACTOR).flows == 0
    assert replay_files(home, Request([data], continues=True), ACTOR).flows == 5
    with sql.reading(sql.engine(home)) as connection:
        row = connection.execute(sa.select(tables.exporter_state)).one()
    assert (row.received, row.missing) == (2, 3)


def test_a_dry_run_stores_nothing(tmp_path: Path) -> None:
    home = _home(tmp_path / "home")
    file = _pcap(tmp_path / "a.pcap", [packets.v5(FLOWS, AT)])
    assert replay_files(home, Request([file], dry_run=True), ACTOR).flows == 5
    assert _count(home, tables.segment) == _count(home, tables.replayed_file) == 0
    assert not [path for name in ("journal", "segments") for path in home.folder(name).rglob("*") if path.is_file()]


def test_raw_files_take_the_exporter_that_is_named_and_the_export_time(tmp_path: Path) -> None:
    home = _home(tmp_path / "home")
    raw = tmp_path / "a.bin"
    raw.write_bytes(packets.v5(FLOWS, AT))
    run_cli("collect", "replay", str(raw), "--exporter", "2001:db8::7", home=home.path)
    flow = rows(run_cli("flows", "export", home=home.path))[0]
    assert (flow["exporter"], flow["received"]) == ("2001:db8::7", "2026-10-05T10:21:00.000Z")
    assert replay_files(home, Request([raw], Source(), again=True), ACTOR).flows == 5
    assert {row["exporter"] for row in rows(run_cli("exporters", "list", home=home.path))} == {"192.0.2.1", "2001:db8::7"}
    run_cli("collect", "replay", str(raw), "--exporter", "nowhere", home=home.path, check=2)


def test_what_cannot_be_opened_is_listed_and_the_rest_counts(tmp_path: Path) -> None:
    home = _home(tmp_path / "home")
    file = _pcap(tmp_path / "a.pcap", [packets.v5(FLOWS, AT)])
    packed = tmp_path / "b.pcap.gz"
    packed.write_bytes(b"\x1f\x8b" + bytes(50))
    done = run_cli("collect", "replay", str(file), str(tmp_path / "missing"), str(packed), home=home.path, check=3)
    assert rows(done)[0]["flows"] == 5
    assert rows(done)[0]["failed"] == [str(tmp_path / "missing"), str(packed)]
    assert "compressed with gzip" in done.stderr
    none = run_cli("collect", "replay", str(tmp_path / "missing"), str(tmp_path), home=home.path, check=1)
    assert "can't be opened" in none.stderr
    assert run_cli("collect", "replay", str(packed), home=home.path, check=1).stdout == ""
    with sql.reading(sql.engine(home)) as connection:
        assert list(connection.scalars(sa.select(tables.replayed_file.c.name))) == ["a.pcap"]


def test_faults_are_data_and_a_garbage_file_is_no_failure(tmp_path: Path) -> None:
    home = _home(tmp_path / "home")
    raw = tmp_path / "garbage.bin"
    raw.write_bytes(b"\xde\xad\xbe\xef" * 9)
    summary = rows(run_cli("collect", "replay", str(raw), home=home.path))[0]
    assert (summary["datagrams"], summary["faults"]) == (1, {"version_unknown": 1})


def test_one_replay_at_a_time(tmp_path: Path) -> None:
    home = _home(tmp_path / "home")
    file = _pcap(tmp_path / "a.pcap", [packets.v5(FLOWS, AT)])
    with only_one(home, "replay", "a replay"), pytest.raises(Locked, match="process"):
        replay_files(home, Request([file]), ACTOR)
    assert replay_files(home, Request([file]), ACTOR).flows == 5


def test_a_replay_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = _home(tmp_path / "home")
    file = _pcap(tmp_path / "a.pcap", [packets.v5(FLOWS, AT)])

    def refuse(*_: object) -> None:
        raise RatemillError("the disk is full")

    with monkeypatch.context() as patch, pytest.raises(RatemillError, match="disk is full"):
        patch.setattr("collector.segments.register", refuse)
        replay_files(home, Request([file]), ACTOR)
    assert not [path for name in ("journal", "segments") for path in home.folder(name).rglob("*") if path.is_file()]
    assert replay_files(home, Request([file]), ACTOR).flows == 5


def test_flows_of_replays_that_overlap_come_out_in_order_of_arrival(tmp_path: Path) -> None:
    home = _home(tmp_path / "home")
    for number in range(4):
        moments = [f"2026-10-05T10:{minute:02d}:00Z" for minute in range(21 + number, 50, 4)]
        datagrams = [(at, f"192.0.2.{number}", packets.v5(FLOWS[:2], at, 2 * n)) for n, at in enumerate(moments)]
        replay_files(home, Request([packets.pcap(tmp_path / f"{number}.pcap", datagrams)]), ACTOR)
    exported = rows(run_cli("flows", "export", home=home.path))
    received = [row["received"] for row in exported]
    assert received == sorted(received)
    assert len(exported) == _stored(home)[0] == 2 * 29
    assert [row["octets"] for row in exported] == [1000, 1001] * 29, "flows of one datagram keep their order"
    some = rows(run_cli("flows", "export", "--from", "2026-10-05T10:25:00Z", "--to", "2026-10-05T10:30:00Z", home=home.path))
    assert {row["received"][14:16] for row in some} == {"25", "26", "27", "28", "29"}
    target = tmp_path / "flows.parquet"
    run_cli("flows", "export", "-o", "parquet", "--to", str(target), "--to", "2026-10-05T10:30:00Z", home=home.path)
    import pyarrow.parquet as pq

    assert pq.read_table(target).num_rows == 18
    assert "names two files" in run_cli("flows", "export", "--to", "a", "--to", "b", home=home.path, check=2).stderr
