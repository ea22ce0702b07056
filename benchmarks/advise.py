"""The cheapest plan of every service: twelve months of usage under twenty plans, beside DuckDB summing the same usage once.

`python -m benchmarks advise [--services N]`: 100,000 services by default; the usage of a month is 12 rows a service.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import duckdb
import sqlalchemy as sa

from benchmarks.measure import Figure, median_seconds, tell
from core import clock, periods, tables
from core.actor import Actor
from rating import advice, apply
from storage import sql
from storage.home import Home, open_home

SERVICES = 100_000
PLANS = 20
MONTHS = 12
SETTINGS = """
[seller]
name = "Demo Net"
currency = "EUR"
timezone = "Europe/Berlin"

[[tax]]
category = "standard"
percent = "19"
from = 2000-01-01
"""
CALENDAR = """
[[calendar]]
name = "calendar-{number}"
from = 2020-01-01
zones = [ {{ name = "day", start = "0{start}:00", end = "20:00" }}, {{ name = "night", default = true }} ]
"""
PLAN = """
[[plan]]
name = "plan-{number:02d}"
from = 2020-01-01
currency = "EUR"
tax = "standard"
prices = "exclusive"
calendar = "calendar-{calendar}"

[[plan.fee]]
name = "Line"
amount = "{fee}.90"
every = "month"
when = "advance"
proration = "actual_days"

[[plan.traffic]]
name = "By day"
direction = "down"
zones = ["day"]
included = "{included} GB"
above = "excess"
price = "0.0{price}"
unit = "GB"
"""


def _home(folder: Path, services: int) -> Home:
    (folder / "ratemill.toml").write_text(SETTINGS, encoding="utf-8")
    home = open_home(str(folder))
    text = "".join(CALENDAR.format(number=number, start=6 + number) for number in range(4)) + "".join(
        PLAN.format(number=number, calendar=number % 4, fee=10 + number, included=10 * number, price=1 + number % 9)
        for number in range(PLANS))
    (folder / "plans.toml").write_text(text, encoding="utf-8")
    apply.apply(home, folder / "plans.toml", Actor("benchmark", "benchmark"))
    path = home.folder("generations") / "usage-1-1.duckdb"
    this = periods.local_date(clock.now_ms(), "Europe/Berlin").isoformat()[:7]
    with sql.transaction(sql.engine(home)) as connection:
        connection.execute(tables.account.insert().values(account="A", name="A", kind="person", email="", phone="", address=""))
        connection.execute(tables.service.insert(), [
            {"service": f"S{number:07d}", "account": "A", "contract": "C"} for number in range(1, services + 1)])
        connection.execute(tables.subscription.insert(), [
            {"service_id": number, "plan": f"plan-{number % PLANS:02d}", "start_date": "2020-01-01", "end_date": "",
             "start_ms": 0, "end_ms": periods.OPEN_END, "timezone": "Europe/Berlin", "currency": "EUR"}
            for number in range(1, services + 1)])
        with duckdb.connect(str(path)) as made:
            made.execute(
                "CREATE TABLE usage AS SELECT CAST(s AS INTEGER) AS service_id, CAST(s AS INTEGER) AS subscription_id, "
                "strftime(m, '%Y-%m') AS period, CAST(m AS TIMESTAMPTZ) + INTERVAL 10 DAY + h * INTERVAL 4 HOUR AS hour, "
                "NULL::VARCHAR AS zone, 'default' AS class, d AS direction, false AS sampled, "
                "CAST(hash(s, m, h, d) % 40000000000 AS BIGINT) AS octets FROM range(1, ? + 1) t(s), "
                "range(CAST(? AS TIMESTAMP) - INTERVAL 12 MONTH, CAST(? AS TIMESTAMP), INTERVAL 1 MONTH) u(m), range(6) v(h), "
                "(VALUES ('up'), ('down')) w(d)", [services, f"{this}-01", f"{this}-01"])
        connection.execute(tables.generation.insert().values(
            at=0, manifest_version=1, path=home.relative(path), input_version=connection.execute(
                sa.select(sa.func.coalesce(sa.func.max(tables.input_change.c.version), 0))).scalar_one(),
            digest=hashlib.sha256(path.read_bytes()).hexdigest()))
    return home


def run(services: int = SERVICES) -> None:
    """Seconds for all services, and the ratio to summing the usage once by service, month and hour."""
    with tempfile.TemporaryDirectory() as folder:
        home = _home(Path(folder), services)
        begun = time.perf_counter()
        count = sum(1 for _ in advice.best(home, [], MONTHS))
        ours = time.perf_counter() - begun
        assert count == services, f"{count} of {services} services were advised"
        with duckdb.connect(str(home.folder("generations") / "usage-1-1.duckdb"), read_only=True) as usage:
            once = median_seconds(lambda: usage.execute(
                "SELECT count(*) FROM (SELECT service_id, period, hour, direction, sum(octets) FROM usage GROUP BY ALL)"
            ).fetchall(), runs=3)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        tell(Figure("advise", f"all services under {PLANS} plans, {MONTHS} months", ours, "s", "DuckDB summing the usage once",
                    ours / once, {"services": services, "DuckDB seconds": round(once, 2), "peak GiB": round(peak, 2)}))


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks advise", description=__doc__)
    parser.add_argument("--services", type=int, default=SERVICES)
    run(parser.parse_args(words).services)
