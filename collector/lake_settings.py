"""What the operator may set about stored flows: [lake] and [retention]."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import SettingsError
from core.settings import Document, read_section, setting


@dataclass(frozen=True)
class LakeSettings:
    """[lake]: how flows become Parquet files, one UTC day after another."""

    compact_after_hours: int = setting(24, what="A day is compacted so long after its end.", unit="h", lowest=0,
                                       highest=24 * 366)
    replaced_keep_hours: int = setting(168, what="How long files that were compacted, replaced or given up are kept.",
                                       unit="h", lowest=0, highest=24 * 366)
    memory_octets_max: int = setting(1 << 30, what="Memory for sorting; what is more goes to the disk.", unit="octets",
                                     lowest=1 << 28, highest=1 << 40)


@dataclass(frozen=True)
class Retention:
    """[retention]: how long is known who talked to whom; what the law of the country says counts."""

    truncate_after_days: int = setting(90, what="Far ends of flows are truncated to /24 (IPv4) or /48 after so long; 0: never.",
                                       unit="d", lowest=0, highest=3660)
    delete_after_days: int = setting(180, what="Flows are deleted after so long; 0: never. Usage, charges and invoices stay.",
                                     unit="d", lowest=0, highest=3660)


def from_document(document: Document) -> tuple[LakeSettings, Retention]:
    """Read and check them. Raises SettingsError."""
    lake = read_section(document, "lake", LakeSettings)
    retention = read_section(document, "retention", Retention)
    if 0 < retention.delete_after_days < retention.truncate_after_days:
        raise SettingsError(f"ratemill.toml, [retention]: delete_after_days ({retention.delete_after_days}) is less than "
                            f"truncate_after_days ({retention.truncate_after_days})",
                            "lower truncate_after_days as well, or set it to 0")
    return lake, retention
