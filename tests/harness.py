"""What tests of every kind share: where the reference material lies, and how to run the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


SHARED = Path(os.environ.get("RATEMILL_SHARED") or ROOT.parent / "shared")


def sessions() -> list[dict[str, Any]]:
    """The capture sessions of the reference material's index; none where it is absent."""
    index = SHARED / "captures" / "index.json"
    return json.loads(index.read_text(encoding="utf-8")) if index.exists() else []


def shared(*parts: str) -> Path:
    """A file or folder of the reference material (RATEMILL_SHARED, default ../shared); skips the test without it."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"reference material is not here: {path} (set RATEMILL_SHARED)")
    return path


def run_cli(
    *words: str,
    home: Path | None = None,
    check: int | None = 0,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `ratemill` as an operator would, in a process of its own; `check` is the exit code expected, None for any."""
    command = [sys.executable, "-m", "cli", *(["--home", str(home)] if home else []), *words]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, input=stdin, timeout=300, env={**os.environ, **(env or {})}
    )
    if check is not None:
        assert done.returncode == check, (
            f"{words}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    return done


def rows(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """The JSON lines that a command printed."""
    return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
