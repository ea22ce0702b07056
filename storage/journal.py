"""The datagram journal: checksummed blocks of received datagrams in append-only files, one folder a collector.

It is the only interface between receiving (or replay) and decoding. A file is a 64-byte header and blocks, a block a
64-byte header and a body of entries (56-byte header and payload each, padded to 8 octets); all integers little endian.
Every writer begins a file of its own. What a killed writer left torn at the end of a file is not part of the journal; a
wrong checksum with good blocks behind it is damage, which is named and skipped.

    journal/COLLECTOR/000000000000.journal
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from core import clock
from core.errors import DamagedFile, RatemillError
from storage import files

FILE_MAGIC = b"RMJRNL01"
BLOCK_MAGIC = 0x4B424D52
BLOCK_VERSION = 2
"""2: the body's checksum is XXH3-64; it was CRC-32, which costs as much as receiving does."""
HEADER_SIZE = 64
ENTRY_SIZE = 56
BODY_SIZE_MAX = 4 << 20
DATAGRAMS_MAX = 4096
FILE_SIZE_MAX = 256 << 20
COLLECTOR_SIZE_MAX = 16

_FILE_HEADER = struct.Struct("<8s16sQq20x")
_BLOCK_HEADER = struct.Struct("<IHHQIIqqIQQ")
_CRC = struct.Struct("<I")

Octets = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class BlockHead:
    """What the header of a block says about its body."""

    number: int
    datagrams: int
    first_received: int
    last_received: int
    refused: int = 0
    """Datagrams that were received since the block before and could not be kept (a full disk)."""
    kernel_drops: int = 0
    """Datagrams that the kernel dropped for want of room, cumulative, as last read."""
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    head: BlockHead
    body: Octets
    path: Path
    offset: int


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch of a file that is no good, with good blocks behind it. `head` is what is known of the block, if anything."""

    path: Path
    offset: int
    size: int
    what: str
    block: int
    blocks: int
    head: BlockHead | None

    def __str__(self) -> str:
        return f"{self.path} at {self.offset}: {self.what}; block {self.block} ({self.blocks} in all) can't be read"


def folder_of(journal: Path, collector: str) -> Path:
    """The folder of a collector's files."""
    encoded = collector.encode("ascii", errors="replace")
    assert 0 < len(encoded) <= COLLECTOR_SIZE_MAX, f"not a collector's id: {collector!r}"
    assert "/" not in collector, f"not a collector's id: {collector!r}"
    return journal / collector


def journal_files(folder: Path) -> list[Path]:
    """The files of a collector, oldest first."""
    return sorted(folder.glob("*.journal")) if folder.is_dir() else []


def oldest_block(journal: Path, collector: str) -> int | None:
    """The number of the first block that a collector's files should hold: the very first file begins with block 0, of a
    later one the first good header tells. None without any."""
    for path in journal_files(folder_of(journal, collector)):
        if int(path.stem) == 0:
            return 0
        with _Source(path) as source:
            number = source.first_block()
            if number is not None:
                return number
    return None


def _file_header(collector: str, number: int) -> bytes:
    head = _FILE_HEADER.pack(FILE_MAGIC, collector.encode("ascii"), number, clock.now_ms())
    return head + _CRC.pack(zlib.crc32(head))


def block_header(head: BlockHead, body: memoryview) -> bytes:
    """The 64 octets before a body."""
    packed = _BLOCK_HEADER.pack(
        BLOCK_MAGIC, BLOCK_VERSION, head.flags, head.number, head.datagrams, body.nbytes, head.first_received,
        head.last_received, min(head.refused, 2**32 - 1), head.kernel_drops, xxhash.xxh3_64_intdigest(body))
    return packed + _CRC.pack(zlib.crc32(packed))


def _parse_header(data: bytes) -> tuple[BlockHead, int, int] | None:
    """(head, length of the body, its checksum), None if this is no header of a block."""
    if len(data) < HEADER_SIZE or _CRC.unpack_from(data, 60)[0] != zlib.crc32(data[:60]):
        return None
    (magic, version, flags, number, datagrams, length, first, last, refused, drops, checksum) = _BLOCK_HEADER.unpack_from(data)
    if magic != BLOCK_MAGIC or version != BLOCK_VERSION or length > BODY_SIZE_MAX or length % 8:
        return None
    return BlockHead(number, datagrams, first, last, refused, drops, flags), length, checksum


# writing --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Place:
    """Where a block lies."""

    path: Path
    offset: int
    size: int


