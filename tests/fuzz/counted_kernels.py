"""Counts the steps of compiled kernels: their sources get a counter into every loop and function, nothing else changes.

A time is not a test; a number of steps is. `install()` must run before `collector.kernels` is imported, so it belongs into
a process of its own (`fuzz.runner`), with a folder of its own for the compiled code. The counter lies at a fixed address,
because compiled code is kept between processes and cannot know where this process put it.
"""

from __future__ import annotations

import ast
import ctypes
import importlib.machinery
import mmap
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder, SourceLoader
from types import CodeType, ModuleType
from typing import Any

ADDRESS = 0x6000_0000_0000
_PACKAGE = "collector.kernels."
_COUNT = "_count_a_step"
_FIXED = 0x100000  # MAP_FIXED_NOREPLACE


class _Counting(ast.NodeTransformer):
    """A call of the counter as the first statement of every loop and function."""

    def _with_count(self, node: Any) -> Any:
        self.generic_visit(node)
        count = ast.Expr(ast.Call(ast.Name(_COUNT, ast.Load()), [], []))
        place = 1 if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) else 0
        node.body.insert(place, ast.copy_location(count, node.body[0]))
        return node

    visit_FunctionDef = visit_For = visit_While = _with_count


class _Loader(SourceLoader):
    """Reads a kernel file, counting."""

    def __init__(self, path: str) -> None:
        self._path = path

    def get_filename(self, fullname: str) -> str:
        return self._path

    def get_data(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def get_code(self, fullname: str) -> CodeType:
        tree = _Counting().visit(ast.parse(self.get_data(self._path)))
        after = next(
            i
            for i, node in enumerate(tree.body)
            if not isinstance(node, ast.Expr) and not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
        )
        tree.body.insert(after, ast.ImportFrom("fuzz.counted_kernels", [ast.alias("counter", _COUNT)], 0))
        return compile(ast.fix_missing_locations(tree), self._path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        exec(self.get_code(module.__name__), module.__dict__)


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if not fullname.startswith(_PACKAGE) or path is None:
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if found is None or found.origin is None or not found.origin.endswith(".py"):
            return found
        return importlib.machinery.ModuleSpec(fullname, _Loader(found.origin), origin=found.origin)


def _counter() -> Any:
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    @intrinsic
    def count_a_step(typing_context: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            word = ir.IntType(64)
            place = builder.inttoptr(ir.Constant(word, ADDRESS), word.as_pointer())
            builder.store(builder.add(builder.load(place), ir.Constant(word, 1)), place)
            return context.get_dummy_value()

        return types.void(), generate

    return count_a_step


counter: Any = None
_steps: Any = None


def install() -> None:
    """From here on, kernels count."""
    global counter, _steps
    assert not any(name.startswith(_PACKAGE) for name in sys.modules), (
        "kernels were imported before they could be counted"
    )
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    at = libc.mmap(
        ADDRESS, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _FIXED, -1, 0
    )
    assert at == ADDRESS, f"no page at {ADDRESS:#x}: errno {ctypes.get_errno()}"
    _steps = ctypes.c_uint64.from_address(ADDRESS)
    counter = _counter()
    kept = os.environ.get("RATEMILL_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ratemill"
    )
    os.environ["RATEMILL_CACHE_DIR"] = os.path.join(kept, "counted-1")
    sys.meta_path.insert(0, _Finder())


def steps() -> int:
    """Steps since the process began."""
    return int(_steps.value)
