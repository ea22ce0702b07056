"""The decoder: journal blocks in order → rows of flows, counts and faults.

`Decoder.feed` takes the body of one block, scans it (sequential, changes the state), decodes the sets that the scan found
(a pure function of set, plan and samplers) and adds up what became of every record. Bad input is counted, never raised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from collector import layout
from collector.columns import FlowColumns
from collector.faults import KIND_COUNT, KINDS, FaultKind
from collector.kernels import rows, samples, scan, tally
from collector.settings import CollectorSettings
from collector.state import DecoderState, bounds
from core.errors import DamagedFile

VERSION = "1"
"""Of the decoder: recorded with every segment; it changes when the same datagrams give other rows."""

SFLOW = 105
"""Its number among core.schemas.EXPORT_PROTOCOL_NAMES."""

_POLICIES = {"assume_1": rows.ASSUME, "quarantine": rows.QUARANTINE, "reject": rows.REJECT}


class Policy(NamedTuple):
    """Settings that a record's decoding depends on."""

    skew_ms: int
    unannounced: int


NO_SKEW = -(2**63)
"""The skew of a domain that has not sent a set with data yet."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What one block held. datagrams = decoded + faulted + duplicate (+ refused, which the receiver knows);
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


class Decoder:
    """Decodes the blocks of one journal, in order."""

    def __init__(self, settings: CollectorSettings, state: DecoderState | None = None) -> None:
        self._settings = settings
        self._state = state if state is not None else DecoderState()
        self._state.use(bounds(settings))
        self._policy = Policy(settings.time.skew_seconds_max * 1000, _POLICIES[settings.sampling.unannounced])
        self._results = _fresh_results()
        self._scratch = (np.zeros((layout.SLOT_COUNT, rows.CHUNK), np.int64), np.zeros((rows.WORK, rows.CHUNK), np.int64))
        self._found = np.zeros(samples.FOUND, np.int64)
        self._skews = np.zeros(0, np.int64)

    @property
    def state(self) -> DecoderState:
        return self._state

    def feed(self, body: NDArray[np.uint8], block: int, into: FlowColumns | None = None) -> Decoded:
        """Decode the body of one journal block; blocks come in order. The rows go behind those in `into`.

        Raises DamagedFile for a body that is no journal.
        """
        data, words = _as_words(body)
        self._begin(len(data))
        self._scan(data, words, block)
        self._note_skews()
        columns = FlowColumns() if into is None else into
        first, rows_written = self._decode(data, columns)
        return self._collect(columns, first, rows_written)

    # scan -------------------------------------------------------------------------------------------------------------
    def _begin(self, size: int) -> None:
        """Empty the results of the last call; what expired while nobody looked is the first thing to count."""
        state, results = self._state, self._results
        used = int(results.progress[0]["intake"])
        results.intake[:used] = np.zeros(1, layout.INTAKE)[0]
        results.faults[:used] = 0
        results.progress[:] = np.zeros(1, layout.PROGRESS)[0]
        domains, samplers = state.arrays.domains, state.arrays.samplers
        domains["intake"] = -1
        samplers["numerator_before"] = samplers["numerator"]
        samplers["denominator_before"] = samplers["denominator"]
        if state.waiting:
            self._grow_intake(state.waiting)
            oldest = int(state.arrays.counts[0]["newest"]) - self._settings.collector.waiting_seconds_max * 1000
            scan.expire(state.arrays, self._results, KINDS, oldest)
        state.tidy()

    def _scan(self, data: NDArray[np.uint8], words: NDArray[np.uint64], block: int) -> None:
        limits = self._state.limits
        while True:
            need = scan.scan(data, words, self._state.arrays, limits, self._results, KINDS)
            if need == scan.DONE:
                return
            if need == scan.BAD_BODY:
                raise DamagedFile(f"block {block} of the datagram journal holds an entry that reaches beyond it",
                                  "its checksum was right, so a writer made it: keep the file and report it")
            self._grow(need, data)

    def _grow(self, need: int, data: NDArray[np.uint8]) -> None:
        """Make room for at least the datagram that the scan stopped before."""
        at = int(self._results.progress[0]["position"])
        length = int(data[at + 8 : at + 12].view(np.uint32)[0])
        quarter = length // 4 + 2
        state, assured = self._state, self._state.limits
        assert assured is not None, "a decoder has bounds"
        match need:
            case scan.DOMAINS:
                state.grow("domains", 1)
            case scan.TEMPLATES:
                state.grow("templates", quarter)
            case scan.PLANS:
                state.grow("plans", quarter)
            case scan.FIELDS:
                state.grow("fields", quarter)
            case scan.SAMPLERS:
                state.grow("samplers", assured.records)
            case scan.WAITING:
                state.grow("waiting", quarter)
            case scan.WAITING_OCTETS:
                state.grow("waiting_octets", length)
            case scan.SIGHTINGS:
                state.grow_sightings(self._settings.collector.sightings_max)
            case scan.SETS:
                self._enlarge("sets", int(self._results.progress[0]["sets"]) + quarter)
            case scan.RELEASED:
                self._enlarge("released", int(self._results.progress[0]["released"]) + state.waiting + quarter)
            case scan.CHANGES:
                self._enlarge("changes", int(self._results.progress[0]["changes"]) + 4 * quarter)
            case _:
                self._grow_intake(1)

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

    def _note_skews(self) -> None:
        """By domain, arrival less export time of the newest datagram with data."""
        sets = self._results.sets[: self._results.progress[0]["sets"]]
        grown = int(self._state.arrays.counts[0]["domains"]) - len(self._skews)
        if grown > 0:
            self._skews = np.concatenate([self._skews, np.full(grown, NO_SKEW)])
        self._skews[sets["domain"]] = sets["received"] - sets["exported"]

    def skews(self) -> dict[tuple[bytes, int, int], int]:
        """By exporter, domain and protocol: arrival less export time in milliseconds when it last sent data to this decoder.

        v1, v5 and v7 tell it to the millisecond, v9 and IPFIX to the second; sFlow carries no clock.
        """
        found = {}
        for number in np.flatnonzero(self._skews != NO_SKEW).tolist():
            row = self._state.arrays.domains[number]
            if row["protocol"] != SFLOW:
                address = np.array([row["high"], row["low"]], np.uint64).tobytes()
                found[address, int(row["domain"]), int(row["protocol"])] = int(self._skews[number])
        return found

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
            scan.open_intakes(arrays, results, released)
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
        return first, count

    def _collect(self, columns: FlowColumns, first: int, count: int) -> Decoded:
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
        sums = {name: int(intake[name].sum()) for name in layout.INTAKE.names[2:]}  # type: ignore[index]
        return Decoded(columns.rows(first), Counts(refused=0, waiting=self._state.waiting, **sums),
                       _intake(intake, domains), _faults(intake, faults, domains))


def _fresh_results() -> layout.Results:
    return layout.Results(
        progress=np.zeros(1, layout.PROGRESS), situation=np.zeros(1, layout.SITUATION), sets=np.zeros(8192, layout.SET),
        released=np.zeros(1024, layout.SET), intake=np.zeros(256, layout.INTAKE),
        faults=np.zeros((256, KIND_COUNT), np.int64), changes=np.zeros(1024, layout.SAMPLER_CHANGE),
        scratch=np.zeros(layout.SLOT_COUNT, np.int64),
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
        "slot": ordered["quarter"][starts].copy(), "refused": np.zeros(len(starts), np.int64),
    }
    for name in layout.INTAKE.names[2:]:  # type: ignore[index]
        columns[name] = np.add.reduceat(ordered[name], starts) if len(starts) else np.zeros(0, np.int64)
    return columns


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
