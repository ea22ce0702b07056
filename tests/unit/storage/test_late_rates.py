"""Which rate a flow in quarantine is scaled by, against the rule written out in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.addresses import parse_address
from core.schemas import SAMPLER_BEYOND, SAMPLER_SHIFT, FlowFlag
from storage.late_rates import CONFIGURED, DOMAIN, NONE, SAMPLER, Event, LateRates, configured_rates

ONE, TWO = parse_address("192.0.2.1"), parse_address("192.0.2.2")


def chosen(rates: LateRates, exporter: bytes = ONE, domain: int = 7, sampler: int = 0, received: int = 100,
           octets: int = 1000) -> tuple[int, int, int]:
    flags = np.array([FlowFlag.QUARANTINED | sampler << SAMPLER_SHIFT], np.uint32)
    found = rates.choose(np.frombuffer(exporter, np.uint8).reshape(1, 16), np.array([domain], np.uint32), flags,
                         np.array([received], np.int64), np.array([octets], np.int64), np.array([1], np.int64))
    return int(found.numerator[0]), int(found.denominator[0]), int(found.source[0])


def test_the_first_announcement_after_a_flow_counts_and_else_the_last_before() -> None:
    rates = LateRates({(ONE, 7, 0): (Event(50, 10, 1), Event(100, 20, 1), Event(200, 30, 1))})
    assert chosen(rates, received=49) == (10, 1, DOMAIN)
    assert chosen(rates, received=100) == (20, 1, DOMAIN)
    assert chosen(rates, received=101) == (30, 1, DOMAIN)
    assert chosen(rates, received=900) == (30, 1, DOMAIN)
    assert chosen(rates, domain=8) == (1, 1, NONE)
    assert chosen(rates, exporter=TWO) == (1, 1, NONE)


def test_a_rate_that_was_taken_back_rates_nothing_behind_it_until_the_next() -> None:
    rates = LateRates({(ONE, 7, 0): (Event(50, 10, 1), Event(100, 0, 0))})
    assert chosen(rates, received=40) == (10, 1, DOMAIN)
    assert chosen(rates, received=150) == (1, 1, NONE)
    rates = LateRates({(ONE, 7, 0): (Event(50, 10, 1), Event(100, 0, 0), Event(200, 5, 2))})
    assert chosen(rates, received=150) == (5, 2, DOMAIN)


def test_a_sampler_goes_before_its_domain_and_both_before_the_settings() -> None:
    rates = LateRates({(ONE, 7, 4): (Event(500, 11, 1),), (ONE, 7, 0): (Event(200, 12, 1),)}, {ONE: 13, TWO: 14})
    assert chosen(rates, sampler=4) == (11, 1, SAMPLER)
    assert chosen(rates, sampler=5) == (12, 1, DOMAIN)
    assert chosen(rates, sampler=SAMPLER_BEYOND) == (12, 1, DOMAIN)
    assert chosen(rates, domain=1) == (13, 1, CONFIGURED)
    assert chosen(rates, exporter=TWO) == (14, 1, CONFIGURED)


def test_a_count_that_a_late_rate_would_lift_out_of_bounds_stays_in_quarantine() -> None:
    rates = LateRates(configured={ONE: 2**32 - 1})
    assert chosen(rates, octets=2**29) == (2**32 - 1, 1, CONFIGURED)
    assert chosen(rates, octets=2**31) == (1, 1, NONE)


def test_rates_of_the_settings_are_read_by_address() -> None:
    document: dict[str, Any] = {"exporter": [{"address": "192.0.2.1", "sampling": 5}, {"address": "192.0.2.2"}]}
    assert configured_rates(document) == {ONE: 5}


def slow(events: dict[tuple[bytes, int, int], list[Event]], configured: dict[bytes, int],
         row: tuple[bytes, int, int, int]) -> int:
    """The numerator by the rule as the module's docstring says it, 0 for none."""
    exporter, domain, sampler, received = row
    for key in ([(exporter, domain, sampler)] if sampler else []) + [(exporter, domain, 0)]:
        known = events.get(key, [])
        after = [event for event in known if event.received >= received and event.numerator]
        if after:
            return after[0].numerator
        before = [event for event in known if event.received < received]
        if before and before[-1].numerator:
            return before[-1].numerator
    return configured.get(exporter, 0)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_announcements_are_chosen_from_by_the_rule(data: st.DataObject) -> None:
    keys = [(exporter, domain, sampler) for exporter in (ONE, TWO) for domain in (0, 1) for sampler in (0, 1, 2)]
    events = {}
    for key in keys:
        times = sorted(data.draw(st.sets(st.integers(0, 20), max_size=4)))
        events[key] = [Event(at, data.draw(st.sampled_from([0, 2, 3, 5])), 1) for at in times]
    configured = data.draw(st.sampled_from([{}, {ONE: 99}]))
    rows = data.draw(st.lists(st.tuples(st.sampled_from([ONE, TWO]), st.integers(0, 1), st.integers(0, 2),
                                        st.integers(0, 22)), min_size=1, max_size=30))
    rates = LateRates({key: tuple(found) for key, found in events.items()}, configured)
    exporter = np.frombuffer(b"".join(row[0] for row in rows), np.uint8).reshape(-1, 16)
    flags = np.array([FlowFlag.QUARANTINED | row[2] << SAMPLER_SHIFT for row in rows], np.uint32)
    found = rates.choose(exporter, np.array([row[1] for row in rows], np.uint32), flags,
                         np.array([row[3] for row in rows], np.int64), np.full(len(rows), 9, np.int64),
                         np.full(len(rows), 1, np.int64))
    expected = [slow(events, configured, row) for row in rows]
    assert [int(n) if source else 0 for n, source in zip(found.numerator, found.source, strict=True)] == expected


@pytest.mark.parametrize("nothing", [LateRates(), LateRates({}, {})])
def test_nothing_known_rates_nothing(nothing: LateRates) -> None:
    assert chosen(nothing) == (1, 1, NONE)
