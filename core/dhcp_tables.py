"""The SQL tables of DHCP lease files, which belong to subscribers; `core.tables` has them with all others."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text

from core.table_columns import metadata, row_id

dhcp_client = Table(  # who had an address, as the DHCP server knows it
    "dhcp_client",
    metadata,
    row_id(),
    Column("digest", LargeBinary, nullable=False, unique=True),  # over the identifiers
    Column("identifiers", Text, nullable=False),  # JSON list of [kind, hexadecimal value]
)
dhcp_entry = Table(  # an entry of a lease file; append-only, each is there once, in however many files it was
    "dhcp_entry",
    metadata,
    row_id(),
    Column("digest", LargeBinary, nullable=False, unique=True),  # over all that follows
    Column("realm", Text, nullable=False),
    Column("address", LargeBinary, nullable=False),
    Column("prefix_length", Integer, nullable=False),
    Column("state", Text, nullable=False),  # active, ended or void
    Column("seen", BigInteger, nullable=False),  # the client's last transaction
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("client_id", BigInteger, ForeignKey("dhcp_client.id")),  # null: the entry names none
    Index("dhcp_entry_address", "address"),
)
dhcp_lease = Table(  # the leases that entries were turned into, as they lie in the table `lease`
    "dhcp_lease",
    metadata,
    row_id(),
    Column("realm", Text, nullable=False),
    Column("address", LargeBinary, nullable=False),
    Column("prefix_length", Integer, nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("service_id", BigInteger, ForeignKey("service.id"), nullable=False),
    Index("dhcp_lease_address", "address"),
)
dhcp_position = Table(  # one row: with which services that was done
    "dhcp_position",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("services", BigInteger, nullable=False),
)
