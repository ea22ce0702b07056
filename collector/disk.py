"""The collector under a disk that fills up: what it says, and when its decoder waits for the journal's sake.

`storage.space` draws the levels. The receiver writes what it sees into the shared counters, so that `collect status` shows
it; each change of level is one line of the log.
"""

from __future__ import annotations

import threading
from pathlib import Path

from collector.counters import DECODE_PAUSED, DISK_FREE, DISK_LEVEL, DISK_RESERVE, DISK_WARNING, Places
from core.errors import RatemillError
from core.settings import Document
from runtime import log
from storage import space
from storage.space import HINT, DiskLow, Level, Space

_SAYS = {
    Level.OK: "the disk has space again",
    Level.LOW: "the disk is filling up",
    Level.JOURNAL_ONLY: "the disk is nearly full: datagrams are still taken, decoding waits",
    Level.FULL: "the disk is full up to its reserve: datagrams are refused, and counted",
}


_MARGIN = 16
"""A level is left for a better one when a part of the reserve more than needed is free: no line a second at its edge."""


class Watch:
    """Looks at the file system of a folder, notes what it sees in the counters and logs every change of level."""

    def __init__(self, folder: Path, document: Document, counters: Places) -> None:
        self._folder, self._limits, self._counters = folder, space.limits(document), counters
        self._level = Level.OK
        self._saying = threading.Lock()  # the thread that writes looks, too
        self.look()

    def look(self) -> Space | None:
        """The space of this moment; None if the disk does not answer, which its writer will be told, too."""
        try:
            found = self._limits.look(self._folder)
        except RatemillError:
            return None
        places = self._counters
        places[DISK_FREE], places[DISK_RESERVE], places[DISK_WARNING] = found.free, found.reserve, found.warning
        places[DISK_LEVEL] = found.level
        with self._saying:
            level = settled(found, self._level)
            if level != self._level:
                self._level = level
                self._say(found)
        return found

    def _say(self, found: Space) -> None:
        level = self._level
        figures = {"free": found.free, "reserve": found.reserve, "warning": found.warning, "folder": self._folder}
        if level == Level.OK:
            log.info("receiver", _SAYS[level], **figures)
        else:
            write = log.error if level == Level.FULL else log.warning
            write("receiver", _SAYS[level], **figures, hint=HINT)

    def require_reserve(self) -> None:
        """Raises DiskLow if only the reserve is left."""
        found = self.look()
        if found is not None and found.level == Level.FULL:
            raise DiskLow(f"the disk is full up to its reserve ({found})", HINT)


def settled(found: Space, before: Level) -> Level:
    """The level to act on: a worse one at once, a better one with a margin."""
    if found.level >= before:
        return found.level
    return min(before, Space(found.free - found.reserve // _MARGIN, found.reserve, found.warning).level)


class DecodePause:
    """Whether decoding waits because the rest of the disk is the journal's; says so when that changes."""

    def __init__(self, folder: Path, document: Document, counters: Places) -> None:
        self._folder, self._limits, self._counters = folder, space.limits(document), counters
        self._level = Level.OK
        self.trouble = ""
        """Why decoding waits; empty while it goes on."""

    def look(self) -> bool:
        """Look again; whether decoding waits."""
        try:
            found = self._limits.look(self._folder)
        except RatemillError as error:
            self._change(error.message, error.hint)
            return True
        self._level = settled(found, self._level)
        waits = self._level >= Level.JOURNAL_ONLY
        self._change(f"the disk is nearly full ({found}): decoding waits, the rest is for datagrams that arrive"
                     if waits else "", HINT)
        return waits

    def _change(self, trouble: str, hint: str) -> None:
        if bool(trouble) != bool(self.trouble):
            if trouble:
                log.warning("decoder", trouble, hint=hint)
            else:
                log.info("decoder", "decoding goes on: the disk has space again")
        self.trouble = trouble
        self._counters[DECODE_PAUSED] = bool(trouble)
