"""[radius] and [[radius_client]] of ratemill.toml: which access servers report to us, and how their users are services."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.addresses import IPV4_MAPPED, Prefix, parse_address, parse_prefix
from core.errors import SettingsError
from core.settings import Document, read_list, read_section, setting

SERVICES = ("user", "user_before_at", "class")
INPUTS = ("up", "down")


def _listen(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not an address and a port in quotes, such as \"0.0.0.0:1813\"")
    if value:
        split(value)
    return value


def _prefix(value: Any) -> Prefix:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not an address or a prefix in quotes")
    return parse_prefix(value)


def split(listen: str) -> tuple[str, int]:
    """'0.0.0.0:1813' or '[::]:1813' → host and port. Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"'{listen}' is not ADDRESS:PORT")
    host = host.removeprefix("[").removesuffix("]")
    parse_address(host)
    return host, int(port)


@dataclass(frozen=True)
class Radius:
    """[radius]: accounting of access servers, from which leases are made."""

    listen: str = setting("", what="ADDRESS:PORT of accounting, usually port 1813; empty: `ratemill run` starts no server.",
                          parse=_listen)
    lost_after_seconds: int = setting(
        7200, what="Silence after which a session without a Stop is over; more than two interim intervals. 0: never.",
        unit="s", lowest=0, highest=31 * 86_400)
    receive_buffer: int = setting(4 << 20, what="Receive buffer of the socket.", unit="octets", lowest=65_536, highest=1 << 30)


@dataclass(frozen=True)
class Client:
    """[[radius_client]]: an access server, or a network of them, with the secret that it shares with us."""

    address: Prefix = setting(what="Address or prefix that its packets come from.", parse=_prefix)
    secret: str = setting(what="The shared secret: { env = \"NAME\" } or { file = \"PATH\" }.")
    name: str = setting("", what="Name of the access server, instead of what its packets say.")
    realm: str = setting("", what="Realm of the addresses that it hands out.")
    service: str = setting("user", what="What names the service: the user name, the part before @, or the Class attribute.",
                           choices=SERVICES)
    input: str = setting("up", what="What its Acct-Input-Octets count: up, from the subscriber (RFC 2866), or down.",
                         choices=INPUTS)


@dataclass(frozen=True)
class RadiusSettings:
    """All that the server and its leases depend on."""

    radius: Radius
    clients: tuple[Client, ...]

    def client_of(self, address: bytes) -> Client | None:
        """The client with the longest prefix around an address; None: nobody we know."""
        number = int.from_bytes(address, "big")
        around = [one for one in self.clients if one.address.first <= number <= one.address.last
                  and (address[:12] == IPV4_MAPPED) == (one.address.address[:12] == IPV4_MAPPED)]
        return max(around, key=lambda one: one.address.length, default=None)


def from_document(document: Document) -> RadiusSettings:
    """Raises SettingsError."""
    settings = RadiusSettings(read_section(document, "radius", Radius), read_list(document, "radius_client", Client))
    addresses = [client.address for client in settings.clients]
    if len(set(addresses)) < len(addresses):
        raise SettingsError("two [[radius_client]] have one address", "leave out one of them")
    if any(not client.secret for client in settings.clients):
        raise SettingsError("a [[radius_client]] has an empty secret", "anybody could report sessions: give it one")
    return settings
