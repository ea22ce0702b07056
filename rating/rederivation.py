"""Usage of a period once more from the flow segments: flow by flow, in plain Python with fractions, for `rate verify
--level 2`.

It shares no code with aggregation and none with the lookup of `subscribers`: leases are dictionaries of prefixes, a flow
is cut wherever anything changes (owner, subscription, local hour, zone, slot) and each part gets F(b) - F(a) of the
cumulative split F(t) = floor(octets · (t - start) / duration). Reads segment, consumed, lease, subscription, the plans
and calendars, the settings of the metering cut, realms and classes, and the segments' files, digests verified.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.ipc
import sqlalchemy as sa

from core import addresses, calendars, class_rules, periods, schemas, settings, tables
from rating.plans import Catalogue
from rating.stored import load_calendars, load_plans
from runtime import progress
from storage import files, flow_files, sql, stored_flows
from storage.home import Home
from storage.stored_flows import Located
from subscribers import settings as metering_settings

PORT_PROTOCOLS = {6, 17, 33, 132, 136}
FLOW_COLUMNS = ["received", "domain", "exporter", "start", "end", "source_address", "destination_address", "source_port",
                "destination_port", "protocol", "octets", "packets", "rate_numerator", "rate_denominator", "input_interface",
                "output_interface", "flow_direction", "flags", "source_as", "destination_as", "tos"]
Flow = dict[str, Any]


@dataclass
class Rederived:
    """Sums of the period."""

    hours: dict[tuple[Any, ...], tuple[int, ...]]
    """(service, subscription, hour, zone, class, direction, sampled) → octets, packets, flows"""
    slots: dict[tuple[Any, ...], tuple[int, ...]]
    """(subscription, slot, direction, sampled) → octets"""


@dataclass(frozen=True)
class Row:
    """A subscription as far as usage depends on it."""

    id: int
    start: int
    end: int
    timezone: str
    calendar: str | None


def usage(home: Home, period: str, with_slots: set[int]) -> Rederived:
    """The usage of a period, from every segment that is aggregated; slots of these subscriptions only."""
    with sql.reading(sql.engine(home)) as connection:
        segments = _segments(connection, period)
        located = stored_flows.locate(connection, (segment.id for segment in segments))
        located.require_exact("deriving usage from segments again")
        world = _World(home.document, connection, period, with_slots)
    with progress.bar("segments → usage", len(segments), "segments") as advance:
        for batch, done in _batches(home, segments, located):
            for flow in _plain(batch):
                world.count(flow)
            advance(done)
    return world.result()


def _batches(home: Home, segments: list[sa.Row[Any]], located: Located) -> Iterator[tuple[pa.RecordBatch, int]]:
    """The flows of segments, from the lake or from files of their own, and how many segments are done with them."""
    for one in located.parts:
        for table in stored_flows.scan(home, one, FLOW_COLUMNS):
            yield from ((batch, 0) for batch in table.select(FLOW_COLUMNS).to_batches(max_chunksize=65_536))
    for segment in segments:
        if segment.id in located.hot:
            with pa.memory_map(str(files.verify(home.path / segment.path, segment.digest))) as source:
                for batch in flow_files.read_all(source).select(FLOW_COLUMNS).to_batches(max_chunksize=65_536):
                    yield batch, 0
        yield pa.RecordBatch.from_pylist([], schema=pa.schema([schemas.FLOWS.field(name) for name in FLOW_COLUMNS])), 1


def _segments(connection: sa.Connection, period: str) -> list[sa.Row[Any]]:
    first, last = periods.period_extent(period)
    segment, consumed = tables.segment, tables.consumed
    return list(connection.execute(
        sa.select(segment.c.id, segment.c.path, segment.c.digest).join(consumed, consumed.c.segment_id == segment.c.id)
        .where(segment.c.start_first < last, segment.c.end_last >= first).order_by(segment.c.id)))


def _plain(batch: pa.RecordBatch) -> list[Flow]:
    columns = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in batch.columns]
    rows: list[Flow] = pa.RecordBatch.from_arrays(columns, names=batch.schema.names).to_pylist()
    return rows


class _World:
    """Leases, subscriptions, calendars and settings, and the sums so far."""

    def __init__(self, document: settings.Document, connection: sa.Connection, period: str, with_slots: set[int]) -> None:
        self.period, self.with_slots = period, with_slots
        self.first, self.last = periods.period_extent(period)
        self.seller_zone = settings.seller(document).timezone
        self.cut, self.realms = metering_settings.metering(document), metering_settings.realms(document)
        self.class_versions = _class_versions(document, connection, self.seller_zone)
        self.leases = _leases(connection)
        self.lengths = sorted({length for _, length in self.leases}, reverse=True)
        self.rows = _rows(connection)
        self.calendars: dict[str, list[calendars.CalendarVersion]] = defaultdict(list)
        for version in load_calendars(connection):
            self.calendars[version.name].append(version)
        self.late_rates = _LateRates(document, connection)
        self.hours: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
        self.slots: Counter[tuple[Any, ...]] = Counter()

    def result(self) -> Rederived:
        return Rederived({key: (sums["octets"], sums["packets"], sums["flows"]) for key, sums in self.hours.items()},
                         {key: (octets,) for key, octets in self.slots.items()})

    def count(self, flow: Flow) -> None:
        if not self.is_metered(flow) or (flow["flags"] & schemas.FlowFlag.QUARANTINED and not self.late_rates.rate(flow)):
            return
        if flow["start"] >= self.last or max(flow["end"], flow["start"] + 1) <= self.first:
            return
        realm = self.realm(flow)
        for direction, near, far, port in (("up", "source_address", "destination_address", "source_port"),
                                           ("down", "destination_address", "source_address", "destination_port")):
            candidates = self.owners(realm, flow[near], flow["protocol"], flow[port])
            if candidates:
                for begins, ends, service in _pieces(flow, candidates):
                    edges = [start for start, _ in self.class_versions if begins < start < ends]
                    for since, until in pairwise([begins, *edges, ends]):
                        rules = next(rules for start, rules in reversed(self.class_versions) if start <= since)
                        self.count_piece(flow, since, until, service, rules.class_of(flow, far, direction), direction)

    def is_metered(self, flow: Flow) -> bool:
        if not self.cut:
            return True
        for entry in self.cut:
            listed_in = not entry.interfaces or flow["input_interface"] in entry.interfaces
            listed_out = not entry.interfaces or flow["output_interface"] in entry.interfaces
            seen = flow["flow_direction"]
            if entry.exporter == flow["exporter"] and (
                    (entry.flow_direction == "both" and (listed_in or listed_out))
                    or (entry.flow_direction == "ingress" and listed_in and seen != schemas.FlowDirection.EGRESS)
                    or (entry.flow_direction == "egress" and listed_out and seen != schemas.FlowDirection.INGRESS)):
                return True
        return False

    def realm(self, flow: Flow) -> str:
        mine = [realm for realm in self.realms if realm.exporter == flow["exporter"]]
        for interface in (flow["input_interface"], flow["output_interface"]):
            for realm in mine:
                if interface in realm.interfaces:
                    return realm.name
        return next((realm.name for realm in mine if not realm.interfaces), "")

    def owners(self, realm: str, address: bytes, protocol: int, port: int) -> list[tuple[int, int, int, int]]:
        """Leases that match but for the time: (start, end, prefix length, service)."""
        number = int.from_bytes(address, "big")
        found = []
        for length in self.lengths:
            for lease in self.leases.get((realm, length), {}).get(number >> (128 - length), ()):
                if lease.protocol is not None and lease.protocol != protocol:
                    continue
                if lease.port_first is not None and not (
                        protocol in PORT_PROTOCOLS and port != 0 and lease.port_first <= port <= lease.port_last):
                    continue
                found.append((lease.start_ms, lease.end_ms, length, lease.service_id))
        return found

    def row_at(self, service: int, instant: int) -> Row | None:
        return next((row for row in self.rows.get(service, ()) if row.start <= instant < row.end), None)

    def zone_near(self, service: int, instant: int) -> str:
        """The time zone of the service's subscription, else of its nearest one, else the seller's."""
        rows = self.rows.get(service, ())
        nearest = min(rows, key=lambda row: max(row.start - instant, instant - row.end + 1, 0), default=None)
        return nearest.timezone if nearest is not None else self.seller_zone

    def count_piece(self, flow: Flow, begins: int, ends: int, service: int, class_: str, direction: str) -> None:
        """Cut a piece of one owner at subscriptions, then at hours, zones and slots, and add it up."""
        at = begins
        while True:
            row = self.row_at(service, at)
            timezone = row.timezone if row is not None else self.zone_near(service, at)
            until = min([ends, self.next_edge(service, row, timezone, at)])
            if periods.period_of(at, timezone) == self.period:
                self.add(flow, at, until, service, row, timezone, class_, direction)
            at = until
            if at >= ends:
                return

    def next_edge(self, service: int, row: Row | None, timezone: str, at: int) -> int:
        edges = [edge for other in self.rows.get(service, ()) for edge in (other.start, other.end) if edge > at]
        edges.append(at - at % periods.FIVE_MINUTES_MS + periods.FIVE_MINUTES_MS)
        if len(self.rows.get(service, ())) > 1 and row is None:
            edges.append(at + periods.MINUTE_MS - at % periods.MINUTE_MS)  # the nearest subscription may change within
        for minute in self.calendar_minutes(row):
            edges.append(_next_wall_minute(timezone, at, minute))
        edges.append(_next_wall_minute(timezone, at, 0))
        return min(edges)

    def calendar_minutes(self, row: Row | None) -> set[int]:
        """Minutes of the hour at which zones of the row's calendar begin or end."""
        if row is None or row.calendar is None:
            return set()
        return {edge % 60 for version in self.calendars[row.calendar] for zone in version.zones
                for edge in (zone.start, zone.end)}

    def add(self, flow: Flow, begins: int, ends: int, service: int, row: Row | None, timezone: str, class_: str,
            direction: str) -> None:
        wall = _wall(begins, timezone)
        zone = None
        if row is not None and row.calendar is not None:
            zone = calendars.zone_at(self.calendars[row.calendar], wall.date(), wall.hour * 60 + wall.minute)
        hour = begins - (wall.minute * 60 + wall.second) * 1000 - begins % 1000
        sampled = flow["rate_numerator"] > flow["rate_denominator"]
        key = (service, row.id if row is not None else None, hour, zone, class_, direction, sampled)
        octets = _part(flow, "octets", begins, ends)
        self.hours[key].update(octets=octets, packets=_part(flow, "packets", begins, ends),
                               flows=int(begins <= flow["start"] < ends or begins == ends))
        if row is not None and row.id in self.with_slots:
            slot = begins - begins % periods.FIVE_MINUTES_MS
            self.slots[row.id, slot, direction, sampled] += octets


