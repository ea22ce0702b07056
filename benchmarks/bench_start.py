"""How long an operator waits for the command line itself."""

from __future__ import annotations

import subprocess
import sys

from core import clock


def measure() -> dict[str, float]:
    """Milliseconds from the shell and back."""
    return {
        "version_milliseconds": _milliseconds("--version"),
        "help_milliseconds": _milliseconds("--help"),
        "reconcile_help_milliseconds": _milliseconds("reconcile", "--help"),
    }


def _milliseconds(*words: str) -> float:
    start = clock.monotonic_ns()
    subprocess.run([sys.executable, "-m", "cli", *words], check=True, capture_output=True)
    return (clock.monotonic_ns() - start) / 1e6
