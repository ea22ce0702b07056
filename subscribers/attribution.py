"""(realm, address, protocol, port, time) → service, by sorted arrays built from the leases.

Reads the table `lease` and the sections [[metering]], [[realm]] and [infrastructure]; writes nothing.

* Both ends of a flow are looked up in the realm of its exporter or of its interfaces (input before output before the
  whole router) and in no other. At each instant the longest prefix with a matching lease owns the address.
* A lease with ports matches protocols with ports (TCP, UDP, DCCP, SCTP, UDP-Lite) and a port of the end that is shared.
  An end without a port (ICMP, fragments) at an address that has port blocks at that time is END_NO_PORT.
* A flow is in the metering cut if an entry of its exporter lists its input interface (`ingress`), its output interface
  (`egress`) or either (`both`); `ingress` leaves out what the router observed at egress and the other way round, and
  protocols without a flow direction go by interface alone. Without any entry every flow is in the cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from core import tables
from core.arrays import aligned
from core.periods import OPEN_END, OPEN_START
from core.settings import Document
from subscribers import kernels, settings
from subscribers.kernels import END_INFRASTRUCTURE, END_NO_PORT, END_SERVICE, END_UNKNOWN, FlowEnds

__all__ = ["END_INFRASTRUCTURE", "END_NO_PORT", "END_SERVICE", "END_UNKNOWN", "Attribution", "FlowEnds", "Resolved"]

PORT_LAST = 65_535
PIECES_MIN = 1 << 10
_DIRECTIONS = {"ingress": 0, "egress": 1, "both": 2}


@dataclass(frozen=True)
class Resolved:
    """Whose the ends of n flows are. Pieces are ordered by flow, end and time and never overlap; a flow of no duration
    has a piece with from_ms == to_ms."""

    in_cut: NDArray[np.bool_]  # (n,) False: audit-only
    source_status: NDArray[np.uint8]  # (n,) END_…
    destination_status: NDArray[np.uint8]
    flow: NDArray[np.int32]  # (m,) row of the flow
    end: NDArray[np.uint8]  # (m,) 0 source, 1 destination
    from_ms: NDArray[np.int64]
    to_ms: NDArray[np.int64]
    service: NDArray[np.int32]  # (m,) row id of the service


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """One lease as attribution sees it."""

    realm: str
    address: bytes
    prefix_length: int
    protocol: int | None
    port_first: int | None
    port_last: int | None
    start: int
    end: int
    service: int


class Attribution:
    """The owners of addresses over a range of time; build it once a batch."""

    def __init__(self, leases: Iterable[LeaseRow], document: Document) -> None:
        realms = settings.realms(document)
        rows = list(leases)
        names = sorted({row.realm for row in rows} | {realm.name for realm in realms} | {""})
        self._realms = {name: number for number, name in enumerate(names)}  # "" sorts first: realm 0
        self._table = _owner_table(rows, self._realms, settings.infrastructure(document))
        self._realm_rules = _interface_rules([(r.exporter, r.interfaces, self._realms[r.name]) for r in realms])
        self._cut_rules = _interface_rules(
            [(m.exporter, m.interfaces, _DIRECTIONS[m.flow_direction]) for m in settings.metering(document)]
        )

    @classmethod
    def load(cls, connection: sa.Connection, document: Document, from_ms: int, to_ms: int) -> Attribution:
        """From the leases that overlap [from_ms, to_ms]."""
        lease = tables.lease
        columns = (lease.c.realm, lease.c.address, lease.c.prefix_length, lease.c.protocol, lease.c.port_first,
                   lease.c.port_last, lease.c.start_ms, lease.c.end_ms, lease.c.service_id)  # fmt: skip
        query = sa.select(*columns).where(lease.c.start_ms <= to_ms, lease.c.end_ms > from_ms)
        return cls((LeaseRow(*row) for row in connection.execute(query)), document)

    def resolve(self, flows: FlowEnds) -> Resolved:
        """Owners of both ends of every flow."""
        count = flows.start.size
        in_cut = np.zeros(count, np.bool_)
        status = np.zeros((count, 2), np.uint8)
        parts: list[tuple[NDArray[np.generic], ...]] = []
        flat = flows._replace(
            **{
                name: np.ascontiguousarray(getattr(flows, name)).ravel()
                for name in ("exporter", "source_address", "destination_address")
            }
        )
        room, at = PIECES_MIN + 2 * count, 0
        ends = kernels.room()
        while at < count:
            pieces = _room_for(room)
            reached, written = kernels.resolve(
                self._table, self._realm_rules, self._cut_rules, flat, at, in_cut, status, pieces, ends
            )
            if reached < 0:  # a single flow crosses more changes of hands than there was room for
                room *= 4
                continue
            parts.append(tuple(column[:written] for column in pieces))
            at = reached
        whole: list[NDArray[Any]] = list(parts[0]) if parts else list(_room_for(0))
        if len(parts) > 1:
            whole = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
        flow, end, from_ms, to_ms, service = whole
        return Resolved(
            in_cut,
            np.ascontiguousarray(status[:, 0]),
            np.ascontiguousarray(status[:, 1]),
            flow,
            end,
            from_ms,
            to_ms,
            service,
        )


def _room_for(count: int) -> kernels.Pieces:
    return kernels.Pieces(
        np.empty(count, np.int32),
        np.empty(count, np.uint8),
        np.empty(count, np.int64),
        np.empty(count, np.int64),
        np.empty(count, np.int32),
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """A lease under one key of the table."""

    key: tuple[int, int, int, int, int]  # realm, -prefix length, bucket, high and low word
    start: int
    end: int
    protocol: int
    port_first: int
    port_last: int
    service: int


def _words(address: bytes) -> tuple[int, int]:
    return int.from_bytes(address[:8], "big"), int.from_bytes(address[8:], "big")


def _entries(row: LeaseRow, realm: int) -> Iterable[_Entry]:
    hi, lo = _words(row.address)
    protocol = -1 if row.protocol is None else row.protocol
    if row.port_first is None or row.port_last is None:
        key = (realm, -row.prefix_length, kernels.WHOLE_BUCKET, hi, lo)
        yield _Entry(key, row.start, row.end, protocol, 0, PORT_LAST, row.service)
        return
    shift = kernels.BUCKET_SHIFT
    for bucket in range(row.port_first >> shift, (row.port_last >> shift) + 1):
        key = (realm, -row.prefix_length, 1 + bucket, hi, lo)
        yield _Entry(key, row.start, row.end, protocol, max(row.port_first, 1), row.port_last, row.service)


def _shared_times(rows: Sequence[LeaseRow], realms: dict[str, int]) -> Iterable[_Entry]:
    """When an address has any port block: the blocks' intervals, united."""
    by_address: dict[tuple[int, int, int, int, int], list[tuple[int, int]]] = {}
    for row in rows:
        if row.port_first is not None:
            key = (realms[row.realm], -row.prefix_length, kernels.SHARED_BUCKET, *_words(row.address))
            by_address.setdefault(key, []).append((row.start, row.end))
    for key, intervals in by_address.items():
        united: list[list[int]] = []
        for start, end in sorted(intervals):
            if united and start <= united[-1][1]:
                united[-1][1] = max(united[-1][1], end)
            else:
                united.append([start, end])
        for start, end in united:
            yield _Entry(key, start, end, -1, 0, PORT_LAST, kernels.UNKNOWN_SERVICE)


