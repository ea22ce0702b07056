"""Formulas of NATs and the leases of inside addresses → leases of the outside addresses.

Changes leases through `subscribers.leases`, and remembers in `deterministic_nat_lease` which of them are its own. What is
derived depends on the settings and the inside leases and on nothing else; a second run changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from core import tables
from core.actor import Actor
from core.addresses import Prefix
from storage import sql
from storage.home import Home
from subscribers import leases
from subscribers.derived import Derived
from subscribers.deterministic_nat.formula import block_of, insides_within
from subscribers.deterministic_nat.settings import DeterministicNat, from_document
from subscribers.inside import Owners
from subscribers.leases import Lease

CHANGE_KIND = "deterministic_nat"
"""The kind under which changes of these leases are noted among the changes of inputs."""
ADDRESSES_AT_ONCE = 300
"""Outside addresses that are compared between two writes."""
DERIVED = Derived(tables.deterministic_nat_lease, CHANGE_KIND)


@dataclass
class Result:
    """What a run did."""

    inside: int = 0
    """Inside addresses that somebody has, or had; 0 if nothing has changed since the run before."""
    added: int = 0
    removed: int = 0
    unchanged: int = 0
    conflicts: int = 0
    """Blocks that a lease from elsewhere says otherwise of: that one stays."""

    def document(self) -> dict[str, int]:
        return asdict(self)


def run(home: Home, actor: Actor, dry_run: bool = False) -> Result:
    """Bring the leases up to date with settings and inside leases. One transaction; raises RatemillError."""
    nats = from_document(home.document)
    result = Result()
    engine = sql.engine(home)
    with sql.reading(engine) if dry_run else sql.transaction(engine) as connection:
        now = (_newest_change(connection), repr(nats))
        if now == _position(connection):
            count = sa.select(sa.func.count()).select_from(tables.deterministic_nat_lease)
            result.unchanged = int(connection.scalar(count) or 0)
            return result
        owners = Owners(connection)
        insides = _insides(connection, nats)
        result.inside = len({(nat.inside_realm, inside) for of_one in insides.values() for nat, inside in of_one})
        own = tables.deterministic_nat_lease
        outside = sorted({*insides, *(bytes(address) for address in connection.scalars(sa.select(own.c.address).distinct()))})
        for first in range(0, len(outside), ADDRESSES_AT_ONCE):
            some = outside[first : first + ADDRESSES_AT_ONCE]
            wanted = [lease for address in some for nat, inside in insides.get(address, ())
                      for lease in _leases_of(nat, inside, owners)]
            _compare(connection, some, wanted, result, actor, dry_run)
        if not dry_run:
            table = tables.deterministic_nat_position
            connection.execute(table.delete())
            connection.execute(table.insert().values(id=1, input_version=now[0], settings=now[1]))
    return result


def _position(connection: sa.Connection) -> tuple[int, str] | None:
    table = tables.deterministic_nat_position
    row = connection.execute(sa.select(table).where(table.c.id == 1)).one_or_none()
    return None if row is None else (row.input_version, row.settings)


def _newest_change(connection: sa.Connection) -> int:
    """The newest change of inputs that is not of our own making."""
    change = tables.input_change
    return int(connection.scalar(sa.select(sa.func.max(change.c.version)).where(change.c.kind != CHANGE_KIND)) or 0)


def _insides(connection: sa.Connection, nats: Sequence[DeterministicNat]) -> dict[bytes, list[tuple[DeterministicNat, bytes]]]:
    """Outside address → the inside addresses with a lease that it stands for."""
    table = tables.lease
    found: dict[bytes, set[tuple[int, bytes]]] = {}
    for number, nat in enumerate(nats):
        query = sa.select(table.c.address, table.c.prefix_length).where(
            table.c.realm == nat.inside_realm, table.c.port_first.is_(None), table.c.protocol.is_(None)).distinct()
        for row in connection.execute(query):
            for inside in insides_within(nat, Prefix(bytes(row.address), row.prefix_length)):
                block = block_of(nat, inside)
                assert block is not None, "it is one of its inside addresses"
                found.setdefault(block.outside, set()).add((number, inside))
    return {outside: [(nats[number], inside) for number, inside in sorted(those)] for outside, those in found.items()}


def _leases_of(nat: DeterministicNat, inside: bytes, owners: Owners) -> list[Lease]:
    block = block_of(nat, inside)
    assert block is not None, "it is one of its inside addresses"
    return [Lease(nat.outside_realm, block.outside, 128, None, block.port_first, block.port_last, start, end, service)
            for start, end, service in owners.of(nat.inside_realm, inside, nat.start_ms, nat.end_ms) if service is not None]


def _compare(connection: sa.Connection, addresses: Sequence[bytes], found: Sequence[Lease], result: Result, actor: Actor,
             dry_run: bool) -> None:
    applied = DERIVED.applied(connection, addresses)
    own = {lease.key for lease in applied}
    stored = leases.places(connection, addresses)
    wanted = {lease for lease in found if not leases.conflicts(lease, stored, own)}
    result.conflicts += len(found) - len(wanted)
    settled = DERIVED.settle(connection, applied, wanted, actor, dry_run)
    result.added += settled.added
    result.removed += settled.removed
    result.unchanged += settled.unchanged
