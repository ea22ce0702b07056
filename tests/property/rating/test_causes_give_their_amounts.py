"""Whatever another billing's policy is: its amounts are explained by it, and nothing else is explained."""

from __future__ import annotations

from datetime import date, timedelta
from fractions import Fraction

from hypothesis import assume, given
from hypothesis import strategies as st
from twin_bills import bill, cause, fee, plan, subscription, traffic, usage

from rating.twin import prices

GB = 10**9
AMOUNTS = st.integers(1_000, 99_999).map(lambda minor: f"{minor // 100}.{minor % 100:02d}")
STARTS = st.integers(1, 30).map(lambda days: (date(2026, 10, 1) + timedelta(days)).isoformat())


def half_up(value: Fraction) -> int:
    return int(value + Fraction(1, 2))


@given(AMOUNTS, STARTS)
def test_a_month_of_thirty_days_is_always_explained(amount: str, start: str) -> None:
    days = 30 - min(int(start[-2:]), 30) + 1
    theirs = half_up(Fraction(amount) * 100 * days / 30)
    one = bill(plan(fee=[fee(amount)]), subscriptions=[subscription(start)])
    assume(one.rate()[0].net_minor != theirs)
    found = cause(one, theirs)
    assert found is not None
    assert found.is_explained
    assert found.name in ("rounding", "proration")  # a cent may as well be rounding


@given(AMOUNTS, STARTS, st.integers(2, 50))
def test_what_is_more_than_the_whole_fee_and_its_tax_is_never_explained(amount: str, start: str, times: int) -> None:
    theirs = half_up(Fraction(amount) * 120) * times
    assert cause(bill(plan(fee=[fee(amount)]), subscriptions=[subscription(start)]), theirs) is None


@given(st.integers(1, 9_999), st.integers(2, 4), st.lists(st.integers(1, 10**13), min_size=2, max_size=6, unique=True))
def test_the_price_that_is_found_gives_every_amount(number: int, digits: int, octets: list[int]) -> None:
    price = Fraction(number, 10**digits)
    assume(price != Fraction(1, 2))
    samples = []
    for index, some in enumerate(octets):
        one = bill(plan(traffic=[traffic()]), hours=[usage("2026-10-20T08:00:00Z", some)])
        rows = one.rate()
        samples.append(prices.Sample(f"S{index}", rows, [Fraction(19)] * len(rows), half_up(price * 100 * some / GB)))
    found = prices.other_price(samples, "half_up", "net")
    if found is None:  # ours gives the same amounts: the quantities are too small to tell
        assert all(half_up(Fraction(50) * some / GB) == of.theirs_minor for some, of in zip(octets, samples, strict=True))
    else:
        assert [half_up(Fraction(found) * 100 * some / GB) for some in octets] == [of.theirs_minor for of in samples]
