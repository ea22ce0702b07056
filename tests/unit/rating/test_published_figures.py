"""Figures that other billing systems publish (shared/oracles.md), reproduced under the policy that each one names."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from core import calendars, money, periods
from rating import engine, linter, plans, proration


def day(text: str) -> date:
    return date.fromisoformat(text)


def part(first: str, last: str, opens: str, closes: str, months: int = 1) -> proration.Part:
    return proration.Part(day(first), day(last), day(opens), day(closes), months)


def cents(amount: Fraction) -> str:
    return money.format_minor(money.to_minor(amount, "EUR"), "EUR")


ACTUAL_DAYS = [
    ("249.95", "2012-07-10", "2012-07-20", "2012-06-30", "2012-07-31", "10/31", "80.63"),
    ("599.95", "2012-05-07", "2012-06-01", "2012-05-01", "2012-06-01", "25/31", "483.83"),
    ("9.95", "2012-05-07", "2012-06-01", "2012-05-01", "2012-06-01", "25/31", "8.02"),
    ("2399.95", "2013-09-17", "2014-08-18", "2013-08-18", "2014-08-18", "335/365", "2202.69"),
    ("249.95", "2016-05-01", "2016-05-15", "2016-04-15", "2016-05-15", "14/30", "116.64"),
    ("1999.95", "2016-07-01", "2016-07-04", "2016-06-04", "2016-07-04", "3/30", "200.00"),
    ("900", "2012-05-01", "2012-05-11", "2012-05-01", "2012-06-01", "10/31", "290.32"),
]


@pytest.mark.parametrize(
    ("price", "first", "last", "opens", "closes", "quantity", "expected"),
    ACTUAL_DAYS,
    ids=[f"Kill Bill: {row[0]} {row[5]}" for row in ACTUAL_DAYS],
)
def test_actual_days(price: str, first: str, last: str, opens: str, closes: str, quantity: str, expected: str) -> None:
    paid = part(first, last, opens, closes)
    assert proration.quantity("actual_days", paid) == quantity
    assert cents(Fraction(price) * proration.share("actual_days", paid)) == expected


FRACTIONS = [
    ("2011-02-10", "2011-02-24", 1, 10, ["14/28"]),
    ("2012-02-01", "2012-02-15", 1, 1, ["14/29"]),
    ("2011-01-31", "2011-03-10", 1, 7, ["7/31", "1", "3/31"]),
    ("2011-02-10", "2011-02-24", 3, 10, ["14/89"]),
    ("2011-01-10", "2012-03-04", 12, 17, ["7/365", "1", "47/366"]),
]


@pytest.mark.parametrize(
    ("start", "end", "months", "billing_day", "expected"),
    FRACTIONS,
    ids=[f"Kill Bill: {row[0]} to {row[1]} on day {row[3]}" for row in FRACTIONS],
)
def test_whole_periods_and_fractions(start: str, end: str, months: int, billing_day: int, expected: list[str]) -> None:
    found = proration.parts(day(start), day(end), months, day(start), day(end), billing_day)
    assert [proration.quantity("actual_days", one) for one in found] == expected


def test_a_change_of_plan_bills_no_day_twice() -> None:
    """Kill Bill: 599.95 paid on 05-01; +8.02 -483.83 on 05-07; +23.19 -7.70 on 05-08; 460.32 of the credit are left."""

    def rest_of_may(price: str, since: str) -> Fraction:
        return Fraction(
            cents(
                Fraction(price) * proration.share("actual_days", part(since, "2012-06-01", "2012-05-01", "2012-06-01"))
            )
        )

    credit = rest_of_may("599.95", "2012-05-07") - rest_of_may("9.95", "2012-05-07")
    assert cents(credit) == "475.81"
    assert cents(rest_of_may("29.95", "2012-05-08")) == "23.19"
    assert cents(rest_of_may("9.95", "2012-05-08")) == "7.70"
    assert cents(credit - rest_of_may("29.95", "2012-05-08") + rest_of_may("9.95", "2012-05-08")) == "460.32"


def test_a_daily_debit_adds_up_to_the_month() -> None:
    month = [date(2026, 10, 1) + timedelta(days=n) for n in range(31)]
    debits = [
        proration.daily_minor(
            Fraction(64900), proration.Part(one, one + timedelta(days=1), month[0], date(2026, 11, 1), 1)
        )
        for one in month
    ]
    assert sum(debits) == 64900
    assert set(debits[:-1]) == {2094}
    assert debits[-1] == 2080


@pytest.mark.parametrize(
    ("first", "last", "opens", "closes", "expected"),
    [
        ("2023-05-15", "2023-05-23", "2023-05-01", "2023-06-01", "5.32"),
        ("2023-06-23", "2023-07-15", "2023-06-15", "2023-07-15", "14.63"),
        ("2023-02-01", "2023-03-01", "2023-02-01", "2023-03-01", "19.95"),
        ("2023-07-01", "2023-08-01", "2023-07-01", "2023-08-01", "19.95"),
    ],
    ids=["Kill Bill 8/30", "Kill Bill 22/30", "a short month is whole", "a long month is whole"],
)
def test_thirty_day_month(first: str, last: str, opens: str, closes: str, expected: str) -> None:
    assert cents(Fraction("19.95") * proration.share("thirty_day_month", part(first, last, opens, closes))) == expected


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("2026-05-15", "2026-05-31", 15),
        ("2026-05-31", "2026-06-01", 1),
        ("2026-05-30", "2026-05-31", 0),
        ("2026-02-15", "2026-03-01", 16),
        ("2026-01-31", "2026-03-31", 60),
    ],
)
def test_day_31_counts_as_day_30(first: str, last: str, expected: int) -> None:
    assert proration.days_30e360(day(first), day(last)) == expected


@pytest.mark.parametrize(
    ("end", "expected"),
    [("2026-01-01", 10000), ("2026-01-02", 9836)],
    ids=["supplied to 31 December: 20 %", "supplied to 1 January: 22 %"],
)
def test_the_tax_is_that_of_the_last_local_day(end: str, expected: int) -> None:
    """Russia: 20 % to 2025-12-31, 22 % from 2026-01-01."""
    plan = plans.Plan(
        "p",
        day("2020-01-01"),
        "RUB",
        "standard",
        True,
        None,
        (plans.Fee("F", "120", "year", "arrears", "whole_period"),),
        (),
        (),
    )
    row = engine.Subscription(1, "S", "p", day("2025-01-01"), day(end), "Europe/Moscow", "RUB")
    rates = {True: Fraction(22), False: Fraction(20)}
    inputs = engine.Inputs(
        "2025-12" if end == "2026-01-01" else "2026-01",
        [row],
        plans.Catalogue([plan]),
        {},
        {},
        lambda category, on: rates[on >= day("2026-01-01")],
    )
    assert [c.net_minor for c in engine.rate(inputs).charges if c.end == day(end)] == [expected]


def test_anniversaries_keep_their_day_of_the_month() -> None:
    """Lago: monthly from 2022-12-31, yearly from 2020-02-29."""
    monthly = proration.anniversaries(day("2022-12-31"), 1, 14)
    assert [str(one) for one in monthly[:4]] == ["2023-01-31", "2023-02-28", "2023-03-31", "2023-04-30"]
    assert [str(one) for one in monthly[12:]] == ["2024-01-31", "2024-02-29"]
    yearly = proration.anniversaries(day("2020-02-29"), 12, 4)
    assert [str(one) for one in yearly] == ["2021-02-28", "2022-02-28", "2023-02-28", "2024-02-29"]


def test_usage_around_the_spring_change_belongs_to_its_local_month() -> None:
    """Kill Bill #1934, America/New_York: March 3, April 4, May 2."""
    walls = [
        "03-01T04:00",
        "03-15T00:00",
        "03-31T23:59",
        "04-01T00:00",
        "04-01T00:01",
        "04-15T00:00",
        "04-30T23:59",
        "05-01T00:00",
        "05-01T00:01",
    ]
    zone = ZoneInfo("America/New_York")
    found = [
        periods.period_of(
            periods.to_ms(datetime.fromisoformat(f"2024-{wall}").replace(tzinfo=zone)), "America/New_York"
        )
        for wall in walls
    ]
    assert [found.count(month) for month in ("2024-03", "2024-04", "2024-05")] == [3, 4, 2]


