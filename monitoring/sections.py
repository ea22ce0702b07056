"""Every section of ratemill.toml, as the packages describe them: what `init` writes and `config check` checks.

A section is a frozen dataclass whose docstring begins with its name, `[seller]: …` or `[[tax]]: …`, in one of MODULES.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from core.errors import RatemillError, SettingsError
from core.settings import SECTIONS, Document, read_list, read_section

MODULES = (
    "core.settings",
    "subscribers.settings",
    "subscribers.radius.settings",
    "subscribers.deterministic_nat.settings",
    "collector.settings",
    "collector.thresholds",
    "collector.lake_settings",
    "aggregation.settings",
    "rating.settings",
    "invoicing.settings",
    "runtime.settings",
    "storage.sql",
)

_HEADING = re.compile(r"(\[\[|\[)(\w+)\]\]?: *(.+)", re.DOTALL)


@dataclass(frozen=True)
class Section:
    """One section: its name, whether it may appear more than once, its dataclass and what it is for."""

    name: str
    is_list: bool
    kind: type[Any]
    sentence: str

    @property
    def heading(self) -> str:
        return f"[[{self.name}]]" if self.is_list else f"[{self.name}]"


def all_sections() -> list[Section]:
    """The sections in the order in which a reader wants them: the order of core.settings.SECTIONS."""
    found = [section for module in MODULES if find_spec(module) for section in _sections_of(module)]
    order = list(SECTIONS)
    unknown = [section.name for section in found if section.name not in order]
    assert not unknown, f"core.settings.SECTIONS does not name {unknown}"
    return sorted(found, key=lambda section: order.index(section.name))


def _sections_of(module: str) -> list[Section]:
    found = []
    for _, kind in inspect.getmembers(import_module(module), inspect.isclass):
        if kind.__module__ != module or not dataclasses.is_dataclass(kind):
            continue
        match = _HEADING.match(inspect.getdoc(kind) or "")
        if match is not None:
            sentence = " ".join(match[3].split())
            found.append(Section(match[2], match[1] == "[[", kind, sentence[:1].upper() + sentence[1:]))
    return found


def problems(document: Document) -> list[str]:
    """Everything that is wrong with the sections, one sentence each; a section by itself, then each package's own rules."""
    found: list[str] = []
    for section in all_sections():
        for part in _parts(document, section):
            _note(found, part)
    if not found:
        for module in MODULES:
            check = getattr(import_module(module), "from_document", None) if find_spec(module) else None
            if check is not None:
                _note(found, lambda check=check: check(document))  # type: ignore[misc]
    return found


def _parts(document: Document, section: Section) -> list[Callable[[], Any]]:
    """One check for a section, or one for each of a list, so that the first mistake does not hide the next."""
    content = document.get(section.name)
    if not section.is_list:
        return [lambda: read_section(document, section.name, section.kind)]
    if not isinstance(content, list) or len(content) < 2:
        return [lambda: read_list(document, section.name, section.kind)]

    def check(number: int, item: Any) -> None:
        try:
            read_list({section.name: [item]}, section.name, section.kind)
        except SettingsError as error:  # it counted the one that it was given
            raise SettingsError(error.message.replace("number 1:", f"number {number}:"), error.hint) from None

    return [lambda number=number, item=item: check(number, item) for number, item in enumerate(content, 1)]  # type: ignore[misc]


def _note(found: list[str], check: Callable[[], Any]) -> None:
    try:
        check()
    except RatemillError as error:
        text = error.message + (f" ({error.hint})" if error.hint else "")
        if text not in found:
            found.append(text)
