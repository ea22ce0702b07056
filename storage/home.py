"""The home folder: where everything that belongs to one provider lies, and how to find it.

ratemill.toml   settings            segments/     flows (Arrow IPC)        documents/   invoices (PDF, JSON)
ratemill.db     SQL (SQLite)        cells/        cells and outcomes       frozen/      usage that charges were made of
journal/        datagrams           charges/      charges by period        run/         status of running processes
registries/     own elements        generations/  DuckDB for analysts      quarantine/  datagrams of unknown exporters
locks/                               lake/         flows, compacted (Parquet)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from core import settings
from core.errors import UsageError
from storage import files

FOLDERS = ("journal", "segments", "cells", "charges", "generations", "documents", "frozen", "run", "locks", "registries",
           "quarantine", "lake")
SETTINGS_FILE = "ratemill.toml"


@dataclass(frozen=True)
class Home:
    """A home folder; the folders below it exist after `create`."""

    path: Path

    @cached_property
    def document(self) -> settings.Document:
        """The parsed ratemill.toml (read once)."""
        return settings.load(self.path / SETTINGS_FILE)

    def folder(self, name: str) -> Path:
        assert name in FOLDERS, name
        return self.path / name

    def relative(self, path: Path) -> str:
        """The path as the manifest stores it."""
        return path.relative_to(self.path).as_posix()

    def create(self) -> None:
        for name in FOLDERS:
            files.make_folder(self.path / name)


def locate(named: str | None) -> Home:
    """The home that --home or RATEMILL_HOME names, else the current folder if it is one. Raises UsageError."""
    name = named or os.environ.get("RATEMILL_HOME")
    if name:
        return Home(Path(name).expanduser().absolute())
    if (Path.cwd() / SETTINGS_FILE).is_file():
        return Home(Path.cwd())
    raise UsageError("no home is named", "give --home DIR or set RATEMILL_HOME; `ratemill init --home DIR` makes one")


def open_home(named: str | None) -> Home:
    """The home, checked to be one. Raises SettingsError for a folder without ratemill.toml."""
    home = locate(named)
    _ = home.document
    home.create()
    return home
