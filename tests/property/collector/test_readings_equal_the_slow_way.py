"""The readings of a segment against a dictionary of Python numbers, with and without room for every row."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from collector import readings
from core.periods import SLOT_MS
from core.schemas import FlowFlag

T0 = 1_790_000_000_000
Columns = dict[str, Any]


def random_flows(rng: np.random.Generator, count: int) -> Columns:
    exporter = np.zeros((count, 16), np.uint8)
    exporter[:, 10:12] = 255
    exporter[:, 12:15] = 192
    exporter[:, 15] = rng.integers(1, 4, count)
    end = T0 + rng.integers(-3, 4, count) * SLOT_MS + rng.integers(0, 2, count) * rng.integers(0, SLOT_MS, count)
    return {
        "exporter": exporter, "domain": rng.integers(0, 2, count).astype(np.uint32),
        "export_protocol": rng.choice([5, 9, 10, 105], count).astype(np.uint8), "end": end,
        "start": end - rng.integers(0, 400_000, count), "octets": rng.integers(0, 2**46, count),
        "packets": rng.integers(0, 2**31, count),
        "rate_numerator": rng.choice([1, 1, 1000, 2**32 - 1], count).astype(np.uint32),
        "rate_denominator": rng.choice([1, 1, 3], count).astype(np.uint32),
        "rate_source": rng.integers(1, 7, count).astype(np.uint8),
        "input_interface": rng.choice([0, 1, 7, 2**32 - 1], count).astype(np.uint32),
        "output_interface": rng.integers(0, 4, count).astype(np.uint32),
        "flow_direction": rng.choice([0, 1, 255], count).astype(np.uint8),
        "flags": rng.integers(0, 64, count).astype(np.uint32),
    }


def at_most(value: int) -> int:
    return min(value, 2**62)


def slow(flows: Columns) -> tuple[dict[Any, list[int]], Counter[Any], dict[Any, list[int]]]:
    exporters: dict[Any, list[int]] = {}
    rates: Counter[Any] = Counter()
    interfaces: dict[Any, list[int]] = {}
    for i in range(len(flows["end"])):
        key = (flows["exporter"][i].tobytes(), int(flows["domain"][i]), int(flows["export_protocol"][i]))
        start, end, flags = int(flows["start"][i]), int(flows["end"][i]), int(flows["flags"][i])
        n, d = int(flows["rate_numerator"][i]), int(flows["rate_denominator"][i])
        row = exporters.setdefault(key, [0, 0, 0, 0])
        row[0] += 1
        row[1] = max(row[1], end - start)
        row[2] += bool(flags & FlowFlag.CLOCK_MOVED)
        row[3] += bool(flags & FlowFlag.QUARANTINED)
        rates[(*key, n, d, int(flows["rate_source"][i]))] += 1
        octets, packets = int(flows["octets"][i]), int(flows["packets"][i])
        for side, name in enumerate(("input_interface", "output_interface")):
            observed, slot = int(flows["flow_direction"][i]), end // SLOT_MS * SLOT_MS
            place = (*key, int(flows[name][i]), side, observed, slot)
            sums = interfaces.setdefault(place, [0, 0, 0, 0, 0, 0])
            sums[0] = at_most(sums[0] + at_most(octets * n // d))
            sums[1] = at_most(sums[1] + octets)
            sums[2] = at_most(sums[2] + at_most(packets * n // d))
            sums[3] = at_most(sums[3] + (packets if n != d else 0))
            sums[4] += 1
            sums[5] = max(sums[5], end - start)
    return exporters, rates, interfaces


def interface_rows(found: readings.Readings) -> dict[Any, list[int]]:
    """By (exporter, domain, interface, side, observed, slot); protocols of one domain together."""
    assert found.interfaces is not None
    sums: dict[Any, list[int]] = {}
    for row in found.interfaces.to_pylist():
        slot = round(row["slot"].timestamp() * 1000)
        key = (row["exporter"], row["domain"], row["interface"], row["side"], row["observed"], slot)
        values = [row[name] for name in ("octets", "octets_raw", "packets", "samples", "flows", "longest_flow")]
        add(sums, key, values)
    return sums


def add(sums: dict[Any, list[int]], key: Any, values: list[int]) -> None:
    old = sums.get(key, [0] * 6)
    sums[key] = [*(a + b for a, b in zip(old[:5], values[:5], strict=True)), max(old[5], values[5])]


@pytest.mark.parametrize("seed", range(6))
def test_readings_are_what_a_dictionary_says(seed: int) -> None:
    flows = random_flows(np.random.default_rng(seed), 400)
    exporters, rates, interfaces = slow(flows)
    found = readings.read(flows)
    names = ("flows", "longest_flow", "clock_moved", "quarantined")
    assert {(row["exporter"], row["domain"], row["export_protocol"]): [row[name] for name in names]
            for row in found.exporters} == exporters
    assert {(row["exporter"], row["domain"], row["export_protocol"], row["rate_numerator"], row["rate_denominator"],
             row["rate_source"]): row["flows"] for row in found.rates} == rates
    expected: dict[Any, list[int]] = {}
    for key, values in interfaces.items():
        add(expected, (key[0], key[1], *key[3:]), values)
    assert interface_rows(found) == expected


@pytest.mark.parametrize("seed", range(4))
def test_what_finds_no_room_is_in_the_rest(seed: int) -> None:
    """However small the tables are, no flow and no octet is lost; only whose they are."""
    flows = random_flows(np.random.default_rng(seed), 300)
    flows["octets"] >>= 20  # sums stay below the bound of 2^62
    flows["rate_numerator"] &= 0x3FF
    whole = readings.read(flows)
    small = readings.read(flows, exporters_max=3, rates_max=4, interfaces_max=10)
    assert len(small.exporters) <= 3
    assert len(small.rates) <= 4
    assert small.interfaces is not None
    assert whole.interfaces is not None
    assert small.interfaces.num_rows <= 10
    for rows, name in ((small.exporters, "flows"), (small.rates, "flows")):
        assert sum(row[name] for row in rows) == 300
    for name in ("octets", "octets_raw", "packets", "samples", "flows"):
        for side in (0, 1):
            sums = [sum(row[name] for row in table.to_pylist() if row["side"] == side)
                    for table in (whole.interfaces, small.interfaces)]
            assert sums[0] == sums[1], name
    rest = [row for row in small.interfaces.to_pylist() if row["interface"] == readings.REST]
    assert {row["side"] for row in rest} == {0, 1}
    assert {row["exporter"] for row in rest} == {readings.REST_EXPORTER}


def test_no_flows_have_no_readings() -> None:
    flows = {name: column[:0] for name, column in random_flows(np.random.default_rng(1), 2).items()}
    assert readings.read(flows) == readings.Readings([], [], None)
