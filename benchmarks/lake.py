"""One service's flows of a month out of a lake of many: seconds and octets read, beside reading everything, and as it grows.

Flows of a month are compacted as the product does, day by day; each service has as many of them whatever their number, so the
total grows with the services. `--flows 100000000` takes about an hour and 5 GB of disk.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from benchmarks.measure import RUNS, Figure, tell
from collector import compaction, service_flows
from collector.compaction import Summary
from collector.segments import Columns, content_digest
from core import clock, schemas, tables
from core.actor import Actor
from core.networks import addresses_of
from core.periods import DAY_MS, OPEN_END, OPEN_START, parse_instant
from storage import files, flow_files, sql
from storage.home import Home

FLOWS = 10_000_000
DAYS = 30
FLOWS_OF_A_SERVICE = 3_000
"""In the month."""
SEGMENT_FLOWS = 1 << 18
START = parse_instant("2026-10-01T00:00:00Z")
WHO = Actor("benchmark", "benchmark")
_SEED = 20261002
_IPV4 = 0xFFFF << 32
_FIRST = 0x0A000000


def run(flows: int = FLOWS, runs: int = RUNS) -> None:
    """Of a lake with all flows and of one with a tenth: seconds and octets for a service's month, and their ratio."""
    found = {}
    for total in (flows // 10, flows):
        with tempfile.TemporaryDirectory() as folder:
            found[total] = _measure(Path(folder), total, runs)
    small, whole = found[flows // 10], found[flows]
    ratio = whole.octets / small.octets
    tell(Figure("lake", "one service's month", 1 / statistics.median(whole.seconds), "months/s",
                "the same in a tenth of the flows", statistics.median(small.seconds) / statistics.median(whole.seconds),
                {"flows": flows, "found": whole.found, "seconds": [f"{value:.3f}" for value in whole.seconds]}))
    tell(Figure("lake", "octets read for it", whole.octets / 1e6, "MB", "the lake", whole.octets / whole.lake,
                {"ratio to a tenth of the flows": round(ratio, 3), "lake, MB": round(whole.lake / 1e6)}))
    tell(Figure("lake", "compaction, sorting included", flows / whole.compaction / 1e6, "M flows/s",
                "the octets of LZ4 segments", whole.lake / whole.segments,
                {"octets a flow": round(whole.lake / flows, 1), "before": round(whole.segments / flows, 1)}))


@dataclass(frozen=True)
class Measured:
    """Of one lake: seconds of each run, octets read in one, flows found; octets of the lake and of the segments before."""

    seconds: list[float]
    octets: int
    found: int
    lake: int
    segments: int
    compaction: float


def _measure(folder: Path, flows: int, runs: int) -> Measured:
    services = max(1, flows // FLOWS_OF_A_SERVICE)
    home = _home(folder, services)
    done, seconds = Summary(), 0.0
    for day in range(DAYS):  # one by one, so that the disk never holds all of it twice
        _store(home, day, services, flows // DAYS)
        begun = time.perf_counter()
        part = compaction.compact(home, WHO)
        seconds += time.perf_counter() - begun
        done.octets_before += part.octets_before
        done.octets_after += part.octets_after
        for path in home.folder("segments").rglob("*.arrow"):
            files.remove(path)
    taken: list[float] = []
    for _ in range(runs + 1):
        begun = time.perf_counter()
        found = service_flows.find(home, f"S{services // 2}", START, START + DAYS * DAY_MS)
        count = sum(table.num_rows for table in found.tables())
        taken.append(time.perf_counter() - begun)
    return Measured(taken[1:], found.meter.octets, count, done.octets_after, done.octets_before, seconds)


def _home(folder: Path, services: int) -> Home:
    (folder / "ratemill.toml").write_text("[lake]\ncompact_after_hours = 0\n", encoding="utf-8")
    home = Home(folder)
    home.create()
    with sql.transaction(sql.engine(home)) as connection:
        connection.execute(tables.account.insert().values(
            account="A", name="", kind="person", email="", phone="", address=""))
        connection.execute(tables.service.insert(), [
            {"service": f"S{n}", "account": "A", "contract": ""} for n in range(services)])
        service = tables.service
        ids = {row.service: row.id for row in connection.execute(sa.select(service.c.service, service.c.id))}
        addresses = addresses_of(np.zeros(services, np.uint64), (_IPV4 + _FIRST + np.arange(services)).astype(np.uint64))
        connection.execute(tables.lease.insert(), [
            {"realm": "", "address": addresses[n].tobytes(), "prefix_length": 128, "protocol": None, "port_first": None,
             "port_last": None, "start_ms": OPEN_START, "end_ms": OPEN_END, "service_id": ids[f"S{n}"]}
            for n in range(services)])
        connection.execute(tables.batch.insert().values(from_version=1, input_version=0, from_ms=START, to_ms=OPEN_END))
    return home


def _store(home: Home, day: int, services: int, flows: int) -> None:
    """The segments of a day, as if they had been aggregated."""
    for first in range(0, flows, SEGMENT_FLOWS):
        columns = make_flows(services, min(SEGMENT_FLOWS, flows - first), START + day * DAY_MS, _SEED + day * 10_000 + first)
        path = home.folder("segments") / f"{day}-{first}.arrow"
        encoder = flow_files.BatchEncoder(columns)
        digest, size = _write(path, encoder, columns)
        with sql.transaction(sql.engine(home)) as connection:
            key = connection.execute(tables.segment.insert().values(
                collector="benchmark", path=home.relative(path), digest=digest, content_digest=content_digest(columns),
                octets_size=size, flows=len(columns["start"]), octets=int(columns["octets"].sum()),
                received_first=int(columns["received"].min()), received_last=int(columns["received"].max()),
                start_first=int(columns["start"].min()), end_last=int(columns["end"].max()), decoder_version="1",
                settings_digest="", manifest_version=1)).inserted_primary_key
            assert key is not None
            connection.execute(tables.consumed.insert().values(segment_id=key[0], batch_id=1))
    assert clock.now_ms() > START + (day + 1) * DAY_MS, "the month is past"


def _write(path: Path, encoder: flow_files.BatchEncoder, columns: Columns) -> tuple[str, int]:
    import pyarrow as pa

    def build(temporary: Path) -> None:
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, encoder.schema, options=options) as writer:
            writer.write_batch(encoder.encode(columns))

    return files.build_whole(path, build), path.stat().st_size


def make_flows(services: int, count: int, day: int, seed: int) -> Columns:
    """Flows in order of arrival, half of them to a service and half from one."""
    generator = np.random.default_rng(seed)
    near = (_IPV4 + _FIRST + generator.integers(0, services, count)).astype(np.uint64)
    far = (_IPV4 + generator.zipf(1.3, count) % 200_000 * 20_011 % 2**32).astype(np.uint64)
    down = generator.random(count) < 0.5
    zeros = np.zeros(count, np.uint64)
    received = day + np.sort(generator.integers(60_000, DAY_MS, count)) // 100 * 100
    packets = np.minimum(generator.pareto(1.2, count) * 3 + 1, 10**6).astype(np.int64)
    columns: Columns = {field.name: np.zeros((count, 16), np.uint8) if field.type == schemas.ADDRESS else np.zeros(
        count, np.int64 if field.type == schemas.INSTANT else field.type.to_pandas_dtype()) for field in schemas.FLOWS}
    end = received - generator.integers(0, 1000, count)
    columns |= {
        "received": received, "start": end - np.minimum(packets * 20, 50_000), "end": end,
        "exporter": addresses_of(zeros, np.full(count, _IPV4 + 0xC0000201, np.uint64)),
        "export_protocol": np.full(count, 10, np.uint8), "source_address": addresses_of(zeros, np.where(down, far, near)),
        "destination_address": addresses_of(zeros, np.where(down, near, far)),
        "source_port": np.where(down, 443, generator.integers(1024, 65_536, count)).astype(np.uint16),
        "destination_port": np.where(down, generator.integers(1024, 65_536, count), 443).astype(np.uint16),
        "protocol": np.where(generator.random(count) < 0.7, 6, 17).astype(np.uint8), "packets": packets,
        "octets": packets * generator.integers(40, 1500, count), "rate_numerator": np.ones(count, np.uint32),
        "rate_denominator": np.ones(count, np.uint32), "rate_source": np.full(count, 6, np.uint8),
        "input_interface": np.where(down, 2, 1).astype(np.uint32), "output_interface": np.where(down, 1, 2).astype(np.uint32),
        "flow_direction": np.full(count, 255, np.uint8)}
    return columns


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks lake")
    parser.add_argument("--flows", type=int, default=FLOWS)
    parser.add_argument("--runs", type=int, default=RUNS)
    run(**vars(parser.parse_args(words)))


if __name__ == "__main__":
    main(sys.argv[1:])
