"""`collect status --watch`: rates between looks, and a screen that says what is wrong in 80 columns without colour."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from collector import counters, totals, watch_screen
from collector.commits import write_exporters
from collector.settings import Collector
from collector.state import ExporterRow
from collector.totals import ExporterTotal
from collector.watch import CollectorView, ExporterView, ListenerView, View, Watch, missing_percent
from core import clock
from core.addresses import parse_address
from core.periods import format_instant
from runtime.jobs import process_started
from storage import sql
from storage.home import Home

NOW = 1_790_000_000_000


@pytest.fixture
def moving_clock() -> Iterator[clock.SimulatedClock]:
    simulated = clock.SimulatedClock(NOW)
    before = clock.use(simulated)
    yield simulated
    clock.use(before)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "ratemill.toml").write_text("")
    made = Home(tmp_path)
    made.create()
    pid = os.getpid()
    (made.folder("run") / "collector-main.json").write_text(json.dumps({
        "collector": "main", "state": "running", "pid": pid, "pid_started": process_started(pid), "receiver_pid": pid,
        "listeners": [{"address": "127.0.0.1:2055", "buffer": 1}], "trouble": "", "at": format_instant(NOW)}))
    return made


def store(home: Home, *rows: ExporterRow, flows: int = 0) -> None:
    intake = [{"exporter": row.exporter, "domain": row.domain, "export_protocol": row.protocol,
               **dict.fromkeys(totals.INTAKE_COUNTS, 0), "flows": flows, "data_records": flows} for row in rows]
    with sql.transaction(sql.engine(home)) as connection:
        write_exporters(connection, "main", rows)
        totals.add(connection, "main", intake, [], {}, {})


def router(received: int, last: int, missing: int = 0, number: int = 1, first: int = NOW) -> ExporterRow:
    return ExporterRow(parse_address(f"192.0.2.{number}"), 0, 9, received, missing, 0, 0, 0, 0, 0, first, last)


# rates ----------------------------------------------------------------------------------------------------------------
def test_rates_are_between_two_looks(home: Home, moving_clock: clock.SimulatedClock) -> None:
    places = counters.open_counters(home, "main")
    watch = Watch(home)
    places[counters.RECEIVED] = 1000
    (first,) = watch.look().collectors
    assert (first.received_per_second, first.flows_per_second, first.kernel_drops_per_second) == (None, None, None)
    places[counters.RECEIVED], places[counters.OCTETS], places[counters.KERNEL_DROPS] = 1500, 80_000, 5
    places[counters.worker_at(0) + counters.WORKER_FLOWS] = 4000
    places[counters.worker_at(1) + counters.WORKER_FLOWS] = 1000
    moving_clock.advance_ms(2500)
    view = watch.look()
    (second,) = view.collectors
    assert view.seconds == 2.5
    assert (second.received_per_second, second.octets_per_second) == (200, 32_000)
    assert (second.flows_per_second, second.kernel_drops_per_second) == (2000, 2)


def test_an_exporters_rate_is_of_its_own_datagrams_and_stays_until_the_next_commit(
        home: Home, moving_clock: clock.SimulatedClock) -> None:
    store(home, router(100, NOW))
    watch = Watch(home)

    def look() -> ExporterView:
        moving_clock.advance_ms(10_000)
        (one,) = watch.look().exporters or []
        return one

    assert look().datagrams_per_second is None
    store(home, router(600, NOW + 10_000, missing=3), flows=2000)
    one = look()
    assert (one.datagrams_per_second, one.flows_per_second, one.loses) == (50, 200, True)
    one = look()
    assert (one.datagrams_per_second, one.loses) == (50, False), "nothing new was committed"
    moving_clock.advance_ms((2 * Collector().segment_seconds + 10) * 1000)
    assert look().datagrams_per_second == 0, "silent"


def test_an_exporter_that_is_new_has_a_rate_at_once(home: Home, moving_clock: clock.SimulatedClock) -> None:
    watch = Watch(home)
    assert watch.look().exporters == []
    moving_clock.advance_ms(10_000)
    store(home, router(300, NOW + 10_000, first=NOW + 4000))
    (one,) = watch.look().exporters or []
    assert one.datagrams_per_second == 50


def test_the_busiest_exporter_comes_first(home: Home, moving_clock: clock.SimulatedClock) -> None:
    store(home, router(1, NOW, number=1), router(1, NOW, number=2), router(1, NOW, number=3))
    watch = Watch(home)
    watch.look()
    moving_clock.advance_ms(10_000)
    store(home, router(11, NOW + 10_000, number=1), router(1001, NOW + 10_000, number=2), router(101, NOW + 10_000, number=3))
    assert [one.exporter for one in watch.look().exporters or []] == ["192.0.2.2", "192.0.2.3", "192.0.2.1"]


@pytest.mark.parametrize(("protocol", "share"), [("v9", 20), ("sflow", 20), ("v5", 25), ("v7", 25), ("ipfix", 100 / 6)])
def test_the_share_that_is_missing_is_of_what_was_sent(protocol: str, share: float) -> None:
    counts = dict.fromkeys((*totals.STATE_COUNTS, *totals.COUNTS), 0) | {
        "received": 90, "duplicate": 10, "missing": 20, "data_records": 60, "options_records": 40}
    found = missing_percent(ExporterTotal("main", "192.0.2.1", "0", protocol, counts, 0, 0, None))
    assert found == pytest.approx(share)


def test_without_sequence_numbers_nothing_is_said_to_be_missing() -> None:
    counts = dict.fromkeys((*totals.STATE_COUNTS, *totals.COUNTS), 5)
    assert missing_percent(ExporterTotal("main", "192.0.2.1", "0", "v1", counts, 0, 0, None)) is None


# the screen -----------------------------------------------------------------------------------------------------------
def collector(**more: Any) -> CollectorView:
    plain: dict[str, Any] = {
        "collector": "main", "state": "running", "running": True, "pid": 4711, "trouble": "",
        "listeners": [ListenerView("0.0.0.0:2055", 1, 0, 1000, 20), ListenerView("[::]:2055", 1, 0, 1000, 890)],
        "received": 123_456_789, "durable": 1, "decoded": 1, "flows": 9_876_543_210, "kernel_drops": 3, "refused": 0, "lost": 0,
        "not_durable": 12, "lag_datagrams": 3456, "lag_blocks": 7, "lag_seconds": 8.4, "journal_octets": 5 * 2**30,
        "received_per_second": 123_456.0, "octets_per_second": 1.7e8, "flows_per_second": 3_200_000.0,
        "kernel_drops_per_second": 0.0}
    return CollectorView(**(plain | more))


def exporter(number: int, **more: Any) -> ExporterView:
    plain: dict[str, Any] = {
        "collector": "main", "exporter": f"2001:db8:ffff:ffff:ffff:ffff:ffff:{number:x}", "domain": "4294967295",
        "protocol": "ipfix", "received": 9, "missing": 1_234_567, "missing_percent": 100.0, "loses": True, "duplicate": 0,
        "waiting": 65_536, "faulted": 99_999, "last": NOW - 3_600_000, "datagrams_per_second": 123_456.0,
        "flows_per_second": 3_123_456.0}
    return ExporterView(**(plain | more))


def shown(view: View, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, no_color=True, force_terminal=False)
    console.print(watch_screen.screen(view, 2, width, height))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in text
    return [line.rstrip() for line in text.splitlines()]


def test_the_longest_figures_fit_into_80_columns() -> None:
    view = View(NOW, 2.0, [collector()], [exporter(n) for n in range(3)], 40 * 2**30, 100 * 2**30)
    lines = shown(view)
    assert max(len(line) for line in lines) <= 80
    table = [line for line in lines if line.startswith("2001:db8")]
    assert len(table) == 3
    for line in table:
        assert line.split()[1:] == ["4294967295", "ipfix", "123k", "3.12M", "!1.23M", "100.0", "65536", "99999", "60m"]


def test_the_figures_of_a_collector_are_all_there() -> None:
    text = "\n".join(shown(View(NOW, 2.0, [collector()], [], 40 * 2**30, 100 * 2**30)))
    for part in ("123k datagrams/s", "162.1 MiB/s", "3.2M flows/s", "3 456 datagrams, 7 blocks, oldest 8s", "kernel 3",
                 "89 % in use", "40.0 GiB free (40 %)", "journal 5.0 GiB", "0.0.0.0:2055 [::]:2055"):
        assert part in text, part
    assert "!" not in text, "nothing is wrong"


@pytest.mark.parametrize(("more", "mark"), [
    ({"state": "killed", "running": False}, "! killed"),
    ({"kernel_drops_per_second": 4.0}, "! kernel 3"),
    ({"refused": 5}, "! disk 5"),
    ({"trouble": "the database is locked"}, "! decoding waits: the database is locked"),
])
def test_what_is_wrong_has_a_mark_besides_its_colour(more: dict[str, Any], mark: str) -> None:
    assert mark in "\n".join(shown(View(NOW, 2.0, [collector(**more)], [], None, None)))


def test_more_exporters_than_lines_are_said_to_be_more() -> None:
    view = View(NOW, 2.0, [collector()], [exporter(n, exporter=f"192.0.2.{n}") for n in range(200)], 1, 2)
    lines = shown(view, height=30)
    assert len(lines) <= 30
    table = [line for line in lines if line.startswith("192.0.2.")]
    assert lines[-1].startswith(f"and {200 - len(table)} more")


def test_as_many_exporters_as_lines_are_all_shown() -> None:
    def look(count: int) -> list[str]:
        exporters = [exporter(n, exporter="192.0.2.1") for n in range(count)]
        return shown(View(NOW, 2.0, [collector()], exporters, 1, 2), height=30)

    def rows(lines: list[str]) -> int:
        return sum(line.startswith("192.0.2.") for line in lines)

    fitting = rows(look(200)) + 1
    assert rows(look(fitting)) == fitting
    assert not look(fitting)[-1].startswith("and ")
    assert look(fitting + 1)[-1] == "and 2 more: `ratemill exporters list`"


def test_a_home_without_a_collector_says_what_to_do() -> None:
    assert "ratemill collect run" in "\n".join(shown(View(NOW, None, [], [], None, None)))
    assert "no collector" in watch_screen.plain(View(NOW, None, [], [], None, None))


def test_a_database_that_can_not_be_read_is_said() -> None:
    assert "! the database can't be read" in "\n".join(shown(View(NOW, 2.0, [collector()], None, 1, 2)))


def test_a_line_has_no_cursor_movements() -> None:
    line = watch_screen.plain(View(NOW, 2.0, [collector(trouble="no space")], [], 2**30, 2**31))
    assert "\x1b" not in line
    assert line.count("\n") == 0
    for part in ("main: running", "received/s 123k", "kernel drops 3", "trouble: no space"):
        assert part in line


@pytest.mark.parametrize("value", [0, 9, 99_999, 100_000, 999_499, 999_500, 10**9 - 1, 2**63 - 1])
def test_a_short_count_is_short_and_right(value: int) -> None:
    text = watch_screen._short(value)
    assert len(text) <= 6
    scale = {"k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}.get(text[-1], 0)
    number = float(text.rstrip("kMGTPE")) * 10**scale
    assert np.isclose(number, value, rtol=0.006)
