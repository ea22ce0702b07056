"""Reads what an invoice run compares: the charges of a period's newest rate run, and what is booked of them.

Reads `rate_run`, `plan_version`, `service`, `invoice_line`, `invoice` and charges/… (core.schemas.CHARGES), whose
digest is verified before anything is billed from it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from core import tables
from core.errors import RatemillError
from core.settings import TaxRate, percent_on
from invoicing.lines import Booked, Charge, Key, accumulate
from invoicing.taxes import net_of, percent_text
from storage import files, rollouts
from storage.home import Home

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class RateRun:
    """A row of `rate_run`: which charges count, and what they were made of."""

    id: int
    period: str
    at: int
    as_of: int
    engine_version: str
    manifest_version: int
    generation: str | None
    path: str
    digest: str
    rows: int
    usage_path: str
    usage_digest: str
    rated_octets: int
    without_plan_octets: int
    sampled_refused_octets: int


class Percentages:
    """The tax percentage of a line: the one on its last local day."""

    def __init__(self, rates: Sequence[TaxRate]) -> None:
        self._rates = rates
        self._known: dict[tuple[str, date], str] = {}

    def of(self, category: str, end: date) -> str:
        """Percentage as text. Raises SettingsError if no [[tax]] covers the day."""
        found = self._known.get((category, end))
        if found is None:
            found = percent_text(percent_on(self._rates, category, end - timedelta(days=1)))
            self._known[category, end] = found
        return found


def newest_run(connection: sa.Connection, period: str) -> RateRun | None:
    """The rate run that counts for a period."""
    run = tables.rate_run
    row = connection.execute(sa.select(run).where(run.c.period == period).order_by(run.c.id.desc()).limit(1)).first()
    return None if row is None else RateRun(**row._mapping)


def run_by_id(connection: sa.Connection, run_id: int) -> RateRun:
    row = connection.execute(sa.select(tables.rate_run).where(tables.rate_run.c.id == run_id)).one()
    return RateRun(**row._mapping)


def earlier_periods(connection: sa.Connection, period: str) -> tuple[list[str], list[str]]:
    """Rated periods before this one: those that were invoiced before, and those that never were."""
    rated = tables.rate_run.c.period
    query = sa.select(rated).where(rated < period).distinct().order_by(rated)
    booked = sa.select(tables.invoice_line.c.period).where(tables.invoice_line.c.period < period).distinct()
    invoiced = set(connection.scalars(booked))
    found = list(connection.scalars(query))
    return [p for p in found if p in invoiced], [p for p in found if p not in invoiced]


def read_table(home: Home, run: RateRun) -> pa.Table:
    """The charges of a rate run as an Arrow table, digest and schema verified."""
    import pyarrow.parquet as pq

    from core.schemas import CHARGES

    path = files.verify(home.path / run.path, run.digest)
    table = pq.read_table(path, partitioning=None)
    if table.schema.names != CHARGES.names:
        raise RatemillError(
            f"{path} does not have the columns of charges", f"run `ratemill rate run {run.period}` again"
        )
    return table.cast(CHARGES)


def read(home: Home, run: RateRun, as_of: int, percentages: Percentages) -> list[Charge]:
    """The charges in the order of the file. Raises RatemillError where they can't be booked as they are."""
    table = read_table(home, run)
    columns = {name: table[name].to_pylist() for name in table.schema.names if name != "bookable"}
    columns["bookable"] = table["bookable"].cast("int64").to_pylist()
    return [_charge(row, as_of, percentages) for row in zip(*(columns[name] for name in _COLUMNS), strict=True)]


def of_services(home: Home, run: RateRun, services: Collection[str]) -> list[dict[str, Any]]:
    """The charges of some services as rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = read_table(home, run)
    rows: list[dict[str, Any]] = table.filter(pc.is_in(table["service"], pa.array(sorted(services)))).to_pylist()
    return rows


def has_money(home: Home, run: RateRun, as_of: int, standing: Sequence[rollouts.Rollout] = ()) -> bool:
    """Whether a rate run has charges other than 0 that may be booked."""
    table = read_table(home, run)
    held = held_services(table, run.period, standing)
    rows = zip(table["service"].to_pylist(), table["net_minor"].to_pylist(), table["bookable"].cast("int64").to_pylist(),
               strict=True)
    return any(net and bookable <= as_of and service not in held for service, net, bookable in rows)


def held_services(table: pa.Table, period: str, standing: Sequence[rollouts.Rollout]) -> dict[str, str]:
    """The services among the charges that a rollout keeps from being booked → its name."""
    if not standing:
        return {}
    under = table.group_by(["service", "plan", "plan_version"]).aggregate([])
    names = ("service", "plan", "plan_version")
    return rollouts.held(standing, period, zip(*(under[name].to_pylist() for name in names), strict=True))


_COLUMNS = (
    "service", "plan", "plan_version", "start", "end", "line", "kind", "zone", "class", "direction", "unit",
    "unit_price", "currency", "tax", "quantity", "net_minor", "gross_minor", "bookable",
)  # fmt: skip


def _charge(row: tuple[Any, ...], as_of: int, percentages: Percentages) -> Charge:
    (service, plan, version, start, end, line, kind, zone, class_, direction, unit, unit_price, currency, tax,
     quantity, net, gross, bookable) = row  # fmt: skip
    percent = percentages.of(tax, end)
    if gross is not None and net_of(gross, percent) != net:
        raise RatemillError(
            f"'{line}' of {service}: its net was rated with another percentage than the {percent} % of today's [[tax]]",
            f"run `ratemill rate run {start.isoformat()[:7]}` again, then the invoices",
        )
    key = Key(
        service, plan, version, start.isoformat(), end.isoformat(), line, kind, zone or None, class_ or None,
        direction or None, unit, unit_price, currency, tax, percent,
    )  # fmt: skip
    return Charge(key, quantity, net, gross, bookable <= as_of)


def booked(connection: sa.Connection, period: str, before_invoice: int | None = None) -> dict[Key, Booked]:
    """What is booked of each charge of a period, by all invoices, or by those before one of them."""
    line = tables.invoice_line.c
    query = sa.select(
        line.service, line.plan, line.plan_version, line.start_date, line.end_date, line.charge_line, line.kind,
        line.zone, line["class"], line.direction, line.unit, line.unit_price, line.currency, line.tax_category,
        line.tax_percent, line.quantity, line.net_minor, line.gross_minor,
    ).where(line.period == period)  # fmt: skip
    if before_invoice is not None:
        query = query.where(line.invoice_id < before_invoice)
    found: dict[Key, Booked] = {}
    for row in connection.execute(query.order_by(line.invoice_id, line.line)):
        accumulate(found, Key(*row[:15]), row[15], row[16], row[17])
    return found


def plan_digests(connection: sa.Connection) -> dict[tuple[str, str], tuple[str, str]]:
    """(plan, version) → (currency, digest of its document)."""
    plan = tables.plan_version.c
    query = sa.select(plan.name, plan.valid_from, plan.currency, plan.digest)
    return {(row.name, row.valid_from): (row.currency, row.digest) for row in connection.execute(query)}


def accounts_of_services(connection: sa.Connection) -> dict[str, tuple[str, str]]:
    """service → (account, contract)."""
    service = tables.service.c
    query = sa.select(service.service, service.account, service.contract)
    return {row.service: (row.account, row.contract) for row in connection.execute(query)}
