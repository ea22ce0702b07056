"""The only place with numba flags, and the place where compiled kernels are cached.

Kernels are compiled without numba's run time: memory comes in as arguments, and no reference is counted. (Measured on the
decoder, whose kernels take tuples of arrays: 248 ns a flow with reference counting, 149 without.)

Numba's own cache does not notice a change in a callee, a constant or a flag that lives in *another* file: a new process
goes on returning the old result. So a kernel file is self-contained (numpy and the decorators of this module only; constants
of other modules come in as arguments), and its compiled code lies in a folder named by a hash of numba's version, of this
file, of the kernel file and of every source file of the product that it imports, directly or not: any edit that could
matter starts an empty cache, any other edit keeps it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

from core.product import ROOT

Kernel = Callable[..., Any]

STAMPS_KEPT = 4
"""Caches of older sources that are kept of a file, for machines with several versions side by side."""
_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+([\w, \t]+|\()|import[ \t]+([\w.]+))", re.MULTILINE)


def _module_file(root: Path, module: str) -> Path | None:
    """The source of a module of the product; None for a library's."""
    path = root.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def sources_of(root: Path, module: str) -> list[Path]:
    """The files of the product whose edits could change what a kernel of this module does: itself and all it imports."""
    found: dict[Path, None] = {}
    wanted = [module]
    while wanted:
        path = _module_file(root, wanted.pop())
        if path is None or path in found:
            continue
        found[path] = None
        for source, names, plain in _IMPORT.findall(path.read_text(encoding="utf-8")):
            wanted.append(source or plain)
            wanted.extend(f"{source}.{name.split()[0]}" for name in names.split(",") if source and name.strip("( \t"))
    return sorted(found)


def stamp(root: Path, module: str) -> str:
    """A hash of the sources of a module's kernels, of numba's version and of the interpreter's."""
    digest = hashlib.sha256(f"{numba.__version__} {sys.version_info[:3]}".encode())
    for path in sources_of(root, module):
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
def cache_folder(module: str) -> Path | None:
    """The folder of the compiled kernels of `module`, made if need be; None where none can be written."""
    folder = cache_root() / "kernels" / module / stamp(ROOT, module)
    if not folder.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:  # a read-only home directory: compile in every process rather than fail
            return None
        _prune(folder)
    return folder


def _compile(function: Kernel, **flags: bool) -> Kernel:
    folder = cache_folder(function.__module__)
    if folder is not None:
        numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]  # read by numba while it decorates
    compile_: Callable[..., Callable[[Kernel], Kernel]] = numba.njit
    decorate = compile_(  # without numba's run time no kernel can allocate, and none counts references
        nogil=True, _nrt=False, cache=folder is not None, error_model="numpy", fastmath=False, boundscheck=False, **flags
    )
    return decorate(function)


def kernel(function: Kernel) -> Kernel:
    """Compile a hot loop: arrays in, arrays out, fault codes back, never an exception, no interpreter lock held."""
    return _compile(function)


def inline_kernel(function: Kernel) -> Kernel:
    """A small step of a kernel in the same file, always merged into its caller by LLVM."""
    return _compile(function, forceinline=True)


def is_cold(*modules: str) -> bool:
    """Whether kernels of one of these modules have not been compiled from these sources on this machine yet."""
    folders = [cache_folder(module) for module in modules]
    return any(folder is None or not any(folder.rglob("*.nbi")) for folder in folders)
