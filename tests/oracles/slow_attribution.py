"""Whose address is it? The plain definition, instant by instant; shares no code with the product."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from itertools import pairwise

PORT_PROTOCOLS = {6, 17, 33, 132, 136}


@dataclass(frozen=True)
class Lease:
    realm: str
    network: str
    protocol: int | None
    ports: tuple[int, int] | None
    start: int
    end: int
    service: int


@dataclass(frozen=True)
class Realm:
    name: str
    exporter: str
    interfaces: tuple[int, ...]


@dataclass(frozen=True)
class Cut:
    exporter: str
    interfaces: tuple[int, ...]
    direction: str


@dataclass(frozen=True)
class Flow:
    exporter: str
    source: str
    destination: str
    source_port: int
    destination_port: int
    protocol: int
    start: int
    end: int
    input: int
    output: int
    direction: int  # 0 ingress, 1 egress, 255 unknown


def realm_of(flow: Flow, realms: list[Realm]) -> str:
    """Input interface before output interface before the whole router."""
    own = [realm for realm in realms if realm.exporter == flow.exporter]
    for wanted in (flow.input, flow.output):
        for realm in own:
            if wanted in realm.interfaces:
                return realm.name
    return next((realm.name for realm in own if not realm.interfaces), "")


def in_cut(flow: Flow, cuts: list[Cut]) -> bool:
    for cut in cuts:
        if cut.exporter != flow.exporter:
            continue
        inside = not cut.interfaces or flow.input in cut.interfaces
        outside = not cut.interfaces or flow.output in cut.interfaces
        if cut.direction == "both" and (inside or outside):
            return True
        if cut.direction == "ingress" and inside and flow.direction != 1:
            return True
        if cut.direction == "egress" and outside and flow.direction != 0:
            return True
    return not cuts


def owner(leases: list[Lease], realm: str, address: str, protocol: int, port: int, instant: int) -> int | None:
    """The service with the longest matching prefix at an instant."""
    best: tuple[int, int] | None = None
    for lease in leases:
        network = ipaddress.ip_network(lease.network)
        if (
            lease.realm != realm
            or not lease.start <= instant < lease.end
            or ipaddress.ip_address(address) not in network
        ):
            continue
        if lease.protocol is not None and lease.protocol != protocol:
            continue
        if lease.ports and (
            protocol not in PORT_PROTOCOLS or port == 0 or not lease.ports[0] <= port <= lease.ports[1]
        ):
            continue
        if best is None or network.prefixlen > best[0]:
            best = network.prefixlen, lease.service
    return best[1] if best else None


def pieces(
    leases: list[Lease], realm: str, address: str, protocol: int, port: int, start: int, end: int
) -> list[tuple[int, int, int]]:
    """The owned pieces of one end of a flow: (from, to, service), neighbours of one owner joined."""
    edges = sorted({start, max(end, start + 1)} | {e for x in leases for e in (x.start, x.end) if start < e < end})
    found: list[tuple[int, int, int]] = []
    for first, last in pairwise(edges):
        service = owner(leases, realm, address, protocol, port, first)
        if service is None:
            continue
        if found and found[-1][1] == first and found[-1][2] == service:
            found[-1] = (found[-1][0], last, service)
        else:
            found.append((first, last, service))
    return [(first, min(last, end), service) for first, last, service in found]


def status(leases: list[Lease], own_prefixes: list[str], realm: str, address: str, protocol: int, port: int,
           start: int, end: int) -> str:  # fmt: skip
    """service, infrastructure, no_port or unknown."""
    if pieces(leases, realm, address, protocol, port, start, end):
        return "service"
    if any(ipaddress.ip_address(address) in ipaddress.ip_network(prefix) for prefix in own_prefixes):
        return "infrastructure"
    shared = any(
        lease.realm == realm
        and lease.ports
        and lease.start <= end
        and lease.end > start
        and ipaddress.ip_address(address) in ipaddress.ip_network(lease.network)
        for lease in leases
    )
    without_port = protocol not in PORT_PROTOCOLS or port == 0
    return "no_port" if shared and without_port else "unknown"
