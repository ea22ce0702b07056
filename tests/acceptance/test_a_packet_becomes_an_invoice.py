"""The whole way by the command line alone, on packets made by hand, with every figure computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import rows, run_cli
from packets import Flow, ipfix, ipfix_data, ipfix_template, pcap, v5

SETTINGS = """
[seller]
name = "Demo Net"
country = "DE"
tax_id = "DE123456789"
address = "Musterstr. 1, 10115 Berlin"
iban = "DE02120300000000202051"
currency = "EUR"
timezone = "Europe/Berlin"

[invoice]
series = "A"
due_days = 14
tax_policy = "en16931"

[[tax]]
category = "standard"
percent = "19"
from = 2021-01-01

[[class]]
name = "peering"
priority = 10
prefixes = ["198.51.100.0/24"]

[infrastructure]
prefixes = ["203.0.113.0/28"]
"""

PLANS = """
[[calendar]]
name = "day-night"
from = 2026-01-01
holidays = "DE"
zones = [
  { name = "day", days = ["mon", "tue", "wed", "thu", "fri"], start = "08:00", end = "23:00" },
  { name = "night", default = true, holiday = true },
]

[[plan]]
name = "home-100"
from = 2026-01-01
currency = "EUR"
tax = "standard"
prices = "exclusive"
calendar = "day-night"

[[plan.fee]]
name = "Home 100"
amount = "19.90"
every = "month"
when = "advance"
proration = "actual_days"

