"""Usage the slow way: every flow end is cut at every UTC minute and every edge, and each part is looked up by itself.

Shares no code with the product. Since F(t) = floor(count * (t - start) / duration) is cumulative, parts cut finer than need
be add up to the same numbers. Zones and offsets from UTC must change at whole minutes.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from zoneinfo import ZoneInfo

MINUTE = 60_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PORT_PROTOCOLS = {6, 17, 33, 132, 136}


@dataclass(frozen=True)
class Flow:
    start: int
    end: int
    source: str
    destination: str
    octets: int
    packets: int = 1
    exporter: str = "192.0.2.1"
    source_port: int = 1000
    destination_port: int = 2000
    protocol: int = 6
    numerator: int = 1
    denominator: int = 1
    quarantined: bool = False
    input_interface: int = 1


@dataclass(frozen=True)
class Lease:
    address: str  # or a prefix
    start: int
    end: int
    service: str
    realm: str = ""
    ports: tuple[int, int] | None = None


@dataclass(frozen=True)
class Subscription:
    service: str
    start: int
    end: int
    timezone: str
    plan: str | None = None


@dataclass(frozen=True)
class Zone:
    name: str
    days: tuple[int, ...]  # Monday is 0
    start: int  # minute of the local day
    end: int  # greater than start


@dataclass(frozen=True)
class Calendar:
    zones: tuple[Zone, ...]
    default: str
    holiday: str | None = None
    holidays: tuple[date, ...] = ()


@dataclass
class World:
    leases: list[Lease] = field(default_factory=list)
    subscriptions: list[Subscription] = field(default_factory=list)
    plans: dict[str, tuple[str | None, bool]] = field(default_factory=dict)  # name → calendar, needs 5 minutes
    calendars: dict[str, Calendar] = field(default_factory=dict)
    classes: list[tuple[str, int, list[str]]] = field(default_factory=list)  # name, priority, prefixes
    infrastructure: list[str] = field(default_factory=list)
    realms: dict[str, str] = field(default_factory=dict)  # exporter → realm
    cut: set[str] | None = None  # exporters that bill; None: all
    seller_zone: str = "UTC"


@dataclass
class Expected:
    hours: dict[tuple[object, ...], list[int]] = field(default_factory=dict)
    slots: dict[tuple[object, ...], list[int]] = field(default_factory=dict)
    five_minutes: Counter[tuple[object, ...]] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    on_net: int = 0
    flows: int = 0
    periods: Counter[str] = field(default_factory=Counter)


def usage(world: World, flows: list[Flow]) -> Expected:
    expected = Expected()
    for flow in flows:
        octets = math.floor(Fraction(flow.octets * flow.numerator, flow.denominator))
        packets = math.floor(Fraction(flow.packets * flow.numerator, flow.denominator))
        expected.flows += octets
        edges = _edges(world, flow)
        ends = []
        for address, port in ((flow.source, flow.source_port), (flow.destination, flow.destination_port)):
            ends.append([_owner(world, flow, address, port, instant) for instant in edges[:-1]])
        if world.cut is not None and flow.exporter not in world.cut:
            expected.outcomes["audit_only"] += octets
        elif flow.quarantined:
            expected.outcomes["quarantined"] += octets
        elif not any(owner for owners in ends for owner in owners):
            expected.outcomes[_fate(world, flow, edges)] += octets
        else:
            _count(world, flow, octets, packets, edges, ends, expected)
    return expected


def _count(world: World, flow: Flow, octets: int, packets: int, edges: list[int], ends: list[list[str | None]],
           expected: Expected) -> None:
    sides = [side for side in (0, 1) if any(ends[side])]
    for side in sides:
        if len(sides) == 2 and side == 1:
            expected.on_net += octets
        far = flow.destination if side == 0 else flow.source
        for index, owner in enumerate(ends[side]):
            a, b = edges[index], edges[index + 1]
            some, few = _part(octets, flow, a, b), _part(packets, flow, a, b)
            begins = int(a == flow.start)
            if owner is None:
                expected.outcomes["stranger"] += some
                continue
            expected.outcomes["attributed"] += some
            _book(world, owner, a, _class(world, far), ("up", "down")[side], flow.numerator > flow.denominator,
                  [some, few, begins], expected)


def _book(world: World, service: str, instant: int, traffic_class: str, direction: str, sampled: bool, counts: list[int],
          expected: Expected) -> None:
    subscription = next((s for s in world.subscriptions if s.service == service and s.start <= instant < s.end), None)
    timezone = subscription.timezone if subscription else _nearest_zone(world, service, instant)
    calendar, five = world.plans.get(subscription.plan or "", (None, False)) if subscription else (None, False)
    local = _local(instant // MINUTE, timezone)
    period = f"{local.year:04d}-{local.month:02d}"
    expected.periods[period] += counts[0]
    if not any(counts):
        return
    zone = None if calendar is None else _zone(world.calendars[calendar], local)
    hour = instant - local.minute * MINUTE - instant % MINUTE
    step = 5 if five else 15
    slot = instant // (step * MINUTE) * (step * MINUTE)
    for table, when in ((expected.hours, hour), (expected.slots, slot)):
        row = table.setdefault((period, service, when, zone, traffic_class, direction, sampled), [0, 0, 0])
        for index in range(3):
            row[index] += counts[index]
    if five:
        expected.five_minutes[period, service, slot, direction, sampled] += counts[0]


def _part(count: int, flow: Flow, a: int, b: int) -> int:
    if flow.end == flow.start:
        return count

    def cumulated(instant: int) -> int:
        return math.floor(Fraction(count) * Fraction(instant - flow.start, flow.end - flow.start))

    return cumulated(b) - cumulated(a)


def _edges(world: World, flow: Flow) -> list[int]:
    """Instants at which to cut, the flow's start and end included; both of them even if they are one."""
    inner = set(range((flow.start // MINUTE + 1) * MINUTE, flow.end, MINUTE))
    for thing in [*world.leases, *world.subscriptions]:
        inner |= {edge for edge in (thing.start, thing.end) if flow.start < edge < flow.end}
    return [flow.start, *sorted(inner), flow.end]


def _owner(world: World, flow: Flow, address: str, port: int, instant: int) -> str | None:
    found = [(network.prefixlen, lease.service) for lease, network in _matching(world, flow, address, instant)
             if lease.ports is None or (flow.protocol in PORT_PROTOCOLS and port and lease.ports[0] <= port <= lease.ports[1])]
    return max(found)[1] if found else None


def _matching(world: World, flow: Flow, address: str, instant: int) -> list[tuple[Lease, ipaddress._BaseNetwork]]:
    realm = world.realms.get(flow.exporter, "")
    return [(lease, _network(lease.address)) for lease in world.leases
            if lease.realm == realm and lease.start <= instant < lease.end and _holds(lease.address, address)]


def _fate(world: World, flow: Flow, edges: list[int]) -> str:
    if any(_holds(prefix, address) for prefix in world.infrastructure for address in (flow.source, flow.destination)):
        return "infrastructure"
    for address, port in ((flow.source, flow.source_port), (flow.destination, flow.destination_port)):
        shared = any(lease.ports for instant in edges[:-1] for lease, _ in _matching(world, flow, address, instant))
        if shared and (port == 0 or flow.protocol not in PORT_PROTOCOLS):
            return "no_port"
    return "stranger"


def _class(world: World, address: str) -> str:
    found = [(priority, _network(prefix).prefixlen, name) for name, priority, prefixes in world.classes
             for prefix in prefixes if _holds(prefix, address)]
    return max(found)[2] if found else "default"


def _nearest_zone(world: World, service: str, instant: int) -> str:
    rows = [s for s in world.subscriptions if s.service == service]
    distances = [(s.start - instant if instant < s.start else instant - s.end, s.start, s.timezone) for s in rows]
    return min(distances)[2] if distances else world.seller_zone


def _zone(calendar: Calendar, local: datetime) -> str:
    if calendar.holiday is not None and local.date() in calendar.holidays:
        return calendar.holiday
    minute = local.hour * 60 + local.minute
    return next((zone.name for zone in calendar.zones if local.weekday() in zone.days and zone.start <= minute < zone.end),
                calendar.default)


@lru_cache(maxsize=1 << 18)
def _local(minute: int, timezone: str) -> datetime:
    return (EPOCH + timedelta(minutes=minute)).astimezone(ZoneInfo(timezone))


@lru_cache(maxsize=1 << 12)
def _network(text: str) -> ipaddress._BaseNetwork:
    return ipaddress.ip_network(text)


@lru_cache(maxsize=1 << 16)
def _holds(prefix: str, address: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(prefix)
