"""Who looked at flows, and at which: a row of the audit trail, written before anything is shown."""

from __future__ import annotations

from typing import Any

from core.actor import Actor
from core.periods import format_instant
from security import audit
from storage import sql
from storage.home import Home


def note(home: Home, actor: Actor, action: str, start: int | None, end: int | None, words: str = "any", **how: Any) -> None:
    """`words`: the filter; `how`: what else says which flows were shown, and how."""
    times = {name: None if at is None else format_instant(at) for name, at in (("from", start), ("to", end))}
    with sql.transaction(sql.engine(home)) as connection:
        audit.record(connection, actor, action, words, None, {**times, **how})
