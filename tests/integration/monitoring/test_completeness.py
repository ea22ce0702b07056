"""Packets and counters to a refused invoice run, by the command line: what is missing, who accepted it, what nobody knows."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from packets import Flow, pcap, v5

import cli
from core import tables
from invoicing import gates
from storage import sql
from storage.home import Home

PERIOD, AS_OF = "2026-10", ("--as-of", "2026-11-02T00:00:00Z")
SETTINGS = """
[seller]
currency = "EUR"
timezone = "Europe/Berlin"

[[tax]]
category = "standard"
percent = "19"
from = 2021-01-01
"""
PLANS = """
[[plan]]
name = "home"
from = 2026-01-01
currency = "EUR"
tax = "standard"
prices = "exclusive"

[[plan.fee]]
name = "Home"
amount = "10.00"
every = "month"
when = "arrears"
proration = "none"

[[plan]]
name = "business-95"
from = 2026-01-01
currency = "EUR"
tax = "standard"
prices = "exclusive"

[[plan.percentile]]
name = "95th percentile"
percentile = 95
convention = "higher_direction"
missing = "zero"
committed = "10 Mbit/s"
price = "4.00"
unit = "Mbit/s"
"""
SUBSCRIBERS = """account,name,kind,email,phone,address,contract,service,plan,start,end,timezone,currency
A1,Ada,person,,,,C1,S1,home,2026-01-01,,Europe/Berlin,EUR
A2,Beta,company,,,,C2,S2,business-95,2026-01-01,,Europe/Berlin,EUR
"""
LEASES = """realm,address,protocol,port_first,port_last,start,end,service
,10.0.0.1,,,,2026-01-01T00:00:00Z,,S1
,10.0.1.0/24,,,,2026-01-01T00:00:00Z,,S2
"""
ROUTER = "192.0.2.1"
DOWN = Flow("8.8.8.8", "10.0.0.1", "2026-10-05T10:00:00Z", "2026-10-05T10:01:00Z", 1_000_000, 1000, input=1, output=10)
LONG = Flow("8.8.8.8", "10.0.0.1", "2026-10-05T10:00:00Z", "2026-10-05T10:05:01Z", 1_000_000, 1000, input=1, output=10)
LONG_OF_BUSINESS = Flow("8.8.8.8", "10.0.1.7", "2026-10-05T10:00:00Z", "2026-10-05T10:05:01Z", 2_000, 2, input=1, output=10)
SHORT_OF_BUSINESS = Flow("8.8.8.8", "10.0.1.7", "2026-10-05T10:00:00Z", "2026-10-05T10:05:00Z", 2_000, 2, input=1, output=10)


class Done(NamedTuple):
    """What a command said."""

    stdout: str
    stderr: str


def run_cli(*words: str, home: Path, check: int | None = 0) -> Done:
    """A command in this process: a dozen of them take seconds, not minutes."""
    out, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
        code = cli.run(["--home", str(home), *words])
    assert check is None or code == check, f"{words}: exit {code}\n{out.getvalue()}\n{told.getvalue()}"
    return Done(out.getvalue(), told.getvalue())


def rows(done: Done) -> list[dict[str, Any]]:
    return [json.loads(text) for text in done.stdout.splitlines()]


@pytest.fixture(scope="module", autouse=True)
def _registered_for_this_module() -> Iterator[None]:
    yield
    gates.forget_registered()


def make_home(folder: Path, flows: list[Flow], more_settings: str = "", sequence: int | None = None) -> Path:
    """A home in which a month's flows are rated and ready to be invoiced; a second datagram begins at `sequence`."""
    home = folder / "home"
    run_cli("init", home=home)
    (home / "ratemill.toml").write_text(SETTINGS + more_settings)
    for name, text in (("plans.toml", PLANS), ("subscribers.csv", SUBSCRIBERS), ("leases.csv", LEASES)):
        (folder / name).write_text(text)
    run_cli("plans", "apply", str(folder / "plans.toml"), home=home)
    run_cli("subscribers", "import", str(folder / "subscribers.csv"), home=home)
    run_cli("leases", "import", str(folder / "leases.csv"), home=home)
    at = "2026-10-05T10:06:00Z"
    datagrams = [(at, ROUTER, v5(flows, at, 0))]
    if sequence is not None:
        datagrams.append((at, ROUTER, v5([DOWN], at, sequence)))
    run_cli("collect", "replay", str(pcap(folder / "a.pcap", datagrams)), home=home)
    for words in (("aggregate", "run"), ("usage", "publish"), ("rate", "run", PERIOD, *AS_OF)):
        run_cli(*words, home=home)
    return home


