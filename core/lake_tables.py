"""The SQL tables of compacted flows: what lies in which Parquet file, in which order; `core.tables` has them with all others.

`lake_part`, `lake_file` and `lake_segment` belong to the collector, `generation_source` to storage.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text

from core.table_columns import metadata, row_id

lake_part = Table(  # flows of some segments of one UTC day, sorted together; the live ones have neither replaced nor deleted
    "lake_part",
    metadata,
    row_id(),
    Column("day", BigInteger, nullable=False),  # its first instant
    Column("at", BigInteger, nullable=False),  # when it was made
    Column("flows", BigInteger, nullable=False),
    Column("octets", BigInteger, nullable=False),  # raw
    Column("received_first", BigInteger, nullable=False),
    Column("received_last", BigInteger, nullable=False),
    Column("start_first", BigInteger, nullable=False),
    Column("end_last", BigInteger, nullable=False),
    Column("networks", LargeBinary, nullable=False),  # whose addresses it is sorted by (core.networks.Ranges)
    Column("input_version", BigInteger, nullable=False),  # newest input_change whose leases these networks hold
    Column("truncated", BigInteger),  # when far ends were truncated, null: never
    Column("replaced", BigInteger),  # when another part took its segments over
    Column("deleted", BigInteger),  # when its flows were given up
    Column("manifest_version", BigInteger, nullable=False),
    Index("lake_part_day", "day"),
)
lake_file = Table(  # a file of a part; a file whose part is replaced or deleted goes some time later, and its row with it
    "lake_file",
    metadata,
    row_id(),
    Column("part_id", BigInteger, ForeignKey("lake_part.id"), nullable=False),
    Column("kind", Text, nullable=False),  # flows: each flow once; mirror: flows between two subscribers, by the other end
    Column("path", Text, nullable=False, unique=True),  # below the home
    Column("digest", Text, nullable=False),  # XXH3-128
    Column("octets_size", BigInteger, nullable=False),
    Column("flows", BigInteger, nullable=False),
    Column("key_first", LargeBinary, nullable=False),  # address of the first and of the last row
    Column("key_last", LargeBinary, nullable=False),
    Column("footer", BigInteger, nullable=False),  # where the footer begins
    Column("row_groups", LargeBinary, nullable=False),  # extent, addresses and digest of each row group (storage.lake.GROUPS)
    Index("lake_file_key", "part_id", "kind", "key_first"),
)
lake_segment = Table(  # a segment is read from one part, and no longer from its own file
    "lake_segment",
    metadata,
    Column("segment_id", BigInteger, ForeignKey("segment.id"), primary_key=True),
    Column("part_id", BigInteger, ForeignKey("lake_part.id"), nullable=False),
    Column("own_file", Integer, nullable=False),  # 1 while the file that the collector wrote may still be there
    Index("lake_segment_part", "part_id"),
)
generation_source = Table(  # what a published generation shows beside the cells: another fingerprint, another generation
    "generation_source",
    metadata,
    Column("path", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
)
