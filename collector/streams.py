"""IPFIX over TCP and TLS (RFC 7011 §10.4, §11): sessions → messages → the datagram journal.

A thread of the receiver process with its own sockets, buffers and bounds. Streams are cut into messages by compiled code,
many with each read; the order within a session is kept. A session that does not go on with a message is closed: nothing
behind a framing error can be trusted. While the journal can't take more, nothing is read: TCP holds the exporter back, and
nothing is lost. A silent, slow or hostile client costs its own connection and nobody else's.
"""

from __future__ import annotations

import errno
import resource
import selectors
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from collector import counters as places_of
from collector.counters import Places
from collector.kernels import codes
from collector.kernels import streams as kernels
from collector.settings import Collector
from core import clock
from core.addresses import NO_ADDRESS, format_address, parse_address
from core.errors import RatemillError
from runtime import log

SCRATCH_SIZE = 256 << 10
"""Octets of one session that are read before the others have their turn."""
_PENDING_MAX = 64 << 10
_RECORD_MAX = 16 << 10
EVIDENCE_MAX = 64
"""Octets kept of a message that is not whole."""
DRAIN_ROUNDS = 64
"""How often a session is read at the end, so that what was acknowledged is kept."""
LOOK_SECONDS = 0.1
PAUSE_SECONDS = 0.05
STOP_SECONDS = 5.0
"""How long the end of a receiver waits for the disk before what it holds is given to the writer beyond the bound."""
TIDY_NS = 1_000_000_000
COMPLAINT_NS = 10_000_000_000
BACKLOG = 256
ACCEPTS_MAX = 8
"""Connections accepted in a turn: a client that comes and goes quickly does not look like many."""
_DESCRIPTORS_BESIDE = 256
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
"""A peer that vanished without a word is noticed after two minutes."""

Context = Callable[[], ssl.SSLContext]


class Buffer(Protocol):
    """Room for one block of the journal."""

    body: NDArray[np.uint8]
    words: NDArray[np.uint64]
    used: int
    datagrams: int
    first: int
    last: int


class Blocks(Protocol):
    """Where buffers come from and where full ones go."""

    def take(self, seconds: float) -> Buffer | None:
        """A free buffer, None if there is none within this time."""

    def spare(self) -> Buffer:
        """One more buffer, for what is in memory when the receiver ends."""

    def give(self, buffer: Buffer) -> None:
        """Let a filled buffer be written to the journal."""


@dataclass(frozen=True)
class StreamListener:
    """An open socket; `context` is there for TLS."""

    socket: socket.socket
    host: str
    port: int
    context: Context | None

    def __str__(self) -> str:
        scheme = "tls" if self.context is not None else "tcp"
        return f"{scheme}://[{self.host}]:{self.port}" if ":" in self.host else f"{scheme}://{self.host}:{self.port}"


