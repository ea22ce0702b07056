"""`config check`: is the home fit to run? Mistakes in ratemill.toml, all at once, and what the machine lacks."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from collector import registry, sights
from core import clock, markets
from core.errors import SettingsError
from core.settings import SECTIONS, Document, percent_on, read_section, seller, tax_rates, unknown_names
from monitoring import sections
from storage import space
from storage.home import SETTINGS_FILE, Home

FREE_OCTETS_MIN = 2 * 2**30
RMEM_MAX = Path("/proc/sys/net/core/rmem_max")


def problems(home: Home) -> list[str]:
    """Everything that is wrong with ratemill.toml. Raises SettingsError for a file that is no TOML."""
    path = home.path / SETTINGS_FILE
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return [str(_load_error(home))]
    _, elements = registry.read_folder(home.folder("registries"))
    return [*unknown_names(document, SECTIONS, "section"), *sections.problems(document), *map(registry.described, elements)]


def _load_error(home: Home) -> SettingsError:
    try:
        _ = home.document
    except SettingsError as error:
        return error
    raise AssertionError("a file that could not be parsed was loaded")


def warnings(home: Home) -> list[str]:
    """What works, but not well, with these settings on this machine; called when there are no problems."""
    document = home.document
    return [*_receive_buffer(document), *_invoices(document), *_law(document), *_disk(home), *sights.warnings(home)]


def _receive_buffer(document: Document, rmem_max: Path = RMEM_MAX) -> list[str]:
    """The kernel caps a socket's receive buffer; a burst that does not fit is dropped before anybody sees it."""
    kind = next(section.kind for section in sections.all_sections() if section.name == "collector")
    wanted = getattr(read_section(document, "collector", kind), "socket_buffer", 0)
    try:
        granted = int(rmem_max.read_text(encoding="ascii"))
    except (OSError, ValueError):  # not Linux, or no such file in this container
        return []
    if granted >= wanted:
        return []
    return [
        f"[collector] socket_buffer asks for {wanted} octets, the kernel grants {granted}: raise it with "
        f"`sysctl -w net.core.rmem_max={wanted}` and a line in /etc/sysctl.d/, or bursts may be dropped"
    ]


def _invoices(document: Document) -> list[str]:
    seller: Mapping[str, Any] = document.get("seller", {})
    empty = [key for key in ("name", "country", "tax_id", "address") if not seller.get(key)]
    found = [f"[seller] {', '.join(empty)}: not set, and invoices need it"] if empty else []
    if not document.get("tax"):
        found.append("no [[tax]] is given: plans need the percentage of their tax category")
    return found


def _law(document: Document) -> list[str]:
    """Where the taxes, the currency or the rounding of tax are not those of the market, from now on."""
    code = seller(document).market
    if not code:
        return []
    market, rates, today = markets.load(code), tax_rates(document), datetime.fromtimestamp(clock.now_ms() / 1000, UTC).date()
    changes = {*(rate.from_ for rate in market.vat), *(rate.from_ for rate in rates)}
    days = sorted({today, *(day for day in changes if day > today)})
    found = []
    for category in sorted({rate.category for rate in rates}):
        for day in days:
            lawful = market.vat_on(category, day)
            try:
                given = percent_on(rates, category, day)
            except SettingsError:
                continue
            if lawful is not None and lawful.percent != given:
                found.append(f"[[tax]] {category} is {given} % on {day}, in {market.name} it is {lawful.percent} % from "
                             f"{lawful.from_} on ({lawful.source})")
                break
    policy = document.get("invoice", {}).get("tax_policy")
    if policy not in (None, market.tax_policy, "gross_kept"):
        found.append(f"[invoice] tax_policy is {policy}, in {market.name} {market.tax_policy} is usual")
    return found


def _disk(home: Home) -> list[str]:
    found = space.limits(home.document).look(home.path)
    if found.level != space.Level.OK:
        return [f"{home.path} is filling up ({found}): below twice the reserve only datagrams are written, below it nothing "
                "([collector] disk_reserve, disk_warning)"]
    if found.free >= FREE_OCTETS_MIN:
        return []
    return [f"{home.path} has {found.free // 2**20} MiB left: the journal alone of a busy day needs more"]
