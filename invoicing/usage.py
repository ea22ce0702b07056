"""The frozen usage that charges were made of, summed for the table on an invoice and listed for `invoice explain`.

Reads frozen/… (core.schemas.USAGE), digest verified. DuckDB sums it: a month of a large provider does not fit in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import DamagedFile
from invoicing.charges import RateRun
from storage import files
from storage.home import Home

MEMORY = "512MB"

_BY_MONTH = """
SELECT service, zone, class, direction, CAST(sum(octets) AS BIGINT) AS octets FROM read_parquet(?)
WHERE period = ? AND service IN (SELECT unnest(CAST(? AS INTEGER[])))
GROUP BY ALL ORDER BY service, zone NULLS FIRST, class, direction"""
_BY_HOUR = """
SELECT epoch_ms(hour) AS hour, zone, class, direction, sampled, octets, packets, flows FROM read_parquet(?)
WHERE period = ? AND service = ? AND epoch_ms(hour) >= ? AND epoch_ms(hour) < ?
ORDER BY ALL"""
_SUBSCRIBED = """
SELECT CAST(coalesce(sum(octets), 0) AS BIGINT) FROM read_parquet(?)
WHERE period = ? AND service = ? AND subscription IS NOT NULL"""


def by_month(home: Home, run: RateRun, services: Mapping[int, str]) -> dict[str, list[dict[str, Any]]]:
    """service → its octets of the period by zone, class and direction; `services` maps row ids to names."""
    found: dict[str, list[dict[str, Any]]] = {}
    for service, zone, class_, direction, octets in _rows(home, run, _BY_MONTH, [run.period, list(services)]):
        name = services[service]
        row = {"service": name, "zone": zone, "class": class_, "direction": direction, "octets": octets}
        found.setdefault(name, []).append(row)
    return found


def by_hour(home: Home, run: RateRun, service: int, from_ms: int, to_ms: int) -> Iterator[dict[str, Any]]:
    """The hours of one service in [from, to)."""
    names = ("hour", "zone", "class", "direction", "sampled", "octets", "packets", "flows")
    for row in _rows(home, run, _BY_HOUR, [run.period, service, from_ms, to_ms]):
        yield dict(zip(names, row, strict=True))


def subscribed(home: Home, run: RateRun, service: int) -> int:
    """The octets of one service in the period while it had a subscription."""
    return int(_rows(home, run, _SUBSCRIBED, [run.period, service])[0][0])


def _rows(home: Home, run: RateRun, query: str, values: list[Any]) -> list[tuple[Any, ...]]:
    import duckdb

    path = files.verify(home.path / run.usage_path, run.usage_digest)
    with duckdb.connect(config={"memory_limit": MEMORY}) as connection:
        try:
            return connection.execute(query, [literal(path), *values]).fetchall()
        except duckdb.Error as error:
            raise DamagedFile(
                f"{path} can't be read as usage: {error}", f"run `ratemill rate run {run.period}` again"
            ) from error


def literal(path: Path) -> str:
    """The path as DuckDB takes it: characters of a file pattern stand for themselves."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in str(path))
