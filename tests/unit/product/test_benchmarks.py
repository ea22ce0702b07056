"""Benchmarks are not run by the tests, but they must not rot: each imports what it uses, and says how it is used."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest
from harness import ROOT

from benchmarks import __main__ as benchmarks


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_every_module_imports(path: object) -> None:
    import_module(f"benchmarks.{getattr(path, 'stem', '')}")


def test_options_of_several_scenarios_are_refused() -> None:
    assert benchmarks.main(["decode", "receive", "--runs", "1"]) == 2
    assert benchmarks.main(["nothing"]) == 2


def test_a_receiver_loads_neither_arrow_nor_sql() -> None:
    """Its memory is there once a collector, for nothing but datagrams."""
    code = "import sys, collector.receiving; print([m for m in ('pyarrow', 'sqlalchemy', 'duckdb') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout == "[]\n"
