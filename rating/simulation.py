"""Plans tried on an imaginary subscription: `plans simulate`, and the examples that a plan file carries (`plans test`).

Both engines rate it, the one that makes charges and the one that verifies them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Any

from core import money, settings
from core.errors import Problem
from core.units import parse_octets
from rating import engine, frozen, linter, plans, recomputation
from rating.inputs import Terms

Document = Mapping[str, Any]
NUMBER = 1
"""Row id of the imaginary subscription."""


@dataclass(frozen=True)
class Case:
    """A month of an imaginary subscription."""

    period: str
    start: date | None
    end: date | None
    usage: Sequence[engine.Usage]
    timezone: str = "UTC"


@dataclass(frozen=True)
class Outcome:
    """What a line of an example was to come to, and does, in minor units, by each engine; the line '' is the total."""

    plan: str
    example: str
    line: str
    expected: int
    first: int
    second: int
    currency: str
    at: int  # line of the file

    @property
    def holds(self) -> bool:
        return self.expected == self.first == self.second

    def row(self) -> dict[str, Any]:
        shown = {name: money.format_minor(getattr(self, name), self.currency) for name in ("expected", "first", "second")}
        return {"plan": self.plan, "example": self.example, "line": self.line or "total", **shown, "holds": self.holds}


COLUMNS = ("plan", "example", "line", "expected", "first", "second", "holds")


def charges(document: Document, case: Case, rates: Sequence[settings.TaxRate]) -> list[engine.Charge]:
    """The charges of the case under a plan, by the engine, in the order of the plan."""
    inputs = _inputs(document, case, rates)
    (row,) = inputs.subscriptions
    stretch = engine.stretch_of(row, inputs.catalogue, case.period)
    return [] if stretch is None else engine.charge(stretch, case.usage, engine.NO_SLOTS, inputs.percent_on)


def _inputs(document: Document, case: Case, rates: Sequence[settings.TaxRate]) -> engine.Inputs:
    plan = plans.parse(document)
    row = engine.Subscription(NUMBER, "example", plan.name, case.start, case.end, case.timezone, plan.currency, is_first=True,
                              is_addon=plan.is_addon)
    return engine.Inputs(case.period, [row], plans.Catalogue([plan]), {NUMBER: case.usage}, {},
                         lambda category, day: settings.percent_on(rates, category, day))


def charges_again(document: Document, case: Case, rates: Sequence[settings.TaxRate]) -> list[dict[str, Any]]:
    """The same by the second engine, as rows."""
    inputs = _inputs(document, case, rates)
    terms = Terms(inputs.subscriptions, {NUMBER: NUMBER}, inputs.catalogue, rates)
    usage = [{"subscription": NUMBER, "zone": row.zone, "class": row.class_, "direction": row.direction, "sampled": row.sampled,
              "octets": row.octets} for row in case.usage]
    tax = [{"category": rate.category, "percent": str(rate.percent), "from": rate.from_.isoformat()} for rate in rates]
    return recomputation.charges(case.period, frozen.rows_of_terms(terms), [dict(document)], tax, usage, [])


def run_examples(linted: linter.Linted, rates: Sequence[settings.TaxRate]) -> Iterator[Outcome]:
    """Every expectation of every example of a file that was found right."""
    for example in linted.examples:
        document = linted.plans[example.plan]
        wanted = example.document
        case = Case(wanted["period"], _day(wanted.get("from")), _day(wanted.get("to")), [
            engine.Usage(row["zone"], row["class"], row["direction"], row["sampled"], parse_octets(row["volume"]))
            for row in wanted["usage"]])
        first = _sums((row.line, engine.amount_of(row)) for row in charges(document, case, rates))
        second = _sums((row["line"], row["net_minor"] if row["gross_minor"] is None else row["gross_minor"])
                       for row in charges_again(document, case, rates))
        expected = dict(wanted["expect"])
        if "total" in wanted:
            expected[""] = wanted["total"]
        for line, amount in expected.items():
            yield Outcome(document["name"], wanted["name"], line,
                          money.round_half_up(Fraction(amount) * 10 ** money.minor_digits(document["currency"])),
                          first.get(line, 0), second.get(line, 0), document["currency"], example.line)


def problems_of(file: str, linted: linter.Linted, rates: Sequence[settings.TaxRate]) -> list[Problem]:
    """The examples that fail, as problems of the file."""
    found = []
    for outcome in run_examples(linted, rates):
        if not outcome.holds:
            row = outcome.row()
            said = row["first"] if outcome.first == outcome.second else f"{row['first']} (the second engine: {row['second']})"
            found.append(Problem(file, outcome.at, "expect", f"example '{outcome.example}': {row['line']} comes to {said}, not "
                                 f"{row['expected']}", "correct the plan, or the example"))
    return found


def _sums(amounts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """By line; '' is the total."""
    found: dict[str, int] = {}
    for line, minor in amounts:
        for name in (line, ""):
            found[name] = found.get(name, 0) + minor
    return found


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


_USAGE = re.compile(r"\s*(\d+(?:\.\d+)?\s*[A-Za-z]+)((?:\s+\S+)*)\s*")


def parse_usage(text: str, zones: Iterable[str]) -> engine.Usage:
    """'120 GB down day peering' → usage: a volume, then in any order a direction (down), a zone of the calendar, a class
    (default). Raises ValueError."""
    match = _USAGE.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' does not begin with a volume, as \"120 GB down day\" does")
    zone, class_, direction = None, "default", "down"
    for word in match[2].split():
        if word in ("up", "down"):
            direction = word
        elif word in zones:
            zone = word
        else:
            class_ = word
    return engine.Usage(zone, class_, direction, False, parse_octets(match[1]))