def counters(folder: Path, out_octets: int, in_octets: int = 0) -> Path:
    """Counters of interface 10 that grew by so much around the flows; interface 1 mirrors them."""
    path = folder / f"counters-{out_octets}.csv"
    lines = ["exporter,interface,at,in_octets,out_octets"]
    for at, grown in (("2026-10-05T09:55:00Z", 0), ("2026-10-05T10:10:00Z", 1)):
        out = (2**64 - 100 + grown * out_octets) % 2**64  # goes round between the two
        lines.append(f"{ROUTER},10,{at},{5000 + grown * in_octets},{out}")
        lines.append(f"{ROUTER},1,{at},{7 + grown * out_octets},{grown * in_octets}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("rated"), [DOWN])


@pytest.fixture
def home(rated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rated, tmp_path / "home"))


def line(home: Path, interface: int, way: str, *words: str) -> dict[str, Any]:
    (found,) = [row for row in rows(run_cli("completeness", PERIOD, *words, home=home))
                if (row["interface"], row["way"]) == (interface, way)]
    return found


def test_without_counters_nothing_is_assumed_and_nothing_refused(home: Path) -> None:
    done = run_cli("completeness", PERIOD, home=home)
    assert {row["verdict"] for row in rows(done)} == {"unknown"}
    assert "no interface counters" in done.stderr
    assert not any(row["refuses"] for row in rows(done))
    assert flow_octets(home)["detail"]["completeness"] == "unknown"
    run_cli("invoice", "run", PERIOD, *AS_OF, home=home)


def flow_octets(home: Path) -> dict[str, Any]:
    found = rows(run_cli("reconcile", PERIOD, home=home, check=None))
    return next(row for row in found if row["balance"] == "flow_octets")


def test_flows_that_cover_the_counters_are_complete(home: Path, tmp_path: Path) -> None:
    done = run_cli("counters", "import", str(counters(tmp_path, 1_000_000 + 18 * 1000)), home=home)
    assert rows(done) == [{"added": 4, "changed": 0, "unchanged": 0, "resets": 0, "wraps": 1, "gaps": 0}]
    assert "went round" in done.stderr
    down = line(home, 10, "out")
    assert (down["flow_octets"], down["flow_packets"], down["counter_octets"]) == (1_000_000, 1000, 1_018_000)
    assert (down["percent"], down["verdict"], down["source"], down["wraps"]) == ("100.00", "complete", "csv", 1)
    assert down["overhead_octets"] == "18-38"
    assert line(home, 1, "in")["verdict"] == "complete"
    assert line(home, 10, "in")["verdict"] == "complete", "nothing counted, nothing missing"
    assert flow_octets(home)["detail"]["completeness"] == "complete"
    run_cli("invoice", "run", PERIOD, *AS_OF, home=home)


