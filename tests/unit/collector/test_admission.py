"""Which datagrams are taken: the allow list of exporters and domains, and rate limits; nothing is lost without a name."""

from __future__ import annotations

from typing import Any

import pytest
from decoding import NOW, column, datagrams_of, decode, feed, kinds
from exports import BASIC, basic, flow_sample, framed, ipfix, sflow, template, v5, v5_record, v9
from journal_bodies import Datagram, body_of

from collector.decoder import Decoded, Decoder
from collector.layout import STRANGERS_MAX
from collector.quarantine import entries_of
from collector.settings import Collector, CollectorSettings, Exporter, from_document
from collector.state import DecoderState
from core.addresses import format_address, parse_address
from core.errors import SettingsError

KNOWN, UNKNOWN = "192.0.2.1", "198.51.100.77"


def settings(policy: str = "refuse", rate: int = 0, **exporter: Any) -> CollectorSettings:
    return CollectorSettings(collector=Collector(unknown_exporters=policy, datagrams_per_second_max=rate),
                             exporters=(Exporter(parse_address(KNOWN), **exporter), Exporter(parse_address("2001:db8::1"))))


def refused(decoded: Decoded) -> dict[tuple[str, str], int]:
    return {(format_address(exporter), kind.label): count for exporter, _, kind, count in decoded.faults}


def test_an_exporter_that_is_not_named_is_refused_and_the_balance_closes() -> None:
    decoded = decode(*datagrams_of(v5([v5_record(octets=1)]), source=KNOWN), *datagrams_of(v5([v5_record()]), source=UNKNOWN),
                     *datagrams_of(b"\0\0", source=UNKNOWN), settings=settings())
    c = decoded.counts
    assert (c.datagrams, c.decoded, c.refused, c.faulted, column(decoded, "octets")) == (3, 1, 2, 0, [1])
    assert refused(decoded) == {("::", "exporter_unknown"): 2}
    assert int(decoded.intake["refused"].sum()) == 2


def test_everybody_is_taken_by_default() -> None:
    assert decode(*datagrams_of(v5([v5_record()]), source=UNKNOWN)).counts.decoded == 1


def test_exporters_are_found_by_their_whole_address() -> None:
    addresses = [f"192.0.2.{n}" for n in range(1, 250)] + ["2001:db8::1", "2001:db8:1::", "::1"]
    named = tuple(Exporter(parse_address(address)) for address in addresses[::2])
    known = CollectorSettings(collector=Collector(unknown_exporters="refuse"), exporters=named)
    datagrams = [Datagram(v5([v5_record()]), NOW, address) for address in addresses]
    decoded = Decoder(known).feed(body_of(datagrams), 0)
    assert (decoded.counts.decoded, decoded.counts.refused) == (len(named), len(addresses) - len(named))


def test_a_domain_that_is_not_listed_is_refused() -> None:
    allowed = settings("accept", domains=(7, 9))
    messages = [ipfix(framed(2, template(256, BASIC)), framed(256, basic(domain)), domain=domain) for domain in (7, 8, 9)]
    decoded = decode(*messages, b"\0\0garbage", settings=allowed)
    assert column(decoded, "octets") == [7, 9]
    assert refused(decoded) == {(KNOWN, "domain_unknown"): 1, (KNOWN, "version_unknown"): 1}
    assert (decoded.counts.refused, decoded.counts.faulted) == (1, 1)


def test_a_flood_of_unknown_domains_or_exporters_takes_one_row_each() -> None:
    decoder = Decoder(settings("refuse", domains=(7,)))
    for block in range(4):
        feed(decoder, *(ipfix(domain=100 + 500 * block + n) for n in range(500)), block=2 * block)
        decoder.feed(body_of(Datagram(v5([v5_record()]), NOW, f"10.{block}.{n % 250}.{n // 250}") for n in range(1000)),
                     2 * block + 1)
    rows = [(format_address(row.exporter), row.received, row.refused) for row in decoder.state.exporters()]
    assert rows == [("::", 4000, 4000), (KNOWN, 2000, 2000)]
    assert int(decoder.state.arrays.counts[0]["domains"]) <= 3
    assert len(decoder.state.strangers()) == STRANGERS_MAX


def test_the_busiest_strangers_are_known_by_name() -> None:
    decoder = Decoder(settings())
    datagrams = [Datagram(v5([v5_record()]), NOW + n, f"10.0.{n % 250}.{n // 250}") for n in range(3000)]
    datagrams += [Datagram(v5([v5_record()]), NOW + 5000 + n, UNKNOWN) for n in range(400)]
    decoder.feed(body_of(datagrams), 0)
    first = decoder.state.strangers()[0]
    assert format_address(first.exporter) == UNKNOWN
    assert first.datagrams - first.over <= 400 <= first.datagrams
    assert first.last == NOW + 5399
    again = DecoderState.from_bytes(decoder.state.to_bytes())
    assert again.strangers() == decoder.state.strangers()


