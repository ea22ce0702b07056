"""Random filters: the condition takes the same flows as a slow evaluator that reads the tree instead of the text."""

from __future__ import annotations

import ipaddress
import operator
from typing import Any

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from collector import flow_filter
from core import schemas
from core.addresses import parse_address

ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.1.0.1", "192.0.2.1", "2001:db8::1", "2001:db8:1::1", "::5")
NETS = ("10.0.0.0/8", "10.0.0.0/24", "10.0.0.0/31", "0.0.0.0/0", "::/0", "::/64", "2001:db8::/32", "192.0.2.1/32")
COMPARE = {"": operator.eq, "=": operator.eq, "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
           ">": operator.gt, ">=": operator.ge, "gt": operator.gt, "ne": operator.ne}
SIDES = {"": ("source", "destination"), "src ": ("source",), "dst ": ("destination",)}
WAYS = {"": ("input_interface", "output_interface"), "in ": ("input_interface",), "out ": ("output_interface",)}

small = st.integers(0, 5)
sides, ways, compares = st.sampled_from(sorted(SIDES)), st.sampled_from(sorted(WAYS)), st.sampled_from(sorted(COMPARE))
flows = st.lists(st.fixed_dictionaries({
    "source_address": st.sampled_from(ADDRESSES), "destination_address": st.sampled_from(ADDRESSES),
    "exporter": st.sampled_from(ADDRESSES), "source_port": small, "destination_port": small, "protocol": small,
    "octets": st.sampled_from([0, 1, 999, 1000, 1001, 2**62]), "packets": small, "input_interface": small,
    "output_interface": small, "source_as": small, "destination_as": small, "tos": st.integers(0, 255)}),
    min_size=1, max_size=12)

conditions = st.one_of(
    st.just(("any",)), st.tuples(st.just("family"), st.sampled_from([4, 6])),
    st.tuples(st.just("proto"), st.lists(small, min_size=1, max_size=3)),
    st.tuples(st.just("host"), sides, st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=3)),
    st.tuples(st.just("net"), sides, st.sampled_from(NETS)),
    st.tuples(st.sampled_from(["port", "as"]), sides, compares, small),
    st.tuples(st.just("if"), ways, compares, small),
    st.tuples(st.sampled_from(["octets", "packets", "tos", "dscp"]), compares, small),
    st.tuples(st.just("kilo"), compares, st.just(1)), st.tuples(st.just("exporter"), st.sampled_from(ADDRESSES)))
trees: st.SearchStrategy[tuple[Any, ...]] = st.recursive(conditions, lambda inner: st.one_of(
    st.tuples(st.just("not"), inner), st.tuples(st.sampled_from(["and", "or"]), inner, inner)), max_leaves=12)


def text_of(tree: tuple[Any, ...]) -> str:
    match tree:
        case ("any",):
            return "any"
        case ("family", version):
            return f"ipv{version}"
        case ("not", inner):
            return f"not {bracketed(inner)}"
        case ("and" | "or" as word, left, right):
            return f"{bracketed(left)} {word} {bracketed(right)}"
        case ("proto", numbers):
            return f"proto in [{' '.join(map(str, numbers))}]"
        case ("host", side, addresses):
            return f"{side}host {addresses[0]}" if len(addresses) == 1 else f"{side}ip in [{', '.join(addresses)}]"
        case ("net", side, net):
            return f"{side}net {net}"
        case ("port" | "as" | "if" as word, side, compare, number):
            return f"{side}{word} {compare} {number}"
        case ("kilo", compare, number):
            return f"bytes {compare} {number}k"
        case ("exporter", address):
            return f"exporter ip {address}"
        case (word, compare, number):
            return f"{word} {compare} {number}"
    raise AssertionError(tree)


def bracketed(tree: tuple[Any, ...]) -> str:
    return f"({text_of(tree)})" if tree[0] in ("and", "or") else text_of(tree)


def holds(tree: tuple[Any, ...], flow: dict[str, Any]) -> bool:
    match tree:
        case ("any",):
            return True
        case ("family", version):
            return ipaddress.ip_address(flow["source_address"]).version == version
        case ("not", inner):
            return not holds(inner, flow)
        case ("and", left, right):
            return holds(left, flow) and holds(right, flow)
        case ("or", left, right):
            return holds(left, flow) or holds(right, flow)
        case ("proto", numbers):
            return flow["protocol"] in numbers
        case ("host", side, addresses):
            return any(flow[f"{end}_address"] in addresses for end in SIDES[side])
        case ("net", side, net):
            return any(ipaddress.ip_address(flow[f"{end}_address"]) in ipaddress.ip_network(net) for end in SIDES[side])
        case ("port" | "as" as word, side, compare, number):
            return either(compare, [flow[f"{end}_{word}"] for end in SIDES[side]], number)
        case ("if", way, compare, number):
            return either(compare, [flow[name] for name in WAYS[way]], number)
        case ("kilo", compare, number):
            return bool(COMPARE[compare](flow["octets"], 1000 * number))
        case ("exporter", address):
            return bool(flow["exporter"] == address)
        case ("dscp", compare, number):
            return bool(COMPARE[compare](flow["tos"] // 4, number))
        case (word, compare, number):
            return bool(COMPARE[compare](flow[word], number))
    raise AssertionError(tree)


def either(compare: str, values: list[int], number: int) -> bool:
    results = [COMPARE[compare](value, number) for value in values]
    return all(results) if compare in ("!=", "ne") else any(results)


@settings(max_examples=150, deadline=None)
@given(tree=trees, rows=flows)
def test_the_condition_is_the_tree(tree: tuple[Any, ...], rows: list[dict[str, Any]]) -> None:
    blank = {field.name: bytes(16) if field.type == schemas.ADDRESS else 0 for field in schemas.FLOWS}
    packed = [blank | {name: parse_address(value) if isinstance(value, str) else value for name, value in row.items()}
              for row in rows]
    table = pa.Table.from_pylist(packed, schema=schemas.FLOWS).append_column("number", pa.array(range(len(rows))))
    condition = flow_filter.parse(text_of(tree))
    with duckdb.connect() as duck:
        duck.register("piece", table)
        found = duck.execute(f"SELECT number FROM piece WHERE {condition.sql} ORDER BY number", list(condition.parameters))
        taken = [row[0] for row in found.fetchall()]
    assert taken == [number for number, row in enumerate(rows) if holds(tree, row)], text_of(tree)
