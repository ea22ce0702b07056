"""`rate explain SERVICE PERIOD [LINE]`: a charge from the line down, in words and numbers.

    0 the charge · 1 plan version, calendar, subscription, arithmetic · 2 usage by hour and zone · 3 cell files ·
    4 flow segments · 5 exporters

Levels 0 to 2 come from the run's frozen inputs, the others from what is in the manifest now.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from core import money, periods, tables
from core.addresses import format_address
from core.errors import NotFound
from rating import engine, frozen, plans, proration, run
from rating.quotas import Pool
from rating.verification import in_ms
from storage import files, sql
from storage.home import Home

COLUMNS = ["level", "line", "what", "value", "unit", "detail"]
Row = dict[str, Any]


def explain(home: Home, service: str, period: str, line: str) -> Iterator[Row]:
    """The rows, from each charge of the service down. Raises NotFound for an unknown service or line."""
    _check_service(home, service)
    made_by = run.newest_or_hint(home, period)
    charges = [row for row in in_ms(run.charges(home, period)).to_pylist() if row["service"] == service]
    wanted = [row for row in charges if not line or row["line"] == line]
    if not wanted:
        names = ", ".join(sorted({row["line"] for row in charges}))
        raise NotFound(f"{service} has no charge{f' {line!r}' if line else ''} in {period}",
                       f"its lines are {names}" if names else "`ratemill plans list` shows whether its plan has lines")
    return _rows(home, made_by, wanted, charges)


def _check_service(home: Home, service: str) -> None:
    import difflib

    table = tables.service
    with sql.reading(sql.engine(home)) as connection:
        if connection.execute(sa.select(table.c.id).where(table.c.service == service)).first() is None:
            near = difflib.get_close_matches(service, connection.execute(sa.select(table.c.service)).scalars(), 1)
            raise NotFound(f"there is no service '{service}'",
                           f"did you mean '{near[0]}'?" if near else "`ratemill subscribers list` shows all")


def _rows(home: Home, made_by: sa.Row[Any], charges: list[Row], all_charges: list[Row]) -> Iterator[Row]:
    copy = frozen.read(home, made_by.usage_path, made_by.usage_digest)
    uses_octets = False
    for charge in charges:
        plan = next(plans.parse(document) for document in copy.plans
                    if (document["name"], document["from"]) == (charge["plan"], charge["plan_version"]))
        term = _term(copy.terms, charge)
        for level, what, value, unit, detail in _of_charge(made_by, charge, plan, term, copy, all_charges):
            yield {"level": level, "line": charge["line"], "what": what, "value": value, "unit": unit, "detail": detail}
        uses_octets = uses_octets or charge["kind"] in ("traffic", "percentile", "quota")
    if uses_octets:
        yield from _files(home, made_by.period, term["service_id"])


def _term(terms: pa.Table, charge: Row) -> Row:
    """The subscription that a charge is of: the charge's days lie within it."""
    start, end = charge["start"].isoformat(), charge["end"].isoformat()
    rows: list[Row] = terms.filter(pc.equal(terms.column("service"), charge["service"])).to_pylist()
    return next(row for row in rows if row["plan"] == charge["plan"] and row["start"] <= start
                and (row["end"] == "" or row["end"] >= end))


