"""Numbers that kernels and their callers tell each other: what a scan ends with, entries of the journal, what became of a
record, protocols, bounds."""

from __future__ import annotations

# What the scan returns: 0 is done, anything else names the table that must grow before it goes on.
DONE = 0
DOMAINS, TEMPLATES, PLANS, FIELDS, SAMPLERS, CHANGES, WAITING, WAITING_OCTETS, SIGHTINGS, SETS, RELEASED, INTAKE, BAD_BODY = (
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)
HEARD = 14
PORTION, HELD = 15, 16  # so much has come of this body that it must be decoded before the scan goes on; a table that grows

# Entries of a journal block.
ENTRY_HEADER = 56
RECEIVED_UNKNOWN, SESSION_BEGINS, SESSION_ENDS, STREAM_MALFORMED, STREAM_CUT, SESSIONS_LOST = 1, 2, 4, 8, 16, 32  # their flags
TCP, UDP_SESSION, TCP_SESSION = 6, 1, 2
MEMBER = 19  # octet of an entry that a merged body marks its member with

# Rows of domains.
IN_USE, ENDED, RECYCLED, FREE = 0, 1, 2, 3
BLOCK_ENTRIES_MAX, ROWS_BESIDE = 4096, 8192  # beside: rows of sessions that ended in this block or were recycled before it
EXPORTER_UNKNOWN, DOMAIN_UNKNOWN, RATE_LIMITED = 1, 2, 3  # why a datagram is refused
ACCEPT, QUARANTINE, REFUSE = 0, 1, 2  # what is done with unknown exporters: quarantined datagrams are handed on
ASSUME, REJECT = 0, 2  # and with flows whose sampling rate is unannounced, which are QUARANTINEd, too

NEW, COPY, TWIN_COPY = 0, 1, 2  # what a datagram is to those seen before
ALIGN_SHIFT = 4  # how slowly a member's clock is learned: by a sixteenth of the difference
AHEAD_UNIT = 1024  # collector.layout.AHEAD_UNIT
SAMPLER_CODES = 65_535  # sampler ids that a flow's flags can hold, less one for none
WAITING_OVERHEAD = 64
SIGHTING_SHIFT, SIGHTING_MASK = 27, (1 << 27) - 1  # of a place: five bits of the hash above the number of a sighting and 1
PROBES_MAX = 128  # of a half-full table no honest key needs more: further ones were aimed at one place
# What one datagram may set free, in octets and their equivalents; the rest follows with the next ones.
RELEASE_COST_MAX, COST_OF_SET, COST_OF_RECORD, COST_OF_LOOK = 1 << 17, 128, 16, 8

# Records: FlowFlag, RateSource and the status of a row are the layout's values, held together by a test.
FLOW, NOT_A_FLOW, FAULTED = 1, 2, 3
NO_FLOW = -1  # in the place of a fault: the record reports an event and no traffic
CLOCK_MOVED, LAYER2, FRAME_OCTETS, QUARANTINED, REVERSE, END_CLAMPED, INNER_UNREAD = 1, 2, 4, 8, 16, 32, 64
SAMPLER_SHIFT, SAMPLER_BEYOND = 16, 65_535  # core.schemas.SAMPLER_SHIFT: where the flags of a quarantined flow hold its sampler
BY_RECORD, BY_SAMPLER, BY_DOMAIN, BY_HEADER, CONFIGURED, ASSUMED = 1, 2, 3, 4, 5, 6
FLOW_VERDICT, PACKET_VERDICT = 1, 3
ANY, FIRST, LAST = 0, 1, 2  # which of equal elements counts: as the registry says, or by setting
BY_UPTIME, BY_INSTANT = 1, 2  # kinds of plain plans
# Events of a firewall (IE 233): a flow's octets are told when it is updated and deleted, as what came since the last time.
CREATED, DELETED, DENIED, ALERTED, UPDATED = 1, 2, 3, 4, 5

# Records are decoded in chunks, by stages that leave their results in rows of `work`.
CHUNK = 64
W_OCTETS, W_PACKETS, W_BACK, W_BACK_PACKETS, W_FLAGS, W_START, W_END, W_NUMERATOR, W_DENOMINATOR, W_SOURCE, W_FAULT = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
W_BACK_START, W_BACK_END = 11, 12
WORK = 13

WORD = 0xFFFFFFFF
WRAP = 1 << 32
COUNT_MAX = 1 << 48
INSTANT_MAX = 1 << 60
FAR_INSTANT = 1 << 47  # milliseconds; moved by any skew it stays before the year 9999
DAY_ONE_MS, DAY_LAST_MS = -62_135_596_800_000, 253_402_300_800_000
NTP_UNIX_S = 2_208_988_800
AHEAD_MS = 60_000  # an uptime a little after the header's is a coarse clock; further ahead, the counter has wrapped
V9_OR_OLDER = 9
QUARTER_MS = 900_000
VARIABLE = 65_535
PADDING_MAX = 7  # octets behind the last record of a set, or alone in it: some exporters pad to eight (RFC 7011 §3.3.1)
ENTERPRISE_MAX = 0x7FFFFFFF

V1, V5, V7, V9, IPFIX, SFLOW = 1, 5, 7, 9, 10, 105
PLAN_V1, PLAN_V5, PLAN_V7 = 0, 1, 2  # made when the state is new
