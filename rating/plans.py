"""Plans as the rating knows them: frozen dataclasses, built from the JSON document of a stored plan version.

A document has the keys of plans.toml (texts as the provider wrote them, defaults filled in); `rating.linter` makes it
from TOML, `rating.apply` stores it, `parse` reads it. Prices stay texts here, so that an invoice shows the plan's own;
`Fraction(text)` is their exact value.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Any

from core import money
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
MODELS = ("graduated", "volume")
ON = ("activation", "start", "change", "end", "early_end")
DURING = ("always", "active", "suspension", "vacation")
ACTIONS = ("notify", "slow_down", "block", "buy")
GIVEN = ("each_period", "once")
SHARES = ("actual_days", "whole_period")
"""How a part of a month shares in an amount or volume that is for a whole one."""
ROUNDING = money.ROUNDING
LINE_KINDS = ("fee", "once", "traffic", "percentile", "quota", "minimum", "maximum", "discount")
"""Tables of lines in a plan, in the order in which they are charged."""
MONTHS = {"month": 1, "quarter": 3, "year": 12}
"""Length of what a fee is for, in months; a day is none."""


@dataclass(frozen=True, slots=True)
class Fee:
    """[[plan.fee]]: an amount for each day, month, quarter or year, charged while the service is what `during` says."""

    name: str
    amount: str
    every: str
    when: str
    proration: str
    during: str = "always"
    tax: str = ""  # empty: the plan's


@dataclass(frozen=True, slots=True)
class Once:
    """[[plan.once]]: an amount at one event. At an early end it may be a percentage of a fee's remaining amounts."""

    name: str
    on: str
    amount: str = "0"
    percent: str = ""
    of: str = ""
    tax: str = ""


@dataclass(frozen=True, slots=True)
class Tier:
    """A range of volume, up to and with `to` octets (None: without end): a price a unit, or a started block, and what the
    range costs as soon as it is reached."""

    to: int | None
    price: str
    flat: str
    block: int | None  # octets


class _Meter:
    """What lines that count traffic have in common. Empty classes or zones mean all."""

    direction: str
    classes: tuple[str, ...]
    zones: tuple[str, ...]

    def matches(self, zone: str | None, class_: str, direction: str) -> bool:
        """Whether usage is of this line, sampled or not."""
        return (self.direction in ("both", direction) and (not self.classes or class_ in self.classes)
                and (not self.zones or zone in self.zones))


@dataclass(frozen=True)
class Traffic(_Meter):
    """[[plan.traffic]]: a price a unit or a started block of volume, or tiers of prices, above what is included."""

    name: str
    direction: str
    classes: tuple[str, ...]
    zones: tuple[str, ...]
    included: int  # octets
    above: str
    price: str  # empty with tiers
    unit: str
    sampled: str
    block: int | None = None  # octets
    block_text: str = ""
    model: str = ""  # empty: one price
    tiers: tuple[Tier, ...] = ()
    tax: str = ""

    @property
    def unit_octets(self) -> int:
        return OCTET_UNITS[self.unit]


@dataclass(frozen=True)
class Quota(_Meter):
    """[[plan.quota]]: a volume that lines of traffic share, used up before they charge; what is left may roll over."""

    name: str
    volume: int  # octets
    unit: str
    direction: str
    classes: tuple[str, ...]
    zones: tuple[str, ...]
    given: str = "each_period"
    share: str = "whole_period"
    priority: int = 0
    rollover_cap: int = 0  # octets
    rollover_periods: int = 0


@dataclass(frozen=True)
class FairUse(_Meter):
    """[[plan.fair_use]]: what is done once a volume is reached in a month, until the month ends."""

    name: str
    threshold: int  # octets
    direction: str
    classes: tuple[str, ...]
    zones: tuple[str, ...]
    sampled: str
    action: str
    speed: str = ""
    package: str = ""
    times_max: int = 1


@dataclass(frozen=True, slots=True)
class Bound:
    """[[plan.minimum]], [[plan.maximum]]: the least or the most that some lines come to. Empty lines mean all."""

    name: str
    amount: str
    lines: tuple[str, ...]
    share: str
    tax: str = ""


@dataclass(frozen=True, slots=True)
class Discount:
    """[[plan.discount]]: a percentage of some lines, or an amount a month, for months counted from the subscription's start.
    `of` says whether the lines are the plan's own or, in an add-on, those of the service's plan."""

    name: str
    percent: str
    amount: str
    lines: tuple[str, ...]
    of: str = "own"
    after_months: int = 0
    months: int | None = None
    starts_from: date | None = None
    starts_until: date | None = None
    beside: tuple[str, ...] = ()
    tax: str = ""


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
    tax: str = ""

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
    once: tuple[Once, ...] = ()
    quotas: tuple[Quota, ...] = ()
    minimums: tuple[Bound, ...] = ()
    maximums: tuple[Bound, ...] = ()
    discounts: tuple[Discount, ...] = ()
    fair_use: tuple[FairUse, ...] = ()
    billing_day: int | None = 1  # None: the day of the subscription's start
    rounding: str = "half_up"
    contract_months: int = 0
    is_addon: bool = False
    audience: str = "consumer"

    @property
    def version(self) -> str:
        return self.valid_from.isoformat()

    def round(self, minor: Fraction) -> int:
        """An exact amount in minor units → whole ones, by the plan's rule."""
        return money.ROUNDING[self.rounding](minor)


