"""`flows top` and `flows graph`: stored flows that a filter takes, summed by addresses, ports, interfaces … or by time.

Reads segments, verified, one at a time, and what is known of late sampling rates; the sums are held by DuckDB, which moves them
to the disk when there are many. Octets and packets are those exported, like those of `flows export`; `scaled` multiplies each
flow by its sampling rate, also by one that came late. Sums are exact whole numbers. Each look is written to the audit trail.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collector import flow_filter
from collector.arrival import within
from collector.flow_filter import Condition
from collector.listing import segments_between
from collector.segments import read_flows, to_columns
from core import schemas
from core.actor import Actor
from core.addresses import format_address
from core.errors import UsageError
from core.periods import format_instant
from runtime import progress
from security import flow_looks
from storage import sql
from storage.home import Home
from storage.late_rates import NONE, LateRates, is_quarantined

if TYPE_CHECKING:
    import duckdb

KEYS = {
    "src": ("source_address",), "dst": ("destination_address",), "pair": ("source_address", "destination_address"),
    "src-port": ("source_port",), "dst-port": ("destination_port",), "protocol": ("protocol",),
    "service-port": ("protocol", "destination_port"),
    "connection": ("source_address", "source_port", "destination_address", "destination_port", "protocol"),
    "exporter": ("exporter",), "in-if": ("exporter", "input_interface"), "out-if": ("exporter", "output_interface"),
    "src-as": ("source_as",), "dst-as": ("destination_as",), "next-hop": ("next_hop",), "tos": ("tos",),
}
"""`--by` → columns of core.schemas.FLOWS."""
ORDERS = ("octets", "packets", "flows")
BARS_MAX = 1000

MEMORY = "512MB"
ROWS_MAX = 4_000_000
"""Rows of partial sums after which they are summed up."""


@dataclass(frozen=True)
class Wanted:
    """Which flows, and how they count."""

    start: int | None  # received, ms
    end: int | None
    words: str  # the filter
    scaled: bool = False


@dataclass(frozen=True)
class Found:
    """Rows with octets, packets and flows, and what all flows that the filter took add up to."""

    rows: list[dict[str, Any]]
    octets: int
    packets: int
    flows: int
    sampled: int  # flows with a rate above 1
    scaled: bool

    def sentences(self) -> list[str]:
        """What a person should know beside the rows."""
        how = "scaled by the sampling rates" if self.scaled else "as exported"
        found = [f"{self.flows} flows, {self.packets} packets, {self.octets} octets, {how}"]
        if self.sampled and not self.scaled:
            found.append(f"{self.sampled} of these flows are sampled: --scaled multiplies them by their rates")
        return found


def top(home: Home, wanted: Wanted, by: str, order: str, limit: int, actor: Actor) -> Found:
    """The biggest by a key. Raises UsageError for a wrong filter or option, DamagedFile."""
    for option, value, known in (("--by", by, KEYS), ("--order", order, ORDERS)):
        if value not in known:
            raise UsageError(f"{option} {value} is none of {', '.join(known)}")
    condition = flow_filter.parse(wanted.words)
    flow_looks.note(home, actor, "flows top", wanted.start, wanted.end, wanted.words or "any", by=by)
    keys = KEYS[by]
    with closing(_Sums(condition, keys, keys)) as sums:
        sums.add_all(home, wanted)
        return sums.found(f"ORDER BY {order} DESC, {', '.join(keys)}", limit, wanted.scaled)


def graph(home: Home, wanted: Wanted, bars: int, actor: Actor) -> Found:
    """Rows of equal stretches of time, `start` and `end` as text: bar i begins at start + ceil(i * time / bars) ms.

    Without an end or a start the first or last flow is it; no rows without flows."""
    condition = flow_filter.parse(wanted.words)
    start, end = _extent(home, wanted)
    if start >= end:
        return Found([], 0, 0, 0, 0, wanted.scaled)
    flow_looks.note(home, actor, "flows graph", wanted.start, wanted.end, wanted.words or "any", bars=bars)
    bars = min(bars, end - start)
    bar = f"((epoch_ms(received) - {int(start)}) * {int(bars)}) // {int(end - start)}"
    with closing(_Sums(condition, ("bar",), (bar,))) as sums:
        sums.add_all(home, Wanted(start, end, wanted.words, wanted.scaled))
        found = sums.found("ORDER BY bar", bars, wanted.scaled)
    by_bar = {row["bar"]: row for row in found.rows}
    edges = [start - -(number * (end - start)) // bars for number in range(bars + 1)]
    rows = [{"start": format_instant(edges[number]), "end": format_instant(edges[number + 1]),
             **{name: by_bar[number][name] if number in by_bar else 0 for name in ORDERS}} for number in range(bars)]
    return Found(rows, found.octets, found.packets, found.flows, found.sampled, found.scaled)


def _extent(home: Home, wanted: Wanted) -> tuple[int, int]:
    segments = segments_between(home, wanted.start, wanted.end)
    start = min((row.received_first for row in segments), default=0) if wanted.start is None else wanted.start
    end = max((row.received_last for row in segments), default=-1) + 1 if wanted.end is None else wanted.end
    return start, end


class _Sums:
    """A table of sums by keys. Key columns and condition are text of this package, values are parameters."""

    def __init__(self, condition: Condition, names: Sequence[str], columns: Sequence[str]) -> None:
        import duckdb

        self._folder = tempfile.TemporaryDirectory(prefix="ratemill-flows-")
        self._duck: duckdb.DuckDBPyConnection = duckdb.connect(config={
            "memory_limit": MEMORY, "temp_directory": self._folder.name,
            "autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
        self._names = ", ".join(names)
        keys = ", ".join(f"{column} AS {name}" for name, column in zip(names, columns, strict=True))
        self._parameters = list(condition.parameters)
        self._select = (f"SELECT {keys}, sum(counted_octets) AS octets, sum(counted_packets) AS packets, count(*) AS flows, "
                        "count(*) FILTER (WHERE rate_numerator > rate_denominator) AS sampled "
                        f"FROM piece WHERE {condition.sql} GROUP BY ALL")
        self._again = (f"SELECT {self._names}, sum(octets) AS octets, sum(packets) AS packets, sum(flows) AS flows, "
                       "sum(sampled) AS sampled FROM sums GROUP BY ALL")
        self._run("CREATE TABLE sums AS", schemas.FLOWS.empty_table(), LateRates(), False)

    def close(self) -> None:
        self._duck.close()
        self._folder.cleanup()

    def add_all(self, home: Home, wanted: Wanted) -> None:
        with sql.reading(sql.engine(home)) as connection:
            rates = LateRates.load(connection, home.document)
        segments = segments_between(home, wanted.start, wanted.end)
        with progress.bar("flows", sum(row.flows for row in segments), "flows") as advance:
            for flows in read_flows(home, segments):
                piece = within(flows, wanted.start, wanted.end)
                self._run("INSERT INTO sums", piece, rates, wanted.scaled)
                self._compact()
                advance(flows.num_rows)

    def found(self, order: str, limit: int, scaled: bool) -> Found:
        result = self._duck.execute(f"{self._again} {order} LIMIT ?", [limit])
        names = [column[0] for column in result.description or ()]
        rows = [{name: format_address(value) if isinstance(value, bytes) else int(value)
                 for name, value in zip(names, row, strict=True) if name != "sampled"} for row in result.fetchall()]
        totals = self._duck.execute("SELECT sum(octets), sum(packets), sum(flows), sum(sampled) FROM sums").fetchall()[0]
        octets, packets, flows, sampled = (int(total or 0) for total in totals)
        return Found(rows, octets, packets, flows, sampled, scaled)

    def _run(self, into: str, piece: pa.Table, rates: LateRates, scaled: bool) -> None:
        self._duck.register("piece", _counted(piece, rates, scaled))
        self._duck.execute(f"{into} {self._select}", self._parameters)
        self._duck.unregister("piece")

    def _compact(self) -> None:
        if self._duck.execute("SELECT count(*) FROM sums").fetchall()[0][0] > ROWS_MAX:
            self._duck.execute(f"CREATE OR REPLACE TABLE sums AS {self._again}")


def _counted(table: pa.Table, rates: LateRates, scaled: bool) -> pa.Table:
    """The flows with the columns counted_octets and counted_packets."""
    counts = [table.column("octets"), table.column("packets")]
    if scaled and table.num_rows:
        columns = to_columns(table)
        numerator, denominator = _rates(columns, rates)
        counts = [pa.array(_scaled(columns[name], numerator, denominator)) for name in ("octets", "packets")]
        for name, values in (("rate_numerator", numerator), ("rate_denominator", denominator)):
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    return table.append_column("counted_octets", counts[0]).append_column("counted_packets", counts[1])


def _rates(columns: dict[str, NDArray[Any]], rates: LateRates) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The sampling rates of flows; those of flows in quarantine that have one by now are the late ones."""
    numerator, denominator = columns["rate_numerator"].copy(), columns["rate_denominator"].copy()
    rows = np.flatnonzero(is_quarantined(columns["flags"]))
    if len(rows):
        some = (columns[name][rows] for name in ("exporter", "domain", "flags", "received", "octets", "packets"))
        chosen = rates.choose(*some)
        rated = chosen.source != NONE
        numerator[rows[rated]], denominator[rows[rated]] = chosen.numerator[rated], chosen.denominator[rated]
    return numerator, denominator


def _scaled(raw: NDArray[np.int64], numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.int64]:
    """floor(raw * numerator / denominator), which the decoder has held below 2^62."""
    counts, n, d = raw.astype(np.uint64), numerator.astype(np.uint64), denominator.astype(np.uint64)
    whole = counts // d
    return (whole * n + (counts - whole * d) * n // d).astype(np.int64)
