"""Sends datagrams as real UDP, at a rate or as fast as the receiver takes them, by sendmmsg from a compiled loop."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Callable

import numpy as np

from collector.exporter import network
from collector.exporter.encode import Columns, Datagrams, encode
from collector.kernels import sockets as kernels
from core import clock
from core.errors import RatemillError, UsageError

OUTSTANDING_MAX = 512
"""With a receiver that says what it received: so many datagrams may be on the way."""
PATIENCE_SECONDS = 30
_POLL_SECONDS = 0.0005
_SLICE = 128

Received = Callable[[], int]
Advance = Callable[[int], None]


def parse_target(text: str) -> tuple[str, int]:
    """'127.0.0.1:2055' or '[::1]:2055' → host and port. Raises UsageError."""
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port)
        if not 0 < number <= 65535:
            raise ValueError(text)
    except ValueError:
        raise UsageError(f"--to {text} is not ADDRESS:PORT", "for example 127.0.0.1:2055 or [::1]:2055") from None
    return str(address), number


def transmit(datagrams: Datagrams, delivery: network.Delivery, to: tuple[str, int], *, source: str = "", rate: int = 0,
             received: Received | None = None, advance: Advance | None = None) -> None:
    """Send a delivery. `rate` is datagrams a second, 0 for no limit; `received` tells how many the collector has received,
    so that at most OUTSTANDING_MAX are on the way. Raises RatemillError if it takes nothing any more."""
    family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        _connect(sender, to, source)
        addresses = (datagrams.octets.ctypes.data + datagrams.start[delivery.order]).astype(np.uint64)
        sizes = np.ascontiguousarray(datagrams.size[delivery.order])
        vectors = np.zeros((kernels.BATCH, 2), np.uint64)
        messages = np.zeros((kernels.BATCH, kernels.WORDS_OF_MESSAGE), np.uint64)
        messages[:, 2] = vectors.ctypes.data + 16 * np.arange(kernels.BATCH)
        messages[:, 3] = 1
        kernels.send(sender.fileno(), messages, vectors, addresses, sizes, 0, 0)  # compiles; the clock starts behind it
        pace = _Pace(rate, received)
        sent, total = 0, len(sizes)
        while sent < total:
            size = pace.allowed(sent, total)
            got = kernels.send(sender.fileno(), messages, vectors, addresses, sizes, sent, size) if size else 0
            if got < 0 and -got not in (errno.ENOBUFS, errno.EAGAIN):
                raise RatemillError(f"sending to {to[0]} port {to[1]} failed: {os.strerror(-got)}", "check the address")
            if got <= 0:
                clock.sleep(_POLL_SECONDS)
                continue
            sent += got
            if advance is not None:
                advance(got)
        pace.wait_for_all(total)


def _connect(sender: socket.socket, to: tuple[str, int], source: str) -> None:
    try:
        if source:
            sender.bind((source, 0))
        sender.connect(to)
    except (OSError, OverflowError) as error:
        raise RatemillError(f"can't send from {source or 'this machine'} to {to[0]} port {to[1]}: {error}",
                            "check both addresses; --source must be an address of this machine") from error


class _Pace:
    """How many datagrams may go out now."""

    def __init__(self, rate: int, received: Received | None) -> None:
        self._rate, self._received = rate, received
        self._begun = clock.monotonic_ns()
        self._before = received() if received is not None else 0
        self._newest, self._moved = 0, self._begun

    def allowed(self, sent: int, total: int) -> int:
        size = min(_SLICE, total - sent)
        if self._rate:
            due = (clock.monotonic_ns() - self._begun) * self._rate // 1_000_000_000 + 1
            size = min(size, due - sent)
        if self._received is not None:
            size = min(size, OUTSTANDING_MAX - (sent - self._taken(sent)))
        return max(size, 0)

    def _taken(self, sent: int) -> int:
        """How many of ours have arrived. Raises RatemillError if nothing moves for too long."""
        assert self._received is not None, "somebody tells"
        taken = self._received() - self._before
        now = clock.monotonic_ns()
        if taken > self._newest or taken >= sent:
            self._newest, self._moved = taken, now
        elif now - self._moved > PATIENCE_SECONDS * 1_000_000_000:
            raise RatemillError(f"the collector has received {taken} of {sent} datagrams and takes no more",
                                "see whether it runs and what it dropped: `ratemill collect status`")
        return taken

    def wait_for_all(self, total: int) -> None:
        while self._received is not None and self._taken(total) < total:
            clock.sleep(_POLL_SECONDS)


def send_flows(columns: Columns, protocol: str, to: tuple[str, int], *, source: str = "", loss: float = 0.0,
               duplicate: float = 0.0, reorder: float = 0.0, seed: int = 1, rate: int = 0, received: Received | None = None,
               domain: int = 0, sampling: int = 1, boot: int | None = None, advance: Advance | None = None) -> network.Manifest:
    """Encode flows, let a network lose some, send the rest; returns what was done. Raises UsageError, RatemillError."""
    agent = source if source and ":" not in source else "192.0.2.1"
    datagrams = encode(columns, protocol, domain=domain, sampling=sampling, boot=boot, agent=agent)
    delivery = network.perturb(datagrams, loss=loss, duplicate=duplicate, reorder=reorder, seed=seed)
    transmit(datagrams, delivery, to, source=source, rate=rate, received=received, advance=advance)
    return network.describe(datagrams, delivery, source, domain, sampling)
