"""The decoder: journal blocks in order → rows of flows, counts and faults.

`Decoder.feed` takes the body of one block, scans it (sequential, changes the state), decodes the sets that the scan found
(a pure function of set, plan and samplers) and adds up what became of every record. Bad input is counted, never raised.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from collector import layout, measures
from collector.columns import FlowColumns
from collector.faults import KIND_COUNT, KINDS, FaultKind
from collector.kernels import (
    codes,
    counter_samples,
    packets,
    reports,
    rows,
    samples,
    scan,
    sections,
    sequences,
    tally,
    waiting,
)
from collector.settings import CollectorSettings, Group
from collector.state import BEFORE_ALL, DecoderState, bounds
from core import schemas
from core.errors import DamagedFile

GROUP_REACH = 1024
"""How much further than for one collector a datagram of a group may lie before the first one of its exporter."""
VERSION = "3"
"""Of the decoder: recorded with every segment; it changes when the same datagrams give other rows."""

RELEASE_RECORDS = codes.RELEASE_COST_MAX // codes.COST_OF_RECORD
"""Records that one datagram can set free of waiting data, beside those of its last set."""
INTERFACE_READINGS_MAX = 65_536
"""Interface counters kept of one journal block; each beyond is a fault."""

PORT_BLOCKS_MAX = 65_536
"""Events of port blocks kept of one journal block; each beyond is a fault."""

_TUNNELS = {"outer": 0, "inner": 1}
_POLICIES = {"assume_1": codes.ASSUME, "quarantine": codes.QUARANTINE, "reject": codes.REJECT}


class Policy(NamedTuple):
    """Settings that a record's decoding depends on."""

    skew_ms: int
    unannounced: int
    tunnels: int
    """1: the innermost packet of a sampled one is the flow."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What one block held. datagrams = decoded + faulted + duplicate + twin (+ refused, which the receiver knows);
    data_records = flow_records + not_a_flow + faulted_records."""

    datagrams: int
    decoded: int
    faulted: int
    duplicate: int
    refused: int
    templates: int
    options_templates: int
    data_records: int
    options_records: int
    flow_records: int
    not_a_flow: int
    faulted_records: int
    waiting: int
    """Sets that wait for their template after this block."""
    waiting_sets: int
    """Sets that began to wait in this block."""
    released_sets: int
    expired_sets: int
    flows: int
    octets: int
    counter_samples: int
    drop_samples: int
    twin: int = 0
    """Copies of what another member of the group had brought already."""


class Announced(NamedTuple):
    """A sampling rate that an exporter announced, first or differently than before; numerator 0: it was taken back."""

    exporter: bytes
    domain: int
    sampler: int
    """Code of the sampler as in the flags of quarantined flows, 0: of the whole domain."""
    numerator: int
    denominator: int
    received: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """What came of one block."""

    flows: dict[str, NDArray[Any]]
    """Columns of core.schemas.FLOWS: addresses (n, 16) uint8, instants int64 ms, rows in journal order, then released.
    Views of the columns that they were decoded into."""
    counts: Counts
    intake: dict[str, NDArray[Any]]
    """By exporter, domain, export_protocol and slot (quarter hour of arrival): the columns of the table `intake`."""
    faults: list[tuple[bytes, int, FaultKind, int]]
    """(exporter, domain, kind, how many)."""
    interface_counters: dict[str, NDArray[Any]]
    """Octets of interfaces as their counters stood (collector.interface_counters), in journal order."""
    port_blocks: dict[str, NDArray[Any]]
    """Events of port blocks: exporter, inside and outside (n, 16) uint8, domain, received and at (ms), event (1 allocated,
    2 freed), port_first, port_last, port_step and protocol (0: all)."""
    held: NDArray[np.uint8]
    """Entries of unknown exporters, as the journal has them, if the settings say `quarantine`."""
    rates: list[Announced] = field(default_factory=list)


