"""Run the scenarios named on the command line, or all of them."""

from __future__ import annotations

import sys
from importlib import import_module

SCENARIOS = ("start", "decode", "aggregate", "documents")


def main(names: list[str]) -> int:
    """Returns 2 for a name that is no scenario."""
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        print(f"no scenario {unknown[0]}; there are {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    for name in names or SCENARIOS:
        import_module(f"benchmarks.{name}").run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
