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
from runtime.jobs import runs
from storage.home import Home
from storage.space import Level


def status_path(home: Home, collector: str) -> Path:
    return home.folder("run") / f"collector-{collector}.json"


def statuses(home: Home) -> list[dict[str, Any]]:
    """The collectors that ran in this home, with the figures of this moment."""
    found = []
    for path in sorted(home.folder("run").glob("collector-*.json")):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            collector, running = told["collector"], runs(told)
        except (OSError, ValueError, KeyError, TypeError):
            log.warning("collector", f"{path} can't be read", hint="it is written anew by the next run")
            continue
        state = told["state"] if running or told["state"] == "stopped" else "killed"
        places = places_of.read_places(home, collector)
        found.append({**told, **asdict(places_of.figures_of(places)), "disk": asdict(places_of.disk_of(places)),
                      "state": state, "running": running,
                      "listeners": places_of.listeners_of(places, told["listeners"])})
    return found


def describe(home: Home) -> dict[str, Any]:
    """One object over all collectors of a home: `collect status`."""
    collectors = statuses(home)
    names = list(asdict(places_of.Figures()))
    total = {name: sum(one[name] for one in collectors) for name in names}
    disks = [one["disk"] for one in collectors]
    worst = max(disks, key=lambda disk: (Level[disk["level"].upper()], -disk["free"]), default=asdict(places_of.Disk()))
    return {"running": any(one["running"] for one in collectors), **total, "disk": worst,
            "collectors": [{**{name: one.get(name) for name in ("collector", "running", "state", "pid", "host")},
                            **{name: one[name] for name in names},
                            **{name: one.get(name) for name in ("listeners", "disk", "trouble", "group", "decodes", "at")}}
                           for one in collectors],
            "groups": groups(home)}


def groups(home: Home) -> list[dict[str, Any]]:
    """The groups that were decoded in this home: what each member brought, and who decodes now."""
    found = []
    for path in sorted(home.folder("run").glob("group-*.json")):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            state = told["state"] if runs(told) or told["state"] == "stopped" else "killed"
            found.append({name: told[name] for name in ("group", "pid", "host", "members", "trouble", "at")} | {"state": state})
        except (OSError, ValueError, KeyError, TypeError):
            log.warning("collector", f"{path} can't be read", hint="it is written anew by the next run")
    return found
