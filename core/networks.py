"""Networks by number: IPv4 /24 and IPv6 /48, as 64-bit numbers that arrays hold; and sets of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from core.addresses import IPV4_MAPPED, Prefix, format_prefix, parse_prefix

IPV4 = 1 << 48
"""A network's number: the first 48 bits of an IPv6 address, or this plus the first 24 of an IPv4 one."""

PRIVATE = tuple(parse_prefix(text) for text in (
    "10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"))

_MAPPED = Prefix(IPV4_MAPPED + bytes(4), 96)


def words_of(addresses: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Addresses, (n, 16) octets, as their first and last 64 bits."""
    words = np.ascontiguousarray(addresses).view(">u8").astype(np.uint64)
    return np.ascontiguousarray(words[:, 0]), np.ascontiguousarray(words[:, 1])


def addresses_of(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """The inverse of `words_of`."""
    return np.ascontiguousarray(np.stack([high, low], axis=1).astype(">u8")).view(np.uint8).reshape(-1, 16)


def numbers_of_words(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The number of the /24 or /48 of addresses."""
    mapped = (high == 0) & (low >> np.uint64(32) == 0xFFFF)
    ipv4 = (low >> np.uint64(8) & np.uint64(0xFFFFFF)) + np.uint64(IPV4)
    return np.where(mapped, ipv4, high >> np.uint64(16)).astype(np.int64)


def network_numbers(addresses: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The same of addresses as (n, 16) octets."""
    return numbers_of_words(*words_of(addresses))


def network_text(number: int) -> str:
    if number >= IPV4:
        return format_prefix(Prefix(IPV4_MAPPED + (number - IPV4).to_bytes(3, "big") + b"\0", 96 + 24))
    return format_prefix(Prefix(number.to_bytes(6, "big") + bytes(10), 48))


class Ranges:
    """Networks that prefixes touch, as disjoint ranges of numbers, both ends inclusive."""

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        ends: list[int] = []
        for prefix in prefixes:
            first, last = prefix.first, prefix.last
            if prefix.length >= 96 and prefix.address[:12] == IPV4_MAPPED:
                ends += [IPV4 + (first >> 8 & 0xFFFFFF), IPV4 + (last >> 8 & 0xFFFFFF)]
                continue
            ends += [first >> 80, last >> 80]
            if first <= _MAPPED.first <= last:  # it holds all of IPv4 as well
                ends += [IPV4, IPV4 + 0xFFFFFF]
        self._first, self._last = _disjoint(np.array(ends, np.int64).reshape(-1, 2))

    @classmethod
    def from_bytes(cls, data: bytes) -> Ranges:
        """What `to_bytes` gave."""
        made = cls(())
        both = np.frombuffer(data, "<i8").astype(np.int64).reshape(-1, 2)
        made._first, made._last = np.ascontiguousarray(both[:, 0]), np.ascontiguousarray(both[:, 1])
        return made

    def to_bytes(self) -> bytes:
        return np.stack([self._first, self._last], axis=1).astype("<i8").tobytes()

    def united(self, other: Ranges) -> Ranges:
        """The networks of both."""
        made = Ranges(())
        made._first, made._last = _disjoint(np.concatenate([
            np.stack([ranges._first, ranges._last], axis=1) for ranges in (self, other)]))
        return made

    def holds(self, networks: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of these numbers is among them."""
        if not len(self._first):
            return np.zeros(len(networks), np.bool_)
        at = np.searchsorted(self._first, networks, "right") - 1
        inside: NDArray[np.bool_] = (at >= 0) & (self._last[np.maximum(at, 0)] >= networks)
        return inside

    def hold_all_of(self, other: Ranges) -> bool:
        """Whether every network of the other set is among these."""
        if not len(other._first):
            return True
        if not len(self._first):
            return False
        at = np.searchsorted(self._first, other._first, "right") - 1
        return bool(((at >= 0) & (self._last[np.maximum(at, 0)] >= other._last)).all())


def _disjoint(numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ranges in any order → in order, those that touch or overlap united."""
    if not len(numbers):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    numbers = numbers[np.argsort(numbers[:, 0], kind="stable")]
    reached = np.maximum.accumulate(numbers[:, 1])
    begins = np.ones(len(numbers), np.bool_)
    begins[1:] = numbers[1:, 0] > reached[:-1] + 1
    at = np.flatnonzero(begins)
    return np.ascontiguousarray(numbers[at, 0]), np.ascontiguousarray(reached[np.append(at[1:], len(numbers)) - 1])
