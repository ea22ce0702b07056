"""A rule file → rules and their prefixes, or all that is wrong with it, each with its line and key.

    from = 2026-10-01                 # or --valid-from
    [[rule]]
    class = "peering"
    priority = 10
    prefixes = ["198.51.100.0/24"]    # prefix_file = "peering.txt": one a line, # begins a comment
"""

from __future__ import annotations

import difflib
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from aggregation import class_ranges
from aggregation.settings import name_setting
from core import class_rules
from core.addresses import IPV4_MAPPED, format_prefix, parse_prefix, parse_protocol
from core.class_rules import DIRECTIONS, PORT_PROTOCOLS, Prefixes, Ranges, Rule
from core.errors import ImportRefused, Problem
from core.toml_lines import Lines
from storage import toml_file

PREFIX_FILE_SIZE_MAX = 256 << 20
RULES_MAX = 4096
PREFIXES_MAX = 4_000_000
PROBLEMS_MAX = 100
PRIORITY_MAX = 1_000_000
AS_LAST, PORT_LAST = (1 << 32) - 1, 65_535

DSCP_NAMES = {"DF": 0, "BE": 0, "LE": 1, "EF": 46, "VA": 44, **{f"CS{n}": 8 * n for n in range(8)},
              **{f"AF{x}{y}": 8 * x + 2 * y for x in range(1, 5) for y in range(1, 4)}}


@dataclass
class Draft:
    """What a file says; usable if `problems` is empty."""

    valid_from: date | None = None
    rules: list[Rule] = field(default_factory=list)
    prefixes: list[Prefixes] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def _items(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError("is not a list with at least one value")
    return value


def _ranges(first: int, last: int) -> Callable[[Any], Ranges]:
    def read(value: Any) -> Ranges:
        pairs = []
        for item in _items(value):
            match = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", str(item), re.ASCII)
            if isinstance(item, bool) or not isinstance(item, int | str) or match is None:
                raise ValueError(f'{item!r} is neither a number nor a range such as "{max(first, 1)}-{last}"')
            low, high = int(match[1]), int(match[2] or match[1])
            if not first <= low <= high <= last:
                raise ValueError(f"{item!r} is not within {first} to {last}, the lower number first")
            pairs.append((low, high))
        return class_rules.merged(pairs)
    return read


def _dscp(value: Any) -> tuple[int, ...]:
    return tuple(sorted({dscp_number(item) for item in _items(value)}))


def dscp_number(item: Any) -> int:
    """A DSCP by name or number. Raises ValueError."""
    number = DSCP_NAMES.get(str(item).upper(), item)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= 63:
        raise ValueError(f"{item!r} is neither a DSCP of 0 to 63 nor one of {', '.join(DSCP_NAMES)}")
    return number


def _protocols(value: Any) -> tuple[int, ...]:
    return tuple(sorted({parse_protocol(str(item)) for item in _items(value)}))


def _interfaces(value: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
    found = []
    for item in _items(value):
        if not isinstance(item, dict) or not {"exporter"} <= item.keys() <= {"exporter", "interfaces"}:
            raise ValueError('is not a list such as [{ exporter = "192.0.2.1", interfaces = [10] }]')
        numbers = item.get("interfaces", [])
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n <= AS_LAST for n in numbers):
            raise ValueError("interfaces are whole numbers (ifIndex)")
        found.append((class_rules.exporter_text(str(item["exporter"])), tuple(sorted(set(numbers)))))
    return tuple(found)


def _priority(value: Any) -> int:
    if type(value) is not int or abs(value) > PRIORITY_MAX:
        raise ValueError(f"{value!r} is not a whole number of -{PRIORITY_MAX} to {PRIORITY_MAX}")
    return value


def _direction(value: Any) -> str:
    if value not in DIRECTIONS:
        raise ValueError(f"{value!r} is none of {', '.join(DIRECTIONS)}")
    return str(value)


def _date(value: Any) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise ValueError(f"{value!r} is not a date such as 2026-10-01 (without quotes)")
    return value


_KEYS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "class": ("class_", name_setting), "name": ("name", name_setting), "priority": ("priority", _priority),
    "direction": ("direction", _direction), "as": ("as_numbers", _ranges(0, AS_LAST)), "dscp": ("dscp", _dscp),
    "protocols": ("protocols", _protocols), "ports": ("ports", _ranges(1, PORT_LAST)),
    "near_ports": ("near_ports", _ranges(1, PORT_LAST)), "interfaces": ("interfaces", _interfaces),
}
_ALL_KEYS = (*_KEYS, "prefixes", "prefix_file")


