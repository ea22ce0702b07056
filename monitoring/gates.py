"""Hands invoicing the checks that it can't make itself, being below them: the balances, and rating's recomputation."""

from __future__ import annotations

from monitoring.reconcile import check_before_invoicing


def register() -> None:
    """`invoice run` refuses while a balance of its period is open."""
    from invoicing import gates

    gates.register(check_before_invoicing)
