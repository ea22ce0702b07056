"""Two collectors fed by one exporter, decoded as one: killed, one of them down, on their own again, or never put together."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from harness import ROOT, rows, run_cli
from live_collectors import LiveCollector, live_collector, make_home, wait_until
from twin_streams import Seen, missing_of, seen_by, stream, write_journal

from collector import counters, group, worker
from collector.segments import read_segment
from collector.settings import from_document
from core import tables
from core.errors import Locked
from storage import sql
from storage.home import Home

KILLS = 60 if os.environ.get("RATEMILL_NIGHTLY") else 12
SEED = int(os.environ.get("RATEMILL_SEED", "20261125"))
PAIR = """[time]
skew_seconds_max = 0
[collector]
segment_seconds = 1
socket_buffer = 4194304
[[collector_group]]
name = "pair"
members = ["a", "b"]
wait_seconds = 1
"""


def _octets(home: Home) -> list[int]:
    with sql.reading(sql.engine(home)) as connection:
        found = connection.execute(sa.select(tables.segment)).all()
    return sorted(octets for row in found for octets in read_segment(home, row).column("octets").to_pylist())


def _intake(home: Home, *names: str) -> list[int]:
    with sql.reading(sql.engine(home)) as connection:
        return [int(n or 0) for n in connection.execute(sa.select(*(sa.func.sum(tables.intake.c[n]) for n in names))).one()]


def _exporter(home: Home) -> dict[str, Any]:
    (row,) = rows(run_cli("exporters", "list", home=home.path))
    return row


# from journals --------------------------------------------------------------------------------------------------------
def _journals(home: Home, seed: int, count: int = 400) -> tuple[list[Any], list[Seen]]:
    source = random.Random(seed)
    sent = stream("ipfix", [source.randrange(1, 4) for _ in range(count)], 100)
    seen = [seen_by(sent, source, 0.2, ahead, 4, 0.05) for ahead in (0, 90)]
    for name, one in zip(("a", "b"), seen, strict=True):
        write_journal(home.folder("journal"), name, sent, one, source, block_max=20)
    return sent, seen


def _check(home: Home, sent: list[Any], seen: list[Seen]) -> None:
    have = seen[0].which | seen[1].which
    assert _octets(home) == sorted(sent[n].octets for n in have for _ in range(sent[n].records))
    datagrams, decoded, duplicate, twin, refused, faulted = _intake(
        home, "datagrams", "decoded", "duplicate", "twin", "refused", "faulted")
    assert datagrams == decoded + duplicate + twin == sum(len(one.arrived) for one in seen)
    assert (decoded, refused, faulted) == (len(have), 0, 0)
    assert _exporter(home)["missing"] == missing_of(sent, have)


def test_a_group_worker_killed_at_any_moment_decodes_the_union_exactly_once(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", PAIR)
    sent, seen = _journals(home, SEED)
    pair = from_document(home.document).groups[0]
    sql.engine(home)
    rehearsal = make_home(tmp_path / "rehearsal", PAIR)
    _journals(rehearsal, SEED)
    begun = time.monotonic()
    group.decode_group(rehearsal, pair)
    whole = time.monotonic() - begun
    rng = random.Random(SEED)

    def decode_in_steps(bodies: int) -> None:
        one = group.GroupWorker(home, pair)
        one.finish_without_waiting()
        while one.pump(bodies):
            one.commit()
        one.close()

    killed = 0
    for _ in range(KILLS):
        child = os.fork()
        if child == 0:
            sql.forget_engines()
            decode_in_steps(1)
            os._exit(0)
        time.sleep(rng.random() * whole)
        os.kill(child, signal.SIGKILL)
        killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    decode_in_steps(3)
    assert killed > 0, f"no child was killed in its work (seed {SEED})"
    _check(home, sent, seen)
    stored = {home.relative(path) for path in home.folder("segments").rglob("*.arrow")}
    with sql.reading(sql.engine(home)) as connection:
        assert stored == set(connection.scalars(sa.select(tables.segment.c.path))), "nothing else is left"
        sources = connection.execute(sa.select(tables.segment_source).order_by(tables.segment_source.c.segment_id)).all()
    for name, one in zip(("a", "b"), seen, strict=True):
        mine = [row for row in sources if row.collector == name]
        assert (mine[0].block_after, mine[0].datagrams_after) == (-1, 0)
        for before, after in pairwise(mine):
            assert (before.block_until, before.datagrams_until) == (after.block_after, after.datagrams_after)
        figures = counters.figures(home, name)
        assert figures.decoded == len(one.arrived)
    assert len(list(home.folder("run").glob("decoder-*.state"))) == 1


def test_two_workers_of_a_group_do_not_both_commit(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", PAIR)
    sent, seen = _journals(home, 3)
    pair = from_document(home.document).groups[0]
    one, other = group.GroupWorker(home, pair), group.GroupWorker(home, pair)
    for each in (one, other):
        each.finish_without_waiting()
        while each.pump():
            pass
    one.commit()
    with pytest.raises(Locked, match="decoded by another process"):
        other.commit()
    other.close()
    one.close()
    assert group.decode_group(home, pair) == 0
    _check(home, sent, seen)


def test_a_collector_that_was_alone_joins_a_group_and_leaves_it_again(tmp_path: Path) -> None:
    """Its template came before the group was made, and its next block is half decoded when it leaves."""
    home = make_home(tmp_path / "home", PAIR.split("[[")[0])
    source = random.Random(4)
    sent = stream("v5", [2] * 90, 0)
    write_journal(home.folder("journal"), "a", sent, Seen([(n, sent[n].at) for n in range(30)]), source, block_max=50)
    assert worker.decode_available(home, "a") == 30
    (home.path / "ratemill.toml").write_text(PAIR)
    home = Home(home.path)
    pair = from_document(home.document).groups[0]
    write_journal(home.folder("journal"), "a", sent, Seen([(n, sent[n].at) for n in range(30, 60)]), source, block_max=9)
    write_journal(home.folder("journal"), "b", sent, Seen([(n, sent[n].at) for n in range(20, 45)]), source)
    one = group.GroupWorker(home, pair)  # not told that nobody receives: it goes no further than b has come
    while one.pump():
        pass
    one.commit()
    one.close()
    assert _intake(home, "decoded", "twin") == [60, 25], "all are old enough not to wait"
    with sql.transaction(sql.engine(home)) as connection:
        position = tables.decoder_position
        connection.execute(position.update().where(position.c.collector == "a").values(datagrams=0))
    write_journal(home.folder("journal"), "a", sent, Seen([(n, sent[n].at) for n in range(60, 90)]), source, block_max=31)
    (home.path / "ratemill.toml").write_text(PAIR.split("[[")[0])
    with sql.transaction(sql.engine(home)) as connection:  # as if the group had begun the block
        connection.execute(position.update().where(position.c.collector == "a").values(datagrams=1))
    assert worker.decode_available(Home(home.path), "a") == 29
    assert _octets(home) == sorted(sent[n].octets for n in range(90) if n != 60 for _ in range(2))


# live -----------------------------------------------------------------------------------------------------------------
class Router:
    """Sends the same datagrams to two collectors, from one address, and loses some on the way to each."""

    def __init__(self, seed: int) -> None:
        self._source = random.Random(seed)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.9", 0))
        self.sent = stream("ipfix", [1 + n % 3 for n in range(3000)], 0, begin=int(time.time() * 1000))
        self.next = 0
        self.have: set[int] = set()

    def send(self, count: int, *targets: LiveCollector, loss: float = 0.15) -> list[int]:
        """How many went to each."""
        went = [0] * len(targets)
        for n in range(self.next, self.next + count):
            for place, target in enumerate(targets):
                if self._source.random() >= loss:
                    self._socket.sendto(self.sent[n].payload, ("127.0.0.1", target.port))
                    went[place] += 1
                    self.have.add(n)
            if n % 20 == 0:
                time.sleep(0.005)
        self.next += count
        return went

    def close(self) -> None:
        self._socket.close()


def _decoded(home: Home, name: str) -> int:
    return counters.figures(home, name).decoded


def test_either_collector_may_die_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", PAIR)
    router = Router(11)
    total = 0
    a = LiveCollector(home, "a")
    with live_collector(home, "b") as b:
        assert a.status()["decodes"], "the first one decodes"
        assert not b.status()["decodes"]
        total += sum(router.send(400, a, b))
        wait_until(lambda: _decoded(home, "a") > 0 and _decoded(home, "b") > 0, "both are decoded")
        (told,) = rows(run_cli("collect", "status", home=home.path))[0]["groups"]
        assert told["group"] == "pair"
        wait_until(lambda: counters.figures(home, "a").durable + counters.figures(home, "b").durable == total, "all is durable")
        a.kill()
        total += sum(router.send(300, b))
        wait_until(lambda: b.status()["decodes"], "the other one takes over")
        wait_until(lambda: _decoded(home, "a") + _decoded(home, "b") == total, "with what the dead one had received")
        with live_collector(home, "a") as again:
            total += sum(router.send(300, again, b))
            wait_until(lambda: counters.figures(home, "a").durable + counters.figures(home, "b").durable == total, "durable")
            b.kill()
            total += sum(router.send(200, again))
            assert again.stop()[0] == 0
    router.close()
    have = router.have
    assert _octets(home) == sorted(router.sent[n].octets for n in have for _ in range(router.sent[n].records))
    datagrams, decoded, twin, faulted, refused = _intake(home, "datagrams", "decoded", "twin", "faulted", "refused")
    assert (datagrams, decoded, faulted, refused) == (total, len(have), 0, 0)
    assert datagrams == decoded + twin
    exporter = _exporter(home)
    assert (exporter["missing"], exporter["restarts"], exporter["received"]) == (missing_of(router.sent, have), 0, len(have))
    (told,) = rows(run_cli("collect", "status", home=home.path))[0]["groups"]
    by_name = {member["collector"]: member for member in told["members"]}
    assert by_name["a"]["datagrams"] + by_name["b"]["datagrams"] == total
    assert by_name["a"]["first"] + by_name["b"]["first"] == len(have)
    assert by_name["a"]["filled"] == len(have) - by_name["a"]["datagrams"]
    _balances_close(home)


def _balances_close(home: Home) -> None:
    period = time.strftime("%Y-%m", time.gmtime())
    found = {row["balance"]: row for row in rows(run_cli("reconcile", period, home=home.path, check=None))}
    assert found["datagrams"]["difference"] == found["records"]["difference"] == 0
    assert found["datagrams"]["losses"]["twin"] > 0


def _decoder(home: Home) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "cli", "--home", str(home.path), "collect", "decode", "pair"], cwd=ROOT)


def test_receivers_only_and_a_decoder_of_its_own(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", PAIR)
    router = Router(12)
    assert "is in no [[collector_group]]" in run_cli("collect", "run", "--receive-only", home=home.path, check=2).stderr
    assert "there is no group" in run_cli("collect", "decode", "nobody", home=home.path, check=2).stderr
    assert "is a group" in run_cli("collect", "run", "--collector", "pair", home=home.path, check=2).stderr
    with live_collector(home, "a", "--receive-only") as a, live_collector(home, "b", "--receive-only") as b:
        sent = sum(router.send(200, a, b))
        assert [one.status()["decodes"] for one in (a, b)] == [False, False]
        decoder = _decoder(home)
        wait_until(lambda: _decoded(home, "a") + _decoded(home, "b") == sent, "it decodes", 120)
        decoder.kill()
        decoder.wait()
        sent += sum(router.send(200, a, b))
        decoder = _decoder(home)
        wait_until(lambda: _decoded(home, "a") + _decoded(home, "b") == sent, "and the next one goes on", 120)
        assert (a.stop()[0], b.stop()[0]) == (0, 0)
        decoder.send_signal(signal.SIGTERM)
        assert decoder.wait(60) == 0
    router.close()
    have = router.have
    assert _octets(home) == sorted(router.sent[n].octets for n in have for _ in range(router.sent[n].records))
    assert _exporter(home)["missing"] == missing_of(router.sent, have)


def test_two_collectors_that_are_no_group_are_warned_of(tmp_path: Path) -> None:
    alone = PAIR.split("[[")[0]
    home = make_home(tmp_path / "home", alone)
    source = random.Random(9)
    sent = stream("v5", [2] * 60, 0)
    for name, first in (("a", 0), ("b", 0), ("c", 60)):
        some = sent if first == 0 else stream("v5", [2] * 60, 999, begin=sent[-1].at + 3_600_000)
        write_journal(home.folder("journal"), name, some, Seen([(n, one.at) for n, one in enumerate(some)]), source)
        worker.decode_available(home, name)
    period = time.strftime("%Y-%m", time.gmtime(sent[0].at / 1000))
    told = "exporter 192.0.2.1, domain 0, is decoded by 'a' and 'b' between 2026-09-21T"
    assert told in run_cli("exporters", "list", home=home.path).stderr
    assert told in run_cli("reconcile", period, home=home.path, check=None).stderr
    checked = rows(run_cli("config", "check", home=home.path))[0]["warnings"]
    assert [sentence for sentence in checked if "[[collector_group]]" in sentence] == [
        next(sentence for sentence in checked if sentence.startswith(told))]
    (home.path / "ratemill.toml").write_text(PAIR)
    for words in (("exporters", "list"), ("reconcile", period)):
        assert "is decoded by" not in run_cli(*words, home=home.path, check=None).stderr


def test_wrong_groups_are_refused_by_name(tmp_path: Path) -> None:
    for text, said in (('members = ["a"]', "2 to 8 names"), ('members = ["a", "a"]', "names a collector twice"),
                       ('members = ["a", "pair"]', "'pair' is named twice"),
                       ('members = ["a", "b"]\nlate_seconds = 5', "late_seconds must be above clock_seconds")):
        home = make_home(tmp_path / "home", f'[[collector_group]]\nname = "pair"\n{text}\n')
        assert said in run_cli("config", "check", home=home.path, check=1).stdout
