"""The receiver: a process of its own that takes datagrams from sockets into the datagram journal, and nothing else.

The loop over the sockets is compiled and holds no interpreter lock; blocks go to a thread that writes and syncs them. No
SQL and no compilation happens after the sockets are open. Where the disk can't take a block, or only its reserve is left,
the datagrams are counted as refused; where the kernel dropped datagrams for want of room, the sockets say how many, and
every block's header too. Sessions over TCP and TLS have a thread of their own (`collector.streams`); its blocks wait for
the disk, however long.
"""

from __future__ import annotations

import errno
import ipaddress
import queue
import signal
import socket
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector import counters as places_of
from collector import streams
from collector.certificates import Watched
from collector.counters import (
    DURABLE,
    DURABLE_BLOCK,
    DURATION_BOUNDS_NS,
    JOURNAL_BLOCKS,
    JOURNAL_FAILING,
    JOURNAL_OCTETS,
    JOURNAL_SYNCS,
    KERNEL_DROPS,
    LOOKED_AT,
    LOST,
    OWED,
    REFUSED,
    SESSIONS_JOURNALED,
    STALLED_NS,
    Places,
)
from collector.disk import Watch
from collector.drops import Drops, close_door, read_memory
from collector.kernels import sockets as kernels
from collector.settings import Collector
from core import clock
from core.addresses import parse_address
from core.errors import RatemillError, UsageError
from runtime import log
from storage.home import Home
from storage.journal import BODY_SIZE_MAX, HEADER_SIZE, BlockHead, JournalReader, JournalWriter
from storage.space import DiskLow

BUFFERS = 16
"""Blocks in memory between the sockets and the disk: 64 MiB."""
STREAM_BUFFERS = 4
"""The same for TCP and TLS, where the exporter waits if they are full."""
LOOK_NS = 100_000_000
"""How often the compiled loop lets Python look at signals and drops."""
RETRY_SECONDS = 0.5

TRANSPORTS = ("udp", "tcp", "tls")

_SO_RCVBUFFORCE = 33

assert (kernels.RECEIVED, kernels.OCTETS, kernels.TRUNCATED, kernels.ERRORS, kernels.LISTENERS, kernels.LISTENERS_MAX,
        kernels.LISTENER_WIDTH, kernels.LISTENER_RECEIVED, kernels.LISTENER_OCTETS, kernels.SIZES, kernels.SIZE_BOUNDS) == (
    places_of.RECEIVED, places_of.OCTETS, places_of.TRUNCATED, places_of.RECEIVE_ERRORS, places_of.LISTENERS,
    places_of.LISTENERS_MAX, places_of.LISTENER_WIDTH, places_of.LISTENER_RECEIVED, places_of.LISTENER_OCTETS,
    places_of.DATAGRAM_SIZES, places_of.SIZE_BOUNDS), "the compiled loop counts where others read"


@dataclass(frozen=True)
class Address:
    """Where to listen."""

    host: str
    port: int
    transport: str = "udp"

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    def __str__(self) -> str:
        place = f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"
        return place if self.transport == "udp" else f"{self.transport}://{place}"


def parse_listen(text: str) -> Address:
    """'0.0.0.0:2055', '[::]:2055' or ':2055', with udp://, tcp:// or tls:// before it → address. Raises UsageError."""
    scheme, slashes, place = text.rpartition("://")
    host, colon, port = place.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]") or "0.0.0.0"
    try:
        address = ipaddress.ip_address(bare)
        number = int(port)
        if (slashes and scheme not in TRANSPORTS) or not colon or not 0 <= number <= 65535 or (
                (address.version == 6) != host.startswith("[")):
            raise ValueError(text)
    except ValueError:
        raise UsageError(f"--listen {text} is not ADDRESS:PORT",
                         "for example 0.0.0.0:2055 or [::]:2055 for UDP, tcp://0.0.0.0:4739, tls://[::]:4740") from None
    return Address(str(address), number, scheme or "udp")


@dataclass(frozen=True)
class Listener:
    """An open socket."""

    socket: socket.socket
    address: Address
    granted: int
    """Octets of receive buffer that the kernel granted, as it counts them (twice what was asked)."""


def open_listeners(addresses: Sequence[Address], buffer: int) -> list[Listener]:
    """Bind all of them or none. Raises RatemillError: port in use, no such address, no right."""
    opened: list[Listener] = []
    try:
        for address in addresses:
            opened.append(_open(address, buffer))
    except BaseException:
        for listener in opened:
            listener.socket.close()
        raise
    return opened


