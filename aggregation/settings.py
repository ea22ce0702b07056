"""What the operator may set about aggregation: [[class]] and [aggregation]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.addresses import Prefix, format_prefix, parse_prefix
from core.errors import SettingsError
from core.settings import Document, read_list, read_section, setting

DEFAULT_CLASS = "default"
"""The class of an address that no [[class]] holds."""

CLASS_NAME_LENGTH_MAX = 64
CLASSES_MAX = 32_000
"""Cells hold the class in 15 bits."""


def name_setting(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or value != value.strip() or len(value) > CLASS_NAME_LENGTH_MAX:
        raise ValueError(f"{value!r} is not a name of 1 to {CLASS_NAME_LENGTH_MAX} characters in quotes")
    return value


def prefixes_setting(value: Any) -> tuple[Prefix, ...]:
    """A list of prefixes or addresses as text."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError('is not a list of prefixes such as ["198.51.100.0/24"]')
    return tuple(parse_prefix(text) for text in value)


@dataclass(frozen=True)
class TrafficClass:
    """[[class]]: a kind of traffic, told by the other end's address: the highest priority wins, then the longest prefix."""

    name: str = setting(what="Name that plans refer to.", parse=name_setting)
    prefixes: tuple[Prefix, ...] = setting(what="Prefixes or addresses of the other end.", parse=prefixes_setting)
    priority: int = setting(0, what="Of two classes that hold an address, the one with the higher number wins.",
                            lowest=-1_000_000, highest=1_000_000)


@dataclass(frozen=True)
class Aggregation:
    """[aggregation]: bounds of the work from flows to published usage."""

    batch_flows_max: int = setting(4_000_000, what="Flows taken into one batch; a crash costs at most one batch of work.",
                                   unit="flows", lowest=1, highest=10**9)
    merge_batches_min: int = setting(32, what="So many small batches are merged into one.", unit="batches", lowest=2,
                                     highest=10_000)
    replaced_keep_hours: int = setting(168, what="How long the files of a replaced batch are kept for readers.", unit="h",
                                       lowest=1, highest=87_600)
    generations_kept: int = setting(3, what="Published DuckDB files that are kept.", unit="files", lowest=1, highest=1000)
    generation_grace_minutes: int = setting(60, what="An older one is kept so long after it was replaced.", unit="min",
                                            lowest=0, highest=525_600)


def sections() -> dict[str, type[Any]]:
    """The sections of ratemill.toml that this package reads; [[class]] is a list."""
    return {"class": TrafficClass, "aggregation": Aggregation}


def bounds(document: Document) -> Aggregation:
    return read_section(document, "aggregation", Aggregation)


def classes(document: Document) -> tuple[TrafficClass, ...]:
    """Read and check [[class]]. Raises SettingsError, also for two equal prefixes of equal priority."""
    found = read_list(document, "class", TrafficClass)
    if len({entry.name for entry in found}) > CLASSES_MAX:
        raise SettingsError(f"ratemill.toml: more than {CLASSES_MAX} traffic classes", "put prefixes of a kind together")
    seen: dict[tuple[int, Prefix], str] = {}
    problems = []
    for entry in found:
        for prefix in entry.prefixes:
            key = (entry.priority, prefix)
            if key in seen:
                problems.append(f"{format_prefix(prefix)} is in [[class]] '{seen[key]}' and '{entry.name}' with priority "
                                f"{entry.priority}")
            seen.setdefault(key, entry.name)
    if problems:
        raise SettingsError("ratemill.toml, [[class]]: " + "; ".join(problems),
                            "give one of the two another priority, or take the prefix out of one")
    return found


def from_document(document: Document) -> tuple[tuple[TrafficClass, ...], Aggregation]:
    """Read and check everything this package takes from ratemill.toml. Raises SettingsError."""
    return classes(document), bounds(document)
