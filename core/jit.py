"""The only place with numba flags, and the place where compiled kernels are cached.

Kernels are compiled without numba's run time: memory comes in as arguments, and no reference is counted. (Measured on the
decoder, whose kernels take tuples of arrays: 248 ns a flow with reference counting, 149 without.)

Numba's own cache does not notice a change in a callee, a constant or a flag that lives in *another* file: a new process
goes on returning the old result. So a kernel file imports numpy, this module and kernel files of its own package only
(constants of other modules come in as arguments), and its compiled code lies in a folder named by a hash of numba's version,
of this file, of the kernel file, of every source file of the product that it imports, directly or not, and of those that
define the tuples that it may be handed: any edit that could matter starts an empty cache, any other edit keeps it.
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
from typing import Any, NamedTuple

import numba

from core.product import ROOT

Kernel = Callable[..., Any]

PACKAGES = ("core", "storage", "runtime", "security", "subscribers", "collector", "aggregation", "rating", "ledger",
            "invoicing", "monitoring")
"""The product's packages: beside them, once installed, lie those of others. A test holds it against the import rule."""
STAMPS_KEPT = 4
"""Caches of older sources that are kept of a file, for machines with several versions side by side."""
_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+([\w, \t]+|\()|import[ \t]+([\w.]+))", re.MULTILINE)
_TUPLE = "(NamedTuple)"


def _module_file(root: Path, module: str) -> Path | None:
    """The source of a module of the product; None for a library's."""
    if module.partition(".")[0] not in PACKAGES:
        return None
    path = root.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def sources_of(root: Path, module: str) -> list[Path]:
    """The files of the product whose edits could change what a kernel of this module does.

    That is the module itself, all it imports, and, of the packages at hand (its own, and those that its modules import
    from), every file that defines a tuple: a kernel reaches the fields of a tuple by the order that they had when it was
    compiled.
    """
    found: dict[Path, None] = {}
    wanted = [module]
    while wanted:
        path = _module_file(root, wanted.pop())
        if path is not None and path not in found:
            found[path] = None
            wanted.extend(_source(path).imports)
    package = module.partition(".")[0]
    nearby, names = {package}, {package, "core"}
    while nearby:
        for path in (root / nearby.pop()).rglob("*.py"):
            source = _source(path)
            if source.defines_tuple:
                found[path] = None
            new = source.packages - names
            nearby |= new
            names |= new
    return sorted(found)


class _Source(NamedTuple):
    """What a stamp needs to know of a file."""

    digest: bytes
    imports: list[str]
    packages: frozenset[str]
    defines_tuple: bool


def _source(path: Path) -> _Source:
    found = path.stat()
    return _read_source(path, found.st_mtime_ns, found.st_size, found.st_ino)


@cache  # thirty modules with kernels ask for the same hundred files as a command starts
def _read_source(path: Path, _modified: int, _size: int, _inode: int) -> _Source:
    octets = path.read_bytes()
    text = octets.decode()
    imports = _imported(text)
    packages = frozenset(name.partition(".")[0] for name in imports) & frozenset(PACKAGES)
    return _Source(hashlib.sha256(octets).digest(), imports, packages, _TUPLE in text)


def _imported(text: str) -> list[str]:
    """Modules that a source imports, and names that could be modules."""
    modules = []
    for source, names, plain in _IMPORT.findall(text):
        modules.append(source or plain)
        modules.extend(f"{source}.{name.split()[0]}" for name in names.split(",") if source and name.strip("( \t"))
    return modules


def stamp(root: Path, module: str) -> str:
    """A hash of the sources of a module's kernels, of numba's version and of the interpreter's."""
    digest = hashlib.sha256(f"{numba.__version__} {sys.version_info[:3]}".encode())
    for path in sources_of(root, module):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(_source(path).digest)
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
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]  # as tests run kernels to see what coverage they have
        return function
    from core.kernel_compiler import KernelDispatcher

    options = {  # without numba's run time no kernel can allocate, and none counts references
        "nopython": True, "nogil": True, "_nrt": False, "error_model": "numpy", "fastmath": False, "boundscheck": False,
        "no_cfunc_wrapper": True, **flags,
    }
    made = KernelDispatcher(function, options)
    folder = cache_folder(function.__module__)
    if folder is not None:
        numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]  # read by numba as it looks for the cache
        made.enable_caching()
    return made


def kernel(function: Kernel) -> Kernel:
    """Compile a hot loop: arrays in, arrays out, fault codes back, never an exception, no interpreter lock held."""
    return _compile(function)


def inline_kernel(function: Kernel) -> Kernel:
    """A small step of other kernels, always merged into its caller by LLVM."""
    return _compile(function, forceinline=True)


def is_cold(*modules: str) -> bool:
    """Whether kernels of one of these modules have not been compiled from these sources on this machine yet."""
    folders = [cache_folder(module) for module in modules]
    return any(folder is None or not any(folder.rglob("*.nbi")) for folder in folders)


# Loads ----------------------------------------------------------------------------------------------------------------
# A number of several octets at any place of an array of octets, as one machine instruction. Written octet by octet in
# Python, the compiler keeps the handling of negative indexes between the octets and does not see that it is one load.
def _load(width: int, big_endian: bool) -> Kernel:
    """A function (data: uint8 array, at: integer) -> int64, or uint64 for eight octets in the machine's order."""
    import numpy as np

    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]  # as tests run kernels to see what coverage they have
        def slow(data: Any, at: Any) -> Any:  # octet by octet: an index outside is found
            octets = bytes(int(data[at + k]) for k in range(width))
            value = int.from_bytes(octets, "big" if big_endian else "little")
            return np.uint64(value) if width == 8 and not big_endian else np.uint64(value).astype(np.int64)

        return slow

    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic

    def load(typing: Any, data: Any, at: Any) -> Any:
        result = types.uint64 if width == 8 and not big_endian else types.int64

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            index = context.cast(builder, arguments[1], signature.args[1], types.intp)
            word = ir.IntType(8 * width)
            address = builder.gep(array.data, [index])
            value = builder.load(builder.bitcast(address, word.as_pointer()), align=1)
            if big_endian:
                value = builder.bswap(value)
            return value if width == 8 else builder.zext(value, ir.IntType(64))

        return result(data, at), generate

    made: Kernel = intrinsic(load)
    return made


load_be16 = _load(2, True)
load_be32 = _load(4, True)
load_be64 = _load(8, True)
load_le32 = _load(4, False)
load_le64 = _load(8, False)


def _prefetch() -> Kernel:
    """A function (array of rows, row) that asks for the line of memory where a row begins, without waiting for it."""
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return lambda rows, row: None

    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic

    def ask(typing: Any, rows: Any, row: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            from numba.core import cgutils

            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            index = context.cast(builder, arguments[1], signature.args[1], types.intp)
            stride = builder.extract_value(array.strides, 0)
            octet = ir.IntType(8).as_pointer()
            address = builder.gep(builder.bitcast(array.data, octet), [builder.mul(index, stride)],
                                  source_etype=ir.IntType(8))
            word = ir.IntType(32)
            function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
                builder.module, ir.FunctionType(ir.VoidType(), [octet, word, word, word]), "llvm.prefetch.p0")
            builder.call(function, [address, word(0), word(3), word(1)])  # to read, into every cache, data
            return context.get_dummy_value()

        return types.none(rows, row), generate

    made: Kernel = intrinsic(ask)
    return made


prefetch = _prefetch()
