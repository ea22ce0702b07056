"""Up to where a collector is decoded, and the decoder's state there: what a process that begins goes on from.

A position is a row of `decoder_position`, moved in the transaction that registers what was decoded up to it. The state lies
beside it in `run/decoder-COLLECTOR.BLOCK.state`; files that no position names are what a killed process left.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from collector.state import DecoderState
from core import tables
from storage import files, sql
from storage.home import Home


@dataclass(frozen=True)
class Position:
    """Up to which block a collector is decoded, and the state after it."""

    block: int
    state: DecoderState | None
    datagrams: int = 0
    """Of the next block, decoded already: the collector was a member of a group."""


def state_path(home: Home, collector: str, block: int) -> Path:
    return home.folder("run") / f"decoder-{collector}.{block:012d}.state"


def load_position(home: Home, engine: sa.Engine, collector: str) -> Position:
    """Where to go on. Raises DamagedFile if the saved state is not what was saved."""
    position = tables.decoder_position
    with sql.reading(engine) as connection:
        row = connection.execute(sa.select(position).where(position.c.collector == collector)).one_or_none()
    if row is None:
        return Position(-1, None)
    if row.state_path is None:
        return Position(row.block, None, row.datagrams)
    path = home.path / row.state_path
    sweep_states(home, collector, keep=path)
    return Position(row.block, DecoderState.from_bytes(files.verify(path, row.state_digest).read_bytes()))


def sweep_states(home: Home, collector: str, keep: Path | None = None) -> None:
    """Delete saved states of a collector that no position names."""
    for path in home.folder("run").glob(f"decoder-{collector}.*.state"):
        if path != keep:
            files.remove(path)


def save_state(home: Home, collector: str, block: int, state: bytes) -> tuple[str, str]:
    """Write the state that belongs to a position: (path below the home, digest). Raises RatemillError."""
    path = state_path(home, collector, block)
    return home.relative(path), files.write_whole(path, state, fast=True)


def move_position(connection: sa.Connection, collector: str, block: int, state: tuple[str, str] | None,
                  datagrams: int = 0) -> None:
    """Set a collector's position, inside the transaction that registers what was decoded up to it; `datagrams` of the next
    block are decoded already."""
    position = tables.decoder_position
    path, digest = state or (None, None)
    connection.execute(position.delete().where(position.c.collector == collector))
    connection.execute(position.insert().values(collector=collector, block=block, state_path=path, state_digest=digest,
                                                datagrams=datagrams))
