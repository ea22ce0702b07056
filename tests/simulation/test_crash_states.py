"""After a power cut at any moment the files are what storage had promised until then."""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from simulation.disk import (
    CrashState,
    Fault,
    ForgetsToSyncFiles,
    ForgetsToSyncFolders,
    SimulatedDisk,
    WritesUnderTheFinalName,
    crash_states,
)

from core import randomness
from core.errors import DamagedFile, RatemillError
from storage import files
from storage.journal import HEADER_SIZE, BlockHead, JournalReader, JournalWriter, folder_of

SHM = Path("/dev/shm")
MOST = 20_000 if os.environ.get("RATEMILL_NIGHTLY") else 6000
"""Crash states behind one operation, at most: with the least numbers of the two tests below, 10^5 in all."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A promise: the file has this version, or a later one."""

    name: str
    digest: str
    version: int


@dataclass(frozen=True, slots=True)
class Synced:
    """A promise: all blocks below `blocks` are durable."""

    blocks: int


class Violation(AssertionError):
    """A promise that a crash state breaks."""


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Path]:
    """A folder to lay crash states out in, in memory where there is such a place."""
    if not SHM.is_dir():
        yield tmp_path / "shelf"
        return
    folder = Path(tempfile.mkdtemp(prefix="ratemill-crash-", dir=SHM))
    yield folder / "shelf"
    shutil.rmtree(folder)


@contextmanager
def _in_place(disk: SimulatedDisk) -> Iterator[None]:
    """`disk` under storage, and names of temporary files that are the same in each run."""
    before, source = files.use(disk), randomness.use(randomness.SeededSource(7))
    try:
        yield
    finally:
        files.use(before)
        randomness.use(source)


