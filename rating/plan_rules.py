"""What a plan's keys must be together: everything that could be read two ways is refused, with the way to write it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from core import units
from rating.plans import LINE_KINDS

Document = Mapping[str, Any]
Where = tuple[str | int, ...]
Report = Callable[[Where, str, str, str], None]
"""(path below the plan, key, problem, hint)."""


def check(plan: Document, report: Report) -> None:
    """Report what is wrong between the keys of a plan; a key that was wrong by itself is absent and not reported again."""
    for number, line in enumerate(plan.get("traffic", ())):
        _traffic(("traffic", number), line, report)
    for number, line in enumerate(plan.get("once", ())):
        _once(("once", number), line, plan, report)
    _quotas(plan, report)
    for kind in ("minimum", "maximum"):
        for number, line in enumerate(plan.get(kind, ())):
            _named_lines((kind, number), line, plan, _lines(plan, before=kind), report)
            _one_tax((kind, number), line, plan, report)
        _bound_once(kind, plan, report)
    for number, line in enumerate(plan.get("discount", ())):
        _discount(("discount", number), line, plan, report)
    for number, line in enumerate(plan.get("fair_use", ())):
        _fair_use(("fair_use", number), line, report)
    _addon(plan, report)


def _lines(plan: Document, before: str = "") -> dict[str, str]:
    """Name → kind of the plan's lines, or of those that are charged before a kind."""
    kinds = LINE_KINDS[:LINE_KINDS.index(before)] if before else LINE_KINDS
    return {line["name"]: kind for kind in kinds for line in plan.get(kind, ()) if "name" in line}


def _traffic(path: Where, line: Document, report: Report) -> None:
    if ("price" in line) == ("tiers" in line):
        report(path, "price", "a line of traffic has either a price or tiers" + (", not both" if "price" in line else ""),
               'write price = "…" and unit = "GB", or model = "graduated" and tiers = [ … ]')
    elif "price" in line:
        if "model" in line:
            report(path, "model", "a model says how tiers are read, and there are none", "add tiers = [ … ], or drop model")
        if ("unit" in line) == ("block" in line):
            report(path, "unit", "is the price for each unit, or for each started block?" if "unit" in line
                   else "the line has no 'unit', nor a block: what is the price for?",
                   'write unit = "GB" for exact volume (GB is 10^9 octets, GiB is 2^30), or block = "10 GB" for started blocks')
    else:
        if "model" not in line:
            report(path, "tiers", "does a tier's price hold for its own part, or for everything once it is reached?",
                   'write model = "graduated" (each part at its own price) or model = "volume" (everything at one price)')
        _tiers(path, line, report)


def _tiers(path: Where, line: Document, report: Report) -> None:
    tiers, below = line["tiers"], 0
    if not tiers:
        report(path, "tiers", "the list of tiers is empty", 'write at least [ { price = "…" } ]')
    if "block" in line:
        report(path, "block", "with tiers a block belongs to a tier", 'write { to = "…", price = "…", block = "…" }')
    if "unit" not in line and any("block" not in tier for tier in tiers):
        report(path, "unit", "the tiers' prices have neither a unit nor a block", 'add unit = "GB", or a block to each tier')
    for number, tier in enumerate(tiers):
        last = number == len(tiers) - 1
        if last and "to" in tier:
            report((*path, "tiers", number), "to", "what costs the volume above the last tier?",
                   "leave `to` out of the last tier: it goes on without end")
        elif not last and "to" not in tier:
            report((*path, "tiers", number), "to", "only the last tier may be without end", 'say where it ends: to = "10 GB"')
        elif "to" in tier:
            upper = units.parse_octets(tier["to"])
            if upper <= below:
                report((*path, "tiers", number), "to", f"'{tier['to']}' is not above the tier before", "let tiers rise")
            below = upper


def _once(path: Where, line: Document, plan: Document, report: Report) -> None:
    on = line.get("on")
    if ("amount" in line) == ("percent" in line):
        report(path, "amount", "is it an amount or a percentage?" if "amount" in line else "there is no amount",
               'write amount = "…", or, for an early end, percent = "…" and of = "name of a fee"')
    if "percent" in line:
        fees = {fee.get("name"): fee.get("every") for fee in plan.get("fee", ())}
        if on != "early_end":
            report(path, "percent", "a percentage is of the fees that remain at an early end", 'write on = "early_end"')
        if line.get("of") not in fees:
            report(path, "of", f"the plan has no fee '{line.get('of', '')}'", "name the fee whose remaining amounts count")
        elif fees[line["of"]] == "day":
            report(path, "of", "a fee for each day has no periods that could remain", "name a fee for a month or longer")
    elif "of" in line:
        report(path, "of", "`of` belongs to a percentage", "drop it, or write percent = …")
    if on == "early_end" and "contract" not in plan:
        report(path, "on", "an early end of what? The plan has no contract term", "add [plan.contract] months = …")


