"""`rollout …`: a plan's version, or the whole system, comes into use by stages: test → pilot → everybody.

Everything is rated in every stage; what a stage decides is who may be invoiced (`storage.rollouts.held`). In test and pilot
nothing is booked of what is rolled out, unless the rollout says that its pilot group is invoiced in the pilot already.

A rollout of the whole system stands for a move from another billing. A stage is reached if the last periods
(`[rollout] compared_periods`) were compared with the other billing without an open cent for those whom the stage reaches:
the group for `pilot`, all for `everybody`. They are invoiced here from a period on; what lies before was billed there and is
never booked here.

Every step is a row of `rollout`, with who, why and what allowed it; a step back is a row like the others.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from core import clock, periods, settings, tables
from core.actor import Actor
from core.errors import BalanceOpen, ImportRefused, NotFound, Problem, RatemillError, UsageError
from core.money import format_minor
from rating.settings import rollout_settings
from rating.twin import comparison
from runtime import jobs
from security import audit
from storage import rollouts, sql
from storage.home import Home
from storage.rollouts import ENDED, EVERYBODY, PILOT, STAGES, TEST, Rollout

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = ["name", "of", "stage", "pilot_books", "pilot_services", "pilot_from", "everybody_from", "since", "actor", "reason"]
HISTORY_COLUMNS = ["at", "action", "stage", "of", "pilot_books", "pilot_services", "pilot_from", "everybody_from", "actor",
                   "reason", "evidence"]
JOB = "rollout"
WHOLE = "the whole system"


def start(home: Home, name: str, plan: str, version: str, group: Collection[str], pilot_books: bool, actor: Actor,
          dry_run: bool = False) -> dict[str, Any]:
    """Begin a rollout in the stage `test`. Raises UsageError for a name that is taken, NotFound for an unknown plan or
    service, RatemillError while another rollout of the same is on its way."""
    if not name or not name.isprintable() or name != name.strip():
        raise UsageError(f"'{name}' is not a name", "letters, digits and dashes, such as autumn-2026")
    with _changing(home, dry_run) as connection:
        standing = rollouts.current(connection)
        if any(rollout.name == name for rollout in standing):
            raise UsageError(f"there is a rollout '{name}' already", "names are kept with their history: take another one")
        of_version = _plan_version(connection, plan, version) if plan else None
        for other in standing:
            if other.plan == (plan or None) and other.stage in (TEST, PILOT):
                raise RatemillError(f"rollout '{other.name}' of {_of(other)} is still in the stage {other.stage}",
                                    f"`ratemill rollout advance {other.name}`, or `rollout end {other.name}`")
        new = Rollout(id=0, name=name, at=clock.now_ms(), actor=actor.name, reason=actor.reason, action="start", stage=TEST,
                      plan=plan or None, plan_version=of_version, pilot_books=pilot_books, pilot_from="", everybody_from="",
                      group=frozenset(_known_services(connection, group)))
        return _step(connection, None, new, actor, bool(group), {}, dry_run)


def advance(home: Home, name: str, group: Collection[str], from_period: str, actor: Actor, dry_run: bool = False
            ) -> dict[str, Any]:
    """Go on to the next stage. Raises BalanceOpen, saying what is missing, where a rollout of the whole system lacks
    comparisons without an open cent."""
    with sql.reading(sql.engine(home)) as connection:
        before = _of_name(connection, name)
        group = frozenset(_known_services(connection, group)) or before.group
        newest = _newest_compared(connection)
    stage = _next_stage(before)
    if stage == PILOT and not group:
        raise UsageError(f"rollout '{name}' has no pilot group", "name one with --group FILE or --services A,B")
    if from_period and not before.is_of_the_system:
        raise UsageError("--from is for a rollout of the whole system", "of a plan all charges that were held are booked")
    if from_period and stage == PILOT and not before.pilot_books:
        raise UsageError("--from names a period, but nothing is booked in this pilot", "it is for the stage everybody")
    evidence: list[dict[str, Any]] = []
    if before.is_of_the_system:
        evidence = _evidence(home, newest, group if stage == PILOT else None)
        from_period = from_period or periods.next_period(newest)
        if from_period <= newest:
            raise UsageError(f"{from_period} was billed by the other billing: charges up to {newest} are here for comparison",
                             f"the first period to be invoiced here is {periods.next_period(newest)} or later")
    after = replace(before, action="advance", stage=stage, group=group, at=clock.now_ms(), actor=actor.name,
                    reason=actor.reason)
    if stage == EVERYBODY:
        after = replace(after, everybody_from=from_period)
    elif before.pilot_books:
        after = replace(after, pilot_from=from_period)
    with _changing(home, dry_run) as connection:
        return _step(connection, before, after, actor, group != before.group, {"compared": evidence}, dry_run)


def back(home: Home, name: str, actor: Actor, dry_run: bool = False) -> dict[str, Any]:
    """Go one stage back: what was booked stays booked, and nothing more is booked of what the stage no longer reaches."""
    with _changing(home, dry_run) as connection:
        before = _of_name(connection, name)
        if before.stage not in (PILOT, EVERYBODY):
            raise UsageError(f"rollout '{name}' is in the stage {before.stage}: there is nothing to go back to",
                             "in the stage test nothing of it is booked; `ratemill rollout end` takes it away altogether")
        stage = STAGES[STAGES.index(before.stage) - 1]
        after = replace(before, action="back", stage=stage, everybody_from="", at=clock.now_ms(), actor=actor.name,
                        reason=actor.reason)
        after = replace(after, pilot_from="") if stage == TEST else after
        return _step(connection, before, after, actor, False, {}, dry_run)


def end(home: Home, name: str, actor: Actor, dry_run: bool = False) -> dict[str, Any]:
    """Take a rollout away that was begun by mistake: whom it held may be invoiced. Raises UsageError for one of the whole
    system that is live, since periods that the other billing has billed would be booked once more."""
    with _changing(home, dry_run) as connection:
        before = _of_name(connection, name)
        if before.stage == ENDED:
            raise UsageError(f"rollout '{name}' has ended already")
        if before.is_of_the_system and (before.stage == EVERYBODY or (before.stage == PILOT and before.pilot_books)):
            raise UsageError(f"rollout '{name}' is live: it keeps what the other billing has billed from being booked",
                             "it stays; `ratemill rollout back` holds what is to come")
        after = replace(before, action="end", stage=ENDED, at=clock.now_ms(), actor=actor.name, reason=actor.reason)
        return _step(connection, before, after, actor, False, {}, dry_run)


def rows(home: Home) -> list[dict[str, Any]]:
    """All rollouts as they stand."""
    with sql.reading(sql.engine(home)) as connection:
        return [_shown(rollout) for rollout in rollouts.current(connection)]


def history(home: Home, name: str) -> list[dict[str, Any]]:
    """Every step of a rollout, the first one first. Raises NotFound."""
    table, member = tables.rollout, tables.rollout_service
    with sql.reading(sql.engine(home)) as connection:
        _of_name(connection, name)
        steps = connection.execute(sa.select(table).where(table.c.name == name).order_by(table.c.id)).all()
        counts = {row.rollout_id: row.members for row in connection.execute(
            sa.select(member.c.rollout_id, sa.func.count().label("members")).group_by(member.c.rollout_id))}
    found, members = [], 0
    for row in steps:
        members = counts.get(row.id, members)
        found.append({"at": periods.format_instant(row.at), "action": row.action, "stage": row.stage,
                      "of": WHOLE if row.plan is None else f"{row.plan} from {row.plan_version}",
                      "pilot_books": bool(row.pilot_books), "pilot_services": members, "pilot_from": row.pilot_from or None,
                      "everybody_from": row.everybody_from or None, "actor": row.actor, "reason": row.reason,
                      "evidence": json.loads(row.evidence)})
    return found


def read_group(path: Path) -> list[str]:
    """The services of a file, one a line; a first line `service`, blank lines and what follows # do not count."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RatemillError(f"{path} can't be read: {error}", "check the name, the rights and that it is UTF-8") from None
    found = [text.partition("#")[0].strip() for text in lines]
    problems = [Problem(str(path), number, "service", f"'{text}' is more than a service", "write one service a line")
                for number, text in enumerate(found, 1) if "," in text or ";" in text]
    if problems:
        raise ImportRefused(problems)
    return [text for number, text in enumerate(found) if text and not (number == 0 and text.lower() == "service")]


