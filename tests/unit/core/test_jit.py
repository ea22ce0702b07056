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


def test_a_package_sees_itself_and_the_layers_below_but_not_its_siblings() -> None:
    assert jit.visible("aggregation") == ["core", "storage", "runtime", "security", "subscribers", "aggregation"]
    assert jit.visible("core") == ["core"]
