"""Capture files → bodies of the datagram journal: pcap, pcapng, IPFIX files (RFC 5655) and raw payloads, told by content.

The file is mapped into memory and walked by a kernel: no Python object per packet, memory bounded by one body.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from collector.kernels import captures as kernels
from core.addresses import parse_address
from core.errors import RatemillError
from storage.journal import BODY_SIZE_MAX, HEADER_SIZE

DEFAULT_EXPORTER = parse_address("192.0.2.1")
"""The source of datagrams that a file holds without addresses."""

RECEIVED_UNKNOWN = 1
"""Flag of an entry: its arrival time is that of the export in its header."""

_PCAP_MAGICS = {
    b"\xa1\xb2\xc3\xd4": (1, 0), b"\xd4\xc3\xb2\xa1": (0, 0),
    b"\xa1\xb2\x3c\x4d": (1, 1), b"\x4d\x3c\xb2\xa1": (0, 1),
}
_PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"
_OTHER_MAGICS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"BZh": "bzip2"}
_IPFIX = b"\x00\x0a"
RAW_SIZE_MAX = 65535


class Batch(NamedTuple):
    """Datagrams of a file, in its order. `framed` is 64 free octets and the body; it is used again for the next batch."""

    framed: NDArray[np.uint8]
    datagrams: int
    first_received: int
    last_received: int


@dataclass
class Capture:
    """What a file was found to hold; the counts grow while it is read."""

    path: Path
    form: str = ""
    datagrams: int = 0
    packets: int = 0
    other: int = 0
    """Packets that hold no export."""
    packets_cut: int = 0
    """Packets of which the capture kept only the beginning."""
    fragments_lost: int = 0
    """Fragmented datagrams of which a part is missing."""
    streams_broken: int = 0
    """Gaps in captured TCP streams."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """Who sent what a file without addresses holds, and when it came."""

    exporter: bytes = DEFAULT_EXPORTER
    received: int = 0
    """Base of the arrival time of raw sFlow, which carries uptime only."""


class _Tables(NamedTuple):
    """Working memory of a walk: datagrams in fragments, TCP streams."""

    streams: NDArray[np.int64]
    ends_of: NDArray[np.uint8]
    stream_octets: NDArray[np.uint8]
    fragments: NDArray[np.int64]
    fragment_ends: NDArray[np.uint8]
    units: NDArray[np.uint8]
    fragment_octets: NDArray[np.uint8]


def _tables() -> _Tables:
    return _Tables(
        streams=np.zeros((kernels.STREAMS_MAX, kernels.TABLE_WIDTH), np.int64),
        ends_of=np.zeros((kernels.STREAMS_MAX, 32), np.uint8),
        stream_octets=np.zeros((kernels.STREAMS_MAX, kernels.STREAM_SIZE), np.uint8),
        fragments=np.zeros((kernels.FRAGMENTED_MAX, kernels.TABLE_WIDTH), np.int64),
        fragment_ends=np.zeros((kernels.FRAGMENTED_MAX, 32), np.uint8),
        units=np.zeros((kernels.FRAGMENTED_MAX, 8192), np.uint8),
        fragment_octets=np.zeros((kernels.FRAGMENTED_MAX, 65536), np.uint8),
    )


def read_capture(capture: Capture, source: Source = Source(), ports: tuple[int, ...] = ()) -> Iterator[Batch]:
    """The datagrams of `capture.path` in batches. Raises RatemillError if the file can't be opened or is none of ours."""
    with _mapped(capture.path) as data:
        yield from _walk(capture, data.octets, source, ports)


class _Mapped:
    """A file in memory; empty ones can't be mapped."""

    def __init__(self, file: Any, size: int) -> None:
        self._file = file
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if size else None
        self.octets = np.frombuffer(self._map, np.uint8) if self._map is not None else np.zeros(0, np.uint8)

    def __enter__(self) -> _Mapped:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()  # the mapping goes with the last array that looks into it


def _mapped(path: Path) -> _Mapped:
    try:
        file = path.open("rb")
        return _Mapped(file, path.stat().st_size)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RatemillError(f"{path} can't be read: {reason}", "check the name and the mode of the file") from error


def _walk(capture: Capture, data: NDArray[np.uint8], source: Source, ports: tuple[int, ...]) -> Iterator[Batch]:
    magic = data[:4].tobytes()
    walk = np.zeros(kernels.WALK_SIZE, np.int64)
    walk[kernels.DRAIN] = -1
    interfaces = np.zeros((kernels.INTERFACES_MAX, 4), np.int64)
    if magic in _PCAP_MAGICS and data.size >= 24:
        capture.form = "pcap"
        walk[kernels.SWAPPED], walk[kernels.NANOSECONDS] = _PCAP_MAGICS[magic]
        walk[kernels.POSITION] = 24
        link = int.from_bytes(data[20:24].tobytes(), "big" if walk[kernels.SWAPPED] else "little")
        interfaces[0, kernels.IF_LINK] = link & 0xFFFF
    elif magic == _PCAPNG_MAGIC:
        capture.form = "pcapng"
    elif magic[:2] == _IPFIX:
        capture.form = "ipfix"
    else:
        yield from _raw(capture, data, source)
        return
    yield from _batches(capture, data, walk, interfaces, source, ports)


