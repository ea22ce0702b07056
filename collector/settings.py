"""What the operator may set about receiving and decoding: [collector], [sampling], [time] and [[exporter]]."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from collector import registry
from collector.layout import MEMBERS_MAX
from core.addresses import parse_address
from core.errors import SettingsError
from core.settings import Document, instant_setting, read_list, read_section, setting
from storage.home import Home


def address_setting(value: Any) -> bytes:
    """An IP address as text → 16 bytes."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not an IP address in quotes")
    return parse_address(value)


def share_setting(value: Any) -> Fraction:
    """A percentage from 0 to 100, exact to what is written: '99.5', 99.5 or 99."""
    text = repr(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch(r"\d{1,3}(\.\d{1,6})?", text) or Fraction(text) > 100:
        raise ValueError(f"{value!r} is not a percentage from 0 to 100, such as \"99.5\"")
    return Fraction(text)


def collector_id(value: Any) -> str:
    """A short name: letters, digits and `-`; `replay` belongs to replays."""
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,15}", value):
        raise ValueError(f"{value!r} is not a name of 1 to 16 lower-case letters, digits and '-'")
    if value == "replay" or value.startswith("replay-"):
        raise ValueError(f"'{value}' is taken: journals of replays have this name")
    return value


def domain_list(value: Any) -> tuple[int, ...]:
    """A list of observation domains."""
    if not isinstance(value, list) or not all(type(item) is int and 0 <= item < 2**32 for item in value):
        raise ValueError("is not a list of observation domains (0 to 4294967295)")
    if len(value) > DOMAINS_MAX:
        raise ValueError(f"names {len(value)} domains, at most {DOMAINS_MAX} are told apart: leave it empty for all")
    return tuple(dict.fromkeys(value))


DOMAINS_MAX = 1024
"""Domains that one [[exporter]] may name."""


@dataclass(frozen=True)
class Collector:
    """[collector]: receiving, and bounds of the decoder."""

    id: str = setting("main", what="Name of this collector among several; of its journal and its status.", parse=collector_id)
    listen: tuple[str, ...] = setting(
        ("0.0.0.0:2055", "[::]:2055"),
        what="Where to listen: ADDRESS:PORT (UDP, every protocol), tcp://ADDRESS:PORT or tls://ADDRESS:PORT (IPFIX).")
    tls_certificate: str = setting("", what="PEM file of the certificate (chain) shown on tls://; relative to the home.")
    tls_key: str = setting("", what="PEM file of its private key, without a passphrase.")
    tls_client_ca: str = setting("", what="PEM file of the CAs whose clients may send over TLS; empty: anybody may.")
    connections_max: int = setting(256, what="TCP and TLS connections at once.", unit="connections", lowest=1, highest=16384)
    connections_per_address_max: int = setting(32, what="Of one address.", unit="connections", lowest=1, highest=16384)
    connection_idle_seconds_max: int = setting(3600, what="A connection that is silent for longer is closed.", unit="s",
                                               lowest=1, highest=86400 * 7)
    handshake_seconds_max: int = setting(10, what="Longest TLS handshake.", unit="s", lowest=1, highest=600)
    connection_octets_total_max: int = setting(
        16 * 2**20, what="Unfinished messages of all connections together; of one it is 64 KiB.", unit="octets",
        lowest=2**16, highest=2**30)
    exporter_key: str = setting(
        "address", what="What tells exporters over UDP apart: behind a NAT that hides several, the source port as well.",
        choices=("address", "address_port"))
    ports_per_exporter_max: int = setting(
        1024, what="Source ports of one address told apart (address_port); those idle for longest are forgotten.",
        unit="ports", lowest=1, highest=65536)
    socket_buffer: int = setting(64 * 2**20, what="Receive buffer asked of the kernel for each socket.", unit="octets",
                                 lowest=2**16, highest=2**30)
    journal_sync_ms: int = setting(200, what="Longest time until a received datagram is durable.", unit="ms", lowest=1,
                                   highest=10_000)
    journal_keep_hours: int = setting(24, what="How long datagrams are kept after their flows are stored.", unit="h",
                                      lowest=0, highest=24 * 366)
    disk_reserve: int | None = setting(
        None, what="Space kept free: below it no datagram is taken, below twice as much only the journal is written; none: "
        "2^30, or a twentieth of a smaller disk.", unit="octets", lowest=0, highest=2**50)
    disk_warning: int | None = setting(
        None, what="Free space below which the collector says so, at least twice the reserve; none: four times the reserve.",
        unit="octets", lowest=0, highest=2**50)
    segment_seconds: int = setting(10, what="Longest time until decoded flows are stored.", unit="s", lowest=1,
                                   highest=3600)

    threads: int = setting(2, what="With 2, flows are stored while the next ones are decoded; on a single processor it is 1.",
                           unit="threads", lowest=1, highest=2)
    compression: str = setting("lz4", what="How the files of decoded flows are compressed.", choices=("lz4", "none"))

    tunnels: str = setting(
        "outer", choices=("outer", "inner"),
        what="Sampled packets in VXLAN, GRE, IPIP, 6in4: whose addresses, ports and octets make the flow.")
    unknown_exporters: str = setting(
        "accept", what="What to do with datagrams of exporters that no [[exporter]] names: decode them, keep them until "
        "`ratemill exporters admit`, or refuse them.", choices=("accept", "quarantine", "refuse"))
    quarantine_octets_max: int = setting(256 * 2**20, what="Datagrams of unknown exporters kept; the oldest go first.",
                                         unit="octets", lowest=2**20, highest=2**40)
    datagrams_per_second_max: int = setting(0, what="Datagrams a second taken of one exporter, by arrival; 0: any number.",
                                            unit="datagrams", lowest=0, highest=10**8)

    records_per_datagram_max: int = setting(4096, what="Records read of one datagram; the rest is a fault.",
                                            unit="records", lowest=1, highest=65536)
    domains_max: int = setting(65536, what="Exporters and domains told apart.", unit="domains", lowest=1, highest=2**24)
    templates_max: int = setting(65536, what="Templates kept.", unit="templates", lowest=1, highest=2**24)
    template_fields_max: int = setting(1024, what="Fields of one template.", unit="fields", lowest=1, highest=16384)
    samplers_max: int = setting(65536, what="Samplers kept.", unit="samplers", lowest=1, highest=2**24)
    waiting_octets_max: int = setting(16 * 2**20, what="Data kept until its template comes.", unit="octets", lowest=0,
                                      highest=2**31)
    waiting_seconds_max: int = setting(600, what="How long data waits for its template.", unit="s", lowest=0)
    duplicate_window: int = setting(65536, what="Datagrams of a domain among which a copy is known.", unit="datagrams",
                                    lowest=0, highest=2**20)
    duplicate_seconds: int = setting(600, what="Arrival time within which a copy is known.", unit="s", lowest=0,
                                     highest=86400)
    sightings_max: int = setting(2**22, what="Datagrams of all domains together remembered against copies.",
                                 unit="datagrams", lowest=1024, highest=2**26)