class JournalWriter:
    """Appends blocks to the journal of one collector; the caller holds the collector's lock.

    `sync` promises that all blocks before are durable. After a sync has failed, a later one of the same file says nothing: the
    kernel forgets what it could not write. So blocks that are not known to be durable are copied into the next file, under
    their own numbers; readers take each number once, from whichever file holds it whole.
    """

    def __init__(self, journal: Path, collector: str, *, next_block: int = 0, file_size_max: int = FILE_SIZE_MAX,
                 synced: int = 0) -> None:
        """Goes on behind the newest good block that is there, but not before `next_block`. Blocks below `synced` are known
        to be durable; later ones of the newest file are not, and are copied before the first `sync` ends."""
        self._folder = folder_of(journal, collector)
        self._collector = collector
        self._file_size_max = file_size_max
        newest, self._unsynced = _newest_blocks(self._folder, synced)
        self._next_block = max(next_block, newest + 1)
        self._appender: files.Appender | None = None
        self._unpublished = False

    @property
    def next_block(self) -> int:
        """The number that the next block gets."""
        return self._next_block

    def append(self, head: BlockHead, framed: Octets) -> None:
        """Write a block. `framed` is 64 free octets and the body, so that it goes out in one write.

        Raises RatemillError if the disk can't take it; then nothing of it is in the journal.
        """
        assert head.number == self._next_block, f"block {head.number} follows {self._next_block - 1}"
        assert framed.nbytes - HEADER_SIZE <= BODY_SIZE_MAX, "a body has a bound"
        assert head.datagrams <= DATAGRAMS_MAX, "a block has a bound"
        appender = self._open(framed.nbytes)
        view = framed.data
        view[:HEADER_SIZE] = block_header(head, view[HEADER_SIZE:])
        place = _Place(appender.path, appender.size, framed.nbytes)
        appender.append(view)
        self._unsynced[head.number] = place
        self._next_block += 1

    def _open(self, size: int) -> files.Appender:
        if self._appender is not None and self._appender.size + size > self._file_size_max:
            self.close()
        if self._appender is None:
            existing = journal_files(self._folder)
            number = int(existing[-1].stem) + 1 if existing else 0
            appender = files.Appender(self._folder / f"{number:012d}.journal")
            try:
                appender.append(_file_header(self._collector, number))
                copied = {block: _copy(place, appender) for block, place in sorted(self._unsynced.items())}
            except BaseException:
                appender.close()
                with suppress(OSError):  # what is left of it holds nothing that another file does not
                    files.remove(appender.path)
                raise
            self._appender, self._unpublished, self._unsynced = appender, True, copied
        return self._appender

    def sync(self) -> None:
        """Make all blocks durable. Raises RatemillError; then those since the last time are written again by the next call
        of `append`, `sync` or `close`."""
        if self._appender is None and self._unsynced:
            self._open(0)
        if self._appender is None:
            return
        try:
            if self._unpublished:
                self._appender.publish()
            else:
                self._appender.sync()
        except RatemillError:
            self.abandon()
            raise
        self._unpublished = False
        self._unsynced.clear()

    def close(self) -> None:
        """Make all blocks durable and let go of the file. Raises RatemillError."""
        self.sync()
        self.abandon()

    def abandon(self) -> None:
        """Let go of the file as it is; its blocks may not be durable."""
        if self._appender is not None:
            self._appender.close()
            self._appender = None


def _copy(place: _Place, appender: files.Appender) -> _Place:
    """Append a block as it lies elsewhere; returns where it lies now. Raises RatemillError."""
    copied = _Place(appender.path, appender.size, place.size)
    try:
        with place.path.open("rb") as file:
            file.seek(place.offset)
            framed = file.read(place.size)
    except OSError as error:
        raise RatemillError(f"{place.path} can't be read: {error.strerror or error}",
                            "the datagrams in it were never durable: look at the kernel's log; to go on without them, move "
                            "the file away") from error
    parsed = _parse_header(framed[:HEADER_SIZE])
    if parsed is None or xxhash.xxh3_64_intdigest(memoryview(framed)[HEADER_SIZE:]) != parsed[2]:
        raise DamagedFile(f"{place.path} at {place.offset}: a block that the disk did not take can't be read any more",
                          "its datagrams are lost: look at the kernel's log and start again")
    appender.append(framed)
    return copied


