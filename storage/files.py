"""Files that are whole or absent: tmp → write → fsync → rename → fsync of the folder. The only module that writes files.

Small files have a SHA-256; the many and large ones of flows, which are hashed at the speed of the network, XXH3-128: both
find what a disk can do to a file, and neither file nor digest is proof against who can write both (ADR 0014).
All calls to the operating system go through a `FileSystem`, so that a simulation can lose, tear or refuse any of them.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import xxhash

from core import randomness
from core.errors import DamagedFile, RatemillError

Buffer = bytes | bytearray | memoryview

_READ_SIZE = 1 << 20


class FileSystem(Protocol):
    """What storage needs of the operating system."""

    def create(self, path: Path, mode: int = 0o640) -> int: ...

    def write(self, descriptor: int, data: Buffer) -> int: ...

    def fsync(self, descriptor: int) -> None: ...

    def fdatasync(self, descriptor: int) -> None: ...

    def truncate(self, descriptor: int, size: int) -> None: ...

    def close(self, descriptor: int) -> None: ...

    def rename(self, source: Path, target: Path) -> None: ...

    def fsync_folder(self, folder: Path) -> None: ...

    def remove(self, path: Path) -> None: ...


class SystemFileSystem:
    """The real one."""

    def create(self, path: Path, mode: int = 0o640) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)

    def write(self, descriptor: int, data: Buffer) -> int:
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def fdatasync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)
        os.lseek(descriptor, size, os.SEEK_SET)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def fsync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)


_file_system: FileSystem = SystemFileSystem()


def use(file_system: FileSystem) -> FileSystem:
    """Put another file system in place; returns the one that was there."""
    global _file_system
    before, _file_system = _file_system, file_system
    return before


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; the name of each new one is durable in the one above it. Raises OSError."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        _file_system.fsync_folder(new.parent)


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no reader takes for a finished file."""
    return path.with_name(f".{path.name}.{randomness.token(6)}.tmp")


def write_whole(path: Path, data: Buffer, *, private: bool = False, fast: bool = False) -> str:
    """Write `data` as `path`, replacing what was there; returns its SHA-256, or `fast` its XXH3-128. After a crash the file
    is old or new, whole.

    `private`: readable by its owner only.
    """
    make_folder(path.parent)
    temporary = temporary_name(path)
    try:
        descriptor = _file_system.create(temporary, 0o600) if private else _file_system.create(temporary)
        try:
            _write_all(descriptor, data)
            _file_system.fsync(descriptor)
        finally:
            _file_system.close(descriptor)
        _file_system.rename(temporary, path)
        _file_system.fsync_folder(path.parent)
    except OSError as error:
        _file_system.remove(temporary)
        raise explain(error, path) from error
    return xxhash.xxh3_128_hexdigest(data) if fast else hashlib.sha256(data).hexdigest()


def finish_whole(temporary: Path, path: Path) -> str:
    """Make a file that a library wrote under a temporary name durable and visible as `path`; returns its SHA-256."""
    try:
        digest = digest_of(temporary)
        descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _file_system.fsync(descriptor)
        finally:
            os.close(descriptor)
        _file_system.rename(temporary, path)
        _file_system.fsync_folder(path.parent)
    except OSError as error:
        raise explain(error, path) from error
    return digest


def build_whole(path: Path, build: Callable[[Path], None]) -> str:
    """Let `build` write a temporary file, then make it `path`; nothing is left behind if it fails. Returns the SHA-256."""
    make_folder(path.parent)
    temporary = temporary_name(path)
    try:
        build(temporary)
        return finish_whole(temporary, path)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        _file_system.remove(temporary)


