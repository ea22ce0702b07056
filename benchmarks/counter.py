"""The limit: `python -m benchmarks.counter CORE COUNTS.bin` receives on a port that it prints, and only counts."""

from __future__ import annotations

import os
import socket
import sys

import numpy as np

from benchmarks import loops
from collector.kernels.sockets import DATAGRAM_MAX, NAME_SIZE

SLICE_NS = 100_000_000


def main(words: list[str]) -> int:
    core, path = words
    os.sched_setaffinity(0, {int(core)})
    counts = np.memmap(path, np.int64, "w+", shape=(8,))
    scratch = np.zeros((loops.BATCH, DATAGRAM_MAX + 1), np.uint8)
    names = np.zeros((loops.BATCH, NAME_SIZE), np.uint8)
    vectors = np.zeros((loops.BATCH, 2), np.uint64)
    messages = np.zeros((loops.BATCH, loops.WORDS_OF_MESSAGE), np.uint64)
    for m in range(loops.BATCH):
        vectors[m] = scratch.ctypes.data + m * scratch.strides[0], scratch.shape[1]
        messages[m, :4] = names.ctypes.data + m * NAME_SIZE, NAME_SIZE, vectors.ctypes.data + m * 16, 1
    moment, private = np.zeros(2, np.int64), np.zeros(8, np.int64)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        polls = np.array([one.fileno() | (loops.POLLIN << 32)], np.uint64)
        loops.count_only(one.fileno(), messages, polls, private, moment, 0)  # compiles
        print(one.getsockname()[1], flush=True)
        while True:  # until it is killed
            code = loops.count_only(one.fileno(), messages, polls, private, moment, SLICE_NS)
            counts[:] = private
            if code:
                return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
