"""`storage repair`: whatever a disk does to segments, lake, cells and generations is made again from what is left, to the
octet; what can't be is named with what is lost, and nothing is deleted."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import packets
import pytest
import sqlalchemy as sa
from damage import empty, flip, shorten
from harness import ROOT, rows, run_cli
from packets import Flow
from running_collector import running
from stream_home import make_home, wait_until

import cli
from collector import compaction, counters
from collector.exporter.commands import random_flows
from collector.exporter.send import parse_target, send_flows
from core import clock, tables
from core.actor import Actor
from core.periods import format_instant
from monitoring import storage_check, storage_repair
from monitoring.storage_repair import LOST, REPAIRABLE, REPAIRED, Step
from storage import sql
from storage.home import Home

ACTOR = Actor("test", "a test")
KILLS = 200 if os.environ.get("RATEMILL_NIGHTLY") else 5
SETTINGS = ('[seller]\ntimezone = "Europe/Berlin"\n[[tax]]\ncategory = "standard"\npercent = "19"\nfrom = 2021-01-01\n'
            "[aggregation]\nbatch_flows_max = 1\nmerge_batches_min = 1000\n")
SUBSCRIBERS = "account,name,kind,email,phone,address,contract,service,plan,start,end,timezone,currency\n" + "".join(
    f"A{n},Name,person,,,,C{n},S{n},,2026-01-01,,Europe/Berlin,EUR\n" for n in range(20))
LEASES = "realm,address,protocol,port_first,port_last,start,end,service\n" + "".join(
    f",10.0.0.{n},,,,2026-01-01T00:00:00Z,,S{n}\n" for n in range(20))
REPLAYS = 3


def quietly(*words: str) -> None:
    assert cli.run(list(words)) == 0, words


def capture(folder: Path, number: int) -> Path:
    """IPFIX whose template comes late, v5, and copies of both."""
    rng = random.Random(number)
    datagrams: list[tuple[str, str, bytes]] = []
    for count in range(60):
        at = f"2026-10-{3 + number:02d}T{count // 3:02d}:{rng.randrange(60):02d}:00Z"
        begin = packets.ms(at) - 60_000
        flows = [Flow("8.8.8.8", f"10.0.0.{rng.randrange(25)}", format_instant(begin - rng.randrange(600_000)),
                      format_instant(begin), rng.randrange(1, 10**9), rng.randrange(1, 1000)) for _ in range(20)]
        sets = [packets.ipfix_data(flows)] + ([packets.ipfix_template()] if count == 20 else [])
        payload = packets.v5(flows, at, count * 20) if count % 2 else packets.ipfix(sets, at, count * 20)
        datagrams += [(at, f"192.0.2.{count % 2 + 1}", payload)] * (1 + (count % 7 == 0))
    return packets.pcap(folder / f"part-{number}.pcap", datagrams)


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of some replays: a segment and a batch each, and a generation."""
    folder = tmp_path_factory.mktemp("replayed")
    home = folder / "home"
    quietly("--home", str(home), "init")
    (home / "ratemill.toml").write_text(SETTINGS)
    (folder / "s.csv").write_text(SUBSCRIBERS)
    (folder / "l.csv").write_text(LEASES)
    quietly("--home", str(home), "subscribers", "import", str(folder / "s.csv"))
    quietly("--home", str(home), "leases", "import", str(folder / "l.csv"))
    for number in range(REPLAYS):
        quietly("--home", str(home), "collect", "replay", str(capture(folder, number)))
    quietly("--home", str(home), "aggregate", "run")
    quietly("--home", str(home), "usage", "publish")
    sql.forget_engines()
    return home


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of a `collect run` with a segment a second; templates come with the first flows of each exporter."""
    home = make_home(tmp_path_factory.mktemp("collected") / "home", "[collector]\nsegment_seconds = 1\n")
    with running(home) as one:
        for seed in range(1, 5):
            before = counters.figures(home, "main").decoded
            send_flows(random_flows(1500, seed % 2, "ipfix", clock.now_ms()), "ipfix",
                       parse_target(f"127.0.0.1:{one.ports[0]}"), source="127.0.0.2", rate=2000)
            wait_until(lambda before=before: counters.figures(home, "main").decoded > before)
        assert one.stop() == 0
    sql.forget_engines()
    return home.path


def copy_of(home: Path, tmp_path: Path, name: str = "home") -> Home:
    shutil.copytree(home, tmp_path / name)
    return Home(tmp_path / name)


def named(home: Home, kind: str) -> list[Path]:
    table = {"segment": tables.segment, "cells": tables.cell_file, "lake": tables.lake_file}[kind]
    with sql.reading(sql.engine(home)) as connection:
        return [home.path / path for path in connection.scalars(sa.select(table.c.path).order_by(table.c.id))]


def problems(home: Home) -> list[storage_check.Found]:
    return list(storage_check.verify(home, storage_check.Verified()))


def repaired(home: Home, dry_run: bool = False) -> list[Step]:
    return list(storage_repair.repair(home, ACTOR, storage_repair.Done(), dry_run=dry_run))


STORED = ("segments", "cells", "lake", "journal", "generations")


def contents(home: Home) -> dict[str, bytes]:
    return {home.relative(path): path.read_bytes() for name in STORED for path in sorted(home.folder(name).rglob("*"))
            if path.is_file()}


def rows_of(home: Home) -> dict[str, list[Any]]:
    """All rows of the database but those of the audit trail and of leases of jobs."""
    with sql.reading(sql.engine(home)) as connection:
        return {table.name: list(connection.execute(sa.select(table))) for table in tables.metadata.sorted_tables
                if table.name not in ("audit", "job_lease")}


def audited(home: Home) -> list[str]:
    with sql.reading(sql.engine(home)) as connection:
        return list(connection.scalars(sa.select(tables.audit.c.subject).where(tables.audit.c.action == "storage repair")))


# damage ---------------------------------------------------------------------------------------------------------------
def lose(path: Path, _: Path) -> None:
    path.unlink()


def swap(path: Path, other: Path) -> None:
    aside = path.rename(path.with_suffix(".aside"))
    other.rename(path)
    aside.rename(other)


DAMAGES = (flip, shorten, empty, lose, swap)
Damage = Callable[[Path, Path], None]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["segment", "cells"])
def test_replayed_homes_are_mended_to_the_octet(replayed: Path, tmp_path: Path, kind: str, damage: Damage) -> None:
    home = copy_of(replayed, tmp_path)
    paths = named(home, kind)
    assert len(paths) >= REPLAYS
    before, rows_before = contents(home), rows_of(home)
    damage(paths[0], paths[-1])
    expected = {home.relative(path) for path in ([paths[0], paths[-1]] if damage is swap else paths[:1])}
    damaged = contents(home)
    would = repaired(home, dry_run=True)
    assert contents(home) == damaged, "a dry run changes nothing"
    assert rows_of(home) == rows_before
    assert {(step.path, step.result) for step in would} == {(path, REPAIRABLE) for path in expected}
    assert {(step.path, step.result) for step in repaired(home)} == {(path, REPAIRED) for path in expected}
    assert contents(home) == before
    assert rows_of(home) == rows_before
    assert set(audited(home)) == expected
    assert problems(home) == []
    assert repaired(home) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_collected_segments_are_mended_to_the_octet(collected: Path, tmp_path: Path, damage: Damage) -> None:
    home = copy_of(collected, tmp_path)
    paths = named(home, "segment")
    assert len(paths) >= 3
    before, rows_before = contents(home), rows_of(home)
    damage(paths[-1], paths[1])
    assert {step.result for step in repaired(home)} == {REPAIRED}
    assert contents(home) == before
    assert rows_of(home) == rows_before
    assert problems(home) == []


def test_everything_lost_at_once_is_mended_in_order(replayed: Path, tmp_path: Path) -> None:
    home = copy_of(replayed, tmp_path)
    before = contents(home)
    for path in [*named(home, "segment"), *named(home, "cells")]:
        path.unlink()
    generation = next(home.folder("generations").glob("*.duckdb"))
    flip(generation, generation)
    assert {step.result for step in repaired(home)} == {REPAIRED}
    assert problems(home) == []
    after = contents(home)
    assert {path: after[path] for path in before if path.startswith(("segments", "cells"))} == {
        path: data for path, data in before.items() if path.startswith(("segments", "cells"))}
    assert len(list(home.folder("generations").glob("*.duckdb"))) == 2, "published anew; nothing was deleted"


def test_a_changed_compression_does_not_matter(replayed: Path, tmp_path: Path) -> None:
    home = copy_of(replayed, tmp_path)
    before = contents(home)
    settings = home.path / "ratemill.toml"
    settings.write_text(settings.read_text() + '[collector]\ncompression = "none"\n')
    for path in named(home, "segment"):
        path.unlink()
    assert {step.result for step in repaired(Home(home.path))} == {REPAIRED}
    assert contents(home) == before


def test_cells_whose_inputs_changed_are_made_again_as_a_new_batch(replayed: Path, tmp_path: Path) -> None:
    home = copy_of(replayed, tmp_path)
    more = tmp_path / "more.csv"
    more.write_text("realm,address,protocol,port_first,port_last,start,end,service\n,10.0.0.22,,,,2026-01-01T00:00:00Z,,S1\n")
    quietly("--home", str(home.path), "leases", "import", str(more))
    flip(named(home, "cells")[0], home.path)
    (step,) = repaired(home)
    assert step.result == REPAIRED
    assert "a new batch" in step.what
    assert problems(home) == []
    quietly("--home", str(home.path), "aggregate", "run")
    assert problems(home) == []


# what can't be repaired -----------------------------------------------------------------------------------------------
def test_without_its_journal_a_segment_is_named_and_nothing_is_deleted(replayed: Path, tmp_path: Path) -> None:
    home = copy_of(replayed, tmp_path)
    first, second, *_ = named(home, "segment")
    with sql.reading(sql.engine(home)) as connection:
        known = {home.path / row.path: row for row in connection.execute(sa.select(tables.segment))}
    shutil.rmtree(home.folder("journal") / known[first].collector)
    for path in (first, second, named(home, "cells")[0]):
        flip(path, path)
    damaged, rows_before = contents(home), rows_of(home)
    done = run_cli("storage", "repair", home=home.path, check=3)
    found = {row["path"]: row for row in rows(done)}
    lost = found[home.relative(first)]
    assert (lost["result"], lost["flows"], lost["octets"]) == (LOST, known[first].flows, known[first].octets)
    assert lost["from"] == format_instant(known[first].received_first)
    assert lost["to"] == format_instant(known[first].received_last)
    assert "is gone" in lost["what"]
    assert "backup" in lost["do"]
    assert found[home.relative(second)]["result"] == REPAIRED
    cells = found[home.relative(named(home, "cells")[0])]
    assert cells["result"] == LOST
    assert cells["flows"] == known[first].flows
    after = contents(home)
    assert {path for path in damaged if after.get(path) != damaged[path]} == {home.relative(second)}
    assert rows_of(home)["segment"] == rows_before["segment"]
    assert {one.path for one in problems(home)} == {home.relative(first), home.relative(named(home, "cells")[0])}
    assert "can't be repaired" in run_cli("storage", "repair", "--dry-run", home=home.path, check=1).stderr


def test_a_damaged_journal_gives_no_other_flows(collected: Path, tmp_path: Path) -> None:
    home = copy_of(collected, tmp_path)
    last, first = named(home, "segment")[-1], named(home, "segment")[0]
    last.unlink()
    first.unlink()
    journal = next(home.folder("journal").rglob("*.journal"))
    data = bytearray(journal.read_bytes())
    data[300] ^= 1
    journal.write_bytes(data)
    found = {step.path: step for step in repaired(home)}
    assert found[home.relative(first)].result == LOST
    assert "the journal is damaged, too" in found[home.relative(first)].what
    assert found[home.relative(journal)].result == LOST
    assert not first.exists()
    assert not list(home.folder("segments").rglob("*.tmp"))


def test_other_settings_are_named(replayed: Path, tmp_path: Path) -> None:
    home = copy_of(replayed, tmp_path)
    settings = home.path / "ratemill.toml"
    settings.write_text(settings.read_text() + '[[exporter]]\naddress = "192.0.2.1"\nsampling = 100\n'
                                               '[[exporter]]\naddress = "192.0.2.2"\nsampling = 100\n')
    path = named(home, "segment")[0]
    path.unlink()
    (step,) = repaired(Home(home.path))
    assert step.result == LOST
    assert "settings of now" in step.what
    assert not path.exists()


# the lake -------------------------------------------------------------------------------------------------------------
def compacted(home: Home) -> list[Path]:
    settings = home.path / "ratemill.toml"
    settings.write_text(settings.read_text() + "[lake]\ncompact_after_hours = 0\nreplaced_keep_hours = 0\n")
    changed = Home(home.path)
    assert compaction.compact(changed, ACTOR).parts == REPLAYS
    compaction.compact(changed, ACTOR)  # the segments' own files go
    assert not list(home.folder("segments").rglob("*.arrow"))
    return named(changed, "lake")


@pytest.mark.parametrize("damage", [flip, lose])
def test_files_of_the_lake_come_from_the_journal_as_well(replayed: Path, tmp_path: Path, damage: Damage) -> None:
    home = copy_of(replayed, tmp_path)
    paths = compacted(home)
    home = Home(home.path)
    before, rows_before = contents(home), rows_of(home)
    damage(paths[0], paths[-1])
    assert {step.result for step in repaired(home, dry_run=True)} == {REPAIRABLE}
    assert {(step.path, step.result) for step in repaired(home)} == {(home.relative(paths[0]), REPAIRED)}
    assert contents(home) == before
    assert rows_of(home) == rows_before
    assert problems(home) == []
    shutil.rmtree(home.folder("journal"))
    home.create()
    damage(paths[0], paths[-1])
    (step,) = repaired(home)
    assert (step.result, step.kind) == (LOST, "lake")
    assert step.extent.flows
    assert "is gone" in step.what


# kill -9 --------------------------------------------------------------------------------------------------------------
KILLED = """
import os, signal, sys
from pathlib import Path
from core.actor import Actor
from monitoring import storage_repair
from storage import files
from storage.home import Home

