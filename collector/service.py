"""`collect run`: one collector, that is a receiver process and the decode loop, from its first datagram to its last flow.

This process holds the collector's lock, starts the receiver, decodes what the journal holds and commits a segment every
`segment_seconds`. On SIGTERM or SIGINT the receiver stops first; then everything that it made durable is decoded. Writes
`run/collector-ID.json` each second.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from collector import counters as places_of
from collector import group, metrics, readings, receiver, receiving, sums
from collector.counters import DECODED, DECODED_BLOCK, FLOWS, SEGMENTS
from collector.decoder import Decoder
from collector.disk import DecodePause
from collector.group_service import GroupDecoding
from collector.settings import CollectorSettings, from_document, of_home
from collector.status import status_path
from collector.worker import Worker
from core import clock
from core.errors import RatemillError, UsageError
from core.jit import is_cold
from core.periods import format_instant
from runtime import log
from runtime.clock_check import warn_if_unsynchronised
from runtime.jobs import process_started
from runtime.locks import only_one
from runtime.metrics import Endpoint
from runtime.output import say
from storage import files
from storage.home import Home
from storage.journal import JournalReader

IDLE_SECONDS = 0.05
STATUS_NS = 1_000_000_000
TROUBLE_SECONDS = 5
"""Pause before decoding is tried again after the disk or the database refused."""

_ROOT = Path(__file__).resolve().parent.parent
_PR_SET_PDEATHSIG = 1


def run(home: Home, listen: Sequence[str], collector: str = "", receive_only: bool = False, *,
        with_metrics: bool = True) -> int:
    """Collect until SIGTERM or SIGINT; returns the exit code. Raises Locked, UsageError."""
    whole = from_document(home.document)
    settings = whole.collector
    collector = collector or settings.id
    if collector in {group.name for group in whole.groups}:
        raise UsageError(f"'{collector}' is a group", "name one of its members with --collector, or `collect decode` it")
    if receive_only and whole.group_of(collector) is None:
        raise UsageError(f"'{collector}' is in no [[collector_group]]: nobody would decode what it receives",
                         "leave out --receive-only, or name it among the members of a group")
    addresses = list(listen) or list(settings.listen)
    receiving.contexts(home, settings, [receiver.parse_listen(address) for address in addresses])
    with only_one(home, f"collector-{collector}", f"collecting as '{collector}'"):
        return _Service(home, collector, whole, addresses, receive_only, with_metrics).run()


def warm_up(settings: CollectorSettings) -> None:
    """Compile what decoding needs, once a version: a v5 datagram with one record goes through."""
    if is_cold("collector.kernels.scan", "collector.kernels.rows", "collector.kernels.samples", "collector.kernels.sections",
               "collector.kernels.sequences", "collector.kernels.upkeep", "collector.kernels.reports"):
        say("compiling kernels, once for this version: about half a minute")
    payload = np.zeros(56 + 72, np.uint8)
    payload[8], payload[16], payload[17], payload[57], payload[59] = 72, 17, 4, 5, 1
    decoder = Decoder(settings)
    decoded = decoder.feed(payload, 0)
    sums.sum_slots(decoded.flows)
    readings.read(decoded.flows)
    decoder.warm_up()


class _Service:
    """A collector that runs: its receiver's process and its decode worker."""

    def __init__(self, home: Home, collector: str, settings: CollectorSettings, listen: Sequence[str],
                 receive_only: bool = False, with_metrics: bool = True) -> None:
        self._home, self._collector, self._settings, self._listen = home, collector, settings.collector, listen
        self._with_metrics = with_metrics
        self._counters = places_of.open_counters(home, collector)
        self._pause = DecodePause(home.folder("segments"), home.document, self._counters)
        self._group = settings.group_of(collector)
        self._decoding: GroupDecoding | None = None
        if self._group is not None and not receive_only:
            self._decoding = GroupDecoding(home, self._group, self._settings, self._pause)
        self._worker: Worker | None = None
        self._child: subprocess.Popen[str] | None = None
        self._listeners: list[dict[str, Any]] = []
        self._state = "starting"
        self._stopping = False
        self._trouble = ""
        self._retry_ns = 0
        self._looked_ns = 0
        self._written_ns = 0
        self._committed_ns = clock.monotonic_ns()
        self._endpoint: Endpoint | None = None

    def run(self) -> int:
        before = [signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)]
        signal.signal(signal.SIGHUP, self._reload)
        try:
            warm_up(of_home(self._home))
            self._begin_decoding()
            code = self._start()
            if code:
                return code
            self._serve_metrics()
            code = self._collect()
        finally:
            self._end_child()
            if self._endpoint is not None:
                self._endpoint.stop()
            self._state = "stopped"
            self._write_status()
            for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
                signal.signal(number, handler)
        return code

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _reload(self, *_: object) -> None:
        """The receiver reads its certificate anew."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGHUP)

    # the receiver -----------------------------------------------------------------------------------------------------
    def _start(self) -> int:
        """Start the receiver and wait until it listens; returns 0, or its exit code: it has said why."""
        parent, libc = os.getpid(), ctypes.CDLL(None)

        def prepare() -> None:  # in the child: a receiver does not outlive its decoder for longer than it takes to flush
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(0)

        words = [word for text in self._listen for word in ("--listen", text)]
        after = str(self._worker.block + 1) if self._worker is not None else "0"
        if self._group is not None:
            after = str(group.next_block(self._home, self._collector))
        command = [sys.executable, "-P", "-m", "cli", "--home", str(self._home.path), "collect", "receive", *words,
                   "--collector", self._collector, "--after", after]
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                       env={**os.environ, "PYTHONPATH": path}, preexec_fn=prepare)
        assert self._child.stdout is not None, "stdout is a pipe"
        told = self._child.stdout.readline()
        if not told:
            return self._child.wait() or 1
        self._listeners = json.loads(told)["listeners"]
        self._state = "running"
        self._write_status()
        log.info("collector", "listening", collector=self._collector,
                 addresses=" ".join(one["address"] for one in self._listeners))
        warn_if_unsynchronised("collector")
        return 0

    def _end_child(self) -> None:
        """Let the receiver flush and end. It is not killed: what it holds would be lost."""
        if self._child is None:
            return
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(receiving.FLUSH_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            log.error("collector", "the receiver does not end: its disk does not answer", pid=self._child.pid)

    def _serve_metrics(self) -> None:
        """After the receiver was started: a process with threads had better not fork."""
        if self._with_metrics:
            self._endpoint = metrics.serve(self._home)

    # decoding ---------------------------------------------------------------------------------------------------------
    def _collect(self) -> int:
        assert self._child is not None, "a receiver runs"
        while not self._stopping and self._child.poll() is None:
            if not self._decode():
                clock.sleep(IDLE_SECONDS)
        died = not self._stopping
        self._state = "stopping"
        self._end_child()
        self._decode_the_rest()
        if died:
            log.error("collector", "the receiver ended by itself", exit=self._child.returncode)
            return 1
        if self._why_not():
            log.error("collector", "not everything received is decoded; the next run does it", why=self._why_not())
            return 1
        return self._child.returncode if self._child.returncode and self._child.returncode > 0 else 0

    def _decode_the_rest(self) -> None:
        if self._decoding is not None:
            self._decoding.finish(self._collector)
        if self._group is not None:
            return
        while self._decode():
            pass
        self._commit()

    def _why_not(self) -> str:
        """Why not everything is decoded; empty if it is."""
        return self._trouble or self._pause.trouble or (self._decoding.trouble if self._decoding is not None else "")

    def _decode(self) -> int:
        """Decode what is there for a moment; commit when it is time."""
        now = clock.monotonic_ns()
        count = 0
        if self._group is not None:
            if now - self._written_ns >= STATUS_NS:
                self._write_status()
            return self._decoding.step() if self._decoding is not None else 0
        if now - self._looked_ns >= STATUS_NS:
            self._looked_ns = now
            if self._pause.look():
                self._commit()  # what is decoded already fits above the reserve
        if self._pause.trouble:
            if now - self._written_ns >= STATUS_NS:
                self._write_status()
            return 0
        if self._worker is None and now >= self._retry_ns:
            self._begin_decoding()
        if self._worker is not None:
            try:
                count = self._worker.pump(16)
            except RatemillError as error:
                self._give_up_for_now(error)
            self._count()
            self._measure()
            if now - self._committed_ns >= self._settings.segment_seconds * 1_000_000_000:
                self._commit()
        if now - self._written_ns >= STATUS_NS:
            self._write_status()
        return count

    def _begin_decoding(self) -> None:
        if self._group is not None:
            return
        try:
            self._worker = Worker(self._home, self._collector)
            self._catch_up()
            self._trouble = ""
        except RatemillError as error:
            self._give_up_for_now(error)

    def _catch_up(self) -> None:
        """Count what a killed run committed without having counted it."""
        assert self._worker is not None, "there is a worker"
        block = self._worker.block
        if block <= self._counters[DECODED_BLOCK]:
            return
        reader = JournalReader(self._home.folder("journal"), self._collector, int(self._counters[DECODED_BLOCK]) + 1)
        for found in reader.blocks(with_bodies=False):
            if found.head.number <= block:
                self._counters[DECODED] += found.head.datagrams
        reader.close()
        self._counters[DECODED_BLOCK] = block

    def _commit(self) -> None:
        self._committed_ns = clock.monotonic_ns()
        if self._worker is None:
            return
        try:
            self._worker.commit()
        except RatemillError as error:
            self._give_up_for_now(error)
        self._count()
        self._measure()

    def _measure(self) -> None:
        """Move what the worker did since the last time into its places."""
        if self._worker is None:
            return
        work, at = self._worker.work.taken(), places_of.worker_at(0)
        self._counters[at + places_of.WORKER_BLOCKS] += work.blocks
        self._counters[at + places_of.WORKER_DATAGRAMS] += work.datagrams
        self._counters[at + places_of.WORKER_FLOWS] += work.flows
        self._counters[at + places_of.WORKER_DECODE_NS] += work.decode_ns
        for commit_ns in work.commits_ns:
            places_of.observe(self._counters, at + places_of.WORKER_COMMITS, places_of.DURATION_BOUNDS_NS, commit_ns)
            self._counters[at + places_of.WORKER_COMMITTED_AT] = clock.now_ms()

    def _count(self) -> None:
        """Move what was committed since the last time into the shared figures."""
        if self._worker is None or self._worker.block <= self._counters[DECODED_BLOCK]:
            return
        self._counters[DECODED] += self._worker.decoded
        self._counters[FLOWS] += self._worker.flows
        self._counters[SEGMENTS] += self._worker.segments
        self._worker.decoded = self._worker.flows = self._worker.segments = 0
        self._counters[DECODED_BLOCK] = self._worker.block

    def _give_up_for_now(self, error: RatemillError) -> None:
        """What is not committed is decoded again from the journal, later; receiving goes on meanwhile."""
        self._count()
        if self._worker is not None:
            self._worker.close()
        self._worker = None
        if error.message != self._trouble:
            log.error("decoder", error.message, hint=error.hint, again_in_seconds=TROUBLE_SECONDS)
        self._trouble = error.message
        self._retry_ns = clock.monotonic_ns() + TROUBLE_SECONDS * 1_000_000_000

    # status -----------------------------------------------------------------------------------------------------------
    def _write_status(self) -> None:
        self._written_ns = clock.monotonic_ns()
        status = {
            "collector": self._collector, "state": self._state, "pid": os.getpid(),
            "pid_started": process_started(os.getpid()), "host": socket.gethostname(),
            "receiver_pid": self._child.pid if self._child else None,
            **asdict(places_of.figures_of(self._counters)), "listeners": self._listeners,
            "disk": asdict(places_of.disk_of(self._counters)), "trouble": self._why_not(),
            "group": self._group.name if self._group is not None else None,
            "decodes": self._group is None or (self._decoding is not None and self._decoding.decodes),
            "at": format_instant(clock.now_ms()),
        }
        try:
            files.write_whole(status_path(self._home, self._collector), json.dumps(status, indent=1).encode())
        except RatemillError as error:  # a full disk: the journal says it too, and receiving goes on
            log.warning("collector", error.message)