class _LateRates:
    """The sampling rates that were announced or configured after the flows they belong to."""

    def __init__(self, document: settings.Document, connection: sa.Connection) -> None:
        table = tables.announced_rate
        self.announced: dict[tuple[bytes, int, int], list[sa.Row[Any]]] = defaultdict(list)
        for row in connection.execute(sa.select(table).order_by(table.c.received)):
            self.announced[bytes(row.exporter), row.domain, row.sampler].append(row)
        self.configured = {addresses.parse_address(entry["address"]): entry["sampling"]
                           for entry in document.get("exporter", []) if "sampling" in entry}

    def rate(self, flow: Flow) -> bool:
        """Give a flow in quarantine its rate. Whether there is one (and the scaled counts have room)."""
        sampler = flow["flags"] >> schemas.SAMPLER_SHIFT
        found = None
        for key in dict.fromkeys([sampler, 0]):
            found = found or self.announcement(flow, key)
        rate = found or (self.configured.get(flow["exporter"]), 1)
        if rate[0] is None or max(flow["octets"], flow["packets"]) // rate[1] >= 2**62 // rate[0]:
            return False
        flow["rate_numerator"], flow["rate_denominator"] = rate
        return True

    def announcement(self, flow: Flow, sampler: int) -> tuple[int, int] | None:
        """The first one after the flow came, else the last one before unless it ended the sampler."""
        rows = self.announced.get((flow["exporter"], flow["domain"], sampler), [])
        for row in rows:
            if row.received >= flow["received"] and row.numerator:
                return row.numerator, row.denominator
        earlier = [row for row in rows if row.received < flow["received"]]
        return (earlier[-1].numerator, earlier[-1].denominator) if earlier and earlier[-1].numerator else None


