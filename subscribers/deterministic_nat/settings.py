"""[[deterministic_nat]] of ratemill.toml: the formula by which a NAT hands out blocks of ports (RFC 7422)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.addresses import Prefix, parse_prefix
from core.errors import SettingsError
from core.periods import OPEN_END, OPEN_START, parse_instant, to_ms
from core.settings import Document, read_list, setting

ORDERS = ("address_first", "pool_first")
INSIDE_MAX = 1 << 22
"""Inside addresses of one formula."""
PORTS = 65_536


def _prefixes(value: Any) -> tuple[Prefix, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise ValueError('is not a list of prefixes, such as ["100.64.0.0/22"]')
    return tuple(parse_prefix(item) for item in value)


def _instant(value: Any) -> int:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value} lacks its offset from UTC, such as 2026-09-01T00:00:00Z")
        return to_ms(value)
    return parse_instant(str(value))


@dataclass(frozen=True)
class DeterministicNat:
    """[[deterministic_nat]]: inside address number i has one block of outside ports, by a formula (RFC 7422)."""

    inside: tuple[Prefix, ...] = setting(what="Inside prefixes, numbered in this order from their first address.",
                                         parse=_prefixes)
    outside: tuple[Prefix, ...] = setting(what="Outside prefixes, numbered in this order from their first address.",
                                          parse=_prefixes)
    inside_realm: str = setting(what="Realm of the inside addresses, as leases.csv writes it.")
    block_size: int = setting(what="Ports of one inside address.", unit="ports", lowest=1, highest=PORTS)
    outside_realm: str = setting("", what="Realm of the outside addresses, in which traffic is metered.")
    port_first: int = setting(1024, what="First port that is handed out; those below are reserved.", lowest=0,
                              highest=PORTS - 1)
    port_last: int = setting(65_535, what="Last port that is handed out by the formula; a dynamic pool may lie behind it.",
                             lowest=0, highest=PORTS - 1)
    order: str = setting("address_first", what="address_first: all blocks of an outside address, then the next address; "
                         "pool_first: the first block of each outside address, then the second.", choices=ORDERS)
    start: int | None = setting(None, what="Instant from which the NAT works like this; without: always.", parse=_instant)
    end: int | None = setting(None, what="Instant at which it no longer does.", parse=_instant)

    @property
    def start_ms(self) -> int:
        return OPEN_START if self.start is None else self.start

    @property
    def end_ms(self) -> int:
        return OPEN_END if self.end is None else self.end

    @property
    def blocks(self) -> int:
        """Whole blocks of an outside address."""
        return max(0, (self.port_last - self.port_first + 1) // self.block_size)


def size(prefixes: tuple[Prefix, ...]) -> int:
    """How many addresses there are."""
    return sum(prefix.last - prefix.first + 1 for prefix in prefixes)


def from_document(document: Document) -> tuple[DeterministicNat, ...]:
    """Raises SettingsError for formulas that would give one port to two, or none to somebody."""
    found = read_list(document, "deterministic_nat", DeterministicNat)
    for number, nat in enumerate(found, 1):
        _check(nat, f"[[deterministic_nat]] {number}")
        for other, before in enumerate(found[: number - 1], 1):
            is_same_time = before.start_ms < nat.end_ms and nat.start_ms < before.end_ms
            if before.outside_realm == nat.outside_realm and is_same_time and any(
                    _share(one, two) for one in before.outside for two in nat.outside):
                raise SettingsError(f"[[deterministic_nat]] {other} and {number} have outside addresses in common at one time",
                                    "end the one before the other starts, or give each its own addresses")
    return found


def _check(nat: DeterministicNat, name: str) -> None:
    if not nat.inside_realm or nat.inside_realm == nat.outside_realm:
        raise SettingsError(f"{name}: the inside needs a realm of its own",
                            "name it in inside_realm, and in the column `realm` of leases.csv")
    if nat.start_ms >= nat.end_ms:
        raise SettingsError(f"{name}: end is not after start", "correct one of them")
    if not nat.blocks:
        raise SettingsError(f"{name}: no block of {nat.block_size} ports fits between {nat.port_first} and {nat.port_last}",
                            "make block_size smaller")
    for side, prefixes in (("inside", nat.inside), ("outside", nat.outside)):
        for number, one in enumerate(prefixes):
            if any(_share(one, two) for two in prefixes[:number]):
                raise SettingsError(f"{name}: {side} names an address twice", "leave out one of the prefixes")
    inside, room = size(nat.inside), size(nat.outside) * nat.blocks
    if inside > INSIDE_MAX:
        raise SettingsError(f"{name}: {inside} inside addresses are more than {INSIDE_MAX}", "write several entries")
    if inside > room:
        raise SettingsError(f"{name}: {inside} inside addresses, but only {room} blocks of {nat.block_size} ports",
                            "make block_size smaller, or add outside addresses")


def _share(one: Prefix, two: Prefix) -> bool:
    return one.first <= two.last and two.first <= one.last
