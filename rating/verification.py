"""`rate verify PERIOD`: the newest run's charges computed again and compared, column by column.

Level 1 recomputes them from the run's frozen inputs by `rating.recomputation`. Level 2 also derives the usage of the
period once more from the flow segments by `rating.rederivation` and compares it with the frozen usage.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from core import schemas, tables
from rating import frozen, recomputation, run
from storage import sql
from storage.home import Home

SHOWN_MAX = 20
CHARGE_KEY = ("period", "service", "plan", "plan_version", "start", "end", "line", "kind")
USAGE_KEY = ("service", "subscription", "hour", "zone", "class", "direction", "sampled")
USAGE_VALUES = ("octets", "packets", "flows")
SLOT_KEY = ("subscription", "slot", "direction", "sampled")


@dataclass
class Verification:
    """Rows that were compared; the first differences as texts."""

    checked: int = 0
    equal: int = 0
    differences: list[str] = field(default_factory=list)
    services: frozenset[str] | None = None  # None: all

    @property
    def differing(self) -> int:
        return self.checked - self.equal

    def rows_of_interest(self, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row for row in rows if self.services is None or row["service"] in self.services]

    def compare(self, noun: str, stored: Mapping[Hashable, Any], again: Mapping[Hashable, Any]) -> None:
        """Count the keys of both sides; a key that one side lacks differs."""
        for key in [*stored, *(key for key in again if key not in stored)]:
            self.checked += 1
            if stored.get(key) == again.get(key):
                self.equal += 1
            elif len(self.differences) < SHOWN_MAX:
                self.differences.append(f"{noun} {key}: stored {stored.get(key)}, computed again {again.get(key)}")


def verify(home: Home, period: str, level: int, services: Sequence[str] | None = None) -> Verification:
    """Compute a period's charges again (level 1), and its usage from the segments (level 2), and compare; only those of
    `services` if they are given. Raises NotFound for a period without a run, DamagedFile where a file is not what it was."""
    row = run.newest_or_hint(home, period)
    charges = run.charges(home, period)
    copy = frozen.read(home, row.usage_path, row.usage_digest)
    result = Verification(services=None if services is None else frozenset(services))
    terms, usage = copy.terms.to_pylist(), _summed_usage(copy.usage)
    again = recomputation.charges(period, terms, copy.plans, copy.tax, usage, rows_of(copy.slots))
    result.compare("charge", _by_key(result.rows_of_interest(in_ms(charges).to_pylist()), CHARGE_KEY),
                   _by_key(result.rows_of_interest(again), CHARGE_KEY))
    if services is None:
        result.compare("carried", _carried(home, row.id), {
            (number, quota, expires): octets for number, left in recomputation.carried(period, terms, copy.plans, usage).items()
            for quota, expires, octets in left})
    if level == 2:
        _verify_usage(home, period, copy, result)
    return result


def _carried(home: Home, run_id: int) -> dict[Hashable, int]:
    """What a run left of quotas for the next period: (subscription, quota, expires) → octets."""
    table = tables.quota_carried
    with sql.reading(sql.engine(home)) as connection:
        return {(row.subscription, row.quota, row.expires): row.octets
                for row in connection.execute(sa.select(table).where(table.c.run_id == run_id))}


def _verify_usage(home: Home, period: str, copy: frozen.Frozen, result: Verification) -> None:
    from rating import rederivation

    wanted = set(copy.slots.column("subscription").to_pylist()) | _with_percentile(copy)
    again = rederivation.usage(home, period, wanted)
    stored = {tuple(row[name] for name in USAGE_KEY): tuple(row[name] for name in USAGE_VALUES)
              for row in rows_of(copy.usage)}
    result.compare("usage", _without_nothing(stored), _without_nothing(again.hours))
    slots = {tuple(row[name] for name in SLOT_KEY): (row["octets"],) for row in rows_of(copy.slots)}
    result.compare("slot", _without_nothing(slots), _without_nothing(again.slots))


def _without_nothing(rows: Mapping[Any, tuple[int, ...]]) -> dict[Hashable, tuple[int, ...]]:
    """A row of zeros says the same as no row."""
    return {key: values for key, values in rows.items() if any(values)}


def _with_percentile(copy: frozen.Frozen) -> set[int]:
    plans = {(plan["name"], plan["from"]) for plan in copy.plans if plan["percentile"]}
    return {row["subscription"] for row in copy.terms.to_pylist() if (row["plan"], row["plan_version"]) in plans}


def _summed_usage(usage: pa.Table) -> list[dict[str, Any]]:
    key = ["subscription", "zone", "class", "direction", "sampled"]
    usage = usage.unify_dictionaries()  # a file of several row groups has one for each
    return list(usage.group_by(key).aggregate([("octets", "sum")]).rename_columns([*key, "octets"]).to_pylist())


def _by_key(rows: list[dict[str, Any]], key: tuple[str, ...]) -> dict[Hashable, dict[str, Any]]:
    found: dict[Hashable, dict[str, Any]] = {}
    for row in rows:
        name = " · ".join(str(row[column]) for column in key)
        assert name not in found, f"two charges have the key {name}"
        found[name] = row
    return found


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a table, instants in ms, without all of them in memory as Python objects."""
    for batch in in_ms(table).to_batches(max_chunksize=65_536):
        yield from batch.to_pylist()


def in_ms(table: pa.Table) -> pa.Table:
    """Instants as whole milliseconds instead of timestamps."""
    columns = [table.column(field.name).cast(pa.int64()) if field.type == schemas.INSTANT else table.column(field.name)
               for field in table.schema]
    return pa.Table.from_arrays(columns, names=table.schema.names)
