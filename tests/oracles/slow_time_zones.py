"""When each time zone changes its offset, read from the tz database's own files (RFC 9636), without `zoneinfo`.

Explicit transitions come from the 64-bit data, later ones from the rule in the footer (POSIX TZ, with the extension of hours
beyond 24). Slow and plain; shares no code with the product.
"""

from __future__ import annotations

import re
import struct
import zoneinfo
from datetime import date, timedelta
from importlib import resources
from itertools import pairwise
from pathlib import Path

HEADER = struct.Struct(">4sc15x6l")
EPOCH = date(1970, 1, 1)


def data_of(zone: str) -> bytes:
    """The file of a zone: the system's, else that of the package tzdata."""
    for folder in zoneinfo.TZPATH:
        path = Path(folder) / zone
        if path.is_file():
            return path.read_bytes()
    return resources.files("tzdata").joinpath("zoneinfo", *zone.split("/")).read_bytes()


def transitions(zone: str, first: int, last: int) -> list[tuple[int, int]]:
    """(instant, offset) in seconds: the offset in force at `first`, then each change of it in (first, last)."""
    times, offsets, initial, footer = _parsed(data_of(zone))
    if footer:
        times, offsets = _with_rule(times, offsets, initial, footer, last)
    found = [(first, initial)]
    for at, offset in zip(times, offsets, strict=True):
        if at <= first:
            found = [(first, offset)]
        elif at < last and offset != found[-1][1]:
            found.append((at, offset))
    return found


def _parsed(data: bytes) -> tuple[list[int], list[int], int, str]:
    """Instants and the offsets that begin there, the offset before all of them, and the footer."""
    magic, version, *counts = HEADER.unpack_from(data)
    assert magic == b"TZif"
    assert version in b"234"
    isut, isstd, leap, count, types, letters = counts
    at = HEADER.size + count * 5 + types * 6 + letters + leap * 8 + isstd + isut
    _, _, isut, isstd, leap, count, types, letters = HEADER.unpack_from(data, at)
    at += HEADER.size
    times = list(struct.unpack_from(f">{count}q", data, at))
    indexes = data[at + 8 * count : at + 9 * count]
    at += 9 * count
    kinds = [struct.unpack_from(">l?B", data, at + 6 * index) for index in range(types)]
    at += types * 6 + letters + leap * 12 + isstd + isut
    footer = data[at:].strip(b"\n").decode()
    offsets = [kinds[index][0] for index in indexes]
    standard = next((offset for offset, is_summer, _ in kinds if not is_summer), kinds[0][0])
    return times, offsets, kinds[0][0] if times else standard, footer


NAME = r"(?:<[A-Za-z0-9+-]+>|[A-Za-z]+)"
OFFSET = r"[+-]?\d+(?::\d+){0,2}"
RULE = re.compile(rf"{NAME}({OFFSET})(?:{NAME}({OFFSET})?(?:,([^,/]+)(?:/({OFFSET}))?,([^,/]+)(?:/({OFFSET}))?)?)?")


def _seconds(text: str | None, default: int) -> int:
    if text is None:
        return default
    sign = -1 if text[0] == "-" else 1
    parts = [int(part) for part in text.lstrip("+-").split(":")]
    return sign * sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))


def _day(rule: str, year: int) -> date:
    if rule[0] == "M":
        month, week, weekday = (int(part) for part in rule[1:].split("."))
        day = date(year, month, 1)
        day += timedelta(days=(weekday - day.isoweekday()) % 7 + 7 * (week - 1))
        return day if day.month == month else day - timedelta(days=7)
    if rule[0] == "J":  # 29 February is never counted
        number = int(rule[1:])
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        return date(year, 1, 1) + timedelta(days=number - 1 + (leap and number >= 60))
    return date(year, 1, 1) + timedelta(days=int(rule))


def _with_rule(times: list[int], offsets: list[int], initial: int, footer: str, last: int) -> tuple[list[int], list[int]]:
    found = RULE.fullmatch(footer)
    assert found, footer
    standard = -_seconds(found[1], 0)
    after = times[-1] if times else -(2**62)
    more: list[tuple[int, int]] = []
    if found[3]:
        summer = -_seconds(found[2], 0) if found[2] else standard + 3600
        for year in range(1969, (EPOCH + timedelta(seconds=last)).year + 2):
            begin = (_day(found[3], year) - EPOCH).days * 86400 + _seconds(found[4], 7200) - standard
            end = (_day(found[5], year) - EPOCH).days * 86400 + _seconds(found[6], 7200) - summer
            more += [(begin, summer), (end, standard)]
        more.sort()
    elif not times:
        return times, [standard for _ in times]
    kept = [(at, offset) for at, offset in more if at > after]
    return times + [at for at, _ in kept], offsets + [offset for _, offset in kept]


def changes_of_date(found: list[tuple[int, int]], first: int, last: int) -> int:
    """How many seconds of [first, last) there are, summed over the stretches of one offset: all of them, if none overlap."""
    edges = [at for at, _ in found] + [last]
    assert edges[0] == first
    assert all(a < b for a, b in pairwise(edges))
    return sum(b - a for a, b in pairwise(edges))
