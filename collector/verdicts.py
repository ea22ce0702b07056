"""Whether flows cover what an interface carried: octets of flows against octets of its counter, in whole numbers.

A counter counts layer-2 octets, flows count IP octets: a packet has `overhead_octets_min` to `overhead_octets_max` octets more
in the counter (Ethernet header and checksum 18, each VLAN tag 4, each MPLS label 4; RFC 2863 §3.1.1). Sampled flows carry the
error of sampling: with n packets sampled and sizes that vary as much as their mean, 2.58·√2/√n with 99 % confidence. So
the share that is covered lies in a band, and only a band that is wholly below the threshold is incomplete.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

COMPLETE = "complete"
UNCLEAR = "unclear"
"""The threshold lies within the band."""
INCOMPLETE = "incomplete"
EXCESS = "excess"
"""More in flows than the counter can have counted: seen twice, or scaled by a wrong sampling rate."""
UNKNOWN = "unknown"
"""No counter says what there was."""
NOT_METERED = "not_metered"
"""The counter says traffic, and no flow of this exporter ever named the interface this way."""

WORST_FIRST = (INCOMPLETE, EXCESS, UNCLEAR, COMPLETE, NOT_METERED, UNKNOWN)

_ERROR_SCALE = 1_000_000
_ERROR_FACTOR = 3_650_000
"""2.58·√2 in millionths."""


@dataclass(frozen=True, slots=True)
class Flows:
    """What flows say of one interface and one way."""

    octets: int = 0
    packets: int = 0
    samples: int = 0
    """Packets that were sampled; 0 if all were looked at."""
    flows: int = 0

    def __add__(self, other: Flows) -> Flows:
        return Flows(self.octets + other.octets, self.packets + other.packets, self.samples + other.samples,
                     self.flows + other.flows)


@dataclass(frozen=True, slots=True)
class Band:
    """Layer-2 octets that the flows stand for: at least, at most."""

    least: int
    most: int


def band(flows: Flows, overhead: tuple[int, int]) -> Band:
    """The layer-2 octets of flows."""
    least, most = (flows.octets + octets * flows.packets for octets in overhead)
    error = sampling_error(flows.samples)
    return Band(least - least * error // _ERROR_SCALE, most + -(-most * error // _ERROR_SCALE))


def sampling_error(samples: int) -> int:
    """The error of sampling in millionths, at most all of it; 0 without sampling."""
    if samples <= 0:
        return 0
    return min(_ERROR_SCALE, _ERROR_FACTOR * 1000 // isqrt(samples * 1_000_000))


def judge(flows: Flows, counter: int | None, threshold: Fraction, overhead: tuple[int, int]) -> str:
    """The verdict. `counter` None: nobody knows."""
    if counter is None:
        return UNKNOWN
    found = band(flows, overhead)
    bare = flows.octets - flows.octets * sampling_error(flows.samples) // _ERROR_SCALE
    if bare * 100 > counter * (200 - threshold):
        return EXCESS
    if found.most * 100 < threshold * counter:
        return INCOMPLETE
    return COMPLETE if found.least * 100 >= threshold * counter else UNCLEAR


def worst(verdicts: list[str]) -> str:
    """Of several, the one to look at."""
    return min(verdicts, key=WORST_FIRST.index, default=UNKNOWN)
