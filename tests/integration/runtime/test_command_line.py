"""The command line's own rules: global options anywhere, formats, exit codes, no traceback."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from harness import run_cli

import cli
from core import errors
from runtime import context, failures, output


@pytest.mark.parametrize(
    "words",
    [
        ["--json", "--home", "H", "status"],
        ["status", "--json", "--home", "H"],
        ["status", "--home=H", "-o", "json"],
        ["-o", "json", "status", "--home", "H"],
    ],
)
def test_global_options_are_taken_before_the_noun_and_after_the_verb(words: list[str]) -> None:
    found = context.extract(words)
    assert (found.home, found.format, found.words) == ("H", "json", ["status"])


def test_what_follows_two_dashes_is_left_alone() -> None:
    assert context.extract(["flows", "--", "--json"]).words == ["flows", "--", "--json"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "-o", "xml"], "the formats are table, json, csv, parquet"),
        (["status", "--home"], "--home needs a value"),
        (["reconcile", "2026-13"], "is not a period"),
        (["statsu"], "statsu"),
        (["status", "--nonsense"], "--nonsense"),
    ],
)
def test_a_wrong_command_line_exits_with_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run_cli("init", home=tmp_path)
    home = [] if "--home" in words else ["--home", str(tmp_path)]
    assert cli.run([*words, *home]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.RatemillError, 1), (errors.UsageError, 2), (errors.PartlyDone, 3), (errors.Denied, 4),
        (errors.NotFound, 5), (errors.Locked, 6), (errors.BalanceOpen, 7), (errors.DependencyDown, 8),
        (errors.Interrupted, 130), (errors.SettingsError, 1), (errors.DamagedFile, 1),
    ],
)  # fmt: skip
def test_an_error_has_its_exit_code_a_line_and_a_hint(
    kind: type[errors.RatemillError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise kind("it went wrong", "do this")

    assert failures.guard(work, debug=False) == code
    assert capsys.readouterr().err == "ratemill: it went wrong\n  do this\n"


def test_a_mistake_of_ours_is_one_line_and_with_debug_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise ZeroDivisionError("oops")

    assert failures.guard(work, debug=False) == 1
    assert "Traceback" not in (quiet := capsys.readouterr().err)
    assert "internal error: ZeroDivisionError: oops" in quiet
    assert failures.guard(work, debug=True) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_exits_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise KeyboardInterrupt

    assert failures.guard(work, debug=False) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_an_interrupt_inside_a_command_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def demo() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("monitoring.commands.demo", demo)
    assert cli.run(["demo", "--home", str(tmp_path)]) == 130
    assert "interrupted; run the same command again" in capsys.readouterr().err


def test_a_refused_import_prints_every_problem_as_a_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "options", context.Options(format="json"))
    problems = [
        errors.Problem("a.csv", 2, "plan", "unknown plan 'x'"),
        errors.Problem("a.csv", 3, "end", "before start"),
    ]

    def work() -> None:
        raise errors.ImportRefused(problems)

    assert failures.guard(work, debug=False) == 1
    out, err = capsys.readouterr()
    assert [json.loads(line)["line"] for line in out.splitlines()] == [2, 3]
    assert "2 problems, nothing was imported" in err


ROWS = [{"name": 'Анна, "A"', "octets": 5, "zone": None}, {"name": "b", "octets": 2**53 + 1, "zone": "day"}]
NAMES = ["name", "octets", "zone"]


def test_rows_come_as_json_lines_csv_table_or_parquet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def printed(form: str, to: str = "") -> str:
        monkeypatch.setattr(context, "options", context.Options(format=form))
        output.emit_rows(ROWS, NAMES, to)
        return capsys.readouterr().out

    assert [json.loads(line) for line in printed("json").splitlines()] == ROWS
    assert list(csv.reader(io.StringIO(printed("csv")))) == [
        NAMES,
        ['Анна, "A"', "5", ""],
        ["b", "9007199254740993", "day"],
    ]
    assert "9007199254740993" in printed("table")
    printed("parquet", str(tmp_path / "x.parquet"))
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == ROWS
    printed("csv", str(tmp_path / "x.csv"))
    assert (tmp_path / "x.csv").read_text().startswith("name,octets,zone\n")
    with pytest.raises(errors.UsageError, match="needs a file"):
        printed("parquet")


def test_a_summary_is_exactly_one_object(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "options", context.Options(format="json"))
    output.emit_object({"added": 1, "faults": {"duplicate": 2}})
    assert json.loads(capsys.readouterr().out) == {"added": 1, "faults": {"duplicate": 2}}


def test_help_costs_nothing_and_names_every_command() -> None:
    listed = run_cli("--help").stdout
    for name in cli.COMMANDS:
        assert name in listed
