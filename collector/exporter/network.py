"""A network that loses, doubles and delays datagrams, and the manifest of what it did to whom.

The first datagram of a stream and templates always arrive, and in order: what is done to the others must be found again in
the collector's counts to the last record.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.exporter.encode import Datagrams
from core.errors import UsageError

DELAY_MAX = 3
"""A late datagram lets at most so many others pass."""


@dataclass(frozen=True)
class Delivery:
    """`order` are the indexes of the datagrams as they go out, copies included."""

    order: NDArray[np.int64]
    is_copy: NDArray[np.bool_]
    lost: NDArray[np.bool_]


def perturb(datagrams: Datagrams, *, loss: float = 0.0, duplicate: float = 0.0, reorder: float = 0.0,
            seed: int = 1) -> Delivery:
    """Decide each datagram's fate, the same for the same seed. Raises UsageError for shares that are none."""
    if not all(0.0 <= share <= 1.0 for share in (loss, duplicate, reorder)):
        raise UsageError("a share lies between 0 and 1", "for example --loss 0.01")
    rng = np.random.default_rng(seed)
    count = len(datagrams)
    eligible = ~datagrams.is_template
    eligible[0] = False
    lost = eligible & (rng.random(count) < loss)
    doubled = eligible & ~lost & (rng.random(count) < duplicate)
    late = eligible & ~lost & ~doubled & (rng.random(count) < reorder)
    indexes = np.arange(count)
    place = indexes + np.where(late, 0.5 + rng.integers(1, DELAY_MAX + 1, count), 0.0)
    copies = np.flatnonzero(doubled)
    copy_place = copies + 0.25 + rng.integers(0, DELAY_MAX + 1, len(copies))
    sent = np.flatnonzero(~lost)
    every, places = np.concatenate([sent, copies]), np.concatenate([place[sent], copy_place])
    order = np.argsort(places, kind="stable")
    is_copy = np.concatenate([np.zeros(len(sent), bool), np.ones(len(copies), bool)])
    return Delivery(every[order].astype(np.int64), is_copy[order], lost)


@dataclass(frozen=True)
class Manifest:
    """What was sent in one stream, and what a collector that received all of it must report.

    `missing` is in the protocol's own unit (records for v5 and IPFIX, else datagrams); what was lost behind the last
    datagram that arrived, nobody can miss.
    """

    protocol: str
    source: str
    domain: int
    sampling: int
    datagrams: int
    """Went out, copies included."""
    records: int
    octets: int
    """Records and octets that went out, copies not counted."""
    template_datagrams: int
    lost_datagrams: int
    lost_records: int
    lost_octets: int
    duplicated_datagrams: int
    reordered_datagrams: int
    missing: int
    sizes: dict[int, int]
    """Records in a datagram → how many such datagrams went out, copies not counted: converts one into the other."""

    def document(self) -> dict[str, Any]:
        """As JSON: what was done, and what must be found."""
        told = asdict(self)
        told["sizes"] = {str(size): count for size, count in self.sizes.items()}
        told["made"] = {"datagrams": self.datagrams - self.duplicated_datagrams + self.lost_datagrams,
                        "records": self.records + self.lost_records, "octets": self.octets + self.lost_octets}
        told["collector"] = {"received": self.datagrams, "flows": self.records, "octets": self.octets,
                             "duplicate": self.duplicated_datagrams, "missing": self.missing,
                             "reordered": self.reordered_datagrams}
        return told


def describe(datagrams: Datagrams, delivery: Delivery, source: str, domain: int, sampling: int) -> Manifest:
    """The manifest of a delivery."""
    arrived = delivery.order[~delivery.is_copy]
    begins, units = datagrams.sequence[arrived], datagrams.units[arrived]
    expected = np.maximum.accumulate(begins + units)
    late = np.count_nonzero(begins[1:] < expected[:-1])
    missing = int(expected[-1] - begins[0] - units.sum())
    lost = delivery.lost
    return Manifest(
        protocol=datagrams.protocol, source=source, domain=domain, sampling=sampling,
        datagrams=len(delivery.order), records=int(datagrams.records[arrived].sum()),
        octets=int(datagrams.flow_octets[arrived].sum()), template_datagrams=int(datagrams.is_template.sum()),
        lost_datagrams=int(lost.sum()), lost_records=int(datagrams.records[lost].sum()),
        lost_octets=int(datagrams.flow_octets[lost].sum()), duplicated_datagrams=int(delivery.is_copy.sum()),
        reordered_datagrams=int(late), missing=missing, sizes=_sizes(datagrams.records[arrived]))


def _sizes(records: NDArray[np.int64]) -> dict[int, int]:
    sizes, counts = np.unique(records, return_counts=True)
    return dict(zip(sizes.tolist(), counts.tolist(), strict=True))


def add_up(manifests: list[Manifest]) -> dict[str, Any]:
    """The sums over several streams, by protocol and in total."""
    names = ("datagrams", "records", "octets", "lost_datagrams", "lost_records", "lost_octets", "duplicated_datagrams",
             "reordered_datagrams")

    def sums(chosen: list[Manifest]) -> dict[str, int]:
        return {name: sum(getattr(one, name) for one in chosen) for name in names}

    protocols = dict.fromkeys(one.protocol for one in manifests)
    return {"streams": [one.document() for one in manifests],
            "protocols": {name: sums([one for one in manifests if one.protocol == name]) for name in protocols},
            "total": sums(manifests)}
