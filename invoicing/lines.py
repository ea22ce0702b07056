"""What is compared and booked: charges, what was booked of them before, and the lines that make up the difference.

Pure values and functions. Bill by difference: lines = charges now - what is booked, charge by charge, so that a second
run books nothing and the sum of all lines ever booked is the charge as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple


class Key(NamedTuple):
    """What makes a charge this charge. A charge whose key changes is cancelled and charged anew, whole.

    The tax is part of it: money booked at one percentage is never set off against money at another.
    """

    service: str
    plan: str
    plan_version: str
    start: str
    end: str
    line: str
    kind: str
    zone: str | None
    class_: str | None
    direction: str | None
    unit: str
    unit_price: str
    currency: str
    tax_category: str
    tax_percent: str


class Charge(NamedTuple):
    """A rated charge; `bookable` says whether it may be booked now."""

    key: Key
    quantity: str
    net_minor: int
    gross_minor: int | None
    bookable: bool


class Booked(NamedTuple):
    """All that is booked of a charge so far; the quantity is the one booked last."""

    quantity: str
    net_minor: int
    gross_minor: int | None


class Line(NamedTuple):
    """A line to be booked.

    A correction carries the new quantity and the difference in money; a cancellation carries the quantity 0.
    """

    period: str
    key: Key
    nature: str  # charge, correction or cancellation
    quantity: str
    before: str | None  # the quantity booked so far
    net_minor: int
    gross_minor: int | None

    @property
    def tax_category(self) -> str:
        return self.key.tax_category

    @property
    def tax_percent(self) -> str:
        return self.key.tax_percent


def accumulate(booked: dict[Key, Booked], key: Key, quantity: str, net_minor: int, gross_minor: int | None) -> None:
    """Add a booked line, in the order of booking, to what is booked of its charge."""
    before = booked.get(key)
    if before is None:
        booked[key] = Booked(quantity, net_minor, gross_minor)
    else:
        gross = None if before.gross_minor is None else before.gross_minor + (gross_minor or 0)
        booked[key] = Booked(quantity, before.net_minor + net_minor, gross)


def differences(period: str, charges: Iterable[Charge], booked: Mapping[Key, Booked]) -> Iterator[Line]:
    """The lines that lead from what is booked to the charges: first in the order of the charges, then what vanished."""
    seen: set[Key] = set()
    for charge in charges:
        seen.add(charge.key)
        before = booked.get(charge.key)
        if before is None:
            if charge.bookable:
                yield Line(period, charge.key, "charge", charge.quantity, None, charge.net_minor, charge.gross_minor)
        elif (charge.net_minor, charge.gross_minor) != (before.net_minor, before.gross_minor):
            gross = None if charge.gross_minor is None else charge.gross_minor - (before.gross_minor or 0)
            net = charge.net_minor - before.net_minor
            yield Line(period, charge.key, "correction", charge.quantity, before.quantity, net, gross)
    for key in sorted(booked.keys() - seen, key=_sort_key):
        before = booked[key]
        if before.net_minor or before.gross_minor:
            gross = None if before.gross_minor is None else -before.gross_minor
            yield Line(period, key, "cancellation", "0", before.quantity, -before.net_minor, gross)


def is_worth_an_invoice(lines: Iterable[Line], tax_policy: str) -> bool:
    """An account whose lines are all 0 gets no invoice; where the gross is kept, a cent of gross alone is worth one."""
    return any(line.net_minor or (tax_policy == "gross_kept" and line.gross_minor) for line in lines)


def _sort_key(key: Key) -> tuple[str, ...]:
    return tuple(part or "" for part in key)
