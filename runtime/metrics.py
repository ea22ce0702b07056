"""Metrics: how packages describe theirs, and the endpoint that Prometheus reads, with /healthz and /readyz.

A package's `metrics.py` declares `METRICS` and makes a contribution: a function that writes samples on a `Sheet`. It is
called when somebody scrapes and reads what is there already: shared counters, status files, SQL. Nothing is counted twice
for the sake of metrics, and what receives never waits for them. SQL is read through `Periodic`: in a thread of its own, at
most once in five seconds, so a database that hangs or is broken costs a scrape its patience and is itself a metric.

Prometheus' library is imported when it is needed: it would double the time that a command takes to start.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from core import clock
from core.errors import RatemillError
from core.periods import format_instant
from runtime import log
from runtime.settings import split_endpoint

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric as Family

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

READ_SECONDS = 5
"""Oldest that figures from SQL may be when somebody asks again."""
PATIENCE_SECONDS = 2.0
"""How long a scrape waits for SQL before it goes without."""
RETRY_SECONDS = 10.0
"""How often an endpoint whose port is in use is tried again."""
CLIENTS_MAX = 8
"""Requests that are answered at one time; more are turned away."""
CLIENT_SECONDS_MAX = 10
"""How long a client may take to say what it wants."""
LOOK_SECONDS = 0.5
"""How often an endpoint looks whether it is to stop."""

T = TypeVar("T")


# describing -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Metric:
    """A metric by the name under which it is exposed: base units, counters end in `_total`."""

    name: str
    kind: str
    what: str
    labels: tuple[str, ...] = ()


METRICS = (
    BUILD := Metric("ratemill_build_info", GAUGE, "Always 1; the labels say which version answers.", ("version", "python")),
    PART_UP := Metric("ratemill_metrics_part_up", GAUGE, "1 if this part of the metrics could be read, else 0.", ("part",)),
    FAILED_REQUESTS := Metric("ratemill_metrics_failed_requests_total", COUNTER,
                              "Requests to this endpoint that were turned away or whose client went away."),
)


class Sheet:
    """The samples of one scrape, in the order in which they were written."""

    def __init__(self) -> None:
        self._samples: dict[Metric, list[tuple[tuple[str, ...], Any]]] = {}

    def write(self, metric: Metric, value: float, *labels: str) -> None:
        """A sample of a counter or gauge; labels in the order in which the metric names them."""
        assert len(labels) == len(metric.labels), f"{metric.name} has the labels {metric.labels}"
        assert metric.kind != HISTOGRAM, "a histogram has buckets"
        self._samples.setdefault(metric, []).append((labels, float(value)))

    def write_histogram(self, metric: Metric, bounds: Sequence[float], counts: Sequence[int], total: float,
                        *labels: str) -> None:
        """`counts` are by bound, not cumulative, with one more than there are bounds; `total` is the sum of all values."""
        assert len(labels) == len(metric.labels), f"{metric.name} has the labels {metric.labels}"
        assert metric.kind == HISTOGRAM, "only a histogram has buckets"
        assert len(counts) == len(bounds) + 1, "the last count has no bound"
        buckets, below = [], 0
        for bound, count in zip((*bounds, float("inf")), counts, strict=True):
            below += count
            buckets.append(("+Inf" if bound == float("inf") else str(float(f"{bound:g}")), below))
        self._samples.setdefault(metric, []).append((labels, (buckets, float(total))))

    def families(self) -> Iterator[Family]:
        """As Prometheus' library wants them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for metric, samples in self._samples.items():
            if metric.kind == HISTOGRAM:
                family: Any = HistogramMetricFamily(metric.name, metric.what, labels=metric.labels)
                for labels, (buckets, total) in samples:
                    family.add_metric(labels, buckets, total)
            else:
                made = CounterMetricFamily if metric.kind == COUNTER else GaugeMetricFamily
                family = made(metric.name, metric.what, labels=metric.labels)
                for labels, value in samples:
                    family.add_metric(labels, value)
            yield family


