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
    "session",  # 0: all that the exporter sends; else one transport session, numbered by `scan.session_of`
    "ended",  # 0 in use; the session is over: 1, it ended, 2, recycled; 3: the row is free
    "sessions_ended", "recycled",  # transport sessions whose counts went into this row
    "received", "decoded", "faulted", "duplicate", "refused", "missing", "reordered", "restarts", "waiting",
    "drop_samples",  # packets that the exporter says it discarded
    "first", "last",  # arrival of the first and the newest datagram
    "rate_numerator", "rate_denominator",  # from options without a sampler, 0 before they come
    "initialised",  # IE 160 from options, 0 before it comes
    "configured", "sflow_boot",  # from the settings: a rate (0: none), an instant (-1: none)
    "repeat",  # from the settings: which of equal elements counts (0 as the registry says, 1 the first, 2 the last)
    "admission",  # from the settings: 0 its datagrams are taken, else why they are refused
    "rate_most", "tokens", "refilled",  # datagrams a second (0: any), what is left of them in thousandths, and when
    "report",  # the newest scope of its loss reports and 1, 0 for none
    # what the exporter's own counters have grown by since they were first seen (IE 40 to 42, 164 to 168)
    "exported_octets", "exported_messages", "exported_records", "ignored_packets", "ignored_octets", "not_sent_flows",
    "not_sent_packets", "not_sent_octets",
    "serial",  # datagrams, for the duplicate window
    "twin",  # copies that another member of the group sent too
    "withdrawn", "withdrawn_options",  # templates with a number below these are gone (RFC 7011 §8.1)
    "intake", "quarter",  # the intake row of the newest quarter hour: of this call only
    unsigned="high low",
)
SEQUENCE = _record(
    "begun", "epoch",  # epochs: from one start of the exporter to the next
    "begin", "expected", "heard", "began",  # this epoch: first place known, next place, datagrams, arrival of the first
    "begin_clock",  # what the exporter's clock (sFlow: its uptime) said at the first place known
    "boot", "arrival_boot", "uptime", "has_boot",  # clock and arrival less uptime, modulo 2^32 ms; newest uptime
    "gaps", "forgot", "forgotten",  # how many gaps are remembered; whether one was forgotten, end of the newest such
    "before", "before_expected", "before_boot", "before_arrival_boot",  # the epoch before; how long it is looked for
    "stray", "stray_begin", "stray_next", "stray_units", "stray_disputed",  # datagrams that fit nowhere so far
    "convention", "last", "last_records", "last_options", "last_whole",  # how the exporter numbers; the newest note
    "disputed_missing", "disputed_reordered", "disputed_restarts",  # charged where another convention was right
    "reach",  # how much more than a single collector's a datagram may be late: members of a group have clocks of their own
)
"""What the sequence accounting remembers of a domain; all zero before the first datagram."""
TEMPLATE = _record("domain", "identifier", "plan", "waiting_first", "waiting_last",
                   "defined",  # arrival of the datagram that brought this definition first
                   "number")  # of this definition among all
PLAN = _record(
    "options",  # 1: an options template
    "stride",  # octets of a record, 0 with a variable-length field
    "minimum",  # octets of the shortest record
    "first", "count", "scope",  # fields; how many of them are scope
    "verdict",  # 0 not a flow, 1 a flow, 2 a cumulative counter, 3 a packet
    "width",  # rows that a record can become
    "informs",  # options that change sampling or time
    "blocks",  # records that can be events of port blocks
    "reports",  # options that count the exporter's own losses
    "v9",  # 1: defined by NetFlow v9 or older, in which scopes are no elements
    "repeat",  # the exporter's rule for equal elements
    "plain",  # 1, 2: each column of a row is one field (times as uptimes, as instants); 0: records need decisions
)
SAMPLER = _record("domain", "kind", "identifier", "numerator", "denominator", "numerator_before", "denominator_before",
                  unsigned="identifier")
SAMPLER_CHANGE = _record("sampler", "order", "numerator", "denominator")
WAITING = _record("template", "next", "offset", "length", "received", "exported", "uptime", "domain", "sequence", "live",
                  "header_rate")
SIGHTING = np.dtype([("first", np.uint64), ("second", np.uint64), ("domain", np.int64), ("serial", np.int64),
                     ("received", np.int64), ("members", np.int64)])
"""A datagram seen lately: its hash, when, and which members of a group brought it (bits 0-31; the first one's number << 32).
They lie in order of arrival; the table beside them finds one by its hash, and is small enough to stay in a cache."""
MEMBER = _record("datagrams", "first", "twin", "duplicate", "late", "ahead")
"""What a member of a group brought; `ahead`: its clock before that of member 0, in AHEAD_UNIT-ths of a millisecond."""
ANNOUNCEMENT = _record("domain", "sampler", "numerator", "denominator", "received")
"""A sampling rate that options brought; sampler 0: of the domain, else the sampler's code (`rows.sampler_code`)."""
REPORT = _record("domain", "scope", "next", "told", unsigned="scope")
"""A scope (line card, process, …) in which a domain counts its losses; `next`: the one before it and 1. The readings lie
beside it."""
STRANGER = _record("high", "low", "datagrams", "over", "first", "last", unsigned="high low")
"""An unknown exporter among the busiest; `over` of its datagrams may have been others' (the space-saving sketch)."""
PORT_BLOCK = _record("high", "low", "domain", "received", "at", "event", "inside_high", "inside_low", "outside_high",
                     "outside_low", "port_first", "port_last", "port_step", "protocol",
                     unsigned="high low inside_high inside_low outside_high outside_low")
