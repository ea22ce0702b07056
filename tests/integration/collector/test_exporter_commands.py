"""`exporters show` and `exporters snippet` as an operator runs them, after a replay with loss made on purpose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import run_cli
from packets import Flow, ipfix, ipfix_data, ipfix_template, pcap

FLOW = Flow("8.8.8.8", "10.0.0.1", "2026-10-05T10:00:00Z", "2026-10-05T10:02:00Z", 1000, 1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exporters")
    home = folder / "home"
    run_cli("init", home=home)
    datagrams = [
        ("2026-10-05T10:02:03Z", "192.0.2.1", ipfix([ipfix_template(), ipfix_data([FLOW] * 4)], "2026-10-05T10:02:01Z", 0)),
        ("2026-10-05T10:02:05Z", "192.0.2.1", ipfix([ipfix_data([FLOW] * 2)], "2026-10-05T10:02:01Z", 10)),
        ("2026-10-05T10:02:06Z", "192.0.2.1", b"\x00\x0anothing"),
    ]
    run_cli("collect", "replay", str(pcap(folder / "a.pcap", datagrams)), home=home)
    return home


def show(home: Path, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run_cli("exporters", "show", *words, "--json", home=home).stdout)
    return found


def test_one_exporter_is_one_object(home: Path) -> None:
    found = show(home, "192.0.2.1", "--domain", "1")
    (part,) = found["domains"]
    assert (part["protocol"], part["received"], part["missing"], part["missing_unit"]) == ("ipfix", 2, 6, "records")
    assert (part["missing_kernel"], part["missing_network"]) == (0, 6)
    assert part["missing_datagrams"] == {"least": 2, "likely": 2, "most": 3}
    assert part["skew_ms"] == {"min": 2000, "median": 4000, "max": 4000, "last": 4000}
    assert part["longest_flow_ms"] == 120_000
    assert [(row["template"], row["kind"]) for row in part["templates"]] == [(256, "data")]
    assert [field["name"] for field in part["templates"][0]["fields"]][-2:] == [
        "flowStartMilliseconds", "flowEndMilliseconds"]
    assert {(row["interface"], row["way"], row["flow_octets"], row["verdict"]) for row in found["interfaces"]} == {
        (10, "in", 6000, "unknown"), (1, "out", 6000, "unknown")}
    assert found["kernel_drops"] == {"replay": 0}


def test_faults_are_shown_with_what_to_do(home: Path) -> None:
    faults = show(home, "192.0.2.1")["faults"]
    assert [row["kind"] for row in faults] == ["too_short"]
    assert all(row["meaning"] and row["advice"] for row in faults)


def test_a_table_is_for_people(home: Path) -> None:
    told = run_cli("exporters", "show", "192.0.2.1", "-o", "table", home=home).stdout
    assert "6 records: 0 dropped by our kernel, 6 by the network; about 2 datagrams (2 to 3)" in told
    assert "longest flow  120.0 s" in told
    assert "2000 / 4000 / 4000 ms (min / median / max)" in told


def test_an_unknown_exporter_or_domain_is_not_found(home: Path) -> None:
    assert "192.0.2.1" in run_cli("exporters", "show", "192.0.2.2", home=home, check=5).stderr
    assert "its domains are 0, 1" in run_cli("exporters", "show", "192.0.2.1", "--domain", "7", home=home, check=5).stderr
    run_cli("exporters", "show", "router-1", home=home, check=2)


def test_snippets_need_no_home(tmp_path: Path) -> None:
    listed = [json.loads(text) for text in run_cli("exporters", "snippet", "--json", home=tmp_path).stdout.splitlines()]
    assert {"cisco-ios-xe", "junos", "mikrotik"} <= {row["vendor"] for row in listed}
    done = run_cli("exporters", "snippet", "mikrotik", "--collector", "198.51.100.9:2055", "--interface", "ether5",
                   "--source", "198.51.100.1", home=tmp_path)
    assert "target add dst-address=198.51.100.9 port=2055 src-address=198.51.100.1 version=ipfix" in done.stdout
    assert "interfaces=ether5" in done.stdout
    assert done.stderr == ""
    assert "change them" in run_cli("exporters", "snippet", "nokia", home=tmp_path).stderr
    run_cli("exporters", "snippet", "nortel", home=tmp_path, check=5)
    run_cli("exporters", "snippet", "junos", "--interface", "ge-0/0/1\nset system", home=tmp_path, check=2)