CGRATES = [
    calendars.Zone("weekday", (0, 1, 2, 3, 4), 0, 18 * 60),
    calendars.Zone("evening", (0, 1, 2, 3, 4), 18 * 60, 1440),
    calendars.Zone("weekend", (5, 6), 0, 1440),
    calendars.Zone("never", default=True),
]


def zones(first: str, last: str, version: calendars.CalendarVersion) -> list[tuple[str, int]]:
    start, end = (periods.parse_instant(text) for text in (first, last))
    starts, indexes, names = calendars.edges([version], "UTC", start, end)
    lengths = np.diff([*starts.tolist(), end]) // 1000
    return [(names[index], int(length)) for index, length in zip(indexes.tolist(), lengths.tolist(), strict=True)]


def test_a_call_over_an_edge_has_two_prices() -> None:
    """CGRateS: Thu 2012-02-02 17:30-18:30 at 1.0 a second, 0.5 from 18:00, 1 to connect -> 2701."""
    version = calendars.CalendarVersion("c", day("2012-01-01"), tuple(CGRATES), frozenset())
    pieces = zones("2012-02-02T17:30:00Z", "2012-02-02T18:30:00Z", version)
    assert len(pieces) == 2
    price = {"weekday": Fraction(1), "evening": Fraction(1, 2)}
    assert 1 + sum(price[name] * seconds for name, seconds in pieces) == 2701


