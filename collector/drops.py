"""What the kernel dropped at each socket, and the door that is closed before the last datagrams are taken.

The kernel's count has 32 bits and begins when a socket is opened; here it goes on beyond that.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence

_SO_ATTACH_FILTER = 26
_SO_MEMINFO = 55
_MEMINFO_QUEUED, _MEMINFO_DROPS = 0, 8
_WRAP = 1 << 32
_RETURN_NOTHING = struct.pack("=HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K, 0: no octet of a datagram is kept


def read_memory(one: socket.socket) -> tuple[int, int]:
    """(the kernel's count of datagrams dropped at this socket, modulo 2^32; octets of its receive buffer in use now)."""
    info = one.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
    words = struct.unpack_from(f"={len(info) // 4}I", info)
    return (words[_MEMINFO_DROPS] if len(words) > _MEMINFO_DROPS else 0), (words[_MEMINFO_QUEUED] if words else 0)


def close_door(one: socket.socket) -> None:
    """Let nothing more into a socket's buffer: what comes from here on is a drop that the kernel counts.

    Under a flood the buffer would never be empty, and what came between the last look and the end would have no name.
    """
    code = ctypes.create_string_buffer(_RETURN_NOTHING)
    one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(code)))


class Drops:
    """Counts of some sockets that go on over the kernel's 32 bits; they must be read before 2^32 more are dropped."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._sockets = sockets
        self._newest = [0] * len(sockets)
        self.counts = [0] * len(sockets)
        """Datagrams dropped at each socket since it was opened."""
        self.queued = [0] * len(sockets)
        """Octets of each receive buffer in use."""

    def look(self) -> int:
        """Read them all; returns the sum of the counts."""
        for number, one in enumerate(self._sockets):
            drops, self.queued[number] = read_memory(one)
            self.note(number, drops)
        return sum(self.counts)

    def note(self, number: int, drops: int) -> None:
        """The kernel's count of a socket is `drops` now."""
        self.counts[number] += (drops - self._newest[number]) % _WRAP
        self._newest[number] = drops
