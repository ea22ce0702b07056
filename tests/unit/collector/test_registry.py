"""The registry of information elements: what is shipped, what an operator adds, and how mistakes are told."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from decoding import column, decode, feed
from exports import BASIC, NOW_S, basic, framed, ipfix, template, v9

from collector import layout, registry
from collector.decoder import Decoder
from collector.kernels import elements
from collector.settings import CollectorSettings
from collector.state import DecoderState
from collector.worker import settings_digest
from core.errors import SettingsError

HEADER = "enterprise,element,name,type,slot,repeat,source\n"


def with_file(folder: Path, text: str, name: str = "own.csv") -> CollectorSettings:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return replace(CollectorSettings(), registry=registry.load(folder))


def test_every_shipped_element_names_its_source() -> None:
    folder = Path(registry.__file__).parent.parent / "data" / "registries"
    lines = [line for path in folder.glob("*_elements.csv") for line in path.read_text().splitlines()[1:]]
    assert lines
    assert all(line.count(",") >= 6 and line.rsplit(",", 1)[1] for line in lines)


def test_slots_are_the_kernels_numbers_and_none_is_taken_twice() -> None:
    numbers = registry.SLOTS
    assert len(numbers) > 90
    assert len(set(numbers.values())) == len(numbers)
    assert max(numbers.values()) < layout.SLOT_COUNT
    wide = [name for name in numbers if name.endswith("6") and "ip6" not in name and name not in ("icmp6",)]
    assert all(numbers[name] + 1 not in numbers.values() for name in wide), "an IPv6 address takes two slots"
    assert [numbers[name] for name in layout.COUNTER_NAMES] == list(range(elements.FIRST_COUNTER, elements.LAST_COUNTER + 1))
    assert all(hasattr(elements, name) for name in registry.BOUNDS)


def test_client_and_server_of_cisco_avc_are_the_two_directions() -> None:
    cisco = 9 << 32
    fields = [(cisco | 12236, 4), (cisco | 12237, 4), (cisco | 12240, 2), (cisco | 12241, 2), (4, 1), (cisco | 8338, 8),
              (cisco | 8337, 8)]
    record = struct.pack(">IIHHBQQ", 0xC0000201, 0xC6336401, 40_000, 443, 6, 500, 9000)
    decoded = decode(ipfix(framed(2, template(256, fields)), framed(256, record)))
    assert (column(decoded, "octets"), column(decoded, "source_port")) == ([500, 9000], [40_000, 443])


def test_an_element_of_another_enterprise_with_the_same_number_is_skipped() -> None:
    for enterprise in (9, 0x80000009, 0xFFFFFFFF, 35632):
        fields = [*BASIC, (enterprise << 32 | 1, 4), (enterprise << 32 | 12236, 4)]
        decoded = decode(ipfix(framed(2, template(256, fields)), framed(256, basic(7, more=struct.pack(">II", 99, 5)))))
        assert column(decoded, "octets") == [7], enterprise
        assert decoded.flows["source_address"][0].tobytes()[12:] == bytes((192, 0, 2, 1))


def test_numbers_above_32767_are_elements_of_netflow_v9_only() -> None:
    fields = [*BASIC, (40005, 1)]
    denied = basic(7, more=b"\x03")
    assert decode(v9(framed(0, template(256, fields)), framed(256, denied))).counts.not_a_flow == 1
    raw = struct.pack(">HH", 256, 5) + b"".join(struct.pack(">HH", *field) for field in BASIC)
    message = ipfix(framed(2, raw + struct.pack(">HHI", 40005, 1, 0)), framed(256, denied))
    assert column(decode(message), "octets") == [7]


# an operator's own ----------------------------------------------------------------------------------------------------
def test_an_operator_s_element_is_decoded(tmp_path: Path) -> None:
    settings = with_file(tmp_path, HEADER + "35632,500,MY_OCTETS,unsigned64,octets,first,the vendor's manual\n")
    fields = [(8, 4), (12, 4), (35632 << 32 | 500, 4)]
    message = ipfix(framed(2, template(256, fields)), framed(256, struct.pack(">III", 1, 2, 77)))
    assert column(decode(message, settings=settings), "octets") == [77]
    assert decode(message).counts.not_a_flow == 1


def test_an_operator_s_row_replaces_a_shipped_one(tmp_path: Path) -> None:
    settings = with_file(tmp_path, "enterprise,element,name,type,slot,repeat\n0,1,octetDeltaCount,unsigned64,octets,last\n")
    fields = [(8, 4), (12, 4), (1, 4), (1, 4)]
    message = ipfix(framed(2, template(256, fields)), framed(256, struct.pack(">IIII", 1, 2, 111, 222)))
    assert column(decode(message, settings=settings), "octets") == [222]
    assert column(decode(message), "octets") == [111]
    ignored = with_file(tmp_path, HEADER + "0,1,octetDeltaCount,unsigned64,none,,\n")
    assert decode(message, settings=ignored).counts.not_a_flow == 1


def test_a_changed_registry_is_another_digest_of_the_settings(tmp_path: Path) -> None:
    one = with_file(tmp_path, HEADER + "35632,500,MY_OCTETS,unsigned64,octets,first,manual\n")
    again = with_file(tmp_path, HEADER + "35632,500,MY_OCTETS,unsigned64,octets,first,another source\n")
    other = with_file(tmp_path, HEADER + "35632,500,MY_OCTETS,unsigned64,octets,last,manual\n")
    digests = [settings_digest(settings) for settings in (CollectorSettings(), one, again, other)]
    assert digests[1] == digests[2], "what people read of a row changes no flow"
    assert len(set(digests)) == 3


def test_templates_kept_over_a_restart_are_read_by_the_new_registry(tmp_path: Path) -> None:
    fields = [(8, 4), (12, 4), (35632 << 32 | 500, 4)]
    data = framed(256, struct.pack(">III", 1, 2, 77))
    before = Decoder(CollectorSettings())
    assert feed(before, ipfix(framed(2, template(256, fields)), data)).counts.not_a_flow == 1
    saved = before.state.to_bytes()
    settings = with_file(tmp_path, HEADER + "35632,500,MY_OCTETS,unsigned64,octets,first,manual\n")
    after = Decoder(settings, DecoderState.from_bytes(saved))
    assert column(feed(after, ipfix(data, seconds=NOW_S + 1), block=1), "octets") == [77]
    without = Decoder(CollectorSettings(), DecoderState.from_bytes(after.state.to_bytes()))
    assert feed(without, ipfix(data, seconds=NOW_S + 2), block=2).counts.not_a_flow == 1


@pytest.mark.parametrize(("text", "line", "column_name", "says"), [
    ("enterprise,element,name,typ,slot\n", 1, "typ", "unknown column 'typ' (did you mean 'type'?)"),
    ("enterprise,element,name,type\n", 1, "slot", "column 'slot' is missing"),
    (HEADER + "x,5,A,unsigned8,octets,,\n", 2, "enterprise", "no enterprise number"),
    (HEADER + "9,0,A,unsigned8,octets,,\n", 2, "element", "no element number"),
    (HEADER + "9,40000,A,unsigned8,octets,,\n", 2, "element", "no element number"),
    (HEADER + "9,5,,unsigned8,octets,,\n", 2, "name", "has no name"),
    (HEADER + "9,5,A,unsigned8,octet,,\n", 2, "slot", "unknown slot 'octet' (did you mean 'octets'?)"),
    (HEADER + "9,5,A,string,octets,,\n", 2, "type", "can't be the slot octets"),
    (HEADER + "9,5,A,unsigned32,source4,,\n", 2, "type", "can't be the slot source4 (one of ipv4Address)"),
    (HEADER + "9,5,A,unsigned8,octets,often,\n", 2, "repeat", "neither first nor last"),
    (HEADER + "9,5,A,unsigned8,octets,,\n9,5,B,unsigned8,packets,,\n", 3, "element", "is there twice (as A)"),
    (HEADER + "9,5,A\n", 2, "", "another number of values"),
])
def test_a_mistake_names_file_line_and_column_and_says_what_to_do(tmp_path: Path, text: str, line: int, column_name: str,
                                                                  says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        with_file(tmp_path / "registries", text)
    message = str(caught.value)
    assert f"own.csv, line {line}" + (f", {column_name}:" if column_name else ":") in message
    assert says in message
    _, problems = registry.read_folder(tmp_path / "registries")
    assert (problems[0].line, problems[0].column) == (line, column_name)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    rows_of_it = "".join(f"9,{n},A,unsigned8,octet,,\n" for n in range(1, 31))
    with pytest.raises(SettingsError, match="and 10 more"):
        with_file(tmp_path, HEADER + rows_of_it)
    (tmp_path / "own.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not UTF-8"):
        registry.load(tmp_path)