def test_a_weekend_away_has_five_pieces() -> None:
    """CGRateS: Fri 2012-02-24 09:50 -> Mon 02-27 18:10."""
    version = calendars.CalendarVersion("c", day("2012-01-01"), tuple(CGRATES), frozenset())
    assert [name for name, _ in zones("2012-02-24T09:50:00Z", "2012-02-27T18:10:00Z", version)] == [
        "weekday",
        "evening",
        "weekend",
        "weekday",
        "evening",
    ]


def test_a_holiday_has_the_holiday_price() -> None:
    """CGRateS: 2020-01-01 21:00 under a holiday rule."""
    version = calendars.CalendarVersion(
        "c", day("2012-01-01"), (*CGRATES, calendars.Zone("holiday", holiday=True)), frozenset({day("2020-01-01")})
    )
    assert zones("2020-01-01T21:00:00Z", "2020-01-02T06:00:00Z", version) == [
        ("holiday", 3 * 3600),
        ("weekday", 6 * 3600),
    ]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [("09:30", "21:30", ["day", "night"]), ("21:30", "09:30", ["night", "day"])],
    ids=["Stargazer 09:30-21:30", "Stargazer wrapped 21:30-09:30"],
)
def test_thresholds_by_day_and_night(start: str, end: str, expected: list[str]) -> None:
    """Stargazer: at 17:20 and 22:20; a day interval may wrap midnight."""
    zone = calendars.parse_zone({"name": "day", "start": start, "end": end})
    version = calendars.CalendarVersion(
        "c", day("2012-01-01"), (zone, calendars.Zone("night", default=True)), frozenset()
    )
    assert [
        calendars.zone_at([version], day("2026-10-05"), minute) for minute in (17 * 60 + 20, 22 * 60 + 20)
    ] == expected


QUOTA = {
    "name": "T",
    "direction": "both",
    "classes": (),
    "zones": (),
    "price": "0.10",
    "unit": "MB",
    "sampled": "refuse",
}


