"""The demo town's traffic: one simulated month of flows for each of its four routers, the same for the same seed.

Reads the town's subscribers.csv and leases.csv; makes columns as `core.schemas.FLOWS` names them (addresses as (n, 16)
uint8, instants as int64 ms), in the order in which a router would export them.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core import periods
from core.addresses import parse_address, parse_prefix, parse_protocol

Columns = dict[str, NDArray[Any]]

PERIOD = "2026-10"
ZONE = "Europe/Berlin"
ACTIVE_TIMEOUT_MS = 300_000
HOUR_WEIGHTS = np.array([4, 2, 1, 1, 1, 1, 2, 4, 6, 6, 6, 7, 7, 7, 7, 8, 9, 10, 12, 14, 15, 14, 11, 7], np.float64)
INTERNET_PREFIXES = ("93.184.0.0/16", "151.101.0.0/16", "17.5.0.0/16", "45.60.0.0/16")
PEERING_PREFIX = "198.51.100.0/24"
INTERNET_PREFIX_V6 = "2a00:1450::/32"
INFRASTRUCTURE_ADDRESS = "203.0.113.1"
STRANGER_PREFIX = "10.99.0.0/16"
HOMES_PREFIX = "10.1.0.0/16"
SERVER_PORTS = np.array([443, 443, 443, 80, 8080, 53, 993, 3478], np.uint16)


@dataclass(frozen=True)
class Router:
    """One exporter of the town: its address on the loopback network, what it speaks and whose traffic crosses it."""

    name: str
    address: str
    protocol: str
    flows: int
    plans: tuple[str, ...]
    realm: str = ""
    sampling: int = 1
    ipv6: bool = False


ROUTERS = (
    Router("edge-1", "127.0.0.11", "v5", 60_000, ("home-flat", "home-package")),
    Router("edge-2", "127.0.0.12", "v9", 80_000, ("home-daily", "home-package", "home-flat"), ipv6=True),
    Router("edge-3", "127.0.0.13", "ipfix", 80_000, ("business-95", "home-flat"), ipv6=True),
    Router("town-b", "127.0.0.14", "sflow", 20_000, ("home-daily", "home-flat"), realm="town-b", sampling=100),
)


@dataclass(frozen=True)
class Lease:
    realm: str
    address: bytes
    host_bits: int
    is_ipv6: bool
    protocol: int | None
    port_first: int
    port_last: int
    start: int
    end: int
    plan: str
    shared: bool


def read_town(folder: Path) -> list[Lease]:
    """The leases as far as their service is under contract in the month."""
    month_start, month_end = periods.period_bounds(PERIOD, ZONE)
    contracts: dict[str, list[tuple[int, int, str]]] = {}
    with (folder / "subscribers.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            start = periods.local_day_start(date.fromisoformat(row["start"]), row["timezone"])
            end = periods.local_day_start(date.fromisoformat(row["end"]), row["timezone"]) if row["end"] else month_end
            contracts.setdefault(row["service"], []).append((start, end, row["plan"]))
    leases = []
    with (folder / "leases.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows = contracts[row["service"]]
            start = max(periods.parse_instant(row["start"]), min(r[0] for r in rows), month_start)
            end = min(
                periods.parse_instant(row["end"]) if row["end"] else month_end, max(r[1] for r in rows), month_end
            )
            if start < end:
                leases.append(_lease(row, start, end, rows[0][2]))
    return leases


def _lease(row: dict[str, str], start: int, end: int, plan: str) -> Lease:
    prefix = parse_prefix(row["address"])
    return Lease(
        row["realm"],
        prefix.address,
        128 - prefix.length,
        ":" in row["address"],
        parse_protocol(row["protocol"]) if row["protocol"] else None,
        int(row["port_first"] or 0),
        int(row["port_last"] or 0),
        start,
        end,
        plan,
        bool(row["port_first"]),
    )


def make_flows(router: Router, leases: list[Lease], seed: int) -> Columns:
    """A month of flows through one router: subscribers' traffic, some of it to each other, some of nobody."""
    rng = np.random.default_rng([seed, ROUTERS.index(router)])
    chosen = _leases_of(router, leases)
    assert chosen, f"no lease crosses {router.name}"
    near = rng.integers(0, len(chosen), router.flows)
    columns = _times_and_volumes(router, chosen, near, rng)
    near_address, near_port = _near_end(chosen, near, rng)
    far_address, far_port = _far_end(router, leases, chosen, near, columns, rng)
    _some_of_nobody(router, chosen, near, near_address, rng)
    _orient(columns, near_address, near_port, far_address, far_port, rng)
    columns = _as_exported(columns)
    order = np.argsort(columns["end"], kind="stable")
    return {name: np.ascontiguousarray(values[order]) for name, values in columns.items()}


