"""`classes explain`: which rules a flow's far end meets, which of them wins, and why the others do not.

A plain search through every rule, apart from the arrays that aggregation uses: the two are held against each other by tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aggregation import classes, settings
from core.addresses import format_prefix, parse_address
from core.class_rules import PORT_PROTOCOLS, Prefixes, Ranges, Rule
from core.settings import seller
from storage import sql
from storage.home import Home

COLUMNS = ["version", "rule", "class", "priority", "prefix", "wins", "why"]
NO_RULE = "no rule"


@dataclass(frozen=True, slots=True)
class Asked:
    """A flow as a rule sees it, from the service; what is None is not known."""

    far: bytes
    direction: str
    at: int
    as_number: int | None = None
    dscp: int | None = None
    protocol: int | None = None
    port: int | None = None
    near_port: int | None = None
    exporter: bytes | None = None
    interface: int | None = None


def explain(home: Home, asked: Asked) -> list[dict[str, Any]]:
    """Rows of COLUMNS, in the order in which rules are asked: those without prefixes, and those with one around the far end."""
    entries = settings.classes(home.document)
    with sql.reading(sql.engine(home)) as connection:
        stored = classes.versions(connection, seller(home.document).timezone)
        version = next((one for one in reversed(stored) if one.start <= asked.at), None)
        rules, prefixes = classes.settings_rules(entries) if version is None else classes.load_rules(connection, version.id)
    name = "settings" if version is None else version.valid_from
    return [{"version": name, **row} for row in ranked(rules, prefixes, asked)]


def ranked(rules: Sequence[Rule], prefixes: Sequence[Prefixes], asked: Asked) -> list[dict[str, Any]]:
    """The rules that could hold, as `explain` tells them."""
    met: list[tuple[tuple[int, int, int], Rule, str]] = []
    for number, (rule, some) in enumerate(zip(rules, prefixes, strict=True)):
        if not rule.has_prefixes:
            met.append(((-rule.priority, 0, number), rule, ""))
        elif (longest := longest_around(some, asked.far)) is not None:
            prefix = some.prefix(longest)
            met.append(((-rule.priority, -prefix.length, number), rule, format_prefix(prefix)))
    found: list[dict[str, Any]] = []
    won = False
    for _, rule, text in sorted(met, key=lambda one: one[0]):
        reasons = unmet(rule, asked)
        wins = not reasons and not won
        why = "; ".join(reasons) or ("the first that holds" if wins else "holds, and comes behind the one that wins")
        found.append({"rule": rule.name, "class": rule.class_, "priority": rule.priority, "prefix": text or None,
                      "wins": wins, "why": why})
        won |= wins
    if not won:
        found.append({"rule": NO_RULE, "class": settings.DEFAULT_CLASS, "priority": None, "prefix": None, "wins": True,
                      "why": "no rule holds"})
    return found


def longest_around(prefixes: Prefixes, address: bytes) -> int | None:
    """The index of the longest prefix that holds an address."""
    high, low = np.uint64(int.from_bytes(address[:8], "big")), np.uint64(int.from_bytes(address[8:], "big"))
    length = prefixes.length.astype(np.uint64)
    sixty_four, zero = np.uint64(64), np.uint64(0)
    # a shift by 64 is not defined: where no bit of a word counts, it is compared with itself
    high_bits, low_bits = np.minimum(length, sixty_four), np.maximum(length, sixty_four) - sixty_four
    same_high = (high_bits == zero) | ((prefixes.high ^ high) >> (sixty_four - np.maximum(high_bits, np.uint64(1))) == zero)
    same_low = (low_bits == zero) | ((prefixes.low ^ low) >> (sixty_four - np.maximum(low_bits, np.uint64(1))) == zero)
    around = np.flatnonzero(same_high & same_low)
    return int(around[np.argmax(prefixes.length[around])]) if len(around) else None


def unmet(rule: Rule, asked: Asked) -> list[str]:
    """The conditions of a rule beside its prefixes that do not hold, in words."""
    reasons = []
    if rule.direction not in ("both", asked.direction):
        reasons.append(f"it asks for direction {rule.direction}")
    for what, ranges, value in (("AS number", rule.as_numbers, asked.as_number), ("far port", rule.ports, asked.port),
                                ("near port", rule.near_ports, asked.near_port)):
        if ranges and not (value is not None and any(first <= value <= last for first, last in ranges)):
            reasons.append(_reason(what, _text(ranges), value))
    if (rule.ports or rule.near_ports) and asked.protocol not in PORT_PROTOCOLS:
        reasons.append(_reason("protocol", "one with ports", asked.protocol))
    for what, values, value in (("DSCP", rule.dscp, asked.dscp), ("protocol", rule.protocols, asked.protocol)):
        if values and value not in values:
            reasons.append(_reason(what, ", ".join(map(str, values)), value))
    if rule.interfaces and not any(parse_address(exporter) == asked.exporter and (not listed or asked.interface in listed)
                                   for exporter, listed in rule.interfaces):
        wanted = ", ".join(f"{exporter} {' '.join(map(str, listed))}".strip() for exporter, listed in rule.interfaces)
        reasons.append(_reason("exporter and interface", wanted, asked.interface))
    return reasons


def _reason(what: str, wanted: str, value: int | None) -> str:
    return f"it asks for {what} {wanted}, " + ("which was not given" if value is None else f"not {value}")


def _text(ranges: Ranges) -> str:
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
