"""The decode worker of a group: the journals of collectors that the same exporters feed → segments, each datagram once.

Each member receives into a journal of its own; `collector.twins` merges them, and one decoder gets the result: a copy that
another member brought is known by the window of duplicates (`twin`), a datagram that one member lost is filled by the other,
and missing is only what none received. One transaction registers a segment and moves the position of every member; killed at
any moment, the next worker goes on there. Any process may be the one that decodes: whoever holds the group's lock, and the
transaction checks that nobody else moved the position meanwhile.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from collector import counters as places_of
from collector import positions, quarantine, segments, worker
from collector.commits import Committer
from collector.counters import DECODED, DECODED_BLOCK, DECODED_PART, FLOWS
from collector.decoder import Decoder
from collector.layout import AHEAD_UNIT
from collector.segment_builder import SegmentBuilder
from collector.settings import Group, of_home
from collector.state import DecoderState
from collector.twins import Merger, Place
from core import tables
from core.errors import Locked
from runtime import log
from storage import sql
from storage.home import Home
from storage.journal import JournalReader


@dataclass(frozen=True, slots=True)
class MemberFigures:
    """What a member of a group brought, cumulative, in datagrams."""

    collector: str
    datagrams: int
    first: int
    """That no other had brought before."""
    twin: int
    """That another had brought before."""
    duplicate: int
    late: int
    filled: int
    """That this member never brought and another did."""
    ahead_ms: int
    """Its clock less that of the first member."""


class GroupWorker:
    """Decodes the journals of one group; the caller holds the group's lock."""

    def __init__(self, home: Home, group: Group) -> None:
        """Raises DamagedFile if the saved state is damaged."""
        self._home, self._group = home, group
        self._engine = sql.engine(home)
        self._settings = of_home(home)
        own = positions.load_position(home, self._engine, group.name)
        places = [_place(self._engine, name) for name in group.members]
        swept = segments.sweep_orphans(home, self._engine, group.name) + quarantine.sweep(home, self._engine, group.name)
        if swept:
            log.info("decoder", "files of an interrupted run removed", group=group.name, files=swept)
        state = own.state if own.block >= 0 else _inherited(home, self._engine, group)
        self._committed, self._serial = own.block, own.block + 1
        self._decoder = Decoder(self._settings, state, group)
        self._builder = SegmentBuilder(home, group.name, worker.settings_digest(self._settings),
                                       self._settings.collector.compression, self._settings.collector.threads)
        self._committer = Committer(home, self._engine, group.name, self._settings, self._decoder)
        self._merger = Merger(home.folder("journal"), group, places)
        self._before = places
        self._counters = [places_of.open_counters(home, name) for name in group.members]
        self._count(places)
        self.decoded = 0
        """Datagrams of committed segments since this worker began, whatever became of them."""

    def finish_without_waiting(self) -> None:
        """Nobody receives any more: nothing waits for a silent member."""
        self._merger.final = True

    def pump(self, bodies_max: int = 256) -> int:
        """Merge and decode what may go out now; full segments are committed. Returns how many bodies were decoded."""
        count = 0
        while count < bodies_max:
            merged = self._merger.next_body(self._decoder.state.arrays.members["ahead"])
            if merged is None:
                break
            decoded = self._decoder.feed(merged.body, self._serial, self._builder.columns)
            self._builder.add(decoded, self._serial)
            self._committer.held.add(decoded.held, self._serial)
            for more in self._decoder.rest(self._serial, self._builder.columns):
                self._builder.add(more, self._serial)
                if self._builder.is_full:
                    break  # the remainder comes with the next bodies
            for received, datagrams in merged.losses:
                self._builder.refuse(received, datagrams, self._serial)
            self._serial += 1
            count += 1
            if self._builder.is_full:
                self.commit()
        return count

    def commit(self) -> None:
        """Store what was decoded since the last time. Raises RatemillError; then nothing of it counts."""
        if self._builder.is_empty:
            return
        places = self._merger.places
        moment = self._committer.seal(self._builder)

        def move(connection: sa.Connection, segment: int, state: tuple[str, str]) -> None:
            positions.move_position(connection, self._group.name, moment.block, state)
            self._move_members(connection, segment, places)

        segment = self._committer.write(moment, move, self._require_alone)
        self._committed, self._before = moment.block, places
        self.decoded += moment.datagrams
        self._counters[0][FLOWS] += int(segment.row["flows"])
        self._count(places)
        for name in self._group.members:  # of a time when it was decoded alone
            positions.sweep_states(self._home, name)

    def _require_alone(self, connection: sa.Connection) -> None:
        """Raises Locked if another process moved the position: a lock on a shared disk may fail, the database does not."""
        position = tables.decoder_position
        query = sa.select(position.c.block).where(position.c.collector == self._group.name).with_for_update()
        found = connection.execute(query).scalar()
        if (-1 if found is None else found) != self._committed:
            raise Locked(f"the group '{self._group.name}' is being decoded by another process",
                         "locks do not hold on this disk: let one machine decode, and run the others with --receive-only")

    def _move_members(self, connection: sa.Connection, segment: int, places: list[Place]) -> None:
        for name, before, place in zip(self._group.members, self._before, places, strict=True):
            positions.move_position(connection, name, place.block, None, place.datagrams)
            if place != before:
                connection.execute(tables.segment_source.insert().values(
                    segment_id=segment, collector=name, block_after=before.block, datagrams_after=before.datagrams,
                    block_until=place.block, datagrams_until=place.datagrams))

    def _count(self, places: list[Place]) -> None:
        """Bring the members' figures to what is committed; a killed run may have committed without having counted."""
        for name, place, counters in zip(self._group.members, places, self._counters, strict=True):
            if (place.block, place.datagrams) == (counters[DECODED_BLOCK], counters[DECODED_PART]):
                continue
            whole = 0
            reader = JournalReader(self._home.folder("journal"), name, int(counters[DECODED_BLOCK]) + 1)
            for found in reader.blocks(with_bodies=False):
                if found.head.number > place.block:
                    break
                whole += found.head.datagrams
            reader.close()
            counters[DECODED] += whole + place.datagrams - counters[DECODED_PART]
            counters[DECODED_BLOCK], counters[DECODED_PART] = place.block, place.datagrams

    def figures(self) -> list[dict[str, Any]]:
        """What each member brought, as `MemberFigures`."""
        brought = self._decoder.state.arrays.members[: len(self._group.members)]
        distinct = int(brought["first"].sum())
        found = []
        for name, row in zip(self._group.members, brought, strict=True):
            datagrams, first, twin, duplicate, late, ahead = (int(row[key]) for key in (
                "datagrams", "first", "twin", "duplicate", "late", "ahead"))
            found.append(asdict(MemberFigures(name, datagrams, first, twin, duplicate, late, distinct - first - twin,
                                              ahead // AHEAD_UNIT)))
        return found

    def close(self) -> None:
        """Let go of everything that is not committed."""
        self._merger.close()
        self._builder.abandon()


def _place(engine: sa.Engine, collector: str) -> Place:
    position = tables.decoder_position
    with sql.reading(engine) as connection:
        row = connection.execute(sa.select(position).where(position.c.collector == collector)).one_or_none()
    return Place(-1, 0) if row is None else Place(row.block, row.datagrams)


def next_block(home: Home, collector: str) -> int:
    """The number before which a member's receiver must not begin, even if its journal is gone."""
    place = _place(sql.engine(home), collector)
    return place.block + 1 + (place.datagrams > 0)


def _inherited(home: Home, engine: sa.Engine, group: Group) -> DecoderState | None:
    """The state of the first member that was decoded alone before: its templates and samplers go on."""
    states = (positions.load_position(home, engine, name).state for name in group.members)
    return next((state for state in states if state is not None), None)


def decode_group(home: Home, group: Group) -> int:
    """Decode all that the members' journals hold now, and commit it. Returns the number of datagrams.

    The caller holds the group's lock. Raises RatemillError.
    """
    one = GroupWorker(home, group)
    one.finish_without_waiting()
    try:
        while one.pump():
            pass
        one.commit()
        return one.decoded
    finally:
        one.close()
