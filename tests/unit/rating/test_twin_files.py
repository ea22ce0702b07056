"""What is wrong with the files of a twin is said all at once, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ImportRefused
from rating.rollout import read_group
from rating.twin import explanations, mapping
from rating.twin.explanations import Rule


def _said(path: Path, refused: pytest.ExceptionInfo[ImportRefused]) -> list[tuple[int, str]]:
    assert {problem.file for problem in refused.value.problems} == {str(path)}
    return [(problem.line, problem.problem) for problem in refused.value.problems]


def test_a_mapping_is_read_and_what_it_leaves_out_is_as_here(tmp_path: Path) -> None:
    path = tmp_path / "mapping.toml"
    path.write_text('amounts = "gross"\nignored = ["Invoice No"]\n[lines]\n"Internet 100" = "Home"\n[columns]\nline = "Item"\n')
    read = mapping.read(path, {"Home"})
    assert (read.amounts, read.delimiter, read.decimal, read.lines) == ("gross", ",", ".", {"Internet 100": "Home"})
    assert (read.shape().names, read.shape().ignored) == ({"item": "line"}, ("invoice no",))
    assert mapping.TwinMapping().shape().names == {"product": "line"}


def test_a_mapping_with_every_mistake(tmp_path: Path) -> None:
    path = tmp_path / "mapping.toml"
    path.write_text('amounts = "netto"\ndelimiter = ";;"\nignored = "a"\nservices = "S1"\nline = 1\n'
                    '[lines]\n"A" = "Hom"\n"B" = 5\n[not_billed]\n"A" = "no"\n[columns]\nservic = "x"\n')
    with pytest.raises(ImportRefused) as refused:
        mapping.read(path, {"Home"})
    assert _said(path, refused) == [
        (1, "'netto' is none of net, gross"), (2, "';;' is not one character"), (3, "ignored is not a list of names"),
        (4, "services is not a table"), (5, "unknown key 'line', did you mean 'lines'?"),
        (7, "no plan has a line 'Hom', did you mean 'Home'?"), (8, "the value of 'B' is not a text"),
        (10, "'A' is in [lines] too"),
        (12, "'servic' is no column of ours, did you mean 'service'?")]


def test_rules_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('[[explanation]]\nline = "Home"\ndifference = "-0.10"\ncurrency = "EUR"\nreason = "r"\n'
                    '[[explanation]]\nline = "Home"\ncause = "line_missing_here"\nservice = "S1"\nreason = "s"\n')
    assert explanations.read_rules(path) == [
        Rule("Home", "r", difference_minor=-10, currency="EUR"), Rule("Home", "s", "line_missing_here", service="S1")]


def test_rules_that_would_accept_anything_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('[[explanation]]\nline = "Home"\nreason = "r"\n'
                    '[[explanation]]\nline = "Home"\nreason = "r"\ncause = "unexplained"\n'
                    '[[explanation]]\ncause = "rounding"\n'
                    '[[explanation]]\nline = "Home"\nreason = "r"\ndifference = 0.1\n'
                    '[[explanation]]\nline = "Home"\nreason = "r"\ndifference = "0.001"\ncurrency = "EUR"\n')
    with pytest.raises(ImportRefused) as refused:
        explanations.read_rules(path)
    said = _said(path, refused)
    assert [line for line, text in said if text == "the rule would accept whatever differs"] == [2, 5]
    assert (8, "line is missing") in [(8, text) for line, text in said if line in (8, 9)]
    assert (9, "'rounding' is no cause that leaves a line open") in said
    assert (13, "difference is not a text") in said
    assert (17, "0.001 is finer than the minor unit of EUR, which has 2 decimals") in said


def test_a_group_is_one_service_a_line(tmp_path: Path) -> None:
    path = tmp_path / "group.txt"
    path.write_text("\ufeffservice\nS1\n\nS2  # the office\n", encoding="utf-8")
    assert read_group(path) == ["S1", "S2"]
    path.write_text("S1,S2\n")
    with pytest.raises(ImportRefused) as refused:
        read_group(path)
    assert _said(path, refused) == [(1, "'S1,S2' is more than a service")]
