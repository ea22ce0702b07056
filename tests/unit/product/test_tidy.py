"""The code checks itself: what STYLE promises about files, words, imports and pages holds for every file."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT

import cli
from core import jit
from core.settings import SECTIONS
from monitoring import sections

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["importlinter"]["root_packages"]
SKIPPED = {".venv", ".git", "__pycache__", "demo-home", "dist"}
LINES_MAX = 700

BANNED_WORDS = ["TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK"]
HOSTS = ["pypi" + ".org", "python" + "hosted", "dev" + "pi", "arti" + "factory"]
PLACES = ["/" + "work/", "/" + "root/", "/" + "home/runner"]


def every_file(*suffixes: str) -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        skipped = SKIPPED & set(parts) or any(p.endswith("_cache") or p == ".hypothesis" for p in parts)
        if path.is_file() and not skipped and (not suffixes or path.suffix in suffixes):
            yield path


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_kernel(path: Path) -> bool:
    return path.name.startswith("kernels") or path.parent.name == "kernels"


def sources() -> Iterator[Path]:
    yield ROOT / "cli.py"
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def test_no_file_is_too_long_to_read() -> None:
    too_long = {
        named(path): count
        for path in every_file(".py")
        if (count := len(path.read_text().splitlines())) > LINES_MAX
    }
    assert not too_long


def test_nothing_is_left_for_later() -> None:
    pattern = re.compile(r"\b(" + "|".join(BANNED_WORDS) + r")\b")
    found = [
        named(path) for path in every_file(".py", ".md", ".toml", ".sql", ".typ") if pattern.search(path.read_text())
    ]
    assert not found


def test_no_file_names_a_registry_or_a_place_of_one_machine() -> None:
    found = []
    for path in every_file():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{named(path)}: {word}" for word in (*HOSTS, *PLACES) if word in text]
        if re.search(r"(?<!no-emit-)index-url", text) and path.suffix in (".lock", ".toml", ".cfg"):
            found.append(f"{named(path)}: an index")
    assert not found


def test_every_locked_package_has_a_hash() -> None:
    for path in sorted(ROOT.glob("requirements*.lock")):
        blocks = re.split(r"\n(?=[a-z0-9])", path.read_text().strip())
        without = [block.splitlines()[0] for block in blocks if "==" in block and "--hash=sha256:" not in block]
        assert blocks, path.name
        assert not without, path.name


def test_tests_are_no_packages() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py")), "it would shadow the package that it tests"


def test_every_module_says_what_it_is() -> None:
    silent = [
        named(path)
        for path in sources()
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield ("." * node.level) + (node.module or "")


def test_a_kernel_file_imports_kernel_files_only() -> None:
    """numba's cache would not notice a change elsewhere; `core.jit` looks at the files that a kernel file names."""
    found = {
        named(path): name
        for path in sources()
        if is_kernel(path)
        for name in imports_of(path)
        if name != "core.jit" and not name.startswith(f"{path.relative_to(ROOT).parts[0]}.kernels")
        and (name.startswith(".") or name.partition(".")[0] in PACKAGES)
    }
    assert not found


def test_only_one_module_decides_how_kernels_are_compiled() -> None:
    found = []
    for path in sources():
        if path.name != "jit.py" and re.search(r"@(numba\.)?(n?jit|vectorize)\b|numba\.config", path.read_text()):
            found.append(named(path))
    assert not found


def test_time_and_randomness_come_from_one_place() -> None:
    """A simulation can drive the real code only if nobody asks the machine behind its back."""
    banned = re.compile(
        r"\b(time\.(time|time_ns|monotonic|monotonic_ns|sleep)\(|datetime\.now\(|date\.today\(|random\.random\()"
    )
    allowed = {"core/clock.py", "core/randomness.py", "core/jit.py"}
    found = [named(path) for path in sources() if named(path) not in allowed and banned.search(path.read_text())]
    assert not found


def test_every_package_has_its_layer_in_the_import_rule() -> None:
    (layers,) = (c["layers"] for c in PROJECT["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    assert sorted(name.strip() for layer in layers for name in layer.split("|")) == sorted(PACKAGES)
    assert sorted(jit.PACKAGES) == sorted(PACKAGES)


def test_every_package_is_in_the_wheel() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["only-include"]) == {"cli.py", "data", *PACKAGES}


def test_the_import_rule_holds() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_section_of_the_settings_has_its_dataclass() -> None:
    assert {section.name for section in sections.all_sections()} == set(SECTIONS)
    for section in sections.all_sections():
        assert section.sentence, f"{section.heading} has no sentence"


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    """The reference pages as the code would write them now, made by a process of its own."""
    code = (
        "import json, sys; sys.path.insert(0, 'docs'); import generate; "
        "print(json.dumps({path.name: text for path, text in generate.pages().items()}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(loaded, dict)
    return loaded


def test_the_reference_is_up_to_date(reference: dict[str, str]) -> None:
    stale = [
        name
        for name, text in reference.items()
        if not (path := ROOT / "docs" / "reference" / name).exists() or path.read_text(encoding="utf-8") != text
    ]
    assert not stale, "run `make docs`"


def test_every_command_has_its_place_in_the_reference(reference: dict[str, str]) -> None:
    for noun in cli.COMMANDS:
        assert f"## ratemill {noun}\n" in reference["commands.md"]


def test_every_link_between_pages_leads_somewhere() -> None:
    broken = []
    for path in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            if not target.startswith(("http:", "https:", "mailto:")) and not (path.parent / target).exists():
                broken.append(f"{named(path)} → {target}")
    assert not broken
