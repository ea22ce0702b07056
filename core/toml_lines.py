"""In which line of a TOML text a table or key stands, for messages: the standard parser does not tell.

A path is what leads to a value in the parsed document: ("plan", 0, "fee", 1, "amount"). The scan understands headers,
keys, nested arrays of inline tables that begin on a line of their own, and multi-line strings; where it knows no line
for a path, the nearest table above it answers.
"""

from __future__ import annotations

import re

Path = tuple[str | int, ...]

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*("[^"]*"|'[^']*'|[A-Za-z0-9_-]+)\s*(?:=|\.)""")
_STRING = re.compile(r'''"""|\'\'\'|"(?:[^"\\]|\\.)*"|'[^']*'|#.*''')


class Lines:
    """The index of one text; `of(path)` is a line number, counted from 1."""

    def __init__(self, text: str) -> None:
        self._found: dict[Path, int] = {(): 1}
        self._counts: dict[Path, int] = {}
        self._scan(text)

    def of(self, path: Path) -> int:
        while path not in self._found:
            path = path[:-1]
        return self._found[path]

    def _scan(self, text: str) -> None:
        table: Path = ()
        array: Path = ()
        depth = items = 0
        quote = ""  # the delimiter of a multi-line string that is open
        for number, line in enumerate(text.splitlines(), 1):
            if quote:
                if quote in line:
                    quote = ""
                continue
            code = _STRING.sub(_blank, line)
            if depth == 0:
                header, key = _HEADER.match(line), _KEY.match(line)
                if header is not None:
                    table = self._enter(header[1] == "[[", header[2], number)
                elif key is not None:
                    array, items = (*table, key[1].strip("\"'")), 0
                    self._found.setdefault(array, number)
            elif code.lstrip().startswith("{"):
                self._found.setdefault((*array, items), number)
                items += 1
            depth = max(0, depth + code.count("[") + code.count("{") - code.count("]") - code.count("}")) \
                if not _HEADER.match(line) or depth else 0
            for mark in ('"""', "'''"):
                if code.count(mark) % 2:
                    quote = mark

    def _enter(self, listed: bool, dotted: str, number: int) -> Path:
        path: Path = ()
        words = [word.strip().strip("\"'") for word in dotted.split(".")]
        for index, word in enumerate(words):
            path = (*path, word)
            last = index == len(words) - 1
            if last and listed:
                self._counts[path] = self._counts.get(path, 0) + 1
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
        self._found.setdefault(path, number)
        return path


def _blank(match: re.Match[str]) -> str:
    return match[0] if match[0] in ('"""', "'''") else ""
