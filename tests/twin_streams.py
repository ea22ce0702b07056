"""One exporter's datagrams as several collectors see them: each loses some, its clock is off, the network shuffles a little."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from exports import (
    BASIC,
    NOW_S,
    basic,
    ethernet,
    flow_sample,
    framed,
    ipfix,
    ipv4_packet,
    raw_header,
    sflow,
    template,
    v5,
    v5_record,
    v9,
)
from journal_bodies import Datagram, body_of

from storage.journal import HEADER_SIZE, BlockHead, JournalWriter

NOW = NOW_S * 1000
STEP_MS = 7


@dataclass(frozen=True)
class Sent:
    """A datagram as it was sent: when, how many units of the sequence it is worth, the octets of its records."""

    payload: bytes
    at: int
    units: int
    records: int
    octets: int


def stream(protocol: str, sizes: Sequence[int], first: int, begin: int = NOW, uptime: int = 3_600_000,
           mark: int = 0) -> list[Sent]:
    """Datagrams of one exporter; record n of them has n + `mark` octets, so that each can be told."""
    found, sequence = [], first
    for n, size in enumerate(sizes):
        at = begin + n * STEP_MS
        octets = mark + n + 20
        seconds, up = at // 1000, uptime + n * STEP_MS
        if protocol == "v5":
            payload, worth = v5([v5_record(octets=octets)] * size, sequence=sequence, uptime=up, seconds=seconds), size
        elif protocol == "v9":
            payload, worth = v9(framed(0, template(256, BASIC)), framed(256, *[basic(octets)] * size), sequence=sequence,
                                uptime=up, seconds=seconds), 1
        elif protocol == "ipfix":
            payload, worth = ipfix(framed(2, template(256, BASIC)), framed(256, *[basic(octets)] * size), sequence=sequence,
                                   seconds=seconds), size
        else:
            sample = flow_sample(raw_header(ethernet(ipv4_packet(octets))), rate=1)
            payload, worth = sflow(*[sample] * size, sequence=sequence, uptime=up), 1
        found.append(Sent(payload, at, worth, size, octets))
        sequence = (sequence + worth) % 2**32
    return found


@dataclass(frozen=True)
class Seen:
    """What a member received: (which, arrival), in order of arrival; copies of its own are in it."""

    arrived: list[tuple[int, int]]

    @property
    def which(self) -> set[int]:
        return {n for n, _ in self.arrived}


def seen_by(sent: Sequence[Sent], source: random.Random, loss: float, ahead_ms: int, jitter_ms: int, copies: float) -> Seen:
    arrived = []
    for n, one in enumerate(sent):
        if source.random() < loss:
            continue
        for _ in range(2 if source.random() < copies else 1):
            arrived.append((one.at + source.randrange(jitter_ms + 1), n))
    return Seen([(n, at + ahead_ms) for at, n in sorted(arrived)])


def write_journal(journal: Path, name: str, sent: Sequence[Sent], seen: Seen, source: random.Random,
                  block_max: int = 40) -> None:
    """A journal whose blocks are cut anywhere."""
    writer = JournalWriter(journal, name, file_size_max=source.choice([5_000, 50_000, 1 << 20]))
    rest = list(seen.arrived)
    while rest:
        size = source.randrange(1, block_max)
        some, rest = rest[:size], rest[size:]
        body = body_of([Datagram(sent[n].payload, at) for n, at in some])
        framed_body = np.concatenate([np.zeros(HEADER_SIZE, np.uint8), body])
        writer.append(BlockHead(writer.next_block, len(some), some[0][1], max(at for _, at in some)), framed_body)
    writer.close()


def missing_of(sent: Sequence[Sent], have: set[int]) -> int:
    """Units that nobody received, between the first and the last that somebody did."""
    return sum(sent[n].units for n in range(min(have), max(have)) if n not in have)