@pytest.mark.parametrize(
    ("above", "octets", "expected"),
    [
        ("excess", 600_000_000, 1000),
        ("all", 600_000_000, 6000),
        ("excess", 500_000_000, 0),
        ("all", 500_000_000, 0),
        ("all", 500_000_001, 5000),
    ],
    ids=["ABillS 600 MB", "everything once exceeded", "not exceeded", "exactly included", "one octet above"],
)
def test_an_included_quota(above: str, octets: int, expected: int) -> None:
    """ABillS: 500 MB included, above 0.10 a MB: 600 MB -> 10.00."""
    line = plans.Traffic(included=500_000_000, above=above, **QUOTA)  # type: ignore[arg-type]
    charged = engine.charge_traffic(_stretch(), line, [engine.Usage(None, "default", "down", False, octets)], _percent)
    assert charged.net_minor == expected


def _stretch(prices: str = "exclusive") -> engine.Stretch:
    plan = plans.Plan("p", day("2020-01-01"), "EUR", "standard", prices == "inclusive", None, (), (), ())
    subscription = engine.Subscription(1, "S", "p", day("2026-10-01"), None, "Europe/Berlin", "EUR")
    return engine.Stretch(subscription, plan, "2026-10", day("2026-10-01"), day("2026-11-01"))


def _percent(category: str, on: date) -> Fraction:
    return Fraction(12)


@pytest.mark.parametrize(
    ("slots", "rank"),
    [(8064, 404), (8928, 447), (8940, 448)],
    ids=["28 days", "31 days", "31 days with the autumn change"],
)
def test_the_95th_percentile_is_the_nth_from_the_top(slots: int, rank: int) -> None:
    values = np.arange(1, slots + 1, dtype=np.int64)
    np.random.default_rng(7).shuffle(values)
    assert engine.percentile_of(values, slots, Fraction(95)) == slots + 1 - rank


def test_october_in_berlin_has_8940_slots() -> None:
    assert engine.slots_of(_stretch()) == 8940


def test_a_price_that_includes_tax_is_kept() -> None:
    """gross_kept: 52.50 with 12 % -> net 46.88, so 5.62 of tax."""
    assert engine.net_of_gross(5250, Fraction(12)) == 4688
    fee = plans.Fee("F", "52.50", "month", "advance", "actual_days")
    charged = engine.charge_fees(_stretch("inclusive"), fee, _percent)[0]
    assert (charged.net_minor, charged.gross_minor) == (4688, 5250)


def test_half_a_cent_goes_up_and_away_from_zero() -> None:
    assert money.to_minor(Fraction("199.995"), "EUR") == 20000
    assert money.to_minor(Fraction("-199.995"), "EUR") == -20000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Fraction(5, 2), "2.5"),
        (Fraction(0), "0"),
        (Fraction(1, 1 << 40), f"{Fraction(5**40, 1)}".rjust(40, "0")),
        (Fraction(100), "100"),
    ],
)
def test_quantities_are_exact_decimals(value: Fraction, expected: str) -> None:
    text = engine.decimal_text(value)
    assert Fraction(text) == value
    assert text == expected or text == f"0.{expected}"


def test_a_bookable_instant_is_the_first_of_the_local_month() -> None:
    fees = {
        when: engine.charge_fees(_stretch(), plans.Fee("F", "1", "month", when, "none"), _percent)[0].bookable
        for when in plans.WHEN
    }
    berlin = ZoneInfo("Europe/Berlin")
    assert fees["advance"] == datetime(2026, 10, 1, tzinfo=berlin).astimezone(UTC).timestamp() * 1000
    assert fees["arrears"] == datetime(2026, 11, 1, tzinfo=berlin).astimezone(UTC).timestamp() * 1000


