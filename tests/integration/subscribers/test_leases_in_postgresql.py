"""Leases from RADIUS, DHCP and formulas in a real PostgreSQL: the same rows as in SQLite. Skipped where it is not installed."""

from __future__ import annotations

import random
from pathlib import Path

import sqlalchemy as sa
from postgresql_server import home_on, postgresql

from core import tables
from core.actor import Actor
from storage import sql
from storage.home import Home
from subscribers.deterministic_nat import leases as nat
from subscribers.dhcp import leases as dhcp
from subscribers.radius import leases as radius
from subscribers.radius.events import store

ME = Actor("me", "test")
SETTINGS = """
[radius]
lost_after_seconds = 600
[[radius_client]]
address = "127.0.0.0/8"
secret = "s3cr3t"
realm = "town"
[[deterministic_nat]]
inside = ["198.51.100.0/29"]
outside = ["203.0.113.0/31"]
inside_realm = "town"
block_size = 1000
"""
KEA = """address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id
192.0.2.5,00:00:5e:00:53:01,,3600,1790003600,1,0,0,,0,,0
192.0.2.5,00:00:5e:00:53:01,,3600,1790005400,1,0,0,,0,,0
192.0.2.5,00:00:5e:00:53:02,,3600,1790012000,1,0,0,,0,,0
192.0.2.6,00:00:5e:00:53:09,,3600,1790012000,1,0,0,,0,,0
"""


def made(home: Home, file: Path) -> list[tuple[object, ...]]:
    """All leases after every source was read, twice, as rows without numbers of the database."""
    from integration.subscribers.test_radius_accounting import many

    with sql.transaction(sql.engine(home)) as connection:
        connection.execute(tables.account.insert().values(account="A", name="", kind="person", email="", phone="", address=""))
        for name in ("user-0", "user-1", "user-2", "user-3", "00:00:5e:00:53:01", "00:00:5e:00:53:02"):
            connection.execute(tables.service.insert().values(service=name, account="A", contract="C"))
        reports = many(random.Random(4))
        store(connection, reports)
        assert store(connection, reports) == len(reports)
    for turn in range(2):
        told = [radius.run(home, ME), dhcp.run(home, [file], ME, "town"), nat.run(home, ME)]
        assert all((one.added > 0) == (turn == 0) for one in told), told
    lease, service = tables.lease, tables.service
    query = sa.select(lease, service.c.service).join(service, service.c.id == lease.c.service_id)
    with sql.reading(sql.engine(home)) as connection:
        return sorted((row.realm, bytes(row.address), row.prefix_length, row.port_first or -1, row.port_last or -1,
                       row.start_ms, row.end_ms, row.service) for row in connection.execute(query))


def test_every_source_gives_the_same_leases_in_both_databases(tmp_path: Path) -> None:
    file = tmp_path / "kea-leases4.csv"
    file.write_text(KEA)
    ours = Home(tmp_path / "sqlite")
    ours.path.mkdir()
    (ours.path / "ratemill.toml").write_text(SETTINGS)
    ours.create()
    expected = made(ours, file)
    assert len(expected) > 20
    with postgresql() as url, home_on(url, tmp_path / "postgresql", SETTINGS) as theirs:
        assert made(theirs, file) == expected
