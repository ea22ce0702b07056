"""The engine and the second engine (`rating.recomputation`) agree on random services under random plans of every kind of line.

CI tries some hundred cases that hypothesis can shrink and some hundred seeded ones; `make nightly` 10^5 of those. A seed that
fails is in the message: `random_bills.case(Random(seed))` makes its case again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from random import Random

import pytest
import random_bills
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import money, periods
from rating import engine, plans

SEEDS = 100_000 if os.environ.get("RATEMILL_NIGHTLY") else 1500
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
shrinkable = settings(max_examples=250, deadline=None, suppress_health_check=SLOW)
seeded = settings(max_examples=150, deadline=None)
seeds = st.integers(0, 2**63)


def check(case: random_bills.Case) -> None:
    rated = case.by_engine()
    expected = sorted((tuple(charge) for charge in rated.charges), key=repr)
    assert sorted((tuple(row.values()) for row in case.by_recomputation()), key=repr) == expected
    assert case.carried_by_recomputation() == {number: [tuple(rest) for rest in left] for number, left in rated.carried.items()}
    octets = sum(row.octets for rows in case.usage.values() for row in rows)
    assert rated.rated_octets + rated.without_plan_octets + rated.sampled_refused_octets == octets
    assert len({charge.key for charge in rated.charges}) == len(rated.charges)


@shrinkable
@given(random=st.randoms())
def test_two_engines_come_to_the_same_charges_and_carry_the_same(random: Random) -> None:
    check(random_bills.case(random))


@pytest.mark.timeout(6 * 3600 if SEEDS == 100_000 else 600)
def test_two_engines_come_to_the_same_charges_for_many_seeds() -> None:
    kinds: set[str] = set()
    carry: set[bool] = set()  # an add-on, or a service's own plan
    for seed in range(SEEDS):
        case = random_bills.case(Random(seed))
        try:
            check(case)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        if seed < 200:
            rated = case.by_engine()
            kinds |= {charge.kind for charge in rated.charges if charge.net_minor or charge.kind == "quota"}
            carry |= {row.is_addon for row in case.subscriptions if row.id in rated.carried}
    assert carry == {True, False}
    assert kinds == set(plans.LINE_KINDS), "every kind of line was charged"


@seeded
@given(seed=seeds)
def test_splitting_and_shuffling_usage_changes_no_charge(seed: int) -> None:
    """OpenMeter: 12 units and then 10 more are 22 at once."""
    random = Random(seed)
    case = random_bills.case(random)
    pieces: dict[int | None, list[engine.Usage]] = {}
    for number, rows in case.usage.items():
        pieces[number] = [piece for row in rows for piece in _pieces(random, row)]
        random.shuffle(pieces[number])
    subscriptions = random.sample(case.subscriptions, len(case.subscriptions))
    split = replace(case, usage=pieces, subscriptions=subscriptions).by_engine()
    whole = case.by_engine()
    assert split.charges == whole.charges
    assert split.carried == whole.carried


def _pieces(random: Random, row: engine.Usage) -> Iterator[engine.Usage]:
    left = row.octets
    for _ in range(random.randint(0, 3)):
        octets = random.randint(0, left)
        left -= octets
        yield row._replace(octets=octets)
    yield row._replace(octets=left)


def _given(stretch: engine.Stretch, quota: plans.Quota) -> int:
    """Octets that a quota gives in the stretch's period."""
    start, count = stretch.subscription.start, stretch.subscription.quantity
    if quota.given == "once":
        return quota.volume * count if start is not None and start.isoformat()[:7] == stretch.period else 0
    whole = periods.period_end_day(stretch.period) - periods.period_first_day(stretch.period)
    days = (stretch.end - stretch.start).days if quota.share == "actual_days" else whole.days
    return quota.volume * count * days // whole.days


def _used(charges: list[engine.Charge], stretch: engine.Stretch, quota: plans.Quota) -> int:
    mine = [one for one in charges if (one.kind, one.line, one.service, one.plan, one.start, one.end) == (
        "quota", quota.name, stretch.subscription.service, stretch.plan.name, stretch.start, stretch.end)]
    assert len(mine) == 1
    return int(Fraction(mine[0].quantity) * plans.OCTET_UNITS[quota.unit])


