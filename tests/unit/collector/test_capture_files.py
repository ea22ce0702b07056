"""Captures of every form give the same datagrams; whatever is cut off or lies about lengths costs only itself."""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from collector.captures import RECEIVED_UNKNOWN, Capture, Source, read_capture
from core.addresses import format_address, parse_address
from core.errors import RatemillError
from storage.journal import HEADER_SIZE

AT_US = 1_790_000_000_123_999
EXPORT = b"\x00\x05" + bytes(range(70))
ENTRY = struct.Struct("<qIHHBBHI16s16s")


class Entry(NamedTuple):
    received: int
    source: str
    source_port: int
    port: int
    transport: int
    flags: int
    payload: bytes


def _entries(path: Path, ports: Sequence[int] = (), source: Source | None = None) -> tuple[list[Entry], Capture]:
    capture, found = Capture(path), []
    for batch in read_capture(capture, source or Source(), tuple(ports)):
        body, at, count = batch.framed[HEADER_SIZE:].tobytes(), 0, 0
        while at < len(body):
            received, length, source_port, port, transport, _, flags, _, address, _ = ENTRY.unpack_from(body, at)
            payload = body[at + 56 : at + 56 + length]
            found.append(Entry(received, format_address(address), source_port, port, transport, flags, payload))
            at += (56 + length + 7) // 8 * 8
            count += 1
        assert (at, count) == (len(body), batch.datagrams)
        assert batch.first_received <= batch.last_received
    assert capture.datagrams == len(found)
    return found, capture


# packets --------------------------------------------------------------------------------------------------------------
def _udp(payload: bytes, port: int = 2055) -> bytes:
    return struct.pack("!HHHH", 50000, port, 8 + len(payload), 0) + payload


def _ipv4(body: bytes, protocol: int = 17, offset: int = 0, more: bool = False, identifier: int = 7,
          source: str = "192.0.2.9") -> bytes:
    place = (0x2000 if more else 0) | offset // 8
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), identifier, place, 64, protocol, 0,
                       ipaddress.IPv4Address(source).packed, ipaddress.IPv4Address("192.0.2.254").packed) + body


def _ipv6(body: bytes, header: int = 17) -> bytes:
    return struct.pack("!IHBB16s16s", 6 << 28, len(body), header, 64, ipaddress.IPv6Address("2001:db8::9").packed,
                       ipaddress.IPv6Address("2001:db8::1").packed) + body


def _ethernet(packet: bytes, vlans: Sequence[tuple[int, int]] = ()) -> bytes:
    kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    tags = b"".join(struct.pack("!HH", *vlan) for vlan in vlans)
    return bytes(12) + tags + struct.pack("!H", kind) + packet


