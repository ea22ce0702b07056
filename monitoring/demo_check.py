"""What was done to the demo's packets on purpose against what the pipeline counted: every loss named and equal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from collector.exporter.network import Manifest
from core import tables
from core.addresses import parse_address, parse_prefix
from monitoring import demo_traffic
from storage import sql
from storage.home import Home

COUNTS = ("received", "missing", "duplicate", "reordered")


@dataclass(frozen=True)
class Truth:
    """One router's manifest, and the octets of nobody in what arrived of it."""

    router: demo_traffic.Router
    manifest: Manifest
    infrastructure_octets: int
    stranger_octets: int


@dataclass(frozen=True)
class Comparison:
    """One figure that was caused on purpose, and the same figure as the pipeline reports it."""

    what: str
    caused: int
    counted: int

    @property
    def is_equal(self) -> bool:
        return self.caused == self.counted

    def __str__(self) -> str:
        return f"{self.what}: on purpose {self.caused}, counted {self.counted}" + ("" if self.is_equal else "  DIFFERENT")


def truth(
    router: demo_traffic.Router, columns: demo_traffic.Columns, delivered: NDArray[np.bool_], manifest: Manifest
) -> Truth:
    """What of the delivered flows must come out as infrastructure and as strangers."""
    octets = columns["octets"].astype(np.int64) * router.sampling
    ends = (columns["source_address"], columns["destination_address"])
    near = [_is_in(address, demo_traffic.INFRASTRUCTURE_ADDRESS, 16) for address in ends]
    strange = [_is_in(address, demo_traffic.STRANGER_PREFIX, 14) for address in ends]
    homes = [_is_in(address, demo_traffic.HOMES_PREFIX, 14) for address in ends]
    at_home = homes[0] | homes[1]  # a far end that is a subscriber owns the flow, whoever the near end is
    infrastructure = (near[0] | near[1]) & ~at_home & delivered
    strangers = (strange[0] | strange[1]) & ~at_home & delivered
    return Truth(router, manifest, int(octets[infrastructure].sum()), int(octets[strangers].sum()))


def _is_in(address: NDArray[np.uint8], prefix: str, octets: int) -> NDArray[np.bool_]:
    first = parse_prefix(prefix).address if "/" in prefix else parse_address(prefix)
    same: NDArray[np.bool_] = (address[:, :octets] == np.frombuffer(first[:octets], np.uint8)).all(axis=1)
    return same


def compare(home: Home, truths: Sequence[Truth], losses: dict[str, int]) -> Iterable[Comparison]:
    """Line by line: each router's datagrams and records, then the octets of nobody."""
    state = tables.exporter_state
    with sql.reading(sql.engine(home)) as connection:
        rows = {bytes(row.exporter): row for row in connection.execute(sa.select(state))}
    for own in truths:
        manifest, row = own.manifest, rows.get(parse_address(own.router.address))
        counted = {name: int(getattr(row, name)) if row is not None else 0 for name in COUNTS}
        unit = "records" if own.router.protocol in ("v5", "ipfix") else "datagrams"
        name = f"{own.router.name} ({own.router.protocol})"
        yield Comparison(f"{name} datagrams on the wire", manifest.datagrams, counted["received"])
        yield Comparison(f"{name} {unit} lost", manifest.missing, counted["missing"])
        yield Comparison(f"{name} datagrams duplicated", manifest.duplicated_datagrams, counted["duplicate"])
        yield Comparison(f"{name} datagrams reordered", manifest.reordered_datagrams, counted["reordered"])
    yield Comparison("octets of the infrastructure", sum(t.infrastructure_octets for t in truths), losses["infrastructure"])
    yield Comparison("octets of strangers", sum(t.stranger_octets for t in truths), losses["stranger"])
