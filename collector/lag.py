"""How far decoding is behind receiving, and what the journal takes on the disk. For metrics, /healthz and `--watch`."""

from __future__ import annotations

from dataclasses import dataclass

from collector import counters as places_of
from collector.counters import DECODED_BLOCK, Places
from core import clock
from core.errors import DamagedFile
from storage.home import Home
from storage.journal import BlockHead, JournalReader, folder_of, journal_files


@dataclass(frozen=True, slots=True)
class Lag:
    """Up to a segment's time (`segment_seconds`) of it is no lag, but the way that decoding works."""

    datagrams: int
    """Received and not yet in a segment, nor lost."""
    blocks: int
    """Durable in the journal and not yet in a segment."""
    seconds: float
    """Age of the oldest datagram in such a block; 0 without one."""


@dataclass(frozen=True, slots=True)
class JournalSize:
    files: int
    octets: int


class Follower:
    """Walks behind a collector's decoder through the headers of its journal's blocks: each is read once."""

    def __init__(self, home: Home, collector: str) -> None:
        self._home, self._collector = home, collector
        self._reader: JournalReader | None = None
        self._next: BlockHead | None = None

    def lag(self, places: Places) -> Lag:
        """The lag at the moment at which the places were read."""
        blocks = places_of.undecoded_blocks(places)
        first = self._first_after(int(places[DECODED_BLOCK])) if blocks else None
        seconds = 0.0 if first is None else max(0, clock.now_ms() - first) / 1000
        return Lag(places_of.undecoded(places), blocks, seconds)

    def _first_after(self, block: int) -> int | None:
        """When the first datagram behind a block came; None if the journal does not say."""
        if self._reader is None or (self._next is not None and self._next.number > block + 1):
            self.close()  # at the beginning, or after a jump backwards: a home that was restored
            self._reader = JournalReader(self._home.folder("journal"), self._collector, block + 1)
        try:
            while self._next is None or self._next.number <= block:
                found = next(self._reader.blocks(with_bodies=False), None)
                if found is None:
                    return None
                self._next = found.head
        except (DamagedFile, OSError):  # the decoder names it; or a file went while we looked
            self.close()
            return None
        return self._next.first_received

    def close(self) -> None:
        """Let go of the journal."""
        if self._reader is not None:
            self._reader.close()
        self._reader = self._next = None


def journal_size(home: Home, collector: str) -> JournalSize:
    """What a collector's journal takes on the disk now."""
    count = octets = 0
    for path in journal_files(folder_of(home.folder("journal"), collector)):
        try:
            octets += path.stat().st_size
        except FileNotFoundError:  # forgotten while we looked
            continue
        count += 1
    return JournalSize(count, octets)
