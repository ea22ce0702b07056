"""What a rate run rated, service by service, so that it can be rated again under other policies.

Reads the frozen copy of the run only: what is compared is what was charged, whatever became of plans and subscriptions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from core import money, settings
from rating import engine, frozen, plans
from rating.verification import in_ms
from storage.home import Home

Document = dict[str, Any]
Key = tuple[str, str]
"""A line and a currency."""
NET, GROSS = "net", "gross"


@dataclass(frozen=True)
class Bill:
    """One service in one period: its subscriptions, the plan versions that they are under, its usage."""

    period: str
    subscriptions: Sequence[engine.Subscription]
    documents: Sequence[Document]
    read_hours: Callable[[], Sequence[Mapping[str, Any]]]
    read_slots: Callable[[], Sequence[Mapping[str, Any]]]
    percent_on: engine.PercentOn
    amounts: str  # net or gross: what is compared

    @cached_property
    def hours(self) -> Sequence[Mapping[str, Any]]:
        """Rows of core.schemas.USAGE, instants as ms."""
        return self.read_hours()

    @cached_property
    def slots(self) -> dict[int, engine.Slots]:
        """5-minute slots with traffic, by subscription."""
        return dict(_slots_of(self.read_slots()))

    @cached_property
    def plans(self) -> dict[tuple[str, str], plans.Plan]:
        """The plan versions, by name and version."""
        return {(document["name"], document["from"]): plans.parse(document) for document in self.documents}

    @cached_property
    def usage(self) -> dict[int | None, list[engine.Usage]]:
        """Octets by subscription, as the engine takes them."""
        sums: dict[tuple[int | None, Any, str, str, bool], int] = defaultdict(int)
        for row in self.hours:
            sums[row["subscription"], row["zone"], row["class"], row["direction"], row["sampled"]] += row["octets"]
        found: dict[int | None, list[engine.Usage]] = defaultdict(list)
        for key, octets in sums.items():
            found[key[0]].append(engine.Usage(*key[1:], octets))
        return found

    def rate(self, edited: Sequence[Document] | None = None, subscriptions: Sequence[engine.Subscription] | None = None
             ) -> list[engine.Charge]:
        """The charges under these plans and subscriptions instead of its own."""
        catalogue = plans.Catalogue(self.plans.values() if edited is None else map(plans.parse, edited))
        return engine.rate(engine.Inputs(self.period, subscriptions or self.subscriptions, catalogue, self.usage, self.slots,
                                         self.percent_on)).charges

    def compared(self, charges: Sequence[engine.Charge]) -> dict[Key, int]:
        """The amounts that are compared, by line and currency, in minor units."""
        sums: dict[Key, int] = defaultdict(int)
        for charge in charges:
            sums[charge.line, charge.currency] += self.figure(charge, engine.amount_of(charge))
        return sums

    def figure(self, charge: engine.Charge, amount: int) -> int:
        """What is compared of a charge if its plan's price came to `amount` minor units."""
        return figure(amount, charge.gross_minor is not None, self.amounts, self.percent(charge))

    def percent(self, charge: engine.Charge) -> Fraction:
        """The tax of a charge: that of its last local day."""
        return self.percent_on(charge.tax, charge.end - timedelta(days=1))


def figure(amount: int, inclusive: bool, wanted: str, percent: Fraction) -> int:
    """An amount as a plan gives it (with the tax where prices include it) → net or gross, rounded half-up once."""
    if inclusive == (wanted == GROSS):
        return amount
    if inclusive:
        return engine.net_of_gross(amount, percent)
    return money.round_half_up(amount * (100 + percent) / 100)


class Bills:
    """The bills of a run. The frozen files are read when the first one is asked for."""

    def __init__(self, home: Home, run: sa.Row[Any], amounts: str) -> None:
        self._home, self._run, self._amounts = home, run, amounts

    @cached_property
    def _copy(self) -> frozen.Frozen:
        return frozen.read(self._home, self._run.usage_path, self._run.usage_digest)

    @cached_property
    def percent_on(self) -> engine.PercentOn:
        """The tax rates of the run's time."""
        rates = [settings.TaxRate(row["category"], Fraction(row["percent"]), date.fromisoformat(row["from"]))
                 for row in self._copy.tax]
        return lambda category, day: settings.percent_on(rates, category, day)

    @cached_property
    def percents(self) -> dict[str, set[Fraction]]:
        """All percentages that a tax category ever had."""
        found: dict[str, set[Fraction]] = defaultdict(set)
        for row in self._copy.tax:
            found[row["category"]].add(Fraction(row["percent"]))
        return found

    def percent(self, charge: engine.Charge) -> Fraction:
        """The tax of a charge: that of its last local day."""
        return self.percent_on(charge.tax, charge.end - timedelta(days=1))

    @cached_property
    def _terms(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in self._copy.terms.to_pylist():
            found[row["service"]].append(row)
        return found

    @cached_property
    def _documents(self) -> dict[tuple[str, str], Document]:
        return {(document["name"], document["from"]): document for document in self._copy.plans}

    @cached_property
    def _usage(self) -> Callable[[int], list[dict[str, Any]]]:
        return _by_service(self._copy.usage, ["subscription", "hour", "zone", "class", "direction", "sampled", "octets"])

    @cached_property
    def _slots(self) -> Callable[[int], list[dict[str, Any]]]:
        return _by_service(self._copy.slots, ["subscription", "slot", "direction", "octets"])

    def of(self, service: str) -> Bill | None:
        """The bill of a service; None if the run knows nothing of it."""
        terms = self._terms.get(service, [])
        if not terms:
            return None
        number = terms[0]["service_id"]
        used = {(row["plan"], row["plan_version"]) for row in terms if row["plan_version"] is not None}
        documents = [self._documents[key] for key in sorted(used)]
        return Bill(self._run.period, [frozen.subscription_of(row) for row in terms], documents,
                    partial(self._usage, number), partial(self._slots, number), self.percent_on, self._amounts)


def _by_service(table: pa.Table, columns: list[str]) -> Callable[[int], list[dict[str, Any]]]:
    """A look-up in a table that is in the order of `service`: the rows of one, instants as ms."""
    services = table.column("service").to_numpy()
    table = in_ms(table.select(columns))

    def rows(service: int) -> list[dict[str, Any]]:
        first, end = np.searchsorted(services, [service, service + 1])
        found: list[dict[str, Any]] = table.slice(int(first), int(end - first)).to_pylist()
        return found

    return rows


def _slots_of(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, engine.Slots]]:
    octets: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for row in rows:
        octets[row["subscription"]][row["slot"]][row["direction"] == "down"] += row["octets"]
    for subscription, slots in octets.items():
        both = np.array(list(slots.values()), np.int64)
        yield subscription, engine.Slots(both[:, 0].copy(), both[:, 1].copy())
