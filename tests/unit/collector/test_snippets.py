"""Router configuration to paste: every placeholder is filled, and no value can become a line of its own."""

from __future__ import annotations

import re

import pytest

from collector import snippets
from collector.snippets import Wanted
from core.errors import NotFound, UsageError

VENDORS = [template.vendor for template in snippets.templates()]


def test_the_vendors_that_were_promised_are_there() -> None:
    assert {"cisco-ios-xe", "cisco-ios-xr", "junos", "mikrotik", "huawei", "arista", "nokia"} <= set(VENDORS)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("sampling", [0, 1, 1000])
def test_every_placeholder_is_filled(vendor: str, sampling: int) -> None:
    template = snippets.find(vendor)
    for protocol in template.protocols:
        source = "Loopback7" if template.source_kind == "interface" else "198.51.100.7"
        text = snippets.render(template, Wanted("203.0.113.9:4739", protocol, ["xe-0/0/1", "xe-0/0/2.5"], sampling, source))
        assert "@" not in text
        assert not re.search(r"^%", text, re.MULTILINE)
        assert "203.0.113.9" in text
        assert "4739" in text
        assert source in text
        assert "xe-0/0/1" in text
        assert "xe-0/0/2" in text
        if protocol != "sflow":
            assert re.search(r"active[^\n]*(60|1m|\b1$)|on interval 60000", text, re.MULTILINE), "active timeout of 60 s"
        if sampling > 1:
            assert re.search(r"1000|999", text), "the sampling rate is set"


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_snippet_says_what_to_change_and_where_its_address_goes(vendor: str) -> None:
    text = snippets.render(snippets.find(vendor), Wanted())
    assert "Change" in text
    assert "[[metering]]" in text


@pytest.mark.parametrize("bad", [
    Wanted(collector="192.0.2.1:2055\nno aaa new-model"), Wanted(collector="192.0.2.1"), Wanted(collector="host:2055"),
    Wanted(collector="192.0.2.1:70000"), Wanted(interfaces=["Gi0/1\n shutdown"]), Wanted(interfaces=["Gi0/1; reload"]),
    Wanted(interfaces=['x" shutdown']), Wanted(interfaces=[""]), Wanted(interfaces=["x@PORT@"]), Wanted(interfaces=["x\r"]),
    Wanted(source="Loopback0\nreload"), Wanted(source="$(reboot)"), Wanted(sampling=2**20), Wanted(protocol="v5"),
    Wanted(interfaces=["a" * 500]), Wanted(interfaces=["a"] * 1000),
])
@pytest.mark.parametrize("vendor", VENDORS)
def test_no_value_can_inject_a_line(vendor: str, bad: Wanted) -> None:
    with pytest.raises(UsageError):
        snippets.render(snippets.find(vendor), bad)


def test_values_never_add_lines() -> None:
    for vendor in VENDORS:
        template = snippets.find(vendor)
        one = snippets.render(template, Wanted(interfaces=["a1"])).splitlines()
        other = snippets.render(template, Wanted("[2001:db8::1]:2055", interfaces=["b 2"])).splitlines()
        assert len(one) == len(other)


def test_an_unknown_vendor_is_told_the_nearest() -> None:
    with pytest.raises(NotFound, match="juno") as refused:
        snippets.find("juno")
    assert "junos" in refused.value.hint
    with pytest.raises(NotFound) as refused:
        snippets.find("cisco")
    assert "cisco-ios-xe, cisco-ios-xr" in refused.value.hint
