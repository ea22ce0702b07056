"""Flows → export datagrams, records encoded as whole columns.

Reads columns as `core.schemas.FLOWS` names them, ordered by end; writes bytes. Records of IPv4 and IPv6 go into datagrams
of their own (v5 knows IPv4 only). Formats: NetFlow v5 and v9 (RFC 3954), IPFIX (RFC 7011), sFlow v5 (sflow.org).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.addresses import IPV4_MAPPED
from core.errors import UsageError
from core.periods import SECOND_MS

Columns = Mapping[str, NDArray[Any]]

PROTOCOLS = ("v5", "v9", "ipfix", "sflow")
RECORDS_MAX = {"v5": 30, "v9": 24, "ipfix": 20, "sflow": 10}
"""Records of one datagram: what fits into 1,500 octets."""
TEMPLATE_EVERY = 50
EXPORT_LAG_MS = 700
OPTIONS_TEMPLATE = 512

_V5 = np.dtype([
    ("source", "V4"), ("destination", "V4"), ("next_hop", "V4"), ("input", ">u2"), ("output", ">u2"), ("packets", ">u4"),
    ("octets", ">u4"), ("first", ">u4"), ("last", ">u4"), ("source_port", ">u2"), ("destination_port", ">u2"), ("pad1", "u1"),
    ("tcp_flags", "u1"), ("protocol", "u1"), ("tos", "u1"), ("source_as", ">u2"), ("destination_as", ">u2"),
    ("source_mask", "u1"), ("destination_mask", "u1"), ("pad2", ">u2"),
])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Datagram:
    """One payload and the flows in it: rows [first, last) of the chunk's order."""

    payload: bytes
    records: int  # data records, options records included
    octets: int  # of the flows
    rows: NDArray[np.int64]
    units: int  # by how much the protocol's sequence number grows


@dataclass(frozen=True, slots=True)
class Template:
    """A template of our own: (IE, length in octets, numpy type, value of the columns)."""

    identifier: int
    fields: tuple[tuple[int, str, Callable[[Columns], NDArray[Any]]], ...]

    @property
    def record(self) -> np.dtype[Any]:
        return np.dtype([(str(number), kind) for number, kind, _ in self.fields])

    def definition(self) -> bytes:
        kinds = [(element, np.dtype(kind).itemsize) for element, kind, _ in self.fields]
        head = struct.pack("!HH", self.identifier, len(kinds))
        return head + b"".join(struct.pack("!HH", *kind) for kind in kinds)

    def encode(self, columns: Columns) -> NDArray[Any]:
        records = np.zeros(len(columns["start"]), self.record)
        for number, _, value in self.fields:
            records[str(number)] = value(columns)
        return records


def _column(name: str) -> Callable[[Columns], NDArray[Any]]:
    return lambda columns: columns[name]


def _v4(name: str) -> Callable[[Columns], NDArray[Any]]:
    return lambda columns: np.ascontiguousarray(columns[name][:, 12:]).view("V4")[:, 0]


def _v6(name: str) -> Callable[[Columns], NDArray[Any]]:
    return lambda columns: np.ascontiguousarray(columns[name]).view("V16")[:, 0]


_COMMON = (
    (7, ">u2", _column("source_port")), (11, ">u2", _column("destination_port")), (4, "u1", _column("protocol")),
    (5, "u1", _column("tos")), (6, "u1", _column("tcp_flags")), (10, ">u4", _column("input_interface")),
    (14, ">u4", _column("output_interface")), (1, ">u8", _column("octets")), (2, ">u8", _column("packets")),
)  # fmt: skip
_UPTIME = ((22, ">u4", _column("first")), (21, ">u4", _column("last")))
_MILLISECONDS = ((152, ">u8", _column("start")), (153, ">u8", _column("end")))
_ADDRESSES_V4 = ((8, "V4", _v4("source_address")), (12, "V4", _v4("destination_address")))
_ADDRESSES_V6 = ((27, "V16", _v6("source_address")), (28, "V16", _v6("destination_address")))

