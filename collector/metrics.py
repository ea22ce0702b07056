"""The collectors' metrics: declared here, read at scrape time from shared counters, status files, the journal and SQL.

An endpoint tells of every collector of its home, whichever process serves it; replays are not collectors. Figures of the
receiver and of decode workers are of this moment, figures by exporter as of the last commit (`segment_seconds`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from collector import counters as places_of
from collector import liveness, totals
from collector.counters import Places
from collector.lag import Follower, JournalSize, Lag, journal_size
from collector.status import statuses
from core.errors import RatemillError
from core.periods import parse_instant
from runtime import processes
from runtime.metrics import COUNTER, GAUGE, HISTOGRAM, READ_SECONDS, Endpoint, Metric, Parts, Periodic, Sheet
from runtime.settings import metrics_settings
from storage import sql
from storage.home import Home

COLLECTORS_MAX = 64
"""Collectors of a home that are told of, in order of their names."""

_ONE = ("collector",)
_LISTENER = ("collector", "listener")
_WORKER = ("collector", "worker")
_PROCESS = ("collector", "process")
_EXPORTER = ("collector", "exporter", "domain", "protocol")

UP = Metric("ratemill_collector_up", GAUGE, "1 while the collector runs, else 0.", _ONE)
READY = Metric("ratemill_collector_ready", GAUGE, "1 while its sockets are open and datagrams are taken.", _ONE)
RECEIVER_UP = Metric("ratemill_collector_receiver_up", GAUGE, "1 while the receiver's process is alive, else 0.", _ONE)
LOOKED = Metric("ratemill_collector_receiver_looked_timestamp_seconds", GAUGE,
                "When the receiver last looked around: each second, unless its disk does not answer.", _ONE)
TOLD = Metric("ratemill_collector_status_timestamp_seconds", GAUGE, "When the collector last wrote its status.", _ONE)
TROUBLE = Metric("ratemill_collector_trouble", GAUGE,
                 "1 while decoding can't go on, because the disk or the database refuses; receiving goes on.", _ONE)

_FIGURES: tuple[tuple[str, Metric], ...] = (
    ("received", Metric("ratemill_collector_received_datagrams_total", COUNTER, "Datagrams taken from the sockets.", _ONE)),
    ("octets", Metric("ratemill_collector_received_bytes_total", COUNTER, "Octets of payload taken from the sockets.", _ONE)),
    ("durable", Metric("ratemill_collector_durable_datagrams_total", COUNTER,
                       "Datagrams synced to the disk, in the journal.", _ONE)),
    ("decoded", Metric("ratemill_collector_decoded_datagrams_total", COUNTER,
                       "Datagrams in committed segments, whatever became of them.", _ONE)),
    ("flows", Metric("ratemill_collector_flows_total", COUNTER, "Flows in committed segments.", _ONE)),
    ("kernel_drops", Metric("ratemill_collector_kernel_dropped_datagrams_total", COUNTER,
                            "Datagrams that the kernel dropped because a receive buffer was full.", _ONE)),
    ("refused", Metric("ratemill_collector_refused_datagrams_total", COUNTER,
                       "Datagrams received that the disk, or its reserve, did not take.", _ONE)),
    ("lost", Metric("ratemill_collector_lost_datagrams_total", COUNTER,
                    "Datagrams received, but not durable when a process was killed.", _ONE)),
    ("truncated", Metric("ratemill_collector_truncated_datagrams_total", COUNTER,
                         "Datagrams longer than the receiver's room for one.", _ONE)),
)
"""What `collect status` tells, too: fields of counters.Figures."""

_COUNTED: tuple[tuple[int, float, Metric], ...] = (
    (places_of.RECEIVE_ERRORS, 1, Metric("ratemill_collector_receive_errors_total", COUNTER,
                                         "Errors that the kernel reported instead of datagrams.", _ONE)),
    (places_of.STALLED_NS, 1e-9, Metric("ratemill_collector_receiver_stalled_seconds_total", COUNTER,
                                        "Time without a free buffer: the disk was slower than the network.", _ONE)),
    (places_of.JOURNAL_OCTETS, 1, Metric("ratemill_collector_journal_written_bytes_total", COUNTER,
                                         "Octets written to the journal.", _ONE)),
    (places_of.JOURNAL_BLOCKS, 1, Metric("ratemill_collector_journal_written_blocks_total", COUNTER,
                                         "Blocks written to the journal.", _ONE)),
    (places_of.SEGMENTS, 1, Metric("ratemill_collector_segments_total", COUNTER, "Segments committed.", _ONE)),
    (places_of.JOURNAL_FAILING, 1, Metric("ratemill_collector_journal_failing", GAUGE,
                                          "1 while the disk does not take the journal, else 0.", _ONE)),
    (places_of.DISK_RESERVE, 1, Metric("ratemill_collector_disk_reserve_bytes", GAUGE,
                                       "Octets of the disk that the receiver keeps free; 0: no reserve.", _ONE)),
    (places_of.DISK_LEVEL, 1, Metric("ratemill_collector_disk_level", GAUGE,
                                     "0: enough space, 1: little, 2: only the journal is written, 3: the reserve is reached.",
                                     _ONE)),
    (places_of.DECODE_PAUSED, 1, Metric("ratemill_collector_decode_paused", GAUGE,
                                        "1 while decoding waits, so that the rest of the disk is the journal's.", _ONE)),
)
SIZES = Metric("ratemill_collector_datagram_size_bytes", HISTOGRAM, "Payload of the datagrams received.", _ONE)
SYNCS = Metric("ratemill_collector_journal_sync_seconds", HISTOGRAM, "How long syncs of the journal took.", _ONE)

LAG_DATAGRAMS = Metric("ratemill_collector_lag_datagrams", GAUGE,
                       "Datagrams received and not yet in a segment; some always are, for up to segment_seconds.", _ONE)
LAG_BLOCKS = Metric("ratemill_collector_lag_blocks", GAUGE, "Blocks durable in the journal and not yet in a segment.", _ONE)
LAG_SECONDS = Metric("ratemill_collector_lag_seconds", GAUGE,
                     "Age of the oldest datagram that is in the journal and not yet in a segment.", _ONE)
JOURNAL_BYTES = Metric("ratemill_collector_journal_bytes", GAUGE, "What the journal takes on the disk.", _ONE)
JOURNAL_FILES = Metric("ratemill_collector_journal_files", GAUGE, "Files of the journal.", _ONE)

_LISTENED: tuple[tuple[int, Metric], ...] = (
    (places_of.LISTENER_RECEIVED, Metric("ratemill_collector_listener_received_datagrams_total", COUNTER,
                                         "Datagrams taken from this socket since the receiver began.", _LISTENER)),
    (places_of.LISTENER_OCTETS, Metric("ratemill_collector_listener_received_bytes_total", COUNTER,
                                       "Octets of payload taken from this socket since the receiver began.", _LISTENER)),
    (places_of.LISTENER_DROPS, Metric("ratemill_collector_listener_kernel_dropped_datagrams_total", COUNTER,
                                      "Datagrams that the kernel dropped at this socket since the receiver began.", _LISTENER)),
    (places_of.LISTENER_BUFFER, Metric("ratemill_collector_listener_receive_buffer_bytes", GAUGE,
                                       "Receive buffer granted, as the kernel counts it: twice what was asked for.",
                                       _LISTENER)),
    (places_of.LISTENER_QUEUED, Metric("ratemill_collector_listener_receive_queue_bytes", GAUGE,
                                       "Receive buffer in use when the receiver last looked, counted in the same way.",
                                       _LISTENER)),
)

_WORKED: tuple[tuple[int, float, Metric], ...] = (
    (places_of.WORKER_BLOCKS, 1, Metric("ratemill_collector_worker_blocks_total", COUNTER,
                                        "Blocks decoded; those that were decoded again count again.", _WORKER)),
    (places_of.WORKER_DATAGRAMS, 1, Metric("ratemill_collector_worker_datagrams_total", COUNTER,
                                           "Datagrams decoded; those that were decoded again count again.", _WORKER)),
    (places_of.WORKER_FLOWS, 1, Metric("ratemill_collector_worker_flows_total", COUNTER,
                                       "Flows decoded; those that were decoded again count again.", _WORKER)),
    (places_of.WORKER_DECODE_NS, 1e-9, Metric("ratemill_collector_worker_decode_seconds_total", COUNTER,
                                              "Time in the decoder.", _WORKER)),
    (places_of.WORKER_COMMITTED_AT, 1e-3, Metric("ratemill_collector_worker_last_commit_timestamp_seconds", GAUGE,
                                                 "When the worker last committed a segment.", _WORKER)),
)
COMMITS = Metric("ratemill_collector_worker_commit_seconds", HISTOGRAM,
                 "How long commits took: segment file, decoder state and transaction.", _WORKER)

CPU = Metric("ratemill_collector_process_cpu_seconds_total", COUNTER, "User and system CPU time of a process.", _PROCESS)
RESIDENT = Metric("ratemill_collector_process_resident_memory_bytes", GAUGE, "Resident memory of a process.", _PROCESS)
THREADS = Metric("ratemill_collector_process_threads", GAUGE, "Threads of a process.", _PROCESS)
FILES = Metric("ratemill_collector_process_open_files", GAUGE, "Open file descriptors of a process.", _PROCESS)

DATABASE_UP = Metric("ratemill_database_up", GAUGE,
                     "1 if the figures by exporter could be read from the database, else 0 and they are left out.")
EXPORTERS = Metric("ratemill_collector_exporters", GAUGE, "Exporters and domains known, named here or not.", _ONE)

_BY_EXPORTER: tuple[tuple[str, Metric], ...] = (
    ("received", Metric("ratemill_collector_exporter_received_datagrams_total", COUNTER,
                        "Datagrams of this exporter and domain, copies included.", _EXPORTER)),
    ("duplicate", Metric("ratemill_collector_exporter_duplicate_datagrams_total", COUNTER,
                         "Exact copies of datagrams; they do not count twice.", _EXPORTER)),
    ("reordered", Metric("ratemill_collector_exporter_reordered_datagrams_total", COUNTER,
                         "Datagrams that came later than one sent after them.", _EXPORTER)),
    ("restarts", Metric("ratemill_collector_exporter_restarts_total", COUNTER,
                        "Times that the exporter began to count anew: no loss.", _EXPORTER)),
    ("faulted", Metric("ratemill_collector_exporter_faulted_datagrams_total", COUNTER,
                       "Datagrams of which nothing could be read.", _EXPORTER)),
    ("flows", Metric("ratemill_collector_exporter_flows_total", COUNTER, "Flows of this exporter and domain.", _EXPORTER)),
    ("octets", Metric("ratemill_collector_exporter_flow_bytes_total", COUNTER,
                      "Octets of these flows as exported, before scaling by the sampling rate.", _EXPORTER)),
    ("faulted_records", Metric("ratemill_collector_exporter_faulted_records_total", COUNTER,
                               "Data records that must not become flows.", _EXPORTER)),
    ("not_a_flow", Metric("ratemill_collector_exporter_other_records_total", COUNTER,
                          "Data records that describe no flow.", _EXPORTER)),
)
_BY_TEMPLATES: tuple[tuple[str, Metric], ...] = (
    ("waiting", Metric("ratemill_collector_exporter_waiting_sets", GAUGE, "Sets that wait for their template now.", _EXPORTER)),
    ("waiting_sets", Metric("ratemill_collector_exporter_waiting_sets_total", COUNTER,
                            "Sets that came before their template and were kept.", _EXPORTER)),
    ("released_sets", Metric("ratemill_collector_exporter_released_sets_total", COUNTER,
                             "Sets that were decoded when their template came.", _EXPORTER)),
    ("expired_sets", Metric("ratemill_collector_exporter_expired_sets_total", COUNTER,
                            "Sets whose template did not come in time.", _EXPORTER)),
)
_TYPED = (*_EXPORTER, "type")
RECORDS = Metric("ratemill_collector_exporter_records_total", COUNTER, "Records read: type is data or options.", _TYPED)
TEMPLATES = Metric("ratemill_collector_exporter_templates_total", COUNTER,
                   "Template definitions read, repeats included: type is data or options.", _TYPED)
SAMPLES = Metric("ratemill_collector_exporter_sflow_samples_total", COUNTER,
                 "sFlow samples that are no flows: type is interface (counters) or drop (discarded packets).", _TYPED)
MISSING_DATAGRAMS = Metric("ratemill_collector_exporter_missing_datagrams_total", COUNTER,
                           "Datagrams missing by sequence number (v9, sFlow), those that came later after all included.",
                           _EXPORTER)
MISSING_RECORDS = Metric("ratemill_collector_exporter_missing_records_total", COUNTER,
                         "Records missing by sequence number (v5, v7, IPFIX), those that came later after all included.",
                         _EXPORTER)
RECOVERED_DATAGRAMS = Metric("ratemill_collector_exporter_recovered_datagrams_total", COUNTER,
                             "Datagrams that were counted as missing and came later after all (v9, sFlow).", _EXPORTER)
RECOVERED_RECORDS = Metric("ratemill_collector_exporter_recovered_records_total", COUNTER,
                           "Records that were counted as missing and came later after all (v5, v7, IPFIX).", _EXPORTER)
FIRST_SEEN = Metric("ratemill_collector_exporter_first_seen_timestamp_seconds", GAUGE, "When it was first heard.", _EXPORTER)
LAST_SEEN = Metric("ratemill_collector_exporter_last_seen_timestamp_seconds", GAUGE, "When it was last heard.", _EXPORTER)
SKEW = Metric("ratemill_collector_exporter_clock_skew_seconds", GAUGE,
              "Arrival less export time when it last sent data; v9 and IPFIX tell whole seconds, sFlow nothing.", _EXPORTER)
FAULTS = Metric("ratemill_collector_exporter_faults_total", COUNTER, "Faults by kind: see the page of faults.",
                ("collector", "exporter", "domain", "kind"))

DISK_FREE = Metric("ratemill_home_disk_free_bytes", GAUGE, "Free octets of the disk that holds the home.")
DISK_SIZE = Metric("ratemill_home_disk_size_bytes", GAUGE, "Size of the disk that holds the home.")

METRICS: tuple[Metric, ...] = (
    UP, READY, RECEIVER_UP, LOOKED, TOLD, TROUBLE, *(metric for _, metric in _FIGURES),
    *(metric for _, _, metric in _COUNTED), SIZES, SYNCS,
    LAG_DATAGRAMS, LAG_BLOCKS, LAG_SECONDS, JOURNAL_BYTES, JOURNAL_FILES, *(metric for _, metric in _LISTENED),
    *(metric for _, _, metric in _WORKED), COMMITS, CPU, RESIDENT, THREADS, FILES, DISK_FREE, DISK_SIZE, DATABASE_UP,
    EXPORTERS, *(metric for _, metric in _BY_EXPORTER), *(metric for _, metric in _BY_TEMPLATES), RECORDS, TEMPLATES,
    SAMPLES, MISSING_DATAGRAMS, MISSING_RECORDS, RECOVERED_DATAGRAMS, RECOVERED_RECORDS, FIRST_SEEN, LAST_SEEN, SKEW, FAULTS,
)

DATAGRAM_SEQUENCES, RECORD_SEQUENCES = ("v9", "sflow"), ("v5", "v7", "ipfix")
"""What the sequence numbers of a protocol count; v1 has none."""
_WITH_TEMPLATES = ("v9", "ipfix")


# reading --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class DiskFacts:
    """What is slow to find out, by collector."""

    lags: dict[str, Lag]
    journals: dict[str, JournalSize]
    free: int
    size: int


class Facts:
    """What an endpoint knows of the collectors of a home; SQL and the disk are asked at most once in five seconds."""

    def __init__(self, home: Home, *, disk_seconds: float = READ_SECONDS) -> None:
        self._home = home
        self._settings = metrics_settings(home.document)
        self._followers: dict[str, Follower] = {}
        self.stored: Periodic[totals.Totals] = Periodic("the database", self._read_stored)
        self.disk: Periodic[DiskFacts] = Periodic("the journal", self._read_disk, disk_seconds)

    def statuses(self) -> list[dict[str, Any]]:
        return statuses(self._home)[:COLLECTORS_MAX]

    def places(self, collector: str) -> Places:
        return places_of.read_places(self._home, collector)

    def health(self) -> list[str]:
        """What is wrong with receiving and decoding."""
        disk = self.disk.get()
        known = {} if disk is None else {name: lag.seconds for name, lag in disk.lags.items()}
        return liveness.problems([liveness.Condition(told, self.places(told["collector"]), known.get(told["collector"]))
                                for told in self.statuses()], self._settings.lag_seconds_max)

    def readiness(self) -> list[str]:
        return liveness.not_ready(self.statuses())

    def _read_stored(self) -> totals.Totals:
        with sql.reading(sql.engine(self._home)) as connection:
            return totals.read(connection, self._settings.exporters_max)

    def _read_disk(self) -> DiskFacts:
        names = [str(told["collector"]) for told in self.statuses()]
        found, journals = {}, {}
        for name in names:
            follower = self._followers.setdefault(name, Follower(self._home, name))
            found[name] = follower.lag(self.places(name))
            journals[name] = journal_size(self._home, name)
        usage = shutil.disk_usage(self._home.path)
        return DiskFacts(found, journals, usage.free, usage.total)


# telling --------------------------------------------------------------------------------------------------------------
def parts(home: Home) -> Parts:
    """What an endpoint tells of the collectors of a home."""
    facts = Facts(home)
    contributions: dict[str, Callable[[Sheet], None]] = {
        "collectors": lambda sheet: _tell_collectors(sheet, facts),
        "journal": lambda sheet: _tell_disk(sheet, facts),
        "exporters": lambda sheet: _tell_exporters(sheet, facts),
    }
    return Parts(contributions, (facts.health,), (facts.readiness,))


def serve(home: Home) -> Endpoint | None:
    """Begin to serve the collectors' metrics; None if [metrics] listen is empty."""
    listen = metrics_settings(home.document).listen
    return Endpoint(listen, parts(home)).start() if listen else None


