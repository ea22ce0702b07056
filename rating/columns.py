"""The engine for many subscriptions at once: the same charges as `rating.engine`, as columns.

Subscriptions under one plan version, with the same dates, time zone and neighbours, are alike: their fees and single events
are charged once, by the engine, and repeated. Their traffic is summed and priced line by line as whole numbers, exactly: a
price a unit is a fraction, and what could exceed 64 bits is reckoned by the engine's fractions. Services with anything else
(quotas, bounds, discounts, percentiles, add-ons, pauses) go to the engine as they are. Tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from fractions import Fraction
from itertools import groupby
from math import lcm
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core import money, schemas
from rating import engine
from rating.plans import Plan, Traffic
from rating.quotas import Carried

Octets = NDArray[np.int64]
Minor = NDArray[np.int64]

INT64_MAX = 2**63 - 1
DAY = timedelta(days=1)
NOBODY = -(2**62)
NO_PLAN, NOT_SIMPLE = -1, -2
"""In the place of a template's index."""
ZERO_DIGITS_MAX = 6
"""Arrow writes a decimal with more zeros behind its point in scientific notation."""


class UsageColumns(NamedTuple):
    """Octets of a period: one row for each subscription and key, ordered by subscription (NOBODY: of none); keys are
    indexes."""

    subscription: NDArray[np.int64]
    key: NDArray[np.int32]
    octets: Octets
    keys: Sequence[tuple[str | None, str, str, bool]]  # zone, class, direction, sampled


def joined(parts: Sequence[UsageColumns]) -> UsageColumns:
    """Usage of different subscriptions together."""
    keys = list(dict.fromkeys(key for part in parts for key in part.keys))
    index = {key: number for number, key in enumerate(keys)}
    ids = np.concatenate([np.zeros(0, np.int64), *(part.subscription for part in parts)])
    new = [np.array([index[key] for key in part.keys], np.int32)[part.key] if len(part.key) else part.key for part in parts]
    order = np.argsort(ids, kind="stable")
    octets = np.concatenate([np.zeros(0, np.int64), *(part.octets for part in parts)])
    return UsageColumns(ids[order], np.concatenate([np.zeros(0, np.int32), *new])[order], octets[order], keys)


@dataclass
class Rated:
    """Charges (core.schemas.CHARGES) in the order of their key, and what became of the period's octets."""

    charges: pa.Table
    rated_octets: int = 0
    without_plan_octets: int = 0
    sampled_refused_octets: int = 0
    stretches: int = 0
    carried: dict[int, list[Carried]] = field(default_factory=dict)


@dataclass
class _Template:
    """Subscriptions that are alike: their stretch, the engine's rows for it, and which lines of traffic these are."""

    stretch: engine.Stretch
    rows: list[engine.Charge]
    lines: list[Traffic | None]


def rate(inputs: engine.Inputs, usage: UsageColumns) -> Rated:
    """The charges of a period; `inputs.usage` is not looked at, `usage` is."""
    crowd, others = _divided(inputs)
    result = _rate_alike(inputs, crowd, usage)
    total = int(usage.octets.sum())
    rest = engine.Rated()
    if others:
        rest = engine.rate(replace(inputs, subscriptions=others, usage=_rows_of(usage, {row.id for row in others})))
        both = pa.concat_tables([result.charges, table_of(rest.charges)])
        order = pa.table({"service": both.column("service"), "row": pa.array(np.arange(len(both)))})  # no sort is stable here
        result.charges = both.take(pc.sort_indices(order, sort_keys=[("service", "ascending"), ("row", "ascending")]))
    result.carried = rest.carried
    result.stretches += rest.stretches
    seen = result.rated_octets + result.sampled_refused_octets
    result.rated_octets += rest.rated_octets
    result.sampled_refused_octets += rest.sampled_refused_octets
    result.without_plan_octets = total - seen - rest.rated_octets - rest.sampled_refused_octets
    return result


class Totals(NamedTuple):
    """What subscriptions come to in a period, in minor units; the tax once for each percentage, half-up. What a service with
    add-ons, or with several rows that are not simple, comes to is with the first of them."""

    subscription: NDArray[np.int64]
    net: Minor
    gross: Minor
    refused: Octets  # sampled octets that no line took


