"""A disk that remembers in which order it was asked for things, and what a power cut may leave of them.

`SimulatedDisk` does the real calls below a folder and keeps a log. `crash_states` makes of every prefix of the log the
trees that a disk may hold after a crash: what was not yet synced is there, is gone, is zeros or is torn, each piece on
its own; a name that was not yet synced with its folder is old or new, each name on its own. It is harsher than any one
file system, as storage must not rely on one.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from storage.files import Buffer, SystemFileSystem

ITEMS_MAX = 8
"""So many unsynced items are enumerated, more of them drawn."""


class Kind(Enum):
    """What was asked of the disk. A note is no call: the code under test has promised something here."""

    CREATE = auto()
    FOLDER = auto()
    WRITE = auto()
    TRUNCATE = auto()
    SYNC = auto()
    SYNC_FAILED = auto()
    RENAME = auto()
    REMOVE = auto()
    SYNC_FOLDER = auto()
    NOTE = auto()


@dataclass(frozen=True, slots=True)
class Operation:
    """One entry of the log; paths are relative to the disk's root, a file is known by its inode."""

    kind: Kind
    path: str = ""
    target: str = ""
    inode: int = -1
    offset: int = 0
    data: bytes = b""
    note: object = None


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong at a call: an error, after `written` octets if it is a write; without an error a short write."""

    error: int = 0
    written: int = 0


class SimulatedDisk:
    """The operating system's calls below `root`, logged; the call with a number in `faults` fails as told there."""

    def __init__(self, root: Path, faults: Mapping[int, Fault] | None = None) -> None:
        self.root = root
        self.log: list[Operation] = []
        self.calls: list[str] = []
        self.faults = dict(faults or {})
        self._real = SystemFileSystem()
        self._inodes: dict[str, int] = {}
        self._next_inode = 0
        self._open: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._folders = {"."} | {self._name(path) for path in root.rglob("*") if path.is_dir()}

    def note(self, promise: object) -> None:
        """Log that the code under test has promised something."""
        self.log.append(Operation(Kind.NOTE, note=promise))

    def create(self, path: Path, mode: int = 0o640) -> int:
        self._fail("create", path)
        descriptor = self._real.create(path, mode)
        self._open[descriptor] = self._new(path)
        return descriptor

    def write(self, descriptor: int, data: Buffer) -> int:
        fault = self._fault("write")
        inode = self._open[descriptor]
        piece = bytes(data)
        if fault is not None:
            piece = piece[: fault.written]
        if piece:
            assert self._real.write(descriptor, piece) == len(piece), "the real disk has room"
            self.log.append(Operation(Kind.WRITE, inode=inode, offset=self._sizes[inode], data=piece))
            self._sizes[inode] += len(piece)
        if fault is not None and fault.error:
            raise OSError(fault.error, os.strerror(fault.error))
        return len(piece)

    def fsync(self, descriptor: int) -> None:
        self._sync("fsync", descriptor)

    def fdatasync(self, descriptor: int) -> None:
        self._sync("fdatasync", descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        self._fail("truncate")
        self._real.truncate(descriptor, size)
        inode = self._open[descriptor]
        self.log.append(Operation(Kind.TRUNCATE, inode=inode, offset=size))
        self._sizes[inode] = size

    def close(self, descriptor: int) -> None:
        self._real.close(descriptor)
        self._open.pop(descriptor, None)

    def rename(self, source: Path, target: Path) -> None:
        self._fail("rename", source)
        inode = self._adopt(source)
        self._meet_folder(target.parent)
        self._real.rename(source, target)
        del self._inodes[self._name(source)]
        self._inodes[self._name(target)] = inode
        self.log.append(Operation(Kind.RENAME, self._name(source), self._name(target), inode))

    def fsync_folder(self, folder: Path) -> None:
        self._fail("fsync_folder", folder)
        for new in sorted(path for path in folder.iterdir() if path.is_dir()):
            self._meet_folder(new)
        self.log.append(Operation(Kind.SYNC_FOLDER, self._name(folder)))

    def remove(self, path: Path) -> None:
        self._fail("remove", path)
        if path.exists():
            self._real.remove(path)
            self._inodes.pop(self._name(path), None)
            self.log.append(Operation(Kind.REMOVE, self._name(path)))

    def _sync(self, call: str, descriptor: int) -> None:
        inode = self._open.get(descriptor)
        if inode is None:  # opened by storage itself, to sync what a library wrote
            inode = self._adopt(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        try:
            self._fail(call)
        except OSError:
            self.log.append(Operation(Kind.SYNC_FAILED, inode=inode))
            raise
        self.log.append(Operation(Kind.SYNC, inode=inode))

    def _adopt(self, path: Path) -> int:
        """The inode of a file; one that a library wrote without us is taken as it is now, created and not synced."""
        known = self._inodes.get(self._name(path))
        if known is not None:
            return known
        inode, data = self._new(path), path.read_bytes()
        for at in range(0, len(data), 64):
            self.log.append(Operation(Kind.WRITE, inode=inode, offset=at, data=data[at : at + 64]))
        self._sizes[inode] = len(data)
        return inode

    def _new(self, path: Path) -> int:
        self._meet_folder(path.parent)
        inode, self._next_inode = self._next_inode, self._next_inode + 1
        self._inodes[self._name(path)], self._sizes[inode] = inode, 0
        self.log.append(Operation(Kind.CREATE, self._name(path), inode=inode))
        return inode

    def _meet_folder(self, folder: Path) -> None:
        """Storage makes folders without us: a new one is logged with the first file in it, or when its name is synced."""
        name = self._name(folder)
        if name not in self._folders:
            self._meet_folder(folder.parent)
            self._folders.add(name)
            self.log.append(Operation(Kind.FOLDER, name))

    def _fault(self, call: str) -> Fault | None:
        self.calls.append(call)
        return self.faults.get(len(self.calls) - 1)

    def _fail(self, call: str, path: Path | None = None) -> None:
        fault = self._fault(call)
        if fault is not None and fault.error:
            raise OSError(fault.error, os.strerror(fault.error), None if path is None else str(path))

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.root))


