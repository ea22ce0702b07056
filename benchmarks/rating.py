"""Usage of a month → charges and totals: all services at once, beside the engine one by one, the second engine, and the
same simpler job (an included volume, one price, one fee) as DuckDB SQL over the same rows.

`python -m benchmarks rating [--services N]`: 1,000,000 services with 12 cells each by default, 20 plans with different
dates of start; the two engines take a part of them, and their time is scaled to all.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Sequence
from datetime import date
from fractions import Fraction
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.measure import Figure, median_seconds, tell
from core.settings import TaxRate
from rating import columns, engine, frozen, plans, recomputation
from rating.inputs import Terms

PERIOD = "2026-10"
SERVICES = 1_000_000
PLANS = 20
PART = 4_000
KEYS = [(zone, class_, direction, False) for zone in ("day", "night") for class_ in ("default", "peering", "local")
        for direction in ("down", "up")]
PERCENT = Fraction(19)


def _document(number: int) -> dict[str, Any]:
    tiers = {"model": "graduated", "tiers": [{"to": "200 GB", "price": "0.05"}, {"price": "0.03"}]}
    price = tiers if number % 4 == 3 else {"price": "0.05"}
    return {
        "name": f"plan-{number:02d}", "from": "2026-01-01", "currency": "EUR", "tax": "standard", "prices": "exclusive",
        "calendar": "day-night", "percentile": [],
        "fee": [{"name": "Line", "amount": f"{10 + number}.90", "every": "month", "when": "advance",
                 "proration": "actual_days"}],
        "traffic": [{"name": "Traffic", "direction": "down", "classes": [], "zones": ["day"], "included": "100 GB",
                     "above": "excess", "unit": "GB", "sampled": "refuse", **price}]}


def _world(services: int) -> tuple[list[dict[str, Any]], engine.Inputs, columns.UsageColumns]:
    documents = [_document(number) for number in range(PLANS)]
    rng = np.random.default_rng(1)
    octets = rng.integers(0, 10**11, services * len(KEYS))
    usage = columns.UsageColumns(
        np.repeat(np.arange(1, services + 1), len(KEYS)), np.tile(np.arange(len(KEYS), dtype=np.int32), services), octets, KEYS)
    rows = [engine.Subscription(number, f"S{number:08d}", f"plan-{number % PLANS:02d}", date(2026, 1 + number % 9, 1), None,
                                "Europe/Berlin", "EUR") for number in range(1, services + 1)]
    catalogue = plans.Catalogue(plans.parse(document) for document in documents)
    return documents, engine.Inputs(PERIOD, rows, catalogue, {}, {}, lambda tax, day: PERCENT), usage


def _part(inputs: engine.Inputs, usage: columns.UsageColumns) -> engine.Inputs:
    rows: dict[int | None, list[engine.Usage]] = {
        number: [engine.Usage(*KEYS[key], int(usage.octets[(number - 1) * len(KEYS) + key])) for key in range(len(KEYS))]
        for number in range(1, PART + 1)}
    return engine.Inputs(PERIOD, inputs.subscriptions[:PART], inputs.catalogue, rows, {}, inputs.percent_on)


def _recompute(documents: list[dict[str, Any]], part: engine.Inputs) -> None:
    terms = Terms(part.subscriptions, {row.id: row.id for row in part.subscriptions}, part.catalogue, [])
    usage = [{"subscription": number, "zone": row.zone, "class": row.class_, **row._asdict()}
             for number, rows in part.usage.items() for row in rows]
    rate = TaxRate("standard", PERCENT, date(2000, 1, 1))
    recomputation.charges(PERIOD, frozen.rows_of_terms(terms), documents,
                        [{"category": rate.category, "percent": str(rate.percent), "from": "2000-01-01"}], usage, [])


SQL = """
SELECT currency, sum(net) FROM (
  SELECT s.service, 'EUR' AS currency,
         max(p.fee) + CAST(floor((greatest(sum(u.octets) FILTER (k.zone = 'day' AND k.direction = 'down') - 100000000000, 0)
                    * 5 + 500000000) / 1000000000) AS BIGINT) AS net
  FROM usage u JOIN keys k ON k.key = u.key JOIN subscription s ON s.id = u.subscription JOIN plan p ON p.name = s.plan
  GROUP BY s.service)
GROUP BY currency"""


def _duckdb(inputs: engine.Inputs, usage: columns.UsageColumns) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    tables = {
        "usage": pa.table({"subscription": usage.subscription, "key": usage.key, "octets": usage.octets}),
        "keys": pa.table({"key": pa.array(range(len(KEYS)), pa.int32()), "zone": [key[0] for key in KEYS],
                          "direction": [key[2] for key in KEYS]}),
        "subscription": pa.table({"id": [row.id for row in inputs.subscriptions],
                                  "service": [row.service for row in inputs.subscriptions],
                                  "plan": [row.plan for row in inputs.subscriptions]}),
        "plan": pa.table({"name": [f"plan-{number:02d}" for number in range(PLANS)],
                          "fee": [1090 + 100 * number for number in range(PLANS)]})}
    for name, table in tables.items():
        connection.register("given", table)
        connection.execute(f"CREATE TABLE {name} AS FROM given")
        connection.unregister("given")
    return connection


def _rated(inputs: engine.Inputs, usage: columns.UsageColumns) -> int:
    """Rate and total."""
    return int(pc.sum(columns.rate(inputs, usage).charges.column("net_minor")).as_py())


def run(services: int = SERVICES) -> None:
    """Ratios of one run: to DuckDB, to the engine one by one, to the second engine; and growth from a tenth."""
    documents, inputs, usage = _world(services)
    ours = median_seconds(lambda: _rated(inputs, usage), runs=5)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    connection = _duckdb(inputs, usage)
    theirs = median_seconds(lambda: connection.execute(SQL).fetchall(), runs=5)
    beside = {"services": services, "cells": services * len(KEYS), "seconds": round(ours, 2), "peak GiB": round(peak, 2)}
    tell(Figure("rating", "services a second, all at once", services / ours, "services/s", "DuckDB SQL, a simpler tariff",
                theirs / ours, {**beside, "DuckDB seconds": round(theirs, 2)}))
    part = _part(inputs, usage)
    single = median_seconds(lambda: engine.rate(part), runs=3) / PART * services
    tell(Figure("rating", "all at once", ours, "s", "the engine one by one", single / ours, {"its seconds": round(single, 1)}))
    begun = time.perf_counter()
    _recompute(documents, part)
    second = (time.perf_counter() - begun) / PART * services
    tell(Figure("rating", "all at once", ours, "s", "the second engine", second / ours, {"its seconds": round(second, 1)}))
    _, fewer, less = _world(services // 10)
    tenth = median_seconds(lambda: _rated(fewer, less), runs=5)
    tell(Figure("rating", "ten times the services", ours / tenth, "times the time", "a tenth of them", ours / tenth / 10))


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks rating", description=__doc__)
    parser.add_argument("--services", type=int, default=SERVICES)
    run(parser.parse_args(words).services)
