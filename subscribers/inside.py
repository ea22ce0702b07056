"""Whose the addresses inside of a NAT are, by the leases of their realm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import sqlalchemy as sa

from core import tables


@dataclass(frozen=True, slots=True)
class _Owner:
    length: int
    start: int
    end: int
    service: int


class Owners:
    """Whose inside addresses are, by whole leases; the longest prefix wins at each instant."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        table = tables.lease
        self._whole = (table.c.port_first.is_(None), table.c.protocol.is_(None))
        rows = connection.execute(sa.select(table.c.realm, table.c.prefix_length).where(*self._whole).distinct())
        self._lengths: dict[str, list[int]] = {}
        for realm, length in rows:
            self._lengths.setdefault(realm, []).append(length)
        self._known: dict[tuple[str, bytes], list[_Owner]] = {}

    def of(self, realm: str, address: bytes, start: int, end: int) -> Iterator[tuple[int, int, int | None]]:
        """(from, to, service or None) over [start, end), neighbours of one service joined."""
        owners = [one for one in self._owners(realm, address) if one.start < end and one.end > start]
        edges = sorted({start, end, *(max(one.start, start) for one in owners), *(min(one.end, end) for one in owners)})
        pieces: list[tuple[int, int, int | None]] = []
        for first, last in pairwise(edges):
            there = [one for one in owners if one.start <= first and one.end >= last]
            service = max(there, key=lambda one: one.length).service if there else None
            if pieces and pieces[-1][2] == service:
                pieces[-1] = (pieces[-1][0], last, service)
            else:
                pieces.append((first, last, service))
        yield from pieces

    def _owners(self, realm: str, address: bytes) -> list[_Owner]:
        key = (realm, address)
        if key not in self._known:
            table = tables.lease
            number = int.from_bytes(address, "big")
            prefixes = [(number >> (128 - length) << (128 - length)).to_bytes(16, "big")
                        for length in self._lengths.get(realm, ())]
            query = sa.select(table.c.address, table.c.prefix_length, table.c.start_ms, table.c.end_ms, table.c.service_id)
            rows = self._connection.execute(query.where(table.c.realm == realm, table.c.address.in_(prefixes), *self._whole))
            self._known[key] = [
                _Owner(row.prefix_length, row.start_ms, row.end_ms, row.service_id) for row in rows
                if int.from_bytes(row.address, "big") >> (128 - row.prefix_length) == number >> (128 - row.prefix_length)]
        return self._known[key]
