"""How the collectors of a home are: what they last said of themselves (`run/collector-ID.json`) and their figures of now.

Nothing heavy is imported here: `collect status`, its `--watch` and the metrics ask often.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from collector import counters as places_of
from runtime import log
from runtime.jobs import process_started
from storage.home import Home


def status_path(home: Home, collector: str) -> Path:
    return home.folder("run") / f"collector-{collector}.json"


def statuses(home: Home) -> list[dict[str, Any]]:
    """The collectors that ran in this home, with the figures of this moment."""
    found = []
    for path in sorted(home.folder("run").glob("collector-*.json")):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            collector, pid = told["collector"], int(told["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            log.warning("collector", f"{path} can't be read", hint="it is written anew by the next run")
            continue
        running = told["state"] != "stopped" and process_started(pid) == told["pid_started"] != 0
        state = told["state"] if running or told["state"] == "stopped" else "killed"
        found.append({**told, **asdict(places_of.figures(home, collector)), "state": state, "running": running})
    return found


def describe(home: Home) -> dict[str, Any]:
    """One object over all collectors of a home: `collect status`."""
    collectors = statuses(home)
    names = list(asdict(places_of.Figures()))
    total = {name: sum(one[name] for one in collectors) for name in names}
    return {"running": any(one["running"] for one in collectors), **total,
            "collectors": [{"collector": one["collector"], "running": one["running"], "state": one["state"],
                            "pid": one["pid"], **{name: one[name] for name in names}, "listeners": one["listeners"],
                            "trouble": one["trouble"], "at": one["at"]} for one in collectors]}