def _of_charge(made_by: sa.Row[Any], charge: Row, plan: plans.Plan, term: Row, copy: frozen.Frozen, charges: list[Row]
               ) -> Iterator[tuple[Any, ...]]:
    yield 0, "charge", charge["net_minor"], f"{charge['currency']} minor units, net", \
        f"{charge['start']} to {charge['end']}, {charge['quantity']} {charge['unit']} at {charge['unit_price']}"
    yield 1, "plan version", f"{plan.name} from {plan.version}", "", f"prices {'inclusive' if plan.inclusive else 'exclusive'}"
    if plan.calendar is not None:
        yield 1, "calendar", plan.calendar, "", "its version of each local date decides"
    yield 1, "subscription", f"{term['start'] or 'ever'} to {term['end'] or 'open'}", "local days", term["timezone"]
    yield 1, "rate run", made_by.id, "", f"usage {made_by.usage_path}, generation {made_by.generation or 'none'}"
    yield 1, "bookable", periods.format_instant(charge["bookable"]), "", "the earliest instant of booking"
    subscription = frozen.subscription_of(term)
    if charge["kind"] == "fee":
        fee = next(fee for fee in plan.fees if fee.name == charge["line"])
        yield from _of_fee(charge, fee, plan, subscription)
    elif charge["kind"] == "once":
        yield from _of_event(charge, next(line for line in plan.once if line.name == charge["line"]), plan, subscription)
    elif charge["kind"] == "traffic":
        line = next(line for line in plan.traffic if line.name == charge["line"])
        yield from _of_traffic(charge, line, term, copy)
    elif charge["kind"] == "percentile":
        percentile = next(line for line in plan.percentiles if line.name == charge["line"])
        yield from _of_percentile(charge, percentile, term, copy.slots)
    elif charge["kind"] == "quota":
        quota = next(line for line in plan.quotas if line.name == charge["line"])
        yield from _of_quota(charge, quota, subscription)
    elif charge["kind"] == "discount":
        discount = next(line for line in plan.discounts if line.name == charge["line"])
        yield from _of_discount(charge, discount, plan, subscription, charges)
    else:
        bounds = plan.minimums if charge["kind"] == "minimum" else plan.maximums
        yield from _of_bound(charge, next(line for line in bounds if line.name == charge["line"]), plan, charges)
    if plan.rounding != "half_up":
        yield 1, "rounding", plan.rounding, "", "once, to whole minor units"
    yield from _of_tax(charge, copy.tax)


def _of_fee(charge: Row, fee: plans.Fee, plan: plans.Plan, subscription: engine.Subscription) -> Iterator[tuple[Any, ...]]:
    many = f"{subscription.quantity} × " if subscription.quantity > 1 else ""
    yield 1, "proration", fee.proration, "", f"{fee.amount} for each {fee.every}, booked in {fee.when}"
    if fee.during != "always":
        rests = ", ".join(f"{pause.kind} {pause.start} to {pause.end}" for pause in subscription.pauses)
        yield 1, "charged while", fee.during, "", f"pauses: {rests or 'none'}"
    if fee.every == "day":
        yield 1, "arithmetic", f"{many}{fee.amount} × {(charge['end'] - charge['start']).days} days", charge["currency"], ""
        return
    part = next(proration.parts(charge["start"], charge["end"], plans.MONTHS[fee.every], charge["start"], charge["end"],
                                plan.billing_day, subscription.start))
    of = f"{part.days} of {part.period_days} days of {part.period_start} to {part.period_end}"
    if fee.proration == "daily":
        yield 1, "arithmetic", f"{many}{fee.amount} ÷ {part.period_days}, rounded, a day", charge["currency"], \
            f"{of}; the last day takes the remainder"
    else:
        share = proration.share(fee.proration, part, subscription.timezone)
        yield 1, "arithmetic", f"{many}{fee.amount} × {share.numerator}/{share.denominator}", charge["currency"], of


def _of_event(charge: Row, line: plans.Once, plan: plans.Plan, subscription: engine.Subscription) -> Iterator[tuple[Any, ...]]:
    many = f"{subscription.quantity} × " if subscription.quantity > 1 else ""
    yield 1, "event", line.on, "", f"on {charge['start']}"
    if not line.percent:
        yield 1, "arithmetic", f"{many}{line.amount}", charge["currency"], ""
        return
    assert subscription.start is not None, "an early end has both dates"
    assert subscription.end is not None, "an early end has both dates"
    fee = next(fee for fee in plan.fees if fee.name == line.of)
    until = periods.add_months(subscription.start, plan.contract_months, subscription.start.day)
    remaining = engine.remaining_fees(fee, plan, subscription.start, subscription.end, until)
    yield 1, "contract", f"{plan.contract_months} months", "", f"{subscription.start} to {until}, ended on {subscription.end}"
    yield 1, "arithmetic", f"{many}{line.percent} % × {fee.amount} × {remaining.numerator}/{remaining.denominator}", \
        charge["currency"], f"fees '{fee.name}' that remain"


