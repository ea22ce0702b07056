"""A real Prometheus scrapes a running home: every query of the dashboard and every rule is asked for its answer."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dashboards
import pytest
from exports import BASIC, basic, framed, ipfix, template
from harness import ROOT, run_cli

from monitoring.metrics import declared
from runtime.metrics import HISTOGRAM

PATIENCE_SECONDS = 400
WINDOWS = {"collector": ".*", "exporter": ".*", "__rate_interval": "2m"}

pytestmark = pytest.mark.skipif(not Path("/usr/bin/prometheus").exists() and not shutil.which("prometheus"),
                                reason="prometheus is not installed here (Debian package prometheus)")


def free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(what: str, condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.3)


def get(url: str) -> tuple[int, str]:
    """Status and body; (0, '') if nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


class Prometheus:
    """The API of a Prometheus that runs here."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **parameters: str) -> Any:
        status, text = get(f"{self.base}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        assert status == 200, f"{parameters or path}: {status} {text}"
        answer = json.loads(text)
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, query: str) -> list[float]:
        """What a query gives now, of each series; NaN is no figure."""
        found = self.ask("query", query=query)["result"]
        numbers = [float(one["value"][1]) for one in found]
        return [number for number in numbers if not math.isnan(number)]


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[Prometheus]:
    port = free_port(socket.SOCK_STREAM)
    folder.mkdir()
    shutil.copy(dashboards.RULES, folder / "rules.yml")
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
        "rule_files: [rules.yml]\n"
        f"scrape_configs: [{{job_name: ratemill, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n")
    command = [shutil.which("prometheus") or "/usr/bin/prometheus", f"--config.file={folder / 'prometheus.yml'}",
               f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        wait_for("Prometheus is ready", lambda: get(f"http://127.0.0.1:{port}/-/ready")[0] == 200)
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(60)


class Home:
    """`ratemill run` on a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        run_cli("init", home=folder)
        self.port, self.metrics = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
        (folder / "ratemill.toml").write_text(
            f'[collector]\nlisten = ["127.0.0.1:{self.port}"]\nsegment_seconds = 1\nwaiting_seconds_max = 2\n'
            f'[metrics]\nlisten = "127.0.0.1:{self.metrics}"\n[run]\nstop_seconds_max = 120\n')
        self.log = folder / "log"
        command = [sys.executable, "-m", "cli", "--home", str(folder), "run"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=dict(os.environ))
        wait_for("the collector listens", lambda: get(self.url("/readyz"))[0] == 200)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.metrics}{path}"

    def send(self, seed: int) -> None:
        """Four exporters with losses and copies, one that sends nonsense, one whose template comes late, one's never."""
        for number, protocol in enumerate(("v5", "v9", "ipfix", "sflow"), start=2):
            run_cli("collect", "send", "--to", f"127.0.0.1:{self.port}", "--protocol", protocol, "--flows", "1500",
                    "--loss", "0.1", "--duplicate", "0.1", "--reorder", "0.05", "--seed", str(seed),
                    "--source", f"127.0.0.{number}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.9", 0))
            early, late, never = framed(256, basic()), framed(2, template(256, BASIC)), framed(999, basic())
            for payload in (b"nonsense", ipfix(early, sequence=0), ipfix(late, sequence=1), ipfix(never, sequence=1)):
                sender.sendto(payload, ("127.0.0.1", self.port))

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(PATIENCE_SECONDS) == 0, self.log.read_text()
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    one = Home(tmp_path / "home")
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.stop()


@pytest.mark.timeout(3 * PATIENCE_SECONDS)
def test_every_query_and_every_rule_has_its_answer(tmp_path: Path, home: Home) -> None:
    open_queries = dashboards.queries(WINDOWS)
    with prometheus(tmp_path / "prometheus", home.metrics) as asked:
        seed = 0

        def answered() -> bool:
            nonlocal seed
            seed += 1
            home.send(seed)
            for title in [title for title, query in open_queries.items() if asked.values(query)]:
                del open_queries[title]
            return not open_queries

        wait_for("every panel has figures", answered)
        _every_metric_is_scraped(asked)
        _every_rule_is_evaluated(asked)
        _losses_are_shares_of_what_was_sent(asked, home)
        _every_variable_has_values(asked)
        _figures_are_those_of_the_home(asked, home)
        _health_follows_the_receiver(home)
        text = get(home.url("/metrics"))[1]
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
        home.stop()
        wait_for("Prometheus sees the end", lambda: asked.values('up{job="ratemill"} == 0'))


