"""Columns of flows → export datagrams, vectorised: no Python loop over records or datagrams.

Flows keep their order. NetFlow v5 takes IPv4 only; v9 and IPFIX have a template for each IP version; sFlow wraps each flow
as one sampled packet, all samples of a datagram at the datagram's uptime. Header times follow the last flow of a datagram.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.addresses import IPV4_MAPPED, parse_address
from core.errors import UsageError
from core.periods import HOUR_MS

Columns = Mapping[str, NDArray[Any]]
Octets = NDArray[np.uint8]
Int64 = NDArray[np.int64]

PROTOCOLS = ("v5", "v9", "ipfix", "sflow")
DATAGRAM_SIZE = 1400
"""A datagram stays below this: no fragments on an Ethernet."""
TEMPLATES_EVERY = 200
"""v9, IPFIX: templates and options are sent at the start and again after so many datagrams."""
EXPORT_LAG_MS = 100
_SET_HEADER = 4
_V5_RECORD = 48
_SFLOW_HEADER = 28
_SAMPLE_HEADER = 8 + 32 + 8 + 16
_ETHERNET = 14
_FCS = 4
_TEMPLATE_V4, _TEMPLATE_V6, _TEMPLATE_OPTIONS = 256, 257, 258


@dataclass(frozen=True)
class Datagrams:
    """Datagrams in the order in which they are made; `octets[start : start + size]` is one."""

    protocol: str
    octets: Octets
    start: Int64
    size: Int64
    records: Int64
    """Flows in it."""
    flow_octets: Int64
    """Octets of these flows, as exported (not scaled)."""
    sequence: Int64
    """Sequence number, not wrapped: what was counted before it."""
    units: Int64
    """By how much it moves the sequence on: records (v5, IPFIX) or 1 (v9, sFlow)."""
    is_template: NDArray[np.bool_]
    datagram_of_flow: Int64
    """For each row of the columns, the datagram that carries it."""

    def __len__(self) -> int:
        return len(self.start)

    def payload(self, index: int) -> bytes:
        return self.octets[self.start[index] : self.start[index] + self.size[index]].tobytes()


class _Stream(NamedTuple):
    """What does not change from datagram to datagram."""

    domain: int
    sampling: int
    boot: int
    agent: bytes


@dataclass
class _Group:
    """Datagrams of one size and layout; `matrix` has a row for each."""

    matrix: Octets
    exported: Int64
    records: Int64
    flow_octets: Int64
    units: Int64
    flows: Int64
    """Rows of the columns that are in it, datagram by datagram."""
    is_template: bool = False


def encode(columns: Columns, protocol: str, *, domain: int = 0, sampling: int = 1, boot: int | None = None,
           agent: str = "192.0.2.1", templates_every: int = TEMPLATES_EVERY, first_sequence: int = 0) -> Datagrams:
    """Make the datagrams of one exporter and domain. `columns` are named as in core.schemas.FLOWS; `boot` is when the
    exporter started (sFlow: `[[exporter]] sflow_boot`). Raises UsageError for what a protocol can't carry."""
    if protocol not in PROTOCOLS:
        raise UsageError(f"'{protocol}' is not a protocol that can be sent", f"these can: {', '.join(PROTOCOLS)}")
    count = len(columns["start"])
    if count == 0:
        raise UsageError("there is no flow to send", "give at least one")
    begin = int(columns["start"].min()) - HOUR_MS if boot is None else boot
    stream = _Stream(domain, sampling, begin // 1000 * 1000 if boot is None else begin, parse_address(agent)[12:])
    prefix = np.frombuffer(IPV4_MAPPED, np.uint8)
    is_v4 = np.all(columns["source_address"][:, :12] == prefix, axis=1) & np.all(
        columns["destination_address"][:, :12] == prefix, axis=1)
    encoder = _ENCODERS[protocol]
    groups: list[_Group] = []
    for version, chosen in ((4, np.flatnonzero(is_v4)), (6, np.flatnonzero(~is_v4))):
        if len(chosen):
            made = encoder.groups({name: values[chosen] for name, values in columns.items()}, version, stream)
            groups += [replace(group, flows=chosen[group.flows]) for group in made]
    order, groups = _in_order(groups, protocol, stream, templates_every)
    return _finish(groups, order, encoder, stream, protocol, first_sequence)


def _put(matrix: Octets, at: int, values: Any, width: int) -> None:
    """Write whole numbers, big endian, into a field of every row."""
    wide = np.broadcast_to(np.asarray(values), (len(matrix),)).astype(">u8").view(np.uint8).reshape(-1, 8)
    matrix[:, at : at + width] = wide[:, 8 - width :]


def _column(columns: Columns, name: str, count: int) -> NDArray[Any]:
    return columns[name] if name in columns else np.zeros(count, np.int64)


def _divide(rows: Octets, per_datagram: int, header: int, padding: int = 0) -> list[tuple[Octets, slice]]:
    """Rows of records → matrices of datagrams with room for a header: one for the full ones, one for the rest."""
    full, rest = divmod(len(rows), per_datagram)
    parts = []
    for datagrams, each, first in ((full, per_datagram, 0), (1 if rest else 0, rest, full * per_datagram)):
        if datagrams:
            size = each * rows.shape[1]
            pad = -size % padding if padding else 0
            matrix = np.zeros((datagrams, header + size + pad), np.uint8)
            matrix[:, header : header + size] = rows[first : first + datagrams * each].reshape(datagrams, size)
            parts.append((matrix, slice(first, first + datagrams * each)))
    return parts


def _group(matrix: Octets, columns: Columns, chosen: slice, units_are_records: bool) -> _Group:
    count = len(matrix)
    each = (chosen.stop - chosen.start) // count
    ends = columns["end"][chosen].reshape(count, each).max(axis=1).astype(np.int64)
    octets = columns["octets"][chosen].astype(np.int64).reshape(count, each).sum(axis=1)
    records = np.full(count, each, np.int64)
    units = records if units_are_records else np.ones(count, np.int64)
    return _Group(matrix, ends, records, octets, units, np.arange(chosen.start, chosen.stop))


def _in_order(groups: list[_Group], protocol: str, stream: _Stream, templates_every: int) -> tuple[Int64, list[_Group]]:
    """The order of all datagrams by time, with templates at the start and again; indexes run through all groups."""
    exported = np.concatenate([group.exported for group in groups])
    order = np.argsort(exported, kind="stable")
    if protocol not in ("v9", "ipfix"):
        return order, groups
    places = np.arange(0, len(order), templates_every)
    one = _template_datagram(protocol, stream)
    units = 1 if protocol == "v9" or stream.sampling > 1 else 0
    none = np.zeros(len(places), np.int64)
    templates = _Group(np.tile(one, (len(places), 1)), exported[order[places]], none, none, none + units,
                       np.zeros(0, np.int64), is_template=True)
    return np.insert(order, places, len(exported) + np.arange(len(places))), [*groups, templates]


def _finish(groups: list[_Group], order: Int64, encoder: _Encoder, stream: _Stream, protocol: str,
            first_sequence: int) -> Datagrams:
    """Number the datagrams in their order and write the headers."""
    def all_of(name: str) -> Int64:
        return np.concatenate([getattr(group, name) for group in groups])

    units = all_of("units")
    sequence = np.empty(len(order), np.int64)
    sequence[order] = first_sequence + np.concatenate([[0], np.cumsum(units[order])[:-1]])
    exported = np.empty(len(order), np.int64)
    exported[order] = np.maximum.accumulate(all_of("exported")[order])
    at = 0
    for group in groups:
        mine = slice(at, at + len(group.matrix))
        encoder.header(group, sequence[mine], exported[mine], stream)
        at = mine.stop
    size = np.concatenate([np.full(len(group.matrix), group.matrix.shape[1], np.int64) for group in groups])
    start = np.concatenate([[0], np.cumsum(size)[:-1]])
    template = np.concatenate([np.full(len(group.matrix), group.is_template) for group in groups])
    flows, place = all_of("flows"), np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    carrier = np.empty(len(flows), np.int64)
    carrier[flows] = np.repeat(place, all_of("records"))
    return Datagrams(protocol, np.concatenate([group.matrix.ravel() for group in groups]), start[order], size[order],
                     all_of("records")[order], all_of("flow_octets")[order], sequence[order], units[order],
                     template[order], carrier)


# NetFlow v5 -----------------------------------------------------------------------------------------------------------
def _v5_groups(columns: Columns, version: int, stream: _Stream) -> list[_Group]:
    if version != 4:
        raise UsageError("NetFlow v5 carries IPv4 only", "send flows with IPv6 addresses as v9, ipfix or sflow")
    if stream.sampling > 0x3FFF:
        raise UsageError(f"NetFlow v5 announces rates up to 16383, not {stream.sampling}", "send them as v9 or ipfix")
    count = len(columns["start"])
    if max(int(columns["octets"].max()), int(columns["packets"].max())) >= 2**32:
        raise UsageError("NetFlow v5 counts up to 2^32 octets and packets a flow", "send larger flows as v9 or ipfix")
    rows = np.zeros((count, _V5_RECORD), np.uint8)
    rows[:, 0:4], rows[:, 4:8] = columns["source_address"][:, 12:], columns["destination_address"][:, 12:]
    for at, name, width in ((12, "input_interface", 2), (14, "output_interface", 2), (16, "packets", 4), (20, "octets", 4),
                            (32, "source_port", 2), (34, "destination_port", 2), (37, "tcp_flags", 1), (38, "protocol", 1),
                            (39, "tos", 1), (40, "source_as", 2), (42, "destination_as", 2)):
        _put(rows, at, _column(columns, name, count), width)
    _put(rows, 24, (columns["start"] - stream.boot) & 0xFFFFFFFF, 4)
    _put(rows, 28, (columns["end"] - stream.boot) & 0xFFFFFFFF, 4)
    return [_group(matrix, columns, chosen, True) for matrix, chosen in _divide(rows, 28, 24)]


def _v5_header(group: _Group, sequence: Int64, exported: Int64, stream: _Stream) -> None:
    at = exported + EXPORT_LAG_MS
    mode = 1 << 14 | stream.sampling if stream.sampling > 1 else 0
    for place, values, width in ((0, 5, 2), (2, group.records, 2), (4, (at - stream.boot) & 0xFFFFFFFF, 4), (8, at // 1000, 4),
                                 (12, at % 1000 * 1_000_000, 4), (16, sequence & 0xFFFFFFFF, 4),
                                 (20, stream.domain & 0xFFFF, 2), (22, mode, 2)):
        _put(group.matrix, place, values, width)


# NetFlow v9 and IPFIX -------------------------------------------------------------------------------------------------
def _fields(version: int, ipfix: bool) -> Sequence[tuple[int, int, str]]:
    """(element, length, column) of the template."""
    source, destination, width = (8, 12, 4) if version == 4 else (27, 28, 16)
    first, last, wide = (152, 153, 8) if ipfix else (22, 21, 4)
    return ((source, width, "source_address"), (destination, width, "destination_address"), (7, 2, "source_port"),
            (11, 2, "destination_port"), (4, 1, "protocol"), (6, 1, "tcp_flags"), (5, 1, "tos"), (61, 1, "flow_direction"),
            (1, 8, "octets"), (2, 8, "packets"), (10, 4, "input_interface"), (14, 4, "output_interface"),
            (first, wide, "start"), (last, wide, "end"))


def _template_groups(columns: Columns, version: int, stream: _Stream, ipfix: bool) -> list[_Group]:
    fields = _fields(version, ipfix)
    count, size = len(columns["start"]), sum(width for _, width, _ in fields)
    rows = np.zeros((count, size), np.uint8)
    at = 0
    for _, width, name in fields:
        if name.endswith("_address"):
            rows[:, at : at + width] = columns[name][:, 16 - width :]
        elif name in ("start", "end") and not ipfix:
            _put(rows, at, (columns[name] - stream.boot) & 0xFFFFFFFF, width)
        elif name == "flow_direction" and name not in columns:
            _put(rows, at, 255, width)
        else:
            _put(rows, at, _column(columns, name, count), width)
        at += width
    header = (16 if ipfix else 20) + _SET_HEADER
    groups = []
    for matrix, chosen in _divide(rows, (DATAGRAM_SIZE - header) // size, header, padding=4):
        _put(matrix, header - 4, _TEMPLATE_V4 if version == 4 else _TEMPLATE_V6, 2)
        _put(matrix, header - 2, matrix.shape[1] - header + 4, 2)
        groups.append(_group(matrix, columns, chosen, ipfix))
    return groups


def _template_datagram(protocol: str, stream: _Stream) -> Octets:
    """A datagram with both templates, and with the sampling rate as an option if there is one."""
    ipfix = protocol == "ipfix"
    body = b""
    for identifier, version in ((_TEMPLATE_V4, 4), (_TEMPLATE_V6, 6)):
        fields = _fields(version, ipfix)
        body += _words(identifier, len(fields), *(word for element, width, _ in fields for word in (element, width)))
    sets = _words(2 if ipfix else 0, 4 + len(body)) + body
    if stream.sampling > 1:
        sets += _ipfix_sampling(stream) if ipfix else _v9_sampling(stream)
    return np.frombuffer(bytes(16 if ipfix else 20) + sets, np.uint8).copy()


def _v9_sampling(stream: _Stream) -> bytes:
    template = _words(1, 24, _TEMPLATE_OPTIONS, 4, 8, 1, 4, 34, 4, 35, 1) + bytes(2)
    data = bytes(4) + stream.sampling.to_bytes(4, "big") + b"\x01"
    return template + _words(_TEMPLATE_OPTIONS, 16) + data + bytes(3)


def _ipfix_sampling(stream: _Stream) -> bytes:
    """One packet of `sampling` is taken: an interval of 1 and a space of the rest (RFC 5477)."""
    template = _words(3, 24, _TEMPLATE_OPTIONS, 3, 1, 149, 4, 305, 4, 306, 4) + bytes(2)
    data = b"".join(value.to_bytes(4, "big") for value in (stream.domain, 1, stream.sampling - 1))
    return template + _words(_TEMPLATE_OPTIONS, 16) + data


def _words(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


def _v9_header(group: _Group, sequence: Int64, exported: Int64, stream: _Stream) -> None:
    at = (exported + EXPORT_LAG_MS + 999) // 1000 * 1000
    definitions = 2 + 2 * (stream.sampling > 1)
    for place, values, width in ((0, 9, 2), (2, definitions if group.is_template else group.records, 2),
                                 (4, (at - stream.boot) & 0xFFFFFFFF, 4), (8, at // 1000, 4), (12, sequence & 0xFFFFFFFF, 4),
                                 (16, stream.domain, 4)):
        _put(group.matrix, place, values, width)


def _ipfix_header(group: _Group, sequence: Int64, exported: Int64, stream: _Stream) -> None:
    at = (exported + EXPORT_LAG_MS + 999) // 1000
    for place, values, width in ((0, 10, 2), (2, group.matrix.shape[1], 2), (4, at, 4), (8, sequence & 0xFFFFFFFF, 4),
                                 (12, stream.domain, 4)):
        _put(group.matrix, place, values, width)


# sFlow v5 -------------------------------------------------------------------------------------------------------------
def _sflow_groups(columns: Columns, version: int, stream: _Stream) -> list[_Group]:
    """One flow sample with one raw header each: Ethernet, IP, and the first 20 octets of TCP or UDP."""
    count, ip = len(columns["start"]), 20 if version == 4 else 40
    sampled = _ETHERNET + ip + 20
    room = sampled + -sampled % 4
    if int(columns["octets"].max()) > 65535 or int(columns["octets"].min()) < ip + 20:
        raise UsageError(f"an sFlow sample is one packet of {ip + 20} to 65535 octets", "give each flow such a size")
    rows = np.zeros((count, _SAMPLE_HEADER + room), np.uint8)
    words = (1, rows.shape[1] - 8, np.arange(1, count + 1), 1, stream.sampling, np.arange(1, count + 1) * stream.sampling, 0,
             _column(columns, "input_interface", count), _column(columns, "output_interface", count), 1,
             1, 16 + room, 1, columns["octets"].astype(np.int64) + _ETHERNET + _FCS, _FCS, sampled)
    for number, values in enumerate(words):
        _put(rows, 4 * number, np.asarray(values, np.int64) & 0xFFFFFFFF, 4)
    _write_packet(rows[:, _SAMPLE_HEADER:], columns, version, count)
    per_datagram = (DATAGRAM_SIZE - _SFLOW_HEADER) // rows.shape[1]
    return [_group(matrix, columns, chosen, False) for matrix, chosen in _divide(rows, per_datagram, _SFLOW_HEADER)]


def _write_packet(frame: Octets, columns: Columns, version: int, count: int) -> None:
    frame[:, 0], frame[:, 6] = 2, 2  # locally administered addresses
    _put(frame, 12, 0x0800 if version == 4 else 0x86DD, 2)
    packet = frame[:, _ETHERNET:]
    tos = _column(columns, "tos", count).astype(np.int64)
    if version == 4:
        packet[:, 0], packet[:, 8] = 0x45, 64
        _put(packet, 1, tos, 1)
        _put(packet, 2, columns["octets"], 2)
        _put(packet, 9, columns["protocol"], 1)
        packet[:, 12:16], packet[:, 16:20] = columns["source_address"][:, 12:], columns["destination_address"][:, 12:]
        transport = packet[:, 20:]
    else:
        _put(packet, 0, (6 << 28) | (tos << 20), 4)
        _put(packet, 4, columns["octets"].astype(np.int64) - 40, 2)
        _put(packet, 6, columns["protocol"], 1)
        packet[:, 7] = 64
        packet[:, 8:24], packet[:, 24:40] = columns["source_address"], columns["destination_address"]
        transport = packet[:, 40:]
    _put(transport, 0, columns["source_port"], 2)
    _put(transport, 2, columns["destination_port"], 2)
    is_tcp = columns["protocol"] == 6
    _put(transport, 12, np.where(is_tcp, 0x50, 0), 1)
    _put(transport, 13, np.where(is_tcp, _column(columns, "tcp_flags", count), 0), 1)


def _sflow_header(group: _Group, sequence: Int64, exported: Int64, stream: _Stream) -> None:
    group.matrix[:, 8:12] = np.frombuffer(stream.agent, np.uint8)
    for place, values, width in ((0, 5, 4), (4, 1, 4), (12, stream.domain, 4), (16, sequence & 0xFFFFFFFF, 4),
                                 (20, (exported - stream.boot) & 0xFFFFFFFF, 4), (24, group.records, 4)):
        _put(group.matrix, place, values, width)


class _Encoder(NamedTuple):
    groups: Callable[[Columns, int, _Stream], list[_Group]]
    header: Callable[[_Group, Int64, Int64, _Stream], None]


_ENCODERS = {
    "v5": _Encoder(_v5_groups, _v5_header),
    "v9": _Encoder(lambda columns, version, stream: _template_groups(columns, version, stream, False), _v9_header),
    "ipfix": _Encoder(lambda columns, version, stream: _template_groups(columns, version, stream, True), _ipfix_header),
    "sflow": _Encoder(_sflow_groups, _sflow_header),
}
