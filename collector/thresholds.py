"""What the operator calls complete: [completeness], and `completeness_percent` of an [[exporter]]."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from collector.settings import from_document as collector_settings
from collector.settings import share_setting
from core.errors import SettingsError
from core.settings import Document, read_section, setting


@dataclass(frozen=True)
class Completeness:
    """[completeness]: from which lack of traffic on a period is not invoiced without `--accept-incomplete REASON`."""

    threshold_percent: Fraction = setting(
        Fraction(99), what="Flows of an interface cover at least this share of its octet counter.",
        parse=share_setting)
    sequence_loss_percent_max: Fraction = setting(
        Fraction(1), what="Largest share of what an exporter sent that its sequence numbers may lack.",
        parse=share_setting)
    sequence_loss_units_min: int = setting(
        1000, what="So few missing records or datagrams of an exporter's domain are no reason to refuse.", unit="units",
        lowest=0, highest=2**40)
    flow_seconds_max: int = setting(
        300, what="Longest flow of an exporter that a percentile may be made of.", unit="s", lowest=1, highest=86400)
    overhead_octets_min: int = setting(
        18, what="Octets a packet that counters count beyond IP, at least: Ethernet header and checksum.", unit="octets",
        lowest=0, highest=1000)
    overhead_octets_max: int = setting(
        38, what="The same at most: with two VLAN tags and three MPLS labels.", unit="octets", lowest=0, highest=1000)


@dataclass(frozen=True)
class Thresholds:
    """[completeness] with what single exporters have instead."""

    common: Completeness
    by_exporter: dict[bytes, Fraction]

    def percent(self, exporter: bytes) -> Fraction:
        return self.by_exporter.get(exporter, self.common.threshold_percent)


def from_document(document: Document) -> Thresholds:
    """Read and check them. Raises SettingsError."""
    common = read_section(document, "completeness", Completeness)
    if common.overhead_octets_max < common.overhead_octets_min:
        raise SettingsError(f"ratemill.toml, [completeness]: overhead_octets_max ({common.overhead_octets_max}) is less than "
                            f"overhead_octets_min ({common.overhead_octets_min})", "correct one of them")
    exporters = collector_settings(document).exporters
    return Thresholds(common, {one.address: one.completeness_percent for one in exporters
                               if one.completeness_percent is not None})
