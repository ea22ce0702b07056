"""Quotas: which one covers what, what is left of them, and what is carried."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from fractions import Fraction
from typing import Any

import pytest

from rating import engine, plans
from rating.quotas import Carried

LINE = plans.Traffic("T", "both", (), (), 0, "excess", "1", "B", "refuse")
OWN = engine.Subscription(1, "S", "own", date(2026, 1, 1), None, "UTC", "EUR")
ADDON = replace(OWN, id=2, plan="extra", is_addon=True)


def quota(name: str, volume: int, **more: Any) -> plans.Quota:
    return plans.Quota(name, volume, "B", "both", (), (), **more)


def plan(name: str, *quotas: plans.Quota, lines: tuple[plans.Traffic, ...] = (LINE,)) -> plans.Plan:
    traffic = lines if name == "own" else ()
    return plans.Plan(name, date(2020, 1, 1), "EUR", "standard", False, None, (), traffic, (), quotas=quotas)


def rate(plans_: list[plans.Plan], rows: list[engine.Subscription], usage: dict[int | None, list[engine.Usage]] | int,
         period: str = "2026-10") -> tuple[dict[tuple[str, str], str], dict[int, list[Carried]]]:
    """Quantities by first day and line, and what is carried."""
    if isinstance(usage, int):
        usage = {1: [engine.Usage(None, "default", "down", False, usage)]}
    rated = engine.rate(engine.Inputs(period, rows, plans.Catalogue(plans_), usage, {}, lambda category, day: Fraction(0)))
    return {(str(c.start), c.line): c.quantity for c in rated.charges}, rated.carried


def used(*args: Any, **more: Any) -> dict[str, str]:
    """Quantities by line, where every line is there once."""
    found, _ = rate(*args, **more)
    assert len({line for _, line in found}) == len(found)
    return {line: quantity for (_, line), quantity in found.items()}


def test_the_lowest_priority_is_used_first() -> None:
    one = plan("own", quota("Late", 100, priority=2), quota("Early", 100, priority=1))
    assert used([one], [OWN], 150) == {"Early": "100", "Late": "50", "T": "0"}
    assert used([one], [OWN], 250) == {"Early": "100", "Late": "100", "T": "50"}


def test_among_equals_what_expires_first_is_used_first() -> None:
    lasting = quota("Lasting", 100, rollover_cap=1000, rollover_periods=2)
    assert used([plan("own", lasting, quota("Now", 100))], [OWN], 150) == {"Now": "100", "Lasting": "50", "T": "0"}
    addon = plan("extra", quota("Now", 100))
    assert used([plan("own", lasting), addon], [OWN, ADDON], 150) == {"Now": "100", "Lasting": "50", "T": "0"}


def test_what_was_carried_is_used_before_what_is_given() -> None:
    """Two periods of rollover: the rest of September expires in November, that of October in December."""
    one = plan("own", quota("Q", 100, rollover_cap=1000, rollover_periods=2))
    row = replace(OWN, carried=(Carried("Q", "2026-10", 10), Carried("Q", "2026-11", 20)))
    assert rate([one], [row], 25)[1] == {1: [Carried("Q", "2026-12", 100), Carried("Q", "2026-11", 5)]}
    assert rate([one], [row], 5)[1] == {1: [Carried("Q", "2026-12", 100), Carried("Q", "2026-11", 20)]}
    assert rate([one], [row], 90)[1] == {1: [Carried("Q", "2026-12", 40)]}
    assert rate([one], [row], 200)[1] == {}


def test_what_expired_or_belongs_to_no_quota_is_not_used() -> None:
    row = replace(OWN, carried=(Carried("Q", "2026-09", 50), Carried("Gone", "2026-12", 50)))
    assert used([plan("own", quota("Q", 100))], [row], 150) == {"Q": "100", "T": "50"}


@pytest.mark.parametrize(("cap", "expected"), [
    (1000, [("2026-12", 100), ("2026-11", 20)]),
    (110, [("2026-12", 100), ("2026-11", 10)]),
    (100, [("2026-12", 100)]),
    (60, [("2026-12", 60)]),
])
def test_a_cap_keeps_the_newest(cap: int, expected: list[tuple[str, int]]) -> None:
    row = replace(OWN, carried=(Carried("Q", "2026-11", 20), Carried("Q", "2026-10", 7)))
    one = plan("own", quota("Q", 100, rollover_cap=cap, rollover_periods=2))
    assert rate([one], [row], 7)[1] == {1: [Carried("Q", *found) for found in expected]}


def test_what_expires_together_is_one_amount() -> None:
    row = replace(OWN, carried=(Carried("Q", "2026-11", 20),))
    one = plan("own", quota("Q", 100, rollover_cap=1000, rollover_periods=1))
    assert rate([one], [row], 30)[1] == {1: [Carried("Q", "2026-11", 90)]}


def test_nothing_is_carried_without_rollover_or_over_the_end() -> None:
    lasting = plan("own", quota("Q", 100, rollover_cap=1000, rollover_periods=2))
    assert rate([plan("own", quota("Q", 100))], [OWN], 0)[1] == {}
    for end in (date(2026, 10, 15), date(2026, 11, 1)):
        assert rate([lasting], [replace(OWN, end=end)], 0)[1] == {}
    assert rate([lasting], [replace(OWN, end=date(2026, 11, 2))], 0)[1] == {1: [Carried("Q", "2026-12", 100)]}


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 3, 1]])
def test_add_ons_are_used_after_the_plans_own_by_first_day_and_name(rows: list[int]) -> None:
    own = plan("own", quota("Own", 10))
    addons = [plan(name, quota(name, 10)) for name in ("a", "b", "c", "d")]
    starts = [date(2026, 9, 2), date(2026, 9, 2), date(2026, 8, 1), date(2026, 10, 5)]
    held = [OWN, *(replace(ADDON, id=2 + number, plan=one.name, start=start)
                   for number, (one, start) in enumerate(zip(addons, starts, strict=True)))]
    for octets, expected in ((10, "10 0 0 0 0"), (15, "10 5 0 0 0"), (25, "10 10 5 0 0"), (35, "10 10 10 5 0"),
                             (45, "10 10 10 10 5"), (60, "10 10 10 10 10")):
        found = used([own, *addons], [held[index] for index in rows], octets)
        assert " ".join(found[name] for name in ("Own", "c", "a", "b", "d")) == expected


def test_an_add_on_covers_stretches_that_share_a_day_with_it() -> None:
    rows = [replace(OWN, end=date(2026, 10, 11)), replace(OWN, id=3, start=date(2026, 10, 11)),
            replace(ADDON, start=date(2026, 10, 11))]
    usage: dict[int | None, list[engine.Usage]] = {
        number: [engine.Usage(None, "default", "down", False, 70)] for number in (1, 3)}
    held = [plan("own"), plan("extra", quota("Pack", 100))]
    assert rate(held, rows, usage)[0] == {("2026-10-01", "T"): "70", ("2026-10-11", "T"): "0", ("2026-10-11", "Pack"): "70"}
    rows[2] = replace(ADDON, start=date(2026, 10, 10), end=date(2026, 10, 11))
    assert rate(held, rows, usage)[0] == {("2026-10-01", "T"): "0", ("2026-10-11", "T"): "70", ("2026-10-10", "Pack"): "70"}
    rows[2] = ADDON
    assert rate(held, rows, usage)[0] == {("2026-10-01", "T"): "0", ("2026-10-11", "T"): "40", ("2026-10-01", "Pack"): "100"}


def test_volumes_count_as_often_as_an_add_on_is_held_and_a_part_of_a_month_is_floored() -> None:
    held = [plan("own"), plan("extra", quota("Pack", 100, share="actual_days", rollover_cap=40, rollover_periods=1))]
    rows = [OWN, replace(ADDON, quantity=3, start=date(2026, 10, 22))]
    assert used(held, rows, 500)["Pack"] == "96", "floor(3 · 100 · 10 ÷ 31)"
    assert rate(held, rows, 0)[1] == {2: [Carried("Pack", "2026-11", 96)]}
    assert rate(held, [OWN, replace(ADDON, quantity=2)], 0)[1] == {2: [Carried("Pack", "2026-11", 80)]}


def test_what_is_given_once_is_given_in_the_period_of_the_start() -> None:
    one = plan("own", quota("Once", 100, given="once", rollover_cap=100, rollover_periods=12))
    started = replace(OWN, start=date(2026, 10, 31))
    assert rate([one], [started], 30)[1] == {1: [Carried("Once", "2027-10", 70)]}
    assert used([one], [started], 30, period="2026-11") == {"Once": "0", "T": "30"}
    assert used([one], [replace(started, start=None)], 30) == {"Once": "0", "T": "30"}
    kept = replace(started, carried=(Carried("Once", "2027-10", 70),))
    assert rate([one], [kept], 30, period="2026-11")[1] == {1: [Carried("Once", "2027-10", 40)]}


def test_an_octet_is_covered_for_every_line_and_sampled_ones_only_where_a_line_takes_them() -> None:
    two = replace(LINE, name="U", sampled="allow", direction="up")
    one = plan("own", quota("Q", 100), lines=(LINE, two))
    usage: dict[int | None, list[engine.Usage]] = {1: [
        engine.Usage(None, "default", direction, sampled, octets)
        for direction, sampled, octets in (("up", False, 60), ("up", True, 70), ("down", True, 1000))]}
    assert rate([one], [OWN], usage)[0] == {("2026-10-01", name): quantity for name, quantity in (
        ("Q", "100"), ("T", "0"), ("U", "30"))}, "first what T charges, then what only U does; nobody charges sampled down"


def test_quotas_come_before_what_a_line_includes() -> None:
    assert used([plan("own", quota("Q", 100), lines=(replace(LINE, included=50),))], [OWN], 170) == {"Q": "100", "T": "20"}