def _of_traffic(charge: Row, line: plans.Traffic, term: Row, copy: frozen.Frozen) -> Iterator[tuple[Any, ...]]:
    rows = in_ms(copy.usage.filter(pc.equal(copy.usage.column("subscription"), term["subscription"]))).to_pylist()
    matching = [row for row in rows if line.matches(row["zone"], row["class"], row["direction"])]
    taken = [row for row in matching if line.sampled == "allow" or not row["sampled"]]
    octets = sum(row["octets"] for row in taken)
    covered = octets - sum(row.octets for row in _uncovered(charge, term, copy)
                           if line.matches(row.zone, row.class_, row.direction)
                           and (line.sampled == "allow" or not row.sampled))
    billed = engine.billed_octets(octets - covered, line.included, line.above)
    yield 1, "octets of the line", octets, "octets", \
        f"direction {line.direction}, classes {', '.join(line.classes) or 'all'}, zones {', '.join(line.zones) or 'all'}"
    refused = sum(row["octets"] for row in matching) - octets
    if refused:
        yield 1, "sampled and refused", refused, "octets", "volume of a sampled exporter is not priced by this line"
    if covered:
        yield 1, "covered by quotas", covered, "octets", f"{octets - covered} remain"
    yield 1, "included", line.included, "octets", f"above: {line.above}"
    yield from _of_price(charge, line, billed)
    for row in taken:
        yield 2, f"hour {periods.format_instant(row['hour'])}", row["octets"], "octets", \
            f"zone {row['zone'] or 'none'}, class {row['class']}, {row['direction']}"


def _of_price(charge: Row, line: plans.Traffic, billed: int) -> Iterator[tuple[Any, ...]]:
    """What the billed octets cost, tier by tier."""
    if not line.tiers:
        if line.block is None:
            yield 1, "arithmetic", f"{billed} ÷ {line.unit_octets} × {line.price}", charge["currency"], ""
        else:
            yield 1, "arithmetic", f"{-(-billed // line.block)} × {line.price}", charge["currency"], \
                f"{billed} octets in started blocks of {line.block_text}"
        return
    below = 0
    for tier in line.tiers:
        reached = tier.to is None or billed <= tier.to
        part = billed if line.model == "volume" else min(billed, billed if tier.to is None else tier.to) - below
        if line.model == "graduated" or reached:
            count = f"{part} ÷ {line.unit_octets}" if tier.block is None else f"{-(-part // tier.block)} blocks"
            yield 1, "arithmetic", f"{tier.flat} + {count} × {tier.price}", charge["currency"], \
                f"{line.model}: above {below} octets" + ("" if tier.to is None else f" to {tier.to}")
        if reached:
            return
        below = tier.to or below


def _service(charge: Row, copy: frozen.Frozen) -> list[engine.Stretch]:
    """The stretches of a charge's service in its period."""
    catalogue = plans.Catalogue(plans.parse(document) for document in copy.plans)
    rows = copy.terms.filter(pc.equal(copy.terms.column("service"), charge["service"])).to_pylist()
    ordered = sorted(map(frozen.subscription_of, rows), key=engine.rank)
    found = (engine.stretch_of(row, catalogue, charge["period"]) for row in ordered)
    return [stretch for stretch in found if stretch is not None]


def _uncovered(charge: Row, term: Row, copy: frozen.Frozen) -> list[engine.Usage]:
    """The usage of the charge's subscription that no quota covers; the service's stretches use quotas up in their order."""
    stretches = _service(charge, copy)
    pool = Pool(stretches)
    for stretch in stretches:
        if stretch.subscription.is_addon:
            continue
        number = stretch.subscription.id
        rows = copy.usage.filter(pc.equal(copy.usage.column("subscription"), number)).to_pylist()
        left = pool.use(stretch, [engine.Usage(row["zone"], row["class"], row["direction"], row["sampled"], row["octets"])
                                  for row in rows])
        if number == term["subscription"]:
            return left
    return []