def _tell_collectors(sheet: Sheet, facts: Facts) -> None:
    for told in facts.statuses():
        name, places = str(told["collector"]), facts.places(told["collector"])
        running = bool(told["running"])
        receiver = processes.usage(int(told["receiver_pid"] or 0)) if running else None
        sheet.write(UP, running, name)
        sheet.write(READY, running and told["state"] == "running", name)
        sheet.write(RECEIVER_UP, receiver is not None, name)
        sheet.write(LOOKED, places[places_of.LOOKED_AT] / 1000, name)
        sheet.write(TOLD, parse_instant(told["at"]) / 1000, name)
        sheet.write(TROUBLE, running and bool(told["trouble"]), name)
        figures = places_of.figures_of(places)
        for field, metric in _FIGURES:
            sheet.write(metric, getattr(figures, field), name)
        for at, scale, metric in _COUNTED:
            sheet.write(metric, int(places[at]) * scale, name)
        _write_histogram(sheet, SIZES, places, places_of.DATAGRAM_SIZES, places_of.SIZE_BOUNDS, 1, name)
        _write_histogram(sheet, SYNCS, places, places_of.JOURNAL_SYNCS, places_of.DURATION_BOUNDS_NS, 1e-9, name)
        _tell_listeners(sheet, name, told["listeners"], places)
        _tell_workers(sheet, name, places)
        _tell_processes(sheet, name, {"decoder": processes.usage(int(told["pid"])) if running else None, "receiver": receiver})