@contextmanager
def _changing(home: Home, dry_run: bool) -> Iterator[sa.Connection]:
    """The transaction of a step, one at a time."""
    bound = sql.engine(home)
    if dry_run:
        with sql.reading(bound) as connection:
            yield connection
        return
    with jobs.hold(bound, JOB), sql.transaction(bound) as connection:
        yield connection


def _step(connection: sa.Connection, before: Rollout | None, after: Rollout, actor: Actor, names_group: bool,
          evidence: dict[str, Any], dry_run: bool) -> dict[str, Any]:
    summary = {**_shown(after), "evidence": evidence, "dry_run": dry_run}
    if dry_run:
        return summary
    if before is not None and _of_name(connection, after.name).id != before.id:
        raise RatemillError(f"rollout '{after.name}' has changed meanwhile", "look at it with `ratemill rollout show`")
    inserted = connection.execute(tables.rollout.insert().values(
        at=after.at, actor=after.actor, reason=after.reason, name=after.name, action=after.action, stage=after.stage,
        plan=after.plan, plan_version=after.plan_version, pilot_books=int(after.pilot_books), pilot_from=after.pilot_from,
        everybody_from=after.everybody_from, evidence=json.dumps(evidence))).inserted_primary_key
    assert inserted is not None, "an insert gives a row id"
    if names_group:
        connection.execute(tables.rollout_service.insert(),
                           [{"rollout_id": inserted[0], "service": service} for service in sorted(after.group)])
    audit.record(connection, actor, f"rollout {after.action}", after.name, None if before is None else _shown(before),
                 {**_shown(after), "evidence": evidence})
    return summary


