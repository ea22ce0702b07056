"""A process that sends: `python -m benchmarks.sender TRAFFIC.npz PORT CORE SEGMENTS`, then a JSON line for each stretch.

A line `{"datagrams": N, "rate": R, "burst": B}` is answered, when all went out, by one with what was sent and how long it took.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import numpy as np

from benchmarks import loops
from benchmarks.traffic import Traffic

_UDP_SEGMENT = 103


class Sender:
    """A stream of one exporter."""

    def __init__(self, traffic: Traffic, port: int, segments: int) -> None:
        self._traffic, self._segments = traffic, segments
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        if segments > 1:
            self._socket.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, int(traffic.sizes.max()))
        self._socket.connect(("127.0.0.1", port))
        self._octets = traffic.octets.copy()
        self._vectors = np.zeros((loops.BATCH, 2), np.uint64)
        self._messages = np.zeros((loops.BATCH, loops.WORDS_OF_MESSAGE), np.uint64)
        self._messages[:, 2] = self._vectors.ctypes.data + 16 * np.arange(loops.BATCH)
        self._messages[:, 3] = 1
        self._state, self._moment = np.zeros(8, np.int64), np.zeros(2, np.int64)
        self.send(0, 0, 1)  # compiles

    def send(self, datagrams: int, rate: int, burst: int) -> dict[str, float]:
        before = int(self._state[loops.SENT])
        code = loops.transmit(
            self._socket.fileno(), self._octets, self._traffic.starts, self._traffic.sizes, self._traffic.sequence_at,
            self._traffic.units, self._segments, self._messages, self._vectors, self._state, self._moment, rate, burst,
            datagrams)  # fmt: skip
        if code:
            raise OSError(code, os.strerror(code))
        return {"datagrams": datagrams, "records": self._traffic.records_of(datagrams, before),
                "seconds": int(self._state[loops.ELAPSED_NS]) / 1e9, "refused": int(self._state[loops.REFUSED])}  # fmt: skip


def main(words: list[str]) -> int:
    path, port, core, segments = words
    os.sched_setaffinity(0, {int(core)})
    sender = Sender(Traffic.load(Path(path)), int(port), int(segments))
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(sender.send(asked["datagrams"], asked["rate"], asked["burst"])), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