def parse(document: Mapping[str, Any]) -> Plan:
    """The plan that `plan_version.document` holds."""
    return Plan(
        name=document["name"], valid_from=date.fromisoformat(document["from"]), currency=document["currency"],
        tax=document["tax"], inclusive=document["prices"] == "inclusive", calendar=document["calendar"],
        fees=tuple(Fee(**line) for line in document["fee"]),
        traffic=tuple(_traffic(line) for line in document["traffic"]),
        percentiles=tuple(_percentile(line) for line in document["percentile"]),
        once=tuple(Once(**line) for line in document.get("once", ())),
        quotas=tuple(_quota(line) for line in document.get("quota", ())),
        minimums=tuple(_bound(line) for line in document.get("minimum", ())),
        maximums=tuple(_bound(line) for line in document.get("maximum", ())),
        discounts=tuple(_discount(line) for line in document.get("discount", ())),
        fair_use=tuple(_fair_use(line) for line in document.get("fair_use", ())),
        billing_day=None if document.get("billing_day") == "anniversary" else document.get("billing_day", 1),
        rounding=document.get("rounding", "half_up"),
        contract_months=document.get("contract", {}).get("months", 0), is_addon=document.get("addon", False),
        audience=document.get("audience", "consumer"))


def _traffic(line: Mapping[str, Any]) -> Traffic:
    block, tiers = line.get("block"), line.get("tiers", ())
    unit = line.get("unit") or unit_of(block or tiers[0]["block"])
    return Traffic(name=line["name"], direction=line["direction"], classes=tuple(line["classes"]),
                   zones=tuple(line["zones"]), included=parse_octets(line["included"]), above=line["above"],
                   price=line.get("price", ""), unit=unit,
                   sampled=line["sampled"], block=None if block is None else parse_octets(block), block_text=block or "",
                   model=line.get("model", ""), tiers=tuple(_tier(tier) for tier in tiers),
                   tax=line.get("tax", ""))


def _tier(tier: Mapping[str, Any]) -> Tier:
    to, block = tier.get("to"), tier.get("block")
    return Tier(to=None if to is None else parse_octets(to), price=tier["price"], flat=tier.get("flat", "0"),
                block=None if block is None else parse_octets(block))


def _quota(line: Mapping[str, Any]) -> Quota:
    rollover = line.get("rollover", {})
    return Quota(name=line["name"], volume=parse_octets(line["volume"]), unit=unit_of(line["volume"]),
                 direction=line["direction"], classes=tuple(line.get("classes", ())), zones=tuple(line.get("zones", ())),
                 given=line.get("given", "each_period"), share=line.get("share", "whole_period"),
                 priority=line.get("priority", 0), rollover_cap=parse_octets(rollover.get("cap", "0 B")),
                 rollover_periods=rollover.get("periods", 0))


def _fair_use(line: Mapping[str, Any]) -> FairUse:
    return FairUse(name=line["name"], threshold=parse_octets(line["threshold"]), direction=line["direction"],
                   classes=tuple(line.get("classes", ())), zones=tuple(line.get("zones", ())),
                   sampled=line.get("sampled", "refuse"), action=line["action"], speed=line.get("speed", ""),
                   package=line.get("package", ""), times_max=line.get("times_max", 1))


def _bound(line: Mapping[str, Any]) -> Bound:
    return Bound(name=line["name"], amount=line["amount"], lines=tuple(line.get("lines", ())), share=line["share"],
                 tax=line.get("tax", ""))


def _discount(line: Mapping[str, Any]) -> Discount:
    day = {name: date.fromisoformat(line[name]) for name in ("starts_from", "starts_until") if name in line}
    return Discount(name=line["name"], percent=line.get("percent", ""), amount=line.get("amount", ""),
                    lines=tuple(line.get("lines", ())), of=line.get("of", "own"),
                    after_months=line.get("after_months", 0), months=line.get("months"),
                    starts_from=day.get("starts_from"), starts_until=day.get("starts_until"),
                    beside=tuple(line.get("beside", ())), tax=line.get("tax", ""))


def unit_of(volume: str) -> str:
    """'100 GB' → 'GB'."""
    return volume.lstrip("0123456789. ").strip()


def _percentile(line: Mapping[str, Any]) -> Percentile:
    return Percentile(name=line["name"], percentile=Fraction(line["percentile"]), convention=line["convention"],
                      missing=line["missing"], committed=parse_quantity(line["committed"], RATE_UNITS),
                      price=line["price"], unit=line["unit"], tax=line.get("tax", ""))


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

    def all(self) -> Iterator[Plan]:
        """Every version of every plan."""
        for versions in self._versions.values():
            yield from versions

    def in_force(self, name: str | None, start: date | None) -> Plan | None:
        """The version of plan `name` for a row that starts on `start` (None: since ever); a row that is older than the plan
        takes its earliest version. None without a plan."""
        versions: Sequence[Plan] = self._versions.get(name or "", ())
        if not versions:
            return None
        if start is None:
            return versions[0]
        return next((plan for plan in reversed(versions) if plan.valid_from <= start), versions[0])
