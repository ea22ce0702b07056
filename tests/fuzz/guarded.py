"""Memory with a fence: bodies between guard octets, and bodies whose end is the end of the readable memory."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
from numpy.typing import NDArray

Octets = NDArray[np.uint8]
GUARD = 4096


class Fenced:
    """A place for a body with guard octets of a pattern before and behind it, in one allocation."""

    def __init__(self, size_max: int, pattern: int) -> None:
        self._whole = np.full(size_max + 2 * GUARD, pattern, np.uint8)
        assert self._whole.ctypes.data % 8 == 0, "numpy aligns"
        self._pattern = pattern

    def hold(self, body: Octets) -> Octets:
        """A copy of the body in here; the guards begin right before and right behind it."""
        self._whole[:] = self._pattern
        inside = self._whole[GUARD : GUARD + len(body)]
        inside[:] = body
        return inside

    def is_whole(self, body: Octets) -> bool:
        """Whether nothing was written: neither into the guards nor into the body."""
        return bool((self._whole[:GUARD] == self._pattern).all() and (self._whole[GUARD + len(body) :] == self._pattern).all()
                    and np.array_equal(self._whole[GUARD : GUARD + len(body)], body))


class Cliff:
    """A place for a body that ends where a page without any access begins, and begins as close behind another one as its
    size allows: one octet read too far kills the process."""

    def __init__(self, size_max: int) -> None:
        page = mmap.PAGESIZE
        self._room = -(-size_max // page) * page
        self._map = mmap.mmap(-1, self._room + page)
        self._octets = np.frombuffer(self._map, np.uint8)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        behind = self._octets.ctypes.data + self._room
        assert libc.mprotect(behind, page, 0) == 0, f"mprotect: errno {ctypes.get_errno()}"

    def hold(self, body: Octets) -> Octets:
        """A copy of the body right before the edge."""
        assert len(body) % 8 == 0, "a body is made of words"
        inside = self._octets[self._room - len(body) : self._room]
        inside[:] = body
        return inside

    def beyond(self) -> Octets:
        """What must not be read, for the test of this class."""
        return self._octets[self._room :]
