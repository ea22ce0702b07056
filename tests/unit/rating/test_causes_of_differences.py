"""Each cause of a difference, by figures that were worked out by hand. October 2026 has 31 days, one of 25 hours."""

from __future__ import annotations

import pytest
from twin_bills import bill, cause, fee, plan, subscription, traffic, usage

from rating.twin import prices
from rating.twin.bills import Bill

GB = 10**9


def half_october(**keys: str) -> Bill:
    """30.00 a month from 16 October: 16 of 31 days are 15.4838…"""
    return bill(plan(fee=[fee(**keys)]))


@pytest.mark.parametrize(("theirs", "name", "said"), [
    (1549, "rounding", "they round up"),
    (1500, "proration", "they prorate by thirty_day_month"),  # 15 of 30
    (1550, "proration", "they prorate by to_the_second"),  # 385 of 745 hours: 15.5033…
    (1545, "proration", "they prorate by daily"),  # 15 days at 0.97, the last at 30.00 - 30 · 0.97
    (0, "proration", "they charge nothing for a part of a fee period (none)"),
    (3000, "dates", "they bill the whole period; the subscription is from 2026-10-16 to open"),
    (1645, "dates", "they start a day earlier; the subscription is from 2026-10-16 to open"),  # 17 days
    (1452, "dates", "they do not bill the day of the start; the subscription is from 2026-10-16 to open"),  # 15 days
    (1842, "vat", "their amount includes the VAT of 19 %"),  # 15.48 · 1.19 = 18.4212
])  # fmt: skip
def test_a_fee_of_half_a_month(theirs: int, name: str, said: str) -> None:
    found = cause(half_october(), theirs)
    assert found is not None
    assert (found.name, found.detail, found.is_explained) == (name, said, True)


@pytest.mark.parametrize("theirs", [1547, 1600, 2222, 154800, -1548])
def test_what_no_policy_gives_has_no_cause(theirs: int) -> None:
    assert cause(half_october(), theirs) is None


def test_the_end_of_a_subscription_is_billed_too() -> None:
    ends = bill(plan(fee=[fee()]), subscriptions=[subscription(end="2026-10-16")])  # 15 days: 14.5161…
    found = cause(ends, 1548)
    assert found is not None
    assert found.detail == "they bill the day of the end too; the subscription is from 2026-01-01 to 2026-10-16"


def test_three_rows_are_rounded_once() -> None:
    rows = [subscription("2026-01-01", "2026-10-11"), subscription("2026-10-11", "2026-10-21", 2, previous="home"),
            subscription("2026-10-21", "", 3, previous="home")]
    found = cause(bill(plan(fee=[fee()]), subscriptions=rows), 3000)  # 9.68 + 9.68 + 10.65 here
    assert found is not None
    assert (found.name, found.detail) == ("rounding", "they round the sum of 3 rows once, half_up")


def test_tax_that_their_file_tells() -> None:
    found = cause(half_october(), 1843, tax=295)
    assert found is not None
    assert (found.name, found.detail) == ("vat", "their amount includes the tax that their file tells")


def test_another_percentage_of_tax() -> None:
    inclusive = bill(plan(prices="inclusive", fee=[fee()]), subscriptions=[subscription()])  # 30.00 with 19 %: 25.21 net
    found = cause(inclusive, 2586)  # with 16 %: 25.862…
    assert found is not None
    assert (found.name, found.detail) == ("vat", "they reckon a VAT of 16 % instead of 19 %")
    assert cause(inclusive, 3000) == ("vat", "their amount includes the VAT of 19 %", True)
    gross = bill(plan(prices="inclusive", fee=[fee()]), subscriptions=[subscription()], amounts="gross")
    assert cause(gross, 2521) == ("vat", "their amount leaves out the VAT of 19 %", True)


def test_tax_is_taken_out_of_an_amount_before_it_is_rounded() -> None:
    parts = bill(plan(prices="inclusive", fee=[fee("29.99")]))  # 15.4787… → 15.48 gross, 13.0084… → 13.01 net
    found = cause(parts, 1300)  # 15.4787… / 1.19 = 13.0073…, rounded down
    assert found is not None
    assert (found.name, found.detail) == ("rounding", "they reckon the tax before they round, down")


def used(octets: int, included: str = "100 GB", above: str = "excess") -> Bill:
    line = traffic(included=included, above=above)
    return bill(plan(traffic=[line]), hours=[usage("2026-10-20T08:00:00Z", octets)])


