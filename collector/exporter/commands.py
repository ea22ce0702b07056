"""`collect send`: random flows from a seed, sent as a router would send them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.exporter.network import add_up
from collector.exporter.send import parse_target, send_flows
from collector.exporter.stream import Tls, parse_stream, send_stream
from core import clock
from core.addresses import IPV4_MAPPED
from runtime import progress
from runtime.output import emit_object, say
from storage import files


def random_flows(count: int, seed: int, protocol: str, now: int) -> dict[str, NDArray[Any]]:
    """Flows that ended within the last minute, the same for the same seed but for the time."""
    rng = np.random.default_rng(seed)
    end = np.sort(now - rng.integers(0, 60_000, count))
    packets = rng.integers(1, 1000, count)
    octets = packets * rng.integers(64, 1500, count)
    start = end - rng.integers(0, 60_000, count)
    if protocol == "sflow":  # a sample is one packet
        packets, octets, start = np.ones(count, np.int64), rng.integers(64, 1500, count), end
    return {
        "start": start, "end": end, "octets": octets, "packets": packets,
        "source_address": _addresses(rng, count, b"\x0a"), "destination_address": _addresses(rng, count, b"\xc6\x33\x64"),
        "source_port": rng.integers(1024, 65536, count), "destination_port": rng.choice([53, 80, 443], count),
        "protocol": rng.choice([6, 17], count), "tcp_flags": np.full(count, 0x1B), "tos": np.zeros(count, np.int64),
        "input_interface": np.full(count, 10), "output_interface": np.full(count, 1),
    }


def _addresses(rng: np.random.Generator, count: int, network: bytes) -> NDArray[np.uint8]:
    address = np.tile(np.frombuffer(IPV4_MAPPED + network + bytes(4 - len(network)), np.uint8), (count, 1))
    free = 4 - len(network)
    address[:, 16 - free :] = rng.integers(1, 255, (count, free))
    return address


def send(to: str, protocol: str, count: int, *, rate: int, seed: int, loss: float, duplicate: float, reorder: float,
         source: str, sampling: int, domain: int, manifest: str, tls: Tls = Tls()) -> None:
    """Send, print what was sent, and write the manifest if one is asked for."""
    stream = parse_stream(to, protocol, tls)
    target = parse_target(to) if stream is None else ("", 0)
    columns = random_flows(count, seed, protocol, clock.now_ms())
    with progress.bar("sending", None, "datagrams") as advance:
        about: dict[str, Any] = {"source": source, "loss": loss, "duplicate": duplicate, "reorder": reorder, "seed": seed,
                                 "rate": rate, "domain": domain, "sampling": sampling, "advance": advance}
        done = send_flows(columns, protocol, target, **about) if stream is None else send_stream(columns, stream, **about)
    if manifest:
        files.write_whole(Path(manifest), json.dumps(add_up([done]), indent=1).encode())
        say(f"wrote {manifest}")
    emit_object(done.document())