def listen(host: str, port: int, context: Context | None) -> StreamListener:
    """Open a socket. Raises OSError."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # sessions of a run before may linger
        if ":" in host:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
        made.listen(BACKLOG)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return StreamListener(made, host, made.getsockname()[1], context)


@dataclass(eq=False)
class _Session:
    """A connection and what is known of it."""

    socket: socket.socket
    peer: bytes
    about: NDArray[np.int64]
    ends: NDArray[np.uint8]
    opened: int
    touched: int
    shaking: bool
    begun: bool = False
    pending: bytes = b""

    @property
    def is_secure(self) -> bool:
        return isinstance(self.socket, ssl.SSLSocket)


@dataclass
class _Complaints:
    """One line in the log for many events of a kind."""

    said: dict[str, int] = field(default_factory=dict)
    since: Counter[str] = field(default_factory=Counter)

    def note(self, what: str, **values: object) -> None:
        self.since[what] += 1
        now = clock.monotonic_ns()
        if now - self.said.get(what, -COMPLAINT_NS) >= COMPLAINT_NS:
            log.warning("receiver", what, **values, times=self.since[what])
            self.said[what], self.since[what] = now, 0


class Cutter:
    """Puts what streams hold into blocks: the only one that touches a buffer."""

    def __init__(self, blocks: Blocks, counters: Places, sync_ns: int) -> None:
        self._blocks, self._counters, self._sync_ns = blocks, counters, sync_ns
        self._buffer: Buffer | None = None
        self._place = np.zeros(kernels.PLACE_SIZE, np.int64)
        self._began = 0
        self._first = self._last = 0
        self._faulted = 0
        self._nothing = np.zeros(0, np.uint8)
        self.stopping = False
        self.was_held = False
        """Nobody was read for a while."""
        self.is_spare = False
        """What is in memory goes into buffers beyond the bound: the receiver ends and the journal takes nothing."""

    def ready(self) -> None:
        """Make sure that there is a buffer: waits while the journal can't take more, which is when nobody may read."""
        if self._buffer is None:
            self._buffer = self._blocks.take(0)
        before = clock.monotonic_ns() // 1_000_000
        while self._buffer is None:
            self._counters[places_of.STREAMS_HELD], self.was_held = 1, True
            self._buffer = self._blocks.take(STOP_SECONDS if self.stopping else PAUSE_SECONDS)
            now = clock.monotonic_ns() // 1_000_000
            self._counters[places_of.STREAMS_HELD_MS] += now - before
            before = now
            if self._buffer is None and self.stopping:
                self._buffer, self.is_spare = self._blocks.spare(), True
        self._counters[places_of.STREAMS_HELD] = 0

    def seconds_left(self) -> float:
        """Until the block has to go out."""
        if not self._place[kernels.ENTRIES]:
            return LOOK_SECONDS
        return min(max((self._began + self._sync_ns - clock.monotonic_ns()) / 1e9, 0.0), LOOK_SECONDS)

    def cut(self, session: _Session, source: NDArray[np.uint8], filled: int) -> tuple[int, int]:
        """Move whole messages of `source[:filled]` to the journal: (why it ended, where)."""
        place = self._place
        place[kernels.AT], place[kernels.FILLED] = 0, filled
        session.about[kernels.RECEIVED] = clock.now_ms()
        while True:
            self.ready()
            assert self._buffer is not None, "ready() brought one"
            messages, octets = int(place[kernels.MESSAGES]), int(place[kernels.OCTETS])
            self._open(int(session.about[kernels.RECEIVED]))
            code = kernels.cut(place, source, session.about, session.ends, self._buffer.body, self._buffer.words)
            taken = int(place[kernels.MESSAGES]) - messages
            self._counters[places_of.STREAM_RECEIVED] += taken
            self._counters[places_of.STREAM_OCTETS] += int(place[kernels.OCTETS]) - octets
            if taken and not session.begun:
                session.begun = True
                self._counters[places_of.SESSIONS_JOURNALED] += 1
            if code != kernels.FULL:
                return int(code), int(place[kernels.AT])
            self.hand_over()

    def mark(self, about: NDArray[np.int64], ends: NDArray[np.uint8], flags: int,
             evidence: NDArray[np.uint8] | None = None) -> None:
        """An entry that is no message: what happened to a session, and the octets that it stumbled over."""
        octets = self._nothing if evidence is None else evidence
        about[kernels.RECEIVED], about[kernels.FLAGS] = clock.now_ms(), flags
        while True:
            self.ready()
            assert self._buffer is not None, "ready() brought one"
            self._open(int(about[kernels.RECEIVED]))
            if kernels.put_entry(self._place, octets, 0, len(octets), about, ends, self._buffer.body, self._buffer.words):
                break
            self.hand_over()
        if flags & (codes.STREAM_MALFORMED | codes.STREAM_CUT):
            self._faulted += 1
            self._counters[places_of.STREAM_RECEIVED] += 1
            self._counters[places_of.STREAM_OCTETS] += len(octets)

    def _open(self, received: int) -> None:
        if not self._place[kernels.ENTRIES]:
            self._began, self._first = clock.monotonic_ns(), received
            self._last = received
        self._last = max(self._last, received)

    def hand_over(self, *, only_if_due: bool = False) -> None:
        """Let the block be written, if there is anything in it."""
        place, buffer = self._place, self._buffer
        if buffer is None or not place[kernels.ENTRIES]:
            return
        if only_if_due and clock.monotonic_ns() - self._began < self._sync_ns:
            return
        buffer.used, buffer.datagrams = int(place[kernels.USED]), int(place[kernels.MESSAGES]) + self._faulted
        buffer.first, buffer.last = self._first, self._last
        self._blocks.give(buffer)
        self._buffer, self._faulted = None, 0
        place[:] = [place[kernels.AT], place[kernels.FILLED], 0, 0, 0, 0, 0, 0]


