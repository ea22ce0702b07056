"""Arrays whose rows lie within lines of the processor's cache."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE = 64
"""Octets that a processor fetches from memory at once."""


def aligned(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """An array without values that begins with a cache line: rows of 32 octets then never lie in two of them."""
    octets = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(octets + LINE, np.uint8)
    first = -room.ctypes.data % LINE
    return room[first : first + octets].view(dtype).reshape(shape)
