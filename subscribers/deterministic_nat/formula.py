"""The formula: inside address ↔ outside address and block of ports (RFC 7422 §2; contiguous blocks).

Inside addresses are numbered i = 0, 1, … in the order of their prefixes, outside addresses likewise, 0 to n - 1, each with b
blocks. In the order address_first, i has block i mod b of outside address i div b; pool_first, block i div n of address
i mod n. Block k has the ports from port_first + k * block_size on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from core.addresses import Prefix
from subscribers.deterministic_nat.settings import DeterministicNat, size


@dataclass(frozen=True, slots=True)
class Block:
    """A block of ports of an outside address."""

    outside: bytes
    port_first: int
    port_last: int


def block_of(nat: DeterministicNat, inside: bytes) -> Block | None:
    """The block of an inside address; None: it is not one of this NAT."""
    number = _number(nat.inside, inside)
    if number is None:
        return None
    if nat.order == "address_first":
        address, block = divmod(number, nat.blocks)
    else:
        block, address = divmod(number, size(nat.outside))
    first = nat.port_first + block * nat.block_size
    return Block(_address(nat.outside, address), first, first + nat.block_size - 1)


def inside_of(nat: DeterministicNat, outside: bytes, port: int) -> bytes | None:
    """The inside address behind an outside address and port; None: the formula hands them to nobody."""
    address = _number(nat.outside, outside)
    if address is None or port < nat.port_first:
        return None
    block = (port - nat.port_first) // nat.block_size
    if block >= nat.blocks:
        return None
    number = address * nat.blocks + block if nat.order == "address_first" else block * size(nat.outside) + address
    return _address(nat.inside, number) if number < size(nat.inside) else None


def insides_within(nat: DeterministicNat, prefix: Prefix) -> Iterator[bytes]:
    """The inside addresses of this NAT that a prefix covers."""
    for inside in nat.inside:
        first, last = max(inside.first, prefix.first), min(inside.last, prefix.last)
        for number in range(first, last + 1):
            yield number.to_bytes(16, "big")


def _number(prefixes: tuple[Prefix, ...], address: bytes) -> int | None:
    wanted, before = int.from_bytes(address, "big"), 0
    for prefix in prefixes:
        if prefix.first <= wanted <= prefix.last:
            return before + wanted - prefix.first
        before += prefix.last - prefix.first + 1
    return None


def _address(prefixes: tuple[Prefix, ...], number: int) -> bytes:
    for prefix in prefixes:
        count = prefix.last - prefix.first + 1
        if number < count:
            return (prefix.first + number).to_bytes(16, "big")
        number -= count
    raise AssertionError("the settings have room for every number")
