"""`invoice run PERIOD`: charges - what is booked = lines → invoices, booked in one transaction.

The charges of the period and of earlier ones that were invoiced before are compared with what is booked of them; the
difference becomes one invoice an account and currency. Nothing new, nothing booked: a second run changes nothing.
Everything is made ready before the transaction, so that the database is held only while rows are inserted; the
transaction makes sure that nothing has moved meanwhile.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import sqlalchemy as sa

from core import clock, tables
from core.actor import Actor
from core.errors import BalanceOpen, RatemillError
from core.periods import format_instant
from core.settings import tax_rates
from invoicing import assembly, booking, charges, gates, usage
from invoicing.charges import Percentages, RateRun
from invoicing.lines import Line, differences, is_worth_an_invoice
from invoicing.settings import invoice_settings
from runtime import jobs, output, progress
from storage import rollouts, sql
from storage.home import Home

JOB = "invoice"


@dataclass(frozen=True)
class Proposal:
    """What a run would book, and the state of the database that it was made from."""

    frame: assembly.Frame
    invoices: list[assembly.Invoice]
    state: booking.State
    open_balances: Sequence[gates.OpenBalance]
    findings: Sequence[gates.Finding]
    never_invoiced: Sequence[str]
    held: Mapping[str, str]
    """Service → the rollout that keeps it from being booked."""


def run(
    home: Home, period: str, as_of: int | None, dry_run: bool, actor: Actor, accept_incomplete: str = ""
) -> dict[str, Any]:
    """Invoice a period; returns the summary. Raises BalanceOpen, booking nothing, while a balance is open, or while its
    traffic is known to be incomplete and `accept_incomplete` gives no reason to go on."""
    bound = sql.engine(home)
    with nullcontext() if dry_run else jobs.hold(bound, JOB):
        proposal = propose(home, period, clock.now_ms() if as_of is None else as_of)
        _mention(home, proposal)
        if proposal.open_balances and not dry_run:
            raise BalanceOpen(
                f"{period} is not invoiced: {gates.describe(proposal.open_balances)}",
                f"run `ratemill reconcile {period}`; after new data: aggregate run, usage publish, rate run {period}",
            )
        if proposal.findings and not dry_run and not accept_incomplete:
            raise BalanceOpen(
                f"{period} is not invoiced, its traffic is incomplete:\n{gates.describe_findings(proposal.findings)}",
                f"see `ratemill completeness {period}`; bring what is missing, or go on with --accept-incomplete REASON",
            )
        if proposal.invoices and not dry_run:
            accepted = booking.Acceptance(accept_incomplete, proposal.findings) if proposal.findings else None
            with sql.transaction(bound) as connection:
                booking.book(connection, proposal.frame, proposal.invoices, proposal.state, actor, accepted)
        return _summary(proposal, dry_run)


def propose(home: Home, period: str, as_of: int) -> Proposal:
    """What is to be booked for a period as of an instant. Changes nothing."""
    with sql.reading(sql.engine(home)) as connection:
        current = charges.newest_run(connection, period)
        if current is None:
            raise RatemillError(f"{period} has not been rated", f"run `ratemill rate run {period}` first")
        invoiced, never = charges.earlier_periods(connection, period)
        runs = {period: current}
        for earlier in invoiced:
            found = charges.newest_run(connection, earlier)
            assert found is not None, f"{earlier} is rated"
            runs[earlier] = found
        state = booking.read_state(connection, invoice_settings(home.document).series, runs.values())
        standing = rollouts.current(connection)
        lines, held = _all_lines(home, connection, runs, as_of, standing)
        common = _frame(home, connection, period, as_of, runs)
        invoices = _assemble(home, connection, common, lines, state)
        balances = gates.open_balances(home, connection, current, as_of)
        findings = gates.incomplete(home, connection, current, as_of)
        waiting = [p for p in never if _is_waiting(home, connection, p, as_of, standing)]
        _mention_stale(connection, runs, period)
    return Proposal(common, invoices, state, balances, findings, waiting, held)


def _all_lines(
    home: Home, connection: sa.Connection, runs: Mapping[str, RateRun], as_of: int, standing: Sequence[rollouts.Rollout]
) -> tuple[list[Line], dict[str, str]]:
    """The lines of the period itself, then of the earlier ones; and the services that rollouts hold, of which nothing is
    booked: neither charges nor corrections of what was booked before."""
    percentages = Percentages(tax_rates(home.document))
    found: list[Line] = []
    all_held: dict[str, str] = {}
    with progress.bar("comparing charges with what is booked", len(runs), "periods") as advance:
        for period, rate_run in runs.items():
            now = charges.read(home, rate_run, as_of, percentages)
            before = charges.booked(connection, period)
            keys = (*(charge.key for charge in now), *before) if standing else ()
            held = rollouts.held(standing, period, ((key.service, key.plan, key.plan_version) for key in keys))
            if held:
                now = [charge for charge in now if charge.key.service not in held]
                before = {key: booked for key, booked in before.items() if key.service not in held}
                all_held |= held
            found += differences(period, now, before)
            advance(1)
    return found, all_held


def _is_waiting(
    home: Home, connection: sa.Connection, period: str, as_of: int, standing: Sequence[rollouts.Rollout]
) -> bool:
    """Whether a period that was never invoiced has money to be booked."""
    rate_run = charges.newest_run(connection, period)
    return rate_run is not None and charges.has_money(home, rate_run, as_of, standing)


def _assemble(
    home: Home, connection: sa.Connection, common: assembly.Frame, lines: Sequence[Line], state: booking.State
) -> list[assembly.Invoice]:
    """One invoice an account and currency, numbered in the order of the accounts."""
    owners = charges.accounts_of_services(connection)
    groups = _by_account(lines, owners)
    policy = common.settings.tax_policy
    wanted = [group for group in sorted(groups) if is_worth_an_invoice(groups[group], policy)]
    if not wanted:
        return []
    _refuse_other_currencies(lines, common.plans)
    contracts = {service: contract for service, (_, contract) in owners.items()}
    buyers = _buyers(connection)
    used = _usage(home, connection, common.runs[common.period], [line for group in wanted for line in groups[group]])
    found = []
    with progress.bar("writing invoices", len(wanted), "invoices") as advance:
        for count, (account, currency) in enumerate(wanted, state.last_number + 1):
            theirs = groups[account, currency]
            services = dict.fromkeys(line.key.service for line in theirs)
            rows = [row for service in services for row in used.get(service, ())]
            found.append(assembly.assemble(common, count, buyers[account], currency, theirs, contracts, rows))
            advance(1)
    return found


def _by_account(lines: Sequence[Line], owners: Mapping[str, tuple[str, str]]) -> dict[tuple[str, str], list[Line]]:
    groups: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in lines:
        owner = owners.get(line.key.service)
        if owner is None:
            raise RatemillError(
                f"the charges of {line.period} name a service that is not known: {line.key.service}",
                f"import its subscriber, or run `ratemill rate run {line.period}` again",
            )
        groups[owner[0], line.key.currency].append(line)
    return groups


def _refuse_other_currencies(lines: Sequence[Line], plans: Mapping[tuple[str, str], tuple[str, str]]) -> None:
    for plan, version, currency in {(line.key.plan, line.key.plan_version, line.key.currency) for line in lines}:
        known = plans.get((plan, version))
        if known is None:
            raise RatemillError(f"plan '{plan}' has no version of {version}", "apply the plans again, then rate again")
        if known[0] != currency:
            raise RatemillError(
                f"plan '{plan}' of {version} is in {known[0]}, its charges are in {currency}",
                "correct the currency of the subscriptions, then run `ratemill rate run` again",
            )


def _buyers(connection: sa.Connection) -> dict[str, dict[str, str]]:
    account = tables.account
    names = ("account", "name", "kind", "address", "email")
    query = sa.select(*(account.c[name] for name in names))
    return {row.account: dict(zip(names, row, strict=True)) for row in connection.execute(query)}


def _usage(
    home: Home, connection: sa.Connection, rate_run: RateRun, lines: Sequence[Line]
) -> dict[str, list[dict[str, Any]]]:
    """The period's usage of the services on the invoices."""
    wanted = {line.key.service for line in lines if line.period == rate_run.period}
    service = tables.service.c
    known = connection.execute(sa.select(service.id, service.service))
    return usage.by_month(home, rate_run, {row.id: row.service for row in known if row.service in wanted})


