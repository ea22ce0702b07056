"""What the decoder remembers between datagrams: domains, templates, samplers, waiting data, datagrams seen lately.

Everything lies in arrays that grow with use up to the bounds of the settings, so that kernels work on them and the whole
state is saved and read back exactly. A state is a function of the datagrams fed and of nothing else: no clock is read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from collector import layout
from collector.kernels import admission, codes, plans, tables, upkeep
from collector.layout import (
    CONVENTIONS,
    COUNTERS,
    GAPS_MAX,
    MEMBERS_MAX,
    SLOT_COUNT,
    STRANGERS_MAX,
    TWIN_GAPS_MAX,
    State,
)
from collector.registry import FIXED_LAYOUTS, packed_fields
from collector.settings import Collector, CollectorSettings, Exporter, Group
from core.errors import DamagedFile

_MAGIC = b"RMSTATE4"
BEFORE_ALL = -(2**62)
SIGHTINGS_MIN, SIGHTINGS_SIZE_MAX = 512, 1 << 26
"""Room for datagrams seen lately, at first and at most."""
HOLES = 256
"""Released sets among the waiting ones that are not worth closing; as many octets for each."""


@dataclass(frozen=True, slots=True)
class ExporterRow:
    """A line of `exporters list`; missing is in the protocol's own unit (records for v5, v7, IPFIX, else datagrams)."""

    exporter: bytes
    domain: int
    protocol: int
    received: int
    missing: int
    duplicate: int
    reordered: int
    restarts: int
    faulted: int
    waiting: int
    first: int
    last: int
    sessions: int = 0
    """Transport sessions that are told apart now: TCP, TLS, and source ports with `exporter_key = "address_port"`."""
    sessions_ended: int = 0
    recycled: int = 0
    """Sessions that were forgotten for want of room: ports of a NAT that were idle for longest."""
    drop_samples: int = 0
    """Packets that the exporter says it discarded (sFlow)."""
    refused: int = 0
    exported_messages: int = 0
    """Growth of the exporter's own counters since the first reading of each (IE 41, 42, 164 to 168)."""
    exported_records: int = 0
    ignored_packets: int = 0
    ignored_octets: int = 0
    not_sent_flows: int = 0
    not_sent_packets: int = 0
    not_sent_octets: int = 0


@dataclass(frozen=True, slots=True)
class Stranger:
    """An exporter that no setting names, among the busiest: up to `over` of its datagrams may have been others'."""

    exporter: bytes
    datagrams: int
    over: int
    first: int
    last: int

    def with_more(self, other: Stranger | None) -> Stranger:
        """Both counts of one exporter as one."""
        if other is None:
            return self
        return Stranger(self.exporter, self.datagrams + other.datagrams, self.over + other.over,
                        min(self.first, other.first), max(self.last, other.last))


def _check(*pieces: Any) -> bytes:
    """Of pieces of octets, as one."""
    digest = xxhash.xxh3_64()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()[:4]


_ROWED = {"domains": ("domains", layout.DOMAIN), "templates": ("templates", layout.TEMPLATE),
          "plans": ("plans", layout.PLAN), "fields": ("fields", np.dtype(np.int64)),
          "samplers": ("samplers", layout.SAMPLER), "waiting": ("waiting", layout.WAITING),
          "waiting_octets": ("waiting_octets", np.dtype(np.uint8)), "reports": ("reports", layout.REPORT),
          "strangers": ("strangers", layout.STRANGER)}
"""Array → its count and its dtype."""
_SUMMED = ("received", "missing", "duplicate", "reordered", "restarts", "faulted", "waiting", "sessions_ended", "recycled",
           "drop_samples", *ExporterRow.__slots__[16:])
_BESIDE = {"domains": ("sequences", "gaps", "trials"), "plans": ("has", "places"), "fields": ("slots", "offsets", "noted"),
           "reports": ("readings",)}
"""Arrays that run along with another."""


