"""`plans advise`: what the last months of a service's real usage would have cost under every plan that it may have.

Each plan is reckoned as if the service had changed to it on the first day of the first month: a fee for the change, discounts
for first months and quotas that roll over count; what a service had beside its plan (add-ons, pauses) stays. The plan of today
is reckoned with the dates that it has (from the first month, if it began later). The amounts are the engine's: what is
advised is what would have been billed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from numpy.typing import NDArray

from core import clock, money, periods, settings, tables
from core.errors import NotFound
from rating import columns, engine, inputs, stored
from rating.plans import Catalogue, Plan
from rating.quotas import Carried, later
from rating.rezoned import Calendars, Rezoned
from storage import generations, sql
from storage.home import Home

COLUMNS = ("service", "rank", "plan", "version", "today", "months", "net", "gross", "gross_a_month", "saving", "cheapest_in",
           "currency", "note")
BEST_COLUMNS = ("service", "plan", "gross", "best_plan", "best_gross", "saving", "cheapest_in", "months", "currency", "note")
NOT_KEPT = "not known: 5-minute usage is kept only for services whose plan needs it"
NOT_EXACT = "a zone of its calendar begins within an hour: such an hour counts as the zone in which it begins"
REFUSED = "without the sampled usage that it does not price"
UNKNOWN = 2**62
"""In the place of an amount that is not known: more than any."""
Row = dict[str, Any]


Numbers = NDArray[np.int64]


@dataclass
class _Cost:
    """What a plan comes to for each service, by month; minor units, -1 where it is not known or not offered."""

    plan: Plan
    net: Numbers  # services x months
    gross: Numbers
    refused: NDArray[np.bool_]  # services
    is_offered: NDArray[np.bool_]  # services
    is_exact: bool = True


@dataclass(frozen=True)
class _Kind:
    """Services that a plan is reckoned alike for: one of them, and the numbers of all."""

    row: engine.Subscription
    own: Plan | None
    begun: int  # index of the first period that they have had whole
    numbers: Numbers
    is_alone: bool  # has add-ons or pauses


def advise(home: Home, services: Sequence[str], months: int, names: Collection[str] = ()) -> Iterator[Row]:
    """Every plan for each service, cheapest first. All services without any named. Raises NotFound."""
    made = _Advice(home, services, months, names)
    for number in range(len(made.subscriptions)):
        yield from made.rows(number)


def best(home: Home, services: Sequence[str], months: int, names: Collection[str] = ()) -> Iterator[Row]:
    """The cheapest plan for each service, beside its own."""
    made = _Advice(home, services, months, names)
    costs, count = made.costs, len(made.subscriptions)
    since = np.arange(len(made.periods)) >= made.begun[:, None]
    total, chosen = np.full(count, UNKNOWN), np.full(count, -1, np.int64)
    leaves, own = np.ones(count, bool), np.full(count, -1, np.int64)
    least = np.full((count, len(made.periods)), UNKNOWN)
    sums = []
    for index, cost in enumerate(costs):
        known = cost.is_offered & (since.any(axis=1)) & ((cost.gross >= 0) | ~since).all(axis=1)
        mine = np.array([plan == cost.plan for plan in made.own], bool)
        own[mine & known] = index
        gross = np.where(known, np.where(since, cost.gross, 0).sum(axis=1), UNKNOWN)
        sums.append(gross)
        least = np.where(known[:, None] & (cost.gross < least), cost.gross, least)
        better = known & ((cost.refused < leaves) | ((cost.refused == leaves) & (
            (gross < total) | ((gross == total) & mine))))
        total[better], chosen[better], leaves[better] = gross[better], index, cost.refused[better]
    for number in np.flatnonzero((own >= 0) & (chosen >= 0)).tolist():
        first, mine_ = costs[chosen[number]], costs[own[number]]
        here = since[number]
        yield {"service": made.subscriptions[number].service, "plan": mine_.plan.name, "gross": int(sums[own[number]][number]),
               "best_plan": first.plan.name, "best_gross": int(total[number]),
               "saving": int(sums[own[number]][number] - total[number]),
               "cheapest_in": int((first.gross[number] == least[number])[here].sum()), "months": int(here.sum()),
               "currency": first.plan.currency, "note": made.note(first, number)}


class _Advice:
    def __init__(self, home: Home, services: Sequence[str], months: int, names: Collection[str]) -> None:
        with sql.reading(sql.engine(home)) as connection:
            zone = settings.seller(home.document).timezone
            this = periods.local_date(clock.now_ms(), zone).isoformat()[:7]
            generation = generations.latest(connection)
            if generation is None:
                raise NotFound("no usage is published yet", "run `ratemill usage publish` first")
            self.periods = _published(home, generation, [later(this, back) for back in range(-months, 0)])
            self.terms = inputs.load_terms(connection, home.document, self.periods[-1])
            self.catalogue = Catalogue(stored.load_plans(connection))
            self.calendars = Calendars(connection)
            self.ways = {(one["name"], one["from"]): {way["to"] for way in one.get("change", ())}
                         for one in stored.load_plan_documents(connection)}
            starts = {row.service: row.first for row in connection.execute(
                sa.select(tables.service.c.service, sa.func.min(tables.subscription.c.start_date).label("first"))
                .join(tables.subscription).group_by(tables.service.c.service))}
        held = {row.service: row for row in self.terms.subscriptions if not row.is_addon
                and (row.end is None or row.end > periods.period_first_day(this))}
        self._check(services, held, starts)
        self.subscriptions = [held[name] for name in sorted(services or held)]
        self.own = [self.catalogue.in_force(row.plan, row.start) for row in self.subscriptions]
        self.begun = np.array([_first_period(starts[row.service], self.periods) for row in self.subscriptions], np.int64)
        self.addons: dict[str, list[engine.Subscription]] = {}
        for row in self.terms.subscriptions:
            if row.is_addon and row.id > inputs.BOUGHT:  # what fair use bought was of its month
                self.addons.setdefault(row.service, []).append(row)
        self.kinds = self._kinds()
        wanted = [plan for plan in self._in_force(this) if not names or plan.name in names or plan in self.own]
        self.costs: list[_Cost] = []
        asked = pa.table({
            "service_id": pa.array([self.terms.service_ids[row.id] for row in self.subscriptions], pa.int64()),
            "subscription_id": pa.array([None] * len(self.subscriptions), pa.int64()),
            "timezone": [row.timezone for row in self.subscriptions],
            "number": pa.array(range(1, len(self.subscriptions) + 1), pa.int64())})
        with closing(inputs.open_generation(home, generation)) as usage:
            found: dict[str | None, Rezoned] = {}
            for plan in wanted:
                if plan.calendar not in found:
                    found[plan.calendar] = self.calendars.read(usage, plan.calendar, self.periods, asked)
                self.costs.append(self._cost(usage, plan, found[plan.calendar]))

    def _kinds(self) -> list[_Kind]:
        groups: dict[tuple[object, ...], list[int]] = {}
        for number, row in enumerate(self.subscriptions):
            alone = bool(row.pauses) or row.service in self.addons
            key = (number,) if alone else (row.plan, row.start, row.end, row.timezone, row.currency, row.is_first, row.previous,
                                           int(self.begun[number]))
            groups.setdefault(key, []).append(number)
        return [_Kind(self.subscriptions[numbers[0]], self.own[numbers[0]], int(self.begun[numbers[0]]),
                      np.array(numbers, np.int64), len(key) == 1) for key, numbers in groups.items()]

    @staticmethod
    def _check(services: Sequence[str], held: dict[str, engine.Subscription], starts: dict[str, str]) -> None:
        import difflib

        for name in services:
            if name not in held:
                near = difflib.get_close_matches(name, list(held), 1)
                what = f"{name} is under no plan now" if name in starts else f"there is no service '{name}'"
                raise NotFound(what, f"did you mean '{near[0]}'?" if near else "`ratemill subscribers list` shows all")

    def _in_force(self, period: str) -> list[Plan]:
        """The versions that a subscription would take which begins now, and those of today's subscriptions."""
        first = periods.period_first_day(period)
        found: dict[tuple[str, str], Plan] = {}
        for plan in self.catalogue.all():
            newest = self.catalogue.in_force(plan.name, first)
            if newest is not None and newest.valid_from <= first and not newest.is_addon:
                found[newest.name, newest.version] = newest
        for own in self.own:
            if own is not None:
                found[own.name, own.version] = own
        return [found[key] for key in sorted(found)]

    def _cost(self, usage: Any, plan: Plan, found: Rezoned) -> _Cost:
        """A plan for all services: those that have it with their own dates, the others from their first month on."""
        count, shape = len(self.subscriptions), (len(self.subscriptions), len(self.periods))
        cost = _Cost(plan, np.full(shape, -1, np.int64), np.full(shape, -1, np.int64), np.zeros(count, bool),
                     np.zeros(count, bool), found.is_exact)
        catalogue = Catalogue([plan, *(other for other in self.catalogue.all() if other.is_addon)])
        alike, alone = [], []
        for kind in self.kinds:
            row = self._row(kind, plan)
            if row is None:
                continue
            cost.is_offered[kind.numbers] = True
            if plan.percentiles and not (kind.own is not None and kind.own.percentiles):
                continue
            if kind.is_alone or not columns.is_simple(plan):
                alone += [replace(row, id=number + 1, service=one.service, beside=one.beside)
                          for number in kind.numbers.tolist() for one in [self.subscriptions[number]]]
            else:
                alike.append((kind, row))
        carried: dict[int, list[Carried]] = {}
        for index, period in enumerate(self.periods):
            given = engine.Inputs(period, [], catalogue, {}, {}, self.terms.percent_on())
            groups = [(row, kind.numbers + 1) for kind, row in alike if kind.begun <= index]
            self._note(cost, index, columns.totals_of_alike(given, groups, found.usage[period]))
            now = []
            for row in alone:
                if self.begun[row.id - 1] <= index:
                    now.append(replace(row, carried=tuple(carried.get(row.id, ()))))
                    now += [replace(addon, carried=tuple(carried.get(addon.id, ())))
                            for addon in self.addons.get(row.service, ())]
            if now:
                slots = self._slots(usage, period, now) if plan.percentiles else {}
                sums, carried = columns.totals(replace(given, subscriptions=now, slots=slots), found.usage[period])
                self._note(cost, index, sums)
        return cost

    @staticmethod
    def _note(cost: _Cost, index: int, sums: columns.Totals) -> None:
        at = sums.subscription - 1
        cost.net[at, index], cost.gross[at, index] = sums.net, sums.gross
        cost.refused[at] |= sums.refused > 0

    def _row(self, kind: _Kind, plan: Plan) -> engine.Subscription | None:
        """The imaginary subscription of such services under a plan; None where they may not have it."""
        row, own = kind.row, kind.own
        if plan.currency != row.currency:
            return None
        first = periods.period_first_day(self.periods[min(kind.begun, len(self.periods) - 1)])
        if own == plan:
            start = row.start if row.start is None or row.start <= first else first
            return replace(row, start=start, end=None, has_next=False, carried=())
        if own is not None and own.audience != plan.audience:
            return None
        ways = self.ways.get((own.name, own.version)) if own is not None else None
        if (ways and plan.name not in ways) or (own is not None and own.name == plan.name):
            return None
        return replace(row, plan=plan.name, start=first, end=None, is_first=False, previous=row.plan, has_next=False,
                       carried=())

    def _slots(self, usage: Any, period: str, now: Sequence[engine.Subscription]) -> dict[int, engine.Slots]:
        ids = {self.subscriptions[row.id - 1].id: row.id for row in now if not row.is_addon}
        return {ids[number]: slots for number, slots in inputs.read_slots(usage, period, list(ids)).items()}

    def note(self, cost: _Cost, number: int) -> str | None:
        notes = [REFUSED] if cost.refused[number] else []
        notes += [] if cost.is_exact else [NOT_EXACT]
        return "; ".join(notes) or None

    def rows(self, number: int) -> Iterator[Row]:
        """The plans that a service may have, cheapest first, those whose cost is not known last."""
        row, first = self.subscriptions[number], int(self.begun[number])
        months = len(self.periods) - first
        offered = [cost for cost in self.costs if cost.is_offered[number]]
        known = [cost for cost in offered if months > 0 and bool((cost.gross[number, first:] >= 0).all())]
        own = next((cost for cost in known if cost.plan == self.own[number]), None)
        today = int(own.gross[number, first:].sum()) if own is not None else None
        each = np.array([cost.gross[number, first:] for cost in known]).reshape(len(known), -1)
        cheapest = (each == each.min(axis=0)).sum(axis=1).tolist() if known else []
        ranked = sorted(range(len(known)), key=lambda one: (  # a plan that leaves usage unpriced is no bargain
            bool(known[one].refused[number]), int(each[one].sum()), known[one] is not own, known[one].plan.name))
        for rank, one in enumerate(ranked, 1):
            cost, gross = known[one], int(each[one].sum())
            yield {"service": row.service, "rank": rank, "plan": cost.plan.name, "version": cost.plan.version,
                   "today": cost is own, "months": months, "net": int(cost.net[number, first:].sum()), "gross": gross,
                   "gross_a_month": money.round_half_up(Fraction(gross, months)),
                   "saving": None if today is None else today - gross, "cheapest_in": cheapest[one],
                   "currency": cost.plan.currency, "note": self.note(cost, number)}
        for cost in offered:
            if not any(cost is one for one in known):
                note = "no whole month of usage yet" if months <= 0 else NOT_KEPT
                yield {**dict.fromkeys(COLUMNS), "service": row.service, "plan": cost.plan.name, "version": cost.plan.version,
                       "today": cost.plan == self.own[number], "months": max(months, 0), "currency": cost.plan.currency,
                       "note": note}


def _published(home: Home, generation: generations.Generation, wanted: Sequence[str]) -> list[str]:
    """The periods of which some usage is published: a month that nobody measured says nothing about plans."""
    with closing(inputs.open_generation(home, generation)) as usage:
        known = {period for (period,) in usage.execute("SELECT DISTINCT period FROM usage").fetchall()}
    found = [period for period in wanted if period in known]
    if not found:
        raise NotFound(f"no usage of {wanted[0]} to {wanted[-1]} is published",
                       "collect and publish usage first, or raise --months")
    return found


def _first_period(start: str, wanted: Sequence[str]) -> int:
    """The index of the first period that a service has had whole."""
    if not start:
        return 0
    day = date.fromisoformat(start)
    return sum(periods.period_first_day(period) < day for period in wanted)
