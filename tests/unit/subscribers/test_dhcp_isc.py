"""dhcpd.leases(5): both families, every state, and what is damaged or just being written."""

from __future__ import annotations

import io

import pytest

from core.addresses import format_prefix
from core.periods import OPEN_END, parse_instant
from subscribers.csv_file import Problems
from subscribers.dhcp import isc
from subscribers.dhcp.entries import Entry, Reading, State

V4 = r"""# The format of this file is documented in the dhcpd.leases(5) manual page.
# This lease file was written by isc-dhcp-4.4.3-P1

# authoring-byte-order entry is generated, DO NOT DELETE
authoring-byte-order little-endian;

failover peer "town" state {
  my state normal at 4 2026/01/01 00:00:00;
  partner state normal at 4 2026/01/01 00:00:00;
}
host static1 {
  dynamic;
  hardware ethernet 00:00:5e:00:53:99;
  fixed-address 192.0.2.99;
}
lease 192.0.2.10 {
  starts 4 2026/01/01 08:00:00;
  ends 4 2026/01/01 20:00:00;
  tstp 4 2026/01/01 20:00:00;
  cltt 4 2026/01/01 08:00:00;
  binding state active;
  next binding state free;
  rewind binding state free;
  hardware ethernet 00:00:5E:00:53:0A;
  uid "\001\000\000^\000S\012";
  set vendor-class-identifier = "MSFT 5.0; {not a brace}";
  option agent.circuit-id "eth 0/1:100";
  option agent.remote-id 0:6:aa:bb:cc:dd:ee:f;
  client-hostname "router \"one\"";
  on expiry {
    if known { log (info, "gone"); } else { set a = "}"; }
  }
}
lease 192.0.2.11 {
  starts epoch 1767254400; # Thu Jan 01 08:00:00 2026
  ends never;
  cltt epoch 1767258000;
  binding state active;
  reserved;
  hardware ethernet 00:00:5e:00:53:0b;
}
lease 192.0.2.12 {
  starts 4 2026/01/01 08:00:00;
  ends 4 2026/01/01 09:30:00;
  tstp 4 2026/01/01 09:30:00;
  cltt 4 2026/01/01 08:30:00;
  binding state free;
  hardware ethernet 00:00:5e:00:53:0c;
}
lease 192.0.2.13 {
  starts 4 2026/01/01 08:00:00;
  ends 5 2026/01/02 08:00:00;
  cltt 4 2026/01/01 08:00:00;
  binding state abandoned;
  next binding state free;
}
lease 192.0.2.14 {
  binding state backup;
}
"""

V6 = r"""server-duid "\000\001\000\001\036\010\262\220\000\000^\000S\001";

ia-na "\001\000\000\000\000\003\000\001\000\000^\000S\001" {
  cltt 4 2026/01/01 08:00:00;
  iaaddr 2001:db8::10 {
    binding state active;
    preferred-life 1800;
    max-life 3600;
    ends 4 2026/01/01 09:00:00;
    set ddns-fwd-name = "x";
  }
  iaaddr 2001:db8::11 {
    binding state expired;
    preferred-life 1800;
    max-life 3600;
    ends 4 2026/01/01 07:30:00;
  }
}
ia-pd 01:00:00:00:00:03:00:01:00:00:5e:00:53:01 {
  cltt 4 2026/01/01 08:20:00;
  iaprefix 2001:db8:100::/56 {
    binding state released;
    preferred-life 1800;
    max-life 3600;
    ends 4 2026/01/01 09:00:00;
  }
}
"""


def read(text: str) -> tuple[list[tuple[int, Entry]], Reading]:
    reading = Reading(Problems("dhcpd.leases"))
    return list(isc.read(io.BytesIO(text.encode("latin-1")), reading)), reading


def clock(text: str) -> int:
    return parse_instant(f"2026-01-01T{text}Z")


def test_every_lease_is_read_with_its_line_times_state_and_client() -> None:
    found, reading = read(V4)
    assert (reading.problems.found, reading.incomplete) == ([], 0)
    assert [(line, format_prefix(entry.prefix), entry.state) for line, entry in found] == [
        (16, "192.0.2.10/32", State.ACTIVE), (34, "192.0.2.11/32", State.ACTIVE), (42, "192.0.2.12/32", State.ENDED),
        (50, "192.0.2.13/32", State.VOID)], "an address that never was used says nothing"
    entries = [entry for _, entry in found]
    assert (entries[0].start, entries[0].seen, entries[0].end) == (clock("08:00:00"), clock("08:00:00"), clock("20:00:00"))
    assert entries[0].client is not None
    assert dict(entries[0].client.identifiers) == {
        "hardware": "00005e00530a", "client-id": "0100005e00530a", "circuit-id": b"eth 0/1:100".hex(),
        "remote-id": "0006aabbccddee0f"}
    assert (entries[1].start, entries[1].seen, entries[1].end) == (clock("08:00:00"), clock("09:00:00"), OPEN_END)
    assert (entries[2].start, entries[2].end) == (clock("08:00:00"), clock("09:30:00"))
    assert entries[3].client is None


