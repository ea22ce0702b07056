"""Run the scenarios named on the command line, or all of them; `NAME --help` tells the options of one."""

from __future__ import annotations

import sys
from importlib import import_module

SCENARIOS = ("start", "decode", "receive", "aggregate", "usage", "lake", "rating", "advise", "documents", "hostile")


def main(words: list[str]) -> int:
    """Returns 2 for a name that is no scenario, or for options of several at once."""
    names = [word for word in words if word in SCENARIOS]
    rest = [word for word in words if word not in SCENARIOS]
    if rest and (len(names) != 1 or words[0] not in SCENARIOS):
        print(f"no scenario {rest[0]}; there are {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    for name in names or SCENARIOS:
        scenario = import_module(f"benchmarks.{name}")
        if rest and not hasattr(scenario, "main"):
            print(f"{name} has no options", file=sys.stderr)
            return 2
        scenario.main(rest) if rest else scenario.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