def test_settings_of_the_next_run_hold_for_exporters_known_before() -> None:
    decoder = Decoder(CollectorSettings())
    feed(decoder, v5([v5_record()]), source=UNKNOWN)
    strict = Decoder(settings(), DecoderState.from_bytes(decoder.state.to_bytes()))
    assert feed(strict, v5([v5_record()], sequence=1), source=UNKNOWN, block=1).counts.refused == 1
    open_again = Decoder(CollectorSettings(), DecoderState.from_bytes(strict.state.to_bytes()))
    assert feed(open_again, v5([v5_record()], sequence=2), source=UNKNOWN, block=2).counts.decoded == 1


def test_quarantined_datagrams_are_handed_on_as_they_came() -> None:
    payloads = [v5([v5_record(octets=n)], sequence=n) for n in range(40)]
    datagrams = [Datagram(payload, NOW + n, UNKNOWN if n % 2 else KNOWN) for n, payload in enumerate(payloads)]
    decoded = Decoder(settings("quarantine")).feed(body_of(datagrams), 0)
    assert (decoded.counts.decoded, decoded.counts.refused) == (20, 20)
    assert decoded.held.tobytes() == body_of(datagrams[1::2]).tobytes()
    assert sum(1 for _ in entries_of(decoded.held)) == 20


# rate limits ----------------------------------------------------------------------------------------------------------
def test_a_second_holds_as_many_datagrams_as_are_allowed() -> None:
    """100 at once, 10 allowed a second: 10 from what was kept, then one each 100 ms."""
    limited = settings("accept", datagrams_per_second_max=10)
    burst = [Datagram(v5([v5_record()], sequence=n), NOW) for n in range(100)]
    steady = [Datagram(v5([v5_record()], sequence=100 + n), NOW + 50 * (n + 1)) for n in range(40)]
    decoded = decode(*burst, *steady, settings=limited)
    assert (decoded.counts.decoded, decoded.counts.refused) == (10 + 20, 90 + 20)
    assert refused(decoded) == {(KNOWN, "rate_limited"): 110}


def test_a_limit_is_an_exporter_s_over_all_its_domains_and_nobody_else_s() -> None:
    limited = settings("accept", rate=5)
    mine = [Datagram(ipfix(domain=n), NOW, KNOWN) for n in range(20)]
    other = [Datagram(ipfix(domain=n), NOW, "2001:db8::1") for n in range(3)]
    decoded = decode(*mine, *other, settings=limited)
    assert (decoded.counts.decoded, decoded.counts.refused) == (5 + 3, 15)
    unlimited = settings("accept", rate=5, datagrams_per_second_max=0)
    assert decode(*mine, settings=unlimited).counts.refused == 0


def test_what_is_left_of_a_limit_is_kept_over_a_restart() -> None:
    limited = settings("accept", rate=10)
    decoder = Decoder(limited)
    feed(decoder, *(v5([v5_record()], sequence=n) for n in range(8)))
    again = Decoder(limited, DecoderState.from_bytes(decoder.state.to_bytes()))
    assert feed(again, *(v5([v5_record()], sequence=8 + n) for n in range(8)), block=1).counts.decoded == 2


@pytest.mark.parametrize("make", [
    lambda n: v5([v5_record()] * 3, sequence=3 * n), lambda n: v9(framed(0, template(256, BASIC)), sequence=n),
    lambda n: sflow(flow_sample(), sequence=n),
    lambda n: ipfix(framed(2, template(256, BASIC)), framed(256, basic()), sequence=n)])
def test_what_a_limit_refuses_is_not_missing_too(make: Any) -> None:
    decoder = Decoder(settings("accept", rate=5))
    feed(decoder, *(make(n) for n in range(5)), *(make(n) for n in range(5, 50)))
    feed(decoder, *(Datagram(make(50 + n), NOW + 5000 + n) for n in range(3)), block=1)
    (row,) = [row for row in decoder.state.exporters() if row.protocol]
    assert (row.received, row.refused, row.missing, row.restarts) == (53, 45, 0, 0)


def test_a_real_gap_during_a_limit_is_still_missing() -> None:
    decoder = Decoder(settings("accept", rate=5))
    feed(decoder, *(v9(sequence=n) for n in (*range(5), *range(5, 20), *range(24, 30))))
    (row,) = [row for row in decoder.state.exporters() if row.protocol]
    assert (row.refused, row.missing) == (21, 4)


@pytest.mark.parametrize("document", [
    {"collector": {"unknown_exporters": "ignore"}}, {"exporter": [{"address": KNOWN, "domains": [-1]}]},
    {"exporter": [{"address": KNOWN, "domains": list(range(2000))}]}, {"exporter": [{"address": KNOWN, "domains": 7}]},
    {"exporter": [{"address": KNOWN, "repeated": "both"}]}, {"collector": {"datagrams_per_second_max": -1}}])
def test_wrong_settings_are_refused(document: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        from_document(document)


def test_what_can_t_be_read_of_an_unknown_exporter_is_refused_too() -> None:
    assert kinds(decode(*datagrams_of(b"", b"\0\5", source=UNKNOWN), settings=settings())) == {"exporter_unknown": 2}