def totals(inputs: engine.Inputs, usage: UsageColumns) -> tuple[Totals, dict[int, list[Carried]]]:
    """The sums of what `rate` gives, by subscription, without its rows; and what is carried."""
    crowd, others = _divided(inputs)
    sums = _Sums(crowd.ids, usage)
    assembly, refused = _filled(crowd, sums, usage)
    net, gross = assembly.totals(inputs)
    rest = engine.Rated()
    if not others:
        return Totals(crowd.ids, net, gross, refused), rest.carried
    rows = _rows_of(usage, {row.id for row in others})
    ids, more = [], []
    for _, members in groupby(others, key=attrgetter("service")):
        service = list(members)
        one = engine.rate(replace(inputs, subscriptions=service, usage={row.id: rows.get(row.id, []) for row in service}))
        rest.carried |= one.carried
        ids.append(min(service, key=engine.rank).id)
        more.append((*engine.net_and_gross(one.charges, inputs.percent_on), one.sampled_refused_octets))
    each = np.array(more, np.int64).reshape(-1, 3)
    return Totals(np.r_[crowd.ids, np.array(ids, np.int64)], np.r_[net, each[:, 0]], np.r_[gross, each[:, 1]],
                  np.r_[refused, each[:, 2]]), rest.carried


def totals_of_alike(inputs: engine.Inputs, groups: Sequence[tuple[engine.Subscription, NDArray[np.int64]]], usage: UsageColumns
                    ) -> Totals:
    """The same for groups of subscriptions that differ from one of them in nothing but their row id, under simple plans."""
    templates: list[_Template] = []
    ids, which = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for row, members in groups:
        template = _template(inputs, row)
        if template is not None:
            ids.append(members)
            which.append(np.full(len(members), len(templates), np.int64))
            templates.append(template)
    crowd = _Crowd(np.concatenate(ids), [], np.concatenate(which), templates)
    assembly, refused = _filled(crowd, _Sums(crowd.ids, usage), usage)
    return Totals(crowd.ids, *assembly.totals(inputs), refused)


class _Crowd(NamedTuple):
    """Subscriptions that are alike with others, ordered by service: row ids, services, and the index of the template."""

    ids: NDArray[np.int64]
    services: list[str]
    which: NDArray[np.int64]
    templates: list[_Template]


def _divided(inputs: engine.Inputs) -> tuple[_Crowd, list[engine.Subscription]]:
    """Subscriptions of services whose rows are all simple, and the others."""
    ordered = sorted(inputs.subscriptions, key=attrgetter("service"))
    index_of: dict[tuple[object, ...], int] = {}
    templates: list[_Template] = []
    which: list[int] = []
    apart: set[str] = set()
    for row in ordered:
        if row.is_addon or row.pauses:
            apart.add(row.service)
            which.append(NOT_SIMPLE)
            continue
        key = (row.plan, row.start, row.end, row.timezone, row.is_first, row.previous, row.has_next)
        index = index_of.get(key)
        if index is None:
            plan = inputs.catalogue.in_force(row.plan, row.start)
            index = NO_PLAN
            if plan is not None and not is_simple(plan):
                index = NOT_SIMPLE
            elif (made := _template(inputs, row)) is not None:
                index = len(templates)
                templates.append(made)
            index_of[key] = index
        if index == NOT_SIMPLE:
            apart.add(row.service)
        which.append(index)
    if apart:
        others = [row for row in ordered if row.service in apart]
        pairs = [(row, index) for row, index in zip(ordered, which, strict=True) if row.service not in apart]
        ordered, which = [row for row, _ in pairs], [index for _, index in pairs]
    else:
        others = []
    ids, indexes = np.array([row.id for row in ordered], np.int64), np.array(which, np.int64)
    planned = indexes >= 0
    services = [row.service for row in ordered]
    if not planned.all():
        services = [services[number] for number in np.flatnonzero(planned).tolist()]
    return _Crowd(ids[planned], services, indexes[planned], templates), others


def is_simple(plan: Plan) -> bool:
    """Whether this module charges all lines of a plan."""
    return not (plan.percentiles or plan.quotas or plan.minimums or plan.maximums or plan.discounts or plan.is_addon
                or plan.rounding != "half_up")


