"""Decoding of a stored journal: scan, decode, both, and all of it up to segments on disk; against copying the same octets.

    python -m benchmarks decode [--protocol v9] [--runs 5] [--part kernels|stream|stored] [--workers 1,2]

`kernels`: scan and decode alone, block after block, one core (the limit: memory; each octet of the journal is read once and
each octet of a row is written once). `stream`: what `Decoder.feed` does. `stored`: a journal in memory (/dev/shm) → segments.
"""

from __future__ import annotations

import argparse
import os
import statistics
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import processes, traffic
from benchmarks.measure import RUNS, Figure, median_ratio, median_seconds, memory_bandwidth, tell
from collector import settings, worker
from collector.columns import FlowColumns
from collector.decoder import Decoder
from collector.exporter import commands, encode
from core import clock
from core.addresses import parse_address
from storage.home import Home
from storage.journal import BODY_SIZE_MAX, DATAGRAMS_MAX, HEADER_SIZE, BlockHead, JournalWriter

FLOWS = 240_000
STORED_CYCLES = 80
PARTS = ("kernels", "stream", "stored")


@dataclass(frozen=True)
class Stream:
    """A protocol's blocks, as the receiver would write them."""

    protocol: str
    blocks: list[NDArray[np.uint8]]
    flows: int

    @property
    def octets(self) -> int:
        return sum(block.size for block in self.blocks)


def run() -> None:
    """All parts of all protocols."""
    main([])


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks decode")
    parser.add_argument("--protocol", choices=encode.PROTOCOLS, action="append", help="only this one; may be repeated")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be repeated")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--workers", default="1,2", help="stored: numbers of workers to compare, the first with all others")
    asked = parser.parse_args(words)
    parts = asked.part or PARTS
    bandwidth = memory_bandwidth()
    tell(Figure("decode", "one core copies memory", bandwidth / 1e9, "GB/s", "itself", 1.0))
    for protocol in asked.protocol or encode.PROTOCOLS:
        stream = _stream(protocol)
        if "kernels" in parts:
            _kernels(stream, asked.runs, bandwidth)
        if "stream" in parts:
            _feed(stream, asked.runs)
        if "stored" in parts and protocol in traffic.PROTOCOLS:
            with processes.memory_at_hand():
                _stored(protocol, asked.runs, [int(number) for number in asked.workers.split(",")])


