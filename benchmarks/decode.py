"""Decoding of a stored journal on one core, against copying the same octets (the memory's limit)."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Figure, median_seconds, tell
from collector import settings
from collector.decoder import Decoder
from collector.exporter import commands, encode
from core import clock
from core.addresses import parse_address

FLOWS = 240_000
BLOCK_DATAGRAMS = 2000


def run() -> None:
    """Flows a second for each protocol, scan and decode together."""
    for protocol in encode.PROTOCOLS:
        columns = commands.random_flows(FLOWS, 1, protocol, clock.now_ms())
        datagrams = encode.encode(columns, protocol, domain=1)
        blocks = _blocks([datagrams.payload(index) for index in range(len(datagrams))])
        octets = sum(block.size for block in blocks)

        def decode(blocks: list[NDArray[np.uint8]] = blocks) -> None:
            decoder = Decoder(settings.from_document({}))
            flows = sum(decoder.feed(block, number).counts.flows for number, block in enumerate(blocks))
            assert flows == FLOWS, (flows, FLOWS)

        decoding = median_seconds(decode)
        copying = median_seconds(lambda blocks=blocks: [block.copy() for block in blocks])
        tell(Figure("decode", f"{protocol} scan and decode, one core", FLOWS / decoding / 1e6, "M flows/s",
                    f"copying the same {octets / 1e6:.0f} MB", copying / decoding))  # fmt: skip


def _blocks(payloads: list[bytes]) -> list[NDArray[np.uint8]]:
    """Journal bodies, as the receiver would write them."""
    address, now = parse_address("192.0.2.1"), clock.now_ms()
    blocks = []
    for first in range(0, len(payloads), BLOCK_DATAGRAMS):
        body = bytearray()
        for payload in payloads[first : first + BLOCK_DATAGRAMS]:
            body += (
                struct.pack("<qIHHBBHI16s16s", now, len(payload), 2055, 2055, 17, 4, 0, 0, address, address) + payload
            )
            body += b"\x00" * (-len(body) % 8)
        blocks.append(np.frombuffer(bytes(body), np.uint8))
    return blocks
