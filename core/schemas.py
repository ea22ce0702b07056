"""The Arrow schemas of everything that travels between packages: name, type, unit and one sentence a column.

The reference page `docs/reference/schemas.md` is generated from here. Any package may read another's file through its
schema; only the owner writes it. SQL tables are in `core.tables`.
"""

from __future__ import annotations

from enum import IntEnum

import pyarrow as pa

INSTANT = pa.timestamp("ms", tz="UTC")
ADDRESS = pa.binary(16)


def column(name: str, kind: pa.DataType, unit: str, sentence: str, *, nullable: bool = False) -> pa.Field:
    """A column of a schema; unit "" where the value has none."""
    return pa.field(name, kind, nullable, metadata={"unit": unit, "what": sentence})


class ExportProtocol(IntEnum):
    """The protocol in which a router exported; the values are NetFlow's version numbers, sFlow v5 is 105."""

    V1 = 1
    V5 = 5
    V7 = 7
    V9 = 9
    IPFIX = 10
    SFLOW = 105


EXPORT_PROTOCOL_NAMES = {1: "v1", 5: "v5", 7: "v7", 9: "v9", 10: "ipfix", 105: "sflow"}


class RateSource(IntEnum):
    """Where a flow's sampling rate comes from, strongest first."""

    RECORD = 1
    SAMPLER = 2
    DOMAIN = 3
    HEADER = 4
    CONFIGURED = 5
    ASSUMED = 6


class FlowFlag(IntEnum):
    """Bits of the `flags` column of a flow."""

    CLOCK_MOVED = 1  # start and end were moved by received - export time
    LAYER2_OCTETS = 2  # octets come from IE 352 less the layer-2 header
    FRAME_OCTETS = 4  # sampled packet: octets come from the frame length, its IP header has no total length
    QUARANTINED = 8  # no sampling rate is announced and the policy says `quarantine`
    REVERSE = 16  # the second flow of a bidirectional record
    END_CLAMPED = 32  # end before start was set to start
    INNER_UNREAD = 64  # `tunnels = "inner"`: a packet inside of this one could not be read; this is the one around it


SAMPLER_SHIFT = 16
"""Bits 16-31 of the flags of a quarantined flow: its sampler's id + 1, 0 for none, SAMPLER_BEYOND for an id with no room."""
SAMPLER_BEYOND = 65_535


class FlowDirection(IntEnum):
    """IE 61; the interface at which the exporter observed the flow."""

    INGRESS = 0
    EGRESS = 1
    UNKNOWN = 255


class Direction(IntEnum):
    """Direction of usage, seen from the service."""

    UP = 0
    DOWN = 1


DIRECTION_NAMES = ("up", "down")


class Outcome(IntEnum):
    """What became of the octets of a flow end (DESIGN: balances, octets)."""

    ATTRIBUTED = 0
    INFRASTRUCTURE = 1
    STRANGER = 2
    NO_PORT = 3
    AUDIT_ONLY = 4
    QUARANTINED = 5


