"""`storage compact` and kill -9: each flow once, whatever is left behind goes, readers never see half of it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from aggregation_town import add_segment, make_home
from harness import ROOT, run_cli
from oracles.slow_usage import Flow, Lease, World

from aggregation.batches import aggregate
from collector import compaction, segments
from core import tables
from core.actor import Actor
from core.periods import DAY_MS, OPEN_END, OPEN_START, parse_instant
from storage import lake, sql, stored_flows
from storage.home import Home

ACTOR = Actor("test", "test")
DAY = parse_instant("2026-10-05T00:00:00Z")
ROUNDS = 60 if os.environ.get("RATEMILL_NIGHTLY") else 4

KILLED = """
import os, random, signal, sys
from pathlib import Path
from collector import compaction
from core.actor import Actor
from storage import files, lake
from storage.home import Home

lake.FILE_FLOWS, lake.GROUP_FLOWS = 128, 32
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
real = compaction.register
def register(*arguments):
    global calls
    number = real(*arguments)
    calls += 1
    if calls == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return number
compaction.register = register
compaction.compact(Home(Path(sys.argv[1])), Actor("killed", "test"))
print(calls)
"""


def all_flows(home: Home) -> list[tuple[Any, ...]]:
    with sql.reading(sql.engine(home)) as connection:
        known = list(connection.execute(sa.select(tables.segment)))
    found = []
    for table in segments.read_flows(home, known):
        columns = (table.column(name).to_pylist() for name in ("segment", "row", "octets", "source_address"))
        found += list(zip(*columns, strict=True))
    return sorted(found)


@pytest.mark.timeout(900)
def test_a_compaction_that_is_killed_anywhere_is_done_again_once(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", World(leases=[Lease("10.0.0.0/24", OPEN_START, OPEN_END, "S")]))
    rng = random.Random(5)
    for number in range(4):
        flows = [Flow(DAY + number // 2 * DAY_MS + n, DAY + number // 2 * DAY_MS + n + 5, f"10.0.0.{rng.randrange(256)}",
                      rng.choice(["8.8.8.8", "10.0.0.7"]), rng.randrange(10**6), 1) for n in range(300)]
        add_segment(home, flows, f"s{number}")
    aggregate(home, ACTOR)
    whole = all_flows(home)
    assert len(whole) == 1200
    killed = 0
    for _ in range(ROUNDS):
        done = subprocess.run([sys.executable, "-c", KILLED, str(home.path), str(rng.randrange(1, 70))], cwd=ROOT,
                              capture_output=True, text=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        killed += done.returncode != 0
        assert all_flows(home) == whole
    assert killed
    compaction.compact(home, ACTOR)
    assert all_flows(home) == whole
    with sql.reading(sql.engine(home)) as connection:
        assert not stored_flows.locate(connection, range(1, 5)).hot
        named = {file.path for part in lake.parts(connection) for kind in ("flows", "mirror")
                 for file in lake.files_of(connection, part.id, kind)}
    assert {home.relative(path) for path in home.folder("lake").rglob("*") if path.is_file()} == named
    assert run_cli("storage", "verify", home=home.path).stdout == ""
