"""Unknown exporters: kept, shown, admitted by settings and command; every datagram counts once, also after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from exports import BASIC, NOW_S, basic, framed, ipfix, template, v5, v5_record
from harness import rows, run_cli
from journal_bodies import Datagram, body_of
from packets import pcap

from collector import admission, quarantine
from collector.worker import decode_available
from core import tables
from core.actor import Actor
from core.addresses import parse_address
from core.errors import RatemillError
from core.periods import format_instant
from storage import files, sql
from storage.home import Home
from storage.journal import HEADER_SIZE, BlockHead, JournalWriter

NOW = NOW_S * 1000
STRANGER, OTHER, KNOWN = "198.51.100.7", "198.51.100.8", "192.0.2.1"
ACTOR = Actor("test", "test")
QUARANTINE = f'[collector]\nunknown_exporters = "quarantine"\n[[exporter]]\naddress = "{KNOWN}"\n'
ADMITTED = QUARANTINE + f'[[exporter]]\naddress = "{STRANGER}"\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    run_cli("init", home=path)
    return path


def set_up(path: Path, text: str) -> Home:
    (path / "ratemill.toml").write_text(text)
    return Home(path)


def traffic(first: int = 0) -> list[Datagram]:
    """From each of three exporters 30 flows: IPFIX whose template comes late, and v5."""
    found = []
    for source in (STRANGER, OTHER, KNOWN):
        late = [ipfix(framed(256, basic(100 + n)), sequence=first + n) for n in range(10)]
        late.append(ipfix(framed(2, template(256, BASIC)), framed(256, *[basic(1)] * 10), sequence=first + 10))
        late += [v5([v5_record(octets=n)], sequence=first + n) for n in range(10)]
        found += [Datagram(payload, NOW + first + n, source) for n, payload in enumerate(late)]
    return found


def receive(home: Home, *bodies: list[Datagram], after: int = 0) -> None:
    """What the receiver of collector `main` would have written."""
    writer = JournalWriter(home.folder("journal"), "main", next_block=after)
    for datagrams in bodies:
        body = body_of(datagrams)
        framed_body = bytearray(HEADER_SIZE) + body.tobytes()
        import numpy as np

        head = BlockHead(writer.next_block, len(datagrams), datagrams[0].received, datagrams[-1].received)
        writer.append(head, np.frombuffer(framed_body, np.uint8))
    writer.close()


def balance(home: Home) -> dict[str, int]:
    names = ("datagrams", "decoded", "faulted", "duplicate", "refused", "flows")
    intake = tables.intake
    with sql.reading(sql.engine(home)) as connection:
        row = connection.execute(sa.select(*(sa.func.sum(intake.c[name]) for name in names[:5]))).one()
        flows = connection.execute(sa.select(sa.func.sum(tables.segment.c.flows))).scalar()
    return dict(zip(names, (*map(int, row), int(flows)), strict=True))


def exported(path: Path, exporter: str) -> list[tuple[Any, ...]]:
    found = rows(run_cli("flows", "export", "--json", home=path))
    return sorted((row["received"], row["octets"]) for row in found if row["exporter"] == exporter)


def test_an_admitted_exporter_s_datagrams_count_once_with_their_own_arrival(path: Path) -> None:
    home = set_up(path, QUARANTINE)
    receive(home, traffic()[:40], traffic()[40:])
    decode_available(home, "main")
    assert balance(home) == {"datagrams": 63, "decoded": 21, "faulted": 0, "duplicate": 0, "refused": 42, "flows": 30}
    shown = rows(run_cli("exporters", "unknown", "--json", home=path))
    assert [(row["exporter"], row["datagrams"], row["overcount"]) for row in shown] == [(STRANGER, 21, 0), (OTHER, 21, 0)]
    failed = run_cli("exporters", "admit", STRANGER, home=path, check=1)
    assert "the settings do not take" in failed.stderr
    assert "[[exporter]]" in failed.stderr

    set_up(path, ADMITTED)
    done = rows(run_cli("exporters", "admit", STRANGER, "--json", home=path))[0]
    assert done == {"exporter": STRANGER, "datagrams": 21, "flows": 30, "octets": 1045 + 10 + 45, "waiting": 0}
    assert balance(home) == {"datagrams": 63, "decoded": 42, "faulted": 0, "duplicate": 0, "refused": 21, "flows": 60}
    expected = [(format_instant(NOW + n), octets) for n, octets in [
        *((n, 100 + n) for n in range(10)), *((10, 1),) * 10, *((11 + n, n) for n in range(10))]]
    assert exported(path, STRANGER) == sorted(expected)
    again = rows(run_cli("exporters", "admit", STRANGER, "--json", home=path))[0]
    assert (again["datagrams"], balance(home)["flows"]) == (0, 60)
    listed = {row["exporter"]: row for row in rows(run_cli("exporters", "list", "--json", home=path))
              if row["protocol"] in ("v5", "unknown")}
    assert (listed["::"]["received"], listed["::"]["refused"]) == (21, 21)
    assert listed[STRANGER]["received"] == 10


def test_what_is_kept_after_an_admission_is_admitted_by_the_next(path: Path) -> None:
    home = set_up(path, QUARANTINE)
    receive(home, traffic())
    decode_available(home, "main")
    admitted = set_up(path, ADMITTED)
    assert admission.admit(admitted, parse_address(STRANGER), ACTOR)["datagrams"] == 21
    home = set_up(path, QUARANTINE)  # the collector still runs with the settings of before
    receive(home, traffic(first=100), after=1)
    decode_available(home, "main")
    assert admission.admit(set_up(path, ADMITTED), parse_address(STRANGER), ACTOR)["datagrams"] == 21
    assert balance(home)["flows"] == 30 + 30 + 30 + 30
    assert balance(home)["datagrams"] == balance(home)["decoded"] + balance(home)["refused"] == 126


def test_a_replay_keeps_unknown_exporters_too(path: Path, tmp_path: Path) -> None:
    set_up(path, QUARANTINE)
    capture = pcap(tmp_path / "a.pcap", [(format_instant(one.received), one.source, one.payload) for one in traffic()])
    told = rows(run_cli("collect", "replay", str(capture), "--json", home=path))[0]
    assert (told["datagrams"], told["flows"], told["faults"]) == (63, 30, {"exporter_unknown": 42})
    run_cli("collect", "replay", str(capture), "--again", home=path)
    shown = rows(run_cli("exporters", "unknown", "--json", home=path))
    assert [(row["exporter"], row["datagrams"]) for row in shown] == [(STRANGER, 42), (OTHER, 42)]
    home = set_up(path, ADMITTED)
    assert admission.admit(home, parse_address(STRANGER), ACTOR)["flows"] == 60 - 30, "the copy is a copy here too"


@pytest.mark.parametrize("call", range(14))
def test_an_admission_that_is_killed_anywhere_is_done_whole_by_the_next(path: Path, call: int) -> None:
    home = set_up(path, QUARANTINE)
    receive(home, traffic())
    decode_available(home, "main")
    home = set_up(path, ADMITTED)
    sql.engine(home)

    class Killed(BaseException):
        pass

    class Dying(files.SystemFileSystem):
        calls = 0

        def _count(self) -> None:
            Dying.calls += 1
            if Dying.calls > call:
                raise Killed

        def write(self, descriptor: int, data: files.Buffer) -> int:
            self._count()
            return super().write(descriptor, data)

        def fsync(self, descriptor: int) -> None:
            self._count()
            super().fsync(descriptor)

        def rename(self, source: Path, target: Path) -> None:
            self._count()
            super().rename(source, target)

    before = files.use(Dying())
    try:
        admission.admit(home, parse_address(STRANGER), ACTOR)
    except Killed:
        pass
    finally:
        files.use(before)
    admission.admit(home, parse_address(STRANGER), ACTOR)
    assert balance(home) == {"datagrams": 63, "decoded": 42, "faulted": 0, "duplicate": 0, "refused": 21, "flows": 60}


def test_a_decoder_that_is_killed_before_its_commit_keeps_nothing_twice(path: Path) -> None:
    home = set_up(path, QUARANTINE)
    receive(home, traffic())
    builder = quarantine.Builder("main", 2**30)
    from collector.decoder import Decoder
    from collector.settings import of_home

    builder.add(Decoder(of_home(home)).feed(body_of(traffic()), 0).held, 0)
    assert builder.write(home) is not None  # written, never registered
    decode_available(home, "main")
    assert len(list(home.folder("quarantine").iterdir())) == 1
    assert admission.admit(set_up(path, ADMITTED), parse_address(STRANGER), ACTOR)["datagrams"] == 21


def test_the_oldest_goes_when_there_is_no_more_room(path: Path) -> None:
    home = set_up(path, QUARANTINE.replace("[collector]", "[collector]\nquarantine_octets_max = 1048576"))
    filler = bytes(60_000)
    for block in range(30):
        receive(home, [Datagram(b"\0\x05" + filler, NOW + block, STRANGER)], after=block)
        decode_available(home, "main")
    there = list(home.folder("quarantine").iterdir())
    assert sum(one.stat().st_size for one in there) <= 1048576
    table = tables.quarantine_file
    with sql.reading(sql.engine(home)) as connection:
        found = connection.execute(sa.select(table.c.dropped, table.c.datagrams).order_by(table.c.id)).all()
    gone = [row.dropped is not None for row in found]
    assert len(found) == 30
    assert gone == sorted(gone, reverse=True)
    assert gone.count(False) == len(there) == 17


def test_one_segment_does_not_keep_more_than_the_room_there_is() -> None:
    builder = quarantine.Builder("main", 200)
    for block in range(5):
        builder.add(body_of([Datagram(bytes(40), NOW + block, STRANGER)]), block)
    assert (builder.octets, builder.left_out, [block for block, _ in builder.parts]) == (192, 3, [3, 4])


def test_a_file_that_was_dropped_meanwhile_is_not_decoded_by_half(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = set_up(path, QUARANTINE)
    receive(home, traffic())
    decode_available(home, "main")
    home = set_up(path, ADMITTED)
    real = admission._entries_from

    def then_dropped(*given: Any) -> Any:
        entries = real(*given)
        with sql.transaction(sql.engine(home)) as connection:
            connection.execute(tables.quarantine_file.update().values(dropped=1))
        return entries

    monkeypatch.setattr(admission, "_entries_from", then_dropped)
    with pytest.raises(RatemillError, match="had to make room"):
        admission.admit(home, parse_address(STRANGER), ACTOR)
    assert balance(home)["flows"] == 30
    assert [one.name for one in home.folder("journal").iterdir()] == ["main"]
