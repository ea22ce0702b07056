"""Figures that other billing systems publish (shared/oracles.md), reproduced under the policy that each one names."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from core import calendars, money, periods
from rating import engine, plans, proration


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
