"""`plans offer`: for a customer who is not one yet. Questions answered → plans with their full price, cheapest first.

The price is the engine's for an imaginary subscription that begins on the first of the coming month: the first month with what
is charged once, and the twelve months with discounts, tax included. Volume is spread over the zones of a plan's calendar by
their hours, unless shares are named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from core import calendars, clock, money, periods, settings
from core.errors import UsageError
from core.product import data_file
from core.units import parse_octets
from rating import engine, plans, simulation, stored
from rating.quotas import later
from storage import sql, toml_file
from storage.home import Home

COLUMNS = ("rank", "plan", "version", "first_month", "year", "month", "contract_months", "octets", "currency", "note")
MONTHS = 12
GIGABYTE = 10**9
FILE = "household_usage.toml"


@dataclass(frozen=True)
class Answers:
    """What a customer says: octets a month, or people and what they do; shares of zones in percent; the longest contract."""

    people: int
    uses: Sequence[str]
    volume: str
    shares: Mapping[str, int]
    term_max: int
    audience: str


def offer(home: Home, answers: Answers) -> list[dict[str, Any]]:
    """One row a plan in force. Raises UsageError for a use or a volume that is not known."""
    table = _table(home)
    octets = estimate(answers, table["gigabytes_a_person"])
    with sql.reading(sql.engine(home)) as connection:
        offered, documents, by_calendar = _in_force(connection, answers)
    rates = settings.tax_rates(home.document)
    percent_on = partial(settings.percent_on, rates)
    seller = settings.seller(home.document)
    first = later(periods.local_date(clock.now_ms(), seller.timezone).isoformat()[:7], 1)
    found = []
    for plan in offered:
        usage = _usage(plan, octets, table["upload_percent"], answers.shares, by_calendar.get(plan.calendar or "", []), first)
        case = [simulation.Case(later(first, month), periods.period_first_day(first), None, usage, seller.timezone)
                for month in range(MONTHS)]
        gross = [engine.net_and_gross(simulation.charges(documents[plan.name, plan.version], one, rates), percent_on)[1]
                 for one in case]
        found.append({"plan": plan.name, "version": plan.version, "first_month": gross[0], "year": sum(gross),
                      "month": money.round_half_up(Fraction(sum(gross), MONTHS)),
                      "contract_months": plan.contract_months or None, "octets": octets, "currency": plan.currency,
                      "note": "its percentile is reckoned without usage" if plan.percentiles else None})
    found.sort(key=lambda row: (row["note"] is not None, row["year"], row["plan"]))
    return [{"rank": rank, **row} for rank, row in enumerate(found, 1)]


def _table(home: Home) -> dict[str, Any]:
    """The provider's own figures, or those that are shipped. Raises ImportRefused and UsageError for a file that is wrong."""
    own = home.path / FILE
    path: Path = own if own.exists() else data_file(FILE)
    found, _ = toml_file.read(path, "a line for each use is enough")
    uses = found.get("gigabytes_a_person")
    figures = [found.get("upload_percent"), *(uses.values() if isinstance(uses, dict) else [None])]
    if not all(type(figure) is int and figure >= 0 for figure in figures) or found["upload_percent"] > 100:
        raise UsageError(f"{path} holds something else than whole numbers",
                         "write upload_percent = 10, at most 100, and [gigabytes_a_person] with a line for each use")
    return found


def estimate(answers: Answers, gigabytes: Mapping[str, int]) -> int:
    """Octets a month: what was named, or the sum over what people do."""
    if answers.volume:
        try:
            return parse_octets(answers.volume)
        except ValueError as error:
            raise UsageError(str(error), 'write --volume "400 GB"') from None
    unknown = [use for use in answers.uses if use not in gigabytes]
    if unknown or not answers.uses:
        raise UsageError(f"'{unknown[0]}' is no use" if unknown else "neither a volume nor a use is named",
                         f"the uses are {', '.join(gigabytes)}; or write --volume \"400 GB\"")
    return answers.people * sum(gigabytes[use] for use in answers.uses) * GIGABYTE


def _in_force(connection: sa.Connection, answers: Answers
              ) -> tuple[list[plans.Plan], dict[tuple[str, str], Any], dict[str, list[calendars.CalendarVersion]]]:
    documents = {(one["name"], one["from"]): one for one in stored.load_plan_documents(connection)}
    today = periods.local_date(clock.now_ms(), "UTC")
    newest: dict[str, plans.Plan] = {}
    for document in documents.values():
        plan = plans.parse(document)
        if plan.valid_from <= today and not plan.is_addon and plan.audience == answers.audience and (
                not answers.term_max or plan.contract_months <= answers.term_max):
            newest[plan.name] = plan
    by_calendar: dict[str, list[calendars.CalendarVersion]] = {}
    for version in stored.load_calendars(connection):
        by_calendar.setdefault(version.name, []).append(version)
    return list(newest.values()), documents, by_calendar


def _usage(plan: plans.Plan, octets: int, upload: int, shares: Mapping[str, int],
           versions: Sequence[calendars.CalendarVersion], period: str) -> list[engine.Usage]:
    """The month's octets by zone and direction; what rounding leaves goes down in the last zone."""
    zones: dict[str | None, int] = {None: 1}
    if versions:
        start, end = periods.period_bounds(period, "UTC")
        starts, index, names = calendars.edges(versions, "UTC", start, end)
        hours: Counter[str] = Counter()
        for begin, finish, zone in zip(starts.tolist(), [*starts.tolist()[1:], end], index.tolist(), strict=True):
            hours[names[zone]] += finish - begin
        named = {name: shares[name] for name in hours if name in shares}
        rest = max(0, 100 - sum(named.values()))
        others = sum(hours[name] for name in hours if name not in named) or 1
        zones = {name: named[name] * others if name in named else rest * hours[name] for name in sorted(hours)}
        if not sum(zones.values()):
            zones = dict.fromkeys(zones, 1)
    total = sum(zones.values())
    found = [engine.Usage(zone, "default", direction, False, octets * weight * percent // (total * 100))
             for zone, weight in zones.items() for direction, percent in (("up", upload), ("down", 100 - upload))]
    left = octets - sum(row.octets for row in found)
    return [*found[:-1], found[-1]._replace(octets=found[-1].octets + left)]
