"""`twin compare PERIOD`: the charges of the newest rate run beside another billing's, line by line, with causes.

A line is compared by service, name and currency; several rows of one line are added up on both sides. Its state is

    equal        the same to the last minor unit
    explained    a cause was found that gives their amount exactly, or a person has accepted the difference
    open         nobody knows why, or it is known and has to be accepted: a line or a service that one side lacks

Amounts are net, or gross where the import's mapping says so. A difference is ours less theirs.
"""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from core import tables
from core.errors import NotFound
from rating import engine, run
from rating.twin import causes, charges_file, prices
from rating.twin.bills import Bill, Bills, figure
from rating.twin.causes import Cause, Line
from rating.twin.charges_file import TheirCharge
from rating.verification import in_ms
from runtime import progress
from storage import rollouts, sql
from storage.home import Home

EQUAL, EXPLAINED, OPEN = "equal", "explained", "open"
COLUMNS = ["period", "service", "plan", "line", "their_line", "currency", "ours_minor", "theirs_minor", "difference_minor",
           "state", "cause", "detail"]
UNEXPLAINED = "unexplained"
NOT_BILLED, BILLED_HERE, ACCEPTED, PRICE = "not_billed", "billed_here", "accepted", "price"
SERVICE_UNKNOWN_HERE, SERVICE_UNKNOWN_THERE = "service_unknown_here", "service_unknown_there"
LINE_MISSING_HERE, LINE_MISSING_THERE, OTHER_CURRENCY = "line_missing_here", "line_missing_there", "other_currency"

Key = tuple[str, str, str]
"""Service, line, currency."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A line on both sides; None where one side does not have it."""

    key: Key
    plan: str
    their_line: str
    ours_minor: int | None
    theirs_minor: int | None
    state: str
    cause: str
    detail: str

    @property
    def difference_minor(self) -> int:
        return (self.ours_minor or 0) - (self.theirs_minor or 0)

    def row(self, period: str) -> dict[str, Any]:
        service, line, currency = self.key
        return {"period": period, "service": service, "plan": self.plan, "line": line, "their_line": self.their_line,
                "currency": currency, "ours_minor": self.ours_minor, "theirs_minor": self.theirs_minor,
                "difference_minor": self.difference_minor, "state": self.state, "cause": self.cause, "detail": self.detail}


@dataclass(frozen=True)
class Comparison:
    """All lines of a period, in the order of service, line and currency."""

    period: str
    rate_run: int
    import_id: int
    amounts: str
    lines: Sequence[Compared]
    rated_as_of: int

    def of(self, services: Collection[str]) -> Comparison:
        """Only these services."""
        kept = [line for line in self.lines if line.key[0] in services]
        return replace(self, lines=kept)

    @property
    def open_lines(self) -> list[Compared]:
        return [line for line in self.lines if line.state == OPEN]

    @property
    def unexplained_minor(self) -> dict[str, int]:
        """By currency: differences without regard to their sign, so that one never hides another."""
        return minor_of(self.open_lines)

    def summary(self) -> dict[str, Any]:
        by_cause: dict[str, list[Compared]] = defaultdict(list)
        for line in self.lines:
            if line.state != EQUAL:
                by_cause[line.cause].append(line)
        return {
            "period": self.period, "rate_run": self.rate_run, "import": self.import_id, "amounts": self.amounts,
            "lines": len(self.lines), "equal": sum(line.state == EQUAL for line in self.lines),
            "ours_minor": _sum(self.lines, "ours_minor"), "theirs_minor": _sum(self.lines, "theirs_minor"),
            "causes": {cause: {"state": lines[0].state, "lines": len(lines), "minor": minor_of(lines)}
                       for cause, lines in sorted(by_cause.items())},
            "explained_minor": minor_of(line for line in self.lines if line.state == EXPLAINED),
            "unexplained_minor": self.unexplained_minor, "unexplained_lines": len(self.open_lines)}


