"""The view `flows` of a generation: compacted flows where they lie, with addresses as text and instants as timestamps.

A generation names the files that counted when it was published, by their whole paths: nothing is copied. DuckDB leaves out
files by `day` and row groups by `near_high` and `near_low`; `ipv4('10.0.0.1')` is the latter of an IPv4 address. Text is made
only of the columns that a query names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa

from aggregation import projections
from core import schemas, tables
from storage import lake
from storage.home import Home

if TYPE_CHECKING:
    import duckdb

_ADDRESSES = ("near", "exporter", "source", "destination", "next_hop")
_PLAIN = ("source_port", "destination_port", "protocol", "octets", "packets", "rate_numerator", "rate_denominator")
_REST = ("input_interface", "output_interface")
_IPV4 = 0xFFFF << 32

MACRO = f"""CREATE MACRO ipv4(address) AS {_IPV4}::UBIGINT + split_part(address, '.', 1)::UBIGINT * 16777216
  + split_part(address, '.', 2)::UBIGINT * 65536 + split_part(address, '.', 3)::UBIGINT * 256
  + split_part(address, '.', 4)::UBIGINT"""


def paths(connection: sa.Connection) -> list[str]:
    """The files with flows that count now, below the home, day by day."""
    part, file = tables.lake_part, tables.lake_file
    query = (sa.select(file.c.path).join(part, part.c.id == file.c.part_id)
             .where(part.c.replaced.is_(None), part.c.deleted.is_(None), file.c.kind == lake.FLOWS_KIND)
             .order_by(part.c.day, part.c.id, file.c.key_first, file.c.id))
    return list(connection.scalars(query))


def complete_until(connection: sa.Connection) -> int | None:
    """Flows received before this instant are all there; None: all that there are."""
    segment, member = tables.segment, tables.lake_segment
    query = sa.select(sa.func.min(segment.c.received_first)).where(
        segment.c.flows > 0, ~sa.exists().where(member.c.segment_id == segment.c.id))
    return connection.execute(query).scalar()


def fingerprint(connection: sa.Connection, home: Home) -> str:
    """Of everything that a generation shows beside cells and inputs."""
    part = tables.lake_part
    live = connection.scalars(sa.select(part.c.id).where(part.c.replaced.is_(None), part.c.deleted.is_(None))
                              .order_by(part.c.id))
    shown = [str(home.path), list(live), [(one.name, one.fingerprint(connection)) for one in projections.registered.values()]]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()


def create(duck: duckdb.DuckDBPyConnection, home: Home, found: Sequence[str]) -> None:
    """Make the view over these files, and the macro."""
    duck.execute(MACRO)
    if found:
        listed = ", ".join("'" + str(home.path / path).replace("'", "''") + "'" for path in found)
        source = f"read_parquet([{listed}], hive_partitioning = true, hive_types = {{'day': DATE}})"
    else:
        source = "no_flows"
        duck.register("empty", schemas.LAKE.empty_table())
        duck.execute("CREATE TABLE no_flows AS SELECT *, NULL::DATE AS day FROM empty")
        duck.unregister("empty")
    duck.execute(f"CREATE VIEW flows AS {_select(source)}")


def _select(source: str) -> str:
    texts = ", ".join(f"{_hextets(name)} AS {name}_text" for name in _ADDRESSES)
    shown = {name: f"{_text(name)} AS {name if name in ('exporter', 'next_hop') else f'{name}_address'}" for name in _ADDRESSES}
    sources = " ".join(f"WHEN {source.value} THEN '{source.name.lower()}'" for source in schemas.RateSource)
    columns = [
        "day", "received", shown["exporter"], "domain", "export_protocol", "start", '"end"', shown["source"],
        shown["destination"], *_PLAIN, f"CASE rate_source {sources} END AS rate_source", *_REST,
        "CASE flow_direction WHEN 0 THEN 'ingress' WHEN 1 THEN 'egress' END AS flow_direction",
        f"CASE WHEN next_hop_high > 0 OR next_hop_low > 0 THEN {_text('next_hop')} END AS next_hop",
        "source_as", "destination_as", "tos", "tcp_flags", shown["near"], "near_high", "near_low"]
    return f"SELECT {', '.join(columns)} FROM (SELECT *, {texts} FROM {source})"


def _hextets(name: str) -> str:
    groups = [f"to_hex({name}_{word} >> {shift} & 65535)" for word in ("high", "low") for shift in (48, 32, 16, 0)]
    return f"lower(concat_ws(':', {', '.join(groups)}))"


def _text(name: str) -> str:
    """As `core.addresses.format_address`: dotted, or RFC 5952, the first of the longest runs of zeros left out."""
    octets = ", ".join(f"{name}_low >> {shift} & 255" for shift in (24, 16, 8, 0))
    runs = " ".join(f"WHEN regexp_matches({name}_text, '{run}') THEN regexp_replace({name}_text, '{run}', '::')"
                    for run in (f"(^|:)0(:0){{{zeros}}}(:|$)" for zeros in range(7, 0, -1)))
    return (f"CASE WHEN {name}_high = 0 AND {name}_low >> 32 = 65535 THEN concat_ws('.', {octets}) {runs} "
            f"ELSE {name}_text END")
