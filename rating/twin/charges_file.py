"""`twin import PERIOD FILE.csv`: another billing's charges of a period → tables twin_import and twin_charge, all or nothing.

Columns: service, line (or product), amount, currency; quantity and tax may be left out. Amounts are major units as text and
exact: one that is finer than the currency's minor unit was not invoiced so, and is refused. The newest import of a period is
the one that counts; earlier ones stay.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from core import clock, money, tables
from core.actor import Actor
from core.errors import UsageError
from core.periods import format_instant
from rating.plans import LINE_KINDS, Plan
from rating.stored import load_plans
from rating.twin.mapping import COLUMNS, TwinMapping
from rating.twin.mapping import read as read_mapping
from security import audit
from storage import sql
from storage.home import Home
from subscribers.csv_file import Problems, Row, read

CHUNK = 5_000
LIST_COLUMNS = ["period", "import", "at", "actor", "reason", "file", "rows", "amounts", "counts"]
_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,9})?")
_TOTAL = re.compile(r"(-?\d{1,15}(?:\.\d{1,9})?) ?([A-Z]{3})")


@dataclass(frozen=True, slots=True)
class TheirCharge:
    """A row of the file, in our names."""

    row_number: int
    service: str
    theirs: str
    line: str
    not_billed: str
    amount_minor: int
    currency: str
    quantity: str
    tax_minor: int | None


def import_file(home: Home, period: str, path: Path, mapping_path: Path | None, totals: Sequence[str], actor: Actor,
                dry_run: bool = False) -> dict[str, Any]:
    """Store the file's charges; returns a summary. Raises ImportRefused with every problem, also where the rows do not add
    up to the stated `totals` ("1234.56 EUR")."""
    bound = sql.engine(home)
    wanted = _totals(totals)
    with sql.reading(bound) as connection:
        known = line_names(load_plans(connection))
    mapping = read_mapping(mapping_path, known) if mapping_path is not None else TwinMapping()
    problems = Problems(str(path))
    charges = _charges(read(path, COLUMNS, problems, mapping.shape()), mapping, problems)
    sums = _sums(charges)
    if not problems.found:
        _check_totals(wanted, sums, problems)
    problems.refuse_if_any()
    values = {"period": period, "file": path.name, "digest": _digest(path, mapping), "rows": len(charges),
              "amounts": mapping.amounts, "mapping": json.dumps(mapping.document(), ensure_ascii=False, sort_keys=True)}
    with sql.reading(bound) if dry_run else sql.transaction(bound) as connection:
        before = newest(connection, period)
        changed = before is None or before.digest != values["digest"]
        summary = {"period": period, "rows": len(charges), "total_minor": sums, "changed": changed,
                   "replaces": before.id if before is not None and changed else None,
                   "unknown_services": _unknown_services(connection, charges),
                   "unknown_lines": sorted({row.theirs for row in charges if not row.not_billed and row.line not in known})}
        if changed and not dry_run:
            _store(connection, values, charges, before, sums, actor)
    return summary


def line_names(plans: Iterable[Plan]) -> frozenset[str]:
    """Names of the lines of all versions of all plans."""
    attributes = {"fee": "fees", "traffic": "traffic", "once": "once"}
    return frozenset(line.name for plan in plans for kind in LINE_KINDS
                     for line in getattr(plan, attributes.get(kind, f"{kind}s"), ()))


def newest(connection: sa.Connection, period: str) -> sa.Row[Any] | None:
    """The import of a period that counts."""
    table = tables.twin_import
    return connection.execute(sa.select(table).where(table.c.period == period)
                              .order_by(table.c.id.desc()).limit(1)).one_or_none()


def stored(connection: sa.Connection, import_id: int, service: str = "") -> list[TheirCharge]:
    """The charges of an import, in the order of the file."""
    table = tables.twin_charge
    query = sa.select(table).where(table.c.import_id == import_id).order_by(table.c.row_number)
    if service:
        query = query.where(table.c.service == service)
    return [TheirCharge(*row[1:]) for row in connection.execute(query)]


def rows(home: Home) -> list[dict[str, Any]]:
    """All imports, the newest last; `counts` says which one of a period is compared."""
    table = tables.twin_import
    with sql.reading(sql.engine(home)) as connection:
        found = connection.execute(sa.select(table).order_by(table.c.period, table.c.id)).all()
    last = {row.period: row.id for row in found}
    return [{"period": row.period, "import": row.id, "at": format_instant(row.at), "actor": row.actor, "reason": row.reason,
             "file": row.file, "rows": row.rows, "amounts": row.amounts, "counts": last[row.period] == row.id}
            for row in found]


def _totals(texts: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in texts:
        match = _TOTAL.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"--total '{text}' is not an amount and a currency", 'write it as --total "1234.56 EUR"')
        if match[2] in found:
            raise UsageError(f"--total is given twice for {match[2]}", "give one a currency")
        try:
            found[match[2]] = minor(match[1], match[2])
        except ValueError as error:
            raise UsageError(f"--total: {error}") from None
    return found


def minor(text: str, currency: str) -> int:
    """Major units as text → minor units, exactly."""
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f"'{text}' is not an amount such as 19.90")
    digits = money.minor_digits(currency)
    amount = Fraction(text) * 10**digits
    if amount.denominator != 1:
        raise ValueError(f"{text} is finer than the minor unit of {currency}, which has {digits} decimals")
    return int(amount)


def _charges(found: list[Row], mapping: TwinMapping, problems: Problems) -> list[TheirCharge]:
    charges = []
    for row in found:
        charge = _charge(row, mapping, problems)
        if charge is not None:
            charges.append(charge)
    if not found and not problems.found:
        problems.add(1, "", "the file has no rows", "a period in which nobody was charged can't be compared")
    return charges


def _charge(row: Row, mapping: TwinMapping, problems: Problems) -> TheirCharge | None:
    values = {name: row.values.get(name, "") for name in COLUMNS}
    if mapping.decimal == ",":
        values |= {name: values[name].replace(",", ".") for name in ("amount", "quantity", "tax")}
    before = len(problems.found)
    for name in ("service", "line"):
        if not values[name]:
            problems.add(row.line, name, f"the {name} is empty")
    parsed = Row(row.line, values)
    hint = 'amounts are major units as they were invoiced, such as 19.90; decimal = "," in the mapping reads 19,90'
    currency = problems.value(parsed, "currency", _currency, "three capital letters (ISO 4217), such as EUR")
    if currency is None:
        return None
    amount = problems.value(parsed, "amount", lambda text: minor(text, currency), hint)
    tax = problems.value(parsed, "tax", lambda text: minor(text, currency), hint) if values["tax"] else None
    quantity = problems.value(parsed, "quantity", _quantity) if values["quantity"] else ""
    if len(problems.found) + problems.beyond > before or amount is None:
        return None
    theirs = values["line"]
    return TheirCharge(row.line, mapping.services.get(values["service"], values["service"]), theirs,
                       mapping.lines.get(theirs, theirs), mapping.not_billed.get(theirs, ""), amount, currency,
                       quantity or "", tax)


def _currency(text: str) -> str:
    money.minor_digits(text)
    return text


def _quantity(text: str) -> str:
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f"'{text}' is not a number such as 103.5")
    return text


def _sums(charges: Iterable[TheirCharge]) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for charge in charges:
        sums[charge.currency] += charge.amount_minor
    return dict(sorted(sums.items()))


def _check_totals(wanted: dict[str, int], sums: dict[str, int], problems: Problems) -> None:
    if not wanted:
        return
    for currency in sorted(wanted.keys() | sums.keys()):
        if currency not in wanted:
            problems.add(0, "currency", f"the file has amounts in {currency}, of which no total is stated",
                         f'state it with --total "{money.format_minor(sums[currency], currency)} {currency}"')
            continue
        got, stated = sums.get(currency, 0), wanted[currency]
        if got != stated:
            texts = [money.format_minor(minor, currency) for minor in (got, stated, got - stated)]
            problems.add(0, "amount", f"the rows add up to {texts[0]} {currency}, the stated total is {texts[1]}: "
                         f"the difference is {texts[2]}", "a row is missing, is there twice, or the total is of another file")


def _digest(path: Path, mapping: TwinMapping) -> str:
    content = json.dumps(mapping.document(), sort_keys=True, ensure_ascii=False).encode()
    return hashlib.sha256(hashlib.sha256(path.read_bytes()).digest() + content).hexdigest()


def _unknown_services(connection: sa.Connection, charges: Iterable[TheirCharge]) -> int:
    known = set(connection.scalars(sa.select(tables.service.c.service)))
    return len({charge.service for charge in charges if charge.service not in known})


def _store(connection: sa.Connection, values: dict[str, Any], charges: Sequence[TheirCharge], before: sa.Row[Any] | None,
           sums: dict[str, int], actor: Actor) -> None:
    inserted = connection.execute(tables.twin_import.insert().values(
        **values, at=clock.now_ms(), actor=actor.name, reason=actor.reason)).inserted_primary_key
    assert inserted is not None, "an insert gives a row id"
    names = TheirCharge.__dataclass_fields__
    made = [{"import_id": inserted[0], **{name: getattr(charge, name) for name in names}} for charge in charges]
    for first in range(0, len(made), CHUNK):
        connection.execute(tables.twin_charge.insert(), made[first:first + CHUNK])
    kept = ("file", "digest", "rows")
    audit.record(connection, actor, "twin import", values["period"],
                 None if before is None else {"import": before.id, **{name: before._mapping[name] for name in kept}},
                 {"import": inserted[0], **{name: values[name] for name in kept}, "total_minor": sums})
