"""Minimums, maximums and discounts of one stretch, and of an add-on on the service's plan."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from fractions import Fraction
from typing import Any

import pytest

from rating import engine, plans

OWN = engine.Subscription(1, "S", "own", date(2026, 1, 1), None, "UTC", "EUR")
ADDON = replace(OWN, id=2, plan="extra", is_addon=True)


def fee(name: str, amount: str) -> plans.Fee:
    return plans.Fee(name, amount, "month", "arrears", "actual_days")


def bound(name: str, amount: str, *lines: str, share: str = "whole_period") -> plans.Bound:
    return plans.Bound(name, amount, lines, share)


def discount(name: str, *lines: str, percent: str = "", amount: str = "", **more: Any) -> plans.Discount:
    return plans.Discount(name, percent, amount, lines, **more)


def plan(*fees: plans.Fee, name: str = "own", **more: Any) -> plans.Plan:
    return plans.Plan(name, date(2020, 1, 1), "EUR", "standard", False, None, fees, (), (), **more)


def rate(plans_: plans.Plan | list[plans.Plan], *rows: engine.Subscription, period: str = "2026-10") -> dict[str, int]:
    """Cents by line."""
    every = [plans_] if isinstance(plans_, plans.Plan) else plans_
    rated = engine.rate(engine.Inputs(period, rows or [OWN], plans.Catalogue(every), {}, {}, lambda category, day: Fraction(0)))
    return {charge.line: charge.net_minor for charge in rated.charges}


def test_what_lacks_is_added_and_what_exceeds_is_taken_off() -> None:
    one = plan(fee("A", "10"), minimums=(bound("Min", "15"),), maximums=(bound("Max", "12"),))
    assert rate(one) == {"A": 1000, "Min": 500, "Max": -300}


def test_an_amount_for_some_lines_and_one_for_all_both_hold() -> None:
    """80 of A come to 50 at most, and all to 100 at most."""
    one = plan(fee("A", "80"), fee("B", "60"), maximums=(bound("Of A", "50", "A"), bound("Of all", "100")))
    assert rate(one) == {"A": 8000, "B": 6000, "Of A": -3000, "Of all": -1000}
    two = plan(fee("A", "5"), fee("B", "10"), minimums=(bound("Of A", "20", "A"), bound("Of all", "50")))
    assert rate(two) == {"A": 500, "B": 1000, "Of A": 1500, "Of all": 2000}


def test_a_part_of_a_month_has_its_part_of_an_amount_if_the_plan_says_so() -> None:
    row = replace(OWN, start=date(2026, 10, 22))
    assert rate(plan(minimums=(bound("Min", "31", share="actual_days"),)), row) == {"Min": 1000}
    assert rate(plan(minimums=(bound("Min", "31"),)), row) == {"Min": 3100}


def test_three_of_an_add_on_cost_what_three_add_ons_cost() -> None:
    extra = plan(fee("A", "10"), name="extra", minimums=(bound("Min", "12"),), maximums=(bound("Max", "11"),),
                 discounts=(discount("Off", amount="2"),))
    once = rate(extra, ADDON)
    assert once == {"A": 1000, "Min": 200, "Max": -100, "Off": -200}
    assert rate(extra, replace(ADDON, quantity=3)) == {name: 3 * amount for name, amount in once.items()}


@pytest.mark.parametrize(
    ("period", "days"), [("2026-03", 0), ("2026-04", 16), ("2026-05", 31), ("2026-06", 14), ("2026-07", 0)])
def test_a_percentage_is_of_the_days_in_its_window(period: str, days: int) -> None:
    """From the third month after 15 January on, for two months: 15 April to 15 June."""
    row = replace(OWN, start=date(2026, 1, 15))
    one = plan(plans.Fee("A", "1", "day", "arrears", "actual_days"),
               discounts=(discount("Off", percent="50", after_months=3, months=2),))
    assert rate(one, row, period=period).get("Off") == (-50 * days if days else None)


def test_a_month_after_the_31st_is_the_last_of_the_month() -> None:
    row = replace(OWN, start=date(2026, 1, 31))
    one = plan(plans.Fee("A", "1", "day", "arrears", "actual_days"), discounts=(discount("Off", percent="100", months=1),))
    assert rate(one, row, period="2026-02")["Off"] == -2700


def test_a_row_without_a_start_has_had_its_first_months() -> None:
    row = replace(OWN, start=None)
    for off, expected in ((discount("Off", percent="10", months=12), None),
                          (discount("Off", percent="10", after_months=6), -100), (discount("Off", percent="10"), -100),
                          (discount("Off", percent="10", starts_until=date(2027, 1, 1)), None)):
        assert rate(plan(fee("A", "10"), discounts=(off,)), row).get("Off") == expected


@pytest.mark.parametrize(
    ("start", "expected"), [("2025-12-31", None), ("2026-01-01", -100), ("2026-01-31", -100), ("2026-02-01", None)])
def test_a_campaign_is_for_those_who_start_in_it(start: str, expected: int | None) -> None:
    off = discount("Off", percent="10", starts_from=date(2026, 1, 1), starts_until=date(2026, 2, 1))
    assert rate(plan(fee("A", "10"), discounts=(off,)), replace(OWN, start=date.fromisoformat(start))).get("Off") == expected


def test_what_the_account_has_beside_counts_by_days_and_once() -> None:
    beside = (engine.Beside("tv", date(2026, 10, 5), date(2026, 10, 10)),
              engine.Beside("tv", date(2026, 10, 8), date(2026, 10, 12)), engine.Beside("phone", date(2026, 10, 1), None))
    off = discount("Off", percent="100", beside=("tv",))
    one = plan(plans.Fee("A", "1", "day", "arrears", "actual_days"), discounts=(off,))
    assert rate(one, replace(OWN, beside=beside))["Off"] == -700


def test_discounts_never_take_more_than_there_is() -> None:
    one = plan(fee("A", "10"), fee("B", "5"), discounts=(
        discount("First", "A", amount="12"), discount("Second", "B", percent="80"), discount("Third", amount="9")))
    assert rate(one) == {"A": 1000, "B": 500, "First": -1000, "Second": -400, "Third": -100}


def test_a_discount_never_adds() -> None:
    """With a maximum of 0 alone, half of its row would be an addition."""
    one = plan(fee("A", "10"), maximums=(bound("Max", "4"),), discounts=(discount("Off", "Max", percent="50"),))
    assert rate(one) == {"A": 1000, "Max": -600, "Off": 0}


def test_discounts_on_the_services_plan_and_on_the_add_on_are_kept_apart() -> None:
    own = plan(fee("A", "10"), discounts=(discount("Half", percent="50"),))
    extra = plan(fee("B", "8"), name="extra", discounts=(
        discount("Service", amount="4", of="service"), discount("Own", amount="8"), discount("Rest", amount="4", of="service")))
    assert rate([own, extra], OWN, ADDON) == {"A": 1000, "Half": -500, "B": 800, "Service": -400, "Own": -800, "Rest": -100}
    second = replace(extra, name="more", discounts=(discount("More", percent="100", of="service"),), fees=())
    later = replace(ADDON, id=3, plan="more", start=date(2026, 10, 1))
    assert rate([own, extra, second], OWN, later, ADDON)["More"] == 0, "the first add-on took what there was"
