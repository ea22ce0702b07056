"""Lease files of DHCP servers → leases of the services that their clients are.

Enters what is new into `dhcp_entry`, changes leases through `subscribers.leases`, and remembers in `dhcp_lease` which of them
are its own. What is derived depends on all entries that were ever read and on the services, and on nothing else: a server
that tidies its file up takes nothing away, and the order of files does not matter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from core import tables
from core.actor import Actor
from core.addresses import Prefix, format_prefix
from core.errors import ImportRefused, Problem
from core.periods import OPEN_END, format_instant
from storage import sql
from storage.home import Home
from subscribers import leases
from subscribers.csv_file import Problems
from subscribers.derived import Derived
from subscribers.dhcp import entries, files
from subscribers.dhcp.entries import Client, Entry, Reading, Store
from subscribers.dhcp.intervals import Interval, intervals
from subscribers.dhcp.owners import Owners, described
from subscribers.leases import Lease

CHANGE_KIND = "dhcp"
"""The kind under which changes of these leases are noted among the changes of inputs."""
ENTRIES_AT_ONCE = 1_000
PREFIXES_AT_ONCE = 300
DERIVED = Derived(tables.dhcp_lease, CHANGE_KIND)
LISTED_MAX = 20
"""Clients and conflicts that are told at the terminal; the option --unknown writes all clients."""
UNKNOWN_COLUMNS = ("client", "reason", "realm", "address", "start", "end", "file", "line")

Place = tuple[str, int]
"""File and line of the newest entry of an address."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A client that is no service, with the newest time that it had an address."""

    client: Client
    reason: str
    realm: str
    prefix: Prefix
    start: int
    end: int
    place: Place | None


@dataclass
class Result:
    """What a run did; clients, conflicts and unchanged leases are of the addresses that were looked at."""

    files: int = 0
    entries: int = 0
    new: int = 0
    """Entries that no file had brought before."""
    addresses: int = 0
    added: int = 0
    removed: int = 0
    unchanged: int = 0
    unknown: dict[Any, Unknown] = field(default_factory=dict)
    conflicts: int = 0
    """Times of an address of which a lease from elsewhere says otherwise: that one stays."""
    incomplete: list[Place] = field(default_factory=list)
    conflicting: list[str] = field(default_factory=list)

    def document(self) -> dict[str, int]:
        return {"files": self.files, "entries": self.entries, "new": self.new, "addresses": self.addresses,
                "added": self.added, "removed": self.removed, "unchanged": self.unchanged,
                "unknown_clients": len(self.unknown), "conflicts": self.conflicts, "incomplete": len(self.incomplete)}

    def sentences(self) -> Iterator[str]:
        """What somebody should know or do."""
        for file, line in self.incomplete:
            yield (f"{file}: incomplete at line {line}: the entry was just being written; import the file again later")
        for one in islice(self._unknown(), LISTED_MAX):
            where = f" ({one.place[0]}, line {one.place[1]})" if one.place else ""
            yield (f"{described(one.client)}: {one.reason}; it had {format_prefix(one.prefix)} from {format_instant(one.start)}"
                   f" to {_end(one.end) or 'open'}{where}")  # fmt: skip
        if len(self.unknown) > LISTED_MAX:
            yield f"{len(self.unknown) - LISTED_MAX} more clients have no service: --unknown FILE writes all of them"
        if self.unknown:
            yield ("  name a service after one identifier of the client, enter it with `ratemill subscribers import`, and run"
                   " this command again")  # fmt: skip
        yield from self.conflicting
        if self.conflicts > len(self.conflicting):
            yield f"{self.conflicts - len(self.conflicting)} more times are in conflict with leases from elsewhere"
        if self.conflicts:
            yield "  these leases from elsewhere stay; `ratemill leases list` shows them"

    def unknown_rows(self) -> Iterator[dict[str, Any]]:
        """Every client that is no service, with `UNKNOWN_COLUMNS`."""
        for one in self._unknown():
            file, line = one.place or (None, None)
            yield {"client": described(one.client), "reason": one.reason, "realm": one.realm,
                   "address": format_prefix(one.prefix), "start": format_instant(one.start), "end": _end(one.end),
                   "file": file, "line": line}  # fmt: skip

    def _unknown(self) -> Iterator[Unknown]:
        yield from sorted(self.unknown.values(), key=lambda one: (one.realm, one.prefix.address, one.prefix.length, one.start))


def _end(instant: int) -> str | None:
    return None if instant >= OPEN_END else format_instant(instant)


class _DryRunError(Exception):
    """Takes a transaction back that was only to show what it would do."""


