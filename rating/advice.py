"""`plans advise`: what the last months of a service's real usage would have cost under every plan that it may have.

Each plan is reckoned as if the service had changed to it on the first day of the first month: a fee for the change, discounts
for first months and quotas that roll over count; what a service had beside its plan (add-ons, pauses) stays. The plan of today
is reckoned with the dates that it has (from the first month, if it began later). The amounts are the engine's: what is
advised is what would have been billed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import date
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from core import clock, money, periods, settings, tables
from core.errors import NotFound
from rating import columns, engine, inputs, stored
from rating.plans import Catalogue, Plan
from rating.quotas import Carried, later
from rating.rezoned import Calendars
from storage import generations, sql
from storage.home import Home

COLUMNS = ("service", "rank", "plan", "version", "today", "months", "net", "gross", "gross_a_month", "saving", "cheapest_in",
           "currency", "note")
BEST_COLUMNS = ("service", "plan", "gross", "best_plan", "best_gross", "saving", "cheapest_in", "months", "currency")
NOT_KEPT = "not known: 5-minute usage is kept only for services whose plan needs it"
NOT_EXACT = "a zone of its calendar begins within an hour: such an hour counts as the zone in which it begins"
REFUSED = "without the sampled usage that it does not price"
Row = dict[str, Any]


@dataclass
class _Cost:
    """What a plan comes to for each service, by month; minor units, -1 where it is not known."""

    plan: Plan
    net: np.ndarray[Any, np.dtype[np.int64]]  # services x months
    gross: np.ndarray[Any, np.dtype[np.int64]]
    known: bool = True
    is_exact: bool = True
    refused: set[int] = field(default_factory=set)


def advise(home: Home, services: Sequence[str], months: int, names: Collection[str] = ()) -> Iterator[Row]:
    """Every plan for each service, cheapest first. All services without any named. Raises NotFound."""
    made = _Advice(home, services, months, names)
    for number in range(len(made.subscriptions)):
        yield from made.rows(number)


def best(home: Home, services: Sequence[str], months: int, names: Collection[str] = ()) -> Iterator[Row]:
    """The cheapest plan for each service, beside its own."""
    made = _Advice(home, services, months, names)
    for number in range(len(made.subscriptions)):
        rows = list(made.rows(number))
        own = next((row for row in rows if row["today"]), None)
        known = [row for row in rows if row["gross"] is not None]
        if own is None or own["gross"] is None or not known:
            continue
        first = known[0]
        yield {"service": own["service"], "plan": own["plan"], "gross": own["gross"], "best_plan": first["plan"],
               "best_gross": first["gross"], "saving": first["saving"], "cheapest_in": first["cheapest_in"],
               "months": own["months"], "currency": own["currency"]}


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
        self.begun = [_first_period(starts[row.service], self.periods) for row in self.subscriptions]
        self.addons: dict[str, list[engine.Subscription]] = {}
        for row in self.terms.subscriptions:
            if row.is_addon:
                self.addons.setdefault(row.service, []).append(row)
        wanted = [plan for plan in self._in_force(this) if not names or plan.name in names or plan in self.own]
        self.costs: list[_Cost] = []
        with closing(inputs.open_generation(home, generation)) as usage:
            for plan in wanted:
                self.costs.append(self._cost(usage, plan))
        self.own_cost = self._cost_of_own()

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

    def _cost(self, usage: Any, plan: Plan) -> _Cost:
        """A plan for all services: those that have it with their own dates, the others from their first month on."""
        shape = (len(self.subscriptions), len(self.periods))
        cost = _Cost(plan, np.full(shape, -1, np.int64), np.full(shape, -1, np.int64))
        rows = [self._row(number, plan) for number in range(len(self.subscriptions))]
        asked = pa.table({
            "service_id": pa.array([self.terms.service_ids[row.id] for row in self.subscriptions], pa.int64()),
            "subscription_id": pa.array([None] * len(rows), pa.int64()),
            "timezone": [row.timezone for row in self.subscriptions],
            "number": pa.array(range(1, len(rows) + 1), pa.int64())})
        found = self.calendars.read(usage, plan.calendar, self.periods, asked)
        cost.is_exact = found.is_exact
        catalogue = Catalogue([plan, *(other for other in self.catalogue.all() if other.is_addon)])
        carried: dict[int, list[Carried]] = {}
        for index, period in enumerate(self.periods):
            now = []
            for number, row in enumerate(rows):
                if row is None or self.begun[number] > index or (plan.percentiles and not self._has_slots(number)):
                    continue
                now.append(replace(row, carried=tuple(carried[row.id])) if row.id in carried else row)
                now += [replace(addon, carried=tuple(carried.get(addon.id, ()))) for addon in self.addons.get(row.service, ())]
            if not now:
                continue
            slots = self._slots(usage, period, now) if plan.percentiles else {}
            sums, carried = columns.totals(engine.Inputs(period, now, catalogue, {}, slots, self.terms.percent_on()),
                                           found.usage[period])
            at = sums.subscription - 1
            cost.net[at, index], cost.gross[at, index] = sums.net, sums.gross
            cost.refused |= set(at[sums.refused > 0].tolist())
        return cost

    def _row(self, number: int, plan: Plan) -> engine.Subscription | None:
        """The imaginary subscription of a service under a plan; None where it may not have it."""
        row, own = self.subscriptions[number], self.own[number]
        if plan.currency != row.currency:
            return None
        first = periods.period_first_day(self.periods[min(self.begun[number], len(self.periods) - 1)])
        if own == plan:
            start = row.start if row.start is None or row.start <= first else first
            return replace(row, id=number + 1, start=start, end=None, has_next=False, carried=())
        ways = self.ways.get((own.name, own.version)) if own is not None else None
        if own is not None and own.audience != plan.audience:
            return None
        if (ways and plan.name not in ways) or (own is not None and own.name == plan.name):
            return None
        return replace(row, id=number + 1, plan=plan.name, start=first, end=None, is_first=False, previous=row.plan,
                       has_next=False, carried=())

    def _has_slots(self, number: int) -> bool:
        own = self.own[number]
        return own is not None and bool(own.percentiles)

    def _slots(self, usage: Any, period: str, now: Sequence[engine.Subscription]) -> dict[int, engine.Slots]:
        ids = {self.subscriptions[row.id - 1].id: row.id for row in now if not row.is_addon}
        return {ids[number]: slots for number, slots in inputs.read_slots(usage, period, list(ids)).items()}

    def _cost_of_own(self) -> list[_Cost | None]:
        by_plan = {(cost.plan.name, cost.plan.version): cost for cost in self.costs}
        return [None if plan is None else by_plan[plan.name, plan.version] for plan in self.own]

    def rows(self, number: int) -> Iterator[Row]:
        """The plans that a service may have, cheapest first, those whose cost is not known last."""
        row, own = self.subscriptions[number], self.own_cost[number]
        first = self.begun[number]
        months = len(self.periods) - first
        offered = [cost for cost in self.costs if self._row(number, cost.plan) is not None]
        known = [cost for cost in offered if months > 0 and bool((cost.gross[number, first:] >= 0).all())]
        today = int(own.gross[number, first:].sum()) if own is not None and own in known else None
        if known:
            each = np.array([cost.gross[number, first:] for cost in known])
            cheapest = (each == each.min(axis=0)).sum(axis=1).tolist()
        ranked = sorted(range(len(known)), key=lambda one: (int(each[one].sum()), known[one] is not own, known[one].plan.name))
        for rank, one in enumerate(ranked, 1):
            cost, gross = known[one], int(each[one].sum())
            notes = [REFUSED] if number in cost.refused else []
            notes += [] if cost.is_exact else [NOT_EXACT]
            yield {"service": row.service, "rank": rank, "plan": cost.plan.name, "version": cost.plan.version,
                   "today": cost is own, "months": months, "net": int(cost.net[number, first:].sum()), "gross": gross,
                   "gross_a_month": money.round_half_up(Fraction(gross, months)),
                   "saving": None if today is None else today - gross, "cheapest_in": cheapest[one],
                   "currency": cost.plan.currency, "note": "; ".join(notes) or None}
        for cost in offered:
            if cost not in known:
                note = "no whole month of usage yet" if months <= 0 else NOT_KEPT
                yield {**dict.fromkeys(COLUMNS), "service": row.service, "plan": cost.plan.name, "version": cost.plan.version,
                       "today": cost is own, "months": max(months, 0), "currency": cost.plan.currency, "note": note}


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