def test_addresses_and_prefixes_of_ipv6_have_the_duid_of_their_association() -> None:
    found, reading = read(V6)
    assert reading.problems.found == []
    assert [(format_prefix(entry.prefix), entry.state, entry.start, entry.end) for _, entry in found] == [
        ("2001:db8::10/128", State.ACTIVE, clock("08:00:00"), clock("09:00:00")),
        ("2001:db8::11/128", State.ENDED, clock("07:30:00"), clock("07:30:00")),
        ("2001:db8:100::/56", State.ENDED, clock("08:20:00"), clock("08:20:00"))]
    assert {dict(entry.client.identifiers)["duid"] for _, entry in found if entry.client} == {"0003000100005e005301"}


@pytest.mark.parametrize("state", ["free", "released", "expired", "reset", "backup"])
def test_states_without_a_holder_end_the_time_of_the_last_one(state: str) -> None:
    ((_, entry),), _ = read(V4[V4.index("lease 192.0.2.12"):V4.index("lease 192.0.2.13")].replace("free", state))
    assert entry.state is State.ENDED


@pytest.mark.parametrize("cut", range(V6.index("ia-na"), len(V6) - 1, 7))
def test_a_file_that_is_cut_anywhere_gives_its_whole_entries(cut: int) -> None:
    found, reading = read(V6[:cut])
    assert reading.problems.found == []
    second = V6.index("ia-pd")
    assert len(found) == (0 if cut < second - 1 else 2)
    assert reading.incomplete == (0 if cut in (V6.index("ia-na"), second - 1, second) else 3 if cut < second else 19)


def test_a_cut_quoted_text_is_incomplete_not_damaged() -> None:
    text = V4[:V4.index("; {not a brace}")]
    found, reading = read(text)
    assert (found, reading.problems.found, reading.incomplete) == ([], [], 16)


@pytest.mark.parametrize(("old", "new", "line", "word", "text"), [
    ("ends 4 2026/01/01 20:00:00", "ends 4 2026/01/41 20:00:00", 18, "ends", "is not a time"),
    ("ends 4 2026/01/01 20:00:00", "ends 2026/01/01 20:00:00", 18, "ends", "is not a time"),
    ("binding state active", "binding state lost", 21, "binding", "no binding state"),
    ("hardware ethernet 00:00:5E:00:53:0A", "hardware ethernet zz", 24, "hardware", "neither a quoted text nor octets"),
    ("lease 192.0.2.10 {", "lease 192.0.2.310 {", 16, "lease", "names no address"),
    ("  ends 4 2026/01/01 20:00:00;\n", "", 16, "ends", "has no ends"),
    ('"router \\"one\\""', '"router', 29, "", "no end"),
    ('else { set a = "}"; }\n  }\n}', 'else { set a = "}"; }\n  }\n', 16, "", "no end before the next one in line 34"),
])
def test_damage_is_named_with_its_line_and_the_rest_is_read(old: str, new: str, line: int, word: str, text: str) -> None:
    assert old in V4
    found, reading = read(V4.replace(old, new, 1))
    assert [(one.line, one.column, text in one.problem) for one in reading.problems.found] == [(line, word, True)]
    assert [entry.prefix.address[-1] for _, entry in found] == [11, 12, 13]


def test_a_file_of_another_kind_is_damage_not_memory() -> None:
    _, reading = read("lease " + "x" * 2_000_000)
    assert "this is no lease file" in reading.problems.found[0].problem
    _, reading = read("lease 192.0.2.1 {\n" + "a;\n" * 30_000 + "}\n")
    assert "more than" in reading.problems.found[0].problem


@pytest.mark.parametrize(("text", "octets"), [
    ('"abc"', b"abc"), ('"\\001\\377\\""', b"\x01\xff\""), ('"a\\\\b\\n\\x41"', b"a\\b\nA"), ("0:a:FF", b"\0\x0a\xff")])
def test_octets(text: str, octets: bytes) -> None:
    assert isc.octets(text) == octets