def _empty() -> State:
    return State(
        counts=np.zeros(1, layout.COUNTS),
        domains=np.zeros(16, layout.DOMAIN), domain_table=np.full(64, -1, np.int32),
        sequences=np.zeros(16, layout.SEQUENCE), gaps=np.zeros((16, GAPS_MAX, 3), np.int64),
        trials=np.zeros((16, CONVENTIONS), np.int64),
        templates=np.zeros(16, layout.TEMPLATE), template_table=np.full(64, -1, np.int32),
        plans=np.zeros(16, layout.PLAN), has=np.zeros((16, SLOT_COUNT), np.uint8),
        places=np.zeros((16, SLOT_COUNT), np.int32),
        fields=np.zeros(256, np.int64), slots=np.zeros(256, np.int16), offsets=np.zeros(256, np.int32),
        noted=np.zeros(256, np.int16),
        samplers=np.zeros(16, layout.SAMPLER), sampler_table=np.full(64, -1, np.int32),
        waiting=np.zeros(16, layout.WAITING), waiting_octets=np.zeros(1024, np.uint8),
        sightings=np.zeros(SIGHTINGS_MIN, layout.SIGHTING), sighting_table=np.zeros(2 * SIGHTINGS_MIN, np.uint32),
        members=np.zeros(MEMBERS_MAX, layout.MEMBER),
        reports=np.zeros(16, layout.REPORT), readings=np.zeros((16, COUNTERS), np.int64),
        strangers=np.zeros(STRANGERS_MAX, layout.STRANGER),
    )


def _enlarged(array: layout.Rows, size: int) -> layout.Rows:
    bigger = np.zeros((size, *array.shape[1:]), array.dtype)
    bigger[: len(array)] = array
    return bigger


def _with_gaps(gaps: layout.Rows, domains: int, room: int) -> layout.Rows:
    """The gaps in an array with more room; memory that no gap has touched stays the operating system's."""
    bigger = np.zeros((domains, room, gaps.shape[2]), np.int64)
    bigger[: len(gaps), : gaps.shape[1]] = gaps
    return bigger


