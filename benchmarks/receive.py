"""From the socket to flows on disk, beside Debian's nfcapd and nfacctd and beside a loop that only counts.

Everyone gets the same datagrams from the same sender on core 0, the same receive buffer (set from outside and read back),
core 1 alone, and writes to memory (/dev/shm). Runs are interleaved (ours, peer, ours, peer, …) and a ratio is the median of
ratios of runs that stood side by side, since machines are noisy. Starting and compiling do not count: each begins with traffic
that warms it up, and only what is used after that is measured.

    python -m benchmarks receive --row received [--runs 5] [--seconds 3]
    python -m benchmarks receive --row disk     the same receiver on a real disk, fsynced
    python -m benchmarks receive --row sustained --protocol v9 [--seconds 60] [--probe 8]
    python -m benchmarks receive --row cpu --protocol v9 [--rate 100000] [--seconds 5] [--nfacctd]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import processes, traffic
from benchmarks.measure import RUNS, Figure, highest, median_ratio, memory_bandwidth, tell
from benchmarks.receivers import (
    BUFFER,
    Counter,
    Maker,
    Nfacctd,
    Nfcapd,
    OurReceiver,
    Ours,
    Receiver,
    _Ours,
    is_here,
)

ROWS = ("received", "disk", "sustained", "cpu")
WARM_UP = 20_000
"""Datagrams that each receives before it is measured."""
WARM_UP_RATE = 10_000
SEGMENTS = 40
"""Datagrams that the sender hands over as one message, where one by one it could not saturate the counting loop."""
FLOOD_SECONDS_MAX = 60
LAG_GROWTH = 1.25


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    protocols: tuple[str, ...]
    runs: int
    seconds: float
    probe: float
    rate: int
    with_nfacctd: bool
    disk: Path


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks receive", description=__doc__.splitlines()[0])
    parser.add_argument("--row", choices=ROWS, action="append", help="only this row; may be repeated")
    parser.add_argument("--protocol", choices=traffic.PROTOCOLS, action="append", help="only this one; may be repeated")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seconds", type=float, default=0, help="of each run: 3 received, 60 sustained, 5 cpu")
    parser.add_argument("--probe", type=float, default=8, help="seconds of each step of the search for a sustained rate")
    parser.add_argument("--rate", type=int, default=100_000, help="datagrams a second of the row cpu")
    parser.add_argument("--nfacctd", action="store_true", help="cpu: pmacct's collector beside")
    parser.add_argument("--disk", type=Path, default=Path("/var/tmp"), help="where the fsynced row writes")
    asked = parser.parse_args(words)
    if processes.cores() < 2:
        sys.exit("two cores are needed: one for the sender, one for the receiver")
    options = Options(tuple(asked.protocol or traffic.PROTOCOLS), asked.runs, asked.seconds, asked.probe, asked.rate,
                      asked.nfacctd, asked.disk)  # fmt: skip
    _limits()
    with processes.memory_at_hand():
        for row in asked.row or ROWS:
            _ROWS[row](options)


def run() -> None:
    """All rows as they are."""
    main(["--nfacctd"])


@contextmanager
def receiving(make: Maker, on: Path = processes.MEMORY) -> Iterator[Receiver]:
    """A receiver in a folder of its own; both are gone afterwards, whatever happens."""
    with processes.folder(on) as work:
        one = make(work / "receiver")
        try:
            yield one
        finally:
            one.stop()


@contextmanager
def sending(one: Receiver, what: traffic.Traffic, segments: int = 1) -> Iterator[processes.Sending]:
    with processes.folder() as work:
        sender = processes.Sending(what, one.port, work, segments)
        try:
            yield sender
        finally:
            sender.close()


def warm(one: Receiver, sender: processes.Sending) -> None:
    sender.send(WARM_UP, WARM_UP_RATE)
    settled(one)


def settled(one: Receiver) -> None:
    """Wait until a receiver has done all there was for it."""
    processes.wait_for(f"{one.name} to be done", lambda: True if one.is_done() else None)


def _limits() -> None:
    bandwidth = memory_bandwidth()
    tell(Figure("receive", "one core copies memory", bandwidth / 1e9, "GB/s", "itself", 1.0))


# received -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Flood:
    """What a receiver took of all that a sender could send."""

    rate: float
    """Datagrams a second that it took: counted, or durable in the journal."""
    sent_rate: float
    lost: int
    cpu_ns: float
    """CPU time for each datagram taken."""


def flood(make: Maker, what: traffic.Traffic, seconds: float, segments: int, on: Path = processes.MEMORY) -> Flood:
    """Send as fast as it goes for about `seconds`."""
    with receiving(make, on) as one, sending(one, what, segments) as sender:
        warm(one, sender)
        tried = sender.send(100_000, 0)
        settled(one)
        count = int(seconds * tried["datagrams"] / tried["seconds"])
        before, lost, cpu, begun = _taken(one), one.drops(), one.cpu(), time.monotonic()
        done = sender.send(count, 0)
        settled(one)
        spent = time.monotonic() - begun
        taken = _taken(one) - before
        # What lay in the buffer at the end is taken after the sender has stopped: it counts, and so does its time.
        return Flood(taken / max(spent, done["seconds"]), count / done["seconds"], one.drops() - lost,
                     (one.cpu() - cpu) / max(taken, 1) * 1e9)  # fmt: skip


def _taken(one: Receiver) -> int:
    if isinstance(one, _Ours):
        return one.durable()
    assert isinstance(one, Counter), "only these count for themselves"
    time.sleep(0.25)  # it tells its count ten times a second
    return one.received()


def lossless_rate(make: Maker, what: traffic.Traffic, seconds: float, high: int) -> int:
    """The highest rate at which a receiver loses nothing, in datagrams a second."""
    with receiving(make) as one, sending(one, what) as sender:
        warm(one, sender)

        def holds(rate: int) -> bool:
            before = one.drops()
            sender.send(int(rate * seconds), rate)
            settled(one)
            return one.drops() == before

        return highest(holds, 20_000, high, 6)


def received(options: Options) -> None:
    """The receiver against the counting loop: under a flood, and without loss."""
    seconds = options.seconds or 3
    for protocol in options.protocols:
        what = traffic.make(protocol)
        probe = flood(Counter, what, 1, 1)
        segments = 1 if probe.lost else SEGMENTS
        bare, ours = [], []
        bare_lossless, ours_lossless = [], []
        for _ in range(options.runs):
            ours.append(flood(OurReceiver, what, seconds, segments))
            bare.append(flood(Counter, what, seconds, segments))
            high = int(max(bare[-1].rate, bare[-1].sent_rate))
            ours_lossless.append(float(lossless_rate(OurReceiver, what, min(seconds, 2), high)))
            bare_lossless.append(float(lossless_rate(Counter, what, min(seconds, 2), high)))
        rates, limits = [one.rate for one in ours], [one.rate for one in bare]
        beside = {
            "the limit": f"{statistics.median(limits) / 1e6:.3f} M datagrams/s, "
                         f"{statistics.median(one.cpu_ns for one in bare):.0f} ns of CPU each; ours "
                         f"{statistics.median(one.cpu_ns for one in ours):.0f} ns",
            "sender": f"{statistics.median(one.sent_rate for one in ours) / 1e6:.3f} M datagrams/s, {segments} a message; "
                      f"dropped {statistics.median(one.lost for one in ours):.0f} of ours, "
                      f"{statistics.median(one.lost for one in bare):.0f} of the loop's",
            "buffer": f"{BUFFER >> 20} MiB asked for, the kernel counts twice as much", "runs": [rates, limits],
        }  # fmt: skip
        if not any(one.lost for one in bare):
            beside["beware"] = "the loop lost nothing: here the sender is the limit, not the receiver"
        tell(Figure("receive", f"{protocol} received and durable, flood", statistics.median(rates) / 1e6, "M datagrams/s",
                    "a bare recvmmsg loop", median_ratio(rates, limits), beside))  # fmt: skip
        tell(Figure("receive", f"{protocol} received and durable, without loss", statistics.median(ours_lossless) / 1e6,
                    "M datagrams/s", "a bare recvmmsg loop", median_ratio(ours_lossless, bare_lossless),
                    {"runs": [ours_lossless, bare_lossless]}))  # fmt: skip


def disk(options: Options) -> None:
    """The same receiver with its journal on a disk, synced as in production."""
    what = traffic.make(options.protocols[0])
    on_disk, in_memory = [], []
    for _ in range(options.runs):
        on_disk.append(flood(OurReceiver, what, options.seconds or 3, SEGMENTS, options.disk).rate)
        in_memory.append(flood(OurReceiver, what, options.seconds or 3, SEGMENTS).rate)
    tell(Figure("receive", f"{options.protocols[0]} received and fsynced, flood", statistics.median(on_disk) / 1e6,
                "M datagrams/s", f"the same in memory ({options.disk})", median_ratio(on_disk, in_memory),
                {"runs": [on_disk, in_memory]}))  # fmt: skip


# sustained ------------------------------------------------------------------------------------------------------------
def holds_for(one: Receiver, sender: processes.Sending, rate: int, seconds: float) -> bool:
    """Whether a receiver loses nothing at a rate, and does not fall behind with decoding more and more."""
    before = one.drops()
    sender.begin(int(rate * seconds), rate)
    lags: list[int] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.1)
        if isinstance(one, Ours):
            lags.append(one.received() - one.decoded())
        if one.drops() != before:
            break  # the rest is sent all the same: it warms nothing, but the sender has to come to an end
    sender.finish()
    lost = one.drops() - before
    settled(one)
    return lost == 0 and is_bounded(lags, rate)


def is_bounded(lags: list[int], rate: int) -> bool:
    """Whether the datagrams that wait to be decoded are no more in the second half than in the first, but for a second's."""
    if len(lags) < 4:
        return True
    half = len(lags) // 2
    return max(lags[half:]) <= max(lags[:half]) * LAG_GROWTH + rate


