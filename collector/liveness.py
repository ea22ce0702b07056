"""Is receiving and decoding alive? Sentences for /healthz, each with what to look at; none if all is well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from collector import counters as places_of
from collector.counters import Places
from core import clock
from core.periods import parse_instant
from runtime.jobs import process_started

SILENT_SECONDS_MAX = 60
"""The receiver looks around and the collector writes its status each second; a minute without is no accident."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A collector: what it last told, its places, and for how long its oldest datagram waits to be decoded (None: unknown)."""

    told: dict[str, Any]
    places: Places
    lag_seconds: float | None


def problems(conditions: Sequence[Condition], lag_seconds_max: int) -> list[str]:
    """What is wrong now. A collector that was stopped in good order is no problem while another one runs."""
    found: list[str] = []
    for condition in conditions:
        told = condition.told
        name = f"collector '{told['collector']}'"
        if told["running"]:
            found += [f"{name}: {problem}" for problem in _of_running(condition, lag_seconds_max)]
        elif told["state"] == "killed":
            found.append(f"{name} ended without saying so (process {told['pid']}): look at the log, start it again, or delete "
                         f"run/collector-{told['collector']}.json if it is gone for good")
    if not any(condition.told["running"] for condition in conditions):
        found.append("no collector runs: `ratemill run` or `ratemill collect run`")
    return found


def _of_running(condition: Condition, lag_seconds_max: int) -> list[str]:
    told, places = condition.told, condition.places
    if told["state"] == "starting":
        return ["it is starting and does not listen yet"]
    found = []
    pid = int(told["receiver_pid"] or 0)
    if not process_started(pid):
        found.append(f"the receiver (process {pid}) is dead")
    elif _age(int(places[places_of.LOOKED_AT])) > SILENT_SECONDS_MAX:
        found.append("the receiver waits for its disk and has not looked at its sockets for over a minute")
    if places[places_of.JOURNAL_FAILING]:
        found.append("the disk does not take the journal: free some space, or look at the kernel's log")
    if places[places_of.DISK_LEVEL] >= places_of.DISK_LEVEL_MOST:
        found.append(f"the disk reserve of {int(places[places_of.DISK_RESERVE])} octets is reached, nothing is taken any more: "
                     "free some space")
    elif places[places_of.DECODE_PAUSED]:
        found.append("the disk is nearly full and decoding waits: free some space")
    if told["trouble"]:
        found.append(f"decoding waits: {told['trouble']}")
    if _age(parse_instant(told["at"])) > SILENT_SECONDS_MAX:
        found.append(f"the decoder (process {told['pid']}) has not written its status for over a minute")
    if condition.lag_seconds is not None and condition.lag_seconds > lag_seconds_max:
        found.append(f"decoding is {condition.lag_seconds:.0f} s behind receiving ([metrics] lag_seconds_max is "
                     f"{lag_seconds_max}), {places_of.undecoded(places)} datagrams wait")
    return found


def _age(instant: int) -> float:
    return (clock.now_ms() - instant) / 1000


def not_ready(statuses: Sequence[dict[str, Any]]) -> list[str]:
    """Why nobody should send to us yet, or any more: no collector listens, or one is not there yet."""
    running = [told for told in statuses if told["running"]]
    found = [f"collector '{told['collector']}' is {told['state']}" for told in running if told["state"] != "running"]
    return found if running else ["no collector runs"]
