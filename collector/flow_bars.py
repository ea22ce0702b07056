"""The bars of `flows graph` on a terminal: lines of text that fit its width, from zero, with an axis in round numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_BLOCKS = " ▏▎▍▌▋▊▉█"
_AMOUNT_WIDTH = 9
BAR_MIN = 10
BAR_WITH_MIDDLE = 24
"""Below this the axis names only its ends."""
SCALE_MIN = 10
"""Octets; half of it is a whole number."""


def draw(rows: Sequence[dict[str, Any]], width: int, plain: bool = False) -> Iterator[str]:
    """Lines of `width` columns: a bar for each row from zero, the octets beside it, and an axis. plain: ASCII only."""
    times = [row["start"] for row in rows]
    cut = 16 if all(text[16:] == ":00.000Z" for text in times) else 19 if all(text[19:] == ".000Z" for text in times) else 23
    room = max(BAR_MIN, width - cut - 4 - _AMOUNT_WIDTH)
    scale = _round_up(max(SCALE_MIN, *(row["octets"] for row in rows)))
    for row in rows:
        octets = row["octets"]
        yield f"{row['start'][:cut]}Z {_bar(octets, scale, room, plain)} {_amount(octets):>{_AMOUNT_WIDTH}}"
    line, corner = ("-", "+") if plain else ("─", "┼")
    parts = (room // 2, room - room // 2 - 1) if room >= BAR_WITH_MIDDLE else (room - 1,)
    marks = (scale // 2, scale)[-len(parts) :]
    yield " " * (cut + 2) + corner + "".join(line * (part - 1) + corner for part in parts)
    yield " " * (cut + 2) + "0" + "".join(f"{_amount(mark):>{part}}" for mark, part in zip(marks, parts, strict=True))
    yield f"octets from {rows[0]['start']} to {rows[-1]['end']}, by the time of their arrival (UTC)"


def _bar(octets: int, scale: int, room: int, plain: bool) -> str:
    eighths = octets * room * 8 // scale
    full, part = divmod(eighths, 8)
    text = "#" * full if plain else "█" * full + _BLOCKS[part].strip()
    return f"{text:<{room}}"


def _round_up(octets: int) -> int:
    """1, 2 or 5 times a power of ten, not less than the octets."""
    power = int("1" + "0" * (len(str(octets)) - 1))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= octets)


def _amount(octets: int) -> str:
    """Three digits and a unit of 1000, rounded down: 1.23 GB."""
    exponent = min((len(str(octets)) - 1) // 3, len(_UNITS) - 1)
    whole, rest = divmod(octets, 1000**exponent)
    digits = min(max(0, 3 - len(str(whole))), 2) if exponent else 0
    fraction = f".{rest * 10**digits // 1000**exponent:0{digits}d}" if digits else ""
    return f"{whole}{fraction} {_UNITS[exponent]}"