@pytest.mark.parametrize(
    ("when", "period", "expected"),
    [
        ("advance", "2026-02", [("2026-02-10", "2026-03-01", "19/90")]),
        ("advance", "2026-03", [("2026-03-01", "2026-06-01", "1")]),
        ("advance", "2026-04", []),
        ("arrears", "2026-04", []),
        ("arrears", "2026-05", [("2026-03-01", "2026-06-01", "1")]),
        ("arrears", "2026-06", [("2026-06-01", "2026-06-20", "19/92")]),
    ],
)
def test_a_quarterly_fee_is_in_the_period_in_which_it_begins_or_ends(
    when: str, period: str, expected: list[object]
) -> None:
    plan = plans.Plan(
        "p",
        day("2020-01-01"),
        "EUR",
        "standard",
        False,
        None,
        (plans.Fee("F", "90", "quarter", when, "actual_days"),),
        (),
        (),
    )
    row = engine.Subscription(1, "S", "p", day("2026-02-10"), day("2026-06-20"), "Europe/Berlin", "EUR")
    inputs = engine.Inputs(period, [row], plans.Catalogue([plan]), {}, {}, _percent)
    assert [(str(c.start), str(c.end), c.quantity) for c in engine.rate(inputs).charges] == expected


def test_a_row_keeps_the_version_in_force_at_its_start() -> None:
    versions = [
        plans.Plan("p", day(f"{year}-01-01"), "EUR", "standard", False, None, (), (), ()) for year in (2024, 2026, 2025)
    ]
    catalogue = plans.Catalogue(versions)
    assert catalogue.in_force("p", day("2025-12-31")) is versions[2]
    assert catalogue.in_force("p", day("2026-01-01")) is versions[1]
    assert catalogue.in_force("p", None) is versions[0]
    assert catalogue.in_force("p", day("2023-12-31")) is versions[0], "a row older than its plan takes the earliest version"
    assert catalogue.in_force("q", day("2026-01-01")) is None
    assert catalogue.in_force(None, None) is None


# the same and further figures, in the language of plans.toml


HEAD = """[[plan]]
name = "p"
from = 2000-01-01
currency = "EUR"
tax = "standard"
prices = "exclusive"
"""


def written(folder: Path, text: str) -> plans.Plan:
    """A plan as plans.toml says it; the calendar's zones are day and night."""
    path = folder / "plans.toml"
    path.write_text(HEAD + text, encoding="utf-8")
    zones = {"c": frozenset({"day", "night"})}
    found = linter.read(path, linter.Surroundings(frozenset({"standard"}), frozenset({"default"}), zones))
    assert found.problems == []
    return plans.parse(found.plans[0])


def fee_text(amount: str, every: str, proration: str, during: str = "always") -> str:
    return (f'[[plan.fee]]\nname = "F"\namount = "{amount}"\nevery = "{every}"\nwhen = "arrears"\nproration = "{proration}"\n'
            f'during = "{during}"\n')


def rated(plan: plans.Plan, start: str, end: str | None, last: str, pauses: tuple[engine.Pause, ...] = (),
          usage: list[engine.Usage] | None = None) -> list[engine.Charge]:
    """The charges of all periods from a start to the one that holds the day `last`."""
    row = engine.Subscription(1, "S", "p", day(start), None if end is None else day(end), "Europe/Berlin", "EUR", pauses=pauses)
    found, period = [], start[:7]
    while period <= last[:7]:
        inputs = engine.Inputs(period, [row], plans.Catalogue([plan]), {1: usage or []}, {}, _percent)
        found += engine.rate(inputs).charges
        period = periods.next_period(period)
    return found


BILLED = [
    ("249.95", "month", 31, "2012-07-10", "2012-07-20", None, "10/31", 8063),
    ("599.95", "month", 1, "2012-05-07", "2012-06-01", None, "25/31", 48383),
    ("9.95", "month", 1, "2012-05-07", "2012-06-01", None, "25/31", 802),
    ("2399.95", "year", 18, "2013-09-17", "2014-08-18", "2013-08-18", "335/365", 220269),
    ("249.95", "month", 15, "2016-05-01", "2016-05-15", None, "14/30", 11664),
    ("1999.95", "month", 4, "2016-07-01", "2016-07-04", None, "3/30", 20000),
    ("900", "month", 1, "2012-05-01", "2012-05-11", None, "10/31", 29032),
]


