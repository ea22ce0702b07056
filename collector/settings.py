"""What the operator may set about receiving and decoding: [collector], [sampling], [time] and [[exporter]]."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from core.addresses import parse_address
from core.errors import SettingsError
from core.settings import Document, instant_setting, read_list, read_section, setting


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


@dataclass(frozen=True)
class Collector:
    """[collector]: receiving, and bounds of the decoder."""

    id: str = setting("main", what="Name of this collector among several; of its journal and its status.", parse=collector_id)
    listen: tuple[str, ...] = setting(
        ("0.0.0.0:2055", "[::]:2055"), what="Addresses and ports to listen on; every port takes every protocol.")
    socket_buffer: int = setting(64 * 2**20, what="Receive buffer asked of the kernel for each socket.", unit="octets",
                                 lowest=2**16, highest=2**30)
    journal_sync_ms: int = setting(200, what="Longest time until a received datagram is durable.", unit="ms", lowest=1,
                                   highest=10_000)
    journal_keep_hours: int = setting(24, what="How long datagrams are kept after their flows are stored.", unit="h",
                                      lowest=0, highest=24 * 366)
    segment_seconds: int = setting(10, what="Longest time until decoded flows are stored.", unit="s", lowest=1,
                                   highest=3600)

    compression: str = setting("lz4", what="How the files of decoded flows are compressed.", choices=("lz4", "none"))

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
    completeness_percent: Fraction | None = setting(
        None, what="Of its interfaces' octet counters, flows cover at least this share; else [completeness] says it.",
        parse=share_setting)


@dataclass(frozen=True)
class CollectorSettings:
    """Everything the decoder takes from ratemill.toml."""

    collector: Collector = field(default_factory=Collector)
    sampling: Sampling = field(default_factory=Sampling)
    time: Time = field(default_factory=Time)
    exporters: tuple[Exporter, ...] = ()


def sections() -> dict[str, type[Any]]:
    """The sections of ratemill.toml that this package reads; [[exporter]] is a list."""
    return {"collector": Collector, "sampling": Sampling, "time": Time, "exporter": Exporter}


def from_document(document: Document) -> CollectorSettings:
    """Read and check the sections. Raises SettingsError."""
    exporters = read_list(document, "exporter", Exporter)
    seen: set[bytes] = set()
    for exporter in exporters:
        if exporter.address in seen:
            shown = ipaddress.ip_address(exporter.address).ipv4_mapped or ipaddress.ip_address(exporter.address)  # type: ignore[union-attr]
            raise SettingsError(f"ratemill.toml: two [[exporter]] have the address {shown}", "put their keys together")
        seen.add(exporter.address)
    return CollectorSettings(
        read_section(document, "collector", Collector),
        read_section(document, "sampling", Sampling),
        read_section(document, "time", Time),
        exporters,
    )
