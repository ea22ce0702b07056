"""The datagram journal: what is written is read, what is torn is the end, what is damaged is named."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from core.errors import RatemillError
from storage import files
from storage.journal import (
    HEADER_SIZE,
    BlockHead,
    JournalReader,
    JournalWriter,
    block_header,
    folder_of,
    journal_files,
    remove_old,
)


def _framed(number: int, size: int = 80) -> NDArray[np.uint8]:
    framed = np.zeros(HEADER_SIZE + size, np.uint8)
    framed[HEADER_SIZE:] = np.random.default_rng(number).integers(0, 256, size)
    return framed


def _write(journal: Path, count: int, file_size_max: int = 1 << 20) -> None:
    writer = JournalWriter(journal, "one", file_size_max=file_size_max)
    for _ in range(count):
        number = writer.next_block
        writer.append(BlockHead(number, 3, 1000 + number, 2000 + number, number % 2, number * 7), _framed(number))
    writer.close()


def _numbers(journal: Path, first: int = 0) -> list[int]:
    return [block.head.number for block in JournalReader(journal, "one", first).blocks()]


def test_blocks_come_back_as_they_were_written(tmp_path: Path) -> None:
    _write(tmp_path, 10, file_size_max=600)
    assert len(journal_files(folder_of(tmp_path, "one"))) > 3
    blocks = list(JournalReader(tmp_path, "one").blocks())
    assert [block.head for block in blocks] == [BlockHead(n, 3, 1000 + n, 2000 + n, n % 2, n * 7) for n in range(10)]
    assert all(np.array_equal(block.body, _framed(block.head.number)[HEADER_SIZE:]) for block in blocks)


def test_a_reader_begins_at_any_block_and_goes_on_when_there_are_more(tmp_path: Path) -> None:
    _write(tmp_path, 6, file_size_max=400)
    reader = JournalReader(tmp_path, "one", 4)
    assert [block.head.number for block in reader.blocks()] == [4, 5]
    assert list(reader.blocks()) == []
    _write(tmp_path, 3)
    assert [block.head.number for block in reader.blocks()] == [6, 7, 8]
    assert reader.damage == []


@pytest.mark.parametrize("cut", [1, 30, 63, 64, 65, 100, 143])
def test_a_torn_tail_is_the_end_and_the_next_writer_goes_on_behind_it(tmp_path: Path, cut: int) -> None:
    _write(tmp_path, 3)
    file = journal_files(folder_of(tmp_path, "one"))[0]
    file.write_bytes(file.read_bytes()[:-cut])
    assert _numbers(tmp_path) == [0, 1]
    _write(tmp_path, 2)
    reader = JournalReader(tmp_path, "one")
    assert [block.head.number for block in reader.blocks()] == [0, 1, 2, 3]
    assert reader.damage == []


def test_a_block_being_written_is_not_read_before_it_is_whole(tmp_path: Path) -> None:
    _write(tmp_path, 1)
    file = journal_files(folder_of(tmp_path, "one"))[0]
    whole = file.read_bytes()
    # A payload may hold what looks like a block: a sender must not be able to put blocks into the journal.
    inner = np.zeros(8, np.uint8)
    body = block_header(BlockHead(1, 1, 0, 0), inner.data) + inner.tobytes()
    outer = block_header(BlockHead(1, 1, 0, 0), memoryview(body + bytes(80))) + body
    reader = JournalReader(tmp_path, "one")
    file.write_bytes(whole + outer)
    assert [block.head.number for block in reader.blocks()] == [0]
    assert reader.damage == []
    file.write_bytes(whole + outer + bytes(80))
    assert [block.body.size for block in reader.blocks()] == [len(body) + 80]


def test_every_flipped_bit_is_found_and_costs_one_block(tmp_path: Path) -> None:
    _write(tmp_path, 4)
    file = journal_files(folder_of(tmp_path, "one"))[0]
    whole = file.read_bytes()
    for offset in range(HEADER_SIZE + 144, HEADER_SIZE + 2 * 144):  # every octet of the second block
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << offset % 8
        file.write_bytes(damaged)
        reader = JournalReader(tmp_path, "one")
        assert [block.head.number for block in reader.blocks()] == [0, 2, 3], offset
        assert [(damage.block, damage.blocks) for damage in reader.damage] == [(1, 1)]
        if offset >= HEADER_SIZE + 144 + HEADER_SIZE:  # the header is good: what was lost is known
            assert reader.damage[0].head == BlockHead(1, 3, 1001, 2001, 1, 7)


def test_damage_at_the_end_of_a_file_is_seen_by_the_gap_in_the_numbers(tmp_path: Path) -> None:
    _write(tmp_path, 4, file_size_max=64 + 2 * 144)
    first = journal_files(folder_of(tmp_path, "one"))[0]
    first.write_bytes(first.read_bytes()[:-1] + b"\xff")
    reader = JournalReader(tmp_path, "one")
    assert [block.head.number for block in reader.blocks()] == [0, 2, 3]
    assert [(damage.block, damage.blocks) for damage in reader.damage] == [(1, 1)]


def test_decoded_files_are_removed_but_numbers_go_on(tmp_path: Path) -> None:
    _write(tmp_path, 6, file_size_max=64 + 2 * 144)
    assert remove_old(tmp_path, "one", decoded=2, before_ms=2**60) == 1
    assert _numbers(tmp_path, 2) == [2, 3, 4, 5]
    assert remove_old(tmp_path, "one", decoded=5, before_ms=0) == 0, "none is old enough"
    assert remove_old(tmp_path, "one", decoded=5, before_ms=2**60) == 1, "the newest file stays"
    assert JournalWriter(tmp_path, "one").next_block == 6
    assert remove_old(tmp_path, "one", decoded=5, before_ms=2**60, whole=True) == 1
    assert not folder_of(tmp_path, "one").exists()


class _FullDisk(files.SystemFileSystem):
    """Takes half of a piece, then no more, until somebody frees space."""

    def __init__(self) -> None:
        self.room = 10**9

    def write(self, descriptor: int, data: files.Buffer) -> int:
        view = memoryview(data).cast("B")
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = super().write(descriptor, view[: self.room])
        self.room -= written
        return written


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    disk = _FullDisk()
    before = files.use(disk)
    try:
        writer = JournalWriter(tmp_path, "one")
        writer.append(BlockHead(0, 1, 0, 0), _framed(0))
        disk.room = 100
        with pytest.raises(RatemillError, match=r"(?s)can't be written.*disk is full"):
            writer.append(BlockHead(1, 1, 0, 0), _framed(1))
        disk.room = 10**9
        writer.append(BlockHead(1, 1, 0, 0), _framed(1))
        writer.close()
    finally:
        files.use(before)
    reader = JournalReader(tmp_path, "one")
    assert [block.head.number for block in reader.blocks()] == [0, 1]
    assert reader.damage == []
