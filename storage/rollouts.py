"""The rollouts as they stand, and what they keep from being invoiced: read by the stages that meet in their table.

A rollout brings a plan's version, or the whole system, into use by stages: test, then a pilot group, then everybody. Whom it
has not reached is rated but not booked. `rating.rollout` writes the rows; `invoicing` asks `held` before it books.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from core import tables

TEST, PILOT, EVERYBODY, ENDED = "test", "pilot", "everybody", "ended"
STAGES = (TEST, PILOT, EVERYBODY)
"""In their order. A rollout that has ended governs nothing any more."""

Under = tuple[str, str, str]
"""A service, the plan and the plan version that it has a charge of."""


@dataclass(frozen=True)
class Rollout:
    """A rollout by its newest row."""

    id: int
    name: str
    at: int
    actor: str
    reason: str
    action: str
    stage: str
    plan: str | None  # None: the whole system
    plan_version: str | None
    pilot_books: bool
    pilot_from: str
    everybody_from: str
    group: frozenset[str]

    @property
    def is_of_the_system(self) -> bool:
        return self.plan is None

    def reaches(self, service: str, period: str) -> bool:
        """Whether a service's charges of a period may be booked, as far as this rollout goes."""
        if self.stage == ENDED:
            return True
        in_pilot = self.pilot_books and service in self.group
        if self.stage == EVERYBODY:
            return period >= (self.pilot_from if in_pilot else self.everybody_from)
        return self.stage == PILOT and in_pilot and period >= self.pilot_from

    def concerns(self, plan: str, plan_version: str) -> bool:
        """Whether charges under a plan version are what is rolled out."""
        return self.plan is None or (plan == self.plan and plan_version >= (self.plan_version or ""))


def current(connection: sa.Connection) -> list[Rollout]:
    """Every rollout as it stands, by name."""
    table = tables.rollout
    newest = sa.select(sa.func.max(table.c.id)).group_by(table.c.name)
    rows = connection.execute(sa.select(table).where(table.c.id.in_(newest)).order_by(table.c.name)).all()
    return [Rollout(id=row.id, name=row.name, at=row.at, actor=row.actor, reason=row.reason, action=row.action,
                    stage=row.stage, plan=row.plan, plan_version=row.plan_version, pilot_books=bool(row.pilot_books),
                    pilot_from=row.pilot_from, everybody_from=row.everybody_from, group=_group(connection, row.name))
            for row in rows]


def _group(connection: sa.Connection, name: str) -> frozenset[str]:
    table, member = tables.rollout, tables.rollout_service
    newest = (sa.select(sa.func.max(member.c.rollout_id)).join(table, table.c.id == member.c.rollout_id)
              .where(table.c.name == name).scalar_subquery())
    return frozenset(connection.scalars(sa.select(member.c.service).where(member.c.rollout_id == newest)))


def newest_step(connection: sa.Connection) -> int:
    """The number of the newest step of any rollout; 0 without one."""
    return int(connection.scalar(sa.select(sa.func.max(tables.rollout.c.id))) or 0)


def held(rollouts: Sequence[Rollout], period: str, under: Iterable[Under]) -> dict[str, str]:
    """The services that may not be booked in a period → the rollout that holds them.

    A service is held whole: one that changes within the period to a plan that is held would else get back what the old
    plan charged, and nothing in its place.
    """
    found: dict[str, str] = {}
    rollouts = [rollout for rollout in rollouts if rollout.stage != ENDED]
    if not rollouts:
        return found
    for service, plan, version in sorted(set(under)):
        for rollout in rollouts:
            if rollout.concerns(plan, version) and not rollout.reaches(service, period):
                found.setdefault(service, rollout.name)
    return found
