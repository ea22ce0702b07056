"""The cumulative split, as the compiled kernels of the product do it, against Python's own integers and fractions.

Every span has a service of its own, whose only month is its own too: `sum_periods` then tells each part by itself.
"""

from __future__ import annotations

import math
import os
import random
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from aggregation import kernels
from aggregation.cell_sums import CellSums
from aggregation.sums import Sums

NIGHTLY = bool(os.environ.get("RATEMILL_NIGHTLY"))
FLOWS = 1_000_000
PIECE = 50_000
CUTS_MAX = 5
LONGEST = 2**32 - 1
YEAR_1, YEAR_9999 = -62_135_596_800_000, 253_402_300_799_000

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Cut:
    """Random flows, and the parts that they are cut into: part i is [from_ms[i], to_ms[i]) of flow[i]."""

    start: Int64
    end: Int64
    octets: Int64
    flow: Int64
    from_ms: Int64
    to_ms: Int64


def log_uniform(rng: np.random.Generator, count: int, bits: int) -> Int64:
    """Whole numbers of every length up to so many bits."""
    length = rng.integers(0, bits + 1, count)
    return rng.integers(0, 2**bits, count) >> (bits - length)


def one_of(rng: np.random.Generator, count: int, *choices: Int64 | int) -> Int64:
    columns = np.stack([np.broadcast_to(np.asarray(choice, np.int64), count) for choice in choices])
    return columns[rng.integers(0, len(choices), count), np.arange(count)]


def make_flows(rng: np.random.Generator, count: int) -> tuple[Int64, Int64, Int64]:
    """Start, end and octets: of all magnitudes, and of what lies at the edges of 32 and 62 bits."""
    duration = one_of(rng, count, log_uniform(rng, count, 32), log_uniform(rng, count, 32), rng.integers(0, 2**32, count),
                      LONGEST - log_uniform(rng, count, 10), 0, 1, 2, 2**31 - 1, 2**31, 2**31 + 1, LONGEST)
    several = np.maximum(duration, 1) * rng.integers(0, 2**30, count)
    octets = one_of(rng, count, log_uniform(rng, count, 62), rng.integers(0, 2**62, count, endpoint=True),
                    2**62 - log_uniform(rng, count, 33), several, several + 1, np.maximum(several - 1, 0), 0, 1,
                    2**32 - 1, 2**53 + 1, 2**62 - 1, 2**62)
    start = one_of(rng, count, rng.integers(YEAR_1, YEAR_9999 - 2**32, count), log_uniform(rng, count, 41), 0, -1)
    return start, start + duration, octets


