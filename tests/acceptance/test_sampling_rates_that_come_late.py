"""Flows in quarantine by the command line alone: not billed until their sampling rate is known, then in full, once."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from exports import (
    BASIC,
    ethernet,
    flow_sample,
    framed,
    ipv4_packet,
    raw_header,
    sflow,
    template,
    v9,
    v9_options_template,
)
from harness import rows, run_cli
from packets import ms, pcap

SETTINGS = """
[seller]
name = "Demo Net"
country = "DE"
currency = "EUR"
timezone = "UTC"

[[tax]]
category = "standard"
percent = "0"
from = 2021-01-01

[sampling]
unannounced = "{policy}"
{more}
"""
PLANS = """
[[plan]]
name = "volume"
from = 2026-01-01
currency = "EUR"
tax = "standard"
prices = "exclusive"

[[plan.traffic]]
name = "Traffic"
direction = "both"
price = "1.00"
unit = "MB"
sampled = "allow"
"""
SUBSCRIBERS = """account,name,kind,email,phone,address,contract,service,plan,start,end,timezone,currency
A1,Ada Beck,person,a@example.net,,Hauptstr. 1,C1,S1,volume,2026-01-01,,UTC,EUR
"""
LEASES = """realm,address,protocol,port_first,port_last,start,end,service
,192.0.2.1,,,,2026-01-01T00:00:00Z,,S1
"""
FIELDS = [*BASIC, (48, 1)]
"""Source 192.0.2.1, destination 198.51.100.1, octets, packets, sampler."""
T0 = ms("2026-10-05T10:00:00Z")
ROUTER = "192.0.2.10"


def make(home: Path, policy: str = "quarantine", more: str = "") -> Path:
    run_cli("init", home=home)
    configure(home, policy, more)
    for name, text, words in (("plans.toml", PLANS, ("plans", "apply")), ("s.csv", SUBSCRIBERS, ("subscribers", "import")),
                              ("l.csv", LEASES, ("leases", "import"))):
        (home.parent / name).write_text(text)
        run_cli(*words, str(home.parent / name), home=home)
    return home


def configure(home: Path, policy: str = "quarantine", more: str = "") -> None:
    (home / "ratemill.toml").write_text(SETTINGS.format(policy=policy, more=more))


def data(minute: int, octets: int, sampler: int | None = None, source: int = 7) -> tuple[str, str, bytes]:
    """A datagram with one flow, at a minute of the hour."""
    sequence = minute
    fields, record = (BASIC, b"") if sampler is None else (FIELDS, bytes([sampler]))
    number = 256 if sampler is None else 257
    flow = struct.pack(">IIII", 0xC0000201, 0xC6336401, octets, 2) + record
    sets = [framed(0, template(number, fields)), framed(number, flow)]
    return at(minute, v9(*sets, sequence=sequence, uptime=3_600_000, seconds=T0 // 1000 + 60 * minute, source=source))


def options(minute: int, rate: int, sampler: int | None = None, source: int = 7) -> tuple[str, str, bytes]:
    """A datagram in which the router announces a rate: of a sampler, or of everything."""
    if sampler is None:
        defined, record = v9_options_template(400, [(1, 4)], [(34, 4)]), struct.pack(">II", 0, rate)
    else:
        defined, record = v9_options_template(401, [(1, 4)], [(48, 1), (50, 4)]), struct.pack(">IBI", 0, sampler, rate)
    number = 400 if sampler is None else 401
    return at(minute, v9(framed(1, defined), framed(number, record), sequence=minute, uptime=3_600_000,
                         seconds=T0 // 1000 + 60 * minute, source=source))


def at(minute: int, payload: bytes) -> tuple[str, str, bytes]:
    return f"2026-10-05T10:{minute:02d}:00Z", ROUTER, payload


def replay(home: Path, name: str, *datagrams: tuple[str, str, bytes], words: tuple[str, ...] = ()) -> None:
    run_cli("collect", "replay", str(pcap(home.parent / f"{name}.pcap", datagrams)), *words, home=home)


def publish(home: Path) -> None:
    run_cli("aggregate", "run", home=home)
    run_cli("usage", "publish", home=home)


def usage(home: Path) -> int:
    return sum(row["octets"] for row in rows(run_cli("usage", "export", "2026-10", "--by", "month", home=home)))


def balance(home: Path) -> dict[str, Any]:
    found = {row["balance"]: row for row in rows(run_cli("reconcile", "2026-10", home=home, check=None))}
    for name in ("datagrams", "records", "flow_octets", "used_octets"):
        assert found[name]["difference"] == 0, found[name]
    return found["flow_octets"]


def test_options_that_come_later_rate_what_waited_and_the_bill_is_corrected(tmp_path: Path) -> None:
    home = make(tmp_path / "home")
    replay(home, "flows", data(1, 1_000_000), data(20, 500_001), words=("--continue",))
    publish(home)
    assert usage(home) == 0
    assert balance(home)["losses"]["quarantined"] == 1_500_001
    run_cli("rate", "run", "2026-10", "--as-of", "2026-11-02T00:00:00Z", home=home)
    run_cli("invoice", "run", "2026-10", "--as-of", "2026-11-02T00:00:00Z", home=home, check=None)
    (flow, _) = rows(run_cli("flows", "export", home=home))
    assert (flow["rate_numerator"], flow["rate_source"], flow["late_source"]) == (1, "assumed", "none")
    assert flow["late_numerator"] is None

    replay(home, "options", options(30, 100), data(40, 7), words=("--continue",))
    assert rows(run_cli("aggregate", "run", home=home))[0]["remade"] == 1
    run_cli("usage", "publish", home=home)
    assert usage(home) == 150_000_100 + 700
    after = balance(home)
    assert (after["losses"]["quarantined"], after["out"]) == (0, 150_000_800)
    assert after["detail"]["late_rates"] == 150_000_100 - 1_500_001
    exported = rows(run_cli("flows", "export", home=home))
    assert [(row["octets"], row["rate_numerator"], row["late_numerator"], row["late_source"]) for row in exported] == [
        (1_000_000, 1, 100, "domain"), (500_001, 1, 100, "domain"), (7, 100, None, None)]
    assert rows(run_cli("aggregate", "run", home=home))[0]["remade"] == 0, "once"
    run_cli("rate", "run", "2026-10", "--as-of", "2026-11-02T00:00:00Z", home=home)
    (charge,) = [row for row in rows(run_cli("charges", "export", "2026-10", home=home)) if row["kind"] == "traffic"]
    assert (charge["quantity"], charge["net_minor"]) == ("150.0008", 15000)
    run_cli("invoice", "run", "2026-10", "--as-of", "2026-11-03T00:00:00Z", home=home)
    assert sum(row["net_minor"] for row in rows(run_cli("invoice", "list", "2026-10", home=home))) == 15000
    for level in ("1", "2"):
        assert rows(run_cli("rate", "verify", "2026-10", "--level", level, home=home))[0]["differing"] == 0


def test_what_was_invoiced_becomes_an_adjustment(tmp_path: Path) -> None:
    home = make(tmp_path / "home")
    replay(home, "first", data(1, 2_000_000, sampler=1), options(2, 1, sampler=2), data(3, 1_000_000, sampler=2),
           words=("--continue",))
    publish(home)
    assert usage(home) == 1_000_000
    run_cli("rate", "run", "2026-10", "--as-of", "2026-11-02T00:00:00Z", home=home)
    run_cli("invoice", "run", "2026-10", "--as-of", "2026-11-02T00:00:00Z", home=home)
    replay(home, "later", options(50, 10, sampler=1), words=("--continue",))
    publish(home)
    assert usage(home) == 21_000_000
    run_cli("rate", "run", "2026-10", "--as-of", "2026-11-03T00:00:00Z", home=home)
    run_cli("invoice", "run", "2026-10", "--as-of", "2026-11-03T00:00:00Z", home=home)
    listed = rows(run_cli("invoice", "list", "2026-10", home=home))
    assert [row["net_minor"] for row in listed] == [100, 2000]


def test_each_sampler_gets_its_own_rate_and_each_rate_its_own_time(tmp_path: Path) -> None:
    home = make(tmp_path / "home")
    replay(home, "one", data(1, 100, sampler=1), data(2, 1000, sampler=2), data(3, 10_000), options(4, 10, sampler=1),
           data(5, 3, sampler=1), options(6, 70, sampler=1), data(7, 5, sampler=1), options(8, 3, sampler=2),
           data(9, 7, sampler=2))
    publish(home)
    assert usage(home) == 100 * 10 + 3 * 10 + 5 * 70 + 1000 * 3 + 7 * 3
    assert balance(home)["losses"]["quarantined"] == 10_000, "nobody has announced a rate of the whole domain"
    replay(home, "two", options(30, 2))
    publish(home)
    assert usage(home) == 100 * 10 + 3 * 10 + 5 * 70 + 1000 * 3 + 7 * 3 + 10_000 * 2
    assert balance(home)["losses"]["quarantined"] == 0


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_the_order_in_which_captures_come_changes_nothing(tmp_path: Path, order: tuple[int, ...]) -> None:
    home = make(tmp_path / "home")
    parts = [(data(1, 1001), data(31, 77, source=8)), (options(10, 30),), (data(20, 5), options(35, 4, source=8))]
    for number in order:
        replay(home, f"part{number}", *parts[number])
        run_cli("aggregate", "run", home=home)
    publish(home)
    assert usage(home) == 1001 * 30 + 77 * 4 + 5 * 30
    assert balance(home)["losses"]["quarantined"] == 0


def test_the_settings_rate_what_waits_and_sflow_without_a_rate(tmp_path: Path) -> None:
    home = make(tmp_path / "home")
    packet = raw_header(ethernet(ipv4_packet(1000)))
    sample, rated = flow_sample(packet, rate=0), flow_sample(packet, rate=3)
    replay(home, "sflow", at(1, sflow(sample, sample)), at(2, sflow(rated, sequence=2)))
    publish(home)
    assert usage(home) == 3000
    assert balance(home)["losses"]["quarantined"] == 2000
    configure(home, more='[[exporter]]\naddress = "192.0.2.10"\nsampling = 50')
    publish(home)
    assert usage(home) == 3000 + 2000 * 50
    assert balance(home)["losses"]["quarantined"] == 0
    assert {row["late_source"] for row in rows(run_cli("flows", "export", home=home))} == {"configured", None}
    configure(home, more='[[exporter]]\naddress = "192.0.2.10"\nsampling = 51')
    publish(home)
    assert usage(home) == 3000 + 2000 * 51, "a rate that was corrected counts instead"
    configure(home)
    publish(home)
    assert (usage(home), balance(home)["losses"]["quarantined"]) == (3000, 2000), "and one that was taken out no more"


@pytest.mark.parametrize(("policy", "octets"), [("assume_1", 1000 + 5 * 10), ("reject", 5 * 10)])
def test_the_other_policies_are_as_they_were(tmp_path: Path, policy: str, octets: int) -> None:
    home = make(tmp_path / "home", policy)
    replay(home, "all", data(1, 1000), options(2, 10), data(3, 5))
    publish(home)
    assert usage(home) == octets
    assert balance(home)["losses"]["quarantined"] == 0
    assert {row["late_source"] for row in rows(run_cli("flows", "export", home=home))} == {None}