def _lay_out(tree: dict[str, bytes], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    for name, data in tree.items():
        path = f"{folder}/{name}"
        if "/" in name:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb", buffering=0) as file:
            file.write(data)


# files that are whole or absent ---------------------------------------------------------------------------------------
NAMES = ("small", "built", "streamed", "private")


def _versions(name: str) -> list[bytes]:
    return [random.Random(f"{name} {version}").randbytes(90 + 70 * version) for version in range(3)]


def _write_small(root: Path, data: bytes) -> str:
    return files.write_whole(root / "small", data)


def _write_private(root: Path, data: bytes) -> str:
    return files.write_whole(root / "private", data, private=True, fast=True)


def _build(root: Path, data: bytes) -> str:
    def build(path: Path) -> None:
        path.write_bytes(data)

    return files.build_whole(root / "built", build)


def _stream(root: Path, data: bytes) -> str:
    writer = files.HashingWriter(files.temporary_name(root / "streamed"))
    try:
        for at in range(0, len(data), 60):
            writer.write(data[at : at + 60])
    except OSError:
        writer.abandon()
        raise
    return writer.finish(root / "streamed")


WRITERS: dict[str, Callable[[Path, bytes], str]] = {
    "small": _write_small, "built": _build, "streamed": _stream, "private": _write_private}


def _write_and_replace(disk: SimulatedDisk, name: str) -> None:
    """Three versions of a file, one instead of the other."""
    for version, data in enumerate(_versions(name)):
        disk.note(Whole(name, WRITERS[name](disk.root, data), version))


def _write_all_kinds(disk: SimulatedDisk) -> None:
    for version in range(3):
        for name in NAMES:
            disk.note(Whole(name, WRITERS[name](disk.root, _versions(name)[version]), version))


def _check_whole(state: CrashState, shelf: Path) -> None:
    _lay_out(state.tree, shelf)
    files.sweep_temporaries(shelf)
    left = set(os.listdir(shelf))
    _demand(left <= set(NAMES), f"after the sweep there are {left}")
    promised = {promise.name: promise for promise in state.promises if isinstance(promise, Whole)}
    for name, promise in promised.items():
        _demand(name in left, f"{name} was promised and is gone")
        if (shelf / name).read_bytes() == _versions_of[name][promise.version]:
            files.verify(shelf / name, promise.digest)
    for name in left:
        at_least = promised[name].version if name in promised else 0
        _demand((shelf / name).read_bytes() in _versions_of[name][at_least:], f"{name} is not whole, or older than promised")


_versions_of = {name: _versions(name) for name in NAMES}


# the journal of datagrams ---------------------------------------------------------------------------------------------
def _framed(number: int) -> NDArray[np.uint8]:
    size = 16 + 8 * (number * 5 % 12)
    framed = np.zeros(HEADER_SIZE + size, np.uint8)
    framed[HEADER_SIZE:] = np.random.default_rng(number).integers(0, 256, size)
    return framed


def _append(writer: JournalWriter) -> None:
    number = writer.next_block
    writer.append(BlockHead(number, 3, 1000 + number, 2000 + number), _framed(number))


_bodies = [_framed(number)[HEADER_SIZE:].tobytes() for number in range(60)]


def _journal(disk: SimulatedDisk, per_sync: int = 3, file_size_max: int = 900, blocks: int = 18) -> None:
    """Blocks in several files, synced now and then."""
    writer = JournalWriter(disk.root, "one", file_size_max=file_size_max)
    for turn in range(blocks):
        _append(writer)
        if turn % per_sync == per_sync - 1:
            writer.sync()
            disk.note(Synced(writer.next_block))
    writer.close()
    disk.note(Synced(writer.next_block))


def _read(journal: Path) -> tuple[list[tuple[int, bytes]], list[tuple[int, int]]]:
    reader = JournalReader(journal, "one")
    try:
        found = [(block.head.number, block.body.tobytes()) for block in reader.blocks()]
        return found, [(damage.block, damage.blocks) for damage in reader.damage]
    finally:
        reader.close()


def _check_journal(state: CrashState, shelf: Path, *, go_on: bool = False, refusals_max: int = 1) -> None:
    """What is read are blocks as they were written, in order; what is synced is all there; each gap is named."""
    _lay_out(state.tree, shelf)
    refused = 0
    while True:
        try:
            found, damage = _read(shelf)
            break
        except DamagedFile as error:  # a file whose header never reached the disk: do what the hint says
            refused += 1
            _demand(refused <= refusals_max, "a reader refuses more than the file that was being begun")
            Path(str(error.message).split(" is no journal")[0]).unlink()
    synced = max((promise.blocks for promise in state.promises if isinstance(promise, Synced)), default=0)
    numbers = [number for number, _ in found]
    _demand(numbers[:synced] == list(range(synced)), f"{synced} blocks are synced, there are {numbers}")
    _demand(all(body == _bodies[number] for number, body in found), "a block is not what was written")
    gaps = [(last + 1, number - last - 1) for last, number in zip([-1, *numbers], numbers, strict=False) if number != last + 1]
    _demand(damage == gaps, f"missing are {gaps}, named are {damage}")
    if go_on:
        writer = JournalWriter(shelf, "one")
        _demand(writer.next_block == (numbers[-1] + 1 if numbers else 0), "a writer goes on behind the newest block")
        _append(writer)
        writer.close()
        again, _ = _read(shelf)
        _demand([number for number, _ in again] == [*numbers, (numbers[-1] + 1 if numbers else 0)],
                "what is written after a crash is read behind what was there")


def _home(tmp_path: Path) -> Path:
    root = tmp_path / "disk"
    folder_of(root, "one").mkdir(parents=True)
    return root


# tests ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "least"), [
    ("small", 400), ("built", 3000), ("streamed", 3000), ("private", 400), ("all kinds", 7000)])
def test_a_finished_file_survives_every_crash_and_an_unfinished_one_is_never_seen_in_part(
        tmp_path: Path, shelf: Path, name: str, least: int) -> None:
    disk = SimulatedDisk(_home(tmp_path))
    with _in_place(disk):
        if name == "all kinds":
            _write_all_kinds(disk)
        else:
            _write_and_replace(disk, name)
    count = 0
    for state in crash_states(disk.log, most=MOST, seed=1):
        _check_whole(state, shelf)
        count += 1
    assert count >= least


@pytest.mark.parametrize(("per_sync", "file_size_max", "least"), [
    (1, 900, 2_500), (3, 900, 6_000), (7, 500, 6_000), (9, 1 << 20, 35_000), (30, 1 << 20, 40_000)])
