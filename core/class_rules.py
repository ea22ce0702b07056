"""The rules of traffic classes as a version of them is stored: a document of rules, and the prefixes of each, packed.

A rule names a class and conditions on a flow, seen from the service: the far end is the other end. All kinds of conditions
that a rule has must hold; of the values of one kind, one. Of the rules that hold, the highest priority wins, then the longest
prefix (counted on 128 bits, so an IPv4 /24 counts 120; a rule without prefixes counts 0), then the order of the document.
Aggregation writes versions; rating reads them again for `rate verify`.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.addresses import Prefix, format_address, parse_address

PORT_PROTOCOLS = (6, 17, 33, 132, 136)
"""TCP, UDP, DCCP, SCTP and UDP-Lite: a rule with ports holds for no other protocol, and never for port 0."""

DIRECTIONS = ("both", "up", "down")

Ranges = tuple[tuple[int, int], ...]


class Prefixes(NamedTuple):
    """Prefixes as arrays, ordered by address and then length, none twice."""

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    length: NDArray[np.uint8]  # of 128

    def prefix(self, index: int) -> Prefix:
        address = int(self.high[index]) << 64 | int(self.low[index])
        return Prefix(address.to_bytes(16, "big"), int(self.length[index]))


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; an empty condition always holds. Ranges are inclusive, ordered, and do not touch."""

    name: str
    class_: str
    priority: int
    direction: str = "both"
    as_numbers: Ranges = ()  # of the far end
    dscp: tuple[int, ...] = ()
    protocols: tuple[int, ...] = ()
    ports: Ranges = ()  # of the far end
    near_ports: Ranges = ()
    interfaces: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """(exporter, interfaces of the far side: where a flow to the service came in, where one from it went out; none: all)"""
    has_prefixes: bool = False

    @property
    def is_conditional(self) -> bool:
        """Whether it asks for anything beside a prefix."""
        return bool(self.as_numbers or self.dscp or self.protocols or self.ports or self.near_ports or self.interfaces
                    or self.direction != "both")


NO_PREFIXES = Prefixes(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint8))


def pack_addresses(addresses: bytes | bytearray, lengths: bytes | bytearray) -> Prefixes:
    """16 octets and one length a prefix, in any order, also twice → arrays."""
    words = np.frombuffer(addresses, ">u8").reshape(-1, 2).astype(np.uint64)
    length = np.frombuffer(lengths, np.uint8)
    order = np.lexsort((length, words[:, 1], words[:, 0]))
    high, low, length = words[order, 0], words[order, 1], length[order]
    new = np.ones(len(high), np.bool_)
    new[1:] = (np.diff(high) != 0) | (np.diff(low) != 0) | (np.diff(length) != 0)
    return Prefixes(high[new], low[new], length[new])


def from_prefixes(prefixes: Iterable[Prefix]) -> Prefixes:
    listed = list(prefixes)
    return pack_addresses(b"".join(p.address for p in listed), bytes(p.length for p in listed))


def dump_prefixes(prefixes: Prefixes) -> bytes:
    """As `class_prefixes.prefixes` holds them."""
    plain = prefixes.high.astype(">u8").tobytes() + prefixes.low.astype(">u8").tobytes() + prefixes.length.tobytes()
    return zlib.compress(plain, 1)


def load_prefixes(packed: bytes) -> Prefixes:
    plain = zlib.decompress(packed)
    count = len(plain) // 17
    words = np.frombuffer(plain[: 16 * count], ">u8").astype(np.uint64)
    return Prefixes(words[:count].copy(), words[count:].copy(), np.frombuffer(plain[16 * count :], np.uint8))


def document(rules: Sequence[Rule]) -> str:
    """The rules as the one JSON text that has their content."""
    return json.dumps([_plain(rule) for rule in rules], ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _plain(rule: Rule) -> dict[str, Any]:
    return {name.rstrip("_"): value for name, value in asdict(rule).items()}


def parse(text: str) -> list[Rule]:
    """The rules that `class_version.document` holds."""
    return [_rule(value) for value in json.loads(text)]


def _rule(value: Mapping[str, Any]) -> Rule:
    return Rule(
        value["name"], value["class"], value["priority"], value["direction"], _ranges(value["as_numbers"]),
        tuple(value["dscp"]), tuple(value["protocols"]), _ranges(value["ports"]), _ranges(value["near_ports"]),
        tuple((exporter, tuple(interfaces)) for exporter, interfaces in value["interfaces"]), value["has_prefixes"])


def _ranges(pairs: Iterable[Sequence[int]]) -> Ranges:
    return tuple((first, last) for first, last in pairs)


def digest(rules: Sequence[Rule], prefixes: Sequence[Prefixes]) -> str:
    """Of everything that a version says."""
    found = hashlib.sha256(document(rules).encode())
    for some in prefixes:
        found.update(some.high.astype("<u8").tobytes() + some.low.astype("<u8").tobytes() + some.length.tobytes() + b"|")
    return found.hexdigest()


def class_names(text: str) -> set[str]:
    """The classes that a document can give."""
    return {value["class"] for value in json.loads(text)}


def exporter_text(address: str) -> str:
    """An exporter's address in the one form that documents hold. Raises ValueError."""
    return format_address(parse_address(address))


def merged(pairs: Iterable[tuple[int, int]]) -> Ranges:
    """Ranges in order, those that overlap or touch joined."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(pairs):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)
