"""Sessions of access servers as usage: seconds and octets by tariff zone, and beside the octets of the flows.

Reads `radius_event`, the timelines and, to compare, the published usage; a pure function of them. An open session counts up
to its last report, as does one whose Stop was lost: what came behind it is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import sqlalchemy as sa

from aggregation import export
from aggregation.timelines import NO_SUBSCRIPTION, Piece, Timelines, period_number
from core import periods, schemas, settings, tables
from core.periods import OPEN_END
from storage import sql
from storage.home import Home
from subscribers.radius import events
from subscribers.radius.owners import Owned, owned
from subscribers.radius.settings import from_document

SESSIONS_AT_ONCE = 2000
COMPARED = ("service", "sessions", "seconds", "radius_up", "radius_down", "flows_up", "flows_down", "difference_up",
            "difference_down", "difference_percent")


def _field(name: str, kind: pa.DataType, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable)


SCHEMA = pa.schema([
    _field("service", pa.string(), True), _field("period", pa.string()), _field("subscription", pa.int64(), True),
    _field("session", pa.string()), _field("user", pa.string()), _field("nas", pa.string()), _field("realm", pa.string()),
    _field("start", schemas.INSTANT), _field("end", schemas.INSTANT, True), _field("closed_by", pa.string()),
    _field("zone", pa.string(), True), _field("seconds", pa.int64()), _field("up", pa.int64()), _field("down", pa.int64())])
"""One row for each session, subscription and zone of a local month. `end` is null while the session is open; `closed_by` is
stop, nas, lost or empty; `up` and `down` are octets."""


@dataclass(slots=True)
class SessionUsage:
    """What one session used in one zone of a month."""

    owner: Owned
    service: str | None
    subscription: int
    zone: str
    seconds: int = 0
    up: int = 0
    down: int = 0


@dataclass(slots=True)
class _Compared:
    sessions: int = 0
    seconds: int = 0
    radius: dict[str, int] = field(default_factory=lambda: dict.fromkeys(schemas.DIRECTION_NAMES, 0))
    flows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(schemas.DIRECTION_NAMES, 0))

    def row(self, service: str | None) -> dict[str, object]:
        radius, flows = self.radius, self.flows
        total = sum(radius.values())
        difference = sum(flows.values()) - total
        hundredths = abs(difference) * 10_000 // total if total else None
        return {"service": service, "sessions": self.sessions, "seconds": self.seconds,
                "radius_up": radius["up"], "radius_down": radius["down"], "flows_up": flows["up"], "flows_down": flows["down"],
                "difference_up": flows["up"] - radius["up"], "difference_down": flows["down"] - radius["down"],
                "difference_percent": None if hundredths is None else (hundredths if difference > 0 else -hundredths) / 100}


def batches(home: Home, period: str) -> Iterator[pa.RecordBatch]:
    """SCHEMA, ordered by access server, session, user, begin and zone."""
    for used in _batches(home, period):
        sessions = [one.owner.session for one in used]
        columns: dict[str, list[object]] = {
            "service": [one.service for one in used], "period": [period] * len(used),
            "subscription": [None if one.subscription == NO_SUBSCRIPTION else one.subscription for one in used],
            "session": [one.session for one in sessions], "user": [one.user for one in sessions],
            "nas": [one.nas for one in sessions], "realm": [one.owner.realm for one in used],
            "start": [one.start for one in sessions], "end": [None if one.end == OPEN_END else one.end for one in sessions],
            "closed_by": [one.closed_by for one in sessions], "zone": [one.zone or None for one in used],
            "seconds": [one.seconds for one in used], "up": [one.up for one in used], "down": [one.down for one in used]}
        yield pa.RecordBatch.from_pydict(columns, schema=SCHEMA)


def compare(home: Home, period: str, over_percent: float = 0.0) -> list[dict[str, object]]:
    """The octets of a month as access servers counted them beside those of flows; rows of COMPARED, ordered by service.

    `over_percent`: only services whose octets differ by more; those that only one side knows always do. Raises NotFound if
    no usage is published.
    """
    found: dict[str | None, _Compared] = {}
    for batch in export.rows(home, period, "month"):
        for row in batch.select(["service", "direction", "octets"]).to_pylist():
            found.setdefault(row["service"], _Compared()).flows[row["direction"]] += row["octets"]
    counted: set[tuple[object, ...]] = set()
    for used in _batches(home, period):
        for one in used:
            compared = found.setdefault(one.service, _Compared())
            session = one.owner.session
            key = (one.owner.realm, session.nas, session.session, session.user, session.start)
            compared.sessions += key not in counted
            counted.add(key)
            compared.seconds += one.seconds
            compared.radius["up"] += one.up
            compared.radius["down"] += one.down
        counted.clear()  # all rows of a session are in one batch
    rows = [found[service].row(service) for service in sorted(found, key=lambda name: (name is not None, name or ""))]
    return [row for row in rows if not over_percent or row["difference_percent"] is None
            or abs(float(str(row["difference_percent"]))) > over_percent]


def _batches(home: Home, period: str) -> Iterator[list[SessionUsage]]:
    start, end = periods.period_extent(period)
    radius = from_document(home.document)
    with sql.reading(sql.engine(home)) as connection:
        timelines = Timelines.load(connection, home.document)
        services = {name: number for number, name in connection.execute(
            sa.select(tables.service.c.id, tables.service.c.service))}
        names = {number: name for name, number in services.items()}
        seller = periods.period_bounds(period, settings.seller(home.document).timezone)
        keys = events.sessions_between(connection, start, end)
        for first in range(0, len(keys), SESSIONS_AT_ONCE):
            stored = events.of_sessions(connection, keys[first : first + SESSIONS_AT_ONCE])
            ours = sorted(owned(stored, radius, services), key=_order)
            used = [each for one in ours for each in _usage(one, names, timelines, period, seller, (start, end))]
            if used:
                yield used


def _order(one: Owned) -> tuple[object, ...]:
    return one.session.nas, one.session.session, one.session.user, one.session.start, one.realm


def _usage(one: Owned, names: dict[int, str], timelines: Timelines, period: str, seller: tuple[int, int],
           extent: tuple[int, int]) -> list[SessionUsage]:
    """The parts of a session in a month, by subscription and zone; of a user who is none of ours in the seller's time."""
    session = one.session
    until = session.known_until + 1  # what a report tells at its own instant is within
    wanted = period_number(period)
    if one.service is None:
        lower, upper = max(session.start, seller[0]), min(until, seller[1])
        pieces = [Piece(lower, upper, NO_SUBSCRIPTION, "", wanted)] if lower < upper else []
    else:
        whole = timelines.pieces(one.service, max(session.start, extent[0]), min(until, extent[1]))
        pieces = [piece for piece in whole if piece.period == wanted]
    found: dict[tuple[int, str], SessionUsage] = {}
    for piece in pieces:
        name = None if one.service is None else names[one.service]
        used = found.setdefault((piece.subscription, piece.zone),
                                SessionUsage(one, name, piece.subscription, piece.zone))
        up, down = one.octets(piece.start, piece.end)
        used.up += up
        used.down += down
        last = min(piece.end, session.known_until)
        used.seconds += (last - session.start) // 1000 - (piece.start - session.start) // 1000
    return [found[key] for key in sorted(found)]
