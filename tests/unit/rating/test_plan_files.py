"""What plans.toml may say, and what each mistake in it is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import Problem
from rating import linter, plans

SURROUNDINGS = linter.Surroundings(
    frozenset({"standard"}), frozenset({"default", "peering"}), {"old": frozenset({"x"})}
)
CALENDAR = """[[calendar]]
name = "c"
from = 2026-01-01
zones = [
  { name = "day", days = ["mon"], start = "08:00", end = "23:00" },
  { name = "night", default = true },
]
"""
PLAN = """[[plan]]
name = "p"
from = 2026-01-01
currency = "EUR"
tax = "standard"
prices = "exclusive"
"""
FEE = """[[plan.fee]]
name = "F"
amount = "1"
every = "month"
when = "advance"
proration = "none"
"""
TRAFFIC = """[[plan.traffic]]
name = "T"
direction = "down"
price = "1"
unit = "GB"
"""
PERCENTILE = """[[plan.percentile]]
name = "P"
percentile = 95
convention = "sum"
missing = "zero"
price = "1"
unit = "Mbit/s"
"""


def read(tmp_path: Path, text: str) -> linter.Linted:
    path = tmp_path / "plans.toml"
    path.write_text(text, encoding="utf-8")
    return linter.read(path, SURROUNDINGS)


def changed(text: str, old: str, new: str) -> str:
    assert old in text, old
    return text.replace(old, new)


# what is wrong, the file, (line, column, part of the problem, part of the hint)
BAD = [
    ("not TOML", "[[plan]\n", (1, "", "is not TOML", "")),
    ("empty", "", (1, "", "neither", "describe")),
    ("unknown table", "[[plans]]\nname = 'x'\n", (1, "plans", "unknown key 'plans'", "'plan'")),
    ("a single table", "[plan]\nname = 'x'\n", (1, "plan", "list of tables", "")),
    ("unknown key", changed(PLAN, "prices", 'calender = "c"\nprices'), (6, "calender", "unknown key", "'calendar'")),
    ("date in quotes", changed(PLAN, "2026-01-01", '"2026-01-01"'), (3, "from", "is not a date", "")),
    ("date and time", changed(PLAN, "2026-01-01", "2026-01-01T00:00:00Z"), (3, "from", "is not a date", "")),
    ("no version date", changed(PLAN, "from = 2026-01-01\n", ""), (1, "from", "has no 'from'", "valid")),
    ("unknown tax", changed(PLAN, '"standard"', '"standrad"'), (5, "tax", "no [[tax]]", "'standard'")),
    ("currency", changed(PLAN, '"EUR"', '"Euro"'), (4, "currency", "three capital letters", "")),
    (
        "prices unsaid",
        changed(PLAN, 'prices = "exclusive"\n', ""),
        (1, "prices", "has no 'prices'", "exclusive or inclusive"),
    ),
    ("prices wrong", changed(PLAN, "exclusive", "exclusiv"), (6, "prices", "none of", "exclusive or inclusive")),
    ("missing calendar", PLAN + 'calendar = "d"\n' + CALENDAR, (7, "calendar", "no calendar 'd'", "")),
    ("amount as float", PLAN + changed(FEE, '"1"', "19.90"), (9, "amount", "is not exact", "")),
    ("amount as number", PLAN + changed(FEE, '"1"', "19"), (9, "amount", "is not exact", "")),
    ("amount negative", PLAN + changed(FEE, '"1"', '"-1"'), (9, "amount", "negative", "")),
    ("amount with comma", PLAN + changed(FEE, '"1"', '"19,90"'), (9, "amount", "is not a price", "")),
    ("amount too fine", PLAN + changed(FEE, '"1"', '"1.0000000001"'), (9, "amount", "nine decimals", "")),
    ("amount in other digits", PLAN + changed(FEE, '"1"', '"١"'), (9, "amount", "digits 0 to 9", "")),
    ("every", PLAN + changed(FEE, '"month"', '"week"'), (10, "every", "none of day, month", "")),
    ("when unsaid", PLAN + changed(FEE, 'when = "advance"\n', ""), (7, "when", "has no 'when'", "advance or arrears")),
    (
        "proration unsaid",
        PLAN + changed(FEE, 'proration = "none"\n', ""),
        (7, "proration", "has no", "what a part costs"),
    ),
    (
        "30 days of a day",
        PLAN + changed(changed(FEE, "month", "day"), '"none"', '"thirty_day_month"'),
        (12, "proration", "for each day", "actual_days"),
    ),
    (
        "two lines of a name",
        PLAN + FEE + changed(TRAFFIC, '"T"', '"F"'),
        (14, "name", "a line 'F' already, in line 8", "its own"),
    ),
    ("name with a line break", PLAN + changed(FEE, '"F"', '"F\\nG"'), (8, "name", "control characters", "")),
    ("unit unsaid", PLAN + changed(TRAFFIC, 'unit = "GB"\n', ""), (7, "unit", "has no 'unit'", "10^9")),
    ("unit unknown", PLAN + changed(TRAFFIC, "GB", "gb"), (11, "unit", "none of", "10^9")),
    ("above unsaid", PLAN + TRAFFIC + 'included = "1 GB"\n', (7, "above", "only the excess", "all")),
    (
        "included without unit",
        PLAN + TRAFFIC + 'included = "100"\nabove = "all"\n',
        (12, "included", "a number and a unit", ""),
    ),
    (
        "half an octet",
        PLAN + TRAFFIC + 'included = "0.5 B"\nabove = "all"\n',
        (12, "included", "whole number of octets", ""),
    ),
    ("unknown class", PLAN + TRAFFIC + 'classes = ["peerin"]\n', (12, "classes", "no [[class]] 'peerin'", "'peering'")),
    ("zones without calendar", PLAN + TRAFFIC + 'zones = ["day"]\n', (12, "zones", "without a calendar", "calendar =")),
    (
        "unknown zone",
        CALENDAR + PLAN + 'calendar = "c"\n' + TRAFFIC + 'zones = ["dya"]\n',
        (20, "zones", "no zone 'dya'", "'day'"),
    ),
    (
        "zone of a stored calendar",
        PLAN + 'calendar = "old"\n' + TRAFFIC + 'zones = ["y"]\n',
        (13, "zones", "no zone 'y'", "x"),
    ),
    ("sampled", PLAN + TRAFFIC + "sampled = true\n", (12, "sampled", "none of refuse, allow", "")),
    ("percentile too high", PLAN + changed(PERCENTILE, "95", "101"), (9, "percentile", "at most 100", "")),
    ("percentile 0", PLAN + changed(PERCENTILE, "95", "0"), (9, "percentile", "above 0", "")),
    ("percentile as float", PLAN + changed(PERCENTILE, "95", "99.9"), (9, "percentile", "is not exact", "")),
    ("convention", PLAN + changed(PERCENTILE, '"sum"', '"max"'), (10, "convention", "none of", "higher_direction")),
    (
        "missing unsaid",
        PLAN + changed(PERCENTILE, 'missing = "zero"\n', ""),
        (7, "missing", "has no 'missing'", "left_out"),
    ),
    ("speed in octets", PLAN + PERCENTILE + 'committed = "10 MB"\n', (14, "committed", "bit/s", "")),
    (
        "twice the same version",
        PLAN + changed(PLAN, '"EUR"', '"USD"'),
        (7, "from", "is already in line 1", "date of its own"),
    ),
    (
        "no default zone",
        changed(CALENDAR, ", default = true", ', start = "00:00", end = "01:00"'),
        (4, "zones", "0 zones", "exactly one"),
    ),
    (
        "two default zones",
        changed(CALENDAR, 'days = ["mon"]', "default = true"),
        (4, "zones", "2 zones", "exactly one"),
    ),
    ("unknown day", changed(CALENDAR, '"mon"', '"monday"'), (5, "days", "'monday' is none of", "")),
    ("25 o'clock", changed(CALENDAR, "23:00", "25:00"), (5, "end", "not a time of day", "")),
    ("zone of no length", changed(CALENDAR, "23:00", "08:00"), (5, "end", "a whole day?", "24:00")),
    ("zone at 24:00", changed(CALENDAR, '"08:00"', '"24:00"'), (5, "start", "can't start at 24:00", "00:00")),
    (
        "zone without hours",
        changed(CALENDAR, 'days = ["mon"], start = "08:00", end = "23:00"', "priority = 1"),
        (5, "", "neither hours", "days"),
    ),
    (
        "overlap",
        changed(CALENDAR, '{ name = "night"', '{ name = "peak", start = "22:00", end = "09:00" },\n  { name = "night"'),
        (4, "zones", "'day' and 'peak' both hold on mon at 08:00", "priorities"),
    ),
    (
        "wrapped overlap",
        changed(
            CALENDAR,
            '{ name = "night"',
            '{ name = "peak", days = ["sun"], start = "23:30", end = "08:01" },\n  { name = "night"',
        ),
        (4, "zones", "both hold on mon at 08:00", "priorities"),
    ),
    (
        "holidays nobody knows",
        changed(
            changed(CALENDAR, "zones", 'holidays = "XX"\nzones'), "default = true", "default = true, holiday = true"
        ),
        (4, "holidays", "'XX' are not known", "DE-BY"),
    ),
    (
        "holidays of no part",
        changed(
            changed(CALENDAR, "zones", 'holidays = "DE-XX"\nzones'), "default = true", "default = true, holiday = true"
        ),
        (4, "holidays", "no part 'XX'", "DE-BY"),
    ),
    (
        "holidays without zone",
        changed(CALENDAR, "zones", 'holidays = "DE"\nzones'),
        (4, "holidays", "would mean nothing", "holiday = true"),
    ),
    ("unknown key of a zone", changed(CALENDAR, "default", "defualt"), (6, "defualt", "unknown key", "'default'")),
]


@pytest.mark.parametrize(("text", "expected"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_mistake_is_named_with_its_line_and_key(
    text: str, expected: tuple[int, str, str, str], tmp_path: Path
) -> None:
    line, column, problem, hint = expected
    found = read(tmp_path, text).problems
    assert any(p.line == line and p.column == column and problem in p.problem and hint in p.hint for p in found), found
    assert all(p.problem and p.line >= 1 for p in found)


def test_all_problems_are_reported_at_once_in_order_of_lines(tmp_path: Path) -> None:
    text = changed(PLAN, '"EUR"', '"euro"') + changed(FEE, '"1"', "1.5") + changed(TRAFFIC, '"GB"', '"Gb"')
    found: list[Problem] = read(tmp_path, text).problems
    assert [(p.line, p.column) for p in found] == [(4, "currency"), (9, "amount"), (17, "unit")]


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plans.toml"
    path.write_bytes(b'[[plan]]\nname = "\xff"\n')
    assert [(p.line, p.problem) for p in linter.read(path, SURROUNDINGS).problems] == [(2, "is not UTF-8 text")]
    assert "can't be read" in linter.read(tmp_path / "absent.toml", SURROUNDINGS).problems[0].problem
    assert "can't be read" in linter.read(tmp_path, SURROUNDINGS).problems[0].problem


def test_a_byte_order_mark_and_windows_line_ends_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "plans.toml"
    path.write_bytes(b"\xef\xbb\xbf" + (PLAN + FEE).replace("\n", "\r\n").encode())
    assert linter.read(path, SURROUNDINGS).problems == []


@pytest.mark.parametrize(
    "text",
    [
        PLAN,
        PLAN + FEE + TRAFFIC + PERCENTILE,
        CALENDAR + PLAN + 'calendar = "c"\n' + TRAFFIC + 'zones = ["day"]\n',
        PLAN + TRAFFIC + 'included = "0 GB"\n',
        PLAN + changed(PERCENTILE, "95", '"99.9"'),
        changed(
            changed(CALENDAR, "zones", 'holidays = "DE-BY"\nzones'), "default = true", "default = true, holiday = true"
        ),
        changed(CALENDAR, "23:00", "24:00"),
        changed(CALENDAR, "default = true", "default = true, holiday = true"),
        changed(
            CALENDAR,
            '{ name = "night"',
            '{ name = "peak", priority = 1, start = "22:00", end = "09:00" },\n  { name = "night"',
        ),
        changed(CALENDAR, '{ name = "night"', '{ name = "day", start = "22:00", end = "09:00" },\n  { name = "night"'),
    ],
    ids=[
        "no lines",
        "every kind",
        "zones",
        "nothing included",
        "a fine percentile",
        "holidays of a part",
        "until 24:00",
        "holiday zone without holidays",
        "overlap with priority",
        "two entries of one zone",
    ],
)
def test_what_can_be_read_in_one_way_is_taken(text: str, tmp_path: Path) -> None:
    linted = read(tmp_path, text)
    assert linted.problems == []
    for document in linted.plans:
        assert plans.parse(document).name == "p"


def test_the_digest_is_of_what_the_file_says_not_of_how(tmp_path: Path) -> None:
    one = read(tmp_path, PLAN + FEE).plans[0]
    two = read(
        tmp_path, "# the same\n" + changed(PLAN, 'tax = "standard"\n', "") + "tax = 'standard'   # here\n\n" + FEE
    ).plans[0]
    assert plans.digest(one) == plans.digest(two)
    assert plans.digest(one) != plans.digest(read(tmp_path, PLAN + changed(FEE, '"1"', '"1.0"')).plans[0])
