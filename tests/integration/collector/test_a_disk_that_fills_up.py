"""A real small file system that fills up: receiving goes on the longest, what is refused is counted, SQL still commits."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import packets
import pytest
import sqlalchemy as sa
from harness import rows, run_cli
from live_collectors import live_collector, make_home, wait_until

from collector import counters, worker
from collector.disk import Watch, settled
from collector.receiver import Receiver, open_listeners, parse_listen
from core import tables
from core.errors import RatemillError
from storage import space, sql
from storage.home import Home
from storage.space import DiskLow, Level, Limits, Space

MB = 10**6
RESERVE, WARNING = 8 * MB, 24 * MB
SETTINGS = f"""[time]
skew_seconds_max = 0
[collector]
segment_seconds = 1
socket_buffer = 4194304
disk_reserve = {RESERVE}
disk_warning = {WARNING}
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this user may not mount a small file system: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Ballast:
    """A file that takes space from the others."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / "ballast"

    def leave(self, octets: int) -> None:
        """Make it so large that about so much stays free."""
        self._path.unlink(missing_ok=True)
        with self._path.open("wb") as file:
            rest = Limits().look(self._folder).free - octets
            while rest > 0:
                rest -= file.write(bytes(min(rest, MB)))

    def free(self) -> None:
        self._path.unlink(missing_ok=True)


def _sums(home: Home, *names: str) -> list[int]:
    with sql.reading(sql.engine(home)) as connection:
        return [int(n or 0) for n in connection.execute(sa.select(*(sa.func.sum(tables.intake.c[n]) for n in names))).one()]


# levels ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("free", "level"), [
    (100, Level.OK), (40, Level.OK), (39, Level.LOW), (20, Level.LOW), (19, Level.JOURNAL_ONLY), (10, Level.JOURNAL_ONLY),
    (9, Level.FULL), (0, Level.FULL)])
def test_levels_follow_what_is_free(free: int, level: Level) -> None:
    assert Space(free, reserve=10, warning=40).level == level


def test_a_level_is_left_for_a_better_one_with_a_margin_only() -> None:
    assert settled(Space(159, 160, 640), Level.JOURNAL_ONLY) == Level.FULL
    assert settled(Space(165, 160, 640), Level.FULL) == Level.FULL
    assert settled(Space(170, 160, 640), Level.FULL) == Level.JOURNAL_ONLY
    assert settled(Space(1000, 160, 640), Level.FULL) == Level.OK


def test_the_default_reserve_is_a_gibibyte_or_a_twentieth_of_a_small_disk(disk: Path) -> None:
    found = Limits().look(disk)
    assert found.reserve == 64 * 2**20 // 20
    assert found.warning == 4 * found.reserve
    large = Limits().look(Path("/proc/self").resolve())  # a file system without blocks: no reserve at all
    assert (large.reserve, large.level) == (0, Level.OK)
    assert Limits(5, 7).look(disk).warning == 10, "a warning comes before decoding waits"


def test_a_reserve_of_nothing_and_a_wrong_one_are_told_apart(tmp_path: Path) -> None:
    assert space.limits({"collector": {"disk_reserve": 0}}).reserve == 0
    assert space.limits({}).reserve is None
    home = make_home(tmp_path / "home", "[collector]\ndisk_reserve = -1\n")
    assert "less than the lowest allowed" in run_cli("config", "check", home=home.path, check=1).stdout


# receiving ------------------------------------------------------------------------------------------------------------
def _receive(receiver: Receiver, work: Any) -> RatemillError | None:
    failure: list[RatemillError] = []

    def run() -> None:
        try:
            receiver.run()
        except RatemillError as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        work()
    finally:
        receiver.stop()
        thread.join()
    return failure[0] if failure else None


def test_the_journal_stops_at_the_reserve_and_goes_on_by_itself(disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    home = make_home(disk / "home", SETTINGS)
    sql.engine(home)
    ballast = Ballast(disk)
    (listener,) = open_listeners([parse_listen("127.0.0.1:0")], 1 << 22)
    receiver = Receiver(home, "main", [listener], sync_ms=5)
    address = ("127.0.0.1", listener.address.port)

    def figures() -> counters.Figures:
        return counters.figures(home, "main")

    def level() -> str:
        return counters.disk_of(counters.read_places(home, "main")).level

    def work() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            def send_one() -> None:
                before = figures().received
                sender.sendto(b"x" * 1000, address)
                wait_until(lambda: figures().received > before, "it is received")

            send_one()
            wait_until(lambda: figures().durable == 1, "it is durable")
            for left, expected in ((WARNING - MB, "low"), (RESERVE + MB, "journal_only")):
                ballast.leave(left)
                send_one()
                wait_until(lambda wanted=expected: figures().durable == figures().received and level() == wanted, expected)
            ballast.leave(RESERVE - MB)
            while figures().refused == 0:
                send_one()
            assert level() == "full"
            assert Limits(0, 0).look(disk).free > RESERVE - 2 * MB, "the reserve is there"
            _commits_sql(home)
            ballast.free()
            send_one()
            wait_until(lambda: figures().durable + figures().refused == figures().received, "everything goes on")
            wait_until(lambda: level() == "ok", "it is said")

    assert _receive(receiver, work) is None
    listener.socket.close()
    found = figures()
    assert found.received == found.durable + found.refused
    assert found.lost == 0
    worker.decode_available(home, "main")
    datagrams, decoded, faulted, refused = _sums(home, "datagrams", "decoded", "faulted", "refused")
    assert (datagrams, refused) == (found.received, found.refused)
    assert datagrams == decoded + faulted + refused
    said = capfd.readouterr().err
    for sentence in ("is filling up", "decoding waits", "datagrams are refused", "has space again", "can be written again"):
        assert said.count(sentence) == 1, said
    assert f"reserve={RESERVE}" in said


def _commits_sql(home: Home) -> None:
    """A thousand rows fit into the reserve."""
    with sql.transaction(sql.engine(home)) as connection:
        connection.execute(tables.manifest_version.insert(),
                           [{"at": n, "kind": "test", "detail": "x" * 100} for n in range(1000)])


# everything together --------------------------------------------------------------------------------------------------
def _burst(port: int, first: int, count: int) -> int:
    """v5 datagrams of 30 records; returns the octets of their flows."""
    flow = packets.Flow("8.8.8.8", "10.0.0.1", "2026-10-05T10:00:00Z", "2026-10-05T10:00:00Z", 77)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(first, first + count):
            sender.sendto(packets.v5([flow] * 30, "2026-10-05T10:01:00Z", number * 30), ("127.0.0.1", port))
    return 77 * 30 * count


def test_decoding_waits_before_the_journal_does_and_both_go_on_by_themselves(disk: Path) -> None:
    home = make_home(disk / "home", SETTINGS)
    ballast = Ballast(disk)
    with live_collector(home) as one:
        def figures() -> counters.Figures:
            return counters.figures(home, "main")

        octets = _burst(one.port, 0, 100)
        wait_until(lambda: figures().decoded == 100, "the first are decoded")
        ballast.leave(2 * RESERVE - 2 * MB)
        wait_until(lambda: one.status()["disk"]["decode_paused"], "decoding waits")
        octets += _burst(one.port, 100, 100)
        wait_until(lambda: figures().durable == 200, "the journal goes on")
        assert figures().decoded == 100
        status = rows(run_cli("collect", "status", home=home.path))[0]
        assert (status["disk"]["level"], status["disk"]["reserve"]) == ("journal_only", RESERVE)
        assert "decoding waits" in status["collectors"][0]["trouble"]
        wait_until(lambda: any("datagrams are taken, decoding waits" in problem
                               for problem in rows(run_cli("status", home=home.path))[0]["problems"]),
                   "the status, which is written each second, says so")
        _other_writers_wait(home)
        ballast.free()
        wait_until(lambda: figures().decoded == 200, "everything goes on")
        wait_until(lambda: one.status()["trouble"] == "" and one.status()["disk"]["level"] == "ok", "and says so")
        code, said = one.stop()
    assert code == 0
    assert said.count("decoding waits, the rest is for datagrams") == 1
    assert said.count("decoding goes on") == 1
    assert _sums(home, "datagrams", "decoded", "refused", "flow_records") == [200, 200, 0, 6000]
    with sql.reading(sql.engine(home)) as connection:
        assert connection.scalar(sa.select(sa.func.sum(tables.segment.c.octets))) == octets
    assert "0" in run_cli("aggregate", "run", home=home.path).stdout, "the others work again"


def _other_writers_wait(home: Home) -> None:
    refused = run_cli("aggregate", "run", home=home.path, check=1)
    assert "`aggregate run` waits" in refused.stderr
    assert "it goes on by itself" in refused.stderr
    assert "is filling up" in run_cli("config", "check", home=home.path).stdout
    with pytest.raises(DiskLow):
        space.require(home.folder("segments"), home.document, "a test")


def test_a_collector_that_starts_on_a_full_disk_says_so_and_ends_with_code_1(disk: Path) -> None:
    home = make_home(disk / "home", SETTINGS)
    sql.engine(home)
    ballast = Ballast(disk)
    ballast.leave(RESERVE - MB)
    with live_collector(home) as one:
        assert one.status()["disk"]["level"] == "full"
        _burst(one.port, 0, 5)
        wait_until(lambda: counters.figures(home, "main").received == 5, "they are received")
        code, said = one.stop()
    assert code == 1
    assert "could not be written to the journal" in said or "not everything received is decoded" in said
    figures = counters.figures(home, "main")
    assert (figures.received, figures.refused, figures.durable) == (5, 5, 0)
    ballast.free()
    with live_collector(home) as one:
        _burst(one.port, 5, 1)
        wait_until(lambda: counters.figures(home, "main").decoded == 1, "the next run goes on")
        assert one.stop()[0] == 0
    assert _sums(home, "datagrams", "decoded", "refused") == [6, 1, 5]


def test_a_watch_of_a_folder_that_is_gone_does_not_stop_the_journal(tmp_path: Path) -> None:
    places = counters.open_counters(make_home(tmp_path / "home"), "main")
    watch = Watch(tmp_path / "nowhere", {}, places)
    assert watch.look() is None
    watch.require_reserve()
