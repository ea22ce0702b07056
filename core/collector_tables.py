"""The SQL tables of the collector; `core.tables` has them with all others."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text, UniqueConstraint

from core.table_columns import count, metadata, of_segment, row_id

segment = Table(  # an immutable file of flows (core.schemas.FLOWS)
    "segment",
    metadata,
    row_id(),
    Column("collector", Text, nullable=False),  # id of the collector, or replay:…
    Column("path", Text, nullable=False, unique=True),  # below the home
    Column("digest", Text, nullable=False),  # SHA-256 of the file
    Column("content_digest", Text, nullable=False),  # over the uncompressed columns: the identity of the segment
    Column("octets_size", BigInteger, nullable=False),  # size of the file
    Column("flows", BigInteger, nullable=False),
    Column("octets", BigInteger, nullable=False),
    Column("received_first", BigInteger),
    Column("received_last", BigInteger),
    Column("start_first", BigInteger),
    Column("end_last", BigInteger),
    Column("block_first", BigInteger),
    Column("block_last", BigInteger),  # of the journal
    Column("decoder_version", Text, nullable=False),
    Column("settings_digest", Text, nullable=False),
    Column("manifest_version", BigInteger, nullable=False),
)
intake = Table(  # what became of datagrams and records, for the balances; one row per segment × exporter × quarter hour
    "intake",
    metadata,
    row_id(),
    Column("segment_id", BigInteger, ForeignKey("segment.id"), nullable=False),
    Column("exporter", LargeBinary, nullable=False),
    Column("domain", BigInteger, nullable=False),
    Column("export_protocol", Integer, nullable=False),
    Column("slot", BigInteger, nullable=False),  # quarter hour of `received`
    Column("datagrams", BigInteger, nullable=False),
    Column("decoded", BigInteger, nullable=False),
    Column("faulted", BigInteger, nullable=False),
    Column("duplicate", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    Column("data_records", BigInteger, nullable=False),
    Column("options_records", BigInteger, nullable=False),
    Column("flow_records", BigInteger, nullable=False),
    Column("not_a_flow", BigInteger, nullable=False),
    Column("faulted_records", BigInteger, nullable=False),
    Column("waiting_sets", BigInteger, nullable=False),  # sets that began to wait
    count("missing"),  # units that the sequence numbers lack, less what came late; in the protocol's own unit
    count("reordered"),
    count("restarts"),
    count("measured"),  # datagrams without a fault …
    count("records"),  # … and the records in them: in all, in the emptiest and in the fullest
    count("records_min"),
    count("records_max"),
    count("clocked"),  # datagrams with a wall clock; skew = arrival less export time, ms
    count("skew_min"),
    count("skew_max"),
    count("skew_last"),
    Column("twin", BigInteger, nullable=False, server_default="0"),  # copies of what another member of a group brought
    Column("flows", BigInteger, nullable=False, server_default="0"),
    Column("octets", BigInteger, nullable=False, server_default="0"),  # of these flows, raw
    Column("templates", BigInteger, nullable=False, server_default="0"),
    Column("options_templates", BigInteger, nullable=False, server_default="0"),
    Column("counter_samples", BigInteger, nullable=False, server_default="0"),
    Column("drop_samples", BigInteger, nullable=False, server_default="0"),
    Column("released_sets", BigInteger, nullable=False, server_default="0"),
    Column("expired_sets", BigInteger, nullable=False, server_default="0"),
)
fault = Table(
    "fault",
    metadata,
    row_id(),
    Column("segment_id", BigInteger, ForeignKey("segment.id"), nullable=False),
    Column("exporter", LargeBinary, nullable=False),
    Column("domain", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
)
segment_slot = Table(  # scaled octets of a segment's flows by UTC quarter hour of the flow, cut by the cumulative split
    "segment_slot",
    metadata,
    Column("segment_id", BigInteger, ForeignKey("segment.id"), primary_key=True),
    Column("slot", BigInteger, primary_key=True),
    Column("octets", BigInteger, nullable=False),
)
kernel_drop = Table(  # datagrams that the kernel dropped, as a collector last read it in each quarter hour; cumulative
    "kernel_drop",
    metadata,
    of_segment(),
    Column("slot", BigInteger, primary_key=True),
    Column("total", BigInteger, nullable=False),
)
exporter_reading = Table(  # what a segment's flows say about their exporter
    "exporter_reading",
    metadata,
    of_segment(),
    Column("exporter", LargeBinary, primary_key=True),
    Column("domain", BigInteger, primary_key=True),
    Column("export_protocol", Integer, primary_key=True),
    Column("flows", BigInteger, nullable=False),
    Column("longest_flow", BigInteger, nullable=False),  # ms: its active timeout shows here
    Column("clock_moved", BigInteger, nullable=False),  # flows whose times were moved (FlowFlag.CLOCK_MOVED)
    Column("quarantined", BigInteger, nullable=False),
    Index("exporter_reading_exporter", "exporter", "segment_id"),
)
rate_reading = Table(  # sampling rates in a segment's flows
    "rate_reading",
    metadata,
    of_segment(),
    Column("exporter", LargeBinary, primary_key=True),
    Column("domain", BigInteger, primary_key=True),
    Column("export_protocol", Integer, primary_key=True),
    Column("rate_numerator", BigInteger, primary_key=True),
    Column("rate_denominator", BigInteger, primary_key=True),
    Column("rate_source", Integer, primary_key=True),
    Column("flows", BigInteger, nullable=False),
)
interface_flow = Table(  # octets of a segment's flows by interface and quarter hour of their end (schemas.INTERFACE_FLOWS)
    "interface_flow",
    metadata,
    of_segment(),
    Column("slot_first", BigInteger, nullable=False),
    Column("slot_last", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),  # an Arrow IPC stream
)
exporter_template = Table(  # the templates that a collector knows now
    "exporter_template",
    metadata,
    Column("collector", Text, primary_key=True),
    Column("exporter", LargeBinary, primary_key=True),
    Column("domain", BigInteger, primary_key=True),
    Column("export_protocol", Integer, primary_key=True),
    Column("template", BigInteger, primary_key=True),
    Column("options", Integer, nullable=False),  # 1: an options template
    Column("scope", Integer, nullable=False),  # how many of the fields are scope
    Column("fields", Text, nullable=False),  # JSON: [enterprise, element, octets] each
    Column("defined", BigInteger, nullable=False),  # when this definition came first
)
exporter_sampler = Table(  # the sampling rates that exporters announced by options
    "exporter_sampler",
    metadata,
    Column("collector", Text, primary_key=True),
    Column("exporter", LargeBinary, primary_key=True),
    Column("domain", BigInteger, primary_key=True),
    Column("export_protocol", Integer, primary_key=True),
    Column("kind", Text, primary_key=True),  # sampler (IE 48), selector (IE 302) or domain
    Column("sampler", BigInteger, primary_key=True),
    Column("rate_numerator", BigInteger, nullable=False),
    Column("rate_denominator", BigInteger, nullable=False),
)
exporter_state = Table(  # cumulative, per collector: what `exporters list` shows
    "exporter_state",
    metadata,
    Column("collector", Text, primary_key=True),
    Column("exporter", LargeBinary, primary_key=True),
    Column("domain", BigInteger, primary_key=True),
    Column("export_protocol", Integer, primary_key=True),
    Column("received", BigInteger, nullable=False),
    Column("missing", BigInteger, nullable=False),
    Column("duplicate", BigInteger, nullable=False),
    Column("reordered", BigInteger, nullable=False),
    Column("restarts", BigInteger, nullable=False),
    Column("faulted", BigInteger, nullable=False),
    Column("waiting", BigInteger, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("drop_samples", BigInteger, nullable=False),  # packets that the exporter says it discarded
    Column("refused", BigInteger, nullable=False),
    # what the exporter's own counters (IE 41, 42, 164 to 168) have grown by since they were first seen
    Column("exported_messages", BigInteger, nullable=False),
    Column("exported_records", BigInteger, nullable=False),
    Column("ignored_packets", BigInteger, nullable=False),
    Column("ignored_octets", BigInteger, nullable=False),
    Column("not_sent_flows", BigInteger, nullable=False),
    Column("not_sent_packets", BigInteger, nullable=False),
    Column("not_sent_octets", BigInteger, nullable=False),
    Column("sessions", BigInteger, nullable=False, server_default="0"),
    Column("sessions_ended", BigInteger, nullable=False, server_default="0"),
    Column("recycled", BigInteger, nullable=False, server_default="0"),
)
interface_counter = Table(  # octets that an interface had counted at an instant; of a minute the newest reading
    "interface_counter",
    metadata,
    row_id(),
    Column("segment_id", BigInteger, ForeignKey("segment.id")),  # null: imported
    Column("exporter", LargeBinary, nullable=False),
    Column("interface", BigInteger, nullable=False),  # ifIndex
    Column("at", BigInteger, nullable=False),
    Column("in_octets", BigInteger, nullable=False),  # cumulative; two's complement of an unsigned 64-bit counter
    Column("out_octets", BigInteger, nullable=False),
    Column("source", Text, nullable=False),  # sflow or csv
    UniqueConstraint("exporter", "interface", "at", "source"),
)
exporter_total = Table(  # cumulative, per collector: what its commits held of each exporter, for metrics
    "exporter_total",
    metadata,
    Column("collector", Text, primary_key=True),
    Column("exporter", LargeBinary, primary_key=True),
    Column("domain", BigInteger, primary_key=True),
    Column("export_protocol", Integer, primary_key=True),
    Column("flows", BigInteger, nullable=False),
    Column("octets", BigInteger, nullable=False),  # raw
    Column("templates", BigInteger, nullable=False),
    Column("options_templates", BigInteger, nullable=False),
    Column("data_records", BigInteger, nullable=False),
    Column("options_records", BigInteger, nullable=False),
    Column("not_a_flow", BigInteger, nullable=False),
    Column("faulted_records", BigInteger, nullable=False),
    Column("waiting_sets", BigInteger, nullable=False),  # that began to wait
    Column("released_sets", BigInteger, nullable=False),
    Column("expired_sets", BigInteger, nullable=False),
    Column("counter_samples", BigInteger, nullable=False),
    Column("drop_samples", BigInteger, nullable=False),
    Column("missed", BigInteger, nullable=False),  # by sequence number, in the protocol's own unit; only ever grows
    Column("recovered", BigInteger, nullable=False),  # of these, what came later after all
    Column("skew_ms", BigInteger),  # arrival less export time when it last sent data; null without a clock
)
fault_total = Table(  # cumulative, per collector
    "fault_total",
    metadata,
    Column("collector", Text, primary_key=True),
    Column("exporter", LargeBinary, primary_key=True),
    Column("domain", BigInteger, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
)
decoder_position = Table(  # up to which journal block a collector's datagrams are in segments, and the state after it
    "decoder_position",
    metadata,
    Column("collector", Text, primary_key=True),
    Column("block", BigInteger, nullable=False),
    Column("state_path", Text),
    Column("state_digest", Text),
    Column("datagrams", BigInteger, nullable=False, server_default="0"),  # of the next block that are decoded already (members)
)
segment_source = Table(  # of a group: which datagrams of which member's journal a segment was made of
    "segment_source",
    metadata,
    Column("segment_id", BigInteger, ForeignKey("segment.id"), primary_key=True),
    Column("collector", Text, primary_key=True),
    Column("block_after", BigInteger, nullable=False),  # position of the member before: whole blocks up to this one
    Column("datagrams_after", BigInteger, nullable=False),  # and so many datagrams of the next
    Column("block_until", BigInteger, nullable=False),  # position behind
    Column("datagrams_until", BigInteger, nullable=False),
)
announced_rate = Table(  # sampling rates that exporters announced by options, when each was first known
    "announced_rate",
    metadata,
    row_id(),
    Column("exporter", LargeBinary, nullable=False),
    Column("domain", BigInteger, nullable=False),
    Column("sampler", Integer, nullable=False),  # code as in the flags of quarantined flows, 0: of the whole domain
    Column("received", BigInteger, nullable=False),  # arrival of the datagram that announced it
    Column("numerator", BigInteger, nullable=False),
    Column("denominator", BigInteger, nullable=False),
    Column("collector", Text, nullable=False),  # who heard it
    Index("announced_rate_key", "exporter", "domain", "sampler", "received"),
)
unrated_flows = Table(  # which segments hold flows whose sampling rate nobody had announced
    "unrated_flows",
    metadata,
    Column("segment_id", BigInteger, ForeignKey("segment.id"), primary_key=True),
    Column("exporter", LargeBinary, primary_key=True),
    Column("domain", BigInteger, primary_key=True),
    Column("sampler", Integer, primary_key=True),
    Column("flows", BigInteger, nullable=False),
    Column("octets", BigInteger, nullable=False),  # not scaled
    Column("from_ms", BigInteger, nullable=False),
    Column("to_ms", BigInteger, nullable=False),  # extent of these flows
    Index("unrated_flows_exporter", "exporter", "domain"),
)
replayed_file = Table(
    "replayed_file",
    metadata,
    row_id(),
    Column("digest", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("collector", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("replayed_file_digest", "digest"),
)

port_block_event = Table(  # what NATs reported about their port blocks (RFC 8158)
    "port_block_event",
    metadata,
    row_id(),
    Column("segment_id", BigInteger, ForeignKey("segment.id"), nullable=False),
    Column("exporter", LargeBinary, nullable=False),
    Column("domain", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),  # when the event was, after the clock rule
    Column("event", Integer, nullable=False),  # 1 allocated, 2 freed
    Column("inside", LargeBinary, nullable=False),
    Column("outside", LargeBinary, nullable=False),
    Column("port_first", Integer, nullable=False),
    Column("port_last", Integer, nullable=False),
    Column("port_step", Integer, nullable=False),
    Column("protocol", Integer, nullable=False),  # 0: all
    Column("outcome", Text, nullable=False),  # what became of it: empty before it was looked at
    Index("port_block_event_outside", "outside"),
)
port_block_lease = Table(  # the leases that port blocks were turned into, as they lie in the table `lease`
    "port_block_lease",
    metadata,
    row_id(),
    Column("realm", Text, nullable=False),
    Column("address", LargeBinary, nullable=False),
    Column("protocol", Integer),
    Column("port_first", Integer, nullable=False),
    Column("port_last", Integer, nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("service_id", BigInteger, nullable=False),
    Index("port_block_lease_address", "realm", "address"),
)
port_block_position = Table(  # one row: up to which event, and with which leases and settings, that was done
    "port_block_position",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("event_id", BigInteger, nullable=False),
    Column("input_version", BigInteger, nullable=False),
    Column("realms", Text, nullable=False),
)
unknown_exporter = Table(  # the busiest exporters that no setting names: at most 64 a collector
    "unknown_exporter",
    metadata,
    Column("collector", Text, primary_key=True),
    Column("exporter", LargeBinary, primary_key=True),
    Column("datagrams", BigInteger, nullable=False),
    Column("overcount", BigInteger, nullable=False),  # so many of them may have been others'
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
)
quarantine_file = Table(  # datagrams of unknown exporters, kept until they are admitted or the oldest must go
    "quarantine_file",
    metadata,
    row_id(),
    Column("collector", Text, nullable=False),
    Column("path", Text, nullable=False, unique=True),
    Column("digest", Text, nullable=False),
    Column("octets_size", BigInteger, nullable=False),
    Column("datagrams", BigInteger, nullable=False),
    Column("left_out", BigInteger, nullable=False),  # datagrams that there was no room for
    Column("received_first", BigInteger, nullable=False),
    Column("received_last", BigInteger, nullable=False),
    Column("dropped", BigInteger),  # when it had to go, null while it is there
)
quarantine_admission = Table(  # which exporter's datagrams of a file were decoded: each once
    "quarantine_admission",
    metadata,
    Column("file_id", BigInteger, ForeignKey("quarantine_file.id"), primary_key=True),
    Column("exporter", LargeBinary, primary_key=True),
    Column("datagrams", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
)