@seeded
@given(seed=seeds)
def test_two_periods_together_never_use_more_than_was_given(seed: int) -> None:
    random = Random(seed)
    case = random_bills.case(random)
    balance: dict[tuple[int, str], int] = {}
    for _ in range(3):
        rated, inputs = case.by_engine(), case.inputs
        for row in case.subscriptions:
            stretch = engine.stretch_of(row, inputs.catalogue, case.period)
            for quota in () if stretch is None else stretch.plan.quotas:
                key = (row.id, quota.name)
                carried = sum(rest.octets for rest in row.carried if rest.quota == quota.name and rest.expires >= case.period)
                balance[key] = balance.get(key, carried) + _given(stretch, quota) - _used(rated.charges, stretch, quota)
                left = [rest.octets for rest in rated.carried.get(row.id, []) if rest.quota == quota.name]
                assert sum(left) <= balance[key]
                assert sum(left) <= quota.rollover_cap * row.quantity
                assert all(octets > 0 for octets in left)
        period = periods.next_period(case.period)
        subscriptions = [replace(row, carried=tuple(rated.carried.get(row.id, ()))) for row in case.subscriptions]
        usage = {number: random_bills.usage(random) for number in case.usage}
        case = replace(case, period=period, subscriptions=subscriptions, usage=usage, slots={})
    assert all(octets >= 0 for octets in balance.values())


def _amount(charges: list[engine.Charge]) -> int:
    return sum(engine.amount_of(charge) for charge in charges)


@seeded
@given(seed=seeds)
def test_a_discount_never_makes_a_stretch_negative(seed: int) -> None:
    case = random_bills.case(Random(seed))
    inputs = case.inputs
    for row in case.subscriptions:
        stretch = engine.stretch_of(row, inputs.catalogue, case.period)
        if stretch is None:
            continue
        other = [charge for charge in case.by_engine().charges if charge.service == row.service and not row.is_addon]
        charges = engine.charge(stretch, case.usage.get(row.id, ()), inputs.slots.get(row.id, engine.NO_SLOTS),
                                random_bills.percent_on, of_service=other)
        of_service = {line.name for line in stretch.plan.discounts if line.of == "service"}
        before = [charge for charge in charges if charge.kind != "discount"]
        own = [charge for charge in charges if charge.kind == "discount" and charge.line not in of_service]
        service = [charge for charge in charges if charge.line in of_service]
        assert all(engine.amount_of(charge) <= 0 for charge in own + service)
        assert _amount(before + own) >= min(0, _amount(before))
        assert _amount(other + service) >= min(0, _amount(other))
        assert not own or _amount(before) > 0 or _amount(own) == 0


@seeded
@given(seed=seeds)
def test_minimums_and_maximums_hold_exactly(seed: int) -> None:
    """To the rounding of their own row; a maximum comes after a minimum and wins."""
    case = random_bills.case(Random(seed))
    inputs = case.inputs
    for row in case.subscriptions:
        stretch = engine.stretch_of(row, inputs.catalogue, case.period)
        if stretch is None:
            continue
        charges = engine.charge(stretch, case.usage.get(row.id, ()), inputs.slots.get(row.id, engine.NO_SLOTS),
                                random_bills.percent_on)
        for kind, lines in (("minimum", stretch.plan.minimums), ("maximum", stretch.plan.maximums)):
            upto = charges[:next((at for at, one in enumerate(charges) if one.kind not in _until(kind)), len(charges))]
            for line in lines:
                mine = next(charge for charge in charges if charge.line == line.name)
                counted = [one for one in upto if (one.line in line.lines if line.lines else
                                                   upto.index(one) < upto.index(mine))]
                bound = Fraction(line.amount) * 10**money.minor_digits(stretch.plan.currency) * row.quantity
                if line.share == "actual_days":
                    month = periods.period_end_day(case.period) - periods.period_first_day(case.period)
                    bound *= Fraction((stretch.end - stretch.start).days, month.days)
                before, after = _amount(counted), _amount([*counted, mine])
                exact = max(bound, Fraction(before)) if kind == "minimum" else min(bound, Fraction(before))
                assert abs(after - exact) < 1
                assert after == before + stretch.plan.round(exact - before)


def _until(kind: str) -> tuple[str, ...]:
    """Kinds of lines up to one."""
    return plans.LINE_KINDS[:plans.LINE_KINDS.index(kind) + 1]
