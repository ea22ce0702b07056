"""What the receivers are sent: flow exports as a border router makes them, encoded once and repeated with new sequence numbers.

v9: 19 fields, 54 octets a record, 25 records in 1,378 octets. IPFIX: 16 fields, 56 octets, 24 records. v5: 28 records in
1,368 octets, its most being 30. A cycle begins with the template (v9, IPFIX), so that it is refreshed all the time.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CYCLE = 2000
DATAGRAM_SIZE = 1400
BOOT_MS = 3_600_000
PROTOCOLS = ("v5", "v9", "ipfix")

_HEADER = {"v5": 24, "v9": 20, "ipfix": 16}
_SEQUENCE_AT = {"v5": 16, "v9": 12, "ipfix": 8}
_TEMPLATE = 256
_V5_RECORDS = 28
# (element, type); big endian, as on the wire.
_COMMON = [(8, ">u4"), (12, ">u4"), (10, ">u4"), (14, ">u4"), (2, ">u4"), (1, ">u4")]
_FIELDS = {
    "v9": [*_COMMON, (15, ">u4"), (22, ">u4"), (21, ">u4"), (7, ">u2"), (11, ">u2"), (6, "u1"), (4, "u1"), (5, "u1"),
           (61, "u1"), (16, ">u4"), (17, ">u4"), (9, "u1"), (13, "u1")],
    "ipfix": [*_COMMON, (152, ">u8"), (153, ">u8"), (7, ">u2"), (11, ">u2"), (6, "u1"), (4, "u1"), (5, "u1"), (61, "u1"),
              (16, ">u4"), (17, ">u4")],
    "v5": [(8, ">u4"), (12, ">u4"), (15, ">u4"), (10, ">u2"), (14, ">u2"), (2, ">u4"), (1, ">u4"), (22, ">u4"), (21, ">u4"),
           (7, ">u2"), (11, ">u2"), (0, "u1"), (6, "u1"), (4, "u1"), (5, "u1"), (16, ">u2"), (17, ">u2"), (9, "u1"),
           (13, "u1"), (210, ">u2")],
}  # fmt: skip


@dataclass(frozen=True)
class Traffic:
    """A cycle of datagrams; `octets[starts[i] : starts[i] + sizes[i]]` is one."""

    protocol: str
    octets: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    sequence_at: int
    units: NDArray[np.int64]
    records: NDArray[np.int64]

    def save(self, path: Path) -> None:
        np.savez(path, octets=self.octets, starts=self.starts, sizes=self.sizes, units=self.units, records=self.records,
                 sequence_at=np.int64(self.sequence_at), protocol=np.array(self.protocol))  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> Traffic:
        with np.load(path) as held:
            return cls(str(held["protocol"]), held["octets"], held["starts"], held["sizes"], int(held["sequence_at"]),
                       held["units"], held["records"])  # fmt: skip

    def records_of(self, datagrams: int, before: int = 0) -> int:
        """Records in so many datagrams of a stream, of which `before` went out earlier."""
        sums = np.concatenate([[0], np.cumsum(self.records)])

        def upto(count: int) -> int:
            cycles, rest = divmod(count, len(self.records))
            return cycles * int(sums[-1]) + int(sums[rest])

        return upto(before + datagrams) - upto(before)

    def payloads(self) -> list[bytes]:
        return [self.octets[at : at + size].tobytes() for at, size in zip(self.starts, self.sizes, strict=True)]


def make(protocol: str, datagrams: int = CYCLE, seed: int = 1) -> Traffic:
    """A cycle of `datagrams` full datagrams of one exporter, and its template."""
    kinds = np.dtype([(f"e{element}", kind) for element, kind in _FIELDS[protocol]])
    header = _HEADER[protocol]
    each = _V5_RECORDS if protocol == "v5" else (DATAGRAM_SIZE - header - 4) // kinds.itemsize
    now = int(time.time())
    rows = _rows(kinds, datagrams * each, seed, now * 1000)
    room = header + (0 if protocol == "v5" else 4)
    size = room + each * kinds.itemsize
    padding = 0 if protocol == "v5" else -size % 4
    matrix = np.zeros((datagrams, size + padding), np.uint8)
    matrix[:, room:size] = rows.view(np.uint8).reshape(datagrams, each * kinds.itemsize)
    head = _header(protocol, each, size + padding, now)
    if protocol != "v5":
        head += struct.pack(">HH", _TEMPLATE, size + padding - header)
    matrix[:, :room] = np.frombuffer(head, np.uint8)
    first = np.frombuffer(_template(protocol, kinds, now), np.uint8) if protocol != "v5" else np.zeros(0, np.uint8)
    with_template = protocol != "v5"
    sizes = np.full(datagrams + with_template, size + padding, np.int64)
    records = np.full(datagrams + with_template, each, np.int64)
    if with_template:
        sizes[0], records[0] = len(first), 0
    units = np.ones_like(records) if protocol == "v9" else records.copy()
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return Traffic(protocol, np.concatenate([first, matrix.ravel()]), starts, sizes, _SEQUENCE_AT[protocol], units, records)


def _rows(kinds: np.dtype[np.void], count: int, seed: int, now_ms: int) -> NDArray[np.void]:
    rng = np.random.default_rng(seed)
    rows = np.zeros(count, kinds)
    packets = rng.geometric(0.05, count)
    ends = rng.integers(0, 60_000, count)
    lasts = rng.integers(0, 30_000, count)
    values = {
        8: 0x0A000000 + rng.integers(0, 2**16, count), 12: 0xC6336400 + rng.integers(0, 2**12, count),
        10: rng.integers(1, 49, count), 14: rng.integers(1, 49, count), 2: packets, 1: packets * rng.integers(64, 1500, count),
        15: np.full(count, 0xC0000201), 22: BOOT_MS - ends - lasts, 21: BOOT_MS - ends, 152: now_ms - ends - lasts,
        153: now_ms - ends, 7: rng.integers(1024, 65536, count), 11: rng.choice([53, 80, 443, 8443], count),
        6: rng.choice([0x18, 0x1B, 0x02], count), 4: rng.choice([6, 17], count, p=[0.8, 0.2]), 5: np.zeros(count, np.int64),
        61: rng.integers(0, 2, count), 16: rng.integers(1, 65000, count), 17: rng.integers(1, 65000, count),
        9: np.full(count, 24), 13: np.full(count, 16),
    }  # fmt: skip
    for name in kinds.names or ():
        if int(name[1:]) in values:
            rows[name] = values[int(name[1:])]
    return rows


def _header(protocol: str, records: int, size: int, now: int) -> bytes:
    if protocol == "v5":
        return struct.pack(">HHIIIIHH", 5, records, BOOT_MS, now, 0, 0, 0, 0)
    if protocol == "v9":
        return struct.pack(">HHIIII", 9, records, BOOT_MS, now, 0, 1)
    return struct.pack(">HHIII", 10, size, now, 0, 1)


def _template(protocol: str, kinds: np.dtype[np.void], now: int) -> bytes:
    fields = [(int(name[1:]), kinds[name].itemsize) for name in kinds.names or ()]
    body = struct.pack(">HH", _TEMPLATE, len(fields)) + b"".join(struct.pack(">HH", *field) for field in fields)
    framed = struct.pack(">HH", 0 if protocol == "v9" else 2, 4 + len(body)) + body
    return _header(protocol, 1, _HEADER[protocol] + len(framed), now) + framed
