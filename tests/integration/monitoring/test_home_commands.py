"""init, config check and status as an operator meets them."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from harness import ROOT, rows, run_cli

from core.settings import SECTIONS


def test_init_writes_every_section_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    words = ("init", "--name", 'Demo "Net"', "--country", "de", "--timezone", "Europe/Berlin", "--tax", "19")
    assert rows(run_cli(*words, home=home))[0]["written"] is True
    text = (home / "ratemill.toml").read_text()
    document = tomllib.loads(text)
    assert document["seller"] == {
        "name": 'Demo "Net"',
        "country": "DE",
        "tax_id": "",
        "address": "",
        "iban": "",
        "currency": "EUR",
        "timezone": "Europe/Berlin",
    }
    assert document["tax"][0]["percent"] == "19"
    for name in SECTIONS:
        assert f"[{name}]" in text, f"[{name}] is not explained"
    assert (home / "ratemill.db").is_file()
    assert rows(run_cli(*words, home=home))[0]["written"] is False
    assert (home / "ratemill.toml").read_text() == text


def test_every_line_that_init_comments_out_is_right_when_the_mark_is_taken_away(tmp_path: Path) -> None:
    run_cli("init", home=tmp_path)
    path = tmp_path / "ratemill.toml"
    lines = []
    for line in path.read_text().splitlines():
        bare = line.removeprefix("# ")
        is_setting = line.startswith("# ") and (bare.startswith("[") or " = " in bare) and not bare.endswith(".")
        lines.append(bare if is_setting else line)
    path.write_text("\n".join(lines))
    checked = rows(run_cli("config", "check", home=tmp_path))[0]
    assert checked["problems"] == []
    assert tomllib.loads(path.read_text()).keys() == SECTIONS.keys()


def test_init_never_overwrites_another_file(tmp_path: Path) -> None:
    (tmp_path / "ratemill.toml").write_text("[seller]\n")
    refused = run_cli("init", home=tmp_path, check=1)
    assert "is there already" in refused.stderr
    assert (tmp_path / "ratemill.toml").read_text() == "[seller]\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--currency", "euro"), "not a currency code"),
        (("--timezone", "Europe/Berlinn"), "did you mean Europe/Berlin?"),
        (("--tax", "1900"), "not between 0 and 100"),
        (("--name", "two\nlines"), "one line of text"),
    ],
)
def test_an_impossible_choice_leaves_no_home(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    refused = run_cli("init", *words, home=tmp_path / "home", check=2)
    assert said in refused.stderr
    assert not (tmp_path / "home").exists()


def test_config_check_names_every_problem_at_once(tmp_path: Path) -> None:
    (tmp_path / "ratemill.toml").write_text(
        '[sellr]\n[seller]\nnme = 3\ncurrency = "euro"\n[[tax]]\n[[tax]]\ncategory = 4\n'
        '[time]\nskew_seconds_max = -1\n[run]\nstop_seconds_max = "soon"\n'
    )
    checked = run_cli("config", "check", home=tmp_path, check=1)
    problems = "\n".join(rows(checked)[0]["problems"])
    for said in (
        "unknown section 'sellr', did you mean 'seller'?",
        "unknown key 'nme', did you mean 'name'?",
        "'euro' is not a currency code",
        "[[tax]] number 1: category is missing",
        "[[tax]] number 2: category: 4 is not a text",
        "[time]",
        "[run]",
    ):
        assert said in problems
    assert not (tmp_path / "ratemill.db").exists(), "a home with wrong settings is not touched"


def test_config_check_says_where_the_toml_is_broken(tmp_path: Path) -> None:
    (tmp_path / "ratemill.toml").write_text("[seller]\nname = \n")
    assert "line 2" in run_cli("config", "check", home=tmp_path, check=1).stderr


def test_config_check_without_a_home_says_how_to_make_one(tmp_path: Path) -> None:
    assert "ratemill init" in run_cli("config", "check", home=tmp_path / "none", check=1).stderr


def test_status_is_one_object_with_everything_at_rest(tmp_path: Path) -> None:
    run_cli("init", home=tmp_path)
    (found,) = rows(run_cli("status", home=tmp_path))
    assert found["segments"] == found["services"] == 0
    assert found["problems"] == []
    assert found["lag"]["aggregate_segments"] == 0


def test_status_tells_of_a_process_that_vanished_and_of_kernel_drops(tmp_path: Path) -> None:
    run_cli("init", home=tmp_path)
    told = {"state": "running", "pid": 2**22 + 1, "durable": 12, "decoded": 5, "kernel_drops": 3}
    (tmp_path / "run" / "collector-main.json").write_text(json.dumps(told))
    (tmp_path / "run" / "torn.json").write_text("{")
    (found,) = rows(run_cli("status", home=tmp_path))
    problems = "\n".join(found["problems"])
    assert "ended without saying so" in problems
    assert "dropped 3 datagrams" in problems
    assert "torn.json in run/ can't be read" in problems
    assert found["lag"]["decode_datagrams"] == 7


def test_the_version_comes_without_the_heavy_modules() -> None:
    heavy = ("numba", "numpy", "pyarrow", "duckdb", "sqlalchemy", "typer", "rich")
    code = f"import sys, cli; cli.run(['--version']); print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.startswith("ratemill ")
    assert done.stdout.splitlines()[-1] == "[]"
