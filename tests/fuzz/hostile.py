"""Hostile datagrams by class, made from the protocols' own rules: lies about counts and lengths, floods, bombs, loops.

Each is a sequence of payloads of one exporter. `calm` ones are a few datagrams; `flood` ones fill tables and take longer.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import NamedTuple

from exports import (
    BASIC,
    basic,
    ethernet,
    flow_sample,
    framed,
    ipfix,
    ipfix_options_template,
    ipv4_packet,
    raw_header,
    sflow,
    template,
    v5,
    v5_record,
    v9,
    v9_options_template,
)

PAYLOAD_MAX = 65_507


class Hostile(NamedTuple):
    """A name that tells the trick, and what the exporter sends."""

    name: str
    payloads: list[bytes]


def _filled(head: bytes, unit: bytes, size: int = PAYLOAD_MAX) -> bytes:
    return head + unit * ((size - len(head)) // len(unit))


def _v9_filled(unit: bytes, sequence: int = 0, source: int = 7) -> bytes:
    return _filled(v9(sequence=sequence, source=source), unit)


def _ipfix_filled(unit: bytes, sequence: int = 0, domain: int = 7) -> bytes:
    return ipfix(unit * ((PAYLOAD_MAX - 16) // len(unit)), sequence=sequence, domain=domain)


# NetFlow v1, v5, v7 ---------------------------------------------------------------------------------------------------
def _fixed() -> Iterator[Hostile]:
    for version, head, stride in ((1, 16, 52), (5, 24, 48), (7, 24, 52)):
        for count in (0, 1, 30, 31, 255, 32768, 65535):
            for records in (0, 1, 30, 1300):
                body = struct.pack(">HHIII", version, count, 1, 1_790_000_000, 0)
                payload = (body + bytes(head))[:head] + b"\xff" * min(records * stride, PAYLOAD_MAX - head)
                yield Hostile(f"v{version}_count_{count}_records_{records}", [payload])
        whole = struct.pack(">HHIII", version, 1, 1, 1_790_000_000, 0) + bytes(head + stride)
        yield Hostile(f"v{version}_cut_everywhere", [whole[:size] for size in range(head + stride)])
    for uptime in (0, 1, 2**31, 2**32 - 1):
        records = [
            v5_record(first, last, octets, packets)
            for first in (0, 2**31, 2**32 - 1)
            for last in (0, 2**32 - 1)
            for octets, packets in ((0, 0), (2**32 - 1, 0), (0, 2**32 - 1))
        ]
        yield Hostile(
            f"v5_times_uptime_{uptime}",
            [
                v5(records, uptime=uptime, seconds=seconds, sampling=sampling)
                for seconds in (0, 1_790_000_000, 2**32 - 1)
                for sampling in (0, 0x3FFF, 0xFFFF)
            ],
        )


# NetFlow v9 and IPFIX: shapes ------------------------------------------------------------------------------------------
def _set_shapes() -> Iterator[Hostile]:
    for make, name in ((v9, "v9"), (ipfix, "ipfix")):
        for identifier in (0, 1, 2, 3, 4, 255, 256, 300, 65535):
            for length in (0, 1, 3, 4, 5, 8, 65535):
                yield Hostile(
                    f"{name}_set_{identifier}_length_{length}",
                    [make(struct.pack(">HH", identifier, length) + bytes(4))],
                )
        yield Hostile(f"{name}_empty_sets", [_v9_filled(framed(256)) if make is v9 else _ipfix_filled(framed(256))])
        padded = [framed(i, bytes(65_000)) for i in (0, 1, 2, 3, 256)]
        yield Hostile(f"{name}_sets_of_padding", [make(one, sequence=n) for n, one in enumerate(padded)])
        yield Hostile(f"{name}_only_a_header", [make() for _ in range(3)])
    for length in (0, 1, 15, 16, 17, 40, 65535):
        whole = ipfix(framed(2, template(256, BASIC)), framed(256, basic()))
        yield Hostile(f"ipfix_length_{length}", [whole[:2] + struct.pack(">H", length) + whole[4:]])
    for name, whole in (
        ("v9", v9(framed(0, template(256, BASIC)), framed(256, basic()))),
        ("ipfix", ipfix(framed(2, template(256, BASIC)), framed(256, basic(), basic()))),
    ):
        yield Hostile(f"{name}_cut_everywhere", [whole[:size] for size in range(len(whole))])


def _template_shapes() -> Iterator[Hostile]:
    for make, kind, options, name in ((v9, 0, 1, "v9"), (ipfix, 2, 3, "ipfix")):
        for count in (0, 1, 2, 100, 1023, 1024, 1025, 16384, 32767, 65535):
            for present in (0, 1, 1023, 1100):
                definition = struct.pack(">HH", 256, count) + struct.pack(">HH", 1, 1) * present
                yield Hostile(
                    f"{name}_template_says_{count}_has_{present}",
                    [make(framed(kind, definition), framed(256, b"\x01" * 5000))],
                )
        for a, b in ((0, 0), (0, 65532), (4, 65532), (65532, 4), (65532, 65532), (3, 5), (1, 0), (65535, 1), (4096, 4)):
            yield Hostile(
                f"{name}_options_{a}_scope_{b}",
                [
                    make(
                        framed(options, struct.pack(">HHH", 256, a, b) + struct.pack(">HH", 34, 4) * 60),
                        framed(256, b"\x02" * 600),
                    )
                ],
            )
        for identifier in (0, 1, 2, 3, 255):
            yield Hostile(
                f"{name}_template_id_{identifier}",
                [make(framed(kind, template(identifier, BASIC)), framed(identifier, basic()))],
            )
        big = [(element, 65534) for element in (1, 2, 8, 12)] * 100
        yield Hostile(
            f"{name}_sum_of_lengths_overflows", [make(framed(kind, template(256, big)), framed(256, bytes(9000)))]
        )
        only_zero = [(element, 0) for element in range(1, 300)]
        yield Hostile(
            f"{name}_no_length_at_all", [make(framed(kind, template(256, only_zero)), framed(256, bytes(9000)))]
        )
        repeated = [(8, 4), (12, 4)] + [(1, 1)] * 1000
        yield Hostile(
            f"{name}_one_element_a_thousand_times",
            [make(framed(kind, template(256, repeated)), framed(256, b"\x01" * 1008 * 60))],
        )
        every = [(element, size) for element in range(1, 500) for size in (1,)]
        yield Hostile(
            f"{name}_every_element_in_one_octet",
            [make(framed(kind, template(256, every)), framed(256, b"\x07" * 499 * 120))],
        )
        one = template(256, [(4, 1)])
        yield Hostile(
            f"{name}_records_of_one_octet",
            [make(framed(kind, one)), make(framed(256, b"\x01" * (PAYLOAD_MAX - 24)), sequence=1)],
        )
        shortest = template(256, [(8, 4), (12, 4), (1, 1)])
        yield Hostile(
            f"{name}_shortest_flows",
            [make(framed(kind, shortest)), make(framed(256, b"\x01" * (PAYLOAD_MAX - 24)), sequence=1)],
        )
        both = template(256, [(8, 4), (12, 4), (231, 1), (232, 1)])
        yield Hostile(
            f"{name}_shortest_flows_of_two_directions",
            [make(framed(kind, both)), make(framed(256, b"\x01" * (PAYLOAD_MAX - 24)), sequence=1)],
        )


def _free_fields() -> Iterator[Hostile]:
    """Fields that cost nothing in a record, but something in a loop."""
    for zeros in (1, 100, 1000, 1023):
        for place in (0, zeros // 2, zeros):
            fields = [(5, 0)] * zeros
            fields.insert(place, (82, 65535))
            yield Hostile(
                f"ipfix_{zeros}_fields_of_nothing_and_one_variable_at_{place}",
                [ipfix(framed(2, template(256, fields))), ipfix(framed(256, bytes(60_000)), sequence=1)],
            )
            fields[place] = (4, 1)
            yield Hostile(
                f"v9_{zeros}_fields_of_nothing_and_one_octet_at_{place}",
                [v9(framed(0, template(256, fields))), v9(framed(256, bytes(60_000)), sequence=1)],
            )
    fields = [(82, 65535)] + [(5, 0)] * 500 + [(8, 4), (12, 4), (1, 1)] + [(6, 0)] * 500
    yield Hostile(
        "ipfix_flows_among_fields_of_nothing",
        [ipfix(framed(2, template(256, fields))), ipfix(framed(256, bytes(60_000)), sequence=1)],
    )
    options = [(302, 65535)] + [(5, 0)] * 1000 + [(305, 1)]
    yield Hostile(
        "ipfix_options_among_fields_of_nothing",
        [ipfix(framed(3, ipfix_options_template(256, options))), ipfix(framed(256, bytes(60_000)), sequence=1)],
    )


def _variable_length() -> Iterator[Hostile]:
    two = [(82, 65535), (83, 65535)]
    for name, data in (
        ("zero", b"\0" * 60_000),
        ("ff", b"\xff" * 60_000),
        ("long_of_zero", b"\xff\0\0" * 20_000),
        ("long_of_65535", b"\xff\xff\xff" * 20_000),
        ("254", b"\xfe" * 60_000),
        ("cut_in_the_length", b"\0\xff\0"),
        ("cut_in_the_long_length", b"\0\xff"),
        ("one", b"\1" * 59_999),
    ):
        yield Hostile(f"ipfix_variable_{name}", [ipfix(framed(2, template(256, two)), framed(256, data[:60_000]))])
    many = [(element, 65535) for element in range(400, 1400)]
    yield Hostile(
        "ipfix_a_thousand_variable_fields",
        [ipfix(framed(2, template(256, many))), ipfix(framed(256, bytes(60_000)), sequence=1)],
    )
    addresses = [(8, 65535), (12, 65535), (1, 65535)]
    yield Hostile(
        "ipfix_variable_addresses",
        [ipfix(framed(2, template(256, addresses)), framed(256, b"\4\1\2\3\4\4\5\6\7\x08\2\1\0" * 100, b"\xff"))],
    )


def _lists() -> Iterator[Hostile]:
    """RFC 6313: lists in lists, of themselves, of nothing, longer than what holds them."""
    inside = {
        "basic_of_itself": struct.pack(">BHH", 3, 291, 65535),
        "sub_of_itself": struct.pack(">BH", 3, 256),
        "multi_of_itself": struct.pack(">BHH", 3, 256, 65535),
        "basic_of_no_length": struct.pack(">BHH", 0, 8, 0),
        "sub_of_unknown": struct.pack(">BH", 255, 65535),
        "empty": b"",
        "one_octet": b"\3",
    }
    for element in (291, 292, 293):
        fields = template(256, [(8, 4), (12, 4), (1, 4), (element, 65535)])
        for name, head in inside.items():
            for depth in (1, 50):
                nested = head
                for _ in range(depth):
                    nested = head + bytes([min(len(nested), 254)]) + nested[:254]
                body = (
                    bytes([len(nested)]) + nested
                    if len(nested) < 255
                    else b"\xff" + struct.pack(">H", len(nested)) + nested
                )
                yield Hostile(
                    f"ipfix_list_{element}_{name}_{depth}_deep",
                    [ipfix(framed(2, fields), framed(256, basic()[:12] + body, basic()[:12] + b"\xff\xff\xff"))],
                )


def _enterprises() -> Iterator[Hostile]:
    for enterprise in (0, 1, 29305, 2**31, 2**32 - 1):
        specifier = struct.pack(">HHI", 0x8001, 4, enterprise)
        yield Hostile(
            f"ipfix_enterprise_{enterprise}",
            [ipfix(framed(2, struct.pack(">HH", 256, 3) + specifier * 3), framed(256, bytes(120)))],
        )
        yield Hostile(
            f"ipfix_enterprise_{enterprise}_cut",
            [ipfix(framed(2, (struct.pack(">HH", 256, 3) + specifier * 3)[:-cut])) for cut in range(1, 12)],
        )


# NetFlow v9 and IPFIX: floods ------------------------------------------------------------------------------------------
def _template_floods() -> Iterator[Hostile]:
    for make, kind, name in ((v9, 0, "v9"), (ipfix, 2, "ipfix")):
        count = (PAYLOAD_MAX - 24) // 8
        payloads = []
        for domain in range(4):
            many = b"".join(template(256 + n, [(4, 1)]) for n in range(count))
            payloads.append(make(framed(kind, many), sequence=domain, **{"source" if make is v9 else "domain": domain}))
        yield Hostile(f"{name}_templates_by_the_thousand", payloads)
        turns = b"".join(framed(kind, template(256, [(4, 1 + n % 2)])) for n in range((PAYLOAD_MAX - 24) // 12))
        yield Hostile(f"{name}_one_template_redefined_by_turns", [make(turns), make(turns, sequence=1)])
        using = b"".join(
            framed(kind, template(256, [(8, 4), (12, 4), (1, 1 + n % 2)])) + framed(256, b"\1" * 10)
            for n in range((PAYLOAD_MAX - 24) // 34)
        )
        yield Hostile(f"{name}_redefined_between_its_data", [make(using), make(using, sequence=1)])
    again = framed(2, template(256, BASIC))
    yield Hostile("ipfix_the_same_template_again_and_again", [_ipfix_filled(again)])


def _withdrawals() -> Iterator[Hostile]:
    all_data, all_options = framed(2, struct.pack(">HH", 2, 0)), framed(3, struct.pack(">HH", 3, 0))
    define = [
        ipfix(framed(2, b"".join(template(256 + n, [(4, 1)]) for n in range(8000))), sequence=0, domain=domain)
        for domain in range(8)
    ]
    yield Hostile("ipfix_withdraws_all_in_every_set", [*define, _ipfix_filled(all_data), _ipfix_filled(all_options, 1)])
    one = framed(2, template(300, [(4, 1)]))
    yield Hostile("ipfix_defines_and_withdraws_all_by_turns", [*define, _ipfix_filled(one + all_data)])
    yield Hostile(
        "ipfix_withdraws_all_of_many_in_one_set",
        [*define, ipfix(framed(2, struct.pack(">HH", 2, 0) * 16_000), sequence=1)],
    )
    yield Hostile(
        "ipfix_withdraws_each",
        [*define, ipfix(framed(2, b"".join(struct.pack(">HH", 256 + n, 0) for n in range(16_000))), sequence=1)],
    )
    yield Hostile(
        "ipfix_withdraws_what_is_reserved",
        [
            ipfix(framed(kind, struct.pack(">HH", identifier, 0) * 100))
            for kind in (2, 3)
            for identifier in (1, 2, 3, 4, 255)
        ],
    )
    waiting = [ipfix(framed(300, bytes(50)), sequence=n) for n in range(20)]
    yield Hostile(
        "ipfix_withdraws_what_waits",
        [*waiting, ipfix(all_data), ipfix(framed(2, struct.pack(">HH", 300, 0))), ipfix(one), ipfix(all_data)],
    )


def _samplers() -> Iterator[Hostile]:
    def v9_options(fields: list[tuple[int, int]], records: Iterator[bytes] | list[bytes], sequence: int) -> bytes:
        return v9(
            framed(1, v9_options_template(256, [(1, 4)], fields) + bytes(2)), framed(256, *records), sequence=sequence
        )

    floods = []
    for block in range(8):
        records = [struct.pack(">III", 0, block * 5000 + n, 1 + n) for n in range(5000)]
        floods.append(v9_options([(48, 4), (34, 4)], records, block))
    yield Hostile("v9_samplers_by_the_thousand", floods)
    turning = [struct.pack(">III", 0, 1, 1 + n) for n in range(5000)]
    yield Hostile(
        "v9_one_sampler_changes_in_every_record", [v9_options([(48, 4), (34, 4)], turning, n) for n in range(4)]
    )
    for rate in (0, 1, 2**31, 2**32 - 1):
        yield Hostile(
            f"v9_sampling_rate_{rate}",
            [
                v9_options([(34, 4)], [struct.pack(">II", 0, rate)], 0),
                v9(framed(0, template(257, BASIC)), framed(257, basic(2**31)), sequence=1),
            ],
        )
    for size, population in (
        (0, 0),
        (0, 1),
        (1, 0),
        (2**32 - 1, 1),
        (1, 2**63),
        (2**63, 2**64 - 1),
        (2**64 - 1, 2**64 - 1),
    ):
        fields = [(302, 8), (309, 8), (310, 8)]
        yield Hostile(
            f"ipfix_{size}_of_{population}",
            [
                ipfix(
                    framed(3, ipfix_options_template(256, fields)),
                    framed(256, *(struct.pack(">QQQ", n, size, population) for n in range(50))),
                )
            ],
        )
    colliding = [struct.pack(">QI", selector, 7) for selector in _colliding_selectors(5000)]
    yield Hostile(
        "ipfix_selectors_of_one_hash",
        [ipfix(framed(3, ipfix_options_template(256, [(302, 8), (305, 4)])), framed(256, *colliding))],
    )


def _unmixed(value: int) -> int:
    """The inverse of the finaliser of splitmix64: whoever knows a table's hash can aim at one place of it."""
    mask = 2**64 - 1

    def unshift(v: int, by: int) -> int:
        out = v
        for _ in range(64 // by + 1):
            out = v ^ (out >> by)
        return out & mask

    value = unshift(value, 31)
    value = value * pow(0x94D049BB133111EB, -1, 2**64) & mask
    value = unshift(value, 27)
    value = value * pow(0xBF58476D1CE4E5B9, -1, 2**64) & mask
    return unshift(value, 30)


def _mixed(value: int) -> int:
    mask = 2**64 - 1
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & mask
    value = (value ^ value >> 27) * 0x94D049BB133111EB & mask
    return value ^ value >> 31


def _colliding_selectors(count: int) -> list[int]:
    """Selector ids of the second domain that a decoder sees, whose hashes agree in the low 32 bits."""
    return [_unmixed(n << 32 | 5) ^ _mixed(1 * 2 + 1) for n in range(count)]


def _sequences() -> Iterator[Hostile]:
    chosen = random.Random(1)
    data = framed(2, template(256, BASIC)) + framed(256, basic())
    numbers = [chosen.choice([0, 1, 2**31, 2**31 - 1, 2**32 - 1, chosen.randrange(2**32), n]) for n in range(400)]
    yield Hostile("ipfix_sequence_chaos", [ipfix(data, sequence=n) for n in numbers])
    yield Hostile(
        "v9_sequence_chaos",
        [
            v9(framed(0, template(256, BASIC)), framed(256, basic()), sequence=n, uptime=chosen.randrange(2**32))
            for n in numbers
        ],
    )
    yield Hostile(
        "v5_sequence_chaos",
        [v5([v5_record(octets=k)], sequence=n, uptime=chosen.randrange(2**32)) for k, n in enumerate(numbers)],
    )
    every_second = [ipfix(data, sequence=2 * n) for n in range(300)]
    yield Hostile("ipfix_gaps_by_the_hundred", every_second + [ipfix(data, sequence=2 * n + 1) for n in range(300)])


def _domains() -> Iterator[Hostile]:
    yield Hostile("domains_by_the_thousand", [ipfix(framed(2, template(256, BASIC)), domain=n) for n in range(3000)])
    yield Hostile("v9_domains_of_one_datagram", [v9(framed(300, bytes(8)), source=n) for n in range(3000)])
    yield Hostile("v5_engines", [v5([v5_record()], engine=n) for n in range(500)])
    yield Hostile("versions", [struct.pack(">H", n) + bytes(60) for n in range(300)])


def _waiting() -> Iterator[Hostile]:
    """Data without a template, and templates that set it free."""
    for make, kind, name in ((v9, 0, "v9"), (ipfix, 2, "ipfix")):
        unknown = [make(*(framed(256 + n, b"\1") for n in range(13_000)), sequence=k) for k in range(8)]
        yield Hostile(
            f"{name}_unknown_sets_of_one_octet", [*unknown, make(framed(kind, template(256, [(4, 1)])), sequence=9)]
        )
        one = [make(*(framed(256, b"\1" * 5) for n in range(7000)), sequence=k) for k in range(12)]
        yield Hostile(
            f"{name}_small_sets_of_one_template", [*one, make(framed(kind, template(256, [(4, 1)])), sequence=99)]
        )
    shapes = {
        "one_octet": [(4, 1)],
        "flows": [(8, 4), (12, 4), (1, 1)],
        "two_directions": [(8, 4), (12, 4), (231, 1), (232, 1)],
        "variable": [(82, 65535)],
        "nothing": [(5, 0)],
        "nothing_and_variable": [(5, 0)] * 1023 + [(82, 65535)],
        "giant": [(82, 65535)] * 2 + [(8, 4)] * 1000,
        "reversed": [(8, 4), (12, 4), (1, 65535)],
    }
    for name, fields in shapes.items():
        filling = [ipfix(framed(256, bytes([n]) * (PAYLOAD_MAX - 20)), sequence=n) for n in range(40)]
        yield Hostile(f"ipfix_bomb_of_{name}", [*filling, ipfix(framed(2, template(256, fields)), sequence=1000)])
    filling = [ipfix(framed(256, bytes(PAYLOAD_MAX - 20)), sequence=n) for n in range(40)]
    options = ipfix_options_template(256, [(302, 2), (305, 1)])
    yield Hostile("ipfix_bomb_of_options", [*filling, ipfix(framed(3, options), sequence=1000)])
    filling = [ipfix(*(framed(256, bytes([n]) * 50) for _ in range(800)), sequence=n) for n in range(60)]
    yield Hostile(
        "ipfix_bomb_of_many_small_sets",
        [*filling, ipfix(framed(2, template(256, [(8, 4), (12, 4), (1, 1)])), sequence=1000)],
    )


# sFlow ------------------------------------------------------------------------------------------------------------------
def _sflow_header(count: int, agent: int = 1, address: bytes = b"\x0a\0\0\1") -> bytes:
    return struct.pack(">II", 5, agent) + address + struct.pack(">IIII", 3, 1, 5000, count)


def _sflow_shapes() -> Iterator[Hostile]:
    good = flow_sample(raw_header(ethernet(ipv4_packet())))
    whole = _sflow_header(1) + good
    yield Hostile("sflow_cut_everywhere", [whole[:size] for size in range(len(whole))])
    for count in (0, 1, 2, 2**31, 2**32 - 1):
        yield Hostile(
            f"sflow_samples_{count}",
            [_sflow_header(count) + good, _sflow_header(count), _sflow_header(count) + good * 50],
        )
    for agent in (0, 1, 2, 3, 2**32 - 1):
        yield Hostile(
            f"sflow_agent_{agent}", [_sflow_header(1, agent) + good, _sflow_header(1, agent, bytes(16)) + good]
        )
    for kind in (0, 1, 2, 3, 4, 5, 6, 0x1001, 2**32 - 1):
        for length in (0, 1, 3, 4, 31, 32, 43, 44, 2**31, 2**32 - 4, 2**32 - 1):
            sample = struct.pack(">II", kind, length)
            yield Hostile(
                f"sflow_sample_{kind}_length_{length}",
                [_sflow_header(1) + sample, _sflow_header(2) + sample + bytes(80), _sflow_header(3) + sample + good],
            )
        yield Hostile(
            f"sflow_samples_of_nothing_{kind}", [_filled(_sflow_header(2**32 - 1), struct.pack(">II", kind, 0))]
        )
        yield Hostile(
            f"sflow_short_samples_{kind}",
            [_filled(_sflow_header(2**32 - 1), struct.pack(">II", kind, 32) + bytes(28) + b"\xff" * 4)],
        )


def _sflow_records() -> Iterator[Hostile]:
    for kind in (0, 1, 2, 3, 4, 1001, 1002, 1003, 1004, 1006, 1012, 1021, 0xFFFFFFFF):
        for length in (0, 1, 4, 15, 16, 2**31, 2**32 - 1):
            record = struct.pack(">II", kind, length)
            yield Hostile(
                f"sflow_record_{kind}_length_{length}",
                [sflow(flow_sample(record, record + bytes(64)), sequence=n) for n in (1, 2)],
            )
        nothing = struct.pack(">IIIIIIII", 1, 1, 100, 1000, 0, 1, 2, 2**32 - 1) + struct.pack(">II", kind, 0) * 8000
        yield Hostile(
            f"sflow_records_of_nothing_{kind}", [_sflow_header(1) + struct.pack(">II", 1, len(nothing)) + nothing]
        )
    for segments, each in (
        (2**32 - 1, 0),
        (2**32 - 1, 2**32 - 1),
        (1, 2**30),
        (1, 2**31),
        (8000, 0),
        (4000, 1),
        (0, 0),
    ):
        path = (struct.pack(">II", 2, each) + bytes(4 * min(each, 1))) * min(segments, 7000)
        body = struct.pack(">IIIIII", 1, 0x0A000001, 1, 2, 3, segments) + path
        yield Hostile(
            f"sflow_path_of_{segments}_with_{each}",
            [sflow(flow_sample(struct.pack(">II", 1003, len(body)) + body, raw_header(ethernet(ipv4_packet()))))],
        )
    gateway = struct.pack(">IIIIIII", 1, 0x0A000001, 1, 2, 3, 2**32 - 1, 0)
    many = struct.pack(">II", 1003, 1 << 15) + (gateway + struct.pack(">II", 1, 0) * 8000)[: 1 << 15]
    yield Hostile("sflow_path_without_end", [sflow(flow_sample(many, many[:3000]))])
    for length in (0, 1, 2**31, 2**32 - 1):
        for stripped in (0, 4, 2**32 - 1):
            yield Hostile(
                f"sflow_frame_{length}_less_{stripped}",
                [
                    sflow(flow_sample(raw_header(ethernet(ipv4_packet(total=total)), length, stripped), rate=rate))
                    for total in (0, 1, 65535)
                    for rate in (0, 1, 2**32 - 1)
                ],
            )
    for held in (0, 1, 13, 14, 2**31, 2**32 - 1):
        record = struct.pack(">IIIIII", 1, 16 + 60, 1, 100, 4, held) + ethernet(ipv4_packet())[:60].ljust(60, b"\0")
        yield Hostile(f"sflow_header_of_{held}", [sflow(flow_sample(record))])


def _frames() -> Iterator[Hostile]:
    """What a sampled header may hold that leads a reader in circles or beyond its end."""

    def sampled(name: str, *frames: bytes) -> Hostile:
        return Hostile(
            f"sflow_frame_{name}", [sflow(flow_sample(raw_header(frame)), sequence=n) for n, frame in enumerate(frames)]
        )

    for tag in (0x8100, 0x88A8, 0x9100):
        yield sampled(f"tags_{tag:x}", *(bytes(12) + struct.pack(">HH", tag, 1) * depth for depth in (1, 7, 8, 9, 300)))
    yield sampled(
        "mpls",
        *(ethernet(struct.pack(">I", 16 << 12 | 64) * depth, 0x8847) for depth in (1, 16, 300)),
        *(
            ethernet(struct.pack(">I", 16 << 12 | 0x100) + bytes([nibble << 4]) + bytes(40), 0x8847)
            for nibble in range(16)
        ),
    )
    yield sampled(
        "pppoe",
        *(
            ethernet(struct.pack(">BBHHH", 0x11, 0, 1, 2, kind) + ipv4_packet(), 0x8864)
            for kind in (0x21, 0x57, 0, 0xFFFF)
        ),
    )
    six = struct.pack(">IHBB", 6 << 28, 100, 0, 64) + bytes(32)
    for following in (0, 43, 44, 51, 60, 135, 139, 140, 4, 41, 47):
        chain = struct.pack(">BB6x", following, 0)
        yield sampled(
            f"extension_{following}",
            *(
                ethernet(six[:6] + bytes([following]) + six[7:] + chain * depth, 0x86DD)
                for depth in (0, 1, 15, 16, 17, 200)
            ),
            ethernet(six[:6] + bytes([following]) + six[7:] + bytes([following, 255]) + bytes(6), 0x86DD),
        )
    four = ipv4_packet()
    for inner in (4, 41, 47, 17):
        head = four[:9] + bytes([inner]) + four[10:20]
        yield sampled(f"tunnel_{inner}", *(ethernet(head * depth) for depth in (1, 2, 10, 100)))
    gre = struct.pack(">HH", 0, 0x0800)
    yield sampled(
        "gre",
        *(ethernet((four[:9] + b"\x2f" + four[10:20] + gre) * depth) for depth in (1, 2, 50)),
        ethernet(four[:9] + b"\x2f" + four[10:20] + b"\xff\xff\x08\x00"),
        *(ethernet(four[:9] + b"\x2f" + four[10:20] + gre)[:size] for size in range(34, 40)),
    )
    vxlan = struct.pack(">HHHHII", 1, 4789, 1000, 0, 0x08000000, 5 << 8) + bytes(12) + b"\x08\0"
    yield sampled(
        "vxlan",
        *(ethernet((four[:9] + b"\x11" + four[10:20] + vxlan) * depth) for depth in (1, 2, 20)),
        *(ethernet(four[:9] + b"\x11" + four[10:20] + vxlan)[:size] for size in range(34, 64, 3)),
    )
    for nibbles in range(256):
        if nibbles >> 4 in (0, 4, 6) and nibbles & 15 in (0, 4, 5, 6, 15):
            yield sampled(
                f"version_{nibbles:02x}", *(ethernet(bytes([nibbles]) + four[1:], kind) for kind in (0x0800, 0x86DD))
            )
    whole = ethernet(four)
    yield sampled("cut_everywhere", *(whole[:size] for size in range(len(whole))))


# everything ---------------------------------------------------------------------------------------------------------------
def _noise() -> Iterator[Hostile]:
    chosen = random.Random(2)
    for prefix, name in (
        (b"\0\1", "v1"),
        (b"\0\5", "v5"),
        (b"\0\7", "v7"),
        (b"\0\x09", "v9"),
        (b"\0\x0a", "ipfix"),
        (b"\0\0\0\5", "sflow"),
        (b"", "any"),
    ):
        yield Hostile(f"{name}_noise", [prefix + chosen.randbytes(chosen.randrange(0, 1500)) for _ in range(60)])
        yield Hostile(f"{name}_giant_noise", [prefix + chosen.randbytes(PAYLOAD_MAX - len(prefix))])
        for octet in (0, 1, 255):
            yield Hostile(f"{name}_giant_of_{octet}", [prefix + bytes([octet]) * (PAYLOAD_MAX - len(prefix))])


def _times() -> Iterator[Hostile]:
    fields = [(8, 4), (12, 4), (1, 8), (2, 8)]
    for start, end, width in (
        (152, 153, 8),
        (150, 151, 4),
        (154, 155, 8),
        (156, 157, 8),
        (158, 159, 4),
        (22, 21, 4),
        (152, 161, 8),
    ):
        values = [0, 1, 2**31, 2 ** (8 * width) - 1, 2 ** (8 * width - 1)]
        layout = {8: ">IIQQQQ", 4: ">IIQQII"}[width]
        records = [
            struct.pack(layout, 1, 2, count, count, a, b)
            for a in values
            for b in values
            for count in (1, 2**63, 2**64 - 1)
        ]
        yield Hostile(
            f"ipfix_times_{start}_{end}",
            [
                ipfix(
                    framed(2, template(256, [*fields, (start, width), (end, width)])), framed(256, *records), seconds=s
                )
                for s in (0, 1_790_000_000, 2**32 - 1)
            ],
        )
        yield Hostile(
            f"v9_times_{start}_{end}",
            [
                v9(framed(0, template(256, [*fields, (start, width), (end, width)])), framed(256, *records), uptime=u)
                for u in (0, 1, 2**32 - 1)
            ],
        )


FLOODS = (_template_floods, _withdrawals, _samplers, _domains, _waiting)
CALM = (
    _fixed,
    _set_shapes,
    _template_shapes,
    _free_fields,
    _variable_length,
    _lists,
    _enterprises,
    _sequences,
    _sflow_shapes,
    _sflow_records,
    _frames,
    _noise,
    _times,
)


def calm() -> Iterator[Hostile]:
    """Tricks of a few datagrams each."""
    for make in CALM:
        yield from make()


def floods() -> Iterator[Hostile]:
    """Tricks that need many datagrams, or giant ones, to fill a table."""
    for make in FLOODS:
        yield from make()


def all_hostile() -> Iterator[Hostile]:
    yield from calm()
    yield from floods()
