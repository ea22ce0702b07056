"""The 92 sessions of real exporters: counts as the index says, field values as another project decoded them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT, sessions, shared
from journal_bodies import body_of, capture_datagrams

from collector.decoder import Decoded, Decoder
from collector.settings import CollectorSettings
from core.addresses import format_address

LAWFUL_DIFFERENCES: dict[str, dict[str, int]] = {}
"""Session → counts that differ from the index, each explained in docs/explanation/capture-differences.md."""


def decode_session(session: dict[str, Any]) -> Decoded:
    folder = shared("captures")
    datagrams = [one for name in session["files"] for one in capture_datagrams(folder / name)]
    return Decoder(CollectorSettings()).feed(body_of(datagrams), 0)


@pytest.mark.parametrize("session", sessions(), ids=lambda session: session["id"])
def test_a_session_has_the_counts_of_the_index(session: dict[str, Any]) -> None:
    decoded = decode_session(session)
    counts, expected = decoded.counts, session["expected"] | LAWFUL_DIFFERENCES.get(session["id"], {})
    assert counts.datagrams == expected["datagrams"]
    assert (counts.templates, counts.options_templates) == (expected["templates"], expected["options_templates"])
    assert (counts.data_records, counts.options_records) == (expected["data_records"], expected["options_records"])
    assert counts.waiting == expected["undecodable_sets"]
    samples = expected["sflow"]
    assert counts.counter_samples == samples.get("counter", 0) + samples.get("xcounter", 0)
    assert counts.drop_samples == samples.get("drop", 0)


@pytest.mark.parametrize("session", sessions(), ids=lambda session: session["id"])
def test_nothing_of_a_session_is_lost_unnamed(session: dict[str, Any]) -> None:
    counts = decode_session(session).counts
    assert counts.datagrams == counts.decoded + counts.faulted + counts.duplicate
    assert counts.data_records == counts.flow_records + counts.not_a_flow + counts.faulted_records


def test_every_lawful_difference_is_explained() -> None:
    page = (ROOT / "docs" / "explanation" / "capture-differences.md").read_text()
    assert all(name in page for name in LAWFUL_DIFFERENCES)


def line_protocol(path: Path) -> list[dict[str, str]]:
    """telegraf's expected output: `measurement,tags fields timestamp` a line."""
    rows = []
    for line in path.read_text().splitlines():
        if not line.startswith(("netflow", "sflow")):
            continue
        found = re.findall(r'([A-Za-z0-9_]+)=("(?:[^"\\]|\\.)*"|[^, ]+)', line)
        rows.append({name: value.strip('"').removesuffix("u").removesuffix("i") for name, value in found})
    return rows


@pytest.mark.parametrize("name", ["netflow_v5_example", "netflow_v9_example", "ipfix_pen_35632", "issue_13305"])
def test_field_values_are_those_of_telegraf(name: str) -> None:
    shared("captures")
    session = next(s for s in sessions() if s["id"] == f"telegraf:{name}")
    flows = decode_session(session).flows
    expected = [row for row in line_protocol(shared("captures", session["golden"][0])) if "in_bytes" in row]
    ours = sorted(zip(flows["octets"].tolist(), flows["packets"].tolist(),
                      [format_address(a.tobytes()) for a in flows["source_address"]],
                      [format_address(a.tobytes()) for a in flows["destination_address"]],
                      flows["source_port"].tolist(), flows["destination_port"].tolist(),
                      flows["input_interface"].tolist(), strict=True))
    theirs = sorted((int(row["in_bytes"]), int(row["in_packets"]), row["src"], row["dst"], int(row.get("src_port", 0)),
                     int(row.get("dst_port", 0)), int(row.get("in_snmp", 0))) for row in expected)
    assert theirs
    assert ours == theirs