def _batches(capture: Capture, data: NDArray[np.uint8], walk: NDArray[np.int64], interfaces: NDArray[np.int64],
             source: Source, ports: tuple[int, ...]) -> Iterator[Batch]:
    framed, body, words = _frame()
    meta, ends = _without_addresses(source)
    tables, wanted = _tables(), np.zeros(64, np.int64)
    wanted[: len(ports)] = ports
    walk[kernels.PORT_COUNT] = len(ports)
    read = kernels.read_pcap if capture.form == "pcap" else kernels.read_pcapng
    while True:
        walk[kernels.USED] = walk[kernels.COUNT] = 0
        if capture.form == "ipfix":
            code = kernels.read_messages(data, walk, meta, ends, body, words)
        else:
            code = read(data, walk, interfaces, meta, ends, wanted, body, words, *tables)
        if walk[kernels.COUNT]:
            yield _batch(framed, body, walk)
        if code == kernels.DONE:
            break
    walk[kernels.FRAGMENTS_LOST] += np.count_nonzero(tables.fragments[:, kernels.F_LIVE])
    _conclude(capture, walk, data.size)


def _frame() -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint64]]:
    """Room for a block: the whole, its body, and the body as 64-bit words."""
    whole = np.zeros((HEADER_SIZE + BODY_SIZE_MAX) // 8, np.uint64)
    framed = whole.view(np.uint8)
    return framed, framed[HEADER_SIZE:], whole[HEADER_SIZE // 8 :]


def _without_addresses(source: Source) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The entry of a datagram that a file holds without addresses."""
    meta = np.array([source.received, 0, 0, 17, 4 if source.exporter[:12] == DEFAULT_EXPORTER[:12] else 6,
                     RECEIVED_UNKNOWN, 0, 0], np.int64)
    ends = np.frombuffer(source.exporter + bytes(16), np.uint8).copy()
    return meta, ends


def _raw(capture: Capture, data: NDArray[np.uint8], source: Source) -> Iterator[Batch]:
    """A file that is one payload, whatever it begins with: an unknown version is a fault, not a reason to refuse it."""
    capture.form = "raw"
    start = data[:6].tobytes()
    packed = next((name for magic, name in _OTHER_MAGICS.items() if start.startswith(magic)), None)
    if packed is not None:
        raise RatemillError(f"{capture.path} is compressed with {packed}", "unpack it first, then replay the result")
    if data.size > RAW_SIZE_MAX:
        raise RatemillError(f"{capture.path} is neither pcap, pcapng nor IPFIX, and too large for one datagram",
                            "give captures as pcap or pcapng, IPFIX files, or files of one UDP payload each")
    framed, body, words = _frame()
    meta, ends = _without_addresses(source)
    walk = np.zeros(kernels.WALK_SIZE, np.int64)
    kernels.put_entry(body, words, walk, data, 0, data.size, meta, ends)
    capture.datagrams = 1
    yield _batch(framed, body, walk)


def _batch(framed: NDArray[np.uint8], body: NDArray[np.uint8], walk: NDArray[np.int64]) -> Batch:
    used, count = int(walk[kernels.USED]), int(walk[kernels.COUNT])
    first = int(body[:8].view(np.int64)[0])
    return Batch(framed[: HEADER_SIZE + used], count, first, int(walk[kernels.NEWEST]))


def _conclude(capture: Capture, walk: NDArray[np.int64], size: int) -> None:
    capture.datagrams, capture.packets = int(walk[kernels.DATAGRAMS]), int(walk[kernels.PACKETS])
    capture.other = int(walk[kernels.NOT_IP] + walk[kernels.OTHER])
    capture.packets_cut = int(walk[kernels.CUT])
    capture.fragments_lost, capture.streams_broken = int(walk[kernels.FRAGMENTS_LOST]), int(walk[kernels.STREAMS_BROKEN])
    if walk[kernels.ENDED_EARLY]:
        where = int(walk[kernels.POSITION])
        capture.notes.append(f"{capture.path} is cut off or damaged at octet {where} of {size}: what is before it counts")
    if capture.packets and not capture.datagrams:
        capture.notes.append(f"{capture.path}: {capture.packets} packets, none of them a flow export")
    if capture.packets_cut:
        capture.notes.append(f"{capture.path}: {capture.packets_cut} packets were captured in part only (snap length)")
    if capture.fragments_lost:
        capture.notes.append(f"{capture.path}: {capture.fragments_lost} fragmented datagrams lack a fragment")
    if capture.streams_broken:
        capture.notes.append(f"{capture.path}: {capture.streams_broken} gaps in TCP streams")
