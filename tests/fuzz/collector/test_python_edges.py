"""Everything in Python that reads what others wrote, under atheris: only the product's own errors, no hang, bounded memory.

CI runs a fixed number of inputs from a fixed seed; `make nightly` a hundred times as many (RATEMILL_FUZZ_EDGES overrides).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from harness import ROOT

from collector.state import DecoderState
from core.errors import DamagedFile, ImportRefused
from subscribers.csv_file import Problems, read

RUNS = 1000
NIGHTLY_RUNS = 150_000


@pytest.mark.timeout(0)
def test_only_errors_of_the_product_come_out_of_its_readers() -> None:
    if find_spec("atheris") is None:
        pytest.skip("atheris has no wheel for this Python or machine")
    runs = int(os.environ.get("RATEMILL_FUZZ_EDGES") or (NIGHTLY_RUNS if os.environ.get("RATEMILL_NIGHTLY") else RUNS))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [
        sys.executable,
        "-m",
        "fuzz.edges",
        "all",
        f"-runs={runs}",
        "-seed=1",
        "-timeout=30",
        "-rss_limit_mb=2048",
        "-max_len=8192",
        "-verbosity=0",
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    last = {one["target"]: one for one in told}
    assert len(last) == 8
    assert all(one["refused"] + one["accepted"] >= min(runs, 500) for one in last.values())
    assert sum(one["accepted"] for one in last.values()) > 0


def test_a_header_with_an_open_quote_is_a_problem_of_its_line(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_bytes(b'account,"name\n')
    problems = Problems("people.csv")
    with pytest.raises(ImportRefused):
        read(tmp_path / "people.csv", ("account", "name"), problems)
    assert next((one.line, one.column) for one in problems.found) == (1, "")


def test_a_state_of_other_parts_is_refused() -> None:
    """Its checksum is right: whatever made it was no decoder of this version."""
    import zlib

    good = DecoderState().to_bytes()
    size = int.from_bytes(good[8:12], "little")
    head = json.loads(good[16 : 16 + size])
    for change in (
        {"sightings": 3},
        {"sightings": 1 << 40},
        {"fields": {}},
        {"fields": {**head["fields"], "domains": head["fields"]["domains"][1:]}},
        {"fields": {**head["fields"], "domains": 9}},
        {"parts": {}},
        {"parts": {**head["parts"], "domains": [9]}},
        {"parts": {**head["parts"], "more": [0]}},
    ):
        changed = json.dumps(head | change).encode()
        rest = changed + good[16 + size :]
        made = good[:8] + len(changed).to_bytes(4, "little") + zlib.crc32(rest).to_bytes(4, "little") + rest
        with pytest.raises(DamagedFile):
            DecoderState.from_bytes(made)
    assert DecoderState.from_bytes(good).to_bytes() == good
