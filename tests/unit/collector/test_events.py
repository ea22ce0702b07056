"""Records of firewalls (NSEL) and NATs (NEL): octets of a connection are counted once over all its events."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from decoding import NOW, column, decode, kinds
from exports import BASIC, basic, framed, ipfix, template, v9
from harness import shared

from core.addresses import parse_address

CREATED, DELETED, DENIED, ALERTED, UPDATED = 1, 2, 3, 4, 5

# Cisco ASA 9.x, NSEL implementation note: connection id, ends, interfaces, ICMP, translated ends, event, extended event,
# event time; update and teardown with the octets of both directions and the time of creation; ACL ids and the user.
ENDS = [(148, 4), (8, 4), (7, 2), (10, 2), (12, 4), (11, 2), (14, 2), (4, 1), (176, 1), (177, 1), (225, 4), (226, 4), (227, 2),
        (228, 2)]
CREATE = [*ENDS, (233, 1), (33002, 2), (323, 8), (152, 8), (33000, 12), (33001, 12), (40000, 20)]
UPDATE = [*ENDS, (233, 1), (33002, 2), (323, 8), (231, 4), (232, 4), (152, 8), (40000, 20)]
TEARDOWN = [*ENDS, (233, 1), (33002, 2), (323, 8), (231, 4), (232, 4), (152, 8), (33000, 12), (33001, 12), (40000, 20)]
DENY = [*ENDS, (233, 1), (33002, 2), (323, 8), (33000, 12), (33001, 12)]


def ends(connection: int = 1) -> bytes:
    return struct.pack(">IIHHIHHBBBIIHH", connection, 0x0A000005, 40_000, 3, 0xC6336401, 443, 4, 6, 0, 0, 0xCB007105,
                       0xC6336401, 61_000, 443)


def event(code: int, extended: int, at: int) -> bytes:
    return struct.pack(">BHQ", code, extended, at)


def life(start: int) -> list[bytes]:
    """create, update, update, delete of one connection: 100 + 200 + 50 octets out, 1000 + 0 + 7 in."""
    acl, user, counts = bytes(24), bytes(20), struct.Struct(">IIQ")
    return [
        framed(263, ends() + event(CREATED, 0, start) + struct.pack(">Q", start) + acl + user),
        framed(264, ends() + event(UPDATED, 0, start + 60_000) + counts.pack(100, 1000, start) + user),
        framed(264, ends() + event(UPDATED, 0, start + 120_000) + counts.pack(200, 0, start) + user),
        framed(265, ends() + event(DELETED, 2014, start + 150_000) + counts.pack(50, 7, start) + acl + user),
        framed(266, ends(2) + event(DENIED, 1001, start + 1) + acl),
    ]


TEMPLATES = framed(0, template(263, CREATE), template(264, UPDATE), template(265, TEARDOWN), template(266, DENY))


def test_a_connection_of_an_asa_is_counted_once_over_its_whole_life() -> None:
    start = NOW - 200_000
    decoded = decode(*(v9(TEMPLATES, one, sequence=n) for n, one in enumerate(life(start))))
    assert (decoded.counts.data_records, decoded.counts.flow_records, decoded.counts.not_a_flow) == (5, 3, 2)
    assert column(decoded, "octets") == [100, 1000, 200, 0, 50, 7]
    inside = parse_address("10.0.0.5")
    out = [row.tobytes() == inside for row in decoded.flows["source_address"]]
    assert out == [True, False] * 3, "before translation: 225 to 228 must not displace the ends"
    assert column(decoded, "source_port") == [40_000, 443] * 3
    times = list(zip(column(decoded, "start"), column(decoded, "end"), strict=True))
    assert times[::2] == [(start + 60_000,) * 2, (start + 120_000,) * 2, (start, start + 150_000)]
    assert not decoded.faults


@pytest.mark.parametrize("element", [233, 40005])
def test_a_total_of_an_older_asa_counts_when_its_connection_is_deleted(element: int) -> None:
    """ASA 8.2 knows no updates: teardown has the octets of the whole connection in element 85."""
    fields = [(8, 4), (12, 4), (4, 1), (element, 1), (323, 8), (85, 4), (152, 8)]

    def record(code: int, octets: int) -> bytes:
        return struct.pack(">IIBBQIQ", 1, 2, 6, code, NOW - 1000, octets, NOW - 61_000)

    decoded = decode(v9(framed(0, template(256, fields)), framed(256, record(CREATED, 0), record(DELETED, 5000),
                                                                 record(DENIED, 60), record(UPDATED, 4000))))
    assert (column(decoded, "octets"), column(decoded, "start"), column(decoded, "end")) == (
        [5000], [NOW - 61_000], [NOW - 1000])
    assert (kinds(decoded), decoded.counts.not_a_flow) == ({"cumulative_counter": 1}, 2)


def test_denied_traffic_did_not_pass_whatever_it_counts() -> None:
    fields = [*BASIC, (233, 1)]
    records = [basic(100 + code, more=bytes([code])) for code in (0, CREATED, DELETED, DENIED, ALERTED, UPDATED)]
    decoded = decode(ipfix(framed(2, template(256, fields)), framed(256, *records)))
    assert column(decoded, "octets") == [100, 101, 102, 104, 105]
    assert decoded.counts.not_a_flow == 1


def test_the_events_of_a_barracuda_firewall_are_flows_where_they_count() -> None:
    folder = shared("captures", "logstash-plugins__logstash-codec-netflow", "spec", "codecs")
    payloads = [(folder / f"ipfix_test_barracuda_{name}.dat").read_bytes() for name in ("tpl", "data256")]
    decoded = decode(*payloads)
    records = [payloads[1][20 + 72 * n : 92 + 72 * n] for n in range(8)]
    told = [(int.from_bytes(r[47:55], "big"), int.from_bytes(r[55:63], "big"), r[63]) for r in records]
    expected = [octets for octets, packets, code in told if code != DENIED and (octets or packets or code not in (1, 4))]
    assert column(decoded, "octets") == expected
    assert decoded.counts.data_records == 8
    assert decoded.counts.not_a_flow == 8 - len(expected)


# NAT ------------------------------------------------------------------------------------------------------------------
NEL = [(323, 8), (8, 4), (225, 4), (12, 4), (226, 4), (7, 2), (227, 2), (11, 2), (228, 2), (234, 4), (4, 1), (230, 1)]


def nel(code: int) -> bytes:
    ends_of_it = (0x0A000005, 0xCB007105, 0xC6336401, 0xC6336401, 40_000, 61_000, 443, 443)
    return struct.pack(">QIIIIHHHHIBB", NOW, *ends_of_it, 0, 6, code)


@pytest.mark.parametrize("make", [lambda *sets: v9(framed(0, template(260, NEL)), *sets),
                                  lambda *sets: ipfix(framed(2, template(260, NEL)), *sets)])
def test_nat_events_without_octets_are_no_flows_and_no_faults(make: Any) -> None:
    decoded = decode(make(framed(260, *(nel(code) for code in range(1, 19)))))
    assert (decoded.counts.data_records, decoded.counts.not_a_flow, decoded.counts.flows) == (18, 18, 0)
    assert not decoded.faults


def test_a_nat_event_with_octets_is_a_flow_between_the_ends_before_translation() -> None:
    """Cisco's NAT logging has 231 and 232 in one template for creation (both 0) and deletion."""
    fields = [(8, 4), (225, 4), (12, 4), (226, 4), (7, 2), (227, 2), (11, 2), (228, 2), (4, 1), (230, 1), (231, 4), (232, 4)]
    head = struct.pack(">IIIIHHHHB", 0x0A000005, 0xCB007105, 0xC6336401, 0xC6336409, 40_000, 61_000, 443, 8443, 6)
    records = head + struct.pack(">BII", 1, 0, 0), head + struct.pack(">BII", 2, 300, 4000)
    decoded = decode(v9(framed(0, template(256, fields)), framed(256, *records)))
    assert column(decoded, "octets") == [300, 4000]
    assert decoded.flows["source_address"][0].tobytes() == parse_address("10.0.0.5")
    assert decoded.flows["destination_address"][0].tobytes() == parse_address("198.51.100.1")
    assert (column(decoded, "source_port"), column(decoded, "destination_port")) == ([40_000, 443], [443, 40_000])
    assert decoded.counts.not_a_flow == 1


def test_translated_addresses_of_mikrotik_stay_beside_the_ends() -> None:
    folder = shared("captures", "logstash-plugins__logstash-codec-netflow", "spec", "codecs")
    decoded = decode(*((folder / f"ipfix_test_mikrotik_{name}.dat").read_bytes() for name in ("tpl", "data258")))
    first = decoded.flows["source_address"][0].tobytes()
    assert first == parse_address("10.10.8.197"), "192.168.128.17 would be the destination"
    assert decoded.flows["destination_address"][0].tobytes() == parse_address("192.168.128.17")
