"""Hands invoicing the checks that it can't make itself, being below them: the balances, and rating's recomputation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from monitoring import completeness
from monitoring.reconcile import check_before_invoicing
from storage.home import Home


def register() -> None:
    """`invoice run` refuses while a balance of its period is open or its traffic is incomplete; `invoice verify` rates its
    services once more."""
    from invoicing import gates

    gates.register(check_before_invoicing)
    gates.register_completeness(completeness.check_before_invoicing)
    gates.register_recomputation(recompute_charges)


def recompute_charges(home: Home, period: str, services: Sequence[str], level: int) -> Mapping[str, int]:
    """Rate some services again from the frozen usage with the second engine. What level 2 adds (usage from segments)
    invoicing checks itself, by service: deriving the whole period again for one invoice would take minutes."""
    from rating import verification

    del level
    found = verification.verify(home, period, 1, services)
    return {"checked": found.checked, "equal": found.equal, "differing": found.differing}