V9_TEMPLATES = (
    Template(256, (*_ADDRESSES_V4, *_COMMON, *_UPTIME)),
    Template(257, (*_ADDRESSES_V6, *_COMMON, *_UPTIME)),
)
IPFIX_TEMPLATES = (
    Template(256, (*_ADDRESSES_V4, *_COMMON, *_MILLISECONDS)),
    Template(257, (*_ADDRESSES_V6, *_COMMON, *_MILLISECONDS)),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the exporter is: its observation domain, its sampling rate (1: none), when it booted."""

    domain: int = 0
    sampling: int = 1
    boot_ms: int = 0
    template_every: int = TEMPLATE_EVERY
    first_sequence: int = 0


def encode(columns: Columns, protocol: str, settings: Settings) -> list[Datagram]:
    """The datagrams of one exporter for these flows, in the order in which it sends them. Raises UsageError."""
    if protocol not in PROTOCOLS:
        raise UsageError(f"'{protocol}' is not a protocol that is sent", f"the protocols are {', '.join(PROTOCOLS)}")
    encoders = {"v5": _encode_v5, "v9": _encode_v9, "ipfix": _encode_ipfix, "sflow": _encode_sflow}
    return list(encoders[protocol](columns, settings))


def _chunks(columns: Columns, size: int) -> Iterator[tuple[bool, NDArray[np.int64]]]:
    """(is IPv6, rows) of each datagram, by the end of its last flow."""
    mapped = (columns["source_address"][:, :12] == np.frombuffer(IPV4_MAPPED, np.uint8)).all(axis=1)
    found: list[tuple[int, bool, NDArray[np.int64]]] = []
    for ipv6 in (False, True):
        rows = np.flatnonzero(mapped != ipv6)
        for first in range(0, rows.size, size):
            chunk = rows[first : first + size]
            found.append((int(columns["end"][chunk[-1]]), ipv6, chunk))
    for _, ipv6, rows in sorted(found, key=lambda item: (item[0], item[1])):
        yield ipv6, rows


def _take(columns: Columns, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    return {name: values[rows] for name, values in columns.items()}


def _octets(columns: Columns, rows: NDArray[np.int64]) -> int:
    return int(columns["octets"][rows].sum())


def _export_time(columns: Columns, rows: NDArray[np.int64]) -> int:
    """When a router would send these flows: a whole second after the last of them, since v9 writes whole seconds."""
    return int((columns["end"][rows].max() + EXPORT_LAG_MS) // SECOND_MS + 1) * SECOND_MS


def _encode_v5(columns: Columns, settings: Settings) -> Iterator[Datagram]:
    sequence = settings.first_sequence
    mode = 0 if settings.sampling == 1 else (1 << 14) | settings.sampling
    for ipv6, rows in _chunks(columns, RECORDS_MAX["v5"]):
        if ipv6:
            raise UsageError("NetFlow v5 has no room for IPv6 addresses", "send these flows as v9, ipfix or sflow")
        own = _take(columns, rows)
        now = _export_time(columns, rows)
        records = np.zeros(rows.size, _V5)
        for name, value in (("source", "source_address"), ("destination", "destination_address")):
            records[name] = _v4(value)(own)
        for name, value in (("input", "input_interface"), ("output", "output_interface")):
            records[name] = own[value]
        for name in ("packets", "octets", "source_port", "destination_port", "tcp_flags", "protocol", "tos"):
            records[name] = own[name]
        records["first"], records["last"] = own["start"] - settings.boot_ms, own["end"] - settings.boot_ms
        header = struct.pack("!HHIIIIBBH", 5, rows.size, (now - settings.boot_ms) % 2**32, now // 1000, now % 1000 * 1_000_000,
                             sequence % 2**32, settings.domain >> 8, settings.domain & 255, mode)  # fmt: skip
        yield Datagram(header + records.tobytes(), rows.size, _octets(columns, rows), rows, rows.size)
        sequence += rows.size


def _sets(templates: tuple[Template, ...], number: int, settings: Settings, template_set: int, options: bytes) -> bytes:
    """The template sets that the datagram of this number begins with, most often none."""
    if number % settings.template_every:
        return b""
    body = b"".join(template.definition() for template in templates)
    return struct.pack("!HH", template_set, 4 + len(body)) + body + (options if settings.sampling > 1 else b"")


def _data_set(template: Template, columns: Columns) -> bytes:
    body = template.encode(columns).tobytes()
    body += b"\x00" * (-len(body) % 4)
    return struct.pack("!HH", template.identifier, 4 + len(body)) + body


def _encode_v9(columns: Columns, settings: Settings) -> Iterator[Datagram]:
    # Options: scope System, IE 34 (samplingInterval); then one record of it.
    options = struct.pack("!HHHHHHHHH", 1, 18, OPTIONS_TEMPLATE, 4, 4, 1, 4, 34, 4)
    options += struct.pack("!HHII", OPTIONS_TEMPLATE, 12, settings.domain, settings.sampling)
    for number, (ipv6, rows) in enumerate(_chunks(columns, RECORDS_MAX["v9"])):
        own, now = _take(columns, rows), _export_time(columns, rows)
        own["first"], own["last"] = (own[name] - settings.boot_ms for name in ("start", "end"))
        templates = _sets(V9_TEMPLATES, number, settings, 0, options)
        extra = len(V9_TEMPLATES) + 2 * (settings.sampling > 1) if templates else 0
        payload = struct.pack("!HHIIII", 9, rows.size + extra, (now - settings.boot_ms) % 2**32, now // 1000,
                              (settings.first_sequence + number) % 2**32, settings.domain)  # fmt: skip
        payload += templates + _data_set(V9_TEMPLATES[ipv6], own)
        records = rows.size + (settings.sampling > 1 and bool(templates))
        yield Datagram(payload, records, _octets(columns, rows), rows, 1)


def _encode_ipfix(columns: Columns, settings: Settings) -> Iterator[Datagram]:
    # Options: scope observationDomainId (IE 149), IE 34; then one record of it.
    options = struct.pack("!HHHHHHHHH", 3, 18, OPTIONS_TEMPLATE, 2, 1, 149, 4, 34, 4)
    options += struct.pack("!HHII", OPTIONS_TEMPLATE, 12, settings.domain, settings.sampling)
    sequence = settings.first_sequence
    for number, (ipv6, rows) in enumerate(_chunks(columns, RECORDS_MAX["ipfix"])):
        templates = _sets(IPFIX_TEMPLATES, number, settings, 2, options)
        body = templates + _data_set(IPFIX_TEMPLATES[ipv6], _take(columns, rows))
        records = rows.size + (settings.sampling > 1 and bool(templates))
        header = struct.pack(
            "!HHIII", 10, 16 + len(body), _export_time(columns, rows) // 1000, sequence % 2**32, settings.domain
        )
        yield Datagram(header + body, records, _octets(columns, rows), rows, records)
        sequence += records


def _sample_type(ipv6: bool) -> np.dtype[Any]:
    """A flow sample with one raw header: Ethernet, IP and 20 octets of transport, padded to four octets."""
    network = [("version", "u1"), ("tos", "u1"), ("total", ">u2"), ("rest", "V5"), ("protocol", "u1"), ("sum", "V2"),
               ("source", "V4"), ("destination", "V4")]  # fmt: skip
    if ipv6:
        network = [("version", "u1"), ("rest", "V3"), ("total", ">u2"), ("protocol", "u1"), ("hops", "u1"),
                   ("source", "V16"), ("destination", "V16")]  # fmt: skip
    return np.dtype([
        ("sample", ">u4"), ("sample_length", ">u4"), ("sequence", ">u4"), ("source_id", ">u4"), ("rate", ">u4"),
        ("pool", ">u4"), ("drops", ">u4"), ("input", ">u4"), ("output", ">u4"), ("records", ">u4"), ("record", ">u4"),
        ("record_length", ">u4"), ("header_protocol", ">u4"), ("frame_length", ">u4"), ("stripped", ">u4"),
        ("header_length", ">u4"), ("macs", "V12"), ("ethertype", ">u2"), *network, ("source_port", ">u2"),
        ("destination_port", ">u2"), ("between", "V9"), ("tcp_flags", "u1"), ("tail", "V6"), ("pad", "V2"),
    ])  # fmt: skip


_SAMPLES = (_sample_type(False), _sample_type(True))


def _samples(columns: Columns, ipv6: bool, settings: Settings, first: int) -> NDArray[Any]:
    kind = _SAMPLES[ipv6]
    samples = np.zeros(len(columns["start"]), kind)
    header = 14 + (40 if ipv6 else 20) + 20
    samples["sample"], samples["sample_length"] = 1, kind.itemsize - 8
    samples["sequence"] = first + np.arange(samples.size)
    samples["source_id"], samples["records"] = 1, 1
    samples["rate"] = settings.sampling
    samples["record"], samples["record_length"] = 1, kind.itemsize - 48
    samples["header_protocol"], samples["header_length"], samples["stripped"] = 1, header, 4
    samples["frame_length"] = columns["octets"] + 18
    samples["ethertype"] = 0x86DD if ipv6 else 0x0800
    samples["version"] = 0x60 if ipv6 else 0x45
    samples["total"] = columns["octets"] - (40 if ipv6 else 0)
    if not ipv6:
        samples["tos"] = columns["tos"]
    family = _v6 if ipv6 else _v4
    samples["source"], samples["destination"] = (
        family("source_address")(columns),
        family("destination_address")(columns),
    )
    for name in ("protocol", "source_port", "destination_port", "tcp_flags"):
        samples[name] = columns[name]
    samples["input"], samples["output"] = columns["input_interface"], columns["output_interface"]
    return samples


def _encode_sflow(columns: Columns, settings: Settings) -> Iterator[Datagram]:
    """A sample is one packet: `octets` is its IP length. Its time is the datagram's uptime, so that of the last flow."""
    if columns["octets"].size and int(columns["octets"].max()) > 65_535:
        raise UsageError(
            "an sFlow sample is one packet of at most 65535 octets", "send these flows in another protocol"
        )
    sampled = 0
    for number, (ipv6, rows) in enumerate(_chunks(columns, RECORDS_MAX["sflow"])):
        uptime = (int(columns["end"][rows].max()) - settings.boot_ms) % 2**32
        sequence = (settings.first_sequence + number) % 2**32
        header = struct.pack("!II4sIIII", 5, 1, b"\x7f\x00\x00\x01", settings.domain, sequence,
                             uptime, rows.size)  # fmt: skip
        samples = _samples(_take(columns, rows), ipv6, settings, sampled)
        yield Datagram(header + samples.tobytes(), rows.size, _octets(columns, rows), rows, 1)
        sampled += rows.size
