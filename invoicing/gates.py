"""What must hold before money is booked: an invoice run refuses to commit while a balance of its period is open.

Checked here is what this package can see by itself: that the rate run saw all the usage that is attributed to the
period. The other balances belong to `monitoring`, which is above this package and registers its check with `register`.
Reads `attributed`, `batch`, `accepted_incomplete`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from core import tables
from core.periods import period_bounds
from core.settings import seller
from invoicing.charges import RateRun
from storage.home import Home

OpenBalance = Mapping[str, Any]
"""At least {balance, difference}; what `reconcile` prints."""
Check = Callable[[Home, str], Sequence[OpenBalance]]
Recomputation = Callable[[Home, str, Sequence[str], int], Mapping[str, int]]

Finding = Mapping[str, Any]
"""At least {finding: a sentence}: something that a period's traffic lacks; what `completeness` prints."""
Completeness = Callable[[Home, str], Sequence[Finding]]
FINDINGS_SHOWN = 10

_checks: list[Check] = []
_completeness: list[Completeness] = []
_recomputations: list[Recomputation] = []


def register(check: Check) -> None:
    """Ask this check, too, before an invoice run commits: (home, period) → the balances that are open."""
    if check not in _checks:
        _checks.append(check)


def register_completeness(check: Completeness) -> None:
    """Ask this before an invoice run commits: (home, period) → what the traffic of the period is known to lack."""
    if check not in _completeness:
        _completeness.append(check)


def register_recomputation(recompute: Recomputation) -> None:
    """Let `invoice verify` recompute charges as well: (home, period, services, level) → {checked, equal, differing}."""
    if recompute not in _recomputations:
        _recomputations.append(recompute)


def forget_registered() -> None:
    """Only the checks of this package remain (for tests)."""
    _checks.clear()
    _completeness.clear()
    _recomputations.clear()


def recomputations() -> tuple[Recomputation, ...]:
    return tuple(_recomputations)


def open_balances(home: Home, connection: sa.Connection, run: RateRun, as_of: int) -> list[OpenBalance]:
    """The balances that keep the period from being booked; none while it still goes on at the seller's.

    Before its end only what does not depend on usage can be booked, and usage moves with every minute.
    """
    if as_of < end_at_the_seller(home, run.period):
        return []
    found: list[OpenBalance] = []
    rated = rated_octets(connection, run)
    if rated["difference"]:
        found.append(rated)
    for check in _checks:
        known = {balance["balance"] for balance in found}
        found += [balance for balance in check(home, run.period) if balance["balance"] not in known]
    return found


def incomplete(home: Home, connection: sa.Connection, run: RateRun, as_of: int) -> list[Finding]:
    """What the period's traffic is known to lack and nobody has accepted yet; nothing while it still goes on.

    An acceptance is of the very words of a finding: when its figures change, it is asked for again.
    """
    if as_of < end_at_the_seller(home, run.period):
        return []
    table = tables.accepted_incomplete
    known = [finding for text in connection.scalars(sa.select(table.c.findings).where(table.c.period == run.period))
             for finding in json.loads(text)]
    return [finding for check in _completeness for finding in check(home, run.period) if dict(finding) not in known]


def describe_findings(findings: Sequence[Finding]) -> str:
    """Lines of their sentences, the first few."""
    lines = [f"  {finding['finding']}" for finding in findings[:FINDINGS_SHOWN]]
    more = len(findings) - len(lines)
    return "\n".join([*lines, f"  … and {more} more"] if more else lines)


def end_at_the_seller(home: Home, period: str) -> int:
    """The instant at which a period is over in the seller's zone."""
    return period_bounds(period, seller(home.document).timezone)[1]


def rated_octets(connection: sa.Connection, run: RateRun) -> dict[str, Any]:
    """What is attributed to the period now against what the rate run saw."""
    attributed, batch = tables.attributed, tables.batch
    query = (
        sa.select(sa.func.coalesce(sa.func.sum(attributed.c.octets), 0))
        .join_from(attributed, batch)
        .where(attributed.c.period == run.period, batch.c.to_version.is_(None))
    )
    usage = int(connection.scalar(query) or 0)
    losses = {"without_plan": run.without_plan_octets, "sampled_refused": run.sampled_refused_octets}
    return {
        "balance": "rated_octets",
        "unit": "octets",
        "in": usage,
        "out": run.rated_octets,
        "losses": losses,
        "difference": usage - run.rated_octets - sum(losses.values()),
    }


def describe(balances: Sequence[OpenBalance]) -> str:
    """One sentence: which balances are open, by how much."""
    return "; ".join(f"{b['balance']}: {b['difference']} {b.get('unit', '')}".rstrip() for b in balances)
