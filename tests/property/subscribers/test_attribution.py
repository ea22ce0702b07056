"""Attribution by sorted arrays equals the plain definition, over random leases and flows."""

from __future__ import annotations

import ipaddress
import os
import random
import subprocess
import sys

import numpy as np
from harness import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import slow_attribution as slow

from core.addresses import parse_address, parse_prefix
from subscribers.attribution import Attribution, FlowEnds, LeaseRow, Resolved

STATUS = ("unknown", "service", "no_port", "infrastructure")
NETWORKS = ("10.0.0.0/24", "10.0.0.1/32", "10.0.0.2/32", "10.0.0.0/30", "0.0.0.0/0", "2001:db8::/32", "2001:db8:1::/56",
            "2001:db8:1::1/128", "::/0", "192.0.2.1/32", "10.0.0.0/10", "2001:d00::/24")  # fmt: skip
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.200", "192.0.2.1", "192.0.2.2", "8.8.8.8", "2001:db8:1::1", "2001:db8:1::9",
             "2001:db8:2::", "2a00::1", "10.63.0.1", "10.64.0.1", "2001:dff::1", "2001:e00::1")  # fmt: skip
INFRASTRUCTURE = ("8.8.8.0/28", "2a00::/16")
HORIZON = 1000


def _leases(rng: random.Random) -> list[slow.Lease]:
    leases: list[slow.Lease] = []
    for realm in ("", "b"):
        for network in NETWORKS:
            if rng.random() < 0.4:
                continue
            shared = rng.random() < 0.3
            for ports in [(1000 * n, 1000 * n + rng.randrange(1000)) for n in range(1, 4)] if shared else [None]:
                for protocol in rng.choice([[None], [6], [6, 17]]):
                    at = rng.randrange(-100, HORIZON)
                    while at < HORIZON:
                        end = at + rng.randrange(1, HORIZON)
                        leases.append(slow.Lease(realm, network, protocol, ports, at, end, rng.randrange(5)))
                        at = end + rng.choice([0, 0, rng.randrange(200)])
    return leases


def _flow(rng: random.Random) -> slow.Flow:
    start = rng.randrange(HORIZON)
    return slow.Flow(rng.choice(["192.0.2.10", "192.0.2.11", "2001:db8::ff"]), rng.choice(ADDRESSES), rng.choice(ADDRESSES),
                     rng.choice([0, 999, 1000, 1500, 2000, 3999, 65535]), rng.choice([0, 443, 1001, 2100]),
                     rng.choice([1, 6, 17, 47]), start, start + rng.choice([0, 1, rng.randrange(HORIZON)]),
                     rng.randrange(4), rng.randrange(4), rng.choice([0, 1, 255]))  # fmt: skip


def _resolve(
    leases: list[slow.Lease], realms: list[slow.Realm], cuts: list[slow.Cut], flows: list[slow.Flow]
) -> Resolved:
    rows = []
    for lease in leases:
        prefix = parse_prefix(lease.network)
        first, last = lease.ports or (None, None)
        rows.append(LeaseRow(lease.realm, prefix.address, prefix.length, lease.protocol, first, last, lease.start, lease.end,
                             lease.service))  # fmt: skip
    document = {
        "realm": [{"name": r.name, "exporter": r.exporter, "interfaces": list(r.interfaces)} for r in realms],
        "metering": [
            {"exporter": c.exporter, "interfaces": list(c.interfaces), "flow_direction": c.direction} for c in cuts
        ],
        "infrastructure": {"prefixes": list(INFRASTRUCTURE)},
    }
    return Attribution(rows, document).resolve(_columns(flows))


def _columns(flows: list[slow.Flow]) -> FlowEnds:
    def addresses(name: str) -> np.ndarray:
        return np.frombuffer(b"".join(parse_address(getattr(f, name)) for f in flows), np.uint8).reshape(-1, 16)

    def numbers(name: str, kind: type[np.generic]) -> np.ndarray:
        return np.array([getattr(f, name) for f in flows], kind)

    return FlowEnds(addresses("exporter"), numbers("start", np.int64), numbers("end", np.int64), addresses("source"),
                    addresses("destination"), numbers("source_port", np.uint16), numbers("destination_port", np.uint16),
                    numbers("protocol", np.uint8), numbers("input", np.uint32), numbers("output", np.uint32),
                    numbers("direction", np.uint8))  # fmt: skip


def _compare(seed: int) -> None:
    rng = random.Random(seed)
    leases = _leases(rng)
    realms = [slow.Realm("b", "192.0.2.10", rng.choice([(), (1,), (1, 2)]))]
    cuts = rng.choice(
        [[], [slow.Cut("192.0.2.10", rng.choice([(), (1,), (0, 3)]), rng.choice(["ingress", "egress", "both"]))]]
    )
    flows = [_flow(rng) for _ in range(40)]
    resolved = _resolve(leases, realms, cuts, flows)
    got = list(zip(resolved.flow.tolist(), resolved.end.tolist(), resolved.from_ms.tolist(), resolved.to_ms.tolist(),
                   resolved.service.tolist(), strict=True))  # fmt: skip
    wanted = []
    for number, flow in enumerate(flows):
        assert resolved.in_cut[number] == slow.in_cut(flow, cuts), flow
        realm = slow.realm_of(flow, realms)
        ends = ((flow.source, flow.source_port, resolved.source_status), (flow.destination, flow.destination_port,
                                                                          resolved.destination_status))  # fmt: skip
        for side, (address, port, status) in enumerate(ends):
            arguments = (realm, address, flow.protocol, port, flow.start, flow.end)
            wanted += [(number, side, *piece) for piece in slow.pieces(leases, *arguments)]
            assert STATUS[status[number]] == slow.status(leases, list(INFRASTRUCTURE), *arguments), (flow, side)
    assert got == wanted


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_end_has_the_owner_that_the_definition_names(seed: int) -> None:
    _compare(seed)


def test_the_kernels_mean_the_same_without_compilation() -> None:
    code = "import property.subscribers.test_attribution as t; [t._compare(n) for n in range(3)]"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
                   "PYTHONWARNINGS": "ignore"}  # numpy warns of wrapping hashes, which is what they are for  # fmt: skip
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, timeout=300)


def test_ipv4_is_not_inside_an_ipv6_default_route() -> None:
    flow = slow.Flow("192.0.2.10", "10.0.0.1", "2001:db8::1", 1, 1, 6, 0, 10, 0, 0, 255)
    resolved = _resolve([slow.Lease("", "::/0", None, None, 0, 100, 7)], [], [], [flow])
    assert (resolved.source_status[0], resolved.destination_status[0]) == (0, 1)
    assert ipaddress.ip_address("10.0.0.1") not in ipaddress.ip_network("::/0")