# crashes --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class CrashState:
    """What a disk may hold after a crash behind operation `after`, and what had been promised until then."""

    after: int
    tree: dict[str, bytes]
    promises: Sequence[object]


@dataclass(slots=True)
class _Change:
    """A change of a file's data, or of a folder's entries."""

    operation: Operation
    folders: tuple[str, ...] = ()
    durable: bool = False
    doubtful: bool = False
    """A sync of it has failed: the kernel may have dropped it and call it clean, so that a later sync says nothing."""


@dataclass(slots=True)
class _Disk:
    entries: list[_Change] = field(default_factory=list)
    data: dict[int, list[_Change]] = field(default_factory=dict)

    def apply(self, operation: Operation) -> None:
        kind = operation.kind
        if kind in (Kind.WRITE, Kind.TRUNCATE):
            self.data.setdefault(operation.inode, []).append(_Change(operation))
        elif kind in (Kind.CREATE, Kind.FOLDER, Kind.REMOVE):
            self.entries.append(_Change(operation, (_parent(operation.path),)))
        elif kind is Kind.RENAME:
            source, target = _parent(operation.path), _parent(operation.target)
            if source == target:
                self.entries.append(_Change(operation, (source,)))
            else:  # two folders, two entries that reach the disk each on its own
                link = Operation(Kind.CREATE, operation.target, inode=operation.inode)
                self.entries += [_Change(link, (target,)), _Change(Operation(Kind.REMOVE, operation.path), (source,))]
        elif kind is Kind.SYNC_FOLDER:
            for change in self.entries:
                change.durable = change.durable or operation.path in change.folders
        elif kind is Kind.SYNC_FAILED:
            for change in self.data.get(operation.inode, []):
                change.doubtful = not change.durable
        elif kind is Kind.SYNC:
            for change in self.data.get(operation.inode, []):
                change.durable = change.durable or not change.doubtful


def _parent(path: str) -> str:
    return os.path.dirname(path) or "."


def crash_states(log: Sequence[Operation], *, most: int, seed: int) -> Iterator[CrashState]:
    """The different trees after a crash behind each operation, at most `most` each: all, if there are few, else drawn."""
    disk, promises, drawn = _Disk(), list[object](), random.Random(seed)
    for index, operation in enumerate(log):
        if operation.kind is Kind.NOTE:
            promises.append(operation.note)
        disk.apply(operation)
        seen = set[tuple[tuple[str, bytes], ...]]()
        until = tuple(promises)
        for tree in _trees(disk, most, drawn):
            key = tuple(sorted(tree.items()))
            if key not in seen:
                seen.add(key)
                yield CrashState(index, tree, until)