def open_streams(addresses: Sequence[Address], context: streams.Context | None) -> list[streams.StreamListener]:
    """Bind those of TCP and TLS, all or none; `context` is needed for TLS. Raises RatemillError."""
    opened: list[streams.StreamListener] = []
    try:
        for address in addresses:
            try:
                opened.append(streams.listen(address.host, address.port, context if address.transport == "tls" else None))
            except OSError as error:
                raise _explain(error, address) from error
    except BaseException:
        for listener in opened:
            listener.socket.close()
        raise
    return opened


def _open(address: Address, buffer: int) -> Listener:
    made = socket.socket(socket.AF_INET6 if address.is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        if address.is_ipv6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        granted = _enlarge(made, buffer)
        made.bind((address.host, address.port))
    except OSError as error:
        made.close()
        raise _explain(error, address) from error
    return Listener(made, Address(address.host, made.getsockname()[1]), granted)


def _enlarge(made: socket.socket, buffer: int) -> int:
    """Ask for a receive buffer, beyond the limit if we may; returns what was granted."""
    try:
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer)
    except OSError:  # not CAP_NET_ADMIN: net.core.rmem_max is the limit
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    return made.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def _explain(error: OSError, address: Address) -> RatemillError:
    hints = {
        errno.EADDRINUSE: (f"the port is in use: {address} belongs to another process",
                           f"find it with `ss -l{'u' if address.transport == 'udp' else 't'}np 'sport = :{address.port}'`, "
                           "stop it, or listen on another port"),
        errno.EADDRNOTAVAIL: (f"{address} is no address of this machine", "give one of `ip address`, 0.0.0.0 or [::]"),
        errno.EACCES: (f"this user may not listen on {address}", "take a port above 1023, or give CAP_NET_BIND_SERVICE"),
        errno.EAFNOSUPPORT: (f"this machine has no IPv6: {address}", "leave this address out"),
    }
    message, hint = hints.get(error.errno or 0, (f"{address} can't be listened on: {error.strerror or error}", ""))
    return RatemillError(message, hint)


def buffer_advice(listeners: Sequence[Listener], wanted: int) -> str:
    """What to say if the kernel granted less than asked, else ''. The kernel counts its own overhead: twice the number."""
    least = min((listener.granted for listener in listeners), default=2 * wanted) // 2
    if least >= wanted:
        return ""
    return (f"the kernel grants {least} octets of receive buffer, {wanted} were asked for ([collector] socket_buffer): "
            f"raise net.core.rmem_max with `sysctl -w net.core.rmem_max={wanted}`, or bursts may be dropped")


def read_drops(listeners: Sequence[Listener]) -> int:
    """Datagrams that the kernel dropped at these sockets since they were opened."""
    return sum(read_memory(listener.socket)[0] for listener in listeners)


