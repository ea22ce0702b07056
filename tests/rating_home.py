"""A home to rate in: subscribers, and usage published as a DuckDB generation, without the stages before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import sqlalchemy as sa

from core import tables
from storage import sql
from storage.home import Home, open_home

SETTINGS = """
[seller]
name = "Demo Net"
currency = "EUR"
timezone = "Europe/Berlin"

[invoice]
tax_policy = "en16931"

[[tax]]
category = "standard"
percent = "19"
from = 2000-01-01

[[tax]]
category = "reduced"
percent = "7"
from = 2000-01-01

[[class]]
name = "peering"
priority = 10
prefixes = ["198.51.100.0/24"]
"""
USAGE = """CREATE TABLE usage (service TEXT, service_id INTEGER, subscription_id INTEGER, period TEXT, hour TIMESTAMPTZ,
  zone TEXT, class TEXT, direction TEXT, sampled BOOLEAN, octets BIGINT, packets BIGINT, flows BIGINT)"""
USAGE_5MIN = """CREATE TABLE usage_5min (service TEXT, service_id INTEGER, subscription_id INTEGER, period TEXT,
  slot TIMESTAMPTZ, direction TEXT, sampled BOOLEAN, octets BIGINT)"""


def make_home(folder: Path, settings: str = SETTINGS) -> Home:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ratemill.toml").write_text(settings, encoding="utf-8")
    return open_home(str(folder))


def local_ms(day: str, zone: str) -> int:
    moment = date.fromisoformat(day)
    return int(datetime(moment.year, moment.month, moment.day, tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def subscribe(home: Home, service: str, plan: str | None, start: str, end: str = "", zone: str = "Europe/Berlin",
              currency: str = "EUR") -> int:
    """A row of subscribers.csv; returns its row id."""
    with sql.transaction(sql.engine(home)) as connection:
        account = f"A-{service}"
        if connection.execute(sa.select(tables.account).where(tables.account.c.account == account)).first() is None:
            connection.execute(tables.account.insert().values(account=account, name=service, kind="person", email="",
                                                              phone="", address=""))
            connection.execute(tables.service.insert().values(service=service, account=account, contract="C"))
        service_id = connection.execute(
            sa.select(tables.service.c.id).where(tables.service.c.service == service)).scalar_one()
        done = connection.execute(tables.subscription.insert().values(
            service_id=service_id, plan=plan, start_date=start, end_date=end,
            start_ms=local_ms(start, zone) if start else -2**62, end_ms=local_ms(end, zone) if end else 2**62,
            timezone=zone, currency=currency))
        return int(done.inserted_primary_key[0])  # type: ignore[index]


def publish(home: Home, usage: Iterable[dict[str, Any]] = (), slots: Iterable[dict[str, Any]] = ()) -> None:
    """A generation with these rows; keys are the columns, instants ISO text, packets and flows may be left out."""
    engine = sql.engine(home)
    with sql.transaction(engine) as connection:
        number = (connection.execute(sa.select(sa.func.max(tables.generation.c.id))).scalar_one() or 0) + 1
        names = {row.id: row.service for row in connection.execute(sa.select(tables.service))}
        inputs = connection.execute(sa.select(sa.func.max(tables.input_change.c.version))).scalar_one() or 0
        path = home.folder("generations") / f"usage-1-{number}.duckdb"
        with duckdb.connect(str(path)) as made:
            made.execute(USAGE)
            made.execute(USAGE_5MIN)
            for row in usage:
                made.execute("INSERT INTO usage VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", [
                    names[row["service_id"]], row["service_id"], row["subscription_id"], row["period"], row["hour"],
                    row.get("zone"), row.get("class", "default"), row["direction"], row.get("sampled", False),
                    row["octets"], row.get("packets", 1), row.get("flows", 1)])
            for row in slots:
                made.execute("INSERT INTO usage_5min VALUES (?,?,?,?,?,?,?,?)", [
                    names[row["service_id"]], row["service_id"], row["subscription_id"], row["period"], row["slot"],
                    row["direction"], row.get("sampled", False), row["octets"]])
        connection.execute(tables.generation.insert().values(
            at=0, manifest_version=1, path=home.relative(path), digest=hashlib.sha256(path.read_bytes()).hexdigest(),
            input_version=inputs))


def instant(text: str) -> int:
    """ISO 8601 with offset → ms."""
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1000)
