"""Sets of networks against a slow definition: an address is inside if a prefix touches its /24 or /48."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.addresses import IPV4_MAPPED, Prefix
from core.networks import Ranges, addresses_of, network_numbers, network_text, words_of


def prefix_of(address: bytes, length: int) -> Prefix:
    number = int.from_bytes(address, "big") >> (128 - length) << (128 - length)
    return Prefix(number.to_bytes(16, "big"), length)


def ipv4(number: int) -> bytes:
    return IPV4_MAPPED + number.to_bytes(4, "big")


NEAR = (st.integers(0x0A000000, 0x0A0007FF).map(ipv4)
        | st.integers(0, 2**18).map(lambda number: (0x20010DB8 << 96 | number << 78).to_bytes(16, "big")))
PREFIXES = st.builds(prefix_of, NEAR, st.integers(0, 128))


def touched(prefix: Prefix, address: bytes) -> bool:
    is_ipv4 = address[:12] == IPV4_MAPPED
    network = prefix_of(address, 120 if is_ipv4 else 48)
    return prefix.first <= network.last and network.first <= prefix.last


@given(st.lists(PREFIXES, max_size=8), st.lists(NEAR, min_size=1, max_size=20))
def test_an_address_is_inside_if_its_network_is_touched(prefixes: list[Prefix], addresses: list[bytes]) -> None:
    ranges = Ranges.from_bytes(Ranges(prefixes).to_bytes())
    found = ranges.holds(network_numbers(np.frombuffer(b"".join(addresses), np.uint8).reshape(-1, 16)))
    assert found.tolist() == [any(touched(prefix, address) for prefix in prefixes) for address in addresses]


@given(st.lists(PREFIXES, max_size=6), st.lists(PREFIXES, max_size=6))
def test_sets_are_united_and_compared(some: list[Prefix], others: list[Prefix]) -> None:
    both = Ranges(some).united(Ranges(others))
    assert both.to_bytes() == Ranges([*some, *others]).to_bytes()
    assert both.hold_all_of(Ranges(some))
    assert both.hold_all_of(Ranges(others))
    assert Ranges(some).hold_all_of(Ranges(others)) == (both.to_bytes() == Ranges(some).to_bytes())


@given(st.lists(st.binary(min_size=16, max_size=16), min_size=1))
def test_words_are_addresses(addresses: list[bytes]) -> None:
    octets = np.frombuffer(b"".join(addresses), np.uint8).reshape(-1, 16)
    assert (addresses_of(*words_of(octets)) == octets).all()


def test_networks_have_texts() -> None:
    packed = ipv4(0x0A000109) + bytes.fromhex("20010db8000100020003000400050006")
    numbers = network_numbers(np.frombuffer(packed, np.uint8).reshape(2, 16))
    assert [network_text(number) for number in numbers.tolist()] == ["10.0.1.0/24", "2001:db8:1::/48"]
