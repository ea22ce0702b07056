"""What happens at a socket: datagrams that are cut, drops that are counted on, a door that is closed."""

from __future__ import annotations

import socket

import numpy as np
import pytest

from collector import counters
from collector.drops import Drops, close_door, read_memory
from collector.kernels import sockets as kernels
from collector.receiver import _Memory, open_listeners, parse_listen


def test_a_datagram_that_does_not_fit_is_counted_as_cut() -> None:
    """UDP over IPv4 can't exceed our room; should anything ever, it is counted and not taken for whole."""
    (listener,) = open_listeners([parse_listen("127.0.0.1:0")], 1 << 16)
    memory = _Memory([listener])
    memory.vectors[:, 1] = 100
    places = np.zeros(counters.SIZE, np.int64)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for size in (100, 101, 1400, 7):
            sender.sendto(bytes(size), ("127.0.0.1", listener.address.port))
    assert kernels.take(memory.state, memory.polls, memory.messages, places, memory.moment) == 4
    assert (places[counters.RECEIVED], places[counters.TRUNCATED], places[counters.OCTETS]) == (4, 2, 307)
    listener.socket.close()


def test_drops_go_on_over_the_kernels_32_bits() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        drops = Drops([one])
        for told in (5, 2**32 - 6, 2**32 - 1, 7, 7, 12):
            drops.note(0, told)
        assert drops.counts == [2**32 + 12]


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_behind_a_closed_door_what_is_in_is_taken_and_what_comes_is_counted(family: int, host: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as one, socket.socket(family, socket.SOCK_DGRAM) as sender:
        one.bind((host, 0))
        one.setblocking(False)
        drops = Drops([one])
        for _ in range(3):
            sender.sendto(b"before", one.getsockname()[:2])
        close_door(one)
        for _ in range(4):
            sender.sendto(b"after", one.getsockname()[:2])
        assert [one.recv(100) for _ in range(3)] == [b"before"] * 3
        with pytest.raises(BlockingIOError):
            one.recv(100)
        assert drops.look() == 4
        assert read_memory(one)[0] == 4
