"""Mutated datagrams by the million: no exception, no read or write outside, closed sums, bounded work, flat memory.

RATEMILL_FUZZ_DATAGRAMS sets the count (`make nightly`: 10^9), RATEMILL_FUZZ_SEED the first seed (else 1).
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from fuzz.guarded import Cliff, Fenced
from fuzz.mutation import BODY_SIZE_MAX, Mutator, corpus, count_entries, entries_of, minimised
from harness import ROOT
from journal_bodies import Datagram, body_of

COUNT = 1_000_000
NIGHTLY_COUNT = 1_000_000_000
SLICE = 2_500_000
"""Datagrams a process; each slice has a seed of its own."""
STATE_OCTETS_MAX = 96 << 20
"""For the small tables of these runs: an epoch fills them, and no number of epochs needs more."""


def count() -> int:
    given = os.environ.get("RATEMILL_FUZZ_DATAGRAMS")
    return int(given) if given else (NIGHTLY_COUNT if os.environ.get("RATEMILL_NIGHTLY") else COUNT)


def seed() -> int:
    return int(os.environ.get("RATEMILL_FUZZ_SEED", "1"))


def run(mode: str, datagrams: int, seed: int) -> dict[str, Any]:
    """A process of `fuzz.runner`; what it found is the assertion's message."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "fuzz.runner", "--mode", mode, "--datagrams", str(datagrams), "--seed", str(seed)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command[1:])}\n{done.stdout[-5000:]}\n{done.stderr[-3000:]}"
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert summary["datagrams"] >= datagrams
    assert summary["flows"] > datagrams // 20, "most mutations must still reach the inner loops"
    assert summary["state_octets_max"] < STATE_OCTETS_MAX
    return summary


@pytest.mark.timeout(0)
def test_nothing_behind_a_body_is_read_and_nothing_breaks() -> None:
    """The page behind each body has no access: one octet read too far kills the process."""
    for number in range(max(count() // SLICE, 1)):
        run("cliff", min(SLICE, count()), seed() + number)


@pytest.mark.timeout(0)
def test_octets_that_are_no_payload_change_nothing_and_a_restored_state_goes_on_alike() -> None:
    """Each block twice, with other guards and gaps; the second decoder is restored from saved states now and then."""
    for number in range(max(count() // 10 // SLICE, 1)):
        summary = run("guards", min(SLICE, max(count() // 10, 1000)), 1_000_000 + seed() + number)
        assert summary["states_restored"] > 0 or summary["blocks"] < 20


@pytest.mark.timeout(0)
def test_the_work_for_mutated_datagrams_is_bounded() -> None:
    """Steps of compiled loops, in blocks of 64 datagrams."""
    run("steps", max(count() // 100, 1000), 2_000_000 + seed())


# the tools themselves ---------------------------------------------------------------------------------------------------
def test_the_same_seed_makes_the_same_datagrams() -> None:
    material = corpus()
    one, two, three = (Mutator(number, material, 500) for number in (7, 7, 8))
    first = one.body().copy()
    assert np.array_equal(first, two.body())
    assert not np.array_equal(first, three.body()[: len(first)])
    assert not np.array_equal(one.body()[:100], first[:100])


def test_a_made_body_is_a_body_of_the_journal() -> None:
    body = Mutator(3, corpus(), 300).body()
    datagrams = list(entries_of(body))
    assert len(datagrams) == count_entries(body) == 300
    assert {one.payload[:2] for one in datagrams} >= {b"\0\5", b"\0\x09", b"\0\x0a", b"\0\0"}
    assert all(len(one.payload) <= 65_507 for one in datagrams)
    assert count_entries(body_of(datagrams)) == 300


def test_a_fence_shows_a_write_and_a_cliff_kills_a_read() -> None:
    body = np.arange(64, dtype=np.uint8)
    fence = Fenced(BODY_SIZE_MAX, 0xFF)
    inside = fence.hold(body)
    assert fence.is_whole(body)
    inside[5] = 99
    assert not fence.is_whole(body)
    fence.hold(body)
    ctypes.memset(inside.ctypes.data + 64, 0, 1)
    assert not fence.is_whole(body)
    script = (
        "import numpy as np; from fuzz.guarded import Cliff; cliff = Cliff(64);"
        "inside = cliff.hold(np.zeros(64, np.uint8)); inside.sum(); print('before', flush=True); cliff.beyond()[0].item()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout.strip(), done.returncode) == ("before", -11)
    assert Cliff(64).hold(body).tolist() == body.tolist()


def test_what_fails_is_made_small() -> None:
    datagrams = [Datagram(bytes([n]) * 300) for n in range(40)]

    def fails(body: Any) -> bool:
        payloads = [one.payload for one in entries_of(body)]
        return any(p[:3] == b"\x07\x07\x07" for p in payloads) and any(p[:1] == b"\x21" for p in payloads)

    assert [one.payload for one in minimised(datagrams, fails)] == [b"\x07\x07\x07", b"\x21"]
