"""What exporters count of their own losses: growth since the first reading, by domain."""

from __future__ import annotations

import struct
from typing import Any

from decoding import NOW, feed, kinds
from exports import NOW_S, framed, ipfix, ipfix_options_template, v9, v9_options_template
from harness import shared
from journal_bodies import Datagram

from collector.decoder import Decoder
from collector.kernels.reports import SCOPES_MAX
from collector.settings import CollectorSettings
from collector.state import DecoderState, ExporterRow

FIELDS = [(143, 4), (41, 8), (42, 8), (164, 8), (165, 8), (166, 8), (167, 8), (168, 8)]
TEMPLATE = framed(3, ipfix_options_template(400, FIELDS))
NAMES = ("exported_messages", "exported_records", "ignored_packets", "ignored_octets", "not_sent_flows", "not_sent_packets",
         "not_sent_octets")


def reading(*values: int, scope: int = 1, at: int = 0) -> bytes:
    return ipfix(TEMPLATE, framed(400, struct.pack(">IQQQQQQQ", scope, *values)), seconds=NOW_S + at)


def row(decoder: Decoder) -> ExporterRow:
    (one,) = decoder.state.exporters()
    return one


def grown(decoder: Decoder) -> tuple[Any, ...]:
    return tuple(getattr(row(decoder), name) for name in NAMES)


def test_counters_are_shown_as_growth_since_they_were_first_seen() -> None:
    decoder = Decoder(CollectorSettings())
    feed(decoder, reading(100, 1000, 1, 2, 3, 4, 5))
    assert grown(decoder) == (0,) * 7
    feed(decoder, reading(110, 1300, 1, 2, 5, 9, 700, at=1), block=1)
    assert grown(decoder) == (10, 300, 0, 0, 2, 5, 695)


def test_a_counter_that_begins_anew_is_a_reset_and_one_that_came_late_is_none() -> None:
    decoder = Decoder(CollectorSettings())
    feed(decoder, reading(0, 0, 0, 0, 100, 0, 0), reading(0, 0, 0, 0, 150, 0, 0, at=10), reading(0, 0, 0, 0, 120, 0, 0, at=5))
    assert row(decoder).not_sent_flows == 50
    feed(decoder, reading(0, 0, 0, 0, 7, 0, 0, at=20), reading(0, 0, 0, 0, 9, 0, 0, at=30), block=1)
    assert row(decoder).not_sent_flows == 50 + 7 + 2


def test_scopes_of_one_domain_do_not_reset_each_other() -> None:
    """Two line cards with counters of their own, in turns."""
    decoder = Decoder(CollectorSettings())
    for n in range(4):
        feed(decoder, reading(0, 0, 0, 0, 1000 + n, 0, 0, scope=1, at=2 * n), block=2 * n)
        feed(decoder, reading(0, 0, 0, 0, 10 * n, 0, 0, scope=2, at=2 * n + 1), block=2 * n + 1)
    assert row(decoder).not_sent_flows == 3 + 30


def test_readings_are_kept_over_a_restart() -> None:
    decoder = Decoder(CollectorSettings())
    feed(decoder, reading(0, 0, 0, 0, 100, 0, 0), reading(0, 0, 0, 0, 130, 0, 0, at=1))
    again = Decoder(CollectorSettings(), DecoderState.from_bytes(decoder.state.to_bytes()))
    feed(again, reading(0, 0, 0, 0, 135, 0, 0, at=2), block=1)
    assert row(again).not_sent_flows == 35


def test_cisco_s_v9_options_count_exports_too() -> None:
    template = framed(1, v9_options_template(256, [(1, 2)], [(40, 8), (41, 8), (42, 8)]))
    decoder = Decoder(CollectorSettings())
    for n, (messages, records) in enumerate([(5, 70), (9, 110)]):
        feed(decoder, v9(template, framed(256, struct.pack(">HQQQ", 0, 9999, messages, records)), sequence=n,
                         seconds=NOW_S + n), block=n)
    assert (row(decoder).exported_messages, row(decoder).exported_records) == (4, 40)


def test_a_flood_of_scopes_is_bounded_and_counted() -> None:
    decoder = Decoder(CollectorSettings())
    record = struct.Struct(">IQQQQQQQ")
    decoded = feed(decoder, ipfix(TEMPLATE, framed(400, *(record.pack(scope, *[0] * 7) for scope in range(SCOPES_MAX + 50)))))
    assert kinds(decoded) == {"reports_full": 50}
    assert int(decoder.state.arrays.counts[0]["reports"]) == SCOPES_MAX


def test_what_waited_for_its_template_counts_by_its_own_time() -> None:
    decoder = Decoder(CollectorSettings())
    late = ipfix(framed(400, struct.pack(">IQQQQQQQ", 1, 0, 0, 0, 0, 50, 0, 0)), seconds=NOW_S)
    feed(decoder, late)
    feed(decoder, reading(0, 0, 0, 0, 60, 0, 0, at=1), block=1)
    assert row(decoder).not_sent_flows == 0, "60 was read first, 50 is older"


def test_the_options_of_junos_and_fortinet_are_read() -> None:
    folder = shared("captures", "logstash-plugins__logstash-codec-netflow", "spec", "codecs")
    decoder = Decoder(CollectorSettings())
    for name in ("ipfix_test_juniper_mx240_junos151r6s3_opttpl512.dat", "ipfix_test_juniper_mx240_junos151r6s3_data512.dat"):
        assert not feed(decoder, Datagram((folder / name).read_bytes(), NOW)).faults
    arrays = decoder.state.arrays
    assert int(arrays.counts[0]["reports"]) == 1
    assert sorted(value for value in arrays.readings[0].tolist() if value >= 0) == [76, 76]
