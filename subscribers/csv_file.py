"""Reads a CSV file that is to be imported: every row with its line, every problem with its line and column."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from core.errors import ImportRefused, Problem, RatemillError

Value = TypeVar("Value")

PROBLEMS_MAX = 10_000
"""A file with more problems than this is of another kind; the rest is summed up in one more."""


@dataclass(slots=True)
class Row:
    """A row of the file; values are stripped of blanks around them."""

    line: int
    values: dict[str, str]


@dataclass
class Problems:
    """What is wrong with one file, in the order in which it was found."""

    file: str
    found: list[Problem] = field(default_factory=list)
    beyond: int = 0

    def add(self, line: int, column: str, problem: str, hint: str = "") -> None:
        if len(self.found) < PROBLEMS_MAX:
            self.found.append(Problem(self.file, line, column, problem, hint))
        else:
            self.beyond += 1

    def value(self, row: Row, column: str, parse: Callable[[str], Value], hint: str = "") -> Value | None:
        """The parsed value of a column, or None and a problem."""
        try:
            return parse(row.values[column])
        except ValueError as error:
            self.add(row.line, column, str(error), hint)
            return None

    def refuse_if_any(self) -> None:
        """Raise ImportRefused with everything that was found, by line."""
        if self.found:
            if self.beyond:
                self.found.append(Problem(self.file, 0, "", f"{self.beyond} more problems are not listed"))
            raise ImportRefused(sorted(self.found, key=lambda problem: problem.line))


@dataclass(frozen=True)
class Shape:
    """How another program's file differs from ours: what separates its values, what its columns are called (their name, in
    small letters → ours), which of ours it may lack, and which of its own do not matter."""

    delimiter: str = ","
    names: Mapping[str, str] = field(default_factory=dict)
    optional: Sequence[str] = ()
    ignored: Sequence[str] = ()


def read(path: Path, columns: Sequence[str], problems: Problems, shape: Shape = Shape()) -> list[Row]:
    """The rows of a file whose header has exactly these columns, in any order. Raises ImportRefused for a wrong header."""
    text = _text(path, problems)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=shape.delimiter)
    header = _header(reader, columns, problems, shape)
    problems.refuse_if_any()
    rows: list[Row] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                problems.add(reader.line_num, "", f"the row has {len(cells)} values, the header {len(header)} columns",
                             "put a value that holds a comma in quotes")  # fmt: skip
                continue
            rows.append(Row(reader.line_num, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}))
    except csv.Error as error:
        problems.add(reader.line_num, "", f"this is not CSV: {error}", "a quote inside a quoted value is written twice")
    return rows


def _text(path: Path, problems: Problems) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RatemillError(
            f"{path} can't be read: {error.strerror}", "check the name and the rights of the file"
        ) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problems.add(line, "", f"byte {data[error.start]:#04x} is not UTF-8", "save the file as UTF-8")
        problems.refuse_if_any()
        raise


def _header(reader: Iterator[list[str]], columns: Sequence[str], problems: Problems, shape: Shape) -> list[str]:
    try:
        header = [shape.names.get(name.strip().lower(), name.strip().lower()) for name in next(reader, [])]
    except csv.Error as error:
        problems.add(1, "", f"this is not CSV: {error}", "a quote inside a quoted value is written twice")
        return []
    if not header:
        problems.add(1, "", "the file is empty", f"the first line names the columns: {','.join(columns)}")
    for name in header:
        if name not in columns and name not in shape.ignored:
            near = difflib.get_close_matches(name, columns, 1)
            problems.add(1, name, f"unknown column '{name}'" + (f", did you mean '{near[0]}'?" if near else ""))
    for name in columns:
        if header.count(name) != 1 and not (name in shape.optional and name not in header):
            what = "is missing" if name not in header else "is there twice"
            problems.add(1, name, f"column '{name}' {what}", f"the columns are {','.join(columns)}")
    return header
