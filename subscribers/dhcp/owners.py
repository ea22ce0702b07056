"""Whose client it is: the service that has the name of one of the client's identifiers."""

from __future__ import annotations

import re

import sqlalchemy as sa

from core import tables
from subscribers.dhcp.entries import Client, Kind

_PAIRS = re.compile(r"[0-9a-f]{1,2}(?::[0-9a-f]{1,2})+")
_MAC = re.compile(r"[0-9a-f]{2}(?:-[0-9a-f]{2}){5,}|[0-9a-f]{12}|[0-9a-f]{4}(?:\.[0-9a-f]{4}){2}")
_ETHERNET = 1


def normal(name: str) -> str:
    """The one form of a name: octets in lower case with colons (AA-BB-CC-DD-EE-FF, aabb.ccdd.eeff, aabbccddeeff →
    aa:bb:cc:dd:ee:ff); what is no octets stays as it is."""
    text = name.strip().lower()
    if _PAIRS.fullmatch(text):
        return ":".join(f"{int(pair, 16):02x}" for pair in text.split(":"))
    if _MAC.fullmatch(text):
        return bytes.fromhex(text.replace("-", "").replace(".", "")).hex(":")
    return name.strip()


def names(kind: str, value: bytes) -> list[str]:
    """The normal names that an identifier may have as a service."""
    found = [value.hex(":")]
    shown = text(value)
    if shown is not None:
        found.append(normal(shown))
    if kind == Kind.CLIENT_ID and len(value) == 7 and value[0] == _ETHERNET:
        found.append(value[1:].hex(":"))  # RFC 2132 §9.14: a hardware type and address
    if kind in (Kind.CIRCUIT_ID, Kind.REMOTE_ID) and len(value) > 2 and value[0] in (0, 1) and value[1] == len(value) - 2:
        found += names(Kind.HARDWARE, value[2:])  # many access switches put a type and a length before it
    return list(dict.fromkeys(found))


def text(value: bytes) -> str | None:
    """Octets as printable text; None if they are none."""
    try:
        shown = value.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return shown if shown.isprintable() and shown.strip() else None


def described(client: Client) -> str:
    """A client for people: 'hardware aa:bb:cc:dd:ee:ff, circuit-id eth0/1'."""
    parts = []
    for kind, value in client.identifiers:
        octets = bytes.fromhex(value)
        shown = None if kind in (Kind.HARDWARE, Kind.DUID) else text(octets)
        parts.append(f"{kind} {shown or octets.hex(':')}")
    return ", ".join(parts) or "a client without identifier"


class Owners:
    """All services by their normal name."""

    def __init__(self, connection: sa.Connection) -> None:
        table = tables.service
        self._services: dict[str, list[tuple[int, str]]] = {}
        for number, name in connection.execute(sa.select(table.c.id, table.c.service).order_by(table.c.id)):
            self._services.setdefault(normal(name), []).append((number, name))

    def of(self, client: Client) -> tuple[int | None, str]:
        """(row id of the service, "") or (None, why there is none). The first identifier that is a service counts."""
        for kind, value in client.identifiers:
            for name in names(kind, bytes.fromhex(value)):
                services = self._services.get(name, [])
                if len(services) == 1:
                    return services[0][0], ""
                if services:
                    return None, f"services {' and '.join(repr(one[1]) for one in services)} have the same {kind}"
        return None, "no service has the name of one of its identifiers"
