"""Entries of one address → who had it when: a function of the set of entries, not of their order or repetition.

An entry tells what holds from its instant on: an active one from the client's last transaction, an ended one from its
end. The newest entry before a moment decides it. An entry also looks back: it knows since when its client had the
address, as far as no other entry says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from subscribers.dhcp.entries import Client, Entry, State


@dataclass(slots=True)
class Interval:
    client: Client
    start: int
    end: int


_RANKS = {State.ENDED: 0, State.ACTIVE: 1, State.VOID: 2}
"""At one instant the later one counts. A Kea server that deletes a lease writes the instant of the last renewal beside:
that it ends then is not what it says, so the renewal counts."""


def intervals(entries: Iterable[Entry]) -> list[Interval]:
    """The times of clients by start; they never overlap. The entries must be all of one address in one realm."""
    distinct = set(entries)
    ends: dict[int, int] = {}
    for entry in distinct:
        if entry.state is State.ENDED:
            ends[entry.seen] = max(ends.get(entry.seen, entry.end), entry.end)
    found: list[Interval] = []
    before: tuple[int, Entry] | None = None
    for at, entry in sorted(((_at(entry, ends), entry) for entry in distinct), key=_order):
        begin = _begin(at, entry, before)
        if begin is None:
            continue
        if found and found[-1].end > begin:
            found[-1].end = begin
        if entry.client is not None and entry.state is not State.VOID and begin < entry.end:
            found.append(Interval(entry.client, begin, entry.end))
        before = at, entry
    return _joined(found)


def _at(entry: Entry, ends: dict[int, int]) -> int:
    if entry.state is State.VOID:
        # ISC keeps the last client's transaction in an abandoned entry: it came after the end of that client's time
        return max(entry.seen, ends.get(entry.seen, entry.seen))
    return entry.seen if entry.state is State.ACTIVE else entry.end


def _order(pair: tuple[int, Entry]) -> tuple[object, ...]:
    at, entry = pair
    return at, _RANKS[entry.state], entry.client.identifiers if entry.client else (), entry.start, entry.end, entry.seen


def _begin(at: int, entry: Entry, before: tuple[int, Entry] | None) -> int | None:
    """From when on an entry counts, not before the one before it; None: it is contradicted by that one."""
    if entry.state is State.VOID or entry.client is None:
        return at
    if before is None:
        return entry.start
    other_at, other = before
    if other.state is State.ACTIVE:
        same = other.client is not None and other.client.identity is not None and other.client.identity == entry.client.identity
        if same:  # what lies between two entries of one client is its own, if it says that it never was without
            return max(min(other.end, at), min(entry.start, at))
        if entry.state is State.ENDED and entry.start < other_at:
            return None  # its address had gone to another client already
    return entry.start if entry.start >= other_at else at


def _joined(found: list[Interval]) -> list[Interval]:
    joined: list[Interval] = []
    for one in found:
        if one.start >= one.end:
            continue
        if joined and joined[-1].end == one.start and joined[-1].client == one.client:
            joined[-1].end = one.end
        else:
            joined.append(one)
    return joined