def minor_of(lines: Iterable[Compared]) -> dict[str, int]:
    """The differences of some lines, each without its sign, by currency."""
    sums: Counter[str] = Counter()
    for line in lines:
        sums[line.key[2]] += abs(line.difference_minor)
    return dict(sorted(sums.items()))


def _sum(lines: Iterable[Compared], name: str) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for line in lines:
        sums[line.key[2]] += getattr(line, name) or 0
    return dict(sorted(sums.items()))


@dataclass
class _Sides:
    """What both sides charge, and what is known about services."""

    ours: dict[Key, list[engine.Charge]] = field(default_factory=lambda: defaultdict(list))
    theirs: dict[Key, list[TheirCharge]] = field(default_factory=lambda: defaultdict(list))
    ours_minor: dict[Key, int] = field(default_factory=dict)
    services: frozenset[str] = frozenset()
    standing: Sequence[rollouts.Rollout] = ()
    accepted: Mapping[tuple[str, str, str, int], str] = field(default_factory=dict)


def compare(home: Home, period: str, service: str = "") -> Comparison:
    """Compare a period, or show one service of it. Raises NotFound where it was not rated, nothing was imported, or neither
    side knows the service."""
    made_by = run.newest_or_hint(home, period)
    with sql.reading(sql.engine(home)) as connection:
        imported = charges_file.newest(connection, period)
        if imported is None:
            raise NotFound(f"another billing's charges of {period} are not here",
                           f"`ratemill twin import {period} FILE.csv` first")
        theirs = charges_file.stored(connection, imported.id)
        sides = _Sides(services=frozenset(connection.scalars(sa.select(tables.service.c.service))),
                       standing=rollouts.current(connection), accepted=_accepted(connection, period))
    bills = Bills(home, made_by, imported.amounts)
    for charge in _our_charges(home, period):
        sides.ours[charge.service, charge.line, charge.currency].append(charge)
    lines = [_not_billed(row) for row in theirs if row.not_billed]
    for row in theirs:
        if not row.not_billed:
            sides.theirs[row.service, row.line, row.currency].append(row)
    for key, charges in sides.ours.items():
        sides.ours_minor[key] = sum([
            figure(engine.amount_of(charge), charge.gross_minor is not None, imported.amounts, percent)
            for charge, percent in _with_percent(bills, charges, imported.amounts)])
    lines += _compared(sides, bills, period, imported.amounts)
    lines.sort(key=lambda line: (line.key, line.their_line))
    whole = Comparison(period, made_by.id, imported.id, imported.amounts, lines, made_by.as_of)
    if not service:
        return whole
    part = whole.of({service})
    if not part.lines:
        near = difflib.get_close_matches(service, sides.services, 1)
        raise NotFound(f"neither billing has charges of '{service}' in {period}", f"did you mean '{near[0]}'?" if near else "")
    return part


def _our_charges(home: Home, period: str) -> Iterator[engine.Charge]:
    table = in_ms(run.charges(home, period))
    for batch in table.to_batches(max_chunksize=65_536):
        for row in zip(*(batch.column(index).to_pylist() for index in range(batch.num_columns)), strict=True):
            yield engine.Charge(*row)


def _with_percent(bills: Bills, charges: Sequence[engine.Charge], amounts: str) -> Iterator[tuple[engine.Charge, Fraction]]:
    """The tax is looked up only where it is needed: reading the frozen files takes its time."""
    for charge in charges:
        needed = (charge.gross_minor is not None) != (amounts == "gross")
        yield charge, bills.percent(charge) if needed else Fraction(0)


def _not_billed(row: TheirCharge) -> Compared:
    return Compared((row.service, row.line, row.currency), "", row.theirs, None, row.amount_minor, EXPLAINED, NOT_BILLED,
                    row.not_billed)


