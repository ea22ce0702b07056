"""Attribution, class, split and sums of a month of flows on one core, against DuckDB adding up the same flows by address
and quarter hour alone (no leases, no classes, no split: less than the job) on one thread."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from aggregation import classes
from aggregation import settings as aggregation_settings
from aggregation.cells import Inputs, Maker
from aggregation.timelines import Timelines
from benchmarks.measure import Figure, median_seconds, tell
from benchmarks.town import settle
from core.addresses import parse_address
from core.periods import OPEN_END, OPEN_START
from core.product import data_file
from monitoring import demo_traffic
from storage import sql
from subscribers.attribution import Attribution

REPEATS = 5


def run() -> None:
    """Flows a second, of one router of the demo town."""
    router = demo_traffic.ROUTERS[1]
    columns = _columns(router)
    count = len(columns["start"])
    with tempfile.TemporaryDirectory() as folder:
        home = settle(Path(folder))
        entries, _ = aggregation_settings.from_document(home.document)
        with sql.transaction(sql.engine(home)) as connection:
            inputs = Inputs(
                Attribution.load(connection, home.document, OPEN_START, OPEN_END),
                classes.Classifier.make(entries, classes.ensure_ids(connection, entries)),
                Timelines.load(connection, home.document),
            )

        def aggregate() -> None:
            maker = Maker(inputs)
            maker.take(columns, "benchmark")
            assert maker.finish().cells.num_rows > 0

        ours = median_seconds(aggregate)
    theirs = median_seconds(_duckdb(columns))
    tell(Figure("aggregate", "flows to cells, one core", count / ours / 1e6, "M flows/s",
                "DuckDB summing by address and slot alone", theirs / ours))  # fmt: skip


def _columns(router: demo_traffic.Router) -> demo_traffic.Columns:
    flows = demo_traffic.make_flows(router, demo_traffic.read_town(data_file("demo")), 1)
    columns = {name: np.concatenate([values] * REPEATS) for name, values in flows.items()}
    count = len(columns["start"])
    columns["exporter"] = np.tile(np.frombuffer(parse_address(router.address), np.uint8), (count, 1))
    columns["rate_numerator"] = columns["rate_denominator"] = np.ones(count, np.uint32)
    columns["flow_direction"] = np.full(count, 255, np.uint8)
    columns["flags"] = np.zeros(count, np.uint32)
    return columns


def _duckdb(columns: demo_traffic.Columns) -> Callable[[], object]:
    table = pa.table({
        "address": pa.array([bytes(row) for row in columns["destination_address"]], pa.binary(16)),
        "slot": columns["start"] // 900_000, "octets": columns["octets"],
    })  # fmt: skip
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    connection.register("flows", table)
    return lambda: connection.execute(
        "SELECT address, slot, sum(octets), count(*) FROM flows GROUP BY ALL"
    ).to_arrow_table()
