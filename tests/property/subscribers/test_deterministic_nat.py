"""The formula of a NAT: every inside address has ports of its own, and back from the ports comes the address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.addresses import parse_address, parse_prefix
from core.errors import SettingsError
from subscribers.deterministic_nat.formula import block_of, inside_of
from subscribers.deterministic_nat.settings import DeterministicNat, from_document, size


@st.composite
def nats(draw: st.DrawFn) -> dict[str, object]:
    """Settings with room for every inside address."""
    inside = draw(st.sampled_from([(["100.64.0.0/26"], 64), (["100.64.1.0/28", "100.64.0.0/29"], 24), (["100.64.9.9"], 1),
                                   (["2001:db8::/122"], 64)]))
    outside = draw(st.sampled_from([(["198.51.100.0/30"], 4), (["198.51.100.9", "198.51.100.16/31"], 3),
                                    (["198.51.100.0/28"], 16)]))
    blocks = -(-inside[1] // outside[1])
    block_size = draw(st.integers(1, 65_536 // blocks))
    first = draw(st.integers(0, min(65_535, 65_536 - blocks * block_size)))
    return {"inside": inside[0], "outside": outside[0], "inside_realm": "cgn", "block_size": block_size, "port_first": first,
            "port_last": draw(st.integers(first + blocks * block_size - 1, 65_535)),
            "order": draw(st.sampled_from(["address_first", "pool_first"]))}


def parsed(*entries: dict[str, object]) -> tuple[DeterministicNat, ...]:
    return from_document({"deterministic_nat": list(entries)})


@given(nats(), st.data())
def test_blocks_are_apart_and_lead_back(entry: dict[str, object], data: st.DataObject) -> None:
    (nat,) = parsed(entry)
    taken: set[tuple[bytes, int]] = set()
    for prefix in nat.inside:
        for number in range(prefix.first, prefix.last + 1):
            inside = number.to_bytes(16, "big")
            block = block_of(nat, inside)
            assert block is not None
            assert block.port_last - block.port_first + 1 == nat.block_size
            assert nat.port_first <= block.port_first
            assert block.port_last <= nat.port_last
            assert (block.outside, block.port_first) not in taken
            taken.add((block.outside, block.port_first))
            for port in (block.port_first, block.port_last, data.draw(st.integers(block.port_first, block.port_last))):
                assert inside_of(nat, block.outside, port) == inside
    assert len(taken) == size(nat.inside)
    port = data.draw(st.integers(0, 65_535))
    for prefix in nat.outside:
        found = inside_of(nat, prefix.address, port)
        if found is not None:
            block = block_of(nat, found)
            assert block is not None
            assert block.outside == prefix.address
            assert block.port_first <= port <= block.port_last


BASE: dict[str, object] = {"inside": ["100.64.0.0/30"], "outside": ["198.51.100.0/31"], "inside_realm": "cgn",
                           "block_size": 1000}


def test_the_orders_by_hand() -> None:
    """Four inside addresses on two outside ones."""
    (nat,) = parsed({**BASE, "port_last": 3023})  # two blocks an address
    told = [block_of(nat, parse_address(f"100.64.0.{n}")) for n in range(4)]
    assert [(one.outside[-1], one.port_first, one.port_last) for one in told if one] == [
        (0, 1024, 2023), (0, 2024, 3023), (1, 1024, 2023), (1, 2024, 3023)]
    (nat,) = parsed({**BASE, "port_last": 3023, "order": "pool_first"})
    told = [block_of(nat, parse_address(f"100.64.0.{n}")) for n in range(4)]
    assert [(one.outside[-1], one.port_first, one.port_last) for one in told if one] == [
        (0, 1024, 2023), (1, 1024, 2023), (0, 2024, 3023), (1, 2024, 3023)]
    assert block_of(nat, parse_address("100.64.0.4")) is None
    assert inside_of(nat, parse_address("198.51.100.0"), 1023) is None
    assert inside_of(nat, parse_address("198.51.100.0"), 3024) is None
    assert inside_of(nat, parse_address("198.51.100.2"), 1024) is None


@pytest.mark.parametrize(("change", "said"), [
    ({"inside_realm": ""}, "realm of its own"), ({"outside_realm": "cgn"}, "realm of its own"),
    ({"block_size": 40_000}, "only 2 blocks"), ({"block_size": 65_000}, "no block"), ({"port_last": 1000}, "no block"),
    ({"inside": ["100.64.0.0/30", "100.64.0.1"]}, "inside names an address twice"),
    ({"outside": ["198.51.100.0/30", "198.51.100.0/31"]}, "outside names an address twice"),
    ({"inside": ["10.0.0.0/8"]}, "more than"), ({"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, "not after")])
def test_what_can_be_read_two_ways_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parsed({**BASE, **change})


def test_two_formulas_for_one_address_at_one_time_are_refused() -> None:
    other = {**BASE, "inside": ["100.65.0.0/30"]}
    with pytest.raises(SettingsError, match="1 and 2 have outside addresses in common"):
        parsed(BASE, other)
    moved = parsed({**BASE, "end": "2026-06-01T00:00:00Z"}, {**other, "start": "2026-06-01T00:00:00Z"})
    assert [nat.inside for nat in moved] == [(parse_prefix("100.64.0.0/30"),), (parse_prefix("100.65.0.0/30"),)]
