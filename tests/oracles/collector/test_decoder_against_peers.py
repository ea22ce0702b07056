"""Every flow of the captures, of our own exporter and of scapy-built packets, field by field against nfdump, tshark and scapy.

A peer that reads something otherwise is listed in `peers/differences.py` with the reason; one that is not listed fails,
and so does a listed one that is gone. docs/explanation/capture-differences.md says the same for people.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from harness import ROOT
from peers import differences, nfdump, scapy, tshark
from peers.exchange import (
    NO_TCP_FLAGS,
    WRAPPED,
    Record,
    Session,
    address_of,
    capture_sessions,
    compare,
    is_sflow,
    ours,
    write_pcap,
)

from collector.exporter import commands, encode

NOW_MS = 1_790_000_000_000
PEERS = ("nfdump", "tshark", "scapy")


def records_of(peer: str, folder: Path, numbered: Sequence[Session]) -> list[list[Record] | None]:
    """What a peer says of each session; None: it can't read it at all, or is not asked."""
    if peer == "scapy":
        return [_by_scapy(session) for session in numbered]
    if peer == "tshark":
        write_pcap(folder / "sessions.pcap", numbered)
        found = tshark.flows(folder / "sessions.pcap")
    else:
        found = nfdump.flows(folder, numbered)
    return [found.get(address_of(number), []) for number in range(len(numbered))]


def _by_scapy(session: Session) -> list[Record] | None:
    if is_sflow(session.payloads[0]) or sum(map(len, session.payloads)) > scapy.OCTETS_MAX:
        return None
    try:
        return scapy.flows(session)
    except scapy.Raises:
        return None


def differing(peer: str, folder: Path, numbered: Sequence[Session]) -> dict[str, tuple[frozenset[str], str]]:
    """Session → the fields that differ, and an example."""
    found: dict[str, tuple[frozenset[str], str]] = {}
    for session, theirs in zip(numbered, records_of(peer, folder, numbered), strict=True):
        if theirs is None or (peer == "nfdump" and is_sflow(session.payloads[0])):
            continue  # nfcapd takes no sFlow
        fields, example = compare(theirs, ours(session))
        if fields:
            found[session.name] = frozenset(fields), example
    return found


@pytest.mark.parametrize("peer", PEERS)
def test_every_flow_of_the_captures_is_read_as_the_peer_reads_it(peer: str, tmp_path: Path) -> None:
    found = differing(peer, tmp_path, capture_sessions())
    listed = {one.session: one.fields for one in differences.OF[peer]}
    unlisted = {name: what for name, what in found.items() if listed.get(name) != what[0]}
    assert not unlisted
    assert not set(listed) - set(found), "listed differences that are gone"


def generated() -> list[Session]:
    """Flows of our own exporter, which shares no code with the decoder."""
    made = []
    for protocol in encode.PROTOCOLS:
        for seed in (1, 2):
            columns = commands.random_flows(600, seed, protocol, NOW_MS)
            datagrams = encode.encode(columns, protocol, domain=7, templates_every=10)
            payloads = [bytes(datagrams.payload(index)) for index in range(len(datagrams))]
            made.append(Session(f"{protocol} {seed}", payloads))
    return made


@pytest.mark.parametrize("peer", PEERS)
def test_every_flow_of_our_exporter_is_read_as_the_peer_reads_it(peer: str, tmp_path: Path) -> None:
    chosen = [one if peer != "scapy" else one._replace(payloads=one.payloads[:12]) for one in generated()]
    counted = 0
    for session, theirs in zip(chosen, records_of(peer, tmp_path, chosen), strict=True):
        if theirs is None or (peer == "nfdump" and is_sflow(session.payloads[0])):
            continue
        fields, example = compare(theirs, ours(session))
        assert not fields, (session.name, example)
        counted += len(theirs)
    assert counted > (3000 if peer != "scapy" else 100)


def test_packets_that_scapy_built_hold_what_scapy_was_given() -> None:
    for session, values in scapy.made():
        fields, example = compare(values, ours(session))
        assert not fields, (session.name, example)


def test_what_we_exported_comes_back() -> None:
    """The values that our exporter was given are those that the decoder returns (the peers judge the octets between)."""
    for protocol in encode.PROTOCOLS:
        columns = commands.random_flows(500, 3, protocol, NOW_MS)
        datagrams = encode.encode(columns, protocol, domain=7)
        flows = ours(Session(protocol, [bytes(datagrams.payload(index)) for index in range(len(datagrams))]))
        assert sorted((f["octets"], f["source_port"]) for f in flows) == sorted(
            zip(columns["octets"].tolist(), columns["source_port"].tolist(), strict=True)
        )


def test_every_listed_difference_is_told_to_people() -> None:
    page = (ROOT / "docs" / "explanation" / "capture-differences.md").read_text()
    assert NO_TCP_FLAGS in page
    assert WRAPPED in page
    for peer in PEERS:
        for one in differences.OF[peer]:
            assert one.reason in page, one
            assert one.fields
