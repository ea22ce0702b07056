"""Fields of records → values, column by column where all records have one length, record by record where fields say
their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from collector.kernels.codes import VARIABLE
from collector.kernels.elements import FIRST_SECTION, FIRST_V4, LAST_V4, LAST_V6
from core.jit import inline_kernel, kernel, load_be16, load_be32, load_be64, load_le32, load_le64


@inline_kernel
def load_unsigned(data: Any, at: int, length: int) -> Any:
    value = np.int64(0)
    for k in range(length):
        value = (value << 8) | np.int64(data[at + k])
    return value


@inline_kernel
def load_number(data: Any, at: int, length: int) -> Any:
    """A number of 1 to 8 octets."""
    if length == 4:
        return load_be32(data, at)
    if length == 2:
        return load_be16(data, at)
    if length == 1:
        return np.int64(data[at])
    if length == 8:
        return load_be64(data, at)
    return load_unsigned(data, at, length)


@inline_kernel
def load(data: Any, at: int, slot: int, length: int, values: Any, record: int) -> None:
    """One field of one record."""
    if slot < FIRST_V4 or slot > LAST_V6 + 1:
        values[slot, record] = load_number(data, at, length)
    elif slot <= LAST_V4:
        values[slot, record] = load_le32(data, at)
    else:
        values[slot, record] = np.int64(load_le64(data, at))
        values[slot + 1, record] = np.int64(load_le64(data, at + 8))


@kernel
def load_fixed(data: Any, start: int, stride: int, count: int, first: int, fields: int, lengths: Any, slots: Any,
               offsets: Any, values: Any) -> None:
    """Column by column: the fields of `count` records of one length."""
    for i in range(first, first + fields):
        slot = np.int64(slots[i])
        if 0 < slot < FIRST_SECTION:
            length = lengths[i] & 0xFFFF
            at = start + offsets[i]
            for record in range(count):
                load(data, at + record * stride, slot, length, values, record)


@kernel
def load_variable(data: Any, at: int, count: int, first: int, fields: int, lengths: Any, slots: Any, values: Any) -> Any:
    """Record by record, where a field says its own length; returns the offset behind. The scan has checked the bounds."""
    for record in range(count):
        for i in range(first, first + fields):
            length = lengths[i] & 0xFFFF
            if length == VARIABLE:
                length = np.int64(data[at])
                at += 1
                if length == 255:
                    length = load_be16(data, at)
                    at += 2
            slot = np.int64(slots[i])
            if 0 < slot < FIRST_SECTION:
                load(data, at, slot, length, values, record)
            at += length
    return at


@inline_kernel
def present(values: Any, r: int, has: Any, slot: int) -> Any:
    return has[slot] and values[slot, r] != 0