class HashingWriter:
    """A file that a library writes in pieces, hashed on the way: it has a temporary name until `finish`.

    A file object as far as libraries need one. Raises OSError while writing, as they expect; `finish` explains.
    """

    closed = False

    def __init__(self, path: Path) -> None:
        """`path` is the temporary name. Raises RatemillError."""
        self.path = path
        self.size = 0
        self._digest = xxhash.xxh3_128()
        try:
            make_folder(path.parent)
            self._descriptor = _file_system.create(path)
        except OSError as error:
            raise explain(error, path) from error

    def write(self, data: Buffer) -> int:
        view = memoryview(data).cast("B")
        self._digest.update(view)
        _write_all(self._descriptor, view)
        self.size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Nothing is kept back."""

    def finish(self, path: Path) -> str:
        """Make the file durable and visible as `path`; returns its XXH3-128. Raises RatemillError; then nothing is left."""
        try:
            _file_system.fsync(self._descriptor)
            make_folder(path.parent)
            _file_system.rename(self.path, path)
            _file_system.fsync_folder(path.parent)
        except OSError as error:
            self.abandon()
            raise explain(error, path) from error
        self._close()
        return self._digest.hexdigest()

    def abandon(self) -> None:
        """Forget the file."""
        if not self.closed:
            self._close()
            _file_system.remove(self.path)

    def _close(self) -> None:
        self.closed = True
        _file_system.close(self._descriptor)


class Appender:
    """A file that grows by whole pieces: what a failed write left of a piece is cut off again."""

    def __init__(self, path: Path) -> None:
        """Make the file, which must not exist, visible and durable. Raises RatemillError."""
        self.path = path
        self.size = 0
        self._torn = False
        try:
            make_folder(path.parent)
            self._descriptor = _file_system.create(path)
        except OSError as error:
            raise explain(error, path) from error

    def append(self, data: Buffer) -> None:
        """Write a piece behind the others. Raises RatemillError; then the file is as it was before, or will be before the
        next piece: until then readers know the torn one by its checksum."""
        try:
            if self._torn:
                self._cut()
            _write_all(self._descriptor, data)
        except OSError as error:
            self._torn = True
            with suppress(OSError):
                self._cut()
            raise explain(error, self.path) from error
        self.size += memoryview(data).nbytes

    def _cut(self) -> None:
        _file_system.truncate(self._descriptor, self.size)
        self._torn = False

    def sync(self) -> None:
        """Make everything appended durable. Raises RatemillError."""
        try:
            _file_system.fdatasync(self._descriptor)
        except OSError as error:
            raise explain(error, self.path) from error

    def publish(self) -> None:
        """Make the file's name durable as well: once, after its first piece."""
        try:
            _file_system.fsync(self._descriptor)
            _file_system.fsync_folder(self.path.parent)
        except OSError as error:
            raise explain(error, self.path) from error

    def close(self) -> None:
        _file_system.close(self._descriptor)


def share(path: Path, size: int) -> mmap.mmap:
    """A small file as memory that processes share: figures that outlive a kill, but not a power cut. Raises RatemillError."""
    try:
        if not path.exists() or path.stat().st_size != size:
            write_whole(path, bytes(size))
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            return mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise explain(error, path) from error


def remove(path: Path) -> None:
    """Delete a file if it is there."""
    _file_system.remove(path)


def _write_all(descriptor: int, data: Buffer) -> None:
    view = memoryview(data).cast("B")
    while view.nbytes:
        view = view[_file_system.write(descriptor, view) :]


def digest_of(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_SIZE):
            digest.update(piece)
    return digest.hexdigest()


def fast_digest_of(path: Path) -> str:
    """XXH3-128 of a file, read in pieces."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(_READ_SIZE):
            digest.update(piece)
    return digest.hexdigest()


def verify(path: Path, digest: str) -> Path:
    """The path, if its content still has this digest, SHA-256 (64 digits) or XXH3-128 (32). Raises DamagedFile."""
    try:
        found = digest_of(path) if len(digest) == 64 else fast_digest_of(path)
    except FileNotFoundError:
        raise DamagedFile(f"{path} is missing", "restore it from a backup, or replay what it was made from") from None
    except OSError as error:
        raise DamagedFile(f"{path} can't be read: {error.strerror or error}",
                          "correct its owner or mode or look at the kernel's log; else restore it from a backup") from error
    if found != digest:
        raise DamagedFile(
            f"{path} does not match its digest (expected {digest[:16]}…, found {found[:16]}…)",
            "restore it from a backup, or replay what it was made from",
        )
    return path


def explain(error: OSError, path: Path) -> RatemillError:
    """An error of the operating system as one that says what to do."""
    hints = {
        errno.ENOSPC: "the disk is full: free some space and run the same command again, nothing is half written",
        errno.EDQUOT: "the quota is used up: raise it and run the same command again",
        errno.EACCES: "this user may not write there: correct the owner or the mode of the folder",
        errno.EROFS: "the file system is mounted read-only",
        errno.EIO: "the disk reports an error: look at the kernel's log",
    }
    return RatemillError(f"{path} can't be written: {error.strerror or error}", hints.get(error.errno or 0, ""))


def sweep_temporaries(folder: Path) -> int:
    """Delete what writers that were killed left behind in a folder that nobody else writes now; returns how many."""
    leftovers = [path for path in folder.rglob(".*.tmp") if path.is_file()] if folder.is_dir() else []
    for path in leftovers:
        _file_system.remove(path)
    return len(leftovers)
