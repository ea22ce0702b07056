"""mapping.toml: how another billing writes its charges, and what its services and lines are called here.

    amounts = "net"              # or gross: what its amounts are
    delimiter = ";"              # between values; a comma without it
    decimal = ","                # in amounts and quantities; a point without it
    ignored = ["invoice no"]     # columns that do not matter

    [columns]                    # ours = "theirs", where they differ
    service = "contract"

    [services]                   # "theirs" = "ours"
    "4711" = "S1"

    [lines]                      # "theirs" = "ours"; several of theirs may be one of ours
    "Internet 100" = "Home 100"

    [not_billed]                 # "theirs" = "why ratemill does not bill it"
    "Paper invoice" = "ends with the old billing"

What is not in [services] or [lines] has the same name on both sides.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core import toml_lines
from core.errors import ImportRefused, Problem
from storage import toml_file
from subscribers.csv_file import Shape

REQUIRED = ("service", "line", "amount", "currency")
OPTIONAL = ("quantity", "tax")
COLUMNS = REQUIRED + OPTIONAL
AMOUNTS = ("net", "gross")
_TABLES = ("columns", "services", "lines", "not_billed")
_CHOICES = {"amounts": AMOUNTS, "decimal": (".", ",")}
_KEYS = ("amounts", "delimiter", "decimal", "ignored", *_TABLES)


@dataclass(frozen=True)
class TwinMapping:
    """The content of a mapping file; by default everything is called and written as here."""

    amounts: str = "net"
    delimiter: str = ","
    decimal: str = "."
    ignored: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, str] = field(default_factory=dict)
    not_billed: Mapping[str, str] = field(default_factory=dict)

    def shape(self) -> Shape:
        """How to read the CSV file. A column `product` is the line, unless the mapping names another."""
        names = {theirs.lower(): ours for ours, theirs in self.columns.items()}
        if "line" not in self.columns:
            names["product"] = "line"
        return Shape(self.delimiter, names, OPTIONAL, tuple(name.lower() for name in self.ignored))

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "ignored": list(self.ignored)}


def read(path: Path, known_lines: Collection[str]) -> TwinMapping:
    """The mapping of a file. Raises ImportRefused with everything that is wrong; `known_lines` are those of our plans."""
    document, lines = toml_file.read(path, "a mapping of names is smaller: look whether it is the right file")
    problems = [Problem(str(path), lines.of(place), str(place[-1]), said, hint)
                for place, said, hint in [*_shape_problems(document), *_content_problems(document, known_lines)]]
    if problems:
        raise ImportRefused(sorted(problems, key=lambda problem: problem.line))
    tables = {name: dict(document.get(name, {})) for name in _TABLES}
    return TwinMapping(amounts=document.get("amounts", "net"), delimiter=document.get("delimiter", ","),
                       decimal=document.get("decimal", "."), ignored=tuple(document.get("ignored", ())), **tables)


Found = tuple[toml_lines.Path, str, str]


def _shape_problems(document: Mapping[str, Any]) -> list[Found]:
    """Unknown keys and values of the wrong kind."""
    found: list[Found] = []
    for key, value in document.items():
        if key not in _KEYS:
            found.append(((key,), f"unknown key '{key}'{_near(key, _KEYS)}", f"the keys are {', '.join(_KEYS)}"))
        elif key in _TABLES:
            if not isinstance(value, Mapping):
                found.append(((key,), f"{key} is not a table", f'write it as [{key}] followed by "theirs" = "ours" lines'))
                continue
            found += [((key, name), f"the value of '{name}' is not a text", "write it in quotes")
                      for name, text in value.items() if not isinstance(text, str) or not text.strip()]
        elif key == "ignored":
            if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
                found.append(((key,), "ignored is not a list of names", 'write it as ignored = ["a column", "another"]'))
        elif key == "delimiter" and (not isinstance(value, str) or len(value) != 1):
            found.append(((key,), f"{value!r} is not one character", 'for example delimiter = ";"'))
        elif key in _CHOICES and value not in _CHOICES[key]:
            found.append(((key,), f"{value!r} is none of {', '.join(_CHOICES[key])}", ""))
    return found


def _content_problems(document: Mapping[str, Any], known_lines: Collection[str]) -> list[Found]:
    """Names that are not ours, and lines of theirs that are said to be two things."""
    tables = {name: table if isinstance(table := document.get(name, {}), Mapping) else {} for name in _TABLES}
    found: list[Found] = [(("columns", ours), f"'{ours}' is no column of ours{_near(ours, COLUMNS)}",
                           f"the columns are {', '.join(COLUMNS)}") for ours in tables["columns"] if ours not in COLUMNS]
    for theirs, ours in tables["lines"].items():
        if isinstance(ours, str) and ours not in known_lines:
            found.append((("lines", theirs), f"no plan has a line '{ours}'{_near(ours, known_lines)}",
                          "`ratemill plans show PLAN` names its lines; what is not billed here belongs to [not_billed]"))
        if theirs in tables["not_billed"]:
            found.append((("not_billed", theirs), f"'{theirs}' is in [lines] too", "leave it in one of the two"))
    return found


def _near(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f", did you mean '{near[0]}'?" if near else ""