def _compared(sides: _Sides, bills: Bills, period: str, amounts: str) -> Iterator[Compared]:
    keys = sorted({*sides.ours, *sides.theirs})
    lines_of = {service: list(group) for service, group in groupby(keys, key=lambda key: key[0])}
    their_services = {key[0] for key in sides.theirs}
    our_services = {key[0] for key in sides.ours}
    differing: dict[str, list[Line]] = defaultdict(list)
    found: dict[Key, Cause] = {}
    for key in keys:
        ours, theirs = sides.ours_minor.get(key), _their_minor(sides, key)
        if (ours or 0) == (theirs or 0):
            continue
        if key[0] not in our_services:
            found[key] = _of_a_stranger(sides, key[0], period)
        elif key[0] not in their_services:
            found[key] = _of_ours_alone(sides, key[0], period)
        elif ours is None or theirs is None:
            found[key] = _of_one_side(sides, key, lines_of[key[0]])
        else:
            differing[key[0]].append(Line(key[1:], sides.ours[key], sides.theirs[key], ours, theirs))
    with progress.bar("looking for causes", len(differing), "services") as step:
        for service, lines in differing.items():
            bill = bills.of(service)
            if bill is not None:
                found |= {(service, *of): cause for of, cause in causes.find(bill, lines, bills.percents).items()}
            step(1)
    _find_prices(sides, bills, amounts, {(service, *line.key) for service, lines in differing.items() for line in lines}, found)
    for key in keys:
        yield _one(sides, key, found.get(key))


def _their_minor(sides: _Sides, key: Key) -> int | None:
    return sum(row.amount_minor for row in sides.theirs[key]) if key in sides.theirs else None


def _one(sides: _Sides, key: Key, cause: Cause | None) -> Compared:
    ours, theirs = sides.ours_minor.get(key), _their_minor(sides, key)
    plans = ", ".join(sorted({charge.plan for charge in sides.ours.get(key, ())}))
    names = ", ".join(dict.fromkeys(row.theirs for row in sides.theirs.get(key, ())))
    difference = (ours or 0) - (theirs or 0)
    if difference == 0:
        return Compared(key, plans, names, ours, theirs, EQUAL, "", "")
    if cause is not None and cause.is_explained:
        return Compared(key, plans, names, ours, theirs, EXPLAINED, cause.name, cause.detail)
    accepted = sides.accepted.get((*key, difference))
    if accepted is not None:
        return Compared(key, plans, names, ours, theirs, EXPLAINED, ACCEPTED, accepted)
    cause = cause or Cause(UNEXPLAINED, "", False)
    return Compared(key, plans, names, ours, theirs, OPEN, cause.name, cause.detail)


def _accepted(connection: sa.Connection, period: str) -> dict[tuple[str, str, str, int], str]:
    """Differences that a person has accepted; one that has changed since is not."""
    table = tables.twin_explanation
    return {(row.service, row.line, row.currency, row.difference_minor): f"{row.reason} ({row.actor})"
            for row in connection.execute(sa.select(table).where(table.c.period == period).order_by(table.c.id))}


def _of_a_stranger(sides: _Sides, service: str, period: str) -> Cause:
    if service in sides.services:
        return Cause(LINE_MISSING_HERE, f"the service has no charges here in {period}: it has no plan then", False)
    return Cause(SERVICE_UNKNOWN_HERE, "import it, or name ours in [services] of the mapping", False)


def _of_ours_alone(sides: _Sides, service: str, period: str) -> Cause:
    live = [rollout for rollout in sides.standing if rollout.is_of_the_system and rollout.stage != rollouts.ENDED]
    if live and all(rollout.reaches(service, period) for rollout in live):
        return Cause(BILLED_HERE, f"invoiced here already, by rollout '{live[0].name}'")
    return Cause(SERVICE_UNKNOWN_THERE, "the other billing has no charges of it", False)


