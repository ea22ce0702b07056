"""What an exporter sent and what was done to it on purpose: the truth that the collector's counts are held against."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from storage.files import write_whole


@dataclass(frozen=True)
class Manifest:
    """Counts of one exporter. sent = lost + delivered; on_the_wire = delivered + duplicated."""

    exporter: str
    protocol: str
    domain: int
    sent_datagrams: int
    sent_records: int
    sent_octets: int
    lost_datagrams: int
    lost_records: int
    lost_octets: int
    duplicated_datagrams: int
    reordered_datagrams: int
    on_the_wire: int
    missing: int  # what the collector must report, in the protocol's own unit (records for v5 and IPFIX)

    @property
    def delivered_records(self) -> int:
        return self.sent_records - self.lost_records

    @property
    def delivered_octets(self) -> int:
        return self.sent_octets - self.lost_octets

    def write(self, path: Path) -> None:
        write_whole(path, (json.dumps(asdict(self), indent=2) + "\n").encode())
