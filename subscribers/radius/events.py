"""Accounting events as rows of `radius_event`: each is there once, however often it was sent.

What makes two requests one is what they report, the sender included; not their identifier, nor Acct-Delay-Time, which differ
when a request is sent again (RFC 2866 §5.2).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from core import tables
from core.addresses import Prefix, format_address, format_prefix, parse_prefix
from storage import sql
from subscribers.radius.packets import AccountingRequest, Counters, Status
from subscribers.radius.sessions import Event

SessionKey = tuple[str, str, str]
"""NAS, Acct-Session-Id, user."""
KEYS_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Report:
    """A request that is believed, with whom it came from and when."""

    request: AccountingRequest
    source: bytes
    name: str
    """Of the access server in the settings; empty: what it calls itself."""
    received: int

    @property
    def nas(self) -> str:
        return self.name or self.request.nas or format_address(self.source)

    @property
    def at(self) -> int:
        if self.request.event_ms is not None:
            return self.request.event_ms
        return self.received - self.request.delay_seconds * 1000

    @property
    def digest(self) -> bytes:
        request, counters = self.request, self.request.counters
        told = [self.nas, request.session, request.user, int(request.status), request.event_ms, request.seconds, request.cause,
                counters.input_octets, counters.output_octets, counters.input_packets, counters.output_packets,
                [format_prefix(prefix) for prefix in request.prefixes], [value.hex() for value in request.classes]]
        if request.event_ms is None and request.seconds is None:
            told.append(self.at // 1000)  # nothing else tells a second Start or Accounting-On from the first
        return hashlib.sha256(json.dumps(told).encode()).digest()


def store(connection: sa.Connection, reports: Sequence[Report]) -> int:
    """Enter the reports that are new, inside the caller's transaction; returns how many were there already."""
    table = tables.radius_event
    distinct = {report.digest: report for report in reversed(reports)}
    there = set(connection.scalars(sa.select(table.c.digest).where(table.c.digest.in_(list(distinct)))))
    new = {digest: report for digest, report in distinct.items() if digest not in there}
    if new:
        sql.insert_new(connection, table, [_row(digest, report) for digest, report in new.items()])
        numbers = {bytes(row.digest): row.id for row in connection.execute(
            sa.select(table.c.id, table.c.digest).where(table.c.digest.in_(list(new))))}
        held = [{"event_id": numbers[digest], "address": prefix.address, "prefix_length": prefix.length}
                for digest, report in new.items() for prefix in dict.fromkeys(report.request.prefixes)]
        if held:
            connection.execute(tables.radius_prefix.insert(), held)
    return len(reports) - len(new)


def _row(digest: bytes, report: Report) -> dict[str, object]:
    request, counters = report.request, report.request.counters
    return {
        "digest": digest, "source": report.source, "nas": report.nas, "session": request.session, "user_name": request.user,
        "status": int(request.status), "at": report.at, "received": report.received,
        "prefixes": json.dumps([format_prefix(prefix) for prefix in request.prefixes]), "seconds": request.seconds,
        "input_octets": _bounded(counters.input_octets), "output_octets": _bounded(counters.output_octets),
        "input_packets": counters.input_packets, "output_packets": counters.output_packets, "cause": request.cause,
        "classes": json.dumps([value.decode("utf-8", "backslashreplace") for value in request.classes]),
        "calling_station": request.calling_station, "nas_port": request.nas_port}  # fmt: skip


def _bounded(count: int | None) -> int | None:
    return None if count is None else min(count, 2**62)


@dataclass(frozen=True, slots=True)
class Stored:
    """An event as it is stored, with what its session's service is found by."""

    event: Event
    source: bytes
    classes: tuple[str, ...]


def of_sessions(connection: sa.Connection, keys: Collection[SessionKey]) -> list[Stored]:
    """All events of these sessions, and what their access servers said of themselves."""
    table = tables.radius_event
    found: list[Stored] = []
    wanted = sorted(keys)
    for first in range(0, len(wanted), KEYS_AT_ONCE):
        some = wanted[first : first + KEYS_AT_ONCE]
        same = sa.or_(*(sa.and_(table.c.nas == nas, table.c.session == session, table.c.user_name == user)
                        for nas, session, user in some))
        found += _read(connection, same)
    servers = sorted({nas for nas, _, _ in wanted})
    resets = (int(Status.ACCOUNTING_ON), int(Status.ACCOUNTING_OFF))
    for first in range(0, len(servers), KEYS_AT_ONCE):
        some_servers = servers[first : first + KEYS_AT_ONCE]
        found += _read(connection, sa.and_(table.c.status.in_(resets), table.c.nas.in_(some_servers)))
    return found


def _read(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> Iterable[Stored]:
    table = tables.radius_event
    for row in connection.execute(sa.select(table).where(condition)):
        prefixes = tuple(parse_prefix(text) for text in json.loads(row.prefixes))
        yield Stored(Event(row.nas, row.session, row.user_name, Status(row.status), row.at, prefixes, row.seconds,
                           Counters(row.input_octets, row.output_octets, row.input_packets, row.output_packets)),
                     bytes(row.source), tuple(json.loads(row.classes)))


def sessions_with(connection: sa.Connection, prefixes: Sequence[Prefix]) -> set[SessionKey]:
    """The sessions of which an event names one of these prefixes."""
    event, held = tables.radius_event, tables.radius_prefix
    query = sa.select(event.c.nas, event.c.session, event.c.user_name, held.c.address, held.c.prefix_length).join(
        held, held.c.event_id == event.c.id).where(held.c.address.in_({prefix.address for prefix in prefixes}))
    wanted = set(prefixes)
    return {(row.nas, row.session, row.user_name) for row in connection.execute(query.distinct())
            if Prefix(bytes(row.address), row.prefix_length) in wanted}


def sessions_between(connection: sa.Connection, start: int, end: int) -> list[SessionKey]:
    """The sessions that may have a part in [start, end), in order: reported by its begin or later, begun before its end."""
    event = tables.radius_event
    key = (event.c.nas, event.c.session, event.c.user_name)
    begun = event.c.at - sa.func.coalesce(event.c.seconds, 0) * 1000
    query = sa.select(*key).where(event.c.session != "").group_by(*key).having(
        sa.func.max(event.c.at) >= start, sa.func.min(begun) < end).order_by(*key)
    return [(row.nas, row.session, row.user_name) for row in connection.execute(query)]


def prefixes_after(connection: sa.Connection, event_id: int) -> list[Prefix]:
    """Prefixes whose leases events behind `event_id` may change: those of their sessions; of all, where a server began anew."""
    event, held = tables.radius_event, tables.radius_prefix
    newer = event.alias()
    resets = (int(Status.ACCOUNTING_ON), int(Status.ACCOUNTING_OFF))
    concerned = sa.exists().where(
        newer.c.id > event_id, newer.c.nas == event.c.nas,
        sa.or_(sa.and_(newer.c.session == event.c.session, newer.c.user_name == event.c.user_name),
               newer.c.status.in_(resets)))
    query = sa.select(held.c.address, held.c.prefix_length).join(event, held.c.event_id == event.c.id).where(concerned)
    return sorted((Prefix(bytes(row.address), row.prefix_length) for row in connection.execute(query.distinct())),
                  key=lambda prefix: (prefix.address, prefix.length))  # fmt: skip
