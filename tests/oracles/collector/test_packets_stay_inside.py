"""Nothing is read outside of a sampled packet, a sample or a record, wherever it is cut off.

Compiled, octets around the packet change and the result does not. As plain Python, the data itself raises at an index
outside; that run must find what the compiled one finds.
"""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import frames as f
import numpy as np
import pytest
from exports import framed, ipfix, template
from harness import ROOT
from journal_bodies import Datagram, body_of

from collector.decoder import Decoder
from collector.kernels import counter_samples, packets, samples, sections
from collector.settings import Collector, CollectorSettings

TCP = f.tcp()
PLAIN, PLAIN6 = f.ipv4(TCP, options=b"\1" * 8), f.ipv6(f.extension(51) + f.authentication(44) + f.fragment6(6) + TCP, 0)
ROUTE = b"\x08\0\0\x04\1\2\3\4" + bytes(4)
PACKETS = [
    (packets.ETHERNET, f.ethernet(PLAIN, tags=(0x88A8, 0x8100))), (packets.ETHERNET, f.ethernet(PLAIN6, 0x86DD)),
    (packets.ETHERNET, f.ethernet(f.mpls(PLAIN, 17, 18), 0x8847)),
    (packets.ETHERNET, f.ethernet(f.mpls(bytes(4) + f.ethernet(PLAIN), 17), 0x8848)),
    (packets.ETHERNET, f.ethernet(f.pppoe(PLAIN6, 0x57), 0x8864)), (packets.ETHERNET, f.ethernet(f.llc(PLAIN), 48)),
    (packets.ETHERNET, f.ethernet(f.tunnel(f.vxlan(f.ethernet(PLAIN6, 0x86DD, tags=(0x8100,))), 17))),
    (packets.ETHERNET, f.ethernet(f.tunnel(f.gre(PLAIN, key=True, sequence=True, sums=True, routing=ROUTE), 47))),
    (packets.ETHERNET, f.ethernet(f.tunnel(f.gre(f.ethernet(f.mpls(PLAIN, 3), 0x8847), 0x6558), 47))),
    (packets.ETHERNET, f.ethernet(f.tunnel(f.ipv6(f.ipv4(PLAIN, 4), 4), 41))), (packets.ETHERNET, b"\x81\x00" * 90),
    (packets.MPLS, f.mpls(PLAIN, 17)), (packets.MPLS, bytes(200)), (packets.MPLS_PAYLOAD, bytes(4) + f.ethernet(PLAIN)),
    (packets.PPP, b"\xff\x03\x00\x21" + PLAIN), (packets.PPP, b"\x21" + PLAIN), (packets.LLC, f.llc(PLAIN)),
    (packets.WIFI, f.wifi(f.ethernet(f.llc(PLAIN), 48), 0x88, 0x83, quality=b"\x80\0" + bytes(4))),
    (packets.IPV4, b"\x4f" + PLAIN[1:]), (packets.IPV6, PLAIN6), (packets.IPV6, b"\x60" + b"\x00\xff" * 70),
]


def cuts() -> Iterator[tuple[int, bytes, int]]:
    """Every packet at every length, with both settings."""
    for kind, packet in PACKETS:
        for size in range(len(packet) + 1):
            for inner in (0, 1):
                yield kind, packet[:size], inner