@dataclass(frozen=True)
class Sampling:
    """[sampling]: flows of exporters that announce no rate."""

    unannounced: str = setting("assume_1", what="What to do with a flow whose sampling rate nobody announced.",
                               choices=("assume_1", "quarantine", "reject"))


@dataclass(frozen=True)
class Time:
    """[time]: whose clock is believed."""

    skew_seconds_max: int = setting(600, what="Largest difference of an exporter's clock from ours; 0: believe it.",
                                    unit="s", lowest=0, highest=2**31)


@dataclass(frozen=True)
class Exporter:
    """[[exporter]]: what an exporter does not say itself."""

    address: bytes = setting(what="Address from which it sends.", parse=address_setting)
    sflow_boot: int | None = setting(None, what="When it booted: sFlow carries uptime only.", parse=instant_setting)
    sampling: int | None = setting(None, what="Its sampling rate, one packet of so many.", unit="packets", lowest=1,
                                   highest=2**32 - 1)
    key: str | None = setting(None, what="As [collector] exporter_key, for this address.", choices=("address", "address_port"))
    completeness_percent: Fraction | None = setting(
        None, what="Of its interfaces' octet counters, flows cover at least this share; else [completeness] says it.",
        parse=share_setting)
    domains: tuple[int, ...] = setting((), what="Observation domains taken from it; empty: all.", parse=domain_list)
    datagrams_per_second_max: int | None = setting(
        None, what="Datagrams a second taken of it, instead of what [collector] says; 0: any number.", unit="datagrams",
        lowest=0, highest=10**8)
    repeated: str = setting("registry", what="Which of several equal elements in one of its templates counts.",
                            choices=("registry", "first", "last"))
    inside_realm: str = setting("", what="Realm of the addresses inside its NAT, whose leases own its port blocks.")
    outside_realm: str = setting("", what="Realm of the addresses outside its NAT, in which port blocks become leases.")