def _owner_table(rows: Sequence[LeaseRow], realms: dict[str, int], own: settings.Infrastructure) -> kernels.OwnerTable:
    entries = [entry for row in rows for entry in _entries(row, realms[row.realm])]
    entries += _shared_times(rows, realms)
    for prefix in own.prefixes:
        key = (kernels.INFRASTRUCTURE_REALM, -prefix.length, kernels.WHOLE_BUCKET, *_words(prefix.address))
        entries.append(_Entry(key, OPEN_START, OPEN_END, -1, 0, PORT_LAST, kernels.UNKNOWN_SERVICE))
    entries.sort(key=lambda entry: (entry.key, entry.start))
    counts: dict[tuple[int, int, int, int, int], int] = {}
    for entry in entries:
        counts[entry.key] = counts.get(entry.key, 0) + 1
    lengths, lengths_first = _lengths(list(counts), len(realms))
    first = np.concatenate([[0], np.cumsum(list(counts.values()), dtype=np.int64)]).astype(np.int64)
    keys = np.array([(_signed(hi), _signed(lo), kernels.key_tag(realm, -length, bucket))
                     for realm, length, bucket, hi, lo in counts], np.int64).reshape(-1, 3)  # fmt: skip
    groups = first[:-1] << 32 | np.diff(first)
    leases = aligned((len(entries), 4), np.int64)
    for column, values in enumerate((
        (entry.start for entry in entries),
        (entry.end for entry in entries),
        (entry.service for entry in entries),
        (kernels.lease_ports(entry.protocol, entry.port_first, entry.port_last) for entry in entries),
    )):
        leases[:, column] = np.fromiter(values, np.int64, len(entries))
    slots = aligned((1 << max(4, (2 * len(keys)).bit_length()), 4), np.int64)
    slots.fill(kernels.FREE)
    kernels.fill_slots(slots, np.column_stack([keys, groups]))
    by_ports = np.array([any(bucket != kernels.WHOLE_BUCKET for _, _, bucket, _, _ in counts)])
    return kernels.OwnerTable(slots, leases, lengths, lengths_first, *_reach(counts), by_ports)


