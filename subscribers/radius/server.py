"""`ratemill radius run`: accounting over UDP, each report stored before it is acknowledged.

A packet of a client that the settings name and that proves its secret is stored, once, and answered; one that was stored
before is answered again. While the database is away nothing is answered: access servers send again what was not acknowledged
(RFC 2866 §2), so nothing is lost. What is believed becomes leases a few seconds later. Writes `radius_event`, and
`run/radius.json` with the figures of this run.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections import Counter
from typing import Any

from core import clock
from core.actor import current
from core.addresses import parse_address
from core.errors import RatemillError
from core.periods import format_instant
from runtime import log
from runtime.clock_check import warn_if_unsynchronised
from runtime.jobs import process_started
from runtime.locks import only_one
from storage import files, sql
from storage.home import Home
from subscribers.radius import events, leases
from subscribers.radius.events import Report
from subscribers.radius.packets import PACKET_SIZE_MAX, PacketFault, decode, response
from subscribers.radius.settings import RadiusSettings, from_document, split

BATCH_MAX = 256
"""Packets that are stored in one transaction."""
LOOK_SECONDS = 0.2
STATUS_NS = 1_000_000_000
LEASE_NS = 5_000_000_000
"""How often new reports are turned into leases."""
DEFAULT_LISTEN = "0.0.0.0:1813"

Sender = tuple[Any, ...]


def run(home: Home, listen: str = "") -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. Raises Locked, SettingsError, RatemillError."""
    settings = from_document(home.document)
    if not settings.clients:
        raise RatemillError("no access server may report: ratemill.toml has no [[radius_client]]",
                            'add one, with address = "…" and secret = { file = "…" }')
    with only_one(home, "radius", "`radius run`"):
        return Server(home, settings, listen or settings.radius.listen or DEFAULT_LISTEN).run()


class Server:
    """One socket, and what came of its packets."""

    def __init__(self, home: Home, settings: RadiusSettings, listen: str) -> None:
        """Opens the socket. Raises RatemillError."""
        self._home, self._settings = home, settings
        self._engine = sql.engine(home)
        self._socket = open_socket(listen, settings.radius.receive_buffer)
        host, port = self._socket.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.received = self.accepted = self.duplicates = self.unknown = self.unanswered = 0
        self.faults: Counter[str] = Counter()
        self._stopping = False
        self._trouble = ""
        self._written_ns = self._leased_ns = 0
        self._has_new = True

    def run(self) -> int:
        before = [signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)]
        log.info("radius", "listening", address=self.address)
        warn_if_unsynchronised("radius")
        self._write_status("running")
        try:
            while not self._stopping:
                self.step()
        finally:
            for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
                signal.signal(number, handler)
            self._socket.close()
        self._lease()
        self._write_status("stopped")
        return 0

    def step(self) -> None:
        """Wait for packets for a moment, and do what is due."""
        ready, _, _ = select.select([self._socket], [], [], LOOK_SECONDS)
        if ready:
            self.take(self._drained())
        now = clock.monotonic_ns()
        if self._has_new and now - self._leased_ns >= LEASE_NS:
            self._lease()
        if now - self._written_ns >= STATUS_NS:
            self._write_status("running")

    def _drained(self) -> list[tuple[bytes, Sender]]:
        found: list[tuple[bytes, Sender]] = []
        while len(found) < BATCH_MAX:
            try:
                found.append(self._socket.recvfrom(PACKET_SIZE_MAX + 1))
            except BlockingIOError:
                break
            except OSError as error:  # an answer that nobody was there for
                log.warning("radius", str(error))
        return found

    def take(self, packets: list[tuple[bytes, Sender]]) -> None:
        """Store what is believed, then acknowledge it."""
        reports: list[Report] = []
        answers: list[tuple[bytes, Sender]] = []
        now = clock.now_ms()
        for data, sender in packets:
            self.received += 1
            source = parse_address(sender[0].partition("%")[0])
            client = self._settings.client_of(source)
            if client is None:
                self.unknown += 1
                continue
            secret = client.secret.encode()
            request = decode(data, secret)
            if isinstance(request, PacketFault):
                self.faults[request.value] += 1
                continue
            reports.append(Report(request, source, client.name, now))
            answers.append((response(request, secret), sender))
        if not reports:
            return
        try:
            with sql.transaction(self._engine) as connection:
                known = events.store(connection, reports)
        except RatemillError as error:
            self.unanswered += len(reports)
            self._say(error)
            return
        self._trouble = ""
        self.duplicates += known
        self.accepted += len(reports) - known
        self._has_new = self._has_new or known < len(reports)
        for data, sender in answers:
            try:
                self._socket.sendto(data, sender)
            except OSError as error:  # it will ask again
                log.warning("radius", f"an answer to {sender[0]} could not be sent: {error}")

    def _lease(self) -> None:
        self._leased_ns = clock.monotonic_ns()
        try:
            done = leases.run(self._home, current("radius run"))
        except RatemillError as error:
            self._say(error)
            return
        self._has_new = False
        if done.added or done.removed:
            log.info("radius", "leases", added=done.added, removed=done.removed, unknown_user=done.unknown_user,
                     conflicts=done.conflicts)

    def _say(self, error: RatemillError) -> None:
        if error.message != self._trouble:
            log.error("radius", error.message, hint=error.hint)
        self._trouble = error.message

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def figures(self) -> dict[str, Any]:
        """What came of the packets since this process began."""
        return {"received": self.received, "accepted": self.accepted, "duplicates": self.duplicates,
                "unknown_clients": self.unknown, "unanswered": self.unanswered, "faults": dict(sorted(self.faults.items()))}

    def _write_status(self, state: str) -> None:
        self._written_ns = clock.monotonic_ns()
        told = {"state": state, "pid": os.getpid(), "pid_started": process_started(os.getpid()), "listen": self.address,
                **self.figures(), "trouble": self._trouble, "at": format_instant(clock.now_ms())}
        try:
            files.write_whole(self._home.folder("run") / "radius.json", (json.dumps(told) + "\n").encode())
        except RatemillError as error:
            self._say(error)


def open_socket(listen: str, buffer: int) -> socket.socket:
    """Raises RatemillError: the address is not ours, or somebody listens there."""
    host, port = split(listen)
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    made.setblocking(False)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise RatemillError(f"can't listen on {listen}: {error.strerror}",
                            "stop the other RADIUS server, or set [radius] listen to another address") from error
    return made
