"""Port blocks of a carrier-grade NAT → leases of the outside address: whose traffic a block of ports was, and when.

Reads `port_block_event` (RFC 8158, collected by the decoder) and the leases of the inside addresses; changes leases through
`subscribers.leases`, and remembers in `port_block_lease` which of them are its own. What is derived depends on the events
and leases that are there and on nothing else: the order of their arrival does not matter, and a second run changes nothing.

* A block belongs to the inside address from its allocation to its release. A release that was lost is made up for by the
  next allocation of the same ports, whoever gets them.
* Its service is that of the inside address's lease in the exporter's `inside_realm`, at each instant of the block's life.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from collector.faults import BLOCK_FAULTS
from collector.settings import CollectorSettings, of_home
from core import tables
from core.actor import Actor
from core.periods import OPEN_END
from storage import sql
from storage.home import Home
from subscribers import leases
from subscribers.derived import Derived
from subscribers.inside import Owners
from subscribers.leases import Lease

ALLOCATED, FREED = 1, 2
LEASED, FREED_BLOCK, REPEATED = "leased", "freed", "repeated"
WITHOUT_SERVICE, CONFLICT, UNMATCHED, NOT_CONTIGUOUS, MALFORMED = (kind.label for kind in BLOCK_FAULTS)
CHANGE_KIND = "port_blocks"
"""The kind under which changes of these leases are noted among the changes of inputs."""
ADDRESSES_AT_ONCE = 500
"""Outside addresses that are looked at between two writes."""
DERIVED = Derived(tables.port_block_lease, CHANGE_KIND)

Realms = dict[bytes, tuple[str, str]]
"""Exporter → (realm inside its NAT, realm outside)."""


@dataclass(frozen=True, slots=True)
class Event:
    """A row of `port_block_event`."""

    id: int
    exporter: bytes
    at: int
    event: int
    inside: bytes
    outside: bytes
    port_first: int
    port_last: int
    port_step: int
    protocol: int

    @property
    def ports(self) -> tuple[int, int, int]:
        return self.protocol, self.port_first, self.port_last


@dataclass(slots=True)
class Block:
    """A port block in the hands of one inside address."""

    event: Event
    end: int = OPEN_END


@dataclass
class Result:
    """What a run did."""

    events: int = 0
    added: int = 0
    removed: int = 0
    unchanged: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def document(self) -> dict[str, Any]:
        """The object that the command prints."""
        faults = {kind.label: self.outcomes[kind.label] for kind in BLOCK_FAULTS}
        return {"events": self.events, "added": self.added, "removed": self.removed, "unchanged": self.unchanged, **faults}


# lives of blocks ------------------------------------------------------------------------------------------------------
def lives(events: Iterable[Event]) -> tuple[list[Block], dict[int, str]]:
    """The blocks of one outside address over time, and the outcome of each event that is settled by that alone."""
    outcomes: dict[int, str] = {}
    usable = []
    for event in events:
        wrong = _defect(event)
        if wrong:
            outcomes[event.id] = wrong
        else:
            usable.append(event)
    done: list[Block] = []
    running: list[Block] = []
    ordered = sorted(usable, key=lambda event: (event.at, event.ports, event.inside, event.id))
    for _, same in groupby(ordered, key=lambda event: event.at):
        together = list(same)
        pending = [event for event in together if event.event == FREED and not _free(event, running, done, outcomes)]
        for event in (one for one in together if one.event == ALLOCATED):
            _allocate(event, running, done, outcomes)
        for event in pending:  # the block was given and taken back within a millisecond, or nobody knows of it
            if not _free(event, running, done, outcomes):
                outcomes[event.id] = UNMATCHED
    return [block for block in (*done, *running) if block.end > block.event.at], outcomes


def _defect(event: Event) -> str:
    if event.port_step > 1 and event.port_last > event.port_first:
        return NOT_CONTIGUOUS
    is_end = event.event == FREED and event.port_last == 0
    if event.port_first > 65_535 or event.port_last > 65_535 or (event.port_last < event.port_first and not is_end):
        return MALFORMED
    return MALFORMED if event.event == ALLOCATED and event.inside == bytes(16) else ""


def _free(event: Event, running: list[Block], done: list[Block], outcomes: dict[int, str]) -> bool:
    """End the block that a release names; whether there is one."""
    for block in running:
        mine = block.event
        same = mine.port_first == event.port_first and (event.port_last in (0, mine.port_last)) and (
            event.protocol in (0, mine.protocol)) and event.inside in (bytes(16), mine.inside)
        if same:
            block.end = event.at
            running.remove(block)
            done.append(block)
            outcomes[event.id] = FREED_BLOCK
            return True
    return False


def _allocate(event: Event, running: list[Block], done: list[Block], outcomes: dict[int, str]) -> None:
    """Begin a block; those that share ports with it had ended, or the same one is told again."""
    for block in list(running):
        mine = block.event
        if mine.ports == event.ports and mine.inside == event.inside:
            outcomes[event.id] = REPEATED
            return
        apart = mine.port_last < event.port_first or event.port_last < mine.port_first
        if not apart and (0 in (mine.protocol, event.protocol) or mine.protocol == event.protocol):
            block.end = event.at
            running.remove(block)
            done.append(block)
    running.append(Block(event))


# run ------------------------------------------------------------------------------------------------------------------
def run(home: Home, actor: Actor, dry_run: bool = False) -> Result:
    """Bring the leases up to date with all events that are stored. One transaction; raises RatemillError."""
    settings = of_home(home)
    realms = realms_of(settings)
    result = Result()
    engine = sql.engine(home)
    with sql.reading(engine) if dry_run else sql.transaction(engine) as connection:
        position = _position(connection)
        newest = _Position(_newest(connection, tables.port_block_event.c.id), _newest_change(connection), _as_text(realms))
        result.events = _count_new(connection, position.event_id)
        addresses = _addresses(connection, position, newest)
        owners = Owners(connection)
        for first in range(0, len(addresses), ADDRESSES_AT_ONCE):
            some = addresses[first : first + ADDRESSES_AT_ONCE]
            _derive(connection, some, realms, owners, result, actor, dry_run)
        if not dry_run and newest != position:
            _move(connection, newest)
    return result


@dataclass(frozen=True, slots=True)
class _Position:
    event_id: int
    input_version: int
    realms: str


def realms_of(settings: CollectorSettings) -> Realms:
    """The realms on both sides of each exporter's NAT, as far as they are set."""
    return {one.address: (one.inside_realm, one.outside_realm) for one in settings.exporters
            if one.inside_realm or one.outside_realm}