def _stream(protocol: str) -> Stream:
    """v5, v9 and IPFIX as in the scenario `receive`; sFlow as our exporter makes it."""
    if protocol in traffic.PROTOCOLS:
        what = traffic.make(protocol, FLOWS // 25)
        payloads, flows = what.payloads(), int(what.records.sum())
        for index, before in enumerate(np.concatenate([[0], np.cumsum(what.units)[:-1]]).tolist()):
            number = int(before).to_bytes(4, "big")
            payloads[index] = (
                payloads[index][: what.sequence_at] + number + payloads[index][what.sequence_at + 4 :]
            )
        return Stream(protocol, [body for body, _ in _blocks(payloads)], flows)
    columns = commands.random_flows(FLOWS, 1, protocol, clock.now_ms())
    datagrams = encode.encode(columns, protocol, domain=1)
    blocks = [body for body, _ in _blocks(datagrams.payload(index) for index in range(len(datagrams)))]
    return Stream(protocol, blocks, FLOWS)


def _blocks(payloads: Iterable[bytes]) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Journal bodies as full as a receiver that has much to do makes them, and the datagrams in each."""
    address, now = parse_address("192.0.2.1"), clock.now_ms()
    body, count = bytearray(), 0

    def aligned() -> tuple[NDArray[np.uint8], int]:
        return np.frombuffer(bytes(body), np.uint64).copy().view(np.uint8), count

    for payload in payloads:
        entry = struct.pack("<qIHHBBHI16s16s", now, len(payload), 2055, 2055, 17, 4, 0, 0, address, address) + payload
        entry += b"\x00" * (-len(entry) % 8)
        if count == DATAGRAMS_MAX or len(body) + len(entry) > BODY_SIZE_MAX:
            yield aligned()
            body, count = bytearray(), 0
        body += entry
        count += 1
    yield aligned()


def _kernels(stream: Stream, runs: int, bandwidth: float) -> None:
    """Scan alone and decode alone, by the time of each block."""
    scanned, decoded = [], []
    row_octets = 0
    for turn in range(runs + 1):
        decoder, columns = Decoder(settings.from_document({})), FlowColumns(1)
        scanning = decoding = flows = 0
        for number, block in enumerate(stream.blocks):
            position, is_whole = 0, False
            while not is_whole:
                begun = time.perf_counter_ns()
                decoder._begin(position)
                is_whole = decoder._scan(block, block.view(np.uint64), number)
                between = time.perf_counter_ns()
                first, count = decoder._decode(block, columns)
                decoding += time.perf_counter_ns() - between
                scanning += between - begun
                position = int(decoder._results.progress[0]["position"])
                flows += count
                decoder._collect(columns, first, count, block)
                columns.clear()
            row_octets = sum(column[:1].nbytes for column in columns.arrays)
        assert flows == stream.flows, (flows, stream.flows)
        if turn:
            scanned.append(scanning / 1e9)
            decoded.append(decoding / 1e9)
    limit = (stream.octets + stream.flows * row_octets) / bandwidth
    for what, taken in (("scan alone", scanned), ("decode alone", decoded)):
        median = statistics.median(taken)
        tell(Figure("decode", f"{stream.protocol} {what}, one core", stream.flows / median / 1e6, "M flows/s",
                    f"the memory's limit ({stream.octets / stream.flows:.0f} octets in, {row_octets} out a flow)",
                    limit / median, {"runs": [f"{stream.flows / one / 1e6:.1f}" for one in taken]}))  # fmt: skip


def _feed(stream: Stream, runs: int) -> None:
    """Scan, decode and what is counted, as `collect run` does it."""

    def decode() -> None:
        decoder, columns, flows = Decoder(settings.from_document({})), FlowColumns(), 0
        for number, block in enumerate(stream.blocks):
            flows += decoder.feed(block, number, columns).counts.flows
            columns.clear()
        assert flows == stream.flows, (flows, stream.flows)

    decoding = median_seconds(decode, runs)
    copying = median_seconds(lambda: [block.copy() for block in stream.blocks], runs)
    tell(Figure("decode", f"{stream.protocol} scan and decode, one core", stream.flows / decoding / 1e6, "M flows/s",
                f"copying the same {stream.octets / 1e6:.0f} MB", copying / decoding))  # fmt: skip


# a stored journal -----------------------------------------------------------------------------------------------------
def _store(home: Home, protocol: str) -> int:
    """A journal of one exporter that goes on and on, as the receiver would have written it; returns its datagrams."""
    what = traffic.make(protocol)
    writer = JournalWriter(home.folder("journal"), "main")
    datagrams = 0
    for body, count in _blocks(_going_on(what)):
        now = clock.now_ms()
        framed = np.concatenate([np.zeros(HEADER_SIZE, np.uint8), body])
        writer.append(BlockHead(writer.next_block, count, now, now), framed)
        datagrams += count
    writer.close()
    return datagrams


def _going_on(what: traffic.Traffic) -> Iterator[bytes]:
    """The traffic again and again, with sequence numbers that go on."""
    sequence = 0
    for _ in range(STORED_CYCLES):
        for payload, units in zip(what.payloads(), what.units.tolist(), strict=True):
            number = (sequence & 0xFFFFFFFF).to_bytes(4, "big")
            yield payload[: what.sequence_at] + number + payload[what.sequence_at + 4 :]
            sequence += units


def _stored(protocol: str, runs: int, numbers: list[int]) -> None:
    """Scan, decode, segments and SQL from a stored journal of one exporter, by one worker and by several."""
    taken: dict[int, list[float]] = {}
    flows = traffic.make(protocol).records_of(STORED_CYCLES * len(traffic.make(protocol).sizes))
    for number in numbers:
        if number > len(os.sched_getaffinity(0)):
            print(f"{'':<12}{protocol}: {number} workers need {number} cores")
        else:
            taken[number] = []
    for turn in range(runs + 1):
        for number, times in taken.items():
            with processes.folder() as work:
                home = _home(work / "home", number)
                stored = _store(home, protocol)
                begun = time.perf_counter()
                done = worker.decode_available(home, "main")
                if turn:
                    times.append(time.perf_counter() - begun)
                assert done == stored, (done, stored)
    for number, times in taken.items():
        first = taken[numbers[0]]
        tell(Figure("decode", f"{protocol} stored journal to segments, {number} worker{'s' * (number > 1)}",
                    flows / statistics.median(times) / 1e6, "M flows/s", f"{numbers[0]} worker", median_ratio(first, times),
                    {"runs": [f"{flows / one / 1e6:.2f}" for one in times]}))  # fmt: skip


def _home(folder: Path, workers: int) -> Home:
    folder.mkdir(parents=True)
    (folder / "ratemill.toml").write_text(
        f'[collector]\ncompression = "none"\nthreads = {workers}\n[time]\nskew_seconds_max = 0\n')
    home = Home(folder)
    home.create()
    return home