@pytest.mark.parametrize(("price", "every", "billing_day", "first", "end", "since", "quantity", "expected"), BILLED,
                         ids=[f"Kill Bill: {row[0]} {row[6]} on day {row[2]}" for row in BILLED])
def test_a_part_between_billing_days(price: str, every: str, billing_day: int, first: str, end: str, since: str | None,
                                     quantity: str, expected: int, tmp_path: Path) -> None:
    """Where the published fee period began before its first day the service rested until then."""
    plan = written(tmp_path, f"billing_day = {billing_day}\n" + fee_text(price, every, "actual_days", "active"))
    pauses = (engine.Pause(day(since), day(first), "vacation"),) if since else ()
    found = rated(plan, since or first, end, end, pauses)
    assert [(str(c.start), str(c.end), c.quantity, c.net_minor) for c in found] == [(first, end, quantity, expected)]


@pytest.mark.parametrize(("start", "end", "months", "billing_day", "expected"), FRACTIONS,
                         ids=[f"Kill Bill: {row[0]} to {row[1]} charged on day {row[3]}" for row in FRACTIONS])
def test_charges_are_whole_periods_and_fractions(start: str, end: str, months: int, billing_day: int, expected: list[str],
                                                 tmp_path: Path) -> None:
    every = {number: name for name, number in plans.MONTHS.items()}[months]
    plan = written(tmp_path, f"billing_day = {billing_day}\n" + fee_text("1", every, "actual_days"))
    assert [charge.quantity for charge in rated(plan, start, end, end)] == expected


def test_changes_of_plan_are_differences_of_charges(tmp_path: Path) -> None:
    """Kill Bill: 599.95 on 05-01; to 9.95 on 05-07: +8.02 -483.83; to 29.95 on 05-08: +23.19 -7.70."""
    def charged(price: str, start: str, end: str | None) -> int:
        plan = written(tmp_path, fee_text(price, "month", "actual_days"))
        return sum(charge.net_minor for charge in rated(plan, start, end, "2012-05-31"))

    assert charged("599.95", "2012-05-01", None) == 59995
    assert charged("9.95", "2012-05-07", None) == 802
    assert charged("599.95", "2012-05-01", "2012-05-07") - 59995 == -48383
    assert charged("29.95", "2012-05-08", None) == 2319
    assert charged("9.95", "2012-05-07", "2012-05-08") - 802 == -770
    assert 48383 - 802 - 2319 + 770 == 46032


@pytest.mark.parametrize("cut", range(2, 32))
def test_daily_debits_of_two_rows_are_the_month(cut: int, tmp_path: Path) -> None:
    """CIS: 649.00 a month of 31 days, debited each day."""
    plan = written(tmp_path, fee_text("649.00", "month", "daily"))
    before = rated(plan, "2026-10-01", f"2026-10-{cut:02d}", "2026-10-31")
    after = rated(plan, f"2026-10-{cut:02d}", "2026-11-01", "2026-10-31")
    assert [charge.net_minor for charge in before] == [2094 * (cut - 1)]
    assert sum(charge.net_minor for charge in before + after) == 64900


@pytest.mark.parametrize(("start", "end", "quantity", "expected"), [
    ("2023-05-15", "2023-05-23", "8/30", 532),
    ("2023-06-23", "2023-07-15", "22/30", 1463),
    ("2023-01-15", "2023-02-15", "1", 1995),
], ids=["Kill Bill 8/30", "Kill Bill 22/30", "Kill Bill: a full period"])
def test_thirty_day_months_between_billing_days(start: str, end: str, quantity: str, expected: int, tmp_path: Path) -> None:
    plan = written(tmp_path, "billing_day = 15\n" + fee_text("19.95", "month", "thirty_day_month"))
    assert [(c.quantity, c.net_minor) for c in rated(plan, start, end, end)] == [(quantity, expected)]


