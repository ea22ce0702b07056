"""Feeds datagrams to a decoder and looks at what came of them, for the decoder's tests."""

from __future__ import annotations

from typing import Any

from exports import NOW_S
from journal_bodies import Datagram, body_of

from collector.decoder import Decoded, Decoder
from collector.settings import CollectorSettings

NOW = NOW_S * 1000


def datagrams_of(*payloads: bytes | Datagram, source: str = "192.0.2.1", received: int = NOW) -> list[Datagram]:
    return [one if isinstance(one, Datagram) else Datagram(one, received, source) for one in payloads]


def feed(decoder: Decoder, *payloads: bytes | Datagram, block: int = 0, **about: Any) -> Decoded:
    return decoder.feed(body_of(datagrams_of(*payloads, **about)), block)


def decode(*payloads: bytes | Datagram, settings: CollectorSettings | None = None, **about: Any) -> Decoded:
    return feed(Decoder(settings or CollectorSettings()), *payloads, **about)


def kinds(decoded: Decoded) -> dict[str, int]:
    found: dict[str, int] = {}
    for _, _, kind, count in decoded.faults:
        found[kind.label] = found.get(kind.label, 0) + count
    return found


def column(decoded: Decoded, name: str) -> list[Any]:
    return list(decoded.flows[name].tolist())
