"""The commit of a segment: its rows, and with them all that the decoder knew when it was sealed, in one transaction.

What is committed is taken by the thread that decodes (`Committer.seal`), since the decoder's state changes with the next
block; writing it (`Committer.write`) may go on in another thread. A process that is killed in between leaves files that no
row names, and the next one sweeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from collector import positions, quarantine, segments, totals
from collector.decoder import Decoder
from collector.knowledge import Changes, Knowledge
from collector.segment_builder import SegmentBuilder, Unfinished
from collector.segments import Segment
from collector.settings import CollectorSettings
from collector.state import DecoderState, ExporterRow, Stranger
from core import clock, tables
from storage import sql
from storage.home import Home

ExporterKey = tuple[bytes, int, int]
Move = Callable[[sa.Connection, int, tuple[str, str]], None]
"""(connection, number of the segment, the saved state): moves the position, in the transaction."""


@dataclass(frozen=True)
class Moment:
    """What a commit writes: the segment, and what was known when it was sealed."""

    segment: Unfinished
    block: int
    """The last one whose flows are in the segment."""
    datagrams: int
    state: bytes
    exporters: list[ExporterRow]
    """Those that changed."""
    missing: dict[ExporterKey, int]
    """By how much the missing of each grew, or fell."""
    strangers: list[Stranger] | None
    """None: as before."""
    knowledge: Changes | None
    held: quarantine.Builder


class Committer:
    """Commits the segments of one collector, or of one group, one after the other."""

    def __init__(self, home: Home, engine: sa.Engine, name: str, settings: CollectorSettings, decoder: Decoder) -> None:
        self._home, self._engine, self._name = home, engine, name
        self._held_max = settings.collector.quarantine_octets_max
        self._state = decoder.state
        self._known = exporter_rows(self._state)
        self._strangers = self._state.strangers()
        self._knowledge = Knowledge(name)
        self.held = quarantine.Builder(name, self._held_max)
        """Where entries of unknown exporters go."""

    def seal(self, builder: SegmentBuilder) -> Moment:
        """Take all that was added to the builder since the last time. Raises RatemillError.

        If `write` fails for one moment, those sealed behind it must not be written: begin anew from the last position.
        """
        rows = exporter_rows(self._state)
        changed = [row for key, row in rows.items() if self._known.get(key) != row]
        missing = {key: rows[key].missing - (self._known[key].missing if key in self._known else 0)
                   for key in (_key(row) for row in changed)}
        strangers = self._state.strangers()
        block, datagrams = builder.block_last, builder.datagrams
        moment = Moment(builder.seal(), block, datagrams, self._state.to_bytes(), changed, missing,
                        strangers if strangers != self._strangers else None, self._knowledge.changes(self._state), self.held)
        self._known, self._strangers = rows, strangers
        self.held = quarantine.Builder(self._name, self._held_max)
        return moment

    def write(self, moment: Moment, move: Move, check: Callable[[sa.Connection], None] = lambda _: None) -> Segment:
        """Finish the segment and commit it; `check` is the first thing in the transaction. Raises RatemillError; then nothing
        of it counts."""
        segment = moment.segment.finish()
        held = moment.held.write(self._home)
        state = positions.save_state(self._home, self._name, moment.block, moment.state)
        with sql.transaction(self._engine) as connection:
            check(connection)
            version = segments.next_version(connection, clock.now_ms(), "segments", segment.path)
            (number,) = segments.register(connection, [segment], version)
            write_exporters(connection, self._name, moment.exporters)
            if moment.knowledge is not None:
                moment.knowledge.write(connection)
            totals.add(connection, self._name, segment.intake, segment.faults, moment.missing, totals.skews(segment.intake))
            if moment.strangers is not None:
                write_strangers(connection, self._name, moment.strangers)
            dropped = quarantine.register(connection, held, self._held_max)
            move(connection, number, state)
        quarantine.remove(self._home, dropped)
        positions.sweep_states(self._home, self._name, keep=self._home.path / state[0])
        return segment


# rows of exporters ----------------------------------------------------------------------------------------------------
def _key(row: ExporterRow) -> ExporterKey:
    return row.exporter, row.domain, row.protocol


def exporter_rows(state: DecoderState) -> dict[ExporterKey, ExporterRow]:
    return {_key(row): row for row in state.exporters()}


EXPORTER_SUMS = tuple(name for name in ExporterRow.__slots__ if name not in ("exporter", "domain", "protocol", "first", "last"))
EXPORTER_COUNTS = (*EXPORTER_SUMS, "first", "last")


def write_exporters(connection: sa.Connection, name: str, rows: Iterable[ExporterRow]) -> None:
    """Replace the cumulative counts of these exporters."""
    table = tables.exporter_state
    values = [{"collector": name, "exporter": row.exporter, "domain": row.domain, "export_protocol": row.protocol,
               **{count: getattr(row, count) for count in EXPORTER_COUNTS}} for row in rows]
    if not values:
        return
    connection.execute(
        table.delete().where(table.c.collector == name, table.c.exporter == sa.bindparam("e"),
                             table.c.domain == sa.bindparam("d"), table.c.export_protocol == sa.bindparam("p")),
        [{"e": row["exporter"], "d": row["domain"], "p": row["export_protocol"]} for row in values])
    connection.execute(table.insert(), values)


def write_strangers(connection: sa.Connection, name: str, rows: Iterable[Stranger]) -> None:
    """Replace the list of unknown exporters."""
    table = tables.unknown_exporter
    connection.execute(table.delete().where(table.c.collector == name))
    values = [{"collector": name, "exporter": row.exporter, "datagrams": row.datagrams, "overcount": row.over,
               "first": row.first, "last": row.last} for row in rows]
    if values:
        connection.execute(table.insert(), values)