def read(path: Path, valid_from: date | None = None) -> Draft:
    """Read and judge a file. `valid_from` stands in for `from`, and must not contradict it."""
    draft = Draft(valid_from)
    try:
        document, lines = toml_file.read(path, "move prefixes into files of their own: prefix_file = \"…\"")
    except ImportRefused as refused:
        draft.problems += refused.problems
    else:
        _Judge(path, lines, draft).judge(document)
    return draft


class _Judge:
    """One pass over a document, collecting problems."""

    def __init__(self, path: Path, lines: Lines, draft: Draft) -> None:
        self.path, self.lines, self.draft = path, lines, draft
        self.places: list[int] = []

    def report(self, at: tuple[str | int, ...], problem: str, hint: str) -> None:
        column = str(at[-1]) if at and isinstance(at[-1], str) else ""
        self.draft.problems.append(Problem(str(self.path), self.lines.of(at), column, problem, hint))

    def judge(self, document: Mapping[str, Any]) -> None:
        self.unknown((), document, ("from", "rule"))
        self.date(document)
        tables = document.get("rule")
        if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
            self.report(("rule",), "there is no [[rule]]", "write each rule as [[rule]] and key = value lines")
            return
        if len(tables) > RULES_MAX:
            self.report(("rule", RULES_MAX), f"more than {RULES_MAX} rules", "join rules of one class")
            return
        for number, table in enumerate(tables):
            self.rule(number, table)
        names: dict[str, int] = {}
        for number, rule in enumerate(self.draft.rules):
            if rule.name in names:
                self.report(("rule", self.places[number], "name"), f"rule '{rule.name}' is already in line "
                            f"{self.lines.of(('rule', self.places[names[rule.name]]))}", "give each rule its own name")
            names.setdefault(rule.name, number)
        if sum(len(some.high) for some in self.draft.prefixes) > PREFIXES_MAX:
            self.report((), f"more than {PREFIXES_MAX} prefixes", "join neighbouring prefixes")
        elif not self.draft.problems:
            self.ties()

    def date(self, document: Mapping[str, Any]) -> None:
        given = self.draft.valid_from
        try:
            written = _date(document["from"]) if "from" in document else None
        except ValueError as error:
            self.report(("from",), str(error), "write the local date from which the rules hold")
            return
        if written is None and given is None:
            self.report(("from",), "no date says from when on the rules hold", "add from = 2026-10-01, or say --valid-from")
        elif written is not None and given is not None and written != given:
            self.report(("from",), f"the file says {written}, --valid-from says {given}", "leave one of them out")
        self.draft.valid_from = written or given

    def unknown(self, at: tuple[str | int, ...], table: Mapping[str, Any], keys: Iterable[str]) -> None:
        for name in table:
            if name not in keys:
                near = difflib.get_close_matches(name, list(keys), 1)
                self.report((*at, name), f"unknown key '{name}'",
                            f"did you mean '{near[0]}'?" if near else f"the keys are {', '.join(keys)}")

    def rule(self, number: int, table: Mapping[str, Any]) -> None:
        at = ("rule", number)
        before = len(self.draft.problems)
        self.unknown(at, table, _ALL_KEYS)
        values: dict[str, Any] = {"name": f"rule {number + 1}"}
        for key, (attribute, check) in _KEYS.items():
            try:
                if key in table:
                    values[attribute] = check(table[key])
                elif key in ("class", "priority"):
                    self.report((*at, key), f"the rule has no '{key}'", f"add {key} = …")
            except ValueError as error:
                self.report((*at, key), str(error), f"correct {key}")
        has_prefixes = "prefixes" in table or "prefix_file" in table
        prefixes = self.prefixes(at, table) if has_prefixes else class_rules.NO_PREFIXES
        if len(self.draft.problems) > before:
            return
        rule = Rule(**values, has_prefixes=has_prefixes)
        if (rule.ports or rule.near_ports) and rule.protocols and set(rule.protocols).isdisjoint(PORT_PROTOCOLS):
            self.report((*at, "protocols"), "none of these protocols has ports, so the rule never holds",
                        "take ports out, or add tcp or udp")
        if has_prefixes and not len(prefixes.high):
            self.report(at, "the rule lists no prefix, so it never holds", "list one, or leave out the key")
        self.places.append(number)
        self.draft.rules.append(rule)
        self.draft.prefixes.append(prefixes)

    def prefixes(self, at: tuple[str | int, ...], table: Mapping[str, Any]) -> Prefixes:
        addresses, lengths = bytearray(), bytearray()
        listed = table.get("prefixes", [])
        if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
            self.report((*at, "prefixes"), "is not a list of prefixes", 'write them as ["198.51.100.0/24"]')
            return class_rules.NO_PREFIXES
        for text in listed:
            try:
                _add(text, addresses, lengths)
            except ValueError as error:
                self.report((*at, "prefixes"), str(error), "write a prefix such as 198.51.100.0/24")
        if "prefix_file" in table:
            self.prefix_file(at, table["prefix_file"], addresses, lengths)
        return class_rules.pack_addresses(addresses, lengths)

    def prefix_file(self, at: tuple[str | int, ...], name: Any, addresses: bytearray, lengths: bytearray) -> None:
        path = self.path.parent / str(name)
        wrong = 0
        try:
            if path.stat().st_size > PREFIX_FILE_SIZE_MAX:
                raise OSError(0, f"it is larger than {PREFIX_FILE_SIZE_MAX >> 20} MiB")
            with path.open(encoding="utf-8-sig", errors="replace") as lines:
                for number, line in enumerate(lines, 1):
                    text = line.partition("#")[0].strip()
                    try:
                        if text:
                            _add(text, addresses, lengths)
                    except ValueError as error:
                        wrong += 1
                        if wrong <= PROBLEMS_MAX:
                            self.draft.problems.append(Problem(str(path), number, "", str(error),
                                                               "write one prefix a line, such as 198.51.100.0/24"))
        except OSError as error:
            self.report((*at, "prefix_file"), f"{path} can't be read: {error.strerror}",
                        "name a file beside the rule file")
        if wrong > PROBLEMS_MAX:
            self.report((*at, "prefix_file"), f"{wrong} lines of {path} are no prefixes", "is this the right file?")

    def ties(self) -> None:
        rules = self.draft.rules
        for count, (one, other, prefix) in enumerate(class_ranges.ties(
                rules, class_ranges.lay_out(rules, self.draft.prefixes))):
            if count == PROBLEMS_MAX:
                return
            where = f"prefix {format_prefix(prefix)}" if prefix is not None else "no prefix"
            line = self.lines.of(("rule", self.places[one]))
            self.report(("rule", self.places[other], "priority"),
                        f"rules '{rules[one].name}' (line {line}) and '{rules[other].name}' can both hold with priority "
                        f"{rules[one].priority} and {where}", "give one of the two another priority")


def _add(text: str, addresses: bytearray, lengths: bytearray) -> None:
    """Append a prefix; what is not plainly right goes through `parse_prefix`, which says what is wrong."""
    address, _, length = text.partition("/")
    if length.isascii() and length.isdigit() and int(length) <= 32 and ":" not in address:
        try:
            packed = socket.inet_pton(socket.AF_INET, address)
        except OSError:
            packed = b""
        if packed and int.from_bytes(packed, "big") & ((1 << 32 - int(length)) - 1) == 0:
            addresses += IPV4_MAPPED + packed
            lengths.append(96 + int(length))
            return
    prefix = parse_prefix(text)
    addresses += prefix.address
    lengths.append(prefix.length)
