"""The wheel holds all that the product needs, and works from another directory without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from harness import ROOT

from storage.migrations import known


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (made,) = folder.glob("ratemill-*.whl")
    return made


def test_the_wheel_holds_migrations_data_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {migration.path.relative_to(ROOT).as_posix() for migration in known()} <= names
    assert {"cli.py", "data/systemd/ratemill.service", "data/demo/plans.toml"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]


def test_the_wheel_makes_a_home_from_another_directory(wheel: Path, tmp_path: Path) -> None:
    installed, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    zipfile.ZipFile(wheel).extractall(installed)
    elsewhere.mkdir()

    def ratemill(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cli", *words], cwd=elsewhere, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(installed), "RATEMILL_HOME": str(tmp_path / "home")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [sys.executable, "-c", "import core.jit; print(core.jit.__file__)"], cwd=elsewhere, text=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )  # fmt: skip
    assert where.stdout.startswith(str(installed)), "the wheel is what runs, not the checkout"
    assert ratemill("--version").startswith("ratemill ")
    assert json.loads(ratemill("init", "--tax", "19"))["written"] is True
    assert json.loads(ratemill("config", "check"))["problems"] == []
    assert json.loads(ratemill("status"))["problems"] == []
