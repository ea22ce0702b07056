"""`ratemill subscribers …` and `ratemill leases …`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from core import actor
from runtime import context, options, output

if TYPE_CHECKING:
    import sqlalchemy as sa

    from subscribers import beside

subscribers = typer.Typer(help="Accounts, contracts, services and their plans.")
leases = typer.Typer(help="Which address belongs to which service, when.")
addons = typer.Typer(help="Plans beside a service's own: packages, equipment, addresses, coupons.")
pauses = typer.Typer(help="Times in which a service rests: suspension and vacation.")

_FILE = typer.Argument(help="The CSV file.", metavar="FILE.csv")
LIST_COLUMNS = ("account", "name", "kind", "email", "phone", "address", "contract", "service", "plan", "start", "end",
                "timezone", "currency")  # fmt: skip
LEASE_COLUMNS = ("realm", "address", "protocol", "port_first", "port_last", "start", "end", "service")


def _import(read: Callable[..., dict[str, int]], file: str, dry_run: bool, reason: str, what: str) -> None:
    from storage import sql

    engine = sql.engine(context.home())
    summary = read(engine, Path(file), actor.current(reason or f"{what} import {file}"), dry_run)
    output.emit_object(summary)
    if dry_run:
        output.say("dry run: nothing was changed")


@subscribers.command("import")
def import_subscribers(file: str = _FILE, dry_run: bool = options.DRY_RUN, reason: str = options.REASON) -> None:
    """Import accounts, services and their plans; all rows or none."""
    from subscribers import contracts

    _import(contracts.import_file, file, dry_run, reason, "subscribers")


@subscribers.command("change-plan")
def change_plan(
    service: str = typer.Argument(help="Name of the service.", metavar="SERVICE"),
    plan: str = typer.Argument(help="The plan to be.", metavar="PLAN"),
    on: str = typer.Option("now", "--on", metavar="now|period-end|YYYY-MM-DD", help="First day of the new plan."),
    dry_run: bool = options.DRY_RUN,
    reason: str = options.REASON,
) -> None:
    """Put a service under another plan: now, at the end of the month, or on a day."""
    from storage import sql
    from subscribers import plan_change

    who = actor.current(reason or f"change-plan {plan}")
    output.emit_object(plan_change.change(sql.engine(context.home()), service, plan, on, who, dry_run))


@leases.command("import")
def import_leases(file: str = _FILE, dry_run: bool = options.DRY_RUN, reason: str = options.REASON) -> None:
    """Import leases of addresses, prefixes and port blocks; all rows or none."""
    from subscribers import leases as lease_file

    _import(lease_file.import_file, file, dry_run, reason, "leases")


@leases.command("from-deterministic-nat")
def leases_from_deterministic_nat(dry_run: bool = options.DRY_RUN, reason: str = options.REASON) -> None:
    """Turn the formulas of [[deterministic_nat]] (RFC 7422) into leases of the outside addresses."""
    from subscribers.deterministic_nat import leases as nat

    output.emit_object(nat.run(context.home(), actor.current(reason or "leases from-deterministic-nat"), dry_run).document())
    if dry_run:
        output.say("dry run: nothing was changed")


@leases.command("from-dhcp")
def leases_from_dhcp(
    files: list[str] = typer.Argument(help="Lease files of ISC dhcpd or Kea.", metavar="FILE..."),
    form: str = typer.Option("", "--format", metavar="isc|kea", help="Of all files; without: recognised by each one."),
    realm: str = typer.Option("", "--realm", help="Of the addresses in the files."),
    unknown: str = typer.Option("", "--unknown", metavar="FILE", help="Write every client without service to this file."),
    dry_run: bool = options.DRY_RUN,
    reason: str = options.REASON,
) -> None:
    """Turn the lease files of DHCP servers into leases; all files or none."""
    from subscribers.dhcp import leases as dhcp

    done = dhcp.run(context.home(), [Path(file) for file in files], actor.current(reason or "leases from-dhcp"), realm, form,
                    dry_run)
    output.emit_object(done.document())
    for sentence in done.sentences():
        output.say(sentence)
    if unknown:
        output.emit_rows(done.unknown_rows(), dhcp.UNKNOWN_COLUMNS, unknown)
    if dry_run:
        output.say("dry run: nothing was changed")


def _contract_rows(connection: sa.Connection, service_name: str | None = None) -> list[dict[str, Any]]:
    import sqlalchemy as sa

    from core.tables import account, service, subscription

    query = (
        sa.select(
            account,
            service.c.contract,
            service.c.service,
            subscription.c.plan,
            subscription.c.start_date.label("start"),
            subscription.c.end_date.label("end"),
            subscription.c.timezone,
            subscription.c.currency,
        )
        .select_from(subscription.join(service).join(account))
        .order_by(service.c.service, subscription.c.start_ms)
    )
    if service_name is not None:
        query = query.where(service.c.service == service_name)
    return [dict(row._mapping) for row in connection.execute(query)]


@subscribers.command("list")
def list_subscribers() -> None:
    """Every service with its account and plans, as subscribers.csv has them."""
    from storage import sql

    with sql.reading(sql.engine(context.home())) as connection:
        output.emit_rows(_contract_rows(connection), LIST_COLUMNS)


@subscribers.command("show")
def show_subscriber(service: str = typer.Argument(help="Name of the service.", metavar="SERVICE")) -> None:
    """The plans of one service over time."""
    from core.errors import NotFound
    from storage import sql

    with sql.reading(sql.engine(context.home())) as connection:
        rows = _contract_rows(connection, service)
    if not rows:
        raise NotFound(f"there is no service '{service}'", "`ratemill subscribers list` shows all of them")
    output.emit_rows(rows, LIST_COLUMNS)


@leases.command("list")
def list_leases(service: str = typer.Option("", "--service", help="Only the leases of this service.")) -> None:
    """Every lease, as leases.csv has them."""
    import sqlalchemy as sa

    from core import tables
    from storage import sql

    table = tables.lease
    query = sa.select(table, tables.service.c.service).select_from(table.join(tables.service))
    query = query.order_by(table.c.realm, table.c.address, table.c.prefix_length, table.c.port_first, table.c.start_ms)
    if service:
        query = query.where(tables.service.c.service == service)
    with sql.reading(sql.engine(context.home())) as connection:
        output.emit_rows((_lease_row(row) for row in connection.execute(query)), LEASE_COLUMNS)


def _lease_row(row: Any) -> dict[str, Any]:
    from core.addresses import Prefix, format_address, format_prefix
    from core.periods import OPEN_END, format_instant

    lone = row.prefix_length == 128
    address = format_address(row.address) if lone else format_prefix(Prefix(row.address, row.prefix_length))
    return {
        "realm": row.realm, "address": address, "protocol": row.protocol, "port_first": row.port_first,
        "port_last": row.port_last, "service": row.service,
        "start": None if row.start_ms <= -OPEN_END else format_instant(row.start_ms),
        "end": None if row.end_ms >= OPEN_END else format_instant(row.end_ms),
    }  # fmt: skip


# what lies beside a plan

_SERVICE = typer.Argument(help="Name of the service.", metavar="SERVICE")
_OF_SERVICE = typer.Option("", "--service", help="Only those of this service.")
_FROM = typer.Option(..., "--from", metavar="YYYY-MM-DD", help="First local day.")
_UNTIL = typer.Option("", "--to", metavar="YYYY-MM-DD", help="First local day that no longer counts; open without it.")
_END = typer.Argument(help="First local day that no longer counts.", metavar="YYYY-MM-DD")


@addons.command("import")
def import_addons(file: str = _FILE, dry_run: bool = options.DRY_RUN, reason: str = options.REASON) -> None:
    """Import add-ons of services (service, plan, quantity, start, end); all rows or none."""
    from subscribers import beside

    _import(partial(_into, beside.ADDONS), file, dry_run, reason, "addons")


@addons.command("add")
def add_addon(
    service: str = _SERVICE,
    plan: str = typer.Argument(help="A plan with addon = true.", metavar="PLAN"),
    start: str = _FROM,
    end: str = _UNTIL,
    quantity: int = typer.Option(1, "--quantity", help="How many of it."),
    dry_run: bool = options.DRY_RUN,
    reason: str = options.REASON,
) -> None:
    """Give a service an add-on."""
    from storage import sql
    from subscribers import beside

    values = {"service": service, "plan": plan, "quantity": str(quantity), "start": start, "end": end}
    who = actor.current(reason or f"addons add {plan}")
    output.emit_object(beside.add(sql.engine(context.home()), beside.ADDONS, values, who, dry_run))


@addons.command("end")
def end_addon(
    service: str = _SERVICE,
    plan: str = typer.Argument(help="The add-on.", metavar="PLAN"),
    day: str = _END,
    reason: str = options.REASON,
) -> None:
    """Let an add-on of a service end."""
    from storage import sql
    from subscribers import beside

    who = actor.current(reason or f"addons end {plan}")
    output.emit_object(beside.end(sql.engine(context.home()), beside.ADDONS, service, options.day(day, "the day"), who, plan))


@addons.command("list")
def list_addons(service: str = _OF_SERVICE, to: str = options.TO_FILE) -> None:
    """Every add-on, as addons.csv has them."""
    from subscribers import beside

    _list(beside.ADDONS, service, to)


@pauses.command("import")
def import_pauses(file: str = _FILE, dry_run: bool = options.DRY_RUN, reason: str = options.REASON) -> None:
    """Import pauses of services (service, kind, start, end); all rows or none."""
    from subscribers import beside

    _import(partial(_into, beside.PAUSES), file, dry_run, reason, "pauses")


@pauses.command("add")
def add_pause(
    service: str = _SERVICE,
    kind: str = typer.Argument(help="suspension or vacation.", metavar="KIND"),
    start: str = _FROM,
    end: str = _UNTIL,
    dry_run: bool = options.DRY_RUN,
    reason: str = options.REASON,
) -> None:
    """Let a service rest."""
    from storage import sql
    from subscribers import beside

    values = {"service": service, "kind": kind, "start": start, "end": end}
    who = actor.current(reason or f"pauses add {kind}")
    output.emit_object(beside.add(sql.engine(context.home()), beside.PAUSES, values, who, dry_run))


@pauses.command("end")
def end_pause(service: str = _SERVICE, day: str = _END, reason: str = options.REASON) -> None:
    """Let a pause of a service end."""
    from storage import sql
    from subscribers import beside

    who = actor.current(reason or "pauses end")
    output.emit_object(beside.end(sql.engine(context.home()), beside.PAUSES, service, options.day(day, "the day"), who))


@pauses.command("list")
def list_pauses(service: str = _OF_SERVICE, to: str = options.TO_FILE) -> None:
    """Every pause, as pauses.csv has them."""
    from subscribers import beside

    _list(beside.PAUSES, service, to)


def _into(sort: beside.Sort, engine: sa.Engine, path: Path, who: actor.Actor, dry_run: bool) -> dict[str, int]:
    from subscribers import beside

    return beside.import_file(engine, sort, path, who, dry_run)


def _list(sort: beside.Sort, service: str, to: str) -> None:
    from storage import sql
    from subscribers import beside

    with sql.reading(sql.engine(context.home())) as connection:
        output.emit_rows(beside.rows(connection, sort, service), sort.columns, to)