def sustained_rate(make: Maker, what: traffic.Traffic, probe: float, seconds: float) -> int:
    """The highest rate found in short probes that then holds for the whole time."""
    with receiving(make) as one, sending(one, what) as sender:
        warm(one, sender)
        rate = highest(lambda rate: holds_for(one, sender, rate, probe), 5_000, 400_000, 6)
        for _ in range(4):
            if rate and holds_for(one, sender, rate, seconds):
                return rate
            rate = rate * 9 // 10
        return 0


def sustained(options: Options) -> None:
    """All of ours on one core against nfcapd on the same: the rate that holds for a minute."""
    if not is_here("nfcapd"):
        print("sustained: nfcapd is not installed (Debian package nfdump)")
        return
    seconds = options.seconds or 60
    for protocol in options.protocols:
        what = traffic.make(protocol)
        per_datagram = what.records_of(len(what.sizes)) / len(what.sizes)
        ours, theirs = [], []
        for _ in range(options.runs):
            ours.append(float(sustained_rate(Ours, what, options.probe, seconds)))
            theirs.append(float(sustained_rate(Nfcapd, what, options.probe, seconds)))
        tell(Figure("receive", f"{protocol} sustained for {seconds:g} s, uncompressed, one core",
                    statistics.median(ours) * per_datagram / 1e6, "M flows/s", "nfcapd's rate without loss",
                    median_ratio(ours, theirs), {"datagrams a second": [ours, theirs]}))  # fmt: skip


