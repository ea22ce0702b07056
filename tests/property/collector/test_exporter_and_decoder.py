"""What our exporter sends is what the decoder sees, and what its manifest says is what the decoder counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from journal_bodies import Datagram, body_of

from collector.decoder import Decoder
from collector.exporter import encode, network
from collector.settings import CollectorSettings, Time
from core.addresses import parse_address
from core.errors import UsageError

SETTINGS = CollectorSettings(time=Time(skew_seconds_max=0))
NOW = 1_790_000_000_000


def _flows(count: int, seed: int, protocol: str, with_ipv6: bool = True) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    addresses = [parse_address(text) for text in ("192.0.2.1", "10.1.2.3", "255.255.255.255", "2001:db8::1", "fe80::9")]
    pool = np.frombuffer(b"".join(addresses), np.uint8).reshape(-1, 16)
    ipv6 = rng.random(count) < (0.3 if with_ipv6 and protocol != "v5" else 0.0)
    pick = np.where(ipv6, rng.integers(3, 5, count), rng.integers(0, 3, count))
    end = np.sort(NOW + rng.integers(0, 30 * 86_400_000, count))
    is_sample = protocol == "sflow"
    large = 2**32 if protocol == "v5" else 2**36
    return {
        "start": end - (0 if is_sample else rng.integers(0, 3_600_000, count)), "end": end,
        "octets": rng.integers(80, 65_536, count) if is_sample else rng.integers(0, large, count),
        "packets": np.ones(count, np.int64) if is_sample else rng.integers(0, 2**31, count),
        "source_address": pool[pick], "destination_address": pool[pick][::1],
        "source_port": rng.integers(0, 65_536, count), "destination_port": rng.integers(0, 65_536, count),
        "protocol": rng.choice([6, 17], count), "tos": rng.integers(0, 256, count),
        "tcp_flags": rng.integers(0, 64, count), "input_interface": rng.integers(0, 65_536, count),
        "output_interface": rng.integers(0, 65_536, count),
    }


def _decoded(datagrams: encode.Datagrams, order: Any) -> Any:
    payloads = [Datagram(datagrams.payload(index), NOW + 40 * 86_400_000) for index in order]
    decoder = Decoder(SETTINGS)
    return decoder.feed(body_of(payloads), 0), decoder.state.exporters()


@pytest.mark.parametrize("protocol", encode.PROTOCOLS)
@pytest.mark.parametrize("count", [1, 28, 1000])
def test_every_field_arrives_as_it_was_given(protocol: str, count: int) -> None:
    columns = _flows(count, 3, protocol)
    datagrams = encode.encode(columns, protocol, domain=77)
    decoded, _ = _decoded(datagrams, range(len(datagrams)))
    flows = decoded.flows
    assert len(flows["start"]) == count
    assert set(flows["domain"].tolist()) == {77}
    # IPv4 and IPv6 go into datagrams of their own: compare in the order in which the datagrams carry the flows.
    is_v6 = columns["source_address"][:, 0] != 0
    order = np.lexsort((np.arange(count), is_v6, datagrams.datagram_of_flow))
    names = ["octets", "packets", "source_port", "destination_port", "protocol", "tos", "input_interface", "output_interface"]
    names += [] if protocol == "sflow" else ["start", "end"]
    for name in names:
        assert np.array_equal(flows[name], columns[name][order]), name
    assert np.array_equal(flows["source_address"], columns["source_address"][order])
    assert np.array_equal(flows["destination_address"], columns["destination_address"][order])
    is_tcp = flows["protocol"] == 6
    assert np.array_equal(flows["tcp_flags"][is_tcp], columns["tcp_flags"][order][is_tcp])


@pytest.mark.parametrize("protocol", encode.PROTOCOLS)
@pytest.mark.parametrize("sampling", [2, 1000])
def test_an_announced_rate_is_found(protocol: str, sampling: int) -> None:
    datagrams = encode.encode(_flows(100, 4, protocol), protocol, sampling=sampling)
    decoded, rows = _decoded(datagrams, range(len(datagrams)))
    rates = decoded.flows["rate_numerator"] // decoded.flows["rate_denominator"]
    assert set(rates.tolist()) == {sampling}
    assert [(row.missing, row.faulted, row.waiting) for row in rows] == [(0, 0, 0)]


@pytest.mark.parametrize("protocol", encode.PROTOCOLS)
@pytest.mark.parametrize("seed", range(12))
def test_the_decoder_counts_what_the_manifest_says(protocol: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    loss, duplicate, reorder = rng.random(3) * rng.choice([0.05, 0.4])
    datagrams = encode.encode(_flows(1500, seed, protocol), protocol, templates_every=17, sampling=int(rng.choice([1, 50])),
                              first_sequence=int(rng.choice([0, 2**32 - 100])))
    delivery = network.perturb(datagrams, loss=loss, duplicate=duplicate, reorder=reorder, seed=seed)
    told = network.describe(datagrams, delivery, "192.0.2.1", 0, 1).document()
    decoded, rows = _decoded(datagrams, delivery.order)
    row = rows[0]
    assert len(rows) == 1
    assert told["collector"] == {
        "received": row.received, "flows": decoded.counts.flows, "octets": decoded.counts.octets,
        "duplicate": row.duplicate, "missing": row.missing, "reordered": row.reordered}
    assert (row.restarts, row.faulted, row.waiting) == (0, 0, 0)
    assert told["made"]["records"] == 1500
    arrived = ~delivery.lost[datagrams.datagram_of_flow]
    assert int(arrived.sum()) == decoded.counts.flows


def test_the_same_seed_makes_the_same_delivery() -> None:
    datagrams = encode.encode(_flows(2000, 1, "v9"), "v9")
    first, second, other = (network.perturb(datagrams, loss=0.1, duplicate=0.1, reorder=0.1, seed=n) for n in (1, 1, 2))
    assert np.array_equal(first.order, second.order)
    assert not np.array_equal(first.order, other.order)
    assert not first.lost[datagrams.is_template].any(), "templates arrive"


def test_what_a_protocol_cannot_carry_is_refused() -> None:
    columns = _flows(50, 1, "v9") | {"octets": np.full(50, 1000)}
    for protocol, changed, said in (
        ("v5", {}, "IPv4 only"), ("v7", {}, "not a protocol"),
        ("v5", _flows(50, 1, "v9", with_ipv6=False) | {"octets": np.full(50, 2**32)}, "2\\^32 octets"),
        ("sflow", {"octets": np.full(50, 70_000)}, "one packet"),
    ):
        with pytest.raises(UsageError, match=said):
            encode.encode({**columns, **changed}, protocol)
    with pytest.raises(UsageError, match="no flow"):
        encode.encode({name: values[:0] for name, values in columns.items()}, "v9")
    with pytest.raises(UsageError, match="between 0 and 1"):
        network.perturb(encode.encode(columns, "v9"), loss=1.5)