class DecoderState:
    """The arrays of `layout.State`, and what is done to them between two calls of the scan."""

    def __init__(self) -> None:
        self.arrays = _empty()
        counts = self.arrays.counts[0]
        counts["newest"] = counts["horizon"] = BEFORE_ALL
        counts["domains"] = 1  # row 0: whatever there is no room for
        rest = self.arrays.domains[0]
        rest["sflow_boot"] = -1
        self.limits: layout.Limits | None = None
        self._opened = -1
        self._registry = ""
        self._index()

    # bounds and settings ----------------------------------------------------------------------------------------------
    def use(self, limits: layout.Limits, registry: str) -> None:
        """Take bounds, exporters' settings and the elements of a registry (by its digest); all may differ from those of
        the last run."""
        self.limits = limits
        self._opened = -1
        if self.arrays.gaps.shape[1] < limits.gaps:
            self.arrays = self.arrays._replace(gaps=_with_gaps(self.arrays.gaps, len(self.arrays.gaps), limits.gaps))
        if self.arrays.counts[0]["plans"] == 0:
            self._add_fixed_plans(limits)
            self._registry = registry
        admission.configure_all(self.arrays, limits)
        templates = self.arrays.templates[: self._count("templates")]
        templates = templates[templates["plan"] >= 0]
        rules, repeat = self.arrays.plans["repeat"], self.arrays.domains["repeat"][templates["domain"]]
        if registry != self._registry or not np.array_equal(rules[templates["plan"]], repeat):
            rules[templates["plan"]] = repeat
            plans.assign_all(self.arrays, limits)
            self._registry = registry

    def _add_fixed_plans(self, limits: layout.Limits) -> None:
        for fixed in FIXED_LAYOUTS:
            first = self._count("fields")
            fields = packed_fields(fixed)
            self.arrays.fields[first : first + len(fields)] = fields
            plans.compile_plan(self.arrays, limits, len(fields), 0, 0, True, codes.ANY)

    def _count(self, name: str) -> int:
        return int(self.arrays.counts[0][name])

    # growth -----------------------------------------------------------------------------------------------------------
    def grow(self, name: str, needed: int) -> None:
        """Make room for at least `needed` rows more than are in use."""
        counter, _ = _ROWED[name]
        size = len(getattr(self.arrays, name))
        target = self._count(counter) + needed
        while size < target:
            size *= 2
        bounds = self.limits
        assert bounds is not None, "use() comes first"
        most = {"domains": bounds.domains + codes.ROWS_BESIDE, "templates": bounds.templates,
                "samplers": bounds.samplers, "reports": bounds.reports}.get(name)
        if most is not None:
            size = max(min(size, most), len(getattr(self.arrays, name)))
        changed = {each: _enlarged(getattr(self.arrays, each), size) for each in (name, *_BESIDE.get(name, ()))
                   if each != "gaps"}
        if name == "domains":
            changed["gaps"] = _with_gaps(self.arrays.gaps[:, : self._gaps_used()], size, self.arrays.gaps.shape[1])
        self.arrays = self.arrays._replace(**changed)
        if most is not None and name != "reports":
            self._index()

    def _gaps_used(self) -> int:
        """The most gaps that a domain has."""
        return int(self.arrays.sequences["gaps"].max())

    def grow_reports(self, more: int) -> None:
        """Make room for the scopes of `more` loss reports, in bounds."""
        limits = self.limits
        assert limits is not None, "use() comes first"
        size = len(self.arrays.reports)
        if self._count("reports") + more > size and size < limits.reports:
            self.grow("reports", min(more, limits.reports))

    def _index(self) -> None:
        """Hash tables of the right size, filled from the rows."""
        made = {}
        for rows, table in (("domains", "domain_table"), ("templates", "template_table"), ("samplers", "sampler_table")):
            size = 64
            while size < 2 * len(getattr(self.arrays, rows)):
                size *= 2
            made[table] = np.full(size, -1, np.int32)
        self.arrays = self.arrays._replace(**made)
        a = self.arrays
        tables.index_tables(a.counts, a.domains, a.domain_table, a.templates, a.template_table, a.samplers, a.sampler_table)

    def grow_sightings(self, most: int) -> None:
        """Forget the copies that lie outside the window; if many are left, double the room, else keep its size."""
        assert self.limits is not None, "use() comes first"
        limits, counts = self.limits, self.arrays.counts[0]
        kept, horizon = upkeep.keep_sightings(self.arrays, counts["newest"], limits.duplicate_window, limits.duplicate_ms,
                                              limits.twin_late_ms if limits.twins else -1)
        used, size = self.arrays.sightings[:kept], len(self.arrays.sightings)
        while kept * 2 > size and size < most:
            size *= 2
        if kept * 2 > size:
            used = used[np.argsort(used["received"], kind="stable")]
            horizon = max(horizon, int(used["received"][: -(size // 2)].max()))
            used = used[-(size // 2) :]  # the oldest go: no memory beyond the bound
        counts["horizon"] = max(counts["horizon"], horizon)
        self._set_sightings(used, size)

    def _set_sightings(self, used: layout.Rows, size: int) -> None:
        rows, table = self.arrays.sightings, np.zeros(2 * size, np.uint32)
        if len(rows) != size or not np.shares_memory(used, rows):
            rows = np.zeros(size, layout.SIGHTING)
            rows[: len(used)] = used
        upkeep.insert_sightings(rows, len(used), table)
        self.arrays = self.arrays._replace(sightings=rows, sighting_table=table)
        self.arrays.counts[0]["sightings"] = len(used)

    # sessions ---------------------------------------------------------------------------------------------------------
    def recycle(self) -> None:
        """End the UDP sessions that were idle for longest where an exporter has too many, or where room runs out.

        A NAT may give an exporter a new port for ever. Room for the sessions of a whole block is kept free.
        """
        assert self.limits is not None, "use() comes first"
        counts = self.arrays.counts[0]
        if counts["opened"] == self._opened:
            return
        self._opened = int(counts["opened"])
        used = self.arrays.domains[: self._count("domains")]
        ports = np.flatnonzero((used["session"] >> 48 == codes.UDP_SESSION) & (used["ended"] == codes.IN_USE))
        if not len(ports):
            return
        mine = used[ports]
        order = np.lexsort((-mine["last"], mine["low"], mine["high"]))
        high, low = mine["high"][order], mine["low"][order]
        changes = np.ones(len(order), bool)
        changes[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        first = np.maximum.accumulate(np.where(changes, np.arange(len(order)), 0))
        too_many = np.zeros(len(order), bool)
        too_many[order] = np.arange(len(order)) - first >= self.limits.ports
        room = self.limits.domains - (len(used) - counts["ended"] - counts["free"]) + int(too_many.sum())
        wanted = min(codes.BLOCK_ENTRIES_MAX, self.limits.domains // 4) - room
        if wanted > 0:
            left = np.flatnonzero(~too_many)
            too_many[left[np.argsort(mine["last"][left], kind="stable")][:wanted]] = True
        used["ended"][ports[too_many]] = codes.RECYCLED
        counts["ended"] += int(too_many.sum())

    def _drop_reports(self, over: layout.Rows) -> None:
        """Forget the loss reports of sessions that are over."""
        a, count = self.arrays, self._count("reports")
        keep = ~over[a.reports["domain"][:count]]
        if keep.all():
            return
        moved = np.cumsum(np.concatenate([[0], keep]))  # a chain is kept or dropped as a whole; 0 ends it
        kept, readings = a.reports[:count][keep].copy(), a.readings[:count][keep].copy()
        kept["next"] = moved[kept["next"]]
        used = a.domains[: len(over)]
        used["report"] = np.where(over, 0, moved[used["report"]])
        a.reports[: len(kept)], a.readings[: len(kept)] = kept, readings
        a.counts[0]["reports"] = len(kept)

    def retire(self) -> None:
        """Forget templates and samplers of sessions that are over; their counts go to their exporter's row.

        What waited in them has been given up (`scan.expire`).
        """
        if not self._count("ended"):
            return
        a = self.arrays
        upkeep.compact_waiting(a)
        used = a.domains[: self._count("domains")]
        over = (used["ended"] == codes.ENDED) | (used["ended"] == codes.RECYCLED)
        self._compact_templates(~over[a.templates["domain"][: self._count("templates")]])
        count = self._count("samplers")
        kept = a.samplers[:count][~over[a.samplers["domain"][:count]]].copy()
        a.samplers[: len(kept)] = kept
        a.counts[0]["samplers"] = len(kept)
        self._drop_reports(over)
        rows = np.flatnonzero(over | ((used["session"] == 0) & (used["ended"] == codes.IN_USE)))
        rows = rows[rows > 0]
        keys = used[rows]
        order = np.lexsort((keys["ended"], keys["protocol"], keys["domain"], keys["low"], keys["high"]))
        upkeep.retire(a.counts, a.domains, rows[order])
        self._forget_sequences(np.flatnonzero(over))
        self._index()

    def _forget_sequences(self, domains: layout.Rows | slice) -> None:
        """Count anew from the next datagram of these domains on."""
        for beside in (self.arrays.sequences, self.arrays.gaps, self.arrays.trials):
            beside[domains] = np.zeros(1, beside.dtype)[0]

    def warm_up(self) -> None:
        """Compile what only the end of a session needs."""
        upkeep.compact_waiting(self.arrays)
        upkeep.retire(self.arrays.counts, self.arrays.domains, np.zeros(0, np.int64))

    # tidying ----------------------------------------------------------------------------------------------------------
    def tidy(self) -> None:
        """Close holes, once they are many: released data, plans and templates that nothing refers to any more."""
        counts = self.arrays.counts[0]
        if counts["waiting"] > 2 * counts["waiting_live"] + HOLES or (
                counts["waiting_octets"] > 2 * counts["waiting_live_octets"] + HOLES * HOLES):
            upkeep.compact_waiting(self.arrays)
        templates = self.arrays.templates[: self._count("templates")]
        self._forget_withdrawn(templates)
        idle = (templates["plan"] < 0) & (templates["waiting_first"] < 0)
        live = len(templates) - int(idle.sum())
        fixed = len(FIXED_LAYOUTS)
        defined = int((templates["plan"] >= 0).sum())
        if self._count("plans") - fixed > 2 * live + 1024 or len(templates) > 2 * live + 1024 or (
                self.limits is not None and self._count("plans") - fixed > defined
                and 2 * self._count("fields") > self.limits.fields) or (
                self.limits is not None and len(templates) >= self.limits.templates and live < len(templates)):
            self._compact_templates(~idle)
            self._compact_plans()

    def _forget_withdrawn(self, templates: layout.Rows) -> None:
        """Templates that were withdrawn with all of their kind, and not asked for since."""
        domains = self.arrays.domains[: self._count("domains")]
        data, options = domains["withdrawn"], domains["withdrawn_options"]
        if not (data.any() or options.any()):
            return
        kinds = self.arrays.plans["options"][templates["plan"]]
        until = np.where(kinds == 1, options[templates["domain"]], data[templates["domain"]])
        templates["plan"][templates["number"] < until] = -1

    def _compact_templates(self, keep: layout.Rows) -> None:
        a = self.arrays
        count = self._count("templates")
        moved = np.cumsum(keep) - 1
        waiting = a.waiting[: self._count("waiting")]
        waiting["template"] = moved[waiting["template"]]
        kept = a.templates[:count][keep].copy()
        a.templates[: len(kept)] = kept
        a.counts[0]["templates"] = len(kept)
        self._index()

    def _compact_plans(self) -> None:
        a = self.arrays
        templates = a.templates[: self._count("templates")]
        defined = templates["plan"] >= 0
        fixed = len(FIXED_LAYOUTS)
        wanted = np.concatenate([np.arange(fixed), np.sort(templates["plan"][defined])])
        moved = np.zeros(self._count("plans"), np.int64)
        moved[wanted] = np.arange(len(wanted))
        templates["plan"][defined] = moved[templates["plan"][defined]]
        kept, has, at = a.plans[wanted].copy(), a.has[wanted].copy(), a.places[wanted].copy()
        behind = np.cumsum(kept["count"])
        places = np.repeat(kept["first"] - behind + kept["count"], kept["count"]) + np.arange(behind[-1])
        for array in (a.fields, a.slots, a.offsets, a.noted):
            array[: len(places)] = array[places]
        kept["first"] = behind - kept["count"]
        a.plans[: len(wanted)], a.has[: len(wanted)], a.places[: len(wanted)] = kept, has, at
        a.counts[0]["plans"], a.counts[0]["fields"] = len(wanted), len(places)

    # what people ask --------------------------------------------------------------------------------------------------
    @property
    def octets(self) -> int:
        """Memory of all that is remembered; `collector.memory` says how much it can become."""
        return sum(array.nbytes for array in self.arrays)

    def strangers(self) -> list[Stranger]:
        """Unknown exporters, the busiest first."""
        rows = [Stranger(np.array([row["high"], row["low"]], np.uint64).tobytes(),
                         *(int(row[name]) for name in Stranger.__slots__[1:]))
                for row in self.arrays.strangers[: self._count("strangers")]]
        return sorted(rows, key=lambda row: (-row.datagrams, row.exporter))

    def take_strangers(self) -> list[Stranger]:
        """The unknown exporters so far; they are counted anew from here on."""
        taken = self.strangers()
        self.arrays.counts[0]["strangers"] = 0
        return taken

    @property
    def waiting(self) -> int:
        """Sets that wait for their template now."""
        return self._count("waiting_live")

    @property
    def is_releasing(self) -> bool:
        """Whether sets whose template has come are still to be read, by the next calls of the decoder."""
        return self._count("ready") > 0

    def exporters(self) -> list[ExporterRow]:
        """Cumulative counts by exporter, domain and protocol, over all their transport sessions."""
        used = self.arrays.domains[: self._count("domains")]
        used = used[(used["received"] > 0) & (used["ended"] != codes.FREE)]
        order = np.lexsort((used["protocol"], used["domain"], used["low"], used["high"]))
        used = used[order]
        keys = ("high", "low", "domain", "protocol")
        new = np.ones(len(used), bool)
        new[1:] = np.any([used[name][1:] != used[name][:-1] for name in keys], axis=0)
        starts = np.flatnonzero(new)
        if not len(starts):
            return []
        sums = {name: np.add.reduceat(used[name], starts) for name in _SUMMED}
        sums["sessions"] = np.add.reduceat(((used["session"] != 0) & (used["ended"] == codes.IN_USE)).astype(np.int64), starts)
        sums["sessions_ended"] += np.add.reduceat((used["ended"] == codes.ENDED).astype(np.int64), starts)
        sums["recycled"] += np.add.reduceat((used["ended"] == codes.RECYCLED).astype(np.int64), starts)
        sums["first"] = np.minimum.reduceat(used["first"], starts)
        sums["last"] = np.maximum.reduceat(used["last"], starts)
        rows = []
        for n, row in enumerate(used[starts]):
            address = np.array([row["high"], row["low"]], np.uint64).tobytes()
            rows.append(ExporterRow(address, int(row["domain"]), int(row["protocol"]),
                                    *(int(sums[name][n]) for name in ExporterRow.__slots__[3:])))
        return sorted(rows, key=lambda row: (row.exporter, row.domain, row.protocol))

    def forget_counts(self) -> None:
        """Keep templates and samplers only: sequence numbers, counts, waiting data and copies begin anew."""
        counts = self.arrays.counts[0]
        used = self.arrays.domains[: counts["domains"]]
        kept = ("high", "low", "domain", "protocol", "session", "ended", "rate_numerator", "rate_denominator", "initialised",
                "configured", "sflow_boot", "repeat", "admission", "rate_most", "withdrawn", "withdrawn_options")
        for name in layout.DOMAIN.names or ():
            if name not in kept:
                used[name] = 0
        used["intake"] = used["refilled"] = -1
        self._forget_sequences(slice(0, len(used)))
        for name in ("waiting", "waiting_octets", "waiting_live", "waiting_live_octets", "datagrams", "reports", "strangers",
                     "ready"):
            counts[name] = 0
        counts["newest"] = counts["horizon"] = BEFORE_ALL
        upkeep.compact_waiting(self.arrays)
        self._set_sightings(self.arrays.sightings[:0], SIGHTINGS_MIN)

    # saving -----------------------------------------------------------------------------------------------------------
    def _parts(self) -> dict[str, layout.Rows]:
        a = self.arrays
        parts: dict[str, layout.Rows] = {"counts": a.counts}
        for name, (counter, _) in _ROWED.items():
            for each in (name, *_BESIDE.get(name, ())):
                parts[each] = getattr(a, each)[: self._count(counter)]
        parts["gaps"] = parts["gaps"][:, : self._gaps_used()]
        parts["members"] = a.members
        parts["sightings"] = a.sightings[: self._count("sightings")]
        return parts

    def to_bytes(self) -> bytes:
        """The whole state; `from_bytes` makes one that goes on exactly like this one."""
        parts = self._parts()
        named = {name: list(part.dtype.names) for name, part in parts.items() if part.dtype.names}
        head = json.dumps({"sightings": len(self.arrays.sightings), "fields": named, "registry": self._registry,
                           "parts": {name: list(part.shape) for name, part in parts.items()}}).encode()
        pieces: list[Any] = [head, *(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data for part in parts.values())]
        return b"".join((_MAGIC, len(head).to_bytes(4, "little"), _check(*pieces), *pieces))

    @classmethod
    def from_bytes(cls, data: bytes) -> DecoderState:
        """Read what `to_bytes` made. Raises DamagedFile."""
        size = int.from_bytes(data[8:12], "little")
        if data[:8] != _MAGIC or len(data) < 16 + size or (
                _check(memoryview(data)[16:]) != data[12:16]):
            raise DamagedFile("the decoder's saved state is damaged or of another version",
                              "decode the journal again from its first block kept")
        state = cls()
        try:
            state._load(json.loads(data[16 : 16 + size]), data, 16 + size)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedFile(f"the decoder's saved state is no state: {error}",
                              "decode the journal again from its first block kept") from error
        return state

    def _load(self, head: dict[str, Any], data: bytes, at: int) -> None:
        loaded: dict[str, layout.Rows] = {}
        for name, shape in head["parts"].items():
            like = getattr(self.arrays, name)
            count = int(np.prod(shape))
            kind = _as_saved(head["fields"][name], like.dtype) if like.dtype.names else like.dtype
            part = np.frombuffer(data, kind, count, at).reshape(shape)
            at += part.nbytes
            loaded[name] = part if kind == like.dtype else _by_name(part, like.dtype)
        if at != len(data):
            raise ValueError(f"{len(data) - at} octets more than its parts hold")
        sightings, size = loaded.pop("sightings"), int(head["sightings"])
        self._check_parts(loaded)
        if size & (size - 1) or not len(sightings) <= size <= SIGHTINGS_SIZE_MAX or size < SIGHTINGS_MIN:
            raise ValueError(f"{len(sightings)} sightings in room for {size}")
        changed = {}
        for name, part in loaded.items():
            room = len(getattr(self.arrays, name))
            while room < len(part):
                room *= 2
            if name == "gaps":
                changed[name] = _with_gaps(part, room, max(part.shape[1], GAPS_MAX))
                continue
            array = np.zeros((room, *part.shape[1:]), part.dtype)
            array[: len(part)] = part
            changed[name] = array
        self._registry = head["registry"]
        self.arrays = self.arrays._replace(**changed)
        self._set_sightings(sightings, size)
        self._index()

    def _check_parts(self, loaded: dict[str, layout.Rows]) -> None:
        """Raises ValueError for parts that disagree with the counts, which kernels rely on."""
        if set(loaded) | {"sightings"} != set(self._parts()) or len(loaded["counts"]) != 1:
            raise ValueError("other parts than those of a state")
        for name, (counter, _) in _ROWED.items():
            for each in (name, *_BESIDE.get(name, ())):
                like, part = getattr(self.arrays, each), loaded[each]
                fits = each == "gaps" and part.ndim == 3 and part.shape[2] == like.shape[2]
                if len(part) != loaded["counts"][0][counter] or not (fits or part.shape[1:] == like.shape[1:]):
                    raise ValueError(f"{part.shape} {each} where {int(loaded['counts'][0][counter])} are counted")


def _as_saved(names: list[str], known: np.dtype[Any]) -> np.dtype[Any]:
    """The record layout of a saved array: fields are words; one that is not known any more is skipped."""
    return np.dtype([(name, known[name] if name in (known.names or ()) else np.dtype(np.int64)) for name in names])


def _by_name(part: layout.Rows, kind: np.dtype[Any]) -> layout.Rows:
    """Rows in today's layout; fields that were not saved are 0."""
    rows = np.zeros(part.shape, kind)
    for name in set(kind.names or ()) & set(part.dtype.names or ()):
        rows[name] = part[name]
    return rows


_UNKNOWN = {"accept": codes.ACCEPT, "quarantine": codes.QUARANTINE, "refuse": codes.REFUSE}
_REPEATED = {"registry": codes.ANY, "first": codes.FIRST, "last": codes.LAST}
PORTION = 65_536
"""Sets, a quarter of the rows, or changes, that one pass over a journal block collects before it decodes them."""


def _otherwise(words: layout.Rows, exporters: Sequence[Exporter], collector: Collector) -> layout.Rows:
    """Addresses of exporters whose key is not that of [collector], sorted."""
    chosen = words[[e.key is not None and e.key != collector.exporter_key for e in exporters]].reshape(-1, 2)
    return np.ascontiguousarray(chosen[np.lexsort((chosen[:, 1], chosen[:, 0]))])


def bounds(settings: CollectorSettings, group: Group | None = None) -> layout.Limits:
    """The settings as kernels take them; `group` if the journals of its members are decoded as one."""
    collector, found = settings.collector, settings.registry.arrays
    exporters = sorted(settings.exporters, key=lambda e: tuple(np.frombuffer(e.address, np.uint64).tolist()))
    words = np.frombuffer(b"".join(e.address for e in exporters), np.uint64).reshape(len(exporters), 2)
    values: list[tuple[int, ...]] = []
    domains: list[int] = []
    for e in exporters:
        most = collector.datagrams_per_second_max if e.datagrams_per_second_max is None else e.datagrams_per_second_max
        values.append((e.sampling or 0, -1 if e.sflow_boot is None else e.sflow_boot, most, _REPEATED[e.repeated],
                       len(domains), len(e.domains) or -1))
        domains += e.domains
    is_limited = collector.datagrams_per_second_max > 0 or any(value[2] > 0 for value in values)
    return layout.Limits(
        records=collector.records_per_datagram_max, domains=collector.domains_max, templates=collector.templates_max,
        template_fields=collector.template_fields_max, fields=max(collector.templates_max * 32, 2**16),
        samplers=collector.samplers_max, waiting_octets=collector.waiting_octets_max, waiting_sets=65536,
        duplicate_window=collector.duplicate_window, duplicate_ms=collector.duplicate_seconds * 1000,
        twins=len(group.members) if group else 0, twin_late_ms=group.late_seconds * 1000 if group else 0,
        twin_clock_ms=group.clock_seconds * 1000 if group else 0, gaps=TWIN_GAPS_MAX if group else GAPS_MAX,
        reports=collector.samplers_max, portion=PORTION,
        keys=found.keys, element_slots=found.slots, element_lengths=found.lengths, element_last=found.last,
        exporters=words.copy(), exporter_values=np.array(values, np.int64).reshape(len(exporters), 6),
        exporter_domains=np.array(domains, np.int64),
        guarded=int(is_limited or collector.unknown_exporters != "accept" or bool(domains)),
        unknown=_UNKNOWN[collector.unknown_exporters], rate_most=collector.datagrams_per_second_max,
        by_port=int(collector.exporter_key == "address_port"), by_port_otherwise=_otherwise(words, exporters, collector),
        ports=collector.ports_per_exporter_max,
    )