def _as_exported(columns: Columns) -> Columns:
    """What a router makes of flows that last: a record each time its active timeout is over, octets in equal parts."""
    duration = columns["end"] - columns["start"]
    parts = np.maximum(1, -(-duration // ACTIVE_TIMEOUT_MS))
    flow = np.repeat(np.arange(parts.size), parts)
    number = np.arange(flow.size) - np.repeat(np.cumsum(parts) - parts, parts)
    exported = {name: values[flow] for name, values in columns.items()}
    exported["start"] = columns["start"][flow] + number * ACTIVE_TIMEOUT_MS
    exported["end"] = np.minimum(columns["end"][flow], exported["start"] + ACTIVE_TIMEOUT_MS)
    for name in ("octets", "packets"):
        whole = columns[name][flow].astype(np.int64)
        exported[name] = whole * (number + 1) // parts[flow] - whole * number // parts[flow]
    exported["packets"] = np.maximum(exported["packets"], 1)
    return exported


def _leases_of(router: Router, leases: list[Lease]) -> list[Lease]:
    shared_here = router.protocol == "ipfix"
    return [
        lease
        for lease in leases
        if lease.realm == router.realm
        and lease.plan in router.plans
        and (lease.shared == shared_here or lease.plan == "business-95")
        and (router.ipv6 or not lease.is_ipv6)
    ]


def _times_and_volumes(
    router: Router, chosen: list[Lease], near: NDArray[np.int64], rng: np.random.Generator
) -> Columns:
    count = near.size
    start_of, end_of = (
        np.array([getattr(lease, name) for lease in chosen], np.int64)[near] for name in ("start", "end")
    )
    start = start_of + (rng.random(count) * (end_of - start_of)).astype(np.int64)
    # More traffic in the evening: a flow in a quiet hour moves to a busy one of the same day with this chance.
    hour = ((start // periods.HOUR_MS) + 2) % 24
    move = rng.random(count) > HOUR_WEIGHTS[hour] / HOUR_WEIGHTS.max()
    busy = rng.choice(24, count, p=HOUR_WEIGHTS / HOUR_WEIGHTS.sum())
    start = np.where(move, start + (busy - hour) * periods.HOUR_MS, start)
    business = np.array([lease.plan == "business-95" for lease in chosen])[near]
    minutes = np.where(business, 24.0, 1.5)
    duration = np.minimum(rng.exponential(minutes) * periods.MINUTE_MS, 30 * periods.MINUTE_MS).astype(np.int64)
    latest = end_of - 1 - duration
    start = np.clip(start, start_of, np.maximum(latest, start_of))
    end = np.minimum(start + duration, _contract_end(chosen, near))
    octets = np.where(business, rng.lognormal(20.5, 0.9, count), rng.lognormal(16.0, 1.6, count)).astype(np.int64)
    octets = np.clip(octets, 40, 4_000_000_000)
    packets = np.maximum(octets // 900, 1)
    if router.protocol == "sflow":  # a sample is one packet at one instant
        octets, packets, end = 40 + octets % 1461, np.ones(count, np.int64), start.copy()
    return {
        "start": start,
        "end": end,
        "octets": octets,
        "packets": packets,
        "protocol": np.where(rng.random(count) < 0.7, 6, 17).astype(np.uint8),
    }


def _contract_end(chosen: list[Lease], near: NDArray[np.int64]) -> NDArray[np.int64]:
    """Flows run on over a change of hands (that is the point of them), but not over the end of the month."""
    month_end = periods.period_bounds(PERIOD, ZONE)[1]
    handed_over = np.array(
        [month_end - 1 if lease.plan == "home-daily" else lease.end - 1 for lease in chosen], np.int64
    )
    return handed_over[near]


def _near_end(
    chosen: list[Lease], near: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    address = np.frombuffer(b"".join(lease.address for lease in chosen), np.uint8).reshape(-1, 16)[near].copy()
    host_bits = np.array([min(lease.host_bits, 8) for lease in chosen])[near]
    address[:, 15] |= (rng.integers(0, 256, near.size) & ((1 << host_bits) - 1)).astype(np.uint8)
    first, last = (
        np.array([getattr(lease, name) for lease in chosen], np.int64)[near] for name in ("port_first", "port_last")
    )
    free = rng.integers(32_768, 61_000, near.size)
    in_block = first + (rng.random(near.size) * (last - first + 1)).astype(np.int64)
    return address, np.where(last > 0, in_block, free).astype(np.uint16)


def _far_end(
    router: Router,
    leases: list[Lease],
    chosen: list[Lease],
    near: NDArray[np.int64],
    columns: Columns,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    count = near.size
    ipv6 = np.array([lease.is_ipv6 for lease in chosen])[near]
    bases = np.frombuffer(
        b"".join(parse_prefix(text).address for text in (*INTERNET_PREFIXES, PEERING_PREFIX)), np.uint8
    ).reshape(-1, 16)
    peering = rng.random(count) < 0.15
    pick = np.where(peering, len(bases) - 1, rng.integers(0, len(bases) - 1, count))
    address = bases[pick].copy()
    address[:, 14] = np.where(peering, address[:, 14], rng.integers(0, 256, count))
    address[:, 15] = rng.integers(1, 255, count)
    v6 = np.frombuffer(parse_prefix(INTERNET_PREFIX_V6).address, np.uint8)
    address[ipv6] = v6
    address[ipv6, 15] = rng.integers(1, 255, int(ipv6.sum()))
    # Some traffic stays in the house: the far end is a subscriber with an address of their own.
    month = periods.period_bounds(PERIOD, ZONE)
    own = [
        lease
        for lease in leases
        if lease.realm == router.realm
        and not lease.is_ipv6
        and lease.host_bits == 0
        and not lease.shared
        and lease.start == month[0]
        and lease.end == month[1]
    ]
    on_net = (rng.random(count) < 0.03) & ~ipv6
    homes = np.frombuffer(b"".join(lease.address for lease in own), np.uint8).reshape(-1, 16)
    address[on_net] = homes[rng.integers(0, len(own), int(on_net.sum()))]
    port = SERVER_PORTS[rng.integers(0, SERVER_PORTS.size, count)]
    return address, port


def _some_of_nobody(
    router: Router,
    chosen: list[Lease],
    near: NDArray[np.int64],
    near_address: NDArray[np.uint8],
    rng: np.random.Generator,
) -> None:
    """A little traffic of the provider's own and of addresses that belong to nobody."""
    ipv6 = np.array([lease.is_ipv6 for lease in chosen])[near]
    draw = rng.random(near.size)
    near_address[(draw < 0.01) & ~ipv6] = np.frombuffer(parse_address(INFRASTRUCTURE_ADDRESS), np.uint8)
    strangers = (draw > 0.995) & ~ipv6
    near_address[strangers] = np.frombuffer(parse_prefix(STRANGER_PREFIX).address, np.uint8)
    near_address[strangers, 15] = rng.integers(1, 255, int(strangers.sum()))


def _orient(
    columns: Columns,
    near_address: NDArray[np.uint8],
    near_port: NDArray[np.uint16],
    far_address: NDArray[np.uint8],
    far_port: NDArray[np.uint16],
    rng: np.random.Generator,
) -> None:
    """Four flows in five come down to the subscriber; the rest goes up, and is a tenth of the size."""
    up = rng.random(near_port.size) < 0.2
    small = np.where(up, np.maximum(columns["octets"].astype(np.int64) // 10, 40), columns["octets"])
    columns["octets"] = np.where(columns["packets"] == 1, columns["octets"], small).astype(np.int64)
    columns["source_address"] = np.where(up[:, None], near_address, far_address)
    columns["destination_address"] = np.where(up[:, None], far_address, near_address)
    columns["source_port"] = np.where(up, near_port, far_port).astype(np.uint16)
    columns["destination_port"] = np.where(up, far_port, near_port).astype(np.uint16)
    columns["input_interface"] = np.where(up, 10, 1).astype(np.uint32)
    columns["output_interface"] = np.where(up, 1, 10).astype(np.uint32)
    columns["tcp_flags"] = np.where(columns["protocol"] == 6, 0x1B, 0).astype(np.uint16)
    columns["tos"] = np.zeros(up.size, np.uint8)
