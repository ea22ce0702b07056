"""The only place with numba flags, and the place where compiled kernels are cached.

Numba's own cache does not notice a change in a callee, a constant or a flag that lives in *another* file: a new process
goes on returning the old result. Two rules follow. A kernel file is self-contained (numpy and the decorators of this
module only; constants of other modules come in as arguments), and the cache of a package's kernels lies in a folder named
by a hash of numba's version and of every source file that the import rule lets this package see (its own and those of the
layers below), so that any edit that could matter starts an empty cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numba

from core.product import ROOT

Kernel = Callable[..., Any]

STAMPS_KEPT = 4
LAYERS = (
    ("core",),
    ("storage",),
    ("runtime",),
    ("security",),
    ("subscribers",),
    ("collector", "aggregation", "rating"),
    ("ledger",),
    ("invoicing",),
    ("monitoring",),
)
"""The import rule of the product, lowest first; tests hold it against import-linter's contract."""


def visible(package: str) -> list[str]:
    """The packages whose code a kernel of `package` could call or take a constant from."""
    below: list[str] = []
    for layer in LAYERS:
        if package in layer:
            return [*below, package]
        below.extend(layer)
    return below


def stamp(root: Path, packages: Iterable[str]) -> str:
    """A hash of the packages' sources, of numba's version and of the interpreter's: the name of their cache folder."""
    digest = hashlib.sha256(f"{numba.__version__} {sys.version_info[:3]}".encode())
    for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:20]


def cache_root() -> Path:
    """Where compiled kernels are kept: `RATEMILL_CACHE_DIR`, else the user's cache directory."""
    named = os.environ.get("RATEMILL_CACHE_DIR")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ratemill"


def _prune(folder: Path) -> None:
    """Forget the caches of old sources, so that they can't grow without bound."""
    week_ago = time.time() - 7 * 86400
    try:
        others = sorted(
            (p for p in folder.parent.iterdir() if p != folder), key=lambda p: p.stat().st_mtime, reverse=True
        )
        for old in others[STAMPS_KEPT:]:
            if old.stat().st_mtime < week_ago:
                shutil.rmtree(old, ignore_errors=True)
    except OSError:
        return  # another process prunes at this moment: it does the same work


@cache
def cache_folder(package: str) -> Path | None:
    """The folder of the compiled kernels of `package`, made if need be; None where none can be written."""
    folder = cache_root() / "kernels" / package / stamp(ROOT, visible(package))
    if not folder.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:  # a read-only home directory: compile in every process rather than fail
            return None
        _prune(folder)
    return folder


def _compile(function: Kernel, **flags: bool) -> Kernel:
    folder = cache_folder(function.__module__.partition(".")[0])
    if folder is not None:
        numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]  # read by numba while it decorates
    compile_: Callable[..., Callable[[Kernel], Kernel]] = numba.njit
    decorate = compile_(
        nogil=True, cache=folder is not None, error_model="numpy", fastmath=False, boundscheck=False, **flags
    )
    return decorate(function)


def kernel(function: Kernel) -> Kernel:
    """Compile a hot loop: arrays in, arrays out, fault codes back, never an exception, no interpreter lock held."""
    return _compile(function)


def inline_kernel(function: Kernel) -> Kernel:
    """A small step of a kernel in the same file, always merged into its caller by LLVM."""
    return _compile(function, forceinline=True)


def is_cold(package: str) -> bool:
    """Whether the kernels of this package have not been compiled from these sources on this machine yet."""
    folder = cache_folder(package)
    return folder is None or not any(folder.rglob("*.nbi"))
