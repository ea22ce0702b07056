"""A slow, plain decoder of NetFlow v1/5/7/9, IPFIX and sFlow v5, written from the RFCs: the oracle of the fast one.

No code of the product. It reads one datagram at a time, keeps templates in a dict, and returns flows as dicts with the
columns of the contract. Default settings: clock skew of 600 s, unannounced rates are 1 (`assume_1`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import gcd
from typing import Any

from oracles.slow_packets import packet
from oracles.slow_samples import read_records

FLOW_NUMBERS = {  # element → name; addresses apart
    1: "octets", 2: "packets", 4: "protocol", 5: "tos", 6: "tcp_flags", 7: "sport", 10: "input", 11: "dport", 14: "output",
    16: "sas", 17: "das", 21: "end_up", 22: "start_up", 23: "out_octets", 24: "out_packets", 32: "icmp4", 34: "interval",
    48: "sampler", 50: "random", 58: "vlan", 60: "version", 61: "direction", 85: "total", 139: "icmp6", 150: "start_s",
    151: "end_s", 152: "start_ms", 153: "end_ms", 154: "start_ntp", 155: "end_ntp", 156: "start_ntp", 157: "end_ntp",
    158: "start_delta", 159: "end_delta", 160: "boot", 161: "duration_ms", 162: "duration_us", 176: "type4", 177: "code4",
    178: "type6", 179: "code6", 180: "usport", 181: "udport", 182: "tsport", 183: "tdport", 231: "initiator",
    232: "responder", 240: "link_header", 243: "vlan", 245: "cvlan", 298: "initiator_packets", 299: "responder_packets",
    302: "selector", 305: "pinterval", 306: "pspace", 309: "size", 310: "population", 322: "seen_s", 323: "seen_ms",
    352: "layer2", 353: "total_layer2", 86: "total_packets", 230: "nat_event",
    233: "firewall_event", 40005: "firewall_event", 102: "offset", 409: "offset", 103: "held", 410: "held", 312: "frame_size",
    324: "seen_ntp", 325: "seen_ntp", 408: "frame_type",
}
SECTIONS = {315: "frame", 104: "frame", 313: "ip", 317: "mpls payload", 316: "mpls"}
OF_THE_PACKET = {"source4", "destination4", "source6", "destination6", "version", "protocol", "tos", "tcp_flags",
                 "sport", "dport", "icmp4", "icmp6", "usport", "udport", "tsport", "tdport", "type4", "code4", "type6", "code6"}
"""What the packet itself says, whatever the record says beside it."""
ADDRESSES = {8: ("source4", 4), 12: ("destination4", 4), 15: ("hop4", 4), 18: ("bgp4", 4),
             27: ("source6", 16), 28: ("destination6", 16), 62: ("hop6", 16), 63: ("bgp6", 16)}
REVERSED = {1: "reverse_octets", 2: "reverse_packets", 6: "reverse_tcp_flags", 5: "reverse_tos", 21: "reverse_end_up",
            22: "reverse_start_up", 150: "reverse_start_s", 151: "reverse_end_s", 152: "reverse_start_ms",
            153: "reverse_end_ms", 154: "reverse_start_ntp", 155: "reverse_end_ntp", 156: "reverse_start_ntp",
            157: "reverse_end_ntp"}
OF_CISCO = {8337: "responder", 8338: "initiator", 12240: "sport", 12241: "dport"}
CISCO_ADDRESSES = {12236: ("source4", 4), 12237: ("destination4", 4), 12238: ("source6", 16), 12239: ("destination6", 16)}
TIMES_OF_EIGHT = {154, 155, 156, 157, 324, 325}
MAPPED = bytes(10) + b"\xff\xff"
NOTHING = bytes(16)


@dataclass
class Template:
    fields: list[tuple[int, int, int]]  # enterprise, element, length
    scope: int = 0
    options: bool = False
    variable: bool = False  # IPFIX: 65535 means that the field says its length


@dataclass
class SlowDecoder:
    """Feeds on payloads; `flows` in order of decoding, released ones apart."""

    inner: bool = False
    """Whether the innermost packet of a sampled one is the flow."""
    templates: dict[Any, Template] = field(default_factory=dict)
    waiting: dict[Any, list[Any]] = field(default_factory=dict)
    rates: dict[Any, tuple[int, int]] = field(default_factory=dict)
    samplers: dict[Any, tuple[int, int]] = field(default_factory=dict)
    boots: dict[Any, int] = field(default_factory=dict)
    flows: list[dict[str, Any]] = field(default_factory=list)
    released: list[dict[str, Any]] = field(default_factory=list)
    data_records: int = 0
    options_records: int = 0
    not_a_flow: int = 0
    faulted_records: int = 0
    counters: list[dict[str, Any]] = field(default_factory=list)
    """Interface counters in the order of arrival."""

    def feed(self, payload: bytes, received: int, exporter: bytes, received_unknown: bool = False) -> None:
        number = int.from_bytes(payload[:2], "big")
        if payload[:4] == b"\0\0\0\5":
            self._sflow(payload, received, exporter, received_unknown)
        elif number in (1, 5, 7) and len(payload) >= (16 if number == 1 else 24):
            self._fixed(number, payload, received, exporter, received_unknown)
        elif number in (9, 10) and len(payload) >= (20 if number == 9 else 16):
            self._message(number, payload, received, exporter, received_unknown)

    # v1, v5, v7
    def _fixed(self, number: int, payload: bytes, received: int, exporter: bytes, unknown: bool) -> None:
        count, uptime = _u(payload[2:4]), _u(payload[4:8])
        exported = _u(payload[8:12]) * 1000 + min(_u(payload[12:16]) // 1_000_000, 999)
        head, stride = {1: (16, 52), 5: (24, 48), 7: (24, 52)}[number]
        domain = _u(payload[20:22]) if number == 5 else 0
        header_rate = _u(payload[22:24]) & 0x3FFF if number == 5 else 0
        context = Context(number, exporter, domain, exported if unknown else received, exported, uptime, header_rate)
        for i in range(min(count, (len(payload) - head) // stride)):
            r = payload[head + i * stride : head + (i + 1) * stride]
            values: dict[str, Any] = {
                "source4": r[0:4], "destination4": r[4:8], "hop4": r[8:12], "input": _u(r[12:14]), "output": _u(r[14:16]),
                "packets": _u(r[16:20]), "octets": _u(r[20:24]), "start_up": _u(r[24:28]), "end_up": _u(r[28:32]),
                "sport": _u(r[32:34]), "dport": _u(r[34:36])}
            if number == 1:
                values |= {"protocol": r[38], "tos": r[39], "tcp_flags": r[40]}
            else:
                values |= {"tcp_flags": r[37], "protocol": r[38], "tos": r[39], "sas": _u(r[40:42]), "das": _u(r[42:44])}
            self._record(values, context, self.flows)

    # v9, IPFIX
    def _message(self, number: int, payload: bytes, received: int, exporter: bytes, unknown: bool) -> None:
        ipfix = number == 10
        exported = _u(payload[4:8] if ipfix else payload[8:12]) * 1000
        domain = _u(payload[12:16] if ipfix else payload[16:20])
        context = Context(number, exporter, domain, exported if unknown else received, exported,
                          0 if ipfix else _u(payload[4:8]), 0)
        stop = min(len(payload), _u(payload[2:4])) if ipfix else len(payload)
        at = 16 if ipfix else 20
        while stop - at >= 4:
            identifier, length = _u(payload[at : at + 2]), _u(payload[at + 2 : at + 4])
            if length < 4:
                break
            body = payload[at + 4 : min(at + length, stop)]
            at += length
            if identifier >= 256 and body:
                key = (number, exporter, domain, identifier)
                if key in self.templates:
                    self._data(self.templates[key], body, context, self.flows)
                else:
                    self.waiting.setdefault(key, []).append((body, context))
            elif identifier == (2 if ipfix else 0):
                self._templates(body, context, ipfix, options=False)
            elif identifier == (3 if ipfix else 1):
                self._templates(body, context, ipfix, options=True)

    def _templates(self, body: bytes, context: Context, ipfix: bool, options: bool) -> None:
        at = 0
        while len(body) - at >= (6 if options and not ipfix else 4):
            identifier, count = _u(body[at : at + 2]), _u(body[at + 2 : at + 4])
            if identifier == 0 and count == 0:
                return
            if count == 0 and ipfix:
                self._withdraw(context, identifier, options)
                at += 4
                continue
            head, scope = 4, 0
            if options:
                if len(body) - at < 6:
                    return
                head, scope = 6, _u(body[at + 4 : at + 6])
                if not ipfix:
                    if count % 4 or scope % 4:
                        return
                    count, scope = (count + scope) // 4, count // 4
            at += head
            fields = []
            for _ in range(count):
                if len(body) - at < 4:
                    return
                element, length, enterprise = _u(body[at : at + 2]), _u(body[at + 2 : at + 4]), 0
                at += 4
                if ipfix and element & 0x8000:
                    if len(body) - at < 4:
                        return
                    enterprise = _u(body[at : at + 4]) or -1
                    element &= 0x7FFF
                    at += 4
                fields.append((enterprise, element, length))
            if identifier < 256 or not 0 < count <= 1024 or scope > count or (options and ipfix and scope == 0):
                continue
            key = (context.protocol, context.exporter, context.domain, identifier)
            self.templates[key] = Template(fields, scope, options, ipfix)
            for held, its_context in self.waiting.pop(key, []):
                self._data(self.templates[key], held, its_context, self.released)

    def _withdraw(self, context: Context, identifier: int, options: bool) -> None:
        for key in list(self.templates):
            mine = key[:3] == (context.protocol, context.exporter, context.domain)
            every = identifier == (3 if options else 2) and self.templates[key].options == options
            if mine and (key[3] == identifier or every):
                del self.templates[key]

    def _data(self, template: Template, body: bytes, context: Context, into: list[dict[str, Any]]) -> None:
        shortest = sum(1 if template.variable and n == 65535 else n for _, _, n in template.fields)
        at = records = 0
        while shortest and len(body) - at >= shortest and records < 4096:
            values: dict[str, Any] = {}
            for index, (enterprise, element, announced) in enumerate(template.fields):
                length = announced
                if template.variable and announced == 65535:
                    if len(body) - at < 1:
                        return
                    length = body[at]
                    at += 1
                    if length == 255:
                        if len(body) - at < 2:
                            return
                        length = _u(body[at : at + 2])
                        at += 2
                if length > len(body) - at:
                    return
                skipped = (template.variable and announced == 65535) or (not template.variable and index < template.scope)
                if not skipped or (template.variable and enterprise == 0 and element in SECTIONS):
                    _keep(values, enterprise, element, body[at : at + length])
                at += length
            records += 1
            if template.options:
                self.options_records += 1
                self._options(values, context)
            else:
                self._record(values, context, into)

    def _options(self, values: dict[str, Any], context: Context) -> None:
        key = (context.protocol, context.exporter, context.domain)
        if values.get("boot"):
            self.boots[key] = values["boot"]
        if not ({"interval", "random", "pinterval"} & set(values) or {"size", "population"} <= set(values)):
            return
        rate = _rate(values) or (0, 0)
        if "sampler" in values:
            self.samplers[*key, 0, values["sampler"]] = rate
        elif "selector" in values:
            self.samplers[*key, 1, values["selector"]] = rate
        else:
            self.rates[key] = rate

    # one record
    def _record(self, v: dict[str, Any], c: Context, into: list[dict[str, Any]]) -> None:
        self.data_records += 1
        four, six = {"source4", "destination4"} <= set(v), {"source6", "destination6"} <= set(v)
        counts = _counts(v)
        running = counts is None and "total" in v and "firewall_event" in v
        if running:
            counts = (v["total"], v.get("total_packets", v.get("packets", 0)), 0, 0), 0, False
        sampled = None
        if not (four or six) or (counts is None and not {"total", "total_layer2"} & set(v)):
            sampled = self._section(v)
            if sampled is None:
                self.not_a_flow += 1
                return
            four, six = False, True
            v = {name: value for name, value in v.items() if name not in OF_THE_PACKET} | {
                name: sampled[name] for name in ("protocol", "tos", "tcp_flags")} | {
                "source6": sampled["source_address"], "destination6": sampled["destination_address"]}
            if sampled["protocol"] in (1, 58):
                v["icmp4"] = v["icmp6"] = sampled["destination_port"]
            else:
                v |= {"sport": sampled["source_port"], "dport": sampled["destination_port"]}
            counts = (sampled["octets"], sampled["packets"], 0, 0), sampled["flags"], False
        elif counts is not None and ("firewall_event" in v or "nat_event" in v):
            event, silent = v.get("firewall_event", 0), not any(counts[0])
            if event == 3 or (silent and ("nat_event" in v or event in (1, 4))) or (running and event not in (0, 2, 5)):
                self.not_a_flow += 1
                return
            if running and event != 2:
                self.faulted_records += 1
                return
        if counts is None or max(counts[0]) >= 2**48:
            self.faulted_records += 1
            return
        (octets, packets, back, back_packets), flags, two = counts
        start, end = self._times(v, c)
        if "firewall_event" in v:
            start, end = _times_of_event(v, start, end)
        back_start, back_end = self._reverse_times(v, c, start, max(start, end)) if two else (start, end)
        skew = c.received - c.exported
        if abs(skew) > 600_000:
            start, end, flags = start + skew, end + skew, flags | 1
            back_start, back_end = back_start + skew, back_end + skew
        if end < start:
            end, flags = start, flags | 32
        if back_end < back_start:
            back_end, flags = back_start, flags | 32
        for one, other in ((start, end), (back_start, back_end)):
            if one < -62_135_596_800_000 or other >= 253_402_300_800_000 or other - one >= 2**32:
                self.faulted_records += 1
                return
        numerator, denominator, source = self._rate_of(v, c)
        if max(counts[0]) // denominator >= 2**48 // numerator:
            self.faulted_records += 1
            return
        protocol = v.get("protocol", 0) & 0xFF
        sport, dport = _ports(v, protocol)
        if four and six:
            zero = v["source4"] + v["destination4"] == bytes(8) and v["source6"] + v["destination6"] != bytes(32)
            four = v["version"] == 4 if v.get("version") in (4, 6) else not zero
        hops = [MAPPED + v["hop4"] if v.get("hop4", bytes(4)) != bytes(4) else NOTHING, v.get("hop6", NOTHING),
                MAPPED + v["bgp4"] if v.get("bgp4", bytes(4)) != bytes(4) else NOTHING, v.get("bgp6", NOTHING)]
        flow = {
            "received": c.received, "exporter": c.exporter, "domain": c.domain, "export_protocol": c.protocol,
            "start": start, "end": end,
            "source_address": MAPPED + v["source4"] if four else v["source6"],
            "destination_address": MAPPED + v["destination4"] if four else v["destination6"],
            "source_port": sport, "destination_port": dport, "protocol": protocol, "octets": octets, "packets": packets,
            "rate_numerator": numerator, "rate_denominator": denominator, "rate_source": source,
            "input_interface": v.get("input", 0) % 2**32, "output_interface": v.get("output", 0) % 2**32,
            "flow_direction": v["direction"] if v.get("direction") in (0, 1) else 255,
            "next_hop": next((hop for hop in hops if hop != NOTHING), NOTHING),
            "source_as": v.get("sas", 0) % 2**32, "destination_as": v.get("das", 0) % 2**32, "tos": v.get("tos", 0) & 0xFF,
            "tcp_flags": v.get("tcp_flags", 0) & 0xFFFF if protocol == 6 else 0, "flags": flags,
        }
        into.append(flow)
        if two:
            into.append(_answer(flow, v, back, back_packets) | {"start": back_start, "end": back_end})

    def _reverse_times(self, v: dict[str, Any], c: Context, start: int, end: int) -> tuple[int, int]:
        """Of the second direction (RFC 5103), where they are told, else those of the first."""
        boot = v.get("boot") or self.boots.get((c.protocol, c.exporter, c.domain), 0)
        times = []
        for name, forward in (("reverse_start", start), ("reverse_end", end)):
            told = _absolute({key: value for key, value in v.items() if value}, name, c.exported)
            up = v.get(f"{name}_up")
            if told is None and up and c.protocol <= 9:
                told = _since_boot(up % 2**32, c)
            elif told is None and up and 0 < boot < 2**60:
                told = _after(boot + up % 2**32, c.exported)
            times.append(forward if told is None else told)
        if "reverse_delay" in v:
            times[0] = min(times[0] + min(v["reverse_delay"], 2**32 - 1), max(times))
        return times[0], times[1]

    def _section(self, v: dict[str, Any]) -> dict[str, Any] | None:
        """The packet of a record that carries one."""
        kind = next((name for name in SECTIONS.values() if f"section {name}" in v), None)
        if kind is None:
            return None
        data = v[f"section {kind}"]
        if 0 < v.get("held", 0) < len(data):
            data = data[: v["held"]]
        if v.get("offset") or not data:
            return None
        wire = len(data)
        if kind == "frame":
            link = {1: "ethernet", 2: "wifi"}.get(v.get("frame_type", 1), "")
            sizes = [v.get("frame_size", 0), v.get("layer2", 0) if v.get("packets", 0) <= 1 else 0]
            wire = next((size for size in sizes if 0 < size < 2**32), wire)
        else:
            link = ("ipv6" if data[0] // 16 == 6 else "ipv4") if kind == "ip" else kind
        found = packet(data, link, wire, self.inner)
        if found is None:
            return None
        packets = v.get("packets") or 1
        if v.get("octets") and found["packets_read"] == 1:
            found |= {"octets": v["octets"], "flags": found["flags"] & ~4}
        else:
            found["octets"] *= packets
        return found | {"packets": packets}

    def _rate_of(self, v: dict[str, Any], c: Context) -> tuple[int, int, int]:
        key = (c.protocol, c.exporter, c.domain)
        found = [(_rate(v), 1)]
        for kind, name in enumerate(("sampler", "selector")):
            if name in v:
                found.append((self.samplers.get((*key, kind, v[name])), 2))
        found += [(self.rates.get(key), 3), ((c.header_rate, 1), 4)]
        for rate, source in found:
            if rate and rate[0]:
                return rate[0], rate[1], source
        return 1, 1, 6

    def _times(self, v: dict[str, Any], c: Context) -> tuple[int, int]:
        start, end = _absolute(v, "start", c.exported), _absolute(v, "end", c.exported)
        if start is None and end is None and ("start_up" in v or "end_up" in v):
            ups = [v.get("start_up"), v.get("end_up")]
            boot = v.get("boot") or self.boots.get((c.protocol, c.exporter, c.domain), 0)
            if c.protocol <= 9:
                start, end = (None if u is None else _since_boot(u % 2**32, c) for u in ups)
            elif 0 < boot < 2**60:
                start, end = (None if u is None else _after(boot + u % 2**32, c.exported) for u in ups)
            else:
                end = c.exported
                if None not in ups:
                    length = (ups[1] - ups[0]) % 2**32  # type: ignore[operator]
                    start = end - (length if length < 2**31 else 0)
        if start is None and end is None:
            end = (v.get("seen_ms") or (v.get("seen_ntp") and _ntp(v["seen_ntp"])) or (v.get("seen_s") or 0) * 1000
                   or c.exported)
        length = v["duration_ms"] if "duration_ms" in v else v.get("duration_us", 0) // 1000
        if start is None:
            assert end is not None
            return end - length, end
        return start, start + length if end is None else end

    # sFlow
    def _sflow(self, payload: bytes, received: int, exporter: bytes, unknown: bool) -> None:
        kind = _u(payload[4:8])
        head = {1: 28, 2: 40}.get(kind)
        if head is None or len(payload) < head:
            return
        domain, _, uptime, count = (_u(payload[head - 16 + 4 * i : head - 12 + 4 * i]) for i in range(4))
        arrived = received + uptime if unknown else received
        at = head
        for _ in range(min(count, 4096)):
            if len(payload) - at < 8:
                return
            form, length = _u(payload[at : at + 4]), _u(payload[at + 4 : at + 8])
            if length > len(payload) - at - 8 and len(payload) - at < 12:
                return
            if form in (1, 3):
                self._sample(payload[at + 8 : at + 8 + length], form == 3, arrived, exporter, domain)
            elif form in (2, 4):
                self._counter_sample(payload[at + 8 : at + 8 + length], 12 if form == 2 else 16, arrived, exporter)
            if length > len(payload) - at - 8:
                return
            at += 8 + (length + 3) // 4 * 4

    def _counter_sample(self, s: bytes, head: int, arrived: int, exporter: bytes) -> None:
        rest = s[head:]
        for _ in range(_u(s[head - 4 : head]) if len(s) >= head else 0):
            kind, length = _u(rest[:4]), _u(rest[4:8])
            if len(rest) < 8 or length > len(rest) - 8 or (kind == 1 and length < 64):
                return
            r, rest = rest[8 : 8 + length], rest[8 + (length + 3) // 4 * 4 :]
            if kind == 1 and 2**64 - 1 not in (_u(r[24:32]), _u(r[56:64])):
                self.counters.append({"exporter": exporter, "interface": _u(r[:4]), "received": arrived,
                                      "in_octets": _u(r[24:32]), "out_octets": _u(r[56:64])})

    def _sample(self, s: bytes, expanded: bool, arrived: int, exporter: bytes, domain: int) -> None:
        self.data_records += 1
        size = 44 if expanded else 32
        if len(s) < size:
            self.faulted_records += 1
            return
        words = [_u(s[i : i + 4]) for i in range(0, size, 4)]
        if expanded:
            rate = words[3]
            interfaces = [value if form == 0 else 0 for form, value in (words[6:8], words[8:10])]
        else:
            rate = words[2]
            interfaces = [w if w >> 30 == 0 else 0 for w in words[5:7]]
        found: dict[str, Any] = {}
        whole = read_records(s[size:], words[-1], found, self.inner)
        if "source_address" not in found:
            if whole:
                self.not_a_flow += 1
            else:
                self.faulted_records += 1
            return
        flow = {"received": arrived, "exporter": exporter, "domain": domain, "export_protocol": 105, "start": arrived,
                "end": arrived, "source_port": 0, "destination_port": 0, "packets": 1, "rate_numerator": rate or 1,
                "rate_denominator": 1, "rate_source": 1 if rate else 6, "input_interface": interfaces[0],
                "output_interface": interfaces[1], "flow_direction": 255, "next_hop": NOTHING, "source_as": 0,
                "destination_as": 0, "tcp_flags": 0, "flags": 0} | found
        if flow["octets"] >= 2**48 // flow["rate_numerator"]:
            self.faulted_records += 1
            return
        self.flows.append(flow)


@dataclass(frozen=True)
class Context:
    """What a datagram's header says."""

    protocol: int
    exporter: bytes
    domain: int
    received: int
    exported: int
    uptime: int
    header_rate: int