SET = _record(
    "sflow",  # 1: samples of sFlow, 0: records of a plan
    "counters",  # counter samples among them
    "start", "stop", "plan", "records", "row", "width", "verdict", "options", "fault",
    "received", "exported", "uptime", "domain", "intake",
    "rate_numerator", "rate_denominator", "header_rate", "configured", "initialised", "sflow_boot", "order",
    "clean", "octets",  # 1: all its rows are flows, whose octets add up to this
)
INTAKE = _record(
    "owner", "quarter",
    "datagrams", "decoded", "faulted", "duplicate", "refused", "templates", "options_templates", "data_records",
    "options_records", "flow_records", "not_a_flow", "faulted_records", "waiting_sets", "released_sets", "expired_sets",
    "flows", "octets", "counter_samples", "drop_samples", "twin",
    "missing", "reordered", "restarts",  # what the domain's counts gained in this quarter hour
    "measured", "records", "records_min", "records_max",  # datagrams without a fault, and the records in them
    "clocked", "skew_min", "skew_max", "skew_last",  # datagrams that carry a wall clock; arrival less export time
)
INTAKE_COUNTS = (INTAKE.names or ())[2:-11]
"""Those that add up to what one block held."""
HEARD = _record("kind", "domain", "protocol", "sequence", "records", "options", "whole", "has_uptime", "clock", "uptime",
                "received", "intake")
"""A note of the scan for the sequence accounting: a datagram, or (kind 1) records that were counted late.

`records` of them are counted, `options` of these are of options; `whole`: all records of the datagram are known;
has_uptime: 0 none, 1 beside a clock, 2 alone (sFlow)."""
READING = _record("domain", "interface", "received", "in_octets", "out_octets", unsigned="in_octets out_octets")
"""Interface counters of sFlow, cumulative."""
PROGRESS = _record("position", "sets", "released", "intake", "rows", "released_rows", "order", "ordinal", "newest",
                   "changes", "dropped", "heard", "announced", "held", "plans_before", "fields_before")
"""How far a call of the scan has come."""
COUNTS = _record("domains", "templates", "plans", "fields", "samplers", "waiting", "waiting_octets", "waiting_live",
                 "waiting_live_octets", "sightings", "datagrams", "newest", "ended", "free", "free_from",
                 "opened", "reports", "strangers", "definitions",
                 "ready", "release_at",  # waiting sets to be looked at, and from where: a template set free too much at once
                 "horizon")  # arrival of the newest sighting that was forgotten: older copies can't be told any more
"""How much of each table of the state is in use."""
SITUATION = _record("start", "stop", "protocol", "domain", "intake", "received", "exported", "uptime", "has_uptime", "clock",
                    "sequence", "header_rate", "records", "options", "read", "faults", "full", "session",
                    "released", "defined")
"""The datagram that is being scanned."""

GAPS_MAX = 64
CONVENTIONS = 5
"""Gaps of a domain that are remembered, to be filled by datagrams that come late."""
TWIN_GAPS_MAX = 1024
"""The same for a group, whose members' clocks may differ: what one lost, the other may fill seconds later."""
MEMBERS_MAX = 8
"""Members of a group."""
AHEAD_UNIT = 1024
SLOT_COUNT = 128
COUNTER_NAMES = ("exported_octets", "exported_messages", "exported_records", "ignored_packets", "ignored_octets",
                 "not_sent_flows", "not_sent_packets", "not_sent_octets")
"""What exporters count of their own exports and losses: IE 40 to 42 and 164 to 168, in the order of the kernels."""
COUNTERS = len(COUNTER_NAMES)
STRANGERS_MAX = 64
"""Unknown exporters that are told apart, whatever their number."""


class State(NamedTuple):
    """All that the decoder remembers between datagrams."""

    counts: Rows
    domains: Rows
    domain_table: Rows
    sequences: Rows
    gaps: Rows
    trials: Rows
    templates: Rows
    template_table: Rows
    plans: Rows
    has: Rows
    places: Rows
    fields: Rows
    slots: Rows
    offsets: Rows
    noted: Rows
    samplers: Rows
    sampler_table: Rows
    waiting: Rows
    waiting_octets: Rows
    sightings: Rows
    sighting_table: Rows
    members: Rows
    reports: Rows
    readings: Rows
    strangers: Rows


class Results(NamedTuple):
    """What one call of the scan hands on."""

    progress: Rows
    situation: Rows
    sets: Rows
    released: Rows
    intake: Rows
    faults: Rows
    changes: Rows
    heard: Rows
    announced: Rows
    scratch: Rows
    held: Rows


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
    twins: int
    twin_late_ms: int
    twin_clock_ms: int
    gaps: int
    reports: int
    portion: int
    keys: Rows
    element_slots: Rows
    element_lengths: Rows
    element_last: Rows
    exporters: Rows
    exporter_values: Rows
    exporter_domains: Rows
    guarded: int
    unknown: int
    rate_most: int
    by_port: int
    by_port_otherwise: Rows
    ports: int
