"""Mutated datagrams by the thousand: compiled mutators over a corpus of real and hostile ones, straight into journal bodies.

Everything follows from one seed. All compiled code that calls one another is in this file, so that numba's cache sees
every edit. Mutators know the shape of the protocols well enough to lie in the right places: lengths, counts, set ids,
template ids; most of what they make still reaches the inner loops of a decoder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from fuzz.hostile import calm
from harness import shared
from journal_bodies import ENTRY, NOW_MS, Datagram, body_of, capture_datagrams
from numba import njit
from numpy.typing import NDArray

from core.addresses import parse_address

Octets = NDArray[np.uint8]

ENTRY_SIZE = 56
BODY_SIZE_MAX = 8 << 20
PAYLOAD_MAX = 65_507
"""The largest payload of a UDP datagram over IPv4."""
SIZE_USUAL = 9_000
"""What mutators may make of a datagram, unless it is to be a giant."""
EXPORTERS = 16
GIANTS = 4096
"""One datagram of so many is blown up to any size."""


class Corpus(NamedTuple):
    """Payloads back to back."""

    octets: Octets
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]


def corpus() -> Corpus:
    """Every different payload of the captures, the shared hostile vectors and the generated ones."""
    payloads: dict[bytes, None] = {}
    for session in json.loads(shared("captures", "index.json").read_text()):
        for name in session["files"]:
            for one in capture_datagrams(shared("captures", name)):
                payloads[one.payload] = None
    for path in sorted(shared("hostile").glob("*.bin")):
        payloads[path.read_bytes()] = None
    for hostile in calm():
        payloads.update(dict.fromkeys(hostile.payloads[:2]))
    chosen = [payload for payload in payloads if 0 < len(payload) <= SIZE_USUAL]
    sizes = np.array([len(payload) for payload in chosen], np.int64)
    return Corpus(np.frombuffer(b"".join(chosen), np.uint8).copy(), np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)


@njit(cache=True)
def _next(random: Any) -> Any:
    """splitmix64."""
    random[0] += np.uint64(0x9E3779B97F4A7C15)
    z = random[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True)
def _below(random: Any, most: int) -> Any:
    """0 … most - 1; 0 if there is nothing below."""
    return np.int64(_next(random) % np.uint64(most)) if most > 0 else np.int64(0)


@njit(cache=True)
def _get16(data: Any, at: int) -> Any:
    return (np.int64(data[at]) << 8) | np.int64(data[at + 1])


@njit(cache=True)
def _put16(data: Any, at: int, value: int) -> None:
    data[at] = (value >> 8) & 255
    data[at + 1] = value & 255


@njit(cache=True)
def _interesting(random: Any, width: int) -> Any:
    """Values at which counts and lengths go wrong."""
    which = _below(random, 12)
    if which < 4:
        return _below(random, 5)
    if which < 6:
        return np.int64((1 << (8 * width)) - 1) - _below(random, 2)
    if which == 6:
        return np.int64(1) << (8 * width - 1)
    if which == 7:
        return np.int64(1 << (8 * width - 1)) - 1
    if which == 8:
        return 255 + _below(random, 3)
    if which == 9:
        return np.int64(65535)
    if which == 10:
        return np.int64(1) << _below(random, 8 * width)
    return _below(random, 4096)


@njit(cache=True)
def _place(random: Any, size: int) -> Any:
    """Somewhere, more often in the headers."""
    return _below(random, min(size, 64)) if _below(random, 2) else _below(random, size)


@njit(cache=True)
def _find_set(data: Any, size: int, random: Any) -> Any:
    """Offset of a set of a v9 or IPFIX message, of a sample of sFlow, -1 if there is none."""
    if size < 32:
        return -1
    version = _get16(data, 0)
    if version == 9 or version == 10:
        at = np.int64(20 if version == 9 else 16)
        chosen = np.int64(-1)
        seen = 0
        while size - at >= 4 and seen < 256:
            seen += 1
            if _below(random, seen) == 0:
                chosen = at
            at += max(_get16(data, at + 2), 4)
        return chosen
    if version == 0 and _get16(data, 2) == 5:
        at = np.int64(28)
        chosen = np.int64(-1)
        seen = 0
        while size - at >= 8 and seen < 256:
            seen += 1
            if _below(random, seen) == 0:
                chosen = at
            at += 8 + (_get16(data, at + 6) & ~3)
        return chosen
    return -1


@njit(cache=True)
def _insert(data: Any, size: int, at: int, source: Any, first: int, length: int, most: int) -> Any:
    """Put source[first:first + length] before `at`; the new size. `source` may be `data` itself."""
    length = min(length, most - size)
    if length <= 0:
        return size
    piece = source[first : first + length].copy()
    for i in range(size - 1, at - 1, -1):
        data[i + length] = data[i]
    data[at : at + length] = piece
    return size + length


@njit(cache=True)
def _mutate_once(data: Any, size: int, octets: Any, starts: Any, sizes: Any, random: Any) -> Any:
    """One change; the new size."""
    which = _below(random, 16)
    if size < 4:
        which = 11
    if which == 0:
        data[_place(random, size)] ^= np.uint8(1 << _below(random, 8))
    elif which == 1:
        data[_place(random, size)] = np.uint8(_below(random, 256))
    elif which == 2 or which == 3:
        at = _place(random, size - 1) & ~1
        _put16(data, at, _interesting(random, 2))
    elif which == 4:
        at = _place(random, size - 3) & ~3
        value = _interesting(random, 4)
        _put16(data, at, value >> 16)
        _put16(data, at + 2, value)
    elif which == 5:
        return _below(random, size + 1)
    elif which == 6:  # the beginning of this one, the end of another
        other = _below(random, len(starts))
        cut = _below(random, sizes[other])
        keep = _below(random, size)
        return _insert(data, keep, keep, octets, starts[other] + cut, sizes[other] - cut, SIZE_USUAL)
    elif which <= 9:
        at = _find_set(data, size, random)
        if at < 0:
            return size
        sflow = data[0] == 0 and data[1] == 0
        length_at = at + 6 if sflow else at + 2
        length = _get16(data, length_at)
        if which == 7:  # a length that lies by a little, or by a lot
            _put16(data, length_at, (length + _below(random, 17) - 8) if _below(random, 3) else _interesting(random, 2))
        elif which == 8:  # the set again
            whole = min(8 + length if sflow else max(length, 4), size - at)
            return _insert(data, size, at, data, at, whole, SIZE_USUAL)
        elif not sflow:  # another kind of set, or another template's
            _put16(data, at, _below(random, 4) if _below(random, 2) else 256 + _below(random, 8))
        else:
            data[at + 3] = np.uint8(_below(random, 6))
    elif which == 10:  # a template's id, count, or one of its fields
        at = _find_set(data, size, random)
        if at >= 0 and data[0] == 0 and data[1] >= 9 and size - at >= 12 and _get16(data, at) < 256:
            field = _below(random, 6)
            place = at + 4 + 2 * (field if field < 3 else 1 + _below(random, min((size - at - 4) // 2 - 1, 60)))
            value = _interesting(random, 2)
            if _below(random, 3) == 0:
                value = 1 + _below(random, 400)
            elif _below(random, 3) == 0:
                value = _get16(data, place) + _below(random, 5) - 2
            _put16(data, place, value)
    elif which == 11:
        return _insert(
            data,
            size,
            _below(random, size + 1),
            octets,
            _below(random, len(octets) - 64),
            1 + _below(random, 64),
            SIZE_USUAL,
        )
    elif which == 12:  # some octets less
        at = _below(random, size)
        length = min(1 + _below(random, 32), size - at)
        data[at : size - length] = data[at + length : size].copy()
        return size - length
    elif which == 13:  # a stretch of one value
        at = _below(random, size)
        length = min(1 + _below(random, 64), size - at)
        data[at : at + length] = np.uint8(_below(random, 2) * 255)
    elif which == 14:  # another domain
        at = 16 if _get16(data, 0) == 9 else 12
        if size > at + 4:
            data[at + 3] = np.uint8(_below(random, 4))
    elif _get16(data, 0) == 10:
        _put16(data, 2, size)  # so that what was done before is read
    return size


@njit(cache=True)
def _blow_up(data: Any, size: int, random: Any) -> Any:
    """Repeat the sets up to any size."""
    head = 20 if size > 20 else size // 2
    target = _below(random, PAYLOAD_MAX)
    while size < target and size > head:
        size = _insert(data, size, size, data, head, size - head, target)
    if size > 4 and _get16(data, 0) == 10:
        _put16(data, 2, size)
    return size


@njit(cache=True)
def fill_body(
    body: Any,
    count: int,
    octets: Any,
    starts: Any,
    sizes: Any,
    addresses: Any,
    received: int,
    random: Any,
    scratch: Any,
) -> Any:
    """Write entries of `count` mutated datagrams, fewer if the body is full; returns (octets used, datagrams)."""
    used = np.int64(0)
    made = np.int64(0)
    while made < count:
        chosen = _below(random, len(starts))
        size = sizes[chosen]
        scratch[:size] = octets[starts[chosen] : starts[chosen] + size]
        for _ in range(_below(random, 6)):
            size = _mutate_once(scratch, size, octets, starts, sizes, random)
        if _below(random, GIANTS) == 0:
            size = _blow_up(scratch, size, random)
        if size > 4 and _get16(scratch, 0) == 10 and _below(random, 4):
            _put16(scratch, 2, size)
        if used + ENTRY_SIZE + size + 8 > len(body):
            break
        arrived = received + made
        for i in range(8):
            body[used + i] = (arrived >> (8 * i)) & 255
        for i in range(4):
            body[used + 8 + i] = (size >> (8 * i)) & 255
        body[used + 12 : used + ENTRY_SIZE] = 0
        body[used + 16] = 17
        body[used + 17] = 4
        body[used + 18] = np.uint8(_below(random, 64) == 0)
        body[used + 24 : used + 40] = addresses[_below(random, len(addresses))]
        body[used + ENTRY_SIZE : used + ENTRY_SIZE + size] = scratch[:size]
        end = (used + ENTRY_SIZE + size + 7) & ~7
        body[used + ENTRY_SIZE + size : end] = 0
        used = end
        made += 1
    return used, made


@njit(cache=True)
def paint_gaps(body: Any, used: int, random: Any) -> None:
    """Random octets where no payload is."""
    at = np.int64(0)
    while at + ENTRY_SIZE <= used:
        size = np.int64(body[at + 8]) | np.int64(body[at + 9]) << 8 | np.int64(body[at + 10]) << 16
        end = (at + ENTRY_SIZE + size + 7) & ~7
        for i in range(at + ENTRY_SIZE + size, end):
            body[i] = np.uint8(_below(random, 256))
        at = end


class Mutator:
    """Bodies of mutated datagrams, one after the other, from a seed."""

    def __init__(self, seed: int, material: Corpus, datagrams: int = 8192, size_max: int = BODY_SIZE_MAX) -> None:
        self._random = np.array([seed], np.uint64)
        self._material = material
        self._count = datagrams
        self._scratch = np.zeros(2 * PAYLOAD_MAX, np.uint8)
        self._body = np.zeros(size_max, np.uint8)
        self._addresses = np.frombuffer(
            b"".join(parse_address(f"192.0.2.{1 + n}") for n in range(EXPORTERS)), np.uint8
        ).reshape(EXPORTERS, 16)
        self._received = NOW_MS

    def body(self) -> Octets:
        """The next one; it is overwritten by the one after it."""
        used, made = fill_body(
            self._body, self._count, *self._material, self._addresses, self._received, self._random, self._scratch
        )
        self._received += int(made) * 4
        return self._body[: int(used)]

    def draw(self, most: int) -> int:
        """A number below `most`."""
        return int(_below(self._random, most))

    def paint(self, body: Octets) -> None:
        paint_gaps(body, len(body), self._random)


def entries_of(body: Octets) -> Iterator[Datagram]:
    """The datagrams of a body."""
    data = body.tobytes()
    at = 0
    while at + ENTRY_SIZE <= len(data):
        received, size, _, _, _, _, flags, _, source, _ = ENTRY.unpack_from(data, at)
        yield Datagram(data[at + ENTRY_SIZE : at + ENTRY_SIZE + size], received, f"192.0.2.{source[-1]}", flags)
        at += ENTRY_SIZE + size + -size % 8


def minimised(datagrams: list[Datagram], fails: Any) -> list[Datagram]:
    """A small part of the datagrams, with payloads cut short, that still fails; `fails` takes a body."""
    chosen = list(datagrams)
    step = len(chosen) // 2
    while step:
        at = 0
        while at < len(chosen):
            fewer = chosen[:at] + chosen[at + step :]
            if fewer and fails(body_of(fewer)):
                chosen = fewer
            else:
                at += step
        step //= 2
    for index, one in enumerate(chosen):
        step = len(one.payload) // 2
        while step:
            shorter = one._replace(payload=one.payload[:-step])
            if fails(body_of([*chosen[:index], shorter, *chosen[index + 1 :]])):
                chosen[index] = one = shorter
            else:
                step //= 2
    return chosen


def told(datagrams: list[Datagram]) -> str:
    """Datagrams as text that can be pasted into a test."""
    return "\n".join(f"from {one.source} at {one.received}: {one.payload.hex()}" for one in datagrams)


def count_entries(body: Octets) -> int:
    return int(_count_entries(body))


@njit(cache=True)
def _count_entries(body: Any) -> Any:
    at = np.int64(0)
    count = np.int64(0)
    while at + ENTRY_SIZE <= len(body):
        size = np.int64(body[at + 8]) | np.int64(body[at + 9]) << 8 | np.int64(body[at + 10]) << 16
        at = (at + ENTRY_SIZE + size + 7) & ~7
        count += 1
    return count
