"""The kernels as plain Python: integers overflow differently there, so both must say the same."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

from exports import (
    BASIC,
    basic,
    ethernet,
    flow_sample,
    framed,
    ipfix,
    ipv4_packet,
    raw_header,
    sflow,
    template,
    v5,
    v5_record,
)
from harness import ROOT, shared
from journal_bodies import Datagram, body_of

from collector.decoder import Decoder
from collector.settings import CollectorSettings

SMALL = 300


def digest_of_decoding() -> str:
    """A hash over everything that comes of one datagram of each kind and the small hostile vectors."""
    payloads = [v5([v5_record(first=2**32 - 1)]), ipfix(framed(256, basic()), framed(2, template(256, BASIC))),
                ipfix(framed(2, template(300, [*BASIC, (352, 16), (152, 8)])), framed(300, b"\xff" * 40), sequence=1),
                sflow(flow_sample(raw_header(ethernet(ipv4_packet()))))]
    payloads += [path.read_bytes() for path in sorted(shared("hostile").glob("*.bin")) if path.stat().st_size < SMALL]
    decoded = Decoder(CollectorSettings()).feed(body_of([Datagram(payload) for payload in payloads]), 0)
    digest = hashlib.sha256(repr((decoded.counts, decoded.faults)).encode())
    for name, column in decoded.flows.items():
        digest.update(name.encode() + column.tobytes())
    return digest.hexdigest()


def test_compiled_and_plain_kernels_agree() -> None:
    script = ("import numpy; numpy.seterr(over='ignore')\n"  # 64-bit hashes wrap on purpose
              "from oracles.collector.test_without_compilation import digest_of_decoding\nprint(digest_of_decoding())")
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == digest_of_decoding()
