"""What an endpoint tells of the collectors of a home, and when it calls them ill."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import BASIC, basic, framed, ipfix, template
from harness import ROOT
from journal_bodies import Datagram, body_of
from prometheus_client.parser import text_string_to_metric_families

from collector import counters, liveness, metrics, totals
from collector.commits import write_exporters
from collector.lag import Follower
from collector.liveness import Condition
from collector.receiver import Receiver, open_listeners, parse_listen
from collector.state import ExporterRow
from collector.status import statuses
from collector.worker import decode_available
from core import clock
from core.addresses import parse_address
from core.periods import format_instant
from monitoring.metrics import declared
from runtime.jobs import process_started
from runtime.metrics import COUNTER, HISTOGRAM, Exposition
from storage import sql
from storage.home import Home
from storage.journal import HEADER_SIZE, BlockHead, JournalWriter


def make_home(folder: Path, settings: str = "") -> Home:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ratemill.toml").write_text(settings)
    home = Home(folder)
    home.create()
    return home


def tell(home: Home, collector: str = "main", **more: Any) -> None:
    """Write a status as a running collector does: this process is both the decoder and the receiver."""
    pid = os.getpid()
    told = {"collector": collector, "state": "running", "pid": pid, "pid_started": process_started(pid), "receiver_pid": pid,
            "listeners": [{"address": "127.0.0.1:2055", "buffer": 4096}], "trouble": "", "at": format_instant(clock.now_ms())}
    (home.folder("run") / f"collector-{collector}.json").write_text(json.dumps({**told, **more}))


def scrape(home: Home) -> dict[str, Any]:
    """By the name of the series: (labels, value)."""
    found: dict[str, Any] = {}
    for family in text_string_to_metric_families(Exposition(metrics.parts(home)).text()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


# names ----------------------------------------------------------------------------------------------------------------
def test_every_metric_is_named_by_prometheus_convention() -> None:
    found = [metric for module in declared().values() for metric in module]
    names = [metric.name for metric in found]
    assert len(set(names)) == len(names)
    for metric in found:
        assert re.fullmatch(r"ratemill_[a-z0-9_]+", metric.name), metric.name
        assert metric.name.endswith("_total") == (metric.kind == COUNTER), metric.name
        assert not re.search(r"_(ms|minutes|hours|octets|kb|mb|percent)(_|$)", metric.name), "base units"
        assert metric.kind != HISTOGRAM or metric.name.endswith(("_seconds", "_bytes"))
        assert metric.what.endswith("."), metric.name
        assert not {"job", "instance", "le"} & set(metric.labels), "labels that Prometheus itself sets"


def test_asking_for_the_status_does_not_bring_the_decoder_and_a_command_does_not_bring_prometheus() -> None:
    code = ("import sys; import collector.status, collector.watch, collector.watch_screen, monitoring.metrics; "
            "print([name for name in ('numba', 'duckdb', 'prometheus_client') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# figures --------------------------------------------------------------------------------------------------------------
def test_shared_figures_are_told_with_their_labels_and_in_base_units(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    tell(home)
    places = counters.open_counters(home, "main")
    places[counters.RECEIVED], places[counters.OCTETS], places[counters.STALLED_NS] = 30, 900, 1_500_000_000
    places[counters.DURABLE], places[counters.DECODED], places[counters.REFUSED], places[counters.LOST] = 24, 10, 4, 2
    places[counters.DATAGRAM_SIZES : counters.DATAGRAM_SIZES + 3] = 1, 2, 27
    at = counters.listener_at(0)
    places[at : at + 5] = 30, 900, 3, 8192, 512
    worker = counters.worker_at(0)
    places[worker + counters.WORKER_DECODE_NS] = 250_000_000
    counters.observe(places, worker + counters.WORKER_COMMITS, counters.DURATION_BOUNDS_NS, 30_000_000)
    found = scrape(home)
    one = {"collector": "main"}
    assert found["ratemill_collector_received_datagrams_total"] == [(one, 30)]
    assert found["ratemill_collector_receiver_stalled_seconds_total"] == [(one, 1.5)]
    assert found["ratemill_collector_lag_datagrams"] == [(one, 14)], "received less decoded, refused and lost"
    assert found["ratemill_collector_listener_kernel_dropped_datagrams_total"] == [({**one, "listener": "127.0.0.1:2055"}, 3)]
    assert found["ratemill_collector_listener_receive_buffer_bytes"][0][1] == 8192
    assert found["ratemill_collector_worker_decode_seconds_total"] == [({**one, "worker": "0"}, 0.25)]
    sizes = {labels["le"]: value for labels, value in found["ratemill_collector_datagram_size_bytes_bucket"]}
    assert (sizes["128.0"], sizes["256.0"], sizes["512.0"], sizes["+Inf"]) == (1, 3, 30, 30)
    assert found["ratemill_collector_datagram_size_bytes_sum"] == [(one, 900)]
    commits = {labels["le"]: value for labels, value in found["ratemill_collector_worker_commit_seconds_bucket"]}
    assert (commits["0.025"], commits["0.05"]) == (0, 1)
    processes = {labels["process"] for labels, _ in found["ratemill_collector_process_resident_memory_bytes"]}
    assert processes == {"decoder", "receiver"}


def test_every_collector_of_a_home_is_told_whichever_runs(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    tell(home, "east")
    tell(home, "west", state="stopped")
    assert sorted((labels["collector"], value) for labels, value in scrape(home)["ratemill_collector_up"]) == [
        ("east", 1), ("west", 0)]


def test_a_broken_database_is_a_metric_and_the_rest_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = make_home(tmp_path)
    tell(home)
    (tmp_path / "ratemill.db").write_bytes(b"this is no database, it is a text of some length" * 200)
    found = scrape(home)
    assert found["ratemill_database_up"] == [({}, 0)]
    assert found["ratemill_collector_up"] == [({"collector": "main"}, 1)]
    assert not any(name.startswith("ratemill_collector_exporter") for name in found)
    assert "the database can't be read" in capsys.readouterr().err


def test_exporters_beyond_the_bound_are_added_up(tmp_path: Path) -> None:
    home = make_home(tmp_path, "[metrics]\nexporters_max = 2\n")
    with sql.transaction(sql.engine(home)) as connection:
        write_exporters(connection, "main", [
            ExporterRow(parse_address(f"192.0.2.{n}"), n, 9, 10 * n, n, 1, 0, 0, 0, 2, 100 - n, 2000) for n in range(1, 6)])
        totals.add(connection, "main", [], [{"exporter": parse_address(f"192.0.2.{n}"), "domain": n, "kind": "too_short",
                                             "count": n} for n in range(1, 6)], {}, {})
    found = scrape(home)
    received = {labels["exporter"]: value for labels, value in found["ratemill_collector_exporter_received_datagrams_total"]}
    assert received == {"192.0.2.5": 50, "192.0.2.4": 40, "other": 60}
    faults = {labels["exporter"]: value for labels, value in found["ratemill_collector_exporter_faults_total"]}
    assert faults == {"192.0.2.5": 5, "192.0.2.4": 4, "other": 6}
    assert found["ratemill_collector_exporters"] == [({"collector": "main"}, 5)]
    assert "other" not in {labels["exporter"] for labels, _ in found["ratemill_collector_exporter_last_seen_timestamp_seconds"]}


def test_sequence_numbers_are_told_in_their_own_unit(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    keys = [(parse_address(f"192.0.2.{protocol}"), 0, protocol) for protocol in (1, 5, 7, 9, 10, 105)]
    with sql.transaction(sql.engine(home)) as connection:
        write_exporters(connection, "main", [ExporterRow(*key, 10, 4, 0, 0, 0, 0, 0, 1, 2) for key in keys])
        totals.add(connection, "main", [], [], dict.fromkeys(keys, 4), {})
    found = scrape(home)

    def protocols(name: str) -> dict[str, float]:
        return {labels["protocol"]: value for labels, value in found[name]}

    assert protocols("ratemill_collector_exporter_missing_datagrams_total") == {"v9": 4, "sflow": 4}
    assert protocols("ratemill_collector_exporter_missing_records_total") == {"v5": 4, "v7": 4, "ipfix": 4}
    assert set(protocols("ratemill_collector_exporter_templates_total")) == {"v9", "ipfix"}


# lag ------------------------------------------------------------------------------------------------------------------
def test_the_lag_in_time_is_the_age_of_the_oldest_datagram_that_is_no_flow_yet(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    writer = JournalWriter(home.folder("journal"), "main", file_size_max=400)
    places = counters.open_counters(home, "main")
    follower = Follower(home, "main")
    before = clock.use(clock.SimulatedClock(1_000_000))
    try:
        for number in range(12):
            received = number * 10_000
            framed = _framed(received)
            writer.append(BlockHead(number, 1, received, received), framed)
            writer.sync()
            places[counters.RECEIVED] = places[counters.DURABLE] = number + 1
            places[counters.DURABLE_BLOCK] = number
        for decoded in (-1, 0, 0, 4, 10):
            places[counters.DECODED_BLOCK], places[counters.DECODED] = decoded, decoded + 1
            lag = follower.lag(places)
            assert (lag.datagrams, lag.blocks, lag.seconds) == (11 - decoded, 11 - decoded, 1000 - (decoded + 1) * 10)
        places[counters.DECODED_BLOCK], places[counters.DECODED] = 11, 12
        assert follower.lag(places).seconds == 0
        places[counters.DECODED_BLOCK] = 3
        assert follower.lag(places).seconds == 1000 - 40, "and a step back is followed"
    finally:
        clock.use(before)
        follower.close()
        writer.close()


def _framed(received: int) -> Any:
    return np.concatenate([np.zeros(HEADER_SIZE, np.uint8), np.asarray(body_of([Datagram(b"12345678", received)]), np.uint8)])


# health ---------------------------------------------------------------------------------------------------------------
def condition(home: Home, lag: float | None = 0.0, **places: int) -> Condition:
    shared = counters.open_counters(home, "main")
    shared[counters.LOOKED_AT] = clock.now_ms()
    for name, value in places.items():
        shared[getattr(counters, name)] = value
    return Condition(statuses(home)[0], shared, lag)


def test_a_collector_that_receives_and_decodes_is_well(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    tell(home)
    assert liveness.problems([condition(home, 12)], 300) == []
    assert liveness.not_ready(statuses(home)) == []


@pytest.mark.parametrize(("told", "places", "lag", "word"), [
    ({"receiver_pid": 2**22 + 1}, {}, 0, "receiver"),
    ({"trouble": "the database is locked"}, {}, 0, "the database is locked"),
    ({"at": "2026-01-01T00:00:00.000Z"}, {}, 0, "has not written its status"),
    ({"state": "starting"}, {}, 0, "does not listen yet"),
    ({"pid": 2**22 + 1}, {}, 0, "ended without saying so"),
    ({"state": "stopped"}, {}, 0, "no collector runs"),
    ({}, {"LOOKED_AT": 1000}, 0, "waits for its disk"),
    ({}, {"JOURNAL_FAILING": 1}, 0, "does not take the journal"),
    ({}, {"DISK_LEVEL": 3, "DISK_RESERVE": 4096}, 0, "disk reserve of 4096"),
    ({}, {"DISK_LEVEL": 2, "DECODE_PAUSED": 1}, 0, "decoding waits"),
    ({}, {}, 301, "301 s behind"),
])
def test_what_is_wrong_is_named(tmp_path: Path, told: dict[str, Any], places: dict[str, int], lag: float, word: str) -> None:
    home = make_home(tmp_path)
    tell(home, **told)
    assert any(word in sentence for sentence in liveness.problems([condition(home, lag, **places)], 300))


def test_nobody_is_ready_where_nothing_runs(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    assert liveness.not_ready(statuses(home)) == ["no collector runs"]
    assert liveness.problems([], 300) != []
    tell(home, state="stopping")
    assert liveness.not_ready(statuses(home)) == ["collector 'main' is stopping"]


# the receiver's own ---------------------------------------------------------------------------------------------------
def test_each_listener_and_each_size_of_datagram_is_counted(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    listeners = open_listeners([parse_listen("127.0.0.1:0"), parse_listen("[::1]:0")], 1 << 18)
    receiver = Receiver(home, "main", listeners, sync_ms=20)
    sizes = [0, 128, 129, 256, 512, 1024, 1472, 1473, 4096, 9000, 9001]
    for number, size in enumerate(sizes):
        listener = listeners[number % 2]
        with socket.socket(listener.socket.family, socket.SOCK_DGRAM) as sender:
            sender.sendto(bytes(size), listener.socket.getsockname()[:2])
    receiver.stop()
    receiver.run()  # takes what is in the sockets and ends
    places = counters.read_places(home, "main")
    assert counters.histogram(places, counters.DATAGRAM_SIZES, counters.SIZE_BOUNDS).counts == (2, 2, 1, 1, 1, 2, 1, 1)
    for number, listener in enumerate(listeners):
        at = counters.listener_at(number)
        mine = sizes[number::2]
        assert places[at : at + 3].tolist() == [len(mine), sum(mine), 0]
        assert places[at + counters.LISTENER_BUFFER] == listener.granted
    assert places[counters.RECEIVED] == len(sizes)
    assert places[counters.OCTETS] == sum(sizes)
    syncs = counters.histogram(places, counters.JOURNAL_SYNCS, counters.DURATION_BOUNDS_NS)
    assert sum(syncs.counts) >= 1
    assert syncs.total > 0
    assert places[counters.JOURNAL_BLOCKS] == places[counters.DURABLE_BLOCK] + 1
    journal = sum(path.stat().st_size for path in (home.folder("journal") / "main").iterdir())
    assert places[counters.JOURNAL_OCTETS] == journal - HEADER_SIZE, "all but the header of the file"
    for listener in listeners:
        listener.socket.close()


def test_drops_are_counted_at_the_socket_where_they_happen(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    quiet, flooded = open_listeners([parse_listen("127.0.0.1:0"), parse_listen("127.0.0.1:0")], 1 << 16)
    receiver = Receiver(home, "main", [quiet, flooded], sync_ms=20)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(400):
            sender.sendto(bytes(1400), ("127.0.0.1", flooded.address.port))
    receiver.stop()
    receiver.run()
    places = counters.read_places(home, "main")
    drops = [int(places[counters.listener_at(number) + counters.LISTENER_DROPS]) for number in (0, 1)]
    assert drops[0] == 0
    assert drops[1] > 0
    assert drops[1] == places[counters.KERNEL_DROPS] == 400 - places[counters.RECEIVED]
    for listener in (quiet, flooded):
        listener.socket.close()


def test_totals_of_a_decoded_journal_are_those_of_its_segments(tmp_path: Path) -> None:
    home = make_home(tmp_path, "[time]\nskew_seconds_max = 0\n")
    (listener,) = open_listeners([parse_listen("127.0.0.1:0")], 1 << 18)
    receiver = Receiver(home, "main", [listener], sync_ms=20)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.9", 0))
        payloads = [ipfix(framed(256, basic(), basic()), sequence=0), ipfix(framed(2, template(256, BASIC)), sequence=2),
                    ipfix(framed(256, basic(octets=5)), sequence=12), b"garbage"]
        for payload in payloads:
            sender.sendto(payload, ("127.0.0.1", listener.address.port))
    receiver.stop()
    receiver.run()
    listener.socket.close()
    assert decode_available(home, "main") == 4
    with sql.reading(sql.engine(home)) as connection:
        found = totals.read(connection, 1000)
    one = next(row for row in found.exporters if row.protocol == "ipfix")
    wanted = {"received": 3, "flows": 3, "octets": 2005, "templates": 1, "data_records": 3, "waiting_sets": 1,
              "released_sets": 1, "missed": 10, "recovered": 0}
    assert {name: one.counts[name] for name in wanted} == wanted
    assert one.skew_ms is not None
    assert [(fault.exporter, fault.kind, fault.count) for fault in found.faults] == [("127.0.0.9", "version_unknown", 1)]
