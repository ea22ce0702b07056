"""Mutation testing of the modules that reckon money: `make mutants`.

One mistake at a time is made in a module (an operator, a comparison, a number, a condition, a return value), and the tests
that stand for it are run in a process of its own, as far as the first that fails. A mistake that no test notices is printed
with its line. (Mutmut and cosmic-ray change the sources on disk or import them by other means than the kernels' cache allows.)

    python -m mutation.mutants [MODULE ...] [--every N] [--seconds S]
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
TESTS = {
    "core/money.py": ["tests/unit/core", "tests/unit/rating", "tests/unit/invoicing"],
    "rating/proration.py": ["tests/unit/rating", "tests/property/rating"],
    "rating/quotas.py": ["tests/unit/rating", "tests/property/rating"],
    "rating/engine.py": ["tests/unit/rating", "tests/property/rating"],
    "rating/columns.py": ["tests/property/rating"],
    "invoicing/taxes.py": ["tests/unit/invoicing"],
    "invoicing/lines.py": ["tests/unit/invoicing", "tests/property/invoicing"],
}
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}


def mutants(tree: ast.Module) -> Iterator[tuple[int, str, ast.Module]]:
    """(line, what was done, the module with it), one mistake each; nothing within assertions, types or docstrings."""
    for number, node in enumerate(_nodes(tree)):
        for what, change in _changes(node):
            changed = copy.deepcopy(tree)
            change(list(_nodes(changed))[number])
            yield getattr(node, "lineno", 0), what, ast.fix_missing_locations(changed)


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes in a fixed order, without what no test could tell."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Assert | ast.AnnAssign | ast.arguments | ast.Import | ast.ImportFrom | ast.JoinedStr):
            continue
        yield child
        yield from _nodes(child)


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[Any], object]]]:
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in SWAPS:
        new = SWAPS[type(node.op)]
        yield f"{type(node.op).__name__} → {new.__name__}", lambda one: setattr(one, "op", new())
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in SWAPS:
        swap = SWAPS[type(node.ops[0])]
        yield f"{type(node.ops[0]).__name__} → {swap.__name__}", lambda one: setattr(one, "ops", [swap()])
    if isinstance(node, ast.Constant) and type(node.value) is int:
        value = node.value
        yield f"{value} → {value + 1}", lambda one: setattr(one, "value", value + 1)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not dropped", lambda one: setattr(one, "operand", ast.UnaryOp(ast.Not(), one.operand))
    if isinstance(node, ast.IfExp):
        yield "branches swapped", _swap_branches
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("min", "max"):
        other = "max" if node.func.id == "min" else "min"
        yield f"{node.func.id} → {other}", lambda one: setattr(one.func, "id", other)


def _swap_branches(node: ast.IfExp) -> None:
    node.body, node.orelse = node.orelse, node.body


def survives(module: str, source: str, seconds: int) -> bool:
    """Whether all tests pass with this source in the place of the module's."""
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / "mutant.py"
        changed.write_text(source, encoding="utf-8")
        code = (
            "import sys, importlib.util, pytest\n"
            f"name = {module.removesuffix('.py').replace('/', '.')!r}\n"
            "class Finder:\n"
            "    @staticmethod\n"
            "    def find_spec(wanted, path=None, target=None):\n"
            "        if wanted == name:\n"
            f"            return importlib.util.spec_from_file_location(name, {str(changed)!r})\n"
            "sys.meta_path.insert(0, Finder)\n"
            f"sys.exit(pytest.main(['-q', '-x', '-p', 'no:cacheprovider', '--hypothesis-seed=1', *{TESTS[module]!r}]))\n")
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return False  # a loop without end is noticed, too
        return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mutation.mutants")
    parser.add_argument("modules", nargs="*", default=list(TESTS), metavar="MODULE")
    parser.add_argument("--every", type=int, default=1, help="Only each N-th mutant.")
    parser.add_argument("--seconds", type=int, default=300, help="Longest time of the tests.")
    given = parser.parse_args()
    for module in given.modules:
        tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
        assert survives(module, ast.unparse(tree), given.seconds), f"the tests of {module} fail without a mistake"
        tried = killed = 0
        for number, (line, what, changed) in enumerate(mutants(tree)):
            if number % given.every == 0:
                tried += 1
                if survives(module, ast.unparse(changed), given.seconds):
                    print(f"{module}:{line}: nobody noticed {what}", flush=True)
                else:
                    killed += 1
        print(f"{module}: {killed} of {tried} mistakes were noticed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
