"""Information elements: (enterprise, element number) → the slot in which its value is decoded.

Reads `data/registries/*_elements.csv`, which are shipped, and `HOME/registries/*.csv`, in which the operator adds elements
or replaces shipped ones. Columns: enterprise (0: IANA, and the numbers above 32767 of NetFlow v9), element, name, type (an
abstract type of RFC 7012 §3.1), slot (a value of the product, or `none`), repeat (which of several equal elements in one
template counts, `first` or `last`) and source (where the number is published; for people).
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from collector.kernels import elements
from core.errors import Problem, SettingsError
from core.product import data_file

COLUMNS = ("enterprise", "element", "name", "type", "slot", "repeat", "source")
_OPTIONAL = {"repeat": "first", "source": ""}
ELEMENTS_MAX = 100_000
"""Rows of all files together: a registry is looked at whenever a template comes."""

_LENGTHS = {"unsigned8": (1, 8), "unsigned16": (1, 8), "unsigned32": (1, 8), "unsigned64": (1, 8), "ipv4Address": (4, 4),
            "ipv6Address": (16, 16), "dateTimeSeconds": (1, 8), "dateTimeMilliseconds": (1, 8),
            "dateTimeMicroseconds": (8, 8), "dateTimeNanoseconds": (8, 8), "octetArray": (0, 65_535)}
"""Octets that a field of a type can have; numbers may be sent shortened (RFC 7011 §6.2), and NetFlow v9 sends them long."""
_OTHER_TYPES = ("string", "boolean", "macAddress", "signed8", "signed16", "signed32", "signed64", "float32",
                "float64", "basicList", "subTemplateList", "subTemplateMultiList")

_NTP = ("dateTimeMicroseconds", "dateTimeNanoseconds")
NONE = "none"


class Element(NamedTuple):
    enterprise: int
    number: int
    name: str
    kind: str
    slot: str
    repeat: str = "first"

    @property
    def key(self) -> int:
        return self.enterprise << 16 | self.number


class Arrays(NamedTuple):
    """The elements that stand for a value, as the scan looks them up: sorted by `enterprise << 16 | element`."""

    keys: NDArray[np.int64]
    slots: NDArray[np.int64]
    lengths: NDArray[np.int64]
    """(n, 2): the fewest and the most octets of a field."""
    last: NDArray[np.uint8]
    """1: of several in one template the last counts."""


class Registry:
    """The elements of all files."""

    def __init__(self, found: Iterable[Element]) -> None:
        self.elements = tuple(sorted({element.key: element for element in found}.values()))
        self.digest = hashlib.sha256(repr([tuple(element) for element in self.elements]).encode()).hexdigest()
        """What a segment records of the registry, as part of its settings."""

    @cached_property
    def arrays(self) -> Arrays:
        numbers = SLOTS
        used = [element for element in self.elements if element.slot != NONE]
        return Arrays(
            np.array([element.key for element in used], np.int64),
            np.array([numbers[element.slot] for element in used], np.int64),
            np.array([_LENGTHS[element.kind] for element in used], np.int64).reshape(len(used), 2),
            np.array([element.repeat == "last" for element in used], np.uint8),
        )

    def __repr__(self) -> str:
        return f"Registry({self.digest})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Registry) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


BOUNDS = ("NOTED", "NOTED_END", "FIRST_COUNTER", "LAST_COUNTER", "FIRST_SECTION", "LAST_SECTION", "ADDRESSES",
          "ADDRESSES_END", "FIRST_V4", "LAST_V4", "FIRST_V6", "LAST_V6")
"""Names of `collector.kernels.elements` that are no slots, but ranges of them."""
SLOTS = {name.lower(): number for name, number in vars(elements).items() if name.isupper() and name not in BOUNDS}
"""The values that an element can stand for, and their numbers in the kernels."""


def types_of(slot: str) -> tuple[str, ...]:
    """The abstract types that an element of this slot may have."""
    if slot == NONE:
        return (*_LENGTHS, *_OTHER_TYPES)
    if slot.endswith("_section"):
        return ("octetArray",)
    if slot.endswith("_ntp"):
        return _NTP
    if slot in ("outside4", "source4", "destination4", "next_hop4", "bgp_next_hop4"):
        return ("ipv4Address",)
    if slot in ("outside6", "source6", "destination6", "next_hop6", "bgp_next_hop6"):
        return ("ipv6Address",)
    return tuple(kind for kind in _LENGTHS if kind not in (*_NTP, "ipv4Address", "ipv6Address", "octetArray"))


# files ----------------------------------------------------------------------------------------------------------------
@cache
def shipped() -> Registry:
    """The registry without an operator's own files."""
    return Registry(_shipped_elements())


@cache
def _shipped_elements() -> tuple[Element, ...]:
    problems: list[Problem] = []
    found: dict[int, Element] = {}
    for path in sorted(data_file("registries").glob("*_elements.csv")):
        _read(path, found, problems)
    assert not problems, f"the shipped registry is right: {problems}"
    return tuple(found.values())


def load(folder: Path) -> Registry:
    """The shipped registry with the files of `folder` (it may be absent) laid over it. Raises SettingsError."""
    own, problems = read_folder(folder)
    if problems:
        more = f"; and {len(problems) - PROBLEMS_SHOWN} more" if len(problems) > PROBLEMS_SHOWN else ""
        raise SettingsError("; ".join(map(described, problems[:PROBLEMS_SHOWN])) + more,
                            "correct the file; `ratemill config check` looks at it again")
    if len(own) > ELEMENTS_MAX:
        raise SettingsError(f"{folder} names {len(own)} elements, at most {ELEMENTS_MAX} are kept",
                            "leave out those that no exporter of yours sends")
    return Registry((*_shipped_elements(), *own)) if own else shipped()


