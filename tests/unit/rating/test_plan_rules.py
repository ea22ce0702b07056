"""What a plan's keys must be together: each refusal once, and the nearest plan that is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from rating import linter, plans

SURROUNDINGS = linter.Surroundings(frozenset({"standard", "reduced"}), frozenset({"default"}), {})
HEAD = 'name = "p"\nfrom = 2026-01-01\ncurrency = "EUR"\ntax = "standard"\nprices = "exclusive"\n'
ADDON = "addon = true\n"
CALENDAR = """[[calendar]]
name = "c"
from = 2026-01-01
zones = [ { name = "day", default = true } ]
"""


def fee(more: str = "", name: str = "F", every: str = "month") -> str:
    return (f'[[plan.fee]]\nname = "{name}"\namount = "1"\nevery = "{every}"\nwhen = "advance"\nproration = "actual_days"\n'
            f"{more}\n")


def once(more: str) -> str:
    return f'[[plan.once]]\nname = "O"\n{more}\n'


def traffic(more: str, name: str = "T") -> str:
    return f'[[plan.traffic]]\nname = "{name}"\ndirection = "down"\n{more}\n'


def quota(more: str = "") -> str:
    return f'[[plan.quota]]\nname = "Q"\nvolume = "10 GB"\ndirection = "down"\n{more}\n'


def bound(kind: str, more: str = "", name: str = "M") -> str:
    return f'[[plan.{kind}]]\nname = "{name}"\namount = "5"\nshare = "actual_days"\n{more}\n'


def discount(more: str) -> str:
    return f'[[plan.discount]]\nname = "D"\n{more}\n'


PRICED = 'price = "1"\nunit = "GB"'
GRADUATED = 'model = "graduated"\nunit = "GB"\n'
CONTRACT = "[plan.contract]\nmonths = 12\n"
PERCENTILE = ('[[plan.percentile]]\nname = "P"\npercentile = 95\nconvention = "sum"\nmissing = "zero"\nprice = "1"\n'
              'unit = "Mbit/s"\n')

# what is wrong, the plan without its head, table and key that are named, part of the problem, part of the hint
BAD = [
    ("neither price nor tiers", traffic('unit = "GB"'), "T", "price", "either a price or tiers", 'model = "graduated"'),
    ("price and tiers", traffic(f'{PRICED}\nmodel = "volume"\ntiers = [ {{ price = "1" }} ]'), "T", "price",
     "either a price or tiers, not both", "tiers = "),
    ("model without tiers", traffic(f'{PRICED}\nmodel = "volume"'), "T", "model", "there are none", "drop model"),
    ("neither unit nor block", traffic('price = "1"'), "T", "unit", "what is the price for", "10^9"),
    ("unit and block", traffic(f'{PRICED}\nblock = "1 GB"'), "T", "unit", "each unit, or for each started block", "block ="),
    ("tiers without model", traffic('unit = "GB"\ntiers = [ { price = "1" } ]'), "T", "tiers",
     "its own part, or for everything", "volume"),
    ("no tiers", traffic(f"{GRADUATED}tiers = []"), "T", "tiers", "empty", "at least"),
    ("a block beside tiers", traffic(f'{GRADUATED}block = "1 GB"\ntiers = [ {{ price = "1" }} ]'), "T", "block",
     "belongs to a tier", "block ="),
    ("tiers without unit", traffic('model = "volume"\ntiers = [ { to = "1 GB", price = "1", block = "1 GB" }, '
                                    '{ price = "2" } ]'), "T", "unit", "neither a unit nor a block", "to each tier"),
    ("the last tier ends", traffic(f'{GRADUATED}tiers = [ {{ to = "1 GB", price = "1" }} ]'), "T", "to", "above the last tier",
     "leave `to` out"),
    ("a tier without end", traffic(f'{GRADUATED}tiers = [ {{ price = "1" }}, {{ price = "2" }} ]'), "T", "to",
     "only the last tier", "where it ends"),
    ("tiers that fall", traffic(f'{GRADUATED}tiers = [ {{ to = "1 GB", price = "1" }}, {{ to = "1 GB", price = "2" }}, '
                                '{ price = "3" } ]'), "T", "to", "not above the tier before", "rise"),
    ("no amount", once('on = "start"'), "O", "amount", "there is no amount", "early end"),
    ("amount and percentage", fee() + once('on = "early_end"\namount = "1"\npercent = "50"\nof = "F"') + CONTRACT,
     "O",
     "amount", "an amount or a percentage", "of ="),
    ("a percentage at a start", fee() + once('on = "start"\npercent = "50"\nof = "F"'), "O", "percent", "at an early end",
     'on = "early_end"'),
    ("a percentage of no fee", fee() + once('on = "early_end"\npercent = "50"\nof = "G"') + CONTRACT, "O", "of", "no fee 'G'",
     "name the fee"),
    ("a percentage of a fee a day", fee(every="day") + once('on = "early_end"\npercent = "50"\nof = "F"') + CONTRACT, "O", "of",
     "no periods that could remain", "a month or longer"),
    ("of without percentage", fee() + once('on = "start"\namount = "1"\nof = "F"'), "O", "of",
     "belongs to a percentage", "drop"),
    ("early end without contract", once('on = "early_end"\namount = "1"'), "O", "on", "no contract term", "[plan.contract]"),
    ("a quota of nothing", quota(), "Q", "", "no line of traffic", "addon = true"),
    ("part of what is given once", traffic(PRICED) + quota('given = "once"\nshare = "actual_days"'), "Q", "share",
     "no part of a month", "drop share"),
    ("minimum of no line", fee() + bound("minimum", 'lines = ["G"]'), "M", "lines", "no line 'G' that comes before", "F"),
    ("minimum without any line", bound("minimum", 'lines = ["G"]'), "M", "lines", "no line 'G'", "no such lines"),
    ("minimum of a maximum", fee() + bound("minimum", 'lines = ["X"]') + bound("maximum", name="X"), "M", "lines",
     "no line 'X' that comes before", "F"),
    ("an empty list of lines", fee() + bound("maximum", "lines = []"), "M", "lines", "none, or all", "leave `lines` out"),
    ("a line under two minimums", fee() + fee(name="G") + bound("minimum", 'lines = ["F"]') +
     bound("minimum", 'lines = ["G", "F"]', "N"), "N", "lines", "minimum 'M' is of 'F' already", "without `lines` be the last"),
    ("a line under a maximum of all", fee() + bound("maximum") + bound("maximum", 'lines = ["F"]', "N"), "N", "lines",
     "maximum 'M' is of 'F' already", "the last"),
    ("maximum of two taxes", fee() + fee('tax = "reduced"', "G") + bound("maximum"), "M", "lines", "as 'standard', but some",
     "each tax category"),
    ("discount of two taxes", fee() + fee('tax = "reduced"', "G") + discount('percent = "5"\ntax = "reduced"'), "D", "lines",
     "as 'reduced', but some of its lines as 'standard'", "each tax category"),
    ("no discount", fee() + discount("months = 1"), "D", "percent", "there is no discount", "either"),
    ("two discounts in one", fee() + discount('percent = "5"\namount = "1"'), "D", "percent",
     "percentage or an amount", "either"),
    ("discount of no line", fee() + discount('percent = "5"\nlines = ["G"]'), "D", "lines", "no line 'G'", "F"),
    ("discount of an empty list", fee() + discount('percent = "5"\nlines = []'), "D", "lines", "none, or all",
     "leave `lines` out"),
    ("discount of an empty list of the service", ADDON + fee() + discount('percent = "5"\nof = "service"\nlines = []'), "D",
     "lines", "none, or all", "leave `lines` out"),
    ("discount beside nothing", fee() + discount('percent = "5"\nbeside = []'), "D", "beside", "beside none",
     "leave `beside` out"),
    ("discount on another plan", fee() + discount('percent = "5"\nof = "service"'), "D", "of", "only an add-on",
     "addon = true"),
    ("a campaign that never is", fee() + discount('percent = "5"\nstarts_from = 2026-02-01\nstarts_until = 2026-02-01'), "D",
     "starts_until", "no subscription starts", "later"),
    ("an add-on with traffic", ADDON + traffic(PRICED), "T", "", "no traffic of its own", "[[plan.quota]]"),
    ("an add-on with a percentile", ADDON + PERCENTILE, "P", "", "no traffic of its own", "[[plan.quota]]"),
    ("an add-on with a calendar", ADDON + 'calendar = "c"\n', "p", "calendar", "that zones could divide", "drop the calendar"),
]


def read(folder: Path, text: str) -> linter.Linted:
    path = folder / "plans.toml"
    path.write_text("[[plan]]\n" + HEAD + text + CALENDAR, encoding="utf-8")
    return linter.read(path, SURROUNDINGS)


@pytest.mark.parametrize("row", [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_can_be_read_two_ways_is_refused(row: tuple[str, str, str, str, str], tmp_path: Path) -> None:
    text, table, column, problem, hint = row
    found = read(tmp_path, text).problems
    assert [one.column for one in found] == [column], found
    assert problem in found[0].problem
    assert hint in found[0].hint
    lines = (tmp_path / "plans.toml").read_text(encoding="utf-8").splitlines()
    above = lines[:found[0].line]
    assert f'name = "{table}"' in "\n".join(above[max(at for at, line in enumerate(above) if line.startswith("[[plan")):]
                                            + lines[found[0].line:found[0].line + 1])


GOOD = [
    ("blocks", traffic('price = "1"\nblock = "100 MB"')),
    ("tiers of blocks only", traffic('model = "graduated"\ntiers = [ { to = "1 GB", price = "1", block = "1 MB" }, '
                                     '{ price = "2", flat = "1", block = "1 GB" } ]')),
    ("one tier", traffic(f'{GRADUATED}tiers = [ {{ price = "1" }} ]')),
    ("an early end", fee() + once('on = "early_end"\npercent = "50"\nof = "F"') + CONTRACT),
    ("a quota given once", traffic(PRICED) + quota('given = "once"\nrollover = { cap = "10 GB", periods = 12 }')),
    ("a quota of an add-on", ADDON + quota()),
    ("two minimums of different lines and one of all", fee() + fee(name="G") + bound("minimum", 'lines = ["F"]') +
     bound("minimum", 'lines = ["G"]', "N") + bound("minimum", "", "O")),
    ("a minimum and a maximum of one line", fee() + bound("minimum", 'lines = ["F"]') + bound("maximum",
     'lines = ["F", "M"]', "N")),
    ("one for each tax", fee() + fee('tax = "reduced"', "G") + bound("minimum", 'lines = ["F"]') +
     bound("minimum", 'lines = ["G"]\ntax = "reduced"', "N")),
    ("a quota of any tax", fee('tax = "reduced"') + traffic(f'{PRICED}\ntax = "reduced"') + quota() +
     bound("maximum", 'tax = "reduced"')),
    ("a discount on the service's plan", ADDON + discount('percent = "5"\nof = "service"\nlines = ["anything"]')),
]


@pytest.mark.parametrize("text", [row[1] for row in GOOD], ids=[row[0] for row in GOOD])
def test_what_can_be_read_in_one_way_is_taken(text: str, tmp_path: Path) -> None:
    linted = read(tmp_path, text)
    assert linted.problems == []
    assert plans.parse(linted.plans[0]).name == "p"


def test_a_line_that_is_wrong_by_itself_is_reported_once(tmp_path: Path) -> None:
    found = read(tmp_path, traffic('price = 1\nunit = "GB"')).problems
    assert [(one.column, "not exact" in one.problem) for one in found] == [("price", True)]