def _reach(keys: Iterable[tuple[int, int, int, int, int]]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The bits of `reach_ipv4` and `reach_ipv6` that the prefixes of keys touch."""
    ipv4, ipv6 = np.zeros(1 << 16, np.bool_), np.zeros(1 << 16, np.bool_)
    wide: set[tuple[int, int]] = set()
    for _, negative, _, hi, lo in keys:
        length = -negative
        if hi == 0 and lo >> 32 == 0xFFFF and length >= 96:
            first = lo >> 16 & 0xFFFF
            ipv4[first : first + (1 << max(0, 112 - length))] = True
        else:
            wide.add((hi >> 32, 1 << 32 - min(length, 32)))
    for first, count in wide:
        if count >= 1 << 16:
            ipv6[:] = True
        else:
            ipv6[kernels.reach_of(np.arange(first, first + count, dtype=np.uint64))] = True
    return tuple(np.packbits(bits, bitorder="little").view(np.uint64) for bits in (ipv4, ipv6))  # type: ignore[return-value]


def _signed(word: int) -> int:
    """64 bits as a whole number with a sign, as arrays of int64 hold them."""
    return word - (1 << 64) if word >> 63 else word


def _lengths(
    keys: Sequence[tuple[int, int, int, int, int]], realms: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The prefix lengths of each realm, longest first (the infrastructure is realm -1)."""
    present = sorted({(key[0], key[1]) for key in keys})
    lengths = np.array([-negative for _, negative in present], np.int32)
    firsts = np.searchsorted(np.array([realm for realm, _ in present], np.int64), np.arange(-1, realms + 1))
    return lengths, firsts.astype(np.int64)


def _interface_rules(rules: Sequence[tuple[bytes, tuple[int, ...], int]]) -> kernels.InterfaceRules:
    exporters = sorted({exporter for exporter, _, _ in rules})
    first, interfaces, values = [0], [], []
    for exporter in exporters:
        for owner, listed, value in rules:
            if owner == exporter:
                interfaces += list(listed) or [-1]
                values += [value] * max(len(listed), 1)
        first.append(len(interfaces))
    words = [_words(exporter) for exporter in exporters]
    return kernels.InterfaceRules(
        np.array([hi for hi, _ in words], np.uint64),
        np.array([lo for _, lo in words], np.uint64),
        np.array(first, np.int64),
        np.array(interfaces, np.int64),
        np.array(values, np.int32),
    )