def read_folder(folder: Path) -> tuple[list[Element], list[Problem]]:
    """The elements of an operator's files, and everything that is wrong with them."""
    problems: list[Problem] = []
    own: dict[int, Element] = {}
    for path in sorted(folder.glob("*.csv")) if folder.is_dir() else []:
        _read(path, own, problems)
    return list(own.values()), problems


def described(problem: Problem) -> str:
    """A problem as one sentence: file, line, column, what is wrong, what to do."""
    place = f"{problem.file}, line {problem.line}" + (f", {problem.column}" if problem.column else "")
    return f"{place}: {problem.problem}" + (f" ({problem.hint})" if problem.hint else "")


PROBLEMS_SHOWN = 20


def _read(path: Path, found: dict[int, Element], problems: list[Problem]) -> None:
    """Add the elements of a file to `found`."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        problems.append(Problem(str(path), 0, "", f"it can't be read: {error.strerror}", "check its rights"))
        return
    except UnicodeDecodeError as error:
        problems.append(Problem(str(path), 0, "", f"octet {error.start} is not UTF-8", "save the file as UTF-8"))
        return
    reader = csv.DictReader(io.StringIO(text, newline=""))
    header = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = header
    wrong = [Problem(str(path), 1, name, f"unknown column '{name}'", _near(name, COLUMNS)) for name in header
             if name not in COLUMNS]
    wrong += [Problem(str(path), 1, name, f"column '{name}' is missing", f"the columns are {','.join(COLUMNS)}")
              for name in COLUMNS if name not in header and name not in _OPTIONAL]
    problems += wrong
    if wrong:
        return
    for row in reader:
        element = _element(path, reader.line_num, row, problems)
        if element is None:
            continue
        if element.key in found:
            problems.append(Problem(str(path), reader.line_num, "element",
                                    f"element {element.number} of enterprise {element.enterprise} is there twice "
                                    f"(as {found[element.key].name})", "leave out one of them"))
        found[element.key] = element


def _element(path: Path, line: int, row: dict[Any, Any], problems: list[Problem]) -> Element | None:
    """One row, or None and its problems."""
    before = len(problems)

    def wrong(column: str, problem: str, hint: str = "") -> None:
        problems.append(Problem(str(path), line, column, problem, hint))

    if None in row or None in row.values():
        wrong("", "the row has another number of values than the header has columns",
              "put a value that holds a comma in quotes")
        return None
    cells = {**_OPTIONAL, **{name: value.strip() for name, value in row.items()}}
    repeat = cells["repeat"] or "first"
    enterprise = _number(cells["enterprise"], 2**31 - 2)
    element = _number(cells["element"], 65_535 if enterprise == 0 else 32_767)
    if enterprise is None:
        wrong("enterprise", f"'{cells['enterprise']}' is no enterprise number", "0 for IANA's elements, else the IANA PEN")
    if not element:
        wrong("element", f"'{cells['element']}' is no element number",
              "1 to 32767, without the enterprise bit; up to 65535 for NetFlow v9 under enterprise 0")
    if not cells["name"]:
        wrong("name", "the element has no name")
    if cells["slot"] not in (*SLOTS, NONE):
        wrong("slot", f"unknown slot '{cells['slot']}'", _near(cells["slot"], (*SLOTS, NONE)))
    elif cells["type"] not in types_of(cells["slot"]):
        wrong("type", f"'{cells['type']}' can't be the slot {cells['slot']}",
              f"one of {', '.join(types_of(cells['slot']))}")
    if repeat not in ("first", "last"):
        wrong("repeat", f"'{repeat}' is neither first nor last", "which of several equal elements of a template counts")
    if len(problems) > before or enterprise is None or element is None:
        return None
    return Element(enterprise, element, cells["name"], cells["type"], cells["slot"], repeat)


def _number(text: str, most: int) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 and int(text) <= most else None


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean '{near[0]}'?" if near else f"it is one of {', '.join(known)}"


# the versions without templates ---------------------------------------------------------------------------------------
Layout = list[tuple[int, int]]
"""(element, octets) of each field of a record; element 0 is skipped."""

_V1: Layout = [(8, 4), (12, 4), (15, 4), (10, 2), (14, 2), (2, 4), (1, 4), (22, 4), (21, 4), (7, 2), (11, 2), (0, 2),
               (4, 1), (5, 1), (6, 1), (0, 11)]
_V5: Layout = [(8, 4), (12, 4), (15, 4), (10, 2), (14, 2), (2, 4), (1, 4), (22, 4), (21, 4), (7, 2), (11, 2), (0, 1),
               (6, 1), (4, 1), (5, 1), (16, 2), (17, 2), (0, 4)]
_V7: Layout = [(8, 4), (12, 4), (15, 4), (10, 2), (14, 2), (2, 4), (1, 4), (22, 4), (21, 4), (7, 2), (11, 2), (0, 1),
               (6, 1), (4, 1), (5, 1), (16, 2), (17, 2), (0, 8)]

FIXED_LAYOUTS: tuple[Layout, ...] = (_V1, _V5, _V7)
"""NetFlow v1, v5 and v7 as if a template had described them, in the order of the scan's built-in plans."""


def packed_fields(layout: Layout) -> NDArray[Any]:
    """Fields as the scan stores them."""
    return np.array([(element << 16) | length for element, length in layout], np.int64)