def _as_text(realms: Realms) -> str:
    return json.dumps({exporter.hex(): pair for exporter, pair in sorted(realms.items())})


def _position(connection: sa.Connection) -> _Position:
    table = tables.port_block_position
    row = connection.execute(sa.select(table).where(table.c.id == 1)).one_or_none()
    return _Position(0, 0, "") if row is None else _Position(row.event_id, row.input_version, row.realms)


def _move(connection: sa.Connection, newest: _Position) -> None:
    table = tables.port_block_position
    connection.execute(table.delete())
    connection.execute(table.insert().values(id=1, event_id=newest.event_id, input_version=newest.input_version,
                                             realms=newest.realms))


def _newest(connection: sa.Connection, column: sa.Column[Any]) -> int:
    return int(connection.execute(sa.select(sa.func.max(column))).scalar() or 0)


def _newest_change(connection: sa.Connection) -> int:
    """The newest change of leases that is not of our own making."""
    change = tables.input_change
    query = sa.select(sa.func.max(change.c.version)).where(change.c.kind != CHANGE_KIND)
    return int(connection.execute(query).scalar() or 0)


def _count_new(connection: sa.Connection, after: int) -> int:
    event = tables.port_block_event
    return int(connection.execute(sa.select(sa.func.count()).where(event.c.id > after)).scalar() or 0)


def _addresses(connection: sa.Connection, position: _Position, newest: _Position) -> list[bytes]:
    """Outside addresses that something may have changed for: new events, or all if inside leases or realms changed."""
    event = tables.port_block_event
    query = sa.select(event.c.outside).distinct()
    if (position.input_version, position.realms) == (newest.input_version, newest.realms):
        query = query.where(event.c.id > position.event_id)
    return sorted(bytes(address) for address in connection.scalars(query))


