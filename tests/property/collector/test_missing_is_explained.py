"""Missing units are explained as kernel drops up to their count, the rest as network, whatever the exporters are like."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from collector.loss import (
    Estimate,
    Explained,
    Missing,
    explain,
    missing_datagrams,
    missing_records,
    percent_text,
    share_out,
)

counts = st.integers(0, 10**6)


@st.composite
def domains(draw: st.DrawFn) -> Missing:
    """A domain whose datagrams held what its bounds say."""
    sizes = draw(st.lists(st.integers(0, 40), max_size=20))
    return Missing(draw(counts), draw(st.booleans()), len(sizes), sum(sizes), min(sizes, default=0), max(sizes, default=0))


@given(st.lists(domains(), max_size=8), counts)
def test_kernel_and_network_are_all_that_is_missing(some: list[Missing], drops: int) -> None:
    explained, unseen = explain(some, drops)
    assert all(each.kernel + each.network == one.missing for one, each in zip(some, explained, strict=True))
    assert all(each.kernel >= 0 and each.network >= 0 for each in explained)
    assert 0 <= unseen <= drops


@given(st.lists(domains(), max_size=8), counts)
def test_every_estimate_lies_within_its_bounds(some: list[Missing], drops: int) -> None:
    explained, _ = explain(some, drops)
    for one, each in zip(some, explained, strict=True):
        for estimate in (each.kernel_bounds, each.datagrams, each.records):
            assert 0 <= estimate.least <= estimate.likely <= estimate.most
        assert each.kernel_bounds.likely == each.kernel
        assert each.kernel_bounds.most <= one.missing
        exact = each.records if one.by_records else each.datagrams
        assert exact.least == exact.likely == exact.most == one.missing


@given(st.lists(domains().filter(lambda one: not one.by_records), max_size=8), counts)
def test_drops_explain_datagrams_up_to_their_count(some: list[Missing], drops: int) -> None:
    """Where datagrams are counted the equation is exact: what is explained and what is not seen are the drops."""
    explained, unseen = explain(some, drops)
    assert sum(each.kernel for each in explained) == min(drops, sum(one.missing for one in some)) == drops - unseen


@given(domains(), counts)
def test_more_drops_never_explain_less(one: Missing, drops: int) -> None:
    (few,), _ = explain([one], drops)
    (more,), _ = explain([one], drops + 1)
    assert more.kernel >= few.kernel


@given(domains().filter(lambda one: one.missing > 0))
def test_drops_for_everything_leave_nothing_to_the_network(one: Missing) -> None:
    (each,), _ = explain([one], missing_datagrams(one).most)
    assert each.network == 0


@given(counts, st.lists(counts, max_size=10))
def test_shares_are_whole_and_sum_to_the_lesser(total: int, wanted: list[int]) -> None:
    shares = share_out(total, wanted)
    assert sum(shares) == min(total, sum(wanted))
    assert all(0 <= share <= want for share, want in zip(shares, wanted, strict=True))
    if total < sum(wanted):  # nobody gets a whole unit more than his part
        assert all(abs(share * sum(wanted) - total * want) < sum(wanted) for share, want in zip(shares, wanted, strict=True))


def test_thirty_records_of_full_v5_datagrams_are_one_datagram() -> None:
    full = Missing(90, True, 100, 3000, 30, 30)
    assert explain([full], 2) == ([Explained(60, 30, Estimate(60, 60, 60), Estimate(3, 3, 3),
                                             Estimate(90, 90, 90))], 0)


def test_lost_datagrams_of_v9_held_what_others_held() -> None:
    assert missing_records(Missing(10, False, 4, 50, 5, 20)) == Estimate(50, 125, 200)


def test_with_two_exporters_nobody_knows_whose_the_drops_were() -> None:
    (first, second), unseen = explain([Missing(30, False, 1, 1, 1, 1), Missing(10, False, 1, 1, 1, 1)], 20)
    assert (first.kernel, second.kernel, unseen) == (15, 5, 0)
    assert first.kernel_bounds == Estimate(10, 15, 20)
    assert second.kernel_bounds == Estimate(0, 5, 10)


def test_percents_are_cut_off_and_never_rounded_up_to_all() -> None:
    assert percent_text(99_999, 100_000, 2) == "99.99"
    assert percent_text(1, 3) == "33.333"
    assert percent_text(3, 0) is None