calls, last = 0, int(sys.argv[2])

class Killing(files.SystemFileSystem):
    pass

def counted(name):
    real = getattr(files.SystemFileSystem, name)
    def call(self, *arguments):
        global calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *arguments)
    return call

for name in ("create", "write", "fsync", "rename", "fsync_folder", "remove"):
    setattr(Killing, name, counted(name))
files.use(Killing())
list(storage_repair.repair(Home(Path(sys.argv[1])), Actor("killed", "test"), storage_repair.Done()))
print(calls)
"""


def attempts(home: Home, last: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", KILLED, str(home.path), str(last)], cwd=ROOT, capture_output=True, text=True,
                          timeout=300)


def test_killed_repairs_leave_a_home_that_the_next_one_mends(replayed: Path, tmp_path: Path) -> None:
    def damaged(name: str) -> Home:
        home = copy_of(replayed, tmp_path, name)
        for kind in ("segment", "cells"):
            for path, damage in zip(named(home, kind), (flip, lose, empty), strict=False):
                damage(path, path)
        return home

    twin = copy_of(replayed, tmp_path, "twin")
    whole = attempts(damaged("rehearsal"), 0)
    assert whole.returncode == 0, whole.stderr
    calls = int(whole.stdout)
    assert calls > 20
    rng = random.Random(20_261_127)
    for number in range(KILLS):
        home = damaged(f"killed-{number}")
        done = attempts(home, rng.randrange(1, calls + 1))
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert all(step.result == REPAIRED for step in repaired(home))
        assert problems(home) == []
        found, expected = contents(home), contents(twin)
        assert {path: found[path] for path in expected} == expected
        quietly("--home", str(home.path), "aggregate", "run")  # sweeps what a killed repair left of cells
        assert contents(home) == expected
        shutil.rmtree(home.path)