def _frame(
    home: Home, connection: sa.Connection, period: str, as_of: int, runs: Mapping[str, RateRun]
) -> assembly.Frame:
    product = f"ratemill {metadata.version('ratemill')}"
    return assembly.frame(home.document, period, as_of, runs, charges.plan_digests(connection), product)


def _mention(home: Home, proposal: Proposal) -> None:
    if proposal.never_invoiced:
        periods = ", ".join(proposal.never_invoiced)
        output.say(f"never invoiced, each has a run of its own: {periods}")
    for name, count in _held_by_rollout(proposal).items():
        output.say(f"{count} services are rated but not booked: rollout '{name}' has not reached them")
    if proposal.open_balances:
        output.say(f"open: {gates.describe(proposal.open_balances)}")
    if proposal.findings:
        output.say(f"incomplete:\n{gates.describe_findings(proposal.findings)}")
    early = proposal.frame.runs[proposal.frame.period].as_of
    if early < gates.end_at_the_seller(home, proposal.frame.period) <= proposal.frame.issued_ms:
        output.say(f"{proposal.frame.period} was last rated as of {format_instant(early)}, before its end")


def _mention_stale(connection: sa.Connection, runs: Mapping[str, RateRun], period: str) -> None:
    """Earlier periods whose usage has grown since they were rated: their difference waits for a rate run."""
    stale = [
        p for p, rate_run in runs.items() if p != period and gates.rated_octets(connection, rate_run)["difference"]
    ]
    if stale:
        output.say(f"new usage since they were rated, so `ratemill rate run` them to bill it: {', '.join(stale)}")


def _held_by_rollout(proposal: Proposal) -> dict[str, int]:
    return dict(sorted(Counter(proposal.held.values()).items()))


def _summary(proposal: Proposal, dry_run: bool) -> dict[str, Any]:
    totals: dict[str, dict[str, int]] = {}
    for invoice in proposal.invoices:
        sums = totals.setdefault(invoice.currency, {"net_minor": 0, "tax_minor": 0, "gross_minor": 0})
        for name in sums:
            sums[name] += getattr(invoice.totals, name)
    adjusted = {line.period for invoice in proposal.invoices for line in invoice.lines} - {proposal.frame.period}
    return {
        "period": proposal.frame.period,
        "as_of": format_instant(proposal.frame.issued_ms),
        "invoices": len(proposal.invoices),
        "lines": sum(len(invoice.lines) for invoice in proposal.invoices),
        "first": proposal.invoices[0].number if proposal.invoices else None,
        "last": proposal.invoices[-1].number if proposal.invoices else None,
        "totals": totals,
        "adjusted_periods": sorted(adjusted),
        "never_invoiced": list(proposal.never_invoiced),
        "held": _held_by_rollout(proposal),
        "incomplete": [finding["finding"] for finding in proposal.findings],
        "dry_run": dry_run,
    }