class Decoder:
    """Decodes the blocks of one journal, in order."""

    def __init__(self, settings: CollectorSettings, state: DecoderState | None = None, group: Group | None = None) -> None:
        """`group`: the bodies are merged from its members' journals (`collector.group`)."""
        self._settings = settings
        self._state = state if state is not None else DecoderState()
        self._state.use(bounds(settings, group), settings.registry.digest)
        self._policy = Policy(settings.time.skew_seconds_max * 1000, _POLICIES[settings.sampling.unannounced],
                              _TUNNELS[settings.collector.tunnels])
        self._results = _fresh_results()
        self._scratch = (np.zeros((layout.SLOT_COUNT, codes.CHUNK), np.int64), np.zeros((codes.WORK, codes.CHUNK), np.int64))
        self._found = np.zeros(packets.FOUND, np.int64)
        self._record = (np.zeros(layout.SLOT_COUNT, np.int64), np.zeros(4, np.uint64))
        self._block_rows = np.zeros(0, layout.PORT_BLOCK)

    @property
    def state(self) -> DecoderState:
        return self._state

    @property
    def result_octets(self) -> int:
        """Memory of what the scan hands on; `collector.memory` says how much it can become."""
        return sum(array.nbytes for array in self._results)

    def feed(self, body: NDArray[np.uint8], block: int, into: FlowColumns | None = None) -> Decoded:
        """Decode the body of one journal block; blocks come in order. The rows go behind those in `into`.

        Raises DamagedFile for a body that is no journal.
        """
        data, words = _as_words(body)
        columns = FlowColumns() if into is None else into
        first_of_all = columns.used
        parts: list[Decoded] = []
        position = 0
        while True:
            self._begin(position)
            is_whole = self._scan(data, words, block)
            self._end_sessions()
            position = int(self._results.progress[0]["position"])
            first, rows_written = self._decode(data, columns)
            parts.append(self._collect(columns, first, rows_written, data))
            if is_whole:
                return parts[0] if len(parts) == 1 else _joined(parts, columns.rows(first_of_all))

    def warm_up(self) -> None:
        """Compile what only some exporters need."""
        results, arrays, limits = self._results, self._state.arrays, self._state.limits
        nothing = np.zeros(8, np.uint8)
        reports.take_reports(nothing, results.sets, 0, arrays, limits, results.faults, KINDS, *self._record)
        reports.collect_blocks(nothing, results.sets, 0, arrays, 0, np.zeros(1, layout.PORT_BLOCK), 0, results.faults, KINDS,
                               *self._record)
        self._state.warm_up()

    def rest(self, block: int, into: FlowColumns | None = None) -> Iterator[Decoded]:
        """What is still to be read of data whose template has come: one datagram sets free a bounded part of it.

        To be taken behind a block for rows as early as can be; whatever is not taken comes with the next datagrams.
        """
        while self._state.is_releasing:
            yield self.feed(np.zeros(0, np.uint8), block, into)

    # scan -------------------------------------------------------------------------------------------------------------
    def _begin(self, position: int) -> None:
        """Empty the results of the last call; what expired while nobody looked is the first thing to count. The scan begins
        at `position` of the body."""
        state, results = self._state, self._results
        used = int(results.progress[0]["intake"])
        results.intake[:used] = np.zeros(1, layout.INTAKE)[0]
        results.faults[:used] = 0
        results.progress[:] = np.zeros(1, layout.PROGRESS)[0]
        state.arrays.domains["intake"] = -1
        state.retire()
        state.recycle()
        if state.waiting:
            self._grow_intake(state.waiting)
            oldest = int(state.arrays.counts[0]["newest"]) - self._settings.collector.waiting_seconds_max * 1000
            waiting.expire(state.arrays, self._results, KINDS, oldest)
        state.tidy()
        samplers = state.arrays.samplers
        samplers["numerator_before"] = samplers["numerator"]
        samplers["denominator_before"] = samplers["denominator"]
        progress, counts = self._results.progress[0], state.arrays.counts[0]
        progress["position"] = position
        progress["plans_before"], progress["fields_before"] = counts["plans"], counts["fields"]

    def _end_sessions(self) -> None:
        """What waits in a transport session that has ended will never be read: its templates were the session's."""
        state = self._state
        if state.arrays.counts[0]["ended"] and state.waiting:
            self._grow_intake(state.waiting)
            waiting.expire(state.arrays, self._results, KINDS, BEFORE_ALL)

    def _scan(self, data: NDArray[np.uint8], words: NDArray[np.uint64], block: int) -> bool:
        """Whether the whole body is scanned: memory is bounded by decoding a body that holds very much in portions."""
        limits = self._state.limits
        while True:
            need = scan.scan(data, words, self._state.arrays, limits, self._results, KINDS)
            if need in (codes.DONE, codes.PORTION):
                break
            if need == codes.BAD_BODY:
                raise DamagedFile(f"block {block} of the datagram journal holds an entry that reaches beyond it",
                                  "its checksum was right, so a writer made it: keep the file and report it")
            self._grow(need, data)
        reach = GROUP_REACH if limits is not None and limits.twins else 1
        arrays, heard = self._state.arrays, self._results.heard[: self._results.progress[0]["heard"]]
        sequences.account(arrays.domains, arrays.sequences, arrays.gaps, arrays.trials, heard, self._results.intake, reach)
        return bool(need == codes.DONE)

    def _grow(self, need: int, data: NDArray[np.uint8]) -> None:
        """Make room for at least the datagram that the scan stopped before, or for what is set free behind the last."""
        at = int(self._results.progress[0]["position"])
        length = int(data[at + 8 : at + 12].view(np.uint32)[0]) if at < len(data) else 0
        quarter = length // 4 + 2
        state, assured = self._state, self._state.limits
        assert assured is not None, "a decoder has bounds"
        match need:
            case codes.DOMAINS:
                state.grow("domains", 2)
            case codes.TEMPLATES:
                state.grow("templates", quarter)
            case codes.PLANS:
                state.grow("plans", quarter)
            case codes.FIELDS:
                state.grow("fields", quarter)
            case codes.SAMPLERS:
                state.grow("samplers", 2 * assured.records + RELEASE_RECORDS)
            case codes.WAITING:
                state.grow("waiting", quarter)
            case codes.WAITING_OCTETS:
                state.grow("waiting_octets", length)
            case codes.SIGHTINGS:
                state.grow_sightings(self._settings.collector.sightings_max)
            case codes.SETS:
                self._enlarge("sets", int(self._results.progress[0]["sets"]) + quarter)
            case codes.RELEASED:
                self._enlarge("released", int(self._results.progress[0]["released"]) + state.waiting + quarter)
            case codes.HEARD:
                self._enlarge("heard", int(self._results.progress[0]["heard"]) + state.waiting + quarter)
            case codes.HELD:
                self._enlarge("held", int(self._results.progress[0]["held"]) + 1)
            case codes.CHANGES:
                needed = int(self._results.progress[0]["changes"]) + 4 * quarter + assured.records + RELEASE_RECORDS
                self._enlarge("changes", needed)
            case _:
                self._grow_intake(2)

    def _enlarge(self, name: str, needed: int) -> None:
        array = getattr(self._results, name)
        size = max(2 * len(array), needed)
        bigger = np.zeros((size, *array.shape[1:]), array.dtype)
        bigger[: len(array)] = array
        self._results = self._results._replace(**{name: bigger})

    def _grow_intake(self, more: int) -> None:
        needed = int(self._results.progress[0]["intake"]) + more
        if needed > len(self._results.intake):
            self._enlarge("intake", needed)
            self._enlarge("faults", len(self._results.intake))
            size = min(len(self._results.intake), len(self._results.faults))
            self._results = self._results._replace(intake=self._results.intake[:size], faults=self._results.faults[:size])

    # decode -----------------------------------------------------------------------------------------------------------
    def _decode(self, data: NDArray[np.uint8], columns: FlowColumns) -> tuple[int, int]:
        """All rows of the block, flows or not; released data behind. Returns the first one and how many."""
        results, arrays = self._results, self._state.arrays
        progress = results.progress[0]
        released = int(progress["released"])
        if released:
            self._grow_intake(released)
            results = self._results
            progress = results.progress[0]
            waiting.open_intakes(arrays, results, released)
            results.released["row"][:released] += progress["rows"]
        changes = results.changes[: progress["changes"]]
        changes = changes[np.lexsort((changes["order"], changes["sampler"]))]
        count = int(progress["rows"] + progress["released_rows"])
        first = columns.reserve(count)
        out = columns.arrays
        for source, sets, number in ((data, results.sets, int(progress["sets"])),
                                     (arrays.waiting_octets, results.released, released)):
            if number:
                sets["row"][:number] += first
                rows.decode(source, sets, 0, number, arrays, changes, out, self._policy, KINDS, *self._scratch)
                samples.decode_samples(source, sets, 0, number, arrays, out, self._policy, KINDS, self._found)
                sections.decode_packets(source, sets, 0, number, arrays, out, self._policy, KINDS, self._found)
        return first, count

    def _read_counters(self, data: NDArray[np.uint8]) -> layout.Rows:
        """The readings of the block's counter samples."""
        results = self._results
        count = int(results.progress[0]["sets"])
        sets = results.sets[:count]
        with_counters = sets[(sets["sflow"] > 0) & (sets["counters"] > 0)]
        if not len(with_counters):
            return np.zeros(0, layout.READING)
        most = int((with_counters["stop"] - with_counters["start"]).sum()) // counter_samples.INTERFACE_COUNTERS_SIZE
        readings = np.zeros(min(most, INTERFACE_READINGS_MAX), layout.READING)
        used = counter_samples.decode_counters(data, results.sets, count, readings, results.faults, KINDS,
                                               np.zeros(1, np.int64))
        return readings[:used]

    def _report(self, data: NDArray[np.uint8]) -> layout.Rows:
        """What sets tell besides flows: loss reports into the state, and the events of port blocks."""
        results, arrays = self._results, self._state.arrays
        plans = arrays.plans[: int(arrays.counts[0]["plans"])]
        told, blocks = plans["reports"], plans["blocks"]
        kept = 0
        for source, sets, count in self._sources(data):
            if told.any():
                self._state.grow_reports(int(sets["records"][:count][told[sets["plan"][:count]] == 1].sum()))
                arrays = self._state.arrays
                reports.take_reports(source, sets, count, arrays, self._state.limits, results.faults, KINDS, *self._record)
            if blocks.any():
                if not len(self._block_rows):
                    self._block_rows = np.zeros(PORT_BLOCKS_MAX, layout.PORT_BLOCK)
                kept = int(reports.collect_blocks(source, sets, count, arrays, self._policy.skew_ms, self._block_rows, kept,
                                                  results.faults, KINDS, *self._record))
        return self._block_rows[:kept].copy()

    def _sources(self, data: NDArray[np.uint8]) -> list[tuple[NDArray[np.uint8], layout.Rows, int]]:
        """Where the scanned sets lie: in the body, and released ones among what waited."""
        results, progress = self._results, self._results.progress[0]
        both = ((data, results.sets, int(progress["sets"])),
                (self._state.arrays.waiting_octets, results.released, int(progress["released"])))
        return [one for one in both if one[2]]

    def _held(self, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The entries that go into quarantine, back to back."""
        places = self._results.held[: int(self._results.progress[0]["held"])].tolist()
        parts = [data[at : at + (codes.ENTRY_HEADER + int(data[at + 8 : at + 12].view(np.uint32)[0]) + 7 & ~7)]
                 for at in places]
        return np.concatenate(parts) if parts else np.zeros(0, np.uint8)

    def _collect(self, columns: FlowColumns, first: int, count: int, data: NDArray[np.uint8]) -> Decoded:
        readings, blocks = self._read_counters(data), self._report(data)
        results = self._results
        progress = results.progress[0]
        cumulative = int(FaultKind.CUMULATIVE_COUNTER)
        kept = 0
        keep: NDArray[np.int64] | slice = slice(first, first + count)
        clean = all(tally.all_clean(sets, int(number))
                    for sets, number in ((results.sets, progress["sets"]), (results.released, progress["released"])))
        indexes = np.empty(0 if clean else count, np.int64)
        for sets, number in ((results.sets, progress["sets"]), (results.released, progress["released"])):
            kept = tally.tally(sets, int(number), columns.arrays, results.intake, results.faults, indexes, kept, cumulative)
        if not clean:
            keep = indexes[:kept]
        columns.keep(first, keep)
        intake = results.intake[: progress["intake"]]
        faults = results.faults[: progress["intake"]]
        domains = self._state.arrays.domains
        sums = {name: int(intake[name].sum()) for name in layout.INTAKE_COUNTS}
        return Decoded(columns.rows(first), Counts(waiting=self._state.waiting, **sums),
                       _intake(intake, domains), _faults(intake, faults, domains), _interface_counters(readings, domains),
                       _port_blocks(blocks), self._held(data), announced_in(results, self._state.arrays))


def _fresh_results() -> layout.Results:
    return layout.Results(
        progress=np.zeros(1, layout.PROGRESS), situation=np.zeros(1, layout.SITUATION), sets=np.zeros(8192, layout.SET),
        released=np.zeros(1024, layout.SET), intake=np.zeros(256, layout.INTAKE),
        faults=np.zeros((256, KIND_COUNT), np.int64), changes=np.zeros(1024, layout.SAMPLER_CHANGE),
        heard=np.zeros(8192, layout.HEARD),
        announced=np.zeros(1024, layout.ANNOUNCEMENT),
        scratch=np.zeros(layout.SLOT_COUNT, np.int64), held=np.zeros(16, np.int64),
    )


def _as_words(body: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """The body, aligned and writable like every other array a kernel gets, and the same memory as 64-bit words."""
    if len(body) % 8 == 0 and body.flags.writeable and body.flags.c_contiguous and body.ctypes.data % 8 == 0:
        return body, body.view(np.uint64)
    aligned = np.zeros((len(body) + 7) // 8, np.uint64)
    data = aligned.view(np.uint8)
    data[: len(body)] = body
    return data, aligned


def _intake(intake: layout.Rows, domains: layout.Rows) -> dict[str, NDArray[Any]]:
    """Rows of one domain and quarter hour added up, with the domain written out."""
    order = np.lexsort((intake["quarter"], intake["owner"]))
    ordered = intake[order]
    new = np.ones(len(ordered), bool)
    new[1:] = (ordered["owner"][1:] != ordered["owner"][:-1]) | (ordered["quarter"][1:] != ordered["quarter"][:-1])
    starts = np.flatnonzero(new)
    owners = domains[ordered["owner"][starts]]
    words = np.stack([owners["high"], owners["low"]], axis=1)
    columns: dict[str, NDArray[Any]] = {
        "exporter": np.ascontiguousarray(words).view(np.uint8).reshape(len(starts), 16),
        "domain": owners["domain"].copy(), "export_protocol": owners["protocol"].copy(),
        "slot": ordered["quarter"][starts].copy(),
    }
    for name in layout.INTAKE.names[2:]:  # type: ignore[index]
        columns[name] = np.add.reduceat(ordered[name], starts) if len(starts) else np.zeros(0, np.int64)
    columns.update(measures.join({name: ordered[name] for name in measures.COLUMNS}, starts))
    return columns


def announced_in(results: layout.Results, state: layout.State) -> list[Announced]:
    """The rates that a call brought, in order; if they were more than there is room for, those of the whole state now."""
    count = int(results.progress[0]["announced"])
    rows = results.announced[:count].tolist() if count < len(results.announced) else _all_rates(state)
    domains = state.domains
    return [Announced(np.array([domains[domain]["high"], domains[domain]["low"]], np.uint64).tobytes(),
                      int(domains[domain]["domain"]), *rest) for domain, *rest in rows]


def _all_rates(state: layout.State) -> list[tuple[int, int, int, int, int]]:
    counts = state.counts[0]
    newest = int(counts["newest"])
    found = [(index, 0, int(row["rate_numerator"]), int(row["rate_denominator"]), newest)
             for index, row in enumerate(state.domains[: counts["domains"]]) if row["rate_numerator"]]
    return found + [(int(row["domain"]), int(row["identifier"]) + 1, int(row["numerator"]), int(row["denominator"]), newest)
                    for row in state.samplers[: counts["samplers"]]
                    if row["numerator"] and row["identifier"] < schemas.SAMPLER_BEYOND - 1]


def _faults(intake: layout.Rows, faults: layout.Rows, domains: layout.Rows) -> list[tuple[bytes, int, FaultKind, int]]:
    found: dict[tuple[int, int], int] = {}
    for row, kind in zip(*np.nonzero(faults), strict=True):
        key = (int(intake[row]["owner"]), int(kind))
        found[key] = found.get(key, 0) + int(faults[row, kind])
    return [
        (np.array([domains[owner]["high"], domains[owner]["low"]], np.uint64).tobytes(), int(domains[owner]["domain"]),
         FaultKind(kind), count)
        for (owner, kind), count in sorted(found.items())
    ]


def _interface_counters(readings: layout.Rows, domains: layout.Rows) -> dict[str, NDArray[Any]]:
    owners = domains[readings["domain"]]
    words = np.stack([owners["high"], owners["low"]], axis=1)
    return {"exporter": np.ascontiguousarray(words).view(np.uint8).reshape(len(readings), 16),
            **{name: readings[name].copy() for name in ("interface", "received", "in_octets", "out_octets")}}


def _port_blocks(blocks: layout.Rows) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {}
    for name, words in (("exporter", ("high", "low")), ("inside", ("inside_high", "inside_low")),
                        ("outside", ("outside_high", "outside_low"))):
        pair = np.stack([blocks[word] for word in words], axis=1)
        columns[name] = np.ascontiguousarray(pair).view(np.uint8).reshape(len(blocks), 16)
    for name in ("domain", "received", "at", "event", "port_first", "port_last", "port_step", "protocol"):
        columns[name] = blocks[name].copy()
    return columns


def _joined(parts: list[Decoded], flows: dict[str, NDArray[Any]]) -> Decoded:
    """The portions of one block as one, whose flows lie one after the other."""
    sums = {name: sum(getattr(part.counts, name) for part in parts) for name in Counts.__slots__}
    counts = Counts(**{**sums, "waiting": parts[-1].counts.waiting})
    faults: dict[tuple[bytes, int, FaultKind], int] = {}
    for part in parts:
        for exporter, domain, kind, count in part.faults:
            faults[exporter, domain, kind] = faults.get((exporter, domain, kind), 0) + count
    return Decoded(
        flows, counts, _concatenated([part.intake for part in parts]),
        [(*key, count) for key, count in sorted(faults.items())], _concatenated([part.interface_counters for part in parts]),
        _concatenated([part.port_blocks for part in parts]), np.concatenate([part.held for part in parts]),
        [rate for part in parts for rate in part.rates])


def _concatenated(parts: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
