"""Plans as the rating knows them: frozen dataclasses, built from the JSON document of a stored plan version.

A document has the keys of plans.toml (texts as the provider wrote them, defaults filled in); `rating.linter` makes it
from TOML, `rating.apply` stores it, `parse` reads it. Prices stay texts here, so that an invoice shows the plan's own;
`Fraction(text)` is their exact value.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Any

from core.units import OCTET_UNITS, RATE_UNITS, parse_octets, parse_quantity

EVERY = ("day", "month", "quarter", "year")
WHEN = ("advance", "arrears")
PRORATION = ("actual_days", "thirty_day_month", "to_the_second", "daily", "whole_period", "none")
DIRECTIONS = ("up", "down", "both")
ABOVE = ("excess", "all")
SAMPLED = ("refuse", "allow")
CONVENTIONS = ("higher_direction", "per_sample_max", "sum")
MISSING = ("zero", "left_out")
PRICES = ("exclusive", "inclusive")
MONTHS = {"month": 1, "quarter": 3, "year": 12}
"""Length of what a fee is for, in months; a day is none."""


@dataclass(frozen=True, slots=True)
class Fee:
    """[[plan.fee]]: an amount for each day, month, quarter or year."""

    name: str
    amount: str
    every: str
    when: str
    proration: str


@dataclass(frozen=True, slots=True)
class Traffic:
    """[[plan.traffic]]: a price a unit of volume, above what is included. Empty classes or zones mean all."""

    name: str
    direction: str
    classes: tuple[str, ...]
    zones: tuple[str, ...]
    included: int  # octets
    above: str
    price: str
    unit: str
    sampled: str

    @property
    def unit_octets(self) -> int:
        return OCTET_UNITS[self.unit]

    def matches(self, zone: str | None, class_: str, direction: str) -> bool:
        """Whether usage is of this line, sampled or not."""
        return (self.direction in ("both", direction) and (not self.classes or class_ in self.classes)
                and (not self.zones or zone in self.zones))


@dataclass(frozen=True, slots=True)
class Percentile:
    """[[plan.percentile]]: a price a unit of speed, of the n-th percentile of the 5-minute slots."""

    name: str
    percentile: Fraction
    convention: str
    missing: str
    committed: Fraction  # bits a second
    price: str
    unit: str

    @property
    def unit_bits(self) -> int:
        return RATE_UNITS[self.unit]


@dataclass(frozen=True, slots=True)
class Plan:
    """One version of a plan."""

    name: str
    valid_from: date
    currency: str
    tax: str
    inclusive: bool
    calendar: str | None
    fees: tuple[Fee, ...]
    traffic: tuple[Traffic, ...]
    percentiles: tuple[Percentile, ...]

    @property
    def version(self) -> str:
        return self.valid_from.isoformat()


def parse(document: Mapping[str, Any]) -> Plan:
    """The plan that `plan_version.document` holds."""
    return Plan(
        name=document["name"], valid_from=date.fromisoformat(document["from"]), currency=document["currency"],
        tax=document["tax"], inclusive=document["prices"] == "inclusive", calendar=document["calendar"],
        fees=tuple(Fee(**line) for line in document["fee"]),
        traffic=tuple(_traffic(line) for line in document["traffic"]),
        percentiles=tuple(_percentile(line) for line in document["percentile"]))


def _traffic(line: Mapping[str, Any]) -> Traffic:
    return Traffic(name=line["name"], direction=line["direction"], classes=tuple(line["classes"]),
                   zones=tuple(line["zones"]), included=parse_octets(line["included"]), above=line["above"],
                   price=line["price"], unit=line["unit"], sampled=line["sampled"])


def _percentile(line: Mapping[str, Any]) -> Percentile:
    return Percentile(name=line["name"], percentile=Fraction(line["percentile"]), convention=line["convention"],
                      missing=line["missing"], committed=parse_quantity(line["committed"], RATE_UNITS),
                      price=line["price"], unit=line["unit"])


def canonical(document: Mapping[str, Any]) -> str:
    """A document as the one JSON text that has its content."""
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(document).encode()).hexdigest()


class Catalogue:
    """All plan versions, to find the one that a subscription is under."""

    def __init__(self, plans: Iterable[Plan]) -> None:
        self._versions: dict[str, list[Plan]] = {}
        for plan in sorted(plans, key=lambda plan: plan.valid_from):
            self._versions.setdefault(plan.name, []).append(plan)

    def in_force(self, name: str | None, start: date | None) -> Plan | None:
        """The version of plan `name` for a row that starts on `start` (None: since ever); a row that is older than the plan
        takes its earliest version. None without a plan."""
        versions: Sequence[Plan] = self._versions.get(name or "", ())
        if not versions:
            return None
        if start is None:
            return versions[0]
        return next((plan for plan in reversed(versions) if plan.valid_from <= start), versions[0])