def test_an_incomplete_period_is_invoiced_only_with_a_reason(home: Path, tmp_path: Path) -> None:
    run_cli("counters", "import", str(counters(tmp_path, 2_000_000)), home=home)
    down = line(home, 10, "out")
    assert (down["percent"], down["percent_most"], down["verdict"], down["refuses"]) == ("50.90", "51.90", "incomplete", True)
    assert down["worst"] == [], "no quarter hour is wholly covered by its counters"
    refused = run_cli("invoice", "run", PERIOD, *AS_OF, home=home, check=7)
    assert "192.0.2.1 interface 10 out" in refused.stderr
    assert "--accept-incomplete" in refused.stderr
    assert rows(run_cli("invoice", "list", PERIOD, home=home)) == []
    assert "flows cover 51.90 %" in run_cli("reconcile", PERIOD, home=home, check=None).stderr
    dry = rows(run_cli("invoice", "run", PERIOD, *AS_OF, "--dry-run", home=home))[0]
    assert len(dry["incomplete"]) == 2
    run_cli("invoice", "run", PERIOD, *AS_OF, "--accept-incomplete", "  ", home=home, check=2)

    why = "line card 3 replaced, agreed with finance"
    run_cli("invoice", "run", PERIOD, *AS_OF, "--accept-incomplete", why, home=home)
    assert len(rows(run_cli("invoice", "list", PERIOD, home=home))) == 2
    with sql.reading(sql.engine(Home(home))) as connection:
        (kept,) = connection.execute(sa.select(tables.accepted_incomplete)).all()
        (trail,) = connection.execute(sa.select(tables.audit).where(tables.audit.c.action == "invoice accept incomplete")).all()
    assert (kept.period, kept.reason, kept.invoice_first, kept.invoice_last) == (PERIOD, why, "A-000001", "A-000002")
    assert (trail.actor, trail.reason, trail.subject) == (kept.actor, why, PERIOD)
    assert "interface 10 out" in kept.findings
    told = run_cli("reconcile", PERIOD, home=home, check=None)
    assert why in told.stderr
    assert flow_octets(home)["detail"]["accepted"][0]["reason"] == why
    assert rows(run_cli("invoice", "run", PERIOD, *AS_OF, home=home))[0]["invoices"] == 0, "the second run is a no-op"

    run_cli("counters", "import", str(counters(tmp_path, 3_000_000)), home=home)
    run_cli("invoice", "run", PERIOD, *AS_OF, home=home, check=7)  # other figures than those that were accepted


def test_only_what_bills_can_refuse(home: Path, tmp_path: Path) -> None:
    run_cli("counters", "import", str(counters(tmp_path, 2_000_000)), home=home)
    settings = home / "ratemill.toml"
    text = settings.read_text()
    settings.write_text(text + '[[metering]]\nexporter = "192.0.2.1"\ninterfaces = [10]\nflow_direction = "ingress"\n')
    assert not line(home, 10, "out")["refuses"]
    settings.write_text(text + '[[metering]]\nexporter = "192.0.2.1"\ninterfaces = [10]\nflow_direction = "egress"\n')
    assert line(home, 10, "out")["refuses"]
    assert not line(home, 1, "in")["refuses"]
    settings.write_text(text + '[[exporter]]\naddress = "192.0.2.1"\ncompleteness_percent = "50"\n')
    found = line(home, 10, "out")
    assert (found["verdict"], found["threshold_percent"]) == ("complete", "50")
    settings.write_text(text + "[completeness]\noverhead_octets_min = 900\noverhead_octets_max = 1000\n")
    assert line(home, 10, "out")["verdict"] == "unclear"


def test_completeness_by_exporter_and_by_day(home: Path, tmp_path: Path) -> None:
    run_cli("counters", "import", str(counters(tmp_path, 2_000_000)), home=home)
    (exporter,) = rows(run_cli("completeness", PERIOD, "--by", "exporter", home=home))
    assert (exporter["exporter"], exporter["interface"], exporter["flow_octets"], exporter["counter_octets"]) == (
        ROUTER, None, 2_000_000, 4_000_000)
    assert exporter["verdict"] == "incomplete"
    days = rows(run_cli("completeness", PERIOD, "--by", "day", home=home))
    assert {(row["day"], row["interface"], row["way"]) for row in days} == {("2026-10-05", 1, "in"), ("2026-10-05", 10, "out")}
    run_cli("completeness", PERIOD, "--by", "week", home=home, check=2)


