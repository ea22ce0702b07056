"""The receiver at its limits (a full disk, a full buffer) and the worker that is killed at any moment."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import packets
import pytest
import sqlalchemy as sa
from packets import Flow

from collector import counters, worker
from collector.receiver import Receiver, buffer_advice, open_listeners, parse_listen, read_drops
from collector.segments import read_segment, to_columns
from core import tables
from core.addresses import IPV4_MAPPED, format_address
from core.errors import RatemillError
from storage import files, sql
from storage.home import Home
from storage.journal import HEADER_SIZE, BlockHead, JournalReader, JournalWriter

KILLS = 60 if os.environ.get("RATEMILL_NIGHTLY") else 15
SEED = int(os.environ.get("RATEMILL_SEED", "20261102"))


def _home(folder: Path) -> Home:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ratemill.toml").write_text("")
    home = Home(folder)
    home.create()
    return home


def _run(receiver: Receiver, work: object) -> RatemillError | None:
    """Run a receiver in a thread while `work` happens; returns why it failed."""
    failure: list[RatemillError] = []

    def run() -> None:
        try:
            receiver.run()
        except RatemillError as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        work()  # type: ignore[operator]
    finally:
        receiver.stop()
        thread.join()
    return failure[0] if failure else None


def _wait(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def test_datagrams_of_every_size_lie_in_the_journal_with_their_addresses(tmp_path: Path) -> None:
    home = _home(tmp_path)
    listeners = open_listeners([parse_listen("127.0.0.1:0"), parse_listen("[::1]:0")], 1 << 22)
    receiver = Receiver(home, "main", listeners, sync_ms=20)
    rng = random.Random(2)
    sent: list[tuple[str, bytes]] = []

    def work() -> None:
        for number in range(700):
            six = number % 3 == 0
            size = rng.choice([0, 1, 7, 8, 9, 1400, 9000, 65507 if not six else 60_000])
            source, listener = ("::1", listeners[1]) if six else (f"127.0.0.{number % 200 + 1}", listeners[0])
            with socket.socket(listener.socket.family, socket.SOCK_DGRAM) as sender:
                sender.bind((source, 0))
                sender.sendto(payload := rng.randbytes(size), listener.socket.getsockname()[:2])
            sent.append((source, payload))
            _wait(lambda: counters.figures(home, "main").received >= len(sent) - 20)
        _wait(lambda: counters.figures(home, "main").received == len(sent))

    assert _run(receiver, work) is None
    found, heads = [], []
    for block in JournalReader(home.folder("journal"), "main").blocks():
        heads.append(block.head)
        body, at = block.body.tobytes(), 0
        while at < len(body):
            length, listener_number = (int.from_bytes(body[at + p : at + p + 4], "little") for p in (8, 20))
            source = format_address(body[at + 24 : at + 40])
            port = int.from_bytes(body[at + 14 : at + 16], "little")
            assert port == listeners[listener_number].address.port
            assert body[at + 17] == (4 if body[at + 24 : at + 36] == IPV4_MAPPED else 6)
            found.append((source, body[at + 56 : at + 56 + length]))
            at += (56 + length + 7) // 8 * 8
    assert sorted(found) == sorted(sent)
    assert sum(head.datagrams for head in heads) == counters.figures(home, "main").durable == len(sent)
    assert [head.number for head in heads] == list(range(len(heads)))
    for listener in listeners:
        listener.socket.close()


def test_what_the_kernel_drops_is_counted_and_in_the_blocks(tmp_path: Path) -> None:
    home = _home(tmp_path)
    (listener,) = open_listeners([parse_listen("127.0.0.1:0")], 1 << 16)
    receiver = Receiver(home, "main", [listener], sync_ms=20)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(500):
            sender.sendto(bytes(1400), ("127.0.0.1", listener.address.port))
    dropped = read_drops([listener])
    assert dropped > 0
    assert _run(receiver, lambda: _wait(lambda: counters.figures(home, "main").durable == 500 - dropped)) is None
    assert counters.figures(home, "main").kernel_drops == dropped
    assert counters.figures(home, "main").received == 500 - dropped
    assert next(JournalReader(home.folder("journal"), "main").blocks()).head.kernel_drops in (0, dropped)
    listener.socket.close()


def test_a_small_buffer_is_named_with_the_sysctl_that_caps_it() -> None:
    (listener,) = open_listeners([parse_listen("127.0.0.1:0")], 1 << 20)
    assert buffer_advice([listener], 1 << 20) == ""
    assert "sysctl -w net.core.rmem_max=1073741824" in buffer_advice([listener], 1 << 30)
    listener.socket.close()


class _FullDisk(files.SystemFileSystem):
    def __init__(self) -> None:
        self.is_full = False

    def write(self, descriptor: int, data: files.Buffer) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(descriptor, data)


@pytest.fixture
def disk() -> object:
    full = _FullDisk()
    before = files.use(full)
    yield full
    files.use(before)


def test_a_disk_that_fills_up_and_is_freed_costs_nothing(tmp_path: Path, disk: _FullDisk,
                                                         capfd: pytest.CaptureFixture[str]) -> None:
    home = _home(tmp_path)
    (listener,) = open_listeners([parse_listen("127.0.0.1:0")], 1 << 22)
    receiver = Receiver(home, "main", [listener], sync_ms=20)

    def work() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(90):
                disk.is_full = 30 <= number < 60
                sender.sendto(b"x", ("127.0.0.1", listener.address.port))
                time.sleep(0.005)
        _wait(lambda: counters.figures(home, "main").durable == 90)

    assert _run(receiver, work) is None
    assert (counters.figures(home, "main").refused, counters.figures(home, "main").lost) == (0, 0)
    said = capfd.readouterr().err
    assert said.count("the disk is full") == 1
    assert "can be written again" in said
    listener.socket.close()


def test_what_a_full_disk_refuses_for_good_is_counted_and_told_to_the_next_run(tmp_path: Path, disk: _FullDisk) -> None:
    home = _home(tmp_path)
    (listener,) = open_listeners([parse_listen("127.0.0.1:0")], 1 << 22)
    address = ("127.0.0.1", listener.address.port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        receiver = Receiver(home, "main", [listener], sync_ms=20)
        disk.is_full = True
        sender.sendto(b"refused", address)
        failure = _run(receiver, lambda: _wait(lambda: counters.figures(home, "main").received == 1))
        assert failure is not None
        assert "could not be written" in failure.message
        disk.is_full = False
        listener.socket.close()  # a receiver that ended has closed its doors: what comes later is a drop
        (listener,) = open_listeners([parse_listen(f"127.0.0.1:{address[1]}")], 1 << 22)
        receiver = Receiver(home, "main", [listener], sync_ms=20)
        sender.sendto(b"taken", address)
        assert _run(receiver, lambda: _wait(lambda: counters.figures(home, "main").durable == 1)) is None
    figures = counters.figures(home, "main")
    assert (figures.received, figures.durable, figures.refused, figures.lost) == (2, 1, 1, 0)
    assert [block.head.refused for block in JournalReader(home.folder("journal"), "main").blocks()] == [1]
    assert worker.decode_available(home, "main") == 1
    with sql.reading(sql.engine(home)) as connection:
        sums = connection.execute(sa.select(sa.func.sum(tables.intake.c.datagrams), sa.func.sum(tables.intake.c.refused))).one()
    assert tuple(sums) == (2, 1)
    listener.socket.close()


# the worker -----------------------------------------------------------------------------------------------------------
def _journal(home: Home, blocks: int, seed: int = 1) -> None:
    """Blocks of v5 and IPFIX whose template comes late, some datagrams twice, one block with datagrams refused."""
    from journal_bodies import Datagram, body_of

    rng = random.Random(seed)
    writer = JournalWriter(home.folder("journal"), "main", file_size_max=40_000)
    before: list[Datagram] = []
    for block in range(blocks):
        datagrams = []
        for number in range(10):
            serial = block * 10 + number
            flows = [Flow("8.8.8.8", f"10.0.0.{rng.randrange(50)}", "2026-10-05T10:00:00Z", "2026-10-05T10:20:00Z",
                          rng.randrange(10**6)) for _ in range(5)]
            if number % 2:
                payload = packets.v5(flows, "2026-10-05T10:21:00Z", serial // 2 * 5)
            else:
                sets = [packets.ipfix_data(flows)] + ([packets.ipfix_template()] if serial == 70 else [])
                payload = packets.ipfix(sets, "2026-10-05T10:21:00Z", serial // 2 * 5)
            datagrams.append(Datagram(payload, 1_790_000_000_000 + serial * 1000))
        if before and block % 3 == 0:
            datagrams.append(rng.choice(before)._replace(received=datagrams[-1].received))
        before = datagrams
        body = body_of(datagrams)
        framed = np.concatenate([np.zeros(HEADER_SIZE, np.uint8), body])
        head = BlockHead(writer.next_block, len(datagrams), datagrams[0].received, datagrams[-1].received,
                         refused=7 if block == 5 else 0)
        writer.append(head, framed)
    writer.close()


def _everything(home: Home) -> tuple[object, ...]:
    """What counts, independent of where segments were cut."""
    with sql.reading(sql.engine(home)) as connection:
        segments = connection.execute(sa.select(tables.segment).order_by(tables.segment.c.block_first)).all()
        names = ("datagrams", "decoded", "faulted", "duplicate", "refused", "data_records", "flow_records")
        intake = connection.execute(sa.select(*(sa.func.sum(tables.intake.c[name]) for name in names))).one()
        state = connection.execute(sa.select(tables.exporter_state).order_by(tables.exporter_state.c.export_protocol)).all()
        slots = connection.execute(sa.select(tables.segment_slot.c.slot, sa.func.sum(tables.segment_slot.c.octets)).group_by(
            tables.segment_slot.c.slot).order_by(tables.segment_slot.c.slot)).all()
    columns = [to_columns(read_segment(home, row)) for row in segments]
    joined = {name: np.concatenate([part[name] for part in columns]).tobytes() for name in columns[0]}
    edges = [(row.block_first, row.block_last) for row in segments]
    assert all(after[0] == before[1] + 1 for before, after in pairwise(edges)), edges
    return joined, tuple(intake), tuple(map(tuple, state)), tuple(map(tuple, slots))


def _decode_in_steps(home: Home, steps: int) -> None:
    one = worker.Worker(home, "main")
    try:
        while one.pump(steps):
            one.commit()
    finally:
        one.close()


def test_a_worker_killed_at_any_moment_decodes_every_datagram_exactly_once(tmp_path: Path) -> None:
    twin = _home(tmp_path / "twin")
    _journal(twin, 60)
    begun = time.monotonic()
    _decode_in_steps(twin, 4)
    whole = time.monotonic() - begun
    expected = _everything(twin)
    rng = random.Random(SEED)
    home = _home(tmp_path / "home")
    _journal(home, 60)
    sql.engine(home)
    killed = 0
    for _ in range(KILLS):
        child = os.fork()
        if child == 0:
            sql.forget_engines()
            _decode_in_steps(home, rng.choice([1, 2, 3]))
            os._exit(0)
        time.sleep(rng.random() * whole * 1.5 / 4)
        os.kill(child, signal.SIGKILL)
        killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    _decode_in_steps(home, 5)
    assert killed > 0, f"no child was killed in its work (seed {SEED})"
    assert _everything(home) == expected, f"seed {SEED}"
    stored = {home.relative(path) for path in home.folder("segments").rglob("*.arrow")}
    with sql.reading(sql.engine(home)) as connection:
        assert stored == set(connection.scalars(sa.select(tables.segment.c.path))), "nothing else is left"
    assert len(list(home.folder("run").glob("decoder-main.*.state"))) == 1


def test_a_damaged_block_is_named_and_its_datagrams_are_a_loss_by_name(tmp_path: Path,
                                                                       capfd: pytest.CaptureFixture[str]) -> None:
    home = _home(tmp_path)
    _journal(home, 4)
    file = next(home.folder("journal").rglob("*.journal"))
    data = bytearray(file.read_bytes())
    data[64 + 64 + 100] ^= 1  # in the body of the first block
    file.write_bytes(data)
    assert worker.decode_available(home, "main") == 31
    with sql.reading(sql.engine(home)) as connection:
        sums = connection.execute(sa.select(sa.func.sum(tables.intake.c.datagrams), sa.func.sum(tables.intake.c.refused))).one()
    assert tuple(sums) == (41, 10)
    assert "the body of a block is damaged" in capfd.readouterr().err
    assert worker.decode_available(home, "main") == 0, "a second time there is nothing to do"


def test_a_damaged_state_is_refused_by_name(tmp_path: Path) -> None:
    home = _home(tmp_path)
    _journal(home, 4)
    worker.decode_available(home, "main")
    path = next(home.folder("run").glob("decoder-main.*.state"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RatemillError, match="does not match its digest"):
        worker.decode_available(home, "main")