def _rows_of(usage: UsageColumns, wanted: set[int]) -> dict[int | None, list[engine.Usage]]:
    """The usage of some subscriptions as the engine takes it."""
    found: dict[int | None, list[engine.Usage]] = {}
    for index in np.flatnonzero(np.isin(usage.subscription, np.array(sorted(wanted), np.int64))).tolist():
        zone, class_, direction, sampled = usage.keys[usage.key[index]]
        found.setdefault(int(usage.subscription[index]), []).append(
            engine.Usage(zone, class_, direction, sampled, int(usage.octets[index])))
    return found


# the alike


def _rate_alike(inputs: engine.Inputs, crowd: _Crowd, usage: UsageColumns) -> Rated:
    sums = _Sums(crowd.ids, usage)
    assembly, refused = _filled(crowd, sums, usage)
    result = Rated(assembly.table(inputs), stretches=len(crowd.ids), sampled_refused_octets=int(refused.sum()))
    result.rated_octets = sums.total - result.sampled_refused_octets
    return result


def _filled(crowd: _Crowd, sums: _Sums, usage: UsageColumns) -> tuple[_Assembly, Octets]:
    """The rows with the amounts of traffic, and the sampled octets that each subscription's lines refused."""
    order = np.argsort(crowd.which, kind="stable")
    bounds = np.searchsorted(crowd.which[order], np.arange(len(crowd.templates) + 1))
    assembly = _Assembly(crowd)
    refused = np.zeros(len(crowd.ids), np.int64)
    for index, template in enumerate(crowd.templates):
        members = order[bounds[index]:bounds[index + 1]]
        plan = template.stretch.plan
        refuses = [engine.is_refused(plan, engine.Usage(*key, 0)) for key in usage.keys]
        if any(refuses):
            refused[members] = sums.of(refuses)[members]
        for place, line in enumerate(template.lines):
            if line is not None:
                octets = sums.of([line.matches(*key[:3]) and (line.sampled == "allow" or not key[3]) for key in usage.keys])
                assembly.put(index, place, members, billed_octets(octets[members], line), line)
    return assembly, refused


def _template(inputs: engine.Inputs, row: engine.Subscription) -> _Template | None:
    stretch = engine.stretch_of(row, inputs.catalogue, inputs.period)
    if stretch is None:
        return None
    rows = engine.charge(stretch, (), engine.NO_SLOTS, inputs.percent_on)
    rows.sort(key=lambda charge: charge.key)
    lines = {line.name: line for line in stretch.plan.traffic}
    return _Template(stretch, rows, [lines[charge.line] if charge.kind == "traffic" else None for charge in rows])


class _Sums:
    """Octets of each subscription over some of the keys."""

    def __init__(self, ids: NDArray[np.int64], usage: UsageColumns) -> None:
        changes = usage.subscription[1:] != usage.subscription[:-1]
        self._starts = np.flatnonzero(np.r_[True, changes]) if len(usage.subscription) else np.zeros(0, np.int64)
        heads = usage.subscription[self._starts]  # usage is ordered by subscription: one run each
        sorter = np.argsort(ids, kind="stable")
        place = np.minimum(np.searchsorted(ids, heads, sorter=sorter), max(len(ids) - 1, 0))
        self._known = ids[sorter[place]] == heads if len(ids) else np.zeros(len(heads), bool)
        self._row = sorter[place[self._known]] if len(ids) else np.zeros(0, np.int64)
        self._count, self._key, self._octets = len(ids), usage.key, usage.octets
        self._kept: dict[tuple[bool, ...], Octets] = {}

    @property
    def total(self) -> int:
        return int(self.of([True] * int(self._key.max(initial=-1) + 1)).sum())

    def of(self, wanted: Sequence[bool]) -> Octets:
        kept = self._kept.get(tuple(wanted))
        if kept is None:
            kept = np.zeros(self._count, np.int64)
            if len(self._row):
                taken = self._octets if all(wanted) else np.where(np.array(wanted, bool)[self._key], self._octets, 0)
                kept[self._row] = np.add.reduceat(taken, self._starts)[self._known]
            self._kept[tuple(wanted)] = kept
        return kept


def billed_octets(octets: Octets, line: Traffic) -> Octets:
    """`engine.billed_octets` of many."""
    above = octets > line.included
    return np.where(above, octets - line.included if line.above == "excess" else octets, 0)


