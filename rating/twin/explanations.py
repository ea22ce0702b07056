"""`twin explain PERIOD`: differences that a person accepts, one by one or by rules in a file → rows of twin_explanation.

    [[explanation]]
    line = "Traffic"                  # as we name it
    cause = "line_missing_there"      # as it was found; this or a difference, or both
    difference = "-0.10"              # ours less theirs, in major units
    currency = "EUR"                  # needed with a difference
    service = "S1"                    # only this one; all without it
    reason = "the old billing charges traffic in the month after"

What is accepted is the difference as it is: if it changes, it is open again. A rule is applied to the period at hand and
leaves a row for each difference that it fits; for the next period it is applied once more.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from core import clock, tables
from core.actor import Actor
from core.errors import ImportRefused, NotFound, Problem
from core.periods import format_instant
from rating.twin import causes, charges_file, comparison
from rating.twin.comparison import Compared
from security import audit
from storage import sql, toml_file
from storage.home import Home

COLUMNS = ["period", "service", "line", "currency", "difference_minor", "cause", "reason", "actor", "at"]
CAUSES = (comparison.LINE_MISSING_HERE, comparison.LINE_MISSING_THERE, comparison.SERVICE_UNKNOWN_HERE,
          comparison.SERVICE_UNKNOWN_THERE, comparison.OTHER_CURRENCY, causes.OTHER_QUANTITY, comparison.UNEXPLAINED)
"""What may be accepted: the causes that leave a line open."""
_KEYS = ("line", "cause", "difference", "currency", "service", "reason")


@dataclass(frozen=True)
class Rule:
    """[[explanation]]: which open lines are accepted, and why."""

    line: str
    reason: str
    cause: str = ""
    difference_minor: int | None = None
    currency: str = ""
    service: str = ""

    def fits(self, line: Compared) -> bool:
        return (line.key[1] == self.line and self.cause in ("", line.cause) and self.service in ("", line.key[0])
                and self.currency in ("", line.key[2])
                and self.difference_minor in (None, line.difference_minor))


def explain(home: Home, period: str, rules: Sequence[Rule], actor: Actor, dry_run: bool = False) -> dict[str, Any]:
    """Accept the open differences that the rules fit; the first rule that fits counts. Returns how many, and what remains."""
    found = comparison.compare(home, period)
    accepted = [(line, rule) for line in found.open_lines if (rule := next((r for r in rules if r.fits(line)), None))]
    used = {rule for _, rule in accepted}
    if accepted and not dry_run:
        now = clock.now_ms()
        with sql.transaction(sql.engine(home)) as connection:
            for line, rule in accepted:
                service, name, currency = line.key
                values = {"period": period, "service": service, "line": name, "currency": currency,
                          "difference_minor": line.difference_minor, "cause": line.cause}
                connection.execute(tables.twin_explanation.insert().values(
                    **values, at=now, actor=actor.name, reason=rule.reason))
                audit.record(connection, Actor(actor.name, rule.reason), "twin explain", f"{period} {service}", None, values)
    left = [line for line in found.open_lines if not any(rule.fits(line) for rule in rules)]
    return {"period": period, "accepted": len(accepted), "unexplained_lines": len(left),
            "unexplained_minor": comparison.minor_of(left), "unused_rules": [rule.line for rule in rules if rule not in used]}


def explain_one(home: Home, period: str, service: str, line: str, actor: Actor, dry_run: bool = False) -> dict[str, Any]:
    """Accept what differs on one line of a service. Raises NotFound, saying what is open, if nothing is."""
    found = comparison.compare(home, period, service)
    if not any(row.key[1] == line for row in found.open_lines):
        names = sorted({row.key[1] for row in found.open_lines})
        raise NotFound(f"'{line}' of {service} has no open difference in {period}",
                       f"open are {', '.join(names)}" if names else "all its lines are equal or explained")
    return explain(home, period, [Rule(line, actor.reason, service=service)], actor, dry_run)


def rows(home: Home, period: str) -> list[dict[str, Any]]:
    """What was accepted, in the order in which it was."""
    table = tables.twin_explanation
    with sql.reading(sql.engine(home)) as connection:
        found = connection.execute(sa.select(table).where(table.c.period == period).order_by(table.c.id)).all()
    return [{**row._mapping, "at": format_instant(row.at)} for row in found]


def read_rules(path: Path) -> list[Rule]:
    """The rules of a file. Raises ImportRefused with everything that is wrong with it."""
    document, lines = toml_file.read(path, "write rules for causes instead of one for each line")
    problems = [Problem(str(path), lines.of((name,)), name, f"unknown key '{name}'", "the file has [[explanation]] only")
                for name in document if name != "explanation"]
    listed = document.get("explanation", [])
    if not isinstance(listed, list) or not listed or not all(isinstance(rule, Mapping) for rule in listed):
        problems.append(Problem(str(path), 1, "explanation", "there is no [[explanation]]", "write at least one"))
        listed = []
    rules = []
    for number, rule in enumerate(listed):
        said = list(_problems(rule))
        problems += [Problem(str(path), lines.of(("explanation", number, key)), key, what, hint) for key, what, hint in said]
        if not said:
            difference = rule.get("difference")
            rules.append(Rule(rule["line"], rule["reason"], rule.get("cause", ""),
                              None if difference is None else charges_file.minor(difference, rule["currency"]),
                              rule.get("currency", ""), rule.get("service", "")))
    if problems:
        raise ImportRefused(sorted(problems, key=lambda problem: problem.line))
    return rules


def _problems(rule: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    for key, value in rule.items():
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, 1)
            yield (key, f"unknown key '{key}'" + (f", did you mean '{near[0]}'?" if near else ""),
                   f"the keys are {', '.join(_KEYS)}")
        elif not isinstance(value, str) or not value.strip():
            yield key, f"{key} is not a text", "write it in quotes; amounts too, so that they are exact"
            return
    for key in ("line", "reason"):
        if key not in rule:
            yield key, f"{key} is missing", "say which line is accepted, and why"
    cause = rule.get("cause", "")
    if cause and cause not in CAUSES:
        yield "cause", f"'{cause}' is no cause that leaves a line open", f"it is one of {', '.join(CAUSES)}"
    if "difference" in rule:
        try:
            charges_file.minor(rule["difference"], rule.get("currency", ""))
        except ValueError as error:
            yield "difference", str(error), 'for example difference = "-0.10" and currency = "EUR"'
    elif not cause or cause == comparison.UNEXPLAINED:
        yield "line", "the rule would accept whatever differs", "name a cause that was found, or the difference"
