"""A collector that is held up or killed, and an exporter whose stream is sent in pieces, for tests of what is lost when."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from harness import rows, run_cli
from running_collector import Running

from collector import counters, receiver, service
from collector.exporter import commands, encode, network, send
from collector.settings import CollectorSettings
from core import clock, tables
from storage import sql
from storage.home import Home

PATIENCE_S = 120
STEP = 16
"""So many datagrams fit into the smallest buffer of a socket here."""


@cache
def _warm_up() -> None:
    """Compile what a collector needs into the cache that it shares with us: however long that takes here."""
    service.warm_up(CollectorSettings())
    receiver.warm_up()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen: {what}"
        time.sleep(0.01)


def make_home(folder: Path, **collector: object) -> Home:
    """A home with these keys of [collector]."""
    folder.mkdir(parents=True)
    keys = "".join(f"{name} = {value}\n" for name, value in collector.items())
    (folder / "ratemill.toml").write_text(f"[time]\nskew_seconds_max = 0\n[collector]\nsegment_seconds = 1\n{keys}")
    home = Home(folder)
    home.create()
    return home


class Collector(Running):
    """Both processes of a running collector."""

    def __init__(self, home: Home, *listen: str) -> None:
        _warm_up()
        super().__init__(home, *listen)

    def figures(self) -> counters.Figures:
        return counters.figures(self.home, "main")

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """The receiver stands still, as on a machine that has no time for it."""
        os.kill(self.receiver, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.receiver, signal.SIGCONT)


@contextmanager
def collecting(home: Home, *listen: str) -> Iterator[Collector]:
    one = Collector(home, *listen)
    try:
        yield one
    finally:
        with suppress(ProcessLookupError):
            os.kill(one.receiver, signal.SIGCONT)
        if one.process.poll() is None:
            one.stop()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Stream:
    """The datagrams of one exporter, sent in pieces; templates go out at the start only."""

    def __init__(self, protocol: str, flows: int, number: int, boot_ms_ago: int = 86_400_000, **fate: float) -> None:
        now = clock.now_ms()
        columns = commands.random_flows(flows, number, protocol, now)
        self.source = f"127.0.0.{number}"
        self.datagrams = encode.encode(columns, protocol, domain=number, boot=now - boot_ms_ago, agent=self.source,
                                       templates_every=10**9)
        self.delivery = network.perturb(self.datagrams, seed=number, **fate)
        self.manifest = network.describe(self.datagrams, self.delivery, self.source, number, 1)
        self._at = 0

    @property
    def left(self) -> int:
        return len(self.delivery.order) - self._at

    def send(self, count: int, port: int, received: Callable[[], int] | None = None) -> int:
        """The next `count` datagrams; all arrive if somebody tells what was received. Returns how many went out."""
        end = min(self._at + count, len(self.delivery.order))
        step = count if received is None else STEP
        begun = self._at
        while self._at < end:
            piece = slice(self._at, min(self._at + step, end))
            delivery = network.Delivery(self.delivery.order[piece], self.delivery.is_copy[piece], self.delivery.lost)
            send.transmit(self.datagrams, delivery, ("127.0.0.1", port), source=self.source, received=received)
            self._at = piece.stop
        return end - begun

    def skip(self, count: int) -> np.ndarray[Any, Any]:
        """The network loses the next `count`; returns their indexes."""
        at, self._at = self._at, self._at + count
        return self.delivery.order[at : at + count]

    def unknowable(self) -> np.ndarray[Any, Any]:
        """Indexes of those lost behind the last one that arrives: no number tells of them."""
        return np.arange(int(self.delivery.order.max()) + 1, len(self.datagrams))

    def records(self, indexes: np.ndarray[Any, Any]) -> int:
        return int(self.datagrams.records[indexes].sum())


def exporters(home: Home) -> dict[str, dict[str, Any]]:
    """`exporters list` by address."""
    return {row["exporter"]: row for row in rows(run_cli("exporters", "list", home=home.path))}


def intake(home: Home, *names: str) -> list[int]:
    """Sums of columns of the table `intake`."""
    with sql.reading(sql.engine(home)) as connection:
        found = connection.execute(sa.select(*(sa.func.sum(tables.intake.c[name]) for name in names))).one()
    return [int(number or 0) for number in found]
