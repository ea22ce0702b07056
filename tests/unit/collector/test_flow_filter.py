"""The words of a filter take the flows they say, and what is wrong in them is pointed at."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest

from collector import flow_filter
from core import schemas
from core.addresses import parse_address
from core.errors import UsageError

A, B, C, D, E = range(5)
FLOWS = (  # source, port, destination, port, protocol, octets, packets, in, out, source AS, tos, exporter, duration
    ("10.0.0.1", 1234, "8.8.8.8", 53, 17, 100, 1, 1, 2, 64500, 0, "192.0.2.1", 0),  # A
    ("8.8.8.8", 53, "10.0.0.1", 1234, 17, 1500, 2, 2, 1, 15169, 0, "192.0.2.1", 10),  # B
    ("192.0.2.77", 50000, "203.0.113.9", 443, 6, 2_000_000, 1500, 1, 2, 64500, 184, "192.0.2.2", 60_000),  # C
    ("2001:db8::1", 50001, "2001:db8:ffff::1", 443, 6, 1000, 3, 3, 2, 64501, 2, "2001:db8::ff", 999),  # D
    ("::1:0:0:5", 0, "2001:db8::1", 2048, 58, 64, 1, 3, 0, 0, 0, "192.0.2.1", 0),  # E
)


@pytest.fixture(scope="module")
def duck() -> duckdb.DuckDBPyConnection:
    rows = []
    for source, port, destination, far, protocol, octets, packets, into, out, autonomous, tos, exporter, duration in FLOWS:
        rows.append({field.name: bytes(16) if field.type == schemas.ADDRESS else 0 for field in schemas.FLOWS} | {
            "source_address": parse_address(source), "source_port": port, "destination_address": parse_address(destination),
            "destination_port": far, "protocol": protocol, "octets": octets, "packets": packets, "input_interface": into,
            "output_interface": out, "source_as": autonomous, "tos": tos, "exporter": parse_address(exporter), "end": duration,
            "next_hop": parse_address("192.0.2.254" if into == 1 else "::")})
    table = pa.Table.from_pylist(rows, schema=schemas.FLOWS).append_column("number", pa.array(range(len(rows))))
    connection = duckdb.connect()
    connection.register("piece", table)
    return connection


def taken(duck: duckdb.DuckDBPyConnection, text: str) -> list[int]:
    condition = flow_filter.parse(text)
    found = duck.execute(f"SELECT number FROM piece WHERE {condition.sql} ORDER BY number", list(condition.parameters))
    return [row[0] for row in found.fetchall()]


@pytest.mark.parametrize(("text", "rows"), [
    ("", [A, B, C, D, E]), ("any", [A, B, C, D, E]), ("not any", []), ("ipv4", [A, B, C]), ("inet6", [D, E]),
    ("proto udp", [A, B]), ("proto 6", [C, D]), ("PROTO UDP", [A, B]), ("proto in [icmpv6 udp]", [A, B, E]),
    ("host 8.8.8.8", [A, B]), ("src host 8.8.8.8", [B]), ("dst ip 8.8.8.8", [A]), ("ip 2001:db8::1", [D, E]),
    ("host ::ffff:8.8.8.8", [A, B]), ("src ip in [10.0.0.1, 192.0.2.77]", [A, C]),
    ("net 10.0.0.0/8", [A, B]), ("src net 10.0.0.0/8", [A]), ("net 192.0.2.64/26", [C]), ("net 2001:db8::/32", [D, E]),
    ("dst net 2001:db8:ffff::/48", [D]), ("net 0.0.0.0/0", [A, B, C]), ("net ::/0", [D, E]), ("src net ::/64", [E]),
    ("net in [10.0.0.0/8 203.0.113.0/24]", [A, B, C]),
    ("port 53", [A, B]), ("dst port 53", [A]), ("src port = 53", [B]), ("port in [53 443]", [A, B, C, D]),
    ("port in [53,443]", [A, B, C, D]), ("dst port > 443", [B, E]), ("dst port >= 443", [B, C, D, E]), ("src port < 53", [E]),
    ("port != 53", [C, D, E]), ("not port 53", [C, D, E]), ("src port != 53", [A, C, D, E]), ("dst port le 53", [A]),
    ("bytes > 1000", [B, C]), ("octets >= 1k", [B, C, D]), ("bytes>1m", [C]), ("bytes = 2M", [C]), ("packets 1", [A, E]),
    ("packets > 1 and packets < 1k", [B, D]), ("bytes < 1g", [A, B, C, D, E]), ("bytes > 9t", []),
    ("duration > 1k", [C]), ("duration 0", [A, E]),
    ("exporter ip 192.0.2.2", [C]), ("exporter 2001:db8::ff", [D]), ("next ip 192.0.2.254", [A, C]),
    ("in if 1", [A, C]), ("out if 1", [B]), ("if 1", [A, B, C]), ("in if in [1 2]", [A, B, C]), ("if 0", [E]),
    ("as 64500", [A, C]),
    ("src as in [64501 15169]", [B, D]), ("dst as 0", [A, B, C, D, E]), ("tos 184", [C]), ("dscp 46", [C]),
    ("dscp 0", [A, B, D, E]), ("tos > 0", [C, D]),
    ("proto udp and dst port 53", [A]), ("proto udp && dst port 53", [A]), ("proto 58 || dst port 53", [A, E]),
    ("proto tcp and port 443 or port 53", [A, B, C, D]), ("port 53 or proto tcp and ipv6", [A, B, D]),
    ("(port 53 or proto tcp) and ipv6", [D]), ("not proto udp and ipv4", [C]), ("not (proto udp and ipv4)", [C, D, E]),
    ("!(proto udp)", [C, D, E]), ("not not proto udp", [A, B]), ("! ! any", [A, B, C, D, E]),
    ("proto udp and dst port 53 and not (src net 10.0.0.0/16 or host 2001:db8::1)", []),
    ("  proto\tudp \n and(dst port 53)", [A]),
])
def test_the_words_take_these_flows(duck: duckdb.DuckDBPyConnection, text: str, rows: list[int]) -> None:
    assert taken(duck, text) == rows


@pytest.mark.parametrize(("text", "at", "what"), [
    ("prto udp", "prto", "no condition begins"), ("proto udp and", "", "a condition is missing"),
    ("proto udp dst port 53", "dst", "a condition ends before this word"), ("proto upd", "upd", "neither a protocol number"),
    ("(proto udp", "(", "never closed"), ("proto udp)", ")", "closes nothing"), ("()", ")", "no condition begins"),
    ("(port 1 port 2)", "port", "a condition ends before this word"),
    ("port 65536", "65536", "too large: at most 65535"), ("port 1k and port 80k", "80k", "too large"),
    ("dscp 64", "64", "at most 63"), ("bytes > 10000000000t", "10000000000t", "too large"), ("port -1", "-1", "whole number"),
    ("port 1.5", "1.5", "whole number"), ("port ٣", "٣", "whole number"), ("bytes >", "", "here belongs a number"),
    ("port > and", "and", "here belongs a number"), ("port > in [1 2]", "in", "with one number"),
    ("port in 80", "80", "after `in` comes a list"),
    ("port in []", "[", "the list is empty"), ("port in [80", "[", "never closed"),
    ("src udp", "udp", "after src or dst"), ("in 3", "3", "comes `if`"), ("host example.org", "example.org", "address"),
    ("net 10.0.0.1/8", "10.0.0.1/8", "host bits"), ("host 10.0.0.0/8", "10.0.0.0/8", "address"), ("next 1", "next", "begins"),
    ("port 80; drop", "80;", "whole number"), ("any & any", "&", "there is no &"), ("and", "and", "no condition begins"),
    ("not", "", "a condition is missing"), ("any any", "any", "ends before"),
])
def test_what_is_wrong_is_pointed_at(text: str, at: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        flow_filter.parse(text)
    named, hint = caught.value.message, caught.value.hint
    assert named.startswith(f"the filter, at `{at}`: " if at else "the filter, at its end: ")
    assert what in named
    line, marks, advice = hint.split("\n")
    assert marks.strip() == "^" * max(1, len(at))
    start = marks.index("^") - 2  # the first line is indented where the error is printed
    assert line[start : start + len(at)] == at
    assert advice.strip()


def test_a_near_word_is_suggested() -> None:
    with pytest.raises(UsageError, match="did you mean `packets`"):
        flow_filter.parse("packet > 5")


@pytest.mark.parametrize("text", ["' OR 1=1 --", "host 1'--", "proto udp'", 'port "80"', "bytes > 1;SELECT", "any--", "?"])
def test_no_word_becomes_sql(text: str) -> None:
    with pytest.raises(UsageError):
        flow_filter.parse(text)


def test_length_and_depth_are_bounded(duck: duckdb.DuckDBPyConnection) -> None:
    many = f"port in [{' '.join(map(str, range(60_000, 61_900)))} 53]"
    assert taken(duck, many) == [A, B]
    assert taken(duck, " or ".join(["port 9"] * 600)) == []
    deep = flow_filter.DEPTH_MAX - 1
    assert taken(duck, "(" * deep + "any" + ")" * deep) == [A, B, C, D, E]
    assert taken(duck, "not " * deep + "any") == []
    for text in ("(" * 101 + "any" + ")" * 101, "not " * 101 + "any", "any or " * 1500 + "any"):
        with pytest.raises(UsageError, match=r"at most (100 deep|2000 words)"):
            flow_filter.parse(text)