def _u(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _keep(values: dict[str, Any], enterprise: int, element: int, data: bytes) -> None:
    """A field's value, if it is of use and has a length that its type can have; the first of several counts."""
    if enterprise == 29305 and element in REVERSED and 1 <= len(data) <= 8 and (
            element not in TIMES_OF_EIGHT or len(data) == 8):
        values.setdefault(REVERSED[element], _u(data))
    if enterprise == 6871 and element == 21 and 1 <= len(data) <= 8:
        values.setdefault("reverse_delay", _u(data))
    if enterprise == 9 and element in OF_CISCO and 1 <= len(data) <= 8:
        values.setdefault(OF_CISCO[element], _u(data))
    if enterprise == 9 and element in CISCO_ADDRESSES and len(data) == CISCO_ADDRESSES[element][1]:
        values.setdefault(CISCO_ADDRESSES[element][0], data)
    if enterprise != 0:
        return
    if element in SECTIONS:
        values.setdefault(f"section {SECTIONS[element]}", data)
    elif element in ADDRESSES:
        name, size = ADDRESSES[element]
        if len(data) == size:
            values.setdefault(name, data)
    elif element in FLOW_NUMBERS and 1 <= len(data) <= 8 and (element not in TIMES_OF_EIGHT or len(data) == 8):
        values.setdefault(FLOW_NUMBERS[element], _u(data))


def _rate(v: dict[str, Any]) -> tuple[int, int] | None:
    if v.get("interval"):
        rate = (v["interval"], 1)
    elif v.get("random"):
        rate = (v["random"], 1)
    elif v.get("pinterval"):
        rate = (v["pinterval"] + v.get("pspace", 0), v["pinterval"])
        if max(v["pinterval"], v.get("pspace", 0)) >= 2**32:
            return None
    elif v.get("size") and 2**63 > v.get("population", 0) >= v["size"]:
        rate = (v["population"], v["size"])
    else:
        return None
    common = gcd(*rate)
    reduced = rate[0] // common, rate[1] // common
    return reduced if max(reduced) < 2**32 else None


def _counts(v: dict[str, Any]) -> tuple[tuple[int, int, int, int], int, bool] | None:
    packets = v.get("packets", 0)
    if "octets" in v:
        return ((v["octets"], packets, v.get("reverse_octets", 0), v.get("reverse_packets", 0)), 0, "reverse_octets" in v)
    if "initiator" in v or "responder" in v:
        return ((v.get("initiator", 0), v.get("initiator_packets", packets), v.get("responder", 0),
                 v.get("responder_packets", 0)), 0, "responder" in v)
    if "out_octets" in v:
        return (v["out_octets"], v.get("out_packets", packets), 0, 0), 0, False
    if "layer2" in v:
        header = v.get("link_header") or 14 + 4 * bool(v.get("vlan")) + 4 * bool(v.get("cvlan"))
        return (max(v["layer2"] - max(packets, 1) * header, 0), packets, 0, 0), 2, False
    return None


def _ports(v: dict[str, Any], protocol: int) -> tuple[int, int]:
    for number, family in ((1, "4"), (58, "6")):
        if protocol == number:
            code = v.get("dport", 0)
            if f"icmp{family}" in v:
                code = v[f"icmp{family}"]
            elif f"type{family}" in v:
                code = v[f"type{family}"] * 256 | v.get(f"code{family}", 0)
            elif number == 58 and "icmp4" in v:  # exporters that have one element for both
                code = v["icmp4"]
            return 0, code & 0xFFFF
    prefix = {17: "u", 6: "t"}.get(protocol, "?")
    return (v.get("sport", v.get(prefix + "sport", 0)) & 0xFFFF, v.get("dport", v.get(prefix + "dport", 0)) & 0xFFFF)


def _answer(flow: dict[str, Any], v: dict[str, Any], octets: int, packets: int) -> dict[str, Any]:
    """The other direction of a record with two."""
    other = dict(flow, octets=octets, packets=packets, flags=flow["flags"] | 16, next_hop=NOTHING)
    pairs = [("source_address", "destination_address"), ("input_interface", "output_interface"),
             ("source_as", "destination_as")]
    if flow["protocol"] not in (1, 58):
        pairs.append(("source_port", "destination_port"))
    for one, two in pairs:
        other[one], other[two] = flow[two], flow[one]
    other["flow_direction"] = {0: 1, 1: 0}.get(flow["flow_direction"], 255)
    if "reverse_tos" in v:
        other["tos"] = v["reverse_tos"] & 0xFF
    if flow["protocol"] == 6 and "reverse_tcp_flags" in v:
        other["tcp_flags"] = v["reverse_tcp_flags"] & 0xFFFF
    return other


def _times_of_event(v: dict[str, Any], start: int, end: int) -> tuple[int, int]:
    """A firewall's update tells what came just before it; a flow ends when it is deleted."""
    seen = v.get("seen_ms") or (v.get("seen_ntp") and _ntp(v["seen_ntp"])) or (v.get("seen_s") or 0) * 1000
    if not seen:
        return start, end
    if v["firewall_event"] == 5:
        return seen, seen
    told = {"end_ms", "end_s", "end_ntp", "end_up", "end_delta", "duration_ms", "duration_us"} & set(v)
    return start, end if told else max(start, seen)


def _absolute(v: dict[str, Any], end: str, exported: int) -> int | None:
    if v.get(f"{end}_ms"):
        return int(v[f"{end}_ms"])
    if v.get(f"{end}_ntp"):
        return _ntp(v[f"{end}_ntp"])
    if v.get(f"{end}_s"):
        return int(v[f"{end}_s"]) * 1000
    if f"{end}_delta" in v:
        return exported - int(v[f"{end}_delta"]) // 1000
    return None


def _ntp(value: int) -> int:
    seconds, part = divmod(value, 2**32)
    era = 0 if seconds >= 2_208_988_800 else 2**32
    return (seconds + era - 2_208_988_800) * 1000 + int(Fraction(part, 2**32) * 1000)


def _since_boot(uptime: int, c: Context) -> int:
    if uptime > c.uptime + 60_000:
        uptime -= 2**32
    return c.exported - c.uptime + uptime


def _after(instant: int, exported: int) -> int:
    while exported - instant >= 2**32:
        instant += 2**32
    return instant
