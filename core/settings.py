"""ratemill.toml → frozen dataclasses.

Each package describes its own sections as frozen dataclasses whose fields are made with `setting(...)`: a default, a
bound and a sentence. `read_section` and `read_list` build them and report every problem at once; an unknown key is an
error that names the nearest known one. Secrets are written as `{ env = "NAME" }` or `{ file = "PATH" }`.

The sections that several packages read (`seller`, `tax`) are declared here.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from core import markets, money, periods
from core.errors import SettingsError

Document = Mapping[str, Any]
Section = TypeVar("Section")

SECTIONS: dict[str, str] = {
    "seller": "core",
    "tax": "core",
    "database": "storage",
    "run": "runtime",
    "metrics": "runtime",
    "metering": "subscribers",
    "realm": "subscribers",
    "infrastructure": "subscribers",
    "radius": "subscribers",
    "radius_client": "subscribers",
    "deterministic_nat": "subscribers",
    "collector": "collector",
    "sampling": "collector",
    "time": "collector",
    "exporter": "collector",
    "collector_group": "collector",
    "completeness": "collector",
    "lake": "collector",
    "retention": "collector",
    "class": "aggregation",
    "aggregation": "aggregation",
    "rollout": "rating",
    "invoice": "invoicing",
}
"""Every top-level name that ratemill.toml may hold, and the package that reads it."""


def setting(
    default: Any = dataclasses.MISSING,
    *,
    what: str,
    unit: str = "",
    lowest: int | None = None,
    highest: int | None = None,
    choices: Sequence[str] = (),
    parse: Callable[[Any], Any] | None = None,
    default_factory: Callable[[], Any] | None = None,
) -> Any:
    """A field of a settings dataclass. `parse` turns the TOML value into the field's and raises ValueError."""
    metadata = {
        "what": what,
        "unit": unit,
        "lowest": lowest,
        "highest": highest,
        "choices": tuple(choices),
        "parse": parse,
    }
    if default_factory is not None:
        return field(default_factory=default_factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def load(path: Path) -> Document:
    """The parsed file. Raises SettingsError for a missing file, wrong TOML and unknown sections."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            f"{path} does not exist", "make a home with `ratemill init`, or name one with --home"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}", "correct the line; the format is TOML (https://toml.io)") from None
    unknown = unknown_names(document, SECTIONS, "section")
    if unknown:
        raise SettingsError(f"{path}: " + "; ".join(unknown))
    return document


def unknown_names(given: Mapping[str, Any], known: Mapping[str, Any] | Sequence[str], noun: str) -> list[str]:
    """A sentence for each name that is not known, with the nearest one that is."""
    return [_unknown(name, known, noun) for name in given if name not in known]


def _unknown(name: str, known: Mapping[str, Any] | Sequence[str], noun: str) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"unknown {noun} '{name}'" + (f", did you mean '{near[0]}'?" if near else "")


def read_section(document: Document, name: str, kind: type[Section]) -> Section:
    """The section [name] as a `kind`; an absent one has its defaults."""
    table = document.get(name, {})
    if not isinstance(table, Mapping):
        raise SettingsError(f"[{name}] is not a table", f"write it as [{name}] followed by key = value lines")
    return _build(table, kind, f"[{name}]")


def read_list(document: Document, name: str, kind: type[Section]) -> tuple[Section, ...]:
    """The sections [[name]], in order."""
    tables = document.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise SettingsError(
            f"[[{name}]] is not a list of tables", f"write each one as [[{name}]] and key = value lines"
        )
    return tuple(_build(table, kind, f"[[{name}]] number {number}") for number, table in enumerate(tables, 1))


def _build(table: Mapping[str, Any], kind: type[Section], where: str) -> Section:
    fields = {f.name.rstrip("_"): f for f in dataclasses.fields(cast(Any, kind))}
    hints = get_type_hints(kind)
    problems = unknown_names(table, fields, "key")
    values: dict[str, Any] = {}
    for key, described in fields.items():
        if key in table:
            try:
                values[described.name] = _value(table[key], hints[described.name], described.metadata)
            except ValueError as error:
                problems.append(f"{key}: {error}")
        elif described.default is dataclasses.MISSING and described.default_factory is dataclasses.MISSING:
            problems.append(f"{key} is missing ({described.metadata.get('what', '')})")
    if problems:
        raise SettingsError(f"ratemill.toml, {where}: " + "; ".join(problems))
    return kind(**values)


def _value(value: Any, hint: Any, metadata: Mapping[str, Any]) -> Any:
    value = _resolve_secret(value)
    if metadata.get("parse") is not None:
        return metadata["parse"](value)
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ValueError("is not a list")
        return tuple(_value(item, get_args(hint)[0], {}) for item in value)
    if (hint is int and isinstance(value, bool)) or not isinstance(value, hint):
        raise ValueError(f"{value!r} is not {_noun(hint)}")
    lowest, highest, unit = metadata.get("lowest"), metadata.get("highest"), metadata.get("unit", "")
    if lowest is not None and value < lowest:
        raise ValueError(f"{value} is less than the lowest allowed, {lowest} {unit}".rstrip())
    if highest is not None and value > highest:
        raise ValueError(f"{value} is more than the highest allowed, {highest} {unit}".rstrip())
    if metadata.get("choices") and value not in metadata["choices"]:
        raise ValueError(f"'{value}' is none of {', '.join(metadata['choices'])}")
    return value


def _noun(hint: Any) -> str:
    return {int: "a whole number", str: "a text in quotes", bool: "true or false"}.get(
        hint, getattr(hint, "__name__", str(hint))
    )


def _resolve_secret(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"env"}:
        if value["env"] not in os.environ:
            raise ValueError(f"the environment has no variable {value['env']}")
        return os.environ[value["env"]]
    if set(value) == {"file"}:
        try:
            return Path(value["file"]).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ValueError(f"the file {value['file']} can't be read: {error.strerror}") from None
    raise ValueError('is a table; a secret is written { env = "NAME" } or { file = "PATH" }')


def instant_setting(value: Any) -> int:
    """A TOML date-time with an offset, or ISO text → instant."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value.isoformat()} has no offset from UTC: write it with Z")
        return periods.to_ms(value.astimezone(UTC))
    if isinstance(value, str):
        return periods.parse_instant(value)
    raise ValueError(f"{value!r} is not a date and time")


