"""Leases that a program derives: entered in `lease`, and remembered in a table of the deriver's own, so that it takes away
only what it made."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from core.actor import Actor
from subscribers import leases
from subscribers.leases import Lease

_ABSENT: dict[str, Any] = {"prefix_length": 128, "protocol": None, "port_first": None, "port_last": None}
"""What a lease has where a table lacks the column: its leases are all alike in that."""


@dataclass(frozen=True, slots=True)
class Settled:
    """How many leases were entered, taken away, and left."""

    added: int
    removed: int
    unchanged: int


class Derived:
    """The leases of one deriver. `kind` is what its changes of inputs are called."""

    def __init__(self, table: sa.Table, kind: str) -> None:
        self._table, self._kind = table, kind
        self._columns = [name for name in Lease.__slots__ if name in table.c]

    def applied(self, connection: sa.Connection, addresses: Collection[bytes]) -> set[Lease]:
        """Those that begin at one of these addresses."""
        query = sa.select(*(self._table.c[name] for name in self._columns)).where(self._table.c.address.in_(addresses))
        return {Lease(**_ABSENT | row._asdict()) for row in connection.execute(query)}

    def settle(self, connection: sa.Connection, applied: set[Lease], wanted: Iterable[Lease], actor: Actor,
               dry_run: bool) -> Settled:
        """Make those that were applied the wanted ones, inside the caller's transaction; it has looked for conflicts."""
        wanted = set(wanted)
        added, removed = sorted(wanted - applied, key=_order), sorted(applied - wanted, key=_order)
        if not dry_run and (added or removed):
            leases.replace(connection, removed, added, self._kind, actor)
            for lease in removed:
                connection.execute(self._table.delete().where(
                    *(self._table.c[name].is_not_distinct_from(getattr(lease, name)) for name in self._columns)))
            if added:
                connection.execute(self._table.insert(),
                                   [{name: getattr(lease, name) for name in self._columns} for lease in added])
        return Settled(len(added), len(removed), len(applied) - len(removed))


def _order(lease: Lease) -> tuple[Any, ...]:
    return tuple(-1 if value is None else value for value in (getattr(lease, name) for name in Lease.__slots__))
