"""The SQL tables of RADIUS accounting, which belong to subscribers; `core.tables` has them with all others."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text

from core.table_columns import metadata, row_id

radius_event = Table(  # an accounting request that was believed; append-only
    "radius_event",
    metadata,
    row_id(),
    Column("digest", LargeBinary, nullable=False, unique=True),  # over what it reports: sent again, it is the same
    Column("source", LargeBinary, nullable=False),  # address of the access server
    Column("nas", Text, nullable=False),
    Column("session", Text, nullable=False),  # Acct-Session-Id; empty for Accounting-On and -Off
    Column("user_name", Text, nullable=False),
    Column("status", Integer, nullable=False),  # Acct-Status-Type
    Column("at", BigInteger, nullable=False),  # Event-Timestamp, else arrival less Acct-Delay-Time
    Column("received", BigInteger, nullable=False),
    Column("prefixes", Text, nullable=False),  # JSON list of addresses and prefixes
    Column("seconds", BigInteger),  # Acct-Session-Time
    Column("input_octets", BigInteger),  # cumulative, as the access server counts
    Column("output_octets", BigInteger),
    Column("input_packets", BigInteger),
    Column("output_packets", BigInteger),
    Column("cause", BigInteger),  # Acct-Terminate-Cause
    Column("classes", Text, nullable=False),  # JSON list of Class attributes
    Column("calling_station", Text, nullable=False),
    Column("nas_port", Text, nullable=False),
    Index("radius_event_session", "nas", "session", "user_name"),
)
radius_prefix = Table(  # the addresses and prefixes of an event, to be found by
    "radius_prefix",
    metadata,
    row_id(),
    Column("event_id", BigInteger, ForeignKey("radius_event.id"), nullable=False),
    Column("address", LargeBinary, nullable=False),
    Column("prefix_length", Integer, nullable=False),
    Index("radius_prefix_event", "event_id"),
    Index("radius_prefix_address", "address"),
)
radius_lease = Table(  # the leases that sessions were turned into, as they lie in the table `lease`
    "radius_lease",
    metadata,
    row_id(),
    Column("realm", Text, nullable=False),
    Column("address", LargeBinary, nullable=False),
    Column("prefix_length", Integer, nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("service_id", BigInteger, ForeignKey("service.id"), nullable=False),
    Index("radius_lease_address", "address"),
)
radius_position = Table(  # one row: up to which event, and with which services and settings, that was done
    "radius_position",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("event_id", BigInteger, nullable=False),
    Column("services", BigInteger, nullable=False),
    Column("settings", Text, nullable=False),
)