def _write_histogram(sheet: Sheet, metric: Metric, places: Places, at: int, bounds: Iterable[int], scale: float,
                     *labels: str) -> None:
    found = places_of.histogram(places, at, tuple(bounds))
    total = int(places[places_of.OCTETS]) if metric is SIZES else found.total
    sheet.write_histogram(metric, [bound * scale for bound in bounds], found.counts, total * scale, *labels)


def _tell_listeners(sheet: Sheet, name: str, listeners: list[dict[str, Any]], places: Places) -> None:
    for number, listener in enumerate(listeners[: places_of.LISTENERS_MAX]):
        at = places_of.listener_at(number)
        for offset, metric in _LISTENED:
            sheet.write(metric, int(places[at + offset]), name, str(listener["address"]))


def _tell_workers(sheet: Sheet, name: str, places: Places) -> None:
    for number in range(places_of.WORKERS_MAX):
        at = places_of.worker_at(number)
        if number and not places[at + places_of.WORKER_BLOCKS]:
            continue
        for offset, scale, metric in _WORKED:
            sheet.write(metric, int(places[at + offset]) * scale, name, str(number))
        _write_histogram(sheet, COMMITS, places, at + places_of.WORKER_COMMITS, places_of.DURATION_BOUNDS_NS, 1e-9, name,
                         str(number))


