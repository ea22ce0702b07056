"""The record layouts that the decoder's kernels share: state that lasts (domains, templates, samplers, waiting data) and
what one call hands on (sets, intake). Kernels reach fields by name, so the names are the interface.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[Any]
"""An array of one of the record layouts below, or of plain numbers."""


def _record(*names: str, unsigned: str = "") -> np.dtype[Any]:
    wide = unsigned.split()
    return np.dtype([(name, np.uint64 if name in wide else np.int64) for name in names])


DOMAIN = _record(
    "high", "low",  # address of the exporter, as two words of memory
    "domain", "protocol",
    "received", "decoded", "faulted", "duplicate", "missing", "reordered", "restarts", "waiting",
    "first", "last",  # arrival of the first and the newest datagram
    "expected",  # next sequence number, -1 before the first
    "boot", "has_boot",  # clock less uptime, modulo 2^32 ms
    "gaps",  # how many gaps are remembered
    "forgotten",  # end of the newest gap that was forgotten for want of room, -1 for none
    "rate_numerator", "rate_denominator",  # from options without a sampler, 0 before they come
    "initialised",  # IE 160 from options, 0 before it comes
    "configured", "sflow_boot",  # from the settings: a rate (0: none), an instant (-1: none)
    "serial",  # datagrams, for the duplicate window
    "intake", "quarter",  # the intake row of the newest quarter hour: of this call only
    unsigned="high low",
)
TEMPLATE = _record("domain", "identifier", "plan", "waiting_first", "waiting_last",
                   "defined")  # arrival of the datagram that brought this definition first
PLAN = _record(
    "options",  # 1: an options template
    "stride",  # octets of a record, 0 with a variable-length field
    "minimum",  # octets of the shortest record
    "first", "count", "scope",  # fields; how many of them are scope
    "verdict",  # 0 not a flow, 1 a flow, 2 a cumulative counter
    "width",  # rows that a record can become
    "informs",  # options that change sampling or time
    "plain",  # 1, 2: each column of a row is one field (times as uptimes, as instants); 0: records need decisions
)
SAMPLER = _record("domain", "kind", "identifier", "numerator", "denominator", "numerator_before", "denominator_before",
                  unsigned="identifier")
SAMPLER_CHANGE = _record("sampler", "order", "numerator", "denominator")
WAITING = _record("template", "next", "offset", "length", "received", "exported", "uptime", "domain", "sequence", "live",
                  "header_rate")
SIGHTING = np.dtype([("first", np.uint64), ("second", np.uint64), ("domain", np.int64), ("serial", np.int64),
                     ("received", np.int64)])
"""A datagram seen lately: its hash, and when; domain -1 marks an empty place."""
SET = _record(
    "sflow",  # 1: samples of sFlow, 0: records of a plan
    "start", "stop", "plan", "records", "row", "width", "verdict", "options", "fault",
    "received", "exported", "uptime", "domain", "intake",
    "rate_numerator", "rate_denominator", "header_rate", "configured", "initialised", "sflow_boot", "order",
    "clean", "octets",  # 1: all its rows are flows, whose octets add up to this
)
INTAKE = _record(
    "owner", "quarter",
    "datagrams", "decoded", "faulted", "duplicate", "templates", "options_templates", "data_records", "options_records",
    "flow_records", "not_a_flow", "faulted_records", "waiting_sets", "released_sets", "expired_sets", "flows", "octets",
    "counter_samples", "drop_samples",
    "missing", "reordered", "restarts",  # what the domain's counts gained in this quarter hour
    "measured", "records", "records_min", "records_max",  # datagrams without a fault, and the records in them
    "clocked", "skew_min", "skew_max", "skew_last",  # datagrams that carry a wall clock; arrival less export time
)
INTAKE_COUNTS = (INTAKE.names or ())[2:-11]
"""Those that add up to what one block held."""
PROGRESS = _record("position", "sets", "released", "intake", "rows", "released_rows", "order", "ordinal", "newest",
                   "changes", "dropped")
"""How far a call of the scan has come."""
COUNTS = _record("domains", "templates", "plans", "fields", "samplers", "waiting", "waiting_octets", "waiting_live",
                 "waiting_live_octets", "sightings", "datagrams", "newest")
"""How much of each table of the state is in use."""
SITUATION = _record("start", "stop", "protocol", "domain", "intake", "received", "exported", "uptime", "has_uptime", "clock",
                    "sequence", "header_rate", "records", "read", "faults", "full")
"""The datagram that is being scanned."""

GAPS_MAX = 64
SLOT_COUNT = 80


class State(NamedTuple):
    """All that the decoder remembers between datagrams."""

    counts: Rows
    domains: Rows
    domain_table: Rows
    gaps: Rows
    templates: Rows
    template_table: Rows
    plans: Rows
    has: Rows
    places: Rows
    fields: Rows
    slots: Rows
    offsets: Rows
    samplers: Rows
    sampler_table: Rows
    waiting: Rows
    waiting_octets: Rows
    sightings: Rows


class Results(NamedTuple):
    """What one call of the scan hands on."""

    progress: Rows
    situation: Rows
    sets: Rows
    released: Rows
    intake: Rows
    faults: Rows
    changes: Rows
    scratch: Rows


class Limits(NamedTuple):
    """Bounds of the settings, and arrays found from settings and registry."""

    records: int
    domains: int
    templates: int
    template_fields: int
    fields: int
    samplers: int
    waiting_octets: int
    waiting_sets: int
    duplicate_window: int
    duplicate_ms: int
    elements: Rows
    reverse: Rows
    smallest: Rows
    largest: Rows
    exporters: Rows
    exporter_values: Rows
