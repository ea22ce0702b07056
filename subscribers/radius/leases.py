"""Accounting events → leases: the addresses of sessions become leases of the service that the user is.

Reads `radius_event`, changes leases through `subscribers.leases`, and remembers in `radius_lease` which of them are its own.
What is derived depends on the events, the services and the settings that are there and on nothing else: the order of arrival
does not matter, and a second run changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from core import tables
from core.actor import Actor
from core.addresses import Prefix, format_prefix
from storage import sql
from storage.home import Home
from subscribers import leases
from subscribers.derived import Derived
from subscribers.leases import Lease
from subscribers.radius import events
from subscribers.radius.owners import owned
from subscribers.radius.settings import RadiusSettings, from_document

CHANGE_KIND = "radius"
"""The kind under which changes of these leases are noted among the changes of inputs."""
PREFIXES_AT_ONCE = 300
DERIVED = Derived(tables.radius_lease, CHANGE_KIND)


@dataclass
class Result:
    """What a run did; sessions and what is wrong with them are of the addresses that were looked at."""

    events: int = 0
    addresses: int = 0
    added: int = 0
    removed: int = 0
    unchanged: int = 0
    unknown_user: int = 0
    """Held addresses of users that are no service."""
    conflicts: int = 0
    """Held addresses of which a lease from elsewhere says otherwise: that one stays."""

    def document(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Position:
    event_id: int
    services: int
    settings: str


def run(home: Home, actor: Actor, dry_run: bool = False) -> Result:
    """Bring the leases up to date with all events that are stored. One transaction; raises RatemillError."""
    settings = from_document(home.document)
    result = Result()
    engine = sql.engine(home)
    with sql.reading(engine) if dry_run else sql.transaction(engine) as connection:
        before, now = _position(connection), _now(connection, settings)
        event = tables.radius_event
        result.events = int(connection.execute(sa.select(sa.func.count()).where(event.c.id > before.event_id)).scalar() or 0)
        is_same_world = (before.services, before.settings) == (now.services, now.settings)
        prefixes = events.prefixes_after(connection, before.event_id) if is_same_world else _all(connection)
        services = {name: number for number, name in connection.execute(
            sa.select(tables.service.c.id, tables.service.c.service))} if prefixes else {}
        for first in range(0, len(prefixes), PREFIXES_AT_ONCE):
            _derive(connection, prefixes[first : first + PREFIXES_AT_ONCE], settings, services, result, actor, dry_run)
        result.addresses = len(prefixes)
        if not dry_run and now != before:
            table = tables.radius_position
            connection.execute(table.delete())
            connection.execute(table.insert().values(id=1, event_id=now.event_id, services=now.services,
                                                     settings=now.settings))
    return result


def _position(connection: sa.Connection) -> _Position:
    table = tables.radius_position
    row = connection.execute(sa.select(table).where(table.c.id == 1)).one_or_none()
    return _Position(0, 0, "") if row is None else _Position(row.event_id, row.services, row.settings)


def _now(connection: sa.Connection, settings: RadiusSettings) -> _Position:
    clients = sorted((format_prefix(one.address), one.name, one.realm, one.service) for one in settings.clients)
    return _Position(
        int(connection.execute(sa.select(sa.func.max(tables.radius_event.c.id))).scalar() or 0),
        int(connection.execute(sa.select(sa.func.max(tables.service.c.id))).scalar() or 0),
        repr((settings.radius.lost_after_seconds, clients)))


def _all(connection: sa.Connection) -> list[Prefix]:
    held = tables.radius_prefix
    rows = connection.execute(sa.select(held.c.address, held.c.prefix_length).distinct())
    found = {Prefix(bytes(row.address), row.prefix_length) for row in rows}
    own = tables.radius_lease
    found |= {Prefix(bytes(row.address), row.prefix_length) for row in connection.execute(
        sa.select(own.c.address, own.c.prefix_length).distinct())}
    return sorted(found, key=lambda prefix: (prefix.address, prefix.length))


def _derive(connection: sa.Connection, prefixes: Sequence[Prefix], settings: RadiusSettings, services: dict[str, int],
            result: Result, actor: Actor, dry_run: bool) -> None:
    """Compare what events say of some prefixes with the leases that were made of them."""
    stored_events = events.of_sessions(connection, events.sessions_with(connection, prefixes))
    wanted: set[Lease] = set()
    concerned, addresses = set(prefixes), {prefix.address for prefix in prefixes}
    applied = {lease for lease in DERIVED.applied(connection, addresses)
               if Prefix(lease.address, lease.prefix_length) in concerned}
    own = {lease.key for lease in applied}
    stored = leases.places(connection, addresses)
    for one in owned(stored_events, settings, services):
        for held in one.session.held:
            if held.prefix not in concerned:
                continue
            if one.service is None:
                result.unknown_user += 1
                continue
            lease = Lease(one.realm, held.prefix.address, held.prefix.length, None, None, None, held.start, held.end,
                          one.service)
            if leases.conflicts(lease, stored, own):
                result.conflicts += 1
            else:
                wanted.add(lease)
    settled = DERIVED.settle(connection, applied, wanted, actor, dry_run)
    result.added += settled.added
    result.removed += settled.removed
    result.unchanged += settled.unchanged