def _tell_processes(sheet: Sheet, name: str, found: dict[str, processes.Usage | None]) -> None:
    for process, usage in found.items():
        if usage is not None:
            sheet.write(CPU, usage.cpu_seconds, name, process)
            sheet.write(RESIDENT, usage.resident_octets, name, process)
            sheet.write(THREADS, usage.threads, name, process)
            sheet.write(FILES, usage.files, name, process)


def _tell_disk(sheet: Sheet, facts: Facts) -> None:
    disk = facts.disk.get()
    if disk is None:
        raise RatemillError("the journal and its disk did not answer in time")
    sheet.write(DISK_FREE, disk.free)
    sheet.write(DISK_SIZE, disk.size)
    for name, lag in disk.lags.items():
        sheet.write(LAG_DATAGRAMS, lag.datagrams, name)
        sheet.write(LAG_BLOCKS, lag.blocks, name)
        sheet.write(LAG_SECONDS, lag.seconds, name)
    for name, journal in disk.journals.items():
        sheet.write(JOURNAL_BYTES, journal.octets, name)
        sheet.write(JOURNAL_FILES, journal.files, name)


def _tell_exporters(sheet: Sheet, facts: Facts) -> None:
    stored = facts.stored.get()
    sheet.write(DATABASE_UP, stored is not None)
    if stored is None:
        return
    for name, known in stored.exporters_known.items():
        sheet.write(EXPORTERS, known, name)
    for one in stored.exporters:
        _tell_exporter(sheet, one)
    for fault in stored.faults:
        sheet.write(FAULTS, fault.count, fault.collector, fault.exporter, fault.domain, fault.kind)


