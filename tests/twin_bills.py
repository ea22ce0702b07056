"""Bills made by hand: a service with its plans and usage, and what another billing charges for its lines."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from typing import Any

from core.periods import parse_instant
from rating import engine
from rating.twin import causes
from rating.twin.bills import Bill
from rating.twin.causes import Cause, Line
from rating.twin.charges_file import TheirCharge

PERIOD = "2026-10"
PERCENTS = {"standard": {Fraction(19), Fraction(16)}}


def plan(name: str = "home", **lines: Any) -> dict[str, Any]:
    """A plan's stored document."""
    document = {"name": name, "from": "2026-01-01", "currency": "EUR", "tax": "standard", "prices": "exclusive",
                "calendar": None, "fee": [], "traffic": [], "percentile": []}
    return {**document, **lines}


def fee(amount: str = "30.00", **keys: str) -> dict[str, Any]:
    return {"name": "Home", "amount": amount, "every": "month", "when": "arrears", "proration": "actual_days", **keys}


def traffic(**keys: Any) -> dict[str, Any]:
    return {"name": "Traffic", "direction": "both", "classes": [], "zones": [], "included": "0 B", "above": "excess",
            "price": "0.50", "unit": "GB", "sampled": "refuse", **keys}


def subscription(start: str = "2026-01-01", end: str = "", number: int = 1, of: str = "home", **keys: Any
                 ) -> engine.Subscription:
    return engine.Subscription(id=number, service="S1", plan=of, start=date.fromisoformat(start) if start else None,
                               end=date.fromisoformat(end) if end else None, timezone="Europe/Berlin", currency="EUR", **keys)


def usage(instant: str, octets: int, number: int = 1) -> dict[str, Any]:
    return {"subscription": number, "hour": parse_instant(instant), "zone": None, "class": "default", "direction": "down",
            "sampled": False, "octets": octets}


def bill(*documents: dict[str, Any], subscriptions: list[engine.Subscription] | None = None,
         hours: list[dict[str, Any]] | None = None, amounts: str = "net") -> Bill:
    return Bill(PERIOD, subscriptions or [subscription("2026-10-16")], documents, lambda: hours or [], list,
                lambda category, day: Fraction(19), amounts)


def cause(of: Bill, theirs: int, line: str = "Home", rows: int = 1, quantity: str = "", tax: int | None = None) -> Cause | None:
    """The cause that is found where the other billing charges `theirs` minor units for a line."""
    charges = [charge for charge in of.rate() if charge.line == line]
    their_rows = [TheirCharge(number, "S1", line, line, "", theirs if number == 0 else 0, "EUR", quantity, tax)
                  for number in range(rows)]
    key = (line, "EUR")
    asked = Line(key, charges, their_rows, of.compared(charges)[key], theirs)
    assert asked.difference_minor, "a cause is asked for where amounts differ"
    return causes.find(of, [asked], PERCENTS).get(key)
