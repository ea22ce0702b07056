"""The journals of a group's members → bodies for one decoder: datagrams of all of them, merged by arrival.

A datagram goes out when all other members have come as far, by their own clocks put right, or when it has waited for a silent
one for `wait_seconds`. Nothing is decided by availability alone, so that what one member lost is filled in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collector.kernels import twins as kernels
from collector.layout import AHEAD_UNIT
from collector.settings import Group
from core import clock
from core.errors import DamagedFile
from runtime import log
from storage.journal import BODY_SIZE_MAX, DATAGRAMS_MAX, Block, JournalReader

_FOREVER = 2**62


@dataclass(frozen=True, slots=True)
class Place:
    """How far a member's journal is decoded: whole blocks up to `block`, and so many datagrams of the next one."""

    block: int
    datagrams: int


@dataclass(frozen=True, slots=True)
class Merged:
    """A body, and the datagrams that were received and are in no block: (received, how many)."""

    body: NDArray[np.uint8]
    losses: list[tuple[int, int]]


class _Member:
    """A journal that is read, and the block of it that is being merged."""

    def __init__(self, journal: Path, name: str, place: Place, words: NDArray[np.uint64]) -> None:
        self.name, self.place = name, place
        self.reader = JournalReader(journal, name, place.block + 1)
        self.block: Block | None = None
        self.datagrams = place.datagrams
        """Taken from the block."""
        self.loaded_ns = 0
        self.newest = -_FOREVER
        self._words = words
        self._named = 0
        self._losses: list[tuple[int, int]] = []

    def load(self) -> int:
        """Take the next block; returns the octets of its body, 0 if there is none. Raises DamagedFile."""
        found = next(self.reader.blocks(), None)
        if found is None:
            return 0
        self._words[: len(found.body) // 8] = found.body.view(np.uint64)
        self.block, self.loaded_ns = found, clock.monotonic_ns()
        if found.head.number != self.place.block + 1:
            self.datagrams = 0  # the block that was begun is gone
        if self.datagrams == 0:
            self._note_losses(found)
        return len(found.body)

    def _note_losses(self, found: Block) -> None:
        """What no block holds but was received: refused by the receiver, or in a damaged block."""
        if found.head.refused:
            self._losses.append((found.head.first_received, found.head.refused))
        for damage in self.reader.damage[self._named :]:
            head = damage.head
            log.error("decoder", str(damage), collector=self.name, datagrams=head.datagrams if head else None)
            if head is not None:
                self._losses.append((head.first_received, head.datagrams + head.refused))
        self._named = len(self.reader.damage)

    def take(self, count: int, newest: int) -> list[tuple[int, int]]:
        """Note that datagrams went out; returns the losses that are counted with the first one of their block."""
        assert self.block is not None, "datagrams are of a block"
        self.datagrams += count
        self.newest = max(self.newest, newest)
        self.place = Place(self.block.head.number - 1, self.datagrams)
        losses, self._losses = self._losses, []
        return losses

    def finish(self) -> None:
        """The block is used up."""
        assert self.block is not None, "there was one"
        self.place, self.block, self.datagrams = Place(self.block.head.number, 0), None, 0


class Merger:
    """Reads the journals of a group's members from their places on."""

    def __init__(self, journal: Path, group: Group, places: list[Place]) -> None:
        count = len(places)
        self._wait_ms = group.wait_seconds * 1000
        self._words = np.zeros((count, BODY_SIZE_MAX // 8), np.uint64)
        self._at, self._end, self._open, self._taken, self._newest = (np.zeros(count, np.int64) for _ in range(5))
        self._out, self._state = np.zeros(BODY_SIZE_MAX // 8, np.uint64), np.zeros(3, np.int64)
        self._members = [_Member(journal, name, place, self._words[number])
                         for number, (name, place) in enumerate(zip(group.members, places, strict=True))]
        self.final = False
        """Whether nobody receives any more: then nothing waits for a silent member."""

    @property
    def places(self) -> list[Place]:
        """Behind the last datagram that went out of each member."""
        return [member.place for member in self._members]

    def next_body(self, clocks: NDArray[np.int64]) -> Merged | None:
        """The next datagrams in order, None if none may go out now. Raises DamagedFile.

        `clocks`: by how much each member's clock is ahead of the first one's, in AHEAD_UNIT-ths of a millisecond.
        """
        ahead = clocks[: len(self._members)] // AHEAD_UNIT
        losses: list[tuple[int, int]] = []
        self._state[:] = 0
        while True:
            self._load()
            self._open_gates(ahead.tolist())
            self._taken[:] = 0
            self._newest[:] = -_FOREVER
            code = kernels.merge(self._words, self._at, self._end, ahead, self._open, self._taken, self._newest, self._out,
                                 self._state, DATAGRAMS_MAX)
            for number in np.flatnonzero(self._taken).tolist():
                losses += self._members[number].take(int(self._taken[number]), int(self._newest[number]))
            chosen = self._members[int(self._state[kernels.CHOSEN])]
            if code == kernels.BAD:
                raise _damage(chosen)
            if code != kernels.DRAINED:
                break
            chosen.finish()
        if not self._state[kernels.COUNT]:
            return None
        return Merged(self._out.view(np.uint8)[: self._state[kernels.USED]].copy(), losses)

    def _load(self) -> None:
        for number, member in enumerate(self._members):
            while member.block is None and (size := member.load()):
                start = kernels.skip(self._words[number], size, member.datagrams)
                if start < 0:
                    raise _damage(member)
                self._at[number], self._end[number] = start, size
                if start == size:
                    member.finish()

    def _open_gates(self, ahead: list[int]) -> None:
        """Up to which arrival each member's datagrams may go out: as far as all others have come, or waited for in vain."""
        now_ms, now_ns = clock.now_ms(), clock.monotonic_ns()
        silent = [member.newest - off for member, off in zip(self._members, ahead, strict=True) if member.block is None]
        reached = _FOREVER if self.final else min(silent, default=_FOREVER)
        for number, member in enumerate(self._members):
            waited = member.block is not None and now_ns - member.loaded_ns >= self._wait_ms * 1_000_000
            self._open[number] = _FOREVER if waited else max(reached, now_ms - self._wait_ms - ahead[number])

    def close(self) -> None:
        for member in self._members:
            member.reader.close()


def _damage(member: _Member) -> DamagedFile:
    assert member.block is not None, "the entry is of a block"
    return DamagedFile(f"block {member.block.head.number} of the journal of '{member.name}' holds an entry that reaches "
                       "beyond it", "its checksum was right, so a writer made it: keep the file and report it")
