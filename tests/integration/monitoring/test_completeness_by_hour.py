"""`completeness PERIOD --by hour` and the table `completeness` of DuckDB are one, and add up to what the period's rows say."""

from __future__ import annotations

from pathlib import Path

import duckdb
from harness import rows, run_cli
from packets import Flow, pcap, v5

from core.periods import HOUR_MS, format_instant, parse_instant
from storage import generations
from storage.home import Home

START = parse_instant("2026-10-04T22:00:00Z")
ROUTER = "192.0.2.1"


def test_hours_are_the_same_in_both_and_add_up(tmp_path: Path) -> None:
    home = tmp_path / "home"
    run_cli("init", home=home)
    datagrams = []
    for hour in range(0, 60, 3):
        at = START + hour * HOUR_MS
        flow = Flow("8.8.8.8", "10.0.0.1", format_instant(at + 1000), format_instant(at + 60_000), 1_000_000 + hour, 1000,
                    input=1, output=10)
        told = format_instant(at + 120_000)
        datagrams.append((told, ROUTER, v5([flow], told, hour // 3)))
    run_cli("collect", "replay", str(pcap(tmp_path / "a.pcap", datagrams)), home=home)
    run_cli("aggregate", "run", home=home)
    assert rows(run_cli("db", "publish", home=home))[0]["published"]
    counters = tmp_path / "counters.csv"
    counters.write_text("exporter,interface,at,in_octets,out_octets\n" + "".join(
        f"{ROUTER},{interface},{format_instant(START + hour * HOUR_MS)},{hour * 400_000},{hour * 300_000}\n"
        for interface in (1, 10) for hour in range(61)))
    run_cli("counters", "import", str(counters), home=home)
    assert rows(run_cli("db", "publish", home=home))[0]["published"], "counters that were imported are worth a generation"
    told = rows(run_cli("completeness", "2026-10", "--by", "hour", home=home))
    with duckdb.connect(str(home / generations.current(Home(home)).path), read_only=True) as stock:
        stock.execute("SET TimeZone = 'UTC'")
        names = ", ".join("strftime(hour, '%Y-%m-%dT%H:%M:%S.%gZ')" if name == "hour" else name for name in told[0])
        found = stock.execute(f"SELECT {names} FROM completeness ORDER BY exporter, interface, way, hour").fetchall()
    assert len(found) > 100
    as_told = sorted(({**row, **{name: None if row[name] is None else float(row[name]) for name in ("percent", "percent_most")}}
                      for row in told), key=lambda row: (row["exporter"], row["interface"], row["way"], row["hour"]))
    assert [tuple(row.values()) for row in as_told] == found
    for line in rows(run_cli("completeness", "2026-10", home=home)):
        hours = [row for row in told if (row["interface"], row["way"]) == (line["interface"], line["way"])]
        assert sum(row["flow_octets"] for row in hours) == line["flow_octets"]
        assert sum(row["counter_octets"] or 0 for row in hours) == line["counter_octets"]
    assert {"complete", "incomplete"} & {row["verdict"] for row in told}
    wrong = run_cli("completeness", "2026-10", "--by", "week", home=home, check=2)
    assert "none of interface, exporter, day, hour" in wrong.stderr