def test_synced_blocks_survive_every_crash_and_nothing_is_read_that_was_not_written(
        tmp_path: Path, shelf: Path, per_sync: int, file_size_max: int, least: int) -> None:
    disk = SimulatedDisk(_home(tmp_path))
    with _in_place(disk):
        _journal(disk, per_sync, file_size_max)
    count = 0
    for state in crash_states(disk.log, most=MOST, seed=per_sync):
        _check_journal(state, shelf, go_on=count % 16 == 0)
        count += 1
    assert count >= least


@pytest.mark.parametrize("written", [0, 20])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("name", NAMES)
def test_a_refused_call_is_an_error_leaves_nothing_half_and_the_same_again_succeeds(
        tmp_path: Path, shelf: Path, name: str, error: int, written: int) -> None:
    for at in range(40):
        root = _home(tmp_path / str(at))
        data = _versions_of[name]
        disk = SimulatedDisk(root)
        with _in_place(disk):
            disk.note(Whole(name, WRITERS[name](root, data[0]), 0))
            calls = len(disk.calls)
            disk.faults[calls + at] = Fault(error, written)
            try:
                disk.note(Whole(name, WRITERS[name](root, data[1]), 1))
                failed = False
            except (RatemillError, OSError):
                failed = True
            reached = len(disk.calls) > calls + at
            disk.faults.clear()
            assert failed == reached, f"call {at}: {disk.calls[-1]}"
            assert (root / name).read_bytes() in data[0 if failed else 1 : 2]
            disk.note(Whole(name, WRITERS[name](root, data[2]), 2))
            files.sweep_temporaries(root)
        assert sorted(os.listdir(root)) == sorted([name, "one"])
        assert (root / name).read_bytes() == data[2]
        for state in crash_states(disk.log, most=12, seed=at):
            _check_whole(state, shelf)
        if not reached:
            return
    pytest.fail("the last call was never reached")


@pytest.mark.parametrize("name", NAMES)
def test_short_writes_are_gone_on_with(tmp_path: Path, name: str) -> None:
    root = _home(tmp_path)
    with _in_place(SimulatedDisk(root, {call: Fault(0, 7) for call in range(8)})):
        digest = WRITERS[name](root, _versions_of[name][0])
    assert files.verify(root / name, digest).read_bytes() == _versions_of[name][0]


@pytest.mark.parametrize("written", [0, 70])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_block_that_the_disk_refused_is_not_in_the_journal_and_can_be_written_again(
        tmp_path: Path, shelf: Path, error: int, written: int) -> None:
    for at in range(60):
        disk = SimulatedDisk(_home(tmp_path / str(at)), {at: Fault(error, written)})
        failures = 0
        with _in_place(disk):
            writer = JournalWriter(disk.root, "one", file_size_max=900)
            for _ in range(12):
                before = writer.next_block
                try:
                    _append(writer)
                except RatemillError:
                    failures += 1
                    assert writer.next_block == before
                    if disk.calls[at] not in ("create", "write"):
                        break  # a sync of the full file failed: the blocks in it are in doubt, see below
                    _append(writer)
                try:
                    writer.sync()
                except RatemillError:
                    failures += 1
                    break
                disk.note(Synced(writer.next_block))
            writer.abandon()
        assert failures == (len(disk.calls) > at), disk.calls[-1]
        for state in crash_states(disk.log, most=12, seed=at):
            _check_journal(state, shelf)
        if not failures:
            return
    pytest.fail("the last call was never reached")


# bugs that are there to be found --------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [ForgetsToSyncFiles, ForgetsToSyncFolders, WritesUnderTheFinalName])
@pytest.mark.parametrize("name", ["small", "streamed", "private"])
def test_three_seeded_bugs_are_always_found(tmp_path: Path, shelf: Path, kind: type[SimulatedDisk], name: str) -> None:
    for seed in range(5):
        disk = kind(_home(tmp_path / str(seed)))
        with _in_place(disk):
            _write_and_replace(disk, name)
        with pytest.raises(Violation):
            for state in crash_states(disk.log, most=MOST, seed=seed):
                _check_whole(state, shelf)


