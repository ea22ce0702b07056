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
    for name in ("__init__.py", "jit.py", "product.py"):
        shutil.copy(ROOT / "core" / name, tree / "core" / name)
    (tree / "collector" / "__init__.py").write_text("")
    (tree / "collector" / "kernels.py").write_text(KERNEL)
    (tree / "collector" / "constants.py").write_text("PRICE = 3\n")
    assert _run(tree, cache) == "30"
    assert list(cache.rglob("*.nbi")), "the kernel was cached"
    (tree / "collector" / "constants.py").write_text("PRICE = 7\n")
    assert _run(tree, cache) == "70"


def test_an_edit_elsewhere_keeps_the_cache(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "collector").mkdir()
    (tmp_path / "core" / "jit.py").write_text("from core.product import ROOT\n")
    (tmp_path / "core" / "product.py").write_text("ROOT = 1\n")
    (tmp_path / "collector" / "kernels.py").write_text("from core.jit import kernel\n")
    (tmp_path / "collector" / "commands.py").write_text("from collector import kernels\n")
    before = jit.stamp(tmp_path, "collector.kernels")
    (tmp_path / "collector" / "commands.py").write_text("from collector import kernels  # edited\n")
    assert jit.stamp(tmp_path, "collector.kernels") == before
    (tmp_path / "core" / "product.py").write_text("ROOT = 2\n")
    assert jit.stamp(tmp_path, "collector.kernels") != before


def test_the_sources_of_a_kernel_file_are_itself_and_what_decorates_it() -> None:
    files = [str(path.relative_to(ROOT)) for path in jit.sources_of(ROOT, "collector.kernels.scan")]
    assert files == ["collector/kernels/scan.py", "core/jit.py", "core/product.py"]
