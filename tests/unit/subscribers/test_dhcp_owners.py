"""Identifiers of clients as names of services."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import tables
from storage import sql
from storage.home import Home
from subscribers.dhcp.entries import Client, Kind
from subscribers.dhcp.owners import Owners, described, names, normal

MAC = bytes.fromhex("00005e00530a")


@pytest.mark.parametrize("name", ["00:00:5E:00:53:0A", "00-00-5e-00-53-0a", "0000.5e00.530a", "00005E00530A", "0:0:5e:0:53:a"])
def test_a_hardware_address_has_one_form(name: str) -> None:
    assert normal(name) == "00:00:5e:00:53:0a"


@pytest.mark.parametrize("name", ["Alice", "10-20", "eth0/1", "C1001"])
def test_other_names_stay_as_they_are(name: str) -> None:
    assert normal(name) == name


def test_names_that_an_identifier_may_have() -> None:
    assert names(Kind.CLIENT_ID, b"\x01" + MAC) == ["01:00:00:5e:00:53:0a", "00:00:5e:00:53:0a"]
    assert "eth0/1" in names(Kind.CIRCUIT_ID, b"eth0/1")
    assert "00:00:5e:00:53:0a" in names(Kind.REMOTE_ID, b"\x00\x06" + MAC)
    assert "port 7" in names(Kind.REMOTE_ID, b"\x01\x06port 7")
    assert "00:00:5e:00:53:0a" in names(Kind.REMOTE_ID, b"00-00-5E-00-53-0A")


def test_the_relays_word_counts_before_the_clients_and_two_services_of_one_name_are_none(tmp_path: Path) -> None:
    (tmp_path / "ratemill.toml").write_text("")
    with sql.transaction(sql.engine(Home(tmp_path))) as connection:
        connection.execute(tables.account.insert().values(account="A", name="", kind="person", email="", phone="", address=""))
        for name in ("line-1", "00-00-5e-00-53-0a", "aa:bb:cc:dd:ee:ff", "AABB.CCDD.EEFF"):
            connection.execute(tables.service.insert().values(service=name, account="A", contract="C"))
        numbers = {row.service: row.id for row in connection.execute(tables.service.select())}
        owners = Owners(connection)
        both = Client.of({Kind.HARDWARE: MAC, Kind.CIRCUIT_ID: b"line-1"})
        assert owners.of(both) == (numbers["line-1"], "")
        assert owners.of(Client.of({Kind.HARDWARE: MAC, Kind.CIRCUIT_ID: b"?"})) == (numbers["00-00-5e-00-53-0a"], "")
        service, reason = owners.of(Client.of({Kind.HARDWARE: bytes.fromhex("aabbccddeeff")}))
        assert service is None
        assert "'aa:bb:cc:dd:ee:ff' and 'AABB.CCDD.EEFF'" in reason
        assert owners.of(Client(())) == (None, "no service has the name of one of its identifiers")
    assert described(both) == "circuit-id line-1, hardware 00:00:5e:00:53:0a"