def _derive(connection: sa.Connection, addresses: Sequence[bytes], realms: Realms, owners: Owners, result: Result,
            actor: Actor, dry_run: bool) -> None:
    """Compare what the events of some outside addresses say with the leases that were made of them."""
    table = tables.port_block_event
    columns = [table.c[name] for name in Event.__slots__]
    by_place: dict[tuple[str, bytes], list[Event]] = {}
    before: dict[int, str] = {}
    for row in connection.execute(sa.select(*columns, table.c.outcome).where(table.c.outside.in_(addresses))):
        event = Event(row.id, bytes(row.exporter), row.at, row.event, bytes(row.inside), bytes(row.outside), row.port_first,
                      row.port_last, row.port_step, row.protocol)
        before[event.id] = row.outcome
        by_place.setdefault((realms.get(event.exporter, ("", ""))[1], event.outside), []).append(event)
    wanted: list[Lease] = []
    outcomes: dict[int, str] = {}
    applied = DERIVED.applied(connection, addresses)
    own = {lease.key for lease in applied}
    stored = leases.places(connection, addresses)
    for (realm, address), events in sorted(by_place.items()):
        blocks, settled = lives(events)
        outcomes |= settled
        for block in blocks:
            found, outcome = _leases_of(block, realm, address, realms, owners)
            free = [lease for lease in found if not leases.conflicts(lease, stored, own)]
            wanted += free
            outcomes[block.event.id] = outcome if len(free) == len(found) else CONFLICT
    for number in before:
        outcomes.setdefault(number, REPEATED)  # an allocation that ended in the millisecond in which it began
    entered = DERIVED.settle(connection, applied, wanted, actor, dry_run)
    result.added += entered.added
    result.removed += entered.removed
    result.unchanged += entered.unchanged
    result.outcomes.update(outcomes.values())
    if dry_run:
        return
    _write_outcomes(connection, {n: outcome for n, outcome in outcomes.items() if before[n] != outcome})


def _leases_of(block: Block, realm: str, address: bytes, realms: Realms, owners: Owners) -> tuple[list[Lease], str]:
    event = block.event
    inside = realms.get(event.exporter, ("", ""))[0]
    found, outcome = [], LEASED
    for start, end, service in owners.of(inside, event.inside, event.at, block.end):
        if service is None:
            if start == event.at or end < OPEN_END:  # a lease that will end while the block goes on is no mistake yet
                outcome = WITHOUT_SERVICE
            continue
        found.append(Lease(realm, address, 128, event.protocol or None, event.port_first, event.port_last, start, end, service))
    return found, outcome


def _write_outcomes(connection: sa.Connection, changed: dict[int, str]) -> None:
    """Note what became of events; those that are faults are rows of the table `fault` of their segment."""
    if not changed:
        return
    event, fault = tables.port_block_event, tables.fault
    connection.execute(event.update().where(event.c.id == sa.bindparam("number")).values(outcome=sa.bindparam("now")),
                       [{"number": number, "now": outcome} for number, outcome in changed.items()])
    numbers = list(changed)
    segments: set[int] = set()
    for first in range(0, len(numbers), ADDRESSES_AT_ONCE):
        some = sa.select(event.c.segment_id).where(event.c.id.in_(numbers[first : first + ADDRESSES_AT_ONCE]))
        segments |= set(connection.scalars(some.distinct()))
    kinds = [kind.label for kind in BLOCK_FAULTS]
    key = (event.c.segment_id, event.c.exporter, event.c.domain, event.c.outcome)
    for segment in sorted(segments):
        connection.execute(fault.delete().where(fault.c.segment_id == segment, fault.c.kind.in_(kinds)))
        query = sa.select(*key, sa.func.count().label("n")).where(event.c.segment_id == segment, event.c.outcome.in_(kinds))
        rows = [{"segment_id": segment, "exporter": row.exporter, "domain": row.domain, "kind": row.outcome, "count": row.n}
                for row in connection.execute(query.group_by(*key))]
        if rows:
            connection.execute(fault.insert(), rows)