def cut_at_random(rng: np.random.Generator, count: int) -> Cut:
    """Flows with up to CUTS_MAX cuts, at random instants and at the edges; those without duration have none."""
    start, end, octets = make_flows(rng, count)
    duration = end - start
    wanted = np.where(duration == 0, 0, rng.integers(0, CUTS_MAX + 1, count))
    cuts = np.empty((count, CUTS_MAX + 2), np.int64)
    for column in range(CUTS_MAX):
        anywhere = rng.integers(0, duration, endpoint=True)
        near = np.minimum(log_uniform(rng, count, 8), duration)
        at = one_of(rng, count, anywhere, anywhere, near, duration - near, duration // 2)
        cuts[:, column + 1] = np.where(column < wanted, at, duration)
    cuts[:, 0], cuts[:, -1] = 0, duration
    cuts.sort(axis=1)
    flow, part = np.nonzero(np.arange(CUTS_MAX + 1) <= wanted[:, None])
    return Cut(start, end, octets, flow, start[flow] + cuts[flow, part], start[flow] + cuts[flow, part + 1])


def flow_sums(start: Int64, end: Int64, octets: Int64, exporter: Int64 | None = None) -> kernels.FlowSums:
    zeros = np.zeros(len(start), np.int64)
    return kernels.FlowSums(start, end, octets, octets[::-1].copy(), zeros if exporter is None else exporter,
                            zeros.astype(bool))


def make_spans(flow: Int64, from_ms: Int64, to_ms: Int64, service: Int64) -> kernels.Spans:
    zeros = np.zeros(len(flow), np.uint8)
    return kernels.Spans(flow, zeros, zeros, zeros, service, from_ms, to_ms, zeros.astype(np.int16),
                         np.empty(len(flow), np.int32))


def split(cut: Cut, owner: Int64, owners: int) -> list[int]:
    """The octets of the parts of each owner, as `sum_periods` adds them up."""
    everyone = np.arange(owners + 1)
    ever = np.full(owners, -(2**62))
    only = np.where(everyone[:-1] % 2 == 0, everyone[:-1] << 1, kernels.SEVERAL).astype(np.int32)
    stretches = kernels.Stretches(everyone, ever, everyone[:-1], np.zeros(owners, np.uint8), only, everyone[:-1])
    totals = np.zeros(owners, np.int64)
    spans = make_spans(cut.flow, cut.from_ms, cut.to_ms, owner)
    kernels.look_up_stretches(spans, stretches)
    months = kernels.Months(everyone, ever, everyone[:-1])
    code = kernels.sum_periods(flow_sums(cut.start, cut.end, cut.octets), spans, stretches, months, 0, totals)
    assert code == kernels.DONE
    return totals.tolist()


def expected_parts(cut: Cut) -> list[int]:
    """floor(octets * (b - start) / D) - floor(octets * (a - start) / D) with numbers that have no width."""
    columns = (cut.octets[cut.flow], cut.start[cut.flow], cut.end[cut.flow], cut.from_ms, cut.to_ms)
    return [octets if start == end else octets * (b - start) // (end - start) - octets * (a - start) // (end - start)
            for octets, start, end, a, b in zip(*(column.tolist() for column in columns), strict=True)]


def by_fractions(octets: int, start: int, end: int, a: int, b: int) -> int:
    """The same, said as the rule says it."""
    if start == end:
        return octets
    return math.floor(Fraction(octets * (b - start), end - start)) - math.floor(Fraction(octets * (a - start), end - start))


def test_every_part_of_random_flows_is_what_whole_numbers_say() -> None:
    rng = np.random.default_rng(20_261_127)
    chosen = random.Random(1)
    seen = {"no duration": 0, "longest": 0, "most octets": 0, "beyond 64 bits": 0, "parts": 0}
    for _ in range(FLOWS // PIECE):
        cut = cut_at_random(rng, PIECE)
        count = len(cut.flow)
        found, expected = split(cut, np.arange(count), count), expected_parts(cut)
        if found != expected:
            at = next(i for i in range(count) if found[i] != expected[i])
            flow = int(cut.flow[at])
            pytest.fail(f"{cut.octets[flow]} octets in [{cut.start[flow]}, {cut.end[flow]}): [{cut.from_ms[at]}, "
                        f"{cut.to_ms[at]}) has {found[at]}, should have {expected[at]}")
        for at in chosen.sample(range(count), 1000):
            flow = int(cut.flow[at])
            assert found[at] == by_fractions(int(cut.octets[flow]), int(cut.start[flow]), int(cut.end[flow]),
                                             int(cut.from_ms[at]), int(cut.to_ms[at]))
        duration = cut.end - cut.start
        seen["no duration"] += int((duration == 0).sum())
        seen["longest"] += int((duration == LONGEST).sum())
        seen["most octets"] += int((cut.octets == 2**62).sum())
        seen["beyond 64 bits"] += int((np.log2(cut.octets + 1.0) + np.log2(duration + 1.0) > 65).sum())
        seen["parts"] += count
    assert all(number > FLOWS // 50 for number in seen.values()), seen
    assert seen["parts"] > 2 * FLOWS


def finer(rng: np.random.Generator, cut: Cut, pieces: int) -> tuple[Cut, Int64]:
    """Every part cut again, into so many pieces, all in random order; and which part each piece is of."""
    length = cut.to_ms - cut.from_ms
    inner = rng.integers(0, length[:, None], (len(length), pieces - 1), endpoint=True)
    edges = np.sort(np.concatenate([np.zeros((len(length), 1), np.int64), inner, length[:, None]], axis=1), axis=1)
    kept = np.ones((len(length), pieces), bool)
    kept[(cut.end == cut.start)[cut.flow], 1:] = False  # goes whole to its instant
    part, piece = np.nonzero(kept)
    order = rng.permutation(len(part))
    part, piece = part[order], piece[order]
    from_ms, to_ms = cut.from_ms[part] + edges[part, piece], cut.from_ms[part] + edges[part, piece + 1]
    return Cut(cut.start, cut.end, cut.octets, cut.flow[part], from_ms, to_ms), part


def test_any_sequence_of_cuts_in_any_order_gives_the_same_sums() -> None:
    rng = np.random.default_rng(2)
    for number in range(FLOWS // PIECE):
        coarse = cut_at_random(rng, PIECE)
        count = len(coarse.flow)
        sums = split(coarse, np.arange(count), count)
        fine, part = finer(rng, coarse, 2 + number % 4)
        assert split(fine, part, count) == sums
        finest, again = finer(rng, fine, 2)
        assert split(finest, part[again], count) == sums
        whole = coarse.octets.tolist()
        assert split(coarse, coarse.flow, PIECE) == split(finest, finest.flow, PIECE) == whole, "nothing is lost or made"
        assert not np.array_equal(np.sort(finest.from_ms), np.sort(coarse.from_ms)), "the sequences differ"


# The loops that cut at quarter hours and at a service's edges ---------------------------------------------------------
class Clock(NamedTuple):
    """A service's edges: where rows of its subscriptions begin, and where its offset changes."""

    stretches: list[tuple[int, bool]]  # start, by five minutes
    offsets: list[tuple[int, int]]  # start, offset


def random_flow(rng: random.Random, number: int) -> tuple[int, int, int]:
    """Hours long as a rule; a few go on for as long as flows can."""
    start = rng.randrange(-(2**33), 2**41)
    duration = rng.choice([0, 1, 899_999, 900_000, rng.randrange(10**7), rng.randrange(10**7)])
    if number % 200 == 0:
        duration = LONGEST - rng.randrange(3)
    return start, start + duration, rng.choice([1, 2**53 + 1, 2**62, rng.randrange(2**62), rng.randrange(10**6)])


def spans_of(rng: random.Random, flows: list[tuple[int, int, int]], most: int) -> kernels.Spans:
    """Each flow in up to `most` + 1 spans, none empty, all in random order; whole flows stay in the order of flows."""
    rows = []
    for number, (start, end, _) in enumerate(flows):
        wanted = min(most, max(end - start - 1, 0))
        inner = sorted({rng.randrange(start + 1, end) for _ in range(wanted)})
        rows += [(number, a, b) for a, b in zip([start, *inner], [*inner, end], strict=True)]
    if most:
        rng.shuffle(rows)
    flow, from_ms, to_ms = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return make_spans(flow, from_ms, to_ms, flow)


def table_of(sums: Sums) -> dict[tuple[int, int], list[int]]:
    keys, values = sums.rows()
    return {(k0, slot): three for (k0, slot, _), three in zip(keys.tolist(), values.tolist(), strict=True)}


GROUP = 8
"""Services that go by one clock, and whose flows follow each other in time: what was found for one is kept for the next."""


def near_each_other(rng: random.Random, flows: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The flows of a group begin within ten minutes of the group's first."""
    found = []
    for number, (start, end, octets) in enumerate(flows):
        first = flows[number // GROUP * GROUP][0] + rng.randrange(600_000)
        found.append((first, first + (end - start if number % 3 else 1 + (end - start) % 60_000), octets))
    return found


def cells_of(sums: CellSums) -> dict[tuple[int, int], list[int]]:
    table = sums.table()
    columns = [table.column(name).cast(pa.int64()).to_pylist() for name in ("service", "slot", "octets", "packets", "flows")]
    keys = list(zip(*columns[:2], strict=True))
    assert keys == sorted(set(keys)), "in order, each once"
    assert set(table.column("direction").to_pylist()) == {kernels.UP}
    return dict(zip(keys, map(list, zip(*columns[2:], strict=True)), strict=True))


@pytest.mark.parametrize("seed", range(4 if NIGHTLY else 2))
def test_outcomes_of_every_quarter_hour_are_what_whole_numbers_say_however_spans_are_cut(seed: int) -> None:
    rng = random.Random(seed)
    flows = [random_flow(rng, number) for number in range(1000)]
    start, end, octets = (np.array(column, np.int64) for column in zip(*flows, strict=True))
    sums_of = flow_sums(start, end, octets, np.arange(len(flows)))
    expected: dict[tuple[int, int], list[int]] = {}
    for number, (a, b, count) in enumerate(flows):
        for slot in range(a // 900_000 * 900_000, max(b, a + 1), 900_000):
            some = by_fractions(count, a, b, max(slot, a), min(slot + 900_000, b))
            if some or slot <= a:
                expected[number * 8, slot] = [some, 0, int(slot <= a)]
    for most in (0, 3, 40):
        spans, sums = spans_of(rng, flows, most), Sums()
        sums.run(partial(kernels.cut_outcomes, sums_of, spans))
        assert table_of(sums) == expected


def random_clock(rng: random.Random, start: int, end: int) -> Clock:
    """Up to three changes of either kind around a flow's time; offsets of whole hours and of others."""
    def changes() -> list[int]:
        return [-(2**60), *sorted({rng.randrange(start - 10, end + 10) for _ in range(rng.randrange(4))})]

    hours = [0, 3_600_000, -12_600_000, 20_700_000, 3_208_000]
    return Clock([(at, rng.random() < 0.5) for at in changes()], [(at, rng.choice(hours)) for at in changes()])


def expected_cells(flow: tuple[int, int, int], packets: int, clock: Clock) -> dict[int, list[int]]:
    """Every edge there is, by stepping through the flow: a cell reaches from one edge to the next."""
    start, end, octets = flow
    found: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
    at = start
    while True:
        row = max(i for i, (first, _) in enumerate(clock.stretches) if first <= at)
        zone = max(i for i, (first, _) in enumerate(clock.offsets) if first <= at)
        step, offset = (300_000 if clock.stretches[row][1] else 900_000), clock.offsets[zone][1]
        hour = (at + offset) // 3_600_000 * 3_600_000 - offset
        edges = [clock.stretches[row][0], clock.offsets[zone][0], at // step * step, hour]
        following = [first for first, _ in (*clock.stretches, *clock.offsets) if first > at]
        until = min([end, at // step * step + step, hour + 3_600_000, *following])
        parts = [by_fractions(count, start, end, at, until) for count in (octets, packets)]
        if any(parts) or at == start:
            for i, some in enumerate((*parts, int(at == start))):
                found[max(edges)][i] += some
        if until >= end:
            return dict(found)
        at = until


@pytest.mark.parametrize("seed", range(4 if NIGHTLY else 2))
def test_cells_at_every_edge_are_what_whole_numbers_say_however_spans_are_cut(seed: int) -> None:
    rng = random.Random(100 + seed)
    flows = near_each_other(rng, [random_flow(rng, number) for number in range(1000)])
    by_group = [random_clock(rng, start, end) for start, end, _ in flows[::GROUP]]
    clocks = [by_group[number // GROUP] for number in range(len(flows))]
    start, end, octets = (np.array(column, np.int64) for column in zip(*flows, strict=True))
    sums_of = flow_sums(start, end, octets)
    rows = [(i, *row) for i, clock in enumerate(clocks) for row in clock.stretches]
    zones = [row for clock in by_group for row in clock.offsets]
    first_row = np.cumsum([0, *(len(clock.stretches) for clock in clocks)])
    first_zone = np.cumsum([0, *(len(clock.offsets) for clock in by_group)])
    owner = np.array([i // GROUP for i, _, _ in rows], np.int64)
    alone = np.array([clock.stretches[0][1] if len(clock.stretches) == 1 else -1 for clock in clocks])
    only = np.where(alone < 0, kernels.SEVERAL, np.arange(len(clocks)) // GROUP << 1 | alone).astype(np.int32)
    stretches = kernels.Stretches(first_row, np.array([at for _, at, _ in rows]), owner,
                                  np.array([five for _, _, five in rows], np.uint8), only, np.arange(len(by_group)))
    zeros = np.zeros(len(zones), np.int64)
    local = kernels.Clocks(first_zone, np.array([at for at, _ in zones]), zeros, np.array([to for _, to in zones]), zeros)
    packets = sums_of.packets.tolist()
    expected = {(number, slot): three for number, flow in enumerate(flows)
                for slot, three in expected_cells(flow, packets[number], clocks[number]).items()}
    for most in (0, 3, 40):
        spans, sums = spans_of(rng, flows, most), CellSums(rows=1 << rng.choice([8, 12, 20]))
        kernels.look_up_stretches(spans, stretches)
        sums.run(partial(kernels.cut_cells, sums_of, spans, stretches, local))
        assert cells_of(sums) == expected
