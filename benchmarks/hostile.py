"""What a hostile datagram costs, warm and alone, against decoding an honest one of the same size.

`python -m benchmarks hostile` prints the dearest; each is the median of RUNS decodings. The count of steps that tests hold is
in `tests/fuzz/collector/test_hostile_datagrams.py`; here are the milliseconds.
"""

from __future__ import annotations

import os
import statistics
import struct
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Figure, tell
from collector import settings
from collector.decoder import Decoder
from collector.exporter import commands, encode
from core import clock
from core.addresses import parse_address
from core.product import ROOT

RUNS = 9
DEAREST = 12
MEASURED = 20
LIMIT_MS, LIMIT_60K_MS = 1.0, 3.0


def run() -> None:
    """CPU milliseconds of the dearest hostile datagrams; one line of history for the dearest of all."""
    honest = _honest()
    found = sorted(((_cost(payloads), name, payloads) for name, payloads in _hostile()), reverse=True)
    for (taken, octets, at), name, payloads in found[:DEAREST]:
        print(f"{'hostile':<10} {name:<56} {taken * 1e3:>8.3f} ms, datagram {at} of {len(payloads)}, {octets} octets")
    (taken, octets, _), name, _ = found[0]
    tell(Figure("hostile", f"dearest: {name}", taken * 1e3, "ms", f"an honest datagram of {octets} octets",
                _scaled(honest, octets) / taken))  # fmt: skip
    over = [
        name for (taken, octets, _), name, _ in found if taken * 1e3 > (LIMIT_60K_MS if octets > 59_000 else LIMIT_MS)
    ]
    print(f"{'hostile':<10} {len(found)} tricks, {len(over)} above {LIMIT_MS:g} ms "
          f"({LIMIT_60K_MS:g} ms for those of 60,000 octets)"
          + (f": {', '.join(over[:DEAREST])}" if over else ""))  # fmt: skip


def _hostile() -> list[tuple[str, list[bytes]]]:
    """The generated tricks of the tests, and the reference vectors where they are."""
    sys.path.insert(0, str(ROOT / "tests"))
    from fuzz.hostile import all_hostile

    found = [(one.name, one.payloads) for one in all_hostile()]
    folder = Path(os.environ.get("RATEMILL_SHARED") or ROOT.parent / "shared") / "hostile"
    return found + [(path.name, [path.read_bytes()]) for path in sorted(folder.glob("*.bin"))]


def _body(payload: bytes, received: int, turn: int = 0) -> NDArray[np.uint8]:
    address = parse_address(f"192.0.2.{1 + turn}")
    entry = struct.pack("<qIHHBBHI16s16s", received, len(payload), 2055, 2055, 17, 4, 0, 0, address, address) + payload
    words = np.zeros((len(entry) + 7) // 8, np.uint64)
    words.view(np.uint8)[: len(entry)] = np.frombuffer(entry, np.uint8)
    return words.view(np.uint8)


def _cost(payloads: list[bytes]) -> tuple[float, int, int]:
    """CPU seconds of the dearest datagram of a sequence, its octets and its place.

    Medians over RUNS turns on one decoder, each turn from another exporter, so that tables have grown and templates are new;
    less the cost of a call without datagrams. Of a long sequence the last ones are measured.
    """
    now = clock.now_ms()
    measured = range(max(len(payloads) - MEASURED, 0), len(payloads))
    taken: list[list[float]] = [[] for _ in measured]
    decoder = Decoder(settings.from_document({"collector": {"templates_max": 2**20, "waiting_octets_max": 2**27}}))
    for turn in range(RUNS + 1):
        for place, payload in enumerate(payloads):
            body = _body(payload, now + place, turn)
            begun = time.thread_time()
            decoder.feed(body, place)
            spent = time.thread_time() - begun
            if turn and place >= measured.start:
                idle = time.thread_time()
                decoder.feed(body[:0], place)
                taken[place - measured.start].append(spent - (time.thread_time() - idle))
        for _ in decoder.rest(0):
            pass
    medians = [statistics.median(one) for one in taken]
    worst = int(np.argmax(medians))
    return max(medians[worst], 1e-9), len(payloads[measured.start + worst]), measured.start + worst


def _honest() -> tuple[float, int]:
    """Seconds and octets of v9 datagrams of our exporter, together."""
    columns = commands.random_flows(2000, 1, "v9", clock.now_ms())
    datagrams = encode.encode(columns, "v9", domain=1)
    payloads = [bytes(datagrams.payload(index)) for index in range(len(datagrams))]
    bodies = np.concatenate([_body(payload, clock.now_ms()) for payload in payloads])
    spent = []
    for _ in range(RUNS):
        decoder = Decoder(settings.from_document({}))
        decoder.feed(bodies[:0], 0)
        begun = time.thread_time()
        decoder.feed(bodies, 0)
        spent.append(time.thread_time() - begun)
    return statistics.median(spent), sum(map(len, payloads))


def _scaled(honest: tuple[float, int], octets: int) -> float:
    return honest[0] * octets / honest[1]