@pytest.mark.parametrize(("start", "every", "last", "expected"), [
    ("2022-12-31", "month", "2024-02-29", ["2023-01-31", "2023-02-28", "2023-03-31", "2023-04-30", "2023-05-31", "2023-06-30",
                                           "2023-07-31", "2023-08-31", "2023-09-30", "2023-10-31", "2023-11-30", "2023-12-31",
                                           "2024-01-31", "2024-02-29"]),
    ("2020-02-29", "year", "2024-02-29", ["2021-02-28", "2022-02-28", "2023-02-28", "2024-02-29"]),
], ids=["Lago: monthly from 2022-12-31", "Lago: yearly from 2020-02-29"])
def test_fees_from_anniversary_to_anniversary(start: str, every: str, last: str, expected: list[str], tmp_path: Path) -> None:
    plan = written(tmp_path, 'billing_day = "anniversary"\n' + fee_text("1", every, "actual_days"))
    found = rated(plan, start, None, last)
    assert [str(charge.end) for charge in found] == expected
    assert [str(charge.start) for charge in found] == [start, *expected[:-1]]
    assert {charge.quantity for charge in found} == {"1"}


def traffic_text(more: str) -> str:
    return f'[[plan.traffic]]\nname = "T"\ndirection = "both"\n{more}\n'


LAGO_GRADUATED = traffic_text("""model = "graduated"
unit = "kB"
tiers = [
  { to = "10 kB", price = "10", flat = "2" },
  { to = "20 kB", price = "5", flat = "3" },
  { price = "5", flat = "3" },
]""")
LAGO_VOLUME = traffic_text("""model = "volume"
unit = "kB"
tiers = [ { to = "100 kB", price = "2", flat = "10" }, { to = "200 kB", price = "1" }, { price = "0.5", flat = "50" } ]""")
LAGO_PACKAGE = traffic_text('price = "100"\nblock = "10 kB"')
KILL_BILL_BLOCKS = traffic_text("""model = "graduated"
tiers = [ { to = "1000 kB", price = "2.95", block = "100 kB" }, { price = "5.95", block = "1000 kB" } ]""")
ISP_STEPS = fee_text("10.90", "month", "actual_days") + traffic_text("""included = "10 GB"
above = "excess"
model = "graduated"
tiers = [
  { to = "1024 MB", price = "0.0031", block = "1 MB" },
  { to = "5120 MB", price = "0.0021", block = "1 MB" },
  { price = "0.0010", block = "1 MB" },
]""")
METERED = [
    *[("Lago graduated", LAGO_GRADUATED, 1000 * units, amount) for units, amount in (
        (0, "2"), (1, "12"), (10, "102"), (11, "110"), (21, "163"))],
    *[("Lago volume", LAGO_VOLUME, octets, amount) for octets, amount in (
        (1000, "12"), (100_000, "210"), (100_500, "100.5"), (200_000, "200"))],
    ("Lago package", LAGO_PACKAGE, 121_000, "1300"),
    ("Lago package, 10 free", LAGO_PACKAGE + 'included = "10 kB"\nabove = "excess"\n', 121_000, "1200"),
    *[("Kill Bill blocks", KILL_BILL_BLOCKS, 1000 * units, amount) for units, amount in (
        (99, "2.95"), (199, "5.90"), (350, "11.80"), (1000, "29.50"), (1001, "35.45"))],
    ("ISP: 1024 MB above 10 GB", ISP_STEPS, 11_024_000_000, "3.1744"),
    ("ISP: 6000 MB above 10 GB", ISP_STEPS, 16_000_000_000, "12.6560"),
    ("ABillS: 600 MB of 500 included", traffic_text('price = "0.10"\nunit = "MB"\nincluded = "500 MB"\nabove = "excess"'),
     600_000_000, "10.00"),
    *[(f"BGBilling: above 5 MB 3.19, {above}",
       traffic_text(f'price = "3.19"\nunit = "MB"\nincluded = "5 MB"\nabove = "{above}"'), 19_806_000, amount)
      for above, amount in (("excess", "47.23114"), ("all", "63.18114"))],
]


