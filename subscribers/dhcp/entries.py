"""What an entry of a lease file says, whatever the server that wrote it, and its row of `dhcp_entry`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import BinaryIO

import sqlalchemy as sa

from core import tables
from core.addresses import Prefix, format_prefix
from storage import sql
from subscribers.csv_file import Problems

LINE_OCTETS_MAX = 1_000_000
"""A line that is longer is in no lease file."""


class State(StrEnum):
    ACTIVE = "active"
    """The client has the address until `end`."""
    ENDED = "ended"
    """The client had the address until `end`: it gave it back, or its time was over."""
    VOID = "void"
    """Nobody has the address: a host that the server does not know uses it."""


class Kind(StrEnum):
    """Of a client's identifiers. In this order they are looked up: what the operator's relay says before what a
    subscriber's device says of itself."""

    CIRCUIT_ID = "circuit-id"
    REMOTE_ID = "remote-id"
    HARDWARE = "hardware"
    CLIENT_ID = "client-id"
    DUID = "duid"


_SAME_BY = (Kind.DUID, Kind.CLIENT_ID, Kind.HARDWARE, Kind.REMOTE_ID, Kind.CIRCUIT_ID)


@dataclass(frozen=True)
class Client:
    identifiers: tuple[tuple[str, str], ...]
    """(kind, value in hexadecimal), in the order of `Kind`."""

    @classmethod
    def of(cls, values: dict[Kind, bytes]) -> Client:
        return cls(tuple((kind.value, values[kind].hex()) for kind in Kind if values.get(kind)))

    @cached_property
    def identity(self) -> tuple[str, str] | None:
        """By which the server takes it for the same client (RFC 2131 §4.2, RFC 8415 §11); None: it has no identifier."""
        known = dict(self.identifiers)
        return next(((kind.value, known[kind]) for kind in _SAME_BY if kind in known), None)

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(json.dumps(self.identifiers).encode()).digest()


@dataclass(frozen=True, slots=True)
class Entry:
    """Instants in ms. Without `client` only if the state is not active."""

    prefix: Prefix
    state: State
    seen: int
    """The client's last transaction."""
    start: int
    end: int
    client: Client | None

    def digest(self, realm: str) -> bytes:
        told = [realm, format_prefix(self.prefix), self.state, self.seen, self.start, self.end,
                self.client and self.client.identifiers]
        return hashlib.sha256(json.dumps(told).encode()).digest()


@dataclass
class Reading:
    """What came of reading one file, beside its entries."""

    problems: Problems
    incomplete: int = 0
    """Line of the entry that the server is just writing; 0: the file ends with a whole one."""


def lines(stream: BinaryIO, reading: Reading) -> Iterator[tuple[int, bytes]]:
    """The numbered lines of a file. What is no text ends it with a problem."""
    number = 0
    while line := stream.readline(LINE_OCTETS_MAX):
        number += 1
        if len(line) == LINE_OCTETS_MAX or b"\0" in line:
            what = "a zero octet" if b"\0" in line else f"more than {LINE_OCTETS_MAX} octets"
            reading.problems.add(number, "", f"the line holds {what}: this is no lease file, or a damaged one",
                                 "copy the file again from the server")  # fmt: skip
            return
        yield number, line


# rows -----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Stored:
    realm: str
    entry: Entry


@dataclass
class Store:
    """Enters entries into the tables, inside the caller's transaction."""

    connection: sa.Connection
    realm: str
    new: int = field(default=0, init=False)

    def add(self, entries: Sequence[Entry]) -> None:
        """Enter those that are not there yet."""
        table = tables.dhcp_entry
        distinct = {entry.digest(self.realm): entry for entry in entries}
        there = {bytes(digest) for digest in self.connection.scalars(
            sa.select(table.c.digest).where(table.c.digest.in_(list(distinct))))}
        fresh = {digest: entry for digest, entry in distinct.items() if digest not in there}
        if not fresh:
            return
        numbers = self._clients({entry.client for entry in fresh.values() if entry.client is not None})
        sql.insert_new(self.connection, table, [
            {"digest": digest, "realm": self.realm, "address": entry.prefix.address, "prefix_length": entry.prefix.length,
             "state": entry.state.value, "seen": entry.seen, "start_ms": entry.start, "end_ms": entry.end,
             "client_id": None if entry.client is None else numbers[entry.client.digest]}
            for digest, entry in fresh.items()])
        self.new += len(fresh)

    def _clients(self, clients: Collection[Client]) -> dict[bytes, int]:
        table = tables.dhcp_client
        rows = [{"digest": client.digest, "identifiers": json.dumps(client.identifiers)}
                for client in sorted(clients, key=lambda client: client.identifiers)]
        if not rows:
            return {}
        sql.insert_new(self.connection, table, rows)
        digests = [row["digest"] for row in rows]
        return {bytes(row.digest): row.id for row in self.connection.execute(
            sa.select(table.c.id, table.c.digest).where(table.c.digest.in_(digests)))}


def of_prefixes(connection: sa.Connection, prefixes: Collection[Prefix]) -> Iterator[Stored]:
    """All entries of these addresses and prefixes, of every realm."""
    entry, client = tables.dhcp_entry, tables.dhcp_client
    query = sa.select(entry, client.c.identifiers).outerjoin(client, client.c.id == entry.c.client_id).where(
        entry.c.address.in_({prefix.address for prefix in prefixes}))
    for row in connection.execute(query):
        prefix = Prefix(bytes(row.address), row.prefix_length)
        if prefix in prefixes:
            who = None if row.client_id is None else Client(tuple((kind, value) for kind, value in json.loads(row.identifiers)))
            yield Stored(row.realm, Entry(prefix, State(row.state), row.seen, row.start_ms, row.end_ms, who))


def all_prefixes(connection: sa.Connection) -> Iterator[Prefix]:
    """Every address and prefix of which there are entries."""
    table = tables.dhcp_entry
    for row in connection.execute(sa.select(table.c.address, table.c.prefix_length).distinct()):
        yield Prefix(bytes(row.address), row.prefix_length)