@pytest.mark.parametrize("guard", [b"\0", b"\xff", b"\x45", b"\x60\x11\x04\x2f"])
def test_octets_around_a_packet_do_not_matter(guard: bytes) -> None:
    one, two = np.zeros(packets.FOUND, np.int64), np.zeros(packets.FOUND, np.int64)
    for kind, packet, inner in cuts():
        around = np.frombuffer(guard * (80 // len(guard)) + packet + guard * (80 // len(guard)), np.uint8).copy()
        alone = np.frombuffer(bytes(80) + packet, np.uint8).copy()
        one[:] = two[:] = 0
        packets.read_packet(around, 80, 80 + len(packet), kind, len(packet), inner, one)
        packets.read_packet(alone, 80, 80 + len(packet), kind, len(packet), inner, two)
        assert one.tolist() == two.tolist()


class Fenced:
    """Octets of which only [first, stop) may be read."""

    def __init__(self, data: Any, first: int, stop: int) -> None:
        self._data, self._first, self._stop = data, first, stop

    def __getitem__(self, at: int) -> Any:
        assert self._first <= at < self._stop, f"read at {at}, outside [{self._first}, {self._stop})"
        return self._data[at]


def sflow_datagram() -> bytes:
    header = f.raw_header(f.ethernet(f.tunnel(f.gre(PLAIN), 47)))
    gateway = struct.pack(">I4sIIIIIIII", 1, b"\1\2\3\4", 65000, 65001, 65002, 1, 2, 2, 65010, 65011)
    router = f.record(1002, struct.pack(">I16sII", 2, bytes(range(16)), 24, 24))
    counters = f.interface_counters(7, 10**12, 2**63)
    return f.sflow(
        f.flow_sample(f.record(1001, bytes(16)), header, router, f.record(1003, gateway)),
        f.counter_sample(f.record(2, bytes(52)), counters), f.expanded_counter_sample(counters, f.interface_counters(8, 1, 2)),
        f.drop_sample(header), f.expanded_flow_sample(f.record(3, bytes(range(32))), header),
        f.flow_sample(f.record(4, bytes(56))))


SECTIONS = [(10, 4), (315, 65535), (312, 2), (2, 4)]


def ipfix_message(section: bytes) -> bytes:
    body = struct.pack(">IB", 3, len(section)) + section + struct.pack(">HI", 1500, 2)
    long = struct.pack(">IBH", 4, 255, len(section)) + section + struct.pack(">HI", 1500, 2)
    return ipfix(framed(2, template(256, SECTIONS)), framed(256, body, long))


def datagrams() -> Iterator[bytes]:
    whole = sflow_datagram()
    yield from (whole[:size] for size in range(len(whole) + 1))
    frame = PACKETS[7][1]
    message = ipfix_message(frame)
    yield from (ipfix_message(frame[:size]) for size in range(0, len(frame), 5))
    yield from (message[:size] for size in range(16, len(message), 3))
    yield whole.replace(struct.pack(">I", len(frame)), b"\xff\xff\xff\xff")


def digest_of_all(fence: bool) -> str:
    """A hash over what is found in every packet and datagram."""
    digest = hashlib.sha256()
    found = np.zeros(packets.FOUND, np.int64)
    for kind, packet, inner in cuts():
        data: Any = np.frombuffer(packet + b"\0", np.uint8).copy()
        found[:] = 0
        packets.read_packet(Fenced(data, 0, len(packet)) if fence else data, 0, len(packet), kind, 1500, inner, found)
        digest.update(found.tobytes())
    settings = CollectorSettings(collector=Collector(tunnels="inner"))
    for payload in datagrams():
        with Fences(56, 56 + len(payload) if fence else 0):
            decoded = Decoder(settings).feed(body_of([Datagram(payload)]), 0)
        digest.update(repr((decoded.counts, decoded.faults)).encode())
        for columns in (decoded.flows, decoded.interface_counters):
            digest.update(b"".join(name.encode() + column.tobytes() for name, column in columns.items()))
    return digest.hexdigest()


class Fences:
    """While it lasts, the kernels of samples get data that may only be read in [first, stop); stop 0: no fence."""

    KERNELS = ((samples, "decode_samples"), (sections, "decode_packets"), (counter_samples, "decode_counters"))

    def __init__(self, first: int, stop: int) -> None:
        self._first, self._stop = first, stop
        self._kept = [(module, name, getattr(module, name)) for module, name in self.KERNELS]

    def __enter__(self) -> None:
        if self._stop:
            for module, name, kernel in self._kept:
                setattr(module, name, self._fenced(kernel))

    def __exit__(self, *_: object) -> None:
        for module, name, kernel in self._kept:
            setattr(module, name, kernel)

    def _fenced(self, kernel: Any) -> Any:
        return lambda data, *rest: kernel(Fenced(data, self._first, self._stop), *rest)


def test_plain_kernels_never_read_outside_and_find_what_compiled_ones_find() -> None:
    script = ("import numpy; numpy.seterr(over='ignore')\n"  # 64-bit hashes wrap on purpose
              "from oracles.collector.test_packets_stay_inside import digest_of_all\nprint(digest_of_all(True))")
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True,
                          timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == digest_of_all(False)