def _every_metric_is_scraped(asked: Prometheus) -> None:
    found = [metric for module in declared().values() for metric in module]
    histograms = {metric.name for metric in found if metric.kind == HISTOGRAM}
    wanted = {metric.name for metric in found if metric.kind != HISTOGRAM}
    wanted |= {name + end for name in histograms for end in ("_bucket", "_count", "_sum")}

    def missing() -> set[str]:
        return wanted - set(asked.ask("label/__name__/values"))

    wait_for("every metric of the reference is exposed", lambda: not missing())
    named = {name for name in asked.ask("label/__name__/values") if name.startswith("ratemill_")}
    assert named - wanted == set(), "and no other"


def _every_rule_is_evaluated(asked: Prometheus) -> None:
    rules = [rule for group in asked.ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(re.findall(r"- (alert|record):", dashboards.RULES.read_text()))
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    for rule in rules:
        asked.values(rule["query"])
        for metric in dashboards.METRIC.findall(rule["query"]):
            assert asked.values(f"count({metric})"), f"{rule['name']} asks for {metric}"


def _losses_are_shares_of_what_was_sent(asked: Prometheus, home: Home) -> None:
    """Each exporter loses a tenth of its datagrams, whatever its sequence numbers count."""
    seed = 1000

    def shares() -> list[float]:
        nonlocal seed
        seed += 1
        home.send(seed)
        query = 'ratemill:exporter_missing:ratio_rate5m{exporter=~"127.0.0.[2345]"} > 0.01 < 0.3'
        return asked.values(query)

    wait_for("all four exporters are seen to lose", lambda: len(shares()) == 4)


def _every_variable_has_values(asked: Prometheus) -> None:
    for variable in dashboards.dashboard()["templating"]["list"]:
        match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert match is not None, variable
        found = asked.ask(f"label/{match[2]}/values", **{"match[]": dashboards.filled(match[1], WINDOWS)})
        assert found, variable["name"]


def _figures_are_those_of_the_home(asked: Prometheus, home: Home) -> None:
    """What Prometheus knows of exporters is what the commands say, once the last datagrams are committed."""
    compared: list[tuple[str, list[float], float]] = []

    def alike() -> bool:
        listed = [json.loads(line) for line in run_cli("exporters", "list", home=home.folder).stdout.splitlines()]
        assert {row["exporter"] for row in listed} == {f"127.0.0.{number}" for number in (2, 3, 4, 5, 9)}
        compared[:] = [(query, asked.values(query), wanted) for row in listed for query, wanted in _expected(row).items()]
        return all(found == [wanted] for _, found, wanted in compared)

    try:
        wait_for("Prometheus knows what the commands say", alike)
    except AssertionError:
        assert [one for one in compared if one[1] != [one[2]]] == []
        raise


def _expected(row: dict[str, Any]) -> dict[str, float]:
    """Query → the figure that it has to give, of one row of `exporters list`."""
    labels = f'exporter="{row["exporter"]}",domain="{row["domain"]}",protocol="{row["protocol"]}"'
    unit = "datagrams" if row["protocol"] in ("v9", "sflow") else "records"
    queries = {
        f"ratemill_collector_exporter_received_datagrams_total{{{labels}}}": row["received"],
        f"ratemill_collector_exporter_duplicate_datagrams_total{{{labels}}}": row["duplicate"],
        f"ratemill_collector_exporter_faulted_datagrams_total{{{labels}}}": row["faulted"],
    }
    if row["protocol"] != "unknown":
        queries[f"ratemill_collector_exporter_missing_{unit}_total{{{labels}}} "
                f"- ratemill_collector_exporter_recovered_{unit}_total{{{labels}}}"] = row["missing"]
    return queries


def _health_follows_the_receiver(home: Home) -> None:
    """A receiver that dies is named, and when the supervisor has started it again all is well."""
    status, text = get(home.url("/healthz"))
    assert (status, json.loads(text)["reasons"]) == (200, [])
    told = json.loads((home.folder / "run" / "collector-main.json").read_text())
    os.kill(told["receiver_pid"], signal.SIGKILL)
    wait_for("/healthz fails", lambda: get(home.url("/healthz"))[0] == 503)
    wait_for("/healthz is well again", lambda: get(home.url("/healthz"))[0] == 200)
    again = json.loads((home.folder / "run" / "collector-main.json").read_text())
    assert again["receiver_pid"] != told["receiver_pid"]
