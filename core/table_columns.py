"""What all descriptions of SQL tables have in common."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, MetaData

metadata = MetaData()

ROW_ID = BigInteger().with_variant(Integer(), "sqlite")


def row_id() -> Column[int]:
    return Column("id", ROW_ID, primary_key=True, autoincrement=True)


def count(name: str) -> Column[int]:
    """A number that a row made without it has as 0."""
    return Column(name, BigInteger, nullable=False, server_default="0")


def of_segment() -> Column[int]:
    """A reading of a segment: it goes with it."""
    return Column("segment_id", BigInteger, ForeignKey("segment.id", ondelete="CASCADE"), primary_key=True)
