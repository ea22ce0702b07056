"""The SQL table of deterministic NAT, which belongs to subscribers; `core.tables` has it with all others."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text

from core.table_columns import metadata, row_id

deterministic_nat_lease = Table(  # the leases that formulas were turned into, as they lie in the table `lease`
    "deterministic_nat_lease",
    metadata,
    row_id(),
    Column("realm", Text, nullable=False),
    Column("address", LargeBinary, nullable=False),
    Column("port_first", Integer, nullable=False),
    Column("port_last", Integer, nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("service_id", BigInteger, ForeignKey("service.id"), nullable=False),
    Index("deterministic_nat_lease_address", "address"),
)
deterministic_nat_position = Table(  # one row: with which leases and settings that was done
    "deterministic_nat_position",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("input_version", BigInteger, nullable=False),
    Column("settings", Text, nullable=False),
)
