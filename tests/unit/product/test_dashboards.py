"""The dashboard and the rules speak of metrics that exist, and are built as Grafana and Prometheus want them."""

from __future__ import annotations

import re
import shutil
import subprocess

import dashboards
import pytest
from harness import ROOT

from monitoring.metrics import declared
from runtime.metrics import COUNTER, HISTOGRAM

VALUES = {"collector": ".*", "exporter": ".*", "__rate_interval": "1m"}
KNOWN = {metric.name: metric for module in declared().values() for metric in module}


def series(name: str) -> str:
    """The metric that a series belongs to."""
    return re.sub(r"_(bucket|count|sum)$", "", name) if name not in KNOWN else name


def test_every_panel_can_be_drawn() -> None:
    found = list(dashboards.panels())
    assert len({panel["id"] for panel in found}) == len(found)
    for panel in found:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}, panel["title"]
        place = panel["gridPos"]
        assert 0 <= place["x"] <= 24 - place["w"], panel["title"]
        if panel["type"] == "row":
            continue
        assert panel["targets"], panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)
        assert all(target["expr"] and target["datasource"] == panel["datasource"] for target in panel["targets"])


def test_no_two_panels_lie_on_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboards.dashboard()["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


def test_the_dashboard_can_be_imported() -> None:
    board = dashboards.dashboard()
    assert board["uid"] == "ratemill-collector"
    assert board["id"] is None, "an id is the database's that it was exported from"
    assert [(one["name"], one["type"], one["pluginId"]) for one in board["__inputs"]] == [
        ("DS_PROMETHEUS", "datasource", "prometheus")]
    assert [variable["name"] for variable in board["templating"]["list"]] == ["collector", "exporter"]
    assert [panel["title"] for panel in board["panels"] if panel["type"] == "row"] == [
        "Overview", "Loss", "Decoding", "Exporters", "Disk"]
    used = {panel["type"] for panel in dashboards.panels()} - {"row"}
    assert used == {one["id"] for one in board["__requires"] if one["type"] == "panel"}


def test_dashboard_and_rules_name_metrics_that_exist() -> None:
    text = dashboards.DASHBOARD.read_text() + dashboards.RULES.read_text()
    named = {series(name) for name in dashboards.METRIC.findall(text)}
    assert named - set(KNOWN) == set()


def test_counters_are_seen_as_rates_only() -> None:
    """A counter's own value says nothing: it began somewhere."""
    shown = {"Restarts and unreadable datagrams A", "Restarts and unreadable datagrams B"}
    for title, query in dashboards.queries(VALUES).items():
        for match in dashboards.METRIC.finditer(query):
            metric = KNOWN[series(match[0])]
            if metric.kind in (COUNTER, HISTOGRAM) and title not in shown:
                assert re.search(r"(rate|increase)\($", query[: match.start()]), f"{title}: {match[0]}"
            elif metric.kind not in (COUNTER, HISTOGRAM):
                assert not re.search(r"(rate|increase)\($", query[: match.start()]), f"{title}: {match[0]}"


def test_the_rules_are_well_formed_and_fire_when_they_should() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed here (Debian package prometheus)")
    subprocess.run([promtool, "check", "rules", dashboards.RULES], check=True, capture_output=True)
    tests = ROOT / "tests" / "alerts.yml"
    done = subprocess.run([promtool, "test", "rules", tests], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    fired = set(re.findall(r"alertname: (\w+)", tests.read_text()))
    assert fired == set(re.findall(r"alert: (\w+)", dashboards.RULES.read_text())), "each alert has its test"


def test_every_alert_says_what_to_do() -> None:
    text = dashboards.RULES.read_text()
    for block in re.split(r"\n      - alert: ", text)[1:]:
        assert "summary:" in block, block
        assert "description:" in block, block
        assert re.search(r"severity: (warning|critical)", block), block