@pytest.mark.parametrize(("text", "octets", "expected"), [row[1:] for row in METERED],
                         ids=[f"{row[0]}: {row[2]} -> {row[3]}" for row in METERED])
def test_what_volume_costs(text: str, octets: int, expected: str, tmp_path: Path) -> None:
    """The exact amount; the charge is that, rounded once."""
    plan = written(tmp_path, text)
    line = plan.traffic[0]
    if line.tiers:
        assert engine.tiered(line, engine.billed_octets(octets, line.included, line.above)) == Fraction(expected)
    usage = [engine.Usage(None, "default", "down", False, octets)]
    charged = [c.net_minor for c in rated(plan, "2026-10-01", None, "2026-10-31", usage=usage) if c.kind == "traffic"]
    assert charged == [money.to_minor(Fraction(expected), "EUR")]


def test_a_quota_of_500_mb_costs_as_much_as_500_mb_included(tmp_path: Path) -> None:
    """ABillS: 600 MB -> 10.00, as a quota that lines share."""
    plan = written(tmp_path, traffic_text('price = "0.10"\nunit = "MB"') +
                   '[[plan.quota]]\nname = "Q"\nvolume = "500 MB"\ndirection = "both"\n')
    usage = [engine.Usage(None, "default", way, False, 300_000_000) for way in ("up", "down")]
    found = {c.line: (c.quantity, c.net_minor) for c in rated(plan, "2026-10-01", None, "2026-10-31", usage=usage)}
    assert found == {"T": ("100", 1000), "Q": ("500", 0)}


def test_twelve_units_and_ten_more_are_twenty_two_at_once(tmp_path: Path) -> None:
    """OpenMeter: splitting a usage record never changes the price."""
    plan = written(tmp_path, LAGO_GRADUATED)
    found = []
    for split in ([22], [12, 10], [10, 12]):
        usage = [engine.Usage(None, "default", "down", False, 1000 * units) for units in split]
        found += rated(plan, "2026-10-01", None, "2026-10-31", usage=usage)
    assert found[0].net_minor == 16800
    assert found[1:] == [found[0]] * 2


STARGAZER = 'calendar = "c"\n' + "".join(f"""[[plan.traffic]]
name = "{zone}"
direction = "down"
zones = ["{zone}"]
model = "graduated"
unit = "MiB"
tiers = [ {{ to = "4 MiB", price = "{below}" }}, {{ price = "{above}" }} ]
""" for zone, below, above in (("day", 0, 1), ("night", 2, 3)))


@pytest.mark.parametrize(("start", "end", "expected"), [("09:30", "21:30", [0, 1, 2, 3]), ("21:30", "09:30", [2, 3, 0, 1])],
                         ids=["Stargazer 09:30-21:30", "Stargazer wrapped 21:30-09:30"])
def test_the_price_of_a_mib_by_day_and_night_below_and_above_the_threshold(start: str, end: str, expected: list[int],
                                                                           tmp_path: Path) -> None:
    """Stargazer: threshold 4 MiB; what one MiB more costs at 17:20 and 22:20, at 0 and at 6 MiB."""
    lines = {line.name: line for line in written(tmp_path, STARGAZER).traffic}
    zone = calendars.parse_zone({"name": "day", "start": start, "end": end})
    version = calendars.CalendarVersion("c", day("2012-01-01"), (zone, calendars.Zone("night", default=True)), frozenset())
    found = []
    for minute in (17 * 60 + 20, 22 * 60 + 20):
        line = lines[calendars.zone_at([version], day("2026-10-05"), minute)]
        found += [engine.tiered(line, (mib + 1) << 20) - engine.tiered(line, mib << 20) for mib in (0, 6)]
    assert found == expected
