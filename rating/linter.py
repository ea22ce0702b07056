"""plans.toml → documents of calendars and plans, or all that is wrong with the file, each with its line and key.

A plan that can be read two ways is refused: a volume that is `included` without saying what happens `above`, a price
without a unit, zones without a calendar, a zone or class that does not exist, a number where a text keeps it exact.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from core import calendars, money, periods, units
from core.errors import ImportRefused, Problem
from core.markets import Market
from core.toml_lines import Lines
from core.toml_lines import Path as TomlPath
from rating import law, plan_rules, plans
from storage import toml_file

ZONES_MAX = 100
NAME_LENGTH_MAX = 200
REQUIRED: Any = object()
OMITTED: Any = object()
Document = dict[str, Any]


@dataclass(frozen=True)
class Surroundings:
    """What a plan may refer to outside its file."""

    tax_categories: frozenset[str]
    classes: frozenset[str]
    calendar_zones: Mapping[str, frozenset[str]]  # of stored calendars
    market: Market | None = None  # whose law holds


@dataclass
class Linted:
    """What a file says; usable if `problems` is empty. Documents are in the file's order."""

    calendars: list[Document] = field(default_factory=list)
    plans: list[Document] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    calendar_lines: list[int] = field(default_factory=list)
    plan_lines: list[int] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)


@dataclass(frozen=True)
class Example:
    """A [[plan.example]]: usage of a month, and what the lines of the plan come to. It is no part of the stored plan."""

    plan: int  # index into `Linted.plans`
    line: int  # of the file
    document: Document


@dataclass(frozen=True)
class Key:
    """A key of a table: `check` returns the value to store or raises ValueError. REQUIRED has no default, and OMITTED is not
    stored where it is not written: keys that came later leave the digests of older plans alone."""

    check: Callable[[Any], Any]
    default: Any = REQUIRED
    hint: str = ""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is not a text in quotes")
    return value


def _name(value: Any) -> str:
    name = _text(value)
    if not name.strip() or name != name.strip() or not name.isprintable():
        raise ValueError("a name is a text without blanks at its ends and without control characters")
    if len(name) > NAME_LENGTH_MAX:
        raise ValueError(f"the name is longer than {NAME_LENGTH_MAX} characters")
    return name


