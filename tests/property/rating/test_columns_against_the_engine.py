"""Many subscriptions at once: columns are what the engine gives one by one."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from random import Random

import numpy as np
import pytest
import random_bills
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import schemas
from rating import columns, engine, plans

NOTHING: tuple[()] = ()


def _simple(plan: plans.Plan) -> plans.Plan:
    """What columns charge by themselves of a plan."""
    return replace(plan, name=f"simple {plan.name}", quotas=NOTHING, minimums=NOTHING, maximums=NOTHING, discounts=NOTHING,
                   percentiles=NOTHING, rounding="half_up")


def _crowd(random: Random) -> tuple[engine.Inputs, columns.UsageColumns]:
    """Services of every model, and among them many that are alike under simple plans; some rest, some have no plan."""
    case = random_bills.case(random)
    inputs = case.inputs
    simple = [_simple(plan) for plan in inputs.catalogue.all() if not plan.is_addon]
    own = [row for row in case.subscriptions if not row.is_addon]
    alike = []
    for number in range(random.randint(0, 12) if own else 0):
        row = random.choice(own)
        alike.append(replace(
            row, id=100 + number, service=f"S{random.randint(0, 99):02d}-{number}", plan=row.plan and f"simple {row.plan}",
            carried=NOTHING, beside=NOTHING, pauses=row.pauses if random.random() < 0.2 else NOTHING))
    usage = {**case.usage, **{row.id: random_bills.usage(random) for row in alike}}
    everybody = [*case.subscriptions, *alike]
    random.shuffle(everybody)
    return replace(inputs, subscriptions=everybody, usage=usage,
                   catalogue=plans.Catalogue([*inputs.catalogue.all(), *simple])), _columns(usage)


def _columns(usage: dict[int | None, list[engine.Usage]]) -> columns.UsageColumns:
    rows = sorted((columns.NOBODY if number is None else number, row[:4], row.octets)
                  for number, rows in usage.items() for row in [one._replace(zone=one.zone or "") for one in rows])
    keys = sorted({key for _, key, _ in rows})
    return columns.UsageColumns(
        np.array([number for number, _, _ in rows], np.int64), np.array([keys.index(key) for _, key, _ in rows], np.int32),
        np.array([octets for _, _, octets in rows], np.int64), [(zone or None, *rest) for zone, *rest in keys])


def _check(random: Random) -> None:
    inputs, usage = _crowd(random)
    one, many = engine.rate(inputs), columns.rate(inputs, usage)
    assert many.charges.schema == schemas.CHARGES
    assert many.charges.to_pylist() == columns.table_of(one.charges).to_pylist()
    for name in ("rated_octets", "without_plan_octets", "sampled_refused_octets", "stretches", "carried"):
        assert getattr(many, name) == getattr(one, name), name
    sums, carried = columns.totals(inputs, usage)
    assert carried == one.carried
    assert int(sums.net.sum()) == sum(row.net_minor for row in one.charges)
    assert int(sums.refused.sum()) == one.sampled_refused_octets
    for number, net, gross in zip(sums.subscription.tolist(), sums.net.tolist(), sums.gross.tolist(), strict=True):
        (row,) = (row for row in inputs.subscriptions if row.id == number)
        if sum(other.service == row.service for other in inputs.subscriptions) == 1:
            mine = [charge for charge in one.charges if charge.service == row.service]
            assert (net, gross) == engine.net_and_gross(mine, inputs.percent_on)


@given(st.randoms())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_crowd_is_charged_as_each_of_it_would_be(random: Random) -> None:
    _check(random)


def test_many_crowds_are_charged_as_each_of_them_would_be() -> None:
    for seed in range(300):
        try:
            _check(Random(seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error


@pytest.mark.parametrize("price", ["0.000000001", "999999999999999.999999999", "3.333", "100"])
@pytest.mark.parametrize("unit", ["B", "GB", "TiB"])
def test_amounts_and_texts_that_64_bits_do_not_hold(price: str, unit: str) -> None:
    line = plans.Traffic("T", "down", (), (), 0, "excess", price, unit, "allow")
    octets = [0, 1, 999, 10**3, 10**9 - 1, 10**9, 2**40, 2**40 + 1, 10**15 + 7, 2**53]
    billed = np.array(octets, np.int64)
    if unit == "B" and len(price) > 15:
        octets, billed = octets[:3], billed[:3]  # the amount itself has to fit
    minor = [engine.money.round_half_up(Fraction(price) * 100 * one / line.unit_octets) for one in octets]
    if max(minor) < 2**63:
        assert columns.amounts(billed, line, "EUR").tolist() == minor
    assert columns.quantities(billed, line).to_pylist() == [
        engine.decimal_text(Fraction(one, line.unit_octets)) for one in octets]
