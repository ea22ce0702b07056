"""The log: one line an event on stderr, made for journald and grep.

    2026-11-24T13:30:21.123Z info supervisor process started name=collect pid=4711

Time, level, place, message, then key=value. Nothing is logged per packet; what comes in bulk is counted.
"""

from __future__ import annotations

import json
import sys

from core import clock
from core.periods import format_instant

LEVELS = ("info", "warning", "error")


def write(level: str, place: str, message: str, **values: object) -> None:
    """Write one line. `values` are numbers, texts or None; a text with a space is quoted."""
    assert level in LEVELS, level
    parts = [format_instant(clock.now_ms()), level, place, message]
    parts += [f"{name}={_text(value)}" for name, value in values.items()]
    print(" ".join(parts), file=sys.stderr, flush=True)


def info(place: str, message: str, **values: object) -> None:
    write("info", place, message, **values)


def warning(place: str, message: str, **values: object) -> None:
    write("warning", place, message, **values)


def error(place: str, message: str, **values: object) -> None:
    write("error", place, message, **values)


def _text(value: object) -> str:
    text = "" if value is None else str(value)
    plain = text.isprintable() and not set(text) & set(' "=') and text != ""
    return text if plain else json.dumps(text, ensure_ascii=False)