def _newest_blocks(folder: Path, synced: int) -> tuple[int, dict[int, _Place]]:
    """The number of the newest good block, -1 without any, and where the blocks from `synced` on lie that may not be durable.

    A file is begun when the one before is synced, and then its first block follows the other's last. If they overlap, its
    writer was copying what was not durable, and may have been killed before all was copied: then both are looked through.
    """
    newest, places, first_behind = -1, dict[int, _Place](), None
    room = np.empty(BODY_SIZE_MAX // 8, np.uint64).view(np.uint8)
    for path in reversed(journal_files(folder)):
        found = dict[int, _Place]()
        with _Source(path) as source:
            for one in source.blocks(0, with_bodies=True, room=room):
                if isinstance(one, Block):
                    found[one.head.number] = _Place(path, one.offset, HEADER_SIZE + len(one.body))
        if not found:
            continue
        if first_behind is not None and max(found) < first_behind:
            break
        newest, first_behind = max(newest, *found), min(found)
        places = found | places
    return newest, {number: place for number, place in places.items() if number >= synced}


def _newest_block(path: Path, *, with_bodies: bool) -> int:
    """The greatest number of a block in a file, -1 without any."""
    room = np.empty(BODY_SIZE_MAX // 8, np.uint64).view(np.uint8) if with_bodies else None
    with _Source(path) as source:
        return max((one.head.number for one in source.blocks(0, with_bodies=with_bodies, room=room) if isinstance(one, Block)),
                   default=-1)


# reading --------------------------------------------------------------------------------------------------------------
class _Source:
    """One file of a journal, open for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = HEADER_SIZE
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)

    def begun(self) -> bool:
        """Whether the file's own header is there; a writer may have been killed before. Raises DamagedFile."""
        data = os.pread(self._descriptor, HEADER_SIZE, 0)
        if len(data) < HEADER_SIZE:
            return False
        if data[:8] != FILE_MAGIC or _CRC.unpack_from(data, _FILE_HEADER.size)[0] != zlib.crc32(data[:_FILE_HEADER.size]):
            if self._next_header(HEADER_SIZE) is not None:
                return True  # the blocks have checksums of their own
            written = data[:_FILE_HEADER.size + _CRC.size].rstrip(b"\0")
            if len(written) < _FILE_HEADER.size + _CRC.size and FILE_MAGIC.startswith(written[:8]):
                return False  # a power cut while the file was being begun left zeros for the rest of its header
            raise DamagedFile(f"{self.path} is no journal of datagrams", "move it away; the others are read without it")
        return True

    def first_block(self) -> int | None:
        """The number of the first block whose header is good."""
        at = self._next_header(HEADER_SIZE)
        parsed = None if at is None else self._header(at)
        return None if parsed is None else parsed[0].number

    def _header(self, offset: int) -> tuple[BlockHead, int, int] | None:
        return _parse_header(os.pread(self._descriptor, HEADER_SIZE, offset))

    def _next_header(self, offset: int) -> int | None:
        """Where the next good header of a block is, at `offset` or behind it."""
        magic = BLOCK_MAGIC.to_bytes(4, "little")
        while piece := os.pread(self._descriptor, 1 << 20, offset):
            at = piece.find(magic)
            while at >= 0:
                if self._header(offset + at) is not None:
                    return offset + at
                at = piece.find(magic, at + 1)
            if len(piece) <= len(magic):
                return None
            offset += len(piece) - len(magic) + 1
        return None

    def blocks(self, next_block: int, *, with_bodies: bool,
               room: Octets | None = None) -> Iterator[Block | tuple[int, int, str, BlockHead | None]]:
        """From `offset` on: blocks with a number not below `next_block`, and damage as (offset, size, what, head).

        Bodies lie in `room`, each instead of the one before it, or in memory of their own. Ends where nothing good follows;
        `offset` is there then, and a later call goes on.
        """
        while True:
            start = self.offset
            parsed = self._header(start)
            if parsed is None:
                good = self._next_header(start + 8)
                what, head = "the header of a block is damaged", None
            else:
                head, length, checksum = parsed
                end = start + HEADER_SIZE + length
                if os.fstat(self._descriptor).st_size < end:
                    return  # torn, or being written at this moment; nothing inside it is taken for a header
                body = self._body(start, length, room) if with_bodies and head.number >= next_block else None
                if body is None or xxhash.xxh3_64_intdigest(body.data) == checksum:
                    self.offset = end
                    if head.number >= next_block:
                        yield Block(head, np.zeros(0, np.uint8) if body is None else body, self.path, start)
                    continue
                good = self._next_header(end)
                what = "the body of a block is damaged"
            if good is None:
                return
            self.offset = good
            yield start, good - start, what, head

    def _body(self, start: int, length: int, room: Octets | None) -> Octets:
        body = room[:length] if room is not None else np.empty(length // 8, np.uint64).view(np.uint8)  # kernels read words
        got = os.preadv(self._descriptor, [body.data], start + HEADER_SIZE) if length else 0
        return body[:got]


def _first_block(path: Path) -> int | None:
    """The number of the first block whose header is good. Raises DamagedFile if the file is no journal."""
    with _Source(path) as source:
        return source.first_block() if source.begun() else None


class JournalReader:
    """Reads the blocks of one collector in order, and goes on when there are more; it never writes."""

    def __init__(self, journal: Path, collector: str, next_block: int = 0, *, one_at_a_time: bool = False) -> None:
        """`next_block` is the number of the first block wanted. `one_at_a_time`: a body holds until the next block is asked
        for, and takes no fresh memory."""
        self._folder = folder_of(journal, collector)
        self._next_block = next_block
        self._source: _Source | None = None
        self._room = np.empty(BODY_SIZE_MAX // 8, np.uint64).view(np.uint8) if one_at_a_time else None
        self.damage: list[Damage] = []
        """What was skipped so far."""

    @property
    def next_block(self) -> int:
        """The number of the block that comes next."""
        return self._next_block

    def blocks(self, *, with_bodies: bool = True) -> Iterator[Block]:
        """All good blocks that are there now; call it again for those that came since."""
        while True:
            if self._source is None and not self._begin():
                return
            assert self._source is not None, "a file is open"
            yield from self._of_file(with_bodies)
            following = self._following()
            if following is None:
                return
            # The writer may have finished this file between our last look and the birth of the next one.
            yield from self._of_file(with_bodies)
            self._change(following)

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def _of_file(self, with_bodies: bool) -> Iterator[Block]:
        assert self._source is not None, "a file is open"
        broken: tuple[int, int, str, BlockHead | None] | None = None
        for found in self._source.blocks(self._next_block, with_bodies=with_bodies, room=self._room):
            if not isinstance(found, Block):
                broken = (broken[0], found[0] + found[1] - broken[0], broken[2], None) if broken else found
                continue
            if found.head.number < self._next_block:
                continue  # a copy of what another file holds, too
            if found.head.number > self._next_block:
                if self._is_in_a_later_file():
                    return
                self._note_gap(found, broken)
            broken = None
            self._next_block = found.head.number + 1
            yield found

    def _is_in_a_later_file(self) -> bool:
        """Whether the next block is to be looked for in the files behind: its writer copied it there."""
        assert self._source is not None, "a file is open"
        later = [path for path in journal_files(self._folder) if path.name > self._source.path.name]
        return any(first is not None and first <= self._next_block for first in map(_first_block, later))

    def _note_gap(self, found: Block, broken: tuple[int, int, str, BlockHead | None] | None) -> None:
        """Blocks are missing between the last one and this one: say where they were."""
        offset, size, what, head = broken or (found.offset, 0, "blocks are missing before this place", None)
        missing = found.head.number - self._next_block
        self.damage.append(Damage(found.path, offset, size, what, self._next_block, missing, head if missing == 1 else None))

    def _begin(self) -> bool:
        """Open the oldest file that holds the next block: the newest that does not begin behind it, and one before that
        only if it holds the block, too."""
        candidates: list[tuple[Path, int | None]] = []
        for path in journal_files(self._folder):
            first = _first_block(path)
            if candidates and first is not None and first > self._next_block:
                break
            if not candidates or first is not None:
                candidates.append((path, first))
        if not candidates:
            return False
        chosen = candidates.pop()[0]
        while candidates and _newest_block(candidates[-1][0], with_bodies=False) >= self._next_block:
            chosen = candidates.pop()[0]
        self._change(chosen)
        return True

    def _following(self) -> Path | None:
        assert self._source is not None, "a file is open"
        behind = [path for path in journal_files(self._folder) if path.name > self._source.path.name]
        return behind[0] if behind else None

    def _change(self, path: Path) -> None:
        self.close()
        self._source = _Source(path)
        if not self._source.begun():
            self._source.offset = HEADER_SIZE


def remove_old(journal: Path, collector: str, decoded: int, before_ms: int, *, whole: bool = False) -> int:
    """Delete what `old_files` finds; returns how many files went."""
    folder = folder_of(journal, collector)
    found = old_files(journal, collector, decoded, before_ms, whole=whole)
    for path in found:
        files.remove(path)
    if whole and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return len(found)


def old_files(journal: Path, collector: str, decoded: int, before_ms: int, *, whole: bool = False) -> list[Path]:
    """Files of a collector of which every block up to `decoded` is in segments and that ended before `before_ms`.

    The newest file with a block stays, so that numbers go on, unless `whole`: then the collector will not write again.
    """
    folder = folder_of(journal, collector)
    firsts: list[tuple[Path, int]] = []
    for path in journal_files(folder):
        with _Source(path) as source:
            first = source.first_block() if source.begun() else None
        if first is not None:
            firsts.append((path, first))
    found: list[Path] = []
    for index, (path, _) in enumerate(firsts):
        is_newest = index + 1 == len(firsts)
        if is_newest and not whole:
            break
        until = 1 + _newest_block(path, with_bodies=True) if is_newest else firsts[index + 1][1]
        if until > decoded + 1 or path.stat().st_mtime_ns // 1_000_000 >= before_ms:
            break
        found.append(path)
    return found


def remove_collector(journal: Path, collector: str) -> None:
    """Delete the whole journal of a collector: of a replay that did not come to its end."""
    folder = folder_of(journal, collector)
    for path in journal_files(folder):
        files.remove(path)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
