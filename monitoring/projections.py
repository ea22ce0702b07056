"""Hands publishing the tables that it can't make itself, aggregation being beside the collector: `completeness`."""

from __future__ import annotations

import pyarrow as pa
import sqlalchemy as sa

from storage.home import Home


def register() -> None:
    """A generation holds the hours of interfaces, flows against counters."""
    from aggregation import projections

    projections.register(projections.Projection("completeness", _fingerprint, _table))


def _fingerprint(connection: sa.Connection) -> str:
    from monitoring import hourly

    return hourly.fingerprint(connection)


def _table(home: Home, connection: sa.Connection) -> pa.Table:
    from monitoring import hourly

    return hourly.table(home, connection)