def _of_quota(charge: Row, quota: plans.Quota, subscription: engine.Subscription) -> Iterator[tuple[Any, ...]]:
    many = f", {subscription.quantity} times" if subscription.quantity > 1 else ""
    yield 1, "given", quota.volume, "octets", f"{quota.given}{many}, a part of a month: {quota.share}"
    for row in subscription.carried:
        if row.quota == quota.name:
            yield 1, "carried into the period", row.octets, "octets", f"may be used up to {row.expires}"
    if quota.rollover_periods:
        yield 1, "rollover", quota.rollover_cap, "octets at most", f"for {quota.rollover_periods} more periods"
    yield 1, "used", f"{charge['quantity']} {charge['unit']}", "", \
        f"direction {quota.direction}, classes {', '.join(quota.classes) or 'all'}, zones {', '.join(quota.zones) or 'all'}"


def _amount(charge: Row) -> int:
    found: int = charge["net_minor"] if charge["gross_minor"] is None else charge["gross_minor"]
    return found


def _same_stretch(charge: Row, plan: plans.Plan, charges: list[Row]) -> list[Row]:
    """The other charges of a plan's stretch: those of its version."""
    return [row for row in charges if (row["plan"], row["plan_version"]) == (plan.name, plan.version) and row is not charge]


def _of_bound(charge: Row, line: plans.Bound, plan: plans.Plan, charges: list[Row]) -> Iterator[tuple[Any, ...]]:
    after = ("discount", "maximum") if charge["kind"] == "maximum" else ("discount", "maximum", "minimum")
    rows = [row for row in _same_stretch(charge, plan, charges)
            if row["kind"] not in after and (not line.lines or row["line"] in line.lines)]
    total = sum(map(_amount, rows))
    yield 1, "sum of the lines", total, f"{charge['currency']} minor units", ", ".join(sorted({row["line"] for row in rows}))
    yield 1, "arithmetic", f"{line.amount} × {charge['quantity']} - {total} minor units", charge["currency"], \
        f"no less than 0: the {charge['kind']}" if charge["kind"] == "minimum" else "no more than 0: the maximum"


def _of_discount(charge: Row, line: plans.Discount, plan: plans.Plan, subscription: engine.Subscription, charges: list[Row]
                 ) -> Iterator[tuple[Any, ...]]:
    window = engine.discount_days(subscription, line)
    shown = ", ".join(f"{start or 'ever'} to {end or 'open'}" for start, end in window)
    yield 1, "holds", shown, "local days", f"on {line.of} lines: {', '.join(line.lines) or 'all'}"
    if not line.percent:
        yield 1, "arithmetic", f"{line.amount} × {charge['quantity']}", charge["currency"], "no more than the lines come to"
        return
    of = _same_stretch(charge, plan, charges) if line.of == "own" else [row for row in charges if row["plan"] != plan.name]
    for row in of:
        days = engine.overlap(window, row["start"], row["end"])
        if row["kind"] != "discount" and (not line.lines or row["line"] in line.lines) and days:
            yield 1, "arithmetic", f"{line.percent} % × {_amount(row)} × {days}/{(row['end'] - row['start']).days}", \
                f"{charge['currency']} minor units", f"of '{row['line']}'"


