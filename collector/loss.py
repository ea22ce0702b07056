"""What sequence numbers lack, explained: datagrams that the kernel dropped for want of room, the rest the network's.

Pure arithmetic in whole numbers. NetFlow v5, v7 and IPFIX count records in their sequence numbers, v9 and sFlow datagrams; the
kernel drops datagrams of all exporters of a socket and does not say whose. So a kernel drop explains a missing datagram as
long as there is one, in proportion to what each exporter lacks, and what a missing datagram held is estimated from those
that came: their mean, with the emptiest and the fullest as bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

RECORD_PROTOCOLS = frozenset({5, 7, 10})
"""Protocols whose sequence numbers count records (RFC 7011 §3.1; NetFlow v5: flows); v1 has none."""


def unit_of(protocol: int) -> str:
    """In what `missing` of a protocol is counted."""
    return "records" if protocol in RECORD_PROTOCOLS else "datagrams"


@dataclass(frozen=True, slots=True)
class Missing:
    """What one domain lacks, and what its datagrams held that came."""

    missing: int
    """In the protocol's own unit, at least 0."""
    by_records: bool
    measured: int = 0
    """Datagrams without a fault …"""
    records: int = 0
    """… and the records in them: in all, in the emptiest, in the fullest."""
    records_min: int = 0
    records_max: int = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A whole number that is not known exactly: least ≤ likely ≤ most."""

    least: int
    likely: int
    most: int


@dataclass(frozen=True, slots=True)
class Explained:
    """Of one domain: kernel + network = missing, in its own unit; what is missing in the two units."""

    kernel: int
    network: int
    kernel_bounds: Estimate
    datagrams: Estimate
    records: Estimate


def missing_datagrams(one: Missing) -> Estimate:
    """How many datagrams lack; exact where the protocol counts them."""
    if not one.by_records:
        return Estimate(one.missing, one.missing, one.missing)
    if one.missing == 0:
        return Estimate(0, 0, 0)
    if one.records == 0:  # nothing came to compare with: anything from one datagram to one a record
        return Estimate(1, one.missing, one.missing)
    least = -(-one.missing // one.records_max)
    most = max(least, one.missing // max(one.records_min, 1))
    likely = _rounded(one.missing * one.measured, one.records)
    return Estimate(least, min(max(likely, least), most), most)


def missing_records(one: Missing) -> Estimate:
    """How many records lack; exact where the protocol counts them."""
    if one.by_records:
        return Estimate(one.missing, one.missing, one.missing)
    if one.measured == 0:
        return Estimate(0, 0, 0)
    least, most = one.missing * one.records_min, one.missing * one.records_max
    return Estimate(least, min(max(_rounded(one.missing * one.records, one.measured), least), most), most)


def explain(domains: Sequence[Missing], kernel_drops: int) -> tuple[list[Explained], int]:
    """Explain what all domains of one collector lack. Also returns the drops that no sequence number shows.

    A drop is not seen in sequence numbers if it was the last datagram of an exporter, a copy, or none of an exporter's.
    """
    datagrams = [missing_datagrams(one) for one in domains]
    likely = [one.likely for one in datagrams]
    shares = share_out(kernel_drops, likely)
    most_of_all = sum(one.most for one in datagrams)
    found = []
    for one, estimate, share in zip(domains, datagrams, shares, strict=True):
        least = min(max(0, kernel_drops - (most_of_all - estimate.most)), estimate.most)
        most = min(kernel_drops, estimate.most)
        kernel = share
        if one.by_records:
            kernel = one.missing if share == estimate.likely else _rounded(one.missing * share, estimate.likely)
            least = min(one.missing, least * max(one.records_min, 1))
            most = min(one.missing, most * one.records_max) if one.records else one.missing
        bounds = Estimate(min(least, kernel), kernel, max(most, kernel))
        found.append(Explained(kernel, one.missing - kernel, bounds, estimate, missing_records(one)))
    return found, kernel_drops - sum(shares)


def share_out(total: int, wanted: Sequence[int]) -> list[int]:
    """Share whole units out in proportion, nobody more than he wants: they sum to the lesser of the total and all wants."""
    whole = sum(wanted)
    if total >= whole:
        return list(wanted)
    shares = [total * want // whole for want in wanted]
    by_rest = sorted(range(len(wanted)), key=lambda i: (-(total * wanted[i] % whole), i))
    for i in by_rest[: total - sum(shares)]:
        shares[i] += 1
    return shares


def percent_text(part: int, whole: int, decimals: int = 3) -> str | None:
    """A share in percent, cut off after some decimals; None of nothing."""
    if whole <= 0:
        return None
    scaled = part * 100 * 10**decimals // whole
    sign, digits = "-" if scaled < 0 else "", str(abs(scaled)).rjust(decimals + 1, "0")
    return f"{sign}{digits[:-decimals]}.{digits[-decimals:]}"


def _rounded(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
