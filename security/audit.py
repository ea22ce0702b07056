"""The audit trail: who changed what, when and why, with the state before and after. Append-only.

Called inside the transaction that makes the change, so that neither exists without the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from core import clock, tables
from core.actor import Actor


def record(
    connection: sa.Connection,
    actor: Actor,
    action: str,
    subject: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Add one row; `before` is None for something new, `after` None for something removed."""
    connection.execute(
        tables.audit.insert().values(
            at=clock.now_ms(),
            actor=actor.name,
            reason=actor.reason,
            action=action,
            subject=subject,
            before=_text(before),
            after=_text(after),
        )
    )


def _text(state: Mapping[str, Any] | None) -> str | None:
    return None if state is None else json.dumps(state, ensure_ascii=False, sort_keys=True, default=str)