# memory ---------------------------------------------------------------------------------------------------------------
class _Memory:
    """Everything that the compiled loop works in."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.state = np.zeros(kernels.STATE_SIZE, np.int64)
        self.polls = np.array([one.socket.fileno() | (kernels.POLLIN << 32) for one in listeners], np.uint64)
        self.scratch = np.zeros((kernels.BATCH, kernels.DATAGRAM_MAX + 1), np.uint8)
        self.names = np.zeros((kernels.BATCH, kernels.NAME_SIZE), np.uint8)
        self.vectors = np.zeros((kernels.BATCH, 2), np.uint64)
        self.messages = np.zeros((kernels.BATCH, kernels.WORDS_OF_MESSAGE), np.uint64)
        self.listeners = np.array([[one.address.port] for one in listeners], np.int64).reshape(len(listeners), 1)
        local = b"".join(parse_address(one.address.host) for one in listeners)
        self.local = np.frombuffer(local, np.uint8).reshape(len(listeners), 16).copy()
        self.moment = np.zeros(2, np.int64)
        for m in range(kernels.BATCH):
            self.vectors[m] = self.scratch.ctypes.data + m * self.scratch.strides[0], self.scratch.shape[1]
            self.messages[m, :4] = (self.names.ctypes.data + m * kernels.NAME_SIZE, kernels.NAME_SIZE,
                                    self.vectors.ctypes.data + m * 16, 1)

    def receive(self, buffer: _Buffer, counters: Places, sync_ns: int) -> int:
        code: int = kernels.receive(self.state, self.polls, self.messages, self.scratch, self.names, self.listeners, self.local,
                                    buffer.body, buffer.words, counters, self.moment, sync_ns, LOOK_NS)
        return code


class _Buffer:
    """Room for one block; it goes back to its `pool`. One of a stream waits for the disk and is not refused."""

    def __init__(self, pool: queue.SimpleQueue[_Buffer] | None = None, is_stream: bool = False) -> None:
        self.pool, self.is_stream = pool, is_stream
        words = np.zeros((HEADER_SIZE + BODY_SIZE_MAX) // 8, np.uint64)
        self.framed: NDArray[np.uint8] = words.view(np.uint8)
        self.body, self.words = self.framed[HEADER_SIZE:], words[HEADER_SIZE // 8 :]
        self.used = self.datagrams = self.first = self.last = 0


def warm_up() -> None:
    """Compile the loop: it is called once without a socket."""
    streams.warm_up()
    memory = _Memory([])
    memory.state[kernels.STOPPING] = 1
    memory.receive(_Buffer(), np.zeros(places_of.SIZE, np.int64), 1)


# writing --------------------------------------------------------------------------------------------------------------
class _Writer(threading.Thread):
    """Takes full buffers, appends them to the journal and makes them durable."""

    def __init__(self, writer: JournalWriter, counters: Places, disk: Watch) -> None:
        super().__init__(name="journal", daemon=True)
        self._writer, self._counters, self._disk = writer, counters, disk
        self.free: queue.SimpleQueue[_Buffer] = queue.SimpleQueue()
        self.free_of_streams: queue.SimpleQueue[_Buffer] = queue.SimpleQueue()
        self.full: queue.SimpleQueue[_Buffer | None] = queue.SimpleQueue()
        self._held: deque[_Buffer] = deque()
        for _ in range(BUFFERS):
            self.free.put(_Buffer(self.free))
        self._stopping = False
        self._complained = False
        self.failure: RatemillError | None = None
        """Why receiving can't go on."""

    def run(self) -> None:
        try:
            self._work()
            self._writer.close()
        except RatemillError as error:
            self.failure = error
        except Exception as error:  # a thread's exception would be lost: the receiver stops and says it
            self.failure = RatemillError(f"the journal can't be written: {type(error).__name__}: {error}")

    def lend(self, buffers: int) -> None:
        """Make buffers for streams."""
        for _ in range(buffers):
            self.free_of_streams.put(_Buffer(self.free_of_streams, is_stream=True))

    def take(self, seconds: float) -> _Buffer | None:
        try:
            return self.free_of_streams.get(timeout=seconds)
        except queue.Empty:
            return None

    def spare(self) -> _Buffer:
        return _Buffer(None, is_stream=True)

    def give(self, buffer: streams.Buffer) -> None:
        assert isinstance(buffer, _Buffer), "it was taken here"
        self.full.put(buffer)

    def _work(self) -> None:
        ended = False
        while not ended:
            batch = self._next_batch()
            ended = None in batch
            written: list[_Buffer] = []
            for buffer in batch:
                if buffer is not None and buffer.is_stream:
                    self._held.append(buffer)
                elif buffer is not None:
                    self._dispose(buffer, written)
                self._dispose_of_held(written)
            if not batch:
                self._dispose_of_held(written)
            if written:
                began = clock.monotonic_ns()
                self._writer.sync()
                places_of.observe(self._counters, JOURNAL_SYNCS, DURATION_BOUNDS_NS, clock.monotonic_ns() - began)
                self._counters[DURABLE_BLOCK] = self._writer.next_block - 1
                self._counters[DURABLE] += sum(buffer.datagrams for buffer in written)
            for buffer in written:
                _release(buffer)

    def _next_batch(self) -> list[_Buffer | None]:
        """All that is there, None at the end; nothing when it is time to try blocks again that the disk did not take."""
        try:
            batch = [self.full.get(timeout=RETRY_SECONDS if self._held else None)]
        except queue.Empty:
            return []
        while batch[-1] is not None and not self.full.empty():
            batch.append(self.full.get())
        return batch

    def _dispose_of_held(self, written: list[_Buffer]) -> None:
        """Blocks of streams go into the journal in their order."""
        while self._held and self._dispose(self._held[0], written):
            self._held.popleft()

    def _dispose(self, buffer: _Buffer, written: list[_Buffer]) -> bool:
        """Write a block, or refuse it; False if it has to wait."""
        outcome = self._append(buffer)
        if outcome is None:
            return False
        if outcome:
            written.append(buffer)
        else:
            self._counters[REFUSED] += buffer.datagrams
            self._counters[OWED] += buffer.datagrams
            _release(buffer)
        return True

    def _append(self, buffer: _Buffer) -> bool | None:
        """Whether the block is in the journal; None: it is to be tried again.

        A full disk is tried again for as long as there is a buffer to spare. A block of a stream waits, for as long as the
        receiver runs: its exporter waits too.
        """
        while True:
            owed = int(self._counters[OWED])
            head = BlockHead(self._writer.next_block, buffer.datagrams, buffer.first, buffer.last, refused=owed,
                             kernel_drops=int(self._counters[KERNEL_DROPS]))
            try:
                self._disk.require_reserve()
                self._writer.append(head, buffer.framed[: HEADER_SIZE + buffer.used])
            except RatemillError as error:
                if not self._complained and not isinstance(error, DiskLow):  # of the reserve, the watch has told
                    log.error("receiver", error.message, hint=error.hint)
                self._complained = True
                self._counters[JOURNAL_FAILING] = 1
                if buffer.is_stream and not self._stopping:
                    return None
                if self.free.empty() or self._stopping:
                    return False
                clock.sleep(RETRY_SECONDS)
                continue
            self._counters[OWED] = 0
            self._counters[JOURNAL_BLOCKS] += 1
            self._counters[JOURNAL_OCTETS] += HEADER_SIZE + buffer.used
            if self._complained:
                log.info("receiver", "the journal can be written again", refused=int(self._counters[REFUSED]))
                self._complained = False
                self._counters[JOURNAL_FAILING] = 0
            return True

    def finish(self) -> None:
        """Write what is there and end."""
        self._stopping = True
        self.full.put(None)
        self.join()


