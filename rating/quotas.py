"""Quotas: volume that is used up before traffic is charged, shared by lines, added to by add-ons, carried over.

What is covered does not depend on the order in which traffic came, which the octets of a period do not tell:

* Usage that a line of the plan would charge is taken line after line, in the order of the plan, and within a line in the
  order of zone, class, direction; a row that several lines charge is covered for all of them at once.
* It is covered by the quota of the lowest `priority` first; among equals by what expires first (what is given with a
  rollover expires when that is over); then by the service's own plan before its add-ons, in the order of their start.
* An add-on's quota covers all traffic of the stretches that share a day with it, not only what came after it was bought.

What is left of a quota with a rollover is carried for so many periods, never more in all than its cap: of what exceeds the
cap the oldest is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from core import periods

if TYPE_CHECKING:
    from rating.engine import Stretch, Usage
    from rating.plans import Plan, Quota


class Carried(NamedTuple):
    """What is left of a quota for later periods, up to and with the period `expires`."""

    quota: str
    expires: str
    octets: int


@dataclass
class _Bucket:
    """Octets of one quota that expire together."""

    stretch: Stretch
    quota: Quota
    expires: str
    octets: int
    used: int = 0

    @property
    def left(self) -> int:
        return self.octets - self.used


class Pool:
    """The quotas of a service's stretches in a period, and what is used of them. The stretches are in order: the service's
    own by their days, then add-ons by start, name of plan and row."""

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        buckets = [bucket for stretch in stretches for quota in stretch.plan.quotas for bucket in _buckets(stretch, quota)]
        self._buckets = sorted(buckets, key=lambda bucket: (bucket.quota.priority, bucket.expires))

    def use(self, stretch: Stretch, usage: Sequence[Usage]) -> list[Usage]:
        """The usage that no quota covers."""
        if stretch.subscription.is_addon:
            return list(usage)
        left = [row.octets for row in usage]
        order = list(_charged(stretch.plan, usage))
        for bucket in self._buckets:
            if not _covers(bucket.stretch, stretch):
                continue
            for index in order:
                row = usage[index]
                if bucket.quota.matches(row.zone, row.class_, row.direction):
                    taken = min(left[index], bucket.left)
                    left[index] -= taken
                    bucket.used += taken
        return [row._replace(octets=octets) for row, octets in zip(usage, left, strict=True)]

    def used(self, stretch: Stretch, quota: Quota) -> int:
        """Octets that a stretch's quota has covered so far."""
        return sum(bucket.used for bucket in self._buckets if bucket.stretch is stretch and bucket.quota is quota)

    def left(self, stretch: Stretch) -> list[Carried]:
        """What the next period may use of a stretch's quotas."""
        end = stretch.subscription.end
        if end is not None and end <= periods.period_end_day(stretch.period):
            return []
        return [row for quota in stretch.plan.quotas for row in self._left(stretch, quota)]

    def _left(self, stretch: Stretch, quota: Quota) -> Iterator[Carried]:
        room = quota.rollover_cap * stretch.subscription.quantity
        left: dict[str, int] = {}
        for bucket in self._buckets:
            if bucket.stretch is stretch and bucket.quota is quota and bucket.expires > stretch.period:
                left[bucket.expires] = left.get(bucket.expires, 0) + bucket.left
        for expires in sorted(left, reverse=True):
            octets = min(left[expires], room)
            if octets:
                yield Carried(quota.name, expires, octets)
                room -= octets


def _buckets(stretch: Stretch, quota: Quota) -> Iterator[_Bucket]:
    subscription = stretch.subscription
    for row in subscription.carried:
        if row.quota == quota.name and row.expires >= stretch.period:
            yield _Bucket(stretch, quota, row.expires, row.octets)
    volume = given(stretch, quota)
    if volume:
        yield _Bucket(stretch, quota, later(stretch.period, quota.rollover_periods), volume)


def given(stretch: Stretch, quota: Quota) -> int:
    """Octets that a quota gives in the stretch's period."""
    first, last = periods.period_first_day(stretch.period), periods.period_end_day(stretch.period)
    start = stretch.subscription.start
    if quota.given == "once" and (start is None or not first <= start < last):
        return 0
    volume = quota.volume * stretch.subscription.quantity
    if quota.share == "actual_days":
        volume = volume * (stretch.end - stretch.start).days // (last - first).days
    return volume


def _charged(plan: Plan, usage: Sequence[Usage]) -> Iterator[int]:
    """Indexes of the usage that some line charges, in the order in which quotas cover it."""
    order = sorted(range(len(usage)), key=lambda index: (usage[index].zone or "", *usage[index][1:4]))
    for line in plan.traffic:
        taken = [index for index in order if line.matches(usage[index].zone, usage[index].class_, usage[index].direction)
                 and (line.sampled == "allow" or not usage[index].sampled)]
        yield from taken
        done = set(taken)
        order = [index for index in order if index not in done]


def _covers(one: Stretch, other: Stretch) -> bool:
    if not one.subscription.is_addon:
        return one is other
    return one.start < other.end and other.start < one.end


def later(period: str, months: int) -> str:
    """The period so many months later."""
    return periods.add_months(periods.period_first_day(period), months).isoformat()[:7]
