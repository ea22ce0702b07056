"""`storage verify|backup|restore`: of a home that is running, and of one that is damaged."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from harness import rows, run_cli
from running_collector import running
from stream_home import make_home, wait_until

from collector import counters
from collector.exporter.commands import random_flows
from collector.exporter.send import parse_target, send_flows
from core import clock
from storage.home import Home

SETTINGS = "[collector]\nsegment_seconds = 1\nsocket_buffer = 4194304\n"


def flows_of(home: Home) -> Counter[str]:
    return Counter(run_cli("flows", "export", home=home.path).stdout.splitlines())


def verified(home: Home, check: int = 0) -> tuple[list[dict[str, Any]], str]:
    done = run_cli("storage", "verify", home=home.path, check=check)
    return rows(done), done.stderr


def fill(home: Home, port: int, seed: int, flows: int = 4000) -> None:
    send_flows(random_flows(flows, seed, "ipfix", clock.now_ms()), "ipfix", parse_target(f"127.0.0.1:{port}"),
               source=f"127.0.0.{seed + 1}", rate=1000)


def test_backups_of_a_running_home_are_homes_that_go_on(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", SETTINGS)
    with running(home) as one:
        sender = threading.Thread(target=lambda: [fill(home, one.ports[0], seed) for seed in range(1, 13)])
        sender.start()
        try:
            wait_until(lambda: counters.figures(home, "main").decoded > 0)
            for number in range(3):
                told = rows(run_cli("storage", "backup", str(tmp_path / f"backup-{number}"), home=home.path))[0]
                assert told["files"] > 3
        finally:
            sender.join()
        assert one.stop() == 0
    whole = flows_of(home)
    assert sum(whole.values()) == 12 * 4000
    sizes = []
    for number in range(3):
        copy = Home(tmp_path / f"restored-{number}")
        run_cli("storage", "restore", str(tmp_path / f"backup-{number}"), "--to", str(copy.path))
        assert verified(copy)[0] == []
        with running(copy) as again:  # what the copy of the journal holds beyond the copy of the database is decoded
            assert again.stop() == 0
        status = rows(run_cli("collect", "status", home=copy.path))[0]
        found = flows_of(copy)
        assert status["durable"] == status["decoded"]
        assert status["lost"] == 0
        assert found <= whole, "nothing twice, nothing that was not sent"
        assert verified(copy)[0] == []
        sizes.append(sum(found.values()))
    assert sizes == sorted(sizes)
    assert sizes[-1] > 0


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = make_home(tmp_path / "home", SETTINGS)
    with running(made) as one:
        fill(made, one.ports[0], 1, 2000)
        wait_until(lambda: counters.figures(made, "main").decoded > 0)
        assert one.stop() == 0
    return made


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def test_damage_is_named_and_not_backed_up(home: Home, tmp_path: Path) -> None:
    found, said = verified(home)
    assert found == []
    assert "are whole" in said
    segment = next(home.folder("segments").rglob("*.arrow"))
    flip(segment, segment.stat().st_size // 2)
    found, said = verified(home, 1)
    assert [(row["kind"], row["path"]) for row in found] == [("segment", home.relative(segment))]
    assert "1 problems were found" in said
    assert home.relative(segment) in run_cli("storage", "backup", str(tmp_path / "backup"), home=home.path, check=1).stderr
    assert not (tmp_path / "backup").exists()
    assert not list(tmp_path.glob(".*partial"))
    segment.unlink()
    assert ("segment", "is missing") in {(row["kind"], row["what"]) for row in verified(home, 1)[0]}


def test_damage_in_the_journal_is_named(home: Home) -> None:
    journal = next(home.folder("journal").rglob("*.journal"))
    flip(journal, 200)
    (found,), _ = verified(home, 1)
    assert (found["kind"], found["path"]) == ("journal", home.relative(journal))
    assert "0 to" in found["what"]


def test_a_backup_that_was_changed_is_not_restored(home: Home, tmp_path: Path) -> None:
    backup, target = tmp_path / "backup", tmp_path / "again"
    run_cli("storage", "backup", str(backup), home=home.path)
    assert "is there already" in run_cli("storage", "backup", str(backup), home=home.path, check=2).stderr
    assert "inside of the home" in run_cli("storage", "backup", str(home.path / "x"), home=home.path, check=2).stderr
    listed = json.loads((backup / "backup.json").read_text())
    assert {entry["path"] for entry in listed["files"]} == {
        str(path.relative_to(backup)) for path in backup.rglob("*") if path.is_file()} - {"backup.json"}
    for number, entry in enumerate(listed["files"]):
        copy = tmp_path / f"damaged-{number}"
        shutil.copytree(backup, copy)
        if entry["size"]:
            flip(copy / entry["path"], entry["size"] // 2)
        else:
            (copy / entry["path"]).unlink()
        assert entry["path"] in run_cli("storage", "restore", str(copy), "--to", str(target), check=1).stderr
        assert not target.exists()
    assert "is no backup" in run_cli("storage", "restore", str(tmp_path), "--to", str(target), check=2).stderr
    target.mkdir()
    (target / "mine").write_text("")
    assert "is not empty" in run_cli("storage", "restore", str(backup), "--to", str(target), check=2).stderr
    (target / "mine").unlink()
    run_cli("storage", "restore", str(backup), "--to", str(target))
    assert flows_of(Home(target)) == flows_of(home)
    assert (target.stat().st_mode & 0o777) == 0o700


def test_a_journal_whose_oldest_files_are_gone_is_whole(home: Home) -> None:
    folder = next(path for path in home.folder("journal").iterdir() if path.is_dir())
    with running(home) as one:
        fill(home, one.ports[0], 2, 2000)
        wait_until(lambda: counters.figures(home, "main").decoded > 30)
        assert one.stop() == 0
    journals = sorted(folder.glob("*.journal"))
    assert len(journals) == 2
    journals[0].unlink()
    assert verified(home)[0] == []
