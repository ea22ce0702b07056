"""`classes apply`, `list` and `show`: versions of the rules of traffic classes, known by the date from which they hold.

Applying a version changes the cells of the time in which it is in force, up to the next version: batches which reach that
time are made again. What was invoiced stays; a difference becomes an adjustment.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from aggregation import class_file, class_ranges, classes, settings
from aggregation.class_file import Draft
from core import class_rules, clock, tables
from core.actor import Actor
from core.class_rules import Ranges
from core.errors import ImportRefused, NotFound
from core.settings import seller
from runtime import jobs
from security import audit
from storage import sql
from storage.home import Home

CHANGE_KIND = "classes"
SETTINGS_VERSION = "settings"
"""The name of the rules that [[class]] makes, in force before the first version."""

LIST_COLUMNS = ["version", "rules", "prefixes", "classes", "applied"]
SHOW_COLUMNS = ["rule", "class", "priority", "prefixes", "as", "dscp", "protocols", "ports", "near_ports", "interfaces",
                "direction"]


def apply(home: Home, path: Path, valid_from: date | None, actor: Actor, dry_run: bool = False) -> dict[str, Any]:
    """Store the rules of a file as a version; returns what that did. Raises ImportRefused with every problem."""
    engine = sql.engine(home)
    draft = class_file.read(path, valid_from)
    if draft.problems:
        raise ImportRefused(sorted(draft.problems, key=lambda problem: (problem.file != str(path), problem.line)))
    assert draft.valid_from is not None, "a file without a date is refused"
    ids = {rule.class_: 0 for rule in draft.rules}
    class_ranges.compile_rules(draft.rules, draft.prefixes, ids, 0)  # raises if it grows beyond bounds
    digest = class_rules.digest(draft.rules, draft.prefixes)
    table = tables.class_version
    with nullcontext() if dry_run else jobs.hold(engine, "classes"):
        with sql.reading(engine) as connection:
            before = connection.execute(sa.select(table).where(table.c.valid_from == draft.valid_from.isoformat())).first()
        what = "added" if before is None else "unchanged" if before.digest == digest else "changed"
        if not dry_run and what != "unchanged":
            with sql.transaction(engine) as connection:
                _store(connection, home, draft, digest, before, actor)
    return {"version": draft.valid_from.isoformat(), **{word: int(what == word) for word in ("added", "changed", "unchanged")},
            "rules": len(draft.rules), "prefixes": sum(len(some.high) for some in draft.prefixes)}


def _store(connection: sa.Connection, home: Home, draft: Draft, digest: str, before: Any, actor: Actor) -> None:
    table, packed = tables.class_version, tables.class_prefixes
    assert draft.valid_from is not None
    valid_from = draft.valid_from.isoformat()
    classes.ensure_ids(connection, draft.rules)
    values = {"document": class_rules.document(draft.rules), "digest": digest, "rules": len(draft.rules),
              "prefixes": sum(len(some.high) for some in draft.prefixes), "at": clock.now_ms()}
    if before is None:
        connection.execute(table.insert().values(valid_from=valid_from, **values))
    else:
        connection.execute(table.update().where(table.c.id == before.id).values(**values))
        connection.execute(packed.delete().where(packed.c.version_id == before.id))
    stored = classes.versions(connection, seller(home.document).timezone)
    version = next(version for version in stored if version.valid_from == valid_from)
    rows = [{"version_id": version.id, "rule": number, "prefixes": class_rules.dump_prefixes(some)}
            for number, some in enumerate(draft.prefixes) if len(some.high)]
    if rows:
        connection.execute(packed.insert(), rows)
    brief = {name: values[name] for name in ("digest", "rules", "prefixes")}
    was = None if before is None else {name: getattr(before, name) for name in brief}
    action = "added" if before is None else "changed"
    audit.record(connection, actor, f"classes apply: version {action}", valid_from, was, brief)
    connection.execute(tables.input_change.insert().values(
        at=clock.now_ms(), kind=CHANGE_KIND, from_ms=version.start, to_ms=version.end,
        detail=json.dumps({"actor": actor.name, "reason": actor.reason})))


def rows(home: Home) -> list[dict[str, Any]]:
    """All versions, oldest first; before them the rules of [[class]]."""
    entries = settings.classes(home.document)
    table = tables.class_version
    with sql.reading(sql.engine(home)) as connection:
        stored = list(connection.execute(sa.select(table).order_by(table.c.valid_from)))
    from core.periods import format_instant

    return [{"version": SETTINGS_VERSION, "rules": len(entries), "prefixes": sum(len(e.prefixes) for e in entries),
             "classes": sorted({e.name for e in entries}), "applied": None},
            *({"version": row.valid_from, "rules": row.rules, "prefixes": row.prefixes,
               "classes": sorted(class_rules.class_names(row.document)), "applied": format_instant(row.at)} for row in stored)]


def show(home: Home, version: str) -> list[dict[str, Any]]:
    """The rules of a version, highest priority first. Raises NotFound."""
    table = tables.class_version
    with sql.reading(sql.engine(home)) as connection:
        number = connection.execute(sa.select(table.c.id).where(table.c.valid_from == version)).scalar()
        if number is None and version != SETTINGS_VERSION:
            raise NotFound(f"there is no version '{version}' of traffic classes", "`ratemill classes list` shows all")
        rules, prefixes = (classes.settings_rules(settings.classes(home.document)) if number is None
                           else classes.load_rules(connection, number))
    found = [{"rule": rule.name, "class": rule.class_, "priority": rule.priority, "prefixes": len(some.high),
              "as": _text(rule.as_numbers), "dscp": list(rule.dscp), "protocols": list(rule.protocols),
              "ports": _text(rule.ports), "near_ports": _text(rule.near_ports),
              "interfaces": [f"{exporter} {' '.join(map(str, listed))}".strip() for exporter, listed in rule.interfaces],
              "direction": rule.direction} for rule, some in zip(rules, prefixes, strict=True)]
    return sorted(found, key=lambda row: -row["priority"])


def _text(ranges: Ranges) -> list[str]:
    return [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
