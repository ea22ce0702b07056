"""`plans diff`: what a version of a plan says otherwise than another, line by line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rating.plans import LINE_KINDS

COLUMNS = ("plan", "from", "against", "where", "before", "after", "subscriptions")
Document = Mapping[str, Any]


def differences(before: Document, after: Document) -> Iterator[tuple[str, str | None, str | None]]:
    """(where, before, after) of every key that differs; a line that one of the two lacks is one difference."""
    kinds = {*LINE_KINDS, "fair_use"}
    for key in [*before, *(key for key in after if key not in before)]:
        if key not in kinds and key not in ("name", "from") and before.get(key) != after.get(key):
            yield key, _shown(before.get(key)), _shown(after.get(key))
    for kind in (*LINE_KINDS, "fair_use"):
        old, new = ({line["name"]: line for line in document.get(kind) or ()} for document in (before, after))
        for name in [*old, *(name for name in new if name not in old)]:
            where = f"{kind} '{name}'"
            if name not in new:
                yield where, _line(old[name]), None
            elif name not in old:
                yield where, None, _line(new[name])
            else:
                for key in [*old[name], *(key for key in new[name] if key not in old[name])]:
                    if old[name].get(key) != new[name].get(key):
                        yield f"{where}: {key}", _shown(old[name].get(key)), _shown(new[name].get(key))


def _line(line: Document) -> str:
    return ", ".join(f"{key} = {_shown(value)}" for key, value in line.items() if key != "name" and value not in ([], None))


def _shown(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_shown(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(str(_shown(item)) for item in value) + "]"
    return None if value is None else str(value)