Contribution = Callable[[Sheet], None]
Check = Callable[[], list[str]]
"""What is wrong now, one sentence each; nothing if all is well."""


@dataclass(frozen=True)
class Parts:
    """What one endpoint tells: contributions by name, and checks of health and of readiness."""

    contributions: Mapping[str, Contribution]
    health: Sequence[Check] = ()
    readiness: Sequence[Check] = ()


# reading --------------------------------------------------------------------------------------------------------------
class Periodic(Generic[T]):
    """What is slow to read: read again in a thread when somebody asks and it is old; nobody waits for it for long."""

    def __init__(self, name: str, read: Callable[[], T], seconds: float = READ_SECONDS,
                 patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._name, self._read = name, read
        self._every_ns, self._patience = int(seconds * 1e9), patience_seconds
        self._lock = threading.Lock()
        self._done: threading.Event | None = None
        self._read_ns: int | None = None
        self._value: T | None = None
        self._complaint = ""

    def get(self) -> T | None:
        """The newest value; None if the last reading failed, or if there is none in time."""
        with self._lock:
            done = self._done
            if done is None and (self._read_ns is None or clock.monotonic_ns() - self._read_ns >= self._every_ns):
                done = self._done = threading.Event()
                threading.Thread(target=self._work, args=(done,), name=f"metrics {self._name}", daemon=True).start()
        if done is not None and not done.wait(self._patience):
            return None
        with self._lock:
            return self._value

    def _work(self, done: threading.Event) -> None:
        value, complaint = None, ""
        try:
            value = self._read()
        except RatemillError as error:
            complaint = error.message
        except Exception as error:  # in a thread nobody would see it; here it is a line in the log and a metric
            complaint = f"{type(error).__name__}: {error}"
        with self._lock:
            self._value, self._read_ns, self._done = value, clock.monotonic_ns(), None
            if complaint and complaint != self._complaint:
                log.warning("metrics", f"{self._name} can't be read", why=complaint)
            self._complaint = complaint
        done.set()


class Exposition:
    """Everything that is told in one scrape; a part that fails is left out, and says so once in the log."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._complaints: dict[str, str] = {}
        self.failed_requests = 0

    def sheet(self) -> Sheet:
        """The samples of this moment."""
        import platform
        from importlib import metadata

        sheet = Sheet()
        sheet.write(BUILD, 1, metadata.version("ratemill"), platform.python_version())
        sheet.write(FAILED_REQUESTS, self.failed_requests)
        for name, contribution in self._parts.contributions.items():
            sheet.write(PART_UP, self._take(name, contribution, sheet), name)
        return sheet

    def _take(self, name: str, contribution: Contribution, sheet: Sheet) -> int:
        complaint = ""
        try:
            contribution(sheet)
        except Exception as error:  # the other parts are told all the same
            complaint = error.message if isinstance(error, RatemillError) else f"{type(error).__name__}: {error}"
        if complaint and complaint != self._complaints.get(name):
            log.warning("metrics", f"{name} can't be told", why=complaint)
        self._complaints[name] = complaint
        return 0 if complaint else 1

    def registry(self) -> CollectorRegistry:
        """A registry of Prometheus' library that holds this and nothing else."""
        from prometheus_client import CollectorRegistry

        registry = CollectorRegistry()
        registry.register(_Scraped(self))
        return registry

    def text(self) -> str:
        """The text exposition, as `/metrics` answers to a client without wishes."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry()).decode()


class _Scraped:
    """What Prometheus' library calls a collector."""

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition

    def describe(self) -> Iterable[Family]:
        return ()  # so that registering does not scrape

    def collect(self) -> Iterable[Family]:
        return self._exposition.sheet().families()


# answering ------------------------------------------------------------------------------------------------------------
def application(parts: Parts, exposition: Exposition | None = None) -> WSGIApplication:
    """What the endpoint answers, as a WSGI application: /metrics, /healthz, /readyz."""
    from prometheus_client import make_wsgi_app

    metrics: WSGIApplication = make_wsgi_app((exposition or Exposition(parts)).registry())

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        if environ.get("REQUEST_METHOD") != "GET":
            return _plain(start_response, "405 Method Not Allowed", "only GET is answered\n")
        if path == "/metrics":
            return metrics(environ, start_response)
        if path == "/healthz":
            return _verdict(start_response, parts.health)
        if path == "/readyz":
            return _verdict(start_response, parts.readiness)
        if path == "/":
            return _plain(start_response, "200 OK", "ratemill: /metrics /healthz /readyz\n")
        return _plain(start_response, "404 Not Found", "there are /metrics, /healthz and /readyz\n")

    return answer


def verdict(checks: Sequence[Check]) -> dict[str, Any]:
    """One object: `ok`, and the reasons why not."""
    reasons: list[str] = []
    for check in checks:
        try:
            reasons += check()
        except Exception as error:  # a check that can't be made is a reason as good as any
            reasons.append(error.message if isinstance(error, RatemillError) else f"{type(error).__name__}: {error}")
    return {"ok": not reasons, "reasons": reasons, "at": format_instant(clock.now_ms())}


def _verdict(start_response: StartResponse, checks: Sequence[Check]) -> Iterable[bytes]:
    found = verdict(checks)
    body = (json.dumps(found, ensure_ascii=False) + "\n").encode()
    return _respond(start_response, "200 OK" if found["ok"] else "503 Service Unavailable", "application/json", body)


def _plain(start_response: StartResponse, status: str, text: str) -> Iterable[bytes]:
    return _respond(start_response, status, "text/plain; charset=utf-8", text.encode())


def _respond(start_response: StartResponse, status: str, kind: str, body: bytes) -> Iterable[bytes]:
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")])
    return [body]


# serving --------------------------------------------------------------------------------------------------------------
class _Handler(WSGIRequestHandler):
    timeout = CLIENT_SECONDS_MAX

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape is nothing to write down."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = CLIENTS_MAX

    def __init__(self, address: tuple[str, int], exposition: Exposition) -> None:
        import socket

        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._places = threading.BoundedSemaphore(CLIENTS_MAX)
        self._exposition = exposition
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """As the standard library does it, without asking DNS for our own name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self._exposition.failed_requests += 1
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or took too long: counted."""
        self._exposition.failed_requests += 1


@dataclass
class Endpoint:
    """The endpoint, in a thread that ends with the process. A port in use is tried again until it is free."""

    listen: str
    parts: Parts
    _ending: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> Endpoint:
        """Begin to answer as soon as the address can be had; says in the log if it can't."""
        self._thread = threading.Thread(target=self._run, name="metrics endpoint", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Answer nobody any more."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()

    def wait(self) -> None:
        """Until it is stopped."""
        self._ending.wait()

    def _run(self) -> None:
        exposition = Exposition(self.parts)
        server = self._bound(exposition)
        if server is None:
            return
        with server:
            server.set_app(application(self.parts, exposition))
            log.info("metrics", "listening", address=self.listen)
            server.timeout = LOOK_SECONDS
            while not self._ending.is_set():
                server.handle_request()

    def _bound(self, exposition: Exposition) -> _Server | None:
        complained = False
        while not self._ending.is_set():
            try:
                return _Server(split_endpoint(self.listen), exposition)
            except OSError as error:
                if not complained:
                    log.error("metrics", f"{self.listen} can't be listened on: {error.strerror or error}",
                              hint="set [metrics] listen to another port, or to \"\" for none; everything else goes on",
                              again_in_seconds=int(RETRY_SECONDS))
                complained = True
                self._ending.wait(RETRY_SECONDS)
        return None
