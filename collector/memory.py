"""How much memory the decoder may take: bounds that follow from the settings alone, whatever is sent.

Tables grow by doubling up to a bound, so each takes at most twice what its bound says. `tests/property/collector/
test_memory_bounds.py` feeds hostile streams against these figures.
"""

from __future__ import annotations

import numpy as np

from collector import layout
from collector.faults import KIND_COUNT
from collector.layout import CONVENTIONS, COUNTERS, MEMBERS_MAX, SLOT_COUNT, STRANGERS_MAX, Limits
from collector.state import SIGHTINGS_MIN
from storage.journal import BODY_SIZE_MAX, DATAGRAMS_MAX

DATAGRAM_SIZE_MAX = 65_535
QUARTER_MAX = DATAGRAM_SIZE_MAX // 4 + 2
"""Definitions or sets that one datagram can hold: the scan stops before a table has room for fewer."""
_WORD = 8


def state_octets_max(limits: Limits, sightings_max: int) -> int:
    """What lasts between datagrams: `DecoderState.octets` is never more."""
    domain = layout.DOMAIN.itemsize + layout.SEQUENCE.itemsize + (3 * limits.gaps + CONVENTIONS) * _WORD
    plans = 2 * limits.templates + 1024 + limits.portion + QUARTER_MAX
    fields = limits.fields + QUARTER_MAX
    waiting = limits.waiting_sets + limits.portion + QUARTER_MAX
    waiting_octets = limits.waiting_octets + BODY_SIZE_MAX + DATAGRAM_SIZE_MAX
    tables = 4 * np.dtype(np.int32).itemsize * (limits.domains + limits.templates + limits.samplers + 3 * 16)
    parts = (
        max(limits.domains, 16) * domain,
        max(limits.templates, 16) * layout.TEMPLATE.itemsize,
        2 * plans * (layout.PLAN.itemsize + SLOT_COUNT + 4 * SLOT_COUNT),
        2 * fields * (_WORD + 2 + 2 + 4),
        max(limits.samplers, 16) * layout.SAMPLER.itemsize,
        2 * waiting * layout.WAITING.itemsize,
        2 * waiting_octets,
        max(2 * sightings_max, SIGHTINGS_MIN) * (layout.SIGHTING.itemsize + 2 * np.dtype(np.uint32).itemsize),
        max(limits.reports, 16) * (layout.REPORT.itemsize + COUNTERS * _WORD),
        STRANGERS_MAX * layout.STRANGER.itemsize,
        MEMBERS_MAX * layout.MEMBER.itemsize,
        layout.COUNTS.itemsize,
        2 * tables,
    )
    return sum(parts)


def results_octets_max(limits: Limits) -> int:
    """What one pass over a journal block collects before it is decoded: `Decoder.result_octets` is never more."""
    sets = max(limits.portion + 2 * QUARTER_MAX, 8192)
    released = limits.portion + limits.waiting_sets + 2 * QUARTER_MAX
    changes = limits.portion + 8 * QUARTER_MAX
    intake = 256 + DATAGRAMS_MAX + limits.waiting_sets + released
    heard = DATAGRAMS_MAX + released
    parts = (
        2 * (sets + released) * layout.SET.itemsize,
        2 * max(changes, 1024) * layout.SAMPLER_CHANGE.itemsize,
        2 * intake * (layout.INTAKE.itemsize + KIND_COUNT * _WORD),
        2 * max(heard, 8192) * layout.HEARD.itemsize,
        2 * DATAGRAMS_MAX * _WORD,
        1024 * layout.ANNOUNCEMENT.itemsize,
        layout.PROGRESS.itemsize + layout.SITUATION.itemsize + SLOT_COUNT * _WORD,
    )
    return sum(parts)
