"""Imports leases.csv: which address, prefix or port block belongs to which service, when. All or nothing.

Writes `lease`, `input_change` and the audit trail. The key of a row is (realm, address, protocol, ports, start): the same
row again is unchanged, another end or service under the same key is a change, rows that are not in the file stay.

Two leases of one address or prefix may never match the same packet at the same time: that is an overlap, or a whole
lease beside port blocks. Different prefix lengths may nest; the longest wins.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from core import clock, tables
from core.actor import Actor
from core.addresses import Prefix, format_prefix, parse_prefix, parse_protocol
from core.periods import OPEN_END, OPEN_START, format_instant, parse_instant
from security import audit
from storage import sql
from subscribers.csv_file import Problems, Row, read

COLUMNS = ("realm", "address", "protocol", "port_first", "port_last", "start", "end", "service")
PROTOCOLS_WITH_PORTS = (6, 17, 33, 132, 136)
AUDITED_CHANGES_MAX = 1_000
"""Changed leases that get a row of their own in the audit trail; the summary counts them all."""

Key = tuple[str, bytes, int, int | None, int | None, int | None, int]
Place = tuple[str, bytes, int]


@dataclass(frozen=True, slots=True)
class Lease:
    realm: str
    address: bytes
    prefix_length: int
    protocol: int | None
    port_first: int | None
    port_last: int | None
    start_ms: int
    end_ms: int
    service_id: int

    @property
    def key(self) -> Key:
        return (
            self.realm,
            self.address,
            self.prefix_length,
            self.protocol,
            self.port_first,
            self.port_last,
            self.start_ms,
        )

    @property
    def place(self) -> Place:
        return self.realm, self.address, self.prefix_length


def import_file(engine: sa.Engine, path: Path, actor: Actor, dry_run: bool = False) -> dict[str, int]:
    """Import a file; returns {added, changed, unchanged} in rows. Raises ImportRefused with every problem."""
    problems = Problems(str(path))
    rows = read(path, COLUMNS, problems)
    with sql.reading(engine) if dry_run else sql.transaction(engine) as connection:
        services = {
            name: number
            for number, name in connection.execute(sa.select(tables.service.c.id, tables.service.c.service))
        }
        parsed = _parse(rows, services, problems)
        stored = _stored(connection)
        _check_overlaps(parsed, stored, problems)
        problems.refuse_if_any()
        added = [lease for _, lease in parsed if lease.key not in stored]
        changed = [
            (stored[lease.key], lease) for _, lease in parsed if lease.key in stored and stored[lease.key] != lease
        ]
        summary = {"added": len(added), "changed": len(changed), "unchanged": len(parsed) - len(added) - len(changed)}
        if not dry_run and (added or changed):
            _write(connection, added, changed, summary, actor)
    return summary


def _parse(rows: Iterable[Row], services: dict[str, int], problems: Problems) -> list[tuple[int, Lease]]:
    parsed: list[tuple[int, Lease]] = []
    seen: dict[Key, int] = {}
    for row in rows:
        before = len(problems.found)
        prefix = problems.value(
            row, "address", parse_prefix, "write an address, or a prefix without bits beyond its length"
        )
        protocol = problems.value(row, "protocol", _protocol)
        ports = _ports(row, protocol, problems)
        start = problems.value(row, "start", lambda text: parse_instant(text) if text else OPEN_START)
        end = problems.value(row, "end", lambda text: parse_instant(text) if text else OPEN_END)
        service = services.get(row.values["service"])
        if service is None:
            problems.add(row.line, "service", f"unknown service '{row.values['service']}'",
                         "import it first with `ratemill subscribers import`")  # fmt: skip
        if start is not None and end is not None and end <= start:
            problems.add(row.line, "end", f"end {row.values['end']} is not after start {row.values['start']}")
        if len(problems.found) > before or prefix is None or start is None or end is None or service is None:
            continue
        number = None if protocol == -1 else protocol
        lease = Lease(row.values["realm"], prefix.address, prefix.length, number, *ports, start, end, service)
        if lease.key in seen:
            problems.add(
                row.line, "address", f"the same lease is in line {seen[lease.key]} already", "leave out one of them"
            )
            continue
        seen[lease.key] = row.line
        parsed.append((row.line, lease))
    return parsed


def _protocol(text: str) -> int:
    return parse_protocol(text) if text else -1


def _ports(row: Row, protocol: int | None, problems: Problems) -> tuple[int | None, int | None]:
    first_text, last_text = row.values["port_first"], row.values["port_last"]
    if not first_text and not last_text:
        return None, None
    if not first_text or not last_text:
        problems.add(row.line, "port_last" if first_text else "port_first", "a port block has a first and a last port",
                     "give both ports, or none for all ports")  # fmt: skip
        return None, None
    first, last = problems.value(row, "port_first", _port), problems.value(row, "port_last", _port)
    if first is not None and last is not None and last < first:
        problems.add(row.line, "port_last", f"port_last {last} is before port_first {first}")
    if protocol is not None and protocol != -1 and protocol not in PROTOCOLS_WITH_PORTS:
        problems.add(row.line, "protocol", f"protocol '{row.values['protocol']}' has no ports",
                     "leave the ports empty, or name tcp, udp, dccp, sctp or udplite")  # fmt: skip
    return first, last


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 65_535:
        return int(text)
    raise ValueError(f"'{text}' is not a port number (0 to 65535)")


def _stored(connection: sa.Connection) -> dict[Key, Lease]:
    lease = tables.lease
    columns = [lease.c[name] for name in Lease.__slots__]
    return {found.key: found for found in (Lease(*row) for row in connection.execute(sa.select(*columns)))}


def _check_overlaps(parsed: Sequence[tuple[int, Lease]], stored: dict[Key, Lease], problems: Problems) -> None:
    in_file = {lease.key for _, lease in parsed}
    places: dict[Place, list[tuple[int, Lease]]] = {}
    for line, lease in parsed:
        places.setdefault(lease.place, []).append((line, lease))
    for key, lease in stored.items():
        if lease.place in places and key not in in_file:
            places[lease.place].append((0, lease))
    for leases in places.values():
        if len(leases) > 1:
            _check_place(sorted(leases, key=lambda pair: (pair[1].start_ms, pair[0])), problems)


def _check_place(leases: Sequence[tuple[int, Lease]], problems: Problems) -> None:
    """Leases of one address by start: none may match what an earlier one that still runs matches."""
    running: list[tuple[int, Lease]] = []
    for line, lease in leases:
        running = [pair for pair in running if pair[1].end_ms > lease.start_ms]
        for other_line, other in running:
            if (line or other_line) and _both_match(lease, other):
                _report(max((line, lease), (other_line, other), key=lambda pair: pair[0]),
                        min((line, lease), (other_line, other), key=lambda pair: pair[0]), problems)  # fmt: skip
        running.append((line, lease))


def _both_match(one: Lease, two: Lease) -> bool:
    if one.protocol is not None and two.protocol is not None and one.protocol != two.protocol:
        return False
    if one.port_first is None or two.port_first is None:
        block = one if one.port_first is not None else two
        whole = two if block is one else one
        return block.port_first is None or whole.protocol is None or whole.protocol in PROTOCOLS_WITH_PORTS
    assert one.port_last is not None
    assert two.port_last is not None
    return one.port_first <= two.port_last and two.port_first <= one.port_last


def _report(found: tuple[int, Lease], other: tuple[int, Lease], problems: Problems) -> None:
    line, lease = found
    where = f"line {other[0]}" if other[0] else "a lease imported before"
    times = f"{_instant(other[1].start_ms)} to {_instant(other[1].end_ms)}"
    address = format_prefix(Prefix(lease.address, lease.prefix_length))
    if (lease.port_first is None) != (other[1].port_first is None):
        problems.add(line, "port_first", f"{address} has both a whole lease and port blocks at one time: see {where} ({times})",
                     "end the one before the other starts")  # fmt: skip
    else:
        problems.add(
            line, "start", f"the lease of {address} overlaps {where} ({times})", "end the one before the other starts"
        )


def _instant(instant: int) -> str:
    return "open" if abs(instant) >= OPEN_END else format_instant(instant)


def _write(connection: sa.Connection, added: Sequence[Lease], changed: Sequence[tuple[Lease, Lease]],
           summary: dict[str, int], actor: Actor) -> None:  # fmt: skip
    table = tables.lease
    if added:
        connection.execute(table.insert(), [_values(lease) for lease in added])
    for number, (before, lease) in enumerate(changed):
        same = [table.c[name].is_not_distinct_from(getattr(lease, name)) for name in Lease.__slots__[:7]]
        connection.execute(table.update().where(*same).values(end_ms=lease.end_ms, service_id=lease.service_id))
        if number < AUDITED_CHANGES_MAX:
            subject = format_prefix(Prefix(lease.address, lease.prefix_length))
            audit.record(connection, actor, "lease.change", subject, _described(before), _described(lease))
    touched = [*added, *(lease for pair in changed for lease in pair)]
    connection.execute(tables.input_change.insert().values(
        at=clock.now_ms(), kind="leases", from_ms=min(lease.start_ms for lease in touched),
        to_ms=max(lease.end_ms for lease in touched), detail=f"{len(added)} added, {len(changed)} changed"))  # fmt: skip
    audit.record(connection, actor, "leases.import", "leases.csv", None, summary)


# derived leases -------------------------------------------------------------------------------------------------------
Places = dict[Place, list[Lease]]


def places(connection: sa.Connection, addresses: Collection[bytes]) -> Places:
    """The leases that begin at one of these addresses, by realm and address."""
    table = tables.lease
    query = sa.select(*(table.c[name] for name in Lease.__slots__)).where(table.c.address.in_(addresses))
    found: Places = {}
    for row in connection.execute(query):
        lease = Lease(*row)
        found.setdefault(lease.place, []).append(lease)
    return found


def conflicts(lease: Lease, stored: Places, own: Collection[Key] = ()) -> bool:
    """Whether a lease would match a packet that a stored one matches at the same time; `own` are keys of leases that its
    maker would take away."""
    return any(other.start_ms < lease.end_ms and lease.start_ms < other.end_ms and other.key not in own
               and _both_match(lease, other) for other in stored.get(lease.place, ()))  # fmt: skip


def replace(connection: sa.Connection, removed: Sequence[Lease], added: Sequence[Lease], kind: str, actor: Actor) -> None:
    """Take leases away and enter others, inside the caller's transaction: for leases that a program derives. The caller
    has looked for conflicts. `kind` is what the change of inputs is called."""
    table = tables.lease
    for lease in removed:
        connection.execute(table.delete().where(
            *(table.c[name].is_not_distinct_from(getattr(lease, name)) for name in Lease.__slots__)))  # fmt: skip
    if added:
        connection.execute(table.insert(), [_values(lease) for lease in added])
    changed = _changed(removed, added)
    connection.execute(tables.input_change.insert().values(
        at=clock.now_ms(), kind=kind, from_ms=min(start for start, _ in changed), to_ms=max(end for _, end in changed),
        detail=f"{len(added)} added, {len(removed)} removed"))  # fmt: skip
    for lease in removed[:AUDITED_CHANGES_MAX]:
        subject = format_prefix(Prefix(lease.address, lease.prefix_length))
        audit.record(connection, actor, "lease.remove", subject, _described(lease), None)
    audit.record(connection, actor, f"leases.{kind}", kind, None, {"added": len(added), "removed": len(removed)})


def _changed(removed: Sequence[Lease], added: Sequence[Lease]) -> list[tuple[int, int]]:
    """The times of which the owner may be another: of a lease that only ends elsewhere, what lies between both ends. So a
    lease that is renewed every hour does not have all flows since its start attributed again."""
    before = {(lease.key, lease.service_id): lease for lease in removed}
    changed: list[tuple[int, int]] = []
    for lease in added:
        other = before.pop((lease.key, lease.service_id), None)
        if other is None:
            changed.append((lease.start_ms, lease.end_ms))
        else:
            changed.append((min(other.end_ms, lease.end_ms), max(other.end_ms, lease.end_ms)))
    return changed + [(lease.start_ms, lease.end_ms) for lease in before.values()]


def _values(lease: Lease) -> dict[str, object]:
    return {name: getattr(lease, name) for name in Lease.__slots__}


def _described(lease: Lease) -> dict[str, object]:
    return {**_values(lease), "address": format_prefix(Prefix(lease.address, lease.prefix_length))}