FLOWS = pa.schema(
    [
        column("received", INSTANT, "ms", "When the datagram arrived."),
        column("exporter", ADDRESS, "", "Address of the exporter, IPv4 as ::ffff:a.b.c.d, network byte order."),
        column("domain", pa.uint32(), "", "Observation domain, source id, engine or sub-agent of the exporter."),
        column("export_protocol", pa.uint8(), "", "Protocol of the export: 1, 5, 7, 9, 10 (IPFIX) or 105 (sFlow v5)."),
        column("start", INSTANT, "ms", "First packet of the flow, after the clock rule."),
        column("end", INSTANT, "ms", "Last packet of the flow, after the clock rule."),
        column("source_address", ADDRESS, "", "Source of the packets, IPv4 as ::ffff:a.b.c.d."),
        column("destination_address", ADDRESS, "", "Destination of the packets, IPv4 as ::ffff:a.b.c.d."),
        column("source_port", pa.uint16(), "", "Transport source port, 0 for ICMP and fragments."),
        column("destination_port", pa.uint16(), "", "Transport destination port; ICMP: type * 256 + code."),
        column("protocol", pa.uint8(), "", "IP protocol number."),
        column("octets", pa.int64(), "octets", "IP-layer octets as exported, not scaled."),
        column("packets", pa.int64(), "packets", "Packets as exported, not scaled."),
        column("rate_numerator", pa.uint32(), "", "Sampling: one of numerator/denominator packets was seen."),
        column("rate_denominator", pa.uint32(), "", "Sampling: denominator, 1 unless the exporter announces a space."),
        column("rate_source", pa.uint8(), "", "Where the rate comes from (RateSource)."),
        column("input_interface", pa.uint32(), "", "ifIndex at which the packets came in, 0 if unknown."),
        column("output_interface", pa.uint32(), "", "ifIndex at which the packets went out, 0 if unknown."),
        column("flow_direction", pa.uint8(), "", "0 ingress, 1 egress, 255 unknown."),
        column("next_hop", ADDRESS, "", "Next hop, all zero if unknown."),
        column("source_as", pa.uint32(), "", "AS number of the source, 0 if unknown."),
        column("destination_as", pa.uint32(), "", "AS number of the destination, 0 if unknown."),
        column("tos", pa.uint8(), "", "IP type of service / traffic class."),
        column("tcp_flags", pa.uint16(), "", "TCP control bits seen, 0 for other protocols."),
        column("flags", pa.uint32(), "", "Bits of FlowFlag; bits 16-31 if quarantined: the sampler's id + 1, 0 for none."),
    ]
)



def _as_words(described: pa.Field) -> list[pa.Field]:
    """An address as two unsigned words, which every reader of Parquet compares and prunes by; other columns as they are."""
    if described.type != ADDRESS:
        return [described]
    name = described.name.removesuffix("_address")
    what = described.metadata[b"what"].decode()
    return [column(f"{name}_high", pa.uint64(), "", f"First 8 octets: {what}"),
            column(f"{name}_low", pa.uint64(), "", f"Last 8 octets: {what}")]


LAKE = pa.schema([
    column("near_high", pa.uint64(), "", "First 8 octets of the end by which the file is sorted: the subscriber's."),
    column("near_low", pa.uint64(), "", "Last 8 octets of it; IPv4 as ::ffff:a.b.c.d."),
    column("segment", pa.int64(), "", "Row id of the segment that the flow came in."),
    column("row", pa.uint32(), "", "Its row there."),
    *(word for described in FLOWS for word in _as_words(described)),
])
"""Compacted flows (Parquet, zstd), sorted by near, start, segment, row."""

INTERFACE_FLOWS = pa.schema(
    [
        column("exporter", ADDRESS, "", "Address of the exporter; all zero for what found no row of its own."),
        column("domain", pa.uint32(), "", "Observation domain, source id, engine or sub-agent of the exporter."),
        column("interface", pa.int64(), "", "ifIndex, 0 if unknown; -1 for what found no row of its own."),
        column("side", pa.uint8(), "", "0: packets came in there; 1: packets went out there."),
        column("observed", pa.uint8(), "", "Where the exporter observed them: 0 ingress, 1 egress, 255 unknown."),
        column("slot", INSTANT, "ms", "UTC quarter hour in which the flows ended."),
        column("octets", pa.int64(), "octets", "Scaled octets."),
        column("octets_raw", pa.int64(), "octets", "Octets as exported."),
        column("packets", pa.int64(), "packets", "Scaled packets."),
        column("samples", pa.int64(), "packets", "Packets as exported, of flows that were sampled."),
        column("flows", pa.int64(), "flows", "Flows."),
        column("longest_flow", pa.int64(), "ms", "The longest of the flows."),
    ]
)
"""What the table `interface_flow` holds of a segment, as an Arrow IPC stream."""

CELLS = pa.schema(
    [
        column("service", pa.int32(), "", "Row id of the service (table `service`)."),
        column("slot", INSTANT, "ms", "Start of the slot: a UTC quarter hour (or 5 minutes), or an edge inside it."),
        column("class", pa.int16(), "", "Row id of the traffic class of the far end (table `traffic_class`)."),
        column("direction", pa.uint8(), "", "0 up, 1 down."),
        column("sampled", pa.uint8(), "", "1 if the octets were scaled by a sampling rate above 1."),
        column("octets", pa.int64(), "octets", "Scaled octets."),
        column("packets", pa.int64(), "packets", "Scaled packets."),
        column("flows", pa.int64(), "flows", "Flows that begin in the slot."),
    ]
)

