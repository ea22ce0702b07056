"""Whether flows cover an interface: layer-2 overhead, sampling's error, and what is said when nobody knows."""

from __future__ import annotations

from fractions import Fraction

import pytest

from collector.verdicts import Flows, band, judge, sampling_error, worst

ETHERNET = (18, 38)
T = Fraction(99)


@pytest.mark.parametrize(("octets", "packets", "counter", "verdict"), [
    (100_000, 100, 101_800, "complete"),  # 18 octets a packet: untagged Ethernet
    (100_000, 100, 103_800, "unclear"),  # 38: two tags and three labels, or 2 % lost
    (100_000, 100, 104_900, "incomplete"),  # even with 38 a packet only 98.9 %
    (100_000, 100, 200_000, "incomplete"),
    (0, 0, 1, "incomplete"),
    (0, 0, 0, "complete"),
    (100_000, 100, 98_000, "excess"),
    (1, 1, 0, "excess"),
    (100_000, 100, 100_000, "complete"),  # a router that counts IP octets
])
def test_verdicts_of_flows_against_a_counter(octets: int, packets: int, counter: int, verdict: str) -> None:
    assert judge(Flows(octets, packets, 0, 1), counter, T, ETHERNET) == verdict


def test_without_a_counter_nothing_is_assumed() -> None:
    assert judge(Flows(100, 1, 0, 1), None, T, ETHERNET) == "unknown"


def test_the_threshold_is_met_exactly() -> None:
    assert judge(Flows(990, 0, 0, 1), 1000, T, (0, 0)) == "complete"
    assert judge(Flows(989, 0, 0, 1), 1000, T, (0, 0)) == "incomplete"


def test_a_sampled_interface_is_incomplete_only_beyond_the_error_of_sampling() -> None:
    few, many = Flows(900_000, 900, 100, 100), Flows(900_000_000, 900_000, 1_000_000, 1)
    assert judge(few, 1_000_000, T, (0, 0)) == "unclear"
    assert judge(many, 1_000_000_000, T, (0, 0)) == "incomplete"
    assert sampling_error(0) == 0
    assert sampling_error(1) == 1_000_000
    assert sampling_error(10_000) == 36_500


def test_the_band_grows_with_the_overhead() -> None:
    found = band(Flows(1000, 10, 0, 1), ETHERNET)
    assert (found.least, found.most) == (1180, 1380)


def test_the_worst_of_several_is_what_refuses() -> None:
    assert worst(["complete", "unknown", "incomplete", "excess"]) == "incomplete"
    assert worst(["unknown", "complete"]) == "complete"
    assert worst([]) == "unknown"
