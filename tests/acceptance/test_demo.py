"""`ratemill demo`: the main job end to end over real UDP, twice, and interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import ROOT, rows, run_cli

BALANCES = (
    "datagrams",
    "records",
    "flow_octets",
    "used_octets",
    "rated_octets",
    "charges_invoices",
    "invoices_postings",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "home"


@pytest.fixture(scope="module")
def first_run(home: Path) -> str:
    return run_cli("demo", home=home).stdout


def test_every_balance_is_a_plain_line_that_closes(first_run: str) -> None:
    for name in BALANCES:
        line = re.search(rf"^{name}: in (\d+), out (\d+), difference 0", first_run, re.M)
        assert line is not None, name
        assert int(line[1]) >= int(line[2]) > 0


def test_every_loss_equals_what_was_done_on_purpose(first_run: str) -> None:
    told = re.findall(r"^(.+): on purpose (\d+), counted (\d+)$", first_run, re.M)
    assert len(told) == 4 * 4 + 2
    assert all(caused == counted for _, caused, counted in told)
    assert all(int(caused) > 0 for _, caused, _ in told), "something was done of every kind"


def test_the_commands_to_try_next_work(first_run: str, home: Path) -> None:
    suggested = re.findall(r"^  \S*ratemill (.+) --home", first_run, re.M)
    assert len(suggested) == 5
    for words in suggested:
        assert run_cli(*words.split(), home=home).stdout


def test_the_documents_are_there(first_run: str, home: Path) -> None:
    documents = sorted((home / "documents" / "2026-10").glob("*.pdf"))
    invoices = rows(run_cli("invoice", "list", "2026-10", home=home))
    assert [path.stem for path in documents] == [row["number"] for row in invoices]
    assert len(invoices) == 500


def test_the_town_is_verified_by_the_second_engine(first_run: str, home: Path) -> None:
    checked = rows(run_cli("rate", "verify", "2026-10", home=home))[0]
    assert checked["differing"] == 0
    assert checked["checked"] == checked["equal"] > 700


def test_a_second_run_reuses_what_is_there(first_run: str, home: Path) -> None:
    before = run_cli("invoice", "list", "2026-10", home=home).stdout
    again = run_cli("demo", home=home)
    assert "are there already" in again.stderr
    assert again.stdout.partition("The whole demo took")[0] == first_run.partition("The whole demo took")[0]
    assert run_cli("invoice", "list", "2026-10", home=home).stdout == before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    assert "is not a demo's home" in run_cli("demo", home=tmp_path, check=2).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_an_interrupted_demo_leaves_nothing_broken(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = [sys.executable, "-m", "cli", "--home", str(home), "demo"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               # a shell's background job has SIGINT ignored, and its children inherit that
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    patience = time.monotonic() + 300
    while not _is_sending(home) and process.poll() is None and time.monotonic() < patience:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=300)
    # A shell shows both as 130: the interpreter ends itself by the signal if that came while it ran code made of a string.
    assert process.returncode in (130, -signal.SIGINT), told.decode()
    assert "interrupted; run the same command again" in told.decode()
    assert not _collectors(home), "the collector was stopped too"
    done = run_cli("demo", home=home)
    assert done.stdout.count("difference 0") == len(BALANCES)


def _is_sending(home: Path) -> bool:
    try:
        return bool(json.loads((home / "demo.json").read_text()).get("sending"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False


def _collectors(home: Path) -> list[str]:
    """Processes that still work on this home."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\x00", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(home) in command:
                found.append(command)
    return found