OUTCOMES = pa.schema(
    [
        column("exporter", ADDRESS, "", "Address of the exporter."),
        column("slot", INSTANT, "ms", "Start of the UTC quarter hour."),
        column("outcome", pa.uint8(), "", "What became of the octets (Outcome)."),
        column("octets", pa.int64(), "octets", "Scaled octets of flow ends with this outcome."),
        column("on_net_octets", pa.int64(), "octets", "Of these, the second count of flows between two services."),
        column("flows", pa.int64(), "flows", "Flow ends that begin in the slot."),
    ]
)

USAGE = pa.schema(
    [
        column("period", pa.string(), "", "Local month of the service, YYYY-MM."),
        column("service", pa.int32(), "", "Row id of the service."),
        column("subscription", pa.int32(), "", "Row id of the subscription in force, null without one.", nullable=True),
        column("hour", INSTANT, "ms", "The instant at which the service's local hour begins."),
        column("zone", pa.string(), "", "Tariff zone of the plan's calendar, null without one.", nullable=True),
        column("class", pa.string(), "", "Traffic class of the far end."),
        column("direction", pa.string(), "", "up or down."),
        column("sampled", pa.bool_(), "", "Whether the octets were scaled by a sampling rate above 1."),
        column("octets", pa.int64(), "octets", "Scaled octets."),
        column("packets", pa.int64(), "packets", "Scaled packets."),
        column("flows", pa.int64(), "flows", "Flows that begin in the hour."),
    ]
)

USAGE_5MIN = pa.schema(
    [
        column("period", pa.string(), "", "Local month of the service, YYYY-MM."),
        column("service", pa.int32(), "", "Row id of the service."),
        column("subscription", pa.int32(), "", "Row id of the subscription in force.", nullable=True),
        column("slot", INSTANT, "ms", "Start of the UTC-aligned 5-minute slot."),
        column("direction", pa.string(), "", "up or down."),
        column("sampled", pa.bool_(), "", "Whether the octets were scaled by a sampling rate above 1."),
        column("octets", pa.int64(), "octets", "Scaled octets of all classes."),
    ]
)

CHARGES = pa.schema(
    [
        column("period", pa.string(), "", "The period that the charge covers, YYYY-MM."),
        column("service", pa.string(), "", "Name of the service."),
        column("plan", pa.string(), "", "Name of the plan."),
        column("plan_version", pa.string(), "", "Date from which this version of the plan is valid."),
        column("start", pa.date32(), "", "First local day of the stretch."),
        column("end", pa.date32(), "", "Local day after the stretch."),
        column("line", pa.string(), "", "Name of the plan's line."),
        column("kind", pa.string(), "", "fee, traffic or percentile."),
        column("zone", pa.string(), "", "Tariff zone, if the line lists exactly one.", nullable=True),
        column("class", pa.string(), "", "Traffic class, if the line lists exactly one.", nullable=True),
        column("direction", pa.string(), "", "up, down or both; empty for fees.", nullable=True),
        column("quantity", pa.string(), "", "1 or days/days for fees; a decimal for traffic and percentiles."),
        column("unit", pa.string(), "", "Unit of the quantity: month, GB, Mbit/s …"),
        column("unit_price", pa.string(), "", "The price as the plan's text writes it."),
        column("net_minor", pa.int64(), "minor units", "Net amount, rounded once."),
        column(
            "gross_minor",
            pa.int64(),
            "minor units",
            "Gross amount of a line whose price includes the tax.",
            nullable=True,
        ),
        column("tax", pa.string(), "", "Tax category of the plan."),
        column("currency", pa.string(), "", "ISO 4217 code."),
        column("bookable", INSTANT, "ms", "Earliest instant at which the charge may be booked."),
    ]
)

ALL = {
    "flows": FLOWS,
    "lake": LAKE,
    "interface_flows": INTERFACE_FLOWS,
    "cells": CELLS,
    "outcomes": OUTCOMES,
    "usage": USAGE,
    "usage_5min": USAGE_5MIN,
    "charges": CHARGES,
}
