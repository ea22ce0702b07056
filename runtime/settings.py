"""The section [run]: how `ratemill run` treats its processes and jobs."""

from __future__ import annotations

from dataclasses import dataclass

from core.settings import Document, read_section, setting


@dataclass(frozen=True)
class Run:
    """[run]: the supervisor's patience."""

    restart_seconds_max: int = setting(
        60,
        what="Longest pause before a process that died is started again; the pause doubles from 1 s.",
        unit="s",
        lowest=1,
        highest=3600,
    )
    stop_seconds_max: int = setting(
        30,
        what="How long processes may take to stop and write out what they hold before they are killed.",
        unit="s",
        lowest=1,
        highest=3600,
    )
    job_seconds_max: int = setting(
        7200,
        what="A job that runs for longer is stopped and counted as failed; the next one goes on where it was.",
        unit="s",
        lowest=10,
        highest=604_800,
    )


def run_settings(document: Document) -> Run:
    """The section [run] of ratemill.toml."""
    return read_section(document, "run", Run)