def test_counters_are_imported_whole_or_not_at_all(home: Path, tmp_path: Path) -> None:
    good = counters(tmp_path, 500)
    bad = tmp_path / "bad.csv"
    bad.write_text("exporter,interface,at,in_octets,out_octets\n"
                   "192.0.2.1,10,2026-10-05T10:00:00Z,1,2\n"
                   "router,10,2026-10-05T10:00:00Z,1,2\n"
                   "192.0.2.1,x,2026-10-05T10:00:00Z,1,2\n"
                   "192.0.2.1,10,2026-10-05,1,2\n"
                   f"192.0.2.1,10,2026-10-05T10:05:00Z,{2**64},-2\n"
                   "192.0.2.1,10,2026-10-05T10:00:00+00:00,3,4\n")
    refused = run_cli("counters", "import", str(bad), home=home, check=1)
    assert [(row["line"], row["column"]) for row in rows(refused)] == [
        (3, "exporter"), (4, "interface"), (5, "at"), (6, "in_octets"), (6, "out_octets"), (7, "at")]
    assert rows(run_cli("counters", "list", home=home)) == []
    run_cli("counters", "import", str(good), "--dry-run", home=home)
    assert rows(run_cli("counters", "list", home=home)) == []
    run_cli("counters", "import", str(good), home=home)
    again = rows(run_cli("counters", "import", str(good), home=home))[0]
    assert (again["added"], again["changed"], again["unchanged"]) == (0, 0, 4)
    changed = rows(run_cli("counters", "import", str(counters(tmp_path, 600)), home=home))[0]
    assert (changed["added"], changed["changed"], changed["unchanged"]) == (0, 2, 2)
    listed = rows(run_cli("counters", "list", home=home))
    assert [(row["exporter"], row["interface"], row["source"], row["samples"]) for row in listed] == [
        (ROUTER, 1, "csv", 2), (ROUTER, 10, "csv", 2)]


def test_known_loss_refuses_without_any_counter(tmp_path: Path) -> None:
    limits = "[completeness]\nsequence_loss_units_min = {}\n"
    home = make_home(tmp_path, [DOWN], limits.format(3), sequence=4)
    refused = run_cli("invoice", "run", PERIOD, *AS_OF, home=home, check=7)
    assert "3 of 5 records are missing by sequence (60.000 %, at most 1 % may): 0 dropped by our kernel, 3 by the network" in (
        refused.stderr)
    (exporter,) = rows(run_cli("completeness", PERIOD, "--by", "exporter", home=home))
    assert (exporter["missing"], exporter["missing_percent"], exporter["missing_network"], exporter["refuses"]) == (
        {"records": 3}, "60.000", {"records": 3}, True)
    (home / "ratemill.toml").write_text(SETTINGS + limits.format(4))
    run_cli("invoice", "run", PERIOD, *AS_OF, home=home)


@pytest.mark.parametrize(("flows", "refuses"), [
    ([LONG_OF_BUSINESS], True), ([LONG, SHORT_OF_BUSINESS], False)])
def test_a_percentile_refuses_exporters_whose_flows_are_longer_than_a_slot(
        tmp_path: Path, flows: list[Flow], refuses: bool) -> None:
    """Only flows of services that pay by percentile matter."""
    home = make_home(tmp_path, flows)
    done = run_cli("invoice", "run", PERIOD, *AS_OF, home=home, check=7 if refuses else 0)
    if refuses:
        assert "its longest flow is 301 s" in done.stderr
        assert "exporters snippet" in done.stderr
        run_cli("invoice", "run", PERIOD, *AS_OF, "--accept-incomplete", "old router until May", home=home)
    else:
        assert line(home, 10, "out")["longest_flow_ms"] == 301_000