def run(home: Home, paths: Sequence[Path], actor: Actor, realm: str = "", form: str = "", dry_run: bool = False) -> Result:
    """Bring the leases up to date with these files and all that were read before. One transaction; raises ImportRefused with
    every problem of every file, and RatemillError."""
    files.check_format(form)
    result = Result()
    try:
        with sql.transaction(sql.engine(home)) as connection:
            _run(connection, paths, actor, realm, form, result)
            if dry_run:
                raise _DryRunError
    except _DryRunError:
        pass
    return result


def _run(connection: sa.Connection, paths: Sequence[Path], actor: Actor, realm: str, form: str, result: Result) -> None:
    places: dict[Prefix, Place] = {}
    problems: list[Problem] = []
    store = Store(connection, realm)
    for path in paths:
        problems += _read(path, form, store, places, result, bool(problems))
    if problems:
        raise ImportRefused(problems)
    result.new = store.new
    services = int(connection.execute(sa.select(sa.func.max(tables.service.c.id))).scalar() or 0)
    position = tables.dhcp_position
    before = connection.scalar(sa.select(position.c.services).where(position.c.id == 1))
    concerned = set(places)
    if before != services:  # a client of any address may be a service now
        concerned |= set(entries.all_prefixes(connection))
        connection.execute(position.delete())
        connection.execute(position.insert().values(id=1, services=services))
    prefixes = sorted(concerned, key=lambda prefix: (prefix.address, prefix.length))
    owners = Owners(connection)
    for first in range(0, len(prefixes), PREFIXES_AT_ONCE):
        _derive(connection, set(prefixes[first : first + PREFIXES_AT_ONCE]), owners, places, result, actor)
    result.addresses = len(prefixes)


def _read(path: Path, form: str, store: Store, places: dict[Prefix, Place], result: Result, is_refused: bool) -> list[Problem]:
    """Enter one file, as long as nothing is wrong; returns its problems."""
    reading = Reading(Problems(str(path)))
    some: list[Entry] = []
    for line, entry in files.read(path, form, reading):
        result.entries += 1
        places[entry.prefix] = (str(path), line)
        some.append(entry)
        if len(some) >= ENTRIES_AT_ONCE:
            if not is_refused and not reading.problems.found:
                store.add(some)
            some = []
    if not is_refused and not reading.problems.found:
        store.add(some)
    result.files += 1
    if reading.incomplete:
        result.incomplete.append((str(path), reading.incomplete))
    try:
        reading.problems.refuse_if_any()
    except ImportRefused as refused:
        return list(refused.problems)
    return []


def _derive(connection: sa.Connection, prefixes: Collection[Prefix], owners: Owners, places: dict[Prefix, Place],
            result: Result, actor: Actor) -> None:  # fmt: skip
    """Compare what entries say of some prefixes with the leases that were made of them."""
    told: dict[tuple[str, Prefix], list[Entry]] = {}
    for one in entries.of_prefixes(connection, prefixes):
        told.setdefault((one.realm, one.entry.prefix), []).append(one.entry)
    addresses = {prefix.address for prefix in prefixes}
    applied = {lease for lease in DERIVED.applied(connection, addresses)
               if Prefix(lease.address, lease.prefix_length) in prefixes}
    own = {lease.key for lease in applied}
    stored = leases.places(connection, addresses)
    wanted: set[Lease] = set()
    for (realm, prefix), those in sorted(told.items(), key=lambda item: (item[0][0], item[0][1].address, item[0][1].length)):
        for lease in _wanted(realm, prefix, intervals(those), owners, places.get(prefix), result):
            if leases.conflicts(lease, stored, own):
                result.conflicts += 1
                if len(result.conflicting) < LISTED_MAX:
                    result.conflicting.append(f"{format_prefix(prefix)}: from {format_instant(lease.start_ms)} to "
                                              f"{_end(lease.end_ms) or 'open'} it has a lease from elsewhere")  # fmt: skip
            else:
                wanted.add(lease)
    settled = DERIVED.settle(connection, applied, wanted, actor, dry_run=False)
    result.added += settled.added
    result.removed += settled.removed
    result.unchanged += settled.unchanged


def _wanted(realm: str, prefix: Prefix, times: Sequence[Interval], owners: Owners, place: Place | None,
            result: Result) -> list[Lease]:  # fmt: skip
    """The leases of one address; neighbours of one service are one."""
    found: list[Lease] = []
    for time in times:
        service, reason = owners.of(time.client)
        if service is None:
            key = time.client.identity or (realm, prefix)
            known = result.unknown.get(key)
            if known is None or (known.start, known.prefix.address) < (time.start, prefix.address):
                result.unknown[key] = Unknown(time.client, reason, realm, prefix, time.start, time.end, place)
            continue
        start = time.start
        if found and found[-1].end_ms == start and found[-1].service_id == service:
            start = found.pop().start_ms
        found.append(Lease(realm, prefix.address, prefix.length, None, None, None, start, time.end, service))
    return found
