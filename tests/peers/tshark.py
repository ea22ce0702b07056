"""Wireshark's dissector as a judge: the flow records that tshark prints of a capture file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from peers.exchange import NETFLOW_PORT, SFLOW_PORT, Record

NUMBERS = {
    "cflow.srcport": "source_port",
    "cflow.dstport": "destination_port",
    "cflow.protocol": "protocol",
    "cflow.octets": "octets",
    "cflow.octets64": "octets",
    "cflow.packets": "packets",
    "cflow.packets64": "packets",
    "cflow.inputint": "input",
    "cflow.outputint": "output",
    "cflow.srcas": "source_as",
    "cflow.dstas": "destination_as",
    "cflow.tos": "tos",
    "cflow.tcpflags": "tcp_flags",
    "cflow.tcpflags16": "tcp_flags",
    "cflow.direction": "direction",
}
ADDRESSES = {
    "cflow.srcaddr": "source",
    "cflow.srcaddrv6": "source",
    "cflow.dstaddr": "destination",
    "cflow.dstaddrv6": "destination",
    "cflow.nexthop": "next_hop",
    "cflow.nexthopv6": "next_hop",
}


def flows(pcap: Path) -> dict[str, list[Record]]:
    """Records by the exporter's address, in their order; skips the test where tshark is absent."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not here: install Debian's tshark")
    done = subprocess.run(
        [
            "tshark",
            "-2",
            "-n",
            "-r",
            str(pcap),
            "-T",
            "json",
            "--no-duplicate-keys",
            "-d",
            f"udp.port=={NETFLOW_PORT},cflow",
            "-d",
            f"udp.port=={SFLOW_PORT},sflow",
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TZ": "UTC"},
    )
    found: dict[str, list[Record]] = {}
    for packet in json.loads(done.stdout):
        layers = packet["_source"]["layers"]
        source = layers["ip"]["ip.src"]
        for layer in _as_list(layers.get("cflow")):
            for record in _records(layer, _boot(layer)):
                found.setdefault(source, []).append(record)
        for layer in _as_list(layers.get("sflow")):
            for name, value in layer.items():
                if name.startswith(("Flow sample", "Expanded flow sample")):
                    for sample in _as_list(value):
                        record = _sample(sample)
                        if record:
                            found.setdefault(source, []).append(record)
    return found


def _sample(node: dict[str, Any]) -> Record:
    """A flow sample of sFlow whose raw header holds an IP packet; the outermost one, else {}."""
    fields = dict(reversed(list(_flat(node))))  # the first of each name: the outermost
    record: Record = {}
    if "ip.src" in fields:
        record = {
            "source": fields["ip.src"],
            "destination": fields["ip.dst"],
            "octets": int(fields["ip.len"]),
            "protocol": int(fields["ip.proto"]),
            "tos": int(fields["ip.dsfield"], 0),
        }
    elif "ipv6.src" in fields:
        record = {
            "source": fields["ipv6.src"],
            "destination": fields["ipv6.dst"],
            "octets": 40 + int(fields["ipv6.plen"]),
            "tos": int(fields["ipv6.tclass"], 0),
        }
    if not record:
        return {}
    for kind in ("tcp", "udp"):
        if f"{kind}.srcport" in fields:
            record |= {
                "source_port": int(fields[f"{kind}.srcport"]),
                "destination_port": int(fields[f"{kind}.dstport"]),
            }
    if "tcp.flags" in fields:
        record["tcp_flags"] = int(fields["tcp.flags"], 0)
    if "icmp.type" in fields:
        record |= {"source_port": 0, "destination_port": int(fields["icmp.type"]) * 256 + int(fields["icmp.code"])}
    hop = fields.get("sflow_245.nexthop", fields.get("sflow_245.nexthop.v6"))
    if hop is not None:
        record["next_hop"] = None if hop in ("0.0.0.0", "::") else hop
    for side in ("input", "output"):
        form, value = (fields.get(f"sflow.flow_sample.{side}_interface_{part}") for part in ("format", "value"))
        if value is None and side == "input":
            form, value = "0", fields.get("sflow.flow_sample.input_interface")
        if value is not None:
            record[side] = int(value, 0) if form in ("0", None) else 0
    record["packets"] = 1
    return record


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _boot(layer: dict[str, Any]) -> int:
    """When the exporter booted, by the header of v1 to v9, ms; 0 for IPFIX."""
    header = dict(
        _flat({name: value for name, value in layer.items() if not name.startswith(("FlowSet", "Set ", "pdu"))})
    )
    if "cflow.sysuptime" not in header:
        return 0
    exported = int(header["cflow.unix_secs"]) * 1000 + int(header.get("cflow.unix_nsecs", 0)) // 1_000_000
    return exported - round(Decimal(header["cflow.sysuptime"]) * 1000)


def _records(node: Any, boot: int) -> Iterator[Record]:
    """Every node that has both addresses and octets, in order."""
    for name, value in node.items():
        for one in _as_list(value):
            if not isinstance(one, dict):
                continue
            if name.startswith(("Flow ", "pdu ")):
                record = _record(one, boot)
                if {"source", "destination", "octets"} <= set(record):
                    yield record
            else:
                yield from _records(one, boot)


def _record(node: dict[str, Any], boot: int) -> Record:
    record: Record = {}
    for name, value in _flat(node):
        if name in NUMBERS:
            record.setdefault(NUMBERS[name], int(str(value), 0))
        elif name in ADDRESSES:
            record.setdefault(ADDRESSES[name], value)
        elif name == "cflow.abstimestart":
            record.setdefault("start", _ms(value))
        elif name == "cflow.abstimeend":
            record.setdefault("end", _ms(value))
        elif name in ("cflow.timestart", "cflow.timeend") and boot:
            record.setdefault(name.removeprefix("cflow.time"), boot + round(Decimal(value) * 1000))
    if record.get("next_hop") in ("0.0.0.0", "::"):
        record["next_hop"] = None
    return record


def _flat(node: Any) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        for one in _as_list(value):
            if isinstance(one, dict):
                yield from _flat(one)
            else:
                yield name, one


def _ms(text: str) -> int:
    """`Jul 21, 2014 09:46:05.150000000 UTC`, floored."""
    moment, fraction = text.removesuffix(" UTC").split(".")
    return int(datetime.strptime(moment, "%b %d, %Y %H:%M:%S").replace(tzinfo=UTC).timestamp()) * 1000 + int(
        fraction[:3]
    )