@pytest.mark.parametrize("kind", [ForgetsToSyncFiles, ForgetsToSyncFolders])
def test_a_journal_that_is_not_synced_is_always_found(tmp_path: Path, shelf: Path, kind: type[SimulatedDisk]) -> None:
    for seed in range(5):
        disk = kind(_home(tmp_path / str(seed)))
        with _in_place(disk):
            _journal(disk)
        with pytest.raises(Violation):
            for state in crash_states(disk.log, most=MOST, seed=seed):
                _check_journal(state, shelf)


# defects that are known -----------------------------------------------------------------------------------------------
def test_a_folder_that_is_made_on_the_way_survives_with_what_is_in_it(tmp_path: Path, shelf: Path) -> None:
    disk = SimulatedDisk(tmp_path)
    with _in_place(disk):
        _journal(disk, blocks=3)
    for state in crash_states(disk.log, most=64, seed=1):
        _check_journal(state, shelf)


def test_what_a_full_file_could_not_sync_is_not_called_durable_later(tmp_path: Path, shelf: Path) -> None:
    disk = SimulatedDisk(_home(tmp_path))
    with _in_place(disk):
        writer = JournalWriter(disk.root, "one", file_size_max=500)
        while True:
            if writer.next_block == 3:
                disk.faults = {call: Fault(errno.EIO) for call in (len(disk.calls),)}
            try:
                _append(writer)
            except RatemillError:
                break
        _append(writer)  # as the receiver does
        writer.sync()
        disk.note(Synced(writer.next_block))
        writer.close()
    for state in crash_states(disk.log, most=200, seed=1):
        _check_journal(state, shelf, refusals_max=9)


@pytest.mark.parametrize("knows_what_is_synced", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_whatever_syncs_fail_and_however_often_it_begins_anew_what_is_called_durable_is(
        tmp_path: Path, shelf: Path, seed: int, knows_what_is_synced: bool) -> None:
    drawn = random.Random(seed)
    disk = SimulatedDisk(_home(tmp_path))
    synced = 0
    with _in_place(disk):
        writer = JournalWriter(disk.root, "one", file_size_max=500)
        while writer.next_block < 18:
            at = len(disk.calls)
            disk.faults = {at + call: Fault(errno.EIO) for call in range(6) if drawn.random() < 0.15}
            try:
                _append(writer)
                if drawn.random() < 0.6:
                    writer.sync()
                    synced = writer.next_block
                    disk.note(Synced(synced))
            except RatemillError:
                pass
            if drawn.random() < 0.2:  # killed
                writer.abandon()
                disk.faults = {}
                writer = JournalWriter(disk.root, "one", file_size_max=500, synced=synced if knows_what_is_synced else 0)
                assert writer.next_block >= synced
        disk.faults = {}
        writer.close()
        disk.note(Synced(writer.next_block))
    assert [number for number, _ in _read(disk.root)[0]] == list(range(writer.next_block))
    for state in crash_states(disk.log, most=24, seed=seed):
        _check_journal(state, shelf, refusals_max=9)


def test_blocks_behind_a_piece_that_could_not_be_cut_off_are_read(tmp_path: Path, shelf: Path) -> None:
    disk = SimulatedDisk(_home(tmp_path))
    with _in_place(disk):
        writer = JournalWriter(disk.root, "one")
        for _ in range(4):
            _append(writer)
        writer.sync()
        at = len(disk.calls)
        disk.faults = {at: Fault(errno.ENOSPC, 70), at + 1: Fault(errno.EIO)}
        with pytest.raises(RatemillError):
            _append(writer)
        _append(writer)
        writer.sync()
        disk.note(Synced(writer.next_block))
        writer.close()
    for state in crash_states(disk.log, most=64, seed=1):
        _check_journal(state, shelf)


def test_a_new_file_that_the_crash_left_as_zeros_does_not_stop_the_reader(tmp_path: Path, shelf: Path) -> None:
    disk = SimulatedDisk(_home(tmp_path))
    with _in_place(disk):
        _journal(disk, per_sync=1, file_size_max=500)
    for state in crash_states(disk.log, most=64, seed=1):
        _check_journal(state, shelf, refusals_max=0)
