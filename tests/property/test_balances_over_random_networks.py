"""Random networks: what the sender's manifest says was sent is rated or named, to the octet.

A network is a few routers of several protocols whose datagrams are lost, duplicated and reordered on the way, with late
templates, sampling, addresses that change hands in mid-flow, traffic between two subscribers and the day on which the
clocks go back. The expectation is computed here from the manifest with fractions and shares no code with the product.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import packets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packets import Flow, ms

import cli

OCTOBER = (ms("2026-10-01T00:00:00+02:00"), ms("2026-11-01T00:00:00+01:00"))
SETTINGS = """
[seller]
timezone = "Europe/Berlin"
[[tax]]
category = "standard"
percent = "19"
from = 2021-01-01
[infrastructure]
prefixes = ["203.0.113.0/28"]
[[exporter]]
address = "192.0.2.3"
sampling = 50
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
classes = []
zones = []
included = "0 B"
above = "excess"
price = "1.00"
unit = "MB"
sampled = "refuse"
"""
HEADER = "account,name,kind,email,phone,address,contract,service,plan,start,end,timezone,currency\n"
SUBSCRIBERS = HEADER + "".join(
    f"A{n},Name {n},person,,,,C{n},S{n},{'volume' if n % 4 else ''},2026-01-01,,Europe/Berlin,EUR\n" for n in range(12)
)


@dataclass
class Lease:
    address: str
    start: int
    end: int
    service: int


@dataclass
class Network:
    leases: list[Lease]
    datagrams: list[tuple[str, str, bytes]] = field(default_factory=list)
    delivered: list[tuple[Flow, int]] = field(default_factory=list)  # flow, sampling rate
    missing: Counter[str] = field(default_factory=Counter)  # by exporter, in the protocol's own unit
    duplicates: Counter[str] = field(default_factory=Counter)


def _iso(instant: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=instant)).isoformat()


def _make_leases(rng: random.Random) -> list[Lease]:
    leases = []
    for number in range(8):
        edges = sorted(rng.randrange(*OCTOBER) for _ in range(rng.randrange(4)))
        bounds = [OCTOBER[0] - 10**9, *edges, OCTOBER[1] + 10**9]
        for start, end in pairwise(bounds):
            if rng.random() < 0.85:
                leases.append(Lease(f"10.0.0.{number + 1}", start, end, rng.randrange(12)))
    return leases


def _make_flow(rng: random.Random, leases: list[Lease], at: int) -> Flow:
    near = rng.choice([f"10.0.0.{n + 1}" for n in range(8)] + ["203.0.113.1", "10.9.9.9"])
    far = rng.choice(["8.8.8.8", "198.51.100.1", "10.0.0.1", "10.0.0.2"])
    edges = [lease.start for lease in leases if abs(lease.start - at) < 10**9]
    duration = rng.choice([0, 1, rng.randrange(1_000), rng.randrange(1_800_000)])
    start = rng.choice([at, *[edge - duration // 2 for edge in edges]])
    start = max(start, OCTOBER[0] - 5_000_000)
    source, destination = (near, far) if rng.random() < 0.3 else (far, near)
    return Flow(
        source,
        destination,
        _iso(start),
        _iso(start + duration),
        rng.choice([0, 1, 40, rng.randrange(1 << 31)]),
        rng.randrange(1, 1000),
        rng.choice([6, 17]),
    )


def _make_network(seed: int) -> Network:
    rng = random.Random(seed)
    network = Network(_make_leases(rng))
    for number, protocol in enumerate(("v5", "v9", "v5", "ipfix"), start=1):
        _run_router(network, rng, f"192.0.2.{number}", protocol, 50 if number == 3 else 1)
    network.datagrams.sort(key=lambda datagram: datagram[0])
    return network


def _run_router(network: Network, rng: random.Random, exporter: str, protocol: str, rate: int) -> None:
    dst_day = ms("2026-10-25T00:30:00Z")
    base = rng.choice([OCTOBER[0] - 600_000, rng.randrange(*OCTOBER), dst_day, OCTOBER[1] - 1_200_000]) // 1000 * 1000
    late = rng.random() < 0.4  # the template comes after the first data
    sequence = rng.choice([0, 2**32 - 5, rng.randrange(2**32)])
    sent: list[tuple[str, str, bytes]] = []
    fates: list[tuple[bool, bool, int, list[Flow]]] = []
    count = rng.randrange(4, 9)
    for index in range(count):
        exported = base + index * 20_000
        flows = [
            _make_flow(rng, network.leases, exported - rng.randrange(1_000_000)) for _ in range(rng.randrange(1, 6))
        ]
        flows = [flow if ms(flow.end) <= exported else _moved(flow, exported) for flow in flows]
        payload, units = _encode(
            protocol,
            flows,
            _iso(exported),
            sequence,
            3_000_000_000 + index * 20_000,
            template=(index == 0 and not late) or (late and index == count - 1),
        )
        sequence = (sequence + units) % 2**32
        lost = 0 < index < count - 1 and rng.random() < 0.25
        copied = not lost and rng.random() < 0.3
        sent.append((_iso(exported + 500), exporter, payload))
        fates.append((lost, copied, units, flows))
    arrivals = _on_the_wire(network, rng, exporter, sent, fates, rate)
    network.datagrams += arrivals


def _moved(flow: Flow, exported: int) -> Flow:
    duration = ms(flow.end) - ms(flow.start)
    return replace(flow, start=_iso(exported - duration - 1000), end=_iso(exported - 1000))


def _encode(
    protocol: str, flows: list[Flow], exported: str, sequence: int, uptime: int, template: bool
) -> tuple[bytes, int]:
    if protocol == "v5":
        return packets.v5(flows, exported, sequence, uptime), len(flows)
    if protocol == "ipfix":
        sets = [packets.ipfix_data(flows)]
        sets = [packets.ipfix_template(), *sets] if template else sets
        return packets.ipfix(sets, exported, sequence), len(flows)
    sets = [packets.v9_data(flows, exported, uptime)]
    sets = [packets.v9_template(), *sets] if template else sets
    return packets.v9(sets, exported, sequence, uptime, len(flows) + template), 1


def _on_the_wire(
    network: Network,
    rng: random.Random,
    exporter: str,
    sent: list[tuple[str, str, bytes]],
    fates: list[tuple[bool, bool, int, list[Flow]]],
    rate: int,
) -> list[tuple[str, str, bytes]]:
    arrivals = []
    for datagram, (lost, copied, units, flows) in zip(sent, fates, strict=True):
        if lost:
            network.missing[exporter] += units
            continue
        network.delivered += [(flow, rate) for flow in flows]
        arrivals.append(datagram)
        if copied:
            network.duplicates[exporter] += 1
            arrivals.append((_iso(ms(datagram[0]) + rng.randrange(50_000)), *datagram[1:]))
    for index in range(2, len(arrivals) - 2):  # neighbours overtake each other, never the first or the last
        if rng.random() < 0.2 and arrivals[index][2] != arrivals[index + 1][2]:
            one, two = arrivals[index], arrivals[index + 1]
            arrivals[index], arrivals[index + 1] = (one[0], *two[1:]), (two[0], *one[1:])
    return arrivals


@dataclass
class Expected:
    """Octets inside October, by what must become of them."""

    attributed: int = 0
    on_net: int = 0
    stranger: int = 0
    infrastructure: int = 0
    without_plan: int = 0
    sampled_refused: int = 0
    flows: int = 0


def _expect(network: Network) -> Expected:
    expected = Expected()
    for flow, rate in network.delivered:
        octets = flow.octets * rate
        start, end = ms(flow.start), ms(flow.end)
        ends = [
            owned
            for owned in (_owners(network, flow.source, start, end), _owners(network, flow.destination, start, end))
            if any(service is not None for _, _, service in owned)
        ]
        inside = _part(octets, start, end, *OCTOBER)
        expected.flows += inside
        if not ends:
            if "203.0.113.1" in (flow.source, flow.destination):
                expected.infrastructure += inside
            else:
                expected.stranger += inside
        expected.on_net += inside * max(0, len(ends) - 1)
        for owned in ends:
            for first, last, service in owned:
                part = _part(octets, start, end, max(first, OCTOBER[0]), min(last, OCTOBER[1]))
                if service is None:
                    expected.stranger += part
                    continue
                expected.attributed += part
                expected.without_plan += part if service % 4 == 0 else 0
                expected.sampled_refused += part if service % 4 and rate > 1 else 0
    return expected


def _owners(network: Network, address: str, start: int, end: int) -> list[tuple[int, int, int | None]]:
    """The flow's time cut at the edges of the address's leases: (from, to, service or None)."""
    leases = [lease for lease in network.leases if lease.address == address]
    edges = sorted(
        {start, max(end, start + 1)} | {e for lease in leases for e in (lease.start, lease.end) if start < e < end}
    )
    pieces = []
    for first, last in pairwise(edges):
        owner = [lease.service for lease in leases if lease.start <= first < lease.end]
        pieces.append((first, last, owner[0] if owner else None))
    return pieces


def _part(octets: int, start: int, end: int, first: int, last: int) -> int:
    """F(last) - F(first) of the cumulative split, F(t) = floor(octets (t - start) / duration)."""
    if start == end:
        return octets if first <= start < last else 0
    first, last = max(first, start), min(last, end)
    if first >= last:
        return 0

    def cumulated(instant: int) -> int:
        return math.floor(Fraction(octets) * Fraction(instant - start, end - start))

    return cumulated(last) - cumulated(first)


def _run(capsys: pytest.CaptureFixture[str], home: Path, *words: str, code: int = 0) -> list[dict[str, object]]:
    got = cli.run(["--home", str(home), "--json", *words])
    out, err = capsys.readouterr()
    assert got == code, f"{words}: exit {got}\n{out}\n{err}"
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def home_maker(tmp_path_factory: pytest.TempPathFactory) -> object:
    return lambda: tmp_path_factory.mktemp("network")


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_octet_sent_is_rated_or_named(seed: int, home_maker: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(home_maker)
    folder = home_maker()
    home = folder / "home"
    network = _make_network(seed)
    _run(capsys, home, "init")
    (home / "ratemill.toml").write_text(SETTINGS)
    (folder / "plans.toml").write_text(PLANS)
    (folder / "subscribers.csv").write_text(SUBSCRIBERS)
    (folder / "leases.csv").write_text(
        "realm,address,protocol,port_first,port_last,start,end,service\n"
        + "".join(
            f",{lease.address},,,,{_iso(lease.start)},{_iso(lease.end)},S{lease.service}\n" for lease in network.leases
        )
    )
    _run(capsys, home, "plans", "apply", str(folder / "plans.toml"))
    _run(capsys, home, "subscribers", "import", str(folder / "subscribers.csv"))
    _run(capsys, home, "leases", "import", str(folder / "leases.csv"))
    replayed = _run(capsys, home, "collect", "replay", str(packets.pcap(folder / "x.pcap", network.datagrams)))[0]
    assert replayed["waiting"] == 0
    assert replayed["flows"] == len(network.delivered)
    assert replayed["octets"] == sum(flow.octets for flow, _ in network.delivered)
    for row in _run(capsys, home, "exporters", "list"):
        assert row["missing"] == network.missing[str(row["exporter"])], row
        assert row["duplicate"] == network.duplicates[str(row["exporter"])], row
    _run(capsys, home, "aggregate", "run")
    _run(capsys, home, "usage", "publish")
    _run(capsys, home, "rate", "run", "2026-10", "--as-of", "2026-12-01T00:00:00Z")
    _run(capsys, home, "invoice", "run", "2026-10", "--as-of", "2026-12-01T00:00:00Z")
    balances = {str(row["balance"]): row for row in _run(capsys, home, "reconcile", "2026-10")}
    assert {row["difference"] for row in balances.values()} == {0}
    expected = _expect(network)
    flow_octets, rated = balances["flow_octets"], balances["rated_octets"]
    assert flow_octets["in"] == expected.flows + expected.on_net
    assert flow_octets["out"] == expected.attributed
    losses = flow_octets["losses"]
    assert isinstance(losses, dict)
    assert (losses["stranger"], losses["infrastructure"]) == (expected.stranger, expected.infrastructure)
    assert rated["in"] == expected.attributed
    refused = rated["losses"]
    assert isinstance(refused, dict)
    assert (refused["without_plan"], refused["sampled_refused"]) == (expected.without_plan, expected.sampled_refused)
