"""kill -9 at random moments: replay, decode, aggregate and publish end with the usage of an uninterrupted twin.

Children are forked from this process, whose kernels are warm, so that the kill falls into the work and not into an import.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import packets
import pytest
from packets import Flow

import cli
from storage import sql

KILLS = 500 if os.environ.get("RATEMILL_NIGHTLY") else 50
SEED = int(os.environ.get("RATEMILL_SEED", "20261101"))
SETTINGS = '[seller]\ntimezone = "Europe/Berlin"\n[[tax]]\ncategory = "standard"\npercent = "19"\nfrom = 2021-01-01\n'
SUBSCRIBERS = "account,name,kind,email,phone,address,contract,service,plan,start,end,timezone,currency\n" + "".join(
    f"A{n},Name,person,,,,C{n},S{n},,2026-01-01,,Europe/Berlin,EUR\n" for n in range(50)
)
LEASES = "realm,address,protocol,port_first,port_last,start,end,service\n" + "".join(
    f",10.0.0.{n},,,,2026-01-01T00:00:00Z,,S{n}\n" for n in range(50)
)
STEPS = (("aggregate", "run"), ("usage", "publish"))


def _captures(folder: Path, rng: random.Random) -> list[Path]:
    """Two captures of one session: IPFIX whose template comes late, and v5, with some copies."""
    files = []
    for part in range(2):
        datagrams = []
        for number in range(120):
            at = f"2026-10-{rng.randrange(1, 29):02d}T{rng.randrange(24):02d}:00:00Z"
            begin = packets.ms(at) - 60_000
            flows = [
                Flow("8.8.8.8", f"10.0.0.{rng.randrange(60)}", packets_iso(begin - rng.randrange(600_000)), packets_iso(begin),
                     rng.randrange(1, 10**9), rng.randrange(1, 1000))
                for _ in range(20)
            ]  # fmt: skip
            if number % 2:
                payload = packets.v5(flows, at, number * 20)
            else:
                sets = [packets.ipfix_data(flows)]
                sets += [packets.ipfix_template()] if number == 50 else []
                payload = packets.ipfix(sets, at, number * 20)
            datagrams.append((at, f"192.0.2.{number % 2 + 1}", payload))
        files.append(packets.pcap(folder / f"part-{part}.pcap", datagrams))
    return files


def packets_iso(instant: int) -> str:
    from core.periods import format_instant

    return format_instant(instant)


def _home(folder: Path) -> Path:
    home = folder / "home"
    _quietly("--home", str(home), "init")
    (home / "ratemill.toml").write_text(SETTINGS)
    (folder / "s.csv").write_text(SUBSCRIBERS)
    (folder / "l.csv").write_text(LEASES)
    _quietly("--home", str(home), "subscribers", "import", str(folder / "s.csv"))
    _quietly("--home", str(home), "leases", "import", str(folder / "l.csv"))
    return home


def _quietly(*words: str) -> None:
    assert cli.run(list(words)) == 0, words


def _steps(home: Path, files: list[Path]) -> list[tuple[str, ...]]:
    replay = ("collect", "replay", *map(str, files))
    return [("--home", str(home), *words) for words in (replay, *STEPS)]


def _forked(home: Path, files: list[Path]) -> int:
    """A child that does all steps and exits with 0, or with the number of the step that failed."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    try:
        os.setpgid(0, 0)
        log = os.open(home.parent / "child.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        sql.forget_engines()
        for number, words in enumerate(_steps(home, files), start=1):
            if cli.run(list(words)) != 0:
                os._exit(number)
        os._exit(0)
    finally:
        os._exit(99)


def _usage(home: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    capsys.readouterr()
    _quietly("--home", str(home), "--json", "usage", "export", "2026-10", "--by", "slot")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    _quietly("--home", str(home), "--json", "usage", "export", "2026-10")
    return rows + [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_killed_work_ends_like_an_uninterrupted_twin(tmp_path_factory: pytest.TempPathFactory,
                                                    capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    rng = random.Random(SEED)
    folder = tmp_path_factory.mktemp("twin")
    files = _captures(folder, rng)
    twin = _home(folder)
    for words in _steps(twin, files):
        _quietly(*words)
    expected = _usage(twin, capsys)
    assert len(expected) > 1000
    started = time.monotonic()
    rehearsal = _home(tmp_path_factory.mktemp("rehearsal"))
    assert os.waitpid(_forked(rehearsal, files), 0)[1] == 0
    duration = time.monotonic() - started
    kills, rounds = 0, 0
    while kills < KILLS:
        home = _home(tmp_path_factory.mktemp("killed"))
        rounds += 1
        for _attempt in range(8):  # the last attempts are left alone, so that every round ends
            begun = time.monotonic()
            child = _forked(home, files)
            if _attempt < 6:
                time.sleep(rng.random() * duration)
                os.killpg(child, signal.SIGKILL) if _exists(child) else None
            status = os.waitpid(child, 0)[1]
            if os.WIFSIGNALED(status):
                kills += 1
                continue
            assert os.WEXITSTATUS(status) == 0, (SEED, kills, (home.parent / "child.log").read_text()[-2000:])
            duration = min(duration, time.monotonic() - begun)  # it was measured while the machine was busy
            break
        assert _usage(home, capsys) == expected, f"seed {SEED}, round {rounds}, after {kills} kills"


def _exists(child: int) -> bool:
    try:
        os.killpg(child, 0)
    except ProcessLookupError:
        return False
    return True