def date_setting(value: Any) -> date:
    """A TOML date."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise ValueError(f"{value!r} is not a date such as 2026-01-01 (without quotes)")


def zone_setting(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not the name of a time zone")
    periods.time_zone(value)
    return value


def currency_setting(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a currency code")
    money.minor_digits(value)
    return value


def percent_setting(value: Any) -> Fraction:
    """A percentage as text ('19', '5.5'): exact, so not a TOML float."""
    if not isinstance(value, str):
        raise ValueError(f'{value!r} is not a percentage in quotes, such as "19" or "5.5"')
    percent = money.parse_price(value)
    if not 0 <= percent <= 100:
        raise ValueError(f"{value} is not between 0 and 100")
    return percent


@dataclass(frozen=True)
class Seller:
    """[seller]: who issues the invoices."""

    name: str = setting("", what="Name on the invoice.")
    country: str = setting("", what="ISO 3166 code of the country.")
    tax_id: str = setting("", what="Tax number on the invoice.")
    address: str = setting("", what="Postal address on the invoice.")
    iban: str = setting("", what="Account for payments.")
    currency: str = setting("EUR", what="Currency of the books.", parse=currency_setting)
    timezone: str = setting("UTC", what="Zone in which datagrams and losses belong to a period.", parse=zone_setting)
    market: str = setting("", what="Country whose law plans and taxes are held against; empty: none.",
                          choices=("", *markets.codes()))


@dataclass(frozen=True)
class TaxRate:
    """[[tax]]: a percentage of a category from a date on."""

    category: str = setting(what="Name that plans refer to.")
    percent: Fraction = setting(what="Percentage as text, exact.", parse=percent_setting)
    from_: date = setting(what="First local day on which it applies.", parse=date_setting)


def seller(document: Document) -> Seller:
    return read_section(document, "seller", Seller)


def tax_rates(document: Document) -> tuple[TaxRate, ...]:
    return read_list(document, "tax", TaxRate)


def percent_on(rates: Sequence[TaxRate], category: str, day: date) -> Fraction:
    """The percentage of a category on a day: the latest `from` not after it. Raises SettingsError without one."""
    valid = [rate for rate in rates if rate.category == category and rate.from_ <= day]
    if not valid:
        raise SettingsError(
            f"no [[tax]] says the percentage of category '{category}' on {day}",
            "add a [[tax]] with this category and a `from` not after that day",
        )
    return max(valid, key=lambda rate: rate.from_).percent