def amounts(billed: Octets, line: Traffic, currency: str) -> Minor:
    """What a line charges for these octets, in minor units, each rounded half-up once."""
    minor = 10 ** money.minor_digits(currency)
    if not line.tiers:
        if line.block is not None:
            return _rounded(-(-billed // line.block), Fraction(line.price) * minor)
        return _rounded(billed, Fraction(line.price) * minor / line.unit_octets)
    return _tiered(billed, line, minor)


def _tiered(billed: Octets, line: Traffic, minor: int) -> Minor:
    """`engine.tiered` of many: octets or blocks of each tier over one denominator, rounded once."""
    prices = [Fraction(tier.price) * minor / (1 if tier.block is not None else line.unit_octets) for tier in line.tiers]
    flats = [Fraction(tier.flat) * minor for tier in line.tiers]
    bottom = lcm(*(price.denominator for price in (*prices, *flats)))
    most = int(billed.max(initial=1))
    highest = sum(most * int(price * bottom) + int(flat * bottom) for price, flat in zip(prices, flats, strict=True))
    if highest > INT64_MAX // 2 - bottom:
        return _each(billed, lambda octets: money.round_half_up(engine.tiered(line, octets) * minor))
    top, below = np.zeros(len(billed), np.int64), 0
    for number, tier in enumerate(line.tiers):
        mine = billed > below if number else np.ones(len(billed), bool)
        if line.model == "volume":
            mine &= billed <= (INT64_MAX if tier.to is None else tier.to)
            part = billed
        else:
            part = (billed if tier.to is None else np.minimum(billed, tier.to)) - below
        below = tier.to or below
        count = part if tier.block is None else -(-part // tier.block)
        top += np.where(mine, count * int(prices[number] * bottom) + int(flats[number] * bottom), 0)
    return np.asarray((2 * top + bottom) // (2 * bottom), np.int64)


def _rounded(count: Octets, price: Fraction) -> Minor:
    """half-up(count × price), for counts and prices that are not negative."""
    top, bottom = price.numerator, price.denominator
    most = int(count.max(initial=0))
    if most // bottom * top + top > INT64_MAX or 2 * (bottom - 1) * top + bottom > INT64_MAX or 2 * bottom > INT64_MAX:
        return _each(count, lambda one: money.round_half_up(one * price))
    whole, rest = np.divmod(count, bottom)
    return np.asarray(whole * top + (2 * rest * top + bottom) // (2 * bottom), np.int64)


def _each(values: Octets, of: Callable[[int], int]) -> Minor:
    """One by one, each value once."""
    distinct, inverse = np.unique(values, return_inverse=True)
    return np.array([of(value) for value in distinct.tolist()], np.int64)[inverse]


def quantities(billed: Octets, line: Traffic) -> pa.Array:
    """`engine.decimal_text` of many: octets in units, or started blocks."""
    if line.block is not None and not line.tiers:
        return pc.cast(pa.array(-(-billed // line.block)), pa.string())
    digits = len(str(line.unit_octets)) - 1
    if 10**digits != line.unit_octets:
        return _texts(billed, line)
    if digits == 0:
        return pc.cast(pa.array(billed), pa.string())
    words = np.zeros((len(billed), 2), np.int64)  # 128 bits, little-endian; octets are not negative
    words[:, 0] = billed
    decimals = pa.Array.from_buffers(pa.decimal128(38, digits), len(billed), [None, pa.py_buffer(words.tobytes())])
    texts = pc.utf8_rtrim(pc.utf8_rtrim(pc.cast(decimals, pa.string()), characters="0"), characters=".")
    if not billed.all():
        texts = pc.if_else(pa.array(billed == 0), "0", texts)
    small = (billed > 0) & (billed < 10 ** max(digits - ZERO_DIGITS_MAX, 0))
    return pc.replace_with_mask(texts, pa.array(small), _texts(billed[small], line)) if small.any() else texts


def _texts(billed: Octets, line: Traffic) -> pa.Array:
    return pa.array([engine.decimal_text(Fraction(octets, line.unit_octets)) for octets in billed.tolist()], pa.string())


class _Assembly:
    """Rows of all templates' subscriptions, by service, to be filled in."""

    def __init__(self, crowd: _Crowd) -> None:
        templates, which = crowd.templates, crowd.which
        self._templates, self._services = templates, pa.array(crowd.services, pa.string())
        counts = np.array([len(template.rows) for template in templates], np.int64)
        firsts = np.r_[0, np.cumsum(counts)[:-1]] if len(counts) else np.zeros(0, np.int64)
        self._counts = counts[which] if len(counts) else np.zeros(0, np.int64)
        ends = np.cumsum(self._counts)
        self._offsets = ends - self._counts
        total = int(ends[-1]) if len(ends) else 0
        self._owner = np.repeat(np.arange(len(which)), self._counts)
        self._kind = np.repeat(firsts[which] if len(counts) else self._counts, self._counts) \
            + np.arange(total) - np.repeat(self._offsets, self._counts)
        self._fixed = [row for template in templates for row in template.rows]
        self._amount = np.array([engine.amount_of(row) for row in self._fixed], np.int64)[self._kind] if total else \
            np.zeros(0, np.int64)
        self._traffic: list[tuple[NDArray[np.int64], Octets, Traffic]] = []

    def put(self, index: int, place: int, members: NDArray[np.int64], billed: Octets, line: Traffic) -> None:
        """The octets of one row of a template, for all its subscriptions."""
        at = self._offsets[members] + place
        self._amount[at] = amounts(billed, line, self._templates[index].stretch.plan.currency)
        self._traffic.append((at, billed, line))

    def table(self, inputs: engine.Inputs) -> pa.Table:
        if not len(self._kind):
            return schemas.CHARGES.empty_table()
        net, gross = self._net(inputs)
        fixed = table_of(self._fixed).take(pa.array(self._kind))
        columns = {name: fixed.column(name) for name in schemas.CHARGES.names}
        columns["service"] = self._services.take(pa.array(self._owner))
        columns["quantity"] = self._quantities()
        columns["net_minor"], columns["gross_minor"] = pa.array(net), gross
        return pa.Table.from_arrays([columns[name] for name in schemas.CHARGES.names], schema=schemas.CHARGES)

    def _quantities(self) -> pa.Array:
        texts = [pa.array([row.quantity for row in self._fixed], pa.string())]
        which, count = self._kind.copy(), len(self._fixed)
        for at, billed, line in self._traffic:
            texts.append(quantities(billed, line))
            which[at] = count + np.arange(len(at))
            count += len(at)
        return pa.concat_arrays(texts).take(pa.array(which))

    def totals(self, inputs: engine.Inputs) -> tuple[Minor, Minor]:
        """Net and gross of each subscription."""
        if not len(self._kind):
            return np.zeros(len(self._counts), np.int64), np.zeros(len(self._counts), np.int64)
        net, _ = self._net(inputs)
        percents = [inputs.percent_on(row.tax, row.end - DAY) for row in self._fixed]
        inclusive = np.array([row.gross_minor is not None for row in self._fixed], bool)[self._kind]
        gross = self._by_owner(np.where(inclusive, self._amount, 0))
        for percent in set(percents):
            mine = np.array([one == percent for one in percents], bool)[self._kind] & ~inclusive
            if mine.any():
                part = self._by_owner(np.where(mine, net, 0))
                gross += part + _rounded(part, percent / 100)
        return self._by_owner(net), gross

    def _by_owner(self, values: Minor) -> Minor:
        found = np.zeros(len(self._counts), np.int64)
        some = self._counts > 0
        found[some] = np.add.reduceat(values, self._offsets[some])
        return found

    def _net(self, inputs: engine.Inputs) -> tuple[Minor, pa.Array]:
        """Net amounts, and gross ones where prices include the tax."""
        net = self._amount.copy()
        inclusive = np.array([row.gross_minor is not None for row in self._fixed], bool)[self._kind]
        percents = [None if row.gross_minor is None else inputs.percent_on(row.tax, row.end - DAY) for row in self._fixed]
        for percent in {percent for percent in percents if percent is not None}:
            mine = np.array([one == percent for one in percents], bool)[self._kind]
            net[mine] = _rounded(self._amount[mine], 100 / (100 + percent))
        return net, pa.array(self._amount, mask=~inclusive)


def table_of(charges: Sequence[engine.Charge]) -> pa.Table:
    """Charges as core.schemas.CHARGES."""
    arrays = []
    for index, column in enumerate(schemas.CHARGES):
        values = [charge[index] for charge in charges]
        kind = pa.int64() if column.type == schemas.INSTANT else column.type
        arrays.append(pa.array(values, kind).cast(column.type))
    return pa.Table.from_arrays(arrays, schema=schemas.CHARGES)
