"""Another price: whether one price explains a line for every service of a plan.

Any single difference could be called another price, so one is accepted only if the same price gives their amounts to the
last minor unit for all services of the plan on that line, also for those whose amounts are equal, and there are at least
two. The price with the fewest decimals is told.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from math import ceil, floor
from typing import NamedTuple

from core import money
from rating import engine
from rating.plans import LINE_KINDS
from rating.twin.bills import Document, figure

SERVICES_MIN = 2
DECIMALS_MAX = 9
TRIED_MAX = 100
"""Prices of one number of decimals that are tried: more fit only where the quantities are too small to tell."""


class Sample(NamedTuple):
    """A line of a service that is charged by quantity times price: its rows, and what they bill for it."""

    service: str
    rows: Sequence[engine.Charge]
    percents: Sequence[Fraction]
    theirs_minor: int


def other_price(samples: Sequence[Sample], rounding: str, amounts: str, fits: Callable[[str], bool] = lambda price: True
                ) -> str | None:
    """The price as text that gives what they bill for every service; None if there is none. `fits` judges it for services
    whose amounts are not simply quantity times price."""
    samples = [sample for sample in samples if any(Fraction(row.quantity) for row in sample.rows)]
    if len({sample.service for sample in samples}) < SERVICES_MIN:
        return None
    ours = {row.unit_price for sample in samples for row in sample.rows}
    for price in _candidates(samples, rounding, amounts):
        text = engine.decimal_text(price)
        if all(_billed(sample, price, rounding, amounts) == sample.theirs_minor for sample in samples) and fits(text):
            return None if ours == {text} else text
    return None


def _billed(sample: Sample, price: Fraction, rounding: str, amounts: str) -> int:
    total = 0
    for row, percent in zip(sample.rows, sample.percents, strict=True):
        amount = Fraction(row.quantity) * price * 10 ** money.minor_digits(row.currency)
        total += figure(money.ROUNDING[rounding](amount), row.gross_minor is not None, amounts, percent)
    return total


def _candidates(samples: Iterable[Sample], rounding: str, amounts: str) -> Iterator[Fraction]:
    """Prices that can give all amounts, from few decimals to many."""
    ranges = [_range(sample, rounding, amounts) for sample in samples]
    low, high = max(low for low, _ in ranges), min(high for _, high in ranges)
    tried: set[Fraction] = set()
    for digits in range(DECIMALS_MAX + 1):
        first, last = ceil(low * 10**digits), floor(high * 10**digits)
        for number in range(first, min(last, first + TRIED_MAX - 1) + 1):
            price = Fraction(number, 10**digits)
            if price not in tried:
                tried.add(price)
                yield price


def _range(sample: Sample, rounding: str, amounts: str) -> tuple[Fraction, Fraction]:
    """The prices between which one must lie that gives a sample's amount: each row is rounded by half a minor unit at most,
    or by less than one, and once more if the tax is added or taken out."""
    digits = money.minor_digits(sample.rows[0].currency)
    rounds_twice = any((row.gross_minor is not None) != (amounts == "gross") for row in sample.rows)
    quantity = sum((Fraction(row.quantity) * _factor(row, percent, amounts)
                    for row, percent in zip(sample.rows, sample.percents, strict=True)), Fraction(0)) * 10**digits
    a_row = (Fraction(1, 2) if rounding.startswith("half") else Fraction(1)) * (2 if rounds_twice else 1)
    slack = a_row * len(sample.rows)
    return (sample.theirs_minor - slack) / quantity, (sample.theirs_minor + slack) / quantity


def _factor(row: engine.Charge, percent: Fraction, amounts: str) -> Fraction:
    """What an amount of the plan is multiplied by to be what is compared."""
    inclusive = row.gross_minor is not None
    if inclusive == (amounts == "gross"):
        return Fraction(1)
    return Fraction(100) / (100 + percent) if inclusive else (100 + percent) / Fraction(100)


def priced(documents: Iterable[Document], plan: str, version: str, line: str, price: str) -> list[Document]:
    """The plans with another price on one line of one of them."""
    edited = copy.deepcopy(list(documents))
    for document in edited:
        if (document["name"], document["from"]) == (plan, version):
            for kind in LINE_KINDS:
                for part in document.get(kind, ()):
                    if part["name"] == line:
                        part["price" if kind in ("traffic", "percentile") else "amount"] = price
    return edited