def _choice(*choices: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            near = difflib.get_close_matches(str(value), choices, 1)
            raise ValueError(f"{_shown(value)} is none of {', '.join(choices)}"
                             + (f"; did you mean '{near[0]}'?" if near else ""))
        return str(value)
    return check


def _date(value: Any) -> str:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise ValueError(f"{_shown(value)} is not a date such as 2026-01-01 (without quotes)")
    return value.isoformat()


def _price(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is not exact: write the amount as text, \"{_shown(value)}\"")
    if not value.isascii():
        raise ValueError(f"'{value}' is not written in the digits 0 to 9")
    if money.parse_price(value) < 0:
        raise ValueError(f"'{value}' is negative")
    return value


def _amount(value: Any) -> str:
    """A price that may be negative."""
    if isinstance(value, str) and value.startswith("-"):
        return "-" + _price(value[1:])
    return _price(value)


def _period(value: Any) -> str:
    return periods.parse_period(_text(value))


def _percentile(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{_shown(value)} is not exact: write a whole number, or a text such as \"99.9\"")
    if not 0 < money.parse_price(str(value)) <= 100:
        raise ValueError(f"{value} is not above 0 and at most 100")
    return str(value)


def _names(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f"{_shown(value)} is not a list of names, such as [\"default\"]")
    names = [_name(item) for item in value]
    if len(set(names)) != len(names):
        raise ValueError("a name is listed twice")
    return names


def _ascii(value: Any) -> str:
    if not _text(value).isascii():
        raise ValueError(f"'{value}' is not written in the digits 0 to 9 and a unit")
    return str(value)


def _octets(value: Any) -> str:
    units.parse_octets(_ascii(value))
    return str(value)


def _speed(value: Any) -> str:
    units.parse_quantity(_ascii(value), units.RATE_UNITS)
    return str(value)


def _currency(value: Any) -> str:
    money.minor_digits(_text(value))
    return str(value)


def _tables(value: Any) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("is not a list of tables")
    return value


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{_shown(value)} is not a table of keys and values")
    return value


def _volume(value: Any) -> str:
    if units.parse_octets(_ascii(value)) == 0:
        raise ValueError(f"'{value}' is nothing: leave the key out, or write a volume such as \"10 GB\"")
    return str(value)


def _percent(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is not exact: write the percentage as text, \"{_shown(value)}\"")
    if not 0 < money.parse_price(_ascii(value)) <= 100:
        raise ValueError(f"{value} is not above 0 and at most 100")
    return value


def _months(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1200:
        raise ValueError(f"{_shown(value)} is not a whole number from 1 to 1200")
    return value


def _billing_day(value: Any) -> int | str:
    if value == "anniversary":
        return "anniversary"
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 31:
        raise ValueError(f"{_shown(value)} is neither a day of the month from 1 to 31 nor \"anniversary\"")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{_shown(value)} is not true or false")
    return value


def _priority(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1_000_000:
        raise ValueError(f"{_shown(value)} is not a whole number from 0 to 1000000")
    return value


def _days(value: Any) -> list[str]:
    names = _names(value)
    for name in names:
        _choice(*calendars.DAYS)(name)
    if not names:
        raise ValueError("the list of days is empty: leave the key out for every day")
    return names


def _time(value: Any) -> str:
    calendars.parse_minutes(_text(value))
    return str(value)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else str(value)


ROOT = {"calendar": Key(_tables, []), "plan": Key(_tables, [])}
CALENDAR = {
    "name": Key(_name), "from": Key(_date), "holidays": Key(_text, None),
    "zones": Key(_tables, hint='list the zones: zones = [ { name = "…", default = true } ]'),
}
ZONE = {
    "name": Key(_name), "days": Key(_days, None), "start": Key(_time, None), "end": Key(_time, None),
    "default": Key(_flag, False), "holiday": Key(_flag, False), "priority": Key(_priority, 0),
}
PLAN = {
    "name": Key(_name), "from": Key(_date, hint="the date from which this version of the plan is valid"),
    "currency": Key(_currency), "tax": Key(_name, hint="a category of a [[tax]] in ratemill.toml"),
    "prices": Key(_choice(*plans.PRICES), hint="say whether prices are exclusive or inclusive of tax"),
    "calendar": Key(_name, None), "addon": Key(_flag, OMITTED),
    "audience": Key(_choice("consumer", "business"), OMITTED), "billing_day": Key(_billing_day, OMITTED),
    "rounding": Key(_choice(*plans.ROUNDING), OMITTED), "contract": Key(_table, OMITTED),
    "fee": Key(_tables, []), "once": Key(_tables, OMITTED), "traffic": Key(_tables, []), "percentile": Key(_tables, []),
    "quota": Key(_tables, OMITTED), "minimum": Key(_tables, OMITTED), "maximum": Key(_tables, OMITTED),
    "discount": Key(_tables, OMITTED), "fair_use": Key(_tables, OMITTED),
    "change": Key(_tables, OMITTED), "example": Key(_tables, OMITTED),
}
EXAMPLE = {
    "name": Key(_name), "period": Key(_period, hint='say which month: period = "2026-10"'), "from": Key(_date, OMITTED),
    "to": Key(_date, OMITTED), "usage": Key(_tables, []), "expect": Key(_table, hint='write { "name of a line" = "10.00" }'),
    "total": Key(_amount, OMITTED),
}
EXAMPLE_USAGE = {
    "zone": Key(_name, None), "class": Key(_name, "default"), "direction": Key(_choice("up", "down"), "down"),
    "volume": Key(_octets, hint='say how much: volume = "120 GB"'), "sampled": Key(_flag, False),
}
CHANGE = {
    "to": Key(_name, hint="name the plan that may follow"),
    "when": Key(_choice("now", "period_end"), hint="say when: now (any day), or period_end (the first of a month)"),
}
CONTRACT = {"months": Key(_months, hint="say for how many months the subscriber is bound")}
FEE = {
    "name": Key(_name), "amount": Key(_price),
    "every": Key(_choice(*plans.EVERY), hint=f"say what the amount is for: {', '.join(plans.EVERY)}"),
    "when": Key(_choice(*plans.WHEN), hint="say when it is booked: advance or arrears"),
    "proration": Key(_choice(*plans.PRORATION), hint=f"say what a part costs: {', '.join(plans.PRORATION)}"),
    "during": Key(_choice(*plans.DURING), OMITTED), "tax": Key(_name, OMITTED),
}
ONCE = {
    "name": Key(_name), "on": Key(_choice(*plans.ON), hint=f"say what it is charged for: {', '.join(plans.ON)}"),
    "amount": Key(_price, OMITTED), "percent": Key(_percent, OMITTED), "of": Key(_name, OMITTED), "tax": Key(_name, OMITTED),
}
TRAFFIC = {
    "name": Key(_name), "direction": Key(_choice(*plans.DIRECTIONS), hint="say which traffic counts: up, down or both"),
    "classes": Key(_names, []), "zones": Key(_names, []), "included": Key(_octets, None),
    "above": Key(_choice(*plans.ABOVE), None), "price": Key(_price, OMITTED),
    "unit": Key(_choice(*units.OCTET_UNITS), OMITTED, hint="say what the price is for: GB is 10^9 octets, GiB is 2^30"),
    "block": Key(_volume, OMITTED), "model": Key(_choice(*plans.MODELS), OMITTED), "tiers": Key(_tables, OMITTED),
    "sampled": Key(_choice(*plans.SAMPLED), "refuse"), "tax": Key(_name, OMITTED),
}
TIER = {
    "to": Key(_volume, OMITTED), "price": Key(_price), "flat": Key(_price, OMITTED), "block": Key(_volume, OMITTED),
}
PERCENTILE = {
    "name": Key(_name), "percentile": Key(_percentile),
    "convention": Key(_choice(*plans.CONVENTIONS), hint=f"say which one: {', '.join(plans.CONVENTIONS)}"),
    "missing": Key(_choice(*plans.MISSING), hint="say whether slots without traffic count as zero or are left_out"),
    "committed": Key(_speed, "0 bit/s"), "price": Key(_price),
    "unit": Key(_choice(*units.RATE_UNITS), hint="say what the price is for, such as Mbit/s (10^6 bits a second)"),
    "tax": Key(_name, OMITTED),
}
QUOTA = {
    "name": Key(_name), "volume": Key(_volume),
    "direction": Key(_choice(*plans.DIRECTIONS), hint="say which traffic uses it up: up, down or both"),
    "classes": Key(_names, OMITTED), "zones": Key(_names, OMITTED), "given": Key(_choice(*plans.GIVEN), OMITTED),
    "share": Key(_choice(*plans.SHARES), OMITTED), "priority": Key(_priority, OMITTED), "rollover": Key(_table, OMITTED),
}
ROLLOVER = {
    "cap": Key(_volume, hint="say how much may be carried at most, such as cap = \"50 GB\""),
    "periods": Key(_months, hint="say for how many periods what is left may be used"),
}
FAIR_USE = {
    "name": Key(_name), "threshold": Key(_volume, hint='say from which volume of a month on: threshold = "300 GB"'),
    "direction": Key(_choice(*plans.DIRECTIONS), hint="say which traffic counts: up, down or both"),
    "classes": Key(_names, OMITTED), "zones": Key(_names, OMITTED), "sampled": Key(_choice(*plans.SAMPLED), OMITTED),
    "action": Key(_choice(*plans.ACTIONS), hint=f"say what is done: {', '.join(plans.ACTIONS)}"),
    "speed": Key(_speed, OMITTED), "package": Key(_name, OMITTED), "times_max": Key(_months, OMITTED),
}
BOUND = {
    "name": Key(_name), "amount": Key(_price), "lines": Key(_names, OMITTED),
    "share": Key(_choice(*plans.SHARES), hint="say whether a part of a month has the whole_period amount, or by actual_days"),
    "tax": Key(_name, OMITTED),
}
DISCOUNT = {
    "name": Key(_name), "percent": Key(_percent, OMITTED), "amount": Key(_price, OMITTED), "lines": Key(_names, OMITTED),
    "of": Key(_choice("own", "service"), OMITTED), "after_months": Key(_months, OMITTED), "months": Key(_months, OMITTED),
    "starts_from": Key(_date, OMITTED), "starts_until": Key(_date, OMITTED), "beside": Key(_names, OMITTED),
    "tax": Key(_name, OMITTED),
}
LINES = {"fee": FEE, "once": ONCE, "traffic": TRAFFIC, "percentile": PERCENTILE, "quota": QUOTA, "minimum": BOUND,
         "maximum": BOUND, "discount": DISCOUNT, "fair_use": FAIR_USE}


def read(path: Path, surroundings: Surroundings) -> Linted:
    """Read and judge a file. A file that can't be opened is a problem of its line 1."""
    linted = Linted()
    try:
        document, lines = toml_file.read(path, "split it: each apply adds to the plans that are there")
    except ImportRefused as refused:
        linted.problems += refused.problems
    else:
        _Judge(str(path), lines, surroundings, linted).judge(document)
    return linted


class _Judge:
    """One pass over a document, collecting problems."""

    def __init__(self, file: str, lines: Lines, surroundings: Surroundings, linted: Linted) -> None:
        self.file, self.lines, self.surroundings, self.linted = file, lines, surroundings, linted

    def report(self, path: TomlPath, column: str, problem: str, hint: str = "") -> None:
        at = self.lines.of((*path, column) if column else path)
        self.linted.problems.append(Problem(self.file, at, column, problem, hint))

    def judge(self, document: Mapping[str, Any]) -> None:
        root = self.table((), document, ROOT, "the file")
        if not root.get("calendar") and not root.get("plan") and not self.linted.problems:
            self.report((), "", "has neither a [[calendar]] nor a [[plan]]", "describe at least one of them")
        for number, table in enumerate(root.get("calendar") or []):
            self.calendar(("calendar", number), table)
        zones = self.known_zones()
        for number, table in enumerate(root.get("plan") or []):
            self.plan(("plan", number), table, zones)
        self.twice("calendar", self.linted.calendars, self.linted.calendar_lines)
        self.twice("plan", self.linted.plans, self.linted.plan_lines)
        self.linted.problems.sort(key=lambda problem: problem.line)

    def table(self, path: TomlPath, table: Mapping[str, Any], keys: Mapping[str, Key], noun: str) -> Document:
        """The checked values of a table; a key that is wrong or missing is absent from the result."""
        for name in table:
            if name not in keys:
                near = difflib.get_close_matches(name, keys, 1)
                self.report(path, name, f"unknown key '{name}' in {noun}",
                            f"did you mean '{near[0]}'?" if near else f"the keys are {', '.join(keys)}")
        found: Document = {}
        for name, key in keys.items():
            if name not in table:
                if key.default is REQUIRED:
                    self.report(path, name, f"{noun} has no '{name}'", key.hint or f"add {name} = …")
                elif key.default is not OMITTED:
                    found[name] = key.default
                continue
            try:
                found[name] = key.check(table[name])
            except ValueError as error:
                self.report(path, name, str(error), key.hint)
        return found

    def twice(self, noun: str, documents: Iterable[Document], lines: Iterable[int]) -> None:
        seen: dict[tuple[Any, Any], int] = {}
        for document, line in zip(documents, lines, strict=True):
            key = (document.get("name"), document.get("from"))
            if None in key:
                continue
            if key in seen:
                self.linted.problems.append(Problem(
                    self.file, line, "from", f"{noun} '{key[0]}' from {key[1]} is already in line {seen[key]}",
                    "give each version a date of its own, or drop one of them"))
            seen.setdefault(key, line)

    # calendars

    def calendar(self, path: TomlPath, table: Mapping[str, Any]) -> None:
        found = self.table(path, table, CALENDAR, "[[calendar]]")
        zones = [self.zone((*path, "zones", number), zone) for number, zone in enumerate(found.get("zones") or [])]
        if "zones" in found:
            self.zones_together(path, zones, found.get("holidays"))
        if found.get("holidays") is not None:
            self.holidays(path, found["holidays"])
        self.linted.calendar_lines.append(self.lines.of(path))
        self.linted.calendars.append({**found, "zones": zones})

    def zone(self, path: TomlPath, table: Mapping[str, Any]) -> Document:
        found = {name: value for name, value in self.table(path, table, ZONE, "a zone").items() if value is not None}
        start, end = found.get("start"), found.get("end")
        if start == "24:00":
            self.report(path, "start", "a zone can't start at 24:00", "write 00:00 and the following day")
        if start is not None and start == end:
            self.report(path, "end", f"the zone starts and ends at {start}: nothing, or a whole day?",
                        'for the whole day write start = "00:00", end = "24:00"')
        if not any(name in table for name in ("days", "start", "end", "default", "holiday")):
            self.report(path, "", f"zone '{found.get('name', '')}' has neither hours nor default = true nor holiday = true",
                        'give it days, start and end, such as days = ["sat", "sun"]')
        return found

    def zones_together(self, path: TomlPath, zones: Sequence[Document], holidays: str | None) -> None:
        defaults = [zone for zone in zones if zone.get("default")]
        if len(defaults) != 1:
            self.report(path, "zones", f"{len(defaults)} zones are marked default", "mark exactly one: default = true")
        feasts = [zone for zone in zones if zone.get("holiday")]
        if len(feasts) > 1:
            self.report(path, "zones", f"{len(feasts)} zones are marked holiday", "mark at most one: holiday = true")
        if holidays is not None and not feasts:
            self.report(path, "holidays", "no zone is marked holiday, so these holidays would mean nothing",
                        "mark one zone with holiday = true, or leave out holidays")
        if len(zones) > ZONES_MAX:
            self.report(path, "zones", f"{len(zones)} zones are more than {ZONES_MAX}", "join some of them")
            return
        try:
            clash = calendars.overlap([calendars.parse_zone(zone) for zone in zones])
        except (ValueError, KeyError):
            return  # a zone that can't be read has been reported
        if clash is not None:
            one, two, day, minute = clash
            self.report(path, "zones", f"zones '{one.name}' and '{two.name}' both hold on {calendars.DAYS[day]} at "
                        f"{minute // 60:02d}:{minute % 60:02d}", "give them different priorities, or other hours")

    def holidays(self, path: TomlPath, name: str) -> None:
        from rating import holiday_dates

        try:
            holiday_dates.check(name)
        except ValueError as error:
            self.report(path, "holidays", str(error), 'write the ISO code of a country, such as "DE", or with a part, "DE-BY"')

    def known_zones(self) -> dict[str, frozenset[str]]:
        """Zones by calendar: of the file and, where it has other versions, of what is stored."""
        known = dict(self.surroundings.calendar_zones)
        for document in self.linted.calendars:
            if "name" in document:
                names = frozenset(zone["name"] for zone in document["zones"] if "name" in zone)
                known[document["name"]] = known.get(document["name"], frozenset()) | names
        return known

    # plans

    def plan(self, path: TomlPath, table: Mapping[str, Any], zones: Mapping[str, frozenset[str]]) -> None:
        found = self.table(path, table, PLAN, "[[plan]]")
        calendar = found.get("calendar")
        if calendar is not None and calendar not in zones:
            near = difflib.get_close_matches(calendar, zones, 1)
            self.report(path, "calendar", f"there is no calendar '{calendar}'",
                        f"did you mean '{near[0]}'?" if near else "add a [[calendar]] with this name")
        tax, categories = found.get("tax"), self.surroundings.tax_categories
        if tax is not None and tax not in categories:
            near = difflib.get_close_matches(tax, categories, 1)
            self.report(path, "tax", f"ratemill.toml has no [[tax]] of category '{tax}'",
                        f"did you mean '{near[0]}'?" if near else "add a [[tax]] with this category to ratemill.toml")
        names: dict[str, int] = {}
        wrong: set[tuple[str | int, ...]] = set()
        for kind, keys in LINES.items():
            if kind not in found:
                continue
            lines = []
            for number, line in enumerate(found.get(kind) or []):
                before = len(self.linted.problems)
                lines.append(self.line((*path, kind, number), kind, line, keys, calendar, zones))
                if len(self.linted.problems) > before:
                    wrong.add((kind, number))
                self.unique_line((*path, kind, number), lines[-1].get("name"), names)
            found[kind] = lines
        if "change" in found:
            found["change"] = [self.table((*path, "change", number), way, CHANGE, "[[plan.change]]")
                               for number, way in enumerate(found["change"])]
        if "contract" in found:
            found["contract"] = self.table((*path, "contract"), found["contract"], CONTRACT, "[plan.contract]")

        def report(where: TomlPath, column: str, problem: str, hint: str) -> None:
            if where[:2] not in wrong:  # what is wrong by itself is corrected first
                self.report((*path, *where), column, problem, hint)

        plan_rules.check(found, report)
        if self.surroundings.market is not None:
            for problem in law.problems(found, self.surroundings.market):
                report(*problem)
        for number, example in enumerate(found.pop("example", ())):
            self.example((*path, "example", number), example, found, zones.get(calendar or "", frozenset()))
        self.linted.plan_lines.append(self.lines.of(path))
        self.linted.plans.append(found)

    def example(self, path: TomlPath, table: Mapping[str, Any], plan: Document, zones: frozenset[str]) -> None:
        found = self.table(path, table, EXAMPLE, "[[plan.example]]")
        usage = [self.table((*path, "usage", number), row, EXAMPLE_USAGE, "usage")
                 for number, row in enumerate(found.get("usage", ()))]
        for number, row in enumerate(usage):
            if row.get("zone") is not None and row["zone"] not in zones:
                self.report((*path, "usage", number), "zone", f"the plan's calendar has no zone '{row['zone']}'",
                            f"its zones are {', '.join(sorted(zones))}" if zones else "give the plan a calendar")
        known = [line["name"] for kind in plans.LINE_KINDS for line in plan.get(kind, ()) if "name" in line]
        for name, amount in found.get("expect", {}).items():
            try:
                _amount(amount)
            except ValueError as error:
                self.report((*path, "expect"), name, str(error))
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                self.report((*path, "expect"), name, f"the plan has no line '{name}'",
                            f"did you mean '{near[0]}'?" if near else f"its lines are {', '.join(known)}")
        self.linted.examples.append(Example(len(self.linted.plans), self.lines.of(path), {**found, "usage": usage}))

    def unique_line(self, path: TomlPath, name: str | None, names: dict[str, int]) -> None:
        if name is None:
            return
        if name in names:
            self.report(path, "name", f"the plan has a line '{name}' already, in line {names[name]}",
                        "a charge is known by its line's name: give each its own")
        names.setdefault(name, self.lines.of((*path, "name")))

    def line(self, path: TomlPath, kind: str, table: Mapping[str, Any], keys: Mapping[str, Key], calendar: str | None,
             zones: Mapping[str, frozenset[str]]) -> Document:
        found = self.table(path, table, keys, f"[[plan.{kind}]]")
        if kind in ("traffic", "quota", "fair_use"):
            self.filters(path, found, calendar, zones)
        if kind == "traffic":
            self.traffic(path, table, found)
        if kind == "quota" and "rollover" in found:
            found["rollover"] = self.table((*path, "rollover"), found["rollover"], ROLLOVER, "rollover")
        if "tax" in found and found["tax"] not in self.surroundings.tax_categories:
            self.report(path, "tax", f"ratemill.toml has no [[tax]] of category '{found['tax']}'",
                        "add a [[tax]] with this category to ratemill.toml")
        if kind == "fee" and found.get("every") == "day" and found.get("proration") == "thirty_day_month":
            self.report(path, "proration", "thirty_day_month says nothing about a fee for each day",
                        "a day is never cut: write actual_days")
        return found

    def traffic(self, path: TomlPath, table: Mapping[str, Any], found: Document) -> None:
        included = found.get("included")
        if included is not None and units.parse_octets(included) > 0 and "above" not in table:
            self.report(path, "above", f"'{included}' are included: is only the excess paid for, or everything once exceeded?",
                        'write above = "excess" or above = "all"')
        found["included"] = included or "0 B"
        found["above"] = found.get("above") or "excess"
        if "tiers" in found:
            found["tiers"] = [self.table((*path, "tiers", number), tier, TIER, "a tier")
                              for number, tier in enumerate(found["tiers"])]

    def filters(self, path: TomlPath, found: Document, calendar: str | None, zones: Mapping[str, frozenset[str]]) -> None:
        for name in found.get("classes") or []:
            if name not in self.surroundings.classes:
                near = difflib.get_close_matches(name, self.surroundings.classes, 1)
                self.report(path, "classes", f"ratemill.toml has no [[class]] '{name}'",
                            f"did you mean '{near[0]}'?" if near else "add it to ratemill.toml first, or write \"default\"")
        for name in found.get("zones") or []:
            if calendar is None:
                self.report(path, "zones", f"zone '{name}' without a calendar", "give the plan a calendar = \"…\"")
            elif calendar in zones and name not in zones[calendar]:
                near = difflib.get_close_matches(name, zones[calendar], 1)
                self.report(path, "zones", f"calendar '{calendar}' has no zone '{name}'",
                            f"did you mean '{near[0]}'?" if near else f"its zones are {', '.join(sorted(zones[calendar]))}")