def _pieces(flow: Flow, candidates: list[tuple[int, int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """(from, to, service) of a flow, cut where the longest prefix with a lease changes."""
    start, end = flow["start"], flow["end"]
    if start == end:
        owner = _owner(candidates, start)
        if owner is not None:
            yield start, end, owner
        return
    edges = sorted({start, end, *(edge for lease in candidates for edge in lease[:2] if start < edge < end)})
    for begins, ends in pairwise(edges):
        owner = _owner(candidates, begins)
        if owner is not None:
            yield begins, ends, owner


def _owner(candidates: list[tuple[int, int, int, int]], instant: int) -> int | None:
    holding = [(length, service) for start, end, length, service in candidates if start <= instant < end]
    return max(holding)[1] if holding else None


def _part(flow: Flow, name: str, begins: int, ends: int) -> int:
    scaled = flow[name] * flow["rate_numerator"] // flow["rate_denominator"]
    duration = flow["end"] - flow["start"]
    if duration == 0:
        return int(scaled)

    def cumulated(instant: int) -> int:
        return math.floor(Fraction(scaled * (instant - flow["start"]), duration))

    return cumulated(ends) - cumulated(begins)


def _wall(instant: int, timezone: str) -> datetime:
    return datetime.fromtimestamp(instant // 1000, UTC).astimezone(ZoneInfo(timezone))


def _next_wall_minute(timezone: str, instant: int, minute: int) -> int:
    """The next instant at which the wall clock shows this minute of an hour, or at which the wall clock is changed."""
    changes = _changes(timezone, instant // (30 * periods.DAY_MS))
    wall = _wall(instant, timezone)
    within = (wall.minute * 60 + wall.second) * 1000 + instant % 1000
    found = instant - within + minute * periods.MINUTE_MS
    if found <= instant:
        found += periods.HOUR_MS
    return min([found, *(change for change in changes if change > instant)])


@lru_cache(maxsize=4096)
def _changes(timezone: str, month: int) -> tuple[int, ...]:
    first = month * 30 * periods.DAY_MS
    return tuple(periods.offset_changes(timezone, first, first + 32 * periods.DAY_MS)[0].tolist())


class _ClassRules:
    """Rules of traffic classes that are in force together; each prefix in a dictionary by its length."""

    def __init__(self, rules: list[class_rules.Rule], prefixes: list[list[addresses.Prefix]]) -> None:
        self.rules = rules
        self.plain = [number for number, rule in enumerate(rules) if not rule.has_prefixes]
        self.by_length: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        for number, some in enumerate(prefixes):
            for prefix in some:
                self.by_length[prefix.length][prefix.first >> (128 - prefix.length)].append(number)

    def class_of(self, flow: Flow, far: str, direction: str) -> str:
        """The class of the highest priority, then longest prefix, then first rule that holds."""
        number = int.from_bytes(flow[far], "big")
        found = [(self.rules[rule].priority, 0, -rule) for rule in self.plain]
        for length, places in self.by_length.items():
            found += [(self.rules[rule].priority, length, -rule) for rule in places.get(number >> (128 - length), ())]
        for _, _, rule in sorted(found, reverse=True):
            if _rule_holds(self.rules[-rule], flow, direction):
                return self.rules[-rule].class_
        return "default"


def _rule_holds(rule: class_rules.Rule, flow: Flow, direction: str) -> bool:
    far, near, interface = (("destination", "source", "output_interface") if direction == "up"
                            else ("source", "destination", "input_interface"))
    if rule.direction not in ("both", direction):
        return False
    if (rule.ports or rule.near_ports) and flow["protocol"] not in PORT_PROTOCOLS:
        return False
    for ranges, value in ((rule.as_numbers, flow[f"{far}_as"]), (rule.ports, flow[f"{far}_port"]),
                          (rule.near_ports, flow[f"{near}_port"])):
        if ranges and not any(first <= value <= last for first, last in ranges):
            return False
    if (rule.dscp and flow["tos"] // 4 not in rule.dscp) or (rule.protocols and flow["protocol"] not in rule.protocols):
        return False
    return not rule.interfaces or any(
        addresses.parse_address(exporter) == flow["exporter"] and (not listed or flow[interface] in listed)
        for exporter, listed in rule.interfaces)


def _class_versions(document: settings.Document, connection: sa.Connection, zone: str) -> list[tuple[int, _ClassRules]]:
    """(instant, rules from then on), oldest first; before the first version of a rule file [[class]] is in force."""
    entries = document.get("class", [])
    found = [(periods.OPEN_START, _ClassRules(
        [class_rules.Rule(entry["name"], entry["name"], entry.get("priority", 0), has_prefixes=True) for entry in entries],
        [[addresses.parse_prefix(text) for text in entry.get("prefixes", [])] for entry in entries]))]
    table, packed = tables.class_version, tables.class_prefixes
    for row in connection.execute(sa.select(table).order_by(table.c.valid_from)).all():
        rules = class_rules.parse(row.document)
        prefixes: list[list[addresses.Prefix]] = [[] for _ in rules]
        for part in connection.execute(sa.select(packed).where(packed.c.version_id == row.id)):
            some = class_rules.load_prefixes(part.prefixes)
            prefixes[part.rule] = [some.prefix(index) for index in range(len(some.high))]
        found.append((periods.local_day_start(date.fromisoformat(row.valid_from), zone), _ClassRules(rules, prefixes)))
    return found


def _leases(connection: sa.Connection) -> Mapping[tuple[str, int], dict[int, list[sa.Row[Any]]]]:
    found: dict[tuple[str, int], dict[int, list[sa.Row[Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in connection.execute(sa.select(tables.lease)):
        place = int.from_bytes(row.address, "big") >> (128 - row.prefix_length)
        found[row.realm, row.prefix_length][place].append(row)
    return {key: dict(places) for key, places in found.items()}


def _rows(connection: sa.Connection) -> dict[int, list[Row]]:
    catalogue = Catalogue(load_plans(connection))
    found: dict[int, list[Row]] = defaultdict(list)
    table = tables.subscription
    for row in connection.execute(sa.select(table).order_by(table.c.service_id, table.c.start_ms)):
        plan = catalogue.in_force(row.plan, date.fromisoformat(row.start_date) if row.start_date else None)
        found[row.service_id].append(Row(row.id, row.start_ms, row.end_ms, row.timezone,
                                         plan.calendar if plan is not None else None))
    return dict(found)
