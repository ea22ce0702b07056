"""`rate run PERIOD`: terms and published usage → charges/<period>/<n>.parquet, a frozen copy of the inputs, a row in
`rate_run`.

The newest row of a period is the one that counts; a run that comes to the same charges from the same usage adds none.
Charges are complete for what is known: `bookable` says from when each may be invoiced, so a run during a period holds
its fees in advance for booking and shows what the rest would be.
"""

from __future__ import annotations

import hashlib
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from core import clock, settings, tables
from core.actor import Actor
from core.errors import NotFound
from rating import columns, engine, frozen, inputs
from rating.stored import load_plan_documents
from runtime import jobs
from security import audit
from storage import files, generations, sql
from storage.generations import Generation
from storage.home import Home

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Prepared:
    """Everything a run needs, read in one view of the database."""

    terms: inputs.Terms
    documents: list[dict[str, Any]]
    generation: Generation | None
    manifest_version: int


def run(home: Home, period: str, as_of: int | None, dry_run: bool, actor: Actor) -> dict[str, Any]:
    """Rate a period; returns the summary that the command prints."""
    bound = sql.engine(home)
    with nullcontext() if dry_run else jobs.hold(bound, "rate"):
        if not dry_run:
            for folder in ("charges", "frozen"):  # nobody else writes there: what is unfinished was killed
                files.sweep_temporaries(home.folder(folder))
        prepared = _prepare(home, bound, period, as_of)
        inputs.check_terms(prepared.terms)
        with closing(inputs.open_generation(home, prepared.generation)) if prepared.generation else nullcontext() as usage:
            rated = columns.rate(_inputs(period, prepared.terms, usage), inputs.read_usage(usage, period))
            summary = _summary(period, rated)
            if dry_run:
                return {**summary, "run": None, "changed": None}
            return {**summary, **_keep(home, bound, period, as_of, prepared, rated, usage, actor)}


def _prepare(home: Home, bound: sa.Engine, period: str, as_of: int | None) -> Prepared:
    with sql.reading(bound) as connection:
        terms = inputs.load_terms(connection, home.document, period)
        if as_of is None:
            inputs.check_over(terms, settings.seller(home.document).timezone, period)
        generation = generations.latest(connection)
        inputs.check_published(connection, generation, period)
        used = {(plan.name, plan.version) for row in terms.subscriptions
                if (plan := terms.catalogue.in_force(row.plan, row.start)) is not None}
        documents = [document for document in load_plan_documents(connection) if (document["name"], document["from"]) in used]
        manifest = connection.execute(sa.select(sa.func.max(tables.manifest_version.c.id))).scalar_one() or 0
    return Prepared(terms, documents, generation, generation.manifest_version if generation is not None else manifest)


def _inputs(period: str, terms: inputs.Terms, usage: duckdb.DuckDBPyConnection | None) -> engine.Inputs:
    slots = inputs.read_slots(usage, period, with_percentile(terms)) if usage is not None else {}
    return engine.Inputs(period, terms.subscriptions, terms.catalogue, {}, slots, terms.percent_on())


def with_percentile(terms: inputs.Terms) -> list[int]:
    """The subscriptions whose plan has a percentile line."""
    return [row.id for row in terms.subscriptions
            if (plan := terms.catalogue.in_force(row.plan, row.start)) is not None and plan.percentiles]


def _summary(period: str, rated: columns.Rated) -> dict[str, Any]:
    sums = rated.charges.group_by("currency").aggregate([("net_minor", "sum")]).to_pylist()
    net = {row["currency"]: row["net_minor_sum"] for row in sorted(sums, key=lambda row: str(row["currency"]))}
    return {"period": period, "charges": len(rated.charges), "stretches": rated.stretches, "net_minor": net,
            "rated_octets": rated.rated_octets, "without_plan_octets": rated.without_plan_octets,
            "sampled_refused_octets": rated.sampled_refused_octets}


def _keep(home: Home, bound: sa.Engine, period: str, as_of: int | None, prepared: Prepared, rated: columns.Rated,
          usage: duckdb.DuckDBPyConnection | None, actor: Actor) -> dict[str, Any]:
    """Write the files, then the row; nothing if the newest run has the same content."""
    copy = frozen.freeze(home, period, prepared.terms, prepared.documents, usage, with_percentile(prepared.terms))
    data = _serialised(rated.charges)
    with sql.reading(bound) as connection:
        before = newest(connection, period)
        number = connection.execute(sa.select(sa.func.count()).where(tables.rate_run.c.period == period)).scalar_one() + 1
    path = home.folder("charges") / period / f"{number}.parquet"
    values = {
        "period": period, "engine_version": engine.ENGINE_VERSION, "digest": hashlib.sha256(data).hexdigest(),
        "usage_path": copy.path, "usage_digest": copy.digest, "rows": len(rated.charges), "rated_octets": rated.rated_octets,
        "without_plan_octets": rated.without_plan_octets, "sampled_refused_octets": rated.sampled_refused_octets}
    if before is not None and all(before._mapping[name] == value for name, value in values.items()):
        return {"run": before.id, "changed": False}
    files.write_whole(path, data)
    now = clock.now_ms()
    with sql.transaction(bound) as connection:
        run_id = connection.execute(tables.rate_run.insert().values(
            **values, at=now, as_of=now if as_of is None else as_of, manifest_version=prepared.manifest_version,
            generation=prepared.generation.path if prepared.generation is not None else None,
            path=home.relative(path))).inserted_primary_key
        assert run_id is not None, "an insert gives a row id"
        carried = [{"run_id": run_id[0], "subscription": number, **row._asdict()}
                   for number, rows in rated.carried.items() for row in rows]
        if carried:
            connection.execute(tables.quota_carried.insert(), carried)
        audit.record(connection, actor, "rate run", period, _counts(before), {**_counts_of(values), "run": run_id[0]})
    return {"run": run_id[0], "changed": True}


def _counts(row: sa.Row[Any] | None) -> dict[str, Any] | None:
    return None if row is None else {**_counts_of(row._mapping), "run": row.id}


def _counts_of(values: Any) -> dict[str, Any]:
    return {name: values[name] for name in ("rows", "digest", "usage_digest", "rated_octets", "without_plan_octets",
                                            "sampled_refused_octets")}


def _serialised(charges: pa.Table) -> memoryview:
    sink = pa.BufferOutputStream()
    pq.write_table(charges, sink, compression="zstd")
    return memoryview(sink.getvalue())


def newest(connection: sa.Connection, period: str) -> sa.Row[Any] | None:
    """The run of a period that counts."""
    table = tables.rate_run
    return connection.execute(sa.select(table).where(table.c.period == period)
                              .order_by(table.c.id.desc()).limit(1)).one_or_none()


def newest_or_hint(home: Home, period: str) -> sa.Row[Any]:
    """The same. Raises NotFound if the period was never rated."""
    with sql.reading(sql.engine(home)) as connection:
        row = newest(connection, period)
    if row is None:
        raise NotFound(f"{period} has not been rated", f"run `ratemill rate run {period}` first")
    return row


def charges(home: Home, period: str) -> pa.Table:
    """The charges of the newest run of a period, its file verified. Raises NotFound."""
    row = newest_or_hint(home, period)
    return pq.read_table(files.verify(home.path / row.path, row.digest))