@pytest.mark.parametrize(("theirs", "name", "said"), [
    (931, "octet_unit", "they count GiB for GB (in prices)"),  # 20 GB are 18.6264… GiB
    (631, "octet_unit", "they count GiB for GB (in included volumes and tiers)"),  # 120 GB - 100 GiB = 12.6258… GB
    (588, "octet_unit", "they count GiB for GB (in prices and volumes)"),  # 11.7587… GiB
    (6000, "included_volume", "they include nothing"),
    (3419, "included_volume", "they include a part by the days of the subscription"),  # 16/31 of 100 GB: 51.6129… GB
])  # fmt: skip
def test_traffic_above_an_included_volume(theirs: int, name: str, said: str) -> None:
    found = cause(used(120 * GB), theirs, "Traffic")
    assert found is not None
    assert (found.name, found.detail) == (name, said)


def test_all_or_the_excess() -> None:
    found = cause(used(120 * GB, above="all"), 1000, "Traffic")
    assert found is not None
    assert found.detail == "they bill the excess only"


def test_a_quota_that_the_other_billing_lacks() -> None:
    quota = {"name": "Package", "volume": "20 GB", "direction": "both"}
    one = bill(plan(traffic=[traffic()], quota=[quota]), hours=[usage("2026-10-20T08:00:00Z", 50 * GB)])
    found = cause(one, 2500, "Traffic")
    assert found == ("included_volume", "they include nothing", True)


def test_traffic_is_rounded_by_the_hour_or_the_day() -> None:
    hours = [usage(f"2026-10-20T{hour}:00:00Z", 1_010_000_000) for hour in ("08", "09", "10")]  # 0.505 each, 1.515 in all
    found = cause(bill(plan(traffic=[traffic()]), hours=hours), 153, "Traffic")
    assert found == ("rounding", "they round each hour, half_up", True)
    days = [usage(f"2026-10-2{day}T08:00:00Z", 505_000_000) for day in (0, 0, 1, 1, 2, 2)]  # two hours a day
    days = [{**row, "hour": row["hour"] + 3_600_000 * (index % 2)} for index, row in enumerate(days)]  # 0.2525 each
    one = bill(plan(traffic=[traffic()]), hours=days)
    # an hour rounds to 0.25, six times; a day of 0.505 to 0.51, three times
    assert cause(one, 150, "Traffic") == ("rounding", "they round each hour, half_up", True)
    assert cause(one, 153, "Traffic") == ("rounding", "they round each day, half_up", True)


def test_a_quantity_that_is_rounded_or_another_one() -> None:
    one = bill(plan(traffic=[traffic()]), hours=[usage("2026-10-20T08:00:00Z", 3_034_000_000)])  # 1.517
    assert cause(one, 155, "Traffic", quantity="3.1") == (
        "quantity_rounding", "they round the quantity to 1 decimals, up: 3.1", True)
    found = cause(one, 200, "Traffic", quantity="4")
    assert found is not None
    assert (found.name, found.is_explained) == ("quantity_rounding", True)  # started GB
    found = cause(one, 205, "Traffic", quantity="4.1")
    assert found == ("other_quantity", "at the same price they bill 4.1 GB, we 3.034", False)


def test_what_follows_from_a_cause_is_seen_too() -> None:
    document = plan(fee=[fee()], discount=[{"name": "Half", "percent": "50", "lines": ["Home"]}])
    found = cause(bill(document), -750, "Half")  # half of 15.00, by thirty_day_month
    assert found == ("proration", "they prorate by thirty_day_month", True)


def sample(service: str, octets: int, theirs: int) -> prices.Sample:
    one = bill(plan(traffic=[traffic()]), hours=[usage("2026-10-20T08:00:00Z", octets)])
    rows = [charge._replace(service=service) for charge in one.rate()]
    return prices.Sample(service, rows, [one.percent(row) for row in rows], theirs)


def test_another_price_holds_for_all_services_of_a_plan() -> None:
    two = [sample("S1", 103 * GB, 5047), sample("S2", 7_500_000_000, 368)]  # 0.49: 50.47 and 3.675
    assert prices.other_price(two, "half_up", "net") == "0.49"
    assert prices.other_price(two[:1], "half_up", "net") is None  # one service is no evidence
    assert prices.other_price([*two, sample("S3", GB, 50)], "half_up", "net") is None  # S3 pays ours
    assert prices.other_price([*two, sample("S3", GB, 49)], "half_up", "net", lambda price: False) is None
