"""[[metering]], [[realm]] and [infrastructure] of ratemill.toml: where traffic is counted and whose addresses they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.addresses import Prefix, parse_address, parse_prefix
from core.settings import Document, read_list, read_section, setting

FLOW_DIRECTIONS = ("ingress", "egress", "both")


def _address(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not an address in quotes")
    return parse_address(value)


def _prefixes(value: Any) -> tuple[Prefix, ...]:
    if not isinstance(value, list):
        raise ValueError("is not a list of prefixes")
    return tuple(parse_prefix(str(item)) for item in value)


def _interfaces(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(isinstance(item, int) and 0 <= item < 2**32 for item in value):
        raise ValueError("is not a list of interface indexes (0 to 4294967295)")
    return tuple(value)


@dataclass(frozen=True)
class Metering:
    """[[metering]]: one entry of the metering cut, which each billed packet crosses once."""

    exporter: bytes = setting(what="Address of the router.", parse=_address)
    interfaces: tuple[int, ...] = setting((), what="ifIndex list; empty: all interfaces.", parse=_interfaces)
    flow_direction: str = setting(
        "both",
        what="Which interface of a flow must be listed: input (ingress), output (egress) or either (both).",
        choices=FLOW_DIRECTIONS,
    )


@dataclass(frozen=True)
class Realm:
    """[[realm]]: the address space that a router, or some of its interfaces, belongs to."""

    name: str = setting(what="Name of the realm, as leases.csv writes it.")
    exporter: bytes = setting(what="Address of the router.", parse=_address)
    interfaces: tuple[int, ...] = setting((), what="ifIndex list; empty: the whole router.", parse=_interfaces)


@dataclass(frozen=True)
class Infrastructure:
    """[infrastructure]: the provider's own prefixes, which are no strangers."""

    prefixes: tuple[Prefix, ...] = setting((), what="Prefixes of routers, name servers and the like.", parse=_prefixes)


def metering(document: Document) -> tuple[Metering, ...]:
    return read_list(document, "metering", Metering)


def realms(document: Document) -> tuple[Realm, ...]:
    return read_list(document, "realm", Realm)


def infrastructure(document: Document) -> Infrastructure:
    return read_section(document, "infrastructure", Infrastructure)
