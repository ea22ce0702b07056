"""The whole step from flows to cell files, for a million services, against the same job written in DuckDB SQL.

One thread each, in turns. The job: both ends of every flow looked up among two leases a service, the class of the far end
among prefixes, the split at quarter hours and at the edges of three tariff zones, sums, and the file written as zstd
Parquet. Addresses are drawn uniformly, so hardly any two flows find their owner in the same cache line: the last row says
what that many unavoidable random loads cost by themselves. DuckDB is helped: it is given the classes as flat ranges (an
ASOF join instead of a join on prefixes), and it looks up an owner at a flow's start alone. What both found is compared.
`nfdump -A srcip` groups the same flows by one address and does none of the rest; it reads them from a file of nfcapd.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from aggregation import cell_store
from aggregation.cells import Inputs, Maker
from aggregation.classes import Classifier
from aggregation.settings import TrafficClass
from aggregation.timelines import Stretch, Timelines
from benchmarks import processes, receivers
from benchmarks.measure import RUNS, Figure, median_ratio, tell
from core import calendars
from core.addresses import parse_prefix
from core.jit import kernel
from core.periods import DAY_MS, OPEN_START, parse_instant
from storage.home import Home
from subscribers.attribution import Attribution, LeaseRow

SERVICES = 1_000_000
FLOWS = 2_000_000
PREFIXES = 10_000
CLASSES = 8
PIECE = 1 << 18
START = parse_instant("2026-10-01T00:00:00Z")
FIRST_ADDRESS = int.from_bytes(parse_prefix("10.0.0.0/8").address[12:], "big")
_SEED = 20261001

Columns = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class World:
    """Leases, classes and a calendar, as both sides read them."""

    services: int
    classes: tuple[TrafficClass, ...]
    timelines: Timelines
    attribution: Attribution
    classifier: Classifier
    calendar: calendars.CalendarVersion

    @property
    def inputs(self) -> Inputs:
        return Inputs(self.attribution, self.classifier, self.timelines)


def run(services: int = SERVICES, flows: int = FLOWS, runs: int = RUNS) -> None:
    """Flows a second and the ratio to DuckDB; memory, the growth with the flows, and the loads as the limit."""
    world = make_world(services)
    columns = make_flows(services, flows)
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        home.create()
        theirs_work = _duckdb(world, columns, Path(folder) / "duckdb.parquet")
        ours, theirs = _turns(lambda: _ours(world, columns, home), theirs_work, runs)
        found = pq.read_table(Path(folder) / "duckdb.parquet", columns=["octets", "packets", "flows"])
        assert tuple(map(int, (pc.sum(c).as_py() for c in found.columns))) == _ours(world, columns, home), "the same job"
        small = {name: values[: flows // 10] for name, values in columns.items()}
        tenth = _seconds(lambda: _ours(world, small, home))
        if receivers.is_here("nfcapd"):
            _beside_nfdump(columns, Path(folder), lambda: _ours(world, columns, home), services, runs)
    ratio = median_ratio(theirs, ours)
    middle = statistics.median(ours)
    tell(Figure("usage", f"flows to cell files, {services:,} services, one core", flows / middle / 1e6, "M flows/s",
                "DuckDB SQL for the same job", ratio, {
                    "DuckDB, M flows/s": round(flows / statistics.median(theirs) / 1e6, 3),
                    "ten times the flows take": round(middle / tenth, 2),
                    "random loads alone, M flows/s": round(_load_limit(services, flows), 2),
                    "memory at most, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))  # fmt: skip


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks usage")
    parser.add_argument("--services", type=int, default=SERVICES)
    parser.add_argument("--flows", type=int, default=FLOWS)
    parser.add_argument("--runs", type=int, default=RUNS)
    run(**vars(parser.parse_args(words)))


def make_world(services: int) -> World:
    """Service i + 1 has the address 10.0.0.0 + i all day, by two leases that change hands at noon."""
    generator = np.random.default_rng(_SEED)
    classes = _classes(generator)
    ids = {name: number for number, name in enumerate(["default", *(entry.name for entry in classes)], 1)}
    version = calendars.CalendarVersion("day-night", date(2026, 1, 1), (
        calendars.Zone("day", (0, 1, 2, 3, 4, 5, 6), 480, 1080), calendars.Zone("evening", (0, 1, 2, 3, 4, 5, 6), 1080, 1380),
        calendars.Zone("night", default=True)), frozenset())  # fmt: skip
    stretch = [Stretch(OPEN_START, 1, "day-night", "UTC", False)]
    timelines = Timelines(dict.fromkeys(range(1, services + 1), stretch), {"day-night": [version]})
    noon = START + DAY_MS // 2
    rows = (LeaseRow("", _address(FIRST_ADDRESS + service - 1), 128, None, None, None, *when, service)
            for service in range(1, services + 1) for when in ((START - DAY_MS, noon), (noon, START + 2 * DAY_MS)))
    return World(services, classes, timelines, Attribution(rows, {}), Classifier.make(classes, ids), version)


def _classes(generator: np.random.Generator) -> tuple[TrafficClass, ...]:
    """Prefixes of /24 spread over the far ends, dealt out to a few classes."""
    far = sorted({int(value) & 0xFFFFFF00 for value in generator.integers(0xA0000000, 0xE0000000, PREFIXES)})
    prefixes = [parse_prefix(_text(value) + "/24") for value in far]
    return tuple(TrafficClass(f"class-{number}", prefixes=tuple(prefixes[number::CLASSES])) for number in range(CLASSES))


def _text(address: int) -> str:
    return ".".join(str(octet) for octet in address.to_bytes(4, "big"))


def _address(number: int) -> bytes:
    return bytes(10) + b"\xff\xff" + number.to_bytes(4, "big")


def make_flows(services: int, count: int) -> Columns:
    """Flows of one day, up to two minutes long, half of them to a service and half from one."""
    generator = np.random.default_rng(_SEED + 1)
    near = _addresses(FIRST_ADDRESS + generator.integers(0, services, count))
    far = _addresses(generator.integers(0xA0000000, 0xE0000000, count))
    down = generator.random(count)[:, None] < 0.5
    start = START + np.sort(generator.integers(0, DAY_MS - 120_000, count))
    port = generator.integers(1024, 65_535, count).astype(np.uint16)
    one = np.ones(count, np.uint32)
    return {
        "exporter": np.tile(_addresses(np.array([0xC0000201])), (count, 1)), "start": start,
        "end": start + generator.integers(0, 120_000, count), "source_address": np.where(down, far, near),
        "destination_address": np.where(down, near, far), "source_port": port,
        "destination_port": np.full(count, 443, np.uint16), "protocol": np.full(count, 6, np.uint8),
        "octets": generator.integers(40, 10_000_000, count), "packets": generator.integers(1, 10_000, count),
        "rate_numerator": one, "rate_denominator": one, "input_interface": one, "output_interface": one * np.uint32(2),
        "flow_direction": np.zeros(count, np.uint8), "flags": np.zeros(count, np.uint32),
    }  # fmt: skip


def _addresses(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    octets = np.zeros((len(numbers), 16), np.uint8)
    octets[:, 10:12] = 255
    octets[:, 12:] = np.ascontiguousarray(numbers.astype(">u4")).view(np.uint8).reshape(-1, 4)
    return octets


def _ours(world: World, columns: Columns, home: Home) -> tuple[int, int, int]:
    """Octets, packets and flows of all cells."""
    maker = Maker(world.inputs)
    for first in range(0, len(columns["start"]), PIECE):
        maker.take({name: values[first : first + PIECE] for name, values in columns.items()}, "benchmark")
    made = maker.finish()
    for kind, table in (("cells", made.cells), ("outcomes", made.outcomes)):
        (home.path / cell_store.write(home, cell_store.name_of([time.perf_counter_ns()]), kind, table).path).unlink()
    octets, packets, count = (int(made.cells.column(name).to_numpy().sum()) for name in ("octets", "packets", "flows"))
    return octets, packets, count


def _duckdb(world: World, columns: Columns, path: Path) -> Callable[[], object]:
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    flows = {name: columns[name] for name in ("start", "end", "octets", "packets")}
    flows |= {name: _number(columns[f"{name}_address"]) for name in ("source", "destination")}
    address = np.arange(FIRST_ADDRESS, FIRST_ADDRESS + world.services)
    noon, service = START + DAY_MS // 2, np.arange(1, world.services + 1)
    slots = START + np.arange(0, 2 * DAY_MS, 900_000)
    ranges = world.classifier.ranges
    tables = {
        "flows": {"id": np.arange(len(flows["start"])), **flows},
        "leases": {"address": np.tile(address, 2), "service": np.tile(service, 2),
                   "start": np.repeat([START - DAY_MS, noon], len(address)),
                   "end": np.repeat([noon, START + 2 * DAY_MS], len(address))},
        "classes": {"first": ranges.first_low.astype(np.int64) & 0xFFFFFFFF, "class": ranges.range_class},
        "slots": {"start": slots, "end": slots + 900_000},
        "zones": _zone_rows(world),
    }  # fmt: skip
    for name, values in tables.items():
        connection.register("given", pa.table(values))
        connection.execute(f"CREATE TABLE {name} AS SELECT * FROM given")
        connection.unregister("given")
    connection.execute("DELETE FROM classes WHERE first = 0 AND rowid > 0")
    statement = f"COPY ({_SQL}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)"
    return lambda: connection.execute(statement)


_SQL = """
WITH ends AS (
    SELECT id, source AS near, destination AS far, 0 AS direction, start, greatest("end", start + 1) AS "end", octets, packets
    FROM flows
    UNION ALL
    SELECT id, destination, source, 1, start, greatest("end", start + 1), octets, packets FROM flows
), owned AS (
    SELECT e.*, l.service FROM ends e ASOF JOIN leases l ON e.near = l.address AND e.start >= l.start
), classed AS (
    SELECT o.*, c.class FROM owned o ASOF JOIN classes c ON o.far >= c.first
), cut AS (
    SELECT c.service, c.class, c.direction, c.octets, c.packets, s.start AS slot, z.zone,
           greatest(c.start, s.start, z.start) - c.start AS a, least(c."end", s."end", z."end") - c.start AS b,
           c."end" - c.start AS d
    FROM classed c JOIN slots s ON s.start < c."end" AND s."end" > c.start
    JOIN zones z ON z.start < least(c."end", s."end") AND z."end" > greatest(c.start, s.start)
)
SELECT service, slot, zone, class, direction, sum(octets * b // d - octets * a // d) AS octets,
       sum(packets * b // d - packets * a // d) AS packets, count(*) FILTER (a = 0) AS flows
FROM cut GROUP BY ALL ORDER BY service, slot
"""


def _beside_nfdump(columns: Columns, folder: Path, ours: Callable[[], object], services: int, runs: int) -> None:
    """The same flows in a file of nfcapd, grouped by nfdump into a file of its own."""
    count = len(columns["start"])
    nfcapd = receivers.Nfcapd(folder / "nfcapd")
    try:
        _send(columns, nfcapd.port)
        processes.wait_for("nfcapd to read all", lambda: nfcapd.is_done() or None, 60)
        drops = nfcapd.drops()
    finally:
        nfcapd.stop()
    stored = nfcapd.flows()
    if stored != count:
        print(f"nfcapd stored {stored} of {count} flows ({drops} datagrams dropped): no comparison with nfdump", flush=True)
        return
    command = [receivers.find("nfdump"), "-R", str(folder / "nfcapd" / "flows"), "-A", "srcip", "-q", "-w", str(folder / "out")]
    group = lambda: subprocess.run(command, check=True, capture_output=True, preexec_fn=_on_one_core)  # noqa: E731
    mine, theirs = _turns(ours, group, runs)
    tell(Figure("usage", f"flows to cell files, {services:,} services", count / statistics.median(mine) / 1e6, "M flows/s",
                "nfdump -A srcip, on one core", median_ratio(theirs, mine),
                {"nfdump, M flows/s": round(count / statistics.median(theirs) / 1e6, 3)}))  # fmt: skip


def _on_one_core() -> None:
    os.sched_setaffinity(0, {0})


_RECORD = np.dtype([("source", ">u4"), ("destination", ">u4"), ("octets", ">u8"), ("packets", ">u8"), ("start", ">u8"),
                    ("end", ">u8"), ("source_port", ">u2"), ("destination_port", ">u2"), ("protocol", "u1")])  # fmt: skip
_ELEMENTS = ((8, 4), (12, 4), (1, 8), (2, 8), (152, 8), (153, 8), (7, 2), (11, 2), (4, 1))
_RECORDS = 30
_PAUSE_SECONDS = 0.002


def _send(columns: Columns, port: int) -> None:
    """The flows as IPFIX, 30 a message, at a pace that nfcapd keeps up with."""
    records = np.zeros(len(columns["start"]), _RECORD)
    for name in ("source", "destination"):
        records[name] = _number(columns[f"{name}_address"])
    for name in ("octets", "packets", "start", "end", "source_port", "destination_port", "protocol"):
        records[name] = columns[name]
    template = struct.pack(">HHHH", 2, 8 + 4 * len(_ELEMENTS), 256, len(_ELEMENTS)) + b"".join(
        struct.pack(">HH", *element) for element in _ELEMENTS)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.connect(("127.0.0.1", port))
        for number, first in enumerate(range(0, len(records), _RECORDS)):
            some = records[first : first + _RECORDS].tobytes()
            body = (template if number % 100 == 0 else b"") + struct.pack(">HH", 256, 4 + len(some)) + some
            out.send(struct.pack(">HHIII", 10, 16 + len(body), START // 1000, first, 1) + body)
            if number % 20 == 19:
                time.sleep(_PAUSE_SECONDS)


def _number(addresses: NDArray[np.generic]) -> NDArray[np.int64]:
    return np.ascontiguousarray(addresses[:, 12:]).view(">u4").ravel().astype(np.int64)


def _zone_rows(world: World) -> dict[str, NDArray[np.generic]]:
    at, index, names = calendars.edges([world.calendar], "UTC", START, START + 2 * DAY_MS)
    return {"start": at, "end": np.append(at[1:], START + 2 * DAY_MS), "zone": np.array(names)[index]}


def _turns(ours: Callable[[], object], theirs: Callable[[], object], runs: int) -> tuple[list[float], list[float]]:
    """Seconds of both, run after run beside each other; the first of each only warms up."""
    taken = [(_seconds(ours), _seconds(theirs)) for _ in range(runs + 1)][1:]
    return [one for one, _ in taken], [other for _, other in taken]


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


@kernel
def _load(table: NDArray[np.int64], at: NDArray[np.int64]) -> int:
    total = 0
    for i in range(at.size):
        total += table[at[i]]
    return total


def _load_limit(services: int, flows: int) -> float:
    """M flows/s of nothing but the loads that nobody avoids: two of the owner, one of its stretch, one of its cell a flow."""
    table = np.ones(services * 8, np.int64)
    at = np.random.default_rng(1).integers(0, table.size, 4 * flows)
    _load(table, at)
    return flows / statistics.median(_seconds(lambda: _load(table, at)) for _ in range(RUNS)) / 1e6


if __name__ == "__main__":
    main(sys.argv[1:])
