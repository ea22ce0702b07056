"""A home with accounts, plans and rated charges made by hand: what an invoice run reads, without the rating."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from core import tables
from core.periods import local_day_start, next_period, parse_instant, period_bounds
from core.schemas import CHARGES, USAGE
from storage import files, sql
from storage.home import Home

ZONE = "Europe/Berlin"
AS_OF = "2026-11-02T00:00:00Z"

SETTINGS = """
[seller]
name = "Demo Net"
country = "DE"
tax_id = "DE123456789"
address = "Musterstr. 1, 10115 Berlin"
iban = "DE02120300000000202051"
currency = "EUR"
timezone = "Europe/Berlin"

[invoice]
series = "A"
due_days = 14
tax_policy = "{policy}"
language = "{language}"

[[tax]]
category = "standard"
percent = "{percent}"
from = 2021-01-01

[[tax]]
category = "reduced"
percent = "7"
from = 2021-01-01
"""

PLAN_DOCUMENT = """{"fee": [{"name": "Home 100", "amount": "19.90"}],
 "traffic": [{"name": "Traffic", "direction": "down", "classes": [], "zones": ["day", "evening"], "price": "0.50"}]}"""


@dataclass(frozen=True)
class Charge:
    """A charge in few words; the rest has defaults."""

    service: str
    line: str = "Home 100"
    net: int = 1990
    gross: int | None = None
    quantity: str = "1"
    kind: str = "fee"
    unit: str = "month"
    unit_price: str = "19.90"
    plan: str = "home-100"
    zone: str | None = None
    class_: str | None = None
    direction: str | None = None
    start: str = ""
    end: str = ""
    tax: str = "standard"
    currency: str = "EUR"
    bookable: str = ""


def make_home(
    folder: Path,
    accounts: int | Iterable[str] = 3,
    *,
    policy: str = "en16931",
    language: str = "en",
    percent: str = "19",
    names: Mapping[str, str] | None = None,
) -> Home:
    """A home; account A1 has the service S1 and so on. Names by account where the default will not do."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ratemill.toml").write_text(SETTINGS.format(policy=policy, language=language, percent=percent))
    home = Home(folder)
    home.create()
    wanted = [f"A{n}" for n in range(1, accounts + 1)] if isinstance(accounts, int) else list(accounts)
    with sql.transaction(sql.engine(home)) as connection:
        connection.execute(tables.account.insert(), [_account(name, names or {}) for name in wanted])
        services = [{"service": f"S{name[1:]}", "account": name, "contract": f"C{name[1:]}"} for name in wanted]
        connection.execute(tables.service.insert(), services)
        for plan, currency in (("home-100", "EUR"), ("dollars", "USD")):
            connection.execute(tables.plan_version.insert().values(
                name=plan, valid_from="2026-01-01", currency=currency, tax="standard", prices="exclusive", calendar=None,
                five_minutes=0, document=PLAN_DOCUMENT, digest=f"digest of {plan}", at=0))  # fmt: skip
    return home


def _account(account: str, names: Mapping[str, str]) -> dict[str, str]:
    return {
        "account": account,
        "name": names.get(account, f"Person {account}"),
        "kind": "person",
        "email": f"{account.lower()}@example.net",
        "phone": "",
        "address": "Hauptstr. 1, 10115 Berlin",
    }


_usage_number = itertools.count()


