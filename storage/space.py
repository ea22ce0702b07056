"""How full the disk is: the reserve, and who stops writing first.

    free >= warning             everybody writes
    free <  warning             everybody writes, and the collector says so
    free <  2 * reserve         only the journal of datagrams writes: receiving is urgent, everything else can wait
    free <  reserve             nothing is received any more; what is left lets SQL commit and a person clean up

Free is what a user without special rights may still write (`statvfs`: f_bavail). A writer looks at the file system of the
folder that it writes to. Nothing is remembered: when there is space again, everything goes on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from core.errors import RatemillError
from core.settings import Document

RESERVE_MAX = 2**30
"""The default of `[collector] disk_reserve`: so much, or RESERVE_SHARE of a smaller disk."""
RESERVE_SHARE = 20
WARNING_FACTOR = 4
"""The default of `[collector] disk_warning` in reserves."""
PAUSE_FACTOR = 2
"""Below so many reserves only the journal writes."""


class Level(IntEnum):
    """How full a disk is; the name in lower case is what commands print."""

    OK = 0
    LOW = 1
    JOURNAL_ONLY = 2
    FULL = 3

    @property
    def label(self) -> str:
        return self.name.lower()


class DiskLow(RatemillError):
    """A writer that can wait was asked to write while the rest of the disk is kept for those that can't."""


@dataclass(frozen=True, slots=True)
class Space:
    """A file system at one moment, in octets."""

    free: int
    reserve: int
    warning: int

    @property
    def level(self) -> Level:
        if self.free < self.reserve:
            return Level.FULL
        if self.free < PAUSE_FACTOR * self.reserve:
            return Level.JOURNAL_ONLY
        return Level.LOW if self.free < self.warning else Level.OK

    def __str__(self) -> str:
        return f"{megabytes(self.free)} free, reserve {megabytes(self.reserve)}"


def megabytes(octets: int) -> str:
    """For people: whole MB of 10^6 octets, kB below one."""
    return f"{octets // 10**6} MB" if octets >= 10**6 else f"{octets // 1000} kB"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the settings say; None is the default, which depends on the size of the disk."""

    reserve: int | None = None
    warning: int | None = None

    def look(self, folder: Path) -> Space:
        """The file system of a folder now. Raises RatemillError if it does not answer."""
        try:
            found = os.statvfs(folder)
        except OSError as error:
            raise RatemillError(f"{folder} can't be looked at: {error.strerror or error}", "is its disk mounted?") from error
        total = found.f_frsize * found.f_blocks
        reserve = min(RESERVE_MAX, total // RESERVE_SHARE) if self.reserve is None else self.reserve
        warning = WARNING_FACTOR * reserve if self.warning is None else self.warning
        return Space(found.f_frsize * found.f_bavail, reserve, max(warning, PAUSE_FACTOR * reserve))


def limits(document: Document) -> Limits:
    """What ratemill.toml says in [collector], whose owner has checked it; read here for all who write."""
    section = document.get("collector")
    said = section if isinstance(section, dict) else {}
    values = [said.get(name) for name in ("disk_reserve", "disk_warning")]
    return Limits(*(value if isinstance(value, int) and not isinstance(value, bool) else None for value in values))


HINT = ("free some space (old journals: [collector] journal_keep_hours; old generations, documents, backups) or enlarge "
        "the disk; it goes on by itself")


def require(folder: Path, document: Document, what: str) -> None:
    """Let a writer that can wait go on. Raises DiskLow while the rest of the disk is kept for the journal."""
    found = limits(document).look(folder)
    if found.level >= Level.JOURNAL_ONLY:
        raise DiskLow(f"the disk is nearly full ({found}): {what} waits, the rest is for datagrams that arrive", HINT)
