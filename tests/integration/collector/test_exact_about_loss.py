"""What was sent = what became flows + what is missing, to the last record or datagram, whatever happens on the way."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from exact_streams import Collector, Stream, collecting, exporters, free_port, intake, make_home, wait_until
from harness import rows, run_cli

PROTOCOLS = ("v5", "ipfix", "v9", "sflow")
BY_RECORDS = ("v5", "ipfix")
FLOWS = 40_000
SMALL = 65_536


def _drained(one: Collector, sent: int) -> None:
    """Everything that went out was received or dropped, and the receiver has looked at the drops."""
    wait_until(lambda: one.figures().received + one.figures().kernel_drops == sent, "all accounted for")


def _overload(one: Collector, stream: Stream) -> int:
    """Bursts into a receiver that stands still, a flood into one that works, and pieces that arrive; returns what was sent."""
    port = one.ports[0]
    sent = stream.send(100, port, one.received)
    for _ in range(3):
        with one.held_up():
            sent += stream.send(200, port)
        _drained(one, sent)
        sent += stream.send(50, port, one.received)
    sent += stream.send(stream.left - 20, port)  # as fast as it goes
    _drained(one, sent)
    return sent + stream.send(stream.left, port, one.received)  # the last ones arrive: what is behind them nobody can miss


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_overload_is_missing_to_the_last_record_and_the_kernels_drops_explain_it(protocol: str, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", socket_buffer=SMALL)
    stream = Stream(protocol, FLOWS, 7, loss=0.03)
    with collecting(home) as one:
        sent = _overload(one, stream)
        assert one.stop() == 0
    told = stream.manifest
    figures = one.figures()
    assert sent == told.datagrams == figures.received + figures.kernel_drops
    assert figures.received == figures.durable == figures.decoded
    assert (figures.refused, figures.lost, figures.truncated) == (0, 0, 0)
    assert figures.kernel_drops > 200, "the kernel really dropped some"
    row = exporters(home)[stream.source]
    assert (row["received"], row["duplicate"], row["reordered"], row["restarts"]) == (figures.received, 0, 0, 0)
    flows, = intake(home, "flow_records")
    behind = stream.unknowable()
    made = told.records + told.lost_records - stream.records(behind)
    lost = told.lost_datagrams - len(behind)
    each = max(told.sizes, key=lambda size: told.sizes[size])  # full datagrams; the smaller ones came at the end
    if protocol in BY_RECORDS:
        assert made == flows + row["missing"]
        assert row["missing"] == each * figures.kernel_drops + told.lost_records - stream.records(behind)
    else:
        assert told.datagrams + lost == row["received"] + row["missing"]
        assert row["missing"] == figures.kernel_drops + lost
        assert made - flows == each * row["missing"]
    listener, = rows(run_cli("collect", "status", home=home.path))[0]["collectors"][0]["listeners"]
    assert (listener["received"], listener["kernel_drops"]) == (figures.received, figures.kernel_drops)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_copies_and_late_ones_under_overload_change_no_sum(protocol: str, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", socket_buffer=SMALL)
    stream = Stream(protocol, FLOWS, 8, loss=0.02, duplicate=0.1, reorder=0.1)
    with collecting(home) as one:
        sent = _overload(one, stream)
        assert one.stop() == 0
    told, figures, row = stream.manifest, one.figures(), exporters(home)[stream.source]
    assert sent == figures.received + figures.kernel_drops
    assert (row["restarts"], row["faulted"]) == (0, 0)
    flows, decoded, duplicate = intake(home, "flow_records", "decoded", "duplicate")
    assert (decoded + duplicate, duplicate) == (row["received"], row["duplicate"])
    behind = stream.unknowable()
    if protocol in BY_RECORDS:
        assert told.records + told.lost_records - stream.records(behind) == flows + row["missing"]
    else:
        distinct = told.datagrams - told.duplicated_datagrams + told.lost_datagrams - len(behind)
        assert distinct == decoded + row["missing"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_restarted_exporter_is_one_restart_and_only_what_numbers_can_tell_is_missing(protocol: str, tmp_path: Path) -> None:
    """What was lost at the end of the first life, nobody can know: it is the difference between the truth and the count."""
    home = make_home(tmp_path / "home")
    before = Stream(protocol, 6000, 9, loss=0.05, reorder=0.05)
    after = Stream(protocol, 6000, 9, boot_ms_ago=150_000, loss=0.05, reorder=0.05)
    with collecting(home) as one:
        before.send(before.left - 4, one.ports[0], one.received)
        unknown = before.skip(4)
        after.send(after.left, one.ports[0], one.received)
        assert one.stop() == 0
    row = exporters(home)[before.source]
    assert row["restarts"] == 1
    flows, = intake(home, "flow_records")
    lost = before.manifest.lost_records + after.manifest.lost_records + before.records(unknown)
    assert before.manifest.records + after.manifest.records - before.records(unknown) == flows
    known = before.delivery.order[:-4]
    gone = [n for n in range(len(before.datagrams)) if n not in set(known.tolist())]
    tail = [n for n in gone if n > known.max()]
    if protocol in BY_RECORDS:
        assert row["missing"] == lost - int(before.datagrams.records[tail].sum())
    else:
        assert row["missing"] == len(gone) - len(tail) + after.manifest.lost_datagrams


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_came_while_the_collector_was_down_is_missing_and_what_a_kill_lost_has_a_name(protocol: str,
                                                                                           tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", journal_sync_ms=10_000)  # so that something is in memory when it is killed
    listen = f"127.0.0.1:{free_port()}"
    stream = Stream(protocol, 9000, 10)
    with collecting(home, listen) as one:  # ended by SIGTERM
        arrived = stream.send(60, one.ports[0], one.received)
    missed = [stream.skip(20)]
    with collecting(home, listen) as one:  # killed
        before = one.figures()
        assert before.received == before.durable == arrived, "what SIGTERM ended is all on the disk"
        held = stream.send(40, one.ports[0], one.received)
        arrived += held
        one.kill()
    missed.append(stream.skip(15))
    with collecting(home, listen) as one:
        arrived += stream.send(stream.left, one.ports[0], one.received)
        assert one.stop() == 0
    figures, row = one.figures(), exporters(home)[stream.source]
    down = sum(len(indexes) for indexes in missed)
    assert figures.received == arrived == len(stream.datagrams) - down
    assert figures.received == figures.durable + figures.lost
    assert figures.durable == figures.decoded
    assert figures.lost == held, "nothing of it was synced yet"
    flows, datagrams, refused = intake(home, "flow_records", "datagrams", "refused")
    assert (datagrams, refused) == (figures.received, figures.lost)
    assert (row["received"], row["restarts"], row["reordered"]) == (figures.durable, 0, 0)
    if protocol in BY_RECORDS:
        assert stream.manifest.records == flows + row["missing"]
    else:
        assert row["missing"] == down + figures.lost


def test_drops_are_told_for_each_socket(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", socket_buffer=SMALL)
    streams = [Stream("v5", 12_000, number) for number in (11, 12)]
    with collecting(home, "127.0.0.1:0", "127.0.0.1:0") as one:
        sent = []
        with one.held_up():
            for stream, port in zip(streams, one.ports, strict=True):
                sent.append(stream.send(100 if stream is streams[0] else 400, port))
        _drained(one, sum(sent))
        live = rows(run_cli("collect", "status", home=home.path))[0]["collectors"][0]["listeners"]
        assert one.stop() == 0
    stopped = rows(run_cli("collect", "status", home=home.path))[0]["collectors"][0]["listeners"]
    assert [one["received"] + one["kernel_drops"] for one in stopped] == sent
    assert stopped == live
    assert all(0 < row["received"] < count for row, count in zip(stopped, sent, strict=True))


def test_a_collector_that_is_told_to_stop_ends_under_a_flood_and_what_came_too_late_is_counted(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", socket_buffer=4 << 20)
    with collecting(home) as one:
        ended = threading.Event()
        sent = [0, 0]

        def flood(number: int) -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                while not ended.is_set():  # not connected: nobody tells it that there is nobody any more
                    sender.sendto(bytes(200), ("127.0.0.1", one.ports[0]))
                    sent[number] += 1

        threads = [threading.Thread(target=flood, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: one.received() > 1000, "a flood")
            assert one.stop() == 0
        finally:
            ended.set()
            for thread in threads:
                thread.join()
    figures = one.figures()
    assert figures.received == figures.durable == figures.decoded
    assert figures.kernel_drops > 0, "what came while it ended is counted"
    assert figures.received + figures.kernel_drops <= sum(sent)
