"""The frozen copy of what a run rated: a bill can be recomputed whatever became of the live tables.

Three Parquet files below frozen/, each named by its digest:

    2026-10-<digest>.parquet              usage by hour (core.schemas.USAGE); its metadata names the other two
    2026-10-<digest>.5min.parquet         5-minute slots (core.schemas.USAGE_5MIN) of subscriptions with a percentile line
    2026-10-<digest>.terms.parquet        subscriptions; plan versions and tax rates as JSON in its metadata

`rate_run.usage_digest` is of the first, which holds the digests of the others: one digest pins them all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from core import schemas
from core.errors import DamagedFile
from rating.inputs import Terms
from storage import files
from storage.home import Home

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

BATCH_ROWS = 122_880  # DuckDB's own row group: batches of this size come out whole
DIGEST_LENGTH = 24
_REPEATED = ["period", "zone", "class", "direction"]

TERMS = pa.schema([
    schemas.column("subscription", pa.int32(), "", "Row id of the subscription."),
    schemas.column("service_id", pa.int32(), "", "Row id of the service."),
    schemas.column("service", pa.string(), "", "Name of the service."),
    schemas.column("plan", pa.string(), "", "Name of the plan, null without one.", nullable=True),
    schemas.column("plan_version", pa.string(), "", "The version in force, null without one.", nullable=True),
    schemas.column("start", pa.string(), "", "First local day, empty: ever."),
    schemas.column("end", pa.string(), "", "Local day after the last, empty: open."),
    schemas.column("timezone", pa.string(), "", "IANA time zone."),
    schemas.column("currency", pa.string(), "", "ISO 4217 code."),
    schemas.column("addon", pa.bool_(), "", "Whether it is an add-on beside the service's own plan."),
    schemas.column("quantity", pa.int32(), "", "How many of an add-on; 1 otherwise."),
    schemas.column("first", pa.bool_(), "", "Whether no row of the service begins earlier."),
    schemas.column("previous", pa.string(), "", "Plan of the row that ends where this one starts.", nullable=True),
    schemas.column("followed", pa.bool_(), "", "Whether a row of the service starts where this one ends."),
    schemas.column("pauses", pa.string(), "", "Times of rest as JSON: [[start, end, kind], …], in order."),
    schemas.column("carried", pa.string(), "", "Of quotas, from earlier periods, as JSON: [[quota, expires, octets], …]."),
    schemas.column("beside", pa.string(), "", "What else the account has as JSON: [[plan, start, end], …]; empty: ever, open."),
])


@dataclass(frozen=True)
class FrozenFile:
    path: str  # below the home
    digest: str


@dataclass(frozen=True)
class Frozen:
    """What `read` gives back."""

    usage: pa.Table
    slots: pa.Table
    terms: pa.Table
    plans: list[dict[str, Any]]
    tax: list[dict[str, str]]


def freeze(home: Home, period: str, terms: Terms, documents: Sequence[dict[str, Any]],
           connection: duckdb.DuckDBPyConnection | None, with_slots: Sequence[int]) -> FrozenFile:
    """Write the three files; the same inputs give the same names and bytes."""
    slots = _write(home, period, ".5min.parquet", schemas.USAGE_5MIN, _slots(connection, period, with_slots), {})
    kept = _write(home, period, ".terms.parquet", TERMS, [_terms(terms)], {
        "plans": json.dumps(documents, ensure_ascii=False, sort_keys=True),
        "tax": json.dumps([{"category": rate.category, "percent": str(rate.percent), "from": rate.from_.isoformat()}
                           for rate in terms.rates], ensure_ascii=False)})
    return _write(home, period, ".parquet", schemas.USAGE, _usage(connection, period), {
        "slots": json.dumps([slots.path, slots.digest]), "terms": json.dumps([kept.path, kept.digest])})


def read(home: Home, path: str, digest: str) -> Frozen:
    """The frozen inputs of a run, all digests verified. Raises DamagedFile."""
    usage = pq.read_table(files.verify(home.path / path, digest), read_dictionary=_REPEATED)
    (slots_path, slots_digest), (terms_path, terms_digest) = _json(usage, "slots"), _json(usage, "terms")
    slots = pq.read_table(files.verify(home.path / slots_path, slots_digest), read_dictionary=["period", "direction"])
    terms = pq.read_table(files.verify(home.path / terms_path, terms_digest))
    return Frozen(usage, slots, terms, _json(terms, "plans"), _json(terms, "tax"))


def _json(table: pa.Table, key: str) -> Any:
    value = (table.schema.metadata or {}).get(key.encode())
    if value is None:
        raise DamagedFile(f"a frozen file has no '{key}' in its metadata", "restore it from a backup, or rate the period again")
    return json.loads(value)


def _usage(connection: duckdb.DuckDBPyConnection | None, period: str) -> Iterable[pa.RecordBatch]:
    return _batches(
        connection, schemas.USAGE,
        "SELECT period, service_id AS service, subscription_id AS subscription, hour, zone, class, direction, sampled, "
        "octets, packets, flows FROM usage WHERE period = ? "
        "ORDER BY service, subscription NULLS FIRST, hour, zone NULLS FIRST, class, direction, sampled", [period])


def _slots(connection: duckdb.DuckDBPyConnection | None, period: str, wanted: Sequence[int]) -> Iterable[pa.RecordBatch]:
    return _batches(
        connection, schemas.USAGE_5MIN,
        "SELECT period, service_id AS service, subscription_id AS subscription, slot, direction, sampled, octets "
        "FROM usage_5min WHERE period = ? AND subscription_id IN (SELECT unnest(CAST(? AS BIGINT[]))) "
        "ORDER BY service, subscription, slot, direction, sampled", [period, list(wanted)])


def _batches(connection: duckdb.DuckDBPyConnection | None, schema: pa.Schema, query: str, values: list[Any]
             ) -> Iterable[pa.RecordBatch]:
    if connection is None:
        return
    for batch in connection.sql(query, params=values).to_arrow_reader(BATCH_ROWS):
        yield pa.RecordBatch.from_arrays(
            [batch.column(field.name).cast(field.type) for field in schema], schema=schema)


def _terms(terms: Terms) -> pa.RecordBatch:
    rows = []
    for row in terms.subscriptions:
        plan = terms.catalogue.in_force(row.plan, row.start)
        rows.append({
            "subscription": row.id, "service_id": terms.service_ids[row.id], "service": row.service, "plan": row.plan,
            "plan_version": plan.version if plan is not None else None, "start": _text(row.start),
            "end": _text(row.end), "timezone": row.timezone, "currency": row.currency, "addon": row.is_addon,
            "quantity": row.quantity, "first": row.is_first, "previous": row.previous, "followed": row.has_next,
            "pauses": json.dumps([[pause.start.isoformat(), pause.end.isoformat(), pause.kind] for pause in row.pauses]),
            "carried": json.dumps(row.carried, ensure_ascii=False),
            "beside": json.dumps([[other.plan, _text(other.start), _text(other.end)] for other in row.beside],
                                 ensure_ascii=False)})
    return pa.RecordBatch.from_pylist(rows, schema=TERMS)


def _text(day: date | None) -> str:
    return "" if day is None else day.isoformat()


def _write(home: Home, period: str, ending: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch],
           metadata: dict[str, str]) -> FrozenFile:
    folder = home.folder("frozen")
    return write_named_by_digest(
        home, lambda digest: folder / f"{period}-{digest[:DIGEST_LENGTH]}{ending}",
        schema.with_metadata({**(schema.metadata or {}), **metadata}), batches)


def write_named_by_digest(home: Home, name: Callable[[str], Path], schema: pa.Schema,
                          batches: Iterable[pa.RecordBatch]) -> FrozenFile:
    """A Parquet file whose name depends on its content; one that is there already is replaced by itself."""
    temporary = files.temporary_name(name("0" * 64))
    temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        with pq.ParquetWriter(temporary, schema, compression="zstd", store_schema=True) as writer:
            for batch in batches:
                writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
        path = name(files.digest_of(temporary))
        return FrozenFile(home.relative(path), files.finish_whole(temporary, path))
    except OSError as error:
        raise files.explain(error, temporary) from error
    finally:
        files.remove(temporary)