def _pcap(path: Path, frames: Sequence[bytes], link: int = 1, order: str = "<", nanoseconds: bool = False) -> Path:
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    out = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    part = AT_US % 1_000_000 * (1000 if nanoseconds else 1)
    for frame in frames:
        out += struct.pack(f"{order}IIII", AT_US // 1_000_000, part, len(frame), len(frame)) + frame
    path.write_bytes(out)
    return path


def _block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = 12 + len(body)
    return struct.pack(f"{order}II", kind, size) + body + struct.pack(f"{order}I", size)


def _section(order: str, interfaces: Sequence[tuple[int, bytes]], packets: Sequence[tuple[int, int, bytes]]) -> bytes:
    """interfaces: (link, options); packets: (interface, ticks, frame)."""
    out = _block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))
    for link, options in interfaces:
        out += _block(order, 1, struct.pack(f"{order}HHI", link, 0, 65535) + options)
    for number, ticks, frame in packets:
        head = struct.pack(f"{order}IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
        out += _block(order, 6, head + frame)
    return out


EXPECTED = Entry(AT_US // 1000, "192.0.2.9", 50000, 2055, 17, 0, EXPORT)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_pcap_of_either_byte_order_and_resolution_floors_times_to_milliseconds(tmp_path: Path, order: str,
                                                                              nanoseconds: bool) -> None:
    path = _pcap(tmp_path / "a.pcap", [_ethernet(_ipv4(_udp(EXPORT)))], order=order, nanoseconds=nanoseconds)
    assert _entries(path)[0] == [EXPECTED]


FRAMES = {
    "ethernet": (1, _ethernet(_ipv4(_udp(EXPORT)))),
    "vlan": (1, _ethernet(_ipv4(_udp(EXPORT)), [(0x8100, 5)])),
    "qinq": (1, _ethernet(_ipv4(_udp(EXPORT)), [(0x88A8, 5), (0x8100, 6)])),
    "raw": (101, _ipv4(_udp(EXPORT))),
    "raw bsd": (12, _ipv4(_udp(EXPORT))),
    "ipv4": (228, _ipv4(_udp(EXPORT))),
    "null": (0, struct.pack("<I", 2) + _ipv4(_udp(EXPORT))),
    "null of the other byte order": (0, struct.pack(">I", 2) + _ipv4(_udp(EXPORT))),
    "loop": (108, struct.pack(">I", 2) + _ipv4(_udp(EXPORT))),
    "linux cooked": (113, bytes(14) + b"\x08\x00" + _ipv4(_udp(EXPORT))),
    "linux cooked 2": (276, b"\x08\x00" + bytes(18) + _ipv4(_udp(EXPORT))),
    "ethernet with padding": (1, _ethernet(_ipv4(_udp(EXPORT))) + bytes(9)),
}


@pytest.mark.parametrize("name", FRAMES)
def test_every_link_type_leads_to_the_same_datagram(tmp_path: Path, name: str) -> None:
    link, frame = FRAMES[name]
    assert _entries(_pcap(tmp_path / "a.pcap", [frame], link=link))[0] == [EXPECTED]


def test_ipv6_with_extension_headers_is_read(tmp_path: Path) -> None:
    options = struct.pack("!BB6x", 60, 0) + struct.pack("!BB6x", 17, 0) + _udp(EXPORT)
    frames = [_ethernet(_ipv6(_udp(EXPORT))), _ethernet(_ipv6(options, header=0))]
    assert _entries(_pcap(tmp_path / "a.pcap", frames))[0] == [EXPECTED._replace(source="2001:db8::9")] * 2


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_with_several_interfaces_resolutions_and_sections(tmp_path: Path, order: str) -> None:
    frame, other = _ethernet(_ipv4(_udp(EXPORT))), _ipv4(_udp(EXPORT))
    nanoseconds = struct.pack(f"{order}HHB3xHH", 9, 1, 9, 0, 0)
    binary = struct.pack(f"{order}HHB3x", 9, 1, 0x80 | 20) + struct.pack(f"{order}HHq", 14, 8, 1_000_000_000)
    ticks = ((AT_US - 1_000_000_000_000_000) << 20) // 1_000_000 + 1
    data = _section(order, [(1, b""), (101, nanoseconds), (1, binary)],
                    [(0, AT_US, frame), (1, AT_US * 1000 + 999, other), (2, ticks, frame), (9, AT_US, frame)])
    data += _section("<" if order == ">" else ">", [(101, b"")], [(0, AT_US, other)])
    path = tmp_path / "a.pcapng"
    path.write_bytes(data)
    entries, capture = _entries(path)
    assert entries == [EXPECTED] * 4, "the fourth packet names an interface that does not exist"
    assert capture.form == "pcapng"


def test_fragments_in_any_order_are_put_together_and_missing_ones_are_counted(tmp_path: Path) -> None:
    whole = _udp(b"\x00\x0a" + bytes(1998))
    parts = [_ipv4(whole[at : at + 800], offset=at, more=at + 800 < len(whole)) for at in range(0, len(whole), 800)]
    lost = [_ipv4(whole[:800], more=True, identifier=8)]
    frames = [_ethernet(packet) for packet in [parts[2], parts[0], *lost, parts[1]]]
    entries, capture = _entries(_pcap(tmp_path / "a.pcap", frames))
    assert [entry.payload for entry in entries] == [whole[8:]]
    assert capture.fragments_lost == 1
    assert any("lack a fragment" in note for note in capture.notes)


def test_ipv6_fragments_are_put_together(tmp_path: Path) -> None:
    whole = _udp(EXPORT * 3)
    parts = [_ipv6(struct.pack("!BBHI", 17, 0, at | (at + 80 < len(whole)), 99) + whole[at : at + 80], header=44)
             for at in range(0, len(whole), 80)]
    entries, _ = _entries(_pcap(tmp_path / "a.pcap", [_ethernet(part) for part in parts]))
    assert [entry.payload for entry in entries] == [EXPORT * 3]


def _tcp(sequence: int, payload: bytes, flags: int = 0x18) -> bytes:
    return struct.pack("!HHIIBBHHH", 50000, 4739, sequence % 2**32, 0, 5 << 4, flags, 65535, 0, 0) + payload


def test_ipfix_over_tcp_is_cut_into_messages_and_what_is_sent_again_counts_once(tmp_path: Path) -> None:
    messages = [struct.pack("!HHIII", 10, 16 + 4 * n, n, 0, 0) + bytes(4 * n) for n in range(1, 40)]
    stream, begin = b"".join(messages), 2**32 - 300
    segments = [_tcp(begin, b"", flags=2)]
    for at in range(0, len(stream), 333):
        segments.append(_tcp(begin + 1 + at, stream[at : at + 333]))
        segments.append(_tcp(begin + 1 + max(at - 100, 0), stream[max(at - 100, 0) : at + 200]))
    entries, capture = _entries(_pcap(tmp_path / "a.pcap", [_ethernet(_ipv4(s, protocol=6)) for s in segments]))
    assert [entry.payload for entry in entries] == messages
    assert {(entry.transport, entry.port) for entry in entries} == {(6, 4739)}
    assert capture.streams_broken == 0


def test_a_gap_in_a_tcp_stream_is_counted_and_reading_begins_again_at_a_message(tmp_path: Path) -> None:
    message = struct.pack("!HHIII", 10, 100, 0, 0, 0) + bytes(84)
    segments = [_tcp(1, message), _tcp(101 + 100, message), _tcp(301, message)]
    entries, capture = _entries(_pcap(tmp_path / "a.pcap", [_ethernet(_ipv4(s, protocol=6)) for s in segments]))
    assert len(entries) == 3
    assert capture.streams_broken == 1


def test_a_new_session_on_the_same_ports_is_marked_as_one(tmp_path: Path) -> None:
    message = struct.pack("!HHIII", 10, 40, 0, 0, 0) + bytes(24)
    session = [_tcp(100, b"", flags=2), _tcp(101, message), _tcp(141, message)]
    ended = [*session, _tcp(181, b"", flags=0x11), *session]
    reset = [*session, _tcp(181, message[:7]), *[_tcp(5000, b"", flags=2), _tcp(5001, message), _tcp(5041, message)]]
    for segments in (ended, reset):
        entries, capture = _entries(_pcap(tmp_path / "a.pcap", [_ethernet(_ipv4(s, protocol=6)) for s in segments]))
        assert [entry.payload for entry in entries] == [message] * 4
        assert [entry.flags for entry in entries] == [0, 0, 2, 0]
        assert capture.streams_broken == 0


def test_a_capture_that_begins_in_the_middle_of_a_session_goes_on_with_it(tmp_path: Path) -> None:
    message = struct.pack("!HHIII", 10, 40, 0, 0, 0) + bytes(24)
    entries, _ = _entries(_pcap(tmp_path / "b.pcap", [_ethernet(_ipv4(_tcp(141, message), protocol=6))]))
    assert [entry.flags for entry in entries] == [0]


def test_only_exports_are_read_and_a_port_narrows_them(tmp_path: Path) -> None:
    payloads = [(b"\x00\x09" + bytes(30), 9995), (b"\x12\x34dns", 53), (b"", 2055), (b"\x00\x00\x00\x05" + bytes(20), 6343),
                (b"\x00\x00\x00\x06" + bytes(20), 6343), (EXPORT, 2055)]
    path = _pcap(tmp_path / "a.pcap", [_ethernet(_ipv4(_udp(payload, port))) for payload, port in payloads])
    entries, capture = _entries(path)
    assert [entry.port for entry in entries] == [9995, 6343, 2055]
    assert capture.other == 3
    assert [entry.port for entry in _entries(path, ports=[6343, 2055])[0]] == [6343, 2055]


def test_a_file_that_is_cut_off_anywhere_gives_what_is_before(tmp_path: Path) -> None:
    frames = [_ethernet(_ipv4(_udp(EXPORT)))] * 3
    pcapng = _section("<", [(1, b"")], [(0, AT_US, frame) for frame in frames])
    starts = 28 + 20, (len(pcapng) - 48) // 3
    for whole, first, each in ((_pcap(tmp_path / "w", frames).read_bytes(), 24, 16 + len(frames[0])), (pcapng, *starts)):
        path = tmp_path / "cut"
        for size in range(first, len(whole) + 1):
            path.write_bytes(whole[:size])
            entries, capture = _entries(path)
            assert entries == [EXPECTED] * ((size - first) // each)
            assert bool(capture.notes) == ((size - first) % each > 0), "only a cut inside a packet can be seen"
    path.write_bytes(whole[:-1])
    assert "cut off or damaged" in _entries(path)[1].notes[0]


def test_packets_cut_by_the_snap_length_keep_what_there_is(tmp_path: Path) -> None:
    frame = _ethernet(_ipv4(_udp(EXPORT)))
    out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 60, 1)
    out += struct.pack("<IIII", AT_US // 1_000_000, AT_US % 1_000_000, 60, len(frame)) + frame[:60]
    path = tmp_path / "a.pcap"
    path.write_bytes(out)
    entries, capture = _entries(path)
    assert [entry.payload for entry in entries] == [EXPORT[: 60 - 42]]
    assert capture.packets_cut == 1


def test_ipfix_files_are_cut_into_messages_and_raw_files_are_one_datagram(tmp_path: Path) -> None:
    messages = [struct.pack("!HHIII", 10, 16 + n, n, 0, 0) + bytes(n) for n in range(0, 60, 7)]
    path = tmp_path / "a.ipfix"
    path.write_bytes(b"".join(messages) + b"\x00\x0arest")
    entries, _ = _entries(path, source=Source(parse_address("2001:db8::5"), 77))
    assert [entry.payload for entry in entries] == [*messages, b"\x00\x0arest"]
    assert {(entry.source, entry.received, entry.flags) for entry in entries} == {("2001:db8::5", 77, RECEIVED_UNKNOWN)}
    for payload in (b"", b"\x00", EXPORT, b"\xff" * 65535):
        path.write_bytes(payload)
        assert [(entry.payload, entry.source) for entry in _entries(path)[0]] == [(payload, "192.0.2.1")]


def test_what_is_no_capture_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    for data, said in ((b"\x1f\x8b" + bytes(100), "compressed with gzip"), (b"x" * 70_000, "neither pcap")):
        path.write_bytes(data)
        with pytest.raises(RatemillError, match=said):
            _entries(path)
    with pytest.raises(RatemillError, match="can't be read"):
        _entries(tmp_path / "missing")


def test_more_datagrams_than_a_body_holds_come_in_several_batches(tmp_path: Path) -> None:
    path = _pcap(tmp_path / "a.pcap", [_ethernet(_ipv4(_udp(EXPORT)))] * 9000)
    assert [batch.datagrams for batch in read_capture(Capture(path))] == [4096, 4096, 808]
    big = _udp(b"\x00\x0a" + bytes(60_000))
    path = _pcap(tmp_path / "b.pcap", [_ethernet(_ipv4(big))] * 100)
    assert sum(batch.datagrams for batch in read_capture(Capture(path))) == 100


def test_no_octets_of_a_capture_can_break_the_reader(tmp_path: Path) -> None:
    rng = random.Random(5)
    frames = [_ethernet(_ipv4(_udp(EXPORT), more=n % 5 == 0, offset=8 * (n % 3))) for n in range(12)]
    frames += [_ethernet(_ipv6(_udp(EXPORT))), _ethernet(_ipv4(_tcp(1, struct.pack("!HHIII", 10, 40, 0, 0, 0)), protocol=6))]
    sources = [_pcap(tmp_path / "w", frames).read_bytes(), _section("<", [(1, b"")], [(0, AT_US, f) for f in frames])]
    path = tmp_path / "mutated"
    for _ in range(1500):
        data = bytearray(rng.choice(sources))
        for _ in range(rng.randrange(1, 12)):
            at = rng.randrange(4, len(data))
            data[at] = rng.choice([0, 1, 255, 128, rng.randrange(256)])
        path.write_bytes(data[: rng.choice([len(data), rng.randrange(24, len(data))])])
        for batch in read_capture(Capture(path)):
            assert 0 < batch.datagrams <= 4096
