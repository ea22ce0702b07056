"""The way of datagrams to the collector: lost, duplicated and reordered on purpose, paced by what was received."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from core import clock
from core.errors import DependencyDown

WINDOW = 256
"""Datagrams that may be on the way when the sender is paced by the receiver: far less than a socket's buffer holds."""
STALL_SECONDS_MAX = 20
COPY_LATER = 3
"""A copy comes this many datagrams after its original."""

Address = tuple[str, int]


class Fate(Enum):
    PLAIN = 0
    LOST = 1
    DUPLICATED = 2
    OVERTAKEN = 3  # the next one arrives before it


@dataclass(frozen=True)
class Plan:
    """What is to arrive, as indexes of the datagrams in the order of arrival."""

    order: list[int]
    fates: list[Fate]


def plan(count: int, loss: float, duplicate: float, reorder: float, seed: int) -> Plan:
    """Decide every datagram's fate. The first and the last ones arrive plainly: nobody could miss the last one."""
    draw = np.random.default_rng(seed).random(count)
    fates = [Fate.PLAIN] * count
    index = 2
    while index < count - 2:
        if draw[index] < loss:
            fates[index] = Fate.LOST
        elif draw[index] < loss + duplicate:
            fates[index] = Fate.DUPLICATED
        elif draw[index] < loss + duplicate + reorder:
            fates[index] = Fate.OVERTAKEN
            index += 1  # the one that overtakes has no fate of its own
        index += 1
    return Plan(_order(fates), fates)


def _order(fates: Sequence[Fate]) -> list[int]:
    order: list[int] = []
    copies: list[tuple[int, int]] = []  # (when, which)
    index = 0
    while index < len(fates):
        if fates[index] is Fate.OVERTAKEN:
            order += [index + 1, index]
            index += 1
        elif fates[index] is not Fate.LOST:
            order.append(index)
            if fates[index] is Fate.DUPLICATED:
                copies.append((index + COPY_LATER, index))
        while copies and copies[0][0] <= index:
            order.append(copies.pop(0)[1])
        index += 1
    return order + [which for _, which in copies]


def transmit(payloads: Sequence[bytes], to: Address, source: Address | None = None, rate: int = 0,
             received: Callable[[], int] | None = None, progress: Callable[[int], None] | None = None) -> None:  # fmt: skip
    """Send datagrams over UDP: `rate` a second (0: as fast as may be), never more than WINDOW ahead of `received()`.

    Raises DependencyDown when the receiver has not moved for STALL_SECONDS_MAX.
    """
    family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        if source is not None:
            sender.bind(source)
        sender.connect(to)
        begun, base = clock.monotonic_ns(), received() if received else 0
        for first in range(0, len(payloads), WINDOW // 4):
            batch = payloads[first : first + WINDOW // 4]
            if received is not None:
                _wait_for(received, base + first + len(batch) - WINDOW, to)
            for payload in batch:
                sender.send(payload)
            if rate:
                ahead = (first + len(batch)) / rate - (clock.monotonic_ns() - begun) / 1e9
                if ahead > 0:
                    clock.sleep(ahead)
            if progress is not None:
                progress(len(batch))
        if received is not None:
            _wait_for(received, base + len(payloads), to)


def _wait_for(received: Callable[[], int], wanted: int, to: Address) -> None:
    moved, seen = clock.monotonic_ns(), -1
    while (now := received()) < wanted:
        if now != seen:
            moved, seen = clock.monotonic_ns(), now
        if clock.monotonic_ns() - moved > STALL_SECONDS_MAX * 1_000_000_000:
            raise DependencyDown(f"the collector at {to[0]}:{to[1]} has received {now} datagrams and stands still",
                                 "look at `ratemill collect status`: it may be stopped or its socket may drop")  # fmt: skip
        clock.sleep(0.002)
