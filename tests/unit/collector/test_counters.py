"""Shared figures: nothing is lost when their file grows, and a histogram counts each value once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from collector import counters
from storage.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


def test_figures_of_an_older_version_go_on(home: Home) -> None:
    old = np.zeros(64, np.int64)
    old[[counters.BEGUN, counters.RECEIVED, counters.DURABLE, counters.DECODED, counters.DECODED_BLOCK]] = 1, 70, 60, 50, 12
    old.tofile(counters.counters_path(home, "main"))
    assert counters.figures(home, "main").received == 70, "a reader may come first"
    places = counters.open_counters(home, "main")
    assert len(places) == counters.SIZE
    assert (places[counters.RECEIVED], places[counters.DECODED_BLOCK]) == (70, 12)
    places[counters.RECEIVED] += 1
    assert counters.figures(home, "main").received == 71


def test_a_collector_that_never_ran_has_nothing(home: Home) -> None:
    assert counters.figures(home, "nobody") == counters.Figures()


def test_every_value_is_in_one_bucket(home: Home) -> None:
    places = counters.open_counters(home, "main")
    bounds = (10, 20, 30)
    values = [0, 10, 11, 20, 29, 30, 31, 1000]
    for value in values:
        counters.observe(places, counters.JOURNAL_SYNCS, bounds, value)
    assert counters.histogram(places, counters.JOURNAL_SYNCS, bounds) == counters.Histogram((2, 2, 2, 2), sum(values))


def test_no_two_things_have_one_place() -> None:
    receiver = [counters.BEGUN, counters.RECEIVED, counters.OCTETS, counters.TRUNCATED, counters.DURABLE, counters.KERNEL_DROPS,
                counters.REFUSED, counters.LOST, counters.DURABLE_BLOCK, counters.OWED, counters.RECEIVE_ERRORS,
                counters.STALLED_NS, counters.LOOKED_AT, counters.JOURNAL_OCTETS, counters.JOURNAL_BLOCKS,
                counters.JOURNAL_FAILING, counters.DISK_FREE, counters.DISK_RESERVE, counters.DISK_WARNING, counters.DISK_LEVEL]
    decoder = [counters.DECODED, counters.DECODED_BLOCK, counters.FLOWS, counters.SEGMENTS, counters.DECODE_PAUSED,
               counters.DECODED_PART]
    assert max(receiver) < min(decoder)
    assert max(decoder) < counters.LISTENERS
    listeners = [counters.listener_at(number) for number in range(counters.LISTENERS_MAX)]
    spans = [
        *(range(at, at + counters.LISTENER_WIDTH) for at in listeners),
        range(counters.DATAGRAM_SIZES, counters.DATAGRAM_SIZES + len(counters.SIZE_BOUNDS) + 2),
        range(counters.JOURNAL_SYNCS, counters.JOURNAL_SYNCS + len(counters.DURATION_BOUNDS_NS) + 2),
        *(range(counters.worker_at(n), counters.worker_at(n) + counters.WORKER_WIDTH) for n in range(counters.WORKERS_MAX)),
        range(counters.STREAM_RECEIVED, counters.SESSIONS_JOURNALED + 1),
    ]
    used = receiver + decoder + [place for span in spans for place in span]
    assert len(used) == len(set(used))
    assert max(used) < counters.SIZE
    commits = counters.WORKER_COMMITS + len(counters.DURATION_BOUNDS_NS) + 2
    assert commits <= counters.WORKER_WIDTH


def test_listeners_beyond_the_last_place_share_it() -> None:
    assert counters.listener_at(counters.LISTENERS_MAX + 5) == counters.listener_at(counters.LISTENERS_MAX - 1)
