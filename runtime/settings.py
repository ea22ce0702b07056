"""The sections [run] and [metrics]: how `ratemill run` treats its processes and jobs, and what tells of them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from core.settings import Document, read_section, setting


@dataclass(frozen=True)
class Run:
    """[run]: the supervisor's patience."""

    restart_seconds_max: int = setting(
        60,
        what="Longest pause before a process that died is started again; the pause doubles from 1 s.",
        unit="s",
        lowest=1,
        highest=3600,
    )
    stop_seconds_max: int = setting(
        30,
        what="How long processes may take to stop and write out what they hold before they are killed.",
        unit="s",
        lowest=1,
        highest=3600,
    )
    job_seconds_max: int = setting(
        7200,
        what="A job that runs for longer is stopped and counted as failed; the next one goes on where it was.",
        unit="s",
        lowest=10,
        highest=604_800,
    )


def endpoint_setting(value: Any) -> str:
    """'127.0.0.1:9815', '[::1]:9815' or '' for none."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not ADDRESS:PORT in quotes")
    if value:
        split_endpoint(value)
    return value


def split_endpoint(text: str) -> tuple[str, int]:
    """ADDRESS:PORT → (address, port). Raises ValueError."""
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        if not (port.isascii() and port.isdigit() and int(port) <= 65535) or (address.version == 6) != host.startswith("["):
            raise ValueError(text)
    except ValueError:
        raise ValueError(f"'{text}' is not ADDRESS:PORT, such as 127.0.0.1:9815 or [::1]:9815") from None
    return str(address), int(port)


@dataclass(frozen=True)
class Metrics:
    """[metrics]: the endpoint that Prometheus reads, with /healthz and /readyz beside it."""

    listen: str = setting(
        "127.0.0.1:9815",
        what="Address and port of the endpoint; empty: none. It asks nobody for a password.",
        parse=endpoint_setting,
    )
    exporters_max: int = setting(
        1000,
        what="Exporters and domains with metrics of their own, those seen first; the others are added up as `other`.",
        unit="exporters",
        lowest=0,
        highest=100_000,
    )
    lag_seconds_max: int = setting(
        300,
        what="A datagram that waits longer than this to be decoded makes /healthz fail.",
        unit="s",
        lowest=1,
        highest=86_400,
    )


def metrics_settings(document: Document) -> Metrics:
    """The section [metrics] of ratemill.toml."""
    return read_section(document, "metrics", Metrics)


def run_settings(document: Document) -> Run:
    """The section [run] of ratemill.toml."""
    return read_section(document, "run", Run)
