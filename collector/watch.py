"""What `collect status --watch` shows: one look at the collectors of a home, and the rates since the look before.

A look asks the same sources as the metrics. Rates of the receiver and of decoding are between two looks; those of an exporter
are between the last datagrams of two commits, since its figures change with a commit only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from collector import counters as places_of
from collector import totals
from collector.counters import Places
from collector.lag import Lag
from collector.metrics import DATAGRAM_SEQUENCES, RECORD_SEQUENCES, Facts
from collector.settings import from_document
from core import clock
from core.periods import format_instant
from storage.home import Home

Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class ListenerView:
    address: str
    received: int
    kernel_drops: int
    buffer: int
    """Octets of receive buffer granted, as the kernel counts them."""
    queued: int


@dataclass(frozen=True, slots=True)
class CollectorView:
    """A collector at this moment; rates are None at the first look."""

    collector: str
    state: str
    running: bool
    pid: int
    trouble: str
    listeners: list[ListenerView]
    received: int
    durable: int
    decoded: int
    flows: int
    kernel_drops: int
    refused: int
    lost: int
    not_durable: int
    """Datagrams received that are not on the disk yet."""
    lag_datagrams: int | None
    lag_blocks: int | None
    lag_seconds: float | None
    journal_octets: int | None
    received_per_second: float | None
    octets_per_second: float | None
    flows_per_second: float | None
    kernel_drops_per_second: float | None


@dataclass(frozen=True, slots=True)
class ExporterView:
    """An exporter and domain as of the last commit; rates are None until a second commit tells of it."""

    collector: str
    exporter: str
    domain: str
    protocol: str
    received: int
    missing: int
    """In the protocol's own unit: records for v5, v7 and IPFIX, else datagrams."""
    missing_percent: float | None
    loses: bool
    """Whether more is missing than at the look before."""
    duplicate: int
    waiting: int
    faulted: int
    last: int | None
    datagrams_per_second: float | None
    flows_per_second: float | None


@dataclass(frozen=True, slots=True)
class View:
    """Everything at one moment; exporters with the highest rate first."""

    at: int
    seconds: float | None
    """Since the look before."""
    collectors: list[CollectorView]
    exporters: list[ExporterView] | None
    """None: the database could not be read."""
    disk_free: int | None
    disk_size: int | None

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        found = asdict(self)
        for exporter in found["exporters"] or []:
            exporter["last"] = None if exporter["last"] is None else format_instant(exporter["last"])
        return {**_rounded(found), "at": format_instant(self.at)}


def _rounded(value: Any) -> Any:
    """Rates and shares to three decimals."""
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 3) if isinstance(value, float) else value


@dataclass(frozen=True, slots=True)
class _Heard:
    """An exporter at the last commit that told of it, and its rates then."""

    received: int
    flows: int
    missing: int
    last: int
    loses: bool = False
    datagrams_per_second: float | None = None
    flows_per_second: float | None = None


_NEVER = _Heard(0, 0, 0, 0)