def _quotas(plan: Document, report: Report) -> None:
    for number, line in enumerate(plan.get("quota", ())):
        if not plan.get("traffic") and not plan.get("addon"):
            report(("quota", number), "", "no line of traffic would use this quota up: everything is included already",
                   "add a [[plan.traffic]], or mark the plan addon = true")
        if line.get("given") == "once" and line.get("share") == "actual_days":
            report(("quota", number), "share", "what is given once has no part of a month", "drop share")


def _named_lines(path: Where, line: Document, plan: Document, known: Mapping[str, str], report: Report) -> None:
    for name in line.get("lines", ()):
        if name not in known:
            report(path, "lines", f"the plan has no line '{name}' that comes before",
                   f"its lines are {', '.join(known)}" if known else "the plan has no such lines")
    _not_empty(path, line, report)


def _not_empty(path: Where, line: Document, report: Report) -> None:
    if "lines" in line and not line["lines"]:
        report(path, "lines", "the list of lines is empty: none, or all?", "leave `lines` out for all")


def _bound_once(kind: str, plan: Document, report: Report) -> None:
    """What two minimums of one line add could not be told apart: a line is listed by one of them at most, and what is of all
    lines comes after them and counts what they came to."""
    bound: dict[str, str] = {}
    for number, line in enumerate(plan.get(kind, ())):
        twice = [name for name in line.get("lines", ()) if name in bound]
        if twice:
            report((kind, number), "lines", f"{kind} '{bound[twice[0]]}' is of '{twice[0]}' already: what would both come to?",
                   f"list a line in one {kind} only, and let one without `lines` be the last")
        listed = line.get("lines") if "lines" in line else _lines(plan, before=kind)
        bound |= dict.fromkeys(listed or (), line.get("name", ""))


def _one_tax(path: Where, line: Document, plan: Document, report: Report) -> None:
    """An amount off lines of different tax would have to be divided, which can be done in several ways."""
    listed = line.get("lines") or list(_lines(plan, before=str(path[0])))
    own = line.get("tax", plan.get("tax"))
    other = {found for found in _taxes(plan, listed) if found != own}
    if other:
        report(path, "lines", f"it is taxed as '{own}', but some of its lines as '{sorted(map(str, other))[0]}'",
               "write one for each tax category, each with its `lines` and `tax`")


def _taxes(plan: Document, names: list[str]) -> Iterator[Any]:
    for kind in LINE_KINDS:
        if kind != "quota":
            for line in plan.get(kind, ()):
                if line.get("name") in names:
                    yield line.get("tax", plan.get("tax"))


def _discount(path: Where, line: Document, plan: Document, report: Report) -> None:
    if ("percent" in line) == ("amount" in line):
        report(path, "percent", "is it a percentage or an amount a month?" if "percent" in line else "there is no discount",
               'write either percent = "10" or amount = "5.00"')
    if line.get("of") == "service":
        if not plan.get("addon"):
            report(path, "of", "only an add-on gives a discount on another plan", "mark the plan addon = true, or drop `of`")
        _not_empty(path, line, report)
    else:
        _named_lines(path, line, plan, _lines(plan, before="discount"), report)
        _one_tax(path, line, plan, report)
    if "beside" in line and not line["beside"]:
        report(path, "beside", "the list of plans is empty: beside none, or whatever else there is?",
               "leave `beside` out if it does not matter")
    if line.get("starts_from", "") >= line.get("starts_until", "9999"):
        report(path, "starts_until", "no subscription starts from then until then", "let starts_until be later")


def _fair_use(path: Where, line: Document, report: Report) -> None:
    action = line.get("action")
    for key, of, hint in (("speed", "slow_down", 'speed = "2 Mbit/s"'), ("package", "buy", 'package = "name of an add-on"'),
                          ("times_max", "buy", "times_max = 3, the most that are bought in a month")):
        if action == of and key not in line:
            report(path, key, f"'{of}' has no '{key}'", f"add {hint}")
        elif action != of and key in line:
            report(path, key, f"'{key}' belongs to action = \"{of}\"", "drop it, or change the action")


def _addon(plan: Document, report: Report) -> None:
    if not plan.get("addon"):
        return
    for kind in ("traffic", "percentile", "fair_use"):
        if plan.get(kind):
            report((kind, 0), "", "an add-on has no traffic of its own: traffic is the service's plan's",
                   "give it a [[plan.quota]] that covers the service's traffic, or drop the line")
    if plan.get("calendar") is not None:
        report((), "calendar", "an add-on has no traffic of its own that zones could divide", "drop the calendar")