def _of_one_side(sides: _Sides, key: Key, lines: Collection[Key]) -> Cause:
    """A line of a service that only one side has: perhaps the other has it in another currency, or by another name. `lines`
    are those of the service on either side."""
    _, line, currency = key
    here = key in sides.ours
    name, minor = (LINE_MISSING_THERE if here else LINE_MISSING_HERE), _minor_of(sides, key)
    others = [other for other in lines if (other in sides.ours) != (other in sides.theirs) and (other in sides.ours) != here]
    for other in others:
        if other[1] == line:
            return Cause(OTHER_CURRENCY, f"we charge it in {currency if here else other[2]}, they in "
                         f"{other[2] if here else currency}", False)
    for other in others:
        if other[2] == currency and _minor_of(sides, other) == minor:
            return Cause(name, f"'{other[1]}' has the same amount {'there' if here else 'here'}: name it in [lines] of the "
                         "mapping", False)
    if here:
        return Cause(name, "they do not charge it, or by a name that [lines] of the mapping lacks", False)
    return Cause(name, "no line of that name: add it to [lines] or [not_billed] of the mapping", False)


def _minor_of(sides: _Sides, key: Key) -> int | None:
    return sides.ours_minor[key] if key in sides.ours_minor else _their_minor(sides, key)


def _find_prices(sides: _Sides, bills: Bills, amounts: str, differing: set[Key], found: dict[Key, Cause]) -> None:
    """Lines for which another price explains every service of the plan, and what follows from it on other lines."""
    versions_of = {key: {(charge.plan, charge.plan_version) for charge in sides.ours[key]} for key in sides.ours_minor}
    open_keys = {key for key in differing if not _is_explained(found.get(key))}
    wanted = {(*of, *key[1:]) for key in open_keys for of in versions_of[key]}
    groups: dict[tuple[str, str, str, str], list[Key]] = defaultdict(list)
    for key, versions in versions_of.items():
        if key in sides.theirs:
            for of in versions:
                if (*of, *key[1:]) in wanted:
                    groups[(*of, *key[1:])].append(key)
    for (plan, version, line, currency), keys in sorted(groups.items()):
        price = _price_of(sides, bills, amounts, (plan, version), keys)
        if price is None:
            continue
        row = next(charge for charge in sides.ours[keys[0]] if (charge.plan, charge.plan_version) == (plan, version))
        said = f"they charge {price} a {row.unit} instead of {row.unit_price}, all {len(keys)} services of {plan} alike"
        found |= {key: Cause(PRICE, said) for key in keys if key in open_keys}
        services = {key[0] for key in keys}
        for key in sorted(open_keys):
            if key[0] in services and (key[1], key[2]) != (line, currency) and not _is_explained(found.get(key)):
                bill = bills.of(key[0])
                assert bill is not None, "a service with a price has a bill"
                again = bill.compared(bill.rate(prices.priced(bill.documents, plan, version, line, price)))
                if again.get(key[1:]) == _their_minor(sides, key):
                    found[key] = Cause(PRICE, f"follows from another price of '{line}': {said}")


def _price_of(sides: _Sides, bills: Bills, amounts: str, of: tuple[str, str], keys: Sequence[Key]) -> str | None:
    """The one price by which their amounts of a plan's line are what they are."""
    samples: list[prices.Sample] = []
    rated: list[tuple[Bill, Key]] = []
    rounding = ""
    for key in keys:
        bill, rows = bills.of(key[0]), sides.ours[key]
        if bill is None:
            return None
        if any((row.plan, row.plan_version) != of or causes.exact_minor(bill, row) is None for row in rows):
            rated.append((bill, key))
            continue
        rounding = causes.plan_of(bill, rows[0]).rounding
        samples.append(prices.Sample(key[0], rows, [bill.percent(row) for row in rows], _their_minor(sides, key) or 0))

    def fits(price: str) -> bool:
        return all(bill.compared(bill.rate(prices.priced(bill.documents, *of, key[1], price))).get(key[1:])
                   == _their_minor(sides, key) for bill, key in rated)

    return prices.other_price(samples, rounding, amounts, fits)


def _is_explained(cause: Cause | None) -> bool:
    return cause is not None and cause.is_explained
