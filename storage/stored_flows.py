"""Where the flows of segments are: in files of their own while they are hot, in parts of the lake once they are compacted.

A segment in the lake is never read by itself, as its flows are spread over the part: whoever reads many names them together,
and each part is read once. Flows whose far ends were truncated, or that were deleted, are not what was decoded any more:
who must have exactly that is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from core import tables
from core.errors import FlowsForgotten
from core.periods import format_instant
from storage import lake
from storage.home import Home
from storage.lake import FLOWS_KIND, File, Meter, Part

_SQL_VALUES_MAX = 500


@dataclass(frozen=True)
class InPart:
    """Segments whose flows lie in one part, and the files to read."""

    part: Part
    segments: frozenset[int]
    files: tuple[File, ...]

    @property
    def forgotten(self) -> str | None:
        """What can't be had of them any more, as a sentence; None if all is there."""
        for what, at in (("deleted", self.part.deleted), ("truncated to their networks", self.part.truncated)):
            if at is not None:
                return (f"flows received from {format_instant(self.part.received_first)} to "
                        f"{format_instant(self.part.received_last)} were {what} at {format_instant(at)}")
        return None


@dataclass(frozen=True)
class Located:
    """Some segments: those that have files of their own, and those in parts."""

    hot: frozenset[int]
    parts: tuple[InPart, ...]

    def require_exact(self, what: str) -> None:
        """Raises FlowsForgotten if any of these flows is not what was decoded."""
        for one in self.parts:
            if one.forgotten is not None:
                raise FlowsForgotten(
                    f"{what} needs flows as they were decoded: {one.forgotten}",
                    "what was made of them before stays; [retention] of ratemill.toml says how long they are kept")


def locate(connection: sa.Connection, segments: Iterable[int]) -> Located:
    """Where the flows of these segments are now."""
    wanted = sorted(set(segments))
    table = tables.lake_segment
    by_part: dict[int, set[int]] = {}
    for first in range(0, len(wanted), _SQL_VALUES_MAX):
        some = wanted[first : first + _SQL_VALUES_MAX]
        for row in connection.execute(sa.select(table).where(table.c.segment_id.in_(some))):
            by_part.setdefault(row.part_id, set()).add(row.segment_id)
    found = []
    for part in lake.parts(connection, deleted=True) if by_part else ():
        if part.id in by_part:
            files = () if part.deleted is not None else tuple(lake.files_of(connection, part.id, FLOWS_KIND))
            found.append(InPart(part, frozenset(by_part.pop(part.id)), files))
    assert not by_part, "a segment is in a part that counts"
    in_lake = {segment for one in found for segment in one.segments}
    return Located(frozenset(wanted) - in_lake, tuple(found))


def hot(connection: sa.Connection, segments: Iterable[int]) -> set[int]:
    """Those of the segments that have files of their own still, and nothing else."""
    wanted = set(segments)
    table = tables.lake_segment
    ordered = sorted(wanted)
    for first in range(0, len(ordered), _SQL_VALUES_MAX):
        some = ordered[first : first + _SQL_VALUES_MAX]
        wanted -= set(connection.scalars(sa.select(table.c.segment_id).where(table.c.segment_id.in_(some))))
    return wanted


def scan(home: Home, one: InPart, names: Sequence[str], meter: Meter | None = None) -> Iterator[pa.Table]:
    """The flows of these segments, in the part's order: these columns of flows, `segment` and `row`. Raises DamagedFile,
    FlowsForgotten if they were deleted."""
    if one.part.deleted is not None:
        raise FlowsForgotten(one.forgotten or "", "a backup from before has them")
    wanted = pa.array(sorted(one.segments), pa.int64())
    columns = lake.columns_of(list(dict.fromkeys([*names, *lake.KEYS])))
    for file in one.files:
        for table in lake.read_whole(home, file, columns, meter):
            rows = table.filter(pc.is_in(table.column("segment"), wanted))
            if rows.num_rows:
                yield lake.to_flows(rows.combine_chunks(), list(dict.fromkeys([*names, *lake.KEYS])))