def end_all(cutter: Cutter, counters: Places) -> None:
    """Note that the sessions which a killed receiver left open are over."""
    cutter.mark(np.zeros(kernels.SESSION_SIZE, np.int64), np.frombuffer(NO_ADDRESS * 2, np.uint8).copy(), codes.SESSIONS_LOST)
    counters[places_of.SESSIONS_JOURNALED] = 0


def warm_up() -> None:
    """Compile what the thread needs."""
    place, session = np.zeros(kernels.PLACE_SIZE, np.int64), np.zeros(kernels.SESSION_SIZE, np.int64)
    octets, words, ends = np.zeros(0, np.uint8), np.zeros(0, np.uint64), np.zeros(32, np.uint8)
    kernels.cut(place, octets, session, ends, octets, words)
    kernels.put_entry(place, octets, 0, 0, session, ends, octets, words)


class Streams(threading.Thread):
    """Accepts and reads sessions until `finish`; `failure` says why it ended by itself."""

    def __init__(self, listeners: Sequence[StreamListener], settings: Collector, counters: Places, blocks: Blocks) -> None:
        super().__init__(name="streams", daemon=True)
        self._listeners, self._settings, self._counters = listeners, settings, counters
        self._cutter = Cutter(blocks, counters, settings.journal_sync_ms * 1_000_000)
        self._selector = selectors.DefaultSelector()
        self._scratch = np.zeros(SCRATCH_SIZE + _PENDING_MAX, np.uint8)
        self._view = memoryview(self._scratch)  # type: ignore[arg-type]  # an array is a buffer
        self._sessions: dict[int, _Session] = {}
        self._of_address: Counter[bytes] = Counter()
        self._again: list[_Session] = []
        self._held = 0
        self._complaints = _Complaints()
        self._tidied = 0
        self._deaf = False
        self._must_end_all = True
        self._stopping = False
        counters[places_of.SESSIONS_OPEN] = 0
        self.failure: RatemillError | None = None

    # the loop ---------------------------------------------------------------------------------------------------------
    def run(self) -> None:
        try:
            self.begin()
            while not self._stopping:
                self.turn()
            self.conclude()
        except Exception as error:  # a thread's exception would be lost: the receiver stops and says it
            self.failure = RatemillError(f"TCP can't be received any more: {type(error).__name__}: {error}")

    def finish(self) -> None:
        """Take what the sessions have sent, hand it over and end."""
        self._stopping = self._cutter.stopping = True
        if self.is_alive():
            self.join()

    def begin(self) -> None:
        """Listen."""
        _raise_descriptors(self._settings.connections_max + _DESCRIPTORS_BESIDE)
        if self._counters[places_of.SESSIONS_JOURNALED]:
            self._end_all()
        self._hear(True)

    def turn(self) -> None:
        """Wait until somebody connects or sends, but not long; serve all of them once."""
        self._cutter.ready()
        if self._cutter.was_held:
            self._forgive()
        again, self._again = self._again, []
        ready = [key.data for key, _ in self._selector.select(0 if again else self._cutter.seconds_left())]
        for session in [*again, *(one for one in ready if isinstance(one, _Session) and one not in again)]:
            self._serve_one(session)
        for listener in ready:  # last: those that have gone make room
            if isinstance(listener, StreamListener):
                self._accept(listener)
        self._cutter.hand_over(only_if_due=True)
        if clock.monotonic_ns() - self._tidied >= TIDY_NS:
            self._tidy()

    def _end_all(self) -> None:
        end_all(self._cutter, self._counters)
        self._must_end_all = False

    def _hear(self, yes: bool) -> None:
        self._deaf = not yes
        for listener in self._listeners:
            if yes:
                self._selector.register(listener.socket, selectors.EVENT_READ, listener)
            else:
                self._selector.unregister(listener.socket)

    def conclude(self) -> None:
        """The receiver ends: what has arrived and was acknowledged is read, then sessions are closed."""
        for listener in self._listeners:
            self._accept(listener)  # it may have sent already
            listener.socket.close()
        for session in list(self._sessions.values()):
            for _ in range(DRAIN_ROUNDS):
                if session.shaking or self._cutter.is_spare or not self._read(session):
                    break
            if session.socket.fileno() >= 0:
                self._end(session, codes.STREAM_CUT if session.pending else 0, session.pending)
        self._cutter.hand_over()
        self._selector.close()

    # accepting --------------------------------------------------------------------------------------------------------
    def _accept(self, listener: StreamListener) -> None:
        for _ in range(ACCEPTS_MAX):
            try:
                made, peer = listener.socket.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._complaints.note("no connection can be accepted", why=error.strerror)
                    if not self._deaf:
                        self._hear(False)  # until the next tidying: it would be told again at once
                return
            self._counters[places_of.SESSIONS] += 1
            address = parse_address(peer[0].partition("%")[0])
            if not self._is_welcome(address):
                self._counters[places_of.SESSIONS_REFUSED] += 1
                self._complaints.note("a connection was refused: there are too many", address=peer[0],
                                      of_all=len(self._sessions), of_address=self._of_address[address])
                made.close()
                continue
            self._begin(made, address, peer, listener)

    def _is_welcome(self, address: bytes) -> bool:
        if self._of_address[address] >= self._settings.connections_per_address_max:
            return False
        return len(self._sessions) < self._settings.connections_max or self._make_room()

    def _make_room(self) -> bool:
        """Close the connection that has been open for longest without a single message, if there is one."""
        idle = [session for session in self._sessions.values() if not session.begun]
        if not idle:
            return False
        self._counters[places_of.SESSIONS_REFUSED] += 1
        self._end(min(idle, key=lambda session: session.opened))
        return True

    def _begin(self, made: socket.socket, address: bytes, peer: Any, listener: StreamListener) -> None:
        number = int(self._counters[places_of.SESSIONS]) & 0xFFFFFFFF
        about = np.zeros(kernels.SESSION_SIZE, np.int64)
        about[kernels.SOURCE_PORT], about[kernels.PORT], about[kernels.NUMBER] = peer[1], listener.port, number
        about[kernels.FAMILY] = 6 if ":" in listener.host else 4
        about[kernels.FLAGS] = codes.SESSION_BEGINS
        try:
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                made.setsockopt(socket.IPPROTO_TCP, option, value)
            local = parse_address(made.getsockname()[0].partition("%")[0])
            if listener.context is not None:
                made = listener.context().wrap_socket(made, server_side=True, do_handshake_on_connect=False)
        except (OSError, RatemillError):  # gone already
            made.close()
            return
        now = clock.monotonic_ns()
        session = _Session(made, address, about, np.frombuffer(address + local, np.uint8).copy(), now, now,
                           listener.context is not None)
        self._sessions[made.fileno()] = session
        self._of_address[address] += 1
        self._counters[places_of.SESSIONS_OPEN] = len(self._sessions)
        self._selector.register(made, selectors.EVENT_READ, session)

    # reading ----------------------------------------------------------------------------------------------------------
    def _serve_one(self, session: _Session) -> None:
        if session.socket.fileno() < 0:  # closed since it was noted
            return
        if session.shaking and not self._shake(session):
            return
        self._read(session)

    def _shake(self, session: _Session) -> bool:
        """Go on with the TLS handshake; whether it is done."""
        assert isinstance(session.socket, ssl.SSLSocket), "only TLS shakes hands"
        wanted = selectors.EVENT_READ
        try:
            session.socket.do_handshake()
            session.shaking = False
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLWantWriteError:
            wanted = selectors.EVENT_READ | selectors.EVENT_WRITE
        except OSError as error:
            self._fail_handshake(session, error)
            return False
        self._selector.modify(session.socket, wanted, session)
        return not session.shaking

    def _fail_handshake(self, session: _Session, error: Exception | str) -> None:
        self._counters[places_of.HANDSHAKES_FAILED] += 1
        why = getattr(error, "verify_message", "") or getattr(error, "reason", None) or str(error)
        self._complaints.note("a TLS handshake failed", address=format_address(session.peer), why=why)
        self._end(session)

    def _read(self, session: _Session) -> bool:
        """Read what is there, up to a bound, and cut it; whether there may be more."""
        filled, more, ended = self._fill(session)
        if filled > len(session.pending):
            session.touched = clock.monotonic_ns()
        if self._must_end_all:
            self._end_all()
        code, at = self._cutter.cut(session, self._scratch, filled)
        rest = self._scratch[at:filled]
        if code == kernels.MALFORMED:
            self._counters[places_of.SESSIONS_BROKEN] += 1
            self._complaints.note("a session was closed: what it sends is no IPFIX", address=format_address(session.peer),
                                  begins=rest[: kernels.HEADER_SIZE].tobytes().hex(" "))
            self._end(session, codes.STREAM_MALFORMED, rest[: kernels.HEADER_SIZE].tobytes())
            return False
        if ended:
            self._end(session, codes.STREAM_CUT if len(rest) else 0, rest.tobytes())
            return False
        self._keep(session, rest.tobytes())
        if more:
            self._again.append(session)
        return more

    def _fill(self, session: _Session) -> tuple[int, bool, bool]:
        """Octets into the scratch, behind those that were kept: (how many there are, whether more may follow, the end)."""
        filled = len(session.pending)
        self._view[:filled] = session.pending
        while filled <= SCRATCH_SIZE:
            try:
                got = session.socket.recv_into(self._view[filled:])
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return filled, False, False
            except InterruptedError:
                continue
            except OSError:  # reset, or a TLS record that is none
                return filled, False, True
            if got == 0:
                return filled, False, True
            filled += got
            if not session.is_secure and filled < len(self._view):
                return filled, False, False  # all that was there
        return filled, True, False

    def _keep(self, session: _Session, rest: bytes) -> None:
        self._held += len(rest) - len(session.pending)
        session.pending = rest
        while self._held > self._settings.connection_octets_total_max:
            slowest = min((one for one in self._sessions.values() if one.pending), key=lambda one: one.touched)
            self._complaints.note("a session was closed: unfinished messages take too much room",
                                  address=format_address(slowest.peer))
            self._counters[places_of.SESSIONS_IDLE] += 1
            self._end(slowest, codes.STREAM_CUT, slowest.pending)

    # ending -----------------------------------------------------------------------------------------------------------
    def _end(self, session: _Session, flags: int = 0, evidence: bytes = b"") -> None:
        """Close a session and note it in the journal, if it is known there or ended badly."""
        del self._sessions[session.socket.fileno()]
        self._held -= len(session.pending)
        session.pending = b""
        self._of_address[session.peer] -= 1
        if not self._of_address[session.peer]:
            del self._of_address[session.peer]
        self._counters[places_of.SESSIONS_OPEN] = len(self._sessions)
        self._selector.unregister(session.socket)
        if isinstance(session.socket, ssl.SSLSocket) and not session.shaking:
            with suppress(OSError, ValueError):
                session.socket.unwrap()
        session.socket.close()
        if session.begun or flags:
            octets = np.frombuffer(evidence[:EVIDENCE_MAX], np.uint8).copy()
            self._cutter.mark(session.about, session.ends, codes.SESSION_ENDS | flags, octets)
        if session.begun:
            session.begun = False
            self._counters[places_of.SESSIONS_JOURNALED] -= 1

    def _tidy(self) -> None:
        """Close what is silent for too long; listen again if there was no room for more."""
        now = self._tidied = clock.monotonic_ns()
        idle_ns = self._settings.connection_idle_seconds_max * 1_000_000_000
        shaking_ns = self._settings.handshake_seconds_max * 1_000_000_000
        for session in list(self._sessions.values()):
            if session.shaking and now - session.opened > shaking_ns:
                self._fail_handshake(session, f"not done within {self._settings.handshake_seconds_max} s")
            elif now - session.touched > idle_ns:
                self._counters[places_of.SESSIONS_IDLE] += 1
                self._end(session, codes.STREAM_CUT if session.pending else 0, session.pending)
        if self._deaf:
            self._hear(True)

    def _forgive(self) -> None:
        """Nobody was listened to for a while: that is no silence of theirs."""
        self._cutter.was_held = False
        now = clock.monotonic_ns()
        for session in self._sessions.values():
            session.touched = now
            if session.shaking:
                session.opened = now


def _raise_descriptors(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard) if hard >= 0 else needed, hard))
