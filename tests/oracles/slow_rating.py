"""A slow, obvious definition of the charges: no product code, decimals of 80 digits, one day and one slot at a time.

`charges` takes plans as plans.toml says them and answers {(line, start, end): (quantity, net_minor, gross_minor)}.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from typing import Any
from zoneinfo import ZoneInfo

ONE_DAY = timedelta(days=1)
PRECISION = Context(prec=80)
SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
         "bit/s": 1, "kbit/s": 10**3, "Mbit/s": 10**6, "Gbit/s": 10**9}
Result = dict[tuple[str, date, date], tuple[str, int, int | None]]


def half_up(value: Decimal) -> int:
    return int(value.quantize(Decimal(1), rounding=ROUND_HALF_UP, context=PRECISION))


def size(text: str) -> Decimal:
    match = re.fullmatch(r"\s*([0-9.]+)\s*(\S+)\s*", text)
    assert match is not None, text
    return Decimal(match[1]) * SIZES[match[2]]


def plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def seconds(day: date, zone: str) -> int:
    """Unix time of the first local second of a day (of zones whose clocks do not change over midnight)."""
    return int(datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC).timestamp())


def whole_month(year: int, month: int) -> list[date]:
    return [date(year, month, day) for day in range(1, calendar.monthrange(year, month)[1] + 1)]


def charges(plan: dict[str, Any], start: date, end: date | None, zone: str, year: int, month: int, percent: str,
            usage: list[tuple[str | None, str, str, bool, int]], slots: list[tuple[int, str, int]], digits: int = 2) -> Result:
    with localcontext(PRECISION):
        return _charges(plan, start, end, zone, year, month, percent, usage, slots, digits)


def _charges(plan: dict[str, Any], start: date, end: date | None, zone: str, year: int, month: int, percent: str,
             usage: list[tuple[str | None, str, str, bool, int]], slots: list[tuple[int, str, int]], digits: int) -> Result:
    days = [day for day in whole_month(year, month) if start <= day and (end is None or day < end)]
    if not days:
        return {}
    found: Result = {}

    def put(name: str, first: date, last: date, quantity: str, major: Decimal) -> None:
        minor = half_up(major.scaleb(digits))
        gross = None
        if plan["prices"] == "inclusive":
            gross, minor = minor, half_up(Decimal(minor) * 100 / (100 + Decimal(percent)))
        found[name, first, last + ONE_DAY] = (quantity, minor, gross)

    for fee in plan["fee"]:
        for first, last, quantity, major in _fees(fee, start, end, zone, year, month, days, digits):
            put(fee["name"], first, last, quantity, major)
    for line in plan["traffic"]:
        quantity = _volume(line, usage)
        put(line["name"], days[0], days[-1], plain(quantity), quantity * Decimal(line["price"]))
    for line in plan["percentile"]:
        speed = _speed(line, slots, seconds(days[0], zone), seconds(days[-1] + ONE_DAY, zone)) / SIZES[line["unit"]]
        shown = plain(speed.quantize(Decimal("0.000001"), rounding=ROUND_HALF_UP))
        put(line["name"], days[0], days[-1], shown, speed * Decimal(line["price"]))
    return found


def _fees(fee: dict[str, str], start: date, end: date | None, zone: str, year: int, month: int, days: list[date], digits: int
          ) -> Iterator[tuple[date, date, str, Decimal]]:
    amount = Decimal(fee["amount"])
    if fee["every"] == "day":
        each = Decimal(half_up(amount.scaleb(digits))).scaleb(-digits) if fee["proration"] == "daily" else amount
        yield days[0], days[-1], "1" if len(days) == 1 else f"{len(days)}/1", each * len(days)
        return
    length = {"month": 1, "quarter": 3, "year": 12}[fee["every"]]
    anchor = start if start.day == 1 else date(start.year + start.month // 12, start.month % 12 + 1, 1)
    for number in range(-1, 12 * 60):
        index = anchor.year * 12 + anchor.month - 1 + number * length
        months = [divmod(index + offset, 12) for offset in range(length)]
        period = [day for y, m in months for day in whole_month(y, m + 1)]
        paid = [day for day in period if start <= day and (end is None or day < end)]
        if period[0] > days[-1]:
            return
        at = paid[0 if fee["when"] == "advance" else -1] if paid else None
        if at is not None and (at.year, at.month) == (year, month):
            yield paid[0], paid[-1], *_part(fee["proration"], amount, paid, period, length, zone, digits)


def _part(policy: str, amount: Decimal, paid: list[date], period: list[date], length: int, zone: str, digits: int
          ) -> tuple[str, Decimal]:
    text = "1" if paid == period else f"{len(paid)}/{len(period)}"
    if policy == "daily":
        a_day = half_up((amount / len(period)).scaleb(digits))
        bill = dict.fromkeys(period, a_day)
        bill[period[-1]] = half_up(amount.scaleb(digits)) - a_day * (len(period) - 1)
        return text, Decimal(sum(bill[day] for day in paid)).scaleb(-digits)
    if paid == period or policy == "whole_period":
        return "1", amount
    if policy == "none":
        return f"0/{len(period)}", Decimal(0)
    if policy == "actual_days":
        return text, amount * len(paid) / len(period)
    if policy == "to_the_second":
        first, last, opens, closes = (seconds(day, zone) for day in
                                      (paid[0], paid[-1] + ONE_DAY, period[0], period[-1] + ONE_DAY))
        return text, amount * (last - first) / (closes - opens)
    begin, stop = paid[0], paid[-1] + ONE_DAY
    count = 360 * (stop.year - begin.year) + 30 * (stop.month - begin.month) + min(stop.day, 30) - min(begin.day, 30)
    return f"{count}/{30 * length}", amount * count / (30 * length)


def _volume(line: dict[str, Any], usage: list[tuple[str | None, str, str, bool, int]]) -> Decimal:
    octets = sum(octets for zone, class_, direction, sampled, octets in usage
                 if line["direction"] in (direction, "both") and (not line["classes"] or class_ in line["classes"])
                 and (not line["zones"] or zone in line["zones"]) and not (sampled and line["sampled"] == "refuse"))
    included = size(line["included"])
    if octets <= included:
        return Decimal(0)
    return (octets - included if line["above"] == "excess" else Decimal(octets)) / SIZES[line["unit"]]


def _speed(line: dict[str, Any], slots: list[tuple[int, str, int]], first: int, last: int) -> Decimal:
    """Bits a second; slots are (unix seconds, direction, octets)."""
    samples = {at: {"up": 0, "down": 0} for at in range(first, last, 300)}
    for at, direction, octets in slots:
        samples[at][direction] += octets
    used = [sample for sample in samples.values() if line["missing"] == "zero" or sample["up"] or sample["down"]]
    dropped = int((100 - Decimal(line["percentile"])) * len(used) / 100)
    series = {"sum": [[s["up"] + s["down"] for s in used]], "per_sample_max": [[max(s["up"], s["down"]) for s in used]],
              "higher_direction": [[s["up"] for s in used], [s["down"] for s in used]]}[line["convention"]]
    highest = max((sorted(values, reverse=True)[dropped] if values else 0) for values in series)
    return max(size(line["committed"]), Decimal(highest * 8) / 300)
