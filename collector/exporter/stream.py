"""Sends IPFIX messages over TCP or TLS (RFC 7011 §10.4, §11): one session, templates once, then the data."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collector.certificates import client_context
from collector.exporter import network
from collector.exporter.encode import Columns, Datagrams, encode
from collector.exporter.send import PATIENCE_SECONDS, Advance
from core import clock
from core.errors import RatemillError, UsageError

CHUNK_SIZE = 256 << 10
"""Octets that are handed to the socket at once."""
SLICE_MS = 50
"""With a rate: how often messages go out."""


@dataclass(frozen=True)
class Tls:
    """Files of the command line; empty: not given."""

    ca: str = ""
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True)
class Target:
    """Where a session goes."""

    host: str
    port: int
    context: ssl.SSLContext | None

    def __str__(self) -> str:
        place = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return f"{'tcp' if self.context is None else 'tls'}://{place}"


def parse_stream(text: str, protocol: str = "ipfix", tls: Tls = Tls()) -> Target | None:
    """'tcp://HOST:PORT' or 'tls://HOST:PORT' → target; None for UDP. Raises UsageError, SettingsError."""
    scheme, slashes, place = text.partition("://")
    if scheme not in ("tcp", "tls") or not slashes:
        if tls != Tls():
            raise UsageError("--ca, --certificate and --key belong to TLS", "give --to tls://HOST:PORT")
        return None
    if protocol != "ipfix":
        raise UsageError(f"{protocol} is not sent over {scheme.upper()}", "only IPFIX is defined for it: --protocol ipfix")
    host, _, port = place.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    try:
        if not bare or not 0 < int(port) <= 65535 or (":" in bare and ipaddress.ip_address(bare).version != 6):
            raise ValueError(text)
    except ValueError:
        raise UsageError(f"--to {text} is not {scheme}://HOST:PORT", f"for example {scheme}://127.0.0.1:4739") from None
    if scheme == "tcp":
        if tls != Tls():
            raise UsageError("--ca, --certificate and --key belong to TLS", "give --to tls://HOST:PORT")
        return Target(bare, int(port), None)
    return Target(bare, int(port), client_context(tls.ca, tls.certificate, tls.key))


def send_stream(columns: Columns, to: Target, *, source: str = "", loss: float = 0.0, duplicate: float = 0.0,
                reorder: float = 0.0, seed: int = 1, rate: int = 0, domain: int = 0, sampling: int = 1,
                advance: Advance | None = None) -> network.Manifest:
    """Encode flows and send them in one session; returns what was done. `rate` is messages a second. Raises RatemillError."""
    datagrams = encode(columns, "ipfix", domain=domain, sampling=sampling, templates_every=2**62)
    delivery = network.perturb(datagrams, loss=loss, duplicate=duplicate, reorder=reorder, seed=seed)
    transmit(datagrams, delivery.order, to, source=source, rate=rate, advance=advance)
    return network.describe(datagrams, delivery, source, domain, sampling)


def transmit(datagrams: Datagrams, order: NDArray[np.int64], to: Target, *, source: str = "", rate: int = 0,
             advance: Advance | None = None) -> None:
    """Send messages in this order and wait until the collector has taken them all. Raises RatemillError."""
    try:
        with _connect(to, source) as connection:
            begun, sent = clock.monotonic_ns(), 0
            for octets, messages in chunks(datagrams, order, CHUNK_SIZE if not rate else max(rate * SLICE_MS // 1000, 1)
                                           * int(datagrams.size.max())):
                connection.sendall(octets)
                sent += messages
                if advance is not None:
                    advance(messages)
                while rate and (ahead := sent * 1_000_000_000 // rate - (clock.monotonic_ns() - begun)) > 0:
                    clock.sleep(min(ahead / 1e9, 0.5))
            _say_goodbye(connection)
    except ssl.SSLCertVerificationError as error:
        raise RatemillError(f"the certificate of {to} is not believed: {error.verify_message}",
                            "give the CA that signed it with --ca, and the host by a name that it holds") from error
    except OSError as error:
        if to.context is not None and not isinstance(error, ConnectionRefusedError | TimeoutError | socket.gaierror):
            why = error.reason if isinstance(error, ssl.SSLError) and error.reason else error.strerror or error
            raise RatemillError(f"TLS with {to} failed: {why}",
                                "is it a TLS port, and does it believe the certificate (--certificate, --key)?") from error
        raise RatemillError(f"sending to {to} failed: {error.strerror or error}",
                            "see whether the collector runs and listens there: `ratemill collect status`") from error


def chunks(datagrams: Datagrams, order: NDArray[np.int64], size: int) -> Iterator[tuple[memoryview, int]]:
    """The messages one after another, as pieces of about `size` octets: (octets, how many messages)."""
    ends = np.cumsum(datagrams.size[order])
    first = 0
    while first < len(order):
        before = int(ends[first - 1]) if first else 0
        behind = max(int(np.searchsorted(ends, before + size, "right")), first + 1)
        chosen = order[first:behind]
        sizes = datagrams.size[chosen]
        begins = np.repeat(datagrams.start[chosen] - (np.cumsum(sizes) - sizes), sizes)
        yield datagrams.octets[begins + np.arange(len(begins))].data, behind - first
        first = behind


def _connect(to: Target, source: str) -> socket.socket | _TlsSession:
    connection = socket.create_connection((to.host, to.port), PATIENCE_SECONDS, (source, 0) if source else None)
    if to.context is None:
        return connection
    try:
        return _TlsSession(connection, to.context, to.host)
    except BaseException:
        connection.close()
        raise


def _say_goodbye(connection: socket.socket | _TlsSession) -> None:
    """End our side and wait for the other: it closes when it has read everything, or says why it does not."""
    if isinstance(connection, _TlsSession):
        connection.say_goodbye()
        return
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(4096):
        pass


class _TlsSession:
    """A TLS session that can end its own side and still read (RFC 8446 §6.1).

    `ssl.SSLSocket` cannot: its `unwrap` sends the end and reads in one go, and takes a refusal that comes in for the
    end of the other side. But with TLS 1.3 a refused certificate is heard of only here, behind the handshake.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._hand_over()
                self._take_in()
        self._hand_over()

    def __enter__(self) -> _TlsSession:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def sendall(self, octets: memoryview) -> None:
        """Encrypt and send."""
        self._tls.write(octets)
        self._hand_over()

    def say_goodbye(self) -> None:
        """End our side, then read until the other ends its own. Raises ssl.SSLError with the reason if it refuses."""
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            self._hand_over()
        while True:
            try:
                if not self._tls.read(4096):
                    return
            except ssl.SSLWantReadError:
                self._take_in()
            except ssl.SSLZeroReturnError:
                return

    def _hand_over(self) -> None:
        self._connection.sendall(self._outgoing.read())

    def _take_in(self) -> None:
        octets = self._connection.recv(64 << 10)
        if octets:
            self._incoming.write(octets)
        else:
            self._incoming.write_eof()
