"""What the law of a country says, by date: data/markets/CODE.toml, with the source of each fact.

A home names its market in `[seller] market`; without one nothing here applies.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from functools import cache
from typing import Any

from core.product import data_file


@dataclass(frozen=True)
class VatRate:
    """The percentage of a tax category from a date of supply on."""

    category: str
    percent: Fraction
    from_: date
    source: str


@dataclass(frozen=True)
class Rule:
    """A rule that holds from a day on."""

    from_: date
    source: str


@dataclass(frozen=True)
class ContractTerm:
    """The longest first term of a consumer's contract, and the longest notice behind it, in months."""

    months_max: int
    notice_months_max: int
    from_: date
    source: str


@dataclass(frozen=True)
class Market:
    """The facts of one country."""

    code: str
    name: str
    country: str
    currency: str
    tax_policy: str
    vat: Sequence[VatRate]
    net_neutrality: Rule | None
    contract: ContractTerm | None
    taxes_advances: bool

    def vat_on(self, category: str, day: date) -> VatRate | None:
        """The rate of a category by date of supply; None for a category that the market's file does not know."""
        valid = [rate for rate in self.vat if rate.category == category and rate.from_ <= day]
        return max(valid, key=lambda rate: rate.from_, default=None)

    def advance_share(self, category: str, day: date) -> Fraction | None:
        """The part of an advance payment that is its tax (20/120); None where advances are not taxed."""
        rate = self.vat_on(category, day)
        return rate.percent / (100 + rate.percent) if self.taxes_advances and rate is not None else None


def codes() -> list[str]:
    """The markets that are shipped."""
    return sorted(path.stem for path in data_file("markets").glob("*.toml"))


@cache
def load(code: str) -> Market:
    """A market by its code, one of `codes()`."""
    document: dict[str, Any] = tomllib.loads(data_file("markets", f"{code}.toml").read_text(encoding="utf-8"))
    neutrality, contract = document.get("net_neutrality"), document.get("contract")
    return Market(
        code=code, name=document["name"], country=document["country"], currency=document["currency"],
        tax_policy=document["tax_policy"],
        vat=tuple(VatRate(rate["category"], Fraction(rate["percent"]), rate["from"], rate["source"])
                  for rate in document["vat"]),
        net_neutrality=None if neutrality is None else Rule(neutrality["from"], neutrality["source"]),
        contract=None if contract is None else ContractTerm(
            contract["months_max"], contract["notice_months_max"], contract["from"], contract["source"]),
        taxes_advances=document.get("advances", {}).get("taxed", False))
