"""Who makes cells of which segments: claims with a lease, so that several workers share what is new.

A worker claims segments that are in no batch and that no living worker has claimed; a row for each, `segment_id` UNIQUE. It
gives the claims up in the transaction that registers its batch. If they are not its own any more, because it was silent for
longer than its lease and another took them, that transaction fails: `consumed` would refuse a second count anyway, but so
nobody even tries. The claims of a dead process return at once, those of a silent one on another machine with their lease.

Owns `claim`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from aggregation import manifest
from aggregation.segments import Segment
from core import clock, randomness, tables
from core.errors import Locked
from runtime.jobs import process_started
from storage import sql

LEASE_MS = 600_000
RENEW_MS = 60_000
"""A worker renews its claims so often while it reads flows."""

SEGMENTS_MAX = 10_000
ATTEMPTS = 20
"""Two that reach for the same segments at the same time: the one who came second looks again."""


class LostClaim(Locked):
    """Another worker has taken the segments over."""


@dataclass(slots=True)
class Claim:
    """Segments that one worker works on."""

    segments: list[Segment]
    owner: str = field(default_factory=randomness.token)
    renewed: int = field(default_factory=clock.now_ms)

    def renew(self, engine: sa.Engine) -> None:
        """Say that the worker lives, if it has not just done so. Raises LostClaim."""
        now = clock.now_ms()
        if now - self.renewed < RENEW_MS:
            return
        table = tables.claim
        with sql.transaction(engine) as connection:
            done = connection.execute(table.update().where(table.c.owner == self.owner).values(until=now + LEASE_MS))
        self._require(done.rowcount)
        self.renewed = now

    def give_up(self, connection: sa.Connection) -> None:
        """Part of the transaction that registers the batch. Raises LostClaim, and then nothing is registered."""
        done = connection.execute(tables.claim.delete().where(tables.claim.c.owner == self.owner))
        self._require(done.rowcount)

    def _require(self, rows: int) -> None:
        if rows != len(self.segments):
            raise LostClaim(f"{len(self.segments)} segments that this process works on were taken over by another one, as it "
                            f"had been silent for {LEASE_MS // 60_000} minutes", "nothing is lost: the other one counts them")


def take(engine: sa.Engine, flows_max: int) -> Claim | None:
    """Claim waiting segments in the order of time, one at least and up to `flows_max` flows; None if there are none."""
    for _ in range(ATTEMPTS):
        with sql.transaction(engine) as connection:
            _return_dead(connection)
            wanted = _first(manifest.waiting_segments(connection, unclaimed=True, most=SEGMENTS_MAX), flows_max)
            if not wanted:
                return None
            claim = Claim(wanted)
            sql.insert_new(connection, tables.claim, [_row(segment.id, claim.owner) for segment in wanted])
            got = set(connection.execute(sa.select(tables.claim.c.segment_id)
                                         .where(tables.claim.c.owner == claim.owner)).scalars())
        if got:
            claim.segments = [segment for segment in wanted if segment.id in got]
            return claim
    return None


def drop(engine: sa.Engine, claim: Claim) -> None:
    """Let others have what could not be done."""
    with sql.transaction(engine) as connection:
        connection.execute(tables.claim.delete().where(tables.claim.c.owner == claim.owner))


@contextmanager
def quiet(engine: sa.Engine) -> Iterator[bool]:
    """Whether nobody works on claims; nobody begins to before the end of this context.

    What is in it must be short: it holds up all other writers of the database, too.
    """
    with sql.transaction(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("LOCK TABLE claim IN EXCLUSIVE MODE"))
        _return_dead(connection)
        yield connection.execute(sa.select(tables.claim.c.segment_id).limit(1)).first() is None


def _row(segment: int, owner: str) -> dict[str, object]:
    pid = os.getpid()
    return {"segment_id": segment, "owner": owner, "host": socket.gethostname(), "pid": pid,
            "pid_started": process_started(pid), "until": clock.now_ms() + LEASE_MS}


def _first(segments: list[Segment], flows_max: int) -> list[Segment]:
    chosen: list[Segment] = []
    flows = 0
    for segment in segments:
        flows += segment.flows
        if chosen and flows > flows_max:
            break
        chosen.append(segment)
    return chosen


def _return_dead(connection: sa.Connection) -> None:
    """Delete the claims of workers that do not live any more."""
    table = tables.claim
    owners = connection.execute(sa.select(table.c.owner, table.c.host, table.c.pid, table.c.pid_started,
                                          sa.func.min(table.c.until).label("until"))
                                .group_by(table.c.owner, table.c.host, table.c.pid, table.c.pid_started)).all()
    for row in owners:
        if not _alive(row):
            connection.execute(table.delete().where(table.c.owner == row.owner))


def _alive(row: Any) -> bool:
    """A process on this machine is asked; one on another machine is believed as long as its lease lasts."""
    if row.host == socket.gethostname() and process_started(row.pid) != row.pid_started:
        return False
    return int(row.until) > clock.now_ms()