def _shown(rollout: Rollout) -> dict[str, Any]:
    return {"name": rollout.name, "of": _of(rollout), "stage": rollout.stage, "pilot_books": rollout.pilot_books,
            "pilot_services": len(rollout.group), "pilot_from": rollout.pilot_from or None,
            "everybody_from": rollout.everybody_from or None, "since": periods.format_instant(rollout.at),
            "actor": rollout.actor, "reason": rollout.reason}


def _of(rollout: Rollout) -> str:
    return WHOLE if rollout.plan is None else f"{rollout.plan} from {rollout.plan_version}"


def _of_name(connection: sa.Connection, name: str) -> Rollout:
    standing = {rollout.name: rollout for rollout in rollouts.current(connection)}
    if name not in standing:
        near = difflib.get_close_matches(name, list(standing), 1)
        raise NotFound(f"there is no rollout '{name}'", f"did you mean '{near[0]}'?" if near else "`ratemill rollout list`")
    return standing[name]


def _next_stage(rollout: Rollout) -> str:
    if rollout.stage not in (TEST, PILOT):
        raise UsageError(f"rollout '{rollout.name}' is in the stage {rollout.stage}: there is no next one")
    return STAGES[STAGES.index(rollout.stage) + 1]


def _plan_version(connection: sa.Connection, plan: str, version: str) -> str:
    """The version that is rolled out: the one that is named, or the newest."""
    table = tables.plan_version
    versions = list(connection.scalars(sa.select(table.c.valid_from).where(table.c.name == plan).order_by(table.c.valid_from)))
    if not versions:
        near = difflib.get_close_matches(plan, list(connection.scalars(sa.select(table.c.name).distinct())), 1)
        raise NotFound(f"there is no plan '{plan}'", f"did you mean '{near[0]}'?" if near else "`ratemill plans list`")
    if version and version not in versions:
        raise NotFound(f"plan '{plan}' has no version of {version}", f"it has {', '.join(versions)}")
    return version or versions[-1]


def _known_services(connection: sa.Connection, group: Iterable[str]) -> list[str]:
    wanted = sorted(set(group))
    if not wanted:
        return []
    known = set(connection.scalars(sa.select(tables.service.c.service)))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, 1)
        raise NotFound(f"{len(unknown)} of the pilot group are no services: {', '.join(unknown[:5])}",
                       f"did you mean '{near[0]}'?" if near else "`ratemill subscribers list` shows all")
    return wanted


def _newest_compared(connection: sa.Connection) -> str:
    """The newest period of which another billing's charges are here; empty without one."""
    return str(connection.scalar(sa.select(sa.func.max(tables.twin_import.c.period))) or "")


def _evidence(home: Home, newest: str, group: Collection[str] | None) -> list[dict[str, Any]]:
    """The comparisons of the last periods, of the group or of all. Raises BalanceOpen with everything that is missing."""
    count = rollout_settings(home.document).compared_periods
    if not newest:
        raise BalanceOpen(f"nothing was compared yet, and {count} periods without an open cent are needed",
                          "`ratemill twin import PERIOD FILE.csv`, then `ratemill twin compare PERIOD`")
    wanted = [newest]
    while len(wanted) < count:
        wanted.insert(0, periods.previous_period(wanted[0]))
    found, missing = [], []
    zone = settings.seller(home.document).timezone
    for period in wanted:
        try:
            compared = comparison.compare(home, period)
        except NotFound as error:
            missing.append(error.message)
            continue
        of = compared if group is None else compared.of(group)
        if compared.rated_as_of < periods.period_bounds(period, zone)[1]:
            missing.append(f"{period} was rated before its end")
        elif not of.lines:
            missing.append(f"{period}: neither billing has charges of the pilot group")
        elif of.open_lines:
            missing.append(f"{period}: {_open_text(of.unexplained_minor)} on {len(of.open_lines)} lines are open")
        found.append({"period": period, "rate_run": compared.rate_run, "import": compared.import_id, "lines": len(of.lines),
                      "explained_minor": of.summary()["explained_minor"], "unexplained_minor": of.unexplained_minor})
    if missing:
        of_whom = "all services" if group is None else "the pilot group"
        raise BalanceOpen(f"the last {count} periods must be without an open cent for {of_whom}:\n  " + "\n  ".join(missing),
                          "`ratemill twin compare PERIOD` shows each; correct what is wrong, or accept it with `twin explain`")
    return found


def _open_text(minor: dict[str, int]) -> str:
    return " and ".join(f"{format_minor(amount, currency)} {currency}" for currency, amount in minor.items())


def members(home: Home, name: str) -> Sequence[str]:
    """The services of the pilot group. Raises NotFound."""
    with sql.reading(sql.engine(home)) as connection:
        return sorted(_of_name(connection, name).group)