[[plan.traffic]]
name = "Traffic by day"
direction = "down"
classes = ["default"]
zones = ["day"]
included = "1 MB"
above = "excess"
price = "0.50"
unit = "MB"
sampled = "refuse"

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
A1,Ada Beck,person,a@example.net,,Hauptstr. 1,C1,S1,home-100,2026-01-01,,Europe/Berlin,EUR
A2,Beta GmbH,company,b@example.net,,Hauptstr. 2,C2,S2,business-95,2026-10-01,,Europe/Berlin,EUR
A3,Carl Dorn,person,c@example.net,,Hauptstr. 3,C3,S3,,2026-01-01,,Europe/Berlin,EUR
"""

LEASES = """realm,address,protocol,port_first,port_last,start,end,service
,10.0.0.1,,,,2026-01-01T00:00:00Z,,S1
,10.0.0.2,,,,2026-01-01T00:00:00Z,,S2
,10.0.0.9,,,,2026-01-01T00:00:00Z,2026-10-10T12:00:00Z,S1
,10.0.0.9,,,,2026-10-10T12:00:00Z,,S3
"""

MONDAY_MORNING = Flow("8.8.8.8", "10.0.0.1", "2026-10-05T10:00:00+02:00", "2026-10-05T10:10:00+02:00", 3_000_000, 3000)
INTO_THE_NIGHT = Flow("8.8.8.8", "10.0.0.1", "2026-10-05T22:55:00+02:00", "2026-10-05T23:05:00+02:00", 1_000_001, 7)
PEERING = Flow("198.51.100.7", "10.0.0.1", "2026-10-06T12:00:00+02:00", "2026-10-06T12:00:00+02:00", 9_000_000, 9)
ON_NET = Flow("10.0.0.1", "10.0.0.2", "2026-10-07T10:00:00Z", "2026-10-07T10:00:10Z", 5_000, 5)
STRANGER = Flow("9.9.9.9", "8.8.8.8", "2026-10-07T10:00:00Z", "2026-10-07T10:00:10Z", 700)
INFRASTRUCTURE = Flow("203.0.113.1", "8.8.8.8", "2026-10-07T10:00:00Z", "2026-10-07T10:00:10Z", 600)
CHANGES_HANDS = Flow("8.8.8.8", "10.0.0.9", "2026-10-10T11:50:00Z", "2026-10-10T12:10:00Z", 1_001, 2)
LAST_INSTANT = Flow("8.8.8.8", "10.0.0.1", "2026-10-31T23:59:00+01:00", "2026-11-01T00:01:00+01:00", 120_000, 12)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("operator")
    home = folder / "home"
    run_cli("init", home=home)
    (home / "ratemill.toml").write_text(SETTINGS)
    for name, text in (("plans.toml", PLANS), ("subscribers.csv", SUBSCRIBERS), ("leases.csv", LEASES)):
        (folder / name).write_text(text)
    run_cli("config", "check", home=home)
    assert rows(run_cli("plans", "apply", str(folder / "plans.toml"), home=home))[0]["added"] == 3
    assert rows(run_cli("subscribers", "import", str(folder / "subscribers.csv"), home=home)) == [
        {"added": 3, "changed": 0, "unchanged": 0}
    ]
    assert rows(run_cli("leases", "import", str(folder / "leases.csv"), home=home)) == [
        {"added": 4, "changed": 0, "unchanged": 0}
    ]
    capture = pcap(
        folder / "october.pcap",
        [
            ("2026-10-05T21:06:00Z", "192.0.2.1", v5([MONDAY_MORNING, INTO_THE_NIGHT], "2026-10-05T21:06:00Z", 0)),
            (
                "2026-10-05T21:06:00Z",
                "192.0.2.1",
                v5([MONDAY_MORNING, INTO_THE_NIGHT], "2026-10-05T21:06:00Z", 0),
            ),  # a copy
            (
                "2026-10-07T10:01:00Z",
                "192.0.2.1",
                v5([PEERING, ON_NET, STRANGER, INFRASTRUCTURE], "2026-10-07T10:01:00Z", 2),
            ),
            (
                "2026-10-10T12:11:00Z",
                "192.0.2.1",
                v5([CHANGES_HANDS], "2026-10-10T12:11:00Z", 9),
            ),  # 3 records are missing
            ("2026-10-31T23:05:00Z", "192.0.2.2", ipfix([ipfix_data([LAST_INSTANT])], "2026-10-31T23:05:00Z", 0)),
            (
                "2026-10-31T23:05:01Z",
                "192.0.2.2",
                ipfix([ipfix_template()], "2026-10-31T23:05:01Z", 1),
            ),  # after its data
            ("2026-10-31T23:05:02Z", "192.0.2.2", b"\x00\x05garbage"),
        ],
    )
    done = rows(run_cli("collect", "replay", str(capture), home=home))[0]
    assert {
        key: done[key]
        for key in (
            "datagrams",
            "templates",
            "options_templates",
            "data_records",
            "options_records",
            "flows",
            "octets",
            "waiting",
        )
    } == {
        "datagrams": 7,
        "templates": 1,
        "options_templates": 0,
        "data_records": 8,
        "options_records": 0,
        "flows": 8,
        "octets": 3_000_000 + 1_000_001 + 9_000_000 + 5_000 + 700 + 600 + 1_001 + 120_000,
        "waiting": 0,
    }
    assert done["faults"]["duplicate"] == 1
    assert sum(done["faults"].values()) == 2
    run_cli("aggregate", "run", home=home)
    run_cli("usage", "publish", home=home)
    run_cli("rate", "run", "2026-10", "--as-of", "2026-11-02T00:00:00Z", home=home)
    run_cli("invoice", "run", "2026-10", "--as-of", "2026-11-02T00:00:00Z", home=home)
    return home


def test_the_exporters_losses_are_counted_in_their_own_units(home: Path) -> None:
    listed = {(row["exporter"], row["protocol"]): row for row in rows(run_cli("exporters", "list", home=home))}
    first = listed["192.0.2.1", "v5"]
    assert (first["received"], first["missing"], first["duplicate"], first["reordered"]) == (4, 3, 1, 0)
    assert listed["192.0.2.2", "ipfix"]["missing"] == 0


def test_flows_are_exported_as_they_came(home: Path) -> None:
    flows = rows(run_cli("flows", "export", home=home))
    assert len(flows) == 8
    expected = {
        "received": "2026-10-05T21:06:00.000Z",
        "exporter": "192.0.2.1",
        "domain": 0,
        "start": "2026-10-05T08:00:00.000Z",
        "end": "2026-10-05T08:10:00.000Z",
        "source_address": "8.8.8.8",
        "destination_address": "10.0.0.1",
        "source_port": 40000,
        "destination_port": 443,
        "protocol": 6,
        "octets": 3_000_000,
        "packets": 3000,
        "rate_numerator": 1,
        "rate_denominator": 1,
        "rate_source": "assumed",
        "input_interface": 10,
        "output_interface": 1,
        "flow_direction": None,
        "next_hop": None,
        "source_as": flows[0]["source_as"],
        "destination_as": flows[0]["destination_as"],
        "tos": 0,
        "tcp_flags": 0x18,
    }
    assert {name: flows[0][name] for name in expected} == expected
    assert flows[-1]["received"] == "2026-10-31T23:05:00.000Z"
    some = rows(run_cli("flows", "export", "--from", "2026-10-07T00:00:00Z", "--to", "2026-10-10T12:11:00Z", home=home))
    assert len(some) == 4


def test_usage_is_cut_at_zones_leases_and_periods(home: Path) -> None:
    usage = {
        (r["service"], r["hour"], r["zone"], r["class"], r["direction"]): (r["octets"], r["flows"])
        for r in rows(run_cli("usage", "export", "2026-10", home=home))
    }
    assert usage == {
        ("S1", "2026-10-05T08:00:00.000Z", "day", "default", "down"): (3_000_000, 1),
        ("S1", "2026-10-05T20:00:00.000Z", "day", "default", "down"): (500_000, 1),
        ("S1", "2026-10-05T21:00:00.000Z", "night", "default", "down"): (500_001, 0),
        ("S1", "2026-10-06T10:00:00.000Z", "day", "peering", "down"): (9_000_000, 1),
        ("S1", "2026-10-07T10:00:00.000Z", "day", "default", "up"): (5_000, 1),
        ("S2", "2026-10-07T10:00:00.000Z", None, "default", "down"): (5_000, 1),
        ("S1", "2026-10-10T11:00:00.000Z", "night", "default", "down"): (500, 1),
        ("S3", "2026-10-10T12:00:00.000Z", None, "default", "down"): (501, 0),
        ("S1", "2026-10-31T22:00:00.000Z", "night", "default", "down"): (60_000, 1),
    }
    november = rows(run_cli("usage", "export", "2026-11", home=home))
    assert [(r["service"], r["hour"], r["octets"], r["flows"]) for r in november] == [
        ("S1", "2026-10-31T23:00:00.000Z", 60_000, 0)
    ]
    slots = rows(run_cli("usage", "export", "2026-10", "--by", "slot", home=home))
    assert sum(row["octets"] for row in slots) == sum(octets for octets, _ in usage.values())
    assert "2026-10-05T20:45:00.000Z" in {row["slot"] for row in slots}
    months = rows(run_cli("usage", "export", "2026-10", "--by", "month", home=home))
    assert [
        r["octets"]
        for r in months
        if r["service"] == "S1" and r["zone"] == "day" and r["direction"] == "down" and r["class"] == "default"
    ] == [3_500_000]
    assert {r["period"] for r in months} == {"2026-10"}


def test_charges_are_exact(home: Path) -> None:
    charges = rows(run_cli("charges", "export", "2026-10", home=home))
    assert charges == [
        {
            "period": "2026-10",
            "service": "S1",
            "plan": "home-100",
            "plan_version": "2026-01-01",
            "start": "2026-10-01",
            "end": "2026-11-01",
            "line": "Home 100",
            "kind": "fee",
            "zone": None,
            "class": None,
            "direction": None,
            "quantity": "1",
            "unit": "month",
            "unit_price": "19.90",
            "net_minor": 1990,
            "currency": "EUR",
        },
        {
            "period": "2026-10",
            "service": "S1",
            "plan": "home-100",
            "plan_version": "2026-01-01",
            "start": "2026-10-01",
            "end": "2026-11-01",
            "line": "Traffic by day",
            "kind": "traffic",
            "zone": "day",
            "class": "default",
            "direction": "down",
            "quantity": "2.5",
            "unit": "MB",
            "unit_price": "0.50",
            "net_minor": 125,
            "currency": "EUR",
        },
        {
            "period": "2026-10",
            "service": "S2",
            "plan": "business-95",
            "plan_version": "2026-01-01",
            "start": "2026-10-01",
            "end": "2026-11-01",
            "line": "95th percentile",
            "kind": "percentile",
            "zone": None,
            "class": None,
            "direction": charges[2]["direction"],
            "quantity": "10",
            "unit": "Mbit/s",
            "unit_price": "4.00",
            "net_minor": 4000,
            "currency": "EUR",
        },
    ]


def test_invoices_carry_the_tax_once_per_category(home: Path) -> None:
    assert rows(run_cli("invoice", "list", "2026-10", home=home)) == [
        {
            "number": "A-000001",
            "account": "A1",
            "period": "2026-10",
            "net_minor": 2115,
            "tax_minor": 402,
            "gross_minor": 2517,
            "currency": "EUR",
            "issued": "2026-11-02T00:00:00.000Z",
        },
        {
            "number": "A-000002",
            "account": "A2",
            "period": "2026-10",
            "net_minor": 4000,
            "tax_minor": 760,
            "gross_minor": 4760,
            "currency": "EUR",
            "issued": "2026-11-02T00:00:00.000Z",
        },
    ]
    lines = rows(run_cli("invoice", "export", "2026-10", home=home))
    assert [(r["number"], r["line"], r["kind"], r["quantity"], r["net_minor"]) for r in lines] == [
        ("A-000001", 1, "fee", "1", 1990),
        ("A-000001", 2, "traffic", "2.5", 125),
        ("A-000002", 1, "percentile", "10", 4000),
    ]
    assert lines[0]["description"].startswith("Home 100")


def test_every_balance_closes_and_names_its_losses(home: Path) -> None:
    balances = {row["balance"]: row for row in rows(run_cli("reconcile", "2026-10", home=home))}
    assert list(balances) == [
        "datagrams",
        "records",
        "flow_octets",
        "used_octets",
        "rated_octets",
        "charges_invoices",
        "invoices_postings",
    ]
    assert {row["difference"] for row in balances.values()} == {0}
    datagrams = balances["datagrams"]
    assert (datagrams["in"], datagrams["out"]) == (4, 3)
    assert {name: count for name, count in datagrams["losses"].items() if count} == {"duplicate": 1}
    assert (balances["records"]["in"], balances["records"]["out"]) == (7, 7)
    november = {row["balance"]: row for row in rows(run_cli("reconcile", "2026-11", home=home, check=7))}
    assert (november["datagrams"]["in"], november["datagrams"]["out"]) == (3, 2)  # received after midnight in Berlin
    assert november["datagrams"]["losses"]["faulted"] == 1
    flow_octets = balances["flow_octets"]
    assert flow_octets["out"] == 3_000_000 + 1_000_001 + 9_000_000 + 10_000 + 1_001 + 60_000
    assert {name: count for name, count in flow_octets["losses"].items() if count} == {
        "stranger": 700,
        "infrastructure": 600,
    }
    rated = balances["rated_octets"]
    assert {name: count for name, count in rated["losses"].items() if count} == {"without_plan": 501}
    assert (balances["charges_invoices"]["in"], balances["charges_invoices"]["out"]) == (6115, 6115)
    assert (balances["invoices_postings"]["in"], balances["invoices_postings"]["out"]) == (7277, 7277)


def test_a_bill_is_explained_and_recomputed(home: Path, tmp_path: Path) -> None:
    for level in ("1", "2"):
        checked = rows(run_cli("rate", "verify", "2026-10", "--level", level, home=home))[0]
        assert checked["differing"] == 0
        assert checked["checked"] == checked["equal"] > 0
        assert rows(run_cli("invoice", "verify", "A-000001", "--level", level, home=home))[0]["differing"] == 0
    assert rows(run_cli("rate", "explain", "S1", "2026-10", home=home))
    explained = run_cli("invoice", "explain", "A-000001", "2", home=home).stdout
    assert "home-100" in explained
    assert "192.0.2.1" in explained
    run_cli("invoice", "pdf", "A-000001", "--to", str(tmp_path / "a.pdf"), home=home)
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_a_second_run_of_everything_changes_nothing(home: Path) -> None:
    folder = home.parent
    before = [
        run_cli(*words, home=home).stdout
        for words in (
            ("invoice", "list", "2026-10"),
            ("charges", "export", "2026-10"),
            ("usage", "export", "2026-10"),
            ("reconcile", "2026-10"),
        )
    ]
    assert rows(run_cli("subscribers", "import", str(folder / "subscribers.csv"), home=home)) == [
        {"added": 0, "changed": 0, "unchanged": 3}
    ]
    assert rows(run_cli("leases", "import", str(folder / "leases.csv"), home=home))[0]["unchanged"] == 4
    assert rows(run_cli("plans", "apply", str(folder / "plans.toml"), home=home))[0]["unchanged"] == 3
    again = run_cli("collect", "replay", str(folder / "october.pcap"), home=home)
    assert rows(again)[0]["datagrams"] == 0
    run_cli("aggregate", "run", home=home)
    run_cli("usage", "publish", home=home)
    run_cli("rate", "run", "2026-10", "--as-of", "2026-11-02T00:00:00Z", home=home)
    run_cli("invoice", "run", "2026-10", "--as-of", "2026-11-02T00:00:00Z", home=home)
    after = [
        run_cli(*words, home=home).stdout
        for words in (
            ("invoice", "list", "2026-10"),
            ("charges", "export", "2026-10"),
            ("usage", "export", "2026-10"),
            ("reconcile", "2026-10"),
        )
    ]
    assert after == before
