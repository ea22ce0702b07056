"""`plans apply`: the calendars and plans of a file → tables plan_version and calendar_version, all or nothing.

A version is known by (name, from). A version whose content something was charged by does not change any more: what is
different from a date on is a new version with a new `from`. Holidays are frozen into a calendar's version when it is
first applied, so that a newer list of holidays never changes what was rated.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from core import calendars, class_rules, clock, markets, periods, settings, tables
from core.actor import Actor
from core.errors import ImportRefused, Problem, SettingsError
from rating import holiday_dates, linter, plans, simulation, stored
from rating.usage_of_plans import Use, uses
from runtime import jobs
from security import audit
from storage import sql
from storage.home import Home

WIDEST_OFFSET_MS = 15 * periods.HOUR_MS
"""A local date begins at most this long before it does in UTC."""


@dataclass(frozen=True)
class Version:
    """A version in the file: what is to be stored, and where it was written."""

    noun: str  # plan or calendar
    name: str
    valid_from: str
    digest: str
    source: dict[str, Any]  # as written: what the digest is of
    line: int

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.valid_from


def apply(home: Home, path: Path, actor: Actor, dry_run: bool = False) -> dict[str, int]:
    """Store what the file says; returns {added, changed, unchanged}. Raises ImportRefused with every problem."""
    engine = sql.engine(home)
    with nullcontext() if dry_run else jobs.hold(engine, "plans"):
        versions, added, changed = _compare(home, engine, path)
        if not dry_run and (added or changed):
            with sql.transaction(engine) as connection:
                _store(connection, added, changed, actor)
    return {"added": len(added), "changed": len(changed), "unchanged": len(versions) - len(added) - len(changed)}


def _compare(home: Home, engine: sa.Engine, path: Path) -> tuple[list[Version], list[Version], list[Version]]:
    """All versions of the file, the new ones and the changed ones."""
    with sql.reading(engine) as connection:
        known = _stored(connection)
        surroundings = surroundings_of(home, connection)
    versions = _versions(read(home, path, surroundings))
    added = [version for version in versions if (version.noun, *version.key) not in known]
    changed = [version for version in versions if known.get((version.noun, *version.key), version.digest) != version.digest]
    problems = _frozen_problems(home, path, changed) + _lost_zone_problems(engine, path, changed)
    if problems:
        raise ImportRefused(problems)
    return versions, added, changed


def read(home: Home, path: Path, surroundings: linter.Surroundings) -> linter.Linted:
    """A file that is right, whose examples hold. Raises ImportRefused."""
    linted = linter.read(path, surroundings)
    problems = linted.problems or simulation.problems_of(str(path), linted, settings.tax_rates(home.document))
    if problems:
        raise ImportRefused(problems)
    return linted


def _stored(connection: sa.Connection) -> dict[tuple[str, str, str], str]:
    found: dict[tuple[str, str, str], str] = {}
    for noun, table in (("plan", tables.plan_version), ("calendar", tables.calendar_version)):
        for row in connection.execute(sa.select(table.c.name, table.c.valid_from, table.c.digest)):
            found[noun, row.name, row.valid_from] = row.digest
    return found


def surroundings_of(home: Home, connection: sa.Connection) -> linter.Surroundings:
    """What a plan file may refer to in this home."""
    zones: dict[str, frozenset[str]] = {}
    for version in stored.load_calendars(connection):
        zones[version.name] = zones.get(version.name, frozenset()) | {zone.name for zone in version.zones}
    market = settings.seller(home.document).market
    return linter.Surroundings(
        market=markets.load(market) if market else None,
        tax_categories=frozenset(rate.category for rate in settings.tax_rates(home.document)),
        classes=class_names(home.document) | _rule_classes(connection), calendar_zones=zones)


def class_names(document: settings.Document) -> frozenset[str]:
    """Names of the [[class]] sections (which aggregation reads in full), and `default`."""
    sections = document.get("class", [])
    if not isinstance(sections, list) or not all(isinstance(section, Mapping) for section in sections):
        raise SettingsError("[[class]] is not a list of tables", "write each one as [[class]] and key = value lines")
    return frozenset({"default", *(str(section.get("name", "")) for section in sections)})


def _rule_classes(connection: sa.Connection) -> frozenset[str]:
    """Classes that some version of a rule file gives."""
    documents = connection.execute(sa.select(tables.class_version.c.document)).scalars()
    return frozenset(name for document in documents for name in class_rules.class_names(document))


def _versions(linted: linter.Linted) -> list[Version]:
    found = []
    for noun, documents, lines in (("calendar", linted.calendars, linted.calendar_lines),
                                   ("plan", linted.plans, linted.plan_lines)):
        for document, line in zip(documents, lines, strict=True):
            found.append(Version(noun, document["name"], document["from"], plans.digest(document), document, line))
    return found


def _frozen_problems(home: Home, path: Path, changed: Iterable[Version]) -> list[Problem]:
    """Changes of versions that something was invoiced by."""
    changed = list(changed)
    if not changed:
        return []
    used = uses(home)
    problems = []
    for version in changed:
        use = _use_of(version, used)
        if use is not None:
            problems.append(Problem(
                str(path), version.line, "from",
                f"{version.noun} '{version.name}' from {version.valid_from} was changed, but {use.what} was made by it",
                f"leave it as it is and add the {version.noun} once more with a later `from`"))
    return problems


def _use_of(version: Version, used: Iterable[Use]) -> Use | None:
    for use in used:
        if version.noun == "plan" and (use.plan, use.plan_version) == version.key:
            return use
        if version.noun == "calendar" and use.calendar == version.name and use.end > version.valid_from:
            return use
    return None


def _lost_zone_problems(engine: sa.Engine, path: Path, changed: Iterable[Version]) -> list[Problem]:
    """Zones that a change takes away although a stored plan names them."""
    new = {version.key: calendars.parse(version.source) for version in changed if version.noun == "calendar"}
    if not new:
        return []
    with sql.reading(engine) as connection:
        known, stored_plans = stored.load_calendars(connection), stored.load_plans(connection)
    replaced = {version.key for version in changed if version.noun == "plan"}
    after = [new.get((version.name, version.valid_from.isoformat()), version) for version in known]
    problems = []
    for plan in (plan for plan in stored_plans if (plan.name, plan.version) not in replaced):
        zones = {zone.name for version in after if version.name == plan.calendar for zone in version.zones}
        lost = [name for line in (*plan.traffic, *plan.quotas, *plan.fair_use) for name in line.zones if name not in zones]
        line = next((v.line for v in changed if v.noun == "calendar" and v.name == plan.calendar), 1)
        problems += [Problem(str(path), line, "zones", f"zone '{name}' goes, but plan '{plan.name}' from {plan.version} "
                             "names it", "keep the zone, or change the plan in the same file") for name in lost]
    return problems


def _store(connection: sa.Connection, added: Iterable[Version], changed: Iterable[Version], actor: Actor) -> None:
    affected: list[int] = []
    for version, is_new in [*((v, True) for v in added), *((v, False) for v in changed)]:
        table = tables.plan_version if version.noun == "plan" else tables.calendar_version
        here = (table.c.name == version.name) & (table.c.valid_from == version.valid_from)
        before = None if is_new else json.loads(connection.execute(sa.select(table.c.document).where(here)).scalar_one())
        values = _values(version, before)
        if is_new:
            connection.execute(table.insert().values(name=version.name, valid_from=version.valid_from, **values))
        else:
            connection.execute(table.update().where(here).values(**values))
        audit.record(connection, actor, f"plans apply: {version.noun} {'added' if is_new else 'changed'}",
                     f"{version.name} from {version.valid_from}", _brief(before), _brief(version.source))
        if _matters(connection, version, before):
            affected.append(_affected_from(connection, table, version))
    if affected:
        connection.execute(tables.input_change.insert().values(
            at=clock.now_ms(), kind="plans", from_ms=min(affected), to_ms=periods.OPEN_END,
            detail=json.dumps({"actor": actor.name, "reason": actor.reason})))


def _values(version: Version, before: Mapping[str, Any] | None) -> dict[str, Any]:
    common = {"digest": version.digest, "at": clock.now_ms()}
    source = version.source
    if version.noun == "plan":
        return {**common, "currency": source["currency"], "tax": source["tax"], "prices": source["prices"],
                "calendar": source["calendar"], "five_minutes": int(bool(source["percentile"])),
                "addon": int(source.get("addon", False)),
                "document": plans.canonical(source)}
    return {**common, "document": plans.canonical({**source, "holiday_dates": holiday_dates_of(source, before)})}


def holiday_dates_of(source: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> list[str]:
    """The holidays that a calendar gets: those of the version before it, if that names the same."""
    if source["holidays"] is None:
        return []
    if before is not None and before["holidays"] == source["holidays"]:
        return list(before["holiday_dates"])
    return [day.isoformat() for day in holiday_dates.dates(source["holidays"])]


def _brief(document: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if document is None else {name: value for name, value in document.items() if name != "holiday_dates"}


def _matters(connection: sa.Connection, version: Version, before: Mapping[str, Any] | None) -> bool:
    """Whether the slots or zones of anybody's traffic can differ: prices do not change where traffic belongs."""
    subscription, plan = tables.subscription, tables.plan_version
    names = [version.name]
    if version.noun == "calendar":
        names = list(connection.execute(sa.select(plan.c.name).where(plan.c.calendar == version.name)).scalars())
    elif before is not None and (before["calendar"], bool(before["percentile"])) == (
            version.source["calendar"], bool(version.source["percentile"])):
        return False
    return connection.execute(sa.select(subscription.c.id).where(subscription.c.plan.in_(names)).limit(1)).first() is not None


def _affected_from(connection: sa.Connection, table: sa.Table, version: Version) -> int:
    """The first instant that a version can concern; the earliest version also stands for all time before it."""
    earliest = connection.execute(sa.select(sa.func.min(table.c.valid_from)).where(table.c.name == version.name)).scalar_one()
    if earliest == version.valid_from:
        return periods.OPEN_START
    return periods.local_day_start(date.fromisoformat(version.valid_from), "UTC") - WIDEST_OFFSET_MS