# A fate is (octets that are there, octets of size): (n, n) there, (0, 0) gone, (0, n) zeros, (k, n) and (k, k) torn.
_Fate = tuple[int, int]


def _fates(change: _Change, drawn: random.Random, tears: int = 1) -> list[_Fate]:
    size = len(change.operation.data)
    if change.operation.kind is not Kind.WRITE:
        return [(1, 1), (0, 0)]
    places = drawn.sample(range(1, size), min(tears, size - 1))
    return [(size, size), (0, 0), (0, size), *((at, of) for at in places for of in (size, at))]


def _trees(disk: _Disk, most: int, drawn: random.Random) -> Iterator[dict[str, bytes]]:
    living = {change.operation.inode for change in disk.entries}
    unsynced = [change for change in disk.entries if not change.durable]
    unsynced += [change for inode, all_of in disk.data.items() if inode in living for change in all_of if not change.durable]
    for tears in (64, 32, 16, 8, 4, 2, 1):  # as many places to tear as there is room for
        fates = [_fates(change, drawn, tears) for change in unsynced]
        if math.prod(map(len, fates)) <= most:
            break
    if len(unsynced) <= ITEMS_MAX and math.prod(map(len, fates)) <= most:
        for chosen in itertools.product(*fates):
            yield _tree(disk, {id(change): fate for change, fate in zip(unsynced, chosen, strict=True)})
        return
    for turn in range(most):  # nothing lost and all lost first, then at random, and torn elsewhere each time
        picked = [all_of[turn] if turn < 2 else drawn.choice(all_of) for all_of in fates]
        for index, change in enumerate(unsynced):
            if turn >= 2 and change.operation.kind is Kind.WRITE and drawn.random() < 0.3:
                picked[index] = drawn.choice(_fates(change, drawn))
        yield _tree(disk, {id(change): fate for change, fate in zip(unsynced, picked, strict=True)})


def _tree(disk: _Disk, fates: Mapping[int, _Fate]) -> dict[str, bytes]:
    """The tree that is left when each unsynced change has its fate."""
    names, lost = dict[str, int](), set[str]()
    for change in disk.entries:
        operation = change.operation
        there = fates.get(id(change), (1, 1))[0] == 1
        if operation.kind is Kind.FOLDER:
            if not there:
                lost.add(operation.path + "/")
        elif there:
            if operation.kind is not Kind.CREATE:
                names.pop(operation.path, None)
            if operation.kind is not Kind.REMOVE:
                names[operation.target or operation.path] = operation.inode
    held = {name: inode for name, inode in names.items() if not any(name.startswith(folder) for folder in lost)}
    return {name: _content(disk.data.get(inode, []), fates) for name, inode in held.items()}


def _content(changes: Sequence[_Change], fates: Mapping[int, _Fate]) -> bytes:
    content = bytearray()
    for change in changes:
        operation = change.operation
        if operation.kind is Kind.TRUNCATE:
            if fates.get(id(change), (1, 1))[0]:
                content = content[: operation.offset].ljust(operation.offset, b"\0")
            continue
        there, size = fates.get(id(change), (len(operation.data), len(operation.data)))
        end = operation.offset + size
        if size:
            content = content.ljust(end, b"\0")
            content[operation.offset : operation.offset + there] = operation.data[:there]
    return bytes(content)


# disks with a bug -----------------------------------------------------------------------------------------------------
class ForgetsToSyncFiles(SimulatedDisk):
    """As if storage did not sync a file before it renames it, or an appended block."""

    def _sync(self, call: str, descriptor: int) -> None:
        self.calls.append(call)


class ForgetsToSyncFolders(SimulatedDisk):
    """As if storage did not sync the folder after a rename."""

    def fsync_folder(self, folder: Path) -> None:
        self.calls.append("fsync_folder")


class WritesUnderTheFinalName(SimulatedDisk):
    """As if storage wrote in place, without a temporary name."""

    def create(self, path: Path, mode: int = 0o640) -> int:
        name = path.name
        final = path.with_name(name[1:].rsplit(".", 2)[0]) if name.startswith(".") else path
        self.remove(final)
        return super().create(final, mode)

    def rename(self, source: Path, target: Path) -> None:
        self.calls.append("rename")


FULL = Fault(errno.ENOSPC)
BROKEN = Fault(errno.EIO)