def rate(
    home: Home,
    period: str,
    charges: Sequence[Charge],
    *,
    as_of: str = AS_OF,
    usage: Sequence[Mapping[str, Any]] = (),
    octets: int = 0,
) -> int:
    """Write charges and frozen usage as the rating would, and the row of `rate_run`; returns its id."""
    engine = sql.engine(home)
    with sql.reading(engine) as connection:
        before = connection.scalar(sa.select(sa.func.count()).where(tables.rate_run.c.period == period)) or 0
    path = home.folder("charges") / period / f"{before + 1}.parquet"
    digest = _write(path, pa.Table.from_pylist([_row(period, charge) for charge in charges], schema=CHARGES))
    frozen = home.folder("frozen") / f"{period}-{next(_usage_number)}.parquet"
    usage_digest = _write(frozen, _usage_table(period, usage))
    with sql.transaction(engine) as connection:
        inserted = connection.execute(tables.rate_run.insert().values(
            period=period, at=parse_instant(as_of), as_of=parse_instant(as_of), engine_version="1", manifest_version=0,
            generation=None, path=home.relative(path), digest=digest, rows=len(charges), usage_path=home.relative(frozen),
            usage_digest=usage_digest, rated_octets=octets, without_plan_octets=0, sampled_refused_octets=0))  # fmt: skip
        assert inserted.inserted_primary_key is not None
        return int(inserted.inserted_primary_key[0])


def attribute(home: Home, period: str, octets: int) -> int:
    """A batch that counts, with so many octets of the period; returns its id."""
    with sql.transaction(sql.engine(home)) as connection:
        inserted = connection.execute(tables.batch.insert().values(
            from_version=1, to_version=None, input_version=0, from_ms=0, to_ms=1))  # fmt: skip
        assert inserted.inserted_primary_key is not None
        batch = int(inserted.inserted_primary_key[0])
        connection.execute(tables.attributed.insert().values(batch_id=batch, period=period, octets=octets))
    return batch


def rows_of(home: Home, table: sa.Table) -> list[dict[str, Any]]:
    """Every row of a table, in the order of its primary key."""
    with sql.reading(sql.engine(home)) as connection:
        query = sa.select(table).order_by(*table.primary_key.columns)
        return [dict(row) for row in connection.execute(query).mappings()]


def half_up(value: Fraction) -> int:
    """Rounding as the contract words it, written once more."""
    whole, rest = divmod(abs(value), 1)
    rounded = int(whole) + (rest >= Fraction(1, 2))
    return rounded if value >= 0 else -rounded


def _row(period: str, charge: Charge) -> dict[str, Any]:
    bookable = parse_instant(charge.bookable) if charge.bookable else period_bounds(period, ZONE)[1]
    return {
        "period": period,
        "service": charge.service,
        "plan": charge.plan,
        "plan_version": "2026-01-01",
        "start": date.fromisoformat(charge.start or f"{period}-01"),
        "end": date.fromisoformat(charge.end or f"{next_period(period)}-01"),
        "line": charge.line,
        "kind": charge.kind,
        "zone": charge.zone,
        "class": charge.class_,
        "direction": charge.direction,
        "quantity": charge.quantity,
        "unit": charge.unit,
        "unit_price": charge.unit_price,
        "net_minor": charge.net,
        "gross_minor": charge.gross,
        "tax": charge.tax,
        "currency": charge.currency,
        "bookable": bookable,
    }


def _usage_table(period: str, usage: Sequence[Mapping[str, Any]]) -> pa.Table:
    start = local_day_start(date.fromisoformat(f"{period}-01"), ZONE)
    defaults = {
        "period": period, "subscription": 1, "hour": start, "zone": None, "class": "default", "direction": "down",
        "sampled": False, "packets": 1, "flows": 1,
    }  # fmt: skip
    return pa.Table.from_pylist([{**defaults, **row} for row in usage], schema=USAGE)


def _write(path: Path, table: pa.Table) -> str:
    return files.build_whole(path, lambda temporary: pq.write_table(table, temporary))


def invoice_once(folder: str, period: str) -> None:
    """What a child process does: one invoice run; its exit code is that of the command."""
    import sys

    from core.actor import Actor
    from core.errors import RatemillError
    from invoicing import run

    try:
        run.run(Home(Path(folder)), period, parse_instant(AS_OF), False, Actor("tester", "test"))
    except RatemillError as error:
        sys.exit(error.exit_code)
