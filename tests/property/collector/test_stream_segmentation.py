"""However TCP cuts a stream of octets into segments, the journal holds the same entries."""

from __future__ import annotations

import socket
import struct
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stream_home import Entry, entries_of, make_home

from collector import counters, streams
from collector.kernels import codes
from collector.kernels import streams as kernels
from collector.receiver import _Buffer as Buffer
from collector.settings import Collector
from storage.journal import HEADER_SIZE, BlockHead, JournalWriter


def message(size: int, fill: int) -> bytes:
    return struct.pack("!HHIII", 10, 16 + size, 0, fill, 7) + bytes([fill % 256]) * size


class _Written:
    """Blocks that go to the journal as they are given."""

    def __init__(self, writer: JournalWriter) -> None:
        self._writer = writer

    def take(self, seconds: float) -> Buffer:
        return Buffer()

    def spare(self) -> Buffer:
        return Buffer()

    def give(self, buffer: streams.Buffer) -> None:
        assert isinstance(buffer, Buffer)
        head = BlockHead(self._writer.next_block, buffer.datagrams, buffer.first, buffer.last)
        self._writer.append(head, buffer.framed[: HEADER_SIZE + buffer.used])


def journal_of(folder: Path, segments: list[bytes]) -> list[Entry]:
    """What the journal holds of a session whose octets arrive in these segments, each read by itself."""
    home = make_home(folder)
    writer = JournalWriter(home.folder("journal"), "main")
    listener = streams.listen("127.0.0.1", 0, None)
    one = streams.Streams([listener], Collector(journal_sync_ms=1), counters.open_counters(home, "main"), _Written(writer))
    one.begin()
    with socket.create_connection(("127.0.0.1", listener.port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.turn()
        for segment in segments:
            try:
                client.sendall(segment)
            except OSError:  # it was closed: what is sent behind a fault is not read
                break
            one.turn()
    for _ in range(200):  # a turn reads what the kernel holds by then, not all that is under way
        one.turn()
        if not one._sessions:
            break
    one.conclude()
    writer.close()
    return [entry._replace(source_port=0, port=0) for entry in entries_of(home) if entry.flags != codes.SESSIONS_LOST]


def cut_at(stream: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[a:b] for a, b in pairwise(edges)]


def expected_of(stream: bytes) -> list[tuple[bytes, int]]:
    """By the RFC, without any of the product's code."""
    found: list[tuple[bytes, int]] = []
    while len(stream) >= 4:
        version, length = struct.unpack("!HH", stream[:4])
        if version != 10 or length < 16:
            return [*found, (stream[:4], 4 | 8)]
        if len(stream) < length:
            break
        found.append((stream[:length], 0 if found else 2))
        stream = stream[length:]
    if stream:
        return [*found, (stream[:64], 4 | 16)]
    return [*found, (b"", 4)] if found else []


pieces = st.one_of(st.builds(message, st.integers(0, 300), st.integers(0, 999)), st.binary(max_size=6),
                   st.builds(message, st.sampled_from([60_000, 65_519]), st.integers(0, 9)))


@given(stream=st.lists(pieces, max_size=8).map(b"".join), places=st.lists(st.integers(0, 2**20), max_size=12))
@example(stream=message(5, 1) + message(0, 2), places=list(range(40)))
@settings(max_examples=120, deadline=None)
@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # it hid the failure that it was to show
def test_any_segmentation_gives_the_same_entries(stream: bytes, places: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = journal_of(Path(folder) / "whole", cut_at(stream, []))
        cut = journal_of(Path(folder) / "cut", cut_at(stream, places))
    assert cut == whole
    assert [(entry.payload, entry.flags) for entry in cut] == expected_of(stream)


def test_a_stream_cut_at_every_octet_gives_the_same_entries() -> None:
    stream = message(40, 1) + message(0, 2) + message(11, 3)
    with tempfile.TemporaryDirectory() as folder:
        whole = journal_of(Path(folder) / "whole", [stream])
        octet_by_octet = journal_of(Path(folder) / "octets", [stream[n : n + 1] for n in range(len(stream))])
        for at in range(1, len(stream)):
            assert journal_of(Path(folder) / str(at), [stream[:at], stream[at:]]) == whole
    assert octet_by_octet == whole
    assert len(whole) == 4


def test_more_messages_than_a_block_holds_stay_in_order() -> None:
    """In one read of the socket come more messages than an entry count or a body allows."""
    place, session = np.zeros(kernels.PLACE_SIZE, np.int64), np.zeros(kernels.SESSION_SIZE, np.int64)
    source = np.frombuffer(b"".join(message(0, n) for n in range(10_000)), np.uint8).copy()
    place[kernels.FILLED] = len(source)
    taken = []
    for _ in range(3):
        place[kernels.USED] = place[kernels.ENTRIES] = 0
        buffer = Buffer()
        code = kernels.cut(place, source, session, np.zeros(32, np.uint8), buffer.body, buffer.words)
        for at in range(0, 72 * int(place[kernels.ENTRIES]), 72):
            taken.append(int.from_bytes(buffer.body[at + 64 : at + 68].tobytes(), "big"))
    assert code == kernels.WHOLE
    assert taken == list(range(10_000))