def member_ids(value: Any) -> tuple[str, ...]:
    """Names of collectors, in the order in which a group numbers them."""
    if not isinstance(value, list) or not 2 <= len(value) <= MEMBERS_MAX:
        raise ValueError(f"is not a list of 2 to {MEMBERS_MAX} names of collectors")
    found = tuple(collector_id(item) for item in value)
    if len(set(found)) != len(found):
        raise ValueError("names a collector twice")
    return found


@dataclass(frozen=True)
class Group:
    """[[collector_group]]: collectors that the same exporters feed, decoded as one: copies count once, what one of them lost
    the others fill."""

    name: str = setting(what="Name of the group; of its segments and its state.", parse=collector_id)
    members: tuple[str, ...] = setting(what="Names of its collectors.", parse=member_ids)
    wait_seconds: int = setting(5, what="Longest time that decoding waits for a member that is silent.", unit="s", lowest=0,
                                highest=600)
    late_seconds: int = setting(30, what="How much later than another's a member's datagram may come and is still told from a "
                                "copy; one that comes later and fills no gap is a fault.", unit="s", lowest=1, highest=3600)
    clock_seconds: int = setting(5, what="Largest difference between the clocks of two members.", unit="s", lowest=0,
                                 highest=600)


@dataclass(frozen=True)
class CollectorSettings:
    """Everything the decoder takes from ratemill.toml."""

    collector: Collector = field(default_factory=Collector)
    sampling: Sampling = field(default_factory=Sampling)
    time: Time = field(default_factory=Time)
    exporters: tuple[Exporter, ...] = ()
    groups: tuple[Group, ...] = ()
    registry: registry.Registry = field(default_factory=registry.shipped)

    def group_of(self, collector: str) -> Group | None:
        """The group that a collector is a member of."""
        return next((group for group in self.groups if collector in group.members), None)


def sections() -> dict[str, type[Any]]:
    """The sections of ratemill.toml that this package reads; [[exporter]] and [[collector_group]] are lists."""
    return {"collector": Collector, "sampling": Sampling, "time": Time, "exporter": Exporter, "collector_group": Group}


def check_tls(collector: Collector) -> None:
    """Raises SettingsError if nothing says what is shown on tls://."""
    if not collector.tls_certificate or not collector.tls_key:
        raise SettingsError(
            "ratemill.toml, [collector]: listening on tls:// needs tls_certificate and tls_key",
            'write tls_certificate = "tls/collector.pem", tls_key = "tls/collector.key" and tls_client_ca = "tls/ca.pem" '
            "into [collector]; `ratemill collect certificate` makes such files")


def from_document(document: Document) -> CollectorSettings:
    """Read and check the sections. Raises SettingsError."""
    collector = read_section(document, "collector", Collector)
    if any(text.startswith("tls://") for text in collector.listen):
        check_tls(collector)
    exporters = read_list(document, "exporter", Exporter)
    seen: set[bytes] = set()
    for exporter in exporters:
        if exporter.address in seen:
            shown = ipaddress.ip_address(exporter.address).ipv4_mapped or ipaddress.ip_address(exporter.address)  # type: ignore[union-attr]
            raise SettingsError(f"ratemill.toml: two [[exporter]] have the address {shown}", "put their keys together")
        seen.add(exporter.address)
    collector = read_section(document, "collector", Collector)
    return CollectorSettings(
        collector,
        read_section(document, "sampling", Sampling),
        read_section(document, "time", Time),
        exporters,
        _groups(document, collector),
    )


def _groups(document: Document, collector: Collector) -> tuple[Group, ...]:
    """Read and check [[collector_group]]: a collector is in one group, and a group is no collector."""
    groups = read_list(document, "collector_group", Group)
    names = [name for group in groups for name in (group.name, *group.members)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(f"ratemill.toml, [[collector_group]]: '{twice[0]}' is named twice",
                            "a collector is a member of one group, and a group has a name of its own")
    if groups and collector.duplicate_window == 0:
        raise SettingsError("ratemill.toml: a [[collector_group]] needs [collector] duplicate_window above 0",
                            "copies from another member are told by the same window")
    late = next((group for group in groups if group.late_seconds <= group.clock_seconds), None)
    if late is not None:
        raise SettingsError(f"ratemill.toml, [[collector_group]] '{late.name}': late_seconds must be above clock_seconds",
                            "a clock that is off must not make a datagram too late")
    return groups


def of_home(home: Home) -> CollectorSettings:
    """The settings with the home's own information elements. Raises SettingsError."""
    return replace(from_document(home.document), registry=registry.load(home.folder("registries")))