# CPU ------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Used:
    """What one receiver used for one stretch of traffic."""

    cpu: float
    """CPU seconds for a million flows, kernel and user, all its processes."""
    memory: int
    octets: float
    """On disk, for each flow."""
    stored: int
    sent: int
    lost: int


def use(make: Maker, what: traffic.Traffic, rate: int, seconds: float) -> Used:
    """Send at a rate that nobody should lose at, and see what it costs."""
    with processes.folder() as work:
        one = make(work / "receiver")
        try:
            with sending(one, what) as sender:
                warm(one, sender)
                before, lost = one.cpu(), one.drops()
                done = sender.send(int(rate * seconds), rate)
                settled(one)
                if isinstance(one, Nfacctd):
                    time.sleep(12)  # it writes each 10 s
                cpu, lost, memory = one.cpu() - before, one.drops() - lost, one.memory()
        finally:
            one.stop()
        stored = one.flows()
        sent = int(done["records"])
        taken = sent * (1 - lost / max(done["datagrams"], 1))
        return Used(cpu / taken * 1e6, memory, one.octets_of_flows() / max(stored, 1),
                    stored - what.records_of(WARM_UP), sent, lost)  # fmt: skip


def cpu(options: Options) -> None:
    """CPU seconds for a million flows, like compression against like."""
    if not is_here("nfcapd"):
        print("cpu: nfcapd is not installed (Debian package nfdump)")
        return
    seconds = options.seconds or 5
    for protocol in options.protocols:
        what = traffic.make(protocol)
        makers: dict[str, Callable[[Path], Receiver]] = {
            "ours": lambda work: Ours(work, "none"), "nfcapd": Nfcapd,
            "ours, LZ4": lambda work: Ours(work, "lz4"), "nfcapd, LZ4": lambda work: Nfcapd(work, "-y"),
        }  # fmt: skip
        if options.with_nfacctd and is_here("nfacctd"):
            makers["nfacctd (print plugin)"] = Nfacctd
        used: dict[str, list[Used]] = {name: [] for name in makers}
        for _ in range(options.runs):
            for name, make in makers.items():
                used[name].append(use(make, what, options.rate, seconds))
        for ours, theirs, how in (("ours", "nfcapd", "uncompressed"), ("ours, LZ4", "nfcapd, LZ4", "LZ4")):
            mine, other = [one.cpu for one in used[ours]], [one.cpu for one in used[theirs]]
            names = [ours, theirs, *(name for name in used if name.startswith("nfacctd"))]
            tell(Figure("receive", f"{protocol} {how}, end to end, {options.rate} datagrams/s", statistics.median(mine),
                        "CPU s/M flows", theirs, median_ratio(mine, other),
                        {name: _told(used[name]) for name in names}))  # fmt: skip


def _told(runs: list[Used]) -> str:
    cpus = [one.cpu for one in runs]
    lost = sum(one.lost for one in runs)
    return (
        f"{statistics.median(cpus):.3f} ({min(cpus):.3f}-{max(cpus):.3f}) CPU s/M flows, "
        f"{statistics.median(one.memory for one in runs) / 2**20:.0f} MiB, "
        f"{statistics.median(one.octets for one in runs):.0f} octets a flow, stored "
        f"{statistics.median(one.stored / one.sent for one in runs):.4f} of what was sent"
        + (f"; LOST {lost} datagrams: take a lower --rate" if lost else "")
    )


_ROWS = {"received": received, "disk": disk, "sustained": sustained, "cpu": cpu}
