"""Fees of a service that rests: each uninterrupted time is a charge, and a whole fee is paid once."""

from __future__ import annotations

from datetime import date
from fractions import Fraction

import pytest

from rating import engine, plans

JANUARY_AT_REST = (engine.Pause(date(2026, 1, 1), date(2026, 2, 1), "suspension"),)


def _charges(period: str, proration: str, every: str = "quarter", during: str = "active",
             pauses: tuple[engine.Pause, ...] = JANUARY_AT_REST) -> list[tuple[str, str, str, int]]:
    fee = plans.Fee("Line", "90.00", every, "advance", proration, during)
    plan = plans.Plan("p", date(2025, 1, 1), "EUR", "standard", False, None, (fee,), (), ())
    row = engine.Subscription(1, "S", "p", date(2025, 6, 1), None, "Europe/Berlin", "EUR", pauses=pauses)
    stretch = engine.stretch_of(row, plans.Catalogue([plan]), period)
    assert stretch is not None
    return [(one.start.isoformat(), one.end.isoformat(), one.quantity, one.net_minor)
            for one in engine.charge(stretch, (), engine.NO_SLOTS, lambda tax, day: Fraction(19))]


def test_a_whole_fee_is_paid_once_though_the_rest_lies_in_another_month() -> None:
    """The quarter of December to February: paid with December, not again with February."""
    assert _charges("2025-12", "whole_period") == [("2025-12-01", "2026-01-01", "1", 9000)]
    assert _charges("2026-01", "whole_period") == []
    assert _charges("2026-02", "whole_period") == []
    assert _charges("2026-03", "whole_period") == [("2026-03-01", "2026-06-01", "1", 9000)]


def test_the_parts_around_a_rest_have_their_own_days() -> None:
    assert _charges("2025-12", "actual_days") == [("2025-12-01", "2026-01-01", "31/90", 3100)]
    assert _charges("2026-02", "actual_days") == [("2026-02-01", "2026-03-01", "28/90", 2800)]
    assert _charges("2026-01", "actual_days", during="suspension") == [("2026-01-01", "2026-02-01", "31/90", 3100)]


@pytest.mark.parametrize("every", ["month", "day"])
def test_rests_without_a_gap_are_one(every: str) -> None:
    halves = (engine.Pause(date(2026, 1, 3), date(2026, 1, 5), "vacation"),
              engine.Pause(date(2026, 1, 5), date(2026, 1, 9), "vacation"),
              engine.Pause(date(2026, 1, 9), date(2026, 1, 11), "suspension"))
    assert [row[:2] for row in _charges("2026-01", "actual_days", every, "vacation", halves)] == [("2026-01-03", "2026-01-09")]
    assert [row[:2] for row in _charges("2026-01", "actual_days", every, "active", halves)] == [
        ("2026-01-01", "2026-01-03"), ("2026-01-11", "2026-02-01")]