class Watch:
    """Looks again and again; remembers the last look for the rates."""

    def __init__(self, home: Home) -> None:
        self._facts = Facts(home, disk_seconds=0)
        self._silent_ms = (2 * from_document(home.document).collector.segment_seconds + 10) * 1000
        """An exporter that was not heard for two commits and some sends nothing now."""
        self._before: dict[str, Places] = {}
        self._looked_ns: int | None = None
        self._heard: dict[Key, _Heard] | None = None

    def look(self) -> View:
        now = clock.monotonic_ns()
        seconds = None if self._looked_ns is None else max(1e-3, (now - self._looked_ns) / 1e9)
        self._looked_ns = now
        disk, stored = self._facts.disk.get(), self._facts.stored.get()
        collectors = []
        for told in self._facts.statuses():
            name = str(told["collector"])
            lag = None if disk is None else disk.lags.get(name)
            journal = None if disk is None else disk.journals.get(name)
            collectors.append(self._collector(told, lag, None if journal is None else journal.octets, seconds))
        return View(clock.now_ms(), seconds, collectors, None if stored is None else self._exporters(stored.exporters),
                    None if disk is None else disk.free, None if disk is None else disk.size)

    def _collector(self, told: dict[str, Any], lag: Lag | None, journal: int | None, seconds: float | None) -> CollectorView:
        name = str(told["collector"])
        places, before = self._facts.places(name), self._before.get(name)
        self._before[name] = places

        def rate(*at: int) -> float | None:
            if before is None or seconds is None:
                return None
            return max(0, sum(int(places[place] - before[place]) for place in at)) / seconds

        workers = [places_of.worker_at(number) + places_of.WORKER_FLOWS for number in range(places_of.WORKERS_MAX)]
        figures = places_of.figures_of(places)
        return CollectorView(
            name, told["state"], bool(told["running"]), int(told["pid"]), str(told["trouble"]),
            _listeners(told["listeners"], places), figures.received, figures.durable, figures.decoded, figures.flows,
            figures.kernel_drops, figures.refused, figures.lost,
            max(0, figures.received - figures.durable - figures.refused - figures.lost),
            None if lag is None else lag.datagrams, None if lag is None else lag.blocks, None if lag is None else lag.seconds,
            journal, rate(places_of.RECEIVED), rate(places_of.OCTETS), rate(*workers), rate(places_of.KERNEL_DROPS))

    def _exporters(self, rows: Sequence[totals.ExporterTotal]) -> list[ExporterView]:
        views, heard = [], {}
        for row in rows:
            key = (row.collector, row.exporter, row.domain, row.protocol)
            heard[key] = self._hear(row, None if self._heard is None else self._heard.get(key, _NEVER))
            views.append(_exporter(row, heard[key]))
        self._heard = heard
        return sorted(views, key=_busiest)


    def _hear(self, row: totals.ExporterTotal, before: _Heard | None) -> _Heard:
        """`before` is None at the first look, _NEVER for an exporter that is new since."""
        counts = row.counts
        last = row.last if row.last is not None else clock.now_ms()
        datagrams, flows = (None, None) if before is None else (before.datagrams_per_second, before.flows_per_second)
        loses = before is not None and counts["missing"] > before.missing
        if clock.now_ms() - last > self._silent_ms:
            datagrams = flows = 0.0
        elif before is not None and counts["received"] > before.received:
            since = before.last if before is not _NEVER else last if row.first is None else row.first
            seconds = max(1.0, (last - since) / 1000)
            datagrams, flows = (counts["received"] - before.received) / seconds, (counts["flows"] - before.flows) / seconds
        return _Heard(counts["received"], counts["flows"], counts["missing"], last, loses, datagrams, flows)


def _listeners(told: Sequence[dict[str, Any]], places: Places) -> list[ListenerView]:
    found = []
    for number, one in enumerate(told[: places_of.LISTENERS_MAX]):
        at = places_of.listener_at(number)
        received, drops, buffer, queued = (int(places[at + offset]) for offset in (
            places_of.LISTENER_RECEIVED, places_of.LISTENER_DROPS, places_of.LISTENER_BUFFER, places_of.LISTENER_QUEUED))
        found.append(ListenerView(str(one["address"]), received, drops, buffer, queued))
    return found


def _exporter(row: totals.ExporterTotal, heard: _Heard) -> ExporterView:
    counts = row.counts
    return ExporterView(
        row.collector, row.exporter, row.domain, row.protocol, counts["received"], counts["missing"], missing_percent(row),
        heard.loses, counts["duplicate"], counts["waiting"], counts["faulted"], row.last, heard.datagrams_per_second,
        heard.flows_per_second)


def _busiest(view: ExporterView) -> tuple[Any, ...]:
    return -(view.datagrams_per_second or 0), -(view.last or 0), view.exporter, view.domain


def missing_percent(row: totals.ExporterTotal) -> float | None:
    """Share of what was sent that is missing by sequence number, in the protocol's own unit; None where there is none."""
    if row.protocol in DATAGRAM_SEQUENCES:
        came = row.counts["received"] - row.counts["duplicate"]
    elif row.protocol in RECORD_SEQUENCES:
        came = row.counts["data_records"] + (row.counts["options_records"] if row.protocol == "ipfix" else 0)
    else:
        return None
    sent = came + row.counts["missing"]
    return 100 * row.counts["missing"] / sent if sent else 0.0
