"""Segments: the octets by quarter hour are exact, the digest notices every change, the sums of intake lose nothing."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from journal_bodies import Datagram, body_of
from packets import Flow, v5

from collector import segments, sums
from collector.decoder import Decoder
from collector.segment_builder import SegmentBuilder
from collector.settings import CollectorSettings
from core import schemas
from core.errors import DamagedFile
from core.periods import SLOT_MS
from storage.home import Home


def _slow_slots(columns: dict[str, Any]) -> dict[int, int]:
    """By fractions: F(t) = floor(scaled * (t - start) / duration), a slot gets the difference of its edges."""
    sums: Counter[int] = Counter()
    for start, end, octets, n, d in zip(*(columns[name].tolist() for name in
                                          ("start", "end", "octets", "rate_numerator", "rate_denominator")), strict=True):
        total = octets * n // d
        slot = start // SLOT_MS * SLOT_MS
        if start == end:
            sums[slot] += total
            continue
        while slot < end:
            edges = [min(max(edge, start), end) for edge in (slot, slot + SLOT_MS)]
            before, after = (Fraction(total * (edge - start), end - start) for edge in edges)
            sums[slot] += after.__floor__() - before.__floor__()
            slot += SLOT_MS
    return dict(sums)


@pytest.mark.parametrize("seed", range(8))
def test_slots_are_the_cumulative_split(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = 300
    start = rng.integers(-(10**12), 2 * 10**12, count) // rng.choice([1, SLOT_MS]) * rng.choice([1, SLOT_MS])
    duration = rng.choice([0, 1, SLOT_MS, 10**6, 3 * 10**8], count) * rng.integers(0, 3, count)
    duration[0] = 2**32 - 1
    denominator = rng.integers(1, 5, count)
    columns = {
        "start": start, "end": start + duration, "octets": rng.integers(0, rng.choice([10, 2**31, 2**47]), count),
        "rate_numerator": (denominator * rng.integers(1, 100, count)).astype(np.uint32),
        "rate_denominator": denominator.astype(np.uint32),
    }
    assert {row["slot"]: row["octets"] for row in sums.sum_slots(columns)} == _slow_slots(columns)


def test_absurd_counts_are_bounded_and_do_not_wrap() -> None:
    columns = {"start": np.zeros(3, np.int64), "end": np.array([0, 0, 1], np.int64), "octets": np.full(3, 2**47),
               "rate_numerator": np.full(3, 2**32 - 1, np.uint32), "rate_denominator": np.ones(3, np.uint32)}
    assert sums.sum_slots(columns) == [{"slot": 0, "octets": 2**62}]


def _segment(folder: Path, datagrams: int = 40) -> tuple[Home, SimpleNamespace, segments.Segment]:
    home = Home(folder)
    home.create()
    flows = [Flow("8.8.8.8", f"10.0.0.{n}", "2026-10-05T10:00:00Z", "2026-10-05T10:20:00Z", 1000 + n) for n in range(20)]
    payloads = [Datagram(v5(flows, "2026-10-05T10:21:00Z", 20 * n), 1_790_000_000_000 + 60_000 * n, f"192.0.2.{n % 3 + 1}")
                for n in range(datagrams)]
    builder = SegmentBuilder(home, "one", "digest")
    decoder = Decoder(CollectorSettings())
    for block in range(4):
        builder.add(decoder.feed(body_of(payloads[block::4]), block, builder.columns), block)
    builder.refuse(1_790_000_000_000, 5, 3)
    segment = builder.write()
    assert builder.is_empty
    return home, SimpleNamespace(**segment.row), segment


def test_a_segment_comes_back_as_it_was_written(tmp_path: Path) -> None:
    home, row, segment = _segment(tmp_path)
    table = segments.read_own_file(home, row)
    assert table.schema == schemas.FLOWS
    assert (table.num_rows, row.block_first, row.block_last) == (800, 0, 3)
    assert row.octets == sum(table.column("octets").to_pylist()) == sum(slot["octets"] for slot in segment.slots)
    assert segments.content_digest(segments.to_columns(table)) == row.content_digest
    rechunked = segments.to_columns(pa.concat_tables([table.slice(0, 7), table.slice(7, 100), table.slice(107)]))
    assert segments.content_digest(rechunked) == row.content_digest, "the identity does not depend on how it is stored"


def test_intake_is_summed_by_exporter_and_quarter_hour_and_loses_nothing(tmp_path: Path) -> None:
    _, _, segment = _segment(tmp_path)
    keys = [(row["exporter"], row["domain"], row["export_protocol"], row["slot"]) for row in segment.intake]
    assert len(set(keys)) == len(keys)
    assert sum(row["datagrams"] for row in segment.intake) == 45
    assert sum(row["data_records"] for row in segment.intake) == sum(row["flow_records"] for row in segment.intake) == 800
    refused = [row for row in segment.intake if row["refused"]]
    assert [(row["exporter"], row["datagrams"], row["refused"], row["decoded"]) for row in refused] == [(bytes(16), 5, 5, 0)]
    assert all(row["datagrams"] == row["decoded"] + row["faulted"] + row["duplicate"] + row["refused"]
               for row in segment.intake)


def test_every_flipped_bit_of_the_data_is_noticed(tmp_path: Path) -> None:
    home, row, _ = _segment(tmp_path, datagrams=4)
    path = home.path / row.path
    whole = path.read_bytes()
    found = segments.content_digest(segments.to_columns(segments.read_own_file(home, row)))
    noticed = 0
    for offset in range(8, len(whole), 37):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << offset % 8
        path.write_bytes(damaged)
        try:
            table = segments.read_own_file(home, row)
        except DamagedFile:
            noticed += 1
        else:  # a bit of the padding or of the metadata: the flows are what they were
            assert segments.content_digest(segments.to_columns(table)) == found
    assert noticed > 100, "the rest is the schema, which is there twice"
    path.unlink()
    with pytest.raises(DamagedFile, match="is missing"):
        segments.read_own_file(home, row)
