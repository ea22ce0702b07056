"""Usage of past months as another plan would see it: its hours in the zones of that plan's own calendar.

The hours of published and frozen usage are cut at the edges of the calendar that held. Under another calendar an hour has the
zone in which it begins; where a zone of that calendar begins within an hour the result is not exact, and this is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from core import calendars, periods
from core.calendars import CalendarVersion
from rating import stored
from rating.columns import UsageColumns
from rating.inputs import columns_of

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Rezoned:
    """Usage by period; whether every hour lies in one zone of the calendar."""

    usage: dict[str, UsageColumns]
    is_exact: bool


class Calendars:
    """The stored calendars, by name."""

    def __init__(self, connection: sa.Connection, more: Sequence[Mapping[str, Any]] = ()) -> None:
        self._versions: dict[str, list[CalendarVersion]] = {}
        for version in [*stored.load_calendars(connection), *map(calendars.parse, more)]:
            same = self._versions.setdefault(version.name, [])
            same[:] = [one for one in same if one.valid_from != version.valid_from] + [version]

    def read(self, usage: duckdb.DuckDBPyConnection, name: str | None, wanted: Sequence[str], asked: pa.Table) -> Rezoned:
        """The usage of some periods. `usage` has a relation `usage` as published; `asked` says under which number
        (`number`) a subscription's or service's usage is wanted: columns service_id, subscription_id (null: all), timezone,
        number."""
        usage.register("asked", asked)
        zones = np.unique(asked.column("timezone").to_pylist()).tolist()
        table, is_exact = self._zones(usage, name, wanted, zones)
        usage.register("zone_of", table)
        try:
            found = usage.sql(
                "SELECT u.period, a.number AS subscription_id, z.zone, u.class, u.direction, u.sampled, "
                "CAST(sum(u.octets) AS BIGINT) AS octets FROM usage u JOIN asked a ON a.service_id = u.service_id "
                "AND (a.subscription_id IS NULL OR a.subscription_id = u.subscription_id) "
                "JOIN zone_of z ON z.timezone = a.timezone AND z.hour = epoch_ms(u.hour) "
                "WHERE u.period IN (SELECT unnest(CAST(? AS VARCHAR[]))) GROUP BY ALL "
                "ORDER BY subscription_id, z.zone, class, direction, sampled", params=[list(wanted)])
            assert found is not None, "a query has a result"
            rows = found.to_arrow_table()
        finally:
            usage.unregister("asked")
            usage.unregister("zone_of")
        period = rows.column("period").to_numpy(zero_copy_only=False)
        return Rezoned({one: columns_of(rows.filter(pa.array(period == one))) for one in wanted}, is_exact)

    def _zones(self, usage: duckdb.DuckDBPyConnection, name: str | None, wanted: Sequence[str], timezones: Sequence[str]
               ) -> tuple[pa.Table, bool]:
        """(timezone, hour, zone) of every hour that has usage."""
        rows = usage.execute("SELECT DISTINCT epoch_ms(hour) AS hour FROM usage WHERE period IN "
                             "(SELECT unnest(CAST(? AS VARCHAR[]))) ORDER BY hour", [list(wanted)]).fetchnumpy()
        hours = np.asarray(rows["hour"], np.int64)
        parts, is_exact = [], True
        for timezone in timezones:
            zones: list[str | None] = [None] * len(hours)
            if name is not None and len(hours):
                starts, index, names = calendars.edges(self._versions[name], timezone, int(hours[0]),
                                                       int(hours[-1]) + periods.HOUR_MS)
                at = np.searchsorted(starts, hours, side="right") - 1
                zones = [names[index[one]] for one in at.tolist()]
                ends = np.searchsorted(starts, hours + periods.HOUR_MS - 1, side="right") - 1
                is_exact = is_exact and bool((at == ends).all())
            parts.append(pa.table({"timezone": pa.array([timezone] * len(hours), pa.string()), "hour": pa.array(hours),
                                   "zone": pa.array(zones, pa.string())}))
        return pa.concat_tables(parts), is_exact
