"""The versions of plans and calendars that are stored."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from core import calendars, tables
from rating import plans


def load_calendars(connection: sa.Connection) -> list[calendars.CalendarVersion]:
    """All stored calendar versions, oldest first."""
    table = tables.calendar_version
    rows = connection.execute(sa.select(table.c.document).order_by(table.c.name, table.c.valid_from))
    return [calendars.parse(json.loads(row.document)) for row in rows]


def load_plan_documents(connection: sa.Connection) -> list[dict[str, Any]]:
    """The documents of all stored plan versions, oldest first."""
    table = tables.plan_version
    rows = connection.execute(sa.select(table.c.document).order_by(table.c.name, table.c.valid_from))
    return [json.loads(row.document) for row in rows]


def load_plans(connection: sa.Connection) -> list[plans.Plan]:
    """All stored plan versions, oldest first."""
    return [plans.parse(document) for document in load_plan_documents(connection)]
