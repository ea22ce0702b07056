"""Fees that are charged only while a service is active, or only while it rests."""

from __future__ import annotations

from datetime import date
from fractions import Fraction

import pytest

from rating import engine, plans, proration


def day(text: str) -> date:
    return date.fromisoformat(text)


def rows(period: str, fee: plans.Fee, pauses: list[tuple[str, str, str]], billing_day: int | None = 1, start: str = "2026-01-01"
         ) -> list[tuple[str, str, str, int]]:
    """First day, day after the last, quantity and amount of the fee's charges."""
    plan = plans.Plan("p", day("2020-01-01"), "EUR", "standard", False, None, (fee,), (), (), billing_day=billing_day)
    subscription = engine.Subscription(
        1, "S", "p", day(start), None, "Europe/Berlin", "EUR",
        pauses=tuple(engine.Pause(day(since), day(until), kind) for since, until, kind in pauses))
    inputs = engine.Inputs(period, [subscription], plans.Catalogue([plan]), {}, {}, lambda category, on: Fraction(0))
    return [(str(c.start), str(c.end), c.quantity, c.net_minor) for c in engine.rate(inputs).charges]


REST = [("2026-10-10", "2026-10-20", "vacation"), ("2026-10-20", "2026-10-25", "suspension")]


@pytest.mark.parametrize(("during", "expected"), [
    ("always", [("2026-10-01", "2026-11-01", "1", 3100)]),
    ("active", [("2026-10-01", "2026-10-10", "9/31", 900), ("2026-10-25", "2026-11-01", "7/31", 700)]),
    ("vacation", [("2026-10-10", "2026-10-20", "10/31", 1000)]),
    ("suspension", [("2026-10-20", "2026-10-25", "5/31", 500)]),
])
def test_each_uninterrupted_time_is_a_charge(during: str, expected: list[object]) -> None:
    fee = plans.Fee("F", "31", "month", "arrears", "actual_days", during)
    assert rows("2026-10", fee, REST) == expected


def test_two_pauses_of_a_kind_that_touch_are_one_time() -> None:
    fee = plans.Fee("F", "31", "month", "arrears", "actual_days", "vacation")
    touching = [("2026-10-10", "2026-10-20", "vacation"), ("2026-10-20", "2026-10-25", "vacation")]
    assert rows("2026-10", fee, touching) == [("2026-10-10", "2026-10-25", "15/31", 1500)]


@pytest.mark.parametrize(("when", "period", "expected"), [
    ("advance", "2026-10", [("2026-10-15", "2026-10-20", "1", 3100)]),
    ("advance", "2026-11", [("2026-11-15", "2026-12-15", "1", 3100)]),
    ("arrears", "2026-10", [("2026-09-15", "2026-10-15", "1", 3100), ("2026-10-15", "2026-10-20", "1", 3100)]),
    ("arrears", "2026-11", []),
])
def test_a_fee_period_is_paid_whole_once_also_if_it_goes_on_in_the_next_period(
        when: str, period: str, expected: list[object]) -> None:
    """Billing day 15: what was paid for 15 to 20 October is not paid again from 5 November on."""
    fee = plans.Fee("F", "31", "month", when, "whole_period", "active")
    assert rows(period, fee, [("2026-10-20", "2026-11-05", "vacation")], 15) == expected


def test_a_part_never_costs_more_than_the_whole() -> None:
    """30E/360 counts 32 days from 28 February to 30 March, within a fee period that is a month."""
    part = proration.Part(day("2026-02-28"), day("2026-03-30"), day("2026-02-28"), day("2026-03-31"), 1)
    assert (proration.share("thirty_day_month", part), proration.quantity("thirty_day_month", part)) == (1, "30/30")
    fee = plans.Fee("F", "30", "month", "advance", "thirty_day_month", "active")
    assert rows("2026-02", fee, [("2026-03-30", "2026-03-31", "vacation")], None, "2025-12-31") == [
        ("2026-02-28", "2026-03-30", "30/30", 3000)]
