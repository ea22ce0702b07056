"""Tables of a generation that packages above this one know how to make; they register them before anybody publishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import sqlalchemy as sa

from storage.home import Home


@dataclass(frozen=True)
class Projection:
    """A table of what SQL holds at the time of publishing."""

    name: str
    fingerprint: Callable[[sa.Connection], str]
    """Of what it is made of and nothing else announces: another one asks for another generation."""
    table: Callable[[Home, sa.Connection], pa.Table]


registered: dict[str, Projection] = {}


def register(projection: Projection) -> None:
    registered[projection.name] = projection