def _tell_exporter(sheet: Sheet, one: totals.ExporterTotal) -> None:
    labels = (one.collector, one.exporter, one.domain, one.protocol)
    for name, metric in _BY_EXPORTER:
        sheet.write(metric, one.counts[name], *labels)
    sheet.write(RECORDS, one.counts["data_records"], *labels, "data")
    if one.protocol in _WITH_TEMPLATES:
        for name, metric in _BY_TEMPLATES:
            sheet.write(metric, one.counts[name], *labels)
        sheet.write(RECORDS, one.counts["options_records"], *labels, "options")
        sheet.write(TEMPLATES, one.counts["templates"], *labels, "data")
        sheet.write(TEMPLATES, one.counts["options_templates"], *labels, "options")
    if one.protocol == "sflow":
        sheet.write(SAMPLES, one.counts["counter_samples"], *labels, "interface")
        sheet.write(SAMPLES, one.counts["drop_samples"], *labels, "drop")
    if one.protocol in DATAGRAM_SEQUENCES:
        sheet.write(MISSING_DATAGRAMS, one.counts["missed"], *labels)
        sheet.write(RECOVERED_DATAGRAMS, one.counts["recovered"], *labels)
    elif one.protocol in RECORD_SEQUENCES:
        sheet.write(MISSING_RECORDS, one.counts["missed"], *labels)
        sheet.write(RECOVERED_RECORDS, one.counts["recovered"], *labels)
    for metric, milliseconds in ((FIRST_SEEN, one.first), (LAST_SEEN, one.last), (SKEW, one.skew_ms)):
        if milliseconds is not None:
            sheet.write(metric, milliseconds / 1000, *labels)
