"""scapy's NetFlow layers as a judge, and as a maker of packets."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from peers.exchange import Record, Session

OCTETS_MAX = 20_000
"""Larger sessions are left out: scapy takes milliseconds a record."""
_V9 = {
    "octets": "IN_BYTES",
    "packets": "IN_PKTS",
    "protocol": "PROTOCOL",
    "source_port": "L4_SRC_PORT",
    "destination_port": "L4_DST_PORT",
    "input": "INPUT_SNMP",
    "output": "OUTPUT_SNMP",
    "source_as": "SRC_AS",
    "destination_as": "DST_AS",
    "tos": "TOS",
    "tcp_flags": "TCP_FLAGS",
    "direction": "DIRECTION",
}
_FIXED = {
    "octets": "dOctets",
    "packets": "dpkts",
    "protocol": "prot",
    "source_port": "srcport",
    "destination_port": "dstport",
    "input": "input",
    "output": "output",
    "source_as": "src_as",
    "destination_as": "dst_as",
    "tos": "tos",
    "tcp_flags": "tcpFlags",
}


class Raises(Exception):
    """scapy can't read this session at all."""


def flows(session: Session) -> list[Record]:
    """Records in their order. Raises Raises."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.netflow import netflowv9_defragment
    from scapy.packet import Raw

    logging.getLogger("scapy").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scapy warns of templates with a field twice
        try:
            packets = [
                IP(bytes(IP(src="192.0.2.1") / UDP(sport=2055, dport=2055) / Raw(payload)))
                for payload in session.payloads
            ]
            read = netflowv9_defragment(packets)
            return [record for packet in read for record in _records(packet)]
        except Exception as error:  # whatever it is, it is scapy's
            raise Raises(repr(error)) from error


def _records(packet: Any) -> list[Record]:
    from scapy.layers.netflow import NetflowDataflowsetV9, NetflowRecordV1, NetflowRecordV5

    found = []
    layer = packet
    while layer is not None and layer.__class__.__name__ != "NoPayload":
        if isinstance(layer, NetflowDataflowsetV9):
            found += [
                _of(
                    one,
                    _V9,
                    ("IPV4_SRC_ADDR", "IPV6_SRC_ADDR"),
                    ("IPV4_DST_ADDR", "IPV6_DST_ADDR"),
                    ("IPV4_NEXT_HOP", "IPV6_NEXT_HOP"),
                )
                for one in layer.records
            ]
        elif isinstance(layer, (NetflowRecordV1, NetflowRecordV5)):
            names = dict(_FIXED)
            if isinstance(layer, NetflowRecordV1):
                names |= {"source_port": "srcport", "tcp_flags": "tcpflags", "octets": "dOctets"}
            found.append(_of(layer, names, ("src", "ipsrc"), ("dst", "ipdst"), ("nexthop",)))
        layer = layer.payload
    return [record for record in found if {"source", "destination", "octets"} <= set(record)]


def _of(
    one: Any, names: dict[str, str], sources: tuple[str, ...], destinations: tuple[str, ...], hops: tuple[str, ...]
) -> Record:
    present = {field.name for field in getattr(one, "fields_desc", [])}
    record: Record = {
        ours: int(getattr(one, theirs))
        for ours, theirs in names.items()
        if theirs in present and isinstance(getattr(one, theirs), int)
    }
    for name, choices in (("source", sources), ("destination", destinations), ("next_hop", hops)):
        for choice in choices:
            if choice in present:
                value = str(getattr(one, choice))
                record[name] = None if name == "next_hop" and value in ("0.0.0.0", "::") else value
    return record


# packets made by scapy ----------------------------------------------------------------------------------------------------
def made() -> list[tuple[Session, list[Record]]]:
    """Sessions that scapy built, and the values it was given."""
    from scapy.layers.netflow import (
        NetflowDataflowsetV9,
        NetflowFlowsetV9,
        NetflowHeader,
        NetflowHeaderV5,
        NetflowHeaderV9,
        NetflowHeaderV10,
        NetflowRecordV5,
        NetflowTemplateFieldV9,
        NetflowTemplateV9,
    )

    values = [
        {
            "source": f"192.0.2.{n}",
            "destination": f"198.51.100.{n}",
            "source_port": 1000 + n,
            "destination_port": 443,
            "protocol": 6,
            "octets": 10**n,
            "packets": n,
            "input": n,
            "output": 2 * n,
            "source_as": 64500 + n,
            "destination_as": 64600 + n,
            "tos": 4 * n,
            "tcp_flags": 0x10 | n,
            "next_hop": f"203.0.113.{n}",
            "start": 1_790_000_000_000 - 5000,
            "end": 1_790_000_000_000 - 1000,
        }
        for n in range(1, 9)
    ]
    five = NetflowHeader(version=5) / NetflowHeaderV5(count=len(values), sysUptime=60_000, unixSecs=1_790_000_000)
    for v in values:
        five = five / NetflowRecordV5(
            src=v["source"],
            dst=v["destination"],
            nexthop=v["next_hop"],
            input=v["input"],
            output=v["output"],
            dpkts=v["packets"],
            dOctets=v["octets"],
            first=55_000,
            last=59_000,
            srcport=v["source_port"],
            dstport=v["destination_port"],
            tcpFlags=v["tcp_flags"],
            prot=v["protocol"],
            tos=v["tos"],
            src_as=v["source_as"],
            dst_as=v["destination_as"],
        )
    made = [(Session("v5", [bytes(five)]), values)]
    fields = (
        (8, 4, "source"),
        (12, 4, "destination"),
        (15, 4, "next_hop"),
        (10, 4, "input"),
        (14, 4, "output"),
        (2, 8, "packets"),
        (1, 8, "octets"),
        (7, 2, "source_port"),
        (11, 2, "destination_port"),
        (6, 1, "tcp_flags"),
        (4, 1, "protocol"),
        (5, 1, "tos"),
        (16, 4, "source_as"),
        (17, 4, "destination_as"),
    )
    body = b"".join(_octets(v[name], width) for v in values for _, width, name in fields)
    body += bytes(-len(body) % 4)
    for version, head in (
        (9, NetflowHeaderV9(count=2, sysUptime=60_000, unixSecs=1_790_000_000, SourceID=5)),
        (10, NetflowHeaderV10(length=492, ExportTime=1_790_000_000, ObservationDomainID=5)),
    ):
        template = NetflowFlowsetV9(
            flowSetID=0 if version == 9 else 2,
            templates=[
                NetflowTemplateV9(
                    templateID=300,
                    template_fields=[NetflowTemplateFieldV9(fieldType=e, fieldLength=w) for e, w, _ in fields],
                )
            ],
        )
        message = (
            NetflowHeader(version=version) / head / template / NetflowDataflowsetV9(templateID=300, records=[body])
        )
        wanted = [{name: value for name, value in v.items() if name not in ("start", "end")} for v in values]
        made.append((Session(f"version {version}", [bytes(message)]), wanted))
    return made


def _octets(value: Any, width: int) -> bytes:
    if isinstance(value, str):
        return bytes(int(part) for part in value.split("."))
    return int(value).to_bytes(width, "big")
