"""Kea's memfile: both families, every state, and what is damaged or just being written."""

from __future__ import annotations

import io
import json

import pytest

from core.addresses import format_prefix
from core.periods import OPEN_END
from subscribers.csv_file import Problems
from subscribers.dhcp import kea
from subscribers.dhcp.entries import Entry, Reading, State

T = 1_767_254_400
H4 = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n"
H6 = ("address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,fqdn_fwd,fqdn_rev,hostname,"
      "hwaddr,state,user_context,hwtype,hwaddr_source,pool_id\n")
MAC = "00:00:5e:00:53:0a"


def v4(address: str, valid: int, expire: int, state: int = 0, context: str = "", hostname: str = "") -> str:
    return f"{address},{MAC},01:{MAC},{valid},{expire},1,0,0,{hostname},{state},{context},0\n"


def v6(address: str, kind: int, length: int, valid: int = 3600, state: int = 0) -> str:
    return (f"{address},00:03:00:01:{MAC},{valid},{T + 3600},1,1800,{kind},7,{length},0,0,,{MAC},{state},,1,2,0\n")


def read(text: str) -> tuple[list[Entry], Reading]:
    reading = Reading(Problems("kea-leases4.csv"))
    return [entry for _, entry in kea.read(io.BytesIO(text.encode()), reading)], reading


def context(value: object) -> str:
    return json.dumps(value).replace(",", "&#x2c")


def test_the_start_is_the_last_transaction_and_states_are_what_they_are() -> None:
    found, reading = read(H4 + v4("192.0.2.10", 3600, T + 3600) + v4("192.0.2.10", 3600, T + 3600, 2)
                          + v4("192.0.2.11", 600, T + 600, 1) + v4("192.0.2.12", 0, T, 3) + v4("192.0.2.13", 0, T)
                          + v4("192.0.2.14", 4_294_967_295, T + 4_294_967_295))
    assert (reading.problems.found, reading.incomplete) == ([], 0)
    assert [(entry.prefix.address[-1], entry.state, entry.start // 1000 - T) for entry in found] == [
        (10, State.ACTIVE, 0), (10, State.ENDED, 0), (11, State.VOID, 0), (12, State.ENDED, 0), (13, State.ENDED, 0),
        (14, State.ACTIVE, 0)]
    assert [entry.end for entry in found] == [(T + 3600) * 1000, (T + 3600) * 1000, T * 1000, T * 1000, T * 1000, OPEN_END]
    assert found[0].client is not None
    assert dict(found[0].client.identifiers) == {"hardware": "00005e00530a", "client-id": "0100005e00530a"}


def test_addresses_and_delegated_prefixes_of_ipv6() -> None:
    found, reading = read(H6 + v6("2001:db8::1", 0, 128) + v6("2001:db8:1::", 2, 56) + v6("2001:db8::2", 1, 128, state=4))
    assert reading.problems.found == []
    assert [format_prefix(entry.prefix) for entry in found] == ["2001:db8::1/128", "2001:db8:1::/56", "2001:db8::2/128"]
    assert found[0].client is not None
    assert dict(found[0].client.identifiers) == {"hardware": "00005e00530a", "duid": "0003000100005e00530a"}


@pytest.mark.parametrize("told", [
    "0x0104657468310206aabbccddeeff", {"sub-options": "0x0104657468310206AABBCCDDEEFF", "remote-id": "AABBCCDDEEFF"},
    {"circuit-id": "65746831", "remote-id": "0xaabbccddeeff"}])
def test_what_the_relay_agent_told_is_found_in_the_user_context(told: object) -> None:
    text = context({"comment": "a, b", "ISC": {"relay-agent-info": told}})
    for escaped in (text, text.replace("&#x2c", "\\x2c")):
        (found,), _ = read(H4 + v4("192.0.2.10", 60, T, context=escaped, hostname="a&#x2cb"))
        assert found.client is not None
        known = dict(found.client.identifiers)
        assert (known["circuit-id"], known["remote-id"]) == ("65746831", "aabbccddeeff")
    (found,), _ = read(H4 + v4("192.0.2.10", 60, T, context=context({"other": [1, 2]})))
    assert found.client is not None
    assert "circuit-id" not in dict(found.client.identifiers)


def test_columns_are_found_by_the_header_of_any_version() -> None:
    (found,), reading = read(f"address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname\r\n"
                             f"192.0.2.1,{MAC},,60,{T},1,0,0,\r\n")
    assert (reading.problems.found, found.state, found.start) == ([], State.ACTIVE, (T - 60) * 1000)


def test_files_behind_each_other_and_empty_lines_are_one_file() -> None:
    found, reading = read((H4 + v4("192.0.2.10", 60, T) + "\n") * 2)
    assert (len(found), reading.problems.found) == (2, [])


def test_a_row_without_its_line_end_is_incomplete() -> None:
    text = H4 + v4("192.0.2.10", 60, T) + v4("192.0.2.11", 60, T)
    for cut in range(len(H4 + v4("192.0.2.10", 60, T)) + 1, len(text)):
        found, reading = read(text[:cut])
        assert (len(found), reading.problems.found, reading.incomplete) == (1, [], 3)


@pytest.mark.parametrize(("row", "column", "text"), [
    (v4("192.0.2.310", 60, T), "address", "192.0.2.310"), (v4("192.0.2.1", -1, T), "valid_lifetime", "not a whole number"),
    (v4("192.0.2.1", 60, T, 9), "state", "state 9"), (v4("192.0.2.1", 60, 59), "valid_lifetime", "longer than"),
    (v4("192.0.2.1", 60, T, context="{"), "user_context", "not JSON"),
    (v4("192.0.2.1", 60, T, context=context({"ISC": {"relay-agent-info": "0x0109aa"}})), "user_context", "no end"),
    (v4("192.0.2.1", 60, T).replace(MAC, "xy", 1), "hwaddr", "no octets"), ("192.0.2.1,a,b\n", "", "3 values")])
def test_damage_is_named_with_line_and_column_and_the_rest_is_read(row: str, column: str, text: str) -> None:
    found, reading = read(H4 + v4("192.0.2.10", 60, T) + row + v4("192.0.2.12", 60, T))
    assert [(one.line, one.column, text in one.problem) for one in reading.problems.found] == [(3, column, True)]
    assert len(found) == 2


def test_a_file_without_the_columns_is_refused() -> None:
    _, reading = read("address,hwaddr\n1,2\n")
    assert [one.column for one in reading.problems.found] == ["valid_lifetime", "expire"]
