"""Sends flows to a collector as a router would, and says in a manifest what was sent and what was lost on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collector.exporter import encoding, wire
from collector.exporter.manifest import Manifest
from core import clock
from core.addresses import parse_prefix
from core.periods import DAY_MS, MINUTE_MS

UPTIME_MS = 20 * DAY_MS
DEFAULT_DOMAIN = 0


@dataclass(frozen=True)
class Faults:
    """What is done to the datagrams on purpose: probabilities of each."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0


@dataclass(frozen=True)
class Sent:
    """The manifest, and which of the flows (rows of the columns) were in datagrams that arrived."""

    manifest: Manifest
    delivered: NDArray[np.bool_]


def send(columns: encoding.Columns, protocol: str, to: wire.Address, *, settings: encoding.Settings | None = None,
         source: str | None = None, faults: Faults | None = None, seed: int = 0, rate: int = 0,
         received: Callable[[], int] | None = None, progress: Callable[[int], None] | None = None) -> Sent:  # fmt: skip
    """Encode and send flows from the address `source` (a loopback address of its own makes an exporter of its own)."""
    own = settings or encoding.Settings(domain=DEFAULT_DOMAIN, boot_ms=_boot(columns))
    datagrams = encoding.encode(columns, protocol, own)
    faults = faults or Faults()
    plan = wire.plan(len(datagrams), faults.loss, faults.duplicate, faults.reorder, seed)
    payloads = [datagrams[index].payload for index in plan.order]
    wire.transmit(payloads, to, (source, 0) if source else None, rate, received, progress)
    delivered = np.ones(len(columns["start"]), np.bool_)
    lost = [datagram for datagram, fate in zip(datagrams, plan.fates, strict=True) if fate is wire.Fate.LOST]
    for datagram in lost:
        delivered[datagram.rows] = False
    return Sent(_manifest(source or "", protocol, own.domain, datagrams, lost, plan), delivered)


def _boot(columns: encoding.Columns) -> int:
    return int(columns["start"].min()) - UPTIME_MS


def _manifest(exporter: str, protocol: str, domain: int, datagrams: list[encoding.Datagram], lost: list[encoding.Datagram],
              plan: wire.Plan) -> Manifest:  # fmt: skip
    return Manifest(
        exporter=exporter,
        protocol=protocol,
        domain=domain,
        sent_datagrams=len(datagrams),
        sent_records=sum(datagram.rows.size for datagram in datagrams),
        sent_octets=sum(datagram.octets for datagram in datagrams),
        lost_datagrams=len(lost),
        lost_records=sum(datagram.rows.size for datagram in lost),
        lost_octets=sum(datagram.octets for datagram in lost),
        duplicated_datagrams=plan.fates.count(wire.Fate.DUPLICATED),
        reordered_datagrams=plan.fates.count(wire.Fate.OVERTAKEN),
        on_the_wire=len(plan.order),
        missing=sum(datagram.units for datagram in lost),
    )


def random_flows(count: int, seed: int, protocol: str) -> encoding.Columns:
    """Flows of the last hour between random addresses, the same for the same seed and hour; ordered by end."""
    rng = np.random.default_rng(seed)
    now = clock.now_ms() // MINUTE_MS * MINUTE_MS
    end = np.sort(now - rng.integers(0, 30 * MINUTE_MS, count))
    octets = rng.integers(40, 1500, count) if protocol == "sflow" else rng.lognormal(9, 2, count).astype(np.int64) + 40
    inside = np.frombuffer(parse_prefix("10.0.0.0/8").address, np.uint8)
    outside = np.frombuffer(parse_prefix("198.18.0.0/15").address, np.uint8)
    source, destination = np.tile(outside, (count, 1)), np.tile(inside, (count, 1))
    source[:, 14:] = rng.integers(0, 256, (count, 2))
    destination[:, 13:] = rng.integers(0, 256, (count, 3))
    duration = np.zeros(count, np.int64) if protocol == "sflow" else rng.integers(0, 5 * MINUTE_MS, count)
    return {
        "start": end - duration,
        "end": end,
        "octets": octets,
        "packets": np.ones(count, np.int64) if protocol == "sflow" else octets // 700 + 1,
        "source_address": source,
        "destination_address": destination,
        "source_port": rng.choice(np.array([80, 443, 53, 8080], np.uint16), count),
        "destination_port": rng.integers(1024, 65_535, count).astype(np.uint16),
        "protocol": rng.choice(np.array([6, 17], np.uint8), count),
        "tos": np.zeros(count, np.uint8),
        "tcp_flags": np.full(count, 0x1B, np.uint16),
        "input_interface": np.full(count, 1, np.uint32),
        "output_interface": np.full(count, 10, np.uint32),
    }
