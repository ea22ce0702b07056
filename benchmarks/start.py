"""How long an operator waits for the command line itself, against starting the bare interpreter."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from benchmarks.measure import Figure, median_seconds, tell


def run() -> None:
    """`--version` and the first help page."""
    bare = median_seconds(lambda: _call("-c", "pass"))
    for words in (["--version"], ["--help"]):
        taken = median_seconds(partial(_call, "-m", "cli", *words))
        tell(
            Figure(
                "start", f"ratemill {' '.join(words)}", taken * 1000, "ms", "the bare interpreter's start", bare / taken
            )
        )


def _call(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
