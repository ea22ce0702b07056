"""`flows top` and `flows graph` on real exports: sums equal those over `flows export`, and each look is recorded."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from exports import BASIC, NOW_S, basic, framed, template, v5, v5_record, v9
from harness import rows, run_cli
from packets import pcap
from running_collector import running

from core import tables
from core.periods import format_instant, parse_instant
from storage import sql
from storage.home import Home

AT = NOW_S * 1000
KEYS = ["source_address", "octets", "packets", "flows"]


def at(ms: int) -> str:
    return format_instant(AT + ms)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """30 flows of three sources, one a second; the second exporter samples one packet in 100."""
    folder = tmp_path_factory.mktemp("flows")
    run_cli("init", home=folder / "home")
    datagrams = [(at(1000 * n), "192.0.2.1", v5([v5_record(octets=1000 + n, source=0x0A000001 + n % 3)], sequence=n))
                 for n in range(27)]
    datagrams += [(at(1000 * n), "192.0.2.2", v5([v5_record(octets=50, packets=1, source=0x0A000001)], sequence=n,
                                                 sampling=0x4000 | 100)) for n in range(27, 30)]
    run_cli("collect", "replay", str(pcap(folder / "a.pcap", datagrams)), home=folder / "home")
    return Home(folder / "home")


def listed(home: Home, *words: str) -> list[dict[str, Any]]:
    return rows(run_cli("flows", *words, home=home.path))


def test_the_biggest_sources_come_first(home: Home) -> None:
    done = run_cli("flows", "top", home=home.path)
    found = rows(done)
    assert [list(row) for row in found] == [KEYS] * 3
    assert [tuple(row.values()) for row in found] == [
        ("10.0.0.1", 9 * 1000 + sum(range(0, 27, 3)) + 150, 93, 12), ("10.0.0.3", 9000 + sum(range(2, 27, 3)), 90, 9),
        ("10.0.0.2", 9000 + sum(range(1, 27, 3)), 90, 9)]
    assert "30 flows, 273 packets, 27501 octets, as exported" in done.stderr
    assert "3 of these flows are sampled: --scaled" in done.stderr


def test_scaled_multiplies_by_the_sampling_rate(home: Home) -> None:
    done = run_cli("flows", "top", "--scaled", "--by", "exporter", home=home.path)
    assert [tuple(row.values()) for row in rows(done)] == [("192.0.2.1", 27351, 270, 27), ("192.0.2.2", 15000, 300, 3)]
    assert "octets, scaled by the sampling rates" in done.stderr
    raw = listed(home, "top", "--by", "exporter", "--order", "packets", "--limit", "1")
    assert [row["packets"] for row in raw] == [270]


def test_a_rate_that_came_late_scales_too(tmp_path: Path) -> None:
    run_cli("init", home=tmp_path / "home")
    settings = tmp_path / "home" / "ratemill.toml"
    settings.write_text('[sampling]\nunannounced = "quarantine"\n')
    flows = framed(0, template(256, BASIC)), framed(256, basic(100))
    datagram = (at(0), "192.0.2.1", v9(*flows, seconds=NOW_S))
    run_cli("collect", "replay", str(pcap(tmp_path / "a.pcap", [datagram])), home=settings.parent)
    home = Home(settings.parent)
    assert listed(home, "top", "--scaled")[0]["octets"] == 100
    settings.write_text(settings.read_text() + '[[exporter]]\naddress = "192.0.2.1"\nsampling = 50\n')
    assert (listed(home, "top")[0]["octets"], listed(home, "top", "--scaled")[0]["octets"]) == (100, 5000)


def test_filters_times_and_orders(home: Home) -> None:
    assert listed(home, "top", "src", "host", "10.0.0.2", "and", "bytes", ">", "1k")[0]["flows"] == 9
    assert listed(home, "top", "src host 10.0.0.2 and bytes > 1019") == [
        {"source_address": "10.0.0.2", "octets": 1022 + 1025, "packets": 20, "flows": 2}]
    assert listed(home, "top", "proto udp") == []
    some = listed(home, "top", "--from", at(3000), "--to", at(5000), "--by", "connection")
    assert [(row["source_address"], row["destination_port"], row["octets"]) for row in some] == [
        ("10.0.0.2", 80, 1004), ("10.0.0.1", 80, 1003)]
    assert [row["input_interface"] for row in listed(home, "top", "exporter ip 192.0.2.1", "--by", "in-if")] == [1]


def test_every_key_adds_up_to_the_export(home: Home) -> None:
    from collector.flow_sums import KEYS as BY

    exported = listed(home, "export")
    for by, columns in BY.items():
        sums: Counter[tuple[Any, ...]] = Counter()
        for row in exported:
            sums[tuple("::" if name == "next_hop" and row[name] is None else row[name] for name in columns)] += row["octets"]
        found = listed(home, "top", "--by", by, "--limit", "1000")
        assert {tuple(row[name] for name in columns): row["octets"] for row in found} == sums, by
        assert sum(row["flows"] for row in found) == len(exported)


def test_a_graph_has_equal_stretches_and_loses_nothing(home: Home) -> None:
    exported = listed(home, "export")
    found = listed(home, "graph", "--bars", "7")
    assert [row["end"] for row in found[:-1]] == [row["start"] for row in found[1:]]
    assert (found[0]["start"], found[-1]["end"]) == (at(0), at(29_001))
    for row in found:
        inside = [flow for flow in exported if row["start"] <= flow["received"] < row["end"]]
        assert (row["octets"], row["flows"]) == (sum(flow["octets"] for flow in inside), len(inside))
    lengths = {parse_instant(row["end"]) - parse_instant(row["start"]) for row in found}
    assert max(lengths) - min(lengths) <= 1
    some = listed(home, "graph", "--bars", "3", "--from", at(-10_000), "--to", at(20_000))
    assert [row["flows"] for row in some] == [0, 10, 10]
    assert listed(home, "graph", "--from", at(10**9), "--to", at(10**9 + 5), "--bars", "24") == [
        {"start": at(10**9 + n), "end": at(10**9 + n + 1), "octets": 0, "packets": 0, "flows": 0} for n in range(5)]
    assert sum(row["flows"] for row in listed(home, "graph", "src host 10.0.0.1", "--bars", "2")) == 12


def test_a_graph_on_a_terminal_fits_it(home: Home) -> None:
    done = run_cli("flows", "graph", "-o", "table", "--bars", "3", home=home.path,
                   env={"COLUMNS": "60", "PYTHONIOENCODING": "utf-8"})
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert all(len(line) <= 60 for line in lines[:5])
    assert lines[0].endswith("10.0 kB")
    plain = run_cli("flows", "graph", "-o", "table", "--bars", "3", home=home.path, env={"PYTHONIOENCODING": "ascii"})
    assert plain.stdout.isascii()
    assert "#" in plain.stdout


def test_each_look_is_recorded(home: Home) -> None:
    run_cli("flows", "top", "host 10.0.0.1", "--reason", "complaint 17", "--from", at(0), home=home.path,
            env={"RATEMILL_ACTOR": "vera"})
    run_cli("flows", "graph", home=home.path, env={"RATEMILL_ACTOR": "vera"})
    run_cli("flows", "export", "--from", at(0), home=home.path, env={"RATEMILL_ACTOR": "vera"})
    audit = tables.audit
    with sql.reading(sql.engine(home)) as connection:
        found = connection.execute(sa.select(audit).where(audit.c.actor == "vera").order_by(audit.c.id)).all()
    assert [(row.action, row.subject, row.reason) for row in found] == [
        ("flows top", "host 10.0.0.1", "complaint 17"), ("flows graph", "any", "flows graph"),
        ("flows export", "any", "flows export")]
    assert json.loads(found[0].after) == {"by": "src", "from": at(0), "to": None}


@pytest.mark.parametrize("words", [("top", "--by", "colour"), ("top", "--order", "age"), ("top", "prto", "udp"),
                                   ("graph", "port"), ("graph", "--bars", "0"), ("top", "--from", "yesterday")])
def test_a_wrong_command_line_is_explained(words: tuple[str, ...], home: Home) -> None:
    done = run_cli("flows", *words, home=home.path, check=2)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_home_without_flows_has_no_rows(tmp_path: Path) -> None:
    run_cli("init", home=tmp_path / "home")
    for verb in ("top", "graph"):
        assert run_cli("flows", verb, home=tmp_path / "home").stdout == ""


def test_flows_sent_by_udp_are_summed(tmp_path: Path) -> None:
    run_cli("init", home=tmp_path / "home")
    home = Home(tmp_path / "home")
    with running(home) as one:
        sent = rows(run_cli("collect", "send", "--to", f"127.0.0.1:{one.ports[0]}", "--protocol", "ipfix", "--flows", "500",
                            "--rate", "500"))[0]
        assert one.stop() == 0
    (row,) = listed(home, "top", "--by", "exporter")
    assert (row["flows"], row["octets"]) == (500, sent["octets"])
    exported = listed(home, "export")
    udp = [flow for flow in exported if flow["protocol"] == 17 and flow["octets"] > 1000]
    found = listed(home, "top", "proto udp and bytes > 1k", "--by", "protocol")
    assert sum(row["flows"] for row in found) == len(udp)
