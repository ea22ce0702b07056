"""Receivers of TCP and TLS in the test's own process, and what lies in their journal."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from collector import counters, receiver, streams
from collector.certificates import Watched
from collector.settings import Collector
from core.addresses import format_address
from core.errors import RatemillError
from storage.home import Home
from storage.journal import JournalReader

PATIENCE_S = 240


class Entry(NamedTuple):
    """An entry of the journal, without its time and without the number of its session."""

    payload: bytes
    source: str
    source_port: int
    port: int
    transport: int
    flags: int


def make_home(folder: Path, text: str = "") -> Home:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ratemill.toml").write_text(text)
    home = Home(folder)
    home.create()
    return home


def entries_of(home: Home) -> list[Entry]:
    """All entries of the journal in their order."""
    found = []
    for block in JournalReader(home.folder("journal"), "main").blocks():
        body, at = block.body.tobytes(), 0
        while at < len(body):
            size = int.from_bytes(body[at + 8 : at + 12], "little")
            words = [int.from_bytes(body[at + p : at + p + 2], "little") for p in (12, 14, 18)]
            found.append(Entry(body[at + 56 : at + 56 + size], format_address(body[at + 24 : at + 40]), words[0], words[1],
                               body[at + 16], words[2]))
            at += (56 + size + 7) // 8 * 8
    return found


def wait_until(condition: Callable[[], object], what: str = "it did not happen") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


class Receiving:
    """A receiver that runs in a thread."""

    def __init__(self, home: Home, *listen: str, settings: Collector | None = None, sync_ms: int = 20) -> None:
        self.home = home
        settings = settings or Collector(journal_sync_ms=sync_ms)
        addresses = [receiver.parse_listen(text) for text in listen or ("tcp://127.0.0.1:0",)]
        context = Watched(home.path, settings) if any(one.transport == "tls" for one in addresses) else None
        self.udp = receiver.open_listeners([one for one in addresses if one.transport == "udp"], 1 << 20)
        self.streams: list[streams.StreamListener] = receiver.open_streams(
            [one for one in addresses if one.transport != "udp"], context)
        self.receiver = receiver.Receiver(home, "main", self.udp, sync_ms, 0, self.streams, settings)
        self.failure: RatemillError | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.receiver.run()
        except RatemillError as error:
            self.failure = error

    @property
    def port(self) -> int:
        return self.streams[0].port

    def connect(self, source: str = "127.0.0.1", port: int = 0) -> socket.socket:
        return socket.create_connection(("127.0.0.1", port or self.port), 30, (source, 0))

    def figures(self) -> counters.Figures:
        return counters.figures(self.home, "main")

    def wait_for(self, **figures: int) -> None:
        """Until the figures have these values."""
        wait_until(lambda: all(getattr(self.figures(), name) == value for name, value in figures.items()),
                   f"{figures} is not reached")

    def stop(self) -> None:
        self.receiver.stop()
        self._thread.join()
        for listener in [*self.udp, *self.streams]:
            listener.socket.close()


@contextmanager
def receiving(home: Home, *listen: str, settings: Collector | None = None, sync_ms: int = 20) -> Iterator[Receiving]:
    one = Receiving(home, *listen, settings=settings, sync_ms=sync_ms)
    try:
        yield one
    finally:
        one.stop()
