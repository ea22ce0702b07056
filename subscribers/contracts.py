"""Imports subscribers.csv: accounts, services and their successive plans. All or nothing, all problems at once.

Writes `account`, `service`, `subscription`, `input_change` and the audit trail. The key of a row is (service, start): the
same row again is unchanged, another value under the same key is a change, rows that are not in the file stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path

import sqlalchemy as sa

from core import clock, money, tables
from core.actor import Actor
from core.periods import OPEN_END, OPEN_START, local_day_start, time_zone
from security import audit
from storage import sql
from subscribers.csv_file import Problems, Row, read

COLUMNS = ("account", "name", "kind", "email", "phone", "address", "contract", "service", "plan", "start", "end",
           "timezone", "currency")  # fmt: skip
KINDS = ("person", "company")
PERSON = ("name", "kind", "email", "phone", "address")


@dataclass(frozen=True, slots=True)
class Subscription:
    """A service under one plan (or none) for a time; dates are local, ISO text, empty = open."""

    service: str
    account: str
    contract: str
    plan: str
    start_date: str
    end_date: str
    start_ms: int
    end_ms: int
    timezone: str
    currency: str

    @property
    def key(self) -> tuple[str, str]:
        return self.service, self.start_date


@dataclass
class Plan:
    """What an import would do."""

    accounts_new: list[dict[str, str]]
    accounts_changed: list[tuple[dict[str, str], dict[str, str]]]
    added: list[Subscription]
    changed: list[tuple[Subscription, Subscription]]
    person_changed: int = 0  # rows that differ in nothing but the person
    unchanged: int = 0

    def summary(self) -> dict[str, int]:
        """Rows of the file by what becomes of them; a row whose person has changed is a changed row."""
        return {
            "added": len(self.added),
            "changed": len(self.changed) + self.person_changed,
            "unchanged": self.unchanged,
        }


def import_file(engine: sa.Engine, path: Path, actor: Actor, dry_run: bool = False) -> dict[str, int]:
    """Import a file; returns {added, changed, unchanged} in rows. Raises ImportRefused with every problem."""
    problems = Problems(str(path))
    rows = read(path, COLUMNS, problems)
    with sql.reading(engine) if dry_run else sql.transaction(engine) as connection:
        parsed = _parse(rows, _plan_currencies(connection), problems)
        persons = _persons(rows, problems)
        known = stored(connection)
        _check_owners(parsed, known, problems)
        _check_overlaps(parsed, known, problems)
        problems.refuse_if_any()
        plan = _compare(connection, persons, [subscription for _, subscription in parsed], known)
        if not dry_run:
            _write(connection, plan, actor)
    return plan.summary()


def _plan_currencies(connection: sa.Connection) -> dict[str, set[str]]:
    known: dict[str, set[str]] = {}
    version = tables.plan_version
    for name, currency in connection.execute(sa.select(version.c.name, version.c.currency).where(version.c.addon == 0)):
        known.setdefault(name, set()).add(currency)
    return known


def _parse(rows: Iterable[Row], plans: dict[str, set[str]], problems: Problems) -> list[tuple[int, Subscription]]:
    parsed = []
    for row in rows:
        before = len(problems.found)
        values = row.values
        for name in ("account", "name", "service"):
            if not values[name]:
                problems.add(row.line, name, f"{name} is empty", "every row has one")
        if values["kind"] not in KINDS:
            problems.add(row.line, "kind", f"'{values['kind']}' is neither person nor company")
        zone = problems.value(row, "timezone", _zone)
        problems.value(row, "currency", money.minor_digits)
        start = problems.value(row, "start", _day, "an empty start means from the beginning of time")
        end = problems.value(row, "end", _day, "an empty end means open")
        _check_plan(row, plans, problems)
        if len(problems.found) > before or zone is None:
            continue
        start_ms = local_day_start(start, zone) if isinstance(start, date) else OPEN_START
        end_ms = local_day_start(end, zone) if isinstance(end, date) else OPEN_END
        if end_ms <= start_ms:
            problems.add(row.line, "end", f"end {values['end']} is not after start {values['start']}",
                         "end is the first day that no longer counts")  # fmt: skip
            continue
        parsed.append((row.line, Subscription(
            values["service"], values["account"], values["contract"], values["plan"], values["start"], values["end"],
            start_ms, end_ms, zone, values["currency"])))  # fmt: skip
    return parsed


def _zone(text: str) -> str:
    time_zone(text)
    return text


def _day(text: str) -> date | str:
    """A local date, or the empty text."""
    if not text:
        return ""
    try:
        if len(text) != 10:
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a date such as 2026-10-01") from None


def _check_plan(row: Row, plans: dict[str, set[str]], problems: Problems) -> None:
    name, currency = row.values["plan"], row.values["currency"]
    if name and name not in plans:
        import difflib

        near = difflib.get_close_matches(name, list(plans), 1)
        problems.add(row.line, "plan", f"unknown plan '{name}'" + (f", did you mean '{near[0]}'?" if near else ""),
                     "apply its file first with `ratemill plans apply`")  # fmt: skip
    elif name and currency not in plans[name]:
        problems.add(row.line, "currency", f"plan '{name}' is priced in {', '.join(sorted(plans[name]))}, not {currency}",
                     "the currency of a row equals its plan's")  # fmt: skip


def _persons(rows: Iterable[Row], problems: Problems) -> dict[str, dict[str, str]]:
    """Person data by account; two rows of one account must not differ."""
    persons: dict[str, tuple[int, dict[str, str]]] = {}
    for row in rows:
        person = {name: row.values[name] for name in ("account", *PERSON)}
        line, known = persons.setdefault(row.values["account"], (row.line, person))
        for name in PERSON:
            if known[name] != person[name]:
                problems.add(row.line, name, f"account '{person['account']}' has {name} '{person[name]}' here and "
                             f"'{known[name]}' in line {line}", "write the same person in both rows")  # fmt: skip
    return {account: person for account, (_, person) in persons.items()}


def stored(connection: sa.Connection) -> dict[tuple[str, str], Subscription]:
    """All rows, by service and start."""
    row, service = tables.subscription, tables.service
    query = sa.select(service.c.service, service.c.account, service.c.contract, row.c.plan, row.c.start_date,
                      row.c.end_date, row.c.start_ms, row.c.end_ms, row.c.timezone, row.c.currency)  # fmt: skip
    rows = {}
    for found in connection.execute(query.select_from(row.join(service))):
        name, account, contract, plan, *rest = found
        rows[name, found.start_date] = Subscription(name, account, contract, plan or "", *rest)
    return rows


def _check_owners(
    parsed: list[tuple[int, Subscription]], stored: dict[tuple[str, str], Subscription], problems: Problems
) -> None:
    owners = {subscription.service: (0, subscription.account) for subscription in stored.values()}
    contracts: dict[str, tuple[int, str]] = {}
    for line, subscription in parsed:
        first, owner = owners.setdefault(subscription.service, (line, subscription.account))
        if owner != subscription.account:
            where = f"in line {first}" if first else "so far"
            problems.add(line, "account", f"service '{subscription.service}' belongs to account '{owner}' {where}, "
                         f"not to '{subscription.account}'", "a service that changes its owner gets a new name")  # fmt: skip
        first, contract = contracts.setdefault(subscription.service, (line, subscription.contract))
        if contract != subscription.contract:
            problems.add(line, "contract", f"service '{subscription.service}' is under contract '{contract}' in line {first}",
                         "a service has one contract")  # fmt: skip


def _check_overlaps(
    parsed: list[tuple[int, Subscription]], stored: dict[tuple[str, str], Subscription], problems: Problems
) -> None:
    lines: dict[tuple[str, str], int] = {}
    by_service: dict[str, dict[str, tuple[int, Subscription]]] = {}
    for line, subscription in parsed:
        if subscription.key in lines:
            problems.add(line, "start", f"service '{subscription.service}' starts on '{subscription.start_date}' in line "
                         f"{lines[subscription.key]} too", "each row of a service has a start of its own")  # fmt: skip
            continue
        lines[subscription.key] = line
        by_service.setdefault(subscription.service, {})[subscription.start_date] = (line, subscription)
    for known in stored.values():
        if known.service in by_service:
            by_service[known.service].setdefault(known.start_date, (0, known))
    for successive in by_service.values():
        ordered = sorted(successive.values(), key=lambda pair: (pair[1].start_ms, pair[0]))
        for (line_one, one), (line_two, two) in pairwise(ordered):
            if two.start_ms < one.end_ms:
                other = f"line {min(line_one, line_two)}" if min(line_one, line_two) else "a row imported before"
                problems.add(max(line_one, line_two), "start", f"service '{two.service}' would have two plans from "
                             f"{two.start_date or 'the beginning'}: the row overlaps {other} "
                             f"({one.start_date or 'open'} to {one.end_date or 'open'})",
                             "set the end of the earlier row in the same file")  # fmt: skip


def _compare(connection: sa.Connection, persons: dict[str, dict[str, str]], rows: list[Subscription],
             stored: dict[tuple[str, str], Subscription]) -> Plan:  # fmt: skip
    account = tables.account
    known = {row.account: dict(row._mapping) for row in connection.execute(sa.select(account))}
    plan = Plan([], [], [], [])
    for name, person in persons.items():
        if name not in known:
            plan.accounts_new.append(person)
        elif known[name] != person:
            plan.accounts_changed.append((known[name], person))
    persons_changed = {after["account"] for _, after in plan.accounts_changed}
    for row in rows:
        before = stored.get(row.key)
        if before is None:
            plan.added.append(row)
        elif before != row:
            plan.changed.append((before, row))
        elif row.account in persons_changed:
            plan.person_changed += 1
        else:
            plan.unchanged += 1
    return plan


def _write(connection: sa.Connection, plan: Plan, actor: Actor) -> None:
    account, service = tables.account, tables.service
    if plan.accounts_new:
        connection.execute(account.insert(), plan.accounts_new)
    for before, after in plan.accounts_changed:
        connection.execute(account.update().where(account.c.account == after["account"]).values(after))
        audit.record(connection, actor, "account.change", after["account"], before, after)
    ids = {row.service: (row.id, row.contract) for row in connection.execute(sa.select(service))}
    new = {s.service: s for s in plan.added if s.service not in ids}
    if new:
        connection.execute(service.insert(), [
            {"service": s.service, "account": s.account, "contract": s.contract} for s in new.values()])  # fmt: skip
        ids = {row.service: (row.id, row.contract) for row in connection.execute(sa.select(service))}
    for moved in {s.service: s for s in [*plan.added, *(after for _, after in plan.changed)]}.values():
        if ids[moved.service][1] != moved.contract:
            connection.execute(
                service.update().where(service.c.service == moved.service).values(contract=moved.contract)
            )
    touched = write(connection, plan.added, plan.changed, actor)
    if touched or plan.accounts_new or plan.accounts_changed:
        audit.record(connection, actor, "subscribers.import", "subscribers.csv", None, plan.summary())


def write(connection: sa.Connection, added: Sequence[Subscription], changed: Sequence[tuple[Subscription, Subscription]],
          actor: Actor) -> bool:
    """Store rows of services that are there, and say from when to when usage is to be attributed anew."""
    subscription = tables.subscription
    names = {row.service for row in [*added, *(row for _, row in changed)]}
    ids = {row.service: row.id for row in connection.execute(sa.select(tables.service)) if row.service in names}
    for before, row in changed:
        connection.execute(subscription.update().where(
            subscription.c.service_id == ids[row.service], subscription.c.start_date == row.start_date,
        ).values(_stored_row(row, ids[row.service])))  # fmt: skip
        audit.record(connection, actor, "subscription.change", row.service, asdict(before), asdict(row))
    if added:
        connection.execute(subscription.insert(), [_stored_row(row, ids[row.service]) for row in added])
    touched = [*added, *(row for pair in changed for row in pair)]
    if touched:
        connection.execute(tables.input_change.insert().values(
            at=clock.now_ms(), kind="subscriptions", from_ms=min(row.start_ms for row in touched),
            to_ms=max(row.end_ms for row in touched), detail=f"{len(added)} added, {len(changed)} changed"))
    return bool(touched)


def _stored_row(row: Subscription, service_id: int) -> dict[str, object]:
    return {"service_id": service_id, "plan": row.plan or None, "start_date": row.start_date, "end_date": row.end_date,
            "start_ms": row.start_ms, "end_ms": row.end_ms, "timezone": row.timezone, "currency": row.currency}  # fmt: skip
