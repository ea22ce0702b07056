"""Traffic classes: settings, flattening and the lookup."""

from __future__ import annotations

import ipaddress
import random
from typing import Any

import numpy as np
import pytest

from aggregation import settings
from aggregation.classes import Classifier
from core.addresses import Prefix, format_address, parse_address, parse_prefix
from core.errors import SettingsError


def entry(name: str, *prefixes: str, priority: int = 0) -> dict[str, Any]:
    return {"name": name, "priority": priority, "prefixes": list(prefixes)}


def look_up(entries: list[dict[str, Any]], *addresses: str) -> list[str]:
    found = settings.classes({"class": entries})
    ids = {name: number for number, name in enumerate(dict.fromkeys(["default", *(e.name for e in found)]), 1)}
    names = {number: name for name, number in ids.items()}
    packed = np.frombuffer(b"".join(map(parse_address, addresses)), np.uint8).reshape(-1, 16)
    return [names[number] for number in Classifier.make(found, ids).classify(packed).tolist()]


def test_two_equal_prefixes_of_equal_priority_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"198\.51\.100\.0/24 is in \[\[class\]\] 'a' and 'b' with priority 5") as caught:
        settings.classes({"class": [entry("a", "198.51.100.0/24", priority=5), entry("b", "198.51.100.0/24", priority=5)]})
    assert "another priority" in caught.value.hint
    with pytest.raises(SettingsError, match="'a' and 'a'"):
        settings.classes({"class": [entry("a", "10.0.0.0/8", "10.0.0.0/8")]})


def test_equal_prefixes_of_other_priority_are_told_apart() -> None:
    entries = [entry("high", "198.51.100.0/24", priority=6), entry("low", "198.51.100.0/24", priority=5)]
    assert look_up(entries, "198.51.100.1", "198.51.101.1") == ["high", "default"]
    assert look_up(entries[::-1], "198.51.100.1") == ["high"]


def test_priority_goes_before_length_and_length_decides_within_one() -> None:
    entries = [entry("wide", "10.0.0.0/8", priority=2), entry("narrow", "10.1.0.0/16", priority=1),
               entry("host", "10.1.2.3", priority=2)]
    assert look_up(entries, "10.1.0.1", "10.1.2.3", "10.1.2.4") == ["wide", "host", "wide"]


def test_the_last_address_there_is_belongs_to_its_prefix() -> None:
    entries = [entry("top", "ff00::/8"), entry("all", "::/0", priority=-1)]
    assert look_up(entries, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::", "8.8.8.8") == ["top", "all", "all"]


def test_default_may_be_named_to_take_addresses_out_of_another_class() -> None:
    entries = [entry("peering", "10.0.0.0/8"), entry("default", "10.7.0.0/16")]
    assert look_up(entries, "10.1.0.0", "10.7.0.0", "10.8.0.0") == ["peering", "default", "peering"]


@pytest.mark.parametrize(("broken", "said"), [
    ({"name": "a", "prefixes": ["10.0.0.1/8"]}, "host bits"), ({"name": "a", "prefixes": "10.0.0.0/8"}, "list of prefixes"),
    ({"name": " ", "prefixes": []}, "name of 1 to"), ({"name": "a", "prefixes": [], "priorty": 1}, "did you mean 'priority'"),
    ({"name": "a"}, "prefixes is missing")])
def test_a_wrong_class_is_explained(broken: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings.classes({"class": [broken]})


def random_entries(rng: random.Random) -> list[dict[str, Any]]:
    taken: set[tuple[int, Prefix]] = set()
    entries = []
    for number in range(40):
        length = rng.randrange(0, 129)
        whole = rng.getrandbits(4) << 124 | rng.getrandbits(6)
        network = ipaddress.ip_network((whole >> (128 - length) << (128 - length), length))
        key = (rng.randrange(3), parse_prefix(str(network)))
        if key not in taken:
            taken.add(key)
            entries.append(entry(f"c{number % 7}", str(network), priority=key[0]))
    return entries


@pytest.mark.parametrize("seed", range(30))
def test_random_prefixes_give_what_a_search_through_all_of_them_gives(seed: int) -> None:
    rng = random.Random(seed)
    entries = random_entries(rng)
    packed = [(rng.getrandbits(4) << 124 | rng.getrandbits(7)).to_bytes(16, "big") for _ in range(300)]
    addresses = [format_address(address) for address in packed if address[:12] != b"\0" * 10 + b"\xff\xff"]
    expected = []
    for address in addresses:
        holding = [(e["priority"], ipaddress.ip_network(e["prefixes"][0]).prefixlen, e["name"]) for e in entries
                   if ipaddress.ip_address(address) in ipaddress.ip_network(e["prefixes"][0])]
        expected.append(max(holding)[2] if holding else "default")
    assert look_up(entries, *addresses) == expected
