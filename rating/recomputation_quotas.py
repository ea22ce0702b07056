"""The second engine's quotas: every row of usage drinks from the volumes that stand in line for it, in the page's order."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from rating.recomputation_amounts import OCTETS, amount_of
from rating.recomputation_days import month_days, period_later

Row = dict[str, Any]
Document = dict[str, Any]
Rest = tuple[str, str, int]
"""(quota, last period in which it may be used, octets)"""


@dataclass
class Stretch:
    """A subscription's days in the period, under its plan."""

    period: str
    term: Row
    plan: Document
    days: list[date]

    @property
    def is_addon(self) -> bool:
        return bool(self.term.get("addon"))

    @property
    def count(self) -> int:
        return int(self.term.get("quantity") or 1)

    @property
    def rank(self) -> tuple[Any, ...]:
        """The service's own stretches first, then add-ons; each by first day of the subscription, plan and row."""
        return self.is_addon, self.term["start"], self.plan["name"], self.term["subscription"]


@dataclass
class Volume:
    """Octets of one quota that may be used up to and with the period `expires`."""

    owner: Stretch
    quota: Document
    expires: str
    left: int
    order: tuple[Any, ...]
    used: int = 0


@dataclass
class Poured:
    """What no quota covered, by subscription, and what became of the volumes."""

    uncovered: dict[int, list[Row]] = field(default_factory=dict)
    volumes: list[Volume] = field(default_factory=list)

    def used(self, stretch: Stretch, quota: Document) -> int:
        return sum(volume.used for volume in self.volumes if volume.owner is stretch and volume.quota is quota)

    def rest(self, stretch: Stretch) -> list[Rest]:
        """What is carried: of each quota what lasts longest, until the cap is full."""
        end = stretch.term["end"]
        if end and end <= period_later(stretch.period, 1) + "-01":
            return []
        found: list[Rest] = []
        for quota in stretch.plan.get("quota", ()):
            room = int(amount_of(quota["rollover"]["cap"], OCTETS)) * stretch.count if "rollover" in quota else 0
            mine = [volume for volume in self.volumes if volume.owner is stretch and volume.quota is quota]
            for expires in sorted({volume.expires for volume in mine if volume.expires > stretch.period}, reverse=True):
                kept = min(room, sum(volume.left for volume in mine if volume.expires == expires))
                if kept:
                    found.append((quota["name"], expires, kept))
                    room -= kept
        return found


def pour(stretches: list[Stretch], usage: dict[int, list[Row]]) -> Poured:
    """Cover the usage of a service's stretches, which are in the order of their rank."""
    poured = Poured()
    for rank, stretch in enumerate(stretches):
        for number, quota in enumerate(stretch.plan.get("quota", ())):
            poured.volumes += _volumes(stretch, quota, (rank, number))
    queue = sorted(poured.volumes, key=lambda volume: volume.order)
    for stretch in stretches:
        if stretch.is_addon:
            continue
        mine = [volume for volume in queue if volume.owner is stretch
                or (volume.owner.is_addon and not set(volume.owner.days).isdisjoint(stretch.days))]
        rows = [dict(row) for row in usage.get(stretch.term["subscription"], [])]
        for row in _in_order(rows, stretch.plan["traffic"]):
            for volume in mine:
                if counts(volume.quota, row):
                    taken = min(row["octets"], volume.left)
                    row["octets"] -= taken
                    volume.left -= taken
                    volume.used += taken
        poured.uncovered[stretch.term["subscription"]] = rows
    return poured


def _volumes(stretch: Stretch, quota: Document, place: tuple[int, int]) -> list[Volume]:
    priority = quota.get("priority", 0)
    found = [Volume(stretch, quota, expires, octets, (priority, expires, *place, 0))
             for name, expires, octets in json.loads(stretch.term.get("carried") or "[]")
             if name == quota["name"] and expires >= stretch.period]
    if quota.get("given", "each_period") == "each_period" or stretch.term["start"][:7] == stretch.period:
        octets = int(amount_of(quota["volume"], OCTETS)) * stretch.count
        if quota.get("share") == "actual_days":
            octets = octets * len(stretch.days) // len(month_days(stretch.period))
        expires = period_later(stretch.period, quota["rollover"]["periods"] if "rollover" in quota else 0)
        found.append(Volume(stretch, quota, expires, octets, (priority, expires, *place, 1)))
    return found


def _in_order(rows: list[Row], lines: list[Document]) -> list[Row]:
    """The rows that some line charges: by the first such line, then zone (none first), class, direction, unsampled first."""
    found = []
    for row in rows:
        numbers = [number for number, line in enumerate(lines) if charges(line, row)]
        if numbers:
            found.append(((numbers[0], row["zone"] or "", row["class"], row["direction"], row["sampled"]), row))
    return [row for _, row in sorted(found, key=lambda pair: pair[0])]


def counts(line: Document, row: Row) -> bool:
    """Whether a row of usage is of a line's direction, classes and zones."""
    return (line["direction"] in ("both", row["direction"])
            and (not line.get("classes") or row["class"] in line["classes"])
            and (not line.get("zones") or row["zone"] in line["zones"]))


def charges(line: Document, row: Row) -> bool:
    """Whether a line of traffic charges a row of usage."""
    return counts(line, row) and not (row["sampled"] and line["sampled"] == "refuse")
