"""A compiled kernel is never older than the source it was made from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from harness import ROOT

from core import jit

KERNEL = """
from core.jit import kernel
from collector.constants import PRICE

@kernel
def price(count):
    return count * PRICE
"""


def _run(tree: Path, cache: Path) -> str:
    code = "from collector.kernels import price; print(price(10))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=True,
                          env={**os.environ, "RATEMILL_CACHE_DIR": str(cache), "PYTHONPATH": str(tree)})  # fmt: skip
    return done.stdout.strip()


def test_an_edited_constant_in_another_file_is_noticed(tmp_path: Path) -> None:
    tree, cache = tmp_path / "tree", tmp_path / "cache"
    (tree / "core").mkdir(parents=True)
    (tree / "collector").mkdir()
    for name in ("__init__.py", "jit.py", "kernel_compiler.py", "product.py"):
        shutil.copy(ROOT / "core" / name, tree / "core" / name)
    (tree / "collector" / "__init__.py").write_text("")
    (tree / "collector" / "kernels.py").write_text(KERNEL)
    (tree / "collector" / "constants.py").write_text("PRICE = 3\n")
    assert _run(tree, cache) == "30"
    assert list(cache.rglob("*.nbi")), "the kernel was cached"
    (tree / "collector" / "constants.py").write_text("PRICE = 7\n")
    assert _run(tree, cache) == "70"


def test_an_edit_elsewhere_keeps_the_cache_and_one_of_a_tuple_does_not(tmp_path: Path) -> None:
    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return jit.stamp(tmp_path, "collector.kernels")

    write("core/jit.py", "from core.product import ROOT\n")
    write("core/product.py", "ROOT = 1\n")
    write("collector/kernels.py", "from core.jit import kernel\n")
    write("collector/commands.py", "from collector import kernels\nfrom subscribers import leases\n")
    write("subscribers/tuples.py", "class Leases(NamedTuple):\n    start: int\n    end: int\n")
    before = write("collector/layout.py", "class State(NamedTuple):\n    one: int\n    two: int\n")
    assert write("collector/commands.py", "from collector import kernels\nfrom subscribers import leases, x\n") == before
    moved = write("collector/layout.py", "class State(NamedTuple):\n    two: int\n    one: int\n")
    assert moved != before, "a kernel reaches fields by their place"
    elsewhere = write("subscribers/tuples.py", "class Leases(NamedTuple):\n    end: int\n    start: int\n")
    assert elsewhere != moved
    assert write("core/product.py", "ROOT = 2\n") != elsewhere


def test_a_kernel_that_many_kernels_call_is_linked_whichever_of_them_comes_first(tmp_path: Path) -> None:
    """LLVM links of a library only what something linked before asks for."""
    functions: dict[str, list[str]] = {"lowest": [], "left": ["lowest"], "right": ["lowest", "left"],
                                       "top": ["lowest", "right", "left"]}
    text = "from core.jit import inline_kernel, kernel\n\n"
    for name, calls in functions.items():
        terms = " + ".join(f"{called}(n) if n > {number} else {called}(2 * n)" for number, called in enumerate(calls))
        mark = "inline_kernel" if name == "right" else "kernel"
        text += f"@{mark}\ndef {name}(n):\n    if n < 0:\n        return {calls[-1] + '(-n)' if calls else '0'}\n"
        text += f"    return {'(' + terms + ')' if calls else 'n + 1'}\n\n"
    (tmp_path / "collector").mkdir()
    shutil.copytree(ROOT / "core", tmp_path / "core")
    (tmp_path / "collector" / "__init__.py").write_text("")
    (tmp_path / "collector" / "kernels.py").write_text(text)
    code = ("from collector.kernels import *; names = (top, left, lowest, right);"
            "print([f(n) for f in names for n in (-3, 0, 1, 5)] == [f.py_func(n) for f in names for n in (-3, 0, 1, 5)])")
    for _ in ("compiled", "from the cache"):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
                              env={**os.environ, "RATEMILL_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)})
        assert done.stdout.strip() == "True"


def test_the_sources_of_a_kernel_file_are_its_own_its_imports_and_tuples_of_the_product() -> None:
    files = {str(path.relative_to(ROOT)) for path in jit.sources_of(ROOT, "collector.kernels.scan")}
    assert {"collector/kernels/scan.py", "core/jit.py", "core/product.py", "collector/layout.py"} <= files
    assert "collector/kernels/rows.py" not in files
    assert "collector/commands.py" not in files
