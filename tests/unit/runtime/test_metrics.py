"""The endpoint: what it answers, and that nothing which is broken behind it breaks it."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.errors import RatemillError, SettingsError
from runtime import metrics, settings
from runtime.metrics import COUNTER, GAUGE, HISTOGRAM, Endpoint, Exposition, Metric, Parts, Periodic, Sheet

DATAGRAMS = Metric("test_datagrams_total", COUNTER, "Datagrams.", ("exporter",))
FREE = Metric("test_free_bytes", GAUGE, "Free octets.")
SECONDS = Metric("test_wait_seconds", HISTOGRAM, "How long it took.")


def tell(sheet: Sheet) -> None:
    sheet.write(DATAGRAMS, 3, 'a "quoted"\nname')
    sheet.write(DATAGRAMS, 4, "b")
    sheet.write(FREE, 2**40)
    sheet.write_histogram(SECONDS, (0.1, 1), (2, 0, 5), 7.5)


def broken(sheet: Sheet) -> None:
    raise RatemillError("the disk is gone")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@contextmanager
def serving(parts: Parts) -> Iterator[int]:
    port = free_port()
    endpoint = Endpoint(f"127.0.0.1:{port}", parts).start()
    try:
        wait_for(lambda: get_or_none(port) == 200)
        yield port
    finally:
        endpoint.stop()


def samples(text: str) -> dict[str, list[Any]]:
    return {family.name: family.samples for family in text_string_to_metric_families(text)}


def test_what_is_written_is_what_prometheus_reads() -> None:
    read = samples(Exposition(Parts({"test": tell})).text())
    assert [(one.labels, one.value) for one in read["test_datagrams"]] == [
        ({"exporter": 'a "quoted"\nname'}, 3), ({"exporter": "b"}, 4)]
    assert read["test_free_bytes"][0].value == 2**40
    buckets = {one.labels.get("le", one.name): one.value for one in read["test_wait_seconds"]}
    assert buckets == {"0.1": 2, "1.0": 2, "+Inf": 7, "test_wait_seconds_count": 7, "test_wait_seconds_sum": 7.5}
    assert read["ratemill_build_info"][0].value == 1


def test_a_part_that_fails_is_left_out_and_the_others_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    exposition = Exposition(Parts({"bad": broken, "good": tell}))
    for _ in range(3):
        read = samples(exposition.text())
        assert {one.labels["part"]: one.value for one in read["ratemill_metrics_part_up"]} == {"bad": 0, "good": 1}
        assert len(read["test_datagrams"]) == 2
    said = capsys.readouterr().err
    assert said.count("the disk is gone") == 1, "once, not at every scrape"


def test_a_read_that_hangs_costs_its_patience_and_comes_back_later() -> None:
    may_go, calls = threading.Event(), []

    def read() -> int:
        calls.append(1)
        may_go.wait(60)
        return len(calls)

    slow = Periodic("slow", read, seconds=0, patience_seconds=0.01)
    assert [slow.get(), slow.get(), slow.get()] == [None, None, None]
    assert len(calls) == 1, "it is not asked again while it hangs"
    may_go.set()
    wait_for(lambda: slow.get() is not None)


def test_a_read_is_made_once_in_its_time_whoever_asks() -> None:
    calls: list[int] = []
    often = Periodic("often", lambda: calls.append(1) or len(calls), seconds=3600, patience_seconds=60)  # type: ignore[func-returns-value]
    assert {often.get() for _ in range(50)} == {1}


def test_a_read_that_fails_gives_nothing_and_says_why_once(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes: list[Any] = [1, RatemillError("database gone"), RatemillError("database gone"), 4]

    def read() -> int:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return int(outcome)

    flaky = Periodic("the database", read, seconds=0, patience_seconds=60)
    assert [flaky.get() for _ in range(4)] == [1, None, None, 4]
    assert capsys.readouterr().err.count("database gone") == 1


def test_the_endpoint_answers_metrics_health_and_readiness() -> None:
    reasons: list[str] = []
    with serving(Parts({"test": tell}, (lambda: reasons,), (lambda: ["not yet"],))) as port:
        status, text = get(port, "/metrics")
        assert (status, "test_datagrams" in samples(text)) == (200, True)
        assert get(port, "/healthz")[0] == 200
        reasons.append("the receiver is dead")
        status, text = get(port, "/healthz")
        assert status == 503
        assert '"reasons": ["the receiver is dead"]' in text
        assert get(port, "/readyz")[0] == 503
        assert get(port, "/")[0] == 200
        assert get(port, "/etc/passwd")[0] == 404
        assert get(port, "/metrics", "POST")[0] == 405


def test_a_check_that_fails_is_a_reason() -> None:
    def check() -> list[str]:
        raise RatemillError("the status can't be read")

    assert metrics.verdict([check, list])["reasons"] == ["the status can't be read"]


def test_openmetrics_is_spoken_to_those_who_ask_for_it() -> None:
    with serving(Parts({"test": tell})) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0",
                                                       "Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        assert "openmetrics" in str(answer.getheader("Content-Type"))
        assert answer.getheader("Content-Encoding") == "gzip"
        answer.read()
        connection.close()


def test_clients_that_say_nothing_do_not_keep_others_out_for_good() -> None:
    with serving(Parts({"test": tell})) as port:
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(3 * metrics.CLIENTS_MAX)]
        try:
            wait_for(lambda: _is_turned_away(port))
        finally:
            for one in idle:
                one.close()
        wait_for(lambda: get_or_none(port) == 200)
        text = get(port, "/metrics")[1]
        assert samples(text)["ratemill_metrics_failed_requests"][0].value > 0


def _is_turned_away(port: int) -> bool:
    return get_or_none(port) is None


def get_or_none(port: int) -> int | None:
    try:
        return get(port, "/")[0]
    except (OSError, http.client.HTTPException):
        return None


def test_a_port_in_use_is_said_once_and_taken_when_it_is_free(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(metrics, "RETRY_SECONDS", 0.02)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        endpoint = Endpoint(f"127.0.0.1:{port}", Parts({"test": tell})).start()
        said: list[str] = []
        wait_for(lambda: said.append(capsys.readouterr().err) or "can't be listened on" in "".join(said))  # type: ignore[func-returns-value]
    try:
        wait_for(lambda: get_or_none(port) == 200)
        said.append(capsys.readouterr().err)
        assert "".join(said).count("can't be listened on") == 1
        assert "[metrics] listen" in "".join(said)
    finally:
        endpoint.stop()


def test_an_endpoint_that_never_got_its_port_can_be_stopped() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = Endpoint(f"127.0.0.1:{taken.getsockname()[1]}", Parts({})).start()
        endpoint.stop()


@pytest.mark.parametrize("text", ["9815", "localhost:9815", "127.0.0.1", "127.0.0.1:x", "::1:9815", "127.0.0.1:70000", "[::1]"])
def test_a_wrong_address_is_a_mistake_in_the_settings(text: str) -> None:
    with pytest.raises(SettingsError, match="ADDRESS:PORT"):
        settings.metrics_settings({"metrics": {"listen": text}})


@pytest.mark.parametrize("text", ["", "127.0.0.1:9815", "[::1]:9815", "0.0.0.0:0"])
def test_an_address_or_none_is_taken(text: str) -> None:
    assert settings.metrics_settings({"metrics": {"listen": text}}).listen == text
