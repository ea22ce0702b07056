"""`init`: makes a home folder with its settings and its database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from core import actor, clock, periods, settings
from core.errors import RatemillError, UsageError
from monitoring import home_template
from security import audit
from storage import files, sql
from storage.home import SETTINGS_FILE, Home


@dataclass(frozen=True)
class Choices:
    """What the operator decided on the command line; empty: left for the file."""

    name: str
    country: str
    currency: str
    timezone: str
    tax: str


@dataclass(frozen=True)
class Made:
    home: Home
    settings: Path
    written: bool
    next_steps: tuple[str, ...]


def make(home: Home, choices: Choices) -> Made:
    """Make the home. A second time with the same choices changes nothing. Raises RatemillError if another file is there."""
    text = home_template.compose(_checked(choices))
    path = home.path / SETTINGS_FILE
    try:
        home.path.mkdir(parents=True, exist_ok=True)
        existing = path.read_text(encoding="utf-8") if path.exists() else None
        if existing is not None and existing != text:
            raise RatemillError(
                f"{path} is there already and differs from what this command would write",
                "edit it, or name another folder with --home; `ratemill config check` says whether it is right",
            )
        if existing is None:
            files.write_whole(path, text.encode())
        home.create()
    except OSError as error:
        raise files.explain(error, home.path) from error
    engine = sql.engine(home)
    if existing is None:
        with sql.transaction(engine) as connection:
            audit.record(connection, actor.current("ratemill init"), "init", SETTINGS_FILE, after={"text": text})
    return Made(home, path, existing is None, _next_steps(home, choices))


def _checked(choices: Choices) -> Mapping[str, Mapping[str, str]]:
    """The choices as TOML by section and key. Raises UsageError for one that is impossible."""
    try:
        settings.currency_setting(choices.currency)
        settings.zone_setting(choices.timezone)
        if choices.tax:
            settings.percent_setting(choices.tax)
        if not (choices.name + choices.country).isprintable():
            raise ValueError("--name and --country are one line of text each")
    except ValueError as error:
        raise UsageError(str(error)) from None
    seller = {
        "name": home_template.toml(choices.name),
        "country": home_template.toml(choices.country.upper()),
        "tax_id": '""',
        "address": '""',
        "iban": '""',
        "currency": home_template.toml(choices.currency),
        "timezone": home_template.toml(choices.timezone),
    }
    decided: dict[str, Mapping[str, str]] = {"seller": seller}
    if choices.tax:
        decided["tax"] = {
            "category": '"standard"',
            "percent": home_template.toml(choices.tax),
            "from": _first_day_of_this_year().isoformat(),
        }
    return decided


def _first_day_of_this_year() -> date:
    return date(periods.from_ms(clock.now_ms()).year, 1, 1)


def _next_steps(home: Home, choices: Choices) -> tuple[str, ...]:
    option = f"--home {home.path}"
    tax = "" if choices.tax else ", a [[tax]]"
    return (
        f"edit {home.path / SETTINGS_FILE}: [seller]{tax}, and what your network needs; "
        f"then `ratemill {option} config check`",
        f"plans, customers, addresses: `ratemill {option} plans apply plans.toml`, "
        "`subscribers import subscribers.csv`, `leases import leases.csv`",
        f"a first look at your traffic: `ratemill {option} collect replay CAPTURE.pcap`",
        f"the service: `ratemill {option} run`, with routers exporting to this machine",
    )