def _of_percentile(charge: Row, line: plans.Percentile, term: Row, slots: pa.Table) -> Iterator[tuple[Any, ...]]:
    rows = in_ms(slots.filter(pc.equal(slots.column("subscription"), term["subscription"]))).to_pylist()
    by_slot: dict[int, dict[str, int]] = {}
    for row in rows:
        sums = by_slot.setdefault(row["slot"], {"up": 0, "down": 0})
        sums[row["direction"]] += row["octets"]
    zone = term["timezone"]
    first, last = (periods.local_day_start(charge[name], zone) for name in ("start", "end"))
    every = -(-last // periods.FIVE_MINUTES_MS) - first // periods.FIVE_MINUTES_MS
    active = sum(1 for sums in by_slot.values() if sums["up"] or sums["down"])
    count = every if line.missing == "zero" else active
    drop = (100 - line.percentile) * count // 100
    yield 1, "slots", count, "5-minute slots", f"{active} with traffic, missing ones: {line.missing}"
    highest_percent = engine.decimal_text(100 - line.percentile)
    yield 1, "dropped", drop, "5-minute slots", f"the highest {highest_percent} % by {line.convention}"
    yield 1, "committed", engine.decimal_text(line.committed), "bit/s", "the least that is billed"
    yield 1, "arithmetic", f"{charge['quantity']} × {charge['unit_price']}", charge["currency"], \
        "octets of the slot × 8 ÷ 300 bit/s, exact; the quantity is shown to 6 decimals"
    highest = sorted(by_slot, key=lambda slot: (-max(by_slot[slot].values()), slot))
    for slot in highest[:drop + 1]:
        speed = Fraction(8 * max(by_slot[slot].values()), engine.SLOT_SECONDS)
        yield 2, f"slot {periods.format_instant(slot)}", money.round_half_up(speed), "bit/s", \
            f"{by_slot[slot]['up']} octets up, {by_slot[slot]['down']} down"


def _of_tax(charge: Row, rates: list[dict[str, str]]) -> Iterator[tuple[Any, ...]]:
    if charge["gross_minor"] is None:
        return
    last = charge["end"].toordinal() - 1
    percent = max((rate["from"], rate["percent"]) for rate in rates
                  if rate["category"] == charge["tax"] and rate["from"] <= date.fromordinal(last).isoformat())[1]
    yield 1, "gross", charge["gross_minor"], f"{charge['currency']} minor units", \
        f"net = gross × 100 ÷ (100 + {percent}), rounded half-up once"


def _files(home: Home, period: str, service_id: int) -> Iterator[Row]:
    """Cell files with cells of the service in the period, the segments they were made of, and who exported those."""
    first, last = periods.period_extent(period)
    cell_file, batch, consumed, segment = tables.cell_file, tables.batch, tables.consumed, tables.segment
    with sql.reading(sql.engine(home)) as connection:
        cells = list(connection.execute(
            sa.select(cell_file).join(batch, batch.c.id == cell_file.c.batch_id)
            .where(cell_file.c.kind == "cells", batch.c.to_version.is_(None), cell_file.c.slot_first < last,
                   cell_file.c.slot_last >= first).order_by(cell_file.c.id)))
        batches = []
        for row in cells:
            octets = _octets_in(home, row, service_id, first, last)
            if octets:
                batches.append(row.batch_id)
                yield _row(3, f"cell file {row.path}", octets, "octets", f"of this service; SHA-256 {row.digest}")
        segments = list(connection.execute(
            sa.select(segment).join(consumed, consumed.c.segment_id == segment.c.id)
            .where(consumed.c.batch_id.in_(batches), segment.c.start_first < last, segment.c.end_last >= first)
            .order_by(segment.c.id)))
        for row in segments:
            yield _row(4, f"segment {row.path}", row.flows, "flows", f"collector {row.collector}; XXH3 {row.digest}")
        intake = tables.intake
        exporters = connection.execute(
            sa.select(intake.c.exporter, sa.func.sum(intake.c.flow_records).label("flows"))
            .where(intake.c.segment_id.in_([row.id for row in segments]))
            .group_by(intake.c.exporter).order_by(intake.c.exporter))
        for row in exporters:
            yield _row(5, f"exporter {format_address(row.exporter)}", int(row.flows), "flows", "in these segments")


def _octets_in(home: Home, row: sa.Row[Any], service_id: int, first: int, last: int) -> int:
    path = files.verify(home.path / row.path, row.digest)
    cells = in_ms(pq.read_table(path, columns=["service", "slot", "octets"], filters=[("service", "==", service_id)]))
    slot = cells.column("slot")
    inside = cells.filter(pc.and_(pc.greater_equal(slot, first), pc.less(slot, last)))
    return int(pc.sum(inside.column("octets")).as_py() or 0)


def _row(level: int, what: str, value: Any, unit: str, detail: str) -> Row:
    return {"level": level, "line": None, "what": what, "value": value, "unit": unit, "detail": detail}