def _release(buffer: _Buffer) -> None:
    if buffer.pool is not None:
        buffer.pool.put(buffer)


# receiving ------------------------------------------------------------------------------------------------------------
class Receiver:
    """Sockets, memory and the writing thread of one collector; the caller holds the receiver's lock."""

    def __init__(self, home: Home, collector: str, listeners: Sequence[Listener], sync_ms: int, next_block: int = 0,
                 stream_listeners: Sequence[streams.StreamListener] = (), settings: Collector | None = None) -> None:
        """`settings` bound the sessions over TCP and TLS."""
        self._listeners, self._stream_listeners = listeners, stream_listeners
        self._sync_ns = sync_ms * 1_000_000
        self._counters = places_of.open_counters(home, collector)
        writer = JournalWriter(home.folder("journal"), collector, next_block=next_block,
                               synced=int(self._counters[DURABLE_BLOCK]) + 1)
        try:
            writer.sync()  # what a killed run had written and not yet synced
        except RatemillError as error:  # it is tried again with the first block
            log.error("receiver", error.message, hint=error.hint)
        _name_the_gap(home, collector, self._counters, writer.next_block)
        self._drops_before = int(self._counters[KERNEL_DROPS])
        self._drops = Drops([listener.socket for listener in listeners])
        self._counters[JOURNAL_FAILING], self._counters[LOOKED_AT] = 0, clock.now_ms()
        self._counters[places_of.LISTENERS : places_of.listener_at(places_of.LISTENERS_MAX - 1) + places_of.LISTENER_WIDTH] = 0
        self._memory = _Memory(listeners)
        self._disk = Watch(home.folder("journal"), home.document, self._counters)
        self._writer = _Writer(writer, self._counters, self._disk)
        self._streams: streams.Streams | None = None
        if stream_listeners:
            self._writer.lend(STREAM_BUFFERS)
            self._streams = streams.Streams(stream_listeners, settings or Collector(), self._counters, self._writer)
        self._stopping = False

    def reload(self, *_: Any) -> None:
        """Look at the certificate's files; may be called by a signal handler."""
        for listener in self._stream_listeners:
            if isinstance(listener.context, Watched):
                listener.context.reload()

    def stop(self, *_: Any) -> None:
        """Take what is in the sockets, make it durable and end; may be called by a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Receive until `stop`. Raises RatemillError if the journal can't be written any more."""
        self._writer.start()
        self._start_streams()
        state, buffer = self._memory.state, self._next_buffer()
        looked = 0
        try:
            while self._failure() is None:
                if self._stopping and not state[kernels.STOPPING]:
                    self._close_doors()
                code = self._memory.receive(buffer, self._counters, self._sync_ns)
                if code == kernels.FAILED:
                    raise RatemillError(f"the socket failed: {errno.errorcode.get(int(state[kernels.ERRNO]), 'error')}")
                if code in (kernels.FULL, kernels.DUE, kernels.DRAINED) and state[kernels.COUNT]:
                    self._hand_over(buffer)
                    buffer = self._next_buffer()
                if code == kernels.DRAINED:
                    break
                if clock.monotonic_ns() - looked >= 1_000_000_000:
                    self._look()
                    looked = clock.monotonic_ns()
        finally:
            self._look()
            if self._streams is not None:
                self._streams.finish()
            self._writer.finish()
            self._look()  # what came while the last block was written
        self._conclude()

    def _close_doors(self) -> None:
        """Take what is in the sockets, and nothing more."""
        for listener in self._listeners:
            close_door(listener.socket)
        self._memory.state[kernels.STOPPING] = 1

    def _start_streams(self) -> None:
        if self._streams is not None:
            self._streams.start()
        elif self._counters[SESSIONS_JOURNALED]:  # a run before had sessions and was killed
            self._writer.lend(1)
            cutter = streams.Cutter(self._writer, self._counters, self._sync_ns)
            streams.end_all(cutter, self._counters)
            cutter.hand_over()

    def _failure(self) -> RatemillError | None:
        return self._writer.failure or (self._streams.failure if self._streams is not None else None)

    def _next_buffer(self) -> _Buffer:
        """A free buffer; waits while the disk is slower than the network. Raises RatemillError if the writer gave up."""
        try:
            return self._writer.free.get_nowait()
        except queue.Empty:
            began = clock.monotonic_ns()
        try:
            while True:
                try:
                    return self._writer.free.get(timeout=RETRY_SECONDS)
                except queue.Empty:
                    if self._writer.failure is not None:
                        raise self._writer.failure from None
        finally:
            self._counters[STALLED_NS] += clock.monotonic_ns() - began

    def _hand_over(self, buffer: _Buffer) -> None:
        state = self._memory.state
        buffer.used, buffer.datagrams = int(state[kernels.USED]), int(state[kernels.COUNT])
        buffer.first, buffer.last = int(state[kernels.FIRST]), int(state[kernels.LAST])
        state[kernels.USED] = state[kernels.COUNT] = 0
        state[kernels.BEGAN] = clock.monotonic_ns()  # of datagrams that wait in memory already
        self._writer.full.put(buffer)

    def _look(self) -> None:
        self._counters[LOOKED_AT] = clock.now_ms()
        drops = self._drops_before + self._look_at_listeners()
        if drops > self._counters[KERNEL_DROPS]:
            log.warning("receiver", "the kernel dropped datagrams: its receive buffer was full",
                        dropped=drops - int(self._counters[KERNEL_DROPS]), total=drops)
        self._counters[KERNEL_DROPS] = drops
        self._disk.look()

    def _look_at_listeners(self) -> int:
        """Note how each socket is; returns the drops of all of them."""
        total, beyond = self._drops.look(), 0
        for number, listener in enumerate(self._listeners):
            drops = self._drops.counts[number]
            beyond = beyond + drops if number >= places_of.LISTENERS_MAX - 1 else drops
            at = places_of.listener_at(number)
            self._counters[at + places_of.LISTENER_DROPS] = beyond
            self._counters[at + places_of.LISTENER_BUFFER] = listener.granted
            self._counters[at + places_of.LISTENER_QUEUED] = self._drops.queued[number]
        return total

    def _conclude(self) -> None:
        failure = self._failure()
        if failure is not None:
            raise failure
        if self._counters[OWED]:
            raise RatemillError(f"{int(self._counters[OWED])} datagrams could not be written to the journal",
                                "free some space; they are counted as refused")


def _name_the_gap(home: Home, collector: str, counters: Places, next_block: int) -> None:
    """What a killed run had received and not yet made durable is lost: count it, so that the balance names it."""
    durable = 0
    reader = JournalReader(home.folder("journal"), collector, int(counters[DURABLE_BLOCK]) + 1)
    for block in reader.blocks(with_bodies=False):
        if block.head.number < next_block:
            durable += block.head.datagrams
    reader.close()
    counters[DURABLE] += durable
    counters[DURABLE_BLOCK] = max(int(counters[DURABLE_BLOCK]), next_block - 1)
    lost = int(places_of.received(counters) - counters[REFUSED] - counters[LOST] - counters[DURABLE])
    if lost > 0:
        counters[LOST] += lost
        counters[OWED] += lost
        log.warning("receiver", "datagrams of the last run are lost: it was killed before they were durable",
                    datagrams=lost, collector=collector)


def handle_signals(receiver: Receiver) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, receiver.stop)
    signal.signal(signal.SIGHUP, receiver.reload)
